"""How log lines look: structlog everywhere, the libraries' own loggers through it, never a patient.

Promises: one line an event, JSON or console; what a library says in words at INFO is not repeated; of an exception,
ours or a library's, the types, the codes and the places are said and never the words, which may quote a patient.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

import msgspec
import structlog
from sqlalchemy.exc import DBAPIError

from gateway.errors import GatewayError

__all__ = ["configure"]

_FRAMES = 12

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


def _without_words(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keep of an exception its types and its frames, never its words: whatever raised it may have quoted a patient."""
    raised = event.pop("exc_info", None)
    if raised is True:
        raised = sys.exc_info()
    if isinstance(raised, tuple):
        raised = raised[1]
    if not isinstance(raised, BaseException):
        return event
    chain = [raised]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    event["error"] = type(raised).__name__
    if len(chain) > 1:
        event["causes"] = [type(one).__name__ for one in chain[1:]]
    for one in chain:
        if isinstance(one, GatewayError):
            event.setdefault("code", one.code)
        if isinstance(one, DBAPIError):
            event.setdefault("sqlstate", getattr(one.orig, "sqlstate", None))
    frames = traceback.extract_tb(chain[-1].__traceback__)[-_FRAMES:]
    event["where"] = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
    return event


class _Stderr:
    """Writes lines to what the process calls its error stream at that moment."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name

    def msg(self, line: bytes) -> None:
        """Write one line, whole."""
        stream = sys.stderr.buffer
        stream.write(line + b"\n")
        stream.flush()

    debug = info = warning = error = critical = exception = msg


def _from(level: str) -> Any:
    """Drop what is below a level."""
    numbers = logging.getLevelNamesMapping()
    least = numbers[level.upper()]

    def judge(_: Any, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if numbers.get(name.upper(), logging.ERROR) < least:  # "exception" is an error
            raise structlog.DropEvent
        return event

    return judge


def _json(event: MutableMapping[str, Any], **_: Any) -> bytes:
    return msgspec.json.encode(event, enc_hook=repr)


def _encoded(_: Any, __: str, line: str) -> bytes:
    return line.encode("utf-8", "backslashreplace")


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
        _without_words,
    ]
    # Our own lines do not pass through the library's handlers: each request writes one, and they cost it twice as much.
    written: list[Any] = (
        [structlog.dev.ConsoleRenderer(), _encoded] if console else [structlog.processors.JSONRenderer(_json)]
    )
    structlog.configure(
        processors=[_from(level), *shared, *written],
        logger_factory=_Stderr,
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                written[0] if console else structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
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
