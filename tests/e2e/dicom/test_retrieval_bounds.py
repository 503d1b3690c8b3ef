"""What answers hold in memory, however large what is asked for and however slowly it is read; and all bulk data."""

import io
import socket
import threading
import zlib
from contextlib import ExitStack
from email import message_from_bytes
from pathlib import Path

import psutil
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from sqlalchemy import text

from gateway.dicom import framed, held
from gateway.settings import Limits
from tests.e2e.dicom.test_dicomweb import ONE, STUDY, shown, trail  # noqa: F401 - shown is a fixture
from tests.e2e.dicom.test_retrieval import ask, kept  # noqa: F401 - kept is a fixture
from tests.loopback import wait_until

OCTETS = "application/octet-stream"


def code(body: bytes) -> str:
    return body.decode().partition('"code":"')[2].partition('"')[0]


class Watched:
    """How much more memory this process, which serves too, takes at most meanwhile."""

    def __enter__(self):
        self._process, self._done = psutil.Process(), threading.Event()
        self._before = self.most = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.most = max(self.most, self._process.memory_info().rss)

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    @property
    def more(self) -> int:
        return self.most - self._before


# ---- objects that swell


def deflated(pixels: int) -> bytes:
    """The head of pydicom's deflated object, with pixels that are so many zeros: a thousandth of them on the way."""
    source = Path(get_testdata_file("image_dfl.dcm")).read_bytes()
    meta = 144 + int.from_bytes(source[140:144], "little")
    head = zlib.decompress(source[meta:], -zlib.MAX_WBITS)
    at = head.rindex(b"\xe0\x7f\x10\0")
    packer = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    out = packer.compress(head[: at + 8] + pixels.to_bytes(4, "little")) + packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(bytes(64 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = packer.compress(bytes(pixels % (64 << 20))) + packer.flush()
    return source[:meta] + out + piece * (pixels // (64 << 20)) + rest


@pytest.mark.parametrize("place", ["/bulkdata/7FE00010", "/frames/1", "", "/bulkdata"])
def test_a_deflate_bomb_swells_nowhere_but_where_decoders_run(kept, web, blobs, session, place):  # noqa: F811
    """It came in by another way than ours, which refuses it: two gigabytes in two megabytes."""
    one = kept(get_testdata_file("image_dfl.dcm"))
    session.rollback()
    blob = blobs.path(session.scalar(text("SELECT sha256 FROM instance")))
    blob.chmod(0o600)
    blob.write_bytes(deflated(2 << 30))
    answers = []
    accept = {"": "application/dicom", "/bulkdata": f'multipart/related; type="{OCTETS}"'}.get(place, OCTETS)
    with Watched() as memory:
        asked = threading.Thread(target=lambda: answers.append(ask(web, one + place, Accept=accept)))
        asked.start()
        meanwhile = 0
        while asked.is_alive():  # others are answered
            assert ask(web, "/studies")[0] == 200
            meanwhile += 1
            asked.join(0.05)
    assert meanwhile > 1
    [(status, _, body)] = answers
    assert status in (400, 406, 422, 404), body[:300]
    assert code(body) in (
        "dicom-render-memory",
        "dicom-render-time",
        "dicom-too-large",
        "not-acceptable",
        "dicom-unreadable",
    )
    assert memory.more < 64 << 20


# ---- clients that do not read


def large(tmp_path, mebibytes: int) -> Path:
    ds = dcmread(get_testdata_file("CT_small.dcm"))
    ds.Rows = ds.Columns = 1024
    ds.NumberOfFrames = mebibytes // 2
    ds.PixelData = bytes(2 << 20) * ds.NumberOfFrames
    ds.save_as(tmp_path / "large.dcm")
    return tmp_path / "large.dcm"


def silent(web, path: str, accept: str) -> socket.socket:
    """A client that asks and takes nothing of the answer."""
    _, _, place = web.url.partition("//")
    host, _, port = place.partition("/")[0].partition(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect((host, int(port)))
    sock.sendall(
        f"GET /dicom-web{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ehr\r\nAccept: {accept}\r\n\r\n".encode()
    )
    return sock


@pytest.fixture
def brief(monkeypatch) -> None:
    monkeypatch.setattr(held, "_SECONDS", 0.3)


WAYS = [
    ("", "application/dicom; transfer-syntax=*"),
    ("/frames/1,2,3,4,5,6,7,8,9,10", "multipart/related"),
    ("/bulkdata/7FE00010", OCTETS),
]


@pytest.mark.parametrize("web_limits", [Limits(retrieval_bytes=16 << 20)], ids=["16 MiB"])
@pytest.mark.parametrize(("place", "accept"), WAYS, ids=["object", "frames", "bulk data"])
def test_clients_that_do_not_read_hold_what_is_allowed_and_no_more(brief, kept, web, tmp_path, place, accept):  # noqa: F811
    one = kept(large(tmp_path, 40))
    assert ask(web, one + place, Accept=accept)[0] == 200
    with Watched() as memory, ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(silent(web, one + place, accept))

        def refused() -> bool:
            status, _, body = ask(web, one + place, Accept=accept)
            return (status, code(body) if status == 503 else "") == (503, "dicom-retrieval-busy")

        assert wait_until(refused)
        body = ask(web, one + place, Accept=accept)[2]
        assert "RCP_LIMIT_RETRIEVAL_BYTES" in body.decode()
        # What holds nothing is answered all the same.
        assert ask(web, "/studies")[0] == 200
    assert memory.more < 64 << 20
    # Whoever waited has gone, and what he held with him.
    assert wait_until(lambda: ask(web, one + place, Accept=accept)[0] == 200)


@pytest.mark.parametrize("web_limits", [Limits(retrieval_bytes=16 << 20)], ids=["16 MiB"])
def test_converted_objects_are_on_loan(brief, kept, web, tmp_path):  # noqa: F811
    """An object that needs more than there is is refused by name; of a study it leaves as it is kept."""
    one = kept(large(tmp_path, 40))
    status, _, body = ask(web, one, Accept="application/dicom; transfer-syntax=1.2.840.10008.1.2")
    assert (status, code(body)) == (406, "not-acceptable")
    accept = 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2'
    status, _, body = ask(web, "/studies/" + one.split("/")[2], Accept=accept)
    assert (status, b"transfer-syntax=1.2.840.10008.1.2.1\r\n" in body) == (200, True)
    small = kept(get_testdata_file("MR_small_RLE.dcm"))
    for _ in range(5):  # each loan ends with its answer
        assert ask(web, small, Accept="application/dicom")[0] == 200
        assert ask(web, f"{small}/frames/1", Accept=OCTETS)[0] == 200


# ---- what is known, and who may know it


def test_a_known_frame_is_read_nowhere(kept, web, monkeypatch):  # noqa: F811
    one = kept(get_testdata_file("CT_small.dcm"))
    tag = ask(web, f"{one}/frames/1", Accept=OCTETS)[1]["etag"]

    def unread(path):
        raise AssertionError(path)

    monkeypatch.setattr(framed, "layout", unread)
    monkeypatch.setattr(framed.Framed, "_placed", unread)
    assert ask(web, f"{one}/frames/1", Accept=OCTETS, If_None_Match=tag)[0] == 304


def test_a_study_that_is_open_is_closed_with_the_right_to_it(shown, web, session):  # noqa: F811
    """Whether it was opened changes what waits for the trail and nothing of what one may see."""
    assert web.get(f"{ONE}/frames/1", "physician")[0] == 200
    assert web.get(f"{ONE}/frames/1", "physician")[0] == 200
    assert web.get(f"{ONE}/frames/1", "stranger")[0] == 404
    session.execute(text("UPDATE correspondent SET declined_at = now()"))
    session.commit()
    assert web.get(f"{ONE}/frames/1", "physician")[0] == 404


def test_every_frame_has_its_line_and_says_of_which_study(shown, web, session):  # noqa: F811
    before = len(trail(session))
    for _ in range(30):
        assert web.get(f"{ONE}/frames/1", "physician")[0] == 200
    assert wait_until(lambda: len(trail(session)) == before + 30)
    lines = trail(session)[before:]
    assert {line["detail"]["etude"] for line in lines} == {STUDY}
    assert {tuple(line["persons"]) for line in lines} == {(str(shown.record_id),)}
    assert all(line.get("happened") for line in lines[1:])


# ---- all bulk data


def parts_of(headers, body):
    whole = message_from_bytes(f"Content-Type: {headers['content-type']}\r\n\r\n".encode() + body)
    return {
        part["Content-Location"]: (part["Content-Type"], part.get_payload(decode=True)) for part in whole.get_payload()
    }


@pytest.mark.parametrize("name", ["CT_small.dcm", "examples_palette.dcm", "MR_small_implicit.dcm", "liver_1frame.dcm"])
def test_all_bulk_data_are_what_the_metadata_name(kept, web, name):  # noqa: F811
    path = Path(get_testdata_file(name))
    one, original = kept(path), dcmread(path)
    [metadata] = web.json(f"{one}/metadata")
    named = {element["BulkDataURI"]: tag for tag, element in metadata.items() if "BulkDataURI" in element}
    study, _, series, *_ = one[len("/studies/") :].split("/")
    for level in (one, f"/studies/{study}/series/{series}", f"/studies/{study}"):
        status, headers, body = ask(web, f"{level}/bulkdata", Accept=f'multipart/related; type="{OCTETS}"')
        assert status == 200
        found = parts_of(headers, body)
        assert {where: content for where, (_, content) in found.items()} == {
            where: bytes(original[int(tag, 16)].value) for where, tag in named.items()
        }
        assert ask(web, f"{level}/bulkdata", If_None_Match=headers["etag"])[0] == 304
    assert ask(web, f"/studies/{study}/bulkdata", Accept="image/png")[0] == 406
    assert ask(web, "/studies/1.2.3/bulkdata")[0] == 404


def test_compressed_bulk_data_are_a_part_a_frame(kept, web):  # noqa: F811
    path = Path(get_testdata_file("rtdose_rle.dcm"))
    one, original = kept(path), dcmread(path)
    wanted = list(generate_frames(original.PixelData, number_of_frames=15))
    for place in ("/bulkdata", "/bulkdata/7FE00010"):
        status, headers, body = ask(web, one + place, Accept='multipart/related; type="image/dicom-rle"')
        found = parts_of(headers, body)
        assert (status, list(found)) == (200, [f"{web.url}{one}/frames/{number}" for number in range(1, 16)])
        assert [content for _, content in found.values()] == wanted
        assert {kind for kind, _ in found.values()} == {"image/dicom-rle; transfer-syntax=1.2.840.10008.1.2.5"}
        status, headers, body = ask(web, one + place, Accept=f'multipart/related; type="{OCTETS}"')
        decoded = b"".join(content for _, content in parts_of(headers, body).values())
        assert (status, decoded) == (200, original.pixel_array.astype("<u4").tobytes())


def test_a_study_without_bulk_data_has_none(kept, web):  # noqa: F811
    one = kept(get_testdata_file("test-SR.dcm"))
    assert ask(web, f"{one}/bulkdata")[0] == 404


def test_bulk_data_of_a_deflated_object_and_in_sequences(kept, web, tmp_path):  # noqa: F811
    path = Path(get_testdata_file("image_dfl.dcm"))
    one, original = kept(path), dcmread(path)
    assert ask(web, f"{one}/bulkdata/7FE00010", Accept=OCTETS)[::2] == (200, original.PixelData)
    status, headers, body = ask(web, f"{one}/bulkdata", Accept="multipart/related")
    assert status == 200
    assert parts_of(headers, body)[f"{web.url}{one}/bulkdata/7FE00010"][1] == original.PixelData
    ds = dcmread(get_testdata_file("CT_small.dcm"))
    ds.SOPInstanceUID += ".9"
    nested = dcmread(get_testdata_file("CT_small.dcm"))
    item = Dataset()
    item.add_new(0x00420011, "OB", nested.PixelData)
    ds.ConceptNameCodeSequence = [item]
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    (tmp_path / "nested.dcm").write_bytes(buffer.getvalue())
    two = kept(tmp_path / "nested.dcm")
    assert ask(web, f"{two}/bulkdata/0040A043.1.00420011", Accept=OCTETS)[::2] == (200, nested.PixelData)
    assert ask(web, f"{two}/bulkdata/0040A043.2.00420011", Accept=OCTETS)[0] == 404


def test_pixels_that_metadata_name_and_an_object_lacks_are_left_out(kept, web, tmp_path):  # noqa: F811
    ds = dcmread(get_testdata_file("examples_palette.dcm"))
    del ds.PixelData
    ds.add_new(0x00420011, "OB", bytes(2000))
    ds.save_as(tmp_path / "bare.dcm")
    one = kept(tmp_path / "bare.dcm")
    status, headers, body = ask(web, f"{one}/bulkdata", Accept="multipart/related")
    assert (status, list(parts_of(headers, body))) == (200, [f"{web.url}{one}/bulkdata/00420011"])
    assert ask(web, f"{one}/bulkdata/7FE00010")[0] == 404
