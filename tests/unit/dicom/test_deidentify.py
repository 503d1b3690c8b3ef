"""Copies without identity: what PS3.15 table E.1-1 says of attributes, typed here by hand, on files of others."""

from __future__ import annotations

import io
import shutil
import subprocess
from array import array
from pathlib import Path

import psutil
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import UID

from gateway.dicom.copier import Copier
from gateway.dicom.deidentify import CHARACTERISTICS, DATES, Copied, copied
from gateway.errors import InvalidContent
from gateway.exchange.blobs import BlobStore

SECRET = b"\x01" * 32


def file_of(ds: Dataset, folder: Path, name: str = "object.dcm") -> Path:
    path = folder / name
    ds.save_as(path, enforce_file_format=True)
    return path


def ct(**said: object) -> Dataset:
    """pydicom's CT, which a scanner made in 2004, with what a hospital writes beside."""
    ds = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    for keyword, value in said.items():
        setattr(ds, keyword, value)
    return ds


def copy(path: Path, *options: str, known: tuple[str, ...] = ()) -> tuple[Copied, Dataset]:
    made = copied(path, secret=SECRET, pseudonym="COPIE-TEST2345", options=options, known=known)
    return made, pydicom.dcmread(io.BytesIO(whole(made, path)))


def whole(made: Copied, path: Path) -> bytes:
    """The copy with its pixels, as `Copied.pixels` says it is put together."""
    start, length = made.pixels
    return made.content + path.read_bytes()[start : start + length]


# PS3.15 table E.1-1, column « Basic Prof. », read by hand: what must be gone, and what must be empty or a dummy.
GONE = (
    "StudyDescription",
    "SeriesDescription",
    "InstitutionAddress",
    "StationName",
    "OperatorsName",
    "PatientAddress",
    "OtherPatientIDsSequence",
    "OtherPatientNames",
    "PatientComments",
    "RequestingPhysician",
    "ScheduledStationAETitle",
    "ImageComments",
    "AdditionalPatientHistory",
    "PerformedStationAETitle",
    "AcquisitionComments",
    "IconImageSequence",
    "PhysiciansOfRecord",
    "PatientTelephoneNumbers",
    "IssuerOfPatientID",
    "ProtocolName",
)
EMPTY = ("PatientBirthDate", "PatientSex", "ReferringPhysicianName", "AccessionNumber", "StudyID", "StudyDate")


@pytest.mark.parametrize("nested", [False, True], ids=["at the top", "in a sequence of a sequence"])
def test_what_names_somebody_is_gone_at_every_depth(tmp_path: Path, nested: bool) -> None:
    said = Dataset()
    for keyword in GONE:
        vr = pydicom.datadict.dictionary_VR(keyword)
        value = [Dataset()] if vr == "SQ" else "Dr DURAND^Claire" if vr == "PN" else "12 rue des Lilas"
        setattr(said, keyword, value[:16] if vr in {"SH", "AE", "CS"} else value)
    for keyword, value in {
        "PatientBirthDate": "19790328",
        "PatientSex": "F",
        "ReferringPhysicianName": "LAFONT^Camille",
        "AccessionNumber": "A1",
        "StudyID": "77",
        "StudyDate": "20260301",
    }.items():
        setattr(said, keyword, value)
    ds = ct()
    if nested:
        inner = Dataset()
        inner.ReferencedImageSequence = Sequence([said])  # itself X/Z/U*
        ds.DimensionIndexSequence = Sequence([inner])  # of which the table says nothing
    else:
        ds.update(said)
    _, made = copy(file_of(ds, tmp_path))
    at = made.DimensionIndexSequence[0].ReferencedImageSequence[0] if nested else made
    assert [keyword for keyword in GONE if keyword in at and at[keyword].value not in (None, "", "ANONYME")] == []
    assert [keyword for keyword in EMPTY if at.get(keyword) not in (None, "", "19000101")] == []


