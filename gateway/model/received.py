"""Documents about patients that others send: what their header says, whose they are, what became of them."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from gateway.model.store import Base, Keyed, utcnow

__all__ = ["ReceivedDocument"]


class ReceivedDocument(Keyed, Base):
    """One document that came in; its bytes stand in the blob store under ``sha256``.

    Attributes
    ----------
    sender
        Address of a mail's sender, or id of the partner whose software, or of the person who brought it at the portal.
    unique_id, set_id, replaces
        ``root`` or ``root^extension``, as the header of the document writes them.
    state
        ``attache``, ``quarantaine`` (``reason`` says why), ``remplace`` by a later version, or ``retire``. A withdrawal
        that came before its document has no bytes: the document is then refused.
    record_id, dossier_id
        Whose it is and where it is shown; none while a person must look.
    """

    __tablename__ = "received_document"
    __table_args__ = (
        Index("uq_received_document", "unique_id", "sha256", "sender", unique=True, postgresql_nulls_not_distinct=True),
        Index("ix_received_document_set", "set_id"),
        CheckConstraint("state IN ('attache', 'quarantaine', 'remplace', 'retire')", name="state"),
        CheckConstraint("format IN ('n1', 'structure', 'pdf', 'png', 'jpeg', 'gif')", name="format"),
    )

    message_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("message.id"))
    channel: Mapped[str]
    sender: Mapped[str | None]
    unique_id: Mapped[str]
    set_id: Mapped[str | None]
    version: Mapped[int | None]
    replaces: Mapped[str | None]
    format: Mapped[str]
    sha256: Mapped[str | None]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    title: Mapped[str | None]
    type_code: Mapped[str | None]
    type_label: Mapped[str | None]
    author: Mapped[str | None]
    written_at: Mapped[datetime | None]
    record_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("patient_record.id"), index=True)
    dossier_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("dossier.id"), index=True)
    state: Mapped[str]
    reason: Mapped[str | None]
    received_at: Mapped[datetime] = mapped_column(default=utcnow)
