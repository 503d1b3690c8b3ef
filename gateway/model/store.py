"""The base of every table, the column types, and the two engines (synchronous writes, asynchronous reads).

Promises: datetimes are aware on the way in and out; constraint names are stable (migrations rely on them); a database
that is not this schema is refused by name. It does not decide when to commit: `gateway.rcp.step` does.
"""

from __future__ import annotations

import select
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from procrastinate import App, SyncPsycopgConnector
from sqlalchemy import DateTime, Dialect, Engine, MetaData, Text, create_engine, event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.types import TypeDecorator, UserDefinedType

from gateway.errors import Fault, Unavailable
from gateway.identifiers import uuid7
from gateway.model.writes import WriteSession

__all__ = ["Base", "Instant", "Key", "Keyed", "Store", "XactId", "engine_url", "utcnow"]

_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


def utcnow() -> datetime:
    """Real time, aware: for ``recorded`` and the like; the domain's clock is `Step.now`."""
    return datetime.now(UTC)


class Instant(TypeDecorator[datetime]):
    """``timestamptz``; a naive datetime is a defect and is refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Refuse a naive datetime."""
        if value is not None and value.tzinfo is None:
            raise Fault("naive-instant", "Un instant sans fuseau a été présenté à la base.")
        return value


class XactId(UserDefinedType[int]):
    """``xid8``: the transaction that wrote the row, for cursors below the horizon (DESIGN §3)."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """PostgreSQL's name of the type."""
        return "xid8"

    def bind_processor(self, dialect: Dialect) -> Callable[[int | None], str | None]:  # noqa: ARG002 - SQLAlchemy's signature
        """Send decimal digits: there is no cast from a number to ``xid8``."""
        return lambda value: None if value is None else str(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], int | None]:  # noqa: ARG002 - SQLAlchemy's signature
        """Give a number, whatever the driver makes of a type that it does not know."""
        return lambda value: None if value is None else int(value)


class Base(DeclarativeBase):
    """Declarative base; text columns are unbounded, as PostgreSQL's are."""

    metadata = MetaData(naming_convention=_NAMES)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's class attribute
        str: Text(),
        datetime: Instant(),
    }


Key = uuid.UUID


class Keyed:
    """Primary key: a UUID version 7, made by the process so that a root may be named before it is inserted."""

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)


def engine_url(url: str) -> URL:
    """The same database for SQLAlchemy's psycopg 3, whatever spelling the setting has."""
    return make_url(url).set(drivername="postgresql+psycopg")


def _require_open(connection: psycopg.Connection[Any], _record: object, _proxy: object) -> None:
    """Refuse a pooled connection that the server left: it is readable although nothing was asked. No round trip."""
    waiting = select.poll()
    try:
        waiting.register(connection.fileno(), select.POLLIN)
        if not waiting.poll(0):
            return
    except psycopg.Error:
        pass  # it has no socket any more
    raise DisconnectionError("the server closed the connection")


class Store:
    """One database: engine, sessions, schema.

    Parameters
    ----------
    url
        ``postgresql://…``; a socket directory goes into ``?host=``.
    pool_size
        Connections kept at most; waiting longer than ``pool_timeout_s`` is `Unavailable`.
    """

    def __init__(self, url: str, *, pool_size: int = 20, pool_timeout_s: float = 10.0) -> None:
        self.url = engine_url(url)
        self.engine: Engine = create_engine(
            self.url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=pool_timeout_s,
            hide_parameters=True,  # an error that nobody caught would quote them
            connect_args={"options": "-c timezone=UTC -c lock_timeout=20000 -c statement_timeout=60000"},
        )
        event.listen(self.engine, "checkout", _require_open)

    @property
    def dsn(self) -> str:
        """The libpq connection string, for psycopg and procrastinate."""
        return self.url.set(drivername="postgresql").render_as_string(hide_password=False)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session that is rolled back unless its user commits."""
        with WriteSession(self.engine, expire_on_commit=False) as session:
            yield session

    def close(self) -> None:
        """Give every connection back to the server."""
        self.engine.dispose()

    def ping(self) -> None:
        """Raise `Unavailable` when the database does not answer."""
        try:
            with self.engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        except Exception as error:
            raise Unavailable("database", "La base de données ne répond pas.", retry_after_s=5) from error

    def _alembic(self) -> Config:
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        return config

    def revision(self) -> tuple[str | None, str | None]:
        """The schema revision found in the database and the one this code needs."""
        wanted = ScriptDirectory.from_config(self._alembic()).get_current_head()
        with self.engine.connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
        return found, wanted

    def migrate(self) -> None:
        """Bring the schema to this code's revision; several processes may try at once, one does it."""
        config = self._alembic()
        with self.engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(4207207)"))
            connection.commit()
            try:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
                connection.commit()
                # Here, not above: the tables stand on this module's base.
                from gateway.model.representation import align

                align(connection)
                connection.commit()
                self._install_jobs(connection.connection.driver_connection)
                connection.commit()
            finally:
                connection.rollback()
                connection.execute(text("SELECT pg_advisory_unlock(4207207)"))
                connection.commit()

    def _install_jobs(self, connection: psycopg.Connection[Any] | None) -> None:
        """Install procrastinate's own schema, once."""
        if connection is None:
            raise Fault("no-connection", "Connexion à la base perdue pendant la migration.")
        if connection.execute("SELECT to_regclass('procrastinate_jobs')").fetchone() != (None,):
            return
        jobs = App(connector=SyncPsycopgConnector())
        # A literal percent sign of the schema must not be taken for a parameter.
        connection.execute(jobs.schema_manager.get_schema().encode())

    def require_current(self, *, may_migrate: bool) -> None:
        """Migrate an empty (or, when allowed, an older) database; refuse any other.

        Raises
        ------
        Fault
            The schema is not this code's.
        """
        from gateway.model.representation import lacking

        found, wanted = self.revision()
        if found == wanted:
            with self.engine.connect() as connection:
                if not lacking(connection):
                    return
        if found is None or may_migrate:
            self.migrate()
            return
        if found == wanted:
            text = "Les colonnes de recherche ne suivent pas la table des paramètres : lancez « rcp-gateway reindex »."
            raise Fault("schema-parametres", text)
        raise Fault(
            "schema-revision",
            f"La base est à la révision {found}, le programme attend {wanted} : lancez « rcp-gateway migrate ».",
        )
