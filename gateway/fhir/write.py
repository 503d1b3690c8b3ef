"""Creating and updating over FHIR: what a client sent becomes verbs' facts or is kept as sent.

[FHIR R4 http#create, #ccreate, #update, #cond-update; spec fhir-fr 3.1, 4.1; DECISIONS 6, 10, 17]

One `Writing` lives in one step. Each type has one owner, the only writer: `_HANDLERS` holds the types that a client may
write and what becomes of each; `OWNERS` says of the others whose they are.

Promises: the client's elements come back unchanged but for id, versionId and lastUpdated; the same content again makes
no new version; a condition that a client states (If-None-Exist, a search in the URL, If-Match) is judged in the same
transaction as its effect. Not promised: any effect before the step's commit.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

from sqlalchemy import func, not_, select

from gateway.errors import Conflict, Fault, Forbidden, InvalidContent, NotFound, Unsupported
from gateway.fhir import document, search
from gateway.fhir.auth_scopes import require_scope
from gateway.fhir.document import Tree
from gateway.fhir.represent import Kept, Owner, Representer, current, keep
from gateway.fhir.translate.elements import Resolve, identifiers
from gateway.fhir.translate.inscription import form_facts, inscription_facts, is_inscription
from gateway.fhir.translate.patient import INS_SYSTEMS, patient_facts
from gateway.identifiers import uuid7
from gateway.model.directory import Organisation, Practitioner
from gateway.model.dossier import Dossier
from gateway.model.partner import Partner
from gateway.model.person import PatientRecord
from gateway.model.representation import TABLES
from gateway.rcp import access, identity, inscription
from gateway.rcp.access import CallerKind
from gateway.rcp.step import Step

__all__ = ["OWNERS", "WRITABLE", "Done", "Operation", "Writing"]

#: Whose the other types are [spec fhir-fr 4.1]; the text of the refusal.
OWNERS: Mapping[str, str] = {
    "HealthcareService": "la passerelle de la RCP",
    "Appointment": "la passerelle de la RCP",
    "Encounter": "la passerelle de la RCP",
    "Composition": "la passerelle de la RCP",
    "DocumentReference": "la passerelle de la RCP",
    "Binary": "la passerelle de la RCP",
    "Communication": "la passerelle qui envoie",
    "ImagingStudy": "la passerelle, à partir des images reçues",
    "Endpoint": "la passerelle",
    "Location": "la passerelle de la RCP",
    "Practitioner": "l’annuaire national",
    "PractitionerRole": "l’annuaire national",
    "Organization": "l’annuaire national",
    "AuditEvent": "la passerelle, en lecture seule",
}
#: Types on which a version-aware update is required [spec fhir-fr 3.1].
_VERSION_AWARE = frozenset({"Task"})


@dataclass(slots=True)
class Operation:
    """One create or update, alone or as a Bundle entry.

    Attributes
    ----------
    query
        Search of a conditional create (``If-None-Exist``) or update, without ``?``.
    identity
        Logical id, once known.
    before
        The current row of what the operation concerns, when it exists.
    where
        FHIRPath of the resource in its carrier, for refusals.
    """

    method: str
    kind: str
    tree: Tree
    query: str | None = None
    identity: str | None = None
    if_match: str | None = None
    if_none_match: str | None = None
    where: str | None = None
    before: Any | None = None
    untouched: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one operation."""

    status: int
    kind: str
    id: str
    version: int
    updated_at: datetime
    body: bytes


