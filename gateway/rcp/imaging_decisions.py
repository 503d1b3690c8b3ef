"""What people decided about a study and a patient record: it holds while both say what they said then.

A decision is kept with a mark of both sides. When either side says something else later, the decision is no answer to
that: the question is asked again. [DECISIONS 7] One decision is kept whatever either side says later: who detached a
study from a patient knows more than what is written; only a person gives it back.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable
from typing import Any, Final, Literal

from gateway.model.imaging import Study
from gateway.model.person import PatientRecord

__all__ = ["accepted", "decide", "part", "parted", "picture", "refused"]

Answer = Literal["accepte", "refuse"]
_PARTED: Final = "detache"

_TRAITS = (
    *("partner_id", "system", "value", "birth_family", "used_family", "given", "given_names", "used_given"),
    *("sex", "birth_date", "ins_system", "ins_value", "ins_qualified", "active"),
)


def picture(study: Study, records: Iterable[PatientRecord] = ()) -> str:
    """Mark what both sides say: the same mark is the same picture in front of a person."""
    said: list[Any] = [study.traits, study.patient_id, study.patient_id_system, study.order_keys]
    said += [[str(getattr(one, name)) for name in _TRAITS] for one in records]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]


def decide(study: Study, record: PatientRecord, answer: Answer) -> None:
    """Keep what a person decided of a study and a record; a refusal says less than a detachment."""
    if answer == "refuse" and parted(study, [record.id]):
        return
    study.decisions = {**(study.decisions or {}), str(record.id): [answer, picture(study, [record])]}


def accepted(study: Study, record: PatientRecord) -> bool:
    """Whether a person said that these images are this record's, as both stand."""
    return _said(study, record) == "accepte"


def refused(study: Study, record: PatientRecord) -> bool:
    """Whether a person said that these images are not this record's, as both stand, or detached them from it."""
    return _said(study, record) == "refuse" or parted(study, [record.id])


def part(study: Study, record: PatientRecord) -> None:
    """Keep that a person detached a study from a record."""
    study.decisions = {**(study.decisions or {}), str(record.id): [_PARTED, picture(study, [record])]}


def parted(study: Study, record_ids: Iterable[uuid.UUID]) -> bool:
    """Whether a person detached a study from one of these records, and nobody gave it back to that one."""
    known = study.decisions or {}
    return any(known.get(str(one), [""])[0] == _PARTED for one in record_ids)


def _said(study: Study, record: PatientRecord) -> str | None:
    answer, mark = (study.decisions or {}).get(str(record.id), (None, None))
    return answer if answer is not None and mark == picture(study, [record]) else None
