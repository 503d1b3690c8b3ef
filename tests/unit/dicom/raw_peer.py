"""A DICOM peer made of bytes: what it sends is described field by field after PS3.7 and PS3.8, not by our code."""

import socket
import struct

CT = b"1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = b"1.2.840.10008.1.1"
EXPLICIT = b"1.2.840.10008.1.2.1"
IMPLICIT = b"1.2.840.10008.1.2"
APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)


def item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body


def context(number: int, abstract: bytes, *syntaxes: bytes) -> bytes:
    body = struct.pack(">BBBB", number, 0, 0, 0) + item(0x30, abstract) + b"".join(item(0x40, s) for s in syntaxes)
    return item(0x20, body)


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBL", kind, 0, len(body)) + body


def associate_rq(
    *contexts: bytes, calling: bytes = b"RAW", called: bytes = b"RCPGATEWAY", negotiated: bytes = b""
) -> bytes:
    user = item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3.4") + negotiated
    body = struct.pack(">HH", 1, 0) + called.ljust(16) + calling.ljust(16) + b"\0" * 32
    return pdu(ASSOCIATE_RQ, body + item(0x10, APPLICATION_CONTEXT) + b"".join(contexts) + item(0x50, user))


def element(number: int, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHL", 0, number, len(value)) + value


def command(*elements: bytes) -> bytes:
    body = b"".join(elements)
    return element(0, struct.pack("<L", len(body))) + body


def store_rq(instance: bytes, message_id: int = 7, sop_class: bytes = CT, data_set: int = 1) -> bytes:
    return command(
        element(0x0002, sop_class),
        element(0x0100, struct.pack("<H", 0x0001)),
        element(0x0110, struct.pack("<H", message_id)),
        element(0x0700, struct.pack("<H", 0)),
        element(0x0800, struct.pack("<H", data_set)),
        element(0x1000, instance),
    )


ECHO_RQ = command(
    element(0x0002, VERIFICATION),
    element(0x0100, struct.pack("<H", 0x0030)),
    element(0x0110, struct.pack("<H", 5)),
    element(0x0800, struct.pack("<H", 0x0101)),
)

COMMAND, LAST = 1, 2


def pdv(number: int, header: int, fragment: bytes) -> bytes:
    return struct.pack(">LBB", len(fragment) + 2, number, header) + fragment


def p_data(*pdvs: bytes) -> bytes:
    return pdu(P_DATA, b"".join(pdvs))


def whole_store(instance: bytes, data: bytes, number: int = 1, message_id: int = 7) -> bytes:
    pieces = [data[start : start + 100_000] for start in range(0, len(data), 100_000)] or [b""]
    sent = p_data(pdv(number, COMMAND | LAST, store_rq(instance, message_id)))
    return sent + b"".join(p_data(pdv(number, LAST if piece is pieces[-1] else 0, piece)) for piece in pieces)


def fields(response: bytes) -> dict[int, bytes]:
    """Elements of the command set in one P-DATA-TF body."""
    found, position = {}, 6
    while position < len(response):
        _, number, length = struct.unpack_from("<HHL", response, position)
        found[number] = response[position + 8 : position + 8 + length]
        position += 8 + length
    return found


def status(response: bytes) -> int:
    return struct.unpack("<H", fields(response)[0x0900])[0]


class Peer:
    def __init__(
        self,
        port: int,
        *contexts: bytes,
        calling: bytes = b"RAW",
        negotiated: bytes = b"",
        wrap=None,
        expect: int | None = ASSOCIATE_AC,
    ):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=60)
        if wrap:
            self.sock = wrap(self.sock)
        contexts = contexts or (context(1, CT, EXPLICIT), context(3, VERIFICATION, IMPLICIT))
        self.send(associate_rq(*contexts, calling=calling, negotiated=negotiated))
        self.kind, self.answer = self.read()
        assert expect in (None, self.kind)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            chunk = self.sock.recv(count - len(data))
            if not chunk:
                raise EOFError
            data += chunk
        return data

    def read(self) -> tuple[int, bytes]:
        kind, _, length = struct.unpack(">BBL", self.exactly(6))
        return kind, self.exactly(length)

    def read_end(self) -> int | None:
        """Type of the PDU that ends the talk; None when the connection just ends."""
        try:
            return self.read()[0]
        except (EOFError, ConnectionError):
            return None

    def half_a_store(self, instance: bytes = b"1.2.7.1") -> None:
        self.send(p_data(pdv(1, COMMAND | LAST, store_rq(instance))) + p_data(pdv(1, 0, b"x" * 100_000)))

    def release(self) -> None:
        self.send(pdu(RELEASE_RQ, b"\0" * 4))
        assert self.read()[0] == RELEASE_RP
        self.close()

    def close(self) -> None:
        self.sock.close()