@dataclass(slots=True)
class Writing:
    """All that one step writes over FHIR.

    Parameters
    ----------
    step
        The open step; its caller is a client or a peer with a partner.
    base_url
        Our FHIR base, to make absolute references to ourselves relative.
    """

    step: Step
    representer: Representer
    base_url: str
    sent: dict[tuple[str, str], Tree] = field(default_factory=dict)
    kept: dict[tuple[str, str], Kept] = field(default_factory=dict)
    trees: dict[str, Tree] = field(default_factory=dict)
    made: dict[str, Dossier] = field(default_factory=dict)
    _partner: Partner | None = None

    @property
    def partner(self) -> Partner:
        """Organisation for which the caller writes.

        Raises
        ------
        Forbidden
            ``ecriture-reservee``: a person or an unknown caller writes nothing over FHIR.
        """
        if self._partner is None:
            caller = self.step.caller
            found = self.step.session.get(Partner, caller.partner_id) if caller.partner_id else None
            if found is None or caller.kind not in {CallerKind.CLIENT, CallerKind.PEER}:
                text = "L’écriture par FHIR est réservée aux logiciels des établissements partenaires."
                raise Forbidden("ecriture-reservee", text)
            self._partner = found
        return self._partner

    # What is concerned

    def visible(self, kind: str, table: Any) -> Any:
        """Rows of a type that exist for the caller."""
        del kind
        return access.representations(self.step.caller, table)

    def matches(self, kind: str, query: str, *, limit: int = 2) -> list[Any]:
        """Current rows that a condition names, among those that the caller may see.

        A transaction-long lock on the condition makes it hold until the effect is committed.
        """
        pairs = parse_qsl(query, keep_blank_values=True)
        if not pairs:
            text = "La condition est vide : elle désignerait toutes les ressources."
            raise InvalidContent("condition-vide", text)
        lock = f"fhir|{kind}|{query}"
        self.step.session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(lock, 0))))
        table = TABLES[kind]
        asked = search.parse(kind, pairs, visible=self.visible, strict=True)
        statement = select(table).where(
            table.c.current, not_(table.c.deleted), access.representations(self.step.caller, table), asked.where
        )
        return list(self.step.session.execute(statement.limit(limit)).all())

    def locate(self, operation: Operation) -> None:
        """Find what an operation concerns and judge its conditions; ids of what is new are made here.

        Raises
        ------
        Conflict
            ``plusieurs-correspondances``, ``version-perimee``, ``existe-deja``.
        NotFound, Unsupported, InvalidContent
            Unknown id, creation under a client's id, id of the body that is not the URL's.
        """
        if operation.query is not None:
            self._locate_by_condition(operation)
        elif operation.method == "PUT":
            self._locate_by_id(operation)
        self._judge_versions(operation)
        letter = "u" if operation.before is not None and operation.method == "PUT" else "c"
        require_scope(self.step.caller, operation.kind, letter)
        if operation.kind not in WRITABLE and not operation.untouched:
            owner = OWNERS.get(operation.kind)
            if owner is None or operation.kind == "AuditEvent":
                raise Unsupported("ecriture-non-offerte", f"Écriture non offerte pour le type {operation.kind}.")
            text = f"Les ressources {operation.kind} sont écrites par {owner} seulement."
            raise Forbidden("proprietaire", text, expression=operation.where or operation.kind)
        if operation.before is not None and operation.method == "PUT":
            self._require_owner(operation)
        if operation.identity is None and operation.kind not in {"Patient", "Task"}:
            operation.identity = str(uuid7())

    def _locate_by_condition(self, operation: Operation) -> None:
        query = operation.query or ""
        if operation.kind == "Patient" and any(
            system in value for _, value in parse_qsl(query) for system in INS_SYSTEMS
        ):
            text = "L’INS ne peut pas servir de clé d’écriture : utilisez l’identifiant de l’établissement (IPP)."
            raise InvalidContent("cle-ins", text, expression="Patient.identifier", rule=True)
        found = self._directory(operation.kind, query) or self.matches(operation.kind, query)
        if len(found) > 1:
            text = "Plusieurs ressources correspondent à la condition."
            raise Conflict("plusieurs-correspondances", text, precondition=True)
        if not found:
            return
        operation.before = found[0]
        # A directory entry is the national directory's: a client's copy is recognised and left aside.
        operation.untouched = operation.method == "POST" or operation.kind in {"Practitioner", "Organization"}
        said = operation.tree.get("id")
        if operation.method == "PUT" and said is not None and said != operation.before.id:
            text = "L’identifiant du corps n’est pas celui de la ressource que la condition désigne."
            raise InvalidContent("identifiant-different", text, expression=f"{operation.kind}.id")
        operation.identity = operation.before.id

    def _directory(self, kind: str, query: str) -> list[Any]:
        """Entries of the directory by national number: they become resources when first referenced."""
        if kind not in {"Practitioner", "Organization"}:
            return []
        values = [value.rpartition("|")[2] for name, value in parse_qsl(query) if name == "identifier"]
        row: Practitioner | Organisation | None
        if kind == "Practitioner":
            number = Practitioner.idnps.in_([*values, *(f"8{value}" for value in values)])
            row = self.step.session.scalars(select(Practitioner).where(number)).first()
        else:
            known = Organisation.idnst.in_(values) | Organisation.finess.in_(values)
            row = self.step.session.scalars(select(Organisation).where(known)).first()
        if row is None:
            return []
        self.kept.update(self.representer.keep(self.step.session, [row], {}))
        return [current(self.step.session, kind, str(row.id))]

    def _locate_by_id(self, operation: Operation) -> None:
        if operation.tree.get("id") != operation.identity:
            text = "L’identifiant du corps doit être celui de l’URL."
            raise InvalidContent("identifiant-different", text, expression=f"{operation.kind}.id")
        table = TABLES[operation.kind]
        statement = select(table).where(
            table.c.id == operation.identity, table.c.current, access.representations(self.step.caller, table)
        )
        operation.before = self.step.session.execute(statement).one_or_none()
        if operation.before is None:
            text = (
                "Ressource inconnue ; une création se fait par POST, ou par PUT avec une condition sur l’identifiant."
            )
            raise Unsupported("creation-par-id", text, expression=f"{operation.kind}.id")
        if operation.before.deleted:
            raise NotFound("ressource-supprimee", "Ressource supprimée.")

    def _judge_versions(self, operation: Operation) -> None:
        before = operation.before
        if operation.if_none_match == "*" and before is not None:
            raise Conflict("existe-deja", "La ressource existe déjà.", precondition=True)
        if operation.if_match is not None:
            wanted = operation.if_match.strip().removeprefix("W/").strip('"')
            held = str(before.version) if before is not None else "aucune"
            if wanted != held:
                text = f"Version périmée : {held} au lieu de celle attendue par If-Match."
                raise Conflict("version-perimee", text, precondition=True)
        elif before is not None and operation.method == "PUT" and operation.kind in _VERSION_AWARE:
            text = "Cette ressource se met à jour avec l’en-tête If-Match."
            raise InvalidContent("version-exigee", text, expression=operation.kind)

    def _require_owner(self, operation: Operation) -> None:
        if operation.untouched or operation.kind == "Task":
            return
        if operation.before is not None and operation.before.partner_id != self.partner.id:
            text = "Cette ressource appartient à un autre établissement ; elle n’est écrite que par lui."
            raise Forbidden("proprietaire", text, expression=operation.where or operation.kind)

    # What is done

    def resolve(self) -> Resolve:
        """Find what a literal reference names: in this step, else among what the caller may see."""

        def find(reference: str) -> Tree | None:
            if reference in self.trees:
                return self.trees[reference]
            kind, _, key = reference.partition("/")
            if kind not in TABLES or not key:
                return None
            table = TABLES[kind]
            row = self.step.session.execute(
                select(table.c.body).where(
                    table.c.id == key.partition("/")[0],
                    table.c.current,
                    not_(table.c.deleted),
                    access.representations(self.step.caller, table),
                )
            ).one_or_none()
            return document.parse(row.body) if row is not None else None

        return find

    def localise(self, tree: Tree) -> None:
        """Make references to ourselves relative, in place: stored bytes hold no base URL of ours."""
        for _, reference in document.references(tree):
            text = reference["reference"]
            if text.startswith(self.base_url + "/"):
                reference["reference"] = text[len(self.base_url) + 1 :]

    def apply(self, operation: Operation) -> None:
        """Carry out one located operation."""
        if operation.untouched:
            return
        self.partner  # noqa: B018 - refuses whoever may not write, before any effect
        operation.tree = document.strip_server_meta(operation.tree)
        self.localise(operation.tree)
        _HANDLERS[operation.kind](self, operation)
        if operation.identity is None:
            raise Fault("sans-identite", "La ressource écrite n’a pas reçu d’identifiant.")
        self.trees[f"{operation.kind}/{operation.identity}"] = operation.tree

    def finish(self) -> None:
        """Represent what the verbs touched; `Steps` then finds nothing left to do."""
        self.step.session.flush()
        roots = tuple(self.step.roots.values())
        self.step.roots.clear()
        self.kept.update(self.representer.keep(self.step.session, roots, self.sent))

    def done(self, operation: Operation) -> Done:
        """Say what became of an operation, after `finish`."""
        key = (operation.kind, operation.identity or "")
        found = self.kept.get(key)
        if found is not None:
            created = found.created and not operation.untouched
            return Done(201 if created else 200, *key, found.version, found.updated_at, found.body)
        row = current(self.step.session, *key)
        if row is None:
            raise Fault("sans-representation", "La ressource écrite n’est pas représentée.")
        return Done(200, *key, row.version, row.updated_at, row.body)

    def patient_of(self, operation: Operation, *names: str) -> PatientRecord | None:
        """Record of the patient whom a resource is about.

        Raises
        ------
        InvalidContent
            ``patient-inconnu`` (rule): the reference names no patient that exists for the caller.
        """
        for name in names:
            said = operation.tree.get(name)
            reference = said.get("reference") if isinstance(said, dict) else None
            if not isinstance(reference, str) or not reference.startswith("Patient/"):
                continue
            try:
                key = uuid.UUID(reference.removeprefix("Patient/").partition("/")[0])
            except ValueError:
                key = None
            row = (
                key
                and self.step.session.scalars(
                    select(PatientRecord).where(PatientRecord.id == key, access.records(self.step.caller))
                ).one_or_none()
            )
            if row:
                return row
            raise self._no_patient(operation, name)
        return None

    def require_patient(self, operation: Operation, *names: str) -> PatientRecord:
        """`patient_of`, refused when the resource names no patient at all."""
        found = self.patient_of(operation, *names)
        if found is None:
            raise self._no_patient(operation, names[0])
        return found

    def _no_patient(self, operation: Operation, name: str) -> InvalidContent:
        text = "La référence ne désigne aucun patient connu de cet établissement."
        return InvalidContent("patient-inconnu", text, expression=f"{operation.kind}.{name}", rule=True)


