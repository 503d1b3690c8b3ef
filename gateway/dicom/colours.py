"""Colour spaces: what an object's numbers mean, and the space that a picture leaves in `[PS3.3 C.11.15]`.

Promises: every colour space of the standard but YBR_PARTIAL_420 becomes RGB; an object's own ICC profile, or the
well-known space that it names, is turned to sRGB, Adobe RGB (1998) or ROMM RGB by lcms2 with the perceptual intent; the
profiles that pictures carry are made here from the primaries and curves of those spaces, the same bytes each time. A
profile that is no RGB input or display profile, is too long or cannot be read is none. Whoever calls protects the
process from it (`gateway.dicom.drawing`).

Sources: `[ICC.1]`, `[PS3.18 8.3.5.1]`, `[PS3.4 N.2.2]`.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from gateway.dicom.frames import Decoded, Frames, said
from gateway.errors import InvalidContent

__all__ = ["MAX_PROFILE_BYTES", "WISHES", "carried", "coloured", "in_rgb", "lit", "managed", "profile_of"]

#: Values of the parameter ``iccprofile``: none, the object's own, or a space that the picture is turned to.
WISHES: Final = ("no", "yes", "srgb", "adobergb", "rommrgb")
MAX_PROFILE_BYTES: Final = 4 << 20

_HEAD: Final = 128
#: Device classes whose profiles say what numbers mean: input, display, colour space.
_CLASSES: Final = (b"scnr", b"mntr", b"spac")
_D50: Final = (0.9642, 1.0, 0.8249)
_D65: Final = (0.3127, 0.3290)
#: Bradford's cones.
_CONES: Final = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
#: Space → its name, red, green, blue and white (x, y), and its curve as the parameters of a parametricCurveType.
_SPACES: Final[dict[str, tuple[str, tuple[tuple[float, float], ...], tuple[float, ...]]]] = {
    "srgb": (
        "sRGB",
        ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), _D65),
        (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045),
    ),
    "adobergb": ("Adobe RGB (1998) compatible", ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), _D65), (563 / 256,)),
    "rommrgb": (
        "ROMM RGB",
        ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001), (0.3457, 0.3585)),
        (1.8, 1.0, 0.0, 1 / 16, 1 / 32),
    ),
}


def lit(header: Dataset, with_it: Dataset) -> None:
    """Add what a frame's optical path says of its colours, unless the object does `[PS3.3 C.8.12.5]`."""
    paths = said(header, "OpticalPathSequence")
    if not paths or "ICCProfile" in with_it:
        return
    name = said(with_it, "OpticalPathIdentifier")
    path = next((one for one in paths if said(one, "OpticalPathIdentifier") == name), paths[0])
    for keyword in ("ICCProfile", "ColorSpace"):
        if said(path, keyword) is not None:
            with_it[keyword] = path[keyword]


def profile_of(ds: Dataset) -> bytes | None:
    """Give the profile of the object's colours: its own, that of the space that it names; None when nothing is said.

    Raises
    ------
    InvalidContent
        ``dicom-icc-profile``: it has one that cannot be used.
    """
    own = said(ds, "ICCProfile")
    if not own:
        name = str(said(ds, "ColorSpace") or "").strip().lower()
        return _made(name) if name in _SPACES else None
    content = bytes(own) if isinstance(own, bytes) else b""
    length = int.from_bytes(content[:4])
    if len(content) > MAX_PROFILE_BYTES:
        raise InvalidContent("dicom-icc-profile", f"Profil ICC de plus de {MAX_PROFILE_BYTES} octets.", rule=True)
    if not _HEAD < length <= len(content) or content[12:16] not in _CLASSES or content[16:20] != b"RGB ":
        raise _unreadable()
    content = content[:length]
    try:
        _transform(content, "srgb")
    except (OSError, ImageCms.PyCMSError, TypeError, ValueError) as error:
        raise _unreadable() from error
    return content


def managed(pixels: NDArray[np.uint8], ds: Dataset, wish: str | None) -> NDArray[np.uint8]:
    """Turn an RGB picture to the space that is wished for.

    Parameters
    ----------
    wish
        One of `WISHES`. None, nothing wished for: sRGB, which is what a browser takes a picture to be that says
        nothing; then a profile that cannot be used is passed over.

    Raises
    ------
    InvalidContent
        As `profile_of`.
    """
    if wish in ("no", "yes"):
        return pixels
    try:
        profile = profile_of(ds)
    except InvalidContent:
        if wish is not None:
            raise
        return pixels
    space = wish or "srgb"
    source = profile or _made("srgb")
    if source == _made(space):
        return pixels
    picture = Image.fromarray(pixels)
    ImageCms.applyTransform(picture, _transform(source, space), inPlace=True)
    return np.array(picture)


def carried(ds: Dataset, wish: str | None) -> bytes | None:
    """Give the profile that a picture carries; without a profile of its own it is sRGB.

    Raises
    ------
    InvalidContent
        As `profile_of`.
    """
    if wish in (None, "no"):
        return None
    return profile_of(ds) or _made("srgb") if wish == "yes" else _made(wish)


@lru_cache(maxsize=4)
def _transform(profile: bytes, space: str) -> ImageCms.ImageCmsTransform:
    source, target = (ImageCms.ImageCmsProfile(io.BytesIO(one)) for one in (profile, _made(space)))
    return ImageCms.buildTransform(source, target, "RGB", "RGB", ImageCms.Intent.PERCEPTUAL)


