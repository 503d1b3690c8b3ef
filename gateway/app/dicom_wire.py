"""DICOMweb beside the framework: its addresses in the table that FHIR's stand in, its refusals, other sites' viewers.

Promises: every answer below ``/dicom-web``, refusals too, is the wire's own; a viewer of another site reads answers
only when its origin is one of ``RCP_DICOMWEB_ORIGINS``, and never with the portal's cookie: no credentials are allowed,
a bearer token is its proof.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, cast

import structlog
from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from gateway.dicom import outcome
from gateway.errors import Fault, GatewayError, NotFound, Unsupported
from gateway.fhir import outcome as fhir_outcome
from gateway.fhir.routing import Router
from gateway.web.allowed import METHODS, allow
from gateway.web.authenticators import BEARER, OPEN, SESSION, caller_of

__all__ = ["dicom_wire"]

log = structlog.get_logger(__name__)

_Handler = Callable[[Request], Awaitable[Response]]

_ASKED: Final = "Authorization, Accept, Content-Type, Range, If-Range, If-None-Match"
_SAID: Final = "Content-Type, Content-Length, Content-Range, Accept-Ranges, ETag, Warning, Retry-After, X-Request-Id"
_PREFLIGHT_S: Final = 600


def dicom_wire(routes: APIRouter, origins: Sequence[str]) -> Router:
    """Put the routes of `gateway.dicom.dicomweb` into a table.

    Parameters
    ----------
    origins
        Sites whose pages may read answers.
    """
    offered = _Surroundings(frozenset(origins))
    router = Router(
        ("dicom-web",),
        caller=caller_of(SESSION, BEARER, OPEN),
        body=_no_body,
        around=offered.around,
        otherwise=offered.otherwise,
    )
    offered.router = router
    for route in routes.routes:
        if isinstance(route, APIRoute):
            router.add(sorted(route.methods or ()), route.path)(_endpoint(route.endpoint))
    return router


def _endpoint(endpoint: Callable[..., Any]) -> Callable[..., Awaitable[Response]]:
    async def asked(request: Request, who: Any) -> Response:
        return cast("Response", await endpoint(request=request, who=who, **request.path_params))

    return asked


async def _no_body(_: Request) -> bytes:
    """Read nothing: the only endpoint with a body reads it as it comes."""
    return b""


class _Surroundings:
    """What every answer has around it."""

    router: Router

    def __init__(self, origins: frozenset[str]) -> None:
        self._origins = origins

    def around(self, inner: _Handler) -> _Handler:
        """Answer whatever an endpoint raises, and tell browsers who may read it."""

        async def handler(request: Request) -> Response:
            try:
                for demand in request.app.router.dependencies:  # what the application asks of every request
                    await demand.dependency(request)
                answer = await inner(request)
            except GatewayError as error:
                answer = self._refusal(request, error)
            except Exception as error:  # noqa: BLE001 - the border of the wire: no exception leaves as a stack
                # Neither the words of the error nor the values of its frames: both may hold a patient.
                log.error("dicomweb-fault", where=outcome.where(error))  # noqa: TRY400 - see above
                answer = self._refusal(request, Fault("erreur-interne", "Erreur interne."))
            self._shared(request, answer)
            return answer

        return handler

    def _refusal(self, request: Request, error: GatewayError) -> Response:
        status, headers, body = fhir_outcome.answer(error)
        answer = Response(body, status, headers, "application/fhir+json; charset=utf-8")
        if error.code == "method-not-offered":
            answer.headers["Allow"] = allow(self._answered(request), but=request.method)
        return answer

    def _answered(self, request: Request) -> list[str]:
        path = request.scope["path"]
        found = [method for method in METHODS if self.router.found(method, path) is not None]
        return [*found, "OPTIONS"] if found else []

    async def otherwise(self, request: Request) -> Response:
        """Answer what no route took."""
        answered = self._answered(request)
        if not answered:
            raise NotFound("inconnu", "Ressource inconnue.")
        if request.method != "OPTIONS":
            raise Unsupported("method-not-offered", "Cette opération n’est pas offerte ici.")
        headers = {"Allow": allow(answered)}
        if "access-control-request-method" in request.headers and self._origin(request):
            headers |= {
                "Access-Control-Allow-Methods": allow(answered),
                "Access-Control-Allow-Headers": _ASKED,
                "Access-Control-Max-Age": str(_PREFLIGHT_S),
            }
        return Response(None, 204, headers)

    def _origin(self, request: Request) -> str | None:
        origin = request.headers.get("origin")
        return origin if origin in self._origins else None

    def _shared(self, request: Request, answer: Response) -> None:
        if not self._origins:
            return
        answer.headers.append("Vary", "Origin")
        origin = self._origin(request)
        if origin is not None:
            answer.headers["Access-Control-Allow-Origin"] = origin
            answer.headers["Access-Control-Expose-Headers"] = _SAID
