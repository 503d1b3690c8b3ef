"""The statements that search studies and find objects, the same for QIDO-RS and for C-FIND, C-MOVE and C-GET.

Promises: the access predicate stands in each; the same study, series or object received from two partners is one match,
its first sender's; a page is cut before anything is counted or read for it. Runs nothing: a session or
`gateway.model.reads` does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, LargeBinary, Select, Text, bindparam, case, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by
from sqlalchemy.orm import aliased

from gateway.dicom.attributes import Level
from gateway.model.imaging import Instance, Series, Study
from gateway.rcp import access
from gateway.rcp.access import Caller

__all__ = ["MAX_INSTANCES", "Question", "below", "kept_search", "laid_down", "listing", "located", "search", "these"]

#: Objects that are looked at together, as pictures of a series are; whatever leaves by the page has no such limit.
MAX_INSTANCES: Final = 20_000


@dataclass(frozen=True, slots=True)
class Question:
    """What is searched.

    Parameters
    ----------
    conditions
        From `gateway.dicom.attributes.matching`.
    study, series
        Below which study, which series; `None` below any.
    """

    level: Level
    conditions: Sequence[ColumnElement[bool]] = ()
    study: str | None = None
    series: str | None = None
    limit: int = 100
    offset: int = 0


def search(caller: Caller, asked: Question) -> Select[Any]:
    """One row a match, in a stable order, with the JSON of one of its objects: what is common to all stands in any.

    Columns: ``record_id``, ``dicom_json``, the UIDs down to the level, and what `answer` counts. One row more than the
    limit says that there are more.
    """
    page = _PAGES[asked.level](caller, asked).limit(asked.limit + 1).offset(asked.offset).cte("page")
    return _WHOLE[asked.level](page)


def kept_search(caller: Caller, level: Level, *, study: bool, series: bool) -> Select[Any]:
    """As `search` for a question without keys, to be kept for whoever has the same rights.

    Its binds are ``most`` (rows) and ``offset``, and ``study`` and ``series`` when they are named.
    """
    said: dict[str, Any] = {name: bindparam(name) for name, named in (("study", study), ("series", series)) if named}
    most, offset = (bindparam(name, type_=BigInteger) for name in ("most", "offset"))
    page = _PAGES[level](caller, Question(level, (), **said)).limit(most).offset(offset).cte("page")
    return _WHOLE[level](page)


def _matched(caller: Caller, asked: Question, *columns: Any) -> Select[Any]:
    statement: Any = select(*columns).select_from(Study)
    if asked.level >= Level.SERIES:
        statement = statement.join(Series, Series.study_id == Study.id)
    if asked.level is Level.INSTANCE:
        statement = statement.join(Instance, Instance.series_id == Series.id)
    statement = statement.where(access.studies(caller), *asked.conditions)
    return _within(statement, asked.study, asked.series)


def _within(statement: Any, study: str | None, series: str | None) -> Select[Any]:
    if study is not None:
        statement = statement.where(Study.study_instance_uid == study)
    found: Select[Any] = statement if series is None else statement.where(Series.series_instance_uid == series)
    return found


def _patients_page(caller: Caller, asked: Question) -> Select[Any]:
    nameless = case((Study.patient_id.is_(None), Study.patient_name))
    grouped: Any = _matched(
        caller,
        asked,
        func.array_agg(aggregate_order_by(Study.id, Study.id.asc()), type_=ARRAY(Study.id.type)).label("ids"),
        func.array_agg(Study.record_id, type_=ARRAY(Study.id.type))
        .filter(Study.record_id.is_not(None))[1]
        .label("record_id"),
        func.count(func.distinct(Study.study_instance_uid)).label("studies"),
        Study.patient_id,
        Study.patient_id_system,
        nameless.label("nameless"),
    ).group_by(Study.patient_id, Study.patient_id_system, nameless)
    return grouped.order_by(*_by_patient(Study), nameless)  # type: ignore[no-any-return]  # as above


def _by_patient(row: Any) -> tuple[Any, ...]:
    return row.patient_id.nulls_last(), row.patient_id_system


def _studies_page(caller: Caller, asked: Question) -> Select[Any]:
    # Of the same study from two partners, the one that came first.
    one = _matched(caller, asked, Study.id, Study.study_instance_uid, Study.started_at)
    one = one.distinct(Study.study_instance_uid).order_by(Study.study_instance_uid, Study.id)
    rows = one.subquery()
    return select(rows).order_by(rows.c.started_at.desc().nulls_last(), rows.c.study_instance_uid)


def _series_page(caller: Caller, asked: Question) -> Select[Any]:
    one = _matched(caller, asked, Series.id, Study.study_instance_uid, Series.series_instance_uid, Series.series_number)
    one = one.distinct(Study.study_instance_uid, Series.series_instance_uid)
    rows = one.order_by(Study.study_instance_uid, Series.series_instance_uid, Series.id).subquery()
    return select(rows).order_by(
        rows.c.study_instance_uid, rows.c.series_number.nulls_last(), rows.c.series_instance_uid
    )


def _instances_page(caller: Caller, asked: Question) -> Select[Any]:
    one = _matched(
        caller,
        asked,
        Instance.id,
        Instance.sop_instance_uid,
        Series.series_instance_uid,
        Series.series_number,
        Instance.instance_number,
    )
    one = one.distinct(Instance.sop_instance_uid).order_by(Instance.sop_instance_uid, Instance.id)
    rows = one.subquery()
    return select(rows).order_by(*_order(rows.c))


def _order(row: Any) -> tuple[Any, ...]:
    return (
        row.series_number.nulls_last(),
        row.series_instance_uid,
        row.instance_number.nulls_last(),
        row.sop_instance_uid,
    )


def _sample(of: Any) -> Any:
    """JSON of the first object of a study."""
    series, instance = aliased(Series), aliased(Instance)
    return (
        select(instance.dicom_json)
        .join(series, series.id == instance.series_id)
        .where(series.study_id == of)
        .order_by(series.id, instance.instance_number, instance.id)
        .limit(1)
        .scalar_subquery()
    )


def _counted(study: Any, *, of: Any = Study) -> Any:
    """Count a study's objects; a study that has settled is counted already."""
    series, instance = aliased(Series), aliased(Instance)
    live = (
        select(func.count())
        .select_from(instance)
        .join(series, series.id == instance.series_id)
        .where(series.study_id == study)
        .scalar_subquery()
    )
    return case((of.settled_at.is_not(None), of.instances_count), else_=live)


