"""The FHIRPath that names places of a resource: parsed once, evaluated to places that can be written.

[FHIR R4 fhirpath, fhirpatch]

A subset, chosen so that its cost is bounded by the size of the tree: names, choices by their stem, indexes, ``where``,
``exists``, ``empty``, ``not``, ``first``, ``last``, ``tail``, ``single``, ``skip``, ``take``, ``ofType``, ``as``,
``extension``, ``startsWith``, ``endsWith``, ``contains``, ``=``, ``!=``, ``and``, ``or``, parentheses and literals.
General libraries give values, not places, and evaluate whatever a client writes.
Not offered, and refused by name: other functions, ``resolve``, regular expressions, arithmetic.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from gateway.errors import InvalidContent
from gateway.fhir.elements import PRIMITIVE, shapes
from gateway.fhir.patch_json import same

__all__ = ["Path", "Place", "child_names", "parse", "root"]

#: Characters of one path, and parentheses within parentheses.
_LENGTH_MAX = 2000
_NESTED_MAX = 10


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
    """

    holder: dict[str, Any]
    name: str
    index: int | None
    under: str
    type: str
    below: str | None

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


def root(tree: dict[str, Any]) -> Place:
    """The resource itself as a place."""
    kind = str(tree.get("resourceType"))
    return Place({"": tree}, "", None, "", kind, kind)


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
                yield Place(inside, json_name, index, shape or "", element.type, element.below)
        elif said is not None or beside is not None:
            yield Place(inside, json_name, None, shape or "", element.type, element.below)


class _Step(NamedTuple):
    """``kind``: ``child``, ``index``, ``call`` or ``this``."""

    kind: str
    name: str = ""
    number: int = 0
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Path:
    """A parsed path."""

    steps: tuple[_Step, ...]

    def places(self, start: Place) -> list[Place]:
        """Places that it names in a resource.

        Raises
        ------
        InvalidContent
            ``patch-illisible``: it ends in a value, not in a place.
        """
        found = _walk(self._from(start), [start])
        if any(not isinstance(one, Place) for one in found):
            raise _unreadable("Le chemin donne une valeur, non un élément.")
        return found

    def collection(self) -> tuple[Path, str]:
        """Split into the path of what holds a list and the list's name.

        Raises
        ------
        InvalidContent
            ``patch-illisible``: it does not end in a name.
        """
        if not self.steps or self.steps[-1].kind != "child":
            raise _unreadable("Le chemin d’une liste finit par son nom.")
        return Path(self.steps[:-1]), self.steps[-1].name

    def _from(self, start: Place) -> tuple[_Step, ...]:
        first = self.steps[0] if self.steps else None
        if first is not None and first.kind == "child" and first.name in {start.type, "Resource", "DomainResource"}:
            return self.steps[1:]
        return self.steps


@dataclass(frozen=True, slots=True)
class _Binary:
    operator: str
    left: Any
    right: Any


@dataclass(frozen=True, slots=True)
class _Literal:
    value: Any


def _walk(steps: Sequence[_Step], focus: list[Any]) -> list[Any]:
    for step in steps:
        if step.kind == "child":
            focus = [child for one in focus if isinstance(one, Place) for child in _children(one, step.name)]
        elif step.kind == "index":
            focus = focus[step.number : step.number + 1]
        elif step.kind == "call":
            focus = _FUNCTIONS[step.name][1](focus, step.arguments)
    return focus


def _evaluate(node: Any, place: Any) -> list[Any]:
    if isinstance(node, _Literal):
        return [node.value]
    if isinstance(node, Path):
        return _walk(node.steps, [place])
    if node.operator in {"and", "or"}:
        left, right = (_true(_evaluate(side, place)) for side in (node.left, node.right))
        return [left and right if node.operator == "and" else left or right]
    one, other = _values(_evaluate(node.left, place)), _values(_evaluate(node.right, place))
    if not one or not other:
        return []
    equal = same(one, other)
    return [equal if node.operator == "=" else not equal]


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
    found = _walk((_Step("child", "extension"),), focus)
    return [one for one in found if isinstance(one.value, dict) and one.value.get("url") == url]


def _single(focus: list[Any], _arguments: tuple[Any, ...]) -> list[Any]:
    return focus if len(focus) == 1 else []


def _argument(arguments: tuple[Any, ...]) -> Any:
    found = _evaluate(arguments[0], None) if isinstance(arguments[0], _Literal) else [None]
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


