"""The personalised care plan read back by the codes of its model (cda-frcp.md §9)."""

from __future__ import annotations

import pytest
from lxml import etree
from msgspec.structs import replace

from gateway.documents import pps
from gateway.errors import InvalidContent
from gateway.rcp.report_content import CodedValue
from tests.report_samples import plan

NS = {"c": "urn:hl7-org:v3"}


def _read(facts):
    root = etree.fromstring(pps.render(facts))
    return lambda path: root.xpath(path, namespaces=NS)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("c:templateId[@extension='2022.01']/@root", ["1.2.250.1.213.1.1.1.26"]),
        ("c:code/@code", ["18776-5"]),
        ("c:title/text()", ["PROGRAMME PERSONNALISÉ DE SOINS EN CANCEROLOGIE"]),
        ("c:effectiveTime/@value", ["20261204110500+0100"]),
        ("c:recordTarget/c:patientRole/c:id/@extension", ["279035121518989", "000123456"]),
        ("c:participant/c:functionCode/c:translation/@code", ["ORG-177", "ORG-177", "ORG-179", "ORG-190"]),
        ("c:participant[@typeCode='INF']//c:family/text()", ["DURANT"]),
        ("c:documentationOf/c:serviceEvent/c:code", []),
        (
            ".//c:section/c:code/@code",
            [
                "55112-7",
                "42349-1",
                "72135-7",
                "42545-4",
                "18733-6",
                "18776-5",
                "18776-5",
                "33557-0",
                "55107-7",
                "55112-7",
            ],
        ),
        (".//c:procedure[@moodCode='INT'][c:code/@code='MED-568']/c:code/c:qualifier/c:value/@code", ["387713003"]),
        (".//c:procedure[@moodCode='EVN']/c:code/c:qualifier/c:value/@displayName", ["chimiothérapie"]),
        (".//c:procedure[@moodCode='EVN']/c:effectiveTime/*/@value", ["20261127", "20261130"]),
        (".//c:observation[c:code/@code='GEN-177']/c:effectiveTime/c:low/@value", ["202612"]),
        (".//c:observation[c:code/@code='MED-052']/c:value/@value", ["false"]),
        (".//c:observation[c:code/@code='ORG-189']/c:value/@value", ["20261126"]),
        (".//c:observation[c:code/@code='GEN-178']/c:value/@value", ["20261205"]),
        (".//c:externalDocument/c:id/@root", ["1.2.250.1.999.77.1.20261126.1042.1"]),
    ],
)
def test_field_is_where_the_model_puts_it(path, expected):
    assert _read(plan())(path) == expected


def test_classes_of_care_stand_in_the_two_sections_of_the_model():
    read = _read(plan())
    section = ".//c:section[c:code/c:translation/@code='{}']//c:procedure/c:code/@code"
    assert read(section.format("MED-566")) == ["MED-568", "MED-568", "MED-569", "MED-570", "MED-571"]
    assert read(section.format("MED-567")) == ["MED-572", "MED-573"]


def test_what_a_person_reads_says_each_care_with_its_dates():
    said = "".join(_read(plan())(".//c:section//c:text//text()"))
    assert "Traitement (prévu)" in said
    assert "Intervention chirurgicale – duodéno-pancréatectomie céphalique" in said
    assert "prévu à partir du 12/2026" in said
    assert "Chimiothérapie (du 27/11/2026 au 30/11/2026)" in said
    assert "Hospitalisation la veille." in said
    assert "Remis au patient le" in said


@pytest.mark.parametrize(
    "change",
    [
        {"care": (replace(plan().care[0], kind=CodedValue("C445", "1.2.3", "Autre")),)},
        # Hormone therapy of the FRCP's list: the PPS has another code for it.
        {"care": (replace(plan().care[0], kind=CodedValue("C547", "2.16.840.1.113883.3.26.1.1", "Hormonothérapie")),)},
        {"update_reason": CodedValue("MED-999", "1.2.250.1.213.1.1.4.322", "Autre")},
    ],
)
def test_a_code_of_no_national_set_is_refused(change):
    with pytest.raises(InvalidContent) as refusal:
        pps.render(replace(plan(), **change))
    assert refusal.value.code == "code-inconnu"


def test_a_period_that_ends_before_it_begins_is_refused():
    care = replace(plan().care[1], start="2026-12", end="2026-11-30")
    with pytest.raises(InvalidContent, match="FRCP-20"):
        pps.render(replace(plan(), care=(care,)))
