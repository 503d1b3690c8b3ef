"""XML in and out, where JSON and XML say a thing differently [FHIR R4 xml, json, narrative]."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.errors import Fault, InvalidContent
from gateway.fhir import narrative, xml_narrative, xml_read, xml_write
from gateway.fhir.outcome import InvalidResource
from gateway.settings import Limits

NS = 'xmlns="http://hl7.org/fhir"'
XHTML = 'xmlns="http://www.w3.org/1999/xhtml"'


def _read(inner: str, kind: str = "Patient", declared: str = "") -> dict[str, Any]:
    return xml_read.parse(f"<{kind} {NS}{declared}>{inner}</{kind}>".encode())


def _div(inner: str, declared: str = "") -> str:
    return str(_read(f"<text>{inner}</text>", declared=declared)["text"]["div"])


@pytest.mark.parametrize(
    "div",
    [
        f"<div {XHTML}/>",
        f"<div {XHTML}></div>",
        f"<div {XHTML}>a &lt; b &#233; &#xE9; é</div>",
        f"<div {XHTML} class='x'  title=\"a>b\"><br/><br /><p></p></div >",
        f"<div {XHTML}><!-- a --><![CDATA[<b>]]></div>",
        f'<div {XHTML} xml:lang="fr"><pre>a\n\tb</pre></div>',
    ],
)
def test_a_narrative_that_stands_by_itself_keeps_its_characters(div: str) -> None:
    assert _div(div) == div
    assert div in xml_write.encode({"resourceType": "Patient", "text": {"div": div}}).decode()


@pytest.mark.parametrize(
    ("div", "declared"),
    [
        ("<h:div><h:p class='a\"b'>x<h:br/></h:p></h:div>", ' xmlns:h="http://www.w3.org/1999/xhtml"'),
        (f"<div {XHTML}><h:p class='a\"b'>x<h:br/></h:p></div>", ' xmlns:h="http://www.w3.org/1999/xhtml"'),
        (f"<div {XHTML}><p {XHTML} class='a\"b'>x<br/></p></div>", ""),
        (f'<h:div xmlns:h="http://www.w3.org/1999/xhtml"><p {XHTML} class="a&quot;b">x<br/></p></h:div>', ""),
    ],
)
def test_a_narrative_that_leans_on_names_around_it_is_written_again(div: str, declared: str) -> None:
    assert _div(div, declared) == f'<div {XHTML}><p class="a&quot;b">x<br/></p></div>'


def test_line_ends_of_a_narrative_are_those_of_xml() -> None:
    assert _div(f"<div {XHTML}>a\r\nb\rc</div>") == f"<div {XHTML}>a\nb\nc</div>"


@pytest.mark.parametrize(
    ("div", "written"),
    [
        (f"<div {XHTML}>a&nbsp;b</div>", f"<div {XHTML}>a&#160;b</div>"),
        ("<div>a</div>", f"<div {XHTML}>&lt;div&gt;a&lt;/div&gt;</div>"),
        (f"<div {XHTML}>a", f'<div {XHTML}>&lt;div xmlns="http://www.w3.org/1999/xhtml"&gt;a</div>'),
        ('<!DOCTYPE a [<!ENTITY b "c">]><div>&b;</div>', None),
        (f"<div {XHTML}/><evil/>", None),
    ],
)
def test_a_narrative_kept_before_it_was_judged_never_breaks_an_answer(div: str, written: str | None) -> None:
    out = xml_narrative.as_xml(div)
    assert written is None or out == written
    assert out.startswith(f"<div {XHTML}>")
    assert "<!DOCTYPE" not in out
    assert "<evil" not in out
    _read(f"<text>{out}</text>")


@pytest.mark.parametrize(
    "div",
    [
        f"<div {XHTML}>a</div>",
        f" \n<div {XHTML}>a<!-- b --></div >\n",
        '<h:div xmlns:h="http://www.w3.org/1999/xhtml">a</h:div>',
        f'<div {XHTML}><h:b xmlns:h="http://www.w3.org/1999/xhtml">a</h:b></div>',
        f"<div {XHTML}><![CDATA[<a>]]>&nbsp;&eacute;&lt;</div>",
        f"<!-- a --><div {XHTML}>a</div>",
        f"<div {XHTML}>a</div><!-- a -->",
        f'<?xml version="1.0"?><div {XHTML}>a</div>',
        f"<?a?><div {XHTML}>a</div>",
        f"<!DOCTYPE div><div {XHTML}>a</div>",
        "<div>a</div>",
        f"<div {XHTML}>{'<b>' * 300}a{'</b>' * 300}</div>",
    ],
)
def test_what_the_judge_takes_for_a_narrative_is_written_as_it_is(div: str) -> None:
    judged, _ = narrative.reading(div)
    written = xml_narrative.as_xml(div)
    assert judged == (written == narrative.entities_as_numbers(div).strip() and div.count("<b>") < 200)
    if judged:
        _read(f"<text>{written}</text>")


def test_what_stands_beside_values_keeps_its_place() -> None:
    said = _read(
        "<name><given value='A'/><given id='2'/><given value='C'/></name>"
        "<name><given id='1'/></name><birthDate id='b' value='2026'/><gender><extension url='u'/></gender>"
    )
    assert said["name"] == [
        {"given": ["A", None, "C"], "_given": [None, {"id": "2"}, None]},
        {"_given": [{"id": "1"}]},
    ]
    assert (said["birthDate"], said["_birthDate"]) == ("2026", {"id": "b"})
    assert "gender" not in said
    assert said["_gender"] == {"extension": [{"url": "u"}]}
    again = xml_write.encode(said)
    assert xml_read.parse(again) == said


def test_json_that_fills_a_list_with_nulls_says_the_same() -> None:
    beside = [{"id": "1"}, {"id": "2"}]
    full = {"resourceType": "Patient", "name": [{"given": [None, None], "_given": beside}]}
    assert xml_read.parse(xml_write.encode(full))["name"] == [{"_given": beside}]


def test_ids_are_elements_of_resources_and_attributes_elsewhere() -> None:
    tree = {
        "resourceType": "Patient",
        "id": "p",
        "contained": [{"resourceType": "Basic", "id": "c", "code": {"id": "k", "text": "x"}}],
        "extension": [{"id": "e", "url": "http://x/é?a=1&b=2", "valueBoolean": False}],
    }
    written = xml_write.encode(tree).decode()
    assert written == (
        f'<?xml version="1.0" encoding="UTF-8"?><Patient {NS}><id value="p"/>'
        '<contained><Basic><id value="c"/><code id="k"><text value="x"/></code></Basic></contained>'
        '<extension id="e" url="http://x/é?a=1&amp;b=2"><valueBoolean value="false"/></extension></Patient>'
    )
    assert xml_read.parse(written.encode()) == tree


def test_elements_come_in_the_order_of_the_standard_and_are_read_in_any() -> None:
    tree = json.loads('{"resourceType":"Patient","birthDate":"2026","name":[{"given":["a"],"family":"b"}],"id":"p"}')
    written = xml_write.encode(tree).decode()
    assert written.index("<id ") < written.index("<name>") < written.index("<family ") < written.index("<given ")
    assert written.index("</name>") < written.index("<birthDate ")
    assert _read("<birthDate value='2026'/><id value='p'/>") == {
        "resourceType": "Patient",
        "birthDate": "2026",
        "id": "p",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [("1.10", "1.10"), ("-0.0", "-0.0"), ("1E2", "1E2"), ("0.00000001", "0.00000001"), ("7", "7"), ("-0", "-0")],
)
def test_decimals_stay_as_written(text: str, said: str) -> None:
    tree = _read(f"<valueQuantity><value value='{text}'/></valueQuantity>", "Observation")
    assert f'<value value="{said}"/>'.encode() in xml_write.encode(tree)


@pytest.mark.parametrize("text", ["1,5", "+1", "01", ".5", "1.", "NaN", "INF", "0x1", "1e", " 1", "", "1" * 2000])
def test_what_is_no_decimal_is_refused_at_its_place(text: str) -> None:
    with pytest.raises(InvalidResource) as refused:
        _read(f"<valueQuantity><value value='{text}'/></valueQuantity>", "Observation")
    assert refused.value.issues[0].expression == "Observation.valueQuantity.value"


def test_faults_are_told_up_to_a_number() -> None:
    with pytest.raises(InvalidResource) as refused:
        _read("<x/>" * 1000)
    assert len(refused.value.issues) == xml_read.MAX_ISSUES


def test_depth_is_refused_by_the_limit_and_its_value() -> None:
    deep = "<extension url='u'>" * 20 + "</extension>" * 20
    with pytest.raises(InvalidContent) as refused:
        xml_read.parse(f"<Patient {NS}>{deep}</Patient>".encode(), Limits(json_depth=16))
    assert refused.value.code == "xml-trop-profond"
    assert "16 (RCP_LIMIT_JSON_DEPTH)" in refused.value.text


def test_elements_and_attributes_are_counted_and_the_limit_itself_is_allowed() -> None:
    limits = Limits(json_nodes=100)

    def parse(given: str, times: int) -> dict[str, Any]:
        return xml_read.parse(f"<Patient {NS}><name>{given * times}</name></Patient>".encode(), limits)

    # The resource and the name, then one element a given name; both lists and the type are nodes of JSON alone.
    assert len(parse("<given value='x'/>", 95)["name"][0]["given"]) == 95
    for given, times in (("<given value='x'/>", 99), ("<given id='a' value='b'/>", 51), ("<given value='x'/>", 96)):
        with pytest.raises(InvalidContent, match="RCP_LIMIT_JSON_NODES") as refused:
            parse(given, times)
        assert refused.value.code == "trop-d-elements"


@pytest.mark.parametrize("tree", [{"resourceType": "Malade"}, {"resourceType": "Patient", "malade": 1}])
def test_what_stands_nowhere_in_r4_is_a_fault_of_ours_and_says_nothing(tree: dict[str, Any]) -> None:
    with pytest.raises(Fault) as fault:
        xml_write.encode(tree)
    assert fault.value.code == "xml-sans-place"
    assert "alade" not in fault.value.text
