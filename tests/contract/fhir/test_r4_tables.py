"""The tables of R4 under ``mappings/`` say what HL7's own StructureDefinitions say, element by element."""

from __future__ import annotations

from typing import Any

import pytest

from gateway import terminology
from gateway.fhir.elements import Element, resource_types, shapes
from gateway.fhir.invariants import UNDECIDED, rules
from tests.e2e.fhir_r4 import official

#: Expressions that 4.0.1 prints with a fault and its later editions correct.
CORRECTED = {
    "app-4": "4.0.1 asks for a code « no-show » that its own list spells noshow",
    "bdl-8": "4.0.1 refuses an entry without fullUrl",
    "tim-9": "4.0.1 cannot be read when there are two moments",
}


def _types() -> dict[str, dict[str, Any]]:
    return {
        name: told
        for name, told in official.structure_definitions().items()
        if told["kind"] != "primitive-type" and name != "DomainResource"
    }


def _paths(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in told["snapshot"]["element"] if ":" not in row["id"] and "." in row["path"]}


def _kind(row: dict[str, Any]) -> list[str]:
    return [one["code"].replace("http://hl7.org/fhirpath/", "") for one in row.get("type", ())]


def _targets(one: dict[str, Any]) -> set[str] | None:
    named = {url.rpartition("/")[2] for url in one.get("targetProfile", ())}
    return None if one["code"] != "Reference" or not named or "Resource" in named else named


def _elements(path: str) -> list[Element]:
    parent, _, name = path.rpartition(".")
    return [one for one in shapes()[parent].elements if one.stem == name.removesuffix("[x]")]


def test_every_type_of_r4_is_known_and_none_else() -> None:
    told = {name for name, one in _types().items() if one["kind"] == "resource" and not one.get("abstract")}
    assert resource_types() == told
    assert len(told) == 146


def test_every_element_is_as_hl7_defines_it() -> None:
    seen = 0
    for told in _types().values():
        paths = _paths(told)
        for path, row in paths.items():
            mine = _elements(path)
            assert {(one.repeats, one.required) for one in mine} == {(row["max"] not in {"0", "1"}, row["min"] > 0)}, (
                path
            )
            assert {one.summary for one in mine} == {row.get("isSummary", False)}, path
            assert {one.modifier for one in mine} == {row.get("isModifier", False)}, path
            assert {one.attribute for one in mine} == {"xmlAttr" in row.get("representation", ())}, path
            if "contentReference" in row:
                assert [one.below for one in mine] == [row["contentReference"].rpartition("#")[2]], path
            else:
                assert [one.type for one in mine] == _kind(row), path
                assert [one.targets for one in mine] == [_targets(one) for one in row["type"]], path
            seen += 1
        order: dict[str, list[str]] = {}
        for path in paths:
            parent, _, name = path.rpartition(".")
            order.setdefault(parent, []).append(name.removesuffix("[x]"))
        for parent, stems in order.items():
            assert list(dict.fromkeys(one.stem for one in shapes()[parent].elements)) == stems, parent
    assert seen > 7000


def test_a_required_binding_holds_the_codes_that_hl7_enumerates() -> None:
    lists = terminology.table("fhir-r4-required-codes")["lists"]
    value_sets = {}
    systems = {}
    for path in official.files("ValueSet", "CodeSystem"):
        read = official.json.loads(path.read_bytes())
        (value_sets if read["resourceType"] == "ValueSet" else systems)[read["url"]] = read

    def codes_of(concepts: list[dict[str, Any]]) -> set[str]:
        return {one["code"] for one in concepts} | {
            code for one in concepts for code in codes_of(one.get("concept", []))
        }

    compared = 0
    for told in _types().values():
        for path, row in _paths(told).items():
            binding = row.get("binding", {})
            if binding.get("strength") != "required":
                continue
            url = binding["valueSet"].partition("|")[0]
            include = value_sets.get(url, {}).get("compose", {}).get("include", [])
            name = url.rpartition("/")[2]
            if not include or any(
                {"filter", "valueSet"} & one.keys()
                or ("concept" not in one and systems.get(one["system"], {}).get("content") != "complete")
                for one in include
            ):
                continue  # not enumerated as a plain list: mime types, languages, hierarchies
            wanted: dict[str, set[str]] = {}
            for one in include:
                concepts = one["concept"] if "concept" in one else systems[one["system"]]["concept"]
                wanted.setdefault(one["system"], set()).update(codes_of(concepts))
            assert {system: set(codes) for system, codes in lists[name].items()} == wanted, path
            assert {one.code_list for one in _elements(path)} == {name}, path
            compared += 1
    assert compared > 250


def _carried(path: str) -> set[str]:
    """Keys of what is judged at a path."""
    return {rule.key for rule in rules(path)}


@pytest.mark.parametrize("severity", ["error", "warning"])
def test_every_invariant_of_the_table_is_hl7s_and_is_judged(severity: str) -> None:
    by_path: dict[str, dict[str, dict[str, Any]]] = {}
    for told in _types().values():
        for row in told["snapshot"]["element"]:
            for one in row.get("constraint", ()):
                by_path.setdefault(row["path"], {})[one["key"]] = one
    for line in terminology.table("fhir-r4-invariants")["invariants"]:
        if line["severity"] != severity:
            continue
        for path in line["paths"]:
            where = {"DomainResource": "Patient", "Element": "Patient.contact", "SimpleQuantity": "Range.low"}.get(
                path, path
            )
            key = line["key"]
            assert key in _carried(path if path == "SimpleQuantity" else where), (key, path)
            told = by_path[where].get(key) or by_path["Extension"].get(key)
            if told is None:
                assert key == "sqty-1"  # stated by the profile SimpleQuantity, not by the element
                continue
            assert told["severity"] == severity
            assert told["expression"] == line["expression"] or key in CORRECTED, (key, path)


def test_no_invariant_of_what_is_offered_or_carries_it_is_left_out() -> None:
    lines = terminology.table("fhir-r4-invariants")["invariants"]
    held = {(line["key"], path) for line in lines for path in line["paths"]}
    roots = {path.partition(".")[0] for _, path in held}
    for name, told in _types().items():
        if name not in roots:
            continue
        for row in told["snapshot"]["element"]:
            for one in row.get("constraint", ()):
                if one["key"] not in {"ele-1", "ext-1"} and not one["key"].startswith("dom-"):
                    assert (one["key"], row["path"]) in held, (row["path"], one["key"])
    assert set(UNDECIDED) <= {key for key, _ in held}
