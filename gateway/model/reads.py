"""The asynchronous read path: stored bytes out of PostgreSQL by asyncpg, audit lines durable before they leave.

Statements are written once as SQLAlchemy Core (the access predicates are) and compiled here for asyncpg; a statement of
the same shape is compiled once, and one that is kept and asked with other values is not even looked at again. Audit
lines of concurrent reads share one commit: a line waits only for the commit that is already running, then goes with all
that gathered meanwhile.

Promises: nothing is written but audit lines; `Reads.record` returns after its lines are committed; an unreachable
database is `gateway.errors.Unavailable`. One `Reads` belongs to one event loop.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import asyncpg
from sqlalchemy import Executable
from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg_dialect
from sqlalchemy.sql.compiler import SQLCompiler

from gateway.errors import Unavailable
from gateway.model.audit import AuditFacts, AuditTrail
from gateway.model.store import Store

__all__ = ["Reads"]

_SHAPES = 512
_INSERT = """
INSERT INTO audit_line (id, recorded, event, outcome, actor_id, dossier, persons, payload, mac)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""
_COLUMNS = ("id", "recorded", "event", "outcome", "actor_id", "dossier", "persons", "payload", "mac")
_GONE = (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.CannotConnectNowError, TimeoutError)


#: A statement's text, and for each place in it the name, the value unless one is given, and what SQLAlchemy does to it.
_Ready = tuple[str, tuple[tuple[str, Any, Callable[[Any], Any] | None], ...]]


async def _as_it_is(_connection: asyncpg.Connection) -> None:
    """Leave a connection as it is: nothing here changes its state, and asking for a reset is a round trip a read."""


class Reads:
    """Reads of one process.

    Parameters
    ----------
    store
        The database.
    trail
        Makes the audit lines.
    pool_size
        Connections kept at most; waiting longer than ``timeout_s`` is `Unavailable`.
    """

    def __init__(self, store: Store, trail: AuditTrail, *, pool_size: int = 10, timeout_s: float = 10.0) -> None:
        self._dsn = store.dsn
        self._trail = trail
        self._pool_size = pool_size
        self._timeout_s = timeout_s
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()
        self._dialect = asyncpg_dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's own constructor
        self._compiled: OrderedDict[Any, SQLCompiler] = OrderedDict()
        self._ready: OrderedDict[Executable, _Ready] = OrderedDict()
        self._gathered: list[tuple[list[tuple[Any, ...]], asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def fetch(
        self, statement: Executable, values: Mapping[str, Any] | None = None, *, seconds: float | None = None
    ) -> list[Any]:
        """Rows of a statement; columns by name or index.

        Parameters
        ----------
        values
            Of the named binds of a statement that the caller keeps and asks again: it is compiled at its first use.
        seconds
            What the statement may cost; the server is told to stop it after.

        Raises
        ------
        Unavailable
            The database does not answer, or every connection is taken for too long.
        TimeoutError
            The statement cost more than ``seconds``.
        """
        text, sent = self.sql(statement) if values is None else self._kept(statement, values)
        try:
            pool = await self._opened()
            async with pool.acquire(timeout=self._timeout_s) as connection:
                try:
                    return list(await connection.fetch(text, *sent, timeout=seconds or self._timeout_s * 3))
                except TimeoutError as error:
                    if seconds is None:
                        raise
                    costly = error
        except _GONE as error:
            raise Unavailable("database", "La base de données ne répond pas.", retry_after_s=5) from error
        raise costly

    def sql(self, statement: Executable) -> tuple[str, list[Any]]:
        """Compile a statement for asyncpg: its text and its values in order."""
        key = statement._generate_cache_key()  # type: ignore[attr-defined]  # noqa: SLF001 - what SQLAlchemy itself keys its cache by
        compiled = self._compiled.get(key.key) if key is not None else None
        if compiled is None:
            compiled = statement.compile(  # type: ignore[attr-defined]  # every Executable that is a ClauseElement has it
                dialect=self._dialect, cache_key=key, compile_kwargs={"render_postcompile": True}
            )
            # A list that was opened into the text (IN) makes the text this statement's own.
            if key is not None and not compiled.literal_execute_params and not compiled.post_compile_params:
                self._compiled[key.key] = compiled
                while len(self._compiled) > _SHAPES:
                    self._compiled.popitem(last=False)
        parameters = compiled.construct_params(extracted_parameters=key.bindparams if key is not None else None)
        processors: Any = compiled._bind_processors  # noqa: SLF001 - the values as SQLAlchemy's own asyncpg dialect sends them
        return compiled.string, [
            processors[name](parameters[name]) if name in processors else parameters[name]
            for name in compiled.positiontup or ()
        ]

    def _kept(self, statement: Executable, values: Mapping[str, Any]) -> tuple[str, list[Any]]:
        ready = self._ready.get(statement)
        if ready is None:
            compiled = statement.compile(  # type: ignore[attr-defined]  # every Executable that is a ClauseElement has it
                dialect=self._dialect, compile_kwargs={"render_postcompile": True}
            )
            processors: Any = compiled._bind_processors  # noqa: SLF001 - the values as SQLAlchemy's own asyncpg dialect sends them
            held = compiled.construct_params(dict(values))
            places = tuple((name, held[name], processors.get(name)) for name in compiled.positiontup or ())
            ready = self._ready[statement] = (compiled.string, places)
            while len(self._ready) > _SHAPES:
                self._ready.popitem(last=False)
        text, places = ready
        sent = [(values.get(name, held), change) for name, held, change in places]
        return text, [value if change is None else change(value) for value, change in sent]

    async def record(self, *lines: AuditFacts) -> None:
        """Write audit lines; returns once they are committed, together with those of concurrent reads."""
        if not lines:
            return
        rows = []
        for line in lines:
            values = self._trail.values(line)
            rows.append(tuple(values[name] for name in _COLUMNS))
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gathered.append((rows, done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        await done

    async def _write(self) -> None:
        while self._gathered:
            batch, self._gathered = self._gathered, []
            try:
                pool = await self._opened()
                async with pool.acquire(timeout=self._timeout_s) as connection:
                    # executemany is one transaction.
                    await connection.executemany(_INSERT, [row for rows, _ in batch for row in rows])
            except Exception as error:  # noqa: BLE001 - each waiter is told, in the words of the gateway
                refusal = Unavailable("audit", "La trace ne peut pas être écrite.", retry_after_s=5)
                refusal.__cause__ = error
                for _, done in batch:
                    if not done.done():
                        done.set_exception(refusal)
            else:
                for _, done in batch:
                    if not done.done():
                        done.set_result(None)

    async def _opened(self) -> asyncpg.Pool:
        if self._pool is None:
            async with self._opening:
                if self._pool is None:
                    self._pool = await asyncpg.create_pool(
                        self._dsn,
                        min_size=1,
                        max_size=self._pool_size,
                        timeout=self._timeout_s,
                        reset=_as_it_is,
                        server_settings={
                            "timezone": "UTC",
                            "statement_timeout": "60000",
                            # A plan for any value walks an index for what is common and for what is rare alike.
                            "plan_cache_mode": "force_custom_plan",
                        },
                    )
        return self._pool

    async def close(self) -> None:
        """Give the connections back."""
        if self._pool is not None:
            await self._pool.close()
            self._pool = None
