"""The HTTP routes of the FHIR wire: ``/fhir``, ``/fhir/metadata``, ``/oauth/token``, ``/oauth/jwks``.

[FHIR R4 http; SMART App Launch 2.2; CONTRACT, Ports and paths]

``gateway.app`` calls::

    smart = SmartServer(steps, secret, public_url)
    authenticators.register(BEARER, smart.authenticate)
    if settings.fhir.auth == "off":  # never in prod
        authenticators.register(OPEN, always(open_caller(steps)))
    wire = FhirWire(steps=steps, representer=representer, reads=Reads(store, trail), blobs=blobs, smart=smart,
                    limits=settings.limits)
    app.include_router(wire.router())        # reads.close() when the application ends

where ``representer`` is the very `Representer` that ``steps`` was given as ``represent``.

Promises: every answer, refusals too, is FHIR (the token endpoint: OAuth JSON); a fault of ours is a 500 with an
OperationOutcome and a log line without content; each answer has the form that its request asks for (`rendering`).
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

import structlog
from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from gateway.errors import Fault, GatewayError, NotFound, Unsupported
from gateway.exchange.blobs import BlobStore
from gateway.fhir import capability, outcome
from gateway.fhir.addresses import Addresses, is_name
from gateway.fhir.audit_events import AuditReads
from gateway.fhir.auth import CAPABILITIES, SmartServer, TokenRefused
from gateway.fhir.document import encode
from gateway.fhir.negotiation import MEDIA, NO_STORE, require_format
from gateway.fhir.read import FhirReads
from gateway.fhir.rendering import rendered
from gateway.fhir.represent import Representer
from gateway.fhir.routes_audit import AuditRoutes
from gateway.fhir.routes_read import ReadRoutes
from gateway.fhir.routes_write import WriteRoutes
from gateway.fhir.summary import form
from gateway.model.reads import Reads
from gateway.rcp.access import Caller
from gateway.rcp.ports import Letters
from gateway.rcp.report import Press
from gateway.rcp.step import Steps
from gateway.settings import Limits
from gateway.web.allowed import allow
from gateway.web.authenticators import BEARER, OPEN, Authenticator, caller_of
from gateway.web.body import Limit, body_under
from gateway.web.request_id import request_id

__all__ = ["FhirWire", "always"]

log = structlog.get_logger(__name__)

_PUBLIC = {"Cache-Control": "public, max-age=3600"}


def always(caller: Caller) -> Authenticator:
    """An authenticator under which everybody is one caller: `RCP_FHIR_AUTH=off`."""

    async def authenticate(request: Request) -> Caller:
        del request
        return caller

    return authenticate


class _FhirRoute(APIRoute):
    """Answers whatever a handler raises with an OperationOutcome, and everything in the form that was asked for.

    HEAD is answered wherever GET is: the server drops the body [FHIR R4 http#read]. What is no type or no id is not
    taken for one, so that an address is found by all of its methods or by none.
    """

    #: Methods that the wire answers to at the address of a request.
    answered: Callable[[Request], tuple[str, ...]]

    def __init__(self, path: str, endpoint: Callable[..., Any], **settings: Any) -> None:
        super().__init__(path, endpoint, **settings)
        if self.methods and "GET" in self.methods:
            self.methods.add("HEAD")

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        return (match, child) if match is Match.NONE or is_name(child["path_params"]) else (Match.NONE, {})

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner: Callable[[Request], Awaitable[Response]] = _thin(self) or super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                answer = await inner(request)
            except GatewayError as error:
                answer = _refusal(error)
                if answer.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
                    answer.headers["Allow"] = allow(self.answered(request), but=request.method)
            except Exception as error:  # noqa: BLE001 - the border of the wire: no exception leaves as a stack
                # Neither the words of the error nor the values of its frames: both may hold a patient.
                log.error("fhir-fault", kind=type(error).__name__, where=_where(error))  # noqa: TRY400 - see above
                answer = _refusal(error)
            try:
                return await rendered(request, answer)
            except Fault as error:
                log.error("fhir-form", kind=error.code)  # noqa: TRY400 - its frames hold a resource
                return _refusal(error)

        return handler


def _thin(route: APIRoute) -> Callable[[Request], Awaitable[Response]] | None:
    """Call a handler that asks for no more than its request, its path and its caller without the framework's solver.

    Solving the dependencies of a read costs more than finding the resource. What the application asks of every request
    (its own dependencies) is asked here too.
    """
    asked = inspect.signature(route.endpoint).parameters
    who = asked.get("who")
    if (
        not inspect.iscoroutinefunction(route.endpoint)
        or who is None
        or set(asked) - {"request", "who"} != set(route.param_convertors)
    ):
        return None
    identify: Callable[[Request], Awaitable[Caller]] = who.default.dependency

    async def handler(request: Request) -> Response:
        for demand in request.app.router.dependencies:
            await demand.dependency(request)
        answer: Response = await route.endpoint(request=request, who=await identify(request), **request.path_params)
        return answer

    return handler


def _where(error: BaseException) -> list[str]:
    """Last frames of a fault: file, line, function."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    return [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]


def _refusal(error: BaseException) -> Response:
    status, headers, content = outcome.answer(error)
    return Response(content, status, {**headers, **NO_STORE}, media_type=MEDIA)


class FhirWire:
    """The FHIR wire of one process; see the module for how it is put together."""

    def __init__(
        self,
        *,
        steps: Steps,
        representer: Representer,
        reads: Reads,
        blobs: BlobStore,
        smart: SmartServer,
        limits: Limits | None = None,
        update_create: bool = False,
        letters: Letters | None = None,
        press: Press | None = None,
    ) -> None:
        self._smart = smart
        self._limits = limits or Limits()
        base = smart.fhir_base
        answers = FhirReads(reads, blobs, base, self._limits, smart.page_key)
        self._trail = AuditRoutes(AuditReads(reads, base, self._limits))
        self._reading = ReadRoutes(answers)
        self._writing = WriteRoutes(
            steps,
            representer,
            base,
            self._limits,
            reads=answers,
            blobs=blobs,
            update_create=update_create,
            letters=letters,
            press=press,
        )
        self._update_create = update_create

    def router(self) -> APIRouter:
        """Make the routes."""
        body = Depends(body_under(Limit(Limits.variable("http_body_bytes"), self._limits.http_body_bytes)))
        caller = Depends(caller_of(BEARER, OPEN))

        class Route(_FhirRoute):
            answered = staticmethod(self.answered)

        router = APIRouter(route_class=Route)
        self._public_routes(router, body)
        self._trail.add(router, body, caller)
        self._reading.add(router, body, caller)
        self._writing.add(router, body, caller)

        routes = [route for route in router.routes if isinstance(route, APIRoute) and route.path.startswith("/fhir")]
        self._statement = capability.Statement(
            [(method, route.path) for route in routes for method in route.methods or ()],
            base_url=self._smart.fhir_base,
            token_url=self._smart.token_url,
            smart=CAPABILITIES,
            update_create=self._update_create,
        )
        scopes = [f"system/{offer.kind}.{offer.letters}" for offer in self._statement.offers]
        self._configuration = encode(self._smart.configuration(["system/*.rs", *scopes]))
        self._addresses = Addresses(routes, self._statement.offers)
        self._other_methods(router)
        return router

    def answered(self, request: Request) -> tuple[str, ...]:
        """Methods that do something at the address of a request; none where nothing is."""
        return self._addresses.methods(request.scope["path"], condition=bool(request.url.query))

    def _other_methods(self, router: APIRouter) -> None:
        """What no other route took, whatever its method."""

        @router.api_route("/fhir", methods=[], operation_id="fhir")
        @router.api_route("/fhir/{path:path}", methods=[], operation_id="fhir-path")
        def nothing(request: Request) -> Response:
            answered = self.answered(request)
            if not answered:
                raise NotFound("inconnu", "Ressource ou opération inconnue.")
            if request.method == "OPTIONS":
                return Response(None, 204, {"Allow": allow(answered)})
            raise Unsupported("method-not-offered", "Cette opération n’est pas offerte ici.")

    # What needs no proof

    def _public_routes(self, router: APIRouter, body: Any) -> None:
        @router.get("/fhir/metadata")
        def metadata(request: Request) -> Response:
            require_format(request)
            headers = {**_PUBLIC, "ETag": self._statement.etag}
            known = {tag.strip() for tag in request.headers.get("if-none-match", "").split(",")}
            if known & {self._statement.etag, "*"}:
                return Response(None, 304, headers)
            wanted = form(request.query_params.multi_items())
            part = wanted.cut("CapabilityStatement", self._statement.body)
            return Response(bytes(part), 200, headers, media_type=MEDIA)

        @router.get("/fhir/.well-known/smart-configuration")
        def configuration() -> Response:
            return Response(self._configuration, 200, _PUBLIC, media_type="application/json")

        @router.get("/oauth/jwks")
        def jwks() -> Response:
            return Response(encode(self._smart.jwks()), 200, media_type="application/json")

        @router.post("/oauth/token")
        def token(request: Request, content: bytes = body) -> Response:
            try:
                form = dict(parse_qsl(content.decode("utf-8"), keep_blank_values=True, max_num_fields=50))
                address = request.client.host if request.client else None
                granted = self._smart.token(form, address=address, request_id=request_id())
            except (UnicodeDecodeError, ValueError):
                return _oauth_error("invalid_request", "Corps illisible.", 400)
            except TokenRefused as refused:
                return _oauth_error(refused.error, refused.text, refused.status)
            return Response(encode(granted), 200, {**NO_STORE, "Pragma": "no-cache"}, media_type="application/json")


def _oauth_error(error: str, text: str, status: int) -> Response:
    headers = {**NO_STORE, "Pragma": "no-cache"}
    return Response(encode({"error": error, "error_description": text}), status, headers, media_type="application/json")
