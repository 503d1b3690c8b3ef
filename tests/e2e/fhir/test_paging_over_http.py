"""Pages over real HTTP while others write: what was there at the first page is shown once, and nothing else.

What is expected is kept beside the database in plain Python, and never asked of the gateway.
"""

from __future__ import annotations

import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from gateway.fhir import keeping
from gateway.fhir.keeping import Owner
from gateway.fhir.paging import Mark, Pages
from gateway.model.store import Store
from gateway.settings import Limits
from tests.e2e.fhir.conftest import Hospital
from tests.world import World

FAMILIES = ["ABEL", "Élan", "elan", "MARTIN", "MARTIN", "ÇELIK", "ZOÉ", "de Brabant", "O'NEIL", None]


def tree(number: int, family: str | None = "ABEL", birth: str | None = None, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"resourceType": "Patient", "identifier": [{"system": "urn:test", "value": str(number)}]}
    if family is not None:
        made["name"] = [{"family": family}]
    if birth is not None:
        made["birthDate"] = birth
    return made | more


@dataclass
class Ward:
    """Patients of one hospital, written straight into the store."""

    store: Store
    owner: Owner
    sent: dict[str, dict[str, Any]] = field(default_factory=dict)

    def put(self, identity: str, what: dict[str, Any], *, pause_s: float = 0) -> None:
        def write(session: Session) -> None:
            keeping.keep(session, "Patient", identity, what, self.owner)
            # A transaction that has written and is not committed yet.
            session.execute(text("SELECT pg_current_xact_id()"))
            time.sleep(pause_s)

        self._do(write)

    def drop(self, identity: str) -> None:
        self._do(lambda session: keeping.remove(session, "Patient", identity, self.owner))

    def _do(self, write: Callable[[Session], None]) -> None:
        """As a step does: who waited for another's version finds it at the second try."""
        while True:
            with self.store.session() as session:
                try:
                    write(session)
                    session.commit()
                except IntegrityError:
                    continue
                return

    def fill(self, count: int) -> None:
        draw = random.Random(1007)  # noqa: S311 - a draw that can be repeated
        with self.store.session() as session:
            for number in range(count):
                birth = draw.choice(
                    [
                        None,
                        f"19{draw.randrange(20, 99)}",
                        f"19{draw.randrange(20, 99)}-0{draw.randrange(1, 9)}-1{draw.randrange(9)}",
                    ]
                )
                made = tree(number, draw.choice(FAMILIES), birth)
                identity = str(uuid.UUID(int=draw.getrandbits(128)))
                self.sent[identity] = made
                keeping.keep(session, "Patient", identity, made, self.owner)
                if number % 3 == 0:
                    session.commit()
            session.commit()


@pytest.fixture
def ward(store: Store, world: World) -> Ward:
    return Ward(store, Owner(partner_id=world.partner.id))


def links(answer: httpx.Response) -> dict[str, str]:
    return {link["relation"]: link["url"] for link in answer.json()["link"]}


