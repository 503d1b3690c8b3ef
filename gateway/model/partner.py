"""An organisation that speaks to the gateway: what it may write and how each wire recognises it.

What no partner is registered for is refused in ``prod``; a partner writes only in its own patient-identifier domains.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TEXT
from sqlalchemy.orm import Mapped, mapped_column, relationship

from gateway.model.store import Base, Keyed, utcnow

__all__ = ["Partner", "PartnerCredential", "TokenReplay"]


class Partner(Keyed, Base):
    """One organisation.

    Attributes
    ----------
    patient_domains
        FHIR ``system`` values (URL or ``urn:oid:``) of the patient identifiers it may write.
    fhir_scopes
        SMART v2 scopes granted, such as ``system/Patient.crus``.
    """

    __tablename__ = "partner"

    name: Mapped[str] = mapped_column(unique=True)
    network_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("network.id"))
    finess: Mapped[str | None]
    patient_domains: Mapped[list[str]] = mapped_column(ARRAY(TEXT), default=list)
    fhir_scopes: Mapped[list[str]] = mapped_column(ARRAY(TEXT), default=list)
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    revoked_at: Mapped[datetime | None]

    credentials: Mapped[list[PartnerCredential]] = relationship(back_populates="partner", lazy="selectin")


class PartnerCredential(Keyed, Base):
    """How one wire recognises a partner.

    ``kind``/``value``: ``fhir`` / client_id (details: ``jwks`` or ``jwks_uri``), ``aet`` / AE title (details: ``host``,
    ``port``), ``mllp`` / host or certificate (`gateway.rcp.mllp_peers`), ``peer`` / base URL, ``mailbox`` / address.
    """

    __tablename__ = "partner_credential"
    __table_args__ = (
        Index("uq_partner_credential_live", "kind", "value", unique=True, postgresql_where=text("revoked_at IS NULL")),
    )

    partner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("partner.id"), index=True)
    kind: Mapped[str]
    value: Mapped[str]
    details: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    revoked_at: Mapped[datetime | None]

    partner: Mapped[Partner] = relationship(back_populates="credentials", lazy="joined")


class TokenReplay(Base):
    """A ``jti`` already used by a client; kept until its assertion has expired [SMART backend services]."""

    __tablename__ = "token_replay"

    client_id: Mapped[str] = mapped_column(primary_key=True)
    jti: Mapped[str] = mapped_column(primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)
