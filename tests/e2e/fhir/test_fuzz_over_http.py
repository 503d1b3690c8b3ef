"""No request, whatever it holds, gets a fault of ours: each route of the FHIR wire, walked from the application itself.

The examples are the same at each run; ``RCP_FUZZ_EXAMPLES=5000`` asks each route so many times, anew each time.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import math
import os
import re
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from lxml import etree

from gateway.fhir import outcome
from tests import error_codes
from tests.e2e.fhir import hostile, minimal, samples
from tests.e2e.fhir.conftest import Hospital, Shared

LONG = os.environ.get("RCP_FUZZ_EXAMPLES")
EXAMPLES = int(LONG or 25)
#: [FHIR R4 valueset-issue-type]
ISSUE_TYPES = re.compile(
    "invalid|structure|required|value|invariant|security|login|unknown|expired|forbidden|suppressed|processing|"
    "not-supported|duplicate|multiple-matches|not-found|deleted|too-long|code-invalid|extension|too-costly|"
    "business-rule|conflict|transient|lock-error|no-store|exception|timeout|incomplete|throttled|informational"
)
READING = {
    ("GET", "/fhir/metadata"),
    ("GET", "/fhir/{kind}"),
    ("GET", "/fhir/{kind}/{identity}"),
    ("POST", "/fhir/{kind}/_search"),
    ("POST", "/fhir/{kind}/$validate"),
}
WRITING = {
    ("POST", "/fhir"),
    ("POST", "/fhir/{kind}"),
    ("PUT", "/fhir/{kind}/{identity}"),
    ("PATCH", "/fhir/{kind}/{identity}"),
    ("DELETE", "/fhir/{kind}/{identity}"),
}
NS = "{http://hl7.org/fhir}"


class Raw:
    """One kept connection; what is sent is sent as it is, so that a library's own politeness hides nothing."""

    def __init__(self, hospital: Hospital) -> None:
        self._hospital = hospital
        self._place = urlsplit(hospital.served.url).netloc
        self._token, self._since = "", -math.inf
        self._connection, self._used = self._fresh(), time.monotonic()

    def _fresh(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._place, timeout=120)

    def send(self, ask: hostile.Ask) -> tuple[int, dict[str, str], bytes]:
        now = time.monotonic()
        if now - self._since > 200:  # a token lives 300 s
            self._token, self._since = self._hospital.ask_token().json()["access_token"], now
        if now - self._used > 2:  # the server closes what is idle for 5 s
            self._connection.close()
            self._connection = self._fresh()
        connection, self._used = self._connection, now
        connection.putrequest(ask.method, ask.target, skip_accept_encoding=True)
        connection.putheader("Authorization", f"Bearer {self._token}")
        for name, value in ask.headers:
            connection.putheader(name, value.encode("latin-1"))
        if ask.body is not None:
            connection.putheader("Content-Length", str(len(ask.body)))
        # A body may be refused before the whole of it was read: the answer is there all the same.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.endheaders(ask.body)
        answer = connection.getresponse()
        content = answer.read()
        if answer.will_close:
            self._connection.close()
            self._connection = self._fresh()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        if headers.get("content-encoding") == "gzip" and content:
            content = gzip.decompress(content)
        return answer.status, headers, content


def _routes(shared: Shared) -> list[tuple[str, str]]:
    """Method and path of every route of the wire that the application holds."""
    wire = shared.served.app.wires[0]
    return sorted((method, route.path) for route in wire.routes for method in route.methods)


@pytest.fixture(scope="module")
def known(shared: Shared) -> dict[str, str]:
    with shared.hospital.client() as ehr:
        return minimal.fill(ehr, shared.world.rcp.national_number, shared.world.requester.idnps)


@pytest.fixture(scope="module")
def raw(shared: Shared) -> Raw:
    return Raw(shared.hospital)


def _issues(headers: dict[str, str], content: bytes) -> list[tuple[str, str | None, str]]:
    """Issue code, our own code and text of each issue, from either format."""
    if headers["content-type"].startswith("application/fhir+xml"):
        root = etree.fromstring(content, etree.XMLParser(resolve_entities=False))
        assert root.tag == f"{NS}OperationOutcome"
        names = {"f": NS[1:-1]}
        return [
            (
                issue.xpath("string(f:code/@value)", namespaces=names),
                issue.xpath("string(f:details/f:coding/f:code/@value)", namespaces=names),
                issue.xpath("string(f:details/f:text/@value)", namespaces=names),
            )
            for issue in root.findall(f"{NS}issue")
        ]
    tree = json.loads(content)
    assert tree["resourceType"] == "OperationOutcome"
    return [(issue["code"], issue["details"]["coding"][0]["code"], issue["details"]["text"]) for issue in tree["issue"]]


