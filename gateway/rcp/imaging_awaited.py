"""Images that are awaited: what was ordered or declared for a patient, and what of it came.

[spec fhir-fr 6.1, 6.2; spec features S0-082]

Promises: an order of one organisation answers the images of that organisation only; two numbers agree when their value
and kind do, and their issuers unless one of them says none (`Ordered.sure` says which). Whether awaited images came is
read from what is attached, never kept: a study that leaves a dossier is missing again.
Not promised: that an order is right about its patient; `gateway.rcp.imaging_match` judges.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from gateway.model.dossier import Dossier
from gateway.model.imaging import AwaitedStudy, Study, StudyDossier
from gateway.model.person import PatientRecord
from gateway.rcp import dossier_states
from gateway.rcp.facts import IdentifierFact

__all__ = ["Awaited", "Imagery", "Ordered", "imagery", "keys_of", "ordered", "placer_keys", "sources"]

#: Numbers by which objects and orders name each other: accession, placer's and filler's order, the study itself.
_KINDS = frozenset({"ACSN", "PLAC", "FILL", "UID"})


def keys_of(orders: Iterable[IdentifierFact]) -> list[str]:
    """Write order numbers as they are looked up: with their issuer, and once more without."""
    said = [one for one in orders if one.kind in _KINDS and one.value]
    return sorted({f"{one.kind}|{system}|{one.value}" for one in said for system in (one.system, "")})


def placer_keys(dossier: Dossier) -> list[str]:
    """Write the requester's own number of an inscription as the orders of objects are written."""
    if not dossier.placer_value:
        return []
    return keys_of([IdentifierFact(system=dossier.placer_system or "", value=dossier.placer_value, kind="PLAC")])


@dataclass(frozen=True, slots=True)
class Ordered:
    """Whom an order names; ``sure``: its issuer is the one that the objects name."""

    record: PatientRecord
    sure: bool


def ordered(session: Session, study: Study) -> list[Ordered]:
    """Find whom the orders that a study answers name, the surest first; at most one line a record."""
    if not study.order_keys:
        return []
    said = set(study.order_keys)
    found: dict[uuid.UUID, bool] = {}
    rows = session.execute(
        select(AwaitedStudy.record_id, AwaitedStudy.keys).where(
            AwaitedStudy.partner_id == study.partner_id,
            AwaitedStudy.keys.overlap(study.order_keys),
        )
    ).tuples()
    values = {key.rpartition("|")[2] for key in said if key.startswith("PLAC|")}
    inscribed = session.scalars(
        select(Dossier).where(
            Dossier.partner_id == study.partner_id,
            Dossier.placer_value.in_(sorted(values)),
            Dossier.state.not_in(sorted(dossier_states.FINAL)),
        )
    ).unique()
    for record_id, keys in (*rows, *((one.record_id, placer_keys(one)) for one in inscribed)):
        agreement = _agree(said, set(keys))
        if agreement is not None:
            found[record_id] = found.get(record_id, False) or agreement
    records = session.scalars(
        select(PatientRecord)
        .where(PatientRecord.id.in_(sorted(found)), PatientRecord.active)
        .order_by(PatientRecord.id)
    )
    return sorted((Ordered(one, found[one.id]) for one in records), key=lambda one: not one.sure)


def sources(session: Session, study: Study) -> tuple[str, ...]:
    """Name the orders of the study's patient that it answers, as ``Type/id``: what softwares ordered, inscriptions."""
    said = set(study.order_keys)
    if not said or study.record_id is None:
        return ()
    rows = session.execute(
        select(AwaitedStudy.source, AwaitedStudy.keys)
        .where(
            AwaitedStudy.partner_id == study.partner_id,
            AwaitedStudy.record_id == study.record_id,
            AwaitedStudy.keys.overlap(study.order_keys),
        )
        .order_by(AwaitedStudy.at, AwaitedStudy.id)
    ).tuples()
    found = [source for source, keys in rows if _agree(said, set(keys)) is not None]
    values = {key.rpartition("|")[2] for key in said if key.startswith("PLAC|")}
    if values:
        inscribed = session.scalars(
            select(Dossier)
            .where(
                Dossier.partner_id == study.partner_id,
                Dossier.record_id == study.record_id,
                Dossier.placer_value.in_(sorted(values)),
            )
            .order_by(Dossier.id)
        ).unique()
        found += [f"ServiceRequest/{one.id}" for one in inscribed if _agree(said, set(placer_keys(one))) is not None]
    return tuple(dict.fromkeys(found))


