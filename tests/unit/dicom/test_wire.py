"""The receiving path over a real socket: framing, refusals, hostile peers. Bytes come from `raw_peer`."""

import contextlib
import errno
import logging
import os
import socket
import ssl
import struct
import subprocess
import threading
import time

import pynetdicom
import pytest

from gateway.dicom import wire
from gateway.dicom.wire import Limits
from gateway.errors import Unavailable
from gateway.transport import Tls
from tests.loopback import wait_until
from tests.unit.dicom.raw_peer import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    ASSOCIATE_RQ,
    COMMAND,
    CT,
    ECHO_RQ,
    EXPLICIT,
    IMPLICIT,
    LAST,
    P_DATA,
    RELEASE_RP,
    RELEASE_RQ,
    VERIFICATION,
    Peer,
    associate_rq,
    context,
    fields,
    p_data,
    pdu,
    pdv,
    status,
    store_rq,
    whole_store,
)

DATA = bytes(range(256)) * 1200


def answered(peer):
    kind, body = peer.read()
    assert kind == P_DATA
    return status(body)


# ---- framing [PS3.8 9.3.5, annex E]


def test_command_and_data_share_pdus_in_any_way(scp, folder):
    peer = Peer(scp.port)
    peer.send(p_data(pdv(1, 3, store_rq(b"1.2.5.1")), pdv(1, 0, DATA[:100]), pdv(1, 0, DATA[100:5000])))
    peer.send(
        p_data(pdv(1, 0, DATA[5000:90000]), pdv(1, 0, DATA[90000:100000])) + p_data(pdv(1, LAST, DATA[100000:200000]))
    )
    assert answered(peer) == 0
    assert folder.data_set("1.2.5.1") == DATA[:200000]

    whole = store_rq(b"1.2.5.2")  # the command in three pieces, the last fragment of the data empty
    peer.send(
        p_data(pdv(1, COMMAND, whole[:11])) + p_data(pdv(1, COMMAND, whole[11:50])) + p_data(pdv(1, 3, whole[50:]))
    )
    peer.send(p_data(pdv(1, 0, DATA[:100000])) + p_data(pdv(1, LAST, b"")))
    assert answered(peer) == 0
    assert folder.data_set("1.2.5.2") == DATA[:100000]

    peer.send(p_data(pdv(1, 3, store_rq(b"1.2.5.3")), pdv(1, LAST, DATA[:50])))
    assert answered(peer) == 0
    assert folder.data_set("1.2.5.3") == DATA[:50]
    peer.release()


def test_bytes_may_arrive_one_at_a_time(scp, folder):
    peer = Peer(scp.port)
    for byte in whole_store(b"1.2.5.4", DATA[:300]):
        peer.send(bytes([byte]))
    assert answered(peer) == 0
    assert folder.data_set("1.2.5.4") == DATA[:300]
    peer.release()


def test_stores_and_echoes_share_an_association(scp, folder):
    peer = Peer(scp.port)
    for number in range(3):
        peer.send(p_data(pdv(3, COMMAND, ECHO_RQ[:20])) + p_data(pdv(3, 3, ECHO_RQ[20:])))
        assert answered(peer) == 0
        peer.send(whole_store(b"1.2.6.%d" % number, DATA[:2000]))
        assert answered(peer) == 0
    peer.release()
    assert folder.kept == {"1.2.6.0", "1.2.6.1", "1.2.6.2"}


def test_pipelined_stores_are_answered_in_order(scp):
    peer = Peer(scp.port)
    peer.send(b"".join(whole_store(b"1.2.6.%d" % n, DATA[:2000], message_id=n) for n in range(5)))
    replies = [fields(peer.read()[1]) for _ in range(5)]
    assert [struct.unpack("<H", reply[0x0120])[0] for reply in replies] == [0, 1, 2, 3, 4]
    assert [reply[0x1000].rstrip(b"\0") for reply in replies] == [b"1.2.6.%d" % n for n in range(5)]
    peer.release()


