"""What a verb understands takes effect through it, whichever client writes: a session, a contribution, a move."""

from __future__ import annotations

import email
import email.policy
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from gateway.model.dossier import Contribution, Correspondent, Dossier
from gateway.model.meeting import RcpSession
from gateway.model.message import Message
from gateway.model.partner import Partner
from gateway.model.store import Store
from gateway.mssante.translate import Composer
from gateway.portal import dossiers
from gateway.rcp import contribution, sessions
from gateway.rcp.step import Step
from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import ALL_SCOPES, Hospital, Served
from tests.world import World

RCP_SYSTEM = "urn:oid:1.2.250.1.161.1.20.3.1"
MESSAGE = "https://rcp.example.org/fhir/CodeSystem/rcp-message"
STATE = "https://rcp.example.org/fhir/CodeSystem/rcp-etat-dossier"
IDNPS = "urn:oid:1.2.250.1.71.4.2.1"


def _code(answer: httpx.Response) -> str:
    return str(answer.json()["issue"][0]["details"]["coding"][0]["code"])


def _put(client: httpx.Client, tree: dict[str, Any]) -> httpx.Response:
    """Update what was read, as it was read."""
    match = {"If-Match": f'W/"{tree["meta"]["versionId"]}"'}
    return client.put(f"{tree['resourceType']}/{tree['id']}", json=tree, headers=match)


@pytest.fixture
def ehr(world: World, admit: Callable[..., Hospital]) -> Iterator[httpx.Client]:
    with admit(world.partner, scopes=ALL_SCOPES).client() as client:
        yield client


@pytest.fixture
def dossier(world: World, ehr: httpx.Client) -> str:
    """An inscription with its form, pushed by the hospital."""
    pushed = ehr.post(
        "",
        json=samples.transaction(
            rcp=world.rcp.national_number,
            start="2026-03-19T14:00:00+01:00",
            requester=world.requester.idnps,
            treating=world.treating.rpps,
        ),
    )
    assert pushed.status_code == 200, pushed.text
    where = [entry["response"]["location"] for entry in pushed.json()["entry"]]
    return next(one.split("/")[1] for one in where if one.startswith("ServiceRequest/"))


# A session


def _session(world: World, start: str = "2026-03-26T14:00:00+01:00", **more: Any) -> dict[str, Any]:
    end = (datetime.fromisoformat(start) + timedelta(hours=2)).isoformat()
    return {
        "resourceType": "Appointment",
        "identifier": [{"system": "https://3c.example/ns/seance", "value": "S-1"}],
        "status": "booked",
        "description": "Séance ajoutée",
        "start": start,
        "end": end,
        "comment": "Visioconférence possible",
        "participant": [
            {
                "actor": {"type": "HealthcareService", "identifier": {"system": RCP_SYSTEM, "value": _rcp(world)}},
                "status": "accepted",
            }
        ],
    } | more


def _rcp(world: World) -> str:
    return world.rcp.national_number


def _row(store: Store, key: str) -> RcpSession:
    with store.session() as session:
        return session.get_one(RcpSession, uuid.UUID(key))


def test_a_session_is_planned_moved_held_and_closed(
    store: Store, world: World, home: httpx.Client, ehr: httpx.Client
) -> None:
    sent = _session(world)
    made = home.post("Appointment", json=sent)
    assert made.status_code == 201, made.text
    key = made.json()["id"]
    row = _row(store, key)
    assert (row.rcp_id, row.state, row.starts_at) == (
        world.rcp.id,
        "prevue",
        datetime(2026, 3, 26, 13, 0, tzinfo=UTC),
    )
    for name in ("description", "start", "end", "comment", "status"):
        assert made.json()[name] == sent[name], name
    assert made.json()["participant"][0] == sent["participant"][0]
    # It is a session like another: everybody may read it, and inscribe to it.
    assert ehr.get(f"Appointment/{key}").json() == made.json()
    pushed = ehr.post(
        "",
        json=samples.transaction(
            rcp=_rcp(world), start=sent["start"], requester=world.requester.idnps, treating=world.treating.rpps
        ),
    )
    assert pushed.status_code == 200, pushed.text
    # The same condition, the same session: no second one.
    once = {"If-None-Exist": "identifier=https://3c.example/ns/seance|S-1"}
    assert home.post("Appointment", json=sent, headers=once).status_code == 200
    assert _code(home.post("Appointment", json=sent)) == "seance-existante"
    moved = _put(home, made.json() | {"start": "2026-04-02T14:00:00+02:00", "end": "2026-04-02T16:00:00+02:00"})
    assert moved.status_code == 200, moved.text
    row = _row(store, key)
    assert (row.starts_at, row.start.hour, row.identifier) == (
        datetime(2026, 4, 2, 12, 0, tzinfo=UTC),
        14,
        row.identifier,
    )
    request = ehr.get("ServiceRequest").json()["entry"][0]["resource"]
    assert request["occurrenceDateTime"] == "2026-04-02T14:00:00+02:00"
    sitting = {
        "type": [
            {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "code": "SPRF"}]}
        ],
        "actor": {"type": "Practitioner", "identifier": {"system": IDNPS, "value": world.coordinator.idnps}},
        "status": "accepted",
    }
    held = moved.json() | {"status": "arrived", "participant": [*moved.json()["participant"], sitting]}
    opened = _put(home, held)
    assert opened.status_code == 200, opened.text
    row = _row(store, key)
    assert (row.state, [one.practitioner_id for one in row.attendances]) == ("ouverte", [world.coordinator.id])
    closed = _put(home, opened.json() | {"status": "fulfilled"})
    assert (closed.status_code, _row(store, key).state) == (200, "close"), closed.text
    again = _put(home, closed.json() | {"status": "booked"})
    assert (again.status_code, _code(again)) == (409, "seance-etat")


