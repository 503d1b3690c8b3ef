"""Values of a presentation state's data set, each judged by what it must be.

Promises: a value that cannot be read, that is no number or too few of them, refuses the state (``dicom-presentation``);
a place that is too far refuses it by that limit (``dicom-presentation-limit``); nothing of a value stands in a refusal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from gateway.errors import InvalidContent

__all__ = ["MAX_PLACE", "items", "limited", "number", "numbers", "read", "refused", "whole", "within", "word"]

#: How far a place may be from the image's first pixel.
MAX_PLACE: Final = 1 << 17


def read(ds: Dataset, keyword: str) -> Any:
    """Read an attribute; None when it is absent or empty."""
    try:
        value = ds.get(keyword)
        empty = value is None or value == "" or (isinstance(value, (list, MultiValue)) and not len(value))
    except Exception as error:  # what the library raises depends on what the bytes led it to
        raise refused("dont une valeur ne se lit pas") from error
    return None if empty else value


def items(ds: Dataset | None, keyword: str) -> Sequence[Dataset]:
    """Give the items of a sequence; none when it is absent."""
    value = None if ds is None else read(ds, keyword)
    if value is None:
        return ()
    if not isinstance(value, pydicom.Sequence):
        raise refused("dont une séquence n’en est pas une")
    return value


def word(ds: Dataset, keyword: str) -> str:
    """Read a code string; empty when it is absent."""
    return str(read(ds, keyword) or "").strip().upper()


def numbers(ds: Dataset, keyword: str, count: int | None) -> list[float]:
    """Read so many finite numbers; any number of them when ``count`` is None."""
    value = read(ds, keyword)
    if isinstance(value, bytes) and len(value) % 4 == 0 and dictionary_VR(keyword) == "FL":
        value = np.frombuffer(value, "<f4").tolist()  # longer than an explicit VR lets it be `[PS3.5 6.2.2]`
    several: Iterable[Any] = value if isinstance(value, (list, MultiValue)) else () if value is None else (value,)
    try:
        found = [float(one) for one in several]
    except (TypeError, ValueError, OverflowError):
        found = [math.nan]
    if not all(map(math.isfinite, found)):
        raise refused("dont une valeur n’est pas un nombre")
    if count is not None and len(found) != count:
        raise refused("dont une valeur manque")
    return found


def number(ds: Dataset, keyword: str, default: float) -> float:
    """Read one finite number."""
    return default if read(ds, keyword) is None else numbers(ds, keyword, 1)[0]


def whole(ds: Dataset, keyword: str, default: int) -> int:
    """Read one number, cut to a whole one."""
    return int(number(ds, keyword, default))


def within(number: float) -> float:
    """Refuse a place that is too far."""
    if abs(number) > MAX_PLACE:
        raise limited(f"{MAX_PLACE} pixels de décalage")
    return number


def refused(why: str) -> InvalidContent:
    """Refuse a state; ``why`` goes on after « État de présentation »."""
    return InvalidContent("dicom-presentation", f"État de présentation {why}.", rule=True)


def limited(most: str) -> InvalidContent:
    """Refuse a state by a limit."""
    return InvalidContent("dicom-presentation-limit", f"État de présentation de plus de {most}.", rule=True)