def test_the_response_is_a_whole_command_set(scp):
    peer = Peer(scp.port)
    peer.send(whole_store(b"1.2.5.9", b"ab"))
    _, body = peer.read()
    length, number, header = struct.unpack_from(">LBB", body)
    assert (length, number, header) == (len(body) - 4, 1, COMMAND | LAST)
    found = fields(body)
    assert found[0x0000] == struct.pack("<L", len(body) - 6 - 12)
    assert (found[0x0002].rstrip(b"\0"), found[0x0100], found[0x0800]) == (CT, b"\x01\x80", b"\x01\x01")
    peer.release()


# ---- negotiation


def accepted(peer) -> dict[int, tuple[int, bytes]]:
    """Context id → (result, transfer syntax) of an A-ASSOCIATE-AC [PS3.8 9.3.3.2]."""
    body, position, found = peer.answer, 68, {}
    while position < len(body):
        kind, _, length = struct.unpack_from(">BBH", body, position)
        if kind == 0x21:
            inner = body[position + 4 : position + 4 + length]
            found[inner[0]] = (inner[2], inner[8:])
        position += 4 + length
    return found


def test_explicit_little_endian_is_chosen_whatever_the_order(scp):
    peer = Peer(scp.port, context(1, CT, IMPLICIT, b"1.2.840.10008.1.2.4.90", EXPLICIT))
    assert accepted(peer) == {1: (0, EXPLICIT)}
    peer.release()


def test_private_future_and_compressed_are_accepted_and_other_services_refused(scp):
    jpeg, find = b"1.2.840.10008.1.2.4.70", b"1.2.840.10008.5.1.4.1.2.2.1"
    peer = Peer(
        scp.port,
        context(1, b"1.3.12.2.1107.5.9.1", IMPLICIT),  # private
        context(3, b"1.2.840.10008.5.1.4.1.1.99999", EXPLICIT),  # not in any library yet
        context(5, CT, jpeg),
        context(7, find, EXPLICIT),
        context(9, CT, b"1.2.840.10008.1.2.4.94"),  # JPIP: the pixels would stay elsewhere
        context(11, VERIFICATION, IMPLICIT),
    )
    found = accepted(peer)
    assert {number: result for number, (result, _) in found.items()} == {1: 0, 3: 0, 5: 0, 7: 3, 9: 4, 11: 0}
    assert found[5][1] == jpeg
    peer.release()


def test_a_private_object_is_kept_as_received(scp, folder):
    private = b"1.3.12.2.1107.5.9.1"
    peer = Peer(scp.port, context(1, private, IMPLICIT))
    peer.send(p_data(pdv(1, 3, store_rq(b"1.2.5.7", sop_class=private))) + p_data(pdv(1, LAST, DATA[:64])))
    assert answered(peer) == 0
    request, caller = folder.requests[0]
    assert (request.sop_class_uid, request.transfer_syntax_uid) == (private.decode(), IMPLICIT.decode())
    assert caller == "RAW@127.0.0.1"
    peer.release()


@pytest.mark.parametrize(("calling", "reason"), [(b"STRANGER", b"\x00\x01\x01\x03"), (b"BROKEN", b"\x00\x02\x03\x01")])
def test_unknown_callers_and_a_broken_registry_get_a_rejection(scp, calling, reason):
    peer = Peer(scp.port, calling=calling, expect=ASSOCIATE_RJ)
    assert peer.answer == reason
    peer.close()


def test_one_association_too_many_is_rejected_by_name(make_scp):
    scp = make_scp(Limits(max_associations=2, drain_s=1))
    peers = [Peer(scp.port), Peer(scp.port)]
    late = Peer(scp.port, expect=ASSOCIATE_RJ)
    assert late.answer == b"\x00\x02\x03\x02"  # transient, presentation related, local limit exceeded
    for peer in peers:
        peer.release()


