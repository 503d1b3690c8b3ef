"""The report (compte rendu) of one dossier, version by version, and the bytes of each of its forms.

A validated version never changes (a trigger of the first migration refuses it); a correction or an addendum is a new
version that replaces (DECISIONS 5).
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, LargeBinary, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from gateway.model.directory import Practitioner
from gateway.model.dossier import Dossier
from gateway.model.store import Base, Keyed, utcnow

__all__ = ["Report", "ReportForm"]


class Report(Keyed, Base):
    """One version of a report.

    Attributes
    ----------
    set_id
        ``setId`` of the CDA, the same for every version.
    draft
        What the coordinator typed: proposal, comments, quorum … as JSON, editable while ``state`` is ``brouillon``.
    content
        The frozen facts (`gateway.rcp.report_content`), exact bytes, written at validation.
    state
        ``brouillon``, ``valide``, ``remplace`` or ``annule``.
    withdrawn_at, withdrawn_because
        When it was withdrawn, and why in the words of who did.
    """

    __tablename__ = "report"
    __table_args__ = (
        UniqueConstraint("dossier_id", "version"),
        CheckConstraint("state IN ('brouillon', 'valide', 'remplace', 'annule')", name="state"),
        CheckConstraint("(state = 'brouillon') = (content IS NULL)", name="frozen"),
    )

    dossier_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("dossier.id"))
    set_id: Mapped[uuid.UUID]
    version: Mapped[int] = mapped_column(default=1)
    state: Mapped[str] = mapped_column(default="brouillon")
    draft: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    content: Mapped[bytes | None] = mapped_column(LargeBinary)
    replaces_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("report.id"))
    author_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practitioner.id"))
    validator_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("practitioner.id"))
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    validated_at: Mapped[datetime | None]
    withdrawn_at: Mapped[datetime | None]
    withdrawn_because: Mapped[str | None]

    dossier: Mapped[Dossier] = relationship(lazy="joined")
    forms: Mapped[list[ReportForm]] = relationship(back_populates="report", lazy="selectin")
    validator: Mapped[Practitioner | None] = relationship(foreign_keys=[validator_id], lazy="joined")


class ReportForm(Keyed, Base):
    """The bytes of one form of one version: ``pdf``, ``cda`` or ``xdm``; kept in the blob store by ``sha256``."""

    __tablename__ = "report_form"
    __table_args__ = (UniqueConstraint("report_id", "form"),)

    report_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("report.id"))
    form: Mapped[str]
    content_type: Mapped[str]
    sha256: Mapped[str]
    size_bytes: Mapped[int]

    report: Mapped[Report] = relationship(back_populates="forms")
