"""What verbs need from above, as Protocols; ``app`` wires the real ones, unit tests in-memory ones.

Nothing here is implemented; a Protocol changes only with both of its sides.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from gateway.rcp.step import Step

__all__ = ["Clock", "Represent"]


class Clock(Protocol):
    """The domain's clock (DECISIONS 12)."""

    def now(self) -> datetime:
        """Aware instant, UTC."""


class Represent(Protocol):
    """Keeps the FHIR representations of the roots that a step touched; runs once, before the commit."""

    def __call__(self, step: Step, roots: Iterable[Any]) -> None:
        """Write new versions of what changed; nothing when nothing changed."""
