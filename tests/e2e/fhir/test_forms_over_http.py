"""Forms of answers and bodies over real HTTP: XML both ways, weights, indentation, gzip, HEAD, raw bytes.

What is expected was written by hand, or is made by `fhir.resources` and lxml, never by the gateway's own writer.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from fhir.resources.R4B import get_fhir_model_class
from lxml import etree

from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import Shared
from tests.world import DOMAIN

XML = {"Accept": "application/fhir+xml", "Content-Type": "application/fhir+xml"}
F = {"f": "http://hl7.org/fhir", "h": "http://www.w3.org/1999/xhtml"}
JSON_MEDIA = "application/fhir+json; charset=utf-8; fhirVersion=4.0"
XML_MEDIA = "application/fhir+xml; charset=utf-8; fhirVersion=4.0"

# Everything that XML makes hard at once: a prefix, comments and processing instructions, a hint for validators, single
# quotes, a primitive's extension, null holes, a contained resource, decimals, line ends in a value, a narrative.
PATIENT = """<?xml version="1.0" encoding="UTF-8"?>
<?xml-stylesheet href="http://127.0.0.1:9/x.xsl" type="text/xsl"?>
<!-- exporté -->
<f:Patient xmlns:f="http://hl7.org/fhir" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
    xsi:schemaLocation="http://hl7.org/fhir http://127.0.0.1:9/patient.xsd">
  <f:text>
    <f:status value="additional"/>
    <div xmlns="http://www.w3.org/1999/xhtml"><p class='x'>1 &lt; 2 &amp; é &#233;<br/></p><!-- n --></div>
  </f:text>
  <f:contained>
    <f:Organization><f:id value="o1"/><f:name value="Cabinet d’Œuvre"/></f:Organization>
  </f:contained>
  <f:extension url="https://chu-x.example/fhir/poids-de-naissance"><f:valueDecimal value="3.10"/></f:extension>
  <f:extension url="https://chu-x.example/fhir/cabinet">
    <f:valueReference><f:reference value="#o1"/></f:valueReference>
  </f:extension>
  <f:identifier id="i1">
    <f:use value="usual"/>
    <f:type><f:coding>
      <f:system value="http://terminology.hl7.org/CodeSystem/v2-0203"/><f:code value="PI"/>
    </f:coding></f:type>
    <f:system value="{domain}"/>
    <f:value value="{ipp}"/>
  </f:identifier>
  <f:active value="true"/>
  <f:name>
    <f:use value="official"/>
    <f:family value="XMÉLE">
      <f:extension url="http://hl7.org/fhir/StructureDefinition/humanname-own-name"><f:valueString value="X"/>
      </f:extension>
    </f:family>
    <f:given value="ANNE"/>
    <f:given>
      <f:extension url="http://hl7.org/fhir/StructureDefinition/data-absent-reason"><f:valueCode value="masked"/>
      </f:extension>
    </f:given>
    <f:given id="g3" value="ÈVE"/>
  </f:name>
  <f:gender value="female"/>
  <f:birthDate value="1979-03-28">
    <f:extension url="http://hl7.org/fhir/StructureDefinition/patient-birthTime">
      <f:valueDateTime value="1979-03-28T14:35:45.100+01:00"/>
    </f:extension>
  </f:birthDate>
  <f:address><f:line value="1 rue A&#10;bâtiment &quot;B&quot; &lt;2&gt;"/></f:address>
