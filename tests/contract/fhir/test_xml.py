"""XML held against what nobody here wrote: HL7's own examples, and two converters of other people.

`fhir.resources` (Python) and npm `fhir` (JavaScript) turn JSON into XML and back by definitions of their own. What they
lose themselves is named in `_known`.
"""

from __future__ import annotations

import json
import os
import re
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B import get_fhir_model_class
from lxml import etree

from gateway.fhir import document, xml_read, xml_write
from tests.e2e.fhir_r4 import official
from tests.fhir_resources import OFFERED, plain_json

SHARED = Path(os.environ.get("CISIS_DIR", Path(__file__).resolve().parents[4] / "shared"))
RESOURCES = [path for path in sorted((SHARED / "data" / "fhir-examples").glob("*.json")) if path.name[0].isupper()]
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T")
#: How many examples of each type the slower converter is asked about.
EACH = 12
#: Definitions are nine tenths of the bytes and all of one make: one in so many is read; of what is about somebody, all.
DEFINITIONS = {"StructureDefinition", "CodeSystem", "ValueSet"}
ONE_IN = 8


def _sorted(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: _sorted(node[name]) for name in sorted(node)}
    return [_sorted(one) for one in node] if isinstance(node, list) else node


def _known(node: Any, name: str = "") -> Any:
    """The same resource without what those converters lose: zeros of decimals and instants, spaces of narratives."""
    if isinstance(node, dict):
        return {key: _known(value, key) for key, value in sorted(node.items())}
    if isinstance(node, list):
        return [_known(one, name) for one in node]
    if isinstance(node, int | float | Decimal) and not isinstance(node, bool):
        return Decimal(f"{Decimal(str(node)):.12g}").normalize()
    if name == "div":
        return "".join("".join(etree.fromstring(node).itertext()).split())
    return datetime.fromisoformat(node) if isinstance(node, str) and _MOMENT.match(node) else node


def test_the_examples_are_there() -> None:
    assert len(RESOURCES) >= 60


@pytest.mark.parametrize("path", RESOURCES, ids=lambda path: path.stem)
def test_a_python_library_reads_our_xml_and_we_read_its(path: Path) -> None:
    said = json.loads(path.read_bytes(), parse_float=Decimal)
    model = get_fhir_model_class(said["resourceType"])
    read = model.model_validate_xml(xml_write.encode(document.parse(path.read_bytes())))
    assert _known(json.loads(read.model_dump_json(), parse_float=Decimal)) == _known(said)
    written = model.model_validate(json.loads(path.read_bytes())).model_dump_xml()
    ours = xml_read.parse(written.encode() if isinstance(written, str) else written)
    assert _known(ours) == _known(said)


def _official(limit: int) -> list[Path]:
    if not any(folder.is_dir() for folder in official.INSTALLED):
        return []
    return [path for path in official.files() if path.stat().st_size < limit]


def _line_ends(said: bytes) -> bytes:
    """XML has one line end: a narrative keeps its characters but for that."""
    return said.replace(b"\\r\\n", b"\\n").replace(b"\\r", b"\\n")


def test_every_official_instance_comes_back_from_xml_character_by_character() -> None:
    every = _official(300_000)
    if not every:
        pytest.skip("les exemples officiels de FHIR R4 ne sont pas installés : npm, puis tests/install-servers")
    definitions = [path for path in every if path.name.partition("-")[0] in DEFINITIONS]
    seen = 0
    for path in sorted({*every} - {*definitions} | {*definitions[::ONE_IN]}):
        tree = document.decode(path.read_bytes())
        if "resourceType" not in tree:
            continue
        back = xml_read.parse(xml_write.encode(tree))
        sent = plain_json(_sorted(json.loads(path.read_bytes(), parse_float=Decimal)))
        assert _line_ends(document.encode(_sorted(back))) == _line_ends(sent), path.name
        seen += 1
    assert seen > 2500


def test_a_javascript_library_reads_our_xml_and_we_read_its() -> None:
    chosen: dict[str, list[Path]] = {}
    for path in _official(100_000):
        kind = path.name.partition("-")[0]
        if kind in {*OFFERED, "Bundle", "Parameters", "OperationOutcome"}:
            chosen.setdefault(kind, []).append(path)
    paths = [path for found in chosen.values() for path in found[:EACH]]
    if not paths:
        pytest.skip("les exemples officiels de FHIR R4 ne sont pas installés : npm, puis tests/install-servers")
    texts = [path.read_text() for path in paths]
    ours = [xml_write.encode(document.decode(text.encode())).decode() for text in texts]
    back, theirs = official.convert(xml=ours, json_texts=texts)
    agreed = 0
    for path, text, theirs_json, theirs_xml in zip(paths, texts, back, theirs, strict=True):
        if isinstance(theirs_json, dict) or isinstance(theirs_xml, dict):
            # It does not know an exponent.
            assert path.stem == "Observation-decimal"
            continue
        said = _known(json.loads(text, parse_float=Decimal))
        assert _known(json.loads(theirs_json, parse_float=Decimal)) == said, path.name
        assert _known(xml_read.parse(theirs_xml.encode())) == said, path.name
        agreed += 1
    assert agreed > 150
