"""What one patch may cost, all of its operations together, and how large a resource it may leave.

Each operation walks over the resource, copies may double it, and what a path compares is walked over again: a few
hundred bytes would keep a processor busy for minutes, or fill any memory. Promises: a patch is stopped before it
does, with the limit named; what it leaves could have come as a body. Not promised: anything about time.
"""

from __future__ import annotations

from typing import Any

from gateway.errors import InvalidContent
from gateway.fhir import document
from gateway.settings import Limits

__all__ = ["Bounds", "require_fit"]

#: How often the operations of one patch may walk over the largest resource there is.
_WALKS = 8


class Bounds:
    """What is left to one patch.

    Parameters
    ----------
    limits
        ``json_nodes`` bounds what copies add; eight times as much may be walked over.
    """

    __slots__ = ("_copied", "_limits", "_walked")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._walked = 0
        self._copied = 0

    def walk(self, nodes: int) -> None:
        """Count nodes that are walked over.

        Raises
        ------
        InvalidContent
            ``patch-demesure``.
        """
        self._walked += nodes
        if self._walked > _WALKS * self._limits.json_nodes:
            raise _too_much(f"il parcourt trop d’éléments : {_WALKS} fois la {self._limits.told('json_nodes')}")

    def copy(self, nodes: int) -> None:
        """Count nodes that copies add: doubled thirty times they fill any memory.

        Raises
        ------
        InvalidContent
            ``patch-demesure``.
        """
        self._copied += nodes
        if self._copied > self._limits.json_nodes:
            raise _too_much(f"il copie trop d’éléments : {self._limits.told('json_nodes')}")

    def weigh(self, value: Any, *, above: int = 0) -> int:
        """Count the nodes of a value, which is walked over.

        Parameters
        ----------
        above
            Levels above the value where it stands.

        Raises
        ------
        InvalidContent
            ``patch-demesure``: it nests deeper than a body may, or too much was walked over.
        """
        nodes, level = 0, [value]
        for _ in range(self._limits.json_depth - above):
            self.walk(len(level))
            nodes += len(level)
            level = _below(level)
            if not level:
                return nodes
        raise _too_much(f"il imbrique trop les éléments : {self._limits.told('json_depth')}")


def require_fit(tree: Any, limits: Limits) -> None:
    """Refuse what no body could hold.

    Raises
    ------
    InvalidContent
        ``patch-demesure``.
    """
    # Copies share their texts: they are counted before they are written out.
    nodes, size, level = 0, 0, [tree]
    while level:
        nodes += len(level)
        for node in level:
            size += len(node) if isinstance(node, str) else sum(map(len, node)) if isinstance(node, dict) else 0
        if nodes > limits.json_nodes:
            raise _too_much(f"il laisse trop d’éléments : {limits.told('json_nodes')}")
        if size > limits.http_body_bytes:
            raise _too_large(limits)
        level = _below(level)
    if len(document.encode(tree)) > limits.http_body_bytes:
        raise _too_large(limits)


def _below(level: list[Any]) -> list[Any]:
    return [
        child
        for node in level
        for child in (node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())
    ]


def _too_large(limits: Limits) -> InvalidContent:
    return _too_much(f"il laisse une ressource trop grande : {limits.told('http_body_bytes')}")


def _too_much(what: str) -> InvalidContent:
    return InvalidContent("patch-demesure", f"Patch démesuré : {what}.")
