"""What the coordinator writes on the page of a report stands in its page, its PDF and its CDA."""

from __future__ import annotations

import io
import re
from datetime import timedelta

import pypdf
import pytest
from lxml import etree

from gateway.model.dossier import Dossier
from gateway.model.meeting import Attendance
from tests.unit.portal.conftest import Browser, Site, words

NS = {"c": "urn:hl7-org:v3"}
ADVISED = {
    "recommandation-oncogeriatrie": "Consultation d’évaluation oncogériatrique",
    "recommandation-fertilite": "Consultation de préservation de la fertilité",
    "recommandation-oncogenetique": "Consultation d’oncogénétique",
}
SAID = {
    "synthese": "Masse du sein gauche de 28 mm.",
    "proposition": "Chirurgie première, puis discussion.",
    "outil": "Visio du 3C",
    "incidents": "Son coupé cinq minutes",
}


@pytest.fixture
def organiser(site: Site) -> Browser:
    world = site.world
    world.meeting.state = "ouverte"
    for name, speciality in (("LAVAL", "SM05"), ("SIMON", "SM45")):
        who = world.practitioner(name, speciality=speciality)
        world.session.add(Attendance(session_id=world.meeting.id, practitioner_id=who.id, speciality=speciality))
    site.clock.at = world.meeting.starts_at + timedelta(hours=1)
    return site.browser(world.coordinator)


@pytest.fixture
def path(site: Site) -> str:
    row: Dossier = site.world.dossier(question="Chirurgie première ou chimiothérapie ?")
    site.world.session.commit()
    return f"/dossiers/{row.id}/compte-rendu"


def _plain(said: str) -> str:
    return re.sub(r"\s+", " ", said.replace("’", "'")).strip()


def _squeezed(said: str) -> str:
    """Lines of a PDF break where the page does."""
    return re.sub(r"\s|\xad", "", said.replace("’", "'"))


def _forms(reader: Browser, path: str) -> tuple[str, str]:
    pdf = pypdf.PdfReader(io.BytesIO(reader.client.get(f"{path}/1.pdf").content))
    root = etree.fromstring(reader.client.get(f"{path}/1.cda.xml").content)
    narrative = " ".join(" ".join(one.itertext()) for one in root.xpath("//c:section/c:text", namespaces=NS))
    return "".join(page.extract_text() for page in pdf.pages), narrative


def _read(organiser: Browser, path: str) -> str:
    return str(organiser.get(path).xpath("//form//input[@name='version']/@value")[0])


def _validated(organiser: Browser, path: str, **said: str) -> None:
    organiser.post(path, version=_read(organiser, path), **said)
    read = str(organiser.get(f"{path}/validation").xpath("//input[@name='version']/@value")[0])
    organiser.post(f"{path}/validation", relu="oui", version=read)


@pytest.mark.req("S0-082")
def test_the_report_says_whether_the_file_was_complete_by_what_was_missing(
    site: Site, organiser: Browser, path: str
) -> None:
    """Images are missing: neither attached, nor said to be none."""
    base = path.removesuffix("/compte-rendu")
    assert "Il manque : Imagerie" in words(organiser.get(f"{base}/fiche"))
    _validated(organiser, path, **SAID)
    root = etree.fromstring(organiser.client.get(f"{path}/1.cda.xml").content)
    complete = "//c:observation[c:code/@code='GEN-100']/c:value/@value"
    assert root.xpath(complete, namespaces=NS) == ["false"]
    # Said to be none, the file is complete, and the correction says so.
    organiser.post(f"{path}/correction")
    read = str(organiser.get(f"{base}/fiche").xpath("//input[@name='version']/@value")[0])
    organiser.post(f"{base}/fiche", **{"examens.sans_imagerie": "oui"}, version=read)
    assert "Il manque" not in words(organiser.get(f"{base}/fiche"))
    _validated(organiser, path, **SAID, motif="Dossier complété")
    root = etree.fromstring(organiser.client.get(f"{path}/2.cda.xml").content)
    assert root.xpath(complete, namespaces=NS) == ["true"]


