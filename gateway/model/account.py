"""Portal sessions and pending sign-ins: revocable on the server, useless when read from the database.

Only SHA-256 of the browser's secrets is stored. Real time throughout, never the domain's clock (DECISIONS 12).
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from gateway.model.directory import Practitioner
from gateway.model.store import Base, Keyed, utcnow

__all__ = ["SignIn", "WebSession"]


class SignIn(Keyed, Base):
    """One authorization request under way: used once, bound to the browser, expiring.

    ``state_hash`` and ``browser_hash`` are hex SHA-256; ``nonce`` and ``code_verifier`` are needed in clear at the
    return and live only minutes.
    """

    __tablename__ = "sign_in"

    state_hash: Mapped[str] = mapped_column(unique=True)
    browser_hash: Mapped[str]
    nonce: Mapped[str]
    code_verifier: Mapped[str]
    next_path: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    expires_at: Mapped[datetime] = mapped_column(index=True)
    used_at: Mapped[datetime | None]


class WebSession(Keyed, Base):
    """A signed-in browser.

    Attributes
    ----------
    token_hash
        Hex SHA-256 of the cookie.
    situation
        The exercise and activity chosen, as Pro Santé Connect gave them.
    psc_sid
        ``sid`` of the provider's session, for back-channel logout.
    """

    __tablename__ = "web_session"

    token_hash: Mapped[str] = mapped_column(unique=True)
    practitioner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practitioner.id"), index=True)
    acr: Mapped[str]
    situation: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    psc_sid: Mapped[str | None] = mapped_column(index=True)
    id_token: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    seen_at: Mapped[datetime] = mapped_column(default=utcnow)
    expires_at: Mapped[datetime] = mapped_column(index=True)
    ended_at: Mapped[datetime | None]
    ended_by: Mapped[str | None]

    practitioner: Mapped[Practitioner] = relationship(lazy="joined")
