"""The personalised care plan as the national CDA R2 document CANCER-PPS 2022.01, from its facts.

Promises: the same facts give the same bytes; diagnosis, discovery and phase are the very sections of the report that
the plan follows; each kind of care is of its national set and bears the set's label, or the plan is refused; every
entry points at the row that says the same in words. Accepted by the national rules (proved in the contract tests). Not
promised: a life cycle (`gateway.rcp.pps`), or a PDF of the plan. `[spec cda-frcp 9]`
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from gateway.documents import cda, frcp_checks, pps_words
from gateway.documents.cda import LOINC, SNOMED, TA, Code, Element, Elements, Entries, el, null, related
from gateway.documents.frcp_header import MEMBER, TREATING, Model, header, participant
from gateway.documents.frcp_sections import problem, section
from gateway.documents.rows import Part
from gateway.documents.wording import report_parts
from gateway.rcp.pps_content import Contact, PlannedCare, PpsContent
from gateway.rcp.report_content import CodedValue, ReportContent
from gateway.terminology import code_list

__all__ = ["MIME_TYPE", "render"]

MIME_TYPE = "text/xml"

_CODE = Code("18776-5", LOINC, "Plan personnalisé de soins")
_TEMPLATES = (
    ("2.16.840.1.113883.2.8.2.1", None),
    ("1.2.250.1.213.1.1.1.1", None),
    ("1.2.250.1.213.1.1.1.26", "2022.01"),
)
_CARE = {
    # Category → the class that the model gives it, and the national set of its kinds.
    "traitement": (Code("MED-568", TA, "Traitement"), "PPS-TypeTraitement"),
    "effets-secondaires": (
        Code("MED-569", TA, "Action de prévention et de gestion médicamenteuse des effets secondaires"),
        "PPS-EffetsSecondaires",
    ),
    "mesure": (Code("MED-570", TA, "Mesure associée"), "PPS-MesuresAssociees"),
    "suivi": (Code("MED-571", TA, "Suivi"), "PPS-TypeSuivi"),
    "soins-support": (Code("MED-572", TA, "Soin oncologique de support"), "PPS-SoinsSupport"),
    "accompagnement": (
        Code("MED-573", TA, "Accompagnement social ou socioprofessionnel"),
        "PPS-AccompagnementSocial",
    ),
}
_ROLES = {
    "reference": Code("ORG-177", TA, "Etablissement de santé de référence"),
    "proximite": Code("ORG-178", TA, "Structure et professionnels de proximité impliqués dans les soins"),
    "coordination": Code("ORG-179", TA, "Structure de coordination ou d'interface ville-hôpital"),
    "social": Code("ORG-180", TA, "Organisme social et de maintien dans l'emploi"),
    "soutien": Code("ORG-181", TA, "Structure de soutien et d'information"),
    "mediateur": Code(
        "ORG-188", TA, "Structures et professionnels de proximité impliqués dans les soins - Médiateur de santé"
    ),
    "3c": Code("ORG-190", TA, "Centre de coordination de cancérologie (3C)"),
    "reseau": Code("ORG-191", TA, "Réseau régional de cancérologie (RRC)"),
}
_CORRESPONDENT = Code("CORRE", "1.2.250.1.213.1.1.4.2.280", "Correspondant")
_STATUS = {"en-cours": "385651009", "approuve": "9571008"}
_PLAN_TEMPLATES = ("2.16.840.1.113883.10.20.1.10", "1.3.6.1.4.1.19376.1.5.3.1.3.36", "1.2.250.1.213.1.1.2.158")
_COMMENT_TEMPLATES = ("2.16.840.1.113883.10.12.201", "1.3.6.1.4.1.19376.1.4.1.2.16", "1.2.250.1.213.1.1.2.73")
_REASON_TEMPLATES = (
    "1.3.6.1.4.1.19376.1.5.3.1.3.1",
    "1.3.6.1.4.1.19376.1.5.3.1.3.2",
    "1.2.250.1.213.1.1.2.128",
)
_ACT = ("1.3.6.1.4.1.19376.1.5.3.1.4.19", "1.2.250.1.213.1.1.3.62")
_DONE, _PLANNED = "2.16.840.1.113883.10.20.1.29", "2.16.840.1.113883.10.20.1.25"
_RULES = frozenset(frcp_checks.RULES) - {
    # What a plan does not have: the FRCP's own template, the board and who sat at it, treatments by the FRCP's list.
    *("FRCP-01", "FRCP-02", "FRCP-03", "FRCP-08", "FRCP-09", "FRCP-12", "FRCP-21")
}


def render(plan: PpsContent) -> bytes:
    """Write the document.

    Raises
    ------
    InvalidContent
        ``code-inconnu`` for a care or a reason of no national set; ``report-frcp`` with the checks that failed.
    """
    for i, care in enumerate(plan.care):
        code_list(_CARE[care.category][1]).require(care.kind.code, expression=f"care[{i}].kind")
    if plan.update_reason is not None:
        code_list("PPS-MotifMiseAJour").require(plan.update_reason.code, expression="update_reason")
    report = replace(
        plan.report,
        document_id=plan.document_id,
        set_id=plan.set_id,
        version=plan.version,
        replaces=plan.replaces,
        status=plan.status,
        written_at=plan.written_at,
        coordinator=plan.author,
        validator=plan.author,
    )
    entries = Entries(plan.document_id)
    body = el("structuredBody", *(el("component", made) for made in _sections(plan, report, entries) if made))
    made = cda.document(*header(report, model=_model(plan)), el("component", body))
    return frcp_checks.require(made, _RULES)


# --- Header --------------------------------------------------------------------------------------------------------


def _model(plan: PpsContent) -> Model:
    return Model(
        _TEMPLATES,
        _CODE,
        lambda _report: "PROGRAMME PERSONNALISÉ DE SOINS EN CANCEROLOGIE",
        "Médecin responsable du programme",
        lambda report: _participants(plan, report),
        lambda _report: (),
        _documentation,
        _encounter,
    )


def _participants(plan: PpsContent, report: ReportContent) -> Iterable[Element]:
    yield _contact(Contact(role="reference", person=plan.author), typeCode="RESP", function=None)
    yield participant("INF", TREATING, "Médecin traitant", report.treating_physician)
    for contact in plan.contacts:
        known = contact.person is not None and contact.person.idnps
        yield _contact(contact, typeCode="PRF", function=MEMBER if known else _CORRESPONDENT)


def _contact(contact: Contact, *, typeCode: str, function: Code | None) -> Element:  # noqa: N803 - the attribute's own name
    role = _ROLES[contact.role]
    words = (el("originalText", text=role.label), cda.code_element(role, "translation"))
    if contact.person is not None:
        entity = cda.assigned_entity(
            contact.person,
            tag="associatedEntity",
            organisation_tag="scopingOrganization",
            person_tag="associatedPerson",
            otherwise=contact.organisation,
            classCode="PROV",
        )
    else:
        place = contact.organisation
        entity = el(
            "associatedEntity",
            cda.address(place.address if place else None),
            cda.telecom(place.phone if place else None),
            cda.organisation(place, "scopingOrganization") if place else None,
            classCode="PROV",
        )
    return el(
        "participant",
        cda.code_element(function, "functionCode", *words) if function else el("functionCode", *words, nullFlavor="NA"),
        null("time"),
        entity,
        typeCode=typeCode,
    )


def _documentation(report: ReportContent) -> Iterable[Element]:
    written = cda.instant(report.written_at, report.tzinfo())
    performer = el("performer", cda.assigned_entity(report.validator, otherwise=report.meeting.place), typeCode="PRF")
    yield el("documentationOf", el("serviceEvent", cda.interval(written), performer, classCode="ACT"))


def _encounter(report: ReportContent) -> Element:
    facility = report.meeting.place.facility
    return el(
        "componentOf",
        el(
            "encompassingEncounter",
            null("effectiveTime"),
            el("location", el("healthCareFacility", cda.code_element(facility) if facility else None)),
        ),
    )


# --- Body ----------------------------------------------------------------------------------------------------------


def _sections(plan: PpsContent, report: ReportContent, entries: Entries) -> Iterator[Element | None]:
    parts = {**report_parts(report), **pps_words.parts(plan)}
    comment, notice = Code("55112-7", LOINC, "Commentaire"), Code("GEN-294", TA, "Information pour le patient")
    on_patient = Code("GEN-293", TA, "Commentaire sur le patient")
    yield _section(parts["patient"], comment, _COMMENT_TEMPLATES, entries, translation=on_patient)
    reason = Code("42349-1", LOINC, "Raison de la recommandation")
    yield _section(parts["pediatrie"], reason, _REASON_TEMPLATES, entries, *_paediatrics(report, parts, entries))
    for key in ("tumeur", "decouverte", "phase"):
        yield section(key, report, parts[key], entries)
    programme, support = parts["programme"], parts["support"]
    code = Code("18776-5", LOINC, "Plan de soins")
    yield _section(
        programme,
        code,
        _PLAN_TEMPLATES,
        entries,
        *_care(plan, pps_words.PROGRAMME, programme, entries),
        *_stop(plan, entries),
        translation=Code("MED-566", TA, "Programme thérapeutique et de suivi"),
    )
    label = "Soins oncologiques de support, accompagnement social et socioprofessionnel"
    made = _care(plan, pps_words.SUPPORT, support, entries)
    yield _section(support, code, _PLAN_TEMPLATES, entries, *made, translation=Code("MED-567", TA, label))
    status = Code("33557-0", LOINC, "Etat d'achèvement")
    yield _section(parts["statut"], status, ("1.2.250.1.213.1.1.2.35",), entries, *_status(plan, report, entries))
    quoted = Code("55107-7", LOINC, "Documents référencés")
    yield _section(parts["documents"], quoted, ("1.2.250.1.213.1.1.2.55",), entries, _documents(plan, entries))
    yield _section(parts["notice"], comment, _COMMENT_TEMPLATES, entries, translation=notice)


def _section(
    part: Part,
    code: Code,
    templates: tuple[str, ...],
    entries: Entries,
    *made: Element,
    translation: Code | None = None,
) -> Element | None:
    """Make a section, or nothing of a part that says nothing."""
    if not part.rows:
        return None
    meaning = cda.code_element(translation, "translation") if translation else None
    return el(
        "section",
        cda.templates(*templates),
        entries.id(),
        cda.code_element(code, "code", meaning),
        el("title", text=part.title),
        cda.narrative(part),
        *(el("entry", entry) for entry in made),
    )


def _paediatrics(report: ReportContent, parts: dict[str, Part], entries: Entries) -> Elements:
    comment = [entries.comment("pediatrie-commentaire")] if parts["pediatrie"].anchor("pediatrie-commentaire") else []
    answer = entries.observation(
        Code("ORG-116", TA, "Pédiatrie"),
        "pediatrie",
        cda.yes_no(report.paediatric_board),
        *related("SUBJ", *comment, inverted=True),
    )
    return [answer, problem("pediatrie", entries)]


def _care(plan: PpsContent, categories: tuple[str, ...], part: Part, entries: Entries) -> Elements:
    return [
        _one(care, f"soin-{i}", part, entries) for i, care in enumerate(plan.care, 1) if care.category in categories
    ]


def _one(care: PlannedCare, anchor: str, part: Part, entries: Entries) -> Element:
    category, set_name = _CARE[care.category]
    kind = cda.of_list(set_name, care.kind.code)
    expected = []
    if care.expected_from or care.expected_to:
        expected.append(
            entries.observation(
                Code("GEN-177", TA, "Date(s) prévisionnelle(s)"),
                anchor,
                null("value", "NA", xsi="CD"),
                when=_period(care.expected_from, care.expected_to),
            )
        )
    comment = part.anchor(f"{anchor}-commentaire")
    return el(
        "procedure",
        cda.templates(_ACT[0], _DONE if care.done else _PLANNED, _ACT[1]),
        entries.id(),
        cda.code_element(category, "code", el("qualifier", cda.code_element(kind, "value"))),
        cda.reference(anchor),
        cda.COMPLETED if care.done else el("statusCode", code="active"),
        _period(care.start, care.end),
        el("performer", cda.assigned_entity(care.performer), typeCode="PRF") if care.performer else None,
        *related("COMP", *expected, inverted=False),
        *related("SUBJ", entries.comment(comment) if comment else None, inverted=True),
        classCode="PROC",
        moodCode="EVN" if care.done else "INT",
        negationInd="false",
    )


def _period(start: str | None, end: str | None) -> Element:
    if not start and not end:
        return null("effectiveTime")
    return cda.interval(cda.partial(start) if start else None, cda.partial(end) if end else None)


def _stop(plan: PpsContent, entries: Entries) -> Elements:
    if plan.stopped is None:
        return []
    code = Code("MED-052", TA, "Arrêt de tous les traitements actifs")
    return [entries.observation(code, "arret", cda.yes_no(plan.stopped), when=_day(plan.stopped_on))]


def _day(day: str | None) -> Element:
    return el("effectiveTime", value=cda.partial(day)) if day else null("effectiveTime")


def _status(plan: PpsContent, report: ReportContent, entries: Entries) -> Elements:
    zone = report.tzinfo()
    written = el("effectiveTime", value=cda.instant(plan.written_at, zone))
    met = f"{report.meeting.start.astimezone(zone):%Y%m%d}"
    made = [
        entries.observation(
            Code("GEN-065", TA, "Statut du document"),
            "statut-document",
            cda.cd(CodedValue(_STATUS[plan.status], SNOMED, code_list("FRCP-StatutDoc").label(_STATUS[plan.status]))),
            when=written,
            models=("1.2.250.1.213.1.1.3.48.16",),
        )
    ]
    if plan.update_reason is not None:
        reason = cda.listed("PPS-MotifMiseAJour", plan.update_reason.code)
        made.append(entries.observation(Code("GEN-037", TA, "Motif de mise à jour"), "motif-maj", reason, when=written))
    dates = [(Code("ORG-189", TA, "Date de la RCP"), "date-rcp", met)]
    if plan.given_on:
        given = Code("GEN-178", TA, "Date de remise du document au patient")
        dates.append((given, "date-remise", cda.partial(plan.given_on)))
    for code, anchor, day in dates:
        value = el("value", xsi="EIVL_TS", value=day)
        made.append(entries.observation(code, anchor, value, when=el("effectiveTime", value=day)))
    return made


def _documents(plan: PpsContent, entries: Entries) -> Element:
    return el(
        "act",
        cda.templates("1.3.6.1.4.1.19376.1.5.3.1.4.4", "1.2.250.1.213.1.1.3.35"),
        entries.id(),
        null("code", "NA"),
        cda.reference("document-1"),
        el(
            "reference",
            el(
                "externalDocument",
                cda.identifier(plan.report.document_id),
                cda.reference("document-1"),
                classCode="DOC",
                moodCode="EVN",
            ),
            typeCode="REFR",
        ),
        classCode="ACT",
        moodCode="EVN",
    )
