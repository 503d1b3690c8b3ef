"""The association that we open, against receivers made of bytes: what they may do to us is wait, and no more."""

import io
import socket
import struct
import threading
import uuid
from dataclasses import replace

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from gateway.dicom import places
from gateway.dicom.command import StoreRequest, part10_head
from gateway.dicom.scu import Ours, Outbound, Patience
from gateway.dicom.sending import Originator, Piece, message, seek_data_set
from gateway.errors import Fault, Forbidden, Unavailable
from gateway.rcp.imaging_destinations import Destination
from tests.loopback import free_port
from tests.unit.dicom.raw_peer import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    ASSOCIATE_RQ,
    P_DATA,
    RELEASE_RP,
    RELEASE_RQ,
    command,
    element,
    fields,
    item,
    p_data,
    pdu,
    pdv,
)

PIECE = Piece(str(CTImageStorage), "1.2.3.4", str(ExplicitVRLittleEndian), "0" * 64)
DATA = bytes(range(256)) * 2000  # 512 000 bytes
#: Of whoever is answered: a receiver on a busy machine takes its time.
PATIENT = Patience(connect_s=60, negotiate_s=60, answer_s=60, write_s=60, release_s=60)
QUICK_S = 0.4


def kept_file(data: bytes = DATA) -> io.BytesIO:
    request = StoreRequest(1, 1, PIECE.sop_class_uid, PIECE.sop_instance_uid, PIECE.transfer_syntax_uid)
    return io.BytesIO(part10_head(request) + data)


