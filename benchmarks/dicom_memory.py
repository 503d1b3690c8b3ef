"""One object of more than 2 GiB through every door: how much memory the gateway takes more, beside a limit of 64 MB.

Run: ``python benchmarks/dicom_memory.py`` (``--help`` for its sizes). Needs the Debian package dcmtk and six times the
object on the disk, 13 GB. The object is a multi-frame CT of 512 × 512 pixels of 16 bits, more than 2^31 bytes of them
in a sparse file, each frame beginning with its number; and once more with frames of RLE whose segments stand apart, so
that fragments and their offsets are as large. dcmtk's ``storescu`` sends them, ``getscu`` fetches one, ``movescu`` has
one sent to ``storescp``; HTTP is spoken by hand, in pieces.

Memory is what the kernel says was the most that each process of ``rcp-gateway serve --only http,dicom`` had in memory
(``VmHWM``, begun anew before each act) beyond what it had before, all processes together, those that draw too; the
database is another's. Every act is done on a small object first: what is made once is made. What comes out is compared
with what went in: the whole by its SHA-256, frames and ranges by their bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import itertools
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import psutil
from dicom_receive import ENVIRONMENT, free_port, started
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import UID, RLELossless

from gateway.demo.ct_phantom import DOMINIQUE, slice_data_set
from gateway.model.embedded import running
from gateway.model.store import Store

MB = 1_000_000
#: What the process may take more, whatever the object weighs.
LIMIT_MB = 64
SIDE = 512
FRAME_BYTES = SIDE * SIDE * 2
BLOCK_BYTES = 1 << 20
BOUNDARY = "frontiere-du-banc"


@dataclass(frozen=True)
class MultiFrame:
    """An object in a sparse file."""

    path: Path
    uid: str
    frames: int
    pixels_at: int

    @property
    def address(self) -> str:
        """Of the instance below ``/dicom-web``."""
        study = DOMINIQUE.study_uid
        return f"/studies/{study}/series/{study}.1/instances/{self.uid}"

    def read(self, start: int, length: int) -> bytes:
        """Bytes of the file."""
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(length)

    def pieces(self, start: int = 0) -> Iterator[bytes]:
        """All of the file from a place on."""
        with self.path.open("rb") as file:
            file.seek(start)
            while piece := file.read(BLOCK_BYTES):
                yield piece


def multi_frame(folder: Path, number: int, frames: int) -> MultiFrame:
    """Write an object whose pixels are holes, but for the number at the beginning of each frame."""
    ds, out = slice_data_set(DOMINIQUE, 0), BytesIO()
    uid = UID(f"{DOMINIQUE.study_uid}.1.{1000 + number}")
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid
    ds.NumberOfFrames, ds.Rows, ds.Columns, ds.PixelData = str(frames), SIDE, SIDE, b""
    ds.save_as(out, enforce_file_format=True)
    head = out.getvalue()[:-4] + struct.pack("<L", frames * FRAME_BYTES)
    path = folder / f"{number}.dcm"
    with path.open("wb") as file:
        file.write(head)
        for frame in range(frames):
            file.seek(len(head) + frame * FRAME_BYTES)
            file.write(struct.pack("<L", frame + 1))
        file.truncate(len(head) + frames * FRAME_BYTES)
    return MultiFrame(path, uid, frames, len(head))


def compressed_multi_frame(folder: Path, number: int, frames: int) -> MultiFrame:
    """Write an object of RLE frames as large as native ones; all pixels of a frame are its number."""
    ds, out = slice_data_set(DOMINIQUE, 0), BytesIO()
    uid = UID(f"{DOMINIQUE.study_uid}.1.{1000 + number}")
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid
    ds.file_meta.TransferSyntaxUID = RLELossless
    ds.NumberOfFrames, ds.Rows, ds.Columns, ds.PixelRepresentation = str(frames), SIDE, SIDE, 0
    ds.BitsStored, ds.HighBit = 16, 15
    ds.PixelData = encapsulate([b"\0\0"])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.save_as(out, enforce_file_format=True)
    head = out.getvalue()
    head = head[
        : head.rindex(struct.pack("<HH", 0xFFFE, 0xE000), 0, head.rindex(struct.pack("<HHL", 0xFFFE, 0xE000, 2)))
    ]
    item = 8 + FRAME_BYTES
    runs = SIDE * SIDE // 128
    path = folder / f"{number}.dcm"
    with path.open("wb") as file:
        offsets = struct.pack(f"<{frames}L", *(frame * item for frame in range(frames)))
        file.write(head + struct.pack("<HHL", 0xFFFE, 0xE000, len(offsets)) + offsets)
        first = file.tell()
        for frame in range(frames):
            segments = [struct.pack("bB", -127, byte) * runs for byte in divmod(frame + 1, 256)]
            places = (FRAME_BYTES - 2 * len(segments[0]), FRAME_BYTES - len(segments[0]))
            file.seek(first + frame * item)
            file.write(struct.pack("<HHL", 0xFFFE, 0xE000, FRAME_BYTES) + struct.pack("<3L", 2, *places))
            file.seek(first + frame * item + 8 + places[0])
            file.write(b"".join(segments))
        file.write(struct.pack("<HHL", 0xFFFE, 0xE0DD, 0))
    return MultiFrame(path, uid, frames, first)


def digest(pieces: Iterator[bytes]) -> str:
    found = hashlib.sha256()
    for piece in pieces:
        found.update(piece)
    return found.hexdigest()


def data_set_digest(path: Path) -> str:
    """Of a Part 10 file after its File Meta Information."""
    with path.open("rb") as file:
        head = file.read(144)
        file.seek(144 + int.from_bytes(head[140:144], "little"))
        return digest(iter(lambda: file.read(BLOCK_BYTES), b""))


def same(what: str, said: object, expected: object) -> None:
    if said != expected:
        sys.exit(f"{what}: {str(said)[:200]} instead of {str(expected)[:200]}")


# What is done


class Acts:
    """Everything that is done with one object, each checked."""

    def __init__(self, root: Path, dicom: int, web: int, received: Path) -> None:
        self._root, self._dicom, self._web, self._received = root, dicom, web, received

    def all(
        self, sent: MultiFrame, laid: MultiFrame, described: MultiFrame, rle: MultiFrame
    ) -> Iterator[tuple[str, Callable[[], object]]]:
        """Name each act on objects that are sent by C-STORE, and those on objects that are laid down by STOW-RS."""
        last, pixels = sent.frames, f"{sent.address}/bulkdata/7FE00010"
        yield "C-STORE", lambda: self.store(sent)
        yield "STOW-RS", lambda: self.lay(laid)
        yield "STOW-RS, described", lambda: self.describe(described)
        yield "C-GET", lambda: self.get(sent)
        yield "C-MOVE", lambda: self.move(sent)
        yield "WADO-RS, the instance", lambda: self.fetch(sent)
        yield "its last bytes (Range)", lambda: self.end(sent)
        yield "metadata", lambda: self.metadata(sent)
        yield "bulk data, the pixels", lambda: self.bulk(sent)
        yield (
            "their last frame (Range)",
            lambda: same(
                "bulk data",
                self.ask(pixels, "application/octet-stream", 206, range_=f"bytes=-{FRAME_BYTES}"),
                self.frame(sent, last),
            ),
        )
        yield (
            "the last frame",
            lambda: same(
                "frame",
                self.ask(f"{sent.address}/frames/{last}", "application/octet-stream"),
                self.frame(sent, last),
            ),
        )
        numbers = ",".join(str(number) for number in range(max(1, last - 63), last + 1))
        kind = 'multipart/related; type="application/octet-stream"'
        yield "the last 64 frames", lambda: self.frames(sent, numbers, kind)
        yield "the last frame, rendered", lambda: self.picture(f"{sent.address}/frames/{last}/rendered")
        yield "thumbnail", lambda: self.picture(f"{sent.address}/thumbnail")
        yield "RLE: C-STORE", lambda: self.store(rle, "-xr")
        yield "RLE: the last frame, as kept", lambda: self.kept_frame(rle, last)
        yield "RLE: the last frame, decoded", lambda: self.decoded_frame(rle, last)
        yield "RLE: the last frame, rendered", lambda: self.picture(f"{rle.address}/frames/{last}/rendered")

    def frame(self, one: MultiFrame, number: int) -> bytes:
        """Give a native frame as it was sent."""
        return one.read(one.pixels_at + (number - 1) * FRAME_BYTES, FRAME_BYTES)

    def kept_frame(self, one: MultiFrame, number: int) -> None:
        """Ask for a compressed frame as it was sent."""
        found = self.ask(f"{one.address}/frames/{number}", "image/dicom-rle")
        same("RLE", found, one.read(one.pixels_at + (number - 1) * (8 + FRAME_BYTES) + 8, FRAME_BYTES))

    def decoded_frame(self, one: MultiFrame, number: int) -> None:
        """Ask for a compressed frame as numbers."""
        found = self.ask(f"{one.address}/frames/{number}", "application/octet-stream")
        same("RLE, decoded", found, struct.pack("<H", number) * SIDE * SIDE)

    def store(self, one: MultiFrame, *options: str) -> None:
        """Send it."""
        command = ["storescu", "-v", *options, "-pdu", "131072", "-aec", "RCPGATEWAY"]
        command += ["127.0.0.1", str(self._dicom), str(one.path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
        if done.returncode or "Response (Success)" not in done.stdout + done.stderr:
            sys.exit(f"storescu: {done.stdout[-2000:]}{done.stderr[-2000:]}")

    def lay(self, one: MultiFrame) -> None:
        """Lay it down in a part of a request, in pieces."""
        self._lay("application/dicom", f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode(), one)

    def _lay(self, kind: str, head: bytes, one: MultiFrame, start: int = 0) -> None:
        tail = f"\r\n--{BOUNDARY}--\r\n".encode()
        with self._connected() as line:
            line.putrequest("POST", "/dicom-web/studies")
            line.putheader("Content-Type", f'multipart/related; type="{kind}"; boundary={BOUNDARY}')
            line.putheader("Content-Length", str(len(head) + one.path.stat().st_size - start + len(tail)))
            line.endheaders()
            for piece in itertools.chain((head,), one.pieces(start), (tail,)):
                line.send(piece)
            answer = line.getresponse()
            same("STOW-RS", (answer.status, answer.read()[:0]), (200, b""))

    def describe(self, one: MultiFrame) -> None:
        """Lay it down described, its pixels in a part of their own, in pieces; and read the pixels again."""
        described = dcmread(one.path, stop_before_pixels=True).to_json_dict()
        described["7FE00010"] = {"vr": "OW", "BulkDataURI": "pixels"}
        head = f"--{BOUNDARY}\r\nContent-Type: application/dicom+json\r\n\r\n{json.dumps([described])}\r\n"
        head += f"--{BOUNDARY}\r\nContent-Type: application/octet-stream\r\nContent-Location: pixels\r\n\r\n"
        self._lay("application/dicom+json", head.encode(), one, one.pixels_at)
        self.bulk(one)

    def move(self, one: MultiFrame) -> None:
        """Have it sent to the receiver."""
        keys = {"QueryRetrieveLevel": "IMAGE", "StudyInstanceUID": DOMINIQUE.study_uid}
        keys |= {"SeriesInstanceUID": f"{DOMINIQUE.study_uid}.1", "SOPInstanceUID": one.uid}
        command = ["movescu", "-S", "-aec", "RCPGATEWAY", "-aem", "RECEIVER"]
        for key, value in keys.items():
            command += ["-k", f"{key}={value}"]
        command += ["127.0.0.1", str(self._dicom)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
        files = list(self._received.iterdir())
        if done.returncode or len(files) != 1:
            sys.exit(f"movescu: {len(files)} files {done.stdout[-2000:]}{done.stderr[-2000:]}")
        same("C-MOVE", data_set_digest(files[0]), data_set_digest(one.path))
        files[0].unlink()

    def get(self, one: MultiFrame) -> None:
        """Fetch it bit by bit."""
        folder = self._root / "got"
        folder.mkdir()
        keys = {"QueryRetrieveLevel": "IMAGE", "StudyInstanceUID": DOMINIQUE.study_uid}
        keys |= {"SeriesInstanceUID": f"{DOMINIQUE.study_uid}.1", "SOPInstanceUID": one.uid}
        command = ["getscu", "-S", "-pdu", "131072", "-aec", "RCPGATEWAY", "+B", "-od", str(folder)]
        for key, value in keys.items():
            command += ["-k", f"{key}={value}"]
        command += ["127.0.0.1", str(self._dicom)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
        files = list(folder.iterdir())
        if done.returncode or len(files) != 1:
            sys.exit(f"getscu: {len(files)} files {done.stdout[-2000:]}{done.stderr[-2000:]}")
        same("C-GET", data_set_digest(files[0]), data_set_digest(one.path))
        shutil.rmtree(folder)

    def fetch(self, one: MultiFrame) -> None:
        """Read the whole object and compare its data set."""
        path = self._root / "fetched"
        with self._asked(one.address, "application/dicom; transfer-syntax=*") as answer, path.open("wb") as file:
            while piece := answer.read(BLOCK_BYTES):
                file.write(piece)
        same("WADO-RS", data_set_digest(path), data_set_digest(one.path))
        path.unlink()

    def end(self, one: MultiFrame) -> None:
        """Ask for its last frame by the place of its bytes, counted from the beginning."""
        start = one.path.stat().st_size - FRAME_BYTES
        path = f"{one.address}/bulkdata/7FE00010"
        found = self.ask(path, "application/octet-stream", 206, range_=f"bytes={start - one.pixels_at}-")
        same("Range", found, one.read(start, FRAME_BYTES))
        shifted = self.size(one) - FRAME_BYTES  # its head is ours: counted from the end it is the same
        found = self.ask(one.address, "application/dicom; transfer-syntax=*", 206, range_=f"bytes={shifted}-")
        same("Range", found, one.read(start, FRAME_BYTES))

    def size(self, one: MultiFrame) -> int:
        """Bytes of the kept object, as a range of one byte says it."""
        with self._asked(one.address, "application/dicom; transfer-syntax=*", 206, "bytes=0-0") as answer:
            return int(str(answer.getheader("Content-Range")).rpartition("/")[2])

    def metadata(self, one: MultiFrame) -> None:
        """Ask what it says of itself."""
        [said] = json.loads(self.ask(f"{one.address}/metadata", "application/dicom+json"))
        same("metadata", said["00280008"]["Value"], [one.frames])
        if not said["7FE00010"]["BulkDataURI"].endswith(f"{one.address}/bulkdata/7FE00010"):
            sys.exit(f"metadata: {said['7FE00010']}")

    def bulk(self, one: MultiFrame) -> None:
        """Read all pixels."""
        with self._asked(f"{one.address}/bulkdata/7FE00010", "application/octet-stream") as answer:
            found = digest(iter(lambda: answer.read(BLOCK_BYTES), b""))
        with one.path.open("rb") as file:
            file.seek(one.pixels_at)
            same("bulk data", found, digest(iter(lambda: file.read(BLOCK_BYTES), b"")))

    def frames(self, one: MultiFrame, numbers: str, kind: str) -> None:
        """Ask for some frames in parts."""
        body = self.ask(f"{one.address}/frames/{numbers}", kind)
        for number in numbers.split(","):
            if self.frame(one, int(number)) not in body:
                sys.exit(f"frame {number} is not among those that were asked for")

    def picture(self, path: str) -> None:
        """Ask for a JPEG."""
        same(path, self.ask(path, "image/jpeg")[:2], b"\xff\xd8")

    def ask(self, path: str, accept: str, status: int = 200, *, range_: str = "") -> bytes:
        """Read a small answer."""
        with self._asked(path, accept, status, range_) as answer:
            return answer.read()

    @contextmanager
    def _asked(self, path: str, accept: str, status: int = 200, range_: str = "") -> Iterator[http.client.HTTPResponse]:
        with self._connected() as line:
            line.request("GET", f"/dicom-web{path}", headers={"Accept": accept} | ({"Range": range_} if range_ else {}))
            answer = line.getresponse()
            if answer.status != status:
                sys.exit(f"{path}: {answer.status} {answer.read(500)!r}")
            yield answer

    @contextmanager
    def _connected(self) -> Iterator[http.client.HTTPConnection]:
        line = http.client.HTTPConnection("127.0.0.1", self._web, timeout=120)
        try:
            yield line
        finally:
            line.close()


# What is measured


class Memory:
    """What the processes of a tree take."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)

    def _said(self) -> dict[int, tuple[int, int]]:
        """Bytes now, and the most since `begin`, of each process."""
        said = {}
        for one in (self._root, *self._root.children(recursive=True)):
            try:
                lines = Path(f"/proc/{one.pid}/status").read_text().splitlines()
            except OSError:
                continue
            sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith("Vm")}
            said[one.pid] = (sizes.get("VmRSS", 0), sizes.get("VmHWM", 0))
        return said

    def begin(self) -> dict[int, int]:
        """Forget what was the most so far."""
        for one in (self._root, *self._root.children(recursive=True)):
            Path(f"/proc/{one.pid}/clear_refs").write_text("5")
        return {pid: now for pid, (now, _) in self._said().items()}

    def grown(self, before: dict[int, int]) -> int:
        """Bytes that all processes took more, at the most."""
        return sum(max(0, most - before.get(pid, 0)) for pid, (_, most) in self._said().items())