@pytest.mark.req("S2-044", "S4-008")
def test_synthesis_question_advice_proposal_and_tool_are_fields_and_are_in_every_form(
    site: Site, organiser: Browser, path: str
) -> None:
    page = organiser.get(path)
    labels = {one.get("for"): _plain(words(one)) for one in page.xpath("//label")}
    assert labels["proposition"] == "Proposition de prise en charge *"
    assert labels["synthese"] == "Synthèse du cas"
    assert labels["outil"] == "Outil de visioconférence"
    assert "Chirurgie première ou chimiothérapie ?" in words(page.xpath("//section[h2 = 'Question posée']")[0])
    for name, label in ADVISED.items():
        assert page.xpath(f"//input[@name='{name}']/@type")[-1] == "checkbox"
        assert labels[name] == _plain(label)
    _validated(organiser, path, **SAID, **dict.fromkeys(ADVISED, "oui"))
    reader = site.browser(site.world.treating)
    assert SAID["proposition"] in words(reader.get(path))
    pdf, cda = _forms(reader, path)
    for one in (*SAID.values(), *ADVISED.values(), "Chirurgie première ou chimiothérapie ?"):
        assert _squeezed(one) in _squeezed(pdf), one
        assert _squeezed(one) in _squeezed(cda), one


@pytest.mark.req("S2-048")
def test_question_synthesis_proposal_and_other_are_blocks_of_every_form(
    site: Site, organiser: Browser, path: str
) -> None:
    page = organiser.get(path)
    labels = {one.get("for"): _plain(words(one)) for one in page.xpath("//label")}
    assert labels["commentaire"] == "Autre"
    other = "La patiente souhaite être revue à Bayonne."
    _validated(organiser, path, **SAID, commentaire=other)
    pdf, cda = _forms(site.browser(site.world.treating), path)
    for form in (pdf, cda):
        for label, said in (
            ("Synthèse du cas", SAID["synthese"]),
            ("Question posée", "Chirurgie première ou chimiothérapie ?"),
            ("1re intention", SAID["proposition"]),
            ("Autre", other),
        ):
            assert _squeezed(label + said) in _squeezed(form).replace(":", ""), label


@pytest.mark.req("S4-034")
def test_the_report_is_the_trace_of_the_act(site: Site, organiser: Browser, path: str) -> None:
    """Information and agreement of the patient, tool, date and hours, who was there, what was decided, incidents."""
    decided = {
        "traitement-1-code": "C15632",
        "traitement-1-precision": "Paclitaxel hebdomadaire, douze cures",
    }
    organiser.post(path, status=303, version=_read(organiser, path), **SAID, **decided, accord="accord")
    assert organiser.get(path).xpath("//select[@name='accord']/option[@selected]/@value") == ["accord"]
    again = words(organiser.get(f"{path}/validation"))
    assert "Information et accord du patientPatient informé, d’accord" in again
    _validated(organiser, path, **SAID, **decided)
    pdf, cda = _forms(site.browser(site.world.treating), path)
    assert "jeudi19mars2026" in _squeezed(pdf)
    assert "14:00–16:00(heuredeParis)" in _squeezed(pdf)
    for one in (
        "Information et accord du patient : Patient informé, d’accord",
        f"Outil de visioconférence : {SAID['outil']}",
        f"Incidents techniques : {SAID['incidents']}",
        "LAVAL",
        "SIMON",
        SAID["proposition"],
        "Paclitaxel hebdomadaire, douze cures",
    ):
        assert _squeezed(one) in _squeezed(pdf), one
        assert _squeezed(one) in _squeezed(cda), one


def test_an_agreement_that_is_none_of_those_changes_nothing(site: Site, organiser: Browser, path: str) -> None:
    organiser.post(path, version=_read(organiser, path), **SAID, accord="informe")
    organiser.post(path, version=_read(organiser, path), **SAID, accord="peut-être")
    assert organiser.get(path).xpath("//select[@name='accord']/option[@selected]/@value") == ["informe"]
    organiser.post(path, version=_read(organiser, path), **SAID, accord="")
    assert organiser.get(path).xpath("//select[@name='accord']/option[@selected]/@value") == [""]
