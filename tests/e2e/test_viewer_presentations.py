"""Presentation states in the viewer: what somebody prepared on his PACS is chosen, seen, and put aside again.

Shades are worked out by hand from the window that the state says `[PS3.3 C.11.2.1.2]`, places by its rotation.
"""

from __future__ import annotations

from dataclasses import replace

from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from gateway.demo.ct_phantom import DOMINIQUE, slice_data_set
from tests.e2e.viewer_objects import STUDY, Folder
from tests.e2e.viewer_screen import CHART_SIDE, NBSP

GRAYSCALE = "1.2.840.10008.5.1.4.1.1.11.1"
#: −160, 40, 240 and 140 HU, and their greys through the object's own 40/400.
WORDS, PLAIN = (864, 1064, 1264, 1164), [0, 128, 255, 192]
CT = {"RescaleSlope": "1", "RescaleIntercept": "-1024", "WindowCenter": "40", "WindowWidth": "400"}
LABEL = "NODULE – Fenêtre large, tournée – 05/03/2026 10:15 – PERRIN JULIEN"


def item(**attributes: object) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def state(folder: Folder, number: int, about: str, **more: object) -> None:
    """Lay down a state about one object."""
    ds = Dataset()
    ds.file_meta = slice_data_set(replace(DOMINIQUE, study_uid=STUDY), 0).file_meta
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = GRAYSCALE
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.Modality = "PR"
    ds.ReferencedSeriesSequence = [
        item(
            SeriesInstanceUID=f"{STUDY}.1",
            ReferencedImageSequence=[item(ReferencedSOPClassUID=CTImageStorage, ReferencedSOPInstanceUID=about)],
        )
    ]
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = "1", "-1024", "HU"
    ds.PresentationLUTShape = "IDENTITY"
    ds.PresentationCreationDate, ds.PresentationCreationTime = "20260305", "101500"
    ds.ContentLabel, ds.ContentDescription, ds.ContentCreatorName = "NODULE", "Fenêtre large, tournée", "PERRIN^JULIEN"
    folder.add(ds, 11, number, "États de présentation", **more)


def prepared(folder: Folder) -> None:
    for number in (1, 2):
        folder.chart(WORDS, 1, number, **CT)
    # Through −60/601: ((x + 60.5) / 600 + 0.5) × 255, and turned by a quarter to the right.
    state(
        folder,
        1,
        f"{STUDY}.1.2",
        SoftcopyVOILUTSequence=[item(WindowCenter="-60", WindowWidth="601")],
        ImageRotation=90,
        ImageHorizontalFlip="N",
    )


def seen(screen) -> list[int]:
    """Greys in the four quarters, as `Screen.quarters`; a picture that came as JPEG is nearly flat."""
    return [screen.shade(x, y, rows=CHART_SIDE, columns=CHART_SIDE)[0] for y in (16, 48) for x in (16, 48)]


def test_a_state_is_chosen_seen_and_put_aside(look) -> None:
    screen = look(prepared, f"?serie={STUDY}.1&objet={STUDY}.1.1")
    page = screen.page
    screen.wait(f"{STUDY}.1.1")
    choice = page.get_by_label("Présentation", exact=True)
    choice.wait_for(state="visible")
    assert choice.locator("option").all_inner_texts() == ["sans", LABEL]
    assert screen.quarters() == PLAIN
    # It is about the second image, which is turned to.
    choice.select_option(label=LABEL)
    page.wait_for_function("() => document.querySelector('[data-pane]').dataset.image?.includes('@')")
    assert f"présentation{NBSP}: {LABEL}" in screen.part("qualite")
    assert screen.part("rang") == f"2{NBSP}/{NBSP}2"
    screen.settle()
    # −160, 40, 240, 140 HU: 85, 170, 255, 213 in the object; turned, the lower left stands at the upper left.
    turned = [255, 85, 213, 170]
    assert max(abs(one - other) for one, other in zip(seen(screen), turned, strict=True)) <= 3
    assert screen.part("cote-left") == ""
    assert screen.part("valeur") == ""
    assert page.locator("[data-action=inverser]").is_disabled()
    # The other image of the stack has no such state: it is as it was.
    screen.press("ArrowUp")
    screen.wait(f"{STUDY}.1.1")
    assert screen.quarters() == PLAIN
    screen.press("ArrowDown")
    page.wait_for_function("() => document.querySelector('[data-pane]').dataset.image?.includes('@')")
    choice.select_option(label="sans")
    screen.wait(f"{STUDY}.1.2")
    assert screen.quarters() == PLAIN
    assert "présentation" not in screen.part("qualite")
    assert screen.said == []


def test_no_measure_is_taken_on_what_a_state_has_drawn(look) -> None:
    """It is turned, cut out and enlarged: a length of it would be nobody's."""
    screen = look(prepared, f"?serie={STUDY}.1&objet={STUDY}.1.2")
    screen.wait(f"{STUDY}.1.2")
    choice = screen.page.get_by_label("Présentation", exact=True)
    choice.wait_for(state="visible")
    choice.select_option(label=LABEL)
    screen.page.wait_for_function("() => document.querySelector('[data-pane]').dataset.image?.includes('@')")
    screen.page.locator("[data-outil=longueur]").click()
    box = screen.pane().locator("canvas").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    screen.drag(middle, (middle[0] + 80, middle[1] + 40))
    assert screen.part("mesures").strip() == ""
    choice.select_option(label="sans")
    screen.wait(f"{STUDY}.1.2")
    screen.drag(middle, (middle[0] + 80, middle[1] + 40))
    assert screen.part("mesures").strip()


def broken(folder: Folder) -> None:
    prepared(folder)
    state(folder, 2, f"{STUDY}.1.1", ContentLabel="BIAIS", ImageRotation=45, ImageHorizontalFlip="N")


def test_a_state_that_cannot_be_drawn_says_so_in_its_place(look) -> None:
    screen = look(broken, f"?serie={STUDY}.1&objet={STUDY}.1.1")
    screen.wait(f"{STUDY}.1.1")
    choice = screen.page.get_by_label("Présentation", exact=True)
    choice.wait_for(state="visible")
    [bad] = [one for one in choice.locator("option").all_inner_texts() if one.startswith("BIAIS")]
    choice.select_option(label=bad)
    screen.page.get_by_text("dont la rotation n’est pas un multiple de 90").wait_for()
    choice.select_option(label="sans")
    screen.wait(f"{STUDY}.1.1")
    assert screen.quarters() == PLAIN


def test_without_a_state_there_is_nothing_to_choose(look) -> None:
    screen = look(lambda folder: folder.chart(WORDS, 1, 1, **CT))
    screen.wait(f"{STUDY}.1.1")
    assert screen.page.locator("[data-presentations]").is_hidden()
