"""The fiche of one dossier, read from the model.

Promises: as `gateway.portal.dossiers`; the first time that the treating physician opens it is kept (label CONNECTE);
images are addresses of the DICOMweb wire, which asks for rights again, and never those of a study in quarantine.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.model.audit import AuditFacts
from gateway.model.dossier import Contribution as ContributionRow
from gateway.model.dossier import Correspondent, Dossier
from gateway.model.imaging import Instance, Series
from gateway.model.imaging import Study as StudyRow
from gateway.model.report import Report
from gateway.portal import views as v
from gateway.portal import words
from gateway.portal.attachments import dossier_files
from gateway.portal.copies import copies_url
from gateway.portal.correspondents import correspondents
from gateway.portal.dossiers import visible_dossier
from gateway.portal.imaging_awaited import awaited_images
from gateway.portal.imaging_detaching import detaching_url
from gateway.portal.imaging_sending import sending_url
from gateway.portal.key_images import key_images
from gateway.portal.received import received_lines
from gateway.portal.render import counted
from gateway.portal.viewer import PICTURED, attached_studies, viewer_url
from gateway.rcp import access, dossier_states
from gateway.rcp.access import Caller
from gateway.rcp.clinical import form_of, tumour_of
from gateway.rcp.contribution import TEXT_LIMIT
from gateway.rcp.facts import AnswerFacts, CodedFact, TumourFacts
from gateway.rcp.fiche import URGENT, Statement, editable, in_words, label_of, missing, statements
from gateway.rcp.fiche_fields import Section, fields, sections
from gateway.rcp.ports import BroughtFiles

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
    brought: BroughtFiles | None = None,
) -> tuple[v.Dossier, list[AuditFacts]]:
    """Return the fiche and the line that says who read it.

    Parameters
    ----------
    form
        The contribution's form as it came back, when it was refused.
    form_key
        Key of the next save, so that a double submit is one contribution.
    brought
        Finds the files that softwares brought.
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
    known = statements(row)
    attached = attached_studies(session, caller, row)
    studies = _studies(session, row, attached)
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
        tumour=_tumour(row, known),
        clinical=_clinical(row, known),
        studies=studies,
        copies_url=copies_url(session, caller, row) if studies else "",
        sending_url=sending_url(session, caller, row) if studies else "",
        detaching_url=detaching_url(session, caller, row) if studies else "",
        attachments=dossier_files(session, caller, row, brought),
        images=awaited_images(session, row, editable=editable(session, caller, row)),
        contributions=contributions(row, caller, organises=bool(parts)),
        contribution_form=form,
        contribution_closed=_closed(own, validated=validated),
        correspondents=tuple(correspondents(session, row, now)),
        history=tuple(_history(row)),
        interop=(*_interop(row, attached, studies), *received_lines(session, row)),
        webconference=v.Webconference(webconference["lien"], webconference.get("complement", ""))
        if webconference.get("lien")
        else None,
        reports=reports,
        proposal=_proposal(latest),
        preparatory=not validated,
        report_url=f"/dossiers/{row.id}/compte-rendu" if coordinates or validated else "",
        report_label="Rédiger le compte rendu" if coordinates and not validated else "Compte rendu",
        edit_url=f"/dossiers/{row.id}/fiche" if editable(session, caller, row) else "",
        missing=missing(session, row) if parts or caller.practitioner_id == row.requester_id else (),
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


def _tumour(row: Dossier, known: Mapping[str, Statement]) -> v.Tumour | None:
    tumour = tumour_of(row) or TumourFacts()
    said = {key.removeprefix("tumeur."): one.value for key, one in known.items() if key.startswith("tumeur.")}
    if not said and tumour == TumourFacts():
        return None
    sent = tumour.topography or CodedFact()
    code = said.get("code") or sent.code or ""
    label = sent.text if sent.code == code else None
    letters = " ".join(said[name] for name in ("t", "n", "m") if name in said)
    edition = f"({said['edition']}e éd.)" if letters and "edition" in said else ""
    return v.Tumour(
        label=label or (label_of("tumeur.code", said["code"]) if "code" in said else tumour.label) or "",
        code=code,
        morphology=_listed("tumeur.morphologie", said.get("morphologie")) or _coded(tumour.morphology),
        laterality=label_of("tumeur.lateralite", said["lateralite"])
        if "lateralite" in said
        else _coded(tumour.laterality),
        tnm=f"{letters} {edition}".strip() or said.get("tnm", ""),
        stage=said.get("stade") or tumour.stage or "",
    )


def _listed(key: str, code: str | None) -> str:
    return f"{label_of(key, code)} ({code})" if code else ""


def _coded(value: CodedFact | None) -> str:
    if value is None:
        return ""
    return f"{value.text} ({value.code})" if value.text and value.code else value.text or value.code or ""


#: Fields shown by their own line of the fiche, not again in their section.
_SHOWN_APART = frozenset(
    {"titre", "motif.question", "motif.participation", "motif.type", "etat.oms", "etiquettes"}
    | {f"tumeur.{name}" for name in ("code", "morphologie", "lateralite", "t", "n", "m", "edition", "stade", "tnm")}
)


