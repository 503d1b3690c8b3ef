"""STOW-RS of metadata and bulk data apart: what dcmtk describes becomes the object that dcmtk reads; tricks do not."""

from __future__ import annotations

import copy
import json
import re
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import generate_frames

from gateway.demo.ct_phantom import DOMINIQUE, slice_data_set
from gateway.dicom import described, native_model
from gateway.settings import Limits
from tests.e2e.dicom.conftest import need
from tests.e2e.dicom.test_stow import kept, reasons, sender, written  # noqa: F401 - a fixture

JSON, XML, OCTETS = "application/dicom+json", "application/dicom+xml", "application/octet-stream"
EXPLICIT = "1.2.840.10008.1.2.1"
PIXELS = "7FE00010"

Bulk = tuple[str, str, bytes]


def request(kind: str, documents: list[bytes], *bulk: Bulk) -> tuple[bytes, str]:
    pieces = [f"--b\r\nContent-Type: {kind}\r\n\r\n".encode() + one for one in documents]
    for location, media, content in bulk:
        pieces.append(f"--b\r\nContent-Type: {media}\r\nContent-Location: {location}\r\n\r\n".encode() + content)
    return b"\r\n".join([*pieces, b"--b--\r\n"]), f'multipart/related; type="{kind}"; boundary=b'


def by_dcmtk(path: Path | str) -> dict:
    made = subprocess.run([need("dcm2json"), str(path)], capture_output=True, check=True).stdout
    return json.loads(made)


def apart(tree: dict, location: str = "pixels") -> tuple[dict, bytes]:
    """Take the pixels out of what dcmtk describes; their bytes are the file's."""
    told = copy.deepcopy(tree)
    told[PIXELS] = {"vr": told[PIXELS]["vr"], "BulkDataURI": location}
    return told, b""


def back(web, tree: dict, folder: Path) -> Path:
    """Fetch the object as it is kept, for a reader of others."""
    study, series, one = (tree[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018"))
    address = f"/studies/{study}/series/{series}/instances/{one}"
    status, _, body = web.get(address, accept="application/dicom; transfer-syntax=*")
    assert status == 200
    path = folder / "back.dcm"
    path.write_bytes(body)
    return path


def same(ours: dict, theirs: dict) -> None:
    otherwise = {"00080005"}
    assert ours.keys() - otherwise == theirs.keys() - otherwise
    for tag in ours.keys() - otherwise:
        assert (tag, ours[tag]) == (tag, theirs[tag])


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "rtdose.dcm", "examples_palette.dcm", "chrX1"])
def test_what_dcmtk_describes_in_json_is_the_object_that_it_reads_back(sender, web, tmp_path, name):  # noqa: F811
    if name == "chrX1":  # Chinese names, in UTF-8
        ds = slice_data_set(DOMINIQUE, 0)
        ds.PatientName = "Wang^XiaoDong=王^小東"
        source = tmp_path / "source.dcm"
        source.write_bytes(written(ds))
    else:
        source = Path(get_testdata_file(name))
    tree = by_dcmtk(source)
    described_so, _ = apart(tree, "urn:bulk:1")
    body, kind = request(JSON, [json.dumps([described_so]).encode()], ("urn:bulk:1", OCTETS, dcmread(source).PixelData))
    status, _, told = web.post("/studies", body, kind)
    assert (status, told) == (200, told)
    stored = back(web, tree, tmp_path)
    same(by_dcmtk(stored), tree)
    assert dcmread(stored).PixelData == dcmread(source).PixelData
    assert "ISO_IR 192" in dcmread(stored).SpecificCharacterSet


def in_xml(path: str | Path, location: str) -> bytes:
    """What dcmtk describes in XML; of its bulk data, the pixels are at a place and the others are not there."""
    made = subprocess.run(
        [need("dcm2xml"), "--native-format", "+Xn", "--convert-to-utf8", str(path)], capture_output=True, check=True
    ).stdout.decode()
    made = re.sub(r'<DicomAttribute tag="FFFCFFFC".*?</DicomAttribute>', "", made, flags=re.DOTALL)
    return re.sub(r'<BulkData uuid="[^"]*"/>', f'<BulkData uri="{location}"/>', made).encode()


