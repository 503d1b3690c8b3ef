from __future__ import annotations

import hashlib
import io
import zipfile
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from lxml import etree
from msgspec.structs import replace

from gateway.documents import frcp
from gateway.errors import InvalidContent
from gateway.mssante import xdm
from gateway.rcp.report_content import CodedValue, Identifier, Organisation, Replaced
from tests.report_samples import content

NS = {"rim": "urn:oasis:names:tc:ebxml-regrep:xsd:rim:3.0"}
SENDER = xdm.Sender(
    source_id="1.2.250.1.999.77",
    organisation=Organisation(name="3C de Valombre & associés", phone="05 56 00 12 40"),
    application="rcp-gateway",
    version="0",
    publisher="essai",
)
CODE = CodedValue(frcp.CODE.code, frcp.CODE.system, frcp.CODE.label)


def _submission(facts=None, cda=None):
    facts = facts or content()
    return xdm.report_submission(facts, cda or frcp.render(facts), SENDER, cda_code=CODE, title=frcp.title(facts))


def _open(data):
    archive = zipfile.ZipFile(io.BytesIO(data))
    assert archive.testzip() is None
    root = etree.fromstring(archive.read("IHE_XDM/SUBSET01/METADATA.XML"))
    return archive, lambda path: root.xpath(path, namespaces=NS)


def _slot(name):
    return f".//rim:ExtrinsicObject/rim:Slot[@name='{name}']/rim:ValueList/rim:Value/text()"


def test_four_entries_stand_at_the_root_in_capitals():
    archive, _ = _open(xdm.build(_submission()))
    names = archive.namelist()
    assert sorted(names) == [
        "IHE_XDM/SUBSET01/DOC0001.XML", "IHE_XDM/SUBSET01/METADATA.XML", "INDEX.HTM", "README.TXT",
    ]  # fmt: skip
    assert all(name.isascii() and name == name.upper() and not name.startswith("/") for name in names)
    assert all(not info.flag_bits & 1 for info in archive.infolist())


def test_hash_and_size_are_those_of_the_bytes_in_the_zip():
    facts = content()
    cda = frcp.render(facts)
    archive, find = _open(xdm.build(_submission(facts, cda)))
    kept = archive.read("IHE_XDM/SUBSET01/DOC0001.XML")
    assert kept == cda
    assert find(_slot("hash")) == [hashlib.sha1(kept, usedforsecurity=False).hexdigest()]
    assert find(_slot("size")) == [str(len(kept))]
    assert find(_slot("URI")) == ["DOC0001.XML"]


def test_patient_is_the_same_in_document_and_sending():
    _, find = _open(xdm.build(_submission()))
    ins = "279035121518989^^^&1.2.250.1.213.1.4.10&ISO^NH"
    schemes = ("58a6f841-87b3-4a3e-92fd-a8ffeff98427", "6b5aea1a-874d-4603-a4bc-96a0a7b38446")
    for scheme in schemes:
        assert find(f".//rim:ExternalIdentifier[@identificationScheme='urn:uuid:{scheme}']/@value") == [ins]
    assert find(_slot("sourcePatientId")) == ["000123456^^^&1.2.250.1.999.77.9&ISO^PI"]


def test_without_qualified_ins_the_local_number_names_the_patient():
    facts = content()
    _, find = _open(xdm.build(_submission(replace(facts, patient=replace(facts.patient, ins_qualified=False)))))
    values = find(".//rim:ExternalIdentifier/@value")
    assert values.count("000123456^^^&1.2.250.1.999.77.9&ISO^PI") == 2
    assert not any("279035121518989" in value for value in values)


def test_every_link_of_the_metadata_resolves():
    _, find = _open(xdm.build(_submission()))
    ids = find("//@id")
    assert len(ids) == len(set(ids))
    for name in ("classifiedObject", "registryObject", "sourceObject", "targetObject"):
        assert set(find(f"//@{name}")) <= set(ids)
    assert find("//rim:Association/@sourceObject") == find("//rim:RegistryPackage/@id")
    assert find("//rim:Association/@targetObject") == find("//rim:ExtrinsicObject/@id")


