"""JPEG lossless: each predictor, point transform and depth against dcmtk's decoder; restarts against GDCM's too."""

import shutil
import struct
import subprocess

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array

from gateway.demo.ct_phantom import DOMINIQUE, slice_data_set
from gateway.dicom.frames import Frames
from gateway.dicom.render import render
from gateway.errors import InvalidContent
from tests.contract.dicom.test_against_dcmtk import saved
from tests.contract.dicom.test_pictures import FILES

pytestmark = pytest.mark.skipif(
    shutil.which("dcmdjpeg") is None, reason="dcmtk is not installed (make test installs it as root)"
)

SIDE = 64


def plain(values, allocated, stored):
    ds = slice_data_set(DOMINIQUE, 2)
    ds.Rows, ds.Columns = values.shape
    signed = values.dtype.kind == "i"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = allocated, stored, stored - 1, int(signed)
    ds.PixelData = values.tobytes()
    ds["PixelData"].VR = "OB" if allocated == 8 else "OW"
    return ds


def by_dcmtk(path):
    target = path.with_suffix(".plain.dcm")
    subprocess.run(["dcmdjpeg", path, target], check=True, capture_output=True)
    return pixel_array(target)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("allocated", "stored"), [(8, 7), (8, 8), (16, 9), (16, 12), (16, 15), (16, 16)])
@pytest.mark.parametrize("shift", [0, 3])
def test_each_predictor(tmp_path, allocated, stored, signed, shift):
    noise = np.random.default_rng(stored).integers(0, 1 << stored, (SIDE, SIDE))
    values = (noise - (1 << stored - 1 if signed else 0)).astype(f"{'i' if signed else 'u'}{allocated // 8}")
    source = saved(plain(values, allocated, stored), tmp_path / "plain.dcm")
    for predictor in range(1, 8):
        path = tmp_path / f"{predictor}.dcm"
        options = ("+el", "+sv", str(predictor), "+pt", str(shift))
        subprocess.run(["dcmcjpeg", *options, source, path], check=True, capture_output=True)
        decoded = Frames(path).decoded(1).values
        assert (decoded == by_dcmtk(path)).all()
        if not shift:
            assert (decoded == values).all()


@pytest.mark.parametrize("option", ["+e1", "+el"])
@pytest.mark.parametrize("name", ["SC_rgb_small_odd.dcm", "examples_rgb_color.dcm"])
def test_several_components(tmp_path, name, option):
    path = tmp_path / "colour.dcm"
    subprocess.run(["dcmcjpeg", option, FILES / name, path], check=True, capture_output=True)
    assert (Frames(path).decoded(1).values == by_dcmtk(path)).all()
    assert render(path, media_type="image/png") == render(FILES / name, media_type="image/png")


def encoded(values, *, predictor=1, precision=16, restart_rows=0, before=b"", components=1):
    """Write a frame by the letter of T.81 H.1, every category with a code of five bits."""
    rows, columns = values.shape
    head = struct.pack(">BHHB", precision, rows, columns, components)
    head += b"".join(bytes([number, 0x11, 0]) for number in range(1, components + 1))
    table = bytes([0, *([0] * 4), 17, *([0] * 11), *range(17)])
    scan = bytes([components, *(byte for number in range(1, components + 1) for byte in (number, 0)), predictor, 0, 0])
    out = b"\xff\xd8" + before
    for marker, content in ((0xC3, head), (0xC4, table), (0xDD, struct.pack(">H", restart_rows * columns))):
        if marker != 0xDD or restart_rows:
            out += struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
    out += struct.pack(">BBH", 0xFF, 0xDA, len(scan) + 2) + scan
    step = restart_rows or rows
    for number, first in enumerate(range(0, rows, step)):
        bits = "".join(_codes(values[first : first + step].astype(int), predictor, 1 << precision - 1))
        bits += "1" * (-len(bits) % 8)
        out += int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\0")
        if first + step < rows:
            out += bytes([0xFF, 0xD0 + number % 8])
    return out + b"\xff\xd9"