</f:Patient>
"""

SAID: dict[str, Any] = {
    "resourceType": "Patient",
    "text": {
        "status": "additional",
        "div": '<div xmlns="http://www.w3.org/1999/xhtml">'
        "<p class='x'>1 &lt; 2 &amp; é &#233;<br/></p><!-- n --></div>",
    },
    "contained": [{"resourceType": "Organization", "id": "o1", "name": "Cabinet d’Œuvre"}],
    "extension": [
        {"url": "https://chu-x.example/fhir/poids-de-naissance", "valueDecimal": Decimal("3.10")},
        {"url": "https://chu-x.example/fhir/cabinet", "valueReference": {"reference": "#o1"}},
    ],
    "identifier": [
        {
            "id": "i1",
            "use": "usual",
            "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "PI"}]},
            "system": DOMAIN,
        }
    ],
    "active": True,
    "name": [
        {
            "use": "official",
            "family": "XMÉLE",
            "_family": {
                "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/humanname-own-name", "valueString": "X"}]
            },
            "given": ["ANNE", None, "ÈVE"],
            "_given": [
                None,
                {
                    "extension": [
                        {"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "masked"}
                    ]
                },
                {"id": "g3"},
            ],
        }
    ],
    "gender": "female",
    "birthDate": "1979-03-28",
    "_birthDate": {
        "extension": [
            {
                "url": "http://hl7.org/fhir/StructureDefinition/patient-birthTime",
                "valueDateTime": "1979-03-28T14:35:45.100+01:00",
            }
        ]
    },
    "address": [{"line": ['1 rue A\nbâtiment "B" <2>']}],
}


def _json(answer: httpx.Response) -> Any:
    return json.loads(answer.content, parse_float=Decimal)


def _sent(tree: dict[str, Any]) -> dict[str, Any]:
    """What a client sent, without what is ours."""
    bare = {name: value for name, value in tree.items() if name not in {"id", "meta"}}
    meta = {name: value for name, value in tree.get("meta", {}).items() if name not in {"versionId", "lastUpdated"}}
    return {**bare, "meta": meta} if meta else bare


def _root(answer: httpx.Response) -> Any:
    assert answer.headers["content-type"] == XML_MEDIA, answer.text
    return etree.fromstring(answer.content, etree.XMLParser(resolve_entities=False, no_network=True))


def _code(answer: httpx.Response) -> str:
    return str(answer.json()["issue"][0]["details"]["coding"][0]["code"])


def _said(ipp: str) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(json.dumps(SAID, default=str))
    tree["identifier"][0]["value"] = ipp
    tree["extension"][0]["valueDecimal"] = Decimal("3.10")
    return tree


def test_what_comes_in_xml_is_what_json_would_have_said(ehr: httpx.Client) -> None:
    made = ehr.post("Patient", content=PATIENT.format(domain=DOMAIN, ipp="X1").encode(), headers=XML)
    assert made.status_code == 201, made.text
    assert _root(made).tag == "{http://hl7.org/fhir}Patient"
    address = made.headers["location"].partition("/_history")[0]
    read = ehr.get(address)
    assert read.headers["content-type"] == JSON_MEDIA
    assert _sent(_json(read)) == _said("X1")
    # The narrative and the decimal, character by character.
    assert b'"valueDecimal":3.10' in read.content
    assert SAID["text"]["div"].replace('"', '\\"').encode() in read.content
    # A version that says the same is no new version, whatever the form in which it comes.
    tree = _json(read)
    same = ehr.put(
        address,
        content=PATIENT.format(domain=DOMAIN, ipp="X1")
        .replace("<f:text>", f'<f:id value="{tree["id"]}"/><f:text>')
        .encode("utf-16"),
        headers=XML | {"Content-Type": "application/fhir+xml"},
    )
    assert same.status_code == 200, same.text
    assert same.headers["etag"] == read.headers["etag"]


def test_xml_out_is_what_an_independent_library_reads(ehr: httpx.Client) -> None:
    tree = samples.patient("X2", ins=None)
    tree["_birthDate"] = {"extension": [{"url": "http://x.example/e", "valueString": 'a "b" <c>'}]}
    tree["text"] = {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml"><b>e</b></div>'}
    made = ehr.post("Patient", json=tree)
    assert made.status_code == 201, made.text
    read = ehr.get(f"Patient/{made.json()['id']}", headers=XML)
    root = _root(read)
    # The order of the standard [FHIR R4 xml]: id and meta, text, extensions, then the type's own.
    assert [etree.QName(child).localname for child in root][:4] == ["id", "meta", "text", "extension"]
    model = get_fhir_model_class("Patient").model_validate_xml(read.content)
    back = json.loads(model.model_dump_json(), parse_float=Decimal)
    said = json.loads(ehr.get(f"Patient/{made.json()['id']}").content, parse_float=Decimal)
    # The library drops the zeros of decimals and of instants, and a primitive's id.
    back["meta"]["lastUpdated"] = said["meta"]["lastUpdated"]
    assert back == said


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("application/fhir+xml", "xml"),
        ("application/xml", "xml"),
        ("text/xml", "xml"),
        ("application/xml+fhir", "xml"),
        ("application/fhir+xml; fhirVersion=4.0", "xml"),
        ("application/fhir+xml;q=0.9, application/fhir+json;q=0.1", "xml"),
        ("application/fhir+xml;q=0.1, application/fhir+json;q=0.9", "json"),
        ("application/fhir+xml;q=0, */*;q=0.1", "json"),
        ("text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8", "xml"),
        ("application/fhir+json; fhirVersion=3.0, application/fhir+xml", "xml"),
        ("application/json", "json"),
        ("application/json+fhir", "json"),
        ("APPLICATION/FHIR+JSON", "json"),
        ("*/*", "json"),
        ("", "json"),
        ("application/*", "json"),
        ("text/turtle", None),
        ("application/fhir+json; fhirVersion=5.0", None),
        ("application/fhir+json; charset=iso-8859-1", None),
        ("application/fhir+json;q=0", None),
    ],
)
def test_accept_is_heard(ehr: httpx.Client, accept: str, form: str | None) -> None:
    answer = ehr.get("Patient?_count=1", headers={"Accept": accept})
    if form is None:
        assert answer.status_code == 406
        assert _code(answer) == "format-refuse"
        return
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == (XML_MEDIA if form == "xml" else JSON_MEDIA)
    assert answer.headers["vary"] == "Accept, Accept-Encoding"


@pytest.mark.parametrize(
    ("asked", "form"),
    [
        ("xml", "xml"),
        ("json", "json"),
        ("text/xml", "xml"),
        ("application/xml", "xml"),
        ("application/json", "json"),
        ("application/fhir%2Bxml", "xml"),
        ("application/fhir+xml", "xml"),
        ("application/fhir+json;fhirVersion=4.0", "json"),
        ("application/fhir+json;fhirVersion=3.0", None),
        ("ttl", None),
        ("html", None),
    ],
)
def test_the_parameter_wins_over_accept(ehr: httpx.Client, asked: str, form: str | None) -> None:
    accept = {"Accept": "application/fhir+json" if form == "xml" else "application/fhir+xml"}
    answer = ehr.get(f"Patient?_count=1&_format={asked}", headers=accept)
    assert answer.status_code == (200 if form else 406), answer.text
    if form:
        assert answer.headers["content-type"] == (XML_MEDIA if form == "xml" else JSON_MEDIA)


@pytest.mark.parametrize(
    ("declared", "status"),
    [
        ("application/fhir+json", 201),
        ("application/json; charset=UTF-8", 201),
        ("application/json+fhir", 201),
        ("application/fhir+json; fhirVersion=4.0", 201),
        ("application/fhir+json; fhirVersion=3.0", 415),
        ("application/fhir+json; charset=utf-16", 415),
        ("application/fhir+turtle", 415),
        ("text/plain", 415),
        ("*/*", 415),
        ("json", 415),
    ],
)
def test_content_type_is_heard(ehr: httpx.Client, declared: str, status: int) -> None:
    tree = {"resourceType": "Basic", "code": {"text": "forme"}}
    answer = ehr.post("Basic", content=json.dumps(tree), headers={"Content-Type": declared})
    assert answer.status_code == status, answer.text
    if status == 415:
        assert _code(answer) == "type-de-contenu"


def test_every_kind_of_answer_comes_in_xml(ehr: httpx.Client) -> None:
    made = ehr.post("Patient", json=samples.patient("X3", ins=None), headers={"Accept": "application/fhir+xml"})
    identity = _root(made).find("f:id", F).get("value")
    for address, root in (
        ("metadata", "CapabilityStatement"),
        (f"Patient/{identity}", "Patient"),
        (f"Patient/{identity}/_history/1", "Patient"),
        (f"Patient/{identity}/_history", "Bundle"),
        ("Patient?_sort=_id&_count=3&inconnu=1", "Bundle"),
        ("Patient/inconnu", "OperationOutcome"),
        ("Medication/1", "OperationOutcome"),
        ("n/importe/quoi/_x", "OperationOutcome"),
    ):
        answer = ehr.get(address, headers={"Accept": "application/fhir+xml"})
        assert etree.QName(_root(answer)).localname == root, address
        # An independent library takes it for a resource of R4.
        get_fhir_model_class(root).model_validate_xml(answer.content)
    found = _root(ehr.get(f"Patient?_id={identity}", headers=XML))
    assert found.find("f:entry/f:resource/f:Patient/f:id", F).get("value") == identity
    bundle = b"""<Bundle xmlns="http://hl7.org/fhir"><type value="batch"/><entry><resource><Basic><code>
      <text value="x"/></code></Basic></resource><request><method value="POST"/><url value="Basic"/></request>
      </entry></Bundle>"""
    done = _root(ehr.post("", content=bundle, headers=XML))
    assert done.find("f:entry/f:response/f:status", F).get("value").startswith("201")
    nothing = ehr.post("Basic", content=b'<Basic xmlns="http://hl7.org/fhir"/>', headers=XML)
    assert nothing.status_code == 400
    assert _root(nothing).find("f:issue/f:expression", F).get("value") == "Basic.code"


def test_a_refusal_of_authorisation_comes_in_xml_too(shared: Shared) -> None:
    answer = httpx.get(f"{shared.served.base}/Patient", headers={"Accept": "application/fhir+xml"})
    assert answer.status_code == 401
    assert etree.QName(_root(answer)).localname == "OperationOutcome"


def test_pretty_is_only_white_space(ehr: httpx.Client) -> None:
    tree = samples.patient("X4", ins=None)
    tree["text"] = {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml"><b>é</b> <i>x</i></div>'}
    identity = ehr.post("Patient", json=tree).json()["id"]
    plain = ehr.get(f"Patient/{identity}")
    pretty = ehr.get(f"Patient/{identity}?_pretty=true")
    assert b"\n" not in plain.content
    assert pretty.content.count(b"\n") > 20
    assert _json(pretty) == _json(plain)
    assert b'"valueDecimal": 3.1' in pretty.content
    xml = ehr.get(f"Patient/{identity}?_pretty=true&_format=xml")
    assert xml.content.count(b"\n") > 20
    assert _root(xml).find("f:text/h:div", F) is not None
    assert tree["text"]["div"].encode() in xml.content
    stripped = etree.fromstring(xml.content, etree.XMLParser(remove_blank_text=True))
    compact = etree.fromstring(ehr.get(f"Patient/{identity}?_format=xml").content)
    for root in (stripped, compact):
        root.find("f:text", F).clear()
    assert etree.tostring(stripped, method="c14n") == etree.tostring(compact, method="c14n")


def test_answers_and_bodies_are_compressed(ehr: httpx.Client) -> None:
    tree = samples.patient("X5", ins=None)
    tree["contact"] = [{"name": {"text": f"Proche {number}"}} for number in range(200)]
    body = gzip.compress(json.dumps(tree).encode())
    made = ehr.post("Patient", content=body, headers={"Content-Encoding": "gzip"})
    assert made.status_code == 201, made.text
    address = f"Patient/{made.json()['id']}"

    def raw(encoding: str, **more: str) -> tuple[httpx.Response, bytes]:
        with ehr.stream("GET", address, headers={"Accept-Encoding": encoding, **more}) as answer:
            return answer, b"".join(answer.iter_raw())

    whole, plain = raw("identity")
    assert "content-encoding" not in whole.headers
    for encoding in ("gzip", "deflate, gzip;q=0.5", "*"):
        answer, packed = raw(encoding)
        assert answer.headers["content-encoding"] == "gzip"
        assert int(answer.headers["content-length"]) == len(packed) < len(plain) / 3
        assert gzip.decompress(packed) == plain
        assert answer.headers["etag"] == whole.headers["etag"]
    for encoding in ("gzip;q=0", "br", "identity;q=1, *;q=0"):
        answer, content = raw(encoding)
        assert "content-encoding" not in answer.headers
        assert content == plain
    answer, packed = raw("gzip", Accept="application/fhir+xml")
    assert etree.fromstring(gzip.decompress(packed)).tag == "{http://hl7.org/fhir}Patient"
    unchanged, nothing = raw("gzip", **{"If-None-Match": whole.headers["etag"]})
    assert (unchanged.status_code, nothing) == (304, b"")
    assert unchanged.headers["vary"] == "Accept, Accept-Encoding"
    # What fits into one packet stays as it is.
    with ehr.stream("GET", "Patient/inconnu", headers={"Accept-Encoding": "gzip"}) as small:
        assert "content-encoding" not in small.headers


def test_head_says_what_get_would(ehr: httpx.Client) -> None:
    identity = ehr.post("Patient", json=samples.patient("X6", ins=None)).json()["id"]
    for address in (f"Patient/{identity}", f"Patient/{identity}/_history/1", "metadata", f"Patient?_id={identity}"):
        for form in ("json", "xml"):
            got = ehr.get(address, params={"_format": form}, headers={"Accept-Encoding": "identity"})
            head = ehr.head(address, params={"_format": form}, headers={"Accept-Encoding": "identity"})
            assert (head.status_code, head.content) == (200, b""), address
            for name in ("content-type", "etag", "content-length"):
                assert head.headers.get(name) == got.headers.get(name), (address, name)
    assert ehr.head("Patient/inconnu").status_code == 404


def test_the_bytes_of_a_binary_go_to_whoever_does_not_ask_for_fhir(shared: Shared, ehr: httpx.Client) -> None:
    content = b"%PDF-1.7 fictif" * 200
    tree = {
        "resourceType": "Binary",
        "contentType": "application/pdf",
        "data": base64.b64encode(content).decode(),
    }
    made = ehr.post("Binary", json=tree)
    assert made.status_code == 201, made.text
    address = f"Binary/{made.headers['location'].partition('/_history')[0].rpartition('/')[2]}"
    for accept in ("application/pdf", "*/*", "text/html, */*;q=0.1", "application/json"):
        answer = ehr.get(address, headers={"Accept": accept})
        assert answer.headers["content-type"] == "application/pdf", accept
        assert answer.content == content
    assert ehr.get(address, headers={"Accept": "application/fhir+json"}).json()["data"] == tree["data"]
    root = _root(ehr.get(address, headers={"Accept": "application/fhir+xml"}))
    assert root.find("f:data", F).get("value") == tree["data"]
    assert _root(ehr.get(address + "?_format=xml")).find("f:contentType", F).get("value") == "application/pdf"


def test_a_binary_is_written_by_its_own_bytes(ehr: httpx.Client) -> None:
    content = bytes(range(256)) * 40
    made = ehr.post("Binary", content=content, headers={"Content-Type": "image/x-fictif"})
    assert made.status_code == 201, made.text
    said = made.json()
    assert said["contentType"] == "image/x-fictif"
    assert base64.b64decode(said["data"]) == content
    address = f"Binary/{said['id']}"
    changed = ehr.put(address, content=content[::-1], headers={"Content-Type": "image/x-autre; v=1"})
    assert changed.status_code == 200, changed.text
    read = ehr.get(address, headers={"Accept": "image/*"})
    assert (read.headers["content-type"], read.content) == ("image/x-autre; v=1", content[::-1])
    # Elsewhere such a body is none.
    assert ehr.post("Basic", content=content, headers={"Content-Type": "image/x-fictif"}).status_code == 415
    # A type that no header can say.
    odd = ehr.post("Binary", json={"resourceType": "Binary", "contentType": "é", "data": "AAAA"})
    raw = ehr.get(f"Binary/{odd.json()['id']}", headers={"Accept": "*/*"})
    assert (raw.headers["content-type"], raw.content) == ("application/octet-stream", b"\0\0\0")
    assert raw.headers["x-content-type-options"] == "nosniff"


def test_every_example_is_kept_as_it_was_sent(ehr: httpx.Client, examples: list[tuple[str, bytes]]) -> None:
    """Types that no verb understands, from the specification's own examples: JSON in, JSON and XML out."""
    seen = 0
    for name, content in examples:
        tree = json.loads(content, parse_float=Decimal)
        if tree["resourceType"] not in {"Basic", "Group", "List", "Questionnaire", "Location", "CareTeam"}:
            continue
        made = ehr.post(tree["resourceType"], content=content)
        if made.status_code != 201:
            # A reference to what is not here, or another's number: refused whole, by its name.
            assert made.status_code in {400, 403, 409, 422}, (name, made.text)
            continue
        address = made.headers["location"].partition("/_history")[0]
        back = ehr.get(address)
        assert _sent(_json(back)) == _sent(tree), name
        xml = ehr.get(address, headers={"Accept": "application/fhir+xml"})
        model = get_fhir_model_class(tree["resourceType"]).model_validate_xml(xml.content)
        assert model.id == _json(back)["id"]
        seen += 1
    assert seen >= 3


@pytest.fixture
def examples() -> list[tuple[str, bytes]]:
    folder = Path(os.environ.get("CISIS_DIR", Path(__file__).parents[4] / "shared")) / "data" / "fhir-examples"
    if not folder.is_dir():
        pytest.skip("the specification's examples are not beside this checkout")
    return [(path.name, path.read_bytes()) for path in sorted(folder.glob("*.json")) if path.name[0].isupper()]
