"""Sessions and reports by forms: who may, what is kept, what is said, and the same form twice."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from lxml import html
from sqlalchemy import func, select

from gateway.model.dossier import Dossier
from gateway.model.meeting import Attendance, RcpMember
from gateway.model.message import Message
from gateway.model.report import Report
from tests.unit.portal.conftest import Browser, Site, words

HELD = datetime(2026, 3, 19, 13, 30, tzinfo=UTC)


@pytest.fixture
def organiser(site: Site) -> Browser:
    """The coordinator's browser, on the day of the session, which three specialities attend."""
    world = site.world
    for family, speciality in (("LAVAL", "SM05"), ("SIMON", "SM45")):
        person = world.practitioner(family, speciality=speciality)
        world.session.add(RcpMember(rcp_id=world.rcp.id, practitioner_id=person.id, role="membre"))
    world.session.commit()
    site.clock.at = HELD
    return site.browser(world.coordinator)


@pytest.fixture
def dossier(site: Site) -> Dossier:
    row = site.world.dossier()
    site.world.session.commit()
    return row


def session_path(site: Site) -> str:
    return f"/seances/{site.world.meeting.id}"


def open_with_everybody(site: Site, organiser: Browser) -> None:
    path = session_path(site)
    organiser.post(f"{path}/etat", vers="ouverte")
    choices = organiser.get(path).xpath("//select[starts-with(@name, 'presence-')]/@name")
    modes = {name: "webconference" if index == 0 else "presentiel" for index, name in enumerate(choices)}
    organiser.post(f"{path}/presents", **modes)


def draft(organiser: Browser, path: str, status: int = 303, **fields: str):
    """Write the report's draft as a browser that has just opened it."""
    version = organiser.get(path).xpath("//form//input[@name='version']/@value")
    return organiser.post(path, status, **{"version": version[0] if version else "", **fields})


def discard(organiser: Browser, path: str, status: int = 303, version: str | None = None):
    """Throw the draft away as a browser that has just opened it, or that opened it when it had this version."""
    (now,) = set(organiser.get(path).xpath("//form//input[@name='version']/@value"))
    return organiser.post(f"{path}/abandon", status, version=now if version is None else version)


def count(site: Site, statement) -> int:
    return site.fresh().session.scalar(select(func.count()).select_from(statement.subquery()))


def test_a_session_is_opened_attended_and_closed(site: Site, organiser: Browser, dossier: Dossier) -> None:
    path = session_path(site)
    assert "Ouvrir la séance" in words(organiser.get(path))
    answer = organiser.post(f"{path}/etat", vers="ouverte")
    page = organiser.get(answer.headers["location"])
    assert "La séance est ouverte." in words(page)
    assert "Quorum non atteint" in words(page)
    open_with_everybody(site, organiser)
    page = organiser.get(path)
    assert "Quorum atteint" in words(page)
    kept = site.fresh().session.scalars(select(Attendance).order_by(Attendance.mode)).all()
    assert [(one.mode, one.speciality) for one in kept if one.mode == "webconference"] == [("webconference", "SM05")]
    assert len(kept) == 3
    # One leaves: the same form again takes him back.
    names = page.xpath("//select[starts-with(@name, 'presence-')]/@name")
    organiser.post(f"{path}/presents", **dict.fromkeys(names[:2], "presentiel"), **{names[2]: ""})
    assert "Quorum non atteint" in words(organiser.get(path))
    organiser.post(f"{path}/etat", vers="close")
    organiser.post(f"{path}/etat", vers="close")
    page = organiser.get(path)
    assert "Close" in words(page.xpath("//p[@class='badges']")[0])
    assert not page.xpath("//main//form")


