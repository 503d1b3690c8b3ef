"""DICOMweb: QIDO-RS searches, WADO-RS retrieval, metadata, frames, rendered pictures and thumbnails `[PS3.18 10]`.

``router(images, blobs, base_url=…)`` is mounted under ``/dicom-web``; it takes the callers of `SESSION`, `BEARER` and
`OPEN`.

Promises
--------
* What the caller may not see does not exist (404, audited); a SMART client needs a scope that reads ImagingStudy.
* One audit line an answer, naming the records, durable before the first byte leaves.
* Objects leave as they came, in their own transfer syntax; frames as uncompressed little endian; pictures in JPEG, PNG
  or GIF.

Not here yet: STOW-RS, transcoding on retrieval, bulk data other than pixels, consultation of presentation states.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Final, TypeVar

import anyio
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse

from gateway.dicom.command import is_uid
from gateway.dicom.query import Found, Images
from gateway.dicom.render import MEDIA_TYPES, Window, frame_bytes, render
from gateway.errors import Forbidden, InvalidContent, NotFound, Unsupported
from gateway.exchange.blobs import CHUNK_BYTES, BlobStore
from gateway.model.audit import AuditFacts
from gateway.rcp import access
from gateway.rcp.access import Caller, CallerKind
from gateway.web.authenticators import BEARER, OPEN, SESSION, caller_of

__all__ = ["router"]

T = TypeVar("T")

_JSON: Final = "application/dicom+json"
_DICOM: Final = "application/dicom"
_OCTETS: Final = "application/octet-stream"
_THUMBNAIL: Final = (160, 160)
_MAX_FRAMES: Final = 256
# One answer is held whole: frames are said to exist before the first byte leaves.
_MAX_FRAMES_BYTES: Final = 256 << 20
# Choosing a media type takes time that grows with the square of the question.
_MAX_ACCEPT_CHARACTERS: Final = 1024
_MAX_VIEWPORT: Final = 4096
# Decoding is processor work: more at once only makes each slower.
_RENDERERS: Final = 4
# SMART scopes that read images, v2 and the words of v1.
_READS_IMAGES: Final = re.compile(r"(?:system|user)/(?:\*|ImagingStudy)\.(?:c?ru?d?s?|read|\*)(?:\?.*)?")

Who = Annotated[Caller, Depends(caller_of(SESSION, BEARER, OPEN))]


def router(images: Images, blobs: BlobStore, *, base_url: str) -> APIRouter:
    """Make the routes of ``/dicom-web``.

    Parameters
    ----------
    base_url
        Public URL of ``/dicom-web``, for Retrieve URLs.
    """
    made = APIRouter(prefix="/dicom-web", tags=["dicomweb"])
    _Searches(images, base_url.rstrip("/")).add_to(made)
    _Retrieval(images, blobs).add_to(made)
    return made


class _Wire:
    """What searches and retrieval share: rights, refusals, the trail."""

    def __init__(self, images: Images) -> None:
        self._images = images

    async def _tell(
        self, caller: Caller, records: Iterable[uuid.UUID], kind: str, uid: str | None, **detail: int
    ) -> None:
        persons = tuple(sorted(set(records)))
        line = access.facts(
            caller,
            "imagerie" if uid else "recherche",
            persons=persons,
            object_type=kind,
            object_id=uid,
            detail=dict(detail) or None,
        )
        await self._images.reads.record(line)

    async def _hidden(self, caller: Caller, kind: str, uid: str) -> NotFound:
        refusal = access.hidden(caller, kind, uid, text="Image inconnue.")
        if isinstance(refusal.trail, AuditFacts):
            await self._images.reads.record(refusal.trail)
        return refusal

    async def _allowed(self, caller: Caller, *uids: str | None) -> None:
        """Refuse a token without the right scope, and a path that holds no UID.

        Raises
        ------
        Forbidden, InvalidContent
        """
        if caller.kind is CallerKind.CLIENT and not any(_READS_IMAGES.fullmatch(scope) for scope in caller.scopes):
            refusal = Forbidden("scope", "Le jeton ne permet pas de lire l’imagerie (system/ImagingStudy.rs).")
            line = access.facts(caller, "refus", outcome="4", reason=refusal.code, object_type="Study")
            await self._images.reads.record(line)
            raise refusal
        if any(uid is not None and not is_uid(uid) for uid in uids):
            raise InvalidContent("invalid-uid", "Identifiant d’étude, de série ou d’objet invalide.")


class _Searches(_Wire):
    """QIDO-RS `[PS3.18 10.6]` and metadata `[PS3.18 10.4.1.1.2]`."""

    def __init__(self, images: Images, base: str) -> None:
        super().__init__(images)
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
        await self._allowed(who)
        body, records = await self._images.studies(who, request.query_params.multi_items(), self._base)
        return await self._matches(who, body, records)

    async def series(self, request: Request, who: Who, study: str | None = None) -> Response:
        await self._allowed(who, study)
        asked = request.query_params.multi_items()
        body, records = await self._images.series(who, study, asked, self._base)
        return await self._matches(who, body, records)

    async def instances(
        self, request: Request, who: Who, study: str | None = None, series: str | None = None
    ) -> Response:
        await self._allowed(who, study, series)
        asked = request.query_params.multi_items()
        body, records = await self._images.instances(who, study, series, asked, self._base)
        return await self._matches(who, body, records)

    async def _matches(self, who: Caller, body: bytes, records: set[uuid.UUID]) -> Response:
        await self._tell(who, records, "Query", None)
        if body == b"[]":
            return Response(status_code=204)
        return Response(body, media_type=_JSON)

    async def metadata(
        self, request: Request, who: Who, study: str, series: str | None = None, instance: str | None = None
    ) -> Response:
        await self._allowed(who, study, series, instance)
        _negotiate(request, (_JSON, "application/json"))
        body, records = await self._images.metadata(who, study, series, instance)
        if not body:
            raise await self._hidden(who, "Study", study)
        await self._tell(who, records, "Metadata", instance or series or study)
        return Response(body, media_type=_JSON)


class _Retrieval(_Wire):
    """WADO-RS `[PS3.18 10.4]`."""

    def __init__(self, images: Images, blobs: BlobStore) -> None:
        super().__init__(images)
        self._blobs = blobs
        self._renderers = anyio.CapacityLimiter(_RENDERERS)

    def add_to(self, routes: APIRouter) -> None:
        add = partial(routes.add_api_route, methods=["GET"], response_class=Response, response_model=None)
        one = "/studies/{study}/series/{series}/instances/{instance}"
        for path in ("/studies/{study}", "/studies/{study}/series/{series}", one):
            add(path, self.objects)
            add(f"{path}/thumbnail", self.thumbnail)
        add(f"{one}/rendered", self.rendered)
        add(f"{one}/frames/{{frames}}", self.frames)
        add(f"{one}/frames/{{frames}}/rendered", self.rendered)

    async def _found(self, who: Caller, study: str, series: str | None, instance: str | None) -> list[Found]:
        await self._allowed(who, study, series, instance)
        found = await self._images.find(who, study, series, instance)
        if not found:
            raise await self._hidden(who, "Instance" if instance else "Study", instance or study)
        return found

    async def objects(
        self, request: Request, who: Who, study: str, series: str | None = None, instance: str | None = None
    ) -> Response:
        found = await self._found(who, study, series, instance)
        single = (_DICOM,) if instance else ()
        chosen = _negotiate(request, ("multipart/related", *single), related=_DICOM)
        await self._tell(
            who, _records(found), "Instance" if instance else "Study", instance or study, objets=len(found)
        )
        if chosen == _DICOM:
            headers = {"Content-Length": str(found[0].size_bytes)}
            return StreamingResponse(self._blobs.stream_async(found[0].sha256), media_type=_DICOM, headers=headers)
        boundary = secrets.token_hex(16)
        return StreamingResponse(
            self._parts(found, boundary), media_type=f'multipart/related; type="{_DICOM}"; boundary={boundary}'
        )

    async def _parts(self, found: list[Found], boundary: str) -> AsyncIterator[bytes]:
        for one in found:
            kind = f"{_DICOM}; transfer-syntax={one.transfer_syntax_uid}"
            yield _part(boundary, kind, one.size_bytes)
            async for chunk in self._blobs.stream_async(one.sha256):
                yield chunk
            yield b"\r\n"
        yield f"--{boundary}--\r\n".encode("ascii")

    async def frames(self, request: Request, who: Who, study: str, series: str, instance: str, frames: str) -> Response:
        [one, *_] = await self._found(who, study, series, instance)
        numbers = _frame_numbers(frames)
        _negotiate(request, ("multipart/related",), related=_OCTETS)
        contents: list[bytes] = []
        for number in numbers:
            contents.append(await self._on_file(one, partial(frame_bytes, frame=number)))
            if sum(map(len, contents)) > _MAX_FRAMES_BYTES:
                text = f"Ces images dépassent {_MAX_FRAMES_BYTES} octets par réponse : demandez-en moins à la fois."
                raise InvalidContent("dicom-frames", text, expression="frames")
        await self._tell(who, _records([one]), "Frame", instance, images=len(numbers))
        boundary = secrets.token_hex(16)
        body = b"".join(_part(boundary, _OCTETS, len(content)) + content + b"\r\n" for content in contents)
        end = f"--{boundary}--\r\n".encode("ascii")
        return Response(body + end, media_type=f'multipart/related; type="{_OCTETS}"; boundary={boundary}')

    async def rendered(
        self, request: Request, who: Who, study: str, series: str, instance: str, frames: str = "1"
    ) -> Response:
        [one, *_] = await self._found(who, study, series, instance)
        numbers = _frame_numbers(frames)
        if len(numbers) != 1:
            raise Unsupported("not-acceptable", "Une seule image par réponse.", expression="frames")
        return await self._picture(request, who, one, numbers[0], _viewport(request.query_params.get("viewport")))

    async def thumbnail(
        self, request: Request, who: Who, study: str, series: str | None = None, instance: str | None = None
    ) -> Response:
        found = await self._found(who, study, series, instance)
        pictured = [one for one in found if one.pictured]
        if not pictured:
            raise Unsupported("dicom-no-pixels", "Aucune image dans ces objets.")
        asked = _viewport(request.query_params.get("viewport"))
        return await self._picture(request, who, pictured[len(pictured) // 2], 1, asked or _THUMBNAIL)

    async def _picture(
        self, request: Request, who: Caller, one: Found, frame: int, viewport: tuple[int, int] | None
    ) -> Response:
        media_type = _negotiate(request, tuple(MEDIA_TYPES))
        window = request.query_params.get("window")
        draw = partial(
            render,
            frame=frame,
            media_type=media_type,
            window=Window.parse(window) if window else None,
            viewport=viewport,
        )
        content = await self._on_file(one, draw)
        await self._tell(who, _records([one]), "Rendered", one.instance_uid)
        return Response(content, media_type=media_type, headers={"Cache-Control": "private, no-store"})

    async def _on_file(self, one: Found, work: Callable[[Path], T]) -> T:
        def run() -> T:
            with _on_disk(self._blobs, one) as path:
                return work(path)

        return await anyio.to_thread.run_sync(run, limiter=self._renderers)


def _records(found: Iterable[Found]) -> set[uuid.UUID]:
    return {one.record_id for one in found if one.record_id is not None}


@contextlib.contextmanager
def _on_disk(blobs: BlobStore, one: Found) -> Iterator[Path]:
    """Give the object as a file: the store's own, or a copy of a remote one for as long as it is read."""
    path = blobs.path(one.sha256)
    if path is not None:
        yield path
        return
    with tempfile.NamedTemporaryFile(suffix=".dcm") as copy:
        with blobs.open(one.sha256) as source:
            while chunk := source.read(CHUNK_BYTES):
                copy.write(chunk)
        copy.flush()
        yield Path(copy.name)


