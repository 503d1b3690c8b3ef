"""The HTTP routes of the FHIR wire: ``/fhir``, ``/fhir/metadata``, ``/oauth/token``, ``/oauth/jwks``.

[FHIR R4 http; SMART App Launch 2.2; CONTRACT, Ports and paths]

``gateway.app`` calls::

    smart = SmartServer(steps, secret, public_url)
    authenticators.register(BEARER, smart.authenticate)
    if settings.fhir.auth == "off":  # never in prod
        authenticators.register(OPEN, always(open_caller(steps)))
    wire = FhirWire(steps=steps, representer=representer, reads=Reads(store, trail), blobs=blobs, smart=smart,
                    limits=settings.limits)
    app.router.routes.append(wire.router())  # reads.close() when the application ends

where ``representer`` is the very `Representer` that ``steps`` was given as ``represent``.

Promises: every answer, refusals too, is FHIR (the token endpoint: OAuth JSON); a fault of ours is a 500 with an
OperationOutcome and a log line without content; each answer has the form that its request asks for (`rendering`).
"""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from urllib.parse import parse_qsl

import structlog
from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import Fault, GatewayError, NotFound, Unsupported
from gateway.exchange.blobs import BlobStore
from gateway.fhir import capability, outcome
from gateway.fhir.addresses import Addresses
from gateway.fhir.audit_events import AuditReads
from gateway.fhir.auth import CAPABILITIES, SmartServer, TokenRefused
from gateway.fhir.document import encode
from gateway.fhir.entry_reads import Offered
from gateway.fhir.negotiation import MEDIA, NO_STORE, require_format
from gateway.fhir.paging import Pages
from gateway.fhir.read import FhirReads
from gateway.fhir.rendering import rendered
from gateway.fhir.represent import Representer
from gateway.fhir.routes_audit import AuditRoutes
from gateway.fhir.routes_read import ReadRoutes
from gateway.fhir.routes_write import WriteRoutes
from gateway.fhir.routing import Router
from gateway.fhir.subscribers import Subscribing
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
        subscribing: Subscribing | None = None,
    ) -> None:
        self._smart = smart
        self._limits = limits or Limits()
        base = smart.fhir_base
        answers = FhirReads(reads, blobs, base, self._limits, smart.page_key)
        trail = AuditReads(reads, base, self._limits, Pages(smart.page_key, self._limits))
        self._trail = AuditRoutes(trail)
        self._reading = ReadRoutes(answers)
        self._writing = WriteRoutes(
            steps,
            representer,
            base,
            self._limits,
            offered=Offered(answers, trail, blobs, lambda: (self._statement.etag, self._statement.body)),
            update_create=update_create,
            letters=letters,
            press=press,
            subscribing=subscribing,
        )
        self._update_create = update_create

    def router(self) -> Router:
        """Make the routes."""
        router = Router(
            ("fhir", "oauth"),
            caller=caller_of(BEARER, OPEN),
            body=body_under(Limit(Limits.variable("http_body_bytes"), self._limits.http_body_bytes)),
            around=self._around,
            otherwise=self._otherwise,
        )
        self._public_routes(router)
        self._trail.add(router)
        self._reading.add(router)
        self._writing.add(router)
        routes = [route for route in router.routes if route.path.startswith("/fhir")]
        self._statement = capability.Statement(
            [(method, route.path) for route in routes for method in route.methods],
            base_url=self._smart.fhir_base,
            token_url=self._smart.token_url,
            smart=CAPABILITIES,
            update_create=self._update_create,
        )
        scopes = [f"system/{offer.kind}.{offer.letters}" for offer in self._statement.offers]
        self._configuration = encode(self._smart.configuration(["system/*.rs", *scopes]))
        self._addresses = Addresses(router, self._statement.offers)
        return router

    def _around(self, inner: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """Answer whatever an endpoint raises with an OperationOutcome, and everything in the form asked for."""

        async def handler(request: Request) -> Response:
            try:
                for demand in request.app.router.dependencies:  # what the application asks of every request
                    await demand.dependency(request)
                answer = await inner(request)
            except GatewayError as error:
                answer = _refusal(error)
                if answer.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
                    answer.headers["Allow"] = allow(self._answered(request), but=request.method)
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

    def _answered(self, request: Request) -> tuple[str, ...]:
        """Methods that do something at the address of a request; none where nothing is."""
        return self._addresses.methods(request.scope["path"], condition=bool(request.url.query))

    async def _otherwise(self, request: Request) -> Response:
        """What no route took, whatever its method."""
        answered = self._answered(request)
        if not answered:
            raise NotFound("inconnu", "Ressource ou opération inconnue.")
        if request.method == "OPTIONS":
            return Response(None, 204, {"Allow": allow(answered)})
        raise Unsupported("method-not-offered", "Cette opération n’est pas offerte ici.")

    # What needs no proof

    def _public_routes(self, router: Router) -> None:
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
        def token(request: Request, content: bytes) -> Response:
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
