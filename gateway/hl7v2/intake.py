"""What comes by MLLP: kept first, then its step, then the acknowledgement.

Promises: a message is kept, with its very bytes, before anything is done with it; the same control id of the same
sender is one message, processed once and acknowledged as often as it comes, and other bytes under it are kept beside it
and refused; a message whose process was killed is processed by the sweep or when it comes again, whichever is first;
when nothing could be kept, or its step could not be done yet, the answer is AR and the sender may send the same again.
What a sender may do is his partner's right, then as now.

`Hl7Intake` is the `Reader` of `gateway.exchange.inbox`, and what `gateway.hl7v2.mllp` hands messages to.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import replace
from zoneinfo import ZoneInfo

import msgspec
import structlog
from sqlalchemy.orm import Session

from gateway.errors import Conflict, GatewayError, InvalidContent, Unavailable
from gateway.exchange.blobs import BlobStore
from gateway.exchange.inbox import Inbox, Incoming, Kept, once
from gateway.hl7v2 import outcome, segments, translate
from gateway.hl7v2.outcome import Verdict
from gateway.hl7v2.peers import caller_of
from gateway.hl7v2.segments import Head
from gateway.hl7v2.translate import Request
from gateway.model.message import Message
from gateway.model.partner import Partner
from gateway.model.person import WorkItem
from gateway.model.store import utcnow
from gateway.rcp import received
from gateway.rcp.access import Caller
from gateway.rcp.step import Step, Steps
from gateway.rcp.work_list import ask

__all__ = ["CHANNEL", "Hl7Intake"]

CHANNEL = "mllp"
#: Of a message: what its sender was told, in full.
_TOLD = "reponse"
_OTHER_BYTES = "numero_repris"
_ZONE = ZoneInfo("Europe/Paris")

log = structlog.get_logger(__name__)


class Hl7Intake:
    """Takes the messages of one process.

    Parameters
    ----------
    strict
        See `gateway.hl7v2.translate.read`.
    """

    channel = CHANNEL

    def __init__(self, steps: Steps, blobs: BlobStore, *, strict: bool = False) -> None:
        self._steps = steps
        self._blobs = blobs
        self._strict = strict
        self._inbox: Inbox | None = None

    def attach(self, inbox: Inbox) -> Hl7Intake:
        """Name the inbox that keeps the messages; it knows this reader in turn."""
        self._inbox = inbox
        return self

    def take(self, content: bytes, caller: Caller) -> bytes:
        """Take one message and return its acknowledgement."""
        head = segments.head(content)
        try:
            told = self._take(content, head, caller)
        except GatewayError as error:
            told = outcome.verdict(error)
        except Exception as error:  # noqa: BLE001 - whatever happens, the sender gets an answer
            log.error("hl7-fault", error=type(error).__name__)  # noqa: TRY400 - a trace may quote a patient
            told = outcome.verdict(error)
        log.info("hl7-answered", kind=head.kind, msa=told.msa, code=told.code)
        return _ack(head, told)

    def refuse(self, beginning: bytes, error: GatewayError) -> bytes:
        """Return the acknowledgement of a message that cannot be kept, of which only the beginning is at hand."""
        return _ack(segments.head(beginning), outcome.verdict(error))

    def _take(self, content: bytes, head: Head, caller: Caller) -> Verdict:
        assert self._inbox is not None  # noqa: S101 - composed by `attach`
        kept = self._keep(content, head, caller)
        if kept.state == "garde":
            self._inbox.process(kept.id)
        with self._steps.store.session() as session:
            message = session.get_one(Message, kept.id)
        if _TOLD in message.details and message.state != "garde":
            return msgspec.convert(message.details[_TOLD], Verdict)
        if message.state != "garde" and message.reason is not None:
            return outcome.of_reason(message.reason)
        raise Unavailable("hl7-en-attente", "Message conservé ; son traitement n’a pas pu être fait maintenant.")

    def _keep(self, content: bytes, head: Head, caller: Caller) -> Kept:
        assert self._inbox is not None  # noqa: S101 - composed by `attach`
        digest = hashlib.sha256(content).hexdigest()
        named = hashlib.sha256("\x1f".join(part for one in head.parties[:2] for part in one).encode()).hexdigest()
        incoming = Incoming(
            channel=CHANNEL,
            kind=head.kind,
            key=f"{caller.partner_id}|{named[:16]}|{head.control_id or digest}",
            content=content,
            message_id=head.control_id or None,
            sender=head.sender,
            partner_id=caller.partner_id,
            details={"adresse": caller.address},
        )
        now = self._steps.clock.now()
        kept = self._inbox.keep(incoming, now)
        if kept.same_bytes:
            return kept
        details = incoming.details | {_OTHER_BYTES: True}
        return self._inbox.keep(replace(incoming, key=f"{incoming.key}|{digest}", details=details), now)

    def reprocess(self, message_id: uuid.UUID, content: bytes) -> None:
        """Do the step of one kept message."""
        request = _request(content, strict=self._strict, production=not self._steps.fictitious)
        caller = self._caller(message_id)

        def verb(step: Step) -> None:
            said: list[Verdict] = []

            def work(message: Message) -> str:
                told = self._work(step, message, request)
                said.append(told)
                notes = {"notes": list(request.notes)} if isinstance(request, Request) and request.notes else {}
                message.details = message.details | notes | {_TOLD: msgspec.to_builtins(told)}
                message.state = "traite" if told.msa == "AA" else "quarantaine"
                return told.msa

            once(step.session, message_id, work)
            for told in said:
                step.session.get_one(Message, message_id).reason = told.code

        self._steps.run(caller, verb)

    def refused(self, session: Session, message: Message) -> None:
        """Ask a person: a message that could not be processed at all is nobody's else."""
        partner = session.get(Partner, message.partner_id) if message.partner_id is not None else None
        owner = {"partner_id": partner.id, "network_id": partner.network_id} if partner is not None else {}
        ask(session, WorkItem(key=f"hl7|{message.id}", kind="message", reason="hl7-non-traite", **owner))

    def _caller(self, message_id: uuid.UUID) -> Caller:
        with self._steps.store.session() as session:
            message = session.get_one(Message, message_id)
            partner = session.get(Partner, message.partner_id) if message.partner_id is not None else None
            if partner is None or partner.revoked_at is not None:
                raise Conflict("partenaire-revoque", "Le partenaire qui a envoyé ce message n’en est plus un.")
            return caller_of(session, partner, address=message.details.get("adresse"))

    def _work(self, step: Step, message: Message, request: Request | GatewayError) -> Verdict:
        if message.details.get(_OTHER_BYTES):
            text = "Ce numéro de message (MSH-10) a déjà servi pour un autre contenu."
            return outcome.verdict(InvalidContent("hl7-numero-repris", text, expression="MSH^1^10", rule=True))
        if isinstance(request, GatewayError):
            return outcome.verdict(request)
        reasons = []
        masked = request.act != "retrait" and request.flags.get("MASQUE_PS")
        for header, content in request.documents:
            incoming = received.Incoming(
                channel="hl7v2",
                sender=str(step.caller.partner_id),
                message_id=message.id,
                withdraws=request.act == "retrait",
                # What no professional may see is seen by none here, until a person has read why.
                objection="document-masque" if masked else None,
            )
            row, reason = received.take_document(step, header, content, incoming, self._blobs)
            reasons += [reason] if reason is not None else []
            if row is not None and row.dossier_id is not None:
                message.dossier_id = row.dossier_id
        return outcome.of_reason(reasons[0]) if reasons else outcome.ACCEPTED


def _request(content: bytes, *, strict: bool, production: bool) -> Request | GatewayError:
    try:
        return translate.read(segments.parse(content), strict=strict, production=production)
    except GatewayError as error:
        return error


def _ack(head: Head, told: Verdict) -> bytes:
    return outcome.ack(head, told, utcnow().astimezone(_ZONE))
