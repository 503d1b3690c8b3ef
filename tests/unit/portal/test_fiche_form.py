"""The fiche by its form: every kind of field, who may, what is required, and two people at once."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from sqlalchemy import select

from gateway.model.dossier import Dossier
from gateway.model.meeting import Rcp
from gateway.model.report import Report
from gateway.rcp import fiche
from tests.unit.portal.conftest import Browser, Site, words


@pytest.fixture
def dossier(site: Site) -> Dossier:
    clinical = {
        "tumour": {"label": "Tumeur du sein", "topography": {"code": "C50.4", "text": "Quadrant supéro-externe"}},
        "form": {"completed": True, "answers": [{"link_id": "etat.oms", "values": [1]}]},
    }
    row = site.world.dossier(clinical=clinical)
    site.world.session.commit()
    return row


@pytest.fixture
def requester(site: Site) -> Browser:
    return site.browser(site.world.requester)


def _path(row: Dossier) -> str:
    return f"/dossiers/{row.id}/fiche"


def _filled(browser: Browser, path: str) -> dict[str, str]:
    """What a browser would send back untouched."""
    form = browser.get(path).xpath("//main//form")[0]
    sent = {
        one.get("name"): one.get("value") or ""
        for one in form.xpath(".//input[@type='text' or @type='hidden' or @checked]")
        if one.get("name") != "csrf"
    }
    sent |= {one.get("name"): (one.text or "").lstrip("\n") for one in form.xpath(".//textarea")}
    for select_ in form.xpath(".//select"):
        chosen = select_.xpath("./option[@selected]") or select_.xpath("./option")
        sent[select_.get("name")] = chosen[0].get("value")
    return sent


def _values(site: Site, row: Dossier) -> dict[str, Any]:
    found = site.fresh().session.get_one(Dossier, row.id)
    return {key: one.value for key, one in fiche.statements(found).items()}


@pytest.mark.req("S2-016")
def test_what_is_known_stands_in_the_form_and_untouched_changes_nothing(
    site: Site, dossier: Dossier, requester: Browser
) -> None:
    sent = _filled(requester, _path(dossier))
    assert sent["tumeur.code"] == "C50.4 – Tumeur maligne du quadrant supéro-externe du sein"
    assert sent["etat.oms"] == "1"
    before = _values(site, dossier)
    token = {name: value for name, value in sent.items() if name != "csrf_token"}
    requester.post(_path(dossier), **token)
    assert _values(site, dossier) == before
    assert site.fresh().session.get_one(Dossier, dossier.id).clinical == dossier.clinical


def test_each_kind_of_field_is_kept_by_its_national_code(site: Site, dossier: Dossier, requester: Browser) -> None:
    sent = _filled(requester, _path(dossier)) | {
        "titre": "Tumeur du sein gauche",
        "motif.appareil": "76752008",
        "motif.organes.0": "76752008",
        "motif.organes.1": "39937001",
        "motif.motifs.ORG-114": "oui",
        "tumeur.code": "C50.2",
        "tumeur.morphologie": "8500/3 – Carcinome canalaire infiltrant, SAI",
        "tumeur.lateralite": "7771000",
        "tumeur.date": "2026-02",
        "tumeur.t": "T2",
        "decouverte.depistage": "oui",
        "etat.g8": "13",
        "phase.progression": "non",
        "antecedents.texte": "Appendicectomie.\r\nAsthme.",
        "traitements.0.type": "C15632",
        "traitements.0.etat": "fait",
        "traitements.0.debut": "2019-02",
        "acp.0.conclusion": "Carcinome infiltrant.",
        "presentateur": site.world.coordinator.idnps,
    }
    requester.post(_path(dossier), **sent)
    found = _values(site, dossier)
    wanted = {
        "titre": "Tumeur du sein gauche",
        "motif.appareil": "76752008",
        "motif.organes": ["76752008", "39937001"],
        "motif.motifs": ["ORG-114"],
        "tumeur.code": "C50.2",
        "tumeur.morphologie": "8500/3",
        "tumeur.lateralite": "7771000",
        "tumeur.date": "2026-02",
        "tumeur.t": "T2",
        "decouverte.depistage": True,
        "etat.oms": 1,
        "etat.g8": 13,
        "phase.progression": False,
        "antecedents.texte": "Appendicectomie.\nAsthme.",
        "traitements": [{"type": "C15632", "etat": "fait", "debut": "2019-02"}],
        "acp": [{"conclusion": "Carcinome infiltrant."}],
        "presentateur": site.world.coordinator.idnps,
    }
    assert {key: found.get(key) for key in wanted} == wanted
    page = words(requester.get(f"/dossiers/{dossier.id}"))
    assert "Saisi par Camille MERCIER" in page
    for said in ("Appendicectomie.", "Carcinome infiltrant.", "chimiothérapie", "02/2026", "T2"):
        assert said in page, said
    # Erased is erased, although the form of the hospital still says it.
    requester.post(_path(dossier), **(_filled(requester, _path(dossier)) | {"etat.oms": "", "traitements.0.type": "",
        "traitements.0.etat": "", "traitements.0.debut": "", "motif.organes.0": ""}))  # fmt: skip
    found = _values(site, dossier)
    assert "etat.oms" not in found
    assert "traitements" not in found
    assert found["motif.organes"] == ["39937001"]


@pytest.mark.req("S0-069")
def test_an_edit_is_a_new_version_with_its_author_and_ends_with_the_validation(
    site: Site, dossier: Dossier, requester: Browser
) -> None:
    version = dossier.version
    requester.post(_path(dossier), **(_filled(requester, _path(dossier)) | {"tumeur.t": "T2"}))
    edited = site.fresh().session.get_one(Dossier, dossier.id)
    assert edited.version == version + 1
    kept = fiche.statements(edited)["tumeur.t"]
    assert (kept.value, kept.by, kept.at) == ("T2", "Camille MERCIER", site.clock.at)
    assert [one["event"] for one in site.audit()].count("modification") == 1
    who = site.world.coordinator.id
    frozen = {"content": b"{}", "validated_at": site.clock.at, "validator_id": who}
    row = Report(dossier_id=dossier.id, set_id=uuid.uuid4(), version=1, state="valide", author_id=who, **frozen)
    site.world.session.add(row)
    site.world.session.commit()
    requester.get(_path(dossier), status=409)
    requester.post(_path(dossier), status=409, **{"tumeur.t": "T3"})
    assert _values(site, dossier)["tumeur.t"] == "T2"
    assert not requester.get(f"/dossiers/{dossier.id}").xpath("//a[text()='Modifier la fiche']")


def test_what_somebody_else_wrote_meanwhile_is_said_and_not_overwritten(
    site: Site, dossier: Dossier, requester: Browser
) -> None:
    other = site.browser(site.world.coordinator)
    mine, theirs = _filled(requester, _path(dossier)), _filled(other, _path(dossier))
    other.post(_path(dossier), **(theirs | {"tumeur.t": "T3"}))
    answer = requester.post(_path(dossier), status=409, **(mine | {"tumeur.t": "T1", "tumeur.n": "N1"}))
    assert "la fiche dit maintenant « T3 »" in answer.text.replace("\u00a0", " ")
    assert _values(site, dossier)["tumeur.t"] == "T3"
    # The same form twice is one change, not a quarrel.
    again = _filled(requester, _path(dossier)) | {"tumeur.t": "T1"}
    requester.post(_path(dossier), **again)
    requester.post(_path(dossier), **again)
    assert _values(site, dossier)["tumeur.t"] == "T1"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tumeur.code", "Z99.9"),
        ("tumeur.t", "T9"),
        # What the classification does not have was taken here and refused at the validation only.
        ("tumeur.t", "cpT2"),
        ("tumeur.stade", "2A"),
        ("tumeur.edition", "3"),
        ("tumeur.morphologie", "8500/9"),
        ("tumeur.date", "2026-02-30"),
        ("tumeur.date", "hier"),
        ("etat.g8", "beaucoup"),
        ("motif.organes.0", "1"),
        ("antecedents.texte", "x" * 20_001),
        ("traitements.0.texte", "Six cycles"),
    ],
)
def test_a_fault_stands_beside_its_field_and_nothing_is_kept(
    site: Site, dossier: Dossier, requester: Browser, field: str, value: str
) -> None:
    before = _values(site, dossier)
    sent = _filled(requester, _path(dossier)) | {"tumeur.n": "N1", field: value}
    answer = requester.post(_path(dossier), status=422, **sent)
    assert "Erreur" in answer.text
    assert 'value="N1"' in answer.text
    assert _values(site, dossier) == before


@pytest.mark.req("S0-063")
def test_mandatory_fields_bear_an_asterisk_and_the_server_enforces_them(site: Site, requester: Browser) -> None:
    site.world.session.get_one(Rcp, site.world.rcp.id).fiche = {
        "obligatoires": ["tumeur.t"],
        "etiquettes": ["Sein", "Recours"],
        "etiquettes_obligatoires": True,
    }
    row = site.world.dossier(state="inscrit", prefiche_at=None)
    site.world.session.commit()
    page = requester.get(_path(row))
    [letter] = page.xpath("//input[@id='tumeur.t']")
    assert letter.get("aria-required") == "true"
    assert words(page.xpath("//label[@for='tumeur.t']")[0]) == "T *"
    assert not page.xpath("//input[@id='tumeur.n']/@aria-required")
    assert "Il manque" in words(page)
    sent = _filled(requester, _path(row))
    answer = requester.post(_path(row), status=422, **(sent | {"suite": "complete", "etiquettes.Sein": "oui"}))
    assert "Cette RCP demande encore" in answer.text
    assert site.fresh().session.get_one(Dossier, row.id).state == "inscrit"
    answer = requester.post(_path(row), status=422, **(sent | {"etiquettes.urgence": "oui", "etiquettes.Sein": "oui"} |
        {"tumeur.t": "T9"}))  # fmt: skip
    requester.post(_path(row), **(sent | {"suite": "complete", "etiquettes.Sein": "oui", "tumeur.t": "T2"}))
    kept = site.fresh().session.get_one(Dossier, row.id)
    assert (kept.state, fiche.statements(kept)["etiquettes"].value) == ("prefiche", ["Sein"])
    # None left where one is needed: refused.
    sent = {name: value for name, value in _filled(requester, _path(row)).items() if name != "etiquettes.Sein"}
    assert "choisissez au moins une étiquette" in requester.post(_path(row), status=422, **sent).text


def test_the_treating_physician_and_strangers_have_no_form(site: Site, dossier: Dossier) -> None:
    treating, stranger = site.browser(site.world.treating), site.browser(site.world.stranger)
    treating.get(_path(dossier), status=403)
    treating.post(_path(dossier), status=403, **{"tumeur.t": "T2"})
    stranger.get(_path(dossier), status=404)
    site.browser(site.world.coordinator).get(_path(dossier))
    assert not treating.get(f"/dossiers/{dossier.id}").xpath("//a[text()='Modifier la fiche']")
    assert "tumeur.t" not in _values(site, dossier)
    refusals = [one for one in site.audit() if one["event"] == "refus"]
    assert len(refusals) >= 2
    assert site.world.session.scalars(select(Report)).first() is None
