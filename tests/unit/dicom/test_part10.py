"""Which object a file holds, by its first bytes; files are pydicom's own, or described byte by byte."""

import io

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    MRImageStorage,
)

from gateway.dicom.part10 import announced
from gateway.errors import InvalidContent

SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, JPEGLosslessSV1]


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    return tag.to_bytes(4, "little")[2:] + tag.to_bytes(4, "little")[:2] + vr + len(value).to_bytes(2, "little") + value


def file(data_set: bytes, syntax: str = ExplicitVRLittleEndian, sop: str = "1.2.9") -> bytes:
    said = element(0x00020002, b"UI", even(MRImageStorage)) + element(0x00020003, b"UI", even(sop))
    return bytes(128) + b"DICM" + said + element(0x00020010, b"UI", even(syntax)) + data_set


def even(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)


def written(syntax: str, **more: object) -> bytes:
    ds = Dataset()
    ds.SpecificCharacterSet, ds.ImageType, ds.InstanceCreationDate = "ISO_IR 100", ["ORIGINAL", "PRIMARY"], "20260101"
    ds.SOPClassUID, ds.SOPInstanceUID, ds.StudyDate, ds.PatientName = CTImageStorage, "1.2.3.45", "20260101", "A^B"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    for name, value in more.items():
        setattr(ds, name, value)
    made = io.BytesIO()
    ds.save_as(made, enforce_file_format=True)
    return made.getvalue().replace(b"1.2.3.45", b"1.2.3.67", 1)  # the library says the same in the head


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
def test_the_data_set_decides_which_object_it_is(syntax):
    """The head names an old one."""
    content = written(syntax)
    request, begins = announced(content, whole=True)
    assert (request.sop_class_uid, request.sop_instance_uid, request.transfer_syntax_uid) == (
        CTImageStorage, "1.2.3.45", syntax,
    )  # fmt: skip
    assert content[begins : begins + 2] == (b"\0\x08" if syntax == ExplicitVRBigEndian else b"\x08\0")


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
def test_a_sequence_before_the_uids_is_stepped_over(syntax):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "fr", "RFC5646", "français"
    item.ReferencedSOPInstanceUID = "1.2.3.99"
    content = written(syntax, LanguageCodeSequence=Sequence([item]))
    assert announced(content, whole=True)[0].sop_instance_uid == "1.2.3.45"


def test_of_a_deflated_one_the_head_is_what_is_read():
    assert announced(written(DeflatedExplicitVRLittleEndian), whole=True)[0].sop_instance_uid == "1.2.3.67"


CLASS, OWN = element(0x00080016, b"UI", even(CTImageStorage)), element(0x00080018, b"UI", b"1.2.3.45")
AFTER = element(0x00080020, b"DA", b"20260101")


@pytest.mark.parametrize(
    ("data_set", "own"),
    [
        (CLASS + OWN + AFTER, "1.2.3.45"),
        (CLASS + OWN, "1.2.3.45"),
        (element(0x00080000, b"UL", bytes(4)) + CLASS + OWN + AFTER, "1.2.3.45"),
        (CLASS + element(0x00080018, b"UI", b"1.2.3.4\0") + AFTER, "1.2.3.4"),
        (OWN + AFTER, "1.2.3.45"),
        (CLASS + AFTER, "1.2.9"),
        (AFTER, "1.2.9"),
        (CLASS + element(0x00080018, b"UI", b"") + AFTER, "1.2.9"),
        (CLASS + element(0x00080018, b"UI", b"1.2.x.45") + AFTER, "1.2.9"),
        (CLASS + element(0x00080018, b"UI", b"1.2\\1.3") + AFTER, "1.2.9"),
        (CLASS + element(0x00080018, b"UI", b"\xff.2.3.45") + AFTER, "1.2.9"),
        (CLASS + element(0x00080017, b"XX", b"??") + OWN + AFTER, "1.2.3.45"),
    ],
)
def test_what_is_no_uid_of_its_own_leaves_the_head_s(data_set, own):
    assert announced(file(data_set), whole=True)[0].sop_instance_uid == own


def test_an_object_that_is_said_in_part_waits_for_the_rest():
    content = written(ExplicitVRLittleEndian, ImageComments="x" * 10_000, EncapsulatedDocument=bytes(40_000))
    found = announced(content, whole=True)
    for end in range(0, 20_000, 7):
        part = announced(content[:end])
        assert part in (None, found)
    assert announced(content[:20_000]) == found
    with pytest.raises(InvalidContent):
        announced(content[:200], whole=True)
