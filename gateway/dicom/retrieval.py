"""WADO-RS: studies, series, instances and frames, in the form that is asked for `[PS3.18 10.4]`.

`gateway.dicom.bulk` gives bulk data.

Promises
--------
* What `gateway.dicom.asking` promises of every request.
* Without a wish, or by ``transfer-syntax=*``, an object leaves as it came, byte for byte; else as
  `gateway.dicom.transfer` chooses, converted where decoders run.
* Each part says which object, or which frame, it is: its own address.
* What is answered as one piece has a strong ETag and can be had in ranges (206); a known one costs no bytes (304).
* What all answers of a process hold in memory together is bounded, however slowly they are read
  (`gateway.dicom.held`).
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Final

from fastapi import APIRouter, Request, Response

from gateway.dicom.asking import Who, frame_numbers, part, records
from gateway.dicom.framed import MAX_MADE_BYTES, Framed, within
from gateway.dicom.held import AT_ONCE_BYTES, Flow, Loan
from gateway.dicom.layout import Place
from gateway.dicom.leaving import Piece, known, length, tag
from gateway.dicom.listed import Listed
from gateway.dicom.query import Found
from gateway.dicom.transfer import DICOM, KEPT, OCTETS, Form, frame_form, object_form
from gateway.errors import GatewayError, InvalidContent, Unsupported

__all__ = ["PRIVATE", "Retrieval", "named"]

# Frames of one answer together: whoever wants more asks again.
_MAX_FRAMES_BYTES: Final = MAX_MADE_BYTES
PRIVATE: Final = {"Cache-Control": "private, no-cache", "Vary": "Accept"}


class Retrieval(Framed):
    """Objects and frames."""

    _base: str = ""

    def add_to(self, routes: APIRouter, base: str) -> None:
        """Add the routes; ``base`` is their public URL."""
        self._base = base
        add = partial(routes.add_api_route, methods=["GET"], response_class=Response, response_model=None)
        one = "/studies/{study}/series/{series}/instances/{instance}"
        for path in ("/studies/{study}", "/studies/{study}/series/{series}", one):
            add(path, self.objects)
        add(f"{one}/frames/{{frames}}", self.frames)

    # ---- objects

    async def objects(
        self, request: Request, who: Who, study: str, series: str | None = None, instance: str | None = None
    ) -> Response:
        """Give a study, a series or an instance."""
        found = await self._listed(who, study, series, instance, self._images.objects)
        form = object_form(request, set(found.transfer_syntaxes), single=instance is not None)
        kind, below = ("Instance", study) if instance else ("Study", None)
        await self._tell(who, found.records, kind, instance or study, below=below, objets=found.count)
        headers = {**PRIVATE, "ETag": tag(form, *found.names)}
        if known(request, headers["ETag"]):
            return Response(None, 304, headers)
        if form.parts:
            boundary = secrets.token_hex(16)
            kind = f'multipart/related; type="{DICOM}"; boundary={boundary}'
            return await self._leaving.flow(self._parts(found, form, boundary), 200, headers, kind)
        [one, *_] = found.at_hand
        if form.transfer_syntax == KEPT:
            kind = f"{DICOM}; transfer-syntax={one.transfer_syntax_uid}"
            return await self._leaving.part_of(request, one, Place(0, one.size_bytes), headers, kind)
        content, loan = await self._converted(one, form)
        kind = f"{DICOM}; transfer-syntax={form.transfer_syntax}"
        return await self._leaving.whole(request, content, headers, kind, loan)

    async def _converted(self, one: Found, form: Form) -> tuple[bytes, Loan]:
        """Convert an object into bytes on loan."""
        most = await self._object_bytes(one, form.transfer_syntax)
        try:
            loan = await self._leaving.held.lend(_convertible(most))
            _, content = await self.drawn(one, "transcoded", transfer_syntax=form.transfer_syntax, most=most)
        except InvalidContent as error:
            text = "Cet objet ne se convertit pas ; demander « transfer-syntax=* »."
            raise Unsupported("not-acceptable", text, expression="Accept") from error
        loan.shrink(len(content))
        return content, loan

    async def _parts(self, found: Listed[Found], form: Form, boundary: str) -> AsyncIterator[bytes]:
        async for one in found.each():
            kept, content, loan = one.transfer_syntax_uid, b"", None
            if form.transfer_syntax not in (KEPT, kept):
                try:
                    (content, loan), kept = await self._converted(one, form), form.transfer_syntax
                except GatewayError:
                    content = b""  # the answer has begun: this one leaves as it is kept, and its part says so
            size = len(content) or one.size_bytes
            yield part(boundary, f"{DICOM}; transfer-syntax={kept}", size, one.address(self._base))
            if loan is not None:
                for at in range(0, len(content), AT_ONCE_BYTES):
                    yield content[at : at + AT_ONCE_BYTES]
            else:
                async for chunk in self._blobs.stream_async(one.sha256):
                    yield chunk
            yield b"\r\n"  # taken once the last piece has nearly left
            if loan is not None:
                loan.end()
        yield f"--{boundary}--\r\n".encode("ascii")

    # ---- frames

    async def frames(self, request: Request, who: Who, study: str, series: str, instance: str, frames: str) -> Response:
        """Give some frames of an instance."""
        [one, *_] = await self._found(who, study, series, instance)
        numbers = frame_numbers(frames)
        form = frame_form(request, one.transfer_syntax_uid, single=len(numbers) == 1)
        headers = {**PRIVATE, "ETag": tag(form, one.sha256, frames)}
        # Told before anything is read: that it was asked for is told even when nothing could be drawn.
        await self._tell(who, records([one]), "Frame", instance, below=study, images=len(numbers))
        if known(request, headers["ETag"]):
            return Response(None, 304, headers)
        places = await self._placed(one, numbers, form)
        if places is None:
            return await self._drawn_frames(request, one, numbers, form, headers)
        within(sum(map(length, places)), _MAX_FRAMES_BYTES)
        if not form.parts and len(places[0]) == 1:
            return await self._leaving.part_of(request, one, places[0][0], headers, named(form, one))
        if not form.parts:
            size = length(places[0])
            loan = await self._leaving.held.lend(size)
            content = b"".join([piece async for piece in self._leaving.read(one, places[0])])
            return await self._leaving.whole(request, content, headers, named(form, one), loan)
        boundary = secrets.token_hex(16)
        pieces: list[Piece] = []
        for number, frame in zip(numbers, places, strict=True):
            location = f"{one.address(self._base)}/frames/{number}"
            pieces += (part(boundary, named(form, one), length(frame), location), *frame, b"\r\n")
        pieces.append(f"--{boundary}--\r\n".encode("ascii"))
        kind = f'multipart/related; type="{form.media_type}"; boundary={boundary}'
        return await self._leaving.answer(one, pieces, 200, headers, kind)

    async def _drawn_frames(
        self, request: Request, one: Found, numbers: Sequence[int], form: Form, headers: dict[str, str]
    ) -> Response:
        """Give frames that are made; all are, before the first byte leaves."""
        most = min(len(numbers) * await self._frame_bytes(one, form), _MAX_FRAMES_BYTES)
        loan = await self._leaving.held.lend(most)
        contents: list[bytes] = []
        size = 0
        for number in numbers:
            contents.append(await self._made(one, number, form))
            size = within(size + len(contents[-1]), most)
        loan.shrink(size)
        if not form.parts:
            return await self._leaving.whole(request, contents[0], headers, named(form, one), loan)
        boundary = secrets.token_hex(16)
        pieces: list[bytes] = []
        for number, content in zip(numbers, contents, strict=True):
            location = f"{one.address(self._base)}/frames/{number}"
            pieces += (part(boundary, named(form, one), len(content), location), content, b"\r\n")
        pieces.append(f"--{boundary}--\r\n".encode("ascii"))
        kind = f'multipart/related; type="{form.media_type}"; boundary={boundary}'
        headers = {**headers, "Content-Length": str(length(pieces))}
        return Flow(_each(pieces), 200, headers, kind, loan)


def _convertible(size: int) -> int:
    if size > MAX_MADE_BYTES:
        raise InvalidContent("dicom-too-large", f"Objet de plus de {MAX_MADE_BYTES} octets une fois converti.")
    return size


async def _each(pieces: Sequence[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        for at in range(0, len(piece), AT_ONCE_BYTES):
            yield piece[at : at + AT_ONCE_BYTES]


def named(form: Form, one: Found) -> str:
    """Give the media type of a frame, with the syntax that its bytes are in."""
    syntax = one.transfer_syntax_uid if form.transfer_syntax == KEPT else form.transfer_syntax
    return f"{form.media_type}; transfer-syntax={syntax}" if syntax and form.media_type != OCTETS else form.media_type
