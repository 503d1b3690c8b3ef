"""What makes a resource unacceptable before any verb sees it.

Two judges in one walk: the structure that R4 gives a type (`gateway.fhir.structure`, from the table of elements) and
R4's own invariants (`gateway.fhir.invariants`). A usual resource is walked once and accepted; only a resource that this
quick walk is not sure of is walked again for what to say. `remarks` adds, for ``$validate``, what refuses nothing: R4's
rules of severity warning and what `fhir.resources` (R4B classes, equal to R4 for these types) has to say.

Promises: `judge` never raises on any tree that `gateway.fhir.document.parse` returns; a fault of structure is told from
a broken rule (400 and 422, DECISIONS 10); no text quotes a value.
Not promised: conformance to French profiles (their rules that matter here are business rules of the verbs).

`fhir.resources` alone would not do: it accepts any code in a required binding, any target of a reference, ``"true"``
for ``true``, knows no invariant and raises bare exceptions on an unknown type in a Bundle [spec fhir-fr 0.3].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from gateway.fhir.elements import Shape, resource_types, shapes
from gateway.fhir.invariants import Rule, enforced, rules
from gateway.fhir.outcome import InvalidResource, Issue
from gateway.fhir.structure import Scope, faults, sound

__all__ = ["MAX_ISSUES", "accept", "judge", "remarks"]

#: Faults reported for one resource; a hundredth would help nobody and cost an answer of megabytes.
MAX_ISSUES = 20


def accept(tree: Mapping[str, Any], where: str | None = None) -> None:
    """Refuse a resource that `judge` finds faults in.

    Raises
    ------
    InvalidResource
        With up to `MAX_ISSUES` issues.
    """
    issues = judge(tree, where)
    if issues:
        raise InvalidResource(issues)


def judge(tree: Mapping[str, Any], where: str | None = None) -> list[Issue]:
    """Find the faults of one resource: those of its structure, or if there are none the rules that it breaks.

    Parameters
    ----------
    tree
        The resource.
    where
        FHIRPath of the resource in its carrier (``Bundle.entry[2].resource``); its type when it stands alone.
    """
    if sound(tree, enforced):
        return []
    base = where or _base(tree)
    found = list(islice(faults(tree, base), MAX_ISSUES))
    return found or list(islice(_broken_rules(tree, base, "error"), MAX_ISSUES))


def _base(tree: Mapping[str, Any]) -> str:
    kind = tree.get("resourceType")
    return kind if isinstance(kind, str) and kind in resource_types() else "Resource"


def remarks(tree: Mapping[str, Any]) -> list[Issue]:
    """What can be said of a resource that `judge` accepts: R4's warnings, and the doubts of a second judge."""
    base = _base(tree)
    return [*islice(_broken_rules(tree, base, "warning"), MAX_ISSUES), *_second_opinion(tree, base)]


# Rules


def _broken_rules(tree: Mapping[str, Any], path: str, severity: str, around: Scope | None = None) -> Iterator[Issue]:
    yield from _broken_below(tree, shapes()[tree["resourceType"]], path, severity, Scope(tree, around))


def _broken_below(node: Mapping[str, Any], shape: Shape, path: str, severity: str, scope: Scope) -> Iterator[Issue]:
    yield from _broken(node, rules(shape.path), path, severity, scope)
    for name, value in node.items():
        element = shape.names.get(name.removeprefix("_"))
        if element is None:
            continue
        below = element.below or "Element"
        place = f"{shape.path}.{element.stem}"
        own = rules(place) if below != place and not name.startswith("_") else ()
        if element.simple:
            own += rules("SimpleQuantity")
        here = f"{path}.{element.name}"
        for item, at in _places(value, here):
            yield from _broken(item, own, at, severity, scope)
            if type(item) is not dict:
                continue
            if below == "Resource":
                yield from _broken_rules(item, at, severity, scope if name == "contained" else None)
            else:
                yield from _broken_below(item, shapes()[below], at, severity, scope)


def _places(value: Any, path: str) -> Iterator[tuple[Any, str]]:
    if type(value) is list:
        yield from ((item, f"{path}[{index}]") for index, item in enumerate(value))
    else:
        yield value, path


def _broken(node: Any, listed: tuple[Rule, ...], path: str, severity: str, scope: Scope) -> Iterator[Issue]:
    for rule in listed:
        if rule.severity == severity and not rule.holds(node, scope):
            own = not rule.key[-1].isdigit()
            yield Issue(
                code=rule.key if own else f"invariant-{rule.key}",
                text=f"{rule.text}." if own else f"{rule.text} ({rule.key}).",
                expression=path,
                severity=severity,
                rule=True,
            )


# The second judge


def _second_opinion(tree: Mapping[str, Any], base: str) -> list[Issue]:
    """Ask `fhir.resources`; whatever it raises is a doubt told to whoever asked, never an error of ours."""
    from fhir.resources.R4B import get_fhir_model_class
    from pydantic import ValidationError

    text = "La bibliothèque fhir.resources refuserait cette valeur."
    try:
        get_fhir_model_class(str(tree["resourceType"])).model_validate(tree)
    except ValidationError as refused:
        listed = refused.errors(include_url=False, include_input=False, include_context=False)[:MAX_ISSUES]
        places = ("".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in said["loc"]) for said in listed)
        return [Issue(code="second-avis", text=text, expression=base + place, severity="warning") for place in places]
    except Exception:  # noqa: BLE001 - the library raises bare exceptions on content; content is never our fault
        return [Issue(code="second-avis", text=text, expression=base, severity="warning")]
    return []
