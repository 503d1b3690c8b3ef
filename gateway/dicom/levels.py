"""The two information models of query and retrieve, their levels, and the unique key of each `[PS3.4 C.3, C.6]`.

Promises: what is read here is a UID or a list of them, within a limit that names itself. Keys of higher levels may be
left out (relational queries and retrievals); when they are there they count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from gateway.dicom.command import is_uid
from gateway.errors import InvalidContent

__all__ = ["FIND", "GET", "LEVELS", "MAX_UIDS", "MOVE", "UNIQUE", "Wanted", "level_of", "values", "wanted"]

LEVELS: Final = ("PATIENT", "STUDY", "SERIES", "IMAGE")
UNIQUE: Final[Mapping[str, str]] = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}

#: SOP class → the levels that its model has.
FIND: Final[Mapping[str, tuple[str, ...]]] = {
    "1.2.840.10008.5.1.4.1.2.1.1": LEVELS,
    "1.2.840.10008.5.1.4.1.2.2.1": LEVELS[1:],
}
MOVE: Final[Mapping[str, tuple[str, ...]]] = {
    "1.2.840.10008.5.1.4.1.2.1.2": LEVELS,
    "1.2.840.10008.5.1.4.1.2.2.2": LEVELS[1:],
}
GET: Final[Mapping[str, tuple[str, ...]]] = {
    "1.2.840.10008.5.1.4.1.2.1.3": LEVELS,
    "1.2.840.10008.5.1.4.1.2.2.3": LEVELS[1:],
}
_OF: Final = {**FIND, **MOVE, **GET}

#: UIDs of one list.
MAX_UIDS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a retrieval names: its level, and the values of the unique keys that it gives."""

    level: str
    patient_id: str | None = None
    issuer: str | None = None
    studies: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    instances: tuple[str, ...] = ()


def _refused(text: str, expression: str) -> InvalidContent:
    return InvalidContent("dicom-identifier", text, expression=expression, rule=True)


def level_of(identifier: Dataset, sop_class_uid: str) -> str:
    """Read the Query/Retrieve Level (0008,0052); refuse one that the model has not."""
    said = values(identifier, "QueryRetrieveLevel")
    level = said[0] if said else ""
    if level not in _OF[sop_class_uid]:
        raise _refused("QueryRetrieveLevel absent ou inconnu du modèle.", "QueryRetrieveLevel")
    return level


def values(identifier: Dataset, keyword: str) -> tuple[str, ...]:
    """Give the values of a key, none for an absent or empty one.

    Raises
    ------
    InvalidContent
        The value is none of its representation.
    """
    try:
        value = identifier.get(keyword)
    except Exception as error:  # the library raises whatever its parser met
        raise _refused("Valeur illisible.", keyword) from error
    several = value if isinstance(value, (MultiValue, list, tuple)) else [value]
    found = tuple(text for one in several if one is not None and (text := str(one).strip()))
    if not all(map(_is_text, found)):
        raise _refused("Valeur illisible.", keyword)  # no database holds such a text: nothing can be found by it
    return found


def _is_text(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:  # half a character
        return False


def _uids(identifier: Dataset, keyword: str) -> tuple[str, ...]:
    found = values(identifier, keyword)
    if len(found) > MAX_UIDS:
        raise _refused(f"Liste de plus de {MAX_UIDS} UID.", keyword)
    if not all(is_uid(uid) for uid in found):
        raise _refused("UID invalide.", keyword)
    return found


def wanted(identifier: Dataset, sop_class_uid: str) -> Wanted:
    """Read what a C-MOVE or C-GET asks for.

    Raises
    ------
    InvalidContent
        The unique key of its level is missing; a key above it has several values; one below it is there: more would
        leave than was meant.
    """
    level = level_of(identifier, sop_class_uid)
    depth = LEVELS.index(level)
    for position, upper in enumerate(LEVELS):
        found = values(identifier, UNIQUE[upper])
        if position == depth and not found:
            raise _refused(f"Clé {UNIQUE[upper]} absente au niveau {level}.", UNIQUE[upper])
        if (position < depth or upper == "PATIENT") and len(found) > 1:
            raise _refused(f"Clé {UNIQUE[upper]} à plusieurs valeurs au niveau {level}.", UNIQUE[upper])
        if position > depth and found:
            raise _refused(f"Clé {UNIQUE[upper]} sous le niveau {level}.", UNIQUE[upper])
    patient, issuer = values(identifier, "PatientID"), values(identifier, "IssuerOfPatientID")
    return Wanted(
        level,
        patient[0] if patient else None,
        issuer[0] if issuer else None,
        _uids(identifier, "StudyInstanceUID"),
        _uids(identifier, "SeriesInstanceUID"),
        _uids(identifier, "SOPInstanceUID"),
    )
