"""Who was notified of a meeting that changed: told once where the RCP wants it, else listed for its organisers."""

from __future__ import annotations

import email
import email.policy
import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import delete, select, update

from gateway.errors import Conflict, Unavailable
from gateway.exchange.outbox import Outbox
from gateway.fhir.represent import Representer
from gateway.model.directory import Mailbox, Organisation, Practitioner
from gateway.model.dossier import Correspondent, Dossier
from gateway.model.meeting import Rcp, RcpSession
from gateway.model.message import Attempt, Message, NotificationEntry
from gateway.model.partner import Partner
from gateway.model.person import WorkItem
from gateway.model.representation import TABLES
from gateway.model.store import Store
from gateway.mssante.translate import Composer
from gateway.rcp import (
    access,
    error_box,
    inscription,
    mail_events,
    mailing,
    notice_changes,
    notice_sending,
    resending,
    session_plan,
)
from gateway.rcp.announcements import announce_due
from gateway.rcp.notification import plan_due
from gateway.rcp.session_plan import SessionFacts
from gateway.rcp.step import Steps
from tests.properties.crashing import killed_before_line
from tests.world import build

pytestmark = pytest.mark.usefixtures("nothing_names_anybody")

LETTERS = Composer(address="rcp@3c.mssante.example", nil="000000", name="RCP Sein")
#: The morning of the notification, two days before the session of the world (19/03/2026 at 14h00 in Paris).
NOTIFIED = datetime(2026, 3, 17, 7, 0, tzinfo=UTC)
LATER = datetime(2026, 3, 17, 9, 30, tzinfo=UTC)
VIDEO = {"lien": "https://visio.example/avant", "complement": "Code : 4711"}
NEW_VIDEO = {"lien": "https://visio.example/apres", "complement": "Code : 1234"}
FINESS = "750000018"


@pytest.fixture
def scene(store, make_steps):
    """A dossier whose physician was notified, in an RCP that tells of changes."""
    with store.session() as session:
        world = build(session)
        session.get_one(Organisation, world.organisation.id).finess = FINESS
        session.get_one(Partner, world.partner.id).finess = FINESS
        world.rcp.webconference = VIDEO
        world.rcp.notification = {"active": True, "renotification_auto": True}
        dossier = world.dossier()
        session.execute(update(Correspondent).values(since=dossier.registered_at))
        session.commit()
        made = SimpleNamespace(
            store=store,
            world=world,
            dossier=dossier.id,
            meeting=world.meeting.id,
            rcp=world.rcp.id,
            treating=world.treating.id,
            starts=world.meeting.starts_at,
            client=world.client(),
            coordinator=world.caller(world.coordinator),
        )
        made.reference = dossier.reference
    made.clock = SimpleNamespace(at=NOTIFIED, now=lambda: made.clock.at)
    made.steps = make_steps(clock=made.clock)
    assert plan_due(made.steps, LETTERS).sent == 1
    made.clock.at = LATER
    return made


def change(scene, model, key, **values):
    with scene.store.session() as session:
        row = session.get_one(model, key)
        for name, value in values.items():
            setattr(row, name, value)
        session.commit()


def option(scene, **values):
    change(scene, Rcp, scene.rcp, notification={"active": True, "renotification_auto": True} | values)


def moved(scene, days=7):
    starts = scene.starts + timedelta(days=days)
    facts = SessionFacts(starts_at=starts, ends_at=starts + timedelta(hours=2))
    scene.steps.run(scene.client, lambda step: session_plan.move_session(step, scene.meeting, facts))


def mails(scene):
    with scene.store.session() as session:
        rows = session.scalars(select(Message).where(Message.kind == "M1c").order_by(Message.id)).all()
        return [(row, email.message_from_bytes(row.content, policy=email.policy.default)) for row in rows]


def left(scene, state="envoye"):
    with scene.store.session() as session:
        session.execute(update(Message).where(Message.kind == "M1c", Message.state == "en-attente").values(state=state))
        session.commit()


def states(scene):
    return [row.state for row, _ in mails(scene)]


def body(scene):
    [(_, mail)] = mails(scene)
    return mail.get_content().replace("\r\n", "\n")


