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
from gateway.rcp.report_draft import LINE_MAX_CHARS

__all__ = [
    "FORM_BYTES",
    "ContributionInput",
    "Faults",
    "fields_of",
    "key_of",
    "line",
    "read_contribution",
    "read_ending",
    "text",
    "too_long",
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


def fields_of(form: FormData) -> dict[str, str]:
    """Return the text fields of a form; of a field given twice the last counts."""
    return {name: value for name, value in form.multi_items() if isinstance(value, str)}


def key_of(value: str) -> uuid.UUID | None:
    """Return the row's key that a field holds, or nothing."""
    try:
        return uuid.UUID(value)
    except ValueError:
        return None


def text(value: str) -> str:
    """Return a text of several lines as a person meant it."""
    plain = value.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", _CONTROL.sub("", plain)).strip()


def line(value: str) -> str:
    """Return a text of one line."""
    return re.sub(r"\s+", " ", text(value)).strip()


def too_long(limit: int) -> str:
    """Say that a text is too long, and the limit."""
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
        faults["commentaire"] = too_long(TEXT_LIMIT)
    return given, faults


def _key(value: str) -> str:
    return value if _KEY.fullmatch(value) else uuid.uuid4().hex


def read_ending(fields: Mapping[str, str]) -> tuple[str, Faults]:
    """Read why a report is withdrawn or shown to its patient, and the box that confirms it."""
    reason = line(fields.get("motif", ""))
    faults: dict[str, str] = {}
    if not reason:
        faults["motif"] = "Dites pourquoi."
    elif len(reason) > LINE_MAX_CHARS:
        faults["motif"] = too_long(LINE_MAX_CHARS)
    if fields.get("confirme") != "oui":
        faults["confirme"] = "Cochez la case pour confirmer."
    return reason, faults
