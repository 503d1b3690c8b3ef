"""The form of a report's draft (screen E24): what it offers, how it reads what came back, how it shows it again.

Promises: whatever a draft can hold has a field here, and what a form did not bring stays as it was; a code is chosen
from its national list; a date may stop at the month or the year; every fault stands beside its field, and then nothing
is kept. Not promised: that the draft is enough to validate (`gateway.rcp.report.validate`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, NamedTuple

import msgspec

from gateway.documents.wording import RECOMMENDATIONS
from gateway.portal.forms import Faults, line, text, too_long
from gateway.portal.views import Choice, FieldGroup, FieldLine, ReportField, ReportForm
from gateway.rcp.report_draft import (
    AGREEMENTS,
    LINE_MAX_CHARS,
    LIST_MAX,
    TEXT_MAX_CHARS,
    DraftExamination,
    DraftTreatment,
)
from gateway.rcp.report_draft import ReportDraft as Draft
from gateway.terminology import code_list

__all__ = ["Given", "differing", "form_of", "lines_of", "read"]

_TREATMENTS: Final = "FRCP-TypeTraitement"
#: Lines that are offered at least; two more than are filled, up to what a draft holds.
_LINES: Final = {"traitement": 3, "examen": 2}
_RANKS: Final = 5
_DAY = re.compile(r"(?:(?:(\d{1,2})/)?(\d{1,2})/)?(\d{4})")
_ISO = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d))?)?")
_DATE_HINT: Final = "JJ/MM/AAAA, MM/AAAA ou AAAA"
_IN_LINES: Final = f"Dates : {_DATE_HINT}. Enregistrez le brouillon pour avoir d’autres lignes."


class _Said(NamedTuple):
    """One text of the draft: its attribute, the name of its field, its label; ``rows`` of a text of several lines."""

    attribute: str
    name: str
    label: str
    rows: int = 0
    hint: str = ""


_PROPOSAL: Final = (
    _Said("summary", "synthese", "Synthèse du cas", 4),
    _Said("proposal", "proposition", "Proposition de prise en charge *", 8),
    _Said("alternatives", "alternatives", "Alternatives, dans l’ordre de préférence", 3, "Une par ligne."),
)
_BESIDE: Final = (
    _Said("supportive_care", "soins-support", "Soins de support", 2),
    _Said("recourse", "recours", "Avis ou recours demandé", 2),
    _Said("follow_up", "surveillance", "Surveillance", 2),
    _Said("comment", "commentaire", "Autre", 2),
)
_FRAME: Final = (
    _Said("guideline", "referentiel", "Référentiel et version"),
    _Said("guideline_dated", "referentiel-date", "Date du référentiel", 0, _DATE_HINT),
    _Said("trial", "essai", "Essai clinique proposé"),
)
_HELD: Final = (
    _Said("tool", "outil", "Outil de visioconférence"),
    _Said("incidents", "incidents", "Incidents techniques", 2),
    _Said("remark", "remarque", "Souhaits et remarques du patient", 2),
)
_AGREEMENT: Final = "Information et accord du patient"
_TEXTS: Final = (*_PROPOSAL, *_BESIDE, *_FRAME, *_HELD)
_SPECIAL: Final = frozenset({"alternatives", "guideline_dated"})
_COMPLETE: Final = {"": None, "oui": True, "non": False}
_AGREEMENTS: Final = {"": "Non précisé", **AGREEMENTS}


@dataclass(frozen=True)
class Given:
    """What came back: the draft that it makes, if it has no fault, and where to go on."""

    draft: Draft
    faults: Faults
    then_validate: bool


# -- reading ---------------------------------------------------------------------------------------------------------


def read(fields: Mapping[str, str], known: Draft, *, asks_reason: bool) -> Given:
    """Lay the fields of a form over a draft; what the form did not have stays."""
    faults: dict[str, str] = {}
    said: dict[str, Any] = {one.attribute: _text(one, fields, faults) for one in _plain() if one.name in fields}
    if "alternatives" in fields:
        said["alternatives"] = _alternatives(fields["alternatives"], faults)
    if "referentiel-date" in fields:
        said["guideline_dated"] = _date(fields, "referentiel-date", faults)
    if _has(fields, "traitement"):
        said["treatments"] = tuple(_treatments(fields, faults))
    if _has(fields, "examen"):
        said["examinations"] = tuple(_examinations(fields, faults))
    advised = [name for name in RECOMMENDATIONS if f"recommandation-{name}" in fields]
    if advised:
        said["recommended"] = tuple(name for name in advised if fields[f"recommandation-{name}"] == "oui")
    if "enregistre" in fields:
        said["recorded_only"] = fields["enregistre"] == "oui"
    said |= _chosen(fields)
    if asks_reason:
        said |= _version(fields, faults)
    draft = msgspec.structs.replace(known, **said)
    if not (draft.proposal or draft.treatments or draft.recourse or draft.examinations or draft.follow_up):
        faults.setdefault("proposition", "Écrivez la proposition de prise en charge.")
    return Given(draft, faults, fields.get("suite") == "valider")


def _chosen(fields: Mapping[str, str]) -> dict[str, Any]:
    """Read what is chosen from a list; what is none of its choices changes nothing."""
    said: dict[str, Any] = {}
    if fields.get("accord") in _AGREEMENTS:
        said["agreement"] = fields["accord"] or None
    if fields.get("complet") in _COMPLETE:
        said["complete"] = _COMPLETE[fields["complet"]]
    return said


def _version(fields: Mapping[str, str], faults: dict[str, str]) -> dict[str, Any]:
    """Read what a new version is, and why it is made."""
    reason = line(fields.get("motif", "")) or None
    _bound("motif", reason, LINE_MAX_CHARS, faults)
    if reason is None:
        faults["motif"] = "Dites pourquoi le compte rendu est corrigé."
    return {"kind": "addendum" if fields.get("nature") == "addendum" else "correction", "reason": reason}


def _plain() -> Iterator[_Said]:
    return (one for one in _TEXTS if one.attribute not in _SPECIAL)


def _bound(name: str, value: str | None, limit: int, faults: dict[str, str]) -> None:
    if value is not None and len(value) > limit:
        faults[name] = too_long(limit)


def _text(one: _Said, fields: Mapping[str, str], faults: dict[str, str]) -> str | None:
    value = (text if one.rows else line)(fields[one.name]) or None
    _bound(one.name, value, TEXT_MAX_CHARS if one.rows else LINE_MAX_CHARS, faults)
    return value


def _alternatives(value: str, faults: dict[str, str]) -> tuple[str, ...]:
    found = tuple(filter(None, map(line, text(value).split("\n"))))
    _bound("alternatives", "".join(found), TEXT_MAX_CHARS, faults)
    if len(found) > LIST_MAX:
        faults["alternatives"] = f"{LIST_MAX} lignes au plus."
    return found


def _date(fields: Mapping[str, str], name: str, faults: dict[str, str]) -> str | None:
    """Read a date that may stop at the month or the year, as a person or as a record writes it."""
    value = line(fields.get(name, ""))
    if not value:
        return None
    french, iso = _DAY.fullmatch(value), _ISO.fullmatch(value)
    parts = french.group(3, 2, 1) if french else iso.group(1, 2, 3) if iso else ()
    said = [part.zfill(2) for part in parts if part]
    try:
        date.fromisoformat("-".join([*said, *("01",) * (3 - len(said))]))
    except ValueError:
        faults[name] = f"Écrivez une date : {_DATE_HINT}."
        return value[:LINE_MAX_CHARS]
    return "-".join(said)


def _span(fields: Mapping[str, str], base: str, faults: dict[str, str]) -> tuple[str | None, str | None]:
    start, end = (_date(fields, f"{base}-{part}", faults) for part in ("debut", "fin"))
    if start and end and f"{base}-debut" not in faults and f"{base}-fin" not in faults:
        known = min(len(start), len(end))
        if end[:known] < start[:known]:
            faults[f"{base}-fin"] = "La fin précède le début."
    return start, end


def _has(fields: Mapping[str, str], kind: str) -> bool:
    return any(name.startswith(f"{kind}-") for name in fields)


def _filled(fields: Mapping[str, str], kind: str, ignored: str = "") -> Iterator[str]:
    """Names of the lines that say something."""
    for number in range(1, LIST_MAX + 1):
        base = f"{kind}-{number}"
        said = {name for name, value in fields.items() if name.startswith(f"{base}-") and line(value)}
        if said - {f"{base}-{ignored}"}:
            yield base


def _treatments(fields: Mapping[str, str], faults: dict[str, str]) -> Iterator[DraftTreatment]:
    known = code_list(_TREATMENTS)
    for base in _filled(fields, "traitement", "rang"):
        code, rank = line(fields.get(f"{base}-code", "")), line(fields.get(f"{base}-rang", ""))
        if known.get(code) is None:
            faults[f"{base}-code"] = "Choisissez le type de traitement."
        if not (rank.isascii() and rank.isdecimal() and 1 <= int(rank[:4]) <= LIST_MAX):
            rank = "1"
        words = line(fields.get(f"{base}-precision", "")) or None
        _bound(f"{base}-precision", words, LINE_MAX_CHARS, faults)
        start, end = _span(fields, base, faults)
        yield DraftTreatment(code=code, rank=int(rank), text=words, start=start, end=end)


def _examinations(fields: Mapping[str, str], faults: dict[str, str]) -> Iterator[DraftExamination]:
    for base in _filled(fields, "examen"):
        words = line(fields.get(f"{base}-texte", ""))
        _bound(f"{base}-texte", words, LINE_MAX_CHARS, faults)
        if not words:
            faults[f"{base}-texte"] = "Dites quel examen est demandé."
        start, end = _span(fields, base, faults)
        yield DraftExamination(text=words, earliest=start, latest=end)


# -- showing ---------------------------------------------------------------------------------------------------------


def form_of(
    draft: Draft, *, action: str, asks_reason: bool, discard_url: str, faults: Faults, version: str = ""
) -> ReportForm:
    """Show a draft in its fields, with what is to be corrected."""
    return ReportForm(
        action=action,
        groups=tuple(_groups(draft, asks_reason=asks_reason)),
        discard_url=discard_url,
        version=version,
        errors=dict(faults),
    )


def differing(known: Draft, given: Draft, *, asks_reason: bool) -> dict[str, str]:
    """Say, field by field, what the draft says now and a form that was refused did not."""
    theirs, ours = ({one.name: one for one in _fields(each, asks_reason=asks_reason)} for each in (known, given))
    found = {}
    for name, field in ours.items():
        now = theirs.get(name)
        if now is None or now.value != field.value:
            found[name] = f"{field.label.rstrip(' *')} : le brouillon dit maintenant « {_in_words(now)} »."
    return found


def _fields(draft: Draft, *, asks_reason: bool) -> Iterator[ReportField]:
    for group in _groups(draft, asks_reason=asks_reason):
        yield from group.fields
        for each in group.lines:
            yield from each.fields


def _in_words(field: ReportField | None) -> str:
    if field is None or not field.value:
        return "rien" if field is None or field.kind != "case" else "non"
    return next((one.label for one in field.choices if one.value == field.value), field.value)


def lines_of(draft: Draft) -> tuple[tuple[str, str], ...]:
    """Say in labelled lines all that a draft holds, to be read again before it is validated."""
    return tuple((label, said) for label, said in _lines(draft) if said)


def _lines(draft: Draft) -> Iterator[tuple[str, str]]:
    for one in _PROPOSAL:
        yield one.label.rstrip(" *"), _field(one, draft).value
    for treatment in draft.treatments:
        known = code_list(_TREATMENTS).get(treatment.code)
        kind = known.label if known is not None else treatment.code
        said = [kind, treatment.text or "", _from_to(treatment.start, treatment.end)]
        yield f"Traitement de rang {treatment.rank}", ", ".join(filter(None, said))
    for asked in draft.examinations:
        yield "Examen demandé", ", ".join(filter(None, (asked.text, _from_to(asked.earliest, asked.latest))))
    for one in _BESIDE:
        yield one.label, _field(one, draft).value
    for name in draft.recommended:
        yield "Conseillé", RECOMMENDATIONS[name]
    for one in _FRAME:
        yield one.label, _field(one, draft).value
    if draft.recorded_only:
        yield "Dossier", "Seulement enregistré, sans discussion"
    if draft.complete is not None:
        yield "Dossier complet", "Oui" if draft.complete else "Non"
    yield _AGREEMENT, AGREEMENTS[draft.agreement] if draft.agreement else ""
    for one in _HELD:
        yield one.label, _field(one, draft).value


def _from_to(start: str | None, end: str | None) -> str:
    """« du 15/04/2026 au 05/2026 », « à partir de 2026 », « jusqu’à 05/2026 »."""
    if start and end:
        return (
            f"de {_day(start)} à {_day(end)}" if len(start) < len("2026-01-01") else f"du {_day(start)} au {_day(end)}"
        )
    return f"à partir de {_day(start)}" if start else f"jusqu’à {_day(end)}" if end else ""


def _groups(draft: Draft, *, asks_reason: bool) -> Iterable[FieldGroup]:
    yield FieldGroup("Proposition", tuple(_field(one, draft) for one in _PROPOSAL))
    treatments = _rows(draft.treatments, "traitement", _treatment)
    hint = f"Le rang 1 est la première intention ; les suivants sont les alternatives, dans l’ordre. {_IN_LINES}"
    yield FieldGroup("Traitements proposés", hint=hint, lines=treatments)
    asked = _rows(draft.examinations, "examen", _examination)
    yield FieldGroup("Examens et expertises demandés", hint=_IN_LINES, lines=asked)
    advised = tuple(
        ReportField(f"recommandation-{name}", label, "case", "oui" if name in draft.recommended else "")
        for name, label in RECOMMENDATIONS.items()
    )
    yield FieldGroup("Autour du traitement", (*(_field(one, draft) for one in _BESIDE), *advised))
    recorded = ReportField(
        "enregistre",
        "Dossier seulement enregistré : le référentiel répond, sans discussion",
        "case",
        "oui" if draft.recorded_only else "",
    )
    yield FieldGroup("Référentiel et essai", (*(_field(one, draft) for one in _FRAME), recorded))
    complete = next(value for value, known in _COMPLETE.items() if known is draft.complete)
    choices = _choices((("", "Comme la fiche le dit"), ("oui", "Oui"), ("non", "Non")), complete)
    whole = ReportField("complet", "Dossier complet lors de la réunion", "choix", complete, choices)
    said = draft.agreement or ""
    agreed = ReportField("accord", _AGREEMENT, "choix", said, _choices(tuple(_AGREEMENTS.items()), said))
    yield FieldGroup("Tenue de la réunion", (whole, agreed, *(_field(one, draft) for one in _HELD)))
    if asks_reason:
        kinds = _choices((("correction", "Correction"), ("addendum", "Complément (addendum)")), draft.kind)
        reason = ReportField("motif", "Pourquoi cette nouvelle version ? *", "ligne", draft.reason or "", required=True)
        nature = ReportField("nature", "Nature de la nouvelle version", "choix", draft.kind, kinds)
        yield FieldGroup("Nouvelle version", (nature, reason))


def _field(one: _Said, draft: Draft) -> ReportField:
    value = getattr(draft, one.attribute)
    if one.attribute == "alternatives":
        value = "\n".join(value)
    elif one.attribute == "guideline_dated":
        value = _day(value)
    return ReportField(
        one.name,
        one.label,
        "texte" if one.rows else "ligne",
        value or "",
        hint=one.hint,
        required=one.label.endswith("*"),
        rows=one.rows,
    )


def _day(value: str | None) -> str:
    """A date as a person writes it; what could not be read comes back as it was."""
    return "/".join(reversed(value.split("-"))) if value and _ISO.fullmatch(value) else value or ""


def _rows(said: Sequence[Any], kind: str, made: Any) -> tuple[FieldLine, ...]:
    count = min(LIST_MAX, max(_LINES[kind], len(said) + 2))
    padded = [*said, *(None,) * (count - len(said))]
    return tuple(made(f"{kind}-{number}", number, one) for number, one in enumerate(padded, 1))


def _treatment(base: str, number: int, one: DraftTreatment | None) -> FieldLine:
    code, rank = (one.code, one.rank) if one is not None else ("", 1)
    kinds = (("", "–"), *((known.code, known.label) for known in code_list(_TREATMENTS)))
    ranks = tuple((str(n), str(n)) for n in range(1, max(_RANKS, rank) + 1))
    return FieldLine(
        f"Traitement {number}",
        (
            ReportField(f"{base}-code", "Type", "choix", code, _choices(kinds, code), wide=True),
            ReportField(f"{base}-rang", "Rang", "choix", str(rank), _choices(ranks, str(rank))),
            ReportField(f"{base}-precision", "Précisions", "ligne", (one.text if one else None) or "", wide=True),
            *_dates(base, one.start if one else None, one.end if one else None, ("Début", "Fin")),
        ),
    )


def _examination(base: str, number: int, one: DraftExamination | None) -> FieldLine:
    return FieldLine(
        f"Examen {number}",
        (
            ReportField(f"{base}-texte", "Examen ou expertise", "ligne", one.text if one else "", wide=True),
            *_dates(base, one.earliest if one else None, one.latest if one else None, ("Au plus tôt", "Au plus tard")),
        ),
    )


def _dates(base: str, start: str | None, end: str | None, labels: tuple[str, str]) -> tuple[ReportField, ReportField]:
    return (
        ReportField(f"{base}-debut", labels[0], "ligne", _day(start)),
        ReportField(f"{base}-fin", labels[1], "ligne", _day(end)),
    )


def _choices(known: Iterable[tuple[str, str]], chosen: str) -> tuple[Choice, ...]:
    return tuple(Choice(value, label, selected=value == chosen) for value, label in known)
