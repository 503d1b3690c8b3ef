"""Where frames and values stand, beside pydicom's own readers of its own files; and files that lie."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import HEVCMP51, MPEG2MPML, MPEG4HP41

from gateway.dicom.layout import Layout, _in_one_window, compressed, layout, layout_at_hand, value
from gateway.errors import GatewayError, InvalidContent, NotFound

NATIVE = [
    "CT_small.dcm",
    "MR_small_implicit.dcm",
    "rtdose.dcm",
    "examples_overlay.dcm",
    "examples_rgb_color.dcm",
]
COMPRESSED = [
    "MR_small_RLE.dcm",
    "rtdose_rle.dcm",
    "JPEG2000.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "examples_jpeg2k.dcm",
    "SC_rgb_rle_2frame.dcm",
    "SC_rgb_rle_16bit_2frame.dcm",
]
#: What is not as simple: one bit a pixel, shared chrominance, other orders and deflated.
OTHERS = [
    "liver_1frame.dcm",
    "SC_ybr_full_422_uncompressed.dcm",
    "MR_small_bigendian.dcm",
    "image_dfl.dcm",
    "test-SR.dcm",
]


def bytes_of(path: Path, places) -> bytes:
    content = path.read_bytes()
    return b"".join(content[place.start : place.start + place.length] for place in places)


@pytest.mark.parametrize("name", NATIVE)
def test_native_frames_stand_where_the_pixels_do(name):
    path = Path(get_testdata_file(name))
    ds, where = dcmread(path), layout(path)
    assert where is not None
    frames = int(ds.get("NumberOfFrames") or 1)
    got = b"".join(bytes_of(path, [where.native(number)]) for number in range(1, frames + 1))
    assert where.frames == frames
    assert got == ds.PixelData[: len(got)]
    assert len(got) == ds.pixel_array.nbytes


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_frames_stand_where_pydicom_finds_them(name):
    path = Path(get_testdata_file(name))
    ds, where = dcmread(path), layout(path)
    assert where is not None
    frames = int(ds.get("NumberOfFrames") or 1)
    wanted = list(generate_frames(ds.PixelData, number_of_frames=frames))
    assert [bytes_of(path, one) for one in compressed(path, where, range(1, frames + 1))] == wanted
    assert where.decoded_bytes == ds.pixel_array.nbytes // frames
    for number in (0, frames + 1):
        with pytest.raises(NotFound):
            compressed(path, where, [number])


@pytest.mark.parametrize("name", [*NATIVE, *COMPRESSED, *OTHERS])
def test_what_is_at_hand_says_the_same_or_nothing(name):
    path = get_testdata_file(name)
    Path(path).read_bytes()
    assert layout_at_hand(path) in (None, layout(Path(path)))


def test_a_file_at_hand_is_waited_for_nowhere():
    """Whatever the file system says of it, a thread is asked after; where it says nothing, always."""
    path = get_testdata_file("CT_small.dcm")
    content = Path(path).read_bytes()
    assert _in_one_window(content[: 16 << 10], len(content)) == layout(Path(path))
    assert layout_at_hand("/nowhere/at/all") is None


@pytest.mark.parametrize("name", OTHERS)
def test_of_what_is_not_simple_nothing_is_said(name):
    assert layout(Path(get_testdata_file(name))) is None


def test_sequences_without_a_length_are_walked_over(tmp_path):
    """As half of the world's scanners write them [PS3.5 7.5.2]."""
    ds = dcmread(get_testdata_file("CT_small.dcm"))
    nested = dcmread(get_testdata_file("test-SR.dcm")).ContentSequence
    for item in nested:
        item.is_undefined_length_sequence_item = True
    ds.ContentSequence = nested
    ds["ContentSequence"].is_undefined_length = True
    ds.save_as(tmp_path / "one.dcm", enforce_file_format=True)
    where = layout(tmp_path / "one.dcm")
    assert where is not None
    assert bytes_of(tmp_path / "one.dcm", [where.native(1)]) == ds.PixelData


def test_a_value_is_where_it_is_and_as_long_as_there_is(tmp_path):
    path = Path(get_testdata_file("examples_palette.dcm"))
    ds = dcmread(path)
    place = value(path, 0x00281201)
    assert bytes_of(path, [place]) == ds[0x00281201].value
    assert value(path, 0x00100010) is None  # a name is no bytes
    assert value(path, 0x00281299) is None
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(path.read_bytes()[:-100])
    found = value(cut, 0x7FE00010)
    assert found.start + found.length == cut.stat().st_size


def test_pixels_that_are_not_there_are_named(tmp_path):
    where = layout(Path(get_testdata_file("MR_truncated.dcm")))
    with pytest.raises(InvalidContent, match="manquants"):
        where.native(1)


def test_fragments_without_end_are_not_counted_to_it(tmp_path, monkeypatch):
    from gateway.dicom import layout as module

    path = tmp_path / "many.dcm"
    path.write_bytes(b"\xfe\xff\0\xe0\0\0\0\0" * 2000)
    monkeypatch.setattr(module, "_MAX_FRAGMENTS", 1000)
    with pytest.raises(InvalidContent, match="manquants"):
        compressed(path, Layout(0, 0, 3, path.stat().st_size, 10), [1])


@pytest.mark.parametrize("frames", ["3", "25"])
@pytest.mark.parametrize("syntax", [MPEG2MPML, MPEG4HP41, HEVCMP51])
def test_a_video_is_one_stream_in_however_many_fragments(tmp_path, syntax, frames):
    ds = dcmread(get_testdata_file("JPEG2000.dcm"))
    ds.file_meta.TransferSyntaxUID, ds.NumberOfFrames = syntax, frames
    pieces = [b"moov", b"like the end of a picture\xff\xd9", b"last"]
    ds.PixelData = encapsulate(pieces, has_bot=False)
    ds["PixelData"].is_undefined_length = True
    path = tmp_path / "video.dcm"
    ds.save_as(path)
    where = layout(path)
    assert where.frames == 1
    [stream] = compressed(path, where, [1])
    assert b"".join(bytes_of(path, [place]).rstrip(b"\0") for place in stream) == b"".join(pieces)
    with pytest.raises(NotFound):
        compressed(path, where, [2])


SOURCES = [Path(get_testdata_file(name)).read_bytes()[:6000] for name in ("CT_small.dcm", "rtdose_rle.dcm")]


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_whatever_a_file_says_is_a_layout_or_a_refusal(tmp_path_factory, data):
    content = bytearray(data.draw(st.sampled_from(SOURCES)))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(128, len(content) - 8))
        content[at : at + 8] = data.draw(st.binary(min_size=8, max_size=8))
    path = tmp_path_factory.mktemp("hostile") / "one.dcm"
    path.write_bytes(content)
    where = layout(path)
    assert layout_at_hand(str(path)) in (None, where)
    if where is None:
        return
    try:
        places = [where.native(1)] if where.frame_bytes else compressed(path, where, [1])[0]
    except GatewayError:
        return
    assert all(one.start >= 0 and one.start + one.length <= len(content) for one in places)
