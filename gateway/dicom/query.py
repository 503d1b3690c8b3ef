"""What a viewer may find and fetch: studies, series and instances that exist for its caller `[PS3.18 10.6]`.

Promises: the access predicate stands in every statement; DICOM JSON is made at ingest and only spliced here; the same
object received from two partners is shown once. Nothing here opens a file or answers HTTP.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, and_, func, or_, select

from gateway.dicom.command import is_uid
from gateway.dicom.translate import PARIS
from gateway.errors import InvalidContent
from gateway.model.imaging import Instance, Series, Study
from gateway.model.reads import Reads
from gateway.rcp import access
from gateway.rcp.access import Caller

__all__ = ["MAX_INSTANCES", "MAX_MATCHES", "Found", "Images", "Page"]

MAX_MATCHES: Final = 1000
MAX_INSTANCES: Final = 20_000
_DEFAULT_MATCHES: Final = 100

# Attributes of a query's answer beside what is counted and spliced [PS3.18 tables 10.6.3-3, -4].
_STUDY_TAGS: Final = (
    *("00080020", "00080030", "00080050", "00080051", "00080090", "00080201", "00081030", "0020000D", "00200010"),
    *("00100010", "00100020", "00100021", "00100024", "00100030", "00100040"),
)
_SERIES_TAGS: Final = ("00080021", "00080031", "00080060", "00080201", "0008103E", "0020000E", "00200011", "00180015")

_DATE: Final = re.compile(r"(\d{8})?(-)?(\d{8})?")


@dataclass(frozen=True, slots=True)
class Found:
    """One instance that the caller may see, and where its bytes are."""

    study_uid: str
    series_uid: str
    instance_uid: str
    transfer_syntax_uid: str
    sha256: str
    size_bytes: int
    record_id: uuid.UUID | None
    pictured: bool


@dataclass(frozen=True, slots=True)
class Page:
    """How many matches, from where: ``limit`` and ``offset`` `[PS3.18 8.3.4.4]`."""

    limit: int = _DEFAULT_MATCHES
    offset: int = 0


def _text(column: Any) -> Callable[[str], ColumnElement[bool]]:
    """Match a value with ``*`` and ``?`` as wildcards `[PS3.4 C.2.2.2.4]`, without regard to case."""

    def match(value: str) -> ColumnElement[bool]:
        escaped = value.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        return func.lower(column).like(escaped.replace("*", "%").replace("?", "_").lower(), escape="\\")

    return match


def _uids(column: Any) -> Callable[[str], ColumnElement[bool]]:
    """Match one UID or a list `[PS3.4 C.2.2.2.2]`."""

    def match(value: str) -> ColumnElement[bool]:
        wanted = value.replace("\\", ",").split(",")
        if not all(is_uid(uid) for uid in wanted):
            raise InvalidContent("dicom-query", "Liste d’UID invalide.")
        return or_(*(column == uid for uid in wanted))

    return match


def _number(column: Any) -> Callable[[str], ColumnElement[bool]]:
    def match(value: str) -> ColumnElement[bool]:
        if not re.fullmatch(r"-?\d{1,9}", value):
            raise InvalidContent("dicom-query", "Nombre invalide.")
        equal: ColumnElement[bool] = column == int(value)
        return equal

    return match


def _study_date(value: str) -> ColumnElement[bool]:
    """Match a day or a range of days `[PS3.4 C.2.2.2.5]`, in Paris's days."""
    found = _DATE.fullmatch(value)
    try:
        first, last = (_midnight(found[1]), _midnight(found[3])) if found else (None, None)
    except ValueError:
        first = last = None
        found = None
    if found is None or (first is None and last is None):
        raise InvalidContent("dicom-query", "Date invalide : AAAAMMJJ, ou un intervalle avec « - ».")
    if not found[2]:
        last = first
    bounds: list[ColumnElement[bool]] = []
    if first is not None:
        bounds.append(or_(Study.started_at >= first, Study.started_on >= first.astimezone(PARIS).date()))
    if last is not None:
        after = last + timedelta(days=1, hours=2)  # the change of hour never makes a day longer than 25 hours
        after = datetime.combine(after.astimezone(PARIS).date(), datetime.min.time(), PARIS)
        bounds.append(or_(Study.started_at < after.astimezone(UTC), Study.started_on <= last.astimezone(PARIS).date()))
    return and_(*bounds)


