"""Reports and encapsulated documents beside what dcmtk makes of them: dsr2html, pdf2dcm, cda2dcm."""

import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pydicom
import pytest
from lxml import html
from pydicom import dcmread
from pydicom.dataset import Dataset

from gateway.dicom.legible import DOCUMENT_TYPES, POLICY, document
from gateway.errors import InvalidContent, Unsupported

pytestmark = pytest.mark.skipif(
    shutil.which("dsr2html") is None, reason="dcmtk is not installed (make test installs it as root)"
)

FILES = Path(pydicom.__file__).parent / "data" / "test_files"
FIXTURES = Path(__file__).parents[3] / "fixtures"


def page(path, offered=("text/html",)):
    kind, content = document(path, offered)
    assert kind == "text/html"
    return content.decode("utf-8")


def words(page: str) -> list[str]:
    tree = html.fromstring(page)
    for hidden in tree.xpath("//style|//head"):
        hidden.drop_tree()
    return re.findall(r"\w+", unescape(" ".join(tree.itertext())))


def test_a_report_says_what_dsr2html_s_page_says(tmp_path):
    """Every word of a value there stands here; the labels of theirs are English and ours French."""
    theirs = tmp_path / "sr.html"
    subprocess.run(["dsr2html", "+U8", FILES / "test-SR.dcm", theirs], check=True, capture_output=True)
    spoken = {word.lower() for word in words(theirs.read_text("utf-8"))}
    ours = {word.lower() for word in words(page(FILES / "test-SR.dcm"))}
    assert sorted(spoken - ours - ENGLISH) == []
    assert {"diagnosis", "diameter", "riesmeier", "jörg", "completed"} <= ours
    assert len(spoken & ours) > 55


#: Labels and notations of dsr2html's page: seconds, codes beside their meanings, kinds of references, its annex.
ENGLISH = {
    "2222",
    "46",
    "99_offis_dcmtk",
    "annex",
    "basictextsrstorage",
    "by",
    "complete",
    "completion",
    "comprehensivesrstorage",
    "concept",
    "content",
    "context",
    "ct",
    "dcmtk",
    "demonstration",
    "dicom",
    "docs",
    "features",
    "flag",
    "footnote",
    "from",
    "generated",
    "hemodynamicwaveformstorage",
    "item",
    "modifier",
    "mr",
    "observation",
    "observed",
    "observers",
    "page",
    "predecessor",
    "presentation",
    "properties",
    "reference",
    "selected",
    "series",
    "sr",
    "state",
    "study",
    "verification",
    "verified",
    "waveform",
    "with",
}


def item(kind, name, relation="CONTAINS", **values):
    made = Dataset()
    made.RelationshipType, made.ValueType = relation, kind
    made.ConceptNameCodeSequence = [code(name)]
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def code(meaning, value="1", scheme="99TEST"):
    made = Dataset()
    made.CodeValue, made.CodingSchemeDesignator, made.CodeMeaning = value, scheme, meaning
    return made


@pytest.fixture
def report(tmp_path):
    def make(*items, **more):
        ds = dcmread(FILES / "test-SR.dcm")
        ds.ContentSequence = list(items)
        for keyword, value in more.items():
            setattr(ds, keyword, value)
        path = tmp_path / "report.dcm"
        ds.save_as(path, enforce_file_format=True)
        return path

    return make


def test_what_an_object_says_is_text_and_never_markup(report):
    hostile = '<script>alert(1)</script><img src=x onerror="x">'
    shown = page(report(item("TEXT", hostile, TextValue=hostile), PatientName=hostile, StudyDescription=hostile))
    tree = html.fromstring(shown)
    assert not tree.xpath("//script|//img|//@onerror|//iframe|//object|//form")
    assert shown.lower().count("&lt;script&gt;alert") == 4
    assert "script-src" not in POLICY
    assert "default-src 'none'" in POLICY


