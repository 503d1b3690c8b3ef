"""METADATA.XML of an XDM zip: what XDS says of each document and of the sending.

Promises: hash and size over the very bytes given; components of HL7 v2 types escaped, XML escaped once; ids derived
from the submission's own id, so that the same submission gives the same bytes; instants in UTC as XDS wants them.

Sources: spec mssante 2.8 to 2.10, `[CI-SIS lien en-tête CDA et métadonnées XDS]` read through it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal
from uuid import NAMESPACE_OID, UUID, uuid5

from lxml import etree
from msgspec import Struct

from gateway.documents.wording import clean
from gateway.errors import InvalidContent
from gateway.rcp.report_content import CodedValue, Identifier, Organisation, PatientContent, Person

__all__ = ["Entry", "Sender", "Submission", "metadata", "patient_id"]

_RIM = "urn:oasis:names:tc:ebxml-regrep:xsd:rim:3.0"
_LCM = "urn:oasis:names:tc:ebxml-regrep:xsd:lcm:3.0"
_XML = "http://www.w3.org/XML/1998/namespace"
_IDNPS_ROOT = "1.2.250.1.71.4.2.1"
_IDNST_ROOT = "1.2.250.1.71.4.2.2"
_HL7_ESCAPES = str.maketrans({"\\": "\\E\\", "^": "\\S\\", "&": "\\T\\", "|": "\\F\\", "~": "\\R\\"})

# Schemes and object types of XDS, all as urn:uuid. [spec mssante 2.9]
_DOCUMENT_ENTRY = "urn:uuid:7edca82f-054d-47f2-a032-9b2a5b5186c1"
_SUBMISSION_SET = "urn:uuid:a54d6aa5-d40d-43f9-88c5-b4633d873bdd"
_ENTRY_SCHEMES = {
    "author": "urn:uuid:93606bcf-9494-43ec-9b4e-a7748d1a838d",
    "class": "urn:uuid:41a5887f-8865-4c09-adf7-e362475b143a",
    "type": "urn:uuid:f0306f51-975f-434e-a61c-c59651d33983",
    "format": "urn:uuid:a09d5840-386c-46f2-b5ad-9c3699a4309d",
    "confidentiality": "urn:uuid:f4f85eac-e6cb-4883-b524-f2705394840f",
    "facility": "urn:uuid:f33fb8ac-18af-42cc-ae0e-ed0b0bdb91e1",
    "setting": "urn:uuid:cccf5598-8b07-4b77-a05e-ae952c785ead",
    "event": "urn:uuid:2c6b8cb7-8b2a-4051-b291-b1ae6a575ef4",
    "patientId": "urn:uuid:58a6f841-87b3-4a3e-92fd-a8ffeff98427",
    "uniqueId": "urn:uuid:2e82c1f6-a085-4c72-9da3-8640a32e42ab",
}
_SET_SCHEMES = {
    "author": "urn:uuid:a7058bb9-b4e4-4307-ba5b-e3f0ab85e12d",
    "content": "urn:uuid:aa543740-bdda-424e-8c96-df4873be8500",
    "patientId": "urn:uuid:6b5aea1a-874d-4603-a4bc-96a0a7b38446",
    "sourceId": "urn:uuid:554ac39e-e3fe-47fe-b233-965d2a147832",
    "uniqueId": "urn:uuid:96fdda7c-d067-4183-912e-bf5ee74998a8",
}
_HAS_MEMBER = "urn:oasis:names:tc:ebxml-regrep:AssociationType:HasMember"
_UNDIFFERENTIATED = CodedValue("97", "1.2.250.1.213.2.2", "Type d'activité indifférencié")

_Element = etree._Element  # noqa: SLF001 - lxml exports its element type under no public name


class Sender(Struct, frozen=True, kw_only=True):
    """Who sends and with what; printed in README.TXT.

    Parameters
    ----------
    source_id
        OID of the sending system.
    """

    source_id: str
    organisation: Organisation
    application: str
    version: str
    publisher: str


class Entry(Struct, frozen=True, kw_only=True):
    """One document of the zip and what XDS says of it.

    Parameters
    ----------
    file_name
        8.3 in capitals, beside METADATA.XML.
    role
        Functional role of the author (``author/functionCode/@displayName``).
    confidentiality
        First the document's own, then the flags of visibility.
    action
        ``C`` replaces an earlier version, ``D`` withdraws it; none for a first sending. [spec mssante 6.1]
    """

    file_name: str
    content: bytes
    mime_type: str
    unique_id: Identifier
    title: str
    comments: str | None = None
    created: datetime
    service_start: datetime
    service_stop: datetime | None = None
    author: Person
    role: str
    legal_authenticator: Person
    patient: PatientContent
    class_code: CodedValue
    type_code: CodedValue
    format_code: CodedValue
    confidentiality: tuple[CodedValue, ...]
    facility: CodedValue
    setting: CodedValue
    events: tuple[CodedValue, ...] = ()
    action: Literal["C", "D"] | None = None


class Submission(Struct, frozen=True, kw_only=True):
    """One submission set: documents of one patient sent together."""

    unique_id: str
    submitted: datetime
    title: str
    sender: Sender
    entries: tuple[Entry, ...]


# --- METADATA.XML --------------------------------------------------------------------------------------------------


class _Ids:
    """Gives the ``urn:uuid`` of each registry object, in order, as a function of the submission's id."""

    def __init__(self, submission: Submission) -> None:
        self._space: UUID = uuid5(NAMESPACE_OID, submission.unique_id)
        self._rank = 0

    def next(self) -> str:
        self._rank += 1
        return f"urn:uuid:{uuid5(self._space, str(self._rank))}"


