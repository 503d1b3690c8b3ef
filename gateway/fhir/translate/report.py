"""A validated report, from its frozen facts and its forms to Composition, DocumentReference and Binary.

[FHIR R4 composition, documentreference; IHE MHD; PDSm 3.1.1; CI-SIS FRCP 2022.01; spec fhir-fr 1.14, 1.19, 2.4]

Promises: nothing but the frozen facts and the kept bytes is said, so that a version represented again years later is
the same; a draft is never published; a version that was replaced says so and keeps its own bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from gateway.documents.wording import Part, report_parts
from gateway.fhir.document import instant
from gateway.fhir.translate import published
from gateway.fhir.translate.directory import organization_reference, practitioner_reference
from gateway.fhir.translate.dossier import patient_reference
from gateway.fhir.translate.elements import RCP_CARE, concept, refer, wall, without_empty
from gateway.model.report import Report, ReportForm
from gateway.rcp.report_content import ReportContent, decode

__all__ = ["KeptForm", "binary", "composition", "document_identifier", "document_reference"]

Tree = dict[str, Any]

_LOINC = "http://loinc.org"
_TYPE = {
    "coding": [{"system": _LOINC, "code": "34794-8", "display": "CR de réunion de concertation pluridisciplinaire"}]
}
_CLASS = concept(published.CLASS, "10", "Compte rendu")
# Part of the report → LOINC code of its section [CI-SIS FRCP 2022.01].
_SECTIONS = {
    "raison": "42349-1",
    "decouverte": "42545-4",
    "tumeur": "72135-7",
    "antecedents": "11348-0",
    "comorbidites": "11450-4",
    "etat": "47420-5",
    "examens": "30954-2",
    "phase": "18733-6",
    "traitements": "29554-3",
    "cro": "10218-6",
    "acp": "30954-2",
    "gm": "50397-9",
    "histoire": "10164-2",
    "dossier": "21874-3",
    "proposition": "18776-5",
    "cadre": "35510-7",
    "remarque": "55112-7",
    "statut": "33557-0",
}
_FORMATS = {
    "cda": {
        "system": published.FORMAT,
        "code": "urn:asip:ci-sis:frcp:2011",
        "display": "Fiche de réunion de concertation pluridisciplinaire",
    },
    "pdf": {
        "system": "http://ihe.net/fhir/ihe.formatcode.fhir/CodeSystem/formatcode",
        "code": "urn:ihe:iti:xds:2017:mimeTypeSufficient",
    },
}
#: The version of a document, as R4 says it and as R5 does [spec cda-frcp 11].
_VERSION = (
    "http://hl7.org/fhir/StructureDefinition/composition-clinicaldocument-versionNumber",
    "http://hl7.org/fhir/5.0/StructureDefinition/extension-Composition.version",
)
_DOCUMENT_STATUS = {"valide": "current", "remplace": "superseded", "annule": "entered-in-error"}
_COMPOSITION_STATUS = {"valide": "final", "remplace": "final", "annule": "entered-in-error"}


class KeptForm(NamedTuple):
    """One form of the report with the SHA-1 of its bytes, which XDS metadata ask for."""

    form: ReportForm
    sha1_base64: str


def document_identifier(facts: bytes) -> Tree:
    """Identifier of a version, from its frozen facts: in its CDA, its DocumentReference, its document Bundle."""
    return published.urn(decode(facts).document_id)


def _people(report: Report) -> Tree | None:
    return practitioner_reference(report.validator) if report.validator else None


def _div(lines: Sequence[str]) -> Tree:
    text = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml" xml:lang="fr">{text}</div>'}


def _section(part: Part, entries: Mapping[str, Sequence[Tree]]) -> Tree | None:
    lines = [f"{row.label} : {row.text}" for row in part.read]
    if not lines:
        return None
    code = _SECTIONS.get(part.key)
    return without_empty(
        title=part.title,
        code=concept(_LOINC, code) if code else None,
        text=_div(lines),
        entry=list(entries.get(part.key, ())),
    )


def _entries(report: Report, content: ReportContent) -> Mapping[str, Sequence[Tree]]:
    """Part of the report → the resources that say the same in codes."""
    return {
        "raison": [refer("ServiceRequest", report.dossier_id)],
        "dossier": [refer("Observation", report.id)],
        "proposition": [refer("CarePlan", report.id)] if content.proposals else [],
    }


def composition(report: Report) -> Tree | None:
    """Composition of one version; `None` for a draft."""
    if report.content is None or report.state not in _COMPOSITION_STATUS:
        return None
    content = decode(report.content)
    status = _COMPOSITION_STATUS[report.state]
    if status == "final" and content.version > 1:
        status = "amended"
    author = _people(report) or {"display": "Coordonnateur de la RCP"}
    written = wall(content.written_at, content.zone)
    keeper = report.dossier.session.rcp.organisation
    entries = _entries(report, content)
    return without_empty(
        resourceType="Composition",
        language="fr",
        extension=[{"url": url, "valueString": str(content.version)} for url in _VERSION],
        identifier=published.urn(content.set_id),
        status=status,
        type=_TYPE,
        category=[_CLASS],
        subject=patient_reference(report.dossier.record),
        encounter=refer("Encounter", report.dossier_id),
        date=written,
        author=[author],
        title="Fiche RCP — compte rendu",
        confidentiality="N",
        attester=[{"mode": "legal", "time": written, "party": author}] if report.validator else None,
        custodian=organization_reference(keeper) if keeper is not None else None,
        relatesTo=_replaces(content, "targetIdentifier"),
        event=[
            {
                "code": [RCP_CARE],
                "period": _period(content),
                "detail": [refer("ServiceRequest", report.dossier_id)],
            }
        ],
        section=[said for part in report_parts(content).values() if (said := _section(part, entries))],
    )


def _period(content: ReportContent) -> Tree:
    end = content.meeting.end
    return without_empty(start=wall(content.meeting.start, content.zone), end=wall(end, content.zone) if end else None)


def _replaces(content: ReportContent, target: str) -> list[Tree] | None:
    if content.replaces is None:
        return None
    return [{"code": "replaces", target: published.urn(content.replaces.document_id)}]


def document_reference(report: Report, forms: Sequence[KeptForm], studies: Sequence[str] = ()) -> Tree | None:
    """DocumentReference of one version with every form that readers may fetch; `None` for a draft.

    Parameters
    ----------
    studies
        StudyInstanceUIDs attached to the dossier, for ``context.related``.
    """
    if report.content is None or report.state not in _DOCUMENT_STATUS:
        return None
    content = decode(report.content)
    dossier = report.dossier
    related = [published.study(uid) for uid in studies]
    related.append(published.order(dossier.number))
    written = wall(content.written_at, content.zone)
    replaced = _replaces(content, "target")
    if replaced and report.replaces_id is not None:
        replaced[0]["target"] = refer("DocumentReference", report.replaces_id, replaced[0]["target"])
    elif replaced:
        replaced[0]["target"] = {"identifier": replaced[0]["target"]}
    return without_empty(
        resourceType="DocumentReference",
        masterIdentifier=published.urn(content.document_id),
        identifier=[{"use": "official", **published.urn(content.document_id)}],
        status=_DOCUMENT_STATUS[report.state],
        type=_TYPE,
        category=[_CLASS],
        subject=patient_reference(dossier.record),
        date=instant(content.written_at),
        author=[author for author in (_people(report),) if author],
        description=f"CR de la {content.meeting.rcp} du {content.meeting.start.astimezone(content.tzinfo()):%d/%m/%Y}",
        securityLabel=published.labels(content.visibility),
        relatesTo=replaced,
        content=[
            without_empty(
                attachment=without_empty(
                    contentType=kept.form.content_type,
                    language="fr-FR",
                    url=f"Binary/{kept.form.id}",
                    size=kept.form.size_bytes,
                    hash=kept.sha1_base64,
                    title="Fiche RCP",
                    creation=written,
                ),
                format=_FORMATS[kept.form.form],
            )
            for kept in sorted(forms, key=lambda one: one.form.form)
            if kept.form.form in _FORMATS
        ],
        context=without_empty(
            encounter=[refer("Encounter", report.dossier_id)],
            period=_period(content),
            facilityType=published.frozen(content.meeting.place.facility),
            practiceSetting=published.SETTING,
            related=related,
        ),
    )


def binary(form: ReportForm) -> Mapping[str, Any]:
    """Binary of one form, without its data: the bytes stand in the blob store and are put in at the answer."""
    return {
        "resourceType": "Binary",
        "contentType": form.content_type,
        "securityContext": refer("DocumentReference", form.report_id),
    }
