"""The staged writer with a SIGKILL before any of its lines: the whole content, or nothing, and no leftovers."""

from __future__ import annotations

import hashlib
import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.exchange import blobs as module
from gateway.exchange.blobs import open_store
from tests.properties.crashing import killed_before_line

PIECES = (b"one", b"two" * 1000, b"three")
KEY = hashlib.sha256(b"".join(PIECES)).hexdigest()


def write(url: str, said: int) -> None:
    store = open_store(url)
    store.foresee()
    with store.stage() as staged:
        for piece in PIECES:
            staged.write(piece)
        staged.commit()
        os.write(said, b"kept")


def killed_writer(number: int, url: str) -> tuple[bool, bool]:
    """Whether the writer died, and whether it had been told that its content is kept."""
    read_end, said = os.pipe()
    died = killed_before_line(number, lambda: write(url, said), {module.__file__, __file__})
    os.close(said)
    told = os.read(read_end, 10) == b"kept"
    os.close(read_end)
    return died, told


def test_a_kill_at_any_line_keeps_the_whole_content_or_nothing(tmp_path):
    number, kept = 0, set()
    while True:
        number += 1
        root = tmp_path / str(number)
        died, told = killed_writer(number, root.as_uri())
        target = root / "sha256" / KEY[:2] / KEY
        if target.exists():
            assert hashlib.sha256(target.read_bytes()).hexdigest() == KEY
        else:
            assert not told
        kept.add(target.exists())
        store = open_store(root.as_uri())
        assert not list((root / "staging").iterdir())
        assert store.put(b"".join(PIECES)).sha256 == KEY
        store.verify(KEY)
        if not died:
            break
    assert kept == {True, False}
    assert number > 40


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.binary(max_size=5000), max_size=8), start=st.integers(0, 20_000), length=st.integers(0, 9000))
def test_what_is_read_is_what_was_written_in_any_pieces(tmp_path, pieces, start, length):
    store = open_store((tmp_path / "blobs").as_uri())
    content = b"".join(pieces)
    with store.stage() as staged:
        for piece in pieces:
            staged.write(piece)
        blob = staged.commit()
    assert blob.sha256 == hashlib.sha256(content).hexdigest()
    assert blob.size_bytes == len(content)
    assert store.read(blob.sha256, verify=True) == content
    assert store.read_range(blob.sha256, start, length) == content[start : start + length]
