"""A study sent to another application: dcmtk and Orthanc receive it, once; what goes wrong is put before a person."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEGBaseline8Bit
from pynetdicom import AE, evt
from sqlalchemy import select, update

from gateway.demo.ct_phantom import DOMINIQUE
from gateway.dicom import outgoing
from gateway.dicom.outgoing import DicomChannel, packed
from gateway.dicom.scu import Ours, Patience
from gateway.errors import Forbidden, GatewayError, NotFound
from gateway.exchange.delivery import Deliveries
from gateway.exchange.outbox import Outcome
from gateway.exchange.replaying import send_again
from gateway.model.imaging import Study
from gateway.model.meeting import RcpMember
from gateway.model.message import Attempt, Message
from gateway.model.partner import PartnerCredential
from gateway.model.person import WorkItem
from gateway.model.store import utcnow
from gateway.portal import error_box as portal_error_box
from gateway.rcp import error_box, imaging_sending
from gateway.rcp.access import SYSTEM
from tests.e2e.dicom.conftest import storescu
from tests.e2e.dicom.peers import data_sets, other_hospital, receiver, register
from tests.loopback import free_port
from tests.world import audit_lines


@pytest.fixture
def dossier(world):
    made = world.dossier(world.record(value="000003"))
    world.session.commit()
    return made


@pytest.fixture
def kept(port, ct, dossier):
    """The study, attached to its dossier."""
    assert storescu(port.port, *ct).returncode == 0
    return port


@pytest.fixture
def elsewhere(session, world):
    """Another hospital, which sees none of this."""
    return other_hospital(session, world)


@pytest.fixture
def deliveries(store, blobs, trail):
    channel = DicomChannel(store, blobs, Ours("RCPGATEWAY"), patience=Patience(answer_s=60, negotiate_s=60))
    return Deliveries(store, blobs, trail, [channel], settled=imaging_sending.after_delivery)


@pytest.fixture
def send(represented):
    def run(ae_title: str, caller=SYSTEM, study: str = DOMINIQUE.study_uid):
        return represented.run(caller, lambda step: imaging_sending.send(step, study, ae_title).id)

    return run


def message(session) -> Message:
    session.rollback()
    return session.scalars(select(Message)).one()


def again(session) -> None:
    session.rollback()
    session.execute(update(Message).values(not_before=utcnow() - timedelta(seconds=1)))
    session.commit()


def test_a_study_is_sent_bit_by_bit_and_once(kept, elsewhere, session, send, deliveries, ct, tmp_path):
    with receiver(tmp_path / "chuy", "CHUY_ARCHIVE") as theirs:
        register(session, elsewhere, "CHUY_ARCHIVE", theirs.port)
        sent = send("CHUY_ARCHIVE")
        assert send("CHUY_ARCHIVE") == sent
        assert deliveries.attempt(sent) is Outcome.DELIVERED
        assert data_sets(theirs.files) == data_sets(ct)
        assert deliveries.attempt(send("CHUY_ARCHIVE")) is None
    assert (message(session).state, message(session).attempts) == ("envoye", 1)
    line, outcome = [line for line in audit_lines(session) if line["event"] == "envoi"]
    assert (line["object_id"], line["recipient"], line["detail"]["objects"]) == (DOMINIQUE.study_uid, "CHUY_ARCHIVE", 5)
    assert (outcome["recipient"], outcome["outcome"], outcome["object_id"]) == ("CHUY_ARCHIVE", "0", str(sent))


def test_orthanc_receives_a_study(kept, elsewhere, session, send, deliveries, orthanc):
    register(session, elsewhere, "ORTHANC", orthanc.dicom_port)
    assert deliveries.attempt(send("ORTHANC")) is Outcome.DELIVERED
    found = orthanc.post("/tools/find", {"Level": "Instance", "Query": {"StudyInstanceUID": DOMINIQUE.study_uid}})
    assert len(found) == 5


def test_a_receiver_that_is_down_is_tried_again_and_then_sent_to(kept, elsewhere, session, send, deliveries, tmp_path):
    register(session, elsewhere, "CHUY_ARCHIVE", free_port())
    sent = send("CHUY_ARCHIVE")
    assert deliveries.attempt(sent) is Outcome.UNAVAILABLE
    assert (message(session).state, message(session).reason) == ("en-attente", "dicom-peer-unreachable")
    with receiver(tmp_path / "chuy", "CHUY_ARCHIVE") as theirs:
        where = {"host": "127.0.0.1", "port": theirs.port}
        statement = update(PartnerCredential).where(PartnerCredential.value == "CHUY_ARCHIVE")
        session.execute(statement.values(details=where))
        session.commit()
        again(session)
        assert deliveries.attempt(sent) is Outcome.DELIVERED
        assert len(theirs.files) == 5


@pytest.fixture
def scripted(session, elsewhere):
    """A receiver whose answers a test decides."""
    servers = []

    def start(handler):
        ae = AE("SCRIPTED")
        ae.add_supported_context(CTImageStorage, ExplicitVRLittleEndian)
        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, handler)])
        servers.append(server)
        register(session, elsewhere, "SCRIPTED", server.server_address[1])

    yield start
    for server in servers:
        server.shutdown()


def test_what_was_acknowledged_is_not_sent_again_by_the_next_attempt(kept, session, send, deliveries, scripted):
    answers, received = iter([0x0000, 0xA700, 0x0000, 0xB000, 0x0000, 0x0000]), []

    def store(event):
        received.append(str(event.request.AffectedSOPInstanceUID))
        return next(answers)

    scripted(store)
    sent = send("SCRIPTED")
    assert deliveries.attempt(sent) is Outcome.UNAVAILABLE
    assert (message(session).reason, message(session).details["done"]) == ("dicom-a700", "0,2-4")
    again(session)
    assert deliveries.attempt(sent) is Outcome.DELIVERED
    assert received[5:] == [received[1]]
    assert message(session).details["done"] == "0-4"


def test_a_receiver_that_breaks_off_loses_nothing_that_it_acknowledged(kept, session, send, deliveries, scripted):
    received, break_off = [], threading.Event()

    def store(event):
        received.append(str(event.request.AffectedSOPInstanceUID))
        if len(received) == 3 and not break_off.is_set():
            break_off.set()
            event.assoc.abort()
        return 0x0000

    scripted(store)
    sent = send("SCRIPTED")
    assert deliveries.attempt(sent) is Outcome.UNAVAILABLE
    assert message(session).details["done"] == "0-1"
    again(session)
    assert deliveries.attempt(sent) is Outcome.DELIVERED
    assert received[3:] == received[2:3] + received[4:]


def test_an_attempt_whose_worker_was_killed_is_made_again(kept, session, send, deliveries, scripted):
    """What it had sent comes twice: the same objects, which a receiver takes as one."""
    received = []
    scripted(lambda event: received.append(str(event.request.AffectedSOPInstanceUID)) or 0x0000)
    sent = send("SCRIPTED")
    session.rollback()
    session.add(Attempt(message_id=sent))  # begun, and nobody at work
    session.commit()
    assert deliveries.attempt(sent) is Outcome.DELIVERED
    assert len(received) == 5
    assert message(session).uncertain_at is not None


def test_a_long_study_is_sent_in_turns_with_other_messages(kept, session, send, deliveries, scripted, monkeypatch):
    monkeypatch.setattr(outgoing, "TURN_S", 0.0)
    answers = [0x0000, 0xA900, 0x0000, 0x0000, 0x0000]
    scripted(lambda _: answers.pop(0))
    sent = send("SCRIPTED")
    assert [deliveries.attempt(sent) for _ in range(4)] == [Outcome.UNAVAILABLE] * 4
    assert (message(session).state, message(session).attempts) == ("en-attente", 0)
    assert (message(session).details["done"], message(session).details["aside"]) == ("0,2-3", "1")
    assert deliveries.attempt(sent) is Outcome.REFUSED
    assert (message(session).state, message(session).details["refused"]) == ("refuse", 1)
    monkeypatch.undo()
    send_again(session, sent)
    session.commit()
    answers.append(0x0000)
    assert deliveries.attempt(sent) is Outcome.DELIVERED
    assert answers == []


def test_two_who_send_at_once_send_once(kept, elsewhere, session, send):
    register(session, elsewhere, "CHUY_ARCHIVE", free_port())
    with ThreadPoolExecutor(4) as people:
        sent = set(people.map(send, ["CHUY_ARCHIVE"] * 8))
    assert sent == {message(session).id}
    assert len([line for line in audit_lines(session) if line["event"] == "envoi"]) == 1


def test_a_study_that_grew_is_sent_again(kept, elsewhere, session, send, ct, tmp_path):
    register(session, elsewhere, "CHUY_ARCHIVE", free_port())
    first = send("CHUY_ARCHIVE")
    late = dcmread(ct[0])
    late.SOPInstanceUID = late.file_meta.MediaStorageSOPInstanceUID = f"{DOMINIQUE.study_uid}.1.99"
    late.save_as(tmp_path / "late.dcm", enforce_file_format=True)
    assert storescu(kept.port, tmp_path / "late.dcm").returncode == 0
    assert send("CHUY_ARCHIVE") != first


def test_what_a_receiver_refuses_for_good_is_put_before_a_person(kept, session, world, send, deliveries, scripted):
    scripted(lambda _: 0xA900)
    sent = send("SCRIPTED")
    assert deliveries.attempt(sent) is Outcome.REFUSED
    assert (message(session).state, message(session).details["refused"]) == ("refuse", 5)
    item = session.scalars(select(WorkItem).where(WorkItem.message_id == sent)).one()
    assert (item.kind, item.reason, item.network_id) == ("message", "images-refusees", world.network.id)
    assert str(item.study_id) == message(session).details["study"]


def test_a_person_reads_what_was_refused_and_sends_it_again(
    kept, session, world, send, deliveries, scripted, represented
):
    answers = [0xA900] * 5 + [0x0000] * 5
    scripted(lambda _: answers.pop(0))
    sent = send("SCRIPTED")
    assert deliveries.attempt(sent) is Outcome.REFUSED
    session.rollback()
    item = session.scalars(select(WorkItem.id).where(WorkItem.message_id == sent)).one()
    who = world.caller(world.coordinator)
    page = represented.run(who, lambda step: portal_error_box.item_page(step, who, item)[0])
    assert (page.line.kind, page.replay_label, page.forgettable) == ("Images envoyées", "Envoyer à nouveau", "")
    assert ("Application DICOM", "SCRIPTED") in page.facts
    assert ("Ce qu’il en est", "5 objets sur 5 refusés : dicom-a900") in page.facts
    represented.run(who, lambda step: error_box.replay(step, item))
    assert deliveries.attempt(sent) is Outcome.DELIVERED


def test_a_syntax_that_is_not_taken_is_refused_by_name_after_the_others_left(
    kept, session, send, deliveries, scripted, ct, tmp_path
):
    """Compressed pixels that are no pixels cannot be converted either."""
    ds = dcmread(ct[0])
    ds.PixelData = encapsulate([b"no pixels at all"])
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{DOMINIQUE.study_uid}.1.56"
    ds.save_as(tmp_path / "broken.dcm", enforce_file_format=True)
    assert storescu(kept.port, tmp_path / "broken.dcm", option="-xy").returncode == 0
    received = []
    scripted(lambda event: received.append(event) or 0x0000)
    sent = send("SCRIPTED")
    assert deliveries.attempt(sent) is Outcome.REFUSED
    assert len(received) == 5
    session.rollback()
    [attempt] = session.scalars(select(Attempt).where(Attempt.message_id == sent)).all()
    assert (attempt.code, f"refused: {JPEGBaseline8Bit}" in attempt.reason) == ("dicom-objects-refused", True)


def test_a_destination_that_was_revoked_meanwhile_is_not_sent_to(kept, elsewhere, session, send, deliveries, tmp_path):
    with receiver(tmp_path / "chuy", "CHUY_ARCHIVE") as theirs:
        register(session, elsewhere, "CHUY_ARCHIVE", theirs.port)
        sent = send("CHUY_ARCHIVE")
        session.rollback()
        session.execute(
            update(PartnerCredential).where(PartnerCredential.value == "CHUY_ARCHIVE").values(revoked_at=utcnow())
        )
        session.commit()
        assert deliveries.attempt(sent) is Outcome.REFUSED
        assert theirs.files == []
    assert message(session).reason == "dicom-destination-unknown"


def test_a_study_that_was_put_aside_while_it_waited_stays(kept, elsewhere, session, send, deliveries, tmp_path):
    with receiver(tmp_path / "chuy", "CHUY_ARCHIVE") as theirs:
        register(session, elsewhere, "CHUY_ARCHIVE", theirs.port)
        sent = send("CHUY_ARCHIVE")
        session.rollback()
        session.execute(update(Study).values(state="quarantaine", reason="traits-contradictoires"))
        session.commit()
        assert deliveries.attempt(sent) is Outcome.REFUSED
        assert theirs.files == []
    assert message(session).reason == "etude-retiree"
    item = session.scalars(select(WorkItem).where(WorkItem.message_id == sent)).one()
    assert item.reason == "images-refusees"


# ---- who may


def test_who_prepares_the_meeting_sends_and_others_do_not(kept, elsewhere, session, world, send):
    register(session, elsewhere, "CHUY_ARCHIVE", free_port())
    assert send("CHUY_ARCHIVE", world.caller(world.coordinator))
    with pytest.raises(Forbidden) as refused:  # he sees the images and prepares nothing
        send("CHUY_ARCHIVE", world.caller(world.treating))
    assert refused.value.code == "envoi-d-images"
    session.add(RcpMember(rcp_id=world.rcp.id, practitioner_id=world.requester.id, role="membre"))
    session.commit()
    with pytest.raises(Forbidden):
        send("CHUY_ARCHIVE", world.caller(world.requester))
    with pytest.raises(NotFound):
        send("CHUY_ARCHIVE", world.caller(world.stranger))
    refusals = [line for line in audit_lines(session) if line["event"] == "refus"]
    assert [line["reason"] for line in refusals] == ["envoi-d-images", "envoi-d-images", "inconnu"]


def test_nobody_who_is_not_registered_is_sent_to(kept, session, send):
    with pytest.raises(GatewayError) as refused:
        send("NOBODY")
    assert refused.value.code == "destination-dicom"
    session.rollback()
    assert session.scalars(select(Message)).all() == []


def test_a_study_without_a_dossier_is_not_sent(port, session, world, send, ct, elsewhere):
    register(session, elsewhere, "CHUY_ARCHIVE", free_port())
    assert storescu(port.port, *ct).returncode == 0  # no dossier yet: it waits
    with pytest.raises(NotFound):
        send("CHUY_ARCHIVE")


def test_positions_are_written_as_ranges():
    assert packed({0, 1, 2, 5, 7, 8}) == "0-2,5,7-8"
    assert packed(set()) == ""
