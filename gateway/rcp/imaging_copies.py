"""Copies of a study without identity, for a second opinion: who may have one, and how it is made.

Promises
--------
* Only who organises the RCP of a dossier has a copy of its images made, and reads it; for anybody else it does not
  exist. Asking, and handing out, leave their line in the trail.
* A copy is of what the study held when it was made; a study that left its dossier, or went to quarantine, is copied no
  more and its copies are handed out no more.
* Made again after any crash it is the same copy: new UIDs come from its secret, which is forgotten at the end. Which
  UID became which stands in a table that leaves with nothing.
* An object that says itself that its pixels show the patient is left out unless that was asked for; where pixels may
  show him, the copy says so.

[PS3.15 E]; knows no protocol: `gateway.rcp.ports.ImageCopier` does it to the bytes.
"""

from __future__ import annotations

import secrets
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from sqlalchemy import Select, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from gateway.errors import Conflict, InvalidContent, NotFound, Unavailable
from gateway.model.dossier import Dossier
from gateway.model.imaging import Instance, Series, Study, StudyDossier
from gateway.model.imaging_copy import StudyCopy, StudyCopyObject, StudyCopyUid
from gateway.model.person import PatientRecord
from gateway.rcp import access
from gateway.rcp.access import Caller
from gateway.rcp.imaging_match import ATTACHED
from gateway.rcp.ports import CopiedObject, ImageCopier
from gateway.rcp.step import Step, Steps

__all__ = [
    "BURNED_IN",
    "CHARACTERISTICS",
    "DATES",
    "DONE",
    "EMPTY",
    "OPTIONS",
    "Summary",
    "ask",
    "copies",
    "hand_out",
    "make_due",
    "may_copy",
    "summary",
]

CHARACTERISTICS, DATES, BURNED_IN = "caracteristiques", "dates", "incrustees"
#: What may be kept beyond the basic profile, in the order of the form.
OPTIONS: Final = (CHARACTERISTICS, DATES, BURNED_IN)
ASKED, DONE, EMPTY = "demandee", "faite", "vide"
_LEFT_BURNED_IN: Final = "incrustation"
#: Copies of one study at most: each holds all of its bytes again.
_COPIES_OF_A_STUDY: Final = 5
_PSEUDONYM_ALPHABET: Final = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of the objects of a copy.

    Parameters
    ----------
    left_out
        How many were left out, by reason.
    to_look_at
        Copied objects whose pixels may show who it is.
    """

    copied: int
    size_bytes: int
    to_look_at: int
    left_out: dict[str, int]


def may_copy(session: Session, caller: Caller, dossier: Dossier) -> bool:
    """Whether the caller organises the RCP of a dossier."""
    return bool(access.roles_in(session, caller, dossier.session.rcp_id) & access.ORGANISERS)


def _held(session: Session, caller: Caller, dossier_id: uuid.UUID) -> Dossier:
    dossier = session.scalars(select(Dossier).where(Dossier.id == dossier_id, access.dossiers(caller))).one_or_none()
    if dossier is None or not may_copy(session, caller, dossier):
        raise access.hidden(caller, "Dossier", dossier_id)
    return dossier


def ask(step: Step, dossier_id: uuid.UUID, study_id: uuid.UUID, options: Collection[str]) -> StudyCopy:
    """Ask for a copy of a study of a dossier; it is made a moment later.

    Raises
    ------
    NotFound
        The dossier or the study does not exist for this caller, or he does not organise the RCP.
    Conflict
        ``copies-nombreuses``.
    """
    session, caller = step.session, step.caller
    dossier = _held(session, caller, dossier_id)
    study = session.scalars(
        select(Study)
        .join(StudyDossier, StudyDossier.study_id == Study.id)
        .where(StudyDossier.dossier_id == dossier.id, Study.id == study_id, Study.state == ATTACHED)
        .with_for_update(of=Study)
    ).one_or_none()
    if study is None:
        raise access.hidden(caller, "Study", study_id)
    there = session.scalar(select(func.count()).where(StudyCopy.study_id == study.id))
    if there is not None and there >= _COPIES_OF_A_STUDY:
        raise Conflict("copies-nombreuses", f"Cette étude a déjà été copiée {_COPIES_OF_A_STUDY} fois.")
    copy = StudyCopy(
        study_id=study.id,
        dossier_id=dossier.id,
        asked_by=caller.identifier or "",
        asked_at=step.now,
        state=ASKED,
        pseudonym="COPIE-" + "".join(secrets.choice(_PSEUDONYM_ALPHABET) for _ in range(8)),
        options=[one for one in OPTIONS if one in options],
        secret=secrets.token_bytes(32),
    )
    session.add(copy)
    session.flush()
    _audit(step, "copie", "C", copy, study)
    return copy


def copies(session: Session, caller: Caller, dossier_id: uuid.UUID) -> tuple[Dossier, Sequence[StudyCopy]]:
    """Return the copies of a dossier's images that may be handed out, latest first.

    Raises
    ------
    NotFound
        The dossier does not exist for this caller, or he does not organise its RCP.
    """
    dossier = _held(session, caller, dossier_id)
    found = session.scalars(_readable(dossier).order_by(StudyCopy.asked_at.desc(), StudyCopy.id)).all()
    return dossier, found


def _readable(dossier: Dossier) -> Select[StudyCopy]:
    return (
        select(StudyCopy)
        .join(Study, Study.id == StudyCopy.study_id)
        .join(StudyDossier, (StudyDossier.study_id == Study.id) & (StudyDossier.dossier_id == dossier.id))
        .where(StudyCopy.dossier_id == dossier.id, Study.state == ATTACHED)
    )


def summary(session: Session, copy_id: uuid.UUID) -> Summary:
    """Count what became of a copy's objects."""
    rows = session.execute(
        select(
            StudyCopyObject.left_out,
            StudyCopyObject.burned_in,
            func.count(),
            func.coalesce(func.sum(StudyCopyObject.size_bytes), 0),
        )
        .where(StudyCopyObject.copy_id == copy_id)
        .group_by(StudyCopyObject.left_out, StudyCopyObject.burned_in)
    ).all()
    left: Counter[str] = Counter()
    for reason, _, count, _ in rows:
        if reason is not None:
            left[reason] += count
    kept = [(burned_in, count, int(size or 0)) for reason, burned_in, count, size in rows if reason is None]
    return Summary(
        copied=sum(count for _, count, _ in kept),
        size_bytes=sum(size for _, _, size in kept),
        to_look_at=sum(count for burned_in, count, _ in kept if burned_in != "non"),
        left_out=dict(left),
    )


