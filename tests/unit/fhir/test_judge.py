"""What the judge refuses, one thing at a time, and how it says so."""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import Any

import pytest

from gateway.errors import InvalidContent
from gateway.fhir import document, outcome, structure, validate, write
from gateway.fhir.elements import shapes
from gateway.fhir.invariants import READ_BY_VERBS, enforced
from gateway.fhir.narrative import reading
from gateway.fhir.outcome import InvalidResource
from tests.fhir_resources import OFFERED, plain_json, resource

PATIENT: dict[str, Any] = {"resourceType": "Patient", "name": [{"family": "Trois"}]}
BESIDE: dict[str, Any] = {"extension": [{"url": "u", "valueCode": "x"}]}
XHTML = '<div xmlns="http://www.w3.org/1999/xhtml">{}</div>'


def _codes(tree: dict[str, Any]) -> list[tuple[str, str | None]]:
    return [(issue.code, issue.expression) for issue in validate.judge(tree)]


def _narrated(div: str) -> dict[str, Any]:
    return PATIENT | {"text": {"status": "generated", "div": div}}


# What R4 does not have


@pytest.mark.parametrize(
    ("tree", "where"),
    [
        ({"resourceType": "SubscriptionTopic", "url": "http://x.fr", "status": "active"}, "Resource.resourceType"),
        ({"resourceType": "SubscriptionStatus", "type": "heartbeat"}, "Resource.resourceType"),
        ({"resourceType": "MetadataResource"}, "Resource.resourceType"),
        ({"resourceType": "DomainResource"}, "Resource.resourceType"),
        ({"resourceType": "Element"}, "Resource.resourceType"),
        ({"resourceType": {"x": 1}}, "Resource.resourceType"),
        ({"resourceType": "Bundle", "type": "subscription-notification"}, "Bundle.type"),
        (
            {
                "resourceType": "Subscription",
                "status": "active",
                "reason": "x",
                "criteria": "Patient?",
                "channel": {"type": "rest-hook"},
                "topic": "http://x.fr",
            },
            "Subscription.topic",
        ),
        (PATIENT | {"meta": {"project": "x"}}, "Patient.meta.project"),
        ({"resourceType": "Binary", "contentType": "a/b", "url": "http://x.fr"}, "Binary.url"),
    ],
)
def test_what_r4_lacks_is_refused(tree: dict[str, Any], where: str) -> None:
    issues = validate.judge(tree)
    assert [issue.expression for issue in issues] == [where]
    assert {issue.rule for issue in issues} == {False}


def test_an_unknown_type_is_a_fault_of_structure_wherever_it_stands() -> None:
    unknown = {"resourceType": "Patience", "id": "c1"}
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": unknown}]}
    parameters = {"resourceType": "Parameters", "parameter": [{"name": "x", "resource": unknown}]}
    for tree, where in (
        (PATIENT | {"contained": [unknown]}, "Patient.contained[0].resourceType"),
        (bundle, "Bundle.entry[0].resource.resourceType"),
        (parameters, "Parameters.parameter[0].resource.resourceType"),
    ):
        assert ("element-inconnu", where) in _codes(tree)
        with pytest.raises(InvalidResource) as refused:
            validate.accept(tree)
        status, _, content = outcome.answer(refused.value)
        assert status == 400
        assert b"Patience" not in content


# Structure


