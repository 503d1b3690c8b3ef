"""In how many rows of a table texts stand, as the database's own statistics say.

A search for what is rare is planned once, a search for what is common each time (docs/adr/0019).

Promises: nobody waits: what is not known yet is not called rare, and is asked for meanwhile; what is known holds for
`GOOD_FOR_S`; of a column whose statistics name more than `LONGEST` texts nothing is kept. Whatever goes wrong with
statistics means that nothing is rare. Not promised: rows that came since the database last looked at the table.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import structlog
from sqlalchemy import Column

__all__ = ["FEW", "GOOD_FOR_S", "LEAST_ROWS", "LONGEST", "CommonValues"]

log = structlog.get_logger(__name__)

#: Rows that are read and put in order in less time than it takes to think of another way.
FEW = 200
#: How long what was read holds, and the texts of a column at most: a server may keep more for its own use.
GOOD_FOR_S, LONGEST = 300.0, 20_000
#: Rows of a table at least: a plan made for fewer would read them all, and still when they have become many.
LEAST_ROWS = 1000

# ``anyarray`` has no other way out than its text.
_COMMON = """
SELECT most_common_elems::text::text[] AS texts, most_common_elem_freqs AS shares, reltuples
FROM pg_stats JOIN pg_class ON pg_class.oid = to_regclass(quote_ident(schemaname) || '.' || quote_ident(tablename))
WHERE schemaname = ANY (current_schemas(false)) AND tablename = $1 AND attname = $2 AND NOT inherited
  AND cardinality(most_common_elem_freqs) < $3 AND reltuples >= $4
"""


class CommonValues:
    """The most common texts of columns that hold several: arrays of texts, ``tsvector``.

    Parameters
    ----------
    fetch
        Rows of a statement, by its text and its values.
    start
        Lets a coroutine run beside what is being done.
    """

    def __init__(
        self,
        fetch: Callable[[str, list[Any]], Awaitable[Sequence[Any]]],
        start: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._fetch = fetch
        self._start = start
        # By table and column: texts in order with the rows of each, or nothing; and until when that holds.
        self._known: dict[tuple[str, str], tuple[list[tuple[str, float]] | None, float]] = {}

    def rare(self, column: Column[Any], texts: Sequence[str], *, beginnings: bool = False) -> bool:
        """Whether statistics name no more than `FEW` rows with any of these texts.

        Parameters
        ----------
        beginnings
            Whether each is only how a text begins.
        """
        place = (column.table.name, column.name)
        common, until = self._known.get(place, (None, 0.0))
        now = time.monotonic()
        if until <= now:
            self._known[place] = (common, now + GOOD_FOR_S)  # asked for once
            self._start(self._read(place))
        if common is None:
            return False
        left = float(FEW)
        for text in texts:
            left = _less(common, text, left, beginnings=beginnings)
            if left < 0:
                return False
        return True

    async def _read(self, place: tuple[str, str]) -> None:
        common: list[tuple[str, float]] | None = None
        try:
            rows = await self._fetch(_COMMON, [*place, LONGEST, LEAST_ROWS])
            if len(rows) == 1:
                # After the shares of the texts stand others, of all of them.
                shares = rows[0]["shares"][: len(rows[0]["texts"])]
                of = float(rows[0]["reltuples"])
                common = sorted(zip(rows[0]["texts"], [of * share for share in shares], strict=True))
        except Exception as error:  # noqa: BLE001 - a search without them only costs more
            log.warning("statistics-not-read", table=place[0], column=place[1], error=type(error).__name__)
        self._known[place] = (common, time.monotonic() + GOOD_FOR_S)


def _less(common: list[tuple[str, float]], text: str, left: float, *, beginnings: bool) -> float:
    """What is left of a number of rows without those of a text."""
    place = bisect_left(common, (text,))
    while left >= 0 and place < len(common):
        said, rows = common[place]
        if not (said.startswith(text) if beginnings else said == text):
            break
        left -= rows
        place += 1
    return left
