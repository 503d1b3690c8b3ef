"""What the fiche says, as the frozen facts of a report have it.

Promises: a code bears the OID and the label of its national list as they are at that moment; who is named by a national
number known here is copied with his speciality and structure, else by the words; what no source said stays empty, and
what a kind of meeting does not have (organs of a transversal one) is left out.

[CI-SIS FRCP 2022.01]
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, cast

from msgspec import Struct
from sqlalchemy import select
from sqlalchemy.orm import object_session

from gateway.identifiers import IdNatPs
from gateway.model.directory import Practitioner
from gateway.model.dossier import Dossier
from gateway.rcp import fiche, report_people
from gateway.rcp.fiche_fields import Field, concept_of, field_named, taken
from gateway.rcp.report_content import (
    CodedValue,
    Geriatric,
    Motives,
    OtherStage,
    PastTreatment,
    Person,
    QuotedReport,
    Tnm,
    TumourContent,
)

__all__ = ["FicheContent", "content_of"]

_TA = "1.2.250.1.213.1.1.4.322"
_TNM = re.compile(r"(?<![A-Za-z])[cpyra]*(T(?:is|[0-4X])[a-d]?|N[0-3X][a-c]?|M[01X][a-c]?)(?![A-Za-z0-9])")
_NUMBER = re.compile(r"\d{11,12}")
_ORGAN_BOARD = "ORG-117"
_CARE_BOARD = "ORG-132"


class FicheContent(Struct, frozen=True, kw_only=True):
    """The part of `gateway.rcp.report_content.ReportContent` that the fiche says; the names are the same.

    ``situation`` has no place of its own in the national report: it begins the summary.
    """

    presenter: Person | None = None
    board_kind: CodedValue | None = None
    system: CodedValue | None = None
    organs: tuple[CodedValue, ...] = ()
    care: CodedValue | None = None
    board_comment: str | None = None
    recourse_board: bool | None = None
    paediatric_board: bool | None = None
    motives: Motives = Motives()
    labels: tuple[str, ...] = ()
    case_status: Literal["enregistre", "discute"] = "discute"
    screening: bool | None = None
    tumours: tuple[TumourContent, ...] = ()
    phase: CodedValue | None = None
    phase_on: str | None = None
    phase_comment: str | None = None
    progression: bool | None = None
    progression_local: bool | None = None
    progression_regional: bool | None = None
    progression_distant: bool | None = None
    medical_history: str | None = None
    comorbidities: str | None = None
    who_status: int | None = None
    who_status_on: str | None = None
    geriatric: Geriatric | None = None
    examinations: str | None = None
    past_treatments: tuple[PastTreatment, ...] = ()
    quoted: tuple[QuotedReport, ...] = ()
    situation: str | None = None
    summary: str | None = None


def content_of(dossier: Dossier) -> FicheContent:
    """Read the fiche of a dossier as a report freezes it."""
    known = {key: one.value for key, one in fiche.statements(dossier).items()}
    said = _Said(dossier, known)
    kind = said.code("motif.type")
    nature = kind.code if kind else None
    progression = known.get("phase.progression")
    return FicheContent(
        presenter=said.person(known.get("presentateur")),
        board_kind=kind,
        system=said.code("motif.appareil") if nature == _ORGAN_BOARD else None,
        organs=said.codes("motif.organes") if nature == _ORGAN_BOARD else (),
        care=said.code("motif.soins") if nature == _CARE_BOARD else None,
        board_comment=known.get("motif.nature_commentaire"),
        recourse_board=known.get("motif.recours"),
        paediatric_board=known.get("motif.pediatrique"),
        motives=_motives(known, dossier),
        labels=tuple(known.get("etiquettes", ())),
        case_status="enregistre" if known.get("motif.statut") == "ORG-128" else "discute",
        screening=known.get("decouverte.depistage"),
        tumours=tuple(_tumours(said, dossier)),
        phase=said.code("phase.code"),
        phase_on=known.get("phase.date"),
        phase_comment=known.get("phase.commentaire"),
        progression=progression,
        # Where the disease goes on is asked only once it does.
        progression_local=known.get("phase.locale") if progression else None,
        progression_regional=known.get("phase.regionale") if progression else None,
        progression_distant=known.get("phase.distance") if progression else None,
        medical_history=known.get("antecedents.texte"),
        comorbidities=known.get("comorbidites.texte"),
        who_status=known.get("etat.oms"),
        who_status_on=known.get("etat.oms_date"),
        geriatric=_geriatric(known),
        examinations=known.get("examens.texte"),
        past_treatments=tuple(_treatments(said)),
        quoted=tuple(_quoted(said)),
        situation=known.get("etat.situation"),
        summary=known.get("histoire.resume"),
    )


class _Said:
    """Values of one fiche, with what turns them into frozen facts."""

    def __init__(self, dossier: Dossier, known: Mapping[str, Any]) -> None:
        self._session = object_session(dossier)
        self.known = known

    def code(self, key: str) -> CodedValue | None:
        return _coded(field_named(key), self.known.get(key))

    def codes(self, key: str) -> tuple[CodedValue, ...]:
        field = field_named(key)
        return tuple(found for one in self.known.get(key, ()) if (found := _coded(field, one)) is not None)

    def groups(self, key: str) -> Iterator[tuple[Mapping[str, Field], Mapping[str, Any]]]:
        parts = {part.key: part for part in field_named(key).fields}
        for one in self.known.get(key, ()):
            yield parts, one

    def person(self, words: str | None) -> Person | None:
        if not words:
            return None
        if self._session is not None and _NUMBER.fullmatch(words):
            number = IdNatPs.from_wire(words).value
            row = self._session.scalar(select(Practitioner).where(Practitioner.idnps == number))
            if row is not None:
                return report_people.person_of(row)
        return Person(family=words)


def _coded(field: Field, code: str | None) -> CodedValue | None:
    found = concept_of(field, code) if code else None
    return CodedValue(found.code, found.oid or _TA, found.label) if found is not None else None


def _motives(known: Mapping[str, Any], dossier: Dossier) -> Motives:
    """Say which of the four motives were named; none named is not known, not refused."""
    codes, words = known.get("motif.motifs"), known.get("motif.commentaire")
    if not codes:
        return Motives(comment=words or dossier.reason_text)
    return Motives(
        diagnostic_opinion="MED-235" in codes,
        treatment_proposal="ORG-114" in codes,
        recourse="ORG-115" in codes,
        paediatrics="ORG-116" in codes,
        comment=words,
    )


def _tumours(said: _Said, dossier: Dossier) -> Iterator[TumourContent]:
    main = {key.removeprefix("tumeur."): value for key, value in said.known.items() if key.startswith("tumeur.")}
    if main or dossier.label:
        parts = {part.key: part for part in field_named("tumeurs").fields}
        yield _tumour(parts, main | {"libelle": dossier.label})
    for others, one in said.groups("tumeurs"):
        yield _tumour(others, one)


def _tumour(parts: Mapping[str, Field], one: Mapping[str, Any]) -> TumourContent:
    stages = tuple(
        OtherStage(name=stage["nom"], version=stage.get("version"), value=stage["valeur"])
        for stage in one.get("autres_stades", ())
    )
    return TumourContent(
        label=one.get("libelle"),
        topography=_coded(parts["code"], one.get("code")),
        morphology=_coded(parts["morphologie"], one.get("morphologie")),
        laterality=_coded(parts["lateralite"], one.get("lateralite")),
        diagnosed_on=one.get("date"),
        tnm=_tnm(one),
        other_stage=one.get("autre_stade"),
        other_stages=stages,
        comment=one.get("commentaire"),
    )


def _tnm(one: Mapping[str, Any]) -> Tnm | None:
    """Read the coded letters; what is missing of them is looked for in the words, whose prefixes are dropped."""
    found: dict[str, str] = {}
    for value in _TNM.findall(one.get("tnm") or ""):
        # What the words say and the classification does not stays words.
        if taken(field_named(f"tumeur.{value[0].lower()}"), value) is not None:
            found.setdefault(value[0].lower(), value)
    said = {name: one.get(name) for name in ("t", "n", "m", "stade", "edition")}
    if not found and not any(said.values()):
        return None
    t, n, m = (said[name] or found.get(name) for name in ("t", "n", "m"))
    return Tnm(t=t, n=n, m=m, stage=said["stade"], edition=said["edition"])


def _geriatric(known: Mapping[str, Any]) -> Geriatric | None:
    score = known.get("etat.g8")
    if score is None:
        return None
    return Geriatric(score=score, tool=known.get("etat.g8_outil"), on=known.get("etat.g8_date"))


def _treatments(said: _Said) -> Iterator[PastTreatment]:
    for parts, one in said.groups("traitements"):
        kind = _coded(parts["type"], one.get("type"))
        if kind is not None:
            state = cast("Literal['fait', 'en-cours', 'non-fait']", one.get("etat", "fait"))
            yield PastTreatment(
                kind=kind, state=state, text=one.get("texte"), start=one.get("debut"), end=one.get("fin")
            )


def _quoted(said: _Said) -> Iterator[QuotedReport]:
    kinds: tuple[Literal["cro", "acp", "gm"], ...] = ("cro", "acp", "gm")
    for kind in kinds:
        for _parts, one in said.groups(kind):
            yield QuotedReport(
                kind=kind,
                conclusion=one["conclusion"],
                done_from=one.get("debut"),
                done_to=one.get("fin"),
                performer=said.person(one.get("realisateur")),
                author=said.person(one.get("auteur")),
                sampler=said.person(one.get("preleveur")),
                sampled_on=one.get("preleve_le"),
                remark=one.get("remarque"),
            )
