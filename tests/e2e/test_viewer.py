"""The images of a dossier as a person looks at them: Chromium, the composed application, objects sent by C-STORE.

Shades are those that PS3.3 C.11.2.1 gives for the values of the charts, worked out by hand. The pictures of
``docs/images`` are made by ``RCP_DOC_IMAGES=docs/images pytest tests/e2e/test_viewer.py -k documentation``.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from gateway.demo.ct_phantom import DOMINIQUE
from gateway.model.person import PatientRecord
from gateway.portal.render import static_url
from tests.e2e.portal_house import House, send_images
from tests.e2e.viewer_objects import STUDY, Folder
from tests.e2e.viewer_screen import CHART_SIDE, DESK, MEASURE, NBSP, PHONE, Fingers
from tests.world import audit_lines

# -- pixels ----------------------------------------------------------------------------------------------------------

CT = {"RescaleSlope": "1", "RescaleIntercept": "-1024", "WindowCenter": "40", "WindowWidth": "400"}
#: What an object says, the words it stores, and the greys that the standard gives them.
CHARTS = (
    # Twelve bits; what lies in the four others is not the picture's. −160, 40, 240 and 140 HU through 40/400.
    (CT, (0xF000 | 864, 0xA000 | 1064, 1264, 0x5000 | 1164), [0, 128, 255, 192]),
    # Signed: −190, 10, 110 and 200 after a slope of 2 and an intercept of 10, through 10/401.
    (
        {
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": 1,
            "RescaleSlope": "2",
            "RescaleIntercept": "10",
            "WindowCenter": "10",
            "WindowWidth": "401",
        },
        (-100, 0, 50, 95),
        [0, 128, 192, 249],
    ),
    # Eight bits, no window: the whole extent; MONOCHROME1 shows the lowest white.
    (
        {
            "BitsAllocated": 8,
            "BitsStored": 8,
            "HighBit": 7,
            "PhotometricInterpretation": "MONOCHROME1",
            **dict.fromkeys(("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")),
        },
        (0, 51, 102, 255),
        [255, 204, 153, 0],
    ),
    # 40, 240, −160 and 440 HU through a sigmoid of 40/400: 255 / (1 + e^(−4 (x − 40) / 400)).
    (CT | {"VOILUTFunction": "SIGMOID"}, (1064, 1264, 864, 1464), [128, 225, 30, 250]),
    # −100, 0, 50 and 100 HU through an exact 0/200.
    (
        CT | {"WindowCenter": "0", "WindowWidth": "200", "VOILUTFunction": "LINEAR_EXACT"},
        (924, 1024, 1074, 1124),
        [0, 128, 191, 255],
    ),
)


def charts(folder: Folder) -> None:
    for number, (attributes, words, _) in enumerate(CHARTS, 1):
        folder.chart(words, 1, number, **attributes)


def test_each_image_has_the_shades_that_the_standard_gives_its_values(look) -> None:
    screen = look(charts)
    for number, (_, _, expected) in enumerate(CHARTS, 1):
        screen.wait(f"{STUDY}.1.{number}")
        assert screen.quarters() == expected, number
        screen.press("ArrowDown")
    assert screen.said == []


def test_a_window_that_is_chosen_drawn_or_typed_changes_the_shades(look) -> None:
    screen = look(charts)
    screen.wait(f"{STUDY}.1.1")
    page = screen.page
    # Lung, −600/1500: ((x + 600.5) / 1499 + 0.5) × 255 for −160, 40 and 140; 240 lies above the top, 149.
    page.get_by_label("Fenêtrage", exact=True).select_option(label="Poumon (2)")
    screen.wait_part("fenetre", f"C{NBSP}−600 · L{NBSP}1500")
    assert screen.quarters() == [202, 236, 255, 253]
    screen.press("1")
    screen.wait_part("fenetre", f"C{NBSP}40 · L{NBSP}400")
    assert screen.quarters() == CHARTS[0][2]
    # Drawn to the right the window is wider; the shades are those of the window that is said.
    middle = screen.at(32, 32, rows=CHART_SIDE, columns=CHART_SIDE)
    screen.drag(middle, (middle[0] + 64, middle[1]))
    screen.wait_part("fenetre", f"C{NBSP}40 · L{NBSP}500")
    # ((x − 39.5) / 499 + 0.5) × 255 for −160, 40, 240 and 140.
    assert screen.quarters() == [26, 128, 230, 179]
    screen.press("Shift+ArrowUp")  # a fortieth of the width
    screen.wait_part("fenetre", f"C{NBSP}53 · L{NBSP}500")
    screen.press("i")
    assert page.get_by_role("button", name="Inverser").get_attribute("aria-pressed") == "true"
    screen.settle()
    # ((x − 52.5) / 499 + 0.5) × 255, from 255.
    assert screen.quarters() == [236, 134, 32, 83]
    screen.press("0")
    screen.wait_part("fenetre", f"C{NBSP}40 · L{NBSP}400")
    assert screen.quarters() == CHARTS[0][2]
    assert screen.said == []


def files(folder: Folder) -> None:
    folder.file("MR_small.dcm", 1, 1, "IRM")
    folder.file("MR_small_RLE.dcm", 1, 2, "IRM")
    folder.file("MR_small_jpeg_ls_lossless.dcm", 1, 3, "IRM")
    folder.file("examples_rgb_color.dcm", 2, 1, "Échographie")
    folder.file("examples_palette.dcm", 2, 2, "Échographie")
    folder.file("examples_ybr_color.dcm", 3, 1, "Boucle")
    folder.file("CT_small.dcm", 4, 1, "Petit scanner", PixelPaddingValue=None)


def test_files_of_pydicom_are_seen_whatever_their_compression(look) -> None:
    """The first pixel of MR_small is 905: ((905 − 599.5) / 1599 + 0.5) × 255 = 176 through its own 600/1600."""
    screen = look(files)
    for number in (1, 2, 3):
        screen.wait(f"{STUDY}.1.{number}")
        # Interpolated between neighbours when it is enlarged, except in the very corner: eight times, seen as it is.
        screen.press("ArrowDown")
    screen.press("Home")
    screen.wait(f"{STUDY}.1.1")
    first = [screen.shade(0.1, 0.1, rows=64, columns=64)]
    for number in (2, 3):
        screen.press("ArrowDown")
        screen.wait(f"{STUDY}.1.{number}")
        first.append(screen.shade(0.1, 0.1, rows=64, columns=64))
    assert first == [[176, 176, 176]] * 3
    screen.press("n")
    screen.wait(f"{STUDY}.2.1")
    assert screen.page.locator("[data-action=inverser]").is_disabled(), "colours have no window"
    screen.press("ArrowDown")
    screen.wait(f"{STUDY}.2.2")
    screen.press("n")
    screen.wait(f"{STUDY}.3.1")
    assert screen.part("rang") == f"1{NBSP}/{NBSP}30"
    # The loop says 33.3 ms a frame; the scan after it says nothing, and is not shown at the loop's speed.
    speed = screen.page.get_by_label("Vitesse")
    assert speed.input_value() == "30"
    screen.press("End")
    screen.wait(f"{STUDY}.3.1", frame=30)
    screen.press("n")
    screen.wait(f"{STUDY}.4.1")
    assert speed.input_value() == "10"
    # No window of its own: from −896 to 1167 HU, the values' ends (128 and 2191, less 1024): 135.5 and 2063.
    assert screen.part("fenetre") == f"C{NBSP}136 · L{NBSP}2063"
    assert screen.said == []


# -- measures --------------------------------------------------------------------------------------------------------


def test_lengths_angles_and_means_are_those_of_the_object(look) -> None:
    """Rows lie 0.5 mm apart and columns 0.25 mm: 32 columns are 8 mm, 32 rows 16 mm."""
    screen = look(lambda folder: folder.chart(CHARTS[0][1], 1, 1, **CT, PixelSpacing=["0.5", "0.25"]))
    screen.wait(f"{STUDY}.1.1")

    def at(x: float, y: float) -> tuple[float, float]:
        return screen.at(x, y, rows=CHART_SIDE, columns=CHART_SIDE, ratio=2)

    measured = screen.page.locator("[data-part=mesures] li")
    screen.press("l")
    screen.drag(at(16, 16), at(48, 16))
    screen.drag(at(8, 16), at(8, 48))
    assert measured.all_inner_texts() == [f"Longueur{NBSP}: 8,0{NBSP}mm", f"Longueur{NBSP}: 16,0{NBSP}mm"]
    screen.press("a")
    screen.drag(at(16, 40), at(48, 40))  # 8 mm to the left of the apex, and
    screen.page.mouse.move(*at(48, 20))
    screen.page.mouse.click(*at(16, 24))  # 8 mm to the left, 8 mm above
    screen.settle()
    assert measured.nth(2).inner_text() == f"Angle{NBSP}: 45,0{NBSP}°"
    screen.press("Delete", "Delete", "Delete")
    assert measured.count() == 0
    screen.press("e")
    screen.drag(at(36, 36), at(60, 60))  # in the lower right quarter, 140 HU: 6 mm × 12 mm, π × 18 mm²
    assert measured.all_inner_texts() == [
        f"Ellipse{NBSP}: moyenne 140,0{NBSP}UH, écart-type 0,0{NBSP}UH, 56,5{NBSP}mm², de 140 à 140{NBSP}UH"
    ]
    # A zoom changes the drawing, not the figure; the pointer reads the value below it.
    before = screen.pane().screenshot()
    screen.press("+", "+")
    screen.page.wait_for_function("() => document.querySelector('[data-part=mesures] li').textContent.includes('56,5')")
    assert screen.pane().screenshot() != before
    screen.press("0")
    screen.page.mouse.move(*at(16, 48))
    screen.wait_part("valeur", f"240{NBSP}UH")
    screen.page.get_by_role("button", name="Effacer").click()
    screen.settle()
    assert measured.count() == 0
    assert screen.said == []


def test_measures_are_of_the_image_last_as_long_as_the_session_and_are_nobody_else_s(look, house: House) -> None:
    screen = look(two_series)
    page, uid = screen.page, f"{STUDY}.1.1"
    first, second = (screen.pane(number).locator("[data-part=mesures] li") for number in (1, 2))
    lengths = [f"Longueur{NBSP}: 96,0{NBSP}mm"]

    def at(x: float, y: float, pane: int = 1) -> tuple[float, float]:
        return screen.at(x, y, rows=128, columns=128, pane=pane)

    screen.wait(uid)
    screen.press("l")
    screen.drag(at(40, 40), at(72, 40))  # 32 columns of 3 mm
    assert first.all_inner_texts() == lengths
    screen.press("a")
    screen.drag(at(40, 80), at(72, 80))  # an angle whose second arm nobody sets
    screen.press("w")
    assert first.all_inner_texts() == lengths
    screen.press("a")
    screen.drag(at(40, 80), at(72, 80))
    # To another series and back; both views of the image say the same.
    page.get_by_role("link", name="Sagittal").click()
    screen.wait(f"{STUDY}.3.1")
    assert first.count() == 0
    page.get_by_role("link", name="Axial 5 mm").click()
    screen.wait(uid)
    page.get_by_role("button", name="Deux vues").click()
    screen.wait(f"{STUDY}.2.1", pane=2)
    screen.pane(2).focus()
    page.get_by_role("link", name="Axial 5 mm").click()
    screen.wait(uid, pane=2)
    assert second.all_inner_texts() == lengths
    screen.press("l")
    screen.drag(at(40, 90, 2), at(72, 90, 2))
    page.wait_for_function("() => document.querySelectorAll('[data-pane]')[0].querySelectorAll('li').length === 2")
    screen.press("Delete")
    page.wait_for_function("() => document.querySelectorAll('[data-pane]')[0].querySelectorAll('li').length === 1")
    # To the fiche and back, and anew: they stand where they were drawn, without what was not finished.
    page.goto(page.url.split("/images")[0])
    screen.visitor.go(f"{screen.base}?serie={STUDY}.1")
    screen.wait(uid)
    assert first.all_inner_texts() == lengths
    page.reload()
    screen.wait(uid)
    assert first.all_inner_texts() == lengths
    kept = page.evaluate("() => sessionStorage.getItem('rcp-mesures')")
    assert "PAT" not in kept
    # What is not ours, or not whole, is nobody's.
    for said in ("{", '{"owner": 1}', kept.replace('"owner":"', '"owner":"f')):
        page.evaluate("() => window.addEventListener('pagehide', event => event.stopImmediatePropagation(), true)")
        page.goto(f"{screen.visitor.origin}/aide")
        page.evaluate("said => sessionStorage.setItem('rcp-mesures', said)", said)
        screen.visitor.go(f"{screen.base}?serie={STUDY}.1")
        screen.wait(uid)
        assert first.count() == 0
    screen.press("l")
    screen.drag(at(40, 40), at(72, 40))
    page.goto(page.url.split("/images")[0])
    page.get_by_role("button", name="Se déconnecter").click()
    page.wait_for_url("**/connexion**")
    assert page.evaluate("() => sessionStorage.getItem('rcp-mesures')") is None
    screen.visitor.go(f"{screen.base}?serie={STUDY}.1")
    screen.visitor.sign_in(house.world.treating)
    screen.wait(uid)
    assert (first.count(), screen.said) == (0, [])


def test_a_picture_is_turned_and_mirrored_with_its_letters_and_says_when_it_has_no_scale(look) -> None:
    def fill(folder: Folder) -> None:
        folder.slices(1, "Axial", [0.0])
        folder.chart(CHARTS[0][1], 2, 1, **CT, PixelSpacing=None, ImagerPixelSpacing=None)

    screen = look(fill)
    page = screen.page
    screen.wait(f"{STUDY}.1.1")

    def letters() -> list[str]:
        screen.settle()
        return [screen.part(f"cote-{edge}") for edge in ("left", "right", "top", "bottom")]

    assert letters() == ["R", "L", "A", "P"]
    page.get_by_role("button", name="Tourner").click()
    assert letters() == ["P", "A", "R", "L"]
    assert screen.part("qualite") == f"tournée de 90{NBSP}°"
    screen.press("m")
    assert letters() == ["A", "P", "R", "L"]
    assert page.get_by_role("button", name="Miroir").get_attribute("aria-pressed") == "true"
    screen.press("0")
    assert letters() == ["R", "L", "A", "P"]
    assert screen.part("qualite") == ""
    screen.press("n")
    screen.wait(f"{STUDY}.2.1")
    assert screen.part("regle-texte") == f"Échelle inconnue{NBSP}: mesures en pixels"
    assert screen.quarters() == [0, 128, 255, 192]
    screen.press("r")  # clockwise: the lower left quarter is now the upper left one
    assert screen.quarters() == [255, 0, 192, 128]
    screen.press("m")
    assert screen.quarters() == [0, 255, 128, 192]
    # Measured on what is turned: 32 columns are 32 pixels, and a zoom to fit leaves the sense as it is.
    screen.press("l")
    shape = {"rows": CHART_SIDE, "columns": CHART_SIDE}
    screen.drag(screen.at(16, 16, **shape), screen.at(16, 48, **shape))
    assert page.locator("[data-part=mesures] li").all_inner_texts() == [f"Longueur{NBSP}: 32{NBSP}px"]
    screen.press("Delete", "+", "x")
    assert screen.quarters() == [0, 255, 128, 192]
    assert screen.said == []


# -- stacks ----------------------------------------------------------------------------------------------------------

#: Records each rank that a pane shows.
RANKS = """() => {
    window.ranks = [];
    const rank = document.querySelector("[data-part=rang]");
    new MutationObserver(() => window.ranks.push(parseInt(rank.textContent))).observe(rank, { childList: true });
}"""


def test_the_stack_turns_by_wheel_keyboard_slider_buttons_and_by_itself(look) -> None:
    screen = look(lambda folder: folder.slices(1, "Axial 5 mm", [-5.0 * index for index in range(9)]))
    uid = f"{STUDY}.1."
    page = screen.page
    screen.wait(f"{uid}1")
    assert screen.part("position") == f"position 0,0{NBSP}mm"
    assert screen.part("coupe") == f"coupe de 5{NBSP}mm"
    assert [screen.part(f"cote-{edge}") for edge in ("left", "right", "top", "bottom")] == ["R", "L", "A", "P"]
    # 384 mm are as high as the pane: 20 cm are the longest round length under a third of its width.
    box = screen.pane().locator("canvas").bounding_box()
    assert screen.part("regle-texte") == f"20{NBSP}cm"
    bar = screen.pane().locator("[data-part=regle] > span").first.bounding_box()
    assert bar["width"] == pytest.approx(200 * box["height"] / 384, abs=1)
    screen.press("ArrowDown", "ArrowDown", "ArrowUp")
    screen.wait(f"{uid}2")
    screen.press("End")
    screen.wait(f"{uid}9")
    screen.press("ArrowDown")
    screen.wait(f"{uid}9")
    screen.press("Home")
    screen.wait(f"{uid}1")
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    for _ in range(3):
        page.mouse.wheel(0, 120)
    screen.wait(f"{uid}4")
    assert screen.part("position") == f"position −15,0{NBSP}mm"
    page.get_by_role("button", name="Image suivante").click()
    screen.wait(f"{uid}5")
    slider = page.get_by_label("Image de la vue 1")
    slider.fill("8")
    screen.wait(f"{uid}8")
    assert slider.get_attribute("aria-valuetext") == "Image 8 sur 9"
    # The address shows the same again.
    page.wait_for_url(re.compile(re.escape(f"objet={uid}8")))
    page.reload()
    screen.wait(f"{uid}8")
    page.evaluate(RANKS)
    page.get_by_label("Vitesse").select_option("30")
    screen.press(" ")
    assert page.get_by_role("button", name="Ciné").get_attribute("aria-pressed") == "true"
    page.wait_for_function("() => window.ranks.length >= 12")
    screen.press(" ")
    ranks = page.evaluate("window.ranks")
    assert ranks[:5] == [9, 1, 2, 3, 4]
    assert all(after == before % 9 + 1 for before, after in pairwise(ranks)), ranks
    stopped = screen.part("rang")
    page.wait_for_timeout(100)
    assert screen.part("rang") == stopped
    assert screen.said == []


def two_series(folder: Folder) -> None:
    folder.slices(1, "Axial 5 mm", [-5.0 * index for index in range(9)])
    folder.slices(2, "Axial 10 mm", [5, -6, -16, -27, -38])
    sagittal = {
        "ImageOrientationPatient": ["0", "1", "0", "0", "0", "-1"],
        "ImagePositionPatient": ["48", "-192", "192"],
    }
    folder.slices(3, "Sagittal", [0], **sagittal)
    folder.slices(4, "Autre examen", [0, -20, -40], FrameOfReferenceUID=f"{STUDY}.10")


def test_two_series_side_by_side_follow_each_other_by_position(look) -> None:
    screen = look(two_series)
    page = screen.page
    screen.wait(f"{STUDY}.1.1")
    page.get_by_role("button", name="Deux vues").click()
    screen.wait(f"{STUDY}.2.1", pane=2)
    link = page.get_by_role("button", name="Lier")
    assert link.get_attribute("aria-pressed") == "true"
    slider = page.get_by_label("Image de la vue 1")
    slider.fill("5")  # −20 mm: −16 lies nearer than −27
    screen.wait(f"{STUDY}.2.3", pane=2)
    slider.fill("7")  # −30 mm
    screen.wait(f"{STUDY}.2.4", pane=2)
    page.get_by_label("Image de la vue 2").fill("2")  # −6 mm, nearest to −5
    screen.wait(f"{STUDY}.1.2")
    link.click()
    slider.fill("9")
    screen.wait(f"{STUDY}.1.9")
    assert screen.part("position", 2) == f"position −6,0{NBSP}mm"
    link.click()
    # Another orientation: no slice is near to another, but each shows where the other cuts it.
    page.locator("[data-pane]").nth(1).focus()
    page.get_by_role("link", name="Sagittal").click()
    screen.wait(f"{STUDY}.3.1", pane=2)
    assert link.is_disabled()
    # 48 mm from the middle, 240 of 384 mm from the left, half a pixel of 3 mm in: column 80.5 of 128.
    column = [screen.shade(80.5, 8 + row / 4, rows=128, columns=128) for row in range(40)]
    assert any(blue > 200 and red < 120 for red, _, blue in column), "the line of the other plane is seen"
    # Another examination has other coordinates: it follows from the two images that a person puts side by side.
    page.get_by_role("link", name="Autre examen").click()
    screen.wait(f"{STUDY}.4.1", pane=2)
    assert link.get_attribute("aria-pressed") == "false"
    slider.fill("1")
    screen.wait(f"{STUDY}.1.1")
    assert screen.part("rang", 2) == f"1{NBSP}/{NBSP}3"
    slider.fill("3")  # −10 mm beside 0 mm
    screen.wait(f"{STUDY}.1.3")
    link.click()
    assert link.get_attribute("aria-pressed") == "true"
    slider.fill("7")  # −30 mm: 20 mm further down, there too
    screen.wait(f"{STUDY}.4.2", pane=2)
    page.get_by_label("Image de la vue 2").fill("3")  # −40 mm: −50 is not there, −40 is the last
    screen.wait(f"{STUDY}.1.9")
    link.click()
    assert link.get_attribute("aria-pressed") == "false"
    page.get_by_role("button", name="Deux vues").click()
    assert not page.locator("[data-pane]").nth(1).is_visible()
    assert screen.said == []


def test_who_compares_two_days_or_meets_another_identity_is_told(look) -> None:
    def fill(folder: Folder) -> None:
        folder.slices(1, "Axial", [0.0, -5.0])
        folder.slices(2, "Ancien", [0.0], StudyDate="20250612", AcquisitionDate="20250612")
        folder.slices(3, "Même jour", [0.0])

    screen = look(fill)
    page = screen.page
    screen.wait(f"{STUDY}.1.1")
    told = page.locator("[data-avertissement]")
    assert not told.is_visible()
    page.get_by_role("button", name="Deux vues").click()
    screen.wait(f"{STUDY}.2.1", pane=2)
    assert told.inner_text() == f"Examens de dates différentes{NBSP}: 05/03/2026 et 12/06/2025."
    page.locator("[data-pane]").nth(1).focus()
    page.get_by_role("link", name="Même jour").click()
    screen.wait(f"{STUDY}.3.1", pane=2)
    assert not told.is_visible()
    page.evaluate("document.querySelector('[data-viewer]').dataset.naissance = '01/01/1950'")
    screen.press("ArrowDown", "ArrowUp")
    page.locator("[data-pane]").first.focus()
    screen.press("ArrowDown")
    assert "autre date de naissance que le dossier" in told.inner_text()
    assert "v-grave" in told.get_attribute("class")
    assert screen.said == []


def mixed(folder: Folder) -> None:
    folder.file("MR_small.dcm", 1, 1, "IRM")
    folder.broken(1, 2, "IRM")
    folder.file("MR_small_RLE.dcm", 1, 3, "IRM")
    folder.pdf(2, 1)
    folder.unreadable(2, 2)
    folder.file("reportsi.dcm", 3, 1, "Compte rendu")


def test_a_broken_object_says_so_and_the_stack_goes_on_to_documents(look) -> None:
    screen = look(mixed)
    page = screen.page
    screen.wait(f"{STUDY}.1.1")
    screen.press("ArrowDown")
    page.wait_for_selector("[data-pane][data-etat=message]")
    assert screen.part("message") == "Pixels indéchiffrables."
    assert screen.part("rang") == f"2{NBSP}/{NBSP}3"
    screen.press("ArrowDown")
    screen.wait(f"{STUDY}.1.3")
    assert screen.part("message") == ""
    screen.press("n")
    link = page.get_by_role("link", name="Ouvrir le PDF")
    link.wait_for()
    assert "Courrier de sortie" in screen.part("message")
    answer = page.request.get(page.url.split("/dossiers")[0] + link.get_attribute("href"))
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.body().startswith(b"%PDF-1.4")
    screen.press("ArrowDown")
    page.wait_for_function(
        "() => document.querySelector('[data-part=message]').textContent.includes('pas d’image à regarder')"
    )
    screen.press("n")
    page.wait_for_function(
        "() => document.querySelector('.v-text') && !/Chargement/.test(document.querySelector('.v-text').textContent)"
    )
    # The report's own words (reportsi.dcm, from pydicom) and the server's French frame.
    assert re.search(r"Report Text\s:\sEnter text", screen.part("message"))
    assert "Né(e) le" in screen.part("message")
    assert page.locator(".v-text script, .v-text a, .v-text img").count() == 0
    assert screen.said == []


# -- who, where, with what -------------------------------------------------------------------------------------------


@pytest.mark.req("S3-018")
def test_the_treating_physician_sees_the_images_from_the_fiche_and_another_one_gets_404(
    house: House, visitor, look
) -> None:
    screen = look(two_series, viewport=DESK)
    page = screen.page
    page.goto(page.url.split("/images")[0])
    page.get_by_role("link", name="Regarder les images").click()
    screen.wait(f"{STUDY}.1.1")
    assert "PAT-TROIS" in page.get_by_label("Identité du patient").inner_text()
    assert "28/03/1979" in page.get_by_label("Identité du patient").inner_text()
    assert "PAT-TROIS DOMINIQUE, 28/03/1979" in screen.part("identite")
    assert "PAT-TROIS" not in page.title()
    page.get_by_role("link", name=re.compile("Retour à la fiche")).click()
    page.locator(".thumbs a").last.click()
    page.wait_for_selector("[data-pane][data-etat=exact]")
    lines = [line for line in audit_lines(house.fresh().session) if line.get("object_type") == "Images"]
    assert lines
    assert all(str(house.dossier.record_id) in line["persons"] for line in lines)
    other = visitor(DESK)
    other.go("/patients")
    other.sign_in(house.world.stranger)
    assert other.go(screen.base) == 404
    assert "PAT-TROIS" not in other.page.content()
    root = f"/dicom-web/studies/{STUDY}/series/{STUDY}.1"
    for path in ("/metadata", "/thumbnail", f"/instances/{STUDY}.1.1/frames/1", f"/instances/{STUDY}.1.1/rendered"):
        assert other.page.request.get(other.origin + root + path).status == 404, path
    # A series of nobody, or of another dossier, is not there.
    assert screen.visitor.go(f"{screen.base}?serie=1.2.3") == 404
    assert screen.visitor.go(f"{screen.base}?serie=%00") == 404
    assert screen.visitor.go(f"/dossiers/{house.hostile.id}/images?serie={STUDY}.1") == 404
    assert screen.visitor.go(f"/dossiers/{house.hostile.id}/images") == 200
    assert "Aucune image n’est rattachée à ce dossier." in screen.visitor.read()
    # The session ends: what is asked for afterwards says so.
    screen.visitor.go(screen.base)
    screen.wait(f"{STUDY}.1.1")
    screen.visitor.context.clear_cookies()
    screen.press("n")
    page.wait_for_selector("[data-pane][data-etat=message]")
    assert "session" in screen.part("message")


def test_without_javascript_the_images_are_seen_one_after_the_other(look) -> None:
    screen = look(lambda folder: folder.slices(1, "Axial 5 mm", [0.0, -5.0]), scripts=False)
    page = screen.page
    seen = page.locator(".v-still img")
    assert seen.get_attribute("alt") == "Image 1 sur 2"
    assert page.request.get(screen.visitor.origin + seen.get_attribute("src")).headers["content-type"] == "image/jpeg"
    page.get_by_role("link", name="Image suivante").click()
    assert page.locator(".v-still img").get_attribute("alt") == "Image 2 sur 2"
    assert not page.locator(".v-tools").is_visible()
    assert page.get_by_role("link", name="Axial 5 mm").is_visible()


def test_a_telephone_turns_zooms_and_measures_with_fingers(look) -> None:
    screen = look(two_series, viewport=PHONE, touch=True)
    page = screen.page
    screen.wait(f"{STUDY}.1.1")
    assert page.evaluate(MEASURE) == {"width": PHONE["width"], "height": PHONE["height"], "small": []}
    canvas = screen.pane().locator("canvas").bounding_box()
    assert canvas["height"] > PHONE["height"] / 2, "the picture has the room"
    x, y = canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2
    with Fingers(screen) as fingers:
        fingers.down((x, y)).move((x, y + 50)).move((x, y + 100)).up()
    page.wait_for_function("() => parseInt(document.querySelector('[data-part=rang]').textContent) > 3")
    page.locator("[data-part=curseur]").first.fill("1")
    screen.wait(f"{STUDY}.1.1")
    assert screen.part("regle-texte") == f"10{NBSP}cm"
    with Fingers(screen) as fingers:
        fingers.down((x - 30, y)).down((x - 30, y), (x + 30, y)).move((x - 80, y), (x + 80, y))
        fingers.move((x - 120, y), (x + 120, y)).up()
    screen.wait_part("regle-texte", f"2{NBSP}cm")
    assert screen.part("rang") == f"1{NBSP}/{NBSP}9", "two fingers do not turn the stack"
    page.get_by_role("button", name="Ajuster").click()
    screen.wait_part("regle-texte", f"10{NBSP}cm")
    page.get_by_role("button", name="Longueur").click()
    start = screen.at(32, 64, rows=128, columns=128)
    end = screen.at(96, 64, rows=128, columns=128)
    with Fingers(screen) as fingers:
        fingers.down(start).move(((start[0] + end[0]) / 2, start[1])).move(end).up()
    # 64 pixels of 3 mm; a finger is no finer than a pixel of the screen, about a millimetre.
    said = screen.page.locator("[data-part=mesures] li").inner_text()
    assert float(re.search(r"([\d,]+)", said)[1].replace(",", ".")) == pytest.approx(192, abs=1.5)
    more = page.get_by_role("button", name="Outils", exact=True)
    more.click()
    page.get_by_role("button", name="Deux vues").click()
    screen.wait(f"{STUDY}.2.1", pane=2)
    assert page.evaluate(MEASURE)["width"] == PHONE["width"]
    tops = [screen.pane(number).bounding_box()["y"] for number in (1, 2)]
    assert tops[1] > tops[0] + 100, "one above the other"
    more.click()
    page.get_by_role("button", name="Aide").click()
    assert page.get_by_role("dialog").get_by_text("Deux doigts agrandissent").is_visible()
    page.get_by_role("button", name="Fermer").click()
    # Laid on its side, the picture keeps nearly the whole height.
    more.click()
    page.get_by_role("button", name="Deux vues").click()
    page.set_viewport_size({"width": PHONE["height"], "height": PHONE["width"]})
    screen.settle()
    assert page.evaluate(MEASURE) == {"width": PHONE["height"], "height": PHONE["width"], "small": []}
    lying = screen.pane().locator("canvas").bounding_box()
    assert lying["height"] > PHONE["width"] * 0.7
    assert lying["width"] > lying["height"]
    assert screen.said == []


def test_the_keyboard_reaches_all_and_the_help_says_what_keys_do(look) -> None:
    screen = look(two_series)
    page = screen.page
    screen.wait(f"{STUDY}.1.1")
    screen.press("?")
    dialog = page.get_by_role("dialog")
    assert dialog.is_visible()
    # Each key that the tools name stands in the help.
    keys = page.evaluate(
        "[...document.querySelectorAll('[aria-keyshortcuts]')].map(it => it.getAttribute('aria-keyshortcuts'))"
    )
    told = " ".join(dialog.locator("dt").all_inner_texts())
    assert len(keys) > 12
    assert all(("Espace" if key == "Space" else key) in told for key in keys), (keys, told)
    screen.press("ArrowDown")
    assert screen.part("rang") == f"1{NBSP}/{NBSP}9", "under the help nothing moves"
    screen.press("Escape")
    assert not dialog.is_visible()
    screen.press("d")
    screen.wait(f"{STUDY}.2.1", pane=2)
    screen.press("k", "c", "ArrowDown")
    screen.wait(f"{STUDY}.2.2", pane=2)
    assert screen.part("rang") == f"1{NBSP}/{NBSP}9"
    screen.press("b")
    screen.wait(f"{STUDY}.1.1", pane=2)
    # A field keeps its own keys.
    page.get_by_label("Fenêtrage", exact=True).focus()
    screen.press("End")
    assert screen.part("rang", 2) == f"1{NBSP}/{NBSP}9"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.action") == "ajuster"
    for tool, key in (("Zoom", "z"), ("Ellipse", "e"), ("Déplacer", "p")):
        screen.press(key)
        assert page.get_by_role("button", name=tool).get_attribute("aria-pressed") == "true"
    assert screen.said == []


STORE = """async ([address, root, budget]) => {
    const { Store, pixelsOf, pictureOf } = await import(address);
    const image = number => ({ key: `${root}/${number}`, address: `${root}.${number}`, rows: 128, columns: 128,
                               bits: 16, stored: 12, high: 11, frame: 1, frames: 1, ratio: 1 });
    const asked = [], most = { held: 0, under: 0 };
    const store = new Store({ budget, parallel: 2, arrived: item => asked.push(item.key) });
    const watch = setInterval(() => {
        most.held = Math.max(most.held, store.size);
        most.under = Math.max(most.under, store.under.size);
    }, 1);
    const until = test => new Promise((done, fail) => {
        const start = Date.now();
        (function look() {
            if (test()) done(); else if (Date.now() - start > 99999) fail(new Error("never")); else setTimeout(look, 5);
        })();
    });
    const all = [1, 2, 3, 4, 5, 6, 7, 8, 9].map(number => pixelsOf(image(number)));
    store.wish("a", all);
    await until(() => store.under.size === 0 && store.held.size > 1);
    const first = [...store.held.keys()];
    store.wish("a", [...all].reverse());
    await until(() => store.under.size === 0 && store.get(all[8]));
    const second = [...store.held.keys()];
    store.wish("a", [pixelsOf(image(77))]);
    await until(() => store.refusal(pixelsOf(image(77))));
    const refused = store.refusal(pixelsOf(image(77)));
    // What is wished no more is cancelled, and does not come.
    asked.length = 0;
    store.wish("b", [pictureOf(image(5), { center: 1, width: 2, shape: "LINEAR" })]);
    const stopped = [...store.under.values()].map(one => one.abort.signal);
    store.wish("b", []);
    await until(() => store.under.size === 0);
    clearInterval(watch);
    return { most, first: first.length, kept: second.includes(all[8].key), dropped: !second.includes(all[0].key),
             status: refused.status, said: refused.message, stopped: stopped.map(it => it.aborted) };
}"""


def test_the_store_keeps_no_more_than_it_may_and_drops_what_nobody_wants(look) -> None:
    """Each frame is 128 × 128 × 2 bytes; four of them are the budget."""
    screen = look(lambda folder: folder.slices(1, "Axial 5 mm", [-5.0 * index for index in range(9)]))
    screen.wait(f"{STUDY}.1.1")
    root = f"/dicom-web/studies/{STUDY}/series/{STUDY}.1/instances/{STUDY}.1"
    budget = 4 * 128 * 128 * 2
    found = screen.page.evaluate(STORE, [static_url("viewer_store.js"), root, budget])
    assert found["most"]["held"] <= budget
    assert found["most"]["under"] <= 2
    assert found["first"] == 3, "three quarters of the budget are filled ahead"
    assert found["kept"]
    assert found["dropped"]
    assert found["status"] == 404
    assert found["said"] == "Cette image n’existe pas, ou elle ne vous est pas accessible."
    assert found["stopped"] == [True]


def test_images_of_the_documentation_can_be_made(look, house: House, visitor, tmp_path: Path) -> None:
    """With ``RCP_DOC_IMAGES=docs/images`` in the environment they are the documentation's."""
    folder = Path(os.environ.get("RCP_DOC_IMAGES") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    house.world.session.get(PatientRecord, house.dossier.record_id).value = DOMINIQUE.patient_id
    house.world.session.commit()
    send_images(house, replace(DOMINIQUE, slices=25, pixels=512), tmp_path / "fine")
    later = replace(
        DOMINIQUE,
        study_uid=f"{DOMINIQUE.study_uid}.7",
        slices=13,
        pixels=512,
        acquired_at=DOMINIQUE.acquired_at.replace(month=1),
    )
    send_images(house, later, tmp_path / "later")
    desk = look(None)
    desk.page.wait_for_selector("[data-pane][data-etat=exact]")
    desk.page.get_by_label("Image de la vue 1").fill("13")
    desk.wait(f"{DOMINIQUE.study_uid}.1.13")
    size = {"rows": 512, "columns": 512}
    desk.press("l")
    desk.drag(desk.at(358, 115, **size), desk.at(395, 115, **size))
    desk.press("e")
    desk.drag(desk.at(268, 210, **size), desk.at(320, 256, **size))
    desk.page.mouse.move(*desk.at(420, 400, **size))
    desk.page.wait_for_function("() => document.querySelectorAll('[data-part=mesures] li').length === 2")
    desk.page.screenshot(path=folder / "visionneuse.png")
    desk.press("d")
    desk.wait(f"{later.study_uid}.1.1", pane=2)
    desk.page.locator("[data-pane]").nth(1).focus()
    desk.press("2", "s")
    desk.page.get_by_label("Image de la vue 2").fill("7")
    desk.wait(f"{later.study_uid}.1.7", pane=2)
    desk.page.screenshot(path=folder / "visionneuse-deux-vues.png")
    phone = look(None, f"?serie={DOMINIQUE.study_uid}.1&objet={DOMINIQUE.study_uid}.1.13", viewport=PHONE, touch=True)
    phone.wait(f"{DOMINIQUE.study_uid}.1.13")
    phone.page.screenshot(path=folder / "visionneuse-telephone.png")
    assert {path.name for path in folder.glob("visionneuse*")} == {
        "visionneuse.png",
        "visionneuse-deux-vues.png",
        "visionneuse-telephone.png",
    }
