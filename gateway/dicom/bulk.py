"""Bulk data: the values that metadata only name, one by its address, or all of an object, a series or a study.

`[PS3.18 10.4.1.1.5]`

Promises
--------
* What `gateway.dicom.asking` promises of every request.
* A value that stands in the file as it leaves is read while it leaves; no other is read, or inflated, in the process
  that serves. What has to be made is on loan (`gateway.dicom.held`).
* All of a study are the values that its metadata name, each with its address; compressed pixels a part a frame.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Final, NamedTuple

from fastapi import APIRouter, Request, Response

from gateway.dicom.asking import Who, negotiate, not_acceptable, records
from gateway.dicom.framed import MAX_MADE_BYTES, PLAIN, Framed
from gateway.dicom.held import AT_ONCE_BYTES, Loan
from gateway.dicom.layout import Place, value
from gateway.dicom.leaving import known, length, tag
from gateway.dicom.listed import Listed
from gateway.dicom.query import Found
from gateway.dicom.retrieval import PRIVATE, named
from gateway.dicom.transfer import KEPT, OCTETS, Form, frame_form
from gateway.errors import NotFound

__all__ = ["Bulk"]

_NAMED: Final = re.compile(r"[0-9A-Fa-f]{8}(?:\.[0-9]{1,6}\.[0-9A-Fa-f]{8}){0,8}", re.ASCII)
_PIXEL_DATA: Final = "7FE00010"
_RELATED: Final = "multipart/related"
#: How a value leaves that is no compressed picture.
_PLAINLY: Final = ((OCTETS, ""), (_RELATED, OCTETS))


class _Value(NamedTuple):
    """One value, or one frame of it: places of the object's file, or bytes on loan."""

    kind: str
    location: str
    places: Sequence[Place] = ()
    made: bytes = b""
    loan: Loan | None = None

    @property
    def length(self) -> int:
        return len(self.made) if self.loan is not None else length(self.places)


