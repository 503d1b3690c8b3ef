"""What each component of ``serve`` runs, and the one-shot commands that need an open gateway.

Promises: a component loads only the wires that it needs, drains when told to stop, and closes what it opened.
Supervision is `serve`'s.
"""

from __future__ import annotations

import gc
import signal
import socket
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import structlog
import uvicorn
from sqlalchemy.orm import Session

from gateway.app.gateway import Gateway, open_gateway
from gateway.app.subscribing import rest_hooks, subscribing
from gateway.dicom.copier import Copier
from gateway.dicom.outgoing import DicomChannel
from gateway.dicom.outgoing_web import DicomWebChannel
from gateway.dicom.scu import client_tls
from gateway.dicom.storage import component as dicom
from gateway.dicom.storage import ours
from gateway.errors import NotFound, Unavailable
from gateway.exchange.delivery import Deliveries
from gateway.exchange.inbox import Inbox
from gateway.exchange.jobs import Periodic, Worker
from gateway.exchange.outbox import Channel
from gateway.exchange.replaying import send_again
from gateway.fhir import telling
from gateway.fhir.annuaire import annuaire
from gateway.fhir.reindexing import Told, reindex
from gateway.fhir.rest_hook import BACKOFF, RestHookChannel
from gateway.hl7v2 import wire as hl7v2
from gateway.identifiers import MssanteAddress
from gateway.model.message import Message
from gateway.model.sealing import seal, verify
from gateway.mssante.intake import MailIntake
from gateway.mssante.mdn import Answering
from gateway.rcp import (
    announcements,
    deadlines,
    directory_refresh,
    imaging,
    imaging_copies,
    imaging_sending,
    mail_events,
    notification,
    report_sending,
)
from gateway.rcp.access import SYSTEM
from gateway.rcp.notice_changes import CHANGE
from gateway.rcp.notification import PlanLine
from gateway.rcp.resending import require_same
from gateway.rcp.step import Step
from gateway.settings import Settings
from gateway.transport import Address
from gateway.web.stalled import Protocol

if TYPE_CHECKING:  # the framework is loaded by the component that serves HTTP alone
    from fastapi import FastAPI

__all__ = [
    "audit_faults",
    "migrated",
    "plan",
    "planned",
    "prepared",
    "reindexed",
    "replayed",
    "run",
    "sharing",
]

log = structlog.get_logger(__name__)

_DRAIN_S = 20
#: How long an idle connection stays. Whoever keeps connections for later must close first, or meets one that closes
#: while he writes: pools of EHR clients and proxies keep them up to a minute (nginx 60 s), uvicorn by itself 5 s.
_IDLE_S = 75

#: Objects made and not gone, after which circular garbage is looked for.
_COLLECTED_AFTER = 50_000


def run(name: str, settings: Settings) -> None:
    """Run one component in the foreground until SIGTERM or SIGINT."""
    _RUNNERS[name](settings)


def _until_told() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _listening(bind: Address, code: str, *, shared: bool) -> socket.socket:
    try:
        return bind.listening(backlog=512, shared=shared)
    except OSError as error:
        raise Unavailable(code, f"L’adresse {bind} ne peut pas être écoutée.") from error


def _http(settings: Settings) -> None:
    from gateway.app import http

    with open_gateway(settings) as gateway:
        application = http.application(gateway)
        listening = _listening(settings.http_bind, "http-bind", shared=settings.http_workers > 1)
        log.info("http-ready", address=str(settings.http_bind), public_url=settings.public_url)
        _collect_seldom()
        uvicorn.Server(_server_settings(application)).run(sockets=[listening])


