"""ImagingStudy and its Endpoint, from canonical rows to FHIR [FHIR R4 imagingstudy#mappings; spec fhir-fr 6.1].

A study in quarantine, or whose patient is not known here, has no representation at all. While a study grows only its
counts follow; once nothing came for a while it says since when it is whole (`SETTLED`), and lists its instances.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.fhir.document import instant
from gateway.fhir.translate.dossier import patient_reference
from gateway.fhir.translate.elements import CANONICAL, identifier, refer, wall, without_empty
from gateway.model.imaging import Instance, Series, Study
from gateway.model.person import PatientRecord

__all__ = ["BASE_URL", "ENDPOINT_ID", "LISTED_AT_MOST", "SETTLED", "endpoint", "imaging_study"]

Tree = dict[str, Any]

_DCM = "http://dicom.nema.org/resources/ontology/DCM"
#: Not images: they never stand in the headline of a study.
_NOT_IMAGES = frozenset({"KO", "PR", "SR", "SEG", "RTSTRUCT"})
#: Since when nothing came for a study any more: an extension (valueInstant). Who subscribes to it is told of one
#: version that has it, however many objects came before.
SETTLED = f"{CANONICAL}/StructureDefinition/etude-complete"
#: Instances of one study that its resource lists; of a larger one DICOMweb says them, page by page.
LISTED_AT_MOST = 1000
#: Logical id of the one Endpoint that serves all studies here.
ENDPOINT_ID = "dicomweb"
#: Stands in stored bytes for the base URL of the deployment, put in at the answer; no FHIR text may hold U+001F.
BASE_URL = "\x1fbase"


def endpoint() -> Tree:
    """Endpoint: this gateway's DICOMweb."""
    return {
        "resourceType": "Endpoint",
        "identifier": [{"system": f"{CANONICAL}/ns/endpoint", "value": ENDPOINT_ID}],
        "status": "active",
        "connectionType": {
            "system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type",
            "code": "dicom-wado-rs",
            "display": "DICOM WADO-RS",
        },
        "name": "Images de la passerelle (DICOMweb)",
        "payloadType": [
            {"coding": [{"system": f"{CANONICAL}/CodeSystem/rcp-flux", "code": "dicom"}], "text": "Objets DICOM"}
        ],
        "payloadMimeType": ["application/dicom", "application/dicom+json", "image/jpeg"],
        "address": f"{BASE_URL}/dicom-web",
    }


def imaging_study(study: Study, record: PatientRecord, series: Sequence[Series]) -> Tree | None:
    """ImagingStudy of an attached study; `None` while nobody knows whose it is."""
    if study.state != "rattache":
        return None
    whole = study.settled_at is not None
    listed = whole and study.instances_count <= LISTED_AT_MOST
    modalities = [code for code in study.modalities if code not in _NOT_IMAGES] or study.modalities
    return without_empty(
        resourceType="ImagingStudy",
        extension=[{"url": SETTLED, "valueInstant": instant(study.settled_at)}] if study.settled_at else None,
        identifier=[
            said
            for said in (
                {
                    "use": "official",
                    "system": "urn:dicom:uid",
                    "value": f"urn:oid:{study.study_instance_uid}",
                },
                identifier("ACSN", study.accession_number, system=study.accession_system)
                if study.accession_number and study.accession_system
                else None,
            )
            if said
        ],
        status="available",
        modality=[{"system": _DCM, "code": code} for code in modalities],
        subject=patient_reference(record),
        started=_started(study),
        referrer={"display": study.referring_physician} if study.referring_physician else None,
        endpoint=[refer("Endpoint", ENDPOINT_ID)],
        numberOfSeries=len(series),
        numberOfInstances=study.instances_count,
        description=study.study_description,
        series=[
            _series(one, listed=listed)
            for one in sorted(series, key=lambda one: (one.series_number or 0, one.series_instance_uid))
        ],
    )


def _started(study: Study) -> str | None:
    """The instant, or the day alone when the objects say no time [spec fhir-fr 6.1]."""
    if study.started_at is not None:
        return wall(study.started_at, "Europe/Paris")
    return study.started_on.isoformat() if study.started_on is not None else None


def _series(one: Series, *, listed: bool) -> Tree:
    # A negative number is legal in DICOM (IS) and impossible in FHIR (unsignedInt) [spec fhir-fr 6.1].
    number = one.series_number if one.series_number is not None and one.series_number >= 0 else None
    return without_empty(
        uid=one.series_instance_uid,
        number=number,
        modality={"system": _DCM, "code": one.modality or "OT"},
        description=one.series_description,
        numberOfInstances=one.instances_count,
        started=wall(one.started_at, "Europe/Paris") if one.started_at else None,
        instance=[_instance(each) for each in sorted(one.instances, key=_place)] if listed else None,
    )


def _place(one: Instance) -> tuple[bool, int, str]:
    number = one.instance_number
    return number is None, number or 0, one.sop_instance_uid


def _instance(one: Instance) -> Tree:
    number = one.instance_number
    return without_empty(
        uid=one.sop_instance_uid,
        sopClass={"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{one.sop_class_uid}"},
        number=number if number is not None and number >= 0 else None,
    )
