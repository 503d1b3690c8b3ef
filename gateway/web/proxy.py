"""Which forwarded headers are believed: only those of a trusted proxy (`RCP_TRUSTED_PROXY`).

Promises: behind this middleware ``scope["client"]``, ``scope["scheme"]`` and the ``Host`` header are those of the
client, or of the proxy itself when it is not trusted; forwarded headers of anyone else are taken away, a forged client
certificate among them. An IPv4 address is the same one when a socket of both families shows it mapped.
`client_address` and `client_certificate` are what the other layers ask.

It does not verify the certificate: the proxy did; its text is only parsed.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import unquote_to_bytes

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import InvalidContent
from gateway.rcp.peer_proofs import plain

__all__ = ["TrustedProxyMiddleware", "client_address", "client_certificate", "networks"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Headers = list[tuple[bytes, bytes]]

_FORWARDED: Final = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-real-ip",
        b"client-cert",
        b"x-ssl-client-cert",
    }
)
"""Headers that only a trusted proxy may set: ``Client-Cert`` [RFC 9440] is read, ``Forwarded`` [RFC 7239] dropped."""

_HOST: Final = re.compile(rb"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")
_CERTIFICATE: Final = "rcp_client_certificate"


def networks(addresses: tuple[str, ...]) -> tuple[Network, ...]:
    """Parse addresses and CIDR blocks.

    Raises
    ------
    InvalidContent
        ``trusted-proxy``: one of them is neither.
    """
    try:
        return tuple(ipaddress.ip_network(address, strict=False) for address in addresses)
    except ValueError as wrong:
        raise InvalidContent(
            "trusted-proxy", "RCP_TRUSTED_PROXY : attendu des adresses ou des blocs CIDR séparés par des virgules."
        ) from wrong


def client_address(connection: HTTPConnection) -> str:
    """Return the client's IP address as text, ``-`` for a client without one."""
    return connection.client.host if connection.client else "-"


def client_certificate(connection: HTTPConnection) -> bytes | None:
    """Return the client certificate told by a trusted proxy, PEM or DER as it came, else ``None``."""
    found = connection.scope.get(_CERTIFICATE)
    return found if isinstance(found, bytes) else None


class TrustedProxyMiddleware:
    """Believes forwarded headers of trusted peers and strips everyone else's; stands outermost.

    Parameters
    ----------
    trusted
        The networks of `RCP_TRUSTED_PROXY`; empty trusts nobody.
    """

    def __init__(self, app: ASGIApp, trusted: tuple[Network, ...] = ()) -> None:
        self._app = app
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            client = scope.get("client")
            if client and ":" in client[0]:  # a socket of both families shows 10.0.0.7 as ::ffff:10.0.0.7
                scope = {**scope, "client": (plain(client[0]), client[1])}
            scope = self._believed(scope)
        await self._app(scope, receive, send)

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted)

    def _believed(self, scope: Scope) -> Scope:
        headers: Headers = scope["headers"]
        told = {name: value for name, value in headers if name in _FORWARDED}
        if not told:
            return scope
        kept = [(name, value) for name, value in headers if name not in _FORWARDED]
        believed = {**scope, "headers": kept}
        peer = scope["client"][0] if scope.get("client") else ""
        if not self._is_trusted(peer):
            return believed
        # All X-Forwarded-For lines together: a client may have sent one of its own before the proxy's.
        chain = b",".join(value for name, value in headers if name == b"x-forwarded-for")
        believed["client"] = (self._origin(chain.decode("latin-1"), peer), 0)
        proto = told.get(b"x-forwarded-proto", b"").strip().lower()
        if proto in {b"http", b"https"}:
            believed["scheme"] = proto.decode("ascii")
        host = told.get(b"x-forwarded-host", b"").strip()
        if _HOST.fullmatch(host):
            believed["headers"] = [(name, value) for name, value in kept if name != b"host"] + [(b"host", host)]
        certificate = told.get(b"x-ssl-client-cert") or told.get(b"client-cert")
        if certificate:
            believed[_CERTIFICATE] = unquote_to_bytes(certificate)
        return believed

    def _origin(self, chain: str, peer: str) -> str:
        # Read from the right: the last address that no trusted proxy has is the client; what stands left of it was
        # written by the client and proves nothing.
        for told in reversed([part.strip() for part in chain.split(",") if part.strip()]):
            try:
                address = plain(str(ipaddress.ip_address(told.strip("[]"))))
            except ValueError:
                return peer
            if not self._is_trusted(address):
                return address
            peer = address
        return peer
