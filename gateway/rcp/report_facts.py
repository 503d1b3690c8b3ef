"""Gathers, once and for good, what a report says: the frozen facts of one version.

Promises: what a professional was at that moment is copied, not referred to; identifiers that a national document needs
and that nobody allotted are the gateway's own, under the OID that a UUID is (``2.25``), the same every time; the INS is
kept as qualified only with all the traits that qualify it; nothing is guessed: what no source said stays empty.
Not promised: rights and states (`gateway.rcp.report`), or that the facts make a correct national document (the forms
check that).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal, cast

from sqlalchemy.orm import object_session

from gateway.errors import InvalidContent
from gateway.identifiers import Oid, Urn
from gateway.model import directory as rows
from gateway.model.dossier import Contribution as ContributionRow
from gateway.model.dossier import Dossier
from gateway.model.meeting import RcpSession
from gateway.model.person import PatientRecord
from gateway.model.report import Report
from gateway.rcp import fiche, inscription, report_people, sessions
from gateway.rcp.report_content import (
    CodedValue,
    Contribution,
    Examination,
    Guideline,
    Identifier,
    MeetingContent,
    Organisation,
    PatientContent,
    Person,
    Proposal,
    Replaced,
    ReportContent,
    Treatment,
    decode,
)
from gateway.rcp.report_draft import AGREEMENTS, ReportDraft
from gateway.rcp.report_fiche import content_of
from gateway.terminology import code_list

__all__ = ["document_id", "freeze", "root_of"]

_RRC = "1.2.250.1.161.1.20.1.1"
_MANAGER = "1.2.250.1.161.1.20.2.1"
_RCP = "1.2.250.1.161.1.20.3.1"
_SESSION = "1.2.250.1.213.1.1.9"
_TA = "1.2.250.1.213.1.1.4.322"
_CHANNELS: dict[str, Literal["portail", "mssante", "fhir"]] = {"messagerie": "mssante", "fhir": "fhir"}


def root_of(system: str) -> str:
    """Give the OID of a domain of identifiers: its own, or one made from its URL [ITU-T X.667]."""
    if system.startswith("urn:oid:"):
        return system.removeprefix("urn:oid:")
    return Oid.of_uuid(uuid.uuid5(uuid.NAMESPACE_URL, system)).value


def document_id(report: Report) -> Identifier:
    """Give the identity of one version: that of the set, then its rank."""
    return Identifier(f"{Oid.of_uuid(report.set_id).value}.{report.version}")


def freeze(
    report: Report,
    dossier: Dossier,
    draft: ReportDraft,
    *,
    validator: rows.Practitioner,
    replaced: Report | None,
    custodian: Organisation | None,
    at: datetime,
    visibility: Sequence[str] = (),
) -> ReportContent:
    """Gather the facts of a version that is being validated.

    Parameters
    ----------
    custodian
        Who keeps the document when the RCP's own establishment has no national number: this gateway's organisation.
    visibility
        Flags of JDV_J08 for the sending.

    Raises
    ------
    InvalidContent
        ``cr-identite``: the patient's birth name, first name or birth date is not known; ``cr-conservation``: no
        structure with a national number keeps the document; ``code-inconnu``: a treatment of no national list.
    """
    session = dossier.session
    place = report_people.place(session)
    said = content_of(dossier)
    return ReportContent(
        document_id=document_id(report),
        set_id=Identifier(Oid.of_uuid(report.set_id).value),
        version=report.version,
        replaces=_replaced(replaced, draft) if replaced is not None else None,
        zone=session.zone,
        written_at=at.replace(microsecond=0),
        visibility=tuple(visibility),
        inscription=_inscription(dossier),
        meeting=_meeting(session, place),
        custodian=report_people.custodian(place, custodian),
        patient=_patient(dossier.record),
        coordinator=report_people.coordinator(session, validator),
        requester=report_people.correspondent(dossier, inscription.REQUESTER) or Person(family="Non renseigné"),
        treating_physician=report_people.correspondent(dossier, inscription.TREATING),
        correspondents=report_people.correspondents(dossier),
        attendees=report_people.attendees(session),
        validator=report_people.person_of(validator),
        presenter=said.presenter,
        board_kind=said.board_kind,
        system=said.system,
        organs=said.organs,
        care=said.care,
        subject=session.rcp.organ,
        board_comment=said.board_comment,
        recourse_board=said.recourse_board,
        paediatric_board=said.paediatric_board,
        motives=said.motives,
        labels=said.labels,
        case_status="enregistre" if draft.recorded_only else said.case_status,
        screening=said.screening,
        tumours=said.tumours,
        phase=said.phase,
        phase_on=said.phase_on,
        phase_comment=said.phase_comment,
        progression=said.progression,
        progression_local=said.progression_local,
        progression_regional=said.progression_regional,
        progression_distant=said.progression_distant,
        medical_history=said.medical_history,
        comorbidities=said.comorbidities,
        who_status=said.who_status,
        who_status_on=said.who_status_on,
        geriatric=said.geriatric,
        examinations=said.examinations,
        past_treatments=said.past_treatments,
        quoted=said.quoted,
        summary="\n\n".join(filter(None, (said.situation, draft.summary or said.summary))) or None,
        question=dossier.question,
        contributions=tuple(_contribution(row, dossier) for row in dossier.contributions if row.text.strip()),
        complete=draft.complete if draft.complete is not None else _complete(dossier),
        quorum=_quorum(session),
        quorum_rule=_quorum_rule(session),
        file_comment=_file_comment(draft),
        proposals=_proposals(draft),
        recourse_asked=draft.recourse,
        examinations_asked=tuple(
            Examination(text=e.text, earliest=e.earliest, latest=e.latest) for e in draft.examinations
        ),
        surveillance=draft.follow_up,
        proposal_comment=draft.comment,
        guideline=Guideline(name=draft.guideline, dated=draft.guideline_dated) if draft.guideline else None,
        supportive_care=draft.supportive_care,
        recommended=draft.recommended,
        trial=None if draft.trial is None else bool(draft.trial),
        trial_name=draft.trial or None,
        patient_remark=draft.remark,
    )  # fmt: skip


# --- The meeting, the patient, the contributions -------------------------------------------------------------------


def _meeting(session: RcpSession, place: Organisation) -> MeetingContent:
    rcp, network = session.rcp, session.rcp.network
    rrc = network.rrc_identifier
    own_manager = Identifier(Oid.of_uuid(uuid.uuid5(network.id, rcp.manager_name or "3C")).value)
    number = Urn.from_wire(session.identifier).uuid
    return MeetingContent(
        network=network.name,
        network_id=Identifier(_RRC, rrc) if rrc else Identifier(Oid.of_uuid(network.id).value),
        manager=rcp.manager_name or network.name,
        manager_id=Identifier(_MANAGER, rcp.manager_identifier) if rcp.manager_identifier else own_manager,
        rcp=rcp.title,
        rcp_id=Identifier(_RCP, rcp.national_number),
        session_id=Identifier(_SESSION, str(number) if number else session.identifier),
        start=session.starts_at,
        end=session.ends_at,
        place=place,
        contact=rcp.contact or rcp.network.contact,
    )


def _inscription(dossier: Dossier) -> Identifier:
    number = Urn.from_wire(dossier.number).uuid
    return Identifier(str(number or dossier.id).upper())


def _patient(record: PatientRecord) -> PatientContent:
    if not (record.birth_family and record.given and record.birth_date):
        text = "L’identité du patient est incomplète : nom de naissance, prénom et date de naissance sont nécessaires."
        raise InvalidContent("cr-identite", text, rule=True)
    ins = Identifier(root_of(record.ins_system), record.ins_value) if record.ins_system and record.ins_value else None
    # The INS is qualified with all its traits or not at all; documents refuse it otherwise. [RNIV; DECISIONS 9]
    qualified = ins is not None and record.ins_qualified and bool(record.birth_place) and record.sex in {"F", "M"}
    return PatientContent(
        birth_family=record.birth_family,
        birth_given=record.given,
        birth_given_names=" ".join(record.given_names) or None,
        used_family=record.used_family,
        used_given=record.used_given,
        sex=cast("Literal['F', 'M', 'UN']", record.sex) if record.sex in {"F", "M"} else "UN",
        birth_date=record.birth_date,
        birth_place_code=record.birth_place,
        ins=ins,
        ins_qualified=qualified,
        ipps=(Identifier(root_of(record.system), record.value),),
    )


def _complete(dossier: Dossier) -> bool | None:
    """Say whether the file holds all that is asked of it; nobody knows before its form is declared complete."""
    session = object_session(dossier)
    if dossier.prefiche_at is None or session is None:
        return None
    return not fiche.missing(session, dossier)


def _contribution(row: ContributionRow, dossier: Dossier) -> Contribution:
    wishes = any(line.wishes_to_attend for line in dossier.correspondents if line.practitioner_id == row.author_id)
    return Contribution(
        author=report_people.person_of(row.author, speciality=row.author_speciality),
        at=row.at,
        channel=_CHANNELS.get(row.channel, "portail"),
        text=row.text,
        wishes_to_attend=wishes or None,
    )


# --- Quorum, proposal, version -------------------------------------------------------------------------------------


def _quorum(session: RcpSession) -> Literal["atteint", "non-atteint", "inconnu"]:
    if not session.attendances:
        return "inconnu"
    return "atteint" if sessions.quorum_of(session).reached else "non-atteint"


def _quorum_rule(session: RcpSession) -> str:
    quorum = sessions.quorum_of(session)
    rule = f"au moins {quorum.minimum} médecins de spécialités différentes"
    groups = code_list("RCP-groupes-specialites")
    missing = ", ".join(_group_words(groups.get(one), one) for one in quorum.missing)
    return f"{rule} ; manque : {missing}" if missing and session.attendances else rule


def _group_words(found: object, otherwise: str) -> str:
    return str(getattr(found, "label", otherwise)).lower()


def _file_comment(draft: ReportDraft) -> str | None:
    said = (
        ("Information et accord du patient", AGREEMENTS[draft.agreement] if draft.agreement else None),
        ("Outil de visioconférence", draft.tool),
        ("Incidents techniques", draft.incidents),
    )
    return "\n".join(f"{label} : {text}" for label, text in said if text) or None


def _proposals(draft: ReportDraft) -> tuple[Proposal, ...]:
    texts: Iterable[str | None] = (draft.proposal, *draft.alternatives)
    by_rank = dict(enumerate(texts, 1))
    ranks = sorted(set(by_rank) | {treatment.rank for treatment in draft.treatments})
    made = []
    for rank in ranks:
        treatments = tuple(
            Treatment(kind=_treatment(t.code), text=t.text, start=t.start, end=t.end)
            for t in draft.treatments
            if t.rank == rank
        )
        if treatments or by_rank.get(rank):
            made.append(Proposal(rank=rank, text=by_rank.get(rank), treatments=treatments))
    return tuple(made)


def _treatment(code: str) -> CodedValue:
    found = code_list("FRCP-TypeTraitement").require(code, expression="traitements")
    return CodedValue(found.code, found.oid or _TA, found.label)


def _replaced(previous: Report, draft: ReportDraft) -> Replaced:
    old = decode(previous.content or b"")
    return Replaced(
        document_id=old.document_id,
        version=old.version,
        validated_at=old.written_at,
        kind="addendum" if draft.kind == "addendum" else "correction",
        reason=draft.reason,
    )
