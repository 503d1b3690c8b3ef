"""The fiche of one dossier, read from the model.

Promises: as `gateway.portal.dossiers`; the first time that the treating physician opens it is kept (label CONNECTE);
images are addresses of the DICOMweb wire, which asks for rights again, and never those of a study in quarantine.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from gateway.model.audit import AuditFacts
from gateway.model.dossier import Contribution as ContributionRow
from gateway.model.dossier import Correspondent, Dossier
from gateway.model.imaging import Instance, Series, StudyDossier
from gateway.model.imaging import Study as StudyRow
from gateway.model.message import NotificationEntry
from gateway.model.report import Report
from gateway.portal import views as v
from gateway.portal import words
from gateway.portal.dossiers import visible_dossier
from gateway.portal.register import register_labels
from gateway.portal.render import counted
from gateway.rcp import access, dossier_states
from gateway.rcp.access import Caller
from gateway.rcp.contribution import TEXT_LIMIT
from gateway.rcp.facts import AnswerFacts, CodedFact
from gateway.rcp.inscription import form_of, tumour_of

__all__ = ["contributions", "fiche", "report_versions"]

_IMAGES_PER_SERIES = 3


def fiche(
    session: Session,
    caller: Caller,
    now: datetime,
    dossier_id: uuid.UUID,
    *,
    form: v.ContributionForm | None = None,
    form_key: str = "",
) -> tuple[v.Dossier, list[AuditFacts]]:
    """Return the fiche and the line that says who read it.

    Parameters
    ----------
    form
        The contribution's form as it came back, when it was refused.
    form_key
        Key of the next save, so that a double submit is one contribution.
    """
    row = visible_dossier(session, caller, dossier_id)
    coordinates = access.coordinates(session, caller, row.session.rcp_id)
    parts = access.roles_in(session, caller, row.session.rcp_id)
    own = access.treats(caller, row)
    if own is not None and own.connected_at is None:
        own.connected_at = now
    reports = report_versions(session, row)
    validated = any(one.pdf_url or one.cda_url for one in reports) or row.state in words.ANSWERED
    form = form if form is not None else _contribution_form(row, own, form_key) if own and not validated else None
    latest = session.scalars(
        select(Report).where(Report.dossier_id == row.id, Report.state == "valide").order_by(Report.version.desc())
    ).first()
    webconference = row.session.rcp.webconference
    attached = _attached(session, caller, row)
    studies = _studies(session, attached, row.session.zone)
    page = v.Dossier(
        reference=row.reference,
        state=words.dossier_badge(row.state),
        patient=words.patient_view(row.record, now.date(), row.partner.name if row.partner else ""),
        slot=words.slot(
            row.session,
            f"/seances/{row.session_id}" if parts & access.ORGANISERS else "",
        ),
        requester=words.professional(row.requester, _display(row, "demandeur")),
        participation=words.PARTICIPATIONS.get(row.participation, ""),
        problem=row.label or "",
        urgent=row.urgent,
        question=row.question or "",
        tumour=_tumour(row),
        clinical=_clinical(row),
        studies=studies,
        contributions=contributions(row, caller, organises=bool(parts)),
        contribution_form=form,
        contribution_closed=_closed(own, validated=validated),
        correspondents=tuple(_correspondents(session, row)),
        history=tuple(_history(row)),
        interop=tuple(_interop(row, attached, studies)),
        webconference=v.Webconference(webconference["lien"], webconference.get("complement", ""))
        if webconference.get("lien")
        else None,
        reports=reports,
        proposal=_proposal(latest),
        preparatory=not validated,
        report_url=f"/dossiers/{row.id}/compte-rendu" if coordinates or validated else "",
        report_label="Rédiger le compte rendu" if coordinates and not validated else "Compte rendu",
        not_my_patient_url=f"/dossiers/{row.id}/pas-mon-patient" if own else "",
    )
    line = access.facts(
        caller,
        "consultation",
        persons=(row.record_id,),
        dossier=row.id,
        object_type="Dossier",
        object_id=str(row.id),
        object_version=str(row.version),
        happened=now,
    )
    return page, [line]


def _display(row: Dossier, role: str) -> str | None:
    return next((one.display for one in row.correspondents if one.role == role and one.display), None)


def _contribution_form(row: Dossier, own: Correspondent, key: str) -> v.ContributionForm:
    person = own.practitioner
    signature = (
        ", ".join(part for part in (words.formal_name(person), words.speciality(person.speciality)) if part)
        if person
        else ""
    )
    mine = [one for one in row.contributions if one.author_id == own.practitioner_id]
    return v.ContributionForm(
        action=f"/dossiers/{row.id}/contribution",
        signature=signature,
        text=mine[-1].text if mine else "",
        interested=own.wishes_to_attend,
        limit=TEXT_LIMIT,
        version=key,
    )


def _closed(own: Correspondent | None, *, validated: bool) -> str:
    if own is None or not validated:
        return ""
    return "Le compte rendu est validé : la fiche ne reçoit plus de contribution. Adressez-vous au demandeur."


def contributions(row: Dossier, caller: Caller, *, organises: bool) -> tuple[v.Contribution, ...]:
    """Return the opinions given on a dossier, oldest first (S0-090).

    The wish to take part is for the meeting's people, the requester and the physician himself
    (spec features annex D 6).
    """
    told = organises or caller.practitioner_id == row.requester_id
    return tuple(
        _contribution(one, row, wish=told or one.author_id == caller.practitioner_id) for one in row.contributions
    )


def _contribution(one: ContributionRow, row: Dossier, *, wish: bool) -> v.Contribution:
    treating = any(c.role == "medecin-traitant" and c.practitioner_id == one.author_id for c in row.correspondents)
    wishes = any(c.practitioner_id == one.author_id and c.wishes_to_attend for c in row.correspondents)
    prefix = "Contribution du médecin traitant – Commentaire du" if treating else "Commentaire du"
    return v.Contribution(
        heading=f"{prefix} {words.titled(one.author_name)}",
        speciality=words.speciality(one.author_speciality),
        at=words.local(one.at, row.session.zone),
        text=one.text,
        interested=wish and wishes and one is row.contributions[-1],
        after_session=one.after_session,
    )


def _correspondents(session: Session, row: Dossier) -> Iterable[v.Correspondent]:
    entries = session.scalars(
        select(NotificationEntry).where(
            NotificationEntry.dossier_id == row.id,
            NotificationEntry.session_id == row.session_id,
            NotificationEntry.kind.like("M1%"),
        )
    ).all()
    order = list(words.ROLES)
    for one in sorted(row.correspondents, key=lambda each: order.index(each.role)):
        treating = one.role == "medecin-traitant"
        labels = register_labels(session, row, one, entries) if treating else ()
        yield v.Correspondent(
            kind=words.ROLES[one.role],
            professional=words.professional(one.practitioner, one.display),
            personal=one.use_personal,
            secretariat=one.use_secretariat,
            information=labels,
        )


def _history(row: Dossier) -> Iterable[v.HistoryLine]:
    for one in row.moves:
        label = dossier_states.LABELS.get(one.to_state, one.to_state)
        yield v.HistoryLine(
            words.local(one.at, row.session.zone), f"{label} : {one.reason}" if one.reason else label, ""
        )


def _interop(row: Dossier, attached: list[StudyRow], studies: tuple[v.Study, ...]) -> Iterable[v.InteropLine]:
    zone = row.session.zone
    if row.partner is not None:
        yield v.InteropLine(row.partner.name, "Inscription reçue", words.local(row.registered_at, zone))
    for study, shown in zip(attached, studies, strict=True):
        said = (
            f"Étude {'/'.join(study.modalities) or 'd’imagerie'} reçue, {counted(shown.instances, 'image', 'images')}"
        )
        yield v.InteropLine("Imagerie", said, words.local(study.received_at, zone))


def _tumour(row: Dossier) -> v.Tumour | None:
    tumour = tumour_of(row)
    if tumour is None:
        return None
    form = form_of(row)
    return v.Tumour(
        label=(tumour.topography.text if tumour.topography else None) or tumour.label or "",
        code=(tumour.topography.code if tumour.topography else None) or "",
        morphology=_coded(tumour.morphology),
        laterality=_coded(tumour.laterality),
        tnm=(form.text("tumeur.tnm") if form else None) or "",
        stage=tumour.stage or "",
    )


def _coded(value: CodedFact | None) -> str:
    if value is None:
        return ""
    return f"{value.text} ({value.code})" if value.text and value.code else value.text or value.code or ""


#: Questions shown by their own line of the fiche, not again among the answers.
_SHOWN_APART = frozenset({"motif.question", "motif.type", "tumeur.tnm", "tumeur.code", "etat.oms"})


def _clinical(row: Dossier) -> v.Clinical:
    form = form_of(row)
    if form is None:
        return v.Clinical(reason=row.reason_text or "")
    answers = tuple(
        v.Answer(words.LINKS.get(one.link_id, one.link_id), _answer(one))
        for one in form.answers
        if one.link_id not in _SHOWN_APART and one.values
    )
    return v.Clinical(
        case_type=form.text("motif.type") or "",
        reason=row.reason_text or "",
        performance_status=form.text("etat.oms") or "",
        sections=(v.FormSection("Formulaire de la réunion", answers),) if answers else (),
    )


def _answer(answer: AnswerFacts) -> str:
    said = []
    for value in answer.values:
        if isinstance(value, bool):
            said.append("Oui" if value else "Non")
        elif isinstance(value, CodedFact):
            said.append(_coded(value))
        else:
            said.append(str(value))
    return "\n".join(said)


def _attached(session: Session, caller: Caller, row: Dossier) -> list[StudyRow]:
    return list(
        session.scalars(
            select(StudyRow)
            .join(StudyDossier, StudyDossier.study_id == StudyRow.id)
            .where(StudyDossier.dossier_id == row.id, access.studies(caller))
            .options(selectinload(StudyRow.series))
            .order_by(StudyRow.started_at.desc().nulls_last(), StudyRow.id)
        )
    )


def _studies(session: Session, attached: list[StudyRow], zone: str) -> tuple[v.Study, ...]:
    # Instances are counted, not their study's own figure, which follows them at a distance while images arrive.
    held = _instances(session, attached)
    found = []
    for study in attached:
        series = sorted(study.series, key=_series_key)
        found.append(
            v.Study(
                description=study.study_description or "Étude d’imagerie",
                modality=", ".join(study.modalities),
                at=words.local(study.started_at, zone) if study.started_at else None,
                series=len(series),
                instances=sum(len(held.get(one.id, ())) for one in series),
                images=tuple(image for one in series for image in _images(study, one, held.get(one.id, ()))),
            )
        )
    return tuple(found)


def _instances(session: Session, attached: list[StudyRow]) -> dict[uuid.UUID, list[tuple[str, bool]]]:
    """Return each series' instances in order, by their UID and whether they can be drawn; never their bytes."""
    wanted = [series.id for study in attached for series in study.series]
    found: dict[uuid.UUID, list[tuple[str, bool]]] = {}
    for series_id, uid, rows in session.execute(
        select(Instance.series_id, Instance.sop_instance_uid, Instance.rows)
        .where(Instance.series_id.in_(wanted))
        .order_by(Instance.instance_number.nulls_last(), Instance.sop_instance_uid)
    ):
        found.setdefault(series_id, []).append((uid, rows is not None))
    return found


