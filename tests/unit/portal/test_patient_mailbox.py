"""The address of a patient's mailbox is his INS: what reads of his letters names it nowhere."""

from __future__ import annotations

import uuid

import pytest
from sqlalchemy import select, update

from gateway.fhir.translate.dossier import message as communication
from gateway.model.dossier import Dossier
from gateway.model.message import Message
from gateway.model.person import WorkItem
from gateway.model.report import Report
from gateway.rcp import access, mail_events, mailboxes, mailing
from gateway.rcp.ports import SealedLetter
from tests.unit.portal.conftest import Site
from tests.unit.portal.test_red_list import _walk

NUMBER = "279035121518989"


@pytest.fixture
def bounced(site: Site) -> Dossier:
    """A copy for the patient that his mailbox refused."""
    world = site.world
    row = world.dossier()
    report = Report(dossier_id=row.id, set_id=uuid.uuid4(), author_id=world.coordinator.id)
    world.session.add(report)
    world.session.commit()
    report_id = report.id

    def verb(step):
        dossier = step.session.get_one(Dossier, row.id)
        sealed = SealedLetter(content=b"Subject: x\r\n\r\n", message_id="m@x", envelope_id="e", sender="rcp@x")
        address = f"{NUMBER}@patient.mssante.fr"
        letter = mailing.post(
            step, dossier, sealed, kind="M6p", key="k", recipient=None, address=address, report_id=report_id, version=1
        )
        letter.state = "refuse"
        came = Message(
            direction="in",
            channel="mssante",
            kind="dsn",
            key="1.1",
            content=b"",
            state="traite",
            sha256=uuid.uuid4().hex * 2,
            size_bytes=0,
            sender=address,
            domain_at=step.now,
        )
        step.session.add(came)
        step.session.flush()
        mail_events.take_receipt(step, letter, came, "rejetee", status="5.1.1", code="550")
        mail_events.ask_person(step.session, came, "courriel-human")

    site.steps.run(access.SYSTEM, verb)
    return row


def test_no_page_shows_a_patient_s_address(site: Site, bounced: Dossier) -> None:
    situations = [f"/erreurs/{one}" for one in site.fresh().session.scalars(select(WorkItem.id))]
    assert len(situations) == 2
    starts = ["/", "/seances", "/erreurs", *situations, f"/dossiers/{bounced.id}/compte-rendu"]
    seen = _walk(site.browser(site.world.coordinator), starts)
    assert [path for path, text in seen.items() if NUMBER in text] == []
    for path in situations:
        assert "…@patient.mssante.fr" in seen[path]
    assert any("Compte rendu au patient" in seen[path] for path in situations)


def test_the_communication_names_the_patient_by_his_record(site: Site, bounced: Dossier) -> None:
    session = site.fresh().session
    session.execute(update(Message).values(state="envoye"))
    [letter] = session.scalars(select(Message).where(Message.direction == "out"))
    said = communication(letter, session.get_one(Dossier, bounced.id), None)
    assert said["recipient"] == [said["subject"]]
    assert NUMBER not in str(said)


def test_an_address_is_shown_without_the_matricule_among_others(site: Site, bounced: Dossier) -> None:
    shown = mailboxes.shown(site.fresh().session, [f"{NUMBER}@PATIENT.mssante.fr", "a@medecin.mssante.fr"])
    assert list(shown.values()) == ["…@patient.mssante.fr", "a@medecin.mssante.fr"]
