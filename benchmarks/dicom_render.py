"""Rendered JPEG, each object for the first time and then again, beside Orthanc's DICOMweb plugin in the same run.

Run: ``python benchmarks/dicom_render.py`` (``--help`` for its sizes). Needs the Debian packages orthanc,
orthanc-dicomweb and dcmtk. The servers and the client are those of ``benchmarks/dicomweb.py``: both have their index on
and their files synced, each answer of the gateway leaves after its audit line is committed. Both are asked for the same
window; their pictures must be as large, of the same JPEG quality (the same table) and the same to a shade or two.

* cold: every object of a series once, in no order: each is decoded when it is asked for;
* scroll: every object of another series once, in order, which the gateway sees and draws the next ones ahead;
* again: one of them, asked for over and over.

Plain objects, and the same with JPEG lossless pixels (process 14), which Orthanc decodes by itself. The median of the
rounds is told, and beside it the processor's time of all processes of each server, which other work on the machine
changes less: the gateway's with its drawing processes and its database. Ratios, not figures, travel between machines.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from dicomweb import PLUGIN, Client, free_port, gateway, multipart, objects, orthanc
from PIL.JpegImagePlugin import JpegImageFile

from gateway.demo.ct_phantom import DOMINIQUE
from gateway.model.embedded import running
from gateway.model.store import Store

#: Of the gateway to Orthanc: what is wanted.
WANTED = {"cold": 1.0, "scroll": 1.0, "again": 1.0}
KINDS = ("plain", "JPEG lossless")
WINDOW = "window=40,400,linear"


@dataclass
class Arguments(argparse.Namespace):
    """What the command line says."""

    objects: int = 60
    pixels: int = 512
    rounds: int = 3


def lossless(plain: list[bytes], folder: Path) -> list[bytes]:
    """Compress each object's pixels with dcmtk."""
    made = []
    for number, content in enumerate(plain):
        source, target = folder / f"{number}.dcm", folder / f"{number}.jpg.dcm"
        source.write_bytes(content)
        subprocess.run(["dcmcjpeg", "+e1", source, target], check=True, capture_output=True)
        made.append(target.read_bytes())
    return made


def picture(client: Client, study: str, number: int) -> bytes:
    path = f"/studies/{study}/series/{study}.1/instances/{study}.1.{number}/rendered?{WINDOW}"
    return bytes(client.ask(path, "image/jpeg"))


def compared(clients: dict[str, Client], study: str) -> str:
    """See that both draw the same, to what two JPEGs of one picture may differ by; say how their pictures are."""
    drawn, told = {}, []
    for name, client in clients.items():
        client.connect()
        content = picture(client, study, 2)
        drawn[name] = one = JpegImageFile(io.BytesIO(content))
        told.append(f"{name} {one.width} × {one.height} {one.mode}, {len(content)} bytes")
    theirs, ours = drawn["Orthanc"], drawn["gateway"]
    said = "; ".join(told)
    if (theirs.size, theirs.mode, theirs.quantization) != (ours.size, ours.mode, ours.quantization):
        sys.exit(f"the two do not draw alike, or not in the same quality: {said}")
    values = np.asarray(theirs).astype(int)
    difference = np.abs(values - np.asarray(ours))
    if values.std() < 5 or difference.mean() > 1.5:
        sys.exit(f"the two do not draw the same: {difference.mean():.1f} of 255 apart")
    return f"{said}; the same quantisation, {difference.mean():.2f} of 255 apart"


def processor() -> dict[str, float]:
    """Seconds of processor that each server has had, with all of its processes; the database is the gateway's."""
    parents, named = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            number = int(folder.name)
            parents[number] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            named[number] = (folder / "cmdline").read_bytes()
        except OSError:  # it ended
            continue
    took = {"Orthanc": 0.0, "gateway": 0.0}
    for number in named:
        above, name = number, ""
        while above and above != os.getpid():
            name = "Orthanc" if b"Orthanc" in named.get(above, b"").split(b"\0")[0] else name or "gateway"
            above = parents.get(above, 0)
        if above and name:
            with contextlib.suppress(OSError):
                for thread in Path(f"/proc/{number}/task").iterdir():
                    took[name] += int((thread / "schedstat").read_text().split()[0]) / 1e9
    return took


def measured(
    clients: dict[str, Client], root: Path, said: Arguments, turn: int, rank: int
) -> tuple[dict[tuple[str, str], tuple[float, float]], str]:
    """Lay two series down at both and look at them; seconds a picture, by the clock and of processor, and how it is."""
    count = said.objects if turn else 5
    studies = [f"{DOMINIQUE.study_uid}.{turn + 1}.{rank + 1}.{series}" for series in (1, 2)]
    for study in studies:
        sent = objects(study, count, said.pixels)
        body = multipart(lossless(sent, root) if rank else sent)
        for client in clients.values():
            client.connect()
            client.ask("/studies", "application/dicom+json", body)
    acts = {
        "cold": (studies[0], random.Random(turn).sample(range(1, count + 1), count)),  # noqa: S311 - an order, no secret
        "scroll": (studies[1], range(1, count + 1)),
        "again": (studies[0], [3] * count),
    }
    took: dict[tuple[str, str], tuple[float, float]] = {}
    for act, (study, numbers) in acts.items():
        for name in list(clients) if turn % 2 else reversed(clients):
            clients[name].connect()
            used, start = processor()[name], time.perf_counter()
            for number in numbers:
                picture(clients[name], study, number)
            took[name, act] = ((time.perf_counter() - start) / count, (processor()[name] - used) / count)
    return took, compared(clients, studies[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=Arguments.objects)
    parser.add_argument("--pixels", type=int, default=Arguments.pixels, help="of a side")
    parser.add_argument("--rounds", type=int, default=Arguments.rounds)
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
        times: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
        alike = ""

        for turn in range(said.rounds + 1):  # a first round warms up
            for rank, kind in enumerate(KINDS):
                took, alike = measured(clients, root, said, turn, rank)
                for (name, act), one in took.items():
                    if turn:
                        times.setdefault((name, kind, act), []).append(one)
        print(
            f"{said.objects} objects of {said.pixels} × {said.pixels} pixels, median of {said.rounds} rounds; "
            f"load {os.getloadavg()[0]:.1f}\n{alike}"
        )
        for kind in KINDS:
            for act, wanted in WANTED.items():
                [(peer, theirs), (ours, own)] = (
                    [statistics.median(one[at] for one in times[name, kind, act]) * 1000 for at in (0, 1)]
                    for name in ("Orthanc", "gateway")
                )
                print(
                    f"  {kind:<13} {act:<6} gateway {ours:6.2f} ms, Orthanc {peer:6.2f} ms: "
                    f"{peer / ours:.2f} times, wanted {wanted:g} (processor {own:.2f} and {theirs:.2f} ms)"
                )


if __name__ == "__main__":
    main()
