"""The agenda of a session over real HTTP: what stands on it, in which order, for whom; nobody else writes it."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from gateway.fhir.represent import Representer
from gateway.model.dossier import Dossier
from gateway.model.meeting import RcpSession
from gateway.model.representation import TABLES
from gateway.model.store import Store
from gateway.rcp import access, dossier_states, sessions
from gateway.rcp.step import Step, Steps
from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import ALL_SCOPES, Hospital
from tests.world import World

STATE = "https://rcp.example.org/fhir/CodeSystem/rcp-etat-dossier"
AGENDA = "https://rcp.example.org/fhir/CodeSystem/rcp-liste|ordre-du-jour"
FIRST, SECOND = "2026-03-19T14:00:00+01:00", "2026-03-26T14:00:00+01:00"


@pytest.fixture
def ehr(world: World, admit: Callable[..., Hospital]) -> Iterator[httpx.Client]:
    with admit(world.partner, scopes=ALL_SCOPES).client() as client:
        yield client


def inscribe(ehr: httpx.Client, world: World, number: int, start: str = FIRST, *, completed: bool = True) -> str:
    bundle = samples.transaction(
        rcp=world.rcp.national_number,
        start=start,
        requester=world.requester.idnps,
        treating=None,
        ipp=f"{number:06d}",
        tumour=f"T-{number}",
    )
    for entry in bundle["entry"]:
        tree = entry["resource"]
        if tree["resourceType"] == "Patient":  # each another person: none has the sample's INS
            tree["identifier"] = [one for one in tree["identifier"] if "urn:oid:1.2.250.1.213" not in one["system"]]
            tree["name"][0]["family"] = f"PAT-{number}"
        if tree["resourceType"] == "QuestionnaireResponse" and not completed:
            tree["status"] = "in-progress"
    pushed = ehr.post("", json=bundle)
    assert pushed.status_code == 200, pushed.text
    where = [entry["response"]["location"] for entry in pushed.json()["entry"]]
    return next(one.split("/")[1] for one in where if one.startswith("ServiceRequest/"))


def lines(agenda: dict[str, Any]) -> list[tuple[str, str]]:
    """Inscriptions and flags, in order."""
    return [
        (entry["item"]["reference"].removeprefix("ServiceRequest/"), entry["flag"]["coding"][0]["code"])
        for entry in agenda.get("entry", [])
    ]


def agenda_of(home: httpx.Client, world: World, key: uuid.UUID | None = None) -> dict[str, Any]:
    answer = home.get(f"List/{key or world.meeting.id}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def session_row(world: World, key: str, start: str) -> dict[str, Any]:
    return {
        "resourceType": "Appointment",
        "status": "booked",
        "start": start,
        "end": start.replace("T14", "T16"),
        "supportingInformation": [{"reference": "DocumentReference/guide", "display": "Mode d’emploi"}],
        "participant": [
            {
                "actor": {
                    "identifier": {"system": "urn:oid:1.2.250.1.161.1.20.3.1", "value": world.rcp.national_number},
                    "type": "HealthcareService",
                },
                "status": "accepted",
            }
        ],
        "identifier": [{"system": "https://3c.example/ns/seance", "value": key}],
    }


def test_the_agenda_follows_what_becomes_of_its_inscriptions(
    world: World, home: httpx.Client, ehr: httpx.Client
) -> None:
    one = inscribe(ehr, world, 1)
    two = inscribe(ehr, world, 2, completed=False)
    three = inscribe(ehr, world, 3)
    agenda = agenda_of(home, world)
    assert lines(agenda) == [(one, "prefiche"), (two, "inscrit"), (three, "prefiche")]
    day = f"{world.meeting.on:%d/%m/%Y}"
    assert agenda["title"] == f"Ordre du jour de la RCP {world.rcp.title} du {day}"
    assert (agenda["status"], agenda["mode"]) == ("current", "working")
    assert agenda["code"]["coding"][0]["code"] == "ordre-du-jour"
    assert agenda["orderedBy"]["coding"][0]["code"] == "user"
    assert agenda["source"]["reference"] == f"Practitioner/{world.coordinator.id}"
    assert agenda["identifier"] == [
        {"system": "https://rcp.example.org/ns/ordre-du-jour", "value": world.meeting.identifier}
    ]
    number = home.get(f"ServiceRequest/{one}").json()["identifier"][0]["value"]
    assert agenda["entry"][0]["item"]["identifier"] == {"system": "urn:ietf:rfc:3986", "value": number}
    # No name, no patient: what each inscription says stands in it.
    assert "PAT-" not in str(agenda)
    assert "Patient/" not in str(agenda)
    # Withdrawn by its requester.
    task = ehr.get(f"Task/{two}")
    gone = ehr.put(
        f"Task/{two}", json=task.json() | {"status": "cancelled"}, headers={"If-Match": task.headers["etag"]}
    )
    assert gone.status_code == 200, gone.text
    assert lines(agenda_of(home, world)) == [(one, "prefiche"), (three, "prefiche")]
    # Moved to another session: off this agenda, on the other.
    made = home.post("Appointment", json=session_row(world, "S-2", SECOND))
    assert made.status_code == 201, made.text
    other = uuid.UUID(made.json()["id"])
    assert lines(agenda_of(home, world, other)) == []
    task = home.get(f"Task/{one}")
    moved = task.json()
    moved["input"][0]["valueReference"] = {"reference": f"Appointment/{other}"}
    answer = home.put(f"Task/{one}", json=moved, headers={"If-Match": task.headers["etag"]})
    assert answer.status_code == 200, answer.text
    assert lines(agenda_of(home, world)) == [(three, "prefiche")]
    assert lines(agenda_of(home, world, other)) == [(one, "prefiche")]
    # Refused by the establishment of the RCP.
    task = home.get(f"Task/{three}")
    refused = task.json() | {"businessStatus": {"coding": [{"system": STATE, "code": "refuse"}]}}
    assert home.put(f"Task/{three}", json=refused, headers={"If-Match": task.headers["etag"]}).status_code == 200
    assert "entry" not in agenda_of(home, world)
    # The other session is cancelled: its agenda counts no more, and still says who waits.
    known = home.get(f"Appointment/{other}")
    cancelled = home.put(
        f"Appointment/{other}", json=known.json() | {"status": "cancelled"}, headers={"If-Match": known.headers["etag"]}
    )
    assert cancelled.status_code == 200, cancelled.text
    retired = agenda_of(home, world, other)
    assert (retired["status"], lines(retired)) == ("retired", [(one, "prefiche")])


def test_each_change_is_one_version_and_what_changes_no_line_is_none(
    world: World, home: httpx.Client, ehr: httpx.Client, store: Store
) -> None:
    one = inscribe(ehr, world, 1)
    assert agenda_of(home, world)["meta"]["versionId"] == "1"
    inscribe(ehr, world, 2)
    assert agenda_of(home, world)["meta"]["versionId"] == "2"
    asked = ehr.get(f"ServiceRequest/{one}").json()
    asked["priority"] = "urgent"
    assert ehr.put(f"ServiceRequest/{one}", json=asked).status_code == 200
    assert agenda_of(home, world)["meta"]["versionId"] == "2"
    past = home.get(f"List/{world.meeting.id}/_history/1")
    assert [key for key, _ in lines(past.json())] == [one]
    with store.session() as session:
        roots = [*session.scalars(select(Dossier)).unique(), *session.scalars(select(RcpSession)).unique()]
        kept = Representer().keep(session, roots, {})
        assert [key for key, found in kept.items() if key[0] == "List"] == [("List", str(world.meeting.id))]
        assert not kept["List", str(world.meeting.id)].changed


def test_the_agenda_is_found_and_leads_to_its_inscriptions_and_back(
    world: World, home: httpx.Client, ehr: httpx.Client
) -> None:
    one, two = inscribe(ehr, world, 1), inscribe(ehr, world, 2)
    key = f"List/{world.meeting.id}"

    def found(question: str) -> list[str]:
        answer = home.get(question)
        assert answer.status_code == 200, answer.text
        return [f"{e['resource']['resourceType']}/{e['resource']['id']}" for e in answer.json().get("entry", [])]

    for question in (
        f"code={AGENDA}",
        "status=current",
        f"item=ServiceRequest/{two}",
        f"identifier=https://rcp.example.org/ns/ordre-du-jour|{world.meeting.identifier}",
        f"source=Practitioner/{world.coordinator.id}",
        "date=2026-03-09",  # the day of the domain's clock, on which both were inscribed
        "title:contains=ordre du jour",
        "item:ServiceRequest.subject:Patient.family=pat-2",
    ):
        assert found(f"List?{question}") == [key], question
    assert found("List?status=retired") == []
    assert found("List?date=2026-03-10") == []
    included = found("List?_include=List:item&_include:iterate=ServiceRequest:subject")
    assert included[0] == key
    assert set(included[1:3]) | set(included[3:]) >= {f"ServiceRequest/{one}", f"ServiceRequest/{two}"}
    assert sum(name.startswith("Patient/") for name in included) == 2
    assert found(f"ServiceRequest?_id={one}&_revinclude=List:item") == [f"ServiceRequest/{one}", key]
    assert set(found(f"ServiceRequest?_has:List:item:code={AGENDA}")) == {
        f"ServiceRequest/{one}",
        f"ServiceRequest/{two}",
    }
    session = f"Appointment/{world.meeting.id}"
    assert found(f"Appointment?_id={world.meeting.id}&_include=Appointment:supporting-info") == [session, key]
    assert found(f"{key.replace('/', '?_id=')}&_revinclude=Appointment:supporting-info") == [key, session]


def test_who_only_inscribes_sees_no_agenda(
    world: World, home: httpx.Client, ehr: httpx.Client, store: Store, seen: Callable[[access.Caller], list[str]]
) -> None:
    """It says who else is discussed."""
    inscribe(ehr, world, 1)
    assert ehr.get(f"List/{world.meeting.id}").status_code == 404
    assert ehr.get("List").json()["total"] == 0
    assert ehr.get(f"Appointment/{world.meeting.id}").json()["supportingInformation"] == [
        {
            "reference": f"List/{world.meeting.id}",
            "type": "List",
            "identifier": {
                "system": "https://rcp.example.org/ns/ordre-du-jour",
                "value": world.meeting.identifier,
            },
        }
    ]
    shown = ehr.get(f"Appointment?_id={world.meeting.id}&_include=Appointment:supporting-info").json()
    assert [entry["resource"]["resourceType"] for entry in shown["entry"]] == ["Appointment"]
    assert ehr.get(f"ServiceRequest?_has:List:item:code={AGENDA}").json()["total"] == 0
    assert home.get("List").json()["total"] == 1
    # People: who has a part in the RCP, and nobody else.
    assert seen(world.caller(world.coordinator)) == [str(world.meeting.id)]
    assert seen(world.caller(world.requester)) == []
    assert seen(world.caller(world.treating)) == []
    assert seen(world.caller(world.stranger)) == []


@pytest.fixture
def seen(store: Store) -> Callable[[access.Caller], list[str]]:
    table = TABLES["List"]

    def lists(caller: access.Caller) -> list[str]:
        with store.session() as session:
            return list(session.scalars(select(table.c.id).where(access.representations(caller, table))))

    return lists


def test_only_the_gateway_writes_an_agenda(world: World, home: httpx.Client, ehr: httpx.Client) -> None:
    one = inscribe(ehr, world, 1)
    agenda = agenda_of(home, world)
    key = f"List/{world.meeting.id}"
    etag = {"If-Match": f'W/"{agenda["meta"]["versionId"]}"'}
    answers = [
        home.put(key, json=agenda | {"title": "Autre"}, headers=etag),
        home.patch(
            key,
            json=[{"op": "remove", "path": "/entry/0"}],
            headers=etag | {"Content-Type": "application/json-patch+json"},
        ),
        home.delete(key),
        # A second one of the same inscriptions, under the gateway's own code.
        home.post("List", json={name: value for name, value in agenda.items() if name not in {"id", "meta"}}),
    ]
    for answer in answers:
        assert answer.status_code == 403, answer.text
        assert answer.json()["issue"][0]["details"]["coding"][0]["code"] == "proprietaire"
        assert "la passerelle de la RCP" in answer.json()["issue"][0]["details"]["text"]
    assert ehr.put(key, json=agenda, headers=etag).status_code == 405  # as to an id that nobody used
    assert lines(agenda_of(home, world)) == [(one, "prefiche")]
    # A list of its own of the same inscriptions is anybody's.
    mine = {"resourceType": "List", "status": "current", "mode": "working", "title": "À relire"}
    mine["entry"] = [{"item": {"reference": f"ServiceRequest/{one}"}}]
    assert ehr.post("List", json=mine).status_code == 201


def test_a_session_planned_by_a_software_keeps_its_words_beside_its_agenda(world: World, home: httpx.Client) -> None:
    sent = session_row(world, "S-9", SECOND)
    made = home.post("Appointment", json=sent).json()
    assert made["supportingInformation"][0] == sent["supportingInformation"][0]
    assert [one["reference"] for one in made["supportingInformation"][1:]] == [f"List/{made['id']}"]
    again = home.put(f"Appointment/{made['id']}", json=made, headers={"If-Match": 'W/"1"'})
    assert again.json() == made


def test_two_who_change_one_agenda_at_once_both_stand_on_it(
    world: World, home: httpx.Client, ehr: httpx.Client, fhir_steps: Steps, store: Store
) -> None:
    keys = [inscribe(ehr, world, number, completed=False) for number in range(1, 7)]
    before = int(agenda_of(home, world)["meta"]["versionId"])
    forms = {}
    for key in keys:
        [entry] = ehr.get(f"QuestionnaireResponse?based-on=ServiceRequest/{key}").json()["entry"]
        forms[key] = entry["resource"] | {"status": "completed"}
    barrier = threading.Barrier(len(keys) + 2)
    answers: list[int] = []

    def complete(key: str) -> None:
        barrier.wait()
        form = forms[key]
        match = {"If-Match": f'W/"{form["meta"]["versionId"]}"'}
        answers.append(ehr.put(f"QuestionnaireResponse/{form['id']}", json=form, headers=match).status_code)

    def add(number: int) -> None:
        barrier.wait()
        keys.append(inscribe(ehr, world, number))
        answers.append(200)

    threads = [threading.Thread(target=complete, args=(key,)) for key in list(keys)]
    threads += [threading.Thread(target=add, args=(number,)) for number in (7, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 8
    agenda = agenda_of(home, world)
    assert {key for key, _ in lines(agenda)} == set(keys)
    assert {flag for _, flag in lines(agenda)} == {"prefiche"}
    assert [key for key, _ in lines(agenda)][:6] == keys[:6]
    # One version a change, none lost and none twice.
    assert int(agenda["meta"]["versionId"]) == before + 8
    with store.session() as session:
        table = TABLES["List"]
        versions = session.scalars(select(table.c.version).where(table.c.id == str(world.meeting.id)))
        assert sorted(versions) == list(range(1, before + 9))


def test_what_was_discussed_stays_on_the_agenda_as_discussed(
    world: World, home: httpx.Client, ehr: httpx.Client, fhir_steps: Steps
) -> None:
    one, two = inscribe(ehr, world, 1), inscribe(ehr, world, 2)

    def hold(step: Step) -> None:
        sessions.open_session(step, world.meeting.id)
        for key, *states in ((one, "discute", "cr-brouillon"), (two, "non-discute")):
            [row] = step.lock(Dossier, uuid.UUID(key))
            for state in states:
                dossier_states.move(step, row, state)
        sessions.close_session(step, world.meeting.id)

    fhir_steps.run(world.caller(world.coordinator), hold)
    agenda = agenda_of(home, world)
    assert lines(agenda) == [(one, "discute"), (two, "non-discute")]
    assert agenda["status"] == "current"
