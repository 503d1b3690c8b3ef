"""C-STORE: objects a second into the gateway, beside Orthanc and dcmtk's storescp in the same run.

Run: ``python benchmarks/dicom_receive.py`` (``--help`` for its sizes). Needs the Debian packages dcmtk and orthanc. The
same kind of objects is sent to each by the same ``storescu`` and ``dcmsend``, over one association and over four at
once, ``TCP_NODELAY=1`` for all of them (without it Debian's dcmtk waits for delayed acknowledgements):

* dcmtk's ``storescp``: no sync, no index;
* the same with each file synced when it is closed, if there is a C compiler: what the disk and dcmtk leave to be
  reached, without a hash, an index or a name that is durable;
* Orthanc: its files synced (``SyncStorageArea``) and its index on, both by its own defaults, PDUs as large as ours; its
  SQLite does not sync a commit (``PRAGMA SYNCHRONOUS=NORMAL``), so what it has acknowledged may be missing from its
  index after a power cut;
* the same with its index on PostgreSQL, if the package orthanc-postgresql is there: file and index durable before the
  answer, as the gateway promises it, on a server of the same kind;
* the gateway: ``rcp-gateway serve --only dicom`` on PostgreSQL with fsync on; each object is synced and its row
  committed before it is answered.

At the end 50 associations are opened and left alone, and what they cost the gateway is told.

Rounds alternate, each with objects nobody has seen, and the median is told; ratios, not figures, travel between
machines.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

from gateway.demo.ct_phantom import DOMINIQUE, slice_data_set
from gateway.model.embedded import running
from gateway.model.store import Store

CLIENTS = {
    "storescu": ["storescu", "-aec", "RCPGATEWAY", "-pdu", "131072"],
    "dcmsend": ["dcmsend", "-aec", "RCPGATEWAY", "-pdu", "131072"],
}
ASSOCIATIONS = (1, 4)
#: `fclose` with a sync before it.
SYNCED = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>
int fclose(FILE *file) {
    int (*next)(FILE *) = (int (*)(FILE *)) dlsym(RTLD_NEXT, "fclose");
    if (fflush(file) == 0) fsync(fileno(file));
    return next(file);
}
"""
#: Of the gateway to a peer, by associations: what is wanted.
WANTED = {("Orthanc", 1): 2.0, ("Orthanc", 4): 2.5, ("storescp", 1): 0.4, ("storescp", 4): 0.4}
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}
ORTHANC_POSTGRESQL = Path("/usr/share/orthanc/plugins/libOrthancPostgreSQLIndex.so")
_NUMBER = "9999999"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


# Objects


class Objects:
    """CT objects that nobody has seen: a few drawn ones with fresh UIDs of the same length written into them."""

    def __init__(self, kib: int) -> None:
        self._study = f"{DOMINIQUE.study_uid}.{_NUMBER}"
        self._instance = f"{self._study}.1.{_NUMBER}"
        phantom = replace(DOMINIQUE, study_uid=self._study, slices=8, pixels=round((kib * 512) ** 0.5))
        self.kib = phantom.pixels**2 * 2 // 1024
        self._drawn = []
        for index in range(phantom.slices):
            ds, file = slice_data_set(phantom, index), BytesIO()
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = self._instance
            ds.save_as(file, enforce_file_format=True)
            self._drawn.append(file.getvalue())
        self._numbers = itertools.count(1_000_000)

    def write(self, folder: Path, count: int) -> list[Path]:
        """Write one study, a fresh one."""
        study = f"{DOMINIQUE.study_uid}.{next(self._numbers)}"
        folder.mkdir()
        paths = []
        for index in range(count):
            content = self._drawn[index % len(self._drawn)]
            content = content.replace(self._instance.encode(), f"{study}.1.{1_000_000 + index}".encode())
            path = folder / f"{index:05}.dcm"
            path.write_bytes(content.replace(self._study.encode(), study.encode()))
            paths.append(path)
        return paths


# Servers


def await_echo(port: int, process: subprocess.Popen[bytes]) -> None:
    command = ["echoscu", "-aec", "RCPGATEWAY", "127.0.0.1", str(port)]
    while subprocess.run(command, capture_output=True, check=False, env=ENVIRONMENT).returncode:
        if process.poll() is not None:
            sys.exit(f"the server ended: {process.args!r}")
        time.sleep(0.1)


@contextmanager
def started(command: list[str], port: int, log: Path, **environment: str) -> Iterator[int]:
    with log.open("wb") as written:
        process = subprocess.Popen(command, stdout=written, stderr=written, env={**ENVIRONMENT, **environment})
    try:
        await_echo(port, process)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