def told(scene):
    with scene.store.session() as session:
        meeting = session.get_one(RcpSession, scene.meeting)
        return notice_changes.told_of(session, access.SYSTEM, meeting, scene.clock.at)


def asked(scene):
    with scene.store.session() as session:
        return session.scalars(select(WorkItem.reason)).all()


def test_a_notification_remembers_what_it_says_of_the_meeting(scene):
    with scene.store.session() as session:
        [message] = session.scalars(select(Message).where(Message.kind == "M1")).all()
    assert message.details["annonce"] == {
        "seance": str(scene.meeting),
        "debut": "2026-03-19T13:00:00+00:00",
        "lien": "https://visio.example/avant",
        "complement": "Code : 4711",
    }


def test_the_text_is_the_specifications(scene):
    change(scene, Rcp, scene.rcp, webconference=NEW_VIDEO)
    moved(scene)
    assert announce_due(scene.steps, LETTERS) == 1
    [(message, mail)] = mails(scene)
    assert mail["subject"] == "Médecin – Notification préalable RCP – modification"
    assert message.recipient == "nguyen@medecin.mssante.fr"
    assert body(scene) == (
        "Bonjour Docteur NGUYEN,\n"
        "\n"
        "Les informations transmises le 17/03/2026 à 08h00 pour PAT-TROIS DOMINIQUE (28/03/1979) ont changé :\n"
        "  Date : jeudi 19 mars 2026 à 14h00 -> jeudi 26 mars 2026 à 14h00\n"
        "  Webconférence : utilisez désormais https://visio.example/apres Code : 1234"
        " (l'ancien lien ne fonctionne plus)\n"
        "\n"
        f"Fiche : https://rcp.example/dossiers/{scene.dossier}\n"
        "Le secrétariat du 3C – 3c@example.org\n"
        f"Référence : {scene.reference}\n"
    )


@pytest.mark.req("S2-012")
def test_with_the_option_each_notified_physician_gets_one_mail(scene):
    change(scene, Rcp, scene.rcp, webconference=NEW_VIDEO)
    assert [announce_due(scene.steps, LETTERS) for _ in range(3)] == [1, 0, 0]
    assert "Date :" not in body(scene)
    assert [one.changes for one in told(scene)] == [frozenset()]


@pytest.mark.req("S2-012")
def test_without_the_option_no_mail_leaves_and_who_was_told_is_listed(scene):
    option(scene, renotification_auto=False)
    change(scene, Rcp, scene.rcp, webconference=NEW_VIDEO)
    moved(scene)
    assert announce_due(scene.steps, LETTERS) == 0
    assert mails(scene) == []
    [one] = told(scene)
    assert (one.physician.family, one.address, one.at, one.link) == (
        "NGUYEN",
        "nguyen@medecin.mssante.fr",
        NOTIFIED,
        "https://visio.example/avant",
    )
    assert one.starts_at == scene.starts
    assert one.changes == {"chg.date", "chg.lien"}
    assert asked(scene) == ["seance-deplacee"]


def test_with_the_option_the_secretariat_is_not_asked_to_telephone(scene):
    moved(scene)
    assert asked(scene) == []


def test_what_an_older_notification_says_is_not_known_and_the_secretariat_is_asked(scene):
    with scene.store.session() as session:
        session.execute(update(Message).values(details={}))
        session.commit()
    moved(scene)
    assert announce_due(scene.steps, LETTERS) == 0
    assert asked(scene) == ["seance-deplacee"]
    [one] = told(scene)
    assert (one.starts_at, one.changes) == (None, frozenset())


@pytest.mark.parametrize(
    ("web", "said"),
    [
        ({}, "Webconférence : il n'y en a plus, l'ancien lien ne fonctionne plus\n"),
        ({"lien": VIDEO["lien"], "complement": "Code : 9"}, "désormais https://visio.example/avant Code : 9\n"),
        ({"lien": "https://b.example"}, "désormais https://b.example (l'ancien lien ne fonctionne plus)\n"),
    ],
)
def test_a_link_that_changed_is_said_as_it_is(scene, web, said):
    change(scene, Rcp, scene.rcp, webconference=web)
    assert announce_due(scene.steps, LETTERS) == 1
    assert said in body(scene)


