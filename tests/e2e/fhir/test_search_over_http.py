"""What a search answers beside its matches, over real HTTP: order, form, strictness, links, limits."""

from __future__ import annotations

import dataclasses
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from gateway.fhir import keeping
from gateway.fhir.keeping import Owner
from gateway.model.store import Store
from gateway.settings import Limits
from tests.e2e.fhir import minimal
from tests.e2e.fhir.conftest import Hospital
from tests.loopback import until
from tests.world import World

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
LOINC = "http://loinc.org"


def observation(when: str | None, value: float | None, code: str, of: str, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": LOINC, "code": code}]},
        "subject": {"reference": f"Patient/{of}"},
        "text": {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">x</div>'},
        "category": [{"text": "laboratory"}],
    }
    if when:
        made["effectiveDateTime"] = when
    if value is not None:
        made["valueQuantity"] = {"value": value, "system": "http://unitsofmeasure.org", "code": "mg"}
    return made | more


STORED: dict[str, dict[str, Any]] = {
    "a": observation("2026-03-01T10:00:00Z", 5, "B", "p2"),
    "b": observation("2026-01", 12, "A", "p1"),
    "c": observation("2026-01-15", None, "B", "p3"),
    "d": observation(None, 0.5, "C", "p1"),
    "e": observation("2025", 5, "A", "p2"),
}


@pytest.fixture
def stored(store: Store, world: World) -> None:
    owner = Owner(partner_id=world.partner.id)
    with store.session() as session:
        for identity, tree in STORED.items():
            keeping.keep(session, "Observation", identity, tree, owner)
            session.commit()
        for identity, family in (("p1", "Zola"), ("p2", "ÉLUARD"), ("p3", "ablain")):
            patient = {"resourceType": "Patient", "name": [{"family": family}]}
            keeping.keep(session, "Patient", identity, patient, owner)
        session.commit()


def ids(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    entries = answer.json().get("entry", [])
    return "".join(entry["resource"]["id"] for entry in entries if entry["search"]["mode"] == "match")


def code_of(answer: httpx.Response) -> str:
    assert answer.json()["resourceType"] == "OperationOutcome"
    return str(answer.json()["issue"][0]["details"]["coding"][0]["code"])


def self_of(answer: httpx.Response) -> httpx.URL:
    return httpx.URL(next(link["url"] for link in answer.json()["link"] if link["relation"] == "self"))


#: Order → ids; what does not say comes last, ties by id in the direction of the last key.
ORDERS = {
    "": "abcde",
    "_id": "abcde",
    "-_id": "edcba",
    "_lastUpdated": "abcde",
    "-_lastUpdated": "edcba",
    "date": "ebcad",
    "-date": "abced",
    "value-quantity": "daebc",
    "-value-quantity": "beadc",
    "code": "beacd",
    "-code": "dcaeb",
    "code,date": "ebcad",
    "code,-date": "beacd",
    "-code,value-quantity": "daceb",
    "subject,_id": "bdaec",
    "patient,-value-quantity": "bdeac",
    "status,-_id": "edcba",
}


@pytest.mark.usefixtures("stored")
def test_answers_come_in_the_order_asked_for(hospital: Hospital) -> None:
    with hospital.client() as ehr:
        for order, expected in ORDERS.items():
            asked = f"Observation?_sort={order}" if order else "Observation"
            assert ids(ehr.get(asked)) == expected, order
            # And page by page.
            seen, url = "", f"{asked}{'&' if order else '?'}_count=2"
            while url:
                answer = ehr.get(url)
                seen += ids(answer)
                url = {link["relation"]: link["url"] for link in answer.json()["link"]}.get("next", "")
            assert seen == expected, order
        assert ids(ehr.get("Patient?_sort=family")) == "p3p2p1"
        assert ids(ehr.get("Patient?_sort=-family")) == "p1p2p3"
        assert ids(ehr.get("Observation?_sort=code&_sort=-date")) == "beacd"
        for bad in ("couleur", "combo-code-value-quantity", "code,couleur", "_content"):
            refused = ehr.get(f"Observation?_sort={bad}")
            assert (refused.status_code, code_of(refused)) == (400, "tri-non-offert"), bad


@pytest.mark.usefixtures("stored")
def test_parts_of_what_is_found_read_and_told_of(hospital: Hospital) -> None:
    always = {"resourceType", "id", "meta"}
    summary = always | {"status", "code", "subject", "effectiveDateTime", "valueQuantity"}
    forms: dict[str, set[str]] = {
        "_summary=true": summary,
        "_summary=text": always | {"text", "status", "code"},
        "_summary=data": summary | {"category"},
        "_summary=false": summary | {"category", "text"},
        "_elements=subject": always | {"subject", "status", "code"},
        "_elements=Observation.subject,Patient.name": always | {"subject", "status", "code"},
    }
    with hospital.client() as ehr:
        for asked, names in forms.items():
            found = [
                ehr.get(f"Observation?_id=a&{asked}").json()["entry"][0]["resource"],
                ehr.get(f"Observation/a?{asked}").json(),
                ehr.get(f"Observation/a/_history/1?{asked}").json(),
                ehr.get(f"Observation/a/_history?{asked}").json()["entry"][0]["resource"],
                ehr.get(f"Observation/_history?_count=1&_sort=_lastUpdated&{asked}").json()["entry"][0]["resource"],
            ]
            for one in found:
                assert set(one) == names, asked
                tags = [tag["code"] for tag in one["meta"].get("tag", [])]
                assert tags == ([] if asked == "_summary=false" else ["SUBSETTED"]), asked
        both = ehr.get("Observation?_id=a&_include=Observation:subject&_summary=data").json()["entry"]
        assert [entry["resource"]["meta"]["tag"][0]["code"] for entry in both] == ["SUBSETTED"] * 2
        match, included = ehr.get("Observation?_id=a&_include=Observation:subject&_elements=status").json()["entry"]
        assert ("tag" in match["resource"]["meta"], "tag" in included["resource"]["meta"]) == (True, False)
        for bad in ("_summary=peu", "_summary=true&_elements=status"):
            for path in ("Observation", "Observation/a", "Observation/a/_history/1"):
                assert ehr.get(f"{path}?{bad}").status_code == 400, (path, bad)


@pytest.mark.usefixtures("stored")
def test_what_is_unknown_is_said_or_refused(hospital: Hospital) -> None:
    strict = {"Prefer": "return=representation; handling=strict"}
    lenient = {"Prefer": "handling=lenient"}
    with hospital.client() as ehr:
        for headers in ({}, lenient):
            answer = ehr.get("Observation?couleur=bleu&code=A&_contained=true", headers=headers)
            assert ids(answer) == "be"
            outcome = answer.json()["entry"][-1]
            assert outcome["search"]["mode"] == "outcome"
            assert [issue["severity"] for issue in outcome["resource"]["issue"]] == ["warning", "warning"]
            assert answer.json()["total"] == 2
            assert dict(self_of(answer).params) == {"code": "A"}
        refused = ehr.get("Observation?couleur=bleu&code=A", headers=strict)
        assert (refused.status_code, code_of(refused)) == (400, "parametre-inconnu")
        for headers in ({}, strict, lenient):
            for bad in ("code:inconnu=A", "_count:exact=1", "_sort:missing=true", "_summary:x=true", "_total:x=none"):
                refused = ehr.get(f"Observation?{bad}", headers=headers)
                assert (refused.status_code, code_of(refused)) == (400, "parametre-modificateur"), bad
        for bad in ("_count=x", "_count=-1", "_count=²", "_total=some", "_count=1e3"):
            assert code_of(ehr.get(f"Observation?{bad}")) == "parametre-valeur", bad
        assert ids(ehr.get("Observation?code=&_sort=")) == "abcde"


def test_the_end_of_time_is_a_date_like_others(ehr: httpx.Client) -> None:
    """Hospitals write « 9999-12-31 » for no end, and ask up to it."""
    patient = ehr.post("Patient", json=minimal.resource("Patient", {})).json()["id"]
    for number, said in enumerate(
        ({"start": "2026-03-19", "end": "9999-12-31T23:59:59+01:00"}, "9999-12-31", "0001-01-01", "2026-03-19")
    ):
        tree = observation(None, None, f"c{number}", patient)
        tree["effectivePeriod" if isinstance(said, dict) else "effectiveDateTime"] = said
        assert ehr.post("Observation", json=tree).status_code == 201
    found = {
        "le9999-12-31": "0123",
        "lt9999-12-31": "023",
        "ge9999-12-31": "1",
        "9999": "1",
        "eb9999-12-31T23:59:59Z": "023",
        "lt0002": "2",
        "0001-01-01": "2",
        "gt0001-01-01": "013",
        "ap9999": "01",
    }
    for asked, numbers in found.items():
        answer = ehr.get("Observation", params={"date": asked})
        codes = {entry["resource"]["code"]["coding"][0]["code"] for entry in answer.json().get("entry", ())}
        assert (asked, codes) == (asked, {f"c{number}" for number in numbers})
    for sort, ends in (("date", "21"), ("-date", "12")):
        order, address = "", f"Observation?_sort={sort}&_count=1"
        while address and len(order) < 10:  # drivers take the ends of the calendar for infinity
            page = ehr.get(address).json()
            order += page["entry"][0]["resource"]["code"]["coding"][0]["code"][1:]
            address = next((link["url"] for link in page["link"] if link["relation"] == "next"), "")
        assert (sort, order[0] + order[-1], "".join(sorted(order))) == (sort, ends, "0123")


@pytest.mark.usefixtures("stored")
def test_a_search_by_post_is_the_same_search(hospital: Hospital) -> None:
    with hospital.client() as ehr:
        body = ehr.post("Observation/_search", content="code=A&_sort=date", headers=FORM)
        assert ids(body) == "eb"
        assert ids(ehr.post("Observation/_search?code=A", content="_sort=-date", headers=FORM)) == "be"
        assert ids(ehr.post("Observation/_search?code=A&_sort=-date", content="", headers=FORM)) == "be"
        assert dict(self_of(body).params) == {"code": "A", "_sort": "date"}
        asked = ehr.post("Observation/_search", content="code=A&_format=xml&_pretty=true", headers=FORM)
        assert asked.headers["content-type"].startswith("application/fhir+xml")
        assert asked.text.count("<Observation>") == 2
        assert "\n  " in asked.text
        asked = ehr.post("Observation/_search?_format=json", content="code=A&_format=xml", headers=FORM)
        assert ids(asked) in {"be", "eb"}
        assert ehr.post("Observation/_search", content="code=A&_format=ttl", headers=FORM).status_code == 406
        assert ehr.post("Observation/_search", json={"code": "A"}).status_code == 415
        assert ehr.post("Observation/_search", content=b"code=%FF\xff", headers=FORM).status_code == 400
        assert ehr.post("Binary/_search", content="", headers=FORM).status_code == 405
        strict = FORM | {"Prefer": "handling=strict"}
        assert ehr.post("Observation/_search", content="couleur=bleu", headers=strict).status_code == 400


@pytest.mark.usefixtures("stored")
class TestLimits:
    """Each limit answers with its name."""

    @pytest.fixture
    def limits(self) -> Limits:
        return dataclasses.replace(Limits(), search_seconds=2, search_sort=2, search_page=3, search_values=3)

    def test_limits_of_the_question(self, hospital: Hospital) -> None:
        with hospital.client() as ehr:
            for asked, name in (
                ("_sort=code,date,_id", "RCP_LIMIT_SEARCH_SORT"),
                ("_sort=code,date&_sort=_id", "RCP_LIMIT_SEARCH_SORT"),
                ("code=A,B,C,D", "RCP_LIMIT_SEARCH_VALUES"),
                ("&".join(["code=A"] * 51), "RCP_LIMIT_SEARCH_PARAMETERS"),
            ):
                refused = ehr.get(f"Observation?{asked}")
                assert refused.status_code == 400, asked
                assert name in refused.text, asked
            assert ids(ehr.get("Observation?_count=100")) == "abc"

    def test_a_search_that_costs_too_much_is_stopped_and_told_why(self, hospital: Hospital, store: Store) -> None:
        with hospital.client() as ehr:
            with store.session() as holding:
                holding.execute(text("LOCK TABLE fhir_observation IN ACCESS EXCLUSIVE MODE"))
                for asked in (
                    "Observation?code=A",
                    "Observation?_sort=-date",
                    "Observation/_history",
                    "Patient?_revinclude=Observation:subject",
                ):
                    refused = ehr.get(asked)
                    assert (refused.status_code, code_of(refused)) == (422, "recherche-trop-couteuse"), asked
                    assert refused.json()["issue"][0]["code"] == "too-costly"
                    assert "RCP_LIMIT_SEARCH_SECONDS" in refused.text
                waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                # The server is told to stop while the refusal is on its way already.
                until(lambda: holding.execute(text(waiting)).scalar() == 0)
            # The connections that were stopped serve again.
            for _ in range(12):
                assert ids(ehr.get("Observation?code=A")) == "be"
