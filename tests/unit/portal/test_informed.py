"""A notified session that is edited: the warning, who was told and how to reach him, the mail where it is wanted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from gateway.model.directory import Mailbox, Organisation, PracticeRole
from gateway.model.dossier import Correspondent, Dossier
from gateway.model.meeting import RcpSession
from gateway.model.message import Message
from gateway.rcp.announcements import announce_due
from gateway.rcp.notification import plan_due
from tests.unit.portal.conftest import LETTERS, Browser, Site, words
from tests.unit.portal.test_settings import _filled

NOTIFIED = datetime(2026, 3, 17, 7, 0, tzinfo=UTC)
BEFORE = "https://visio.example.fr/avant"
AFTER = "https://visio.example.fr/apres"


@pytest.fixture
def dossier(site: Site) -> Dossier:
    """A dossier whose physician was notified, with the link of that day."""
    world = site.world
    world.rcp.webconference = {"lien": BEFORE}
    row = world.dossier()
    world.session.execute(update(Correspondent).values(since=row.registered_at))
    place = Organisation(
        name="Cabinet", source="essai", as_of=world.treating.as_of, idnst="199999999", phone="05 00 00 00 01"
    )
    world.session.add(place)
    world.session.flush()
    world.session.add(
        PracticeRole(
            practitioner_id=world.treating.id, organisation_id=place.id, source="essai", as_of=world.treating.as_of
        )
    )
    world.session.commit()
    site.clock.at = NOTIFIED
    assert plan_due(site.steps, LETTERS).sent == 1
    site.clock.at = NOTIFIED + timedelta(hours=2)
    return row


@pytest.fixture
def organiser(site: Site) -> Browser:
    return site.browser(site.world.coordinator)


def edit(site: Site, organiser: Browser, **changes: str) -> str:
    """Save settings as the organiser does, from the form as it stands; give what the page said before."""
    path = f"/rcp/{site.world.rcp.id}/reglages"
    sent = _filled(organiser, path)
    read = words(organiser.get(path))
    organiser.post(path, **(sent | changes))
    return read


def section(site: Site, organiser: Browser) -> list[list[str]]:
    page = organiser.get(f"/seances/{site.world.meeting.id}")
    lines = page.xpath("//section[@aria-labelledby='informes']//tbody/tr")
    return [[words(cell) for cell in line] for line in lines]


def changes_sent(site: Site) -> int:
    announce_due(site.steps, LETTERS)
    return len(site.fresh().session.scalars(select(Message.id).where(Message.kind == "M1c")).all())


@pytest.mark.req("S2-012")
def test_without_the_option_the_editor_is_warned_nothing_leaves_and_who_was_told_is_listed(
    site: Site, organiser: Browser, dossier: Dossier
) -> None:
    warned = edit(site, organiser, **{"webconference.lien": AFTER})
    assert "Les notifications de la séance du jeudi 19 mars 2026 sont parties le 17/03/2026." in warned
    assert "Une modification n’en déclenche pas de nouvelle : prévenez vous-même ces médecins" in warned
    assert changes_sent(site) == 0
    page = organiser.get(f"/seances/{site.world.meeting.id}")
    assert (
        "Les notifications de cette séance sont parties le 17/03/2026. Une modification n’en déclenche pas de "
        "nouvelle : prévenez vous-même les médecins ci-dessous"
    ) in words(page)
    assert section(site, organiser) == [
        [
            "Docteur Camille NGUYEN Médecine générale",
            "nguyen@medecin.mssante.fr 05 00 00 00 01",
            f"Mme PAT-TROIS DOMINIQUE {dossier.reference}",
            "17/03/2026 à 08h00",
            f"jeudi 19 mars 2026 à 14h00 {BEFORE}",
            "À prévenir : nouveau lien",
        ]
    ]


@pytest.mark.req("S2-012")
def test_with_the_option_each_notified_physician_gets_one_mail(
    site: Site, organiser: Browser, dossier: Dossier
) -> None:
    edit(site, organiser, **{"notification.renotification_auto": "oui"})
    warned = edit(site, organiser, **{"webconference.lien": AFTER})
    assert "Un changement du lien leur est annoncé automatiquement." in warned
    assert [line[-1] for line in section(site, organiser)] == ["En cours d’annonce : nouveau lien"]
    assert [changes_sent(site) for _ in range(2)] == [1, 1]
    [line] = section(site, organiser)
    assert line[-3:] == ["17/03/2026 à 10h00", f"jeudi 19 mars 2026 à 14h00 {AFTER}", "À jour"]
    register = organiser.get(f"/seances/{site.world.meeting.id}/registre")
    assert "Notification envoyée le 17/03/2026 à 08h00" in words(register)


def test_a_session_of_which_nobody_was_told_warns_of_nothing(site: Site, organiser: Browser) -> None:
    site.world.dossier()
    site.world.session.commit()
    assert section(site, organiser) == []
    assert "sont parties le" not in edit(site, organiser)


def test_an_address_of_the_red_list_is_not_shown(site: Site, organiser: Browser, dossier: Dossier) -> None:
    site.world.session.execute(update(Mailbox).values(confidential=True))
    site.world.session.commit()
    page = organiser.get(f"/seances/{site.world.meeting.id}")
    assert "nguyen@medecin.mssante.fr" not in page.text_content()
    assert [line[1] for line in section(site, organiser)] == ["adresse en liste rouge 05 00 00 00 01"]


def test_who_said_that_it_is_not_his_patient_is_not_to_be_told(
    site: Site, organiser: Browser, dossier: Dossier
) -> None:
    site.world.session.execute(update(Correspondent).values(declined_at=NOTIFIED))
    site.world.session.commit()
    assert section(site, organiser) == []


def test_a_change_that_did_not_arrive_is_to_be_told_by_somebody(
    site: Site, organiser: Browser, dossier: Dossier
) -> None:
    edit(site, organiser, **{"notification.renotification_auto": "oui", "webconference.lien": AFTER})
    assert changes_sent(site) == 1
    site.world.session.execute(update(Message).where(Message.kind == "M1c").values(state="refuse", reason="smtp-550"))
    site.world.session.commit()
    assert [line[-1] for line in section(site, organiser)] == ["Le changement ne lui est pas parvenu : à prévenir"]
    register = words(organiser.get(f"/seances/{site.world.meeting.id}/registre"))
    assert "Changement : Échec de remise : boîte inconnue ou envoi refusé (550) – à traiter" in register


def test_a_dossier_that_left_stands_on_the_page_of_the_session_that_was_told(
    site: Site, organiser: Browser, dossier: Dossier
) -> None:
    world = site.world
    other = RcpSession(
        rcp_id=world.rcp.id,
        identifier="AUTRE",
        on=world.meeting.on + timedelta(days=7),
        start=world.meeting.start,
        end=world.meeting.end,
        zone=world.meeting.zone,
        starts_at=world.meeting.starts_at + timedelta(days=7),
        ends_at=world.meeting.ends_at + timedelta(days=7),
    )
    world.session.add(other)
    world.session.flush()
    world.session.get_one(Dossier, dossier.id).session_id = other.id
    world.session.commit()
    assert [line[-1] for line in section(site, organiser)] == ["À prévenir : nouvelle date"]
    [line] = [one for one in site.audit() if one["event"] == "consultation"][-1:]
    assert line["persons"] == [str(dossier.record_id)]


def test_a_closed_session_has_nothing_to_change(site: Site, organiser: Browser, dossier: Dossier) -> None:
    site.world.session.execute(update(RcpSession).values(state="close"))
    site.world.session.commit()
    assert section(site, organiser) == []
