"""pydicom's own files and its samples of character sets, through storescu and back out of WADO-RS, bit by bit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pydicom
import pytest
from pydicom import dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian
from sqlalchemy import select

from gateway.model.imaging import Instance, QuarantinedObject
from gateway.rcp.access import Caller, CallerKind
from tests.e2e.dicom.conftest import AE_TITLE, need
from tests.unit.dicom.raw_peer import COMMAND, LAST, P_DATA, Peer, context, p_data, pdv, status, store_rq

DATA = Path(pydicom.__file__).parent / "data"
CHARACTER_SETS = sorted((DATA / "charset_files").glob("*.dcm"))
FILES = sorted((DATA / "test_files").rglob("*.dcm"))

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def data_set(path: Path) -> bytes:
    """What follows the File Meta Information, found by its own group length."""
    content = path.read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]


def whole(path: Path) -> bool:
    """Whether a sample is a composite object with the UIDs that it must have: some are damaged on purpose."""
    content = path.read_bytes()
    if content[128:136] != b"DICM\x02\x00\x00\x00":
        return False
    try:
        ds = dcmread(path)
        wanted = [ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID, ds.SOPClassUID]
        meta = ds.file_meta
        return (
            all(wanted)
            and meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
            and meta.MediaStorageSOPClassUID == ds.SOPClassUID
            and not UID(meta.TransferSyntaxUID).is_private
        )
    # Of samples that are damaged on purpose; the last is pydicom's word for what it does not read.
    except (AttributeError, ValueError, EOFError, NotImplementedError):
        return False


def get(web, ds) -> bytes:
    path = f"/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"
    found, _, body = web.get(path, "sender", "application/dicom; transfer-syntax=*")
    assert found == 200, (path, body[:200])
    return body


@pytest.fixture
def sender(world, web) -> None:
    """The hospital whose PACS sends, asking for what it sent."""
    web.callers["sender"] = Caller(
        kind=CallerKind.CLIENT,
        partner_id=world.partner.id,
        identifier="x",
        scopes=frozenset({"system/*.cruds", "system/ImagingStudy.rs"}),
    )


def test_every_character_set_comes_back_bit_by_bit_and_is_read(port, session, world, web, sender, tmp_path):
    """The samples have no UIDs of an image; they are given some, each attribute else as it is."""
    sent = {}
    for number, path in enumerate(CHARACTER_SETS, 1):
        ds = dcmread(path)
        ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
        ds.StudyInstanceUID, ds.SeriesInstanceUID = f"1.2.3.{number}", f"1.2.3.{number}.1"
        ds.SOPInstanceUID = f"1.2.3.{number}.1.1"
        if not getattr(ds, "file_meta", None) or "TransferSyntaxUID" not in ds.file_meta:
            ds.file_meta = pydicom.dataset.FileMetaDataset()
            ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = (
            ds.SOPClassUID,
            ds.SOPInstanceUID,
        )
        target = tmp_path / path.name
        ds.save_as(target, enforce_file_format=True)
        sent[path.name] = (target, dcmread(target))
    command = [need("dcmsend"), "-aet", AE_TITLE, "-aec", "RCPGATEWAY", "127.0.0.1", str(port.port)]
    files = [str(target) for target, _ in sent.values()]
    assert subprocess.run([*command, *files], timeout=60, check=False).returncode == 0
    for name, (target, ds) in sent.items():
        body = get(web, ds)
        assert body[144 + int.from_bytes(body[140:144], "little") :] == data_set(target), name
        [said] = web.json(f"/studies/{ds.StudyInstanceUID}/metadata", "sender")
        if "PatientName" in ds:
            told = said["00100010"]["Value"][0]
            groups = str(ds.PatientName).split("=")
            assert [
                told.get(kind, "") for kind in ("Alphabetic", "Ideographic", "Phonetic")[: len(groups)]
            ] == groups, name
    assert len(sent) > 10
    assert session.scalars(select(QuarantinedObject)).all() == []


def test_every_file_of_the_library_comes_back_bit_by_bit(port, session, world, web, sender):
    """Sent as raw PDUs, in the transfer syntax of each: dcmtk would convert some, and refuse to send others."""
    sent, seen = 0, set()
    for path in FILES:
        if not whole(path):
            continue
        ds = dcmread(path, stop_before_pixels=True)
        meta, content = ds.file_meta, data_set(path)
        if ds.SOPInstanceUID in seen:  # the same image in another transfer syntax: another object, as long a UID
            uid = f"{ds.SOPInstanceUID[:-3]}{100 + len(seen)}"
            content = content.replace(ds.SOPInstanceUID.encode(), uid.encode())
            ds.SOPInstanceUID = uid
        peer = Peer(
            port.port,
            context(1, str(ds.SOPClassUID).encode(), str(meta.TransferSyntaxUID).encode()),
            calling=AE_TITLE.encode(),
        )
        pieces = [content[start : start + 100_000] for start in range(0, len(content), 100_000)] or [b""]
        request = store_rq(str(ds.SOPInstanceUID).encode(), sop_class=str(ds.SOPClassUID).encode())
        peer.send(p_data(pdv(1, COMMAND | LAST, request)))
        for place, piece in enumerate(pieces):
            peer.send(p_data(pdv(1, LAST if place == len(pieces) - 1 else 0, piece)))
        kind, answer = peer.read()
        assert kind == P_DATA
        if status(answer) == 0:
            body = get(web, ds)
            assert body[144 + int.from_bytes(body[140:144], "little") :] == content, path.name
            seen.add(ds.SOPInstanceUID)
            sent += 1
        else:  # other patients under one study's UID, or no data set at all: refused, and kept aside
            assert status(answer) in (0xA900, 0xC000), (path.name, hex(status(answer)))
        peer.release()
    session.rollback()
    kept = session.scalars(select(Instance.sop_instance_uid)).all()
    assert (len(kept), sent > 50) == (sent, True)