def metadata(submission: Submission) -> bytes:
    """Write METADATA.XML: one ExtrinsicObject a document, the RegistryPackage, and their HasMember associations."""
    ids = _Ids(submission)
    members = [(ids.next(), entry) for entry in submission.entries]
    package = ids.next()
    root = etree.Element(f"{{{_LCM}}}SubmitObjectsRequest", nsmap={"lcm": _LCM, "rim": _RIM})
    objects = etree.SubElement(root, f"{{{_RIM}}}RegistryObjectList")
    for member, entry in members:
        objects.append(_extrinsic_object(member, entry, ids))
    objects.append(_registry_package(package, submission, ids))
    for member, _entry in members:
        association = _rim(
            "Association", _slot("SubmissionSetStatus", "Original"),
            id=ids.next(), associationType=_HAS_MEMBER, sourceObject=package, targetObject=member,
        )  # fmt: skip
        objects.append(association)
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8", pretty_print=True)


def _rim(tag: str, *children: _Element | None, **attributes: str) -> _Element:
    element = etree.Element(f"{{{_RIM}}}{tag}")
    for name, value in attributes.items():
        element.set(name, value)
    element.extend(child for child in children if child is not None)
    return element


def _slot(name: str, *values: str) -> _Element:
    held = _rim("ValueList")
    for value in values:
        etree.SubElement(held, f"{{{_RIM}}}Value").text = value
    return _rim("Slot", held, name=name)


def _words(tag: str, text: str, *, french: bool = True) -> _Element:
    string = _rim("LocalizedString")
    if french:
        string.set(f"{{{_XML}}}lang", "fr-FR")
        string.set("charset", "UTF-8")
    string.set("value", clean(text))
    return _rim(tag, string)


def _extrinsic_object(member: str, entry: Entry, ids: _Ids) -> _Element:
    said = _rim(
        "ExtrinsicObject", *_entry_slots(entry), id=member, mimeType=entry.mime_type, objectType=_DOCUMENT_ENTRY
    )
    said.append(_words("Name", entry.title))
    if entry.comments:
        said.append(_words("Description", entry.comments))
    said.append(_author("author", entry.author, entry.role, member, _ENTRY_SCHEMES, ids))
    codes = (
        ("class", (entry.class_code,)),
        ("type", (entry.type_code,)),
        ("format", (entry.format_code,)),
        ("confidentiality", entry.confidentiality),
        ("facility", (entry.facility,)),
        ("setting", (entry.setting,)),
        ("event", entry.events),
    )
    for scheme, values in codes:
        said.extend(_classification(_ENTRY_SCHEMES[scheme], value, member, ids) for value in values)
    unique = entry.unique_id
    document = f"{unique.root}^{unique.extension}" if unique.extension else unique.root
    numbers = (("patientId", patient_id(entry.patient)), ("uniqueId", document))
    said.extend(_external("XDSDocumentEntry", _ENTRY_SCHEMES, name, value, member, ids) for name, value in numbers)
    return said


def _entry_slots(entry: Entry) -> Iterator[_Element]:
    yield _slot("creationTime", _utc(entry.created))
    yield _slot("hash", hashlib.sha1(entry.content, usedforsecurity=False).hexdigest())
    yield _slot("languageCode", "fr-FR")
    yield _slot("legalAuthenticator", _xcn(entry.legal_authenticator))
    yield _slot("serviceStartTime", _utc(entry.service_start))
    if entry.service_stop is not None:
        yield _slot("serviceStopTime", _utc(entry.service_stop))
    yield _slot("size", str(len(entry.content)))
    yield _slot("sourcePatientId", _source_patient_id(entry.patient))
    yield _slot("sourcePatientInfo", *_patient_info(entry.patient))
    yield _slot("URI", entry.file_name)
    if entry.action is not None:
        yield _slot("urn:action:extraMetadataSlot", entry.action)


