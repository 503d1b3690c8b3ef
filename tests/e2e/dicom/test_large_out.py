"""One large object goes out, by C-MOVE and through the outbox to a DICOMweb server, in constant memory.

512 MiB take the very way of 2 GiB, which were tried (`FRAMES` 4097); `benchmarks/dicom_memory.py` moves that many.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest
from sqlalchemy import select

from gateway.demo.ct_phantom import DOMINIQUE
from gateway.model.message import Message
from gateway.model.partner import PartnerCredential
from gateway.rcp import imaging_sending
from gateway.rcp.access import SYSTEM
from tests.e2e.dicom.conftest import AE_TITLE, storescu
from tests.e2e.dicom.peers import dcmtk, other_hospital, receiver, register
from tests.e2e.dicom.test_hostile_port import _listens, head_of_a_multi_frame
from tests.loopback import free_port, until, wait_until
from tests.unit.dicom.raw_peer import P_DATA, Peer, p_data, pdv, status, store_rq

FRAMES = 1025  # of 512 KiB
ITS_UID = f"{DOMINIQUE.study_uid}.1.1"
PIECE = bytes(128 * 1024 - 32)
NOTHING = bytes(1 << 20)


@pytest.fixture
def serving(database_url, world, tmp_path) -> Iterator[tuple[int, psutil.Process]]:
    """The real process: its port, and who sends what waits in the outbox."""
    port, folder = free_port(), tmp_path / "data"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RCP_")}
    environment |= {
        "RCP_PROFILE": "dev",
        "RCP_DATA_DIR": str(folder),
        "RCP_DATABASE_URL": database_url,
        "RCP_DICOM_BIND": f"127.0.0.1:{port}",
        "RCP_LOG_LEVEL": "error",
    }
    process = subprocess.Popen([sys.executable, "-m", "gateway", "serve", "--only", "dicom,worker"], env=environment)
    until(lambda: process.poll() is not None or _listens(port))
    yield port, psutil.Process(process.pid)
    process.terminate()
    process.wait(60)
    shutil.rmtree(folder)  # the disk is not asked for it longer than it must


def sent_in_pieces(port: int) -> None:
    """Lay the object down: its head, then nothing but zeros."""
    peer = Peer(port, calling=AE_TITLE.encode())
    peer.send(p_data(pdv(1, 3, store_rq(ITS_UID.encode()))) + p_data(pdv(1, 0, head_of_a_multi_frame(FRAMES))))
    block, left = p_data(pdv(1, 0, PIECE)), FRAMES * 512 * 1024
    while left > len(PIECE):
        peer.send(block)
        left -= len(PIECE)
    peer.send(p_data(pdv(1, 2, bytes(left))))
    kind, body = peer.read()
    assert (kind, status(body)) == (P_DATA, 0x0000)
    peer.release()


def is_whole(start: bytes, more: Callable[[], bytes]) -> bool:
    """Whether a data set is the one that was sent: its head, then as many zeros as it should have."""
    head = head_of_a_multi_frame(FRAMES)
    zeros, left, good = start[len(head) :], FRAMES * 512 * 1024, start[: len(head)] == head
    while zeros:
        good &= zeros == NOTHING[: len(zeros)]
        left -= len(zeros)
        zeros = more()
    return good and left == 0


class Web(ThreadingHTTPServer):
    """A DICOMweb server that forgets what it gets, but for whether it was the large object."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Stow)
        self.got: list[bool] = []


class _Stow(BaseHTTPRequestHandler):
    server: Web

    def do_POST(self) -> None:
        boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()
        left = int(self.headers["Content-Length"])
        start = self.rfile.read(2048)
        left -= len(start)
        uid = re.search(rb"\x02\x00\x03\x00UI..([0-9.]+)", start, re.DOTALL)[1].decode()
        part = start.partition(b"\r\n\r\n")[2]
        end = b"\r\n--" + boundary + b"--\r\n"

        def more() -> bytes:
            nonlocal left
            piece = self.rfile.read(min(len(NOTHING), left - len(end)))
            left -= len(piece)
            return piece

        self.server.got.append(is_whole(part[144 + int.from_bytes(part[140:144], "little") :], more))
        assert self.rfile.read(left) == end
        item = {"00081155": {"vr": "UI", "Value": [uid]}}
        answer = json.dumps({"00081199": {"vr": "SQ", "Value": [item]}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@contextmanager
def web() -> Iterator[Web]:
    with Web() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def most_while(process: psutil.Process, done: Callable[[], object]) -> int:
    """What the process took at the most until something was done, beyond what it takes now."""
    before = most = process.memory_info().rss

    def looked() -> object:
        nonlocal most
        most = max(most, process.memory_info().rss)
        return done()

    assert wait_until(looked, 120)
    return most - before


def test_memory_does_not_follow_what_goes_out(serving, session, world, represented, tmp_path, ct):
    port, process = serving
    world.dossier(world.record(value="000003"))
    theirs = other_hospital(session, world)
    world.session.commit()

    def queued(url: str) -> Callable[[], bool]:
        sent = represented.run(SYSTEM, lambda step: imaging_sending.send(step, DOMINIQUE.study_uid, url).id)

        def left() -> bool:
            session.rollback()
            return session.scalar(select(Message.state).where(Message.id == sent)) == "envoye"

        return left

    def moved() -> Callable[[], bool]:
        keys = ["QueryRetrieveLevel=IMAGE", f"StudyInstanceUID={DOMINIQUE.study_uid}"]
        keys += [f"SeriesInstanceUID={DOMINIQUE.study_uid}.1", f"SOPInstanceUID={ITS_UID}"]
        said: list[int] = []
        ask = threading.Thread(
            target=lambda: said.append(
                dcmtk("movescu", port, "-S", "-aem", "LECTEUR", keys=keys, timeout=120).returncode
            )
        )
        ask.start()
        return lambda: said == [0]

    # What is made once is made: another object goes every way before.
    assert storescu(port, ct[1]).returncode == 0
    with web() as server, receiver(tmp_path / "lecteur", "LECTEUR") as reader:
        register(session, world.partner, "LECTEUR", reader.port)
        url = f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
        session.add(PartnerCredential(partner_id=theirs.id, kind="stow", value=url))
        session.commit()
        until(queued(url), 60)
        sent_in_pieces(port)
        assert most_while(process, moved()) < 64_000_000
        [file] = reader.files
        with file.open("rb") as kept:
            head = kept.read(144)
            kept.seek(144 + int.from_bytes(head[140:144], "little"))
            assert is_whole(kept.read(len(NOTHING)), lambda: kept.read(len(NOTHING)))
        file.unlink()
        assert most_while(process, queued(url)) < 64_000_000
        assert server.got.count(True) == 1
