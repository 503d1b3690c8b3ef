"""What leaves of kept objects: bytes at hand and places of their files, in one piece, in ranges, or while it is read.

Promises: what is small is one buffer and one write, what is not is read as fast as it is taken; what either holds is on
loan (`gateway.dicom.held`); an answer says how long it is before its first byte; a known one costs no bytes (304).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import BinaryIO, Final

import anyio
from starlette.requests import Request
from starlette.responses import Response

from gateway.dicom.held import AT_ONCE_BYTES, Buffers, Flow, Held, Loan, Whole
from gateway.dicom.layout import Place
from gateway.dicom.query import Found
from gateway.dicom.transfer import Form
from gateway.errors import Fault
from gateway.exchange.blobs import BlobStore

__all__ = ["Leaving", "Piece", "known", "length", "ranged", "tag"]

Piece = bytes | Place

_CHUNK_BYTES: Final = 1 << 20
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
# What is less has memory of its own.
_LITTLE_BYTES: Final = 64 << 10
# Readers of files at once: whoever reads waits for a disk.
_READERS: Final = 4
_PATHS: Final = 8192


def length(pieces: Sequence[Piece]) -> int:
    """Bytes of all."""
    return sum(piece.length if isinstance(piece, Place) else len(piece) for piece in pieces)


class Leaving:
    """Puts answers together.

    Parameters
    ----------
    held
        What answers hold at once.
    """

    def __init__(self, blobs: BlobStore, held: Held) -> None:
        self._blobs = blobs
        self.held = held
        self._buffers = Buffers()
        self._paths: dict[str, str] = {}  # putting a path together costs as much as opening it
        self._readers = anyio.CapacityLimiter(_READERS)

    async def answer(
        self, one: Found, pieces: Sequence[Piece], status: int, headers: Mapping[str, str], kind: str
    ) -> Response:
        """Answer bytes and places of an object's file, one after another.

        What is small and what the system has at hand is taken where it is asked for: a thread costs more.
        """
        size = length(pieces)
        if size > AT_ONCE_BYTES:
            return await self.flow(self.read(one, pieces), status, {**headers, "Content-Length": str(size)}, kind)
        if size <= _LITTLE_BYTES:
            loan = await self.held.lend(size)
            content, back = memoryview(bytearray(size)), None
        else:
            loan = await self.held.lend(AT_ONCE_BYTES)
            memory, content = self._buffers.of(size)
            back = partial(self._buffers.back, memory)
        if not _filled(self.path(one.sha256), pieces, content):
            await anyio.to_thread.run_sync(self._fill, one, pieces, content, limiter=self._readers)
        return Whole(content, status, headers, kind, loan, back)

    def path(self, sha256: str) -> str | None:
        """Give the file of an object in a local store; None in a remote one."""
        path = self._paths.get(sha256)
        if path is None and (found := self._blobs.path(sha256)) is not None:
            if len(self._paths) >= _PATHS:
                self._paths.clear()
            path = self._paths[sha256] = str(found)
        return path

    async def flow(self, pieces: AsyncIterator[bytes], status: int, headers: Mapping[str, str], kind: str) -> Response:
        """Answer what is read while it leaves."""
        return Flow(pieces, status, headers, kind, await self.held.lend(2 * _CHUNK_BYTES))

    async def whole(
        self, request: Request, content: bytes, headers: Mapping[str, str], kind: str, loan: Loan
    ) -> Response:
        """Answer bytes at hand, which are on loan, or the range of them that is asked for."""
        asked = ranged(request, len(content), headers)
        if isinstance(asked, Response):
            loan.end()
            return asked
        first, last, status, more = asked
        return Whole(memoryview(content)[first : last + 1], status, {**headers, **more}, kind, loan)

    async def part_of(
        self, request: Request, one: Found, place: Place, headers: Mapping[str, str], kind: str
    ) -> Response:
        """Answer a place of an object's file, or the range of it that is asked for."""
        asked = ranged(request, place.length, headers)
        if isinstance(asked, Response):
            return asked
        first, last, status, more = asked
        wanted = Place(place.start + first, last - first + 1)
        return await self.answer(one, [wanted], status, {**headers, **more}, kind)

    async def read(self, one: Found, pieces: Sequence[Piece]) -> AsyncIterator[bytes]:
        """Give bytes and places of an object's file as fast as they are taken."""
        file: BinaryIO | None = None
        try:
            for piece in pieces:
                if isinstance(piece, bytes):
                    yield piece
                    continue
                if file is None:
                    file = await anyio.to_thread.run_sync(self._blobs.open, one.sha256, limiter=self._readers)
                for at in range(piece.start, piece.start + piece.length, _CHUNK_BYTES):
                    wanted = min(_CHUNK_BYTES, piece.start + piece.length - at)
                    yield await anyio.to_thread.run_sync(_read, file, at, wanted, limiter=self._readers)
        finally:
            if file is not None:
                file.close()

    def _fill(self, one: Found, pieces: Sequence[Piece], content: memoryview) -> None:
        at = 0
        with self._blobs.open(one.sha256) as file:
            for piece in pieces:
                found = piece if isinstance(piece, bytes) else _read(file, piece.start, piece.length)
                content[at : at + len(found)] = found
                at += len(found)