# ---- refusals: the association goes on, nothing stays


@pytest.mark.parametrize("uid", [b"../../../etc/x", b"1.2/3", b"", b"1." + b"2" * 70, b"1..2", b"1.2\n", b"a.b"])
def test_a_uid_never_becomes_a_path(scp, folder, uid):
    peer = Peer(scp.port)
    peer.send(whole_store(uid, DATA[:50]))
    assert answered(peer) == 0xA900
    peer.send(whole_store(b"1.2.3", DATA[:50]))
    assert answered(peer) == 0
    assert folder.kept == {"1.2.3"}
    peer.release()


def test_the_sop_class_must_be_the_context_s(scp, folder):
    peer = Peer(scp.port, context(1, CT, EXPLICIT), context(5, b"1.2.840.10008.5.1.4.1.1.4", EXPLICIT))
    peer.send(p_data(pdv(5, 3, store_rq(b"1.2.5.9"))) + p_data(pdv(5, LAST, DATA[:1000])))
    assert answered(peer) == 0x0122
    assert folder.requests == []
    peer.release()


@pytest.mark.parametrize("where", ["fail_open", "fail_write", "fail_commit"])
@pytest.mark.parametrize(
    ("error", "expected", "comment"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 0xA700, b"storage-full"),
        (Unavailable("database", "La base de données ne répond pas."), 0xA700, b"database"),
        (ZeroDivisionError("PAT-TROIS"), 0x0110, b"internal-error"),
    ],
)
def test_storage_that_fails_is_answered_and_leaves_nothing(scp, folder, caplog, where, error, expected, comment):
    setattr(folder, where, error)
    peer = Peer(scp.port)
    peer.send(whole_store(b"1.2.5.1", DATA[:90000]))
    _, body = peer.read()
    assert status(body) == expected
    assert fields(body)[0x0902].startswith(comment)
    assert len(fields(body)[0x0902]) <= 64
    assert (folder.kept, folder.partial) == (set(), 0)
    assert "PAT-TROIS" not in caplog.text
    setattr(folder, where, None)
    peer.send(whole_store(b"1.2.5.1", DATA[:90000]))
    assert answered(peer) == 0
    peer.release()


def test_a_really_full_disk_is_out_of_resources(scp, folder):
    folder.device = os.open("/dev/full", os.O_WRONLY)
    peer = Peer(scp.port)
    peer.send(whole_store(b"1.2.5.1", DATA))
    assert answered(peer) == 0xA700
    assert folder.partial == 0
    peer.release()
    os.close(folder.device)


def test_an_object_over_the_limit_is_drained_and_refused_by_name(make_scp, folder):
    scp = make_scp(Limits(max_object_bytes=1000, drain_s=1))
    peer = Peer(scp.port)
    peer.send(whole_store(b"1.2.5.1", DATA[:1001]))
    _, body = peer.read()
    assert status(body) == 0xC000
    assert fields(body)[0x0902].startswith(b"object-too-large")
    peer.send(whole_store(b"1.2.5.2", DATA[:1000]))
    assert answered(peer) == 0
    assert folder.kept == {"1.2.5.2"}
    peer.release()


# ---- hostile or broken peers


@pytest.mark.parametrize(
    "first",
    [
        b"",
        p_data(pdv(1, COMMAND | LAST, ECHO_RQ)),
        pdu(RELEASE_RQ, b"\0" * 4),
        pdu(RELEASE_RP, b"\0" * 4),
        pdu(ASSOCIATE_AC, b"\0" * 68),
        pdu(ABORT, b"\0" * 4),
        pdu(ASSOCIATE_RQ, b"\0\2" + b"\0" * 66),  # another version of the protocol
        pdu(ASSOCIATE_RQ, b"\0\1"),
        pdu(9, b"\0" * 4),
        b"\1\0\0",
    ],
)
def test_whoever_begins_with_something_else_holds_no_place(make_scp, first):
    """A place was held for `acse_s` by each: fifty bytes a second kept everybody out."""
    scp = make_scp(Limits(drain_s=2, max_associations=2))
    for _ in range(4):
        with socket.create_connection(("127.0.0.1", scp.port), timeout=60) as sock:
            sock.sendall(first)
            sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                while sock.recv(65_536):
                    pass
    assert wait_until(lambda: not scp._server.active_associations)
    assert wait_until(lambda: not [one for one in threading.enumerate() if one.name.startswith("AcceptorThread")])
    Peer(scp.port).release()


