"""What a presentation state has drawn and written over an image → plain facts `[PS3.3 C.10.5]`.

Promises: all that it says or a refusal by name, never a part of it; counts and places have limits that name themselves.
Compound graphics are not read: the standard has them said again as simple ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from gateway.dicom.presentation_colours import Colour, colour_of
from gateway.dicom.presentation_values import MAX_PLACE, items, limited, number, numbers, read, refused, word

__all__ = ["Shape", "Words", "marks"]

_MAX_OBJECTS: Final = 2_000
_MAX_POINTS: Final = 100_000
_MAX_CHARACTERS: Final = 20_000
#: How far a place may be outside of what is displayed, in its own measure.
_MAX_DISPLAY: Final = 64.0
_KINDS: Final = frozenset({"POINT", "POLYLINE", "INTERPOLATED", "CIRCLE", "ELLIPSE"})
#: Points that a kind has at least, and at most.
_POINTS: Final = {"POINT": (1, 1), "CIRCLE": (2, 2), "ELLIPSE": (4, 4)}


@dataclass(frozen=True, slots=True)
class Shape:
    """A graphic object. Points in the image's pixels, or in shares of what is displayed."""

    kind: str
    points: NDArray[np.float64]
    of_display: bool
    filled: bool
    colour: Colour | None
    layer: str
    thickness: float = 1.0


@dataclass(frozen=True, slots=True)
class Words:
    """A text object: within a box, beside an anchor, or both."""

    text: str
    box: NDArray[np.float64] | None
    box_of_display: bool
    justified: str
    anchor: NDArray[np.float64] | None
    anchor_of_display: bool
    anchored: bool
    colour: Colour | None
    layer: str


def marks(annotations: Sequence[Dataset]) -> tuple[tuple[Shape, ...], tuple[Words, ...]]:
    """Read the items of a Graphic Annotation Sequence.

    Raises
    ------
    InvalidContent
        ``dicom-presentation``, ``dicom-presentation-limit``.
    """
    shapes: list[Shape] = []
    words: list[Words] = []
    points = characters = 0
    for annotation in annotations:
        layer = str(read(annotation, "GraphicLayer") or "").strip()
        for item in items(annotation, "GraphicObjectSequence"):
            shapes.append(_shape(item, layer))
            points += len(shapes[-1].points)
            if points > _MAX_POINTS:
                raise limited(f"{_MAX_POINTS} points")
            _counted(shapes, words)
        for item in items(annotation, "TextObjectSequence"):
            one = _text(item, layer)
            if one is not None:
                words.append(one)
                characters += len(one.text)
                if characters > _MAX_CHARACTERS:
                    raise limited(f"{_MAX_CHARACTERS} caractères")
            _counted(shapes, words)
    return tuple(shapes), tuple(words)


def _counted(*objects: list[Any]) -> None:
    if sum(map(len, objects)) > _MAX_OBJECTS:
        raise limited(f"{_MAX_OBJECTS} annotations")


def _shape(item: Dataset, layer: str) -> Shape:
    kind = word(item, "GraphicType")
    if kind not in _KINDS:
        raise refused("dont un tracé est d’un genre inconnu")
    values = numbers(item, "GraphicData", None)
    if len(values) > 2 * _MAX_POINTS:
        raise limited(f"{_MAX_POINTS} points")
    least, most = _POINTS.get(kind, (2, _MAX_POINTS))
    if len(values) % 2 or not least <= len(values) // 2 <= most:
        raise refused("dont un tracé n’a pas ses points")
    of_display = _of_display(item, "GraphicAnnotationUnits")
    style = next(iter(items(item, "LineStyleSequence")), Dataset())
    thickness = number(style, "LineThickness", 1.0)
    if not 0 < thickness <= 64:
        raise refused("dont un trait n’a pas d’épaisseur")
    return Shape(
        kind=kind,
        points=_placed(values, of_display=of_display),
        of_display=of_display,
        filled=word(item, "GraphicFilled") == "Y",
        colour=colour_of(style, "PatternOnColorCIELabValue"),
        layer=layer,
        thickness=thickness,
    )


def _text(item: Dataset, layer: str) -> Words | None:
    text = str(read(item, "UnformattedTextValue") or "").replace("\r\n", "\n").replace("\r", "\n")
    text = "".join(one if one == "\n" or one.isprintable() else " " for one in text).rstrip()
    if not text:
        return None
    box = anchor = None
    boxed = anchored = False
    if read(item, "BoundingBoxTopLeftHandCorner") is not None:
        boxed = _of_display(item, "BoundingBoxAnnotationUnits")
        corners = (
            *numbers(item, "BoundingBoxTopLeftHandCorner", 2),
            *numbers(item, "BoundingBoxBottomRightHandCorner", 2),
        )
        box = _placed(corners, of_display=boxed)
    if read(item, "AnchorPoint") is not None:
        anchored = _of_display(item, "AnchorPointAnnotationUnits")
        anchor = _placed(numbers(item, "AnchorPoint", 2), of_display=anchored)
    if box is None and anchor is None:
        raise refused("dont un texte n’a pas de place")
    style = next(iter(items(item, "TextStyleSequence")), Dataset())
    return Words(
        text=text,
        box=box,
        box_of_display=boxed,
        justified=word(item, "BoundingBoxTextHorizontalJustification") or "LEFT",
        anchor=anchor,
        anchor_of_display=anchored,
        anchored=word(item, "AnchorPointVisibility") == "Y",
        colour=colour_of(style, "TextColorCIELabValue"),
        layer=layer,
    )


def _of_display(item: Dataset, keyword: str) -> bool:
    units = word(item, keyword) or "PIXEL"
    if units not in ("PIXEL", "DISPLAY"):
        raise refused("dont une mesure est d’un genre inconnu")
    return units == "DISPLAY"


def _placed(numbers: Sequence[float], *, of_display: bool) -> NDArray[np.float64]:
    points = np.array(numbers, np.float64).reshape(-1, 2)
    most = _MAX_DISPLAY if of_display else MAX_PLACE
    if (np.abs(points) > most).any():
        raise limited(f"{most:g} {'fois la zone affichée' if of_display else 'pixels de décalage'}")
    return points
