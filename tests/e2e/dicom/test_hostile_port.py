"""The port with its real storage: an object of many frames, a full disk, a database that is gone, bytes at random."""

from __future__ import annotations

import io
import os
import random
import resource
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from sqlalchemy import func, select, text

from gateway.demo.ct_phantom import DOMINIQUE, slice_data_set
from gateway.model.imaging import Instance, QuarantinedObject
from tests.e2e.dicom.conftest import AE_TITLE, storescu
from tests.loopback import free_port, until, wait_until
from tests.unit.dicom.raw_peer import (
    CT,
    ECHO_RQ,
    EXPLICIT,
    P_DATA,
    VERIFICATION,
    Peer,
    associate_rq,
    context,
    p_data,
    pdv,
    status,
    store_rq,
    whole_store,
)

MIB = 1 << 20
PROCESS = [sys.executable, "-m", "gateway", "serve", "--only", "dicom"]


def count(session, kind=Instance) -> int:
    session.rollback()
    return session.scalar(select(func.count()).select_from(kind))


def served(database_url: str, folder: Path, port: int, **limits) -> subprocess.Popen:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RCP_")}
    environment |= {
        "RCP_PROFILE": "dev",
        "RCP_DATA_DIR": str(folder),
        "RCP_DATABASE_URL": database_url,
        "RCP_DICOM_BIND": f"127.0.0.1:{port}",
        "RCP_LOG_LEVEL": "error",
    }
    process = subprocess.Popen(PROCESS, env=environment, **limits)
    until(lambda: process.poll() is not None or _listens(port), 60)
    return process


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def head_of_a_multi_frame(frames: int) -> bytes:
    """A data set up to the length of its pixels: 512 × 512, 16 bits, `frames` of them."""
    ds = slice_data_set(DOMINIQUE, 0)
    ds.NumberOfFrames, ds.Rows, ds.Columns = str(frames), 512, 512
    ds.PixelData = b""
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True)
    content = out.getvalue()
    data = content[144 + int.from_bytes(content[140:144], "little") :]
    return data[:-4] + struct.pack("<L", frames * 512 * 1024)


@pytest.mark.timeout(300)
def test_memory_does_not_follow_the_size_of_an_object(database_url, session, world, tmp_path):
    """2 GB are 4096 frames; 512 MiB take the very same way, whose memory is that of one buffer."""
    frames, port = 1024, free_port()
    process = served(database_url, tmp_path / "data", port)
    try:
        peer = Peer(port, calling=AE_TITLE.encode())
        peer.send(
            whole_store(b"1.2.3", b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 192")
        )  # what is made at a first object is made
        peer.read()
        before = psutil.Process(process.pid).memory_info().rss
        head = head_of_a_multi_frame(frames)
        uid = f"{DOMINIQUE.study_uid}.1.1".encode()
        peer.send(p_data(pdv(1, 3, store_rq(uid))) + p_data(pdv(1, 0, head)))
        block, most = p_data(pdv(1, 0, bytes(128 * 1024 - 32))), 0
        left = frames * 512 * 1024
        while left > 128 * 1024 - 32:
            peer.send(block)
            left -= 128 * 1024 - 32
            if left % 7 == 0:
                most = max(most, psutil.Process(process.pid).memory_info().rss)
        peer.send(p_data(pdv(1, 2, bytes(left))))
        kind, body = peer.read()
        assert (kind, status(body)) == (P_DATA, 0)
        most = max(most, psutil.Process(process.pid).memory_info().rss)
        peer.release()
        assert most - before < 64 * MIB
        session.rollback()
        kept = session.scalars(select(Instance)).one()
        assert (kept.number_of_frames, kept.size_bytes > frames * 512 * 1024) == (frames, True)
    finally:
        process.terminate()
        process.wait(30)


def test_a_full_disk_is_told_nothing_stays_and_the_port_goes_on(database_url, session, world, tmp_path, ct):
    """The kernel itself refuses a file over a size: the limit of the process stands for the disk's end."""
    port, folder = free_port(), tmp_path / "data"

    def small_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    process = served(database_url, folder, port, preexec_fn=small_disk)
    try:
        peer = Peer(port, calling=AE_TITLE.encode())
        peer.send(whole_store(b"1.2.3.4", bytes(400_000)))
        assert status(peer.read()[1]) == 0xA700
        peer.release()
        assert storescu(port, *ct).returncode == 0
        assert count(session) == len(ct)
        assert [path for path in (folder / "blobs" / "staging").iterdir() if path.stat().st_size] == []
        assert count(session, QuarantinedObject) == 0
    finally:
        process.terminate()
        process.wait(30)


def test_without_a_database_senders_are_told_to_send_again_and_nothing_is_lost(port, session, world, ct, store):
    """Connections are cut and no new one is let in while a PACS sends; then it sends all again."""
    assert storescu(port.port, ct[0]).returncode == 0
    name = session.scalar(select(func.current_database()))
    session.rollback()
    peer = Peer(port.port, calling=AE_TITLE.encode())
    content = ct[1].read_bytes()
    data = content[144 + int.from_bytes(content[140:144], "little") :]
    uid = f"{DOMINIQUE.study_uid}.1.2".encode()
    with store.engine.connect() as connection:
        connection.execute(text(f'ALTER DATABASE "{name}" CONNECTION LIMIT 0'))
        connection.commit()
        others = text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name AND pid <> pg_backend_pid()"
        )
        connection.execute(others, {"name": name})
        connection.commit()
        peer.send(whole_store(uid, data))
        answered = status(peer.read()[1])
        connection.execute(text(f'ALTER DATABASE "{name}" CONNECTION LIMIT -1'))
        connection.commit()
    assert answered == 0xA700
    peer.send(whole_store(uid, data))  # on the same association
    assert status(peer.read()[1]) == 0
    peer.release()
    assert storescu(port.port, *ct).returncode == 0
    assert count(session) == len(ct)


