"""An object on its way to a receiver that does not take the syntax it is kept in: uncompressed, or without loss.

Promises: what is taken as kept leaves as kept, streamed; a converted object keeps its UIDs, its attributes and the
values of its pixels, is made in a process of its own (`gateway.dicom.drawing`), one at a time, and is at most
`MAX_CONVERTED_BYTES`. An object that cannot be converted is said to be refused by its syntax.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from gateway.dicom.drawing import Drawing
from gateway.dicom.sending import Piece
from gateway.errors import GatewayError, InvalidContent
from gateway.exchange.blobs import BlobStore

__all__ = ["MAX_CONVERTED_BYTES", "UNCOMPRESSED", "Conversion", "suitable"]

LOG = logging.getLogger(__name__)

#: What every receiver is offered beside the syntax of an object, in this order.
UNCOMPRESSED: Final = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))
#: What a receiver may have chosen in their place; no value of a pixel changes.
_LOSSLESS: Final = (str(RLELossless), str(JPEG2000Lossless))
#: A converted object stands in memory: a larger one leaves as it is kept, or not.
MAX_CONVERTED_BYTES: Final = 256 << 20
_MEMORY_BYTES: Final = 2 << 30
_SECONDS: Final = 60.0


def suitable(piece: Piece, context: Callable[[str, str], int | None]) -> tuple[int, str] | None:
    """Choose the context on which an object leaves, and its transfer syntax there; None when there is none."""
    for syntax in (piece.transfer_syntax_uid, *UNCOMPRESSED, *_LOSSLESS):
        context_id = context(piece.sop_class_uid, syntax)
        if context_id is not None:
            return context_id, syntax
    return None


class Conversion:
    """Opens kept objects in the syntax that a receiver takes.

    Parameters
    ----------
    drawing
        Where decoders run; a process is started for the first object that needs one.
    """

    def __init__(self, blobs: BlobStore, drawing: Drawing | None = None) -> None:
        self._blobs = blobs
        self._drawing = drawing or Drawing(processes=1, seconds=_SECONDS, memory_bytes=_MEMORY_BYTES)
        self._alone = threading.Lock()  # however many receivers: one converted object in memory

    @contextlib.contextmanager
    def opened(self, piece: Piece, syntax: str) -> Iterator[BinaryIO]:
        """Open an object as a Part 10 file in a syntax that `suitable` chose.

        Raises
        ------
        InvalidContent
            ``transfer-syntax-refused``: it cannot be converted.
        """
        if syntax == piece.transfer_syntax_uid:
            with self._blobs.open(piece.sha256) as file:
                yield file
            return
        with self._alone:
            yield io.BytesIO(self._converted(piece, syntax))

    def close(self) -> None:
        """End the decoders."""
        self._drawing.close()

    def _converted(self, piece: Piece, syntax: str) -> bytes:
        try:
            if (self._blobs.size(piece.sha256) or 0) > MAX_CONVERTED_BYTES:
                raise _refused(piece)
            with self._on_disk(piece) as path:
                _, content = self._drawing.do("transcoded", path, key=piece.sha256, transfer_syntax=syntax)
        except GatewayError as error:
            LOG.warning("dicom object not converted: %s", error.code)
            raise _refused(piece) from error
        if len(content) > MAX_CONVERTED_BYTES:
            raise _refused(piece)
        return content

    @contextlib.contextmanager
    def _on_disk(self, piece: Piece) -> Iterator[Path]:
        path = self._blobs.path(piece.sha256)
        if path is not None:
            yield path
            return
        with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
            for part in self._blobs.stream(piece.sha256):
                file.write(part)
            file.flush()
            yield Path(file.name)


def _refused(piece: Piece) -> InvalidContent:
    """The syntax names no patient: it stands in the code, which the last response carries."""
    return InvalidContent(f"transfer-syntax-refused: {piece.transfer_syntax_uid}", "Syntaxe de transfert refusée.")
