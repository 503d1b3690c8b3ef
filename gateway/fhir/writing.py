"""One step's writes over FHIR: what each operation concerns, its conditions, and what became of it.

[FHIR R4 http#create, #ccreate, #update, #cond-update; spec fhir-fr 3.1, 4.1]

One `Writing` lives in one step. Each type has one owner, the only writer: `gateway.fhir.owners` says whose, and
`gateway.fhir.write` what becomes of what a client writes.

Promises: the client's elements come back unchanged but for id, versionId and lastUpdated; the same content again makes
no new version; a condition that a client states (If-None-Exist, a search in the URL, If-Match) is judged in the same
transaction as its effect. Not promised: any effect before the step's commit.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, unquote

from sqlalchemy import false, func, not_, select

from gateway.errors import Conflict, Fault, Forbidden, InvalidContent, NotFound, Unsupported
from gateway.fhir import document, search
from gateway.fhir.auth_scopes import permits, require_scope
from gateway.fhir.document import Tree
from gateway.fhir.keeping import Kept, current
from gateway.fhir.owners import OWNERS, WRITABLE
from gateway.fhir.represent import Representer
from gateway.fhir.translate.elements import Resolve
from gateway.fhir.translate.patient import INS_SYSTEMS
from gateway.identifiers import uuid7
from gateway.model.directory import Organisation, Practitioner
from gateway.model.dossier import Dossier
from gateway.model.partner import Partner
from gateway.model.person import PatientRecord
from gateway.model.representation import TABLES
from gateway.rcp import access
from gateway.rcp.access import CallerKind
from gateway.rcp.step import Step

__all__ = ["Done", "Operation", "Writing"]

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
        """Rows of a type that a chained parameter may look at: those that exist for the caller and his token."""
        if not permits(self.step.caller, kind, "s"):
            return false()
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
        if "\x00" in unquote(query):  # no text of PostgreSQL holds it
            raise InvalidContent("parametre-valeur", "Valeur invalide dans la condition.", expression=operation.kind)
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
        if found is None or not found.changed:
            self._tell_shown(operation)
        if found is not None:
            created = found.created and not operation.untouched
            return Done(201 if created else 200, *key, found.version, found.updated_at, found.body)
        row = current(self.step.session, *key)
        if row is None:
            raise Fault("sans-representation", "La ressource écrite n’est pas représentée.")
        return Done(200, *key, row.version, row.updated_at, row.body)

    def _tell_shown(self, operation: Operation) -> None:
        """Tell the trail of a person whom the answer shows although nothing was written of him."""
        row = operation.before
        if row is not None and row.record_id is not None:
            self.step.audit(
                "consultation",
                persons=(row.record_id,),
                dossier=row.dossier_id,
                object_type=operation.kind,
                object_id=row.id,
                object_version=str(row.version),
            )

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
