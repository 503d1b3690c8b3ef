"""One step's writes over FHIR: what each operation concerns, its conditions, and what became of it.

[FHIR R4 http#create, #ccreate, #update, #upsert, #cond-update, #patch, #delete; spec fhir-fr 3.1, 4.1]

One `Writing` lives in one step. Each type has one owner, the only writer: `gateway.fhir.owners` says whose, and
`gateway.fhir.write` what becomes of what a client writes.

Promises: the client's elements come back unchanged but for id, versionId and lastUpdated; the same content again makes
no new version; a condition that a client states (If-None-Exist, a search in the URL, If-Match) is judged under a lock
that holds until its effect is committed; locks are taken in one order (conditions and keys, roots, rows, references),
so that steps which cross queue up. Not promised: any effect before the step's commit.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import any_, false, literal, not_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import lazyload
from sqlalchemy.types import Text

from gateway.errors import Conflict, Fault, Forbidden, GatewayError, InvalidContent, NotFound, Unavailable, Unsupported
from gateway.exchange.blobs import BlobStore
from gateway.fhir import conditions, document, search, validate
from gateway.fhir.auth_scopes import permits, require_scope
from gateway.fhir.document import Tree
from gateway.fhir.keeping import Kept, current
from gateway.fhir.owners import DIRECTORY, OWNERS, WRITABLE, owner_of
from gateway.fhir.patch import Patch, patched
from gateway.fhir.represent import Representer
from gateway.fhir.search_conditions import ID
from gateway.fhir.translate.elements import Resolve
from gateway.fhir.translate.patient import patient_facts
from gateway.identifiers import uuid7
from gateway.model import writes
from gateway.model.directory import Organisation, Practitioner
from gateway.model.dossier import Dossier
from gateway.model.meeting import RcpSession
from gateway.model.partner import Partner
from gateway.model.person import PatientRecord
from gateway.model.representation import TABLES
from gateway.rcp import access, identity
from gateway.rcp.access import CallerKind
from gateway.rcp.ports import Letters
from gateway.rcp.report import Press
from gateway.rcp.step import Step

__all__ = ["Done", "Operation", "Ports", "Writing", "reference_key"]

#: Types on which a version-aware update is required where a root of ours stands behind them [spec fhir-fr 3.1].
_VERSION_AWARE = frozenset({"Task", "Appointment", "Composition"})
#: Types that always stand for a root of ours: its key is a UUID. Where only some do, their verb says so.
_ROOTED = frozenset({"Patient", "Task"})
#: Types whose id comes from the root that their verb makes or finds.
_NAMED_BY_VERB = frozenset({"Patient", "Task"})
#: Letters of SMART v2 for what is done to a resource that exists.
_LETTERS: Mapping[str, str] = {"PUT": "u", "PATCH": "u", "DELETE": "d"}
#: Identifiers asked for in one statement.
_TOGETHER = 100
#: How often what a condition names may change under our eyes before we give up.
_TURNS = 5


@dataclass(slots=True)
class Operation:
    """One create, update, patch or delete, alone or as a Bundle entry.

    Attributes
    ----------
    method
        As asked; a PATCH becomes a PUT of the patched tree once it is located.
    query
        Search of a conditional create (``If-None-Exist``), update, patch or delete, without ``?``.
    identity
        Logical id, once known.
    before
        The current row of what the operation concerns, when it exists.
    where
        FHIRPath of the resource in its carrier, for refusals.
    untouched
        Whether nothing is to be done: what a condition names stands already, or is gone already.
    """

    method: str
    kind: str
    tree: Tree
    query: str | None = None
    identity: str | None = None
    if_match: str | None = None
    if_none_match: str | None = None
    where: str | None = None
    patch: Patch | None = None
    before: Any | None = None
    untouched: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one operation; a removal has no body, and no version when there was nothing."""

    status: int
    kind: str
    id: str
    version: int
    updated_at: datetime | None
    body: bytes


