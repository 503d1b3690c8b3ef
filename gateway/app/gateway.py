"""The parts that every wire stands on, opened once a process from the settings.

Promises: nothing is half open (what was opened is closed in reverse order); the secret is made once, readable by its
owner only, by whichever process comes first; a gateway that shares no data directory must be given its secret.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from gateway.app.mail import Mailing, mailing
from gateway.errors import Fault
from gateway.exchange.blobs import BlobStore, open_store
from gateway.exchange.outbox import Outbox
from gateway.fhir.reindexing import reindex
from gateway.fhir.represent import Representer
from gateway.model.audit import AuditTrail
from gateway.model.embedded import running
from gateway.model.representation import stale
from gateway.model.store import Store
from gateway.rcp import templates
from gateway.rcp.step import DomainClock, Steps
from gateway.settings import Settings

__all__ = ["Gateway", "open_gateway"]

log = structlog.get_logger(__name__)

_SECRET_BYTES = 32


@dataclass(frozen=True)
class Gateway:
    """What every wire stands on."""

    settings: Settings
    secret: bytes
    store: Store
    blobs: BlobStore
    clock: DomainClock
    trail: AuditTrail
    outbox: Outbox
    steps: Steps
    representer: Representer
    mail: Mailing | None
    found_revision: str | None


def _own_secret(data_dir: Path) -> bytes:
    """The secret of this data directory, made by whoever links it in first."""
    path = data_dir / "secret.key"
    if not path.exists():
        draft = data_dir / f".secret-{os.getpid()}-{secrets.token_hex(4)}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(_SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # another process was first: its secret is the one
        finally:
            draft.unlink()
    return path.read_text(encoding="ascii").strip().encode()


def _secret(settings: Settings) -> bytes:
    if settings.secret_key is not None:
        return settings.secret_key.encode()
    if settings.prod and settings.database_url is not None and not (settings.data_dir / "secret.key").exists():
        raise Fault("secret-key", "RCP_SECRET_KEY est exigée : les processus ne partagent pas forcément ce répertoire.")
    return _own_secret(settings.data_dir)


@contextmanager
def open_gateway(settings: Settings, *, migrate: bool = False) -> Iterator[Gateway]:
    """Open the parts; the embedded database runs at least as long as the block.

    Parameters
    ----------
    migrate
        Bring an older database of another server to this schema too; an empty or embedded one is brought there anyway.

    Raises
    ------
    Unavailable
        The database cannot be had.
    Fault
        Its schema is not this code's, or an operator's text cannot be sent.
    """
    with ExitStack() as stack:
        templates.use(settings.mail.texts)
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        url = settings.database_url or stack.enter_context(running(settings.data_dir / "database"))
        store = Store(url)
        stack.callback(store.close)
        store.ping()
        found, wanted = store.revision()
        store.require_current(may_migrate=migrate or settings.database_url is None)
        with store.engine.connect() as connection:
            due = stale(connection)
        if due and found not in {None, wanted}:
            reindex(store, kinds=due)
        elif due:
            log.warning("reindex-due", types=due)
        blobs = open_store(
            settings.blob_url or (settings.data_dir / "blobs").as_uri(), staging=settings.data_dir / "staging"
        )
        secret = _secret(settings)
        clock, trail, outbox = DomainClock(settings.clock), AuditTrail(secret), Outbox(blobs)
        representer = Representer(blobs)
        steps = Steps(store, clock, trail, outbox, representer, fictitious=not settings.prod)
        yield Gateway(
            settings, secret, store, blobs, clock, trail, outbox, steps, representer, mailing(settings, blobs), found
        )
