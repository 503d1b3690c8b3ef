"""C-STORE: objects a second into the gateway, beside dcmtk's storescp in the same run.

Run: ``python benchmarks/dicom_receive.py [objects] [KiB an object] [senders]``. Needs dcmtk. The same files are sent by
the same ``storescu``. storescp writes without syncing and indexes nothing; the gateway syncs each object, reads it,
commits its row in PostgreSQL (synchronous commit) and only then answers; between the two stands the gateway's wire
alone, with a synced file and no row. Rounds alternate, the median of three is told; ratios, not figures, travel between
machines.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from gateway.demo.ct_phantom import DOMINIQUE, write_series
from gateway.dicom.command import Answer, StoreRequest, part10_head
from gateway.dicom.scp import Scp
from gateway.dicom.storage import component
from gateway.exchange.blobs import BlobStore, open_store
from gateway.exchange.outbox import Outbox
from gateway.model.audit import AuditTrail
from gateway.model.embedded import running
from gateway.model.store import Store
from gateway.rcp.step import DomainClock, Steps
from gateway.settings import Address, Dicom, Settings

ROUNDS = 3


class SyncedFile:
    """The wire's ceiling: the blob store's synced file, and nothing else."""

    def __init__(self, blobs: BlobStore, request: StoreRequest) -> None:
        self.stack = ExitStack()
        self.staged = self.stack.enter_context(blobs.stage())
        self.staged.write(part10_head(request))

    def write(self, chunk: memoryview) -> None:
        """Append."""
        self.staged.write(chunk)

    def commit(self) -> Answer:
        """Sync and keep."""
        self.staged.commit()
        self.stack.close()
        return Answer()

    def discard(self) -> None:
        """Forget."""
        self.stack.close()


class Anyone:
    """Takes every caller and keeps files only."""

    def __init__(self, blobs: BlobStore) -> None:
        self.blobs = blobs

    def recognise(self, calling_ae_title: str, address: str) -> str:
        """Know everybody."""
        return f"{calling_ae_title}@{address}"

    def open(self, request: StoreRequest, peer: str) -> SyncedFile:  # noqa: ARG002 - the port's signature
        """Begin a file."""
        return SyncedFile(self.blobs, request)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def served(scp: Scp) -> Iterator[int]:
    scp.start()
    try:
        yield scp.port
    finally:
        scp.stop()


@contextmanager
def storescp(root: Path) -> Iterator[int]:
    folder, port = Path(tempfile.mkdtemp(dir=root)), free_port()
    process = subprocess.Popen(
        ["storescp", "--fork", "-od", folder, "-pdu", "131072", str(port)], env={**os.environ, "TCP_NODELAY": "1"}
    )
    try:
        while subprocess.run(["echoscu", "127.0.0.1", str(port)], capture_output=True, check=False).returncode:
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def wire(root: Path) -> Scp:
    anyone = Anyone(open_store(Path(tempfile.mkdtemp(dir=root)).as_uri()))
    return Scp(bind=Address("127.0.0.1", 0), ae_title="RCPGATEWAY", peers=anyone, storage=anyone)


def gateway(root: Path, store: Store) -> Scp:
    blobs = open_store(Path(tempfile.mkdtemp(dir=root)).as_uri())
    steps = Steps(store, DomainClock(), AuditTrail(b"banc"), Outbox(blobs), lambda *_: None)
    return component(Settings(data_dir=root, dicom=Dicom(bind=Address("127.0.0.1", 0))), steps, blobs)


def send(port: int, files: list[Path], senders: int) -> float:
    """Objects a second."""
    command = ["storescu", "-aec", "RCPGATEWAY", "-pdu", "131072", "127.0.0.1", str(port)]
    environment = {**os.environ, "TCP_NODELAY": "1"}
    start = time.perf_counter()
    sent = [
        subprocess.Popen([*command, *files[part::senders]], stdout=subprocess.DEVNULL, env=environment)
        for part in range(senders)
    ]
    assert [one.wait() for one in sent] == [0] * senders
    return len(files) / (time.perf_counter() - start)


def main() -> None:
    count, kib, senders = (int(text) for text in (sys.argv[1:] + ["100", "512", "4"][len(sys.argv) - 1 :]))
    if shutil.which("storescp") is None:
        sys.exit("dcmtk is needed (apt install dcmtk)")
    with tempfile.TemporaryDirectory(prefix="rcp-bench-") as folder, ExitStack() as stack:
        root = Path(folder)
        url = stack.enter_context(running(root / "database"))
        names = ("storescp, not synced", "wire, synced file", "gateway, file and row")
        rates: dict[str, list[float]] = {name: [] for name in names}
        store = Store(url)
        store.migrate()
        stack.callback(store.close)
        for turn in range(ROUNDS):
            # Another study each turn: an object that is already kept costs less.
            phantom = replace(
                DOMINIQUE, slices=count, pixels=int((kib * 512) ** 0.5), study_uid=f"{DOMINIQUE.study_uid}.{turn + 1}"
            )
            files = write_series(phantom, root / f"ct{turn}")
            lines: list[tuple[str, Callable[[], object]]] = [
                ("storescp, not synced", lambda: storescp(root)),
                ("wire, synced file", lambda: served(wire(root))),
                ("gateway, file and row", lambda: served(gateway(root, store))),
            ]
            for name, make in lines:
                with make() as port:  # type: ignore[attr-defined] # each is a context manager
                    rates[name].append(send(port, files, senders))
    size = phantom.pixels**2 * 2 // 1024
    print(f"{count} objects of {size} KiB, {senders} storescu at once, median of {ROUNDS}")
    peer = statistics.median(rates["storescp, not synced"])
    for name, found in rates.items():
        median = statistics.median(found)
        print(f"  {name:<24} {median:8.0f} objects/s   {median / peer:5.2f} of storescp")


if __name__ == "__main__":
    main()
