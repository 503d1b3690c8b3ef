"""FHIRPath Patch against the cases that HL7 publishes for it (fhir-test-cases, r4/patch), told in JSON."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from gateway.errors import Conflict, GatewayError, InvalidContent
from gateway.fhir.patch import patched
from gateway.fhir.patch_path import read
from gateway.settings import Limits


def op(kind: str, path: str, **parts: Any) -> dict[str, Any]:
    """One operation; a value is given with its type as ``valueX``, or as ``parts`` of an anonymous type."""
    made: list[dict[str, Any]] = [{"name": "type", "valueCode": kind}, {"name": "path", "valueString": path}]
    value: dict[str, Any] = {"name": "value"}
    for name, said in parts.items():
        if name == "name":
            made.append({"name": "name", "valueString": said})
        elif name in {"index", "source", "destination"}:
            made.append({"name": name, "valueInteger": said})
        elif name == "parts":
            value["part"] = said
        else:
            value[name] = said
    return {"name": "operation", "part": [*made, *([value] if len(value) > 1 else [])]}


def parameters(*operations: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Parameters", **({"parameter": list(operations)} if operations else {})}


def identifiers(*numbers: int) -> list[dict[str, str]]:
    return [{"system": "http://example.org", "value": f"value {number}"} for number in numbers]


CONTACT = {"contact": [{"name": {"text": "a name"}, "gender": "male"}]}
NEW = {"system": "http://example.org", "value": "value 3"}
LIST = "Patient.identifier"

CASES: list[tuple[str, dict[str, Any], list[dict[str, Any]], dict[str, Any]]] = [
    ("No Difference", {"birthDate": "1920-01-01"}, [], {"birthDate": "1920-01-01"}),
    (
        "Replace Primitive",
        {"birthDate": "1920-01-01"},
        [op("replace", "Patient.birthDate", valueDate="1930-01-01")],
        {"birthDate": "1930-01-01"},
    ),
    ("Delete Primitive", {"birthDate": "1920-01-01"}, [op("delete", "Patient.birthDate")], {}),
    (
        "Add Primitive",
        {},
        [op("add", "Patient", name="birthDate", valueDate="1930-01-01")],
        {"birthDate": "1930-01-01"},
    ),
    (
        "Replace Nested Primitive #1",
        CONTACT,
        [op("replace", "Patient.contact[0].gender", valueCode="female")],
        {"contact": [{"name": {"text": "a name"}, "gender": "female"}]},
    ),
    (
        "Replace Nested Primitive #2",
        CONTACT,
        [op("replace", "Patient.contact[0].name.text", valueString="the name")],
        {"contact": [{"name": {"text": "the name"}, "gender": "male"}]},
    ),
    (
        "Delete Nested Primitive #1",
        CONTACT,
        [op("delete", "Patient.contact[0].gender")],
        {"contact": [{"name": {"text": "a name"}}]},
    ),
    (
        "Delete Nested Primitive #2",
        CONTACT,
        [op("delete", "Patient.contact[0].name.text")],
        {"contact": [{"gender": "male"}]},
    ),
    (
        "Add Nested Primitive",
        {"contact": [{"name": {"text": "a name"}}]},
        [op("add", "Patient.contact[0]", name="gender", valueCode="male")],
        CONTACT,
    ),
    (
        "Add Complex",
        {},
        [op("add", "Patient", name="maritalStatus", valueCodeableConcept={"text": "married"})],
        {"maritalStatus": {"text": "married"}},
    ),
    (
        "Replace Complex",
        {"maritalStatus": {"id": "1", "text": "married"}},
        [op("replace", "Patient.maritalStatus", valueCodeableConcept={"id": "2", "text": "not married"})],
        {"maritalStatus": {"id": "2", "text": "not married"}},
    ),
    ("Delete Complex", {"maritalStatus": {"text": "married"}}, [op("delete", "Patient.maritalStatus")], {}),
    (
        "Add Anonymous Type",
        {},
        [op("add", "Patient", name="contact", parts=[{"name": "name", "valueHumanName": {"text": "a name"}}])],
        {"contact": [{"name": {"text": "a name"}}]},
    ),
    ("Delete Anonymous Type", {"contact": [{"name": {"text": "a"}}]}, [op("delete", "Patient.contact[0]")], {}),
    (
        "List unchanged, contents changed",
        {"identifier": identifiers(1, 2)},
        [
            op("replace", "Patient.identifier[0].value", valueString="value 2"),
            op("replace", "Patient.identifier[1].value", valueString="value 1"),
        ],
        {"identifier": identifiers(2, 1)},
    ),
    (
        "Add to list",
        {"identifier": identifiers(1, 2)},
        [op("insert", LIST, index=2, valueIdentifier=NEW)],
        {"identifier": identifiers(1, 2, 3)},
    ),
    (
        "Insert in list #1",
        {"identifier": identifiers(1, 2)},
        [op("insert", LIST, index=1, valueIdentifier=NEW)],
        {"identifier": identifiers(1, 3, 2)},
    ),
    (
        "Insert in list #2",
        {"identifier": identifiers(1, 2)},
        [op("insert", LIST, index=0, valueIdentifier=NEW)],
        {"identifier": identifiers(3, 1, 2)},
    ),
    *(
        (
            f"Delete from List #{place + 1}",
            {"identifier": identifiers(1, 2, 3)},
            [op("delete", f"Patient.identifier[{place}]")],
            {"identifier": identifiers(*(number for number in (1, 2, 3) if number != place + 1))},
        )
        for place in range(3)
    ),
    *(
        (
            f"Reorder List #{number}",
            {"identifier": identifiers(1, 2, 3, 4)},
            [op("move", LIST, source=source, destination=to) for source, to in moves],
            {"identifier": identifiers(*order)},
        )
        for number, moves, order in (
            (1, [(3, 1)], (1, 4, 2, 3)),
            (2, [(3, 0)], (4, 1, 2, 3)),
            (3, [(3, 2)], (1, 2, 4, 3)),
            (4, [(0, 3)], (2, 3, 4, 1)),
            (5, [(1, 0), (2, 1)], (2, 3, 1, 4)),
            (6, [(3, 0), (3, 1), (3, 2)], (4, 3, 2, 1)),
        )
    ),
    (
        "Operation on missing element #2",
        {},
        [op("add", "Patient", name="identifier", valueIdentifier=NEW)],
        {"identifier": identifiers(3)},
    ),
    # What R4's page says beyond the published cases.
    ("Nothing to delete", {"active": True}, [op("delete", "Patient.birthDate")], {"active": True}),
    (
        "A primitive's extensions go with it",
        {"name": [{"given": ["A", "B"], "_given": [None, {"id": "x"}]}]},
        [op("delete", "Patient.name.given[1]")],
        {"name": [{"given": ["A"]}]},
    ),
    (
        "A primitive's extensions move with it",
        {"name": [{"given": ["A", "B"], "_given": [None, {"id": "x"}]}]},
        [op("move", "Patient.name[0].given", source=1, destination=0)],
        {"name": [{"given": ["B", "A"], "_given": [{"id": "x"}, None]}]},
    ),
    (
        "An extension is added to a primitive",
        {"birthDate": "1920-01-01"},
        [op("add", "Patient.birthDate", name="extension", valueExtension={"url": "http://x", "valueString": "y"})],
        {"birthDate": "1920-01-01", "_birthDate": {"extension": [{"url": "http://x", "valueString": "y"}]}},
    ),
    (
        "A choice takes the name of its type",
        {"deceasedBoolean": True},
        [op("replace", "Patient.deceased", valueDateTime="2020-01-01")],
        {"deceasedDateTime": "2020-01-01"},
    ),
    (
        "A choice is added under the name of its type",
        {},
        [op("add", "Patient", name="multipleBirth", valueInteger=2)],
        {"multipleBirthInteger": 2},
    ),
    (
        "An extension named by its url",
        {"extension": [{"url": "http://a", "valueString": "1"}, {"url": "http://b", "valueString": "2"}]},
        [op("replace", "Patient.extension('http://b').value", valueString="3")],
        {"extension": [{"url": "http://a", "valueString": "1"}, {"url": "http://b", "valueString": "3"}]},
    ),
    (
        "One of several, by a condition",
        {"telecom": [{"system": "phone", "value": "1"}, {"system": "email", "value": "2"}]},
        [op("delete", "Patient.telecom.where(system = 'email' and value.exists())")],
        {"telecom": [{"system": "phone", "value": "1"}]},
    ),
]


@pytest.mark.parametrize(("name", "before", "operations", "after"), CASES, ids=[case[0] for case in CASES])
def test_the_published_cases(
    name: str, before: dict[str, Any], operations: list[dict[str, Any]], after: dict[str, Any]
) -> None:
    del name
    # Each identifier change is done on a tree without our own rule against it: that rule is tested below.
    tree = {"resourceType": "Patient", **copy.deepcopy(before)}
    kept = copy.deepcopy(tree)
    changed = read(parameters(*operations), Limits()).apply(tree)
    assert _without_empty(changed) == {"resourceType": "Patient", **after}
    assert tree == kept


def _without_empty(tree: dict[str, Any]) -> dict[str, Any]:
    from gateway.fhir.patch import _without_empty as prune

    return prune(tree)


REFUSED: list[tuple[dict[str, Any], dict[str, Any], type[GatewayError]]] = [
    # "Operation on missing element" of the published cases
    (
        {"identifier": [{"use": "official", "value": "123"}]},
        op("add", "Patient.identifier.where(use = 'official').period", name="end", valueDate="2021-12-01"),
        Conflict,
    ),
    ({}, op("replace", "Patient.birthDate", valueDate="2021-12-01"), Conflict),
    ({"telecom": [{"value": "1"}, {"value": "2"}]}, op("delete", "Patient.telecom"), Conflict),
    ({"birthDate": "1920-01-01"}, op("add", "Patient", name="birthDate", valueDate="1930-01-01"), Conflict),
    ({"telecom": [{"value": "1"}]}, op("insert", "Patient.telecom", index=2, valueContactPoint={}), Conflict),
    ({"telecom": [{"value": "1"}]}, op("move", "Patient.telecom", source=0, destination=1), Conflict),
    ({"birthDate": "1920-01-01"}, op("move", "Patient.birthDate", source=0, destination=0), Conflict),
    ({}, op("add", "Patient", name="inconnu", valueString="x"), InvalidContent),
    ({}, op("add", "Patient", name="birthDate"), InvalidContent),
    ({}, op("upsert", "Patient", name="birthDate", valueDate="1930-01-01"), InvalidContent),
    ({}, op("delete", "Patient.name.matches('(a+)+$')"), InvalidContent),
    ({}, op("delete", "Patient.name["), InvalidContent),
    ({}, op("delete", "Patient." + "name." * 2000), InvalidContent),
    ({}, op("delete", "Patient.where(" * 50 + "true" + ")" * 50), InvalidContent),
    ({}, op("delete", "'x'"), InvalidContent),
    ({}, {"name": "operation"}, InvalidContent),
    ({}, {"name": "autre", "part": []}, InvalidContent),
    ({}, {"name": "operation", "part": ["x"]}, InvalidContent),
]


@pytest.mark.parametrize(("before", "operation", "error"), REFUSED)
def test_what_cannot_be_done_is_refused_and_named(
    before: dict[str, Any], operation: dict[str, Any], error: type[GatewayError]
) -> None:
    tree = {"resourceType": "Patient", **before}
    kept = copy.deepcopy(tree)
    with pytest.raises(error) as refused:
        read(parameters(operation), Limits()).apply(tree)
    assert refused.value.expression == "Parameters.parameter[0]"
    assert tree == kept


@pytest.mark.parametrize(
    "operation",
    [
        op("replace", "Patient.id", valueId="autre"),
        op("replace", "Patient.meta.versionId", valueId="9"),
        op("replace", "Patient.meta.lastUpdated", valueInstant="2020-01-01T00:00:00Z"),
        op("replace", "Patient.identifier[0].value", valueString="autre"),
        op("delete", "Patient.identifier[0]"),
    ],
)
def test_what_identifies_a_resource_is_not_patched(operation: dict[str, Any]) -> None:
    tree = {
        "resourceType": "Patient",
        "id": "a",
        "meta": {"versionId": "1", "lastUpdated": "2026-01-01T00:00:00Z"},
        "identifier": [{"system": "http://x", "value": "1"}],
    }
    with pytest.raises(InvalidContent) as refused:
        patched(read(parameters(operation), Limits()), tree)
    assert (refused.value.code, refused.value.rule) == ("element-protege", True)


#: Paths that name the resource itself, whatever they are written as.
WHOLE = ("Patient", "Resource", "DomainResource", "$this", "(Patient)", "Patient.where(true)", "Patient.first()")


@pytest.mark.parametrize("path", WHOLE)
@pytest.mark.parametrize("operation", ["delete", "replace"])
def test_the_whole_is_neither_deleted_nor_replaced_by_a_patch(operation: str, path: str) -> None:
    value = {"resource": {"resourceType": "Patient"}} if operation == "replace" else {}
    asked = op(operation, path)
    asked["part"] += [{"name": "value", **value}] if value else []
    with pytest.raises(InvalidContent) as refused:
        read(parameters(asked), Limits()).apply({"resourceType": "Patient", "active": True})
    assert (refused.value.code, refused.value.rule) == ("patch-ressource-entiere", True)
    assert refused.value.expression == "Parameters.parameter[0]"


@pytest.mark.parametrize("path", WHOLE)
def test_what_has_no_place_in_a_list_is_neither_moved_nor_inserted_into(path: str) -> None:
    for asked in (op("move", path, source=0, destination=0), op("insert", path, index=0, valueString="x")):
        with pytest.raises(GatewayError) as refused:
            read(parameters(asked), Limits()).apply({"resourceType": "Patient", "active": True})
        assert refused.value.code in {"patch-cible", "patch-illisible"}


def test_an_element_that_is_moved_to_where_it_is_stays_there() -> None:
    tree = {"resourceType": "Patient", "name": [{"text": "a"}, {"text": "b"}]}
    same_place = read(parameters(op("move", "Patient.name", source=1, destination=1)), Limits())
    assert same_place.apply(tree) == tree


@pytest.mark.parametrize(
    "path", ["Patient.name", "Patient.name.given", "Patient.descendants()", "Patient.name.where(text.exists())"]
)
def test_one_operation_deletes_one_element(path: str) -> None:
    """ "Only a single element can be deleted" [FHIR R4 fhirpatch]."""
    tree = {"resourceType": "Patient", "name": [{"text": "a", "given": ["x"]}, {"text": "b", "given": ["y"]}]}
    with pytest.raises(GatewayError) as refused:
        read(parameters(op("delete", path)), Limits()).apply(tree)
    assert refused.value.code in {"patch-cible", "patch-illisible"}


@pytest.mark.parametrize(
    "operation",
    [
        op("delete", "Patient.id"),
        op("delete", "Patient.meta"),
        op("delete", "Patient.meta.versionId"),
        op("delete", "Patient.meta.lastUpdated"),
        op("add", "Patient.identifier[0]", name="period", valuePeriod={"start": "2020"}),
        op("insert", "Patient.identifier", index=0, valueIdentifier={"system": "http://x", "value": "2"}),
    ],
)
def test_what_the_server_says_of_a_resource_is_not_taken_away(operation: dict[str, Any]) -> None:
    tree = {
        "resourceType": "Patient",
        "id": "a",
        "meta": {"versionId": "1", "lastUpdated": "2026-01-01T00:00:00Z"},
        "identifier": [{"system": "http://x", "value": "1"}],
    }
    with pytest.raises(InvalidContent) as refused:
        patched(read(parameters(operation), Limits()), tree)
    assert (refused.value.code, refused.value.rule) == ("element-protege", True)


#: Conditions of two thousand characters that look at each of many elements again and again.
HUNGRY = {
    "names": "name.given.exists() or " * 80 + "true",
    "comparisons": "$this = $this and " * 100 + "true",
    "literals": "true or " * 200 + "true",
    "functions": "$this" + ".where(true)" * 150 + ".exists()",
    "nested": "name.where(given.where(" + "$this = 'a' or " * 100 + "true).exists()).exists()",
    "extensions": "extension('x').exists() or " * 60 + "true",
}


@pytest.mark.parametrize("condition", HUNGRY.values(), ids=HUNGRY.keys())
def test_what_a_path_walks_over_and_compares_is_bounded_by_name(condition: str) -> None:
    limits = Limits(json_nodes=2_000)
    tree = {"resourceType": "Patient", "contact": [{"name": {"family": "x", "given": ["a", "b"]}} for _ in range(300)]}
    plain = op("delete", "Patient.contact.where(name.family = 'y')")
    assert read(parameters(plain), limits).apply(tree) == tree
    hungry = op("delete", f"Patient.contact.where(({condition}) = false)")
    with pytest.raises(InvalidContent, match="RCP_LIMIT_JSON_NODES") as refused:
        read(parameters(*[hungry] * 10), limits).apply(tree)
    assert refused.value.code == "patch-demesure"


def test_values_put_into_values_are_bounded_by_name() -> None:
    deep: dict[str, Any] = {"url": "http://x", "valueString": "x"}
    for _ in range(20):
        deep = {"url": "http://x", "extension": [deep]}
    path = "Patient" + ".extension[0]" * 20
    asked = [
        op("add", "Patient", name="extension", valueExtension=deep),
        op("add", path, name="extension", valueExtension=deep),
    ]
    with pytest.raises(InvalidContent, match="RCP_LIMIT_JSON_DEPTH"):
        read(parameters(*asked), Limits()).apply({"resourceType": "Patient"})


def test_more_operations_than_the_limit_are_refused_by_its_name() -> None:
    with pytest.raises(InvalidContent, match="RCP_LIMIT_PATCH_OPERATIONS"):
        read(parameters(*[op("delete", "Patient.name")] * 3), Limits(patch_operations=2))
