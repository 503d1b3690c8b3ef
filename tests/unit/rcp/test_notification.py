"""The planner on a real database: who is told, when, why not, and once."""

from __future__ import annotations

import email
import email.policy
import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import delete, select, update

from gateway.fhir.represent import Representer
from gateway.model.audit import AuditLine
from gateway.model.directory import Mailbox, Practitioner
from gateway.model.dossier import Correspondent, Dossier
from gateway.model.meeting import Rcp, RcpSession
from gateway.model.message import Message, NotificationEntry
from gateway.model.network import Network
from gateway.model.person import WorkItem
from gateway.model.representation import TABLES
from gateway.mssante.translate import Composer
from gateway.rcp import access, notification
from gateway.rcp.notice_rules import CONDITIONS, REASONS
from tests.world import build

pytestmark = pytest.mark.usefixtures("nothing_names_anybody")

# The world's meeting: Thursday 19 March 2026, 14:00 in Paris (13:00Z). Two working days before: Tuesday 17 March.
SENDS = datetime(2026, 3, 17, 7, 0, tzinfo=UTC)
LIMIT = datetime(2026, 3, 17, 13, 0, tzinfo=UTC)
STARTS = datetime(2026, 3, 19, 13, 0, tzinfo=UTC)
REGISTERED = datetime(2026, 3, 9, 13, 0, tzinfo=UTC)
LETTERS = Composer(address="rcp@3c.mssante.example", nil="000000", name="RCP Sein")


@pytest.fixture
def scene(store, make_steps):
    with store.session() as session:
        world = build(session)
        dossier = world.dossier()
        session.execute(update(Correspondent).values(since=REGISTERED))
        session.commit()
        made = SimpleNamespace(
            store=store,
            dossier=dossier.id,
            meeting=world.meeting.id,
            rcp=world.rcp.id,
            treating=world.treating.id,
            requester=world.requester.id,
            stranger=world.stranger.id,
            network=world.network.id,
        )
    made.clock = SimpleNamespace(at=SENDS, now=lambda: made.clock.at)
    made.steps = make_steps(clock=made.clock)
    return made


def change(scene, model, key, **values):
    with scene.store.session() as session:
        row = session.get_one(model, key)
        for name, value in values.items():
            setattr(row, name, value)
        session.commit()


def rows(scene, model, *where):
    with scene.store.session() as session:
        return session.scalars(select(model).where(*where).order_by(model.id)).unique().all()


def run(scene, at=None, **more):
    scene.clock.at = at or scene.clock.at
    return notification.plan_due(scene.steps, LETTERS, **more)


def entry(scene):
    [found] = rows(scene, NotificationEntry)
    return found


@pytest.mark.req("S2-020", "S2-022", "S2-024", "S3-004", "S3-005", "S3-011", "S3-012", "S3-013")
def test_two_working_days_before_the_physician_is_told(scene):
    change(scene, Network, scene.network, base_url="https://aquitaine.dcc.example/")
    assert run(scene, SENDS - timedelta(seconds=1)).sent == 0
    assert (entry(scene).code, entry(scene).due_at) == ("PREVUE", SENDS)
    assert run(scene, SENDS).sent == 1
    [message] = rows(scene, Message)
    mail = email.message_from_bytes(message.content, policy=email.policy.default)
    assert mail["subject"] == "Médecin – Notification préalable RCP"
    assert mail["to"] == "Docteur Camille NGUYEN <nguyen@medecin.mssante.fr>"
    assert mail["date"].datetime == SENDS
    body = mail.get_content().replace("\r\n", "\n")
    assert "Le dossier de PAT-TROIS DOMINIQUE, née le 28/03/1979, dont vous êtes déclaré médecin traitant" in body
    assert "  Réunion   : Sein – Salle de visioconférence du CHU X" in body
    assert "  Date      : jeudi 19 mars 2026 à 14h00" in body
    assert "  Demandeur : Docteur MERCIER" in body
    assert "  Motif     : Tumeur du sein" in body
    assert f"https://aquitaine.dcc.example/dossiers/{scene.dossier}\n" in body
    assert f"https://aquitaine.dcc.example/dossiers/{scene.dossier}/pas-mon-patient" in body
    assert "PAT-TROIS" not in str(mail["subject"])
    found = entry(scene)
    assert (found.code, found.late, found.message_id) == ("ENVOYEE", False, message.id)
    assert rows(scene, Dossier)[0].state == "notifie"
    assert message.message_id in mail["message-id"]


