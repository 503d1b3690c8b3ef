"""Files that a person laid beside a dossier, as a hospital's software reads them over real HTTP."""

from __future__ import annotations

import functools
import hashlib
from base64 import b64decode, b64encode

import pytest
from sqlalchemy import select

from gateway.documents.attached import Bounds, judge
from gateway.fhir.attached_files import AttachedFiles
from gateway.model.person import PatientRecord
from gateway.rcp import attachments
from gateway.rcp.attachments import NewFile
from tests.attached_samples import SECRET, jpeg, pdf
from tests.e2e.fhir import samples
from tests.world import DOMAIN


@pytest.fixture
def session(store):
    with store.session() as session:
        yield session


@pytest.fixture
def dossier(world, hospital, session):
    with hospital.client() as ehr:
        assert ehr.put(f"Patient?identifier={DOMAIN}|000003", json=samples.patient("000003")).is_success
    world.session = session
    row = world.dossier(session.scalars(select(PatientRecord)).one())
    session.commit()
    return row


@pytest.fixture
def lay(hospital, world, dossier, blobs):
    """Lay a file beside the dossier, as its requester."""
    return functools.partial(_lay, hospital, world, dossier, blobs)


def _lay(hospital, world, dossier, blobs, name: str, content: bytes):
    found = judge(content, Bounds())
    new = NewFile(name=name, kind=found.kind, content=found.content)

    def verb(step):
        return [one.id for one in attachments.add(step, dossier.id, [new], blobs)]

    [key] = hospital.served.steps.run(world.caller(world.requester), verb)
    return key, found


@pytest.mark.req("S0-065")
@pytest.mark.parametrize(
    ("name", "make", "kind"), [("photo.jpg", jpeg, "image/jpeg"), ("cr.pdf", pdf, "application/pdf")]
)
def test_a_file_is_a_document_reference_with_its_very_bytes(lay, world, hospital, dossier, name, make, kind):
    key, kept = lay(name, make())
    with hospital.client() as ehr:
        found = ehr.get(f"DocumentReference?patient={dossier.record_id}").json()
        [tree] = [one["resource"] for one in found["entry"]]
        assert (tree["id"], tree["status"]) == (str(key), "current")
        assert tree["subject"]["reference"] == f"Patient/{dossier.record_id}"
        said = tree["content"][0]["attachment"]
        assert (said["contentType"], said["title"], said["size"]) == (kind, name, len(kept.content))
        assert said["hash"] == b64encode(hashlib.sha1(kept.content, usedforsecurity=False).digest()).decode()
        raw = ehr.get(said["url"], headers={"Accept": kind})
        assert (raw.status_code, raw.content, raw.headers["content-type"]) == (200, kept.content, kind)
        assert SECRET not in raw.content
        whole = ehr.get(said["url"], headers={"Accept": "application/fhir+json"}).json()
        assert b64decode(whole["data"]) == kept.content


def test_what_is_taken_back_says_so_and_its_bytes_are_gone(lay, world, hospital, dossier):
    key, _ = lay("photo.jpg", jpeg())
    caller = world.caller(world.requester)
    hospital.served.steps.run(caller, lambda step: attachments.take_back(step, dossier.id, key))
    with hospital.client() as ehr:
        assert ehr.get(f"DocumentReference/{key}").json()["status"] == "entered-in-error"
        assert ehr.get(f"Binary/{key}").status_code == 410


def test_another_hospital_finds_nothing_and_nobody_writes_over_it(lay, world, hospital, dossier, admit, session):
    key, _ = lay("photo.jpg", jpeg())
    other = type(world.partner)(name="CHU Y", network_id=world.network.id, patient_domains=["https://chu-y.example"])
    session.add(other)
    session.commit()
    with admit(other).client() as stranger:
        for path in (f"DocumentReference/{key}", f"Binary/{key}"):
            assert stranger.get(path).status_code == 404
    with admit(world.partner, scopes="system/*.cruds").client() as ehr:
        tree = ehr.get(f"DocumentReference/{key}").json()
        assert ehr.put(f"DocumentReference/{key}", json=tree | {"description": "autre"}).status_code == 403


def test_a_document_that_a_software_ties_to_a_dossier_is_found_with_its_bytes(world, dossier, admit, session, blobs):
    """In the DocumentReference itself, or in a Binary that it names, small or aside in the blob store."""
    large = jpeg() + bytes(100_000)
    with admit(world.partner, scopes="system/*.cruds").client() as ehr:
        binary = ehr.post("Binary", content=large, headers={"Content-Type": "image/jpeg"}).json()["id"]
        tree = {
            "resourceType": "DocumentReference",
            "status": "current",
            "subject": {"reference": f"Patient/{dossier.record_id}"},
            "content": [
                {"attachment": {"contentType": "image/jpeg", "title": "photo.jpg", "url": f"Binary/{binary}"}},
                {"attachment": {"contentType": "application/pdf", "data": b64encode(pdf()).decode()}},
                {"attachment": {"contentType": "application/pdf", "url": "https://ailleurs.example/cr.pdf"}},
            ],
            "context": {"related": [{"reference": f"ServiceRequest/{dossier.id}"}]},
        }
        made = ehr.post("DocumentReference", json=tree)
        assert made.status_code == 201, made.text
        beside = ehr.post("DocumentReference", json={name: said for name, said in tree.items() if name != "context"})
        assert beside.status_code == 201
    session.rollback()
    files = AttachedFiles(blobs)
    listed = files.listed(session, dossier)
    assert [(one.name, one.kind, one.by) for one in listed] == [
        ("photo.jpg", "jpeg", world.partner.name),
        ("document", "pdf", world.partner.name),
    ]
    assert [files.read(session, dossier, one.key) for one in listed] == [large, pdf()]
    assert files.read(session, dossier, f"{made.json()['id']}~2") is None
