"""A study sent to another application: who may send which, to whom, and what becomes of it.

Promises
--------
* Only a study that is in a dossier, is settled by identifier, and that the sender may see leaves; whoever prepares an
  RCP in which it is discussed decides, or the operator.
* It leaves to a registered application only, once for the same objects, by the outbox; a person is asked otherwise,
  who has the same bytes sent again (`again`, or the work list: the question is answered either way).
* What was put aside while it waited to leave (its identity is in doubt) does not leave: wires ask `may_leave` first.

Knows no protocol: `Manifest` is what the wire sends.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from gateway.errors import Forbidden, InvalidContent
from gateway.exchange.outbox import Outgoing
from gateway.exchange.replaying import send_again
from gateway.model.dossier import Dossier
from gateway.model.imaging import Instance, Series, Study, StudyDossier
from gateway.model.meeting import RcpSession
from gateway.model.message import Attempt, Message
from gateway.model.partner import Partner
from gateway.model.person import WorkItem
from gateway.rcp import access, error_box, work_list
from gateway.rcp.access import Caller, CallerKind
from gateway.rcp.imaging_destinations import Offered, destination, offered, web_destination
from gateway.rcp.imaging_match import ATTACHED
from gateway.rcp.step import Step

__all__ = [
    "CHANNEL",
    "CONFIRMATION",
    "KIND",
    "WEB_CHANNEL",
    "WITHDRAWN",
    "Asked",
    "Manifest",
    "ManifestObject",
    "Sending",
    "after_delivery",
    "again",
    "may_leave",
    "may_send",
    "places",
    "send",
    "send_from_dossier",
    "sent",
]

#: To an application by C-STORE, to a server by STOW-RS.
CHANNEL, WEB_CHANNEL = "dicom", "dicomweb"
KIND = "etude"
#: What a PACS that asked is told of its own objects; the wire makes and sends it.
CONFIRMATION = "confirmation"

#: Refusal of a study that was put aside meanwhile.
WITHDRAWN = ("etude-retiree", "Étude mise de côté depuis la demande : son patient n’est plus sûr.")

#: Sendings of one dossier that a page lists.
_LISTED = 50

#: What a failure is called on the work list.
_FAILED: Final = {"refuse": "images-refusees", "parque": "images-non-parties"}

#: What an order did: a sending of its own, one that had failed and goes on, nothing.
Asked = Literal["nouveau", "repris", "deja"]


class ManifestObject(msgspec.Struct, frozen=True, array_like=True):
    """One object of a study: what it is, and where its bytes are."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """The objects that one message sends, in their order, and the records that they were of when it was asked."""

    study_uid: str
    objects: tuple[ManifestObject, ...]
    records: tuple[str, ...] = ()


def send(step: Step, study_uid: str, to: str, *, standing_in: Dossier | None = None) -> Message:
    """Send a study to a registered application, or to a DICOMweb server.

    Parameters
    ----------
    to
        An AE title, or the base address of a server.
    standing_in
        A dossier: what another hospital keeps under the same UID for another patient is no part of it.

    Raises
    ------
    NotFound
        No such study for this caller.
    Forbidden
        ``envoi-d-images``: he prepares no RCP in which it is discussed.
    InvalidContent
        ``destination-dicom``: nobody registered this application, or not where it listens.
    """
    session, caller = step.session, step.caller
    wanted = [Study.study_instance_uid == study_uid, Study.state == ATTACHED, access.studies(caller)]
    if standing_in is not None:
        of_it = select(StudyDossier.study_id).where(StudyDossier.dossier_id == standing_in.id)
        wanted.append(Study.id.in_(of_it))
    studies = session.scalars(select(Study).where(*wanted).order_by(Study.id)).all()
    if not studies:
        raise access.hidden(caller, "Study", study_uid, text="Étude inconnue.")
    if not _may_send(session, step, studies):
        error = Forbidden("envoi-d-images", "Seul qui prépare une RCP où l’étude est discutée peut l’envoyer.")
        error.trail = access.facts(
            caller, "refus", outcome="4", reason=error.code, object_type="Study", object_id=study_uid
        )
        raise error
    web = web_destination(session, to) if to.startswith(("http://", "https://")) else None
    there = web or destination(session, to)
    if there is None:
        text = "Application DICOM de destination non enregistrée, ou sans adresse."
        raise InvalidContent("destination-dicom", text, rule=True)
    recipient = web.url if web is not None else to
    manifest = _manifest(session, study_uid, studies)
    content = msgspec.json.encode(manifest)
    message = step.post(
        Outgoing(
            channel=CHANNEL if web is None else WEB_CHANNEL,
            kind=KIND,
            # What came since makes another message; the same objects to the same place leave once.
            key=f"{KIND}|{study_uid}|{recipient}|{hashlib.sha256(content).hexdigest()}",
            content=content,
            recipient=recipient,
            partner_id=there.partner_id,
            details={
                "study": str(studies[0].id),
                "par": caller.name or caller.identifier or "",
                "objets": len(manifest.objects),
            },
        )
    )
    if message.domain_at == step.now:  # else it was asked before, and leaves no second time
        _told(step, message, study_uid, {study.record_id for study in studies if study.record_id is not None})
    return message


def _told(step: Step, message: Message, study_uid: str, records: Collection[uuid.UUID]) -> None:
    step.audit(
        "envoi",
        action="C",
        persons=tuple(sorted(records)),
        object_type="Study",
        object_id=study_uid,
        recipient=message.recipient,
        detail={
            "service": "C-STORE" if message.channel == CHANNEL else "STOW-RS",
            "objects": int(message.details.get("objets", 0)),
        },
    )


def _may_send(session: Session, step: Step, studies: Sequence[Study]) -> bool:
    if step.caller.kind is CallerKind.SYSTEM:
        return True
    rcps = session.scalars(
        select(RcpSession.rcp_id)
        .join(Dossier, Dossier.session_id == RcpSession.id)
        .join(StudyDossier, StudyDossier.dossier_id == Dossier.id)
        .where(StudyDossier.study_id.in_([study.id for study in studies]))
        .distinct()
    )
    return any(access.roles_in(session, step.caller, rcp_id) & access.ORGANISERS for rcp_id in rcps)


def _manifest(session: Session, study_uid: str, studies: Sequence[Study]) -> Manifest:
    rows = session.execute(
        select(Instance.sop_class_uid, Instance.sop_instance_uid, Instance.transfer_syntax_uid, Instance.sha256)
        .join(Series, Series.id == Instance.series_id)
        .where(Series.study_id.in_([study.id for study in studies]))
        .order_by(Series.series_number.nulls_last(), Series.id, Instance.instance_number.nulls_last(), Instance.id)
    )
    objects = {row.sop_instance_uid: ManifestObject(*row) for row in rows}
    records = sorted({str(study.record_id) for study in studies})
    return Manifest(study_uid, tuple(objects.values()), tuple(records))


def may_leave(session: Session, manifest: Manifest) -> bool:
    """Whether each object of a message is still of a study whose patient is settled, and is who he was then."""
    settled = (
        select(Instance.sop_instance_uid)
        .join(Series, Series.id == Instance.series_id)
        .join(Study, Study.id == Series.study_id)
        .where(Study.study_instance_uid == manifest.study_uid, Study.state == ATTACHED)
    )
    if manifest.records:
        settled = settled.where(Study.record_id.in_([uuid.UUID(one) for one in manifest.records]))
    here = set(session.scalars(settled))
    return all(one.sop_instance_uid in here for one in manifest.objects)


# ---- from the page of a dossier


@dataclass(frozen=True, slots=True)
class Sending:
    """One sending of a study: the message, what its objects are, and what was last heard of it.

    Attributes
    ----------
    failed
        Whether it goes no further by itself.
    offered
        Whether it is of the dossier's own study, to a place that its organisers may send to: what is asked of `again`.
    """

    message: Message
    study_uid: str
    objects: int
    partner: str
    said: str | None
    failed: bool = False
    offered: bool = False


def may_send(session: Session, caller: Caller, dossier: Dossier) -> bool:
    """Whether the caller organises the RCP of a dossier."""
    return bool(access.roles_in(session, caller, dossier.session.rcp_id) & access.ORGANISERS)


def places(session: Session, caller: Caller, dossier_id: uuid.UUID) -> tuple[Dossier, tuple[Offered, ...]]:
    """Return a dossier, and where its images may be sent.

    Raises
    ------
    NotFound
        The dossier does not exist for this caller, or he does not organise its RCP.
    """
    dossier = session.scalars(select(Dossier).where(Dossier.id == dossier_id, access.dossiers(caller))).one_or_none()
    if dossier is None or not may_send(session, caller, dossier):
        raise access.hidden(caller, "Dossier", dossier_id)
    return dossier, offered(session, dossier.session.rcp.network_id)


def send_from_dossier(
    step: Step, dossier_id: uuid.UUID, study_id: uuid.UUID | None, to: str, *, confirmed: bool
) -> Asked:
    """Send a study of a dossier to a place that is offered to its organisers; the same form twice sends it once.

    Whoever asks for what has failed has it taken up again.

    Raises
    ------
    NotFound
        The dossier or the study does not exist for this caller, or he does not organise the RCP.
    InvalidContent
        ``destination-dicom``, ``confirmation-absente`` (rules).
    Conflict
        As `again`.
    """
    session, caller = step.session, step.caller
    dossier, there = places(session, caller, dossier_id)
    study_uid = session.scalar(
        select(Study.study_instance_uid)
        .join(StudyDossier, StudyDossier.study_id == Study.id)
        .where(StudyDossier.dossier_id == dossier.id, Study.id == study_id, Study.state == ATTACHED)
    )
    if study_uid is None:
        raise access.hidden(caller, "Study", study_id or "-")
    if to not in {one.to for one in there}:
        text = "Choisissez un établissement de la liste."
        raise InvalidContent("destination-dicom", text, expression="destination", rule=True)
    if not confirmed:
        text = "Confirmez que cet établissement doit recevoir ces images."
        raise InvalidContent("confirmation-absente", text, expression="confirme", rule=True)
    message = send(step, study_uid, to, standing_in=dossier)
    if message.domain_at == step.now:
        return "nouveau"
    return again(step, dossier_id, message.id) if message.state in _FAILED else "deja"


def again(step: Step, dossier_id: uuid.UUID, message_id: uuid.UUID) -> Asked:
    """Put a sending of a dossier's study that failed back into the outbox, the same objects to the same place.

    It is what the work list does (`gateway.rcp.error_box.replay`), whose question it answers.

    Returns
    -------
    Asked
        ``deja`` when it is on its way, or has arrived.

    Raises
    ------
    NotFound
        The dossier does not exist for this caller, he does not organise its RCP, or it has no such sending, to none of
        the places that he may send to.
    Conflict
        ``deja-traite``: somebody else has just done it.
    """
    session = step.session
    dossier, there = places(session, step.caller, dossier_id)
    found = next((one for one in sent(session, dossier, there) if one.message.id == message_id), None)
    if found is None or not found.offered:
        raise access.hidden(step.caller, "Message", message_id)
    item = session.scalar(
        select(WorkItem.id).where(
            WorkItem.message_id == message_id,
            WorkItem.reason.in_(tuple(_FAILED.values())),
            WorkItem.closed_at.is_(None),
        )
    )
    if item is not None:
        step.lock(WorkItem, item)  # before its message, as the work list does
    [message] = step.lock(Message, message_id)
    if message.state not in _FAILED:
        return "deja"
    if item is not None:
        error_box.replay(step, item)
    else:  # somebody has closed the question, and nothing was done about it
        send_again(session, message_id)
        step.touch(message)
    _told(step, message, found.study_uid, {dossier.record_id})
    return "repris"


def sent(session: Session, dossier: Dossier, there: Sequence[Offered] = ()) -> tuple[Sending, ...]:
    """Return what was sent of the studies that stand in a dossier, the latest first; its caller may see them.

    Parameters
    ----------
    there
        Where he may send images (`places`).
    """
    studies = {
        str(one): uid
        for one, uid in session.execute(
            select(Study.id, Study.study_instance_uid)
            .join(StudyDossier, StudyDossier.study_id == Study.id)
            .where(StudyDossier.dossier_id == dossier.id, Study.state == ATTACHED)
        ).tuples()
    }
    if not studies:
        return ()
    last = (
        select(Attempt.reason)
        .where(Attempt.message_id == Message.id)
        .order_by(Attempt.started_at.desc())
        .limit(1)
        .scalar_subquery()
    )
    rows = session.execute(
        select(Message, Partner.name, last)
        .outerjoin(Partner, Partner.id == Message.partner_id)
        .where(
            Message.direction == "out",
            Message.channel.in_((CHANNEL, WEB_CHANNEL)),
            Message.kind == KIND,
            or_(*(Message.key.startswith(f"{KIND}|{uid}|", autoescape=True) for uid in sorted(set(studies.values())))),
        )
        .order_by(Message.created_at.desc(), Message.id)
        .limit(_LISTED)
    ).tuples()
    offered_to = {one.to for one in there}
    return tuple(
        Sending(
            message,
            message.key.split("|", 2)[1],
            int(message.details.get("objets", 0)),
            name or "",
            said,
            failed=message.state in _FAILED,
            # What another hospital keeps under the same UID is its own affair.
            offered=message.recipient in offered_to and str(message.details.get("study")) in studies,
        )
        for message, name, said in rows
    )


def after_delivery(session: Session, message: Message) -> None:
    """Ask a person about what could not be sent; for `gateway.exchange.delivery.Deliveries` (``settled``)."""
    if message.channel not in (CHANNEL, WEB_CHANNEL) or message.direction != "out":
        return
    reason = _FAILED.get(message.state)
    if reason is None:
        if message.state == "envoye":
            work_list.settle_by_itself(session, message.id, tuple(_FAILED.values()))
        return
    partner = session.get(Partner, message.partner_id) if message.partner_id is not None else None
    work_list.ask(
        session,
        WorkItem(
            key=f"message|{message.id}|{reason}",
            kind="message",
            reason=reason,
            message_id=message.id,
            partner_id=message.partner_id,
            network_id=partner.network_id if partner is not None else None,
            study_id=message.details.get("study"),
            details={"type": message.kind},
        ),
    )
