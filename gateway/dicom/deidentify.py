"""A de-identified copy of one image object. Runs where decoders run: `gateway.dicom.easel`.

[PS3.15 E.1, E.2] Basic Application Level Confidentiality Profile; options: Retain Longitudinal Temporal Information
Full Dates, Retain Patient Characteristics. What becomes of each attribute is a table (``mappings/``).

Promises: every attribute of the table is treated at every depth; private attributes, those that the standard does not
know, curves and overlays are gone; a UID that the table names becomes the same new one in every object of a copy; what
is left and holds a word of the patient's identity is emptied. Pixels are neither touched nor read: `Copied.burned_in`
says where they may show who it is.
Not promised: that a face cannot be drawn from a head's slices. What is no image (reports, encapsulated documents) is
refused: its text is its content.
"""

from __future__ import annotations

import hmac
import io
import re
import struct
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import msgspec
import pydicom
from pydicom.datadict import dictionary_has_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from gateway.dicom.command import is_uid
from gateway.errors import InvalidContent
from gateway.terminology import table

__all__ = ["CHARACTERISTICS", "DATES", "Copied", "copied"]

#: Options, by what they keep.
CHARACTERISTICS: Final = "caracteristiques"
DATES: Final = "dates"

_PROFILE: Final = ("113100", "Basic Application Confidentiality Profile")
_OPTIONS: Final[Mapping[str, tuple[str, str]]] = {
    DATES: ("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    CHARACTERISTICS: ("113108", "Retain Patient Characteristics Option"),
}
_TEMPORAL: Final = frozenset({"DA", "TM", "DT"})
_TEXT: Final = frozenset({"AE", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
#: Values that say nothing, for what may not be empty.
_DUMMY: Final[Mapping[str, Any]] = {
    "AE": "ANONYME",
    "AS": "000Y",
    "CS": "ANONYME",
    "DA": "19000101",
    "DT": "19000101000000",
    "LO": "ANONYME",
    "LT": "ANONYME",
    "OB": b"\0\0",
    "PN": "ANONYME",
    "SH": "ANONYME",
    "ST": "ANONYME",
    "TM": "000000",
    "UC": "ANONYME",
    "UN": b"\0\0",
    "UR": "urn:anonyme",
    "UT": "ANONYME",
}
#: Where pixels stand, their type where the file says none, and those that it may say.
_PIXELS: Final = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
_PIXEL_VR: Final = {0x7FE00008: "OF", 0x7FE00009: "OD", 0x7FE00010: "OW"}
_PIXEL_VRS: Final = frozenset({"OB", "OW", "OF", "OD", "UN"})
_UNDEFINED: Final = 0xFFFFFFFF
#: Older than this is written as this: few people are.
_OLDEST_YEARS: Final = 90
#: A word of so many letters at least is looked for in what is left; two letters stand in half of all texts.
_WORD_LETTERS: Final = 3
#: Objects whose pixels often show text: secondary captures, ultrasound, visible light, digitised film.
_OFTEN_BURNED_IN: Final = re.compile(
    r"1\.2\.840\.10008\.5\.1\.4\.1\.1\.(?:7(?:\.\d+)*|6\.\d+|3\.\d+|77\.1\.(?:1|2|4)(?:\.\d+)*)"
)
_BURNED_IN_MODALITIES: Final = frozenset({"US", "IVUS", "ES", "GM", "XC", "OT", "SC", "HC", "DOC", "FILM"})


class Copied(msgspec.Struct, frozen=True):
    """A copy, and what is to be told of it.

    Attributes
    ----------
    content
        A Part 10 file, up to the value of its pixels.
    pixels
        Where that value stands in the object's own file, and how long it is: it follows ``content`` as it is. Nothing
        where ``content`` is the whole.
    uids
        Old and new, of every UID that was replaced.
    burned_in
        ``oui``: the object says that its pixels show who it is; ``possible``: of its kind many do, and it does not say
        no; ``non``.
    emptied
        Attributes outside of the table that held a word of the patient's identity.
    """

    content: bytes
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    uids: dict[str, str]
    burned_in: str
    emptied: int
    pixels: tuple[int, int] = (0, 0)


@dataclass(slots=True)
class _Copy:
    """What one copy is made by."""

    secret: bytes
    pseudonym: str
    options: frozenset[str]
    words: re.Pattern[str] | None
    uids: dict[str, str] = field(default_factory=dict)
    emptied: int = 0

    def uid(self, old: str) -> str:
        """The new UID of an old one: always the same in this copy, and nothing to anybody without its secret."""
        if old not in self.uids:
            number = int.from_bytes(hmac.digest(self.secret, old.encode("utf-8", "replace"), "sha256")[:16], "big")
            self.uids[old] = f"2.25.{number}"
        return self.uids[old]


def copied(path: Path, *, secret: bytes, pseudonym: str, options: Sequence[str], known: Sequence[str]) -> Copied:
    """Copy one object without its identity.

    Parameters
    ----------
    secret
        Of this copy of the study; what new UIDs are made with.
    pseudonym
        PatientID and PatientName of the copy.
    known
        Names and numbers of the patient, as the record has them; those of the object itself are looked for as well.

    Raises
    ------
    InvalidContent
        ``copy-not-an-image``: a report, a document, an object without pixels.
    """
    ds, pixels = _opened(path)
    if "Rows" not in ds or not (pixels or any(name in ds for name in _PIXELS.values())):
        raise InvalidContent("copy-not-an-image", "Seules les images sont copiées sans identité.", rule=True)
    copy = _Copy(secret, pseudonym, frozenset(options), _words(ds, known))
    burned_in = _burned_in(ds)
    _treat(ds, copy)
    ds.PatientName = ds.PatientID = pseudonym
    ds.PatientIdentityRemoved = "YES"
    ds.LongitudinalTemporalInformationModified = "UNMODIFIED" if DATES in copy.options else "REMOVED"
    ds.DeidentificationMethod = "PS3.15 E.1"
    ds.DeidentificationMethodCodeSequence = [_code(*_PROFILE), *(_code(*_OPTIONS[one]) for one in sorted(copy.options))]
    meta = ds.file_meta
    for element in list(meta):  # who sent it stands there, too
        if element.keyword not in {"MediaStorageSOPClassUID", "TransferSyntaxUID"}:
            del meta[element.tag]
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.preamble = None
    out = io.BytesIO()
    pydicom.dcmwrite(out, ds, enforce_file_format=True)
    if pixels:
        out.write(pixels.head(str(meta.TransferSyntaxUID)))
    return Copied(
        content=out.getvalue(),
        pixels=pixels.place if pixels else (0, 0),
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        transfer_syntax_uid=str(meta.TransferSyntaxUID),
        uids={old: new for old, new in copy.uids.items() if is_uid(old)},
        burned_in=burned_in,
        emptied=copy.emptied,
    )


class _Pixels(NamedTuple):
    """The element of an object's pixels, in its file."""

    tag: int
    vr: str
    length: int
    place: tuple[int, int]

    def head(self, syntax: str) -> bytes:
        """Write what stands before the value."""
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        tag = struct.pack(f"{order}HH", self.tag >> 16, self.tag & 0xFFFF)
        if syntax == ImplicitVRLittleEndian:
            return tag + struct.pack("<L", self.length)
        return tag + self.vr.encode("ascii") + struct.pack(f"{order}HL", 0, self.length)


def _opened(path: Path) -> tuple[FileDataset, _Pixels | None]:
    """Read everything but the pixels, whatever they weigh; what stands behind them is removed by the profile anyway."""
    with path.open("rb") as file:
        ds = pydicom.dcmread(file, stop_before_pixels=True)
        if ds.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:  # what is inflated has no place
            return pydicom.dcmread(path), None
        place, head = file.tell(), file.read(12)
        implicit, little = ds.original_encoding
        order = "<" if little else ">"
        if len(head) < (8 if implicit else 12):
            return ds, None
        group, element = struct.unpack_from(f"{order}HH", head)
        tag = group << 16 | element
        if tag not in _PIXELS:
            return ds, None
        start = place + (8 if implicit else 12)
        [length] = struct.unpack_from(f"{order}L", head, 4 if implicit else 8)
        said = head[4:6].decode("latin-1")
        vr = said if not implicit and said in _PIXEL_VRS else _PIXEL_VR[tag]
        end = _end_of_fragments(file, start) if length == _UNDEFINED else min(start + length, path.stat().st_size)
        if length != _UNDEFINED:
            length = end - start
        return ds, _Pixels(tag, vr, length, (start, end - start))


def _end_of_fragments(file: BinaryIO, start: int) -> int:
    """Where encapsulated pixels end, their delimiter included `[PS3.5 A.4]`; heads alone are read."""
    while True:
        file.seek(start)
        head = file.read(8)
        if len(head) < 8:
            break
        group, element, length = struct.unpack("<HHL", head)
        if (group, element) == (0xFFFE, 0xE0DD):
            return start + 8
        if (group, element) != (0xFFFE, 0xE000) or length == _UNDEFINED:
            break
        start += 8 + length
    raise InvalidContent("dicom-pixels", "Pixels manquants.")


@cache
def _actions() -> Mapping[int, str]:
    return {int(row["tag"], 16): str(row["action"]) for row in table("dicom-deidentification")["attributes"]}


@cache
def _characteristics() -> frozenset[str]:
    return frozenset(table("dicom-deidentification")["characteristics"])


def _treat(ds: Dataset, copy: _Copy) -> None:
    """Do to each attribute what the table says of it, at every depth."""
    for tag in list(ds.keys()):
        if tag.is_private or tag.group & 0xFF01 == 0x5000 or tag.group & 0xFF01 == 0x6000:
            del ds[tag]
            continue
        action = _actions().get(int(tag))
        if action is None and not dictionary_has_tag(tag):
            del ds[tag]  # nobody can say what is in it
        elif action is None:
            _leave(ds, tag, copy)
        elif not _kept(ds[tag], action, copy):
            _DOES[action](ds, ds[tag], copy)


def _kept(element: DataElement, action: str, copy: _Copy) -> bool:
    if element.keyword in _characteristics() and CHARACTERISTICS in copy.options:
        if element.keyword == "PatientAge":
            element.value = _age(str(element.value or ""))
        return True
    # Birth dates and the last menstruation are of the patient, not of the examination.
    temporal = element.VR in _TEMPORAL or element.keyword == "TimezoneOffsetFromUTC"
    return temporal and element.tag.group != 0x0010 and DATES in copy.options and "U" not in action


def _age(value: str) -> str:
    """An age that few people reach says who it is."""
    years = value[:3]
    return f"{_OLDEST_YEARS:03}Y" if value.endswith("Y") and years.isdigit() and int(years) > _OLDEST_YEARS else value


def _leave(ds: Dataset, tag: BaseTag, copy: _Copy) -> None:
    """Of what the table does not name, look below, and for words that say who it is."""
    element = ds[tag]
    if element.VR == "SQ":
        for item in element.value or ():
            _treat(item, copy)
    elif element.VR == "PN" or (
        element.VR in _TEXT and copy.words is not None and copy.words.search(_plain(_joined(element)))
    ):
        element.value = None
        copy.emptied += 1


def _remove(ds: Dataset, element: DataElement, _: _Copy) -> None:
    del ds[element.tag]


def _empty(_: Dataset, element: DataElement, _copy: _Copy) -> None:
    element.value = [] if element.VR == "SQ" else None


def _replace(ds: Dataset, element: DataElement, _: _Copy) -> None:
    """A dummy; a sequence holds nothing that is known to be harmless."""
    if element.VR == "SQ":
        del ds[element.tag]
    elif element.VR in _DUMMY:
        element.value = _DUMMY[element.VR]
    else:
        element.value = None


def _renew(_: Dataset, element: DataElement, copy: _Copy) -> None:
    value = element.value
    if not value:
        return
    element.value = copy.uid(str(value)) if isinstance(value, str) else [copy.uid(str(one)) for one in value]


def _renew_below(_: Dataset, element: DataElement, copy: _Copy) -> None:
    """A sequence that refers to other objects: they have new UIDs as well."""
    for item in element.value or ():
        _treat(item, copy)


#: X/Z and X/Z/D leave it to the writer which, so that what may be empty is; D where only a value will do.
_DOES: Final[Mapping[str, Callable[[Dataset, DataElement, _Copy], None]]] = {
    "D": _replace,
    "Z": _empty,
    "X": _remove,
    "U": _renew,
    "Z/D": _replace,
    "X/Z": _empty,
    "X/D": _replace,
    "X/Z/D": _replace,
    "X/Z/U*": _renew_below,
}


def _joined(element: DataElement) -> str:
    value = element.value
    return " ".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value or "")


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKD", text)
    return "".join(char for char in folded if not unicodedata.combining(char)).casefold()


def _words(ds: Dataset, known: Sequence[str]) -> re.Pattern[str] | None:
    """Find any word of the patient's identity in a plain text."""
    said = [str(ds.get(name) or "") for name in ("PatientName", "PatientID", "OtherPatientNames", "PatientBirthName")]
    said += [str(ds.get(name) or "") for name in ("AccessionNumber", "OtherPatientIDs", "PatientBirthDate")]
    words = {
        word for text in (*said, *known) for word in re.split(r"[^\w]+", _plain(text)) if len(word) >= _WORD_LETTERS
    }
    if not words:
        return None
    return re.compile(rf"(?<!\w)(?:{'|'.join(sorted(map(re.escape, words), key=len, reverse=True))})(?!\w)")


def _burned_in(ds: Dataset) -> str:
    said = str(ds.get("BurnedInAnnotation") or "").strip().upper()
    if said == "YES" or str(ds.get("RecognizableVisualFeatures") or "").strip().upper() == "YES":
        return "oui"
    if said == "NO":
        return "non"
    often = _OFTEN_BURNED_IN.fullmatch(str(ds.get("SOPClassUID") or ""))
    return "possible" if often or str(ds.get("Modality") or "") in _BURNED_IN_MODALITIES else "non"


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item
