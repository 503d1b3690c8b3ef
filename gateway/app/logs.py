"""How log lines look: structlog everywhere, the libraries' own loggers through it, never a patient.

Promises: one line an event, JSON or console; what a library says in words at INFO is not repeated; exception texts of
the database are cut to their type, because a driver quotes parameters.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from sqlalchemy.exc import DBAPIError

__all__ = ["configure"]

#: Libraries that quote addresses, payloads or parameters in their own words.
_QUIET = {
    "uvicorn.access": logging.CRITICAL,
    "uvicorn.error": logging.WARNING,
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    "pynetdicom": logging.CRITICAL,
    "pydicom": logging.ERROR,
    "procrastinate": logging.WARNING,
    "alembic": logging.WARNING,
    "sqlalchemy": logging.WARNING,
    "imapclient": logging.WARNING,
    "asyncio": logging.WARNING,
    "mail": logging.WARNING,
    "pymap": logging.WARNING,
    "fontTools": logging.WARNING,
}


def _without_parameters(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keep the type of a database error, not its text: drivers quote values."""
    raised = event.get("exc_info")
    if raised is True:
        raised = sys.exc_info()
    if isinstance(raised, BaseException):
        raised = (type(raised), raised, raised.__traceback__)
    if isinstance(raised, tuple) and isinstance(raised[1], DBAPIError):
        event["exc_info"] = None
        event["error"] = type(raised[1].orig).__name__
        event["sqlstate"] = getattr(raised[1].orig, "sqlstate", None)
    return event


def configure(level: str, form: str | None) -> None:
    """Configure logging for this process.

    Parameters
    ----------
    level
        ``debug`` to ``error``.
    form
        ``console`` or ``json``; `None` chooses by whether stderr is a terminal.
    """
    console = form == "console" or (form is None and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_parameters,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    # Tracebacks without locals: a local variable may be a patient.
    final: list[Any] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, threshold in _QUIET.items():
        library = logging.getLogger(name)
        library.setLevel(threshold)
        library.propagate = True
        library.handlers.clear()
