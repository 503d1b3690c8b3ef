"""Dates as intervals, texts as folded: the parts of search that general servers get wrong in France."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

import pytest

from gateway.fhir import search_columns
from gateway.fhir.elements import shapes
from gateway.fhir.search_values import Span, date_interval, fold


def _utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        # A local day begins an hour or two before the UTC day.
        ("2026-03-19", _utc(2026, 3, 18, 23), _utc(2026, 3, 19, 23)),
        ("2026-07-14", _utc(2026, 7, 13, 22), _utc(2026, 7, 14, 22)),
        # The day of the change of hour has 23 hours.
        ("2026-03-29", _utc(2026, 3, 28, 23), _utc(2026, 3, 29, 22)),
        ("2026-10-25", _utc(2026, 10, 24, 22), _utc(2026, 10, 25, 23)),
        ("2026-03", _utc(2026, 2, 28, 23), _utc(2026, 3, 31, 22)),
        ("2026-12", _utc(2026, 11, 30, 23), _utc(2026, 12, 31, 23)),
        ("2026", _utc(2025, 12, 31, 23), _utc(2026, 12, 31, 23)),
        ("2026-03-19T14:00:00+01:00", _utc(2026, 3, 19, 13), _utc(2026, 3, 19, 13, 0, 1)),
        ("2026-03-19T13:00Z", _utc(2026, 3, 19, 13), _utc(2026, 3, 19, 13, 1)),
        ("2026-03-19T14:00", _utc(2026, 3, 19, 13), _utc(2026, 3, 19, 13, 1)),
        ("2026-03-19T14:00:00.5-10:00", _utc(2026, 3, 20, 0, 0, 0, 500000), _utc(2026, 3, 20, 0, 0, 0, 600000)),
        ("2016-12-31T23:59:60Z", _utc(2016, 12, 31, 23, 59, 59), _utc(2017, 1, 1)),
    ],
)
def test_implicit_precision(text: str, low: datetime, high: datetime) -> None:
    assert date_interval(text) == (low, high)


@pytest.mark.parametrize("text", ["", "hier", "2026-13", "2026-02-30", "19/03/2026", "2026-03-19T25:00Z"])
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        date_interval(text)


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("LEFÈVRE", "lefevre"),
        ("Cœur  de\tLion", "coeur de lion"),
        ("d’Æsope", "d aesope"),
        ("PAT-TROIS", "pat trois"),
        ("İstanbul", "istanbul"),
        ("ﬁn", "fin"),
    ],
)
def test_folding(text: str, folded: str) -> None:
    assert fold(text) == folded


_FIRST = datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
_LAST = datetime(9999, 12, 31, 23, 59, 59, 999998, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("0001", _FIRST, datetime(1, 12, 31, 23, 50, 39, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", _FIRST, datetime(1, 1, 1, 0, 0, 1, 1, tzinfo=UTC)),
        ("9999", _utc(9998, 12, 31, 23, 0), _LAST),
        ("9999-12", _utc(9999, 11, 30, 23, 0), _LAST),
        ("9999-12-31", _utc(9999, 12, 30, 23, 0), _LAST),
        ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), _LAST),
    ],
)
def test_the_first_and_last_days_of_the_calendar_end_with_it(text: str, low: datetime, high: datetime) -> None:
    """The end of time, as softwares write it; Paris was 9 min 21 s before Greenwich in the year 1."""
    assert date_interval(text) == (low, high)


@pytest.mark.parametrize("text", ["0000", "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59-00:01", "10000"])
def test_what_is_no_moment_of_the_calendar_does_not_break_the_index(text: str) -> None:
    with suppress(ValueError):
        low, high = date_interval(text)
        assert low < high
    columns = search_columns.extract({"resourceType": "Patient", "birthDate": text})
    assert "p_birthdate" in columns


def test_hull_of_a_period() -> None:
    period = {"start": "2026-03-19T14:20:00+01:00"}
    columns = search_columns.extract({"resourceType": "Encounter", "period": period})
    assert columns["p_date"] == Span(_utc(2026, 3, 19, 13, 20), None)
    backwards = {"start": "2026-03-20", "end": "2026-03-19"}
    found = search_columns.extract({"resourceType": "Encounter", "period": backwards})["p_date"]
    assert found.low < found.high


@pytest.mark.parametrize(
    ("canonical", "entries"),
    [
        ("http://f.example/q", {"http://f.example/q", "http://f.example/q|"}),
        ("http://f.example/q|1.2", {"http://f.example/q", "http://f.example/q|1.2"}),
        ("http://f.example/q|a|b", {"http://f.example/q", "http://f.example/q|a|b"}),
    ],
)
def test_a_canonical_is_found_with_and_without_its_version(canonical: str, entries: set[str]) -> None:
    tree = {"resourceType": "QuestionnaireResponse", "questionnaire": canonical}
    begin = "questionnaire" + search_columns.IS
    found = {text.removeprefix(begin) for text in search_columns.extract(tree)["terms"] if text.startswith(begin)}
    assert found == entries


def test_the_table_says_canonical_of_what_is_one_in_r4() -> None:
    said, true = set(), set()
    for kind in search_columns.types():
        for code, one in search_columns.parameters(kind).items():
            _, _, name = one.expression.partition(".")
            element = shapes()[kind].names.get(name)
            if one.kind == "reference" and element is not None and element.type == "canonical":
                true.add((kind, code))
            if one.canonical:
                said.add((kind, code))
    assert said == true
    assert len(said) == 4
