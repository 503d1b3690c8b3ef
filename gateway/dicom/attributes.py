"""What can be searched and how each attribute's values match: one table for QIDO-RS and C-FIND `[PS3.4 C.2.2.2]`.

Promises: a key that is not in the table has no answer of its own here (the wire refuses or ignores it by its standard's
rule); what is ``indexed`` is found without reading the others; names and days are compared as `name_key`, `day_key` and
`time_key` write them at ingest. Runs no statement.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from enum import IntEnum
from functools import partial
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, false, func, or_

from gateway.dicom.command import is_uid
from gateway.errors import InvalidContent
from gateway.model.imaging import Instance, Series, Study

__all__ = [
    "ATTRIBUTES",
    "Attribute",
    "Level",
    "attribute",
    "belongs",
    "day_key",
    "matching",
    "name_key",
    "time_key",
]

_LETTERS: Final = str.maketrans({"œ": "oe", "Œ": "OE", "æ": "ae", "Æ": "AE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L"})
_DAY: Final = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})", re.ASCII)
_TIME: Final = re.compile(r"(\d{2})(?::?(\d{2})(?::?(\d{2})(?:\.(\d{1,6}))?)?)?", re.ASCII)
_WORD: Final = re.compile(r"[\w*?]+")
# Longest value that is compared: no attribute that is searched may be longer [PS3.5 6.2], lists of UIDs apart.
_MAX_CHARACTERS: Final = 1024
_MAX_UIDS: Final = 1000


class Level(IntEnum):
    """Of the query/retrieve model, from the outside in `[PS3.4 C.6]`."""

    PATIENT = 0
    STUDY = 1
    SERIES = 2
    INSTANCE = 3


Match = Callable[[str], ColumnElement[bool]]


@dataclass(frozen=True, slots=True)
class Attribute:
    """One key.

    Parameters
    ----------
    keyword, tag
        As the standard writes them; an attribute of a sequence's items has both of its steps, between them a point.
    indexed
        Whether what matches is found by an index.
    """

    level: Level
    keyword: str
    tag: str
    match: Match
    indexed: bool = False


# ---- values as they are kept


def name_key(text: str) -> str:
    """Write a person's name as names are compared: no accent, no case, no empty component at the end.

    Examples
    --------
    >>> name_key("LÉGER^Zoë^^=")
    'leger^zoe'
    """
    plain = unicodedata.normalize("NFKD", text.replace("\0", "").translate(_LETTERS))
    plain = unicodedata.normalize("NFC", "".join(sign for sign in plain if not unicodedata.combining(sign))).casefold()
    groups = (
        "^".join(" ".join(component.split()) for component in group.split("^")).rstrip("^")
        for group in plain.split("=")
    )
    return "=".join(groups).rstrip("=")[:_MAX_CHARACTERS]


def day_key(text: str) -> str | None:
    """Write a date as ``AAAAMMJJ``; None when it is no day."""
    found = _DAY.fullmatch(text.strip())
    try:
        return date(*map(int, found.groups())).strftime("%Y%m%d") if found else None
    except ValueError:
        return None


def time_key(text: str) -> str | None:
    """Write a time as ``HHMMSS.F``, as precise as it was said; None when it is no time of a day."""
    found = _TIME.fullmatch(text.strip())
    if not found or int(found[1]) > 23 or int(found[2] or 0) > 59 or int(found[3] or 0) > 60:
        return None
    fraction = (found[4] or "").rstrip("0")
    return "".join(part for part in found.groups()[:3] if part) + (f".{fraction}" if fraction else "")


# ---- kinds of matching; universal matching is `matching`'s


def _like(column: Any, pattern: str) -> ColumnElement[bool]:
    """Match one value, or ``*`` and ``?`` `[PS3.4 C.2.2.2.1, C.2.2.2.4]`."""
    if "*" not in pattern and "?" not in pattern:
        equal: ColumnElement[bool] = column == pattern
        return equal
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    like: ColumnElement[bool] = column.like(escaped.replace("*", "%").replace("?", "_"), escape="\\")
    return like


def _text(column: Any, value: str) -> ColumnElement[bool]:
    return _like(column, value)


def _label(column: Any, value: str) -> ColumnElement[bool]:
    """Match words for people: without regard to case, which the standard leaves to names only."""
    return _like(func.lower(column), value.lower())


def _uids(column: Any, value: str) -> ColumnElement[bool]:
    """Match one UID or a list `[PS3.4 C.2.2.2.2]`."""
    wanted = [uid for uid in value.replace("\\", ",").split(",") if uid]
    if len(wanted) > _MAX_UIDS:
        raise InvalidContent("dicom-query", f"Au plus {_MAX_UIDS} UID par liste.")
    if not wanted or not all(is_uid(uid) for uid in wanted):
        raise InvalidContent("dicom-query", "Liste d’UID invalide.")
    # One bind whatever their number: the statement is compiled once.
    among: ColumnElement[bool] = column == (wanted[0] if len(wanted) == 1 else func.any(wanted))
    return among


def _number(column: Any, value: str) -> ColumnElement[bool]:
    if not re.fullmatch(r"[+-]?\d{1,9}", value, re.ASCII):
        raise InvalidContent("dicom-query", "Nombre invalide.")
    equal: ColumnElement[bool] = column == int(value)
    return equal


def _name(column: Any, value: str) -> ColumnElement[bool]:
    """Match a name, folded: its alphabetic group, any group when the question is in other letters than Latin."""
    wanted = name_key(value)
    if "=" in wanted:
        return _like(column, wanted)
    ways = [wanted, f"{wanted}=*"] if wanted.isascii() else [wanted, f"{wanted}=*", f"*={wanted}", f"*={wanted}=*"]
    return or_(*(_like(column, way) for way in ways))


def _fuzzy(column: Any, value: str) -> ColumnElement[bool]:
    """Match words in any order, each the beginning of a word of the name (``fuzzymatching``)."""
    words = _WORD.findall(name_key(value).replace("_", " "))
    signs = {"*": ".*", "?": "."}
    patterns = ("".join(signs.get(sign, sign) for sign in word.rstrip("*")) for word in words)
    return and_(*(column.regexp_match(rf"(^|[\^= '-]){pattern}") for pattern in patterns if pattern))


def _range(value: str, key: Callable[[str], str | None], said: str) -> tuple[str, str]:
    """Bounds of a day or a time, or of an interval of them `[PS3.4 C.2.2.2.5]`; an empty one is open."""
    first, dash, last = value.partition("-")
    low, high = (key(bound) if bound.strip() else "" for bound in (first, last if dash else first))
    if low is None or high is None or not (low or high):
        raise InvalidContent("dicom-query", f"{said}, ou un intervalle avec « - ».")
    return low, high


_days = partial(_range, key=day_key, said="Date invalide : AAAAMMJJ")
_times = partial(_range, key=time_key, said="Heure invalide : HHMMSS")


def _between(column: Any, low: str, high: str) -> ColumnElement[bool]:
    bounds = [column >= low] if low else []
    # « ~ » stands after every digit: what is more precise than the bound is within it.
    return and_(*bounds, *([column <= f"{high}~"] if high else []))


def _day(column: Any, value: str) -> ColumnElement[bool]:
    low, high = _days(value)
    return column == low if low == high else _between(column, low, high)


def _time(column: Any, value: str) -> ColumnElement[bool]:
    return _between(column, *_times(value))


def _moment(days: Any, times: Any, day: str, time: str) -> ColumnElement[bool]:
    """Match two intervals as one, from the first day's time to the last day's `[PS3.4 C.2.2.2.5.4]`."""
    (first, last), (low, high) = _days(day), _times(time)
    after = or_(days > first, and_(days == first, times >= low)) if low and first else None
    before = or_(days < last, and_(days == last, times <= f"{high}~")) if high and last else None
    return and_(_between(days, first, last), *(bound for bound in (after, before) if bound is not None))


def _modalities(value: str) -> ColumnElement[bool]:
    """Match the modality of any series; counts in the study follow later than its series stand there."""
    wanted = [one for one in re.split(r"[\\,]", value) if one]
    return Study.series.any(or_(*(_like(Series.modality, one) for one in wanted)) if wanted else false())


_P, _S, _E, _I = Level.PATIENT, Level.STUDY, Level.SERIES, Level.INSTANCE

ATTRIBUTES: Final = (
    Attribute(_P, "PatientName", "00100010", partial(_name, Study.patient_name), indexed=True),
    Attribute(_P, "PatientID", "00100020", partial(_text, Study.patient_id), indexed=True),
    Attribute(_P, "IssuerOfPatientID", "00100021", partial(_text, Study.issuer_of_patient_id)),
    Attribute(_P, "PatientBirthDate", "00100030", partial(_day, Study.patient_birth_date), indexed=True),
    Attribute(_P, "PatientSex", "00100040", partial(_text, Study.patient_sex)),
    Attribute(_S, "StudyInstanceUID", "0020000D", partial(_uids, Study.study_instance_uid), indexed=True),
    Attribute(_S, "StudyDate", "00080020", partial(_day, Study.study_date), indexed=True),
    Attribute(_S, "StudyTime", "00080030", partial(_time, Study.study_time)),
    Attribute(_S, "AccessionNumber", "00080050", partial(_text, Study.accession_number), indexed=True),
    Attribute(_S, "StudyID", "00200010", partial(_text, Study.study_id)),
    Attribute(_S, "StudyDescription", "00081030", partial(_label, Study.study_description)),
    Attribute(_S, "ReferringPhysicianName", "00080090", partial(_name, Study.referring_physician_name)),
    Attribute(_S, "ModalitiesInStudy", "00080061", _modalities),
    Attribute(_E, "SeriesInstanceUID", "0020000E", partial(_uids, Series.series_instance_uid), indexed=True),
    Attribute(_E, "Modality", "00080060", partial(_text, Series.modality)),
    Attribute(_E, "SeriesNumber", "00200011", partial(_number, Series.series_number)),
    Attribute(_E, "SeriesDescription", "0008103E", partial(_label, Series.series_description)),
    Attribute(_E, "BodyPartExamined", "00180015", partial(_text, Series.body_part_examined)),
    Attribute(_E, "SeriesDate", "00080021", partial(_day, Series.series_date)),
    Attribute(_E, "SeriesTime", "00080031", partial(_time, Series.series_time)),
    Attribute(
        _E, "PerformedProcedureStepStartDate", "00400244", partial(_day, Series.performed_procedure_step_start_date)
    ),
    Attribute(
        _E, "PerformedProcedureStepStartTime", "00400245", partial(_time, Series.performed_procedure_step_start_time)
    ),
    Attribute(
        _E,
        "RequestAttributesSequence.ScheduledProcedureStepID",
        "00400275.00400009",
        partial(_text, Series.scheduled_procedure_step_id),
    ),
    Attribute(
        _E,
        "RequestAttributesSequence.RequestedProcedureID",
        "00400275.00401001",
        partial(_text, Series.requested_procedure_id),
    ),
    Attribute(_I, "SOPInstanceUID", "00080018", partial(_uids, Instance.sop_instance_uid), indexed=True),
    Attribute(_I, "SOPClassUID", "00080016", partial(_uids, Instance.sop_class_uid)),
    Attribute(_I, "InstanceNumber", "00200013", partial(_number, Instance.instance_number)),
    Attribute(_I, "Rows", "00280010", partial(_number, Instance.rows)),
    Attribute(_I, "Columns", "00280011", partial(_number, Instance.columns)),
    Attribute(_I, "NumberOfFrames", "00280008", partial(_number, Instance.number_of_frames)),
    Attribute(_I, "AvailableTransferSyntaxUID", "00083002", partial(_uids, Instance.transfer_syntax_uid)),
)

_BY_NAME: Final = {name: one for one in ATTRIBUTES for name in (one.keyword, one.tag)}
_FUZZY: Final = {
    "PatientName": partial(_fuzzy, Study.patient_name),
    "ReferringPhysicianName": partial(_fuzzy, Study.referring_physician_name),
}
_MOMENTS: Final[tuple[tuple[str, str, Callable[[str, str], ColumnElement[bool]]], ...]] = (
    ("StudyDate", "StudyTime", partial(_moment, Study.study_date, Study.study_time)),
    ("SeriesDate", "SeriesTime", partial(_moment, Series.series_date, Series.series_time)),
    (
        "PerformedProcedureStepStartDate",
        "PerformedProcedureStepStartTime",
        partial(_moment, Series.performed_procedure_step_start_date, Series.performed_procedure_step_start_time),
    ),
)


def attribute(name: str) -> Attribute | None:
    """Find a key by its keyword or its tag (eight hexadecimal digits)."""
    return _BY_NAME.get(name) or _BY_NAME.get(name.upper())


def matching(
    keys: Iterable[tuple[Attribute, str]], *, fuzzy: bool = False, combined: bool = False
) -> list[ColumnElement[bool]]:
    r"""Conditions that what matches every key meets; an empty value matches everything `[PS3.4 C.2.2.2.3]`.

    Parameters
    ----------
    keys
        Values as the wire wrote them, in Unicode: ``*`` and ``?`` in texts, ``-`` in dates and times, ``\`` or ``,``
        between UIDs.
    fuzzy
        Names match by the beginnings of their words, in any order.
    combined
        An interval of days and one of times are one interval.

    Raises
    ------
    InvalidContent
        ``dicom-query``: a value that is none of its attribute; ``expression`` names the key.
    """
    wanted: dict[str, tuple[Attribute, str]] = {}
    conditions: list[ColumnElement[bool]] = []
    for key, raw in keys:
        value = raw.strip(" ")
        if key.keyword in wanted or "\0" in value or (len(value) > _MAX_CHARACTERS and key.match not in _LISTS):
            text = f"Valeur de recherche invalide, ou donnée deux fois ({_MAX_CHARACTERS} caractères au plus)."
            raise InvalidContent("dicom-query", text, expression=key.keyword)
        if value.strip("*"):
            wanted[key.keyword] = (key, value)
    if combined:
        for day, time, match in _MOMENTS:
            both = (wanted.get(day), wanted.get(time))
            if both[0] and both[1] and "-" in both[0][1] and "-" in both[1][1]:
                conditions.append(_named(day, partial(match, both[0][1]), both[1][1]))
                del wanted[day], wanted[time]
    for keyword, (key, value) in wanted.items():
        conditions.append(_named(keyword, _FUZZY.get(keyword, key.match) if fuzzy else key.match, value))
    return conditions


def _named(keyword: str, match: Match, value: str) -> ColumnElement[bool]:
    try:
        return match(value)
    except InvalidContent as error:
        raise InvalidContent(error.code, error.text, expression=keyword) from None


_LISTS: Final = frozenset(one.match for one in ATTRIBUTES if isinstance(one.match, partial) and one.match.func is _uids)


# ---- at which level an attribute of an object is said [PS3.3 A.1, C.7]

_GROUPS: Final[Mapping[str, Level]] = {"0010": Level.PATIENT, "0012": Level.STUDY, "0032": Level.STUDY, "0038": _S}


def _tags(text: str) -> frozenset[str]:
    return frozenset(text.split())


# True of an object at any level.
_EVERYWHERE: Final = _tags("00080005 00080054 00080056 00080201")
# The second half: of the patient's state at the study [PS3.3 C.7.2.2].
_STUDY_TAGS: Final = _tags(
    "00080020 00080030 00080050 00080051 00080061 00080062 00080090 00080092 00080094 00080096 0008009C 0008009D "
    "00081030 00081032 00081048 00081049 00081060 00081062 00081080 00081084 00081110 00081190 0020000D 00200010 "
    "00201070 00201200 00201202 00201204 00201206 00201208 "
    "00101010 00101020 00101021 00101022 00101030 001021B0 00102180 001021A0 001021C0 00102000 00102110"
)
_SERIES_TAGS: Final = _tags(
    "00080021 00080031 00080060 00080068 00080070 00080080 00080081 00080082 00081010 0008103E 0008103F 00081040 "
    "00081050 00081052 00081070 00081072 00081090 00081111 00081250 00180015 00181000 00181016 00181020 00181030 "
    "00185100 0020000E 00200011 00200052 00200060 00201040 00201209 00400241 00400242 00400243 00400244 00400245 "
    "00400250 00400251 00400253 00400254 00400260 00400275 00400280 00400555"
)


def belongs(tag: str, level: Level) -> bool:
    """Whether an attribute says the same in every object below one thing of the level."""
    if level is Level.INSTANCE or tag in _EVERYWHERE:
        return True
    if tag in _STUDY_TAGS:
        return level >= Level.STUDY
    if tag in _SERIES_TAGS:
        return level >= Level.SERIES
    found = _GROUPS.get(tag[:4])
    return found is not None and found <= level
