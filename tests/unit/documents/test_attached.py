"""Files beside a dossier: known by content, freed of place and words without a changed pixel, hostile ones refused."""

from __future__ import annotations

import io
import re
import struct
import subprocess
import zipfile
import zlib
from pathlib import Path

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


def written(*, signed: bool = False) -> tuple[bytes, bytes]:
    """A PDF written by hand, that says of its making wherever it can; and the coded content of its page."""
    drawn = zlib.compress(b"BT /F1 24 Tf 20 40 Td (Compte rendu) Tj ET")
    xmp = b"<x:xmpmeta>" + SECRET + b"</x:xmpmeta>"
    signature = b"/AcroForm << /SigFlags 3 /Sig << /Type /Sig /ByteRange [0 1 2 3] >> >>" if signed else b""
    bodies = [
        b"<< /Type /Catalog /Pages 2 0 R /Metadata 6 0 R " + signature + b" >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 100] /Contents 4 0 R /LastModified (D:20260301)"
        b" /Resources << /Font << /F1 5 0 R >> >> /PieceInfo << /App << /Private (" + SECRET + b") >> >> >>",
        b"<< /Length %d /Filter /FlateDecode >>\nstream\n" % len(drawn) + drawn + b"\nendstream",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Metadata 6 0 R >>",
        b"<< /Type /Metadata /Subtype /XML /Length %d >>\nstream\n" % len(xmp) + xmp + b"\nendstream",
        b"<< /Author (" + SECRET + b") /Producer (" + SECRET + b") /CreationDate (D:20260301120000+01'00') >>",
    ]
    made, places = b"%PDF-1.5\n", []
    for number, body in enumerate(bodies, 1):
        places.append(len(made))
        made += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"trailer\n<< /Size 8 /Root 1 0 R /Info 7 0 R >>\nstartxref\n%d\n%%%%EOF\n" % len(made)
    return made + b"xref\n0 8\n0000000000 65535 f \n" + table + end, drawn


def poppler(tool: str, content: bytes, folder: Path) -> str:
    path = folder / "one.pdf"
    path.write_bytes(content)
    given = [tool, str(path), *(["-"] if tool == "pdftotext" else [])]
    return subprocess.run(given, capture_output=True, text=True, check=True).stdout


def test_what_a_pdf_says_of_its_making_goes_and_its_pages_stay(tmp_path):
    made, drawn = written()
    assert "Producer" in poppler("pdfinfo", made, tmp_path)
    kept = judge(made, BOUNDS)
    assert SECRET not in kept.content
    assert b"D:2026" not in kept.content
    assert not kept.kept_metadata
    assert kept.removed
    told = poppler("pdfinfo", kept.content, tmp_path)
    assert not re.search("Author|Producer|CreationDate|Title", told)
    assert "Metadata Stream: no" in told
    assert "Pages:           1" in told
    assert drawn in kept.content, "not coded anew"
    assert poppler("pdftotext", kept.content, tmp_path).strip() == "Compte rendu"
    # What is silent stays byte for byte: the same file twice is one.
    assert judge(made, BOUNDS).content == kept.content
    assert judge(kept.content, BOUNDS).content == kept.content
    assert judge(pdf(), BOUNDS).content == pdf()
    assert judge(pdf(title="Compte rendu"), BOUNDS).removed


def test_a_signed_pdf_stays_as_it_is_and_says_so():
    made, _ = written(signed=True)
    kept = judge(made, BOUNDS)
    assert kept.content == made
    assert kept.kept_metadata


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
