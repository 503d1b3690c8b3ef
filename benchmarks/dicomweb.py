"""DICOMweb: STOW-RS, QIDO-RS, WADO-RS metadata and frames, beside Orthanc and its DICOMweb plugin in the same run.

Run: ``python benchmarks/dicomweb.py`` (``--help`` for its sizes). Needs the Debian packages orthanc and
orthanc-dicomweb. The same bytes go to each over one kept connection of the same client with TCP_NODELAY, turn about:

* Orthanc with its plugin: files synced (``SyncStorageArea``) and index on, by its own defaults; extra threads, stable
  age and everything else as Debian ships it;
* the gateway: ``rcp-gateway serve --only http`` on PostgreSQL with fsync on, ``RCP_FHIR_AUTH=off``; each object is
  synced and its row committed before the answer, each answer's audit line committed before it leaves.

The answers are compared first: the same instances, the same bytes of a frame. The median of the rounds is told; ratios,
not figures, travel between machines.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

from gateway.demo.ct_phantom import DOMINIQUE, slice_data_set
from gateway.model.embedded import running
from gateway.model.store import Store

#: Of the gateway to Orthanc: what is wanted; of STOW-RS, all objects in one request, and each in one of its own.
WANTED = {"STOW-RS": 2.0, "STOW-RS one": 1.0, "QIDO-RS": 10.0, "metadata": 10.0, "frame": 1.5, "each frame": 1.5}
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1", "LC_ALL": "C"}
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
BOUNDARY = "frontiere-du-banc"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def objects(study: str, count: int, pixels: int) -> list[bytes]:
    """One CT series."""
    phantom = replace(DOMINIQUE, study_uid=study, slices=count, pixels=pixels)
    made = []
    for index in range(count):
        file = BytesIO()
        slice_data_set(phantom, index).save_as(file, enforce_file_format=True)
        made.append(file.getvalue())
    return made


def multipart(parts: list[bytes]) -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(head + part + b"\r\n" for part in parts) + f"--{BOUNDARY}--\r\n".encode()


class Client:
    """One kept connection, opened anew before each measure: Orthanc closes one that is silent for a second.

    It reads answers itself, into memory that it keeps: Python's own client compiles a regular expression for each
    boundary of ``multipart``, which costs as much as the frame does, whoever answers; and a copy of what has come whole
    is no server's time.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.memory = bytearray(64 << 20)
        self.connect()

    def connect(self) -> None:
        """Open it."""
        self.sock = socket.create_connection(("127.0.0.1", self.port), timeout=120)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, path: str, accept: str, body: bytes | None = None) -> memoryview:
        """Give the body of a 200, until the next is asked for."""
        said = [f"{'GET' if body is None else 'POST'} /dicom-web{path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}"]
        said.append(f"Accept: {accept}")
        if body is not None:
            said.append(f'Content-Type: multipart/related; type="application/dicom"; boundary={BOUNDARY}')
            said.append(f"Content-Length: {len(body)}")
        self.sock.sendall("\r\n".join((*said, "", "")).encode())
        if body is not None:
            self.sock.sendall(body)
        return self.answer(path)

    def answer(self, path: str) -> memoryview:
        """Read one answer, which says how long it is."""
        view, end, here = memoryview(self.memory), -1, 0
        while end < 0:
            got = self.sock.recv_into(view[here:])
            if not got:
                sys.exit(f"{path}: the connection is closed")
            here += got
            end = self.memory.find(b"\r\n\r\n", 0, here)
        head = bytes(view[:end]).lower()
        length = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        whole = end + 4 + length
        while here < whole:
            here += self.sock.recv_into(view[here:whole], 0, socket.MSG_WAITALL)
        content = view[end + 4 : whole]
        if head[9:12] != b"200":
            sys.exit(f"{path}: {head[:20]!r} {bytes(content[:200])!r}")
        return content


@contextmanager
def started(command: list[str], port: int, path: str, log: Path, **environment: str) -> Iterator[None]:
    with log.open("wb") as written:
        process = subprocess.Popen(command, stdout=written, stderr=written, env={**ENVIRONMENT, **environment})
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).close()
                break
            except OSError:
                if process.poll() is not None:
                    sys.exit(f"the server ended: {log.read_text()[-2000:]}")
                time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def orthanc(root: Path, port: int) -> Iterator[None]:
    settings = {
        "StorageDirectory": str(root / "orthanc"),
        "IndexDirectory": str(root / "orthanc"),
        "HttpPort": port,
        "DicomServerEnabled": False,
        "AuthenticationEnabled": False,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False},
    }
    (root / "orthanc.json").write_text(json.dumps(settings))
    binary = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
    with started([binary, str(root / "orthanc.json")], port, "/system", root / "orthanc.log"):
        yield


@contextmanager
def gateway(root: Path, port: int, url: str) -> Iterator[None]:
    with started(
        [sys.executable, "-m", "gateway", "serve", "--only", "http"],
        port,
        "/health/live",
        root / "gateway.log",
        RCP_PROFILE="dev",
        RCP_DATA_DIR=str(root / "gateway"),
        RCP_DATABASE_URL=url,
        RCP_HTTP_BIND=f"127.0.0.1:{port}",
        RCP_PUBLIC_URL=f"http://127.0.0.1:{port}",
        RCP_FHIR_AUTH="off",
        RCP_LIMIT_REQUESTS_PER_MINUTE="1000000",
    ):
        yield


