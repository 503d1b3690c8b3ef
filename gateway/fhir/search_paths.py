"""The part of FHIRPath in which R4 writes its search parameters, compiled once and run over a tree.

Offered: names below the resource (a choice is found under its typed names), ``|``, ``as(Type)`` and ``(… as Type)``,
``where(… = '…')``, ``where(… .exists())``, ``where(resolve() is Type)``, ``extension('url')``, and
``X.exists() and X != false`` as a whole [FHIR R4 search, searchparameter-registry].

Promises: `compiled` refuses at start whatever it does not know, so that no parameter silently finds nothing; running a
path never raises, whatever the tree. ``resolve()`` fetches nothing: what a reference says of itself, and the resource's
own contained ones, decide its type. Not promised: FHIRPath.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

__all__ = ["CHOICES", "Path", "compiled", "names_of", "referred_type"]

#: Gives the nodes below some nodes; the second is the whole resource, for what is contained in it.
_Step = Callable[[list[Any], Mapping[str, Any]], list[Any]]

#: Types that a choice may have, as they stand at the end of its JSON names [FHIR R4 datatypes#open].
_CHOICE = re.compile(
    r"([a-z][A-Za-z]*?)(?:Boolean|Integer|Decimal|String|Uri|Url|Canonical|Code|Id|Oid|Uuid|Markdown|Base64Binary|"
    r"Instant|Date|DateTime|Time|PositiveInt|UnsignedInt|Address|Age|Annotation|Attachment|CodeableConcept|Coding|"
    r"ContactPoint|Count|Distance|Duration|HumanName|Identifier|Money|Period|Quantity|Range|Ratio|Reference|"
    r"SampledData|Signature|Timing|Expression)"
)


#: Names of R4's elements that are choices, in any type kept here: what is none is not looked for under other names.
CHOICES = frozenset(
    {
        "abatement",
        "answer",
        "asNeeded",
        "author",
        "bounds",
        "content",
        "deceased",
        "dose",
        "effective",
        "multipleBirth",
        "occurred",
        "occurrence",
        "onset",
        "product",
        "quantity",
        "rate",
        "scheduled",
        "source",
        "target",
        "value",
    }
)


@cache
def _stem(name: str) -> str | None:
    """What stands before the type in the JSON name of a choice."""
    match = _CHOICE.fullmatch(name)
    return match.group(1) if match else None


def _named(node: Mapping[str, Any], name: str) -> list[Any]:
    value = node.get(name)
    if value is None and name in CHOICES:
        value = next((other for key, other in node.items() if key.startswith(name) and _stem(key) == name), None)
    if value is None:
        return []
    if isinstance(value, list):
        return [one for one in value if one is not None]
    return [value]


def _child(name: str) -> _Step:
    def step(nodes: list[Any], _root: Mapping[str, Any]) -> list[Any]:
        if len(nodes) == 1:
            return _named(nodes[0], name) if isinstance(nodes[0], dict) else []
        return [below for node in nodes if isinstance(node, dict) for below in _named(node, name)]

    return step


def _extension(url: str) -> _Step:
    def step(nodes: list[Any], _root: Mapping[str, Any]) -> list[Any]:
        return [
            below
            for node in nodes
            if isinstance(node, dict)
            for below in _named(node, "extension")
            if isinstance(below, dict) and below.get("url") == url
        ]

    return step


def _filtered(holds: Callable[[Any, Mapping[str, Any]], bool]) -> _Step:
    return lambda nodes, root: [node for node in nodes if holds(node, root)]


def referred_type(node: Any, root: Mapping[str, Any]) -> str | None:
    """Type of the resource that a Reference points to, as far as it says so itself."""
    if not isinstance(node, dict):
        return None
    reference = node.get("reference")
    if isinstance(reference, str):
        if reference.startswith("#"):
            for inner in root.get("contained") or ():
                if isinstance(inner, dict) and inner.get("id") == reference[1:]:
                    return inner.get("resourceType")
        match = _LITERAL.fullmatch(reference)
        if match:
            return match.group(1)
    said = node.get("type")
    return said if isinstance(said, str) else None


_LITERAL = re.compile(r"(?:https?://[^?#]*/)?([A-Z][A-Za-z]+)/[A-Za-z0-9\-.]{1,64}(?:/_history/[A-Za-z0-9\-.]{1,64})?")

# Grammar

_TOKEN = re.compile(r"\s*(?:([A-Za-z_][A-Za-z0-9_]*)|'([^']*)'|(!=|[().|=]))")
_DEAD = re.compile(r"([A-Za-z.]+)\.exists\(\) and \1 != false")


class _Reader:
    """Recursive descent over one expression."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0
        #: The first name of each alternative, if it begins with one.
        self.first: list[str | None] = []

    def peek(self) -> tuple[str, str] | None:
        """The next word, quoted text or sign, and which of them it is."""
        match = _TOKEN.match(self.text, self.place)
        if match is None:
            return None
        kind = ("word", "text", "sign")[match.lastindex - 1] if match.lastindex else "end"
        return kind, match.group(match.lastindex or 0)

    def take(self, *wanted: str) -> str:
        """Read one token; one of these when given."""
        found = self.peek()
        match = _TOKEN.match(self.text, self.place)
        if found is None or match is None or (wanted and found[1] not in wanted):
            raise ValueError(f"not in the part of FHIRPath that is offered: {self.text!r} at {self.place}")
        self.place = match.end()
        return found[1]

    def sees(self, text: str) -> bool:
        """Whether the next token is this one."""
        found = self.peek()
        return found is not None and found[0] != "text" and found[1] == text

    def union(self, root: str | None) -> list[list[_Step]]:
        """Alternatives between bars."""
        paths = [self.path(root)]
        while self.sees("|"):
            self.take("|")
            paths.append(self.path(root))
        return paths

    def path(self, root: str | None) -> list[_Step]:
        """Names and functions between dots; ``root`` is the type that an absolute path begins with."""
        names: list[str | _Step] = []
        if self.sees("("):
            self.take("(")
            names = self.names(root)
            self.take("as")
            _typed(names, self.take())
            self.take(")")
            if self.sees("."):
                self.take(".")
                names += self.names(None)
        else:
            names = self.names(root)
        if root is not None:
            self.first.append(names[0] if names and isinstance(names[0], str) else None)
        return [_child(name) if isinstance(name, str) else name for name in names]

    def names(self, root: str | None) -> list[str | _Step]:
        names: list[str | _Step] = []
        if root is not None:
            self.take(root, "Resource")
            if not self.sees("."):
                return names
            self.take(".")
        while True:
            word = self.take()
            if self.sees("("):
                self.call(word, names)
            else:
                names.append(word)
            if not self.sees("."):
                return names
            self.take(".")

    def call(self, word: str, names: list[str | _Step]) -> None:
        """One function behind what was read so far."""
        self.take("(")
        if word == "as":
            _typed(names, self.take())
        elif word == "extension":
            names.append(_extension(self.take()))
        elif word == "where":
            names.append(_filtered(self.criterion()))
        else:
            raise ValueError(f"function {word} is not offered: {self.text!r}")
        self.take(")")

    def criterion(self) -> Callable[[Any, Mapping[str, Any]], bool]:
        if self.sees("resolve"):
            for sign in ("resolve", "(", ")", "is"):
                self.take(sign)
            kind = self.take()
            return lambda node, root: referred_type(node, root) == kind
        steps = self.path(None)
        self.take("=")
        wanted = self.take()
        return lambda node, root: wanted in _run(steps, [node], root)