def _midnight(day: str | None) -> datetime | None:
    return datetime.strptime(day, "%Y%m%d").replace(tzinfo=PARIS).astimezone(UTC) if day else None


_name: Final = func.concat(Study.traits["family"].astext, "^", Study.traits["given"].astext)

#: Level → attribute (keyword and tag) → how a value of it matches.
_KEYS: Final[Mapping[str, Mapping[str, Callable[[str], ColumnElement[bool]]]]] = {
    "study": {
        "StudyInstanceUID": _uids(Study.study_instance_uid),
        "PatientID": _text(Study.patient_id),
        "PatientName": _text(_name),
        "AccessionNumber": _text(Study.accession_number),
        "StudyDescription": _text(Study.study_description),
        "StudyDate": _study_date,
        "ModalitiesInStudy": lambda value: Study.modalities.contains([value]),
    },
    "series": {
        "SeriesInstanceUID": _uids(Series.series_instance_uid),
        "Modality": _text(Series.modality),
        "SeriesNumber": _number(Series.series_number),
        "SeriesDescription": _text(Series.series_description),
    },
    "instance": {
        "SOPInstanceUID": _uids(Instance.sop_instance_uid),
        "SOPClassUID": _uids(Instance.sop_class_uid),
        "InstanceNumber": _number(Instance.instance_number),
    },
}
_TAGS: Final = {
    "0020000D": "StudyInstanceUID",
    "00100020": "PatientID",
    "00100010": "PatientName",
    "00080050": "AccessionNumber",
    "00081030": "StudyDescription",
    "00080020": "StudyDate",
    "00080061": "ModalitiesInStudy",
    "0020000E": "SeriesInstanceUID",
    "00080060": "Modality",
    "00200011": "SeriesNumber",
    "0008103E": "SeriesDescription",
    "00080018": "SOPInstanceUID",
    "00080016": "SOPClassUID",
    "00200013": "InstanceNumber",
}


def _criteria(level: str, asked: Sequence[tuple[str, str]]) -> tuple[list[ColumnElement[bool]], Page]:
    """Read the query string; a key that cannot be matched is refused by name rather than left out in silence."""
    levels = {"study": ("study",), "series": ("study", "series"), "instance": ("study", "series", "instance")}[level]
    known = {name: match for one in levels for name, match in _KEYS[one].items()}
    wanted: list[ColumnElement[bool]] = []
    numbers = {"limit": _DEFAULT_MATCHES, "offset": 0}
    for key, value in asked:
        if "\x00" in value:  # no text of PostgreSQL holds it
            raise InvalidContent("dicom-query", "Valeur de recherche invalide.")
        if key in numbers:
            if not value.isascii() or not value.isdigit() or len(value) > 9:
                raise InvalidContent("dicom-query", f"Paramètre « {key} » invalide.", expression=key)
            numbers[key] = int(value)
        elif key not in ("includefield", "fuzzymatching", "accept"):
            match = known.get(_TAGS.get(key.upper(), key))
            if match is None:
                raise InvalidContent("dicom-query", f"Recherche par « {key[:64]} » non offerte.", expression=key[:64])
            if value and value != "*":
                wanted.append(match(value))
    return wanted, Page(min(numbers["limit"], MAX_MATCHES), numbers["offset"])


