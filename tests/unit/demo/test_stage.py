"""The demonstration touches no directory but its own, takes no port that is taken, and tells what it saw."""

from __future__ import annotations

import io
import json
import socket
import uuid
from datetime import datetime

import pytest

from gateway.demo import stage
from gateway.demo.narration import Narrator, french_instant
from gateway.demo.programme import run
from gateway.demo.stage import free_port, own_directory, usual_ports
from gateway.errors import Fault
from tests import loopback


def test_its_directory_is_made_anew_at_each_run(tmp_path):
    folder = own_directory(tmp_path)
    (folder / "state").mkdir()
    (folder / "story.json").write_text("[]")
    assert own_directory(tmp_path) == folder
    assert [path.name for path in folder.iterdir()] == [".demonstration-rcp"]


@pytest.mark.parametrize("prepare", ["file", "folder", "link"])
def test_any_other_directory_is_refused_and_left_alone(tmp_path, prepare):
    other = tmp_path / "other"
    other.mkdir()
    (other / "important.txt").write_text("à garder")
    demo = tmp_path / "demo"
    if prepare == "file":
        demo.write_text("à garder")
    elif prepare == "folder":
        demo.mkdir()
        (demo / "important.txt").write_text("à garder")
    else:
        (other / ".demonstration-rcp").write_text("")
        demo.symlink_to(other)
    with pytest.raises(Fault) as refusal:
        own_directory(tmp_path)
    assert refusal.value.code == "repertoire-occupe"
    assert (other / "important.txt").read_text() == "à garder"
    kept = demo if prepare == "file" else demo / "important.txt"
    assert kept.read_text() == "à garder"


def test_an_empty_directory_may_become_its_own(tmp_path):
    (tmp_path / "demo").mkdir()
    assert own_directory(tmp_path).is_dir()


def test_a_taken_port_is_left_to_its_owner():
    usual = loopback.free_port()
    with socket.create_server(("127.0.0.1", usual)):
        assert free_port(usual) not in {0, usual}
    assert free_port(usual) == usual


def test_the_usual_ports_belong_to_one_demonstration_at_a_time(monkeypatch):
    # Demonstrations of other tests come and go meanwhile: they hold another name.
    monkeypatch.setattr(stage, "_PORTS_HELD", f"\0rcp-gateway-essai-{uuid.uuid4()}")
    with usual_ports() as mine:
        assert mine
        with usual_ports() as other:
            assert not other
        with usual_ports() as third:
            assert not third
    with usual_ports() as again:
        assert again


def test_it_is_refused_in_prod(tmp_path, monkeypatch):
    for name, value in {
        "RCP_PROFILE": "prod",
        "RCP_PUBLIC_URL": "https://rcp.example",
        "RCP_DATA_DIR": str(tmp_path),
        "RCP_SECRET_KEY": "x" * 40,
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Fault) as refusal:
        run(once=True)
    assert refusal.value.code == "demonstration-en-prod"
    assert list(tmp_path.iterdir()) == []


def test_what_was_seen_is_told_and_kept(tmp_path):
    out = io.StringIO()
    narrator = Narrator(tmp_path, out)
    clock = datetime.fromisoformat("2026-03-09T08:00:00+00:00")
    narrator.open_act(1, "Premier acte", clock)
    file = narrator.write("01.json", b"{}")
    narrator.seen("Une étape", wire="FHIR", outcome="200", file=file)
    narrator.failed(2, "Une autre", "rien")
    kept = json.loads((tmp_path / "story.json").read_text(encoding="utf-8"))
    assert kept[0].pop("elapsed_s") >= 0
    assert kept[0] == {
        "act": 1,
        "name": "Une étape",
        "instant": "2026-03-09T08:00:00+00:00",
        "wire": "FHIR",
        "outcome": "200",
        "file": "01.json",
    }
    assert kept[1]["outcome"].startswith("échec")
    shown = out.getvalue()
    assert "\x1b" not in shown
    assert "lundi 9 mars 2026, 9 h 00" in shown
    assert "demo/01.json" in shown


def test_instants_are_told_in_paris():
    assert french_instant(datetime.fromisoformat("2026-08-01T22:30:00+00:00")) == "dimanche 2 août 2026, 0 h 30"
