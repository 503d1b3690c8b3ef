"""A person before the images of a dossier: what is drawn, waited for, dragged and touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from tests.e2e.portal_house import Visitor
from tests.e2e.viewer_objects import Folder

DESK = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
NBSP = "\u00a0"
CHART_SIDE = 64

Fill = Callable[[Folder], object]


@dataclass
class Screen:
    """A person before the images of the dossier."""

    visitor: Visitor
    said: list[str]
    base: str

    @property
    def page(self):
        return self.visitor.page

    def pane(self, number: int = 1):
        return self.page.locator("[data-pane]").nth(number - 1)

    def part(self, name: str, pane: int = 1) -> str:
        return self.pane(pane).locator(f"[data-part={name}]").inner_text()

    def wait(self, uid: str, state: str = "exact", *, frame: int = 1, pane: int = 1) -> None:
        """Until this very image is drawn."""
        self.page.wait_for_function(
            """([pane, key, state]) => {
                const box = document.querySelectorAll("[data-pane]")[pane - 1];
                return box.dataset.etat === state && box.dataset.image === key;
            }""",
            arg=[pane, f"{uid}/{frame}", state],
        )

    def wait_part(self, name: str, text: str, pane: int = 1) -> None:
        self.page.wait_for_function(
            """([pane, name, text]) => document.querySelectorAll("[data-pane]")[pane - 1]
                .querySelector(`[data-part=${name}]`).textContent === text""",
            arg=[pane, name, text],
        )

    def at(
        self, x: float, y: float, *, rows: int, columns: int, ratio: float = 1.0, pane: int = 1
    ) -> tuple[float, float]:
        """Where a point of a whole picture lies on the page: it fits its pane and stands in the middle."""
        box = self.pane(pane).locator("canvas").bounding_box()
        scale = min(box["width"] / columns, box["height"] / (rows * ratio))
        left = box["x"] + (box["width"] - columns * scale) / 2
        top = box["y"] + (box["height"] - rows * ratio * scale) / 2
        return left + x * scale, top + y * ratio * scale

    def shade(self, x: float, y: float, pane: int = 1, **shape) -> list[int]:
        """Red, green and blue that the screen shows at a point of the picture."""
        box = self.pane(pane).locator("canvas").bounding_box()
        across, down = self.at(x, y, pane=pane, **shape)
        return self.page.evaluate(
            """([pane, x, y]) => {
                const canvas = document.querySelectorAll("[data-pane]")[pane - 1].querySelector("canvas");
                const density = canvas.width / canvas.clientWidth;
                return [...canvas.getContext("2d").getImageData(x * density, y * density, 1, 1).data].slice(0, 3);
            }""",
            [pane, across - box["x"], down - box["y"]],
        )

    def quarters(self) -> list[int]:
        """Greys in the middle of the four quarters of a chart."""
        found = [self.shade(x, y, rows=CHART_SIDE, columns=CHART_SIDE) for y in (16, 48) for x in (16, 48)]
        assert all(len(set(one)) == 1 for one in found), found
        return [one[0] for one in found]

    def drag(self, start: tuple[float, float], end: tuple[float, float], button: str = "left") -> None:
        self.page.mouse.move(*start)
        self.page.mouse.down(button=button)
        self.page.mouse.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        self.page.mouse.move(*end)
        self.page.mouse.up(button=button)
        self.settle()

    def settle(self) -> None:
        """Until what was asked for is drawn."""
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
        self.settle()


MEASURE = """() => ({
  width: document.documentElement.scrollWidth,
  height: document.documentElement.scrollHeight,
  small: [...document.querySelectorAll("button, select, input, a:not(.skip)")]
    .map(e => [e, e.getBoundingClientRect()])
    .filter(([e, r]) => r.height > 0 && (r.height < 43.9 || r.width < 43.9))
    .map(([e, r]) => `${e.outerHTML.slice(0, 90)} ${r.width}x${r.height}`),
})"""


class Fingers:
    """Fingers on the glass, by the browser's own input: where each of them is, from the first on."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._places: dict[int, tuple[float, float]] = {}
        self._clock = 1_000_000.0

    def __enter__(self) -> Self:
        self._wire = self._screen.visitor.context.new_cdp_session(self._screen.page)
        return self

    def __exit__(self, *_: object) -> None:
        self._wire.detach()

    def down(self, *places: tuple[float, float]) -> Fingers:
        """Lay one more finger down; the others are where they are said to be."""
        self._places = dict(enumerate(places))
        return self._say("touchStart")

    def move(self, *places: tuple[float, float]) -> Fingers:
        self._places = dict(zip(self._places, places, strict=True))
        return self._say("touchMove")

    def only(self, finger: int) -> Fingers:
        """Lift all but one."""
        self._places = {finger: self._places[finger]}
        return self._say("touchEnd")

    def up(self) -> Fingers:
        self._places = {}
        return self._say("touchEnd")

    def cancel(self) -> Fingers:
        """The system takes the fingers for itself."""
        self._places = {}
        return self._say("touchCancel")

    def tap(self, place: tuple[float, float]) -> Fingers:
        return self.down(place).up()

    def _say(self, kind: str) -> Fingers:
        # 50 ms from one to the next, whatever the machine that the test runs on is busy with.
        self._clock += 0.05
        points = [{"x": x, "y": y, "id": finger} for finger, (x, y) in self._places.items()]
        self._wire.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points, "timestamp": self._clock})
        return self
