"""Reports a second on one core, form by form; each run renders another question, so that nothing is remembered.

Run: ``python benchmarks/report_forms.py [seconds a line]``. Time is processor time, so that a busy machine does not
change the figures. Two limits of the same run stand beside: the CDA's bytes only parsed by lxml, and the same words on
a bare typst page without our layout. Of the full report two rates are wanted: 300 CDA a second, 20 of all its forms.
"""

from __future__ import annotations

import gc
import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import typst
from lxml import etree
from msgspec.structs import replace

from gateway.documents import frcp, pdf
from gateway.mssante.report_mail import Forms, ReportMail
from gateway.mssante.xdm_metadata import Sender
from gateway.rcp.ports import ReportLetter
from gateway.rcp.report_content import Organisation, ReportContent, decode

FIXTURES = Path(__file__).parents[1] / "fixtures" / "report"
HOUSE = Organisation(name="3C")
SENDER = Sender(
    source_id="1.2.250.1.999.77", organisation=HOUSE, application="rcp-gateway", version="0", publisher="banc"
)
MAILS = ReportMail(address="rcp@ch-exemple.mssante.fr", nil="0")
NUMBERS = itertools.count()
CDA, ALL = "CDA with our checks", "CDA, PDF and XDM zip"
WANTED = {("full", CDA): 300, ("full", ALL): 20}


def rate(work: Callable[[], object], seconds: float) -> tuple[float, float]:
    """Runs a second of processor time, and the median in milliseconds."""
    work()
    times = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return len(times) / sum(times), sorted(times)[len(times) // 2] * 1000


def lines(content: ReportContent, bare: typst.Compiler) -> list[tuple[str, Callable[[], object]]]:
    """What is measured, for one report."""
    forms = Forms(SENDER)
    rendered = forms.render(content)
    cda = next(form.content for form in rendered if form.form == "cda")
    words = "".join(str(t) for t in etree.fromstring(cda).itertext())

    def other() -> ReportContent:
        return replace(content, question=f"Question {next(NUMBERS)}")

    def mail() -> object:
        letter = ReportLetter(
            kind="M6",
            key=f"k{next(NUMBERS)}",
            at=datetime(2026, 11, 26, 17, 30, tzinfo=UTC),
            address="a@b.mssante.fr",
            recipient=content.requester,
            content=content,
            forms=rendered,
            signature="3C",
        )
        return MAILS.seal(letter)

    def page() -> object:
        return bare.compile(format="pdf", pdf_standards="a-1a", sys_inputs={"t": f"{next(NUMBERS)} {words}"})

    return [
        (CDA, lambda: frcp.render(other())),
        ("PDF/A-1a", lambda: pdf.render(other())),
        (ALL, lambda: forms.render(other())),
        ("mail of one recipient", mail),
        ("limit: the CDA parsed", lambda: etree.fromstring(cda)),
        ("limit: bare typst page", page),
    ]


def verdict(name: str, label: str, per_second: float) -> str:
    """« 300 wanted: reached », where a rate is wanted."""
    wanted = WANTED.get((name, label))
    if wanted is None:
        return ""
    return f"  {wanted} wanted: {'reached' if per_second >= wanted else 'MISSED'}"


def main() -> None:
    gc.freeze()
    gc.set_threshold(50_000)  # as the server does
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "bare.typ"
        source.write_text('#set document(title: "x")\n#sys.inputs.t\n', encoding="utf-8")
        bare = typst.Compiler(str(source), ignore_system_fonts=True)
        print(f"{'':36}{'per second':>12}{'median ms':>12}")
        for name in ("minimal", "full"):
            content = decode((FIXTURES / f"content-{name}.json").read_bytes())
            for label, work in lines(content, bare):
                per_second, median = rate(work, seconds)
                print(f"{name + ': ' + label:36}{per_second:12.0f}{median:12.2f}{verdict(name, label, per_second)}")


if __name__ == "__main__":
    main()