class Bulk(Framed):
    """Values of objects."""

    _base: str = ""

    def add_to(self, routes: APIRouter, base: str) -> None:
        """Add the routes; ``base`` is their public URL."""
        self._base = base
        add = partial(routes.add_api_route, methods=["GET"], response_class=Response, response_model=None)
        one = "/studies/{study}/series/{series}/instances/{instance}"
        add(f"{one}/bulkdata/{{place}}", self.one)
        for path in ("/studies/{study}", "/studies/{study}/series/{series}", one):
            add(f"{path}/bulkdata", self.all)

    async def one(self, request: Request, who: Who, study: str, series: str, instance: str, place: str) -> Response:
        """Give a value that the metadata only name."""
        [one, *_] = await self._found(who, study, series, instance)
        if not _NAMED.fullmatch(place):
            raise await self._hidden(who, "Instance", instance)
        place = place.upper()
        await self._tell(who, records([one]), "Bulkdata", instance, below=study)
        frames = await self._compressed(one, place)
        if frames:
            form = frame_form(request, one.transfer_syntax_uid, single=frames == 1)
        else:
            form = Form(OCTETS, KEPT, negotiate(request, _PLAINLY) == _PLAINLY[1])
        headers = {**PRIVATE, "ETag": tag(form, one.sha256, place)}
        if known(request, headers["ETag"]):
            return Response(None, 304, headers)
        values = self._values(one, place, form, frames)
        first = await anext(values)  # what cannot be had is refused, not begun
        if form.parts:
            return await self._parts(_following(one, first, values), form.media_type, headers)
        if first.loan is not None:
            return await self._leaving.whole(request, first.made, headers, first.kind, first.loan)
        if len(first.places) == 1:
            return await self._leaving.part_of(request, one, first.places[0], headers, first.kind)
        loan = await self._leaving.held.lend(first.length)
        content = b"".join([piece async for piece in self._leaving.read(one, first.places)])
        return await self._leaving.whole(request, content, headers, first.kind, loan)

    async def all(
        self, request: Request, who: Who, study: str, series: str | None = None, instance: str | None = None
    ) -> Response:
        """Give all values that the metadata of an object, a series or a study name."""
        found = await self._listed(who, study, series, instance, self._images.bulk)
        forms = {uid: _form(request, uid) for uid in sorted(found.transfer_syntaxes)}
        await self._tell(who, found.records, "Bulkdata", instance or series or study, objets=found.count)
        name = tag(Form(OCTETS, KEPT, parts=True), *found.names, *map(repr, forms.values()))
        headers = {**PRIVATE, "ETag": name}
        if known(request, headers["ETag"]):
            return Response(None, 304, headers)
        values = self._all(found, forms)
        try:
            one, first = await anext(values)
        except StopAsyncIteration:
            raise NotFound("inconnu", "Ces objets n’ont pas de données volumineuses.") from None
        return await self._parts(_followed(one, first, values), first.kind.partition(";")[0], headers)

    async def _all(
        self, found: Listed[tuple[Found, list[str]]], forms: dict[str, Form]
    ) -> AsyncIterator[tuple[Found, _Value]]:
        async for one, places in found.each():
            for place in places:
                frames = await self._compressed(one, place)
                form = forms[one.transfer_syntax_uid] if frames else Form(OCTETS, KEPT, parts=True)
                with contextlib.suppress(NotFound):  # metadata name the pixels of whatever says that it has rows
                    async for each in self._values(one, place, form, frames):
                        yield one, each

    async def _compressed(self, one: Found, place: str) -> int:
        """How many frames a value is that are compressed, and so leave one by one `[PS3.18 8.7.3.3.2]`; else 0."""
        if place != _PIXEL_DATA or one.transfer_syntax_uid in PLAIN:
            return 0
        where = await self._layout(one)
        return where.frames if where is not None and not where.frame_bytes else 0

    async def _values(self, one: Found, place: str, form: Form, frames: int) -> AsyncIterator[_Value]:
        """Give a value, or its frames one after another."""
        address = one.address(self._base)
        for number in range(1, frames + 1):
            location = f"{address}/frames/{number}"
            placed = await self._placed(one, [number], form)
            if placed is not None:
                yield _Value(named(form, one), location, placed[0])
                continue
            loan = await self._leaving.held.lend(await self._frame_bytes(one, form))
            content = await self._made(one, number, form)
            loan.shrink(len(content))
            yield _Value(named(form, one), location, made=content, loan=loan)
        if frames:
            return
        location = f"{address}/bulkdata/{place}"
        where = await self._where(one, place)
        if where is not None:
            yield _Value(OCTETS, location, [where])
            return
        loan = await self._leaving.held.lend(min(self._at_most(one), MAX_MADE_BYTES))
        _, content = await self.drawn(one, "value", place=place, most=loan.size)
        loan.shrink(len(content))
        yield _Value(OCTETS, location, made=content, loan=loan)

    async def _where(self, one: Found, place: str) -> Place | None:
        """Say where a value stands in the file as it leaves."""
        if "." in place:
            return None
        return await self.on_file(one, partial(value, tag=int(place, 16)))

    async def _parts(self, values: AsyncIterator[tuple[Found, _Value]], kind: str, headers: dict[str, str]) -> Response:
        boundary = secrets.token_hex(16)

        async def pieces() -> AsyncIterator[bytes]:
            async for one, each in values:
                said = f"Content-Type: {each.kind}\r\nContent-Length: {each.length}"
                yield f"--{boundary}\r\n{said}\r\nContent-Location: {each.location}\r\n\r\n".encode("ascii")
                if each.loan is None:
                    async for piece in self._leaving.read(one, each.places):
                        yield piece
                for at in range(0, len(each.made), AT_ONCE_BYTES):
                    yield each.made[at : at + AT_ONCE_BYTES]
                yield b"\r\n"  # taken once the last piece has nearly left
                if each.loan is not None:
                    each.loan.end()
            yield f"--{boundary}--\r\n".encode("ascii")

        return await self._leaving.flow(pieces(), 200, headers, f'{_RELATED}; type="{kind}"; boundary={boundary}')


def _form(request: Request, syntax: str) -> Form:
    """Choose how compressed pixels leave beside the other values."""
    form = frame_form(request, syntax, single=False)
    if not form.parts:
        raise not_acceptable(_RELATED)
    return form


async def _following(one: Found, first: _Value, others: AsyncIterator[_Value]) -> AsyncIterator[tuple[Found, _Value]]:
    yield one, first
    async for each in others:
        yield one, each


async def _followed(
    one: Found, first: _Value, others: AsyncIterator[tuple[Found, _Value]]
) -> AsyncIterator[tuple[Found, _Value]]:
    yield one, first
    async for each in others:
        yield each
