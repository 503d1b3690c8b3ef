"""The routes that read: one resource, its versions, a search [FHIR R4 http#read, #vread, #history, #search]."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import InvalidContent, NotFound, Unsupported
from gateway.fhir.negotiation import (
    MEDIA,
    NO_STORE,
    PRIVATE,
    asks_fhir,
    here,
    http_date,
    number,
    require_json,
    require_type,
)
from gateway.fhir.read import FhirReads
from gateway.fhir.search import COUNT_DEFAULT, COUNT_MAX
from gateway.rcp.access import Caller

__all__ = ["ReadRoutes"]


class ReadRoutes:
    """Routes over one process's reads."""

    def __init__(self, reads: FhirReads) -> None:
        self._reads = reads

    def add(self, router: APIRouter, body: Any, caller: Any) -> None:  # noqa: C901 - one function a route
        """Add them; ``body`` gives the raw bytes, ``caller`` whoever comes in."""

        @router.get("/fhir/{kind}/{identity}")
        async def read(request: Request, kind: str, identity: str, who: Caller = caller) -> Response:
            require_type(kind)
            if kind == "Binary" and not asks_fhir(request):
                return await self._raw(request, who, identity)
            require_json(request)
            found = await self._reads.read(here(who, request), kind, identity)
            etag = f'W/"{found.version}"'
            headers = {
                "ETag": etag,
                "Last-Modified": http_date(found.updated_at),
                "Cache-Control": "private, no-cache",
            }
            if etag in request.headers.get("if-none-match", ""):
                return Response(None, 304, headers)
            return Response(found.body, 200, headers, media_type=MEDIA)

        @router.get("/fhir/{kind}/{identity}/_history")
        async def history(request: Request, kind: str, identity: str, who: Caller = caller) -> Response:
            require_type(kind)
            require_json(request)
            count = number(request, "_count", COUNT_DEFAULT)
            before = number(request, "_before", 0) or None
            found = await self._reads.history(
                here(who, request), kind, identity, count=max(1, min(count, COUNT_MAX)), before=before
            )
            return Response(found, 200, NO_STORE, media_type=MEDIA)

        @router.get("/fhir/{kind}/{identity}/_history/{version}")
        async def vread(request: Request, kind: str, identity: str, version: str, who: Caller = caller) -> Response:
            require_type(kind)
            require_json(request)
            if not version.isdecimal() or len(version) > 9:
                raise NotFound("inconnu", "Ressource inconnue.")
            found = await self._reads.read(here(who, request), kind, identity, int(version))
            headers = {"ETag": f'W/"{found.version}"', "Last-Modified": http_date(found.updated_at), **NO_STORE}
            return Response(found.body, 200, headers, media_type=MEDIA)

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
        require_type(kind)
        require_json(request)
        if kind == "Binary":
            raise Unsupported("recherche-non-offerte", "Le type Binary n’a pas de recherche.")
        strict = "handling=strict" in request.headers.get("prefer", "")
        found = await self._reads.search(here(who, request), kind, pairs, strict=strict)
        return Response(found, 200, NO_STORE, media_type=MEDIA)

    async def _raw(self, request: Request, who: Caller, identity: str) -> Response:
        raw = await self._reads.raw(here(who, request), identity)
        headers = {
            "ETag": f'W/"{raw.version}"',
            "Last-Modified": http_date(raw.updated_at),
            **PRIVATE,
            "X-Content-Type-Options": "nosniff",
            "Content-Disposition": "attachment",
        }
        return Response(raw.content, 200, headers, media_type=raw.content_type)
