"""The process tree of ``rcp-gateway serve``: a process a component, or several, all children of one supervisor.

Promises: components do not share a Python interpreter lock; SIGTERM or SIGINT drains and stops all of them within 30 s;
a component that dies unasked is started again with growing pauses, and one that keeps dying ends the whole (an operator
sees it); children never outlive the supervisor, even when it is killed: each holds a leash, a pipe that closes with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog

__all__ = ["COMPONENTS", "hold_leash", "supervise"]

COMPONENTS: tuple[str, ...] = ("http", "dicom", "mllp", "worker")

_DRAIN_S = 25.0
_MAX_PAUSE_S = 15.0
_QUICK_DEATH_S = 10.0
_QUICK_DEATHS = 5

log = structlog.get_logger(__name__)


@dataclass
class _Child:
    name: str
    process: subprocess.Popen[bytes]
    leash: int
    started: float = field(default_factory=time.monotonic)
    quick_deaths: int = 0


def hold_leash() -> None:
    """In a child: stop as on SIGTERM when the supervisor's end of stdin closes."""

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="leash", daemon=True).start()


def _start(name: str, environment: Mapping[str, str]) -> _Child:
    read_end, write_end = os.pipe()
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "gateway", "serve", "--only", name, "--leash"],
        stdin=read_end,
        start_new_session=True,
        env={**os.environ, **environment},
    )
    os.close(read_end)
    return _Child(name, process, write_end)


def supervise(components: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run components until told to stop.

    Parameters
    ----------
    components
        Their names; one that is named several times has as many processes.
    environment
        What children have beside the supervisor's own variables.

    Returns
    -------
    int
        0 when stopped by a signal, 1 when a component could not be kept alive.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    children = [_start(name, environment) for name in components]
    code = 0
    while not stop.wait(0.2):
        for place, child in enumerate(children):
            status = child.process.poll()
            if status is None:
                continue
            os.close(child.leash)
            quick = time.monotonic() - child.started < _QUICK_DEATH_S
            deaths = child.quick_deaths + 1 if quick else 0
            log.error("component-died", component=child.name, status=status, quick_deaths=deaths)
            if status == os.EX_CONFIG or deaths >= _QUICK_DEATHS:
                code = 1
                stop.set()
                break
            if stop.wait(min(_MAX_PAUSE_S, 0.5 * 2**deaths)):
                break
            children[place] = _start(child.name, environment)
            children[place].quick_deaths = deaths
    _stop(children)
    return code


def _stop(children: list[_Child]) -> None:
    for child in children:
        if child.process.poll() is None:
            child.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + _DRAIN_S
    for child in children:
        try:
            child.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("component-killed", component=child.name)
            child.process.kill()
            child.process.wait()
