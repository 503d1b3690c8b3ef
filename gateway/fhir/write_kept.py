"""Keeping what a client sent, as sent: whose it is, which patient and which dossier it is about.

[FHIR R4, the elements that name a subject; spec fhir-fr 1.2 to 1.28, 2.1, 4.1]

Promises: the client's elements come back unchanged but for id, versionId and lastUpdated; a resource about a patient is
about one who exists for the caller, and a resource about a dossier is about the same patient, so that it is shown to
exactly those who may see them; what belongs to the national directory or to the RCP's own gateway is refused with its
owner's name. Not promised: any effect beside the keeping.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import not_, select

from gateway.errors import Conflict, Forbidden, InvalidContent
from gateway.fhir.document import Tree
from gateway.fhir.keeping import Kept, Owner, keep
from gateway.fhir.translate.elements import CANONICAL, CISIS, codings, identifiers
from gateway.fhir.translate.inscription import INSCRIPTION_CODE
from gateway.fhir.writing import Operation, Writing
from gateway.identifiers import IdNatPs, system_named
from gateway.model.directory import Organisation, Practitioner
from gateway.model.dossier import Dossier
from gateway.model.imaging import Study
from gateway.model.meeting import Rcp
from gateway.model.person import PatientRecord
from gateway.model.representation import TABLES
from gateway.rcp import access, identity

__all__ = [
    "dossier_about",
    "dossier_key",
    "keep_as_sent",
    "keep_for",
    "patient_about",
    "references_at",
    "require_nobody_elses",
    "require_same_patient",
    "root_key",
]

#: Elements that name the patient of a resource [FHIR R4].
ABOUT: Mapping[str, tuple[str, ...]] = {
    "RelatedPerson": ("patient",),
    "CareTeam": ("subject",),
    "Schedule": ("actor",),
    "Appointment": ("participant.actor",),
    "Condition": ("subject",),
    "ServiceRequest": ("subject",),
    "Task": ("for",),
    "QuestionnaireResponse": ("subject",),
    "Encounter": ("subject",),
    "Observation": ("subject",),
    "DiagnosticReport": ("subject",),
    "ImagingStudy": ("subject",),
    "CarePlan": ("subject",),
    "Composition": ("subject",),
    "DocumentReference": ("subject",),
    "CommunicationRequest": ("subject",),
    "Communication": ("subject",),
    "Consent": ("patient",),
    "List": ("subject",),
    "Group": ("member.entity",),
    "Basic": ("subject",),
}
#: Types that say nothing without a patient.
_NEEDED = frozenset(
    {
        "RelatedPerson",
        "Condition",
        "ServiceRequest",
        "QuestionnaireResponse",
        "Observation",
        "DiagnosticReport",
        "ImagingStudy",
        "CarePlan",
        "Consent",
    }
)
#: Elements by which a resource is about a dossier: they name its ServiceRequest, Task, Encounter or messages.
BASED: Mapping[str, tuple[str, ...]] = {
    "QuestionnaireResponse": ("basedOn",),
    "Task": ("focus", "basedOn", "partOf", "encounter"),
    "Encounter": ("basedOn",),
    "Observation": ("basedOn", "encounter", "focus"),
    "DiagnosticReport": ("basedOn", "encounter"),
    "ImagingStudy": ("basedOn", "encounter"),
    "CarePlan": ("encounter", "supportingInfo"),
    "Composition": ("encounter", "event.detail"),
    "DocumentReference": ("context.encounter", "context.related"),
    "CommunicationRequest": ("basedOn", "about", "encounter"),
    "Communication": ("basedOn", "partOf", "inResponseTo", "about", "encounter"),
    "List": ("encounter",),
    "Provenance": ("target",),
}
_NUMBER = "urn:ietf:rfc:3986"
_OF_A_DOSSIER = frozenset({"ServiceRequest", "Task", "Encounter"})
_RCP_CARE = frozenset({INSCRIPTION_CODE})

#: What the RCP's own gateway writes: the code that tells it (`None`: any), and the elements that name what it holds.
_HOME: Mapping[str, tuple[str | None, frozenset[tuple[str, str]], tuple[str, ...]]] = {
    "Schedule": (None, frozenset(), ("actor",)),
    "Slot": (None, frozenset(), ("schedule",)),
    "Encounter": ("type", _RCP_CARE, ("basedOn",)),
    "Observation": ("code", frozenset({(CISIS, "ORG-125")}), ("basedOn", "encounter", "focus")),
    "CarePlan": (
        "category",
        frozenset({(f"{CANONICAL}/CodeSystem/rcp-plan", "avis-rcp")}),
        ("encounter", "supportingInfo"),
    ),
    "DocumentReference": ("type", frozenset({("http://loinc.org", "34794-8")}), ("context.encounter",)),
    "List": ("code", frozenset({(f"{CANONICAL}/CodeSystem/rcp-liste", "ordre-du-jour")}), ("entry.item",)),
}


def keep_as_sent(writing: Writing, operation: Operation, dossier: Dossier | None = None) -> None:
    """Keep a resource of the caller's organisation.

    Parameters
    ----------
    dossier
        The one that it is about, when the caller knows it already.

    Raises
    ------
    InvalidContent
        ``patient-inconnu``, ``patient-different`` (rules).
    Forbidden
        ``proprietaire``: the national directory's, or the RCP's own gateway's.
    Conflict
        ``etude-tenue``: the images themselves are held here.
    """
    require_nobody_elses(writing, operation)
    record = patient_about(writing, operation)
    dossier = dossier or dossier_about(writing, operation.kind, operation.tree)
    if dossier is not None and record is not None:
        require_same_patient(writing, operation, dossier.record_id, record.id)
    before = operation.before
    if dossier is None and record is not None and before is not None and before.dossier_id is not None:
        # It stays in the dossier that it was written for, and so with that dossier's patient.
        stays = writing.step.session.get_one(Dossier, before.dossier_id)
        require_same_patient(writing, operation, stays.record_id, record.id)
    owner = Owner(
        partner_id=writing.partner.id,
        record_id=record.id if record is not None else dossier.record_id if dossier is not None else None,
        dossier_id=dossier.id if dossier is not None else before.dossier_id if before is not None else None,
    )
    keep_for(writing, operation, operation.tree, owner)


def keep_for(writing: Writing, operation: Operation, tree: Tree, owner: Owner) -> Kept:
    """Keep a tree for its owner, under the operation's id, and tell the trail if that changed anything."""
    key = str(operation.identity)
    found = keep(writing.step.session, operation.kind, key, tree, owner)
    writing.kept[operation.kind, key] = found
    if found.changed:
        writing.step.audit(
            "creation" if found.created else "modification",
            action="C" if found.created else "U",
            persons=(owner.record_id,) if owner.record_id else (),
            dossier=owner.dossier_id,
            object_type=operation.kind,
            object_id=key,
            object_version=str(found.version),
        )
    return found


