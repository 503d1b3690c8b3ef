"""How data sets leave in answers of DICOMweb: as DICOM JSON, or as Native DICOM Model `[PS3.18 8.7.3, F]`.

Promises: the form that is liked best among those that can be had (`gateway.dicom.asking.negotiate`); without a wish,
JSON. Data sets leave in XML as parts of
``multipart/related``, one each; one that is asked for by its own address alone too. XML is written while it leaves.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

import anyio
from fastapi import Response
from fastapi.responses import StreamingResponse

from gateway.dicom.asking import Offer, part
from gateway.dicom.native_model import written

__all__ = ["JSON", "MANY", "ONE", "STORED", "XML", "answer", "flowing", "in_xml"]

JSON: Final = "application/dicom+json"
XML: Final = "application/dicom+xml"
_PLAIN_JSON: Final = "application/json"
_RELATED: Final = "multipart/related"
_LONG_BYTES: Final = 64 << 10

#: What many leave as, what one does that is asked for by its own address, and what says how objects were stored.
MANY: Final[tuple[Offer, ...]] = ((JSON, ""), (_PLAIN_JSON, ""), (_RELATED, XML))
ONE: Final[tuple[Offer, ...]] = (*MANY, (XML, ""))
STORED: Final[tuple[Offer, ...]] = ((JSON, ""), (_PLAIN_JSON, ""), (XML, ""))


async def in_xml(stored: bytes) -> bytes:
    """Write a DICOM JSON object as XML; a long one beside the event loop."""
    return written(stored) if len(stored) < _LONG_BYTES else await anyio.to_thread.run_sync(written, stored)


async def answer(form: Offer, data_sets: Sequence[bytes], headers: Mapping[str, str] | None = None) -> Response:
    """Answer data sets, each a DICOM JSON object."""
    name, of_parts = form
    if of_parts:
        boundary = secrets.token_hex(16)
        kind = f'{_RELATED}; type="{XML}"; boundary={boundary}'
        return StreamingResponse(_parts(_each(data_sets), boundary), 200, headers, kind)
    if name == XML:
        return Response(await in_xml(data_sets[0]), 200, headers, XML)
    return Response(b"[" + b",".join(data_sets) + b"]", 200, headers, name)


def flowing(form: Offer, data_sets: AsyncIterator[bytes]) -> tuple[str, AsyncIterator[bytes]]:
    """Give the media type of an answer of many data sets, and its bytes while they are read."""
    name, of_parts = form
    if not of_parts:
        return name, _listed(data_sets)
    boundary = secrets.token_hex(16)
    return f'{_RELATED}; type="{XML}"; boundary={boundary}', _parts(data_sets, boundary)


async def _each(data_sets: Sequence[bytes]) -> AsyncIterator[bytes]:
    for one in data_sets:
        yield one


async def _listed(data_sets: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Write a JSON array in pieces that are worth sending."""
    piece = bytearray(b"[")
    async for one in data_sets:
        piece += one
        if len(piece) >= _LONG_BYTES:
            yield bytes(piece)
            piece.clear()
        piece += b","
    yield bytes(piece.removesuffix(b",")) + b"]"


async def _parts(data_sets: AsyncIterator[bytes], boundary: str) -> AsyncIterator[bytes]:
    async for one in data_sets:
        content = await in_xml(one)
        yield part(boundary, XML, len(content)) + content + b"\r\n"
    yield f"--{boundary}--\r\n".encode("ascii")
