"""WADO-RS over HTTP: forms, ranges, tags, bulk data; values from dcmtk's and pydicom's readers of the same files."""

import io
import subprocess
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from dicomweb_client.api import DICOMwebClient
from imagecodecs import htj2k_encode
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import ExplicitVRLittleEndian, HTJ2KLossless, JPEG2000Lossless, RLELossless

from gateway.dicom import framed, leaving
from gateway.rcp.access import Caller, CallerKind
from tests.e2e.dicom.conftest import need
from tests.e2e.dicom.test_stow import data_set, multipart

DICOM = "application/dicom"
#: pydicom's own test files: name → what each is of.
FILES = {
    "CT_small.dcm": "explicit, little endian",
    "MR_small_implicit.dcm": "implicit",
    "MR_small_bigendian.dcm": "big endian",
    "image_dfl.dcm": "deflated",
    "MR_small_RLE.dcm": "RLE",
    "JPEG2000.dcm": "JPEG 2000",
    "MR_small_jp2klossless.dcm": "JPEG 2000 lossless",
    "SC_rgb_jpeg_dcmtk.dcm": "JPEG baseline",
    "liver_1frame.dcm": "one bit a pixel",
    "rtdose_expb.dcm": "32 bits, big endian, several frames",
    "test-SR.dcm": "a report",
}


@pytest.fixture
def kept(world, web):
    """Lays files down and says where they are."""
    web.callers["ehr"] = Caller(
        kind=CallerKind.CLIENT,
        partner_id=world.partner.id,
        identifier="depot",
        scopes=frozenset({"system/ImagingStudy.crs"}),
    )

    def keep(path) -> str:
        status, _, body = web.post("/studies", Path(path).read_bytes(), DICOM)
        assert status == 200, body
        ds = dcmread(path, stop_before_pixels=True)
        return f"/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"

    return keep