def test_nothing_of_the_patient_is_in_the_bytes(tmp_path: Path) -> None:
    ds = ct(PatientName="PAT-TROIS^DOMINIQUE", PatientID="279035121518989", PatientBirthDate="19790328")
    # Where no table looks: a text of the protocol, a label, a code's meaning.
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.DerivationDescription = "recon de PAT-TROIS"
    ds.ConvolutionKernel = "STANDARD"
    ds.FilterType = "Dominique"
    ds.add_new(Tag(0x0018, 0x9424), "SH", "pat-trois")  # Acquisition Protocol Description's neighbour
    ds.private_block(0x0009, "SCANNER", create=True).add_new(0x01, "LO", "279035121518989")
    made, read = copy(file_of(ds, tmp_path), known=("PAT-TROIS",))
    for word in (b"PAT-TROIS", b"pat-trois", b"DOMINIQUE", b"Dominique", b"279035121518989", b"19790328"):
        assert word not in made.content, word
    assert not [tag for tag in list(read.keys()) if tag.is_private]
    assert read.ConvolutionKernel == "STANDARD"
    assert made.emptied >= 1
    assert (str(read.PatientName), read.PatientID) == ("COPIE-TEST2345", "COPIE-TEST2345")
    assert (read.PatientIdentityRemoved, read.LongitudinalTemporalInformationModified) == ("YES", "REMOVED")
    [method] = read.DeidentificationMethodCodeSequence
    assert (method.CodeValue, method.CodingSchemeDesignator) == ("113100", "DCM")


def test_new_uids_are_the_same_throughout_a_copy_and_other_ones_in_another(tmp_path: Path) -> None:
    first, second = ct(), ct(SOPInstanceUID="1.2.3.4.5")
    second.ReferencedImageSequence = Sequence([Dataset()])
    second.ReferencedImageSequence[0].ReferencedSOPClassUID = first.SOPClassUID
    second.ReferencedImageSequence[0].ReferencedSOPInstanceUID = first.SOPInstanceUID
    (one, a), (_, b) = (copy(file_of(ds, tmp_path, f"{n}.dcm")) for n, ds in enumerate((first, second)))
    assert a.StudyInstanceUID == b.StudyInstanceUID != first.StudyInstanceUID
    assert a.SeriesInstanceUID == b.SeriesInstanceUID
    assert b.ReferencedImageSequence[0].ReferencedSOPInstanceUID == a.SOPInstanceUID
    assert b.ReferencedImageSequence[0].ReferencedSOPClassUID == first.SOPClassUID
    assert a.FrameOfReferenceUID == b.FrameOfReferenceUID != first.FrameOfReferenceUID
    assert one.uids[str(first.SOPInstanceUID)] == a.SOPInstanceUID == a.file_meta.MediaStorageSOPInstanceUID
    assert UID(a.SOPInstanceUID).is_valid
    assert a.SOPInstanceUID.startswith("2.25.")
    other = copied(tmp_path / "0.dcm", secret=b"\x02" * 32, pseudonym="COPIE-X", options=(), known=())
    assert other.sop_instance_uid != a.SOPInstanceUID
    again = copied(tmp_path / "0.dcm", secret=SECRET, pseudonym="COPIE-TEST2345", options=(), known=())
    assert again.content == one.content


@pytest.mark.parametrize(
    "name",
    ["CT_small.dcm", "JPEG2000.dcm", "MR_small_RLE.dcm", "SC_rgb_jpeg_dcmtk.dcm", "MR_small_jpeg_ls_lossless.dcm"],
)
def test_pixels_and_their_syntax_are_untouched(tmp_path: Path, name: str) -> None:
    source = pydicom.dcmread(get_testdata_file(name))
    _, made = copy(file_of(source, tmp_path))
    assert made.PixelData == source.PixelData
    assert made.file_meta.TransferSyntaxUID == source.file_meta.TransferSyntaxUID
    for keyword in ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient", "RescaleSlope", "WindowCenter"):
        assert made.get(keyword) == source.get(keyword), keyword


def test_options_keep_what_they_say(tmp_path: Path) -> None:
    ds = ct(PatientSex="F", PatientAge="093Y", PatientWeight="61", PatientBirthDate="19790328", StudyDate="20260301")
    _, plain = copy(file_of(ds, tmp_path))
    assert not plain.PatientSex
    assert "PatientAge" not in plain
    _, kept = copy(tmp_path / "object.dcm", CHARACTERISTICS, DATES)
    assert (kept.PatientSex, kept.PatientAge, kept.PatientWeight) == ("F", "090Y", 61)
    assert kept.StudyDate == "20260301"
    assert kept.AcquisitionDate == ds.AcquisitionDate
    assert not kept.PatientBirthDate
    assert kept.LongitudinalTemporalInformationModified == "UNMODIFIED"
    codes = {one.CodeValue for one in kept.DeidentificationMethodCodeSequence}
    assert codes == {"113100", "113106", "113108"}