def references_at(tree: Any, path: str) -> Iterator[Mapping[str, Any]]:
    """Yield the References that stand at a path of names, through lists."""
    name, _, rest = path.partition(".")
    nodes = tree if isinstance(tree, list) else [tree]
    for node in nodes:
        if not isinstance(node, Mapping) or name not in node:
            continue
        if rest:
            yield from references_at(node[name], rest)
        else:
            found = node[name]
            yield from (one for one in (found if isinstance(found, list) else [found]) if isinstance(one, Mapping))


def patient_about(writing: Writing, operation: Operation) -> PatientRecord | None:
    """Find the patient whom a resource is about; `None` when it names none, or several.

    Raises
    ------
    InvalidContent
        ``patient-inconnu`` (rule): it names a Patient who does not exist for the caller, or nobody and it must.
    """
    paths = ABOUT.get(operation.kind)
    if paths is None:
        return _patient_of_targets(writing, operation) if operation.kind == "Provenance" else None
    said = [one for path in paths for one in references_at(operation.tree, path)]
    found = {row.id: row for row in (_patient(writing, operation, paths[0], one) for one in said) if row is not None}
    other = any(not str(one.get("reference", "Patient/")).startswith("Patient/") for one in said)
    if not found and operation.kind in _NEEDED and not other:
        raise _unknown(operation, paths[0])
    return next(iter(found.values())) if len(found) == 1 else None


