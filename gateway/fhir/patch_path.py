"""FHIRPath Patch: ``add``, ``insert``, ``delete``, ``replace``, ``move`` carried by a Parameters [FHIR R4 fhirpatch].

Promises: all operations or none, in order; the tree is never changed in place; what stands beside a primitive (its
extensions) moves and goes with it; a choice takes the JSON name of the value's type. The paths are those of
`gateway.fhir.fhirpath_text`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.errors import Conflict, GatewayError, InvalidContent
from gateway.fhir import fhirpath, fhirpath_text
from gateway.fhir.document import Tree, copied
from gateway.fhir.elements import shapes
from gateway.fhir.fhirpath import Path, Place, child_names
from gateway.fhir.patch_bounds import Bounds
from gateway.settings import Limits

__all__ = ["PathPatch", "read"]

#: Parts of each operation beside ``type`` and ``path`` [FHIR R4 fhirpatch].
_PARTS: Mapping[str, tuple[str, ...]] = {
    "add": ("name", "value"),
    "insert": ("index", "value"),
    "delete": (),
    "replace": ("value",),
    "move": ("source", "destination"),
}
_NUMBERS = {"index", "source", "destination"}


@dataclass(frozen=True, slots=True)
class _Value:
    """A value to write: its JSON, what stands beside it, the suffix of its type; or parts of an anonymous type."""

    said: Any = None
    beside: Any = None
    suffix: str = ""
    parts: tuple[Any, ...] | None = None


@dataclass(frozen=True, slots=True)
class _Operation:
    where: str
    type: str
    path: Path
    name: str = ""
    value: _Value = _Value()
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PathPatch:
    """Operations that were read."""

    operations: tuple[_Operation, ...]
    limits: Limits

    def apply(self, tree: Tree) -> Tree:
        """Return the changed copy of a resource.

        Raises
        ------
        Conflict
            ``patch-cible``: a path that does not name exactly what the operation needs.
        InvalidContent
            ``patch-illisible``; ``patch-ressource-entiere`` (rule); ``patch-demesure``.
        """
        changed: Tree = copied(tree)
        bounds = Bounds(self.limits)
        for operation in self.operations:
            try:
                _VERBS[operation.type](fhirpath.root(changed, bounds.walk), operation)
                bounds.weigh(changed)  # values put into values nest deeper than a body may
            except GatewayError as error:
                error.expression = operation.where
                raise
        return changed


def _one(found: list[Place]) -> Place:
    if len(found) != 1:
        raise Conflict("patch-cible", "Le chemin du patch ne désigne pas exactement un élément.")
    return found[0]


def _part(found: list[Place]) -> Place:
    """One element that is not the resource itself."""
    place = _one(found)
    if place.whole:
        text = "La ressource entière ne se patche pas : elle se remplace par une mise à jour et se supprime par DELETE."
        raise InvalidContent("patch-ressource-entiere", text, rule=True)
    return place


def _json_name(shape: str | None, name: str, value: _Value) -> str:
    """JSON name under which a value stands: of a choice, the one of the value's type."""
    names = child_names(shape, name)
    if len(names) == 1:
        return names[0]
    wanted = name + value.suffix
    if wanted not in names:
        raise InvalidContent("patch-illisible", "L’élément n’existe pas à cet endroit ou n’a pas ce type.")
    return wanted


def _built(value: _Value, below: str | None) -> Any:
    """JSON of a value; of an anonymous type, put together from its parts."""
    if value.parts is None:
        return copied(value.said)
    built: Tree = {}
    for part in value.parts:
        name, inner = _part_name(part), _value(part)
        json_name = _json_name(below, name, inner)
        element = shapes()[below or ""].names[json_name]
        _set(built, json_name, element.repeats, len(built.get(json_name, ())), inner, element.below)
    return built


def _set(holder: Tree, name: str, repeats: bool, index: int, value: _Value, below: str | None) -> None:  # noqa: FBT001 - the table's own word
    if not repeats:
        said = _built(value, below)
        if said is not None:
            holder[name] = said
        if value.beside is not None:
            holder["_" + name] = copied(value.beside)
        return
    _insert(holder, name, index, _built(value, below), copied(value.beside))


