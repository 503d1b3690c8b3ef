"""STOW-RS over HTTP: what a client of others lays down is there, byte for byte; what is refused says why."""

import errno
import io
import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from dicomweb_client.api import DICOMwebClient
from lxml import etree
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian
from sqlalchemy import func, select

from gateway.demo.ct_phantom import DOMINIQUE, slice_data_set
from gateway.exchange import blobs
from gateway.model.imaging import Instance, QuarantinedObject
from gateway.model.partner import Partner
from gateway.rcp.access import Caller, CallerKind
from gateway.settings import Limits
from tests.e2e.dicom.conftest import storescu
from tests.world import audit_lines

STUDY = DOMINIQUE.study_uid
DICOM = "application/dicom"


@pytest.fixture
def sender(world, web):
    """A software that may lay images down and read them."""
    made = Caller(
        kind=CallerKind.CLIENT,
        partner_id=world.partner.id,
        identifier="depot",
        wire="dicomweb",
        scopes=frozenset({"system/ImagingStudy.crs"}),
    )
    web.callers["ehr"] = made
    return made


def multipart(*parts: bytes, boundary: str = "frontiere", kind: str = DICOM) -> tuple[bytes, str]:
    body = b"".join(f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode() + part + b"\r\n" for part in parts)
    return body + f"--{boundary}--".encode(), f'multipart/related; type="{DICOM}"; boundary={boundary}'


def written(ds, **more) -> bytes:
    for keyword, value in more.items():
        setattr(ds, keyword, value)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()


def data_set(part10: bytes) -> bytes:
    """Bytes after the File Meta Information, found by its group length [PS3.10 7.1]."""
    return part10[144 + int.from_bytes(part10[140:144], "little") :]


def kept(session) -> int:
    session.rollback()
    return session.scalar(select(func.count()).select_from(Instance))


def reasons(body: bytes, tag: str = "00081198") -> list[int]:
    return [item["00081197"]["Value"][0] for item in json.loads(body).get(tag, {"Value": []})["Value"]]


def test_a_client_of_others_stores_and_has_it_back(sender, session, web, ct):
    client = DICOMwebClient(web.url, headers={"Authorization": "Bearer ehr"})
    said = client.store_instances([dcmread(path) for path in ct])
    assert len(said.ReferencedSOPSequence) == 5
    assert "FailedSOPSequence" not in said
    assert (
        said.ReferencedSOPSequence[2].RetrieveURL == f"{web.url}/studies/{STUDY}/series/{STUDY}.1/instances/{STUDY}.1.3"
    )
    assert said.RetrieveURL == f"{web.url}/studies/{STUDY}"
    assert client.retrieve_study(STUDY) == [dcmread(path) for path in ct]
    session.rollback()
    [line] = [line for line in audit_lines(session) if line["event"] == "imagerie" and line["action"] == "C"]
    assert (line["detail"], line["actor_id"]) == ({"objets": 5, "refus": 0}, "depot")


def test_the_data_set_comes_back_byte_for_byte(sender, session, web, ct):
    sent = ct[1].read_bytes()
    status, headers, body = web.post("/studies", sent, DICOM)
    assert (status, headers["content-type"]) == (200, "application/dicom+json")
    url = json.loads(body)["00081199"]["Value"][0]["00081190"]["Value"][0]
    back = web.get(url.removeprefix(web.url), accept=f"{DICOM}; transfer-syntax=*")[2]
    assert data_set(back) == data_set(sent)
    # The port keeps the very same file: it is the same object.
    assert web.post("/studies", sent, DICOM)[0] == 200
    assert kept(session) == 1


def test_what_became_of_each_is_told_in_xml_to_who_asks_so(sender, web, ct):
    body, kind = multipart(ct[0].read_bytes(), b"not an object")
    status, headers, told = web.post("/studies", body, kind, accept="application/dicom+xml")
    assert (status, headers["content-type"]) == (202, "application/dicom+xml")
    native = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"
    document = etree.fromstring(told)

    def said(tag: str) -> list[str]:
        return [one.text for one in document.iterfind(f".//{native}DicomAttribute[@tag='{tag}']/{native}Value")]

    assert (said("00081155"), said("00081197")) == ([f"{STUDY}.1.1"], [str(0xC000)])
    assert web.post("/studies", body, kind, accept="text/html")[0] == 406


def test_what_came_by_the_port_is_known_here(sender, port, session, web, ct):
    assert storescu(port.port, *ct).returncode == 0
    status, _, body = web.post("/studies", *multipart(*(path.read_bytes() for path in ct)))
    assert (status, len(json.loads(body)["00081199"]["Value"]), kept(session)) == (200, 5, 5)