def _patient(writing: Writing, operation: Operation, path: str, said: Mapping[str, Any]) -> PatientRecord | None:
    reference = said.get("reference")
    if isinstance(reference, str):
        if not reference.startswith("Patient/"):
            return None
        row = writing.patient(reference.removeprefix("Patient/").partition("/")[0])
        if row is None:
            raise _unknown(operation, path)
        return row
    for one in identifiers(said.get("identifier")):
        known = identity.record_of(writing.step.session, writing.partner.id, one.system, one.value)
        if known is not None:
            return known
    return None


def _patient_of_targets(writing: Writing, operation: Operation) -> PatientRecord | None:
    """What is said of resources is shown with them, when they are all about one patient."""
    keys = set()
    for said in references_at(operation.tree, "target"):
        named = writing.local(str(said.get("reference", "")))
        row = _row(writing, *named) if named is not None else None
        keys.add(row.record_id if row is not None else None)
    key = keys.pop() if len(keys) == 1 else None
    return writing.step.session.get(PatientRecord, key) if key is not None else None


def _unknown(operation: Operation, path: str) -> InvalidContent:
    text = "La référence ne désigne aucun patient connu de cet établissement."
    return InvalidContent("patient-inconnu", text, expression=f"{operation.kind}.{path}", rule=True)


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text.partition("/")[0])
    except ValueError:
        return None


def _row(writing: Writing, kind: str, key: str) -> Any | None:
    table = TABLES[kind]
    return writing.step.session.execute(
        select(table.c.record_id, table.c.dossier_id, table.c.root_kind).where(
            table.c.id == key,
            table.c.current,
            not_(table.c.deleted),
            access.representations(writing.step.caller, table),
        )
    ).one_or_none()


def dossier_about(writing: Writing, kind: str, tree: Tree) -> Dossier | None:
    """Find the one dossier that a resource is about, if it exists for the caller; it is not locked."""
    keys = set()
    for path in BASED.get(kind, ()):
        for said in references_at(tree, path):
            key = dossier_key(writing, said)
            if key is not None:
                keys.add(key)
    if len(keys) != 1:
        return None
    key = keys.pop()
    if str(key) in writing.made:
        return writing.made[str(key)]
    return writing.step.session.scalars(
        select(Dossier).where(Dossier.id == key, access.dossiers(writing.step.caller))
    ).one_or_none()


def dossier_key(writing: Writing, said: Mapping[str, Any]) -> uuid.UUID | None:
    """Id of the dossier that a reference leads to: its own resources have its id, the others know it.

    A peer's reference that leads nowhere here is resolved by the number of the inscription [spec fhir-fr 4.2].
    """
    named = writing.local(str(said.get("reference", "")))
    if named is None:
        numbers = [one.value.lower() for one in identifiers(said.get("identifier")) if one.system == _NUMBER]
        found = select(Dossier.id).where(Dossier.number.in_(numbers), access.dossiers(writing.step.caller))
        return writing.step.session.scalars(found).first() if numbers else None
    if named[0] in _OF_A_DOSSIER:
        return _uuid(named[1])
    row = _row(writing, *named)
    return row.dossier_id if row is not None else None


def root_key(operation: Operation) -> uuid.UUID:
    """Id of what a verb will make for a resource.

    Raises
    ------
    InvalidContent
        ``valeur-invalide``: the client named it, and not by a UUID.
    """
    said = str(operation.identity)
    key = _uuid(said)
    if key is None or str(key) != said:
        text = "L’identifiant de cette ressource est un UUID en minuscules."
        raise InvalidContent("valeur-invalide", text, expression=f"{operation.kind}.id")
    return key