def test_a_report_in_xml_has_no_bulk_data(sender, web, tmp_path):  # noqa: F811
    source = get_testdata_file("reportsi.dcm")
    document = re.sub(rb"<BulkData[^>]*/>", b"", in_xml(source, ""))
    assert web.post("/studies", *request(XML, [document]))[0] == 200
    tree = by_dcmtk(source)
    same(by_dcmtk(back(web, tree, tmp_path)), tree)


@pytest.mark.parametrize(
    ("name", "media", "syntax"),
    [
        ("examples_jpeg2k.dcm", "image/jp2", "1.2.840.10008.1.2.4.90"),
        ("SC_rgb_jpeg_dcmtk.dcm", "image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.50"),
        ("SC_rgb_rle_2frame.dcm", "image/dicom-rle", "1.2.840.10008.1.2.5"),
        ("MR_small_jpeg_ls_lossless.dcm", "image/jls", "1.2.840.10008.1.2.4.80"),
    ],
)
def test_compressed_pixels_keep_their_bytes(sender, web, tmp_path, name, media, syntax):  # noqa: F811
    source = get_testdata_file(name)
    ds = dcmread(source)
    frames = list(generate_frames(ds.PixelData, number_of_frames=int(ds.get("NumberOfFrames", 1))))
    body, kind = request(XML, [in_xml(source, "p")], *[("p", media, frame) for frame in frames])
    status, _, told = web.post("/studies", body, kind)
    assert (status, reasons(told)) == (200, [])
    tree = {
        tag: {"Value": [uid]}
        for tag, uid in (
            ("0020000D", ds.StudyInstanceUID),
            ("0020000E", ds.SeriesInstanceUID),
            ("00080018", ds.SOPInstanceUID),
        )
    }
    stored = back(web, tree, tmp_path)
    again = dcmread(stored)
    assert again.file_meta.TransferSyntaxUID == syntax
    assert list(generate_frames(again.PixelData, number_of_frames=len(frames))) == frames
    assert (again.pixel_array == ds.pixel_array).all()
    dump = subprocess.run(
        [need("dcmdump"), "+W", str(tmp_path), str(stored)], capture_output=True, text=True, check=True
    )
    assert "PixelSequence" in dump.stdout
    assert dump.stderr == ""


def test_bulk_data_of_items_and_several_objects_in_one_request(sender, session, web, tmp_path):  # noqa: F811
    source = get_testdata_file("waveform_ecg.dcm")
    tree = by_dcmtk(source)
    waveform, ct = dcmread(source).WaveformSequence[0].WaveformData, slice_data_set(DOMINIQUE, 0)
    told = copy.deepcopy(tree)
    told["54000100"]["Value"][0]["54001010"] = {"vr": "OW", "BulkDataURI": "../w"}
    other = tmp_path / "other.dcm"
    other.write_bytes(written(ct))
    second, _ = apart(by_dcmtk(other), "http://x.example/pixels")
    body, kind = request(
        JSON,
        [json.dumps([told, second]).encode()],
        ("http://x.example/pixels", OCTETS, ct.PixelData),
        ("../w", OCTETS, waveform),
    )
    status, _, answer = web.post("/studies", body, kind)
    assert (status, len(json.loads(answer)["00081199"]["Value"]), kept(session)) == (200, 2, 2)
    stored = dcmread(back(web, tree, tmp_path))
    assert stored.WaveformSequence[0].WaveformData == waveform
    assert dcmread(back(web, second, tmp_path)).PixelData == ct.PixelData


