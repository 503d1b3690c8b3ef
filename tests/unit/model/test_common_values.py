"""What the statistics of a real server say is common is, whatever else they say or do not say is not called rare."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from gateway.model import common_values
from gateway.model.audit import AuditTrail
from gateway.model.common_values import FEW, GOOD_FOR_S, LEAST_ROWS, LONGEST, CommonValues
from gateway.model.reads import Reads
from gateway.model.representation import TABLES
from gateway.model.store import Store

TERMS, WORDS = TABLES["Patient"].c.terms, TABLES["Patient"].c.words

# Of 4 000 rows: one text in each fourth, one in 150, and one in each tenth with what an array's text quotes.
_FILL = r"""
INSERT INTO fhir_patient (id, version, body, current, deleted, public, updated_at, terms, words)
SELECT 'p' || i, 1, '', true, false, true, now(), ARRAY['of-row' || i,
    CASE WHEN i % 4 = 0 THEN 'common' ELSE 'other' || i % 30 END,
    CASE WHEN i <= 150 THEN 'some' ELSE 'else' END, CASE WHEN i % 10 = 0 THEN E'l''"o{r},\\' ELSE 'no' END],
  array_to_tsvector(ARRAY['given' || chr(31) || 'a' || i % 200, 'of-row' || i,
    CASE WHEN i % 4 = 0 THEN 'family' || chr(31) || 'martin' ELSE 'family' || chr(31) || 'm' || i % 30 END])