@pytest.mark.parametrize(
    ("change", "code", "where"),
    [
        ({"gender": "zzz"}, "code-hors-liste", "Patient.gender"),
        ({"managingOrganization": {"reference": "Medication/1"}}, "cible-de-reference", "Patient.managingOrganization"),
        (
            {"managingOrganization": {"reference": "Medicaments/1"}},
            "cible-de-reference",
            "Patient.managingOrganization",
        ),
        ({"generalPractitioner": [{"type": "Patient"}]}, "cible-de-reference", "Patient.generalPractitioner[0]"),
        ({"active": "true"}, "valeur-invalide", "Patient.active"),
        ({"active": 1}, "valeur-invalide", "Patient.active"),
        ({"birthDate": "1979-02-30"}, "valeur-invalide", "Patient.birthDate"),
        ({"birthDate": "1979-2-3"}, "valeur-invalide", "Patient.birthDate"),
        ({"deceasedDateTime": "2026-01-01T10:00:00"}, "valeur-invalide", "Patient.deceasedDateTime"),
        ({"deceasedBoolean": False, "deceasedDateTime": "2026"}, "valeur-invalide", "Patient.deceased"),
        ({"deceasedBoolean": False, "_deceasedDateTime": BESIDE}, "valeur-invalide", "Patient.deceased"),
        ({"name": {"family": "x"}}, "valeur-invalide", "Patient.name"),
        ({"name": []}, "valeur-invalide", "Patient.name"),
        ({"name": [{}]}, "valeur-invalide", "Patient.name[0]"),
        ({"name": [{"given": ["a", None]}]}, "valeur-invalide", "Patient.name[0].given[1]"),
        ({"name": [{"given": ["a", None], "_given": [None]}]}, "valeur-invalide", "Patient.name[0].given[1]"),
        ({"_name": [{"id": "x"}]}, "element-inconnu", "Patient._name"),
        ({"_id": BESIDE}, "element-inconnu", "Patient._id"),
        ({"id": "a b"}, "valeur-invalide", "Patient.id"),
        ({"id": "a" * 65}, "valeur-invalide", "Patient.id"),
        ({"language": " fr"}, "valeur-invalide", "Patient.language"),
        ({"multipleBirthInteger": Decimal("1.0")}, "valeur-invalide", "Patient.multipleBirthInteger"),
        ({"multipleBirthInteger": 2**31}, "valeur-invalide", "Patient.multipleBirthInteger"),
        ({"photo": [{"contentType": "a/b", "data": "AAA"}]}, "valeur-invalide", "Patient.photo[0].data"),
        ({"contained": [{"id": "x"}]}, "element-inconnu", "Patient.contained[0].resourceType"),
        ({"contact": [{"name": {"family": " "}}]}, "valeur-invalide", "Patient.contact[0].name.family"),
        ({"link": [{"other": {"reference": "Patient/1"}}]}, "element-obligatoire", "Patient.link[0].type"),
        ({"extension": [{"valueString": "x"}]}, "element-obligatoire", "Patient.extension[0].url"),
        ({"telecom": [{"rank": 0}]}, "valeur-invalide", "Patient.telecom[0].rank"),
    ],
)
def test_a_fault_of_structure_is_told_with_its_place(change: dict[str, Any], code: str, where: str) -> None:
    assert (code, where) in _codes(PATIENT | change)
    with pytest.raises(InvalidResource) as refused:
        validate.accept(PATIENT | change)
    assert outcome.answer(refused.value)[0] == 400


@pytest.mark.parametrize(
    "change",
    [
        {"name": [{"given": ["a", None], "_given": [None, BESIDE]}]},
        {"_birthDate": BESIDE},
        {"birthDate": "2024-02-29", "_birthDate": {"id": "x"}},
        {"managingOrganization": {"reference": "http://autre.example/chemin/1"}},
        {"managingOrganization": {"reference": "urn:uuid:c757873d-ec9a-4326-a141-556f43239520"}},
        {"deceasedDateTime": "2016-12-31T23:59:60Z"},
        {"photo": [{"contentType": "a/b", "data": "AA AA\r\nAAA="}]},
        {"contained": [{"resourceType": "Organization", "id": "o", "name": "x"}]}
        | {"managingOrganization": {"reference": "#o"}},
    ],
)
def test_what_is_rare_and_right_is_accepted(change: dict[str, Any]) -> None:
    assert _codes(PATIENT | change) == []


