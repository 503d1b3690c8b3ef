"""A file of the national directory goes through a staging table into the directory, in sets.

Promises: a file is staged by ``COPY`` and applied in one transaction, wholly or not at all; what it no longer names is
dated (``gone_on``), never deleted; a statement with a later date is never overwritten, and a file older than the last
one is refused; when more than `MAX_GONE` of the persons (or mailboxes) of its source would vanish, or the file is much
smaller than the last one, nothing changes; one import at a time. Whatever was killed goes on: a file that is staged
(known by its SHA-256) is not read again, one that is applied says so. What FHIR shows follows in the same transaction,
for the entries that are a resource.
Not promised: that the file is true; that writers of single entries do not wait for the end of a large one.

[spec annuaire §7]
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Protocol

import structlog
from msgspec import Struct
from sqlalchemy import Connection, delete, func, select, text
from sqlalchemy.orm import Session

from gateway.errors import Conflict, GatewayError, InvalidContent
from gateway.model.directory import (
    STAGED_MAILBOX,
    STAGED_PRACTICE,
    DirectoryImport,
    Organisation,
    PracticeRole,
    Practitioner,
)
from gateway.model.store import Store, utcnow
from gateway.rcp.access import SYSTEM
from gateway.rcp.directory_sets import AFTER, BEFORE, MAILBOXES, PRACTICES, SHOWN, Plan
from gateway.rcp.extraction import Counts, Extraction, find_extraction
from gateway.rcp.step import Step, Steps

__all__ = ["MAX_GONE", "MIN_SIZE", "ImportResult", "Told", "import_file"]

#: Share of the persons, or of the mailboxes, of a source that one file may make vanish.
MAX_GONE: Final = 0.05
#: Share of the last file's size that a file must have.
MIN_SIZE: Final = 0.8
_HASHED_BYTES: Final = 1 << 20
_ONE_AT_A_TIME: Final = 4207208
_PLANS: Final = {STAGED_PRACTICE.name: PRACTICES, STAGED_MAILBOX.name: MAILBOXES}
_ROOTS: Final[dict[str, type[Any]]] = {
    "Practitioner": Practitioner,
    "Organisation": Organisation,
    "PracticeRole": PracticeRole,
}

log = structlog.get_logger(__name__)


class Told(Protocol):
    """Hears how far an import is."""

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Phase in French, bytes or steps done and to do."""


class ImportResult(Struct, frozen=True, kw_only=True):
    """What became of a file; ``again``: it had been applied before, and nothing was done."""

    source: str
    as_of: str
    rows: int
    rejected: int
    skipped: int
    flagged: int
    gone: int
    again: bool = False


def _silent(phase: str, done: int, total: int) -> None:
    """Tell nobody."""


def import_file(steps: Steps, path: Path, *, force: bool = False, told: Told = _silent) -> ImportResult:
    """Bring one file into the directory.

    Parameters
    ----------
    force
        Accept a file that makes many entries vanish, or is much smaller than the last one.

    Raises
    ------
    InvalidContent
        The file: ``annuaire-illisible``, ``annuaire-nom``, ``annuaire-colonnes``, ``annuaire-lignes``,
        ``annuaire-date``, ``annuaire-volume``.
    Conflict
        What is kept: ``annuaire-en-cours``, ``annuaire-ancien``, ``annuaire-taille``, ``annuaire-disparus``.
    """
    found = find_extraction(path)
    if found.as_of > utcnow().date() + timedelta(days=1):
        raise InvalidContent("annuaire-date", f"Le fichier « {found.name} » est daté dans le futur.")
    with _alone(steps.store):
        digest = _digest(path, told)
        with steps.store.session() as session:
            done = _applied(session, found, digest)
            if done is not None:
                return _result(done, again=True)
            _require_newer(session, found, force=force)
            staged = _staged(session, found, digest)
        if staged is None:
            staged = _stage(steps.store, found, digest, told)
        else:
            log.info("directory-import-resumed", source=found.kind.source, rows=staged.rows)
        key = staged.id
        try:
            return steps.run(SYSTEM, lambda step: _apply(step, key, force=force, told=told))
        except GatewayError as refusal:
            _refuse(steps.store, key, refusal)
            raise


@contextmanager
def _alone(store: Store) -> Iterator[None]:
    """Hold a lock of the session, which a crash lets go."""
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if not connection.scalar(select(func.pg_try_advisory_lock(_ONE_AT_A_TIME))):
            raise Conflict("annuaire-en-cours", "Un autre import de l’annuaire est en cours.")
        try:
            yield
        finally:
            connection.execute(select(func.pg_advisory_unlock(_ONE_AT_A_TIME)))


def _digest(path: Path, told: Told) -> str:
    total, done, digest = path.stat().st_size, 0, hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASHED_BYTES):
            digest.update(block)
            done += len(block)
            told("empreinte", done, total)
    return digest.hexdigest()


def _applied(session: Session, found: Extraction, digest: str) -> DirectoryImport | None:
    """Find this very file, when it is the last one that was applied."""
    last = _last(session, found)
    return last if last is not None and last.sha256 == digest else None


def _last(session: Session, found: Extraction) -> DirectoryImport | None:
    return session.scalar(
        select(DirectoryImport)
        .where(DirectoryImport.source == found.kind.source, DirectoryImport.state == "applique")
        .order_by(DirectoryImport.as_of.desc(), DirectoryImport.ended_at.desc())
        .limit(1)
    )


