"""The trail of a study that somebody looks through, when the process that serves is killed or told to stop."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import psycopg
import pytest

from gateway.demo.ct_phantom import DOMINIQUE, write_series
from tests.loopback import free_port, until

STUDIES = [f"{DOMINIQUE.study_uid}.{number}" for number in (1, 2)]


@pytest.fixture
def gateway(database_url, tmp_path) -> Iterator[tuple[subprocess.Popen, int]]:
    port = free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RCP_")}
    environment = kept | {
        "RCP_PROFILE": "dev",
        "RCP_DATA_DIR": str(tmp_path / "data"),
        "RCP_DATABASE_URL": database_url,
        "RCP_HTTP_BIND": f"127.0.0.1:{port}",
        "RCP_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "RCP_FHIR_AUTH": "off",
        "RCP_LOG_LEVEL": "error",
    }
    process = subprocess.Popen([sys.executable, "-m", "gateway", "serve", "--only", "http"], env=environment)
    try:
        until(lambda: process.poll() is not None or listens(port))
        yield process, port
    finally:
        for one in tree(process):
            one.kill()
        process.wait(60)


def listens(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def tree(process: subprocess.Popen) -> list[psutil.Process]:
    try:
        found = psutil.Process(process.pid)
        return [found, *found.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def told(database_url: str) -> list[dict]:
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT payload FROM audit_line WHERE event = 'imagerie' ORDER BY seq").fetchall()
    return [line for (payload,) in rows if (line := json.loads(payload)).get("object_type") == "Frame"]


@pytest.fixture
def connection(gateway, tmp_path) -> Iterator[http.client.HTTPConnection]:
    made = http.client.HTTPConnection("127.0.0.1", gateway[1], timeout=120)
    for study in STUDIES:
        [path] = write_series(replace(DOMINIQUE, study_uid=study, slices=1, pixels=64), Path(tmp_path / study))
        made.request("POST", "/dicom-web/studies", path.read_bytes(), {"Content-Type": "application/dicom"})
        answer = made.getresponse()
        assert (answer.status, answer.read()[:1]) == (200, b"{")
    yield made
    made.close()


def look(connection: http.client.HTTPConnection, study: str) -> None:
    connection.request("GET", f"/dicom-web/studies/{study}/series/{study}.1/instances/{study}.1.1/frames/1")
    answer = connection.getresponse()
    assert (answer.status, bool(answer.read())) == (200, True)


def test_killed_after_an_answer_the_trail_says_what_was_open(gateway, connection, database_url):
    """Forty frames of one study, then the first of another; killed as soon as that one is read."""
    for _ in range(40):
        look(connection, STUDIES[0])
    look(connection, STUDIES[1])
    for one in tree(gateway[0]):
        one.send_signal(signal.SIGKILL)
    gateway[0].wait(60)
    lines = [line["detail"]["etude"] for line in told(database_url)]
    assert set(lines) == set(STUDIES)
    assert lines.count(STUDIES[1]) == 1
    assert 1 <= lines.count(STUDIES[0]) <= 40


def test_told_to_stop_every_line_is_there(gateway, connection, database_url):
    for _ in range(40):
        look(connection, STUDIES[0])
    gateway[0].terminate()
    assert gateway[0].wait(60) in (0, -signal.SIGTERM)  # one component alone ends as it was told
    assert len(told(database_url)) == 40
