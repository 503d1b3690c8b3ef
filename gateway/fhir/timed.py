"""Statements of an open step that may cost only so long.

Promises: what costs longer is a `TimeoutError`, after which the database takes no more of the step; what comes after in
time has the bound that was there before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

__all__ = ["UNKEPT", "stopped_after"]

#: How a long statement is executed: its text is not kept for the next of its shape.
UNKEPT: Mapping[str, Any] = {"compiled_cache": None}

_CANCELLED = "57014"
# The old value is told before the new one is set: expressions of one SELECT are evaluated from left to right.
_BOUND = text("SELECT current_setting('statement_timeout'), set_config('statement_timeout', :most, true)")
_BACK = text("SELECT set_config('statement_timeout', :most, true)")


@contextmanager
def stopped_after(session: Session, seconds: float) -> Iterator[None]:
    """Let each statement within cost at most so long.

    Raises
    ------
    TimeoutError
        One was stopped.
    """
    before = session.execute(_BOUND, {"most": str(max(1, int(seconds * 1000)))}).scalar_one()
    try:
        yield
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == _CANCELLED:
            raise TimeoutError from error
        raise
    session.execute(_BACK, {"most": before})
