"""WADO-RS: studies, series, instances, bulk data and frames, in the form that is asked for `[PS3.18 10.4]`.

Promises
--------
* What `gateway.dicom.asking` promises of every request.
* Without a wish, or by ``transfer-syntax=*``, an object leaves as it came, byte for byte; else as
  `gateway.dicom.transfer` chooses, converted where decoders run.
* What is answered as one piece has a strong ETag and can be had in ranges (206); a known one costs no bytes (304).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import pydicom
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gateway.dicom.asking import Who, Wire, frame_numbers, negotiate, part, records
from gateway.dicom.frames import Frames
from gateway.dicom.query import Found
from gateway.dicom.transfer import DICOM, KEPT, OCTETS, Form, frame_form, object_form
from gateway.errors import GatewayError, InvalidContent, NotFound, Unsupported

__all__ = ["Retrieval"]

# One answer of frames is held whole: they are said to exist before the first byte leaves.
_MAX_FRAMES_BYTES: Final = 256 << 20
_CHUNK_BYTES: Final = 1 << 20
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_BULK: Final = re.compile(r"[0-9A-Fa-f]{8}(?:\.[0-9]{1,6}\.[0-9A-Fa-f]{8}){0,8}", re.ASCII)
_PIXEL_DATA: Final = "7FE00010"
#: Uncompressed and little endian: a frame is a piece of the file.
_PLAIN: Final = frozenset({str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)})
_PRIVATE: Final = {"Cache-Control": "private, no-cache", "Vary": "Accept"}


class _Layout(NamedTuple):
    """Where the frames of an object stand in its file."""

    start: int
    frame_bytes: int
    frames: int


class Retrieval(Wire):
    """Objects, frames and bulk data."""

    _layouts: OrderedDict[str, _Layout | None]

    def add_to(self, routes: APIRouter) -> None:
        """Add the routes."""
        self._layouts = OrderedDict()
        add = partial(routes.add_api_route, methods=["GET"], response_class=Response, response_model=None)
        one = "/studies/{study}/series/{series}/instances/{instance}"
        for path in ("/studies/{study}", "/studies/{study}/series/{series}", one):
            add(path, self.objects)
        add(f"{one}/frames/{{frames}}", self.frames)
        add(f"{one}/bulkdata/{{place}}", self.bulk)

    # ---- objects

    async def objects(
        self, request: Request, who: Who, study: str, series: str | None = None, instance: str | None = None
    ) -> Response:
        """Give a study, a series or an instance."""
        found = await self._found(who, study, series, instance)
        form = object_form(request, {one.transfer_syntax_uid for one in found}, single=instance is not None)
        await self._tell(who, records(found), "Instance" if instance else "Study", instance or study, objets=len(found))
        tag = _tag(form, *(one.sha256 for one in found))
        if _known(request, tag):
            return Response(None, 304, {**_PRIVATE, "ETag": tag})
        headers = {**_PRIVATE, "ETag": tag}
        if form.parts:
            boundary = secrets.token_hex(16)
            kind = f'multipart/related; type="{DICOM}"; boundary={boundary}'
            return StreamingResponse(self._parts(found, form, boundary), 200, headers, kind)
        [one, *_] = found
        if form.transfer_syntax == KEPT:
            kind = f"{DICOM}; transfer-syntax={one.transfer_syntax_uid}"
            return self._ranged(request, one, 0, one.size_bytes, headers, kind)
        content = await self._converted(one, form)
        return _piece(request, content, headers, f"{DICOM}; transfer-syntax={form.transfer_syntax}")

    async def _converted(self, one: Found, form: Form) -> bytes:
        try:
            _, content = await self.drawn(one, "transcoded", transfer_syntax=form.transfer_syntax)
        except InvalidContent as error:
            text = "Cet objet ne se convertit pas ; demander « transfer-syntax=* »."
            raise Unsupported("not-acceptable", text, expression="Accept") from error
        return content

    async def _parts(self, found: Sequence[Found], form: Form, boundary: str) -> AsyncIterator[bytes]:
        for one in found:
            kept, content = one.transfer_syntax_uid, b""
            if form.transfer_syntax not in (KEPT, kept):
                try:
                    content, kept = await self._converted(one, form), form.transfer_syntax
                except GatewayError:
                    content = b""  # the answer has begun: this one leaves as it is kept, and its part says so
            yield part(boundary, f"{DICOM}; transfer-syntax={kept}", len(content) or one.size_bytes)
            if content:
                yield content
            else:
                async for chunk in self._blobs.stream_async(one.sha256):
                    yield chunk
            yield b"\r\n"
        yield f"--{boundary}--\r\n".encode("ascii")

    # ---- frames

    async def frames(self, request: Request, who: Who, study: str, series: str, instance: str, frames: str) -> Response:
        """Give some frames of an instance."""
        [one, *_] = await self._found(who, study, series, instance)
        numbers = frame_numbers(frames)
        form = frame_form(request, one.transfer_syntax_uid, single=len(numbers) == 1)
        tag = _tag(form, one.sha256, frames)
        headers = {**_PRIVATE, "ETag": tag}
        told = asyncio.ensure_future(self._tell(who, records([one]), "Frame", instance, images=len(numbers)))
        try:
            known = _known(request, tag)
            contents = [] if known else await self._contents(one, numbers, form)
        finally:
            await told
        if known:
            return Response(None, 304, headers)
        if not form.parts:
            return _piece(request, contents[0], headers, _named(form, one))
        boundary = secrets.token_hex(16)
        pieces: list[bytes] = []
        for content in contents:
            pieces += (part(boundary, _named(form, one), len(content)), content, b"\r\n")
        pieces.append(f"--{boundary}--\r\n".encode("ascii"))
        kind = f'multipart/related; type="{form.media_type}"; boundary={boundary}'
        return Response(b"".join(pieces), 200, headers, kind)

    async def _contents(self, one: Found, numbers: Sequence[int], form: Form) -> list[bytes]:
        if form.transfer_syntax == KEPT:
            return await self.on_file(one, partial(_kept_frames, numbers=numbers))
        contents: list[bytes] = []
        size = 0
        for number in numbers:
            contents.append(await self._frame(one, number, form))
            size = _within(size + len(contents[-1]))
        return contents

    async def _frame(self, one: Found, number: int, form: Form) -> bytes:
        if form.media_type != OCTETS:
            return (await self.drawn(one, "encoded", frame=number, media_type=form.media_type))[1]
        if one.transfer_syntax_uid not in _PLAIN:
            return (await self.drawn(one, "frame", frame=number))[1]
        return await self.on_file(one, partial(self._plain, one.sha256, number))

    def _plain(self, sha256: str, number: int, path: Path) -> bytes:
        """Read one uncompressed frame; of an object that was read before, its place is known."""
        layout = self._layouts.get(sha256)
        if layout is None or not 1 <= number <= layout.frames:
            frames = Frames(path)
            content = frames.raw(number)
            place = frames.place(number)
            if place is not None:
                self._layouts[sha256] = _Layout(place - (number - 1) * len(content), len(content), frames.count)
                while len(self._layouts) > _MAX_LAYOUTS:
                    self._layouts.popitem(last=False)
            return content
        with path.open("rb", buffering=0) as file:
            content = os.pread(file.fileno(), layout.frame_bytes, layout.start + (number - 1) * layout.frame_bytes)
        if len(content) < layout.frame_bytes:
            raise InvalidContent("dicom-pixels", "Pixels manquants.")
        return content

    # ---- bulk data

    async def bulk(self, request: Request, who: Who, study: str, series: str, instance: str, place: str) -> Response:
        """Give a value that the metadata only name."""
        [one, *_] = await self._found(who, study, series, instance)
        if not _BULK.fullmatch(place):
            raise await self._hidden(who, "Instance", instance)
        if place.upper() == _PIXEL_DATA and one.transfer_syntax_uid not in _PLAIN:
            count = await self.on_file(one, lambda path: Frames(path).count)
            numbers = ",".join(str(number) for number in range(1, count + 1))
            return await self.frames(request, who, study, series, instance, numbers)
        parts = negotiate(request, (OCTETS, "multipart/related"), related=OCTETS) != OCTETS
        start, length, content = await self.on_file(one, partial(_value, place=place.upper()))
        await self._tell(who, records([one]), "Bulkdata", instance)
        headers = {**_PRIVATE, "ETag": _tag(Form(OCTETS, KEPT, parts), one.sha256, place.upper())}
        if _known(request, headers["ETag"]):
            return Response(None, 304, headers)
        if parts:
            boundary = secrets.token_hex(16)
            kind = f'multipart/related; type="{OCTETS}"; boundary={boundary}'
            head, end = part(boundary, OCTETS, length), f"\r\n--{boundary}--\r\n".encode("ascii")
            return StreamingResponse(self._wrapped(one, start, length, content, (head, end)), 200, headers, kind)
        if start < 0:
            return _piece(request, content, headers, OCTETS)
        return self._ranged(request, one, start, length, headers, OCTETS)

    # ---- pieces

    def _ranged(
        self, request: Request, one: Found, start: int, length: int, headers: Mapping[str, str], kind: str
    ) -> Response:
        """Stream a part of a kept file, or the range of it that is asked for."""
        asked = _range(request, length, headers["ETag"])
        if asked is None:
            return _unsatisfied(length, headers)
        first, last, status, more = asked
        size = last - first + 1
        whole = start == 0 and size == one.size_bytes
        body = self._blobs.stream_async(one.sha256) if whole else self._stretch(one, start + first, size)
        return StreamingResponse(body, status, {**headers, **more, "Content-Length": str(size)}, kind)

    async def _wrapped(
        self, one: Found, start: int, length: int, content: bytes, around: tuple[bytes, bytes]
    ) -> AsyncIterator[bytes]:
        yield around[0]
        if start < 0:
            yield content
        else:
            async for piece in self._stretch(one, start, length):
                yield piece
        yield around[1]

    async def _stretch(self, one: Found, start: int, length: int) -> AsyncIterator[bytes]:
        for at in range(start, start + length, _CHUNK_BYTES):
            yield await self.on_file(one, partial(_read, start=at, length=min(_CHUNK_BYTES, start + length - at)))


_MAX_LAYOUTS: Final = 8192


def _kept_frames(path: Path, numbers: Sequence[int]) -> list[bytes]:
    """Read frames as they are kept; the head, which may name thousands of them, is read once."""
    frames, contents, size = Frames(path), [], 0
    for number in numbers:
        contents.append(frames.raw(number))
        size = _within(size + len(contents[-1]))
    return contents


def _within(size: int) -> int:
    if size > _MAX_FRAMES_BYTES:
        text = f"Ces images dépassent {_MAX_FRAMES_BYTES} octets par réponse : demandez-en moins à la fois."
        raise InvalidContent("dicom-frames", text, expression="frames")
    return size


def _named(form: Form, one: Found) -> str:
    """Give the media type of a frame, with the syntax that its bytes are in."""
    syntax = one.transfer_syntax_uid if form.transfer_syntax == KEPT else form.transfer_syntax
    return f"{form.media_type}; transfer-syntax={syntax}" if syntax and form.media_type != OCTETS else form.media_type


def _read(path: Path, start: int, length: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), length, start)


def _value(path: Path, place: str) -> tuple[int, int, bytes]:
    """Find a value: where it stands in the file and its length; or a negative place, and the bytes."""
    first, *steps = place.split(".")
    if first == _PIXEL_DATA and not steps:
        frames = Frames(path)
        frames.judge(1)
        found = frames.place(1)
        if found is None:
            raise _nowhere()
        # What an object says of its length may be more than there is.
        return found, max(0, min(frames.length, path.stat().st_size - found)), b""
    ds: Dataset = pydicom.dcmread(path, stop_before_pixels=True, defer_size=1 << 16)
    try:
        for item, tag in zip(steps[::2], steps[1::2], strict=True):
            ds, first = ds[int(first, 16)].value[int(item) - 1], tag
        value = ds[int(first, 16)].value
    except Exception as error:  # whatever the bytes and the path lead the library to
        raise _nowhere() from error
    if isinstance(value, (bytes, str)):
        content = value if isinstance(value, bytes) else value.encode()
    elif isinstance(value, pydicom.multival.MultiValue):
        content = "\\".join(map(str, value)).encode()
    else:
        raise _nowhere()
    return -1, len(content), content


def _nowhere() -> NotFound:
    return NotFound("inconnu", "Image inconnue.")


def _tag(form: Form, *names: str) -> str:
    """Strong: the same name is the same bytes, but for the boundaries of parts, which make it weak."""
    content = hashlib.sha256("|".join((form.media_type, form.transfer_syntax, *names)).encode()).hexdigest()[:40]
    return f'W/"{content}"' if form.parts else f'"{content}"'


def _known(request: Request, tag: str) -> bool:
    """Whether the asker has it already: compared weakly `[RFC 9110 13.1.2]`."""
    said = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    return tag.removeprefix("W/") in said or said == ["*"]


def _range(request: Request, length: int, tag: str) -> tuple[int, int, int, dict[str, str]] | None:
    """Read which bytes are asked for, what to answer, and how to say so; None for a range that is not there.

    Several ranges, or one that is unreadable, are not understood, which means all of it `[RFC 9110 14.2]`.
    """
    offered = {"Accept-Ranges": "bytes"}
    whole = (0, length - 1, 200, offered)
    found = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if found is None or request.headers.get("if-range", tag) != tag or not (found[1] or found[2]):
        return whole
    if not found[1]:
        first, last = max(0, length - int(found[2])), length - 1
    else:
        first, last = int(found[1]), min(int(found[2] or length - 1), length - 1)
        if found[2] and int(found[2]) < first:
            return whole
    if first >= length or (not found[1] and int(found[2]) == 0):
        return None
    return first, last, 206, {**offered, "Content-Range": f"bytes {first}-{last}/{length}"}


def _unsatisfied(length: int, headers: Mapping[str, str]) -> Response:
    return Response(None, 416, {**headers, "Content-Range": f"bytes */{length}"})


def _piece(request: Request, content: bytes, headers: Mapping[str, str], kind: str) -> Response:
    """Answer bytes at hand, or the range of them that is asked for."""
    asked = _range(request, len(content), headers["ETag"])
    if asked is None:
        return _unsatisfied(len(content), headers)
    first, last, status, more = asked
    return Response(content[first : last + 1], status, {**headers, **more}, kind)
