"""The asynchronous read path: stored bytes out of PostgreSQL by asyncpg, audit lines durable before they leave.

Statements are written once as SQLAlchemy Core (the access predicates are) and compiled here for asyncpg; a statement of
the same shape is compiled once, and one that is kept and asked with other values is not even looked at again.

What many ask at once goes together: rows that are wanted by their id while a statement of the same shape is on its way
are asked for in the next one, and audit lines share one commit. Whoever comes alone waits for nobody.

Promises: nothing is written but audit lines; `Reads.record` returns after its lines are committed; an unreachable
database is `gateway.errors.Unavailable`. One `Reads` belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import Column, Executable
from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg_dialect
from sqlalchemy.sql.compiler import SQLCompiler

from gateway.errors import Unavailable
from gateway.model.audit import AuditFacts, AuditTrail
from gateway.model.common_values import CommonValues
from gateway.model.connections import Connections
from gateway.model.store import Store

__all__ = ["Reads"]

T = TypeVar("T")

#: Shapes that are kept, and characters of the text of one: the driver keeps no longer one either.
_SHAPES, _SHAPE_CHARS = 512, 15 * 1024
_INSERT = """
INSERT INTO audit_line (id, recorded, event, outcome, actor_id, dossier, persons, payload, mac)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""
_COLUMNS = ("id", "recorded", "event", "outcome", "actor_id", "dossier", "persons", "payload", "mac")
#: What psycopg calls an operational error: the way there, what the server has no more of, an operator's hand.
_GONE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
)


#: A statement's text, and for each place in it the name, the value unless one is given, and what SQLAlchemy does to it.
_Ready = tuple[str, tuple[tuple[str, Any, Callable[[Any], Any] | None], ...]]


#: Statements of one shape under way at once, and what one of them asks for at most: bodies may be long.
_FLIGHTS = 2
_TOGETHER = 16
#: Commits of audit lines under way at once: while one waits for the disk, the next is sent.
_COMMITS = 2
#: Planning costs more than reading a row by its id, which has one plan whatever the id, and as much as a search for
#: what is rare (docs/adr/0019). A plan of a search for any value walks an index for what is common and for what is
#: rare alike.
_ONE_PLAN, _OWN_PLANS = "force_generic_plan", "force_custom_plan"


def _settings(plans: str) -> dict[str, str]:
    return {"timezone": "UTC", "statement_timeout": "60000", "plan_cache_mode": plans}


