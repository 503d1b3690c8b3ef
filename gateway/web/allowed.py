"""Which methods an address answers to, as ``Allow`` lists them [RFC 9110 §9.3.7, §10.2.1, §15.5.6].

Promises: asked of the registered routes themselves, so that it cannot lie; a method that was just refused is not named.
Not promised: that the caller may. A wire with a route that takes whatever no other took tells its own addresses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from starlette.requests import Request
from starlette.routing import BaseRoute, Match

__all__ = ["METHODS", "allow", "answered"]

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""In the order in which they are listed."""


def answered(request: Request, routes: Sequence[BaseRoute]) -> tuple[str, ...]:
    """Methods for which some route answers at the address of a request; none where there is nothing."""
    found = {
        method
        for method in METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    }
    return tuple(method for method in METHODS if method in found or (found and method == "OPTIONS"))


def allow(methods: Iterable[str], *, but: str = "") -> str:
    """Write an ``Allow``.

    Parameters
    ----------
    but
        The method that is refused: it is not listed, HEAD and GET go together.
    """
    gone = {"GET", "HEAD"} if but in {"GET", "HEAD"} else {but}
    return ", ".join(method for method in methods if method not in gone)