def test_another_version_of_the_protocol_is_rejected_by_name(scp):
    """[PS3.8 9.3.4] permanent, by the presentation related function … ACSE: protocol version not supported."""
    request = bytearray(associate_rq(context(1, CT, EXPLICIT)))
    request[6:8] = b"\0\2"
    with socket.create_connection(("127.0.0.1", scp.port), timeout=60) as sock:
        sock.sendall(request)
        answer = sock.recv(100)
    assert (answer[0], tuple(answer[7:10])) == (ASSOCIATE_RJ, (1, 2, 2))


def test_garbage_instead_of_a_request_is_aborted(scp):
    with socket.create_connection(("127.0.0.1", scp.port), timeout=60) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n" * 50)
        assert sock.recv(1) in (bytes([ABORT]), b"")
    Peer(scp.port).release()


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(b"\x09\0\0\0\0\4zzzz", id="unknown PDU type"),
        pytest.param(struct.pack(">BBL", P_DATA, 0, 1 << 30), id="P-DATA over the announced maximum"),
        pytest.param(struct.pack(">BBL", RELEASE := 5, 0, 1 << 30), id="huge release"),
        pytest.param(pdu(P_DATA, b"\0\0\0"), id="truncated PDV"),
        pytest.param(pdu(P_DATA, struct.pack(">LBB", 999, 1, 3) + b"ab"), id="PDV longer than its PDU"),
        pytest.param(pdu(P_DATA, struct.pack(">LBB", 1, 1, 3) + b"ab"), id="PDV shorter than its head"),
        pytest.param(p_data(pdv(9, 3, store_rq(b"1.2.8.1"))) + p_data(pdv(9, 2, b"zz")), id="context never accepted"),
        pytest.param(p_data(pdv(1, LAST, b"zz")), id="data before a command"),
        pytest.param(p_data(pdv(1, 3, b"\x09\0\0\0\4\0\0\0abcd")), id="command of another group"),
        pytest.param(p_data(pdv(1, 3, b"\0\0\0\0\xff\xff\xff\xffabcd")), id="command longer than itself"),
        pytest.param(b"".join(p_data(pdv(1, COMMAND, b"\0" * 60_000)) for _ in range(3)), id="endless command"),
        pytest.param(associate_rq(context(1, CT, EXPLICIT)), id="a second A-ASSOCIATE-RQ"),
    ],
)
def test_what_no_talk_may_contain_is_aborted_and_the_port_lives(scp, folder, bad):
    peer = Peer(scp.port)
    peer.send(bad)
    assert peer.read_end() in (ABORT, None)
    peer.close()
    again = Peer(scp.port)
    again.send(whole_store(b"1.2.3", DATA[:10]))
    assert answered(again) == 0
    again.release()
    assert (folder.kept, folder.partial) == ({"1.2.3"}, 0)


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(pdu(ABORT, b"\0" * 4), id="A-ABORT"),
        pytest.param(p_data(pdv(3, 0, b"xx")), id="fragment of another context"),
        pytest.param(p_data(pdv(1, COMMAND, b"xx")), id="command fragment"),
        pytest.param(pdu(P_DATA, b""), id="empty P-DATA"),
        pytest.param(struct.pack(">BBL", P_DATA, 0, 1 << 30), id="oversized PDU"),
        pytest.param(struct.pack(">BBL", P_DATA, 0, 50_000) + b"\0" * 20_000, id="closed in mid PDU"),
        pytest.param(b"", id="closed between PDUs"),
    ],
)
def test_a_broken_data_set_leaves_nothing(scp, folder, end):
    peer = Peer(scp.port)
    peer.half_a_store()
    assert wait_until(lambda: folder.partial == 1)
    peer.send(end)
    if end.startswith(bytes([P_DATA])) and len(end) < 10_000:
        assert peer.read_end() == ABORT
    peer.close()
    assert wait_until(lambda: folder.partial == 0)
    assert folder.kept == set()