def _write_patient(writing: Writing, operation: Operation) -> None:
    facts = patient_facts(operation.tree, writing.resolve())
    key = identity.own_identifier(writing.partner, facts)
    known = identity.record_of(writing.step.session, writing.partner.id, key.system, key.value)
    if operation.before is not None and (known is None or str(known.id) != operation.before.id):
        text = "L’identifiant de l’établissement ne peut pas changer sur un patient existant."
        raise Conflict("cle-modifiee", text, expression="Patient.identifier")
    if operation.query is not None and not _satisfies(operation):
        text = "Le patient ne porte pas l’identifiant que la condition désigne."
        raise InvalidContent("condition-non-satisfaite", text, expression="Patient.identifier", rule=True)
    treating = (known.treating_idnps, known.treating_display) if known is not None else None
    record = identity.declare(
        writing.step,
        writing.partner,
        facts,
        key=key,
        new=operation.before is None and operation.query is None,
    )
    if treating is not None and treating != (record.treating_idnps, record.treating_display):
        inscription.follow_patient(writing.step, record)
    operation.identity = str(record.id)
    writing.sent["Patient", operation.identity] = operation.tree


def _satisfies(operation: Operation) -> bool:
    """Whether the resource carries an identifier of its condition: else writing again would make a second one."""
    wanted = {value for name, value in parse_qsl(operation.query or "") if name == "identifier"}
    carried = {f"{said.system}|{said.value}" for said in identifiers(operation.tree.get("identifier"))}
    return not wanted or bool(wanted & carried)


