"""METADATA.XML against the complete example of the national facts sheet, element by element (mssante.md 2.8, B01)."""

from __future__ import annotations

import base64
import copy
import hashlib
import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from lxml import etree
from msgspec import structs

from gateway.mssante.xdm import beside
from gateway.mssante.xdm_metadata import Entry, Sender, Submission, metadata
from gateway.rcp.report_content import CodedValue, Identifier, Organisation, PatientContent, Person
from tests.report_samples import ROOT

SHEET = ROOT.parent / "shared" / "spec" / "mssante.md"
pytestmark = pytest.mark.skipif(not SHEET.is_file(), reason="la fiche mssante.md n’est pas sur ce poste")
PARIS = ZoneInfo("Europe/Paris")


def _sheet():
    text = SHEET.read_text(encoding="utf-8")
    example = text[text.index("### 2.8") :]
    xml = re.search(r"```xml\n(.*?)```", example, re.DOTALL).group(1)
    vector = text[text.index("## Appendix E") :]
    return xml, base64.b64decode(re.search(r"```\n(.*?)```", vector, re.DOTALL).group(1))


def _canonical(data):
    """Canonical XML without comments or blanks, each registry id replaced by its order of appearance."""
    root = etree.fromstring(data, etree.XMLParser(remove_comments=True, remove_blank_text=True))
    order = {}
    for element in root.iter():
        value = element.get("id")
        if value:
            order[value] = f"id-{len(order) + 1}"
    for element in root.iter():
        for name, value in element.attrib.items():
            element.set(name, order.get(value, value))
    return etree.tostring(root, method="c14n2", strip_text=True).decode()


def _example_entry(document):
    house = Organisation(name="Centre Hospitalier Exemple", idnst="1120456789")
    speciality = CodedValue("G15_10/SM36", "1.2.250.1.213.1.1.4.5", "Médecin - Oncologie, opt médicale (SM)")
    author = Person(family="MULLER", given="Charles", idnps="801234567897", profession=speciality, organisation=house)
    confidentiality = (
        CodedValue("N", "2.16.840.1.113883.5.25", "Normal"),
        CodedValue("INVISIBLE_PATIENT", "1.2.250.1.213.1.1.4.13", "Non visible par le patient"),
    )
    return Entry(
        file_name="DOC0001.XML",
        content=document,
        mime_type="text/xml",
        unique_id=Identifier("1.2.250.1.999.77.1.20261126.1042.1"),
        title="FRCP - RCP Sein - 26/11/2026",
        comments="Fiche RCP validée",
        created=datetime(2026, 11, 26, 18, 15, tzinfo=PARIS),
        service_start=datetime(2026, 11, 26, 15, 30, tzinfo=PARIS),
        service_stop=datetime(2026, 11, 26, 17, 0, tzinfo=PARIS),
        author=author,
        role="Membre de l'équipe de soins",
        legal_authenticator=author,
        patient=PatientContent(
            birth_family="PAT-TROIS",
            birth_given="DOMINIQUE",
            used_family="PAT-TROIS",
            used_given="DOMINIQUE",
            sex="F",
            birth_date="1979-03-28",
            ins=Identifier("1.2.250.1.213.1.4.10", "279035121518989"),
            ins_qualified=True,
            ipps=(Identifier("1.2.250.1.999.77.9", "000123456"),),
        ),
        class_code=CodedValue("10", "1.2.250.1.213.1.1.4.1", "Compte rendu"),
        type_code=CodedValue("34794-8", "2.16.840.1.113883.6.1", "CR de réunion de concertation pluridisciplinaire"),
        format_code=CodedValue(
            "urn:asip:ci-sis:frcp:2011",
            "1.2.250.1.213.1.1.4.2.282",
            "Fiche de réunion de concertation pluridisciplinaire",
        ),
        confidentiality=confidentiality,
        facility=CodedValue("SA01", "1.2.250.1.71.4.2.4", "Etablissement public de santé"),
        setting=CodedValue("ETABLISSEMENT", "1.2.250.1.213.1.1.4.9", "Etablissement de santé"),
        events=(
            CodedValue("39", "1.2.250.1.213.3.3.13", "Réunion de Concertation Pluridisciplinaire (RCP)"),
            CodedValue("C50.2", "2.16.840.1.113883.6.3", "Tumeur maligne du quadrant supéro-interne du sein"),
        ),
    )


