"""Videos of a dossier: played where the browser can, else named, with the object to save.

``film_h264.mp4`` was recorded by Chromium’s own encoder: H.264 in MP4, 64 × 64, every picture (192, 32, 32).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, generate_fragments
from pydicom.uid import MPEG2MPML, MPEG4HP41, VideoEndoscopicImageStorage

from gateway.demo.ct_phantom import DOMINIQUE, slice_data_set
from tests.e2e.viewer_objects import STUDY, Folder
from tests.e2e.viewer_screen import DESK

FILM = (Path(__file__).parent / "film_h264.mp4").read_bytes()
#: No player makes anything of it.
NOISE = b"\x00\x00\x01\xb3" + b"bruit " * 500


def video(folder: Folder, number: int, syntax: str, stream: bytes) -> None:
    """One object whose pixels are a stream: one fragment, an empty offset table [PS3.5 8.2.7]."""
    head = slice_data_set(replace(DOMINIQUE, study_uid=STUDY), 0)
    ds = Dataset()
    ds.file_meta = head.file_meta
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = VideoEndoscopicImageStorage
    ds.file_meta.TransferSyntaxUID = syntax
    ds.Rows = ds.Columns = 64
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "YBR_PARTIAL_420", 0
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    ds.NumberOfFrames, ds.FrameTime = "15", "100"
    ds.PixelData = encapsulate([stream], has_bot=False)
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    folder.add(ds, 2, number, "Endoscopie", Modality="ES")


def films(folder: Folder) -> None:
    folder.slices(1, "Axial", [0.0])
    video(folder, 1, MPEG4HP41, FILM)
    video(folder, 2, MPEG2MPML, NOISE)
    video(folder, 3, MPEG4HP41, NOISE)


COLOUR = """() => {
    const film = document.querySelector("video");
    if (!film || film.readyState < 2) return null;
    const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 64 });
    canvas.getContext("2d").drawImage(film, 0, 0);
    return [...canvas.getContext("2d").getImageData(32, 32, 1, 1).data].slice(0, 3);
}"""


def test_a_video_plays_or_is_named_and_can_be_saved(look, house, visitor, tmp_path: Path) -> None:
    screen = look(films)
    page = screen.page
    screen.wait(f"{STUDY}.1.1")
    entry = page.get_by_role("link", name="Endoscopie")
    assert entry.inner_text().split("\n")[-1] == "3\u00a0vidéos"
    entry.click()
    page.locator("video").evaluate("film => film.play()")
    assert page.wait_for_function(COLOUR).json_value() == pytest.approx([192, 32, 32], abs=8)
    assert screen.part("rang") == "1\u00a0/\u00a03"
    # The stream is the object's own, by pieces too.
    address = screen.visitor.origin + page.locator("video").evaluate("film => new URL(film.src).pathname")
    whole = page.request.get(address, headers={"Accept": "video/mp4"})
    assert whole.status == 200
    assert whole.headers["content-type"].split(";")[0] == "video/mp4"
    assert whole.body() == FILM + b"\x00" * (len(FILM) % 2)
    piece = page.request.get(address, headers={"Accept": "video/mp4", "Range": "bytes=4-7"})
    assert (piece.status, piece.body()) == (206, b"ftyp")
    with page.expect_download() as saving:
        page.get_by_role("link", name="Enregistrer l’objet DICOM").click()
    saved = tmp_path / "saved.dcm"
    saving.value.save_as(saved)
    assert saving.value.suggested_filename == f"{STUDY}.2.1.dcm"
    assert list(generate_fragments(dcmread(saved).PixelData))[1] == whole.body()
    # No browser plays MPEG-2, and a stream that is none is said too.
    for number, name in ((2, "MPEG-2"), (3, "H.264 (MPEG-4 AVC)")):
        screen.press("ArrowDown")
        page.wait_for_function(
            "words => document.querySelector('[data-part=message]').textContent.includes(words)",
            arg=f"Cette vidéo {name} ne peut pas être lue dans le navigateur.",
        )
        assert page.locator("video").count() == 0
        link = page.get_by_role("link", name="Enregistrer l’objet DICOM")
        assert f"/instances/{STUDY}.2.{number}?" in link.get_attribute("href")
    other = visitor(DESK)
    other.go("/patients")
    other.sign_in(house.world.stranger)
    assert other.page.request.get(address, headers={"Accept": "video/mp4"}).status == 404
    assert screen.said == []


def test_without_javascript_a_video_is_an_object_to_save(look) -> None:
    screen = look(films, f"?serie={STUDY}.2", scripts=False)
    page = screen.page
    assert "ne peut pas être lue ici sans JavaScript" in page.locator(".v-still").inner_text()
    assert page.locator(".v-still img").count() == 0
    link = page.get_by_role("link", name="Enregistrer l’objet DICOM")
    answer = page.request.get(screen.visitor.origin + link.get_attribute("href"))
    assert answer.body()[128:132] == b"DICM"
