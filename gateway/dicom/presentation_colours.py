"""Colours that presentation states recommend → 8-bit RGB `[PS3.3 C.10.7.1.1]`.

Promises: CIELab under D50 (the profile connection space) to sRGB; grayscale as P-values; what is absent is None, and
what is no colour is None too: it is recommended, never ordered.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from gateway.dicom.frames import said

__all__ = ["Colour", "colour_of"]

Colour = tuple[int, int, int]

_WHITE: Final = np.array([0.9642, 1.0, 0.8249])
#: XYZ under D50 → linear sRGB (Bradford).
_TO_SRGB: Final = np.array(
    [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540], [0.0719453, -0.2289914, 1.4052427]]
)


def colour_of(ds: Dataset, lab: str, rgb: str | None = None, gray: str | None = None) -> Colour | None:
    """Read a colour, said in one of three ways; the first that is there."""
    for keyword, count, read in ((lab, 3, _from_lab), (rgb, 3, _from_rgb), (gray, 1, _from_gray)):
        value = None if keyword is None else said(ds, keyword)
        if value is None:
            continue
        several: Any = value if isinstance(value, (list, MultiValue)) else [value]
        try:
            numbers = [int(one) for one in several]
        except (TypeError, ValueError, OverflowError):
            continue
        if len(numbers) == count and all(0 <= one <= 0xFFFF for one in numbers):
            return read(*numbers)
    return None


def _from_gray(value: int) -> Colour:
    shade = round(value / 257)
    return shade, shade, shade


def _from_rgb(red: int, green: int, blue: int) -> Colour:
    """Read the retired way, whose range nobody defined: 16 bits, like all others."""
    return round(red / 257), round(green / 257), round(blue / 257)


def _from_lab(lightness: int, a: int, b: int) -> Colour:
    """L of 0…100 and a, b of -128…127, each over 16 bits `[PS3.3 C.10.7.1.1]`."""
    y = (lightness * 100 / 65535 + 16) / 116
    x, z = y + (a * 255 / 65535 - 128) / 500, y - (b * 255 / 65535 - 128) / 200
    cubes = np.array([x, y, z])
    xyz = np.where(cubes > 6 / 29, cubes**3, 3 * (6 / 29) ** 2 * (cubes - 4 / 29)) * _WHITE
    linear = np.clip(_TO_SRGB @ xyz, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = (round(float(one) * 255) for one in encoded)
    return red, green, blue
