"""Storage commitment: pynetdicom asks, on the association of its stores or on another, and is told the truth."""

import concurrent.futures
import queue
import threading
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel as Push
from sqlalchemy import select, update

from gateway.demo.ct_phantom import DOMINIQUE, write_series
from gateway.dicom import commitment
from gateway.dicom.outgoing import DicomChannel
from gateway.dicom.scu import Ours, Patience
from gateway.exchange.delivery import Deliveries
from gateway.exchange.outbox import Outcome
from gateway.model.imaging import Instance
from gateway.model.message import Message
from gateway.model.partner import PartnerCredential
from gateway.model.person import WorkItem
from gateway.model.store import utcnow
from gateway.rcp import imaging_sending
from tests.e2e.dicom.conftest import AE_TITLE, storescu
from tests.e2e.dicom.peers import FOREIGN, other_hospital
from tests.loopback import wait_until
from tests.world import audit_lines

INSTANCE = "1.2.840.10008.1.20.1.1"


@pytest.fixture
def kept(port, ct, world):
    world.session.commit()
    assert storescu(port.port, *ct).returncode == 0
    return port


@pytest.fixture
def deliveries(store, blobs, trail):
    channel = DicomChannel(store, blobs, Ours("RCPGATEWAY"), patience=Patience(answer_s=60, negotiate_s=60))

    def settled(session, message):
        imaging_sending.after_delivery(session, message)

    return Deliveries(store, blobs, trail, [channel], settled=settled)


def due(session) -> Message:
    """The only outgoing message, made due now."""
    session.rollback()
    session.execute(update(Message).values(not_before=utcnow() - timedelta(seconds=1)))
    session.commit()
    return session.scalars(select(Message)).one()


def asked(references, transaction: str | None = None) -> Dataset:
    action = Dataset()
    action.TransactionUID = transaction or generate_uid()
    items = []
    for sop_class, uid in references:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        items.append(item)
    action.ReferencedSOPSequence = items
    return action


def without_transaction() -> Dataset:
    action = asked([(CTImageStorage, "1.2.3")])
    del action.TransactionUID
    return action


def references(paths):
    return [(CTImageStorage, str(dcmread(path).SOPInstanceUID)) for path in paths]


class Heard:
    """What a PACS hears of its requests."""

    def __init__(self) -> None:
        self.reports: queue.Queue = queue.Queue()
        self.status = 0x0000

    def __call__(self, event):
        information = event.event_information
        self.reports.put((event.request.EventTypeID, information, event.assoc.requestor.ae_title))
        return self.status, None


@contextmanager
def associated(port: int, heard: Heard, calling: str = AE_TITLE):
    ae = AE(calling)
    ae.add_requested_context(Push)
    association = ae.associate("127.0.0.1", port, ae_title="RCPGATEWAY", evt_handlers=[(evt.EVT_N_EVENT_REPORT, heard)])
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


@contextmanager
def listening(session, heard: Heard):
    """The PACS's own port for reports, registered."""
    ae = AE(AE_TITLE)
    ae.add_supported_context(Push, scu_role=False, scp_role=True)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, heard)])
    where = {"host": "127.0.0.1", "port": server.server_address[1]}
    session.execute(update(PartnerCredential).where(PartnerCredential.value == AE_TITLE).values(details=where))
    session.commit()
    try:
        yield
    finally:
        server.shutdown()


def test_what_is_kept_is_confirmed_on_the_same_association(kept, ct, session):
    heard, action = Heard(), asked(references(ct))
    with associated(kept.port, heard) as association:
        status, _ = association.send_n_action(action, 1, Push, INSTANCE)
        assert status.Status == 0x0000
        kind, report, _ = heard.reports.get(timeout=60)
        assert association.send_n_action(asked(references(ct)), 1, Push, INSTANCE)[0].Status == 0x0000
        heard.reports.get(timeout=60)
    assert (kind, report.TransactionUID, report.RetrieveAETitle) == (1, action.TransactionUID, "RCPGATEWAY")
    found = [(item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) for item in report.ReferencedSOPSequence]
    assert found == references(ct)
    assert "FailedSOPSequence" not in report

    def told():
        session.rollback()
        return [message.state for message in session.scalars(select(Message))] == ["envoye", "envoye"]

    assert wait_until(told)
    lines = [line for line in audit_lines(session) if line.get("detail", {}).get("service") == "storage-commitment"]
    assert [line["detail"]["objects"] for line in lines] == [5, 5]


def test_what_is_not_kept_is_named_with_its_reason(kept, ct, session, blobs, world, tmp_path):
    other_hospital(session, world)
    theirs = write_series(FOREIGN, tmp_path / "theirs")
    assert storescu(kept.port, *theirs, calling="CHUY_PACS").returncode == 0
    good, lost, *_ = references(ct)
    session.rollback()
    blobs.delete(session.scalars(select(Instance.sha256).where(Instance.sop_instance_uid == lost[1])).one())
    foreign = references(theirs[:1])[0]
    wrong_class = (MRImageStorage, references(ct)[2][1])
    heard = Heard()
    with associated(kept.port, heard) as association:
        action = asked([good, lost, foreign, wrong_class, (CTImageStorage, "1.2.3.4")])
        assert association.send_n_action(action, 1, Push, INSTANCE)[0].Status == 0x0000
        kind, report, _ = heard.reports.get(timeout=60)
    assert kind == 2
    assert [item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence] == [good[1]]
    assert [(item.ReferencedSOPInstanceUID, item.FailureReason) for item in report.FailedSOPSequence] == [
        (lost[1], 0x0112),
        (foreign[1], 0x0112),  # another hospital's object does not exist
        (wrong_class[1], 0x0119),
        ("1.2.3.4", 0x0112),
    ]