def _metadata(*entries):
    house = entries[0].author.organisation
    sender = Sender(source_id="1.2.250.1.999.77", organisation=house, application="", version="", publisher="")
    return metadata(
        Submission(
            unique_id="1.2.250.1.999.77.2.20261126.173000.1",
            submitted=datetime(2026, 11, 26, 17, 30, tzinfo=UTC),
            title="Transmission FRCP",
            sender=sender,
            entries=entries,
        )
    )


def test_metadata_equals_the_example():
    example, document = _sheet()
    assert _canonical(_metadata(_example_entry(document))) == _canonical(example.encode())


RIM = {"rim": "urn:oasis:names:tc:ebxml-regrep:xsd:rim:3.0"}


def _with_a_second(example, document, action=None):
    """The sheet's example with a second ExtrinsicObject and its HasMember, made by hand from the first.

    What differs is what the sheet says of a N1 (2.9): its own uniqueId, hash, size and URI, and the format of a PDF in
    a CDA under the scheme that the national lists give it.
    """
    root = etree.fromstring(example.encode(), etree.XMLParser(remove_comments=True, remove_blank_text=True))

    def find(path):
        [found] = root.xpath(path, namespaces=RIM)
        return found

    first, association = find("//rim:ExtrinsicObject"), find("//rim:Association")
    second = copy.deepcopy(first)
    names = {one.get("id") for one in second.iter() if one.get("id")}
    for one in second.iter():
        for name, value in one.attrib.items():
            if value in names:
                one.set(name, f"{value}-2")
    first.addnext(second)

    def value(path, said):
        [found] = second.xpath(path, namespaces=RIM)
        found.text = said

    value("rim:Slot[@name='URI']//rim:Value", "DOC0002.XML")
    value("rim:Slot[@name='hash']//rim:Value", hashlib.sha1(document, usedforsecurity=False).hexdigest())
    value("rim:Slot[@name='size']//rim:Value", str(len(document)))
    scheme = "urn:uuid:a09d5840-386c-46f2-b5ad-9c3699a4309d"
    [coded] = second.xpath(f"rim:Classification[@classificationScheme='{scheme}']", namespaces=RIM)
    coded.set("nodeRepresentation", "urn:ihe:iti:xds-sd:pdf:2008")
    coded.xpath("rim:Slot//rim:Value", namespaces=RIM)[0].text = "1.3.6.1.4.1.19376.1.2.3"
    coded.xpath("rim:Name/rim:LocalizedString", namespaces=RIM)[0].set("value", "CDA niveau 1 à corps PDF/A-1")
    scheme = "urn:uuid:2e82c1f6-a085-4c72-9da3-8640a32e42ab"
    [unique] = second.xpath(f"rim:ExternalIdentifier[@identificationScheme='{scheme}']", namespaces=RIM)
    unique.set("value", unique.get("value") + ".0")
    [comments] = second.xpath("rim:Description/rim:LocalizedString", namespaces=RIM)
    comments.set("value", comments.get("value") + " (PDF)")
    if action:
        for one in (first, second):
            slot = etree.fromstring(
                f'<rim:Slot xmlns:rim="{RIM["rim"]}" name="urn:action:extraMetadataSlot">'
                f"<rim:ValueList><rim:Value>{action}</rim:Value></rim:ValueList></rim:Slot>"
            )
            one.xpath("rim:Slot[last()]", namespaces=RIM)[0].addnext(slot)
    link = copy.deepcopy(association)
    link.set("id", link.get("id") + "-2")
    link.set("targetObject", second.get("id"))
    association.addnext(link)
    return etree.tostring(root)


@pytest.mark.parametrize("action", [None, "C", "D"])
def test_two_documents_are_two_entries_of_one_submission_set(action):
    """N1 and N3 of the same content are sent, replaced and deleted together (mssante.md 6.1)."""
    example, document = _sheet()
    page = b"<ClinicalDocument>la page</ClinicalDocument>"
    first = structs.replace(_example_entry(document), action=action)
    made = _metadata(first, beside(first, page))
    assert _canonical(made) == _canonical(_with_a_second(example, page, action))
