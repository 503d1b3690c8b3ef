"""The files of the embedded server: its home in the data directory, the cluster, the socket, who may enter.

::

    <data>/postgres/            ours, 0711
        data/                   the cluster (PGDATA), 0700, of the server's user
        run/                    the socket, when the path is short enough for one
        start.lock              held while somebody starts the server
        users.lock              shared by every process that uses the server; see `keeper`
        keeper.lock             held by the keeper for its life
        server.log              the server's own log: no statement, no value
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import Fault
from gateway.model.embedded.account import SYSTEM_USER, Account
from gateway.model.embedded.binaries import MAJOR, Binaries

__all__ = ["DATABASE", "ROLE", "SUPERUSER", "Cluster"]

ROLE = DATABASE = "rcp"
SUPERUSER = "postgres"

# sockaddr_un holds 108 bytes with its final NUL; PostgreSQL appends "/.s.PGSQL.5432", and its lock file ".lock".
_LONGEST_SOCKET_FOLDER = 107 - len("/.s.PGSQL.5432.lock")
_LOG_LIMIT_BYTES = 4 << 20

_TUNING = {
    "shared_buffers": "64MB",
    "effective_cache_size": "512MB",
    "max_connections": "200",
    # A transaction of many entries holds an advisory lock for each key that it names, until it commits.
    "max_locks_per_transaction": "256",
    "max_wal_size": "512MB",
    "wal_compression": "on",
    "random_page_cost": "1.1",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
"""Fits a small machine; stands in ``postgresql.conf``, where the operator may change it."""

_IMPOSED = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    # A statement or an error text can name a patient ("Key (family)=(…) already exists"): neither is logged.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_line_prefix": "%m [%p] ",
}
"""Given on the command line, which wins over every file; durability is PostgreSQL's own default (``fsync`` on)."""


