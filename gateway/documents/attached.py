"""Files that people lay beside a dossier: known by their content, decoded, freed of what says where and by what.

[PNG 5.3] [T.81 B.1] [GIF89a] [Exif 4.6.5] [spec features S0-065]

Promises: the type is what the bytes are, never what their name says; a picture is decoded whole within `Bounds` before
it is taken; place, time, device and words are taken out of pictures (Exif, XMP, IPTC, comments, text chunks) without a
pixel being coded again, but for the orientation and the colour profile, without which they would be shown wrongly;
what follows the end of a picture is cut off, and nothing may stand before its beginning: no file is two things at once.
A PDF is opened and each of its pages found; one that is encrypted, runs a program or carries other files is refused.
What it says of its making goes, but for a signed one, which stays as it is: `Judged.kept_metadata` says so.
Not promised: that a picture shows no name in its pixels.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from PIL import Image

from gateway.documents import attached_pdf
from gateway.errors import GatewayError, InvalidContent

__all__ = ["CONTENT_TYPES", "HEAD_BYTES", "Bounds", "Judged", "judge", "kind_of"]

#: Kinds that are taken → media type.
CONTENT_TYPES: Final[Mapping[str, str]] = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "pdf": "application/pdf",
}
_SIGNATURES: Final = (
    ("png", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("jpeg", re.compile(rb"\xff\xd8\xff")),
    ("gif", re.compile(rb"GIF8[79]a")),
    ("pdf", re.compile(rb"%PDF-\d\.\d")),
    ("dicom", re.compile(rb".{128}DICM", re.DOTALL)),
)
#: How many first bytes say what a file is.
HEAD_BYTES: Final = 132
_PILLOW: Final = {"png": "PNG", "jpeg": "JPEG", "gif": "GIF"}
_ORIENTATION: Final = 0x0112


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one file may be.

    Parameters
    ----------
    pixels
        Of one picture, all of its frames together.
    pages
        Of a PDF.
    """

    max_bytes: int = 20 << 20
    pixels: int = 50_000_000
    frames: int = 500
    pages: int = 500


@dataclass(frozen=True, slots=True)
class Judged:
    """A file as it is kept.

    Parameters
    ----------
    removed
        What was taken out, in words.
    kept_metadata
        Whether it says more of its making than its pages show.
    """

    kind: str
    content: bytes
    removed: tuple[str, ...] = ()
    kept_metadata: bool = False

    @property
    def content_type(self) -> str:
        """Media type."""
        return CONTENT_TYPES[self.kind]


def kind_of(head: bytes) -> str | None:
    """Name what bytes are by how they begin: a kind of `CONTENT_TYPES`, ``dicom``, or none that is known."""
    return next((kind for kind, begins in _SIGNATURES if begins.match(head)), None)


def judge(content: bytes, bounds: Bounds) -> Judged:
    """Take one file, or say why it is not taken.

    Raises
    ------
    InvalidContent
        ``fichier-type``, ``fichier-trop-grand``, ``fichier-illisible``, ``image-trop-grande``, ``pdf-…`` (rules).
    """
    if len(content) > bounds.max_bytes:
        text = f"Ce fichier dépasse la taille permise ({bounds.max_bytes} octets)."
        raise InvalidContent("fichier-trop-grand", text, rule=True)
    kind = kind_of(content[:HEAD_BYTES])
    if kind == "pdf":
        kept, taken, says = attached_pdf.judge(content, bounds.pages)
        return Judged("pdf", kept, taken, kept_metadata=says)
    if kind is None or kind not in _STRIPPED:
        text = "Ce contenu n’est pas d’un type accepté : image PNG, JPEG ou GIF, PDF, ou image DICOM."
        raise InvalidContent("fichier-type", text, rule=True)
    try:
        clean, removed = _STRIPPED[kind](content)
        _decode(kind, clean, bounds)
    except GatewayError:
        raise
    except Image.DecompressionBombError as error:
        text = f"Cette image est trop grande : {bounds.pixels} pixels au plus."
        raise InvalidContent("image-trop-grande", text, rule=True) from error
    except Exception as error:  # what a decoder raises depends on what the bytes led it to
        raise _unreadable() from error
    return Judged(kind, clean, tuple(dict.fromkeys(removed)))


def _unreadable() -> InvalidContent:
    return InvalidContent(
        "fichier-illisible", "Cette image est abîmée ou incomplète : elle n’a pas pu être lue.", rule=True
    )


