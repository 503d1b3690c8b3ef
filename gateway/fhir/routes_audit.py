"""The routes of the trail: one AuditEvent, a search of them [IHE ITI-81; FHIR R4 auditevent; DECISIONS 10]."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import Unsupported
from gateway.fhir.audit_events import AuditReads
from gateway.fhir.negotiation import MEDIA, NO_STORE, form_pairs, here, require_format, strict
from gateway.fhir.routing import Router
from gateway.rcp.access import Caller

__all__ = ["AuditRoutes"]


class AuditRoutes:
    """Routes over one process's reads of the trail; they stand before those of all types."""

    def __init__(self, reads: AuditReads) -> None:
        self._reads = reads

    def add(self, router: Router) -> None:
        """Add them."""

        @router.get("/fhir/AuditEvent/{identity}")
        async def read(request: Request, identity: str, who: Caller) -> Response:
            require_format(request)
            found = await self._reads.read(here(who, request), identity)
            return Response(found, 200, {"ETag": 'W/"1"', **NO_STORE}, media_type=MEDIA)

        @router.get("/fhir/AuditEvent")
        async def search(request: Request, who: Caller) -> Response:
            return await self._search(request, who, list(request.query_params.multi_items()))

        @router.post("/fhir/AuditEvent/_search")
        async def search_by_post(request: Request, who: Caller, content: bytes) -> Response:
            return await self._search(request, who, form_pairs(request, content))

        @router.add(("POST", "PUT", "PATCH", "DELETE"), "/fhir/AuditEvent")
        @router.add(("PUT", "PATCH", "DELETE"), "/fhir/AuditEvent/{identity}")
        def written(who: Caller) -> Response:
            del who
            raise Unsupported("ecriture-non-offerte", "La trace (AuditEvent) se lit seulement.")

    async def _search(self, request: Request, who: Caller, pairs: list[tuple[str, str]]) -> Response:
        require_format(request)
        found = await self._reads.search(here(who, request), pairs, strict=strict(request))
        return Response(found, 200, NO_STORE, media_type=MEDIA)
