"""The page of the wire is followed to the letter: its two scripts, run as they are printed, give a working client."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx

from gateway.rcp import registry
from gateway.rcp.access import SYSTEM
from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import Served
from tests.world import DOMAIN

PAGE = Path(__file__).parents[3] / "docs" / "wires" / "fhir.md"


def test_the_page_leads_to_a_first_push(served: Served, tmp_path: Path) -> None:
    make_key, get_token = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    make_key = "\n".join(line.removeprefix("   ") for line in make_key.splitlines())
    (tmp_path / "make_key.py").write_text(make_key, encoding="utf-8")
    (tmp_path / "get_token.py").write_text(get_token, encoding="utf-8")
    subprocess.run([sys.executable, "make_key.py"], cwd=tmp_path, check=True, timeout=60)
    facts = registry.PartnerFacts(
        name="CHU X",
        patient_domains=(DOMAIN,),
        fhir_scopes=("system/Patient.crus", "system/*.rs"),
        jwks=json.loads((tmp_path / "jwks.json").read_bytes()),
    )
    served.steps.run(SYSTEM, lambda step: registry.add_partner(step, facts).id)
    command = [sys.executable, "get_token.py", served.url, "chu-x"]
    token = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60).stdout.strip()
    bundle = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {
                "resource": samples.patient(),
                "request": {"method": "PUT", "url": f"Patient?identifier={DOMAIN}|000003"},
            }
        ],
    }
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/fhir+json"}
    answer = httpx.post(served.base, json=bundle, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["entry"][0]["response"]["status"] == "201 Created"
