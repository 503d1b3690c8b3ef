from __future__ import annotations

import io
from datetime import timedelta

import pypdf
import pytest
from lxml import etree
from msgspec.structs import replace

from gateway.documents import frcp, pdf, wording
from gateway.rcp.report_content import Replaced
from tests.report_samples import content


def _reader(facts):
    return pypdf.PdfReader(io.BytesIO(pdf.render(facts)))


def _squeezed(text):
    return "".join(text.split()).replace("\u00a0", "").replace("\u202f", "")


def _said(facts):
    return _squeezed("".join(page.extract_text() for page in _reader(facts).pages))


@pytest.mark.parametrize("name", ["full", "minimal"])
def test_both_forms_say_the_same(name):
    """What a person reads is extracted from each file, not from what made them."""
    facts = content(name)
    page = _said(facts)
    narrative = {}
    root = etree.fromstring(frcp.render(facts))
    for cell in root.iter("{urn:hl7-org:v3}content"):
        for line in cell.iter("{urn:hl7-org:v3}br"):
            line.text = " "
        narrative[cell.get("ID")] = ("".join(cell.itertext()), cell.getparent().getparent()[0].text)
    rows = [row for part in wording.report_parts(facts).values() for row in part.read]
    assert len(rows) > (8 if name == "minimal" else 30) - 6
    for row in rows:
        text, label = narrative[row.anchor]
        assert _squeezed(text) in page, row.anchor
        assert _squeezed(label) in page, row.anchor
    for person in (facts.coordinator, facts.requester):
        assert _squeezed(f"{person.given} {person.family}") in page


@pytest.mark.req("S2-046")
def test_the_contribution_is_readable_with_its_author_and_local_hour():
    said = _said(content())
    for words in (
        "Contribution du médecin traitant : Docteur Paul DURANT (Médecine générale)",
        "le 25/11/2026 à 19:42 (heure de Paris)",
        "avec le souhait d’assister à la discussion",
        "Perte de 6 kg en deux mois ; metformine arrêtée le 18/11.",
    ):
        assert _squeezed(words) in said


@pytest.mark.parametrize(
    ("standard", "header", "part"), [("a-1a", "%PDF-1.4", 1), ("a-2a", "%PDF-1.7", 2), ("a-3a", "%PDF-1.7", 3)]
)
def test_file_is_tagged_pdf_a_with_embedded_fonts(standard, header, part):
    """What MSSanté asks for, and the later parts that an operator may choose: same words, same structure."""
    reader = pypdf.PdfReader(io.BytesIO(pdf.render(content(), standard=standard)))
    assert reader.pdf_header == header
    said = _squeezed("".join(page.extract_text() for page in reader.pages))
    assert said == _said(content())
    catalogue = reader.trailer["/Root"]
    assert catalogue["/MarkInfo"]["/Marked"] == True  # noqa: E712 - a PDF boolean object, not a Python one
    assert "/StructTreeRoot" in catalogue
    assert catalogue["/Lang"] == "fr-FR"
    assert catalogue["/OutputIntents"][0].get_object()["/S"] == "/GTS_PDFA1"
    metadata = catalogue["/Metadata"].get_object().get_data()
    assert f"<pdfaid:part>{part}</pdfaid:part>".encode() in metadata
    assert b"<pdfaid:conformance>A</pdfaid:conformance>" in metadata
    assert "/Encrypt" not in reader.trailer
    fonts = 0
    for page in reader.pages:
        for font in page["/Resources"]["/Font"].values():
            descriptor = font.get_object()["/DescendantFonts"][0].get_object()["/FontDescriptor"].get_object()
            assert {"/FontFile", "/FontFile2", "/FontFile3"} & set(descriptor)
            fonts += 1
    assert fonts


def test_file_says_title_type_date_author_and_organisation():
    """ECO.2.1.5: the readable copy of a structured document repeats these five."""
    facts = content()
    reader = _reader(facts)
    assert reader.metadata.title == frcp.title(facts)
    assert reader.metadata.author == "Dr Claire MERCIER"
    assert "CR de réunion de concertation pluridisciplinaire" in reader.metadata.subject
    said = _said(facts)
    for words in ("Compte rendu de réunion de concertation pluridisciplinaire", "jeudi 26 novembre 2026",
                  "Centre hospitalier de Valombre", "par Dr Claire MERCIER", facts.document_id.root):  # fmt: skip
        assert _squeezed(words) in said


def test_a_simple_case_holds_on_one_page():
    assert len(_reader(content("minimal")).pages) == 1


def test_replacement_and_missing_quorum_are_announced():
    first = content()
    second = replace(
        first,
        version=2,
        quorum="non-atteint",
        replaces=Replaced(
            document_id=first.document_id,
            version=1,
            validated_at=first.written_at - timedelta(days=1),
            kind="addendum",
            reason="Résultat attendu",
        ),
    )
    said = _said(second)
    assert _squeezed("Complète et remplace la version 1 validée le 25/11/2026 à 18:15.") in said
    assert _squeezed("Motif : Résultat attendu.") in said
    assert _squeezed("cet avis ne vaut pas proposition de RCP au sens réglementaire") in said
    assert _squeezed("Version 2, approuvée le 26/11/2026") in said
    assert _squeezed("Version 1") not in said


def test_text_is_never_markup():
    """Typst's own signs, quotes and line breaks come out as they were typed."""
    hostile = (
        '#set page(fill: red) *gras* _i_ $x^2$ @ref <lbl> "q" \\ // commentaire = titre - liste #include("/etc/passwd")'
    )
    said = _said(replace(content(), question=hostile))
    assert _squeezed(hostile) in said


def test_characters_without_glyph_do_not_stop_a_report():
    said = _said(replace(content(), question="Fièvre 😀 漢 \u0007 ≥ 38,5 °C — Ελένη Привет"))
    assert _squeezed("Fièvre � �  ≥ 38,5 °C — Ελένη Привет") in said


def test_a_cluster_that_no_font_can_set_does_not_stop_a_report():
    """Each of these characters alone has a glyph; next to one another they do not."""
    said = _said(
        replace(
            content(), question="Fin \u25bb\u2db9\u19ce\u0e53\u191f\u123f\ufdb7\u1424\ufb12\u0903\u107e\u1c45 du texte"
        )
    )
    assert "Fin" in said
    assert "dutexte" in said


def test_same_facts_same_bytes():
    assert pdf.render(content()) == pdf.render(content())


def test_an_unqualified_ins_is_not_printed():
    facts = content()
    assert "279035121518989" in _said(facts)
    assert "279035121518989" not in _said(replace(facts, patient=replace(facts.patient, ins_qualified=False)))