def hand_out(step: Step, dossier_id: uuid.UUID, copy_id: uuid.UUID) -> tuple[StudyCopy, list[StudyCopyObject]]:
    """Give the objects of a copy that is made, in the order of the study.

    Raises
    ------
    NotFound
        No such copy for this caller, or it is not made yet.
    """
    dossier = _held(step.session, step.caller, dossier_id)
    copy = step.session.scalars(
        _readable(dossier).where(StudyCopy.id == copy_id, StudyCopy.state == DONE)
    ).one_or_none()
    if copy is None:
        raise access.hidden(step.caller, "StudyCopy", copy_id)
    objects = step.session.scalars(
        select(StudyCopyObject)
        .join(Instance, Instance.id == StudyCopyObject.instance_id)
        .join(Series, Series.id == StudyCopyObject.series_id)
        .where(StudyCopyObject.copy_id == copy.id, StudyCopyObject.left_out.is_(None))
        .order_by(Series.series_number.nulls_last(), Series.id, Instance.instance_number.nulls_last(), Instance.id)
    ).all()
    _audit(step, "remise-copie", "R", copy, copy.study)
    return copy, list(objects)


def _audit(step: Step, event: str, action: str, copy: StudyCopy, study: Study) -> None:
    step.audit(
        event,
        action=action,
        persons=(study.record_id,) if study.record_id is not None else (),
        object_type="Study",
        object_id=study.study_instance_uid,
        detail={"copy": str(copy.id), "options": list(copy.options)},
    )


