"""Files that people lay beside a dossier, made by Pillow and by hand; nobody is in them."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image, PngImagePlugin
from pypdf import PdfWriter
from pypdf.generic import DictionaryObject, NameObject, TextStringObject

__all__ = ["SECRET", "bmp", "chunk", "gif", "jpeg", "pdf", "pixels", "png"]

#: What no kept picture may hold.
SECRET = b"SECRET-48.8566-2.3522"


def _picture(mode: str = "RGB", size: tuple[int, int] = (40, 24)) -> Image.Image:
    picture = Image.new(mode, size)
    picture.putdata([(x * 6 % 256, y * 9 % 256, (x * y) % 256) for y in range(size[1]) for x in range(size[0])])
    return picture


def jpeg(*, orientation: int = 6, progressive: bool = False) -> bytes:
    """A photograph with a place, an XMP packet, a comment and IPTC."""
    picture, out = _picture(), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = SECRET.decode()
    place = exif.get_ifd(0x8825)
    place[1], place[2], place[3], place[4] = "N", (48.0, 51.0, 24.0), "E", (2.0, 21.0, 8.0)
    place[29] = SECRET.decode()[:10]
    picture.save(out, "JPEG", exif=exif, comment=SECRET, xmp=b"<x>" + SECRET + b"</x>", progressive=progressive)
    made = out.getvalue()
    iptc = b"Photoshop 3.0\0" + SECRET
    return made[:2] + b"\xff\xed" + struct.pack(">H", len(iptc) + 2) + iptc + made[2:]


def png() -> bytes:
    """A capture with texts, an XMP packet, Exif and its date."""
    out, said = io.BytesIO(), PngImagePlugin.PngInfo()
    said.add_text("Location", SECRET.decode())
    said.add_text("Comment", SECRET.decode(), zip=True)
    said.add_itxt("XML:com.adobe.xmp", SECRET.decode())
    exif = Image.Exif()
    exif[0x010F] = SECRET.decode()
    _picture().save(out, "PNG", pnginfo=said, exif=exif, dpi=(96, 96))
    return out.getvalue()


def gif() -> bytes:
    """Two frames with a comment."""
    out = io.BytesIO()
    first, second = _picture().convert("P"), _picture(size=(40, 24)).rotate(180).convert("P")
    first.save(out, "GIF", save_all=True, append_images=[second], comment=SECRET, loop=0, duration=50)
    return out.getvalue()


def bmp() -> bytes:
    """A kind that is not taken."""
    out = io.BytesIO()
    _picture().save(out, "BMP")
    return out.getvalue()


def pdf(*, password: str = "", script: str = "", attached: bytes = b"", title: str = "", pages: int = 1) -> bytes:
    """A PDF of empty pages, and what else is asked for."""
    writer, out = PdfWriter(), io.BytesIO()
    for _ in range(pages):
        writer.add_blank_page(200, 100)
    if title:
        writer.add_metadata({"/Title": title})
    else:
        writer.metadata = None
    if script:
        action = {"/S": NameObject("/JavaScript"), "/JS": TextStringObject(script)}
        writer.root_object[NameObject("/OpenAction")] = DictionaryObject(
            {NameObject(name): value for name, value in action.items()}
        )
    if attached:
        writer.add_attachment("caché.bin", attached)
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    writer.write(out)
    return out.getvalue()


def pixels(content: bytes) -> list[bytes]:
    """Every frame, as a viewer that knows no metadata draws it."""
    found = []
    with Image.open(io.BytesIO(content)) as picture:
        for number in range(getattr(picture, "n_frames", 1)):
            picture.seek(number)
            found.append(picture.convert("RGBA").tobytes())
    return found


def chunk(name: bytes, payload: bytes) -> bytes:
    """One chunk of a PNG [PNG 5.3]."""
    return struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", zlib.crc32(name + payload))