class Images:
    """Queries of one process.

    Parameters
    ----------
    reads
        The asynchronous read path.
    """

    def __init__(self, reads: Reads) -> None:
        self.reads = reads

    async def studies(
        self, caller: Caller, asked: Sequence[tuple[str, str]], base: str
    ) -> tuple[bytes, set[uuid.UUID]]:
        """Answer a search for studies, and the records that the answer names."""
        wanted, page = _criteria("study", asked)
        counted = func.count(Instance.id)
        statement = (
            select(
                Study.id,
                Study.study_instance_uid,
                Study.record_id,
                Study.modalities,
                func.count(func.distinct(Series.id)).label("series"),
                counted.label("instances"),
            )
            .join(Series, Series.study_id == Study.id)
            .join(Instance, Instance.series_id == Series.id)
            .where(access.studies(caller), *wanted)
            .group_by(Study.id)
            .order_by(Study.started_at.desc().nulls_last(), Study.id)
            .limit(page.limit)
            .offset(page.offset)
        )
        rows = await self.reads.fetch(statement)
        samples = await self._samples(Series.study_id, [row["id"] for row in rows])
        answers = [
            _answer(
                samples.get(row["id"]),
                _STUDY_TAGS,
                f"{base}/studies/{row['study_instance_uid']}",
                {
                    "00080061": ("CS", list(row["modalities"])),
                    "00201206": ("IS", [row["series"]]),
                    "00201208": ("IS", [row["instances"]]),
                },
            )
            for row in rows
        ]
        return _array(answers), {row["record_id"] for row in rows if row["record_id"]}

    async def series(
        self, caller: Caller, study_uid: str | None, asked: Sequence[tuple[str, str]], base: str
    ) -> tuple[bytes, set[uuid.UUID]]:
        """Answer a search for series, of one study or of all."""
        wanted, page = _criteria("series", asked)
        statement = (
            select(
                Series.id,
                Study.study_instance_uid,
                Series.series_instance_uid,
                Study.record_id,
                func.count(Instance.id).label("instances"),
            )
            .join(Study, Study.id == Series.study_id)
            .join(Instance, Instance.series_id == Series.id)
            .where(access.studies(caller), *_within(study_uid), *wanted)
            .group_by(Series.id, Study.id)
            .order_by(Study.id, Series.series_number.nulls_last(), Series.id)
            .limit(page.limit)
            .offset(page.offset)
        )
        rows = await self.reads.fetch(statement)
        samples = await self._samples(Instance.series_id, [row["id"] for row in rows])
        answers = [
            _answer(
                samples.get(row["id"]),
                (*_SERIES_TAGS, "0020000D"),
                f"{base}/studies/{row['study_instance_uid']}/series/{row['series_instance_uid']}",
                {"00201209": ("IS", [row["instances"]])},
            )
            for row in rows
        ]
        return _array(answers), {row["record_id"] for row in rows if row["record_id"]}

    async def instances(
        self,
        caller: Caller,
        study_uid: str | None,
        series_uid: str | None,
        asked: Sequence[tuple[str, str]],
        base: str,
    ) -> tuple[bytes, set[uuid.UUID]]:
        """Answer a search for instances: the stored JSON with its retrieve URL."""
        wanted, page = _criteria("instance", asked)
        statement = self._select(caller, study_uid, series_uid).add_columns(Instance.dicom_json)
        rows = await self.reads.fetch(statement.where(*wanted).limit(page.limit).offset(page.offset))
        answers = []
        for row in rows:
            url = (
                f"{base}/studies/{row['study_instance_uid']}/series/{row['series_instance_uid']}"
                f"/instances/{row['sop_instance_uid']}"
            )
            more = msgspec.json.encode({"00080056": _element("CS", ["ONLINE"]), "00081190": _element("UR", [url])})
            answers.append(bytes(row["dicom_json"])[:-1] + b"," + more[1:])
        return _array(answers), {row["record_id"] for row in rows if row["record_id"]}

    async def metadata(
        self, caller: Caller, study_uid: str, series_uid: str | None, instance_uid: str | None
    ) -> tuple[bytes, set[uuid.UUID]]:
        """Concatenate the stored JSON of a study, a series or an instance; empty records mean there is none."""
        statement = self._select(caller, study_uid, series_uid, instance_uid).add_columns(Instance.dicom_json)
        rows = _once(await self.reads.fetch(statement.limit(MAX_INSTANCES)))
        records = {row["record_id"] for row in rows if row["record_id"]}
        return (_array(bytes(row["dicom_json"]) for row in rows) if rows else b""), records

    async def find(
        self, caller: Caller, study_uid: str, series_uid: str | None = None, instance_uid: str | None = None
    ) -> list[Found]:
        """Find the instances of a study, a series, or one instance, in their order."""
        statement = self._select(caller, study_uid, series_uid, instance_uid).limit(MAX_INSTANCES)
        return [
            Found(
                row["study_instance_uid"],
                row["series_instance_uid"],
                row["sop_instance_uid"],
                row["transfer_syntax_uid"],
                row["sha256"],
                row["size_bytes"],
                row["record_id"],
                row["rows"] is not None,
            )
            for row in _once(await self.reads.fetch(statement))
        ]

    def _select(
        self, caller: Caller, study_uid: str | None, series_uid: str | None = None, instance_uid: str | None = None
    ) -> Any:
        statement: Any = (
            select(
                Study.study_instance_uid,
                Study.record_id,
                Series.series_instance_uid,
                Instance.sop_instance_uid,
                Instance.transfer_syntax_uid,
                Instance.sha256,
                Instance.size_bytes,
                Instance.rows,
            )
            .join(Series, Series.id == Instance.series_id)
            .join(Study, Study.id == Series.study_id)
            .where(access.studies(caller), *_within(study_uid))
            .order_by(Series.series_number.nulls_last(), Series.id, Instance.instance_number.nulls_last(), Instance.id)
        )
        if series_uid is not None:
            statement = statement.where(Series.series_instance_uid == series_uid)
        if instance_uid is not None:
            statement = statement.where(Instance.sop_instance_uid == instance_uid)
        return statement

    async def _samples(self, parent: Any, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, dict[str, Any]]:
        """One instance's JSON for each study or series: what is common to all stands in any."""
        if not ids:
            return {}
        statement = (
            select(parent.label("parent"), Instance.dicom_json)
            .join(Series, Series.id == Instance.series_id)
            .where(parent == func.any(list(ids)))
            .distinct(parent)
            .order_by(parent, Instance.id)
        )
        return {row["parent"]: msgspec.json.decode(row["dicom_json"]) for row in await self.reads.fetch(statement)}


def _within(study_uid: str | None) -> tuple[ColumnElement[bool], ...]:
    return () if study_uid is None else (Study.study_instance_uid == study_uid,)


def _once(rows: Sequence[Any]) -> list[Any]:
    """The same object from two partners: the first."""
    return list({row["sop_instance_uid"]: row for row in reversed(rows)}.values())[::-1]


def _element(vr: str, value: list[Any]) -> dict[str, Any]:
    return {"vr": vr, "Value": value} if value else {"vr": vr}


def _answer(
    sample: dict[str, Any] | None, tags: Sequence[str], url: str, counted: Mapping[str, tuple[str, list[Any]]]
) -> bytes:
    tree = {tag: sample[tag] for tag in tags if sample is not None and tag in sample}
    tree |= {tag: _element(vr, value) for tag, (vr, value) in counted.items()}
    tree |= {
        "00080005": _element("CS", ["ISO_IR 192"]),
        "00080056": _element("CS", ["ONLINE"]),
        "00081190": _element("UR", [url]),
    }
    return msgspec.json.encode(tree, order="sorted")


def _array(parts: Any) -> bytes:
    return b"[" + b",".join(parts) + b"]"
