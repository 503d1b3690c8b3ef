"""Canonical references over real HTTP: who names whom is written by hand below.

Questionnaire sein-1 (url SEIN, version 1)  <── QuestionnaireResponse r1 (SEIN|1), r0 (SEIN: no version)
Questionnaire sein-2 (url SEIN, version 2)  <── QuestionnaireResponse r2 (SEIN|2), r0; CarePlan c2 (SEIN|2, a Measure)
Questionnaire poumon (url POUMON, no version) <── QuestionnaireResponse rp (POUMON), Communication m1 (POUMON)
QuestionnaireResponse r3 names SEIN|3, which nobody holds; rl names sein-1 by its id.
"""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any

import pytest

from gateway.fhir.keeping import Owner
from gateway.model.store import Store
from gateway.settings import Limits
from tests.e2e.fhir.conftest import Hospital
from tests.e2e.fhir.test_including_over_http import draw, found, observation, ref
from tests.world import World

SEIN, POUMON = "https://formulaires.example/Questionnaire/sein", "https://formulaires.example/Questionnaire/poumon"
#: As long as the names of one are that of another: a beginning is no name.
SEIN_LONG = SEIN + "-long"


def form(url: str, version: str | None = None, **more: Any) -> dict[str, Any]:
    said = {"version": version} if version else {}
    return {"resourceType": "Questionnaire", "status": "active", "url": url, "title": "Formulaire", **said, **more}


def answers(canonical: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "QuestionnaireResponse", "status": "completed", "questionnaire": canonical, **more}


FORMS = {
    "Questionnaire/sein-1": form(SEIN, "1", publisher="Alpha"),
    "Questionnaire/sein-2": form(SEIN, "2", publisher="Beta"),
    "Questionnaire/sein-long": form(SEIN_LONG, "1", publisher="Gamma"),
    "Questionnaire/poumon": form(POUMON, publisher="Delta"),
}
ANSWERS = {
    "QuestionnaireResponse/r0": answers(SEIN),
    "QuestionnaireResponse/r1": answers(f"{SEIN}|1", subject=ref("Patient/p1")),
    "QuestionnaireResponse/r2": answers(f"{SEIN}|2", status="amended"),
    "QuestionnaireResponse/r3": answers(f"{SEIN}|3"),
    "QuestionnaireResponse/rl": answers("Questionnaire/sein-1"),
    "QuestionnaireResponse/rp": answers(POUMON),
    "CarePlan/c2": {
        "resourceType": "CarePlan",
        "status": "active",
        "intent": "plan",
        "subject": ref("Patient/p1"),
        "instantiatesCanonical": ["https://mesures.example/Measure/m", f"{SEIN}|2"],
    },
    "Communication/m1": {"resourceType": "Communication", "status": "completed", "instantiatesCanonical": [POUMON]},
    "ServiceRequest/s1": {
        "resourceType": "ServiceRequest",
        "status": "active",
        "intent": "order",
        "subject": ref("Patient/p1"),
        "instantiatesCanonical": [SEIN],
    },
    "Patient/p1": {"resourceType": "Patient", "gender": "female"},
    "Observation/o1": observation("Patient/p1", derivedFrom=[ref("QuestionnaireResponse/r1")]),
}
GRAPH = FORMS | ANSWERS


@pytest.fixture
def graph(store: Store, world: World) -> None:
    draw(store, Owner(partner_id=world.partner.id), GRAPH)


def named(kind: str, *ids: str) -> set[str]:
    return {f"{kind}/{one}" for one in ids}


