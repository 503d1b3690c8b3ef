"""The table of services: what is negotiated, who answers, and what becomes of an error."""

import io
import struct
import threading
import time

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000, CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, build_role
from pynetdicom.dimse_primitives import C_FIND, C_GET, N_ACTION
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as StudyFind

from gateway.dicom.sending import message
from gateway.dicom.services import Service
from gateway.errors import Forbidden, Unavailable
from tests.loopback import wait_until
from tests.unit.dicom.raw_peer import (
    ABORT,
    COMMAND,
    CT,
    EXPLICIT,
    IMPLICIT,
    LAST,
    P_DATA,
    Peer,
    command,
    context,
    element,
    fields,
    item,
    p_data,
    pdv,
    status,
    store_rq,
)


def find_service(serve) -> Service[str]:
    return Service(frozenset({StudyFind}), C_FIND, serve)


def ask(port: int, identifier: Dataset | None = None, *, times: int = 1) -> list[list[tuple[Dataset, Dataset | None]]]:
    ae = AE("ASKER")
    ae.add_requested_context(StudyFind)
    association = ae.associate("127.0.0.1", port, ae_title="RCPGATEWAY")
    assert association.is_established
    asked = identifier or Dataset()
    asked.QueryRetrieveLevel = "STUDY"
    answers = [list(association.send_c_find(asked, StudyFind)) for _ in range(times)]
    association.release()
    return answers


def test_a_message_reaches_the_handler_of_its_sop_class_with_the_caller_and_its_identifier(make_scp):
    def serve(request, peer):
        answer = Dataset()
        answer.PatientID = f"{peer}/{request.identifier().QueryRetrieveLevel}"
        request.respond(0xFF00, answer)
        request.respond(0x0000)

    port = make_scp(services=[find_service(serve)]).port
    [[(pending, data), (done, nothing)]] = ask(port)
    assert (pending.Status, data.PatientID) == (0xFF00, "ASKER@127.0.0.1/STUDY")
    assert (done.Status, nothing) == (0x0000, None)


def test_without_a_line_in_the_table_the_context_is_refused(make_scp):
    ae = AE()
    ae.add_requested_context(StudyFind)
    ae.add_requested_context("1.2.840.10008.1.1")
    association = ae.associate("127.0.0.1", make_scp().port, ae_title="RCPGATEWAY")
    assert [str(context.abstract_syntax) for context in association.rejected_contexts] == [StudyFind]
    assert association.send_c_echo().Status == 0
    association.release()


def test_an_error_is_the_last_response_and_the_association_goes_on(make_scp):
    errors = iter([Unavailable("database", "Absente."), Forbidden("interdit", "Non."), RuntimeError("DUPONT")])

    def serve(request, peer):
        raise next(errors)

    answers = ask(make_scp(services=[find_service(serve)]).port, times=3)
    assert [[(status.Status, status.ErrorComment) for status, _ in one] for one in answers] == [
        [(0xA700, "database: Absente.")],
        [(0x0124, "interdit: Non.")],
        [(0xC000, "internal-error: Defaut interne de la passerelle.")],
    ]


def test_a_caller_may_take_objects_itself_and_store_them_too(make_scp, folder):
    ae = AE("ASKER")
    ae.add_requested_context(CTImageStorage, [ExplicitVRLittleEndian, JPEG2000])
    role = build_role(CTImageStorage, scp_role=True)
    association = ae.associate("127.0.0.1", make_scp().port, ae_title="RCPGATEWAY", ext_neg=[role])
    [context] = association.accepted_contexts
    assert (context.as_scp, context.as_scu) == (True, False)
    association.release()
    # Without a word about roles, the caller sends and we keep.
    association = ae.associate("127.0.0.1", make_scp().port, ae_title="RCPGATEWAY")
    [context] = association.accepted_contexts
    assert (context.as_scp, context.as_scu) == (False, True)
    association.release()


# What is said while a request is answered

