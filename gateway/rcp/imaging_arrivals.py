"""Objects that arrive at the same time are kept together: one statement, one commit, one answer each.

A commit costs the database and this process about the same for one object as for twenty, and a series' hundredth object
asks nothing that its first did not. Objects of series that are known here form groups: those that come while others are
being written are the next one; nobody waits for company, whoever comes alone is written at once (docs/adr/0020).

Promises: what stands afterwards and what is answered are what `gateway.rcp.imaging.keep` does for one object after
another; what is taken as known of a series is looked at again by the transaction that writes; an object that is not as
foreseen (known already, another patient's, at fault) is kept or refused by `keep`, alone, so that nobody learns of
another's refusal; an answer leaves after the commit of its group. Not promised: the order of objects of different
associations.
"""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple

import structlog
from sqlalchemy import ARRAY, Uuid, bindparam, func, select
from sqlalchemy.dialects.postgresql import insert

from gateway.errors import GatewayError, Unavailable
from gateway.identifiers import uuid7
from gateway.model.imaging import Instance, Series, Study
from gateway.model.prepared import Prepared
from gateway.model.store import Base, utcnow
from gateway.rcp import imaging
from gateway.rcp.caller import Caller
from gateway.rcp.imaging import Content
from gateway.rcp.imaging_facts import ObjectFacts
from gateway.rcp.imaging_traits import same_patient
from gateway.rcp.step import Step, Steps

__all__ = ["Arrivals"]

log = structlog.get_logger(__name__)

#: How many are written together at most, and how many series are known at once.
_MOST: Final = 64
_SERIES: Final = 4096

_Key = tuple[uuid.UUID | None, str, str]


class _Known(NamedTuple):
    """A series that is there."""

    series_id: uuid.UUID
    study_id: uuid.UUID


