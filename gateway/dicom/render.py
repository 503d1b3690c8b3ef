"""A frame → a picture that a browser shows `[PS3.18 8.3.5]`.

Promises: the grayscale pipeline of `[PS3.4 N.2]` (modality LUT, VOI LUT or window, polarity), colour spaces turned to
RGB, one frame decoded at a time; a picture over `MAX_PIXELS` is refused before it is decoded. Eight bits, so not for
diagnosis.
Does not burn in annotations or apply presentation states, and shows nothing of objects without pixels.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi
from pydicom.pixels.utils import pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gateway.errors import InvalidContent, NotFound, Unsupported

__all__ = ["MAX_PIXELS", "MEDIA_TYPES", "Window", "frame_bytes", "render"]

MAX_PIXELS: Final = 64 << 20

# Media type → Pillow's format and its options.
MEDIA_TYPES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "image/jpeg": ("JPEG", {"quality": 90}),
    "image/png": ("PNG", {"compress_level": 3}),
    "image/gif": ("GIF", {}),
}

_DEFER_BYTES: Final = 64 * 1024
# Little endian and uncompressed: the bytes of the file are the answer.
_NATIVE: Final = frozenset({ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian})
_FUNCTIONS: Final = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


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
            center, width = (float(_first(ds.get(name))) for name in ("WindowCenter", "WindowWidth"))
        except (TypeError, ValueError):
            return None
        function = str(ds.get("VOILUTFunction") or "LINEAR").upper()
        return cls(center, width, function) if width > 0 and function in _FUNCTIONS else None

    def apply(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Map values to 0…255 `[PS3.3 C.11.2.1.2, C.11.2.1.3]`."""
        x = values.astype(np.float64)
        if self.function == "SIGMOID":
            share = 1 / (1 + np.exp(np.clip(-4 * (x - self.center) / self.width, -500, 500)))
        elif self.function == "LINEAR":
            share = (x - (self.center - 0.5)) / max(self.width - 1, 1e-9) + 0.5
        else:
            share = (x - self.center) / self.width + 0.5
        return _shades(share)


def render(
    path: Path,
    frame: int = 1,
    *,
    media_type: str = "image/jpeg",
    window: Window | None = None,
    viewport: tuple[int, int] | None = None,
) -> bytes:
    """Draw one frame.

    Parameters
    ----------
    frame
        From 1.
    window
        Instead of the object's own.
    viewport
        Largest width and height in pixels; the picture keeps its proportions and is never enlarged beyond it.

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
    ds = pydicom.dcmread(path, stop_before_pixels=True, defer_size=_DEFER_BYTES)
    _refuse(ds, frame)
    pixels = _decoded(path, frame)
    picture = Image.fromarray(_displayed(pixels, _of_frame(ds, frame), window))
    if viewport is not None:
        picture = _fitted(picture, ds, viewport)
    kind, options = MEDIA_TYPES[media_type]
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def frame_bytes(path: Path, frame: int = 1) -> bytes:
    """Give one frame's pixels uncompressed, little endian, laid out as the object's own attributes say.

    Raises
    ------
    As `render`.
    """
    ds = pydicom.dcmread(path, defer_size=_DEFER_BYTES)
    _refuse(ds, frame)
    if ds.file_meta.TransferSyntaxUID not in _NATIVE:
        return np.ascontiguousarray(_decoded(path, frame, raw=True)).tobytes()
    bits = int(ds.Rows) * int(ds.Columns) * int(ds.get("SamplesPerPixel") or 1) * int(ds.get("BitsAllocated") or 8)
    if bits % 8:
        raise Unsupported("dicom-packed-frames", "Images à pixels d’un bit : demander l’objet entier.")
    frames = ds.get("PixelData") or b""
    content = frames[(frame - 1) * bits // 8 : frame * bits // 8]
    if len(content) != bits // 8:
        raise InvalidContent("dicom-pixels", "Pixels manquants.")
    return bytes(content)


def _decoded(path: Path, frame: int, *, raw: bool = False) -> NDArray[Any]:
    try:
        return pixel_array(path, index=frame - 1, raw=raw)
    except RuntimeError as error:  # no decoder for this transfer syntax
        raise Unsupported("dicom-compression", "Compression d’image sans décodeur disponible.") from error
    except Exception as error:  # decoders raise whatever the bytes led them to
        raise InvalidContent("dicom-pixels", "Pixels indéchiffrables.") from error


def _refuse(ds: Dataset, frame: int) -> None:
    rows, columns, samples = (int(ds.get(keyword) or 0) for keyword in ("Rows", "Columns", "SamplesPerPixel"))
    if not rows or not columns:
        raise Unsupported("dicom-no-pixels", "Cet objet ne contient pas d’image.")
    if rows * columns * max(samples, 1) > MAX_PIXELS:
        raise InvalidContent("dicom-too-large", f"Image de plus de {MAX_PIXELS} échantillons.")
    if not 1 <= frame <= int(ds.get("NumberOfFrames") or 1):
        raise NotFound("inconnu", "Image inconnue dans cet objet.")


def _of_frame(ds: Dataset, frame: int) -> Dataset:
    """Lay the frame's functional groups over the object `[PS3.3 C.7.6.16]`: enhanced objects keep LUTs there."""
    groups = list(ds.get("SharedFunctionalGroupsSequence") or ())
    each = ds.get("PerFrameFunctionalGroupsSequence") or ()
    groups += [each[frame - 1]] if len(each) >= frame else []
    for group in groups:
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            for item in group.get(name) or ():
                for element in item:
                    ds[element.tag] = element
    return ds


