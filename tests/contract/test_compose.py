"""docker-compose.yml: what Compose itself makes of it, and what the issue asks of each service.

No engine runs here: the file is judged by `docker-compose config`, not started.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, object]]:
    shown = subprocess.run(
        ["docker-compose", "-f", ROOT / "docker-compose.yml", "config"], capture_output=True, check=True, cwd=ROOT
    )
    return yaml.safe_load(shown.stdout)["services"]


def test_the_wires_are_separate_services_of_one_image(services) -> None:
    ours = {name: services[name] for name in ("web", "dicom", "hl7v2", "worker", "migrate")}
    assert len({service["image"] for service in ours.values()}) == 1
    assert ours["web"]["command"] == ["serve", "--only", "http"]
    assert ours["dicom"]["command"] == ["serve", "--only", "dicom"]
    assert ours["hl7v2"]["command"] == ["serve", "--only", "mllp"]
    assert ours["worker"]["command"] == ["serve", "--only", "worker"]


def test_no_service_of_ours_can_become_root(services) -> None:
    for name in ("web", "dicom", "hl7v2", "worker", "migrate", "psc"):
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["security_opt"] == ["no-new-privileges:true"]
        assert services[name]["read_only"] is True
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["10001"]


def test_everything_that_the_gateway_speaks_to_is_there(services) -> None:
    assert set(services) >= {"postgres", "s3", "mail", "psc", "pacs"}
    assert services["postgres"]["image"].startswith("postgres:18")


def test_ports_are_published_on_loopback_only(services) -> None:
    for service in services.values():
        for port in service.get("ports", []):
            assert str(port).startswith("127.0.0.1:"), json.dumps(port)


def test_every_variable_is_known_to_the_settings(services) -> None:
    from gateway.settings import VARIABLES

    given = {name for service in services.values() for name in (service.get("environment") or {})}
    assert {name for name in given if name.startswith("RCP_")} <= set(VARIABLES)
