"""Objects that say the same of their pixels: drawn as if each had been read whole, and by its own pixels."""

import io
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import RLELossless

from gateway.demo.ct_phantom import DOMINIQUE, slice_data_set
from gateway.dicom import alike
from gateway.dicom.alike import Alike
from gateway.dicom.frames import Frames
from gateway.dicom.render import render
from gateway.errors import GatewayError

FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def saved(ds: Dataset, path: Path) -> Path:
    ds.save_as(path, enforce_file_format=True)
    return path


def drawn(opened, path: Path, frame: int = 1):
    """A picture, or why there is none."""
    try:
        return render(opened(path), frame, media_type="image/png")
    except GatewayError as error:
        return type(error).__name__, error.code


@pytest.fixture
def read_whole(monkeypatch):
    """Which objects were read whole."""
    seen = []

    def opened(path, header=None):
        if header is None:
            seen.append(path)
        return Frames(path, header)

    monkeypatch.setattr(alike, "Frames", opened)
    return seen


@pytest.mark.parametrize("path", sorted(FILES.glob("*.dcm")), ids=lambda path: path.name)
def test_every_file_of_pydicom_s_is_drawn_as_one_that_was_read_whole(path):
    opened = Alike().frames
    for frame in (1, 2):
        whole = drawn(Frames, path, frame)
        assert drawn(opened, path, frame) == whole
        assert drawn(opened, path, frame) == whole  # known by now


def test_a_series_is_read_once_and_each_slice_has_its_own_pixels(tmp_path, read_whole):
    paths = [saved(slice_data_set(DOMINIQUE, number), tmp_path / f"{number}.dcm") for number in range(4)]
    made = Alike()
    headers = {id(made.frames(path).header) for path in paths}
    assert len(headers) == 1
    assert not read_whole
    pictures = [render(made.frames(path)) for path in paths]
    assert pictures == [render(path) for path in paths]
    assert len(set(pictures)) == len(paths)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("WindowCenter", "300"),
        ("RescaleIntercept", "0"),
        ("PhotometricInterpretation", "MONOCHROME1"),
        ("BitsStored", 10),
        ("PixelRepresentation", 1),
        ("Columns", 256),
        ("PixelSpacing", ["1", "0.5"]),
    ],
)
def test_what_differs_in_how_it_is_drawn_is_drawn_otherwise(tmp_path, keyword, value):
    one, other = slice_data_set(DOMINIQUE, 1), slice_data_set(DOMINIQUE, 1)
    setattr(other, keyword, value)
    if keyword == "Columns":
        other.Rows = other.Rows * one.Columns // value
    made = Alike()
    first, second = (saved(ds, tmp_path / f"{place}.dcm") for place, ds in enumerate((one, other)))
    assert drawn(made.frames, first) == drawn(Frames, first)
    assert drawn(made.frames, second) == drawn(Frames, second)
    assert made.frames(first).header != made.frames(second).header


def test_what_is_kept_of_an_object_names_nobody(tmp_path):
    ds = slice_data_set(DOMINIQUE, 1)
    held = {element.tag.group for element in Alike().frames(saved(ds, tmp_path / "one.dcm")).header}
    assert held == {0x0028}
    assert "PatientName" in ds


@pytest.mark.parametrize("undefined", [False, True])
def test_sequences_with_and_without_a_length_are_passed_over(tmp_path, read_whole, undefined):
    ds = slice_data_set(DOMINIQUE, 1)
    code, more = Dataset(), Dataset()
    code.CodeValue = "T-11170"
    code.add_new(0x00091002, "OB", b"\xfe\xff\x0d\xe0\0\0\0\0")  # bytes that look like the end of an item
    more.PurposeOfReferenceCodeSequence = Sequence([code, Dataset()])
    more.ReferencedSOPInstanceUID = "1.2.3"
    ds.ReferencedImageSequence = Sequence([more, more, Dataset()])
    ds.AnatomicRegionSequence = Sequence()
    for holder, name in ((ds, "ReferencedImageSequence"), (ds, "AnatomicRegionSequence")):
        holder[name].is_undefined_length = undefined
    more["PurposeOfReferenceCodeSequence"].is_undefined_length = undefined
    for item in (code, more):
        item.is_undefined_length_sequence_item = undefined
    path = saved(ds, tmp_path / "one.dcm")
    assert drawn(Alike().frames, path) == drawn(Frames, path)
    assert not read_whole


@pytest.mark.parametrize("what", ["implicit", "no head", "out of order", "long head", "compressed twice"])
def test_whatever_is_not_plain_is_drawn_all_the_same(tmp_path, read_whole, what):
    ds = slice_data_set(DOMINIQUE, 1)
    path = tmp_path / "one.dcm"
    if what == "implicit":
        ds.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        pydicom.dcmwrite(path, ds, implicit_vr=True, little_endian=True, enforce_file_format=True)
    elif what == "compressed twice":
        ds.compress(RLELossless)
        saved(ds, path)
    else:
        if what == "long head":
            ds.add_new(0x00091001, "OB", bytes(70_000))
        content = saved(ds, path).read_bytes()
        if what == "no head":
            path.write_bytes(b"x" * 128 + content[128:140])
        elif what == "out of order":
            place = content.index(b"\x28\0\x10\0US")
            path.write_bytes(
                content[:place] + content[place + 10 : place + 20] + content[place : place + 10] + content[place + 20 :]
            )
    whole = drawn(Frames, path)
    assert drawn(Alike().frames, path) == whole
    assert read_whole == ([] if what == "compressed twice" else [path])


def test_what_cannot_be_read_apart_is_read_whole(tmp_path, read_whole, monkeypatch):
    path = saved(slice_data_set(DOMINIQUE, 1), tmp_path / "one.dcm")
    monkeypatch.setattr(alike, "_first", lambda *_: 1 // 0)
    assert drawn(Alike().frames, path) == drawn(Frames, path)
    assert read_whole == [path]


def test_what_is_kept_is_bounded(tmp_path):
    made, ds = Alike(), slice_data_set(DOMINIQUE, 1)
    for number in range(100):
        ds.WindowCenter = str(number)
        made.frames(saved(ds, tmp_path / "one.dcm"))
    assert len(made._known) == 64


@pytest.fixture(scope="module")
def nested():
    """An object with a sequence in a sequence, none of which says its length."""
    ds = slice_data_set(DOMINIQUE, 1)
    ds.Rows = ds.Columns = 16
    ds.PixelData = bytes(512)
    inner, outer = Dataset(), Dataset()
    inner.CodeValue = "T-11170"
    outer.PurposeOfReferenceCodeSequence = Sequence([inner])
    ds.ReferencedImageSequence = Sequence([outer])
    ds["ReferencedImageSequence"].is_undefined_length = True
    outer["PurposeOfReferenceCodeSequence"].is_undefined_length = True
    inner.is_undefined_length_sequence_item = outer.is_undefined_length_sequence_item = True
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=True)
    return file.getvalue()


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_head_is_drawn_or_refused_as_it_would_be_whole(tmp_path, nested, data):
    content = bytearray(nested)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(132, len(nested) - 513))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.dcm"
    path.write_bytes(content[: data.draw(st.integers(200, len(content)))])
    made = Alike()
    found = drawn(made.frames, path)
    assert drawn(made.frames, path) == found
    if isinstance(found, bytes):
        assert found == drawn(Frames, path)
