"""A PDF that somebody lays beside a dossier: opened, and each of its pages found, before it is taken.

[ISO 32000-2 §12.6.4, §14.3] Promises: what is taken is one PDF from its first byte to its last, is not encrypted,
runs nothing and carries no other file; the walk through its objects is bounded. Who made it, with what, when and where
(document information, XMP, private data of applications) is taken out without a page's content being written anew; what
says none of this stays as it is, byte for byte, and so does what is signed: another byte would break the signature.
Not promised: that a page draws anything; that a picture inside of it says nothing of its own.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any, Final

from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, DictionaryObject, IndirectObject, StreamObject

from gateway.errors import GatewayError, InvalidContent

__all__ = ["judge"]

#: Objects looked at: a scanned report has some hundreds.
_OBJECTS: Final = 50_000
#: Actions that run something or leave the document [ISO 32000-2 §12.6.4]; names of trees that carry files or programs.
_ACTIONS: Final = frozenset({"/JavaScript", "/Launch", "/ImportData", "/SubmitForm", "/RichMediaExecute", "/Rendition"})
_CARRIERS: Final = frozenset({"/JS", "/JavaScript", "/EmbeddedFiles", "/EF", "/XFA", "/RichMediaContent"})
#: Entries of any object that say of its making; and what a signature covers the file by [ISO 32000-2 §12.8.1].
_SAYING: Final = ("/Metadata", "/PieceInfo", "/LastModified")
_SIGNED: Final = "/ByteRange"
_END: Final = b"%%EOF"

# It quotes what it complains about.
logging.getLogger("pypdf").setLevel(logging.CRITICAL)


def judge(content: bytes, pages: int) -> tuple[bytes, tuple[str, ...], bool]:
    """Take a PDF: as it is kept, what was taken out of it in words, and whether it holds metadata all the same.

    Raises
    ------
    InvalidContent
        ``pdf-illisible``, ``pdf-chiffre``, ``pdf-actif``, ``pdf-trop-long`` (rules).
    """
    last = content.rfind(_END)
    if last < 0 or content[last + len(_END) :].strip(b"\r\n\t \0"):
        raise _unreadable()
    try:
        return _judged(content, PdfReader(io.BytesIO(content), strict=False), pages)
    except GatewayError:
        raise
    except Exception as error:  # what the reader raises depends on what the bytes led it to
        raise _unreadable() from error


def _judged(content: bytes, reader: PdfReader, pages: int) -> tuple[bytes, tuple[str, ...], bool]:
    if reader.is_encrypted:
        raise InvalidContent("pdf-chiffre", "Ce PDF est protégé par un mot de passe.", rule=True)
    if not 0 < len(reader.pages) <= pages:
        text = f"Ce PDF compte {len(reader.pages)} page(s) ; de 1 à {pages} sont admises."
        raise InvalidContent("pdf-trop-long", text, rule=True)
    for page in reader.pages:
        page.mediabox  # noqa: B018 - a page without its size is none
    says, signed = bool(reader.metadata), False
    for one in _objects(reader.trailer):
        _require_passive(one)
        says = says or any(name in one for name in _SAYING)
        signed = signed or _SIGNED in one
    if not says or signed:
        return content, (), says
    return _silent(reader), ("auteur, logiciel et dates",), False


def _silent(reader: PdfReader) -> bytes:
    """Write the same pages without what is said of their making; streams are copied as they are coded."""
    writer = PdfWriter(clone_from=reader)
    writer.metadata = None
    for one in _objects(writer.root_object):
        for name in _SAYING:
            one.pop(name, None)
    # What nothing leads to any more is not written.
    writer.compress_identical_objects(remove_duplicates=False, remove_unreferenced=True)
    out = io.BytesIO()
    writer.write(out)
    made = out.getvalue()
    if len(PdfReader(io.BytesIO(made), strict=False).pages) != len(reader.pages):
        raise _unreadable()
    return made


def _unreadable() -> InvalidContent:
    return InvalidContent("pdf-illisible", "Ce PDF est abîmé ou incomplet : il n’a pas pu être lu.", rule=True)


def _objects(start: DictionaryObject) -> Iterator[DictionaryObject]:
    """Walk all that an object leads to, each once."""
    waiting: list[Any] = [start]
    seen: set[tuple[int, int]] = set()
    count = 0
    while waiting:
        one = waiting.pop()
        if isinstance(one, IndirectObject):
            key = (one.idnum, one.generation)
            if key in seen:
                continue
            seen.add(key)
            one = one.get_object()
        count += 1
        if count > _OBJECTS * 20:
            raise InvalidContent("pdf-trop-long", f"Ce PDF compte plus de {_OBJECTS} objets.", rule=True)
        if isinstance(one, DictionaryObject):
            if len(seen) > _OBJECTS:
                raise InvalidContent("pdf-trop-long", f"Ce PDF compte plus de {_OBJECTS} objets.", rule=True)
            yield one
            waiting.extend(one.values())
        elif isinstance(one, ArrayObject):
            waiting.extend(one)


def _require_passive(one: DictionaryObject | StreamObject) -> None:
    # As it is written: a name may stand behind a reference.
    said = one.get("/S")
    action = said.get_object() if isinstance(said, IndirectObject) else said
    if action in _ACTIONS or _CARRIERS & set(one):
        text = "Ce PDF contient un programme, un formulaire actif ou un autre fichier : envoyez-en une impression."
        raise InvalidContent("pdf-actif", text, rule=True)
