"""The personalised care plan (PPS) that follows a validated report, version by version, and where its document is kept.

A validated version never changes (a trigger of the fifth migration refuses it); an update is a new version, which
replaces.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, LargeBinary, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from gateway.model.directory import Practitioner
from gateway.model.dossier import Dossier
from gateway.model.store import Base, Keyed, utcnow

__all__ = ["CarePlan"]


class CarePlan(Keyed, Base):
    """One version of a plan.

    Attributes
    ----------
    set_id
        ``setId`` of the CDA, the same for every version.
    draft
        What a person wrote, by the keys of ``mappings/PPS-programme.json``; changes while ``state`` is ``brouillon``.
    content
        The frozen facts (`gateway.rcp.pps_content`), exact bytes, written at validation.
    sha256, size_bytes
        The document, kept in the blob store.
    author_id
        Who wrote it last; once it is validated, who did.
    """

    __tablename__ = "care_plan"
    __table_args__ = (
        UniqueConstraint("dossier_id", "version"),
        Index("uq_care_plan_draft", "dossier_id", unique=True, postgresql_where="state = 'brouillon'"),
        CheckConstraint("state IN ('brouillon', 'valide', 'remplace')", name="state"),
        CheckConstraint("(state = 'brouillon') = (content IS NULL)", name="frozen"),
        CheckConstraint("(content IS NULL) = (sha256 IS NULL)", name="kept"),
    )

    dossier_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("dossier.id"))
    set_id: Mapped[uuid.UUID]
    version: Mapped[int] = mapped_column(default=1)
    state: Mapped[str] = mapped_column(default="brouillon")
    draft: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    content: Mapped[bytes | None] = mapped_column(LargeBinary)
    sha256: Mapped[str | None]
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    replaces_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("care_plan.id"))
    author_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practitioner.id"))
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    validated_at: Mapped[datetime | None]

    dossier: Mapped[Dossier] = relationship(lazy="joined")
    author: Mapped[Practitioner] = relationship(lazy="joined")
