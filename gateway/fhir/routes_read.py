"""The routes that read: one resource, its versions, those of a type, a search, a document.

[FHIR R4 http#read, #cread, #vread, #history, #search, composition-operation-document]
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import NotFound
from gateway.fhir import subscription_reads
from gateway.fhir.negotiation import (
    MEDIA,
    NO_STORE,
    PRIVATE,
    asks_fhir,
    form_pairs,
    here,
    http_date,
    require_format,
    require_type,
    strict,
    tree_of,
)
from gateway.fhir.read import FhirReads
from gateway.fhir.routing import Endpoint, Router
from gateway.fhir.summary import WHOLE, Form, form
from gateway.rcp.access import Caller

__all__ = ["ReadRoutes", "unchanged"]

#: What answers an operation for a caller, an id and its parameters.
_Asked = Callable[[Caller, str, Sequence[tuple[str, str]]], Awaitable[bytes]]

_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(?:; ?[A-Za-z0-9_-]+=[A-Za-z0-9_.:\"+/-]+)*")


class ReadRoutes:
    """Routes over one process's reads."""

    def __init__(self, reads: FhirReads) -> None:
        self._reads = reads

    def add(self, router: Router) -> None:
        """Add them."""
        self._add_searches(router)
        self._add_histories(router)
        self._add_subscriptions(router)

        @router.get("/fhir/Composition/{identity}/$document")
        async def document(request: Request, identity: str, who: Caller) -> Response:
            require_format(request)
            found = await self._reads.document(here(who, request), identity, request.query_params.multi_items())
            return Response(found.body, 200, NO_STORE, media_type=MEDIA)

        @router.get("/fhir/{kind}/{identity}")
        async def read(request: Request, kind: str, identity: str, who: Caller) -> Response:
            require_type(kind)
            if kind == "Binary" and not asks_fhir(request):
                return await self._raw(request, who, identity)
            require_format(request)
            found = await self._reads.read(here(who, request), kind, identity, form=_form(request))
            headers = {"ETag": f'W/"{found.version}"', "Last-Modified": http_date(found.updated_at), **PRIVATE}
            if unchanged(request.headers, found.version, found.updated_at):
                return Response(None, 304, headers)
            return Response(found.body, 200, headers, media_type=MEDIA)

    def _add_subscriptions(self, router: Router) -> None:
        """Add what a subscriber asks, by GET, and by POST as every operation [FHIR R4 operations#executing]."""
        for name, asked in (("$status", self._reads.subscription_status), ("$events", self._reads.subscription_events)):
            by_get, by_post = self._operation(asked)
            router.get(f"/fhir/Subscription/{{identity}}/{name}")(by_get)
            router.post(f"/fhir/Subscription/{{identity}}/{name}")(by_post)

    def _operation(self, asked: _Asked) -> tuple[Endpoint, Endpoint]:
        async def answered(request: Request, identity: str, who: Caller, said: list[tuple[str, str]]) -> Response:
            require_format(request)
            found = await asked(here(who, request), identity, [*request.query_params.multi_items(), *said])
            return Response(found, 200, NO_STORE, media_type=MEDIA)

        async def by_get(request: Request, identity: str, who: Caller) -> Response:
            return await answered(request, identity, who, [])

        async def by_post(request: Request, identity: str, who: Caller, content: bytes) -> Response:
            tree = tree_of(request, content, self._reads.limits) if content else None
            return await answered(request, identity, who, subscription_reads.parameters(tree))

        return by_get, by_post

    def _add_histories(self, router: Router) -> None:
        @router.get("/fhir/{kind}/_history")
        async def history_of_type(request: Request, kind: str, who: Caller) -> Response:
            return await self._history(request, kind, None, who)

        @router.get("/fhir/{kind}/{identity}/_history")
        async def history(request: Request, kind: str, identity: str, who: Caller) -> Response:
            return await self._history(request, kind, identity, who)

        @router.get("/fhir/{kind}/{identity}/_history/{version}")
        async def vread(request: Request, kind: str, identity: str, version: str, who: Caller) -> Response:
            require_type(kind)
            require_format(request)
            if not (version.isascii() and version.isdecimal()) or len(version) > 9:
                raise NotFound("inconnu", "Ressource inconnue.")
            found = await self._reads.read(here(who, request), kind, identity, int(version), form=_form(request))
            headers = {"ETag": f'W/"{found.version}"', "Last-Modified": http_date(found.updated_at), **NO_STORE}
            if unchanged(request.headers, found.version, found.updated_at):
                return Response(None, 304, headers)
            return Response(found.body, 200, headers, media_type=MEDIA)

    def _add_searches(self, router: Router) -> None:
        @router.get("/fhir/{kind}")
        async def search(request: Request, kind: str, who: Caller) -> Response:
            return await self._search(request, kind, who, request.query_params.multi_items())

        @router.post("/fhir/{kind}/_search")
        async def search_by_post(request: Request, kind: str, who: Caller, content: bytes) -> Response:
            return await self._search(request, kind, who, form_pairs(request, content), posted=True)

    async def _search(
        self, request: Request, kind: str, who: Caller, pairs: list[tuple[str, str]], *, posted: bool = False
    ) -> Response:
        require_type(kind)
        require_format(request)
        found = await self._reads.search(here(who, request), kind, pairs, strict=strict(request), posted=posted)
        return Response(found, 200, NO_STORE, media_type=MEDIA)

    async def _history(self, request: Request, kind: str, identity: str | None, who: Caller) -> Response:
        require_type(kind)
        require_format(request)
        pairs = request.query_params.multi_items()
        found = await self._reads.history(here(who, request), kind, identity, pairs, strict=strict(request))
        return Response(found, 200, NO_STORE, media_type=MEDIA)

    async def _raw(self, request: Request, who: Caller, identity: str) -> Response:
        raw = await self._reads.raw(here(who, request), identity)
        headers = {
            # As its sender said it, if a header can say it; the framework would add a charset of its own.
            "Content-Type": raw.content_type if _MEDIA_TYPE.fullmatch(raw.content_type) else "application/octet-stream",
            "ETag": f'W/"{raw.version}"',
            "Last-Modified": http_date(raw.updated_at),
            **PRIVATE,
            "X-Content-Type-Options": "nosniff",
            "Content-Disposition": "attachment",
        }
        if unchanged(request.headers, raw.version, raw.updated_at):
            return Response(None, 304, headers)
        return Response(raw.content, 200, headers)


def _form(request: Request) -> Form:
    # Nearly every read asks for nothing: its query is not even read.
    return form(request.query_params.multi_items()) if request.scope["query_string"] else WHOLE


def unchanged(headers: Mapping[str, str], version: int, updated_at: datetime) -> bool:
    """Whether who asks has this version already [FHIR R4 http#cread; RFC 9110 §13.1].

    ``If-None-Match`` wins over ``If-Modified-Since``; a date that cannot be read asks for nothing.
    """
    known = headers.get("if-none-match")
    if known is not None:
        tags = {tag.strip().removeprefix("W/").strip('"') for tag in known.split(",")}
        return known.strip() == "*" or str(version) in tags
    since = headers.get("if-modified-since")
    if since is None:
        return False
    try:
        moment = parsedate_to_datetime(since)
    except (ValueError, OverflowError):
        return False
    # An HTTP date has whole seconds, and is in GMT whatever it says.
    return updated_at.replace(microsecond=0) <= (moment if moment.tzinfo else moment.replace(tzinfo=UTC))