def _judge(ask: hostile.Ask, status: int, headers: dict[str, str], content: bytes) -> None:
    assert status < 500, (status, ask, content[:400])
    assert re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", headers["x-request-id"])
    if status < 400:
        _judge_success(ask, status, headers, content)
        return
    # The body of a refusal never repeats what was sent: it may be a patient.
    assert samples.CANARY.encode() not in content, (ask, content[:400])
    assert not [name for name, value in headers.items() if samples.CANARY in value], (ask, headers)
    if ask.target.startswith("/oauth"):
        assert set(json.loads(content)) <= {"error", "error_description"} or _issues(headers, content), content
        return
    if ask.method == "HEAD":
        return
    issues = _issues(headers, content)
    assert issues, ask
    known = {*outcome.CODES, *error_codes.codes()}
    for issue, code, text in issues:
        assert ISSUE_TYPES.fullmatch(issue), (ask, issue)
        assert code in known, (ask, code)
        assert text, ask
    allowed = {pair[0] for pair in (*outcome.CATEGORIES.values(), *outcome.CODES.values())}
    assert status in allowed | {412, 413, 415, 422, 429}, (status, ask)
    first = issues[0][1]
    if first in outcome.CODES and len(issues) == 1:
        assert status == outcome.CODES[first][0], (status, first, ask)


def _judge_success(ask: hostile.Ask, status: int, headers: dict[str, str], content: bytes) -> None:
    declared = headers.get("content-type", "")
    if ask.method == "HEAD" or status in {204, 304} or not content:
        return
    if not ask.target.startswith("/fhir"):
        return
    if declared.startswith("application/fhir+json"):
        assert isinstance(json.loads(content)["resourceType"], str)
    elif declared.startswith("application/fhir+xml"):
        assert etree.fromstring(content, etree.XMLParser(resolve_entities=False)).tag.startswith(NS)


def _ask_often(raw: Raw, asks: st.SearchStrategy[hostile.Ask], statuses: set[int], often: int) -> None:
    @settings(
        max_examples=often,
        deadline=None,
        database=None,
        derandomize=not LONG,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink] if LONG else [Phase.generate],
    )
    @given(asks)
    def ask_it(ask: hostile.Ask) -> None:
        status, headers, content = raw.send(ask)
        statuses.add(status)
        _judge(ask, status, headers, content)

    ask_it()


