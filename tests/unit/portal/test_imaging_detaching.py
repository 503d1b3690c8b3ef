"""« Ces images ne sont pas celles de ce patient » through the real forms."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from gateway.model.imaging import Study, StudyDossier
from gateway.rcp.facts import Sex
from tests.image_samples import facts, send
from tests.unit.portal.conftest import Site, words

WHY = "Bracelet échangé au scanner"


@pytest.fixture
def dossier(site: Site):
    made = site.world.dossier(site.world.record(value="000003"))
    site.world.session.commit()
    assert send(site.steps, site.world, facts()) is None
    return made


def study(site: Site) -> Study:
    return site.fresh().session.scalars(select(Study)).one()


def test_an_organiser_compares_says_why_and_takes_images_away(site, dossier):
    coordinator = site.browser(site.world.coordinator)
    fiche = coordinator.get(f"/dossiers/{dossier.id}")
    [there] = fiche.xpath("//a[contains(text(), 'ne sont pas celles de ce patient')]/@href")
    [one] = coordinator.get(there).xpath("//a[contains(@href, '/detacher/')]/@href")
    page = coordinator.get(one)
    assert "PAT-TROIS" in words(page)
    seen = page.xpath("//form[@method='post']//input[@name='vu']/@value")[0]
    assert "Dites pourquoi." in coordinator.post(one, 422, vu=seen, confirme="oui").text
    refused = coordinator.post(one, 422, vu=seen, motif=WHY)
    assert "Confirmez que vous avez comparé" in refused.text
    assert WHY in refused.text
    assert study(site).state == "rattache"
    answer = coordinator.post(one, vu=seen, motif=WHY, confirme="oui")
    assert answer.headers["location"] == f"/dossiers/{dossier.id}?fait=images-detachees"
    assert coordinator.post(one, vu=seen, motif=WHY, confirme="oui").headers["location"] == answer.headers["location"]
    assert study(site).state == "quarantaine"
    after = words(coordinator.get(answer.headers["location"]))
    assert "Ces images sont retirées du dossier" in after
    assert "Regarder les images" not in after
    # The case shows why, and proposes the same patient to nobody by itself.
    [case] = coordinator.get("/imagerie").xpath("//a[contains(@href, '/imagerie/')]/@href")
    said = words(coordinator.get(case))
    assert "Une personne a retiré cette étude du patient" in said
    assert "Ne pas rattacher" in said


def test_every_trait_that_differs_is_said(site, dossier):
    said = {"birth_family": "ZOLA", "used_family": None, "given": "EMILE", "given_names": ["EMILE"], "used_given": None}
    other = site.world.dossier(
        site.world.record(value="000005", sex=Sex.MALE.value, birth_date="1961-07-14", match_key="Z", **said)
    )
    site.world.session.commit()
    coordinator = site.browser(site.world.coordinator)
    page = coordinator.get(f"/dossiers/{dossier.id}/detacher/{study(site).id}?reference={other.reference}")
    differs = [words(one.getparent().xpath("th")[0]) for one in page.xpath("//td[span[text()='Diffère']]")]
    assert differs == ["Nom", "Prénom", "Naissance", "Sexe", "Identifiants"]


def test_images_are_given_to_the_patient_of_another_dossier(site, dossier):
    other = site.world.dossier(site.world.record(value="000004", birth_family="PAT-QUATRE", match_key="QUATRE"))
    site.world.session.commit()
    coordinator = site.browser(site.world.coordinator)
    base = f"/dossiers/{dossier.id}/detacher/{study(site).id}"
    assert "Aucun dossier d’un autre patient" in words(coordinator.get(f"{base}?reference=RCP-RIEN"))
    page = coordinator.get(f"{base}?reference={other.reference.lower()}")
    said = words(page)
    assert "PAT-QUATRE" in said
    assert "Diffère" in said
    assert "Les identifiants de l’étude désignent plusieurs patients." in said
    seen = page.xpath("//form[@method='post']//input[@name='vu']/@value")[0]
    form = {"vu": seen, "motif": WHY, "confirme": "oui", "reference": other.reference}
    assert coordinator.post(base, **form).headers["location"] == f"/dossiers/{dossier.id}?fait=images-donnees"
    assert site.fresh().session.scalars(select(StudyDossier.dossier_id)).all() == [other.id]


@pytest.mark.parametrize("who", ["requester", "treating"])
def test_who_does_not_organise_sees_neither_the_link_nor_the_page(site, dossier, who):
    browser = site.browser(getattr(site.world, who))
    assert not browser.get(f"/dossiers/{dossier.id}").xpath("//a[contains(@href, '/detacher')]")
    base = f"/dossiers/{dossier.id}/detacher"
    browser.get(base, status=404)
    one = f"{base}/{study(site).id}"
    browser.get(one, status=404)
    browser.post(one, 404, motif=WHY, confirme="oui", vu="x")
    assert study(site).state == "rattache"


def test_a_form_without_its_token_or_over_another_picture_changes_nothing(site, dossier):
    coordinator = site.browser(site.world.coordinator)
    base = f"/dossiers/{dossier.id}/detacher/{study(site).id}"
    coordinator.post(base, 403, token="", motif=WHY, confirme="oui", vu="x")
    coordinator.post(base, 409, motif=WHY, confirme="oui", vu="x")
    coordinator.get(f"/dossiers/{dossier.id}/detacher/-", status=404)
    assert study(site).state == "rattache"
