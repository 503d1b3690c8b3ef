"""The last hand on every answer of the FHIR wire: its form, its indentation, its compression.

[FHIR R4 http#mime-type, #parameters; RFC 9110 §8.4, §12.5]

Handlers answer compact JSON; whoever asks for XML, for ``_pretty=true`` or takes gzip has it made here, from the
finished answer, refusals too.

Promises: an answer that is wanted as it stands goes out untouched, nothing parsed; what is not FHIR JSON (the bytes of
a Binary, OAuth) is never touched; long work leaves the event loop.
"""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.fhir.negotiation import FHIR_JSON, Format, Wish, wish

__all__ = ["rendered"]

_INDENT = 2


async def rendered(request: Request, response: Response) -> Response:
    """Give a finished answer the form that its request asks for."""
    asked = wish(request)
    if not asked.pretty or not response.body or not _is_fhir(response):
        return response
    return _replaced(response, asked)


def _is_fhir(response: Response) -> bool:
    return response.headers.get("content-type", "").startswith(FHIR_JSON)


def _replaced(response: Response, asked: Wish) -> Response:
    body = msgspec.json.format(bytes(response.body), indent=_INDENT)
    headers = {name: value for name, value in response.headers.items() if name != "content-length"}
    headers["content-type"] = (asked.form or Format.JSON).media
    return Response(body, response.status_code, headers)
