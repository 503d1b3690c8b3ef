"""Background work through procrastinate: nudges for outgoing messages, periodic tasks, the worker that runs both.

Promises
    * A job deferred by `nudge` exists exactly if the step does: it is written on the step's own connection. No
      ``queueing_lock`` there: a clash would abort the caller's transaction.
    * A lost job is harmless: rows are the truth, and the sweep finds what is due. So a job that fails, or whose worker
      was killed, is deleted, never retried by procrastinate.
    * A periodic task runs once at the worker's start and then by its schedule, in one worker at a time.

Not promised: order among messages, or an exact instant.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from procrastinate import App, PsycopgConnector, SyncPsycopgConnector
from procrastinate.exceptions import AlreadyEnqueued
from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, UUID
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from gateway.errors import Fault, GatewayError
from gateway.model.store import Store

__all__ = ["DELIVER", "Periodic", "Worker", "alone", "nudge", "nudge_missing"]

#: Task name under which `Worker` registers the delivery.
DELIVER = "deliver"

_OUTBOX, _PERIODIC = "outbox", "periodic"
_REAP = "reap-jobs"
_STALLED_S = 30
_RETRY_PAUSE_S = 2.0

log = structlog.get_logger(__name__)

# Never opened: each deferral names the connection of its step.
_deferrer = App(connector=SyncPsycopgConnector())

_WITHOUT_A_JOB = text(
    "SELECT wanted.id FROM unnest(:ids) AS wanted(id) WHERE NOT EXISTS (SELECT FROM procrastinate_jobs AS job "
    "WHERE job.status = 'todo' AND job.task_name = :task AND job.args ->> 'message_id' = wanted.id::text "
    "AND coalesce(job.scheduled_at, now()) <= now())"
).bindparams(bindparam("ids", type_=ARRAY(UUID(as_uuid=True))))


def nudge(session: Session, message_id: uuid.UUID, *, at: datetime | None = None) -> None:
    """Ask for the delivery of one message, now or not before ``at``, in the session's own transaction."""
    connection = session.connection().connection.driver_connection
    if connection is None:
        raise Fault("no-connection", "Connexion à la base perdue.")
    _deferrer.configure_task(DELIVER, queue=_OUTBOX, connection=connection, schedule_at=at).defer(
        message_id=str(message_id)
    )


def nudge_missing(session: Session, ids: Sequence[uuid.UUID]) -> int:
    """Nudge those of ``ids`` that no job is waiting for; gives how many."""
    missing = session.scalars(_WITHOUT_A_JOB, {"ids": list(ids), "task": DELIVER}).all()
    for message_id in missing:
        nudge(session, message_id)
    return len(missing)


@contextlib.contextmanager
def alone(store: Store, key: int) -> Iterator[bool]:
    """Hold a lock of the whole database by a session of its own; gives False when somebody else has it.

    The lock goes with the connection, however its process ends, and holds no transaction: work of minutes under it
    keeps no cursor waiting (`gateway.model.horizon`), as a row lock would.
    """
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        held = bool(connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}))
        try:
            yield held
        finally:
            if held:
                try:
                    connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": key})
                except DBAPIError:
                    connection.invalidate()  # closed for good, it lets go; back in the pool it might not


@dataclass(frozen=True, slots=True)
class Periodic:
    """A task that comes again.

    Parameters
    ----------
    cron
        Five fields, or six with the seconds last.
    run
        Does the work; what it raises is logged by its code and forgotten, the next run comes anyway.
    """

    name: str
    cron: str
    run: Callable[[], object]


