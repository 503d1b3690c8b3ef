"""Versions over real HTTP: of one resource, of a type, by time, page by page; and reads that depend on a version."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import select, text, update

from gateway.fhir import keeping
from gateway.fhir.keeping import Owner
from gateway.model.audit import AuditLine
from gateway.model.partner import Partner
from gateway.model.representation import TABLES
from gateway.model.store import Store
from tests.e2e.fhir.conftest import Hospital
from tests.world import World

DAY = datetime(2026, 5, 1, 12, 0, 0, 250000, tzinfo=UTC)


def practice(name: str) -> dict[str, Any]:
    return {"resourceType": "Location", "name": name}


@pytest.fixture
def past(store: Store, world: World) -> Owner:
    """Location a: three versions a day apart; b: two, then deleted; c: one. A version a day, from the first of May."""
    owner = Owner(partner_id=world.partner.id, record_id=None)
    story = [("a", "A1"), ("b", "B1"), ("a", "A2"), ("b", "B2"), ("a", "A3"), ("b", None), ("c", "C1")]
    table = TABLES["Location"]
    for day, (identity, name) in enumerate(story):
        with store.session() as session:
            if name is None:
                keeping.remove(session, "Location", identity, owner)
            else:
                keeping.keep(session, "Location", identity, practice(name), owner)
            session.execute(
                update(table)
                .where(table.c.id == identity, table.c.current)
                .values(updated_at=DAY + timedelta(days=day))
            )
            session.commit()
    return owner


def entries(answer: httpx.Response) -> list[tuple[str, str, str]]:
    """Each entry as method, ``id/version`` and name."""
    assert answer.status_code == 200, answer.text
    bundle = answer.json()
    assert bundle["type"] == "history"
    return [
        (
            entry["request"]["method"],
            entry["fullUrl"].rpartition("/")[2] + "/" + entry["response"]["etag"][3:-1],
            entry.get("resource", {}).get("name", ""),
        )
        for entry in bundle.get("entry", [])
    ]


def links(answer: httpx.Response) -> dict[str, str]:
    return {link["relation"]: link["url"] for link in answer.json()["link"]}


ALL = [
    ("POST", "c/1", "C1"),
    ("DELETE", "b/3", ""),
    ("PUT", "a/3", "A3"),
    ("PUT", "b/2", "B2"),
    ("PUT", "a/2", "A2"),
    ("POST", "b/1", "B1"),
    ("POST", "a/1", "A1"),
]


@pytest.mark.usefixtures("past")
def test_histories_are_newest_first_and_say_what_was_deleted(hospital: Hospital) -> None:
    with hospital.client() as ehr:
        of_type = ehr.get("Location/_history")
        assert entries(of_type) == ALL
        assert of_type.json()["total"] == 7
        assert entries(ehr.get("Location/a/_history")) == [ALL[2], ALL[4], ALL[6]]
        gone = ehr.get("Location/b/_history")
        assert entries(gone) == [ALL[1], ALL[3], ALL[5]]
        deleted = gone.json()["entry"][0]
        assert "resource" not in deleted
        assert deleted["response"] == {
            "status": "204",
            "etag": 'W/"3"',
            "lastModified": "2026-05-06T12:00:00.250Z",
        }
        assert deleted["request"] == {"method": "DELETE", "url": "Location/b"}
        assert [entry["response"]["status"] for entry in gone.json()["entry"]] == ["204", "200", "201"]
        assert ehr.get("Location/nul/_history").status_code == 404
        assert ehr.get("Chien/_history").status_code == 404


#: Parameters → the entries that they leave, by place in `ALL`.
ASKED: list[tuple[str, list[int]]] = [
    ("_since=2026-05-05T12:00:00.25Z", [0, 1, 2]),
    ("_since=2026-05-05T14:00:00.251%2B02:00", [0, 1]),
    ("_since=2026-05-07", [0]),
    ("_since=2027-01-01T00:00:00Z", []),
    # Current at noon of the fourth: a's second version, b's second (half an hour before its time, its first).
    ("_at=2026-05-04T12:30:00Z", [3, 4]),
    ("_at=2026-05-04T11:30:00Z", [4, 5]),
    # Current at some time of the third of May in Paris: a/1 until noon, a/2 from then, b/1.
    ("_at=2026-05-03", [4, 5, 6]),
    ("_at=2026-04", []),
    ("_at=2026-06", [0, 1, 2]),
    ("_sort=_lastUpdated", [6, 5, 4, 3, 2, 1, 0]),
    ("_sort=-_lastUpdated", [0, 1, 2, 3, 4, 5, 6]),
    ("_sort=none&_since=2026-05-06", [0, 1]),
]


@pytest.mark.usefixtures("past")
def test_histories_by_time(hospital: Hospital) -> None:
    with hospital.client() as ehr:
        for question, left in ASKED:
            assert entries(ehr.get(f"Location/_history?{question}")) == [ALL[place] for place in left], question
        assert entries(ehr.get("Location/a/_history?_since=2026-05-03")) == [ALL[2], ALL[4]]
        assert entries(ehr.get("Location/a/_history?_at=2026-05-04")) == [ALL[4]]
        assert entries(ehr.get("Location/a/_history?_since=2027-01-01")) == []
        counted = ehr.get("Location/_history?_summary=count").json()
        assert (counted["total"], "entry" in counted) == (7, False)
        for bad in ("_since=hier", "_at=2026-13", "_count=-1", "_count=x", "_sort=name", "_page=x", "_summary=peu"):
            for path in ("Location/_history", "Location/a/_history"):
                assert ehr.get(f"{path}?{bad}").status_code == 400, bad
        assert ehr.get("Location/_history?couleur=bleu").status_code == 200
        strict = ehr.get("Location/_history?couleur=bleu", headers={"Prefer": "handling=strict"})
        assert strict.status_code == 400


@pytest.mark.usefixtures("past")
def test_histories_page_by_page(hospital: Hospital, store: Store, past: Owner) -> None:
    with hospital.client() as ehr:
        for path, whole in (
            ("Location/_history?_count=2", ALL),
            ("Location/_history?_count=3&_sort=_lastUpdated", ALL[::-1]),
            ("Location/a/_history?_count=1", [ALL[2], ALL[4], ALL[6]]),
        ):
            seen: list[Any] = []
            url: str | None = path
            while url:
                answer = ehr.get(url)
                seen += entries(answer)
                assert answer.json()["total"] == len(whole)
                url = links(answer).get("next")
                # What is written meanwhile is in no later page.
                with store.session() as session:
                    keeping.keep(session, "Location", f"n{len(seen)}{len(whole)}", practice("N"), past)
                    session.commit()
            shown = [one for one in seen if one[2] != "N"]
            assert shown == whole, path
            with store.session() as session:
                table = TABLES["Location"]
                session.execute(table.delete().where(table.c.id.startswith("n")))
                session.commit()
        first = links(ehr.get("Location/_history?_count=2"))
        assert ehr.get(first["next"].replace("Location/_history", "Location/a/_history")).status_code == 400


def test_who_asks_again_since_misses_no_late_committer(store: Store, world: World, hospital: Hospital) -> None:
    """A transaction that began before another and commits after it: its row is shown once nothing older can come."""
    owner = Owner(partner_id=world.partner.id)
    written, may_commit = threading.Event(), threading.Event()

    def late() -> None:
        with store.session() as session:
            keeping.keep(session, "Location", "late", practice("L"), owner)
            session.execute(text("SELECT pg_current_xact_id()"))  # whatever was gathered is sent
            written.set()
            may_commit.wait(60)
            session.commit()

    thread = threading.Thread(target=late)
    thread.start()
    try:
        assert written.wait(60)
        with store.session() as session:
            keeping.keep(session, "Location", "early", practice("E"), owner)
            session.commit()
        with hospital.client() as ehr:
            since = "2020-01-01T00:00:00Z"
            asked = [
                f"Location/_history?_since={since}",
                f"Location?_lastUpdated=ge{since}",
                "Location?_sort=_lastUpdated",
            ]
            for question in asked:
                assert "entry" not in ehr.get(question).json(), question
            # Who does not ask what is new reads what he wrote.
            assert ehr.get("Location").json()["total"] == 1
            assert len(entries(ehr.get("Location/early/_history"))) == 1
            may_commit.set()
            thread.join()
            for question in asked:
                assert len(ehr.get(question).json()["entry"]) == 2, question
    finally:
        may_commit.set()
        thread.join()


@pytest.mark.usefixtures("past")
def test_reads_that_depend_on_a_version(hospital: Hospital) -> None:
    with hospital.client() as ehr:
        first = ehr.get("Location/a")
        assert (first.headers["etag"], first.headers["last-modified"]) == ('W/"3"', "Tue, 05 May 2026 12:00:00 GMT")
        at, before = "Tue, 05 May 2026 12:00:00 GMT", "Tue, 05 May 2026 11:59:59 GMT"
        for name, value, status in (
            ("If-None-Match", 'W/"3"', 304),
            ("If-None-Match", '"3"', 304),
            ("If-None-Match", 'W/"1", W/"3"', 304),
            ("If-None-Match", "*", 304),
            ("If-None-Match", 'W/"33"', 200),
            ("If-None-Match", 'W/"1"', 200),
            ("If-Modified-Since", at, 304),
            ("If-Modified-Since", before, 200),
            ("If-Modified-Since", "hier", 200),
            ("If-Modified-Since", format_datetime(datetime.now(UTC), usegmt=True), 304),
        ):
            answer = ehr.get("Location/a", headers={name: value})
            assert (answer.status_code, answer.headers["etag"]) == (status, 'W/"3"'), (name, value)
            assert bool(answer.content) == (status == 200)
        both = ehr.get("Location/a", headers={"If-None-Match": 'W/"1"', "If-Modified-Since": at})
        assert both.status_code == 200
        assert ehr.get("Location/a/_history/1").json()["name"] == "A1"
        assert ehr.get("Location/a/_history/1").headers["etag"] == 'W/"1"'
        assert ehr.get("Location/a/_history/1", headers={"If-None-Match": 'W/"1"'}).status_code == 304
        assert ehr.get("Location/b").status_code == 410
        assert ehr.get("Location/b").json()["issue"][0]["code"] == "deleted"
        assert ehr.get("Location/b/_history/3").status_code == 410
        assert ehr.get("Location/b/_history/2").json()["name"] == "B2"
        assert ehr.get("Location/b/_history/4").status_code == 404
        for none in ("0", "-1", "x", "1.0", "9999999999999999999", "²"):
            assert ehr.get(f"Location/a/_history/{none}").status_code == 404, none
        head = ehr.head("Location/a")
        assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", 'W/"3"')
        assert ehr.head("Location/b").status_code == 410


@pytest.mark.usefixtures("past")
def test_another_organisation_and_a_narrow_token_see_no_history(
    store: Store, world: World, hospital: Hospital, admit: Callable[..., Hospital]
) -> None:
    with store.session() as session:
        other = Partner(name="Clinique Y", network_id=world.network.id, patient_domains=["https://y.example/ipp"])
        session.add(other)
        session.commit()
    with admit(other).client() as stranger:
        assert entries(stranger.get("Location/_history")) == []
        assert stranger.get("Location/_history").json()["total"] == 0
        assert stranger.get("Location/a/_history").status_code == 404
    with hospital.client(scope="system/Location.r") as reader:
        assert reader.get("Location/a/_history").status_code == 200
        assert reader.get("Location/_history").status_code == 403
    with hospital.client(scope="system/Location.s") as searcher:
        assert searcher.get("Location/a/_history").status_code == 403
        assert searcher.get("Location/_history").status_code == 200


def test_one_line_tells_of_a_history_and_names_the_persons(store: Store, world: World, hospital: Hospital) -> None:
    records = [world.record(), world.record()]
    world.session.commit()
    with store.session() as session:
        for number, record in enumerate(records):
            owner = Owner(partner_id=world.partner.id, record_id=record.id)
            for family in "AB":
                tree = {"resourceType": "Patient", "name": [{"family": family}]}
                keeping.keep(session, "Patient", f"p{number}", tree, owner)
        session.commit()

    def lines() -> list[AuditLine]:
        with store.session() as session:
            return list(
                session.scalars(select(AuditLine).where(AuditLine.event == "consultation").order_by(AuditLine.seq))
            )

    with hospital.client() as ehr:
        assert len(entries(ehr.get("Patient/_history"))) == 4
        assert [set(line.persons) for line in lines()] == [{record.id for record in records}]
        assert len(entries(ehr.get("Patient/p1/_history"))) == 2
        assert [len(line.persons) for line in lines()] == [2, 1]