def _agree(said: set[str], known: set[str]) -> bool | None:
    """Whether two sets of keys mean one order: surely, where issuers agree; `None` when they do not."""
    common = said & known
    if any(key.split("|", 2)[1] for key in common):
        return True
    bare = (key for key in common if not (_issued(said, key) and _issued(known, key)))
    return False if any(bare) else None


def _issued(keys: set[str], bare: str) -> bool:
    kind, _, value = bare.split("|", 2)
    return any(one != bare and one.startswith(f"{kind}|") and one.endswith(f"|{value}") for one in keys)


# ---- what a dossier awaits, and what of it came


@dataclass(frozen=True, slots=True)
class Awaited:
    """One line of what is awaited; ``study_id`` is what came for it."""

    id: uuid.UUID
    label: str
    modality: str | None
    planned_on: date | None
    source: str
    author: str | None
    study_id: uuid.UUID | None


@dataclass(frozen=True, slots=True)
class Imagery:
    """The images of one dossier.

    Parameters
    ----------
    without
        The fiche says « sans imagerie ».
    awaited
        What was ordered or declared, the earliest first.
    received
        How many studies are attached.
    """

    without: bool
    awaited: tuple[Awaited, ...]
    received: int

    @property
    def missing(self) -> tuple[Awaited, ...]:
        """What is awaited and did not come."""
        return tuple(one for one in self.awaited if one.study_id is None)

    @property
    def complete(self) -> bool:
        """Whether all that is awaited came, or the fiche says « sans imagerie » and nothing is awaited (S0-082)."""
        return not self.missing and (self.received > 0 or self.without)


def imagery(
    session: Session, dossiers: Collection[Dossier], without: Collection[uuid.UUID]
) -> dict[uuid.UUID, Imagery]:
    """Return what each dossier awaits and what of it came, in two questions whatever their number.

    Parameters
    ----------
    without
        Ids of the dossiers whose fiche says « sans imagerie ».
    """
    ids = [one.id for one in dossiers]
    attached: dict[uuid.UUID, list[Study]] = {key: [] for key in ids}
    rows = session.execute(
        select(StudyDossier.dossier_id, Study)
        .join(Study, Study.id == StudyDossier.study_id)
        .where(StudyDossier.dossier_id.in_(ids), Study.state == "rattache")
        .order_by(Study.received_at, Study.id)
    )
    for dossier_id, study in rows:
        attached[dossier_id].append(study)
    of_record: dict[uuid.UUID, list[uuid.UUID]] = {}
    for one in dossiers:
        of_record.setdefault(one.record_id, []).append(one.id)
    awaited: dict[uuid.UUID, list[AwaitedStudy]] = {key: [] for key in ids}
    wanted = session.scalars(
        select(AwaitedStudy)
        .where(
            or_(
                AwaitedStudy.dossier_id.in_(ids),
                AwaitedStudy.dossier_id.is_(None) & AwaitedStudy.record_id.in_(sorted(of_record)),
            ),
        )
        .order_by(AwaitedStudy.planned_on.nulls_last(), AwaitedStudy.at, AwaitedStudy.id)
    )
    for line in wanted:
        for key in [line.dossier_id] if line.dossier_id is not None else of_record[line.record_id]:
            awaited[key].append(line)
    return {key: Imagery(key in without, _answered(awaited[key], attached[key]), len(attached[key])) for key in ids}


def _answered(lines: Sequence[AwaitedStudy], studies: Sequence[Study]) -> tuple[Awaited, ...]:
    """Pair what is awaited with what came: by number, else by modality where the order has no number in common."""
    free = list(studies)
    came: dict[uuid.UUID, uuid.UUID] = {}
    for line in lines:
        found = next((one for one in studies if _agree(set(one.order_keys), set(line.keys)) is not None), None)
        if found is not None:
            came[line.id] = found.id
            free = [one for one in free if one is not found]
    for line in lines:
        if line.id in came or line.modality is None:
            continue
        # An exam that is planned later than the images were taken is another one.
        found = next((one for one in free if line.modality in one.modalities and not _earlier(one, line)), None)
        if found is not None:
            came[line.id] = found.id
            free.remove(found)
    return tuple(
        Awaited(
            id=one.id,
            label=one.label or "Images demandées",
            modality=one.modality,
            planned_on=one.planned_on,
            source=one.source,
            author=one.author,
            study_id=came.get(one.id),
        )
        for one in lines
    )


def _earlier(study: Study, line: AwaitedStudy) -> bool:
    taken = study.started_at.date() if study.started_at is not None else study.started_on
    return taken is not None and line.planned_on is not None and taken < line.planned_on