def _require_newer(session: Session, found: Extraction, *, force: bool) -> None:
    last = _last(session, found)
    if last is None:
        return
    if found.as_of < last.as_of:
        text = f"Le fichier « {found.name} » est plus ancien que le dernier appliqué ({last.as_of:%d/%m/%Y})."
        raise Conflict("annuaire-ancien", text)
    if found.size_bytes < last.size_bytes * MIN_SIZE and not force:
        text = (
            f"Le fichier « {found.name} » fait {found.size_bytes} octets, moins de {MIN_SIZE:.0%} du dernier "
            f"({last.size_bytes}) : rien n’est changé."
        )
        raise Conflict("annuaire-taille", text)


def _staged(session: Session, found: Extraction, digest: str) -> DirectoryImport | None:
    """Find this very file, when a killed import left it staged whole: a crash of the server empties unlogged tables."""
    kept = session.scalar(
        select(DirectoryImport).where(
            DirectoryImport.source == found.kind.source,
            DirectoryImport.sha256 == digest,
            DirectoryImport.state == "charge",
        )
    )
    if kept is None or session.scalar(select(func.count()).select_from(found.kind.table)) != kept.rows:
        return None
    return kept


def _stage(store: Store, found: Extraction, digest: str, told: Told) -> DirectoryImport:
    """Replace what is staged by this file, in one transaction with the line that says so."""
    counts = Counts()
    table = found.kind.table
    columns = ", ".join(column.name for column in table.columns)
    with store.session() as session:
        connection = session.connection()
        _unhurried(connection)
        session.execute(
            delete(DirectoryImport).where(
                DirectoryImport.source == found.kind.source, DirectoryImport.state == "charge"
            )
        )
        session.execute(text(f"TRUNCATE {table.name}"))
        kept = DirectoryImport(
            source=found.kind.source,
            file_name=found.name,
            sha256=digest,
            size_bytes=found.size_bytes,
            state="charge",
            as_of=found.as_of,
            started_at=utcnow(),
        )

        def read(done: int) -> None:
            told("lecture", done, found.size_bytes)

        raw: Any = connection.connection.driver_connection
        with (
            raw.cursor() as cursor,
            cursor.copy(f"COPY {table.name} ({columns}) FROM STDIN WITH (NULL '')") as copy,
        ):
            for block in found.blocks(counts, read):
                copy.write(block)
        for name in ("rows", "rejected", "skipped", "flagged"):
            setattr(kept, name, getattr(counts, name))
        session.add(kept)
        session.execute(text(f"ANALYZE {table.name}"))
        session.commit()
        return kept


def _unhurried(connection: Connection) -> None:
    """Lift the limits of single requests; sets are sorted or hashed, in memory as far as it goes.

    Rows that the transaction itself wrote have no statistics yet, and a loop over sets would never end.
    """
    for setting in ("statement_timeout = 0", "lock_timeout = 0", "work_mem = '64MB'", "enable_nestloop = off"):
        connection.execute(text(f"SET LOCAL {setting}"))


def _apply(step: Step, key: uuid.UUID, *, force: bool, told: Told) -> ImportResult:
    """Apply what is staged; see the module."""
    (kept,) = step.lock(DirectoryImport, key)
    connection = step.session.connection()
    _unhurried(connection)
    plan = _PLANS[STAGED_PRACTICE.name if kept.source == "annuaire-ps" else STAGED_MAILBOX.name]
    facts = {"source": kept.source, "as_of": kept.as_of, "now": utcnow()}
    total = len(plan.before) + len(plan.after) + 2
    done = 0

    def run(statement: str) -> int:
        nonlocal done
        told("application", done, total)
        done += 1
        return connection.execute(text(statement), facts if ":" in statement else {}).rowcount

    for statement in plan.before:
        run(statement)
    _require_few_gone(connection, plan, facts, force=force)
    for statement in BEFORE:
        connection.execute(text(statement))
    kept.gone = 0
    for statement, counts_gone in plan.after:
        changed = run(statement)
        kept.gone += changed if counts_gone else 0
    connection.execute(text("SET LOCAL enable_nestloop = on"))
    for kind in SHOWN:
        for identity in connection.scalars(text(AFTER[kind])).all():
            step.touch(step.session.get_one(_ROOTS[kind], identity, populate_existing=True))
    kept.state, kept.ended_at = "applique", utcnow()
    step.session.flush()
    run(f"TRUNCATE {plan.staged}")
    told("application", total, total)
    return _result(kept)


def _require_few_gone(connection: Connection, plan: Plan, facts: dict[str, Any], *, force: bool) -> None:
    total, gone = connection.execute(text(plan.guard), facts).one()
    if gone > total * MAX_GONE and not force:
        text_ = (
            f"{gone} {plan.guarded} sur {total} ne sont plus dans le fichier, plus que la limite de {MAX_GONE:.0%} : "
            "rien n’est changé (--force-vanished l’accepte)."
        )
        raise Conflict("annuaire-disparus", text_)


def _refuse(store: Store, key: uuid.UUID, refusal: GatewayError) -> None:
    """Keep why a staged file was refused; one that the database could not take stays to be applied."""
    if refusal.category != "conflict":
        return
    with store.session() as session:
        kept = session.get(DirectoryImport, key)
        if kept is not None:
            kept.state, kept.reason, kept.ended_at = "refuse", refusal.code, utcnow()
            session.commit()


def _result(kept: DirectoryImport, *, again: bool = False) -> ImportResult:
    return ImportResult(
        source=kept.source,
        as_of=kept.as_of.isoformat(),
        rows=kept.rows,
        rejected=kept.rejected,
        skipped=kept.skipped,
        flagged=kept.flagged,
        gone=kept.gone,
        again=again,
    )