def test_forms_are_for_the_organisers_with_their_own_token(site: Site, organiser: Browser, dossier: Dossier) -> None:
    path = session_path(site)
    other = site.browser(site.world.treating)
    other.post(f"{path}/etat", 404, vers="ouverte")
    organiser.post(f"{path}/etat", 403, token="", vers="ouverte")
    organiser.post(f"{path}/etat", 403, token=other.token, vers="ouverte")
    foreign = organiser.client.post(
        f"{path}/etat", data={"csrf": organiser.token, "vers": "ouverte"}, headers={"origin": "https://evil.example"}
    )
    assert foreign.status_code == 403
    organiser.post(f"{path}/etat", 422, vers="annulee")
    organiser.post(f"{path}/presents", 409)
    assert site.fresh().meeting.state == "prevue"


def test_nobody_outside_the_meeting_is_made_to_attend(site: Site, organiser: Browser) -> None:
    organiser.post(f"{session_path(site)}/etat", vers="ouverte")
    organiser.post(f"{session_path(site)}/presents", **{f"presence-{site.world.stranger.id}": "presentiel"})
    assert count(site, select(Attendance)) == 0


def test_a_report_waits_for_the_session(site: Site, organiser: Browser, dossier: Dossier) -> None:
    path = f"/dossiers/{dossier.id}/compte-rendu"
    page = organiser.get(path)
    assert "Le compte rendu se rédige à partir de l’ouverture de la séance." in words(page)
    assert not page.xpath("//textarea")
    organiser.post(path, 409, proposition="Chirurgie.")


def test_a_report_is_drafted_reread_validated_and_downloaded(site: Site, organiser: Browser, dossier: Dossier) -> None:
    open_with_everybody(site, organiser)
    path = f"/dossiers/{dossier.id}/compte-rendu"
    refused = draft(organiser, path, 422, proposition=" ", referentiel="x" * 501)
    assert "Écrivez la proposition de prise en charge." in refused.text
    assert "Ce texte dépasse 500 caractères." in refused.text
    assert count(site, select(Report)) == 0

    fields = {
        "proposition": "Chimiothérapie,\r\npuis chirurgie.",
        "alternatives": "Chirurgie première.\n\n",
        "essai": "",
    }
    answer = draft(organiser, path, suite="valider", **fields)
    assert answer.headers["location"] == f"{path}/validation"
    draft(organiser, path, suite="valider", **fields)
    assert count(site, select(Report)) == 1
    page = organiser.get(f"{path}/validation")
    said = words(page.xpath("//main")[0])
    assert "puis chirurgie." in said
    assert "Quorum atteint" in said
    assert "Docteur Camille NGUYEN (médecin traitant)" in said
    assert "Docteur Camille MERCIER (demandeur)" in said
    (version,) = page.xpath("//input[@name='version']/@value")

    unread = organiser.post(f"{path}/validation", 422, version=version)
    assert "Cochez la case après avoir relu le compte rendu." in unread.text
    for _ in range(2):
        organiser.post(f"{path}/validation", version=version, relu="oui")
    report = site.fresh().session.scalars(select(Report)).one()
    assert report.state == "valide"
    assert count(site, select(Message).where(Message.channel == "mssante")) == 2

    physician = site.browser(site.world.treating)
    fiche = physician.get(f"/dossiers/{dossier.id}")
    assert not fiche.xpath("//textarea")
    assert "Document préparatoire" not in words(fiche)
    assert "puis chirurgie." in words(fiche.xpath("//section[@aria-labelledby='recommandations']")[0])
    (pdf,) = fiche.xpath("//td//a[contains(., 'PDF')]/@href")
    got = physician.client.get(pdf)
    assert got.headers["content-type"] == "application/pdf"
    assert got.headers["content-disposition"] == f'attachment; filename="compte-rendu-{dossier.reference}-v1.pdf"'
    assert got.content.startswith(b"%PDF-")
    cda = physician.client.get(pdf.replace(".pdf", ".cda.xml"))
    assert b"ClinicalDocument" in cda.content
    assert "PAT-TROIS" not in got.headers["content-disposition"]
    released = [line for line in site.audit() if line.get("object_type") == "ReportForm"]
    assert [line["actor_id"] for line in released] == [site.world.treating.idnps] * 2
    for person, status in ((site.world.stranger, 404), (site.world.requester, 200)):
        assert site.browser(person).client.get(pdf).status_code == status
    assert "Remis" not in words(physician.get(path))
    sendings = organiser.get(path).xpath("//section[@aria-labelledby='envois']//tbody/tr")
    assert len(sendings) == 2


