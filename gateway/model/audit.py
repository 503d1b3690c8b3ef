"""The audit trail: who read or released what, for whom, why.

Append-only (a trigger of the first migration refuses UPDATE, DELETE and TRUNCATE). Each line carries its own MAC and is
inserted with the step that it tells of; a sealer chains committed lines in batches below the transaction horizon and
anchors daily. Never clinical content, a token or a search text: ids, codes and the actor.
"""

from __future__ import annotations

import hashlib
import hmac
import uuid
from datetime import date, datetime
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import BigInteger, Identity, Index, LargeBinary, Table, text
from sqlalchemy.dialects.postgresql import ARRAY, UUID
from sqlalchemy.orm import Mapped, Session, mapped_column

from gateway.identifiers import uuid7
from gateway.model.store import Base, XactId, utcnow
from gateway.model.writes import later

__all__ = ["AuditFacts", "AuditLine", "AuditSeal", "AuditTrail"]


class AuditFacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one line says [spec audit §2].

    Parameters
    ----------
    event
        Row of the catalogue: ``connexion``, ``deconnexion``, ``recherche``, ``consultation``, ``creation``,
        ``modification``, ``validation``, ``imagerie``, ``envoi``, ``import``, ``droits``, ``opposition``, ``audit``,
        ``systeme``, ``refus``.
    action
        FHIR AuditEvent.action: C, R, U, D or E.
    outcome
        FHIR AuditEvent.outcome: ``0`` success, ``4`` refused, ``8`` serious, ``12`` major.
    persons
        Patient records named by the answer (ids, never traits).
    purpose
        v3-ActReason: TREAT, ETREAT, BTG, PATRQT, HSYSADMIN.
    """

    event: str
    action: str = "R"
    outcome: str = "0"
    reason: str | None = None
    actor_kind: str = "systeme"
    actor_id: str | None = None
    actor_name: str | None = None
    actor_situation: str | None = None
    acr: str | None = None
    wire: str | None = None
    address: str | None = None
    session: str | None = None
    request_id: str | None = None
    purpose: str = "TREAT"
    persons: tuple[uuid.UUID, ...] = ()
    dossier: uuid.UUID | None = None
    object_type: str | None = None
    object_id: str | None = None
    object_version: str | None = None
    object_sha256: str | None = None
    recipient: str | None = None
    happened: datetime | None = None
    detail: dict[str, str | int] | None = None


class AuditLine(Base):
    """One line as stored: ``payload`` is the canonical JSON that ``mac`` covers, the other columns serve searches."""

    __tablename__ = "audit_line"
    __table_args__ = (
        Index("ix_audit_line_persons", "persons", postgresql_using="gin"),
        Index("ix_audit_line_position", "xid", "seq"),
    )

    seq: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    id: Mapped[uuid.UUID] = mapped_column(unique=True)
    recorded: Mapped[datetime] = mapped_column(index=True)
    xid: Mapped[int] = mapped_column(XactId(), server_default=text("pg_current_xact_id()"))
    event: Mapped[str]
    outcome: Mapped[str]
    actor_id: Mapped[str | None] = mapped_column(index=True)
    dossier: Mapped[uuid.UUID | None] = mapped_column(index=True)
    persons: Mapped[list[uuid.UUID]] = mapped_column(ARRAY(UUID(as_uuid=True)), default=list)
    payload: Mapped[bytes] = mapped_column(LargeBinary)
    mac: Mapped[bytes] = mapped_column(LargeBinary)


_LINES: Table = Base.metadata.tables[AuditLine.__tablename__]


class AuditSeal(Base):
    """A batch of committed lines, chained: ``chain = HMAC(key, previous chain ‖ MACs in (xid, seq) order)``."""

    __tablename__ = "audit_seal"

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    upto_xid: Mapped[int] = mapped_column(XactId())
    upto_seq: Mapped[int] = mapped_column(BigInteger)
    lines: Mapped[int]
    chain: Mapped[bytes] = mapped_column(LargeBinary)
    sealed_at: Mapped[datetime] = mapped_column(default=utcnow)
    anchor_of: Mapped[date | None] = mapped_column(unique=True)


class AuditTrail:
    """Writes lines; holds the key that lines are authenticated with.

    Parameters
    ----------
    secret
        The gateway's secret; the trail's key is derived from it and never stored in the database.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"rcp-gateway audit v1", hashlib.sha256)

    def mac(self, payload: bytes) -> bytes:
        """HMAC-SHA-256 of one line's canonical payload."""
        return hmac.digest(self._key, payload, hashlib.sha256)

    def chain(self, previous: bytes, macs: list[bytes]) -> bytes:
        """HMAC-SHA-256 that ties a batch of lines to all that came before."""
        return hmac.digest(self._key, b"chain" + previous + b"".join(macs), hashlib.sha256)

    def values(self, facts: AuditFacts) -> dict[str, Any]:
        """Column values of the line that says these facts."""
        line_id, recorded = uuid7(), utcnow()
        said = {"id": line_id, "recorded": recorded, **msgspec.structs.asdict(facts)}
        payload = msgspec.json.encode(said, order="sorted")
        return {
            "id": line_id,
            "recorded": recorded,
            "event": facts.event,
            "outcome": facts.outcome,
            "actor_id": facts.actor_id,
            "dossier": facts.dossier,
            "persons": list(facts.persons),
            "payload": payload,
            "mac": self.mac(payload),
        }

    def write(self, session: Session, facts: AuditFacts) -> None:
        """Insert one line in the caller's transaction: it is kept exactly if the step is."""
        later(session, _LINES, self.values(facts), unread=True)
