"""A presentation state → plain facts: what it says of one frame of an image that it names `[PS3.3 A.33, C.11.8]`.

Promises: what it says and nothing else, by `[PS3.4 N.2]`, where a step that it does not say is none, whatever the image
says of itself; sizes, counts and coordinates are judged before anything is made of them, and each limit names itself; a
number against its type refuses the state by name, never a part of it: half a state would mislead.
Draws nothing: `gateway.dicom.presentation_drawing` does.

Sources: `[PS3.3 C.7.6.11]` shutters, `[PS3.3 C.10.4]` displayed area, `[PS3.3 C.10.6]`
rotation, `[PS3.3 C.10.7]` layers, `[PS3.3 C.11.1]`, `[PS3.3 C.11.6]`, `[PS3.3 C.11.8]` tables and windows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from gateway.dicom.presentation_colours import Colour, colour_of
from gateway.dicom.presentation_marks import Shape, Words, marks
from gateway.dicom.presentation_values import (
    MAX_PLACE,
    items,
    limited,
    number,
    numbers,
    read,
    refused,
    whole,
    within,
    word,
)
from gateway.dicom.render import Window
from gateway.errors import InvalidContent, Unsupported

__all__ = [
    "FAMILY",
    "MAX_BYTES",
    "Area",
    "Overlaid",
    "Presentation",
    "Reference",
    "Shutter",
    "Table",
    "opened",
    "presented",
    "references",
]

#: What begins the SOP classes of presentation states.
FAMILY: Final = "1.2.840.10008.5.1.4.1.1.11."
#: Grayscale, and colour.
_DRAWN: Final = frozenset({f"{FAMILY}1", f"{FAMILY}2"})
#: One state, as a file.
MAX_BYTES: Final = 32 << 20
_MAX_IMAGES: Final = 20_000
_MAX_VERTICES: Final = 10_000
_MAX_LAYERS: Final = 256
#: Pixels of what is displayed.
_MAX_AREA: Final = 64 << 20
_SHUTTERS: Final = frozenset({"RECTANGULAR", "CIRCULAR", "POLYGONAL", "BITMAP"})


@dataclass(frozen=True, slots=True)
class Reference:
    """An image that a state is about: all of its frames when none are named."""

    series: str
    instance: str
    frames: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A lookup table: the value that its first entry stands for, its entries, the bits of an entry."""

    first: int
    entries: NDArray[np.uint16]
    bits: int

    @property
    def most(self) -> int:
        """The greatest value that an entry can have."""
        return int(2**self.bits - 1)

    def of(self, values: NDArray[Any], *, signed: bool = False) -> NDArray[np.uint16]:
        """Look values up; those before the first entry have the first, those after the last the last."""
        first = self.first - (1 << 16) if signed and self.first > 0x7FFF else self.first
        places = np.clip(np.rint(values) - first, 0, len(self.entries) - 1).astype(np.intp)
        return np.asarray(self.entries[places])


@dataclass(frozen=True, slots=True)
class Area:
    """What of the image is displayed: left, top, right and bottom edge in its pixels, and how large.

    Attributes
    ----------
    ratio
        Height of a pixel for its width.
    magnification
        Of a pixel on the screen; None: as large as there is room.
    """

    left: int
    top: int
    right: int
    bottom: int
    ratio: float = 1.0
    magnification: float | None = None


@dataclass(frozen=True, slots=True)
class Shutter:
    """What is hidden: everything that is not within all of these, and the bits of an overlay."""

    colour: Colour
    #: Left, upper, right and lower edge: the first and the last pixels that are seen.
    rectangle: tuple[int, int, int, int] | None = None
    #: Column and row of the centre, radius.
    circle: tuple[int, int, int] | None = None
    #: Columns and rows.
    polygon: NDArray[np.float64] | None = None
    overlay: int | None = None


@dataclass(frozen=True, slots=True)
class Overlaid:
    """An overlay plane that is shown: its group, and whether it stands in the state."""

    group: int
    layer: str
    own: bool


@dataclass(frozen=True, slots=True)
class Presentation:
    """What a state says of one frame."""

    slope: float = 1.0
    intercept: float = 0.0
    modality: Table | None = None
    window: Window | None = None
    voi: Table | None = None
    inverse: bool = False
    output: Table | None = None
    rotation: int = 0
    flipped: bool = False
    area: Area | None = None
    shutter: Shutter | None = None
    shapes: tuple[Shape, ...] = ()
    words: tuple[Words, ...] = ()
    overlays: tuple[Overlaid, ...] = ()
    #: Layers in the order in which they are drawn, and the colour that each is recommended.
    layers: dict[str, Colour | None] = field(default_factory=dict)


# ---- the state


