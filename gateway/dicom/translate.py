"""A received object → what it says: canonical facts, and the DICOM JSON that queries and metadata return.

Promises: reads neither pixels nor bulk values into memory; a value against its type is dropped and named, never
guessed; touches no socket, session or clock. Does not judge whether the patient is known: `gateway.rcp.imaging` does.

Sources: `[PS3.3 C.7]` modules, `[PS3.5 6.2]` value types, `[PS3.18 F]` DICOM JSON model.
"""

from __future__ import annotations

import logging
import re
import warnings
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import msgspec
import pydicom
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from gateway.dicom.attributes import day_key, name_key, time_key
from gateway.dicom.command import is_uid
from gateway.dicom.repeated import Made, Raw, Watched
from gateway.dicom.succession import HEAD_BYTES, Succession
from gateway.errors import InvalidContent
from gateway.identifiers import Oid
from gateway.rcp.facts import IdentifierFact, Sex
from gateway.rcp.imaging_facts import ImagedPatientFacts, InstanceFacts, ObjectFacts, SeriesFacts, StudyFacts

__all__ = ["PARIS", "read", "read_early"]

T = TypeVar("T")

PARIS: Final = ZoneInfo("Europe/Paris")

# Values longer than this are left in the file: never in the JSON unless they are sequences.
_DEFER_BYTES: Final = 64 * 1024
# A deflated data set is inflated whole by the reader; beyond this it is refused.
MAX_INFLATED_BYTES: Final = 256 << 20
_BINARY: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_MAX_BINARY_BYTES: Final = 1024

_CHARACTER_SET: Final = 0x00080005
#: The element of the pixels, and its type where the file says none [PS3.6 6].
_PIXELS: Final = {0x7FE00008: "OF", 0x7FE00009: "OD", 0x7FE00010: "OW"}
_SOP_INSTANCE_UID: Final = 0x00080018

# An index takes no longer value.
_MAX_SEARCHED: Final = 1024

_DATE: Final = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})")
_TIME: Final = re.compile(r"(\d{2}):?(?:(\d{2}):?(?:(\d{2})(?:\.\d{1,6})?)?)?")
_OFFSET: Final = re.compile(r"([+-])(\d{2})(\d{2})")
_URI: Final = re.compile(r"(?:https?://|urn:)\S+", re.IGNORECASE)
_SEXES: Final = {"F": Sex.FEMALE, "M": Sex.MALE}

# Senders break value rules daily; what matters is judged here, attribute by attribute.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
# Its warnings and log records quote the values they complain about, which may be a patient's.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module=r"pydicom(\..*)?")


def read(source: Path | BinaryIO, *, zone: tzinfo = PARIS) -> ObjectFacts:
    """Read one Part 10 file.

    Parameters
    ----------
    zone
        For times without (0008,0201) Timezone Offset From UTC.

    Raises
    ------
    InvalidContent
        ``dicom-unreadable``, ``dicom-too-large``, ``dicom-missing-uid`` (``rule``).
    """
    # What the reader raises depends on what the bytes led it to: anything at all means unreadable.
    try:
        head = _head(source)
        found = _SUCCESSION.following(head, zone)
        if found is not None:
            return found
        _refuse_deflate_bomb(source)
        with source.open("rb") if isinstance(source, Path) else nullcontext(source) as file:
            return _facts(*_before_pixels(file), head, zone)
    except InvalidContent:
        raise
    except Exception as error:
        raise InvalidContent("dicom-unreadable", "Objet DICOM illisible.") from error


def read_early(path: Path, head: bytes, *, zone: tzinfo = PARIS) -> ObjectFacts | None:
    """Read an object that is still being written: what `read` will say if its pixels have begun, or else None.

    Nothing is refused here: what is odd about it is `read`'s to say when it is whole.

    Parameters
    ----------
    head
        Its first `gateway.dicom.succession.HEAD_BYTES`.
    """
    try:
        found = _SUCCESSION.following(head, zone)
        if found is not None:
            return found
        _refuse_deflate_bomb(path)
        with path.open("rb") as file:
            ds, pixels = _before_pixels(file)
        return _facts(ds, pixels, head, zone) if pixels is not None else None
    except Exception:  # noqa: BLE001 - as in `read`
        return None


