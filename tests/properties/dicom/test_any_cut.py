"""However a sender cuts an object into fragments, PDUs and segments, the same bytes are kept `[PS3.8 9.3.5, E.2]`."""

import contextlib
import hashlib
import itertools
import random
import socket
import ssl
import subprocess
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.dicom.wire import Limits
from gateway.transport import Tls
from tests.loopback import wait_until
from tests.unit.dicom.conftest import folder, make_scp  # noqa: F401 - the port over a folder
from tests.unit.dicom.raw_peer import (
    ABORT,
    COMMAND,
    ECHO_RQ,
    LAST,
    P_DATA,
    RELEASE_RQ,
    Peer,
    p_data,
    pdu,
    pdv,
    status,
    store_rq,
)

#: Small, so that it fills many times, in the middle of a fragment too.
BUFFER = 4096
#: What is near a border of ours: nothing, a head, the buffer, its end where heads are read ahead.
NEAR = (0, 1, 2, 5, 6, 11, 12, 13, BUFFER - 13, BUFFER - 12, BUFFER - 11, BUFFER, BUFFER + 1, 3 * BUFFER, 20_000)

sizes = st.one_of(st.sampled_from(NEAR), st.integers(0, 20_000))
seeds = st.integers(0, 2**32)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    root = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", root / "key.pem", "-out", root / "cert.pem"),
        ],
        check=True,
        capture_output=True,
    )
    return Tls(certificate=root / "cert.pem", key=root / "key.pem")


@pytest.fixture(params=["plain", "tls"])
def peer(request, make_scp, folder, certificate):  # noqa: F811 - fixtures
    """Over TLS each record ends a read: the heads of the next PDU come with this one in any part, or not at all."""
    limits, wrap, tls = Limits(buffer_bytes=BUFFER, drain_s=2), None, {}
    if request.param == "tls":
        client, tls = ssl.create_default_context(cafile=str(certificate.certificate)), {"tls": certificate}
        wrap = partial(client.wrap_socket, server_hostname="localhost")
    made = Peer(make_scp(limits, **tls).port, wrap=wrap)
    made.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    yield made
    made.release()


def cut(chance, content: bytes, most: int) -> list[bytes]:
    """A content in pieces, empty ones among them; at least one."""
    pieces = []
    while content:
        size = chance.choice((0, 1, 6, 12, most, chance.randint(0, most)))
        pieces.append(content[:size])
        content = content[size:]
    return pieces or [b""]


def joined(chance, fragments: list[bytes]) -> bytes:
    """PDUs of one fragment or several."""
    out, waiting = b"", []
    for fragment in fragments:
        waiting.append(fragment)
        if chance.random() < 0.5 or sum(map(len, waiting)) > 50_000:
            out, waiting = out + p_data(*waiting), []
    return out + (p_data(*waiting) if waiting else b"")


def conversation(chance, uid: bytes, data: bytes) -> bytes:
    command = cut(chance, store_rq(uid), 60)
    pieces = cut(chance, data, chance.choice((40, 5000, 30_000)))
    if len(pieces) > 400:
        pieces = [*pieces[:400], b"".join(pieces[400:])]
    said = [pdv(1, COMMAND | LAST * (n == len(command) - 1), piece) for n, piece in enumerate(command)]
    kept = [pdv(1, LAST * (n == len(pieces) - 1), piece) for n, piece in enumerate(pieces)]
    if chance.random() < 0.5:
        return joined(chance, said + kept)
    return joined(chance, said) + joined(chance, kept)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(sizes, min_size=1, max_size=3), seeds)
def test_whatever_the_cut_the_bytes_are_the_same(peer, folder, lengths, seed):  # noqa: F811
    """Several objects in a row, with an echo behind: what is read ahead belongs to the next message."""
    chance = random.Random(seed)  # noqa: S311 - a test's own
    sent, stream = {}, b""
    for number, length in enumerate(lengths):
        uid, data = b"1.2.9.%d" % number, chance.randbytes(length)
        sent[uid.decode()] = hashlib.sha256(data).hexdigest()
        stream += conversation(chance, uid, data)
    stream += p_data(pdv(3, COMMAND | LAST, ECHO_RQ))
    for segment in cut(chance, stream, chance.choice((3000, 70_000)))[:2000]:
        peer.send(segment)
        stream = stream[len(segment) :]
    peer.send(stream)
    for _ in range(len(lengths) + 1):
        kind, body = peer.read()
        assert (kind, status(body)) == (P_DATA, 0)
    assert {uid: hashlib.sha256(folder.data_set(uid)).hexdigest() for uid in sent} == sent
    assert folder.partial == 0


@pytest.fixture
def scp(make_scp):  # noqa: F811 - fixtures
    return make_scp(Limits(buffer_bytes=BUFFER, drain_s=2))


#: No example meets what another has left.
NUMBERS = itertools.count(1)
ENDS = (b"", pdu(ABORT, b"\0" * 4), pdu(RELEASE_RQ, b"\0" * 4), pdu(ABORT, b"\0" * 4) + b"\4\0", b"\4\0\0\0\0\6")


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(sizes, seeds, st.sampled_from(ENDS), st.floats(0, 1))
def test_wherever_it_breaks_off_what_is_whole_is_kept_and_nothing_else(scp, folder, length, seed, end, part):  # noqa: F811
    """Any number of bytes, then a farewell or none; the port serves whoever comes next."""
    chance = random.Random(seed)  # noqa: S311 - a test's own
    data, uid = chance.randbytes(length), f"1.2.8.{next(NUMBERS)}"
    stream = conversation(chance, uid.encode(), data)
    sent = stream[: int(part * len(stream))]
    with contextlib.suppress(OSError):  # the port closed first
        peer = Peer(scp.port)
        peer.send(sent + end)
        peer.sock.shutdown(socket.SHUT_WR)
        while peer.read_end() is not None:
            pass
        peer.close()
    assert wait_until(lambda: folder.partial == 0)
    if len(sent) == len(stream):
        assert wait_until(lambda: uid in folder.kept)
    if uid in folder.kept:
        # The first bytes of a farewell may stand where the last ones of a fragment were announced.
        missing = len(stream) - len(sent)
        assert missing <= len(end)
        assert folder.data_set(uid) == data[: length - missing] + end[:missing]
    other = Peer(scp.port)
    other.send(p_data(pdv(3, COMMAND | LAST, ECHO_RQ)))
    assert status(other.read()[1]) == 0
    other.release()
