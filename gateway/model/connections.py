"""The asyncpg connections of one event loop, handed out as they are.

asyncpg's own pool makes two tasks and a round trip of each borrowing, which costs a read by its id as much as the read.
Nothing here changes what a connection is set to, so that nothing has to be set back.

Promises: at most so many connections; whoever waits too long is told; a connection that failed in the middle of a
statement is never handed out again, and a statement that was stopped is stopped in the server too. One `Connections`
belongs to one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import asyncpg

__all__ = ["Connections"]

_GOODBYE_S = 5.0


class Connections:
    """Connections of one process, opened when they are first needed.

    Parameters
    ----------
    dsn
        The database.
    size
        Connections at most.
    timeout_s
        How long to wait for a connection, or for the server to take a new one.
    settings
        Of each connection, from its beginning.
    """

    def __init__(self, dsn: str, *, size: int, timeout_s: float, settings: dict[str, str]) -> None:
        self._dsn = dsn
        self._size = size
        self._timeout_s = timeout_s
        self._settings = settings
        self._free: list[asyncpg.Connection] = []
        self._count = 0
        self._waiting: deque[asyncio.Future[asyncpg.Connection | None]] = deque()
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False

    async def fetch(self, text: str, values: list[Any], *, seconds: float) -> list[Any]:
        """Rows of one statement.

        Raises
        ------
        TimeoutError
            It cost more than ``seconds``, or no connection was free in time.
        OSError, asyncpg.PostgresError, asyncpg.InterfaceError
            As the server or the way to it says.
        """
        connection = await self._taken()
        try:
            rows: list[Any] = await connection.fetch(text, *values, timeout=seconds)
        except BaseException as failure:
            self._after(connection, failure)
            raise
        self._given(connection)
        return rows

    async def write(self, text: str, rows: list[tuple[Any, ...]], *, seconds: float) -> None:
        """Execute a statement for each row, in one transaction; raises as `fetch` does."""
        connection = await self._taken()
        try:
            await connection.executemany(text, rows, timeout=seconds)
        except BaseException as failure:
            self._after(connection, failure)
            raise
        self._given(connection)

    async def close(self) -> None:
        """Close what is free, and the rest when it comes back."""
        self._closed = True
        while self._free:
            self._left(self._free.pop())
        await asyncio.gather(*self._leaving, return_exceptions=True)

    async def _taken(self) -> asyncpg.Connection:
        while self._free:
            connection = self._free.pop()
            if not connection.is_closed():
                return connection
            self._count -= 1
        if self._count < self._size:
            self._count += 1
            return await self._connected()
        turn: asyncio.Future[asyncpg.Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(self._timeout_s):
                given = await turn
        except BaseException:
            # Whose turn came and who does not take it passes it on.
            if turn.done() and not turn.cancelled():
                passed = turn.result()
                self._freed() if passed is None else self._given(passed)
            raise
        return given if given is not None else await self._connected()

    async def _connected(self) -> asyncpg.Connection:
        """Open the connection for which there is a place."""
        try:
            return await asyncpg.connect(self._dsn, timeout=self._timeout_s, server_settings=self._settings)
        except BaseException:
            self._freed()
            raise

    def _given(self, connection: asyncpg.Connection) -> None:
        if self._closed:
            self._left(connection)
        elif not self._next(connection):
            self._free.append(connection)

    def _freed(self) -> None:
        """Give the place of a connection that is no more to who waits longest: he opens another."""
        if not self._next(None):
            self._count -= 1

    def _next(self, connection: asyncpg.Connection | None) -> bool:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return True
        return False

    def _after(self, connection: asyncpg.Connection, failure: BaseException) -> None:
        # What the server refused leaves a connection as good as it was; anything else may have stopped half way.
        if isinstance(failure, asyncpg.PostgresError) and not connection.is_closed():
            self._given(connection)
        else:
            self._left(connection)

    def _left(self, connection: asyncpg.Connection) -> None:
        self._freed()
        leaving = asyncio.ensure_future(_goodbye(connection))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)


async def _goodbye(connection: asyncpg.Connection) -> None:
    """Close a connection; `close` waits until the server has stopped what it was told to stop."""
    try:
        await connection.close(timeout=_GOODBYE_S)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()