class _Begun(NamedTuple):
    """How the element of an object's pixels begins; a length of its own or not."""

    tag: int
    vr: str | None
    length: int


def _before_pixels(file: BinaryIO) -> tuple[FileDataset, _Begun | None]:
    """Read what stands before the pixels; None when there are none."""
    begun: list[_Begun] = []

    def at_pixels(tag: int, vr: str | None, length: int) -> bool:
        if tag in _PIXELS:
            begun.append(_Begun(int(tag), vr, length))
        return bool(begun)

    ds = read_partial(file, at_pixels, defer_size=_DEFER_BYTES)
    return ds, begun[0] if begun else None


def _head(source: Path | BinaryIO) -> bytes:
    if isinstance(source, Path):
        with source.open("rb", buffering=0) as file:
            return file.read(HEAD_BYTES)
    start = source.tell()
    head = source.read(HEAD_BYTES)
    source.seek(start)
    return head


def _facts(ds: FileDataset, pixels: _Begun | None, head: bytes, zone: tzinfo) -> ObjectFacts:
    raw = Raw(ds)
    own = Watched(ds)
    said = _Attributes(own)
    identifiers = _uids(ds, said)
    series_name = (identifiers["SeriesInstanceUID"], zone)
    shared, asked = _SHARED.of(series_name, ds, raw, partial(_shared, identifiers=identifiers, zone=zone))
    instance = _instance(said, identifiers)
    members = _members(ds, raw, pixels)
    facts = ObjectFacts(
        patient=shared.patient,
        study=shared.study,
        series=shared.series,
        instance=instance,
        dicom_json=b"{" + b",".join([b'"%08X":%s' % (tag, members[tag]) for tag in sorted(members)]) + b"}",
        unreadable=tuple(sorted(said.unreadable | shared.unreadable)),
    )
    _SUCCESSION.remember(head, zone, facts, raw.depended_on([*asked, *own.asked]), members)
    return facts


class _Shared(NamedTuple):
    """What the objects of a series say alike, as a rule."""

    patient: ImagedPatientFacts
    study: StudyFacts
    series: SeriesFacts
    unreadable: frozenset[str]


_SHARED: Final[Made[_Shared]] = Made(1024)


def _shared(ds: Watched, *, identifiers: dict[str, str], zone: tzinfo) -> _Shared:
    said = _Attributes(ds)
    said.uid("StudyInstanceUID")
    return _Shared(
        _patient(said),
        _study(said, identifiers, zone),
        _series(said, identifiers, zone),
        frozenset(said.unreadable),
    )


def _refuse_deflate_bomb(source: Path | BinaryIO) -> None:
    """Inflate a deflated data set piecewise first: the reader would take it whole."""
    with source.open("rb") if isinstance(source, Path) else nullcontext(source) as file:
        start = file.tell()
        # Preamble, prefix, then the group length, as `part10_head` writes them.
        meta = file.read(min(int.from_bytes(file.read(144)[140:144], "little"), _DEFER_BYTES))
        if DeflatedExplicitVRLittleEndian.encode("ascii") in meta:
            inflater, inflated = zlib.decompressobj(-zlib.MAX_WBITS), 0
            while chunk := file.read(64 * 1024):
                while chunk:
                    inflated += len(inflater.decompress(chunk, 1 << 20))
                    chunk = inflater.unconsumed_tail
                    if inflated > MAX_INFLATED_BYTES:
                        text = f"Objet DICOM de plus de {MAX_INFLATED_BYTES} octets une fois décompressé."
                        raise InvalidContent("dicom-too-large", text)
        file.seek(start)


