"""Header of the national report CANCER-FRCP 2022.01: who, whom, when, where, under which numbers.

Promises: the elements of `[CI-SIS FRCP 2022.01]` in schema order; the INS only when it is qualified; every role of the
meeting with the function code that the national example gives it, the treating physician always (null when unknown).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct

from gateway.documents import cda
from gateway.documents.cda import Code, Element, el, null
from gateway.documents.rows import clean
from gateway.rcp.report_content import CodedValue, Identifier, PatientContent, Person, ReportContent

__all__ = ["CODE", "FRCP", "MEMBER", "TREATING", "Model", "board_name", "header", "participant", "patient_ids", "title"]

CODE = Code("34794-8", cda.LOINC, "CR de réunion de concertation pluridisciplinaire")

_TEMPLATES = (
    ("2.16.840.1.113883.2.8.2.1", None),
    ("1.2.250.1.213.1.1.1.1", None),
    ("1.2.250.1.213.1.1.1.8", "2022.01"),
)
_SEXES = {"F": "Féminin", "M": "Masculin", "UN": "Inconnu"}
MEMBER = Code("353", "1.2.250.1.213.1.6.1.107", "Membre de l'équipe de soins")
_CORRESPONDENT = Code("CORRE", "1.2.250.1.213.1.1.4.2.280", "Correspondant")
TREATING = Code("PCP", "2.16.840.1.113883.5.88", "Médecin traitant")
_ACT = Code("39", "1.2.250.1.213.3.3.13", "Réunion de Concertation Pluridisciplinaire (RCP)")
_TOPOGRAPHY = Code("GEN-243", cda.TA, "Topographie")
_NORMAL = Code("N", "2.16.840.1.113883.5.25", "Normal")
_VIRTUAL = Code("VR", "2.16.840.1.113883.5.4", "Virtuelle (exemple : RCP en l'absence du patient)")


class Model(Struct, frozen=True):
    """What one kind of document has of its own in the header that all share."""

    templates: tuple[tuple[str, str | None], ...]
    code: Code
    title: Callable[[ReportContent], str]
    author: str
    participants: Callable[[ReportContent], Iterable[Element]]
    orders: Callable[[ReportContent], Iterable[Element]]
    documentation: Callable[[ReportContent], Iterable[Element]]
    encounter: Callable[[ReportContent], Element]


def board_name(content: ReportContent) -> str:
    """« network / 3C / RCP »: how the national document names a board."""
    meeting = content.meeting
    return " / ".join(clean(part) for part in (meeting.network, meeting.manager, meeting.rcp))


def title(content: ReportContent) -> str:
    """Title of the document in every form."""
    return f"FRCP {board_name(content)}"


def header(content: ReportContent, *, model: Model | None = None) -> Iterator[Element | None]:
    """Give the children of the document before its body, in order; ``model`` says of which document it is."""
    model = model or FRCP
    zone = content.tzinfo()
    written = cda.instant(content.written_at, zone)
    yield el("realmCode", code="FR")
    yield el("typeId", root="2.16.840.1.113883.1.3", extension="POCD_HD000040")
    yield from (el("templateId", root=root, extension=extension) for root, extension in model.templates)
    yield cda.identifier(content.document_id)
    yield cda.code_element(model.code)
    yield el("title", text=model.title(content))
    yield el("effectiveTime", value=written)
    yield cda.code_element(_NORMAL, "confidentialityCode")
    yield el("languageCode", code="fr-FR")
    yield cda.identifier(content.set_id, "setId")
    yield el("versionNumber", value=str(content.version))
    yield _patient(content.patient)
    yield _author(content, written, model.author)
    yield _custodian(content)
    yield el(
        "legalAuthenticator",
        el("time", value=written),
        el("signatureCode", code="S"),
        cda.assigned_entity(content.validator, otherwise=content.meeting.place),
    )
    yield from model.participants(content)
    yield from model.orders(content)
    yield from model.documentation(content)
    if content.replaces is not None:
        parent = el(
            "parentDocument",
            cda.identifier(content.replaces.document_id),
            cda.identifier(content.set_id, "setId"),
            el("versionNumber", value=str(content.replaces.version)),
        )
        yield el("relatedDocument", parent, typeCode="RPLC")
    yield model.encounter(content)


def _orders(content: ReportContent) -> Iterator[Element]:
    comment = content.inscribed_comment
    yield el(
        "inFulfillmentOf",
        el(
            "order",
            cda.identifier(content.inscription),
            el("code", el("originalText", text=clean(comment)), nullFlavor="NA") if comment else None,
        ),
    )


def patient_ids(patient: PatientContent) -> tuple[Identifier, ...]:
    """Give the numbers that a document may carry: the INS only when qualified, then the local ones."""
    ins = (patient.ins,) if patient.ins is not None and patient.ins_qualified else ()
    return (*ins, *patient.ipps)


def _patient(patient: PatientContent) -> Element:
    names = [
        el("family", text=clean(patient.birth_family), qualifier="BR"),
        el("given", text=clean(patient.birth_given_names or patient.birth_given)),
        el("given", text=clean(patient.birth_given), qualifier="BR"),
        el("family", text=clean(patient.used_family), qualifier="CL") if patient.used_family else None,
        el("given", text=clean(patient.used_given), qualifier="CL") if patient.used_given else None,
    ]
    place = [
        el("county", text=patient.birth_place_code) if patient.birth_place_code else None,
        el("city", text=clean(patient.birth_place)) if patient.birth_place else None,
    ]
    return el(
        "recordTarget",
        el(
            "patientRole",
            *(cda.identifier(number) for number in patient_ids(patient)),
            null("addr", "NAV"),
            null("telecom", "NAV"),
            el(
                "patient",
                el("name", *names),
                cda.code_element(
                    CodedValue(patient.sex, "2.16.840.1.113883.5.1", _SEXES[patient.sex]), "administrativeGenderCode"
                ),
                el("birthTime", value=cda.partial(patient.birth_date)),
                el("birthplace", el("place", el("addr", *place))) if any(place) else None,
                classCode="PSN",
            ),
        ),
    )


def _author(content: ReportContent, written: str, role: str) -> Element:
    return el(
        "author",
        cda.code_element(MEMBER, "functionCode", el("originalText", text=role)),
        el("time", value=written),
        cda.assigned_entity(content.coordinator, tag="assignedAuthor", otherwise=content.meeting.place),
    )


def _custodian(content: ReportContent) -> Element:
    keeper = content.custodian
    organisation = el(
        "representedCustodianOrganization",
        el("id", root=cda.IDNST_ROOT, extension=keeper.idnst),
        el("name", text=clean(keeper.name)),
        cda.telecom(keeper.phone),
        cda.address(keeper.address),
    )
    return el("custodian", el("assignedCustodian", organisation))


def _participants(content: ReportContent) -> Iterator[Element]:
    yield participant("RESP", None, "PS Coordonnateur de la RCP", content.coordinator)
    yield participant("REFB", None, "PS Demandeur", content.requester)
    if content.presenter is not None:
        yield participant("PRF", None, "PS Présentateur", content.presenter)
    yield participant("INF", TREATING, "Médecin traitant", content.treating_physician)
    for attendance in content.attendees:
        if attendance.in_quorum:
            yield participant("PRF", MEMBER, "Participant du quorum", attendance.person)
        else:
            yield participant("PRF", _CORRESPONDENT, "Participant hors quorum", attendance.person)
    for person in content.correspondents:
        yield participant("CON", _CORRESPONDENT, "PS Correspondant", person)


def participant(typeCode: str, function: Code | None, role: str, person: Person | None) -> Element:  # noqa: N803 - the attribute's own name
    """Make someone who takes part, under a function and a role in words; null when unknown."""
    words = el("originalText", text=role)
    return el(
        "participant",
        cda.code_element(function, "functionCode", words) if function else el("functionCode", words, nullFlavor="NA"),
        null("time"),
        cda.assigned_entity(
            person,
            tag="associatedEntity",
            organisation_tag="scopingOrganization",
            person_tag="associatedPerson",
            classCode="PROV",
        )
        if person is not None
        else el("associatedEntity", classCode="PROV", nullFlavor="NA"),
        typeCode=typeCode,
    )


def _documentation(content: ReportContent) -> Iterator[Element]:
    zone, meeting = content.tzinfo(), content.meeting
    yield el(
        "documentationOf",
        el(
            "serviceEvent",
            cda.code_element(_ACT, "code", el("originalText", text=board_name(content))),
            cda.interval(cda.instant(meeting.start, zone), cda.instant(meeting.end, zone) if meeting.end else None),
            el("performer", cda.assigned_entity(content.coordinator, otherwise=meeting.place), typeCode="PRF"),
            classCode="ACT",
        ),
    )
    for tumour in content.tumours:
        topography = cda.in_list(tumour.topography, "FRCP-Tumeur")
        if topography is not None:
            code = cda.code_element(topography)
        elif tumour.label:
            code = cda.code_element(_TOPOGRAPHY, "code", el("originalText", text=clean(tumour.label)))
        else:
            continue
        yield el("documentationOf", el("serviceEvent", code, classCode="ACT"))


def _encounter(content: ReportContent) -> Element:
    meeting, place = content.meeting, content.meeting.place
    numbers = (meeting.network_id, meeting.manager_id, meeting.rcp_id, meeting.session_id, *meeting.local_ids)
    facility = el(
        "healthCareFacility",
        el("id", root=cda.IDNST_ROOT, extension=place.idnst) if place.idnst else None,
        cda.code_element(place.facility) if place.facility else None,
        el("location", el("name", text=clean(place.name)), cda.address(place.address)),
    )
    return el(
        "componentOf",
        el(
            "encompassingEncounter",
            *(cda.identifier(number) for number in numbers if number is not None),
            cda.code_element(_VIRTUAL),
            cda.interval(cda.instant(meeting.start, content.tzinfo())),
            el("location", facility),
        ),
    )


FRCP = Model(
    _TEMPLATES, CODE, title, "Médecin coordonnateur de la RCP", _participants, _orders, _documentation, _encounter
)
"""The structured report itself."""
