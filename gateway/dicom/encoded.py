"""A data set of the DICOM JSON Model as Explicit VR Little Endian, bulk data streamed `[PS3.18 F, PS3.5 7]`.

Promises: bulk data go from where they are staged, piece by piece; a value against its type, a type against the
standard's dictionary, bulk data that did not come and whatever else no object can be made of is refused by the
attribute's tag, and nothing is guessed; nothing is ever fetched: an address only names a part that came along. Texts
are written in UTF-8, and the object says so. Not promised: that the values make sense together.
"""

from __future__ import annotations

import base64
import math
import re
import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydicom.datadict import dictionary_VR
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from gateway.dicom.command import is_uid
from gateway.dicom.transfer import MEDIA_TYPES, OCTETS
from gateway.errors import InvalidContent

__all__ = ["Part", "Parts", "encoded", "named", "transfer_syntax"]

_PIXEL_DATA: Final = "7FE00010"
_CHARACTER_SET: Final = "00080005"
_DOCUMENT: Final = "00420011"
_TRANSFER_SYNTAX: Final = "00020010"
_FRAMES: Final = "00280008"

_TAG: Final = re.compile(r"[0-9A-Fa-f]{8}")
_NUMBERS: Final = {
    "FL": "<f",
    "FD": "<d",
    "SL": "<i",
    "SS": "<h",
    "SV": "<q",
    "UL": "<I",
    "US": "<H",
    "UV": "<Q",
}
_TEXTS: Final = frozenset(
    ["AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"]
)
_ONE_TEXT: Final = frozenset({"LT", "ST", "UR", "UT"})
_BINARY: Final = {"OB": 1, "OD": 8, "OF": 4, "OL": 4, "OV": 8, "OW": 2, "UN": 1}
_TYPES: Final = frozenset({*_TEXTS, *_NUMBERS, *_BINARY, "AT", "SQ"})
_SAID: Final = frozenset({"Value", "InlineBinary", "BulkDataURI"})
_LONG: Final = frozenset({*_BINARY, "SQ", "SV", "UC", "UR", "UT", "UV"})
#: What bulk data are multiples of; other types have no bulk data.
_UNITS: Final = {
    **_BINARY,
    **{vr: struct.calcsize(form) for vr, form in _NUMBERS.items()},
    **dict.fromkeys(("LT", "ST", "UC", "UR", "UT"), 1),
}
_DS: Final = re.compile(r" *[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)? *")
_IS: Final = re.compile(r" *[+-]?[0-9]{1,12} *")
_UID_CHARACTERS: Final = re.compile(r"[0-9.]{0,64}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_CONTROL_BUT_LINES: Final = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")
_MAX_DEPTH: Final = 60
_MAX_SHORT: Final = 0xFFFE
_MAX_LONG: Final = 0xFFFFFFFE
_UNDEFINED: Final = 0xFFFFFFFF

#: Media types whose one part is all frames; each part of another one is a frame `[PS3.18 8.7.3]`.
_VIDEOS: Final = {kind: MEDIA_TYPES[kind] for kind in ("video/mpeg", "video/mp4")}


@dataclass(frozen=True, slots=True)
class Part:
    """Bulk data that came along, and where they are staged."""

    path: Path
    start: int
    length: int
    media_type: str
    transfer_syntax: str | None


#: The parts that stand at a Content-Location, in their order; none when there is no such part.
Parts = Callable[[str], Sequence[Part]]


def named(tree: Mapping[str, Any]) -> tuple[str, str]:
    """Say which object a data set is: its SOP class and its own UID.

    Raises
    ------
    InvalidContent
        ``dicom-missing-uid``.
    """
    found = []
    for tag, keyword in (("00080016", "SOPClassUID"), ("00080018", "SOPInstanceUID")):
        element = tree.get(tag)
        values = element.get("Value") if isinstance(element, Mapping) else None
        uid = values[0] if isinstance(values, list) and len(values) == 1 else None
        if not isinstance(uid, str) or not is_uid(uid):
            text = f"Objet DICOM sans {keyword} valide."
            raise InvalidContent("dicom-missing-uid", text, expression=keyword, rule=True)
        found.append(uid)
    return found[0], found[1]


