"""C-FIND: patients, studies, series and objects that the caller may see, in both models `[PS3.4 C.4.1]`.

What matches, and how, is `gateway.dicom.attributes`, the same as for QIDO-RS; what an answer says is
`gateway.dicom.query.answer`.

Promises
--------
* Every key that was asked comes back, empty when nothing is known of it; the unique keys of the level and of those
  above always do, with Retrieve AE Title.
* A key that cannot be matched at its level is not left out in silence: the answers' status is 0xFF01.
* An answer is written in the question's character set when it can be, else in Unicode.
* Audit lines are durable before their answers leave; a C-CANCEL ends the search after the page under way.

Names match without regard to case and accents. Keys of higher levels may be left out (relational queries).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pydicom.charset import python_encoding
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pynetdicom.dimse_primitives import C_FIND
from sqlalchemy import ColumnElement

from gateway.dicom.attributes import Attribute, Level, attribute, matching
from gateway.dicom.levels import FIND, LEVELS, level_of
from gateway.dicom.query import answer
from gateway.dicom.services import Request, Service
from gateway.dicom.statements import Question, search
from gateway.errors import InvalidContent, Unavailable
from gateway.rcp.access import Caller
from gateway.rcp.imaging_destinations import require_located
from gateway.rcp.step import Step, Steps

__all__ = ["MAX_MATCHES", "Searches"]

#: Answers to one question.
MAX_MATCHES: Final = 10_000
_PAGE: Final = 200
_MAX_KEYS: Final = 256

_PENDING, _PENDING_WITHOUT_KEYS, _SUCCESS, _CANCELLED = 0xFF00, 0xFF01, 0x0000, 0xFE00
_UNICODE: Final = "ISO_IR 192"
_UNIQUE: Final = ("00100020", "0020000D", "0020000E", "00080018")
#: Of the identifier itself, not of what is searched [PS3.4 C.4.1.1.3].
_CHARACTER_SET, _LEVEL, _RETRIEVE, _ZONE = "00080005", "00080052", "00080054", "00080201"


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question as it was read.

    Parameters
    ----------
    tags
        What comes back, as eight hexadecimal digits with the question's own element.
    unmatched
        Whether a key had a value that nothing here is matched by.
    """

    level: Level
    conditions: list[ColumnElement[bool]]
    tags: dict[str, Any]
    unmatched: bool
    character_sets: tuple[str, ...]


class Searches:
    """The query service of one process."""

    def __init__(self, steps: Steps, ae_title: str) -> None:
        self._steps = steps
        self._ae_title = ae_title

    def services(self) -> tuple[Service[Caller], ...]:
        """Give the lines of the port's table."""
        return (Service(frozenset(FIND), C_FIND, self.find, extended=_EXTENDED),)

    def find(self, request: Request, caller: Caller) -> None:
        """Answer one question."""
        asked = _read(request.identifier(), request.sop_class_uid, request.extended)
        status = _PENDING_WITHOUT_KEYS if asked.unmatched else _PENDING
        for offset in range(0, MAX_MATCHES, _PAGE):
            trees, more = self._steps.run(caller, partial(_page, asked=asked, offset=offset))
            for tree in trees:
                if request.cancelled:
                    request.respond(_CANCELLED)
                    return
                request.respond(status, self._identifier(asked, tree))
            if not more:
                request.respond(_SUCCESS)
                return
        raise Unavailable("dicom-too-many", f"Plus de {MAX_MATCHES} réponses : préciser.")

    def _identifier(self, asked: _Asked, tree: dict[str, Any]) -> Dataset:
        told = {tag: tree.get(tag, {"vr": element.VR}) for tag, element in asked.tags.items()}
        depth = int(asked.level) + 1
        told |= {tag: tree[tag] for tag in _UNIQUE[:depth] if tag in tree}
        if _ZONE in tree:
            told[_ZONE] = tree[_ZONE]
        found = Dataset.from_json(told, bulk_data_uri_handler=lambda *_: None)
        found.QueryRetrieveLevel = LEVELS[asked.level]
        found.RetrieveAETitle = self._ae_title
        characters = _character_set(asked.character_sets, told)
        if characters is not None:
            found.SpecificCharacterSet = characters
        return found