def ask(web, path, **headers) -> tuple[int, dict[str, str], bytes]:
    said = {"Authorization": "Bearer ehr", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return web.asked(urllib.request.Request(web.url + path, headers=said))


@pytest.mark.parametrize("name", FILES)
def test_files_of_others_come_back_byte_for_byte(kept, web, name):
    path = get_testdata_file(name)
    one = kept(path)
    for accept in ("*/*", f'multipart/related; type="{DICOM}"; transfer-syntax=*'):
        status, headers, body = ask(web, one, Accept=accept)
        assert status == 200
        assert data_set(Path(path).read_bytes()) in body
    status, headers, body = ask(web, one, Accept=f"{DICOM}; transfer-syntax=*")
    assert (status, data_set(body)) == (200, data_set(Path(path).read_bytes()))
    assert headers["content-type"] == f"{DICOM}; transfer-syntax={dcmread(path).file_meta.TransferSyntaxUID}"


@pytest.mark.parametrize("name", FILES)
def test_an_object_is_converted_to_what_is_asked_for(kept, web, name):
    path = get_testdata_file(name)
    one, original = kept(path), dcmread(path)
    status, headers, body = ask(web, one, Accept=DICOM)  # the standard's default
    assert (status, headers["content-type"]) == (200, f"{DICOM}; transfer-syntax={ExplicitVRLittleEndian}")
    converted = dcmread(io.BytesIO(body))
    assert converted.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert converted.SOPInstanceUID == original.SOPInstanceUID
    if "PixelData" in original:
        assert (converted.pixel_array == original.pixel_array).all()
    else:
        assert converted == original


def test_dcmtk_reads_what_was_converted(kept, web, tmp_path):
    one = kept(get_testdata_file("MR_small_RLE.dcm"))
    for syntax in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", str(RLELossless)):
        (tmp_path / "one.dcm").write_bytes(ask(web, one, Accept=f"{DICOM}; transfer-syntax={syntax}")[2])
        said = subprocess.run(
            [need("dcmdump"), "-q", "+P", "TransferSyntaxUID", "+P", "Rows", str(tmp_path / "one.dcm")],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "64" in said.stdout
        read = subprocess.run(
            [need("dcm2pnm"), "+Wm", "--write-raw-pnm", str(tmp_path / "one.dcm"), str(tmp_path / "one.pnm")],
            check=False,
        )
        assert read.returncode == 0 or syntax == str(RLELossless)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_a_lossless_target_keeps_every_value(kept, web, syntax):
    path = get_testdata_file("CT_small.dcm")
    status, _, body = ask(web, kept(path), Accept=f'multipart/related; type="{DICOM}"; transfer-syntax={syntax}')
    part = body.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0]
    got = dcmread(io.BytesIO(part))
    assert (status, got.file_meta.TransferSyntaxUID) == (200, syntax)
    assert (got.pixel_array == dcmread(path).pixel_array).all()


FRAMES = [
    ("CT_small.dcm", "image/png"),
    ("CT_small.dcm", "image/jp2"),
    ("CT_small.dcm", "image/dicom-rle"),
    ("MR_small_RLE.dcm", "application/octet-stream"),
    ("MR_small_bigendian.dcm", "application/octet-stream"),
    ("JPEG2000.dcm", "application/octet-stream"),
    ("image_dfl.dcm", "application/octet-stream"),
]


@pytest.mark.parametrize(("name", "kind"), FRAMES)
def test_a_frame_is_what_the_file_shows(kept, web, name, kind):
    path = get_testdata_file(name)
    one, original = kept(path), dcmread(path)
    status, headers, body = ask(web, f"{one}/frames/1", Accept=kind)
    assert (status, headers["content-type"].split(";")[0]) == (200, kind)
    expected = original.pixel_array
    if kind == "application/octet-stream":
        assert body == expected.astype(expected.dtype.newbyteorder("<")).tobytes()
    elif kind == "image/jp2":
        decoder = get_decoder(JPEG2000Lossless)
        options = {"rows": original.Rows, "columns": original.Columns, "samples_per_pixel": 1, "number_of_frames": 1}
        options |= {"photometric_interpretation": "MONOCHROME2", "pixel_representation": 1}
        got, _ = decoder.as_array(encapsulate([body]), index=0, **options, bits_allocated=16, bits_stored=16)
        assert (got == expected).all()
    elif kind == "image/dicom-rle":
        assert int.from_bytes(body[:4], "little") == 2  # segments: two bytes a pixel [PS3.5 G.5]
    else:
        got = np.asarray(Image.open(io.BytesIO(body)))
        assert (got.astype(np.uint16) == expected.astype(np.uint16)).all()


def test_a_kept_compressed_frame_leaves_as_it_is(kept, web):
    path = get_testdata_file("SC_rgb_jpeg_dcmtk.dcm")
    one = kept(path)
    status, headers, body = ask(web, f"{one}/frames/1", Accept="image/jpeg")
    assert (status, headers["content-type"]) == (200, "image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50")
    assert body[:2] == b"\xff\xd8"
    assert body in Path(path).read_bytes()
    # JPEG of sixteen bits would be another picture: refused, not drawn.
    assert ask(web, f"{kept(get_testdata_file('CT_small.dcm'))}/frames/1", Accept="image/jpeg")[0] == 406


def test_high_throughput_jpeg_2000_is_kept_shown_and_converted(kept, web, tmp_path):
    """Compressed by OpenJPH, which the gateway does not decode with."""
    path = get_testdata_file("MR_small.dcm")
    ds, plain = dcmread(path), kept(path)
    pixels = ds.pixel_array
    ds.PixelData = encapsulate([bytes(htj2k_encode(pixels, reversible=True))])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta.TransferSyntaxUID = HTJ2KLossless
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{ds.SOPInstanceUID}.1"
    ds.save_as(tmp_path / "fast.dcm")
    one = kept(tmp_path / "fast.dcm")
    status, headers, body = ask(web, f"{one}/frames/1", Accept="image/jphc")
    assert (status, headers["content-type"]) == (200, f"image/jphc; transfer-syntax={HTJ2KLossless}")
    assert body.rstrip(b"\0") == bytes(htj2k_encode(pixels, reversible=True)).rstrip(b"\0")
    assert ask(web, f"{one}/frames/1", Accept="application/octet-stream")[2] == pixels.astype("<i2").tobytes()
    status, _, body = ask(web, one, Accept=DICOM)
    assert (status, dcmread(io.BytesIO(body)).PixelData) == (200, pixels.tobytes())
    for resource in ("rendered", "frames/1/rendered", "thumbnail"):
        shown = [ask(web, f"{at}/{resource}", Accept="image/png") for at in (one, plain)]
        assert shown[0][0] == shown[1][0] == 200
        assert shown[0][2] == shown[1][2]


def test_eight_bits_leave_as_jpeg(kept, web):
    path = get_testdata_file("image_dfl.dcm")
    status, _, body = ask(web, f"{kept(path)}/frames/1", Accept='multipart/related; type="image/jpeg"')
    picture = body.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0]
    got = np.asarray(Image.open(io.BytesIO(picture))).astype(int)
    assert status == 200
    assert abs(got - dcmread(path).pixel_array).mean() < 3


