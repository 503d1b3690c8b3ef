"""Clinical resources that an inscription names, taken into its fiche: nothing is typed twice.

[spec fhir-fr 1.12, 1.14; CI-SIS FRCP 2022.01]

Promises: an Observation or DiagnosticReport that the request, its form or its tumour names, or that names the dossier,
states its fields; a later version states only what it changes; once the dossier is discussed the fiche stays as it is.
The resource itself is kept as sent in any case.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import select

from gateway.fhir import document
from gateway.fhir.document import Tree
from gateway.fhir.translate.fiche import CLINICAL, members, require_codes, values_of
from gateway.fhir.translate.inscription import tumour_facts
from gateway.fhir.write_kept import dossier_about, keep_as_sent
from gateway.fhir.writing import Operation, Writing
from gateway.model.dossier import Dossier
from gateway.rcp import dossier_states, fiche, inscription

__all__ = ["gather", "write_clinical"]

#: References followed from an inscription, so that a long chain costs nobody.
_FOLLOWED_MAX = 100


def write_clinical(writing: Writing, operation: Operation) -> None:
    """Keep a Condition, Observation or DiagnosticReport, and let the fiches that name it follow."""
    before = document.decode(operation.before.body) if operation.before is not None else None
    require_codes(operation.tree)
    keep_as_sent(writing, operation)
    tree, reference = operation.tree, f"{operation.kind}/{operation.identity}"
    if operation.kind in CLINICAL and not (values_of(tree) or (before is not None and values_of(before))):
        return
    about = dossier_about(writing, operation.kind, tree) if operation.kind in CLINICAL else None
    if before is None and about is None:
        return
    for dossier in _following(writing, operation, reference, about):
        if operation.kind in CLINICAL:
            changed = _take(writing, dossier, reference, before, tree)
            _remember(dossier, [reference])
        else:
            changed = inscription.take_tumour(writing.step, dossier, tumour_facts(tree))
        if changed:
            fiche.noted(writing.step, dossier, operation.kind)


def _following(writing: Writing, operation: Operation, reference: str, about: Dossier | None) -> Iterator[Dossier]:
    """Lock the open dossiers that name a resource, or that it names."""
    keys = {about.id} if about is not None else set()
    if operation.before is not None and operation.before.record_id is not None:
        named = Dossier.clinical["resources"].contains([reference])
        keys |= set(
            writing.step.session.scalars(
                select(Dossier.id).where(Dossier.record_id == operation.before.record_id, named)
            )
        )
    for dossier in writing.step.lock(Dossier, *sorted(keys)) if keys else ():
        if dossier.state in dossier_states.open_states():
            yield dossier


def gather(writing: Writing, dossier: Dossier, *said: Tree | None) -> None:
    """Take into a fiche what the resources say that an inscription, its form and its tumour name."""
    find = writing.resolve()
    waiting = [reference for tree in said if tree is not None for reference in _named(tree)]
    seen: dict[str, Tree] = {}
    while waiting and len(seen) < _FOLLOWED_MAX:
        reference = waiting.pop(0).partition("/_history/")[0]
        kind = reference.partition("/")[0]
        if reference in seen or kind not in {*CLINICAL, "Condition"}:
            continue
        found = find(reference)
        if found is None or not _same_patient(writing, found, dossier):
            continue
        seen[reference] = dict(found)
        waiting += members(found)
    known = dossier.clinical.get("resources", [])
    for reference, tree in seen.items():
        if reference not in known and tree.get("resourceType") in CLINICAL:
            _take(writing, dossier, reference, None, tree)
    _remember(dossier, list(seen))


def _named(tree: Tree) -> Iterator[str]:
    for name in ("reasonReference", "supportingInfo"):
        for one in tree.get(name, ()):
            if isinstance(one.get("reference"), str):
                yield one["reference"]
    yield from members(tree)
    if tree.get("resourceType") == "QuestionnaireResponse":
        yield from (str(one["reference"]) for _, one in document.references(tree.get("item", [])))


def _same_patient(writing: Writing, tree: Mapping[str, Any], dossier: Dossier) -> bool:
    reference = str((tree.get("subject") or {}).get("reference", ""))
    return reference.removeprefix(f"{writing.base_url}/").partition("/_history/")[0] == f"Patient/{dossier.record_id}"


def _take(writing: Writing, dossier: Dossier, reference: str, before: Tree | None, after: Tree) -> bool:
    find = writing.resolve()
    was, now = (_values(tree, reference, find) for tree in (before, after))
    return fiche.take(dossier, was, now, source=reference, at=writing.step.now)


def _values(tree: Tree | None, reference: str, find: Any) -> dict[str, Any]:
    key = reference.partition("/")[2]
    return values_of({**tree, "id": key}, find) if tree is not None else {}


def _remember(dossier: Dossier, references: list[str]) -> None:
    known: list[str] = dossier.clinical.get("resources", [])
    new = [one for one in references if one not in known]
    if new:
        # A new object, because changes inside a JSON value are not seen.
        dossier.clinical = {**dossier.clinical, "resources": [*known, *new]}
