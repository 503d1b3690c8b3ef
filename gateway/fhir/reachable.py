"""Where notifications may go: addresses outside, looked up once and reached as looked up.

[RFC 6761; RFC 6762; RFC 6890; RFC 6052; RFC 8375; RFC 9476; spec fhir-fr 3.8]

Whoever may write a Subscription chooses an address that the gateway calls from inside: what it could reach there and
its client could not must never be called.

Promises: a name is looked up once for a request, every address that it gives must be outside, and the request goes to
one of these very addresses, whatever the name says a moment later; the certificate is still judged by the name. Not
promised: a proxy on the way.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import SplitResult, urlsplit

from gateway.errors import Forbidden, Unavailable

__all__ = ["Endpoints", "Pinned", "by_mail", "looked_up"]

Address = IPv4Address | IPv6Address
#: Gives the addresses of a host.
Lookup = Callable[[str, int], Awaitable[Sequence[str]]]

_MAILBOX = re.compile(r"mailto:[^@\s?&/]{1,64}@(?P<host>[^@\s?&/]{3,253})")
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]")
#: Ends of names that lead nowhere but inside.
_INSIDE = (".local", ".localhost", ".internal", ".home.arpa", ".lan", ".alt")
#: Addresses that hold one of IPv4 in their last bits: a translator leads there [RFC 6052].
_TRANSLATED: Final = IPv6Network("64:ff9b::/96")
#: All that IPv6 has given to the public network.
_GIVEN: Final = IPv6Network("2000::/3")
#: What the interpreter's own registry may not know yet, or counts as public: special ones of IPv4 and IPv6 [RFC 6890].
_SPECIAL: Final = tuple(
    ip_network(one)
    for one in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
_PORTS: Final = {"https": 443, "http": 80}
_URL_CHARS: Final = 2000


@dataclass(frozen=True, slots=True)
class Pinned:
    """One request's way: its target, the ``Host`` that it names, and the name that the certificate must have."""

    url: str
    host: str
    name: str | None


async def looked_up(host: str, port: int) -> Sequence[str]:
    """Addresses of a host, as the system looks them up."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(one[4][0]) for one in found]


class Endpoints:
    """Judges addresses.

    Parameters
    ----------
    loopback
        Whether this machine itself may be told, in clear too: for trials, never in ``prod``.
    hosts
        The only names that may be told, ``*.example.org`` for all below; all of them when empty.
    lookup
        How a name is looked up.
    """

    def __init__(self, *, loopback: bool = False, hosts: Sequence[str] = (), lookup: Lookup = looked_up) -> None:
        self._loopback = loopback
        self._hosts = tuple(host.lower() for host in hosts)
        self._lookup = lookup

    def takes(self, endpoint: str) -> bool:
        """Whether an address may be asked for at all, as far as its text tells."""
        parts = _parts(endpoint)
        if parts is None:
            return False
        host = (parts.hostname or "").lower()
        if self._loopback and _is_loopback(host):
            return parts.scheme in _PORTS
        return parts.scheme == "https" and _outside(host) and self._allowed(host)

    async def pin(self, endpoint: str) -> Pinned:
        """Look an address up, and say where to go.

        Raises
        ------
        Forbidden
            ``abonnement-adresse-refusee``: the address is not taken here, or leads inside.
        Unavailable
            ``abonnement-adresse-introuvable``.
        """
        parts = _parts(endpoint)
        if parts is None or not self.takes(endpoint):
            raise _refused()
        host, port = (parts.hostname or "").lower(), parts.port or _PORTS[parts.scheme]
        try:
            found = [ip_address(one.partition("%")[0]) for one in await self._lookup(host, port)]
        except (OSError, UnicodeError, ValueError) as error:
            text = "L’adresse de l’abonnement est introuvable."
            raise Unavailable("abonnement-adresse-introuvable", text) from error
        here = self._loopback and _is_loopback(host)
        if not found or not all(one.is_loopback if here else is_outside(one) for one in found):
            raise _refused()
        address = next((one for one in found if one.version == 4), found[0])
        shown = f"[{address}]" if address.version == 6 else str(address)
        target = f"{parts.scheme}://{shown}:{port}{parts.path or '/'}" + (f"?{parts.query}" if parts.query else "")
        return Pinned(target, parts.netloc, None if _literal(host) is not None else host)

    def _allowed(self, host: str) -> bool:
        return not self._hosts or any(
            host.endswith(one[1:]) if one.startswith("*.") else host == one for one in self._hosts
        )


def by_mail(endpoint: str) -> bool:
    """Whether an address is that of a mailbox outside."""
    found = _MAILBOX.fullmatch(endpoint)
    return found is not None and _outside(found["host"].lower())


def is_outside(address: Address) -> bool:
    """Whether an address is one of the public network, also when it is another one in disguise."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_outside(address.ipv4_mapped)
        if address in _TRANSLATED:
            return is_outside(IPv4Address(int(address) & 0xFFFFFFFF))
        if address not in _GIVEN:
            return False
    special = any(address in net for net in _SPECIAL if net.version == address.version)
    return address.is_global and not special and not address.is_multicast and not address.is_reserved


def _parts(endpoint: str) -> SplitResult | None:
    """Read an address; nothing for one that could mean two places."""
    if len(endpoint) > _URL_CHARS or not endpoint.isascii() or not endpoint.isprintable() or "\\" in endpoint:
        return None
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError:
        return None
    bare = "@" not in parts.netloc and not parts.fragment and " " not in endpoint
    return parts if parts.scheme in _PORTS and parts.hostname and bare and port != 0 else None


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    literal = _literal(host)
    return host == "localhost" if literal is None else literal.is_loopback


def _outside(host: str) -> bool:
    """Whether a host may stand outside: a public address, or a whole name that no resolver keeps inside."""
    literal = _literal(host)
    if literal is not None:
        return is_outside(literal)
    return _HOST.fullmatch(host) is not None and not host.endswith(_INSIDE)


def _refused() -> Forbidden:
    return Forbidden(
        "abonnement-adresse-refusee", "L’adresse de l’abonnement n’est pas de celles que l’on joint d’ici."
    )
