"""Copies of studies without identity: what was asked for, which UIDs became which, and the objects made.

Who it was is found from a copy by these rows alone: they never leave.
"""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, LargeBinary, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, TEXT
from sqlalchemy.orm import Mapped, mapped_column, relationship

from gateway.model.imaging import Study
from gateway.model.store import Base, Keyed

__all__ = ["StudyCopy", "StudyCopyObject", "StudyCopyUid"]


class StudyCopy(Keyed, Base):
    """One copy of one study, for a second opinion.

    Attributes
    ----------
    state
        ``demandee``, then ``faite``, or ``vide``: the study holds nothing that may be copied.
    options
        What is kept beyond the basic profile: ``caracteristiques``, ``dates``; ``incrustees``, objects that say
        themselves that their pixels show who it is.
    secret
        What new UIDs are made with; forgotten when the copy is made.
    """

    __tablename__ = "study_copy"
    __table_args__ = (
        CheckConstraint("state IN ('demandee', 'faite', 'vide')", name="state"),
        Index("ix_study_copy_due", "asked_at", postgresql_where=text("state = 'demandee'")),
    )

    study_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("study.id"), index=True)
    dossier_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("dossier.id"), index=True)
    asked_by: Mapped[str]
    asked_at: Mapped[datetime]
    done_at: Mapped[datetime | None]
    state: Mapped[str] = mapped_column(default="demandee")
    pseudonym: Mapped[str] = mapped_column(unique=True)
    options: Mapped[list[str]] = mapped_column(ARRAY(TEXT))
    secret: Mapped[bytes | None] = mapped_column(LargeBinary)

    study: Mapped[Study] = relationship()


class StudyCopyUid(Base):
    """A UID of the study, and the one that stands for it in the copy."""

    __tablename__ = "study_copy_uid"
    __table_args__ = (UniqueConstraint("copy_id", "replacement"),)

    copy_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("study_copy.id"), primary_key=True)
    original: Mapped[str] = mapped_column(primary_key=True)
    replacement: Mapped[str]


class StudyCopyObject(Base):
    """What became of one object of the study: its copy in the blob store, or why there is none.

    Attributes
    ----------
    burned_in
        ``oui``, ``possible``, ``non``: whether its pixels show who it is.
    left_out
        Code of the reason; then nothing else is said.
    """

    __tablename__ = "study_copy_object"

    copy_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("study_copy.id"), primary_key=True)
    instance_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("instance.id"), primary_key=True)
    series_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("series.id"))
    left_out: Mapped[str | None]
    sop_class_uid: Mapped[str | None]
    sop_instance_uid: Mapped[str | None]
    transfer_syntax_uid: Mapped[str | None]
    sha256: Mapped[str | None]
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    burned_in: Mapped[str | None]
