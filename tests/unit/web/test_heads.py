"""Heads without an end, in length or in time: refused by name, whoever else is served."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.web import heads
from tests.unit.web.serving import serving

BEGUN = b"GET /one HTTP/1.1\r\nHost: x\r\n"
WHOLE = BEGUN + b"\r\n"


@pytest.fixture
def port() -> Iterator[int]:
    async def answer(scope, receive, send):
        if scope["type"] != "http":
            return
        size = 0
        while True:
            message = await receive()
            size += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        said = f"{len(scope['headers'])} {size}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(said))]})
        await send({"type": "http.response.body", "body": said})

    with serving(answer, timeout_keep_alive=3) as found:
        yield found


def connected(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.settimeout(60)
    return sock


def answered(sock: socket.socket) -> bytes:
    """All that comes until the other side ends."""
    found = b""
    try:
        while piece := sock.recv(1 << 16):
            found += piece
    except ConnectionResetError:
        pass
    return found


def poured_in(sock: socket.socket, piece: bytes, times: int) -> int:
    """How many pieces are taken before the other side breaks off."""
    for number in range(times):
        try:
            sock.sendall(piece)
        except OSError:
            return number
    return times


@pytest.mark.parametrize(
    "head",
    [
        BEGUN + b"X: " + b"a" * heads.HEAD_BYTES + b"\r\n\r\n",
        BEGUN + b"X-Field: a\r\n" * 6000 + b"\r\n",
        b"GET /" + b"a" * heads.HEAD_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        BEGUN + b"X: " + b"a" * (4 * heads.HEAD_BYTES),  # and no end
    ],
    ids=["one field", "many fields", "address", "endless"],
)
def test_a_head_that_is_too_long_is_refused_by_name(port: int, head: bytes) -> None:
    with connected(port) as sock:
        poured_in(sock, head, 1)
        told = answered(sock)
    assert told.startswith(b"HTTP/1.1 431 ")
    assert f"limite de {heads.HEAD_BYTES} octets (http.head)".encode() in told


def test_an_endless_head_is_not_kept(port: int) -> None:
    """The parser kept whatever came of a line: 60 MB of one field were 60 MB of memory."""

    def peak() -> int:
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) >> 10

    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    with connected(port) as sock:
        sock.sendall(BEGUN + b"X: ")
        assert poured_in(sock, bytes(b"a" * (1 << 20)), 64) < 64
    assert peak() - before < 16


@pytest.mark.parametrize("length", [0, 60_000])
def test_what_is_just_not_too_long_is_served_again_and_again(port: int, length: int) -> None:
    body = (
        b"POST /one HTTP/1.1\r\nHost: x\r\nX: " + b"a" * length + b"\r\nContent-Length: 300000\r\n\r\n" + bytes(300_000)
    )
    with connected(port) as sock:
        for _ in range(3):
            sock.sendall(body)
            found = b""
            while not found.endswith(b"3 300000"):
                found += sock.recv(1 << 16)
            assert found.startswith(b"HTTP/1.1 200 ")
        # Several at once, and one in two pieces.
        sock.sendall(WHOLE + WHOLE + BEGUN)
        sock.sendall(b"Connection: close\r\n\r\n")
        assert answered(sock).count(b"HTTP/1.1 200 ") == 3


@pytest.mark.parametrize(
    "begun", [b"", b"GET /one HT", BEGUN, WHOLE[:-1]], ids=["nothing", "a line", "a field", "an end"]
)
def test_a_head_that_does_not_end_is_left(port: int, monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
    monkeypatch.setattr(heads, "HEAD_S", 0.2)
    with connected(port) as sock:
        sock.sendall(begun)
        told = answered(sock)
    assert told.startswith(b"HTTP/1.1 408 ") if begun else told == b""
    monkeypatch.setattr(heads, "HEAD_S", 60)
    with connected(port) as sock:  # who is served already waits as before
        sock.sendall(WHOLE)
        assert sock.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        monkeypatch.setattr(heads, "HEAD_S", 0.2)
        sock.sendall(begun[:1])
        assert b"408" in answered(sock) or not begun
