"""Annotations over a picture: lines, curves, filled shapes, words, overlay planes, layer by layer `[PS3.3 C.10.5]`.

Promises: layers in their order, objects of no known layer last; each in the colour that is recommended, else white,
with a thin rim of the contrary so that it is seen over anything; a filled shape lets the image through; words stand in
the direction that their box has after rotation, and within the picture when their place is. What lies beyond the
picture costs nothing.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from gateway.dicom.presentation import Area, Presentation
from gateway.dicom.presentation_colours import Colour
from gateway.dicom.presentation_marks import Shape, Words
from gateway.documents.lettering import HEIGHT, WIDTH, lettered

__all__ = ["Placing", "annotated"]

_WHITE: Final[Colour] = (255, 255, 255)
#: How much of a filled shape covers what is below it, of 255.
_FILLED: Final = 90
#: Letters: one of so many parts of the picture's larger side, and bounds in pixels.
_LETTERS: Final = 40
_SMALLEST, _LARGEST = 11, 64
#: A line of thickness 1 is one of so many parts of the picture's larger side.
_LINE: Final = 500
#: Points of a whole turn, and between two points of a smooth curve, which has at most so many of its own.
_TURN, _BETWEEN, _SMOOTHED = 128, 12, 5_000
#: Pictures up to so many pixels have lines drawn twice as large and made smaller, which smooths them.
_FINE: Final = 4 << 20
_Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Placing:
    """Where a point of the image lies in the picture.

    Attributes
    ----------
    area
        What of the image is displayed.
    width, height
        Of the picture.
    """

    area: Area
    rotation: int
    flipped: bool
    width: int
    height: int

    def of(self, points: _Points, *, of_display: bool) -> _Points:
        """Give the picture's coordinates of points in the image, or in shares of what is displayed."""
        if not of_display:
            wide, high = self.area.right - self.area.left, self.area.bottom - self.area.top
            x, y = (points[:, 0] - self.area.left) / wide, (points[:, 1] - self.area.top) / high
            x, y = {0: (x, y), 90: (1 - y, x), 180: (1 - x, 1 - y), 270: (y, 1 - x)}[self.rotation]
            points = np.stack([1 - x if self.flipped else x, y], axis=1)
        return points * (self.width, self.height)


def annotated(
    picture: Image.Image, shown: Presentation, placing: Placing, overlays: Sequence[tuple[str, Image.Image]]
) -> Image.Image:
    """Draw all that a state says over a picture.

    Parameters
    ----------
    overlays
        Layer and plane, as large as the picture.
    """
    if not (shown.shapes or shown.words or overlays):
        return picture
    board = _Board(picture, placing)
    placed = list(_placed(shown.words, placing))
    named = (*(one.layer for one in shown.shapes), *(one.layer for one in shown.words))
    used = dict.fromkeys([*shown.layers, *named, *dict(overlays)])
    for layer in used:
        recommended = shown.layers.get(layer) or _WHITE
        for name, plane in overlays:
            if name == layer:
                board.lay(plane, recommended)
        shapes = [one for one in shown.shapes if one.layer == layer]
        words = [one for one in placed if one.words.layer == layer]
        for own in dict.fromkeys((*(one.colour for one in shapes), *(one.words.colour for one in words))):
            board.draw(
                [one for one in shapes if one.colour == own],
                [one for one in words if one.words.colour == own],
                own or recommended,
            )
    return board.picture


