"""A proposal that came before is answered as if it had not: over a real socket, by bytes of `raw_peer`."""

import itertools
import socket
import struct
import threading

from gateway.dicom import proposals
from gateway.dicom.proposals import Proposal, Proposals
from tests.unit.dicom.raw_peer import (
    ABORT,
    ASSOCIATE_RJ,
    CT,
    EXPLICIT,
    IMPLICIT,
    P_DATA,
    VERIFICATION,
    Peer,
    associate_rq,
    context,
    item,
    status,
    whole_store,
)

MR = b"1.2.840.10008.5.1.4.1.1.4"
JPEG = b"1.2.840.10008.1.2.4.70"
UNKNOWN = b"1.2.3.4.5"


def role(sop_class: bytes, scu: int, scp: int) -> bytes:
    return item(0x54, struct.pack(">H", len(sop_class)) + sop_class + bytes([scu, scp]))


#: Alike but for a number, an order, a role, a name: each must get what it asked for.
PROPOSED = [
    {"contexts": (context(1, CT, EXPLICIT),)},
    {"contexts": (context(3, CT, EXPLICIT),)},
    {"contexts": (context(1, CT, IMPLICIT, JPEG),)},
    {"contexts": (context(1, CT, JPEG, IMPLICIT),)},
    {"contexts": (context(1, CT, UNKNOWN), context(3, VERIFICATION, IMPLICIT))},
    {"contexts": (context(1, CT, JPEG, EXPLICIT),), "negotiated": role(CT, 0, 1)},
    {"contexts": (context(1, CT, JPEG, EXPLICIT),), "negotiated": role(CT, 1, 1)},
    {"contexts": (context(1, CT, EXPLICIT), context(3, MR, EXPLICIT)), "calling": b"OTHER"},
]


def answer(port: int, proposed: dict) -> bytes:
    peer = Peer(port, *proposed["contexts"], **{key: value for key, value in proposed.items() if key != "contexts"})
    peer.release()
    return peer.answer


def results(body: bytes) -> dict[int, tuple[int, bytes]]:
    """Context identifier → result and transfer syntax of an A-ASSOCIATE-AC `[PS3.8 9.3.3.2]`."""
    found, rest = {}, body[68:]
    while rest:
        kind, length = struct.unpack_from(">BxH", rest)
        if kind == 0x21:
            number, result = rest[4], rest[6]
            found[number] = (result, rest[12 : 4 + length])
        rest = rest[4 + length :]
    return found


def test_each_proposal_is_answered_as_by_a_port_that_saw_no_other(make_scp):
    alone = [answer(make_scp().port, proposed) for proposed in PROPOSED]
    assert [results(one) for one in alone] == [
        {1: (0, EXPLICIT)},
        {3: (0, EXPLICIT)},
        {1: (0, JPEG)},
        {1: (0, JPEG)},
        {1: (4, UNKNOWN), 3: (0, IMPLICIT)},
        {1: (0, JPEG)},
        {1: (0, EXPLICIT)},
        {1: (0, EXPLICIT), 3: (0, EXPLICIT)},
    ]
    shared = make_scp().port
    for first, second in itertools.permutations(range(len(PROPOSED)), 2):
        assert answer(shared, PROPOSED[first]) == alone[first]
        assert answer(shared, PROPOSED[second]) == alone[second]


def test_associations_of_the_same_bytes_go_their_own_ways(scp, folder):
    peers = [Peer(scp.port) for _ in range(4)]

    def send(number: int) -> None:
        for count in range(10):
            peers[number].send(whole_store(b"1.2.%d.%d" % (number + 1, count), bytes([number]) * 1000))
            kind, body = peers[number].read()
            assert (kind, status(body)) == (P_DATA, 0)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(len(peers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {peer for _, peer in folder.requests} == {"RAW@127.0.0.1"}
    assert len(folder.kept) == 40
    for number, peer in enumerate(peers):
        assert folder.data_set(f"1.2.{number + 1}.9") == bytes([number]) * 1000
        peer.release()


def test_nobody_is_recognised_by_what_another_proposed(scp, folder):
    """The address and the certificate are no part of the proposal: whoever proposes is looked at each time."""
    for _ in range(3):
        assert Peer(scp.port, calling=b"STRANGER", expect=ASSOCIATE_RJ).answer[1:4] == b"\x01\x01\x03"
        assert Peer(scp.port, calling=b"BROKEN", expect=ASSOCIATE_RJ).answer[1:4] == b"\x02\x03\x01"
    assert not scp._proposals._known  # and a stranger's proposal is not remembered
    Peer(scp.port).release()
    assert len(scp._proposals._known) == 1


def test_a_second_proposal_in_an_association_ends_it_and_changes_no_other(scp):
    """Both arrive before the first is answered."""
    first = associate_rq(context(1, CT, EXPLICIT))
    second = associate_rq(context(1, CT, IMPLICIT, JPEG))
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", scp.port), timeout=60) as sock:
            sock.sendall(first + second)
            said = b""
            while chunk := sock.recv(65_536):
                said += chunk
        assert said[-10] == ABORT
    assert results(answer(scp.port, PROPOSED[0])) == {1: (0, EXPLICIT)}
    assert results(answer(scp.port, PROPOSED[2])) == {1: (0, JPEG)}


def test_so_many_and_so_long_are_remembered():
    kept = Proposals()
    pdus = [associate_rq(context(1, CT, EXPLICIT), calling=b"AE%d" % number) for number in range(40)]
    for pdu in pdus:
        kept.keep(Proposal(pdu))
        kept.read(pdus[0])
    assert len(kept._known) == proposals._MOST
    assert pdus[0] in kept._known  # asked for all the time
    assert pdus[1] not in kept._known

    many = [context(number, CT, *([EXPLICIT] * 40)) for number in range(1, 50, 2)]
    long = associate_rq(*many)
    assert len(long) > proposals._MOST_BYTES
    kept.keep(Proposal(long))
    assert long not in kept._known


def test_what_an_association_does_to_its_indication_is_its_own():
    proposal = Proposal(associate_rq(context(1, CT, EXPLICIT)))
    mine, another = proposal.to_primitive(), proposal.to_primitive()
    mine.calling_ae_title, mine.result, mine.diagnostic = "CHANGED", 0x01, 0x02
    assert (another.calling_ae_title, another.result) == ("RAW", None)
    assert proposal.to_primitive().calling_ae_title == "RAW"
