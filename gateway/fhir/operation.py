"""One write as it is asked for, what verbs need for it, and what became of it.

Promises: plain facts, no session. Not promised: that any of it holds (`gateway.fhir.locating`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.exchange.blobs import BlobStore
from gateway.fhir.document import Tree
from gateway.fhir.patch import Patch
from gateway.fhir.subscribers import Subscribing
from gateway.rcp.ports import Letters
from gateway.rcp.report import Press

__all__ = ["Done", "Operation", "Ports"]


@dataclass(slots=True)
class Operation:
    """One create, update, patch or delete, alone or as a Bundle entry.

    Attributes
    ----------
    method
        As asked; a PATCH becomes a PUT of the patched tree once it is located.
    query
        Search of a conditional create (``If-None-Exist``), update, patch or delete, without ``?``.
    identity
        Logical id, once known.
    before
        The current row of what the operation concerns, when it exists.
    where
        FHIRPath of the resource in its carrier, for refusals.
    untouched
        Whether nothing is to be done: what a condition names stands already, or is gone already.
    """

    method: str
    kind: str
    tree: Tree
    query: str | None = None
    identity: str | None = None
    if_match: str | None = None
    if_none_match: str | None = None
    where: str | None = None
    patch: Patch | None = None
    before: Any | None = None
    untouched: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one operation; a removal has no body, and no version when there was nothing."""

    status: int
    kind: str
    id: str
    version: int
    updated_at: datetime | None
    body: bytes


@dataclass(frozen=True, slots=True)
class Ports:
    """What verbs need from above; one that is not there refuses what needs it.

    Parameters
    ----------
    letters, press
        Mails of a contribution; forms and mails of a report.
    blobs
        Where bytes are kept.
    subscribing
        What delivery to subscribers needs; without it nothing is delivered.
    """

    letters: Letters | None = None
    press: Press | None = None
    blobs: BlobStore | None = None
    subscribing: Subscribing | None = None
