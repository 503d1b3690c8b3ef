"""Professionals, organisations, practice roles and MSSanté mailboxes, each with its source and date.

Keys are the national ones (RPPS, FINESS), never another server's technical ids.
"""

from __future__ import annotations

import uuid
from datetime import date, datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from gateway.model.store import Base, Keyed, utcnow

__all__ = ["Mailbox", "Organisation", "PracticeRole", "Practitioner"]


class Organisation(Keyed, Base):
    """A structure; ``finess`` is the key, ``idnst`` its national form with prefix."""

    __tablename__ = "organisation"

    finess: Mapped[str | None] = mapped_column(unique=True)
    idnst: Mapped[str | None] = mapped_column(unique=True)
    name: Mapped[str]
    kind: Mapped[str] = mapped_column(default="etablissement")
    city: Mapped[str | None]
    postal_code: Mapped[str | None]
    address_line: Mapped[str | None]
    phone: Mapped[str | None]
    source: Mapped[str]
    as_of: Mapped[date]


class Practitioner(Keyed, Base):
    """A professional.

    Attributes
    ----------
    rpps
        11 digits; `None` for those who have none (then ``idnps`` alone).
    idnps
        National identifier with its prefix (``8`` + RPPS), the key on every wire.
    speciality
        Code of TRE_R38; ``profession`` of TRE_G15.
    informed
        False when the physician asked not to be notified any more (NON_REFUS).
    """

    __tablename__ = "practitioner"

    rpps: Mapped[str | None] = mapped_column(unique=True)
    idnps: Mapped[str] = mapped_column(unique=True)
    family: Mapped[str]
    given: Mapped[str]
    title: Mapped[str | None]
    profession: Mapped[str | None]
    speciality: Mapped[str | None]
    informed: Mapped[bool] = mapped_column(default=True)
    source: Mapped[str]
    as_of: Mapped[date]
    updated_at: Mapped[datetime] = mapped_column(default=utcnow)

    roles: Mapped[list[PracticeRole]] = relationship(back_populates="practitioner", lazy="selectin")
    mailboxes: Mapped[list[Mailbox]] = relationship(
        back_populates="practitioner", lazy="selectin", foreign_keys="Mailbox.practitioner_id"
    )


class PracticeRole(Keyed, Base):
    """One situation of practice of a professional in an organisation."""

    __tablename__ = "practice_role"
    __table_args__ = (UniqueConstraint("practitioner_id", "organisation_id", "speciality"),)

    practitioner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practitioner.id"))
    organisation_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("organisation.id"), index=True)
    speciality: Mapped[str | None]
    profession: Mapped[str | None]
    source: Mapped[str]
    as_of: Mapped[date]

    practitioner: Mapped[Practitioner] = relationship(back_populates="roles")
    organisation: Mapped[Organisation | None] = relationship(lazy="joined")


class Mailbox(Keyed, Base):
    """An MSSanté address (TRE_R257): PER, ORG, APP or CAB.

    ``unusable_since`` is set by a hard bounce; ``confidential`` is the red list.
    """

    __tablename__ = "mailbox"
    __table_args__ = (
        CheckConstraint("num_nonnulls(practitioner_id, organisation_id) >= 1", name="owned"),
        Index("uq_mailbox_practitioner", "practitioner_id", "address", unique=True),
        Index("ix_mailbox_address", text("lower(address)")),
    )

    address: Mapped[str]
    kind: Mapped[str] = mapped_column(default="PER")
    practitioner_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("practitioner.id"))
    organisation_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("organisation.id"), index=True)
    preferred: Mapped[bool] = mapped_column(default=False)
    confidential: Mapped[bool] = mapped_column(default=False)
    source: Mapped[str]
    as_of: Mapped[date]
    unusable_since: Mapped[datetime | None]

    practitioner: Mapped[Practitioner | None] = relationship(back_populates="mailboxes", foreign_keys=[practitioner_id])
