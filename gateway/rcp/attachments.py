"""Pictures and PDFs that people lay beside a dossier.

Promises: who organises the RCP, the requester and the treating physician add files until the report is validated, and
only who added one takes it back, until then; whoever sees the dossier sees them, nobody else learns that they are; the
same file twice in a dossier is one; a form of several files keeps all of them or none. What is kept was judged
(`gateway.documents.attached`); the bytes stand in the blob store and never change. What was taken back is told to who
had read it over FHIR (``entered-in-error``), and its bytes are given to nobody any more.

[spec features S0-065, S3-018; spec fhir-fr 1.19]
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
import uuid
from collections.abc import Sequence
from typing import Final

from msgspec import Struct
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.errors import Conflict, Forbidden, InvalidContent
from gateway.exchange import pending
from gateway.exchange.blobs import BlobStore
from gateway.identifiers import uuid7
from gateway.model.directory import Practitioner
from gateway.model.dossier import Dossier
from gateway.model.received import ReceivedDocument
from gateway.rcp import access, fiche, received
from gateway.rcp.access import Caller
from gateway.rcp.letters import full_name
from gateway.rcp.step import Step

__all__ = [
    "CHANNEL",
    "HELD_AT_MOST",
    "KINDS",
    "NAME_CHARACTERS",
    "NewFile",
    "add",
    "held",
    "listed",
    "may_add",
    "own",
    "take_back",
]

#: `ReceivedDocument.channel` of what a person laid there.
CHANNEL: Final = "portail"
#: Formats that are kept as they are, and their media types.
KINDS: Final = {"png": "image/png", "jpeg": "image/jpeg", "gif": "image/gif", "pdf": "application/pdf"}
NAME_CHARACTERS: Final = 120
HELD_AT_MOST: Final = 50
_HIDDEN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class NewFile(Struct, frozen=True, kw_only=True):
    """One file as it is to be kept: judged, with the name under which people know it."""

    name: str
    kind: str
    content: bytes


def may_add(session: Session, caller: Caller, dossier: Dossier) -> bool:
    """Whether this person may lay files beside a dossier now."""
    if fiche.editable(session, caller, dossier):
        return True
    return access.treats(caller, dossier) is not None and fiche.is_open(session, dossier)


def add(step: Step, dossier_id: uuid.UUID, files: Sequence[NewFile], blobs: BlobStore) -> list[ReceivedDocument]:
    """Keep files beside a dossier; what it has already is not kept twice.

    Raises
    ------
    NotFound
        The dossier does not exist for the caller.
    Forbidden
        ``lecture-seule``: he reads it only.
    Conflict
        ``formulaire-clos``: the report is validated, or the dossier withdrawn.
    InvalidContent
        ``pieces-trop-nombreuses`` (rule).
    """
    dossier = held(step, dossier_id)
    author = _author(step)
    made = []
    for one in files:
        digest = hashlib.sha256(one.content).hexdigest()
        known = step.session.scalar(
            select(ReceivedDocument.id).where(
                ReceivedDocument.dossier_id == dossier.id,
                ReceivedDocument.channel == CHANNEL,
                ReceivedDocument.sha256 == digest,
                ReceivedDocument.state == "attache",
            )
        )
        if known is not None:
            continue
        key = uuid7()
        kept = pending.keep(step.session, blobs, one.content)
        row = ReceivedDocument(
            id=key,
            channel=CHANNEL,
            sender=str(author.id),
            unique_id=f"2.25.{key.int}",
            format=one.kind,
            sha256=kept.sha256,
            size_bytes=kept.size_bytes,
            title=_clean(one.name),
            author=full_name(author),
            record_id=dossier.record_id,
            dossier_id=dossier.id,
            state="attache",
            received_at=step.now,
        )
        step.session.add(row)
        step.session.flush()
        received.tell(step, row, "creation", "C")
        made.append(row)
    if len(listed(step.session, dossier)) > HELD_AT_MOST:
        text = f"Un dossier ne reçoit pas plus de {HELD_AT_MOST} documents."
        raise InvalidContent("pieces-trop-nombreuses", text, expression="fichiers", rule=True)
    return made


def take_back(step: Step, dossier_id: uuid.UUID, document_id: uuid.UUID) -> None:
    """Take back a file that the caller laid there; twice is once.

    Raises
    ------
    NotFound
        The dossier or the file does not exist for the caller.
    Forbidden
        ``auteur-autre``: somebody else laid it there.
    Conflict
        ``formulaire-clos``.
    """
    dossier = held(step, dossier_id)
    [row] = own(step.session, dossier, document_id) or (None,)
    if row is None:
        raise access.hidden(step.caller, "ReceivedDocument", document_id)
    if row.sender != str(step.caller.practitioner_id):
        error = Forbidden("auteur-autre", "Seule la personne qui a déposé ce document peut le retirer.")
        error.trail = access.facts(
            step.caller,
            "refus",
            outcome="4",
            reason="auteur-autre",
            object_type="ReceivedDocument",
            object_id=str(row.id),
        )
        raise error
    if row.state != "retire":
        row.state = "retire"
        step.session.flush()
        received.tell(step, row, "modification", "U")


def listed(session: Session, dossier: Dossier) -> Sequence[ReceivedDocument]:
    """Return the files beside a dossier that were not taken back, oldest first."""
    wanted = select(ReceivedDocument).where(
        ReceivedDocument.dossier_id == dossier.id,
        ReceivedDocument.channel == CHANNEL,
        ReceivedDocument.state == "attache",
    )
    return session.scalars(wanted.order_by(ReceivedDocument.received_at, ReceivedDocument.id)).all()


def own(session: Session, dossier: Dossier, document_id: uuid.UUID) -> Sequence[ReceivedDocument]:
    """Find one file of a dossier, whether it was taken back or not."""
    return session.scalars(
        select(ReceivedDocument).where(
            ReceivedDocument.id == document_id,
            ReceivedDocument.dossier_id == dossier.id,
            ReceivedDocument.channel == CHANNEL,
        )
    ).all()


def held(step: Step, dossier_id: uuid.UUID) -> Dossier:
    """Lock a dossier beside which the caller may lay files.

    Raises
    ------
    NotFound, Forbidden, Conflict
        As `add`.
    """
    visible = select(Dossier.id).where(Dossier.id == dossier_id, access.dossiers(step.caller))
    if step.session.scalar(visible) is None:
        raise access.hidden(step.caller, "Dossier", dossier_id)
    [dossier] = step.lock(Dossier, dossier_id)
    if access.treats(step.caller, dossier) is None:
        return fiche.held(step, dossier_id)
    if not fiche.is_open(step.session, dossier):
        text = "Le dossier ne reçoit plus de document : le compte rendu est validé, ou le dossier refusé ou annulé."
        raise Conflict("formulaire-clos", text)
    return dossier


def _author(step: Step) -> Practitioner:
    return step.session.get_one(Practitioner, step.caller.practitioner_id)


def _clean(name: str) -> str:
    """Keep of a file's name what names it: no folder, no mark that hides or reorders what is read."""
    last = _HIDDEN.sub("", unicodedata.normalize("NFC", name)).replace("\\", "/").rpartition("/")[2]
    return " ".join(last.split())[:NAME_CHARACTERS] or "document"
