"""Who takes nothing of his answer is left; who takes it slowly gets all of it."""

import socket
import time
from collections.abc import Iterator

import pytest

from gateway.web import stalled
from tests.unit.web.serving import serving

SIZE = 24 << 20


@pytest.fixture
def port(monkeypatch) -> Iterator[int]:
    monkeypatch.setattr(stalled, "STALLED_S", 0.3)
    freed = []

    async def answer(scope, receive, send):
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % SIZE)]})
        for _ in range(SIZE >> 20):
            await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        freed.append(scope["path"])

    with serving(answer) as found:
        yield found


def asking(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.settimeout(60)
    sock.connect(("127.0.0.1", port))
    sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    return sock


def taken(sock: socket.socket, *, pause: float, piece: int) -> int:
    """How much arrives before the end, or before the other side breaks off."""
    count = 0
    try:
        while (got := sock.recv(piece)) and count < SIZE:
            count += len(got)
            time.sleep(pause)
    except ConnectionResetError:
        pass
    return count


def test_who_takes_nothing_is_left(port):
    with asking(port) as sock:
        time.sleep(0.1)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            # A connection that was broken off takes no byte more, whatever was on its way.
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 104:
                return
            time.sleep(0.05)
    pytest.fail("still there")


def test_who_is_slow_gets_all_of_it(port, monkeypatch):
    monkeypatch.setattr(stalled, "STALLED_S", 1.0)  # on a busy machine even he who takes pauses for a while
    with asking(port) as sock:
        assert taken(sock, pause=0.001, piece=64 << 10) >= SIZE