def encoded(tree: Mapping[str, Any], parts: Parts, transfer_syntax: str) -> Iterator[bytes | Part]:
    """Write a data set, its bulk data as the parts that they are.

    Raises
    ------
    InvalidContent
        ``dicom-bulk``, ``dicom-data-set``.
    """
    told = {tag: one for tag, one in tree.items() if not tag.startswith("0002")}
    said = {**told, _CHARACTER_SET: {"vr": "CS", "Value": ["ISO_IR 192"]}}
    return _Writing(parts, transfer_syntax).data_set(said, 0)


def transfer_syntax(tree: Mapping[str, Any], parts: Parts) -> str:
    """Say in which transfer syntax its pixels came: the media type of their parts decides `[PS3.18 8.7.3]`.

    Raises
    ------
    InvalidContent
        ``dicom-bulk``.
    """
    element = tree.get(_PIXEL_DATA)
    uri = element.get("BulkDataURI") if isinstance(element, Mapping) else None
    if uri is None:
        return str(ExplicitVRLittleEndian)
    found = _brought(_PIXEL_DATA, uri, parts)
    kinds = {(one.media_type, one.transfer_syntax) for one in found}
    [(kind, syntax), *others] = kinds
    offered = (str(ExplicitVRLittleEndian),) if kind == OCTETS else _VIDEOS.get(kind) or MEDIA_TYPES.get(kind)
    if others or offered is None:
        raise _bulk(_PIXEL_DATA, "pixels d’un type de contenu inconnu, ou de plusieurs")
    meta = tree.get(_TRANSFER_SYNTAX)
    values = meta.get("Value") if isinstance(meta, Mapping) else None
    if syntax is None and isinstance(values, list) and values and kind != OCTETS:
        syntax = values[0]
    if syntax is not None and syntax not in offered:
        raise _bulk(_PIXEL_DATA, "syntaxe de transfert étrangère au type de contenu")
    return syntax or offered[0]


def _brought(tag: str, uri: Any, parts: Parts) -> Sequence[Part]:
    found = parts(uri) if isinstance(uri, str) else ()
    if not found:
        raise _bulk(tag, "BulkDataURI ne désigne aucune partie de cette demande")
    return found