#: Functions offered: how many arguments each takes, and what it does.
_FUNCTIONS: Mapping[str, tuple[range, Callable[[list[Any], tuple[Any, ...]], list[Any]]]] = {
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

_TOKEN = re.compile(
    r"\s*(?:(?P<name>\$this|[A-Za-z_][A-Za-z0-9_]*)|`(?P<quoted>[A-Za-z0-9_]+)`"
    r"|'(?P<text>(?:[^'\\]|\\.)*)'|(?P<number>-?[0-9]{1,18}(?:\.[0-9]{1,18})?)|@(?P<moment>[0-9T:+.Z-]+)"
    r"|(?P<sign>!=|[=.()\[\],]))"
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "f": "\f"}


def _unreadable(text: str) -> InvalidContent:
    return InvalidContent("patch-illisible", text, expression="Parameters.parameter.part.path")


def parse(text: str) -> Path:
    """Read a path.

    Raises
    ------
    InvalidContent
        ``patch-illisible``: no path, or one that is not offered.
    """
    if len(text) > _LENGTH_MAX:
        raise _unreadable(f"Chemin FHIRPath trop long : limite {_LENGTH_MAX} caractères.")
    reader = _Reader(_tokens(text))
    found = reader.expression()
    if reader.here is not None or not isinstance(found, Path):
        raise _unreadable("Chemin FHIRPath illisible ou non offert.")
    return found


def _tokens(text: str) -> list[tuple[str, str]]:
    found, place, stripped = [], 0, text.rstrip()
    while place < len(stripped):
        match = _TOKEN.match(stripped, place)
        if match is None:
            raise _unreadable("Chemin FHIRPath illisible ou non offert.")
        kind = str(match.lastgroup)
        found.append((kind, match.group(kind)))
        place = match.end()
    return found


class _Reader:
    """Recursive descent over the tokens of one path."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._place = 0
        self._depth = 0

    @property
    def here(self) -> tuple[str, str] | None:
        return self._tokens[self._place] if self._place < len(self._tokens) else None

    def _take(self, kind: str, text: str | None = None) -> str | None:
        token = self.here
        if token is None or token[0] != kind or (text is not None and token[1] != text):
            return None
        self._place += 1
        return token[1]

    def _need(self, sign: str) -> None:
        if self._take("sign", sign) is None:
            raise _unreadable(f"Chemin FHIRPath illisible : « {sign} » est attendu.")

    def expression(self) -> Any:
        self._depth += 1
        if self._depth > _NESTED_MAX:
            raise _unreadable(f"Chemin FHIRPath trop imbriqué : limite {_NESTED_MAX}.")
        found = self._joined(("or",), lambda: self._joined(("and",), self._comparison))
        self._depth -= 1
        return found

    def _joined(self, words: tuple[str, ...], below: Callable[[], Any]) -> Any:
        found = below()
        while (token := self.here) is not None and token[0] == "name" and token[1] in words:
            self._place += 1
            found = _Binary(token[1], found, below())
        return found

    def _comparison(self) -> Any:
        left = self._term()
        for sign in ("=", "!="):
            if self._take("sign", sign) is not None:
                return _Binary(sign, left, self._term())
        return left

    def _term(self) -> Any:
        text = self._take("text")
        if text is not None:
            return _Literal(re.sub(r"\\(.)", lambda match: _ESCAPES.get(match.group(1), match.group(1)), text))
        number = self._take("number")
        if number is not None:
            return _Literal(Decimal(number) if "." in number else int(number))
        moment = self._take("moment")
        if moment is not None:
            return _Literal(moment)
        token = self.here
        if token is not None and token[0] == "name" and token[1] in {"true", "false"}:
            self._place += 1
            return _Literal(token[1] == "true")
        if self._take("sign", "(") is not None:
            found = self.expression()
            self._need(")")
            return found
        return self._path()

    def _path(self) -> Path:
        steps = [self._step()]
        while True:
            if self._take("sign", ".") is not None:
                steps.append(self._step())
            elif self._take("sign", "[") is not None:
                number = self._take("number")
                if number is None or not number.isdecimal():
                    raise _unreadable("Chemin FHIRPath illisible : un indice est attendu.")
                self._need("]")
                steps.append(_Step("index", number=int(number)))
            else:
                return Path(tuple(step for step in steps if step.kind != "this"))

    def _step(self) -> _Step:
        quoted = self._take("quoted")
        name = quoted or self._take("name")
        if name is None:
            raise _unreadable("Chemin FHIRPath illisible : un nom est attendu.")
        if name == "$this":
            return _Step("this")
        if quoted is not None or self._take("sign", "(") is None:
            return _Step("child", name)
        arguments: list[Any] = []
        while self._take("sign", ")") is None:
            if arguments:
                self._need(",")
            arguments.append(self.expression())
        offered = _FUNCTIONS.get(name)
        if offered is None or len(arguments) not in offered[0]:
            raise _unreadable("Fonction FHIRPath non offerte dans un patch.")
        return _Step("call", name, arguments=tuple(arguments))