def test_a_first_link_is_not_said_to_replace_another(scene):
    with scene.store.session() as session:
        message = session.scalars(select(Message).where(Message.kind == "M1")).one()
        message.details = message.details | {"annonce": message.details["annonce"] | {"lien": "", "complement": ""}}
        session.commit()
    assert announce_due(scene.steps, LETTERS) == 1
    assert "désormais https://visio.example/avant Code : 4711\n" in body(scene)


def test_a_cancelled_session_is_told_once_and_for_good(scene):
    scene.steps.run(scene.client, lambda step: session_plan.cancel_session(step, scene.meeting))
    assert [announce_due(scene.steps, LETTERS) for _ in range(2)] == [1, 0]
    assert "  La séance est annulée. Le dossier sera réinscrit par le demandeur" in body(scene)
    change(scene, Rcp, scene.rcp, webconference=NEW_VIDEO)
    assert announce_due(scene.steps, LETTERS) == 0


def test_a_withdrawn_dossier_is_told(scene):
    def withdraw(step):
        [row] = step.lock(Dossier, scene.dossier)
        inscription.cancel(step, row)

    scene.steps.run(scene.client, withdraw)
    assert [announce_due(scene.steps, LETTERS) for _ in range(2)] == [1, 0]
    assert "  Le dossier a été retiré de cette séance.\n" in body(scene)


def test_a_dossier_moved_to_another_session_is_told_its_date_and_notified_of_it_in_time(scene):
    def reschedule(step):
        [row] = step.lock(Dossier, scene.dossier)
        starts = scene.starts + timedelta(days=14)
        other = session_plan.hold(
            step, row.session.rcp, SessionFacts(starts_at=starts, ends_at=starts + timedelta(hours=2))
        )
        inscription.reschedule(step, row, other)

    scene.steps.run(scene.client, reschedule)
    [one] = told(scene)
    assert one.changes == {"chg.date"}, "it stands on the page of the session that its physician believes in"
    assert [announce_due(scene.steps, LETTERS) for _ in range(2)] == [1, 0]
    assert "  Date : jeudi 19 mars 2026 à 14h00 -> jeudi 2 avril 2026 à 15h00\n" in body(scene)
    assert told(scene) == []
    scene.clock.at = datetime(2026, 3, 31, 6, 5, tzinfo=UTC)
    assert plan_due(scene.steps, LETTERS).sent == 1
    assert announce_due(scene.steps, LETTERS) == 0


def test_a_change_taken_back_tells_nobody_and_a_second_one_is_told(scene):
    moved(scene)
    moved(scene, days=0)
    assert announce_due(scene.steps, LETTERS) == 0
    moved(scene)
    assert announce_due(scene.steps, LETTERS) == 1
    left(scene)
    moved(scene, days=0)
    assert announce_due(scene.steps, LETTERS) == 1
    (first, _), (second, mail) = mails(scene)
    assert first.message_id != second.message_id
    assert "jeudi 26 mars 2026 à 14h00 -> jeudi 19 mars 2026 à 14h00" in mail.get_content()
    assert "Les informations transmises le 17/03/2026 à 10h30" in mail.get_content()


def withdrawn(scene):
    def withdraw(step):
        [row] = step.lock(Dossier, scene.dossier)
        inscription.cancel(step, row)

    scene.steps.run(scene.client, withdraw)


#: What makes a mail untrue that says that the session is a week later.
UNTRUE = {
    "moved again": lambda scene: moved(scene, days=14),
    "moved back": lambda scene: moved(scene, days=0),
    "another link": lambda scene: change(scene, Rcp, scene.rcp, webconference=NEW_VIDEO),
    "cancelled": lambda scene: scene.steps.run(
        scene.client, lambda step: session_plan.cancel_session(step, scene.meeting)
    ),
    "withdrawn": withdrawn,
    "opposed": lambda scene: change(scene, Dossier, scene.dossier, opposed_at=LATER),
    "begun": lambda scene: setattr(scene.clock, "at", scene.starts + timedelta(days=7)),
}
#: Of which another mail tells.
NEWS = frozenset({"moved again", "another link", "cancelled", "withdrawn"})