def test_one_bit_frames_begin_at_a_byte(kept, web, tmp_path):
    """Three frames of 25 bits, packed without a gap [PS3.5 8.1.1]: each leaves from a bit of its own."""
    ds = dcmread(get_testdata_file("liver_1frame.dcm"))
    frames = np.random.default_rng(7).integers(0, 2, (3, 5, 5), np.uint8)
    ds.Rows = ds.Columns = 5
    ds.NumberOfFrames = 3
    ds.PixelData = np.packbits(frames.ravel(), bitorder="little").tobytes()
    ds.save_as(tmp_path / "bits.dcm")
    one = kept(tmp_path / "bits.dcm")
    for number, frame in enumerate(frames, 1):
        status, _, body = ask(web, f"{one}/frames/{number}", Accept="application/octet-stream")
        bits = np.unpackbits(np.frombuffer(body, np.uint8), count=frame.size, bitorder="little")
        assert status == 200
        assert (bits.reshape(frame.shape) == frame).all()


def test_frames_of_several_are_numbered_from_one(kept, web):
    path = get_testdata_file("rtdose_rle.dcm")
    one, original = kept(path), dcmread(path)
    client = DICOMwebClient(web.url, headers={"Authorization": "Bearer ehr"})
    _, study, _, series, _, instance = one[1:].split("/")
    got = client.retrieve_instance_frames(study, series, instance, [15, 2, 2])
    expected = original.pixel_array.astype("<u4")
    assert [frame == expected[at].tobytes() for frame, at in zip(got, (14, 1, 1), strict=True)] == [True] * 3
    assert ask(web, f"{one}/frames/16")[0] == 404


UNACCEPTABLE = [
    ("", "text/html"),
    ("", f"{DICOM}; transfer-syntax=1.2.840.10008.1.2.4.100"),
    ("", 'multipart/related; type="application/dicom+xml"'),
    ("/frames/1", "image/jls"),
    ("/frames/1", "video/mpeg"),
    ("/frames/1", "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.5"),
    ("/metadata", "image/png"),
    ("", f"{DICOM};q=0"),
]


def test_what_nobody_offers_is_not_acceptable(kept, web):
    one = kept(get_testdata_file("CT_small.dcm"))
    answers = [(path, accept, ask(web, one + path, Accept=accept)[0]) for path, accept in UNACCEPTABLE]
    assert answers == [(path, accept, 406) for path, accept in UNACCEPTABLE]


def test_a_wish_of_another_quality_is_second(kept, web):
    one = kept(get_testdata_file("CT_small.dcm"))
    accept = "image/png;q=0.5, application/octet-stream;q=0.9, text/html"
    assert ask(web, f"{one}/frames/1", Accept=accept)[1]["content-type"] == "application/octet-stream"