@pytest.mark.parametrize("rest", [b"", struct.pack(">BBL", P_DATA, 0, 50_000) + b"\0" * 200])
def test_a_stall_is_cut_after_the_idle_limit(make_scp, folder, rest):
    scp = make_scp(Limits(idle_s=2, drain_s=1))
    peer = Peer(scp.port)
    peer.half_a_store()
    peer.send(rest)
    assert peer.read_end() == ABORT
    assert wait_until(lambda: folder.partial == 0)
    peer.close()


@contextlib.contextmanager
def dripping(peer):
    ended = threading.Event()

    def drip():
        try:
            while not ended.wait(0.05):
                peer.send(b"\0")
        except OSError:
            pass

    thread = threading.Thread(target=drip)
    thread.start()
    yield
    ended.set()
    thread.join()


def test_a_peer_that_drips_bytes_does_not_hold_its_place(make_scp):
    scp = make_scp(Limits(idle_s=2, drain_s=1))
    peer = Peer(scp.port)
    peer.send(struct.pack(">BBL", P_DATA, 0, 50_000))
    with dripping(peer):
        assert peer.read_end() in (ABORT, None)
    peer.close()


def test_a_silent_connection_is_closed_after_the_negotiation_limit(make_scp):
    scp = make_scp(Limits(acse_s=1, idle_s=2, drain_s=1))
    with socket.create_connection(("127.0.0.1", scp.port), timeout=60) as sock:
        assert sock.recv(1) in (b"", bytes([ABORT]))


def test_an_endless_message_of_the_stock_path_is_cut(make_scp):
    scp = make_scp(Limits(max_message_bytes=500_000, drain_s=1))
    peer = Peer(scp.port)
    try:
        # A command that announces a data set, on a context of another service.
        peer.send(
            p_data(
                pdv(3, 3, store_rq(b"1.2.3", sop_class=VERIFICATION, data_set=1).replace(b"\x01\x00", b"\x20\x00", 1))
            )
        )
        for _ in range(50):
            peer.send(p_data(pdv(3, 0, b"z" * 100_000)))
        assert peer.read_end() in (ABORT, None)
    except ConnectionError:
        pass
    peer.close()


def test_many_aborted_associations_do_not_slow_the_next(scp):
    for _ in range(20):
        peer = Peer(scp.port)
        peer.half_a_store()
        peer.close()
    peer = Peer(scp.port)
    peer.send(whole_store(b"1.2.3", DATA))
    assert answered(peer) == 0
    peer.release()


# ---- stopping


def test_stop_lets_a_store_under_way_end(make_scp, folder):
    scp = make_scp(Limits(drain_s=60))
    port = scp.port
    folder.gate = threading.Event()
    peer, idle = Peer(scp.port), Peer(scp.port)
    peer.send(whole_store(b"1.2.3", DATA))
    assert wait_until(lambda: folder.partial == 1)
    stopping = threading.Thread(target=scp.stop)
    stopping.start()
    assert idle.read_end() == ABORT  # an idle caller is told at once
    folder.gate.set()
    assert answered(peer) == 0
    assert peer.read_end() == ABORT
    stopping.join(60)
    assert not stopping.is_alive()
    assert folder.kept == {"1.2.3"}
    with pytest.raises(ConnectionError):
        socket.create_connection(("127.0.0.1", port), timeout=60)


