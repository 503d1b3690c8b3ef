"""The header of documents of others, written out here by hand, and documents that are none."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest

from gateway.documents import cda_header
from gateway.errors import InvalidContent
from gateway.rcp.report_content import Identifier

PDF = b"%PDF-1.4 essai"
ENVELOPE = """<ClinicalDocument xmlns="urn:hl7-org:v3">
<typeId root="2.16.840.1.113883.1.3" extension="POCD_HD000040"/>
<id root="1.2.250.1.999.5" extension="77"/>
<code code="11488-4" displayName="Consultation" codeSystem="2.16.840.1.113883.6.1"/>
<title> Compte rendu
 de consultation </title>
<effectiveTime value="20260310103000+0100"/>
<setId root="1.2.250.1.999.6"/><versionNumber value="3"/>
<recordTarget><patientRole>
<id root="1.2.250.1.213.1.4.10" extension="279035121518989"/><id root="1.2.250.1.999.9" extension="42"/>
<patient><name><family qualifier="CL">DURAND</family><family qualifier="BR">PAT-TROIS</family>
<given>DOMINIQUE MARIE</given><given qualifier="BR">DOMINIQUE</given></name>
<administrativeGenderCode code="F"/><birthTime value="19790328"/></patient></patientRole></recordTarget>
<author><assignedAuthor><id root="1.2.250.1.71.4.2.1" extension="810000000001"/>
<assignedPerson><name><family>MARTIN</family><given>Anne</given></name></assignedPerson></assignedAuthor></author>
<relatedDocument typeCode="RPLC"><parentDocument><id root="1.2.250.1.999.4"/></parentDocument></relatedDocument>
<component><nonXMLBody><text mediaType="application/pdf" representation="B64">%s</text></nonXMLBody></component>
</ClinicalDocument>"""


def read(text=ENVELOPE, pdf=PDF):
    return cda_header.read(text.replace("%s", base64.b64encode(pdf).decode()).encode())


def test_a_pdf_in_an_envelope_is_read_whole():
    header = read()
    assert (header.unique_id, header.set_id, header.version) == ("1.2.250.1.999.5^77", "1.2.250.1.999.6", 3)
    assert header.replaces == "1.2.250.1.999.4"
    assert (header.type_code, header.type_label, header.title) == (
        "11488-4",
        "Consultation",
        "Compte rendu de consultation",
    )
    assert header.created == datetime(2026, 3, 10, 9, 30, tzinfo=UTC)
    assert (header.author, header.author_idnps) == ("Anne MARTIN", "810000000001")
    assert header.patient_ids == (
        Identifier("1.2.250.1.213.1.4.10", "279035121518989"),
        Identifier("1.2.250.1.999.9", "42"),
    )
    assert (header.birth_family, header.birth_given) == ("PAT-TROIS", "DOMINIQUE")
    assert (header.birth_date, header.sex) == ("1979-03-28", "F")
    assert (header.format, header.pdf) == ("n1", PDF)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ClinicalDocument", "AutreDocument"),
        ('<id root="1.2.250.1.999.5" extension="77"/>', ""),
        ('<id root="1.2.250.1.999.5" extension="77"/>', '<id root="1.2.3"/><id root="1.2.4"/>'),
        ('<id root="1.2.250.1.999.5" extension="77"/>', '<id nullFlavor="UNK"/>'),
        ('<setId root="1.2.250.1.999.6"/>', '<setId root="1.2.3"/><setId root="1.2.4"/>'),
        ('<id root="1.2.250.1.999.5" extension="77"/>', f'<id root="1.2.{"3" * 61}"/>'),
        ('extension="77"', f'extension="{"é" * 128}"'),
        ("<recordTarget>", "<recordTarget><patientRole/></recordTarget><recordTarget>"),
        ('<id root="1.2.250.1.999.9" extension="42"/>', '<id root="1.2.3" extension="4"/>' * 30),
    ],
)
def test_what_names_no_single_document_or_patient_is_refused(old, new):
    with pytest.raises(InvalidContent) as refused:
        read(ENVELOPE.replace(old, new))
    assert refused.value.code == "cda-entete"


@pytest.mark.parametrize("pdf", [b"MZ", b"", b"<html>"])
def test_an_envelope_of_something_else_is_refused(pdf):
    with pytest.raises(InvalidContent) as refused:
        read(pdf=pdf)
    assert refused.value.code == "cda-pdf"


@pytest.mark.parametrize("value", ["20261310103000+0100", "20260310103000", "hier", "99999999999999+9999", ""])
def test_an_instant_that_is_none_is_left_out(value):
    assert read(ENVELOPE.replace("20260310103000+0100", value)).created is None


@pytest.mark.parametrize("value", ["1979", "197903", "1979-03-28", "0000000000000000000", ""])
def test_a_birth_date_is_kept_as_far_as_it_is_said(value):
    expected = {"1979": "1979", "197903": "1979-03"}.get(value)
    assert read(ENVELOPE.replace("19790328", value)).birth_date == expected
