"""The document read back by the XPaths of the national field table (cda-frcp.md §6)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from lxml import etree
from msgspec.structs import replace

from gateway.documents import frcp
from gateway.rcp.report_content import Replaced
from tests.report_samples import content

NS = {"c": "urn:hl7-org:v3"}
BODY = "c:component/c:structuredBody/c:component/c:section"


def _read(facts):
    root = etree.fromstring(frcp.render(facts))
    return lambda path: root.xpath(path.replace("BODY", BODY), namespaces=NS)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("c:id/@root", ["1.2.250.1.999.77.1.20261126.1042.1"]),
        ("c:setId/@root", ["1.2.250.1.999.77.1.20261126.1042"]),
        ("c:versionNumber/@value", ["1"]),
        ("c:effectiveTime/@value", ["20261126181500+0100"]),
        ("c:recordTarget/c:patientRole/c:id[starts-with(@root,'1.2.250.1.213.1.4.')]/@extension", ["279035121518989"]),
        ("c:recordTarget//c:family[@qualifier='BR']/text()", ["PAT-TROIS"]),
        ("c:recordTarget//c:given[not(@qualifier)]/text()", ["DOMINIQUE MARIE-LOUISE"]),
        ("c:recordTarget//c:county/text()", ["51215"]),
        (
            "c:documentationOf[1]/c:serviceEvent/c:code/c:originalText/text()",
            ["Onco Aquitaine fictif / 3C de Valombre / Tumeurs digestives"],
        ),
        ("c:documentationOf[1]//c:low/@value", ["20261126153000+0100"]),
        ("c:documentationOf[2]/c:serviceEvent/c:code/@code", ["C25.0"]),
        ("c:inFulfillmentOf/c:order/c:id/@root", ["6A1F3F0E-5A55-4C2C-9A51-0C6F7D2C8D10"]),
        ("c:participant[@typeCode='RESP']//c:id/@extension", ["810100000016", "1330780081"]),
        ("c:participant[@typeCode='REFB']//c:associatedPerson//c:family/text()", ["LESTRADE"]),
        ("c:participant[@typeCode='INF'][c:functionCode/@code='PCP']//c:family/text()", ["DURANT"]),
        (
            "c:participant[@typeCode='PRF'][c:functionCode/@code='353']//c:family/text()",
            ["MERCIER", "AGNES", "VALLIER"],
        ),
        ("c:participant[@typeCode='PRF'][c:functionCode/@code='CORRE']//c:family/text()", ["LESTRADE", "BASTIDE"]),
        ("BODY//c:observation[c:code/@code='ORG-127']/c:value/@code", ["ORG-134"]),
        ("BODY//c:observation[c:code/@code='ORG-125']/c:value/@code", ["ORG-126"]),
        ("BODY//c:observation[c:code/@code='GEN-100']/c:value/@value", ["true"]),
        ("BODY//c:observation[c:code/@code='63921-1']/c:value/@value", ["false"]),
        ("BODY//c:observation[c:code/@code='21905-5']/c:value/@code", ["T2"]),
        ("BODY//c:observation[c:code/@code='MED-239']/c:value/@code", ["MED-264"]),
        ("BODY//c:procedure[@moodCode='INT']/c:code/@code", ["387713003", "C15632", "C15632"]),
        ("BODY//c:procedure[@moodCode='INT']/c:priorityCode/c:originalText/text()", ["1", "2", "3"]),
        ("BODY//c:observation[c:code/@code='MED-249']/c:effectiveTime/@value", ["202404"]),
        ("BODY//c:observation[c:code/@code='GEN-065']/c:value/@code", ["9571008"]),
    ],
)
def test_field_is_where_the_national_table_puts_it(path, expected):
    assert _read(content())(path) == expected


@pytest.mark.req("S2-046")
def test_the_contribution_stands_in_the_history_with_author_speciality_and_local_hour():
    read = _read(content())
    rows = read("BODY[c:code/@code='10164-2']//c:tr[.//c:content/@ID='contribution-1']")
    said = "".join(rows[0].itertext())
    assert "Docteur Paul DURANT (Médecine générale)" in said
    assert "25/11/2026 à 19:42 (heure de Paris)" in said
    assert "Elle souhaite être traitée près de Libourne si possible." in said


@pytest.mark.req("S2-047")
def test_hours_are_those_of_the_rcp():
    """19:42 in Paris is 14:42 in Martinique on that day."""
    read = _read(replace(content(), zone="America/Martinique"))
    assert read("c:effectiveTime/@value") == ["20261126131500-0400"]
    assert any("14:42 (heure de La Martinique)" in t for t in read("BODY//c:td/text()"))


@pytest.mark.req("S2-047")
def test_an_hour_is_printed_in_the_zone_and_the_speciality_as_it_was():
    facts = content()
    then = replace(facts.contributions[0], at=datetime(2026, 9, 8, 12, 58, tzinfo=UTC))
    now = replace(facts.treating_physician, speciality="Dermatologie et vénéréologie")
    read = _read(replace(facts, contributions=(then,), treating_physician=now))
    heading = read("BODY[c:code/@code='10164-2']//c:tr[.//c:content/@ID='contribution-1']/c:td[1]/text()")
    assert heading[0].startswith(
        "Contribution du médecin traitant\u00a0: "
        "Docteur Paul DURANT (Médecine générale) le 08/09/2026 à 14:58 (heure de Paris)"
    )


def test_a_new_version_replaces():
    first = content()
    second = replace(
        first,
        version=2,
        document_id=replace(first.document_id, root=f"{first.set_id.root}.2"),
        written_at=first.written_at + timedelta(days=1),
        replaces=Replaced(document_id=first.document_id, version=1, validated_at=first.written_at, reason="Dose"),
    )
    read = _read(second)
    assert read("c:relatedDocument[@typeCode='RPLC']/c:parentDocument/c:id/@root") == [first.document_id.root]
    assert read("c:setId/@root") == [first.set_id.root]
    assert any(
        "Annule et remplace la version 1 validée le 26/11/2026 à 18:15. Motif\u00a0: Dose." in text
        for text in read("BODY[c:code/@code='33557-0']//c:content/text()")
    )


def test_the_treating_physician_may_be_unknown():
    read = _read(replace(content(), treating_physician=None))
    assert read("c:participant[@typeCode='INF']/c:associatedEntity/@nullFlavor") == ["NA"]