def test_only_who_coordinates_sees_and_writes_a_draft(site: Site, organiser: Browser, dossier: Dossier) -> None:
    open_with_everybody(site, organiser)
    path = f"/dossiers/{dossier.id}/compte-rendu"
    draft(organiser, path, proposition="Secret du brouillon.")
    member = site.browser(
        site.world.session.scalars(select(RcpMember).where(RcpMember.role == "membre")).first().practitioner
    )
    for browser in (site.browser(site.world.treating), site.browser(site.world.requester), member):
        assert "Secret du brouillon." not in browser.get(path).text_content()
        browser.get(f"{path}/validation", 403 if browser is member else 404)
    site.browser(site.world.treating).post(path, 404, proposition="Autre.")
    member.post(path, 403, proposition="Autre.")
    site.browser(site.world.stranger).get(path, 404)


def test_a_correction_is_a_new_version_that_says_why(site: Site, organiser: Browser, dossier: Dossier) -> None:
    open_with_everybody(site, organiser)
    path = f"/dossiers/{dossier.id}/compte-rendu"

    def validate() -> None:
        (version,) = organiser.get(f"{path}/validation").xpath("//input[@name='version']/@value")
        organiser.post(f"{path}/validation", version=version, relu="oui")

    draft(organiser, path, proposition="Une.")
    validate()
    organiser.post(f"{path}/correction")
    organiser.post(f"{path}/correction")
    assert count(site, select(Report)) == 2
    page = organiser.get(path)
    assert page.xpath("//textarea[@name='proposition']/text()")[0].strip() == "Une."
    refused = draft(organiser, path, 422, proposition="Deux.")
    assert "Dites pourquoi le compte rendu est corrigé." in refused.text
    draft(organiser, path, proposition="Deux.", motif="Posologie précisée", nature="correction")
    validate()
    rows = organiser.get(path).xpath("//table[caption = 'Versions du compte rendu']//tbody/tr")
    assert [words(row.xpath("td[@data-label='État']")[0]) for row in rows] == [
        "ValidéPosologie précisée",
        "Remplacé par la version 2",
    ]
    organiser.post(f"{path}/correction")
    discard(organiser, path)
    assert count(site, select(Report)) == 2


@pytest.fixture
def second(site: Site) -> Browser:
    """Another coordinator's browser."""
    world = site.world
    person = world.practitioner("COPILOTE")
    world.session.add(RcpMember(rcp_id=world.rcp.id, practitioner_id=person.id, role="coordonnateur"))
    world.session.commit()
    return site.browser(person)


def test_what_another_coordinator_wrote_meanwhile_is_shown_and_never_overwritten_unseen(
    site: Site, organiser: Browser, second: Browser, dossier: Dossier
) -> None:
    open_with_everybody(site, organiser)
    path = f"/dossiers/{dossier.id}/compte-rendu"
    opened = organiser.get(path).xpath("//form//input[@name='version']/@value")[0]
    theirs = {"traitement-1-code": "C15632", "enregistre": "oui"}
    draft(second, path, proposition="Chimiothérapie.", surveillance="Scanner.", **theirs)
    mine = {"proposition": "Chirurgie.", "synthese": "Masse du sein.", "surveillance": "Scanner.", "enregistre": ""}
    refused = organiser.post(path, 409, version=opened, **mine)
    page = html.document_fromstring(refused.text)
    said = words(page.xpath("//div[@role='alert']")[0])
    assert "Quelqu’un d’autre a modifié ce brouillon depuis que vous l’avez ouvert : relisez-le." in said
    assert "Proposition de prise en charge : le brouillon dit maintenant « Chimiothérapie. »" in said
    assert "Synthèse du cas : le brouillon dit maintenant « rien »" in said
    assert "sans discussion : le brouillon dit maintenant « oui »" in said
    assert "Surveillance" not in said  # both wrote the same
    # What was typed is still in its field; what the form did not have is what the other wrote.
    assert page.xpath("//textarea[@name='proposition']/text()")[0].strip() == "Chirurgie."
    assert page.xpath("//select[@name='traitement-1-code']/option[@selected]/@value") == ["C15632"]
    kept = {"proposition": "Chimiothérapie.", "surveillance": "Scanner.", "enregistre": True}
    assert site.fresh().session.scalars(select(Report.draft)).one() == kept | {"traitements": [{"code": "C15632"}]}
    # Read, it is written over by who then knows what he does.
    (read,) = set(page.xpath("//form//input[@name='version']/@value"))
    organiser.post(path, version=read, **mine)
    assert site.fresh().session.scalars(select(Report.draft)).one()["proposition"] == "Chirurgie."


