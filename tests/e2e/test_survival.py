"""The story survives SIGKILL: every process of the gateway, its database included, is killed after each act.

Each act then finds a gateway started anew over what the killed one had kept. At the end the story is the same,
and each mail is one logical message: one Message-ID, and should a kill have fallen between the final dot and its
record, a byte-identical copy (DECISIONS 1).
"""

from __future__ import annotations

import contextlib
import email
import imaplib
import io
import ssl
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from gateway.demo.acts import DAYS
from gateway.demo.narration import Narrator
from gateway.demo.programme import _prepare
from gateway.demo.stage import Stage, own_directory
from gateway.demo.theatre import Theatre, open_theatre
from tests.loopback import raw_mails

#: Acts after which everything is killed at once: the next act needs what this one left, kept or still to be sent.
CRASH_AFTER = frozenset({1, 2, 3, 4, 6})


class FragileStage(Stage):
    """A stage whose gateway never stops properly."""

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        doomed = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        doomed += [one for one in psutil.process_iter() if self._is_ours(one)]
        for one in doomed:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait(60)
        psutil.wait_procs(doomed, timeout=60)

    def _is_ours(self, process: psutil.Process) -> bool:
        """Whether a process works on this stage's data: the database and its keeper are no children of `serve`."""
        with contextlib.suppress(psutil.Error):
            return str(self.state) in " ".join(process.cmdline())
        return False


@pytest.fixture
def theatre(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Theatre]:
    monkeypatch.setattr("gateway.demo.theatre.Stage", FragileStage)
    folder = own_directory(tmp_path)
    with open_theatre(folder, Narrator(folder, out=io.StringIO())) as opened:
        yield opened


def test_a_kill_after_each_act_changes_nothing_to_the_story(theatre: Theatre) -> None:
    _prepare(theatre)
    for day in DAYS:
        acts = list(day.acts)
        while acts:
            with theatre.stage.serving(day.clock):
                while acts:
                    act = acts.pop(0)
                    theatre.narrator.open_act(act.number, act.title, day.clock)
                    act.play(theatre)
                    if act.number in CRASH_AFTER:
                        break
    told = [step.act for step in theatre.narrator.steps]
    assert sorted(set(told)) == list(range(1, 10))
    assert_one_message_each(theatre)


def assert_one_message_each(theatre: Theatre) -> None:
    """One M1 and one report for the physician, one M2 and one report for the requester: as logical messages."""
    expected = {theatre.box(theatre.people.treating): 2, theatre.box(theatre.people.requester): 2}
    for box, count in expected.items():
        copies: dict[str, set[bytes]] = defaultdict(set)
        for raw in mails(theatre, box):
            message = email.message_from_bytes(raw)
            # The operator writes its own trace above ours.
            copies[message["Message-ID"]].add(raw[raw.index(b"Message-ID:") :])
        assert len(copies) == count, box
        assert all(len(bytes_of_one) == 1 for bytes_of_one in copies.values())


def mails(theatre: Theatre, box: str) -> list[bytes]:
    context = ssl.create_default_context(cafile=theatre.stage.environment["RCP_MSSANTE_TLS_CA"])
    deadline = time.monotonic() + 60
    while True:
        try:
            client = imaplib.IMAP4(theatre.mail.host, theatre.mail.port)
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    with client:
        client.starttls(context)
        return raw_mails(client, box, theatre.mail.password)