def test_a_document_is_brought_as_what_it_is(sender, session, web, tmp_path):  # noqa: F811
    """As others send a letter: dcmtk's own encapsulated PDF, its document in a part of its own media type."""
    letter = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF"  # an odd length
    (tmp_path / "letter.pdf").write_bytes(letter)
    source = tmp_path / "letter.dcm"
    subprocess.run([need("pdf2dcm"), str(tmp_path / "letter.pdf"), str(source)], check=True, capture_output=True)
    tree = by_dcmtk(source)
    told = {**tree, "00420011": {"vr": "OB", "BulkDataURI": "letter"}}
    status, _, answer = web.post(
        "/studies", *request(JSON, [json.dumps([told]).encode()], ("letter", "application/pdf", letter))
    )
    assert (status, reasons(answer), kept(session)) == (200, [], 1)
    stored = dcmread(back(web, tree, tmp_path))
    assert stored.EncapsulatedDocument == letter + b"\0" * (len(letter) % 2)
    coded, kind = request(JSON, [json.dumps([told]).encode()])
    coded = coded.replace(b"+json\r\n", b"+json\r\nContent-Transfer-Encoding: base64\r\n")
    assert web.post("/studies", coded, kind)[0] == 400


# ---- what is no object


@contextmanager
def listening() -> Iterator[tuple[int, list[bytes]]]:
    """A server that nobody may ask."""
    asked: list[bytes] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            asked.append(self.request.recv(1024))

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1], asked
    finally:
        server.shutdown()
        thread.join(60)
        server.server_close()


@pytest.fixture
def slice_tree(tmp_path) -> tuple[dict, bytes]:
    ds = slice_data_set(DOMINIQUE, 0)
    path = tmp_path / "slice.dcm"
    path.write_bytes(written(ds))
    return by_dcmtk(path), ds.PixelData


def test_an_address_is_never_followed(sender, session, web, slice_tree, tmp_path, blobs):  # noqa: F811
    tree, pixels = slice_tree
    secret = tmp_path / "secret"
    secret.write_bytes(pixels)
    with listening() as (port, asked):
        for address in (
            f"http://127.0.0.1:{port}/pixels",
            f"ftp://127.0.0.1:{port}/pixels",
            f"file://{secret}",
            str(secret),
            "../../secret",
            "",
            f"{web.url}/studies/1/series/2/instances/3/bulkdata/7FE00010",
        ):
            told, _ = apart(tree, address)
            status, _, answer = web.post("/studies", *request(JSON, [json.dumps([told]).encode()]))
            assert (address, status, reasons(answer)) == (address, 409, [0xA900])
        assert asked == []
    assert kept(session) == 0
    assert [path for path in (Path(blobs.path("0" * 64)).parents[2] / "staging").iterdir() if path.stat().st_size] == []


def spoilt(tree: dict, **elements) -> dict:
    return {**tree, **{tag[1:]: element for tag, element in elements.items()}}


NUMBERED = b'<DicomAttribute tag="00080018" vr="UI">%s</DicomAttribute>'
DEEP = {"vr": "SQ", "Value": [{}]}
for _ in range(200):
    DEEP = {"vr": "SQ", "Value": [{"00081140": DEEP}]}


