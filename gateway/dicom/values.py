"""A value that is no piece of its file: text, numbers, what stands in a sequence or in a deflated object.

Runs where decoders run (`gateway.dicom.easel`): whoever wrote the object says how much there is to read and to inflate.

Promises: what leaves is no longer than was asked for; text leaves in UTF-8, binary values as they stand.
"""

from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from gateway.errors import InvalidContent, NotFound

__all__ = ["found"]

_DEFER_BYTES = 64 << 10
_PIXELS = 0x7FE00008


def found(path: Path, place: str, most: int) -> bytes:
    """Give a value.

    Parameters
    ----------
    place
        Its tag, after those of the sequences that it stands in and the numbers of their items, between dots.
    most
        Bytes.

    Raises
    ------
    NotFound
        Nothing stands there that is bulk data.
    InvalidContent
        ``dicom-too-large``
    """
    first, *steps = place.split(".")
    ds: Dataset = pydicom.dcmread(path, stop_before_pixels=int(first, 16) < _PIXELS, defer_size=_DEFER_BYTES)
    try:
        for item, tag in zip(steps[::2], steps[1::2], strict=True):
            ds, first = ds[int(first, 16)].value[int(item) - 1], tag
        value = ds[int(first, 16)].value
    except MemoryError:
        raise
    except Exception as error:  # whatever the bytes and the place lead the library to
        raise _nowhere() from error
    if isinstance(value, (bytes, str)):
        content = value if isinstance(value, bytes) else value.encode()
    elif isinstance(value, pydicom.multival.MultiValue):
        content = "\\".join(map(str, value)).encode()
    else:
        raise _nowhere()
    if len(content) > most:
        raise InvalidContent("dicom-too-large", f"Valeur de plus de {most} octets.")
    return content


def _nowhere() -> NotFound:
    return NotFound("inconnu", "Image inconnue.")
