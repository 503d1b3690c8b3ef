"""Start the embedded server, or attach to the one that runs; leave it, and the last one out stops it.

Promises: one server a data directory, whoever comes first; a server whose users were all killed is stopped by its
keeper. No TCP port is opened.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import psycopg
from psycopg import sql

from gateway.errors import Fault, Unavailable
from gateway.model.embedded.account import Account, server_account
from gateway.model.embedded.binaries import Binaries
from gateway.model.embedded.cluster import DATABASE, ENVIRONMENT, ROLE, SUPERUSER, Cluster

__all__ = ["EmbeddedServer", "running"]

_START_LIMIT_S = 60.0
_STOP_LIMIT_S = 30.0
_STRAY_FAST_S = 5.0
_STRAY_IMMEDIATE_S = 20.0
_WATCH_EVERY_S = 2.0


class EmbeddedServer:
    """One process's use of the embedded server of a data directory.

    Parameters
    ----------
    data_dir
        ``RCP_DATA_DIR``; the cluster is in its folder ``postgres``.

    Examples
    --------
    >>> with EmbeddedServer(Path("/var/lib/rcp-gateway")) as url:  # doctest: +SKIP
    ...     psycopg.connect(url)
    """

    def __init__(self, data_dir: Path) -> None:
        self.cluster = Cluster.of(data_dir)
        self._users: int | None = None
        self._keeper: subprocess.Popen[bytes] | None = None
        self._leaving = threading.Event()
        self._watch: threading.Thread | None = None
        self._account: Account | None = None

    def start(self) -> str:
        """Bring the server up, or join the one that is, and stay its user until `stop` or the end of the process.

        Returns
        -------
        str
            A libpq URL (``postgresql://rcp@/rcp?host=…``) for psycopg and asyncpg; SQLAlchemy wants ``+psycopg`` in it.

        Raises
        ------
        Fault
            When it cannot run here: the text says why and what to do.
        Unavailable
            ``embedded-start`` when it does not answer in time.
        """
        if self._users is None:
            self.cluster.prepare_home()
            deadline = time.monotonic() + _START_LIMIT_S
            self._users = self.cluster.lock("users")
            try:
                _flock(self._users, fcntl.LOCK_SH, deadline)  # refused while a keeper is stopping the server
                self._ensure(deadline)
            except BaseException:
                os.close(self._users)
                self._users = None
                raise
            self._leaving.clear()
            self._watch = threading.Thread(target=self._watch_over, name="embedded-postgres", daemon=True)
            self._watch.start()
        return self.url

    def stop(self) -> None:
        """Stop being a user; when nobody else is left, wait until the server has stopped cleanly."""
        if self._users is None:
            return
        self._leaving.set()
        if self._watch is not None:
            self._watch.join()
        users, self._users = self._users, None
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            last = True
        except BlockingIOError:
            # Others use it, or the keeper was quicker: then it holds the lock, and no shared one is to be had.
            last = not _try(users, fcntl.LOCK_SH)
        os.close(users)
        deadline = time.monotonic() + _STOP_LIMIT_S
        while last and self._keeper_lives() and time.monotonic() < deadline:
            time.sleep(0.01)
        if self._keeper is not None and last:
            self._keeper.wait(timeout=_STOP_LIMIT_S)
            self._keeper = None

    def __enter__(self) -> str:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The libpq URL of the gateway's own database, as its own role (no superuser)."""
        return f"postgresql://{ROLE}@/{DATABASE}?host={quote(str(self.socket_folder), safe='')}"

    @property
    def superuser_url(self) -> str:
        """The libpq URL of the bootstrap superuser; for the supervisor and for `backup`, never for a request."""
        return f"postgresql://{SUPERUSER}@/postgres?host={quote(str(self.socket_folder), safe='')}"

    @property
    def socket_folder(self) -> Path:
        """Where the socket is."""
        return self.cluster.socket_folder(self._server_account())

    def _server_account(self) -> Account:
        if self._account is None:
            self._account = server_account(self.cluster.data)
        return self._account

    def _ensure(self, deadline: float) -> None:
        """Leave with a server that answers; one process at a time does this."""
        start = self.cluster.lock("start")
        try:
            _flock(start, fcntl.LOCK_EX, deadline)
            if not self._keeper_lives():
                self._launch(deadline)
            self._await_answer(deadline)
        finally:
            os.close(start)

    def _launch(self, deadline: float) -> None:
        account = self._server_account()
        binaries = Binaries.usable_by(account, self.cluster.home)
        self.cluster.create(binaries, account)
        folder = self.cluster.prepare_socket_folder(account)
        self._clear_strays(deadline)
        self.cluster.rotate_log()
        for name in ("users", "keeper"):
            os.close(self.cluster.lock(name))
        plan = {
            "users_lock": str(self.cluster.home / "users.lock"),
            "keeper_lock": str(self.cluster.home / "keeper.lock"),
            "command": self.cluster.command(binaries, account, folder),
            "environment": ENVIRONMENT,
            "cluster": str(self.cluster.data),
            "socket_folder": str(folder),
            "files": self.cluster.rules(account),
            "uid": account.uid,
            "gid": account.gid,
        }
        log = os.open(self.cluster.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            self._keeper = subprocess.Popen(  # noqa: S603 - our own script under our own interpreter
                [sys.executable, "-I", "-S", str(Path(__file__).with_name("keeper.py")), json.dumps(plan)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,  # a terminal's Ctrl-C is for us, not for the database under us
            )
        finally:
            os.close(log)

    def _await_answer(self, deadline: float) -> None:
        while True:
            try:
                with psycopg.connect(self.superuser_url, autocommit=True, connect_timeout=5) as connection:
                    _found(connection)
                    return
            except psycopg.OperationalError as error:
                gone = self._keeper is not None and self._keeper.poll() is not None
                if gone or time.monotonic() > deadline:
                    words = self.cluster.last_words()
                    raise Unavailable(
                        "embedded-start", f"La base embarquée ne démarre pas. Dernière ligne de son journal : {words}"
                    ) from error
                time.sleep(0.02)

    def _clear_strays(self, deadline: float) -> None:
        """Wait for, then stop, what a killed keeper left; a stale ``postmaster.pid`` is removed when nobody is there.

        PostgreSQL believes a stale number when another process of the same user has taken it over, and refuses to
        start; here the processes were looked for by what they are.
        """
        if not Path("/proc/self/cwd").exists():
            return  # PostgreSQL's own check remains
        began = time.monotonic()
        while strays := self.cluster.processes():
            waited = time.monotonic() - began
            if time.monotonic() > deadline:
                raise Unavailable("embedded-start", "Un ancien serveur de la base embarquée ne s’arrête pas.")
            postmaster = _postmaster(self.cluster)
            if postmaster in strays and waited > _STRAY_FAST_S:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(postmaster, signal.SIGQUIT if waited > _STRAY_IMMEDIATE_S else signal.SIGINT)
                    time.sleep(0.5)
            time.sleep(0.02)
        (self.cluster.data / "postmaster.pid").unlink(missing_ok=True)

    def _keeper_lives(self) -> bool:
        if self._keeper is not None:
            if self._keeper.poll() is None:
                return True
            self._keeper = None
        descriptor = self.cluster.lock("keeper")
        try:
            return not _try(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)

    def _watch_over(self) -> None:
        """Start the server again when its keeper was killed under us."""
        while not self._leaving.wait(_WATCH_EVERY_S):
            if not self._keeper_lives():
                # The next round tries again; meanwhile every request says "unavailable", which is the truth.
                with contextlib.suppress(Fault, Unavailable, OSError):
                    self._ensure(time.monotonic() + _START_LIMIT_S)


@contextlib.contextmanager
def running(data_dir: Path) -> Iterator[str]:
    """Use the embedded server of ``data_dir`` for the length of a block; gives its libpq URL."""
    server = EmbeddedServer(data_dir)
    url = server.start()
    try:
        yield url
    finally:
        server.stop()


def _found(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """Make the gateway's role and database when they are missing; each is one statement, so no half is left."""
    if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (ROLE,)).fetchone() is None:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(ROLE)))
    if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone() is None:
        connection.execute(sql.SQL("CREATE DATABASE {0} OWNER {1}").format(*map(sql.Identifier, (DATABASE, ROLE))))


def _postmaster(cluster: Cluster) -> int:
    try:
        return int((cluster.data / "postmaster.pid").read_text("ascii", "replace").split("\n", 1)[0])
    except (OSError, ValueError):
        return 0


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _flock(descriptor: int, kind: int, deadline: float) -> None:
    while not _try(descriptor, kind):
        if time.monotonic() > deadline:
            raise Unavailable(
                "embedded-start", "Un autre processus démarre ou arrête la base embarquée depuis longtemps."
            )
        time.sleep(0.01)
