"""A body that is poured is the body that was sent, and the connection goes on behind it."""

import gzip
import hashlib
import itertools
import json
import socket
import threading
from collections.abc import Iterator

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse

from gateway.errors import GatewayError
from gateway.web import poured
from gateway.web.body import Limit
from tests.loopback import wait_until
from tests.unit.web.serving import serving

LIMIT = 4 << 20
BODY = hashlib.shake_256(b"an image").digest(3 << 20)
SHA = hashlib.sha256(BODY).hexdigest()


class Server:
    """Hashes bodies in pieces of memory of one size, and remembers which way they took and what was refused."""

    def __init__(self) -> None:
        self.port = 0
        self.size = 1 << 20
        self.leave_after = 1 << 30
        self.ways: list[str] = []
        self.refused: list[str] = []

    async def __call__(self, scope, receive, send):
        request = Request(scope, receive)
        seen, digest = 0, hashlib.sha256()
        try:
            body = poured.poured(request, Limit("x", LIMIT))
            self.ways.append(type(body).__name__)
            memory, whole = bytearray(self.size), False
            try:
                while not whole and seen < self.leave_after:
                    filled, whole = await body.fill(memoryview(memory))
                    assert filled == self.size or whole
                    digest.update(memory[:filled])
                    seen += filled
            finally:
                body.close()
        except GatewayError as error:
            self.refused.append(error.code)
            await JSONResponse({"code": error.code}, 400)(scope, receive, send)
            return
        await JSONResponse({"sha": digest.hexdigest(), "size": seen})(scope, receive, send)


@pytest.fixture
def server() -> Iterator[Server]:
    app = Server()
    with serving(app) as app.port:
        yield app


def connected(server: Server) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def head(length: int | None, *more: str) -> bytes:
    said = ["POST / HTTP/1.1", "Host: x", *([f"Content-Length: {length}"] if length is not None else []), *more]
    return "\r\n".join((*said, "", "")).encode()


def answered(sock: socket.socket) -> dict:
    """Read one answer, no byte further."""
    said = b""
    while b"\r\n\r\n" not in said:
        said += sock.recv(1)
        assert said
    length = int(said.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    content = b""
    while len(content) < length:
        content += sock.recv(length - len(content))
    return json.loads(content)


@pytest.mark.parametrize("size", [1 << 20, 100_003, 8 << 20, 3 << 20])
def test_one_after_another_over_one_connection(server, size):
    server.size = size
    with connected(server) as sock:
        for _ in range(3):
            sock.sendall(head(len(BODY)) + BODY)
            assert answered(sock) == {"sha": SHA, "size": len(BODY)}
    assert server.ways == ["_Poured"] * 3


def test_in_parts_of_any_length(server):
    server.size = 300_007
    whole, at = head(len(BODY)) + BODY, 0
    with connected(server) as sock:
        for step in itertools.cycle((1, 50, 700_000, 1, 1, 4096, 70_000, 3)):
            if at >= len(whole):
                break
            sock.sendall(whole[at : at + step])
            at += step
        assert answered(sock)["sha"] == SHA


def test_what_follows_without_waiting_is_the_next_request(server):
    with connected(server) as sock:
        sock.sendall(head(len(BODY)) + BODY + head(3) + b"abc" + head(len(BODY)) + BODY)
        sha = hashlib.sha256(b"abc").hexdigest()
        assert [answered(sock)["sha"] for _ in range(3)] == [SHA, sha, SHA]
    assert server.ways == ["_Poured", "_Collected", "_Poured"]


def test_other_bodies_take_the_ordinary_way(server):
    chunks = b"".join(b"%x\r\n%s\r\n" % (1 << 20, BODY[at : at + (1 << 20)]) for at in range(0, len(BODY), 1 << 20))
    packed = gzip.compress(BODY, 0)
    with connected(server) as sock:
        sock.sendall(head(None, "Transfer-Encoding: chunked") + chunks + b"0\r\n\r\n")
        assert answered(sock)["sha"] == SHA
        sock.sendall(head(len(packed), "Content-Encoding: gzip") + packed)
        assert answered(sock)["sha"] == SHA
        sock.sendall(head(0))
        assert answered(sock)["size"] == 0
    assert server.ways == ["_Collected"] * 3


def test_who_asks_whether_to_go_on_is_told(server):
    with connected(server) as sock:
        sock.sendall(head(len(BODY), "Expect: 100-continue"))
        assert sock.recv(25, socket.MSG_WAITALL) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(BODY)
        assert answered(sock)["sha"] == SHA


def test_a_limit_is_told_and_the_connection_goes_on(server):
    with connected(server) as sock:
        sock.sendall(head(LIMIT + 1))
        assert answered(sock) == {"code": "body-too-large"}
        sock.sendall(bytes(LIMIT + 1) + head(3) + b"abc")
        assert answered(sock)["size"] == 3


@pytest.mark.parametrize("leave_after", [1, 1 << 20, 2 << 20])
def test_what_its_reader_leaves_is_forgotten(server, leave_after):
    """The answer leaves while the body still comes; what follows the body is another request."""
    server.leave_after = leave_after
    with connected(server) as sock:
        sock.sendall(head(len(BODY)) + BODY[:-1000])
        assert answered(sock)["size"] == max(1 << 20, leave_after)
        server.leave_after = 1 << 30
        sock.sendall(BODY[-1000:] + head(len(BODY)) + BODY)
        assert answered(sock)["sha"] == SHA


@pytest.mark.parametrize("sent", [0, 1, 200_000, len(BODY) - 1])
@pytest.mark.parametrize("reset", [False, True])
def test_who_goes_away_is_an_incomplete_body(server, sent, reset):
    with connected(server) as sock:
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.sendall(head(len(BODY)) + BODY[:sent])
    # One that is reset with its head unread was never a request.
    assert wait_until(lambda: server.refused == ["body-incomplete"] or (reset and not server.ways))


def test_who_says_nothing_is_left(server, monkeypatch):
    monkeypatch.setattr(poured, "SILENCE_S", 0.3)
    with connected(server) as sock:
        sock.sendall(head(len(BODY)) + BODY[:1_500_000])
        assert answered(sock) == {"code": "body-silence"}


def test_who_is_slow_but_not_silent_is_waited_for(server, monkeypatch):
    monkeypatch.setattr(poured, "SILENCE_S", 2)
    with connected(server) as sock:
        sock.sendall(head(len(BODY)) + BODY[:-25])
        for at in range(25, 0, -1):
            threading.Event().wait(0.1)
            sock.sendall(BODY[len(BODY) - at : len(BODY) - at + 1])
        assert answered(sock)["sha"] == SHA


def test_many_at_once(server):
    def lay_down() -> None:
        with connected(server) as sock:
            for _ in range(3):
                sock.sendall(head(len(BODY)) + BODY)
                found.append(answered(sock)["sha"])

    found: list[str] = []
    threads = [threading.Thread(target=lay_down) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [SHA] * 18
