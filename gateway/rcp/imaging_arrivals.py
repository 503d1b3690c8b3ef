"""Objects that arrive at the same time are kept together: a statement each, one commit, an answer each.

A commit costs the database and this process about the same for one object as for twenty, and a series' hundredth object
asks nothing that its first did not. Objects of series that are known here form groups: those that come while others are
being written are the next one; nobody waits for company, whoever comes alone is written at once (docs/adr/0020).

Promises: what stands afterwards and what is answered are what `gateway.rcp.imaging.keep` does for one object after
another; what is taken as known of a series is looked at again by the transaction that writes; an object that is not as
foreseen (known already, another patient's, at fault) is kept or refused by `keep`, alone, so that nobody learns of
another's refusal; an answer leaves after the commit of its group; a line of the trail that comes with an object is
committed with its row, and is there exactly if the object was kept. Not promised: the order of objects of different
associations.
"""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, NamedTuple

import structlog
from sqlalchemy import bindparam, or_, select
from sqlalchemy.dialects.postgresql import insert

from gateway.errors import GatewayError, Unavailable
from gateway.identifiers import uuid7
from gateway.model.audit import AuditFacts, AuditLine, AuditTrail
from gateway.model.imaging import Instance, Series, Study
from gateway.model.prepared import Prepared
from gateway.model.store import Base, utcnow
from gateway.rcp import imaging
from gateway.rcp.caller import Caller
from gateway.rcp.imaging import Content
from gateway.rcp.imaging_facts import ImagedPatientFacts, ObjectFacts
from gateway.rcp.imaging_traits import same_patient
from gateway.rcp.step import Step, Steps

__all__ = ["Arrivals", "Line"]

log = structlog.get_logger(__name__)

#: How many are written together at most, and how many series are known at once.
_MOST: Final = 64
_SERIES: Final = 4096

#: Makes the line of the trail that tells of an object, of the record that its study is of.
Line = Callable[[uuid.UUID | None], AuditFacts]

_Key = tuple[uuid.UUID | None, str, str]


def _key(caller: Caller, facts: ObjectFacts) -> _Key:
    return (caller.partner_id, facts.study.study_instance_uid, facts.series.series_instance_uid)


class _Known(NamedTuple):
    """A series that is there, the patient of its study as it was then, and one who was found to be the same."""

    series_id: uuid.UUID
    study_id: uuid.UUID
    patient_id: str | None
    traits: dict[str, Any]
    record_id: uuid.UUID | None
    patient: ImagedPatientFacts


@dataclass(slots=True, eq=False)
class _Waiting:
    """One object: its thread sleeps until somebody has kept it, or it is its turn to write."""

    caller: Caller
    facts: ObjectFacts
    content: Content
    known: _Known
    line: Line | None = None
    woken: threading.Lock = field(default_factory=threading.Lock)
    leads: bool = False
    kept: bool = False
    error: GatewayError | None = None

    def __post_init__(self) -> None:
        self.woken.acquire()

    @property
    def place(self) -> tuple[uuid.UUID, uuid.UUID, str]:
        """In the order in which studies and series are locked by whoever counts them."""
        return (self.known.study_id, self.known.series_id, self.facts.instance.sop_instance_uid)


_INSTANCE: Final = Base.metadata.tables[Instance.__tablename__]
_STUDY: Final = Base.metadata.tables[Study.__tablename__]
_LINE: Final = Base.metadata.tables[AuditLine.__tablename__]
#: What a line says itself; the server gives it its place.
_SAID: Final = ("id", "recorded", "event", "outcome", "actor_id", "dossier", "persons", "payload", "mac")


def _bound(column: Any, name: str) -> Any:
    return bindparam(name, type_=column.type)


def _insertion(*conditions: Any) -> Any:
    """One object, if its study is as it was known and needs not be brought forward.

    The lock waits for whoever settles the study, or gives it to another patient, and then looks at it again.
    """
    as_known = (
        select(*(_bound(column, f"{name}_") for name, column in _INSTANCE.columns.items()))
        .select_from(_STUDY)
        .where(
            _STUDY.c.id == _bound(_STUDY.c.id, "known_study"),
            _STUDY.c.patient_id.is_not_distinct_from(_bound(_STUDY.c.patient_id, "known_patient")),
            _STUDY.c.traits == _bound(_STUDY.c.traits, "known_traits"),
            _STUDY.c.settled_at.is_(None),
            _STUDY.c.represented_at > _bound(_STUDY.c.represented_at, "since"),
            *conditions,
        )
        .with_for_update(read=True, of=_STUDY)
    )
    return (
        insert(_INSTANCE)
        .from_select(list(_INSTANCE.columns.keys()), as_known, include_defaults=False)
        .on_conflict_do_nothing()
    )


def _told_insertion() -> Any:
    """As `_insertion`, with a line of the trail if there is one and the object is put; gives a row if it is."""
    line_id = _bound(_LINE.c.id, "line_id")
    # The line names the record: a study that is of another one since goes the long way, which says which.
    same_record = _STUDY.c.record_id.is_not_distinct_from(_bound(_STUDY.c.record_id, "known_record"))
    put = _insertion(or_(line_id.is_(None), same_record)).returning(_INSTANCE.c.id).cte("put")
    line = select(*(_bound(_LINE.c[name], f"line_{name}") for name in _SAID)).select_from(put)
    told = insert(_LINE).from_select(list(_SAID), line.where(line_id.is_not(None)), include_defaults=False)
    return select(put.c.id).add_cte(told.cte("told"))


_PUT: Final = Prepared(_insertion)
_PUT_TOLD: Final = Prepared(_told_insertion)


