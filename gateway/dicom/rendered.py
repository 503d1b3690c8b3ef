"""What a browser can show of an object: pictures, thumbnails, documents `[PS3.18 10.4.1.1.5, 10.4.1.1.6]`.

Promises: what `gateway.dicom.asking` does, of a kept picture too; pictures in JPEG, PNG or GIF, one alone or several as
``multipart/related``; a presentation state as the images that it is about, of the same patient and study, as it has
them shown; a structured report as a page, an encapsulated document as itself; a strong ETag. Of several pictures the
broken ones are left out, and the answer says so (206); all together have bounds (`gateway.dicom.several`).
"""

from __future__ import annotations

import asyncio
import re
import secrets
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Request, Response

from gateway.dicom.asking import Who, Wire, acceptable, frame_numbers, negotiate, part, records
from gateway.dicom.colours import WISHES
from gateway.dicom.drawing import Drawing
from gateway.dicom.held import Flow, Held
from gateway.dicom.legible import DOCUMENT_TYPES, POLICY
from gateway.dicom.pictures import Picture, Pictures, tag
from gateway.dicom.presentation import FAMILY, MAX_BYTES, Reference
from gateway.dicom.query import Found, Images
from gateway.dicom.reading_ahead import Scrolls
from gateway.dicom.render import MEDIA_TYPES, Region, Window
from gateway.dicom.several import Several
from gateway.errors import GatewayError, InvalidContent, Unsupported
from gateway.exchange.blobs import BlobStore
from gateway.rcp.access import Caller

__all__ = ["Rendering"]

_THUMBNAIL: Final = Region(160, 160)
_MAX_VIEWPORT: Final = 4096
_NUMBER: Final = re.compile(r"-?[0-9]{1,6}(?:\.[0-9]{1,6})?")
# Of one answer, which is held whole.
_MAX_PICTURES: Final = 256
# Of a question that is kept.
_REPEATED_CHARACTERS: Final = 1024
_PRIVATE: Final = {"Cache-Control": "private, no-store", "Vary": "Accept"}
# A page of ours may show a document inside it.
_SHOWN: Final = {"Content-Security-Policy": POLICY, "X-Frame-Options": "SAMEORIGIN"}


