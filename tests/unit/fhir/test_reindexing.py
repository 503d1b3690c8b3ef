"""A new parameter is one line and a reindex; a reindex that is killed goes on, and writers lose nothing meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, select, text, true, update
from sqlalchemy.exc import OperationalError

from gateway.errors import Conflict
from gateway.fhir import document, keeping
from gateway.fhir.reindexing import reindex
from gateway.fhir.search_columns import extract
from gateway.fhir.search_conditions import condition
from gateway.model.representation import INDEXED, TABLES, stale
from gateway.model.store import Store

ROOT = Path(__file__).parents[3]


def _patient(identity: str, family: str) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": identity, "name": [{"family": family}]}


def _keep(store: Store, tree: dict[str, Any]) -> None:
    with store.session() as session:
        keeping.keep(session, tree["resourceType"], tree["id"], tree, keeping.Owner(public=True))
        session.commit()


def _found(store: Store, kind: str, name: str, value: str) -> set[str]:
    table = TABLES[kind]
    wanted = condition(kind, name, value, lambda _kind, _table: true())
    assert wanted is not None
    with store.session() as session:
        return set(session.scalars(select(table.c.id).where(table.c.current, wanted)))


def _forget(store: Store, table: Table) -> None:
    """What a row looks like that came before its columns did."""
    with store.engine.begin() as connection:
        connection.execute(update(table).values(terms=[], words=[], nodes=None))


@pytest.fixture
def patients(store: Store) -> int:
    for number in range(25):
        _keep(store, _patient(f"p{number:02}", f"Nom{number}"))
    _forget(store, TABLES["Patient"])
    return 25


def test_rows_are_found_again(store: Store, patients: int) -> None:
    assert _found(store, "Patient", "family", "nom7") == set()
    heard: list[tuple[str, int, int]] = []
    assert reindex(store, told=lambda *more: heard.append(more), batch=10) == patients
    assert _found(store, "Patient", "family", "nom7") == {"p07"}
    assert heard == [("Patient", 10, 25), ("Patient", 20, 25), ("Patient", 25, 25)]
    with store.engine.connect() as connection:
        assert stale(connection) == []


class Killed(BaseException):
    """The process ends here."""


def test_a_run_that_is_killed_goes_on_where_it_was(store: Store, patients: int) -> None:
    _keep(store, {"resourceType": "Basic", "id": "b", "code": {"text": "x"}})

    def killed(kind: str, done: int, _total: int) -> None:
        if (kind, done) == ("Patient", 20):
            raise Killed

    with pytest.raises(Killed):
        reindex(store, told=killed, batch=10)
    with store.engine.connect() as connection:
        assert connection.scalar(select(INDEXED.c.done_to).where(INDEXED.c.type == "Patient")) == "p19"
        assert set(stale(connection)) >= {"Patient", "Basic"}
    assert _found(store, "Patient", "family", "nom") == {f"p{number:02}" for number in range(20)}
    # The five that are left, and the types behind.
    assert reindex(store, batch=10) == 5 + 1
    assert _found(store, "Patient", "family", "nom") == {f"p{number:02}" for number in range(patients)}
    # A run that ended begins again.
    assert reindex(store) == patients + 1


def test_another_table_of_parameters_begins_again(store: Store, patients: int) -> None:
    with store.engine.begin() as connection:
        connection.execute(text("DELETE FROM search_index"))
        connection.execute(text("INSERT INTO search_index VALUES ('Patient', 'another', 'p20')"))
    assert reindex(store) == patients


def test_one_at_a_time(store: Store, patients: int) -> None:
    def again(_kind: str, _done: int, _total: int) -> None:
        with pytest.raises(Conflict, match="réindexation"):
            reindex(store)

    assert reindex(store, told=again) == patients


def test_writers_lose_nothing(store: Store, patients: int) -> None:
    """Each resource is changed again and again while all are extracted again and again."""
    stop = threading.Event()
    failed: list[BaseException] = []
    last: dict[str, str] = {}

    def write(part: int) -> None:
        turn = 0
        try:
            while not stop.is_set():
                turn += 1
                for number in range(part, patients, 3):
                    family = f"Tour{turn}x{number}"
                    _keep(store, _patient(f"p{number:02}", family))
                    last[f"p{number:02}"] = family
        except BaseException as error:  # noqa: BLE001 - told to the test
            failed.append(error)

    writers = [threading.Thread(target=write, args=(part,)) for part in range(3)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(6):
            assert reindex(store, batch=7) > 0
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert failed == []
    table = TABLES["Patient"]
    with store.session() as session:
        rows = session.execute(select(table).where(table.c.current)).all()
    assert len(rows) == patients
    for row in rows:
        assert document.parse(row.body)["name"] == [{"family": last[row.id]}]
        expected = extract(document.parse(row.body))
        assert row.terms == expected["terms"]
    for identity, family in last.items():
        assert _found(store, "Patient", "family:exact", family) == {identity}


def test_a_deadlock_with_a_writer_is_tried_again(store: Store, patients: int) -> None:
    """A writer that holds the second row and wants the first, against a batch that holds the first."""
    table = TABLES["Patient"]
    held, seen = threading.Event(), threading.Event()

    def write() -> None:
        # Which of the two the server lets go is its choice: the writer would be run again by its step.
        with suppress(OperationalError), store.engine.connect() as connection:
            connection.execute(select(table.c.id).where(table.c.id == "p09").with_for_update())
            held.set()
            seen.wait(60)
            connection.execute(select(table.c.id).where(table.c.id == "p00").with_for_update())
            connection.commit()

    real = keeping.columns

    def slow(tree: dict[str, Any]) -> dict[str, Any]:
        if tree["id"] == "p05":
            seen.set()
        return real(tree)

    writer = threading.Thread(target=write)
    writer.start()
    held.wait(60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.fhir.reindexing.columns", slow)
        assert reindex(store) == patients
    writer.join()
    assert _found(store, "Patient", "family", "nom9") == {"p09"}


_ASK = """
import sys
from sqlalchemy import select, true
from gateway.fhir.search_conditions import condition
from gateway.model.representation import TABLES
from gateway.model.store import Store