@pytest.mark.parametrize(
    "element",
    [
        {"t00100020": {"vr": "LO", "Value": ["A\\B"]}},
        {"t00100020": {"vr": "LO", "Value": ["A\u001b$B"]}},
        {"t00100020": {"vr": "LO", "Value": [1]}},
        {"t00100020": {"vr": "LO", "Value": "A"}},
        {"t00100020": {"vr": "LO", "Value": ["A" * 70_000]}},
        {"t00100020": {"vr": "SH", "Value": ["A"]}},
        {"t00100020": {"vr": "XX", "Value": ["A"]}},
        {"t00100020": {"vr": ["LO"], "Value": ["A"]}},
        {"t00100020": {"Value": ["A"]}},
        {"t00100020": "A"},
        {"t00100020": {"vr": "LO", "BulkDataURI": "pixels"}},
        {"t00100020": {"vr": "LO", "InlineBinary": "QUE="}},
        {"t00100010": {"vr": "PN", "Value": ["A^B"]}},
        {"t00100010": {"vr": "PN", "Value": [{"Alphabetic": "A=B"}]}},
        {"t00280010": {"vr": "US", "Value": [65_536]}},
        {"t00280010": {"vr": "US", "Value": [1.5]}},
        {"t00280010": {"vr": "US", "Value": ["x"]}},
        {"t00280010": {"vr": "US", "Value": [True]}},
        {"t00200013": {"vr": "IS", "Value": [1.5]}},
        {"t00281053": {"vr": "DS", "Value": ["1,5"]}},
        {"t00081140": {"vr": "SQ", "Value": ["x"]}},
        {"t00081140": {"vr": "SQ", "BulkDataURI": "pixels"}},
        {"t00081140": DEEP},
        {"t0020000d": {"vr": "UI", "Value": ["1.2.3"]}},
        {"t00080018": {"vr": "UI", "Value": ["../../x"]}},
        {"t00000002": {"vr": "UI", "Value": ["1.2.3"]}},
        {"tFFFEE000": {"vr": "UN", "InlineBinary": ""}},
        {"t0008": {"vr": "UI", "Value": ["1.2.3"]}},
        {"t7FE00010": {"vr": "OW", "BulkDataURI": "pixels", "InlineBinary": "AAAA"}},
        {"t7FE00010": {"vr": "OW", "InlineBinary": "AAA"}},
        {"t7FE00010": {"vr": "OW", "BulkDataURI": ["pixels"]}},
        {"t7FE00010": {"vr": "OW", "BulkDataURI": "odd"}},
        {"t7FE00010": {"vr": "OW", "BulkDataURI": "twice"}},
        {"t7FE00010": {"vr": "OB", "BulkDataURI": "jpeg"}},
        {"t7FE00010": {"vr": "OB", "BulkDataURI": "text"}},
        {"t7FE00010": {"vr": "OB", "BulkDataURI": "strange"}},
        {"t00100020": {"vr": "OW", "BulkDataURI": "pixels"}},
    ],
    ids=lambda element: json.dumps(element)[:60] if isinstance(element, dict) else None,
)
def test_what_no_object_can_be_made_of_is_refused(sender, session, web, slice_tree, element):  # noqa: F811
    tree, pixels = slice_tree
    good, _ = apart(tree)
    bad = spoilt(good, **element)
    good["00080018"] = {"vr": "UI", "Value": [f"{DOMINIQUE.study_uid}.1.99"]}
    body, kind = request(
        JSON,
        [json.dumps([bad, good]).encode()],
        ("pixels", OCTETS, pixels),
        ("odd", OCTETS, pixels[:-1]),
        ("twice", OCTETS, pixels),
        ("twice", OCTETS, pixels),
        ("jpeg", "image/jpeg", b"\xff\xd8\xff\xd9"),
        ("jpeg", "image/jpeg", b"\xff\xd8\xff\xd9"),
        ("text", "text/plain", pixels),
        ("strange", f"image/jpeg; transfer-syntax={EXPLICIT}", pixels),
    )
    status, _, answer = web.post("/studies", body, kind)
    said = json.loads(answer)
    # The other object is stored; what was brought and is not named by anybody is told too.
    assert (status, kept(session)) == (202, 1)
    assert len(said["00081199"]["Value"]) == 1
    refused = reasons(answer) + reasons(answer, "0008119A")
    assert set(refused) <= {0xA900, 0xC000}
    named = "BulkDataURI" in json.dumps(element) and "pixels" not in json.dumps(element)
    assert len(refused) == 1 + 5 - (1 if named and "[" not in json.dumps(element["t7FE00010"]["BulkDataURI"]) else 0)


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        (JSON, b""),
        (JSON, b"null"),
        (JSON, b'{"00080018": '),
        (JSON, b"[" * 100_000),
        (JSON, b'["\xff"]'),
        (JSON, b"[1]"),
        (JSON, b"[{}]"),
        (JSON, b'[{"00080018":{"vr":"UI","Value":[{}]}}]'),
        (XML, b""),
        (XML, b"<a/>"),
        (XML, b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><NativeDicomModel>&e;</NativeDicomModel>'),
        (XML, b"<NativeDicomModel><x/></NativeDicomModel>"),
        (XML, b'<NativeDicomModel><DicomAttribute tag="x" vr="UI"/></NativeDicomModel>'),
        (XML, b"<NativeDicomModel>%s</NativeDicomModel>" % (NUMBERED % b'<Value number="9999999"/>')),
        (XML, b"<NativeDicomModel>%s</NativeDicomModel>" % (NUMBERED % (b'<Value number="1"/>' * 2))),
        (XML, b"<NativeDicomModel>" + b"<Item>" * 300 + b"</Item>" * 300 + b"</NativeDicomModel>"),
    ],
    ids=lambda one: one[:40].decode("latin-1") if isinstance(one, bytes) else one[-4:],
)
def test_metadata_that_are_none_are_refused(sender, session, web, kind, document):  # noqa: F811
    status, _, _ = web.post("/studies", *request(kind, [document], ("x", OCTETS, b"12")))
    assert status in (400, 409)
    assert kept(session) == 0


