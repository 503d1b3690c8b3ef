"""What was read before changes nothing of what is read now."""

import copy
import io
import struct
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gateway.demo.ct_phantom import DOMINIQUE, slice_data_set
from gateway.dicom import translate
from gateway.errors import InvalidContent

# The library says what it changes when it writes what it is given.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

# Without a pixel: small enough for a property.
PLAIN = slice_data_set(DOMINIQUE, 0)
del PLAIN.PixelData


def forget() -> None:
    translate._ENCODED.clear()
    translate._SHARED._entries.clear()
    translate._SUCCESSION._before.clear()


def read(content: bytes):
    try:
        return translate.read(io.BytesIO(content))
    except InvalidContent as refusal:
        return refusal.code


def written(ds: Dataset, syntax=ExplicitVRLittleEndian) -> bytes:
    out, made = io.BytesIO(), copy.deepcopy(ds)
    made.file_meta.TransferSyntaxUID = syntax
    made.save_as(out, enforce_file_format=True, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    return out.getvalue()


def test_every_sample_of_the_library_reads_the_same_again():
    understood = 0
    for path in sorted((Path(pydicom.__file__).parent / "data").rglob("*.dcm")):
        content = path.read_bytes()
        forget()
        first = read(content)
        assert read(content) == first
        understood += not isinstance(first, str)
    assert understood > 50


# Values that change how others are read, and others.
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "PatientName": st.sampled_from(["LEGER^Zoe", "Äneas^Rüdiger", "DUPONT"]),
        "SpecificCharacterSet": st.sampled_from(["ISO_IR 192", "ISO_IR 100"]),
        "PixelRepresentation": st.sampled_from([0, 1]),
        "StudyDescription": st.sampled_from(["THORAX", "CRÂNE", ""]),
        "TimezoneOffsetFromUTC": st.sampled_from(["+0100", "-0500", "??"]),
        "PatientBirthDate": st.sampled_from(["19790328", "garbage", ""]),
        "SmallestImagePixelValue": st.sampled_from([0, 40_000]),  # US or SS, as the pixels are
        "RequestAttributesSequence": st.sampled_from([[], [Dataset()]]),
    },
)


@given(st.lists(st.tuples(CHANGES, st.booleans(), st.sampled_from(["A", "B"])), min_size=2, max_size=4))
@settings(max_examples=60, deadline=None)
def test_objects_of_one_series_that_differ_are_read_as_if_each_came_alone(objects):
    contents = []
    for changes, implicit, creator in objects:
        made = copy.deepcopy(PLAIN)
        for keyword, value in changes.items():
            # Signed values are written as the pixels are: US here, so that the same bytes mean another number.
            made.add_new(keyword, "US", value) if keyword == "SmallestImagePixelValue" else setattr(
                made, keyword, value
            )
        made.private_block(0x0011, creator, create=True).add_new(0x01, "LO", "WORD")
        contents.append(written(made, ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian))
    alone = []
    for content in contents:
        forget()
        alone.append(read(content))
    forget()
    assert [read(content) for content in contents] == alone


SMALL = slice_data_set(replace(DOMINIQUE, pixels=8), 0)
SLICES = [written(SMALL)] + [
    path.read_bytes() for path in sorted((Path(pydicom.__file__).parent / "data").rglob("*.dcm"))
]


@given(st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None, phases=[Phase.explicit, Phase.generate])
def test_bytes_that_differ_anywhere_are_read_as_if_they_came_alone(chance):
    """Whole attributes, lengths, types and tags: the head of an object, damaged, after the object itself."""
    content = SLICES[0] if chance.random() < 0.7 else chance.choice(SLICES)
    alone, all_damaged = [], []
    for _ in range(5):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(min(len(damaged), 3000))
            damaged[place] = chance.choice(b"0159 .-+\\\0\xe9^xUI") if chance.random() < 0.7 else chance.randrange(256)
        all_damaged.append(bytes(damaged))
    for damaged in all_damaged:
        forget()
        alone.append(read(damaged))
    forget()
    read(content)
    for damaged, said in zip(all_damaged, alone, strict=True):
        assert read(damaged) == said, difference(content, damaged)