@pytest.mark.parametrize("why", UNTRUE)
def test_a_mail_that_waits_and_is_true_no_more_is_held_back_and_told_nothing(scene, why):
    moved(scene)
    assert announce_due(scene.steps, LETTERS) == 1
    assert states(scene) == ["en-attente"]
    UNTRUE[why](scene)
    assert [announce_due(scene.steps, LETTERS) for _ in range(2)] == [int(why in NEWS), 0]
    assert states(scene) == ["annule"] + ["en-attente"] * (why in NEWS)
    if why in {"moved again", "another link"}:
        # What is told is told of the first notification, which he had; the one between never reached him.
        said = mails(scene)[-1][1].get_content()
        assert "Les informations transmises le 17/03/2026 à 08h00" in said
        assert "jeudi 19 mars 2026 à 14h00 -> jeudi" in said


def test_a_mail_under_way_counts_as_told_when_it_is_held_back(scene):
    moved(scene)
    announce_due(scene.steps, LETTERS)
    with scene.store.session() as session:
        [message] = session.scalars(select(Message).where(Message.kind == "M1c"))
        session.add(Attempt(message_id=message.id))
        session.commit()
    moved(scene, days=0)
    assert announce_due(scene.steps, LETTERS) == 1
    (first, _), (_, mail) = mails(scene)
    assert (first.state, first.uncertain_at is not None) == ("annule", True)
    assert "jeudi 26 mars 2026 à 14h00 -> jeudi 19 mars 2026 à 14h00" in mail.get_content()


@pytest.mark.parametrize("state", ["parque", "refuse"])
@pytest.mark.parametrize("why", ["still true", *UNTRUE])
def test_a_parked_mail_leaves_by_nobodys_wish_once_it_is_true_no_more(scene, why, state):
    moved(scene)
    announce_due(scene.steps, LETTERS)
    with scene.store.session() as session:
        message = session.scalars(select(Message).where(Message.kind == "M1c")).one()
        message.state = state
        mail_events.ask_person(session, message, "envoi-rejete", about=message)
        item = session.scalars(select(WorkItem.id).where(WorkItem.message_id == message.id)).one()
        session.commit()
    UNTRUE.get(why, lambda _: None)(scene)
    announce_due(scene.steps, LETTERS)  # what is told meanwhile makes the former mail no truer
    refused = []

    def replay(step):
        try:
            error_box.replay(step, item)
        except Conflict as error:
            refused.append(error.code)
        return step.session.get_one(Message, message.id).state

    after = scene.steps.run(scene.coordinator, replay)
    assert (after, refused) == (("en-attente", []) if why == "still true" else (state, ["renvoi-perime"]))


def test_a_notification_that_says_another_hour_than_now_is_not_sent_again_as_it_is(scene):
    with scene.store.session() as session:
        session.execute(update(Message).values(state="parque"))
        session.commit()
    option(scene, renotification_auto=False)

    def same(step):
        resending.require_same(step, step.session.scalars(select(Message).where(Message.kind == "M1")).one())

    scene.steps.run(scene.coordinator, same)
    moved(scene)
    with pytest.raises(Conflict) as refused:
        scene.steps.run(scene.coordinator, same)
    assert refused.value.code == "renvoi-perime"


def test_killed_before_any_line_a_change_is_told_once(scene, database_url, blobs, trail):
    """SIGKILL before the n-th line of what tells of changes, for each n; then another worker comes."""
    moved(scene)
    traced = {module.__file__ for module in (notice_changes, notice_sending, mailing)}

    def announce():
        store = Store(database_url, pool_size=2)  # a forked process must not speak on its parent's connections
        announce_due(Steps(store, scene.clock, trail, Outbox(blobs), lambda *_: None), LETTERS)

    scene.store.close()
    number, died = 1, True
    while died:
        died = killed_before_line(number, announce, traced)
        number += 9
    assert number > 90
    scene.store = Store(database_url, pool_size=2)
    [(message, _)] = mails(scene)
    assert (message.state, message.key.rpartition("|")[2]) == ("en-attente", "1")
    with scene.store.session() as session:
        [line] = session.scalars(select(NotificationEntry).where(NotificationEntry.kind.like("M1c%")))
        assert (line.kind, line.message_id) == ("M1c.1", message.id)
    scene.store.close()