class Rendering(Wire):
    """``/rendered`` and ``/thumbnail``."""

    def __init__(self, images: Images, blobs: BlobStore, drawing: Drawing, held: Held) -> None:
        super().__init__(images, blobs, drawing)
        self._held = held
        self._pictures = Pictures()
        self._scrolls = Scrolls(self._series, self._ahead)

    def add_to(self, routes: APIRouter) -> None:
        """Add the routes."""
        add = partial(routes.add_api_route, methods=["GET"], response_class=Response, response_model=None)
        series = "/studies/{study}/series/{series}"
        one = f"{series}/instances/{{instance}}"
        for path in ("/studies/{study}", series, one):
            add(f"{path}/thumbnail", self.thumbnail)
        for path in ("/studies/{study}", series):
            add(f"{path}/rendered", self.several)
        add(f"{one}/rendered", self.rendered)
        add(f"{one}/frames/{{frames}}/rendered", self.rendered)

    async def rendered(
        self, request: Request, who: Who, study: str, series: str, instance: str, frames: str = "1"
    ) -> Response:
        """Show one instance: a frame of it, or the document that it is."""
        self._begin(request, who, series, instance, frames)
        [one, *_] = await self._found(who, study, series, instance)
        numbers = frame_numbers(frames)
        if one.sop_class_uid.startswith(FAMILY):
            return await self._state(request, who, one)
        if not one.pictured:
            return await self._document(request, who, one)
        state = await self._named(request, who, one)
        wanted = [_Shown(one, number, state) for number in numbers]
        if len(numbers) > 1:
            return await self._multipart(request, who, wanted, _asked(request, state))
        return await self._one(request, who, wanted[0], _wanted(request, state))

    async def several(self, request: Request, who: Who, study: str, series: str | None = None) -> Response:
        """Draw each instance of a series or a study that has a picture."""
        found = await self._listed(who, study, series, None, self._images.objects)
        pictured = []
        async for one in found.each():
            if one.pictured:
                pictured.append(_Shown(one))
            if len(pictured) > _MAX_PICTURES:
                raise _too_many()
        if not pictured:
            raise Unsupported("dicom-no-pixels", "Aucune image dans ces objets.")
        return await self._multipart(request, who, pictured, _asked(request))

    async def thumbnail(
        self, request: Request, who: Who, study: str, series: str | None = None, instance: str | None = None
    ) -> Response:
        """Draw the one in the middle, small; when it is broken, one that is not."""
        found = await self._listed(who, study, series, instance, self._images.objects)
        pictured = [one for one in await found.middle() if one.pictured]
        if not pictured:
            raise Unsupported("dicom-no-pixels", "Aucune image dans ces objets.")
        asked = _wanted(request)
        asked["viewport"] = asked["viewport"] or _told(_THUMBNAIL)
        tried = (pictured[len(pictured) // 2], pictured[0], pictured[-1])
        for one in tried[:2]:
            try:
                return await self._one(request, who, _Shown(one), asked)
            except (InvalidContent, Unsupported):
                continue
        return await self._one(request, who, _Shown(tried[2]), asked)

    # ---- presentation states

    async def _state(self, request: Request, who: Caller, state: Found) -> Response:
        """Draw the images that a state is about, as it says `[PS3.18 8.3.5.1]`."""
        if "frames" in request.path_params:
            raise await self._hidden(who, "Instance", state.instance_uid)
        asked = _asked(request, state)
        try:
            wanted, missing = await self._referenced(who, state)
        except (InvalidContent, Unsupported):  # that it was asked for is told even when nothing can be drawn
            await self._tell(who, records([state]), "Rendered", state.instance_uid, below=state.study_uid)
            raise
        if not wanted:
            raise await self._hidden(who, "Instance", state.instance_uid)
        if len(wanted) == 1 and not missing:
            return await self._one(request, who, wanted[0], _wanted(request, state))
        return await self._multipart(request, who, wanted, asked, missing=missing)

    async def _named(self, request: Request, who: Caller, one: Found) -> Found | None:
        """Find the state that an image is asked for with, as the URI service names it `[PS3.18 9.4.1.2]`."""
        series, uid = (request.query_params.get(name) for name in ("presentationSeriesUID", "presentationUID"))
        if series is None and uid is None:
            return None
        await self._allowed(who, series or "-", uid or "-")
        found = await self._images.find(who, one.study_uid, series, uid, beside=one)
        if not found or not found[0].sop_class_uid.startswith(FAMILY):
            raise await self._hidden(who, "Instance", uid or one.instance_uid)
        return _of_a_size(found[0])

    async def _referenced(self, who: Caller, state: Found) -> tuple[list[_Shown], bool]:
        """Find the frames that a state is about, and say whether some of them are not here, or not his to see."""
        references = await self._references(state)
        wanted: list[_Shown] = []
        known: dict[str, dict[str, Found]] = {}
        missing = False
        for one in references:
            if one.series not in known:
                await self._allowed(who, one.series)
                found = await self._images.find(who, state.study_uid, one.series, beside=state)
                known[one.series] = {each.instance_uid: each for each in found if each.pictured}
            image = known[one.series].get(one.instance)
            numbers = one.frames or range(1, (image.frames if image is not None else 1) + 1)
            here = [number for number in numbers if image is not None and 1 <= number <= image.frames]
            missing = missing or len(here) < len(numbers)
            wanted += [_Shown(image, number, state) for number in here if image is not None]
            if len(wanted) > _MAX_PICTURES:
                raise _too_many()
        return wanted, missing

    async def _references(self, state: Found) -> list[Reference]:
        name = tag(_of_a_size(state).sha256, "references")
        _, content = await self._pictures.get(name, lambda: self.drawn(state, "references"))
        references = msgspec.msgpack.decode(content, type=list[Reference])
        if len(references) > _MAX_PICTURES:
            raise _too_many()
        return references

    # ---- pictures

    async def _one(self, request: Request, who: Caller, shown: _Shown, asked: dict[str, Any]) -> Response:
        name, one = shown.tag(asked), shown.one
        headers = {**_PRIVATE, "ETag": name}
        if _knows(request, name):
            await self._shown(who, shown)
            return Response(status_code=304, headers=headers)
        picture = self._pictures.kept(name)
        if picture is None:
            begun = self._pictures.begin(name, lambda: self._draw(shown, asked))
            await asyncio.sleep(0)  # the process has its order
            # That it was asked for is told while it is drawn, even when nothing can be.
            await self._shown(who, shown)
            picture = await begun.picture()
        else:
            await self._shown(who, shown)
        if shown.state is None:
            self._scrolls.seen(who, one, {**asked, "frame": shown.frame})
        return Response(picture[1], media_type=picture[0], headers=headers)

    def _begin(self, request: Request, who: Caller, series: str, instance: str, frames: str) -> None:
        """Have a picture of the series that he looks through drawn while his rights are looked at again."""
        one = self._scrolls.known(who, series, instance)
        if one is None or not self._drawing.idle or not frames.isdecimal() or b"presentation" in _query(request):
            return
        try:
            asked = _wanted(request)
            shown = _Shown(one, frame_numbers(frames)[0])
        except GatewayError:  # told in its turn
            return
        name = shown.tag(asked)
        if not self._pictures.has(name) and not _knows(request, name):
            self._pictures.begin(name, lambda: self._draw(shown, asked))

    async def _shown(self, who: Caller, shown: _Shown) -> None:
        one = shown.state or shown.one
        await self._tell(who, shown.records, "Rendered", one.instance_uid, below=one.study_uid)

    async def _draw(self, shown: _Shown, asked: dict[str, Any]) -> Picture:
        """Have a picture drawn."""
        if shown.state is None:
            return await self.drawn(shown.one, "picture", frame=shown.frame, **asked)
        asked = {name: value for name, value in asked.items() if name != "window"}
        instance = shown.one.instance_uid
        return await self.drawn(
            shown.one, "presented", beside=shown.state, instance=instance, frame=shown.frame, **asked
        )

    async def _picture(self, shown: _Shown, asked: dict[str, Any]) -> Picture:
        return await self._pictures.get(shown.tag(asked), lambda: self._draw(shown, asked))

    async def _series(self, who: Caller, one: Found) -> list[Found]:
        return await self._images.find(who, one.study_uid, one.series_uid)

    async def _ahead(self, one: Found, asked: dict[str, Any]) -> None:
        asked = dict(asked)
        shown = _Shown(one, asked.pop("frame"))
        if self._drawing.idle and not self._pictures.has(shown.tag(asked)):
            await self._picture(shown, asked)

    async def _multipart(
        self, request: Request, who: Caller, wanted: list[_Shown], asked: dict[str, Any], *, missing: bool = False
    ) -> Response:
        kind = _part_type(request)
        if len(wanted) > _MAX_PICTURES:
            raise _too_many()
        several = Several([partial(self._picture, one, {**asked, "media_type": kind}) for one in wanted], self._held)
        try:
            await several.drawn(request, at_once=self._drawing.processes)
        finally:
            drawn = len(several.contents)
            named = wanted[0].state.instance_uid if wanted[0].state is not None else wanted[0].one.study_uid
            await self._tell(who, {each for one in wanted for each in one.records}, "Rendered", named, images=drawn)
        boundary = secrets.token_hex(16)
        pieces = [piece for one in several.contents for piece in (part(boundary, kind, len(one)), one, b"\r\n")]
        pieces.append(f"--{boundary}--\r\n".encode("ascii"))
        headers = {**_PRIVATE, "Content-Length": str(sum(map(len, pieces)))}
        media_type = f'multipart/related; type="{kind}"; boundary={boundary}'
        # Each picture as it is: put together they would stand in memory twice.
        status = 206 if missing or several.refusal is not None else 200
        return Flow(_each(pieces), status, headers, media_type, several.loan)

    async def _document(self, request: Request, who: Caller, one: Found) -> Response:
        offered = acceptable(request, DOCUMENT_TYPES)
        name = tag(one.sha256, "document", offered)
        if _knows(request, name):
            await self._tell(who, records([one]), "Rendered", one.instance_uid)
            return Response(status_code=304, headers={**_PRIVATE, "ETag": name})
        media_type, content = await self._pictures.get(name, lambda: self.drawn(one, "document", offered=offered))
        await self._tell(who, records([one]), "Rendered", one.instance_uid)
        headers = {**_PRIVATE, **_SHOWN, "ETag": name, "Content-Disposition": "inline"}
        if media_type != "application/pdf":  # whose viewer a sandbox keeps from opening; it runs nothing here itself
            headers["Content-Security-Policy"] += "; sandbox"
        return Response(content, media_type=media_type, headers=headers)


@dataclass(frozen=True, slots=True)
class _Shown:
    """A frame to be drawn, as it says itself or as a presentation state says."""

    one: Found
    frame: int = 1
    state: Found | None = None

    def tag(self, asked: dict[str, Any]) -> str:
        """Name its picture."""
        stated = () if self.state is None else (self.state.sha256,)
        return tag(self.one.sha256, sorted({**asked, "frame": self.frame}.items()), *stated)

    @property
    def records(self) -> set[uuid.UUID]:
        """Whose it is."""
        return records([self.one] if self.state is None else [self.one, self.state])


def _of_a_size(state: Found) -> Found:
    """Refuse a state before its bytes are fetched from wherever they are."""
    if state.size_bytes > MAX_BYTES:
        text = f"État de présentation de plus de {MAX_BYTES} octets."
        raise InvalidContent("dicom-presentation-limit", text, rule=True)
    return state


def _too_many() -> InvalidContent:
    text = f"Au plus {_MAX_PICTURES} images dessinées par demande."
    return InvalidContent("dicom-frames", text, expression="frames")


async def _each(pieces: Sequence[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _query(request: Request) -> bytes:
    query: bytes = request.scope.get("query_string", b"")
    return query


def _asked(request: Request, state: Found | None = None) -> dict[str, Any]:
    """Read the parameters of a picture `[PS3.18 8.3.5.1]` as what a drawing process is told."""
    return _stated(dict(_repeated(_query(request), None)[0]), state)


def _wanted(request: Request, state: Found | None = None) -> dict[str, Any]:
    """Read the same, and the media type of one picture."""
    asked, kind = _repeated(_query(request), request.headers.get("accept", "*/*"))
    return _stated({**asked, "media_type": kind}, state)


def _stated(asked: dict[str, Any], state: Found | None) -> dict[str, Any]:
    """Refuse what a presentation state says itself `[PS3.18 table 8.3.5-1]`."""
    if state is not None and asked["window"] is not None:
        text = "Un état de présentation a sa propre fenêtre : sans « window »."
        raise InvalidContent("dicom-window", text, expression="window")
    if state is not None and asked["viewport"] is not None and asked["viewport"][2] is not None:
        text = "Un état de présentation a sa propre région : « viewport » sans elle."
        raise InvalidContent("dicom-viewport", text, expression="viewport")
    if state is not None and "iccprofile" in asked:
        text = "Un état de présentation a ses propres couleurs, montrées en sRGB : sans « iccprofile »."
        raise InvalidContent("dicom-icc-profile", text, expression="iccprofile")
    return asked


def _repeated(query: bytes, accept: str | None) -> tuple[dict[str, Any], str]:
    """Who looks through a series asks for each picture in the same words: they are read once."""
    long = len(query) + len(accept or "") > _REPEATED_CHARACTERS
    return _read.__wrapped__(query, accept) if long else _read(query, accept)


@lru_cache(maxsize=256)
def _read(query: bytes, accept: str | None) -> tuple[dict[str, Any], str]:
    headers = [] if accept is None else [(b"accept", accept.encode("latin-1"))]
    request = Request({"type": "http", "query_string": query, "headers": headers})
    asked = request.query_params
    window = asked.get("window")
    viewport = _viewport(asked.get("viewport"))
    read = Window.parse(window) if window else None
    said = {
        "window": read and [read.center, read.width, read.function],
        "viewport": viewport and _told(viewport),
        "quality": _quality(asked.get("quality")),
        **_colours(asked.get("iccprofile")),
    }
    return said, "" if accept is None else negotiate(request, tuple((kind, "") for kind in MEDIA_TYPES))[0]


def _told(viewport: Region) -> list[Any]:
    return [viewport.width, viewport.height, viewport.source and list(viewport.source)]


def _quality(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= 100:
        raise InvalidContent("dicom-quality", "Paramètre « quality » invalide : 1 à 100.", expression="quality")
    return int(text)


def _colours(text: str | None) -> dict[str, str]:
    """Read in which colour space a picture is wished for; nothing when nothing is."""
    if text is None:
        return {}
    if text not in WISHES:
        said = f"Paramètre « iccprofile » invalide : {', '.join(WISHES)}."
        raise InvalidContent("dicom-icc-profile", said, expression="iccprofile")
    return {"iccprofile": text}


def _knows(request: Request, name: str) -> bool:
    known = request.headers.get("if-none-match", "")[:1024]
    return known.strip() == "*" or name in (one.strip().removeprefix("W/") for one in known.split(","))


def _part_type(request: Request) -> str:
    """Choose the media type of the parts; a picture's own type cannot name several."""
    return negotiate(request, tuple(("multipart/related", kind) for kind in MEDIA_TYPES))[1]


def _viewport(text: str | None) -> Region | None:
    """Read ``viewport={vw},{vh}`` and the region that may follow `[PS3.18 8.3.5.1.3]`."""
    if text is None:
        return None
    numbers = text.split(",")
    if not all(_NUMBER.fullmatch(one) for one in numbers) or len(numbers) not in (2, 6):
        numbers = ["0", "0"]
    width, height = (float(one) for one in numbers[:2])
    source = tuple(float(one) for one in numbers[2:])
    if not 0 < width <= _MAX_VIEWPORT or not 0 < height <= _MAX_VIEWPORT or (source and not source[2] * source[3]):
        text = f"Paramètre « viewport » invalide : largeur,hauteur (1 à {_MAX_VIEWPORT}), puis x,y,largeur,hauteur."
        raise InvalidContent("dicom-viewport", text, expression="viewport")
    return Region(max(1, int(width)), max(1, int(height)), source or None)  # type: ignore[arg-type]