def _unreadable() -> InvalidContent:
    return InvalidContent(
        "dicom-icc-profile", "Profil ICC illisible, ou qui n’est pas celui d’une image RVB.", rule=True
    )


# ---- from what an object has to RGB


def coloured(decoded: Decoded) -> bool:
    """Say whether a frame shows colours."""
    return decoded.values.ndim == 3 or decoded.interpretation == "PALETTE COLOR"


def in_rgb(decoded: Decoded, frames: Frames) -> NDArray[np.uint8]:
    """Give a picture in colours as RGB, 8 bits, in the object's own space."""
    values, interpretation = decoded.values, decoded.interpretation
    if interpretation == "PALETTE COLOR":
        wide = _palette_bits(frames.header) > 8
        return _eight_bits(apply_color_lut(values, frames.header), 16 if wide else 8)
    return _TO_RGB.get(interpretation, _as_it_is)(_eight_bits(values, decoded.bits or 8))


def _palette_bits(ds: Dataset) -> int:
    descriptor = said(ds, "RedPaletteColorLookupTableDescriptor")
    return int(descriptor[2]) if descriptor is not None and len(descriptor) == 3 else 16


def _eight_bits(pixels: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Keep the eight highest bits; fewer are stretched to as many."""
    if bits > 8:
        return np.asarray(pixels >> (bits - 8), dtype=np.uint8)
    if bits < 8:
        return np.asarray(pixels.astype(np.uint16) * 255 // (2**bits - 1), dtype=np.uint8)
    return np.array(pixels, dtype=np.uint8)


def _as_it_is(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(pixels[..., :3])


def _by_pillow(mode: str) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    def convert(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        picture = Image.frombytes(mode, (pixels.shape[1], pixels.shape[0]), pixels.tobytes())
        return np.array(picture.convert("RGB"))

    return convert


def _from_partial(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert luminance of 16…235 and chrominance of 16…240 `[PS3.3 C.7.6.3.1.2]`."""
    y, blue, red = (pixels[..., at].astype(np.float32) for at in range(3))
    y, blue, red = 1.1644 * (y - 16), blue - 128, red - 128
    rgb = np.stack([y + 1.5960 * red, y - 0.3917 * blue - 0.8130 * red, y + 2.0173 * blue], axis=-1)
    return np.asarray(np.clip(rgb + 0.5, 0, 255), dtype=np.uint8)


def _from_inks(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Take each ink and black from white: retired, and defined by nothing better than what others do."""
    inks = pixels.astype(np.int16)
    return np.asarray(np.clip(255 - inks[..., :3] - inks[..., 3:4], 0, 255), dtype=np.uint8)


_full: Final = _by_pillow("YCbCr")
#: Colour space → RGB. Of reversible and irreversible component transforms the decoder has made RGB already.
_TO_RGB: Final[dict[str, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]]] = {
    "YBR_FULL": _full,
    "YBR_FULL_422": _full,
    "YBR_PARTIAL_422": _from_partial,
    "HSV": _by_pillow("HSV"),
    "CMYK": _from_inks,
    "ARGB": lambda pixels: np.ascontiguousarray(pixels[..., 1:4]),
}


# ---- profiles of ours


@lru_cache(maxsize=len(_SPACES))
def _made(space: str) -> bytes:
    """Write a display profile of three primaries and a curve `[ICC.1 8.4.3]`."""
    name, points, curve = _SPACES[space]
    adapted, columns = _colorants(points)
    red, green, blue = (_xyz(column) for column in columns.T)
    bent = b"para" + struct.pack(">4xH2x", 3 if len(curve) > 1 else 0) + _fixed(*curve)
    tags = {
        b"desc": _text(name),
        b"cprt": _text("No copyright, use freely"),
        b"wtpt": _xyz(_D50),
        b"chad": b"sf32\0\0\0\0" + _fixed(*adapted.ravel()),
        b"rXYZ": red,
        b"gXYZ": green,
        b"bXYZ": blue,
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), bent),
    }
    table, content, places = b"", b"", dict[bytes, int]()
    start = _HEAD + 4 + 12 * len(tags)
    for tag, value in tags.items():
        if value not in places:
            places[value] = start + len(content)
            content += value + bytes(-len(value) % 4)
        table += tag + struct.pack(">II", places[value], len(value))
    head = struct.pack(">4xI4s4s4s6H4s28x", 0x04300000, b"mntr", b"RGB ", b"XYZ ", 2026, 1, 1, 0, 0, 0, b"acsp")
    head = struct.pack(">I", start + len(content)) + head + _fixed(*_D50) + bytes(48)
    return head + struct.pack(">I", len(tags)) + table + content


def _colorants(points: tuple[tuple[float, float], ...]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Adapt primaries to D50: the matrix that does so, and theirs."""
    *primaries, white = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in points)
    matrix = np.stack(primaries, axis=1)
    matrix = matrix * np.linalg.solve(matrix, white)
    scale = np.diag((_CONES @ np.array(_D50)) / (_CONES @ white))
    adapted = np.linalg.inv(_CONES) @ scale @ _CONES
    return adapted, adapted @ matrix


def _fixed(*numbers: float) -> bytes:
    return b"".join(struct.pack(">i", round(float(number) * 65536)) for number in numbers)


def _xyz(numbers: Any) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(*numbers)


def _text(words: str) -> bytes:
    content = words.encode("utf-16-be")
    return b"mluc" + struct.pack(">4xII4sII", 1, 12, b"enUS", len(content), 28) + content
