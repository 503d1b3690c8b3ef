"""The pages and the images in Firefox ESR, as Debian packages it: real clicks, wheels and keys, no driver but its own.

What a page says is tested in Chromium, test by test; here it is walked through once, and must come out the same: words,
shades that PS3.3 C.11.2.1 gives, lengths by Pixel Spacing. A breach of the content security policy, an error of a
script or a request that fails ends a test (`Page.wrong`). OHIF in Firefox: ``test_ohif.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pypdf import PdfReader
from sqlalchemy import select

from gateway.demo.ct_phantom import DOMINIQUE
from gateway.model.dossier import Contribution
from gateway.model.person import PatientRecord
from tests.attached_samples import jpeg, pdf
from tests.e2e.portal_house import House, send_files
from tests.e2e.test_portal import MEASURE, PICTURES
from tests.e2e.viewer_objects import STUDY, Folder
from tests.e2e.viewer_screen import CHART_SIDE, DESK, NBSP, Fill, Screen
from tests.loopback import until

pytestmark = pytest.mark.xdist_group("firefox")


@pytest.fixture
def look_there(house: House, at_firefox, tmp_path: Path) -> Callable[..., Screen]:
    """Send objects for the dossier's patient, sign in his physician, open the images."""

    def opened(fill: Fill, viewport=DESK) -> Screen:
        send(house, fill, tmp_path)
        person = at_firefox(viewport)
        base = f"/dossiers/{house.dossier.id}/images"
        person.go(base)
        person.sign_in(house.world.treating)
        return Screen(person, person.page.wrong, base)

    return opened


def send(house: House, fill: Fill, folder: Path) -> None:
    house.world.session.get(PatientRecord, house.dossier.record_id).value = DOMINIQUE.patient_id
    house.world.session.commit()
    objects = Folder(folder / "objects")
    fill(objects)
    send_files(house, objects.paths)


def test_the_physician_reads_the_fiche_contributes_and_lays_files_beside_it(
    house: House, at_firefox, tmp_path: Path
) -> None:
    send(house, lambda folder: folder.slices(1, "Axial 5 mm", [0.0, -5.0, -10.0]), tmp_path)
    physician = at_firefox()
    page, base = physician.page, f"/dossiers/{house.dossier.id}"
    assert physician.go(base) == 200
    assert "PAT-TROIS" not in page.locator("body").inner_text()
    physician.sign_in(house.world.treating)
    said = physician.read()
    for expected in (
        "PAT-TROIS DOMINIQUE ANNE",
        "Chimiothérapie néoadjuvante ou chirurgie première ?",
        "Code : 134679",
    ):
        assert expected in said, expected
    page.locator(".thumbs li").last.evaluate("e => e.scrollIntoView()")
    page.wait_for_function(f"() => {PICTURES}.filter(([done, drawn]) => done && drawn).length === 3")
    page.locator("textarea").type("Vit seule. Fatigue importante.")
    page.get_by_role("button", name="Enregistrer ma contribution").click()
    page.get_by_text("Votre contribution est enregistrée.").element()
    assert house.fresh().session.scalars(select(Contribution.text)).all() == ["Vit seule. Fatigue importante."]
    laid = {"photo.jpg": jpeg(), "cr.pdf": pdf()}
    for name, content in laid.items():
        (tmp_path / name).write_bytes(content)
    assert physician.go(f"{base}/pieces") == 200
    page.locator("input[type=file]").set_input_files([tmp_path / name for name in laid])
    page.get_by_role("button", name="Ajouter au dossier").click()
    page.get_by_text("Les documents sont joints au dossier.").element()
    physician.go(base)
    page.locator("section[aria-labelledby=documents] img").evaluate("e => e.scrollIntoView()")
    # Turned as it was taken: its pixels lie 40 × 24.
    page.wait_for_function(
        """() => (one => one.complete && one.naturalWidth === 24 && one.naturalHeight === 40)(
            document.querySelector("section[aria-labelledby=documents] img"))"""
    )
    page.get_by_role("link", name="cr.pdf").click()
    until(lambda: page.alive() and page.saved)
    assert Path(page.saved[0]["filepath"]).read_bytes() == laid["cr.pdf"]
    page.get_by_role("button", name="Se déconnecter").click()
    page.wait_for_url("/connexion")
    assert page.wrong == []