class Line:
    """The receiver's end."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.sock.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def read(self) -> tuple[int, bytes]:
        kind, _, length = struct.unpack(">BBL", self.exactly(6))
        return kind, self.exactly(length)

    def accept(self, maximum: int = 16_384, result: int = 0, *, more: bytes = b"", user: bytes | None = None) -> bytes:
        kind, body = self.read()
        assert kind == ASSOCIATE_RQ
        contexts = item(0x21, struct.pack(">BBBB", 1, 0, result, 0) + item(0x40, ExplicitVRLittleEndian.encode()))
        user = item(0x51, struct.pack(">L", maximum)) + item(0x52, b"1.2.3.4") if user is None else user
        answer = body[:68] + item(0x10, b"1.2.840.10008.3.1.1.1") + contexts + more + item(0x50, user)
        self.sock.sendall(pdu(ASSOCIATE_AC, answer))
        return body

    def message(self) -> tuple[bytes, bytes, list[int]]:
        """Command set, data set and lengths of the PDUs of one message."""
        parts, lengths, done = {1: b"", 0: b""}, [], False
        while not done:
            kind, body = self.read()
            assert kind == P_DATA
            lengths.append(len(body))
            position = 0
            while position < len(body):
                length, _, header = struct.unpack_from(">LBB", body, position)
                parts[header & 1] += body[position + 6 : position + 4 + length]
                position += 4 + length
                done = header == 2
        return parts[1], parts[0], lengths

    def answer(self, message_id: int = 1, status: int = 0, comment: bytes = b"") -> None:
        self.sock.sendall(p_data(pdv(1, 3, response(message_id, status, comment))))


def response(message_id: int = 1, status: int = 0, comment: bytes = b"") -> bytes:
    return command(
        element(0x0100, b"\x01\x80"),
        element(0x0120, struct.pack("<H", message_id)),
        element(0x0800, b"\x01\x01"),
        element(0x0900, struct.pack("<H", status)),
        *([element(0x0902, comment)] if comment else []),
    )


@pytest.fixture
def receiver():
    """Run a script as the receiver of one association; ``wait`` gives what it returned."""
    server = socket.create_server(("127.0.0.1", 0))
    ends, results = [], []

    def start(script):
        def run() -> None:
            sock, _ = server.accept()
            sock.settimeout(60)
            ends.append(sock)
            try:
                results.append(script(Line(sock)))
            except (OSError, EOFError):
                results.append(None)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()

        def wait():
            thread.join(60)
            return results[0]

        return Destination("THERE", "127.0.0.1", server.getsockname()[1], uuid.uuid4()), wait

    yield start
    server.close()
    for sock in ends:
        sock.close()


def opened(to: Destination, patience: Patience = PATIENT) -> Outbound:
    contexts = [(PIECE.sop_class_uid, [PIECE.transfer_syntax_uid])]
    return Outbound(to, Ours("RCPGATEWAY"), contexts, patience=patience)


def test_an_object_arrives_byte_for_byte_in_pdus_that_the_receiver_takes(receiver):
    def script(line):
        asked = line.accept(maximum=4096)
        said, data, lengths = line.message()
        line.answer(status=0xB007, comment=b"reasons ")
        assert line.read()[0] == RELEASE_RQ
        line.sock.sendall(pdu(RELEASE_RP, b"\0" * 4))
        return asked, said, data, max(lengths)

    to, wait = receiver(script)
    with opened(to) as association:
        answer = association.store(PIECE, kept_file(), 1, Originator("CHUX_PACS", 77))
    asked, said, data, longest = wait()
    assert (answer.status, answer.comment) == (0xB007, "reasons")
    assert (asked[4:20], asked[20:36]) == (b"THERE".ljust(16), b"RCPGATEWAY".ljust(16))
    assert data == DATA
    assert longest <= 4096
    sent = fields(b"\0" * 6 + said)
    assert (sent[0x0002].rstrip(b"\0"), sent[0x1000].rstrip(b"\0")) == (CTImageStorage.encode(), b"1.2.3.4")
    assert (sent[0x1030].strip(), sent[0x1031]) == (b"CHUX_PACS", struct.pack("<H", 77))


def silence(line: Line) -> None:
    """Say nothing."""


@pytest.mark.parametrize(
    "misdeed",
    [
        lambda line: line.sock.close(),
        lambda line: line.sock.sendall(pdu(ABORT, b"\0" * 4)),
        lambda line: line.sock.sendall(pdu(RELEASE_RQ, b"\0" * 4)),
        lambda line: line.sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100),
        lambda line: line.sock.sendall(struct.pack(">BBL", P_DATA, 0, 1 << 30)),
        lambda line: line.sock.sendall(p_data(pdv(1, 3, b"\xff" * 40))),
        lambda line: line.sock.sendall(p_data(pdv(1, 3, response(message_id=2)))),
        lambda line: line.sock.sendall(p_data(pdv(1, 3, command(element(0x0120, b"\x01\x00"))))),
        lambda line: line.sock.sendall(p_data(pdv(1, 1, response())) * 100),
        silence,
    ],
)
def test_a_receiver_that_does_not_answer_properly_is_gone_and_the_association_with_it(receiver, misdeed):
    def script(line):
        line.accept()
        line.message()
        misdeed(line)
        while line.sock.recv(65_536):
            pass

    to, wait = receiver(script)
    association = opened(to, replace(PATIENT, answer_s=QUICK_S))
    with pytest.raises(Unavailable) as refused:
        association.store(PIECE, kept_file(b"\x08\x00\x18\x00UI\x00\x00"), 1)
    assert refused.value.code == "dicom-peer-broken"
    assert not association.usable
    with pytest.raises(Unavailable):
        association.store(PIECE, kept_file(), 1)
    wait()


def test_a_receiver_that_stops_reading_is_left(receiver):
    hold = threading.Event()

    def script(line):
        line.accept()
        hold.wait(60)

    to, _ = receiver(script)
    association = opened(to, replace(PATIENT, write_s=QUICK_S))
    with pytest.raises(Unavailable, match="rompu"):
        association.store(PIECE, kept_file(DATA * 40), 1)  # more than what any socket holds
    hold.set()


@pytest.mark.parametrize(
    ("misdeed", "kind", "code"),
    [
        (lambda line: line.sock.sendall(pdu(ASSOCIATE_RJ, b"\0\x01\x01\x07")), Forbidden, "dicom-peer-rejects"),
        (lambda line: line.sock.sendall(pdu(ASSOCIATE_RJ, b"\0\x02\x03\x02")), Unavailable, "dicom-peer-busy"),
        (lambda line: line.sock.sendall(pdu(ASSOCIATE_RJ, b"\0\x02\x09\x09")), Unavailable, "dicom-peer-busy"),
        (lambda line: line.sock.sendall(pdu(ASSOCIATE_AC, b"\0" * 10)), Unavailable, "dicom-peer-unreachable"),
        (lambda line: line.sock.sendall(pdu(ASSOCIATE_AC, b"\xff" * 200)), Unavailable, "dicom-peer-unreachable"),
        (lambda line: line.sock.sendall(struct.pack(">BBL", 2, 0, 1 << 31)), Unavailable, "dicom-peer-unreachable"),
        (lambda line: line.sock.sendall(p_data(pdv(1, 3, response()))), Unavailable, "dicom-peer-unreachable"),
        (lambda line: line.sock.sendall(b"220 mail.example ESMTP\r\n"), Unavailable, "dicom-peer-unreachable"),
        (lambda line: line.sock.close(), Unavailable, "dicom-peer-unreachable"),
        (silence, Unavailable, "dicom-peer-unreachable"),
    ],
)
def test_a_receiver_that_does_not_accept_says_why_or_is_unreachable(receiver, misdeed, kind, code):
    def script(line):
        line.read()
        misdeed(line)
        while line.sock.recv(65_536):
            pass

    to, _ = receiver(script)
    with pytest.raises(kind) as refused:
        opened(to, replace(PATIENT, negotiate_s=QUICK_S) if misdeed is silence else PATIENT)
    assert refused.value.code == code


@pytest.mark.parametrize(
    "said",
    [
        {"user": b""},
        {"user": item(0x51, struct.pack(">L", 16_384)) + item(0x55, b"A NAME OF MORE THAN SIXTEEN")},
        {"user": item(0x51, struct.pack(">L", 16_384)) + item(0x7F, b"of a later edition")},
        {"more": item(0x2F, b"of a later edition")},
        {"more": item(0x21, b"\x03\0\x03\0")},
        {"more": item(0x21, b"\x03\0\x04\0" + item(0x40, b""))},
    ],
    ids=["nothing", "a long name", "an unknown item", "another", "a refusal without a syntax", "an empty one"],
)
def test_what_a_sender_need_not_know_of_a_receiver_is_skipped(receiver, said):
    def script(line):
        line.accept(**said)
        line.message()
        line.answer()
        line.read()
        line.sock.sendall(pdu(RELEASE_RP, b"\0" * 4))

    to, _ = receiver(script)
    with opened(to) as association:
        assert association.store(PIECE, kept_file(), 1).status == 0


def test_a_context_that_is_not_accepted_is_none(receiver):
    to, _ = receiver(lambda line: line.accept(result=4))
    association = opened(to)
    assert association.context(PIECE.sop_class_uid) is None
    association.abort()


def test_an_answer_in_small_pieces_is_an_answer(receiver):
    def script(line):
        line.accept()
        line.message()
        body = response()
        pieces = [body[start : start + 7] for start in range(0, len(body), 7)]
        for piece in pieces:
            for byte in p_data(pdv(1, 1 | (2 if piece is pieces[-1] else 0), piece)):
                line.sock.sendall(bytes([byte]))
        line.read()

    to, _ = receiver(script)
    with opened(to, replace(PATIENT, release_s=0.2)) as association:
        assert association.store(PIECE, kept_file(), 1).status == 0


def test_nobody_listens():
    with pytest.raises(Unavailable) as refused:
        opened(Destination("THERE", "127.0.0.1", free_port(), uuid.uuid4()))
    assert refused.value.code == "dicom-peer-unreachable"


@pytest.mark.parametrize(("host", "port"), [("h" * 70 + ".example", 104), ("a..b", 104), ("127.0.0.1", 99_999)])
def test_what_is_no_address_is_unreachable(host, port):
    with pytest.raises(Unavailable) as refused:
        opened(Destination("THERE", host, port, uuid.uuid4()))
    assert refused.value.code == "dicom-peer-unreachable"


def test_one_application_is_held_by_so_many_associations_and_one_more_waits(receiver, monkeypatch):
    monkeypatch.setattr(places, "MAX_TO_ONE", 2)

    def script(line):
        line.accept()
        return line.sock.recv(1)

    to, _ = receiver(script)
    hurried = replace(PATIENT, negotiate_s=QUICK_S)
    first = opened(to)
    receiver(script)
    second = opened(to)
    with pytest.raises(Unavailable) as refused:
        opened(to, hurried)
    assert refused.value.code == "dicom-peer-places"
    first.abort()
    first.abort()  # gives its place back once
    receiver(script)
    third = opened(to, replace(PATIENT, release_s=QUICK_S))
    with pytest.raises(Unavailable):
        opened(to, hurried)
    # An attempt that failed holds none.
    elsewhere = Destination("THERE", "127.0.0.1", 1, uuid.uuid4())
    for _ in range(3):
        with pytest.raises(Unavailable) as refused:
            opened(elsewhere)
        assert refused.value.code == "dicom-peer-unreachable"
    second.abort()
    third.release()
    assert places._held == {}


def test_what_is_no_kept_file_is_a_fault():
    for broken in (b"", b"x" * 200, kept_file().getvalue()[:100]):
        with pytest.raises(Fault):
            seek_data_set(io.BytesIO(broken))


def fragments(blocks) -> list[tuple[int, int, bytes]]:
    """Length of the PDU, header and fragment of each PDU of some blocks, each with one fragment [PS3.8 9.3.5]."""
    found = []
    for block in blocks:
        position = 0
        while position < len(block):
            kind, length, inner, number, header = struct.unpack_from(">BxLLBB", block, position)
            assert (kind, length, number) == (P_DATA, inner + 4, 5)
            found.append((length, header, bytes(block[position + 12 : position + 6 + length])))
            position += 6 + length
        assert position == len(block)
    return found


@pytest.mark.parametrize("size", [0, 1, 250, 251, 500, 10_000, 262_000, 1_000_001])
@pytest.mark.parametrize("limit", [0, 1, 256, 257, 16_384, 131_072, 200_000])
def test_a_message_holds_everything_and_only_the_last_fragment_is_the_last(size, limit):
    data = bytes(number % 251 for number in range(1000)) * (size // 1000) + bytes(size % 1000)
    said = command(element(0x0100, b"\x01\x00")) * 20
    file = io.BytesIO(b"head" + data)
    file.seek(4)
    blocks = list(message(5, said, file, limit))
    found = fragments(blocks)
    commands = [(header, piece) for _, header, piece in found if header & 1]
    others = [(header, piece) for _, header, piece in found if not header & 1]
    assert b"".join(piece for _, piece in commands) == said
    assert b"".join(piece for _, piece in others) == data
    assert [header for header, _ in commands] == [1] * (len(commands) - 1) + [3]
    assert [header for header, _ in others] == [0] * (len(others) - 1) + [2]
    assert max(length for length, _, _ in found) <= max(min(limit or 131_072, 131_072), 256)
    assert max(map(len, blocks)) < 300_000  # memory, whatever the object


def test_a_file_that_ends_before_its_end_is_a_fault():
    class Shrinking(io.BytesIO):
        def seek(self, place, whence=io.SEEK_SET):
            return 1_000_000 if whence == io.SEEK_END else super().seek(place, whence)

    with pytest.raises(Fault):
        list(message(1, b"", Shrinking(bytes(600_000)), 16_384))