def _collect_seldom() -> None:
    """Look for circular garbage less often: nearly all that a request makes goes with it.

    With the interpreter's own numbers the trees of large Bundles at work are walked over and over, a fifth of their
    time; what stands since the start is walked no more.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECTED_AFTER)


def _server_settings(application: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        http=Protocol,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=_DRAIN_S,
        ws="none",
    )


def _dicom(settings: Settings) -> None:
    stop = _until_told()
    with open_gateway(settings) as gateway:
        port = dicom(settings, gateway.steps, gateway.blobs)
        try:
            port.start()
        except OSError as error:
            raise Unavailable("dicom-bind", f"L’adresse {settings.dicom.bind} ne peut pas être écoutée.") from error
        _collect_seldom()
        log.info("dicom-ready", address=str(settings.dicom.bind), ae_title=settings.dicom.ae_title)
        stop.wait()
        port.stop()


def _mllp(settings: Settings) -> None:
    stop = _until_told()
    with open_gateway(settings) as gateway:
        port = hl7v2.component(settings, gateway.steps, gateway.blobs)
        try:
            port.start()
        except OSError as error:
            raise Unavailable("mllp-bind", f"L’adresse {settings.mllp.bind} ne peut pas être écoutée.") from error
        log.info("mllp-ready", address=str(settings.mllp.bind), tls=settings.mllp.tls.enabled)
        stop.wait()
        port.stop()


def _deliveries(gateway: Gateway) -> Deliveries:
    settings = gateway.settings
    tls = client_tls(settings.dicom.tls) if settings.dicom.tls.enabled else None
    channels: list[Channel] = [
        DicomChannel(gateway.store, gateway.blobs, ours(settings)),
        DicomWebChannel(
            gateway.store,
            gateway.blobs,
            context=tls,
            clear=not settings.prod,
            credentials=settings.dicomweb_credentials,
        ),
        rest_hooks(gateway, subscribing(gateway)),
    ]
    if gateway.mail and gateway.mail.channel:
        channels.append(gateway.mail.channel)

    def settled(session: Session, message: Message) -> None:
        changed = mail_events.after_delivery(session, message)
        imaging_sending.after_delivery(session, message)
        telling.after_delivery(session, message)
        gateway.representer.keep(session, [message, *changed], {})

    backoff = {RestHookChannel.name: BACKOFF}
    return Deliveries(gateway.store, gateway.blobs, gateway.trail, channels, settled=settled, backoff=backoff)


def _inbox(gateway: Gateway) -> tuple[Inbox, MailIntake | None]:
    """The inbox with the readers that this process has, and the one of the mailbox."""
    messages = hl7v2.reader(gateway.settings, gateway.steps, gateway.blobs)
    address = gateway.settings.mail.address
    if address is None:
        return Inbox(gateway.store, gateway.blobs, [messages]), None
    letters = gateway.mail.letters if gateway.mail else None
    answering = Answering(letters.address, letters.nil, letters.name) if letters is not None else None
    intake = MailIntake(gateway.steps, address=address, letters=letters, blobs=gateway.blobs, answering=answering)
    inbox = Inbox(gateway.store, gateway.blobs, [intake, messages])
    return inbox, intake.attach(inbox)


def _worker(settings: Settings) -> None:
    stop = _until_told()
    with open_gateway(settings) as gateway:
        deliveries, (inbox, intake) = _deliveries(gateway), _inbox(gateway)
        copier = Copier(gateway.blobs)
        worker = Worker(gateway.store, deliveries.attempt, _periodic(gateway, deliveries, inbox, copier))
        log.info("worker-ready", mail=gateway.mail is not None)
        with closing(copier), _mailbox_read(gateway, intake, stop):
            worker.run(stop)
        if gateway.mail is not None and gateway.mail.channel is not None:
            gateway.mail.channel.close()


def _periodic(gateway: Gateway, deliveries: Deliveries, inbox: Inbox, copier: Copier) -> list[Periodic]:
    """Everything that comes again; what was missed while the worker was down is found at its start."""
    # Here and in `_http` alone: the port and the supervisor start a second earlier without the HTTP wires.
    from gateway.app import http

    steps, mail, into = gateway.steps, gateway.mail, subscribing(gateway)
    tasks = [
        Periodic("sweep-outbox", "* * * * *", deliveries.sweep),
        Periodic("sweep-inbox", "* * * * *", inbox.sweep),
        Periodic("seal", "*/5 * * * *", lambda: seal(gateway.store, gateway.trail)),
        Periodic("sweep-sessions", "*/5 * * * *", http.portal_sessions(gateway).sweep),
        Periodic("settle-images", "* * * * * */10", lambda: imaging.settle(steps)),
        Periodic("tell-subscribers", "* * * * * */5", lambda: telling.tell_due(steps, into)),
        Periodic("keep-subscriptions", "* * * * * */30", lambda: telling.keep_up(steps, into)),
        Periodic("copy-studies", "* * * * * */5", lambda: imaging_copies.make_due(steps, copier)),
        Periodic("mails-without-news", "* * * * *", lambda: deadlines.settle_due(steps)),
        Periodic("settle-reports", "* * * * * */5", lambda: report_sending.settle_due(steps)),
    ]
    if mail is not None:
        tasks.append(Periodic("plan", "* * * * * */15", lambda: notification.plan_due(steps, mail.letters)))
        tasks.append(Periodic("announce", "* * * * * */15", lambda: announcements.announce_due(steps, mail.letters)))
    national = annuaire(gateway.settings)
    if national is not None:
        tasks.append(Periodic("refresh-directory", "* * * * *", lambda: directory_refresh.refresh_due(steps, national)))
    return tasks


@contextmanager
def _mailbox_read(gateway: Gateway, intake: MailIntake | None, stop: threading.Event) -> Iterator[None]:
    """Read the gateway's mailbox in a thread while the worker works."""
    if gateway.mail is None or gateway.mail.mailbox is None or intake is None:
        yield
        return
    reader = threading.Thread(target=gateway.mail.mailbox.watch, args=(intake, stop), name="mailbox", daemon=True)
    reader.start()
    yield
    reader.join(timeout=5)


