"""Nudges on the step’s connection, and the worker: prompt, stoppable, undisturbed by failures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import psycopg
import pytest
import structlog

from gateway.exchange.delivery import Deliveries
from gateway.exchange.jobs import Periodic, Worker, alone, nudge
from gateway.model.message import Message
from gateway.model.store import Store
from gateway.rcp.access import SYSTEM
from tests.loopback import until
from tests.unit.exchange.channels import Scripted, outgoing


def jobs(store) -> list[tuple[str, str]]:
    """The deliveries' jobs; periodic ones come with the clock."""
    with psycopg.connect(store.dsn) as connection:
        return connection.execute(
            "SELECT task_name, status::text FROM procrastinate_jobs WHERE task_name = 'deliver' ORDER BY id"
        ).fetchall()


@pytest.fixture
def work():
    """Run workers in threads, and stop them whatever happens."""
    running: list[tuple[threading.Event, threading.Thread]] = []

    def start(worker: Worker) -> threading.Event:
        stop = threading.Event()
        thread = threading.Thread(target=worker.run, args=(stop,))
        thread.start()
        running.append((stop, thread))
        return stop

    yield start
    for stop, _ in running:
        stop.set()
    for _, thread in running:
        thread.join(60)
        assert not thread.is_alive()


def test_a_nudge_is_kept_exactly_if_the_step_is(store, steps):
    def undone(step):
        step.post(outgoing(key="undone"))
        raise LookupError

    with pytest.raises(LookupError):
        steps.run(SYSTEM, undone)
    assert jobs(store) == []
    steps.run(SYSTEM, lambda step: step.post(outgoing()))
    assert jobs(store) == [("deliver", "todo")]


def test_the_same_message_twice_in_a_step_aborts_nothing(store, steps):
    def twice(step):
        one, two = step.post(outgoing()), step.post(outgoing())
        nudge(step.session, one.id)
        return one.id, two.id

    one, two = steps.run(SYSTEM, twice)
    assert one == two
    assert len(jobs(store)) == 2


def test_a_posted_message_leaves_at_once_and_its_job_with_it(store, blobs, trail, steps, work):
    channel = Scripted()
    work(Worker(store, Deliveries(store, blobs, trail, [channel]).attempt))
    message = steps.run(SYSTEM, lambda step: step.post(outgoing()))
    until(lambda: jobs(store) == [] and channel.received == [message.content])
    with store.session() as session:
        assert session.get_one(Message, message.id).state == "envoye"


def test_two_workers_deliver_many_messages_once_each(store, blobs, trail, steps, work):
    channel = Scripted()
    second = Store(store.dsn)
    for each in (store, second):
        work(Worker(each, Deliveries(each, blobs, trail, [channel]).attempt))
    contents = {f"message {number}".encode() for number in range(25)}
    for content in contents:
        steps.run(SYSTEM, lambda step, content=content: step.post(outgoing(key=content.decode(), content=content)))
    until(lambda: len(channel.received) >= 25 and jobs(store) == [])
    assert len(channel.received) == 25
    assert set(channel.received) == contents
    second.close()


def test_drain_runs_what_is_due_and_returns(store, blobs, trail, steps):
    channel = Scripted()
    steps.run(SYSTEM, lambda step: step.post(outgoing()))
    Worker(store, Deliveries(store, blobs, trail, [channel]).attempt).drain()
    assert len(channel.received) == 1
    assert jobs(store) == []


def test_a_periodic_task_runs_at_the_start_and_again_and_a_failing_one_disturbs_nobody(store, work):
    runs, failures = [], []

    def fail() -> None:
        failures.append(1)
        raise ValueError("DUPONT Jeanne")

    with structlog.testing.capture_logs() as logs:
        work(
            Worker(
                store,
                lambda _: None,
                [Periodic("fine", "* * * * * */1", lambda: runs.append(1)), Periodic("bad", "0 0 1 1 *", fail)],
            )
        )
        until(lambda: len(runs) >= 2 and any(line["event"] == "job-failed" for line in logs))
    assert "DUPONT" not in str(logs)
    assert [line["error"] for line in logs if line["event"] == "job-failed"] == ["ValueError"]


def test_a_periodic_task_runs_in_one_worker_at_a_time(store, work):
    at_once, most = [0], [0]
    lock = threading.Lock()
    rounds = []

    def slow() -> None:
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        time.sleep(0.1)
        with lock:
            at_once[0] -= 1
        rounds.append(1)

    second = Store(store.dsn)
    for each in (store, second):
        work(Worker(each, lambda _: None, [Periodic("slow", "* * * * * */1", slow)]))
    until(lambda: len(rounds) >= 3)
    assert most == [1]
    second.close()


def test_a_slow_delivery_keeps_no_periodic_task_waiting(store, steps, work):
    release, ran = threading.Event(), threading.Event()
    for number in range(3):
        steps.run(SYSTEM, lambda step, number=number: step.post(outgoing(key=str(number))))
    work(Worker(store, lambda _: release.wait(60), [Periodic("plan", "* * * * *", ran.set)], concurrency=2))
    try:
        assert ran.wait(60)
    finally:
        release.set()


def test_stopping_lets_what_runs_end(store, steps, work):
    begun, told_to_stop, ended = threading.Event(), threading.Event(), threading.Event()

    def deliver(_) -> None:
        begun.set()
        assert told_to_stop.wait(60)
        ended.set()

    steps.run(SYSTEM, lambda step: step.post(outgoing()))
    stop = work(Worker(store, deliver))
    assert begun.wait(60)
    stop.set()
    told_to_stop.set()
    until(ended.is_set)
    until(lambda: jobs(store) == [])


def test_a_lost_database_connection_is_waited_for(store, blobs, trail, steps, work, monkeypatch):
    monkeypatch.setattr("gateway.exchange.jobs._RETRY_PAUSE_S", 0.1)
    channel, ready = Scripted(), threading.Event()
    work(Worker(store, Deliveries(store, blobs, trail, [channel]).attempt, [Periodic("hello", "* * * * *", ready.set)]))
    assert ready.wait(60)
    with psycopg.connect(store.dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    steps.run(SYSTEM, lambda step: step.post(outgoing()))
    until(lambda: len(channel.received) == 1)


def test_the_lock_of_a_killed_process_is_free_again(store):
    code = (
        "import sys\n"
        "from gateway.exchange.jobs import alone\n"
        "from gateway.model.store import Store\n"
        "with alone(Store(sys.argv[1]), 7) as held:\n"
        "    print(held, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, store.dsn],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert holder.stdout.readline() == "True\n"
        with alone(store, 7) as held:
            assert not held
        holder.send_signal(signal.SIGKILL)
        holder.wait()

        def free() -> bool:
            with alone(store, 7) as held:
                return held

        until(free)
    finally:
        holder.kill()
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()


def test_the_jobs_of_a_killed_worker_are_reaped(store, steps, work, monkeypatch):
    steps.run(SYSTEM, lambda step: step.post(outgoing()))
    with psycopg.connect(store.dsn, autocommit=True) as connection:
        # What SIGKILL leaves: a job that is being done by a worker whose heart stopped.
        connection.execute(
            "WITH dead AS (INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() - interval '1 hour') "
            "RETURNING id) UPDATE procrastinate_jobs SET status = 'doing', worker_id = dead.id FROM dead"
        )
    worker = Worker(store, lambda _: None)
    app = worker._app()

    async def reap() -> None:
        async with app.open_async():
            await app.tasks["reap-jobs"].func(timestamp=0)

    import asyncio

    asyncio.run(reap())
    assert jobs(store) == []
