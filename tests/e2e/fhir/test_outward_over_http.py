"""What the gateway itself says over FHIR: report, contribution, message, images; the bytes are those that were kept."""

from __future__ import annotations

import base64
import hashlib
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import select

from gateway.exchange.blobs import BlobStore
from gateway.fhir.represent import Representer
from gateway.model.audit import AuditLine
from gateway.model.dossier import Contribution, Dossier
from gateway.model.imaging import Series, Study, StudyDossier
from gateway.model.message import Message
from gateway.model.report import Report, ReportForm
from gateway.model.store import Store
from gateway.rcp.report_content import CodedValue, encode
from tests.e2e.fhir.conftest import Hospital, Served
from tests.report_samples import content
from tests.world import World

PDF = b"%PDF-1.7 un compte rendu fictif\n" * 3
CDA = b'<?xml version="1.0"?><ClinicalDocument xmlns="urn:hl7-org:v3"/>'
STUDY_UID = "1.2.250.1.999999.2026.3.1"


@pytest.fixture
def told(world: World, store: Store, blobs: BlobStore) -> dict[str, Any]:
    """A dossier with a validated report, a contribution, a message and an attached study, represented."""
    with store.session() as session:
        world.session = session
        dossier = world.dossier(state="cr-valide")
        facts = content()
        private = CodedValue("SA04", "1.2.250.1.71.4.2.4", "Etablissement privé non PSPH")
        facts = replace(
            facts,
            visibility=("INVISIBLE_PATIENT",),
            meeting=replace(facts.meeting, place=replace(facts.meeting.place, facility=private)),
        )
        report = Report(
            id=uuid.uuid4(),
            dossier_id=dossier.id,
            set_id=uuid.uuid4(),
            version=1,
            state="valide",
            content=encode(replace(facts, version=1, replaces=None)),
            author_id=world.coordinator.id,
            validator_id=world.coordinator.id,
            validated_at=datetime(2026, 3, 20, 9, tzinfo=UTC),
        )
        session.add(report)
        session.flush()
        for form, kind, bytes_ in (("pdf", "application/pdf", PDF), ("cda", "text/xml", CDA)):
            kept = blobs.put(bytes_)
            session.add(
                ReportForm(
                    report_id=report.id, form=form, content_type=kind, sha256=kept.sha256, size_bytes=len(bytes_)
                )
            )
        contribution = Contribution(
            dossier_id=dossier.id,
            key="c1",
            author_id=world.treating.id,
            author_name="Camille NGUYEN",
            author_speciality="Médecine générale",
            text="Insuffisance cardiaque modérée.",
            at=datetime(2026, 3, 16, 18, 10, tzinfo=UTC),
        )
        message = Message(
            direction="out",
            channel="mssante",
            kind="M1",
            key="M1|x",
            message_id="abc@rcp.mssante.fr",
            recipient_id=world.treating.id,
            dossier_id=dossier.id,
            content=b"...",
            sha256="0" * 64,
            size_bytes=3,
            state="accepte",
            domain_at=datetime(2026, 3, 17, 8, tzinfo=UTC),
        )
        study = Study(
            partner_id=world.partner.id,
            study_instance_uid=STUDY_UID,
            state="rattache",
            record_id=dossier.record_id,
            modalities=["CT", "SR"],
            instances_count=4,
            started_at=datetime(2026, 3, 3, 7, 31, 5, tzinfo=UTC),
            study_description="TDM THORAX",
        )
        session.add_all([contribution, message, study])
        session.flush()
        session.add(Series(study_id=study.id, series_instance_uid=STUDY_UID + ".1", modality="CT", series_number=-1))
        session.add(StudyDossier(study_id=study.id, dossier_id=dossier.id, basis="ipp", author="essai"))
        session.flush()
        roots = [session.get_one(Dossier, dossier.id), report, contribution, message, study]
        session.refresh(report)
        Representer(blobs).keep(session, roots, {})
        session.commit()
        return {"dossier": str(dossier.id), "report": str(report.id), "patient": str(dossier.record_id)}