#: Question → what it includes.
INCLUDED: list[tuple[str, set[str]]] = [
    ("QuestionnaireResponse?_id=r1&_include=QuestionnaireResponse:questionnaire", named("Questionnaire", "sein-1")),
    ("QuestionnaireResponse?_id=r2&_include=QuestionnaireResponse:questionnaire", named("Questionnaire", "sein-2")),
    # No version: each that is held.
    (
        "QuestionnaireResponse?_id=r0&_include=QuestionnaireResponse:questionnaire",
        named("Questionnaire", "sein-1", "sein-2"),
    ),
    ("QuestionnaireResponse?_id=r3&_include=QuestionnaireResponse:questionnaire", set()),
    ("QuestionnaireResponse?_id=rl&_include=QuestionnaireResponse:questionnaire", named("Questionnaire", "sein-1")),
    ("QuestionnaireResponse?_id=rp&_include=QuestionnaireResponse:questionnaire", named("Questionnaire", "poumon")),
    (
        "QuestionnaireResponse?_id=r1&_include=QuestionnaireResponse:questionnaire:Questionnaire",
        named("Questionnaire", "sein-1"),
    ),
    ("QuestionnaireResponse?_id=r1&_include=QuestionnaireResponse:questionnaire:Patient", set()),
    ("QuestionnaireResponse?_id=r1&_include=*", {"Questionnaire/sein-1", "Patient/p1"}),
    ("CarePlan?_include=CarePlan:instantiates-canonical", named("Questionnaire", "sein-2")),
    ("Communication?_include=Communication:instantiates-canonical", named("Questionnaire", "poumon")),
    # R4: a request instantiates definitions, which are not kept here; a form is none.
    ("ServiceRequest?_include=ServiceRequest:instantiates-canonical", set()),
    # From what was included.
    (
        "Observation?_id=o1&_include=Observation:derived-from&_include:iterate=QuestionnaireResponse:questionnaire",
        {"QuestionnaireResponse/r1", "Questionnaire/sein-1"},
    ),
    (
        "Observation?_id=o1&_include=Observation:derived-from&_include=QuestionnaireResponse:questionnaire",
        {"QuestionnaireResponse/r1"},
    ),
    # Backwards.
    (
        "Questionnaire?_id=sein-1&_revinclude=QuestionnaireResponse:questionnaire",
        named("QuestionnaireResponse", "r0", "r1", "rl"),
    ),
    (
        "Questionnaire?_id=sein-2&_revinclude=QuestionnaireResponse:questionnaire",
        named("QuestionnaireResponse", "r0", "r2"),
    ),
    ("Questionnaire?_id=sein-long&_revinclude=QuestionnaireResponse:questionnaire", set()),
    (
        "Questionnaire?_id=sein-2&_revinclude=*",
        {"QuestionnaireResponse/r0", "QuestionnaireResponse/r2", "CarePlan/c2"},
    ),
    (
        (
            "Questionnaire?_id=poumon&_revinclude=QuestionnaireResponse:questionnaire"
            "&_revinclude=Communication:instantiates-canonical"
        ),
        {"QuestionnaireResponse/rp", "Communication/m1"},
    ),
    # There and back again: those that name any version, and no circle.
    (
        (
            "QuestionnaireResponse?_id=r1&_include=QuestionnaireResponse:questionnaire"
            "&_revinclude:iterate=QuestionnaireResponse:questionnaire"
        ),
        named("Questionnaire", "sein-1") | named("QuestionnaireResponse", "r0", "rl"),
    ),
]

#: Question → its matches.
FOUND: list[tuple[str, set[str]]] = [
    (f"QuestionnaireResponse?questionnaire={SEIN}", named("QuestionnaireResponse", "r0", "r1", "r2", "r3")),
    (f"QuestionnaireResponse?questionnaire={SEIN}|2", named("QuestionnaireResponse", "r2")),
    (f"QuestionnaireResponse?questionnaire={SEIN}|3", named("QuestionnaireResponse", "r3")),
    (f"QuestionnaireResponse?questionnaire={SEIN}|1,{POUMON}", named("QuestionnaireResponse", "r1", "rp")),
    ("QuestionnaireResponse?questionnaire=Questionnaire/sein-1", named("QuestionnaireResponse", "rl")),
    (f"CarePlan?instantiates-canonical={SEIN}", {"CarePlan/c2"}),
    # Chains.
    ("QuestionnaireResponse?questionnaire.publisher=alpha", named("QuestionnaireResponse", "r0", "r1", "rl")),
    ("QuestionnaireResponse?questionnaire.publisher=beta", named("QuestionnaireResponse", "r0", "r2")),
    ("QuestionnaireResponse?questionnaire.publisher=gamma", set()),
    ("QuestionnaireResponse?questionnaire:Questionnaire.version=2", named("QuestionnaireResponse", "r0", "r2")),
    (f"QuestionnaireResponse?questionnaire.url={POUMON}", named("QuestionnaireResponse", "rp")),
    ("CarePlan?instantiates-canonical.publisher=beta", {"CarePlan/c2"}),
    ("CarePlan?instantiates-canonical.publisher=alpha", set()),
    ("Observation?derived-from:QuestionnaireResponse.questionnaire.publisher=alpha", {"Observation/o1"}),
    ("Observation?derived-from:QuestionnaireResponse.questionnaire.publisher=beta", set()),
    # Backwards.
    (
        "Questionnaire?_has:QuestionnaireResponse:questionnaire:status=amended",
        named("Questionnaire", "sein-2"),
    ),
    (
        "Questionnaire?_has:QuestionnaireResponse:questionnaire:status=completed",
        named("Questionnaire", "sein-1", "sein-2", "poumon"),
    ),
    (
        "Questionnaire?_has:QuestionnaireResponse:questionnaire:subject=Patient/p1",
        named("Questionnaire", "sein-1"),
    ),
    ("Questionnaire?_has:Communication:instantiates-canonical:status=completed", named("Questionnaire", "poumon")),
]


