"""``[::]`` listens on both families, by MLLP and HTTP as by DICOM (`tests/e2e/dicom/test_ipv6.py`).

A machine without IPv6 shows the same of IPv4.
"""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from gateway.fhir.represent import Representer
from gateway.hl7v2.mllp import Mllp
from gateway.hl7v2.wire import component
from gateway.model.partner import PartnerCredential
from gateway.model.store import Store
from gateway.rcp import registry
from gateway.rcp.access import SYSTEM
from gateway.rcp.registry import PartnerFacts
from gateway.rcp.step import DomainClock
from gateway.settings import Mllp as MllpSettings
from gateway.settings import Settings
from gateway.transport import Address
from tests import hl7_samples as samples
from tests.hl7_scene import Scene, open_scene
from tests.loopback import free_port, ipv6_offered, wait_until
from tests.world import audit_lines

pytestmark = pytest.mark.usefixtures("nothing_names_anybody")


#: Every address, and the loopback addresses that it has.
ANY, HERE = ("::", ("127.0.0.1", "::1")) if ipv6_offered() else ("0.0.0.0", ("127.0.0.1",))  # noqa: S104


@pytest.fixture
def scene(store: Store, make_steps: Any, blobs: Any) -> Scene:
    return open_scene(store, make_steps(clock=DomainClock(), represent=Representer(blobs)), blobs)


@contextmanager
def listening(scene: Scene, host: str) -> Iterator[Mllp]:
    settings = Settings(data_dir=Path(), profile="prod", mllp=MllpSettings(bind=Address(host, 0)))
    wire = component(settings, scene.steps, scene.blobs)
    wire.start()
    try:
        yield wire
    finally:
        wire.stop()


def said(host: str, port: int) -> bytes:
    """What a message is answered; nothing when the port cuts instead."""
    with socket.create_connection((host, port), timeout=60) as connection:
        connection.sendall(b"\x0b" + samples.message() + b"\x1c\r")
        found = b""
        try:
            while not found.endswith(b"\x1c\r") and (chunk := connection.recv(65_536)):
                found += chunk
        except ConnectionError:
            pass
    return found


def test_an_mllp_peer_is_known_by_the_family_that_was_registered(scene: Scene) -> None:
    def registered(written: str) -> None:
        with scene.store.session() as session:
            session.execute(update(PartnerCredential).values(value=written))
            session.commit()

    added = PartnerFacts(name="EAI", mllp_peers=("[0:0:0:0:0:0:0:1]",))
    [kept] = scene.steps.run(SYSTEM, lambda step: registry.add_partner(step, added)).credentials
    assert kept.value == "::1"
    with listening(scene, ANY) as wire:
        for mine in HERE:
            registered(mine)
            for host in HERE:
                answer = said(host, wire.port)
                assert answer.startswith(b"\x0bMSH") == (host == mine), (mine, host)
                if host != mine:
                    with scene.store.session() as session:
                        line = [one for one in audit_lines(session) if one["event"] == "refus"][-1]
                    assert (line["reason"], line["address"]) == ("adresse-inconnue", host)
    with listening(scene, HERE[-1]) as wire:
        assert said(HERE[-1], wire.port).startswith(b"\x0bMSH")


def test_http_answers_both_families_and_believes_its_proxy_by_either(database_url: str, tmp_path: Path) -> None:
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RCP_")}
    environment |= {
        "RCP_PROFILE": "dev",
        "RCP_DATA_DIR": str(tmp_path / "data"),
        "RCP_DATABASE_URL": database_url,
        "RCP_HTTP_BIND": f"[{ANY}]:{port}" if ":" in ANY else f"{ANY}:{port}",
        "RCP_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "RCP_TRUSTED_PROXY": "127.0.0.1, ::1",
        "RCP_LOG_FORMAT": "json",
    }
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "serve", "--only", "http"], env=environment, stdout=log, stderr=log
    )

    def sent_to(host: str) -> str | None:
        """Where an address with a stroke too many is sent on to: the proxy's own, when he is believed."""
        connection = http.client.HTTPConnection(host, port, timeout=60)
        try:
            connection.request(
                "GET", "/connexion/", headers={"X-Forwarded-Proto": "https", "X-Forwarded-Host": "rcp.example"}
            )
            return connection.getresponse().getheader("Location")
        finally:
            connection.close()

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        assert wait_until(lambda: process.poll() is not None or answers()), (tmp_path / "log").read_text()
        assert {sent_to(host) for host in HERE} == {"https://rcp.example/connexion"}
    finally:
        process.terminate()
        process.wait(60)
        log.close()
