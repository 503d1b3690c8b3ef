"""A Patient that a client writes: what his organisation says of him, through `gateway.rcp.identity`.

[spec fhir-fr 1.1, 4.1]
"""

from __future__ import annotations

import uuid

from gateway.errors import Conflict, InvalidContent
from gateway.fhir import conditions
from gateway.fhir.translate.elements import identifiers
from gateway.fhir.translate.patient import patient_facts
from gateway.fhir.writing import Operation, Writing
from gateway.rcp import identity, imaging_match, inscription

__all__ = ["write_patient"]


def write_patient(writing: Writing, operation: Operation) -> None:
    """Declare the patient of the caller's organisation.

    Raises
    ------
    Conflict
        ``cle-modifiee``: the identifier that keys an existing record changed.
    InvalidContent
        ``condition-non-satisfaite`` (rule), and what `identity.declare` refuses.
    """
    # What it says itself was read to find it; only a treating physician may stand in another resource.
    facts = (
        patient_facts(operation.tree, writing.resolve())
        if "generalPractitioner" in operation.tree
        else writing.sent_facts(operation)
    )
    key = identity.own_identifier(writing.partner, facts)
    known = identity.known_as(writing.step, writing.partner, key)
    if operation.before is not None and (known is None or str(known.id) != operation.before.id):
        text = "L’identifiant de l’établissement ne peut pas changer sur un patient existant."
        raise Conflict("cle-modifiee", text, expression="Patient.identifier")
    if operation.query is not None and not _satisfies(operation):
        text = "Le patient ne porte pas l’identifiant que la condition désigne."
        raise InvalidContent("condition-non-satisfaite", text, expression="Patient.identifier", rule=True)
    treating = (known.treating_idnps, known.treating_display) if known is not None else None
    if known is not None:
        # Before the record is locked: see `imaging_match.recheck`.
        imaging_match.serialise(writing.step.session, imaging_match.keys_of(known))
    record = identity.declare(
        writing.step,
        writing.partner,
        facts,
        key=key,
        known=known,
        new=operation.before is None and operation.query is None,
        record_id=uuid.UUID(operation.identity) if operation.identity is not None else None,
    )
    if treating is not None and treating != (record.treating_idnps, record.treating_display):
        inscription.follow_patient(writing.step, record)
    if known is not None:
        imaging_match.recheck(writing.step, record)
    operation.identity = str(record.id)
    writing.patients[operation.identity] = record
    writing.sent["Patient", operation.identity] = operation.tree
    writing.said[operation.identity] = facts


def _satisfies(operation: Operation) -> bool:
    """Whether the resource carries an identifier of its condition: else writing again would make a second one."""
    if operation.query is None:
        return True
    wanted = {value for name, value in conditions.pairs_of(operation.query) if name == "identifier"}
    carried = {f"{said.system}|{said.value}" for said in identifiers(operation.tree.get("identifier"))}
    return not wanted or bool(wanted & carried)
