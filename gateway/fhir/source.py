"""What reads are answered from: any database session that can fetch rows and keep audit lines.

Promises: nothing here knows a driver. The routes read through `gateway.model.reads.Reads`; a GET inside a transaction
reads through the transaction's own session, whose coroutines never suspend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from sqlalchemy import Column, Executable

from gateway.model.audit import AuditFacts

__all__ = ["Contents", "Source"]

T = TypeVar("T")


class Source(Protocol):
    """Where rows come from."""

    async def apart(self, work: Callable[[], T], *, seconds: float) -> T:
        """Do what takes long to think about where it holds nobody up.

        Raises
        ------
        TimeoutError
            It was not done in time.
        """
        ...

    async def fetch(
        self,
        statement: Executable,
        values: Mapping[str, Any] | None = None,
        *,
        seconds: float | None = None,
        apart: bool = False,
        one_plan: bool = False,
    ) -> Sequence[Any]:
        """Rows of a statement; columns by name; ``values`` of the named binds of a statement that is asked again.

        One that is long is compiled ``apart``, and not kept; one asked for what is `rare` needs but ``one_plan``.

        Raises
        ------
        TimeoutError
            It cost more than ``seconds``, and was stopped.
        Unavailable
            The database does not answer.
        """
        ...

    def rare(self, column: Column[Any], texts: Sequence[str], *, beginnings: bool = False) -> bool:
        """Whether few rows are known to hold, or to begin with, any of these texts."""
        ...

    async def one(self, statement: Executable, identity: str) -> Any | None:
        """The row of an id by a kept statement whose bind ``ids`` is a list of ids, and whose rows say their ``id``.

        Raises
        ------
        Unavailable
            The database does not answer.
        """
        ...

    async def record(self, *lines: AuditFacts) -> None:
        """Keep audit lines; they are as durable as the answer when it leaves."""
        ...


class Contents(Protocol):
    """Where the bytes of a Binary come from."""

    async def read_async(self, key: str, /) -> bytes:
        """Bytes by their SHA-256."""
        ...
