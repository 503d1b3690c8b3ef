"""What leaves is what the server by itself would write, byte for byte; only not in as many pieces."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tests.loopback import wait_until
from tests.unit.web.serving import serving

LARGE = hashlib.shake_256(b"a frame").digest((1 << 20) + 4097)
START = "http.response.start"


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> dict:
    return {"type": START, "status": status, "headers": list(headers)}


def body(content: bytes | memoryview, more: bool = False) -> dict:
    return {"type": "http.response.body", "body": content, "more_body": more}


def sized(content: bytes, *headers: tuple[bytes, bytes], status: int = 200) -> list[dict]:
    return [start(status, (b"content-length", b"%d" % len(content)), *headers), body(content)]


#: What an application says, by the path that is asked for.
SAID: dict[str, list[dict]] = {
    "small": sized(b"abc", (b"Content-Type", b"text/plain"), (b"X-Own", b"1")),
    "large": sized(LARGE),
    "view": [start(200, (b"content-length", b"1000")), body(memoryview(LARGE)[:1000])],
    "pieces": [
        start(200, (b"content-length", b"%d" % len(LARGE))),
        *(body(LARGE[at : at + (1 << 20)], more=True) for at in range(0, len(LARGE), 1 << 20)),
        body(b""),
    ],
    "empty first": [start(200, (b"content-length", b"3")), body(b"", more=True), body(b"abc", more=True), body(b"")],
    "chunked": [start(), body(b"abc", more=True), body(LARGE, more=True), body(b"")],
    "chunked by name": [start(200, (b"Transfer-Encoding", b"chunked")), body(b"abc")],
    "both": [start(200, (b"transfer-encoding", b"chunked"), (b"content-length", b"9")), body(b"abc")],
    "nothing": [start(204), body(b"")],
    "known": [start(304, (b"etag", b'"a"')), body(b"")],
    "no body": [start(200, (b"content-length", b"0")), body(b"")],
    "close": sized(b"abc", (b"Connection", b"Close")),
    "many cookies": sized(b"abc", (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")),
    "odd status": sized(b"abc", status=299),
    "too long": [start(200, (b"content-length", b"2")), body(b"abc")],
    "too short": [start(200, (b"content-length", b"4")), body(b"abc")],
    "too long later": [start(200, (b"content-length", b"4")), body(b"abc", more=True), body(b"abc")],
    "bad name": [start(200, (b"a b", b"1")), body(b"abc")],
    "bad value": [start(200, (b"a", b"1\r\nb: 2")), body(b"abc")],
    "no end": [start(200, (b"content-length", b"3")), body(b"abc", more=True)],
    "not begun": [body(b"abc")],
    "none": [],
    "twice": [*sized(b"abc"), body(b"abc")],
}


async def application(scope, receive, send):
    for message in SAID[scope["path"].strip("/").replace("%20", " ")]:
        await send(dict(message))


def exchanged(port: int, said: bytes, *, pause: float = 0, piece: int = 1 << 20, small: bool = False) -> bytes:
    """All that comes for what is sent at once, until the other side ends."""
    found = bytearray()
    with socket.socket() as sock:
        if small:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        sock.settimeout(60)
        sock.connect(("127.0.0.1", port))
        sock.sendall(said)
        try:
            while got := sock.recv(piece):
                found += got
                if pause:
                    threading.Event().wait(pause)
        except ConnectionResetError:
            pass
    return bytes(found)


def asked(path: str, *more: str, method: str = "GET", version: str = "1.1") -> bytes:
    head = [f"{method} /{path.replace(' ', '%20')} HTTP/{version}", "Host: x", *more]
    return "\r\n".join((*head, "", "")).encode()


LAST = asked("small", "Connection: close")


@pytest.fixture(scope="module")
def ports() -> Iterator[tuple[int, int]]:
    """Our protocol and the server's own, before one application."""
    with ExitStack() as stack:
        alike = {"date_header": False, "server_header": True, "access_log": False}
        theirs = stack.enter_context(serving(application, protocol=HttpToolsProtocol, **alike))
        yield stack.enter_context(serving(application, **alike)), theirs


def same(ports: tuple[int, int], said: bytes, **how) -> bytes:
    ours, theirs = (exchanged(port, said, **how) for port in ports)
    assert ours == theirs
    return ours


@pytest.mark.parametrize("path", SAID)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_every_answer_is_the_one_that_the_server_writes(ports, path, method, version):
    said = asked(path, method=method, version=version)
    whole = same(ports, said if version == "1.0" else said + LAST)
    assert whole.startswith(b"HTTP/1.1 ") or path in ("bad name", "bad value")


def test_requests_behind_one_another_are_answered_in_their_order(ports):
    paths = ["large", "small", "chunked", "pieces", "nothing", "large", "empty first", "known"]
    whole = same(ports, b"".join(asked(path) for path in paths) + LAST)
    assert whole.count(LARGE) == 4


def test_who_reads_slowly_gets_the_same(ports):
    assert same(ports, asked("pieces") + LAST, pause=0.0005, piece=64 << 10, small=True).count(LARGE) == 1


def test_two_connections_do_not_mix(ports):
    found: list[bytes] = []
    both = [threading.Thread(target=lambda path=path: found.append(exchanged(ports[0], asked(path) * 5 + LAST)))
            for path in ("small", "pieces", "large", "chunked by name")]  # fmt: skip
    for one in both:
        one.start()
    for one in both:
        one.join(60)
    assert sorted(one.count(LARGE) for one in found) == [0, 0, 5, 5]
    assert all(one.endswith(b"abc") for one in found)


def answered(sock: socket.socket, ends: Callable[[bytes], bool]) -> bytes:
    found = b""
    while not ends(found):
        got = sock.recv(1 << 16)
        assert got
        found += got
    return found


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_head_does_not_wait_for_a_body_that_is_late(loop):
    late = threading.Event()

    async def application(scope, receive, send):
        await send(start(200, (b"content-length", b"3")))
        await asyncio.to_thread(late.wait, 60)
        await send(body(b"abc"))

    with (
        serving(application, access_log=False, loop=loop) as port,
        socket.create_connection(("127.0.0.1", port)) as sock,
    ):
        sock.settimeout(60)
        sock.sendall(asked("x"))
        assert b"\r\ncontent-length: 3\r\n" in answered(sock, lambda found: found.endswith(b"\r\n\r\n"))
        late.set()
        assert answered(sock, lambda found: len(found) == 3) == b"abc"


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_large_body_is_whole_on_either_loop(loop):
    with serving(application, access_log=False, loop=loop) as port:
        for path, times in itertools.product(("large", "pieces"), range(2)):
            assert exchanged(port, asked(path) * (times + 1) + LAST).count(LARGE) == times + 1


@pytest.mark.parametrize("reset", [False, True])
def test_who_leaves_early_ends_his_answer_and_nobody_else_s(reset):
    ended: list[str] = []

    async def application(scope, receive, send):
        try:
            await send(start(200, (b"content-length", b"%d" % (len(LARGE) * 20))))
            for _ in range(20):
                await send(body(LARGE, more=True))
            await send(body(b""))
        finally:
            ended.append(scope["path"])

    with serving(application, access_log=False) as port:
        with socket.create_connection(("127.0.0.1", port)) as sock:
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.sendall(asked("left"))
            sock.recv(1000)
        assert wait_until(lambda: ended == ["/left"])
        assert exchanged(port, asked("stays", version="1.0")).count(LARGE) == 20
