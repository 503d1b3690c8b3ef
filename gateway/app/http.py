"""Puts the HTTP wires together: portal, sign-in, FHIR, DICOMweb, health and metrics on one port.

Promises: every wire gets its parts by name; every scheme of authentication is registered once; an error that no wire
caught is a page, an OperationOutcome or plain text by the path it came from, never a stack.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus

import structlog
from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from sqlalchemy import text
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.app.dicom_wire import dicom_wire
from gateway.app.gateway import Gateway
from gateway.app.subscribing import subscribing
from gateway.dicom import dicomweb
from gateway.dicom.drawing import Drawing
from gateway.dicom.kept_objects import KeptObjects
from gateway.dicom.query import Images
from gateway.dicom.together import GroupKeeper
from gateway.errors import Fault, GatewayError, InvalidContent, NotFound, Unavailable, Unsupported
from gateway.fhir import outcome as fhir_outcome
from gateway.fhir.attached_files import AttachedFiles
from gateway.fhir.auth import SmartServer, open_caller
from gateway.fhir.routes import FhirWire, always
from gateway.fhir.routing import Router
from gateway.fhir.topics import publish
from gateway.model.reads import Reads
from gateway.portal import ohif_routes
from gateway.portal import routes as portal_routes
from gateway.portal.pages import Portal
from gateway.portal.sign_in_pages import SignInPages
from gateway.psc.oidc import PscClient
from gateway.psc.sessions import Sessions
from gateway.psc.sign_in import SignIn
from gateway.rcp.access import SYSTEM, Caller
from gateway.settings import Limits
from gateway.web.allowed import allow, answered
from gateway.web.authenticators import BEARER, OPEN, SESSION, Authenticator, Authenticators, in_thread
from gateway.web.csrf import Csrf
from gateway.web.headers import SecurityHeadersMiddleware
from gateway.web.health import Check, health_router
from gateway.web.metrics import metrics_router
from gateway.web.proxy import TrustedProxyMiddleware, networks
from gateway.web.rate import Rate, RateLimiter, rate_by_address
from gateway.web.request_id import RequestIdMiddleware
from gateway.web.sealed import Seal

__all__ = ["Application", "application", "portal_sessions"]

log = structlog.get_logger(__name__)

_LIVE_WORKERS = text("SELECT count(*) FROM procrastinate_workers WHERE last_heartbeat > now() - interval '60 seconds'")


class Application(FastAPI):
    """The framework's application, beside wires that it would only slow down.

    The framework surrounds whatever it answers with six layers and compares paths with one route after another: more
    than a read by id costs. What `wires` take does not pass them. What surrounds everything surrounds both.

    Attributes
    ----------
    wires
        What is answered beside the framework, and
    surrounded
        the whole; `None` until `surround` has put it together.
    """

    wires: Sequence[Router] = ()
    surrounded: ASGIApp | None = None

    def surround(self, wires: Sequence[Router], *layers: Middleware) -> None:
        """Put wires beside the framework, and layers around all, the outermost first."""
        framework = super().__call__
        self.wires = wires

        async def beside(scope: Scope, receive: Receive, send: Send) -> None:
            ours = next((wire.handle for wire in wires if wire.matches(scope)[0] is Match.FULL), framework)
            await ours(scope, receive, send)

        self.surrounded = beside
        for layer, given, named in reversed(layers):
            self.surrounded = layer(self.surrounded, *given, **named)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or self.surrounded is None:
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self
        await self.surrounded(scope, receive, send)


def application(gateway: Gateway) -> Application:
    """The ASGI application of one process."""
    settings = gateway.settings
    reads = Reads(gateway.store, gateway.trail)
    drawing = Drawing()
    images = Images(reads)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        drawing.close()
        await images.opened.close()
        await reads.close()

    limited = rate_by_address(
        RateLimiter(Rate(Limits.variable("requests_per_minute"), settings.limits.requests_per_minute))
    )
    app = Application(
        title="RCP gateway",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        dependencies=[Depends(limited)],
    )
    app.state.authenticators = authenticators = Authenticators()

    csrf = Csrf(Seal(gateway.secret, "csrf"), settings.public_url)
    keeper = GroupKeeper(gateway.steps, gateway.blobs, tolerant=settings.dicom.duplicates == "warn")
    portal = Portal(
        steps=gateway.steps,
        blobs=gateway.blobs,
        csrf=csrf,
        letters=gateway.mail.letters if gateway.mail else None,
        press=gateway.mail.press if gateway.mail else None,
        objects=KeptObjects(gateway.blobs, keeper),
        brought=AttachedFiles(gateway.blobs),
        limits=settings.limits,
        fictitious=settings.clock is not None,
    )
    client = (
        PscClient(settings.psc, f"{settings.public_url}/psc/retour") if settings.psc.discovery_url is not None else None
    )
    sign_in = SignIn(
        client=client,
        client_id=settings.psc.client_id or "",
        sessions=portal_sessions(gateway),
        csrf=csrf,
        pages=SignInPages(portal.chrome),
        public_url=settings.public_url,
    )
    authenticators.register(SESSION, _with_cookie(in_thread(sign_in.authenticate)))

    app.include_router(health_router(_checks(gateway)))
    app.include_router(metrics_router())
    app.include_router(sign_in.router())
    images_wire = dicom_wire(
        dicomweb.router(
            images,
            gateway.blobs,
            base_url=f"{settings.public_url}/dicom-web",
            drawing=drawing,
            keeper=keeper,
            limits=settings.limits,
        ),
        settings.dicomweb_origins,
    )
    app.include_router(portal_routes.router(portal))
    app.include_router(ohif_routes.router(settings.data_dir))
    _answer_errors(app, portal)

    https = settings.public_url.startswith("https://")
    targets = client.form_targets() if client is not None else ()
    app.surround(
        (_fhir(gateway, authenticators, reads).router(), images_wire),
        Middleware(TrustedProxyMiddleware, trusted=networks(settings.trusted_proxies)),
        Middleware(RequestIdMiddleware),
        Middleware(SecurityHeadersMiddleware, form_targets=targets, https=https),
    )
    return app


def _with_cookie(authenticate: Authenticator) -> Authenticator:
    """Ask nothing, and enter no thread, for a request that holds no cookie at all."""

    async def authenticator(request: Request) -> Caller | None:
        return await authenticate(request) if "cookie" in request.headers else None

    return authenticator


def portal_sessions(gateway: Gateway) -> Sessions:
    """The portal's sessions; the worker ends those that nobody asks for any more."""
    return Sessions(gateway.steps, Seal(gateway.secret, "psc-id-token"))


