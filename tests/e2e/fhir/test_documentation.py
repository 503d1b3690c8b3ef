"""The page of the wire is followed to the letter: its commands are run as printed, its tables are the code's."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import wire_page
from tests.e2e.fhir.conftest import Shared
from tests.world import DOMAIN

BLOCKS = re.compile(r"```(sh|json)\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def page() -> str:
    return wire_page.PAGE.read_text(encoding="utf-8")


def test_the_tables_of_the_page_are_those_of_the_code(page: str) -> None:
    assert wire_page.filled(page) == page, "run: python -m tests.wire_page"
    tables = wire_page.tables()
    assert "| Patient | CRUPDS |" in tables["resources"]
    assert "`birthdate`" in tables["parameters"]
    assert "| 412 | conflict | `version-perimee` |" in tables["errors"]


def test_the_commands_of_the_page_lead_from_a_key_to_a_push(shared: Shared, page: str, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    assert curl is not None, "curl is missing: tests/install-servers"
    blocks = BLOCKS.findall(page)
    commands = [text for language, text in blocks if language == "sh"]
    assert len(commands) == 8
    script = "set -eu\n" + "echo '=='\n".join(commands)
    script = script.replace("http://127.0.0.1:8080", shared.served.url)
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RCP_DATABASE_URL": shared.database_url,
        "RCP_DATA_DIR": str(tmp_path / "data"),
        "LC_ALL": "C.UTF-8",
    }
    run = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stdout + run.stderr
    _key, registered, _token, pushed, tumour, changed, refused, subscribed = run.stdout.split("==\n")
    assert "chu-x" in registered
    patient = json.loads(pushed)
    assert (patient["resourceType"], patient["identifier"][0]["value"]) == ("Patient", "000003")
    answered, found = map(json.loads, tumour.splitlines())
    assert answered["entry"][0]["response"]["status"] == "201 Created"
    assert [entry["resource"]["resourceType"] for entry in found["entry"]] == ["Condition", "Patient"]
    assert found["entry"][1]["resource"]["identifier"][0]["system"] == DOMAIN
    patched, history = map(json.loads, changed.splitlines())
    assert patched["code"]["text"] == "Tumeur du sein gauche"
    assert [entry["resource"]["meta"]["versionId"] for entry in history["entry"]] == ["2", "1"]
    outcome, _, status = refused.strip().rpartition(" refused: ")
    assert status == "22"
    printed = next(text for language, text in blocks if language == "json")
    assert json.loads(outcome) == json.loads(printed)
    asked = json.loads(subscribed)
    assert (asked["resourceType"], asked["status"]) == ("Subscription", "requested")
    assert "a-secret-of-yours" not in subscribed
