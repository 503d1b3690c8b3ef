"""Files beside a dossier: known by content, freed of place and words without a changed pixel, hostile ones refused."""

from __future__ import annotations

import io
import struct
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gateway.documents.attached import Bounds, judge, kind_of
from gateway.errors import InvalidContent
from tests.attached_samples import SECRET, bmp, chunk, gif, jpeg, pdf, pixels, png

BOUNDS = Bounds()
MAKERS = {"jpeg": jpeg, "png": png, "gif": gif}


def refused(content: bytes, bounds: Bounds = BOUNDS) -> str:
    with pytest.raises(InvalidContent) as error:
        judge(content, bounds)
    return error.value.code


@pytest.mark.parametrize("kind", MAKERS)
def test_a_picture_loses_its_place_and_words_and_no_pixel(kind):
    made = MAKERS[kind]()
    assert SECRET in made or kind == "png"  # a compressed text of the PNG hides it
    kept = judge(made, BOUNDS)
    assert kept.kind == kind
    assert SECRET not in kept.content
    assert SECRET[:10] not in kept.content
    assert pixels(kept.content) == pixels(made)
    assert kept.removed
    with Image.open(io.BytesIO(kept.content)) as picture:
        assert dict(picture.getexif().get_ifd(0x8825)) == {}
        assert not {"comment", "xmp", "Location", "Comment", "XML:com.adobe.xmp", "photoshop"} & set(picture.info)


def test_a_progressive_photograph_too():
    made = jpeg(progressive=True)
    assert pixels(judge(made, BOUNDS).content) == pixels(made)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_photograph_stands_as_it_was_taken(orientation):
    kept = judge(jpeg(orientation=orientation), BOUNDS).content
    with Image.open(io.BytesIO(kept)) as picture:
        said = dict(picture.getexif())
    assert said == ({} if orientation == 1 else {0x0112: orientation})


def test_a_colour_profile_stays():
    profile = b"profil" * 20
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "JPEG", icc_profile=profile)
    with Image.open(io.BytesIO(judge(out.getvalue(), BOUNDS).content)) as picture:
        assert picture.info["icc_profile"] == profile


def test_the_same_file_twice_is_the_same_bytes_and_clean_once():
    for make in MAKERS.values():
        kept = judge(make(), BOUNDS)
        again = judge(kept.content, BOUNDS)
        assert again.content == kept.content
        assert set(again.removed) <= {"données Exif et XMP"}  # the orientation, written anew


@pytest.mark.req("S0-065")
@pytest.mark.parametrize(
    "content",
    [
        bmp(),
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        b"<!DOCTYPE html><script>alert(1)</script>",
        b"\xef\xbb\xbf<html>",
        b"PK\x03\x04" + b"\0" * 200,
        b"MZ" + b"\0" * 200,
        b"II*\0" + b"\0" * 200,
        b"RIFF\0\0\0\0WEBP",
        b"",
        b"\0" * 128 + b"DICM",
    ],
)
def test_other_kinds_are_refused(content):
    assert refused(content) == "fichier-type"


@pytest.mark.req("S0-065")
def test_the_kind_is_what_the_bytes_are():
    """A JPEG that is called .png is a JPEG; an object of DICOM is known by its preamble, whatever its name."""
    assert judge(jpeg(), BOUNDS).content_type == "image/jpeg"
    assert kind_of(b"\0" * 128 + b"DICM" + b"\x02\0") == "dicom"
    assert kind_of(b"\0" * 127 + b"DICM" + b"\x02\0") is None


def archive() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("a.html", "<script>alert(1)</script>")
    return out.getvalue()


@pytest.mark.parametrize("kind", MAKERS)
def test_what_follows_a_picture_is_cut_off(kind):
    made = MAKERS[kind]()
    kept = judge(made + archive(), BOUNDS)
    assert kept.content == judge(made, BOUNDS).content
    assert "données après la fin de l’image" in kept.removed
    assert not zipfile.is_zipfile(io.BytesIO(kept.content))


def test_a_page_in_a_comment_of_a_picture_is_gone():
    made = gif().replace(SECRET, b"<script>alert(1)".ljust(len(SECRET)))
    assert b"<script" in made
    assert b"<script" not in judge(made, BOUNDS).content
    head, rest = png()[:33], png()[33:]
    assert b"<script" not in judge(head + chunk(b"prVt", b"<script>") + rest, BOUNDS).content


@pytest.mark.parametrize("kind", MAKERS)
def test_a_picture_that_is_cut_short_is_refused(kind):
    made = MAKERS[kind]()
    for length in (len(made) // 2, len(made) - 1, 20):
        assert refused(made[:length]) in {"fichier-illisible", "fichier-type"}


def test_a_damaged_chunk_is_refused():
    made = bytearray(png())
    made[40] ^= 0xFF
    assert refused(bytes(made)) == "fichier-illisible"


def test_a_bomb_is_refused_before_it_is_decoded():
    out = io.BytesIO()
    Image.new("1", (9000, 9000)).save(out, "PNG")
    assert len(out.getvalue()) < 50_000
    assert refused(out.getvalue()) == "image-trop-grande"
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0))
    made = png()
    assert refused(made[:8] + header + made[33:]) == "image-trop-grande"
    assert refused(gif(), Bounds(frames=1)) == "image-trop-grande"
    assert refused(png(), Bounds(max_bytes=100)) == "fichier-trop-grand"


def test_a_pdf_is_kept_as_it_is_and_says_whether_it_holds_metadata():
    plain, titled = judge(pdf(), BOUNDS), judge(pdf(title="Compte rendu"), BOUNDS)
    assert plain.content == pdf()
    assert titled.kept_metadata


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (pdf(password="x"), "pdf-chiffre"),
        (pdf(script="app.alert(1)"), "pdf-actif"),
        (pdf(attached=b"MZ"), "pdf-actif"),
        (pdf(pages=4), "pdf-trop-long"),
        (pdf()[:-8], "pdf-illisible"),
        (pdf() + archive(), "pdf-illisible"),
        (b"%PDF-1.4\n%%EOF\n", "pdf-illisible"),
        (b"%PDF-1.7 <script>alert(1)</script>", "pdf-illisible"),
        (b"GIF" + pdf(), "fichier-type"),
    ],
)
def test_a_pdf_that_is_more_or_less_than_its_pages_is_refused(content, code):
    assert refused(content, Bounds(pages=3)) == code


def test_a_launch_action_behind_a_reference_is_found():
    made = pdf().replace(b"/Type /Catalog", b"/Type /Catalog /OpenAction << /S /Launch /F (x) >>")
    assert refused(made) == "pdf-actif"


_SOURCES = [make() for make in MAKERS.values()] + [pdf(), pdf(title="t")]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_files_are_kept_or_refused_never_anything_else(data):
    made = bytearray(data.draw(st.sampled_from(_SOURCES)))
    for _ in range(data.draw(st.integers(1, 6))):
        made[data.draw(st.integers(0, len(made) - 1))] = data.draw(st.integers(0, 255))
    del made[data.draw(st.integers(1, len(made))) :]
    try:
        kept = judge(bytes(made), Bounds(pixels=100_000))
    except InvalidContent:
        return  # refused in words; anything else would be a defect
    assert kept.kind in {"png", "jpeg", "gif", "pdf"}
