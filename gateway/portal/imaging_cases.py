"""Images that a person must decide on, read from the model: the list, and one case with both sides beside each other.

Promises: lists name no patient; a case shows what the objects and the records say to who may decide it, once the line
that says so is durable; what differs is marked in words, not by colour alone.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.model.audit import AuditFacts
from gateway.model.dossier import Dossier
from gateway.model.imaging import Study
from gateway.model.partner import Partner
from gateway.model.person import PatientRecord, WorkItem
from gateway.model.store import utcnow
from gateway.portal import views as v
from gateway.portal import words
from gateway.portal.render import counted, short_date
from gateway.rcp import access, french, imaging_cases
from gateway.rcp.access import Caller
from gateway.rcp.imaging_cases import Candidate, Case
from gateway.rcp.work_list import BY_ITSELF

__all__ = ["case_page", "cases_page", "comparison"]

_ZONE: Final = "Europe/Paris"
_LISTED: Final = 100
_DECISIONS: Final[Mapping[str, str]] = {
    imaging_cases.GIVEN: "Rattachée à un patient",
    imaging_cases.LEFT: "Laissée où elle est",
    imaging_cases.ADMITTED: "Admise dans son étude",
    "nouvelle-recue": "Ce qui est arrivé depuis a répondu",
}
_ORDERS: Final = {"ACSN": "examen", "PLAC": "demande", "FILL": "réalisation"}


def cases_page(session: Session, caller: Caller) -> tuple[v.ImagingCases, list[AuditFacts]]:
    """Return what waits, oldest first, and what was left where it is, latest first."""
    waiting = imaging_cases.cases(session, caller, limit=_LISTED + 1)
    left = imaging_cases.cases(session, caller, limit=_LISTED, left=True)
    shown = waiting[:_LISTED]
    page = v.ImagingCases(
        waiting=tuple(_lines(session, caller, shown)),
        left=tuple(_lines(session, caller, left)),
        cut=len(waiting) > _LISTED,
    )
    return page, [access.facts(caller, "consultation", object_type="WorkItem")] if shown or left else []


def _lines(session: Session, caller: Caller, rows: Iterable[WorkItem]) -> Iterable[v.ImagingCaseLine]:
    rows = list(rows)
    ids = [row.dossier_id for row in rows if row.dossier_id]
    found = session.execute(select(Dossier.id, Dossier.reference).where(Dossier.id.in_(ids), access.dossiers(caller)))
    references: dict[uuid.UUID | None, str] = dict(found.tuples().all())
    senders = select(Partner.id, Partner.name).where(Partner.id.in_([row.partner_id for row in rows if row.partner_id]))
    names: dict[uuid.UUID | None, str] = dict(session.execute(senders).tuples().all())
    for row in rows:
        yield _line(row, names.get(row.partner_id, ""), references.get(row.dossier_id, ""))


def _line(row: WorkItem, sender: str, reference: str) -> v.ImagingCaseLine:
    held = row.reason not in words.PROPOSALS
    return v.ImagingCaseLine(
        text=words.WORK_REASONS.get(row.reason, "Cet objet n’a pas pu être lu, ou n’est pas celui annoncé."),
        at=words.local(row.opened_at, _ZONE),
        url=f"/imagerie/{row.id}",
        since=words.since(utcnow() - row.opened_at),
        who=sender,
        reference=reference,
        tone="danger" if held else "warning",
        kind="Objet gardé à part" if "objet" in row.details else "Quarantaine" if held else "Proposition",
        reason=str(row.details.get("motif", "")),
    )


def case_page(
    session: Session,
    caller: Caller,
    item_id: uuid.UUID,
    *,
    reference: str = "",
    given: str = "",
    chosen: str = "",
    errors: Mapping[str, str] | None = None,
) -> tuple[v.ImagingCase, list[AuditFacts]]:
    """Return one case.

    Parameters
    ----------
    reference
        A dossier whose patient is compared too.
    given, chosen
        What a refused form held.
    """
    case = imaging_cases.read(session, caller, item_id, reference)
    row, study, partner = case.item, case.study, case.partner
    [line] = _lines(session, caller, [row])
    faults = dict(errors or {})
    known = [one for candidate in case.candidates for one in candidate.dossiers]
    if reference and reference.strip().upper() not in known:
        faults["reference"] = "Aucun dossier que vous organisez ne porte cette référence."
    compared = case.candidates if study is not None and case.object is None else ()
    page = v.ImagingCase(
        line=line,
        facts=tuple(_facts(case)),
        traits=tuple(comparison(study, compared)) if study is not None and case.object is None else (),
        candidates=tuple(
            _candidate(number, one, selected=chosen == str(one.record.id) or len(compared) == 1)
            for number, one in enumerate(compared, 1)
        ),
        url=f"/imagerie/{row.id}",
        seen=case.seen,
        reference="" if "reference" in faults else reference.strip().upper(),
        open=case.open,
        study=study is not None and case.object is None,
        against=any(one.against for one in compared),
        judgeable=_judgeable(case),
        retakable=case.retakable,
        closed=_closing(row),
        reason_characters=imaging_cases.REASON_CHARACTERS,
        given=given,
        errors=faults,
    )
    persons = tuple(one.record.id for one in compared)
    said = access.facts(
        caller,
        "consultation",
        persons=persons,
        object_type="Study" if study is not None else "WorkItem",
        object_id=study.study_instance_uid if study is not None else str(row.id),
        recipient=partner.name if partner is not None else None,
    )
    return page, [said]


def _judgeable(case: Case) -> str:
    if not case.open:
        return ""
    if case.object is not None:
        return "Réexaminer cet objet"
    return "Réexaminer cette étude" if case.study is not None and case.study.state == "quarantaine" else ""


def _facts(case: Case) -> Iterable[tuple[str, str]]:
    study, kept = case.study, case.object
    if kept is not None:
        yield "Objet", kept.sop_instance_uid
        yield "Reçu", words.instant(words.local(kept.received_at, _ZONE))
        yield "Taille", f"{kept.size_bytes // 1024 + 1} Kio"
    if study is None:
        return
    yield "Étude", study.study_description or "sans intitulé"
    yield "Modalités", ", ".join(study.modalities) or "non dites"
    if study.started_at is not None:
        yield "Réalisée", words.instant(words.local(study.started_at, _ZONE))
    elif study.started_on is not None:
        yield "Réalisée", short_date(study.started_on)
    yield "Contenu", counted(study.instances_count, "image", "images")
    if study.referring_physician:
        yield "Médecin demandeur", study.referring_physician
    yield "Identifiant de l’étude", study.study_instance_uid


def comparison(study: Study, candidates: Iterable[Candidate]) -> Iterable[v.ImagingTrait]:
    """Put what images say of their patient beside what records say, trait by trait."""
    said, records = study.traits, [one.record for one in candidates]
    against = [set(one.against) for one in candidates]

    def line(label: str, text: str, known: Iterable[str], reasons: frozenset[str]) -> v.ImagingTrait:
        cells = tuple((value or "–", bool(reasons & found)) for value, found in zip(known, against, strict=True))
        return v.ImagingTrait(label, text or "–", cells)

    born = str(said.get("birth_date") or "")
    yield line("Nom", str(said.get("family") or ""), map(_family, records), frozenset({"nom-different"}))
    yield line("Prénom", str(said.get("given") or ""), map(_given, records), frozenset({"prenom-different"}))
    yield line(
        "Naissance",
        french.partial_date(born) if born else "",
        map(words.birth, records),
        frozenset({"date-de-naissance-differente"}),
    )
    yield line(
        "Sexe",
        words.sex_label(str(said.get("sex") or "")),
        (words.sex_label(one.sex) for one in records),
        frozenset({"sexe-different"}),
    )
    numbers = [study.patient_id, *(other[1] for other in said.get("others", ()))]
    yield line(
        "Identifiants",
        " ; ".join(one for one in numbers if one),
        map(_numbers, records),
        frozenset({"identifiants-contradictoires"}),
    )
    orders = [key.split("|", 2) for key in study.order_keys]
    shown = " ; ".join(f"{_ORDERS[kind]} {value}" for kind, system, value in orders if not system and kind in _ORDERS)
    if shown:
        yield line("Demandes", shown, ("" for _ in records), frozenset({"demande-d-un-autre-patient"}))


def _family(record: PatientRecord) -> str:
    return " / ".join(dict.fromkeys(one for one in (record.birth_family, record.used_family) if one))


def _given(record: PatientRecord) -> str:
    names = (" ".join(record.given_names), record.given, record.used_given)
    return " / ".join(dict.fromkeys(one for one in names if one))


def _numbers(record: PatientRecord) -> str:
    ins = f"INS {record.ins_value}" if record.ins_qualified and record.ins_value else ""
    return " ; ".join(one for one in (record.value, ins) if one)


def _candidate(number: int, one: Candidate, *, selected: bool) -> v.ImagingCandidate:
    known = f"dossier {', '.join(one.dossiers)}" if one.dossiers else "sans dossier ici"
    reasons = tuple(words.WORK_REASONS.get(reason, reason) for reason in one.against)
    return v.ImagingCandidate(str(one.record.id), f"Patient {number} ({known})", reasons, selected)


def _closing(row: WorkItem) -> str:
    if row.closed_at is None:
        return ""
    said = _DECISIONS.get(row.decision or "", row.decision or "")
    by = "par la passerelle" if row.closed_by == BY_ITSELF else f"par {row.closed_by}"
    return f"{said} – {words.instant(words.local(row.closed_at, _ZONE))}, {by}"