@pytest.mark.usefixtures("graph")
def test_canonicals_are_followed_by_url_and_version(hospital: Hospital) -> None:
    with hospital.client(scope="system/*.rs") as ehr:
        for question, included in INCLUDED:
            others = found(ehr.get(question))[1]
            assert len(others) == len(set(others)), question
            assert set(others) == included, question
        for question, matches in FOUND:
            assert set(found(ehr.get(question))[0]) == matches, question


@pytest.mark.usefixtures("graph")
def test_a_new_version_of_a_form_is_followed_at_once(hospital: Hospital, store: Store, world: World) -> None:
    """What a resource is called is read when it is asked for, not when it was referred to."""
    asked = "QuestionnaireResponse?_id=r3&_include=QuestionnaireResponse:questionnaire"
    with hospital.client(scope="system/*.rs") as ehr:
        assert found(ehr.get(asked))[1] == []
        draw(store, Owner(partner_id=world.partner.id), {"Questionnaire/sein-2": form(SEIN, "3")})
        assert found(ehr.get(asked))[1] == ["Questionnaire/sein-2"]
        assert found(ehr.get("QuestionnaireResponse?_id=r2&_include=QuestionnaireResponse:questionnaire"))[1] == []


def test_what_one_may_not_see_is_followed_by_no_canonical(store: Store, world: World, hospital: Hospital) -> None:
    stranger, mine = Owner(partner_id=uuid.uuid4()), Owner(partner_id=world.partner.id)
    draw(store, stranger, FORMS | {"QuestionnaireResponse/x1": answers(f"{POUMON}|9")})
    draw(store, mine, {"QuestionnaireResponse/r1": ANSWERS["QuestionnaireResponse/r1"]})
    draw(store, mine, {"Questionnaire/mine": form(POUMON, "9")})
    with hospital.client(scope="system/*.rs") as ehr:
        included = "QuestionnaireResponse?_include=QuestionnaireResponse:questionnaire"
        assert found(ehr.get(included)) == (["QuestionnaireResponse/r1"], [])
        assert found(ehr.get("QuestionnaireResponse?questionnaire.publisher=alpha"))[0] == []
        back = "Questionnaire?_id=mine&_revinclude=QuestionnaireResponse:questionnaire"
        assert found(ehr.get(back)) == (["Questionnaire/mine"], [])
        assert found(ehr.get("Questionnaire?_has:QuestionnaireResponse:questionnaire:status=completed"))[0] == []
    draw(store, mine, {"Questionnaire/sein-1": FORMS["Questionnaire/sein-1"]})
    with hospital.client(scope="system/QuestionnaireResponse.rs") as narrow:
        assert found(narrow.get(included)) == (["QuestionnaireResponse/r1"], [])


class TestBreadth:
    @pytest.fixture
    def limits(self) -> Limits:
        return dataclasses.replace(Limits(), search_included=3, search_chain=1)

    def test_the_same_limits_hold(self, hospital: Hospital, world: World, store: Store) -> None:
        many = {f"Questionnaire/v{number}": form(SEIN, f"v{number}") for number in range(5)}
        draw(store, Owner(partner_id=world.partner.id), GRAPH | many)
        with hospital.client() as ehr:
            cut = ehr.get("QuestionnaireResponse?_id=r0&_include=QuestionnaireResponse:questionnaire")
            assert len(found(cut)[1]) == 3
            assert "RCP_LIMIT_SEARCH_INCLUDED" in cut.json()["entry"][-1]["resource"]["issue"][0]["details"]["text"]
            long = ehr.get("Observation?derived-from:QuestionnaireResponse.questionnaire.publisher=alpha")
            assert long.status_code == 400
            assert "RCP_LIMIT_SEARCH_CHAIN" in long.text


def test_the_statement_lists_what_can_be_followed_and_nothing_else(hospital: Hospital) -> None:
    with hospital.client() as ehr:
        said = ehr.get("metadata").json()
    resources = {one["type"]: one for one in said["rest"][0]["resource"]}
    assert "QuestionnaireResponse:questionnaire" in resources["QuestionnaireResponse"]["searchInclude"]
    assert set(resources["Questionnaire"]["searchRevInclude"]) >= {
        "QuestionnaireResponse:questionnaire",
        "CarePlan:instantiates-canonical",
        "Communication:instantiates-canonical",
    }
    # What these refer to (specimens, devices, goals, definitions…) is not kept here.
    followed = {value for one in resources.values() for value in one.get("searchInclude", ())}
    assert not followed & {
        "Encounter:account",
        "Encounter:episode-of-care",
        "ServiceRequest:instantiates-canonical",
        "ServiceRequest:specimen",
        "CarePlan:goal",
        "Observation:device",
        "DiagnosticReport:media",
    }
    assert "ServiceRequest:instantiates-canonical" not in resources["Questionnaire"]["searchRevInclude"]
    assert "Observation:specimen" not in resources["Patient"]["searchRevInclude"]
