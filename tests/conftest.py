"""What every test may ask for: one PostgreSQL a worker, a fresh database a test, the real Step over it.

``RCP_TEST_POSTGRES=DIR`` (a folder of PostgreSQL binaries, such as Debian's 15) replaces the embedded server.
``--hypothesis-profile=search`` (with ``--hypothesis-seed=N``) has the properties look at other examples than always.
"""

from __future__ import annotations

import copy
import logging
import os
import secrets
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import hypothesis
import psycopg
import pytest
import structlog
from hypothesis import HealthCheck
from psycopg import sql

from gateway.model.audit import AuditTrail
from gateway.model.embedded import EmbeddedServer
from gateway.model.store import Store

if TYPE_CHECKING:
    from gateway.exchange.blobs import BlobStore
    from gateway.rcp.step import Steps

pytest_plugins = ["tests.identities", "tests.requirements"]

# The same tree gives the same answer: a property looks at the same examples in every run and on every machine, however
# slow. Others are looked for by who writes it, with the second profile.
hypothesis.settings.register_profile(
    "same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis.settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis.settings.load_profile("same")

# Who is not told otherwise trusts one authority, whose key nobody has. No test asks the open Internet for anything, and
# to read the world's authorities takes an HTTP client longer than most of its requests.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).with_name("nobody.pem"))


@pytest.fixture(autouse=True)
def logging_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command that runs in this process configures its logging: the next test hears what it did not say."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level, configure = list(root.handlers), root.level, structlog.configure

    def uncached(**asked: Any) -> None:
        configure(**asked | {"cache_logger_on_first_use": False})

    monkeypatch.setattr(structlog, "configure", uncached)
    yield
    configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


@dataclass
class Server:
    """A server on which databases are made; ``admin_url`` may do everything, ``url`` what the gateway may."""

    url: str
    admin_url: str
    template: str = field(default_factory=lambda: "modele_" + secrets.token_hex(4))
    clean: list[str] = field(default_factory=list)
    new: dict[int, tuple[int, float, int]] = field(default_factory=dict)
    schema: tuple[Any, ...] | None = None
    stores: dict[str, Store] = field(default_factory=dict)

    def url_of(self, database: str, *, admin: bool = False) -> str:
        """URL of one database."""
        parts = psycopg.conninfo.conninfo_to_dict(self.admin_url if admin else self.url)
        return f"postgresql://{parts['user']}@/{database}?host={quote(str(parts['host']), safe='')}"

    def prepare(self) -> None:
        """Make the migrated database that the others are copied from."""
        role = str(psycopg.conninfo.conninfo_to_dict(self.url)["user"])
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(self.template), sql.Identifier(role))
            )
        store = Store(self.url_of(self.template))
        store.migrate()
        store.close()
        with psycopg.connect(self.url_of(self.template, admin=True), autocommit=True) as connection:
            self.new = {oid: (pages, tuples, size) for oid, pages, tuples, size in connection.execute(_SIZES)}
            self.schema = connection.execute(_SCHEMA).fetchone()

    def take(self) -> str:
        """Name of a database that is migrated and empty."""
        if self.clean:
            return self.clean.pop()
        name = "essai_" + secrets.token_hex(6)
        role = str(psycopg.conninfo.conninfo_to_dict(self.url)["user"])
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            # Copying files beats copying blocks through the log ten times when nothing is synced.
            statement = "CREATE DATABASE {} OWNER {} TEMPLATE {} STRATEGY file_copy"
            names = map(sql.Identifier, (name, role, self.template))
            connection.execute(sql.SQL(statement).format(*names))
        return name

    def give_back(self, name: str) -> None:
        """Empty a database for the next test, or drop it when the test changed its schema."""
        with psycopg.connect(self.url_of(name, admin=True), autocommit=True) as connection:
            connection.execute(_ALONE)
            if connection.execute(_SCHEMA).fetchone() == self.schema:
                self._empty(connection)
                self.clean.append(name)
                return
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _empty(self, connection: psycopg.Connection[Any]) -> None:
        """Make every table what it is in a new database, so that no test depends on what another left behind.

        No row, no page, nothing that the planner remembers. Triggers do not notice.
        """
        connection.execute("SET session_replication_role = replica")
        filled = connection.execute(_FILLED).fetchall()
        # Few rows are deleted and vacuumed away: truncating takes every table along that refers to one of these, and
        # makes hundreds of files anew. It is for tables of which an index has grown by more than its first page.
        grown = {table for table, index, size in filled if size > self.new.get(index, (0, 0, 0))[2] + 8192}
        few = {table for table, _, _ in filled} - grown
        if few:
            connection.execute("; ".join(f"DELETE FROM {table}" for table in few))
            connection.execute(f"VACUUM (INDEX_CLEANUP ON) {', '.join(few)}")
            grown |= {table for table, _, _ in connection.execute(_FILLED)}
        if grown:
            connection.execute(f"TRUNCATE {', '.join(grown)} CASCADE")
        known = {"oids": list(self.new), "pages": [one[0] for one in self.new.values()]}
        connection.execute(_FORGET, known | {"tuples": [one[1] for one in self.new.values()]})


