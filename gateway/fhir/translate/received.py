"""A document that somebody else sent, as its header says: DocumentReference and Binary.

[FHIR R4 documentreference; IHE MHD; spec cda-frcp 6]

Promises: of what was mailed only a document that was attached to a patient is a resource; of what a software brought
the DocumentReference stays as it was sent, but for its status, and for why it waits (`WAITING`) while it does; what was
replaced or withdrawn says so; author and type are in the sender's words, which nothing here believes further.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from gateway.fhir.document import instant
from gateway.fhir.translate.dossier import patient_reference
from gateway.fhir.translate.elements import CANONICAL, refer, without_empty
from gateway.model.person import PatientRecord
from gateway.model.received import ReceivedDocument

__all__ = ["WAITING", "binary", "document_reference", "identifier", "over"]

Tree = dict[str, Any]

#: Why a document that a software brought waits for a person: an extension (valueCode).
WAITING = f"{CANONICAL}/StructureDefinition/document-en-attente"

_STATUS = {"attache": "current", "remplace": "superseded", "retire": "entered-in-error"}
_LOINC = "http://loinc.org"
_CONTENT_TYPES = {"pdf": "application/pdf", "png": "image/png", "jpeg": "image/jpeg", "gif": "image/gif"}


def document_reference(row: ReceivedDocument, record: PatientRecord, sha1_base64: str) -> Tree | None:
    """Say what the header says; `None` for what waits for a person, or never came."""
    if row.state not in _STATUS or row.sha256 is None:
        return None
    master = identifier(row.unique_id)
    coded = {"coding": [without_empty(system=_LOINC, code=row.type_code, display=row.type_label)]}
    return without_empty(
        resourceType="DocumentReference",
        masterIdentifier=master,
        identifier=[{"use": "official", **master}],
        status=_STATUS[row.state],
        type=coded if row.type_code else None,
        subject=patient_reference(record),
        date=instant(row.received_at),
        author=[{"display": row.author}] if row.author else None,
        description=row.title,
        relatesTo=[{"code": "replaces", "target": {"identifier": identifier(row.replaces)}}] if row.replaces else None,
        content=[
            {
                "attachment": without_empty(
                    contentType=_content_type(row),
                    url=f"Binary/{row.id}" if row.state != "retire" else None,
                    size=row.size_bytes,
                    hash=sha1_base64,
                    title=row.title,
                    creation=instant(row.written_at) if row.written_at is not None else None,
                )
            }
        ],
        context={"encounter": [refer("Encounter", row.dossier_id)]} if row.dossier_id is not None else None,
    )


def over(base: Tree, row: ReceivedDocument) -> Tree:
    """Lay what became of a document over the DocumentReference that brought it."""
    said = [one for one in base.get("extension", ()) if one.get("url") != WAITING]
    if row.state == "quarantaine":
        said.append({"url": WAITING, "valueCode": row.reason})
    laid = {name: value for name, value in base.items() if name != "extension"} | ({"extension": said} if said else {})
    return laid | ({"status": _STATUS[row.state]} if row.state in {"remplace", "retire"} else {})


def binary(row: ReceivedDocument, content: bytes) -> Tree:
    """The bytes as they came."""
    return {
        "resourceType": "Binary",
        "contentType": _content_type(row),
        "securityContext": refer("DocumentReference", row.id),
        "data": b64encode(content).decode("ascii"),
    }


def _content_type(row: ReceivedDocument) -> str:
    return _CONTENT_TYPES.get(row.format, "text/xml")


def identifier(said: str) -> Tree:
    """Return what the header of a CDA says, ``root`` or ``root^extension``, as an Identifier."""
    root, _, extension = said.partition("^")
    if extension:
        return {"system": f"urn:oid:{root}", "value": extension}
    scheme = "oid" if root.replace(".", "").isdigit() else "uuid"
    return {"system": "urn:ietf:rfc:3986", "value": f"urn:{scheme}:{root.lower()}"}
