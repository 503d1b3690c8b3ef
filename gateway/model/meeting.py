"""The recurring meeting (RCP), its members, its sessions and who attended.

A session is wall-clock time in an IANA zone; ``starts_at`` is derived from it once and kept for indexes.
"""

from __future__ import annotations

import uuid
from datetime import date, datetime, time
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from gateway.model.directory import Organisation, Practitioner
from gateway.model.network import Network
from gateway.model.store import Base, Keyed, utcnow

__all__ = ["Attendance", "Rcp", "RcpMember", "RcpSession"]


class Rcp(Keyed, Base):
    """One recurring meeting.

    Attributes
    ----------
    national_number
        Its number under ``urn:oid:1.2.250.1.161.1.20.3.1``.
    kind
        ``rcp`` (quorum, report, traceability) or ``staff``.
    level
        ``locale``, ``regionale``, ``nationale`` or ``europeenne``.
    nature
        ORG-117 (appareil/organe) or ORG-132 (transversale).
    quorum
        Rule as data: ``{"groups": {...}, "minimum": 3}`` (spec features A.1); never code.
    notification
        Settings of the preliminary notification: ``active``, ``jours`` (2), ``calendrier`` (ouvres | hors_we),
        ``heure_envoi`` (08:00), ``limite``, ``rattrapage``, ``renotification_auto``, ``fermetures`` …; absent keys take
        the calendar's defaults.
    webconference
        ``lien``, ``complement``, ``mode``, ``agenda``; empty when there is none.
    fiche
        What it asks of a dossier: mandatory fields, labels, and what all its dossiers share (`gateway.rcp.fiche`).
    fictive
        A trial RCP: never notified, never counted.
    """

    __tablename__ = "rcp"
    __table_args__ = (
        CheckConstraint("kind IN ('rcp', 'staff')", name="kind"),
        CheckConstraint("level IN ('locale', 'regionale', 'nationale', 'europeenne')", name="level"),
    )

    network_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("network.id"), index=True)
    organisation_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("organisation.id"))
    national_number: Mapped[str] = mapped_column(unique=True)
    manager_identifier: Mapped[str | None]
    manager_name: Mapped[str | None]
    title: Mapped[str]
    kind: Mapped[str] = mapped_column(default="rcp")
    level: Mapped[str] = mapped_column(default="regionale")
    nature: Mapped[str] = mapped_column(default="ORG-117")
    organ: Mapped[str | None]
    place: Mapped[str]
    zone: Mapped[str] = mapped_column(default="Europe/Paris")
    holidays: Mapped[str] = mapped_column(default="metropole")
    contact: Mapped[str]
    signature: Mapped[str]
    quorum: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    notification: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    webconference: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    form: Mapped[str | None]
    fiche: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    fictive: Mapped[bool] = mapped_column(default=False)

    network: Mapped[Network] = relationship(lazy="joined")
    organisation: Mapped[Organisation | None] = relationship(lazy="joined")
    members: Mapped[list[RcpMember]] = relationship(back_populates="rcp", lazy="selectin")


class RcpMember(Keyed, Base):
    """A professional's part in an RCP: ``membre``, ``coordonnateur``, ``administrateur`` or ``secretaire``.

    ``until`` closes a membership at once; the row stays for the trail.
    """

    __tablename__ = "rcp_member"
    __table_args__ = (
        UniqueConstraint("rcp_id", "practitioner_id", "role"),
        CheckConstraint("role IN ('membre', 'coordonnateur', 'administrateur', 'secretaire')", name="role"),
        Index("ix_rcp_member_practitioner", "practitioner_id", "rcp_id"),
    )

    rcp_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("rcp.id"))
    practitioner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practitioner.id"))
    role: Mapped[str]
    since: Mapped[datetime] = mapped_column(default=utcnow)
    until: Mapped[datetime | None]

    rcp: Mapped[Rcp] = relationship(back_populates="members")
    practitioner: Mapped[Practitioner] = relationship(lazy="joined")


class RcpSession(Keyed, Base):
    """One dated session.

    Attributes
    ----------
    identifier
        Its own number, stable when the date moves.
    on, start, end
        Wall date and hours in ``zone``; ``starts_at``/``ends_at`` the same as instants.
    state
        ``prevue``, ``ouverte``, ``close``, ``reportee`` or ``annulee``.
    """

    __tablename__ = "rcp_session"
    __table_args__ = (
        UniqueConstraint("rcp_id", "on", "start"),
        CheckConstraint("state IN ('prevue', 'ouverte', 'close', 'reportee', 'annulee')", name="state"),
        CheckConstraint("ends_at > starts_at", name="lasts"),
    )

    rcp_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("rcp.id"))
    identifier: Mapped[str] = mapped_column(unique=True)
    on: Mapped[date]
    start: Mapped[time]
    end: Mapped[time]
    zone: Mapped[str]
    starts_at: Mapped[datetime] = mapped_column(index=True)
    ends_at: Mapped[datetime]
    place: Mapped[str | None]
    state: Mapped[str] = mapped_column(default="prevue")
    version: Mapped[int] = mapped_column(default=1)
    opened_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]

    rcp: Mapped[Rcp] = relationship(lazy="joined")
    attendances: Mapped[list[Attendance]] = relationship(back_populates="session", lazy="selectin")


class Attendance(Keyed, Base):
    """Who attended a session, how, with the speciality as it was then."""

    __tablename__ = "attendance"
    __table_args__ = (UniqueConstraint("session_id", "practitioner_id"),)

    session_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("rcp_session.id"))
    practitioner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practitioner.id"))
    mode: Mapped[str] = mapped_column(default="presentiel")
    speciality: Mapped[str | None]
    recorded_at: Mapped[datetime] = mapped_column(default=utcnow)

    session: Mapped[RcpSession] = relationship(back_populates="attendances")
    practitioner: Mapped[Practitioner] = relationship(lazy="joined")
