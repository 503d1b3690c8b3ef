"""FHIR R4 as HL7 publishes it, and HL7's own FHIRPath engine, for the tests that hold the judge against them.

``npm ci`` of this folder's package.json installs both, here or under ``.tools/fhir_r4`` (`tests/install-servers`).
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

HERE = Path(__file__).resolve().parent
INSTALLED = tuple(folder / "node_modules" for folder in (HERE.parents[2] / ".tools" / "fhir_r4", HERE))


class Question(NamedTuple):
    """An expression to evaluate on one node; ``resource`` and ``root`` are places in the list of resources."""

    base: str
    expression: str
    node: Any
    resource: int
    root: int


def _modules() -> Path:
    found = next((folder for folder in INSTALLED if (folder / "hl7.fhir.r4.examples").is_dir()), None)
    if found is None:
        pytest.skip("les exemples officiels de FHIR R4 ne sont pas installés : npm, puis tests/install-servers")
    return found


def files(*types: str) -> Iterator[Path]:
    """Files of the package whose names start with one of these types; all of them without types."""
    package = _modules() / "hl7.fhir.r4.examples"
    for path in sorted(package.glob("*.json")):
        if path.name != "package.json" and (not types or path.name.partition("-")[0] in types):
            yield path


@cache
def structure_definitions() -> dict[str, dict[str, Any]]:
    """R4's own types by name: no profile, no logical model."""
    found: dict[str, dict[str, Any]] = {}
    for path in files("StructureDefinition"):
        read = json.loads(path.read_bytes())
        if read.get("derivation") != "constraint" and read["kind"] != "logical":
            found[read["id"]] = read
    return found


def convert(*, xml: Sequence[str] = (), json_texts: Sequence[str] = ()) -> tuple[list[Any], list[Any]]:
    """What npm `fhir` makes of XML (texts in JSON) and of JSON (texts in XML); ``{"error": …}`` where it gives up."""
    told = _node("convert.mjs", {"xml": list(xml), "json": list(json_texts)})
    return told["json"], told["xml"]


def evaluate(questions: Sequence[Question], resources: Sequence[Any]) -> list[Any]:
    """What HL7's engine answers to each question: the list that the expression gives, or an ``error``."""
    answers: list[Any] = _node(
        "fhirpath.mjs", {"resources": resources, "questions": [one._asdict() for one in questions]}
    )
    return answers


def _node(script: str, question: Any) -> Any:
    modules = _modules()
    node = shutil.which("node")
    if node is None:
        pytest.skip("node n’est pas installé : tests/install-servers")
    told = subprocess.run(
        [node, HERE / script, str(modules)],
        input=json.dumps(question, default=float),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(told.stdout)
