"""HL7's own R4 examples, sent over real HTTP and kept in a real PostgreSQL, come back as they were.

Some things are changed before they are sent. An establishment writes about its own patients: a reference to a patient
names one that exists, and a patient carries an identifier of the establishment. A Subscription is not in force and
holds no secret here: it is sent switched off and without the headers of its channel.
"""

from __future__ import annotations

import itertools
import json
import re
from decimal import Decimal
from typing import Any

import httpx
import pytest

from gateway.fhir.owners import WRITABLE
from tests.contract.fhir.test_official_examples import REFUSED
from tests.e2e.fhir import samples
from tests.e2e.fhir_r4 import official
from tests.fhir_resources import plain_json

NUMBERS = itertools.count()
_NOBODY = "about nobody, or about somebody who is named in words only: what concerns a patient refers to him"
#: What the gateway's own rules refuse (422), and why; the judge accepts each of them.
BY_RULE = {
    "Binary-example": "its security context is a document that does not exist here",
    "DiagnosticReport-gingival-mass": _NOBODY,
    "Observation-decimal": _NOBODY,
    "Observation-vp-oyster": _NOBODY,
    "ServiceRequest-appendectomy-narrative": _NOBODY,
    "ServiceRequest-education": _NOBODY,
    "ServiceRequest-ob": _NOBODY,
}


@pytest.fixture(scope="module")
def patient(ehr: httpx.Client) -> str:
    made = ehr.post("Patient", json=samples.patient("HL7-1", ins=None))
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


def _adapted(content: str, patient: str) -> dict[str, Any]:
    named = re.sub(r'"reference"\s*:\s*"Patient/[^"]+"', f'"reference": "Patient/{patient}"', content)
    tree: dict[str, Any] = json.loads(named, parse_float=Decimal)
    if tree["resourceType"] == "Patient":
        tree["identifier"] = samples.patient(f"HL7-P-{next(NUMBERS)}", ins=None)["identifier"]
    if tree["resourceType"] == "Subscription":
        tree["status"] = "off"
        tree["channel"].pop("header", None)
    return tree


def _theirs(tree: dict[str, Any]) -> dict[str, Any]:
    """All but what is ours to say: id, meta.versionId, meta.lastUpdated."""
    bare = {name: value for name, value in tree.items() if name not in {"id", "meta"}}
    meta = {name: value for name, value in tree.get("meta", {}).items() if name not in {"versionId", "lastUpdated"}}
    return {**bare, "meta": meta} if meta else bare


@pytest.mark.parametrize("kind", WRITABLE)
def test_every_official_example_comes_back_as_it_was_sent(ehr: httpx.Client, patient: str, kind: str) -> None:
    refused: dict[str, int] = {}
    for path in official.files(kind):
        if path.stem in REFUSED:
            continue
        tree = _adapted(path.read_text(encoding="utf-8"), patient)
        made = ehr.post(kind, content=plain_json(tree))
        if made.status_code != 201:
            refused[path.stem] = made.status_code
            continue
        read = ehr.get(f"{kind}/{made.json()['id']}")
        assert read.status_code == 200
        back = json.loads(read.content, parse_float=Decimal)
        assert _theirs(back) == _theirs(tree), path.stem
        # Equal numbers are not enough: 1.10 is not 1.1. Names keep their order too.
        assert plain_json(_theirs(back)) == plain_json(_theirs(tree)), path.stem
    assert refused == {stem: 422 for stem in BY_RULE if stem.partition("-")[0] == kind}
