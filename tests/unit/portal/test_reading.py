"""Pages read from a real database: rights, audit, and what each says."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from gateway.model.dossier import Contribution, Correspondent
from gateway.model.imaging import Instance, Series, Study, StudyDossier
from gateway.model.meeting import Rcp, RcpMember
from gateway.model.message import NotificationEntry
from tests.unit.portal.conftest import Browser, Site, words

CLINICAL = {
    "tumour": {"label": "Tumeur du sein", "topography": {"code": "C50.4", "text": "Quadrant supéro-externe du sein"}},
    "form": {
        "completed": True,
        "answers": [
            {"link_id": "etat.oms", "values": [1]},
            {"link_id": "tumeur.tnm", "values": ["cT2 N1 M0"]},
            {"link_id": "resultats.pieces", "values": ["Compte rendu d’anatomopathologie"]},
        ],
    },
}


def dossier_of(site: Site, **more: object):
    row = site.world.dossier(clinical=CLINICAL, **more)
    site.world.session.commit()
    return row


def consultations(site: Site) -> list[dict]:
    return [line for line in site.audit() if line["event"] == "consultation"]


def test_a_form_of_the_rcp_is_shown_in_its_own_words_and_without_our_keys(site: Site) -> None:
    own = [
        {"link_id": "motif.participation", "values": ["present"], "question": "Participation du demandeur"},
        {"link_id": "motif.question", "values": ["Et la suite ?"], "question": "Question"},
        {"link_id": "rcp.allergie", "values": [True], "question": "Allergie à l’iode"},
        {"link_id": "rcp.sans-texte", "values": ["rien"]},
    ]
    clinical = CLINICAL | {"form": {"completed": True, "answers": own}}
    row = site.world.dossier(clinical=clinical)
    site.world.session.commit()
    page = site.browser(site.world.requester).get(f"/dossiers/{row.id}")
    [section] = page.xpath("//section[.//*[text()='Formulaire de la réunion']]")
    shown = [text.strip() for text in section.itertext() if text.strip()]
    assert shown == ["Formulaire de la réunion", "Allergie à l’iode", "Oui", "rcp.sans-texte", "rien"]
    assert "motif.participation" not in words(page)


@pytest.mark.req("S0-074")
def test_public_pages_hold_no_patient(site: Site) -> None:
    row = dossier_of(site)
    browser = site.browser()
    for path in ("/", "/rcp", f"/rcp/{site.world.rcp.id}", "/aide", "/aide/test", "/aide/navigateurs"):
        source = browser.client.get(path).text
        for secret in ("PAT-TROIS", "DOMINIQUE", row.reference, str(row.id), "28/03/1979", "Tumeur du sein"):
            assert secret not in source, path


@pytest.mark.req("S0-001", "S0-056")
def test_the_directory_is_searched_by_words_and_by_level(site: Site) -> None:
    first = site.world.rcp
    shared = {"network_id": first.network_id, "place": "Salle 2", "contact": "c", "signature": "s"}
    site.world.session.add_all(
        [
            Rcp(national_number="N-2", title="Sarcomes", level="nationale", **shared),
            Rcp(national_number="N-3", title="Thyroïde", level="locale", **shared),
        ]
    )
    site.world.session.commit()

    def found(query: str) -> list[str]:
        return [words(link) for link in site.browser().get(f"/rcp{query}").xpath("//main//h2/a")]

    assert found("") == ["Sarcomes", "Sein", "Thyroïde"]
    assert found("?q=thyroide") == ["Thyroïde"]
    assert found("?q=SEIN") == ["Sein"]
    assert found("?niveau=nationale") == ["Sarcomes"]
    assert found("?q=rien") == []


def test_who_is_not_signed_in_is_led_to_the_sign_in_and_back(site: Site) -> None:
    row = dossier_of(site)
    for path in ("/patients", f"/dossiers/{row.id}", "/seances", "/seances/a-traiter"):
        answer = site.browser().client.get(path)
        assert answer.status_code == 303
        assert answer.headers["location"] == f"/connexion?next={path}"


@pytest.mark.req("S0-054", "S3-016")
def test_the_treating_physician_reads_the_fiche_and_the_trail_knows(site: Site) -> None:
    row = dossier_of(site)
    page = site.browser(site.world.treating).get(f"/dossiers/{row.id}")
    said = words(page.xpath("//main")[0])
    for expected in (
        "PAT-TROIS DOMINIQUE",
        "28/03/1979",
        "Féminin",
        "Sein",
        "jeudi 19 mars 2026 à 14h00",
        "Docteur Camille MERCIER",
        "Chimiothérapie néoadjuvante ou chirurgie première ?",
        "C50.4 – Quadrant supéro-externe du sein",
        "cT2 N1 M0",
        "Compte rendu d’anatomopathologie",
        "Aucune webconférence n’est prévue pour cette réunion.",
        "Document préparatoire",
    ):
        assert expected in said, expected
    (line,) = consultations(site)
    assert line["dossier"] == str(row.id)
    assert line["persons"] == [str(row.record_id)]
    assert line["actor_id"] == site.world.treating.idnps
    assert "PAT-TROIS" not in str(line)


def test_another_physician_gets_the_404_of_what_does_not_exist(site: Site) -> None:
    row = dossier_of(site)
    browser = site.browser(site.world.stranger)
    hidden = browser.get(f"/dossiers/{row.id}", 404)
    absent = browser.get(f"/dossiers/{uuid.uuid4()}", 404)
    broken = browser.get("/dossiers/42", 404)
    assert words(hidden.xpath("//h1")[0]) == words(absent.xpath("//h1")[0]) == words(broken.xpath("//h1")[0])
    assert words(hidden.xpath("//main//p")[1]) == words(absent.xpath("//main//p")[1])
    assert "PAT-TROIS" not in words(hidden)
    refusals = [line for line in site.audit() if line["event"] == "refus"]
    assert next(line["object_id"] for line in refusals) == str(row.id)
    assert consultations(site) == []


@pytest.mark.req("S3-015")
def test_the_dashboard_shows_only_his_patients(site: Site) -> None:
    dossier_of(site)
    assert "1 dossier vous concerne" in words(site.browser(site.world.treating).get("/patients"))
    stranger = words(site.browser(site.world.stranger).get("/patients"))
    assert "Aucun dossier ne vous concerne pour l’instant." in stranger
    assert "PAT-TROIS" not in stranger


def information(browser: Browser, path: str = "/patients") -> list[list[str]]:
    return [[words(cell) for cell in row] for row in browser.get(path).xpath("//table//tbody/tr")]


@pytest.mark.req("S2-032", "S2-033")
def test_the_news_say_what_comes_until_the_session_ends(site: Site) -> None:
    dossier_of(site)
    browser = site.browser(site.world.treating)
    coming = ["19/03/2026", "Femme PAT-TROIS DOMINIQUE (28/03/1979)", "C50.4 – Tumeur du sein"]
    assert information(browser) == [[*coming, "À venir : présentation en Sein le 19/03/2026"]]
    site.clock.at = site.world.meeting.ends_at - timedelta(minutes=1)
    assert information(browser)[0][3].startswith("À venir")
    site.clock.at = site.world.meeting.ends_at + timedelta(minutes=1)
    assert information(browser)[0][3] == "Présenté le 19/03/2026 en Sein"


@pytest.mark.req("S2-030")
def test_page_sizes_are_those_offered(site: Site) -> None:
    for _ in range(12):
        site.world.dossier()
    site.world.session.commit()
    browser = site.browser(site.world.treating)
    assert len(information(browser)) == 10
    assert len(information(browser, "/patients?taille=20")) == 12
    assert len(information(browser, "/patients?taille=30")) == 10
    assert len(information(browser, "/patients?page=2")) == 2
    assert len(information(browser, "/patients?page=x&taille=-5")) == 10


@pytest.mark.req("S0-052")
def test_the_filters_combine(site: Site) -> None:
    dossier_of(site)
    dossier_of(site, state="envoye")
    browser = site.browser(site.world.treating)

    def tiles(query: str) -> int:
        return len(browser.get(f"/patients{query}").xpath("//div[@class='tile']"))

    assert tiles("") == tiles("?etat=attente&etat=repondue") == 2
    assert tiles("?etat=attente") == tiles("?etat=repondue") == 1
    labels = words(browser.get("/patients").xpath("//fieldset")[0])
    assert "Demande en attente (1)" in labels
    assert "Demande répondue (1)" in labels


@pytest.mark.req("S0-053")
@pytest.mark.parametrize(("sex", "words_of_birth"), [("F", "née le"), ("M", "né le"), ("U", "né(e) le")])
def test_a_tile_agrees_with_the_sex(site: Site, sex: str, words_of_birth: str) -> None:
    site.world.dossier(site.world.record(sex=sex))
    site.world.session.commit()
    tile = site.browser(site.world.treating).get("/patients").xpath("//div[@class='tile']")[0]
    assert f"{words_of_birth} 28/03/1979" in words(tile)


@pytest.mark.req("S0-053")
def test_a_hostile_name_from_the_database_is_text(site: Site) -> None:
    row = site.world.dossier(site.world.record(birth_family="<script>alert(1)</script>", given='"><b onclick=x>'))
    site.world.session.commit()
    browser = site.browser(site.world.treating)
    for path in ("/patients", f"/dossiers/{row.id}"):
        page = browser.get(path)
        assert not page.xpath("//script|//b")
        assert "<SCRIPT>ALERT(1)</SCRIPT>" in words(page)


@pytest.mark.req("S2-019", "S2-052")
def test_the_register_says_for_each_correspondent_what_was_sent(site: Site) -> None:
    row = site.world.dossier()
    other = site.world.practitioner("CORRESPONDANT")
    site.world.session.add(Correspondent(dossier_id=row.id, practitioner_id=other.id, role="correspondant"))
    site.world.session.add(
        NotificationEntry(
            dossier_id=row.id,
            session_id=row.session_id,
            subject=str(site.world.treating.id),
            practitioner_id=site.world.treating.id,
            code="ENVOYEE",
            due_at=datetime(2026, 3, 17, 7, 0, tzinfo=UTC),
            decided_at=datetime(2026, 3, 17, 7, 0, tzinfo=UTC),
        )
    )
    site.world.session.commit()
    page = site.browser(site.world.coordinator).get(f"/dossiers/{row.id}")
    table = page.xpath("//section[@aria-labelledby='correspondants']//tbody/tr")
    said = {words(line.find("th")): words(line.xpath("td[@data-label='Informations']")[0]) for line in table}
    assert said == {
        "Médecin traitant": "Notification envoyée le 17/03/2026 à 08h00",
        "Demandeur": "–",
        "Médecin correspondant de la tumeur": "–",
    }


@pytest.mark.req("S2-042", "S2-043")
def test_a_contribution_is_seen_by_the_organisers(site: Site) -> None:
    row = dossier_of(site)
    site.world.session.add(
        Contribution(
            dossier_id=row.id,
            key="k",
            author_id=site.world.treating.id,
            author_name="NGUYEN Camille",
            author_speciality="SM54",
            text="Vit seule.",
            at=datetime(2026, 3, 16, 12, 58, tzinfo=UTC),
        )
    )
    site.world.session.commit()
    browser = site.browser(site.world.coordinator)
    session = browser.get(f"/seances/{site.world.meeting.id}")
    assert session.xpath("//@aria-label[. = 'Contribution externe pour cette fiche']")
    avis = browser.get(f"/dossiers/{row.id}").xpath("//section[@aria-labelledby='avis']")[0]
    assert "Contribution du médecin traitant – Commentaire du" in words(avis)
    assert "NGUYEN" in words(avis)
    assert "le 16/03/2026 à 13h58" in words(avis)
    assert "Vit seule." in words(avis)


def test_a_session_is_for_its_organisers(site: Site) -> None:
    row = dossier_of(site)
    path = f"/seances/{site.world.meeting.id}"
    for person in (site.world.treating, site.world.stranger, site.world.requester):
        assert "PAT-TROIS" not in words(site.browser(person).get(path, 404))
    page = site.browser(site.world.coordinator).get(path)
    assert "Mme PAT-TROIS DOMINIQUE" in words(page)
    assert row.reference in words(page)
    assert consultations(site)[-1]["persons"] == [str(row.record_id)]
    member = RcpMember(rcp_id=site.world.rcp.id, practitioner_id=site.world.stranger.id, role="membre")
    site.world.session.add(member)
    site.world.session.commit()
    site.browser(site.world.stranger).get(path, 404)


def test_a_study_shows_three_images_of_each_series_and_never_from_quarantine(site: Site) -> None:
    row = dossier_of(site)
    study = Study(
        partner_id=site.world.partner.id,
        study_instance_uid="1.2.3",
        state="rattache",
        record_id=row.record_id,
        study_description="Scanner du thorax",
        modalities=["CT"],
        instances_count=9,
    )
    series = Series(study=study, series_instance_uid="1.2.3.1", modality="CT", series_number=2, instances_count=9)
    site.world.session.add(study)
    site.world.session.flush()
    site.world.session.add_all(
        Instance(
            partner_id=study.partner_id,
            series=series,
            sop_instance_uid=f"1.2.3.1.{number}",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            instance_number=number,
            rows=64,
            columns=64,
            sha256="0" * 64,
            size_bytes=1,
            dicom_json=b"{}",
        )
        for number in range(1, 10)
    )
    site.world.session.add(StudyDossier(study_id=study.id, dossier_id=row.id, basis="ipp", author="essai"))
    site.world.session.commit()
    browser = site.browser(site.world.treating)
    images = browser.get(f"/dossiers/{row.id}").xpath("//ul[@class='thumbs']//img")
    base = "/dicom-web/studies/1.2.3/series/1.2.3.1/instances/1.2.3.1."
    assert [image.get("src") for image in images] == [f"{base}{n}/thumbnail" for n in (1, 5, 9)]
    assert images[1].get("alt") == "CT, série 2, image 5 sur 9"
    study.state = "quarantaine"
    site.world.session.commit()
    quarantined = browser.get(f"/dossiers/{row.id}")
    assert not quarantined.xpath("//ul[@class='thumbs']")
    assert "Scanner du thorax" not in words(quarantined)


@pytest.mark.req("S0-007")
@pytest.mark.parametrize(
    ("agent", "old"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:60.0) Gecko/20100101 Firefox/60.0", True),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0", False),
        (
            "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/52.0.2743.116 Safari/537.36",
            True,
        ),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36", False),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/79.0.1 Safari/537.36 Edg/79.0.309.43", True),
        ("Mozilla/5.0 (Macintosh) AppleWebKit/602.1.50 (KHTML, like Gecko) Version/10.0 Safari/602.1.50", False),
        ("Mozilla/5.0 (Windows NT 6.1; Trident/7.0; rv:11.0) like Gecko", True),
        ("curl/8.0", False),
    ],
)
def test_an_old_browser_gets_the_page_and_is_told(site: Site, agent: str, old: bool) -> None:
    page = site.browser().get("/", **{"user-agent": agent})
    assert bool(page.xpath("//a[@href='/aide/navigateurs' and ancestor::*[@role='status']]")) is old
    assert page.xpath("//form[@role='search']")


def checked(browser: Browser) -> dict[str, str]:
    rows = browser.get("/aide/test?essai=2").xpath("//table//tbody/tr")
    return {words(row.find("th")): words(row.find("td")) for row in rows}


def test_the_self_test_sees_refused_cookies(site: Site) -> None:
    browser = site.browser()
    answer = browser.client.get("/aide/test?essai=1")
    assert answer.headers["location"] == "/aide/test?essai=2"
    assert checked(browser)["Témoins de connexion (cookies)"] == "Conforme"
    refusing = checked(site.browser())
    assert refusing["Témoins de connexion (cookies)"].startswith("Refusés")
    assert refusing["Liaison chiffrée (HTTPS)"].startswith("Non chiffrée")


@pytest.mark.req("S0-008", "S2-054")
def test_every_link_of_the_help_resolves(site: Site) -> None:
    browser = site.browser()
    links = set(browser.get("/aide").xpath("//main//a/@href"))
    assert {"/aide/medecin-traitant", "/aide/medecin-rcp"} <= links
    for link in links:
        if link.startswith("/"):
            browser.get(link)


@pytest.mark.req("S0-049")
def test_no_page_is_kept_by_a_cache_but_the_static_files(site: Site) -> None:
    row = dossier_of(site)
    browser = site.browser(site.world.treating)
    assert browser.client.get(f"/dossiers/{row.id}").headers["cache-control"] == "no-store"
    style = browser.get("/").xpath("//link[@rel='stylesheet']/@href")[0]
    answer = browser.client.get(style)
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["content-type"] == "text/css; charset=utf-8"