def _whole_patients(page: Any) -> Select[Any]:
    related, instances = aliased(Series), aliased(Study)
    return select(
        page.c.studies,
        page.c.record_id,
        select(func.count())
        .select_from(related)
        .where(related.study_id == func.any(page.c.ids))
        .scalar_subquery()
        .label("series"),
        select(func.sum(_counted(instances.id, of=instances)))
        .where(instances.id == func.any(page.c.ids))
        .scalar_subquery()
        .label("instances"),
        _sample(page.c.ids[1]).label("dicom_json"),
    ).order_by(*_by_patient(page.c), page.c.nameless)


def _whole_studies(page: Any) -> Select[Any]:
    series = aliased(Series)
    of_study = select(func.count()).select_from(series).where(series.study_id == Study.id).scalar_subquery()
    said = select(func.array_agg(series.modality.distinct())).where(
        series.study_id == Study.id, series.modality.is_not(None)
    )
    return (
        select(
            Study.study_instance_uid,
            Study.record_id,
            said.scalar_subquery().label("modalities"),
            of_study.label("series"),
            _counted(Study.id).label("instances"),
            _sample(Study.id).label("dicom_json"),
        )
        .join(page, page.c.id == Study.id)
        .order_by(Study.started_at.desc().nulls_last(), Study.study_instance_uid)
    )


def _whole_series(page: Any) -> Select[Any]:
    instance = aliased(Instance)
    live = select(func.count()).select_from(instance).where(instance.series_id == Series.id).scalar_subquery()
    sample = (
        select(instance.dicom_json)
        .where(instance.series_id == Series.id)
        .order_by(instance.instance_number, instance.id)
        .limit(1)
        .scalar_subquery()
    )
    return (
        select(
            Study.study_instance_uid,
            Series.series_instance_uid,
            Study.record_id,
            case((Study.settled_at.is_not(None), Series.instances_count), else_=live).label("instances"),
            sample.label("dicom_json"),
        )
        .join(page, page.c.id == Series.id)
        .join(Study, Study.id == Series.study_id)
        .order_by(Study.study_instance_uid, Series.series_number.nulls_last(), Series.series_instance_uid)
    )


def _whole_instances(page: Any) -> Select[Any]:
    found: Any = (
        select(
            Study.study_instance_uid,
            Series.series_instance_uid,
            Instance.sop_instance_uid,
            Study.record_id,
            Instance.transfer_syntax_uid,
            Instance.dicom_json,
        )
        .join(page, page.c.id == Instance.id)
        .join(Series, Series.id == Instance.series_id)
        .join(Study, Study.id == Series.study_id)
        .order_by(*_order(_Columns))
    )
    return found  # type: ignore[no-any-return]  # SQLAlchemy names the type of each column, and so none


class _Columns:
    series_number, series_instance_uid = Series.series_number, Series.series_instance_uid
    instance_number, sop_instance_uid = Instance.instance_number, Instance.sop_instance_uid


_PAGES: Final[Mapping[Level, Callable[[Caller, Question], Select[Any]]]] = {
    Level.PATIENT: _patients_page,
    Level.STUDY: _studies_page,
    Level.SERIES: _series_page,
    Level.INSTANCE: _instances_page,
}
_WHOLE: Final[Mapping[Level, Callable[[Any], Select[Any]]]] = {
    Level.PATIENT: _whole_patients,
    Level.STUDY: _whole_studies,
    Level.SERIES: _whole_series,
    Level.INSTANCE: _whole_instances,
}


