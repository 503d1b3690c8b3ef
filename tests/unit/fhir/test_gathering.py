"""Who is written together: a line of creates by itself, without a database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, cast

import pytest

from gateway.errors import Conflict, Unavailable
from gateway.fhir.gathering import PATIENCE_S, Gathering, _Line, _Waiting
from gateway.fhir.operation import Done, Operation
from gateway.rcp.access import SYSTEM
from gateway.rcp.step import Steps


def done(name: str) -> Done:
    return Done(201, "Patient", name, 1, None, b"")


def nothing() -> NoReturn:
    raise AssertionError("not asked for")


class NoSteps:
    """A group is refused as a whole: each is to be written alone."""

    def __init__(self) -> None:
        self.groups = 0

    def run(self, *_: Any) -> Any:
        self.groups += 1
        raise Conflict("groupe", "Refusé.")


def gathering(threads: ThreadPoolExecutor, steps: NoSteps | None = None) -> Gathering:
    return Gathering(cast("Steps", steps or NoSteps()), cast("Any", None), threads)


def waiting(loop: asyncio.AbstractEventLoop) -> _Waiting:
    return _Waiting(SYSTEM, cast("Callable[[], Operation]", nothing), nothing, loop.create_future())


def test_who_comes_alone_is_next_at_once_and_after_a_group_as_many_are_waited_for() -> None:
    async def story() -> None:
        loop, line = asyncio.get_running_loop(), _Line()
        line.join(waiting(loop))
        assert len(await line.group()) == 1
        for _ in range(3):
            line.join(waiting(loop))
        assert len(await line.group()) == 3
        # Three were written: the first that sends again is not written without the others ...
        asked = asyncio.ensure_future(line.group())
        for number in range(3):
            await asyncio.sleep(0)
            assert not asked.done(), number
            line.join(waiting(loop))
        assert len(await asked) == 3
        # ... but for no longer than it is worth: nobody came, nobody is waited for.
        began = loop.time()
        assert await line.group() == []
        assert loop.time() - began >= PATIENCE_S * 0.5
        line.join(waiting(loop))
        assert len(await line.group()) == 1

    asyncio.run(story())


def test_a_group_is_bounded_and_nobody_behind_it_is_forgotten() -> None:
    async def story() -> None:
        loop, line = asyncio.get_running_loop(), _Line()
        came = [waiting(loop) for _ in range(70)]
        for one in came:
            line.join(one)
        groups = [await line.group() for _ in range(3)]
        assert [len(group) for group in groups] == [32, 32, 6]
        assert [one for group in groups for one in group] == came

    asyncio.run(story())


def test_each_hears_what_became_of_its_own_when_the_group_is_undone() -> None:
    steps = NoSteps()

    async def story(threads: ThreadPoolExecutor) -> list[Done | BaseException]:
        writes = gathering(threads, steps)

        def one(name: str) -> Callable[[], Done]:
            def alone() -> Done:
                if name == "3":
                    raise Conflict("en-double", "Déjà là.")
                return done(name)

            return alone

        asked = (writes.run(SYSTEM, "Patient", cast("Any", nothing), one(str(name))) for name in range(6))
        return await asyncio.gather(*asked, return_exceptions=True)

    with ThreadPoolExecutor(4) as threads:
        told = asyncio.run(story(threads))
    assert steps.groups == 1
    assert [one.id if isinstance(one, Done) else type(one) for one in told] == ["0", "1", "2", Conflict, "4", "5"]


def test_whoever_goes_away_changes_nothing_for_the_others() -> None:
    async def story(threads: ThreadPoolExecutor) -> list[str]:
        writes = gathering(threads)
        asked = [
            asyncio.ensure_future(
                writes.run(SYSTEM, "Patient", cast("Any", nothing), lambda name=name: done(name))  # type: ignore[misc]
            )
            for name in "abc"
        ]
        await asyncio.sleep(0)
        asked[1].cancel()
        return [(await asked[0]).id, (await asked[2]).id]

    with ThreadPoolExecutor(2) as threads:
        assert asyncio.run(story(threads)) == ["a", "c"]


def test_nobody_waits_for_ever_when_the_threads_are_gone() -> None:
    async def story() -> None:
        threads = ThreadPoolExecutor(1)
        threads.shutdown()
        writes = gathering(threads)
        asked = (writes.run(SYSTEM, "Patient", cast("Any", nothing), nothing) for _ in range(3))
        told = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(one) for one in told] == [Unavailable] * 3
        # The next one begins a line of its own.
        with pytest.raises(Unavailable):
            await writes.run(SYSTEM, "Patient", cast("Any", nothing), nothing)

    asyncio.run(story())
