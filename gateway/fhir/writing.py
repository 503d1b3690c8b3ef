"""One step's writes over FHIR: what they refer to, what they have done, and what became of each.

[FHIR R4 http#create, #update; spec fhir-fr 3.1, 4.1]

One `Writing` lives in one step. Each type has one owner, the only writer: `gateway.fhir.owners` says whose,
`gateway.fhir.locating` what a write concerns, and `gateway.fhir.write` what becomes of what a client writes.

Promises: the client's elements come back unchanged but for id, versionId and lastUpdated; the same content again makes
no new version; what is referred to stays until the step is committed. Not promised: any effect before that.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import any_, bindparam, false, literal, not_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

from gateway.errors import Fault, Forbidden, GatewayError, InvalidContent
from gateway.fhir import document
from gateway.fhir.auth_scopes import permits
from gateway.fhir.document import Tree
from gateway.fhir.keeping import Kept, current
from gateway.fhir.operation import Done, Operation, Ports
from gateway.fhir.represent import Representer
from gateway.fhir.search_conditions import ID
from gateway.fhir.translate.elements import Resolve
from gateway.fhir.translate.patient import patient_facts
from gateway.model.dossier import Dossier
from gateway.model.partner import Partner
from gateway.model.person import PatientRecord
from gateway.model.prepared import Prepared
from gateway.model.representation import TABLES
from gateway.model.writes import held
from gateway.rcp import access
from gateway.rcp.access import CallerKind
from gateway.rcp.facts import PatientFacts
from gateway.rcp.step import Step
from gateway.settings import Limits

__all__ = ["Done", "Operation", "Ports", "Writing", "reference_key"]

_PARTNER = Prepared(lambda: select(Partner.__table__).where(Partner.id == bindparam("key")))


@dataclass(slots=True)
class Writing:
    """All that one step writes over FHIR.

    Parameters
    ----------
    step
        The open step; its caller is a client or a peer with a partner.
    base_url
        Our FHIR base, to make absolute references to ourselves relative.
    update_create
        Whether a PUT to an id that nobody used creates [FHIR R4 http#upsert].
    limits, until
        Bounds of the searches that conditions are; when the Bundle must be done.
    """

    step: Step
    representer: Representer
    base_url: str
    update_create: bool = False
    ports: Ports = field(default_factory=Ports)
    limits: Limits = field(default_factory=Limits)
    until: float | None = None
    sent: dict[tuple[str, str], Tree] = field(default_factory=dict)
    said: dict[str, PatientFacts] = field(default_factory=dict)
    kept: dict[tuple[str, str], Kept] = field(default_factory=dict)
    trees: dict[str, Tree] = field(default_factory=dict)
    made: dict[str, Dossier] = field(default_factory=dict)
    patients: dict[str, PatientRecord | None] = field(default_factory=dict)
    removed: dict[tuple[str, str], Any] = field(default_factory=dict)
    _partner: Partner | None = None
    _facts: dict[int, PatientFacts] = field(default_factory=dict)

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
            rows = _PARTNER.run(self.step.session, {"key": caller.partner_id}) if caller.partner_id else []
            found = held(self.step.session, Partner, rows[0]) if rows else None
            if found is None or caller.kind not in {CallerKind.CLIENT, CallerKind.PEER}:
                text = "L’écriture par FHIR est réservée aux logiciels des établissements partenaires."
                raise Forbidden("ecriture-reservee", text)
            self._partner = found
        return self._partner

    def sent_facts(self, operation: Operation) -> PatientFacts:
        """What a Patient says before its links are followed; read once, by whoever asks before it is written.

        Raises
        ------
        InvalidContent
            See `patient_facts`.
        """
        if id(operation) not in self._facts:
            self._facts[id(operation)] = patient_facts(operation.tree)
        return self._facts[id(operation)]

    def visible(self, kind: str, table: Any) -> Any:
        """Rows of a type that a chained parameter may look at: those that exist for the caller and his token."""
        if not permits(self.step.caller, kind, "s"):
            return false()
        return access.representations(self.step.caller, table)

    # What is referred to

    def patient(self, key: str) -> PatientRecord | None:
        """Record of a patient by his id, if he exists for the caller; asked once a step."""
        if self.patients.get(key) is None:
            self.patients[key] = None
            self._foresee_patients([key])
        return self.patients[key]

    def _foresee_patients(self, keys: Iterable[str]) -> None:
        wanted = []
        for key in keys:
            try:
                wanted.append(uuid.UUID(key))
            except ValueError:
                continue
        if wanted:
            seen = select(PatientRecord).where(PatientRecord.id.in_(wanted), access.records(self.step.caller))
            self.patients |= {str(row.id): row for row in self.step.session.scalars(seen).unique()}

    def hold_references(
        self, operations: Iterable[Operation], new: frozenset[str] | set[str] = frozenset()
    ) -> dict[int, GatewayError]:
        """Hold what the trees to be written refer to, so that it is not deleted meanwhile; what is gone is refused.

        References to ourselves become relative, in place: stored bytes hold no base URL of ours.

        Parameters
        ----------
        new
            ``Type/id`` of what the same step makes or changes.

        Returns
        -------
        dict
            Refusals by place: ``reference-supprimee`` (rule).
        """
        said: dict[tuple[str, str], set[int]] = {}
        for index, operation in enumerate(operations):
            if operation.untouched or operation.method == "DELETE":
                continue
            for reference in document.referring(operation.tree):
                self._localise(reference)
                named = self.local(reference["reference"])
                if named is not None and f"{named[0]}/{named[1]}" not in new:
                    said.setdefault(named, set()).add(index)
        if not said:
            return {}
        self.step.serialise(*(reference_key(*named) for named in said), shared=True)
        self._foresee_patients({key for kind, key in said if kind == "Patient"})
        refused: dict[int, GatewayError] = {}
        for kind in sorted({kind for kind, _ in said}):
            table = TABLES[kind]
            ids = sorted(one for of, one in said if of == kind)
            gone = select(table.c.id).where(
                table.c.id == any_(literal(ids, ARRAY(Text()))),
                table.c.current,
                table.c.deleted,
                # Of what the caller may not see he does not learn that it was there either.
                access.representations(self.step.caller, table),
            )
            for identity_ in self.step.session.scalars(gone):
                for index in said[kind, identity_]:
                    text = f"Une référence désigne une ressource {kind} supprimée."
                    refused.setdefault(index, InvalidContent("reference-supprimee", text, rule=True))
        return refused

    def local(self, reference: str) -> tuple[str, str] | None:
        """Type and id of a reference to this server, relative or absolute, with or without a version."""
        kind, slash, key = reference.removeprefix(self.base_url + "/").partition("/")
        key = key.partition("/_history/")[0]
        return (kind, key) if slash and kind in TABLES and ID.fullmatch(key) else None

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
            return document.decode(row.body) if row is not None else None

        return find

    def _localise(self, reference: Tree) -> None:
        said = reference["reference"]
        if said.startswith(self.base_url + "/"):
            reference["reference"] = said[len(self.base_url) + 1 :]

    # What is done

    def finish(self) -> None:
        """Represent what the verbs touched; `Steps` then finds nothing left to do."""
        self.step.session.flush()
        roots = tuple(self.step.roots.values())
        self.step.roots.clear()
        self.kept.update(self.representer.keep(self.step.session, roots, self.sent, self.said))

    def done(self, operation: Operation) -> Done:
        """Say what became of an operation, after `finish`; its body only to whom the token allows to read it."""
        key = (operation.kind, operation.identity or "")
        if operation.method == "DELETE":
            row = current(self.step.session, *key) if operation.before is not None else None
            return Done(204, *key, row.version if row else 0, row.updated_at if row else None, b"")
        shown = permits(self.step.caller, operation.kind, "r")
        found = self.kept.get(key)
        if shown and (found is None or not found.changed):
            self._tell_shown(operation)
        if found is not None:
            created = found.created and not operation.untouched
            body = found.body if shown else b""
            return Done(201 if created else 200, *key, found.version, found.updated_at, body)
        row = current(self.step.session, *key)
        if row is None:
            raise Fault("sans-representation", "La ressource écrite n’est pas représentée.")
        return Done(200, *key, row.version, row.updated_at, row.body if shown else b"")

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


def reference_key(kind: str, key: str) -> str:
    """Key that whoever refers to a resource holds with others, and whoever deletes it alone.

    Few keys for all resources: a large transaction would otherwise fill the server's table of locks.
    """
    return f"fhir-ref|{zlib.crc32(f'{kind}/{key}'.encode()) % 256}"
