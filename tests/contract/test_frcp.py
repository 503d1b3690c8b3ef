"""The national schema and schematrons judge the documents; then they are broken on purpose, to see the rules bite."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest
from lxml import etree
from msgspec.structs import replace

from gateway.documents import frcp, frcp_checks
from gateway.documents.wording import report_parts
from gateway.fhir.translate import report
from gateway.rcp.report_content import (
    Attendance,
    CodedValue,
    Examination,
    Motives,
    Proposal,
    Replaced,
    Tnm,
    TumourContent,
)
from tests.frcp_mutations import MUTATIONS, mutated
from tests.report_samples import cisis, content, national_validator, whole

pytestmark = pytest.mark.skipif(cisis() is None, reason="les règles nationales (CISIS_DIR) ne sont pas sur ce poste")

NS = {"c": "urn:hl7-org:v3"}
SNOMED = "2.16.840.1.113883.6.96"
TNM = "2.16.840.1.113883.15.6"
TA = "1.2.250.1.213.1.1.4.322"


@pytest.fixture(scope="module")
def judge():
    validator = national_validator().Validator()

    def errors(document: bytes) -> list[str]:
        return [str(f) for f in validator.validate(document, profile="frcp") if f.severity == "error"]

    return errors


def _variants():
    full, minimal = content(), content("minimal")
    second = replace(
        full,
        version=2,
        document_id=replace(full.document_id, root=full.set_id.root + ".2"),
        written_at=full.written_at + timedelta(days=1),
        replaces=Replaced(
            document_id=full.document_id, version=1, validated_at=full.written_at, reason="Latéralité corrigée."
        ),
    )
    unknown = TumourContent(label="Masse médiastinale")
    yield "complet", full
    yield "minimal", minimal
    yield "remplacement", second
    yield "addendum", replace(second, replaces=replace(second.replaces, kind="addendum"))
    yield "brouillon", replace(full, status="en-cours")
    yield "sans médecin traitant", replace(full, treating_physician=None, contributions=())
    yield "quorum non atteint", replace(full, quorum="non-atteint", attendees=())
    yield "quorum inconnu", replace(full, quorum="inconnu")
    yield "INS non qualifiée", replace(full, patient=replace(full.patient, ins_qualified=False))
    yield "deux tumeurs", replace(full, tumours=(*full.tumours, unknown))
    yield "tumeur sans code", replace(full, tumours=(unknown,))
    yield "TNM incomplet", replace(full, tumours=(replace(full.tumours[0], tnm=Tnm(t="T2")),))
    yield (
        "latéralité et autre stade",
        replace(
            full,
            tumours=(
                replace(
                    full.tumours[0],
                    laterality=CodedValue("24028007", "2.16.840.1.113883.6.96", "droit"),
                    other_stage="Stade II de Valombre",
                    comment="Biopsie relue.",
                ),
            ),
        ),
    )
    yield (
        "transversale",
        replace(
            full,
            board_kind=CodedValue("ORG-132", TA, "RCP transversale et soins de support"),
            system=None,
            organs=(),
            care=CodedValue("C15747", "2.16.840.1.113883.3.26.1.1", "soins de support"),
            recourse_board=True,
        ),
    )
    yield "dix-huit sections", whole()
    yield "appareil sans organe codé", replace(full, organs=(), subject="Ampoule de Vater")
    yield "deux organes", replace(full, organs=(*full.organs, CodedValue("86762007", SNOMED, "système digestif")))
    yield "commentaire sans nature", replace(full, board_kind=None, board_comment="Séance commune.")
    yield "fragilité sans OMS", replace(whole(), who_status=None, who_status_on=None)
    yield "progression sans siège", replace(full, progression=True)
    yield "organe en mots", replace(full, system=None, organs=(), subject="Sein")
    yield (
        "soins inconnus",
        replace(full, board_kind=CodedValue("ORG-132", TA, "RCP transversale"), system=None, organs=()),
    )
    yield "cas enregistré", replace(full, case_status="enregistre")
    yield (
        "plan sans traitement",
        replace(
            minimal,
            proposals=(Proposal(text="Abstention."),),
            recourse_asked="Avis de la RCP de recours.",
            examinations_asked=(Examination(text="TEP"),),
            surveillance="Scanner à 3 mois.",
            file_comment="Dossier radiologique incomplet.",
            frame_comment="Hors référentiel.",
            motives=Motives(comment="Demande du patient."),
            patient_remark="Vit seul.",
            document_comment="Relu en séance.",
            trial=True,
        ),
    )
    for grade in range(5):
        yield f"OMS {grade}", replace(minimal, who_status=grade, who_status_on=None if grade else "2026-11")
    yield (
        "texte hostile",
        replace(
            full,
            question='<script>&amp; ]]> "\u0007\ud7ff\u202e #set page(fill: red) $ \\ \r\n* _a_ 😀',
            attendees=(
                *full.attendees,
                Attendance(person=replace(full.requester, idnps=None, family="d'Étoile & <Fils>")),
            ),
        ),
    )


VARIANTS = dict(_variants())


@pytest.mark.parametrize("name", VARIANTS)
def test_national_rules_accept(judge, name):
    document = frcp.render(VARIANTS[name])
    assert judge(document) == []
    assert frcp.render(VARIANTS[name]) == document


@pytest.mark.parametrize(
    ("path", "change"),
    [
        (f".//c:section[c:code/@code='{code}']/..", None)
        for code in ["42349-1", "42545-4", "72135-7", "18733-6", "10164-2", "21874-3", "18776-5", "35510-7", "33557-0"]
    ]
    + [
        ("c:setId", None),
        ("c:legalAuthenticator", None),
        ("c:componentOf//c:encompassingEncounter/c:id[position() > 2]", None),
        (".//c:observation[c:code/@code='75620-5']/..", None),
        (".//c:observation[c:code/@code='21906-3']/..", None),
        (".//c:observation[c:code/@code='282291009']/c:targetSiteCode", ("code", "Z99.9")),
        (".//c:observation[c:code/@code='282291009']/c:value", ("code", "9999/9")),
        (".//c:observation[c:code/@code='ORG-125']/c:value", ("code", "ORG-999")),
        (".//c:procedure/c:code", ("code", "C445")),
        ("c:author/c:assignedAuthor/c:code", ("code", "G15_10/SCH10")),
        ("c:confidentialityCode", ("code", "INVISIBLE_PATIENT")),
        ("c:languageCode", ("code", "fr")),
        ("c:recordTarget//c:family[@qualifier='BR']", None),
        (".//c:observation[c:code/@code='GEN-065']/c:value", ("code", "385651000")),
    ],
)
def test_national_rules_would_refuse(judge, path, change):
    """Each part that the rules ask for, taken away or falsified, is missed: the acceptance above means something."""
    root = etree.fromstring(frcp.render(content()))
    targets = root.xpath(path, namespaces=NS)
    assert targets
    for target in targets:
        if change is None:
            target.getparent().remove(target)
        else:
            target.set(*change)
    assert judge(etree.tostring(root)) != []


EIGHTEEN = [
    "42349-1", "42545-4", "72135-7", "11348-0", "11450-4", "47420-5", "30954-2", "18733-6", "29554-3",
    "10218-6", "30954-2", "50397-9", "10164-2", "21874-3", "18776-5", "35510-7", "55112-7", "33557-0",
]  # fmt: skip


def test_the_whole_report_has_the_eighteen_sections_of_the_model_in_its_order():
    root = etree.fromstring(frcp.render(whole()))
    assert root.xpath("c:component/c:structuredBody/c:component/c:section/c:code/@code", namespaces=NS) == EIGHTEEN


def test_the_composition_has_the_same_sections():
    sections = [report._section(part, {}) for part in report_parts(whole()).values()]
    assert [section["code"]["coding"][0]["code"] for section in sections] == EIGHTEEN


@pytest.mark.parametrize("name", MUTATIONS)
def test_national_rules_do_not_see_the_faults_that_ours_name(judge, name):
    assert judge(etree.tostring(mutated(frcp.render(content()), name, 1))) == []


def test_our_checks_find_the_known_faults_of_the_official_examples():
    """The sheet lists ten dangling references and repeated entry ids in the examples; no national rule sees them."""
    for name in ("Appareil", "Transversale"):
        path = cisis() / "ExemplesCDA" / f"CANCER-FRCP_2022.01_{name}.xml"
        found = frcp_checks.check(etree.parse(str(path)).getroot())
        dangling = {f.location for f in found if f.rule == "FRCP-04"}
        assert {"#raison", "#motifRCP", "#referentiel-clinique"} <= dangling
        assert any(f.rule == "FRCP-05" for f in found)
        # ORG-185 answers true beside the word « Non » (cda-frcp.md §7).
        assert "/observation[ORG-185]" in {f.location for f in found if f.rule == "FRCP-18"}


def test_labels_agree_with_the_national_lists():
    """Every label written beside a code of a list of the rules is the list's own, or the examples'."""
    labels: dict[tuple[str, str], set[str]] = {}
    for path in itertools.chain(
        (cisis() / "jeuxDeValeurs").glob("*.xml"), (cisis() / "ExemplesCDA").glob("CANCER-FRCP*.xml")
    ):
        for element in etree.parse(str(path)).iter("{*}Concept", "{*}code", "{*}value", "{*}functionCode", "{*}name"):
            code, system = element.get("code"), element.get("codeSystem")
            if code and system and element.get("displayName"):
                labels.setdefault((code, system), set()).add(_folded(element.get("displayName")))
    ours = etree.fromstring(frcp.render(whole()))
    wrong = []
    for element in ours.xpath(".//*[@code and @codeSystem and @displayName]"):
        key = (element.get("code"), element.get("codeSystem"))
        if (
            element.get("codeSystem") == TNM
        ):  # The letters say themselves; the examples explain them, one with « none ».
            continue
        if key in labels and _folded(element.get("displayName")) not in labels[key]:
            wrong.append((key, element.get("displayName"), labels[key]))
    assert wrong == []


def _folded(text: str) -> str:
    return " ".join(text.replace("’", "'").lower().split())