def test_no_route_gets_a_fault(
    shared: Shared,
    known: dict[str, str],
    raw: Raw,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    routes = _routes(shared)
    assert ("POST", "/fhir/{kind}") in routes
    assert len(routes) > 20
    seen: dict[tuple[str, str], set[int]] = {route: set() for route in routes}
    for (method, template), statuses in seen.items():
        often = EXAMPLES * 2 if (method, template) in WRITING else EXAMPLES
        _ask_often(raw, hostile.asks(method, template, known), statuses, often)
    # Not noise alone: of what is asked most, some requests were good ones.
    good = {route for route, statuses in seen.items() if min(statuses) < 300}
    assert good >= READING, seen
    assert len(good & WRITING) >= 3, seen
    logged = capsys.readouterr()
    assert "fhir-fault" not in logged.out + logged.err
    assert samples.CANARY not in logged.out + logged.err
    assert not [record for record in caplog.records if samples.CANARY in record.getMessage()]
    _still_well(shared)


def _still_well(shared: Shared) -> None:
    with shared.hospital.client() as ehr:
        made = ehr.post("Patient", json=minimal.resource("Patient", {}))
        assert made.status_code == 201
        assert ehr.get(f"Patient/{made.json()['id']}").json() == made.json()


WRONG: tuple[Any, ...] = (None, True, -1, "\u0001", [], [[1]], {}, {"resourceType": "Patient"}, ["x"])


def _send_wrong(raw: Raw, method: str, target: str, declared: str, tree: Any, values: Iterable[Any]) -> int:
    """Send a body once for each place in it and each value that must not stand there."""
    asked = 0
    for number, path in enumerate(path for path in hostile.places(tree) if path != ("resourceType",)):
        for value in values or (WRONG[number % len(WRONG)],):
            body = hostile.as_json(hostile.with_value(tree, path, value))
            ask = hostile.Ask(method, target, (("Content-Type", declared),), body)
            _judge(ask, *raw.send(ask))
            asked += 1
    return asked


def test_a_wrong_value_at_every_element_of_every_type_is_a_refusal(
    known: dict[str, str], raw: Raw, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each element of each minimal resource, in turn, is a JSON value that it must not be."""
    asked = 0
    for kind in minimal.KINDS:
        tree = minimal.resource(kind, known)
        asked += _send_wrong(raw, "POST", f"/fhir/{kind}", "application/fhir+json", tree, ())
    assert asked > 200
    assert "fhir-fault" not in capsys.readouterr().out


def test_a_wrong_value_at_every_element_of_what_is_read_by_hand_is_a_refusal(
    known: dict[str, str], raw: Raw, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bundles, patches and the Parameters of operations: each element is each of the wrong values."""
    fhir = "application/fhir+json"
    parts = [
        {"name": "type", "valueCode": "add"},
        {"name": "path", "valueString": "Patient"},
        {"name": "name", "valueString": "language"},
        {"name": "value", "valueCode": "fr"},
    ]
    patch = {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}
    question = {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "resource", "resource": {"resourceType": "Basic", "code": {"text": "x"}}},
            {"name": "mode", "valueCode": "create"},
            {"name": "profile", "valueUri": "http://hl7.org/fhir/StructureDefinition/Basic"},
        ],
    }
    operations = [{"op": "move", "from": "/language", "path": "/x"}, {"op": "add", "path": "/language", "value": "fr"}]
    entries = [
        {
            "fullUrl": "urn:uuid:00000000-0000-4000-8000-000000000001",
            "resource": {"resourceType": "Basic", "code": {"text": "x"}, "subject": {"reference": known["Patient"]}},
            "request": {"method": "POST", "url": "Basic", "ifNoneExist": "identifier=a|b"},
        },
        {"resource": patch, "request": {"method": "PATCH", "url": known["Patient"], "ifMatch": 'W/"1"'}},
        {"request": {"method": "GET", "url": "Basic?code=x", "ifNoneMatch": 'W/"1"'}},
    ]
    for kind in ("batch", "transaction"):
        bundle = {"resourceType": "Bundle", "type": kind, "entry": entries}
        assert _send_wrong(raw, "POST", "/fhir", fhir, bundle, WRONG) > 100
    assert _send_wrong(raw, "PATCH", f"/fhir/{known['Patient']}", fhir, patch, WRONG) > 50
    assert _send_wrong(raw, "PATCH", f"/fhir/{known['Patient']}", "application/json-patch+json", operations, WRONG) > 50
    assert _send_wrong(raw, "POST", "/fhir/Basic/$validate", fhir, question, WRONG) > 50
    assert "fhir-fault" not in capsys.readouterr().out


def test_what_once_was_a_fault_is_a_refusal(shared: Shared, raw: Raw) -> None:
    """Each was found by the strategies above."""
    entry = {"resource": {"resourceType": ["Basic"]}, "request": {"method": "PATCH", "url": "Basic/$validate"}}
    crowd = {"request": {"method": "GET", "url": "Patient?" + "&".join(["_id=x"] * 1000)}}
    for kind in ("batch", "transaction"):
        for one in (entry, crowd):
            body = hostile.as_json({"resourceType": "Bundle", "type": kind, "entry": [one]})
            ask = hostile.Ask("POST", "/fhir", (("Content-Type", "application/fhir+json"),), body)
            status, headers, content = raw.send(ask)
            _judge(ask, status, headers, content)
            assert (status == 200) == (kind == "batch")
    for kind in (["transaction"], {}, None):
        body = hostile.as_json({"resourceType": "Bundle", "type": kind, "entry": []})
        ask = hostile.Ask("POST", "/fhir", (("Content-Type", "application/fhir+json"),), body)
        status, headers, content = raw.send(ask)
        _judge(ask, status, headers, content)
        assert status == 400
