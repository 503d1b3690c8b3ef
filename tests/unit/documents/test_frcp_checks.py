from __future__ import annotations

import pytest
from lxml import etree
from msgspec.structs import replace

from gateway.documents import frcp, frcp_checks
from gateway.errors import InvalidContent
from gateway.rcp.report_content import CodedValue, Replaced, Tnm
from tests.report_samples import content

NS = {"c": "urn:hl7-org:v3"}


def _remove(path):
    def change(root):
        for element in root.xpath(path, namespaces=NS):
            element.getparent().remove(element)

    return change


def _set(path, name, value):
    def change(root):
        found = root.xpath(path, namespaces=NS)
        assert found
        for element in found:
            if value is None:
                del element.attrib[name]
            else:
                element.set(name, value)

    return change


def _twice(path):
    def change(root):
        element = root.xpath(path, namespaces=NS)[0]
        element.addnext(etree.fromstring(etree.tostring(element)))

    return change


OBSERVATION = ".//c:observation[c:code/@code='{}']"
QUALIFIER = OBSERVATION.format("75620-5") + "/c:value/c:qualifier[c:name/@code='{}']/c:value"
CASES = [
    ("FRCP-01", _set("c:typeId", "extension", "POCD_HD000041")),
    ("FRCP-01", _remove("c:templateId[@extension='2022.01']")),
    ("FRCP-02", _remove(OBSERVATION.format("ORG-127") + "/..")),
    ("FRCP-03", _remove(OBSERVATION.format("ORG-119") + "/..")),
    ("FRCP-03", _set(OBSERVATION.format("GEN-098") + "/c:value", "code", "ORG-132")),
    ("FRCP-04", _set(".//c:content[@ID='quorum']", "ID", "autre")),
    ("FRCP-04", _set(".//c:reference[@value='#quorum']", "value", "#")),
    ("FRCP-04", _twice(".//c:content[@ID='question']")),
    ("FRCP-05", _twice(".//c:observation/c:id")),
    ("FRCP-06", _remove(".//c:section[c:code/@code='10164-2']/c:text/c:table")),
    ("FRCP-07", _set("c:effectiveTime", "value", "20261126181500")),
    ("FRCP-07", _set(".//c:encompassingEncounter/c:effectiveTime/c:low", "value", "202611261530")),
    ("FRCP-08", _remove(".//c:encompassingEncounter/c:id[position() > 2]")),
    ("FRCP-09", _remove("c:participant[@typeCode='RESP']")),
    ("FRCP-09", _twice("c:participant[@typeCode='INF']")),
    ("FRCP-09", _twice("c:participant[c:functionCode/@code='353']")),
    ("FRCP-09", _remove("c:participant[c:functionCode/@code='353']")),
    ("FRCP-09", _remove("c:legalAuthenticator//c:assignedEntity/c:id")),
    ("FRCP-10", _set(".//c:id[@root='1.2.250.1.71.4.2.1']", "extension", "10100000016")),
    ("FRCP-10", _set(".//c:id[@root='1.2.250.1.71.4.2.2']", "extension", "330780081")),
    ("FRCP-10", _set(".//c:id[@root='1.2.250.1.213.1.4.10']", "extension", "2790351215189")),
    ("FRCP-10", _remove("c:recordTarget/c:patientRole/c:id")),
    ("FRCP-10", _set(".//c:id[@root='1.2.250.1.213.1.4.10']", "extension", "279035121518988")),
    ("FRCP-11", _set(OBSERVATION.format("ORG-125") + "/c:value", "displayName", "Quorum non atteint")),
    ("FRCP-11", _set(OBSERVATION.format("282291009") + "/c:targetSiteCode", "displayName", "Tumeur du sein")),
    ("FRCP-11", _set(OBSERVATION.format("ORG-119") + "/c:value", "codeSystem", "2.16.840.1.113883.6.3")),
    ("FRCP-12", _set(".//c:procedure/c:code", "code", "C15445")),
    ("FRCP-13", _set(OBSERVATION.format("MED-239") + "/c:interpretationCode", "code", "LA9622-7")),
    ("FRCP-14", _set(OBSERVATION.format("282291009") + "/c:value", "code", "8140")),
    ("FRCP-14", _set(OBSERVATION.format("282291009") + "/c:targetSiteCode", "code", "I10")),
    ("FRCP-14", _set(OBSERVATION.format("282291009") + "/c:targetSiteCode", "code", "C25.99")),
    ("FRCP-15", _set("c:versionNumber", "value", "2")),
    ("FRCP-15", _set("c:setId", "root", "1.2.250.1.999.77.1.20261126.1042.1")),
    ("FRCP-16", _set(OBSERVATION.format("ORG-118") + "/c:value", "code", "15776009")),
    ("FRCP-16", _set(OBSERVATION.format("ORG-119") + "/c:value", "code", "387713003")),
    ("FRCP-16", _set(OBSERVATION.format("MED-243") + "/c:value", "code", "MED-999")),
    ("FRCP-17", _set(OBSERVATION.format("21905-5") + "/c:value", "code", "T5")),
    ("FRCP-17", _set(OBSERVATION.format("21906-3") + "/c:value", "code", "T2")),
    ("FRCP-17", _set(OBSERVATION.format("21907-1") + "/c:value", "code", "m0")),
    ("FRCP-17", _set(QUALIFIER.format("21909-7"), "code", "VI")),
    ("FRCP-17", _set(QUALIFIER.format("21917-0"), "code", "3")),
    ("FRCP-18", _set(OBSERVATION.format("ORG-185") + "/c:value", "value", "true")),
    ("FRCP-18", _set(OBSERVATION.format("MED-245") + "/c:value", "value", "true")),
    ("FRCP-19", _set("c:versionNumber", "value", "0")),
    ("FRCP-19", _set("c:versionNumber", "value", "un")),
    ("FRCP-20", _set(".//c:documentationOf//c:effectiveTime/c:high", "value", "20261125170000+0100")),
    ("FRCP-20", _set(OBSERVATION.format("ORG-064") + "/c:effectiveTime/c:high", "value", "2025")),
    ("FRCP-21", _twice("c:participant[c:functionCode/@code='CORRE']")),
    ("FRCP-22", _set(OBSERVATION.format("MED-245") + "/c:value", "value", "true")),
]


