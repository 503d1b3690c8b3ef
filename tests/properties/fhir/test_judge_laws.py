"""Laws of the judge, over resources that nobody wrote and over what becomes of them when something breaks."""

from __future__ import annotations

import copy
import random
from decimal import Decimal
from typing import Any

import pytest
from fhir.resources.R4B import get_fhir_model_class
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fhir import document, structure, validate
from gateway.fhir.invariants import enforced
from tests.fhir_resources import OFFERED, plain_json, resources

QUICK = settings(max_examples=60, deadline=None)


def _places(tree: Any) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    waiting: list[tuple[tuple[Any, ...], Any]] = [((), tree)]
    while waiting:
        path, node = waiting.pop()
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for name, value in items:
            found.append((*path, name))
            waiting.append(((*path, name), value))
    return found


# What may stand anywhere in hostile JSON.
_ANYTHING: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2**63, Decimal("1.10"), Decimal("1E+400"), "", " ", "x", "\u0000", "é" * 40),
    *([], {}, [None], [[]], [{}], {"": 1}, {"id": "x"}, {"reference": 1}, {"resourceType": []}, {"resourceType": "X"}),
    *({"resourceType": "Patient"}, {"extension": [{}]}, {"coding": [{"system": {}, "code": []}]}, "Patient/1", "#x"),
    *("2024-13-01", "2023-02-29", "24:00:00", "2026-01-01T00:00:00", "<div>x</div>", "urn:uuid:X", "AAA", "a  b"),
)


def _anything(rng: random.Random) -> Any:
    """One of them for this place alone: shared, it could be put into itself, and no JSON is endless."""
    return copy.deepcopy(rng.choice(_ANYTHING))


@st.composite
def broken(draw: st.DrawFn) -> dict[str, Any]:
    """A valid resource with up to three things replaced, dropped, doubled or added."""
    tree = copy.deepcopy(draw(resources()))
    rng = random.Random(draw(st.integers(0, 2**32)))  # noqa: S311 - the seed is hypothesis's
    for _ in range(rng.choice((1, 1, 2, 3))):
        path = rng.choice(_places(tree))
        node: Any = tree
        for step in path[:-1]:
            node = node[step]
        way = rng.randrange(5)
        if way == 0:
            del node[path[-1]]
        elif way == 1:
            node[path[-1]] = _anything(rng)
        elif way == 2:
            node[path[-1]] = [node[path[-1]], copy.deepcopy(node[path[-1]])]
        elif isinstance(node, dict):
            node[rng.choice((f"_{path[-1]}", f"{path[-1]}X", "extension", "valueString", "_id"))] = _anything(rng)
    return tree


@QUICK
@given(resources())
def test_a_valid_resource_is_accepted_and_its_bytes_are_its_tree(tree: dict[str, Any]) -> None:
    read = document.parse(plain_json(tree))
    assert read == tree
    assert validate.judge(read) == []
    assert document.parse(document.encode(read)) == tree


@settings(max_examples=200, deadline=None)
@given(broken())
def test_the_judge_never_raises_and_its_two_walks_agree(tree: dict[str, Any]) -> None:
    certain = structure.sound(tree, enforced)
    found = list(structure.faults(tree, "X")) if isinstance(tree, dict) else []
    issues = validate.judge(tree)
    assert not (certain and (found or issues))
    assert len(issues) <= validate.MAX_ISSUES
    for issue in issues:
        assert issue.severity == "error"
        assert issue.text.strip()
        # Nothing of the content is told, but names of its elements.
        assert "Ço’eur" not in f"{issue.text}{issue.expression}"


#: What fhir.resources says of resources that R4 allows: its Extension knows no Meta, and none of its values has
#: anything beside it.
_ITS_OWN = ("valueMeta", "_value")


def _it_refuses(tree: dict[str, Any]) -> bool:
    try:
        get_fhir_model_class(tree["resourceType"]).model_validate(tree)
    except Exception:  # noqa: BLE001 - it raises whatever it likes
        return True
    return False


def _beyond_it(node: Any) -> bool:
    if isinstance(node, dict):
        return any(name.startswith(_ITS_OWN) or _beyond_it(value) for name, value in node.items())
    return isinstance(node, list) and any(_beyond_it(value) for value in node)


@settings(max_examples=120, deadline=None)
@given(broken())
def test_what_fhir_resources_refuses_is_refused(tree: dict[str, Any]) -> None:
    if isinstance(tree.get("resourceType"), str) and _it_refuses(tree) and not _beyond_it(tree):
        assert validate.judge(tree) != []


@pytest.mark.parametrize("kind", OFFERED)
def test_what_is_generated_is_accepted_by_fhir_resources(kind: str) -> None:
    @settings(max_examples=6, deadline=None, database=None)
    @given(resources(kind))
    def accepted(tree: dict[str, Any]) -> None:
        assert _beyond_it(tree) or not _it_refuses(tree)

    accepted()


@given(st.recursive(st.sampled_from(_ANYTHING), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
@QUICK
def test_any_json_at_all_is_judged(node: Any) -> None:
    for kind in ("Patient", "Bundle", "Parameters", "Questionnaire", "X", None, 3):
        tree = {
            "resourceType": kind,
            "contained": [node],
            "entry": [{"resource": node}],
            "parameter": node,
            "item": node,
        }
        assert validate.judge(tree) != []
