"""Studies, series, instances, and where their bytes are.

``DICOM`` attributes keep the standard's keyword in lower snake case. Duplicate SOP Instance UID: same bytes accepted,
other bytes refused and quarantined. A study is never attached on a conflict of traits.
"""

from __future__ import annotations

import uuid
from datetime import date, datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, LargeBinary, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TEXT
from sqlalchemy.orm import Mapped, mapped_column, relationship

from gateway.model.store import Base, Keyed, utcnow

__all__ = ["AwaitedStudy", "Instance", "QuarantinedObject", "Series", "Study", "StudyDossier"]

# Compared byte by byte: what begins alike stands together in an index whatever the server's language.
_SEARCHED = Text(collation="C")


class Study(Keyed, Base):
    """One study as one partner sent it.

    Attributes
    ----------
    state
        ``attendu`` (no patient here yet), ``rattache`` (its patient record is known), ``quarantaine`` (a conflict:
        never shown in a dossier), ``propose`` (traits alone).
    traits
        PatientName, PatientBirthDate, PatientSex and further identifiers as the objects say.
    started_on
        The day, when the objects say no time.
    patient_name, referring_physician_name, patient_birth_date, study_date, study_time
        What searches compare: as the first object says, in the form of `gateway.dicom.attributes`.
    order_keys
        Accession and order numbers, as `AwaitedStudy.keys` has them.
    decisions
        What people decided, by record (`gateway.rcp.imaging_cases`).
    """

    __tablename__ = "study"
    __table_args__ = (
        UniqueConstraint("partner_id", "study_instance_uid"),
        Index("ix_study_patient", "patient_id", "patient_id_system"),
        Index("ix_study_unsettled", "last_instance_at", postgresql_where=text("settled_at IS NULL")),
        Index("ix_study_order_keys", "order_keys", postgresql_using="gin"),
        CheckConstraint("state IN ('attendu', 'rattache', 'quarantaine', 'propose')", name="state"),
    )

    partner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("partner.id"))
    study_instance_uid: Mapped[str] = mapped_column(index=True)
    state: Mapped[str] = mapped_column(default="attendu")
    reason: Mapped[str | None]
    record_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("patient_record.id"), index=True)
    patient_id: Mapped[str | None] = mapped_column(_SEARCHED)
    patient_id_system: Mapped[str | None]
    issuer_of_patient_id: Mapped[str | None] = mapped_column(_SEARCHED)
    patient_name: Mapped[str | None] = mapped_column(_SEARCHED, index=True)
    patient_birth_date: Mapped[str | None] = mapped_column(_SEARCHED, index=True)
    patient_sex: Mapped[str | None] = mapped_column(_SEARCHED)
    traits: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    accession_number: Mapped[str | None] = mapped_column(_SEARCHED, index=True)
    accession_system: Mapped[str | None]
    order_keys: Mapped[list[str]] = mapped_column(ARRAY(TEXT), default=list, server_default=text("'{}'"))
    decisions: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    study_id: Mapped[str | None] = mapped_column(_SEARCHED)
    study_date: Mapped[str | None] = mapped_column(_SEARCHED, index=True)
    study_time: Mapped[str | None] = mapped_column(_SEARCHED)
    study_description: Mapped[str | None]
    referring_physician: Mapped[str | None]
    referring_physician_name: Mapped[str | None] = mapped_column(_SEARCHED)
    started_at: Mapped[datetime | None]
    started_on: Mapped[date | None]
    modalities: Mapped[list[str]] = mapped_column(ARRAY(TEXT), default=list)
    instances_count: Mapped[int] = mapped_column(default=0)
    received_at: Mapped[datetime] = mapped_column(default=utcnow)
    last_instance_at: Mapped[datetime] = mapped_column(default=utcnow)
    represented_at: Mapped[datetime | None]
    settled_at: Mapped[datetime | None]

    series: Mapped[list[Series]] = relationship(back_populates="study")


class StudyDossier(Base):
    """A study attached to a dossier; why (``ipp``, ``ins``, ``demande``, ``personne``)."""

    __tablename__ = "study_dossier"

    study_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("study.id"), primary_key=True)
    dossier_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("dossier.id"), primary_key=True, index=True)
    basis: Mapped[str]
    author: Mapped[str]
    at: Mapped[datetime] = mapped_column(default=utcnow)


