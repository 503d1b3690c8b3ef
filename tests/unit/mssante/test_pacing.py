"""The pace of one operator, on a clock of the test's own."""

from __future__ import annotations

import threading
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.exchange.outbox import Outcome
from gateway.mssante.channel import MssanteChannel
from gateway.mssante.connection import Attempted, Fate
from gateway.mssante.pacing import Pace


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def drain(pace, clock, keys):
    """Let every message come when it is told; gives when each left."""
    due, left, asked = dict.fromkeys(keys, clock.now), {}, dict.fromkeys(keys, 0)
    while due:
        key = min(due, key=lambda one: due[one])
        clock.now = max(clock.now, due[key])
        asked[key] += 1
        wait = pace.wait_s(key)
        if wait:
            due[key] = clock.now + wait
        else:
            left[key] = clock.now
            del due[key]
    return left, asked


@settings(max_examples=60, deadline=None)
@given(
    per_minute=st.integers(1, 600),
    burst=st.integers(1, 20),
    messages=st.integers(1, 60),
)
def test_no_window_holds_more_than_the_rate_and_the_burst_and_nobody_waits_twice(per_minute, burst, messages):
    clock = Clock()
    left, asked = drain(Pace(per_minute, burst=burst, clock=clock), clock, [str(n) for n in range(messages)])
    times = sorted(left.values())
    for first, start in enumerate(times):
        for last in range(first, len(times)):
            assert last - first + 1 <= burst + (times[last] - start) * per_minute / 60 + 1e-6
    assert max(asked.values()) <= 2
    assert times[-1] - times[0] <= max(0, messages - burst) * 60 / per_minute + 1e-6, "and not slower than it may"


def test_an_operator_that_says_later_gets_half_the_rate_until_he_accepts():
    clock = Clock()
    pace = Pace(60, burst=1, clock=clock)
    assert pace.wait_s("a") == 0
    pace.answered("smtp-421")
    assert pace.wait_s("b") == 2.0
    pace.answered("smtp-450")
    assert pace.wait_s("b") == 4.0, "the place at the former rate is void"
    for _ in range(100):
        pace.answered("smtp-451")
    assert pace.wait_s("b") == 16.0
    pace.answered("smtp-550")
    assert pace.wait_s("b") == 16.0, "a refusal of one box says nothing of the pace"
    for _ in range(40):
        pace.answered("accepted")
    clock.now += 1000
    assert [pace.wait_s(key) for key in "bcde"] == [0, 0, 1.0, 2.0], "b had its place long ago"


def test_threads_together_keep_the_pace():
    clock = Clock()
    pace, passed = Pace(60, burst=7, clock=clock), []

    def ask(name):
        passed.extend(number for number in range(50) if pace.wait_s(f"{name}-{number}") == 0)

    threads = [threading.Thread(target=ask, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passed) == 7


class Taken:
    """A submission service that remembers what it took."""

    def __init__(self, code="accepted"):
        self.code, self.contents = code, []

    def send(self, content, **_):
        self.contents.append(content)
        return Attempted(Fate.DELIVERED if self.code == "accepted" else Fate.UNAVAILABLE, self.code)


def test_the_channel_holds_back_what_is_too_fast_without_trying_it():
    clock, taken = Clock(), Taken()
    channel = MssanteChannel(taken, Pace(6, burst=1, clock=clock))

    def deliver(number):
        message = SimpleNamespace(id=number, sender="a@x.example", recipient="b@x.example", details={})
        return channel.deliver(message, b"%d" % number)

    assert deliver(1).outcome is Outcome.DELIVERED
    held = deliver(2)
    assert (held.outcome, held.code, held.untried, held.retry_after_s) == (
        Outcome.UNAVAILABLE,
        "throttled",
        True,
        10.0,
    )
    assert taken.contents == [b"1"]
    clock.now += held.retry_after_s
    assert deliver(2).outcome is Outcome.DELIVERED
    taken.code = "smtp-421"
    clock.now += 10
    assert deliver(3).untried is False
    assert deliver(4).retry_after_s == 20.0
