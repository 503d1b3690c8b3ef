"""``rcp-gateway import-annuaire``: statuses, sentences, progress, and the order of files."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.__main__ import cli
from gateway.app.import_annuaire import Progress
from gateway.errors import GatewayError

SAMPLES = Path(__file__).parents[1] / "annuaire"
PEOPLE = SAMPLES / "PS_LibreAcces_Personne_activite_202609020800.sample.txt"
BOXES = SAMPLES / "Extraction_Correspondance_MSSante_202609020800.sample.txt"


@pytest.fixture
def run(database_url, tmp_path, monkeypatch):
    """Run the command on this test's database."""
    for name in [name for name in os.environ if name.startswith("RCP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RCP_DATA_DIR", str(tmp_path / "donnees"))
    monkeypatch.setenv("RCP_DATABASE_URL", database_url)
    monkeypatch.setenv("RCP_LOG_LEVEL", "error")
    return lambda *arguments: CliRunner().invoke(cli, ["import-annuaire", *map(str, arguments)])


def test_files_are_imported_practices_first_and_twice_is_no_error(run, store):
    told = run(BOXES, PEOPLE)
    assert told.exit_code == 0, told.output
    lines = [line for line in told.output.splitlines() if " : " in line]
    assert [line.split("_")[0] for line in lines] == ["PS", "Extraction"]
    assert "2 lignes appliquées au 2026-09-02, 0 mal formées" in lines[0]
    with store.session() as session:
        from gateway.rcp import directory, mailboxes

        who = directory.practitioner_of(session, "99700000013")
        # The name is the register's, not the mailbox file's.
        assert who.family == "EXEMPLE d''ARTAGNAN"
        found = mailboxes.addresses(session, who, secretariat=True)
        assert [box.address for box in found] == [
            "alice.exemple@chu-fictif.mssante.fr",
            "rcp.secretariat@chu-fictif.mssante.fr",
        ]
    again = run(PEOPLE)
    assert again.exit_code == 0
    assert "déjà appliqué" in again.output


def test_a_refusal_is_one_sentence_and_nothing_is_read_when_a_name_is_wrong(run, tmp_path, store):
    wrong = tmp_path / "annuaire.txt"
    wrong.write_text("x")
    told = run(PEOPLE, wrong)
    assert isinstance(told.exception, GatewayError)
    assert told.exception.code == "annuaire-nom"
    with store.session() as session:
        from gateway.rcp import directory

        assert directory.practitioner_of(session, "99700000013") is None
    assert run(tmp_path / "absent.txt").exit_code == 2
    assert run().exit_code == 2


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_on_a_terminal_and_a_line_from_time_to_time_elsewhere(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("gateway.app.import_annuaire.time.monotonic", lambda: now[0])
    terminal, file = _Terminal(), io.StringIO()
    bars, told = Progress("un.txt", terminal), Progress("un.txt", file)
    for done in range(11):
        now[0] += 1
        bars("lecture", done, 10)
        told("lecture", done, 10)
    assert "un.txt : lecture     [###############...............]  50%" in terminal.getvalue()
    assert terminal.getvalue().endswith("[##############################] 100%\n")
    assert file.getvalue() == "un.txt : lecture 40%\nun.txt : lecture 90%\n"
