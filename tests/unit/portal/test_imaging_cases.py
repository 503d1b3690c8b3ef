"""The pages of images to decide on: both sides shown, who may, and what a form does."""

from __future__ import annotations

import uuid
from datetime import date

import pytest
from sqlalchemy import select

from gateway.model.imaging import Study, StudyDossier
from gateway.model.person import WorkItem
from tests.image_samples import facts, send
from tests.unit.portal.conftest import Browser, Site, words

WHY = "Erreur de saisie au scanner"


@pytest.fixture
def organiser(site: Site) -> Browser:
    return site.browser(site.world.coordinator)


@pytest.fixture
def held(site: Site) -> uuid.UUID:
    """A study in quarantine for its birth date: the case."""
    site.world.dossier(site.world.record(value="000003"))
    site.world.session.commit()
    assert send(site.steps, site.world, facts(birth_date=date(1980, 3, 28))) is None
    return site.fresh().session.scalars(select(WorkItem)).one().id


def form(organiser: Browser, url: str) -> dict[str, str]:
    """What the page would post to give the study to the patient that it proposes."""
    page = organiser.get(url)
    fields = page.xpath("//form[contains(@action, '/rattacher')]//input[@type='hidden' or @checked]")
    return {one.get("name"): one.get("value") for one in fields if one.get("name") not in {"csrf", "jeton"}}


def test_the_work_list_leads_to_both_sides(site, organiser, held):
    page = organiser.get("/seances/a-traiter")
    assert page.xpath(f"//a[@href='/imagerie/{held}']")
    assert "PAT-TROIS" not in words(page)
    listed = organiser.get("/imagerie")
    assert "La date de naissance de l’étude contredit" in words(listed)
    assert "PAT-TROIS" not in words(listed)
    page = organiser.get(f"/imagerie/{held}")
    rows = {words(row[0]): [words(cell) for cell in row[1:]] for row in page.xpath("//tbody/tr")}
    assert rows["Nom"] == ["PAT-TROIS", "PAT-TROIS"]
    assert rows["Naissance"] == ["28/03/1980", "28/03/1979 Diffère"]
    assert rows["Sexe"] == ["Féminin", "Féminin"]
    line = site.audit()[-1]
    assert (line["event"], line["object_type"], line["actor_id"]) == (
        "consultation",
        "Study",
        site.world.coordinator.idnps,
    )
    assert len(line["persons"]) == 1


def test_images_are_given_once_both_sides_were_compared(site, organiser, held):
    url = f"/imagerie/{held}"
    given = form(organiser, url)
    refused = organiser.post(f"{url}/rattacher", 422, **given, motif=WHY)
    assert "confirmez que vous les avez comparées" in refused.text
    assert WHY in refused.text
    refused = organiser.post(f"{url}/rattacher", 422, **given, confirme="oui")
    assert "Dites pourquoi." in refused.text
    assert site.fresh().session.scalars(select(StudyDossier)).all() == []
    done = organiser.post(f"{url}/rattacher", **given, motif=WHY, confirme="oui")
    page = organiser.get(done.headers["location"])
    assert "Ces images sont rattachées au patient." in words(page)
    assert WHY in words(page)
    assert not page.xpath("//form[contains(@action, '/rattacher')]")
    assert site.fresh().session.scalars(select(StudyDossier.basis)).all() == ["personne"]
    assert "Aucune image n’attend de décision." in words(organiser.get("/imagerie"))


def test_what_changed_meanwhile_is_not_decided_blindly(site, organiser, held):
    given = form(organiser, f"/imagerie/{held}")
    answer = organiser.post(f"/imagerie/{held}/rattacher", 409, **given | {"vu": "autre"}, motif=WHY, confirme="oui")
    assert "relisez les deux côtés" in answer.text
    assert site.fresh().session.scalars(select(Study.state)).one() == "quarantaine"


def test_images_are_compared_with_the_patient_of_a_dossier_that_is_named(site, organiser, held):
    other = site.world.dossier(site.world.record(value="000077", birth_date="1980-03-28", birth_family="PAT-TROIS"))
    site.world.session.commit()
    url = f"/imagerie/{held}?reference={other.reference.lower()}"
    page = organiser.get(url)
    assert len(page.xpath("//input[@type='radio']")) == 2
    given = form(organiser, url)
    given["patient"] = str(other.record_id)
    organiser.post(f"/imagerie/{held}/rattacher", **given, motif=WHY, confirme="oui")
    assert site.fresh().session.scalars(select(StudyDossier.dossier_id)).all() == [other.id]