def test_stop_aborts_a_store_that_does_not_end(make_scp, folder):
    scp = make_scp(Limits(drain_s=0.2))
    peer = Peer(scp.port)
    peer.half_a_store()
    assert wait_until(lambda: folder.partial == 1)
    scp.stop()
    assert peer.read_end() == ABORT
    assert wait_until(lambda: folder.partial == 0)
    peer.close()


def test_stop_aborts_a_store_that_drips_on(make_scp, folder, caplog, monkeypatch):
    """A byte now and then ends each read: an abort is not looked at in silences only, nor does one end the waiting."""
    caplog.set_level(logging.INFO, logger="gateway.dicom.wire")
    monkeypatch.setattr(wire, "_LEAVING_S", 0.5)
    scp = make_scp(Limits(drain_s=0.2, acse_s=300))
    peer = Peer(scp.port)
    peer.half_a_store()
    peer.send(struct.pack(">BBLLBB", P_DATA, 0, 100_000, 100_000 - 4, 1, 0))
    assert wait_until(lambda: folder.partial == 1)
    with dripping(peer):
        stopping = threading.Thread(target=scp.stop)
        stopping.start()
        assert peer.read_end() in (ABORT, None)  # a byte that crosses it is answered with a reset
        stopping.join(60)
        assert not stopping.is_alive()
    assert "local abort" in caplog.text
    assert wait_until(lambda: folder.partial == 0)
    peer.close()


# ---- TLS


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
    return root / "cert.pem", root / "key.pem"


def test_tls_serves_while_a_silent_client_holds_its_handshake(make_scp, folder, certificate):
    cert, key = certificate
    scp = make_scp(tls=Tls(certificate=cert, key=key))
    silent = socket.create_connection(("127.0.0.1", scp.port))
    client = ssl.create_default_context(cafile=str(cert))
    peer = Peer(scp.port, wrap=lambda sock: client.wrap_socket(sock, server_hostname="localhost"))
    peer.send(whole_store(b"1.2.3", DATA) + whole_store(b"1.2.4", DATA))
    assert [answered(peer), answered(peer)] == [0, 0]
    assert folder.data_set("1.2.4") == DATA
    peer.send(p_data(pdv(3, 3, ECHO_RQ)))
    assert answered(peer) == 0
    peer.release()
    silent.close()


def test_tls_with_authorities_refuses_a_client_without_certificate(make_scp, certificate):
    cert, key = certificate
    scp = make_scp(tls=Tls(certificate=cert, key=key, authorities=cert))
    client = ssl.create_default_context(cafile=str(cert))
    with pytest.raises((OSError, EOFError)):
        Peer(scp.port, wrap=lambda sock: client.wrap_socket(sock, server_hostname="localhost"))
    client.load_cert_chain(cert, key)
    Peer(scp.port, wrap=lambda sock: client.wrap_socket(sock, server_hostname="localhost")).release()


# ---- the library it stands on


def test_another_version_of_the_library_is_refused(monkeypatch):
    wire.assert_library()
    monkeypatch.setattr(pynetdicom, "__version__", "3.1.0")
    with pytest.raises(RuntimeError, match=r"3\.0\.4 is required, found 3\.1\.0"):
        wire.assert_library()


def test_idle_associations_do_not_spin(make_scp, monkeypatch):
    turns = []
    original = wire.Diverter.patience_s
    monkeypatch.setattr(wire.Diverter, "patience_s", lambda self: turns.append(1) or original(self))
    scp = make_scp()
    peers = [Peer(scp.port) for _ in range(5)]
    started, before = time.monotonic(), len(turns)
    time.sleep(0.1)
    assert wait_until(lambda: time.monotonic() - started > 0.6)
    # Stock turns 1000 times a second for each; a turn here lasts up to Pace.LONGEST_S.
    assert len(turns) - before < 5 * 200
    for peer in peers:
        peer.release()
