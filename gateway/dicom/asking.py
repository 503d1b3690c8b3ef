"""What every DICOMweb request is asked and told: rights, refusals, the trail, the media type.

Promises: what the caller may not see does not exist (404, audited); a SMART client needs a scope that reads
ImagingStudy; one audit line an answer, naming the records, durable before the first byte leaves, or following it
closely where the trail says already that the study is open to the caller (`gateway.dicom.opened`). Answers nothing:
`gateway.dicom.dicomweb` and `gateway.dicom.rendered` do.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, cast

import anyio
from fastapi import Depends, Request

from gateway.dicom.command import is_uid
from gateway.dicom.drawing import Drawing
from gateway.dicom.multipart import media_type
from gateway.dicom.query import Found, Images
from gateway.errors import Forbidden, InvalidContent, NotFound, Unsupported
from gateway.exchange.blobs import CHUNK_BYTES, BlobStore
from gateway.model.audit import AuditFacts
from gateway.rcp import access
from gateway.rcp.access import Caller, CallerKind
from gateway.web.authenticators import BEARER, OPEN, SESSION, caller_of

__all__ = [
    "Offer",
    "Who",
    "Wire",
    "acceptable",
    "asked",
    "asked_types",
    "frame_numbers",
    "negotiate",
    "not_acceptable",
    "on_disk",
    "part",
    "ranges",
    "records",
]

T = TypeVar("T")

_MAX_FRAMES: Final = 256
_FRAMES: Final = re.compile(r"[0-9]{1,6}(?:,[0-9]{1,6})*")
# Choosing a media type takes time that grows with the square of the question.
_MAX_ACCEPT_CHARACTERS: Final = 1024
# Decoding is processor work: more at once only makes each slower.
_WORKERS: Final = 4
# Objects of a remote store on this disk at once.
_COPIES: Final = 16
# SMART scopes that read images, v2 and the words of v1.
_READS_IMAGES: Final = re.compile(r"(?:system|user)/(?:\*|ImagingStudy)\.(?:c?ru?d?s?|read|\*)(?:\?.*)?")

_QUALITY: Final = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")

#: A media type that an answer may leave as, and of ``multipart/related`` the type of its parts.
Offer = tuple[str, str]

Who = Annotated[Caller, Depends(caller_of(SESSION, BEARER, OPEN))]


class Wire:
    """What searches, retrieval and rendering share: rights, refusals, the trail, the object as a file."""

    def __init__(self, images: Images, blobs: BlobStore, drawing: Drawing) -> None:
        self._images = images
        self._blobs = blobs
        self._drawing = drawing
        self._workers = anyio.CapacityLimiter(_WORKERS)
        self._copies = anyio.CapacityLimiter(_COPIES)

    async def _tell(
        self,
        caller: Caller,
        records: Iterable[uuid.UUID],
        kind: str,
        uid: str | None,
        *,
        below: str | None = None,
        **detail: int,
    ) -> None:
        """Leave a line in the trail, durable when this returns; of one object ``below`` a study, see `Opened`."""
        persons = tuple(sorted(set(records)))
        line = access.facts(
            caller,
            "imagerie" if uid else "recherche",
            persons=persons,
            object_type=kind,
            object_id=uid,
            detail={**({"etude": below} if below else {}), **detail} or None,
        )
        if below is None:
            await self._images.reads.record(line)
        else:
            await self._images.opened.tell(line, below)

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
        self._drawing.warm()  # who asks for anything here will want to see it
        if caller.kind is CallerKind.CLIENT and not _reads_images(caller.scopes):
            refusal = Forbidden("scope", "Le jeton ne permet pas de lire l’imagerie (system/ImagingStudy.rs).")
            line = access.facts(caller, "refus", outcome="4", reason=refusal.code, object_type="Study")
            await self._images.reads.record(line)
            raise refusal
        if any(uid is not None and not is_uid(uid) for uid in uids):
            raise InvalidContent("invalid-uid", "Identifiant d’étude, de série ou d’objet invalide.")

    async def _found(self, who: Caller, study: str, series: str | None, instance: str | None) -> list[Found]:
        await self._allowed(who, study, series, instance)
        found = await self._images.find(who, study, series, instance)
        if not found:
            raise await self._hidden(who, "Instance" if instance else "Study", instance or study)
        return found

    async def _listed(
        self, who: Caller, study: str, series: str | None, instance: str | None, of: Callable[..., Awaitable[T | None]]
    ) -> T:
        """Give what `Images` lists of a study, a series or an instance by ``of``, or refuse."""
        await self._allowed(who, study, series, instance)
        found = await of(who, study, series, instance)
        if found is None:
            raise await self._hidden(who, "Instance" if instance else "Study", instance or study)
        return found

    async def on_file(self, one: Found, work: Callable[[Path], T]) -> T:
        """Do something with an object's file, in a thread."""

        def run() -> T:
            with on_disk(self._blobs, one) as path:
                return work(path)

        return await anyio.to_thread.run_sync(run, limiter=self._workers)

    async def drawn(self, one: Found, work: str, *, beside: Found | None = None, **arguments: Any) -> tuple[str, bytes]:
        """Have a drawing process do something with an object: see `gateway.dicom.drawing.Drawing.drawn`.

        Parameters
        ----------
        beside
            A second object that the work is told the file of, as ``beside``.
        """
        async with contextlib.AsyncExitStack() as held:
            objects = (one,) if beside is None else (one, beside)
            paths = [self._blobs.path(each.sha256) for each in objects]
            if None in paths:  # of a remote store, for as long as they are looked at
                await held.enter_async_context(self._copies)
            for place, each in enumerate(objects):
                if paths[place] is None:
                    paths[place] = await self._copied(held, each)
            path, *others = (cast(Path, path) for path in paths)
            for other in others:
                arguments["beside"] = str(other)
            key = "/".join(each.sha256 for each in objects)
            return await self._drawing.drawn(work, path, key=key, **arguments)

    async def _copied(self, held: contextlib.AsyncExitStack, one: Found) -> Path:
        """Copy an object of a remote store to this disk, until ``held`` ends."""
        copies = held.enter_context(contextlib.ExitStack())
        return await anyio.to_thread.run_sync(copies.enter_context, on_disk(self._blobs, one), limiter=self._workers)


