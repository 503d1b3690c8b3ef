"""The tables of docs/wires/fhir.md, from the code: ``python -m tests.wire_page`` writes them anew.

The page is compared with what this makes, so that no table says what the code does not do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from gateway import errors
from gateway.errors import GatewayError
from gateway.fhir import audit_search, capability, outcome, search_columns, write
from gateway.fhir.search_conditions import MODIFIERS, PREFIXES
from gateway.fhir.write_kept import keep_as_sent
from tests import error_codes

PAGE = Path(__file__).parents[1] / "docs" / "wires" / "fhir.md"
#: Where a refusal that a FHIR client meets can come from.
PLACES = (
    "fhir",
    "web/body.py",
    "web/authenticators.py",
    "web/rate.py",
    "rcp/access.py",
    "rcp/dossier_states.py",
    "rcp/identity.py",
    "rcp/inscription.py",
    "rcp/fiche.py",
    "rcp/fiche_fields.py",
    "rcp/contribution.py",
    "rcp/session_plan.py",
    "rcp/step.py",
)
_MARK = "<!-- table: {} -->\n"
_END = "<!-- end -->\n"
_WRITES = (("create", "C"), ("read", "R"), ("update", "U"), ("patch", "P"), ("delete", "D"), ("search-type", "S"))
_ORDER = ("token", "reference", "string", "date", "number", "quantity", "uri", "composite")


def tables() -> dict[str, str]:
    """Name → Markdown of each generated table."""
    return {
        "resources": _rows(("type", "verbs", "what a write does"), _resources()),
        "parameters": _rows(("type", "parameters"), _parameters()),
        "modifiers": _rows(("kind", "modifiers", "prefixes"), _modifiers()),
        "errors": _rows(("HTTP", "`issue.code`", "code", "what it says"), _errors()),
    }


def _rows(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n".replace("| --- ", "|---").replace("--- |", "---|") for line in lines)


def _resources() -> Iterable[tuple[str, ...]]:
    for offer in sorted(capability.offers(capability.ROUTES), key=lambda one: one.kind):
        verbs = "".join(letter for code, letter in _WRITES if code in offer.interactions)
        handler = write._HANDLERS.get(offer.kind)
        effect = "none: read only" if handler is None else "kept as sent" if handler is keep_as_sent else "takes effect"
        yield offer.kind, verbs, effect


def _parameters() -> Iterable[tuple[str, ...]]:
    common = {code for code in search_columns.parameters("Patient") if code.startswith("_")}
    for offer in sorted(capability.offers(capability.ROUTES), key=lambda one: one.kind):
        if not offer.searched:
            continue
        own = (
            dict(audit_search.PARAMETERS)
            if offer.kind == "AuditEvent"
            else {one.code: one.kind for one in search_columns.parameters(offer.kind).values()}
        )
        by_kind = {kind: sorted(code for code in own if own[code] == kind and code not in common) for kind in _ORDER}
        kinds = (f"*{kind}* " + ", ".join(f"`{code}`" for code in codes) for kind, codes in by_kind.items() if codes)
        yield offer.kind, "; ".join(kinds)


def _modifiers() -> Iterable[tuple[str, ...]]:
    for kind in _ORDER:
        more = (":Type",) if kind == "reference" else ()
        said = [*(f":{one}" for one in MODIFIERS[kind]), *more]
        prefixes = " ".join(f"`{one}`" for one in PREFIXES) if kind in {"date", "number", "quantity"} else ""
        yield kind, " ".join(f"`{one}`" for one in said), prefixes


def _error(one: error_codes.Refusal) -> GatewayError:
    if one.category == "issue":
        return outcome.InvalidResource([outcome.Issue(code=one.code, text=one.text, rule="rule" in one.flags)])
    kind = next(
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, GatewayError) and kind.__dict__.get("category") == one.category
    )
    return kind(one.code, one.text, **dict.fromkeys(one.flags & {"rule", "precondition"}, True))


def _errors() -> Iterable[tuple[str, ...]]:
    found: dict[tuple[int, str], tuple[str, set[str]]] = {}
    for one in error_codes.refusals(*PLACES):
        if one.category in {"warning", "fault"}:
            continue
        status, _, body = outcome.answer(_error(one))
        issue = re.search(rb'"code":"([a-z-]+)"', body)
        assert issue is not None
        _, texts = found.setdefault((status, one.code), (issue.group(1).decode(), set()))
        if one.text:
            texts.add(one.text.replace("|", "\\|").replace("\n", " "))
    for (status, code), (issue_code, texts) in sorted(found.items()):
        # One text stands for all that a code says: the shortest is the plainest.
        yield str(status), issue_code, f"`{code}`", min(texts, key=len, default="")


def filled(page: str) -> str:
    """The page with each table as the code has it."""
    for name, table in tables().items():
        mark = _MARK.format(name)
        before, found, rest = page.partition(mark)
        if not found:
            raise ValueError(f"no place for the table {name}")
        page = before + mark + "\n" + table + "\n" + _END + rest.partition(_END)[2]
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