class _Board:
    """The picture under work."""

    def __init__(self, picture: Image.Image, placing: Placing) -> None:
        self.picture = picture
        self._placing = placing
        self._larger = max(picture.size)
        self._times = 2 if picture.width * picture.height <= _FINE else 1

    def lay(self, plane: Image.Image, colour: Colour) -> None:
        """Show an overlay plane."""
        self._paste(colour, plane)

    def draw(self, shapes: Sequence[Shape], words: Sequence[_Placed], colour: Colour) -> None:
        """Draw what has one colour: what is filled, then the rim of all lines and letters, then these."""
        size = (self.picture.width * self._times, self.picture.height * self._times)
        fills, lines = Image.new("L", size), Image.new("L", size)
        filling, drawing = ImageDraw.Draw(fills), ImageDraw.Draw(lines)
        for shape in shapes:
            self._shape(shape, filling, drawing)
        for one in words:
            for piece in one.lines(self._larger / _LINE * 3):
                _line(drawing, piece * self._times, self._width(1.0), size)
        if self._times > 1:
            fills, lines = fills.reduce(self._times), lines.reduce(self._times)
        for one in words:
            lines.paste(ImageChops.lighter(one.letters, lines.crop(one.box)), one.box)
        if fills.getbbox():
            self._paste(colour, fills.point([value * _FILLED // 255 for value in range(256)]))
        drawn = lines.getbbox()
        if drawn is None:
            return
        rim = 1 if self._larger < 1200 else 2
        # What is drawn and its rim: the rest of a large picture is not looked at.
        left, top, right, bottom = drawn
        box = (left - rim, top - rim, right + rim, bottom + rim)
        lines = lines.crop(box)
        red, green, blue = colour
        contrary = (0, 0, 0) if red * 299 + green * 587 + blue * 114 > 100_000 else _WHITE
        self._paste(contrary, lines.filter(ImageFilter.MaxFilter(2 * rim + 1)), box)
        self._paste(colour, lines, box)

    def _paste(self, colour: Colour, mask: Image.Image, box: tuple[int, int, int, int] | None = None) -> None:
        if self.picture.mode == "L" and len(set(colour)) > 1:
            self.picture = self.picture.convert("RGB")
        self.picture.paste(colour if self.picture.mode == "RGB" else colour[0], box, mask)

    def _shape(self, shape: Shape, filling: ImageDraw.ImageDraw, drawing: ImageDraw.ImageDraw) -> None:
        points = _curve(shape.kind, self._placing.of(shape.points, of_display=shape.of_display))
        points = points * self._times
        size, width = filling.im.size, self._width(shape.thickness)
        if shape.kind == "POINT":
            _line(drawing, points + _turn(width, width), 2 * width, size)
            return
        if shape.filled and len(points) > 2:
            filling.polygon([tuple(point) for point in points.tolist()], fill=255)
            points = np.concatenate([points, points[:1]])
        _line(drawing, points, width, size)

    def _width(self, thickness: float) -> int:
        return max(2, round(thickness * self._times * max(1.0, self._larger / _LINE)))


def _line(drawing: ImageDraw.ImageDraw, points: _Points, width: int, size: tuple[int, int]) -> None:
    """Draw what of a line lies within the picture, and a little beyond."""
    margin = 2.0 * width + 4
    if ((points >= -margin) & (points <= np.array(size) + margin)).all():
        drawing.line([tuple(point) for point in points.tolist()], fill=255, width=width, joint="curve")
        return
    for one, other in _within(points[:-1], points[1:], margin, size):
        drawing.line([tuple(one), tuple(other)], fill=255, width=width)


def _within(
    begins: _Points, ends: _Points, margin: float, size: tuple[int, int]
) -> Iterator[tuple[list[float], list[float]]]:
    """Cut segments to a rectangle around the picture (Liang and Barsky)."""
    ways = ends - begins
    first, last = np.zeros(len(begins)), np.ones(len(begins))
    for axis in (0, 1):
        with np.errstate(divide="ignore", invalid="ignore"):
            one = (-margin - begins[:, axis]) / ways[:, axis]
            other = (size[axis] + margin - begins[:, axis]) / ways[:, axis]
        still = ways[:, axis] == 0
        inside = (begins[:, axis] >= -margin) & (begins[:, axis] <= size[axis] + margin)
        first = np.maximum(first, np.where(still, np.where(inside, 0.0, 2.0), np.minimum(one, other)))
        last = np.minimum(last, np.where(still, 1.0, np.maximum(one, other)))
    seen = first < last
    starts = begins[seen] + ways[seen] * first[seen, None]
    stops = begins[seen] + ways[seen] * last[seen, None]
    yield from zip(starts.tolist(), stops.tolist(), strict=True)


# ---- curves


def _turn(wide: float, high: float) -> _Points:
    angles = np.linspace(0, 2 * math.pi, _TURN + 1)
    return np.stack([np.cos(angles) * wide, np.sin(angles) * high], axis=1)


def _curve(kind: str, points: _Points) -> _Points:
    """Give the points of a line that looks like what is meant."""
    if kind == "CIRCLE":
        radius = float(np.hypot(*(points[1] - points[0])))
        around: _Points = points[0] + _turn(radius, radius)
        return around
    if kind == "ELLIPSE":
        centre = points.mean(axis=0)
        major, minor = (points[1] - points[0]) / 2, (points[3] - points[2]) / 2
        turn = _turn(1, 1)
        return np.asarray(centre + turn[:, :1] * major + turn[:, 1:] * minor)
    if kind == "INTERPOLATED" and 2 < len(points) <= _SMOOTHED:
        return _smooth(points)
    return points


def _smooth(points: _Points) -> _Points:
    """Lead a curve through all points (Catmull and Rom); one that ends where it begins has no corner there."""
    closed = bool((points[0] == points[-1]).all())
    before, after = (points[-2], points[1]) if closed else (2 * points[0] - points[1], 2 * points[-1] - points[-2])
    known = np.concatenate([[before], points, [after]])
    a, b, c, d = (known[at : len(known) - 3 + at, None] for at in range(4))
    t = np.linspace(0, 1, _BETWEEN, endpoint=False)[None, :, None]
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return np.concatenate([curve.reshape(-1, 2), points[-1:]])


# ---- words


@dataclass(frozen=True, slots=True)
class _Placed:
    """Words in their place: their letters, where these stand in the picture, the anchor when it is to be seen."""

    words: Words
    letters: Image.Image
    box: tuple[int, int, int, int]
    anchor: _Points | None

    def lines(self, radius: float) -> Iterator[_Points]:
        """Give the lines from the anchor to the words."""
        if self.anchor is not None:
            left, top, right, bottom = self.box
            x, y = self.anchor
            yield self.anchor + _turn(radius / 2, radius / 2)
            yield np.array([[x, y], [min(max(x, left), right), min(max(y, top), bottom)]], np.float64)


def _placed(words: Sequence[Words], placing: Placing) -> Iterator[_Placed]:
    """Set all words at once, and place them."""
    seen = [(one, _corners(one, placing), _anchor(one, placing)) for one in words]
    seen = [(one, box, anchor) for one, box, anchor in seen if _visible(box, anchor, placing)]
    sizes = [_letters(one, box, placing) for one, box, _ in seen]
    pages = lettered(
        [(size, _broken(one.text, size, box, placing)) for (one, box, _), size in zip(seen, sizes, strict=True)]
    )
    for (one, box, anchor), page in zip(seen, pages, strict=True):
        letters = Image.open(io.BytesIO(page)).getchannel("A")
        turns = 0 if box is None else _direction(box)
        letters = letters.rotate(-90 * turns, expand=True) if turns else letters
        letters = letters.crop((0, 0, min(letters.width, placing.width), min(letters.height, placing.height)))
        left, top = _place(letters.size, box, anchor, turns, one.justified)
        left = min(max(round(left), 0), placing.width - letters.width)
        top = min(max(round(top), 0), placing.height - letters.height)
        whole = (left, top, left + letters.width, top + letters.height)
        yield _Placed(one, letters, whole, anchor if one.anchored else None)


def _corners(words: Words, placing: Placing) -> _Points | None:
    return None if words.box is None else placing.of(words.box, of_display=words.box_of_display)


def _anchor(words: Words, placing: Placing) -> _Points | None:
    return None if words.anchor is None else placing.of(words.anchor, of_display=words.anchor_of_display)[0]


def _visible(box: _Points | None, anchor: _Points | None, placing: Placing) -> bool:
    """Words are shown when any part of their box, or their anchor, is within what is displayed."""
    edge = np.array([placing.width, placing.height])
    boxed = box is not None and bool((box.max(axis=0) >= 0).all() and (box.min(axis=0) <= edge).all())
    return boxed or (anchor is not None and bool((anchor >= 0).all() and (anchor <= edge).all()))


def _direction(box: _Points) -> int:
    """Quarter turns clockwise: words run from the box's first corner to the other, however these were turned."""
    wide, high = (box[1] - box[0]).tolist()
    return {(True, True): 0, (False, True): 1, (False, False): 2, (True, False): 3}[wide >= 0, high >= 0]


def _room(box: _Points) -> tuple[float, float]:
    """Width and height of a box as its words see it."""
    wide, high = np.abs(box[1] - box[0]).tolist()
    return (high, wide) if _direction(box) % 2 else (wide, high)


def _letters(words: Words, box: _Points | None, placing: Placing) -> int:
    """Choose how high letters are: as the box holds them, within what can be read."""
    usual = max(placing.width, placing.height) / _LETTERS
    size = usual
    if box is not None:
        wide, high = _room(box)
        lines = words.text.split("\n")
        size = min(high / (HEIGHT * len(lines)), wide / (WIDTH * max(map(len, lines))), 1.5 * usual)
    return round(min(max(size, _SMALLEST), _LARGEST))


def _broken(text: str, size: int, box: _Points | None, placing: Placing) -> str:
    """Break lines that the picture could not hold; leave those that it has no room for."""
    turned = box is not None and _direction(box) % 2 == 1
    room, high = (placing.height, placing.width) if turned else (placing.width, placing.height)
    width = max(int(room / (size * WIDTH)) - 1, 1)
    lines = [piece for line in text.split("\n") for piece in textwrap.wrap(line, width) or [""]]
    return "\n".join(lines[: max(int(high / (size * HEIGHT)), 1)])


def _place(
    size: tuple[int, int], box: _Points | None, anchor: _Points | None, turns: int, justified: str
) -> tuple[float, float]:
    """Give the left and the upper edge of the letters, as turned."""
    if box is None:
        x, y = (0.0, 0.0) if anchor is None else anchor.tolist()
        return x + size[1] / 2, y - size[1] / 2
    (left, top), (right, bottom) = box.min(axis=0).tolist(), box.max(axis=0).tolist()
    wide, _ = _room(box)
    along = {"CENTER": 0.5, "RIGHT": 1.0}.get(justified, 0.0) * (wide - size[turns % 2])
    return {
        0: (left + along, top),
        1: (right - size[0], top + along),
        2: (right - along - size[0], bottom - size[1]),
        3: (left, bottom - along - size[1]),
    }[turns]
