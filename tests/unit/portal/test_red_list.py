"""An address of the red list is written to, and stands in nothing that anybody reads."""

from __future__ import annotations

import uuid
from collections import deque
from urllib.parse import urlsplit

import pytest
from lxml import html
from sqlalchemy import select, update

from gateway.model.directory import Mailbox
from gateway.model.dossier import Correspondent, Dossier
from gateway.model.message import Message
from gateway.model.person import WorkItem
from gateway.model.report import Report
from gateway.rcp import access, mail_events, mailboxes
from gateway.rcp.notification import plan_due
from tests.unit.portal.conftest import LETTERS, Site

#: More than the portal of one dossier has.
PAGES = 400


@pytest.fixture
def hidden(site: Site) -> tuple[Dossier, set[str]]:
    """Every address is of the red list; a mail that bounced, one that came and a report that was sent are there."""
    world = site.world
    row = world.dossier()
    world.session.add(
        Mailbox(
            practitioner_id=world.treating.id,
            address="autre.cachee@medecin.mssante.fr",
            source="essai",
            as_of=world.treating.as_of,
        )
    )
    report = Report(dossier_id=row.id, set_id=uuid.uuid4(), author_id=world.coordinator.id)
    world.session.add(report)
    world.session.execute(update(Mailbox).values(confidential=True))
    world.session.execute(update(Correspondent).values(since=row.registered_at))
    world.session.commit()
    site.clock.at = world.meeting.starts_at.replace(day=17, hour=7)
    plan_due(site.steps, LETTERS)
    report_id = report.id

    def verb(step):
        message = step.session.scalars(select(Message).where(Message.direction == "out")).one()
        message.state, message.report_id = "envoye", report_id
        came = Message(
            direction="in",
            channel="mssante",
            kind="human",
            key="1.1",
            content=b"",
            sha256=uuid.uuid4().hex * 2,
            size_bytes=0,
            state="quarantaine",
            sender=message.recipient.upper(),
            domain_at=step.now,
        )
        step.session.add(came)
        step.session.flush()
        mail_events.take_receipt(step, message, came, "rejetee", status="5.1.1", code="550")
        mail_events.ask_person(step.session, came, "courriel-human")

    site.steps.run(access.SYSTEM, verb)
    return row, {box.address.lower() for box in world.session.scalars(select(Mailbox))}


def _walk(browser, starts: list[str]) -> dict[str, str]:
    """Every page and file that is reached by links, as text."""
    found: dict[str, str] = {}
    waiting = deque(starts)
    while waiting:
        path = waiting.popleft()
        if path in found:
            continue
        answer = browser.client.get(path)
        found[path] = answer.text
        assert len(found) < PAGES
        if answer.headers.get("content-type", "").startswith("text/html"):
            for link in html.document_fromstring(answer.text).xpath("//a/@href"):
                parts = urlsplit(link)
                if not parts.netloc and parts.path.startswith("/") and not parts.path.startswith("/deconnexion"):
                    waiting.append(parts.path + (f"?{parts.query}" if parts.query else ""))
    return found


def test_no_page_shows_an_address_of_the_red_list(site: Site, hidden: tuple[Dossier, set[str]]) -> None:
    dossier, addresses = hidden
    assert len(addresses) > 2
    situations = [f"/erreurs/{one}" for one in site.fresh().session.scalars(select(WorkItem.id))]
    starts = ["/", "/seances", "/erreurs", *situations, f"/dossiers/{dossier.id}/compte-rendu"]
    seen = {}
    for person in (site.world.coordinator, site.world.treating, site.world.requester):
        seen |= {f"{person.family} {path}": text for path, text in _walk(site.browser(person), starts).items()}
    for path, text in seen.items():
        assert not [one for one in addresses if one in text.lower()], path
    told = [path for path, text in seen.items() if mailboxes.HIDDEN in text]
    # The mail that bounced, the one that came, the report's sendings.
    assert len({path.split("/")[1] for path in told}) >= 2, told
    assert len([path for path in told if "/erreurs/" in path]) == len(situations) == 2


def test_one_of_the_red_list_may_be_chosen_without_being_seen(site: Site, hidden: tuple[Dossier, set[str]]) -> None:
    organiser = site.browser(site.world.coordinator)
    session = site.fresh().session
    out = session.scalars(select(WorkItem.id).join(Message, Message.id == WorkItem.message_id)).all()
    for item in out:
        page = organiser.get(f"/erreurs/{item}")
        if choices := page.xpath("//select[@name='adresse']/option/@value"):
            organiser.post(f"/erreurs/{item}/renvoyer", adresse=choices[0], retenir="oui")
    new = site.fresh().session.scalars(select(Message).where(Message.details.has_key("repli"))).one()
    assert new.recipient == "autre.cachee@medecin.mssante.fr"
    chosen = mailboxes.addresses(session, site.world.treating)
    assert [box.address for box in chosen] == ["autre.cachee@medecin.mssante.fr"]
    said = [line for line in site.audit() if line["reason"] == "adresse-choisie"]
    assert [line["actor_id"] for line in said] == [site.world.coordinator.idnps]


def test_a_person_takes_an_address_back(site: Site, hidden: tuple[Dossier, set[str]]) -> None:
    organiser = site.browser(site.world.coordinator)
    session = site.world.session
    item = session.scalars(
        select(WorkItem.id).join(Message, Message.id == WorkItem.message_id).where(Message.direction == "out")
    ).one()

    def usable() -> bool:
        found = mailboxes.addresses(site.fresh().session, site.world.treating)
        return any(not box.address.startswith("autre.") for box in found)

    assert not usable()
    answer = organiser.post(f"/erreurs/{item}/reprendre")
    assert "Cette adresse est de nouveau utilisée." in organiser.get(answer.headers["location"]).text_content()
    assert usable()
    assert not organiser.get(f"/erreurs/{item}").xpath("//form[contains(@action, '/reprendre')]")
    organiser.post(f"/erreurs/{item}/oublier")
    assert not usable()
    site.browser(site.world.treating).post(f"/erreurs/{item}/reprendre", 404)
    said = [line["reason"] for line in site.audit() if line["object_type"] == "Mailbox"]
    assert said == ["adresse-reprise", "adresse-inutilisable"]
