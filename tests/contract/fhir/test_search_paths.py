"""R4's own FHIRPath of each search parameter, run by an engine that is not ours, finds the nodes that extraction finds.

The expressions are HL7's (``../shared``), the engine is HL7's own (npm `fhirpath`), the resources are the French
examples. ``resolve()`` would ask a server: ``where(resolve() is T)`` is taken off the expression and what is left is
filtered here by what the reference says.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.fhir.search_columns import Parameter, parameters, types
from gateway.fhir.search_paths import CHOICES
from tests.e2e.fhir_r4 import official
from tests.e2e.fhir_r4.official import Question

SHARED = Path(os.environ.get("CISIS_DIR", Path(__file__).parents[4] / "shared"))
TABLES = SHARED / "data" / "fhir-r4-tables" / "search-parameters.json"
EXAMPLES = sorted((SHARED / "data" / "fhir-examples").glob("*.json")) if SHARED.is_dir() else []
pytestmark = pytest.mark.skipif(not EXAMPLES, reason="the shared R4 tables are not beside this checkout")

#: What no parameter stands for, with the reason (mappings/fhir-search says it too).
LEFT_OUT = {"near": "no position is kept", "phonetic": "no agreed French phonetics"}
#: The extract lost the half of these that stands before the bar (R4 4.0.1: « Observation | Observation.component »).
CUT = {"combo-code-value-concept", "combo-code-value-quantity"}
_RESOLVED = re.compile(r"\.where\(resolve\(\) is ([A-Za-z]+)\)")


def _r4() -> dict[str, dict[str, dict[str, Any]]]:
    return json.loads(TABLES.read_bytes())


def _resources() -> Iterator[dict[str, Any]]:
    def inside(node: Any) -> Iterator[dict[str, Any]]:
        if isinstance(node, dict):
            if node.get("resourceType") in types():
                yield node
            for below in node.values():
                yield from inside(below)
        elif isinstance(node, list):
            for below in node:
                yield from inside(below)

    for path in EXAMPLES:
        yield from inside(json.loads(path.read_bytes()))


def _points_to(node: dict[str, Any], kind: str, root: dict[str, Any]) -> bool:
    reference = node.get("reference", "")
    if reference.startswith("#"):
        return any(one["resourceType"] == kind and one["id"] == reference[1:] for one in root.get("contained", ()))
    named = re.search(r"(?:^|/)([A-Z][A-Za-z]+)/[A-Za-z0-9.-]+(?:/_history/[^/]+)?$", reference)
    return (named.group(1) if named else node.get("type")) == kind


def _alternatives(parameter: Parameter, kind: str) -> list[tuple[str, str | None]]:
    """Alternatives of R4's expression without ``resolve()``, each with the type that it asked for."""
    found = []
    for alternative in parameter.expression.replace("Resource.", kind + ".").split(" | "):
        resolved = _RESOLVED.search(alternative)
        found.append((_RESOLVED.sub("", alternative), resolved.group(1) if resolved else None))
    return found


def _sorted(nodes: list[Any]) -> list[str]:
    return sorted(json.dumps(node, sort_keys=True, default=str) for node in nodes)


def test_every_parameter_of_r4_is_there_or_left_out_for_a_reason() -> None:
    missing = {
        (kind, code)
        for kind in types()
        for code in _r4().get(kind, {})
        if code not in parameters(kind) and code not in LEFT_OUT
    }
    assert missing == set()
    assert not {code for kind in types() for code in parameters(kind)} & set(LEFT_OUT)


def _r4_lines() -> Iterator[tuple[Parameter, dict[str, Any]]]:
    every = _r4()
    for kind in types():
        for code, parameter in parameters(kind).items():
            line = every.get(kind, {}).get(code) or every["Resource"].get(code)
            if line is not None:
                yield parameter, line


def test_the_lines_say_what_r4_says() -> None:
    lines = list(_r4_lines())
    assert len(lines) > 500
    for parameter, line in lines:
        assert parameter.kind == line["type"], parameter
        assert parameter.url == line["url"], parameter
        if parameter.code not in CUT:
            assert parameter.expression == line["expression"], parameter
        targets = line.get("target") or []
        assert parameter.targets == (("*",) if len(targets) > 20 else tuple(targets)), parameter


def test_extraction_finds_the_nodes_of_r4s_own_expressions() -> None:
    trees = list(_resources())
    asked = [
        (place, parameter, alternative, only)
        for place, tree in enumerate(trees)
        for parameter in parameters(tree["resourceType"]).values()
        for alternative, only in _alternatives(parameter, tree["resourceType"])
    ]
    questions = [
        Question(trees[place]["resourceType"], expression, trees[place], place, place)
        for place, _, expression, _ in asked
    ]
    found: dict[tuple[int, str], list[Any]] = {}
    for (place, parameter, expression, only), nodes in zip(asked, official.evaluate(questions, trees), strict=True):
        assert isinstance(nodes, list), (expression, nodes)
        kept = [node for node in nodes if only is None or _points_to(node, only, trees[place])]
        found.setdefault((place, parameter.code), []).extend(kept)
    compared: set[tuple[str, str]] = set()
    for (place, code), nodes in found.items():
        kind = trees[place]["resourceType"]
        mine = parameters(kind)[code].path(trees[place])
        assert _sorted(mine) == _sorted(nodes), (code, kind, trees[place].get("id"))
        if mine:
            compared.add((kind, code))
    assert len(compared) > 180


def test_the_choices_are_those_of_r4() -> None:
    """What is no choice is not looked for under other names."""
    kept = {*types(), "Extension", "UsageContext", "Timing", "Annotation", "Dosage"}
    elements = json.loads((TABLES.parent / "elements.json").read_bytes())
    found = {
        path.rpartition(".")[2].removesuffix("[x]")
        for path in elements
        if path.endswith("[x]") and path.split(".")[0] in kept
    }
    assert found == CHOICES
