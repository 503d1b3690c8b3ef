"""A care plan (PPS) over FHIR: its document and its bytes as they were kept, who reads them, and what replaces them."""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import httpx
import pytest
from fhir.resources.R4B import get_fhir_model_class
from lxml import etree
from sqlalchemy import select

from gateway.documents import pps as pps_document
from gateway.exchange.blobs import BlobStore
from gateway.fhir import validate
from gateway.model.audit import AuditLine
from gateway.model.directory import PracticeRole
from gateway.model.partner import Partner
from gateway.model.plan import CarePlan
from gateway.model.store import Store
from gateway.rcp import pps, report, sessions
from gateway.rcp.report_draft import DraftTreatment, ReportDraft
from gateway.rcp.step import Step
from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import ALL_SCOPES, Hospital, Served
from tests.report_samples import press
from tests.world import World

TYPE = "http://loinc.org|18776-5"
FORMAT = "urn:asip:ci-sis:pps-cancer:2017"
NOS = "https://mos.esante.gouv.fr/NOS"
CDA = {"c": "urn:hl7-org:v3"}
SAID = ReportDraft(
    proposal="Chimiothérapie néoadjuvante, puis chirurgie.",
    treatments=(DraftTreatment(code="C15632", text="6 cycles", start="2026-04"),),
)


@pytest.fixture
def ehr(world: World, admit: Callable[..., Hospital]) -> Iterator[httpx.Client]:
    with admit(world.partner, scopes=ALL_SCOPES).client() as client:
        yield client


@pytest.fixture
def stranger(store: Store, admit: Callable[..., Hospital]) -> Iterator[httpx.Client]:
    """Software of a hospital that neither inscribed the patient nor runs the RCP."""
    with store.session() as session:
        partner = Partner(name="CHU Z d’essai", finess="690000013", patient_domains=["https://chu-z.example/ns/ipp"])
        session.add(partner)
        session.commit()
    with admit(partner, scopes=ALL_SCOPES).client() as client:
        yield client


@pytest.fixture
def dossier(served: Served, world: World, ehr: httpx.Client, blobs: BlobStore) -> uuid.UUID:
    """An inscription whose report is validated."""
    role = {"organisation_id": world.organisation.id, "source": "essai", "as_of": date(2026, 3, 1)}
    world.session.add(PracticeRole(practitioner_id=world.requester.id, **role))
    world.session.commit()
    pushed = ehr.post(
        "",
        json=samples.transaction(
            rcp=world.rcp.national_number,
            start="2026-03-19T14:00:00+01:00",
            requester=world.requester.idnps,
            treating=world.treating.rpps,
        ),
    )
    assert pushed.status_code == 200, pushed.text
    where = [entry["response"]["location"] for entry in pushed.json()["entry"]]
    key = uuid.UUID(next(one.split("/")[1] for one in where if one.startswith("ServiceRequest/")))
    person = world.caller(world.coordinator)
    served.steps.run(person, lambda step: sessions.open_session(step, world.meeting.id))
    served.steps.run(person, lambda step: report.draft(step, key, SAID).id)
    served.steps.run(person, lambda step: report.validate(step, key, press(blobs)).id)
    return key


@pytest.fixture
def plan(served: Served, world: World, blobs: BlobStore, dossier: uuid.UUID) -> Callable[..., str]:
    """Write and validate a version of the plan; its id."""

    def made(**changes: Any) -> str:
        caller = world.caller(world.requester)
        served.steps.run(caller, lambda step: pps.write(step, dossier, changes).id)
        return str(served.steps.run(caller, lambda step: pps.validate(step, dossier, pps_document.render, blobs).id))

    return made


def _kept(store: Store, blobs: BlobStore, key: str) -> bytes:
    """The document that the portal gives."""
    with store.session() as session:
        sha256 = session.get_one(CarePlan, uuid.UUID(key)).sha256
    assert sha256 is not None
    return blobs.read(sha256)


def _found(client: httpx.Client, kind: str, **asked: str) -> list[str]:
    answer = client.get(kind, params=asked)
    assert answer.status_code == 200, answer.text
    return [entry["resource"]["id"] for entry in answer.json().get("entry", ())]


def _number(cda: bytes) -> str:
    [root] = etree.fromstring(cda).xpath("c:id/@root", namespaces=CDA)
    return f"urn:oid:{root}"