def acceptable(request: Request, offered: tuple[str, ...]) -> tuple[str, ...]:
    """Give the offered media types that ``accept=`` or ``Accept`` takes, the preferred first; maybe none.

    The most specific range that names a type says how it is liked `[RFC 9110 §12.5.1]`.
    """
    liked: list[tuple[float, int, int, str]] = []
    ranges = _ranges(request)
    for rank, kind in enumerate(offered):
        family = f"{kind.partition('/')[0]}/*"
        for name in (kind, family, "*/*"):
            found = next(((q, place) for place, (one, q) in enumerate(ranges) if one == name), None)
            if found is not None:
                liked.append((-found[0], found[1], rank, kind))
                break
    return tuple(kind for quality, _, _, kind in sorted(liked) if quality < 0)


def _ranges(request: Request) -> list[tuple[str, float]]:
    ranges = []
    for text in asked_types(request):
        kind, *parameters = (piece.strip() for piece in text.split(";"))
        values = dict(piece.split("=", 1) for piece in parameters if "=" in piece)
        try:
            ranges.append((kind.lower(), float(values.get("q", "1"))))
        except ValueError:
            continue
    return ranges


@lru_cache(maxsize=1024)
def _reads_images(scopes: frozenset[str]) -> bool:
    return any(_READS_IMAGES.fullmatch(scope) for scope in scopes)


def asked(request: Request) -> str:
    """Read ``accept=``, else ``Accept``."""
    parameter = request.query_params.get("accept") if request.scope["query_string"] else None
    said = parameter or request.headers.get("accept") or "*/*"
    if len(said) > _MAX_ACCEPT_CHARACTERS:
        text = f"« Accept » compte au plus {_MAX_ACCEPT_CHARACTERS} caractères."
        raise InvalidContent("accept-too-long", text, expression="Accept")
    return said


def ranges(said: str) -> list[str]:
    """Cut what was read into its ranges."""
    return re.split(r",(?=(?:[^\"]*\"[^\"]*\")*[^\"]*$)", said)


def asked_types(request: Request) -> list[str]:
    """Read ``accept=``, else ``Accept``, as its ranges."""
    return ranges(asked(request))


def records(found: Iterable[Found]) -> set[uuid.UUID]:
    """Name the patients' records that some instances are of."""
    return {one.record_id for one in found if one.record_id is not None}


@contextlib.contextmanager
def on_disk(blobs: BlobStore, one: Found) -> Iterator[Path]:
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


def part(boundary: str, kind: str, length: int, location: str | None = None) -> bytes:
    """Write the head of one part of ``multipart/related``, with its own address if it has one."""
    stands = "" if location is None else f"\r\nContent-Location: {location}"
    return f"--{boundary}\r\nContent-Type: {kind}\r\nContent-Length: {length}{stands}\r\n\r\n".encode("ascii")


def frame_numbers(text: str) -> list[int]:
    """Read ``/frames/{list}``."""
    if not _FRAMES.fullmatch(text):
        raise InvalidContent("dicom-frames", "Numéros d’image invalides.", expression="frames")
    numbers = [int(number) for number in text.split(",")]
    if len(numbers) > _MAX_FRAMES:
        raise InvalidContent("dicom-frames", f"Au plus {_MAX_FRAMES} images par demande.", expression="frames")
    return numbers


def negotiate(request: Request, offered: Sequence[Offer]) -> Offer:
    """Choose by ``accept=`` or ``Accept`` how an answer leaves `[PS3.18 8.7]`, the first that is offered by default.

    The most specific range that takes a form says how it is liked, ``q=0`` that it is not `[RFC 9110 12.5.1]`.

    Raises
    ------
    Unsupported
        ``not-acceptable``, with what there is.
    """
    said = [media_type(text) for text in asked_types(request)]
    liked = []
    for rank, one in enumerate(offered):
        found = [(*_fit(one, kind, parameters), -place) for place, (kind, parameters) in enumerate(said)]
        fit, quality, place = max(found, key=lambda each: (each[0], each[2]))
        if fit and quality > 0:
            liked.append((-quality, -place, rank, one))
    if not liked:
        raise not_acceptable(*(f'{name}; type="{of_parts}"' if of_parts else name for name, of_parts in offered))
    return min(liked)[3]


def not_acceptable(*offered: str) -> Unsupported:
    """Refuse a wish that none of what there is fulfils (406)."""
    there = f" Il y a : {', '.join(offered)}." if offered else ""
    return Unsupported("not-acceptable", f"Aucun des formats demandés n’est proposé.{there}", expression="Accept")


def _fit(offered: Offer, kind: str, said: Mapping[str, str]) -> tuple[int, float]:
    """How specific a range is that takes a form, 0 when it does not, and how much it is liked."""
    name, of_parts = offered
    weight = said.get("q", "1")
    quality = float(weight) if _QUALITY.fullmatch(weight) else 0.0
    asked = said.get("type", "").lower()
    if kind == name and (not asked or not of_parts or asked in ("*/*", of_parts)):
        return (4 if asked == of_parts else 3), quality
    if kind == f"{name.partition('/')[0]}/*":
        return 2, quality
    return (1 if kind == "*/*" else 0), quality