class _Attributes:
    """First values of attributes by keyword, as plain types; what is against its type is dropped and named."""

    def __init__(self, ds: Dataset | Watched, unreadable: set[str] | None = None) -> None:
        self._ds = ds
        self.unreadable: set[str] = set() if unreadable is None else unreadable

    def _first(self, keyword: str, convert: Callable[[str], T | None]) -> T | None:
        try:
            value = self._ds.get(keyword)
            if isinstance(value, (list, pydicom.multival.MultiValue)):
                value = value[0] if len(value) else None
            text = "" if value is None else str(value).replace("\0", "").strip()
            if not text:
                return None
            converted = convert(text)
        except Exception:  # noqa: BLE001 - as in `read`
            converted = None
        if converted is None:
            self.unreadable.add(keyword)
        return converted

    def text(self, keyword: str) -> str | None:
        return self._first(keyword, str)

    def form(self, keyword: str, form: Callable[[str], str | None]) -> str | None:
        return self._first(keyword, form)

    def uid(self, keyword: str) -> str | None:
        return self._first(keyword, lambda text: text if is_uid(text) else None)

    def number(self, keyword: str) -> int | None:
        return self._first(keyword, _whole)

    def day(self, keyword: str) -> date | None:
        return self._first(keyword, _day)

    def clock(self, keyword: str) -> time | None:
        return self._first(keyword, _clock)

    def instant(self, step: str, zone: tzinfo) -> datetime | date | None:
        """``{step}Date`` with ``{step}Time``; the date alone when no time is said [PS3.3 C.12.1.1.8]."""
        day, clock = self.day(f"{step}Date"), self.clock(f"{step}Time")
        if day is None or clock is None:
            return day
        return datetime.combine(day, clock, self._first("TimezoneOffsetFromUTC", _offset) or zone)

    def items(self, keyword: str) -> list[_Attributes]:
        try:
            return [_Attributes(item, self.unreadable) for item in self._ds.get(keyword) or ()]
        except Exception:  # noqa: BLE001 - as in `read`
            self.unreadable.add(keyword)
            return []


def _whole(text: str) -> int | None:
    number = int(float(text))
    return number if abs(number) < 1 << 31 else None  # IS holds no more [PS3.5 6.2], and neither does the index


def _day(text: str) -> date | None:
    found = _DATE.fullmatch(text)
    return date(*map(int, found.groups())) if found else None


def _clock(text: str) -> time | None:
    found = _TIME.fullmatch(text)
    if not found:
        return None
    hour, minute, second = (int(part or 0) for part in found.groups())
    return time(hour, minute, min(second, 59))  # 60 is a leap second


def _offset(text: str) -> tzinfo | None:
    found = _OFFSET.fullmatch(text)
    if not found:
        return None
    shift = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return timezone(-shift if found[1] == "-" else shift)


def _uids(ds: Dataset, said: _Attributes) -> dict[str, str]:
    keywords = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
    found = {keyword: said.uid(keyword) for keyword in keywords}
    found["TransferSyntaxUID"] = str(ds.file_meta.get("TransferSyntaxUID", "")) or None
    for keyword, uid in found.items():
        if uid is None:
            text = f"Objet DICOM sans {keyword} valide."
            raise InvalidContent("dicom-missing-uid", text, expression=keyword, rule=True)
    return {keyword: uid for keyword, uid in found.items() if uid is not None}


def _domain(said: _Attributes, sequence: str, text_keyword: str | None = None) -> tuple[str, str | None]:
    """System of an identifier's issuer as a URI, empty when none is named; and the local name if that is all.

    The qualifiers sequence decides (an OID by type ISO, a URI); the text counts only when it is itself an OID or a URI.
    """
    for item in said.items(sequence):
        entity, kind = item.text("UniversalEntityID"), (item.text("UniversalEntityIDType") or "").upper()
        if entity and kind in ("ISO", "") and not Oid.from_wire(entity).faults:
            return Oid.from_wire(entity).urn, None
        if entity and kind in ("URI", "") and _URI.fullmatch(entity):
            return entity, None
        if entity and kind == "UUID":
            return f"urn:uuid:{entity.lower()}", None
    text = said.text(text_keyword) if text_keyword else None
    if text and not Oid.from_wire(text).faults:
        return Oid.from_wire(text).urn, None
    if text and _URI.fullmatch(text):
        return text, None
    return "", text


