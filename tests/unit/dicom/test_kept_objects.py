"""What a file is said to hold is what is kept of it, whatever its head says."""

import io
import struct
import zlib

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from gateway.demo.ct_phantom import DOMINIQUE, slice_data_set
from gateway.dicom import translate
from gateway.dicom.command import Answer, part10_head
from gateway.dicom.kept_objects import KeptObjects
from gateway.errors import InvalidContent
from gateway.rcp.access import SYSTEM


class Keeper:
    """Keeps the last object in memory, as storage writes it."""

    def open(self, request, _peer):
        self.content = io.BytesIO()
        self.content.write(part10_head(request))
        return self

    def write(self, chunk):
        self.content.write(chunk)

    def commit(self):
        self.content.seek(0)
        return Answer()


def explicit(number: int, vr: bytes, value: bytes, group: int = 2) -> bytes:
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def implicit(number: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 2, number, len(value)) + value


def data_set(ds: Dataset) -> bytes:
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True)
    whole = out.getvalue()
    return whole[144 + int.from_bytes(whole[140:144], "little") :]


def even(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def two_faced() -> io.BytesIO:
    """A file whose head is explicit to who reads it as the standard says, implicit to a reader that guesses."""
    hidden = slice_data_set(DOMINIQUE, 0)
    hidden.PatientName, hidden.PatientID, hidden.SOPInstanceUID = "AUTRE^PERSONNE", "999", "1.2.3.4"
    del hidden.PixelData
    shown = data_set(slice_data_set(DOMINIQUE, 0))
    uids = ((0x0002, even(CTImageStorage)), (0x0003, even("1.2.3.4")), (0x0010, even(ExplicitVRLittleEndian)))
    tail = b"".join(implicit(number, value) for number, value in uids) + shown
    rest = struct.pack("<HH2sHL", 0x7FE1, 0x1001, b"OB", 0, len(tail))
    inner = b"".join(explicit(number, b"UI", value) for number, value in uids) + data_set(hidden) + rest
    assert len(inner) < 1 << 16
    return io.BytesIO(b"\0" * 128 + b"DICM" + struct.pack("<HHL", 2, 1, len(inner)) + inner + tail)


@pytest.mark.filterwarnings("ignore:Expected explicit VR")
def test_a_file_with_two_faces_shows_the_one_that_would_be_kept():
    assert translate.read(two_faced()).patient.family == "PAT-TROIS"  # what a reader that guesses is shown
    keeper = Keeper()
    objects = KeptObjects(None, keeper)
    objects.lay(two_faced(), SYSTEM)
    assert translate.read(keeper.content).patient.family == "AUTRE"
    looked = objects.look(two_faced())
    assert (looked.patient.family, looked.instance.sop_instance_uid) == ("AUTRE", "1.2.3.4")


@pytest.mark.parametrize("said", [None, 0, 8])
def test_a_deflate_bomb_is_refused_whatever_length_its_head_says(monkeypatch, said):
    monkeypatch.setattr(translate, "MAX_INFLATED_BYTES", 10_000)
    head = b"" if said is None else explicit(0x0000, b"UL", struct.pack("<L", said))
    head += explicit(0x0002, b"UI", even(CTImageStorage)) + explicit(0x0003, b"UI", even("1.2.3.4"))
    head += explicit(0x0010, b"UI", even("1.2.840.10008.1.2.1.99"))
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = deflater.compress(data_set(slice_data_set(DOMINIQUE, 0))) + deflater.flush()
    with pytest.raises(InvalidContent) as refused:
        KeptObjects(None, Keeper()).look(io.BytesIO(b"\0" * 128 + b"DICM" + head + body))
    assert refused.value.code == "dicom-too-large"