def test_a_draft_that_another_wrote_in_meanwhile_is_not_thrown_away(
    site: Site, organiser: Browser, second: Browser, dossier: Dossier
) -> None:
    open_with_everybody(site, organiser)
    path = f"/dossiers/{dossier.id}/compte-rendu"
    draft(organiser, path, proposition="Une.")
    (opened,) = set(organiser.get(path).xpath("//form//input[@name='version']/@value"))
    draft(second, path, proposition="Deux.")
    assert "relisez-le" in discard(organiser, path, 409, version=opened).text
    assert site.fresh().session.scalars(select(Report.draft)).one()["proposition"] == "Deux."
    discard(organiser, path)
    assert count(site, select(Report)) == 0
    # The form that the second still has open begins no draft anew without his seeing that there is none.
    draft(organiser, path, proposition="Trois.")
    refused = draft(second, path, 409, version=opened, proposition="Deux.")
    assert "« Trois. »" in words(html.document_fromstring(refused.text))


def test_a_draft_that_another_validated_meanwhile_is_corrected_by_a_new_version_only(
    site: Site, organiser: Browser, second: Browser, dossier: Dossier
) -> None:
    open_with_everybody(site, organiser)
    path = f"/dossiers/{dossier.id}/compte-rendu"
    draft(organiser, path, proposition="Une.")
    (opened,) = set(second.get(path).xpath("//form//input[@name='version']/@value"))
    validated(organiser, path)
    refused = second.post(path, 409, version=opened, proposition="Deux.")
    assert "préparez une nouvelle version" in refused.text
    organiser.post(f"{path}/correction")
    again = second.post(path, 409, version=opened, proposition="Deux.", motif="Erreur", nature="correction")
    assert "le brouillon dit maintenant « Une. »" in words(html.document_fromstring(again.text))
    assert site.fresh().session.scalars(select(Report.draft).order_by(Report.version)).all()[1]["proposition"] == "Une."


@pytest.mark.parametrize("begun", [False, True])
def test_two_coordinators_at_the_same_instant_are_one_draft_and_one_refusal(
    site: Site, organiser: Browser, second: Browser, dossier: Dossier, begun: bool
) -> None:
    open_with_everybody(site, organiser)
    path = f"/dossiers/{dossier.id}/compte-rendu"
    if begun:
        draft(organiser, path, proposition="Au début.")
    (opened,) = set(organiser.get(path).xpath("//form//input[@name='version']/@value"))
    both = threading.Barrier(2)

    def write(browser: Browser) -> int:
        both.wait(60)
        sent = {"csrf": browser.token, "version": opened, "proposition": f"De {browser.token}"}
        return browser.client.post(path, data=sent, headers={"origin": site.origin}).status_code

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(write, (organiser, second)))
    assert sorted(found) == [303, 409]
    winner = (organiser, second)[found.index(303)]
    assert site.fresh().session.scalars(select(Report.draft)).one()["proposition"] == f"De {winner.token}"