def two_series(folder: Folder) -> None:
    folder.slices(1, "Axial 5 mm", [-5.0 * index for index in range(9)])
    folder.slices(2, "Axial 10 mm", [5, -6, -16, -27, -38])


FITS = "() => document.documentElement.scrollWidth === document.documentElement.clientWidth"


def test_the_pages_of_an_organiser_fit_a_telephone_and_a_zoom_of_200_percent(house: House, at_firefox) -> None:
    """A classic scroll bar takes its 12 pixels: what is left is what a page must fit."""
    organiser = at_firefox({"width": 360, "height": 640})
    page, base = organiser.page, f"/dossiers/{house.dossier.id}"
    organiser.go("/seances")
    organiser.sign_in(house.world.coordinator)
    meeting = f"/seances/{house.world.meeting.id}"
    paths = (
        base,
        f"{base}/fiche",
        f"{base}/pieces",
        f"{base}/compte-rendu",
        "/seances",
        meeting,
        f"{meeting}/registre",
    )
    for path in paths:
        assert organiser.go(path) == 200
        assert page.evaluate(MEASURE)["small"] == [], path
        assert page.evaluate(FITS), path
    page.set_viewport_size({"width": DESK["width"] // 2, "height": DESK["height"] // 2}, 2.0)
    for path in paths:
        organiser.go(path)
        assert page.evaluate(FITS), path
    organiser.go("/seances")
    page.get_by_text("jeudi 19").first.click()
    page.get_by_role("button", name="Ouvrir la séance").click()
    page.get_by_role("button", name="Enregistrer les présents").element()
    assert page.wrong == []


def test_on_paper_each_sheet_names_the_patient_and_no_title_is_left_alone(house: House, at_firefox, tmp_path) -> None:
    send(house, two_series, tmp_path)
    physician = at_firefox()
    page = physician.page
    physician.go(f"/dossiers/{house.dossier.id}")
    physician.sign_in(house.world.treating)
    titles = page.evaluate("() => [...document.querySelectorAll('h2, h3')].map(e => e.textContent.trim())")
    assert "Question posée" in titles
    page.pdf(path=tmp_path / "fiche.pdf")
    sheets = [sheet.extract_text().splitlines() for sheet in PdfReader(tmp_path / "fiche.pdf").pages]
    assert len(sheets) >= 2
    assert all("PAT-TROIS DOMINIQUE ANNE" in lines for lines in sheets)
    feet = [next(line.strip() for line in reversed(lines) if line.strip()) for lines in sheets]
    assert not set(feet) & set(titles)
    assert page.wrong == []


def chart(folder: Folder) -> None:
    """−160, 40, 240 and 140 HU through 40/400; rows lie 0.5 mm apart and columns 0.25 mm."""
    ct = {"RescaleSlope": "1", "RescaleIntercept": "-1024", "WindowCenter": "40", "WindowWidth": "400"}
    folder.chart((864, 1064, 1264, 1164), 1, 1, **ct, PixelSpacing=["0.5", "0.25"])


def test_an_image_is_windowed_zoomed_moved_and_measured(look_there) -> None:
    screen = look_there(chart)
    page = screen.page
    shape = {"rows": CHART_SIDE, "columns": CHART_SIDE, "ratio": 2}

    def shades() -> list[int]:
        found = [screen.shade(x, y, **shape) for y in (16, 48) for x in (16, 48)]
        assert all(len(set(one)) == 1 for one in found), found
        return [one[0] for one in found]

    screen.wait(f"{STUDY}.1.1")
    assert shades() == [0, 128, 255, 192]
    # Drawn 64 pixels to the right the window is 100 wider: ((x − 39.5) / 499 + 0.5) × 255.
    middle = screen.at(32, 32, **shape)
    screen.drag(middle, (middle[0] + 64, middle[1]))
    screen.wait_part("fenetre", f"C{NBSP}40 · L{NBSP}500")
    assert shades() == [26, 128, 230, 179]
    screen.press("Shift+ArrowUp")  # a fortieth of the width
    screen.wait_part("fenetre", f"C{NBSP}53 · L{NBSP}500")
    screen.press("2")  # lung, −600/1500: ((x + 600.5) / 1499 + 0.5) × 255
    screen.wait_part("fenetre", f"C{NBSP}−600 · L{NBSP}1500")
    assert shades() == [202, 236, 255, 253]
    screen.press("1")
    # 32 columns are 8 mm, 32 rows 16 mm, whatever the zoom.
    screen.press("l")
    screen.drag(screen.at(16, 16, **shape), screen.at(48, 16, **shape))
    screen.drag(screen.at(8, 16, **shape), screen.at(8, 48, **shape))
    lengths = [f"Longueur{NBSP}: 8,0{NBSP}mm", f"Longueur{NBSP}: 16,0{NBSP}mm"]
    assert screen.part("mesures").splitlines() == lengths
    ruler = screen.pane().locator("[data-part=regle] > span").first
    before = ruler.bounding_box()["width"]
    screen.press("+")
    assert ruler.bounding_box()["width"] > before
    assert screen.part("mesures").splitlines() == lengths
    screen.press("x")
    # The right button moves the picture: what was in the lower left quarter's middle comes to the upper right one's.
    screen.drag(screen.at(16, 48, **shape), screen.at(48, 16, **shape), button="right")
    assert screen.shade(48, 16, **shape) == [255, 255, 255]
    screen.press("0", "Delete", "Delete")
    assert shades() == [0, 128, 255, 192]
    page.mouse.move(*screen.at(16, 48, **shape))
    screen.wait_part("valeur", f"240{NBSP}UH")
    assert screen.said == []


def test_two_series_turn_side_by_side_by_wheel_keys_slider_and_cine(look_there) -> None:
    screen = look_there(two_series)
    page = screen.page
    screen.wait(f"{STUDY}.1.1")
    assert screen.part("position") == f"position 0,0{NBSP}mm"
    page.mouse.move(*screen.at(64, 64, rows=128, columns=128))
    for _ in range(3):
        page.mouse.wheel(0, 120)
    screen.wait(f"{STUDY}.1.4")
    screen.press("End")
    screen.wait(f"{STUDY}.1.9")
    page.get_by_role("button", name="Deux vues").click()
    screen.wait(f"{STUDY}.2.1", pane=2)
    # The slider has its own keys; the other view follows by position: −20 mm, and −16 lies nearer than −27.
    page.locator("[data-part=curseur]").first.focus()
    screen.press("Home")
    screen.wait(f"{STUDY}.1.1")
    screen.press(*["ArrowRight"] * 4)
    screen.wait(f"{STUDY}.1.5")
    screen.wait(f"{STUDY}.2.3", pane=2)
    page.get_by_role("button", name="Ciné").click()
    page.wait_for_function("() => document.querySelector('[data-part=rang]').textContent.startsWith('8')")
    page.get_by_role("button", name="Ciné").click()
    assert screen.said == []


def documents(folder: Folder) -> None:
    folder.file("MR_small_RLE.dcm", 1, 1, "IRM")
    folder.file("reportsi.dcm", 2, 1, "Compte rendu")
    folder.pdf(3, 1, pdf(pages=2))


def test_a_report_is_read_and_a_pdf_opens_in_the_browser_s_own_reader(look_there) -> None:
    screen = look_there(documents)
    page = screen.page
    screen.wait(f"{STUDY}.1.1")
    # The first pixel is 905: ((905 − 599.5) / 1599 + 0.5) × 255 through its own 600/1600.
    assert screen.shade(0.1, 0.1, rows=64, columns=64) == [176, 176, 176]
    screen.press("n")
    page.wait_for_function(
        "() => /Report Text\\s:\\sEnter text/.test(document.querySelector('[data-part=message]').innerText)"
    )
    screen.press("n")
    page.get_by_role("link", name="Ouvrir le PDF (nouvel onglet)").click()
    reader = page.popup()
    reader.wait_for_function("() => document.querySelectorAll('#viewer .page').length === 2")
    assert screen.said == []
