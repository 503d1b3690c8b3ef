"""What every test may ask for: one PostgreSQL a worker, a fresh database a test, the real Step over it.

``RCP_TEST_POSTGRES=DIR`` (a folder of PostgreSQL binaries, such as Debian's 15) replaces the embedded server.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

from gateway.model.audit import AuditTrail
from gateway.model.embedded import EmbeddedServer
from gateway.model.store import Store

if TYPE_CHECKING:
    from gateway.exchange.blobs import BlobStore
    from gateway.rcp.step import Steps

pytest_plugins = ["tests.requirements"]


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a server on which databases may be created."""
    with tempfile.TemporaryDirectory(prefix="rcp-pg-") as folder:
        binaries = os.environ.get("RCP_TEST_POSTGRES")
        if not binaries:
            server = EmbeddedServer(Path(folder))
            with server as url:
                role = psycopg.conninfo.conninfo_to_dict(url)["user"]
                with psycopg.connect(server.superuser_url, autocommit=True) as connection:
                    connection.execute(sql.SQL("ALTER ROLE {} CREATEDB").format(sql.Identifier(str(role))))
                    # Thousands of databases come and go; durability itself is tested on servers of their own.
                    connection.execute("ALTER SYSTEM SET fsync = off")
                    connection.execute("ALTER SYSTEM SET full_page_writes = off")
                    connection.execute("SELECT pg_reload_conf()")
                yield url
            return
        yield from _debian(Path(folder), Path(binaries))


def _debian(folder: Path, binaries: Path) -> Iterator[str]:
    data = folder / "data"
    folder.chmod(0o777)
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    options = f"-k {folder} -c listen_addresses='' -c fsync=off -c max_connections=200"
    initdb = [binaries / "initdb", "-D", data, "-E", "UTF8", "--locale=C", "-A", "trust", "-U", "rcp"]
    subprocess.run([*user, *initdb], check=True, capture_output=True)
    control = [binaries / "pg_ctl", "-D", data, "-w"]
    subprocess.run([*user, *control, "-o", options, "-l", folder / "log", "start"], check=True, capture_output=True)
    try:
        yield f"postgresql://rcp@/postgres?host={folder}"
    finally:
        subprocess.run([*user, *control, "-m", "immediate", "stop"], check=True, capture_output=True)


@pytest.fixture(scope="session")
def _template(postgres: str) -> str:
    """Name of a migrated database to copy; copying takes a tenth of migrating."""
    name = "modele_" + secrets.token_hex(4)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    store = Store(_with_database(postgres, name))
    store.migrate()
    store.close()
    return name


def _with_database(url: str, name: str) -> str:
    parts = psycopg.conninfo.conninfo_to_dict(url)
    return f"postgresql://{parts['user']}@/{name}?host={quote(str(parts['host']), safe='')}"


@pytest.fixture
def database_url(postgres: str, _template: str) -> Iterator[str]:
    """URL of a database of this test's own, migrated and empty."""
    name = "essai_" + secrets.token_hex(6)
    with psycopg.connect(postgres, autocommit=True) as connection:
        # Copying files beats copying blocks through the log ten times when nothing is synced.
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{_template}" STRATEGY file_copy')
    yield _with_database(postgres, name)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """The test's database."""
    store = Store(database_url)
    yield store
    store.close()


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    """An empty local blob store."""
    from gateway.exchange.blobs import open_store

    return open_store(f"file://{tmp_path / 'blobs'}")


@pytest.fixture
def trail() -> AuditTrail:
    """An audit trail with a key of this test's own."""
    return AuditTrail(secrets.token_bytes(32))


@pytest.fixture
def make_steps(store: Store, blobs: BlobStore, trail: AuditTrail) -> Callable[..., Steps]:
    """Steps at a chosen instant, with a chosen representer (none by default: verbs alone are under test)."""

    from gateway.exchange.outbox import Outbox
    from gateway.rcp.step import DomainClock, Steps

    def make(clock: object = None, represent: object = None) -> Steps:
        return Steps(store, clock or DomainClock(), trail, Outbox(blobs), represent or (lambda _step, _roots: None))

    return make


@pytest.fixture
def steps(make_steps: Callable[..., Steps]) -> Steps:
    """Steps at real time without representations."""
    return make_steps()
