"""Creating and updating over FHIR: what a client sent becomes verbs' facts, or is kept as sent.

[spec fhir-fr part 1, 2.1 to 2.3, 4.1; DECISIONS 6, 10, 17]

One handler a type; `apply` carries out an operation that `gateway.fhir.writing` has located. Promises: the client's
elements come back unchanged but for id, versionId and lastUpdated; the same content again makes no new version; what a
verb understands (an inscription, its form and Task, a contribution, a session, a report) takes effect through it, and
what it refuses is not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway.errors import Conflict, Fault
from gateway.fhir import document
from gateway.fhir.owners import WRITABLE
from gateway.fhir.write_binary import write_binary, write_document
from gateway.fhir.write_dossier import write_form, write_request, write_task
from gateway.fhir.write_fiche import write_clinical
from gateway.fhir.write_kept import keep_as_sent
from gateway.fhir.write_message import write_communication
from gateway.fhir.write_orders import note_order
from gateway.fhir.write_patient import write_patient
from gateway.fhir.write_report import write_composition
from gateway.fhir.write_session import write_session
from gateway.fhir.write_subscription import write_subscription
from gateway.fhir.writing import Operation, Writing

__all__ = ["apply"]


def apply(writing: Writing, operation: Operation) -> None:
    """Carry out one located operation, of which `Writing.hold_references` holds what it refers to.

    Raises
    ------
    GatewayError
        Whatever the verbs refuse; `Forbidden` for whoever may not write.
    """
    if operation.untouched:
        return
    writing.partner  # noqa: B018 - refuses whoever may not write, before any effect
    operation.tree = document.strip_server_meta(operation.tree)
    wanted = operation.identity
    _HANDLERS[operation.kind](writing, operation)
    if operation.identity is None:
        raise Fault("sans-identite", "La ressource écrite n’a pas reçu d’identifiant.")
    if wanted not in {None, operation.identity}:
        text = "Ce que dit la ressource existe déjà sous un autre identifiant."
        raise Conflict("cle-modifiee", text, expression=f"{operation.kind}.id")
    note_order(writing, operation)
    writing.trees[f"{operation.kind}/{operation.identity}"] = operation.tree


_VERBS: Mapping[str, Callable[[Writing, Operation], None]] = {
    "Patient": write_patient,
    "ServiceRequest": write_request,
    "QuestionnaireResponse": write_form,
    "Task": write_task,
    "Appointment": write_session,
    "Communication": write_communication,
    "Composition": write_composition,
    "Binary": write_binary,
    "DocumentReference": write_document,
    "Subscription": write_subscription,
    "Condition": write_clinical,
    "Observation": write_clinical,
    "DiagnosticReport": write_clinical,
}
_HANDLERS: Mapping[str, Callable[[Writing, Operation], None]] = {
    kind: _VERBS.get(kind, keep_as_sent) for kind in WRITABLE
}
