"""The human, and what each source says of him.

A `PatientRecord` is keyed (source partner, system, value), one FHIR Patient each. The link record → person is a row
with reason and author: merge and unmerge add and end links, nothing stored is rewritten. Same INS with other traits:
the record is accepted, unlinked, and a `WorkItem` asks a person.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TEXT
from sqlalchemy.orm import Mapped, mapped_column

from gateway.model.store import Base, Keyed, utcnow

__all__ = ["PatientRecord", "Person", "PersonLink", "WorkItem"]


class Person(Keyed, Base):
    """A human as far as the gateway knows; holds nothing but his existence."""

    __tablename__ = "person"

    created_at: Mapped[datetime] = mapped_column(default=utcnow)


class PatientRecord(Keyed, Base):
    """What one source says of one patient.

    Attributes
    ----------
    system, value
        The source's own identifier: the IPP and its assigning domain.
    ins_system, ins_value
        INS as received (``urn:oid:…``), `None` when none came; ``ins_qualified`` is true only when the identity status
        is VALI/QUAL and the key is right (DECISIONS 9).
    ins_faults
        Codes of what is wrong with a received INS (it is kept all the same).
    birth_date
        ISO 8601, possibly partial, exactly as the source wrote it.
    treating_idnps, treating_display
        The médecin traitant whom this source declares; snapshot into each dossier at its inscription.
    match_key
        Folded traits (birth name, first given, birth date, sex) that must agree before two records become one person.
    """

    __tablename__ = "patient_record"
    __table_args__ = (
        UniqueConstraint("partner_id", "system", "value"),
        Index("ix_patient_record_ins", "ins_value", "ins_system", postgresql_where=text("ins_value IS NOT NULL")),
    )

    partner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("partner.id"))
    system: Mapped[str]
    value: Mapped[str]
    birth_family: Mapped[str | None]
    used_family: Mapped[str | None]
    given: Mapped[str | None]
    given_names: Mapped[list[str]] = mapped_column(ARRAY(TEXT), default=list)
    used_given: Mapped[str | None]
    sex: Mapped[str] = mapped_column(default="U")
    birth_date: Mapped[str | None]
    birth_place: Mapped[str | None]
    ins_system: Mapped[str | None]
    ins_value: Mapped[str | None]
    ins_qualified: Mapped[bool] = mapped_column(default=False)
    ins_faults: Mapped[list[str]] = mapped_column(ARRAY(TEXT), default=list)
    identity_status: Mapped[str | None]
    treating_idnps: Mapped[str | None]
    treating_display: Mapped[str | None]
    match_key: Mapped[str | None] = mapped_column(index=True)
    active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    updated_at: Mapped[datetime] = mapped_column(default=utcnow)


class PersonLink(Keyed, Base):
    """A record belongs to a person from ``linked_at`` until ``ended_at``, because of ``reason``, says ``author``."""

    __tablename__ = "person_link"
    __table_args__ = (
        Index("uq_person_link_live", "record_id", unique=True, postgresql_where=text("ended_at IS NULL")),
        Index("ix_person_link_person", "person_id", postgresql_where=text("ended_at IS NULL")),
    )

    record_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("patient_record.id"))
    person_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("person.id"))
    reason: Mapped[str]
    author: Mapped[str]
    linked_at: Mapped[datetime] = mapped_column(default=utcnow)
    ended_at: Mapped[datetime | None]


class WorkItem(Keyed, Base):
    """Something that only a person may decide: an identity collision, a quarantined study, a refused mail.

    ``key`` makes raising the same question twice harmless while it is open.
    """

    __tablename__ = "work_item"
    __table_args__ = (Index("uq_work_item_open", "key", unique=True, postgresql_where=text("closed_at IS NULL")),)

    key: Mapped[str]
    kind: Mapped[str] = mapped_column(index=True)
    reason: Mapped[str]
    network_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("network.id"), index=True)
    partner_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("partner.id"))
    record_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("patient_record.id"))
    dossier_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("dossier.id"))
    study_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("study.id"))
    message_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("message.id"))
    details: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    opened_at: Mapped[datetime] = mapped_column(default=utcnow)
    closed_at: Mapped[datetime | None]
    closed_by: Mapped[str | None]
    decision: Mapped[str | None]
