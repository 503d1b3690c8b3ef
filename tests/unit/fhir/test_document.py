"""Bytes to trees and back; what is refused before anything else looks."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidContent
from gateway.fhir import document
from gateway.settings import Limits

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.decimals(allow_nan=False, allow_infinity=False, min_value=-1e9, max_value=1e9).map(str)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"]))
)
TREES = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
    st.recursive(
        LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('abc:"\\', min_size=1), inner)
    ),
    max_size=4,
)


@given(TREES)
def test_what_is_encoded_is_read_back(tree: dict[str, object]) -> None:
    whole = {"resourceType": "Basic"} | {name: value for name, value in tree.items() if name != "resourceType"}
    assert document.parse(document.encode(whole)) == whole


@pytest.mark.parametrize("number", ["1.10", "0.000", "-0.0", "100.00", "1.0E+2", "123456789012345678901234567890.12"])
def test_decimals_are_written_as_they_came(number: str) -> None:
    body = b'{"resourceType":"Observation","valueDecimal":' + number.encode() + b"}"
    assert document.encode(document.parse(body)) == body


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "json-illisible"),
        (b'{"resourceType":"Patient","a":NaN}', "json-illisible"),
        (b'{"resourceType":"Patient","a":"\\ud800"}', "json-illisible"),
        (b'{"resourceType":"Patient","a":{"b":1,"b":2}}', "json-nom-repete"),
        (b'{"resourceType":"Patient","a":"\\u0000"}', "json-caractere"),
        (b'{"a":1}', "ressource-sans-type"),
        (b"[1]", "ressource-sans-type"),
        (b'{"resourceType":"Patient","a":' + b"[" * 70 + b"]" * 70 + b"}", "json-trop-profond"),
        (b"[" * 100_000, "json-trop-profond"),
        (b'{"resourceType":"Patient"}' + b" " * 100, "corps-trop-grand"),
    ],
)
def test_bad_bytes_are_refused_by_name(body: bytes, code: str) -> None:
    limits = Limits(http_body_bytes=110) if code == "corps-trop-grand" else Limits()
    with pytest.raises(InvalidContent) as refused:
        document.parse(body, limits)
    assert refused.value.code == code


def test_a_colon_inside_a_text_is_no_name() -> None:
    tree = {"resourceType": "Basic", "a": 'x":"y', "b": '\\":', "c:": ":"}
    assert document.parse(document.encode(tree)) == tree


def test_of_meta_only_the_version_and_the_instant_are_ours() -> None:
    sent = {
        "resourceType": "Patient",
        "id": "du-client",
        "meta": {"versionId": "99", "lastUpdated": "2000-01-01T00:00:00Z", "profile": ["p"], "tag": [{"code": "t"}]},
        "active": True,
    }
    at = datetime(2026, 3, 9, 8, 0, 0, 123456, tzinfo=UTC)
    kept = document.with_meta(sent, identity="n-1", version=2, updated=at)
    assert kept["id"] == "n-1"
    assert kept["meta"] == {
        "versionId": "2",
        "lastUpdated": "2026-03-09T08:00:00.123Z",
        "profile": ["p"],
        "tag": [{"code": "t"}],
    }
    assert document.same_content(sent, kept)
    assert not document.same_content(sent, kept | {"active": False})


@pytest.mark.parametrize("item", [b"{}", b"[]", b"1", b'""', b"null", b'{"a": 1}'])
def test_more_nodes_than_the_limit_are_refused_by_its_name_and_as_many_are_read(item: bytes) -> None:
    nodes = 2 if b"a" in item else 1
    limits = Limits(json_nodes=100 * nodes + 3)

    def body(items: int) -> bytes:
        return b'{"resourceType": "Basic", "a": [' + b",".join([item] * items) + b"]}"

    assert len(document.parse(body(100), limits)["a"]) == 100
    with pytest.raises(InvalidContent, match="RCP_LIMIT_JSON_NODES") as refused:
        document.parse(body(101), limits)
    assert refused.value.code == "trop-d-elements"


def test_signs_in_texts_and_in_what_is_no_json_are_no_nodes() -> None:
    limits = Limits(json_nodes=100)
    text = ",[{" * 1000
    assert document.parse(document.encode({"resourceType": "Basic", text: text}), limits)[text] == text
    for bad in (b"," * 1000, b"[" * 1000, b'{"a": [' + b"{}," * 1000, b"," * 1000 + b'"' + b'\\"' * 500_000):
        with pytest.raises(InvalidContent) as refused:
            document.parse(bad, limits)
        assert refused.value.code in {"json-illisible", "json-trop-profond"}


def test_a_copy_shares_no_object_and_keeps_the_decimals() -> None:
    tree = document.parse(b'{"resourceType": "Basic", "a": [{"b": [1.10, 1E2]}], "c": {"d": null}}')
    kept = document.encode(tree)
    made = document.copied(tree)
    made["a"][0]["b"].append(1)
    made["c"]["d"] = 1
    assert document.encode(tree) == kept