def test_numbers_have_units_and_dates_are_french(report):
    value = Dataset()
    value.NumericValue, value.MeasurementUnitsCodeSequence = "12.5", [code("millimeter", "mm", "UCUM")]
    shown = " ".join(
        words(
            page(
                report(
                    item("NUM", "Diamètre", MeasuredValueSequence=[value]),
                    item("DATETIME", "Fait le", DateTime="20260305143000"),
                    item("PNAME", "Par", PersonName="DURAND^Anne^^Dr"),
                    item("CODE", "Siège", ConceptCodeSequence=[code("Poumon droit")]),
                )
            )
        )
    )
    for said in ("Diamètre 12 5 mm", "Fait le 05 03 2026 à 14 30", "Par Dr Anne DURAND", "Siège Poumon droit"):
        assert said in shown


def test_an_image_that_the_report_names_is_a_link_to_it(report):
    one = Dataset()
    one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4"
    other = Dataset()
    other.ReferencedSOPClassUID, other.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.5"
    series, study = Dataset(), Dataset()
    series.SeriesInstanceUID, series.ReferencedSOPSequence = "1.2.3", [one]
    study.StudyInstanceUID, study.ReferencedSeriesSequence = "1.2", [series]
    path = report(
        item("IMAGE", "Coupe", ReferencedSOPSequence=[one]),
        item("IMAGE", "Ailleurs", ReferencedSOPSequence=[other]),
        CurrentRequestedProcedureEvidenceSequence=[study],
    )
    [link] = html.fromstring(page(path)).xpath("//a/@href")
    assert link == "../../../../../1.2/series/1.2.3/instances/1.2.3.4/rendered"


def test_a_report_without_end_is_cut_and_says_so(report):
    # Written by hand: the library that would write it takes ever longer by the level.
    begin = bytes.fromhex("400030A7") + b"SQ\0\0" + b"\xff" * 4 + bytes.fromhex("FEFF00E0") + b"\xff" * 4
    end = bytes.fromhex("FEFF0DE000000000FEFFDDE000000000")
    path = report()
    ds = dcmread(path)
    del ds.ContentSequence
    ds.save_as(path)
    flat = path.read_bytes()
    path.write_bytes(flat + begin * 100 + end * 100)
    assert "trop de niveaux" in page(path)
    path.write_bytes(flat + begin * 20_000 + end * 20_000)
    with pytest.raises(RecursionError):
        page(path)
    wide = page(report(*(item("TEXT", "ligne", TextValue="x") for _ in range(21_000))))
    assert "plus de 20000 éléments" in wide
    assert len(wide) < 2_000_000


def test_one_broken_item_does_not_hide_the_others(report):
    path = report(
        item("NUM", "faux", MeasuredValueSequence=[]), item("CHOSE", "inconnu"), item("TEXT", "vrai", TextValue="ici")
    )
    shown = page(path)
    assert "valeur non montrée" in shown
    assert "ici" in shown


def encapsulated(tool, source, tmp_path):
    path = tmp_path / "document.dcm"
    subprocess.run([tool, source, path], check=True, capture_output=True)
    return path


PDF = b"""%PDF-1.4
1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj
2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj
trailer<</Root 1 0 R>>
%%EOF
"""


@pytest.mark.parametrize("content", [PDF, PDF + b"x"])
def test_a_pdf_comes_out_with_the_bytes_that_went_in(tmp_path, content):
    """An odd length is padded in the object, and the padding is nobody's."""
    source = tmp_path / "in.pdf"
    source.write_bytes(content)
    path = encapsulated("pdf2dcm", source, tmp_path)
    assert document(path, DOCUMENT_TYPES) == ("application/pdf", content)
    with pytest.raises(Unsupported) as refusal:
        document(path, ("text/html",))
    assert refusal.value.code == "not-acceptable"