def test_a_required_binding_of_a_concept_wants_one_of_its_codings() -> None:
    condition = {"resourceType": "Condition", "subject": {"reference": "Patient/1"}}
    system = "http://terminology.hl7.org/CodeSystem/condition-clinical"
    good = {"coding": [{"system": "http://x.fr", "code": "a"}, {"system": system, "code": "active"}]}
    assert _codes(condition | {"clinicalStatus": good}) == []
    for bad in ({"text": "actif"}, {"coding": [{"system": system, "code": "actif"}]}, {"coding": [{"code": "active"}]}):
        assert _codes(condition | {"clinicalStatus": bad}) == [("code-hors-liste", "Condition.clinicalStatus")]


def test_faults_are_bounded_and_quote_nothing() -> None:
    issues = validate.judge(PATIENT | {f"secret{index}": "Ève" for index in range(500)})
    assert len(issues) == validate.MAX_ISSUES
    assert all("Ève" not in f"{issue.text}{issue.expression}" for issue in issues)


def test_the_deepest_tree_that_can_be_read_can_be_judged() -> None:
    tree: dict[str, Any] = {"url": "http://x.fr", "valueString": "x"}
    while True:
        deeper = {"url": "http://x.fr", "extension": [tree]}
        try:
            document.parse(plain_json(PATIENT | {"extension": [deeper]}))
        except InvalidContent:
            break
        tree = deeper
    found: list[Any] = []
    # A thread of a server has a small stack.
    size = threading.stack_size(256 * 1024)
    try:
        for bottom in (tree, {"url": "http://x.fr", "extension": [tree]}):
            judging = threading.Thread(target=lambda one=bottom: found.append(_codes(PATIENT | {"extension": [one]})))
            judging.start()
            judging.join()
    finally:
        threading.stack_size(size)
    assert found == [[], []]


# Rules


def test_a_broken_rule_is_422_and_names_its_key() -> None:
    tree = PATIENT | {"contact": [{"gender": "male"}], "extension": [{"url": "u"}]}
    assert _codes(tree) == [("invariant-pat-1", "Patient.contact[0]"), ("invariant-ext-1", "Patient.extension[0]")]
    with pytest.raises(InvalidResource) as refused:
        validate.accept(tree)
    assert outcome.answer(refused.value)[0] == 422
    # With a fault of structure beside it only that is told: a rule is asked about sound structure.
    assert _codes(tree | {"active": "oui"}) == [("valeur-invalide", "Patient.active")]


def test_an_element_that_is_only_an_id_says_nothing() -> None:
    for change, where in (
        ({"name": [{"id": "x"}]}, "Patient.name[0]"),
        ({"_birthDate": {"id": "x"}}, "Patient.birthDate"),
        ({"name": [{"_given": [{"id": "x"}]}]}, "Patient.name[0].given[0]"),
    ):
        assert _codes(PATIENT | change) == [("invariant-ele-1", where)]


def test_a_member_acts_for_an_organisation_only_as_a_professional() -> None:
    def team(member: str, kind: str) -> dict[str, Any]:
        return {
            "resourceType": "CareTeam",
            "contained": [{"resourceType": kind, "id": "m"}],
            "participant": [{"member": {"reference": member}, "onBehalfOf": {"reference": "Organization/1"}}],
        }

    assert _codes(team("#m", "Practitioner")) == []
    assert _codes(team("#m", "Patient")) == [("invariant-ctm-1", "CareTeam.participant[0]")]
    # What stands elsewhere is taken as unresolved.
    assert ("invariant-ctm-1", "CareTeam.participant[0]") not in _codes(team("Patient/1", "Practitioner"))


