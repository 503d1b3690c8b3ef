"""« Envoi d’images » through the real forms: who sends, where to, once, and what is said of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import msgspec
import pytest
from sqlalchemy import select, update

from gateway.model.imaging import Study
from gateway.model.message import Attempt, Message
from gateway.model.network import Network
from gateway.model.partner import Partner, PartnerCredential
from gateway.model.person import WorkItem
from gateway.model.store import utcnow
from gateway.rcp import imaging
from gateway.rcp.imaging_sending import Manifest, after_delivery, may_leave
from tests.image_samples import content, facts, pacs, send
from tests.unit.portal.conftest import Site, words

YES = {"confirme": "oui"}
AGAIN = "Envoyer de nouveau TAP vers Clinique Z"


def peer(site: Site, name: str, value: str, *, kind: str = "aet", network=None, **details) -> None:
    session = site.world.session
    partner = Partner(name=name, network_id=network, patient_domains=[])
    session.add(partner)
    session.flush()
    where = {"host": "pacs.example", "port": 104} if kind == "aet" else {}
    session.add(PartnerCredential(partner_id=partner.id, kind=kind, value=value, details={**where, **details}))
    session.commit()


@pytest.fixture
def dossier(site: Site):
    """A dossier with one study, and establishments that may receive it."""
    made = site.world.dossier(site.world.record(value="000003"))
    site.world.session.commit()
    assert send(site.steps, site.world, facts()) is None
    peer(site, "CHU Y", "CHUY_ARCHIVE", network=site.world.network.id)
    peer(site, "Clinique Z", "https://pacs.z.example/dicom-web", kind="stow")
    peer(site, "Muet", "SANS_PORT", port=None)
    elsewhere = Network(code="autre", name="Autre région", base_url="https://autre.example", contact="–")
    site.world.session.add(elsewhere)
    site.world.session.flush()
    peer(site, "CHU lointain", "LOINTAIN", network=elsewhere.id)
    return made


def the_study(site: Site) -> str:
    return str(site.fresh().session.scalars(select(Study.id)).one())


def messages(site: Site) -> list[Message]:
    return list(site.fresh().session.scalars(select(Message).where(Message.direction == "out")))


def test_an_organiser_chooses_confirms_and_sends_once(site, dossier):
    coordinator = site.browser(site.world.coordinator)
    [there] = coordinator.get(f"/dossiers/{dossier.id}").xpath("//a[contains(text(), 'Envoyer des images')]/@href")
    page = coordinator.get(there)
    offered = page.xpath("//select[@id='destination']/option")
    assert [(one.get("value"), words(one)) for one in offered] == [
        ("", "Choisir"),
        ("CHUY_ARCHIVE", "CHU Y – CHUY_ARCHIVE"),
        ("https://pacs.z.example/dicom-web", "Clinique Z – pacs.z.example"),
    ]
    assert "Aucune étude de ce dossier n’a été envoyée" in words(page)
    study = the_study(site)
    refused = coordinator.post(there, 422, etude=study, destination="CHUY_ARCHIVE")
    assert "Confirmez que cet établissement" in refused.text
    assert 'value="CHUY_ARCHIVE" selected' in refused.text, "what was chosen is not asked again"
    for nowhere in ("", "LOINTAIN", "SANS_PORT", "1.2.3'; --"):
        assert (
            "Choisissez un établissement" in coordinator.post(there, 422, etude=study, destination=nowhere, **YES).text
        )
    assert messages(site) == []
    sent = coordinator.post(there, etude=study, destination="CHUY_ARCHIVE", **YES)
    assert sent.headers["location"] == f"{there}?fait=images-envoyees"
    site.clock.at = site.clock.at.replace(hour=14)
    again = coordinator.post(there, etude=study, destination="CHUY_ARCHIVE", **YES)
    assert again.headers["location"] == f"{there}?fait=images-deja-envoyees"
    [message] = messages(site)
    assert (message.channel, message.recipient, message.state) == ("dicom", "CHUY_ARCHIVE", "en-attente")
    said = words(coordinator.get(there))
    assert "En file d’attente" in said
    assert "1 objet" in said
    assert words(coordinator.get(again.headers["location"])).count("ont déjà été envoyées") == 1
    lines = [line for line in site.audit() if line["event"] == "envoi"]
    assert [(line["recipient"], line["persons"], line["actor_id"]) for line in lines] == [
        ("CHUY_ARCHIVE", [str(dossier.record_id)], site.world.coordinator.idnps)
    ]


@pytest.mark.parametrize(
    ("state", "attempts", "expected"),
    [
        ("en-attente", 2, "Nouvel essai à venir Le destinataire ne répond pas."),
        ("envoye", 1, "Envoyée"),
        ("refuse", 1, f"Refusée, à traiter Le destinataire ne répond pas. {AGAIN} Voir ce qui est à traiter"),
        ("parque", 9, f"Échec, à traiter Le destinataire ne répond pas. {AGAIN} Voir ce qui est à traiter"),
    ],
)
def test_what_became_of_a_sending_is_said(site, dossier, state, attempts, expected):
    coordinator = site.browser(site.world.coordinator)
    there = f"/dossiers/{dossier.id}/envois"
    coordinator.post(there, etude=the_study(site), destination="https://pacs.z.example/dicom-web", **YES)
    session = site.fresh().session
    [message] = messages(site)
    assert message.channel == "dicomweb"
    session.add(Attempt(message_id=message.id, started_at=utcnow(), reason="Le destinataire ne répond pas."))
    session.execute(update(Message).values(state=state, attempts=attempts))
    session.commit()
    [cell] = coordinator.get(there).xpath("//td[@data-label='État']")
    assert " ".join(" ".join(cell.itertext()).split()) == expected


def failed(site: Site, state: str = "parque") -> Message:
    """Let the only sending fail, as the worker does: a person is asked."""
    session = site.fresh().session
    session.execute(update(Message).values(state=state, attempts=9))
    [message] = session.scalars(select(Message).where(Message.direction == "out"))
    after_delivery(session, message)
    session.commit()
    return message


def asked(site: Site) -> list[tuple[bool, str | None, str | None]]:
    """Each question about a sending: whether it is open, who closed it, how."""
    items = site.fresh().session.scalars(
        select(WorkItem).where(WorkItem.kind == "message").order_by(WorkItem.opened_at)
    )
    return [(one.closed_at is None, one.closed_by, one.decision) for one in items]


@pytest.mark.parametrize("state", ["refuse", "parque"])
@pytest.mark.parametrize("to", ["CHUY_ARCHIVE", "https://pacs.z.example/dicom-web"])
def test_what_failed_is_sent_again_from_the_page_and_the_question_is_answered(site, dossier, to, state):
    coordinator = site.browser(site.world.coordinator)
    there, mine = f"/dossiers/{dossier.id}/envois", site.world.coordinator.idnps
    coordinator.post(there, etude=the_study(site), destination=to, **YES)
    kept = failed(site, state)
    assert asked(site) == [(True, None, None)]
    [form] = coordinator.get(there).xpath("//form[contains(@action, '/reprise')]")
    first = coordinator.post(form.get("action"))
    assert first.headers["location"] == f"{there}?fait=images-reprises"
    [message] = messages(site)
    assert (message.state, message.sha256, message.details["replays"]) == ("en-attente", kept.sha256, 1)
    assert asked(site) == [(False, mine, "rejoue")]
    page = coordinator.get(first.headers["location"])
    assert "ces images repartent" in words(page)
    assert page.xpath("//form[contains(@action, '/reprise')]") == []
    # The same form once more: it is on its way.
    assert coordinator.post(form.get("action")).headers["location"] == f"{there}?fait=images-deja-envoyees"
    [message] = messages(site)
    assert message.details["replays"] == 1
    lines = [line for line in site.audit() if line["event"] == "envoi"]
    assert [(line["recipient"], line["persons"]) for line in lines] == [(to, [str(dossier.record_id)])] * 2


def test_the_form_asked_again_after_a_failure_takes_it_up_and_so_does_a_question_closed_without_an_answer(
    site, dossier
):
    coordinator = site.browser(site.world.coordinator)
    there = f"/dossiers/{dossier.id}/envois"
    asked_for = {"etude": the_study(site), "destination": "CHUY_ARCHIVE", **YES}
    coordinator.post(there, **asked_for)
    failed(site)
    site.clock.at = site.clock.at.replace(hour=14)
    assert coordinator.post(there, **asked_for).headers["location"] == f"{there}?fait=images-reprises"
    failed(site)
    session = site.fresh().session
    [item] = session.scalars(select(WorkItem).where(WorkItem.closed_at.is_(None)))
    coordinator.post(f"/erreurs/{item.id}/clore", motif="Vu avec le CHU")
    [form] = coordinator.get(there).xpath("//form[contains(@action, '/reprise')]")
    assert coordinator.post(form.get("action")).headers["location"] == f"{there}?fait=images-reprises"
    [message] = messages(site)
    assert (message.state, message.details["replays"]) == ("en-attente", 2)


def test_nobody_else_sends_again_nor_anything_else_nor_to_who_is_no_partner_any_more(site, dossier):
    coordinator = site.browser(site.world.coordinator)
    there = f"/dossiers/{dossier.id}/envois"
    coordinator.post(there, etude=the_study(site), destination="CHUY_ARCHIVE", **YES)
    message = failed(site)
    again = f"{there}/{message.id}/reprise"
    for who in ("requester", "treating", "stranger"):
        site.browser(getattr(site.world, who)).post(again, 404)
    coordinator.post(again, 403, token="")
    coordinator.post(f"{there}/{dossier.id}/reprise", 404)
    coordinator.post(f"{there}/rien/reprise", 404)
    other = site.world.dossier(site.world.record(value="000099", match_key="AUTRE"))
    site.world.session.commit()
    coordinator.post(f"/dossiers/{other.id}/envois/{message.id}/reprise", 404)
    session = site.fresh().session
    session.execute(
        update(PartnerCredential).where(PartnerCredential.value == "CHUY_ARCHIVE").values(revoked_at=utcnow())
    )
    session.commit()
    assert coordinator.get(there).xpath("//form[contains(@action, '/reprise')]") == []
    coordinator.post(again, 404)
    [message] = messages(site)
    assert (message.state, asked(site)) == ("parque", [(True, None, None)])


def test_two_organisers_at_once_send_it_again_once(site, dossier):
    """One from the dossier, one from the work list, and one who does both twice."""
    coordinator = site.browser(site.world.coordinator)
    there = f"/dossiers/{dossier.id}/envois"
    coordinator.post(there, etude=the_study(site), destination="CHUY_ARCHIVE", **YES)
    message = failed(site)
    [item] = site.fresh().session.scalars(select(WorkItem.id).where(WorkItem.message_id == message.id))
    addresses = [f"{there}/{message.id}/reprise", f"/erreurs/{item}/rejouer"] * 2
    browsers = [site.browser(site.world.coordinator) for _ in addresses]
    with ThreadPoolExecutor(len(addresses)) as threads:
        answers = [threads.submit(one.post, there) for one, there in zip(browsers, addresses, strict=True)]
    assert {answer.result().status_code for answer in answers} == {303}
    [message] = messages(site)
    assert (message.state, message.details["replays"]) == ("en-attente", 1)
    assert [(open_, how) for open_, _, how in asked(site)] == [(False, "rejoue")]


@pytest.mark.parametrize("who", ["requester", "treating"])
def test_who_does_not_organise_sends_nothing_and_sees_no_page(site, dossier, who):
    browser = site.browser(getattr(site.world, who))
    assert browser.get(f"/dossiers/{dossier.id}").xpath("//a[contains(text(), 'Envoyer des images')]") == []
    browser.get(f"/dossiers/{dossier.id}/envois", status=404)
    browser.post(f"/dossiers/{dossier.id}/envois", 404, etude=the_study(site), destination="CHUY_ARCHIVE", **YES)
    assert messages(site) == []


def test_a_study_of_another_dossier_or_a_form_without_its_token_sends_nothing(site, dossier):
    other = site.world.dossier(site.world.record(value="000099", match_key="AUTRE"))
    site.world.session.commit()
    coordinator = site.browser(site.world.coordinator)
    study = the_study(site)
    coordinator.post(f"/dossiers/{other.id}/envois", 404, etude=study, destination="CHUY_ARCHIVE", **YES)
    coordinator.post(f"/dossiers/{dossier.id}/envois", 404, etude="-", destination="CHUY_ARCHIVE", **YES)
    there = f"/dossiers/{dossier.id}/envois"
    coordinator.post(there, 403, token="", etude=study, destination="CHUY_ARCHIVE", **YES)
    assert messages(site) == []
    assert "Ce dossier n’a pas d’images." in words(coordinator.get(f"/dossiers/{other.id}/envois"))


def test_the_same_study_of_another_hospital_and_patient_stays(site, dossier):
    """Two hospitals keep a study under one UID, and one of them for another patient, in the same meeting."""
    world, domain = site.world, "https://z.example/ipp"
    other = Partner(name="Clinique W", patient_domains=[domain])
    world.session.add(other)
    world.session.flush()
    world.dossier(world.record(partner_id=other.id, system=domain, value="777", match_key="AUTRE"))
    world.session.commit()
    caller = replace(pacs(world), partner_id=other.id)
    said = facts(2, patient="777", system=domain)
    assert site.steps.run(caller, lambda step: imaging.keep(step, said, content(said))) is None
    session = site.fresh().session
    [mine, theirs] = session.scalars(select(Study).order_by(Study.partner_id == other.id))
    assert (mine.study_instance_uid, mine.state) == (theirs.study_instance_uid, theirs.state)
    assert mine.record_id == dossier.record_id != theirs.record_id
    there = f"/dossiers/{dossier.id}/envois"
    site.browser(world.coordinator).post(there, etude=str(mine.id), destination="CHUY_ARCHIVE", **YES)
    [message] = messages(site)
    manifest = msgspec.json.decode(message.content or b"", type=Manifest)
    assert manifest.records == (str(dossier.record_id),)
    assert [one.sop_instance_uid for one in manifest.objects] == [facts().instance.sop_instance_uid]


def test_what_waits_to_leave_stays_when_the_images_are_another_patients(site, dossier):
    coordinator = site.browser(site.world.coordinator)
    there = f"/dossiers/{dossier.id}/envois"
    coordinator.post(there, etude=the_study(site), destination="CHUY_ARCHIVE", **YES)
    [message] = messages(site)
    manifest = msgspec.json.decode(message.content or b"", type=Manifest)
    session = site.fresh().session
    assert may_leave(session, manifest)
    other = site.world.record(value="000099", match_key="AUTRE")
    session.execute(update(Study).values(record_id=other.id))
    session.flush()
    assert not may_leave(session, manifest)