@contextmanager
def storescp(root: Path, port: int, name: str = "storescp", **environment: str) -> Iterator[int]:
    (root / name).mkdir()
    command = ["storescp", "--fork", "-od", str(root / name), "-pdu", "131072", str(port)]
    with started(command, port, root / f"{name}.log", **environment) as pid:
        yield pid


def synced_storescp(root: Path, port: int, compiler: str) -> AbstractContextManager[int]:
    (root / "synced.c").write_text(SYNCED)
    library = str(root / "synced.so")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, str(root / "synced.c"), "-ldl"], check=True)
    return storescp(root, port, "synced", LD_PRELOAD=library)


@contextmanager
def orthanc(root: Path, port: int, name: str = "Orthanc", **more: object) -> Iterator[int]:
    http = free_port()
    settings = {
        "StorageDirectory": str(root / name),
        "IndexDirectory": str(root / name),
        "HttpPort": http,
        "DicomPort": port,
        "DicomAet": "RCPGATEWAY",
        "MaximumPduLength": 131_072,
        "Plugins": [],
        **more,
    }
    (root / f"{name}.json").write_text(json.dumps(settings))
    binary = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
    with started([binary, str(root / f"{name}.json")], port, root / f"{name}.log", LC_ALL="C") as pid:
        yield pid
        with urllib.request.urlopen(f"http://127.0.0.1:{http}/statistics", timeout=60) as answer:
            print(f"{name} keeps {json.loads(answer.read())['CountInstances']} objects")


@contextmanager
def orthanc_on_postgresql(root: Path, port: int) -> Iterator[int]:
    with running(root / "index") as url:
        index = {"EnableIndex": True, "EnableStorage": False, "ConnectionUri": url, "Lock": False}
        with orthanc(root, port, "with PG", Plugins=[str(ORTHANC_POSTGRESQL)], PostgreSQL=index) as pid:
            yield pid


@contextmanager
def gateway(root: Path, port: int, url: str, processes: int) -> Iterator[int]:
    with started(
        [sys.executable, "-m", "gateway", "serve", "--only", "dicom"],
        port,
        root / "gateway.log",
        RCP_PROFILE="dev",
        RCP_DATA_DIR=str(root / "gateway"),
        RCP_DATABASE_URL=url,
        RCP_DICOM_BIND=f"127.0.0.1:{port}",
        **({"RCP_DICOM_WORKERS": str(processes)} if processes > 1 else {}),
    ) as pid:
        yield pid
        with Store(url).engine.connect() as connection:
            print(f"gateway keeps {connection.exec_driver_sql('SELECT count(*) FROM instance').scalar()} objects")


# Runs


def processor_s(pid: int) -> float:
    """Processor time of a process and its children that live, in seconds."""
    total, ticks = 0.0, os.sysconf("SC_CLK_TCK")
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            said = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(entry.parent.name) == pid or int(said[1]) == pid:
            total += (int(said[11]) + int(said[12])) / ticks
    return total


def send(client: str, port: int, files: list[Path], associations: int) -> float:
    """Objects a second."""
    command = [*CLIENTS[client], "127.0.0.1", str(port)]
    os.sync()  # what is not synced yet is not the next one's to pay for
    start = time.perf_counter()
    sent = [
        subprocess.Popen([*command, *files[part::associations]], stdout=subprocess.DEVNULL, env=ENVIRONMENT)
        for part in range(associations)
    ]
    codes = [one.wait() for one in sent]
    took = time.perf_counter() - start
    if any(codes):
        sys.exit(f"{client} to port {port} failed: {codes}")
    return len(files) / took


def empty(folder: Path) -> None:
    """Give the space back, and no number of a file: ext4 looks past each one for minutes, whoever makes a new file."""
    for path in folder.iterdir():
        os.truncate(path, 0)


def idle(port: int, pid: int, count: int, seconds: float) -> float:
    """Processor time a second that associations cost on which nothing happens."""

    def item(kind: int, body: bytes) -> bytes:
        return struct.pack(">BBH", kind, 0, len(body)) + body

    context = bytes(4) + item(0x30, b"1.2.840.10008.1.1") + item(0x40, b"1.2.840.10008.1.2")
    body = struct.pack(">HH", 1, 0) + b"RCPGATEWAY".ljust(16) + b"IDLE".ljust(16) + bytes(32)
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, b"\1" + context[1:])
    body += item(0x50, item(0x51, struct.pack(">L", 16_384)) + item(0x52, b"1.2.3.4"))
    with ExitStack() as stack:
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            sock.sendall(struct.pack(">BBL", 1, 0, len(body)) + body)
            if sock.recv(1) != b"\2":
                sys.exit("an association was not accepted")
        time.sleep(2)
        before, start = processor_s(pid), time.perf_counter()
        time.sleep(seconds)
        return (processor_s(pid) - before) / (time.perf_counter() - start)