@dataclass(slots=True)
class _First:
    """Those who bring the first objects of a series."""

    turn: threading.Lock = field(default_factory=threading.Lock)
    count: int = 0


class Arrivals:
    """Keeps received objects, together when they come at the same time."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._lock = threading.Lock()
        self._busy = False
        self._queue: deque[_Waiting] = deque()
        self._series: OrderedDict[_Key, _Known] = OrderedDict()
        self._first: dict[_Key, _First] = {}

    def keep(
        self, caller: Caller, facts: ObjectFacts, content: Content, line: Line | None = None
    ) -> GatewayError | None:
        """Keep one object of a partner; returns, and is told, what `gateway.rcp.imaging.keep` says.

        Parameters
        ----------
        line
            Tells the trail of it, in the same commit, unless it is refused.

        Raises
        ------
        GatewayError
            As `Steps.run`.
        """
        key = _key(caller, facts)
        known = self._series.get(key)
        if known is None:
            with self._first_of(key):
                known = self._series.get(key)
                if known is None:
                    return self._alone(key, caller, facts, content, line)
        if facts.patient != known.patient and not same_patient(known, facts.patient):
            return self._alone(key, caller, facts, content, line)
        mine = _Waiting(caller, facts, content, known, line)
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
        return None if mine.kept else self._alone(key, caller, facts, content, line)

    def keep_together(self, every: Sequence[tuple[Caller, ObjectFacts, Content]]) -> list[bool | GatewayError]:
        """Keep objects that one thread has at hand, with whatever else waits.

        Returns
        -------
        list
            Of each: whether it is kept, or what `keep` would raise. Who is not kept goes by `keep`.
        """
        waiting: list[_Waiting | None] = []
        for caller, facts, content in every:
            known = self._series.get(_key(caller, facts))
            if known is not None and facts.patient != known.patient and not same_patient(known, facts.patient):
                known = None
            waiting.append(_Waiting(caller, facts, content, known) if known is not None else None)
        mine = [one for one in waiting if one is not None]
        with self._lock:
            self._queue.extend(mine)
            if mine and not self._busy:
                first = self._queue.popleft()  # nobody writes, so nobody else waits
                self._busy = first.leads = True
                first.woken.release()
        for one in mine:  # in the order of the queue: whoever is to write is not waited for behind another
            one.woken.acquire()
            if one.leads:
                self._lead(one)
        return [one is not None and (one.error or one.kept) for one in waiting]

    @contextmanager
    def _first_of(self, key: _Key) -> Iterator[None]:
        """One after another, of a series that is not known: the second to come knows it."""
        with self._lock:
            first = self._first.setdefault(key, _First())
            first.count += 1
        try:
            with first.turn:
                yield
        finally:
            with self._lock:
                first.count -= 1
                if not first.count:
                    del self._first[key]

    def _alone(
        self, key: _Key, caller: Caller, facts: ObjectFacts, content: Content, line: Line | None
    ) -> GatewayError | None:
        refusal, known = self._steps.run(caller, partial(_keep_alone, facts=facts, content=content, line=line))
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
        ordered = sorted(group, key=lambda one: one.place)
        now = utcnow()
        since = now - timedelta(seconds=imaging.EVERY_S)
        try:
            if any(one.line is not None for one in ordered):
                told = [_values(one, now, since) | _told(one, self._steps.trail) for one in ordered]
                written = self._steps.at_once(_PUT_TOLD, told)
            else:
                written = self._steps.at_once(_PUT, [_values(one, now, since) for one in ordered])
        except Unavailable as error:
            # The connection may have been lost while it was committed: each sender is told to send again.
            for one in group:
                one.error = error
        except Exception as error:  # noqa: BLE001 - whatever it was, it is undone, and tells its own sender when alone
            log.debug("arrivals-apart", size=len(group), error=type(error).__name__)
        else:
            for one, rows in zip(ordered, written, strict=True):
                one.kept = rows == 1


def _values(one: _Waiting, now: datetime, since: datetime) -> dict[str, Any]:
    known = one.known
    row = imaging.instance_row(uuid7(), one.caller.partner_id, known.series_id, one.facts, one.content, now)
    return {
        **{f"{name}_": value for name, value in row.items()},
        "known_study": known.study_id,
        "known_patient": known.patient_id,
        "known_traits": known.traits,
        "since": since,
    }


def _told(one: _Waiting, trail: AuditTrail) -> dict[str, Any]:
    said = trail.values(one.line(one.known.record_id)) if one.line is not None else dict.fromkeys(_SAID)
    return {"known_record": one.known.record_id, **{f"line_{name}": said[name] for name in _SAID}}


def _keep_alone(
    step: Step, *, facts: ObjectFacts, content: Content, line: Line | None
) -> tuple[GatewayError | None, _Known | None]:
    """Keep one object, and say where the next of its series belongs."""
    refusal = imaging.keep(step, facts, content)
    if refusal is not None:
        return refusal, None
    found = step.session.execute(
        select(Series.id, Study.id, Study.patient_id, Study.traits, Study.record_id)
        .join(Study, Study.id == Series.study_id)
        .where(
            Study.partner_id == step.caller.partner_id,
            Study.study_instance_uid == facts.study.study_instance_uid,
            Series.series_instance_uid == facts.series.series_instance_uid,
        )
    ).one_or_none()
    if line is not None:
        step.trail.write(step.session, line(found.record_id if found is not None else None))
    if found is None:
        return None, None
    series_id, study_id, patient_id, said, record_id = found.tuple()
    return None, _Known(series_id, study_id, patient_id, said, record_id, facts.patient)
