"""Keys that a client publishes: read once for a while, no further and no longer than they may be; real sockets."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import pytest
from joserfc.jwk import ECKey

from gateway.fhir import auth_clients
from gateway.fhir.auth_clients import Client, Clients, TokenRefused
from gateway.rcp.step import Steps

_KEYS = {"keys": [ECKey.generate_key("P-384", {"kid": "k1"}).as_dict(private=False)]}
_BODY = msgspec.json.encode(_KEYS)
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_WHOLE = _HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)


@contextmanager
def published(answer: Callable[[socket.socket], None]) -> Iterator[tuple[Client, list[None]]]:
    """A client whose keys are published by a server that answers so, and how often it was asked."""
    asked: list[None] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    asked.append(None)
                    try:
                        answer(connection)
                    except OSError:
                        continue

        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/jwks"
        yield Client(uuid.uuid4(), "CHU", (), {"jwks_uri": url}, frozenset()), asked
        listening.shutdown(socket.SHUT_RDWR)


def test_published_keys_are_read_once_for_a_while(steps: Steps) -> None:
    clients = Clients(steps)
    with published(lambda connection: connection.sendall(_WHOLE)) as (client, asked):
        for _ in range(3):
            assert [key.kid for key in clients.keys(client).keys] == ["k1"]
        assert len(asked) == 1


def test_no_more_is_read_than_keys_may_be_long(steps: Steps) -> None:
    sent: list[int] = []

    def endless(connection: socket.socket) -> None:
        connection.sendall(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(1024):
            connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
            sent.append(65536)
        connection.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(_BODY), _BODY))

    with published(endless) as (client, _):
        with pytest.raises(TokenRefused, match="clés publiques"):
            Clients(steps).keys(client)
        assert sum(sent) < 16 * 1024 * 1024  # what the sockets hold, not the 64 MiB


def test_whoever_says_a_little_from_time_to_time_is_not_heard_out(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth_clients, "_FETCH_S", 0.2, raising=False)
    sent: list[int] = []

    def slow(connection: socket.socket) -> None:
        for byte in _HEAD[:20]:
            connection.sendall(bytes([byte]))
            sent.append(1)
            time.sleep(0.1)
        connection.sendall(_WHOLE[20:])

    with published(slow) as (client, _), pytest.raises(TokenRefused, match="clés publiques"):
        Clients(steps).keys(client)
    assert sent


@pytest.mark.parametrize("body", [b"[]", b"null", b"{", b"[" * 5000])
def test_what_holds_no_keys_is_refused_and_asked_again(steps: Steps, body: bytes) -> None:
    clients = Clients(steps)
    whole = _HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    with published(lambda connection: connection.sendall(whole)) as (client, asked):
        for _ in range(2):
            with pytest.raises(TokenRefused):
                clients.keys(client)
        assert len(asked) == 2
