"""Whatever a resource holds can be indexed; whatever is asked, the database answers or the gateway refuses by name."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, true

from gateway.errors import InvalidContent
from gateway.fhir import keeping
from gateway.fhir.search_columns import RANGED, extract, parameters, types
from gateway.fhir.search_conditions import MODIFIERS, PREFIXES, condition, sort_key
from gateway.model.representation import TABLES
from gateway.model.store import Store
from tests.fhir_resources import resources

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
_KINDS = st.sampled_from([kind for kind in types() if kind != "Binary"])

# Text that has broken something somewhere: signs of our own entries, of SQL, of tsquery, of LIKE, of FHIR's escapes.
_SIGNS = r"""
' '' \ \\ \, , | || a| |a $ $$ % _ :* !a a&b ( <-> ~abc !family 1e9999999 -0 1e-999 0001-01-01 9999-12-31 2024-02-30 NaN
infinity Patient/ /x # urn:uuid: {} [] a'b\ \'
"""
_BROKEN = [
    *_SIGNS.split(),
    "",
    "\x1e",
    "\x1f",
    "é" * 300,
    "x" * 5000,
    "'" * 200,
    "\\" * 151,
    "\U0001f600",
    "a" * 255 + "é",
]
_TEXTS = st.one_of(st.text(max_size=30), st.sampled_from(_BROKEN))
_LEAVES = st.one_of(_TEXTS, st.none(), st.booleans(), st.integers(), st.decimals(), st.floats(allow_nan=False))
_WORDS = """
system code value coding text display reference identifier type start end event repeat boundsPeriod low high origin
family given line unit comparator url extension
"""
_NAMES = st.sampled_from(_WORDS.split())
_TREES = st.recursive(
    _LEAVES,
    lambda below: st.one_of(st.lists(below, max_size=3), st.dictionaries(_NAMES, below, max_size=5)),
    max_leaves=12,
)


@st.composite
def _hostile(draw: st.DrawFn) -> dict[str, Any]:
    """A tree that no judge let in, under the very names that the parameters look at."""
    kind = draw(_KINDS)
    names = sorted({re.split("[. ]", one.expression.strip("(") + ".meta")[1] for one in parameters(kind).values()})
    suffixes = st.sampled_from(
        ["", "", "", "Boolean", "DateTime", "Quantity", "CodeableConcept", "Reference", "Period"]
    )
    tree = draw(st.dictionaries(st.builds(str.__add__, st.sampled_from(names), suffixes), _TREES, max_size=6))
    return {**tree, "resourceType": kind}


@SLOW
@given(_hostile())
@example({"resourceType": "Observation", "valueQuantity": {"value": "1e99999"}})
def test_extraction_never_raises(tree: dict[str, Any]) -> None:
    found = extract(tree)
    assert all(isinstance(text, str) for text in [*found["terms"], *found["words"]])


@SLOW
@given(tree=_hostile())
def test_whatever_was_extracted_is_taken_by_the_database(store: Store, tree: dict[str, Any]) -> None:
    table = TABLES[tree["resourceType"]]
    with store.engine.begin() as connection:
        # Lone surrogates are no text of any JSON that is read from bytes.
        if any(0xD800 <= ord(char) <= 0xDFFF for text in extract(tree)["terms"] for char in text):
            return
        connection.execute(table.insert().values(id="x", version=1, body=b"{}", **keeping.columns(tree)))
        connection.execute(delete(table))


@settings(SLOW, max_examples=25)
@given(tree=_KINDS.flatmap(resources))
def test_a_generated_resource_is_found_by_all_that_was_extracted_of_it(store: Store, tree: dict[str, Any]) -> None:
    """``:missing`` splits every resource; what says something is found by it."""
    kind = tree["resourceType"]
    table = TABLES[kind]
    with store.session() as session:
        session.execute(table.insert().values(id="x", version=1, body=b"{}", current=True, **keeping.columns(tree)))
        for code, parameter in parameters(kind).items():
            if parameter.kind == "composite":
                continue
            answers = [
                session.scalars(select(table.c.id).where(_condition(kind, f"{code}:missing", value))).all()
                for value in ("true", "false")
            ]
            assert sorted(answers) == [[], ["x"]], code
            key = sort_key(kind, code)
            assert key is not None
            session.execute(select(table.c.id, key)).all()


def _condition(kind: str, name: str, value: str) -> Any:
    found = condition(kind, name, value, lambda _kind, _table: true())
    assert found is not None
    return found


@st.composite
def _asked(draw: st.DrawFn) -> tuple[str, str, str]:
    kind = draw(_KINDS)
    names = []
    at: str | None = kind
    while at is not None:
        code = draw(st.sampled_from([*parameters(at), "_id", "_lastUpdated"]))
        parameter = parameters(at).get(code)
        at = None
        if parameter is not None and parameter.kind == "reference" and draw(st.booleans()) and len(names) < 4:
            at = draw(st.sampled_from([one for one in parameter.targets if one in TABLES] or [kind]))
            code += draw(st.sampled_from(["", f":{at}"]))
        elif draw(st.booleans()):
            offered = MODIFIERS[parameter.kind] if parameter is not None else ()
            code += ":" + draw(st.sampled_from([*offered, "above", "Patient", "", "x" * 40, "é"]))
        names.append(code)
    value = draw(_TEXTS)
    if parameter is not None and parameter.kind in RANGED:
        plain = st.sampled_from(
            ["2024", "2024-05", "2024-05-06", "2024-05-06T10:00", "5.4", "1e2", "-3", "5|urn:u|mg", "5||mg"]
        )
        value = draw(st.sampled_from(["", *PREFIXES])) + draw(st.one_of(plain, _TEXTS))
    return kind, ".".join(names), value


@SLOW
@given(asked=_asked())
@example(asked=("Patient", "family", "\\"))
@example(asked=("Patient", "family", "a'b\\"))
@example(asked=("Patient", "identifier", "\\|"))
@example(asked=("Observation", "code-value-quantity", "\\$$"))
@example(asked=("Observation", "date", "ap0001"))
@example(asked=("Observation", "date", "ne9999-12-31"))
@example(asked=("Patient", "_lastUpdated", "ap0002"))
def test_any_question_is_answered_or_refused_by_name(store: Store, asked: tuple[str, str, str]) -> None:
    kind, name, value = asked
    found, refused = _answered(kind, name, value)
    assert refused in {None, *_REFUSALS}
    if found is not None and "\x00" not in value:
        with store.session() as session:
            session.execute(select(TABLES[kind].c.id).where(found)).all()


_REFUSED = """
parametre-valeur parametre-modificateur parametre-inconnu trop-de-parametres chaine-trop-longue chaine-trop-large
"""
_REFUSALS = _REFUSED.split()


def _answered(kind: str, name: str, value: str) -> tuple[Any, str | None]:
    try:
        return condition(kind, name, value, lambda _kind, _table: true()), None
    except InvalidContent as refusal:
        return None, refusal.code


@SLOW
@given(name=st.text(max_size=40), value=st.text(max_size=20))
@example(name="_has:", value="x")
@example(name="_has:Patient:link:", value="x")
@example(name=".", value="x")
@example(name="family.", value="x")
@example(name="link..", value="x")
def test_any_name_is_unknown_or_refused(store: Store, name: str, value: str) -> None:
    found, refused = _answered("Patient", name, value)
    assert refused in {None, *_REFUSALS}
    if found is not None:
        with store.session() as session:
            session.execute(select(TABLES["Patient"].c.id).where(found)).all()


@pytest.mark.parametrize("text", ["x" * 20000, "é" * 20000, "a b " * 5000])
def test_long_texts_are_found_by_their_beginning_and_as_a_whole(store: Store, text: str) -> None:
    tree = {"resourceType": "Composition", "id": "x", "title": text, "identifier": {"system": text, "value": text}}
    table = TABLES["Composition"]
    with store.session() as session:
        session.execute(table.insert().values(id="x", version=1, body=b"{}", **keeping.columns(tree)))
        for name, value in [
            ("title", text[:40]), ("title", text), ("title:exact", text), ("title:contains", text[3:30]),
            ("identifier", text), ("identifier", f"{text}|{text}"), ("identifier", f"{text}|"),
        ]:  # fmt: skip
            assert session.scalars(select(table.c.id).where(_condition("Composition", name, value))).all() == ["x"], (
                name
            )
        assert not session.scalars(select(table.c.id).where(_condition("Composition", "title:exact", text + "x"))).all()


def test_a_resource_of_very_many_texts_is_indexed_as_far_as_it_goes(store: Store) -> None:
    """A ``tsvector`` ends at one megabyte; what goes beyond is not found by its beginning, and breaks nothing."""
    names = [{"family": f"{number:05} " + "漢" * 240} for number in range(3000)]
    tree = {"resourceType": "Patient", "id": "x", "name": names, "identifier": [{"value": str(n)} for n in range(9000)]}
    table = TABLES["Patient"]
    with store.session() as session:
        session.execute(table.insert().values(id="x", version=1, body=b"{}", **keeping.columns(tree)))
        for name, value in [("family", "00000 漢"), ("family:exact", names[-1]["family"]), ("identifier", "8999")]:
            assert session.scalars(select(table.c.id).where(_condition("Patient", name, value))).all() == ["x"], name