def test_a_request_without_metadata_is_refused(sender, web):  # noqa: F811
    assert web.post("/studies", *request(JSON, [], ("x", OCTETS, b"12")))[0] == 400


@pytest.mark.parametrize(
    "web_limits",
    [Limits(stow_metadata_bytes=1024), Limits(stow_metadata_values=100)],
    ids=["STOW_METADATA_BYTES", "STOW_METADATA_VALUES"],
)
@pytest.mark.parametrize("kind", [JSON, XML])
def test_too_many_metadata_are_refused_by_name_and_value(sender, session, web, slice_tree, web_limits, kind):  # noqa: F811
    told, _ = apart(slice_tree[0])
    document = json.dumps([told]).encode() if kind == JSON else native_model.written(json.dumps(told).encode())
    status, _, answer = web.post("/studies", *request(kind, [document]))
    [name] = [one for one in ("stow_metadata_bytes", "stow_metadata_values") if getattr(web_limits, one) < 2000]
    said = json.loads(answer)["text"]
    assert (status, Limits.variable(name) in said, str(getattr(web_limits, name)) in said) == (413, True, True)
    assert kept(session) == 0


@pytest.mark.parametrize("web_limits", [Limits(stow_bytes=80_000)], ids=["80 kB"])
def test_a_part_that_every_object_names_is_no_way_to_fill_the_disk(sender, session, web, slice_tree, web_limits):  # noqa: F811
    """What comes out of a request weighs no more than what may go in: few bytes sent are not many kept."""
    tree, pixels = slice_tree
    many = []
    for number in range(4):
        told, _ = apart(tree, "p")
        told["00080018"] = {"vr": "UI", "Value": [f"{DOMINIQUE.study_uid}.9.{number}"]}
        many.append(told)
    body, kind = request(JSON, [json.dumps(many).encode()], ("p", OCTETS, pixels))
    assert len(body) < web_limits.stow_bytes < 4 * len(pixels)
    status, _, answer = web.post("/studies", body, kind)
    fitting = web_limits.stow_bytes // len(pixels)
    refused = json.loads(answer)["00081198"]["Value"]
    assert (status, kept(session), len(refused)) == (202, fitting, 4 - fitting)


def test_a_list_of_more_objects_than_parts_are_taken_is_refused_by_name(sender, session, web, monkeypatch):  # noqa: F811
    monkeypatch.setattr(described, "MAX_PARTS", 3)
    status, _, answer = web.post("/studies", *request(JSON, [b"[{},{}]", b"[{},{}]"]))
    assert (status, json.loads(answer)["text"]) == (400, "Demande de plus de 3 objets.")
    assert kept(session) == 0


def test_an_address_takes_its_own_study_only(sender, session, web, slice_tree):  # noqa: F811
    told, _ = apart(slice_tree[0])
    body, kind = request(JSON, [json.dumps([told]).encode()], ("pixels", OCTETS, slice_tree[1]))
    status, _, answer = web.post("/studies/1.2.3", body, kind)
    assert (status, reasons(answer), kept(session)) == (409, [0xA900], 0)
    assert web.post(f"/studies/{DOMINIQUE.study_uid}", body, kind)[0] == 200
    # The same description again is the same object.
    assert (web.post("/studies", body, kind)[0], kept(session)) == (200, 1)