def _read(file: BinaryIO, start: int, wanted: int) -> bytes:
    file.seek(start)
    content = file.read(wanted)
    if len(content) < wanted:
        raise Fault("blob-corrupt", "Un contenu conservé n’est plus celui qui a été confié.")
    return content


def _filled(path: str | None, pieces: Sequence[Piece], content: memoryview) -> bool:
    """Take what the system has of a file at hand; False when a disk would have to be waited for."""
    at = 0
    if path is None:
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        for piece in pieces:
            if isinstance(piece, bytes):
                content[at : at + len(piece)] = piece
                at += len(piece)
                continue
            end = at + piece.length
            if os.preadv(descriptor, [content[at:end]], piece.start, os.RWF_NOWAIT) < piece.length:
                return False
            at = end
    except OSError:  # nothing at hand, or a file system that does not say
        return False
    finally:
        os.close(descriptor)
    return True


@lru_cache(maxsize=4096)
def tag(form: Form, *names: str) -> str:
    """Strong: the same name is the same bytes, but for the boundaries of parts, which make it weak."""
    content = hashlib.sha256("|".join((form.media_type, form.transfer_syntax, *names)).encode()).hexdigest()[:40]
    return f'W/"{content}"' if form.parts else f'"{content}"'


def known(request: Request, name: str) -> bool:
    """Whether the asker has it already: compared weakly `[RFC 9110 13.1.2]`."""
    asked = request.headers.get("if-none-match")
    if not asked:
        return False
    said = [one.strip().removeprefix("W/") for one in asked.split(",")]
    return name.removeprefix("W/") in said or said == ["*"]


def ranged(request: Request, size: int, headers: Mapping[str, str]) -> tuple[int, int, int, dict[str, str]] | Response:
    """Read which bytes are asked for, what to answer, and how to say so; or refuse a range that is not there (416).

    Several ranges, or one that is unreadable, are not understood, which means all of it `[RFC 9110 14.2]`.
    """
    offered = {"Accept-Ranges": "bytes"}
    whole = (0, size - 1, 200, offered)
    name = headers["ETag"]
    found = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if found is None or request.headers.get("if-range", name) != name or not (found[1] or found[2]):
        return whole
    if not found[1]:
        first, last = max(0, size - int(found[2])), size - 1
    else:
        first, last = int(found[1]), min(int(found[2] or size - 1), size - 1)
        if found[2] and int(found[2]) < first:
            return whole
    if first >= size or (not found[1] and int(found[2]) == 0):
        return Response(None, 416, {**headers, "Content-Range": f"bytes */{size}"})
    return first, last, 206, {**offered, "Content-Range": f"bytes {first}-{last}/{size}"}
