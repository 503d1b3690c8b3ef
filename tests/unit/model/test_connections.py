"""Connections are bounded, a broken one never comes back, and what is stopped here is stopped in the server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from sqlalchemy import text

from gateway.model.connections import Connections
from gateway.model.store import Store

_SLEEPERS = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(30)%' AND pid <> $1"
_MINE = "SELECT pg_backend_pid()"


def over(store: Store, size: int, ask: Callable[[Connections], Awaitable[None]], timeout_s: float = 60) -> None:
    async def run() -> None:
        connections = Connections(store.dsn, size=size, timeout_s=timeout_s, settings={"timezone": "UTC"})
        try:
            await ask(connections)
        finally:
            await connections.close()

    asyncio.run(run())


def test_fifty_who_ask_share_three_connections(store: Store) -> None:
    async def ask(connections: Connections) -> None:
        asked = [connections.fetch(f"{_MINE}, pg_sleep(0.005)", [], seconds=60) for _ in range(50)]
        found = {rows[0][0] for rows in await asyncio.gather(*asked)}
        assert len(found) == 3

    over(store, 3, ask)


def test_what_is_stopped_is_stopped_in_the_server_and_its_connection_is_not_used_again(store: Store) -> None:
    async def ask(connections: Connections) -> None:
        [[before]] = await connections.fetch(_MINE, [], seconds=60)
        with pytest.raises(TimeoutError):
            await connections.fetch("SELECT pg_sleep(30)", [], seconds=0.05)
        [[after]] = await connections.fetch(_MINE, [], seconds=60)
        assert after != before
        for _ in range(1500):
            [[left]] = await connections.fetch(_SLEEPERS, [after], seconds=60)
            if not left:
                return
            await asyncio.sleep(0.02)
        pytest.fail("the server still sleeps")

    over(store, 1, ask)


def test_whoever_waits_too_long_is_told_and_who_comes_later_is_served(store: Store) -> None:
    async def ask(connections: Connections) -> None:
        assert await connections.fetch(_MINE, [], seconds=60)
        connections._timeout_s = 0.2  # from here on: whoever connects is not hurried
        with store.engine.connect() as elsewhere:
            elsewhere.execute(text("SELECT pg_advisory_xact_lock(1)"))
            holding = asyncio.create_task(connections.fetch("SELECT pg_advisory_lock(1)", [], seconds=60))
            await asyncio.sleep(0)
            with pytest.raises(TimeoutError):
                await connections.fetch(_MINE, [], seconds=60)
        await holding
        assert await connections.fetch(_MINE, [], seconds=60)

    over(store, 1, ask)


def test_who_came_first_is_served_first_whoever_comes_meanwhile(store: Store) -> None:
    async def ask(connections: Connections) -> None:
        served: list[int] = []

        async def one(number: int) -> None:
            await connections.fetch("SELECT pg_sleep(0.01)", [], seconds=60)
            served.append(number)
            if number < 10:  # whoever is served comes again at once, and waits behind the others
                await one(number + 100)

        await asyncio.gather(*(one(number) for number in range(20)))
        assert served[:20] == list(range(20))

    over(store, 1, ask)


def test_a_place_whose_connection_died_goes_to_who_waits(store: Store) -> None:
    async def ask(connections: Connections) -> None:
        dying = asyncio.create_task(connections.fetch("SELECT pg_sleep(30)", [], seconds=0.05))
        waiting = [asyncio.create_task(connections.fetch(_MINE, [], seconds=60)) for _ in range(5)]
        with pytest.raises(TimeoutError):
            await dying
        assert len({rows[0][0] for rows in await asyncio.gather(*waiting)}) == 1

    over(store, 1, ask)


def test_who_goes_away_in_the_middle_takes_no_connection_along(store: Store) -> None:
    async def ask(connections: Connections) -> None:
        for _ in range(5):
            gone = asyncio.create_task(connections.fetch("SELECT pg_sleep(30)", [], seconds=30))
            waiting = asyncio.create_task(connections.fetch(_MINE, [], seconds=60))
            await asyncio.sleep(0.05)
            gone.cancel()
            assert await waiting
            with pytest.raises(asyncio.CancelledError):
                await gone

    over(store, 1, ask)


def test_a_refused_statement_leaves_its_connection_and_a_dead_one_is_replaced(store: Store) -> None:
    async def ask(connections: Connections) -> None:
        [[first]] = await connections.fetch(_MINE, [], seconds=60)
        with pytest.raises(asyncpg.PostgresError):
            await connections.fetch("SELECT 1 / 0", [], seconds=60)
        assert await connections.fetch(_MINE, [], seconds=60) == [(first,)]
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await connections.fetch("SELECT pg_terminate_backend(pg_backend_pid())", [], seconds=60)
        [[second]] = await connections.fetch(_MINE, [], seconds=60)
        assert second != first

    over(store, 1, ask)


def test_rows_of_one_write_are_all_kept_or_none(store: Store) -> None:
    async def ask(connections: Connections) -> None:
        await connections.fetch("CREATE TABLE kept (n int PRIMARY KEY)", [], seconds=60)
        try:
            with pytest.raises(asyncpg.UniqueViolationError):
                await connections.write("INSERT INTO kept VALUES ($1)", [(1,), (2,), (1,)], seconds=60)
            assert await connections.fetch("SELECT n FROM kept", [], seconds=60) == []
            await connections.write("INSERT INTO kept VALUES ($1)", [(1,), (2,)], seconds=60)
            assert await connections.fetch("SELECT n FROM kept ORDER BY n", [], seconds=60) == [(1,), (2,)]
        finally:
            await connections.fetch("DROP TABLE kept", [], seconds=60)

    over(store, 2, ask)
