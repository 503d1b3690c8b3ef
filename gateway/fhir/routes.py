"""The HTTP routes of the FHIR wire: ``/fhir``, ``/fhir/metadata``, ``/oauth/token``, ``/oauth/jwks``.

[FHIR R4 http; SMART App Launch 2.2; CONTRACT, Ports and paths]

``gateway.app`` calls::

    smart = SmartServer(steps, secret, public_url)
    authenticators.register(BEARER, in_thread(smart.authenticate))
    if settings.fhir.auth == "off":  # never in prod
        authenticators.register(OPEN, always(open_caller(steps)))
    wire = FhirWire(steps=steps, representer=representer, reads=Reads(store, trail), blobs=blobs, smart=smart,
                    limits=settings.limits)
    app.include_router(wire.router())        # reads.close() when the application ends

where ``representer`` is the very `Representer` that ``steps`` was given as ``represent``.

Promises: every answer, refusals too, is FHIR JSON (the token endpoint: OAuth JSON); a fault of ours is a 500 with an
OperationOutcome and a log line without content; ``application/fhir+xml`` is refused by name (406, 415).
"""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qsl

import structlog
from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import GatewayError, InvalidContent, NotFound, Unsupported
from gateway.exchange.blobs import BlobStore
from gateway.fhir import capability, document, outcome, validate
from gateway.fhir.auth import SmartServer, TokenRefused
from gateway.fhir.bundle import read_transaction
from gateway.fhir.document import Tree, encode
from gateway.fhir.read import READABLE, FhirReads
from gateway.fhir.represent import Representer
from gateway.fhir.search import COUNT_DEFAULT, COUNT_MAX
from gateway.fhir.write import apply
from gateway.fhir.writing import WRITABLE, Done, Operation, Writing
from gateway.model.reads import Reads
from gateway.rcp.access import Caller
from gateway.rcp.step import Step, Steps
from gateway.settings import Limits
from gateway.web.authenticators import BEARER, OPEN, Authenticator, caller_of
from gateway.web.body import Limit, body_under
from gateway.web.request_id import request_id

__all__ = ["FhirWire", "always"]

log = structlog.get_logger(__name__)

FHIR_JSON = "application/fhir+json"
_MEDIA = f"{FHIR_JSON}; charset=utf-8; fhirVersion=4.0"
_JSON_TYPES = frozenset(
    {FHIR_JSON, "application/json", "application/json+fhir", "json", "text/json", "*/*", "application/*"}
)
_NO_STORE = {"Cache-Control": "no-store"}
_PUBLIC = {"Cache-Control": "public, max-age=3600"}
_PRIVATE = {"Cache-Control": "private, no-cache"}


def always(caller: Caller) -> Authenticator:
    """An authenticator under which everybody is one caller: `RCP_FHIR_AUTH=off`."""

    async def authenticate(request: Request) -> Caller:
        del request
        return caller

    return authenticate


class _FhirRoute(APIRoute):
    """Answers whatever a handler raises with an OperationOutcome."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner: Callable[[Request], Awaitable[Response]] = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await inner(request)
            except GatewayError as error:
                return _refusal(error)
            except Exception as error:  # noqa: BLE001 - the border of the wire: no exception leaves as a stack
                # Neither the words of the error nor the values of its frames: both may hold a patient.
                log.error("fhir-fault", kind=type(error).__name__, where=_where(error))  # noqa: TRY400 - see above
                return _refusal(error)

        return handler


def _where(error: BaseException) -> list[str]:
    """Last frames of a fault: file, line, function."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    return [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]


