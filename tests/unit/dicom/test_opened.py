"""The trail of a study that is open: what opens it is durable first, the others follow, and none is left out."""

import asyncio

import pytest

from gateway.dicom.opened import OPEN_S, Opened
from gateway.errors import Unavailable
from gateway.model.audit import AuditFacts
from tests.loopback import wait_until


class Trail:
    """A trail that takes lines when it is let, and can be broken."""

    def __init__(self) -> None:
        self.commits: list[list[str]] = []
        self.broken = False

    async def record(self, *lines: AuditFacts) -> None:
        await asyncio.sleep(0.001)
        if self.broken:
            raise Unavailable("audit", "La trace ne peut pas être écrite.")
        self.commits.append([line.object_id for line in lines])

    @property
    def lines(self) -> list[str]:
        return [one for commit in self.commits for one in commit]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def line(name: str, **more) -> AuditFacts:
    return AuditFacts(event="imagerie", actor_id="dr", object_type="Frame", object_id=name, **more)


def run(work):
    trail, clock = Trail(), Clock()
    asyncio.run(asyncio.wait_for(work(Opened(trail, clock), trail, clock), 60))


def test_the_first_is_durable_and_the_others_share_a_commit():
    async def work(opened, trail, clock):
        await opened.tell(line("0"), "1.2")
        assert trail.commits == [["0"]]
        for number in range(1, 20):
            await opened.tell(line(str(number)), "1.2")
        assert trail.commits == [["0"]]  # none of them waited
        await opened.close()
        assert trail.commits == [["0"], [str(number) for number in range(1, 20)]]

    run(work)


def test_what_is_told_once_it_is_closed_is_durable_at_once():
    """A request may outlive the end of the server: nobody would gather what it says."""

    async def work(opened, trail, clock):
        await opened.tell(line("0"), "1.2")
        await opened.close()
        await opened.tell(line("1"), "1.2")
        assert trail.lines == ["0", "1"]

    run(work)


@pytest.mark.parametrize(
    "other",
    [
        {"actor_id": "other"},
        {"session": "another"},
        {"address": "10.0.0.9"},
        {"actor_kind": "client"},
        {"purpose": "BTG"},
        {"wire": "dicomweb"},
        {"acr": "eidas1"},
    ],
)
def test_a_line_speaks_for_its_own_caller_alone(other):
    async def work(opened, trail, clock):
        await opened.tell(line("0"), "1.2")
        await opened.tell(AuditFacts(**{"event": "imagerie", "actor_id": "dr", "object_id": "1", **other}), "1.2")
        assert trail.lines == ["0", "1"]

    run(work)


def test_another_study_and_another_minute_are_opened_anew():
    async def work(opened, trail, clock):
        await opened.tell(line("0"), "1.2")
        await opened.tell(line("1"), "1.3")
        clock.now = OPEN_S
        await opened.tell(line("2"), "1.2")
        assert trail.lines == ["0", "1", "2"]

    run(work)


def test_a_trail_that_takes_nothing_opens_nothing_and_loses_nothing():
    async def work(opened, trail, clock):
        trail.broken = True
        with pytest.raises(Unavailable):
            await opened.tell(line("refused"), "1.2")
        trail.broken = False
        await opened.tell(line("0"), "1.2")
        trail.broken = True
        await opened.tell(line("1"), "1.2")
        assert await asyncio.to_thread(wait_until, lambda: not opened._until)
        # Its writing failed: what was open is not any more, and who comes now waits for his own line.
        with pytest.raises(Unavailable):
            await opened.tell(line("refused too"), "1.2")
        trail.broken = False
        await opened.tell(line("2"), "1.2")
        await opened.close()
        assert sorted(trail.lines) == ["0", "1", "2"]

    run(work)


def test_lines_that_wait_are_bounded():
    async def work(opened, trail, clock):
        await opened.tell(line("0"), "1.2")
        for number in range(1, 400):
            await opened.tell(line(str(number)), "1.2")
            assert len(opened._lines) <= 256
        await opened.close()
        assert sorted(trail.lines, key=int) == [str(number) for number in range(400)]

    run(work)


def test_a_line_says_when_it_happened_and_not_when_it_was_written():
    async def work(opened, trail, clock):
        await opened.tell(line("0"), "1.2")
        await opened.tell(line("1"), "1.2")
        assert opened._lines[0].happened is not None
        await opened.close()

    run(work)