class _Together:
    """Ids that wait for the next statement of one shape."""

    __slots__ = ("flights", "wanted")

    def __init__(self) -> None:
        self.wanted: dict[str, list[asyncio.Future[Any]]] = {}
        self.flights = 0


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
        self._trail = trail
        self._timeout_s = timeout_s
        self._connections = Connections(store.dsn, size=pool_size, timeout_s=timeout_s, settings=_settings(_OWN_PLANS))
        self._by_id = Connections(store.dsn, size=2 * _FLIGHTS, timeout_s=timeout_s, settings=_settings(_ONE_PLAN))
        # Beside those: a search that takes long is in no read's way.
        self._planned = Connections(
            store.dsn, size=max(1, pool_size // 2), timeout_s=timeout_s, settings=_settings(_ONE_PLAN)
        )
        self._common = CommonValues(
            lambda text, sent: self._rows(self._connections, text, sent, None), start=self._started
        )
        self._dialect = asyncpg_dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's own constructor
        self._compiled: OrderedDict[Any, SQLCompiler] = OrderedDict()
        self._ready: OrderedDict[Executable, _Ready] = OrderedDict()
        self._gathered: list[tuple[list[tuple[Any, ...]], asyncio.Future[None]]] = []
        self._asked: dict[Executable, _Together] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._commits = 0
        # One: what takes long to think about takes its turn, and leaves the loop its share of the processor.
        self._aside = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reads-apart")

    async def apart(self, work: Callable[[], T], *, seconds: float) -> T:
        """Do beside the event loop what would hold it.

        Raises
        ------
        TimeoutError
            Its turn did not come, or it was not done, in time.
        """
        return await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(self._aside, work), seconds)

    async def fetch(
        self,
        statement: Executable,
        values: Mapping[str, Any] | None = None,
        *,
        seconds: float | None = None,
        apart: bool = False,
        one_plan: bool = False,
    ) -> list[Any]:
        """Rows of a statement; columns by name or index.

        Parameters
        ----------
        values
            Of the named binds of a statement that the caller keeps and asks again: it is compiled at its first use.
        seconds
            What the statement may cost; the server is told to stop it after.
        apart
            Whether the statement is long: it is compiled beside the event loop, and not kept.
        one_plan
            Whether the plan of its text is good for all values that it is asked with so (`rare`).

        Raises
        ------
        Unavailable
            The database does not answer, or every connection is taken for too long.
        TimeoutError
            The statement cost more than ``seconds``.
        """
        if apart and seconds is not None:
            begun = time.monotonic()
            text, sent = await self.apart(lambda: self._sent(self._compile(statement)), seconds=seconds)
            seconds = max(0.001, seconds - (time.monotonic() - begun))
        else:
            text, sent = self.sql(statement) if values is None else self._kept(statement, values)
        return await self._rows(self._planned if one_plan else self._connections, text, sent, seconds)

    def rare(self, column: Column[Any], texts: Sequence[str], *, beginnings: bool = False) -> bool:
        """Whether few rows are known to hold, or to begin with, any of these texts (`CommonValues.rare`)."""
        return self._common.rare(column, texts, beginnings=beginnings)

    async def _rows(self, over: Connections, text: str, sent: list[Any], seconds: float | None) -> list[Any]:
        try:
            return await over.fetch(text, sent, seconds=seconds or self._timeout_s * 3)
        except _GONE as error:
            if seconds is not None and isinstance(error, TimeoutError):
                raise
            raise Unavailable("database", "La base de données ne répond pas.", retry_after_s=5) from error

    async def one(self, statement: Executable, identity: str) -> Any | None:
        """The row of an id, read together with those that others want by the same statement.

        Parameters
        ----------
        statement
            Kept by the caller; its bind ``ids`` is a list of ids, and each row says its ``id``.

        Raises
        ------
        Unavailable
            See `fetch`.
        """
        together = self._asked.get(statement)
        if together is None:
            together = self._asked[statement] = _Together()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        together.wanted.setdefault(identity, []).append(answer)
        if together.flights < _FLIGHTS:
            together.flights += 1
            self._started(self._fly(statement, together))
        return await answer

    async def _fly(self, statement: Executable, together: _Together) -> None:
        try:
            while together.wanted:
                taken = {key: together.wanted.pop(key) for key in list(together.wanted)[:_TOGETHER]}
                try:
                    rows = await self._rows(self._by_id, *self._kept(statement, {"ids": list(taken)}), None)
                except Exception as error:  # noqa: BLE001 - each waiter is told
                    for answer in _waiting(taken):
                        answer.set_exception(error)
                    continue
                found = {row["id"]: row for row in rows}
                for key, answers in taken.items():
                    for answer in _waiting({key: answers}):
                        answer.set_result(found.get(key))
        finally:
            together.flights -= 1
            if not together.flights and self._asked.get(statement) is together:
                del self._asked[statement]

    def _started(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)  # the loop itself holds a task weakly
        task.add_done_callback(self._tasks.discard)

    def sql(self, statement: Executable) -> tuple[str, list[Any]]:
        """Compile a statement for asyncpg: its text and its values in order."""
        key = statement._generate_cache_key()  # type: ignore[attr-defined]  # noqa: SLF001 - what SQLAlchemy itself keys its cache by
        compiled = self._compiled.get(key.key) if key is not None else None
        if compiled is None:
            compiled = self._compile(statement, key)
            # A list that was opened into the text (IN) makes the text this statement's own.
            own = compiled.literal_execute_params or compiled.post_compile_params
            if key is not None and not own and len(compiled.string) <= _SHAPE_CHARS:
                self._compiled[key.key] = compiled
                while len(self._compiled) > _SHAPES:
                    self._compiled.popitem(last=False)
        return self._sent(compiled, key)

    def _compile(self, statement: Executable, key: Any = None) -> SQLCompiler:
        compiled: SQLCompiler = statement.compile(  # type: ignore[attr-defined]  # every Executable that is a ClauseElement has it
            dialect=self._dialect, cache_key=key, compile_kwargs={"render_postcompile": True}
        )
        return compiled

    @staticmethod
    def _sent(compiled: SQLCompiler, key: Any = None) -> tuple[str, list[Any]]:
        parameters = compiled.construct_params(extracted_parameters=key.bindparams if key is not None else None)
        processors: Any = compiled._bind_processors  # noqa: SLF001 - the values as SQLAlchemy's own asyncpg dialect sends them
        return compiled.string, [
            processors[name](parameters[name]) if name in processors else parameters[name]
            for name in compiled.positiontup or ()
        ]

    def _kept(self, statement: Executable, values: Mapping[str, Any]) -> tuple[str, list[Any]]:
        ready = self._ready.get(statement)
        if ready is None:
            compiled = self._compile(statement)
            processors: Any = compiled._bind_processors  # noqa: SLF001 - the values as SQLAlchemy's own asyncpg dialect sends them
            held = compiled.construct_params(dict(values))
            places = tuple((name, held[name], processors.get(name)) for name in compiled.positiontup or ())
            ready = (compiled.string, places)
            if len(compiled.string) <= _SHAPE_CHARS:
                self._ready[statement] = ready
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
        if self._commits < _COMMITS:
            self._commits += 1
            self._started(self._write())
        await done

    async def _write(self) -> None:
        try:
            while self._gathered:
                batch, self._gathered = self._gathered, []
                try:
                    lines = [row for rows, _ in batch for row in rows]
                    await self._connections.write(_INSERT, lines, seconds=self._timeout_s)
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
        finally:
            self._commits -= 1

    async def close(self) -> None:
        """Give the connections back."""
        await self._connections.close()
        await self._by_id.close()
        await self._planned.close()
        self._aside.shutdown(wait=False, cancel_futures=True)


def _waiting(answers: Mapping[str, list[asyncio.Future[Any]]]) -> list[asyncio.Future[Any]]:
    """Those who still wait: a client may have gone."""
    return [answer for each in answers.values() for answer in each if not answer.done()]
