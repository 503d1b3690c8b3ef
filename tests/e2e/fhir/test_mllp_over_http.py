"""A document that a hospital sends by HL7 v2 is read by FHIR and seen in the portal's fiche."""

from __future__ import annotations

import hashlib
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hl7.client import MLLPClient

from gateway.demo import pacs
from gateway.demo.ct_phantom import DOMINIQUE, write_series
from gateway.dicom.storage import component as dicom
from gateway.hl7v2.wire import component
from gateway.model.partner import PartnerCredential
from gateway.model.received import ReceivedDocument
from gateway.model.store import Store
from gateway.portal.fiche import fiche
from gateway.portal.received import received_lines
from gateway.settings import Dicom, Mllp, Settings
from gateway.transport import Address
from tests import hl7_samples
from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import ALL_SCOPES, CLOCK, Hospital, Served
from tests.world import World


@pytest.fixture
def ehr(world: World, admit: Callable[..., Hospital]) -> Iterator[httpx.Client]:
    with admit(world.partner, scopes=ALL_SCOPES).client() as client:
        yield client


@pytest.fixture
def port(served: Served, world: World, store: Store, blobs: Any) -> Iterator[int]:
    """The HL7 v2 port beside the FHIR wire, for the hospital's own software."""
    with store.session() as session:
        session.add(PartnerCredential(partner_id=world.partner.id, kind="mllp", value="127.0.0.1"))
        session.commit()
    settings = Settings(data_dir=Path(), profile="prod", mllp=Mllp(bind=Address("127.0.0.1", 0)))
    wire = component(settings, served.steps, blobs)
    wire.start()
    yield wire.port
    wire.stop()


def send(port: int, *contents: bytes) -> list[str]:
    with MLLPClient("127.0.0.1", port) as client:
        return [hl7_samples.said(client.send_message(one)[1:-2])[0] for one in contents]


def found(ehr: httpx.Client, **asked: str) -> list[dict[str, Any]]:
    answer = ehr.get("DocumentReference", params=asked)
    assert answer.status_code == 200, answer.text
    return [entry["resource"] for entry in answer.json().get("entry", ())]


def test_it_is_found_read_replaced_and_withdrawn(
    ehr: httpx.Client, port: int, store: Store, world: World, admit: Callable[..., Hospital]
) -> None:
    made = ehr.post("Patient", json=samples.patient())
    assert made.status_code == 201, made.text
    patient = f"Patient/{made.json()['id']}"
    assert send(port, hl7_samples.message()) == ["AA"]
    [shown] = found(ehr, subject=patient)
    attachment = shown["content"][0]["attachment"]
    assert (shown["status"], shown["type"]["coding"][0]["code"]) == ("current", "34794-8")
    assert shown["masterIdentifier"]["value"] == "urn:oid:1.2.250.1.999.77.1.20261126.1042.1"
    digest = hashlib.sha1(hl7_samples.cda(), usedforsecurity=False).digest()
    assert b64decode(attachment["hash"]) == digest
    content = ehr.get(attachment["url"], headers={"Accept": "text/xml"})
    assert (content.status_code, content.content) == (200, hl7_samples.cda())

    assert send(port, hl7_samples.replacement()) == ["AA"]
    assert {one["status"] for one in found(ehr, subject=patient)} == {"superseded", "current"}
    [current] = found(ehr, subject=patient, status="current")
    assert current["relatesTo"][0]["target"]["identifier"]["value"] == "urn:oid:1.2.250.1.999.77.1.20261126.1042.1"

    assert send(port, hl7_samples.deletion()) == ["AA"]
    assert not found(ehr, subject=patient, status="current")
    gone = ehr.get(current["content"][0]["attachment"]["url"], headers={"Accept": "text/xml"})
    assert gone.status_code == 410
    with store.session() as session:
        row = session.query(ReceivedDocument).filter_by(version=1).one()
        world.session = session
        dossier = world.dossier(session.get_one(type(world.record()), row.record_id))
        lines = [line.text.replace("\u00a0", " ") for line in received_lines(session, dossier)]
    title = "FRCP Onco Aquitaine fictif / 3C de Valombre / Tumeurs digestives"
    assert lines == [
        f"Document reçu : {title}, retiré par son auteur",
        f"Document reçu : {title}, remplacé par une version plus récente",
    ]


@pytest.mark.req("S2-014")
def test_the_fiche_shows_what_came_by_each_wire(
    served: Served, ehr: httpx.Client, port: int, store: Store, world: World, blobs: Any, tmp_path: Path
) -> None:
    with store.session() as session:
        here = PartnerCredential(partner_id=world.partner.id, kind="aet", value="CHUX_PACS", details={})
        session.add(here)
        session.commit()
    bundle = samples.transaction(
        rcp=world.rcp.national_number,
        start="2026-03-19T14:00:00+01:00",
        requester=world.requester.idnps,
        treating=world.treating.idnps,
    )
    done = ehr.post("", json=bundle)
    assert done.status_code == 200, done.text
    assert send(port, hl7_samples.message()) == ["AA"]
    settings = Settings(data_dir=tmp_path, profile="prod", dicom=Dicom(bind=Address("127.0.0.1", 0)))
    scp = dicom(settings, served.steps, blobs)
    scp.start()
    try:
        paths = write_series(DOMINIQUE, tmp_path / "ct")
        pacs.send(paths, calling="CHUX_PACS", called="RCPGATEWAY", host="127.0.0.1", port=scp.port)
    finally:
        scp.stop()
    with store.session() as session:
        [document] = session.query(ReceivedDocument).all()
        seen, _ = fiche(session, world.caller(world.treating), CLOCK, document.dossier_id)
    lines = [(line.source, line.text.replace("\u00a0", " ")) for line in seen.interop]
    assert lines == [
        (world.partner.name, "Inscription reçue"),
        ("Imagerie", "Étude CT reçue, 5 images"),
        ("Claire MERCIER", "Document reçu : FRCP Onco Aquitaine fictif / 3C de Valombre / Tumeurs digestives"),
    ]
    assert all(line.at is not None for line in seen.interop)


def test_what_waits_is_read_by_nobody(ehr: httpx.Client, port: int, store: Store) -> None:
    assert send(port, hl7_samples.message()) == ["AE"]
    with store.session() as session:
        row = session.query(ReceivedDocument).one()
    assert row.state == "quarantaine"
    assert not found(ehr, identifier="urn:oid:1.2.250.1.999.77.1.20261126.1042.1")
    assert ehr.get(f"DocumentReference/{row.id}").status_code == 404
    assert ehr.get(f"Binary/{row.id}").status_code == 404
