"""C-GET and C-MOVE: objects a second out of the gateway, beside Orthanc and dcmtk's dcmqrscp in the same run.

Run: ``python benchmarks/dicom_retrieve.py`` (``--help`` for its sizes). Needs the Debian packages dcmtk and orthanc.
Each server keeps the same study. dcmtk's ``getscu`` fetches it, with PDUs of 16 KiB (its default) and of 128 KiB, and
``movescu`` has it sent to one ``storescp``, all told to throw away what comes: what is measured is how a server sends.
``TCP_NODELAY=1`` for all of them.

Rounds alternate, and the median is told; ratios, not figures, travel between machines. Processor time is the server's
own, without PostgreSQL's; dcmqrscp's is not told, its processes end with their associations.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dicom_receive import ENVIRONMENT, Objects, free_port, processor_s, started
from pydicom import dcmread

from gateway.model.embedded import running
from gateway.model.store import Store

READER, CALLER = "READER", "BENCH"
PEERS = ("Orthanc", "dcmqrscp")
ACCOUNTED = ("gateway", "Orthanc")
#: Of the gateway to a peer.
WANTED = {"Orthanc": 1.0}

#: Server and verb, with a figure of each round.
Figures = dict[tuple[str, str], list[float]]


@contextmanager
def orthanc(root: Path, port: int, reader: int) -> Iterator[int]:
    settings = {
        "StorageDirectory": str(root / "orthanc"),
        "IndexDirectory": str(root / "orthanc"),
        "HttpPort": free_port(),
        "DicomPort": port,
        "DicomAet": "RCPGATEWAY",
        "MaximumPduLength": 131_072,
        "DicomModalities": {"reader": [READER, "127.0.0.1", reader]},
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "SynchronousCMove": True,
        "Plugins": [],
    }
    (root / "orthanc.json").write_text(json.dumps(settings))
    binary = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
    with started([binary, str(root / "orthanc.json")], port, root / "orthanc.log", LC_ALL="C") as pid:
        yield pid


@contextmanager
def dcmqrscp(root: Path, port: int, reader: int) -> Iterator[int]:
    (root / "dcmqrscp").mkdir()
    said = f"""NetworkTCPPort = {port}
MaxPDUSize = 131072
MaxAssociations = 16
HostTable BEGIN
reader = ({READER}, 127.0.0.1, {reader})
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
RCPGATEWAY {root / "dcmqrscp"} RW (200, 1024mb) ANY
AETable END
"""
    (root / "dcmqrscp.cfg").write_text(said)
    with started(["dcmqrscp", "-c", str(root / "dcmqrscp.cfg")], port, root / "dcmqrscp.log") as pid:
        yield pid


@contextmanager
def gateway(root: Path, port: int, reader: int, url: str) -> Iterator[int]:
    environment = {"RCP_PROFILE": "dev", "RCP_DATA_DIR": str(root / "gateway"), "RCP_DATABASE_URL": url}
    places = ("--aet", f"{CALLER}@127.0.0.1:104", "--aet", f"{READER}@127.0.0.1:{reader}")
    command = [sys.executable, "-m", "gateway", "partner", "add", "CHU X", *places]
    subprocess.run(command, check=True, env={**ENVIRONMENT, **environment}, stdout=subprocess.DEVNULL)
    serve = [sys.executable, "-m", "gateway", "serve", "--only", "dicom"]
    with started(serve, port, root / "gateway.log", RCP_DICOM_BIND=f"127.0.0.1:{port}", **environment) as pid:
        yield pid


@contextmanager
def receiver(port: int, log: Path) -> Iterator[None]:
    command = ["storescp", "-aet", READER, "--ignore", "-pdu", "131072", "+xa", str(port)]
    with started(command, port, log):
        yield


def retrieve(verb: str, port: int, study: str) -> float:
    """Seconds that one retrieval of the study takes."""
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}"]
    tool, *size = verb.split()
    how = ["--ignore", "-pdu", *size] if tool == "getscu" else ["-aem", READER]
    command = [tool, "-v", "-S", "-aet", CALLER, "-aec", "RCPGATEWAY", *how, *keys, "127.0.0.1", str(port)]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    took = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return took


@dataclass
class Arguments(argparse.Namespace):
    """What the command line says."""

    objects: int = 50
    kib: int = 512
    rounds: int = 7
    only: str = ""


def told(said: Arguments, verbs: list[str], took: Figures, processor: Figures) -> None:
    """Print what was measured."""
    print(f"{said.objects} objects of {said.kib} KiB, median of {said.rounds} rounds; load {os.getloadavg()[0]:.1f}")
    for verb in verbs:
        print(verb)
        ours = took["gateway", verb]
        for name in ("gateway", *PEERS):
            theirs = took[name, verb]
            line = f"  {name:<10}{said.objects / statistics.median(theirs):8.0f} objects/s"
            if name in ACCOUNTED:
                cost = statistics.mean(processor[name, verb]) / said.objects * 1000
                line += f" {cost:6.2f} ms of processor an object"
            if name in PEERS:
                ratio = statistics.median(theirs) / statistics.median(ours)
                rounds = " ".join(f"{other / one:.2f}" for one, other in zip(ours, theirs, strict=True))
                line += f"   gateway {ratio:5.2f} of it (rounds {rounds})"
            if name in WANTED:
                line += f" {WANTED[name]} wanted: {'reached' if ratio >= WANTED[name] else 'MISSED'}"
            print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=50)
    parser.add_argument("--kib", type=int, default=512, help="of pixels in each object")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="one verb, such as « getscu 16384 »")
    said = parser.parse_args(namespace=Arguments())
    if shutil.which("getscu") is None:
        sys.exit("dcmtk is needed (apt install dcmtk)")
    verbs = [said.only] if said.only else ["getscu 16384", "getscu 131072", "movescu"]
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rcp-bench-")))
        url = stack.enter_context(running(root / "database"))
        store = Store(url)
        store.migrate()
        store.close()
        reader = free_port()
        stack.enter_context(receiver(reader, root / "storescp.log"))
        made: dict[str, Callable[[int], object]] = {
            "Orthanc": lambda port: orthanc(root, port, reader),
            "dcmqrscp": lambda port: dcmqrscp(root, port, reader),
            "gateway": lambda port: gateway(root, port, reader, url),
        }
        ports = {name: free_port() for name in made}
        pids = {name: stack.enter_context(make(ports[name])) for name, make in made.items()}  # type: ignore[arg-type] # each is a context manager
        files = Objects(said.kib).write(root / "study", said.objects)
        study = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
        for port in ports.values():
            command = ["storescu", "-aet", CALLER, "-aec", "RCPGATEWAY", "127.0.0.1", str(port), *map(str, files)]
            subprocess.run(command, check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        took: Figures = {}
        processor: Figures = {}
        for turn, verb in itertools.product(range(said.rounds + 1), verbs):  # a first round warms up
            order = list(made)
            for name in order[turn % 3 :] + order[: turn % 3]:
                before = processor_s(pids[name])
                seconds = retrieve(verb, ports[name], study)
                if turn:
                    took.setdefault((name, verb), []).append(seconds)
                    processor.setdefault((name, verb), []).append(processor_s(pids[name]) - before)
        told(said, verbs, took, processor)


if __name__ == "__main__":
    main()