def _part(boundary: str, kind: str, length: int) -> bytes:
    return f"--{boundary}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n".encode("ascii")


def _frame_numbers(text: str) -> list[int]:
    if not re.fullmatch(r"[0-9]{1,6}(?:,[0-9]{1,6})*", text):
        raise InvalidContent("dicom-frames", "Numéros d’image invalides.", expression="frames")
    numbers = [int(number) for number in text.split(",")]
    if len(numbers) > _MAX_FRAMES:
        raise InvalidContent("dicom-frames", f"Au plus {_MAX_FRAMES} images par demande.", expression="frames")
    return numbers


def _viewport(text: str | None) -> tuple[int, int] | None:
    """Read ``viewport={width},{height}``; a region of the source is not offered `[PS3.18 8.3.5.1.3]`."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,4}),([0-9]{1,4})", text)
    if not found or not all(0 < int(side) <= _MAX_VIEWPORT for side in found.groups()):
        text = f"Paramètre « viewport » invalide : largeur,hauteur (1 à {_MAX_VIEWPORT})."
        raise InvalidContent("dicom-viewport", text, expression="viewport")
    return int(found[1]), int(found[2])


def _negotiate(request: Request, offered: tuple[str, ...], *, related: str | None = None) -> str:
    """Choose among the offered media types by ``accept=`` or ``Accept`` `[PS3.18 8.7]`; the first offered by default.

    ``related`` is the type of the parts of ``multipart/related``.
    """
    asked = request.query_params.get("accept") or request.headers.get("accept") or "*/*"
    if len(asked) > _MAX_ACCEPT_CHARACTERS:
        text = f"« Accept » compte au plus {_MAX_ACCEPT_CHARACTERS} caractères."
        raise InvalidContent("accept-too-long", text, expression="Accept")
    ranked: list[tuple[float, int, str]] = []
    for position, text in enumerate(re.split(r",(?=(?:[^\"]*\"[^\"]*\")*[^\"]*$)", asked)):
        kind, *parameters = (piece.strip() for piece in text.split(";"))
        values = dict(piece.split("=", 1) for piece in parameters if "=" in piece)
        part = values.get("type", "").strip('"')
        if kind == "multipart/related" and related is not None and part not in ("", "*/*", related):
            continue
        family = kind.removesuffix("*")
        match = next(
            (one for one in offered if one == kind or (kind.endswith("*") and one.startswith(family)) or kind == "*/*"),
            None,
        )
        try:
            quality = float(values.get("q", "1"))
        except ValueError:
            quality = 0.0
        if match is not None and quality > 0:
            ranked.append((-quality, position, match))
    if not ranked:
        raise Unsupported("not-acceptable", "Aucun des formats demandés n’est proposé.", expression="Accept")
    return min(ranked)[2]
