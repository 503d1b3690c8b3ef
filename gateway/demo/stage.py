"""Where the demonstration plays: a marked directory of its own, free ports, and the gateway as a process.

Promises: the directory is made anew at each run and no other directory is ever emptied (a marker file says that it is
the demonstration's own); the gateway runs as ``rcp-gateway serve`` does anywhere, one process tree an act, told only by
its environment; it is stopped by SIGTERM and its log is kept. [DECISIONS 12, 13]
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx

from gateway.errors import Fault, Unavailable

__all__ = ["Addresses", "Stage", "free_port", "own_directory", "usual_ports"]

_MARKER = ".demonstration-rcp"
_PORTS_HELD = "\0rcp-gateway-demonstration"
_START_S = 180.0
_STOP_S = 35.0
_POLL_S = 0.1
_NOISE = ('"event": "request"', '"event": "part is not ready"')


def own_directory(data_dir: Path) -> Path:
    """Make the demonstration's directory anew under the data directory.

    Raises
    ------
    Fault
        ``repertoire-occupe``: something that is not a former demonstration is there.
    """
    folder = data_dir / "demo"
    if folder.exists() or folder.is_symlink():
        ours = folder.is_dir() and not folder.is_symlink() and (folder / _MARKER).is_file()
        empty = folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir())
        if not ours and not empty:
            text = f"Le répertoire {folder} n’est pas celui d’une démonstration : rien n’y a été touché."
            raise Fault("repertoire-occupe", text)
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / _MARKER).write_text(
        "Répertoire d’une démonstration de rcp-gateway, refait à chaque lancement.\n", encoding="utf-8"
    )
    return folder


@contextlib.contextmanager
def usual_ports() -> Iterator[bool]:
    """Say whether this demonstration may take the usual ports: one at a time on a machine, whoever runs it.

    A port is chosen minutes before the gateway listens on it; two demonstrations that look at once would both find it
    free. The name that is held is Linux's abstract one: no file stays behind. Elsewhere the ports are only looked at.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as name:
        try:
            name.bind(_PORTS_HELD)
        except OSError:
            yield not sys.platform.startswith("linux")
        else:
            yield True


def free_port(usual: int, host: str = "127.0.0.1") -> int:
    """Return the usual port if nobody listens on it, else a free one; 0 has no usual."""
    for port in dict.fromkeys((usual, 0)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    raise Unavailable("aucun-port", "Aucun port n’est libre sur cette machine.")


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the wires of this demonstration are."""

    http: int
    dicom: int
    mllp: int
    host: str = "127.0.0.1"
    ae_title: str = "RCPGATEWAY"

    @property
    def public_url(self) -> str:
        """The portal, and the base of ``/fhir`` and ``/dicom-web``."""
        return f"http://{self.host}:{self.http}"


class Stage:
    """The gateway of one demonstration.

    Parameters
    ----------
    folder
        The demonstration's own directory; the gateway's data are in ``state`` below it.
    environment
        ``RCP_…`` variables of the gateway, besides the clock.
    """

    def __init__(self, folder: Path, addresses: Addresses, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.addresses = addresses
        self.state = folder / "state"
        self.environment = {
            "RCP_PROFILE": "dev",
            "RCP_DATA_DIR": str(self.state),
            "RCP_HTTP_BIND": f"{addresses.host}:{addresses.http}",
            "RCP_PUBLIC_URL": addresses.public_url,
            "RCP_DICOM_BIND": f"{addresses.host}:{addresses.dicom}",
            "RCP_DICOM_AE_TITLE": addresses.ae_title,
            "RCP_MLLP_BIND": f"{addresses.host}:{addresses.mllp}",
            "RCP_LOG_FORMAT": "json",
            **environment,
        }
        self._ports = (addresses.dicom, addresses.mllp)
        self.log = folder / "gateway.log"
        self._log_before = 0
        self._runs: list[tuple[datetime, datetime]] = []

    @contextlib.contextmanager
    def serving(self, clock: datetime | None) -> Iterator[None]:
        """Run the gateway at a clock for the time of the block; ``None`` is real time.

        Raises
        ------
        Unavailable
            It did not start, or ended on its own; the end of its log is in the text.
        """
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RCP_")}
        environment |= self.environment
        if clock is not None:
            environment["RCP_CLOCK"] = clock.isoformat()
        began = datetime.now(UTC)
        self._runs.append((began, clock or began))
        with self.log.open("ab") as log:
            self._log_before = log.tell()
            process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "serve"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait_ready(process)
            yield
        finally:
            self._stop(process)

    def in_the_story(self, real: datetime) -> datetime:
        """Return what the domain's clock showed at a real instant, to within the seconds that a start takes."""
        began, clock = max((run for run in self._runs if run[0] <= real), default=(real, real))
        return clock + (real - began)

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise Unavailable("passerelle-arretee", f"La passerelle s’est arrêtée au démarrage.\n{self.log_end()}")
            if self._said_ready() and self._answers() and all(map(self._listens, self._ports)):
                return
            time.sleep(_POLL_S)
        raise Unavailable("passerelle-muette", f"La passerelle ne répond pas après {_START_S:.0f} s.\n{self.log_end()}")

    def _said_ready(self) -> bool:
        """Whether our own processes listen: an answer alone may be another gateway's."""
        said = self.log.read_bytes()[self._log_before :]
        return all(word in said for word in (b'"http-ready"', b'"dicom-ready"', b'"mllp-ready"'))

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.addresses.public_url}/health/ready", timeout=5).status_code == httpx.codes.OK
        return False

    def _listens(self, port: int) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.addresses.host, port), timeout=1):
            return True
        return False

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def log_end(self, lines: int = 12) -> str:
        """Return the last lines of the gateway's log that say more than that somebody asked for a page."""
        if not self.log.exists():
            return ""
        said = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join([line for line in said if not any(noise in line for noise in _NOISE)][-lines:])
