"""The tables of the FHIR wire agree with one another and with the errors of the gateway."""

from __future__ import annotations

import json

import pytest

from gateway import errors
from gateway.fhir import outcome, write
from gateway.fhir.auth_scopes import allows, granted
from gateway.fhir.outcome import InvalidResource, Issue
from gateway.fhir.owners import WRITABLE
from gateway.model.representation import TABLES


def test_each_type_that_has_a_table_is_written_by_clients() -> None:
    assert tuple(write._HANDLERS) == WRITABLE
    assert set(WRITABLE) == set(TABLES)
    assert len(WRITABLE) == len(TABLES)


def _all(kind: type[errors.GatewayError]) -> list[type[errors.GatewayError]]:
    return [kind, *(below for direct in kind.__subclasses__() for below in _all(direct))]


def test_every_category_has_a_status_and_an_issue_code() -> None:
    assert {kind.category for kind in _all(errors.GatewayError)} <= set(outcome.CATEGORIES)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.InvalidContent("x", "…"), 400, "invalid"),
        (errors.InvalidContent("x", "…", rule=True), 422, "business-rule"),
        (errors.UnknownIdentity("x", "…"), 401, "login"),
        (errors.NotFound("x", "…"), 404, "not-found"),
        (errors.NotFound("ressource-supprimee", "…"), 410, "deleted"),
        (errors.Forbidden("x", "…"), 403, "forbidden"),
        (errors.Conflict("x", "…"), 409, "conflict"),
        (errors.Conflict("x", "…", precondition=True), 412, "conflict"),
        (errors.Unsupported("x", "…"), 405, "not-supported"),
        (errors.Unavailable("x", "…", retry_after_s=2.2), 503, "transient"),
        (errors.InvalidContent("body-too-large", "…"), 413, "too-long"),
        (errors.Unavailable("too-many-requests", "…", retry_after_s=2.2), 429, "throttled"),
        (errors.Unsupported("not-acceptable", "…"), 406, "not-supported"),
        (errors.Fault("x", "…"), 500, "exception"),
        (RuntimeError("un nom de patient"), 500, "exception"),
    ],
)
def test_answer(error: BaseException, status: int, code: str) -> None:
    found, headers, body = outcome.answer(error)
    issue = json.loads(body)["issue"][0]
    assert (found, issue["code"]) == (status, code)
    assert "patient" not in body.decode()
    assert headers.get("Retry-After") == ("3" if status in {429, 503} else None)


def test_several_faults_are_said_at_once_and_structure_decides_the_status() -> None:
    issues = [
        Issue(code="invariant-x", text="…", rule=True),
        Issue(code="x", text="…", rule=True),
        Issue(code="element-inconnu", text="…", expression="a.b"),
    ]
    status, _, body = outcome.answer(InvalidResource(issues))
    assert status == 400
    assert [issue["code"] for issue in json.loads(body)["issue"]] == ["invariant", "business-rule", "structure"]


@pytest.mark.parametrize(
    ("scopes", "kind", "letter", "allowed"),
    [
        (["system/Patient.rs"], "Patient", "r", True),
        (["system/Patient.rs"], "Patient", "c", False),
        (["system/Patient.rs"], "Task", "r", False),
        (["system/*.read"], "Task", "s", True),
        (["system/*.read"], "Task", "u", False),
        (["system/Task.write"], "Task", "u", True),
        (["system/Task.*"], "Task", "d", True),
        (["user/*.cruds", "system/*.rs?x=y", "openid", "system/*.sr"], "Task", "r", False),
        ([], "Patient", "r", False),
    ],
)
def test_scopes(scopes: list[str], kind: str, letter: str, *, allowed: bool) -> None:
    assert allows(scopes, kind, letter) is allowed


def test_what_is_granted_is_never_more_than_what_is_registered() -> None:
    held = ["system/Patient.crus", "system/*.rs"]
    assert granted(["system/*.cruds", "system/Patient.read", "system/Task.write"], held) == [
        "system/*.rs",
        "system/Patient.rs",
    ]