class _ApartError(Exception):
    """Each is to be kept alone."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """One object: its thread sleeps until somebody has kept it, or it is its turn to write."""

    caller: Caller
    facts: ObjectFacts
    content: Content
    known: _Known
    woken: threading.Lock = field(default_factory=threading.Lock)
    leads: bool = False
    kept: bool = False
    error: GatewayError | None = None

    def __post_init__(self) -> None:
        self.woken.acquire()

    @property
    def place(self) -> tuple[uuid.UUID, str]:
        """In the order in which series are locked by whoever counts them."""
        return (self.known.series_id, self.facts.instance.sop_instance_uid)


_INSTANCE: Final = Base.metadata.tables[Instance.__tablename__]
_COLUMNS: Final = tuple(_INSTANCE.columns.keys())
_STUDY: Final = Base.metadata.tables[Study.__tablename__]


def _insertion() -> Any:
    lists = [bindparam(name, type_=ARRAY(_INSTANCE.c[name].type)) for name in _COLUMNS]
    given = func.unnest(*lists).table_valued(*_COLUMNS, name="given").render_derived()
    put = (
        insert(_INSTANCE)
        .from_select(_COLUMNS, select(*(given.c[name] for name in _COLUMNS)), include_defaults=False)
        .on_conflict_do_nothing()
        .returning(_INSTANCE.c.id)
        .cte("put")
    )
    return select(put.c.id)


_PUT: Final = Prepared(_insertion)
# A statement of its own, after the objects are in: a study that is being settled is then seen as settled.
_STUDIES: Final = Prepared(
    lambda: select(
        _STUDY.c.id, _STUDY.c.patient_id, _STUDY.c.traits, _STUDY.c.represented_at, _STUDY.c.settled_at
    ).where(_STUDY.c.id == func.any(bindparam("ids", type_=ARRAY(Uuid()))))
)


class Arrivals:
    """Keeps received objects, together when they come at the same time."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._lock = threading.Lock()
        self._busy = False
        self._queue: deque[_Waiting] = deque()
        self._series: OrderedDict[_Key, _Known] = OrderedDict()

    def keep(self, caller: Caller, facts: ObjectFacts, content: Content) -> GatewayError | None:
        """Keep one object of a partner; returns, and is told, what `gateway.rcp.imaging.keep` says.

        Raises
        ------
        GatewayError
            As `Steps.run`.
        """
        key = (caller.partner_id, facts.study.study_instance_uid, facts.series.series_instance_uid)
        known = self._series.get(key)
        if known is None:
            return self._alone(key, caller, facts, content)
        mine = _Waiting(caller, facts, content, known)
        with self._lock:
            if self._busy:
                self._queue.append(mine)
            else:
                self._busy = mine.leads = True
        if not mine.leads:
            mine.woken.acquire()
        if mine.leads:
            self._lead(mine)
        if mine.error is not None:
            raise mine.error
        return None if mine.kept else self._alone(key, caller, facts, content)

    def _alone(self, key: _Key, caller: Caller, facts: ObjectFacts, content: Content) -> GatewayError | None:
        refusal, known = self._steps.run(caller, partial(_keep_alone, facts=facts, content=content))
        with self._lock:
            self._series.pop(key, None)
            if known is not None:
                self._series[key] = known
                if len(self._series) > _SERIES:
                    self._series.popitem(last=False)
        return refusal

    def _lead(self, mine: _Waiting) -> None:
        """Write what waits, then let the first of those that came meanwhile write the next group."""
        with self._lock:
            group = [mine, *(self._queue.popleft() for _ in range(min(len(self._queue), _MOST - 1)))]
        try:
            self._write(group)
        finally:
            with self._lock:
                following = self._queue.popleft() if self._queue else None
                self._busy = following is not None
            if following is not None:
                following.leads = True
                following.woken.release()
            for one in group[1:]:
                one.woken.release()

    def _write(self, group: Sequence[_Waiting]) -> None:
        """Write a group; who is neither kept nor told an error afterwards is kept alone."""
        used: list[bool] = []

        def verb(step: Step) -> set[uuid.UUID]:
            if used:  # it clashed with another writer
                raise _ApartError
            used.append(True)
            return _put(step, keyed)

        keyed = [(uuid7(), one) for one in sorted(group, key=lambda one: one.place)]
        try:
            put = self._steps.run(group[0].caller, verb)
        except Unavailable as error:
            # The connection may have been lost while it was committed: each sender is told to send again.
            for one in group:
                one.error = error
        except Exception as error:  # noqa: BLE001 - whatever it was, it is undone, and tells its own sender when alone
            log.debug("arrivals-apart", size=len(group), error=type(error).__name__)
        else:
            for key, one in keyed:
                one.kept = key in put


def _put(step: Step, keyed: Sequence[tuple[uuid.UUID, _Waiting]]) -> set[uuid.UUID]:
    now = utcnow()
    rows = [
        imaging.instance_row(key, one.caller.partner_id, one.known.series_id, one.facts, one.content, now)
        for key, one in keyed
    ]
    lists = {name: [row[name] for row in rows] for name in _COLUMNS}
    put = {row.id for row in _PUT.run(step.session, lists)}
    studies = {row.id: row for row in _STUDIES.run(step.session, {"ids": [*{one.known.study_id for _, one in keyed}]})}
    due = set()
    for key, one in keyed:
        study = studies.get(one.known.study_id)
        if study is None or not same_patient(study, one.facts.patient):
            raise _ApartError
        if key in put and imaging.is_due(study.represented_at, study.settled_at):
            due.add((study.id, one.caller))
    for study_id, caller in sorted(due, key=lambda pair: pair[0]):
        step.caller = caller
        imaging.follow(step, study_id)
    return put


def _keep_alone(step: Step, *, facts: ObjectFacts, content: Content) -> tuple[GatewayError | None, _Known | None]:
    """Keep one object, and say where the next of its series belongs."""
    refusal = imaging.keep(step, facts, content)
    if refusal is not None:
        return refusal, None
    found = step.session.execute(
        select(Series.id, Study.id)
        .join(Study, Study.id == Series.study_id)
        .where(
            Study.partner_id == step.caller.partner_id,
            Study.study_instance_uid == facts.study.study_instance_uid,
            Series.series_instance_uid == facts.series.series_instance_uid,
        )
    ).one_or_none()
    return None, _Known(*found) if found is not None else None
