"""Small French words that every form of a document shares."""

from __future__ import annotations

import pytest

from gateway.documents.rows import period_words


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        ("2026-11-09", "2026-11-12", "du 09/11/2026 au 12/11/2026"),
        ("2026-11-09", "2026-11-09", "le 09/11/2026"),
        ("2026-11", "2026-11", "en 11/2026"),
        ("2026", "2026", "en 2026"),
        ("2026-11", "2026-11-09", "du 11/2026 au 09/11/2026"),
        ("2026-11-09", None, "à partir du 09/11/2026"),
        (None, "2026-11-09", "avant le 09/11/2026"),
        (None, None, None),
    ],
)
def test_a_period_is_said_as_one_would(start, end, said):
    assert period_words(start, end) == said
