"""The images of a dossier on a telephone, a tablet and an old PC: every tool within reach, fingers that do as they say.

Fingers are touches of the browser's own input (``Input.dispatchTouchEvent``): it may scroll and zoom the page by them.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.e2e.viewer_objects import STUDY, Folder
from tests.e2e.viewer_screen import MEASURE, NBSP, PHONE, Fingers, Screen

SMALL = {"width": 360, "height": 740}


def series(folder: Folder) -> None:
    folder.slices(1, "Axial 5 mm", [-5.0 * index for index in range(9)])
    folder.slices(2, "Axial 10 mm", [5, -6, -16, -27, -38])


#: What cannot be pressed where it stands: out of sight, under something else, or too small for a finger.
UNREACHED = """() => [...document.querySelectorAll(".v-tools button, .v-tools select")].filter(it => {
    const box = it.getBoundingClientRect();
    if (!box.width && it.classList.contains("v-desk")) return false;  // there is no full screen to go to on a telephone
    if (it.dataset.action === "outils" && !box.width) return false;
    if (it.closest("[hidden]")) return false;  // a list of which there is nothing to choose
    const [x, y] = [box.left + box.width / 2, box.top + box.height / 2];
    const inside = box.left >= 0 && box.top >= 0 && box.right <= innerWidth && box.bottom <= innerHeight;
    const met = inside && document.elementFromPoint(x, y);
    return !met || !it.contains(met) || box.width < 43.9 || box.height < 43.9;
}).map(it => it.outerHTML.slice(0, 80))"""
SEEN = """() => [...document.querySelectorAll(".v-tools button")].filter(it => it.offsetWidth)
    .map(it => it.textContent.trim())"""
#: How far the page itself was scrolled and zoomed.
PAGE = """() => [visualViewport.scale, visualViewport.pageLeft, visualViewport.pageTop, scrollX, scrollY,
                 document.querySelector(".v-tools").scrollLeft]"""
STILL = [1, 0, 0, 0, 0, 0]


def upright(screen: Screen, size: dict[str, int], share: float) -> None:
    """Look at a screen of this size: nothing beside it, everything within reach, the picture large, whose it is."""
    page = screen.page
    page.set_viewport_size(size)
    screen.settle()
    assert page.evaluate(MEASURE) == size | {"small": []}, size
    canvas = screen.pane().locator("canvas").bounding_box()
    assert canvas["width"] * canvas["height"] >= share * size["width"] * size["height"], (size, canvas)
    row = page.locator(".v-tools").bounding_box()
    more = page.get_by_role("button", name="Outils", exact=True)
    more.click()
    assert more.get_attribute("aria-expanded") == "true"
    assert page.evaluate(UNREACHED) == [], size
    who = page.get_by_label("Identité du patient").bounding_box()
    assert who["y"] + who["height"] <= page.locator(".v-tools").bounding_box()["y"] + 1, "the tools hide no identity"
    assert screen.pane().locator("canvas").bounding_box() == canvas, "the picture keeps its place below them"
    page.keyboard.press("Escape")
    assert more.get_attribute("aria-expanded") == "false"
    assert page.locator(".v-tools").bounding_box() == row


def test_each_tool_is_within_a_thumb_s_reach_whatever_the_screen(look) -> None:
    screen = look(series, viewport=SMALL, touch=True)
    page = screen.page
    screen.wait(f"{STUDY}.1.1")
    for size, share in (
        (SMALL, 0.6),
        (PHONE, 0.65),
        ({"width": 320, "height": 568}, 0.45),
        ({"width": 740, "height": 360}, 0.58),
        ({"width": 844, "height": 390}, 0.62),
    ):
        upright(screen, size, share)
    page.set_viewport_size(SMALL)
    assert page.evaluate(SEEN) == ["Fenêtre", "Défiler", "Longueur", "Ajuster", "Ciné", "Outils"]
    # A tool of the sheet is in hand at once, and stands in the row as long as it is.
    page.get_by_role("button", name="Outils", exact=True).click()
    page.get_by_role("button", name="Ellipse").click()
    assert page.evaluate(SEEN) == ["Fenêtre", "Défiler", "Longueur", "Ellipse", "Ajuster", "Ciné", "Outils"]
    assert page.evaluate(UNREACHED.replace("if (!box.width &&", "if (!box.width ||")) == []
    page.get_by_role("button", name="Défiler").click()
    # What is pressed several times keeps the sheet open; a finger on the picture closes it.
    page.get_by_role("button", name="Outils", exact=True).click()
    page.get_by_role("button", name="Tourner").click()
    page.get_by_role("button", name="Tourner").click()
    screen.wait_part("qualite", f"tournée de 180{NBSP}°")
    canvas = screen.pane().locator("canvas").bounding_box()
    with Fingers(screen) as fingers:
        fingers.down((canvas["x"] + 50, canvas["y"] + 50))
        fingers.up()
    assert page.get_by_role("button", name="Outils", exact=True).get_attribute("aria-expanded") == "false"
    # A tablet has them in one row, the rarer ones below it; an old PC has all of them in one.
    page.set_viewport_size({"width": 768, "height": 1024})
    assert page.locator(".v-tools").bounding_box()["height"] < 70
    page.get_by_role("button", name="Outils", exact=True).click()
    assert page.evaluate(UNREACHED) == []
    assert page.evaluate("document.documentElement.scrollWidth") == 768
    assert screen.said == []


def test_an_old_pc_has_all_tools_in_one_row(look) -> None:
    screen = look(series, viewport={"width": 1024, "height": 768})
    page = screen.page
    screen.wait(f"{STUDY}.1.1")
    assert not page.get_by_role("button", name="Outils", exact=True).is_visible()
    tops = page.evaluate(
        "() => [...document.querySelectorAll('.v-tools .v-tool')].filter(it => it.offsetWidth).map(it => it.offsetTop)"
    )
    assert len(tops) == 17
    assert len(set(tops)) == 1
    assert page.evaluate("document.documentElement.scrollWidth") == 1024
    assert page.evaluate("document.documentElement.scrollHeight") == 768
    assert screen.said == []


def middle(screen: Screen) -> tuple[float, float]:
    canvas = screen.pane().locator("canvas").bounding_box()
    return canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2


def test_fingers_turn_zoom_and_move_the_picture_and_never_the_page(look) -> None:
    screen = look(series, viewport=SMALL, touch=True)
    page = screen.page
    screen.wait(f"{STUDY}.1.1")
    x, y = middle(screen)
    with Fingers(screen) as fingers:
        # Down the stack and up again.
        fingers.down((x, y)).move((x, y + 60)).move((x, y + 120)).up()
        page.wait_for_function("() => parseInt(document.querySelector('[data-part=rang]').textContent) > 3")
        fingers.down((x, y)).move((x, y - 150)).move((x, y - 300)).up()
        screen.wait(f"{STUDY}.1.1")
        assert page.evaluate(PAGE) == STILL
        # Two fingers spread three times as far: a third of the width, 128 mm, is now 43 mm.
        assert screen.part("regle-texte") == f"10{NBSP}cm"
        fingers.down((x - 30, y)).down((x - 30, y), (x + 30, y)).move((x - 60, y), (x + 60, y))
        fingers.move((x - 90, y), (x + 90, y)).up()
        screen.wait_part("regle-texte", f"2{NBSP}cm")
        assert page.evaluate(PAGE) == STILL
        # One finger of the two is lifted: the other one waits for the hand to come back.
        rank = screen.part("rang")
        fingers.down((x - 30, y)).down((x - 30, y), (x + 30, y)).only(1).move((x + 30, y + 150)).up()
        screen.settle()
        assert screen.part("rang") == rank
        # Two taps show the whole picture.
        fingers.tap((x, y)).tap((x, y))
        screen.wait_part("regle-texte", f"10{NBSP}cm")
        # A finger that the system takes away is not waited for: the next one is the first again.
        fingers.down((x, y)).move((x, y + 40)).cancel()
        page.get_by_label("Image de la vue 1").fill("1")
        screen.wait(f"{STUDY}.1.1")
        fingers.down((x, y)).move((x, y + 60)).move((x, y + 120)).up()
        page.wait_for_function("() => parseInt(document.querySelector('[data-part=rang]').textContent) > 3")
        assert page.evaluate(PAGE) == STILL
    assert screen.said == []


def places(folder: Folder) -> None:
    """A picture whose values say where they stand: 64 times the row, and the column; 3 mm apart."""
    series(folder)
    words = np.arange(64 * 64, dtype="<u2")
    folder.chart((0, 0, 0, 0), 3, 1, PixelData=words.tobytes(), RescaleIntercept="0", PixelSpacing=["3", "3"])


def in_the_middle(screen: Screen) -> tuple[int, int]:
    """Row and column of the picture that stand in the middle of the pane."""
    screen.page.mouse.move(1, 1)
    screen.page.mouse.move(*middle(screen))
    screen.page.wait_for_function("() => document.querySelector('[data-part=valeur]').textContent")
    return divmod(int(re.match(r"\d+", screen.part("valeur"))[0]), 64)


def test_a_telephone_that_is_turned_under_the_finger_ends_the_gesture_and_keeps_the_place(look) -> None:
    screen = look(places, f"?serie={STUDY}.3", viewport=SMALL, touch=True)
    page = screen.page
    screen.wait(f"{STUDY}.3.1")
    x, y = middle(screen)
    page.get_by_role("button", name="Longueur").click()
    lines = page.locator("[data-part=mesures] li")
    with Fingers(screen) as fingers:
        fingers.down((x, y)).move((x + 40, y)).move((x + 80, y))
        screen.settle()
        assert lines.count() == 1
        page.set_viewport_size({"width": SMALL["height"], "height": SMALL["width"]})
        screen.settle()
        fingers.move((x + 90, y)).move((x + 100, y)).up()
        screen.settle()
        assert lines.count() == 0, "half a measure of another screen is none"
        # The next finger draws as if nothing had been: 32 columns of 3 mm.
        start, end = (screen.at(column, 32, rows=64, columns=64) for column in (16, 48))
        fingers.down(start).move(((start[0] + end[0]) / 2, start[1])).move(end).up()
        screen.settle()
        said = lines.inner_text()
        assert float(said.split(NBSP)[1].removeprefix(": ").replace(",", ".")) == pytest.approx(96, abs=3)
        page.get_by_role("button", name="Défiler").click()
        # What was moved to the middle stays there when the telephone stands up again.
        x, y = middle(screen)
        fingers.down((x - 30, y)).down((x - 30, y), (x + 30, y)).move((x + 40, y + 25), (x + 100, y + 25)).up()
        screen.settle()
        before = in_the_middle(screen)
        assert before != pytest.approx((32, 32), abs=3), "it had been moved"
        page.set_viewport_size(SMALL)
        screen.settle()
        assert in_the_middle(screen) == pytest.approx(before, abs=1)
        assert page.evaluate(PAGE) == STILL
    assert screen.said == []
