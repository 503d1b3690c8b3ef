"""JSON Patch over trees [RFC 6902, RFC 6901]: six operations, exactly as the RFC says, decimals as they were written.

Written here because the libraries at hand read numbers as floats or compare ``true`` with ``1``. Promises: all
operations or none; the document is never changed in place; what operations cost is bounded (`patch_bounds`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.errors import Conflict, GatewayError, InvalidContent
from gateway.fhir.document import copied
from gateway.fhir.patch_bounds import Bounds
from gateway.settings import Limits

__all__ = ["JsonPatch", "read", "same"]

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_ESCAPE = re.compile(r"~(?![01])")
#: What each operation must say beside its path [RFC 6902 §4].
_NEEDS: Mapping[str, str | None] = {
    "add": "value",
    "remove": None,
    "replace": "value",
    "move": "from",
    "copy": "from",
    "test": "value",
}
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class _Operation:
    index: int
    op: str
    path: tuple[str, ...]
    source: tuple[str, ...] = ()
    value: Any = None

    @property
    def where(self) -> str:
        return f"[{self.index}]"


@dataclass(frozen=True, slots=True)
class JsonPatch:
    """Operations that were read."""

    operations: tuple[_Operation, ...]
    limits: Limits

    def apply(self, document: Any) -> Any:
        """Return the changed copy of a document.

        Raises
        ------
        Conflict
            ``patch-test``: a ``test`` does not hold; ``patch-cible``: a place that does not exist.
        InvalidContent
            ``patch-illisible``: a place that cannot be; ``patch-demesure``.
        """
        work = _Work([copied(document)], Bounds(self.limits))
        for operation in self.operations:
            try:
                _VERBS[operation.op](work, operation)
            except GatewayError as error:
                error.expression = operation.where
                raise
        return work.root[0]


@dataclass(slots=True)
class _Work:
    """The document under change, in a list of one so that the root is a place like others."""

    root: list[Any]
    bounds: Bounds

    def holder(self, path: tuple[str, ...]) -> tuple[Any, str]:
        """The object or list that holds what a path names, and the last name."""
        node: Any = self.root
        name = "0"
        for step in path:
            node = self._child(node, name)
            name = step
        if not isinstance(node, dict | list):
            raise _no_place()
        return node, name

    def get(self, path: tuple[str, ...]) -> Any:
        holder, name = self.holder(path)
        return self._child(holder, name)

    def _child(self, node: Any, name: str) -> Any:
        if isinstance(node, dict):
            found = node.get(name, _ABSENT)
        elif isinstance(node, list) and _INDEX.fullmatch(name) and int(name) < len(node):
            found = node[int(name)]
        else:
            found = _ABSENT
        if found is _ABSENT:
            raise _no_place()
        return found


def _add(work: _Work, operation: _Operation) -> None:
    _put(work, operation, copied(operation.value))


def _put(work: _Work, operation: _Operation, value: Any) -> None:
    work.bounds.weigh(value, above=len(operation.path))
    holder, name = work.holder(operation.path)
    if isinstance(holder, dict):
        holder[name] = value
    elif holder is work.root:
        holder[0] = value
    elif name == "-":
        holder.append(value)
    elif _INDEX.fullmatch(name) and int(name) <= len(holder):
        holder.insert(int(name), value)
    else:
        raise _no_place()


def _take(work: _Work, path: tuple[str, ...]) -> Any:
    value = work.get(path)
    holder, name = work.holder(path)
    if isinstance(holder, dict):
        del holder[name]
    elif holder is work.root:
        holder[0] = None
    else:
        del holder[int(name)]
    return value


def _remove(work: _Work, operation: _Operation) -> None:
    _take(work, operation.path)


def _replace(work: _Work, operation: _Operation) -> None:
    work.get(operation.path)
    work.bounds.weigh(operation.value, above=len(operation.path))
    holder, name = work.holder(operation.path)
    holder[name if isinstance(holder, dict) else int(name)] = copied(operation.value)


def _move(work: _Work, operation: _Operation) -> None:
    if operation.path == operation.source:
        work.get(operation.path)
        return
    _put(work, operation, _take(work, operation.source))


def _copy(work: _Work, operation: _Operation) -> None:
    value = work.get(operation.source)
    work.bounds.copy(work.bounds.weigh(value))
    _put(work, operation, copied(value))


def _test(work: _Work, operation: _Operation) -> None:
    if not same(work.get(operation.path), operation.value):
        text = "La ressource n’est pas telle que le patch la suppose (test)."
        raise Conflict("patch-test", text)


def same(one: Any, other: Any) -> bool:
    """Equality of JSON values: numbers by value, true is not 1 [RFC 6902 §4.6]."""
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


_VERBS: Mapping[str, Callable[[_Work, _Operation], None]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "copy": _copy,
    "test": _test,
}


def _no_place() -> Conflict:
    return Conflict("patch-cible", "Le patch désigne un endroit qui n’existe pas dans la ressource.")


def _unreadable(text: str, index: int | None = None) -> InvalidContent:
    return InvalidContent("patch-illisible", text, expression=None if index is None else f"[{index}]")


def read(said: Any, limits: Limits) -> JsonPatch:
    """Read a JSON Patch from its parsed form.

    Raises
    ------
    InvalidContent
        ``patch-illisible``, ``trop-d-operations``.
    """
    if not isinstance(said, list):
        raise _unreadable("Un JSON Patch est une liste d’opérations.")
    if len(said) > limits.patch_operations:
        text = f"Trop d’opérations dans le patch : {len(said)}, {limits.told('patch_operations')}."
        raise InvalidContent("trop-d-operations", text)
    return JsonPatch(tuple(_operation(index, one) for index, one in enumerate(said)), limits)


def _operation(index: int, said: Any) -> _Operation:
    if not isinstance(said, dict) or not isinstance(said.get("op"), str) or said["op"] not in _NEEDS:
        raise _unreadable("Opération de patch inconnue : « op » vaut add, remove, replace, move, copy ou test.", index)
    op, needs = said["op"], _NEEDS[said["op"]]
    if needs is not None and needs not in said:
        raise _unreadable(f"L’opération « {op} » demande « {needs} ».", index)
    path = _pointer(said.get("path"), index)
    source = _pointer(said["from"], index) if needs == "from" else ()
    if op == "move" and path[: len(source)] == source and len(path) > len(source):
        raise _unreadable("Un élément ne se déplace pas dans lui-même.", index)
    return _Operation(index, op, path, source, said.get("value"))


def _pointer(said: Any, index: int) -> tuple[str, ...]:
    """Read a JSON Pointer [RFC 6901 §3]."""
    if not isinstance(said, str) or (said and not said.startswith("/")) or _ESCAPE.search(said):
        raise _unreadable("Chemin illisible : un pointeur JSON commence par « / ».", index)
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in said.split("/")[1:])
