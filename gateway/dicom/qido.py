"""A query string of QIDO-RS → what is searched and what is told `[PS3.18 8.3.4, 10.6]`.

Promises: a key that cannot be matched is refused by name rather than left out in silence; the attributes of an answer
are those that the standard requires at its level, those searched by, and those asked for that there are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from pydicom.datadict import tag_for_keyword

from gateway.dicom.attributes import Attribute, Level, attribute, matching
from gateway.dicom.statements import Question
from gateway.errors import InvalidContent

__all__ = ["MAX_MATCHES", "question"]

#: Answers at once; who wants more asks for the next page.
MAX_MATCHES: Final = 1000
_DEFAULT_MATCHES: Final = 100
_MAX_OFFSET: Final = 10_000_000
_TAG: Final = re.compile(r"[0-9A-Fa-f]{8}(?:\.[0-9A-Fa-f]{8})*")
_MAX_FIELDS: Final = 256
#: Said of the answer, as header fields say it `[PS3.18 8.3.3]`: ours are in UTF-8, whatever is wished beside it.
_OF_THE_ANSWER: Final = ("accept", "charset")


def _tags(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: What an answer says of a level `[PS3.18 tables 10.6.3-3, 10.6.3-4, 10.6.3-5]`, and what a viewer's list shows beside.
_TAGS: Final = {
    Level.STUDY: _tags(
        "00080020 00080030 00080050 00080051 00080061 00080090 00080201 00081030 0020000D 00200010 00201206 00201208 "
        "00100010 00100020 00100021 00100024 00100030 00100040"
    ),
    Level.SERIES: _tags(
        "00080021 00080031 00080060 00080201 0008103E 0020000E 00200011 00180015 00400244 00400245 00400275 0020000D"
    ),
    Level.INSTANCE: _tags("00080016 00080018 00080201 00200013 00280008 00280010 00280011 00280100 0020000D 0020000E"),
}


def question(
    level: Level, asked: Sequence[tuple[str, str]], *, study: str | None = None, series: str | None = None
) -> tuple[Question, frozenset[str] | None]:
    """Read a query string; the second part is the attributes to tell, `None` for all.

    Raises
    ------
    InvalidContent
        ``dicom-query``.
    """
    keys: list[tuple[Attribute, str]] = []
    numbers = {"limit": _DEFAULT_MATCHES, "offset": 0}
    # Of what stands above, the address says it already when it names it.
    told = _TAGS[level].union(
        *(
            _TAGS[above]
            for above, named in ((Level.STUDY, study), (Level.SERIES, series))
            if above < level and not named
        )
    )
    everything = fuzzy = False
    for name, value in asked:
        if name in numbers:
            numbers[name] = _number(name, value)
        elif name == "includefield":
            fields = value.split(",")
            everything = everything or "all" in fields
            told |= {_field(one) for one in fields if one not in ("all", "")}
        elif name == "fuzzymatching":
            fuzzy = _truth(value)
        elif name not in _OF_THE_ANSWER:
            key = attribute(name)
            if key is None or key.level > level:
                text = f"Recherche par « {name[:64]} » non offerte à ce niveau."
                raise InvalidContent("dicom-query", text, expression=name[:64])
            keys.append((key, value))
            told |= {key.tag[:8]}
    if len(told) > _MAX_FIELDS:
        raise InvalidContent("dicom-query", f"Au plus {_MAX_FIELDS} attributs par demande.", expression="includefield")
    found = Question(
        level,
        # Days and times are one interval together, which C-FIND negotiates.
        matching(keys, fuzzy=fuzzy, combined=True),
        study,
        series,
        min(numbers["limit"], MAX_MATCHES),
        numbers["offset"],
    )
    return found, None if everything else told


def _number(name: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value) or int(value) > _MAX_OFFSET:
        raise InvalidContent("dicom-query", f"Paramètre « {name} » invalide.", expression=name)
    return int(value)


def _truth(value: str) -> bool:
    if value.lower() not in ("true", "false"):
        text = "Paramètre « fuzzymatching » invalide : true ou false."
        raise InvalidContent("dicom-query", text, expression="fuzzymatching")
    return value.lower() == "true"


def _field(name: str) -> str:
    """Tag of an attribute that is asked for; of a sequence's item, the sequence's."""
    if _TAG.fullmatch(name):
        return name[:8].upper()
    tag = tag_for_keyword(name.partition(".")[0])
    if tag is None:
        text = f"Attribut « {name[:64]} » inconnu."
        raise InvalidContent("dicom-query", text, expression="includefield")
    return f"{tag:08X}"
