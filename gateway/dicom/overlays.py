"""Overlay planes: what was drawn over a picture and kept beside its pixels, or in the bits that they leave free.

Promises: each plane of the groups 6000 to 601E, placed by its origin and cut to the picture; a plane that cannot be
read is left out. Sources: `[PS3.3 C.9.2]`, `[PS3.5 8.1.2]` for planes in unused bits (retired).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from gateway.dicom.frames import MAX_SAMPLES, Frames

__all__ = ["plane", "planes"]

_GROUPS: Final = range(0x6000, 0x6020, 2)


def planes(frames: Frames, frame: int, words: NDArray[Any] | None) -> Iterator[NDArray[np.bool_]]:
    """Give each plane that lies over a frame, as large as the frame.

    Parameters
    ----------
    frame
        From 1.
    words
        The frame's words before unused bits were cleared, for planes that stand in them.
    """
    ds = frames.header
    if "overlays" not in frames.made:
        frames.made["overlays"] = [
            group << 16 for group in _GROUPS if (group << 16 | 0x0010) in ds or (group << 16 | 0x0102) in ds
        ]
    for group in frames.made["overlays"]:
        try:
            found = plane(ds, group, frame, (frames.rows, frames.columns), words)
        except Exception:  # noqa: BLE001, S112 - a plane against its type does not hide the picture
            continue
        if found is not None:
            yield found


def plane(
    ds: Dataset, group: int, frame: int, shape: tuple[int, int], words: NDArray[Any] | None
) -> NDArray[np.bool_] | None:
    """Give the plane of one group, as ``0x60000000``; None when there is none over this frame. As `planes`."""

    def first(element: int, default: int) -> int:
        value = ds[group | element].value if (group | element) in ds else None
        return default if value in (None, "") else int(value)

    count, origin = first(0x0015, 1), first(0x0051, 1)
    single = (group | 0x0015) not in ds  # without a number of frames it lies over all
    index = 0 if single else frame - origin
    if not 0 <= index < count:
        return None
    if (group | 0x3000) not in ds:
        place = first(0x0102, 0)
        if words is None or words.shape != shape or not 0 < place < words.dtype.itemsize * 8:
            return None
        return np.asarray((words >> place) & 1, dtype=bool)
    rows, columns = first(0x0010, 0), first(0x0011, 0)
    if not 0 < rows * columns <= MAX_SAMPLES or rows < 0:
        return None
    start = index * rows * columns
    packed = np.frombuffer(ds[group | 0x3000].value, np.uint8)[start // 8 : -(-(start + rows * columns) // 8)]
    bits = np.unpackbits(packed, bitorder="little")[start % 8 :][: rows * columns].reshape(rows, columns).astype(bool)
    placed = ds[group | 0x0050].value if (group | 0x0050) in ds else None
    top, left = (int(placed[0]) - 1, int(placed[1]) - 1) if placed is not None and len(placed) == 2 else (0, 0)
    return _cut(bits, top, left, shape)


def _cut(bits: NDArray[np.bool_], top: int, left: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
    whole = np.zeros(shape, bool)
    part = bits[max(-top, 0) :, max(-left, 0) :]
    top, left = max(top, 0), max(left, 0)
    into = whole[top : top + part.shape[0], left : left + part.shape[1]]
    into[...] = part[: into.shape[0], : into.shape[1]]
    return whole