def test_what_the_standard_does_not_know_is_gone(tmp_path: Path) -> None:
    ds, item = ct(), Dataset()
    for level in (ds, item):
        level.add_new(0x001899FE, "UN", b"MARTIN^CLAIRE ")
        level.add_new(0x001099FE, "OB", b"MARTIN^CLAIRE ")
    ds.SourceImageSequence = [item]
    made, found = copy(file_of(ds, tmp_path), known=("MARTIN", "CLAIRE"))
    assert b"MARTIN" not in made.content
    assert 0x001899FE not in found
    assert "ImageType" in found


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")  # where nothing has silenced the library yet
def test_what_is_no_uid_is_replaced_and_not_told(tmp_path: Path) -> None:
    path = file_of(ct(FrameOfReferenceUID="1.2.345.6"), tmp_path)
    path.write_bytes(path.read_bytes().replace(b"1.2.345.6", b"1.2\x00MARTI"))
    made, found = copy(path)
    assert UID(found.FrameOfReferenceUID).is_valid
    assert all(UID(old).is_valid for old in made.uids)


def test_overlays_and_curves_are_gone(tmp_path: Path) -> None:
    ds = ct()
    for keyword, vr, value in ((0x60000010, "US", 8), (0x60020010, "US", 8), (0x60003000, "OW", b"\xff" * 8)):
        ds.add_new(keyword, vr, value)
    ds.add_new(0x50000022, "LO", "DURAND")
    _, made = copy(file_of(ds, tmp_path))
    assert [tag for tag in list(made.keys()) if tag.group in {0x5000, 0x6000}] == []


def test_burnt_in_annotation_is_told(tmp_path: Path) -> None:
    assert copy(file_of(ct(), tmp_path))[0].burned_in == "non"
    assert copy(file_of(ct(BurnedInAnnotation="YES"), tmp_path))[0].burned_in == "oui"
    assert copy(file_of(ct(RecognizableVisualFeatures="YES"), tmp_path))[0].burned_in == "oui"
    assert copy(file_of(ct(Modality="US"), tmp_path))[0].burned_in == "possible"
    capture = ct(SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    assert copy(file_of(capture, tmp_path))[0].burned_in == "possible"
    assert copy(file_of(ct(Modality="US", BurnedInAnnotation="NO"), tmp_path))[0].burned_in == "non"


@pytest.mark.parametrize("name", ["reportsi.dcm", "rtplan.dcm", "waveform_ecg.dcm"])
def test_what_is_no_image_is_not_copied(name: str) -> None:
    with pytest.raises(InvalidContent) as refusal:
        copy(Path(get_testdata_file(name)))
    assert refusal.value.code == "copy-not-an-image"


def test_dcmtk_reads_the_copy_and_finds_nobody(tmp_path: Path) -> None:
    assert shutil.which("dcmdump"), "dcmtk is needed (tests/install-servers)"
    ds = ct(PatientName="PAT-TROIS^DOMINIQUE", InstitutionName="CH EXEMPLE")
    path = file_of(ds, tmp_path)
    made, _ = copy(path, CHARACTERISTICS)
    (tmp_path / "copy.dcm").write_bytes(whole(made, path))
    said = subprocess.run(
        ["dcmdump", "+L", str(tmp_path / "copy.dcm")], check=True, capture_output=True, text=True, timeout=30
    )
    assert "E:" not in said.stderr
    assert "PAT-TROIS" not in said.stdout
    assert "CH EXEMPLE" not in said.stdout
    assert "[YES]" in next(line for line in said.stdout.splitlines() if "PatientIdentityRemoved" in line)


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",  # Explicit VR Little Endian
        "MR_small_implicit.dcm",
        "MR_small_bigendian.dcm",
        "image_dfl.dcm",  # deflated
        "MR_small_RLE.dcm",
        "JPEG2000.dcm",
        "JPEG-lossy.dcm",
        "SC_rgb_rle_2frame.dcm",
        "liver_1frame.dcm",  # bits
    ],
)
def test_pixels_follow_as_they_stand_whatever_they_are_written_as(tmp_path: Path, name: str) -> None:
    path = Path(get_testdata_file(name))
    original = pydicom.dcmread(path)
    made, read = copy(path)
    assert read.file_meta.TransferSyntaxUID == original.file_meta.TransferSyntaxUID
    assert (read.PixelData, read["PixelData"].VR) == (original.PixelData, original["PixelData"].VR)
    assert read["PixelData"].is_undefined_length == original["PixelData"].is_undefined_length
    (tmp_path / "copy.dcm").write_bytes(whole(made, path))
    said = subprocess.run(["dcmdump", "-q", tmp_path / "copy.dcm"], capture_output=True, text=True, check=True)
    assert "(7fe0,0010)" in said.stdout


