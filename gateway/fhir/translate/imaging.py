"""ImagingStudy and its Endpoint, from canonical rows to FHIR [FHIR R4 imagingstudy#mappings; spec fhir-fr 6.1].

What the orders that it answers are (`basedOn`), and of each series one object's own words: procedure, reason, place,
who performed and read it, region and side of the body.

A study in quarantine, or whose patient is not known here, has no representation at all. While a study grows only its
counts follow; once nothing came for a while it says since when it is whole (`SETTLED`), and lists its instances.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from gateway.fhir.document import instant
from gateway.fhir.translate.dossier import patient_reference
from gateway.fhir.translate.elements import CANONICAL, identifier, refer, wall, without_empty
from gateway.fhir.translate.imaging_codes import DCM, body_site, concepts, laterality, line, person
from gateway.model.imaging import Series, Study
from gateway.model.person import PatientRecord

__all__ = [
    "BASE_URL",
    "ENDPOINT_ID",
    "LISTED_AT_MOST",
    "SETTLED",
    "Listed",
    "Parts",
    "Said",
    "endpoint",
    "imaging_study",
]

Tree = dict[str, Any]

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
#: What ImagingStudy.basedOn may name.
_ORDERS = frozenset({"ServiceRequest", "Task", "Appointment", "CarePlan"})
#: Elements of one study that its objects repeat; a study of very many series says no more of them.
_SAID_AT_MOST = 20


class Listed(NamedTuple):
    """One instance of a whole study."""

    uid: str
    sop_class: str
    number: int | None


class _Element(msgspec.Struct, frozen=True):
    Value: list[Any] = []


_NOTHING = _Element()


class Said(msgspec.Struct, frozen=True):
    """What one object of a series says beside the columns that are searched; DICOM JSON, by tag."""

    procedures: _Element = msgspec.field(name="00081032", default=_NOTHING)
    requested: _Element = msgspec.field(name="00321064", default=_NOTHING)
    reason: _Element = msgspec.field(name="00401002", default=_NOTHING)
    readers: _Element = msgspec.field(name="00081060", default=_NOTHING)
    performers: _Element = msgspec.field(name="00081050", default=_NOTHING)
    operators: _Element = msgspec.field(name="00081070", default=_NOTHING)
    location: _Element = msgspec.field(name="00400243", default=_NOTHING)
    department: _Element = msgspec.field(name="00081040", default=_NOTHING)
    side: _Element = msgspec.field(name="00200060", default=_NOTHING)
    regions: _Element = msgspec.field(name="00082218", default=_NOTHING)


_SILENT = Said()


class Parts(NamedTuple):
    """What a study is represented by beside its own row: ``instances`` and ``said`` by series UID."""

    series: Sequence[Series]
    instances: Mapping[str, Sequence[Listed]] = {}
    said: Mapping[str, Said] = {}
    orders: Sequence[str] = ()


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


def imaging_study(study: Study, record: PatientRecord, parts: Parts) -> Tree | None:
    """ImagingStudy of an attached study; `None` while nobody knows whose it is."""
    if study.state != "rattache":
        return None
    said = list(parts.said.values())
    places = [value for one in said for value in (*one.location.Value, *one.department.Value)]
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
        modality=[{"system": DCM, "code": code} for code in modalities],
        subject=patient_reference(record),
        started=_started(study),
        basedOn=[refer(kind, key) for kind, _, key in (one.partition("/") for one in parts.orders) if kind in _ORDERS],
        referrer={"display": study.referring_physician} if study.referring_physician else None,
        interpreter=_people(value for one in said for value in one.readers.Value),
        endpoint=[refer("Endpoint", ENDPOINT_ID)],
        numberOfSeries=len(parts.series),
        numberOfInstances=study.instances_count,
        procedureCode=_few(concepts(value for one in said for value in (*one.procedures.Value, *one.requested.Value))),
        location=next(({"display": named} for value in places if (named := line(value))), None),
        reasonCode=_few([{"text": text} for text in _texts(value for one in said for value in one.reason.Value)]),
        description=study.study_description,
        series=[
            _series(
                one, parts.said.get(one.series_instance_uid, _SILENT), parts.instances.get(one.series_instance_uid, ())
            )
            for one in sorted(parts.series, key=lambda one: (one.series_number or 0, one.series_instance_uid))
        ],
    )


def _started(study: Study) -> str | None:
    """The instant, or the day alone when the objects say no time [spec fhir-fr 6.1]."""
    if study.started_at is not None:
        return wall(study.started_at, "Europe/Paris")
    return study.started_on.isoformat() if study.started_on is not None else None


def _few(found: list[Tree]) -> list[Tree]:
    return found[:_SAID_AT_MOST]


def _texts(values: Iterable[Any]) -> Iterator[str]:
    yield from dict.fromkeys(text for value in values if (text := line(value)))


def _people(values: Iterable[Any]) -> list[Tree]:
    """Name people in words: DICOM gives no identifier of them here."""
    return _few([{"display": name} for name in dict.fromkeys(map(person, values)) if name])


def _series(one: Series, said: Said, instances: Sequence[Listed]) -> Tree:
    # A negative number is legal in DICOM (IS) and impossible in FHIR (unsignedInt) [spec fhir-fr 6.1].
    number = one.series_number if one.series_number is not None and one.series_number >= 0 else None
    return without_empty(
        uid=one.series_instance_uid,
        number=number,
        modality={"system": DCM, "code": one.modality or "OT"},
        description=one.series_description,
        numberOfInstances=one.instances_count,
        bodySite=body_site(one.body_part_examined, said.regions.Value),
        laterality=next((coded for value in said.side.Value if (coded := laterality(line(value)))), None),
        started=wall(one.started_at, "Europe/Paris") if one.started_at else None,
        performer=[{"actor": who} for who in _people((*said.performers.Value, *said.operators.Value))],
        instance=[_instance(each) for each in instances],
    )


def _instance(one: Listed) -> Tree:
    return without_empty(
        uid=one.uid,
        sopClass={"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{one.sop_class}"},
        number=one.number if one.number is not None and one.number >= 0 else None,
    )
