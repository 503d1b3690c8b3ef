"""The FHIRPath that names places of a resource: what a path that was read (`fhirpath_text`) finds in a tree.

[FHIR R4 fhirpath, fhirpatch]

General libraries give values, not places that can be written, and evaluate whatever a client writes. Promises: whatever
is walked over or compared is counted before it is done, so that whoever asks can stop it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from gateway.errors import InvalidContent
from gateway.fhir.elements import PRIMITIVE, shapes
from gateway.fhir.patch_json import same

__all__ = ["FUNCTIONS", "Binary", "Literal", "Path", "Place", "Step", "child_names", "root", "unreadable"]

#: Told of the nodes that a path walks over.
Walked = Callable[[int], None]
#: Nodes of a plain walk that a step of a path costs as much as, for each place where it is taken.
_STEP = 4


@dataclass(frozen=True, slots=True)
class Place:
    """One element where it stands: in ``holder`` under its JSON name, at an index when it repeats.

    Attributes
    ----------
    under
        Path of the table whose element it is.
    type
        FHIR type of the element.
    below
        Path of the table under which its own elements stand; `None` for a primitive.
    walked
        Told how many nodes are walked over from here.
    """

    holder: dict[str, Any]
    name: str
    index: int | None
    under: str
    type: str
    below: str | None
    walked: Walked

    @property
    def whole(self) -> bool:
        """Whether it is the resource itself, which stands nowhere."""
        return not self.name

    @property
    def value(self) -> Any:
        """The JSON value; `None` for a primitive that only has extensions."""
        return self._at(self.name)

    @property
    def inside(self) -> Any:
        """The object that holds its own elements: itself, or what stands beside a primitive."""
        return self.value if self.below is not None else self._at("_" + self.name)

    def _at(self, name: str) -> Any:
        found = self.holder.get(name)
        if self.index is None:
            return found
        return found[self.index] if isinstance(found, list) and self.index < len(found) else None

    @property
    def shape(self) -> str | None:
        """Path of the table for its own elements: a resource's is its type."""
        if self.below is None:
            return PRIMITIVE
        value = self.value
        said = value.get("resourceType") if isinstance(value, dict) else None
        return said if isinstance(said, str) and said in shapes() else self.below


def root(tree: dict[str, Any], walked: Walked) -> Place:
    """The resource itself as a place."""
    kind = str(tree.get("resourceType"))
    return Place({"": tree}, "", None, "", kind, kind, walked)


def child_names(shape: str | None, name: str) -> tuple[str, ...]:
    """JSON names that a FHIRPath name stands for: itself, or those of a choice; empty when there is no such element."""
    table = shapes().get(shape or "")
    if table is None:
        return ()
    for stem, names in table.choices:
        if stem == name:
            return tuple(names)
    return (name,) if name in table.names else ()


def _children(place: Place, name: str) -> Iterator[Place]:
    inside, shape = place.inside, place.shape
    if not isinstance(inside, dict):
        return
    for json_name in child_names(shape, name):
        element = shapes()[shape or ""].names[json_name]
        said, beside = inside.get(json_name), inside.get("_" + json_name)
        if element.repeats:
            length = max(len(one) if isinstance(one, list) else 0 for one in (said, beside))
            for index in range(length):
                yield Place(inside, json_name, index, shape or "", element.type, element.below, place.walked)
        elif said is not None or beside is not None:
            yield Place(inside, json_name, None, shape or "", element.type, element.below, place.walked)


class Step(NamedTuple):
    """``kind``: ``child``, ``index``, ``call`` or ``this``."""

    kind: str
    name: str = ""
    number: int = 0
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Path:
    """A parsed path."""

    steps: tuple[Step, ...]

    def places(self, start: Place) -> list[Place]:
        """Places that it names in a resource.

        Raises
        ------
        InvalidContent
            ``patch-illisible``: it ends in a value, not in a place.
        """
        found = _walk(self._from(start), [start])
        if any(not isinstance(one, Place) for one in found):
            raise unreadable("Le chemin donne une valeur, non un élément.")
        return found

    def collection(self) -> tuple[Path, str]:
        """Split into the path of what holds a list and the list's name.

        Raises
        ------
        InvalidContent
            ``patch-illisible``: it does not end in a name.
        """
        if not self.steps or self.steps[-1].kind != "child":
            raise unreadable("Le chemin d’une liste finit par son nom.")
        return Path(self.steps[:-1]), self.steps[-1].name

    def _from(self, start: Place) -> tuple[Step, ...]:
        first = self.steps[0] if self.steps else None
        if first is not None and first.kind == "child" and first.name in {start.type, "Resource", "DomainResource"}:
            return self.steps[1:]
        return self.steps


@dataclass(frozen=True, slots=True)
class Binary:
    """Two expressions and the operator between them."""

    operator: str
    left: Any
    right: Any


@dataclass(frozen=True, slots=True)
class Literal:
    """A value as it was written."""

    value: Any