def _registry_package(package: str, submission: Submission, ids: _Ids) -> _Element:
    first = submission.entries[0]
    said = _rim("RegistryPackage", _slot("submissionTime", _utc(submission.submitted)), id=package)
    said.append(_words("Name", submission.title))
    said.append(_rim("Classification", id=ids.next(), classifiedObject=package, classificationNode=_SUBMISSION_SET))
    said.append(_author("author", first.author, None, package, _SET_SCHEMES, ids))
    said.append(_classification(_SET_SCHEMES["content"], _UNDIFFERENTIATED, package, ids))
    numbers = (
        ("patientId", patient_id(first.patient)),
        ("sourceId", submission.sender.source_id),
        ("uniqueId", submission.unique_id),
    )
    said.extend(_external("XDSSubmissionSet", _SET_SCHEMES, name, value, package, ids) for name, value in numbers)
    return said


def _author(
    scheme: str, person: Person, role: str | None, classified: str, schemes: dict[str, str], ids: _Ids
) -> _Element:
    slots = []
    if person.organisation is not None:
        slots.append(_slot("authorInstitution", _xon(person.organisation)))
    slots.append(_slot("authorPerson", _xcn(person)))
    if role is not None:
        slots.append(_slot("authorRole", clean(role)))
        if person.profession is not None:
            known = person.profession
            slots.append(_slot("authorSpecialty", f"{known.code}^{_hl7(known.label)}^{known.system}"))
    return _rim(
        "Classification", *slots,
        id=ids.next(), classifiedObject=classified, classificationScheme=schemes[scheme], nodeRepresentation="",
    )  # fmt: skip


def _classification(scheme: str, value: CodedValue, classified: str, ids: _Ids) -> _Element:
    return _rim(
        "Classification", _slot("codingScheme", value.system), _words("Name", value.label),
        id=ids.next(), classifiedObject=classified, classificationScheme=scheme, nodeRepresentation=value.code,
    )  # fmt: skip


def _external(kind: str, schemes: dict[str, str], name: str, value: str, owner: str, ids: _Ids) -> _Element:
    return _rim(
        "ExternalIdentifier", _words("Name", f"{kind}.{name}", french=False),
        id=ids.next(), registryObject=owner, identificationScheme=schemes[name], value=value,
    )  # fmt: skip


# --- Composite formats of HL7 v2 [spec mssante 2.10] ------------------------------------------------------------------


def _hl7(text: str) -> str:
    return clean(text).replace("\n", " ").translate(_HL7_ESCAPES)


def _utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y%m%d%H%M%S}"


def _xcn(person: Person) -> str:
    kind = "IDNPS" if person.idnps else ""
    authority = f"&{_IDNPS_ROOT}&ISO" if person.idnps else ""
    return f"{person.idnps or ''}^{_hl7(person.family)}^{_hl7(person.given)}^^^^^^{authority}^D^^^{kind}".rstrip("^")


def _xon(house: Organisation) -> str:
    if not house.idnst:
        return _hl7(house.name)
    return f"{_hl7(house.name)}^^^^^&{_IDNST_ROOT}&ISO^IDNST^^^{house.idnst}"


def _cx(number: Identifier, kind: str) -> str:
    return f"{_hl7(number.extension or '')}^^^&{number.root}&ISO^{kind}"


def patient_id(patient: PatientContent) -> str:
    """INS when it is qualified; else the first local number (exchange by derogation, spec mssante 2.12)."""
    if patient.ins is not None and patient.ins_qualified:
        return _cx(patient.ins, "NH")
    if not patient.ipps:
        raise InvalidContent("xdm", "Le patient n’a ni INS qualifiée ni numéro local.", rule=True)
    return _cx(patient.ipps[0], "PI")


def _source_patient_id(patient: PatientContent) -> str:
    return _cx(patient.ipps[0], "PI") if patient.ipps else patient_id(patient)


def _patient_info(patient: PatientContent) -> Iterator[str]:
    yield f"PID-5|{_hl7(patient.birth_family)}^{_hl7(patient.birth_given)}^^^^^L"
    if patient.used_family or patient.used_given:
        family, given = patient.used_family or patient.birth_family, patient.used_given or patient.birth_given
        yield f"PID-5|{_hl7(family)}^{_hl7(given)}^^^^^D"
    yield f"PID-7|{patient.birth_date.replace('-', '')}"
    yield f"PID-8|{'U' if patient.sex == 'UN' else patient.sex}"
