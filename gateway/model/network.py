"""A regional DCC or a filière served by this gateway; it owns its RCPs and stands in every access predicate.

Promises nothing about who belongs to it: membership is a row of the RCP, rights are `gateway.rcp.access`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from gateway.model.store import Base, Keyed

__all__ = ["Network"]


class Network(Keyed, Base):
    """One network.

    Attributes
    ----------
    code
        Short stable name used on the command line and in fixtures.
    zone, holidays
        IANA zone and holiday set (``mappings/jours_feries.json``) by default for its RCPs.
    rrc_identifier
        Its number under ``urn:oid:1.2.250.1.161.1.20.1.1`` [CI-SIS FRCP 2022.01].
    """

    __tablename__ = "network"

    code: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    base_url: Mapped[str]
    contact: Mapped[str]
    zone: Mapped[str] = mapped_column(default="Europe/Paris")
    holidays: Mapped[str] = mapped_column(default="metropole")
    rrc_identifier: Mapped[str | None]
    territories: Mapped[list[Any]] = mapped_column(JSONB, default=list)