@pytest.mark.parametrize(
    ("keyword", "vr", "kind"), [("FloatPixelData", "OF", "f"), ("DoubleFloatPixelData", "OD", "d")]
)
def test_floating_point_pixels_follow_too(tmp_path: Path, keyword: str, vr: str, kind: str) -> None:
    ds = ct()
    del ds.PixelData
    ds.add_new(keyword, vr, array(kind, range(ds.Rows * ds.Columns)).tobytes())
    _, read = copy(file_of(ds, tmp_path))
    assert (read[keyword].value, read[keyword].VR) == (ds[keyword].value, vr)


def test_what_stands_behind_the_pixels_stays_behind(tmp_path: Path) -> None:
    ds = ct()
    ds.add_new(Tag(0xFFFCFFFC), "OB", b"PAT-TROIS^")
    path = file_of(ds, tmp_path)
    made, read = copy(path)
    assert b"PAT-TROIS" in path.read_bytes()
    assert b"PAT-TROIS" not in whole(made, path)
    assert read.PixelData == ds.PixelData


def test_fragments_without_an_end_are_no_image(tmp_path: Path) -> None:
    path = tmp_path / "cut.dcm"
    content = Path(get_testdata_file("MR_small_RLE.dcm")).read_bytes()
    path.write_bytes(content[: content.rindex(b"\xfe\xff\xdd\xe0")])
    with pytest.raises(InvalidContent) as refused:
        copy(path)
    assert refused.value.code == "dicom-pixels"


@pytest.mark.timeout(300)
def test_an_object_of_more_than_2_gib_is_copied_in_constant_memory(tmp_path: Path) -> None:
    frames, side = 4097, 512
    ds = ct(NumberOfFrames=str(frames), Rows=side, Columns=side)
    ds.PixelData = b""
    del ds[0xFFFCFFFC]
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True)
    size = frames * side * side * 2
    head = out.getvalue()
    at = head.rindex(b"\xe0\x7f\x10\0OW\0\0\0\0\0\0")
    assert at + 12 == len(head)
    blobs = BlobStore((tmp_path / "blobs").as_uri())
    copier = Copier(blobs)
    try:
        asked = {"secret": SECRET, "pseudonym": "COPIE-TEST2345", "options": (), "known": ()}
        copier.copy(blobs.put(file_of(ct(), tmp_path).read_bytes()).sha256, **asked)  # what is made once is made
        with blobs.stage() as staged:
            staged.write(head[:-4] + size.to_bytes(4, "little"))
            piece = bytes(1 << 20)
            for _ in range(size // len(piece)):
                staged.write(piece)
            staged.write(b"\7" * (size % len(piece)))
            kept = staged.commit()
        of_both = [psutil.Process(), *psutil.Process().children()]
        before = {one.pid: one.memory_info().rss for one in of_both}
        for one in of_both:
            Path(f"/proc/{one.pid}/clear_refs").write_text("5")  # the most so far is forgotten
        found = copier.copy(kept.sha256, **asked)
        for one in of_both:
            [most] = [line for line in Path(f"/proc/{one.pid}/status").read_text().splitlines() if "VmHWM" in line]
            assert int(most.split()[1]) * 1024 - before[one.pid] < 64_000_000
        with blobs.open(found.sha256) as file:
            read = pydicom.dcmread(file, stop_before_pixels=True)
            assert (read.NumberOfFrames, str(read.PatientName)) == (frames, "COPIE-TEST2345")
            assert file.seek(0, 2) - file.seek(-1, 2) == 1
            assert file.read() == b"\7"
            assert found.size_bytes > size
    finally:
        copier.close()
        shutil.rmtree(tmp_path / "blobs")
