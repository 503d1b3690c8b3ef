"""An inscription that a client writes: its request, its form, and the Task that says where its dossier stands.

[spec fhir-fr 1.12 to 1.14, 2.2, 2.3, 4.1; DECISIONS 17]

Promises: the requester inscribes, amends, cancels and answers his form; the establishment that runs the RCP moves the
dossier as its secretariat may, through the very verbs of the portal; what only a coordinator decides in person is
refused with the reason; a Task about no inscription is its sender's own, kept as sent.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select

from gateway.errors import Conflict, Forbidden, InvalidContent
from gateway.fhir import document
from gateway.fhir.document import Tree
from gateway.fhir.keeping import current
from gateway.fhir.translate.elements import CANONICAL, Resolve, codings, identifiers
from gateway.fhir.translate.inscription import form_facts, inscription_facts, is_inscription
from gateway.fhir.write_fiche import gather
from gateway.fhir.write_kept import keep_as_sent, root_key
from gateway.fhir.writing import Operation, Writing
from gateway.identifiers import uuid7
from gateway.model import writes
from gateway.model.dossier import Dossier
from gateway.model.meeting import RcpSession
from gateway.rcp import access, dossier_states, inscribed, inscription
from gateway.rcp.dossier_states import Actor

__all__ = ["followed", "name_own_task", "write_form", "write_request", "write_task"]

#: Types whose resource of a dossier has the dossier's id, as its ServiceRequest.
_NAMED_AS_ITS_DOSSIER = ("Task", "Encounter")


def write_request(writing: Writing, operation: Operation) -> None:
    """Inscribe, amend or cancel; a request that is no inscription is kept as sent."""
    before = operation.before
    if before is not None and (before.root_kind == "Dossier") != is_inscription(operation.tree):
        text = "Une inscription à une RCP ne devient pas une autre demande, ni l’inverse."
        raise Conflict("cle-modifiee", text, expression="ServiceRequest.code")
    if not is_inscription(operation.tree):
        keep_as_sent(writing, operation)
        return
    resolve = writing.resolve()
    record = writing.require_patient(operation, "subject")
    if record.partner_id != writing.partner.id:
        text = "Le patient inscrit doit être un patient de l’établissement qui l’inscrit."
        raise Forbidden("proprietaire", text, expression="ServiceRequest.subject")
    key = root_key(operation)
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
        _require_free(writing, operation, key)
        dossier = inscription.inscribe(writing.step, record, facts, partner=writing.partner, key=key)
        writing.made[str(dossier.id)] = dossier
        gather(writing, dossier, operation.tree, tumour, form)
    else:
        dossier = known
        if operation.tree["status"] in {"revoked", "entered-in-error"} and dossier.state != "annule":
            inscription.cancel(writing.step, dossier)
        elif dossier.state != "annule":
            last = inscription_facts(_last(operation), tumour=tumour, form=form, resolve=resolve)
            inscription.amend(writing.step, dossier, facts, last)
            if dossier.state in dossier_states.open_states():
                gather(writing, dossier, operation.tree, tumour, form)
        writing.step.touch(dossier)
    writing.sent["ServiceRequest", str(key)] = operation.tree


def _last(operation: Operation) -> Tree:
    """What the same request said last."""
    return document.decode(operation.before.body) if operation.before is not None else operation.tree


def _require_free(writing: Writing, operation: Operation, key: uuid.UUID) -> None:
    """Refuse an id under which somebody keeps what a dossier's own Task or Encounter would be written over."""
    if writes.made(writing.step.session, key):
        return
    if any(current(writing.step.session, kind, str(key)) is not None for kind in _NAMED_AS_ITS_DOSSIER):
        text = "Cet identifiant est déjà celui d’une autre ressource."
        raise Conflict("cle-modifiee", text, expression=f"{operation.kind}.id")


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