def _typed(names: list[str | _Step], kind: str) -> None:
    """Make the last name that of the choice of one type."""
    if not names or not isinstance(names[-1], str):
        raise ValueError("as() stands behind a name")
    names[-1] += kind[0].upper() + kind[1:]


def _run(steps: Sequence[_Step], nodes: list[Any], root: Mapping[str, Any]) -> list[Any]:
    for step in steps:
        if not nodes:
            break
        nodes = step(nodes, root)
    return nodes


class Path:
    """An expression, ready to be run over a tree.

    Attributes
    ----------
    first
        Names of which one must stand in the tree, or nothing is found; `None` if it is found even so.
    """

    __slots__ = ("_dead", "_paths", "first")

    def __init__(self, paths: Sequence[Sequence[_Step]], first: Iterable[str | None], dead: Path | None = None) -> None:
        self._paths = paths
        self._dead = dead
        names = set(first)
        known = {name for name in names if name is not None}
        self.first: frozenset[str] | None = frozenset(known) if names == known and dead is None else None

    def __call__(self, tree: Mapping[str, Any]) -> list[Any]:
        """Give the nodes that it finds."""
        if self._dead is not None:
            return [any(node is not False for node in self._dead(tree))]
        if len(self._paths) == 1:
            return _run(self._paths[0], [tree], tree)
        return [node for steps in self._paths for node in _run(steps, [tree], tree)]


def names_of(tree: Mapping[str, Any]) -> set[str]:
    """Names that stand in a tree, those of choices without their type too: what `Path.first` is held against."""
    found = set(tree)
    for name in tree:
        stem = _stem(name)
        if stem in CHOICES:
            found.add(stem)
    return found


@cache
def compiled(expression: str, root: str | None = None) -> Path:
    """Compile an expression.

    Parameters
    ----------
    root
        Resource type with which its paths begin (``Resource`` does too); `None` for paths below a node.

    Raises
    ------
    ValueError
        It is not in the part that is offered.
    """
    dead = _DEAD.fullmatch(expression)
    if dead:
        return Path((), (), compiled(dead.group(1), root))
    reader = _Reader(expression)
    paths = reader.union(root)
    if reader.place != len(expression.rstrip()):
        raise ValueError(f"not in the part of FHIRPath that is offered: {expression!r} at {reader.place}")
    return Path(paths, reader.first)