def test_workers_at_once_tell_once(scene):
    moved(scene)
    threads = [threading.Thread(target=announce_due, args=(scene.steps, LETTERS)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(mails(scene)) == 1


def test_what_is_killed_before_its_end_is_told_once_by_the_next_run(scene):
    moved(scene)

    def killed(step):
        assert notice_sending.announce_changes(step, scene.dossier, LETTERS) == 1
        raise Unavailable("essai", "Arrêt.")

    for _ in range(2):
        with pytest.raises(Unavailable):
            scene.steps.run(access.SYSTEM, killed)
        assert mails(scene) == []
    assert [announce_due(scene.steps, LETTERS) for _ in range(2)] == [1, 0]
    [(message, _)] = mails(scene)
    with scene.store.session() as session:
        idnps = session.get_one(Practitioner, scene.treating).idnps
    assert message.key == f"M1c|{scene.dossier}|{scene.meeting}|{idnps}|1"


@pytest.mark.parametrize(
    ("model", "key", "values"),
    [
        (Dossier, "dossier", {"opposed_at": LATER}),
        (Rcp, "rcp", {"fictive": True}),
        (Rcp, "rcp", {"notification": {"active": False, "renotification_auto": True}}),
        (Practitioner, "treating", {"informed": False}),
        (RcpSession, "meeting", {"starts_at": LATER}),
    ],
)
def test_nothing_leaves_where_nothing_may(scene, model, key, values):
    change(scene, Rcp, scene.rcp, webconference=NEW_VIDEO)
    change(scene, model, getattr(scene, key), **values)
    assert announce_due(scene.steps, LETTERS) == 0
    assert scene.steps.run(access.SYSTEM, lambda s: notice_sending.announce_changes(s, scene.dossier, LETTERS)) == 0
    assert mails(scene) == []


def test_who_is_no_longer_the_treating_physician_is_not_told(scene):
    change(scene, Rcp, scene.rcp, webconference=NEW_VIDEO)
    with scene.store.session() as session:
        session.execute(update(Correspondent).values(declined_at=LATER))
        session.commit()
    assert announce_due(scene.steps, LETTERS) == 0


def test_a_notification_that_failed_told_nothing(scene):
    with scene.store.session() as session:
        session.execute(update(Message).values(state="refuse"))
        session.commit()
    moved(scene)
    assert announce_due(scene.steps, LETTERS) == 0
    assert told(scene) == []


def test_a_change_that_failed_is_a_persons_and_not_sent_for_ever(scene):
    moved(scene)
    announce_due(scene.steps, LETTERS)
    with scene.store.session() as session:
        session.execute(update(Message).where(Message.kind == "M1c").values(state="refuse"))
        session.commit()
    assert announce_due(scene.steps, LETTERS) == 0
    [one] = told(scene)
    assert one.lost


def test_without_a_mailbox_the_secretariat_is_asked_once_and_the_mail_leaves_when_there_is_one(scene):
    moved(scene)
    with scene.store.session() as session:
        session.execute(delete(Mailbox).where(Mailbox.practitioner_id == scene.treating))
        session.commit()
    assert [announce_due(scene.steps, LETTERS) for _ in range(3)] == [0, 0, 0]
    assert asked(scene) == ["changement-non-annonce"]
    with scene.store.session() as session:
        line = session.scalars(select(NotificationEntry).where(NotificationEntry.kind == "M1c.1")).one()
        assert line.code == "NON_MSS"
        session.add(
            Mailbox(
                practitioner_id=scene.treating,
                address="nouvelle@medecin.mssante.fr",
                source="essai",
                as_of=NOTIFIED.date(),
            )
        )
        session.commit()
    assert [announce_due(scene.steps, LETTERS) for _ in range(2)] == [1, 0]
    with scene.store.session() as session:
        line = session.scalars(select(NotificationEntry).where(NotificationEntry.kind == "M1c.1")).one()
        assert line.code == "ENVOYEE"


def test_what_is_told_is_represented(scene, make_steps, blobs):
    moved(scene)
    steps = make_steps(clock=scene.clock, represent=Representer(blobs))
    assert announce_due(steps, LETTERS) == 1
    with scene.store.session() as session:
        for kind in ("Communication", "CommunicationRequest"):
            table = TABLES[kind]
            bodies = [bytes(row.body) for row in session.execute(select(table.c.body))]
            assert [b'"m1c"' in one for one in bodies] == [True], kind
            assert b"PAT-TROIS" not in bodies[0]