def _patient(said: _Attributes) -> ImagedPatientFacts:
    def identifier(level: _Attributes) -> tuple[IdentifierFact | None, str | None]:
        value = level.text("PatientID")
        system, text = _domain(level, "IssuerOfPatientIDQualifiersSequence", "IssuerOfPatientID")
        return (IdentifierFact(system=system, value=value) if value else None), text

    patient_id, issuer_text = identifier(said)
    others = [identifier(item)[0] for item in said.items("OtherPatientIDsSequence")]
    # Alphabetic group, family^given^middle^prefix^suffix [PS3.5 6.2.1].
    name = (said.text("PatientName") or "").split("=")[0].split("^")
    return ImagedPatientFacts(
        patient_id=patient_id,
        others=tuple(other for other in others if other is not None and other.system and other != patient_id),
        issuer_text=issuer_text,
        family=name[0].strip() or None,
        given=(name[1].strip() or None) if len(name) > 1 else None,
        birth_date=said.day("PatientBirthDate"),
        sex=_SEXES.get((said.text("PatientSex") or "").upper(), Sex.UNKNOWN),
    )


def _study(said: _Attributes, uids: dict[str, str], zone: tzinfo) -> StudyFacts:
    orders = _orders(said)
    referrer = (said.text("ReferringPhysicianName") or "").split("=")[0]
    return StudyFacts(
        study_instance_uid=uids["StudyInstanceUID"],
        accession=orders[0] if said.text("AccessionNumber") else None,
        orders=orders,
        description=said.text("StudyDescription"),
        referring_physician=" ".join(part for part in referrer.split("^") if part) or None,
        started=said.instant("Study", zone),
        searched=_searched(said, _STUDY_SEARCHED),
    )


#: Attributes that number an order, with their issuer's sequence [PS3.3 C.4.11, C.4.12, C.7.2.1].
_ORDERS: Final = (
    ("ACSN", "AccessionNumber", "IssuerOfAccessionNumberSequence"),
    ("PLAC", "PlacerOrderNumberImagingServiceRequest", "OrderPlacerIdentifierSequence"),
    ("FILL", "FillerOrderNumberImagingServiceRequest", "OrderFillerIdentifierSequence"),
)


def _orders(said: _Attributes) -> tuple[IdentifierFact, ...]:
    """Numbers of what the study answers, its own before those of its requested procedures [PS3.3 10.6]."""
    found = [
        IdentifierFact(system=_domain(level, issuer)[0], value=value, kind=kind)
        for level in (said, *said.items("RequestAttributesSequence"))
        for kind, keyword, issuer in _ORDERS
        if (value := level.text(keyword)) is not None
    ]
    return tuple(dict.fromkeys(found))


def _series(said: _Attributes, uids: dict[str, str], zone: tzinfo) -> SeriesFacts:
    return SeriesFacts(
        series_instance_uid=uids["SeriesInstanceUID"],
        modality=said.text("Modality"),
        number=said.number("SeriesNumber"),
        description=said.text("SeriesDescription"),
        body_part_examined=said.text("BodyPartExamined"),
        laterality=said.text("Laterality"),
        started=said.instant("Series", zone),
        searched=_searched(said, _SERIES_SEARCHED)
        | next((_searched(item, _REQUEST_SEARCHED) for item in said.items("RequestAttributesSequence")), {}),
    )


#: Column → attribute and the form that searches compare (`gateway.dicom.attributes`).
_Searched = dict[str, tuple[str, Callable[[str], str | None]]]
_STUDY_SEARCHED: Final[_Searched] = {
    "patient_name": ("PatientName", name_key),
    "patient_birth_date": ("PatientBirthDate", day_key),
    "patient_sex": ("PatientSex", str),
    "issuer_of_patient_id": ("IssuerOfPatientID", str),
    "study_id": ("StudyID", str),
    "study_date": ("StudyDate", day_key),
    "study_time": ("StudyTime", time_key),
    "referring_physician_name": ("ReferringPhysicianName", name_key),
}
_SERIES_SEARCHED: Final[_Searched] = {
    "series_date": ("SeriesDate", day_key),
    "series_time": ("SeriesTime", time_key),
    "performed_procedure_step_start_date": ("PerformedProcedureStepStartDate", day_key),
    "performed_procedure_step_start_time": ("PerformedProcedureStepStartTime", time_key),
}
_REQUEST_SEARCHED: Final[_Searched] = {
    "scheduled_procedure_step_id": ("ScheduledProcedureStepID", str),
    "requested_procedure_id": ("RequestedProcedureID", str),
}


