"""The programme ends at the first step that was not seen, names it, and says so to whoever called it."""

from __future__ import annotations

import contextlib
import io
import json
from datetime import UTC, datetime

import pytest

from gateway.demo import programme
from gateway.demo.acts import DAYS, Act, Day
from gateway.demo.narration import Narrator, NotSeen
from gateway.errors import Unavailable

CLOCK = datetime(2026, 3, 9, 8, 0, tzinfo=UTC)


class _Stage:
    def __init__(self, *, starts=True):
        self.starts = starts

    @contextlib.contextmanager
    def serving(self, clock):
        assert clock.tzinfo
        if not self.starts:
            raise Unavailable("passerelle-muette", "La passerelle ne répond pas.")
        yield

    def log_end(self):
        return "dernière ligne du journal"


class _Theatre:
    def __init__(self, folder, *, starts=True):
        self.stage = _Stage(starts=starts)
        self.narrator = Narrator(folder, io.StringIO())


def _story(folder):
    return json.loads((folder / "story.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("error", "shown"),
    [(NotSeen("Mail", "aucun message"), "aucun message"), (ZeroDivisionError("x"), "ZeroDivisionError")],
)
def test_a_step_that_is_not_seen_ends_the_story(tmp_path, error, shown):
    theatre, played = _Theatre(tmp_path), []

    def fails(_):
        raise error

    acts = (Act(1, "Un", fails), Act(2, "Deux", lambda _: played.append(2)))
    with pytest.raises(programme._Broken):
        programme._play(theatre, Day(CLOCK, acts))
    assert played == []
    assert shown in _story(tmp_path)[-1]["outcome"]
    assert "dernière ligne du journal" in theatre.narrator.out.getvalue()


def test_a_gateway_that_does_not_start_is_told_under_the_act(tmp_path):
    with pytest.raises(programme._Broken):
        programme._play(_Theatre(tmp_path, starts=False), Day(CLOCK, (Act(3, "Trois", lambda _: None),)))
    [told] = _story(tmp_path)
    assert (told["act"], told["name"]) == (3, "Trois")


def test_the_story_has_nine_acts_in_order_of_the_domains_clock():
    assert [act.number for day in DAYS for act in day.acts] == list(range(1, 10))
    clocks = [day.clock for day in DAYS]
    assert clocks == sorted(clocks)
    assert clocks[-1] < programme.BY_HAND_CLOCK
