"""Creates that wait at the same time over real HTTP: one transaction, and for each what it would have got alone."""

from __future__ import annotations

import gc
import json
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy import select, text

from gateway.fhir.gathering import _Waiting
from gateway.model.audit import AuditLine
from gateway.model.person import PatientRecord, PersonLink
from gateway.rcp.step import hold
from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import Hospital, Served, Shared
from tests.world import DOMAIN

MANY = 12


def until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def gathered() -> int:
    """Creates that wait for an answer of this process's server, or are being written."""
    return sum(type(one) is _Waiting and not one.answer.done() for one in gc.get_objects())


@dataclass
class Company:
    """Creates of one hospital that wait behind one whose key is held."""

    served: Served
    hospital: Hospital
    blocker: str
    pool: ThreadPoolExecutor
    sent: list[tuple[str, Future[httpx.Response]]] = field(default_factory=list)

    def waiting_for_locks(self) -> list[int]:
        with self.served.store.engine.connect() as connection:
            found = connection.execute(text("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))
            return list(found.scalars())

    @contextmanager
    def held(self, ipp: str) -> Iterator[None]:
        """Hold the key of a patient: whoever creates him waits."""
        with self.served.store.session() as session:
            hold(session, f"ipp|{self.hospital.partner.id}|{DOMAIN}|{ipp}")
            yield

    def post(self, client: httpx.Client, tree: dict[str, Any]) -> None:
        name = uuid.uuid4().hex
        headers = {"X-Request-Id": name, "Prefer": "return=representation"}
        self.sent.append((name, self.pool.submit(client.post, "Patient", json=tree, headers=headers)))

    def together(self, client: httpx.Client, trees: list[dict[str, Any]]) -> list[httpx.Response]:
        """Answers to creates that all came while the first one was held up."""
        with self.held(self.blocker):
            self.post(client, samples.patient(self.blocker, ins=None))
            until(lambda: len(self.waiting_for_locks()) == 1, "the first does not wait")
            for tree in trees:
                self.post(client, tree)
            until(lambda: gathered() == 1 + len(trees), "they did not come")
        first, *others = [answer.result(60) for _, answer in self.sent]
        assert first.status_code == 201, first.text
        return others

    def names(self) -> list[str]:
        """Identifiers of the requests behind the first."""
        return [name for name, _ in self.sent[1:]]

    def transactions(self, answers: list[httpx.Response]) -> set[str]:
        """The transactions that wrote what was answered."""
        ids = [answer.json()["id"] for answer in answers]
        with self.served.store.engine.connect() as connection:
            found = connection.execute(
                text("SELECT xmin::text FROM fhir_patient WHERE id = ANY(:ids)").bindparams(ids=ids)
            ).scalars()
            return set(found)

    def lines(self, name: str) -> list[dict[str, Any]]:
        """What the trail says of a request."""
        with self.served.store.session() as session:
            said = [json.loads(line) for line in session.scalars(select(AuditLine.payload).order_by(AuditLine.seq))]
        return [one for one in said if one["request_id"] == name]


@pytest.fixture
def company(shared: Shared) -> Iterator[Company]:
    with ThreadPoolExecutor(2 * MANY) as pool:
        yield Company(shared.served, shared.hospital, f"z{uuid.uuid4().hex[:10]}", pool)


@pytest.fixture
def numbers() -> list[str]:
    key = uuid.uuid4().hex[:10]
    return [f"{key}{number}" for number in range(MANY)]


def test_creates_that_wait_are_one_transaction_with_an_answer_and_a_line_each(
    ehr: httpx.Client, company: Company, numbers: list[str]
) -> None:
    answers = company.together(ehr, [samples.patient(ipp, ins=None, family=f"F{ipp}") for ipp in numbers])
    assert [answer.status_code for answer in answers] == [201] * MANY
    assert [answer.json()["name"][0]["family"] for answer in answers] == [f"F{ipp}" for ipp in numbers]
    assert [answer.headers["Location"] for answer in answers] == [
        f"{company.served.base}/Patient/{answer.json()['id']}/_history/1" for answer in answers
    ]
    assert len({answer.json()["id"] for answer in answers}) == MANY
    assert len(company.transactions(answers)) == 1
    for name, answer in zip(company.names(), answers, strict=True):
        [line] = company.lines(name)
        assert (line["event"], line["action"], line["object_id"]) == ("creation", "C", answer.json()["id"])
        assert line["persons"] == [answer.json()["id"]]
    for answer in answers:
        read = ehr.get(f"Patient/{answer.json()['id']}")
        assert (read.status_code, read.content) == (200, answer.content)


def test_what_one_is_refused_for_nobody_else_hears_of(ehr: httpx.Client, company: Company, numbers: list[str]) -> None:
    there = ehr.post("Patient", json=samples.patient(numbers[0], ins=None))
    assert there.status_code == 201, there.text
    trees = [samples.patient(ipp, ins=None) for ipp in numbers]
    trees[1] = samples.patient(numbers[1], status="PROV")  # an INS that travels without a qualified identity
    trees[2]["identifier"][0]["system"] = "https://ailleurs.example/ns/ipp"  # not this hospital's domain
    alone = [ehr.post("Patient", json=tree, headers={"X-Request-Id": uuid.uuid4().hex}) for tree in trees[:3]]
    answers = company.together(ehr, trees)
    assert [answer.status_code for answer in answers] == [409, 422, 403] + [201] * (MANY - 3)
    for answer, expected, name in zip(answers, alone, company.names(), strict=False):
        assert answer.content == expected.content
        told, once = company.lines(name), company.lines(expected.request.headers["X-Request-Id"])
        assert [line["event"] for line in told] == [line["event"] for line in once]
    for name in company.names()[3:]:
        assert [line["event"] for line in company.lines(name)] == ["creation"]


def test_the_same_patient_twice_in_a_group_is_one_patient_and_one_conflict(
    ehr: httpx.Client, company: Company, numbers: list[str]
) -> None:
    answers = company.together(ehr, [samples.patient(ipp, ins=None) for ipp in [*numbers[:4], numbers[0]]])
    codes = [answer.status_code for answer in answers]
    assert codes[1:4] == [201] * 3
    assert sorted([codes[0], codes[4]]) == [201, 409]
    with company.served.store.session() as session:
        assert len(session.scalars(select(PatientRecord).where(PatientRecord.value == numbers[0])).all()) == 1


def test_records_of_one_qualified_ins_are_one_person_in_a_group_too(
    ehr: httpx.Client, company: Company, numbers: list[str]
) -> None:
    bare = f"2{uuid.uuid4().int % 100:02}03{uuid.uuid4().int % 10**8:08}"
    ins = f"{bare}{97 - int(bare) % 97:02}"
    answers = company.together(ehr, [samples.patient(ipp, ins=ins) for ipp in numbers[:3]])
    assert [answer.status_code for answer in answers] == [201] * 3, [answer.text for answer in answers]
    assert len(company.transactions(answers)) == 1
    with company.served.store.session() as session:
        ids = [uuid.UUID(answer.json()["id"]) for answer in answers]
        persons = session.scalars(select(PersonLink.person_id).where(PersonLink.record_id.in_(ids))).all()
    assert len(persons) == 3
    assert len(set(persons)) == 1


def test_a_group_whose_connection_is_lost_is_not_kept_and_nobody_is_told_that_it_is(
    ehr: httpx.Client, company: Company, numbers: list[str], shared: Shared
) -> None:
    trees = [samples.patient(ipp, ins=None) for ipp in numbers]
    with company.held(numbers[0]):
        with company.held(company.blocker):
            company.post(ehr, samples.patient(company.blocker, ins=None))
            until(lambda: len(company.waiting_for_locks()) == 1, "the first does not wait")
            [leader] = company.waiting_for_locks()
            for tree in trees:
                company.post(ehr, tree)
            until(lambda: gathered() == 1 + MANY, "they did not come")
        until(lambda: company.waiting_for_locks() not in ([], [leader]) or gathered() == MANY, "no group")
        until(lambda: len(company.waiting_for_locks()) == 1 and gathered() == MANY, "the group does not wait")
        [pid] = company.waiting_for_locks()
        with psycopg.connect(shared.database_url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (pid,))
        answers = [answer.result(60) for _, answer in company.sent[1:]]
    assert {answer.status_code for answer in answers} <= {201, 503}
    lost = [place for place, answer in enumerate(answers) if answer.status_code == 503]
    assert len(lost) == MANY
    assert all(answer.headers["Retry-After"] for answer in answers)
    with company.served.store.session() as session:
        assert session.scalars(select(PatientRecord).where(PatientRecord.value.in_(numbers))).all() == []
    again = [ehr.post("Patient", json=tree) for tree in trees]
    assert [answer.status_code for answer in again] == [201] * MANY


def test_nobody_is_kept_waiting_by_who_leads(ehr: httpx.Client, company: Company, numbers: list[str]) -> None:
    """While one create is held up, those of other callers and of other kinds are written."""
    with company.held(company.blocker):
        company.post(ehr, samples.patient(company.blocker, ins=None))
        until(lambda: len(company.waiting_for_locks()) == 1, "the first does not wait")
        other = company.hospital.client(scope="system/Patient.cruds")  # another token: other rights
        answer = other.post("Patient", json=samples.patient(numbers[0], ins=None), timeout=30)
        assert answer.status_code == 201, answer.text
        other.close()
        assert ehr.put(f"Patient/{answer.json()['id']}", json=answer.json() | {"active": True}).status_code == 200
    assert company.sent[0][1].result(60).status_code == 201