@contextmanager
def sharing(settings: Settings, wanted: Sequence[str]) -> Iterator[Mapping[str, str]]:
    """Let several processes answer on one port, and give the environment in which those of HTTP count in one place.

    Raises
    ------
    Unavailable
        ``http-bind``, ``dicom-bind``: somebody else listens there already; processes that share a port would share it
        with him too.
    """
    if "dicom" in wanted and settings.dicom.workers > 1:
        _listening(settings.dicom.bind, "dicom-bind", shared=False).close()
    if "http" not in wanted or settings.http_workers == 1:
        yield {}
        return
    from gateway.web.metrics import COUNTED_TOGETHER

    _listening(settings.http_bind, "http-bind", shared=False).close()
    with tempfile.TemporaryDirectory(prefix="rcp-metrics-") as folder:
        yield {COUNTED_TOGETHER: folder}


@contextmanager
def prepared(settings: Settings) -> Iterator[None]:
    """Hold the database open and migrated while children come and go."""
    with open_gateway(settings):
        yield


def migrated(settings: Settings) -> tuple[str | None, str | None]:
    """Bring the database to this program's schema; revisions before and after."""
    with open_gateway(settings, migrate=True) as gateway:
        return gateway.found_revision, gateway.store.revision()[0]


def reindexed(settings: Settings, told: Told | None = None) -> int:
    """Extract all search columns again; how many representations."""
    with open_gateway(settings, migrate=True) as gateway:
        return reindex(gateway.store, told=told)


def audit_faults(settings: Settings) -> list[str]:
    """What is wrong with the trail, one sentence a break."""
    with open_gateway(settings) as gateway:
        return [found.text for found in verify(gateway.store, gateway.trail).breaks]


def plan(settings: Settings, at: datetime | None) -> Iterator[PlanLine]:
    """What a run of the planner at an instant would decide."""
    with open_gateway(settings) as gateway, gateway.store.session() as session:
        yield from notification.preview(session, at or gateway.clock.now())


def planned(settings: Settings) -> notification.Run:
    """Run the planner once, now."""
    with open_gateway(settings) as gateway:
        if gateway.mail is None:
            raise Unavailable("mail", "La passerelle n’a pas de boîte MSSanté (RCP_MSSANTE_ADDRESS, RCP_OID_ROOT).")
        return notification.plan_due(gateway.steps, gateway.mail.letters)


def images_sent(settings: Settings, study_uid: str, to: str) -> str:
    """Put a study into the outbox for a registered application or server; what was done, in French."""
    with open_gateway(settings) as gateway:

        def verb(step: Step) -> tuple[uuid.UUID, str]:
            message = imaging_sending.send(step, study_uid, to)
            return message.id, message.state

        message_id, state = gateway.steps.run(SYSTEM, verb)
    if state == "en-attente":
        return f"Étude dans la file d’envoi, pour {to} : message {message_id}."
    return f"Ces images ont déjà été confiées à l’envoi pour {to} (état : {state}) : message {message_id}."


def replayed(settings: Settings, message_id: uuid.UUID) -> str:
    """Send one outgoing message again, or process one incoming message again; what was done, in French."""
    with open_gateway(settings) as gateway:

        def verb(step: Step) -> str | None:
            kept = step.session.get(Message, message_id)
            if kept is None:
                raise NotFound("message", "Aucun message ne porte cet identifiant.")
            step.audit("envoi", action="E", object_type="Message", object_id=str(message_id), reason="rejeu")
            if kept.direction == "in":
                return None
            if kept.kind == CHANGE:  # of what has changed again, no word is true
                require_same(step, kept)
            return send_again(step.session, message_id).recipient

        recipient = gateway.steps.run(SYSTEM, verb)
        if recipient is not None:
            return f"Message remis dans la file d’envoi, pour {MssanteAddress.shown(recipient)}."
        settled = _inbox(gateway)[0].replay(message_id)
        return "Message reçu traité à nouveau." if settled else "Message reçu gardé : il n’a pas pu être traité."


_RUNNERS = {"http": _http, "dicom": _dicom, "mllp": _mllp, "worker": _worker}
