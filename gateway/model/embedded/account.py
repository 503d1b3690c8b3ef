"""Who runs the embedded server: never root, never an account that another service shares.

PostgreSQL refuses to run as root. ``nobody`` would do for the kernel but is shared with whatever else runs as
``nobody``, and `peer` authentication would then open the patients' database to it. A bare number without an entry in
the user database is refused by ``initdb``. So root creates, once, a system user of its own without a login shell, a
password or a home; an ordinary user runs the server as himself.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import Fault

__all__ = ["SYSTEM_USER", "Account", "server_account"]

SYSTEM_USER = "rcp-gateway"


@dataclass(frozen=True)
class Account:
    """An operating-system user."""

    name: str
    uid: int
    gid: int

    @property
    def is_caller(self) -> bool:
        """Whether this very process runs as this user."""
        return self.uid == os.geteuid()


def server_account(cluster: Path) -> Account:
    """Choose the user of the server whose cluster is, or will be, at ``cluster``.

    An existing cluster keeps its owner: root may help an ordinary user, not take his database over.

    Raises
    ------
    Fault
        ``embedded-owner`` when the cluster belongs to somebody else, ``embedded-user`` when no user can be had.
    """
    try:
        owner: int | None = cluster.stat().st_uid
    except FileNotFoundError:
        owner = None
    if os.geteuid() != 0:
        if owner not in (None, os.geteuid()):
            raise Fault("embedded-owner", "La base embarquée appartient à un autre utilisateur du système.")
        return _by_uid(os.geteuid())
    if owner is None:
        return _system_user()
    if owner == 0:
        raise Fault("embedded-owner", "La base embarquée appartient à root, sous lequel PostgreSQL refuse de tourner.")
    return _by_uid(owner)


def _by_uid(uid: int) -> Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise Fault(
            "embedded-user",
            f"L’utilisateur numéro {uid} n’a pas d’entrée dans la base des utilisateurs, ce que PostgreSQL exige ; "
            "créez-la ou donnez RCP_DATABASE_URL.",
        ) from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _system_user() -> Account:
    # Two commands may start at once on two data directories: the loser of the race finds the winner's user, or the
    # password file locked for an instant.
    for _ in range(50):
        try:
            entry = pwd.getpwnam(SYSTEM_USER)
        except KeyError:
            _create_system_user()
            continue
        if entry.pw_uid == 0:
            break
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise Fault(
        "embedded-user",
        f"L’utilisateur système « {SYSTEM_USER} » n’a pas pu être créé ; créez-le, lancez la passerelle sous un "
        "utilisateur ordinaire ou donnez RCP_DATABASE_URL.",
    )


def _create_system_user() -> None:
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if useradd is None:
        raise Fault(
            "embedded-user",
            f"La commande « useradd » manque : créez l’utilisateur système « {SYSTEM_USER} », ou donnez "
            "RCP_DATABASE_URL.",
        )
    made = subprocess.run(  # noqa: S603 - a fixed command found on the system's own path
        [
            useradd,
            *("--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"),
            *("--shell", "/usr/sbin/nologin", "--comment", "RCP gateway database", SYSTEM_USER),
        ],
        check=False,
        capture_output=True,
    )
    if made.returncode != 0:
        time.sleep(0.05)