FROM generate_series(1, {rows}) AS i
"""


def _filled(store: Store, rows: int, *, analyzed: bool = True) -> None:
    with store.engine.connect() as connection:
        connection.exec_driver_sql(_FILL.replace("{rows}", str(rows)).replace("%", "%%"), ())
        if analyzed:
            connection.exec_driver_sql("ANALYZE fhir_patient")
        connection.commit()


async def _settled(reads: Reads) -> None:
    while reads._tasks:
        await asyncio.gather(*reads._tasks)


def _asked(store: Store, trail: AuditTrail, *questions: tuple[Any, list[str], bool]) -> list[bool]:
    """What is said of each once the statistics are there; nothing was rare before."""

    async def ask() -> list[bool]:
        reads = Reads(store, trail)
        try:
            assert not any(reads.rare(column, texts, beginnings=begin) for column, texts, begin in questions)
            await _settled(reads)
            return [reads.rare(column, texts, beginnings=begin) for column, texts, begin in questions]
        finally:
            await reads.close()

    return asyncio.run(ask())


def test_what_stands_in_many_rows_is_not_rare(store: Store, trail: AuditTrail) -> None:
    _filled(store, 4000)
    questions = {
        "a text of a thousand rows": (TERMS, ["common"], False),
        "which only begins so": (TERMS, ["comm"], False),
        "of a hundred and fifty": (TERMS, ["some"], False),
        "that and a rare one": (TERMS, ["some", "of-row7"], False),
        "of a hundred and fifty, and of a hundred": (TERMS, ["some", "other1"], False),
        "with quotes": (TERMS, ["l'\"o{r},\\"], False),
        "of one row": (TERMS, ["of-row7"], False),
        "of none": (TERMS, ["nobody"], False),
        "nothing": (TERMS, [], False),
        "a word of a thousand rows": (WORDS, ["family\x1fmartin"], True),
        "how it begins": (WORDS, ["family\x1fmart"], True),
        "how many begin, each of few rows": (WORDS, ["given\x1fa"], True),
        "how some of a few rows begin": (WORDS, ["given\x1fa19"], True),
        "a rare one": (WORDS, ["family\x1fm7"], True),
        "a rare one or a common one": (WORDS, ["family\x1fm7", "family\x1fmar"], True),
        "a word of nobody": (WORDS, ["family\x1fz"], True),
    }
    common = {
        "a text of a thousand rows",
        "of a hundred and fifty, and of a hundred",
        "with quotes",
        "a word of a thousand rows",
        "how it begins",
        "how many begin, each of few rows",
        "how some of a few rows begin",
        "a rare one or a common one",
    }
    said = dict(zip(questions, _asked(store, trail, *questions.values()), strict=True))
    # Eleven words of twenty rows each.
    assert {name for name, rare in said.items() if not rare} == common


@pytest.mark.parametrize(("rows", "analyzed"), [(0, True), (LEAST_ROWS - 1, True), (4000, False)])
def test_without_statistics_of_a_large_table_nothing_is_rare(
    store: Store, trail: AuditTrail, rows: int, analyzed: bool
) -> None:
    _filled(store, rows, analyzed=analyzed)
    assert _asked(store, trail, (TERMS, ["nobody"], False), (WORDS, ["family\x1fz"], True)) == [False, False]


def test_statistics_that_name_too_many_texts_are_not_kept(
    store: Store, trail: AuditTrail, monkeypatch: pytest.MonkeyPatch
) -> None:
    _filled(store, 4000)
    monkeypatch.setattr(common_values, "LONGEST", 20)
    assert LONGEST > 20
    assert _asked(store, trail, (TERMS, ["nobody"], False)) == [False]


@contextmanager
def _of(answer: Callable[[], Sequence[Any]]) -> Iterator[tuple[CommonValues, list[list[Any]]]]:
    """Statistics that another server gives; what was asked for."""
    sent: list[list[Any]] = []

    async def fetch(_text: str, values: list[Any]) -> Sequence[Any]:
        sent.append(values)
        return answer()

    def start(work: Coroutine[Any, Any, None]) -> None:
        asyncio.run(work)

    yield CommonValues(fetch, start), sent


def _line(texts: object, shares: object, rows: object = 1e6) -> list[dict[str, object]]:
    return [{"texts": texts, "shares": shares, "reltuples": rows}]


@pytest.mark.parametrize(
    "rows",
    [
        [],
        _line(["a"], [0.5]) * 2,
        _line(None, None),
        _line(["a", "b"], [0.5]),
        _line(["a", None], [0.5, 0.5, 0.5]),
        _line(["a"], [None, 0.5]),
        _line(["a"], ["much"]),
        _line(["a"], [0.5], None),
        [{}],
    ],
)
def test_statistics_that_make_no_sense_call_nothing_rare(rows: list[dict[str, object]]) -> None:
    with _of(lambda: rows) as (common, sent), capture_logs():
        assert not common.rare(TERMS, ["z"])
        assert not common.rare(TERMS, ["z"])
    assert len(sent) == 1


def test_a_server_that_does_not_answer_calls_nothing_rare_and_is_asked_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    answers: list[Any] = [OSError("gone"), _line(["a"], [0.5, 0.5, 0.5, 0.0]), _line(["z"], [0.5, 0.5, 0.5, 0.0])]

    def answer() -> Sequence[Any]:
        one = answers.pop(0)
        if isinstance(one, OSError):
            raise one
        rows: Sequence[Any] = one
        return rows

    said = []
    with _of(answer) as (common, sent), capture_logs() as logs:
        for _ in range(3):
            said.append([common.rare(TERMS, [text]) for text in "azaz"])
            clock[0] += GOOD_FOR_S - 1
            assert len(sent) == len(said)
            clock[0] += 1
    # What is being asked for anew is meanwhile as it was known.
    assert said == [[False] * 4, [False, True, False, True], [False, False, True, False]]
    assert [line["event"] for line in logs] == ["statistics-not-read"]


_TEXTS = st.text("ab\x1f", min_size=1, max_size=4)


@given(st.dictionaries(_TEXTS, st.integers(1, 2 * FEW), max_size=20), st.lists(_TEXTS, max_size=4), st.booleans())
def test_rows_are_counted_as_by_looking_at_every_text(rows: dict[str, int], asked: list[str], begin: bool) -> None:
    with _of(lambda: _line(list(rows), [one / 1e6 for one in rows.values()] + [0.0, 1.0])) as (common, _):
        common.rare(TERMS, [])
        found = sum(
            number
            for text in asked
            for said, number in rows.items()
            if (said.startswith(text) if begin else said == text)
        )
        if abs(found - FEW) > 0.01:  # shares are fractions
            assert common.rare(TERMS, asked, beginnings=begin) == (found < FEW)
