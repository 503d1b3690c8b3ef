"""Forwarded headers are believed from a trusted proxy only."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import Request

from gateway.errors import InvalidContent
from gateway.web.proxy import TrustedProxyMiddleware, client_address, client_certificate, networks

PROXY = "10.0.0.7"


def seen(peer, headers, trusted=(PROXY, "10.1.0.0/16")):
    """Run one request through the middleware and return what the application sees."""
    caught = []

    async def app(scope, receive, send):
        caught.append(Request(scope))

    scope = {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "client": (peer, 4242),
        "headers": [(b"host", b"inside:8080"), *[(name.encode(), value.encode()) for name, value in headers]],
    }
    asyncio.run(TrustedProxyMiddleware(app, networks(trusted))(scope, None, None))
    return caught[0]


def test_stranger_is_not_believed_and_his_headers_vanish():
    request = seen(
        "192.0.2.9",
        [("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "evil"),
         ("x-ssl-client-cert", "forged")],
    )  # fmt: skip
    assert client_address(request) == "192.0.2.9"
    assert str(request.url) == "http://inside:8080/"
    assert client_certificate(request) is None
    assert "x-forwarded-for" not in request.headers
    assert "x-ssl-client-cert" not in request.headers


def test_trusted_proxy_tells_client_scheme_host_and_certificate():
    request = seen(
        PROXY,
        [("x-forwarded-for", "203.0.113.5"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "rcp.example.fr"),
         ("x-ssl-client-cert", "-----BEGIN%20CERT")],
    )  # fmt: skip
    assert client_address(request) == "203.0.113.5"
    assert str(request.url) == "https://rcp.example.fr/"
    assert client_certificate(request) == b"-----BEGIN CERT"


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ("6.6.6.6, 203.0.113.5", "203.0.113.5"),  # what the client wrote himself proves nothing
        ("203.0.113.5, 10.1.2.3", "203.0.113.5"),  # a second trusted proxy
        ("10.1.2.3", "10.1.2.3"),
        ("nonsense", PROXY),
        ("203.0.113.5, nonsense", PROXY),
        ("[2001:db8::1]", "2001:db8::1"),
        ("::ffff:203.0.113.5, ::ffff:10.1.2.3", "203.0.113.5"),
    ],
)
def test_chain_is_read_from_the_right(chain, client):
    assert client_address(seen(PROXY, [("x-forwarded-for", chain)])) == client


def test_two_lines_of_the_chain_are_one_chain():
    request = seen(PROXY, [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "203.0.113.5")])
    assert client_address(request) == "203.0.113.5"


def test_host_that_is_no_host_is_ignored():
    request = seen(PROXY, [("x-forwarded-host", "evil/path?")])
    assert request.headers["host"] == "inside:8080"


def test_setting_that_is_no_address_is_refused():
    with pytest.raises(InvalidContent, match="RCP_TRUSTED_PROXY"):
        networks(("proxy.example",))


def test_an_address_that_a_socket_of_both_families_shows_mapped_is_the_same():
    assert client_address(seen("::ffff:192.0.2.9", [])) == "192.0.2.9"
    assert client_address(seen(f"::ffff:{PROXY}", [("x-forwarded-for", "203.0.113.5")])) == "203.0.113.5"
    assert client_address(seen("2001:0db8::0001", [])) == "2001:db8::1"