def write_form(writing: Writing, operation: Operation) -> None:
    """Keep a form; one that belongs to an existing dossier is the dossier's new form."""
    dossier = None
    for based in operation.tree.get("basedOn", ()):
        dossier = dossier or _dossier_of(writing, str(based.get("reference", "")))
    if dossier is not None:
        _require_same_patient(writing, operation.tree, dossier.record_id, "QuestionnaireResponse.subject")
    if dossier is not None and str(dossier.id) not in writing.made:
        inscription.replace_form(writing.step, dossier, form_facts(operation.tree, writing.resolve()))
        gather(writing, dossier, operation.tree)
    keep_as_sent(writing, operation, dossier)


def write_task(writing: Writing, operation: Operation) -> None:
    """Take a Task about an inscription as a view of the dossier's own Task: who may, moves the dossier by it.

    Raises
    ------
    InvalidContent
        ``inscription-inconnue``, ``passage-impossible`` (rules).
    Conflict
        ``cle-modifiee``, ``identifiant-deja-utilise``.
    """
    reference = followed(operation.tree)
    dossier = _dossier_of(writing, reference)
    if dossier is None:
        _keep_own_task(writing, operation, reference)
        return
    operation.identity = str(dossier.id)
    known = current(writing.step.session, "Task", operation.identity)
    if operation.before is not None and operation.before.id != operation.identity:
        raise Conflict("cle-modifiee", "Une tâche ne change pas de dossier.", expression="Task.focus")
    if operation.method == "POST" and known is not None and operation.identity not in writing.made:
        text = "La tâche de ce dossier existe déjà ; elle se met à jour par PUT avec If-Match."
        raise Conflict("identifiant-deja-utilise", text, expression="Task.focus")
    if dossier.partner_id != writing.partner.id:
        _require_seen(writing, operation, known)
    if known is not None:
        _move(writing, operation, dossier, document.decode(known.body))
    writing.sent["Task", operation.identity] = operation.tree
    writing.step.touch(dossier)


def _require_seen(writing: Writing, operation: Operation, known: Any | None) -> None:
    """Refuse what somebody else's Task newly names and he does not see: what a dossier names is shown to its RCP.

    Raises
    ------
    InvalidContent
        ``reference-inconnue`` (rule).
    """
    before = inscribed.named_in(known.body) if known is not None else frozenset()
    find = writing.resolve()
    for kind, key in sorted(inscribed.named_in(document.encode(operation.tree)) - before):
        if find(f"{kind}/{key}") is None:
            text = f"La tâche désigne une ressource {kind} inconnue de cet établissement."
            raise InvalidContent("reference-inconnue", text, expression="Task", rule=True)


def followed(tree: Tree) -> str:
    """Reference to what a Task follows: its focus, else the first that it is based on."""
    about: Tree = tree.get("focus") or next(iter(tree.get("basedOn", ())), {})
    return str(about.get("reference", ""))


def name_own_task(writing: Writing, operation: Operation) -> None:
    """Give a Task that follows no inscription an id of its own."""
    key = uuid7()
    writes.name(writing.step.session, key)
    operation.identity = str(key)


def _keep_own_task(writing: Writing, operation: Operation, reference: str) -> None:
    """Keep a Task about no dossier; one that means a dossier, and names none that is known, is refused."""
    before = operation.before
    states = {coding.get("system") for coding in codings(operation.tree.get("businessStatus"))}
    kind, _, key = reference.partition("/")
    if (
        (before is not None and before.root_kind is not None)
        or f"{CANONICAL}/CodeSystem/rcp-etat-dossier" in states
        or (kind == "ServiceRequest" and _is_uuid(key) and writing.resolve()(reference) is None)
    ):
        text = "La tâche doit désigner une inscription connue (focus ou basedOn vers un ServiceRequest)."
        raise InvalidContent("inscription-inconnue", text, expression="Task.focus", rule=True)
    if operation.identity is None:
        name_own_task(writing, operation)
    elif operation.identity in writing.made:
        raise Conflict("cle-modifiee", "Cet identifiant est celui d’un dossier.", expression="Task.id")
    keep_as_sent(writing, operation)