@pytest.mark.req("S2-053")
def test_the_delay_is_the_rcp_s_and_the_footer_links_the_memo(scene):
    """Five working days before Thursday 19 March 2026 is Thursday 12: no holiday between, one weekend."""
    change(scene, Rcp, scene.rcp, notification={"active": True, "jours": 5})
    due = datetime(2026, 3, 12, 7, 0, tzinfo=UTC)  # 08:00 in Paris
    assert run(scene, due - timedelta(seconds=1)).sent == 0
    assert entry(scene).due_at == due
    assert run(scene, due).sent == 1
    [message] = rows(scene, Message)
    body = email.message_from_bytes(message.content, policy=email.policy.default).get_content()
    footer = body.replace("\r\n", "\n").partition("Bien confraternellement,\n")[2]
    assert "Mode d'emploi : https://rcp.example/aide/medecin-traitant\n" in footer


@pytest.mark.req("S3-014", "S2-025")
def test_the_webconference_link_is_in_the_mail_when_there_is_one(scene):
    change(scene, Rcp, scene.rcp, webconference={"lien": "https://visio.example/s", "complement": "Code : 4711"})
    run(scene)
    body = (
        email.message_from_bytes(rows(scene, Message)[0].content, policy=email.policy.default)
        .get_content()
        .replace("\r\n", "\n")
    )
    assert "à distance :\nhttps://visio.example/s\nCode : 4711\n" in body


@pytest.mark.req("S2-026")
def test_one_mail_only_whatever_runs_again_or_changes(scene):
    run(scene)
    assert run(scene).sent == 0
    change(scene, Dossier, scene.dossier, label="Autre motif", state="prefiche")
    change(scene, Rcp, scene.rcp, title="Autre titre")
    assert run(scene, SENDS + timedelta(hours=3)).sent == 0
    assert run(scene, STARTS + timedelta(hours=1)).sent == 0
    assert len(rows(scene, Message)) == 1
    assert entry(scene).code == "ENVOYEE"


