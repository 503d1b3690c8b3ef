"""Every field of the national report goes in over FHIR and comes out of the validated report's CDA.

Where a field stands in the CDA is what the national sheet says of it (cda-frcp.md §6), its value what was sent.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from lxml import etree

from gateway.model.dossier import Dossier
from gateway.model.meeting import Rcp
from gateway.model.store import Store
from gateway.rcp import fiche, sessions
from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import ALL_SCOPES, Hospital, Served
from tests.e2e.fhir.test_report_over_http import _composition
from tests.report_samples import cisis, national_validator
from tests.world import World

NS = {"c": "urn:hl7-org:v3"}
TA = "https://smt.esante.gouv.fr/fhir/CodeSystem/terminologie-cisis"
SCT = "http://snomed.info/sct"
NCIT = "http://ncicb.nci.nih.gov/xml/owl/EVS/Thesaurus.owl"
CIM10 = "https://smt.esante.gouv.fr/terminologie-cim-10"
CIMO3 = "http://terminology.hl7.org/CodeSystem/icd-o-3"
LOINC = "http://loinc.org"
TNM = "urn:oid:2.16.840.1.113883.15.6"
START = "2026-03-19T14:00:00+01:00"


def _said(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"valueBoolean": value}
    if isinstance(value, int):
        return {"valueInteger": value}
    if isinstance(value, tuple):
        return {"valueCoding": {"system": value[0], "code": value[1]}}
    return {"valueDate": value} if isinstance(value, str) and value[:2] == "20" else {"valueString": value}


def _item(link: str, *values: Any) -> dict[str, Any]:
    return {"linkId": link, "answer": [_said(value) for value in values]}


def _group(link: str, **answers: Any) -> dict[str, Any]:
    return {"linkId": link, "item": [_item(f"{link}.{name}", value) for name, value in answers.items()]}


FULL = [
    {
        "linkId": "motif",
        "item": [
            _item("motif.type", (TA, "ORG-117")),
            _item("motif.appareil", (SCT, "76752008")),
            _item("motif.organes", (SCT, "76752008"), (SCT, "39937001")),
            _item("motif.recours", False),
            _item("motif.pediatrique", False),
            _item("motif.nature_commentaire", "Réunion commune avec la plastique."),
            _item("motif.motifs", (TA, "ORG-114"), (TA, "MED-235")),
            _item("motif.commentaire", "Patiente très inquiète."),
            _item("motif.statut", (TA, "ORG-134")),
            _item("motif.question", "Chirurgie première ?"),
        ],
    },
    {"linkId": "decouverte", "item": [_item("decouverte.depistage", True)]},
    {
        "linkId": "tumeur",
        "item": [
            _item("tumeur.code", (CIM10, "C50.2")),
            _item("tumeur.morphologie", (CIMO3, "8500/3")),
            _item("tumeur.lateralite", (SCT, "7771000")),
            _item("tumeur.date", "2026-02-11"),
            _item("tumeur.t", "cT2"),
            _item("tumeur.n", "N1"),
            _item("tumeur.m", "M0"),
            _item("tumeur.stade", "IIB"),
            _item("tumeur.edition", "8"),
            _item("tumeur.commentaire", "Tumeur palpable."),
            _group("tumeur.autres_stades", nom="FIGO", version="v2018", valeur="IB1"),
        ],
    },
    {"linkId": "tumeur", "item": [_item("tumeur.code", (CIM10, "C34.1")), _item("tumeur.t", "T1")]},
    _item("antecedents.texte", "Appendicectomie en 1998."),
    _item("comorbidites.texte", "Diabète équilibré."),
    {
        "linkId": "etat",
        "item": [
            _item("etat.situation", "Vit seule, autonome."),
            _item("etat.oms", 1),
            _item("etat.oms_date", "2026-03-05"),
            _item("etat.g8", 13),
            _item("etat.g8_date", "2026-03-04"),
        ],
    },
    _item("examens.texte", "IRM : masse de 28 mm."),
    _item("examens.sans_imagerie", True),
    {
        "linkId": "phase",
        "item": [
            _item("phase.code", (TA, "MED-244")),
            _item("phase.date", "2026-01"),
            _item("phase.progression", True),
            _item("phase.locale", True),
            _item("phase.regionale", False),
            _item("phase.distance", False),
            _item("phase.commentaire", "Rechute tardive."),
        ],
    },
    _group("traitements", type=(NCIT, "C15632"), etat="fait", texte="Six cycles", debut="2019-02", fin="2019-06-30"),
    _group("traitements", type=(SCT, "387713003"), etat="non-fait"),
    _group(
        "cro",
        conclusion="Tumorectomie complète.",
        debut="2019-07-02",
        realisateur="Dr Anne CHIRURGIENNE",
        remarque="Pièce orientée.",
    ),
    _group("acp", conclusion="Carcinome infiltrant, grade 2.", debut="2026-02-20", realisateur="Dr Paul PATHOLOGISTE"),
    _group("gm", conclusion="Pas de mutation BRCA.", debut="2026-03-01", realisateur="Dr Léa BIOLOGISTE"),
    _group("gm", conclusion="PIK3CA muté.", debut="2026-03-02"),
    _item("histoire.resume", "Masse du sein gauche découverte en février."),
]

SECTION = "//c:section[c:templateId/@root='1.2.250.1.213.1.1.2.{}']"
REASON, FOUND, CANCER, PHASE = (SECTION.format(n) for n in (128, 163, 27, 25))
ACTS, CRO, ACP, GM = (SECTION.format(n) for n in (118, 26, 34, 67))
FILE, STATE = SECTION.format(33), SECTION.format(111)


def _o(code: str) -> str:
    return f"//c:observation[c:code/@code='{code}']"


def _value(section: str, code: str, what: str = "code") -> str:
    return f"{section}{_o(code)}/c:value/@{what}"


#: Where the sheet says that a field is → what was sent.
EXPECTED = {
    f"{REASON}/c:entry/c:observation[c:code/@code='GEN-098']/c:value/@code": ["ORG-117"],
    _value(REASON, "ORG-118"): ["76752008"],
    _value(REASON, "ORG-119"): ["76752008", "39937001"],
    _value(REASON, "ORG-184", "value"): ["false"],
    _value(REASON, "ORG-185", "value"): ["false"],
    _value(REASON, "MED-235", "value"): ["true"],
    _value(REASON, "ORG-114", "value"): ["true"],
    _value(REASON, "ORG-115", "value"): ["false"],
    _value(REASON, "ORG-116", "value"): ["false"],
    _value(REASON, "ORG-127"): ["ORG-134"],
    f"{FOUND}/c:entry/c:observation[c:code/@code='63921-1']/c:value/@value": ["true"],
    f"{CANCER}/c:entry/c:act{_o('282291009')}/c:effectiveTime/c:low/@value": ["20260211"],
    f"{CANCER}{_o('282291009')}/c:value/@code": ["8500/3"],
    f"{CANCER}{_o('282291009')}/c:targetSiteCode/@code": ["C50.2", "C34.1"],
    f"{CANCER}{_o('282291009')}/c:targetSiteCode/c:qualifier[c:name/@code='20228-3']/c:value/@code": ["7771000"],
    f"{CANCER}{_o('75620-5')}{_o('21905-5')}/c:value/@code": ["cT2", "T1"],
    f"{CANCER}{_o('75620-5')}{_o('21906-3')}/c:value/@code": ["N1"],
    f"{CANCER}{_o('75620-5')}{_o('21907-1')}/c:value/@code": ["M0"],
    f"{CANCER}{_o('75620-5')}/c:value/c:qualifier[c:name/@code='21909-7']/c:value/@code": ["IIB"],
    f"{CANCER}{_o('75620-5')}/c:value/c:qualifier[c:name/@code='21917-0']/c:value/@code": ["8"],
    f"{STATE}{_o('MED-239')}/c:value/@code": ["MED-264"],
    f"{STATE}{_o('MED-239')}/c:interpretationCode/@code": ["LA9623-5"],
    f"{STATE}{_o('MED-239')}/c:effectiveTime/@value": ["20260305"],
    f"{STATE}{_o('48544-1')}/c:value/@value": ["13"],
    f"{PHASE}/c:entry/c:observation[c:code/@code='MED-243']/c:value/@code": ["MED-244"],
    f"{PHASE}/c:entry/c:observation[c:code/@code='MED-243']/c:effectiveTime/@value": ["202601"],
    f"{PHASE}{_o('MED-245')}/c:value/@value": ["true"],
    f"{PHASE}{_o('MED-246')}/c:value/@value": ["true"],
    f"{PHASE}{_o('MED-247')}/c:value/@value": ["false"],
    f"{PHASE}{_o('MED-248')}/c:value/@value": ["false"],
    f"{ACTS}/c:entry/c:procedure/c:code/@code": ["C15632", "387713003"],
    f"{ACTS}/c:entry/c:procedure/c:statusCode/@code": ["completed", "cancelled"],
    f"{ACTS}/c:entry/c:procedure[1]/c:effectiveTime/c:low/@value": ["201902"],
    f"{ACTS}/c:entry/c:procedure[1]/c:effectiveTime/c:high/@value": ["20190630"],
    f"{FILE}{_o('GEN-100')}/c:value/@value": ["true"],
}
#: Section → words that its narrative must hold.
SAID = {
    REASON: ("Réunion commune avec la plastique.", "Patiente très inquiète."),
    CANCER: ("Tumeur palpable.", "FIGO", "v2018", "IB1"),
    SECTION.format(2): ("Appendicectomie en 1998.",),
    SECTION.format(176): ("Diabète équilibré.",),
    SECTION.format(150): ("IRM : masse de 28 mm.",),
    PHASE: ("Rechute tardive.",),
    ACTS: ("Six cycles",),
    CRO: ("Tumorectomie complète.", "Pièce orientée."),
    ACP: ("Carcinome infiltrant, grade 2.",),
    GM: ("Pas de mutation BRCA.", "PIK3CA muté."),
    SECTION.format(130): (
        "Vit seule, autonome.",
        "Masse du sein gauche découverte en février.",
        "Chirurgie première ?",
    ),
}


@pytest.fixture
def ehr(world: World, admit: Callable[..., Hospital]) -> Iterator[httpx.Client]:
    with admit(world.partner, scopes=ALL_SCOPES).client() as client:
        yield client


def _bundle(world: World, items: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    facts = {"rcp": world.rcp.national_number, "start": START, "requester": world.requester.idnps}
    tree = samples.transaction(**(facts | {"treating": world.treating.rpps} | more))
    if items is not None:
        _resource(tree, "QuestionnaireResponse")["item"] = items
    return tree


def _resource(bundle: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(one["resource"] for one in bundle["entry"] if one["resource"]["resourceType"] == kind)


def _dossier(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    places = [entry["response"]["location"] for entry in answer.json()["entry"]]
    return next(one.split("/")[1] for one in places if one.startswith("ServiceRequest/"))


def _cda(served: Served, world: World, home: httpx.Client, ehr: httpx.Client, dossier: str) -> bytes:
    """Hold the session, validate the report over FHIR, read its CDA over FHIR."""
    served.steps.run(world.caller(world.coordinator), lambda step: sessions.open_session(step, world.meeting.id))
    tree = _composition(dossier, world.coordinator.idnps, "final")
    # The history is the fiche's: the coordinator writes the proposal only.
    tree["section"] = [one for one in tree["section"] if one["title"] == "Plan de soins"]
    made = home.post("Composition", json=tree)
    assert made.status_code == 201, made.text
    return _kept(ehr, made)


def _kept(ehr: httpx.Client, made: httpx.Response) -> bytes:
    document = ehr.get(f"DocumentReference/{made.json()['id']}").json()
    kinds = {one["attachment"]["contentType"]: one["attachment"]["url"] for one in document["content"]}
    [url] = [url for kind, url in kinds.items() if "xml" in kind]
    answer = ehr.get(url, headers={"Accept": "text/xml, application/xml"})
    assert answer.status_code == 200, answer.text
    return answer.content


def _texts(root: etree._Element, section: str) -> str:
    return " ".join(" ".join(one.itertext()) for one in root.xpath(f"{section}//c:text", namespaces=NS))


@pytest.mark.req("S2-016")
def test_every_field_of_the_form_is_in_the_cda_of_the_validated_report(
    served: Served, world: World, home: httpx.Client, ehr: httpx.Client
) -> None:
    dossier = _dossier(ehr.post("", json=_bundle(world, FULL)))
    content = _cda(served, world, home, ehr, dossier)
    root = etree.fromstring(content)
    found = {path: [str(one) for one in root.xpath(path, namespaces=NS)] for path in EXPECTED}
    assert found == EXPECTED
    for section, words in SAID.items():
        text = _texts(root, section).replace("\u00a0", " ").replace("\u202f", " ")
        for one in words:
            assert one in text, (section, one)
    people = [" ".join("".join(one.itertext()).split()) for one in root.xpath("//c:performer", namespaces=NS)]
    for family in ("CHIRURGIENNE", "PATHOLOGISTE", "BIOLOGISTE"):
        assert any(family in one for one in people), family
    if cisis() is not None:  # the rules themselves have their own tests, which are skipped with the reason elsewhere
        judged = national_validator().Validator().validate(content, profile="frcp")
        assert [str(one) for one in judged if one.severity == "error"] == []


def test_resources_that_the_request_names_are_in_the_cda_and_typed_by_nobody(
    served: Served, world: World, home: httpx.Client, ehr: httpx.Client
) -> None:
    bundle = _bundle(world)
    who = next(one["fullUrl"] for one in bundle["entry"] if one["resource"]["resourceType"] == "Patient")
    urls = [f"urn:uuid:{uuid.uuid4()}" for _ in range(7)]
    group, t, n, m, grade, frailty, pathology = urls

    def observed(*codes: str, **more: Any) -> dict[str, Any]:
        coding = [{"system": TA if code[:3].isalpha() else LOINC, "code": code} for code in codes]
        about = {"subject": {"reference": who}, "effectiveDateTime": "2026-03-05"}
        return {"resourceType": "Observation", "status": "final", "code": {"coding": coding}} | about | more

    def letter(code: str, value: str) -> dict[str, Any]:
        return observed(code, valueCodeableConcept={"coding": [{"system": TNM, "version": "8", "code": value}]})

    staged = {"coding": [{"system": TNM, "version": "8", "code": "IIA"}]}
    resources = {
        group: observed("75620-5", valueCodeableConcept=staged, hasMember=[{"reference": one} for one in (t, n, m)]),
        t: letter("21905-5", "cT2"),
        n: letter("21906-3", "N0"),
        m: letter("21907-1", "M0"),
        grade: observed("89247-1", "MED-239", valueInteger=2),
        frailty: observed("48544-1", valueQuantity={"value": 12}, method={"text": "G8"}),
        pathology: {
            "resourceType": "DiagnosticReport",
            "status": "final",
            "code": {"coding": [{"system": LOINC, "code": "60568-3"}]},
            "subject": {"reference": who},
            "effectiveDateTime": "2026-02-20",
            "performer": [{"display": "Dr Paul PATHOLOGISTE"}],
            "conclusion": "Carcinome infiltrant de type non spécifique, grade 2",
        },
    }
    for url, tree in resources.items():
        bundle["entry"].append(
            {"fullUrl": url, "resource": tree, "request": {"method": "POST", "url": tree["resourceType"]}}
        )
    _resource(bundle, "Condition")["stage"] = [{"assessment": [{"reference": group}]}]
    request = _resource(bundle, "ServiceRequest")
    request["supportingInfo"] = [{"reference": one} for one in (frailty, pathology, grade)]
    request["reasonCode"] = [{"coding": [{"system": TA, "code": code}]} for code in ("ORG-114", "ORG-115")]
    _resource(bundle, "QuestionnaireResponse")["item"] = [_item("motif.question", "Chirurgie première ?")]
    answer = ehr.post("", json=bundle)
    dossier = _dossier(answer)
    places = [entry["response"]["location"].partition("/_history")[0] for entry in answer.json()["entry"]]
    # The physicians see the patient again before the session: the resource alone is corrected.
    [known] = [one for one in (ehr.get(place).json() for place in places) if one.get("valueInteger") == 2]
    assert (
        ehr.put(
            f"Observation/{known['id']}", json=known | {"valueInteger": 3}, headers={"If-Match": 'W/"1"'}
        ).status_code
        == 200
    )
    root = etree.fromstring(_cda(served, world, home, ehr, dossier))
    expected = {
        f"{CANCER}{_o('75620-5')}{_o('21905-5')}/c:value/@code": ["cT2"],
        f"{CANCER}{_o('75620-5')}{_o('21906-3')}/c:value/@code": ["N0"],
        f"{CANCER}{_o('75620-5')}{_o('21907-1')}/c:value/@code": ["M0"],
        f"{CANCER}{_o('75620-5')}/c:value/c:qualifier[c:name/@code='21909-7']/c:value/@code": ["IIA"],
        f"{CANCER}{_o('75620-5')}/c:value/c:qualifier[c:name/@code='21917-0']/c:value/@code": ["8"],
        f"{CANCER}{_o('282291009')}/c:targetSiteCode/@code": ["C50.4"],
        f"{STATE}{_o('MED-239')}/c:value/@code": ["MED-266"],
        f"{STATE}{_o('MED-239')}/c:effectiveTime/@value": ["20260305"],
        f"{STATE}{_o('48544-1')}/c:value/@value": ["12"],
        _value(REASON, "ORG-114", "value"): ["true"],
        _value(REASON, "ORG-115", "value"): ["true"],
        _value(REASON, "MED-235", "value"): ["false"],
    }
    assert {path: [str(one) for one in root.xpath(path, namespaces=NS)] for path in expected} == expected
    assert "Carcinome infiltrant de type non spécifique, grade 2" in _texts(root, ACP)


@pytest.mark.parametrize(
    ("item", "code", "label"),
    [
        (_item("tumeur.code", (CIM10, "Z99.9")), "code-inconnu", "Topographie (CIM-10)"),
        (_item("tumeur.morphologie", (CIM10, "8500/3")), "code-inconnu", "Morphologie (CIM-O-3)"),
        (_item("motif.organes", (SCT, "76752008"), (SCT, "1")), "code-inconnu", "Organes"),
        (_item("tumeur.t", "T9"), "champ-invalide", "« T »"),
        (_item("etat.oms", 5), "champ-invalide", "Échelle OMS"),
        (_item("phase.date", "hier"), "champ-invalide", "Date de la rechute"),
        (_group("traitements", texte="Six cycles"), "champ-obligatoire", "Type"),
    ],
)
def test_what_no_field_can_hold_is_refused_where_it_stands_and_leaves_nothing(
    world: World, ehr: httpx.Client, item: dict[str, Any], code: str, label: str
) -> None:
    answer = ehr.post("", json=_bundle(world, [item]))
    assert answer.status_code == 422, answer.text
    [issue] = answer.json()["issue"]
    assert issue["details"]["coding"][0]["code"] == code
    assert label in issue["details"]["text"].replace("\u00a0", " ")
    assert not ehr.get("ServiceRequest").json().get("entry")


_HISTOLOGY = "http://hl7.org/fhir/us/mcode/StructureDefinition/mcode-histology-morphology-behavior"


def _of_condition(system: str, code: str, place: str = "code") -> dict[str, Any]:
    concept = {"coding": [{"system": system, "code": code}], "text": "Tumeur du sein"}
    return {"code": concept} if place == "code" else {"extension": [{"url": place, "valueCodeableConcept": concept}]}


@pytest.mark.parametrize(
    ("said", "label", "where"),
    [
        (_of_condition(CIM10, "Z99.9"), "Topographie (CIM-10)", "Condition.code"),
        (_of_condition("http://hl7.org/fhir/sid/icd-10", "C50.42"), "Topographie (CIM-10)", "Condition.code"),
        (_of_condition(CIMO3, "8500/9", _HISTOLOGY), "Morphologie (CIM-O-3)", f"Condition.extension('{_HISTOLOGY}')"),
    ],
)
def test_a_tumour_in_codes_of_no_national_list_is_refused_as_it_comes(
    world: World, ehr: httpx.Client, said: dict[str, Any], label: str, where: str
) -> None:
    bundle = _bundle(world)
    right = dict(_resource(bundle, "Condition"))
    _resource(bundle, "Condition").update(said)
    answer = ehr.post("", json=bundle)
    assert answer.status_code == 422, answer.text
    [issue] = answer.json()["issue"]
    assert issue["details"]["coding"][0]["code"] == "code-inconnu"
    assert label in issue["details"]["text"].replace("\u00a0", " ")
    assert not ehr.get("ServiceRequest").json().get("entry")
    assert not ehr.get("Condition").json().get("entry")
    # The same, once the inscription stands: its tumour is what it was.
    bundle = _bundle(world)
    _dossier(ehr.post("", json=bundle))
    [kept] = [one["resource"] for one in ehr.get("Condition").json()["entry"]]
    wrong = {**kept, **said}
    answer = ehr.put(f"Condition/{kept['id']}", json=wrong, headers={"If-Match": 'W/"1"'})
    [issue] = answer.json()["issue"]
    assert (answer.status_code, issue["details"]["coding"][0]["code"]) == (422, "code-inconnu")
    assert issue["expression"][0].startswith(where)
    assert ehr.get(f"Condition/{kept['id']}").json()["code"]["coding"] == right["code"]["coding"]


def test_a_tumour_in_words_or_in_codes_of_another_system_stays_words(
    served: Served, world: World, home: httpx.Client, ehr: httpx.Client
) -> None:
    bundle = _bundle(world)
    tumour = _resource(bundle, "Condition")
    tumour.update(_of_condition(SCT, "254837009"))
    tumour["stage"] = [{"summary": {"text": "cT0a N1 M0, dossier ancien"}}]
    _resource(bundle, "QuestionnaireResponse")["item"] = [_item("motif.question", "Chirurgie première ?")]
    dossier = _dossier(ehr.post("", json=bundle))
    root = etree.fromstring(_cda(served, world, home, ehr, dossier))
    # What the classification does not have is not made a code of it, and does not hold the validation up.
    assert root.xpath(f"{CANCER}{_o('75620-5')}{_o('21905-5')}/c:value/@code", namespaces=NS) == []
    assert root.xpath(f"{CANCER}{_o('75620-5')}{_o('21906-3')}/c:value/@code", namespaces=NS) == ["N1"]
    assert "Tumeur du sein" in _texts(root, CANCER)


def test_a_letter_of_the_tnm_is_refused_in_its_own_codes_only(world: World, ehr: httpx.Client) -> None:
    _dossier(ehr.post("", json=_bundle(world)))
    [patient] = [one["resource"]["id"] for one in ehr.get("Patient").json()["entry"]]
    letter = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": LOINC, "code": "21905-5"}]},
        "subject": {"reference": f"Patient/{patient}"},
    }

    def sent(*codes: tuple[str, str]) -> httpx.Response:
        coding = [{"system": system, "code": code} for system, code in codes]
        return ehr.post("Observation", json=letter | {"valueCodeableConcept": {"coding": coding}})

    refused = sent((TNM, "T9"))
    assert refused.status_code == 422, refused.text
    [issue] = refused.json()["issue"]
    assert (issue["details"]["coding"][0]["code"], issue["expression"]) == ("code-inconnu", ["Observation.value"])
    # cT2 of SNOMED CT is no letter, and kept; beside it, the letter is read.
    for codes in (((SCT, "1228889001"),), ((SCT, "1228889001"), (TNM, "cT2")), ((TNM, "ypT1a"),)):
        assert sent(*codes).status_code == 201
    assert ehr.post("Observation", json=letter | {"valueString": "T9"}).status_code == 201


@pytest.mark.req("S0-064")
def test_a_meeting_with_mandatory_fields_and_labels_takes_no_dossier_without(
    store: Store, world: World, ehr: httpx.Client
) -> None:
    with store.session() as session:
        rules = {"obligatoires": ["etat.oms", "tumeur.t"], "etiquettes": ["Sein"], "etiquettes_obligatoires": True}
        session.get_one(Rcp, world.rcp.id).fiche = rules
        session.commit()
    question = _item("motif.question", "Chirurgie première ?")

    def refused(*items: dict[str, Any]) -> str:
        answer = ehr.post("", json=_bundle(world, [question, *items]))
        assert answer.status_code == 422, answer.text
        return str(answer.json()["issue"][0]["details"]["coding"][0]["code"])

    assert refused(_item("etat.oms", 1), _item("tumeur.t", "T2")) == "etiquette-absente"
    assert refused(_item("etiquettes", "Poumon")) == "etiquette-inconnue"
    assert refused(_item("etiquettes", "Sein"), _item("etat.oms", 1)) == "champ-obligatoire"
    full = [question, _item("etiquettes", "Sein", "urgence"), _item("etat.oms", 1), _item("tumeur.t", "T2")]
    key = _dossier(ehr.post("", json=_bundle(world, full)))
    with store.session() as session:
        row = session.get_one(Dossier, uuid.UUID(key))
        assert row.state == "prefiche"
        assert fiche.statements(row)["etiquettes"].value == ["Sein", "urgence"]
        assert fiche.missing(session, row) == ("Imagerie, ou « sans imagerie »",)


def test_a_form_sent_again_unchanged_overrides_nobody(
    served: Served, store: Store, world: World, ehr: httpx.Client
) -> None:
    items = [_item("motif.question", "Chirurgie première ?"), _item("etat.oms", 1), _item("tumeur.t", "T1")]
    answer = ehr.post("", json=_bundle(world, items))
    key = uuid.UUID(_dossier(answer))
    places = [entry["response"]["location"] for entry in answer.json()["entry"]]
    form = ehr.get(next(one for one in places if one.startswith("QuestionnaireResponse/")).partition("/_history")[0])
    person = world.caller(world.requester)
    served.steps.run(person, lambda step: fiche.edit(step, key, {"tumeur.t": "T2", "etat.oms": 2}).id)

    def values() -> dict[str, Any]:
        with store.session() as session:
            return {name: one.value for name, one in fiche.statements(session.get_one(Dossier, key)).items()}

    tree = form.json()
    again = tree | {"language": "fr"}
    match = {"If-Match": f'W/"{tree["meta"]["versionId"]}"'}
    second = ehr.put(f"QuestionnaireResponse/{tree['id']}", json=again, headers=match)
    assert second.status_code == 200, second.text
    assert (values()["tumeur.t"], values()["etat.oms"]) == ("T2", 2)
    wrong = again | {"item": [_item("etat.oms", 9)]}
    refused = ehr.put(f"QuestionnaireResponse/{tree['id']}", json=wrong, headers={"If-Match": second.headers["etag"]})
    assert refused.status_code == 422, refused.text
    assert refused.json()["issue"][0]["expression"] == ["QuestionnaireResponse.descendants().where(linkId='etat.oms')"]
    # What the form says anew is the last word on that field alone.
    items[2]["answer"] = [{"valueString": "T3"}]
    third = again | {"item": items}
    match = {"If-Match": second.headers["etag"]}
    assert ehr.put(f"QuestionnaireResponse/{tree['id']}", json=third, headers=match).status_code == 200
    assert (values()["tumeur.t"], values()["etat.oms"]) == ("T3", 2)


def test_the_coded_proposal_of_a_composition_is_in_the_plan_of_the_cda(
    served: Served, world: World, home: httpx.Client, ehr: httpx.Client
) -> None:
    dossier = _dossier(ehr.post("", json=_bundle(world)))
    served.steps.run(world.caller(world.coordinator), lambda step: sessions.open_session(step, world.meeting.id))

    def asked(system: str, code: str, words: str, **period: str) -> dict[str, Any]:
        said = {"code": {"coding": [{"system": system, "code": code}]}, "status": "not-started", "description": words}
        return {"detail": said | ({"scheduledPeriod": period} if period else {})}

    def plan(key: str, words: str, *activities: dict[str, Any]) -> dict[str, Any]:
        about = {"status": "draft", "intent": "proposal", "subject": {"display": "le patient du dossier"}}
        return {"resourceType": "CarePlan", "id": key, "description": words, "activity": list(activities)} | about

    def framed(key: str, code: str, **value: Any) -> dict[str, Any]:
        coded = {"coding": [{"system": TA, "code": code}]}
        return {"resourceType": "Observation", "id": key, "status": "final", "code": coded} | value

    tree = _composition(dossier, world.coordinator.idnps, "final")
    tree["contained"] = [
        plan(
            "p1",
            "Chirurgie première.",
            asked(SCT, "387713003", "Tumorectomie", start="2026-04-02"),
            asked(TA, "ORG-064", "TEP-TDM", start="2026-03-25", end="2026-04-01"),
            asked(TA, "ORG-120", "Avis de la RCP nationale"),
            asked(TA, "MED-226", "Mammographie annuelle"),
        ),
        plan("p2", "Chimiothérapie néoadjuvante.", asked(NCIT, "C15632", "Six cycles")),
        framed("r", "MED-249", valueString="Référentiel régional Sein 2025.2", effectiveDateTime="2025-09-01"),
        framed("e", "MED-250", valueBoolean=True, note=[{"text": "Essai FICTIF-01"}]),
    ]
    section = next(one for one in tree["section"] if one["title"] == "Plan de soins")
    section["entry"] = [{"reference": "#p1"}, {"reference": "#p2"}]
    frame = {"title": "Cadre", "code": {"coding": [{"system": LOINC, "code": "35510-7"}]}, "text": section["text"]}
    tree["section"].append(frame | {"entry": [{"reference": "#r"}, {"reference": "#e"}]})
    wrong = {"contained": [plan("p1", "Rien.", asked(NCIT, "C1", "Remède")), *tree["contained"][1:]]}
    refused = home.post("Composition", json=tree | wrong)
    assert refused.status_code == 422, refused.text
    assert refused.json()["issue"][0]["details"]["coding"][0]["code"] == "code-inconnu"
    made = home.post("Composition", json=tree)
    assert made.status_code == 201, made.text
    root = etree.fromstring(_kept(ehr, made))
    care, framing = SECTION.format(158), SECTION.format(175)
    expected = {
        f"{care}/c:entry/c:procedure[@moodCode='INT']/c:code/@code": ["387713003", "C15632"],
        f"{care}/c:entry/c:procedure[@moodCode='INT'][1]/c:effectiveTime/c:low/@value": ["20260402"],
        f"{care}/c:entry/c:encounter/c:code/@code": ["ORG-120", "MED-226"],
        f"{care}/c:entry{_o('ORG-064')[1:]}/c:effectiveTime/c:low/@value": ["20260325"],
        f"{care}/c:entry{_o('ORG-064')[1:]}/c:effectiveTime/c:high/@value": ["20260401"],
        f"{framing}/c:entry{_o('MED-249')[1:]}/c:effectiveTime/@value": ["20250901"],
        f"{framing}/c:entry{_o('MED-250')[1:]}/c:value/@value": ["true"],
    }
    assert {path: [str(one) for one in root.xpath(path, namespaces=NS)] for path in expected} == expected
    said = _texts(root, care) + _texts(root, framing)
    for words in (
        "Tumorectomie",
        "TEP-TDM",
        "Avis de la RCP nationale",
        "Mammographie annuelle",
        "Chimiothérapie néoadjuvante.",
        "Six cycles",
        "Référentiel régional Sein 2025.2",
        "Essai FICTIF-01",
    ):
        assert words in said, words


def test_the_fiche_follows_its_resources_until_the_discussion_and_never_another_patient(
    served: Served, store: Store, world: World, ehr: httpx.Client
) -> None:
    stranger = ehr.post("Patient", json=samples.patient("999001", ins=None, family="AUTRE")).json()["id"]

    def grade(patient: str, value: int, **more: Any) -> dict[str, Any]:
        coded = {"coding": [{"system": LOINC, "code": "89247-1"}]}
        about = {"subject": {"reference": patient}, "valueInteger": value}
        return {"resourceType": "Observation", "status": "final", "code": coded} | about | more

    other = ehr.post("Observation", json=grade(f"Patient/{stranger}", 4)).json()["id"]
    bundle = _bundle(world, [_item("motif.question", "Chirurgie première ?")])
    _resource(bundle, "ServiceRequest")["supportingInfo"] = [{"reference": f"Observation/{other}"}]
    answer = ehr.post("", json=bundle)
    key = _dossier(answer)
    places = dict(entry["response"]["location"].split("/")[:2] for entry in answer.json()["entry"])

    def values() -> dict[str, Any]:
        with store.session() as session:
            return {name: one.value for name, one in fiche.statements(session.get_one(Dossier, uuid.UUID(key))).items()}

    assert "etat.oms" not in values()
    assert values()["tumeur.code"] == "C50.4"
    patient = f"Patient/{places['Patient']}"
    named = {"basedOn": [{"reference": f"ServiceRequest/{key}"}]}
    made = ehr.post("Observation", json=grade(patient, 1, **named))
    assert made.status_code == 201, made.text
    assert values()["etat.oms"] == 1
    tumour = ehr.get(f"Condition/{places['Condition']}").json()
    tumour["code"]["coding"][0]["code"] = "C50.2"
    changed = ehr.put(f"Condition/{tumour['id']}", json=tumour, headers={"If-Match": 'W/"1"'})
    assert changed.status_code == 200, changed.text
    assert values()["tumeur.code"] == "C50.2"
    wrong = made.json() | {"status": "entered-in-error"}
    assert ehr.put(f"Observation/{wrong['id']}", json=wrong, headers={"If-Match": 'W/"1"'}).status_code == 200
    assert "etat.oms" not in values()
    again = made.json() | {"valueInteger": 2}
    assert ehr.put(f"Observation/{wrong['id']}", json=again, headers={"If-Match": 'W/"2"'}).status_code == 200
    assert values()["etat.oms"] == 2
    with store.session() as session:
        session.get_one(Dossier, uuid.UUID(key)).state = "discute"
        session.commit()
    late = made.json() | {"valueInteger": 3}
    assert ehr.put(f"Observation/{wrong['id']}", json=late, headers={"If-Match": 'W/"3"'}).status_code == 200
    assert values()["etat.oms"] == 2
