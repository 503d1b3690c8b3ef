"""Examples made elsewhere are accepted and come back unchanged; broken ones are refused as the judge does."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B import get_fhir_model_class

from gateway.fhir import document, search_columns, structure, validate
from gateway.fhir.elements import resource_types

EXAMPLES = sorted((Path(__file__).parents[1] / "data" / "fhir").glob("*.json"))
RESOURCES = [path for path in EXAMPLES if json.loads(path.read_bytes())["resourceType"] in resource_types()]


def _read(path: Path) -> dict[str, Any]:
    return document.parse(path.read_bytes())


def test_the_examples_are_there() -> None:
    assert len(RESOURCES) >= 60


@pytest.mark.parametrize("path", RESOURCES, ids=lambda path: path.stem)
def test_example_comes_back_unchanged(path: Path) -> None:
    tree = _read(path)
    again = json.loads(document.encode(tree), parse_float=Decimal)
    assert again == json.loads(path.read_bytes(), parse_float=Decimal)


@pytest.mark.parametrize("path", RESOURCES, ids=lambda path: path.stem)
def test_example_is_accepted_and_indexed(path: Path) -> None:
    tree = _read(path)
    if tree["resourceType"] == "Bundle":
        found = [issue for entry in tree["entry"] if "resource" in entry for issue in validate.judge(entry["resource"])]
    else:
        found = validate.judge(tree)
    assert found == []
    columns = search_columns.extract(tree)
    identifiers = tree.get("identifier", [])
    for said in identifiers if isinstance(identifiers, list) else [identifiers]:
        if "identifier" in search_columns.parameters(tree["resourceType"]):
            token = search_columns.token(said.get("system"), said["value"])
            assert search_columns.entry("identifier", token) in columns["terms"]


def _broken(tree: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """One fault at a time, everywhere in a resource."""

    def places(node: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for name, value in items:
            yield (*path, name)
            yield from places(value, (*path, name))

    for path in places(tree, ()):
        if path == ("resourceType",) or path[0] in {"text", "contained"}:
            continue
        for label, change in _CHANGES:
            again = copy.deepcopy(tree)
            node: Any = again
            for step in path[:-1]:
                node = node[step]
            change(node, path[-1])
            yield f"{label} {'.'.join(map(str, path))}", again


def _drop(node: Any, name: Any) -> None:
    del node[name]


def _to_object(node: Any, name: Any) -> None:
    node[name] = {"inconnu": 1}


def _to_number(node: Any, name: Any) -> None:
    node[name] = 12


def _to_empty(node: Any, name: Any) -> None:
    node[name] = ""


def _to_list(node: Any, name: Any) -> None:
    node[name] = [node[name]]


def _beside(node: Any, name: Any) -> None:
    if isinstance(node, dict):
        node[f"{name}Inconnu"] = "x"


_CHANGES = [
    ("drop", _drop),
    ("object", _to_object),
    ("number", _to_number),
    ("empty", _to_empty),
    ("list", _to_list),
    ("beside", _beside),
]


def _judge_refuses(tree: dict[str, Any]) -> bool:
    try:
        get_fhir_model_class(tree["resourceType"]).model_validate(tree)
    except Exception:  # noqa: BLE001 - the judge raises whatever it likes
        return True
    return False


@pytest.mark.parametrize(
    "name",
    [
        "Patient-pat-trois-qualifie",
        "ServiceRequest-inscription-1",
        "Task-dossier-1",
        "QuestionnaireResponse-prefiche-1",
        "Condition-tumeur-1",
        "Appointment-session-2026-03-19",
        "ImagingStudy-irm-sein-1",
        "Communication-contribution-1",
    ],
)
def test_the_compiled_validator_refuses_all_that_the_judge_refuses(name: str) -> None:
    tree = _read(next(path for path in EXAMPLES if path.stem == name))
    tried = missed = 0
    slipped = []
    for label, broken in _broken(tree):
        refused = list(structure.faults(broken, "x"))
        if _judge_refuses(broken):
            tried += 1
            if not refused:
                missed += 1
                slipped.append(label)
    assert tried > 50
    assert slipped == []


def test_required_codes_and_targets_are_refused_where_the_judge_is_silent() -> None:
    tree = _read(next(path for path in EXAMPLES if path.stem == "Patient-pat-trois-qualifie"))
    for change, expression in (
        ({"gender": "zzz"}, "Patient.gender"),
        ({"managingOrganization": {"reference": "Medication/1"}}, "Patient.managingOrganization"),
        ({"active": "true"}, "Patient.active"),
        ({"birthDate": "1979-02-30"}, "Patient.birthDate"),
    ):
        issues = validate.judge(tree | change)
        assert [issue.expression for issue in issues] == [expression]
        assert "zzz" not in issues[0].text