@pytest.mark.parametrize("place", ["", "/frames/1", "/bulkdata/7FE00010"])
def test_a_known_answer_costs_no_bytes_and_pieces_can_be_had(kept, web, place):
    one = kept(get_testdata_file("CT_small.dcm")) + place
    accept = "application/dicom; transfer-syntax=*, application/octet-stream"
    status, headers, whole = ask(web, one, Accept=accept)
    tag = headers["etag"]
    assert (status, headers["accept-ranges"], len(whole)) == (200, "bytes", int(headers["content-length"]))
    known = ask(web, one, Accept=accept, If_None_Match=f'"other", W/{tag}')
    assert (known[0], known[2], known[1]["etag"]) == (304, b"", tag)

    for asked, start, end in (
        ("0-9", 0, 10),
        ("100-", 100, len(whole)),
        ("-7", len(whole) - 7, len(whole)),
        ("5-99999999", 5, len(whole)),
    ):
        status, headers, piece = ask(web, one, Accept=accept, Range=f"bytes={asked}")
        assert (status, piece) == (206, whole[start:end])
        assert headers["content-range"] == f"bytes {start}-{end - 1}/{len(whole)}"
    status, headers, _ = ask(web, one, Accept=accept, Range=f"bytes={len(whole)}-")
    assert (status, headers["content-range"]) == (416, f"bytes */{len(whole)}")
    for not_understood in ("bytes=9-2", "bytes=0-1,4-5", "items=0-1", "bytes=x"):
        assert ask(web, one, Accept=accept, Range=not_understood)[0] == 200
    assert ask(web, one, Accept=accept, Range="bytes=0-1", If_Range='"old"')[0] == 200
    assert ask(web, one, Accept=accept, Range="bytes=0-1", If_Range=tag)[0] == 206


def test_metadata_say_where_long_values_are(kept, web):
    path = get_testdata_file("CT_small.dcm")
    one, original = kept(path), dcmread(path)
    [metadata] = web.json(f"{one}/metadata")
    uris = {tag: element["BulkDataURI"] for tag, element in metadata.items() if "BulkDataURI" in element}
    assert uris["7FE00010"] == f"{web.url}{one}/bulkdata/7FE00010"
    assert "InlineBinary" not in metadata["7FE00010"]
    for tag, uri in uris.items():
        status, _, body = ask(web, uri.removeprefix(web.url), Accept="application/octet-stream")
        assert (status, body) == (200, bytes(original[int(tag, 16)].value))
    client = DICOMwebClient(web.url, headers={"Authorization": "Bearer ehr"})
    assert client.retrieve_bulkdata(uris["7FE00010"]) == [original.PixelData]
    assert ask(web, f"{one}/bulkdata/00091010.1.00091011")[0] == 404
    assert ask(web, f"{one}/bulkdata/nothing")[0] == 404


def test_a_search_says_the_same_address_of_bulk_data(kept, web):
    one = kept(get_testdata_file("CT_small.dcm"))
    study, _, instance = one[1:].split("/")[1::2]
    for field in ("PixelData", "all"):
        [found] = web.json(f"/studies/{study}/instances?SOPInstanceUID={instance}&includefield={field}")
        assert found["7FE00010"]["BulkDataURI"] == f"{web.url}{one}/bulkdata/7FE00010"


def test_bulk_data_in_a_part_is_never_in_memory_whole(kept, web, monkeypatch):
    path = get_testdata_file("CT_small.dcm")
    one, original = kept(path), dcmread(path)
    read, pieces = leaving._read, []

    def small(file, start, length):
        pieces.append(length)
        return read(file, start, length)

    monkeypatch.setattr(leaving, "_CHUNK_BYTES", 1000)
    monkeypatch.setattr(leaving, "AT_ONCE_BYTES", 1000)
    monkeypatch.setattr(leaving, "_read", small)
    status, headers, body = ask(web, f"{one}/bulkdata/7FE00010", Accept="multipart/related")
    assert (status, max(pieces), sum(pieces)) == (200, 1000, len(original.PixelData))
    boundary = headers["content-type"].rpartition("boundary=")[2].encode()
    head, _, rest = body.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(original.PixelData)}".encode() in head
    assert rest == original.PixelData + b"\r\n--" + boundary + b"--\r\n"