class _Writing:
    """One data set on its way."""

    def __init__(self, parts: Parts, transfer_syntax: str) -> None:
        self._parts = parts
        self._compressed = transfer_syntax != ExplicitVRLittleEndian

    def data_set(self, tree: Mapping[str, Any], depth: int) -> Iterator[bytes | Part]:
        if depth > _MAX_DEPTH:
            raise InvalidContent("dicom-data-set", f"Plus de {_MAX_DEPTH} séquences l’une dans l’autre.", rule=True)
        if len({tag.upper() for tag in tree}) != len(tree):
            raise InvalidContent("dicom-data-set", "Attribut répété.", rule=True)
        for name in sorted(tree, key=str.upper):
            tag = name.upper()
            group = int(tag[:4], 16) if _TAG.fullmatch(tag) else 0
            if group < 8 or group >= 0xFFFE:
                raise _refused(tag, "numéro d’attribut invalide")
            if not tag.endswith("0000") and not (depth and tag == _CHARACTER_SET):
                yield from self._element(tag, tree[name], tree, depth)

    def _element(self, tag: str, element: Any, tree: Mapping[str, Any], depth: int) -> Iterator[bytes | Part]:
        if not isinstance(element, Mapping) or len(element.keys() & _SAID) > 1:
            raise _refused(tag, "élément illisible")
        vr = element.get("vr")
        if not isinstance(vr, str) or vr not in _TYPES:
            raise _refused(tag, "type (vr) inconnu")
        if vr != "UN" and vr not in _types(tag):
            raise _refused(tag, "type (vr) autre que celui du dictionnaire")
        if "BulkDataURI" in element:
            yield from self._bulk(tag, vr, _brought(tag, element["BulkDataURI"], self._parts), tree, depth)
        elif vr == "SQ":
            yield from self._sequence(tag, element, depth)
        elif tag == _PIXEL_DATA and depth == 0 and self._compressed:
            raise _refused(tag, "pixels attendus à part")
        else:
            yield _whole(tag, vr, _inline(tag, vr, element))

    def _sequence(self, tag: str, element: Mapping[str, Any], depth: int) -> Iterator[bytes | Part]:
        items = element.get("Value", [])
        if "InlineBinary" in element or not isinstance(items, list):
            raise _refused(tag, "séquence illisible")
        yield _head(tag, "SQ", _UNDEFINED if items else 0)
        for item in items:
            if not isinstance(item, Mapping) and item is not None:
                raise _refused(tag, "élément de séquence illisible")
            yield _ITEM
            yield from self.data_set(item or {}, depth + 1)
            yield _ITEM_END
        if items:
            yield _SEQUENCE_END

    def _bulk(
        self, tag: str, vr: str, parts: Sequence[Part], tree: Mapping[str, Any], depth: int
    ) -> Iterator[bytes | Part]:
        if tag == _PIXEL_DATA and depth == 0 and self._compressed:
            yield from _fragments(parts, tree)
            return
        unit = _UNITS.get(vr)
        # A document says what it is by its media type, which (0042,0012) repeats.
        plain = all(one.media_type == OCTETS for one in parts) or tag == _DOCUMENT
        if len(parts) != 1 or not plain or unit is None:
            raise _bulk(tag, "une seule partie application/octet-stream attendue")
        [one] = parts
        if one.length % unit:
            raise _bulk(tag, "longueur qui n’est pas un multiple de celle de son type")
        yield _head(tag, vr, one.length + one.length % 2)
        yield one
        if one.length % 2:
            yield b" " if vr in _TEXTS else b"\0"


def _fragments(parts: Sequence[Part], tree: Mapping[str, Any]) -> Iterator[bytes | Part]:
    """Write compressed pixels: no offset table, one fragment a frame, or one for all of a video `[PS3.5 A.4]`."""
    element = tree.get(_FRAMES)
    values = element.get("Value") if isinstance(element, Mapping) else None
    frames = str(values[0]).strip() if isinstance(values, list) and values else "1"
    expected = 1 if parts[0].media_type in _VIDEOS else int(frames) if re.fullmatch("[0-9]{1,9}", frames) else 0
    if len(parts) != expected:
        raise _bulk(_PIXEL_DATA, "autant de parties que d’images attendues")
    yield _head(_PIXEL_DATA, "OB", _UNDEFINED)
    yield b"\xfe\xff\x00\xe0\0\0\0\0"
    for one in parts:
        length = one.length + one.length % 2
        if length > _MAX_LONG:
            raise _bulk(_PIXEL_DATA, "image trop longue")
        yield b"\xfe\xff\x00\xe0" + struct.pack("<L", length)
        yield one
        if one.length % 2:
            yield b"\0"
    yield _SEQUENCE_END


_ITEM: Final = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
_ITEM_END: Final = b"\xfe\xff\x0d\xe0\0\0\0\0"
_SEQUENCE_END: Final = b"\xfe\xff\xdd\xe0\0\0\0\0"


def _types(tag: str) -> Collection[str]:
    """Value types that the dictionary gives an attribute; all of one that it does not know."""
    try:
        said = dictionary_VR(int(tag, 16))
    except KeyError:
        return _TYPES
    return said.split(" or ")


def _head(tag: str, vr: str, length: int) -> bytes:
    number = struct.pack("<HH", int(tag[:4], 16), int(tag[4:], 16))
    if vr in _LONG:
        if length > _MAX_LONG and length != _UNDEFINED:
            raise _refused(tag, "valeur trop longue")
        return number + vr.encode("ascii") + b"\0\0" + struct.pack("<L", length)
    if length > _MAX_SHORT:
        raise _refused(tag, "valeur trop longue pour son type")
    return number + vr.encode("ascii") + struct.pack("<H", length)