def test_a_caller_that_leaves_is_told_on_a_new_association(kept, ct, session, deliveries):
    heard, unused = Heard(), Heard()
    with listening(session, heard):
        with associated(kept.port, unused) as association:
            assert association.send_n_action(asked(references(ct)), 1, Push, INSTANCE)[0].Status == 0x0000
        message = due(session)
        assert message.state == "en-attente"
        assert deliveries.attempt(message.id) is Outcome.DELIVERED
        kind, report, caller = heard.reports.get(timeout=60)
    assert (kind, len(report.ReferencedSOPSequence), caller) == (1, 5, "RCPGATEWAY")
    assert unused.reports.empty()
    assert deliveries.attempt(message.id) is None  # once
    session.rollback()
    assert session.scalars(select(Message.state)).one() == "envoye"


def test_a_report_waits_for_a_pacs_that_is_down(kept, ct, session, deliveries):
    with associated(kept.port, Heard()) as association:
        association.send_n_action(asked(references(ct)), 1, Push, INSTANCE)
    message = due(session)
    assert deliveries.attempt(message.id) is Outcome.UNAVAILABLE
    heard = Heard()
    with listening(session, heard):
        assert deliveries.attempt(due(session).id) is Outcome.DELIVERED
    assert heard.reports.qsize() == 1


def test_a_caller_that_never_answers_its_report_is_told_again_elsewhere(make_port, world, ct, session, deliveries):
    """It aborts in place of an answer: the report is kept."""
    port = make_port(profile="prod")
    world.session.commit()
    assert storescu(port.port, *ct).returncode == 0
    gone = threading.Event()

    def abort(event):
        event.assoc.abort()
        gone.set()
        return 0x0000, None

    with associated(port.port, abort) as association:
        association.send_n_action(asked(references(ct)), 1, Push, INSTANCE)
        assert gone.wait(60)
    heard = Heard()
    with listening(session, heard):
        assert deliveries.attempt(due(session).id) is Outcome.DELIVERED
    assert heard.reports.qsize() == 1


def test_a_report_refused_for_good_is_put_before_a_person(kept, ct, session, deliveries):
    with associated(kept.port, Heard()) as association:
        association.send_n_action(asked(references(ct)), 1, Push, INSTANCE)
    heard = Heard()
    heard.status = 0x0110
    with listening(session, heard):
        assert deliveries.attempt(due(session).id) is Outcome.REFUSED
    session.rollback()
    item = session.scalars(select(WorkItem).where(WorkItem.kind == "message")).one()
    assert item.reason == "images-refusees"


def leaving(port: int, action: Dataset, calling: str = AE_TITLE) -> int:
    """Ask and leave at once; return the status of the N-ACTION."""
    with associated(port, Heard(), calling) as association:
        return association.send_n_action(action, 1, Push, INSTANCE)[0].Status


def waiting(session) -> list[Message]:
    session.rollback()
    return list(session.scalars(select(Message).where(Message.state == "en-attente")))


def test_the_same_transaction_is_one_report_with_the_latest_truth(kept, ct, session, deliveries, tmp_path):
    more = write_series(replace(DOMINIQUE, slices=6), tmp_path / "more")
    action = asked(references(more))
    assert [leaving(kept.port, action) for _ in range(3)] == [0, 0, 0]
    [first] = waiting(session)
    assert storescu(kept.port, more[5]).returncode == 0
    assert leaving(kept.port, action) == 0
    [second] = waiting(session)
    assert (second.id != first.id, first.state) == (True, "annule")
    heard = Heard()
    with listening(session, heard):
        assert deliveries.attempt(first.id) is None
        session.execute(update(Message).where(Message.id == second.id).values(not_before=utcnow()))
        session.commit()
        assert deliveries.attempt(second.id) is Outcome.DELIVERED
        assert leaving(kept.port, action) == 0  # told before, and asks again: is told again
    kind, report, _ = heard.reports.get(timeout=60)
    assert (kind, len(report.ReferencedSOPSequence)) == (1, 6)
    assert len(waiting(session)) == 1


