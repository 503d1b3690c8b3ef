"""The port with its real storage: an object of many frames, a full disk, a database that is gone, bytes at random."""

from __future__ import annotations

import contextlib
import io
import os
import random
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import psutil
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, text

from gateway.demo.ct_phantom import DOMINIQUE, slice_data_set, write_series
from gateway.model.imaging import Instance, QuarantinedObject
from tests.e2e.dicom.conftest import AE_TITLE, need, storescu
from tests.loopback import free_port, until, wait_until
from tests.unit.dicom.raw_peer import (
    ECHO_RQ,
    P_DATA,
    Peer,
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
    until(lambda: process.poll() is not None or _listens(port))
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


def test_memory_does_not_follow_the_size_of_an_object(database_url, session, world, tmp_path):
    """More than 2^31 bytes of pixels in one object, whose memory is that of one buffer."""
    frames, port = 4097, free_port()
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
        assert most - before < 64_000_000
        session.rollback()
        kept = session.scalars(select(Instance)).one()
        assert (kept.number_of_frames, kept.size_bytes > frames * 512 * 1024) == (frames, True)
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(tmp_path / "data")  # the disk is not asked for it longer than it must


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
        process.wait(60)


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


class Recorder:
    """A port that leads to ours, and keeps the PDUs of whoever calls through it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.pdus: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        near, _ = self._server.accept()
        with near, socket.create_connection(("127.0.0.1", self._port)) as far:
            back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
            back.start()
            said = self._pump(near, far)
            back.join(60)
        while said:
            length = 6 + struct.unpack_from(">L", said, 2)[0]
            self.pdus.append(said[:length])
            said = said[length:]
        self._server.close()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> bytes:
        said = b""
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                said += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        return said


def recorded(port: int, tool: str, *options: str) -> list[bytes]:
    """What one of dcmtk's programs says to our port, PDU by PDU."""
    recorder = Recorder(port)
    command = [need(tool), "-aet", AE_TITLE, "-aec", "RCPGATEWAY", "127.0.0.1", str(recorder.port), *options]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    until(lambda: recorder.pdus)
    return recorder.pdus


#: Of the study that is damaged; the one that is sent whole at the end is another.
VICTIM = replace(DOMINIQUE, study_uid=f"{DOMINIQUE.study_uid}.77", slices=1, pixels=64)

NUMBERS = st.integers(0, 2**16)
LENGTHS = st.sampled_from([0, 1, 2, 5, 0x7F, 0xFFFF, 0x20000, 0x20100, 0x7FFFFFFF, 0xFFFFFFFF])
DAMAGES = st.lists(
    st.one_of(
        st.tuples(st.just("byte"), NUMBERS, NUMBERS, st.integers(0, 255)),
        st.tuples(st.just("length"), NUMBERS, NUMBERS, LENGTHS),
        st.tuples(st.just("cut"), NUMBERS, NUMBERS, st.just(0)),
        st.tuples(st.just("insert"), NUMBERS, NUMBERS, st.binary(min_size=1, max_size=40)),
        st.tuples(st.just("kind"), NUMBERS, NUMBERS, st.integers(0, 9)),
        st.tuples(st.just("twice"), NUMBERS, NUMBERS, st.just(0)),
        st.tuples(st.just("without"), NUMBERS, NUMBERS, st.just(0)),
        st.tuples(st.just("swap"), NUMBERS, NUMBERS, st.just(0)),
        st.tuples(st.just("foreign"), NUMBERS, NUMBERS, NUMBERS),
    ),
    min_size=1,
    max_size=4,
)


def damaged(talks: list[list[bytes]], which: int, damages) -> bytes:
    """One recorded talk with bytes, lengths, types, PDUs and their order changed, or PDUs of another one in it."""
    sent = [bytearray(one) for one in talks[which % len(talks)]]
    for kind, first, second, value in damages:
        if not sent:
            break
        one = sent[first % len(sent)]
        # Heads and what stands near them are hit as often as all the rest.
        place = (second % 120 if second % 2 else second) % max(len(one), 1)
        if kind == "byte" and one:
            one[place] = value
        elif kind == "length" and one:
            place = 2 if second % 2 else place
            one[place : place + 4] = struct.pack(">L", value)
        elif kind == "cut":
            del one[place:]
        elif kind == "insert":
            one[place:place] = value
        elif kind == "kind" and one:
            one[0] = value
        elif kind == "twice":
            sent.insert(second % len(sent), bytearray(one))
        elif kind == "without":
            sent.remove(one)
        elif kind == "swap":
            other = second % len(sent)
            sent[first % len(sent)], sent[other] = sent[other], sent[first % len(sent)]
        elif kind == "foreign":
            talk = talks[second % len(talks)]
            sent.insert(first % len(sent), bytearray(talk[value % len(talk)]))
    return b"".join(sent)


def test_no_bytes_kill_the_listener(port, session, world, ct, tmp_path, caplog):
    """What dcmtk's programs say, damaged: the port answers an echo after each, nothing leaks, no log names anybody."""
    caplog.set_level("DEBUG", logger="gateway")
    [victim] = write_series(VICTIM, tmp_path / "victim")
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={VICTIM.study_uid}")
    talks = [
        recorded(port.port, "storescu", str(victim)),
        recorded(port.port, "findscu", "-S", *keys, "-k", f"PatientName={VICTIM.patient_name}", "-k", "PatientID"),
        recorded(port.port, "getscu", "-S", "-od", str(tmp_path), *keys),
        recorded(port.port, "echoscu"),
    ]
    whole = b"".join(talks[0])
    assert whole.count(f"{VICTIM.study_uid}.1.1".encode()) == 2  # the command and the data set

    @settings(
        max_examples=60,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(NUMBERS, DAMAGES)
    def each(which, damages):
        with socket.create_connection(("127.0.0.1", port.port), timeout=60) as sock, contextlib.suppress(OSError):
            sock.sendall(damaged(talks, which, damages))
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(0.05)
            while sock.recv(65_536):
                pass
        peer = Peer(port.port, calling=AE_TITLE.encode())
        peer.send(p_data(pdv(3, 3, ECHO_RQ)))
        kind, body = peer.read()
        assert (kind, status(body)) == (P_DATA, 0x0000)
        peer.release()

    each()
    assert wait_until(lambda: not port._live())
    assert wait_until(lambda: not [one for one in threading.enumerate() if one.name.startswith("AcceptorThread")])
    ours = psutil.Process()
    assert wait_until(
        lambda: [one.status for one in ours.net_connections() if one.laddr.port == port.port] == ["LISTEN"]
    )
    open_files = [Path(one.path) for one in ours.open_files() if "staging" in one.path]
    assert [
        one for one in open_files if one.exists() and one.stat().st_size
    ] == []  # an empty one waits for the next object
    said = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("gateway"))
    assert said
    for word in (VICTIM.patient_id, *VICTIM.patient_name.replace("^", " ").split(), VICTIM.accession_number):
        assert word not in said
    assert (
        subprocess.run(
            [need("echoscu"), "-aet", AE_TITLE, "-aec", "RCPGATEWAY", "127.0.0.1", str(port.port)], check=False
        ).returncode
        == 0
    )
    assert storescu(port.port, *ct).returncode == 0
    session.rollback()
    sent = {f"{DOMINIQUE.study_uid}.1.{number}" for number in range(1, 6)}
    assert sent <= set(session.scalars(select(Instance.sop_instance_uid)))


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