def test_some_are_stored_and_the_others_have_their_reasons(sender, session, web, ct):
    good = ct[0].read_bytes()
    other = slice_data_set(DOMINIQUE, 0)
    other.StudyDescription = "D’autres octets"
    stranger = slice_data_set(
        replace(DOMINIQUE, patient_name="AUTRE^PERSONNE", birth_date=DOMINIQUE.birth_date.replace(year=1980)), 4
    )
    body, kind = multipart(good, written(other), b"not an object", good[:400], written(stranger))
    status, _, answer = web.post("/studies", body, kind)
    assert status == 202
    said = json.loads(answer)
    assert [item["00081155"]["Value"] for item in said["00081199"]["Value"]] == [[f"{STUDY}.1.1"]]
    assert [item["00081155"]["Value"] for item in said["00081198"]["Value"]] == [
        [f"{STUDY}.1.1"],
        [f"{STUDY}.1.1"],
        [f"{STUDY}.1.5"],
    ]
    # Duplicate with other bytes [PS3.7 C.5.9]; cut before its UIDs; another patient than the study's.
    assert reasons(answer) == [0x0111, 0xA900, 0xA900]
    assert reasons(answer, "0008119A") == [0xC000]
    session.rollback()
    assert kept(session) == 1
    assert session.scalar(select(func.count()).select_from(QuarantinedObject)) == 3


def test_none_stored_is_a_conflict(sender, session, web):
    status, _, answer = web.post("/studies", *multipart(b"nothing" * 100, b""))
    assert (status, reasons(answer, "0008119A")) == (409, [0xC000, 0xC000])
    assert "00081199" not in json.loads(answer)
    assert kept(session) == 0


def test_an_address_takes_its_own_study_only(sender, session, web, ct):
    other = slice_data_set(replace(DOMINIQUE, study_uid=f"{STUDY}.77"), 0)
    body, kind = multipart(ct[0].read_bytes(), written(other))
    status, _, answer = web.post(f"/studies/{STUDY}", body, kind)
    assert (status, reasons(answer)) == (202, [0xA900])
    assert web.post("/studies/1.2.3", *multipart(ct[0].read_bytes()))[0] == 409
    session.rollback()
    assert (kept(session), session.scalar(select(func.count()).select_from(QuarantinedObject))) == (1, 0)


def test_an_implicit_object_without_group_length_is_taken(sender, web):
    """Some writers leave (0002,0000) out; the elements say where the group ends."""
    ds = slice_data_set(DOMINIQUE, 0)
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    whole = written(ds)
    bare = whole[:132] + whole[144:]
    assert web.post("/studies", bare, DICOM)[0] == 200


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{}", "application/json", 415),
        (b"", 'multipart/related; type="application/dicom+json"; boundary=b', 400),
        (b"", 'multipart/related; type="text/plain"; boundary=b', 415),
        (b"x", "multipart/form-data; boundary=b", 415),
        (b"x", 'multipart/related; type="application/dicom"', 400),
        (b"x", 'multipart/related; type="application/dicom"; boundary=b', 400),
        (b"--b--", 'multipart/related; type="application/dicom"; boundary=b', 400),
        (b"--b\r\n\r\nx", 'multipart/related; type="application/dicom"; boundary=b', 400),
        (b"", "application/dicom", 409),
        (b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--", 'multipart/related; boundary="b"', 409),
    ],
)
def test_what_is_no_request_is_refused(sender, session, web, body, kind, status):
    assert web.post("/studies", body, kind)[0] == status
    assert kept(session) == 0


def test_who_may_not_store(sender, session, world, web, ct):
    web.callers["reader"] = replace(sender, scopes=frozenset({"system/ImagingStudy.rs", "system/Patient.c"}))
    web.callers["physician"] = world.caller(world.treating)
    body, kind = multipart(ct[0].read_bytes())
    assert {who: web.post("/studies", body, kind, who)[0] for who in ("reader", "physician", "nobody")} == {
        "reader": 403,
        "physician": 403,
        "nobody": 401,
    }
    assert kept(session) == 0
    refused = [line for line in audit_lines(session) if line["event"] == "refus"]
    assert [(line["reason"], line["action"]) for line in refused] == [("scope", "C")] * 2


def test_what_one_partner_stores_another_does_not_see(sender, session, world, web, ct):
    assert web.post("/studies", *multipart(ct[0].read_bytes()))[0] == 200
    rival = Partner(name="Clinique Y", patient_domains=["https://clinique-y.example/ns/ipp"])
    session.add(rival)
    session.commit()
    web.callers["rival"] = replace(sender, partner_id=rival.id)
    for path in (
        f"/studies/{STUDY}",
        f"/studies/{STUDY}/metadata",
        f"/studies/{STUDY}/series/{STUDY}.1/instances/{STUDY}.1.1",
    ):
        assert (path, web.get(path, "rival")[0]) == (path, 404)
        assert web.get(path)[0] == 200
    assert web.json("/studies", "rival") == []
    # A UID is the sender's: the same object of another organisation is another row, and shown to each.
    assert web.post("/studies", *multipart(ct[0].read_bytes()), "rival")[0] == 200
    assert (kept(session), len(web.json("/studies", "rival")), len(web.json("/studies"))) == (2, 1, 1)