def test_a_partner_fills_only_its_own_places_of_the_outbox(kept, ct, session, world, deliveries, monkeypatch):
    """[PS3.7 C.5.24] 0213, resource limitation; there is room again once a report was taken."""
    other_hospital(session, world)
    monkeypatch.setattr(commitment, "MAX_WAITING", 3)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda _: leaving(kept.port, asked(references(ct))), range(8)))
    assert sorted(told) == [0] * 3 + [0x0213] * 5
    assert len(waiting(session)) == 3
    with associated(kept.port, Heard()) as association:
        said, _ = association.send_n_action(asked(references(ct)), 1, Push, INSTANCE)
        assert (said.Status, said.ErrorComment.split(":")[0]) == (0x0213, "dicom-commitments-waiting")
        assert association.send_n_action(asked(references(ct)), 1, Push, INSTANCE)[0].Status == 0x0213
    assert leaving(kept.port, asked([(CTImageStorage, "1.2.3")]), "CHUY_PACS") == 0
    mine = next(message for message in waiting(session) if message.recipient == AE_TITLE)
    session.execute(update(Message).where(Message.id == mine.id).values(not_before=utcnow()))
    session.commit()
    heard = Heard()
    with listening(session, heard):
        assert deliveries.attempt(mine.id) is Outcome.DELIVERED
    assert leaving(kept.port, asked(references(ct))) == 0


def test_large_requests_fill_their_places_sooner(kept, session, monkeypatch):
    """A known transaction that grows is no way around it."""
    many = [(CTImageStorage, f"1.2.{number}") for number in range(1000)]
    monkeypatch.setattr(commitment, "MAX_WAITING_BYTES", 100_000)
    small, large = asked(many[:1]), asked(many)
    assert [leaving(kept.port, small), leaving(kept.port, large)] == [0, 0]
    assert leaving(kept.port, asked(many)) == 0x0213
    assert leaving(kept.port, asked(many, transaction=small.TransactionUID)) == 0x0213
    session.rollback()
    assert sum(message.size_bytes for message in waiting(session)) < 100_000
    assert sorted(message.sender for message in waiting(session)) == sorted(
        [small.TransactionUID, large.TransactionUID]
    )


def test_who_listens_nowhere_is_told_on_its_own_association_only(kept, ct, session):
    session.execute(update(PartnerCredential).where(PartnerCredential.value == AE_TITLE).values(details={}))
    session.commit()
    heard = Heard()
    with associated(kept.port, heard) as association:
        assert association.send_n_action(asked(references(ct)), 1, Push, INSTANCE)[0].Status == 0
        assert heard.reports.get(timeout=60)[0] == 1
    assert leaving(kept.port, asked(references(ct))) == 0
    session.rollback()
    assert session.scalars(select(Message)).all() == []


@pytest.mark.parametrize(
    ("action", "number", "instance", "status"),
    [
        (without_transaction(), 1, INSTANCE, 0x0115),
        (asked([]), 1, INSTANCE, 0x0115),
        (asked([(CTImageStorage, "no uid")]), 1, INSTANCE, 0x0115),
        (asked([(CTImageStorage, "1.2.3")]), 2, INSTANCE, 0x0123),
        (asked([(CTImageStorage, "1.2.3")]), 1, "1.2.840.10008.1.20.1.2", 0x0123),
        (asked([(CTImageStorage, f"1.2.{number}") for number in range(10_001)]), 1, INSTANCE, 0x0115),
    ],
)
def test_a_request_that_cannot_be_read_is_refused_and_nothing_is_promised(
    port, session, action, number, instance, status
):
    with associated(port.port, Heard()) as association:
        assert association.send_n_action(action, number, Push, instance)[0].Status == status
        assert association.is_established
    session.rollback()
    assert session.scalars(select(Message)).all() == []


def test_orthanc_is_told_on_its_own_port_what_is_kept(kept, orthanc, ct, session, deliveries):
    """Orthanc asks on an association that it ends at once, and listens for the report."""
    where = {"host": "127.0.0.1", "port": orthanc.dicom_port}
    session.execute(update(PartnerCredential).where(PartnerCredential.value == AE_TITLE).values(details=where))
    session.commit()
    orthanc.put("/modalities/gateway", {"AET": "RCPGATEWAY", "Host": "127.0.0.1", "Port": kept.port})
    objects = [{"SOPClassUID": str(sop_class), "SOPInstanceUID": uid} for sop_class, uid in references(ct)]
    lost = {"SOPClassUID": str(CTImageStorage), "SOPInstanceUID": "1.2.3.4.5"}
    for wanted, expected in ((objects, "Success"), ([*objects, lost], "Failure")):
        asked_for = orthanc.post("/modalities/gateway/storage-commitment", {"DicomInstances": wanted})["ID"]

        def waiting():
            session.rollback()
            return session.scalars(select(Message).where(Message.state == "en-attente")).one_or_none()

        assert wait_until(waiting)
        again = waiting()
        session.execute(update(Message).values(not_before=utcnow() - timedelta(seconds=1)))
        session.commit()
        assert deliveries.attempt(again.id) is Outcome.DELIVERED

        def status(name=asked_for):
            return orthanc.get(f"/storage-commitment/{name}")["Status"]

        assert wait_until(lambda status=status: status() != "Pending")
        assert status() == expected
    report = orthanc.get(f"/storage-commitment/{asked_for}")
    assert (len(report["Success"]), [one["SOPInstanceUID"] for one in report["Failures"]]) == (5, ["1.2.3.4.5"])