def opened(path: Path) -> Dataset:
    """Read a state.

    Raises
    ------
    Unsupported
        ``dicom-presentation-kind``: one of another kind than grayscale and colour, or with a mask.
    InvalidContent
        ``dicom-unreadable``, ``dicom-presentation-limit``.
    """
    if path.stat().st_size > MAX_BYTES:
        raise limited(f"{MAX_BYTES} octets")
    try:
        ds = pydicom.dcmread(path)
    except Exception as error:
        raise InvalidContent("dicom-unreadable", "Objet DICOM illisible.") from error
    if str(read(ds, "SOPClassUID") or "") not in _DRAWN:
        raise Unsupported("dicom-presentation-kind", "Ce genre d’état de présentation n’est pas dessiné.")
    if read(ds, "MaskSubtractionSequence"):
        text = "Un état de présentation qui soustrait un masque n’est pas dessiné."
        raise Unsupported("dicom-presentation-kind", text)
    return ds


def references(ds: Dataset) -> list[Reference]:
    """Name the images that a state is about, in its order.

    Raises
    ------
    InvalidContent
        ``dicom-presentation``, ``dicom-presentation-limit``.
    """
    found: list[Reference] = []
    for series in items(ds, "ReferencedSeriesSequence"):
        uid = str(read(series, "SeriesInstanceUID") or "")
        for image in items(series, "ReferencedImageSequence"):
            instance = str(read(image, "ReferencedSOPInstanceUID") or "")
            if uid and instance:
                found.append(Reference(uid, instance, _frames(image)))
            if len(found) > _MAX_IMAGES:
                raise limited(f"{_MAX_IMAGES} images")
    if not found:
        raise refused("sans image")
    return found


def presented(ds: Dataset, instance: str, frame: int, *, ratio: float = 1.0) -> Presentation:
    """Give what a state says of one frame of an image.

    Parameters
    ----------
    ratio
        Height of the image's pixels for their width, for a state that does not say.

    Raises
    ------
    InvalidContent
        ``dicom-presentation``: it is not about it, or says what cannot be; ``dicom-presentation-limit``.
    """
    named = [one for one in references(ds) if one.instance == instance]
    if not any(not one.frames or frame in one.frames for one in named):
        raise refused("qui ne porte pas sur cette image")

    def for_it(keyword: str) -> Iterator[Dataset]:
        return (item for item in items(ds, keyword) if _concerns(item, instance, frame))

    voi = next(for_it("SoftcopyVOILUTSequence"), None)
    area = next(for_it("DisplayedAreaSelectionSequence"), None)
    modality = next(iter(items(ds, "ModalityLUTSequence")), None)
    output = next(iter(items(ds, "PresentationLUTSequence")), None)
    tabled = next(iter(items(voi, "VOILUTSequence")), None) if voi is not None else None
    rotation = whole(ds, "ImageRotation", 0)
    if rotation % 90:
        raise refused("dont la rotation n’est pas un multiple de 90")
    annotations = list(for_it("GraphicAnnotationSequence"))
    shapes, words = marks(annotations)
    slope, intercept = number(ds, "RescaleSlope", 1.0), number(ds, "RescaleIntercept", 0.0)
    return Presentation(
        slope=slope,
        intercept=intercept,
        modality=_table(modality),
        window=_window(voi) if voi is not None and tabled is None else None,
        voi=_table(tabled),
        inverse=output is None and word(ds, "PresentationLUTShape") == "INVERSE",
        output=_table(output),
        rotation=rotation % 360,
        flipped=word(ds, "ImageHorizontalFlip") == "Y",
        area=_area(area, ratio) if area is not None else None,
        shutter=_shutter(ds),
        shapes=shapes,
        words=words,
        overlays=tuple(_overlays(ds)),
        layers=_layers(ds),
    )


# ---- its parts


def _frames(image: Dataset) -> tuple[int, ...]:
    value = read(image, "ReferencedFrameNumber")
    numbers = () if value is None else value if isinstance(value, (list, MultiValue)) else (value,)
    try:
        return tuple(int(one) for one in numbers)
    except (TypeError, ValueError, OverflowError) as error:
        raise refused("dont un numéro d’image n’est pas un nombre") from error


def _concerns(item: Dataset, instance: str, frame: int) -> bool:
    """Whether a part of a state is about a frame: about all that the state is about when it names none."""
    images = items(item, "ReferencedImageSequence")
    if not images:
        return True
    for image in images:
        if str(read(image, "ReferencedSOPInstanceUID") or "") == instance:
            frames = _frames(image)
            if not frames or frame in frames:
                return True
    return False


def _table(item: Dataset | None) -> Table | None:
    if item is None:
        return None
    descriptor, data = read(item, "LUTDescriptor"), read(item, "LUTData")
    try:
        count, first, bits = (int(one) for one in descriptor)
        count = count & 0xFFFF or 1 << 16
        if isinstance(data, bytes):
            kind = "u1" if bits <= 8 and len(data) in (count, count + count % 2) else "u2"
            order = ">" if item.original_encoding[1] is False else "<"
            entries = np.frombuffer(data, f"{order}{kind}")[: count if kind == "u1" else None].astype(np.uint16)
        else:
            entries = np.asarray([data] if isinstance(data, int) else list(data), np.int64).astype(np.uint16)
    except (TypeError, ValueError, OverflowError):
        count, first, bits, entries = 0, 0, 0, np.zeros(1, np.uint16)
    if not 8 <= bits <= 16 or len(entries) != count:
        raise refused("dont une table n’a pas la longueur qu’elle dit")
    return Table(first, np.minimum(entries, np.uint16(2**bits - 1)), bits)