@pytest.mark.parametrize(
    ("local", "utc"),
    [
        (datetime(2026, 11, 26, 0, 30, tzinfo=ZoneInfo("Europe/Paris")), "20261125233000"),
        (datetime(2026, 7, 1, 1, 0, tzinfo=timezone(timedelta(hours=2))), "20260630230000"),
        (datetime(2026, 7, 1, 1, 0, tzinfo=UTC), "20260701010000"),
    ],
)
def test_times_are_utc(local, utc):
    _, find = _open(xdm.build(_submission(replace(content(), written_at=local))))
    assert find(_slot("creationTime")) == [utc]


def test_an_unknown_end_leaves_its_slot_out():
    facts = content()
    _, find = _open(xdm.build(_submission(facts)))
    assert find(_slot("serviceStopTime")) == ["20261126160000"]
    _, find = _open(xdm.build(_submission(replace(facts, meeting=replace(facts.meeting, end=None)))))
    assert find(_slot("serviceStopTime")) == []


def test_names_are_escaped_once_in_xml_and_for_hl7():
    facts = content()
    author = replace(facts.coordinator, family='D’É^TOILE & "Fils" | ~', given="Zo\\é")
    _, find = _open(xdm.build(_submission(replace(facts, coordinator=author))))
    person = find(".//rim:ExtrinsicObject//rim:Slot[@name='authorPerson']//rim:Value/text()")[0]
    assert person == (
        '810100000016^D’É\\S\\TOILE \\T\\ "Fils" \\F\\ \\R\\^Zo\\E\\é^^^^^^&1.2.250.1.71.4.2.1&ISO^D^^^IDNPS'
    )


@pytest.mark.parametrize(
    ("flags", "codes"),
    [
        ((), ["N"]),
        (("INVISIBLE_PATIENT",), ["N", "INVISIBLE_PATIENT"]),
        (
            ("INVISIBLE_PATIENT", "MASQUE_PS", "INVISIBLE_REPRESENTANTS_LEGAUX"),
            ["N", "INVISIBLE_PATIENT", "MASQUE_PS", "INVISIBLE_REPRESENTANTS_LEGAUX"],
        ),
    ],
)
def test_visibility(flags, codes):
    _, find = _open(xdm.build(_submission(replace(content(), visibility=flags))))
    scheme = "urn:uuid:f4f85eac-e6cb-4883-b524-f2705394840f"
    assert find(f".//rim:Classification[@classificationScheme='{scheme}']/@nodeRepresentation") == codes


def test_a_replacement_says_so():
    first = content()
    replaced = Replaced(document_id=first.document_id, version=1, validated_at=first.written_at)
    second = replace(first, version=2, document_id=Identifier(f"{first.set_id.root}.2"), replaces=replaced)
    _, find = _open(xdm.build(_submission(second)))
    assert find(_slot("urn:action:extraMetadataSlot")) == ["C"]
    _, find = _open(xdm.build(_submission(first)))
    assert find(_slot("urn:action:extraMetadataSlot")) == []


def test_same_submission_same_bytes_and_no_clock_in_them():
    data = xdm.build(_submission())
    assert xdm.build(_submission()) == data
    assert {info.date_time for info in zipfile.ZipFile(io.BytesIO(data)).infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_index_is_xhtml_that_links_every_document():
    archive, _ = _open(xdm.build(_submission()))
    index = etree.fromstring(archive.read("INDEX.HTM"))
    links = index.xpath("//@href")
    assert links == ["README.TXT", "IHE_XDM/SUBSET01/DOC0001.XML"]
    assert set(links) <= set(archive.namelist())
    readme = archive.read("README.TXT").decode()
    for word in ("Emetteur", "3C de Valombre & associés", "Application", "Instructions", "Arborescence"):
        assert word in readme


@pytest.mark.parametrize("name", ["../EVIL.XML", "document.xml", "TOOLONGNAME.XML", "DOC 1.XML"])
def test_a_file_name_that_could_leave_its_folder_is_refused(name):
    submission = _submission()
    entry = replace(submission.entries[0], file_name=name)
    with pytest.raises(InvalidContent, match="xdm"):
        xdm.build(replace(submission, entries=(entry,)))


def test_one_patient_a_sending():
    submission = _submission()
    other = replace(submission.entries[0], file_name="DOC0002.XML", patient=content("minimal").patient)
    with pytest.raises(InvalidContent, match="qu’un patient"):
        xdm.build(replace(submission, entries=(submission.entries[0], other)))
    with pytest.raises(InvalidContent):
        xdm.build(replace(submission, entries=()))
