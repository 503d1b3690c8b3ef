"""What writes concern: rows by condition and by id, each found under the lock that keeps it so.

[FHIR R4 http#ccreate, #cond-update, #trules]

Promises: a condition or an id is looked up after its lock is held, or looked up again; locks are taken in one order
(conditions and ids, patients' keys, roots), each kind in one call, so that steps which cross queue up; conditions that
are one identifier are asked together. Not promised: that what was found may be written (`gateway.fhir.locating`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import any_, literal, not_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

from gateway.errors import Conflict, GatewayError, InvalidContent
from gateway.fhir import conditions, document, search
from gateway.fhir.keeping import current
from gateway.fhir.operation import Operation
from gateway.fhir.owners import DIRECTORY
from gateway.fhir.reading import GIVEN_UP, Budget
from gateway.fhir.search_conditions import ID
from gateway.fhir.timed import UNKEPT, stopped_after
from gateway.fhir.writing import Writing
from gateway.model.directory import Organisation, Practitioner
from gateway.model.dossier import Dossier
from gateway.model.meeting import RcpSession
from gateway.model.person import PatientRecord
from gateway.model.representation import TABLES
from gateway.rcp import access, identity

__all__ = ["LETTERS", "Finder", "Into", "id_key"]

#: Identifiers asked for in one statement.
_TOGETHER = 100
#: Letters of SMART v2 for what is done to a resource that exists.
LETTERS: Mapping[str, str] = {"PUT": "u", "PATCH": "u", "DELETE": "d"}


class Finder:
    """What one step's writes concern.

    Parameters
    ----------
    writing
        All that the step writes.
    """

    def __init__(self, writing: Writing) -> None:
        self.writing = writing
        self._matched: dict[Any, list[Any]] = {}
        self._doomed: set[tuple[str, str]] = set()

    def matches(self, kind: str, query: str, *, doomed: bool = False) -> list[Any]:
        """Current rows, enough to tell one from several, that a condition names among those that the caller may see.

        Its lock makes it hold until the effect is committed; the same condition is asked once a step. What the step
        deletes is left out unless ``doomed``.
        """
        pairs = conditions.pairs_of(query)
        self.writing.step.serialise(*conditions.lock_keys(kind, pairs))
        key = (kind, tuple(sorted(pairs)))
        if key not in self._matched:
            self._matched[key] = self._search(kind, pairs, limit=2 + len(self._doomed))
        return [row for row in self._matched[key] if doomed or (kind, row.id) not in self._doomed]

    def _search(self, kind: str, pairs: Sequence[tuple[str, str]], *, limit: int) -> list[Any]:
        table = TABLES[kind]
        writing = self.writing
        asked = search.parse(
            kind, pairs, visible=writing.visible, strict=True, limits=writing.limits, base=writing.base_url
        )
        statement = select(table).where(
            table.c.current, not_(table.c.deleted), access.representations(self.writing.step.caller, table), asked.where
        )
        budget = Budget(writing.limits, writing.until)
        left = budget.left()
        if all(name == "identifier" for name, _ in pairs):
            # Values of an index: no bound of time is worth its round trips.
            return list(writing.step.session.execute(statement.limit(limit)).all())
        try:
            with stopped_after(writing.step.session, left):
                kept = UNKEPT if search.costly(kind, pairs) else {}
                return list(writing.step.session.execute(statement.limit(limit), execution_options=kept).all())
        except TimeoutError:
            raise budget.exceeded() from None

    def foresee(self, asked: Iterable[tuple[str, str]]) -> None:
        """Ask for all conditions that are one identifier together, type by type."""
        wanted: dict[str, dict[tuple[str, str], Any]] = {}
        for kind, query in asked:
            pairs = conditions.pairs_of(query)
            said = conditions.only_identifier(pairs)
            if said is not None and kind not in {"Practitioner", "Organization"}:
                wanted.setdefault(kind, {})[said] = (kind, tuple(sorted(pairs)))
        most = min(_TOGETHER, self.writing.limits.search_values)
        for kind, keys in wanted.items():
            said_here = list(keys)
            for start in range(0, len(said_here), most) if len(said_here) > 1 else ():
                part = said_here[start : start + most]
                together = ",".join(f"{system}|{value}" for system, value in part)
                rows = self._search(kind, [("identifier", together)], limit=3 * _TOGETHER)
                if len(rows) == 3 * _TOGETHER:
                    continue  # too many to tell apart here: each is asked for alone
                trees = [(row, document.decode(row.body)) for row in rows]
                for system, value in part:
                    self._matched[keys[system, value]] = [
                        row for row, tree in trees if conditions.carries(tree, system, value)
                    ]

    def hold_keys(
        self,
        operations: Sequence[Operation],
        refused: dict[int, GatewayError],
        references: Iterable[tuple[str, str]],
    ) -> None:
        """Take the locks of all conditions, and of the patients' keys when there are several, in one order."""
        keys: set[str] = set()
        for index, operation in enumerate(operations):
            if operation.query is not None:
                with Into(refused, index):
                    pairs = conditions.pairs_of(operation.query)
                    conditions.refuse_unfit(operation.kind, pairs)
                    keys |= conditions.lock_keys(operation.kind, pairs)
            elif operation.method in LETTERS and operation.kind != "Patient" and ID.fullmatch(operation.identity or ""):
                keys.add(id_key(operation.kind, operation.identity or ""))
        for kind, query in references:
            keys |= conditions.lock_keys(kind, conditions.pairs_of(query))
        self.writing.step.serialise(*keys)
        patients = [one for one in operations if one.kind == "Patient" and one.method in {"POST", "PUT"}]
        said: set[str] = set()
        for operation in patients if len(patients) > 1 else ():
            try:
                said |= set(identity.locks(self.writing.partner, self.writing.sent_facts(operation)))
            except GatewayError:  # refused in its turn, with its place
                continue
        self.writing.step.serialise(*said)

    def _require_own_id(self, operation: Operation) -> None:
        if operation.method == "PUT" and operation.query is None and operation.tree.get("id") != operation.identity:
            text = "L’identifiant du corps doit être celui de l’URL."
            raise InvalidContent("identifiant-different", text, expression=f"{operation.kind}.id")

    def find(self, operations: Sequence[Operation], order: Sequence[int], refused: dict[int, GatewayError]) -> None:
        """Look up what operations concern, deletions first; what cannot be found so is refused."""
        named: dict[str, list[str]] = {}
        for operation in operations:
            if operation.query is None and operation.method in LETTERS and operation.identity is not None:
                named.setdefault(operation.kind, []).append(operation.identity)
        rows = {(kind, row.id): row for kind, ids in named.items() for row in self.rows(kind, ids)}
        self._doomed.clear()
        for index in order:
            operation = operations[index]
            if index in refused:
                continue
            with Into(refused, index):
                self._require_own_id(operation)
                if operation.query is not None:
                    self._find_by_condition(operation)
                elif operation.method in LETTERS:
                    operation.before = rows.get((operation.kind, operation.identity or ""))
                if operation.method == "DELETE" and operation.before is not None:
                    self._doomed.add((operation.kind, operation.before.id))

    def rows(self, kind: str, ids: Sequence[str]) -> list[Any]:
        """Current rows by id, deleted ones too, among those that the caller may see."""
        table = TABLES[kind]
        fit = sorted({one for one in ids if ID.fullmatch(one)})
        statement = select(table).where(
            table.c.id == any_(literal(fit, ARRAY(Text()))),
            table.c.current,
            access.representations(self.writing.step.caller, table),
        )
        return list(self.writing.step.session.execute(statement).all()) if fit else []

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
            row = self.writing.step.session.scalars(select(Practitioner).where(number)).first()
        else:
            known = Organisation.idnst.in_(values) | Organisation.finess.in_(values)
            row = self.writing.step.session.scalars(select(Organisation).where(known)).first()
        if row is None:
            return []
        self.writing.kept.update(self.writing.representer.keep(self.writing.step.session, [row], {}))
        return [current(self.writing.step.session, kind, str(row.id))]

    def hold_rows(self, operations: Sequence[Operation]) -> bool:
        """Lock what was found before it was locked, roots after rows; whether it is still as it was found."""
        held = {
            (one.kind, one.before.id): one.before
            for one in operations
            if one.before is not None and not one.untouched and (one.query is not None or one.before.root_kind)
        }
        if not held:
            return True
        self.writing.step.serialise(*(id_key(kind, key) for kind, key in held if kind != "Patient"))
        records = {row.root_id for row in held.values() if row.root_kind == "PatientRecord"}
        if records:
            found = select(PatientRecord.partner_id, PatientRecord.system, PatientRecord.value)
            said = self.writing.step.session.execute(found.where(PatientRecord.id.in_(records))).all()
            self.writing.step.serialise(*(f"ipp|{one.partner_id}|{one.system}|{one.value}" for one in said))
        dossiers = {row.dossier_id for row in held.values() if row.root_kind and row.dossier_id}
        if dossiers:
            self.writing.step.lock(Dossier, *dossiers)
        sessions = {row.root_id for row in held.values() if row.root_kind == "RcpSession"}
        if sessions:
            self.writing.step.lock(RcpSession, *sessions)
        versions: dict[tuple[str, str], int] = {}
        for kind in {kind for kind, _ in held}:
            table = TABLES[kind]
            ids = sorted(one for of, one in held if of == kind)
            statement = select(table.c.id, table.c.version).where(
                table.c.id == any_(literal(ids, ARRAY(Text()))), table.c.current
            )
            versions |= {(kind, row.id): row.version for row in self.writing.step.session.execute(statement)}
        if all(versions.get(key) == row.version for key, row in held.items()):
            return True
        self._matched.clear()
        return False


def id_key(kind: str, key: str) -> str:
    """Key of whoever writes a resource that is named by its id; patients queue up by their own number instead."""
    return f"fhir-id|{kind}/{key}"


class Into:
    """Puts a refusal beside the operation that it is about, unless the whole step ends with it."""

    def __init__(self, refused: dict[int, GatewayError], index: int) -> None:
        self._refused = refused
        self._index = index

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, GatewayError) and error.code not in GIVEN_UP:
            self._refused[self._index] = error
            return True
        return False
