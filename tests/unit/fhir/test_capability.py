"""What is offered follows from the routes: none is left untold, and what has no route is not offered."""

from __future__ import annotations

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


def test_a_route_that_no_line_tells_of_is_refused_at_start() -> None:
    with pytest.raises(Fault) as refused:
        capability.offers([("POST", "/fhir/{kind}/$everything")])
    assert refused.value.code == "route-inconnue"
