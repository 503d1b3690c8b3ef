"""What pages send back, read as text: cleaned, bounded, each fault beside its field.

Promises: a form is never half taken (either every field reads or nothing is done and every fault is said); line breaks
are those of a person, control characters are gone, text is in composed form (NFC). A file is never a field here.
"""

from __future__ import annotations

import re
import unicodedata
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import FormData

from gateway.rcp.contribution import TEXT_LIMIT
from gateway.rcp.report_draft import LINE_MAX_CHARS, TEXT_MAX_CHARS

__all__ = [
    "FORM_BYTES",
    "ContributionInput",
    "Faults",
    "ReportInput",
    "fields_of",
    "line",
    "read_contribution",
    "read_ending",
    "read_report",
    "text",
]

FORM_BYTES: Final = 256 * 1024
"""Largest form of the portal, in bytes."""

Faults = Mapping[str, str]
# What a pasted text may hide: control characters but line feed and tab, and marks that reorder what is read.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_KEY: Final = re.compile(r"[A-Za-z0-9-]{8,64}")


@dataclass(frozen=True)
class ContributionInput:
    """The treating physician's section as sent.

    Parameters
    ----------
    key
        Made with the page: the same form sent twice is one contribution.
    """

    text: str
    interested: bool
    key: str


@dataclass(frozen=True)
class ReportInput:
    """The draft of a report as sent."""

    proposal: str
    alternatives: tuple[str, ...]
    guideline: str
    trial: str
    reason: str
    addendum: bool
    then_validate: bool


def fields_of(form: FormData) -> dict[str, str]:
    """Return the text fields of a form; of a field given twice the last counts."""
    return {name: value for name, value in form.multi_items() if isinstance(value, str)}


def text(value: str) -> str:
    """Return a text of several lines as a person meant it."""
    plain = value.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", _CONTROL.sub("", plain)).strip()


def line(value: str) -> str:
    """Return a text of one line."""
    return re.sub(r"\s+", " ", text(value)).strip()


def _too_long(limit: int) -> str:
    return f"Ce texte dépasse {limit} caractères."


def read_contribution(fields: Mapping[str, str]) -> tuple[ContributionInput, Faults]:
    """Read the contribution: a comment, the wish to take part, or both (S2-036)."""
    given = ContributionInput(
        text(fields.get("commentaire", "")), fields.get("interet") == "oui", _key(fields.get("version", ""))
    )
    faults: dict[str, str] = {}
    if not given.text and not given.interested:
        faults["commentaire"] = "Écrivez un commentaire, ou cochez « La discussion m’intéresse »."
    elif len(given.text) > TEXT_LIMIT:
        faults["commentaire"] = _too_long(TEXT_LIMIT)
    return given, faults


def _key(value: str) -> str:
    return value if _KEY.fullmatch(value) else uuid.uuid4().hex


def read_report(fields: Mapping[str, str], *, asks_reason: bool) -> tuple[ReportInput, Faults]:
    """Read the draft of a report."""
    lines = tuple(filter(None, map(line, text(fields.get("alternatives", "")).split("\n"))))
    given = ReportInput(
        proposal=text(fields.get("proposition", "")),
        alternatives=lines,
        guideline=line(fields.get("referentiel", "")),
        trial=line(fields.get("essai", "")),
        reason=line(fields.get("motif", "")),
        addendum=fields.get("nature") == "addendum",
        then_validate=fields.get("suite") == "valider",
    )
    faults: dict[str, str] = {}
    if not given.proposal:
        faults["proposition"] = "Écrivez la proposition de prise en charge."
    elif len(given.proposal) > TEXT_MAX_CHARS:
        faults["proposition"] = _too_long(TEXT_MAX_CHARS)
    if sum(map(len, lines)) > TEXT_MAX_CHARS:
        faults["alternatives"] = _too_long(TEXT_MAX_CHARS)
    for name, value in (("referentiel", given.guideline), ("essai", given.trial), ("motif", given.reason)):
        if len(value) > LINE_MAX_CHARS:
            faults[name] = _too_long(LINE_MAX_CHARS)
    if asks_reason and not given.reason:
        faults["motif"] = "Dites pourquoi le compte rendu est corrigé."
    return given, faults


def read_ending(fields: Mapping[str, str]) -> tuple[str, Faults]:
    """Read why a report is withdrawn or shown to its patient, and the box that confirms it."""
    reason = line(fields.get("motif", ""))
    faults: dict[str, str] = {}
    if not reason:
        faults["motif"] = "Dites pourquoi."
    elif len(reason) > LINE_MAX_CHARS:
        faults["motif"] = _too_long(LINE_MAX_CHARS)
    if fields.get("confirme") != "oui":
        faults["confirme"] = "Cochez la case pour confirmer."
    return reason, faults