class Worker:
    """Runs deliveries and periodic tasks until it is told to stop.

    Parameters
    ----------
    deliver
        Tries one message (`gateway.exchange.delivery.Deliveries.attempt`).
    concurrency
        How many deliveries run at once; periodic tasks have threads of their own, so that a slow peer delays no plan.
    """

    def __init__(
        self,
        store: Store,
        deliver: Callable[[uuid.UUID], object],
        periodic: Sequence[Periodic] = (),
        *,
        concurrency: int = 4,
        grace_s: float = 20.0,
    ) -> None:
        self._store = store
        self._deliver = deliver
        self._periodic = tuple(periodic)
        self._concurrency = concurrency
        self._grace_s = grace_s

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set, then let what runs end within the grace; a lost database is waited for."""
        asyncio.run(self._run(stop))

    def drain(self) -> None:
        """Run the jobs that are due and those that they cause, and return: for tests and one-shot commands."""

        async def once() -> None:
            app = self._app()
            self._use_threads()
            async with app.open_async():
                await app.run_worker_async(
                    wait=False, concurrency=self._concurrency, install_signal_handlers=False, delete_jobs="always"
                )

        asyncio.run(once())

    async def _run(self, stop: threading.Event) -> None:
        self._use_threads()
        while not stop.is_set():
            try:
                await self._work(stop)
            except Exception as error:  # noqa: BLE001 - the database may be restarting; whatever it is, the worker stays
                log.error("worker-interrupted", error=type(error).__name__)  # noqa: TRY400 - a trace may quote a row
                for _ in range(int(_RETRY_PAUSE_S / 0.1)):
                    if not stop.is_set():
                        await asyncio.sleep(0.1)

    async def _work(self, stop: threading.Event) -> None:
        app = self._app()
        async with app.open_async():
            for each in self._periodic:
                with contextlib.suppress(AlreadyEnqueued):
                    await app.configure_task(each.name, queueing_lock=each.name, queue=_PERIODIC).defer_async(
                        timestamp=0
                    )
            lines = [
                asyncio.create_task(
                    app.run_worker_async(
                        queues=[queue],
                        name=queue,
                        concurrency=concurrency,
                        install_signal_handlers=False,
                        delete_jobs="always",
                        shutdown_graceful_timeout=self._grace_s,
                        stalled_worker_timeout=_STALLED_S,
                        fetch_job_polling_interval=5.0,
                    )
                )
                for queue, concurrency in ((_OUTBOX, self._concurrency), (_PERIODIC, len(self._periodic) + 1))
            ]
            log.info("worker-ready", concurrency=self._concurrency, periodic=[each.name for each in self._periodic])
            try:
                # The flag is set by a signal handler, outside this loop: an asyncio.Event would not be woken by it.
                while not stop.is_set() and not any(line.done() for line in lines):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            finally:
                for line in lines:
                    line.cancel()  # procrastinate's way to ask for a graceful stop
                results = await asyncio.gather(*lines, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception):
                    raise result

    def _use_threads(self) -> None:
        asyncio.get_running_loop().set_default_executor(
            ThreadPoolExecutor(self._concurrency + len(self._periodic) + 2, thread_name_prefix="job")
        )

    def _app(self) -> App:
        app = App(connector=PsycopgConnector(conninfo=self._store.dsn, min_size=1, max_size=self._concurrency + 4))

        @app.task(name=DELIVER, queue=_OUTBOX)
        def deliver(message_id: str) -> None:
            _guarded(DELIVER, lambda: self._deliver(uuid.UUID(message_id)))

        @app.periodic(cron="* * * * *", queueing_lock=_REAP)
        @app.task(name=_REAP, queue=_PERIODIC)
        async def reap(timestamp: int) -> None:
            """Delete the jobs of workers that were killed; what they were about is in its row."""
            del timestamp
            for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=_STALLED_S):
                if job.id is not None:
                    await app.connector.execute_query_async(
                        "DELETE FROM procrastinate_jobs WHERE id = %(id)s", id=job.id
                    )

        for each in self._periodic:
            self._register(app, each)
        return app

    def _register(self, app: App, each: Periodic) -> None:
        key = zlib.crc32(each.name.encode()) + (1 << 40)  # apart from other users of advisory locks

        @app.periodic(cron=each.cron, queueing_lock=each.name)
        @app.task(name=each.name, queue=_PERIODIC)
        def come_again(timestamp: int) -> None:
            del timestamp

            def work() -> None:
                with alone(self._store, key) as first:
                    if first:
                        each.run()

            _guarded(each.name, work)


def _guarded(name: str, work: Callable[[], Any]) -> None:
    """Log a failure by its code or type, never by its text: a driver's text may quote a row."""
    try:
        work()
    except GatewayError as error:
        log.warning("job-failed", job=name, code=error.code)
    except Exception as error:  # noqa: BLE001 - one job must not end the worker
        log.error("job-failed", job=name, error=type(error).__name__)  # noqa: TRY400 - see the first line
