"""The parent process of the postmaster: runs it while somebody uses it, and stops it after the last user.

A user of the server holds a shared lock on ``users.lock``; the kernel lets it go when the process ends, however it
ends. The keeper waits for the exclusive lock: to have it means that nobody is left. A postmaster that dies meanwhile is
started again. Should the keeper itself be killed, the kernel sends the postmaster the signal of a fast shutdown.

Run as a script by ``server`` with one JSON argument, under ``python -I -S``: it imports nothing but the standard
library, so that it starts in a few hundredths of a second and runs from a tree that its child cannot read.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

_PR_SET_PDEATHSIG = 1
_FAST, _IMMEDIATE = signal.SIGINT, signal.SIGQUIT  # [PostgreSQL 18 §18.5]
_FAST_LIMIT_S = 25.0
_ATTEMPTS = 5
_QUIET_S = 60.0


class Keeper:
    """Holds the postmaster's life between the first user and the last."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.process: subprocess.Popen[bytes] | None = None
        self.nobody_left = threading.Event()
        self.hand = threading.Lock()

    def wait_for_the_last_user(self, users: int) -> None:
        """Block until no user is left, then ask the postmaster to stop."""
        fcntl.flock(users, fcntl.LOCK_EX)
        with self.hand:
            self.nobody_left.set()
            if self.process is not None:
                with contextlib.suppress(ProcessLookupError):
                    self.process.send_signal(_FAST)
        time.sleep(_FAST_LIMIT_S)
        with contextlib.suppress(ProcessLookupError):
            if self.process is not None:
                self.process.send_signal(_IMMEDIATE)

    def start(self) -> None:
        """Start the postmaster as its user, inside its cluster."""
        keeper = os.getpid()
        libc = ctypes.CDLL(None, use_errno=True)
        plan = self.plan

        def become_the_server() -> None:
            os.chdir(plan["cluster"])  # as ourselves: the parents may be closed to the server's user
            if plan["uid"] != os.geteuid():
                os.setgroups([])
                os.setgid(plan["gid"])
                os.setuid(plan["uid"])
            os.umask(0o077)
            # Written as the server's user: root never writes into a folder that somebody else could fill with links.
            for name, text in plan["files"].items():
                with open(name, "w", encoding="utf-8") as file:  # noqa: PTH123 - relative to the working directory
                    file.write(text)
            if hasattr(libc, "prctl"):  # after the change of user, which clears it [prctl(2)]
                libc.prctl(_PR_SET_PDEATHSIG, int(_FAST), 0, 0, 0)
            if os.getppid() != keeper:
                os._exit(1)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)

        self.process = subprocess.Popen(  # noqa: S603 - our own command
            plan["command"],
            stdin=subprocess.DEVNULL,
            env=plan["environment"],
            preexec_fn=become_the_server,  # noqa: PLW1509 - the only other thread sits in a system call
        )

    def run(self) -> int:
        """Run the postmaster until nobody is left; 1 when it will not stay up."""
        failures = 0
        while True:
            with self.hand:
                if self.nobody_left.is_set():
                    return 0
                started = time.monotonic()
                self.start()
            process = self.process
            if process is None:
                return 1
            process.wait()
            if self.nobody_left.is_set():
                return 0
            failures = 1 if time.monotonic() - started > _QUIET_S else failures + 1
            if failures > _ATTEMPTS:
                return 1
            # Its orphans need a moment to notice and to leave the shared memory.
            time.sleep(0.1 * failures)


def take(lock: int) -> bool:
    """Take the keeper's lock; somebody who only looks whether a keeper lives may hold it for an instant."""
    for _ in range(200):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.01)
    return False


def main() -> int:
    """Take the keeper's lock, or leave: there is one keeper a cluster."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the end of the last user is the only reason to stop
    plan = json.loads(sys.argv[1])
    users, own = (os.open(plan[name], os.O_RDWR) for name in ("users_lock", "keeper_lock"))
    if not take(own):
        return 0
    keeper = Keeper(plan)
    threading.Thread(target=keeper.wait_for_the_last_user, args=(users,), daemon=True).start()
    status = keeper.run()
    with contextlib.suppress(OSError):
        # Nobody can be starting anew: they wait for the lock that is held here.
        os.rmdir(plan["socket_folder"])  # noqa: PTH106 - pathlib would be loaded for this alone
    return status


if __name__ == "__main__":
    sys.exit(main())