GET, PUSH, FIND = b"1.2.840.10008.5.1.4.1.2.2.3", b"1.2.840.10008.1.20.1", str(StudyFind).encode()
OBJECT = bytes(range(256)) * 4000  # a megabyte


def request_of(kind: int, sop_class: bytes, message_id: int = 1, of_class: int = 0x0002) -> bytes:
    return command(
        element(of_class, sop_class),
        element(0x0100, struct.pack("<H", kind)),
        element(0x0110, struct.pack("<H", message_id)),
        element(0x0800, b"\0\0"),
    )


def asking(number: int, kind: int, sop_class: bytes, message_id: int = 1, identifier: bytes = b"") -> bytes:
    said = request_of(kind, sop_class, message_id)
    return p_data(pdv(number, COMMAND | LAST, said), pdv(number, LAST, identifier))


def stored(message_id: int, code: int = 0) -> bytes:
    return command(
        element(0x0002, CT),
        element(0x0100, b"\x01\x80"),
        element(0x0120, struct.pack("<H", message_id)),
        element(0x0800, b"\x01\x01"),
        element(0x0900, struct.pack("<H", code)),
    )


def getting(port: int) -> Peer:
    """A peer that takes CT objects and has asked for some."""
    role = item(0x54, struct.pack(">H", len(CT)) + CT + b"\0\1")
    peer = Peer(port, context(1, GET, IMPLICIT), context(3, CT, EXPLICIT), negotiated=role)
    peer.send(asking(1, 0x0010, GET))
    return peer


def take(peer: Peer) -> bytes:
    """The data set of one C-STORE-RQ."""
    data, last = b"", False
    while not last:
        kind, body = peer.read()
        assert kind == P_DATA
        header = body[5]
        data += b"" if header & COMMAND else body[6:]
        last = header == LAST
    return data


def sender(files):
    """A C-GET that sends some files, whatever is asked for."""

    def serve(request, peer):
        codes = []
        for number, file in enumerate(files, 1):
            request.send(message(3, store_rq(b"1.2.3", number), file(), request.max_pdu_bytes))
            codes.append(request.stored(number).status)
            request.progress(len(files) - number, number, 0, 0)
        request.respond(0x0000, comment=" ".join(f"{code:04x}" for code in codes))

    return Service(frozenset({GET.decode()}), C_GET, serve)


def test_a_sub_operation_is_sent_whole_and_its_answer_may_come_in_pieces(make_scp):
    peer = getting(make_scp(services=[sender([lambda: io.BytesIO(OBJECT)] * 2)]).port)
    assert take(peer) == OBJECT
    peer.send(p_data(pdv(3, COMMAND | LAST, stored(1))))
    kind, body = peer.read()
    assert (kind, status(body)) == (P_DATA, 0xFF00)
    found = fields(body)
    assert (found[0x0100], found[0x0120], found[0x0800]) == (b"\x10\x80", b"\1\0", b"\x01\x01")
    counts = [struct.unpack("<H", found[number])[0] for number in (0x1020, 0x1021, 0x1022, 0x1023)]
    assert counts == [1, 1, 0, 0]
    assert take(peer) == OBJECT
    said = stored(2, 0xB000)
    peer.send(p_data(pdv(3, COMMAND, said[:20])) + p_data(pdv(3, COMMAND | LAST, said[20:])))
    peer.read()
    kind, body = peer.read()
    assert (status(body), fields(body)[0x0902].strip()) == (0, b"0000 b000")
    peer.release()


def test_an_answer_to_something_else_ends_the_association(make_scp):
    peer = getting(make_scp(services=[sender([lambda: io.BytesIO(OBJECT)])]).port)
    take(peer)
    peer.send(p_data(pdv(3, COMMAND | LAST, stored(7))))
    assert peer.read_end() == ABORT


