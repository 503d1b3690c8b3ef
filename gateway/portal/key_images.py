"""Key images: the objects that a Key Object Selection Document of a study names, and how many they are.

Promises: reads what stands in the database of the documents of studies that the caller may see; says nothing of what an
image is, which the DICOMweb wire gives or refuses. A document that names nothing is none; one whose description weighs
more than 4 MiB is read as a report only.

Sources: `[PS3.3 A.35.4]` the document, `[PS3.16 TID 2010]` its template, `[PS3.16 CID 7010]` its titles.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from gateway.model.imaging import Instance, Series, Study
from gateway.portal import views as v
from gateway.portal.render import typographic

__all__ = ["key_images"]

_KEY_OBJECT_SELECTION: Final = "1.2.840.10008.5.1.4.1.1.88.59"
_MAX_BYTES: Final = 4 << 20
_MAX_DOCUMENTS: Final = 50
#: Titles of what somebody takes out of the study instead of showing it `[PS3.16 CID 7011]`.
_REJECTED: Final = frozenset({"113001", "113037", "113038", "113039"})

_CONCEPT, _CONTENT, _CODE, _MEANING = "0040A043", "0040A730", "00080100", "00080104"
_REFERENCED, _FRAMES = "00081199", "00081160"


def key_images(session: Session, studies: Iterable[Study], address: str) -> dict[uuid.UUID, tuple[v.KeyImages, ...]]:
    """Return the selections of each study, the earliest received first.

    Parameters
    ----------
    studies
        Studies that the caller may see.
    address
        The page of images that shows them.
    """
    rows = session.execute(
        select(
            Study.id,
            Study.study_instance_uid,
            Series.series_instance_uid,
            Instance.sop_instance_uid,
            Instance.dicom_json,
        )
        .join(Series, Series.study_id == Study.id)
        .join(Instance, Instance.series_id == Series.id)
        .where(
            Study.id.in_([one.id for one in studies]),
            Instance.sop_class_uid == _KEY_OBJECT_SELECTION,
            func.length(Instance.dicom_json) <= _MAX_BYTES,
        )
        .order_by(Instance.received_at, Instance.sop_instance_uid)
        .limit(_MAX_DOCUMENTS)
    )
    found: dict[uuid.UUID, tuple[v.KeyImages, ...]] = {}
    for study_id, study_uid, series_uid, instance_uid, described in rows:
        document = msgspec.json.decode(described)
        count = sum(_named(item) for item in _items(document, _CONTENT))
        if not count:
            continue
        concept = next(iter(_items(document, _CONCEPT)), {})
        said = "Images écartées" if _first(concept, _CODE) in _REJECTED else "Images clés"
        one = v.KeyImages(
            label=f"{said} ({count})",
            title=typographic(_first(concept, _MEANING)),
            study_uid=study_uid,
            series_uid=series_uid,
            instance_uid=instance_uid,
            url=f"{address}?serie={series_uid}&objet={instance_uid}&cles=1",
        )
        found[study_id] = (*found.get(study_id, ()), one)
    return found


def _named(item: dict[str, Any]) -> int:
    """How many images a content item names: its frames, else its objects."""
    return sum(len(_values(one, _FRAMES)) or 1 for one in _items(item, _REFERENCED))


def _values(item: dict[str, Any], tag: str) -> list[Any]:
    element = item.get(tag)
    value = element.get("Value") if isinstance(element, dict) else None
    return value if isinstance(value, list) else []


def _items(item: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    return [one for one in _values(item, tag) if isinstance(one, dict)]


def _first(item: dict[str, Any], tag: str) -> str:
    return str(next(iter(_values(item, tag)), "") or "")
