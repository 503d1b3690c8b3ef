"""Finds the route of a FHIR request in a table, and calls it with what it asks for by name.

The framework compares an address with one route after another, twice, and solves dependencies anew for each request:
more work than a read by id. The addresses of FHIR are few and regular, so that their parts decide at once.

Promises: what is no type and no id is not taken for one (`is_name`), so that an address is found by all of its methods
or by none; HEAD is answered wherever GET is, the server drops the body [FHIR R4 http#read]; whoever calls is known
before his body is read; a plain function runs in a thread, a coroutine where it is.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from gateway.errors import Fault

__all__ = ["Endpoint", "Found", "Route", "Router", "is_name"]

#: A coroutine, or a plain function, of ``request``, ``who``, ``content`` and the parameters of its path, by name.
Endpoint = Callable[..., Any]
_Handler = Callable[[Request], Awaitable[Response]]
#: Requests in a thread at once: as many as may hold a connection to the database; others wait their turn.
_THREADS = 20
_ASKED = frozenset({"request", "who", "content"})


def is_name(parameters: Mapping[str, str]) -> bool:
    """Whether parts of a path may be a type and an id: ``_history``, ``$validate`` and ``metadata`` are none.

    No id begins with ``_`` or ``$``, and every type with a capital letter [FHIR R4 http#general].
    """
    kind, identity = parameters.get("kind", "A"), parameters.get("identity", "a")
    return "A" <= kind[:1] <= "Z" and identity[:1] not in "_$"


class Route(NamedTuple):
    """One address with its methods.

    Attributes
    ----------
    path
        Its template, which the log and the metrics name it by.
    parts
        The template between its slashes; a parameter stands in braces.
    """

    path: str
    methods: frozenset[str]
    parts: tuple[str, ...]
    handler: _Handler

    def parameters(self, parts: Sequence[str]) -> dict[str, str] | None:
        """Parameters of an address, `None` when it is not this one's."""
        said: dict[str, str] = {}
        for wanted, part in zip(self.parts, parts, strict=True):
            if wanted[:1] == "{":
                said[wanted[1:-1]] = part
            elif wanted != part:
                return None
        return said if is_name(said) else None


class Found(NamedTuple):
    """The route of a request, and what its address says."""

    route: Route
    parameters: dict[str, str]


class Router(BaseRoute):
    """The routes of one wire; the application asks it as one of its own.

    Parameters
    ----------
    prefixes
        First parts of the addresses that are the wire's, whether or not there is something.
    caller
        Gives ``who`` to an endpoint that asks for it.
    body
        Gives ``content``.
    around
        What every endpoint is surrounded with: it answers whatever is raised.
    otherwise
        Answers what no route took.

    Attributes
    ----------
    threads
        Where plain functions are called.
    """

    def __init__(
        self,
        prefixes: Sequence[str],
        *,
        caller: Callable[[Request], Awaitable[Any]],
        body: Callable[[Request], Awaitable[bytes]],
        around: Callable[[_Handler], _Handler],
        otherwise: _Handler,
    ) -> None:
        self._begins = tuple(f"/{prefix}/" for prefix in prefixes)
        self._whole = frozenset(f"/{prefix}" for prefix in prefixes)
        self._caller = caller
        self._body = body
        self._around = around
        self._otherwise = around(otherwise)
        self._table: dict[tuple[str, int], list[Route]] = {}
        # The framework's way into a thread wakes it by a condition written in Python: twice the price of this one.
        self.threads = ThreadPoolExecutor(_THREADS, "fhir")
        self.routes: list[Route] = []

    def add(self, methods: Sequence[str], path: str) -> Callable[[Endpoint], Endpoint]:
        """Decorate an endpoint with an address; of two that fit a request, the first is taken."""
        if not path.startswith(self._begins) and path not in self._whole:
            raise Fault("route-hors-prefixe", "Une adresse du fil FHIR est hors de ses préfixes.")
        named = frozenset({*methods, "HEAD"} if "GET" in methods else methods)
        parts = tuple(path.split("/")[1:])

        def decorate(endpoint: Endpoint) -> Endpoint:
            route = Route(path, named, parts, self._around(self._called(endpoint)))
            self.routes.append(route)
            for method in named:
                self._table.setdefault((method, len(parts)), []).append(route)
            return endpoint

        return decorate

    def get(self, path: str) -> Callable[[Endpoint], Endpoint]:
        """Decorate what answers GET and HEAD."""
        return self.add(("GET",), path)

    def post(self, path: str) -> Callable[[Endpoint], Endpoint]:
        """Decorate what answers POST."""
        return self.add(("POST",), path)

    def put(self, path: str) -> Callable[[Endpoint], Endpoint]:
        """Decorate what answers PUT."""
        return self.add(("PUT",), path)

    def patch(self, path: str) -> Callable[[Endpoint], Endpoint]:
        """Decorate what answers PATCH."""
        return self.add(("PATCH",), path)

    def delete(self, path: str) -> Callable[[Endpoint], Endpoint]:
        """Decorate what answers DELETE."""
        return self.add(("DELETE",), path)

    def found(self, method: str, path: str) -> Found | None:
        """The route that answers a method at a path."""
        parts = path.split("/")[1:]
        for route in self._table.get((method, len(parts)), ()):
            parameters = route.parameters(parts)
            if parameters is not None:
                return Found(route, parameters)
        return None

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Take every request below the prefixes: the wire refuses in its own form."""
        path = scope["path"]
        ours = scope["type"] == "http" and (path.startswith(self._begins) or path in self._whole)
        return (Match.FULL if ours else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        found = self.found(scope["method"], scope["path"])
        handler = self._otherwise
        if found is not None:
            scope["route"], scope["path_params"] = found
            handler = found.route.handler
        response = await handler(Request(scope, receive, send))
        await response(scope, receive, send)

    def in_thread(self, endpoint: Endpoint, **said: Any) -> Awaitable[Any]:
        """Call a plain function in a thread, with what is said of the request (its id) there too."""
        run = functools.partial(contextvars.copy_context().run, endpoint, **said)
        return asyncio.get_running_loop().run_in_executor(self.threads, run)

    def _called(self, endpoint: Endpoint) -> _Handler:
        asked = frozenset(inspect.signature(endpoint).parameters)
        named = asked - _ASKED
        waits = inspect.iscoroutinefunction(endpoint)

        async def handler(request: Request) -> Response:
            said: dict[str, Any] = {name: request.path_params[name] for name in named}
            if "request" in asked:
                said["request"] = request
            if "who" in asked:
                said["who"] = await self._caller(request)
            if "content" in asked:
                said["content"] = await self._body(request)
            answer: Response = await endpoint(**said) if waits else await self.in_thread(endpoint, **said)
            return answer

        return handler
