"""Bytes that a transaction keeps before its rows name them, and takes back when it is refused.

A content is kept before the row that names it, so that what is acknowledged is there; a step that is refused would then
leave content that no row names. Whoever puts a content here holds its hash until his transaction ends: of two writers
of the same bytes the second waits, and finds what the first kept, or that it is gone.

Promises: what a refused transaction was the first to keep is gone when its refusal is told; what anybody else's row
names, or another's transaction is about to name, never is. A rehearsal keeps nothing that it does not read again.
Not promised: what a clash with another writer, or a crash between keeping and the commit, leaves; it harms nobody.
"""

from __future__ import annotations

import contextlib
import hashlib

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from gateway.errors import GatewayError
from gateway.exchange.blobs import Blob, BlobStore

__all__ = ["keep", "rehearse", "take_back"]

log = structlog.get_logger(__name__)

_FIRST = "blobs-first-kept"
_REHEARSED = "blobs-rehearsed"
_HOLD = text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))")


def rehearse(session: Session) -> None:
    """Say that the transaction of this session will be undone, whatever becomes of it."""
    session.info[_REHEARSED] = True


def keep(session: Session, blobs: BlobStore, content: bytes, *, read_again: bool = False) -> Blob:
    """Keep a content that a row of this session's transaction will name.

    Parameters
    ----------
    read_again
        Whether the same transaction reads it: then a rehearsal keeps it too, until it is undone.
    """
    digest = hashlib.sha256(content).hexdigest()
    if session.info.get(_REHEARSED) and not read_again:
        return Blob(digest, len(content))
    session.execute(_HOLD, {"key": f"blob|{digest}"})
    if blobs.size(digest) is None:
        # Before it is there: a broken write may leave it all the same.
        session.info.setdefault(_FIRST, []).append((blobs, digest))
    return blobs.put(content)


def take_back(session: Session) -> None:
    """Forget what this session's transaction was the first to keep; it must be open still, and is then rolled back.

    A transaction that the database has given up holds its hashes no longer: then nothing is touched, since somebody
    else may have found the content there already.
    """
    first = session.info.pop(_FIRST, ())
    for blobs, digest in first:
        with contextlib.suppress(SQLAlchemyError):
            # Past the session, which would write what waits; refused by a transaction that failed, or is gone.
            session.connection().exec_driver_sql("SELECT 1")
            try:
                blobs.delete(digest)
            except GatewayError as error:
                log.warning("blob-left", code=error.code)