def _fhir(gateway: Gateway, authenticators: Authenticators, reads: Reads) -> FhirWire:
    """The FHIR wire and its authorization server."""
    settings = gateway.settings
    smart = SmartServer(gateway.steps, gateway.secret, settings.public_url)
    authenticators.register(BEARER, smart.authenticate)
    if settings.fhir.auth == "off":
        authenticators.register(OPEN, always(open_caller(gateway.steps)))
    gateway.steps.run(SYSTEM, publish)
    return FhirWire(
        steps=gateway.steps,
        representer=gateway.representer,
        reads=reads,
        blobs=gateway.blobs,
        smart=smart,
        limits=settings.limits,
        update_create=settings.fhir.update_create,
        letters=gateway.mail.letters if gateway.mail else None,
        press=gateway.mail.press if gateway.mail else None,
        subscribing=subscribing(gateway),
    )


def _checks(gateway: Gateway) -> dict[str, Check]:
    def worker() -> None:
        with gateway.store.engine.connect() as connection:
            alive = connection.scalar(_LIVE_WORKERS)
        if not alive:
            raise Unavailable("worker", "Le travail de fond ne répond pas.")

    return {"database": gateway.store.ping, "blobs": gateway.blobs.check, "worker": worker}


#: What the framework itself refuses, in our own terms.
_FRAMEWORK: dict[int, GatewayError] = {
    404: NotFound("inconnu", "Ressource inconnue."),
    405: Unsupported("method-not-offered", "Cette opération n’est pas offerte ici."),
}


def _answer_errors(app: FastAPI, portal: Portal) -> None:
    """Answer what no wire caught: FHIR paths by an OperationOutcome, everything else by a page."""

    def answer(request: Request, error: GatewayError) -> Response:
        if request.url.path.startswith(("/fhir", "/oauth")):
            status, headers, body = fhir_outcome.answer(error)
            return Response(body, status, headers, media_type="application/fhir+json; charset=utf-8")
        return portal.refused(request, error)

    def refused(request: Request, error: Exception) -> Response:
        if not isinstance(error, GatewayError):
            raise error
        return answer(request, error)

    def framework(request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 0)
        methods = answered(request, app.router.routes) if status == HTTPStatus.METHOD_NOT_ALLOWED else ()
        if methods and request.method == "OPTIONS":
            return Response(None, 204, {"Allow": allow(methods)})
        refusal = answer(request, _FRAMEWORK.get(status) or InvalidContent("demande", "Demande illisible."))
        if methods:
            refusal.headers["Allow"] = allow(methods)
        return refusal

    def unforeseen(request: Request, error: Exception) -> Response:
        log.error("unforeseen", error=type(error).__name__, exc_info=error)
        return answer(request, Fault("erreur-interne", "Erreur interne."))

    app.add_exception_handler(GatewayError, refused)
    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(RequestValidationError, framework)
    app.add_exception_handler(Exception, unforeseen)