def test_the_portal_and_the_wire_say_the_same_of_a_session(
    served: Served, store: Store, world: World, home: httpx.Client
) -> None:
    key = home.post("Appointment", json=_session(world)).json()["id"]
    served.steps.run(world.caller(world.coordinator), lambda step: sessions.open_session(step, uuid.UUID(key)))
    shown = home.get(f"Appointment/{key}").json()
    assert (shown["status"], shown["comment"], shown["meta"]["versionId"]) == (
        "arrived",
        "Visioconférence possible",
        "2",
    )
    cancelled = _put(home, shown | {"status": "cancelled"})
    assert (cancelled.status_code, _code(cancelled)) == (409, "seance-etat")
    assert _row(store, key).state == "ouverte"


def test_only_the_establishment_of_the_rcp_writes_its_sessions(
    store: Store, world: World, home: httpx.Client, ehr: httpx.Client
) -> None:
    refused = ehr.post("Appointment", json=_session(world))
    assert (refused.status_code, _code(refused)) == (403, "proprietaire")
    made = home.post("Appointment", json=_session(world)).json()
    refused = _put(ehr, made | {"status": "cancelled"})
    assert (refused.status_code, _code(refused)) == (403, "proprietaire")
    assert _row(store, made["id"]).state == "prevue"


@pytest.mark.parametrize(
    ("changed", "status", "code"),
    [
        ({"status": "waitlist"}, 422, "seance-etat"),
        ({"start": "2026-03-02T14:00:00+01:00", "end": "2026-03-02T16:00:00+01:00"}, 422, "seance-passee"),
        ({"end": "2026-03-27T16:00:00+01:00"}, 422, "seance-horaire"),
    ],
)
def test_a_session_that_cannot_be_is_not_kept(
    store: Store, world: World, home: httpx.Client, changed: dict[str, Any], status: int, code: str
) -> None:
    refused = home.post("Appointment", json=_session(world, **changed))
    assert (refused.status_code, _code(refused)) == (status, code)
    with store.session() as session:
        assert session.scalar(select(func.count()).select_from(RcpSession)) == 1


def test_no_patient_stands_in_a_session(home: httpx.Client, world: World) -> None:
    patient = home.post("Patient", json=samples.patient("1", domain="https://3c.example/ns/ipp", ins=None)).json()["id"]
    tree = _session(world)
    tree["participant"].append({"status": "accepted", "actor": {"reference": f"Patient/{patient}"}})
    refused = home.post("Appointment", json=tree)
    assert (refused.status_code, _code(refused)) == (422, "seance-sans-patient")


# A contribution


def _contribution(dossier: str, subject: str, author: str, text: str = "FEVG 45 % en janvier.") -> dict[str, Any]:
    return {
        "resourceType": "Communication",
        "identifier": [{"system": "https://cabinet.example/ns/message", "value": "C-1"}],
        "basedOn": [{"reference": f"ServiceRequest/{dossier}"}],
        "status": "completed",
        "category": [{"coding": [{"system": MESSAGE, "code": "contribution"}]}],
        "subject": {"reference": subject},
        "sent": "2026-03-16T19:10:00+01:00",
        "sender": {"type": "Practitioner", "identifier": {"system": IDNPS, "value": author}},
        "payload": [
            {"contentString": text},
            {"contentAttachment": {"contentType": "text/plain", "title": "ECG", "data": "RUNH"}},
        ],
    }


def _subject(ehr: httpx.Client, dossier: str) -> str:
    return str(ehr.get(f"ServiceRequest/{dossier}").json()["subject"]["reference"])