@dataclass
class Arguments(argparse.Namespace):
    """What the command line says."""

    objects: int = 200
    pixels: int = 512
    rounds: int = 5
    repeats: int = 10


def frame_of(multipart_body: bytes) -> bytes:
    """The content of the only part."""
    boundary, _, rest = multipart_body.lstrip(b"\r\n").partition(b"\r\n")
    return rest.partition(b"\r\n\r\n")[2].rpartition(b"\r\n" + boundary)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=200)
    parser.add_argument("--pixels", type=int, default=512, help="of a side: 512 are 512 KiB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=10, help="of each question in a round")
    said = parser.parse_args(namespace=Arguments())
    if not PLUGIN.exists():
        sys.exit("orthanc-dicomweb is needed (apt install orthanc-dicomweb)")
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rcp-bench-")))
        url = stack.enter_context(running(root / "database"))
        store = Store(url)
        store.migrate()
        store.close()
        ports = {"Orthanc": free_port(), "gateway": free_port()}
        stack.enter_context(orthanc(root, ports["Orthanc"]))
        stack.enter_context(gateway(root, ports["gateway"], url))
        clients = {name: Client(port) for name, port in ports.items()}
        times: dict[tuple[str, str], list[float]] = {}

        def timed(turn: int, act: str, count: int, work: Callable[[Client], object]) -> None:
            order = list(clients)
            for name in order if turn % 2 else reversed(order):
                os.sync()
                clients[name].connect()
                start = time.perf_counter()
                for _ in range(count):
                    work(clients[name])
                if turn:
                    times.setdefault((name, act), []).append((time.perf_counter() - start) / count)

        for turn in range(said.rounds + 1):  # a first round warms up
            study = f"{DOMINIQUE.study_uid}.{turn + 1}"
            sent = objects(study, said.objects if turn else 20, said.pixels)
            body = multipart(sent)
            timed(turn, "STOW-RS", 1, lambda client, body=body: client.ask("/studies", "application/dicom+json", body))
            compared(clients, study, len(sent))
            alone = [multipart([one]) for one in objects(f"{study}.9", said.objects if turn else 20, said.pixels)]
            bodies = {client: iter(alone) for client in clients.values()}
            timed(
                turn,
                "STOW-RS one",
                len(alone),
                lambda client, bodies=bodies: client.ask("/studies", "application/dicom+json", next(bodies[client])),
            )
            series, one = f"/studies/{study}/series/{study}.1", f"{study}.1.{len(sent) // 2}"
            questions = {
                "QIDO-RS": (f"{series}/instances?limit=1000", "application/dicom+json"),
                "metadata": (f"{series}/metadata", "application/dicom+json"),
                "frame": (f"{series}/instances/{one}/frames/1", FRAME),
            }
            for act, (path, accept) in questions.items():
                count = 10 * said.repeats if act == "frame" else said.repeats
                timed(turn, act, count, lambda client, path=path, accept=accept: client.ask(path, accept))

            # As a viewer does: each once, none of which was asked for before.
            each = {
                client: iter([f"{series}/instances/{study}.1.{number + 1}/frames/1" for number in range(len(sent))])
                for client in clients.values()
            }
            timed(turn, "each frame", len(sent), lambda client, each=each: client.ask(next(each[client]), FRAME))
        print(
            f"{said.objects} objects of {said.pixels**2 * 2 // 1024} KiB, median of {said.rounds} rounds; "
            f"load {os.getloadavg()[0]:.1f}"
        )
        for act, wanted in WANTED.items():
            peer, ours = (statistics.median(times[name, act]) * 1000 for name in ("Orthanc", "gateway"))
            print(
                f"  {act:<11} gateway {ours:8.2f} ms, Orthanc {peer:8.2f} ms: "
                f"{peer / ours:.2f} times, wanted {wanted:g}"
            )


FRAME = 'multipart/related; type="application/octet-stream"'


def compared(clients: dict[str, Client], study: str, count: int) -> None:
    """See that both answer the same before anything is timed."""
    said: dict[str, object] = {}
    series = f"/studies/{study}/series/{study}.1"
    for name, client in clients.items():
        client.connect()
        found = json.loads(bytes(client.ask(f"{series}/instances?limit=1000", "application/dicom+json")))
        whole = json.loads(bytes(client.ask(f"{series}/metadata", "application/dicom+json")))
        frame = frame_of(bytes(client.ask(f"{series}/instances/{study}.1.1/frames/1", FRAME)))
        uids = [sorted(one["00080018"]["Value"][0] for one in each) for each in (found, whole)]
        said[name] = (uids, frame)
        if [len(each) for each in uids] != [count, count]:
            sys.exit(f"{name} answers {[len(each) for each in uids]} of {count} objects")
    if said["Orthanc"] != said["gateway"]:
        sys.exit("the two do not answer the same")


if __name__ == "__main__":
    main()
