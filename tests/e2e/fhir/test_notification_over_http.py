"""The order to tell a physician, and what became of it, over real HTTP [spec fhir-fr 1.22, 2.2].

A convocation is a CommunicationRequest that is completed, and one Communication for its recipient: completed once it
arrived, not-done where he has no address.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from gateway.fhir.represent import Representer
from gateway.model.directory import Mailbox
from gateway.model.dossier import Correspondent, Dossier
from gateway.model.message import Message, NotificationEntry
from gateway.model.partner import Partner
from gateway.model.store import Store
from gateway.mssante.translate import Composer
from gateway.rcp import access, mail_events, notification
from gateway.rcp.step import Step, Steps
from tests.e2e.fhir.conftest import ALL_SCOPES, Hospital
from tests.world import World

#: Two working days before the session of Thursday 19 March: the hour of sending.
SENDS = datetime(2026, 3, 17, 7, 0, tzinfo=UTC)
ARRIVES = datetime(2026, 3, 17, 7, 5, tzinfo=UTC)
LETTERS = Composer(address="rcp@3c.mssante.example", nil="000000", name="RCP Sein")
KIND = "https://rcp.example.org/fhir/CodeSystem/rcp-message"


@pytest.fixture
def clock() -> SimpleNamespace:
    made = SimpleNamespace(at=SENDS)
    made.now = lambda: made.at
    return made


@pytest.fixture
def steps(make_steps: Callable[..., Steps], representer: Representer, clock: SimpleNamespace) -> Steps:
    return make_steps(clock=clock, represent=representer)


@pytest.fixture
def dossier(world: World, store: Store) -> uuid.UUID:
    """A complete dossier of the hospital, inscribed long enough before."""
    with store.session() as session:
        world.session = session
        made = world.dossier()
        session.execute(update(Correspondent).values(since=datetime(2026, 3, 9, 13, tzinfo=UTC)))
        session.commit()
        return made.id


def the(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    [entry] = answer.json()["entry"]
    return dict(entry["resource"])


def test_who_is_told_has_an_order_and_a_message_that_says_when_it_arrived(
    world: World, hospital: Hospital, steps: Steps, store: Store, clock: SimpleNamespace, dossier: uuid.UUID
) -> None:
    with hospital.client() as ehr:
        clock.at = datetime(2026, 3, 16, 7, 0, tzinfo=UTC)
        notification.plan_due(steps, LETTERS)
        assert ehr.get("CommunicationRequest").json()["total"] == 0  # planned, not ordered yet
        clock.at = SENDS
        assert notification.plan_due(steps, LETTERS).sent == 1
        order = the(ehr.get(f"CommunicationRequest?patient.identifier={_ipp(store, dossier)}"))
        assert order["status"] == "completed"
        assert order["basedOn"][0]["reference"] == f"ServiceRequest/{dossier}"
        assert order["about"] == [{"reference": f"Appointment/{world.meeting.id}", "type": "Appointment"}]
        assert order["recipient"][0]["reference"] == f"Practitioner/{world.treating.id}"
        assert order["authoredOn"] == "2026-03-17T08:00:00+01:00"
        assert [one["coding"][0]["code"] for one in order["category"]] == ["notification", "m1"]
        assert order["medium"][0]["coding"][0]["code"] == "3"  # TRE_R200: mail
        assert "contained" not in order
        assert "payload" not in order  # no text of a letter, which names the patient
        for question in (
            "status=completed",
            "category=notification",
            f"category={KIND}|m1",
            f"recipient=Practitioner/{world.treating.id}",
            f"based-on=ServiceRequest/{dossier}",
            "authored=2026-03-17",
            "medium=3",
            "_has:Communication:based-on:category=m1",
        ):
            assert the(ehr.get(f"CommunicationRequest?{question}"))["id"] == order["id"], question
        sent = the(ehr.get(f"Communication?based-on=CommunicationRequest/{order['id']}"))
        assert [one["reference"] for one in sent["basedOn"]] == [
            f"CommunicationRequest/{order['id']}",
            f"ServiceRequest/{dossier}",
        ]
        assert (sent["status"], "received" in sent) == ("preparation", False)
        # Taken by the mail server, then said to have arrived: once, whatever is said again.
        for number, (kind, at) in enumerate((("remise", ARRIVES), ("lue", ARRIVES.replace(hour=9)))):
            clock.at = at
            steps.run(access.SYSTEM, _receipt(sent["id"], kind, number))
        arrived = the(ehr.get(f"Communication?_id={sent['id']}&received=2026-03-17"))
        assert (arrived["status"], arrived["received"]) == ("completed", "2026-03-17T07:05:00.000Z")
        both = ehr.get(
            f"CommunicationRequest?_id={order['id']}&_revinclude=Communication:based-on"
            "&_include=CommunicationRequest:recipient&_include=CommunicationRequest:subject"
        ).json()
        assert sorted(entry["resource"]["resourceType"] for entry in both["entry"]) == [
            "Communication",
            "CommunicationRequest",
            "Patient",
            "Practitioner",
        ]


def _ipp(store: Store, dossier: uuid.UUID) -> str:
    with store.session() as session:
        return str(session.get_one(Dossier, dossier).record.value)


def _receipt(message: str, kind: str, number: int) -> Callable[[Step], None]:
    def take(step: Step) -> None:
        source = Message(
            direction="in",
            channel="mssante",
            kind="recu",
            key=f"1.{number}",
            content=b"...",
            sha256="0" * 64,
            size_bytes=3,
            state="traite",
            domain_at=step.now,
        )
        step.session.add(source)
        step.session.flush()
        mail_events.take_receipt(step, step.session.get_one(Message, uuid.UUID(message)), source, kind)

    return take


def test_who_has_no_address_is_not_told_and_it_is_said(
    world: World, hospital: Hospital, steps: Steps, store: Store, dossier: uuid.UUID
) -> None:
    with store.session() as session:
        held = session.scalars(select(Mailbox).where(Mailbox.practitioner_id == world.treating.id)).one().address
        session.execute(delete(Mailbox).where(Mailbox.practitioner_id == world.treating.id))
        session.commit()
    notification.plan_due(steps, LETTERS)
    with hospital.client() as ehr:
        order = the(ehr.get("CommunicationRequest"))
        assert order["status"] == "completed"
        untold = the(ehr.get(f"Communication?based-on=CommunicationRequest/{order['id']}"))
        assert untold["status"] == "not-done"
        assert untold["statusReason"]["coding"][0]["code"] == "NON_MSS"
        assert untold["recipient"][0]["reference"] == f"Practitioner/{world.treating.id}"
        assert not {"sent", "received", "payload"} & set(untold)
        # His address becomes known: he is told, and the word that he was not is gone.
        with store.session() as session:
            session.add(
                Mailbox(
                    practitioner_id=world.treating.id, address=held, preferred=True, source="essai", as_of=SENDS.date()
                )
            )
            session.commit()
        assert notification.plan_due(steps, LETTERS).sent == 1
        assert the(ehr.get("CommunicationRequest"))["id"] == order["id"]
        sent = the(ehr.get(f"Communication?based-on=CommunicationRequest/{order['id']}"))
        assert (sent["status"], sent["id"] == untold["id"]) == ("preparation", False)
        assert ehr.get(f"Communication/{untold['id']}").status_code == 410
    with store.session() as session:
        roots = [*session.scalars(select(NotificationEntry)), *session.scalars(select(Message))]
        assert not [one for one in Representer().keep(session, roots, {}).values() if one.changed]


def test_the_order_is_the_gateways_and_for_who_sees_the_dossier(
    hospital: Hospital,
    admit: Callable[..., Hospital],
    world: World,
    steps: Steps,
    store: Store,
    dossier: uuid.UUID,
) -> None:
    assert notification.plan_due(steps, LETTERS).sent == 1
    with admit(world.partner, scopes=ALL_SCOPES).client() as ehr:
        order = the(ehr.get("CommunicationRequest"))
        match = {"If-Match": f'W/"{order["meta"]["versionId"]}"'}
        for answer in (
            ehr.put(f"CommunicationRequest/{order['id']}", json=order | {"status": "revoked"}, headers=match),
            ehr.delete(f"CommunicationRequest/{order['id']}"),
        ):
            assert answer.status_code == 403, answer.text
            assert answer.json()["issue"][0]["details"]["coding"][0]["code"] == "proprietaire"
        # A request of the hospital's own, the national event among them, is kept as sent and found by its event.
        own = {
            "resourceType": "CommunicationRequest",
            "status": "active",
            "extension": [
                {
                    "url": "https://interop.esante.gouv.fr/ig/fhir/nde/StructureDefinition/event-type",
                    "valueCodeableConcept": {
                        "coding": [
                            {
                                "system": "https://mos.esante.gouv.fr/NOS/TRE_R254-TypeEvenement/FHIR/TRE-R254-TypeEvenement",
                                "code": "SOR",
                            }
                        ]
                    },
                }
            ],
            "basedOn": [{"reference": f"ServiceRequest/{dossier}"}],
            "payload": [{"contentString": "Sortie le 20/03/2026 après discussion en RCP"}],
        }
        made = ehr.post("CommunicationRequest", json=own)
        assert made.status_code == 201, made.text
        assert {name: value for name, value in made.json().items() if name not in {"id", "meta"}} == own
        assert the(ehr.get("CommunicationRequest?event-type=SOR"))["id"] == made.json()["id"]
    with store.session() as session:
        other = Partner(name="Clinique Z", finess="750000026", patient_domains=["https://z.example/ipp"])
        session.add(other)
        session.commit()
    with admit(other, scopes=ALL_SCOPES).client() as stranger:
        assert stranger.get(f"CommunicationRequest/{order['id']}").status_code == 404
        assert stranger.get("CommunicationRequest").json()["total"] == 0