def test_report_is_found_and_its_bytes_are_those_that_were_kept(
    store: Store, hospital: Hospital, told: dict[str, Any]
) -> None:
    with hospital.client() as ehr:
        found = ehr.get(f"DocumentReference?patient={told['patient']}&type=http://loinc.org|34794-8&status=current")
        assert found.json()["total"] == 1
        document = found.json()["entry"][0]["resource"]
        attachments = {one["attachment"]["contentType"]: one["attachment"] for one in document["content"]}
        assert set(attachments) == {"application/pdf", "text/xml"}
        for kind, bytes_ in (("application/pdf", PDF), ("text/xml", CDA)):
            attachment = attachments[kind]
            assert attachment["size"] == len(bytes_)
            assert base64.b64decode(attachment["hash"]) == hashlib.sha1(bytes_, usedforsecurity=False).digest()
            raw = ehr.get(attachment["url"], headers={"Accept": kind})
            assert raw.content == bytes_
            assert raw.headers["content-type"].startswith(kind)
            assert raw.headers["content-disposition"] == "attachment"
            assert raw.headers["x-content-type-options"] == "nosniff"
            resource = ehr.get(attachment["url"]).json()
            assert base64.b64decode(resource["data"]) == bytes_
            assert resource["securityContext"]["reference"] == f"DocumentReference/{document['id']}"
        # What was frozen at the validation, as the mail's XDM says it.
        assert [one["coding"][0]["code"] for one in document["securityLabel"]] == ["N", "INVISIBLE_PATIENT"]
        [facility] = document["context"]["facilityType"]["coding"]
        assert facility == {
            "system": "https://mos.esante.gouv.fr/NOS/TRE_R02-SecteurActivite/FHIR/TRE-R02-SecteurActivite",
            "code": "SA04",
            "display": "Etablissement privé non PSPH",
        }
        studies = [
            one["identifier"]["value"]
            for one in document["context"]["related"]
            if one["identifier"]["system"] == "urn:dicom:uid"
        ]
        assert studies == [f"urn:oid:{STUDY_UID}"]
        task = ehr.get(f"Task/{told['dossier']}").json()
        assert task["output"][0]["valueReference"]["reference"] == f"DocumentReference/{document['id']}"
        composition = ehr.get(f"Composition/{told['report']}").json()
        assert (composition["status"], composition["type"]["coding"][0]["code"]) == ("final", "34794-8")
        assert "18776-5" in {one["code"]["coding"][0]["code"] for one in composition["section"]}
    with store.session() as session:
        digests = session.scalars(select(AuditLine.payload).where(AuditLine.event == "consultation")).all()
    assert any(hashlib.sha256(PDF).hexdigest().encode() in payload for payload in digests)


def test_contribution_is_said_in_full_and_messages_without_their_text(hospital: Hospital, told: dict[str, Any]) -> None:
    with hospital.client() as ehr:
        entries = ehr.get(f"Communication?patient={told['patient']}").json()["entry"]
        said = {entry["resource"]["category"][0]["coding"][0]["code"]: entry["resource"] for entry in entries}
        contribution = said["contribution"]
        assert contribution["payload"] == [{"contentString": "Insuffisance cardiaque modérée."}]
        assert contribution["sent"] == "2026-03-16T19:10:00+01:00"
        assert contribution["sender"]["display"] == "Camille NGUYEN, Médecine générale"
        assert said["m1"]["status"] == "completed"
        assert "payload" not in said["m1"]
        sender = ehr.get(contribution["sender"]["reference"]).json()
        assert {one["system"] for one in sender["identifier"]} >= {"https://rpps.esante.gouv.fr"}


def test_images_are_said_with_where_to_fetch_them(served: Served, hospital: Hospital, told: dict[str, Any]) -> None:
    with hospital.client() as ehr:
        found = ehr.get(f"ImagingStudy?identifier=urn:dicom:uid|urn:oid:{STUDY_UID}&_include=ImagingStudy:endpoint")
        by_type = {entry["resource"]["resourceType"]: entry["resource"] for entry in found.json()["entry"]}
        study = by_type["ImagingStudy"]
        assert study["subject"]["reference"] == f"Patient/{told['patient']}"
        assert [one["code"] for one in study["modality"]] == ["CT"]
        assert (study["numberOfSeries"], study["numberOfInstances"]) == (1, 4)
        assert study["started"] == "2026-03-03T08:31:05+01:00"
        # A series number below zero is legal in DICOM and impossible in FHIR.
        assert "number" not in study["series"][0]
        assert by_type["Endpoint"]["address"] == f"{served.url}/dicom-web"
        assert ehr.get(study["endpoint"][0]["reference"]).json()["address"] == f"{served.url}/dicom-web"


def test_everything_said_passes_the_judge(store: Store, hospital: Hospital, told: dict[str, Any]) -> None:
    from fhir.resources.R4B import get_fhir_model_class

    from gateway.fhir import document, validate
    from gateway.model.representation import TABLES

    del hospital, told
    judged = set()
    with store.session() as session:
        for kind, table in TABLES.items():
            for row in session.execute(select(table.c.body).where(table.c.current)):
                tree = document.parse(row.body.replace(b"\\u001f", b""))
                assert validate.judge(tree) == [], kind
                get_fhir_model_class(kind).model_validate(tree)
                judged.add(kind)
    assert judged >= {"Composition", "DocumentReference", "Binary", "Communication", "ImagingStudy", "Endpoint"}