def test_a_contribution_is_the_portals_own_and_tells_the_requester_once(
    served: Served, store: Store, world: World, ehr: httpx.Client, dossier: str
) -> None:
    sent = _contribution(dossier, _subject(ehr, dossier), world.treating.idnps)
    once = {"If-None-Exist": "identifier=https://cabinet.example/ns/message|C-1"}
    made = ehr.post("Communication", json=sent, headers=once)
    assert made.status_code == 201, made.text
    assert {name: value for name, value in made.json().items() if name not in {"id", "meta"}} == sent
    assert ehr.post("Communication", json=sent, headers=once).status_code == 200
    assert ehr.put(f"Communication/{made.json()['id']}", json=made.json()).headers["etag"] == 'W/"1"'
    key = uuid.UUID(dossier)
    with store.session() as session:
        row = session.scalars(select(Contribution)).one()
        assert (str(row.id), row.text, row.channel, row.author_id, row.author_name) == (
            made.json()["id"],
            "FEVG 45 % en janvier.",
            "fhir",
            world.treating.id,
            "Docteur Camille NGUYEN",
        )
        # What the portal reads is the same row, seen by the coordinator.
        seen = dossiers.visible_dossier(session, world.caller(world.coordinator), key)
        assert [one.text for one in seen.contributions] == ["FEVG 45 % en janvier."]
        mail = session.scalars(select(Message).where(Message.kind == "M2")).one()
        assert (mail.recipient, mail.recipient_id, mail.state) == (
            "mercier@chu-x.mssante.fr",
            world.requester.id,
            "en-attente",
        )
        said = email.message_from_bytes(mail.content or b"", policy=email.policy.default)
        body = said.get_body(("plain",))
        assert body is not None
        assert "FEVG" not in body.get_content()
    # Rewritten by the same software, it is still one, and the requester is not told twice in half an hour.
    changed = made.json()
    changed["payload"][0]["contentString"] = "FEVG 50 % en mars."
    again = ehr.put(f"Communication/{made.json()['id']}", json=changed)
    assert (again.status_code, again.headers["etag"]) == (200, 'W/"2"'), again.text
    with store.session() as session:
        assert session.scalars(select(Contribution.text)).all() == ["FEVG 50 % en mars."]
        assert session.scalar(select(func.count()).where(Message.kind == "M2")) == 1
        line = session.execute(select(func.count()).select_from(Correspondent).where(Correspondent.wishes_to_attend))
        assert line.scalar() == 0


def test_who_is_not_the_treating_physician_contributes_nothing(
    store: Store, world: World, ehr: httpx.Client, dossier: str
) -> None:
    subject = _subject(ehr, dossier)
    for author, status, code in (
        (world.stranger.idnps, 403, "role"),
        (world.requester.idnps, 403, "role"),
        ("899900000099", 422, "professionnel-inconnu"),
    ):
        refused = ehr.post("Communication", json=_contribution(dossier, subject, author))
        assert (refused.status_code, _code(refused)) == (status, code), refused.text
    lost = _contribution(str(uuid.uuid4()), subject, world.treating.idnps)
    assert _code(ehr.post("Communication", json=lost)) == "inscription-inconnue"
    empty = _contribution(dossier, subject, world.treating.idnps, "  ")
    empty["payload"][0]["contentString"] = "\u200b"
    del empty["payload"][0]
    assert _code(ehr.post("Communication", json=empty)) == "contribution-vide"
    with store.session() as session:
        assert session.scalar(select(func.count()).select_from(Contribution)) == 0
        assert session.scalar(select(func.count()).where(Message.kind == "M2")) == 0
        assert session.connection().exec_driver_sql("SELECT count(*) FROM fhir_communication").scalar() == 0


def test_what_was_written_in_the_portal_is_not_rewritten_by_a_software(
    served: Served, store: Store, world: World, ehr: httpx.Client, dossier: str
) -> None:
    portal = Composer(address="rcp@3c.mssante.example", nil="000000", name="RCP Sein")

    def write(step: Step) -> uuid.UUID:
        row = contribution.contribute(
            step, uuid.UUID(dossier), text="Écrit au portail.", interested=True, key="k", letters=portal
        )
        return row.id

    key = served.steps.run(world.caller(world.treating), write)
    shown = ehr.get(f"Communication/{key}").json()
    assert shown["payload"] == [{"contentString": "Écrit au portail."}]
    forged = shown | {"payload": [{"contentString": "Récrit."}]}
    refused = ehr.put(f"Communication/{key}", json=forged)
    assert (refused.status_code, _code(refused)) == (403, "proprietaire"), refused.text
    beside = ehr.post("Communication", json=_contribution(dossier, _subject(ehr, dossier), world.treating.idnps))
    assert beside.status_code == 201, beside.text
    with store.session() as session:
        assert set(session.scalars(select(Contribution.text))) == {"Écrit au portail.", "FEVG 45 % en janvier."}
        wished = select(Correspondent.wishes_to_attend).where(Correspondent.practitioner_id == world.treating.id)
        assert session.scalars(wished).all() == [True]