def damaged(chance: random.Random, conversation: list[bytes]) -> bytes:
    """A conversation with bytes changed, left out, doubled, in another order, or cut off."""
    sent = [bytearray(one) for one in conversation]
    for _ in range(chance.randint(1, 4)):
        one = chance.choice(sent)
        kind = chance.randrange(5)
        if kind == 0 and one:
            one[chance.randrange(min(len(one), 200))] = chance.randrange(256)
        elif kind == 1 and one:
            del one[chance.randrange(len(one)) :]
        elif kind == 2:
            place = chance.randrange(len(one) + 1)
            one[place:place] = chance.randbytes(chance.randint(1, 50))
        elif kind == 3:
            sent.append(bytearray(one))
        else:
            chance.shuffle(sent)
    return b"".join(sent)


def test_no_bytes_kill_the_listener(port, session, world, ct):
    content = ct[0].read_bytes()
    data = content[144 + int.from_bytes(content[140:144], "little") :]
    conversation = [
        associate_rq(context(1, CT, EXPLICIT), context(3, VERIFICATION, EXPLICIT), calling=AE_TITLE.encode()),
        p_data(pdv(3, 3, ECHO_RQ)),
        p_data(pdv(1, 3, store_rq(f"{DOMINIQUE.study_uid}.1.1".encode()))),
        p_data(pdv(1, 0, data[:1500])),
        p_data(pdv(1, 2, data[1500:20_000])),
    ]
    chance = random.Random(20_260_305)  # noqa: S311 - the same bytes each time
    for _ in range(120):
        with socket.create_connection(("127.0.0.1", port.port), timeout=20) as sock:
            try:
                sock.sendall(damaged(chance, conversation))
                sock.shutdown(socket.SHUT_WR)
                sock.settimeout(0.05)
                while sock.recv(65_536):
                    pass
            except OSError:
                pass
    assert storescu(port.port, *ct[1:]).returncode == 0
    session.rollback()
    sent = {f"{DOMINIQUE.study_uid}.1.{number}" for number in range(2, 6)}
    assert sent <= set(session.scalars(select(Instance.sop_instance_uid)))
    assert wait_until(lambda: not port._live())


def test_no_data_set_kills_the_listener_and_each_is_kept_somewhere(port, session, world, ct):
    """Damaged objects, each answered; what was understood is an instance, the rest stands aside with its bytes."""
    content = ct[0].read_bytes()
    data = content[144 + int.from_bytes(content[140:144], "little") :][:6000]
    chance, said = random.Random(5), []  # noqa: S311 - the same bytes each time
    peer = Peer(port.port, calling=AE_TITLE.encode())
    for number in range(60):
        one = bytearray(data)
        for _ in range(chance.randint(1, 8)):
            one[chance.randrange(1400)] = chance.randrange(256)
        peer.send(whole_store(f"{DOMINIQUE.study_uid}.1.{number + 1}".encode(), bytes(one), message_id=number))
        said.append(status(peer.read()[1]))
    peer.release()
    assert set(said) <= {0x0000, 0x0111, 0xA900, 0xC000}
    assert count(session) == said.count(0)
    assert count(session, QuarantinedObject) == len(said) - said.count(0)
