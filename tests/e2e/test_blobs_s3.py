"""The content store over a real S3-compatible server (npm s3rver, `tests/install-servers`)."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import Fault, InvalidContent, Unavailable
from gateway.exchange.blobs import BlobStore, open_store

HERE = Path(__file__).resolve().parent / "s3_store"
INSTALLED = HERE.parents[2] / ".tools" / "s3_store"
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory) -> Iterator[str]:
    node = shutil.which("node")
    if node is None or not (INSTALLED / "node_modules" / "s3rver").is_dir():
        pytest.skip("s3rver is not installed: node, then tests/install-servers")
    server = subprocess.Popen(
        [node, HERE / "server.mjs", tmp_path_factory.mktemp("s3")],
        cwd=INSTALLED,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.kill()
        server.wait()
        server.stdin.close()
        server.stdout.close()


@pytest.fixture
def make(endpoint, tmp_path):
    def store(url: str = "s3://rcp/blobs", **options) -> BlobStore:
        return open_store(
            url,
            staging=tmp_path / "staging",
            **{
                "endpoint": endpoint,
                "access_key_id": "S3RVER",
                "secret_access_key": "S3RVER",
                "region": "eu-west-3",
                "client_options": {"allow_http": True},
                **options,
            },
        )

    return store


def test_what_goes_there_comes_back_every_way(make, tmp_path):
    store = make()
    content = bytes(range(251)) * 50_000  # more than one part of a multipart upload
    with store.stage() as staged:
        for start in range(0, len(content), 1 << 20):
            staged.write(content[start : start + (1 << 20)])
        blob = staged.commit()
    assert blob.size_bytes == store.size(blob.sha256) == len(content)
    assert store.read(blob.sha256, verify=True) == content
    assert b"".join(store.stream(blob.sha256, verify=True)) == content
    assert store.read_range(blob.sha256, 7_000_000, 1000) == content[7_000_000:7_001_000]
    assert store.read_range(blob.sha256, len(content) - 2, 10) == content[-2:]
    assert store.read_range(blob.sha256, len(content), 10) == b""
    with store.open(blob.sha256) as file:
        file.seek(-4, 2)
        assert file.read() == content[-4:]

    async def read() -> bytes:
        return b"".join([piece async for piece in store.stream_async(blob.sha256)])

    assert asyncio.run(read()) == asyncio.run(store.read_async(blob.sha256)) == content
    assert store.path(blob.sha256) is None
    assert not list((tmp_path / "staging").iterdir())
    store.delete(blob.sha256)
    assert store.size(blob.sha256) is None


def test_a_published_hash_names_it_and_the_same_content_again_is_harmless(make):
    store = make()
    assert [store.put(b"abc").sha256 for _ in range(2)] == [ABC, ABC]
    assert store.read(ABC) == b"abc"
    store.check()


def test_two_prefixes_are_two_stores(make):
    make("s3://rcp/one").put(b"abc")
    assert make("s3://rcp/two").size(ABC) is None


def test_the_limit_holds_before_anything_is_sent(make):
    store = make("s3://rcp/limited", limit_bytes=10)
    with pytest.raises(InvalidContent, match="10 octets"):
        store.put(b"x" * 11)


def test_what_the_far_side_says_is_a_category(make):
    with pytest.raises(Fault) as refusal:
        make("s3://rcp/empty").read(ABC)
    assert refusal.value.code == "blob-missing"
    with pytest.raises(Fault) as refusal:
        make("s3://no-such-bucket/x").check()
    assert refusal.value.code == "blob-bucket"
    with pytest.raises(Fault) as refusal:
        make(access_key_id="NOBODY").put(b"abcd")
    assert refusal.value.code == "blob-access"
    away = make(endpoint="http://127.0.0.1:1", retry_config={"max_retries": 0})
    with pytest.raises(Unavailable) as refusal:
        away.put(b"abc")
    assert refusal.value.retry_after_s
