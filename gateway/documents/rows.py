"""Rows of a report, the pieces that its words are made of: `Row`, `Part`, and the small phrases that recur in them.

Promises: text of users appears as it was written, but for `clean`; a row that nobody filled in says « Non renseigné »
and is marked so. Not promised: which rows a report has; see `gateway.documents.wording`.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from msgspec import Struct

from gateway.rcp import french

if TYPE_CHECKING:
    from gateway.rcp.report_content import CodedValue, PartialDate, Person

__all__ = [
    "UNKNOWN",
    "Part",
    "Row",
    "clean",
    "coded",
    "full_name",
    "label_of",
    "partial_words",
    "period_words",
    "person_words",
    "row",
    "said_by",
    "speciality_words",
    "texts",
    "with_aside",
    "yes_no",
]

UNKNOWN = "Non renseigné"

_TITLES = {"DR": "Dr", "PR": "Pr", "PG": "Pr", "PC": "Pr"}
_CIVILITIES = {"M": "M.", "MME": "Mme"}


class Row(Struct, frozen=True, gc=False):
    """One line: a label, a text, and the anchor to which coded entries point.

    Parameters
    ----------
    known
        False when nobody said it: the text is then « Non renseigné ».
    detail
        True when another row says it already, for people: kept because a coded entry points at it.
    """

    anchor: str
    label: str
    text: str
    known: bool = True
    detail: bool = False


class Part(Struct, frozen=True):
    """A titled group of rows; ``key`` names the section of the national document that holds it."""

    key: str
    title: str
    rows: tuple[Row, ...] = ()

    @property
    def read(self) -> tuple[Row, ...]:
        """The rows that a person reads: filled in, and not said by another."""
        return tuple(row for row in self.rows if row.known and not row.detail)

    def anchor(self, name: str) -> str | None:
        """Anchor of the row of that name, or ``None`` when there is no such row."""
        return next((row.anchor for row in self.rows if row.anchor == name), None)


def clean(text: str) -> str:
    """Keep what both forms can carry: NFC, line feeds only, no control or invisible direction characters.

    XML 1.0 has no control characters, and direction overrides could make a sentence read as another.
    """
    if text.isprintable():
        return unicodedata.normalize("NFC", text).strip()
    lines = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n")
    return "\n".join([_clean_line(line) for line in lines.split("\n")]).strip()


def _clean_line(line: str) -> str:
    line = unicodedata.normalize("NFC", line)
    if line.replace(_FIXED, "").replace(_NARROW, "").isprintable():
        return line
    return "".join([c for c in line.replace("\t", " ") if unicodedata.category(c) not in _UNPRINTED])


_UNPRINTED = {"Cc", "Cf", "Cs", "Co", "Cn"}
#: The spaces of French typography: kept, and the only ones in most texts that Python does not call printable.
_FIXED, _NARROW = "\u00a0", "\u202f"


def row(anchor: str, label: str, text: str | None, *, detail: bool = False) -> Row:
    """Make a row; without a text it says that nobody said it."""
    said = clean(text) if text else ""
    return Row(anchor, label, said or UNKNOWN, bool(said), detail)


def coded(anchor: str, label: str, value: CodedValue | None) -> Row:
    """Make the row of a code: its label."""
    return row(anchor, label, label_of(value))


def label_of(value: CodedValue | None) -> str | None:
    """Give the label of a code that may be missing."""
    return value.label if value else None


def yes_no(anchor: str, label: str, value: bool | None, *, detail: bool = False) -> Row:  # noqa: FBT001 - the answer to a question is a value
    """Make the row of a yes or no."""
    if value is None:
        return Row(anchor, label, UNKNOWN, known=False, detail=detail)
    return Row(anchor, label, "Oui" if value else "Non", detail=detail)


def texts(*said: tuple[str, str, str | None]) -> tuple[Row, ...]:
    """Make rows that exist only when they say something."""
    return tuple(row(anchor, label, text) for anchor, label, text in said if text and clean(text))


def with_aside(text: str, aside: str | None) -> str:
    """« text (aside) », or the text alone."""
    return f"{text} ({aside})" if aside else text


def partial_words(value: PartialDate) -> str:
    """« 29/01/2019 », « 01/2019 » or « 2019 »."""
    return french.partial_date(value)


def period_words(start: PartialDate | None, end: PartialDate | None) -> str | None:
    """« du 01/02/2019 au 03/2019 », « le 01/02/2019 », « à partir du 02/2019 », « avant le 05/12/2019 » or ``None``."""
    if start and start == end:
        return f"{'le' if len(start) == len('2019-02-01') else 'en'} {partial_words(start)}"
    if start and end:
        return f"du {partial_words(start)} au {partial_words(end)}"
    if start:
        return f"à partir du {partial_words(start)}"
    return f"avant le {partial_words(end)}" if end else None


def person_words(person: Person) -> str:
    """« Dr Paul DURANT »: title or civility, given name, family name in capitals."""
    title = _TITLES.get(person.title or "") or _CIVILITIES.get(person.civility or "")
    return f"{title} {full_name(person)}" if title else full_name(person)


def full_name(person: Person) -> str:
    """« Paul DURANT »."""
    return " ".join(clean(p) for p in (person.given, person.family.upper()) if p)


def speciality_words(person: Person) -> str | None:
    """Say the speciality: the words frozen, else the label of the code without its profession and category."""
    if person.speciality:
        return clean(person.speciality)
    if person.profession is None:
        return None
    return person.profession.label.removeprefix("Médecin - ").removesuffix(" (SM)") or None


def said_by(person: Person | None) -> str | None:
    """« Dr Isabelle AGNES, Centre hospitalier de Valombre »: who, and where; ``None`` of nobody."""
    if person is None:
        return None
    where = clean(person.organisation.name) if person.organisation else ""
    return ", ".join(p for p in (person_words(person), where) if p)
