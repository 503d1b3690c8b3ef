"""The sealer: chains committed audit lines in batches, anchors daily; and the verification of the whole trail.

Promises
    * A line is sealed once and in one order, (xid, seq) below the transaction horizon, so a late committer is neither
      lost nor inserted into a batch that was closed.
    * `verify` finds any one line that was altered, removed, added or moved since it was sealed, and any altered line
      that was not sealed yet.

Not promised: who holds the database *and* cuts the end of the chain, seals included, leaves no trace in it. That is
what the anchors are for: one a day is logged, and `verify` compares the ones it is given.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import msgspec
import structlog
from sqlalchemy import func, insert, or_, select, text
from sqlalchemy.orm import Session

from gateway.model.audit import AuditFacts, AuditLine, AuditSeal, AuditTrail
from gateway.model.horizon import Position, after
from gateway.model.store import Store, utcnow

__all__ = ["Break", "Verdict", "seal", "verify"]

_BATCH_LINES = 5000
_LOCK = 4207208
_GENESIS = b""

log = structlog.get_logger(__name__)


class _Said(AuditFacts, frozen=True, kw_only=True):
    """What a stored payload says: the facts, and the two that the trail adds."""

    id: uuid.UUID
    recorded: datetime


@dataclass(frozen=True, slots=True)
class Break:
    """One place where the trail is not what was written; no text of a line, no person."""

    kind: str
    seal: int | None
    seq: int | None
    text: str


@dataclass(slots=True)
class Verdict:
    """What `verify` saw."""

    lines: int = 0
    seals: int = 0
    unsealed: int = 0
    breaks: list[Break] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return not self.breaks


def seal(store: Store, trail: AuditTrail, *, batch_lines: int = _BATCH_LINES) -> int:
    """Seal every settled line; one sealer works at a time, another returns at once.

    Returns
    -------
    int
        How many lines were sealed.
    """
    sealed = 0
    while True:
        with store.session() as session:
            if not session.scalar(select(func.pg_try_advisory_xact_lock(_LOCK))):
                return sealed
            lines = _seal_batch(session, trail, batch_lines)
            session.commit()
        sealed += lines
        if lines < batch_lines:
            return sealed


def _seal_batch(session: Session, trail: AuditTrail, batch_lines: int) -> int:
    last = session.scalars(select(AuditSeal).order_by(AuditSeal.number.desc()).limit(1)).first()
    position = Position(last.upto_xid, last.upto_seq) if last is not None else None
    rows = session.execute(
        select(AuditLine.xid, AuditLine.seq, AuditLine.mac)
        .where(after(AuditLine.xid, AuditLine.seq, position))
        .order_by(AuditLine.xid, AuditLine.seq)
        .limit(batch_lines)
    ).all()
    now = utcnow()
    anchored = session.scalar(select(AuditSeal.number).where(AuditSeal.anchor_of == now.date()))
    if not rows and (anchored is not None or last is None):
        return 0  # a quiet day is anchored as well, once there is something to anchor
    upto = Position(rows[-1].xid, rows[-1].seq) if rows else position
    number = last.number + 1 if last is not None else 1
    chain = trail.chain(last.chain if last is not None else _GENESIS, [row.mac for row in rows])
    session.execute(
        insert(AuditSeal).values(
            number=number,
            upto_xid=upto.xid if upto else 0,
            upto_seq=upto.seq if upto else 0,
            lines=len(rows),
            chain=chain,
            sealed_at=now,
            anchor_of=now.date() if anchored is None else None,
        )
    )
    if anchored is None:
        # Logs leave the machine; whoever keeps them can prove what the chain was that day.
        log.info("audit-anchor", day=now.date().isoformat(), seal=number, chain=chain.hex())
    return len(rows)


def verify(
    store: Store,
    trail: AuditTrail,
    *,
    anchors: Mapping[date, str] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Verdict:
    """Read the whole trail and compare it with what was written.

    Parameters
    ----------
    anchors
        Day and chain (hexadecimal) of anchors kept elsewhere, as the log line ``audit-anchor`` says them.
    progress
        Called with the number of lines read so far.
    """
    verdict = Verdict()
    kept = {} if anchors is None else {day: bytes.fromhex(chain) for day, chain in anchors.items()}
    with store.session() as session:
        # One snapshot: a sealer at work meanwhile must not look like a forger.
        session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        previous, position, number = _GENESIS, None, 0
        for row in list(session.scalars(select(AuditSeal).order_by(AuditSeal.number))):
            number += 1
            if row.number != number:
                verdict.breaks.append(Break("seal-missing", number, None, f"Le scellé {number} manque."))
                number = row.number
            upto = Position(row.upto_xid, row.upto_seq)
            macs = []
            for line in _lines(session, position, upto):
                macs.append(line.mac)
                _judge(line, trail, row.number, verdict)
                progress(verdict.lines)
            if len(macs) != row.lines:
                said = "manquent" if len(macs) < row.lines else "sont de trop"
                verdict.breaks.append(
                    Break(
                        "lines-missing" if len(macs) < row.lines else "lines-added",
                        row.number,
                        None,
                        f"Scellé {row.number} : {abs(len(macs) - row.lines)} ligne(s) {said}.",
                    )
                )
            elif trail.chain(previous, macs) != row.chain:
                verdict.breaks.append(
                    Break("chain", row.number, None, f"Scellé {row.number} : l’ordre ou le contenu a changé.")
                )
            if row.anchor_of in kept and kept.pop(row.anchor_of) != row.chain:
                verdict.breaks.append(
                    Break("anchor", row.number, None, f"L’ancre du {row.anchor_of} n’est pas celle conservée ailleurs.")
                )
            verdict.seals += 1
            previous, position = row.chain, upto  # a broken seal is told once, not at each of its successors
        for line in _lines(session, position, None):
            _judge(line, trail, None, verdict)
            verdict.unsealed += 1
            progress(verdict.lines)
    verdict.breaks.extend(
        Break("anchor", None, None, f"L’ancre du {day}, conservée ailleurs, n’est plus dans la base.") for day in kept
    )
    return verdict


def _lines(session: Session, position: Position | None, upto: Position | None) -> Iterator[AuditLine]:
    """Lines between two positions, in order, a page at a time."""
    while True:
        statement = select(AuditLine).order_by(AuditLine.xid, AuditLine.seq).limit(_BATCH_LINES)
        if position is not None:
            statement = statement.where(
                AuditLine.xid >= position.xid,
                or_(AuditLine.xid > position.xid, AuditLine.seq > position.seq),
            )
        if upto is not None:
            statement = statement.where(
                AuditLine.xid <= upto.xid, or_(AuditLine.xid < upto.xid, AuditLine.seq <= upto.seq)
            )
        page = list(session.scalars(statement))
        yield from page
        if len(page) < _BATCH_LINES:
            return
        position = Position(page[-1].xid, page[-1].seq)
        session.expunge_all()


def _judge(line: AuditLine, trail: AuditTrail, number: int | None, verdict: Verdict) -> None:
    """Compare one line with its own MAC, and its search columns with its payload."""
    verdict.lines += 1
    if trail.mac(line.payload) != line.mac:
        verdict.breaks.append(Break("line", number, line.seq, f"La ligne {line.seq} a été modifiée."))
        return
    said = msgspec.json.decode(line.payload, type=_Said)
    columns: dict[str, Any] = {name: getattr(line, name) for name in _COLUMNS}
    if columns != {name: getattr(said, name) for name in _COLUMNS} or list(line.persons) != list(said.persons):
        verdict.breaks.append(
            Break("line", number, line.seq, f"Les colonnes de la ligne {line.seq} ont été modifiées.")
        )


_COLUMNS = ("id", "recorded", "event", "outcome", "actor_id", "dossier")
