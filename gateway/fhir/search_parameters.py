"""The table of search parameters, its paths compiled: `mappings/fhir-search`, one line a parameter.

Promises: an expression that cannot be run refuses the program at its first search, not silently one parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from gateway import terminology
from gateway.fhir.search_paths import Path, compiled

__all__ = ["RANGED", "Component", "Parameter", "parameters", "types"]

#: Kinds that have a range column.
RANGED = frozenset({"date", "number", "quantity"})


@dataclass(frozen=True, slots=True)
class Component:
    """One side of a composite: the parameter that finds it, and the values of one node."""

    code: str
    kind: str
    path: Path


@dataclass(frozen=True, slots=True)
class Parameter:
    """One search parameter of one type.

    Attributes
    ----------
    system
        Code system of an element of type ``code``, which carries none.
    folded
        Whether case says nothing: telephone numbers and addresses of mail.
    canonical
        Whether it names its target by that one's own URL, with or without its version [FHIR R4 references#canonical].
    components
        Of a composite; without ``path`` it is about the resource as a whole, each element of which stands once.
    """

    type: str
    code: str
    kind: str
    expression: str
    path: Path
    targets: tuple[str, ...]
    url: str
    system: str | None = None
    folded: bool = False
    canonical: bool = False
    components: tuple[Component, ...] = field(default=())

    @property
    def column(self) -> str:
        """Name of its range column, if its kind has one."""
        return "p_" + self.code.replace("-", "_")

    @property
    def whole(self) -> bool:
        """Whether a composite is about the resource itself."""
        return self.expression == self.type


@cache
def _table() -> Mapping[str, Mapping[str, Parameter]]:
    raw = terminology.table("fhir-search")
    found: dict[str, dict[str, Parameter]] = {kind: {} for kind in raw["types"]}
    kinds = {(row["type"], row["code"]): row["kind"] for row in raw["parameters"]}
    for row in raw["parameters"]:
        for kind in raw["types"] if row["type"] == "*" else [row["type"]]:
            found[kind][row["code"]] = Parameter(
                type=kind,
                code=row["code"],
                kind=row["kind"],
                expression=row["expression"],
                path=compiled(row["expression"], kind),
                targets=tuple(row.get("targets", ())),
                url=row.get("url", ""),
                system=row.get("system"),
                folded=row.get("folded", False),
                canonical=row.get("canonical", False),
                components=tuple(
                    Component(one["code"], kinds[kind, one["code"]], compiled(one["expression"]))
                    for one in row.get("components", ())
                ),
            )
    return found


def types() -> tuple[str, ...]:
    """Resource types that have a table, in the order of the file."""
    return tuple(_table())


def parameters(kind: str) -> Mapping[str, Parameter]:
    """Search parameters of one type, by code; empty for a type without a table."""
    return _table().get(kind, {})
