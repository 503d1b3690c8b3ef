"""DICOM peers in other languages, driven line by line: npm dcmjs-dimse (JavaScript) and odil (C++).

`tests/install-servers` installs them, the first from its lock file, the second as Debian's python3-odil.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.dicom.conftest import AE_TITLE, need

E2E = Path(__file__).resolve().parents[1]
DIMSE_JS = E2E / "dimse_js" / "peer.cjs"
LIBRARY = E2E.parents[1] / ".tools" / "dimse_js" / "node_modules" / "dcmjs-dimse"
ODIL = E2E / "dimse_odil" / "peer.py"
#: Debian's, which python3-odil is for; ours is another.
PYTHON = "/usr/bin/python3"


@dataclass(frozen=True)
class Taken:
    """An object as a peer received it, and what was said of it around its bytes."""

    content: bytes
    sop_class: str
    uid: str
    syntax: str


class Speaker:
    """A peer's program; each of its calls is a method here."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process, self._folder = process, folder
        self._numbers = count(1)
        self._call("keep", folder=str(folder))

    def _ask(self, what: str, **args: Any) -> int:
        number = next(self._numbers)
        self._process.stdin.write(json.dumps({"number": number, "do": what, **args}) + "\n")
        self._process.stdin.flush()
        return number

    def _answers(self, count: int) -> dict[int, dict]:
        found = (json.loads(self._process.stdout.readline()) for _ in range(count))
        return {one.pop("number"): one for one in found}

    def _call(self, what: str, **args: Any) -> dict:
        number = self._ask(what, **args)
        return self._answers(1)[number]

    def send(self, port: int, *asked: dict, calling: str = AE_TITLE, called: str = "RCPGATEWAY", **more: Any) -> dict:
        """Make these requests on one association; all that was said to them."""
        return self._call("send", port=port, asked=asked, calling=calling, called=called, **more)

    def at_once(self, port: int, *associations: list[dict], calling: str = AE_TITLE) -> list[dict]:
        """Open all these associations at the same time."""
        numbers = [
            self._ask("send", port=port, asked=asked, calling=calling, called="RCPGATEWAY") for asked in associations
        ]
        answers = self._answers(len(numbers))
        return [answers[number] for number in numbers]

    def listen(self, port: int, **more: Any) -> None:
        """Open a port that takes what comes."""
        assert self._call("listen", port=port, **more) == {}

    def reports(self) -> list[dict]:
        """What was said of storage commitments to the port that it listens at."""
        return self._call("reports")["reports"]

    def taken(self) -> list[Taken]:
        """Objects that came, in their order."""
        found = sorted(self._folder.glob("*.json"), key=lambda path: int(path.stem.rpartition("-")[2]))
        return [Taken(path.with_suffix(".bytes").read_bytes(), **json.loads(path.read_text())) for path in found]


@contextlib.contextmanager
def _running(folder: Path, *command: str) -> Iterator[Speaker]:
    folder.mkdir()
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        yield Speaker(process, folder)
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


def javascript(folder: Path) -> contextlib.AbstractContextManager[Speaker]:
    """Run dcmjs-dimse; what it receives is written into a new folder."""
    if not LIBRARY.is_dir():
        pytest.skip("dcmjs-dimse is not installed (tests/install-servers)")
    return _running(folder, need("node"), str(DIMSE_JS), str(LIBRARY))


def odil(folder: Path) -> contextlib.AbstractContextManager[Speaker]:
    """Run odil; what it receives is written into a new folder."""
    if subprocess.run([PYTHON, "-c", "import odil"], capture_output=True, check=False).returncode:
        pytest.skip("python3-odil is not installed (make test installs it as root)")
    return _running(folder, PYTHON, str(ODIL))
