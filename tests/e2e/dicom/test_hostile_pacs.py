"""A PACS that says what no sender of the world says, in an order that nobody would choose: a status, or an abort."""

from __future__ import annotations

import socket
import struct
from dataclasses import replace

import pytest
from sqlalchemy import select

from gateway.demo.ct_phantom import DOMINIQUE, write_series
from gateway.model.imaging import Instance
from tests.e2e.dicom.conftest import AE_TITLE, storescu
from tests.e2e.dicom.peers import data_set
from tests.loopback import wait_until
from tests.unit.dicom.raw_peer import (
    ABORT,
    APPLICATION_CONTEXT,
    ASSOCIATE_AC,
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
    command,
    context,
    element,
    fields,
    item,
    p_data,
    pdu,
    pdv,
    status,
    store_rq,
    whole_store,
)

FIND = b"1.2.840.10008.5.1.4.1.2.2.1"
GET = b"1.2.840.10008.5.1.4.1.2.2.3"
ALL = [(0xFF00, 7)] * 5 + [(0x0000, 7)]
CONTEXTS = (
    context(1, CT, EXPLICIT),
    context(3, VERIFICATION, IMPLICIT),
    context(5, FIND, EXPLICIT),
    context(7, GET, EXPLICIT),
)
TAKES_CT = item(0x54, struct.pack(">H", len(CT)) + CT + b"\x01\x01")


