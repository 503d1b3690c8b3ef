"""Who scrolls finds the next pictures drawn; who looks here and there costs nothing more."""

import asyncio

import pytest

from gateway.dicom.query import Found
from gateway.dicom.reading_ahead import Scrolls
from gateway.errors import InvalidContent
from gateway.rcp.access import Caller, CallerKind


def found(number, *, series="1.2", pictured=True) -> Found:
    return Found("1", series, f"{series}.{number}", "1.2.840.10008.1.2.1", f"{number:064}", 10, None, pictured)


def person(name="a") -> Caller:
    return Caller(kind=CallerKind.CLIENT, identifier=name, wire="dicomweb")


class Room:
    def __init__(self, count=10, refuse=()):
        self.series = [found(number) for number in range(count)]
        self.asked_for, self.drawn, self.refuse, self.last = [], [], refuse, None
        self.scrolls = Scrolls(self.find, self.draw)

    async def find(self, who, one):
        self.asked_for.append((who.identifier, one.series_uid))
        return self.series

    async def draw(self, one, asked):
        if one in self.refuse:
            raise InvalidContent("dicom-pixels", "Pixels indéchiffrables.")
        self.drawn.append(one)
        self.last = asked

    async def look(self, *numbers, who=None, asked=None):
        for number in numbers:
            self.scrolls.seen(who or person(), self.series[number], asked or {"frame": 1})
            for _ in range(5):
                await asyncio.sleep(0)


def run(story):
    asyncio.run(story())


@pytest.mark.parametrize(
    ("looked", "drawn"),
    [
        ((0,), []),
        ((0, 0, 0), []),
        ((0, 1), [2, 3]),
        ((5, 4), [3, 2]),
        ((0, 2), []),
        ((0, 2, 5), [6, 7]),
        ((0, 1, 4), [2, 3, 5, 6]),
        ((6, 8, 5), []),
        ((9, 0, 2), []),
        ((0, 7), []),
        ((8, 9), []),
        ((7, 8), [9]),
        ((1, 0), []),
    ],
)
def test_what_comes_next_is_drawn_in_the_direction_he_goes(looked, drawn):
    async def story():
        room = Room()
        await room.look(*looked)
        assert room.drawn == [room.series[number] for number in drawn]

    run(story)


@pytest.mark.parametrize(
    ("then", "drawn"), [((5,), [5, 6, 7]), ((5, 6), [5, 7, 8]), ((3,), [5, 2, 1]), ((9,), [5]), ((), [5, 6])]
)
def test_who_comes_on_while_a_picture_is_drawn_is_kept_ahead_of(then, drawn):
    """And who turns back or leaps away is followed: nothing more is drawn of where he was going."""

    async def story():
        room, gate = Room(), asyncio.Event()
        draw = room.draw

        async def slowly(one, asked):
            await draw(one, asked)
            await gate.wait()

        room.scrolls = Scrolls(room.find, slowly)
        await room.look(3, 4)
        await room.look(*then)
        assert room.drawn == [room.series[5]]
        gate.set()
        for _ in range(20):
            await asyncio.sleep(0)
        assert room.drawn == [room.series[number] for number in drawn]

    run(story)


def test_the_order_is_learned_once_and_by_his_own_rights():
    async def story():
        room = Room()
        await room.look(0, 1, 2, 3)
        assert room.asked_for == [("a", "1.2")]
        await room.look(4, 5, who=person("b"))
        assert room.asked_for == [("a", "1.2"), ("b", "1.2")]

    run(story)


def test_what_he_looks_through_is_known_to_him_alone():
    async def story():
        room = Room()
        room.series[5] = found(5, pictured=False)
        await room.look(0)
        assert room.scrolls.known(person(), "1.2", "1.2.7") is None  # nothing was looked for yet
        await room.look(1)
        assert room.scrolls.known(person(), "1.2", "1.2.7") is room.series[7]
        for who, series, instance in (
            (person("b"), "1.2", "1.2.7"),
            (person(), "1.3", "1.2.7"),
            (person(), "1.2", "1.2.70"),
            (person(), "1.2", "1.2.5"),
        ):
            assert room.scrolls.known(who, series, instance) is None

    run(story)


def test_another_window_begins_anew():
    async def story():
        room = Room()
        await room.look(0)
        await room.look(1, asked={"frame": 1, "window": [1, 2]})
        assert room.drawn == []

    run(story)


def test_what_has_no_picture_is_passed_over_and_what_is_broken_told_to_nobody():
    async def story():
        room = Room()
        room.series[2] = found(2, pictured=False)
        room.refuse = [room.series[4]]
        await room.look(0, 1)
        assert room.drawn == [room.series[3]]

    run(story)


def test_only_so_many_persons_are_remembered(monkeypatch):
    monkeypatch.setattr("gateway.dicom.reading_ahead._PERSONS", 2)

    async def story():
        room = Room()
        for name in "abc":
            await room.look(0, who=person(name))
        assert len(room.scrolls._persons) == 2
        await room.look(1, who=person("a"))
        assert room.drawn == []

    run(story)
