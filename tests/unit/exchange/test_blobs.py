"""The local content store; expected hashes are those of FIPS 180-2's own examples."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest

from gateway.errors import Fault, InvalidContent, NotFound, Unavailable
from gateway.exchange import blobs as module
from gateway.exchange.blobs import Blob, BlobStore, open_store

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
MILLION_A = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
HOSTILE = (
    "", "..", "../../etc/passwd", "/etc/passwd", "sha256/ba/" + ABC, ABC.upper(), ABC[:-1], ABC + "0", ABC + "\n",
    ABC[:-1] + "\0", ABC[:-1] + "/", "٣" * 64, "%2e%2e", "staging", ABC[:-2] + "é",
)  # fmt: skip


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
def store(root) -> BlobStore:
    return open_store(root.as_uri())


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_published_hashes_name_what_is_kept(store, root):
    assert store.put(b"abc") == Blob(ABC, 3)
    assert store.put(b"") == Blob(EMPTY, 0)
    with store.stage() as staged:
        for _ in range(1000):
            staged.write(b"a" * 1000)
        assert staged.commit() == Blob(MILLION_A, 1_000_000)
    assert files(root) == {f"sha256/{key[:2]}/{key}" for key in (ABC, EMPTY, MILLION_A)}


def test_every_way_of_reading_gives_the_bytes(store):
    content = bytes(range(256)) * 12_000
    key = store.put(content).sha256
    assert store.size(key) == len(content)
    assert store.read(key) == store.read(key, verify=True) == content
    pieces = list(store.stream(key, verify=True))
    assert len(pieces) > 1
    assert b"".join(pieces) == content
    with store.open(key) as file:
        file.seek(-5, os.SEEK_END)
        assert file.read() == content[-5:]
    assert store.path(key).read_bytes() == content
    store.verify(key)

    async def read() -> tuple[bytes, bytes]:
        return await store.read_async(key), b"".join([piece async for piece in store.stream_async(key)])

    assert asyncio.run(read()) == (content, content)


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [(0, 3, b"abc"), (1, 1, b"b"), (2, 99, b"c"), (3, 1, b""), (99, 1, b""), (0, 0, b"")],
)
def test_a_range_is_what_there_is_of_it(store, start, length, expected):
    assert store.read_range(store.put(b"abc").sha256, start, length) == expected


def test_a_negative_range_is_our_defect(store):
    key = store.put(b"abc").sha256
    for start, length in ((-1, 1), (0, -1)):
        with pytest.raises(Fault):
            store.read_range(key, start, length)


@pytest.mark.parametrize("key", HOSTILE)
def test_anything_but_a_hash_is_no_path(store, key):
    for act in (store.read, store.open, store.size, store.path, store.delete, store.verify):
        with pytest.raises(NotFound):
            act(key)


def test_what_is_not_kept(store):
    assert store.size(ABC) is None
    for act in (store.read, store.open, store.verify, lambda key: store.read_range(key, 0, 1)):
        with pytest.raises(Fault) as refusal:
            act(ABC)
        assert refusal.value.code == "blob-missing"
    store.delete(ABC)


def test_leaving_without_a_commit_keeps_nothing(store, root):
    with store.stage() as staged:
        staged.write(b"abc")

    def broken() -> None:
        with store.stage() as staged:
            staged.write(b"abc")
            raise LookupError

    with pytest.raises(LookupError):
        broken()
    assert files(root) == set()


def test_the_limit_is_named_and_nothing_is_kept(root):
    store = open_store(root.as_uri(), limit_bytes=1000)
    with store.stage() as staged:
        for _ in range(10):
            staged.write(b"x" * 100)
        with pytest.raises(InvalidContent, match="1000 octets") as refusal:
            staged.write(b"x")
    assert refusal.value.code == "blob-too-large"
    assert files(root) == set()
    with pytest.raises(InvalidContent, match="10 octets"), store.stage(limit_bytes=10) as staged:
        staged.write(b"x" * 11)
    with store.stage(limit_bytes=10**9) as staged, pytest.raises(InvalidContent, match="1000 octets"):
        staged.write(b"x" * 1001)
    assert store.put(b"x" * 1000).size_bytes == 1000


def test_two_writers_of_one_content_are_harmless(store, root):
    gate = threading.Barrier(8)
    blobs = []

    def write() -> None:
        gate.wait()
        for _ in range(10):
            with store.stage() as staged:
                for _ in range(4):
                    staged.write(b"a" * 10_000)
                blobs.append(staged.commit())

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(blobs) == 80
    (blob,) = set(blobs)
    assert store.read(blob.sha256, verify=True) == b"a" * 40_000
    assert files(root) == {f"sha256/{blob.sha256[:2]}/{blob.sha256}"}


def test_a_reader_keeps_what_it_opened_while_a_writer_comes_again(store):
    key = store.put(b"abc").sha256
    with store.open(key) as file:
        store.put(b"abc")
        assert file.read() == b"abc"


def test_damage_is_found_and_healed_by_the_same_content(store):
    key = store.put(b"abc").sha256
    store.path(key).write_bytes(b"abd")
    for act in (store.verify, lambda key: store.read(key, verify=True)):
        with pytest.raises(Fault) as refusal:
            act(key)
        assert refusal.value.code == "blob-corrupt"
    store.put(b"abc")
    store.verify(key)


def test_memory_does_not_grow_with_the_content(store):
    piece = b"x" * 65_536
    tracemalloc.start()
    with store.stage() as staged:
        for _ in range(500):
            staged.write(memoryview(piece))
        blob = staged.commit()
    for _ in store.stream(blob.sha256):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert blob.size_bytes == 500 * 65_536
    assert peak < 8_000_000


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, Unavailable), (errno.EDQUOT, Unavailable), (errno.EIO, Unavailable),
        (errno.EMFILE, Unavailable), (errno.EROFS, Fault), (errno.EACCES, Fault),
    ],
)  # fmt: skip
def test_what_the_disk_says_is_a_category(store, root, monkeypatch, number, kind):
    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    with store.stage() as staged:
        staged.write(b"abc")
        with monkeypatch.context() as patch:
            patch.setattr(module.os, "fsync", fail)
            with pytest.raises(kind):
                staged.commit()
    assert files(root) == set()


def test_the_start_sweeps_what_dead_writers_left_and_spares_the_living(store, root):
    (root / "staging" / ("0" * 32)).write_bytes(b"half a con")
    with store.stage() as staged:
        staged.write(b"ab")
        open_store(root.as_uri())
        staged.write(b"c")
        assert staged.commit().sha256 == ABC
    assert files(root) == {f"sha256/{ABC[:2]}/{ABC}"}


def test_files_that_are_open_before_they_are_needed_are_few_used_and_spared(store, root):
    for _ in range(40):
        store.foresee()
    opened = files(root)
    assert 0 < len(opened) <= 16
    open_store(root.as_uri())  # another process begins
    assert files(root) == opened
    contents = [str(number).encode() for number in range(20)]
    kept = set()
    for content in contents:
        with store.stage() as staged:
            staged.write(content)
            kept.add(staged.commit().sha256)
    assert kept == {hashlib.sha256(content).hexdigest() for content in contents}
    assert files(root) == {f"sha256/{key[:2]}/{key}" for key in kept}
    for key in kept:
        store.verify(key)


def test_what_a_dead_process_had_opened_ahead_is_swept(root):
    gone = "from gateway.exchange.blobs import open_store; import sys, os; s = open_store(sys.argv[1]); s.foresee(); "
    subprocess.run([sys.executable, "-c", gone + "os.kill(os.getpid(), 9)", root.as_uri()], check=False)
    assert len(files(root)) == 1
    open_store(root.as_uri())
    assert files(root) == set()


def test_a_link_planted_in_the_staging_folder_leads_nowhere(store, root, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (root / "staging" / "link").symlink_to(precious)
    with pytest.raises(Fault):
        open_store(root.as_uri())
    assert precious.read_text() == "kept"


def test_each_name_is_durable_before_it_is_given(store, root, monkeypatch):
    """What a power cut may undo: bytes not synced, a name whose folder is not synced."""
    events: list[tuple[str, str]] = []
    fsync, rename, mkdir = os.fsync, os.rename, Path.mkdir

    def traced_fsync(descriptor):
        events.append(("sync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        fsync(descriptor)

    def traced_rename(source, target):
        events.append(("rename", f"{source} {target}"))
        rename(source, target)

    def traced_mkdir(self, *arguments, **options):
        events.append(("mkdir", str(self)))
        return mkdir(self, *arguments, **options)

    monkeypatch.setattr(module.os, "fsync", traced_fsync)
    monkeypatch.setattr(module.os, "rename", traced_rename)
    monkeypatch.setattr(Path, "mkdir", traced_mkdir)
    with store.stage() as staged:
        staged.write(b"abc")
        name = str(staged._path)
        staged.commit()
    folder = root / "sha256" / ABC[:2]
    renamed = events.index(("rename", f"{name} {folder / ABC}"))
    assert ("sync", name) in events[:renamed]
    assert ("sync", str(folder)) in events[renamed:]
    made = [(at, Path(what)) for at, (kind, what) in enumerate(events) if kind == "mkdir"]
    assert {folder, folder.parent} <= {path for _, path in made}
    for at, path in made:
        assert ("sync", str(path.parent)) in events[at:]


def staged_contents(store, *contents: bytes) -> list[module.Staged]:
    every = [store.stage() for _ in contents]
    for one, content in zip(every, contents, strict=True):
        one.write(content)
    return every


def test_contents_that_are_kept_together_are_durable_before_one_is_given(store, root, monkeypatch):
    every = staged_contents(store, b"abc", b"", b"abc", *(b"%d" % number for number in range(400)))
    events: list[tuple[str, str]] = []
    fsync, rename = os.fsync, os.rename

    def traced_fsync(descriptor):
        fsync(descriptor)
        events.append(("sync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))

    def traced_rename(source, target):
        events.append(("rename", target))
        rename(source, target)

    monkeypatch.setattr(module.os, "fsync", traced_fsync)
    monkeypatch.setattr(module.os, "rename", traced_rename)
    store.commit_together(every)
    before = len(events)
    kept = [one.commit() for one in every]
    assert len(events) == before
    assert kept[:3] == [Blob(ABC, 3), Blob(EMPTY, 0), Blob(ABC, 3)]
    assert files(root) == {f"sha256/{blob.sha256[:2]}/{blob.sha256}" for blob in kept}
    first = next(at for at, (kind, _) in enumerate(events) if kind == "rename")
    assert {("sync", one._path) for one in every} <= set(events[:first])
    last = {what: at for at, (_, what) in enumerate(events)}
    for blob in kept:
        place = root / "sha256" / blob.sha256[:2] / blob.sha256
        assert last[str(place)] < last[str(place.parent)]
    synced = [what for kind, what in events[last[events[first][1]] :] if kind == "sync"]
    assert max(synced.count(str(root / "sha256" / f"{number:02x}")) for number in range(256)) == 1


def test_what_befalls_one_is_told_of_it_alone(store, root, monkeypatch):
    """Its file is gone, the disk refuses it, the folder of another cannot be synced."""
    fine, gone, refused, unnamed = staged_contents(store, b"abc", b"gone", b"refused", b"a" * 1_000_000)
    Path(gone._path).unlink()
    fsync = os.fsync

    def failing(descriptor):
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if path == refused._path:
            raise OSError(errno.ENOSPC, "")
        if path == str(root / "sha256" / MILLION_A[:2]):
            raise OSError(errno.EIO, "")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "fsync", failing)
        store.commit_together([refused, gone, fine, unnamed])
    assert fine.commit() == Blob(ABC, 3)
    for one, kind in ((gone, Fault), (refused, Unavailable), (unnamed, Unavailable)):
        with pytest.raises(kind):
            one.commit()
        one.close()
    fine.close()
    assert not [path for path in files(root) if path.startswith("staging")]


@pytest.mark.parametrize("url", ["file://elsewhere/blobs", "file:relative", "file://relative"])
def test_a_local_url_names_an_absolute_path(url):
    with pytest.raises(Fault) as refusal:
        open_store(url)
    assert refusal.value.code == "blob-url"


def test_a_folder_of_any_name_will_do(tmp_path):
    folder = tmp_path / "répertoire à espaces #1 100%25 ?"
    store = open_store(folder.as_uri())
    assert store.read(store.put(b"abc").sha256) == b"abc"
    assert (folder / "sha256").is_dir()


def test_the_probe_leaves_nothing(store, root):
    store.check()
    assert files(root) == set()


def test_a_remote_store_wants_a_folder_to_stage_in():
    with pytest.raises(Fault) as refusal:
        open_store("s3://bucket/prefix")
    assert refusal.value.code == "blob-staging"
