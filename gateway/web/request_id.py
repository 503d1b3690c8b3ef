"""One identifier for each HTTP request, from the client's header to the log line.

Promises: every answer carries ``X-Request-Id``; a client's own is kept when it is short and harmless
[FHIR R4 http#custom], else one is made; every log line written while the request runs carries it; one line closes each
request with method, route template, status and duration. The line names neither path values nor query, because both may
name a patient.
"""

from __future__ import annotations

import re
import time
import uuid
from contextvars import ContextVar
from typing import Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.web.metrics import observe_request

__all__ = ["RequestIdMiddleware", "request_id", "route_template"]

_HEADER: Final = b"x-request-id"
_HARMLESS: Final = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
#: Named so that structlog puts it into every line of the request by itself (`structlog.contextvars`).
_current: ContextVar[str] = ContextVar("structlog_request_id", default="-")
_log = structlog.get_logger("gateway.web")


def request_id() -> str:
    """Return the identifier of the request being served, ``-`` outside of any."""
    return _current.get()


def route_template(scope: Scope) -> str:
    """Name the route that answered by its template, never by the path asked for.

    Examples
    --------
    >>> route_template({"type": "http", "path": "/dossiers/42"})
    'unmatched'
    """
    route = scope.get("route")
    template = getattr(route, "path_format", None) or getattr(route, "path", None)
    if not isinstance(template, str):
        return "unmatched"
    return template


class RequestIdMiddleware:
    """ASGI middleware that gives, binds, answers and logs the request's identifier.

    Parameters
    ----------
    app
        The application it surrounds; it stands outermost but for `gateway.web.proxy`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        offered = next((value for name, value in scope["headers"] if name == _HEADER), b"")
        identifier = offered.decode("ascii") if _HARMLESS.fullmatch(offered) else str(uuid.uuid4())
        token = _current.set(identifier)
        status = 500
        begun = time.perf_counter()

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                kept = [(name, value) for name, value in message.get("headers", []) if name.lower() != _HEADER]
                message["headers"] = [*kept, (_HEADER, identifier.encode("ascii"))]
            await send(message)

        try:
            await self._app(scope, receive, answer)
        finally:
            spent_s = time.perf_counter() - begun
            template = route_template(scope)
            observe_request(scope["method"], template, status, spent_s)
            _log.info(
                "request",
                method=scope["method"],
                route=template,
                status=status,
                duration_ms=round(spent_s * 1000, 1),
            )
            _current.reset(token)