@pytest.mark.req("S2-026")
def test_two_planners_at_once_send_one_mail(scene, make_steps):
    with scene.store.session() as session:
        world_dossiers = [session.get_one(Dossier, scene.dossier)]
        for number in range(4):
            base = world_dossiers[0]
            copy = Dossier(
                **{c.key: getattr(base, c.key) for c in Dossier.__table__.columns if c.key != "id"}
                | {"number": f"urn:x:{number}", "reference": f"RCP-X{number}", "tumour_key": f"t{number}"}
            )
            session.add(copy)
            session.flush()
            session.add(
                Correspondent(
                    dossier_id=copy.id, practitioner_id=scene.treating, role="medecin-traitant", since=REGISTERED
                )
            )
        session.commit()
    start, results = threading.Barrier(3), []

    def planner():
        start.wait()
        results.append(notification.plan_due(make_steps(clock=scene.clock), LETTERS, page=2))

    threads = [threading.Thread(target=planner) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(result.sent for result in results) == 5
    assert [result.failed for result in results] == [0, 0, 0]
    assert len(rows(scene, Message)) == 5
    assert {row.code for row in rows(scene, NotificationEntry)} == {"ENVOYEE"}


def _no_treating(scene):
    with scene.store.session() as session:
        session.execute(delete(Correspondent).where(Correspondent.role == "medecin-traitant"))
        session.commit()


def _no_box(scene):
    with scene.store.session() as session:
        session.execute(
            update(Correspondent)
            .where(Correspondent.role == "medecin-traitant")
            .values(use_personal=False, use_secretariat=False)
        )
        session.commit()


def _no_address(scene):
    with scene.store.session() as session:
        session.execute(delete(Mailbox).where(Mailbox.practitioner_id == scene.treating))
        session.commit()


REASON_CASES = {
    "NON_RCP": lambda scene: change(scene, Rcp, scene.rcp, notification={}),
    "NON_MT": _no_treating,
    "NON_RPPS": lambda scene: change(scene, Practitioner, scene.treating, rpps=None),
    "NON_MSS": _no_address,
    "NON_DELAI": lambda scene: change(scene, Dossier, scene.dossier, prefiche_at=LIMIT + timedelta(seconds=1)),
    "NON_ADRESSE": _no_box,
    "NON_OPPOSITION": lambda scene: change(scene, Dossier, scene.dossier, opposed_at=REGISTERED),
    "NON_DEMANDEUR": lambda scene: change(scene, Dossier, scene.dossier, requester_id=scene.treating),
    "NON_SEANCE": lambda scene: change(scene, RcpSession, scene.meeting, state="annulee"),
    "NON_REFUS": lambda scene: change(scene, Practitioner, scene.treating, informed=False),
}


@pytest.mark.req("S3-006", "S3-007", "S3-008", "S3-009")
@pytest.mark.parametrize("code", sorted(REASON_CASES))
def test_each_condition_alone_false_gives_its_reason_and_no_mail(scene, code):
    REASON_CASES[code](scene)
    assert run(scene, LIMIT + timedelta(minutes=1)).sent == 0
    assert entry(scene).code == code
    assert rows(scene, Message) == []
    if code == "NON_DELAI":
        assert entry(scene).due_at == LIMIT


def test_the_ten_reasons_are_those_of_the_register():
    only_of_documents = {"NON_DEMAT"}  # a report on paper: its sender's register line, never the planner's
    assert set(REASON_CASES) | only_of_documents == {code for code in REASONS if code.startswith("NON_")}
    assert "NON_DEMAT" not in {code for code, _ in CONDITIONS}


def test_a_postponed_or_fictive_meeting_tells_nobody(scene):
    change(scene, RcpSession, scene.meeting, state="reportee")
    run(scene)
    assert entry(scene).code == "NON_SEANCE"
    change(scene, RcpSession, scene.meeting, state="prevue")
    change(scene, Rcp, scene.rcp, fictive=True)
    run(scene)
    assert entry(scene).code == "NON_SEANCE"
    assert rows(scene, Message) == []


def test_a_secretariat_box_serves_when_ticked(scene):
    _no_box(scene)
    assert run(scene).sent == 0
    with scene.store.session() as session:
        session.execute(update(Correspondent).values(use_personal=True))
        session.commit()
    assert run(scene, SENDS + timedelta(hours=1)).sent == 1


@pytest.mark.req("S3-008")
def test_an_address_found_before_the_limit_is_used_at_once_and_after_it_no_more(scene):
    _no_address(scene)
    run(scene)
    assert entry(scene).code == "NON_MSS"

    def found():
        with scene.store.session() as session:
            session.add(
                Mailbox(
                    practitioner_id=scene.treating, address="n@x.mssante.fr", source="essai", as_of=REGISTERED.date()
                )
            )
            session.commit()

    found()
    at = SENDS + timedelta(hours=2)
    assert run(scene, at).sent == 1
    assert (entry(scene).due_at, entry(scene).late) == (at, False)


def test_a_condition_that_comes_true_after_the_limit_is_too_late_for_good(scene):
    _no_address(scene)
    run(scene)
    with scene.store.session() as session:
        session.add(
            Mailbox(practitioner_id=scene.treating, address="n@x.mssante.fr", source="essai", as_of=REGISTERED.date())
        )
        session.commit()
    for minutes in (1, 2, 120):
        assert run(scene, LIMIT + timedelta(minutes=minutes)).sent == 0
        assert entry(scene).code == "NON_DELAI"


def test_a_physician_named_late_takes_the_line_that_said_there_was_none(scene):
    _no_treating(scene)
    run(scene)
    assert entry(scene).code == "NON_MT"
    named = SENDS + timedelta(hours=3)
    with scene.store.session() as session:
        session.add(
            Correspondent(
                dossier_id=scene.dossier, practitioner_id=scene.stranger, role="medecin-traitant", since=named
            )
        )
        session.commit()
    assert run(scene, named + timedelta(minutes=1)).sent == 1
    assert (entry(scene).code, entry(scene).practitioner_id) == ("ENVOYEE", scene.stranger)


def test_a_missed_run_sends_late_and_never_after_the_start(scene):
    assert run(scene, STARTS - timedelta(minutes=1)).sent == 1
    assert entry(scene).late is True


def test_what_was_missed_altogether_is_told_to_the_secretariat(scene):
    assert run(scene, STARTS).sent == 0
    assert entry(scene).code == "ECHEC"
    [item] = rows(scene, WorkItem)
    assert (item.kind, item.reason, item.dossier_id) == ("notification", "non-envoyee-avant-la-seance", scene.dossier)
    assert run(scene, STARTS + timedelta(hours=1)).settled == 0
    assert rows(scene, Message) == []


@pytest.mark.parametrize(("minutes", "sent"), [(0, True), (1, False)])
def test_registered_at_the_limit_is_in_time(scene, minutes, sent):
    at = LIMIT + timedelta(minutes=minutes)
    change(scene, Dossier, scene.dossier, prefiche_at=at)
    assert run(scene, at).sent == int(sent)


def test_an_incomplete_form_waits_without_a_line_then_is_too_late(scene):
    change(scene, Dossier, scene.dossier, prefiche_at=None, state="inscrit")
    run(scene, LIMIT)
    assert rows(scene, NotificationEntry) == []
    run(scene, LIMIT + timedelta(seconds=1))
    assert entry(scene).code == "NON_DELAI"


def test_catch_up_is_an_option_with_its_own_first_sentence(scene):
    change(scene, Rcp, scene.rcp, notification={"active": True, "rattrapage": True})
    late = LIMIT + timedelta(hours=20)
    change(scene, Dossier, scene.dossier, prefiche_at=late)
    assert run(scene, late).sent == 1
    [message] = rows(scene, Message)
    mail = email.message_from_bytes(message.content, policy=email.policy.default)
    assert mail["subject"] == "Médecin – Notification préalable RCP"
    assert "vient d'être inscrit, tardivement, à la réunion" in mail.get_content().replace("\r\n", "\n")


def test_a_dossier_moved_to_another_session_follows_that_session(scene):
    run(scene, SENDS - timedelta(days=1))
    assert entry(scene).code == "PREVUE"
    later = STARTS + timedelta(days=7)
    with scene.store.session() as session:
        old = session.get_one(RcpSession, scene.meeting)
        new = RcpSession(
            rcp_id=scene.rcp,
            identifier="SEANCE-SUIVANTE",
            on=old.on + timedelta(days=7),
            start=old.start,
            end=old.end,
            zone=old.zone,
            starts_at=later,
            ends_at=later + timedelta(hours=2),
        )
        session.add(new)
        session.flush()
        moved = new.id
        session.commit()
    change(scene, Dossier, scene.dossier, session_id=moved)
    assert run(scene, SENDS).sent == 0
    codes = {row.session_id: row.code for row in rows(scene, NotificationEntry)}
    assert codes == {scene.meeting: "NON_SEANCE", moved: "PREVUE"}
    assert run(scene, SENDS + timedelta(days=7)).sent == 1


def test_a_session_brought_forward_past_its_limit_is_too_late(scene):
    run(scene, SENDS - timedelta(days=1))
    with scene.store.session() as session:
        meeting = session.get_one(RcpSession, scene.meeting)
        meeting.on, meeting.starts_at = meeting.on - timedelta(days=2), meeting.starts_at - timedelta(days=2)
        meeting.ends_at -= timedelta(days=2)
        session.commit()
    # Now Tuesday 17 March: its limit, Friday 13, is past; today is Monday 16.
    assert run(scene, SENDS - timedelta(days=1) + timedelta(minutes=1)).sent == 0
    assert entry(scene).code == "NON_DELAI"


@pytest.mark.parametrize("state", ["annule", "refuse"])
def test_a_withdrawn_dossier_is_not_told_of(scene, state):
    run(scene, SENDS - timedelta(hours=1))
    change(scene, Dossier, scene.dossier, state=state)
    assert run(scene, SENDS).sent == 0
    assert entry(scene).code == "NON_SEANCE"
    assert rows(scene, Message) == []


def test_not_my_patient_before_sending(scene):
    with scene.store.session() as session:
        session.execute(update(Correspondent).values(declined_at=REGISTERED))
        session.commit()
    assert run(scene).sent == 0
    assert entry(scene).code == "NON_MT"


def test_the_dry_run_says_all_and_does_nothing(scene):
    with scene.store.session() as session:
        [line] = notification.preview(session, SENDS)
        session.rollback()
    assert line.code == "ENVOYEE"
    assert line.address == "nguyen@medecin.mssante.fr"
    said = line.text()
    assert "Docteur Camille NGUYEN" in said
    assert "19/03/2026 à 14h00" in said
    assert "PAT-TROIS" not in said
    assert rows(scene, NotificationEntry) == []
    assert rows(scene, Message) == []


def test_the_dry_run_gives_the_reason(scene):
    _no_address(scene)
    with scene.store.session() as session:
        [line] = notification.preview(session, SENDS)
    assert line.text().endswith("Adresse MSSanté inconnue")


def test_one_dossier_that_cannot_be_settled_does_not_hold_the_others(scene):
    with scene.store.session() as session:
        base = session.get_one(Dossier, scene.dossier)
        rcp = session.get_one(Rcp, scene.rcp)
        copied = {c.key: getattr(rcp, c.key) for c in Rcp.__table__.columns if c.key != "id"}
        bad = Rcp(**copied | {"national_number": "RCP-MAUVAISE", "notification": {"active": True, "jours": "deux"}})
        session.add(bad)
        session.flush()
        meeting = session.get_one(RcpSession, scene.meeting)
        copied = {c.key: getattr(meeting, c.key) for c in RcpSession.__table__.columns if c.key != "id"}
        earlier = meeting.starts_at - timedelta(hours=1)
        other = RcpSession(**copied | {"rcp_id": bad.id, "identifier": "S-MAUVAISE", "starts_at": earlier})
        session.add(other)
        session.flush()
        copied = {c.key: getattr(base, c.key) for c in Dossier.__table__.columns if c.key != "id"}
        session.add(
            Dossier(**copied | {"number": "urn:x:9", "reference": "RCP-X9", "session_id": other.id, "tumour_key": "z"})
        )
        session.commit()
    result = run(scene)
    assert (result.seen, result.sent, result.failed) == (2, 1, 1)


def test_pages_see_every_dossier(scene):
    with scene.store.session() as session:
        base = session.get_one(Dossier, scene.dossier)
        copied = {c.key: getattr(base, c.key) for c in Dossier.__table__.columns if c.key != "id"}
        for number in range(6):
            session.add(
                Dossier(
                    **copied | {"number": f"urn:x:{number}", "reference": f"RCP-P{number}", "tumour_key": f"{number}"}
                )
            )
        session.commit()
    result = run(scene, page=2)
    assert (result.seen, result.settled, result.sent) == (7, 7, 1)
    assert {row.code for row in rows(scene, NotificationEntry)} == {"ENVOYEE", "NON_MT"}


def test_the_trail_tells_of_the_sending_without_a_name(scene):
    run(scene)
    lines = rows(scene, AuditLine, AuditLine.payload.contains(b'"Message"'))
    # It is made and waits; « envoi » is said by the delivery alone, when it has left.
    assert [line.event for line in lines] == ["creation"]
    assert lines[0].dossier == scene.dossier
    assert b"PAT-TROIS" not in lines[0].payload


def test_a_step_undone_sends_nothing(scene):
    class Broken:
        answers_read = False

        def seal(self, letter):
            LETTERS.seal(letter)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        notification.plan_due(scene.steps, Broken())
    assert rows(scene, Message) == []
    assert rows(scene, NotificationEntry) == []
    assert run(scene).sent == 1


def test_fhir_shows_what_was_sent_without_its_text(scene, make_steps, blobs):
    scene.steps = make_steps(clock=scene.clock, represent=Representer(blobs))
    run(scene, SENDS - timedelta(hours=1))
    run(scene, SENDS)
    table = TABLES["Communication"]
    with scene.store.session() as session:
        shown = [
            bytes(row.body) for row in session.execute(select(table.c.body).where(table.c.dossier_id == scene.dossier))
        ]
    assert any(rows(scene, Message)[0].message_id.encode() in body for body in shown)
    assert all("Rien ne vous est imposé".encode() not in body for body in shown)


def test_settling_the_same_dossier_by_hand_is_idempotent(scene):
    for expected in (1, 0, 0):
        sent = scene.steps.run(access.SYSTEM, lambda step: notification.settle(step, scene.dossier, LETTERS))
        assert sent == expected