# ---- how a copy is made


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is left to do of one copy."""

    secret: bytes
    pseudonym: str
    options: tuple[str, ...]
    known: tuple[str, ...]
    objects: tuple[tuple[uuid.UUID, uuid.UUID, str], ...]


def make_due(steps: Steps, copier: ImageCopier) -> int:
    """Make the copies that were asked for; periodic. Returns how many were ended.

    What goes wrong with one is raised when the others are made.
    """
    with steps.store.session() as session:
        due = session.scalars(select(StudyCopy.id).where(StudyCopy.state == ASKED).order_by(StudyCopy.asked_at)).all()
    ended, faults = 0, list[Exception]()
    for copy_id in due:
        try:
            ended += _make(steps, copier, copy_id)
        except Exception as error:  # noqa: BLE001 - raised below
            faults.append(error)
    if faults:
        raise faults[0]
    return ended


def _make(steps: Steps, copier: ImageCopier, copy_id: uuid.UUID) -> bool:
    plan = steps.run(access.SYSTEM, partial(_plan, copy_id=copy_id))
    if plan is None:
        return False
    for instance_id, series_id, sha256 in plan.objects:
        made: CopiedObject | str
        try:
            made = copier.copy(
                sha256,
                secret=plan.secret,
                pseudonym=plan.pseudonym,
                options=[one for one in plan.options if one != BURNED_IN],
                known=plan.known,
            )
        except (InvalidContent, NotFound) as error:
            made = error.code
        except Unavailable:
            return False  # the next run goes on with this object
        if not isinstance(made, str) and made.burned_in == "oui" and BURNED_IN not in plan.options:
            made = _LEFT_BURNED_IN
        steps.run(access.SYSTEM, _keeping(copy_id, instance_id, series_id, made))
    ended: bool = steps.run(access.SYSTEM, partial(_end, copy_id=copy_id))
    return ended


def _plan(step: Step, *, copy_id: uuid.UUID) -> _Plan | None:
    session = step.session
    copy = session.get(StudyCopy, copy_id)
    if copy is None or copy.state != ASKED or copy.secret is None:
        return None
    study = copy.study
    if study.state != ATTACHED:  # it is nobody's now: what was asked for is no more
        copy.state, copy.secret, copy.done_at = EMPTY, None, step.now
        return None
    record = session.get(PatientRecord, study.record_id) if study.record_id is not None else None
    done = select(StudyCopyObject.instance_id).where(StudyCopyObject.copy_id == copy.id)
    rows = session.execute(
        select(Instance.id, Instance.series_id, Instance.sha256)
        .join(Series, Series.id == Instance.series_id)
        .where(Series.study_id == study.id, Instance.id.not_in(done))
        .order_by(Series.id, Instance.instance_number.nulls_last(), Instance.id)
    )
    return _Plan(
        secret=copy.secret,
        pseudonym=copy.pseudonym,
        options=tuple(copy.options),
        known=_known(record) if record is not None else (),
        objects=tuple((row.id, row.series_id, row.sha256) for row in rows),
    )


def _known(record: PatientRecord) -> tuple[str, ...]:
    said = (record.birth_family, record.used_family, record.given, record.used_given, record.value, record.ins_value)
    return tuple(text for text in said if text)


def _keeping(
    copy_id: uuid.UUID, instance_id: uuid.UUID, series_id: uuid.UUID, made: CopiedObject | str
) -> Callable[[Step], None]:
    def verb(step: Step) -> None:
        facts: dict[str, object] = {"left_out": made}
        if not isinstance(made, str):
            facts = {
                "sop_class_uid": made.sop_class_uid,
                "sop_instance_uid": made.sop_instance_uid,
                "transfer_syntax_uid": made.transfer_syntax_uid,
                "sha256": made.sha256,
                "size_bytes": made.size_bytes,
                "burned_in": made.burned_in,
            }
            uids = [
                {"copy_id": copy_id, "original": original, "replacement": replacement}
                for original, replacement in sorted(made.uids.items())
            ]
            if uids:
                step.session.execute(insert(StudyCopyUid).on_conflict_do_nothing(), uids)
        row = {"copy_id": copy_id, "instance_id": instance_id, "series_id": series_id} | facts
        # Another worker made the very same.
        step.session.execute(insert(StudyCopyObject).on_conflict_do_nothing().values(row))

    return verb


def _end(step: Step, *, copy_id: uuid.UUID) -> bool:
    [copy] = step.lock(StudyCopy, copy_id)
    if copy.state != ASKED:
        return False
    copied = step.session.scalar(
        select(func.count()).where(StudyCopyObject.copy_id == copy.id, StudyCopyObject.left_out.is_(None))
    )
    copy.state, copy.secret, copy.done_at = (DONE if copied else EMPTY), None, step.now
    return True