def test_what_validation_refuses_is_said_on_the_page(site: Site, organiser: Browser, dossier: Dossier) -> None:
    open_with_everybody(site, organiser)
    path = f"/dossiers/{dossier.id}/compte-rendu"
    organiser.get(f"{path}/validation", 409)
    draft(organiser, path, proposition="Une.")
    organiser.post(f"{path}/validation", 409, version=str(dossier.id), relu="oui")
    organiser.post(f"{path}/validation", 404, version="pas-un-identifiant", relu="oui")
    assert site.fresh().session.scalars(select(Report.state)).one() == "brouillon"


def validated(organiser: Browser, path: str, **fields: str) -> None:
    draft(organiser, path, **{"proposition": "Une.", **fields})
    (version,) = organiser.get(f"{path}/validation").xpath("//input[@name='version']/@value")
    organiser.post(f"{path}/validation", version=version, relu="oui")


def test_a_report_is_withdrawn_with_its_reason_once_confirmed(site: Site, organiser: Browser, dossier: Dossier) -> None:
    open_with_everybody(site, organiser)
    path = f"/dossiers/{dossier.id}/compte-rendu"
    organiser.get(f"{path}/annulation", 409)
    validated(organiser, path)
    with site.steps.store.session() as session:
        session.connection().exec_driver_sql("UPDATE message SET state = 'envoye' WHERE kind = 'M6'")
        session.commit()
    assert organiser.get(path).xpath(f"//a[@href='{path}/annulation']")
    page = organiser.get(f"{path}/annulation")
    told = words(page.xpath("//section[h2 = 'Qui en sera prévenu']")[0])
    assert "Docteur Camille NGUYEN" in told
    assert "Docteur Camille MERCIER" in told
    for fields, said in (
        ({"motif": "Mauvais patient"}, "Cochez la case pour confirmer."),
        ({"confirme": "oui"}, "Dites pourquoi."),
        ({"motif": "x" * 501, "confirme": "oui"}, "Ce texte dépasse 500 caractères."),
    ):
        assert said in organiser.post(f"{path}/annulation", 422, **fields).text
    assert site.fresh().session.scalars(select(Report.state)).one() == "valide"
    answer = organiser.post(f"{path}/annulation", motif="Mauvais patient", confirme="oui")
    after = organiser.get(answer.headers["location"])
    assert "Le compte rendu est retiré." in words(after)
    assert "Ce compte rendu a été retiré le 19/03/2026 à 14h30. Motif : Mauvais patient" in words(after)
    assert not after.xpath(f"//a[@href='{path}/annulation'] | //textarea")
    assert site.fresh().session.scalars(select(Report.state)).one() == "annule"
    kinds = site.world.session.scalars(select(Message.kind).where(Message.channel == "mssante")).all()
    assert sorted(kinds) == ["M6", "M6", "M6r", "M6r"]
    organiser.post(f"{path}/annulation", 409, motif="Encore", confirme="oui")
    # It stays readable, and says that it is void: here, and by the name that it is saved under.
    physician = site.browser(site.world.treating)
    assert "Motif : Mauvais patient" in words(physician.get(path))
    got = physician.client.get(f"{path}/1.pdf")
    assert f'filename="compte-rendu-{dossier.reference}-v1-annule.pdf"' in got.headers["content-disposition"]


