"""The body of a request, read under a limit that has a name.

Promises: no more than the limit is ever held, whether the length is announced, sent in chunks or hidden in a
compressed body (a small gzip that unfolds to gigabytes is refused while it unfolds); the refusal names the limit, its
value and its setting. The bytes are those that the client sent, after removal of ``Content-Encoding``. Who sends
nothing of it for a minute is left.

It does not promise a media type: that is the wire's.

A route is ``def`` and takes its raw bytes from a dependency, because FastAPI parses ``+json`` bodies before a ``def``
route sees them (DESIGN §4)::

    @router.post("/Patient")
    def create(body: Annotated[bytes, Depends(body_under(FHIR_BODY))]) -> Response: ...
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from gateway.errors import InvalidContent, Unavailable, Unsupported

__all__ = ["Limit", "body_stream", "body_under", "form_under", "incomplete", "read_body", "refuse_length"]

SILENCE_S: Final = 60.0
"""How long nothing may come of a body that is not whole."""

_INFLATE_STEP_BYTES: Final = 64 * 1024
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
_ZLIB_WINDOW: Final = zlib.MAX_WBITS
_ENCODINGS: Final[dict[str, int]] = {"gzip": _GZIP_WINDOW, "x-gzip": _GZIP_WINDOW, "deflate": _ZLIB_WINDOW}
"""Content codings that are undone, with zlib's window for each [RFC 9110 §8.4.1]."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit and its name: what a refusal says.

    Parameters
    ----------
    name
        The setting that carries it, as an operator knows it, such as ``RCP_FHIR_BODY_BYTES`` or ``fhir.body``.
    max_bytes
        Largest body accepted, in bytes, after removal of any compression.
    """

    name: str
    max_bytes: int

    def refusal(self) -> InvalidContent:
        """Build the refusal that names this limit (HTTP 413)."""
        return InvalidContent(
            "body-too-large",
            f"Le contenu envoyé dépasse la limite « {self.name} » : {self.max_bytes} octets au plus.",
        )


def refuse_length(request: Request, limit: Limit) -> None:
    """Refuse at once a body whose announced length is over the limit or is no length at all.

    Raises
    ------
    InvalidContent
        ``body-too-large`` or ``content-length-invalid``.
    """
    announced = request.headers.get("content-length")
    if announced is None:
        return
    if not (announced.isascii() and announced.isdigit()):
        raise InvalidContent("content-length-invalid", "L’en-tête Content-Length n’est pas un nombre d’octets.")
    if int(announced) > limit.max_bytes:
        raise limit.refusal()


async def body_stream(request: Request, limit: Limit) -> AsyncIterator[bytes]:
    """Yield the body piece by piece, decoded, and stop with the refusal as soon as the limit is passed.

    For bodies that go to a file (STOW-RS, attachments); what was already yielded must be thrown away by the caller
    when an error comes.

    Raises
    ------
    InvalidContent
        ``body-too-large``, ``content-length-invalid``, ``body-incomplete`` (the client left, or the compressed body
        is cut short or damaged).
    Unsupported
        ``body-encoding-unknown``: a ``Content-Encoding`` that is not undone here (HTTP 415).
    """
    refuse_length(request, limit)
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    raw = _counted(request, limit)
    if coding in {"", "identity"}:
        async for piece in raw:
            yield piece
        return
    window = _ENCODINGS.get(coding)
    if window is None:
        raise Unsupported(
            "body-encoding-unknown",
            "Ce codage de contenu (Content-Encoding) n’est pas accepté ; utilisez « gzip », « deflate » ou aucun.",
        )
    async for piece in _inflated(raw, window, limit):
        yield piece


async def read_body(request: Request, limit: Limit) -> bytes:
    """Return the whole body, decoded, or refuse it; see `body_stream` for the refusals."""
    return b"".join([piece async for piece in body_stream(request, limit)])


def body_under(limit: Limit | Callable[[Request], Limit]) -> Callable[[Request], Awaitable[bytes]]:
    """Make the FastAPI dependency that hands a ``def`` route its raw body, read under `limit`.

    Parameters
    ----------
    limit
        The limit, or a function of the request that finds it (in ``request.app.state``, for one that is a setting).
    """

    async def body(request: Request) -> bytes:
        return await read_body(request, limit(request) if callable(limit) else limit)

    return body


async def form_under(request: Request, limit: Limit, *, max_fields: int = 200, max_files: int = 20) -> FormData:
    """Parse a page's form (urlencoded or multipart) under a limit; files spool to disk above 1 MiB.

    The caller closes the form (``await form.close()``) once its files are kept.

    Raises
    ------
    InvalidContent
        ``body-too-large``, ``form-unreadable`` (malformed, or more fields or files than allowed), ``body-incomplete``.
    """
    refuse_length(request, limit)
    seen = 0

    async def receive() -> Message:
        nonlocal seen
        try:
            async with asyncio.timeout(SILENCE_S):
                message = await request.receive()
        except TimeoutError:
            raise _silent() from None
        seen += len(message.get("body", b""))
        if seen > limit.max_bytes:
            raise limit.refusal()
        return message

    counted = Request(request.scope, receive)
    try:
        return await counted.form(max_fields=max_fields, max_files=max_files, max_part_size=limit.max_bytes)
    except ClientDisconnect as left:
        raise incomplete() from left
    except (MultiPartException, ValueError, RuntimeError) as broken:
        raise _form_unreadable() from broken
    except Exception as broken:
        # Starlette turns its own MultiPartException into an HTTPException when an application is in the scope.
        if type(broken).__name__ == "HTTPException":
            raise _form_unreadable() from broken
        raise


async def _counted(request: Request, limit: Limit) -> AsyncIterator[bytes]:
    seen = 0
    pieces = request.stream()
    try:
        while True:
            async with asyncio.timeout(SILENCE_S):
                piece = await anext(pieces, None)
            if piece is None:
                return
            seen += len(piece)
            if seen > limit.max_bytes:
                raise limit.refusal()
            if piece:
                yield piece
    except TimeoutError:
        raise _silent() from None
    except ClientDisconnect as left:
        raise incomplete() from left


async def _inflated(raw: AsyncIterator[bytes], window: int, limit: Limit) -> AsyncIterator[bytes]:
    unfolding = _Unfolding(window)
    seen = 0
    async for piece in raw:
        for plain in unfolding.feed(piece):
            seen += len(plain)
            if seen > limit.max_bytes:
                raise limit.refusal()
            yield plain
    if not unfolding.complete:
        raise incomplete()


class _Unfolding:
    """Decompresses by small steps, so that the limit is looked at before the next step is taken."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._member = zlib.decompressobj(window)
        self._begun = False

    @property
    def complete(self) -> bool:
        """Whether nothing was begun or the last member has its end."""
        return self._member.eof or not self._begun

    def feed(self, piece: bytes) -> Iterator[bytes]:
        self._begun = True
        rest = piece
        while True:
            # One member after another: gzip allows several, and stopping at the first would drop bytes in silence.
            if self._member.eof and rest:
                self._member = zlib.decompressobj(self._window)
            try:
                plain = self._member.decompress(rest, _INFLATE_STEP_BYTES)
            except zlib.error as damaged:
                raise incomplete() from damaged
            rest = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if plain:
                yield plain
            # A full step may leave plain bytes inside zlib without any input left.
            if not rest and len(plain) < _INFLATE_STEP_BYTES:
                return


def incomplete() -> InvalidContent:
    """Say that the body broke off, or is damaged."""
    return InvalidContent("body-incomplete", "Le contenu envoyé est incomplet ou endommagé.")


def _silent() -> Unavailable:
    """Say that nothing came of the body for too long."""
    return Unavailable("body-silence", f"Rien n’est arrivé pendant {SILENCE_S:.0f} s.")


def _form_unreadable() -> InvalidContent:
    return InvalidContent("form-unreadable", "Le formulaire envoyé est illisible ou comporte trop de champs.")