def test_a_reference_inside_designates_what_the_container_contains() -> None:
    inner = {"resourceType": "Organization", "id": "o", "name": "x", "partOf": {"reference": "#p"}}
    other = {"resourceType": "Organization", "id": "p", "name": "y"}
    refers = {"managingOrganization": {"reference": "#o"}}
    assert _codes(PATIENT | refers | {"contained": [inner, other]}) == []
    told = _codes(PATIENT | refers | {"contained": [inner]})
    assert told == [("invariant-ref-1", "Patient.contained[0].partOf")]
    # An entry of a Bundle contains for itself alone.
    entries = [
        {"resource": PATIENT | {"contained": [other]}},
        {"resource": PATIENT | {"managingOrganization": {"reference": "#p"}}},
    ]
    told = _codes({"resourceType": "Bundle", "type": "collection", "entry": entries})
    assert ("invariant-ref-1", "Bundle.entry[1].resource.managingOrganization") in told
    assert ("invariant-dom-3", "Bundle.entry[0].resource") in told


def test_modifiers_are_refused_where_a_verb_reads() -> None:
    # Observations and reports are kept with their modifiers; the fiche reads nothing of one that has any.
    assert set(write._VERBS) - {"Observation", "DiagnosticReport"} <= READ_BY_VERBS
    modified = {"modifierExtension": [{"url": "http://x.fr/nie", "valueBoolean": True}]}
    for kind in OFFERED:
        tree = resource(kind, 1, 3)
        if "modifierExtension" not in shapes()[kind].names:
            continue
        told = [code for code, _ in _codes(tree | modified)]
        assert told == (["extension-modificatrice"] if kind in READ_BY_VERBS else []), kind
    nested = PATIENT | {"contact": [{"name": {"family": "x"}} | modified]}
    assert _codes(nested) == [("extension-modificatrice", "Patient.contact[0]")]
    assert _codes({"resourceType": "Basic", "code": {"text": "x"}, "implicitRules": "http://x.fr"}) == [
        ("regles-implicites", "Basic")
    ]


def test_warnings_refuse_nothing() -> None:
    assert validate.judge(PATIENT) == []
    said = validate.remarks(PATIENT)
    assert [(one.code, one.severity) for one in said] == [("invariant-dom-6", "warning")]
    # R4 allows Meta as the value of an extension; fhir.resources does not.
    strange = _narrated(XHTML.format("x")) | {"extension": [{"url": "u", "valueMeta": {"source": "http://x.fr"}}]}
    assert [(one.code, one.severity) for one in validate.remarks(strange)] == [("second-avis", "warning")]


