"""A Composition that a client wrote to the draft of a report, and a draft back into its sections.

[spec fhir-fr 1.14; CI-SIS FRCP 2022.01; FHIR R4 composition]

Of a report's sections those are read that its coordinator writes; the others are facts of the dossier, which the
gateway has from where they arose. Laying a draft over what was sent changes only the sections that say something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from html.parser import HTMLParser
from typing import Any

import msgspec

from gateway.fhir.translate.advice_in import coded_draft
from gateway.fhir.translate.elements import Resolve, codings, concept, nowhere
from gateway.rcp.report_draft import ReportDraft

__all__ = ["draft_of", "draft_over", "is_report", "plain"]

Tree = dict[str, Any]

_LOINC = "http://loinc.org"
_REPORT = (_LOINC, "34794-8")
#: LOINC code of a section → what of the draft it says.
_SECTIONS: Mapping[str, str] = {
    "10164-2": "summary",
    "18776-5": "proposal",
    "35510-7": "comment",
    "55112-7": "remark",
}
_TITLES: Mapping[str, str] = {
    "10164-2": "Synthèse et question",
    "18776-5": "Plan de soins",
    "35510-7": "Cadre",
    "55112-7": "Commentaires",
}
_BLOCKS = frozenset({"p", "br", "li", "tr", "div", "h1", "h2", "h3", "h4", "h5", "h6", "table", "ul", "ol"})


class _Text(HTMLParser):
    """Words of a narrative, a line a block."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        del attrs
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        self.parts.append(" ".join(data.split(" ")))


def plain(div: str) -> str:
    """Read the words of a narrative; blank lines and marks of the layout say nothing."""
    reader = _Text()
    reader.feed(div)
    lines = (" ".join(line.split()) for line in "".join(reader.parts).split("\n"))
    return "\n".join(line for line in lines if line)


def is_report(tree: Mapping[str, Any]) -> bool:
    """Whether a Composition is the report of an RCP."""
    return any((coding.get("system"), coding.get("code")) == _REPORT for coding in codings(tree.get("type")))


def _code(section: Mapping[str, Any]) -> str | None:
    found = (coding.get("code") for coding in codings(section.get("code")) if coding.get("system") == _LOINC)
    return next((code for code in found if code in _SECTIONS), None)


def _said(tree: Mapping[str, Any]) -> dict[str, str | None]:
    said: dict[str, str | None] = dict.fromkeys(_SECTIONS.values())
    for section in tree.get("section", ()):
        code = _code(section)
        if code is not None:
            said[_SECTIONS[code]] = plain(section.get("text", {}).get("div", "")) or None
    return said


def draft_of(tree: Mapping[str, Any], known: ReportDraft | None = None, resolve: Resolve = nowhere) -> ReportDraft:
    """Read the draft, its words and its coded entries; what neither can say stays as it was known.

    Raises
    ------
    InvalidContent
        ``code-inconnu``: a treatment is none of the national list.
    """
    return msgspec.structs.replace(known or ReportDraft(), **_said(tree), **coded_draft(tree, resolve))


def draft_over(base: Tree, draft: ReportDraft) -> Tree:
    """Lay a draft over what was sent: sections that say the same stay as they were sent."""
    said = _said(base)
    wanted = {code: getattr(draft, name) for code, name in _SECTIONS.items()}
    if all(said[_SECTIONS[code]] == text for code, text in wanted.items()):
        return base
    laid = []
    for section in base.get("section", ()):
        code = _code(section)
        text = wanted.pop(code, None) if code is not None else None
        if code is None or (text is not None and text == said[_SECTIONS[code]]):
            laid.append(section)
        elif text is not None:
            laid.append({**section, "text": _div(text)})
    for code, text in wanted.items():
        if text is not None:
            laid.append({"title": _TITLES[code], "code": concept(_LOINC, code), "text": _div(text)})
    return {**base, "section": laid} if laid else {name: value for name, value in base.items() if name != "section"}


def _div(text: str) -> Tree:
    lines = "".join(f"<p>{escape(line)}</p>" for line in text.split("\n"))
    return {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml" xml:lang="fr">{lines}</div>'}
