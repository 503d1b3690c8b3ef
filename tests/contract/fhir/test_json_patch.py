"""JSON Patch against RFC 6902's own appendix and the cases of the public json-patch test suite."""

from __future__ import annotations

import copy
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import Conflict, GatewayError, InvalidContent
from gateway.fhir import document
from gateway.fhir.patch import patched
from gateway.fhir.patch_json import read
from gateway.settings import Limits

FOO = {"foo": 1, "baz": [{"qux": "hello"}]}

#: document, operations, result [RFC 6902 appendix A; json-patch-tests]
GOOD: list[tuple[Any, list[dict[str, Any]], Any]] = [
    # RFC 6902 appendix A
    ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
    ({"foo": ["bar", "baz"]}, [{"op": "add", "path": "/foo/1", "value": "qux"}], {"foo": ["bar", "qux", "baz"]}),
    ({"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
    ({"foo": ["bar", "qux", "baz"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["bar", "baz"]}),
    ({"baz": "qux", "foo": "bar"}, [{"op": "replace", "path": "/baz", "value": "boo"}], {"baz": "boo", "foo": "bar"}),
    (
        {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
        [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
        {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
    ),
    (
        {"foo": ["all", "grass", "cows", "eat"]},
        [{"op": "move", "from": "/foo/1", "path": "/foo/3"}],
        {"foo": ["all", "cows", "eat", "grass"]},
    ),
    (
        {"baz": "qux", "foo": ["a", 2, "c"]},
        [{"op": "test", "path": "/baz", "value": "qux"}, {"op": "test", "path": "/foo/1", "value": 2}],
        {"baz": "qux", "foo": ["a", 2, "c"]},
    ),
    (
        {"foo": "bar"},
        [{"op": "add", "path": "/child", "value": {"grandchild": {}}}],
        {"foo": "bar", "child": {"grandchild": {}}},
    ),
    ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux", "xyz": 123}], {"foo": "bar", "baz": "qux"}),
    ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
    ({"foo": ["bar"]}, [{"op": "add", "path": "/foo/-", "value": ["abc", "def"]}], {"foo": ["bar", ["abc", "def"]]}),
    # json-patch-tests
    ({}, [], {}),
    ({"foo": None}, [{"op": "add", "path": "/foo", "value": 1}], {"foo": 1}),
    ([], [{"op": "add", "path": "/0", "value": "foo"}], ["foo"]),
    ({}, [{"op": "add", "path": "", "value": []}], []),
    ([], [{"op": "add", "path": "", "value": {}}], {}),
    ([], [{"op": "add", "path": "/-", "value": "hi"}], ["hi"]),
    ({}, [{"op": "add", "path": "/", "value": 1}], {"": 1}),
    ({"foo": {}}, [{"op": "add", "path": "/foo/", "value": 1}], {"foo": {"": 1}}),
    (FOO, [{"op": "add", "path": "/baz/0/foo", "value": "w"}], {"foo": 1, "baz": [{"qux": "hello", "foo": "w"}]}),
    ({"foo": 1}, [{"op": "add", "path": "/bar", "value": None}], {"foo": 1, "bar": None}),
    ({"foo": 1}, [{"op": "add", "path": "/0", "value": "bar"}], {"foo": 1, "0": "bar"}),
    (["foo", "sil"], [{"op": "add", "path": "/2", "value": "bar"}], ["foo", "sil", "bar"]),
    ({"1e0": "foo"}, [{"op": "test", "path": "/1e0", "value": "foo"}], {"1e0": "foo"}),
    (FOO, [{"op": "remove", "path": "/baz/0/qux"}], {"foo": 1, "baz": [{}]}),
    (FOO, [{"op": "replace", "path": "/foo", "value": [1, 2]}], {"foo": [1, 2], "baz": [{"qux": "hello"}]}),
    ([""], [{"op": "replace", "path": "/0", "value": False}], [False]),
    (["foo", "sil"], [{"op": "replace", "path": "/1", "value": ["bar", "baz"]}], ["foo", ["bar", "baz"]]),
    ({"foo": "bar"}, [{"op": "replace", "path": "", "value": {"baz": "qux"}}], {"baz": "qux"}),
    ({"foo": None}, [{"op": "test", "path": "/foo", "value": None}], {"foo": None}),
    ({"foo": None}, [{"op": "move", "from": "/foo", "path": "/bar"}], {"bar": None}),
    ({"foo": None}, [{"op": "copy", "from": "/foo", "path": "/bar"}], {"foo": None, "bar": None}),
    ({"foo": None}, [{"op": "remove", "path": "/foo"}], {}),
    (
        {"foo": [{"foo": 1, "bar": 2}]},
        [{"op": "test", "path": "/foo", "value": [{"bar": 2, "foo": 1}]}],
        {"foo": [{"foo": 1, "bar": 2}]},
    ),
    ({"a/b": 1, "m~n": 8, " ": 7, "c%d": 2}, [{"op": "test", "path": "/a~1b", "value": 1}], None),
    ({"a/b": 1, "m~n": 8, " ": 7, "c%d": 2}, [{"op": "test", "path": "/m~0n", "value": 8}], None),
    ({"a/b": 1, "m~n": 8, " ": 7, "c%d": 2}, [{"op": "test", "path": "/c%d", "value": 2}], None),
    ({"foo": 1}, [{"op": "move", "from": "/foo", "path": "/foo"}], {"foo": 1}),
    (
        {"baz": [{"qux": "hello"}], "bar": 1},
        [{"op": "move", "from": "/baz/0/qux", "path": "/baz/1"}],
        {"baz": [{}, "hello"], "bar": 1},
    ),
    (
        {"baz": [{"qux": "hello"}], "bar": 1},
        [{"op": "copy", "from": "/baz/0", "path": "/boo"}],
        {"baz": [{"qux": "hello"}], "bar": 1, "boo": {"qux": "hello"}},
    ),
    (
        [1, 2, [3, [4, 5]]],
        [{"op": "add", "path": "/2/1/-", "value": {"foo": ["bar"]}}],
        [1, 2, [3, [4, 5, {"foo": ["bar"]}]]],
    ),
    ([1, 2, 3, 4], [{"op": "remove", "path": "/1"}, {"op": "remove", "path": "/2"}], [1, 3]),
]

#: document, operations that must be refused, whether what is kept is at fault (409) rather than the patch (400)
BAD: list[tuple[Any, list[Any], bool]] = [
    ({"baz": "qux"}, [{"op": "test", "path": "/baz", "value": "bar"}], True),
    ({"foo": "bar"}, [{"op": "add", "path": "/baz/bat", "value": "qux"}], True),
    ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": "10"}], True),
    ({"bar": [1, 2]}, [{"op": "add", "path": "/bar/8", "value": "5"}], True),
    ({"bar": [1, 2]}, [{"op": "add", "path": "/bar/-1", "value": "5"}], True),
    (["foo", "sil"], [{"op": "add", "path": "/3", "value": "bar"}], True),
    (["foo", "bar"], [{"op": "test", "path": "/1e0", "value": "bar"}], True),
    (["foo", "sil"], [{"op": "add", "path": "/bar", "value": 42}], True),
    ({"bar": "baz"}, [{"op": "replace", "path": "/foo/bar", "value": False}], True),
    ({"foo": {"bar": [1, 2, 5, 4]}}, [{"op": "test", "path": "/foo", "value": [1, 2]}], True),
    (FOO, [{"op": "remove", "path": "/baz/1e0/qux"}], True),
    ([""], [{"op": "replace", "path": "/1e0", "value": False}], True),
    ({"baz": [1, 2, 3], "bar": 1}, [{"op": "copy", "from": "/baz/1e0", "path": "/boo"}], True),
    ({"foo": 1, "baz": [1]}, [{"op": "move", "from": "/baz/1e0", "path": "/foo"}], True),
    (["foo", "bar"], [{"op": "test", "path": "/00", "value": "foo"}], True),
    (["foo", "bar"], [{"op": "test", "path": "/01", "value": "bar"}], True),
    ({"foo": "bar"}, [{"op": "remove", "path": "/baz"}], True),
    (["foo", "bar"], [{"op": "remove", "path": "/2"}], True),
    ({"foo": 1}, [{"op": "test", "path": "/foo", "value": True}], True),
    ([1], [{"op": "add", "path": "/-"}], False),
    ([1], [{"op": "replace", "path": "/0"}], False),
    ([None], [{"op": "test", "path": "/0"}], False),
    ([1], [{"op": "copy", "path": "/-"}], False),
    ({"foo": 1}, [{"op": "move", "path": ""}], False),
    ({"foo": 1}, [{"op": "spam", "path": "/foo", "value": 1}], False),
    ({"foo": 1}, [{"op": "add", "path": "foo", "value": 1}], False),
    ({"foo": 1}, [{"op": "add", "value": 1}], False),
    ({"foo": {"a": 1}}, [{"op": "move", "from": "/foo", "path": "/foo/b"}], False),
    ({"foo": 1}, [{"op": "test", "path": "/~2", "value": 1}], False),
    ({"foo": 1}, ["add"], False),
]


@pytest.mark.parametrize(("document", "operations", "result"), GOOD)
def test_a_patch_does_what_the_rfc_says(document: Any, operations: list[dict[str, Any]], result: Any) -> None:
    before = copy.deepcopy(document)
    said = copy.deepcopy(operations)
    patch = read(operations, Limits())
    wanted = before if result is None else result
    assert patch.apply(document) == wanted
    assert patch.apply(document) == wanted, "a step may run again"
    assert (document, operations) == (before, said), "neither the document nor the patch is changed"


@pytest.mark.parametrize(("document", "operations", "conflict"), BAD)
def test_what_the_rfc_calls_an_error_changes_nothing(document: Any, operations: list[Any], *, conflict: bool) -> None:
    before = copy.deepcopy(document)
    good = {"op": "add", "path": "", "value": document}
    with pytest.raises(Conflict if conflict else InvalidContent):
        read([good, *operations], Limits()).apply(document)
    assert document == before


def test_numbers_are_tested_by_value_and_kept_as_written() -> None:
    patch = read([{"op": "test", "path": "/a", "value": Decimal("1.1")}], Limits())
    assert str(patch.apply({"a": Decimal("1.10")})["a"]) == "1.10"


def test_a_patch_that_doubles_itself_is_refused_before_memory_is() -> None:
    copies = [{"op": "copy", "from": "", "path": f"/{index}"} for index in range(64)]
    with pytest.raises(GatewayError) as refused:
        read(copies, Limits()).apply({"a": list(range(10))})
    assert refused.value.code == "patch-demesure"


#: A resource and operations that grow it, or work on it, out of proportion to what is sent → the limit that stops them.
BOMBS: dict[str, tuple[Any, list[dict[str, Any]], str]] = {
    "a list doubled into itself": (
        {"a": [1]},
        [{"op": "copy", "from": "/a", "path": "/a/-"}] * 40,
        "RCP_LIMIT_JSON_NODES",
    ),
    "one element again and again": (
        {"a": [{"b": list(range(50))}]},
        [{"op": "copy", "from": "/a/0", "path": "/a/0"}] * 60,
        "RCP_LIMIT_JSON_NODES",
    ),
    "an object under new names": (
        {"a": {"b": 1}},
        [{"op": "copy", "from": "/a", "path": f"/a/c{index}"} for index in range(40)],
        "RCP_LIMIT_JSON_NODES",
    ),
    "a long text, which copies share": (
        {"a": ["x" * 5_000]},
        [{"op": "copy", "from": "/a/0", "path": "/a/-"}] * 50,
        "RCP_LIMIT_HTTP_BODY_BYTES",
    ),
    "a long name": (
        {"a": [{"x" * 5_000: 1}]},
        [{"op": "copy", "from": "/a/0", "path": "/a/-"}] * 50,
        "RCP_LIMIT_HTTP_BODY_BYTES",
    ),
    "quotes, written with two signs each": (
        {"a": ['"' * 30_000]},
        [{"op": "copy", "from": "/a/0", "path": "/a/-"}] * 2,
        "RCP_LIMIT_HTTP_BODY_BYTES",
    ),
    "numbers": (
        {"a": [10**18] * 900},
        [{"op": "copy", "from": "/a", "path": f"/{name}"} for name in "bcdefghi"],
        "RCP_LIMIT_",
    ),
    "a large part to and fro": (
        {"a": list(range(900))},
        [{"op": "move", "from": "/a", "path": "/b"}, {"op": "move", "from": "/b", "path": "/a"}] * 20,
        "RCP_LIMIT_JSON_NODES",
    ),
    "one value into the other": (
        {"a": {}},
        [{"op": "add", "path": "/a" * level, "value": {"a": {}}} for level in range(1, 100)],
        "RCP_LIMIT_JSON_DEPTH",
    ),
}


@pytest.mark.parametrize(("before", "operations", "limit"), BOMBS.values(), ids=BOMBS.keys())
def test_a_patch_that_grows_without_bounds_is_refused_by_the_limit_s_name(
    before: Any, operations: list[dict[str, Any]], limit: str
) -> None:
    tree = {"resourceType": "Basic", **before}
    kept = copy.deepcopy(tree)
    patch = read(operations, Limits(json_nodes=1_000, http_body_bytes=100_000, patch_operations=200))
    with pytest.raises(InvalidContent, match=limit) as refused:
        patched(patch, tree)
    assert refused.value.code == "patch-demesure"
    assert tree == kept


@pytest.mark.parametrize("pointer", ["/a" * 200_000, "/" * 200_000, "/a/0" + "/0" * 200_000, "/a/" + "9" * 200_000])
@pytest.mark.parametrize("kind", ["add", "remove", "replace", "move", "copy", "test"])
def test_a_long_pointer_leads_nowhere_and_costs_what_it_weighs(kind: str, pointer: str) -> None:
    asked = {"op": kind, "path": pointer, "from": "/a", "value": 1}
    with pytest.raises(GatewayError) as refused:
        read([asked], Limits()).apply({"a": [1]})
    assert refused.value.code in {"patch-cible", "patch-demesure", "patch-illisible"}


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_whatever_a_patch_does_its_result_would_fit_a_body(data: st.DataObject) -> None:
    """Operations on the places of a small document: they are refused, or what they leave is within the limits."""
    limits = Limits(json_nodes=300, http_body_bytes=4096)
    places = st.sampled_from(["", "/a", "/a/-", "/a/0", "/b", "/b/c", "/a/0/c", "/b/c/0", "/resourceType"])
    values = st.sampled_from([1, "x" * 900, [], {}, {"c": [1, 2]}, [[0] * 20] * 3])
    kinds = st.sampled_from(["add", "copy", "copy", "move", "replace", "remove"])
    operation = st.fixed_dictionaries({"op": kinds, "path": places, "from": places, "value": values})
    asked = data.draw(st.lists(operation, max_size=30))
    tree = {"resourceType": "Basic", "a": [{"c": [1]}, "x" * 100], "b": {"c": ["y"]}}
    try:
        left = patched(read(asked, limits), tree)
    except (Conflict, InvalidContent):
        return
    body = json.dumps(left, ensure_ascii=False, separators=(",", ":")).encode()
    assert len(body) <= limits.http_body_bytes
    assert document.parse(body, limits) == left


def test_a_patch_that_nests_without_end_is_refused() -> None:
    deep: Any = 1
    for _ in range(60):
        deep = {"a": deep}
    path = "/a" * 60
    operations = [{"op": "add", "path": path, "value": deep}, {"op": "add", "path": path * 2, "value": deep}]
    with pytest.raises(GatewayError) as refused:
        read(operations, Limits()).apply(deep)
    assert refused.value.code == "patch-demesure"


def test_more_operations_than_the_limit_are_refused_by_its_name() -> None:
    with pytest.raises(InvalidContent, match="RCP_LIMIT_PATCH_OPERATIONS"):
        read([{"op": "remove", "path": "/a"}] * 3, Limits(patch_operations=2))