def test_the_same_objects_by_two_senders_at_once_are_kept_once(sender, session, web, ct):
    body, kind = multipart(*(path.read_bytes() for path in ct), *(path.read_bytes() for path in ct))
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(web.post("/studies", body, kind)[0])) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (statuses, kept(session)) == ([200] * 3, 5)


def many(count: int, study: str = STUDY) -> list[bytes]:
    phantom = replace(DOMINIQUE, study_uid=study, slices=count, pixels=64)
    return [written(slice_data_set(phantom, index)) for index in range(count)]


def answers_of(answer: bytes) -> dict[str, list[int | None]]:
    """What is told of each UID, in the order of its sequences: None of what is stored."""
    told: dict[str, list[int | None]] = {}
    for sequence, items in json.loads(answer).items():
        if sequence in ("00081198", "00081199"):
            for item in items["Value"]:
                reason = item.get("00081197", {"Value": [None]})["Value"][0]
                told.setdefault(item["00081155"]["Value"][0], []).append(reason)
    return told


def test_in_a_group_each_has_its_own_answer(sender, session, web):
    """Objects are kept by the dozen: known ones, other bytes, another patient’s, one cut short, one twice."""
    sent = many(40)
    assert web.post("/studies", *multipart(*sent[:3], sent[20]))[0] == 200
    other, stranger = slice_data_set(replace(DOMINIQUE, slices=40, pixels=64), 12), slice_data_set(DOMINIQUE, 3)
    other.StudyDescription = "D’autres octets"
    stranger.SOPInstanceUID, stranger.PatientName, stranger.PatientBirthDate = f"{STUDY}.9.9", "AUTRE^UN", "19500101"
    body, kind = multipart(
        *sent[:13], written(other), *sent[13:25], sent[15], written(stranger), sent[30][:600], *sent[25:]
    )
    status, _, answer = web.post("/studies", body, kind)
    told = answers_of(answer)
    assert status == 202
    assert told.pop(f"{STUDY}.1.13") == [0x0111, None]
    assert told.pop(f"{STUDY}.9.9") == [0xA900]
    assert told.pop(f"{STUDY}.1.16") == [None, None]
    cut = told.pop(f"{STUDY}.1.31")
    assert (len(cut), cut[-1] is None) == (2, True)
    assert set(map(tuple, told.values())) == {(None,)}
    assert (len(told), kept(session)) == (37, 40)
    assert session.scalar(select(func.count()).select_from(QuarantinedObject)) == 3


def test_in_a_group_the_one_that_the_disk_refuses_is_not_stored_and_the_others_are(sender, session, web, monkeypatch):
    sent, refused = many(20), []
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_file() and f"{STUDY}.1.7\0".encode() in path.read_bytes():
            refused.append(path)
            raise OSError(errno.ENOSPC, "")
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(blobs.os, "fsync", failing)
        status, _, answer = web.post("/studies", *multipart(*sent))
    told = answers_of(answer)
    assert (status, len(refused), told.pop(f"{STUDY}.1.7")) == (202, 1, [0xA700])
    assert set(map(tuple, told.values())) == {(None,)}
    assert (len(told), kept(session)) == (19, 19)
    assert web.post("/studies", *multipart(*sent))[0] == 200
    assert kept(session) == 20


def test_of_a_group_nothing_is_indexed_whose_name_is_not_durable(sender, session, web, monkeypatch):
    """No folder can be synced: the files are there, no row is, and each is told to be sent again."""
    sent, fsync = many(12), os.fsync

    def failing(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir() and path.parent.name == "sha256":
            raise OSError(errno.EIO, "")
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(blobs.os, "fsync", failing)
        status, _, answer = web.post("/studies", *multipart(*sent))
    assert (status, set(map(tuple, answers_of(answer).values())), kept(session)) == (503, {(0xA700,)}, 0)
    assert web.post("/studies", *multipart(*sent))[0] == 200
    assert kept(session) == 12


@pytest.mark.parametrize("web_limits", [Limits(stow_bytes=4096)], ids=["4 KiB"])
def test_a_body_over_its_limit_is_refused_by_name_and_nothing_of_it_is_kept(web, sender, session, ct, web_limits):
    body, kind = multipart(ct[0].read_bytes())
    status, _, told = web.post("/studies", body, kind)
    said = json.loads(told)["text"]
    assert status == 413
    assert "RCP_LIMIT_STOW_BYTES" in said
    assert str(web_limits.stow_bytes) in said
    assert kept(session) == 0