def test_the_second_judge_is_not_on_the_way_of_a_write(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(validate, "_second_opinion", lambda *said: asked.append(said) or [])
    validate.accept(PATIENT)
    with pytest.raises(InvalidResource):
        validate.accept(PATIENT | {"active": 1})
    assert asked == []
    validate.remarks(PATIENT)
    assert len(asked) == 1


@pytest.mark.parametrize("kind", OFFERED)
def test_a_usual_resource_is_walked_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(validate, "faults", never)
    monkeypatch.setattr(validate, "_broken_rules", never)
    tree = resource(kind, 5, 6)
    if structure.sound(tree, enforced):
        assert validate.judge(tree) == []
    assert any(structure.sound(resource(kind, seed, 4), enforced) for seed in range(6))


# Narratives


@pytest.mark.parametrize(
    "inside",
    [
        "<p>Tumeur du sein</p>",
        "<p>1 &lt; 2 &amp;&nbsp;3 &#233; &eacute;</p>",
        '<table border="1"><caption>x</caption><tbody><tr><td colspan="2">é</td></tr></tbody></table>',
        '<p style="color: red; font-weight: bold" class="x" xml:lang="fr" id="a">a<b>b</b></p><!-- note -->',
        '<a href="#a">x</a><a href="https://exemple.fr/?a=1&amp;b=2">y</a><a href="mailto:a@b.fr">z</a>',
        '<img src="data:image/png;base64,AAAA" alt="x"/>',
        '<img src="#image"/>',
        "<ul><li>un</li></ul><dl><dt>a</dt><dd>b</dd></dl><pre>x</pre><blockquote>y</blockquote><hr/>",
    ],
)
def test_harmless_markup_is_allowed(inside: str) -> None:
    assert reading(XHTML.format(inside)) == (True, True)
    assert _codes(_narrated(XHTML.format(inside))) == []


@pytest.mark.parametrize(
    "inside",
    [
        "<script>alert(1)</script>",
        "<SCRIPT>alert(1)</SCRIPT>",
        "<p onclick='x()'>a</p>",
        "<p onmouseover='x()'>a</p>",
        "<img src='x' onerror='x()'/>",
        "<a href='javascript:x()'>a</a>",
        "<a href=' JaVaScRiPt:x()'>a</a>",
        "<a href='java&#9;script:x()'>a</a>",
        "<a href='java&#10;script&#58;x()'>a</a>",
        "<a href='&#1;javascript:x()'>a</a>",
        "<a href='vbscript:x'>a</a>",
        "<a href='data:text/html,x'>a</a>",
        "<img src='data:image/svg+xml,x'/>",
        "<iframe src='http://x.fr'/>",
        "<form action='http://x.fr'><input name='a'/></form>",
        "<object data='x'/>",
        "<embed src='x'/>",
        "<link rel='stylesheet' href='x'/>",
        "<style>p { color: red }</style>",
        "<base href='http://x.fr'/>",
        "<meta http-equiv='refresh' content='0'/>",
        "<svg xmlns='http://www.w3.org/2000/svg' onload='x()'/>",
        "<math xmlns='http://www.w3.org/1998/Math/MathML'/>",
        "<p style='background: url(http://x.fr/a.png)'>a</p>",
        "<p style='width: expression(x())'>a</p>",
        "<p style='behavior: url(#x)'>a</p>",
        "<p style='\\62 ackground: url(x)'>a</p>",
        "<p style=\"background: url('http://x.fr')\">a</p>",
        "<p xmlns:x='http://x.fr' x:y='1'>a</p>",
        "<?php x ?>",
        "<p>a",
        "a & b",
        "&inconnue;",
        "<p a='1' a='2'>x</p>",
        "\ud800",
    ],
)
def test_what_can_act_is_refused(inside: str) -> None:
    assert reading(XHTML.format(inside))[0] is False
    assert _codes(_narrated(XHTML.format(inside))) == [("invariant-txt-1", "Patient.text.div")]


def test_a_narrative_is_one_xhtml_div_that_says_something() -> None:
    assert _codes(_narrated(XHTML.format(" \n\u00a0<p> </p>"))) == [("invariant-txt-2", "Patient.text.div")]
    assert _codes(_narrated(XHTML.format("<p>a</p>") + "<p>b</p>")) == [("invariant-txt-1", "Patient.text.div")]
    assert _codes(_narrated("<div>sans espace de noms</div>")) == [("invariant-txt-1", "Patient.text.div")]
    assert _codes(_narrated("<p xmlns='http://www.w3.org/1999/xhtml'>x</p>")) == [
        ("valeur-invalide", "Patient.text.div")
    ]


def test_no_entity_is_declared_and_none_grows() -> None:
    laughs = "".join(f'<!ENTITY a{index} "{f"&a{index - 1};" * 10}">' for index in range(1, 10))
    div = f'<!DOCTYPE div [<!ENTITY a0 "ha">{laughs}]>{XHTML.format("&a9;")}'
    assert reading(div) == (False, True)
    inside = XHTML.format("x").replace("<div ", "<div><!DOCTYPE x><div ")
    assert reading(inside)[0] is False
    # What no parser of XML would read again: depth costs no stack here, and is bounded.
    for times, allowed in ((50_000, False), (200, False), (199, True)):
        deep = XHTML.format("<b>" * times + "x" + "</b>" * times)
        assert reading(deep) == (allowed, True)