@dataclass(frozen=True)
class Cluster:
    """The paths of one embedded server."""

    home: Path

    @classmethod
    def of(cls, data_dir: Path) -> Cluster:
        """Name the cluster of a data directory; its real path, so that two spellings are one server."""
        return cls(data_dir.resolve() / "postgres")

    @property
    def data(self) -> Path:
        """The cluster proper (PGDATA)."""
        return self.home / "data"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.home / "server.log"

    def lock(self, name: str) -> int:
        """Open a lock file; the descriptor is the caller's to close.

        It belongs to the owner of the home, so that root's help does not shut an ordinary user out.
        """
        descriptor = os.open(self.home / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        if os.geteuid() == 0:
            home = self.home.stat()
            os.fchown(descriptor, home.st_uid, home.st_gid)
        return descriptor

    def prepare_home(self) -> None:
        """Create our folder in the data directory, and the data directory, when they are missing."""
        if not self.home.exists():
            self.home.mkdir(parents=True, exist_ok=True)
            self.home.chmod(0o711)

    def socket_folder(self, account: Account) -> Path:
        """Name the folder of the socket: the same for every process, and short enough for a socket's path."""
        beside = self.home / "run"
        if account.name != SYSTEM_USER and len(os.fsencode(beside)) <= _LONGEST_SOCKET_FOLDER:
            return beside
        key = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        if account.name == SYSTEM_USER:
            return Path("/run/rcp-gateway") / key
        # Fixed, not TMPDIR's: processes of one user with different environments must find the same server.
        return Path(f"/tmp/rcp-gateway-{account.uid}") / key  # noqa: S108 - its owner and mode are checked below

    def prepare_socket_folder(self, account: Account) -> Path:
        """Create the folder of the socket for ``account`` alone.

        Raises
        ------
        Fault
            ``embedded-socket`` when somebody else stands at that place.
        """
        folder = self.socket_folder(account)
        shared = folder.parent if folder.parent != self.home else None
        if shared is not None:
            # Below /run the parent is root's and open to search; below /tmp it is the user's alone.
            _own(shared, os.geteuid(), 0o755 if account.name == SYSTEM_USER else 0o700)
        _own(folder, account.uid, 0o700, account.gid)
        return folder

    def processes(self) -> list[int]:
        """List the server processes that live in this cluster, found by their working directory.

        ``postmaster.pid`` alone may name a number that another process has taken over, which is common in containers.
        """
        found = []
        with contextlib.suppress(OSError):
            here = self.data.stat()
            for entry in os.scandir("/proc"):
                if not entry.name.isdigit():
                    continue
                with contextlib.suppress(OSError):
                    there = Path(f"/proc/{entry.name}/cwd").stat()
                    program = Path(f"/proc/{entry.name}/exe").readlink().name.removesuffix(" (deleted)")
                    if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino) and program == "postgres":
                        found.append(int(entry.name))
        return found

    def create(self, binaries: Binaries, account: Account) -> None:
        """Make the cluster when there is none; a half-made one from a crash is thrown away.

        Raises
        ------
        Fault
            ``embedded-version`` for a cluster of another major version, ``embedded-initdb`` when it cannot be made.
        """
        if self.data.exists():
            self._check_version()
            return
        for leftover in self.home.glob("initdb-*"):
            shutil.rmtree(leftover)
        fresh = Path(tempfile.mkdtemp(prefix="initdb-", dir=self.home))
        if not account.is_caller:
            os.chown(fresh, account.uid, account.gid)
        command = [
            binaries.program("initdb"),
            *("--pgdata", pgdata_argument(fresh, account), "--username", SUPERUSER, "--auth", "peer"),
            *("--encoding", "UTF8", "--locale", "C", "--no-instructions"),
        ]
        for name, value in _TUNING.items():
            command += ["--set", f"{name}={value}"]
        identity = {} if account.is_caller else {"user": account.uid, "group": account.gid, "extra_groups": []}
        done = subprocess.run(  # type: ignore[call-overload]  # noqa: S603 - fixed command; mypy cannot spread the identity
            command, check=False, capture_output=True, text=True, cwd=fresh, env=ENVIRONMENT, **identity
        )
        if done.returncode != 0:
            shutil.rmtree(fresh, ignore_errors=True)
            reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise Fault("embedded-initdb", "La base embarquée n’a pu être créée : " + "".join(reason))
        fresh.rename(self.data)
        _fsync(self.home)

    def _check_version(self) -> None:
        try:
            version = (self.data / "PG_VERSION").read_text("ascii").strip()
        except OSError:
            version = "?"
        if version != str(MAJOR):
            raise Fault(
                "embedded-version",
                f"La base embarquée est de la version {version} de PostgreSQL ; cette passerelle apporte la {MAJOR}. "
                "Restaurez une sauvegarde faite avec l’ancienne passerelle.",
            )

    def command(self, binaries: Binaries, account: Account, socket_folder: Path) -> list[str]:
        """Give the postmaster's command line."""
        imposed = {
            **_IMPOSED,
            "unix_socket_directories": str(socket_folder),
            "cluster_name": self.home.parent.name[-40:] or "rcp-gateway",
        }
        command = [binaries.program("postgres"), "-D", pgdata_argument(self.data, account)]
        for name, value in imposed.items():
            command += ["-c", f"{name}={value}"]
        return command

    def rules(self, account: Account) -> dict[str, str]:
        """Give the files that say who may enter: root and the server's user, as our two roles, by the socket only."""
        people = dict.fromkeys((account.name, "root"))
        return {
            "pg_hba.conf": "# Written by the gateway at each start.\nlocal all all peer map=gateway\n",
            "pg_ident.conf": "# Written by the gateway at each start.\n"
            + "".join(f'gateway "{person}" "{role}"\n' for person in people for role in (ROLE, SUPERUSER)),
        }

    def rotate_log(self) -> None:
        """Keep the log bounded: one former file, moved aside when the server is not running."""
        with contextlib.suppress(FileNotFoundError):
            if self.log.stat().st_size > _LOG_LIMIT_BYTES:
                self.log.replace(self.log.with_suffix(".log.1"))

    def last_words(self) -> str:
        """Give the last line the server logged; its log carries neither statements nor values."""
        try:
            lines = self.log.read_text("utf-8", "replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1] if lines else ""


ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
"""What the server's processes see of the environment; ours may hold secrets."""


def pgdata_argument(folder: Path, account: Account) -> str:
    """Name a cluster so that its server can open it.

    A server of another user may not be able to cross the parents of the data directory, and their modes are not ours
    to change. It is started inside the cluster, which is its own, and reaches it by its working directory.
    """
    return str(folder) if account.is_caller else "/proc/self/cwd"


def _own(folder: Path, uid: int, mode: int, gid: int | None = None) -> None:
    """Create a folder of ours, or check that what stands there is one; a squatter in a shared folder is refused."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or stat.S_IMODE(found.st_mode) & ~mode:
            raise Fault(
                "embedded-socket", f"Le dossier {folder} n’est pas celui de la passerelle ; retirez-le."
            ) from None
        return
    if os.geteuid() != uid:
        os.chown(folder, uid, -1 if gid is None else gid)
    folder.chmod(mode)


def _fsync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