def _series_key(series: Series) -> tuple[int, str]:
    return (series.series_number or 0, series.series_instance_uid)


def _images(study: StudyRow, series: Series, held: Sequence[tuple[str, bool]]) -> Iterable[v.Image]:
    drawn = [uid for uid, drawable in held if drawable]
    count = len(drawn)
    chosen = sorted({0, count // 2, count - 1})[:_IMAGES_PER_SERIES] if count else []
    for index in chosen:
        parent = f"/dicom-web/studies/{study.study_instance_uid}/series/{series.series_instance_uid}"
        base = f"{parent}/instances/{drawn[index]}"
        said = f"{series.modality or 'Image'}, série {series.series_number or 1}, image {index + 1} sur {count}"
        yield v.Image(f"{base}/thumbnail", f"{base}/rendered", said)


def report_versions(session: Session, row: Dossier) -> tuple[v.ReportVersion, ...]:
    """Return the validated, replaced and cancelled versions of the report, newest first."""
    reports = session.scalars(
        select(Report).where(Report.dossier_id == row.id, Report.state != "brouillon").order_by(Report.version.desc())
    ).unique()
    found = []
    for one in reports:
        forms = {form.form for form in one.forms}
        base = f"/dossiers/{row.id}/compte-rendu/{one.version}"
        found.append(
            v.ReportVersion(
                number=one.version,
                badge=words.report_badge(one.state),
                at=words.local(one.validated_at or one.created_at, row.session.zone),
                by=words.formal_name(one.validator) if one.validator else "",
                pdf_url=f"{base}.pdf" if "pdf" in forms else "",
                cda_url=f"{base}.cda.xml" if "cda" in forms else "",
                reason=str(one.draft.get("motif") or ""),
            )
        )
    return tuple(found)


def _proposal(latest: Report | None) -> str:
    return str(latest.draft.get("proposition") or "") if latest is not None else ""
