"""The last hand on every answer of the FHIR wire: its form, its indentation, its compression.

[FHIR R4 http#mime-type, #parameters; RFC 9110 §8.4, §12.5]

Handlers answer compact JSON; whoever asks for XML, for ``_pretty=true`` or takes gzip has it made here, from the
finished answer, refusals too. Compression stands here rather than around the application: pages hold secrets that
must not be compressed beside what a visitor chose, and the bytes of a Binary are mostly compressed already.

Promises: an answer that is wanted as it stands goes out untouched, nothing parsed; what is not FHIR JSON (the bytes of
a Binary, OAuth) is never touched; ETags are weak, so that they name a version whatever its form; long work leaves the
event loop.
"""

from __future__ import annotations

import gzip
from functools import lru_cache, partial
from typing import Final

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from gateway.fhir import document, xml_write
from gateway.fhir.negotiation import MEDIA, Format, Wish, takes, wish

__all__ = ["GZIP_FROM_BYTES", "rendered"]

#: Smaller answers are not compressed: they fill one packet as they are.
GZIP_FROM_BYTES: Final = 1400
#: A level that takes half the time of zlib's own for a twentieth more bytes (Bundles of patients).
_GZIP_LEVEL: Final = 4
#: Above this an answer is worked on in a thread.
_LONG_BYTES: Final = 32 * 1024
_VARY: Final = (b"vary", b"Accept, Accept-Encoding")


async def rendered(request: Request, response: Response) -> Response:
    """Give a finished answer the form that its request asks for."""
    if response.media_type != MEDIA:
        if response.status_code == 304:
            response.raw_headers.append(_VARY)
        return response
    response.raw_headers.append(_VARY)
    size = len(response.body)
    asked = wish(request)
    plain = asked.form is not Format.XML and not asked.pretty
    zipped = size >= GZIP_FROM_BYTES and takes_gzip(request.headers.get("accept-encoding", ""))
    if not size or (plain and not zipped):
        return response
    work = partial(_made, bytes(response.body), asked, zipped=zipped)
    body = work() if size < _LONG_BYTES else await run_in_threadpool(work)
    headers = response.headers
    headers["content-length"] = str(len(body))
    if asked.form is not None:
        headers["content-type"] = asked.form.media
    if zipped:
        headers["content-encoding"] = "gzip"
    response.body = body
    return response


def _made(body: bytes, asked: Wish, *, zipped: bool) -> bytes:
    if asked.form is Format.XML:
        body = xml_write.encode(document.decode(body), pretty=asked.pretty)
    elif asked.pretty:
        body = msgspec.json.format(body)
    return gzip.compress(body, _GZIP_LEVEL, mtime=0) if zipped else body


@lru_cache(maxsize=256)
def takes_gzip(accept_encoding: str) -> bool:
    """Whether an ``Accept-Encoding`` takes gzip [RFC 9110 §12.5.3]."""
    return takes(accept_encoding, "gzip")
