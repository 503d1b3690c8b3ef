"""Orders of images, as a software brings them or a person declares them: kept, and the images that waited for them.

Promises: an order that names its patient is awaited by the dossiers of that patient until it is cancelled; images that
came before it are recognised in the same step, by the rules of `gateway.rcp.imaging_match`; two writers of an order and
of its images see each other, whoever is first. A person declares for a dossier that he may edit, and takes back what a
person declared.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from datetime import date
from typing import Final

from msgspec import Struct
from sqlalchemy import select

from gateway.errors import Conflict, InvalidContent
from gateway.identifiers import uuid7
from gateway.model.dossier import Dossier
from gateway.model.imaging import AwaitedStudy, Study
from gateway.model.partner import Partner
from gateway.rcp import access, fiche, imaging, imaging_awaited, imaging_match
from gateway.rcp.facts import IdentifierFact
from gateway.rcp.step import Step

__all__ = ["DECLARED", "LABEL_CHARACTERS", "MODALITIES", "ImageOrder", "declare", "forget", "note", "take_back"]

#: `AwaitedStudy.source` of what a person declared begins with it.
DECLARED: Final = "portail/"
LABEL_CHARACTERS: Final = 120
_DECLARED_AT_MOST: Final = 50
#: Modalities that a person may name, as DICOM codes them [PS3.16 CID 29], and in words.
MODALITIES: Final = {
    "CT": "Scanner",
    "MR": "IRM",
    "PT": "TEP",
    "NM": "Scintigraphie",
    "US": "Échographie",
    "MG": "Mammographie",
    "XA": "Angiographie",
    "DX": "Radiographie",
    "ES": "Endoscopie",
    "SM": "Lames d’anatomopathologie",
    "OT": "Autre imagerie",
}


class ImageOrder(Struct, frozen=True, kw_only=True):
    """What one resource orders; ``source`` is its ``Type/id``."""

    source: str
    record_id: uuid.UUID
    dossier_id: uuid.UUID | None = None
    numbers: tuple[IdentifierFact, ...] = ()
    label: str | None = None
    modality: str | None = None
    planned_on: date | None = None


def note(step: Step, partner: Partner, order: ImageOrder) -> None:
    """Keep what an order says now, and recognise the images that waited for it."""
    session = step.session
    row = _row(step, partner, order.source)
    keys = imaging_awaited.keys_of(order.numbers)
    before = row.keys if row is not None else []
    imaging_match.serialise(session, {f"demande|{partner.id}|{key}" for key in {*keys, *before}})
    if row is None:
        row = AwaitedStudy(id=uuid7(), partner_id=partner.id, source=order.source, at=step.now)
        session.add(row)
    row.record_id, row.dossier_id, row.keys = order.record_id, order.dossier_id, keys
    row.label, row.modality, row.planned_on = order.label, order.modality, order.planned_on
    session.flush()
    for study in _answering(step, partner, {*keys, *before}):
        if study.state in (imaging_match.WAITING, imaging_match.PROPOSED):
            imaging_match.recognise(step, partner, study)
            imaging.refresh(step, study)
        elif study.state == imaging_match.ATTACHED:
            step.touch(study)  # it names the orders that it answers


def _answering(step: Step, partner: Partner, keys: Collection[str]) -> list[Study]:
    """Lock the studies that bear one of these numbers, whatever became of them but the quarantine."""
    if not keys:
        return []
    found = step.session.scalars(
        select(Study.id)
        .where(
            Study.partner_id == partner.id,
            Study.order_keys.overlap(sorted(keys)),
            Study.state != imaging_match.QUARANTINED,
        )
        .order_by(Study.id)
    ).all()
    return step.lock(Study, *found) if found else []


def forget(step: Step, partner: Partner, source: str) -> None:
    """Await no more what a resource ordered; images that it brought stay where they are."""
    row = _row(step, partner, source)
    if row is None:
        return
    keys = list(row.keys)
    step.session.delete(row)
    step.session.flush()
    attached = [one for one in _answering(step, partner, keys) if one.state == imaging_match.ATTACHED]
    step.touch(*attached)


def _row(step: Step, partner: Partner, source: str) -> AwaitedStudy | None:
    wanted = select(AwaitedStudy).where(AwaitedStudy.partner_id == partner.id, AwaitedStudy.source == source)
    return step.session.scalars(wanted.with_for_update()).one_or_none()


# ---- what a person declares


def declare(step: Step, dossier_id: uuid.UUID, *, label: str, modality: str, planned_on: date | None, key: str) -> None:
    """Declare images that a dossier awaits; the same form twice declares them once.

    Raises
    ------
    NotFound, Forbidden
        The dossier does not exist for the caller, or is not his to edit.
    Conflict
        Its report is validated.
    InvalidContent
        ``examen-absent``, ``examen-trop-long``, ``modalite-inconnue``, ``examens-trop-nombreux`` (rules).
    """
    dossier = fiche.held(step, dossier_id)
    said = " ".join(label.split())
    if not said:
        text = "Nommez l’examen attendu."
        raise InvalidContent("examen-absent", text, expression="examen", rule=True)
    if len(said) > LABEL_CHARACTERS:
        text = f"Ce texte dépasse {LABEL_CHARACTERS} caractères."
        raise InvalidContent("examen-trop-long", text, expression="examen", rule=True)
    if modality not in MODALITIES:
        text = "Choisissez une modalité de la liste."
        raise InvalidContent("modalite-inconnue", text, expression="modalite", rule=True)
    mine = step.session.scalars(select(AwaitedStudy.source).where(AwaitedStudy.dossier_id == dossier.id)).all()
    source = f"{DECLARED}{key}"
    if source in mine:
        return
    if len(mine) >= _DECLARED_AT_MOST:
        text = f"Un dossier n’attend pas plus de {_DECLARED_AT_MOST} examens."
        raise InvalidContent("examens-trop-nombreux", text, expression="examen", rule=True)
    row = AwaitedStudy(
        id=uuid7(),
        record_id=dossier.record_id,
        dossier_id=dossier.id,
        partner_id=dossier.partner_id,
        source=source,
        keys=[],
        label=said,
        modality=modality,
        planned_on=planned_on,
        author=step.caller.name or step.caller.identifier,
        at=step.now,
    )
    step.session.add(row)
    step.session.flush()
    _tell(step, dossier, row, "C")


def take_back(step: Step, dossier_id: uuid.UUID, awaited_id: uuid.UUID) -> None:
    """Await no more what a person declared; twice is once.

    Raises
    ------
    Conflict
        ``examen-demande``: a software ordered it, and takes it back itself.
    """
    dossier = fiche.held(step, dossier_id)
    wanted = select(AwaitedStudy).where(AwaitedStudy.id == awaited_id)
    row = step.session.scalars(wanted.with_for_update()).one_or_none()
    if row is None:
        return
    if row.dossier_id != dossier.id or not row.source.startswith(DECLARED):
        if row.record_id != dossier.record_id:
            raise access.hidden(step.caller, "AwaitedStudy", awaited_id)
        text = "Cet examen est demandé par un logiciel : c’est lui qui l’annule."
        raise Conflict("examen-demande", text)
    _tell(step, dossier, row, "D")
    step.session.delete(row)
    step.session.flush()


def _tell(step: Step, dossier: Dossier, row: AwaitedStudy, action: str) -> None:
    step.audit(
        "modification",
        action=action,
        persons=(dossier.record_id,),
        dossier=dossier.id,
        object_type="AwaitedStudy",
        object_id=str(row.id),
    )