table, store = TABLES["Patient"], Store(sys.argv[1])
for pair in sys.argv[2:]:
    name, _, value = pair.partition("=")
    with store.session() as session:
        found = condition("Patient", name, value, lambda kind, table: true())
        print(*session.scalars(select(table.c.id).where(table.c.current, found).order_by(table.c.id)))
"""


def test_a_new_parameter_is_one_line_and_a_reindex(store: Store, database_url: str, tmp_path: Path) -> None:
    """The program with one line more in its table, started as an operator starts it."""
    _keep(store, {"resourceType": "Patient", "id": "twin", "multipleBirthInteger": 2, "photo": [{"title": "Été"}]})
    _keep(store, {"resourceType": "Patient", "id": "single", "multipleBirthBoolean": False, "birthDate": "1980"})
    shutil.copytree(ROOT / "gateway", tmp_path / "gateway", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "mappings", tmp_path / "mappings")
    table = tmp_path / "mappings" / "fhir-search.json"
    lines = json.loads(table.read_bytes())
    lines["parameters"] += [
        {"type": "Patient", "code": "twin", "kind": "token", "expression": "Patient.multipleBirth.as(boolean)"},
        {"type": "Patient", "code": "rank", "kind": "number", "expression": "Patient.multipleBirth.as(integer)"},
        {"type": "Patient", "code": "photo-title", "kind": "string", "expression": "Patient.photo.title"},
    ]
    table.write_text(json.dumps(lines))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RCP_")},
        "PYTHONPATH": str(tmp_path),
        "RCP_DATABASE_URL": database_url,
        "RCP_DATA_DIR": str(tmp_path / "data"),
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=60
        )

    with store.engine.connect() as connection:
        before = set(connection.scalars(_COLUMNS))
    early = run("-m", "gateway", "plan", "--dry-run")
    assert (early.returncode, "rcp-gateway reindex" in early.stderr + early.stdout) == (1, True)
    done = run("-m", "gateway", "reindex")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "2 représentations réindexées."), done.stderr
    assert "Patient : 2 sur 2" in done.stderr
    answers = run("-c", _ASK, database_url, "twin=false", "rank=2", "rank=lt2", "photo-title=ete", "birthdate=1980")
    assert answers.stdout.splitlines() == ["single", "twin", "", "twin", "single"], answers.stderr
    with store.engine.connect() as connection:
        assert set(connection.scalars(_COLUMNS)) - before == {"p_rank"}


_COLUMNS = text("SELECT column_name FROM information_schema.columns WHERE table_name = 'fhir_patient'")
