"""A line of the trail to an AuditEvent [spec audit 1.2, 2; TdE 2.0.0; FHIR R4 auditevent; PS3.16 CID 400].

Promises: one type and at most one subtype, at most two agents (who acted, and to whom something left), the gateway as
observer; ids and codes only, never a trait, a text or a token. Of the persons that a line names, only those whom the
caller may see are said.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from gateway.fhir.translate.elements import NAMESPACE, without_empty
from gateway.identifiers import SYSTEMS
from gateway.model.representation import TABLES

__all__ = ["EVENTS", "audit_event", "events_of"]

Tree = dict[str, Any]

_DCM = "http://dicom.nema.org/resources/ontology/DCM"
_REST = ("http://terminology.hl7.org/CodeSystem/audit-event-type", "rest")
_INTERACTION = "http://hl7.org/fhir/restful-interaction"


class _Event(NamedTuple):
    """How a row of the catalogue is coded; ``subtype`` none: by the line's action."""

    type: tuple[str, str]
    subtype: tuple[str, str] | None


_BY_ACTION = {"C": "create", "R": "read", "U": "update", "D": "delete", "E": "operation"}

#: Row of the catalogue → its codes [spec audit 2].
EVENTS: Mapping[str, _Event] = {
    "connexion": _Event((_DCM, "110114"), (_DCM, "110122")),
    "deconnexion": _Event((_DCM, "110114"), (_DCM, "110123")),
    "recherche": _Event((_DCM, "110112"), (_INTERACTION, "search")),
    "consultation": _Event(_REST, (_INTERACTION, "read")),
    "creation": _Event(_REST, (_INTERACTION, "create")),
    "modification": _Event(_REST, None),
    "validation": _Event(_REST, (_INTERACTION, "update")),
    "imagerie": _Event((_DCM, "110103"), (_INTERACTION, "read")),
    "envoi": _Event((_DCM, "110106"), (_INTERACTION, "create")),
    "import": _Event((_DCM, "110107"), (_INTERACTION, "create")),
    "droits": _Event((_DCM, "110113"), (_DCM, "110136")),
    "opposition": _Event(_REST, (_INTERACTION, "update")),
    "audit": _Event((_DCM, "110101"), (_INTERACTION, "read")),
    "systeme": _Event((_DCM, "110100"), None),
    "refus": _Event(_REST, None),
}
_OTHER = _Event(_REST, None)

