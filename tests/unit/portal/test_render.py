"""Every screen rendered from a sample: structure, accessibility, French, and no way in for a hostile name."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from lxml import html

from gateway.portal import views as v
from gateway.portal.render import STATIC_TYPES, hour, long_date, render, short_date, static_file, typographic
from gateway.web.csrf import CSRF_FIELD
from tests.unit.portal.portal_samples import CHROME, DOSSIER, HOSTILE, PAGES

FIELDS = "//input[not(@type='hidden')]|//select|//textarea"


def page_of(name: str, **chrome: object) -> html.HtmlElement:
    return html.document_fromstring(render(PAGES[name], replace(CHROME, **chrome)))


def words(element: html.HtmlElement) -> str:
    return re.sub(r"\s+", " ", element.text_content())


def columns(tree: html.HtmlElement, caption: str) -> list[str]:
    table = next(t for t in tree.iter("table") if t.find("caption") is not None and caption in words(t.find("caption")))
    return [words(cell) for cell in table.findall("thead/tr/th")]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_landmarks_labels_and_an_outline(name: str) -> None:
    tree = page_of(name)
    assert tree.get("lang") == "fr"
    assert len(tree.findall(".//h1")) == 1
    assert len(tree.findall(".//main")) == 1
    assert tree.xpath("//a[@class='skip']/@href") == ["#contenu"]
    assert tree.xpath("//title/text()")[0].endswith("– Passerelle RCP")
    identifiers = tree.xpath("//@id")
    assert len(identifiers) == len(set(identifiers))
    labelled = set(tree.xpath("//label/@for"))
    for control in tree.xpath(FIELDS):
        assert control.get("id") in labelled, html.tostring(control)
    for image in tree.iter("img"):
        assert image.get("alt") is not None
    for described in tree.xpath("//@aria-describedby|//@aria-labelledby"):
        assert set(described.split()) <= set(identifiers)
    for anchor in tree.xpath("//main//a[starts-with(@href, '#')]/@href"):
        assert anchor[1:] in identifiers, anchor
    levels = [int(heading.tag[1]) for heading in tree.xpath("//main//*[self::h1 or self::h2 or self::h3 or self::h4]")]
    assert all(deeper - level <= 1 for level, deeper in pairwise(levels)), levels
    for table in tree.iter("table"):
        assert table.find("caption") is not None
        assert all(cell.get("scope") for cell in table.iter("th"))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_obeys_the_content_security_policy(name: str) -> None:
    tree = page_of(name)
    assert not tree.xpath("//style|//@style|//script[not(@src) or text()]|//iframe|//object|//embed")
    assert not [attribute for attribute in tree.xpath("//@*") if attribute.attrname.startswith("on")]
    loaded = tree.xpath("//link/@href|//img/@src|//source/@src|//script/@src")
    assert all(address.startswith("/") and not address.startswith("//") for address in loaded)
    for form in tree.xpath("//form[@method='post']"):
        assert form.xpath(f".//input[@name='{CSRF_FIELD}']/@value") == [CHROME.csrf_token]


@pytest.mark.req("S0-053")
def test_a_hostile_name_is_text() -> None:
    for name, page in (
        ("dossier", replace(DOSSIER, patient=HOSTILE)),
        ("patients", PAGES["patients"]),
        ("report", replace(PAGES["compte-rendu"], patient=HOSTILE)),
    ):
        source = render(page, CHROME)
        assert "<script>alert" not in source, name
        tree = html.document_fromstring(source)
        assert not tree.xpath("//script|//img[@src='x']|//@onerror")
        assert HOSTILE.family in words(tree)
        assert HOSTILE.given in words(tree)


@pytest.mark.req("S0-053")
def test_a_tile_says_all_of_the_identity() -> None:
    tile = words(page_of("patients").xpath("//div[@class='tile']")[0])
    for said in (
        "PATIENT-ESSAI",
        "DUPRÉ-FICTIF",
        "Jeanne",
        "Féminin",
        "01/03/1965",
        "INS qualifiée",
        "Tumeurs digestives",
    ):
        assert said in tile
    assert "Demande en attente" in tile


@pytest.mark.req("S0-008")
def test_the_help_has_seven_chapters() -> None:
    tree = page_of("aide")
    chapters = tree.xpath("//ol/li/a/@href")
    assert len(chapters) == 7
    assert all(tree.get_element_by_id(chapter[1:]) is not None for chapter in chapters)


@pytest.mark.req("S0-092")
@pytest.mark.parametrize("name", PAGES)
def test_the_contact_is_on_each_page(name: str) -> None:
    assert "secretariat@3c.example" in words(page_of(name).xpath("//footer")[0])


@pytest.mark.req("S2-036", "S3-021")
def test_the_contribution_form_says_what_becomes_of_it() -> None:
    form = page_of("dossier").xpath("//section[@id='contribution']")[0]
    text = words(form)
    assert "Contribution du médecin traitant" in text
    assert "Commentaire du Docteur Paul DURANT-FICTIF, Médecine générale" in text
    assert "Ce texte sera lu par les participants et conservé dans le compte rendu." in text
    assert words(form.xpath(".//button")[0]) == "Enregistrer ma contribution"
    assert form.xpath(".//textarea/@name") == ["commentaire"]
    assert form.xpath(".//input[@type='checkbox']/@name") == ["interet"]


@pytest.mark.req("S2-035")
def test_the_clinical_part_of_the_fiche_has_no_field() -> None:
    tree = page_of("dossier")
    outside = [field for field in tree.xpath(FIELDS) if not field.xpath("ancestor::section[@id='contribution']")]
    assert outside == []


@pytest.mark.req("S2-043")
def test_contributions_stand_between_the_question_and_the_recommendations() -> None:
    page = replace(DOSSIER, proposal="Chimiothérapie.")
    tree = html.document_fromstring(render(page, CHROME))
    order = [heading.get("id") for heading in tree.iter("h2") if heading.get("id")]
    assert order.index("question") < order.index("avis") < order.index("recommandations")
    said = words(tree.xpath("//section[@aria-labelledby='avis']")[0])
    assert "Contribution du médecin traitant – Commentaire du Docteur Paul DURANT-FICTIF, Médecine générale" in said
    assert "le 09/05/2023" in said
    assert "Souhaite assister à la discussion" in said


@pytest.mark.req("S3-019")
def test_a_fiche_says_that_it_may_change_until_the_validation() -> None:
    notice = "Document préparatoire, susceptible d’évoluer jusqu’à la validation."
    assert notice in render(DOSSIER, CHROME)
    assert notice not in render(replace(DOSSIER, preparatory=False), CHROME)


@pytest.mark.req("S3-023", "S2-013")
def test_the_access_to_the_webconference_is_said_either_way() -> None:
    said = words(page_of("dossier").xpath("//section[@aria-labelledby='webconference']")[0])
    assert "Mot de passe : MDPVISIO1213" in said
    without = html.document_fromstring(render(replace(DOSSIER, webconference=None), CHROME))
    absent = words(without.xpath("//section[@aria-labelledby='webconference']")[0])
    assert "Aucune webconférence n’est prévue pour cette réunion." in absent


@pytest.mark.req("S0-086")
def test_the_webconference_opens_apart() -> None:
    link = page_of("dossier").xpath("//section[@aria-labelledby='webconference']//a")[0]
    assert (link.get("target"), link.get("rel")) == ("_blank", "noopener noreferrer")


@pytest.mark.req("S2-017")
def test_correspondents_have_the_five_columns() -> None:
    assert columns(page_of("dossier"), "Correspondants du dossier") == [
        "Type de correspondant",
        "Médecin",
        "MSS personnelle",
        "MSS secrétariat",
        "Informations",
    ]


@pytest.mark.req("S2-030")
def test_the_news_have_their_columns_and_page_sizes() -> None:
    tree = page_of("patients")
    assert columns(tree, "Actualité") == ["Date", "Identité du patient", "Type de tumeur", "Informations"]
    assert [words(item) for item in tree.xpath("//nav[@class='pages']/ul[2]/li")[1:]] == ["10", "20", "50", "100"]


@pytest.mark.req("S2-042")
def test_a_contribution_is_seen_in_the_list_of_fiches() -> None:
    rows = page_of("seance").xpath("//section[@aria-labelledby='ordre']//tbody/tr")
    marks = [row.xpath(".//@aria-label[. = 'Contribution externe pour cette fiche']") for row in rows]
    assert [len(found) for found in marks] == [1, 0]


def test_an_error_stands_beside_its_field_and_at_the_top() -> None:
    form = replace(DOSSIER.contribution_form, errors={"commentaire": "Écrivez un commentaire ou cochez la case."})
    tree = html.document_fromstring(render(replace(DOSSIER, contribution_form=form), CHROME))
    zone = tree.get_element_by_id("commentaire")
    assert zone.get("aria-invalid") == "true"
    assert "commentaire-erreur" in zone.get("aria-describedby").split()
    assert tree.xpath("//div[@role='alert']//a/@href") == ["#commentaire"]


def test_titles_of_tabs_name_no_patient() -> None:
    for name, page in PAGES.items():
        title = page_of(name).xpath("//title/text()")[0]
        assert "PATIENT-ESSAI" not in title, page
        assert "Jeanne" not in title


@pytest.mark.req("S0-007")
def test_an_old_browser_is_told_and_served() -> None:
    told = page_of("accueil", old_browser=True)
    assert "/aide/navigateurs" in told.xpath("//div[@role='status']//a/@href")
    assert told.findall(".//form")


def test_french_spacing_is_set_in_our_own_words_only() -> None:
    assert typographic("Attention : vraiment ?") == "Attention\u00a0: vraiment\u202f?"
    assert typographic("« l'avis »") == "«\u00a0l’avis\u00a0»"
    assert typographic("18:30 https://a.fr/?a=b") == "18:30 https://a.fr/?a=b"
    page = replace(DOSSIER, question="Opérer ? « oui » : l'avis")
    assert "<p>Opérer ? « oui » : l&#39;avis</p>" in render(page, CHROME)


def test_dates_are_french() -> None:
    first = datetime(2023, 5, 1, 8, 5, tzinfo=UTC)
    assert long_date(first) == "lundi 1er\u00a0mai 2023"
    assert short_date(first) == "01/05/2023"
    assert short_date(None) == "–"
    assert hour(first) == "08h05"


def _luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = "".join(c * 2 for c in digits) if len(digits) == 3 else digits
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_colours_keep_the_contrast_of_wcag_aa() -> None:
    css = static_file("portal.css").decode()
    colour = dict(re.findall(r"--([a-z-]+):\s*(#[0-9a-fA-F]{3,6})\b", css))
    text = [(ink, ground) for ink in ("ink", "ink-soft", "action", "brand", "danger") for ground in ("paper", "ground")]
    text += [(tone, f"{tone}-ground") for tone in ("info", "success", "warning", "danger")]
    for ink, ground in text:
        assert _contrast(colour[ink], colour[ground]) >= 4.5, (ink, ground)
    for edge in ("line-strong", "focus", "action"):
        assert _contrast(colour[edge], colour["paper"]) >= 3, edge
        assert _contrast(colour[edge], colour["ground"]) >= 3, edge


@pytest.mark.req("S0-007")
def test_the_style_sheet_asks_nothing_of_old_browsers_nor_of_others_servers() -> None:
    css = re.sub(r"/\*.*?\*/", "", static_file("portal.css").decode(), flags=re.DOTALL)
    assert "@import" not in css
    assert "url(" not in css
    assert not re.search(
        r"(?<![-\w])(?:gap|row-gap|inset)\s*:|:is\(|:where\(|:has\(|:focus-visible|(?<![a-z])(?:clamp|min|max)\(", css
    )
    outside = re.sub(r"@supports \(display: grid\) \{.*?\n\}", "", css, flags=re.DOTALL)
    assert "display: grid" not in outside


def test_only_our_static_files_are_served() -> None:
    assert all(static_file(name) for name in STATIC_TYPES)
    assert static_file("../views.py") is None
    assert isinstance(PAGES["accueil"], v.Home)