def _pair(holder: Tree, name: str) -> tuple[list[Any], list[Any]]:
    """Both lists of a repeating element, of the same length."""
    said, beside = list(holder.get(name) or ()), list(holder.get("_" + name) or ())
    length = max(len(said), len(beside))
    return said + [None] * (length - len(said)), beside + [None] * (length - len(beside))


def _keep(holder: Tree, name: str, said: list[Any], beside: list[Any]) -> None:
    for key, values, needed in ((name, said, True), ("_" + name, beside, False)):
        if any(value is not None for value in values) or (needed and any(one is not None for one in beside)):
            holder[key] = values
        else:
            holder.pop(key, None)


def _insert(holder: Tree, name: str, index: int, value: Any, beside: Any) -> None:
    said, sides = _pair(holder, name)
    if index > len(said):
        raise Conflict("patch-cible", "L’indice dépasse la liste.")
    said.insert(index, value)
    sides.insert(index, beside)
    _keep(holder, name, said, sides)


def _remove(place: Place) -> None:
    if place.index is None:
        place.holder.pop(place.name, None)
        place.holder.pop("_" + place.name, None)
        return
    said, beside = _pair(place.holder, place.name)
    del said[place.index], beside[place.index]
    _keep(place.holder, place.name, said, beside)


def _add(start: Place, operation: _Operation) -> None:
    place = _one(operation.path.places(start))
    shape = place.shape
    inside = place.inside
    if inside is None and place.below is None:  # the first extension of a primitive
        inside = _beside(place)
    if not isinstance(inside, dict):
        raise Conflict("patch-cible", "L’élément désigné ne contient pas d’autres éléments.")
    name = _json_name(shape, operation.name, operation.value)
    element = shapes()[shape or ""].names[name]
    taken = [one for one in child_names(shape, operation.name) if one in inside or "_" + one in inside]
    if taken and not element.repeats:
        raise Conflict("patch-cible", "L’élément à ajouter existe déjà et ne se répète pas.")
    _set(
        inside,
        name,
        element.repeats,
        len(_pair(inside, name)[0]) if element.repeats else 0,
        operation.value,
        element.below,
    )


def _beside(place: Place) -> Tree:
    made: Tree = {}
    if place.index is None:
        place.holder["_" + place.name] = made
        return made
    said, beside = _pair(place.holder, place.name)
    beside[place.index] = made
    place.holder[place.name], place.holder["_" + place.name] = said, beside
    return made


def _list_of(start: Place, path: Path) -> tuple[Tree, str, str | None]:
    """What holds the list that a path names, its name, and the path of its elements."""
    above, name = path.collection()
    place = _one(above.places(start)) if above.steps else start
    names = child_names(place.shape, name)
    inside = place.inside
    if len(names) != 1 or not isinstance(inside, dict) or not shapes()[place.shape or ""].names[names[0]].repeats:
        raise Conflict("patch-cible", "Le chemin du patch ne désigne pas une liste.")
    return inside, names[0], shapes()[place.shape or ""].names[names[0]].below


def _insert_into(start: Place, operation: _Operation) -> None:
    holder, name, below = _list_of(start, operation.path)
    _set(holder, name, True, operation.numbers[0], operation.value, below)  # noqa: FBT003 - it is a list


def _delete(start: Place, operation: _Operation) -> None:
    found = operation.path.places(start)
    if found:  # nothing to delete is no error [FHIR R4 fhirpatch]
        _remove(_part(found))


def _replace(start: Place, operation: _Operation) -> None:
    place = _part(operation.path.places(start))
    value = operation.value
    if place.index is not None:
        said, beside = _pair(place.holder, place.name)
        said[place.index], beside[place.index] = _built(value, place.below), copied(value.beside)
        _keep(place.holder, place.name, said, beside)
        return
    name, below = _replaced(place, value)
    _remove(place)
    _set(place.holder, name, False, 0, value, below)  # noqa: FBT003 - it stands alone


def _replaced(place: Place, value: _Value) -> tuple[str, str | None]:
    """JSON name of what replaces an element: another type of a choice has another name."""
    table = shapes()[place.under]
    for stem, names in table.choices:
        name = stem + value.suffix
        if place.name in names and name in names and value.parts is None:
            return name, table.names[name].below
    return place.name, place.below


def _move(start: Place, operation: _Operation) -> None:
    holder, name, _ = _list_of(start, operation.path)
    said, beside = _pair(holder, name)
    source, destination = operation.numbers
    if max(source, destination) >= len(said):
        raise Conflict("patch-cible", "L’indice dépasse la liste.")
    for values in (said, beside):
        values.insert(destination, values.pop(source))
    _keep(holder, name, said, beside)