def _write_request(writing: Writing, operation: Operation) -> None:
    if not is_inscription(operation.tree):
        _keep_as_sent(writing, operation)
        return
    resolve = writing.resolve()
    record = writing.require_patient(operation, "subject")
    if record.partner_id != writing.partner.id:
        text = "Le patient inscrit doit être un patient de l’établissement qui l’inscrit."
        raise Forbidden("proprietaire", text, expression="ServiceRequest.subject")
    tumour = _referred(operation.tree, "reasonReference", "Condition", resolve)
    form = _form_of(writing, operation, resolve)
    facts = inscription_facts(operation.tree, tumour=tumour, form=form, resolve=resolve)
    key = uuid.UUID(operation.identity)
    if operation.before is None:
        dossier = inscription.inscribe(writing.step, record, facts, partner=writing.partner, key=key)
        writing.made[str(dossier.id)] = dossier
    else:
        [dossier] = writing.step.lock(Dossier, key)
        if operation.tree["status"] in {"revoked", "entered-in-error"} and dossier.state != "annule":
            inscription.cancel(writing.step, dossier)
        elif dossier.state != "annule":
            inscription.amend(writing.step, dossier, facts)
        writing.step.touch(dossier)
    writing.sent["ServiceRequest", str(key)] = operation.tree


def _referred(tree: Tree, name: str, kind: str, resolve: Resolve) -> Tree | None:
    for reference in tree.get(name, ()):
        text = reference.get("reference", "")
        if text.startswith(f"{kind}/"):
            return dict(found) if (found := resolve(text)) is not None else None
    return None


def _form_of(writing: Writing, operation: Operation, resolve: Resolve) -> Tree | None:
    """The form that came with the inscription: named by it, or naming it."""
    named = _referred(operation.tree, "supportingInfo", "QuestionnaireResponse", resolve)
    if named is not None:
        return named
    here = f"ServiceRequest/{operation.identity}"
    for reference, tree in writing.trees.items():
        if reference.startswith("QuestionnaireResponse/") and any(
            based.get("reference") == here for based in tree.get("basedOn", ())
        ):
            return tree
    return None