def explicit(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


STUDY = explicit(8, 0x52, b"CS", b"STUDY") + explicit(0x20, 0xD, b"UI", DOMINIQUE.study_uid.encode())
IMAGES = (
    explicit(8, 0x18, b"UI", b"")
    + explicit(8, 0x52, b"CS", b"IMAGE")
    + explicit(0x20, 0xD, b"UI", DOMINIQUE.study_uid.encode())
    + explicit(0x20, 0xE, b"UI", f"{DOMINIQUE.study_uid}.1".encode())
)


def number(value: int) -> bytes:
    return struct.pack("<H", value)


def request(field: int, sop_class: bytes, message_id: int = 7, priority: int = 0) -> bytes:
    return command(
        element(0x0002, sop_class),
        element(0x0100, number(field)),
        element(0x0110, number(message_id)),
        element(0x0700, number(priority)),
        element(0x0800, number(1)),
    )


def find(identifier: bytes, **more: int) -> bytes:
    return p_data(pdv(5, COMMAND | LAST, request(0x0020, FIND, **more))) + p_data(pdv(5, LAST, identifier))


def cancel(message_id: int = 7, on: int = 5) -> bytes:
    said = command(
        element(0x0100, number(0x0FFF)), element(0x0120, number(message_id)), element(0x0800, number(0x0101))
    )
    return p_data(pdv(on, COMMAND | LAST, said))


def messages(peer: Peer) -> list[tuple[int, int]]:
    """Status and message id of each response up to the last one of a request; what is no response, as its type."""
    found = []
    while True:
        kind, body = peer.read()
        if kind != P_DATA:
            return [*found, (kind, -1)]
        if body[5] & COMMAND:
            said = fields(body)
            found.append((status(body), struct.unpack("<H", said[0x0120])[0]))
            if found[-1][0] not in (0xFF00, 0xFF01):
                return found


def echoes(peer: Peer) -> bool:
    peer.send(p_data(pdv(3, COMMAND | LAST, ECHO_RQ)))
    kind, body = peer.read()
    return (kind, status(body)) == (P_DATA, 0)


@pytest.fixture
def here(port, world):
    """The port, which the hospital may call."""
    world.session.commit()
    return port


@pytest.fixture
def kept(here, ct):
    """A study of five slices, sent by dcmtk."""
    assert storescu(here.port, *ct).returncode == 0
    return here


@pytest.fixture
def peer(kept):
    made = Peer(kept.port, *CONTEXTS, calling=AE_TITLE.encode(), negotiated=TAKES_CT)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def alive(port):
    """After each: an echo on a new association, and no association left over."""
    yield
    last = Peer(port.port, calling=AE_TITLE.encode())
    assert echoes(last)
    last.release()
    assert wait_until(lambda: not port._live())


# ---- in an order that nobody would choose


def test_who_asks_to_leave_while_he_is_answered_is_let_go(peer):
    peer.send(find(IMAGES) + pdu(RELEASE_RQ, b"\0" * 4))
    kinds = []
    while not kinds or kinds[-1] not in (RELEASE_RP, ABORT):
        kinds.append(peer.read()[0])
    assert kinds[-1] == RELEASE_RP


@pytest.mark.parametrize(
    "early",
    [cancel(), cancel(on=3), cancel() * 2, b"".join(map(cancel, range(30)))],
    ids=["one", "elsewhere", "twice", "thirty"],
)
def test_a_cancel_of_nothing_cancels_nothing(peer, early):
    peer.send(early)
    assert echoes(peer)
    peer.send(find(IMAGES))
    assert messages(peer) == ALL
    peer.send(early + find(IMAGES))
    assert messages(peer) == ALL
    peer.release()


def test_a_cancel_of_what_is_asked_is_the_end_of_it_and_of_nothing_else(peer):
    peer.send(find(IMAGES) + cancel())
    said = messages(peer)
    assert said[-1] in ((0xFE00, 7), (0x0000, 7))
    peer.send(find(IMAGES))
    assert messages(peer) == ALL
    peer.send(find(IMAGES, message_id=9) + cancel(7) + cancel(8))
    assert messages(peer) == [(0xFF00, 9)] * 5 + [(0x0000, 9)]
    peer.release()


def test_questions_ahead_of_their_answers_are_answered_in_their_order(peer):
    peer.send(b"".join(find(IMAGES, message_id=one) for one in range(1, 6)))
    assert [messages(peer) for _ in range(5)] == [[(0xFF00, one)] * 5 + [(0x0000, one)] for one in range(1, 6)]
    peer.release()


def test_eight_associations_lay_objects_down_piece_by_piece_in_turn(here, tmp_path, session):
    callers = []
    for one in range(8):
        phantom = replace(DOMINIQUE, study_uid=f"{DOMINIQUE.study_uid}.80{one}", slices=1)
        [path] = write_series(phantom, tmp_path / str(one))
        content = whole_store(f"{phantom.study_uid}.1.1".encode(), data_set(path), message_id=one)
        callers.append((Peer(here.port, calling=AE_TITLE.encode()), content))
    for start in range(0, max(len(content) for _, content in callers), 4099):
        for peer, content in callers:
            peer.send(content[start : start + 4099])
    for one, (peer, _) in enumerate(callers):
        assert messages(peer) == [(0x0000, one)]
        peer.release()
    kept = set(session.scalars(select(Instance.sop_instance_uid)))
    assert kept == {f"{DOMINIQUE.study_uid}.80{one}.1.1" for one in range(8)}


# ---- in pieces that nobody would cut


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_question_in_crumbs_is_a_question(peer, size):
    said, asked = request(0x0020, FIND), IMAGES

    def crumbs(content: bytes, kind: int) -> bytes:
        pieces = [content[start : start + size] for start in range(0, len(content), size)]
        return b"".join(
            p_data(pdv(5, kind | (LAST if place == len(pieces) - 1 else 0), piece))
            for place, piece in enumerate(pieces)
        )

    peer.send(crumbs(said, COMMAND) + crumbs(asked, 0))
    assert messages(peer) == ALL
    peer.release()


def test_fragments_of_nothing_are_nothing(peer):
    said = request(0x0020, FIND)
    peer.send(p_data(pdv(5, COMMAND, b""), pdv(5, COMMAND, said[:9])) + p_data(pdv(5, COMMAND | LAST, said[9:])))
    peer.send(p_data(pdv(5, 0, b"")) + p_data(pdv(5, 0, IMAGES), pdv(5, 0, b"")) + p_data(pdv(5, LAST, b"")))
    assert messages(peer) == ALL
    uid = b"1.2.3.4.5"
    peer.send(p_data(pdv(1, COMMAND, b""), pdv(1, COMMAND | LAST, store_rq(uid)), pdv(1, 0, b"")))
    peer.send(p_data(pdv(1, 0, b""), pdv(1, 0, b"")) + p_data(pdv(1, LAST, b"")))
    [(said, _)] = messages(peer)
    assert said >> 12 in (0xA, 0xC)  # no data set at all
    assert echoes(peer)
    peer.release()


ECHO = pdv(3, COMMAND | LAST, ECHO_RQ)


@pytest.mark.parametrize(
    "second",
    [
        p_data(ECHO + ECHO),
        p_data(ECHO + pdv(5, COMMAND | LAST, request(0x0020, FIND)) + pdv(5, LAST, IMAGES)),
        p_data(pdv(5, COMMAND | LAST, request(0x0020, FIND)) + pdv(5, LAST, IMAGES) + ECHO),
        p_data(pdv(5, COMMAND | LAST, request(0x0020, FIND))) + p_data(pdv(5, LAST, IMAGES) + ECHO),
        p_data(pdv(5, COMMAND | LAST, request(0x0020, FIND))) + p_data(ECHO),
    ],
    ids=["two echoes", "an echo, then a question", "a question, then an echo", "behind its data set", "before it"],
)
def test_a_second_message_in_a_pdu_is_not_lost_in_silence(peer, second):
    """A whole message in one PDU is well; one more behind it is no talk of DICOM, and would never be answered."""
    peer.send(p_data(pdv(5, COMMAND | LAST, request(0x0020, FIND)) + pdv(5, LAST, IMAGES)))
    assert messages(peer) == ALL
    peer.send(second)
    assert messages(peer) == [(ABORT, -1)]


# ---- commands that are not quite

LENGTHS = {
    "no group length": lambda body: body[12:],
    "too short": lambda body: body[:8] + struct.pack("<L", 4) + body[12:],
    "too long": lambda body: body[:8] + struct.pack("<L", 0xFFFFFF) + body[12:],
    "last": lambda body: body[12:] + body[:12],
    "twice": lambda body: body[:12] + body,
}


@pytest.mark.parametrize("change", LENGTHS.values(), ids=LENGTHS)
def test_group_lengths_that_are_wrong_are_not_believed(peer, change, ct):
    peer.send(p_data(pdv(3, COMMAND | LAST, change(ECHO_RQ))))
    assert messages(peer) == [(0x0000, 5)]
    peer.send(p_data(pdv(5, COMMAND | LAST, change(request(0x0020, FIND)))) + p_data(pdv(5, LAST, IMAGES)))
    assert messages(peer) == ALL
    uid = f"{DOMINIQUE.study_uid}.1.1".encode()
    peer.send(p_data(pdv(1, COMMAND | LAST, change(store_rq(uid)))) + p_data(pdv(1, LAST, data_set(ct[0]))))
    assert messages(peer) == [(0x0000, 7)]
    peer.release()


@pytest.mark.parametrize(("priority", "good"), [(2, True), (3, False), (65_535, False)])
@pytest.mark.parametrize("message_id", [0, 65_535])
def test_any_message_id_will_do_and_the_priorities_of_the_standard(peer, message_id, priority, good):
    peer.send(find(IMAGES, message_id=message_id, priority=priority))
    expected = [(0xFF00, message_id)] * 5 + [(0x0000, message_id)]
    assert messages(peer) == (expected if good else [(ABORT, -1)])


# ---- associations that nobody would ask for


def asked_for(port: int, *contexts: bytes, user: bytes | None = None, application: bytes = APPLICATION_CONTEXT) -> Peer:
    """Propose contexts with user information as it stands."""
    peer = Peer.__new__(Peer)
    peer.sock = socket.create_connection(("127.0.0.1", port), timeout=60)
    user = item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3.4") if user is None else user
    body = struct.pack(">HH", 1, 0) + b"RCPGATEWAY".ljust(16) + AE_TITLE.encode().ljust(16) + b"\0" * 32
    peer.send(pdu(ASSOCIATE_RQ, body + item(0x10, application) + b"".join(contexts) + item(0x50, user)))
    peer.kind, peer.answer = peer.read()
    return peer


ECHOING = context(3, VERIFICATION, IMPLICIT)
ACCEPTED = {
    "one context twice under two ids": (context(1, VERIFICATION, IMPLICIT), ECHOING),
    "128 contexts": tuple(context(2 * one + 1, VERIFICATION, IMPLICIT) for one in range(128)),
    "one class in 127 contexts": (ECHOING, *(context(2 * one + 1, CT, EXPLICIT) for one in range(128) if one != 1)),
    "one syntax 500 times": (context(1, CT, *[EXPLICIT] * 500), ECHOING),
    "a class that is no UID": (context(1, b"CT", EXPLICIT), ECHOING),
    "a syntax that is no UID": (context(1, CT, b"deflate", EXPLICIT), ECHOING),
    "UIDs with NUL behind": (context(1, CT + b"\0", EXPLICIT + b"\0"), ECHOING),
    "an unknown item": (ECHOING, item(0x2F, b"xyz")),
    "a megabyte of them": (ECHOING, item(0x2F, b"") * 260_000),
}
ABORTED = {
    "one id for two": (context(1, CT, EXPLICIT), context(1, VERIFICATION, IMPLICIT)),
    "an even id": (context(2, VERIFICATION, IMPLICIT), ECHOING),
    "id zero": (context(0, VERIFICATION, IMPLICIT), ECHOING),
    "no transfer syntax": (context(1, CT), ECHOING),
    "no class": (item(0x20, b"\1\0\0\0" + item(0x40, EXPLICIT)), ECHOING),
    "an empty class": (context(1, b"", EXPLICIT), ECHOING),
    "a UID of 70 characters": (context(1, b"1." + b"2" * 68, EXPLICIT), ECHOING),
    "an item longer than all": (ECHOING, b"\x20\0\xff\xff\5\0\0\0"),
    "half an item": (ECHOING, b"\x20\0"),
}


def test_odd_proposals_are_answered_context_by_context(here):
    for name, contexts in ACCEPTED.items():
        peer = asked_for(here.port, *contexts)
        assert (name, peer.kind, echoes(peer)) == (name, ASSOCIATE_AC, True)
        peer.release()


def test_proposals_that_mean_nothing_are_aborted_at_once(here):
    """By nobody's thread that dies of them: another caller has the place."""
    for name, contexts in ABORTED.items():
        peer = asked_for(here.port, *contexts)
        assert (name, peer.kind) == (name, ABORT)
        peer.close()


LENGTH, CLASS = item(0x51, struct.pack(">L", 16384)), item(0x52, b"1.2.3.4")
COMMON = struct.pack(">H", len(CT)) + CT + struct.pack(">H", 17) + b"1.2.840.10008.4.2" + b"\0\0"
USERS = {
    "nothing": b"",
    "no length": CLASS,
    "no implementation": LENGTH,
    "an odd version name": LENGTH + CLASS + item(0x55, b"ABC"),
    "an empty version name": LENGTH + CLASS + item(0x55, b""),
    "a long version name": LENGTH + CLASS + item(0x55, b"V" * 40),
    "a version name of any bytes": LENGTH + CLASS + item(0x55, b"\xe9\xff"),
    "an implementation that is no UID": LENGTH + item(0x52, b"PACS 1"),
    "an unknown item": LENGTH + CLASS + item(0x7F, b"xyz"),
    "an identity of no kind": LENGTH + CLASS + item(0x58, b"\x09\x01\0\1x\0\0"),
    "a token as identity": LENGTH + CLASS + item(0x58, b"\x05\x01\0\1x\0\0"),
    "any number of operations at once": LENGTH + CLASS + item(0x53, b"\0\0\0\0"),
    "common extended negotiation": LENGTH + CLASS + item(0x57, COMMON),
    "the length twice": LENGTH + CLASS + item(0x51, struct.pack(">L", 64)),
}


def test_what_a_receiver_need_not_know_of_a_caller_is_skipped(kept):
    """[PS3.8 D.2]: items that are not recognised are no reason to reject; a name that is too long harms nobody."""
    for name, user in USERS.items():
        peer = asked_for(kept.port, *CONTEXTS, user=user)
        assert (name, peer.kind, echoes(peer)) == (name, ASSOCIATE_AC, True)
        peer.send(find(IMAGES))
        assert messages(peer) == ALL, name
        peer.release()


def whole(peer: Peer, count: int) -> tuple[list[int], int]:
    """Statuses of so many last responses, put together from fragments of any size; and the longest PDU."""
    said, encoded, longest = [], b"", 0
    while count:
        kind, body = peer.read()
        assert kind == P_DATA
        longest, rest = max(longest, len(body)), body
        while rest:
            length, _, header = struct.unpack_from(">LBB", rest)
            if header & COMMAND:
                encoded += rest[6 : 4 + length]
                if header & LAST:
                    said.append(status(b"\0" * 6 + encoded))
                    encoded, count = b"", count - (said[-1] != 0xFF00)
            rest = rest[4 + length :]
    return said, longest


def test_answers_are_cut_as_small_as_the_peer_takes_them(kept):
    for length in (0, 7, 13, 100, 0xFFFFFFFF):
        peer = asked_for(kept.port, *CONTEXTS, user=item(0x51, struct.pack(">L", length)) + CLASS)
        peer.send(p_data(pdv(3, COMMAND | LAST, ECHO_RQ)))
        assert whole(peer, 1)[0] == [0x0000]
        peer.send(find(IMAGES))
        said, longest = whole(peer, 1)
        assert said == [0xFF00] * 5 + [0x0000]
        assert longest <= (length or 0xFFFFFFFF)
        peer.release()


def test_who_takes_nothing_is_told_nothing(here):
    """No fragment has less than six bytes around it."""
    for length in (1, 6):
        peer = asked_for(here.port, *CONTEXTS, user=item(0x51, struct.pack(">L", length)) + CLASS)
        peer.send(p_data(pdv(3, COMMAND | LAST, ECHO_RQ)))
        assert peer.read_end() == ABORT
        peer.close()
