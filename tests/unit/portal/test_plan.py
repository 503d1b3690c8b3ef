"""The care plan (PPS) by its pages: prefilled from the report, written, validated once, updated, downloaded."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import Any

import pytest
from lxml import etree
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from gateway.documents import pps as document
from gateway.errors import Conflict
from gateway.model.directory import PracticeRole
from gateway.model.dossier import Dossier
from gateway.model.meeting import Attendance, RcpMember
from gateway.model.plan import CarePlan
from gateway.rcp import fiche, pps, report
from gateway.rcp.report_draft import DraftExamination, DraftTreatment, ReportDraft
from tests.report_samples import cisis, national_validator, press
from tests.unit.portal.conftest import Browser, Site, words
from tests.unit.portal.test_fiche_form import _filled

NS = {"c": "urn:hl7-org:v3"}
SAID = ReportDraft(
    proposal="Chimiothérapie néoadjuvante, puis chirurgie.",
    treatments=(
        DraftTreatment(code="C15632", text="6 cycles", start="2026-04"),
        DraftTreatment(code="C547", text="5 ans"),
        DraftTreatment(code="C15252", text="équipe mobile"),
        DraftTreatment(code="C15313", rank=2),
    ),
    examinations=(DraftExamination(text="TEP-TDM", earliest="2026-03-25"),),
    follow_up="Consultation à trois mois.",
    supportive_care="Diététicienne.",
    recommended=("oncogeriatrie", "fertilite"),
    remark="Préfère être traitée près de chez elle.",
)


@pytest.fixture
def dossier(site: Site, blobs) -> Dossier:
    """A dossier whose report is validated."""
    world = site.world
    world.meeting.state = "ouverte"
    for name, speciality in (("LAVAL", "SM05"), ("SIMON", "SM45")):
        who = world.practitioner(name, speciality=speciality)
        world.session.add(Attendance(session_id=world.meeting.id, practitioner_id=who.id, speciality=speciality))
    row = world.dossier()
    role = {"organisation_id": world.organisation.id, "source": "essai", "as_of": date(2026, 3, 1)}
    world.session.add(PracticeRole(practitioner_id=world.requester.id, **role))
    world.session.commit()
    site.clock.at = world.meeting.starts_at + timedelta(hours=1)
    caller = world.caller(world.coordinator)
    ongoing = [{"type": "C93352", "etat": "en-cours", "debut": "2026-02"}, {"type": "C15632", "etat": "fait"}]
    site.steps.run(caller, lambda step: fiche.edit(step, row.id, {"traitements": ongoing}).id)
    site.steps.run(caller, lambda step: report.draft(step, row.id, SAID).id)
    site.steps.run(caller, lambda step: report.validate(step, row.id, press(blobs)).id)
    return row


@pytest.fixture
def path(dossier: Dossier) -> str:
    return f"/dossiers/{dossier.id}/pps"


@pytest.fixture
def requester(site: Site) -> Browser:
    return site.browser(site.world.requester)


def _plans(site: Site) -> list[CarePlan]:
    return list(site.fresh().session.scalars(select(CarePlan).order_by(CarePlan.version)))


def _validated(browser: Browser, path: str, **more: str) -> None:
    browser.post(path, **(_form(browser, f"{path}?nouvelle=1") | more))
    browser.post(f"{path}/validation", relu="oui", version=_version(browser, f"{path}/validation"))


def _form(browser: Browser, path: str) -> dict[str, str]:
    return {name: value for name, value in _filled(browser, path).items() if name != "suite"}


def _version(browser: Browser, path: str) -> str:
    return str(browser.get(path).xpath("//input[@name='version']/@value")[0])


def _tree(browser: Browser, path: str) -> Any:
    answer = browser.client.get(path)
    assert answer.status_code == 200
    return etree.fromstring(answer.content)


def test_the_first_draft_says_already_what_report_and_fiche_say(
    site: Site, requester: Browser, dossier: Dossier, path: str
) -> None:
    sent = _form(requester, path)
    # Codes of the plan's own sets: hormone therapy has another one there, palliative care none.
    wanted = {
        "traitement.0.type": "C15632",
        "traitement.0.texte": "6 cycles",
        "traitement.0.prevu_de": "2026-04",
        "traitement.0.commentaire": "Chimiothérapie néoadjuvante, puis chirurgie.",
        "traitement.1.type": "C15445",
        "traitement.1.texte": "5 ans",
        "traitement.1.commentaire": "",
        "traitement.2.type": "GEN-092.03.01",
        "traitement.2.texte": "soins palliatifs – équipe mobile",
        "traitement.3.type": "C93352",
        "traitement.3.debut": "2026-02",
        "traitement.4.type": "",
        "mesure.0.type": "ORG-001",
        "suivi.0.texte": "TEP-TDM",
        "suivi.0.prevu_de": "2026-03-25",
        "suivi.1.texte": "Consultation à trois mois.",
        "soins-support.0.type": "MED-051",
        "soins-support.1.texte": "Diététicienne.",
        "contacts.0.role": "reference",
        "contacts.0.structure": "CHU X",
        "contacts.1.structure": "3C d’essai",
        "patient": "Préfère être traitée près de chez elle.",
    }
    assert {name: sent.get(name) for name in wanted} == wanted
    # A first version has no reason of update; reading writes nothing.
    assert "motif" not in sent
    assert _plans(site) == []
    assert "Programme personnalisé de soins (PPS)" in words(requester.get(f"/dossiers/{dossier.id}/compte-rendu"))


@pytest.mark.req("S2-031")
def test_it_is_validated_once_kept_and_read_by_who_sees_the_dossier(
    site: Site, requester: Browser, dossier: Dossier, path: str
) -> None:
    more = {"suite": "valider", "accompagnement.0.type": "PAT-024", "accompagnement.0.texte": "Deux heures",
        "remis": "2026-03-20", "contacts.0.nom": "BASTIDE", "contacts.0.prenom": "Nadia"}  # fmt: skip
    assert requester.post(path, **(_form(requester, path) | more)).headers["location"] == f"{path}/validation"
    page = words(requester.get(f"{path}/validation"))
    for said in ("Aide à domicile – Deux heures", "Traitement (prévu)", "20/03/2026", "Remis au patient"):
        assert said in page, said
    read = _version(requester, f"{path}/validation")
    assert "Cochez la case" in requester.post(f"{path}/validation", status=422, version=read).text
    # A double click, and both at once.
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: requester.post(f"{path}/validation", relu="oui", version=read), range(2)))
    requester.post(f"{path}/validation", relu="oui", version=read)
    [plan] = _plans(site)
    assert (plan.state, plan.version, plan.author_id) == ("valide", 1, site.world.requester.id)
    treating = site.browser(site.world.treating)
    page = treating.get(path)
    assert "Aide à domicile – Deux heures" in words(page)
    assert not page.xpath("//main//form")
    answer = treating.client.get(f"{path}/1.cda.xml")
    assert hashlib.sha256(answer.content).hexdigest() == plan.sha256
    assert answer.headers["content-disposition"] == f'attachment; filename="pps-{dossier.reference}-v1.cda.xml"'
    read_back = etree.fromstring(answer.content)
    coded = ".//c:procedure[c:code/@code='{}']/c:code/c:qualifier/c:value/@code"
    assert read_back.xpath(coded.format("MED-568"), namespaces=NS) == ["C15632", "C15445", "GEN-092.03.01", "C93352"]
    assert read_back.xpath(coded.format("MED-573"), namespaces=NS) == ["PAT-024"]
    given = ".//c:observation[c:code/@code='GEN-178']/c:value/@value"
    assert read_back.xpath(given, namespaces=NS) == ["20260320"]
    kept_report = treating.client.get(f"/dossiers/{dossier.id}/compte-rendu/1.cda.xml").content
    followed = etree.fromstring(kept_report).xpath("c:id/@root", namespaces=NS)
    assert read_back.xpath(".//c:externalDocument/c:id/@root", namespaces=NS) == followed
    lines = [(one["event"], one.get("object_type")) for one in site.audit()]
    assert lines.count(("validation", "CarePlan")) == 1
    assert ("consultation", "CarePlan") in lines
    # Who follows the patient is told where he looks (S2-031).
    news = words(treating.get("/patients"))
    assert "Nouveau PPS généré par MERCIER Camille (CHU X)" in news
    assert "À venir : présentation en Sein le 19/03/2026" in news
    assert "Compte rendu disponible" in news


def test_an_update_says_why_and_replaces(site: Site, requester: Browser, path: str) -> None:
    _validated(requester, path, remis="2026-03-20")
    page = requester.get(path)
    assert not page.xpath("//main//form[@action]")
    [again] = page.xpath("//a[contains(text(), 'nouvelle version')]/@href")
    sent = _form(requester, again)
    # What the first version said is there, but for what is said of one version only.
    assert sent["traitement.1.texte"] == "5 ans"
    assert (sent["remis"], sent["motif"]) == ("", "")
    requester.post(path, **(sent | {"arret": "oui", "arret.date": "2026-05-02"}))
    read = _version(requester, f"{path}/validation")
    answer = requester.post(f"{path}/validation", status=422, relu="oui", version=read)
    assert "Choisissez le motif de la mise à jour" in answer.text
    requester.post(path, **(_form(requester, path) | {"motif": "MED-104"}))
    requester.post(f"{path}/validation", relu="oui", version=_version(requester, f"{path}/validation"))
    first, second = _plans(site)
    assert (first.state, second.state, second.version) == ("remplace", "valide", 2)
    assert second.set_id == first.set_id
    old, new = _tree(requester, f"{path}/1.cda.xml"), _tree(requester, f"{path}/2.cda.xml")
    parent = "c:relatedDocument[@typeCode='RPLC']/c:parentDocument/"
    assert new.xpath(f"{parent}c:id/@root", namespaces=NS) == old.xpath("c:id/@root", namespaces=NS)
    assert new.xpath("c:versionNumber/@value", namespaces=NS) == ["2"]
    assert new.xpath("c:setId/@root", namespaces=NS) == old.xpath("c:setId/@root", namespaces=NS)
    reason = ".//c:observation[c:code/@code='GEN-037']/c:value/@code"
    assert (old.xpath(reason, namespaces=NS), new.xpath(reason, namespaces=NS)) == ([], ["MED-104"])
    assert new.xpath(".//c:observation[c:code/@code='MED-052']/c:value/@value", namespaces=NS) == ["true"]
    headers = requester.client.get(f"{path}/1.cda.xml").headers
    assert headers["link"] == '<2.cda.xml>; rel="successor-version"'
    assert headers["content-disposition"].endswith('-v1-remplace.cda.xml"')


@pytest.mark.skipif(cisis() is None, reason="les règles nationales (CISIS_DIR) ne sont pas sur ce poste")
def test_the_national_rules_accept_both_versions(site: Site, requester: Browser, path: str) -> None:
    _validated(requester, path, notice="Vos données sont protégées.", pediatrie="Sans objet.")
    _validated(requester, path, motif="GEN-176", remis="2026-04")
    judge = national_validator().Validator()
    for version in (1, 2):
        found = judge.validate(requester.client.get(f"{path}/{version}.cda.xml").content, profile="pps")
        assert [str(one) for one in found if one.severity == "error"] == []


def test_what_is_validated_never_changes_even_for_the_database(site: Site, requester: Browser, path: str) -> None:
    _validated(requester, path)
    session = site.fresh().session
    for change in (
        "UPDATE care_plan SET draft = '{}'",
        "UPDATE care_plan SET sha256 = 'x'",
        "UPDATE care_plan SET content = NULL, sha256 = NULL, state = 'brouillon'",
        "DELETE FROM care_plan",
    ):
        with pytest.raises(DBAPIError, match="a validated plan"):
            session.execute(text(change))
        session.rollback()


def test_what_somebody_else_wrote_meanwhile_is_said_and_not_overwritten(
    site: Site, requester: Browser, path: str
) -> None:
    other = site.browser(site.world.coordinator)
    mine, theirs = _form(requester, path), _form(other, path)
    other.post(path, **(theirs | {"patient": "Vit seule."}))
    answer = requester.post(path, status=409, **(mine | {"patient": "Vit chez sa fille."}))
    assert "le PPS dit maintenant « Vit seule. »" in answer.text.replace("\u00a0", " ")
    assert "Vit chez sa fille." in answer.text
    [plan] = _plans(site)
    assert plan.draft["patient"] == "Vit seule."
    # What was read before is not what would be validated.
    read = _version(other, f"{path}/validation")
    requester.post(path, **(_form(requester, path) | {"patient": "Vit chez sa fille."}))
    other.post(f"{path}/validation", status=409, relu="oui", version=read)
    assert [one.state for one in _plans(site)] == ["brouillon"]


def test_two_first_drafts_at_once_are_one(site: Site, dossier: Dossier) -> None:
    people = [site.world.caller(site.world.requester), site.world.caller(site.world.coordinator)]
    with site.steps.store.session() as session:
        following = pps.followed(session, dossier.id)
        assert following is not None
        read = pps.reading_of(session, dossier.id, following)

    def write(which: int) -> str:
        try:
            said = {"patient": f"Texte {which}"}
            site.steps.run(people[which], lambda step: pps.write(step, dossier.id, said, expected=read).id)
        except Conflict as error:
            return error.code
        return "écrit"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(write, range(2))) == ["pps-change", "écrit"]
    assert len(_plans(site)) == 1


def test_a_crash_before_the_commit_leaves_neither_plan_nor_bytes(
    site: Site, dossier: Dossier, requester: Browser, path: str, blobs
) -> None:
    requester.post(path, **_form(requester, path))
    caller = site.world.caller(site.world.requester)
    rendered: list[bytes] = []

    def render(content: Any) -> bytes:
        rendered.append(document.render(content))
        return rendered[-1]

    def verb(step: Any) -> None:
        pps.validate(step, dossier.id, render, blobs)
        raise RuntimeError("the process ends here")

    with pytest.raises(RuntimeError):
        site.steps.run(caller, verb)
    assert [one.state for one in _plans(site)] == ["brouillon"]
    assert blobs.size(hashlib.sha256(rendered[0]).hexdigest()) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("traitement.0.type", "C547"),
        ("suivi.0.type", "Z"),
        ("traitement.0.prevu_de", "2026-02-31"),
        ("remis", "demain"),
        ("accompagnement.0.texte", "sans type"),
        ("contacts.0.role", "voisin"),
        ("patient", "x" * 20_001),
    ],
)
def test_a_fault_stands_beside_its_field_and_nothing_is_kept(
    site: Site, requester: Browser, path: str, name: str, value: str
) -> None:
    answer = requester.post(path, status=422, **(_form(requester, path) | {name: value}))
    assert "-erreur" in answer.text
    assert _plans(site) == []


def test_a_plan_that_plans_nothing_or_ends_before_it_begins_is_not_validated(
    site: Site, requester: Browser, path: str
) -> None:
    empty = {name: "" for name in _form(requester, path) if name != "version"}
    requester.post(path, **(_form(requester, path) | empty))
    answer = requester.post(
        f"{path}/validation", status=422, relu="oui", version=_version(requester, f"{path}/validation")
    )
    assert "Écrivez au moins un soin" in answer.text
    backwards = {"traitement.0.type": "C15632", "traitement.0.debut": "2026-05", "traitement.0.fin": "2026-04"}
    requester.post(path, **(_form(requester, path) | backwards))
    requester.post(f"{path}/validation", status=422, relu="oui", version=_version(requester, f"{path}/validation"))
    assert [one.state for one in _plans(site)] == ["brouillon"]
    read = _version(requester, path)
    requester.post(path, **(_form(requester, path) | {"patient": "Vit seule."}))
    requester.post(f"{path}/abandon", status=409, version=read)  # who opened it before would throw away what is unread
    assert [one.state for one in _plans(site)] == ["brouillon"]
    requester.post(f"{path}/abandon", version=_version(requester, path))
    assert _plans(site) == []
    requester.post(f"{path}/abandon", status=409)


@pytest.fixture
def member(site: Site) -> Browser:
    who = site.world.practitioner("MEMBRE")
    site.world.session.add(RcpMember(rcp_id=site.world.rcp.id, practitioner_id=who.id, role="membre"))
    site.world.session.commit()
    return site.browser(who)


def test_who_reads_the_dossier_does_not_write_its_plan(
    site: Site, dossier: Dossier, path: str, member: Browser, requester: Browser
) -> None:
    requester.post(path, **_form(requester, path))
    for reader in (member, site.browser(site.world.treating)):
        page = reader.get(path)
        assert not page.xpath("//main//form")
        assert "Diététicienne" not in words(page)
        reader.post(path, status=403, patient="X")
        reader.get(f"{path}/validation", status=403)
        reader.post(f"{path}/validation", status=403, relu="oui", version="x")
        reader.post(f"{path}/abandon", status=403)
    stranger = site.browser(site.world.stranger)
    for tried in (path, f"{path}/validation", f"{path}/1.cda.xml"):
        stranger.get(tried, status=404)
    stranger.post(path, status=404, patient="X")
    requester.get(f"{path}/1.cda.xml", status=404)
    requester.get(f"{path}/1.pdf", status=404)
    requester.post(path, status=403, token="forgé", patient="X")
    assert [one.state for one in _plans(site)] == ["brouillon"]


def test_without_a_report_in_force_there_is_nothing_to_follow(site: Site, requester: Browser) -> None:
    row = site.world.dossier()
    site.world.session.commit()
    path = f"/dossiers/{row.id}/pps"
    assert "se rédige à partir du compte rendu validé" in words(requester.get(path))
    requester.post(path, status=409, patient="X")
    assert site.fresh().session.scalar(select(func.count()).select_from(CarePlan)) == 0