def test_the_document_says_what_it_is_and_its_binary_is_the_kept_cda(
    store: Store, blobs: BlobStore, world: World, ehr: httpx.Client, plan: Callable[..., str], dossier: uuid.UUID
) -> None:
    key = plan(remis="2026-03-20")
    kept = _kept(store, blobs, key)
    assert etree.fromstring(kept).xpath("c:code/@code", namespaces=CDA) == ["18776-5"]
    document = ehr.get(f"DocumentReference/{key}").json()
    assert document["status"] == "current"
    assert [(one["system"], one["code"]) for one in document["type"]["coding"]] == [("http://loinc.org", "18776-5")]
    [category] = [one["coding"][0] for one in document["category"]]
    assert (category["system"], category["code"], category["display"]) == (
        f"{NOS}/TRE_A03-ClasseDocument/FHIR/TRE-A03-ClasseDocument",
        "44",
        "Plan de soins, protocole de soins",
    )
    [content] = document["content"]
    assert (content["format"]["system"], content["format"]["code"]) == (
        f"{NOS}/TRE_A06-FormatCodeComplementaire/FHIR/TRE-A06-FormatCodeComplementaire",
        FORMAT,
    )
    # The identity of the document is the one that stands in it.
    assert document["masterIdentifier"] == {"system": "urn:ietf:rfc:3986", "value": _number(kept)}
    assert [one["reference"] for one in document["author"]] == [f"Practitioner/{world.requester.id}"]
    assert document["context"]["encounter"][0]["reference"] == f"Encounter/{dossier}"
    [followed] = _found(ehr, "DocumentReference", type="http://loinc.org|34794-8")
    assert f"DocumentReference/{followed}" in [one.get("reference") for one in document["context"]["related"]]
    # Its bytes: raw, and in the resource.
    attachment = content["attachment"]
    assert (attachment["contentType"], attachment["size"]) == ("text/xml", len(kept))
    assert base64.b64decode(attachment["hash"]) == hashlib.sha1(kept, usedforsecurity=False).digest()
    raw = ehr.get(attachment["url"], headers={"Accept": "text/xml"})
    assert (raw.status_code, raw.content) == (200, kept)
    assert raw.headers["content-type"].startswith("text/xml")
    assert raw.headers["content-disposition"] == "attachment"
    resource = ehr.get(attachment["url"]).json()
    assert base64.b64decode(resource["data"]) == kept
    assert resource["securityContext"]["reference"] == f"DocumentReference/{key}"
    for tree in (document, resource, ehr.get(f"CarePlan/{key}").json()):
        assert validate.judge(tree) == []
        get_fhir_model_class(tree["resourceType"]).model_validate(tree)
    with store.session() as session:
        payloads = session.scalars(select(AuditLine.payload).where(AuditLine.event == "consultation")).all()
    digest = hashlib.sha256(kept).hexdigest().encode()
    assert any(digest in payload and b'"Binary"' in payload for payload in payloads)


def test_it_is_found_by_what_it_is_and_whose(
    store: Store, blobs: BlobStore, ehr: httpx.Client, plan: Callable[..., str]
) -> None:
    key = plan()
    subject = ehr.get(f"DocumentReference/{key}").json()["subject"]["reference"]
    category = f"{NOS}/TRE_A03-ClasseDocument/FHIR/TRE-A03-ClasseDocument|44"
    for asked in (
        {"type": TYPE},
        {"subject": subject, "type": TYPE},
        {"patient": subject, "type": TYPE, "status": "current"},
        {"category": category},
        {"format": FORMAT},
        {"identifier": f"urn:ietf:rfc:3986|{_number(_kept(store, blobs, key))}"},
    ):
        assert _found(ehr, "DocumentReference", **asked) == [key], asked
    assert _found(ehr, "DocumentReference", type=TYPE, subject=f"Patient/{uuid.uuid4()}") == []
    assert key in _found(ehr, "DocumentReference", subject=subject)
    # The plan in codes, which follows the advice of the RCP.
    assert _found(ehr, "CarePlan", category=TYPE, patient=subject) == [key]
    said = ehr.get(f"CarePlan/{key}").json()
    assert (said["status"], said["intent"]) == ("active", "plan")
    [advice] = _found(ehr, "CarePlan", category="avis-rcp")
    assert [one["reference"] for one in said["basedOn"]] == [f"CarePlan/{advice}"]
    [treatment] = [one["detail"] for one in said["activity"]]
    assert [one["code"] for one in treatment["code"]["coding"]] == ["C15632"]
    assert (treatment["status"], treatment["scheduledPeriod"]) == ("scheduled", {"start": "2026-04"})
    assert treatment["description"] == "6 cycles\nChimiothérapie néoadjuvante, puis chirurgie."