def test_what_hides_a_report_from_the_patient_is_lifted(site: Site, organiser: Browser, dossier: Dossier) -> None:
    open_with_everybody(site, organiser)
    path = f"/dossiers/{dossier.id}/compte-rendu"
    validated(organiser, path)
    assert organiser.get(path).xpath(f"//a[@href='{path}/visibilite']")
    page = organiser.get(f"{path}/visibilite")
    assert "Docteur Camille NGUYEN (médecin traitant)" in words(page.xpath("//main")[0])
    organiser.post(f"{path}/visibilite", motif="Consultation d’annonce du 20/03/2026", confirme="oui")
    states = dict(site.fresh().session.execute(select(Report.version, Report.state)).tuples().all())
    assert states == {1: "remplace", 2: "valide"}
    assert not organiser.get(path).xpath(f"//a[@href='{path}/visibilite']")
    organiser.get(f"{path}/visibilite", 409)
    organiser.post(f"{path}/visibilite", 409, motif="Encore", confirme="oui")
    # The version that was replaced says by which, around bytes that never change.
    old = organiser.client.get(f"{path}/1.pdf")
    assert old.headers["link"] == '<2.pdf>; rel="successor-version"'
    assert f'filename="compte-rendu-{dossier.reference}-v1-remplace.pdf"' in old.headers["content-disposition"]
    assert "link" not in organiser.client.get(f"{path}/2.pdf").headers


@pytest.mark.parametrize("ending", ["annulation", "visibilite"])
def test_only_who_coordinates_ends_what_is_in_force(
    site: Site, organiser: Browser, dossier: Dossier, ending: str
) -> None:
    open_with_everybody(site, organiser)
    path = f"/dossiers/{dossier.id}/compte-rendu"
    validated(organiser, path)
    for person, status in ((site.world.treating, 404), (site.world.requester, 404), (site.world.stranger, 404)):
        browser = site.browser(person)
        browser.get(f"{path}/{ending}", status)
        browser.post(f"{path}/{ending}", status, motif="Erreur", confirme="oui")
    assert site.fresh().session.scalars(select(Report.state)).one() == "valide"