def _refusal(error: BaseException) -> Response:
    status, headers, content = outcome.answer(error)
    return Response(content, status, {**headers, **_NO_STORE}, media_type=_MEDIA)


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
    ) -> None:
        self._steps = steps
        self._representer = representer
        self._smart = smart
        self._base = smart.fhir_base
        self._reads = FhirReads(reads, blobs, self._base)
        self._limits = limits or Limits()
        self._statement = capability.statement(self._base, smart.token_url)
        self._configuration = encode(smart.configuration(WRITABLE))
        self._tree_limits = document.Limits(
            body_bytes=self._limits.http_body_bytes,
            depth=self._limits.json_depth,
            entries=self._limits.bundle_entries,
        )

    def router(self) -> APIRouter:
        """Make the routes."""
        body = Depends(body_under(Limit("http_body_bytes", self._limits.http_body_bytes)))
        caller = Depends(caller_of(BEARER, OPEN))
        router = APIRouter(route_class=_FhirRoute)
        self._public_routes(router, body)
        self._read_routes(router, body, caller)
        self._write_routes(router, body, caller)

        @router.api_route("/fhir/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"])
        def nothing(path: str, request: Request) -> Response:
            if request.method in {"PATCH", "DELETE"}:
                text = "Opération non offerte ; pour retirer une ressource, utilisez le statut « entered-in-error »."
                raise Unsupported("operation-non-offerte", text)
            del path
            raise NotFound("inconnu", "Ressource ou opération inconnue.")

        return router

    # What needs no proof

    def _public_routes(self, router: APIRouter, body: Any) -> None:
        @router.get("/fhir/metadata")
        def metadata(request: Request) -> Response:
            _require_json(request)
            return Response(self._statement, 200, _PUBLIC, media_type=_MEDIA)

        @router.get("/fhir/.well-known/smart-configuration")
        def configuration() -> Response:
            return Response(
                self._configuration, 200, {"Cache-Control": "public, max-age=3600"}, media_type="application/json"
            )

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
            return Response(encode(granted), 200, {**_NO_STORE, "Pragma": "no-cache"}, media_type="application/json")

    # Reading

    def _read_routes(self, router: APIRouter, body: Any, caller: Any) -> None:  # noqa: C901 - one function a route
        @router.get("/fhir/{kind}/{identity}")
        async def read(request: Request, kind: str, identity: str, who: Caller = caller) -> Response:
            _require_type(kind)
            if kind == "Binary" and not _asks_fhir(request):
                return await self._raw(request, who, identity)
            _require_json(request)
            found = await self._reads.read(_here(who, request), kind, identity)
            etag = f'W/"{found.version}"'
            headers = {
                "ETag": etag,
                "Last-Modified": _http_date(found.updated_at),
                "Cache-Control": "private, no-cache",
            }
            if etag in request.headers.get("if-none-match", ""):
                return Response(None, 304, headers)
            return Response(found.body, 200, headers, media_type=_MEDIA)

        @router.get("/fhir/{kind}/{identity}/_history")
        async def history(request: Request, kind: str, identity: str, who: Caller = caller) -> Response:
            _require_type(kind)
            _require_json(request)
            count = _number(request, "_count", COUNT_DEFAULT)
            before = _number(request, "_before", 0) or None
            found = await self._reads.history(
                _here(who, request), kind, identity, count=max(1, min(count, COUNT_MAX)), before=before
            )
            return Response(found, 200, _NO_STORE, media_type=_MEDIA)

        @router.get("/fhir/{kind}/{identity}/_history/{version}")
        async def vread(request: Request, kind: str, identity: str, version: str, who: Caller = caller) -> Response:
            _require_type(kind)
            _require_json(request)
            if not version.isdecimal() or len(version) > 9:
                raise NotFound("inconnu", "Ressource inconnue.")
            found = await self._reads.read(_here(who, request), kind, identity, int(version))
            headers = {"ETag": f'W/"{found.version}"', "Last-Modified": _http_date(found.updated_at), **_NO_STORE}
            return Response(found.body, 200, headers, media_type=_MEDIA)

        @router.get("/fhir/{kind}")
        async def search(request: Request, kind: str, who: Caller = caller) -> Response:
            return await self._search(request, kind, who, list(request.query_params.multi_items()))

        @router.post("/fhir/{kind}/_search")
        async def search_by_post(request: Request, kind: str, who: Caller = caller, content: bytes = body) -> Response:
            declared = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if declared != "application/x-www-form-urlencoded":
                text = "Une recherche par POST s’écrit en application/x-www-form-urlencoded."
                raise Unsupported("type-de-contenu", text)
            try:
                pairs = parse_qsl(content.decode("utf-8"), keep_blank_values=True, max_num_fields=200)
            except ValueError:
                raise InvalidContent("parametre-valeur", "Paramètres de recherche illisibles.") from None
            return await self._search(request, kind, who, [*request.query_params.multi_items(), *pairs])

    async def _search(self, request: Request, kind: str, who: Caller, pairs: list[tuple[str, str]]) -> Response:
        _require_type(kind)
        _require_json(request)
        if kind == "Binary":
            raise Unsupported("recherche-non-offerte", "Le type Binary n’a pas de recherche.")
        strict = "handling=strict" in request.headers.get("prefer", "")
        found = await self._reads.search(_here(who, request), kind, pairs, strict=strict)
        return Response(found, 200, _NO_STORE, media_type=_MEDIA)

    async def _raw(self, request: Request, who: Caller, identity: str) -> Response:
        raw = await self._reads.raw(_here(who, request), identity)
        headers = {
            "ETag": f'W/"{raw.version}"',
            "Last-Modified": _http_date(raw.updated_at),
            **_PRIVATE,
            "X-Content-Type-Options": "nosniff",
            "Content-Disposition": "attachment",
        }
        return Response(raw.content, 200, headers, media_type=raw.content_type)

    # Writing

    def _write_routes(self, router: APIRouter, body: Any, caller: Any) -> None:
        @router.post("/fhir")
        @router.post("/fhir/")
        def transaction(request: Request, who: Caller = caller, content: bytes = body) -> Response:
            _require_json(request)
            read = read_transaction(self._parse(request, content), max_entries=self._limits.bundle_entries)
            done = self._steps.run(_here(who, request), lambda step: read.run(step, self._representer, self._base))
            whole = _prefers(request) == "representation"
            return Response(read.answer(done, self._base, with_resources=whole), 200, _NO_STORE, media_type=_MEDIA)

        @router.post("/fhir/{kind}/$validate")
        def check(request: Request, kind: str, who: Caller = caller, content: bytes = body) -> Response:
            del who
            _require_type(kind)
            tree = self._parse(request, content)
            if tree["resourceType"] == "Parameters":
                parameters = tree.get("parameter")
                listed = parameters if isinstance(parameters, list) else []
                given = (
                    one.get("resource") for one in listed if isinstance(one, dict) and one.get("name") == "resource"
                )
                tree = next((one for one in given if isinstance(one, dict)), tree)
            return Response(_judgement(tree), 200, _NO_STORE, media_type=_MEDIA)

        @router.post("/fhir/{kind}")
        def create(request: Request, kind: str, who: Caller = caller, content: bytes = body) -> Response:
            condition = request.headers.get("if-none-exist")
            query = condition.rpartition("?")[2] if condition else None
            return self._write(request, who, content, Operation("POST", kind, {}, query=query))

        @router.put("/fhir/{kind}/{identity}")
        def update(request: Request, kind: str, identity: str, who: Caller = caller, content: bytes = body) -> Response:
            return self._write(request, who, content, Operation("PUT", kind, {}, identity=identity))

        @router.put("/fhir/{kind}")
        def update_by_condition(request: Request, kind: str, who: Caller = caller, content: bytes = body) -> Response:
            if not request.url.query:
                text = "Une mise à jour s’adresse à un identifiant ou à une condition."
                raise InvalidContent("condition-vide", text)
            return self._write(request, who, content, Operation("PUT", kind, {}, query=request.url.query))

    def _parse(self, request: Request, content: bytes) -> Tree:
        declared = request.headers.get("content-type", FHIR_JSON).partition(";")[0].strip().lower()
        if declared not in _JSON_TYPES:
            raise Unsupported("type-de-contenu", "Le corps doit être en application/fhir+json.")
        return document.parse(content, self._tree_limits)

    def _write(self, request: Request, who: Caller, content: bytes, operation: Operation) -> Response:
        _require_type(operation.kind)
        _require_json(request)
        tree = self._parse(request, content)
        if tree["resourceType"] != operation.kind:
            text = "Le type de la ressource n’est pas celui de l’adresse."
            raise InvalidContent("type-different", text, expression=f"{tree['resourceType']}"[:64])
        validate.accept(tree)
        operation.if_match = request.headers.get("if-match")
        operation.if_none_match = request.headers.get("if-none-match")

        def verb(step: Step) -> Done:
            writing = Writing(step, self._representer, self._base)
            # The verb may run again after a clash with another writer: it works on a copy of what was asked.
            again = Operation(
                operation.method,
                operation.kind,
                document.parse(content, self._tree_limits),
                query=operation.query,
                identity=operation.identity,
                if_match=operation.if_match,
                if_none_match=operation.if_none_match,
            )
            writing.locate(again)
            apply(writing, again)
            writing.finish()
            return writing.done(again)

        done = self._steps.run(_here(who, request), verb)
        return self._written(request, done)

    def _written(self, request: Request, done: Done) -> Response:
        headers = {
            "ETag": f'W/"{done.version}"',
            "Last-Modified": _http_date(done.updated_at),
            "Location": f"{self._base}/{done.kind}/{done.id}/_history/{done.version}",
            **_NO_STORE,
        }
        wish = _prefers(request)
        if wish == "minimal":
            return Response(None, done.status, headers)
        if wish == "OperationOutcome":
            said = {"severity": "information", "code": "informational", "details": {"text": "Ressource enregistrée."}}
            return Response(outcome.body([said]), done.status, headers, media_type=_MEDIA)
        return Response(done.body, done.status, headers, media_type=_MEDIA)


