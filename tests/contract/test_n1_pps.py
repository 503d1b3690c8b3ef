"""The national rules judge the PDF in a CDA envelope (N1), and refuse it when its envelope is falsified."""

from __future__ import annotations

from base64 import b64decode
from datetime import timedelta

import pytest
from lxml import etree
from msgspec.structs import replace

from gateway.documents import frcp, n1, pdf
from gateway.rcp.report_content import Replaced
from tests.report_samples import cisis, content, national_validator, whole

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