def matches(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return [entry["resource"] for entry in answer.json().get("entry", []) if entry["search"]["mode"] == "match"]


def ids(answer: httpx.Response) -> list[str]:
    return [one["id"] for one in matches(answer)]


def walk(client: httpx.Client, url: str | None, relation: str = "next") -> Iterator[httpx.Response]:
    while url:
        answer = client.get(url)
        assert answer.status_code == 200, answer.text
        yield answer
        url = links(answer).get(relation)


@contextmanager
def writers(ward: Ward, doomed: list[str], created: list[str]) -> Iterator[None]:
    """Eight at once: they create, change (so that places in the order change too) and delete the doomed."""
    over = threading.Event()
    faults: list[BaseException] = []
    kept = [identity for identity in ward.sent if identity not in doomed]

    def write(seed: int) -> None:
        draw = random.Random(seed)  # noqa: S311 - a draw that can be repeated
        mine = doomed[seed::8]
        try:
            while not over.is_set():
                chance = draw.random()
                if chance < 0.4:
                    identity = str(uuid.UUID(int=draw.getrandbits(128)))
                    created.append(identity)
                    ward.put(identity, tree(1, draw.choice(FAMILIES), "1950"), pause_s=draw.random() / 100)
                elif chance < 0.9 or not mine:
                    born = draw.choice([None, f"20{draw.randrange(10, 25)}"])
                    changed = tree(draw.randrange(10**6), draw.choice(FAMILIES), born)
                    ward.put(draw.choice(kept), changed, pause_s=draw.random() / 100)
                else:
                    ward.drop(mine.pop())
        except Exception as error:  # noqa: BLE001 - the test tells of it
            faults.append(error)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not faults


def _place(order: str, resource: dict[str, Any]) -> Any:
    """Where a resource stands in an order, by R4's words alone: what is not said comes last."""
    if order == "birthdate":
        return (resource.get("birthDate") is None, resource.get("birthDate", ""))
    if order == "family":
        family = resource.get("name", [{}])[0].get("family")
        folded = (family or "").lower().replace("é", "e").replace("ç", "c").replace("'", " ")
        return (family is None, folded)
    if order == "-_lastUpdated":
        return [-ord(letter) for letter in resource["meta"]["lastUpdated"]]
    return resource["id"]


@pytest.mark.parametrize("order", ["", "-_lastUpdated", "family", "birthdate"])
def test_a_reader_misses_nothing_and_sees_nothing_twice_while_eight_write(
    ward: Ward, hospital: Hospital, order: str
) -> None:
    ward.fill(90)
    doomed, created = list(ward.sent)[:16], []
    seen: list[dict[str, Any]] = []
    with hospital.client() as ehr:
        first = ehr.get("Patient", params={"_count": "7"} | ({"_sort": order} if order else {}))
        seen += matches(first)
        with writers(ward, list(doomed), created):
            for page in walk(ehr, links(first)["next"]):
                seen += matches(page)
                assert page.json()["total"] == 90
    names = [one["id"] for one in seen]
    assert len(names) == len(set(names)), "shown twice"
    assert set(ward.sent) - set(doomed) <= set(names), "a gap"
    assert set(names) <= set(ward.sent), "what was not there at the first page"
    assert created
    for one in seen:
        said = {name: value for name, value in one.items() if name not in {"id", "meta"}}
        assert said == ward.sent[one["id"]], "as it was at the first page"
        assert one["meta"]["versionId"] == "1"
    places = [_place(order, one) for one in seen]
    assert places == sorted(places)


def test_pages_go_back_to_the_first_and_from_the_last(ward: Ward, hospital: Hospital) -> None:
    ward.fill(23)
    with hospital.client() as ehr:
        for sort in ("", "&_sort=-birthdate,family", "&_sort=-_lastUpdated"):
            pages = list(walk(ehr, f"Patient?_count=5{sort}"))
            forwards = [ids(page) for page in pages]
            assert [len(one) for one in forwards] == [5, 5, 5, 5, 3]
            assert {"previous"} & set(links(pages[0])) == set()
            back = list(walk(ehr, links(pages[-1])["previous"], "previous"))
            assert [ids(page) for page in back] == forwards[-2::-1]
            # And forwards again from a page that was reached backwards.
            assert ids(ehr.get(links(back[-1])["next"])) == forwards[1]
            for page in pages:
                last = ehr.get(links(page)["last"])
                assert ids(last) == forwards[-1]
                assert "next" not in links(last)
            from_the_end = [ids(page) for page in walk(ehr, links(last)["previous"], "previous")]
            assert from_the_end == forwards[-2::-1]
            assert ids(ehr.get(links(pages[2])["first"])) == forwards[0]
            assert ids(ehr.get(links(pages[2])["self"])) == forwards[2]


def test_the_last_page_is_the_one_that_following_the_links_ends_with_or_is_not_named(
    ward: Ward, hospital: Hospital
) -> None:
    ward.fill(12)
    with hospital.client() as ehr:
        for count, sizes in ((5, [5, 5, 2]), (6, [6, 6]), (11, [11, 1]), (1, [1] * 12)):
            for total in ("", "&_total=accurate", "&_total=estimate"):
                pages = list(walk(ehr, f"Patient?_count={count}{total}"))
                assert [len(ids(page)) for page in pages] == sizes
                assert ids(ehr.get(links(pages[0])["last"])) == ids(pages[-1])
        whole = ehr.get("Patient?_count=12")
        assert set(links(whole)) == {"self"}
        # Who wants no count is told of no last page: nobody knows where it begins.
        unknown = list(walk(ehr, "Patient?_count=5&_total=none"))
        assert [len(ids(page)) for page in unknown] == [5, 5, 2]
        assert all("last" not in links(page) for page in unknown)


def test_one_row_changes_places_and_is_still_shown_where_it_was(ward: Ward, hospital: Hospital) -> None:
    for number, family in enumerate("ABCDEF"):
        ward.put(f"p{number}", tree(number, family))
    with hospital.client() as ehr:
        first = ehr.get("Patient?_sort=family&_count=2")
        assert ids(first) == ["p0", "p1"]
        ward.put("p0", tree(0, "Z"))  # already shown; its new place is ahead
        ward.put("p5", tree(5, "A"))  # not shown yet; its new place is behind
        ward.put("p9", tree(9, "E"))  # new
        ward.drop("p3")
        later = [ids(page) for page in walk(ehr, links(first)["next"])]
        assert later == [["p2", "p4"], ["p5"]]
        again = [one for page in walk(ehr, "Patient?_sort=family&_count=2") for one in ids(page)]
        assert again in (["p5", "p1", "p2", "p4", "p9", "p0"], ["p5", "p1", "p2", "p9", "p4", "p0"])


def test_what_is_open_at_the_first_page_is_on_no_page_and_what_is_beside_it_is_on_one(
    ward: Ward, hospital: Hospital
) -> None:
    for number in range(4):
        ward.put(f"p{number}", tree(number))
    with ward.store.session() as late, hospital.client() as ehr:
        keeping.keep(late, "Patient", "p1", tree(1, "TARD"), ward.owner)
        keeping.keep(late, "Patient", "p9", tree(9, "TARD"), ward.owner)
        late.execute(text("SELECT pg_current_xact_id()"))
        # Younger than the open transaction, and there at the first page: second versions and first ones.
        ward.put("p2", tree(2, "TOT"))
        ward.put("p8", tree(8, "TOT"))
        for sort in ("", "&_sort=birthdate"):
            first = ehr.get(f"Patient?_count=1{sort}")
            if not sort:
                kept = links(first)["next"]
            later = [one for page in walk(ehr, links(first)["next"]) for one in ids(page)]
            assert [*ids(first), *later] == ["p0", "p1", "p2", "p3", "p8"]
        late.commit()
        pages = [matches(page)[0] for page in walk(ehr, kept)]
        assert [(one["id"], one["meta"]["versionId"], one["name"][0]["family"]) for one in pages] == [
            ("p1", "1", "ABEL"),
            ("p2", "2", "TOT"),
            ("p3", "1", "ABEL"),
            ("p8", "1", "TOT"),
        ]


def test_a_question_of_what_matches_is_put_to_the_rows_of_the_first_page(ward: Ward, hospital: Hospital) -> None:
    for number in range(5):
        ward.put(f"p{number}", tree(number, "MARTIN" if number != 2 else "DURAND"))
    with hospital.client() as ehr:
        first = ehr.get("Patient?family=martin&_count=1")
        ward.put("p4", tree(4, "DURAND"))  # matched then
        ward.put("p2", tree(2, "MARTIN"))  # matches now
        assert [one for page in walk(ehr, links(first)["next"]) for one in ids(page)] == ["p1", "p3", "p4"]


def test_what_left_the_callers_sight_is_shown_on_no_later_page(
    ward: Ward, world: World, hospital: Hospital, store: Store
) -> None:
    for number in range(4):
        ward.put(f"p{number}", tree(number))
    with hospital.client() as ehr:
        first = ehr.get("Patient?_count=1")
        elsewhere = Ward(store, Owner(partner_id=uuid.uuid4()))
        elsewhere.put("p2", tree(2, "AILLEURS"))
        assert [one for page in walk(ehr, links(first)["next"]) for one in ids(page)] == ["p1", "p3"]


def test_a_token_says_nothing_and_is_refused_by_name(
    ward: Ward, hospital: Hospital, admit: Callable[..., Hospital], world: World
) -> None:
    ward.fill(12)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    with hospital.client() as ehr:
        body = "identifier=urn:test|1,urn:test|2,urn:test|3,urn:test|4&_count=2"
        posted = ehr.post("Patient/_search", content=body, headers=form)
        for relation, url in links(posted).items():
            assert ("identifier" in url) == (relation == "self"), relation
        token = httpx.URL(links(posted)["next"]).params["_page"]
        follow = ehr.get(links(posted)["next"])
        assert len(ids(follow)) == 2
        assert ids(ehr.get(links(follow)["first"])) == ids(posted)

        def refused(query: str, status: int = 400) -> str:
            answer = ehr.get(query)
            assert answer.status_code == status, answer.text
            issue = answer.json()["issue"][0]
            return str(issue["details"]["coding"][0]["code"])

        flipped = token[:-3] + ("A" if token[-3] != "A" else "B") + token[-2:]
        for bad in (flipped, token[:-4], token[4:], "é", "x", "A" * 5000, "🜁", token + "AAAA"):
            assert refused(f"Patient?_page={bad}") == "page-alteree", bad
        assert refused(f"Condition?_page={token}") == "page-d-une-autre-recherche"
        assert refused(f"Patient?_page={token}&family=x") == "page-d-une-autre-recherche"
        assert refused(f"Patient/_history?_page={token}") == "page-d-une-autre-recherche"
        assert ids(ehr.get("Patient", params={"_page": token, "_format": "json"})) == ids(follow)
        key = hospital.served.smart.page_key
        past = int(time.time()) - 15 * 60 - 1
        old = Pages(key, Limits()).seal(Mark(path="Patient", pairs=(), snapshot="1:1:", made=past))
        assert refused(f"Patient?_page={old}", 410) == "page-perimee"
        assert "RCP_LIMIT_SEARCH_MINUTES" in ehr.get(f"Patient?_page={old}").text
        foreign = Pages(b"\0" * 32, Limits()).seal(Mark(path="Patient", pairs=(), snapshot="1:1:"))
        assert refused(f"Patient?_page={foreign}") == "page-alteree"


def test_totals_are_given_when_they_are_cheap_or_asked_for(ward: Ward, hospital: Hospital) -> None:
    with ward.store.session() as session:
        for number in range(1010):
            keeping.keep(
                session, "Patient", f"p{number:05d}", tree(number, "ABEL" if number < 1005 else "ZOLA"), ward.owner
            )
        session.commit()
    with hospital.client() as ehr:
        assert ehr.get("Patient?family=zola").json()["total"] == 5
        assert ehr.get("Patient?family=zola&_count=2").json()["total"] == 5
        assert "total" not in ehr.get("Patient?_count=2").json()
        assert "total" not in ehr.get("Patient?family=zola&_total=none").json()
        assert ehr.get("Patient?_count=2&_total=accurate").json()["total"] == 1010
        assert ehr.get("Patient?_count=2&_total=estimate").json()["total"] > 1000
        assert ehr.get("Patient?family=zola&_total=estimate").json()["total"] == 5
        for counted in ("Patient?_summary=count", "Patient?_count=0"):
            bundle = ehr.get(counted).json()
            assert (bundle["total"], "entry" in bundle) == (1010, False)
            assert [link["relation"] for link in bundle["link"]] == ["self"]
        assert len(ids(ehr.get("Patient?_count=100000"))) == 500
        assert json.loads(ehr.get("Patient?_count=1&_pretty=true").content)["link"][0]["url"].endswith("_pretty=true")
        head = ehr.head("Patient?family=zola")
        assert (head.status_code, head.content) == (200, b"")