class Series(Keyed, Base):
    """One series of a study."""

    __tablename__ = "series"
    __table_args__ = (UniqueConstraint("study_id", "series_instance_uid"),)

    study_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("study.id"))
    series_instance_uid: Mapped[str] = mapped_column(index=True)
    modality: Mapped[str | None]
    series_number: Mapped[int | None]
    series_description: Mapped[str | None]
    body_part_examined: Mapped[str | None]
    series_date: Mapped[str | None] = mapped_column(_SEARCHED)
    series_time: Mapped[str | None] = mapped_column(_SEARCHED)
    performed_procedure_step_start_date: Mapped[str | None] = mapped_column(_SEARCHED)
    performed_procedure_step_start_time: Mapped[str | None] = mapped_column(_SEARCHED)
    scheduled_procedure_step_id: Mapped[str | None] = mapped_column(_SEARCHED)
    requested_procedure_id: Mapped[str | None] = mapped_column(_SEARCHED)
    started_at: Mapped[datetime | None]
    instances_count: Mapped[int] = mapped_column(default=0)

    study: Mapped[Study] = relationship(back_populates="series")
    instances: Mapped[list[Instance]] = relationship(back_populates="series")


class Instance(Keyed, Base):
    """One object; ``dicom_json`` is made at ingest and concatenated at query, without any base URL."""

    __tablename__ = "instance"
    __table_args__ = (
        UniqueConstraint("partner_id", "sop_instance_uid"),
        Index("ix_instance_of_series", "series_id", "instance_number", "id"),
    )

    partner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("partner.id"))
    series_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("series.id"))
    sop_instance_uid: Mapped[str] = mapped_column(index=True)
    sop_class_uid: Mapped[str]
    transfer_syntax_uid: Mapped[str]
    instance_number: Mapped[int | None]
    number_of_frames: Mapped[int | None]
    rows: Mapped[int | None]
    columns: Mapped[int | None]
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    dicom_json: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
    received_at: Mapped[datetime] = mapped_column(default=utcnow)

    series: Mapped[Series] = relationship(back_populates="instances")


class QuarantinedObject(Keyed, Base):
    """An object that was refused but kept: other bytes for a known UID, another patient's, or unreadable.

    ``decision``: ``admis`` (judged again, it is an instance now) or what the person who left it there said.
    """

    __tablename__ = "quarantined_object"
    __table_args__ = (UniqueConstraint("partner_id", "sop_instance_uid", "sha256"),)

    partner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("partner.id"))
    study_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("study.id"), index=True)
    sop_instance_uid: Mapped[str]
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str]
    received_at: Mapped[datetime] = mapped_column(default=utcnow)
    judged_at: Mapped[datetime | None]
    judged_by: Mapped[str | None]
    decision: Mapped[str | None]


class AwaitedStudy(Keyed, Base):
    """Images that are awaited for a patient; whether they came is read from what is attached.

    Attributes
    ----------
    dossier_id
        The dossier that awaits them; none: whichever is open when they come.
    source
        ``Type/id`` of the resource that orders them, or ``portail/`` and an id.
    keys
        ``ACSN|system|value``, ``PLAC|…``, ``FILL|…``: the numbers that the objects may carry; each once more without
        its system, since most objects name none. ``UID||…``: the study itself.
    """

    __tablename__ = "awaited_study"
    __table_args__ = (
        UniqueConstraint("partner_id", "source"),
        Index("ix_awaited_study_keys", "keys", postgresql_using="gin"),
    )

    record_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("patient_record.id"), index=True)
    dossier_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("dossier.id"), index=True)
    partner_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("partner.id"))
    source: Mapped[str]
    keys: Mapped[list[str]] = mapped_column(ARRAY(TEXT), default=list)
    label: Mapped[str | None]
    modality: Mapped[str | None]
    planned_on: Mapped[date | None]
    author: Mapped[str | None]
    at: Mapped[datetime] = mapped_column(default=utcnow)
