"""What the representation of a study is made of, read in a few questions whatever its series and instances.

Promises: five questions a study; of each series one object's attributes are read, at most `_SAID_BYTES` of them, the
rest of what objects say stays in DICOMweb. Not promised: that all objects of a series say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from sqlalchemy import func, select, true
from sqlalchemy.orm import Session

from gateway.fhir.translate import imaging
from gateway.fhir.translate.imaging import Listed, Parts, Said
from gateway.model.imaging import Instance, Series, Study
from gateway.rcp import imaging_awaited

__all__ = ["parts_of"]

#: Attributes of a multi-frame object are as many as its frames; of a larger one nothing more is said.
_SAID_BYTES: Final = 1 << 20
_DECODER: Final = msgspec.json.Decoder(Said)


def parts_of(session: Session, study: Study) -> Parts:
    """Read what a study is represented by."""
    series = session.scalars(select(Series).where(Series.study_id == study.id)).all()
    return Parts(
        series=series,
        instances=_instances(session, study, series),
        said=_said(session, study),
        orders=imaging_awaited.sources(session, study),
    )


def _instances(session: Session, study: Study, series: Sequence[Series]) -> dict[str, list[Listed]]:
    """The instances of a whole study, by their series; nothing while it grows, or of too many."""
    found: dict[str, list[Listed]] = {}
    if study.settled_at is None or study.instances_count > imaging.LISTED_AT_MOST:
        return found
    uids = {one.id: one.series_instance_uid for one in series}
    rows = session.execute(
        select(Instance.series_id, Instance.sop_instance_uid, Instance.sop_class_uid, Instance.instance_number)
        .where(Instance.series_id.in_(sorted(uids)))
        .order_by(Instance.instance_number.nulls_last(), Instance.sop_instance_uid)
    ).tuples()
    for series_id, uid, sop_class, number in rows:
        found.setdefault(uids[series_id], []).append(Listed(uid, sop_class, number))
    return found


def _said(session: Session, study: Study) -> dict[str, Said]:
    first = (
        select(Instance.dicom_json)
        .where(Instance.series_id == Series.id, func.octet_length(Instance.dicom_json) <= _SAID_BYTES)
        .order_by(Instance.instance_number, Instance.id)
        .limit(1)
        .lateral("first")
    )
    rows = session.execute(
        select(Series.series_instance_uid, first.c.dicom_json)
        .join(first, true())
        .where(Series.study_id == study.id)
        .order_by(Series.series_number.nulls_last(), Series.series_instance_uid)
    ).tuples()
    return {uid: _DECODER.decode(content) for uid, content in rows}
