"""A frame as a presentation state has it shown `[PS3.4 N.2]`.

Promises: modality LUT, VOI LUT or window, presentation LUT, shutters, overlays of activated layers, displayed area,
rotation and flip, graphic annotations in the order of their layers; every value is the state's own, and a step that it
does not say is none. Eight bits, so not for diagnosis. A picture with annotations is made large enough for its words to
be read. Does not judge what a state says: `gateway.dicom.presentation` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset

from gateway.dicom import overlays
from gateway.dicom.frames import Decoded, Frames
from gateway.dicom.presentation import Area, Presentation, Shutter, opened, presented
from gateway.dicom.presentation_annotations import Placing, annotated
from gateway.dicom.presentation_colours import Colour
from gateway.dicom.render import MEDIA_TYPES, Region, displayed, drawn_with, encoded, grays, ratio_of
from gateway.errors import InvalidContent, Unsupported

__all__ = ["draw", "render"]

#: A picture with annotations is made at least so large, by a whole number of times.
_LEGIBLE: Final = 768
_LARGEST: Final = 4096


def render(
    source: Path | Frames,
    state: Path | Dataset,
    instance: str,
    frame: int = 1,
    *,
    media_type: str = "image/jpeg",
    viewport: Region | None = None,
    quality: int | None = None,
) -> bytes:
    """Draw one frame as a state says.

    Parameters
    ----------
    instance
        SOP Instance UID of the image.
    frame
        From 1.
    viewport
        What the picture is fitted into; None: as large as the state says, else one for one.

    Raises
    ------
    Unsupported, NotFound, InvalidContent
        As `gateway.dicom.render.render` and `gateway.dicom.presentation`.
    """
    if media_type not in MEDIA_TYPES:
        raise Unsupported("not-acceptable", "Format d’image non proposé.", expression="Accept")
    frames = Frames(source) if isinstance(source, Path) else source
    ds = opened(state) if isinstance(state, Path) else state
    frames.judge(frame)
    shown = presented(ds, instance, frame, ratio=ratio_of(drawn_with(frames, frame)))
    return encoded(draw(frames, frame, ds, shown, viewport), media_type, quality)


def draw(frames: Frames, frame: int, ds: Dataset, shown: Presentation, viewport: Region | None) -> Image.Image:
    """Draw one frame.

    Parameters
    ----------
    ds
        The state's data set, for its own overlays.
    """
    decoded = frames.decoded(frame)
    try:
        pixels = _pixels(decoded, frames, frame, shown)
    except (InvalidContent, Unsupported, MemoryError):
        raise
    except Exception as error:  # a table or a palette against its type
        raise InvalidContent("dicom-pixels", "Pixels indéchiffrables.") from error
    planes = _planes(frames, frame, ds, shown, decoded)
    pixels = _shut(pixels, shown, ds, frame)
    rows, columns = pixels.shape[:2]
    area = shown.area or Area(0, 0, columns, rows, ratio_of(drawn_with(frames, frame)))
    if area.left >= columns or area.top >= rows or area.right <= 0 or area.bottom <= 0:
        text = "État de présentation dont la zone affichée est hors de l’image."
        raise InvalidContent("dicom-presentation", text, rule=True)
    turns = shown.rotation // 90
    picture = Image.fromarray(np.ascontiguousarray(_turned(_cut(pixels, area), turns, flipped=shown.flipped)))
    size = _size(picture.size, area, shown, viewport)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    laid = []
    for layer, plane in planes:
        shape = _turned(_cut(plane.astype(np.uint8) * 255, area), turns, flipped=shown.flipped)
        mask = Image.fromarray(np.ascontiguousarray(shape))
        laid.append((layer, mask.resize(size, Image.Resampling.BOX) if mask.size != size else mask))
    return annotated(picture, shown, Placing(area, shown.rotation, shown.flipped, *size), laid)


# ---- gray and colour


def _pixels(decoded: Decoded, frames: Frames, frame: int, shown: Presentation) -> NDArray[np.uint8]:
    values = decoded.values
    if values.ndim == 3 or decoded.interpretation == "PALETTE COLOR":
        return displayed(decoded, frames, drawn_with(frames, frame), None)
    if values.dtype.kind not in "iu":
        return grays(_shares(np.nan_to_num(values, posinf=0.0, neginf=0.0), shown, frames))
    if values.dtype.itemsize > 2:
        return grays(_shares(values, shown, frames))
    low, high = int(values.min()), int(values.max())
    shades = grays(_shares(np.arange(low, high + 1), shown, frames))
    return np.asarray(shades[values.astype(np.int32) - low])


def _shares(values: NDArray[Any], shown: Presentation, frames: Frames) -> NDArray[np.float64]:
    """Take values through the three tables: 0 is black, 1 white."""
    stored = frames.stored if values.dtype.kind in "iu" else 0
    least, most = _range(values, stored, signed=frames.signed)
    if shown.modality is not None:
        values = shown.modality.of(values, signed=frames.signed)
        least, most = 0.0, float(shown.modality.most)
    else:
        values = values * shown.slope + shown.intercept
        least, most = sorted((least * shown.slope + shown.intercept, most * shown.slope + shown.intercept))
    shares: NDArray[Any]
    if shown.voi is not None:
        shares = shown.voi.of(values, signed=least < 0) / shown.voi.most
    elif shown.window is not None:
        shares = shown.window.shares(values)
    else:
        shares = (values - least) / ((most - least) or 1.0)
    if shown.output is not None:
        entries = shown.output.entries
        places = np.rint(np.clip(shares, 0, 1) * (len(entries) - 1)).astype(np.intp)
        shares = entries[places] / shown.output.most
    return np.asarray(1 - shares if shown.inverse else shares, np.float64)


def _range(values: NDArray[Any], stored: int, *, signed: bool) -> tuple[float, float]:
    """Least and greatest value that there can be; of floating point, that there is."""
    if not stored:
        return float(values.min()), float(values.max())
    return (-(2.0 ** (stored - 1)), 2.0 ** (stored - 1) - 1) if signed else (0.0, 2.0**stored - 1)


# ---- what is hidden, and what is laid over


def _planes(
    frames: Frames, frame: int, ds: Dataset, shown: Presentation, decoded: Decoded
) -> list[tuple[str, NDArray[np.bool_]]]:
    """Give the overlays that are activated, with their layers; one that cannot be read refuses the state."""
    found = []
    for one in shown.overlays:
        where, words = (ds, None) if one.own else (frames.header, decoded.words)
        plane = _plane(where, one.group, frame, (frames.rows, frames.columns), words)
        if plane is not None:
            found.append((one.layer, plane))
    return found


def _plane(
    ds: Dataset, group: int, frame: int, shape: tuple[int, int], words: NDArray[Any] | None
) -> NDArray[np.bool_] | None:
    try:
        return overlays.plane(ds, group << 16, frame, shape, words)
    except Exception as error:
        text = "État de présentation dont un plan ne se lit pas."
        raise InvalidContent("dicom-presentation", text, rule=True) from error


def _shut(pixels: NDArray[np.uint8], shown: Presentation, ds: Dataset, frame: int) -> NDArray[np.uint8]:
    """Hide what a shutter hides."""
    shutter = shown.shutter
    if shutter is None:
        return pixels
    hidden = _hidden(shutter, pixels.shape[:2])
    if shutter.overlay is not None:
        plane = _plane(ds, shutter.overlay, frame, pixels.shape[:2], None)
        hidden = hidden if plane is None else hidden | plane
    if pixels.ndim == 2 and len(set(shutter.colour)) > 1:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    colour: Colour | int = shutter.colour if pixels.ndim == 3 else shutter.colour[0]
    return np.where(hidden[..., None] if pixels.ndim == 3 else hidden, np.array(colour, np.uint8), pixels)


def _hidden(shutter: Shutter, shape: tuple[int, int]) -> NDArray[np.bool_]:
    rows, columns = np.ogrid[1 : shape[0] + 1, 1 : shape[1] + 1]  # as the standard counts
    hidden = np.zeros(shape, bool)
    if shutter.rectangle is not None:
        left, upper, right, lower = shutter.rectangle
        hidden |= (columns < left) | (columns > right) | (rows < upper) | (rows > lower)
    if shutter.circle is not None:
        column, row, radius = shutter.circle
        hidden |= (columns - column) ** 2 + (rows - row) ** 2 > radius**2
    if shutter.polygon is not None:
        seen = Image.new("1", (shape[1], shape[0]))
        ImageDraw.Draw(seen).polygon([(x - 1, y - 1) for x, y in shutter.polygon.tolist()], fill=1, outline=1)
        hidden |= ~np.asarray(seen)
    return hidden


# ---- place


def _cut(pixels: NDArray[np.uint8], area: Area) -> NDArray[np.uint8]:
    """Give the displayed area; what of it is beyond the image is black."""
    rows, columns = pixels.shape[:2]
    inside = pixels[max(area.top, 0) : min(area.bottom, rows), max(area.left, 0) : min(area.right, columns)]
    shape = (area.bottom - area.top, area.right - area.left, *pixels.shape[2:])
    if inside.shape == shape:
        return inside
    whole = np.zeros(shape, np.uint8)
    top, left = max(-area.top, 0), max(-area.left, 0)
    whole[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return whole


def _turned(pixels: NDArray[np.uint8], turns: int, *, flipped: bool) -> NDArray[np.uint8]:
    """Turn clockwise, then flip `[PS3.3 C.10.6]`."""
    turned = np.rot90(pixels, -turns)
    return turned[:, ::-1] if flipped else turned


def _size(size: tuple[int, int], area: Area, shown: Presentation, viewport: Region | None) -> tuple[int, int]:
    """Say how large the picture is: its pixels squared, never fewer than there are unless it has to fit."""
    ratio = 1 / area.ratio if shown.rotation in (90, 270) else area.ratio
    width, height = size[0] * max(1.0, 1 / ratio), size[1] * max(1.0, ratio)
    scale = area.magnification or 1.0
    if viewport is not None:
        scale = min(viewport.width / width, viewport.height / height)
    else:
        if shown.shapes or shown.words:
            scale *= max(1.0, np.ceil(_LEGIBLE / (max(width, height) * scale)))
        scale = min(scale, max(_LARGEST / max(width, height), 1.0 if area.magnification is None else 0.0))
    return max(1, round(width * scale)), max(1, round(height * scale))
