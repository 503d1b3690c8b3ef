"""The settings of an RCP by their page: who may, what each value becomes, two organisers at once."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from gateway.errors import Conflict, InvalidContent
from gateway.model.directory import Practitioner
from gateway.model.meeting import Rcp, RcpMember
from gateway.rcp import fiche, rcp_settings
from gateway.rcp.report_draft import LIST_MAX
from gateway.rcp.sessions import notice_of
from tests.unit.portal.conftest import Browser, Site, words
from tests.unit.portal.test_fiche_form import _filled


@pytest.fixture
def path(site: Site) -> str:
    return f"/rcp/{site.world.rcp.id}/reglages"


@pytest.fixture
def organiser(site: Site) -> Browser:
    return site.browser(site.world.coordinator)


def _rcp(site: Site) -> Rcp:
    return site.fresh().session.get_one(Rcp, site.world.rcp.id)


def _part(site: Site, name: str, role: str) -> Practitioner:
    who = site.world.practitioner(name)
    site.world.session.add(RcpMember(rcp_id=site.world.rcp.id, practitioner_id=who.id, role=role))
    site.world.session.commit()
    return who


def test_untouched_it_changes_nothing_and_leaves_no_line(site: Site, path: str, organiser: Browser) -> None:
    sent = _filled(organiser, path)
    # What holds while nobody said anything: the values of the specification's part 5.4.
    wanted = {
        "notification.active": "oui",
        "notification.jours": "2",
        "notification.calendrier": "ouvres",
        "notification.heure_envoi": "08:00",
        "notification.limite": "heure_seance",
        "notification.rattrapage": "non",
        "notification.reponse_mail": "oui",
        "holidays": "metropole",
        "webconference.lien": "",
        "fiche.recours": "",
    }
    assert {name: sent[name] for name in wanted} == wanted
    organiser.post(path, **sent)
    kept = _rcp(site)
    assert (kept.notification, kept.webconference, kept.fiche) == ({"active": True}, {}, {})
    assert [one["event"] for one in site.audit()] == []


@pytest.mark.req("S0-064")
def test_each_setting_is_kept_as_those_who_read_it_want_it(site: Site, path: str, organiser: Browser) -> None:
    sent = _filled(organiser, path) | {
        "notification.jours": "3",
        "notification.calendrier": "hors_we",
        "notification.heure_envoi": "07:30",
        "notification.limite": "heure_envoi",
        "notification.rattrapage": "oui",
        "notification.rattrapage_min_heures": "12",
        "notification.reponse_mail": "non",
        "notification.format_heure": "18 h 30",
        "holidays": "la-reunion",
        "notification.pentecote_travaillee": "oui",
        "notification.fermetures": "24/12/2026\r\n\r\n2026-12-31\r\n24/12/2026",
        "webconference.lien": "https://visio.example.fr/sein",
        "webconference.complement": "Code 1234",
        "fiche.obligatoires.etat.etat.oms": "oui",
        "fiche.obligatoires.tumeur.tumeur.t": "oui",
        "fiche.etiquettes": "Sein\r\nRecours régional",
        "fiche.etiquettes_obligatoires": "oui",
        "fiche.appareil": "76752008",
        "fiche.organes.0": "76752008",
        "fiche.recours": "non",
    }
    assert organiser.post(path, **sent).headers["location"] == f"{path}?fait=reglages"
    kept = _rcp(site)
    assert kept.notification == {
        "active": True,
        "jours": 3,
        "calendrier": "hors_we",
        "heure_envoi": "07:30",
        "limite": "heure_envoi",
        "rattrapage": True,
        "rattrapage_min_heures": 12,
        "reponse_mail": False,
        "format_heure": "18 h 30",
        "pentecote_travaillee": True,
        "fermetures": ["2026-12-24", "2026-12-31"],
    }
    assert kept.holidays == "la-reunion"
    assert kept.webconference == {"lien": "https://visio.example.fr/sein", "complement": "Code 1234"}
    assert kept.fiche == {
        "obligatoires": ["tumeur.t", "etat.oms"],
        "etiquettes": ["Sein", "Recours régional"],
        "etiquettes_obligatoires": True,
        "appareil": "76752008",
        "organes": ["76752008"],
        "recours": False,
    }
    # Those who read them do: Thursday's session is told on Monday, at half past seven of its own wall.
    paris = ZoneInfo("Europe/Paris")
    assert notice_of(site.world.meeting).sends_at == datetime(2026, 3, 16, 7, 30, tzinfo=paris)
    assert fiche.rules_of(kept).etiquettes == ("Sein", "Recours régional")
    [line] = [one for one in site.audit() if one["event"] == "modification"]
    assert line["object_id"] == str(kept.id)
    assert "fiche.etiquettes" in str(line)
    # And back: what is erased leaves no key, what is usual is usual again.
    sent = _filled(organiser, path)
    assert sent["notification.fermetures"] == "24/12/2026\n31/12/2026"
    assert sent["fiche.obligatoires.tumeur.tumeur.t"] == "oui"
    sent.pop("fiche.obligatoires.tumeur.tumeur.t")
    organiser.post(path, **(sent | {"notification.fermetures": "", "fiche.appareil": "", "webconference.lien": ""}))
    kept = _rcp(site)
    assert "fermetures" not in kept.notification
    assert kept.webconference == {"complement": "Code 1234"}
    assert (kept.fiche["obligatoires"], "appareil" in kept.fiche) == (["etat.oms"], False)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("notification.jours", "0", "un nombre entier de 1 à 60"),
        ("notification.jours", "", "ne peut pas rester vide"),
        ("notification.calendrier", "jamais", "n’appartient pas à la liste"),
        ("notification.heure_envoi", "25:00", "Par exemple 08:00".lower()),
        ("notification.limite", "demain", "n’appartient pas à la liste"),
        ("notification.fermetures", "24/12/2026\n30/02/2026", "ligne 2"),
        ("notification.fermetures", "\n".join(["24/12/2026"] * 101), "dépasse 100 lignes"),
        ("holidays", "atlantide", "n’appartient pas à la liste"),
        ("webconference.lien", "http://visio.example.fr", "https://"),
        ("webconference.lien", "javascript:alert(1)", "https://"),
        ("webconference.complement", "x" * 20_001, "20000 caractères"),
        ("fiche.etiquettes", "Sein\nUrgence", "ligne 2"),
        ("fiche.etiquettes", "x" * 61, "60 caractères"),
        ("fiche.appareil", "1", "n’appartient pas à la liste"),
        ("fiche.organes.0", "1", "n’appartient pas à la liste"),
    ],
)
def test_a_fault_stands_beside_its_setting_and_nothing_is_kept(
    site: Site, path: str, organiser: Browser, name: str, value: str, said: str
) -> None:
    sent = _filled(organiser, path) | {"notification.rattrapage": "oui", name: value}
    answer = organiser.post(path, status=422, **sent)
    assert f'id="{name}-erreur"' in answer.text
    assert said in answer.text.replace("\u00a0", " ")
    kept = _rcp(site)
    assert (kept.notification, kept.webconference, kept.fiche) == ({"active": True}, {}, {})


def test_what_another_organiser_wrote_meanwhile_is_said_and_not_overwritten(
    site: Site, path: str, organiser: Browser
) -> None:
    other = site.browser(_part(site, "SECRET", "secretaire"))
    mine, theirs = _filled(organiser, path), _filled(other, path)
    other.post(path, **(theirs | {"notification.jours": "4"}))
    answer = organiser.post(path, status=409, **(mine | {"notification.jours": "3", "webconference.complement": "X"}))
    said = answer.text.replace("\u00a0", " ")
    assert "le réglage est maintenant « 4 »" in said
    assert 'value="3"' in said
    assert _rcp(site).notification["jours"] == 4
    again = _filled(organiser, path) | {"notification.jours": "3"}
    organiser.post(path, **again)
    # The same form twice is one change.
    organiser.post(path, **again)
    assert _rcp(site).notification["jours"] == 3
    assert [one["event"] for one in site.audit()].count("modification") == 2


def test_two_organisers_at_the_same_instant_are_one_change_and_one_refusal(site: Site) -> None:
    callers = [site.world.caller(site.world.coordinator), site.world.caller(_part(site, "ADMIN", "administrateur"))]
    rcp_id, read = site.world.rcp.id, rcp_settings.reading_of(site.world.rcp)

    def write(which: int) -> str:
        changes = {"notification.jours": which + 3}
        try:
            site.steps.run(callers[which], lambda step: rcp_settings.edit(step, rcp_id, changes, expected=read).id)
        except Conflict as error:
            return error.code
        return "écrit"

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(write, (0, 1)))
    assert sorted(found) == ["reglages-changes", "écrit"]
    assert _rcp(site).notification["jours"] == (3 if found[0] == "écrit" else 4)


def test_only_the_organisers_of_that_very_rcp_have_the_page(site: Site, path: str, organiser: Browser) -> None:
    member = site.browser(_part(site, "MEMBRE", "membre"))
    member.get(path, status=403)
    member.post(path, status=403, **{"notification.jours": "9"})
    site.browser(site.world.stranger).get(path, status=404)
    site.browser(site.world.stranger).post(path, status=404, **{"notification.jours": "9"})
    assert site.browser().client.get(path).status_code == 303
    organiser.get(f"/rcp/{uuid.uuid4()}/reglages", status=404)
    organiser.get("/rcp/1/reglages", status=404)
    organiser.post(path, status=403, token="forgé", **{"notification.jours": "9"})
    assert _rcp(site).notification == {"active": True}
    assert len([one for one in site.audit() if one["event"] == "refus"]) >= 4
    link = "//a[text()='Réglages de la RCP']/@href"
    assert organiser.get(f"/rcp/{site.world.rcp.id}").xpath(link) == [path]
    assert not member.get(f"/rcp/{site.world.rcp.id}").xpath(link)
    assert not site.browser().get(f"/rcp/{site.world.rcp.id}").xpath(link)


def test_who_agreed_that_physicians_are_told_stands_with_the_date(site: Site, path: str, organiser: Browser) -> None:
    organiser.post(path, **(_filled(organiser, path) | {"notification.active": "non"}))
    assert "accord" not in _rcp(site).notification
    organiser.post(path, **(_filled(organiser, path) | {"notification.active": "oui"}))
    assert _rcp(site).notification["accord"] == {"par": "Camille PERRIN", "le": site.clock.at.isoformat()}
    assert "Camille PERRIN, le 15/03/2026 à 14h00" in words(organiser.get(path))


def test_settings_that_nobody_could_read_are_mended_by_the_page(site: Site, path: str, organiser: Browser) -> None:
    row = site.world.session.get_one(Rcp, site.world.rcp.id)
    row.fiche = {"obligatoires": ["couleur"], "inconnu": 1, "etiquettes": ["Sein"]}
    row.notification = {"active": True, "heure_envoi": "tôt", "fermetures": 3, "renotification": "x"}
    row.holidays = "reunion"
    site.world.session.commit()
    sent = _filled(organiser, path)
    assert (sent["notification.heure_envoi"], sent["holidays"]) == ("08:00", "la-reunion")
    organiser.post(path, status=422, **(sent | {"notification.jours": "3"}))
    answer = sent | {"notification.heure_envoi": "09:00", "notification.fermetures": "24/12/2026",
        "fiche.obligatoires.tumeur.tumeur.t": "oui"}  # fmt: skip
    organiser.post(path, **answer)
    kept = _rcp(site)
    assert kept.fiche == {"obligatoires": ["tumeur.t"], "etiquettes": ["Sein"]}
    # What is none of ours stays.
    assert kept.notification["renotification"] == "x"


def test_a_setting_of_no_name_or_of_another_kind_is_refused_by_the_verb(site: Site) -> None:
    caller = site.world.caller(site.world.coordinator)
    for changes in ({"couleur": "bleu"}, {"notification.jours": True}, {"notification.active": "peut-être"}):

        def write(step: Any, changes: dict[str, Any] = changes) -> None:
            rcp_settings.edit(step, site.world.rcp.id, changes)

        with pytest.raises(InvalidContent):
            site.steps.run(caller, write)
    # All boxes ticked can be kept.
    assert len(rcp_settings.settings()["fiche.obligatoires"].field.options) <= LIST_MAX