def _oauth_error(error: str, text: str, status: int) -> Response:
    headers = {**_NO_STORE, "Pragma": "no-cache"}
    return Response(encode({"error": error, "error_description": text}), status, headers, media_type="application/json")


def _judgement(tree: Tree) -> bytes:
    found = validate.judge(tree)
    if not found:
        said = {"severity": "information", "code": "informational", "details": {"text": "Aucun défaut trouvé."}}
        return outcome.body([said])
    return outcome.answer(outcome.InvalidResource(found))[2]


def _require_type(kind: str) -> None:
    if kind not in READABLE:
        raise NotFound("type-inconnu", "Type de ressource inconnu ou non offert par la passerelle.")


def _here(caller: Caller, request: Request) -> Caller:
    return caller.on("fhir", address=request.client.host if request.client else None, request_id=request_id())


def _accepted(request: Request) -> list[str]:
    asked = request.query_params.get("_format") or request.headers.get("accept") or "*/*"
    # A plus sign that was not escaped in a query arrives as a space.
    return [part.partition(";")[0].strip().lower().replace("fhir json", "fhir+json") for part in asked.split(",")]


def _require_json(request: Request) -> None:
    if not _JSON_TYPES & set(_accepted(request)):
        raise Unsupported("format-refuse", "Seul le format application/fhir+json est offert.")


def _asks_fhir(request: Request) -> bool:
    """Whether a Binary is wanted as a resource: its bytes go to whoever does not ask for FHIR [FHIR R4 binary#rest]."""
    return bool({FHIR_JSON, "json", "application/json+fhir"} & set(_accepted(request)))


def _prefers(request: Request) -> str:
    for part in request.headers.get("prefer", "").replace(";", ",").split(","):
        name, _, value = part.strip().partition("=")
        if name == "return":
            return value
    return "representation" if request.url.path.rstrip("/") != "/fhir" else "minimal"


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, "")
    if text and (not text.isdecimal() or len(text) > 9):
        raise InvalidContent("parametre-valeur", f"Valeur invalide pour le paramètre « {name} ».")
    return int(text) if text else default


def _http_date(moment: datetime) -> str:
    return format_datetime(moment.astimezone(UTC), usegmt=True)
