"""EXPLAIN: no parameter that is declared, no modifier and no prefix that is offered reads a table from end to end.

Each type's table is filled with some thousand rows, once such that each says nearly everything, once such that few say
anything, because what a question finds must be rare for an index to be worth its while: ``:missing=true`` in the first,
``:missing=false`` and ``ne`` in the second. Statistics are fresh; no plan is forbidden to the planner.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import psycopg
import pytest
from sqlalchemy import Connection, Executable, select
from sqlalchemy.dialects import postgresql

from gateway.fhir.paging import first_page
from gateway.fhir.search import parse
from gateway.fhir.search_canonicals import named_by, names
from gateway.fhir.search_columns import RANGED, Parameter, parameters, types
from gateway.fhir.search_conditions import MODIFIERS, PREFIXES, condition
from gateway.identifiers import uuid7
from gateway.model.representation import TABLES, align
from gateway.model.store import Store
from gateway.rcp import access
from gateway.rcp.access import Caller, CallerKind

ROWS = 2000
#: Each value stands in some rows.
VALUES = 400
#: Whose predicate has every alternative: software of an establishment that runs an RCP.
CLIENT = Caller(kind=CallerKind.CLIENT, partner_id=uuid7(), rcps=frozenset({uuid7()}))


_DAY = "('2000-01-01Z'::timestamptz + i * '1 day'::interval)"


def _fill(connection: Connection, kind: str, *, one_in: int) -> None:
    """Rows of which one in so many says something, each something else."""
    table = TABLES[kind]
    arrays = [f"'~' || substr(w, {place}, 3)" for place in range(1, 7)]
    ranges: dict[str, str] = {}
    words, nodes = [], []
    for number, (code, one) in enumerate(parameters(kind).items()):
        # In the full filling each parameter is missing here and there.
        said = f"CASE WHEN (i + {number}) % 97 = 0 THEN '!{code}' ELSE '{code}' END" if one_in == 1 else f"'{code}'"
        if one.kind != "composite":
            arrays.append(said)
        if one.kind in {"token", "reference"}:
            by = f"{code}:identifier" if one.kind == "reference" else code
            system = f"'{by}\x1furn:s' || v || '\x1f'"
            arrays += [f"{system} || 'v' || v", system, f"'{by}\x1ev' || v", f"'{by}\x1f\x1fn' || v"]
        if one.kind == "token":
            arrays.append(f"'{code}:of-type\x1furn:t\x1fMR\x1fv' || v")
            words.append(f"'{code}:text\x1f' || w")
        if one.kind == "reference":
            target = next((name for name in one.targets if name in TABLES), kind)
            arrays += [f"'{one.code}\x1f{target}/p' || v", f"'{one.code}\x1fhttp://other.example/' || v"]
        if one.kind == "uri":
            arrays.append(f"'{code}\x1furn:u:' || v")
        if one.kind == "string":
            arrays.append(f"'{code}\x1f' || w")
            words.append(f"'{code}\x1f' || w")
        if one.kind == "date":
            ranges[one.column] = f"tstzrange({_DAY}, {_DAY} + '1 day'::interval)"
        elif one.kind in RANGED:
            ranges[one.column] = "numrange(i, i, '[]')"
            if one.kind == "quantity":
                pair = "jsonb_build_array('[' || i || ',' || i || ']', jsonb_build_array('\x1emg'))"
                nodes.append(f"'{code}', jsonb_build_array({pair})")
    says = f"i % {one_in} = 0"
    silent = ", ".join(f"'!{code}'" for code in parameters(kind))
    values = {
        "id": "'p' || i",
        "version": "1",
        "body": "decode(repeat(md5(i::text), 20), 'hex')",
        "current": "true",
        "deleted": "false",
        "public": "i % 2 = 0",
        "partner_id": f"CASE WHEN i % 3 = 0 THEN '{CLIENT.partner_id}'::uuid END",
        "updated_at": _DAY,
        "terms": f"CASE WHEN {says} THEN ARRAY[{', '.join(arrays)}] ELSE ARRAY[{silent}] END",
        "words": f"CASE WHEN {says} THEN array_to_tsvector(ARRAY[{', '.join(words)}]::text[]) ELSE '' END",
        "nodes": f"CASE WHEN {says} THEN jsonb_build_object({', '.join(nodes)}) END" if nodes else "NULL",
        **{column: f"CASE WHEN {says} THEN {value} END" for column, value in ranges.items()},
    }
    index = f"ix_{table.name}_search"
    made = connection.exec_driver_sql(f"SELECT indexdef FROM pg_indexes WHERE indexname = '{index}'").scalar_one()
    connection.exec_driver_sql(f"TRUNCATE {table.name}; DROP INDEX {index}")
    columns, expressions = ", ".join(values), ", ".join(values.values()).replace("%", "%%")
    connection.exec_driver_sql(
        f"INSERT INTO {table.name} ({columns}) SELECT {expressions} "
        f"FROM (SELECT i, i %% {VALUES} AS v, substr(md5((i %% {VALUES})::text), 1, 8) AS w"
        f" FROM generate_series(1, {ROWS}) AS i) AS one",
        (),
    )
    # One index made of all rows is quicker than all rows put into one index.
    connection.exec_driver_sql(f"{made}; ANALYZE {table.name}")


def _visible(_kind: str, table: Any) -> Any:
    return access.representations(CLIENT, table)


def _planned(connection: Connection, *statements: Executable) -> list[list[dict[str, Any]]]:
    """Nodes of the plan of each statement, from its top."""
    driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
    # Some thousand plans: asked together, each does not wait for the answer to the one before.
    with driver.pipeline():
        asked = []
        for statement in statements:
            compiled = statement.compile(dialect=postgresql.dialect(paramstyle="pyformat"))
            change = compiled._bind_processors
            values = {name: change[name](one) if name in change else one for name, one in compiled.params.items()}
            asked.append(driver.execute(f"EXPLAIN (FORMAT JSON) {compiled}", values, prepare=False))
        plans = [cursor.fetchone() for cursor in asked]

    def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield node
        for below in node.get("Plans", ()):
            yield from nodes(below)

    return [list(nodes(plan[0][0]["Plan"])) for plan in plans]


def _scanned(connection: Connection, *statements: Executable) -> list[set[str]]:
    """Tables that each statement reads from end to end."""
    return [
        {one["Relation Name"] for one in plan if one["Node Type"] == "Seq Scan"}
        for plan in _planned(connection, *statements)
    ]


def _slow(connection: Connection, name: str, asked: dict[str, Executable]) -> list[str]:
    """Which questions read the table of this name from end to end."""
    found = _scanned(connection, *asked.values())
    return [pair for pair, scanned in zip(asked, found, strict=True) if name in scanned]


def _matches(kind: str, pair: str) -> Any:
    table = TABLES[kind]
    name, _, value = pair.partition("=")
    found = condition(kind, name, value, _visible)
    assert found is not None, pair
    return select(table.c.id).where(table.c.current, ~table.c.deleted, _visible(kind, table), found)


_WORD = "c4ca4238"  # md5 of "1"
_FIRST, _LAST = "2000-01-03", "2005-06-20"


def _rare(one: Parameter, kind: str) -> Iterator[str]:
    """Questions that find little where every row says something else."""
    code = one.code
    if one.kind != "composite":
        yield f"{code}:missing=true"
    if one.kind == "token":
        yield from (f"{code}={value}" for value in ("v7", "urn:s7|v7", "|n7", "urn:s7|", "v7,v8,urn:s9|v9"))
        yield f"{code}:text={_WORD[:5]}"
        yield f"{code}:of-type=urn:t|MR|v7"
    elif one.kind == "reference":
        target = next((name for name in one.targets if name in TABLES), kind)
        yield from (f"{code}={value}" for value in ("p7", f"{target}/p7", "http://other.example/7", "p7,p8"))
        yield f"{code}:identifier=urn:s7|v7"
        if target in one.targets:
            yield f"{code}:{target}=p7"
    elif one.kind == "uri":
        yield f"{code}=urn:u:7"
    elif one.kind == "string":
        yield from (f"{code}={_WORD[:5]}", f"{code}:exact={_WORD}", f"{code}:contains={_WORD[1:6]}")
    elif one.kind in RANGED:
        low, high = (_FIRST, _LAST) if one.kind == "date" else ("3", str(ROWS - 5))
        yield f"{code}={low}"
        yield from (f"{code}={prefix}{high}" for prefix in ("gt", "ge", "sa"))
        yield from (f"{code}={prefix}{low}" for prefix in ("lt", "le", "eb", "eq"))
        # A tenth of the way to now: near the end of what is filled that is much; of a number it is little.
        yield f"{code}=ap{'1900-01-01,ap2200' if one.kind == 'date' else low}"
        if one.kind == "quantity":
            yield from (f"{code}={low}||mg", f"{code}=gt{high}||mg")
    else:
        sides = {"token": "v7", "quantity": "7", "string": _WORD, "date": _FIRST, "reference": "p7"}
        yield f"{code}=" + "$".join(sides[side.kind] for side in one.components)


@pytest.fixture(params=types())
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_no_question_of_any_parameter_scans_the_table(store: Store, kind: str) -> None:
    """Nor do ``:not`` and ``:contains`` of a letter, which ask for nearly everything: a page is found in its order."""
    table = TABLES[kind]
    asked = [question for one in parameters(kind).values() for question in _rare(one, kind)]
    asked += ["_id=p7", "_id=p7,p8", f"_lastUpdated={_FIRST}", f"_lastUpdated=lt{_FIRST}", f"_lastUpdated=sa{_LAST}"]
    walked = [f"{code}:not=v7" for code, one in parameters(kind).items() if one.kind == "token"]
    walked += [f"{code}:contains=a" for code, one in parameters(kind).items() if one.kind == "string"]
    with store.engine.connect() as connection:
        _fill(connection, kind, one_in=1)
        pages = {pair: _matches(kind, pair).order_by(table.c.id).limit(51) for pair in walked}
        slow = _slow(connection, table.name, {pair: _matches(kind, pair) for pair in asked} | pages)
        connection.rollback()
    assert len(asked) > 20
    assert slow == []


def test_what_asks_for_what_few_say_does_not_scan_the_table_either(store: Store, kind: str) -> None:
    name = TABLES[kind].name
    with store.engine.connect() as connection:
        _fill(connection, kind, one_in=100)
        asked = [f"{code}:missing=false" for code, one in parameters(kind).items() if one.kind != "composite"]
        for code, one in parameters(kind).items():
            if one.kind in RANGED:
                asked.append(f"{code}=ne{_FIRST if one.kind == 'date' else 3}")
        slow = _slow(connection, name, {pair: _matches(kind, pair) for pair in asked})
        connection.rollback()
    assert slow == []


def test_every_modifier_and_prefix_is_asked_above() -> None:
    asked = {one.kind: [] for kind in types() for one in parameters(kind).values()}
    for kind in types():
        for one in parameters(kind).values():
            asked[one.kind] += [question.removeprefix(one.code) for question in _rare(one, kind)]
    for kind, questions in asked.items():
        for modifier in set(MODIFIERS[kind]) - {"not"}:
            assert any(question.startswith(f":{modifier}=") for question in questions), (kind, modifier)
        if kind in RANGED:
            for prefix in set(PREFIXES) - {"ne"}:
                assert any(question.startswith(f"={prefix}") for question in questions), (kind, prefix)


def test_what_follows_references_scans_no_table(store: Store) -> None:
    asked = [
        ("Observation", "patient.identifier=v7"),
        ("Observation", "patient:Patient.family=" + _WORD[:5]),
        ("Observation", "patient.link:Patient.identifier=v7"),
        ("Patient", "_has:Observation:patient:code=v7"),
        ("Patient", "_has:Observation:patient:performer:Organization.identifier=v7"),
        ("Patient", "_has:Observation:patient:_has:Observation:derived-from:code=v7"),
        ("QuestionnaireResponse", "questionnaire.publisher=" + _WORD[:5]),
        ("Questionnaire", "_has:QuestionnaireResponse:questionnaire:status=v7"),
    ]
    filled = ("Patient", "Observation", "Organization", "Questionnaire", "QuestionnaireResponse")
    with store.engine.connect() as connection:
        for kind in filled:
            _fill(connection, kind, one_in=1)
        # What includes by canonical look for, and what they read of a page's rows, besides.
        table = TABLES["Questionnaire"]
        included = select(table.c.id).where(table.c.current, named_by("Questionnaire", ["urn:u:7|", "urn:u:8|v8"]))
        called = select(names("Questionnaire")).where(table.c.current, table.c.id == "p7")
        asked += [("Questionnaire", "_include"), ("Questionnaire", "_revinclude")]
        statements = [_matches(kind, pair) for kind, pair in asked[:-2]] + [included, called]
        scanned = _scanned(connection, *statements)
        connection.rollback()
    # A table of nothing may be scanned.
    large = {TABLES[kind].name for kind in filled}
    assert [(pair, tables) for pair, tables in zip(asked, scanned, strict=True) if tables & large] == []


def test_an_order_without_a_condition_walks_an_index_or_keeps_one_page(store: Store, kind: str) -> None:
    """By id and by instant a page is found in its order. By what a resource says, all that the caller may see is read
    once and no more than a page of it kept (a top-N sort, nothing on disk): that ends at ``RCP_LIMIT_SEARCH_SECONDS``.
    """
    table = TABLES[kind]

    def page(sort: str) -> Executable:
        query = parse(kind, [("_sort", sort)], visible=_visible, strict=True)
        return first_page(table, [table.c.id, table.c.body], [_visible(kind, table)], query.keys, 51)

    walked = ["_id", "-_id", "_lastUpdated", "-_lastUpdated"]
    said = [sign + code for code, one in parameters(kind).items() if one.kind != "composite" for sign in ("", "-")]
    with store.engine.connect() as connection:
        _fill(connection, kind, one_in=1)
        plans = dict(zip(walked + said, _planned(connection, *map(page, walked + said)), strict=True))
        connection.rollback()
    for sort, plan in plans.items():
        # The access predicate asks indexes for each row, of this table too.
        reads = [one for one in plan if one["Node Type"] == "Seq Scan" and one["Relation Name"] == table.name]
        sorts = [one for one in plan if one["Node Type"] == "Sort"]
        assert plan[0]["Node Type"] == "Limit", sort
        assert (len(reads), len(sorts)) == (0, 0) if sort in walked else len(reads) <= 1, sort


def test_a_statement_without_an_index_is_seen(store: Store) -> None:
    """The test itself: what nothing looks up is found to scan."""
    table = TABLES["Patient"]
    with store.engine.connect() as connection:
        _fill(connection, "Patient", one_in=1)
        scanned = _scanned(connection, select(table.c.id).where(table.c.network_id.is_not(None)))
        connection.rollback()
    assert scanned == [{"fhir_patient"}]


def test_an_index_that_is_gone_is_made_again_as_it_was(store: Store) -> None:
    """By what keeps a database in line with the table of parameters."""
    said = "SELECT indexdef FROM pg_indexes WHERE indexname = 'ix_fhir_patient_search'"
    with store.engine.connect() as connection:
        before = connection.exec_driver_sql(said).scalar_one()
        connection.exec_driver_sql("DROP INDEX ix_fhir_patient_search")
        assert align(connection) == ["ix_fhir_patient_search"]
        assert connection.exec_driver_sql(said).scalar_one() == before
        assert align(connection) == []
        connection.rollback()
