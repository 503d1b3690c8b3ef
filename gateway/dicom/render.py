"""A frame → a picture that a browser shows `[PS3.18 8.3.5]`.

Promises: the grayscale pipeline of `[PS3.4 N.2]` (modality LUT, VOI LUT or window, polarity) with the values of the
frame's functional groups, colour spaces turned to RGB and to sRGB by the object's profile (`gateway.dicom.colours`),
overlay planes in white. Eight bits, so not for diagnosis.
Applies no presentation state (`gateway.dicom.presentation_drawing` does) and shows nothing of objects without pixels.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_modality_lut, apply_voi
from pydicom.uid import ExplicitVRBigEndian

from gateway.dicom import colours, overlays
from gateway.dicom.frames import Decoded, Frames, said
from gateway.errors import InvalidContent, Unsupported

__all__ = [
    "MEDIA_TYPES",
    "Region",
    "Window",
    "displayed",
    "drawn_with",
    "encoded",
    "frame_bytes",
    "grays",
    "ratio_of",
    "render",
]

# Media type → Pillow's format and its options.
MEDIA_TYPES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "image/jpeg": ("JPEG", {"quality": 90}),
    "image/png": ("PNG", {"compress_level": 3}),
    "image/gif": ("GIF", {}),
}

_FUNCTIONS: Final = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
#: Where functional groups keep what a frame is drawn with `[PS3.3 C.7.6.16]`.
_GROUPS: Final = (
    *("PixelValueTransformationSequence", "FrameVOILUTSequence", "PixelMeasuresSequence"),
    "OpticalPathIdentificationSequence",
)
_SPACINGS: Final = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
#: Whose files may carry a profile.
_CARRIERS: Final = ("image/jpeg", "image/png")
#: What a frame is drawn with.
_DRAWN_WITH: Final = (
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *_SPACINGS,
    *("ICCProfile", "ColorSpace", "OpticalPathIdentifier"),
)


@dataclass(frozen=True, slots=True)
class Window:
    """A VOI window asked for by a client: ``window={center},{width},{function}`` `[PS3.18 8.3.5.1.2]`."""

    center: float
    width: float
    function: str = "LINEAR"

    @classmethod
    def parse(cls, text: str) -> Window:
        """Read the query parameter; ``linear``, ``linear-exact`` or ``sigmoid`` in any case."""
        center, _, rest = text.partition(",")
        width, _, function = rest.partition(",")
        try:
            window = cls(float(center), float(width), (function or "linear").upper().replace("-", "_"))
        except ValueError:
            window = cls(0, 0)
        if window.function not in _FUNCTIONS or not 0 < window.width < 1e9 or not abs(window.center) < 1e9:
            raise InvalidContent(
                "dicom-window", "Paramètre « window » invalide : centre,largeur,fonction.", expression="window"
            )
        return window

    @classmethod
    def of(cls, ds: Dataset) -> Window | None:
        """Read the object's own first window; None when it has none that can be applied."""
        try:
            center, width = (float(_first(said(ds, name))) for name in ("WindowCenter", "WindowWidth"))
        except (TypeError, ValueError):
            return None
        function = str(said(ds, "VOILUTFunction") or "LINEAR").upper()
        return cls(center, width, function) if width > 0 and function in _FUNCTIONS else None

    def shares(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Say how bright values are: black is 0 or less, white 1 or more `[PS3.3 C.11.2.1.2, C.11.2.1.3]`."""
        x = values.astype(np.float64)
        if self.function == "SIGMOID":
            return np.asarray(1 / (1 + np.exp(np.clip(-4 * (x - self.center) / self.width, -500, 500))))
        if self.function == "LINEAR":
            return (x - (self.center - 0.5)) / max(self.width - 1, 1e-9) + 0.5
        return (x - self.center) / self.width + 0.5

    def apply(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Map values to 0…255."""
        return grays(self.shares(values))


@dataclass(frozen=True, slots=True)
class Region:
    """Where on the screen and what of the picture: ``viewport={vw},{vh},{sx},{sy},{sw},{sh}`` `[PS3.18 8.3.5.1.3]`.

    Attributes
    ----------
    width, height
        Largest size; the picture keeps its proportions.
    source
        Left, top, width and height in the object's pixels; a negative width or height mirrors. None: the whole.
    """

    width: int
    height: int
    source: tuple[float, float, float, float] | None = None

    def of(self, picture: Image.Image) -> Image.Image:
        """Cut out the region, and mirror it when asked to."""
        if self.source is None:
            return picture
        left, top, width, height = self.source
        box = (left, top, left + abs(width), top + abs(height))
        box = (max(box[0], 0), max(box[1], 0), min(box[2], picture.width), min(box[3], picture.height))
        corners = (int(box[0]), int(box[1]), round(box[2]), round(box[3]))
        if corners[0] >= corners[2] or corners[1] >= corners[3]:
            raise InvalidContent("dicom-viewport", "La région demandée est hors de l’image.", expression="viewport")
        picture = picture.crop(corners)
        if width < 0:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if height < 0 else picture


def render(
    source: Path | Frames,
    frame: int = 1,
    *,
    media_type: str = "image/jpeg",
    window: Window | None = None,
    viewport: Region | None = None,
    quality: int | None = None,
    iccprofile: str | None = None,
) -> bytes:
    """Draw one frame.

    Parameters
    ----------
    frame
        From 1.
    window
        Instead of the object's own.
    viewport
        None: the object's own pixels, one for one.
    quality
        Of a JPEG, 1 to 100.
    iccprofile
        One of `gateway.dicom.colours.WISHES`: in which space it leaves, and with which profile. A GIF carries none.

    Raises
    ------
    Unsupported
        No pixels, a media type that is not offered, or a compression that no decoder reads.
    NotFound
        No such frame.
    InvalidContent
        Pixels that cannot be decoded, or too many.
    """
    if media_type not in MEDIA_TYPES:
        raise Unsupported("not-acceptable", "Format d’image non proposé.", expression="Accept")
    frames = Frames(source) if isinstance(source, Path) else source
    decoded = frames.decoded(frame)
    ds = drawn_with(frames, frame)
    try:
        if media_type not in _CARRIERS and iccprofile == "yes":
            iccprofile = None
        shown, profile = displayed(decoded, frames, ds, window, iccprofile), None
        if media_type in _CARRIERS:
            profile = colours.carried(ds if colours.coloured(decoded) else Dataset(), iccprofile)
    except (InvalidContent, Unsupported, MemoryError):
        raise
    except Exception as error:  # a table or a palette against its type
        raise InvalidContent("dicom-pixels", "Pixels indéchiffrables.") from error
    for plane in overlays.planes(frames, frame, decoded.words):
        shown[plane] = 255
    picture = Image.fromarray(shown)
    if viewport is not None:
        picture = _fitted(viewport.of(picture), ds, viewport)
    return encoded(picture, media_type, quality, profile)


def encoded(picture: Image.Image, media_type: str, quality: int | None, profile: bytes | None = None) -> bytes:
    """Write a picture as one of `MEDIA_TYPES`, with the ICC profile that it shall carry."""
    kind, options = MEDIA_TYPES[media_type]
    said_too = ({"quality": quality} if quality and kind == "JPEG" else {}) | (
        {"icc_profile": profile} if profile is not None else {}
    )
    out = io.BytesIO()
    picture.save(out, kind, **(options | said_too))
    return out.getvalue()


def frame_bytes(source: Path | Frames, frame: int = 1) -> bytes:
    """Give one frame's pixels uncompressed, little endian, laid out as the object's own attributes say.

    One-bit pixels begin in the first bit of the first byte.

    Raises
    ------
    As `render`.
    """
    frames = Frames(source) if isinstance(source, Path) else source
    if not frames.native:
        return np.ascontiguousarray(frames.decoded(frame, raw=True).values).tobytes()
    content = frames.raw(frame)
    if frames.syntax == ExplicitVRBigEndian and frames.allocated > 8:
        return np.frombuffer(content, f">u{frames.allocated // 8}").byteswap().tobytes()
    return content


def drawn_with(frames: Frames, frame: int) -> Dataset:
    """Gather what a frame is drawn with: the object's own, then the shared groups', then the frame's."""
    ds = frames.header
    own: Dataset | None = frames.made.get("drawn with")
    if own is not None:
        return own
    with_it = Dataset()
    with_it.file_meta = ds.file_meta  # tells the order of bytes in tables
    for keyword in _DRAWN_WITH:
        if said(ds, keyword) is not None:
            with_it[keyword] = ds[keyword]
    shared = list(said(ds, "SharedFunctionalGroupsSequence") or ())
    each = said(ds, "PerFrameFunctionalGroupsSequence") or ()
    if not shared and not each:  # the same for all frames
        frames.made["drawn with"] = with_it
    for group in (*shared, *([each[frame - 1]] if len(each) >= frame else ())):
        for name in _GROUPS:
            for item in said(group, name) or ():
                for keyword in _DRAWN_WITH:
                    if said(item, keyword) is not None:
                        with_it[keyword] = item[keyword]
    colours.lit(ds, with_it)
    return with_it


def displayed(
    decoded: Decoded, frames: Frames, ds: Dataset, window: Window | None, iccprofile: str | None = None
) -> NDArray[np.uint8]:
    """Give a writable picture of 8 bits, gray or RGB; with a profile that is wished for, RGB."""
    if colours.coloured(decoded):
        return colours.managed(colours.in_rgb(decoded, frames), ds, iccprofile)
    gray = _in_grays(decoded, ds, window)
    if iccprofile in (None, "no"):
        return gray
    return colours.managed(np.repeat(gray[..., None], 3, axis=2), Dataset(), iccprofile)


def _in_grays(decoded: Decoded, ds: Dataset, window: Window | None) -> NDArray[np.uint8]:
    values, interpretation = decoded.values, decoded.interpretation
    if decoded.bits == 1 and window is None and Window.of(ds) is None:  # a mask: nothing between black and white
        gray = values * np.uint8(255)
        return np.invert(gray) if interpretation == "MONOCHROME1" else gray
    return _gray(values, ds, window, inverted=interpretation == "MONOCHROME1")


def _gray(values: NDArray[Any], ds: Dataset, window: Window | None, *, inverted: bool) -> NDArray[np.uint8]:
    """Shade each level once, then look it up for each pixel."""
    if values.dtype.kind not in "iu" or values.dtype.itemsize > 2:
        if values.dtype.kind == "f":
            values = np.nan_to_num(values, copy=False, posinf=0.0, neginf=0.0)
        shades = _shaded(values, ds, window)
        return np.invert(shades) if inverted else shades
    unsigned = np.dtype(f"u{values.dtype.itemsize}")
    ranks = values.view(unsigned)
    made = _TABLES.shades(values.dtype, ds, window)
    if made is not None:
        shades = made
    else:
        low, high = int(values.min()), int(values.max())
        shades = _shaded(np.arange(low, high + 1, dtype=np.int32), ds, window)
        # Differences of signed values may not fit their type; modulo its size they do.
        ranks = ranks - unsigned.type(low % (1 << unsigned.itemsize * 8))
    if inverted:
        shades = np.invert(shades)
    shown: NDArray[np.uint8] = shades.take(ranks, mode="wrap")  # none is beyond: the mode that looks least
    return shown


class _Tables:
    """Shades of every value that a type has, for series that are shaded by the same numbers.

    One of all values costs several of those that a frame has: it is made when the same is asked for again.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Any, ...], NDArray[np.uint8] | None] = OrderedDict()

    def shades(self, kind: np.dtype[Any], ds: Dataset, window: Window | None) -> NDArray[np.uint8] | None:
        """Give the shade of each value in the order of its bits, or None."""
        chosen = None if window is None and said(ds, "VOILUTSequence") else window or Window.of(ds)
        if chosen is None or said(ds, "ModalityLUTSequence"):
            return None
        rescaled = tuple(str(said(ds, name)) for name in ("RescaleSlope", "RescaleIntercept"))
        name = (kind.str, rescaled, chosen)
        again = name in self._kept
        shades = self._kept.pop(name, None)
        if again and shades is None:
            unsigned = np.arange(1 << kind.itemsize * 8, dtype=f"u{kind.itemsize}")
            shades = _shaded(unsigned.view(kind).astype(np.int32), ds, chosen)
        self._kept[name] = shades
        while len(self._kept) > _TABLES_KEPT:
            self._kept.popitem(last=False)
        return shades


#: 64 KiB each.
_TABLES_KEPT: Final = 32
_TABLES: Final = _Tables()


def _shaded(levels: NDArray[Any], ds: Dataset, window: Window | None) -> NDArray[np.uint8]:
    """Apply what is asked for, else the object's VOI LUT, else its window, else the range of the frame itself."""
    values = apply_modality_lut(levels, ds)
    if window is None and said(ds, "VOILUTSequence"):
        bits = int(ds.VOILUTSequence[0].LUTDescriptor[2])
        return grays(apply_voi(np.rint(values).astype(np.int32), ds, 0) / (2**bits - 1))
    chosen = window or Window.of(ds)
    if chosen is not None:
        return chosen.apply(values)
    low, high = float(values.min()), float(values.max())
    return grays((values - low) / ((high - low) or 1.0))


def grays(share: NDArray[Any]) -> NDArray[np.uint8]:
    """Make shares of what is brightest into 0…255."""
    return np.asarray(np.clip(share * 255 + 0.5, 0, 255), dtype=np.uint8)


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, (list, MultiValue)) else value


def ratio_of(ds: Dataset) -> float:
    """Say how high a pixel is for its width `[PS3.3 C.7.6.3.1.7]`; 1 when nothing usable is said."""
    try:
        spacings = (said(ds, name) for name in _SPACINGS)
        spacing = next(one for one in spacings if one is not None and len(one) == 2)
        ratio = float(spacing[0]) / float(spacing[1])
    except (StopIteration, TypeError, ValueError, ZeroDivisionError):
        ratio = 1.0
    return ratio if 0.1 < ratio < 10 else 1.0


def _fitted(picture: Image.Image, ds: Dataset, viewport: Region) -> Image.Image:
    """Square the pixels and fit the viewport."""
    width, height = picture.width, picture.height * ratio_of(ds)
    scale = min(viewport.width / width, viewport.height / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