@dataclass
class Arguments(argparse.Namespace):
    """What the command line says."""

    objects: int = 200
    kib: int = 512
    rounds: int = 5
    processes: int = 1
    only: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=200)
    parser.add_argument("--kib", type=int, default=512, help="of pixels in each object")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=1, help="of the gateway, on its one port")
    parser.add_argument("--only", default="", help="one client: storescu or dcmsend")
    said = parser.parse_args(namespace=Arguments())
    if shutil.which("storescp") is None:
        sys.exit("dcmtk is needed (apt install dcmtk)")
    clients = [said.only] if said.only else list(CLIENTS)
    memory = Path("/dev/shm")  # noqa: S108 - what is sent shall not wait for the disk that is measured
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rcp-bench-")))
        drawn = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="rcp-bench-", dir=memory if memory.is_dir() else None)
            )
        )
        url = stack.enter_context(running(root / "database"))
        compiler = shutil.which("cc")
        made: dict[str, Callable[[int], object]] = {
            "storescp": lambda port: storescp(root, port),
            **({"synced": lambda port: synced_storescp(root, port, compiler)} if compiler else {}),
            "Orthanc": lambda port: orthanc(root, port),
            **({"with PG": lambda port: orthanc_on_postgresql(root, port)} if ORTHANC_POSTGRESQL.exists() else {}),
            "gateway": lambda port: gateway(root, port, url, said.processes),
        }
        store = Store(url)
        store.migrate()
        store.close()
        ports = {name: free_port() for name in made}
        pids = {name: stack.enter_context(make(ports[name])) for name, make in made.items()}  # type: ignore[arg-type] # each is a context manager
        objects = Objects(said.kib)
        rates: dict[tuple[str, str, int], list[float]] = {}
        processor: dict[tuple[str, str, int], list[float]] = {}
        for turn in range(said.rounds + 1):
            for client in clients:
                for associations in ASSOCIATIONS:
                    folder = drawn / "study"
                    files = objects.write(folder, said.objects if turn else 20)  # a first round warms up
                    order = list(made)
                    for name in order[turn % len(order) :] + order[: turn % len(order)]:
                        before = processor_s(pids[name])
                        rate = send(client, ports[name], files, associations)
                        if turn:
                            key = (name, client, associations)
                            rates.setdefault(key, []).append(rate)
                            processor.setdefault(key, []).append((processor_s(pids[name]) - before) / len(files))
                    shutil.rmtree(folder)
            for name in {"storescp", "synced"} & made.keys():
                empty(root / name)
        resting = idle(ports["gateway"], pids["gateway"], 50, 10.0)
        print(
            f"{said.objects} objects of {objects.kib} KiB, median of {said.rounds} rounds, "
            f"{said.processes} process(es) of the gateway; load {os.getloadavg()[0]:.1f}"
        )
        reached = "reached" if resting < 0.1 else "MISSED"
        print(f"50 idle associations: {resting:.1%} of a core (less than 10 % wanted: {reached})")
        for client, associations in itertools.product(clients, ASSOCIATIONS):
            print(f"{client}, {associations} association{'s' * (associations > 1)}")
            ours = statistics.median(rates["gateway", client, associations])
            cost = statistics.median(processor["gateway", client, associations]) * 1000
            print(
                f"  {'gateway':<10}{ours:8.0f} objects/s   {cost:.2f} ms of processor an object, without PostgreSQL's"
            )
            for peer in (name for name in made if name != "gateway"):
                theirs = statistics.median(rates[peer, client, associations])
                pairs = zip(rates["gateway", client, associations], rates[peer, client, associations], strict=True)
                rounds = " ".join(f"{one / other:.2f}" for one, other in pairs)
                wanted = WANTED.get((peer, associations), 0.0)
                reached = "reached" if ours / theirs >= wanted else "MISSED"
                judged = f"{wanted} wanted: {reached}; " if wanted else ""
                share = f"gateway {ours / theirs:5.2f} of it ({judged}rounds {rounds})"
                print(f"  {peer:<10}{theirs:8.0f} objects/s   {share}")


if __name__ == "__main__":
    main()
