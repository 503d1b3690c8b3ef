"""Whatever a peer writes in a query, a retrieval or a commitment, it is answered or refused, and the port lives on."""

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import C_FIND, C_GET, C_MOVE, N_ACTION

from gateway.dicom import commitment, find
from gateway.dicom.levels import FIND, GET, MOVE, wanted
from gateway.dicom.outgoing import packed, unpacked
from gateway.dicom.scp import Scp
from gateway.dicom.services import Service
from gateway.errors import InvalidContent
from gateway.transport import Address
from tests.unit.dicom.conftest import Everyone
from tests.unit.dicom.raw_peer import EXPLICIT, IMPLICIT, Peer, command, context, element, p_data, pdv, status

FIND_UID, MOVE_UID, GET_UID = (f"1.2.840.10008.5.1.4.1.2.1.{number}" for number in (1, 2, 3))
PUSH = "1.2.840.10008.1.20.1"
#: Message → (SOP class, command field, element of the class, further elements).
MESSAGES = {
    C_FIND: (FIND_UID, 0x0020, 0x0002, ()),
    C_GET: (GET_UID, 0x0010, 0x0002, ()),
    C_MOVE: (MOVE_UID, 0x0021, 0x0002, (element(0x0600, b"LECTEUR "),)),
    N_ACTION: (PUSH, 0x0130, 0x0003, (element(0x1001, b"1.2.840.10008.1.20.1.1"), element(0x1008, b"\x01\x00"))),
}


def reading(request, _):
    """Read as the services do, without a database behind."""
    kind = type(request.message)
    if kind is N_ACTION:
        commitment._asked(request.identifier("ActionInformation"))
    elif kind is C_FIND:
        find._read(request.identifier(), request.sop_class_uid, b"\x01\x01\x01")
    else:
        wanted(request.identifier(), request.sop_class_uid)
    request.respond(0x0000)


@pytest.fixture(scope="module")
def port():
    uids = {C_FIND: frozenset(FIND), C_MOVE: frozenset(MOVE), C_GET: frozenset(GET), N_ACTION: frozenset({PUSH})}
    scp = Scp(
        bind=Address("127.0.0.1", 0),
        ae_title="RCPGATEWAY",
        peers=Everyone(),
        storage=None,
        services=[Service(found, kind, reading) for kind, found in uids.items()],
    )
    scp.start()
    yield scp
    scp.stop()


def request(kind: type, message_id: int) -> bytes:
    uid, number, of_class, more = MESSAGES[kind]
    elements = {
        of_class: element(of_class, uid.encode()),
        0x0100: element(0x0100, struct.pack("<H", number)),
        0x0110: element(0x0110, struct.pack("<H", message_id)),
        0x0800: element(0x0800, b"\x00\x00"),
    }
    elements |= {struct.unpack_from("<H", one, 2)[0]: one for one in more}
    return command(*(elements[key] for key in sorted(elements)))


TAGS = st.sampled_from(
    [
        *((0x0008, number) for number in (0x0005, 0x0018, 0x0020, 0x0052, 0x1195, 0x1199)),
        *((0x0010, number) for number in (0x0010, 0x0020)),
        *((0x0020, number) for number in (0x000D, 0x000E, 0x0011)),
        (0x0040, 0x0275),
    ]
)
VALUES = st.one_of(
    st.sampled_from(
        [b"STUDY ", b"IMAGE ", b"PATIENT ", b"SERIES", b"1.2\\3.4", b"ISO_IR 100", b"\x1b$B", b"*", b"\\" * 500]
    ),
    st.binary(max_size=40),
)
ELEMENTS = st.lists(st.tuples(TAGS, VALUES), max_size=6).map(
    lambda pairs: b"".join(
        struct.pack("<HHL", *tag, len(value) + len(value) % 2) + value + b" " * (len(value) % 2)
        for tag, value in sorted(dict(pairs).items())
    )
)


@given(
    kind=st.sampled_from(sorted(MESSAGES, key=lambda one: one.__name__)),
    data=st.one_of(ELEMENTS, st.binary(min_size=2, max_size=200)),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_identifier_is_answered_and_the_association_goes_on(port, kind, data):
    data += b"\0" * (len(data) % 2) if data else b"\x08\x00\x52\x00\x00\x00\x00\x00"
    contexts = [context(2 * place + 1, one[0].encode(), IMPLICIT) for place, one in enumerate(MESSAGES.values())]
    number = 2 * list(MESSAGES).index(kind) + 1
    peer = Peer(port.port, *contexts)
    for message_id in (1, 2):
        peer.send(p_data(pdv(number, 3, request(kind, message_id))) + p_data(pdv(number, 2, data)))
        answer = peer.read()[1]
        code = status(answer)
        assert code in {0x0000, 0xA900, 0x0115, 0x0123}, hex(code)
    peer.release()


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)


@given(st.dictionaries(st.sampled_from(["PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]), TEXT))
@settings(max_examples=60)
def test_what_a_retrieval_names_is_read_or_refused(keys):
    asked = Dataset()
    asked.QueryRetrieveLevel = "STUDY"
    for keyword, value in keys.items():
        vr = "LO" if keyword == "PatientID" else "UI"
        asked[keyword] = DataElement(keyword, vr, value, validation_mode=config.IGNORE)
    try:
        found = wanted(asked, MOVE_UID)
    except InvalidContent:
        return
    assert found.studies
    assert not found.series
    assert not found.instances


@given(st.sets(st.integers(0, 300)))
@settings(max_examples=60)
def test_positions_come_back_from_their_ranges(positions):
    assert set(unpacked(packed(positions))) == positions


def test_explicit_contexts_read_the_same(port):
    peer = Peer(port.port, context(1, FIND_UID.encode(), EXPLICIT))
    peer.send(p_data(pdv(1, 3, request(C_FIND, 1))) + p_data(pdv(1, 2, b"\x08\x00\x52\x00CS\x06\x00STUDY ")))
    assert status(peer.read()[1]) == 0x0000
    peer.release()
