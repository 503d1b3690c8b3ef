"""One inscription of one patient to one session, and what gathers around it.

Unique by inscription number; same patient, session and tumour twice is a conflict, two tumours are legitimate
(DECISIONS 4). Moves keep history. The state machine itself is a table of `gateway.rcp.dossier_states`.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from gateway.model.directory import Organisation, Practitioner
from gateway.model.meeting import RcpSession
from gateway.model.partner import Partner
from gateway.model.person import PatientRecord
from gateway.model.store import Base, Keyed, utcnow

__all__ = ["Contribution", "Correspondent", "Dossier", "DossierMove"]


class Dossier(Keyed, Base):
    """One inscription.

    Attributes
    ----------
    number
        ``urn:uuid:…``, the inscription number (CDA ``inFulfillmentOf/order/id``).
    reference
        Opaque short reference with check character, printed in mails (``RCP-7K3Q-29``).
    placer_system, placer_value
        The requester's own number.
    tumour_key
        What tells two tumours of one patient apart: the tumour's business identifier, else its coded topography.
    label
        The problem in the requester's words, shown in mails and lists (``probleme``).
    registered_at
        Domain time of the inscription to its present session; ``prefiche_at`` when the form was first complete: the
        instant that the notification's limit is compared with.
    clinical
        The coded clinical items and form answers (`gateway.rcp.facts`), as JSON.
    opposed_at
        The patient's opposition; nothing leaves after it.
    """

    __tablename__ = "dossier"
    __table_args__ = (
        Index(
            "uq_dossier_patient_session_tumour",
            "record_id",
            "session_id",
            "tumour_key",
            unique=True,
            postgresql_where=text("state NOT IN ('annule', 'refuse')"),
        ),
        Index("ix_dossier_placer", "placer_system", "placer_value"),
        Index("ix_dossier_session", "session_id", "rank"),
        CheckConstraint("participation IN ('present', 'absent', 'webconference')", name="participation"),
    )

    number: Mapped[str] = mapped_column(unique=True)
    reference: Mapped[str] = mapped_column(unique=True)
    placer_system: Mapped[str | None]
    placer_value: Mapped[str | None]
    session_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("rcp_session.id"))
    record_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("patient_record.id"), index=True)
    partner_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("partner.id"), index=True)
    organisation_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("organisation.id"))
    requester_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("practitioner.id"), index=True)
    participation: Mapped[str] = mapped_column(default="absent")
    state: Mapped[str] = mapped_column(default="inscrit", index=True)
    rank: Mapped[int | None]
    urgent: Mapped[bool] = mapped_column(default=False)
    label: Mapped[str | None]
    question: Mapped[str | None]
    reason_code: Mapped[str | None]
    reason_text: Mapped[str | None]
    tumour_key: Mapped[str] = mapped_column(default="")
    clinical: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    requested_at: Mapped[datetime | None]
    registered_at: Mapped[datetime]
    prefiche_at: Mapped[datetime | None]
    opposed_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(default=1)

    session: Mapped[RcpSession] = relationship(lazy="joined")
    record: Mapped[PatientRecord] = relationship(lazy="joined")
    partner: Mapped[Partner | None] = relationship(lazy="joined")
    organisation: Mapped[Organisation | None] = relationship(lazy="joined")
    requester: Mapped[Practitioner | None] = relationship(lazy="joined")
    correspondents: Mapped[list[Correspondent]] = relationship(back_populates="dossier", lazy="selectin")
    contributions: Mapped[list[Contribution]] = relationship(
        back_populates="dossier", lazy="selectin", order_by="Contribution.at"
    )
    moves: Mapped[list[DossierMove]] = relationship(order_by="DossierMove.at")


class DossierMove(Keyed, Base):
    """One change of state or of session, by whom and when (domain time)."""

    __tablename__ = "dossier_move"

    dossier_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("dossier.id"), index=True)
    from_state: Mapped[str | None]
    to_state: Mapped[str]
    session_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("rcp_session.id"))
    reason: Mapped[str | None]
    actor: Mapped[str]
    at: Mapped[datetime]


class Correspondent(Keyed, Base):
    """A doctor to be told of the dossier, as snapshot at the inscription; later changes apply until he is notified.

    ``role``: ``medecin-traitant``, ``demandeur`` or ``correspondant``. ``practitioner_id`` is `None` when no number was
    given (NON_RPPS): a name alone links nobody. ``declined_at``: « ce n'est pas mon patient ».
    ``wishes_to_attend`` is the « la discussion m'intéresse » of the treating physician.
    ``connected_at``: first time he opened the fiche (label CONNECTE).
    """

    __tablename__ = "correspondent"
    __table_args__ = (
        Index("uq_correspondent_practitioner", "dossier_id", "role", "practitioner_id", unique=True),
        Index("ix_correspondent_practitioner", "practitioner_id", "role"),
        CheckConstraint("role IN ('medecin-traitant', 'demandeur', 'correspondant')", name="role"),
    )

    dossier_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("dossier.id"))
    practitioner_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("practitioner.id"))
    role: Mapped[str]
    display: Mapped[str | None]
    use_personal: Mapped[bool] = mapped_column(default=True)
    use_secretariat: Mapped[bool] = mapped_column(default=False)
    since: Mapped[datetime] = mapped_column(default=utcnow)
    declined_at: Mapped[datetime | None]
    wishes_to_attend: Mapped[bool] = mapped_column(default=False)
    connected_at: Mapped[datetime | None]

    dossier: Mapped[Dossier] = relationship(back_populates="correspondents")
    practitioner: Mapped[Practitioner | None] = relationship(lazy="joined")


class Contribution(Keyed, Base):
    """What the treating physician adds; author and speciality frozen as they were.

    ``key`` makes a double submit harmless. ``channel``: ``portail`` (authenticated by PSC) or ``messagerie``.
    """

    __tablename__ = "contribution"

    dossier_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("dossier.id"), index=True)
    key: Mapped[str] = mapped_column(unique=True)
    author_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practitioner.id"))
    author_name: Mapped[str]
    author_speciality: Mapped[str | None]
    text: Mapped[str]
    channel: Mapped[str] = mapped_column(default="portail")
    after_session: Mapped[bool] = mapped_column(default=False)
    at: Mapped[datetime]

    dossier: Mapped[Dossier] = relationship(back_populates="contributions")
    author: Mapped[Practitioner] = relationship(lazy="joined")