def test_pixels_that_say_more_than_there_is_are_what_there_is(kept, web, tmp_path):
    content = bytearray(Path(get_testdata_file("CT_small.dcm")).read_bytes())
    at = content.index(b"\xe0\x7f\x10\0OW") + 8
    said = int.from_bytes(content[at : at + 4], "little")
    content[at : at + 4] = (0xFFFFFFF0).to_bytes(4, "little")
    path = tmp_path / "long.dcm"
    path.write_bytes(content)
    one = kept(path)
    for accept in ("application/octet-stream", "multipart/related"):
        status, _, body = ask(web, f"{one}/bulkdata/7FE00010", Accept=accept)
        assert (status, said <= len(body) < said + 1000) == (200, True)


@pytest.mark.parametrize("name", ["rtdose_rle.dcm"])
def test_the_head_of_an_object_is_read_once_for_many_kept_frames(kept, web, monkeypatch, name):
    one, opened = kept(get_testdata_file(name)), []
    for way in ("layout", "layout_at_hand"):
        real = getattr(framed, way)
        monkeypatch.setattr(
            framed, way, lambda path, real=real: ((found := real(path)) and opened.append(path)) or found
        )
    accept = 'multipart/related; type="image/dicom-rle"'
    status, _, body = ask(web, f"{one}/frames/{','.join(str(n) for n in range(1, 16))}", Accept=accept)
    assert (status, len(opened)) == (200, 1)
    wanted = list(generate_frames(dcmread(get_testdata_file(name)).PixelData, number_of_frames=15))
    assert [piece.partition(b"\r\n\r\n")[2] for piece in body.split(b"\r\n--")[:15]] == wanted


def test_a_palette_is_a_value_of_its_own(kept, web):
    """OBXXXX1A.dcm-like palettes stand in their attribute, over a kibibyte: named, and had."""
    path = get_testdata_file("examples_palette.dcm")
    one, original = kept(path), dcmread(path)
    [metadata] = web.json(f"{one}/metadata")
    for tag in ("00281201", "00281202", "00281203"):
        value = original[int(tag, 16)].value
        if len(value) > 1024:
            status, _, body = ask(web, metadata[tag]["BulkDataURI"].removeprefix(web.url))
            assert (status, body) == (200, value)


def test_a_study_of_several_syntaxes_is_one_answer(kept, web, tmp_path):
    ds = dcmread(get_testdata_file("MR_small_RLE.dcm"))
    study = kept(get_testdata_file("MR_small_RLE.dcm")).split("/")[2]
    pixels = ds.pixel_array
    ds.decompress()  # gives it another UID
    ds.save_as(tmp_path / "plain.dcm")
    kept(tmp_path / "plain.dcm")
    status, _, body = ask(web, f"/studies/{study}", Accept=f'multipart/related; type="{DICOM}"')
    parts = body.split(b"\r\nContent-Type: ")
    assert (status, len(parts)) == (200, 3)
    client = DICOMwebClient(web.url, headers={"Authorization": "Bearer ehr"})
    got = client.retrieve_study(study, media_types=((DICOM, ExplicitVRLittleEndian),))
    assert [one.file_meta.TransferSyntaxUID for one in got] == [ExplicitVRLittleEndian] * 2
    assert all((one.pixel_array == pixels).all() for one in got)


def test_what_was_laid_down_twice_under_one_uid_stays_the_first(kept, web):
    path = get_testdata_file("CT_small.dcm")
    one = kept(path)
    content = Path(path).read_bytes()
    changed = (
        content[:-2] + bytes(reversed(content[-2:])) if content[-2:] != content[-2:][::-1] else content[:-1] + b"\1"
    )
    status, _, _ = web.post("/studies", *multipart(changed))
    assert status == 409
    assert data_set(ask(web, one, Accept=f"{DICOM}; transfer-syntax=*")[2]) == data_set(content)
