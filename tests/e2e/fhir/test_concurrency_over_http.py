"""Thirty-two writers at once over real HTTP: no duplicate, no lost update, no clash that a client hears of."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from gateway.model.dossier import Dossier
from gateway.model.person import PatientRecord, PersonLink
from gateway.model.representation import TABLES
from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import Shared
from tests.e2e.fhir.test_bundles_over_http import bundle, encoded, entry, measure, where
from tests.world import DOMAIN

WRITERS = 32
NOTE = "https://chu-x.example/ns/mesure"
START = "2026-03-19T14:00:00+01:00"
JSON_PATCH = {"Content-Type": "application/json-patch+json"}

Ask = Callable[[httpx.Client, int], httpx.Response]


@pytest.fixture(scope="module")
def clients(shared: Shared) -> Iterator[list[httpx.Client]]:
    """One connection a writer, one token for all."""
    first = shared.hospital.client()
    made = [
        first,
        *(httpx.Client(base_url=first.base_url, headers=first.headers, timeout=120) for _ in range(WRITERS - 1)),
    ]
    yield made
    for client in made:
        client.close()


@pytest.fixture
def key() -> str:
    return uuid.uuid4().hex[:12]


@pytest.fixture
def someone(clients: list[httpx.Client], key: str) -> str:
    made = clients[0].post("Patient", json=samples.patient(key, ins=None))
    assert made.status_code == 201, made.text
    return f"Patient/{made.json()['id']}"


def at_once(clients: list[httpx.Client], ask: Ask) -> list[httpx.Response]:
    """Every writer asks in the same moment; nobody hears of a fault of ours or of another writer's clash.

    A busy machine may let a writer wait too long for one of the connections to the database: nothing was done then, and
    he asks again when he is told to.
    """
    gate = threading.Barrier(len(clients))

    def one(place: int) -> httpx.Response:
        gate.wait()
        answer = ask(clients[place], place)
        for _ in range(5):
            if (
                answer.status_code != 503
                or answer.json()["issue"][0]["details"]["coding"][0]["code"] != "database-busy"
            ):
                break
            time.sleep(float(answer.headers["Retry-After"]))
            answer = ask(clients[place], place)
        return answer

    with ThreadPoolExecutor(len(clients)) as pool:
        answers = list(pool.map(one, range(len(clients))))
    assert [answer.text for answer in answers if answer.status_code >= 500] == []
    return answers


def statuses(answers: list[httpx.Response]) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


def rows(shared: Shared, kind: str, ids: set[str]) -> list[tuple[int, bool]]:
    """Versions of resources as stored, in order."""
    table = TABLES[kind]
    with shared.served.store.session() as session:
        found = session.execute(
            select(table.c.version, table.c.current).where(table.c.id.in_(ids)).order_by(table.c.version)
        )
        return [(row.version, row.current) for row in found]


def test_one_resource_of_thirty_two_conditional_creates(
    shared: Shared, clients: list[httpx.Client], someone: str, key: str
) -> None:
    texts = [
        f"identifier={NOTE}|{key}",
        f"?identifier={NOTE}%7C{key}",
        f"identifier={key}",
        f"status=final&identifier={key}",
    ]

    def ask(client: httpx.Client, place: int) -> httpx.Response:
        condition = {"If-None-Exist": texts[place % len(texts)]}
        return client.post("Observation", json=measure(someone, key), headers=condition)

    answers = at_once(clients, ask)
    assert statuses(answers) == {201: 1, 200: WRITERS - 1}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert rows(shared, "Observation", {answers[0].json()["id"]}) == [(1, True)]


def test_one_patient_of_thirty_two_conditional_updates(shared: Shared, clients: list[httpx.Client], key: str) -> None:
    """Each says something else: one creates, each of the others makes the next version."""

    def ask(client: httpx.Client, place: int) -> httpx.Response:
        tree = samples.patient(key + "p", ins=None, family=f"NOM{place}")
        return client.put(f"Patient?identifier={DOMAIN}|{key}p", json=tree)

    answers = at_once(clients, ask)
    assert statuses(answers) == {201: 1, 200: WRITERS - 1}
    ids = {answer.json()["id"] for answer in answers}
    assert len(ids) == 1
    versions = sorted(int(answer.json()["meta"]["versionId"]) for answer in answers)
    assert versions == list(range(1, WRITERS + 1))
    assert rows(shared, "Patient", ids) == [(n, n == WRITERS) for n in range(1, WRITERS + 1)]
    with shared.served.store.session() as session:
        assert session.scalar(select(func.count()).where(PatientRecord.value == key + "p")) == 1


@pytest.mark.parametrize("kind", ["Observation", "Patient"])
def test_of_one_version_one_update_wins_and_none_is_lost(
    shared: Shared, clients: list[httpx.Client], someone: str, key: str, kind: str
) -> None:
    """A counter that each raises by one from what it read ends at the number of those who were told 200."""
    counter = "https://chu-x.example/fhir/compteur"
    tree = measure(someone, key) if kind == "Observation" else samples.patient(key + "c", ins=None)
    made = clients[0].post(kind, json=tree | {"extension": [{"url": counter, "valueInteger": 0}]}).json()
    at = f"{kind}/{made['id']}"
    won: Counter[int] = Counter()
    lock = threading.Lock()

    def ask(client: httpx.Client, place: int) -> httpx.Response:
        answer = client.get(at)
        for turn in range(3):
            read = client.get(at)
            held = read.json()
            held["extension"][0]["valueInteger"] += 1
            if (place + turn) % 2:
                answer = client.put(at, json=held, headers={"If-Match": read.headers["etag"]})
            else:
                change = [
                    {
                        "op": "replace",
                        "path": "/extension/0/valueInteger",
                        "value": held["extension"][0]["valueInteger"],
                    }
                ]
                answer = client.patch(at, json=change, headers=JSON_PATCH | {"If-Match": read.headers["etag"]})
            with lock:
                won[answer.status_code] += 1
        return answer

    at_once(clients, ask)
    assert set(won) <= {200, 412}
    last = clients[0].get(at).json()
    assert last["extension"][0]["valueInteger"] == won[200]
    assert int(last["meta"]["versionId"]) == won[200] + 1
    assert won[200] >= 3, "in each turn somebody wins"


def test_unconditional_updates_queue_up(shared: Shared, clients: list[httpx.Client], someone: str, key: str) -> None:
    made = clients[0].post("Observation", json=measure(someone, key)).json()

    def ask(client: httpx.Client, place: int) -> httpx.Response:
        return client.put(f"Observation/{made['id']}", json=made | {"valueInteger": 100 + place})

    answers = at_once(clients, ask)
    assert statuses(answers) == {200: WRITERS}
    assert rows(shared, "Observation", {made["id"]}) == [(n, n == WRITERS + 1) for n in range(1, WRITERS + 2)]


@pytest.mark.parametrize("kind", ["Observation", "Patient"])
def test_an_id_that_thirty_two_name_is_made_once(
    shared: Shared, clients: list[httpx.Client], someone: str, key: str, kind: str
) -> None:
    chosen = str(uuid.uuid4())
    once = {"If-None-Match": "*"}

    def ask(client: httpx.Client, place: int) -> httpx.Response:
        tree = measure(someone, key) if kind == "Observation" else samples.patient(key + "u", ins=None)
        return client.put(f"{kind}/{chosen}", json=tree | {"id": chosen}, headers=once if place % 2 else {})

    answers = at_once(clients, ask)
    told = statuses(answers)
    assert told[201] == 1
    assert set(told) <= {200, 201, 412}
    assert rows(shared, kind, {chosen}) == [(1, True)]


def test_a_task_moves_once_a_version(shared: Shared, clients: list[httpx.Client], key: str) -> None:
    inscribed = clients[0].post("", json=_inscription(shared, key))
    assert inscribed.status_code == 200, inscribed.text
    at = where(inscribed, 0)
    read = clients[0].get(at)

    def ask(client: httpx.Client, place: int) -> httpx.Response:
        note = [{"op": "add", "path": "/note", "value": [{"text": f"Note {place}"}]}]
        return client.patch(at, json=note, headers=JSON_PATCH | {"If-Match": read.headers["etag"]})

    answers = at_once(clients, ask)
    assert statuses(answers) == {200: 1, 412: WRITERS - 1}


def _inscription(shared: Shared, key: str, number: str | None = None) -> dict[str, Any]:
    world = shared.world
    return samples.transaction(
        rcp=world.rcp.national_number,
        start=START,
        requester=world.requester.idnps,
        treating=world.treating.rpps,
        number=number,
        ipp=key,
        tumour=key,
        ins=None,
        family=f"I{key}",
    )


def test_the_same_inscription_from_thirty_two_is_one_dossier(
    shared: Shared, clients: list[httpx.Client], key: str
) -> None:
    sent = _inscription(shared, key, number=f"urn:uuid:{uuid.uuid4()}")
    answers = at_once(clients, lambda client, _: client.post("", json=sent))
    assert statuses(answers) == {200: WRITERS}
    assert len({where(answer, index) for answer in answers for index in range(5)}) == 5
    created = Counter(one["response"]["status"] for answer in answers for one in answer.json()["entry"])
    assert created == {"201 Created": 5, "200 OK": 5 * (WRITERS - 1)}
    with shared.served.store.session() as session:
        assert (
            session.scalar(
                select(func.count()).select_from(Dossier).join(Dossier.record).where(PatientRecord.value == key)
            )
            == 1
        )


def test_transactions_that_cross_queue_up(shared: Shared, clients: list[httpx.Client], someone: str, key: str) -> None:
    """Each names the same things in another order: by condition, by id, by reference, and patients of one INS."""
    names = [f"{key}-{n}" for n in range(6)]
    held = [clients[0].post("Observation", json=measure(someone, f"{key}-h{n}")).json() for n in range(6)]
    ins = f"1{int(key, 16) % 10**12:012d}"
    ins += f"{97 - int(ins) % 97:02d}"

    def ask(client: httpx.Client, place: int) -> httpx.Response:
        turned = (names[place % 6 :] + names[: place % 6])[:: -1 if place % 2 else 1]
        kept = (held[place % 6 :] + held[: place % 6])[:: 1 if place % 2 else -1]
        entries: list[dict[str, Any]] = []
        for name in turned:
            subject = f"Patient?identifier={DOMAIN}|{turned[0]}"
            entries += [
                entry("POST", "Observation", measure(subject, name), ifNoneExist=f"identifier={NOTE}|{name}"),
                entry(
                    "PUT",
                    f"Patient?identifier={DOMAIN}|{name}",
                    samples.patient(name, ins=ins, family="CROISE"),
                ),
            ]
        for one in kept:
            raised = [{"op": "add", "path": "/note", "value": [{"text": str(place)}]}]
            entries.append(entry("PATCH", f"Observation/{one['id']}", encoded(raised)))
        return client.post("", json=bundle("transaction", *entries))

    answers = at_once(clients, ask)
    assert statuses(answers) == {200: WRITERS}
    created = Counter(
        one["fullUrl"]
        for answer in answers
        for one in answer.json()["entry"]
        if one["response"]["status"] == "201 Created"
    )
    assert len(created) == 12
    assert set(created.values()) == {1}, "each thing is made by one transaction"
    for one in held:
        assert rows(shared, "Observation", {one["id"]}) == [(n, n == WRITERS + 1) for n in range(1, WRITERS + 2)]
    with shared.served.store.session() as session:
        records = select(PatientRecord.id).where(PatientRecord.value.in_(names))
        assert session.scalar(select(func.count()).select_from(records.subquery())) == 6
        persons = select(PersonLink.person_id).where(PersonLink.record_id.in_(records), PersonLink.ended_at.is_(None))
        assert len(set(session.scalars(persons))) == 1, "one INS, the same traits: one person"


def test_what_is_deleted_while_others_begin_to_use_it(
    shared: Shared, clients: list[httpx.Client], someone: str, key: str
) -> None:
    """One deletes, the others refer: whoever comes second is refused, and nothing refers to what is gone."""
    targets = [clients[0].post("Condition", json=samples.condition(someone, f"{key}-{n}")).json() for n in range(8)]

    def ask(client: httpx.Client, place: int) -> httpx.Response:
        target = f"Condition/{targets[place % 8]['id']}"
        if place < 8:
            return client.delete(target)
        return client.post("Observation", json=measure(someone, f"{key}-{place}", focus=[{"reference": target}]))

    answers = at_once(clients, ask)
    for n, target in enumerate(targets):
        deleted = answers[n].status_code
        used = [answers[place].status_code for place in range(8, WRITERS) if place % 8 == n]
        assert (deleted, set(used)) in [(204, {422}), (409, {201}), (409, {201, 422})], (deleted, used)
        found = clients[0].get(f"Condition/{target['id']}")
        assert found.status_code == (410 if deleted == 204 else 200)
        if deleted == 409:
            assert set(used) == {201}


def test_a_dossier_begins_to_use_a_patient_who_is_deleted(
    shared: Shared, clients: list[httpx.Client], key: str
) -> None:
    """The inscription or the deletion: one of the two, and no dossier of nobody."""
    patients = [
        clients[0].post("Patient", json=samples.patient(f"{key}{n}", ins=None)).json() for n in range(WRITERS // 2)
    ]
    tumours = [
        clients[0].post("Condition", json=samples.condition(f"Patient/{one['id']}", f"{key}{n}")).json()
        for n, one in enumerate(patients)
    ]
    world = shared.world

    def ask(client: httpx.Client, place: int) -> httpx.Response:
        n = place // 2
        if place % 2:
            return client.delete(f"Condition/{tumours[n]['id']}")
        asked = samples.request(
            f"Patient/{patients[n]['id']}",
            rcp=world.rcp.national_number,
            start=START,
            requester=world.requester.idnps,
            tumour=f"Condition/{tumours[n]['id']}",
            number=f"urn:uuid:{uuid.uuid4()}",
        )
        return client.post("ServiceRequest", json=asked)

    answers = at_once(clients, ask)
    pairs = {(answers[n].status_code, answers[n + 1].status_code) for n in range(0, WRITERS, 2)}
    assert pairs <= {(201, 409), (422, 204)}, pairs


def test_creating_and_deleting_by_one_condition_leaves_one_or_none(
    shared: Shared, clients: list[httpx.Client], someone: str, key: str
) -> None:
    def ask(client: httpx.Client, place: int) -> httpx.Response:
        by_key = f"Observation?identifier={NOTE}|{key}"
        if place % 2:
            return client.delete(by_key)
        return client.post("Observation", json=measure(someone, key), headers={"If-None-Exist": by_key})

    answers = at_once(clients, ask)
    assert set(statuses(answers)) <= {200, 201, 204}
    created = {answer.json()["id"] for answer in answers if answer.status_code == 201}
    left = clients[0].get(f"Observation?identifier={NOTE}|{key}").json().get("entry", [])
    assert len(left) <= 1
    gone = [clients[0].get(f"Observation/{one}").status_code for one in created]
    assert sorted(gone) == sorted([200] * len(left) + [410] * (len(created) - len(left)))
