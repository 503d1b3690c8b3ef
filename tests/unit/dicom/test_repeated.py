"""What was read before changes nothing of what is read now."""

import copy
import io
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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
