"""Image objects as facts, sent by the PACS of the world's hospital; no pixel, no socket."""

from __future__ import annotations

import hashlib
from datetime import date
from typing import Any

from gateway.errors import GatewayError
from gateway.rcp import imaging
from gateway.rcp.access import Caller, CallerKind
from gateway.rcp.facts import IdentifierFact, Sex
from gateway.rcp.imaging_facts import ImagedPatientFacts, InstanceFacts, ObjectFacts, SeriesFacts, StudyFacts
from gateway.rcp.step import Steps
from tests.world import DOMAIN, World

STUDY = "1.2.250.1.999999.2026.9.1"
CT = "1.2.840.10008.5.1.4.1.1.2"


def facts(
    number: int = 1,
    *,
    study: str = STUDY,
    patient: str | None = "000003",
    system: str = DOMAIN,
    accession: tuple[str, str] | None = None,
    orders: tuple[IdentifierFact, ...] = (),
    modality: str = "CT",
    sop: str | None = None,
    started: date | None = None,
    **traits: Any,
) -> ObjectFacts:
    """One object of Dominique's scanner; say what is otherwise."""
    said = {
        "family": "PAT-TROIS",
        "given": "DOMINIQUE",
        "birth_date": date(1979, 3, 28),
        "sex": Sex.FEMALE,
    } | traits
    numbers = ((IdentifierFact(system=accession[0], value=accession[1], kind="ACSN"),) if accession else ()) + orders
    return ObjectFacts(
        patient=ImagedPatientFacts(
            patient_id=IdentifierFact(system=system, value=patient) if patient else None, **said
        ),
        study=StudyFacts(
            study_instance_uid=study,
            accession=numbers[0] if accession else None,
            orders=numbers,
            description="TAP",
            started=started,
        ),
        series=SeriesFacts(series_instance_uid=f"{study}.1", modality=modality, number=1),
        instance=InstanceFacts(
            sop_instance_uid=sop or f"{study}.1.{number}",
            sop_class_uid=CT,
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            number=number,
            rows=8,
            columns=8,
        ),
        dicom_json=b"{}",
    )


def pacs(world: World) -> Caller:
    """The hospital's PACS."""
    return Caller(kind=CallerKind.PACS, partner_id=world.partner.id, identifier="CHUX_PACS", wire="dicom")


def content(said: ObjectFacts) -> imaging.Content:
    """The bytes of an object, by name only."""
    return imaging.Content(hashlib.sha256(said.instance.sop_instance_uid.encode()).hexdigest(), 1024)


def send(steps: Steps, world: World, said: ObjectFacts, kept: imaging.Content | None = None) -> GatewayError | None:
    """Receive one object; what its sender is told if it is refused."""
    return steps.run(pacs(world), lambda step: imaging.keep(step, said, kept or content(said)))