_VERBS: Mapping[str, Callable[[Place, _Operation], None]] = {
    "add": _add,
    "insert": _insert_into,
    "delete": _delete,
    "replace": _replace,
    "move": _move,
}


def read(tree: Tree, limits: Limits) -> PathPatch:
    """Read the operations of a Parameters.

    Raises
    ------
    InvalidContent
        ``patch-illisible``, ``trop-d-operations``.
    """
    if tree.get("resourceType") != "Parameters":
        text = "Un patch en FHIR est une ressource Parameters."
        raise InvalidContent("patch-illisible", text, expression="Parameters")
    listed = tree.get("parameter", [])
    if not isinstance(listed, list):
        raise InvalidContent("patch-illisible", "Une liste est attendue.", expression="Parameters.parameter")
    if len(listed) > limits.patch_operations:
        text = f"Trop d’opérations dans le patch : {len(listed)}, {limits.told('patch_operations')}."
        raise InvalidContent("trop-d-operations", text, expression="Parameters.parameter")
    operations = tuple(_operation(f"Parameters.parameter[{index}]", one) for index, one in enumerate(listed))
    return PathPatch(operations, limits)


def _operation(where: str, said: Any) -> _Operation:
    def refuse(text: str) -> InvalidContent:
        return InvalidContent("patch-illisible", text, expression=where)

    if not isinstance(said, dict) or said.get("name") != "operation" or not isinstance(said.get("part"), list):
        raise refuse("Chaque paramètre d’un patch est une « operation » avec ses parties.")
    parts: dict[str, Any] = {}
    for part in said["part"]:
        name = part.get("name") if isinstance(part, dict) else None
        if not isinstance(name, str) or name in parts:
            raise refuse("Partie d’opération sans nom ou répétée.")
        parts[name] = part
    kind = _text(parts.get("type"))
    path = _text(parts.get("path"))
    if kind is None or kind not in _PARTS or path is None:
        raise refuse("Une opération a un « type » (add, insert, delete, replace, move) et un « path ».")
    if any(name not in parts for name in _PARTS[kind]):
        raise refuse(f"L’opération « {kind} » demande : {', '.join(_PARTS[kind])}.")
    numbers = tuple(_number(parts[name]) for name in _PARTS[kind] if name in _NUMBERS)
    if any(number is None for number in numbers):
        raise refuse("Un indice est un entier positif ou nul.")
    try:
        return _Operation(
            where,
            kind,
            fhirpath_text.parse(path),
            name=_text(parts.get("name")) or "",
            value=_value(parts["value"]) if "value" in _PARTS[kind] else _Value(),
            numbers=tuple(number for number in numbers if number is not None),
        )
    except GatewayError as error:
        error.expression = where
        raise


def _text(part: Any) -> str | None:
    """The text of a part, whichever of FHIR's texts it was sent as."""
    found = next((part[name] for name in ("valueCode", "valueString") if name in part), None) if part else None
    return found if isinstance(found, str) else None


def _number(part: Mapping[str, Any]) -> int | None:
    found = next(
        (part[name] for name in ("valueInteger", "valueUnsignedInt", "valuePositiveInt") if name in part), None
    )
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 1 << 31 else None


def _part_name(part: Any) -> str:
    name = part.get("name") if isinstance(part, dict) else None
    if not isinstance(name, str):
        raise InvalidContent("patch-illisible", "Partie de valeur sans nom.")
    return name


def _value(part: Any) -> _Value:
    """Read a ``value[x]``, a resource, or the parts of an anonymous type."""
    if isinstance(part.get("part"), list):
        return _Value(parts=tuple(part["part"]))
    if isinstance(part.get("resource"), dict):
        return _Value(said=part["resource"])
    said = [name for name in part if name.startswith("value") and name[5:6].isupper()]
    beside = [name for name in part if name.startswith("_value") and name[6:7].isupper()]
    suffixes = {name[5:] for name in said} | {name[6:] for name in beside}
    if len(suffixes) != 1:
        raise InvalidContent("patch-illisible", "Une valeur de patch a exactement un type.")
    [suffix] = suffixes
    return _Value(part.get("value" + suffix), part.get("_value" + suffix), suffix)
