"""Whatever the bytes, the readers answer or refuse in their own words."""

import io
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.demo.ct_phantom import DOMINIQUE, slice_data_set
from gateway.dicom import translate
from gateway.dicom.command import (
    Answer,
    ProtocolError,
    StoreRequest,
    is_uid,
    iterate_pdvs,
    parse_command,
    part10_head,
    store_response,
)
from gateway.dicom.render import Window
from gateway.errors import InvalidContent

pytestmark = pytest.mark.filterwarnings("ignore")

uids = st.lists(st.integers(0, 10**9), min_size=1, max_size=6).map(lambda parts: ".".join(map(str, parts)))


@given(st.binary(max_size=200))
def test_a_command_set_is_read_or_refused(encoded):
    try:
        elements = parse_command(encoded)
    except ProtocolError:
        return
    assert sum(len(value) + 8 for value in elements.values()) <= len(encoded)


@given(st.lists(st.tuples(st.integers(1, 255), st.integers(0, 3), st.binary(max_size=50)), max_size=5))
def test_fragments_come_back_as_they_were_sent(fragments):
    body = b"".join(struct.pack(">LBB", len(data) + 2, number, header) + data for number, header, data in fragments)
    pdu = bytearray(struct.pack(">BBL", 4, 0, len(body)) + body)
    assert [(number, header, bytes(data)) for number, header, data in iterate_pdvs(pdu)] == fragments


@given(st.binary(max_size=100))
def test_any_pdu_is_read_or_refused(body):
    try:
        for _, _, fragment in iterate_pdvs(bytearray(b"\4\0\0\0\0\0" + body)):
            assert len(fragment) <= len(body)
    except ProtocolError:
        pass


@given(uids.filter(is_uid), uids.filter(is_uid), st.integers(0, 65535), st.integers(0, 65535), st.text(max_size=100))
def test_a_response_is_a_command_set_that_says_what_was_asked(sop_class, instance, message_id, status, comment):
    request = StoreRequest(1, message_id, sop_class, instance, "1.2.840.10008.1.2.1")
    [(number, header, data)] = iterate_pdvs(bytearray(store_response(request, Answer(status, comment))))
    found = parse_command(bytes(data))
    assert (number, header) == (1, 3)
    assert struct.unpack("<HH", found[0x0120] + found[0x0900]) == (message_id, status)
    assert found[0x1000].rstrip(b"\0").decode() == instance
    assert len(found.get(0x0902, b"")) <= 64
    assert struct.unpack("<L", found[0])[0] == len(data) - 12


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=150, deadline=None)
@given(st.binary(max_size=400))
def test_any_data_set_is_read_or_refused(data):
    request = StoreRequest(1, 1, "1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.840.10008.1.2.1")
    with pytest.raises(InvalidContent):
        translate.read(io.BytesIO(part10_head(request) + data))


def _bytes() -> bytes:
    out = io.BytesIO()
    ds = slice_data_set(DOMINIQUE, 0)
    del ds.PixelData
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()


SOUND = _bytes()


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(144, len(SOUND) - 1), st.integers(0, 255)), min_size=1, max_size=20))
def test_a_damaged_data_set_is_read_or_refused(damages):
    content = bytearray(SOUND)
    for position, value in damages:
        content[position] = value
    try:
        facts = translate.read(io.BytesIO(bytes(content)))
    except InvalidContent:
        return
    assert is_uid(facts.study.study_instance_uid)
    assert "\0" not in (facts.patient.family or "")


@given(st.text(max_size=40))
def test_any_window_is_read_or_refused(text):
    try:
        window = Window.parse(text)
    except InvalidContent:
        return
    assert window.width > 0
