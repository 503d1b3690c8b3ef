"""What is offered follows from the routes: none is left untold, and what has no route is not offered."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest

from gateway.errors import Fault
from gateway.fhir import capability

READ = ("GET", "/fhir/{kind}/{identity}")


def offer(kind: str, *routes: tuple[str, str]) -> capability.Offer:
    return next(one for one in capability.offers(routes) if one.kind == kind)


def test_an_interaction_is_offered_when_its_route_is_there() -> None:
    assert offer("Patient", READ).interactions == ("read",)
    assert offer("Patient", READ).letters == "r"
    assert offer("Patient", READ, ("POST", "/fhir/{kind}")).interactions == ("read", "create")
    whole = offer("Patient", *capability.ROUTES)
    assert whole.letters == "cruds"
    assert set(whole.members) == {"conditionalCreate", "conditionalUpdate", "conditionalDelete"}
    assert offer("Patient", READ).members == {}


def test_what_a_table_forbids_is_not_offered_whatever_the_routes() -> None:
    assert "search-type" not in offer("Binary", *capability.ROUTES).interactions
    assert offer("Binary", *capability.ROUTES).members == {}
    assert offer("AuditEvent", *capability.ROUTES).interactions == ("read", "search-type")


def test_a_route_of_one_type_is_that_type_s_alone() -> None:
    found = capability.offers([READ, ("GET", "/fhir/AuditEvent"), ("GET", "/fhir/AuditEvent/{identity}")])
    by_kind = {one.kind: one.interactions for one in found}
    assert by_kind["AuditEvent"] == ("read", "search-type")
    assert by_kind["Patient"] == ("read",)


def test_an_operation_of_one_type_is_that_type_s_alone() -> None:
    routes = [READ, ("GET", "/fhir/Composition/{identity}/$document")]
    assert offer("Composition", *routes).operations == ("$document",)
    assert offer("Patient", *routes).operations == ()


def test_a_route_that_no_line_tells_of_is_refused_at_start() -> None:
    with pytest.raises(Fault) as refused:
        capability.offers([("POST", "/fhir/{kind}/$everything")])
    assert refused.value.code == "route-inconnue"


#: Day of a change of what is offered → digest of what was offered from then on; the last line is today's offer.
#: A new offer is a new line here and its day in `capability._DATE`; of one day the last digest stands.
OFFERED = {
    "2026-11-21": "8d02e9955429c926",
}


def test_the_statement_is_dated_by_the_last_change_of_what_is_offered() -> None:
    """A client compares the date with that of the statement which it kept [FHIR R4 capabilitystatement.date]."""
    statement = capability.Statement(
        capability.ROUTES,
        base_url="https://rcp.example/fhir",
        token_url="https://rcp.example/oauth/token",
        smart=("client-confidential-asymmetric",),
        update_create=False,
    )
    said = json.loads(statement.body)
    day, digest = list(OFFERED.items())[-1]
    bare = {name: value for name, value in said.items() if name not in {"date", "version", "software"}}
    found = sha256(json.dumps(bare, sort_keys=True).encode()).hexdigest()[:16]
    assert found == digest, f"the offer changed: say {found} under its day in OFFERED, and that day in capability._DATE"
    assert said["date"] == day == max(OFFERED)