def _objects(caller: Caller, *more: Any) -> Any:
    return (
        select(
            Study.study_instance_uid,
            Study.record_id,
            Series.series_instance_uid,
            Instance.sop_instance_uid,
            Instance.sop_class_uid,
            Instance.transfer_syntax_uid,
            Instance.sha256,
            Instance.size_bytes,
            Instance.rows,
            Instance.number_of_frames,
            *more,
        )
        .join(Series, Series.id == Instance.series_id)
        .join(Study, Study.id == Series.study_id)
        .where(access.studies(caller))
        .order_by(*_order(_Columns), Instance.id)
    )


def below(caller: Caller, *, series: bool, instance: bool, told: bool, most: int) -> Select[Any]:
    """Rows of the objects below one study, to be kept for whoever has the same rights.

    Its binds are ``study``, and ``series`` and ``instance`` when they are named.

    Parameters
    ----------
    told
        Whether their JSON is wanted.
    most
        How many; one more is asked for, which says that there are more.
    """
    statement = _objects(caller, *([Instance.dicom_json] if told else [])).limit(most + 1)
    for column, name, wanted in (
        (Study.study_instance_uid, "study", True),
        (Series.series_instance_uid, "series", series),
        (Instance.sop_instance_uid, "instance", instance),
    ):
        if wanted:
            statement = statement.where(column == bindparam(name))
    return statement  # type: ignore[no-any-return]  # as above


def listing(caller: Caller, *, series: bool) -> Select[Any]:
    """Say of all objects below a study which they are, in their order, in one row; kept and bound as `below` is.

    Columns: ``ids``, sixteen bytes each; ``count``, ``syntaxes``, ``records``, and ``sha256`` of all their hashes.
    """
    one: Any = (
        select(
            Instance.id,
            Instance.sop_instance_uid,
            Instance.instance_number,
            Instance.sha256,
            Instance.transfer_syntax_uid,
            Series.series_number,
            Series.series_instance_uid,
            Study.record_id,
        )
        .join(Series, Series.id == Instance.series_id)
        .join(Study, Study.id == Series.study_id)
        .where(access.studies(caller))
        # Of the same object from two partners, the first in the order of all.
        .distinct(Instance.sop_instance_uid)
        .order_by(Instance.sop_instance_uid, *_order(_Columns), Instance.id)
    )
    named: Any = (bindparam("study"), bindparam("series") if series else None)
    rows = _within(one, *named).subquery()
    place = func.row_number().over(order_by=(*_order(rows.c), rows.c.id)).label("place")
    placed = select(rows.c.id, rows.c.sha256, rows.c.transfer_syntax_uid, rows.c.record_id, place).subquery()
    hashes = func.string_agg(placed.c.sha256, aggregate_order_by(literal("", Text), placed.c.place))
    ids = func.string_agg(func.uuid_send(placed.c.id), aggregate_order_by(literal(b"", LargeBinary), placed.c.place))
    return select(
        func.count().label("count"),
        ids.label("ids"),
        func.encode(func.sha256(func.convert_to(hashes, "UTF8")), "hex").label("sha256"),
        func.array_agg(placed.c.transfer_syntax_uid.distinct()).label("syntaxes"),
        func.array_agg(placed.c.record_id.distinct()).filter(placed.c.record_id.is_not(None)).label("records"),
    )


def these(caller: Caller, *, told: bool) -> Select[Any]:
    """Rows as `below` gives of some objects; its bind is ``ids``."""
    statement = _objects(caller, *([Instance.dicom_json] if told else []))
    return statement.where(Instance.id == func.any(bindparam("ids", type_=ARRAY(Instance.id.type))))  # type: ignore[no-any-return]  # as above


def laid_down(caller: Caller) -> Select[Any]:
    """Where objects of the caller's own partner stand, to be kept for whoever has the same rights.

    Its bind is ``instances``.
    """
    found: Any = (
        select(Study.study_instance_uid, Study.record_id, Series.series_instance_uid, Instance.sop_instance_uid)
        .join(Series, Series.study_id == Study.id)
        .join(Instance, Instance.series_id == Series.id)
        .where(
            access.studies(caller),
            Instance.partner_id == caller.partner_id,
            Instance.sop_instance_uid == func.any(bindparam("instances", type_=ARRAY(Text))),
        )
    )
    return found  # type: ignore[no-any-return]  # as above


def located(
    caller: Caller,
    *,
    studies: Collection[str] = (),
    series: Collection[str] = (),
    instances: Collection[str] = (),
    conditions: Sequence[ColumnElement[bool]] = (),
) -> Select[Any]:
    """Rows of the objects below some studies, some series or some objects, in their order.

    An empty collection asks nothing. The same object of two partners is there twice.
    """
    statement = _objects(caller).where(*conditions)
    for column, wanted in (
        (Study.study_instance_uid, studies),
        (Series.series_instance_uid, series),
        (Instance.sop_instance_uid, instances),
    ):
        if len(wanted) == 1:
            statement = statement.where(column == next(iter(wanted)))
        elif wanted:
            statement = statement.where(column == func.any(list(wanted)))
    return statement  # type: ignore[no-any-return]
