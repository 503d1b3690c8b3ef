"""STOW-RS: objects that a partner's software lays down over HTTP `[PS3.18 10.5]`.

Promises
--------
* An object goes to storage as its bytes come, in constant memory, by the very way of C-STORE (`gateway.dicom.storage`):
  what is said to be stored is durable and indexed, and kept as the data set that came, byte for byte.
* Each object has its own answer: 200 when all are stored, 202 when some are, 409 when none is (503 when it was our
  storage that failed), each refused one with its reason. An answer to a broken request says nothing of its objects:
  they may be sent again, the same object is kept once.
* An object of another study than the address names is refused.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from gateway.dicom import outcome
from gateway.dicom.asking import negotiate
from gateway.dicom.command import Answer, StoreRequest, is_uid
from gateway.dicom.data_sets import JSON, STORED, XML, in_xml
from gateway.dicom.described import Described
from gateway.dicom.intake import Intake, Sink
from gateway.dicom.multipart import Reader, media_type
from gateway.dicom.query import Images
from gateway.dicom.together import GroupKeeper
from gateway.dicom.upload import DICOM, Laid, Upload
from gateway.errors import Forbidden, InvalidContent, Unsupported
from gateway.exchange.blobs import BlobStore
from gateway.model.audit import AuditFacts
from gateway.rcp import access
from gateway.rcp.access import Caller, CallerKind
from gateway.settings import Limits
from gateway.web.authenticators import BEARER, OPEN, caller_of
from gateway.web.body import Limit
from gateway.web.poured import poured

__all__ = ["Storing"]

#: Taken in one go: a thread is entered once for as much. Before it is room for what is held back of the piece before.
_PIECE_BYTES: Final = 2 << 20
_HELD_BYTES: Final = 32 << 10
#: Such pieces of memory that are kept for the next request: new memory has to be cleared.
_MEMORY: Final = 4
#: Requests whose bytes are read at once, and objects of all of them that are made durable at once.
_UPLOADS: Final = 8
_COMMITS: Final = 16
_WRITES_IMAGES: Final = re.compile(r"(?:system|user)/(?:\*|ImagingStudy)\.(?:cr?u?d?s?|write|\*)")

# Not the portal's cookie: a page of another site could make a browser send it.
_Sender = Annotated[Caller, Depends(caller_of(BEARER, OPEN))]


class Storing:
    """The two addresses of STOW-RS.

    Parameters
    ----------
    blobs
        Where bulk data wait for their object.
    keeper
        Storage, the same as the DICOM port's.
    base
        Public URL of ``/dicom-web``.
    limits
        Those of one request, which begin with ``stow_``.
    """

    def __init__(self, images: Images, blobs: BlobStore, keeper: GroupKeeper, base: str, limits: Limits) -> None:
        self._images = images
        self._blobs = blobs
        self._keeper = keeper
        self._base = base
        self._limits = limits
        self._limit = Limit(Limits.variable("stow_bytes"), limits.stow_bytes)
        self._memory: list[bytearray] = []
        self._uploads = ThreadPoolExecutor(_UPLOADS, "stow-read")
        self._commits = ThreadPoolExecutor(_COMMITS, "stow")

    def add_to(self, routes: APIRouter) -> None:
        """Add the routes."""
        for path in ("/studies", "/studies/{study}"):
            routes.add_api_route(path, self.store, methods=["POST"], response_class=Response, response_model=None)

    async def store(self, request: Request, who: _Sender, study: str | None = None) -> Response:
        """Store the objects of a request."""
        await self._may_store(who)
        if study is not None and not is_uid(study):
            raise InvalidContent("invalid-uid", "Identifiant d’étude, de série ou d’objet invalide.")
        kind, _ = negotiate(request, STORED)
        line = partial(_line, who, study, kept=1, refused=0)
        accompany = partial(self._keeper.accompany, line=lambda record: line((record,) if record else ()))
        upload = self._upload(request, partial(self._begin, who, study), accompany)
        whole = False
        try:
            await self._read(request, upload)
            whole = True
        finally:
            if not whole:
                self._uploads.submit(upload.close)  # after whatever it still reads; nobody waits for it
        if not upload.laid:
            raise InvalidContent("multipart", "Contenu « multipart/related » illisible : aucune partie.")
        return await self._answered(who, study, upload.laid, kind)

    def _upload(
        self, request: Request, begin: Callable[[StoreRequest], Intake], accompany: Callable[[Sink], None]
    ) -> Upload:
        """Choose by the media type how the body is read.

        Raises
        ------
        Unsupported
            ``type-de-contenu`` (HTTP 415).
        """
        name, parameters = media_type(request.headers.get("content-type", ""))
        kind = parameters.get("type", DICOM).lower()
        how = (begin, self._commits, self._keeper.prepare, accompany)
        if name == DICOM:
            return Upload(None, *how)
        if name == "multipart/related" and kind in (DICOM, JSON, XML):
            reader = Reader(parameters.get("boundary", ""))
            if kind == DICOM:
                return Upload(reader, *how)
            return Described(reader, *how, kind=kind, blobs=self._blobs, limits=self._limits)
        text = (
            'Type de contenu attendu : multipart/related; type="application/dicom" '
            "(ou application/dicom+json, application/dicom+xml), ou application/dicom."
        )
        raise Unsupported("type-de-contenu", text, expression="Content-Type")

    async def _read(self, request: Request, upload: Upload) -> None:
        """Hand the body on: while a thread reads some of it, the next bytes come."""
        loop = asyncio.get_running_loop()
        under_way: asyncio.Future[None] | None = None
        body = poured(request, self._limit)
        memory, other = (self._memory.pop() if self._memory else bytearray(_HELD_BYTES + _PIECE_BYTES) for _ in "ab")
        try:
            whole = False
            while not whole:
                filled, whole = await body.fill(memoryview(memory)[_HELD_BYTES:])
                if under_way is not None:
                    await under_way
                step = upload.finish if whole else upload.take
                under_way = loop.run_in_executor(self._uploads, step, memory, _HELD_BYTES, _HELD_BYTES + filled)
                memory, other = other, memory
            if under_way is not None:
                await under_way
        finally:
            body.close()
            if under_way is not None:
                await asyncio.wait([under_way])
        if len(self._memory) < _MEMORY:  # only here: of a request that is broken off a thread may be at it still
            self._memory += (memory, other)

    async def _may_store(self, who: Caller) -> None:
        if who.kind is CallerKind.CLIENT and any(_WRITES_IMAGES.fullmatch(scope) for scope in who.scopes):
            return
        refusal = Forbidden("scope", "Le jeton ne permet pas de déposer d’imagerie (system/ImagingStudy.c).")
        line = access.facts(who, "refus", action="C", outcome="4", reason=refusal.code, object_type="Study")
        await self._images.reads.record(line)
        raise refusal

    def _begin(self, who: Caller, study: str | None, announced: StoreRequest) -> Intake:
        request = replace(announced, study_instance_uid=study)
        return Intake(request, request.sop_class_uid, partial(self._keeper.open, peer=who), self._limit.max_bytes)

    async def _answered(self, who: Caller, study: str | None, laid: Sequence[Laid], kind: str) -> Response:
        kept = [one for one in laid if not _failed(one.told)]
        alone = self._keeper.told(laid[0].sink)
        if alone is not None:  # its row and its line are one commit
            places = {laid[0].sop_instance_uid: alone}
        else:
            places = await self._told(who, study, kept, len(laid) - len(kept))
        status = 200 if all(one.told.status == 0 for one in laid) else 202 if kept else 409
        if not kept and all(one.told.status == outcome.DIMSE_STATUS["unavailable"] for one in laid):
            status = 503
        said = msgspec.json.encode(self._body(laid, places))
        body = await in_xml(said) if kind == XML else said
        return Response(body, status, {"Retry-After": "60"} if status == 503 else None, kind)

    async def _told(
        self, who: Caller, study: str | None, kept: Sequence[Laid], refused: int
    ) -> dict[str, tuple[str, str]]:
        """Tell the trail of several objects; where they stand."""
        rows = await self._images.laid_down(who, {one.sop_instance_uid for one in kept}) if kept else []
        persons = tuple(sorted({row["record_id"] for row in rows if row["record_id"]}))
        await self._images.reads.record(_line(who, study, persons, kept=len(kept), refused=refused))
        return {row["sop_instance_uid"]: (row["study_instance_uid"], row["series_instance_uid"]) for row in rows}

    def _body(self, laid: Sequence[Laid], places: dict[str, tuple[str, str]]) -> dict[str, Any]:
        """Store Instances Response Module `[PS3.18 I.2]`."""
        stored, failed, others = [], [], []
        for one in laid:
            told = one.told
            item: dict[str, Any] = {
                "00081150": {"vr": "UI", "Value": [one.sop_class_uid]},
                "00081155": {"vr": "UI", "Value": [one.sop_instance_uid]},
            }
            if not _failed(told):
                if one.sop_instance_uid in places:
                    study, series = places[one.sop_instance_uid]
                    url = f"{self._base}/studies/{study}/series/{series}/instances/{one.sop_instance_uid}"
                    item["00081190"] = {"vr": "UR", "Value": [url]}
                if told.status:
                    item["00081196"] = {"vr": "US", "Value": [told.status]}
                stored.append(item)
            elif one.sop_instance_uid:
                failed.append(item | {"00081197": {"vr": "US", "Value": [told.status]}})
            else:
                others.append({"00081197": {"vr": "US", "Value": [told.status]}})
        studies = {study for study, _ in places.values()}
        body: dict[str, Any] = {"00080005": {"vr": "CS", "Value": ["ISO_IR 192"]}}
        if len(studies) == 1:
            body["00081190"] = {"vr": "UR", "Value": [f"{self._base}/studies/{studies.pop()}"]}
        for tag, items in (("00081198", failed), ("00081199", stored), ("0008119A", others)):
            if items:
                body[tag] = {"vr": "SQ", "Value": items}
        return body


def _line(who: Caller, study: str | None, persons: tuple[uuid.UUID, ...], *, kept: int, refused: int) -> AuditFacts:
    return access.facts(
        who,
        "imagerie",
        action="C",
        outcome="0" if kept else "4",
        persons=persons,
        object_type="Study",
        object_id=study,
        detail={"objets": kept, "refus": refused},
    )


def _failed(answer: Answer) -> bool:
    """Whether a status is neither success nor a warning `[PS3.7 C.1]`."""
    return answer.status not in (0x0000, 0x0001, 0x0107, 0x0116) and answer.status >> 12 != 0xB
