"""What the demonstration says: each step as it is seen to work, for people on the terminal and in ``story.json``.

A step is told only once it was seen through a wire; whatever was expected and not seen is `NotSeen` and ends the story.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TextIO
from zoneinfo import ZoneInfo

__all__ = ["Narrator", "NotSeen", "Told", "french_instant"]

_PARIS = ZoneInfo("Europe/Paris")
_DAYS = ("lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche")
_MONTHS = (
    *("janvier", "février", "mars", "avril", "mai", "juin"),
    *("juillet", "août", "septembre", "octobre", "novembre", "décembre"),
)
_NARROW = 60


class NotSeen(Exception):
    """What a step promises was not seen.

    Parameters
    ----------
    step
        The step's name, as it would have been told.
    why
        What was seen instead, in one sentence.
    """

    def __init__(self, step: str, why: str) -> None:
        super().__init__(f"{step}: {why}")
        self.step = step
        self.why = why


@dataclass(frozen=True, slots=True)
class Told:
    """One step of the story, as ``story.json`` keeps it.

    ``instant`` is the domain's; ``elapsed_s`` is real: since the step before, starts of the gateway included.
    """

    act: int
    name: str
    instant: str
    wire: str
    outcome: str
    file: str | None
    elapsed_s: float


def french_instant(instant: datetime) -> str:
    """Return « lundi 9 mars 2026, 9 h 00 » in Paris."""
    there = instant.astimezone(_PARIS)
    return f"{_DAYS[there.weekday()]} {there.day} {_MONTHS[there.month - 1]} {there.year}, {there.hour} h {there:%M}"


class Narrator:
    """Prints the story and keeps it.

    Parameters
    ----------
    folder
        Where ``story.json`` and what the wires carried are kept.
    out
        The terminal, or a file; colours only on a terminal that wants them.
    """

    def __init__(self, folder: Path, out: TextIO | None = None) -> None:
        self.folder = folder
        self.out = out or sys.stdout
        self.steps: list[Told] = []
        self.act = 0
        self.clock = datetime.now(_PARIS)
        self._told_at = time.monotonic()
        self._colours = self.out.isatty() and "NO_COLOR" not in os.environ
        self._width = min(shutil.get_terminal_size((100, 24)).columns, 110)

    def open_act(self, number: int, title: str, clock: datetime) -> None:
        """Announce an act at its clock."""
        self.act, self.clock = number, clock
        self._line("")
        self._line(f"{self._paint('1;34', f'{number}. {title}')}")
        self._line(self._paint("2", f"   {french_instant(clock)}"))

    def seen(self, name: str, *, wire: str, outcome: str, file: Path | None = None) -> None:
        """Tell a step that was seen to work."""
        kept = str(file.relative_to(self.folder)) if file else None
        self.steps.append(Told(self.act, name, self.clock.isoformat(), wire, outcome, kept, self._elapsed()))
        self._line(f"   {self._paint('32', '✓')} {self._paint('2', f'{wire:<9}')} {self._wrapped(name, 15)}")
        if outcome:
            self._line(f"               {self._paint('2', self._wrapped(outcome, 15))}")
        if kept:
            self._line(f"               {self._paint('36', f'→ demo/{kept}')}")
        self._save()

    def say(self, text: str = "", *, indent: int = 3) -> None:
        """Print a sentence that is no step."""
        self._line(f"{' ' * indent}{self._wrapped(text, indent)}" if text else "")

    def table(self, title: str, rows: Iterable[tuple[str, str]]) -> None:
        """Print names beside what they stand for."""
        shown = list(rows)
        width = max((len(name) for name, _ in shown), default=0)
        self._line("")
        self._line(self._paint("1", title))
        for name, value in shown:
            self._line(f"   {name:<{width}}   {value}")

    def failed(self, act: int, step: str, why: str) -> None:
        """Tell where the story broke."""
        self.steps.append(Told(act, step, self.clock.isoformat(), "", f"échec : {why}", None, self._elapsed()))
        self._line(f"   {self._paint('1;31', '✗')} {step}")
        for line in why.splitlines() or [""]:
            self._line(f"     {line}")
        self._save()

    def write(self, name: str, content: bytes) -> Path:
        """Keep what a wire carried."""
        path = self.folder / name
        path.write_bytes(content)
        return path

    def _elapsed(self) -> float:
        since, self._told_at = self._told_at, time.monotonic()
        return round(self._told_at - since, 3)

    def _save(self) -> None:
        told = [asdict(step) for step in self.steps]
        (self.folder / "story.json").write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    def _wrapped(self, text: str, indent: int) -> str:
        width = max(self._width, _NARROW)
        return textwrap.fill(
            text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
        )

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colours else text

    def _line(self, text: str) -> None:
        print(text, file=self.out, flush=True)
