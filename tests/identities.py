"""Watches what a test makes the gateway say: no log line and no error names a person.

``nothing_names_anybody`` records every line of ours as production writes it (an exception by its types), every line of
a library from WARNING on, and the words of every `GatewayError` that is made, whether it is shown, logged or swallowed;
at the end of the test nothing of it may hold an address, a number of a person, or a name or birth date of the
fictitious people of the tests. A module asks for it by `pytest.mark.usefixtures`.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog

from gateway.app.logs import _without_words
from gateway.errors import GatewayError

#: Birth names, given names and words of the people of `tests.world` and of the samples; as tokens, folded.
NAMES = (
    "PAT-TROIS", "DOMINIQUE", "DUPONT", "NGUYEN", "MERCIER", "PERRIN", "ROBERT", "CANARIVAL", "PATIENT-SECRET",
)  # fmt: skip
_DATES = re.compile(r"1979-?03-?28|28/03/1979|28 mars 1979")
_NUMBERS = {
    "INS or NIR": re.compile(r"(?<![0-9A-Za-z])[1278]\d{2}(?:0[1-9]|1[0-2]|[2-9]\d)\d{8}(?:\d{2})?(?![0-9A-Za-z])"),
    "RPPS": re.compile(r"(?<![0-9A-Za-z])8?10[1-9]\d{8}(?![0-9A-Za-z])"),
}
_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
#: Who we are ourselves, and what names no person: Message-IDs of ours.
_OURS = re.compile(r"rcp@|3c@|@3c\.|smtp|imap", re.IGNORECASE)


@dataclass
class Watch:
    """What was said."""

    lines: list[Any]
    errors: list[str] = field(default_factory=list)

    def found(self) -> list[tuple[str, str]]:
        """What names somebody: the kind and the line."""
        return [(kind, said) for said in (*map(str, self.lines), *self.errors) for kind in _named(said)]


def _named(said: str) -> Iterator[str]:
    folded = unicodedata.normalize("NFKD", said).encode("ascii", "ignore").decode().upper()
    yield from (f"name {one}" for one in NAMES if re.search(rf"(?<![A-Z]){re.escape(one)}(?![A-Z])", folded))
    if _DATES.search(said):
        yield "birth date"
    yield from (kind for kind, pattern in _NUMBERS.items() if pattern.search(said))
    if any(not _OURS.search(one) for one in _ADDRESS.findall(said)):
        yield "address"


class _Libraries(logging.Handler):
    def __init__(self, lines: list[Any]) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())


@pytest.fixture
def overheard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Record what is said, and judge nothing."""
    first = GatewayError.__init__
    errors: list[str] = []

    def told(self: GatewayError, code: str, text: str, **more: Any) -> None:
        errors.append(f"{code}: {text} {more.get('expression') or ''}")
        first(self, code, text, **more)

    monkeypatch.setattr(GatewayError, "__init__", told)
    root = logging.getLogger()
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars, _without_words]) as lines:
        handler = _Libraries(lines)
        root.addHandler(handler)
        yield Watch(lines, errors)
        root.removeHandler(handler)


@pytest.fixture
def nothing_names_anybody(overheard: Watch) -> Iterator[Watch]:
    """Let the test run, then read all that was said meanwhile."""
    yield overheard
    assert overheard.found() == []
