"""The first judge: whether a resource has the structure that R4 gives it.

Names, cardinalities, JSON types, formats of primitives, members of required bindings and targets of references, all
from `gateway.fhir.elements` [FHIR R4 json, datatypes#primitive]. Two walks over one table: `sound` is compiled to one
closure an element and answers only yes or « not sure » (it also asks the rules of each object, so that a usual resource
is walked once); `faults` says what is wrong and where, and is asked when the first is not sure.

Promises: neither raises on any tree that `gateway.fhir.document.parse` returns; what `sound` accepts, `faults` finds
nothing in (a property test holds the two together); no text quotes a value; walks are as deep as the tree is, which the
reader bounds. Not promised: conformance to profiles.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from gateway.fhir.elements import PRIMITIVE, Element, Shape, resource_types, shapes
from gateway.fhir.outcome import Issue
from gateway.fhir.primitives import PRIMITIVES

__all__ = ["Rules", "Scope", "faults", "sound"]


class Scope:
    """The resource that is being judged, and what stands around it.

    Attributes
    ----------
    tree, root
        ``%resource`` and ``%rootResource``: they differ in a contained resource.
    contained
        Types of the root's contained resources by id.
    """

    __slots__ = ("contained", "root", "tree")

    def __init__(self, tree: Mapping[str, Any], around: Scope | None = None) -> None:
        self.tree = tree
        self.root: Mapping[str, Any] = around.root if around is not None else tree
        if around is not None:
            self.contained: dict[str, str] = around.contained
        elif "contained" in tree:
            inner = tree["contained"]
            self.contained = {
                one["id"]: one["resourceType"]
                for one in (inner if isinstance(inner, list) else ())
                if isinstance(one, dict) and isinstance(one.get("id"), str) and isinstance(one.get("resourceType"), str)
            }
        else:
            self.contained = {}


#: Rules of the objects that stand at a path: each holds or not [FHIR R4 conformance-rules#constraints].
Rules = Callable[[str], tuple[Callable[[Any, Scope], bool], ...]]

_resource_id = PRIMITIVES["id"]

# The quick walk

_Check = Callable[[Any, Scope], bool]


def _primitive(element: Element, *, resource: bool) -> _Check:
    codes = element.codes
    if codes is not None:
        return lambda value, _: type(value) is str and value in codes
    return _resource_id if resource and element.name == "id" else PRIMITIVES[element.type]


def _each(check: _Check) -> _Check:
    def every(value: Any, scope: Scope) -> bool:
        if type(value) is not list or not value:
            return False
        for item in value:  # noqa: SIM110 - a generator would cost as much as the checks
            if not check(item, scope):
                return False
        return True

    return every


_LITERAL = re.compile(r"(.*/)?([A-Z][A-Za-z]+)/[A-Za-z0-9\-.]{1,64}(?:/_history/[A-Za-z0-9\-.]{1,64})?")


def _aims(value: Mapping[str, Any], targets: frozenset[str], contained: Mapping[str, str]) -> bool:
    """Whether a reference may point where it does; what cannot be known is allowed."""
    kind = value.get("type")
    if isinstance(kind, str) and kind not in targets and kind in resource_types():
        return False
    reference = value.get("reference")
    if not isinstance(reference, str):
        return True
    if reference.startswith("#"):
        # One that designates nothing breaks ref-1.
        inner = contained.get(reference[1:])
        return inner is None or inner in targets
    literal = _LITERAL.fullmatch(reference)
    if literal is None or literal.group(2) in targets:
        return True
    return bool(literal.group(1)) and literal.group(2) not in resource_types()


def _bound(value: Mapping[str, Any], concepts: frozenset[tuple[str, str]]) -> bool:
    """Whether one coding at least is a member of a required binding [FHIR R4 terminologies#required]."""
    codings = value.get("coding") if "system" not in value else [value]
    said = (
        (coding.get("system"), coding.get("code"))
        for coding in (codings if isinstance(codings, list) else ())
        if isinstance(coding, dict)
    )
    return any(type(system) is str and type(code) is str and (system, code) in concepts for system, code in said)


class _Compiler:
    """Closures by path, made when first needed; one for each table of rules."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._made: dict[str, _Check] = {}

    def check(self, path: str) -> _Check:
        made = self._made.get(path)
        if made is None:
            made = self._made[path] = self._object(shapes()[path])
        return made

    def _late(self, path: str) -> _Check:
        """Compile when first called: shapes refer to themselves."""
        made = self._made

        def later(value: Any, scope: Scope) -> bool:
            check = made.get(path)
            if check is None:
                check = self.check(path)
            return check(value, scope)

        return later

    def _names(self, shape: Shape) -> dict[str, _Check]:
        checks: dict[str, _Check] = {}
        inner = self._late(PRIMITIVE)

        def beside(value: Any, scope: Scope) -> bool:
            # One that has an id only says nothing without a value: left to the other walk.
            return type(value) is dict and "extension" in value and inner(value, scope)

        for element in shape.elements:
            checks[element.name] = self._element(element, shape)
            if _extensible(element) and not element.repeats:
                # A list beside a list may hold null and must be as long: rare, and left to the other walk.
                checks[f"_{element.name}"] = beside
        if shape.resource:
            checks["resourceType"] = lambda _value, _scope: True
        return checks

    def _object(self, shape: Shape) -> _Check:
        get = self._names(shape).get
        required = frozenset(names[0] for _, names in shape.required if len(names) == 1)
        # A value and what stands beside it count twice: rare, and left to the other walk too.
        choices = tuple(
            (frozenset((*names, *(f"_{name}" for name in names))), int((stem, names) in shape.required))
            for stem, names in shape.choices
        )
        rules = self._rules(shape.path)

        def check(value: Any, scope: Scope) -> bool:
            if type(value) is not dict or not value:
                return False
            for name, item in value.items():
                good = get(name)
                if good is None or not good(item, scope):
                    return False
            if not value.keys() >= required:
                return False
            for names, least in choices:
                if not least <= len(names.intersection(value)) <= 1:
                    return False
            for holds in rules:  # noqa: SIM110 - a generator would cost as much as the rules
                if not holds(value, scope):
                    return False
            return True

        return check

    def _element(self, element: Element, shape: Shape) -> _Check:
        if element.below is None:
            check = _primitive(element, resource=shape.resource)
        elif element.below == "Resource":
            check = self.contained if element.name == "contained" else self.resource
        else:
            check = self._late(element.below)
        check = self._narrowed(check, element)
        place = f"{shape.path}.{element.stem}"
        own = self._rules(place) if element.below != place else ()
        for holds in (*own, *(self._rules("SimpleQuantity") if element.simple else ())):
            check = _both(check, holds)
        return _each(check) if element.repeats else check

    def _narrowed(self, check: _Check, element: Element) -> _Check:
        targets, concepts = element.targets, element.concepts
        if targets is not None:
            check = _both(check, lambda value, scope: _aims(value, targets, scope.contained))
        if concepts is not None:
            check = _both(check, lambda value, _: _bound(value, concepts))
        return check

    def resource(self, value: Any, scope: Scope | None = None) -> bool:
        """Judge a resource that stands by itself, in an entry or in a parameter."""
        del scope
        return _is_resource(value) and self.check(value["resourceType"])(value, Scope(value))

    def contained(self, value: Any, scope: Scope) -> bool:
        """Judge a resource inside another."""
        return _is_resource(value) and self.check(value["resourceType"])(value, Scope(value, scope))


def _extensible(element: Element) -> bool:
    """Whether something may stand beside a value: not beside ids, attributes and narratives [FHIR R4 xml, xhtml]."""
    return element.below is None and element.type not in {"System.String", "xhtml"}


def _is_resource(value: Any) -> bool:
    kind = value.get("resourceType") if type(value) is dict else None
    return type(kind) is str and kind in resource_types()


def _both(one: _Check, other: _Check) -> _Check:
    return lambda value, scope: one(value, scope) and other(value, scope)


@cache
def _compiled(rules: Rules) -> _Compiler:
    return _Compiler(rules)


def sound(tree: Mapping[str, Any], rules: Rules) -> bool:
    """Whether a resource is certainly good, structure and rules; if not, `faults` and the rules say."""
    return _compiled(rules).resource(tree)


# The walk that explains


def faults(tree: Mapping[str, Any], where: str, around: Scope | None = None) -> Iterator[Issue]:
    """Say each fault of a resource's structure, with its FHIRPath below ``where``."""
    kind = tree.get("resourceType")
    if not isinstance(kind, str) or kind not in resource_types():
        text = "Type de ressource inconnu de FHIR R4."
        yield Issue(code="element-inconnu", text=text, expression=f"{where}.resourceType")
        return
    yield from _object_faults(tree, shapes()[kind], where, Scope(tree, around))


def _object_faults(node: Mapping[str, Any], shape: Shape, path: str, scope: Scope) -> Iterator[Issue]:
    if not node:
        yield Issue(code="valeur-invalide", text="Objet vide.", expression=path)
        return
    for name, value in node.items():
        if shape.resource and name == "resourceType":
            continue
        element = shape.names.get(name.removeprefix("_"))
        if element is None or (name.startswith("_") and not _extensible(element)):
            yield Issue(code="element-inconnu", text="Élément inconnu à cet endroit.", expression=f"{path}.{name}")
        elif name.startswith("_"):
            yield from _beside_faults(node, element, value, f"{path}.{element.name}", scope)
        else:
            yield from _element_faults(node, element, value, f"{path}.{name}", scope, resource=shape.resource)
    for stem, names in shape.required:
        if not any(name in node or (f"_{name}" in node and shape.names[name].below is None) for name in names):
            text = f"Élément obligatoire absent : {stem}."
            yield Issue(code="element-obligatoire", text=text, expression=f"{path}.{stem}")
    for stem, names in shape.choices:
        if sum(1 for name in names if name in node or f"_{name}" in node) > 1:
            text = f"Une seule valeur est permise pour {stem}[x]."
            yield Issue(code="valeur-invalide", text=text, expression=f"{path}.{stem}")


def _element_faults(
    node: Mapping[str, Any], element: Element, value: Any, here: str, scope: Scope, *, resource: bool
) -> Iterator[Issue]:
    if not element.repeats:
        if isinstance(value, list):
            yield Issue(code="valeur-invalide", text="Une seule valeur est permise.", expression=here)
        else:
            yield from _value_faults(value, element, here, scope, resource=resource)
        return
    if not isinstance(value, list) or not value:
        yield Issue(code="valeur-invalide", text="Une liste non vide est attendue.", expression=here)
        return
    beside = node.get(f"_{element.name}")
    for index, item in enumerate(value):
        # In a list of primitives, null keeps the place of a value that only has extensions [FHIR R4 json#primitive].
        if (
            item is None
            and element.below is None
            and isinstance(beside, list)
            and index < len(beside)
            and beside[index]
        ):
            continue
        yield from _value_faults(item, element, f"{here}[{index}]", scope, resource=False)


def _value_faults(value: Any, element: Element, path: str, scope: Scope, *, resource: bool) -> Iterator[Issue]:
    if element.below is None:
        yield from _primitive_faults(value, element, path, resource=resource)
    elif not isinstance(value, dict):
        yield Issue(code="valeur-invalide", text="Un objet est attendu.", expression=path)
    elif element.below == "Resource":
        # What is contained refers to its container's other contained resources; an entry has its own.
        yield from faults(value, path, scope if element.name == "contained" else None)
    else:
        yield from _object_faults(value, shapes()[element.below], path, scope)
        if element.targets is not None and not _aims(value, element.targets, scope.contained):
            text = f"Type de ressource non permis ici ; attendu : {', '.join(sorted(element.targets))}."
            yield Issue(code="cible-de-reference", text=text, expression=path)
        if element.concepts is not None and not _bound(value, element.concepts):
            text = f"Code absent de la liste obligatoire « {element.code_list} »."
            yield Issue(code="code-hors-liste", text=text, expression=path)


def _primitive_faults(value: Any, element: Element, path: str, *, resource: bool) -> Iterator[Issue]:
    good = _resource_id if resource and element.name == "id" else PRIMITIVES[element.type]
    if not good(value):
        text = f"Valeur invalide pour le type {element.type.removeprefix('System.')}."
        yield Issue(code="valeur-invalide", text=text, expression=path)
    elif element.codes is not None and value not in element.codes:
        text = f"Code absent de la liste obligatoire « {element.code_list} »."
        yield Issue(code="code-hors-liste", text=text, expression=path)


def _beside_faults(node: Mapping[str, Any], element: Element, value: Any, here: str, scope: Scope) -> Iterator[Issue]:
    beside = shapes()[PRIMITIVE]
    if not element.repeats:
        if isinstance(value, dict):
            yield from _object_faults(value, beside, here, scope)
            yield from _says_nothing(value, node.get(element.name), here)
        else:
            yield Issue(code="valeur-invalide", text="Un objet est attendu.", expression=here)
        return
    if not isinstance(value, list) or not value:
        yield Issue(code="valeur-invalide", text="Une liste non vide est attendue.", expression=here)
        return
    values = node.get(element.name)
    if isinstance(values, list) and len(values) != len(value):
        text = "Les deux listes d’un élément primitif et de ses extensions ont la même longueur."
        yield Issue(code="valeur-invalide", text=text, expression=here)
    for index, item in enumerate(value):
        if isinstance(item, dict):
            yield from _object_faults(item, beside, f"{here}[{index}]", scope)
            value_of = values[index] if isinstance(values, list) and index < len(values) else None
            yield from _says_nothing(item, value_of, f"{here}[{index}]")
        elif item is not None or not isinstance(values, list):
            yield Issue(code="valeur-invalide", text="Un objet est attendu.", expression=f"{here}[{index}]")


def _says_nothing(beside: Mapping[str, Any], value: Any, here: str) -> Iterator[Issue]:
    """ele-1 of a primitive: it has a value or an extension, an id is neither."""
    if value is None and beside.keys() == {"id"}:
        text = "Un élément a une valeur ou des éléments (ele-1)."
        yield Issue(code="invariant-ele-1", text=text, expression=here, rule=True)
