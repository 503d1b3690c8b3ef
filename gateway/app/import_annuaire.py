"""``rcp-gateway import-annuaire``: files of the national directory, one after the other, with what is seen meanwhile.

Promises: practices come before mailboxes, whatever the order given; every name is looked at before the first file is
read; a bar on a terminal, a line every five seconds elsewhere. What an import does and refuses is
`gateway.rcp.directory_import`'s.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from gateway.app.gateway import open_gateway
from gateway.rcp.directory_import import ImportResult, import_file
from gateway.rcp.extraction import EXTRACTIONS, find_extraction
from gateway.settings import Settings

__all__ = ["Progress", "imported"]

_WIDTH = 30
_EVERY_S = 5.0
#: What changes on a terminal is drawn at most so often.
_DRAWN_EVERY_S = 0.1


class Progress:
    """A bar on a terminal, a line from time to time elsewhere."""

    def __init__(self, name: str, out: TextIO | None = None) -> None:
        self._name = name
        self._out = out or sys.stderr
        self._drawn = self._out.isatty()
        self._last = time.monotonic() if not self._drawn else 0.0

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Show how far a phase is."""
        now = time.monotonic()
        ended = done >= total
        if now - self._last < (_DRAWN_EVERY_S if self._drawn else _EVERY_S) and not (ended and self._drawn):
            return
        self._last = now
        share = min(done / total, 1.0) if total else 1.0
        if self._drawn:
            filled = round(share * _WIDTH)
            bar = "#" * filled + "." * (_WIDTH - filled)
            self._out.write(f"\r\x1b[K{self._name} : {phase:<11} [{bar}] {share:4.0%}" + ("\n" if ended else ""))
        else:
            self._out.write(f"{self._name} : {phase} {share:.0%}\n")
        self._out.flush()


def imported(settings: Settings, files: Sequence[Path], *, force: bool) -> Iterator[str]:
    """Import files; one French sentence each.

    Raises
    ------
    GatewayError
        What refuses one file; those before it are kept.
    """
    order = [kind.source for kind in EXTRACTIONS.values()]
    found = sorted((find_extraction(path) for path in files), key=lambda one: (order.index(one.kind.source), one.as_of))
    with open_gateway(settings) as gateway:
        for one in found:
            yield _told(one.name, import_file(gateway.steps, one.path, force=force, told=Progress(one.name)))


def _told(name: str, result: ImportResult) -> str:
    if result.again:
        return f"{name} : déjà appliqué, rien à faire."
    return (
        f"{name} : {result.rows} lignes appliquées au {result.as_of}, {result.rejected} mal formées, "
        f"{result.skipped} sans objet, {result.flagged} numéros à clé fausse gardés, {result.gone} entrées disparues."
    )
