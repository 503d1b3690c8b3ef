"""STOW-RS in the real process: killed on the way, left on the way, an object larger than its memory may grow."""

from __future__ import annotations

import http.client
import io
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
from pydicom.dataset import Dataset
from sqlalchemy import select, text

from gateway.demo.ct_phantom import DOMINIQUE, slice_data_set
from gateway.exchange.blobs import open_store
from gateway.model.imaging import Instance, QuarantinedObject
from tests.e2e.dicom.test_stow import multipart, written
from tests.loopback import free_port, until
from tests.world import audit_lines

MIB = 1 << 20
STUDY = DOMINIQUE.study_uid


@dataclass
class Serving:
    process: subprocess.Popen
    port: int
    folder: Path

    def peak(self) -> int:
        """Bytes that the process had in memory at the most since `forget_peak`, as the kernel says."""
        said = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(said.partition("VmHWM:")[2].split()[0]) * 1024

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def staged(self) -> list[Path]:
        found = []
        for path in (self.folder / "blobs" / "staging").iterdir():
            with suppress(FileNotFoundError):  # named meanwhile, or forgotten
                found += [path] if path.stat().st_size else []
        return found

    def post(self, body: bytes, kind: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("POST", "/dicom-web/studies", body, {"Content-Type": kind})
        answer = connection.getresponse()
        found = answer.status, answer.read()
        connection.close()
        return found

    def begin(self, length: int, kind: str) -> socket.socket:
        """Send the head of a request, whose body the caller sends."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        head = (
            f"POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        )
        sock.sendall(head.encode())
        return sock


@pytest.fixture
def serve(database_url, world, tmp_path) -> Iterator:
    running = []

    def start() -> Serving:
        port, folder = free_port(), tmp_path / "data"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RCP_")}
        environment |= {
            "RCP_PROFILE": "dev",
            "RCP_DATA_DIR": str(folder),
            "RCP_DATABASE_URL": database_url,
            "RCP_HTTP_BIND": f"127.0.0.1:{port}",
            "RCP_PUBLIC_URL": f"http://127.0.0.1:{port}",
            "RCP_FHIR_AUTH": "off",
            "RCP_LOG_LEVEL": "error",
        }
        process = subprocess.Popen([sys.executable, "-m", "gateway", "serve", "--only", "http"], env=environment)
        running.append(process)

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        until(lambda: process.poll() is not None or listens())
        return Serving(process, port, folder)

    yield start
    for process in running:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
    shutil.rmtree(tmp_path / "data", ignore_errors=True)  # gigabytes, of some tests


def wait_for_nobody_writing(session) -> None:
    """The database learns that a process is gone at its next word: what it was at is there or not only then."""
    others = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

    def alone() -> bool:
        session.rollback()
        return session.scalar(others) == 0

    until(alone)


def rows(session) -> list[Instance]:
    session.rollback()
    return list(session.scalars(select(Instance)))


def series(study: str, count: int, pixels: int = 128) -> list[bytes]:
    phantom = replace(DOMINIQUE, study_uid=study, slices=count, pixels=pixels)
    return [written(slice_data_set(phantom, index)) for index in range(count)]


@pytest.mark.parametrize("after", [1, 9, 40])
def test_a_kill_loses_nothing_that_was_acknowledged(serve, session, after):
    serving = serve()
    first, second = series(STUDY, 12), series(f"{STUDY}.2", 120)
    status, said = serving.post(*multipart(*first))
    assert (status, len(json.loads(said)["00081199"]["Value"])) == (200, 12)
    acknowledged = {row.sop_instance_uid for row in rows(session)}
    assert len(acknowledged) == 12

    answers: list[int] = []

    def send() -> None:
        with suppress(OSError, http.client.HTTPException):
            answers.append(serving.post(*multipart(*second))[0])

    sender = threading.Thread(target=send)
    sender.start()
    until(lambda: len(rows(session)) >= 12 + after or not sender.is_alive())
    serving.process.kill()
    serving.process.wait()
    sender.join(60)
    there = rows(session)
    assert acknowledged <= {row.sop_instance_uid for row in there}
    assert len(there) == 132 or answers == []

    again = serve()
    blobs = open_store(f"file://{again.folder / 'blobs'}")
    for row in there:
        blobs.verify(row.sha256)  # a row is never without its bytes
    assert again.staged() == []
    assert again.post(*multipart(*second))[0] == 200
    assert len(rows(session)) == 132
    assert session.scalars(select(QuarantinedObject)).all() == []


def told(session) -> list[dict]:
    """Lines of the trail that tell of objects laid down."""
    lines = [line for line in audit_lines(session) if (line["event"], line["action"]) == ("imagerie", "C")]
    return [line["detail"] for line in lines if line["outcome"] == "0"]


@pytest.mark.parametrize("after", [1, 30])
def test_killed_among_single_objects_what_is_there_is_told_and_what_was_acknowledged_is_there(serve, session, after):
    """Four clients, an object a request, over kept connections: a row and its line are one commit, or neither is."""
    serving = serve()
    sent = [series(f"{STUDY}.{number // 2}", 80)[number % 2 :: 2] for number in range(4)]
    acknowledged: list[str] = []

    def send(mine: list[bytes]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=60)
        with suppress(OSError, http.client.HTTPException), closing(connection):
            for one in mine:
                connection.request("POST", "/dicom-web/studies", one, {"Content-Type": "application/dicom"})
                answer = connection.getresponse()
                said = json.loads(answer.read())
                assert answer.status == 200
                acknowledged.append(said["00081199"]["Value"][0]["00081155"]["Value"][0])

    senders = [threading.Thread(target=send, args=(mine,)) for mine in sent]
    for sender in senders:
        sender.start()
    until(lambda: len(acknowledged) >= after)
    serving.process.kill()
    serving.process.wait()
    for sender in senders:
        sender.join(60)
    wait_for_nobody_writing(session)
    there = {row.sop_instance_uid for row in rows(session)}
    assert set(acknowledged) <= there
    assert len(acknowledged) < 160
    assert told(session) == [{"objets": 1, "refus": 0}] * len(there)

    again = serve()
    assert again.post(sent[0][0], "application/dicom")[0] == 200
    assert again.post(*multipart(*(one for mine in sent for one in mine)))[0] == 200
    assert len(rows(session)) == 160


def test_a_client_that_goes_away_leaves_nothing_half_written(serve, session):
    serving = serve()
    objects = series(STUDY, 20, pixels=512)
    body, kind = multipart(*objects)
    cut = body.index(objects[12]) + len(objects[12]) // 2
    sock = serving.begin(len(body), kind)
    sock.sendall(body[:cut])
    until(lambda: bool(rows(session)))
    sock.close()
    until(lambda: not serving.staged())
    there = {row.sop_instance_uid for row in rows(session)}
    assert there <= {f"{STUDY}.1.{number}" for number in range(1, 13)}
    assert serving.post(body, kind)[0] == 200
    assert len(rows(session)) == 20


def metadata(ds: Dataset) -> bytes:
    """Begin a request: an object as pydicom describes it, whose pixels follow."""
    tree = {**ds.to_json_dict(), "7FE00010": {"vr": "OW", "BulkDataURI": "pixels"}}
    head = b"Content-Type: application/octet-stream\r\nContent-Location: pixels\r\n\r\n"
    return b"--b\r\nContent-Type: application/dicom+json\r\n\r\n" + json.dumps([tree]).encode() + b"\r\n--b\r\n" + head


def test_bulk_data_that_break_off_leave_nothing(serve, session):
    serving = serve()
    before = metadata(slice_data_set(DOMINIQUE, 0))
    sock = serving.begin(len(before) + 64 * MIB, 'multipart/related; type="application/dicom+json"; boundary=b')
    sock.sendall(before + bytes(24 * MIB))
    until(lambda: bool(serving.staged()))
    sock.close()
    until(lambda: not serving.staged())
    assert rows(session) == []


@pytest.mark.parametrize(("way", "frames"), [("alone", 1024), ("as a part", 4098), ("described", 1024)])
def test_memory_does_not_follow_the_size_of_an_object(serve, session, way, frames):
    """Once more than 2^31 bytes of pixels; 512 MiB take the very same way, whose memory is that of some pieces."""
    serving = serve()
    assert serving.post(written(slice_data_set(DOMINIQUE, 1)), "application/dicom")[0] == 200
    ds = slice_data_set(DOMINIQUE, 0)
    ds.NumberOfFrames, ds.Rows, ds.Columns, ds.PixelData = str(frames), 512, 512, b""
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True)
    head, size = out.getvalue()[:-4] + struct.pack("<L", frames * 512 * 1024), frames * 512 * 1024
    kind, before, after = "application/dicom", b"", b""
    if way != "alone":
        kind = 'multipart/related; type="application/dicom"; boundary=b'
        before, after = b"--b\r\nContent-Type: application/dicom\r\n\r\n", b"\r\n--b--\r\n"
    if way == "described":
        kind, before, head = kind.replace("dicom", "dicom+json"), metadata(ds), b""
    process = psutil.Process(serving.process.pid)
    sock = serving.begin(len(before) + len(head) + size + len(after), kind)
    sock.sendall(before + head)
    rss, most, block = process.memory_info().rss, 0, bytes(MIB)
    for number in range(size // MIB):
        sock.sendall(block)
        if number % 16 == 0:
            most = max(most, process.memory_info().rss)
    if after:
        sock.sendall(after)
    assert sock.recv(65536).startswith(b"HTTP/1.1 200")
    sock.close()
    most = max(most, process.memory_info().rss)
    assert most - rss < 64_000_000
    kept = max(rows(session), key=lambda row: row.size_bytes)
    assert (kept.number_of_frames, kept.size_bytes > size) == (frames, True)