def _is_uuid(key: str) -> bool:
    try:
        uuid.UUID(key.partition("/")[0])
    except ValueError:
        return False
    return True


def _move(writing: Writing, operation: Operation, dossier: Dossier, known: Tree) -> None:
    asked, held = operation.tree["status"], known["status"]
    wanted = _state(operation.tree)
    if asked == "cancelled" and held != "cancelled":
        inscription.cancel(writing.step, dossier, _reason(operation.tree))
    elif dossier.session.rcp_id in writing.step.caller.rcps:
        _move_as_home(writing, operation, dossier, known)
    elif asked != held or (wanted is not None and wanted != _state(known)):
        text = (
            "Le demandeur ne peut qu’annuler la tâche, y ajouter des entrées ou des notes ; l’état est à la passerelle."
        )
        raise InvalidContent("passage-impossible", text, expression="Task.status", rule=True)


#: Task.status without a state of the dossier → the state that it means.
_BY_STATUS: Mapping[str, str] = {"rejected": "refuse", "cancelled": "annule"}
#: Moves that the software of the RCP's establishment makes, as its secretariat does.
_AS_SECRETARIAT = frozenset({"inscrit", "refuse", "annule"})


def _move_as_home(writing: Writing, operation: Operation, dossier: Dossier, known: Tree) -> None:
    """Move a dossier as the secretariat of its RCP may [spec fhir-fr 2.3]."""
    tree, step = operation.tree, writing.step
    wanted = _state(tree)
    if wanted in {None, dossier.state} and tree["status"] != known["status"]:
        wanted = _BY_STATUS.get(tree["status"], "")
    session = _session(writing, tree)
    if session is not None and session.id != dossier.session_id and wanted in {None, dossier.state, "reporte"}:
        inscription.reschedule(step, dossier, session, _reason(tree))
        return
    if wanted in {None, dossier.state}:
        return
    actors = dossier_states.actors(dossier.state, wanted)
    if wanted in _AS_SECRETARIAT and Actor.SECRETARY in actors:
        dossier_states.move(step, dossier, wanted, _reason(tree))
        return
    text = f"Passage de l’état « {dossier.state} » à l’état « {wanted} » impossible."
    if wanted == "reporte":
        text = "Pour reporter un dossier, la tâche nomme l’autre séance (Task.input « session »)."
    elif actors:
        text = f"{text[:-1]} par un logiciel : il suit un acte du coordonnateur, du demandeur ou de la passerelle."
    raise InvalidContent("passage-impossible", text, expression="Task.businessStatus", rule=True)


def _state(tree: Tree) -> Any:
    return next((coding.get("code") for coding in codings(tree.get("businessStatus"))), None)


def _reason(tree: Tree) -> str | None:
    said = tree.get("statusReason")
    return said.get("text") if isinstance(said, dict) else None


def _session(writing: Writing, tree: Tree) -> RcpSession | None:
    """The session that a Task's input names, by id or by its own identifier."""
    for one in tree.get("input", ()):
        if not any(coding.get("code") == "session" for coding in codings(one.get("type"))):
            continue
        said = one.get("valueReference", {})
        named = writing.local(str(said.get("reference", "")))
        if named is not None and named[0] == "Appointment":
            row = current(writing.step.session, *named)
            if row is not None and row.root_kind == "RcpSession":
                return writing.step.session.get(RcpSession, row.root_id)
        for fact in identifiers(said.get("identifier")):
            found = writing.step.session.scalar(select(RcpSession).where(RcpSession.identifier == fact.value))
            if found is not None:
                return found
    return None


def _dossier_of(writing: Writing, reference: str) -> Dossier | None:
    """Lock the dossier that a reference to its inscription names, if it exists for the caller."""
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