def test_another_hospital_reads_nothing_of_it_and_nobody_writes_it(
    store: Store, plan: Callable[..., str], ehr: httpx.Client, home: httpx.Client, stranger: httpx.Client
) -> None:
    key = plan()
    for kind in ("DocumentReference", "Binary", "CarePlan"):
        here = f"{kind}/{key}"
        for place in (here, f"{here}/_history", f"{here}/_history/1"):
            refused = stranger.get(place)
            assert refused.status_code == 404, place
            assert "Chimio" not in refused.text
        mine, theirs = ehr.get(here), home.get(here)
        assert (mine.status_code, theirs.status_code) == (200, 200), here
        for client in (ehr, home):
            written = client.put(here, json=mine.json() | {"language": "en"}, headers={"If-Match": 'W/"1"'})
            assert written.status_code == 403, here
            assert written.json()["issue"][0]["details"]["coding"][0]["code"] == "proprietaire"
            assert client.delete(here).status_code == 403, here
        assert ehr.get(here).json() == mine.json()
    assert stranger.get(f"Binary/{key}", headers={"Accept": "text/xml"}).status_code == 404
    for kind in ("DocumentReference", "CarePlan"):
        assert _found(stranger, kind) == []
    with store.session() as session:
        payloads = session.scalars(select(AuditLine.payload).where(AuditLine.event == "refus")).all()
    assert any(key.encode() in payload for payload in payloads)


def test_a_draft_is_no_resource_and_a_new_version_replaces(
    served: Served,
    store: Store,
    blobs: BlobStore,
    world: World,
    ehr: httpx.Client,
    plan: Callable[..., str],
    dossier: uuid.UUID,
) -> None:
    caller = world.caller(world.requester)
    drafted = served.steps.run(caller, lambda step: str(pps.write(step, dossier, {"patient": "Vit seule."}).id))
    assert ehr.get(f"DocumentReference/{drafted}").status_code == 404
    served.steps.run(caller, lambda step: pps.discard(step, dossier))
    assert _found(ehr, "DocumentReference", type=TYPE) == []
    first = plan()
    before = _kept(store, blobs, first)
    served.steps.run(caller, lambda step: str(pps.write(step, dossier, {"arret": True, "arret.date": "2026-05-02"}).id))
    # Until it is validated the former one is in force, for everybody.
    assert _found(ehr, "DocumentReference", type=TYPE) == [first]
    assert ehr.get(f"DocumentReference/{first}").json()["status"] == "current"
    second = plan(motif="MED-104")
    old, new = (ehr.get(f"DocumentReference/{key}").json() for key in (first, second))
    assert (old["status"], new["status"]) == ("superseded", "current")
    [related] = new["relatesTo"]
    assert (related["code"], related["target"]["reference"]) == ("replaces", f"DocumentReference/{first}")
    assert related["target"]["identifier"]["value"] == _number(before)
    assert "relatesTo" not in old
    # Each version keeps its bytes.
    raw = {"Accept": "text/xml"}
    assert ehr.get(f"Binary/{first}", headers=raw).content == before
    after = ehr.get(f"Binary/{second}", headers=raw).content
    assert after == _kept(store, blobs, second) != before
    parent = "c:relatedDocument[@typeCode='RPLC']/c:parentDocument/c:id/@root"
    assert [f"urn:oid:{one}" for one in etree.fromstring(after).xpath(parent, namespaces=CDA)] == [_number(before)]
    assert _found(ehr, "DocumentReference", type=TYPE, status="current") == [second]
    assert _found(ehr, "DocumentReference", relatesto=f"DocumentReference/{first}") == [second]
    plans = {key: ehr.get(f"CarePlan/{key}").json() for key in (first, second)}
    assert (plans[first]["status"], plans[second]["status"]) == ("revoked", "active")
    assert [one["reference"] for one in plans[second]["replaces"]] == [f"CarePlan/{first}"]
    assert plans[second]["note"] == [{"text": "Tous les traitements actifs ont été arrêtés le 02/05/2026."}]

    def again(step: Step) -> None:
        step.touch(*(step.session.get(CarePlan, uuid.UUID(key)) for key in (first, second)))

    # Said again it is no other version.
    served.steps.run(caller, again)
    assert ehr.get(f"DocumentReference/{first}").json() == old
    assert ehr.get(f"DocumentReference/{second}").json() == new
