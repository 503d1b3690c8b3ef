"""What only a trial may do, asked of a gateway that serves real patients."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import func, select

from gateway.app.gateway import open_gateway
from gateway.exchange.blobs import BlobStore
from gateway.exchange.outbox import Outbox
from gateway.fhir.represent import Representer
from gateway.model.audit import AuditTrail
from gateway.model.person import PatientRecord
from gateway.model.store import Store
from gateway.rcp.step import DomainClock, Steps
from gateway.settings import Settings
from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import Hospital

DEMONSTRATION = "urn:oid:1.2.250.1.213.1.4.11"
NIR = "urn:oid:1.2.250.1.213.1.4.8"


@pytest.fixture
def fhir_steps(store: Store, trail: AuditTrail, blobs: BlobStore, representer: Representer) -> Steps:
    clock = DomainClock(datetime(2026, 3, 9, 8, 0, tzinfo=UTC))
    return Steps(store, clock, trail, Outbox(blobs), representer, fictitious=False)


@pytest.mark.parametrize("system", [samples.INS_TEST, DEMONSTRATION])
def test_an_invented_ins_is_refused(store: Store, hospital: Hospital, system: str) -> None:
    tree = samples.patient()
    tree["identifier"][0]["system"] = system
    with hospital.client() as ehr:
        refused = ehr.post("Patient", json=tree)
    assert refused.status_code == 422, refused.text
    assert refused.json()["issue"][0]["details"]["coding"][0]["code"] == "ins-essai"
    assert samples.INS not in refused.text
    with store.session() as session:
        assert session.scalar(select(func.count()).select_from(PatientRecord)) == 0


def test_a_real_one_is_taken(hospital: Hospital) -> None:
    tree = samples.patient()
    tree["identifier"][0]["system"] = NIR
    with hospital.client() as ehr:
        assert ehr.post("Patient", json=tree).status_code == 201


@pytest.mark.parametrize(("profile", "fictitious"), [("prod", False), ("dev", True)])
def test_the_profile_says_which(database_url: str, tmp_path: Path, profile: str, fictitious: bool) -> None:
    settings = Settings(profile=profile, data_dir=tmp_path, database_url=database_url, secret_key="k" * 40)
    with open_gateway(settings) as gateway:
        assert gateway.steps.fictitious is fictitious