# The others have left, not only been told to.
_ALONE = """
DO $$
BEGIN
  LOOP
    PERFORM pg_stat_clear_snapshot();
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
      WHERE datname = current_database() AND pid <> pg_backend_pid();
    EXIT WHEN NOT FOUND;
    PERFORM pg_sleep(0.002);
  END LOOP;
END $$
"""
_SIZES = """
SELECT oid, relpages, reltuples, pg_relation_size(oid) FROM pg_class WHERE oid >= 16384 AND relkind IN ('r', 'i', 't')
"""
# Tables that have pages, with each of their indexes and its size.
_FILLED = """
SELECT one.oid::regclass::text, indexrelid, coalesce(pg_relation_size(indexrelid), 0)
FROM pg_class one LEFT JOIN pg_index ON indrelid = one.oid
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
  AND relname NOT IN ('alembic_version', 'search_index') AND pg_relation_size(one.oid) > 0
"""
_FORGET = """
WITH statistics AS (DELETE FROM pg_statistic WHERE starelid >= 16384)
UPDATE pg_class one SET relpages = new.relpages, reltuples = new.reltuples
FROM unnest(%(oids)s::oid[], %(pages)s::integer[], %(tuples)s::real[]) AS new (oid, relpages, reltuples)
WHERE one.oid = new.oid AND (one.relpages, one.reltuples) <> (new.relpages, new.reltuples)
"""
_SCHEMA = """
SELECT (SELECT count(*) FROM pg_class), (SELECT count(*) FROM pg_proc),
       (SELECT string_agg(tgname::text || tgenabled::text, ',' ORDER BY tgname, tgrelid)
          FROM pg_trigger WHERE NOT tgisinternal),
       (SELECT count(*) FROM pg_attribute), (SELECT version_num FROM alembic_version)
"""


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The PostgreSQL of this worker."""
    with tempfile.TemporaryDirectory(prefix="rcp-pg-") as folder:
        binaries = os.environ.get("RCP_TEST_POSTGRES")
        if binaries:
            yield from _debian(Path(folder), Path(binaries))
            return
        embedded = EmbeddedServer(Path(folder))
        with embedded as url, psycopg.connect(embedded.superuser_url, autocommit=True) as connection:
            # Thousands of databases come and go; durability itself is tested on servers of their own.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("ALTER SYSTEM SET full_page_writes = off")
            # Nobody else's transaction holds the horizon of a test or changes its statistics meanwhile.
            connection.execute("ALTER SYSTEM SET autovacuum = off")
            connection.execute("SELECT pg_reload_conf()")
            found = Server(url, embedded.superuser_url)
            found.prepare()
            yield found


def _debian(folder: Path, binaries: Path) -> Iterator[Server]:
    data = folder / "data"
    folder.chmod(0o777)
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    options = f"-k {folder} -c listen_addresses='' -c fsync=off -c autovacuum=off -c max_connections=200"
    initdb = [binaries / "initdb", "-D", data, "-E", "UTF8", "--locale=C", "-A", "trust", "-U", "rcp"]
    subprocess.run([*user, *initdb], check=True, capture_output=True)
    control = [binaries / "pg_ctl", "-D", data, "-w"]
    subprocess.run([*user, *control, "-o", options, "-l", folder / "log", "start"], check=True, capture_output=True)
    try:
        url = f"postgresql://rcp@/postgres?host={folder}"
        found = Server(url, url)
        found.prepare()
        yield found
    finally:
        subprocess.run([*user, *control, "-m", "immediate", "stop"], check=True, capture_output=True)


@pytest.fixture
def database_url(server: Server) -> Iterator[str]:
    """URL of a database of this test's own, migrated and empty."""
    name = server.take()
    yield server.url_of(name)
    server.give_back(name)


@pytest.fixture
def store(server: Server, database_url: str) -> Iterator[Store]:
    """The test's database. Its engine keeps what it compiled for who has the database next: half of a test's work."""
    if database_url not in server.stores:
        server.stores[database_url] = Store(database_url)
    kept = server.stores[database_url]
    yield copy.copy(kept)
    kept.close()


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
