"""The frames of an object in the form that is asked for: places of its file where they stand in it, else made.

Promises: no object is read whole, or inflated, or decoded, in the process that serves: what is no place of the file is
made where decoders run (`gateway.dicom.drawing`), for as many bytes as are on loan and no more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Final

from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gateway.dicom.asking import Wire
from gateway.dicom.drawing import Drawing
from gateway.dicom.layout import Layout, Place, compressed, layout, layout_at_hand
from gateway.dicom.leaving import Leaving
from gateway.dicom.query import Found, Images
from gateway.dicom.transfer import KEPT, OCTETS, Form
from gateway.errors import InvalidContent
from gateway.exchange.blobs import BlobStore

__all__ = ["MAX_MADE_BYTES", "Framed", "Layouts", "within"]

#: What is made for one answer at most: frames together, one converted object, one inflated value.
MAX_MADE_BYTES: Final = 256 << 20
#: Uncompressed and little endian: a frame is a piece of the file.
PLAIN: Final = frozenset({str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)})
#: Bytes that are made of one where nobody says how many: deflate makes no more, and decoders seldom do.
_SWOLLEN: Final = 1032
_NATIVE: Final = PLAIN | {str(ExplicitVRBigEndian)}
_MARGIN_BYTES: Final = 64 << 10
_LAYOUTS: Final = 8192


class Layouts(OrderedDict[str, Layout | None]):
    """Where the frames of the objects stand that were read last, by the SHA-256 of their files."""

    def keep(self, sha256: str, found: Layout | None) -> None:
        """Remember one."""
        self[sha256] = found
        while len(self) > _LAYOUTS:
            self.popitem(last=False)


class Framed(Wire):
    """What retrieval and bulk data share.

    Parameters
    ----------
    leaving
        Puts answers together.
    layouts
        Remembers where frames stand.
    """

    def __init__(self, images: Images, blobs: BlobStore, drawing: Drawing, leaving: Leaving, layouts: Layouts) -> None:
        super().__init__(images, blobs, drawing)
        self._leaving = leaving
        self._layouts = layouts

    async def _layout(self, one: Found) -> Layout | None:
        """Say where an object's frames stand; None when nothing simple can be said."""
        if one.sha256 not in self._layouts:
            path = self._leaving.path(one.sha256)
            found = layout_at_hand(path) if path is not None else None
            self._layouts.keep(one.sha256, found or await self.on_file(one, layout))
        return self._layouts[one.sha256]

    async def _placed(self, one: Found, numbers: Sequence[int], form: Form) -> list[list[Place]] | None:
        """Say where frames stand in the file as they leave; None when they must be made.

        Raises
        ------
        NotFound, InvalidContent
        """
        kept = form.transfer_syntax == KEPT
        if not kept and (form.media_type != OCTETS or one.transfer_syntax_uid not in PLAIN):
            return None
        where = await self._layout(one)
        if where is None:
            return None
        if where.frame_bytes:
            return [[where.native(number)] for number in numbers]
        return await self.on_file(one, partial(compressed, where=where, frames=numbers))

    async def _frame_bytes(self, one: Found, form: Form) -> int:
        """Bytes that one frame may have when it is made."""
        where = await self._layout(one)
        if form.transfer_syntax == KEPT:
            return min(one.size_bytes, MAX_MADE_BYTES)
        size = where.decoded_bytes if where is not None else self._at_most(one)
        return size if form.media_type == OCTETS else size * 9 // 8 + _MARGIN_BYTES

    async def _object_bytes(self, one: Found, syntax: str) -> int:
        """Bytes that an object may have when it is converted."""
        where = await self._layout(one)
        if where is None:
            return self._at_most(one)
        size = one.size_bytes if where.frame_bytes else where.start + where.decoded_bytes * where.frames
        return (size if syntax in PLAIN else size * 9 // 8) + _MARGIN_BYTES

    @staticmethod
    def _at_most(one: Found) -> int:
        """Bytes of what only reading it would tell."""
        times = 2 if one.transfer_syntax_uid in _NATIVE else _SWOLLEN
        return min(one.size_bytes * times + _MARGIN_BYTES, MAX_MADE_BYTES)

    async def _made(self, one: Found, number: int, form: Form) -> bytes:
        """Have one frame made."""
        if form.transfer_syntax == KEPT:
            return (await self.drawn(one, "kept", frame=number))[1]
        if form.media_type != OCTETS:
            return (await self.drawn(one, "encoded", frame=number, media_type=form.media_type))[1]
        return (await self.drawn(one, "frame", frame=number))[1]


def within(size: int, most: int) -> int:
    """Refuse an answer that is longer than one may be.

    Raises
    ------
    InvalidContent
        ``dicom-frames``
    """
    if size > most:
        text = f"Ces images dépassent {most} octets par réponse : demandez-en moins à la fois."
        raise InvalidContent("dicom-frames", text, expression="frames")
    return size
