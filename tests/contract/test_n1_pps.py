"""The national rules judge the PDF in a CDA envelope (N1) and the care plan (PPS), and refuse them once falsified."""

from __future__ import annotations

import io
import zipfile
from base64 import b64decode
from datetime import timedelta

import pytest
from lxml import etree
from msgspec.structs import replace

from gateway.documents import frcp, n1, pdf, pps
from gateway.mssante.report_mail import Forms
from gateway.mssante.xdm_metadata import Sender
from gateway.rcp.report_content import CodedValue, Organisation, Replaced
from tests.report_samples import cisis, content, national_validator, plan, whole

pytestmark = pytest.mark.skipif(cisis() is None, reason="les règles nationales (CISIS_DIR) ne sont pas sur ce poste")

NS = {"c": "urn:hl7-org:v3"}


@pytest.fixture(scope="module")
def judge():
    validator = national_validator().Validator()

    def errors(document: bytes, profile: str) -> list[str]:
        return [str(f) for f in validator.validate(document, profile=profile) if f.severity == "error"]

    return errors


def _second(first):
    return replace(
        first,
        version=2,
        document_id=replace(first.document_id, root=first.set_id.root + ".2"),
        written_at=first.written_at + timedelta(days=1),
        replaces=Replaced(document_id=first.document_id, version=1, validated_at=first.written_at),
    )


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param(content(), id="complet"),
        pytest.param(content("minimal"), id="minimal"),
        pytest.param(whole(), id="dix-huit sections"),
        pytest.param(_second(content()), id="remplacement"),
        pytest.param(replace(content(), treating_physician=None), id="sans médecin traitant"),
    ],
)
def test_national_rules_accept_the_pdf_in_its_envelope(judge, facts):
    page = pdf.render(facts)
    document = n1.render(facts, page)
    assert judge(document, "n1") == []
    root = etree.fromstring(document)
    templates = root.xpath("c:templateId/@root", namespaces=NS)
    assert templates == ["2.16.840.1.113883.2.8.2.1", "1.2.250.1.213.1.1.1.1", "1.3.6.1.4.1.19376.1.2.20"]
    [text] = root.xpath("c:component/c:nonXMLBody/c:text[@representation='B64']", namespaces=NS)
    assert text.get("mediaType") == "application/pdf"
    assert b64decode(text.text, validate=True) == page


@pytest.mark.parametrize("second", [False, True])
def test_national_rules_accept_both_documents_of_a_mail(judge, second):
    """The bytes that stand in the zip, those of a first sending and of its replacement."""
    facts = _second(content()) if second else content()
    house = Organisation(name="3C")
    sender = Sender(source_id="1.2.250.1.999.77", organisation=house, application="", version="", publisher="")
    forms = {form.form: form.content for form in Forms(sender, with_n1=True).render(facts)}
    archive = zipfile.ZipFile(io.BytesIO(forms["xdm"]))
    assert judge(archive.read("IHE_XDM/SUBSET01/DOC0001.XML"), "frcp") == []
    assert judge(archive.read("IHE_XDM/SUBSET01/DOC0002.XML"), "n1") == []


@pytest.mark.parametrize(
    ("path", "attribute", "value"),
    [
        ("c:templateId[@root='1.3.6.1.4.1.19376.1.2.20']", None, None),
        ("c:templateId[@root='1.3.6.1.4.1.19376.1.2.20']", "root", "1.2.250.1.213.1.1.1.8"),
        ("c:recordTarget//c:family[@qualifier='BR']", None, None),
        ("c:code", "code", "00000-0"),
        ("c:languageCode", "code", "fr"),
    ],
)
def test_national_rules_would_refuse_a_false_envelope(judge, path, attribute, value):
    root = etree.fromstring(n1.render(content("minimal"), b"%PDF-1.4\n"))
    [target] = root.xpath(path, namespaces=NS)
    if attribute is None:
        target.getparent().remove(target)
    else:
        target.set(attribute, value)
    assert judge(etree.tostring(root), "n1") != []


def test_the_structured_report_and_its_envelope_are_two_documents_of_one_patient():
    structured = etree.fromstring(frcp.render(_second(content())))
    envelope = etree.fromstring(n1.render(_second(content()), b"%PDF-1.4\n"))
    ids = "c:id/@root | c:setId/@root | c:relatedDocument/c:parentDocument/c:id/@root"
    assert not set(structured.xpath(ids, namespaces=NS)) & set(envelope.xpath(ids, namespaces=NS))
    for path in ("c:versionNumber/@value", "c:recordTarget//c:id/@extension", "c:code/@code", "c:title/text()"):
        assert structured.xpath(path, namespaces=NS) == envelope.xpath(path, namespaces=NS)


def _plans():
    full = plan()
    yield "complet", full
    yield "rapport minimal", replace(full, report=content("minimal"))
    yield "rapport complet", replace(full, report=whole())
    yield "sans soin", replace(full, care=(), stopped=None, given_on=None, patient_comment=None, notice=None)
    yield "arrêt des traitements", replace(full, stopped=True, stopped_on="2026-12-03")
    yield "brouillon", replace(full, status="en-cours", contacts=())
    yield (
        "pédiatrie",
        replace(full, report=replace(full.report, paediatric_board=True), paediatric_comment="Suivi 15 ans."),
    )
    yield (
        "mise à jour",
        replace(
            full,
            version=2,
            document_id=replace(full.document_id, root="1.2.250.1.999.77.2.20261204.7.2"),
            replaces=Replaced(document_id=full.document_id, version=1, validated_at=full.written_at),
            update_reason=CodedValue("GEN-176", "1.2.250.1.213.1.1.4.322", "Modification de calendrier"),
        ),
    )


PLANS = dict(_plans())


@pytest.mark.parametrize("name", PLANS)
def test_national_rules_accept_a_plan(judge, name):
    document = pps.render(PLANS[name])
    assert judge(document, "pps") == []
    assert pps.render(PLANS[name]) == document


@pytest.mark.parametrize("category", ["MED-568", "MED-569", "MED-570", "MED-571", "MED-572", "MED-573"])
def test_national_rules_would_refuse_a_care_of_another_set(judge, category):
    root = etree.fromstring(pps.render(plan()))
    values = root.xpath(f".//c:procedure/c:code[@code='{category}']/c:qualifier/c:value", namespaces=NS)
    assert values
    values[0].set("code", "ORG-999")
    assert judge(etree.tostring(root), "pps") != []


def test_national_rules_would_refuse_a_reason_of_another_set_or_another_model(judge):
    root = etree.fromstring(pps.render(PLANS["mise à jour"]))
    [reason] = root.xpath(".//c:observation[c:code/@code='GEN-037']/c:value", namespaces=NS)
    assert reason.get("code") == "GEN-176"
    reason.set("code", "GEN-999")
    assert judge(etree.tostring(root), "pps") != []
    root = etree.fromstring(pps.render(plan()))
    [template] = root.xpath("c:templateId[@extension='2022.01']", namespaces=NS)
    template.set("root", "1.2.250.1.213.1.1.1.8")
    assert judge(etree.tostring(root), "pps") != []