def _clinical(row: Dossier, known: Mapping[str, Statement]) -> v.Clinical:
    form = form_of(row)
    shown = [
        v.FormSection(section.title, answers)
        for section in sections()
        if (answers := tuple(_answers(row, section, known)))
    ]
    # A form of the RCP may ask more than the national fields.
    own = tuple(
        v.Answer(words.LINKS.get(one.link_id) or one.question or one.link_id, _answer(one))
        for one in (form.answers if form else ())
        if one.values and one.link_id not in _SHOWN_APART and not _is_field(one.link_id)
    )
    said = form.text("motif.type") if form else None
    return v.Clinical(
        case_type=label_of("motif.type", known["motif.type"].value) if "motif.type" in known else said or "",
        reason=row.reason_text or "",
        performance_status=str(known["etat.oms"].value) if "etat.oms" in known else "",
        sections=(*shown, v.FormSection("Formulaire de la réunion", own)) if own else tuple(shown),
        labels=tuple(one for one in known["etiquettes"].value if one != URGENT) if "etiquettes" in known else (),
    )


def _is_field(link_id: str) -> bool:
    first, _, rest = link_id.partition(".")
    return link_id in fields() or (bool(rest) and (first in fields() or link_id.rpartition(".")[0] in fields()))


def _answers(row: Dossier, section: Section, known: Mapping[str, Statement]) -> Iterable[v.Answer]:
    for field in section.fields:
        one = known.get(field.key)
        if one is None or field.key in _SHOWN_APART or one.source == "rcp":
            continue
        at = words.local(one.at, row.session.zone) if one.at is not None and one.source == "portail" else None
        yield v.Answer(field.label, in_words(field, one.value), f"Saisi par {one.by}" if one.by else "", at)


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


def _studies(session: Session, row: Dossier, attached: list[StudyRow]) -> tuple[v.Study, ...]:
    # Instances are counted, not their study's own figure, which follows them at a distance while images arrive.
    held = _instances(session, attached)
    selections = key_images(session, attached, f"/dossiers/{row.id}/images")
    found = []
    for study in attached:
        series = sorted(study.series, key=_series_key)
        found.append(
            v.Study(
                description=study.study_description or "Étude d’imagerie",
                modality=", ".join(study.modalities),
                at=words.local(study.started_at, row.session.zone) if study.started_at else None,
                series=len(series),
                instances=sum(len(held.get(one.id, ())) for one in series),
                images=tuple(image for one in series for image in _images(row, study, one, held.get(one.id, ()))),
                url=_first_shown(row, series, held),
                keys=selections.get(study.id, ()),
            )
        )
    return tuple(found)


def _first_shown(row: Dossier, series: Sequence[Series], held: Mapping[uuid.UUID, Sequence[tuple[str, bool]]]) -> str:
    """Return where a study is looked at: its first series with a picture, else the first that holds anything."""
    full = [one for one in series if held.get(one.id)]
    drawn = [one for one in full if any(drawable for _, drawable in held[one.id])]
    return viewer_url(row.id, (drawn or full)[0].series_instance_uid) if full else ""


def _instances(session: Session, attached: list[StudyRow]) -> dict[uuid.UUID, list[tuple[str, bool]]]:
    """Return each series' instances in order, by their UID and whether they can be drawn; never their bytes."""
    wanted = [series.id for study in attached for series in study.series]
    found: dict[uuid.UUID, list[tuple[str, bool]]] = {}
    for series_id, uid, drawable in session.execute(
        select(Instance.series_id, Instance.sop_instance_uid, PICTURED)
        .where(Instance.series_id.in_(wanted))
        .order_by(Instance.instance_number.nulls_last(), Instance.sop_instance_uid)
    ):
        found.setdefault(series_id, []).append((uid, drawable))
    return found


def _series_key(series: Series) -> tuple[int, str]:
    return (series.series_number or 0, series.series_instance_uid)


def _images(row: Dossier, study: StudyRow, series: Series, held: Sequence[tuple[str, bool]]) -> Iterable[v.Image]:
    drawn = [uid for uid, drawable in held if drawable]
    count = len(drawn)
    chosen = sorted({0, count // 2, count - 1})[:_IMAGES_PER_SERIES] if count else []
    for index in chosen:
        parent = f"/dicom-web/studies/{study.study_instance_uid}/series/{series.series_instance_uid}"
        shown = viewer_url(row.id, series.series_instance_uid, drawn[index])
        said = f"{series.modality or 'Image'}, série {series.series_number or 1}, image {index + 1} sur {count}"
        yield v.Image(f"{parent}/instances/{drawn[index]}/thumbnail", shown, said)


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
                since=_since(one),
            )
        )
    return tuple(found)


def _since(one: Report) -> str:
    """Say what became of a version that is not in force any more."""
    if one.state == "remplace":
        return f"par la version {one.version + 1}"
    if one.state != "annule" or one.withdrawn_at is None:
        return ""
    on = words.instant(words.local(one.withdrawn_at, one.dossier.session.zone))
    return f"le {on} : {one.withdrawn_because}" if one.withdrawn_because else f"le {on}"


def _proposal(latest: Report | None) -> str:
    return str(latest.draft.get("proposition") or "") if latest is not None else ""
