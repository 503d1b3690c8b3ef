"""Creating and updating over FHIR: what a client sent becomes verbs' facts, or is kept as sent.

[spec fhir-fr 1.1, 1.12 to 1.15, 2.3, 4.1; DECISIONS 6, 10, 17]

One function a type; `apply` carries out an operation that `gateway.fhir.writing` has located. Promises: the client's
elements come back unchanged but for id, versionId and lastUpdated; the same content again makes no new version.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from sqlalchemy import select

from gateway.errors import Conflict, Fault, Forbidden, InvalidContent
from gateway.fhir import document
from gateway.fhir.document import Tree
from gateway.fhir.keeping import Owner, current, keep
from gateway.fhir.translate.elements import Resolve, identifiers
from gateway.fhir.translate.inscription import form_facts, inscription_facts, is_inscription
from gateway.fhir.translate.patient import patient_facts
from gateway.fhir.writing import Operation, Writing
from gateway.model.dossier import Dossier
from gateway.rcp import access, identity, imaging_match, inscription

__all__ = ["apply"]


def apply(writing: Writing, operation: Operation) -> None:
    """Carry out one located operation.

    Raises
    ------
    GatewayError
        Whatever the verbs refuse; `Forbidden` for whoever may not write.
    """
    if operation.untouched:
        return
    writing.partner  # noqa: B018 - refuses whoever may not write, before any effect
    operation.tree = document.strip_server_meta(operation.tree)
    writing.localise(operation.tree)
    wanted = operation.identity
    _HANDLERS[operation.kind](writing, operation)
    if operation.identity is None:
        raise Fault("sans-identite", "La ressource écrite n’a pas reçu d’identifiant.")
    if wanted not in {None, operation.identity}:
        text = "Ce que dit la ressource existe déjà sous un autre identifiant."
        raise Conflict("cle-modifiee", text, expression=f"{operation.kind}.id")
    writing.trees[f"{operation.kind}/{operation.identity}"] = operation.tree


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
    if known is not None:
        # Before the record is locked: see `imaging_match.recheck`.
        imaging_match.serialise(writing.step.session, imaging_match.keys_of(known))
    record = identity.declare(
        writing.step,
        writing.partner,
        facts,
        key=key,
        new=operation.before is None and operation.query is None,
        record_id=uuid.UUID(operation.identity) if operation.identity is not None else None,
    )
    if treating is not None and treating != (record.treating_idnps, record.treating_display):
        inscription.follow_patient(writing.step, record)
    if known is not None:
        imaging_match.recheck(writing.step, record)
    operation.identity = str(record.id)
    writing.sent["Patient", operation.identity] = operation.tree


def _satisfies(operation: Operation) -> bool:
    """Whether the resource carries an identifier of its condition: else writing again would make a second one."""
    wanted = {value for name, value in parse_qsl(operation.query or "") if name == "identifier"}
    carried = {f"{said.system}|{said.value}" for said in identifiers(operation.tree.get("identifier"))}
    return not wanted or bool(wanted & carried)


def _write_request(writing: Writing, operation: Operation) -> None:
    before = operation.before
    if before is not None and (before.root_kind == "Dossier") != is_inscription(operation.tree):
        text = "Une inscription à une RCP ne devient pas une autre demande, ni l’inverse."
        raise Conflict("cle-modifiee", text, expression="ServiceRequest.code")
    if not is_inscription(operation.tree):
        _keep_as_sent(writing, operation)
        return
    resolve = writing.resolve()
    record = writing.require_patient(operation, "subject")
    if record.partner_id != writing.partner.id:
        text = "Le patient inscrit doit être un patient de l’établissement qui l’inscrit."
        raise Forbidden("proprietaire", text, expression="ServiceRequest.subject")
    key = uuid.UUID(operation.identity)
    known = writing.step.lock(Dossier, key)[0] if before is not None else None
    if known is not None and known.record_id != record.id:
        text = "Une inscription ne change pas de patient : annulez-la et inscrivez l’autre patient."
        raise Conflict("patient-different", text, expression="ServiceRequest.subject")
    tumour = _referred(operation.tree, "reasonReference", "Condition", resolve)
    form = _form_of(writing, operation, resolve)
    _require_same_patient(writing, tumour, record.id, "ServiceRequest.reasonReference")
    _require_same_patient(writing, form, record.id, "ServiceRequest.supportingInfo")
    facts = inscription_facts(operation.tree, tumour=tumour, form=form, resolve=resolve)
    if known is None:
        dossier = inscription.inscribe(writing.step, record, facts, partner=writing.partner, key=key)
        writing.made[str(dossier.id)] = dossier
    else:
        dossier = known
        if operation.tree["status"] in {"revoked", "entered-in-error"} and dossier.state != "annule":
            inscription.cancel(writing.step, dossier)
        elif dossier.state != "annule":
            inscription.amend(writing.step, dossier, facts)
        writing.step.touch(dossier)
    writing.sent["ServiceRequest", str(key)] = operation.tree


def _require_same_patient(writing: Writing, tree: Tree | None, record_id: uuid.UUID, expression: str) -> None:
    """Refuse the tumour or the form of another patient: a dossier holds what is said of its own."""
    subject = tree.get("subject") if tree is not None else None
    reference = subject.get("reference") if isinstance(subject, dict) else None
    if not isinstance(reference, str):
        return
    named = reference.removeprefix(f"{writing.base_url}/").partition("/_history/")[0]
    if named != f"Patient/{record_id}":
        text = "Le patient de cet élément n’est pas celui de l’inscription."
        raise InvalidContent("patient-different", text, expression=expression, rule=True)


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
    if dossier is not None:
        _require_same_patient(writing, operation.tree, dossier.record_id, "QuestionnaireResponse.subject")
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
