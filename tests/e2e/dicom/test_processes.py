"""Several processes receive on one port: `rcp-gateway serve --only dicom` with RCP_DICOM_WORKERS=2."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import sqlalchemy
from pydicom import dcmread
from sqlalchemy import func, select, text

from gateway.app.check import DICOM_CONNECTIONS
from gateway.demo.ct_phantom import DOMINIQUE, write_series
from gateway.model.imaging import Instance, QuarantinedObject, Series, Study
from gateway.settings import Dicom
from gateway.transport import Address
from tests.e2e.dicom.conftest import AE_TITLE, need, storescu
from tests.e2e.dicom.peers import data_set
from tests.loopback import free_port, until
from tests.unit.dicom.raw_peer import CT, EXPLICIT, Peer, context, status, whole_store

WORKERS = 2


def environment(database_url: str, data_dir: Path, port: int) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RCP_")}
    return kept | {
        "RCP_PROFILE": "dev",
        "RCP_DATA_DIR": str(data_dir),
        "RCP_DATABASE_URL": database_url,
        "RCP_DICOM_BIND": f"127.0.0.1:{port}",
        "RCP_DICOM_WORKERS": str(WORKERS),
        "RCP_LOG_LEVEL": "error",
    }


SERVE = [sys.executable, "-m", "gateway", "serve", "--only", "dicom"]


@pytest.fixture
def gateway(database_url, tmp_path) -> Iterator[tuple[subprocess.Popen, int]]:
    port = free_port()
    process = subprocess.Popen(SERVE, env=environment(database_url, tmp_path / "data", port))
    try:
        until(lambda: process.poll() is not None or len(listeners(process, port)) == WORKERS)
        yield process, port
    finally:
        process.terminate()
        assert process.wait(60) == 0


def listeners(process: subprocess.Popen, port: int) -> set[psutil.Process]:
    found = set()
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(process.pid).children():
            with contextlib.suppress(psutil.Error):
                if any(one.laddr.port == port and one.status == "LISTEN" for one in child.net_connections()):
                    found.add(child)
    return found


def acknowledged(said: str) -> int:
    return said.count("Received Store Response (Success)")


def test_two_processes_share_the_port_and_its_work_and_the_death_of_one_loses_nothing(
    gateway, session, world, tmp_path, database_url
):
    process, port = gateway
    other = subprocess.run(
        SERVE,
        env=environment(database_url, tmp_path / "other", port),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (other.returncode, "ne peut pas être écoutée" in other.stderr) == (1, True)

    files = write_series(replace(DOMINIQUE, slices=64, pixels=64), tmp_path / "ct")
    command = [need("storescu"), "-v", "-aet", AE_TITLE, "-aec", "RCPGATEWAY", "127.0.0.1", str(port)]
    senders = [
        subprocess.Popen([*command, *map(str, files[part::16])], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for part in range(16)
    ]
    before = listeners(process, port)
    victim = next(iter(before))
    until(lambda: _count(session) > 0)
    victim.kill()
    said = [sender.communicate(timeout=60)[0].decode() for sender in senders]
    kept = set(session.scalars(select(Instance.sop_instance_uid)))
    assert sum(map(acknowledged, said)) <= len(kept) <= len(files)
    for part, one in enumerate(said):
        # Each sender's first so many objects were answered, in the order of its files.
        sure = [str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in files[part::16]]
        assert set(sure[: acknowledged(one)]) <= kept

    until(lambda: len(found := listeners(process, port)) == WORKERS and found != before)
    again = storescu(port, *files)
    assert again.returncode == 0, again.stdout
    assert acknowledged(again.stdout) == len(files)
    assert _count(session) == len(files)
    for kind in (Study, Series):
        assert session.scalar(select(func.count()).select_from(kind)) == 1
    assert session.scalars(select(QuarantinedObject)).all() == []


def _count(session) -> int:
    session.rollback()
    return session.scalar(select(func.count()).select_from(Instance))


def test_other_bytes_under_a_known_uid_are_a_warning_where_it_is_set_so(make_port, session, world, tmp_path):
    """[PS3.4 B.2.3] B000; the first stays, the second stands aside, and the sender goes on with what follows."""
    port = make_port(dicom=Dicom(bind=Address("127.0.0.1", 0), duplicates="warn"))
    first, second = write_series(replace(DOMINIQUE, slices=2), tmp_path / "ct")
    assert storescu(port.port, first).returncode == 0
    forged = dcmread(first)
    forged.StudyDescription = "AUTRE"
    forged.save_as(tmp_path / "forged.dcm", enforce_file_format=True)
    told = storescu(port.port, tmp_path / "forged.dcm", second)
    assert told.returncode == 0, told.stdout
    assert re.search(r"Warning.*[cC]oercion|0xb000", told.stdout), told.stdout
    assert _count(session) == 2
    assert session.scalars(select(QuarantinedObject.reason)).all() == ["autres-octets"]


def test_more_associations_than_connections_wait_for_one_and_lose_nothing(make_port, session, world, store, tmp_path):
    """A process takes no more of the database than its pool, whatever its limit of associations."""
    world.session.commit()
    port = make_port(profile="prod")
    assert store.engine.pool.size() == DICOM_CONNECTIONS
    files = write_series(replace(DOMINIQUE, slices=40, pixels=16), tmp_path / "ct")
    busy = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
    most, done = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        with sqlalchemy.create_engine(store.url).connect() as connection:
            while not done.wait(0.01):
                most = max(most, connection.scalar(busy))
                connection.rollback()

    def one(path: Path) -> int:
        peer = Peer(port.port, context(1, CT, EXPLICIT), calling=AE_TITLE.encode())
        peer.send(whole_store(str(dcmread(path).SOPInstanceUID).encode(), data_set(path)))
        answered = status(peer.read()[1])
        peer.release()
        return answered

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(len(files)) as pool:
            assert set(pool.map(one, files)) == {0x0000}
    finally:
        done.set()
        watcher.join()
    assert _count(session) == len(files)
    assert 0 < most <= DICOM_CONNECTIONS + 1  # the test's own session