def _count(focus: list[Any]) -> None:
    if focus and isinstance(focus[0], Place):
        focus[0].walked(_STEP * len(focus))


def _walk(steps: Sequence[Step], focus: list[Any]) -> list[Any]:
    for step in steps:
        _count(focus)
        if step.kind == "child":
            focus = [child for one in focus if isinstance(one, Place) for child in _children(one, step.name)]
        elif step.kind == "index":
            focus = focus[step.number : step.number + 1]
        elif step.kind == "call":
            focus = FUNCTIONS[step.name][1](focus, step.arguments)
    _count(focus)
    return focus


def _evaluate(node: Any, place: Any) -> list[Any]:
    _count([place])
    if isinstance(node, Literal):
        return [node.value]
    if isinstance(node, Path):
        return _walk(node.steps, [place])
    if node.operator in {"and", "or"}:
        left, right = (_true(_evaluate(side, place)) for side in (node.left, node.right))
        return [left and right if node.operator == "and" else left or right]
    one, other = _values(_evaluate(node.left, place)), _values(_evaluate(node.right, place))
    if not one or not other:
        return []
    if isinstance(place, Place):
        place.walked(_size(one))
    equal = same(one, other)
    return [equal if node.operator == "=" else not equal]


def _size(value: Any) -> int:
    """How many nodes a comparison may walk over."""
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_size, below))


def _values(found: list[Any]) -> list[Any]:
    said = (one.value if isinstance(one, Place) else one for one in found)
    return [value for value in said if value is not None]


def _true(found: list[Any]) -> bool:
    """Whether a condition holds: one true, or one element that is no boolean [FHIRPath 4.5]."""
    said = _values(found)
    return len(said) == 1 and said[0] is not False


def _where(focus: list[Any], arguments: tuple[Any, ...]) -> list[Any]:
    return [one for one in focus if _true(_evaluate(arguments[0], one))]


def _exists(focus: list[Any], arguments: tuple[Any, ...]) -> list[Any]:
    return [bool(_where(focus, arguments) if arguments else focus)]


def _of_type(focus: list[Any], arguments: tuple[Any, ...]) -> list[Any]:
    wanted = arguments[0].steps[-1].name if isinstance(arguments[0], Path) and arguments[0].steps else ""
    return [one for one in focus if isinstance(one, Place) and wanted in {one.type, one.shape}]


def _extension(focus: list[Any], arguments: tuple[Any, ...]) -> list[Any]:
    url = _argument(arguments)
    found = _walk((Step("child", "extension"),), focus)
    return [one for one in found if isinstance(one.value, dict) and one.value.get("url") == url]


def _single(focus: list[Any], _arguments: tuple[Any, ...]) -> list[Any]:
    return focus if len(focus) == 1 else []


def _argument(arguments: tuple[Any, ...]) -> Any:
    found = _evaluate(arguments[0], None) if isinstance(arguments[0], Literal) else [None]
    return found[0]


def _skip(focus: list[Any], arguments: tuple[Any, ...]) -> list[Any]:
    number = _argument(arguments)
    return focus[max(0, int(number)) :] if isinstance(number, int | Decimal) else []


def _take(focus: list[Any], arguments: tuple[Any, ...]) -> list[Any]:
    number = _argument(arguments)
    return focus[: max(0, int(number))] if isinstance(number, int | Decimal) else []


def _texts(test: Callable[[str, str], bool]) -> Callable[[list[Any], tuple[Any, ...]], list[Any]]:
    def function(focus: list[Any], arguments: tuple[Any, ...]) -> list[Any]:
        said, wanted = _values(focus), _argument(arguments)
        if len(said) != 1 or not isinstance(said[0], str) or not isinstance(wanted, str):
            return []
        return [test(said[0], wanted)]

    return function


def unreadable(text: str) -> InvalidContent:
    """The refusal of a path."""
    return InvalidContent("patch-illisible", text, expression="Parameters.parameter.part.path")


#: Functions offered: how many arguments each takes, and what it does.
FUNCTIONS: Mapping[str, tuple[range, Callable[[list[Any], tuple[Any, ...]], list[Any]]]] = {
    "where": (range(1, 2), _where),
    "exists": (range(2), _exists),
    "empty": (range(1), lambda focus, _: [not focus]),
    "not": (range(1), lambda focus, _: [not _true(focus)] if focus else []),
    "first": (range(1), lambda focus, _: focus[:1]),
    "last": (range(1), lambda focus, _: focus[-1:]),
    "tail": (range(1), lambda focus, _: focus[1:]),
    "single": (range(1), _single),
    "skip": (range(1, 2), _skip),
    "take": (range(1, 2), _take),
    "ofType": (range(1, 2), _of_type),
    "as": (range(1, 2), _of_type),
    "extension": (range(1, 2), _extension),
    "startsWith": (range(1, 2), _texts(str.startswith)),
    "endsWith": (range(1, 2), _texts(str.endswith)),
    "contains": (range(1, 2), _texts(lambda text, part: part in text)),
}
