"""Identity of the PDF in its envelope, and what is refused before it is made."""

from __future__ import annotations

import pytest
from lxml import etree
from msgspec.structs import replace

from gateway.documents import n1
from gateway.errors import Fault, InvalidContent
from gateway.rcp.report_content import Identifier
from tests.report_samples import content

NS = {"c": "urn:hl7-org:v3"}


@pytest.mark.parametrize(
    ("report", "envelope"),
    [
        (Identifier("1.2.250.1.999.77.1.20261126.1042.1"), Identifier("1.2.250.1.999.77.1.20261126.1042.1.0")),
        (Identifier("1.2.250.1.999.77", "1042.1"), Identifier("1.2.250.1.999.77", "1042.1-N1")),
        # uuid5 of « N1 » in the report's UUID, computed by hand: SHA-1 of its 16 bytes and the name.
        (Identifier("6A1F3F0E-5A55-4C2C-9A51-0C6F7D2C8D10"), Identifier("231B3C05-DFEE-5F67-8DD0-7E8C8E878E8B")),
    ],
)
def test_the_envelope_has_an_identity_of_its_own(report, envelope):
    assert n1.identity(report) == envelope
    assert n1.identity(report) == n1.identity(report)


def test_each_version_of_the_envelope_replaces_the_former_envelope():
    first = content()
    made = etree.fromstring(n1.render(first, b"%PDF-1.4\n"))
    assert made.xpath("c:id/@root", namespaces=NS) == ["1.2.250.1.999.77.1.20261126.1042.1.0"]
    assert made.xpath("c:setId/@root", namespaces=NS) == ["1.2.250.1.999.77.1.20261126.1042.0"]
    assert made.xpath("c:relatedDocument", namespaces=NS) == []


def test_same_facts_and_page_same_bytes():
    assert n1.render(content(), b"%PDF-1.4\n") == n1.render(content(), b"%PDF-1.4\n")


def test_what_is_no_pdf_is_not_put_into_an_envelope():
    with pytest.raises(Fault) as refusal:
        n1.render(content(), b"<html>")
    assert refusal.value.code == "report-n1"


def test_the_header_is_judged_as_that_of_the_structured_report():
    with pytest.raises(InvalidContent, match="FRCP-09"):
        n1.render(replace(content(), validator=replace(content().validator, idnps=None)), b"%PDF-1.4\n")