def _searched(said: _Attributes, columns: _Searched) -> dict[str, str]:
    found = {column: said.form(keyword, form) for column, (keyword, form) in columns.items()}
    return {column: value[:_MAX_SEARCHED] for column, value in found.items() if value}


def _instance(said: _Attributes, uids: dict[str, str]) -> InstanceFacts:
    rows, columns = said.number("Rows"), said.number("Columns")
    pictured = rows and columns
    return InstanceFacts(
        sop_instance_uid=uids["SOPInstanceUID"],
        sop_class_uid=uids["SOPClassUID"],
        transfer_syntax_uid=uids["TransferSyntaxUID"],
        number=said.number("InstanceNumber"),
        number_of_frames=(said.number("NumberOfFrames") or 1) if pictured else None,
        rows=rows,
        columns=columns,
    )


#: JSON of an attribute by its bytes; empty when it is left out.
_ENCODED: Final[dict[Any, bytes]] = {}
_MOST_ENCODED: Final = 20_000
# Of the JSON, whatever the object's was.
_UTF8: Final = b'{"vr":"CS","Value":["ISO_IR 192"]}'


def _members(ds: FileDataset, raw: Raw, pixels: _Begun | None) -> dict[int, bytes]:
    """Encode the object's DICOM JSON `[PS3.18 F.2]`, pixels and bulk by address.

    No attribute that cannot be read, and no group length.
    """
    members = {_CHARACTER_SET: _UTF8}
    if pixels is not None:
        vr = pixels.vr if pixels.vr in _BINARY else _PIXELS[pixels.tag]
        members[pixels.tag] = _elsewhere(pixels.tag, vr) if pixels.length else b'{"vr":"%s"}' % vr.encode("ascii")
    for tag in raw.tags():
        if not tag & 0xFFFF:
            continue
        key = raw.key(tag)
        encoded = _ENCODED.get(key) if key is not None else None
        if encoded is None:
            encoded = _encoded(ds, tag)
            if key is not None and tag != _SOP_INSTANCE_UID:
                if len(_ENCODED) >= _MOST_ENCODED:
                    _ENCODED.clear()
                _ENCODED[key] = encoded
        if encoded and tag != _CHARACTER_SET:
            members[tag] = encoded
    return members


def _elsewhere(tag: int, vr: str) -> bytes:
    """Say where a value is, below the object's own address: `gateway.dicom.query` puts that before it."""
    return b'{"vr":"%s","BulkDataURI":"bulkdata/%08X"}' % (vr.encode("ascii", "replace"), tag)


def _encoded(ds: FileDataset, tag: int) -> bytes:
    raw = ds.get_item(tag, keep_deferred=True)
    if isinstance(raw, RawDataElement) and raw.value is None and raw.length and raw.VR not in ("SQ", None):
        return _elsewhere(tag, raw.VR or "UN")  # deferred: longer than _DEFER_BYTES
    try:
        element = ds[tag]
        if element.VR in _BINARY and len(element.value or b"") > _MAX_BINARY_BYTES:
            return _elsewhere(tag, element.VR)
        said = element.to_json_dict(None, 0)
        if element.VR == "SQ":
            _drop_group_lengths(said)
        return msgspec.json.encode(said, enc_hook=_plain)
    except RecursionError:
        raise
    except Exception:  # noqa: BLE001 - one attribute against its type does not hide the others
        return b""


def _drop_group_lengths(said: dict[str, Any]) -> None:
    """Take them out of the items of a sequence, whatever their depth."""
    for item in said.get("Value", ()):
        for name in [name for name in item if name.endswith("0000")]:
            del item[name]
        for member in item.values():
            if member["vr"] == "SQ":
                _drop_group_lengths(member)


def _converted(tag: int, vr: str, value: bytes) -> bytes:
    """Encode one attribute from its bytes alone."""
    raw = RawDataElement(BaseTag(tag), vr, len(value), value, 0, is_implicit_VR=False, is_little_endian=True)
    return msgspec.json.encode(convert_raw_data_element(raw).to_json_dict(None, 0), enc_hook=_plain)


_SUCCESSION: Final = Succession(_converted)


def _plain(value: Any) -> str | float | int:
    """Give the library's own kinds of str, float and int as what they are."""
    for kind in (str, float, int):
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(type(value).__name__)