def test_a_reference_of_nobody_s_dossier_says_so(organiser, held):
    page = organiser.get(f"/imagerie/{held}?reference=RCP-INCONNU")
    assert "Aucun dossier que vous organisez ne porte cette référence." in words(page)


def test_images_that_are_left_can_be_taken_up(site, organiser, held):
    url = f"/imagerie/{held}"
    refused = organiser.post(f"{url}/laisser", 422, **{"motif-refus": " "})
    assert 'id="motif-refus-erreur"' in refused.text
    organiser.post(f"{url}/laisser", **{"motif-refus": "Sans rapport avec ce patient"})
    page = organiser.get("/imagerie")
    assert "Sans rapport avec ce patient" in words(page)
    done = organiser.post(f"{url}/reprendre")
    again = organiser.get(done.headers["location"])
    assert again.xpath("//form[contains(@action, '/rattacher')]")
    assert site.fresh().session.scalars(select(Study.state)).one() == "quarantaine"


def test_nobody_else_finds_the_case_whatever_he_posts(site, held):
    for person in (site.world.treating, site.world.requester, site.world.stranger):
        browser = site.browser(person)
        browser.get("/imagerie", 404)
        browser.get(f"/imagerie/{held}", 404)
        for name in ("rattacher", "laisser", "reprendre"):
            fields = {"motif": WHY, "motif-refus": WHY, "vu": "x", "patient": str(uuid.uuid4()), "confirme": "oui"}
            browser.post(f"/imagerie/{held}/{name}", 404, **fields)
    assert site.fresh().session.scalars(select(WorkItem.closed_at)).one() is None


def test_a_form_without_the_session_s_token_does_nothing(site, organiser, held):
    given = form(organiser, f"/imagerie/{held}")
    organiser.post(f"/imagerie/{held}/rattacher", 403, token="faux", **given, motif=WHY, confirme="oui")
    assert site.fresh().session.scalars(select(WorkItem.closed_at)).one() is None


# ---- « images attendues et reçues »


@pytest.mark.req("S0-082")
def test_what_is_awaited_is_flagged_on_the_fiche_and_in_the_list_until_it_comes(site):
    record = site.world.record(value="000003")
    row = site.world.dossier(record)
    site.world.session.commit()
    requester, organiser = site.browser(site.world.requester), site.browser(site.world.coordinator)
    url = f"/dossiers/{row.id}"
    shown = requester.get(url)
    assert "Imagerie, ou « sans imagerie »" in words(shown)
    assert "«\u00a0sans imagerie\u00a0»" in shown.text_content()  # never parted at the end of a line, on a phone
    page = requester.get(f"{url}/images-attendues")
    [key] = page.xpath("//input[@name='cle']/@value")
    wrong = requester.post(
        f"{url}/images-attendues", 422, cle=key, examen="IRM mammaire", modalite="MR", prevu="demain"
    )
    assert "Écrivez une date" in wrong.text
    assert 'value="IRM mammaire"' in wrong.text
    for _ in range(2):
        requester.post(f"{url}/images-attendues", cle=key, examen="IRM mammaire", modalite="MR", prevu="")
    shown = words(requester.get(url))
    assert "1 examen manque" in shown
    assert shown.count("Manquantes IRM mammaire") == 1
    assert "Images attendues : IRM mammaire" in shown
    assert "images attendues (1)" in words(organiser.get(f"/seances/{row.session_id}"))
    assert send(site.steps, site.world, facts(modality="MR")) is None
    shown = words(requester.get(url))
    assert "Rien ne manque" in shown
    assert "Reçues IRM mammaire" in shown
    assert "Images attendues : IRM mammaire" not in shown
    assert "images attendues" not in words(organiser.get(f"/seances/{row.session_id}"))


def test_who_reads_only_sees_what_is_awaited_and_declares_nothing(site):
    row = site.world.dossier(site.world.record(value="000003"))
    site.world.session.commit()
    treating, stranger = site.browser(site.world.treating), site.browser(site.world.stranger)
    url = f"/dossiers/{row.id}"
    assert "Images attendues et reçues" in words(treating.get(url))
    assert not treating.get(url).xpath(f"//a[@href='{url}/images-attendues']")
    treating.get(f"{url}/images-attendues", 404)
    treating.post(f"{url}/images-attendues", 403, cle="a" * 32, examen="IRM", modalite="MR")
    stranger.get(f"{url}/images-attendues", 404)
    stranger.post(f"{url}/images-attendues", 404, cle="a" * 32, examen="IRM", modalite="MR")
