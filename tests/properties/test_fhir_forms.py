"""Nothing is lost between the forms of a resource: JSON to XML and back, for every type of R4 and every example."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from lxml import etree

from gateway.fhir import document, xml_read, xml_write
from gateway.fhir.elements import resource_types
from tests.fhir_resources import plain_json, resources

_STRICT = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
_F = "{http://hl7.org/fhir}"


def _sorted(node: Any) -> Any:
    """The same tree whatever the order of its names; decimals stay as written."""
    if isinstance(node, dict):
        return {name: _sorted(node[name]) for name in sorted(node)}
    return [_sorted(one) for one in node] if isinstance(node, list) else node


def _said(tree: Any) -> bytes:
    return plain_json(_sorted(tree))


def _said_by_xml(element: Any) -> list[tuple[str, str]]:
    """What lxml finds in a document of ours: the name and value of each primitive, in the order of the document."""
    return [
        (etree.QName(one).localname, one.get("value")) for one in element.iter(f"{_F}*") if one.get("value") is not None
    ]


def _primitives(node: Any, name: str = "") -> list[str]:
    if isinstance(node, dict):
        return [value for key, one in node.items() if key != "resourceType" for value in _primitives(one, key)]
    if isinstance(node, list):
        return [value for one in node for value in _primitives(one, name)]
    if node is None or name == "div":
        return []
    if isinstance(node, bool):
        return ["true" if node else "false"]
    return [str(node)]


@settings(max_examples=60, deadline=None)
@given(resources(*sorted(resource_types())))
def test_json_comes_back_from_xml(tree: Any) -> None:
    sent = document.parse(plain_json(tree))
    for pretty in (False, True):
        back = xml_read.parse(xml_write.encode(sent, pretty=pretty))
        assert _said(back) == _said(sent)
    assert document.encode(sent) == plain_json(tree)


@settings(max_examples=40, deadline=None)
@given(resources())
def test_xml_comes_back_from_json_character_by_character(tree: Any) -> None:
    written = xml_write.encode(tree)
    through_json = document.parse(document.encode(xml_read.parse(written)))
    assert xml_write.encode(through_json) == written


@settings(max_examples=40, deadline=None)
@given(resources())
def test_a_strict_parser_finds_every_value_in_our_xml(tree: Any) -> None:
    root = etree.fromstring(xml_write.encode(tree), _STRICT)
    # Ids of elements and URLs of extensions are attributes.
    attributes = [value for one in root.iter(f"{_F}*") for name, value in one.attrib.items() if name in {"id", "url"}]
    found = [value for _, value in _said_by_xml(root)] + attributes
    assert sorted(found) == sorted(_primitives(tree))


@settings(max_examples=20, deadline=None)
@given(resources("Observation"))
def test_a_decimal_is_written_as_it_was(tree: Any) -> None:
    for text in ("1.10", "0.00000001", "1E2", "-0.0", "1e-7", "100000000000000000000.0"):
        tree["component"] = [{"code": {"text": "x"}, "valueQuantity": {"value": 1}}]
        sent = plain_json(tree).replace(b'{"value":1}', b'{"value":' + text.encode() + b"}")
        again = document.parse(sent)
        assert document.encode(again) == sent
        assert document.encode(_sorted(xml_read.parse(xml_write.encode(again)))) == document.encode(_sorted(again))
        assert f'<value value="{text}"/>'.encode() in xml_write.encode(again)
