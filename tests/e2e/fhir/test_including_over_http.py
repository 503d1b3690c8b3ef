"""``_include`` and ``_revinclude`` over real HTTP; who refers to whom is drawn by hand below.

Patient p1 <── Observation o1 ──> Practitioner d1
Patient p2 <── Observation o2 (has member o3), o3 (has member o2: a circle)
Patient p1 ──link──> Patient p2 ──link──> Patient p3 ──link──> p1 (a circle)
Provenance v1 ──target──> o1, and Provenance v2 ──target──> v1's own Observation o2
"""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any

import httpx
import pytest

from gateway.fhir import keeping
from gateway.fhir.keeping import Owner
from gateway.model.store import Store
from gateway.settings import Limits
from tests.e2e.fhir.conftest import Hospital
from tests.world import World


def ref(to: str) -> dict[str, str]:
    return {"reference": to}


def linked(to: str) -> dict[str, Any]:
    return {"resourceType": "Patient", "link": [{"other": ref(to), "type": "seealso"}]}


def observation(of: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": ref(of)} | more


GRAPH: dict[str, dict[str, Any]] = {
    "Patient/p1": linked("Patient/p2"),
    "Patient/p2": linked("Patient/p3"),
    "Patient/p3": linked("Patient/p1"),
    "Practitioner/d1": {"resourceType": "Practitioner", "name": [{"family": "LEGRAND"}]},
    "Observation/o1": observation("Patient/p1", performer=[ref("Practitioner/d1")]),
    "Observation/o2": observation("Patient/p2", hasMember=[ref("Observation/o3")]),
    "Observation/o3": observation("Patient/p2", hasMember=[ref("Observation/o2")]),
    "Provenance/v1": {"resourceType": "Provenance", "target": [ref("Observation/o1")]},
    "Provenance/v2": {"resourceType": "Provenance", "target": [ref("Observation/o2")]},
}


def draw(store: Store, owner: Owner, graph: dict[str, dict[str, Any]]) -> None:
    with store.session() as session:
        for name, tree in graph.items():
            kind, _, identity = name.partition("/")
            keeping.keep(session, kind, identity, tree, owner)
        session.commit()


@pytest.fixture
def graph(store: Store, world: World) -> None:
    draw(store, Owner(partner_id=world.partner.id), GRAPH)


def found(answer: httpx.Response) -> tuple[list[str], list[str]]:
    """Matches and included, each as ``Type/id``."""
    assert answer.status_code == 200, answer.text
    modes: dict[str, list[str]] = {"match": [], "include": [], "outcome": []}
    for entry in answer.json().get("entry", []):
        resource = entry["resource"]
        modes[entry["search"]["mode"]].append(f"{resource['resourceType']}/{resource.get('id')}")
    return modes["match"], modes["include"]


#: Question → what it includes; the matches are those of the question without its includes.
INCLUDED: list[tuple[str, set[str]]] = [
    ("Observation?_id=o1&_include=Observation:subject", {"Patient/p1"}),
    ("Observation?_id=o1&_include=Observation:patient", {"Patient/p1"}),
    ("Observation?_id=o1&_include=Observation:subject:Patient", {"Patient/p1"}),
    ("Observation?_id=o1&_include=Observation:subject:Group", set()),
    (
        "Observation?_id=o1&_include=Observation:subject&_include=Observation:performer",
        {"Patient/p1", "Practitioner/d1"},
    ),
    ("Observation?_id=o1&_include=Observation:*", {"Patient/p1", "Practitioner/d1"}),
    ("Observation?_id=o1&_include=*", {"Patient/p1", "Practitioner/d1"}),
    ("Observation?_id=o1&_include=Patient:link", set()),
    # Not of what was included, unless it is said.
    ("Observation?_id=o1&_include=Observation:subject&_include=Patient:link", {"Patient/p1"}),
    (
        "Observation?_id=o1&_include=Observation:subject&_include:iterate=Patient:link",
        {"Patient/p1", "Patient/p2", "Patient/p3"},
    ),
    # A circle of which the match is part ends, and the match is not included again.
    ("Patient?_id=p1&_include=Patient:link", {"Patient/p2"}),
    ("Patient?_id=p1&_include:iterate=Patient:link", {"Patient/p2", "Patient/p3"}),
    ("Patient?_id=p1,p2,p3&_include:iterate=Patient:link", set()),
    ("Observation?_id=o2&_include:iterate=Observation:has-member", {"Observation/o3"}),
    # Backwards.
    ("Patient?_id=p2&_revinclude=Observation:subject", {"Observation/o2", "Observation/o3"}),
    ("Patient?_id=p1&_revinclude=Observation:patient&_revinclude=Provenance:target", {"Observation/o1"}),
    (
        "Patient?_id=p1&_revinclude=Observation:patient&_revinclude:iterate=Provenance:target",
        {"Observation/o1", "Provenance/v1"},
    ),
    ("Patient?_id=p1&_revinclude=Patient:link", {"Patient/p3"}),
    ("Patient?_id=p1&_revinclude=*", {"Patient/p3", "Observation/o1"}),
    ("Patient?_id=p1&_revinclude=Observation:*", {"Observation/o1"}),
    (
        "Practitioner?_id=d1&_revinclude=Observation:performer&_include:iterate=Observation:subject",
        {"Observation/o1", "Patient/p1"},
    ),
    (
        "Patient?_id=p1&_revinclude=Observation:subject&_include:iterate=Observation:performer&_include=Patient:link",
        {"Observation/o1", "Practitioner/d1", "Patient/p2"},
    ),
    # Everything that hangs together, to the end.
    (
        "Provenance?_id=v2&_include:iterate=*",
        {"Observation/o2", "Observation/o3", "Patient/p1", "Patient/p2", "Patient/p3"},
    ),
]


@pytest.mark.usefixtures("graph")
def test_includes_follow_references_forwards_and_backwards(hospital: Hospital) -> None:
    with hospital.client(scope="system/*.rs") as ehr:
        for question, included in INCLUDED:
            answer = ehr.get(question)
            matches, others = found(answer)
            bare = question.partition("&")[0]
            assert matches == found(ehr.get(bare))[0], question
            assert len(others) == len(set(others)), question
            assert set(others) == included, question
            assert answer.json()["total"] == len(matches), question


@pytest.mark.usefixtures("graph")
def test_what_is_no_include_is_refused_by_name(hospital: Hospital) -> None:
    bad = {
        "_include=Observation": "inclusion-inconnue",
        "_include=Observation:": "inclusion-inconnue",
        "_include=Observation:couleur": "inclusion-inconnue",
        "_include=Observation:status": "inclusion-inconnue",
        "_include=Observation:subject:Chien": "inclusion-inconnue",
        "_include=Chien:subject": "inclusion-inconnue",
        "_include=Chien:*": "inclusion-inconnue",
        "_revinclude=Chien:subject": "inclusion-inconnue",
        "_include:recurse=Observation:subject": "parametre-modificateur",
        "_revinclude:all=Observation:subject": "parametre-modificateur",
        "_summary=text&_include=Observation:subject": "parametres-incompatibles",
    }
    with hospital.client() as ehr:
        for question, code in bad.items():
            answer = ehr.get(f"Observation?{question}")
            assert answer.status_code == 400, question
            assert answer.json()["issue"][0]["details"]["coding"][0]["code"] == code, question


def test_only_what_caller_and_token_may_see_is_included(store: Store, world: World, hospital: Hospital) -> None:
    stranger, mine = Owner(partner_id=uuid.uuid4()), Owner(partner_id=world.partner.id)
    draw(store, stranger, {"Patient/p1": GRAPH["Patient/p1"], "Provenance/v1": GRAPH["Provenance/v1"]})
    draw(
        store,
        mine,
        {
            "Patient/p2": GRAPH["Patient/p2"],
            "Observation/o1": observation("Patient/p1"),
            "Observation/o2": GRAPH["Observation/o2"],
        },
    )
    with store.session() as session:
        keeping.remove(session, "Patient", "p2", mine)
        session.commit()
    draw(store, mine, {"Patient/p3": GRAPH["Patient/p3"], "Observation/o4": observation("Patient/p3")})
    asked = "Observation?_include=Observation:subject&_revinclude=Provenance:target"
    with hospital.client(scope="system/*.rs") as ehr:
        assert found(ehr.get(asked)) == (["Observation/o1", "Observation/o2", "Observation/o4"], ["Patient/p3"])
    with hospital.client(scope="system/Observation.rs") as narrow:
        assert found(narrow.get(asked)) == (["Observation/o1", "Observation/o2", "Observation/o4"], [])


class TestBreadth:
    """What includes may bring is limited."""

    @pytest.fixture
    def limits(self) -> Limits:
        return dataclasses.replace(Limits(), search_included=3, search_parameters=4)

    def test_what_is_cut_is_said_and_the_limit_named(self, hospital: Hospital, world: World, store: Store) -> None:
        many = {f"Observation/m{number}": observation("Patient/p1") for number in range(5)}
        draw(store, Owner(partner_id=world.partner.id), GRAPH | many)
        with hospital.client() as ehr:
            cut = ehr.get("Patient?_id=p1&_revinclude=Observation:subject")
            assert found(cut) == (["Patient/p1"], ["Observation/m0", "Observation/m1", "Observation/m2"])
            outcome = cut.json()["entry"][-1]
            assert outcome["search"]["mode"] == "outcome"
            issue = outcome["resource"]["issue"][0]
            assert (issue["severity"], issue["code"]) == ("warning", "too-costly")
            assert "RCP_LIMIT_SEARCH_INCLUDED" in issue["details"]["text"]
            assert " 3 " in issue["details"]["text"]
            whole = ehr.get("Patient?_id=p1&_include:iterate=Patient:link")
            assert set(found(whole)[1]) == {"Patient/p2", "Patient/p3"}
            assert "outcome" not in [entry["search"]["mode"] for entry in whole.json()["entry"]]
            long = ehr.get("Patient?_id=p1&_id=p1&_id=p1&_id=p1&_id=p1")
            assert long.status_code == 400
            assert "RCP_LIMIT_SEARCH_PARAMETERS" in long.text
