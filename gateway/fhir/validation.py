"""``$validate``: what would become of a resource, told without keeping anything.

[FHIR R4 resource-operation-validate] The resource comes bare or in Parameters, with a mode and a profile there or in
the address. ``create``, ``update`` and ``delete`` are rehearsed: the very interaction is carried out in a step that is
undone, so that business rules, rights and conditions speak too.

Promises: the answer tells errors, R4's warnings and what a second judge doubts, and 200 means that the question was
answered, not that the resource is good; nothing stays of a rehearsal. A profile that is nominated and is not R4’s own
is refused (422 ``profil-non-gere``), as R4 asks of whoever cannot judge by it. Not promised: profiles claimed in
``meta.profile``; they are said not to be judged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.errors import GatewayError, InvalidContent
from gateway.fhir import outcome, validate
from gateway.fhir.document import Tree
from gateway.fhir.outcome import Issue
from gateway.fhir.writing import Operation

__all__ = ["MODES", "Question", "Rehearsed", "answer", "read"]

#: R4's list resource-validation-mode.
MODES = ("create", "update", "delete", "profile")
_OWN_PROFILE = "http://hl7.org/fhir/StructureDefinition/"


class Rehearsed(Exception):
    """Raised at the end of a rehearsal, so that its step is undone; no fault."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: a resource, or none for ``delete``, and how to look at it."""

    tree: Tree | None
    mode: str | None
    profile: str | None


def read(body: Tree | None, query: Mapping[str, str]) -> Question:
    """Take the question from a body, bare or Parameters, and from the address.

    Raises
    ------
    InvalidContent
        ``mode-inconnu``.
    """
    said: dict[str, Any] = {name: query.get(name) for name in ("mode", "profile")}
    if body is not None and body["resourceType"] == "Parameters":
        listed = body.get("parameter")
        given = [
            one
            for one in (listed if isinstance(listed, list) else ())
            if isinstance(one, dict) and isinstance(one.get("name"), str)
        ]
        for one in given:
            if one.get("name") in said:
                said[one["name"]] = next((value for name, value in one.items() if name.startswith("value")), None)
        inner = next((one.get("resource") for one in given if one.get("name") == "resource"), None)
        # Parameters that carry none are themselves what is judged.
        named = any(one.get("name") in {"resource", *said} for one in given)
        body = inner if isinstance(inner, dict) else None if named else body
    if said["mode"] not in (None, *MODES):  # a tuple: the mode may be a list
        text = f"Mode inconnu ; les modes sont : {', '.join(MODES)}."
        raise InvalidContent("mode-inconnu", text, expression="Parameters.parameter")
    profile = said["profile"]
    return Question(body, said["mode"], profile if isinstance(profile, str) else None)


def answer(
    question: Question, kind: str, identity: str | None, rehearse: Callable[[Operation], GatewayError | None]
) -> bytes:
    """Answer with an OperationOutcome.

    Parameters
    ----------
    kind, identity
        Of the address.
    rehearse
        Carries an operation out, undoes it and gives the refusal, if any.

    Raises
    ------
    InvalidContent
        ``element-obligatoire``: no resource where one is needed; ``profil-non-gere``.
    """
    if question.mode == "delete":
        return _told([], rehearse(_operation("DELETE", kind, identity, {})))
    tree = question.tree
    if tree is None:
        text = "Élément obligatoire absent : la ressource à juger."
        raise InvalidContent("element-obligatoire", text, expression="Parameters.parameter")
    _require_known(question.profile, kind)
    faults = [*_address_faults(tree, kind, identity, question.mode), *validate.judge(tree)]
    if faults:
        return _told(faults, None)
    refusal = None
    if question.mode == "create":
        refusal = rehearse(Operation("POST", kind, tree))
    elif question.mode == "update":
        refusal = rehearse(_operation("PUT", kind, identity or tree.get("id"), tree))
    return _told([*validate.remarks(tree), *_unjudged(tree)], refusal)


def _operation(method: str, kind: str, identity: str | None, tree: Tree) -> Operation:
    if identity is None:
        text = "Ce mode demande l’identifiant de la ressource, dans l’adresse ou dans la ressource."
        raise InvalidContent("element-obligatoire", text, expression=f"{kind}.id")
    return Operation(method, kind, tree, identity=identity)


def _require_known(profile: str | None, kind: str) -> None:
    if profile is not None and profile.partition("|")[0] != f"{_OWN_PROFILE}{kind}":
        text = "La passerelle ne juge pas selon ce profil : elle juge la structure et les invariants de FHIR R4."
        raise InvalidContent("profil-non-gere", text, expression="Parameters.parameter", rule=True)


def _address_faults(tree: Tree, kind: str, identity: str | None, mode: str | None) -> list[Issue]:
    if tree.get("resourceType") != kind:
        text = "Le type de la ressource n’est pas celui de l’adresse."
        return [Issue(code="type-different", text=text, expression="Resource.resourceType")]
    if identity is not None and mode in {None, "update", "profile"} and tree.get("id", identity) != identity:
        text = "L’identifiant de la ressource n’est pas celui de l’adresse."
        return [Issue(code="identifiant-different", text=text, expression=f"{kind}.id")]
    return []


def _unjudged(tree: Tree) -> list[Issue]:
    """What the answer would pass over in silence: profiles that the resource claims."""
    meta = tree.get("meta")
    if not isinstance(meta, dict) or "profile" not in meta:
        return []
    text = "Les profils déclarés ne sont pas jugés ici : seuls la structure et les invariants de FHIR R4 le sont."
    where = f"{tree['resourceType']}.meta.profile"
    return [Issue(code="profils-non-juges", text=text, expression=where, severity="information")]


def _told(said: list[Issue], refusal: GatewayError | None) -> bytes:
    entries = [outcome.told(issue) for issue in said]
    if refusal is not None:
        entries = [*outcome.issues(refusal), *entries]
    if not any(entry["severity"] == "error" for entry in entries):
        text = "Aucun défaut trouvé."
        entries.append({"severity": "information", "code": "informational", "details": {"text": text}})
    return outcome.body(entries)
