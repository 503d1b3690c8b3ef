"""Whose turn it is: whatever one partner's work costs, everybody else's is done in the same turn, in its order."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.fhir import fair_share
from gateway.fhir.fair_share import FairShare

#: Of each partner, what its pieces of work cost, in seconds.
COSTS = st.lists(st.lists(st.floats(0.001, 3.0), max_size=30), min_size=1, max_size=5)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(fair_share, "time", made)
    return made


def queues(costs: Sequence[Sequence[float]]) -> dict[uuid.UUID, deque[tuple[int, int, float]]]:
    return {
        uuid.UUID(int=who): deque((who, place, cost) for place, cost in enumerate(each))
        for who, each in enumerate(costs)
    }


@given(costs=COSTS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_has_its_share_and_no_more(clock: Clock, costs: list[list[float]]) -> None:
    waiting = queues(costs)
    done: list[tuple[int, int, float]] = []
    for one in FairShare().of(waiting):
        done.append(one)
        clock.now += one[2]
    for who, each in enumerate(costs):
        mine = [place for owner, place, _ in done if owner == who]
        assert mine == list(range(len(mine)))
        spent = sum(each[: len(mine)])
        left = waiting[uuid.UUID(int=who)]
        assert len(mine) + len(left) == len(each)
        # Either all of it is done, or as much as five seconds hold, and the piece that used them up.
        assert (not left) or spent >= 5.0 - 1e-9
        assert sum(each[: max(0, len(mine) - 1)]) < 5.0


def test_the_cheap_do_not_wait_for_the_costly(clock: Clock) -> None:
    waiting = queues([[2.0] * 100, [0.001] * 50])
    done = []
    share = FairShare()
    for who, _, cost in share.of(waiting):
        clock.now += cost
        done.append(who)
    assert done == [0, *[1] * 50, 0, 0]
    assert len(waiting[uuid.UUID(int=0)]) == 97
    # What it spent counts for the next page of the same turn.
    assert [who for who, _, _ in share.of(queues([[1.0] * 3, [0.001]]))] == [1]
