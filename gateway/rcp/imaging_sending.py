"""A study sent to another application: who may send which, to whom, and what becomes of it.

Promises
--------
* Only a study that is in a dossier, is settled by identifier, and that the sender may see leaves; whoever prepares an
  RCP in which it is discussed decides, or the operator.
* It leaves to a registered application only, once for the same objects, by the outbox; a person is asked otherwise.
* What was put aside while it waited to leave (its identity is in doubt) does not leave: wires ask `may_leave` first.

Knows no protocol: `Manifest` is what the wire sends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.errors import Forbidden, InvalidContent
from gateway.exchange.outbox import Outgoing
from gateway.model.dossier import Dossier
from gateway.model.imaging import Instance, Series, Study, StudyDossier
from gateway.model.meeting import RcpSession
from gateway.model.message import Message
from gateway.model.partner import Partner
from gateway.model.person import WorkItem
from gateway.rcp import access, work_list
from gateway.rcp.access import CallerKind
from gateway.rcp.imaging_destinations import destination, web_destination
from gateway.rcp.imaging_match import ATTACHED
from gateway.rcp.step import Step

__all__ = [
    "CHANNEL",
    "CONFIRMATION",
    "KIND",
    "WEB_CHANNEL",
    "WITHDRAWN",
    "Manifest",
    "ManifestObject",
    "after_delivery",
    "may_leave",
    "send",
]

#: To an application by C-STORE, to a server by STOW-RS.
CHANNEL, WEB_CHANNEL = "dicom", "dicomweb"
KIND = "etude"
#: What a PACS that asked is told of its own objects; the wire makes and sends it.
CONFIRMATION = "confirmation"

#: Refusal of a study that was put aside meanwhile.
WITHDRAWN = ("etude-retiree", "Étude mise de côté depuis la demande : son patient n’est plus sûr.")

_FAILED = {"refuse": "images-refusees", "parque": "images-non-parties"}


class ManifestObject(msgspec.Struct, frozen=True, array_like=True):
    """One object of a study: what it is, and where its bytes are."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """The objects that one message sends, in their order."""

    study_uid: str
    objects: tuple[ManifestObject, ...]


def send(step: Step, study_uid: str, to: str) -> Message:
    """Send a study to a registered application, or to a DICOMweb server.

    Parameters
    ----------
    to
        An AE title, or the base address of a server.

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
    studies = session.scalars(
        select(Study)
        .where(Study.study_instance_uid == study_uid, Study.state == ATTACHED, access.studies(caller))
        .order_by(Study.id)
    ).all()
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
            details={"study": str(studies[0].id)},
        )
    )
    if message.domain_at == step.now:  # else it was asked before, and leaves no second time
        step.audit(
            "envoi",
            action="C",
            persons=tuple(sorted({study.record_id for study in studies if study.record_id is not None})),
            object_type="Study",
            object_id=study_uid,
            recipient=recipient,
            detail={"service": "C-STORE" if web is None else "STOW-RS", "objects": len(manifest.objects)},
        )
    return message


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
    return Manifest(study_uid, tuple(objects.values()))


def may_leave(session: Session, manifest: Manifest) -> bool:
    """Whether each object of a message is still of a study whose patient is settled."""
    settled = set(
        session.scalars(
            select(Instance.sop_instance_uid)
            .join(Series, Series.id == Instance.series_id)
            .join(Study, Study.id == Series.study_id)
            .where(Study.study_instance_uid == manifest.study_uid, Study.state == ATTACHED)
        )
    )
    return all(one.sop_instance_uid in settled for one in manifest.objects)


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