def difference(one: bytes, other: bytes) -> list[tuple[int, bytes, bytes]]:
    return [
        (place, one[place : place + 1], other[place : place + 1])
        for place in range(len(one))
        if one[place] != other[place]
    ]


def test_an_object_without_its_character_set_is_not_read_with_another_s():
    forget()
    read(SLICES[0])
    other = SLICES[0].replace(b"\x08\0\x05\0CS", b"\x06\0\x05\0CS")
    assert "–" not in read(other).study.description


NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(lambda one: f"{one:.6g}"),
    st.sampled_from(["1e3", "-0", "+5", "007", " 12 ", "1.", ".5", "", "1\\2", "1\\\\2", "nan", "inf", "1,5", "--1"]),
)


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_positions_and_numbers_of_slices_are_read_as_if_each_came_alone(slices):
    forget()
    read(SLICES[0])
    for number, x, y in slices:
        made, parts = copy.deepcopy(SMALL), []
        del made.ImagePositionPatient, made.InstanceNumber, made.SliceLocation
        for tag, vr, text in [
            (0x00200013, b"IS", number),
            (0x00200032, b"DS", f"{x}\\{y}\\0"),
            (0x00201041, b"DS", x),
        ]:
            value = text.encode() + b" " * (len(text) % 2)
            parts.append((tag, struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value))
        content = laid(written(made), parts)
        following = translate._SUCCESSION.following(content, translate.PARIS)
        before = dict(translate._SUCCESSION._before)
        forget()
        alone = read(content)
        assert following is None or following == alone
        translate._SUCCESSION._before = before


def laid(content: bytes, parts: list[tuple[int, bytes]]) -> bytes:
    """Put elements into a file at their places, as bytes."""
    for tag, element in parts:
        ds = dcmread(io.BytesIO(content))
        behind = next(one for one in sorted(ds.keys()) if one > tag)
        place = content.index(struct.pack("<HH", behind >> 16, behind & 0xFFFF) + ds.get_item(behind).VR.encode())
        content = content[:place] + element + content[place:]
    return content


def test_a_series_is_read_by_what_differs():
    forget()
    for index in range(6):
        content = written(slice_data_set(replace(DOMINIQUE, pixels=8), index))
        found = translate._SUCCESSION.following(content, translate.PARIS)
        assert (found is not None) == (index > 0)
        assert read(content).instance.number == index + 1


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientID", "000099"),
        ("StudyTime", "101010"),
        ("Rows", 4),
        ("PixelRepresentation", 1),
        ("SpecificCharacterSet", "ISO_IR 100"),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.4"),
        ("PatientSex", "M"),
        ("Modality", "MR"),
    ],
)
def test_what_a_study_a_series_or_a_picture_is_known_by_is_read_whole(keyword, value):
    forget()
    read(SLICES[0])
    made = copy.deepcopy(SMALL)
    setattr(made, keyword, value)
    assert translate._SUCCESSION.following(written(made), translate.PARIS) is None


def test_what_is_kept_in_memory_is_bounded(monkeypatch):
    forget()
    monkeypatch.setattr(translate, "_MOST_ENCODED", 100)
    monkeypatch.setattr(translate._SHARED, "_most", 3)
    for number in range(40):
        made = copy.deepcopy(PLAIN)
        made.SeriesInstanceUID = f"1.2.3.{number}"
        made.StudyDescription = str(number)
        read(written(made))
        assert len(translate._ENCODED) <= 100
        assert len(translate._SHARED._entries) <= 3


@pytest.mark.parametrize("length", [2048, 2049, 70_000])
def test_long_values_are_not_kept(length):
    forget()
    made = copy.deepcopy(PLAIN)
    made.add_new(0x00104000, "LT", "x" * length)
    content = written(made)
    facts = read(content)
    assert read(content) == facts
    assert (b"x" * length in b"".join(translate._ENCODED.values())) is (length <= 2048)
    assert (b"x" * length in facts.dicom_json) is (length <= 64 * 1024)