class Breaking(io.BytesIO):
    """A remote content that breaks off after some bytes."""

    def __init__(self, good: int) -> None:
        super().__init__(OBJECT)
        self.good = good

    def readinto(self, view) -> int:
        if self.tell() >= self.good:
            raise Unavailable("blob-remote", "Absent.")
        return super().readinto(view)


def test_an_object_that_cannot_be_begun_is_an_error_and_one_that_breaks_off_ends_the_association(make_scp):
    """Half a data set followed by something else would be read as one object."""
    refused = getting(make_scp(services=[sender([lambda: Breaking(0)])]).port)
    kind, body = refused.read()
    assert (kind, status(body)) == (P_DATA, 0xA701)
    refused.release()
    broken = getting(make_scp(services=[sender([lambda: Breaking(300_000)])]).port)
    ends = []
    while not ends or ends[-1] == P_DATA:
        ends.append(broken.read_end())
    assert ends[-1] == ABORT
    assert len(ends) > 2


@pytest.mark.parametrize(("count", "size"), [(12, 10), (5, 3_000_000)])
def test_requests_sent_ahead_of_their_answers_are_bounded_in_number_and_bytes(make_scp, caplog, count, size):
    held = threading.Event()

    def serve(request, peer):
        held.wait(60)
        request.respond(0x0000)

    scp = make_scp(services=[Service(frozenset({FIND.decode()}), C_FIND, serve)])
    peer = Peer(scp.port, context(1, FIND, IMPLICIT))
    pieces = [bytes(100_000)] * (size // 100_000) + [bytes(size % 100_000)]
    for number in range(count):
        peer.send(p_data(pdv(1, COMMAND | LAST, request_of(0x0020, FIND, number))))
        for piece in pieces[:-1]:
            peer.send(p_data(pdv(1, 0, piece)))
        peer.send(p_data(pdv(1, LAST, pieces[-1])))
    assert peer.read_end() == ABORT
    held.set()
    assert "max_waiting_" in caplog.text
    assert wait_until(lambda: not scp._live())


def test_a_cancel_in_pieces_while_objects_leave_is_a_cancel(make_scp):
    """Its pieces come in one go, and our own next block after them: the library then asks twice for one block."""

    def serve(request, peer):
        request._line._act("Evt9")  # asked for with nothing there
        until = time.monotonic() + 60
        while not request.cancelled and time.monotonic() < until:
            request.progress(1, 0, 0, 0)
        request.respond(0xFE00 if request.cancelled else 0x0000)

    peer = Peer(make_scp(services=[Service(frozenset({GET.decode()}), C_GET, serve)]).port, context(1, GET, IMPLICIT))
    peer.send(asking(1, 0x0010, GET))
    cancel = command(element(0x0100, b"\xff\x0f"), element(0x0120, struct.pack("<H", 1)), element(0x0800, b"\x01\x01"))
    peer.send(b"".join(p_data(pdv(1, COMMAND, cancel[at : at + 9])) for at in range(0, 27, 9)))
    peer.send(p_data(pdv(1, COMMAND | LAST, cancel[27:])))
    code = 0xFF00
    while code == 0xFF00:
        kind, body = peer.read()
        assert kind == P_DATA
        code = status(body)
    assert code == 0xFE00
    peer.release()


def test_events_told_to_a_provider_end_the_association_and_leave_no_threads(make_scp):
    scp = make_scp(services=[Service(frozenset({PUSH.decode()}), N_ACTION, lambda *_: None)])
    before = threading.active_count()
    peer = Peer(scp.port, context(1, PUSH, IMPLICIT))
    event = command(
        element(0x0002, PUSH),
        element(0x0100, b"\x00\x01"),
        element(0x0110, b"\1\0"),
        element(0x0800, b"\x01\x01"),
        element(0x1000, b"1.2.840.10008.1.20.1.1"),
        element(0x1002, b"\1\0"),
    )
    peer.send(p_data(pdv(1, COMMAND | LAST, event)) * 500)
    assert peer.read_end() == ABORT
    peer.close()
    assert wait_until(lambda: threading.active_count() <= before)