def test_a_draft_offers_whatever_the_national_report_holds(site: Site, organiser: Browser, dossier: Dossier) -> None:
    """Each field kept, shown again as it was typed, and left as it is by who does not send it."""
    open_with_everybody(site, organiser)
    path = f"/dossiers/{dossier.id}/compte-rendu"
    fields = {
        "synthese": "Masse du sein gauche.",
        "proposition": "Chirurgie première.",
        "alternatives": "Chimiothérapie.",
        "traitement-1-code": "387713003",
        "traitement-1-rang": "1",
        "traitement-1-precision": "Tumorectomie",
        "traitement-1-debut": "15/04/2026",
        "traitement-1-fin": "04/2026",
        "traitement-3-code": "C15632",
        "traitement-3-rang": "2",
        "traitement-3-debut": "2026",
        "examen-2-texte": "TEP-scanner",
        "examen-2-debut": "2026-04-01",
        "soins-support": "Soutien psychologique",
        "recours": "Avis du centre de référence",
        "surveillance": "Mammographie annuelle",
        "commentaire": "À revoir",
        "recommandation-fertilite": "oui",
        "recommandation-oncogenetique": "",
        "recommandation-oncogeriatrie": "",
        "referentiel": "Sein 2025.2",
        "referentiel-date": "12/2025",
        "essai": "UNICANCER 12",
        "enregistre": "oui",
        "complet": "non",
        "outil": "Visio",
        "incidents": "Son coupé cinq minutes",
        "remarque": "Souhaite continuer son travail",
    }
    draft(organiser, path, **fields)
    kept = {
        "synthese": "Masse du sein gauche.",
        "proposition": "Chirurgie première.",
        "alternatives": ["Chimiothérapie."],
        "traitements": [
            {"code": "387713003", "text": "Tumorectomie", "start": "2026-04-15", "end": "2026-04"},
            {"code": "C15632", "rank": 2, "start": "2026"},
        ],
        "examens": [{"text": "TEP-scanner", "earliest": "2026-04-01"}],
        "soins_support": "Soutien psychologique",
        "recours": "Avis du centre de référence",
        "surveillance": "Mammographie annuelle",
        "commentaire": "À revoir",
        "recommandations": ["fertilite"],
        "referentiel": "Sein 2025.2",
        "referentiel_date": "2025-12",
        "essai": "UNICANCER 12",
        "enregistre": True,
        "complet": False,
        "outil_visio": "Visio",
        "incidents_techniques": "Son coupé cinq minutes",
        "remarque": "Souhaite continuer son travail",
    }
    assert site.fresh().session.scalars(select(Report.draft)).one() == kept
    # All of it is read again before it is validated.
    again = words(organiser.get(f"{path}/validation").xpath("//section[h2 = 'Ce qui sera validé']")[0])
    for line in (
        "Traitement de rang 1intervention chirurgicale, Tumorectomie, du 15/04/2026 au 04/2026",
        "Traitement de rang 2chimiothérapie, à partir de 2026",
        "Examen demandéTEP-scanner, à partir de 01/04/2026",
        "Date du référentiel12/2025",
        "ConseilléConsultation de préservation de la fertilité",
        "Dossier completNon",
        *(value for name, value in fields.items() if len(value) > 10 and "/" not in value),
    ):
        assert line.replace("\xa0", " ") in again, line
    # What the page shows, sent back as a browser would, changes nothing.
    page = organiser.get(path)
    assert page.xpath("//select[@name='traitement-2-code']/option[@selected]/@value") == ["C15632"]
    assert page.xpath("//input[@name='traitement-1-debut']/@value") == ["15/04/2026"]
    assert len(page.xpath("//fieldset[legend[starts-with(., 'Traitement')]]")) == 4
    form = next(one for one in page.forms if one.get("action") == path)
    organiser.post(path, **{name: value for name, value in form.form_values() if name != "csrf"})
    assert site.fresh().session.scalars(select(Report.draft)).one() == kept
    # What is not sent stays; what is sent empty goes.
    draft(organiser, path, proposition="Chirurgie.", essai="", **{"recommandation-fertilite": ""})
    changed = site.fresh().session.scalars(select(Report.draft)).one()
    gone = {"essai", "recommandations"}
    assert changed == {name: value for name, value in kept.items() if name not in gone} | {"proposition": "Chirurgie."}


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("traitement-1-precision", "Six cycles", "Choisissez le type de traitement."),
        ("traitement-1-code", "C00000", "Choisissez le type de traitement."),
        ("examen-1-debut", "2026", "Dites quel examen est demandé."),
        ("examen-1-texte", "x" * 501, "Ce texte dépasse 500 caractères."),
        ("surveillance", "x" * 20_001, "Ce texte dépasse 20000 caractères."),
        ("referentiel-date", "31/02/2026", "Écrivez une date"),
        ("referentiel-date", "hier", "Écrivez une date"),
        ("alternatives", "a\n" * 51, "50 lignes au plus."),
    ],
)
def test_a_field_that_cannot_be_is_refused_beside_it_and_nothing_is_kept(
    site: Site, organiser: Browser, dossier: Dossier, field: str, value: str, said: str
) -> None:
    open_with_everybody(site, organiser)
    path = f"/dossiers/{dossier.id}/compte-rendu"
    refused = draft(organiser, path, 422, **{"proposition": "Chirurgie.", "outil": "Visio", field: value})
    assert said in refused.text
    page = html.document_fromstring(refused.text)
    (link,) = page.xpath("//div[@role='alert']//a/@href")
    (control,) = page.xpath(f"//*[@id='{link[1:]}']")
    assert control.get("aria-invalid") == "true"
    # What was typed beside it is still there.
    assert page.xpath("//input[@name='outil']/@value") == ["Visio"]
    assert count(site, select(Report)) == 0


def test_a_treatment_that_ends_before_it_begins_is_refused(site: Site, organiser: Browser, dossier: Dossier) -> None:
    open_with_everybody(site, organiser)
    path = f"/dossiers/{dossier.id}/compte-rendu"
    dates = {"traitement-1-code": "C15632", "traitement-1-debut": "05/2026", "traitement-1-fin": "30/04/2026"}
    assert "La fin précède le début." in draft(organiser, path, 422, **dates).text
    # The same month is no contradiction; coded treatments alone are a proposal.
    draft(organiser, path, **(dates | {"traitement-1-fin": "01/05/2026"}))
