"""Who is calling: each way of proving it is registered once, and each route says which ways it takes.

A wire's authenticator turns a request into a `Caller` of `gateway.rcp.access`. Sibling wires may not import one
another, yet a page, a rendered image and a FHIR read accept each other's proofs (a session cookie, a bearer token), so
`gateway.app` fills this registry and the wires ask it.

Promises: without a registered, accepted and valid proof there is no caller (deny by default); two proofs in one request
are not mixed: the first accepted scheme that recognises its own proof decides alone, and if that proof is bad the
request is refused even when another would have been good.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from gateway.errors import Fault, UnknownIdentity

if TYPE_CHECKING:
    from gateway.rcp.access import Caller

__all__ = [
    "BEARER",
    "OPEN",
    "SESSION",
    "Authenticator",
    "Authenticators",
    "caller_of",
    "current_caller",
    "in_thread",
]

SESSION: Final = "session"
"""The portal's cookie, opened by Pro Santé Connect."""
BEARER: Final = "bearer"
"""A SMART access token."""
OPEN: Final = "open"
"""`RCP_FHIR_AUTH=off`: every caller is partner `dev`; never registered in ``prod``."""

Authenticator = Callable[[Request], Awaitable["Caller | None"]]
"""Returns the caller, or ``None`` when the request holds no proof of this scheme; raises `UnknownIdentity` for a bad
one. One that uses the database through psycopg is wrapped by `in_thread`."""

_STATE: Final = "authenticators"
_CACHED: Final = "rcp_caller"


def in_thread(authenticate: Callable[[Request], Caller | None]) -> Authenticator:
    """Make an `Authenticator` of a plain function: it runs in a thread and may block."""

    async def authenticator(request: Request) -> Caller | None:
        return await run_in_threadpool(authenticate, request)

    return authenticator


class Authenticators:
    """The schemes that this process knows, by name; `gateway.app` puts one in ``app.state.authenticators``."""

    def __init__(self) -> None:
        self._by_scheme: dict[str, Authenticator] = {}

    def register(self, scheme: str, authenticator: Authenticator) -> None:
        """Add a scheme; twice the same name is a defect of composition."""
        if scheme in self._by_scheme:
            raise Fault("authenticator-twice", "Un mode d’authentification est enregistré deux fois.")
        self._by_scheme[scheme] = authenticator

    @property
    def schemes(self) -> tuple[str, ...]:
        """Names of the registered schemes, in order of registration."""
        return tuple(self._by_scheme)

    async def identify(self, request: Request, *accepted: str) -> Caller | None:
        """Return the caller proved by the first of the `accepted` schemes that recognises its proof, else ``None``.

        Raises
        ------
        UnknownIdentity
            A proof of an accepted scheme is there and is bad.
        """
        for scheme in accepted:
            authenticator = self._by_scheme.get(scheme)
            if authenticator is None:
                continue
            found = await authenticator(request)
            if found is not None:
                return found
        return None


async def current_caller(request: Request, *accepted: str) -> Caller | None:
    """Return who is calling, or ``None``; asked once a request for each set of schemes.

    Parameters
    ----------
    accepted
        Schemes in order of preference; the portal's `SESSION` when none is named.
    """
    schemes = accepted or (SESSION,)
    known: dict[tuple[str, ...], Caller | None] = request.scope.setdefault(_CACHED, {})
    if schemes not in known:
        registry: Authenticators = getattr(request.app.state, _STATE)
        known[schemes] = await registry.identify(request, *schemes)
    return known[schemes]


def caller_of(*accepted: str) -> Callable[[Request], Awaitable[Caller]]:
    """Make the FastAPI dependency that gives a route its caller or refuses the request.

    ``caller: Annotated[Caller, Depends(caller_of(BEARER, OPEN))]``

    Raises
    ------
    UnknownIdentity
        ``authentication-required``: no accepted proof in the request (HTTP 401; a page redirects to ``/connexion``).
    """

    async def caller(request: Request) -> Caller:
        found = await current_caller(request, *accepted)
        if found is None:
            raise UnknownIdentity("authentication-required", "Une authentification est nécessaire.")
        return found

    return caller