def _codes(values, predictor, half):
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            left = row[x - 1] if x else None
            above = values[y - 1][x] if y else None
            if left is None and above is None:
                guess = half
            elif above is None:
                guess = left
            elif left is None:
                guess = above
            else:
                corner = values[y - 1][x - 1]
                guess = (
                    *(left, above, corner, left + above - corner, left + ((above - corner) >> 1)),
                    *(above + ((left - corner) >> 1), (left + above) >> 1),
                )[predictor - 1]
            difference = (int(value) - int(guess) + 0x8000) % 0x10000 - 0x8000
            size = 16 if difference == -0x8000 else abs(difference).bit_length()
            yield f"{size:05b}"
            if 0 < size < 16:
                yield f"{difference if difference > 0 else difference + (1 << size) - 1:0{size}b}"


def compressed(path, frame, values, stored=16):
    ds = plain(values, 16, stored)
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.57"
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    return saved(ds, path)


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("restart_rows", [0, 1, 5])
def test_restarts(tmp_path, predictor, restart_rows):
    values = np.random.default_rng(predictor).integers(0, 1 << 16, (13, 21)).astype(np.uint16)
    frame = encoded(values, predictor=predictor, restart_rows=restart_rows)
    path = compressed(tmp_path / "restarts.dcm", frame, values)
    assert (by_dcmtk(path) == values).all()
    assert (pixel_array(path, decoding_plugin="gdcm") == values).all()
    assert (Frames(path).decoded(1).values == values).all()


def test_fill_bytes_and_foreign_segments_come_before_the_header(tmp_path):
    values = np.arange(12 * 20, dtype=np.uint16).reshape(12, 20) * 250
    before = b"\xff\xff\xff\xfe\0\x06abcd" + b"\xff\xe1\0\x04\xff\xc3"
    path = compressed(tmp_path / "before.dcm", encoded(values, before=before), values)
    assert (by_dcmtk(path) == values).all()
    assert (Frames(path).decoded(1).values == values).all()


@pytest.fixture
def whole(tmp_path):
    path = tmp_path / "whole.dcm"
    source = saved(slice_data_set(DOMINIQUE, 2), tmp_path / "source.dcm")
    subprocess.run(["dcmcjpeg", "+e1", source, path], check=True, capture_output=True)
    return path


def test_a_frame_that_breaks_off_is_no_picture(whole, tmp_path):
    """The decoder would draw gray what is missing."""
    frame = Frames(whole).raw(1).rstrip(b"\0")
    ds = dcmread(whole)
    for share in (0.3, 0.9, 0.99):
        ds.PixelData = encapsulate([frame[: int(len(frame) * share)]])
        path = saved(ds, tmp_path / "broken.dcm")
        assert subprocess.run(["dcmdjpeg", path, tmp_path / "none.dcm"], check=False, capture_output=True).returncode
        with pytest.raises(InvalidContent) as refusal:
            Frames(path).decoded(1)
        assert refusal.value.code == "dicom-pixels"


def test_a_frame_of_another_process_than_its_syntax_says_is_drawn(tmp_path):
    """Some label it so: the bytes decide."""
    ds = dcmread(FILES / "JPGExtended.dcm")
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.57"
    path = saved(ds, tmp_path / "mislabelled.dcm")
    assert (Frames(path).decoded(1).values == Frames(FILES / "JPGExtended.dcm").decoded(1).values).all()


@pytest.mark.parametrize("size", [(65500, 65500), (13, 22), (12, 21), (0, 21)])
def test_a_frame_of_another_size_than_the_object_says(tmp_path, size):
    values = np.zeros((13, 21), np.uint16)
    frame = encoded(values)
    at = frame.index(b"\xff\xc3") + 5
    lying = frame[:at] + struct.pack(">HH", *size) + frame[at + 4 :]
    with pytest.raises(InvalidContent) as refusal:
        Frames(compressed(tmp_path / "size.dcm", lying, values)).decoded(1)
    assert refusal.value.code == "dicom-pixels"
