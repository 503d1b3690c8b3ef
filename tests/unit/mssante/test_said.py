"""The life of mails with people's names wherever a mail can have one: no log line and no error says any of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.policy import SMTP
from types import SimpleNamespace

import pytest
import structlog
from sqlalchemy import select, update

from gateway.errors import GatewayError, InvalidContent
from gateway.exchange.delivery import Deliveries
from gateway.exchange.inbox import Inbox
from gateway.exchange.outbox import Delivery, Outcome
from gateway.model.dossier import Correspondent
from gateway.model.message import Message
from gateway.model.person import WorkItem
from gateway.mssante.intake import MailIntake
from gateway.mssante.translate import Composer
from gateway.rcp import deadlines, error_box, mail_events, notification
from gateway.rcp.report_draft import ReportDraft, kept
from tests import xdm_samples as samples
from tests.identities import Watch
from tests.unit.mssante import test_intake as replies
from tests.unit.mssante import test_intake_documents as documents
from tests.unit.mssante.test_malformed import CASES
from tests.world import build

GATEWAY = "rcp@3c.mssante.fr"
NOW = datetime(2026, 3, 17, 9, 0, tzinfo=UTC)
#: What an archive must not be, but for what takes seconds to say.
REFUSED = {name: case for name, case in CASES.items() if not name.startswith("X01") and name != "X13 huge text"}
#: What a name, a number, a date and an address look like where nobody expects them.
CANARY = "CANARIVAL DOMINIQUE née le 28/03/1979 INS 279035121518989 <canarival@medecin.mssante.fr>"


class Operator:
    """A way out whose every answer quotes the recipient and the patient."""

    name, idempotent = "mssante", True

    def __init__(self) -> None:
        self.outcomes: Iterator[Outcome] = itertools.cycle((Outcome.UNAVAILABLE, Outcome.UNCERTAIN, Outcome.REFUSED))

    def deliver(self, message: Message, _content: bytes) -> Delivery:
        return Delivery(next(self.outcomes), "550", f"5.1.1 <{message.recipient}>: user unknown, {CANARY}")


@pytest.fixture
def scene(store, make_steps, blobs, trail, overheard: Watch):
    with store.session() as session:
        world = build(session)
        dossier = world.dossier(reference=replies.REFERENCE)
        session.execute(update(Correspondent).values(since=NOW - timedelta(days=8)))
        session.commit()
        made = SimpleNamespace(store=store, dossier=dossier.id, world=world, blobs=blobs, numbers=itertools.count(1))
        made.coordinator = world.caller(world.coordinator)
        made.stranger = world.caller(world.stranger)
    made.clock = SimpleNamespace(at=NOW, now=lambda: made.clock.at)
    made.steps = make_steps(clock=made.clock)
    made.letters = Composer(address=GATEWAY, nil="000000", name="RCP Sein", answers_read=True)
    made.intake = MailIntake(made.steps, address=GATEWAY, letters=made.letters, blobs=blobs)
    made.inbox = Inbox(store, blobs, [made.intake])
    made.intake.attach(made.inbox)
    made.deliveries = Deliveries(store, blobs, trail, [Operator()], settled=mail_events.after_delivery)
    made.overheard = overheard
    return made


def _with_names(content: bytes, name: str = "IHE_XDM.zip") -> bytes:
    """A mail whose every part and header has a name of a person."""
    made = EmailMessage(policy=SMTP)
    made["From"], made["To"] = '"CANARIVAL DOMINIQUE" <canarival@medecin.mssante.fr>', GATEWAY
    made["Return-Path"] = "<canarival@medecin.mssante.fr>"
    made["Message-ID"] = f"<canarival.{next(documents.SERIAL)}@medecin.mssante.fr>"
    made["Subject"] = f"XDM/1.0/DDM+{CANARY}".replace("<", "").replace(">", "")
    made.set_content(CANARY)
    made.add_attachment(content, maintype="application", subtype="octet-stream", filename=name)
    made.add_attachment(b"%PDF-1.4", maintype="application", subtype="pdf", filename=f"{CANARY}.pdf")
    return bytes(made)


def test_the_whole_life_of_a_mail_names_nobody(scene) -> None:
    # Out: planned, refused in three ways, missed.
    assert notification.plan_due(scene.steps, scene.letters).sent == 1
    [scene.notice] = replies.rows(scene, Message, Message.kind == "M1")
    for _ in range(3):
        with scene.store.session() as session:
            session.execute(update(Message).values(state="en-attente", not_before=NOW))
            session.commit()
        scene.deliveries.attempt(scene.notice.id)
    scene.clock.at = NOW + timedelta(hours=9)
    deadlines.settle_due(scene.steps)
    # In: a reply, strangers, machines, reports of failure with their words.
    replies.come(scene, replies.mail(scene, CANARY))
    replies.come(scene, replies.mail(scene, CANARY, sender="canarival@medecin.mssante.fr"))
    replies.come(scene, replies.mail(scene, CANARY, answers="canarival@ailleurs.fr", subject=CANARY))
    replies.come(scene, replies.mail(scene, "x" * 30_000 + CANARY))
    diagnostic = f"Diagnostic-Code: smtp; 550 5.1.1 {CANARY}\r\n"
    for original in (None, "canarival@medecin.mssante.fr"):
        replies.come(scene, replies.delivery_report(scene, replies.block("failed", original=original) + diagnostic))
    for broken in (CANARY.encode(), b"\xff\xfe" + CANARY.encode("utf-16"), b"From: " + CANARY.encode() * 2000):
        replies.come(scene, broken)
    # Documents: attached, of somebody unknown or doubtful, and everything that an archive must not be.
    documents.patient(scene, match_key=documents.TRAITS.replace("1979", "1980"))
    replies.come(scene, _with_names(documents.ARCHIVE))
    documents.patient(scene)
    replies.come(scene, _with_names(documents.ARCHIVE))
    replies.come(scene, _with_names(documents.ARCHIVE, "PAT-TROIS_DOMINIQUE_28-03-1979.zip"))
    for make, _ in REFUSED.values():
        replies.come(scene, _with_names(make()))
    named = samples.zipped(samples.valid() | {"../PAT-TROIS DOMINIQUE 279035121518989.pdf": b"%PDF"})
    replies.come(scene, _with_names(named))
    # A person works through the error box; who has no part in it is refused, and so is what cannot be.
    items = replies.rows(scene, WorkItem)
    assert len(items) > len(REFUSED)
    for caller, item in itertools.product((scene.stranger, scene.coordinator), items):
        for act in (
            lambda step, key: error_box.tie(step, key, CANARY),
            lambda step, key: error_box.close(step, key, CANARY * 5),
            error_box.replay,
        ):
            try:
                scene.steps.run(caller, lambda step, act=act, key=item.id: act(step, key))
            except GatewayError:
                continue  # what is refused is what is read
    with pytest.raises(InvalidContent):
        kept(ReportDraft(guideline=CANARY * 50))

    watch: Watch = scene.overheard
    assert watch.found() == []
    codes = {said.partition(":")[0] for said in watch.errors}
    assert {expected for _, expected in REFUSED.values()} <= codes
    assert {"inconnu", "motif-trop-long", "cr-brouillon-invalide"} <= codes
    assert {"notification-run"} <= {line["event"] for line in watch.lines}
    with scene.store.session() as session:  # the names were there to be said
        contents = session.scalars(select(Message.content).where(Message.direction == "in"))
        assert sum(b"CANARIVAL" in (content or b"") for content in contents) > len(REFUSED)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Patient Canarivål", "name CANARIVAL"),
        ("né le 28/03/1979", "birth date"),
        ("19790328", "birth date"),
        ("ins=279035121518989", "INS or NIR"),
        ("rpps 10100000123", "RPPS"),
        ("to x.y@medecin.mssante.fr", "address"),
    ],
)
def test_what_names_somebody_is_heard_in_every_way_of_saying_it(overheard: Watch, said: str, kind: str) -> None:
    log = structlog.get_logger("essai")
    log.warning("an-event", detail=said)
    InvalidContent("essai", said)
    log.error("told by its type", exc_info=ValueError(said))
    assert [one for one, _ in overheard.found()] == [kind, kind]


def test_what_names_nobody_is_not_held_against_anybody(overheard: Watch) -> None:
    InvalidContent("essai", "Le dossier RCP-7K3Q-29, séance du 19/03/2026 à 14h00, 1024 octets, 0123456789abcdef.")
    structlog.get_logger("essai").info("x", address="rcp@3c.mssante.fr", key="01a1fe12-5f7a-7787-8b77-4b1251424e3b")
    assert overheard.found() == []