def _whole(tag: str, vr: str, value: bytes) -> bytes:
    if len(value) % 2:
        value += b" " if vr in _TEXTS and vr != "UI" else b"\0"
    return _head(tag, vr, len(value)) + value


def _inline(tag: str, vr: str, element: Mapping[str, Any]) -> bytes:
    """Give the bytes of a value that stands in the metadata."""
    try:
        return _binary(vr, element["InlineBinary"]) if "InlineBinary" in element else _values(vr, element.get("Value"))
    except (ValueError, TypeError, AttributeError, struct.error, OverflowError) as error:
        raise _refused(tag, f"valeur qui n’est pas du type {vr}") from error


def _binary(vr: str, encoded: Any) -> bytes:
    value = base64.b64decode(encoded, validate=True)
    if len(value) % _BINARY.get(vr, len(value) + 1):
        raise ValueError(vr)
    return value


def _values(vr: str, values: Any) -> bytes:
    if values is None:
        return b""
    if not isinstance(values, list) or (values and vr in _BINARY) or (vr in _ONE_TEXT and len(values) > 1):
        raise ValueError(vr)
    if vr in _NUMBERS:
        written = bytearray()  # never a list of as many small objects
        for one in values:
            written += struct.pack(_NUMBERS[vr], _number(vr, one))
        return bytes(written)
    if vr == "AT":
        return b"".join(struct.pack("<HH", int(one[:4], 16), int(one[4:], 16)) for one in map(_attribute, values))
    return "\\".join(_text(vr, one) for one in values).encode()


def _attribute(value: Any) -> str:
    if not isinstance(value, str) or not _TAG.fullmatch(value):
        raise ValueError
    return value


def _number(vr: str, value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError(vr)
    if vr in ("FL", "FD"):
        return float(value)
    if isinstance(value, str) and not re.fullmatch(r"[+-]?[0-9]{1,20}", value):
        raise ValueError(vr)
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(vr)
    return int(value)


def _text(vr: str, value: Any) -> str:
    if value is None:
        return ""
    if vr == "PN":
        return _name(value)
    if isinstance(value, bool) or not isinstance(value, (str, *((int, float) if vr in ("DS", "IS") else ()))):
        raise TypeError(vr)
    if isinstance(value, float) and vr == "DS":
        if not math.isfinite(value):
            raise ValueError(vr)
        value = repr(value) if len(repr(value)) <= 16 else format_number_as_ds(value)
    elif not isinstance(value, str):
        value = str(int(_number(vr, value)))
    expected = {"DS": _DS, "IS": _IS, "UI": _UID_CHARACTERS}.get(vr)
    if expected is not None and value and not expected.fullmatch(value):
        raise ValueError(vr)
    if (_CONTROL_BUT_LINES if vr in ("LT", "ST", "UT") else _CONTROL).search(value):
        raise ValueError(vr)
    if "\\" in value and vr not in _ONE_TEXT:
        raise ValueError(vr)
    return str(value)


def _name(value: Any) -> str:
    """Write the groups of a person's name `[PS3.5 6.2.1]`."""
    if not isinstance(value, Mapping) or not value.keys() <= {"Alphabetic", "Ideographic", "Phonetic"}:
        raise TypeError
    groups = [_text("LO", value.get(group)) for group in ("Alphabetic", "Ideographic", "Phonetic")]
    if any("=" in group for group in groups):
        raise ValueError
    return "=".join(groups).rstrip("=")


def _refused(tag: str, what: str) -> InvalidContent:
    shown = tag if _TAG.fullmatch(tag) else "?"
    return InvalidContent("dicom-data-set", f"Attribut {shown} : {what}.", expression=shown, rule=True)


def _bulk(tag: str, what: str) -> InvalidContent:
    return InvalidContent("dicom-bulk", f"Attribut {tag} : {what}.", expression=tag, rule=True)