def _write_task(writing: Writing, operation: Operation) -> None:
    """Take a requester's Task as his view of the dossier's own Task: he may cancel it and add inputs and notes."""
    about: Tree = operation.tree.get("focus") or next(iter(operation.tree.get("basedOn", ())), {})
    reference = str(about.get("reference", ""))
    dossier = _dossier_of(writing, reference)
    if dossier is None:
        text = "La tâche doit désigner une inscription connue (focus ou basedOn vers un ServiceRequest)."
        raise InvalidContent("inscription-inconnue", text, expression="Task.focus", rule=True)
    operation.identity = str(dossier.id)
    known = current(writing.step.session, "Task", operation.identity)
    if operation.before is not None and operation.before.id != operation.identity:
        raise Conflict("cle-modifiee", "Une tâche ne change pas de dossier.", expression="Task.focus")
    if operation.method == "POST" and known is not None and operation.identity not in writing.made:
        text = "La tâche de ce dossier existe déjà ; elle se met à jour par PUT avec If-Match."
        raise Conflict("identifiant-deja-utilise", text, expression="Task.focus")
    if known is not None:
        _move_by_task(writing, operation, dossier, document.parse(known.body))
    writing.sent["Task", operation.identity] = operation.tree
    writing.step.touch(dossier)


def _move_by_task(writing: Writing, operation: Operation, dossier: Dossier, known: Tree) -> None:
    def state(tree: Tree) -> Any:
        codings = tree.get("businessStatus", {}).get("coding", ())
        return next((coding.get("code") for coding in codings), None)

    asked, held = operation.tree["status"], known["status"]
    if asked == "cancelled" and held != "cancelled":
        inscription.cancel(writing.step, dossier)
    elif asked != held or (state(operation.tree) is not None and state(operation.tree) != state(known)):
        text = (
            "Le demandeur ne peut qu’annuler la tâche, y ajouter des entrées ou des notes ; l’état est à la passerelle."
        )
        raise InvalidContent("passage-impossible", text, expression="Task.status", rule=True)


def _dossier_of(writing: Writing, reference: str) -> Dossier | None:
    kind, _, key = reference.partition("/")
    if kind != "ServiceRequest":
        return None
    key = key.partition("/")[0]
    if key in writing.made:
        return writing.made[key]
    try:
        wanted = uuid.UUID(key)
    except ValueError:
        return None
    found = writing.step.session.scalar(
        select(Dossier.id).where(Dossier.id == wanted, access.dossiers(writing.step.caller))
    )
    return writing.step.lock(Dossier, found)[0] if found is not None else None


def _write_form(writing: Writing, operation: Operation) -> None:
    """Keep a form; one that belongs to an existing dossier is the dossier's new form."""
    dossier = None
    for based in operation.tree.get("basedOn", ()):
        dossier = dossier or _dossier_of(writing, str(based.get("reference", "")))
    if dossier is not None and str(dossier.id) not in writing.made:
        inscription.replace_form(writing.step, dossier, form_facts(operation.tree, writing.resolve()))
    _keep_as_sent(writing, operation, dossier=dossier)


# Element that names the patient of what is kept as sent.
_ABOUT: Mapping[str, tuple[str, ...]] = {
    "Condition": ("subject",),
    "Observation": ("subject",),
    "DiagnosticReport": ("subject",),
    "QuestionnaireResponse": ("subject",),
    "ServiceRequest": ("subject",),
    "Consent": ("patient",),
}


def _keep_as_sent(writing: Writing, operation: Operation, dossier: Dossier | None = None) -> None:
    record = writing.require_patient(operation, *_ABOUT[operation.kind]) if operation.kind in _ABOUT else None
    key = str(operation.identity)
    owner = Owner(
        partner_id=writing.partner.id,
        record_id=record.id if record else None,
        dossier_id=dossier.id if dossier else getattr(operation.before, "dossier_id", None),
    )
    found = keep(writing.step.session, operation.kind, key, operation.tree, owner)
    writing.kept[operation.kind, key] = found
    if found.changed:
        writing.step.audit(
            "creation" if found.created else "modification",
            action="C" if found.created else "U",
            persons=(record.id,) if record else (),
            dossier=owner.dossier_id,
            object_type=operation.kind,
            object_id=key,
            object_version=str(found.version),
        )


_HANDLERS: Mapping[str, Callable[[Writing, Operation], None]] = {
    "Patient": _write_patient,
    "Condition": _keep_as_sent,
    "Observation": _keep_as_sent,
    "DiagnosticReport": _keep_as_sent,
    "Consent": _keep_as_sent,
    "Provenance": _keep_as_sent,
    "ServiceRequest": _write_request,
    "QuestionnaireResponse": _write_form,
    "Task": _write_task,
}

#: Types that a client may write, in the order in which a transaction carries them out.
WRITABLE: tuple[str, ...] = tuple(_HANDLERS)