def test_a_contribution_finds_its_dossier_by_the_number_of_the_inscription(
    store: Store, world: World, ehr: httpx.Client, dossier: str
) -> None:
    number = ehr.get(f"ServiceRequest/{dossier}").json()["identifier"][0]
    tree = _contribution(dossier, _subject(ehr, dossier), world.treating.idnps)
    tree["basedOn"] = [
        {
            "reference": "https://gw.dcc-b.example/fhir/ServiceRequest/881",
            "type": "ServiceRequest",
            "identifier": {"system": number["system"], "value": number["value"]},
        }
    ]
    made = ehr.post("Communication", json=tree)
    assert made.status_code == 201, made.text
    assert made.json()["basedOn"] == tree["basedOn"]
    with store.session() as session:
        assert str(session.scalars(select(Contribution.dossier_id)).one()) == dossier


# A Task


def _task(client: httpx.Client, dossier: str) -> tuple[dict[str, Any], dict[str, str]]:
    read = client.get(f"Task/{dossier}")
    assert read.status_code == 200, read.text
    return read.json(), {"If-Match": read.headers["etag"]}


def _state(store: Store, dossier: str) -> str:
    with store.session() as session:
        return session.get_one(Dossier, uuid.UUID(dossier)).state


@pytest.mark.parametrize(("wanted", "status"), [("refuse", "rejected"), ("inscrit", "received")])
def test_the_establishment_of_the_rcp_moves_a_dossier_as_its_secretariat_does(
    store: Store, home: httpx.Client, dossier: str, wanted: str, status: str
) -> None:
    task, match = _task(home, dossier)
    task["businessStatus"] = {"coding": [{"system": STATE, "code": wanted}]}
    task["statusReason"] = {"text": "Dossier incomplet"}
    moved = home.put(f"Task/{dossier}", json=task, headers=match)
    assert moved.status_code == 200, moved.text
    assert (_state(store, dossier), moved.json()["status"]) == (wanted, status)
    assert moved.json()["statusReason"] == {"text": "Dossier incomplet"}


@pytest.mark.parametrize("wanted", ["discute", "cr-valide", "envoye", "notifie", "non-discute", "reporte", "inconnu"])
def test_a_move_that_a_software_does_not_make_is_refused_with_its_reason(
    store: Store, home: httpx.Client, dossier: str, wanted: str
) -> None:
    task, match = _task(home, dossier)
    task["businessStatus"] = {"coding": [{"system": STATE, "code": wanted}]}
    refused = home.put(f"Task/{dossier}", json=task, headers=match)
    assert (refused.status_code, _code(refused)) == (422, "passage-impossible"), refused.text
    assert _state(store, dossier) == "prefiche"


def test_a_dossier_is_postponed_to_the_session_that_its_task_names(
    store: Store, world: World, home: httpx.Client, ehr: httpx.Client, dossier: str
) -> None:
    key = home.post("Appointment", json=_session(world)).json()["id"]
    task, match = _task(home, dossier)
    task["input"][0]["valueReference"] = {"reference": f"Appointment/{key}"}
    moved = home.put(f"Task/{dossier}", json=task, headers=match)
    assert moved.status_code == 200, moved.text
    with store.session() as session:
        row = session.get_one(Dossier, uuid.UUID(dossier))
        assert (str(row.session_id), row.state) == (key, "prefiche")
    assert ehr.get(f"ServiceRequest/{dossier}").json()["occurrenceDateTime"] == "2026-03-26T14:00:00+01:00"
    assert moved.json()["input"][0]["valueReference"]["reference"] == f"Appointment/{key}"


def test_another_establishment_sees_neither_the_dossier_nor_its_patient(
    admit: Callable[..., Hospital], store: Store, ehr: httpx.Client, home: httpx.Client, dossier: str
) -> None:
    with store.session() as session:
        other = Partner(name="Clinique Z", finess="750000026", patient_domains=["https://z.example/ipp"])
        session.add(other)
        session.commit()
    subject = _subject(ehr, dossier)
    with admit(other, scopes=ALL_SCOPES).client() as stranger:
        for here in (f"Task/{dossier}", f"ServiceRequest/{dossier}", subject):
            assert home.get(here).status_code == 200, here
            assert stranger.get(here).status_code == 404, here