def _displayed(pixels: NDArray[Any], ds: Dataset, window: Window | None) -> NDArray[np.uint8]:
    interpretation = str(ds.get("PhotometricInterpretation") or "MONOCHROME2")
    if interpretation == "PALETTE COLOR":
        return _eight_bits(apply_color_lut(pixels, ds), 16 if _palette_is_wide(ds) else 8)
    if pixels.ndim == 3:  # colour; YBR was turned to RGB by the decoder
        return _eight_bits(pixels, int(ds.get("BitsStored") or 8))
    gray = _gray(apply_modality_lut(pixels, ds), ds, window)
    return np.invert(gray) if interpretation == "MONOCHROME1" else gray


def _gray(values: NDArray[Any], ds: Dataset, window: Window | None) -> NDArray[np.uint8]:
    """Apply what is asked for, else the object's VOI LUT, else its window, else the range of the frame itself."""
    if window is None and ds.get("VOILUTSequence"):
        return _shades(
            apply_voi(np.rint(values).astype(np.int32), ds, 0) / (2 ** int(ds.VOILUTSequence[0].LUTDescriptor[2]) - 1)
        )
    chosen = window or Window.of(ds)
    if chosen is not None:
        return chosen.apply(values)
    low, high = float(values.min()), float(values.max())
    return _shades((values - low) / ((high - low) or 1.0))


def _shades(share: NDArray[Any]) -> NDArray[np.uint8]:
    return np.asarray(np.clip(share * 255 + 0.5, 0, 255), dtype=np.uint8)


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, (list, pydicom.multival.MultiValue)) else value


def _palette_is_wide(ds: Dataset) -> bool:
    return int(ds.RedPaletteColorLookupTableDescriptor[2]) > 8


def _eight_bits(pixels: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    return np.asarray(pixels >> (bits - 8) if bits > 8 else pixels, dtype=np.uint8)


def _fitted(picture: Image.Image, ds: Dataset, viewport: tuple[int, int]) -> Image.Image:
    """Square the pixels `[PS3.3 C.7.6.3.1.7]` and fit the viewport."""
    spacing = ds.get("PixelSpacing") or ds.get("ImagerPixelSpacing") or ds.get("PixelAspectRatio") or (1, 1)
    ratio = float(spacing[0]) / float(spacing[1]) if len(spacing) == 2 and float(spacing[1]) > 0 else 1.0
    width, height = picture.width, picture.height * (ratio if 0.1 < ratio < 10 else 1.0)
    scale = min(viewport[0] / width, viewport[1] / height)
    return picture.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.LANCZOS)
