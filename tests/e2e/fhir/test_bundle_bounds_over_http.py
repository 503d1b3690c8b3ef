"""What a Bundle may take altogether, over real HTTP: bytes of its answer, seconds of its work, and of each condition.

A statement that takes long is one that waits for a lock which the test holds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, text

from gateway.model.representation import TABLES
from gateway.model.store import Store
from gateway.settings import Limits
from tests.e2e.fhir.conftest import ALL_SCOPES

ROOM = 20_000
BYTES = f"limite {ROOM} (RCP_LIMIT_ANSWER_BYTES)"
BUNDLE = "limite 6 (RCP_LIMIT_BUNDLE_SECONDS)"
SEARCH = "limite 1 (RCP_LIMIT_SEARCH_SECONDS)"
FULL = {"Prefer": "return=representation"}


@pytest.fixture
def limits() -> Limits:
    return dataclasses.replace(Limits(), answer_bytes=ROOM)


@pytest.fixture
def ehr(world: Any, admit: Any) -> Iterator[httpx.Client]:
    with admit(world.partner, scopes=ALL_SCOPES).client() as client:
        yield client


def place(number: int, length: int = 10) -> dict[str, Any]:
    return {
        "resourceType": "Location",
        "identifier": [{"system": "https://chu-x.example/salles", "value": str(number)}],
        "name": "x" * length,
    }


def entry(method: str, url: str, resource: dict[str, Any] | None = None, **request: str) -> dict[str, Any]:
    made: dict[str, Any] = {"request": {"method": method, "url": url, **request}}
    return made if resource is None else made | {"resource": resource}


def sent(ehr: httpx.Client, kind: str, *entries: dict[str, Any], **headers: str) -> httpx.Response:
    return ehr.post("", json={"resourceType": "Bundle", "type": kind, "entry": list(entries)}, headers=headers)


def statuses(answer: httpx.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [int(one["response"]["status"].partition(" ")[0]) for one in answer.json()["entry"]]


def told(outcome: dict[str, Any]) -> tuple[str, str]:
    details = outcome["issue"][0]["details"]
    return details["coding"][0]["code"], details["text"]


def kept(store: Store) -> int:
    with store.session() as session:
        return session.scalar(select(func.count()).select_from(TABLES["Location"])) or 0


@contextmanager
def held(store: Store, table: str) -> Iterator[None]:
    """Nobody reads a table meanwhile."""
    with store.session() as session:
        session.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
        yield
        session.rollback()


class TestBytes:
    """The answer."""

    def test_entries_of_a_batch_beyond_it_are_refused_by_its_name(self, ehr: httpx.Client) -> None:
        large, small = (ehr.post("Location", json=place(n, length)).json()["id"] for n, length in ((1, 9000), (2, 10)))
        gets = [entry("GET", f"Location/{large}")] * 3
        answer = sent(ehr, "batch", *gets, entry("GET", f"Location/{small}"), entry("GET", f"Location?_id={large}"))
        assert statuses(answer) == [200, 200, 422, 200, 422]
        for place_of in (2, 4):
            refused = answer.json()["entry"][place_of]
            assert "resource" not in refused
            code, said = told(refused["response"]["outcome"])
            assert (code, BYTES in said) == ("reponse-trop-grande", True)
        assert len(answer.content) < ROOM + 5000
        assert statuses(sent(ehr, "batch", *gets[:2])) == [200, 200]

    def test_a_write_of_a_batch_beyond_it_is_done_and_told_without_the_resource(self, ehr: httpx.Client) -> None:
        posts = [entry("POST", "Location", place(number, 9000)) for number in range(3)]
        answer = sent(ehr, "batch", *posts, **FULL)
        assert statuses(answer) == [201, 201, 201]
        entries = answer.json()["entry"]
        assert ["resource" in one for one in entries] == [True, True, False]
        code, said = told(entries[2]["response"]["outcome"])
        assert (code, BYTES in said) == ("reponse-trop-grande", True)
        assert entries[2]["response"]["outcome"]["issue"][0]["severity"] == "warning"
        assert ehr.get(entries[2]["response"]["location"]).json()["name"] == "x" * 9000

    def test_a_transaction_beyond_it_is_refused_whole(self, ehr: httpx.Client, store: Store) -> None:
        large = ehr.post("Location", json=place(1, 9000)).json()["id"]
        before = kept(store)
        for entries, headers in (
            ([entry("POST", "Location", place(2)), *[entry("GET", f"Location/{large}")] * 3], {}),
            ([entry("POST", "Location", place(number, 9000)) for number in range(2, 5)], FULL),
        ):
            refused = sent(ehr, "transaction", *entries, **headers)
            assert refused.status_code == 422, refused.text
            code, said = told(refused.json())
            assert (code, BYTES in said) == ("reponse-trop-grande", True)
            assert refused.json()["issue"][0]["code"] == "too-costly"
            assert kept(store) == before
        good = sent(ehr, "transaction", *[entry("GET", f"Location/{large}")] * 2, entry("POST", "Location", place(2)))
        assert statuses(good) == [200, 200, 201]


class TestSeconds:
    """The work; what comes before a search in its Bundle has the time of a busy machine."""

    @pytest.fixture
    def limits(self) -> Limits:
        return dataclasses.replace(Limits(), search_seconds=1, bundle_seconds=6)

    def test_a_batch_is_answered_in_its_time_whatever_its_searches_cost(self, ehr: httpx.Client, store: Store) -> None:
        with held(store, "fhir_location"):
            answer = sent(ehr, "batch", *[entry("GET", "Location?name=x")] * 40)
        assert set(statuses(answer)) == {422}
        said = [told(one["response"]["outcome"]) for one in answer.json()["entry"]]
        assert (said[0][0], SEARCH in said[0][1]) == ("recherche-trop-couteuse", True)
        assert all(code == "bundle-trop-long" and BUNDLE in words for code, words in said[6:])

    def test_a_search_of_a_transaction_that_costs_too_much_undoes_it(self, ehr: httpx.Client, store: Store) -> None:
        before = kept(store)
        with held(store, "fhir_slot"):
            refused = sent(ehr, "transaction", entry("POST", "Location", place(1)), *[entry("GET", "Slot?_id=x")] * 9)
        assert refused.status_code == 422, refused.text
        code, said = told(refused.json())
        assert (code, SEARCH in said) == ("recherche-trop-couteuse", True)
        assert len(refused.json()["issue"]) == 1
        assert kept(store) == before

    def test_a_condition_that_costs_too_much_is_stopped_by_name(self, ehr: httpx.Client, store: Store) -> None:
        slow = "name=x&organization.name=y"
        before = kept(store)
        alone = {"If-None-Exist": slow}
        with held(store, "fhir_organization"):
            for refused in (
                ehr.post("Location", json=place(1), headers=alone),
                ehr.put(f"Location?{slow}", json=place(1)),
                ehr.delete(f"Location?{slow}"),
                sent(
                    ehr,
                    "transaction",
                    entry("POST", "Location", place(2)),
                    entry("POST", "Location", place(1), ifNoneExist=slow),
                    entry("PUT", "Location?name=z&organization.name=y", place(1)),
                ),
                sent(
                    ehr,
                    "transaction",
                    entry("POST", "Location", place(2) | {"partOf": {"reference": f"Location?{slow}"}}),
                ),
            ):
                assert refused.status_code == 422, refused.text
                code, said = told(refused.json())
                assert (code, SEARCH in said) == ("recherche-trop-couteuse", True)
            answer = sent(ehr, "batch", entry("POST", "Location", place(3), ifNoneExist=slow))
            assert statuses(answer) == [422]
        assert kept(store) == before
        made = ehr.post("Location", json=place(1), headers=alone)
        assert made.status_code == 201, made.text


class TestSecondsOfABundle:
    """The work, where a search alone may take longer."""

    @pytest.fixture
    def limits(self) -> Limits:
        return dataclasses.replace(Limits(), bundle_seconds=2)

    def test_a_transaction_out_of_its_time_is_undone(self, ehr: httpx.Client, store: Store) -> None:
        before = kept(store)
        name = "limite 2 (RCP_LIMIT_BUNDLE_SECONDS)"
        with held(store, "fhir_slot"), held(store, "fhir_healthcareservice"):
            for last in (
                entry("GET", "Slot?status=free"),
                entry("GET", "Slot/_history"),
                entry("POST", "Location", place(2), ifNoneExist="name=x&_has:HealthcareService:location:name=y"),
            ):
                refused = sent(ehr, "transaction", entry("POST", "Location", place(1)), last)
                assert refused.status_code == 422, refused.text
                code, said = told(refused.json())
                assert (code, name in said) == ("bundle-trop-long", True)
                assert kept(store) == before

    def test_writes_of_a_batch_after_its_time_are_refused_and_not_done(self, ehr: httpx.Client, store: Store) -> None:
        before = kept(store)
        with held(store, "fhir_slot"):
            answer = sent(
                ehr,
                "batch",
                entry("POST", "Location", place(1)),
                entry("GET", "Slot?status=free"),
                entry("POST", "Location", place(2)),
            )
        assert statuses(answer) == [201, 422, 422]
        for one in answer.json()["entry"][1:]:
            assert told(one["response"]["outcome"])[0] == "bundle-trop-long"
        assert kept(store) == before + 1


class TestConditions:
    """Conditions have the bounds of searches."""

    @pytest.fixture
    def limits(self) -> Limits:
        return dataclasses.replace(Limits(), search_values=2, search_chain=1, search_parameters=2)

    def test_a_condition_is_as_narrow_as_a_search(self, ehr: httpx.Client) -> None:
        for query, name in (
            ("name=a,b,c", "RCP_LIMIT_SEARCH_VALUES"),
            ("partof:Location.organization.name=y", "RCP_LIMIT_SEARCH_CHAIN"),
            ("name=a&status=active&mode=instance", "RCP_LIMIT_SEARCH_PARAMETERS"),
        ):
            refused = ehr.post("Location", json=place(1), headers={"If-None-Exist": query})
            assert refused.status_code == 400, query
            assert name in refused.text, query

    def test_many_identifiers_together_are_no_list_of_a_client(self, ehr: httpx.Client, store: Store) -> None:
        keys = [f"identifier=https://chu-x.example/salles|{number}" for number in range(7)]
        entries = [entry("POST", "Location", place(number), ifNoneExist=key) for number, key in enumerate(keys)]
        assert statuses(sent(ehr, "transaction", *entries)) == [201] * 7
        assert statuses(sent(ehr, "transaction", *entries)) == [200] * 7
        assert kept(store) == 7


def test_long_statements_of_steps_are_not_kept(ehr: httpx.Client, store: Store) -> None:
    store.engine.clear_compiled_cache()  # of what others asked
    ranges = ",".join(f"ne20{year}-01-01" for year in range(10, 99))
    searched = sent(ehr, "batch", entry("GET", f"Observation?date={ranges}"), entry("GET", "Task?focus.identifier=x"))
    assert statuses(searched) == [200, 200]
    made = sent(ehr, "transaction", entry("POST", "Location", place(1), ifNoneExist=f"_lastUpdated={ranges}"))
    assert statuses(made) == [201]
    kept_texts = [str(compiled) for compiled in store.engine._compiled_cache.values()]
    assert kept_texts
    assert max(map(len, kept_texts)) < 15_000