@contextmanager
def gateway(root: Path, dicom: int, web: int, url: str, receiving: int) -> Iterator[int]:
    settings = {
        "RCP_PROFILE": "dev",
        "RCP_DATA_DIR": str(root / "gateway"),
        "RCP_DATABASE_URL": url,
        "RCP_HTTP_BIND": f"127.0.0.1:{web}",
        "RCP_PUBLIC_URL": f"http://127.0.0.1:{web}",
        "RCP_DICOM_BIND": f"127.0.0.1:{dicom}",
        "RCP_FHIR_AUTH": "off",
    }
    # Whoever calls is the trial partner here; so is the receiver, which sees the same.
    receiver = ["--patient-domain", DOMINIQUE.issuer, "--aet", f"RECEIVER@127.0.0.1:{receiving}"]
    add = [sys.executable, "-m", "gateway", "partner", "add", "dev", *receiver]
    subprocess.run(add, check=True, capture_output=True, env=os.environ | settings)
    command = [sys.executable, "-m", "gateway", "serve", "--only", "http,dicom"]
    with started(command, dicom, root / "gateway.log", **settings) as pid:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{web}/health/live", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield pid


@dataclass
class Arguments(argparse.Namespace):
    """What the command line says."""

    frames: int = 4200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=Arguments.frames, help="of 512 KiB each")
    said = parser.parse_args(namespace=Arguments())
    if shutil.which("getscu") is None:
        sys.exit("dcmtk is needed (apt install dcmtk)")
    missed = []
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rcp-bench-")))
        url = stack.enter_context(running(root / "database"))
        store = Store(url)
        store.migrate()
        store.close()
        dicom, web, receiving, received = free_port(), free_port(), free_port(), root / "received"
        received.mkdir()
        storescp = ["storescp", "-aet", "RECEIVER", "-od", str(received), "+B", str(receiving)]
        stack.enter_context(started(storescp, receiving, root / "storescp.log"))
        pid = stack.enter_context(gateway(root, dicom, web, url, receiving))
        acts, memory = Acts(root, dicom, web, received), Memory(pid)
        made = (multi_frame, multi_frame, multi_frame, compressed_multi_frame)
        for _, act in acts.all(*(make(root, number, 4) for number, make in enumerate(made))):
            act()
        sent, laid, described, rle = (make(root, number, said.frames) for number, make in enumerate(made, 10))
        print(f"{sent.path.stat().st_size / MB:.0f} MB in {said.frames} frames; at most {LIMIT_MB} MB more are wanted")
        for name, act in acts.all(sent, laid, described, rle):
            before, start = memory.begin(), time.perf_counter()
            act()
            took, grown = time.perf_counter() - start, memory.grown(before) / MB
            reached = grown < LIMIT_MB
            missed += [] if reached else [name]
            print(f"  {name:<30}{grown:7.1f} MB more {took:7.1f} s  {'reached' if reached else 'MISSED'}", flush=True)
    if missed:
        sys.exit(f"over {LIMIT_MB} MB: {', '.join(missed)}")


if __name__ == "__main__":
    main()
