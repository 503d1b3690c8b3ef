"""DICOMweb: QIDO-RS searches, WADO-RS retrieval, metadata and frames `[PS3.18 10]`.

`gateway.dicom.rendered` draws, `gateway.dicom.stow` stores.

``router(images, blobs, base_url=…)`` is mounted under ``/dicom-web``; it takes the callers of `SESSION`, `BEARER` and
`OPEN`.

Promises
--------
* What `gateway.dicom.asking` promises of every request.
* What all answers hold in memory together is bounded (`gateway.dicom.held`).

Not here: UPS-RS.
"""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Request, Response

from gateway.dicom.asking import Who, Wire, negotiate
from gateway.dicom.attributes import Level
from gateway.dicom.bulk import Bulk
from gateway.dicom.data_sets import MANY, ONE, answer, flowing
from gateway.dicom.drawing import Drawing
from gateway.dicom.framed import Layouts
from gateway.dicom.held import Held
from gateway.dicom.leaving import Leaving
from gateway.dicom.qido import question
from gateway.dicom.query import Images
from gateway.dicom.rendered import Rendering
from gateway.dicom.retrieval import Retrieval
from gateway.dicom.stow import Storing
from gateway.dicom.together import GroupKeeper
from gateway.exchange.blobs import BlobStore
from gateway.rcp.access import Caller
from gateway.settings import Limits

__all__ = ["router"]


def router(
    images: Images,
    blobs: BlobStore,
    *,
    base_url: str,
    drawing: Drawing | None = None,
    keeper: GroupKeeper | None = None,
    limits: Limits | None = None,
) -> APIRouter:
    """Make the routes of ``/dicom-web``.

    Parameters
    ----------
    base_url
        Public URL of ``/dicom-web``, for Retrieve URLs.
    drawing
        The decoders at work; some of its own when None.
    keeper
        Storage, the same as the DICOM port's; without it nothing is laid down (STOW-RS).
    """
    made = APIRouter(prefix="/dicom-web", tags=["dicomweb"])
    drawing = drawing or Drawing()
    limits = limits or Limits()
    leaving = Leaving(blobs, Held(limits.retrieval_bytes, Limits.variable("retrieval_bytes")))
    _Searches(images, blobs, drawing, leaving, base_url.rstrip("/")).add_to(made)
    layouts = Layouts()
    Retrieval(images, blobs, drawing, leaving, layouts).add_to(made, base_url.rstrip("/"))
    Bulk(images, blobs, drawing, leaving, layouts).add_to(made, base_url.rstrip("/"))
    Rendering(images, blobs, drawing, leaving.held).add_to(made)
    if keeper is not None:
        Storing(images, blobs, keeper, base_url.rstrip("/"), limits).add_to(made)
    return made


class _Searches(Wire):
    """QIDO-RS `[PS3.18 10.6]` and metadata `[PS3.18 10.4.1.1.2]`."""

    def __init__(self, images: Images, blobs: BlobStore, drawing: Drawing, leaving: Leaving, base: str) -> None:
        super().__init__(images, blobs, drawing)
        self._leaving = leaving
        self._base = base

    def add_to(self, routes: APIRouter) -> None:
        add = partial(routes.add_api_route, methods=["GET"], response_class=Response, response_model=None)
        add("/studies", self.studies)
        add("/series", self.series)
        add("/studies/{study}/series", self.series)
        add("/instances", self.instances)
        add("/studies/{study}/instances", self.instances)
        add("/studies/{study}/series/{series}/instances", self.instances)
        add("/studies/{study}/metadata", self.metadata)
        add("/studies/{study}/series/{series}/metadata", self.metadata)
        add("/studies/{study}/series/{series}/instances/{instance}/metadata", self.metadata)

    async def studies(self, request: Request, who: Who) -> Response:
        return await self._matches(request, who, Level.STUDY)

    async def series(self, request: Request, who: Who, study: str | None = None) -> Response:
        return await self._matches(request, who, Level.SERIES, study)

    async def instances(
        self, request: Request, who: Who, study: str | None = None, series: str | None = None
    ) -> Response:
        return await self._matches(request, who, Level.INSTANCE, study, series)

    async def _matches(
        self, request: Request, who: Caller, level: Level, study: str | None = None, series: str | None = None
    ) -> Response:
        await self._allowed(who, study, series)
        leaves = negotiate(request, MANY)
        asked, tags = question(level, request.query_params.multi_items(), study=study, series=series)
        found = await self._images.search(who, asked, self._base, tags)
        await self._tell(who, found.records, "Query", None)
        headers = {"Warning": f'299 {self._base} "There are additional results that can be requested"'}
        told = headers if found.more else None
        return await answer(leaves, found.answers, told) if found.answers else Response(None, 204, told)

    async def metadata(
        self, request: Request, who: Who, study: str, series: str | None = None, instance: str | None = None
    ) -> Response:
        found = await self._listed(who, study, series, instance, partial(self._images.metadata, base=self._base))
        leaves = negotiate(request, ONE if instance else MANY)
        await self._tell(who, found.records, "Metadata", instance or series or study)
        if found.at_hand:
            return await answer(leaves, found.at_hand)
        kind, pieces = flowing(leaves, found.each())
        return await self._leaving.flow(pieces, 200, {}, kind)