def _decode(kind: str, content: bytes, bounds: Bounds) -> None:
    """Decode every frame; the size is looked at before a pixel is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bounded here, by name
        with Image.open(io.BytesIO(content), formats=[_PILLOW[kind]]) as picture:
            width, height = picture.size
            frames = getattr(picture, "n_frames", 1)
            if width * height * frames > bounds.pixels or frames > bounds.frames:
                text = (
                    f"Cette image est trop grande : {width} × {height} pixels, {frames} vue(s) ; "
                    f"{bounds.pixels} pixels et {bounds.frames} vues au plus."
                )
                raise InvalidContent("image-trop-grande", text, rule=True)
            for number in range(frames):
                picture.seek(number)
                picture.load()


# ---- PNG: chunks [PNG 5.3]

#: Chunks without which a picture looks otherwise; every other one goes.
_PNG_KEPT: Final = frozenset(
    {
        *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"sBIT", b"bKGD"),
        *(b"pHYs", b"acTL", b"fcTL", b"fdAT"),
    }
)
_PNG_SAID: Final = {
    b"eXIf": "données Exif",
    b"tEXt": "textes",
    b"zTXt": "textes",
    b"iTXt": "textes et XMP",
    b"tIME": "date",
}
_PNG_HEAD: Final = 8


def _png(content: bytes) -> tuple[bytes, list[str]]:
    kept, place = [content[:_PNG_HEAD]], _PNG_HEAD
    removed: list[str] = []
    while True:
        (length,) = struct.unpack_from(">I", content, place)
        name, end = content[place + 4 : place + 8], place + 12 + length
        if end > len(content):
            raise _unreadable()
        (said,) = struct.unpack_from(">I", content, end - 4)
        if zlib.crc32(content[place + 4 : end - 4]) != said:
            raise _unreadable()
        if name in _PNG_KEPT:
            kept.append(content[place:end])
        else:
            removed.append(_PNG_SAID.get(name, "données annexes"))
        place = end
        if name == b"IEND":
            return b"".join(kept), [*removed, *_after(content, place)]


def _after(content: bytes, end: int) -> list[str]:
    return ["données après la fin de l’image"] if len(content) > end else []


# ---- JPEG: marker segments [T.81 B.1]

_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD8)})
_JPEG_SAID: Final = {0xE1: "données Exif et XMP", 0xED: "données IPTC", 0xFE: "commentaires"}


def _jpeg(content: bytes) -> tuple[bytes, list[str]]:
    kept = [b"\xff\xd8"]
    removed: list[str] = []
    orientation = _orientation(content)
    if orientation not in {None, 1}:
        kept.append(_oriented(orientation or 1))
    place = 2
    while True:
        if content[place] != 0xFF:
            raise _unreadable()
        while content[place + 1] == 0xFF:  # fill bytes
            place += 1
        marker = content[place + 1]
        if marker == _EOI:
            return b"".join((*kept, b"\xff\xd9")), [*removed, *_after(content, place + 2)]
        if marker in _ALONE or marker == _SOI:
            raise _unreadable()
        (length,) = struct.unpack_from(">H", content, place + 2)
        end = place + 2 + length
        if length < 2 or end > len(content):
            raise _unreadable()
        if _drawn_with(marker, content[place + 4 : end]):
            kept.append(content[place:end])
        else:
            removed.append(_JPEG_SAID.get(marker, "données annexes"))
        place = end
        if marker == _SOS:
            place = _scan_end(content, end)
            kept.append(content[end:place])


def _drawn_with(marker: int, payload: bytes) -> bool:
    """Whether a segment says how the picture is drawn: not an application's, or JFIF's, a colour profile, Adobe's."""
    if marker == 0xFE or 0xE0 <= marker <= 0xEF:
        return (
            (marker == 0xE0 and payload.startswith(b"JFIF\0"))
            or (marker == 0xE2 and payload.startswith(b"ICC_PROFILE\0"))
            or (marker == 0xEE and payload.startswith(b"Adobe"))
        )
    return True


def _scan_end(content: bytes, place: int) -> int:
    """Where entropy-coded data end: at a marker that is neither a stuffed byte nor a restart."""
    while True:
        place = content.find(b"\xff", place)
        if place < 0 or place + 1 >= len(content):
            raise _unreadable()
        after = content[place + 1]
        if after in {0x00, 0xFF} or 0xD0 <= after <= 0xD7:
            place += 1 if after == 0xFF else 2
            continue
        return place


def _orientation(content: bytes) -> int | None:
    """Read the orientation; an Exif segment that cannot be read turns nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=["JPEG"]) as picture:
                said = picture.getexif().get(_ORIENTATION)
    except Exception:  # noqa: BLE001 - what it raises depends on what the bytes led it to; decoding judges
        return None
    return int(said) if isinstance(said, int) and 1 <= said <= 8 else None


def _oriented(orientation: int) -> bytes:
    """An Exif segment that says the orientation and nothing else [Exif 4.6.5]."""
    entry = struct.pack(">HHIHH", _ORIENTATION, 3, 1, orientation, 0)
    payload = b"Exif\0\0" + b"MM\0\x2a" + struct.pack(">IH", 8, 1) + entry + struct.pack(">I", 0)
    return b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload


# ---- GIF: blocks [GIF89a]

_LOOPS: Final = frozenset({b"NETSCAPE2.0", b"ANIMEXTS1.0"})


def _gif(content: bytes) -> tuple[bytes, list[str]]:
    place = 13 + _table(content[10])
    kept = [content[:place]]
    removed: list[str] = []
    while True:
        introducer = content[place]
        if introducer == 0x3B:
            return b"".join((*kept, b"\x3b")), [*removed, *_after(content, place + 1)]
        start = place
        if introducer == 0x2C:
            place = _sub_blocks(content, place + 10 + _table(content[place + 9]) + 1)
            kept.append(content[start:place])
        elif introducer == 0x21:
            label, place = content[place + 1], _sub_blocks(content, place + 2)
            loop = label == 0xFF and content[start + 3 : start + 14] in _LOOPS
            if label == 0xF9 or loop:
                kept.append(content[start:place])
            else:
                removed.append("commentaires" if label == 0xFE else "textes et XMP")
        else:
            raise _unreadable()


def _table(packed: int) -> int:
    return 3 << ((packed & 7) + 1) if packed & 0x80 else 0


def _sub_blocks(content: bytes, place: int) -> int:
    """Where a chain of sub-blocks that begins at a place is over."""
    while content[place]:
        place += 1 + content[place]
    return place + 1


_STRIPPED: Final[Mapping[str, Callable[[bytes], tuple[bytes, list[str]]]]] = {"png": _png, "jpeg": _jpeg, "gif": _gif}