#: Relational queries, days and times as one interval, fuzzy names: granted when asked [PS3.4 C.5.1.1]; not the others.
_EXTENDED: Final = b"\x01\x01\x01"


def _read(identifier: Dataset, sop_class_uid: str, extended: bytes) -> _Asked:
    level = Level(LEVELS.index(level_of(identifier, sop_class_uid)))
    tags: dict[str, Any] = {}
    keys: list[tuple[Attribute, str]] = []
    unmatched = False
    sets: tuple[str, ...] = ()
    if len(identifier) > _MAX_KEYS:
        raise InvalidContent("dicom-query", f"Plus de {_MAX_KEYS} clés.", rule=True)
    for key in identifier.keys():  # noqa: SIM118 - iterating would parse every value
        name = f"{BaseTag(key):08X}"
        if name.endswith("0000") or name in (_LEVEL, _RETRIEVE, _ZONE):
            continue
        element = _element(identifier, key)
        if name == _CHARACTER_SET:
            sets = tuple(_texts(element.value))
            continue
        tags[name] = element
        for path, value in _values(name, element):
            known = attribute(path)
            if known is not None and known.level <= level:
                keys.append((known, value))
            else:
                unmatched = unmatched or bool(value.strip("*"))
    conditions = matching(keys, combined=extended[1:2] == b"\x01", fuzzy=extended[2:3] == b"\x01")
    return _Asked(level, conditions, tags, unmatched, sets)


def _element(identifier: Dataset, key: Any) -> Any:
    try:
        return identifier[key]
    except Exception as error:  # the library raises whatever its parser met
        raise InvalidContent("dicom-query", "Clé illisible.", rule=True) from error


def _texts(value: Any) -> list[str]:
    several = value if isinstance(value, (list, tuple)) or hasattr(value, "append") else [value]
    return [str(one).strip() for one in several if one is not None and str(one).strip()]


def _values(name: str, element: Any) -> list[tuple[str, str]]:
    """Read a key's value as the matching table wants it; of a sequence, the keys of its only item."""
    if element.VR != "SQ":
        return [(name, "\\".join(_texts(element.value)))]
    found: list[tuple[str, str]] = []
    for item in list(element.value)[:1]:
        found += [
            (f"{name}.{BaseTag(key):08X}", "\\".join(_texts(inner.value)))
            for key in item.keys()  # noqa: SIM118 - as above
            if (inner := _element(item, key)).VR != "SQ"
        ]
    return found


def _character_set(asked: tuple[str, ...], tree: Any) -> str | None:
    """Choose the character set of an answer: none for ASCII, the question's when it holds the text, else Unicode."""
    text = "".join(_strings(tree))
    if text.isascii():
        return None
    if asked and _UNICODE not in asked and len(asked) == 1 and asked[0] in python_encoding:
        try:
            text.encode(python_encoding[asked[0]])
        except (UnicodeError, LookupError):
            return _UNICODE
        return asked[0]
    return _UNICODE


def _strings(tree: Any) -> list[str]:
    if isinstance(tree, dict):
        return [text for value in tree.values() for text in _strings(value)]
    if isinstance(tree, list):
        return [text for value in tree for text in _strings(value)]
    return [tree] if isinstance(tree, str) else []


def _page(step: Step, *, asked: _Asked, offset: int) -> tuple[list[dict[str, Any]], bool]:
    """Find one page, and write down whom it names."""
    require_located(step.caller)
    question = Question(asked.level, asked.conditions, limit=_PAGE, offset=offset)
    rows = step.session.execute(search(step.caller, question)).mappings().all()
    shown = rows[:_PAGE]
    persons: set[uuid.UUID] = {row["record_id"] for row in shown if row["record_id"] is not None}
    step.audit(
        "recherche",
        persons=tuple(sorted(persons)),
        object_type=asked.level.name.capitalize(),
        detail={"service": "C-FIND", "matches": len(shown)},
    )
    return [answer(asked.level, row) for row in shown], len(rows) > len(shown)