_DISPLAY = {
    "110100": "Application Activity",
    "110101": "Audit Log Used",
    "110103": "DICOM Instances Accessed",
    "110106": "Export",
    "110107": "Import",
    "110112": "Query",
    "110113": "Security Alert",
    "110114": "User Authentication",
    "110122": "Login",
    "110123": "Logout",
    "110136": "Security Roles Changed",
}
# What the trail calls an actor → the system of his name, and his part in the event.
_ACTORS: Mapping[str, tuple[str, tuple[str, str]]] = {
    "professionnel": (
        str(SYSTEMS["IDNPS"].system),
        ("http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "IRCP"),
    ),
    "client": (f"{NAMESPACE}/client", (_DCM, "110150")),
    "pacs": (f"{NAMESPACE}/aet", (_DCM, "110150")),
    "pair": (f"{NAMESPACE}/pair", (_DCM, "110150")),
    "systeme": (f"{NAMESPACE}/passerelle", (_DCM, "110150")),
}
_ENTITY_TYPE = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
_ROLE = "http://terminology.hl7.org/CodeSystem/object-role"


def events_of(element: str, system: str | None, code: str | None) -> list[str]:
    """Rows of the catalogue that are coded so.

    Parameters
    ----------
    element
        ``type`` or ``subtype``.
    """
    found = []
    for name, event in EVENTS.items():
        said = getattr(event, element)
        if said is not None and system in {None, said[0]} and code in {None, said[1]}:
            found.append(name)
    return found


def audit_event(line: Mapping[str, Any], *, shown: Collection[str], site: str) -> Tree:
    """Write one line as an AuditEvent.

    Parameters
    ----------
    line
        Its payload.
    shown
        Ids of the patient records that the caller may see.
    site
        Host of this gateway.
    """
    event = EVENTS.get(line["event"], _OTHER)
    recorded = line["recorded"]
    return without_empty(
        resourceType="AuditEvent",
        id=line["id"],
        meta={
            "versionId": "1",
            "lastUpdated": recorded,
            "profile": ["https://interop.esante.gouv.fr/ig/fhir/tde/StructureDefinition/tde-auditevent"],
        },
        type=_coding(*event.type),
        subtype=[_coding(*(event.subtype or (_INTERACTION, _BY_ACTION.get(line["action"], "operation"))))],
        action=line["action"],
        period={"start": line.get("happened") or recorded},
        recorded=recorded,
        outcome=line["outcome"],
        outcomeDesc=line.get("reason"),
        purposeOfEvent=[{"coding": [_coding("http://terminology.hl7.org/CodeSystem/v3-ActReason", line["purpose"])]}],
        agent=[_actor(line), *_recipient(line)],
        source={
            "site": site,
            "observer": {
                "type": "Device",
                "identifier": {"system": f"{NAMESPACE}/passerelle", "value": "rcp-gateway"},
                "display": "Passerelle RCP",
            },
            "type": [_coding("http://terminology.hl7.org/CodeSystem/security-source-type", "4")],
        },
        entity=[*_persons(line, shown), *_object(line, shown), *_request(line)],
    )


def _coding(system: str, code: str) -> Tree:
    return without_empty(system=system, code=code, display=_DISPLAY.get(code) if system == _DCM else None)


def _actor(line: Mapping[str, Any]) -> Tree:
    system, part = _ACTORS.get(line["actor_kind"], _ACTORS["systeme"])
    value = line.get("actor_id") or "inconnu"
    return without_empty(
        type={"coding": [_coding(*part)]},
        who=without_empty(identifier={"system": system, "value": value}, display=line.get("actor_name")),
        name=line.get("actor_name"),
        requestor=True,
        network=without_empty(address=line.get("address"), type="2" if line.get("address") else None),
    )


def _recipient(line: Mapping[str, Any]) -> list[Tree]:
    to = line.get("recipient")
    if not to:
        return []
    # A mailbox, else a DICOM application, whose title has no address in it.
    named = ("urn:ietf:rfc:3986", f"mailto:{to}") if "@" in to else (_ACTORS["pacs"][0], to)
    who = {"identifier": dict(zip(("system", "value"), named, strict=True))}
    return [{"type": {"coding": [_coding(_DCM, "110152")]}, "who": who, "requestor": False}]


def _persons(line: Mapping[str, Any], shown: Collection[str]) -> list[Tree]:
    return [
        {
            "what": {"reference": f"Patient/{key}", "type": "Patient"},
            "type": _coding(_ENTITY_TYPE, "1"),
            "role": _coding(_ROLE, "1"),
        }
        for key in line.get("persons", ())
        if key in shown
    ]


def _object(line: Mapping[str, Any], shown: Collection[str]) -> list[Tree]:
    """What was concerned: a resource by reference, anything else by its name; another's patient not at all."""
    kind, key = line.get("object_type"), line.get("object_id")
    if not kind or not key or (kind == "Patient" and key in {*shown, *line.get("persons", ())}):
        return []
    version = line.get("object_version")
    if kind in TABLES or kind == "AuditEvent":
        what: Tree = {"reference": f"{kind}/{key}" + (f"/_history/{version}" if version else ""), "type": kind}
    else:
        what = {"identifier": {"system": f"{NAMESPACE}/objet", "value": f"{kind}/{key}"}}
    detail = [
        {"type": name, "valueString": str(line[field])}
        for name, field in (("sha-256", "object_sha256"), ("dossier", "dossier"))
        if line.get(field)
    ]
    return [
        without_empty(what=what, type=_coding(_ENTITY_TYPE, "2"), role=_coding(_ROLE, "4"), detail=detail),
    ]


def _request(line: Mapping[str, Any]) -> list[Tree]:
    if not line.get("request_id"):
        return []
    return [
        {
            "what": {"identifier": {"system": f"{NAMESPACE}/x-request-id", "value": line["request_id"]}},
            "type": _coding("https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType", "XrequestId"),
        }
    ]