def _window(item: Dataset) -> Window | None:
    if read(item, "WindowCenter") is None:
        return None
    window = Window.of(item)
    if window is None or not math.isfinite(window.center) or not 0 < window.width < 1e9 or abs(window.center) > 1e9:
        raise refused("dont la fenêtre n’en est pas une")
    return window


def _area(item: Dataset, ratio: float) -> Area:
    one = numbers(item, "DisplayedAreaTopLeftHandCorner", 2)
    other = numbers(item, "DisplayedAreaBottomRightHandCorner", 2)
    if any(abs(place) > MAX_PLACE for place in (*one, *other)):
        raise limited(f"{MAX_PLACE} pixels de décalage")
    left, right = sorted((int(one[0]), int(other[0])))
    top, bottom = sorted((int(one[1]), int(other[1])))
    if (right - left + 1) * (bottom - top + 1) > _MAX_AREA:
        raise limited(f"{_MAX_AREA} pixels affichés")
    magnification = None
    if word(item, "PresentationSizeMode") == "MAGNIFY":
        magnification = number(item, "PresentationPixelMagnificationRatio", 1.0)
        if not 1e-3 <= magnification <= 1e3:
            raise refused("dont l’agrandissement n’en est pas un")
    for keyword in ("PresentationPixelSpacing", "PresentationPixelAspectRatio"):
        if read(item, keyword) is not None:
            high, wide = numbers(item, keyword, 2)
            if not 0.02 < (high / wide if wide else 0.0) < 50:
                raise refused("dont les pixels n’ont pas de proportions")
            ratio = high / wide
            break
    return Area(left - 1, top - 1, right, bottom, ratio, magnification)


def _shutter(ds: Dataset) -> Shutter | None:
    shapes = read(ds, "ShutterShape")
    if shapes is None:
        return None
    named = {str(one).strip().upper() for one in (shapes if isinstance(shapes, (list, MultiValue)) else (shapes,))}
    if not named <= _SHUTTERS:
        raise refused("dont un cache a une forme inconnue")
    rectangle = circle = polygon = overlay = None
    if "RECTANGULAR" in named:
        left, right = (int(within(numbers(ds, f"Shutter{side}VerticalEdge", 1)[0])) for side in ("Left", "Right"))
        upper, lower = (int(within(numbers(ds, f"Shutter{side}HorizontalEdge", 1)[0])) for side in ("Upper", "Lower"))
        rectangle = (left, upper, right, lower)
    if "CIRCULAR" in named:
        row, column = (int(within(one)) for one in numbers(ds, "CenterOfCircularShutter", 2))
        circle = (column, row, int(within(numbers(ds, "RadiusOfCircularShutter", 1)[0])))
    if "POLYGONAL" in named:
        vertices = numbers(ds, "VerticesOfThePolygonalShutter", None)
        if len(vertices) > 2 * _MAX_VERTICES:
            raise limited(f"{_MAX_VERTICES} sommets")
        if len(vertices) % 2 or len(vertices) < 6:
            raise refused("dont un cache n’a pas de sommets")
        polygon = np.array([within(one) for one in vertices]).reshape(-1, 2)[:, ::-1]
    if "BITMAP" in named:
        overlay = whole(ds, "ShutterOverlayGroup", 0)
        if overlay not in range(0x6000, 0x6020, 2):
            raise refused("dont un cache n’a pas de plan")
    colour = colour_of(ds, "ShutterPresentationColorCIELabValue", None, "ShutterPresentationValue") or (0, 0, 0)
    return Shutter(colour, rectangle, circle, polygon, overlay)


def _overlays(ds: Dataset) -> Iterator[Overlaid]:
    for group in range(0x6000, 0x6020, 2):
        activated = ds[group, 0x1001].value if (group, 0x1001) in ds else None
        if activated:
            yield Overlaid(group, str(activated).strip(), (group, 0x3000) in ds)


def _layers(ds: Dataset) -> dict[str, Colour | None]:
    layers = items(ds, "GraphicLayerSequence")
    if len(layers) > _MAX_LAYERS:
        raise limited(f"{_MAX_LAYERS} calques")
    ordered = sorted(layers, key=lambda item: whole(item, "GraphicLayerOrder", 0))
    colours = (
        "GraphicLayerRecommendedDisplayCIELabValue",
        "GraphicLayerRecommendedDisplayRGBValue",
        "GraphicLayerRecommendedDisplayGrayscaleValue",
    )
    return {str(read(item, "GraphicLayer") or "").strip(): colour_of(item, *colours) for item in ordered}