def require_same_patient(writing: Writing, operation: Operation, wanted: uuid.UUID, said: uuid.UUID) -> None:
    """Refuse what is said of one patient in the dossier of another.

    Raises
    ------
    InvalidContent
        ``patient-different`` (rule).
    """
    del writing
    if wanted != said:
        text = "Le patient de cet élément n’est pas celui de l’inscription."
        where = f"{operation.kind}.{ABOUT[operation.kind][0]}"
        raise InvalidContent("patient-different", text, expression=where, rule=True)


# What belongs to others


def require_nobody_elses(writing: Writing, operation: Operation) -> None:
    """Refuse what the national directory, the RCP's own gateway or the images held here say.

    Raises
    ------
    Forbidden
        ``proprietaire``.
    Conflict
        ``etude-tenue``.
    """
    known = _KNOWN.get(operation.kind)
    if known is not None and known(writing, operation.tree):
        owner = "l’annuaire national" if operation.kind != "HealthcareService" else "la passerelle de la RCP"
        raise _owned(operation, owner)
    if operation.kind == "ImagingStudy":
        _require_other_images(writing, operation)
    home = _HOME.get(operation.kind)
    if home is not None:
        element, codes, paths = home
        said = operation.tree.get(element) if element is not None else None
        coded = {
            (coding.get("system"), coding.get("code"))
            for one in (said if isinstance(said, list) else [said])
            for coding in codings(one)
        }
        if element is None or coded & codes:
            for path in paths:
                if any(_is_ours(writing, one) for one in references_at(operation.tree, path)):
                    raise _owned(operation, "la passerelle de la RCP")


def _owned(operation: Operation, owner: str) -> Forbidden:
    text = f"Cette ressource {operation.kind} est écrite par {owner} seulement."
    return Forbidden("proprietaire", text, expression=operation.where or operation.kind)


def _is_ours(writing: Writing, said: Mapping[str, Any]) -> bool:
    named = writing.local(str(said.get("reference", "")))
    if named is None or named[0] in {"Patient", "Practitioner", "PractitionerRole", "Organization"}:
        return False
    if named[1] in writing.made:
        return True
    row = _row(writing, *named)
    return row is not None and row.root_kind is not None


def _numbers(tree: Tree, kinds: frozenset[str]) -> list[str]:
    return [one.value for one in identifiers(tree.get("identifier")) if system_named(one.system, one.kind) in kinds]


def _known_practitioner(writing: Writing, tree: Tree) -> bool:
    said = [IdNatPs.from_wire(value).value for value in _numbers(tree, frozenset({"RPPS", "IDNPS"}))]
    found = select(Practitioner.id).where(Practitioner.idnps.in_(said)).limit(1)
    return bool(said) and writing.step.session.scalar(found) is not None


def _known_organisation(writing: Writing, tree: Tree) -> bool:
    said = _numbers(tree, frozenset({"IDNST", "FINEJ", "FINEG"}))
    either = Organisation.idnst.in_(said) | Organisation.finess.in_(said)
    return bool(said) and writing.step.session.scalar(select(Organisation.id).where(either).limit(1)) is not None


def _known_rcp(writing: Writing, tree: Tree) -> bool:
    said = _numbers(tree, frozenset({"RCP"}))
    found = select(Rcp.id).where(Rcp.national_number.in_(said)).limit(1)
    return bool(said) and writing.step.session.scalar(found) is not None


#: Types of which somebody else holds the entries that carry a national number: whether he knows this one.
_KNOWN = {
    "Practitioner": _known_practitioner,
    "Organization": _known_organisation,
    "HealthcareService": _known_rcp,
}


def _require_other_images(writing: Writing, operation: Operation) -> None:
    """Refuse a second ImagingStudy of images that are held here: the one made from them says what they are."""
    said = [
        one.value.removeprefix("urn:oid:")
        for one in identifiers(operation.tree.get("identifier"))
        if one.system == "urn:dicom:uid"
    ]
    held = select(Study.id).where(Study.study_instance_uid.in_(said), access.studies(writing.step.caller)).limit(1)
    if said and writing.step.session.scalar(held) is not None:
        text = "Les images de cette étude sont tenues par la passerelle, qui en écrit la ressource ImagingStudy."
        raise Conflict("etude-tenue", text, expression="ImagingStudy.identifier")
