"""JPEG pixels by libjpeg-turbo, for what pydicom asks of nobody (process 4), or of the slowest (processes 14).

Promises: the values of a whole frame of gray pixels, as many bits of them as the object names, or an exception. What
the frame says of its size is judged before a decoder sees it, and a frame that breaks off is not one: the decoder would
fill what is missing without a word. Whoever calls protects the process (`gateway.dicom.drawing`).

Sources: `[T.81 B.2]`, docs/adr/0009.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gateway.dicom.frames import Frames

__all__ = ["values"]

#: Extended sequential (processes 2 and 4) and lossless (14), by Huffman's codes.
_PROCESSES: Final = frozenset({0xC1, 0xC3})
_FILL: Final = 0xFF
_TABLES: Final = frozenset({0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE})
_SEGMENT: Final = struct.Struct(">BBH")
_HEADER: Final = struct.Struct(">BHHB")
_BEGIN, _END, _PADDING = b"\xff\xd8", b"\xff\xd9", b"\0\xff"


def values(frames: Frames, content: bytes) -> NDArray[Any]:
    """Decode one frame.

    Raises
    ------
    ValueError, RuntimeError
        It is not whole, not of the size that the object names, not gray, or cannot be decoded.
    """
    from imagecodecs import jpeg8_decode

    if _size(content) != (frames.rows, frames.columns) or not content.rstrip(_PADDING).endswith(_END):
        raise ValueError("not such a frame, or not all of it")
    decoded = jpeg8_decode(content)
    if decoded.shape != (frames.rows, frames.columns):
        raise ValueError("another size")
    size, unused = frames.allocated // 8, frames.allocated - frames.stored
    words: NDArray[Any] = np.asarray(decoded, f"<u{size}")
    if unused:  # they may hold anything, and a sign stands in the highest of the others
        np.left_shift(words, unused, out=words)
    if frames.signed:
        words = words.view(f"<i{size}")
    return np.right_shift(words, unused, out=words) if unused else words


def _size(content: bytes) -> tuple[int, int] | None:
    """Read rows and columns of gray pixels from the frame's header; None of anything else."""
    position = 2 if content.startswith(_BEGIN) else len(content)
    while position + _SEGMENT.size + _HEADER.size <= len(content):
        begins, marker, length = _SEGMENT.unpack_from(content, position)
        if begins == marker == _FILL:
            position += 1
            continue
        if begins != _FILL or marker not in _TABLES:
            _, rows, columns, components = _HEADER.unpack_from(content, position + _SEGMENT.size)
            return (rows, columns) if begins == _FILL and marker in _PROCESSES and components == 1 else None
        position += 2 + length
    return None