@dataclass(frozen=True, slots=True)
class Ports:
    """What verbs need from above; one that is not there refuses what needs it.

    Parameters
    ----------
    letters, press
        Mails of a contribution; forms and mails of a report.
    blobs
        Where bytes are kept.
    """

    letters: Letters | None = None
    press: Press | None = None
    blobs: BlobStore | None = None


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
    """

    step: Step
    representer: Representer
    base_url: str
    update_create: bool = False
    ports: Ports = field(default_factory=Ports)
    sent: dict[tuple[str, str], Tree] = field(default_factory=dict)
    kept: dict[tuple[str, str], Kept] = field(default_factory=dict)
    trees: dict[str, Tree] = field(default_factory=dict)
    made: dict[str, Dossier] = field(default_factory=dict)
    patients: dict[str, PatientRecord | None] = field(default_factory=dict)
    removed: dict[tuple[str, str], Any] = field(default_factory=dict)
    _matched: dict[Any, list[Any]] = field(default_factory=dict)
    _doomed: set[tuple[str, str]] = field(default_factory=set)
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
            bare = [lazyload(Partner.credentials)]
            found = self.step.session.get(Partner, caller.partner_id, options=bare) if caller.partner_id else None
            if found is None or caller.kind not in {CallerKind.CLIENT, CallerKind.PEER}:
                text = "L’écriture par FHIR est réservée aux logiciels des établissements partenaires."
                raise Forbidden("ecriture-reservee", text)
            self._partner = found
        return self._partner

    # What conditions name

    def visible(self, kind: str, table: Any) -> Any:
        """Rows of a type that a chained parameter may look at: those that exist for the caller and his token."""
        if not permits(self.step.caller, kind, "s"):
            return false()
        return access.representations(self.step.caller, table)

    def matches(self, kind: str, query: str, *, doomed: bool = False) -> list[Any]:
        """Current rows, enough to tell one from several, that a condition names among those that the caller may see.

        Its lock makes it hold until the effect is committed; the same condition is asked once a step. What the step
        deletes is left out unless ``doomed``.
        """
        pairs = conditions.pairs_of(query)
        self.step.serialise(*conditions.lock_keys(kind, pairs))
        key = (kind, tuple(sorted(pairs)))
        if key not in self._matched:
            self._matched[key] = self._search(kind, pairs, limit=2 + len(self._doomed))
        return [row for row in self._matched[key] if doomed or (kind, row.id) not in self._doomed]

    def _search(self, kind: str, pairs: Sequence[tuple[str, str]], *, limit: int) -> list[Any]:
        table = TABLES[kind]
        asked = search.parse(kind, pairs, visible=self.visible, strict=True)
        statement = select(table).where(
            table.c.current, not_(table.c.deleted), access.representations(self.step.caller, table), asked.where
        )
        return list(self.step.session.execute(statement.limit(limit)).all())

    def _foresee(self, asked: Iterable[tuple[str, str]]) -> None:
        """Ask for all conditions that are one identifier together, type by type."""
        wanted: dict[str, dict[tuple[str, str], Any]] = {}
        for kind, query in asked:
            pairs = conditions.pairs_of(query)
            said = conditions.only_identifier(pairs)
            if said is not None and kind not in {"Practitioner", "Organization"}:
                wanted.setdefault(kind, {})[said] = (kind, tuple(sorted(pairs)))
        for kind, keys in wanted.items():
            said_here = list(keys)
            for start in range(0, len(said_here), _TOGETHER) if len(said_here) > 1 else ():
                part = said_here[start : start + _TOGETHER]
                together = ",".join(f"{system}|{value}" for system, value in part)
                rows = self._search(kind, [("identifier", together)], limit=3 * _TOGETHER)
                if len(rows) == 3 * _TOGETHER:
                    continue  # too many to tell apart here: each is asked for alone
                trees = [(row, document.parse(row.body)) for row in rows]
                for system, value in part:
                    self._matched[keys[system, value]] = [
                        row for row, tree in trees if conditions.carries(tree, system, value)
                    ]

    # What is concerned

    def locate(self, operation: Operation) -> None:
        """Find what one operation concerns and judge its conditions; see `locate_all`."""
        for refusal in self.locate_all([operation]).values():
            raise refusal

    def locate_all(
        self, operations: Sequence[Operation], references: Iterable[tuple[str, str]] = ()
    ) -> dict[int, GatewayError]:
        """Find what operations concern and judge their conditions; ids of what is new are made here.

        Parameters
        ----------
        references
            Conditional references of the same step: type and search.

        Returns
        -------
        dict
            Refusals by place: ``plusieurs-correspondances``, ``version-perimee``, ``existe-deja`` (`Conflict`);
            unknown or deleted (`NotFound`); creation under a client's id, a type of another owner, an id of the body
            that is not the URL's.
        """
        refused: dict[int, GatewayError] = {}
        asked = [(op.kind, op.query) for op in operations if op.query is not None]
        self._hold_keys(operations, refused, references)
        if len(asked) > 1 and not refused:
            self._foresee([*asked, *references])
        # What is deleted goes first: later conditions no longer see it [FHIR R4 http#trules].
        order = sorted(range(len(operations)), key=lambda index: operations[index].method != "DELETE")
        for turn in range(_TURNS):
            self._find(operations, order, refused)
            if self._hold_rows([operations[index] for index in order if index not in refused]):
                break
            if turn + 1 == _TURNS:
                raise Unavailable("contention", "Trop d’écritures simultanées.", retry_after_s=1)
        for index in order:
            if index not in refused:
                with _Into(refused, index):
                    self._judge(operations[index])
        return refused

    def _hold_keys(
        self,
        operations: Sequence[Operation],
        refused: dict[int, GatewayError],
        references: Iterable[tuple[str, str]],
    ) -> None:
        """Take the locks of all conditions, and of the patients' keys when there are several, in one order."""
        keys: set[str] = set()
        for index, operation in enumerate(operations):
            if operation.query is not None:
                with _Into(refused, index):
                    pairs = conditions.pairs_of(operation.query)
                    conditions.refuse_unfit(operation.kind, pairs)
                    keys |= conditions.lock_keys(operation.kind, pairs)
            elif operation.method in _LETTERS and operation.kind != "Patient":
                keys.add(_id_key(operation.kind, operation.identity or ""))
        for kind, query in references:
            keys |= conditions.lock_keys(kind, conditions.pairs_of(query))
        self.step.serialise(*keys)
        patients = [one for one in operations if one.kind == "Patient" and one.method in {"POST", "PUT"}]
        said: set[str] = set()
        for operation in patients if len(patients) > 1 else ():
            try:
                said |= set(identity.locks(self.partner, patient_facts(operation.tree, lambda _reference: None)))
            except GatewayError:  # refused in its turn, with its place
                continue
        self.step.serialise(*said)

    def _require_own_id(self, operation: Operation) -> None:
        if operation.method == "PUT" and operation.query is None and operation.tree.get("id") != operation.identity:
            text = "L’identifiant du corps doit être celui de l’URL."
            raise InvalidContent("identifiant-different", text, expression=f"{operation.kind}.id")

    def _find(self, operations: Sequence[Operation], order: Sequence[int], refused: dict[int, GatewayError]) -> None:
        named: dict[str, list[str]] = {}
        for operation in operations:
            if operation.query is None and operation.method in _LETTERS and operation.identity is not None:
                named.setdefault(operation.kind, []).append(operation.identity)
        rows = {(kind, row.id): row for kind, ids in named.items() for row in self._rows(kind, ids)}
        self._doomed.clear()
        for index in order:
            operation = operations[index]
            if index in refused:
                continue
            with _Into(refused, index):
                self._require_own_id(operation)
                if operation.query is not None:
                    self._find_by_condition(operation)
                elif operation.method in _LETTERS:
                    operation.before = rows.get((operation.kind, operation.identity or ""))
                if operation.method == "DELETE" and operation.before is not None:
                    self._doomed.add((operation.kind, operation.before.id))

    def _rows(self, kind: str, ids: Sequence[str]) -> list[Any]:
        table = TABLES[kind]
        fit = sorted({one for one in ids if ID.fullmatch(one)})
        statement = select(table).where(
            table.c.id == any_(literal(fit, ARRAY(Text()))),
            table.c.current,
            access.representations(self.step.caller, table),
        )
        return list(self.step.session.execute(statement).all()) if fit else []

    def _find_by_condition(self, operation: Operation) -> None:
        query = operation.query or ""
        found = self._directory(operation.kind, query) or self.matches(
            operation.kind, query, doomed=operation.method == "DELETE"
        )
        if len(found) > 1:
            text = "Plusieurs ressources correspondent à la condition."
            raise Conflict("plusieurs-correspondances", text, precondition=True)
        operation.before = found[0] if found else None
        said = operation.tree.get("id")
        if operation.before is None:
            operation.identity = said if operation.method == "PUT" and isinstance(said, str) else None
            return
        # A directory entry is the national directory's: a client's copy is recognised and left aside.
        operation.untouched = operation.method == "POST" or operation.before.root_kind in DIRECTORY
        if operation.method == "PUT" and said is not None and said != operation.before.id:
            text = "L’identifiant du corps n’est pas celui de la ressource que la condition désigne."
            raise InvalidContent("identifiant-different", text, expression=f"{operation.kind}.id")
        operation.identity = operation.before.id

    def _directory(self, kind: str, query: str) -> list[Any]:
        """Entries of the directory by national number: they become resources when first referenced."""
        if kind not in {"Practitioner", "Organization"}:
            return []
        values = [value.rpartition("|")[2] for name, value in conditions.pairs_of(query) if name == "identifier"]
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

    def _hold_rows(self, operations: Sequence[Operation]) -> bool:
        """Lock what was found before it was locked, roots after rows; whether it is still as it was found."""
        held = {
            (one.kind, one.before.id): one.before
            for one in operations
            if one.before is not None and not one.untouched and (one.query is not None or one.before.root_kind)
        }
        if not held:
            return True
        self.step.serialise(*(_id_key(kind, key) for kind, key in held if kind != "Patient"))
        records = {row.root_id for row in held.values() if row.root_kind == "PatientRecord"}
        if records:
            found = select(PatientRecord.partner_id, PatientRecord.system, PatientRecord.value)
            said = self.step.session.execute(found.where(PatientRecord.id.in_(records))).all()
            self.step.serialise(*(f"ipp|{one.partner_id}|{one.system}|{one.value}" for one in said))
        dossiers = {row.dossier_id for row in held.values() if row.root_kind and row.dossier_id}
        if dossiers:
            self.step.lock(Dossier, *dossiers)
        sessions = {row.root_id for row in held.values() if row.root_kind == "RcpSession"}
        if sessions:
            self.step.lock(RcpSession, *sessions)
        versions: dict[tuple[str, str], int] = {}
        for kind in {kind for kind, _ in held}:
            table = TABLES[kind]
            ids = sorted(one for of, one in held if of == kind)
            statement = select(table.c.id, table.c.version).where(
                table.c.id == any_(literal(ids, ARRAY(Text()))), table.c.current
            )
            versions |= {(kind, row.id): row.version for row in self.step.session.execute(statement)}
        if all(versions.get(key) == row.version for key, row in held.items()):
            return True
        self._matched.clear()
        return False

    def _judge(self, operation: Operation) -> None:
        """Judge what was found: its owner, its versions, whether it may be made or changed."""
        method = operation.method
        if method == "PUT" and operation.identity is not None and self.update_create:
            self._queue(operation)
        if operation.before is None and method in _LETTERS:
            self._judge_absent(operation)
        elif operation.before is not None and operation.before.deleted:
            self._judge_deleted(operation)
        before = operation.before
        self._judge_versions(operation)
        existing = before is not None and method in _LETTERS
        require_scope(self.step.caller, operation.kind, "d" if method == "DELETE" else "u" if existing else "c")
        if operation.kind not in WRITABLE and not operation.untouched:
            owner = OWNERS.get(operation.kind)
            if owner is None or operation.kind == "AuditEvent":
                raise Unsupported("ecriture-non-offerte", f"Écriture non offerte pour le type {operation.kind}.")
            text = f"Les ressources {operation.kind} sont écrites par {owner} seulement."
            raise Forbidden("proprietaire", text, expression=operation.where or operation.kind)
        if existing:
            self._require_owner(operation)
        if operation.patch is not None and before is not None and not operation.untouched:
            operation.tree = patched(operation.patch, document.parse(before.body))
            validate.accept(operation.tree, operation.where)
            operation.method, operation.patch = "PUT", None
        if operation.identity is None and operation.kind not in _NAMED_BY_VERB and method != "DELETE":
            key = uuid7()
            writes.name(self.step.session, key)
            operation.identity = str(key)

    def _queue(self, operation: Operation) -> None:
        """Read again under the lock of all who name an id that nobody uses yet, or any longer."""
        if operation.before is not None and not operation.before.deleted:
            return
        self.step.serialise(_id_key(operation.kind, operation.identity or ""))
        for _ in range(_TURNS):
            rows = self._rows(operation.kind, [operation.identity or ""])
            operation.before = rows[0] if rows else None
            if operation.before is None or operation.before.deleted or self._hold_rows([operation]):
                return

    def _judge_deleted(self, operation: Operation) -> None:
        """Bring what was deleted back by a PUT, where a client may name ids; a second delete has nothing to do."""
        if operation.method == "DELETE":
            operation.untouched = True
        elif operation.method == "PUT" and self.update_create and self._owns(operation.before):
            self._require_fit_id(operation)
            operation.before = None
        else:
            raise NotFound("ressource-supprimee", "Ressource supprimée.")

    def _owns(self, row: Any) -> bool:
        return bool(row.partner_id == self.partner.id)

    def _judge_absent(self, operation: Operation) -> None:
        if operation.method == "DELETE":
            operation.untouched = True
        elif operation.method == "PATCH" and operation.query is not None:
            raise NotFound("inconnu", "Aucune ressource ne correspond à la condition.")
        elif operation.method == "PATCH":
            raise access.hidden(self.step.caller, operation.kind, operation.identity)
        elif operation.identity is not None:
            self._judge_upsert(operation)

    def _judge_upsert(self, operation: Operation) -> None:
        if not self.update_create or operation.kind not in WRITABLE:
            text = (
                "Ressource inconnue ; une création se fait par POST, ou par PUT avec une condition sur l’identifiant."
            )
            raise Unsupported("creation-par-id", text, expression=f"{operation.kind}.id")
        self._require_fit_id(operation)
        if current(self.step.session, operation.kind, operation.identity or "") is not None:
            # It exists, not for this caller.
            raise access.hidden(self.step.caller, operation.kind, operation.identity)

    def _require_fit_id(self, operation: Operation) -> None:
        said = operation.identity or ""
        fit = ID.fullmatch(said) is not None
        if fit and operation.kind in _ROOTED:
            try:
                fit = str(uuid.UUID(said)) == said
            except ValueError:
                fit = False
        if not fit:
            form = "un UUID en minuscules" if operation.kind in _ROOTED else "1 à 64 lettres, chiffres, « - » ou « . »"
            text = f"L’identifiant d’une ressource {operation.kind} est {form}."
            raise InvalidContent("valeur-invalide", text, expression=f"{operation.kind}.id")

    def _judge_versions(self, operation: Operation) -> None:
        before = operation.before
        version = before.version if before is not None and not before.deleted else None
        if operation.if_none_match is not None:
            unwanted = conditions.tags(operation.if_none_match, "If-None-Match")
            if unwanted.hold(version):
                raise Conflict("existe-deja", "La ressource existe déjà.", precondition=True)
        if operation.if_match is not None:
            wanted = conditions.tags(operation.if_match, "If-Match")
            if not wanted.hold(version):
                held = "aucune" if version is None else str(version)
                text = f"Version périmée : {held} au lieu de celle attendue par If-Match."
                raise Conflict("version-perimee", text, precondition=True)
        elif operation.kind in _VERSION_AWARE and operation.method in {"PUT", "PATCH"} and _rooted(before):
            text = "Cette ressource se met à jour avec l’en-tête If-Match."
            raise InvalidContent("version-exigee", text, expression=operation.kind)

    def _require_owner(self, operation: Operation) -> None:
        if operation.untouched or operation.before is None:
            return
        owner = owner_of(operation.kind, operation.before, self.partner.id)
        if owner is not None:
            text = f"Cette ressource est écrite par {owner} seulement."
            raise Forbidden("proprietaire", text, expression=operation.where or operation.kind)

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
            for _, reference in document.references(operation.tree):
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
                table.c.id == any_(literal(ids, ARRAY(Text()))), table.c.current, table.c.deleted
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
            return document.parse(row.body) if row is not None else None

        return find

    def localise(self, tree: Tree) -> None:
        """Make references to ourselves relative, in place: stored bytes hold no base URL of ours."""
        for _, reference in document.references(tree):
            text = reference["reference"]
            if text.startswith(self.base_url + "/"):
                reference["reference"] = text[len(self.base_url) + 1 :]

    # What is done

    def finish(self) -> None:
        """Represent what the verbs touched; `Steps` then finds nothing left to do."""
        self.step.session.flush()
        roots = tuple(self.step.roots.values())
        self.step.roots.clear()
        self.kept.update(self.representer.keep(self.step.session, roots, self.sent))

    def done(self, operation: Operation) -> Done:
        """Say what became of an operation, after `finish`."""
        key = (operation.kind, operation.identity or "")
        if operation.method == "DELETE":
            row = current(self.step.session, *key) if operation.before is not None else None
            return Done(204, *key, row.version if row else 0, row.updated_at if row else None, b"")
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


def _id_key(kind: str, key: str) -> str:
    """Key of whoever writes a resource that is named by its id; patients queue up by their own number instead."""
    return f"fhir-id|{kind}/{key}"


def reference_key(kind: str, key: str) -> str:
    """Key that whoever refers to a resource holds with others, and whoever deletes it alone.

    Few keys for all resources: a large transaction would otherwise fill the server's table of locks.
    """
    return f"fhir-ref|{zlib.crc32(f'{kind}/{key}'.encode()) % 256}"


def _rooted(row: Any | None) -> bool:
    return row is not None and not row.deleted and row.root_kind is not None


class _Into:
    """Puts a refusal beside the operation that it is about."""

    def __init__(self, refused: dict[int, GatewayError], index: int) -> None:
        self._refused = refused
        self._index = index

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, GatewayError):
            self._refused[self._index] = error
            return True
        return False