def test_each_rule_is_broken_by_a_case():
    assert {rule for rule, _ in CASES} == set(frcp_checks.RULES)


@pytest.mark.parametrize(("rule", "change"), CASES)
def test_rule_sees_its_fault(rule, change):
    root = etree.fromstring(frcp.render(content()))
    assert frcp_checks.check(root) == ()
    change(root)
    assert rule in {finding.rule for finding in frcp_checks.check(root)}


def test_a_recorded_case_names_its_guideline():
    facts = replace(content(), case_status="enregistre", guideline=None)
    with pytest.raises(InvalidContent, match="FRCP-02") as refusal:
        frcp.render(facts)
    assert refusal.value.rule
    assert "PAT-TROIS" not in refusal.value.text


def test_an_organ_without_code_is_said_in_words():
    root = etree.fromstring(frcp.render(replace(content(), system=None, organs=(), subject="Sein")))
    organ = root.xpath(OBSERVATION.format("ORG-119") + "/c:value", namespaces=NS)[0]
    assert organ.get("nullFlavor") == "OTH"
    [anchor] = organ.xpath("c:originalText/c:reference/@value", namespaces=NS)
    assert root.xpath(f".//c:content[@ID='{anchor[1:]}']/text()", namespaces=NS) == ["Sein"]


def test_no_unqualified_ins_in_any_place():
    facts = content()
    document = frcp.render(replace(facts, patient=replace(facts.patient, ins_qualified=False)))
    assert b"279035121518989" not in document


def test_a_foreign_code_is_refused_before_it_is_sent():
    tumour = replace(content().tumours[0], topography=CodedValue("Z51.1", "2.16.840.1.113883.6.3", "Chimiothérapie"))
    with pytest.raises(InvalidContent, match="FRCP-14"):
        frcp.render(replace(content(), tumours=(tumour,)))


@pytest.mark.parametrize(
    "tnm",
    [
        Tnm(t="T1a", n="N0", m="M0", stage="IA1", edition="8"),
        Tnm(t="ypT0", n="ypN1mi", m="cM0(i+)", stage="IIIC", edition="7"),
        Tnm(t="pTis(DCIS)", n="pN0(sn)", m="MX", stage="0"),
        Tnm(t="cT3(2)", n="N2b", m="M1c", stage="IVA", edition="9"),
        Tnm(t="Ta", n="NX"),
        Tnm(),
    ],
)
def test_what_the_uicc_writes_is_taken(tnm):
    facts = replace(content(), tumours=(replace(content().tumours[0], tnm=tnm),))
    assert frcp_checks.check(etree.fromstring(frcp.render(facts))) == ()


@pytest.mark.parametrize("tnm", [Tnm(t="T9"), Tnm(n="3"), Tnm(m="M2"), Tnm(stage="stade II"), Tnm(edition="VIII")])
def test_what_is_no_tnm_is_refused_before_it_is_sent(tnm):
    facts = replace(content(), tumours=(replace(content().tumours[0], tnm=tnm),))
    with pytest.raises(InvalidContent, match="FRCP-17"):
        frcp.render(facts)


def test_a_replaced_version_is_an_earlier_one():
    first = content()
    old = Replaced(document_id=first.document_id, version=2, validated_at=first.written_at)
    second = replace(first, version=2, document_id=replace(first.document_id, root="1.2.3"), replaces=old)
    with pytest.raises(InvalidContent, match="FRCP-19"):
        frcp.render(second)


def test_a_code_bears_the_label_of_its_list_whatever_words_came_with_it():
    said = replace(content().tumours[0].topography, label="Cancer de la tête du pancréas")
    facts = replace(content(), tumours=(replace(content().tumours[0], topography=said),))
    root = etree.fromstring(frcp.render(facts))
    site = root.xpath(OBSERVATION.format("282291009") + "/c:targetSiteCode", namespaces=NS)[0]
    assert site.get("displayName") == "Tumeur maligne de la tête du pancréas"
    assert root.xpath(".//c:content[@ID='topographie-1']/text()", namespaces=NS) == [
        "C25.0 – Cancer de la tête du pancréas"
    ]