CDA = """<?xml version="1.0" encoding="UTF-8"?>
<ClinicalDocument xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<typeId root="2.16.840.1.113883.1.3" extension="POCD_HD000040"/><id root="1.2.3" extension="4"/>
<code code="11528-7" codeSystem="2.16.840.1.113883.6.1" displayName="CR d'imagerie"/>
<title>Compte rendu d’<![CDATA[imagerie]]></title><effectiveTime value="20260305"/>
<recordTarget><patientRole><id root="1.2.3" extension="5"/><patient><name><given>Dominique</given>
<family>PAT-TROIS</family></name><administrativeGenderCode code="F"/><birthTime value="19790328"/></patient>
</patientRole></recordTarget>
<component><structuredBody><component><section><title>Conclusion &lt;b&gt;</title><text><!-- rien -->
<paragraph>Lésion de <content styleCode="Bold xRed">12 mm</content>.<br/>Stable.</paragraph>
<list listType="ordered"><item>un</item><item>deux &lt;script&gt;alert(1)&lt;/script&gt;</item></list>
<table onclick="x"><tbody><tr><td>a</td><td>b</td></tr></tbody></table>
<linkHtml href="javascript:alert(1)">lien</linkHtml></text>
<component><section><title>Détail</title><text>suite</text></section></component>
</section></component></structuredBody></component></ClinicalDocument>"""


def test_a_clinical_document_is_its_text_or_itself(tmp_path):
    source = tmp_path / "in.xml"
    source.write_text(CDA, encoding="utf-8")
    path = encapsulated("cda2dcm", source, tmp_path)
    shown = page(path)
    tree = html.fromstring(shown)
    assert tree.xpath("string(//h1)") == "Compte rendu d’imagerie"
    assert tree.xpath("//h2/text()") == ["Conclusion <b>"]
    assert tree.xpath("//h3/text()") == ["Détail"]
    assert tree.xpath("//p/strong/text()") == ["12 mm"]
    assert [one.text_content() for one in tree.xpath("//ol/li")] == ["un", "deux <script>alert(1)</script>"]
    assert tree.xpath("//td/text()") == ["a", "b"]
    assert not tree.xpath("//script|//a|//@onclick|//@href")
    assert "rien" not in shown
    assert document(path, ("text/xml",)) == ("text/xml", source.read_bytes())


def test_a_clinical_document_that_carries_a_pdf_is_that_pdf(tmp_path):
    from base64 import b64encode

    text = f'<text mediaType="application/pdf" representation="B64">{b64encode(PDF).decode()}</text>'
    body = f"<component><nonXMLBody>{text}</nonXMLBody></component></ClinicalDocument>"
    source = tmp_path / "in.xml"
    source.write_text(CDA[: CDA.index("<component>")] + body, encoding="utf-8")
    path = encapsulated("cda2dcm", source, tmp_path)
    assert document(path, DOCUMENT_TYPES[1:]) == ("application/pdf", PDF)
    assert "PAT-TROIS" in page(path)


@pytest.mark.parametrize("content", [b"MZ\x90\0" * 40, b'<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>', b"<x>", b""])
def test_what_is_neither_is_refused_by_name(tmp_path, content):
    source = tmp_path / "in.pdf"
    source.write_bytes(PDF)
    path = encapsulated("pdf2dcm", source, tmp_path)
    ds = dcmread(path)
    ds.EncapsulatedDocument, ds.EncapsulatedDocumentLength = content, len(content)
    ds.save_as(path)
    with pytest.raises(InvalidContent) as refusal:
        document(path, DOCUMENT_TYPES)
    assert refusal.value.code == "dicom-document"


def test_what_is_nothing_to_read_is_refused_by_name():
    for name in ("rtplan.dcm", "waveform_ecg.dcm"):
        with pytest.raises(Unsupported) as refusal:
            document(FILES / name, DOCUMENT_TYPES)
        assert refusal.value.code == "dicom-no-pixels"
