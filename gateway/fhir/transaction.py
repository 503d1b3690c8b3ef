"""Transactions: many operations, all or nothing, in one step.

[FHIR R4 http#transaction, #trules; spec fhir-fr 3.6]

Promises: nothing of a refused transaction stays, and the OperationOutcome says which entries and why; what is deleted
goes first and what is read comes last, writes between them in the order of `gateway.fhir.owners.WRITABLE` (patients
before what is about them; among equals POST before PUT and PATCH), whatever the order in the Bundle; links between
entries, circular ones too, and conditional references become ``Type/id``; one resource is touched by one entry; the
answer keeps the order of the request; the same transaction again answers 200 for each entry and makes no new version.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.errors import Conflict, GatewayError, InvalidContent
from gateway.fhir import conditions, document, entry_reads, links, removal, write
from gateway.fhir.allowance import Allowance
from gateway.fhir.bundle import Answer, Bundle, Entry, named, written
from gateway.fhir.keeping import current
from gateway.fhir.locating import Locator
from gateway.fhir.outcome import InvalidResource, Issue, Refusals
from gateway.fhir.owners import WRITABLE
from gateway.fhir.reading import GIVEN_UP
from gateway.fhir.translate.inscription import is_inscription
from gateway.fhir.validate import MAX_ISSUES
from gateway.fhir.write_dossier import followed, name_own_task
from gateway.fhir.writing import Operation, Writing
from gateway.identifiers import uuid7
from gateway.model.representation import TABLES
from gateway.rcp import identity
from gateway.rcp.facts import IdentifierFact, PatientFacts
from gateway.rcp.step import Step

__all__ = ["require_sound", "run"]

#: Order of methods among writes of one type; a patched entry is a PUT.
_METHODS = {"DELETE": 0, "POST": 1, "PUT": 2, "PATCH": 2}


def require_sound(bundle: Bundle) -> None:
    """Refuse a transaction of which an entry cannot be read, with the faults of every entry.

    Raises
    ------
    InvalidResource
        At most `MAX_ISSUES` faults.
    """
    issues: list[Issue] = [issue for entry in bundle.entries for issue in entry.faults]
    if issues:
        raise InvalidResource(issues[:MAX_ISSUES])


def run(
    step: Step,
    bundle: Bundle,
    writing: Writing,
    *,
    offered: entry_reads.Offered,
    allowance: Allowance,
    wish: str,
    strict: bool = False,
) -> list[Answer]:
    """Carry out every entry; the caller's step commits. The Bundle's trees are changed: a second run reads it again.

    Parameters
    ----------
    allowance
        What all entries together may take; beyond it the transaction is refused.

    Raises
    ------
    GatewayError
        What entries are refused for, each with its place in its expression and its text.
    """
    allowance.begin()
    entries = [entry for entry in bundle.entries if entry.operation is not None]
    return _Run(step, bundle, writing, entries, allowance).carry_out(
        lambda ask: entry_reads.answer(step, offered, ask, strict=strict, until=allowance.until), wish
    )


@dataclass
class _Run:
    """One run of one transaction; ``entries`` are those that write."""

    step: Step
    bundle: Bundle
    writing: Writing
    entries: list[Entry]
    allowance: Allowance
    names: dict[str, str] = field(default_factory=dict)
    refused: dict[int, GatewayError] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.locator = Locator(self.writing)

    def carry_out(self, read: Callable[[Any], Answer], wish: str) -> list[Answer]:
        operations = [self._operation(entry) for entry in self.entries]
        references = self._conditional_references(operations)
        self._collect(self.locator.locate_all(operations, references))
        self._stop()
        self._require_once(operations)
        self._stop()
        order = sorted(self.entries, key=_rank)
        self._each([entry for entry in order if self._operation(entry).method == "DELETE"], self._remove)
        self._stop()
        self._write([entry for entry in order if self._operation(entry).method != "DELETE"])
        self._stop()
        self.writing.finish()
        self._each(self.entries, lambda entry: removal.require_unreferred(self.writing, self._operation(entry)))
        self._stop()
        answers: dict[int, Answer] = {}

        def tell(entry: Entry) -> None:
            said = written(self.writing.done(self._operation(entry)), self.writing.base_url, wish)
            self.allowance.take(said)
            answers[entry.index] = said

        def ask(entry: Entry) -> None:
            found = read(entry.ask)
            self.allowance.take(found)
            answers[entry.index] = found

        self._each(self.entries, tell)
        self.step.session.flush()
        self._each([entry for entry in self.bundle.entries if entry.ask is not None], ask)
        self._stop()
        return [answers[entry.index] for entry in self.bundle.entries]

    # One entry after another

    @staticmethod
    def _operation(entry: Entry) -> Operation:
        if entry.operation is None:
            raise AssertionError("an entry that writes")
        return entry.operation

    def _each(self, entries: Sequence[Entry], what: Callable[[Entry], None]) -> None:
        """Do something for each entry; what one is refused for does not hide what others are, unless it ends all."""
        for entry in entries:
            if entry.index in self.refused:
                continue
            self.allowance.require_time()
            try:
                what(entry)
            except GatewayError as error:
                self.refused[entry.index] = named(error, entry)
                if error.code in GIVEN_UP:
                    self._stop()

    def _collect(self, refused: dict[int, GatewayError]) -> None:
        for place, error in refused.items():
            entry = self.entries[place]
            self.refused[entry.index] = named(error, entry)

    def _stop(self) -> None:
        if not self.refused:
            return
        errors = [self.refused[index] for index in sorted(self.refused)]
        raise errors[0] if len(errors) == 1 else Refusals(errors[:MAX_ISSUES])

    # What entries say of one another

    def _conditional_references(self, operations: Sequence[Operation]) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for place, operation in enumerate(operations):
            for kind, query in links.conditional(operation.tree):
                try:
                    if kind in TABLES:
                        conditions.pairs_of(query)
                        found.append((kind, query))
                except GatewayError as error:
                    self._collect({place: error})
        self._stop()
        return found

    def _require_once(self, operations: Sequence[Operation]) -> None:
        """Refuse two entries about one resource: neither may be lost without a word [FHIR R4 http#trules]."""
        seen: dict[Any, Operation] = {}
        for place, operation in enumerate(operations):
            if operation.before is not None or operation.query is None:
                keys: list[Any] = [(operation.kind, operation.identity)] if operation.identity else []
            else:
                pairs = conditions.pairs_of(operation.query)
                keys = [(operation.kind, "?", tuple(sorted(pairs)))]
            for key in keys:
                other = seen.setdefault(key, operation)
                if other is not operation and not (other.untouched and operation.untouched):
                    text = "Deux entrées de la transaction portent sur la même ressource."
                    self._collect({place: InvalidContent("identite-repetee", text)})

    def _name(self, entry: Entry) -> None:
        operation = self._operation(entry)
        if entry.full_url is not None and operation.identity is not None:
            self.names[entry.full_url] = f"{operation.kind}/{operation.identity}"

    def _name_patients(self, entries: Sequence[Entry]) -> None:
        """Name new patients before they are declared: other patients of the transaction may be linked to them."""
        partner = self.writing.partner
        said: dict[int, tuple[IdentifierFact, PatientFacts]] = {}
        for entry in entries:
            operation = self._operation(entry)
            if operation.kind == "Patient" and operation.identity is None:
                try:
                    facts = self.writing.sent_facts(operation)
                    said[entry.index] = identity.own_identifier(partner, facts), facts
                except GatewayError:  # refused when he is declared, with the reason
                    operation.identity = str(uuid7())
        known = identity.foresee(self.step, partner, list(said.values())) if said else {}
        for entry in entries:
            if entry.index in said:
                key, _ = said[entry.index]
                self._operation(entry).identity = str(known.get((key.system, key.value)) or uuid7())

    def _name_task(self, entry: Entry) -> None:
        """Name a Task, which has the id of the inscription that it follows, for those that refer to it."""
        operation = self._operation(entry)
        if operation.kind != "Task" or operation.identity is not None or entry.full_url is None:
            return
        said = followed(operation.tree)
        kind, _, key = self.names.get(said, said).removeprefix(f"{self.writing.base_url}/").partition("/")
        key = key.partition("/")[0]
        if kind == "ServiceRequest" and self._inscribed(key):
            self.names[entry.full_url] = f"Task/{key}"
        else:
            name_own_task(self.writing, operation)
            self._name(entry)

    def _inscribed(self, key: str) -> bool:
        """Whether a ServiceRequest of this transaction, or one that is kept, is an inscription."""
        for entry in self.entries:
            operation = self._operation(entry)
            if (operation.kind, operation.identity) == ("ServiceRequest", key) and not operation.untouched:
                return is_inscription(operation.tree)
        row = current(self.step.session, "ServiceRequest", key)
        return row is not None and row.root_kind == "Dossier"

    def _rewrite(self, entry: Entry) -> None:
        operation = self._operation(entry)
        if not operation.untouched:
            links.rewrite(
                operation.tree,
                full_url=entry.full_url,
                names=self.names,
                search=self._by_condition,
                version=self._version,
            )

    def _by_condition(self, expression: str, kind: str, query: str) -> str:
        """Resolve a conditional reference: among what is kept, and what this transaction is writing."""
        if kind not in TABLES:
            raise InvalidContent("reference-inconnue", "Référence conditionnelle illisible.", expression=expression)
        pairs = conditions.pairs_of(query)
        found = {row.id for row in self.locator.matches(kind, query)}
        said = conditions.only_identifier(pairs)
        for entry in self.entries:
            operation = self._operation(entry)
            if operation.kind != kind or operation.method == "DELETE" or operation.untouched or not operation.identity:
                continue
            asked = operation.query is not None and sorted(conditions.pairs_of(operation.query)) == sorted(pairs)
            if asked or (said is not None and conditions.carries(operation.tree, *said)):
                found.add(operation.identity)
            elif said is not None:
                found.discard(operation.identity)
        if len(found) != 1:
            text = "Une référence conditionnelle doit désigner exactement une ressource."
            code = "plusieurs-correspondances" if found else "reference-inconnue"
            raise Conflict(code, text, expression=expression, precondition=True)
        return f"{kind}/{found.pop()}"

    def _version(self, reference: str) -> int | None:
        """Version that this transaction leaves of one of its resources; of one that is only named, the current one."""
        for entry in self.entries:
            operation = self._operation(entry)
            if f"{operation.kind}/{operation.identity}" != reference:
                continue
            if operation.before is None:
                return 1
            if operation.untouched or document.same_content(document.decode(operation.before.body), operation.tree):
                return int(operation.before.version)
            return int(operation.before.version) + 1
        return None

    # What is done

    def _remove(self, entry: Entry) -> None:
        removal.carry_out(self.writing, self._operation(entry))

    def _write(self, entries: Sequence[Entry]) -> None:
        """Name all, rewrite all, then carry out patients first: other verbs look their records up."""
        self._name_patients(entries)
        for entry in entries:
            self._name(entry)
        for entry in entries:
            self._name_task(entry)
        self._each(entries, self._rewrite)
        self._stop()
        writing = self.writing
        by_place = [self._operation(entry) for entry in entries]
        for place, error in writing.hold_references(by_place, new=set(self.names.values())).items():
            self.refused[entries[place].index] = named(error, entries[place])
        self._stop()
        writing.trees.update(
            {
                f"{one.kind}/{one.identity}": one.tree
                for one in by_place
                if one.identity is not None and not one.untouched
            }
        )
        failed: set[str] = set()
        seen: dict[str, Entry] = {}

        def apply(entry: Entry) -> None:
            operation = self._operation(entry)
            if failed and any(one["reference"] in failed for _, one in document.references(operation.tree)):
                return  # it would only repeat why the other one is refused
            wanted = operation.identity
            try:
                write.apply(writing, operation)
            except GatewayError:
                failed.add(f"{operation.kind}/{wanted}")
                raise
            if (
                not operation.untouched
                and seen.setdefault(f"{operation.kind}/{operation.identity}", entry) is not entry
            ):
                text = "Deux entrées de la transaction portent sur la même ressource."
                raise InvalidContent("identite-repetee", text)

        self._each(entries, apply)


def _rank(entry: Entry) -> tuple[int, int, int]:
    """Directory entries first (they are only recognised), then types as `WRITABLE` has them, then methods."""
    operation = entry.operation
    if operation is None:
        return -1, 0, entry.index
    kind = WRITABLE.index(operation.kind) if operation.kind in WRITABLE else -1
    return kind, _METHODS[operation.method], entry.index
