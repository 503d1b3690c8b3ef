"""Who scrolls through a series is drawn the next pictures before he asks, and any other one as he asks.

Promises: nothing before the second picture of a series in a row (the third of one that is leafed through by twos or
threes), the next two at most, one series a person; only what he may see, by the very search that finds what he asks
for; whether he may see one is looked at again when he asks, and nothing is answered before. What fails ahead is told
when it is asked for. Nothing here keeps pictures: `gateway.dicom.pictures` does.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.dicom.query import Found
from gateway.errors import GatewayError
from gateway.rcp.access import Caller

__all__ = ["Scrolls"]

_AHEAD: Final = 2
_PERSONS: Final = 256

Key = tuple[str, str]


@dataclass(slots=True)
class _Scroll:
    """One person in one series."""

    series: str
    asked: dict[str, Any]
    last: str
    before: str = ""
    earlier: str = ""
    places: dict[str, int] | None = None
    found: tuple[Found, ...] = ()
    task: asyncio.Task[None] | None = None


class Scrolls:
    """What each person looks at.

    Parameters
    ----------
    series
        Find the instances of a series, in order, for a caller.
    draw
        Draw one unless it is drawn, or unless there is better to do.
    """

    def __init__(
        self,
        series: Callable[[Caller, Found], Awaitable[list[Found]]],
        draw: Callable[[Found, dict[str, Any]], Awaitable[None]],
    ) -> None:
        self._series, self._draw = series, draw
        self._persons: OrderedDict[Key, _Scroll] = OrderedDict()

    def seen(self, who: Caller, one: Found, asked: dict[str, Any]) -> None:
        """Take note of a picture that was answered; draw what comes next, beside whoever waits."""
        key = (who.kind.value, who.identifier or "")
        scroll = self._persons.pop(key, None)
        if scroll is None or scroll.series != one.series_uid or scroll.asked != asked:
            scroll = _Scroll(one.series_uid, asked, one.instance_uid)
        elif scroll.last != one.instance_uid:
            scroll.earlier, scroll.before, scroll.last = scroll.before, scroll.last, one.instance_uid
            if scroll.task is None or scroll.task.done():
                scroll.task = asyncio.create_task(self._go_on(who, one, scroll))
        self._persons[key] = scroll
        while len(self._persons) > _PERSONS:
            self._persons.popitem(last=False)

    def known(self, who: Caller, series: str, instance: str) -> Found | None:
        """Give an object of the series that he looks through, as he was last shown to have it."""
        scroll = self._persons.get((who.kind.value, who.identifier or ""))
        if scroll is None or scroll.series != series or scroll.places is None:
            return None
        place = scroll.places.get(instance)
        return None if place is None else scroll.found[place]

    async def _go_on(self, who: Caller, one: Found, scroll: _Scroll) -> None:
        begun: set[int] = set()
        try:
            if scroll.places is None:
                scroll.found = tuple(found for found in await self._series(who, one) if found.pictured)
                scroll.places = {found.instance_uid: place for place, found in enumerate(scroll.found)}
            while (place := _next(scroll, scroll.places, begun)) is not None:  # of where he has come to meanwhile
                begun.add(place)
                await self._draw(scroll.found[place], scroll.asked)
        except GatewayError:
            return


def _next(scroll: _Scroll, places: Mapping[str, int], begun: Collection[int]) -> int | None:
    """Find the place that he comes to next and that was not begun; None when he is not scrolling.

    One step is scrolling; a longer one may be any look at another picture, and is when it follows another that way.
    """
    here, there, earlier = (places.get(uid) for uid in (scroll.last, scroll.before, scroll.earlier))
    if here is None or there is None or not 0 < abs(here - there) <= _AHEAD + 1:
        return None
    way = 1 if here > there else -1
    if abs(here - there) > 1 and (earlier is None or not 0 < (there - earlier) * way <= _AHEAD + 1):
        return None
    ahead = range(here + way, here + way * (_AHEAD + 1), way)
    return next((place for place in ahead if 0 <= place < len(places) and place not in begun), None)
