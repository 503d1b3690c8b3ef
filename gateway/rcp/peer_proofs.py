"""What a connection proves of whoever calls: the address it comes from, and its TLS client certificate.

Promises: an IPv4 address is the same one when an IPv6 socket shows it mapped (``::ffff:10.0.0.7``); a host that does
not resolve is nobody's, nor one whose name servers are silent for some seconds; one spelling for one certificate. Who
recognises in a transaction asks for names before or after it, never within (`recognised`). Not promised: that a name
resolves today.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from typing import Final, TypeVar

__all__ = ["MARK", "Places", "addresses", "fingerprint", "fingerprint_of", "is_at", "plain", "recognised"]

Found = TypeVar("Found")

#: How long name servers may take; the resolver's own patience is half a minute for one name.
_NAMES_S: Final = 3.0
_UNDER_WAY: Final[dict[str, Future[set[str]]]] = {}
_TURN: Final = threading.Lock()
#: What a fingerprint begins with where an operator writes one.
MARK = "sha256:"
_DIGITS = re.compile(r"[0-9a-f]{64}", re.ASCII)


def plain(address: str) -> str:
    """Write an address in its one way: IPv4 as such when mapped `[RFC 4291 §2.5.5.2]`, IPv6 in its shortest form."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(known, ipaddress.IPv6Address) and known.ipv4_mapped is not None:
        return str(known.ipv4_mapped)
    return str(known)


def addresses(host: str) -> set[str]:
    """Return every address of a registered host; one that does not resolve in time has none."""
    return _addresses([host])[host]


def is_at(host: str, address: str) -> bool:
    """Whether an address that somebody calls from is one of a registered host's; may wait for name servers."""
    return plain(address) in addresses(host)


class Places:
    """Where whoever calls is, of the hosts that were asked for.

    Parameters
    ----------
    address
        Where the call comes from.
    """

    def __init__(self, address: str) -> None:
        self._address = plain(address)
        self._known: dict[str, bool] = {}
        self._unknown: frozenset[str] = frozenset()

    def know(self, hosts: Iterable[str]) -> bool:
        """Whether `at` can say of each of these hosts whether the call comes from there."""
        self._unknown = frozenset(host for host in hosts if not _is_address(host)) - self._known.keys()
        return not self._unknown

    def ask(self) -> None:
        """Ask for those that are not known; may wait for name servers."""
        self._known |= {host: self._address in found for host, found in _addresses(self._unknown).items()}

    def at(self, host: str) -> bool:
        """Whether the call comes from a host that is known."""
        return plain(host) == self._address if _is_address(host) else self._known[host]


def recognised(address: str, find: Callable[[Places], Found | None]) -> Found:
    """Say who calls; no name is asked for while he is looked for.

    Parameters
    ----------
    find
        Look in one transaction; None when some of the hosts that it takes are not known yet.
    """
    places = Places(address)
    while (found := find(places)) is None:
        places.ask()
    return found


def _addresses(hosts: Collection[str]) -> dict[str, set[str]]:
    """Ask for all at once, and wait so long for all together."""
    asked = {host: _asked(host) for host in hosts}
    until = time.monotonic() + _NAMES_S
    return {host: _answer(future, until) for host, future in asked.items()}


def _answer(future: Future[set[str]], until: float) -> set[str]:
    try:
        return future.result(max(0.0, until - time.monotonic()))
    except TimeoutError:
        return set()


def _asked(host: str) -> Future[set[str]]:
    """Begin to ask for a host, or wait with who asks already: a name server that hangs holds one thread a name."""
    answer = Future[set[str]]()
    if _is_address(host):
        answer.set_result({plain(host)})
        return answer
    with _TURN:
        other = _UNDER_WAY.setdefault(host, answer)
    if other is answer:
        threading.Thread(target=_resolve, args=(host, answer), name="names", daemon=True).start()
    return other


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _resolve(host: str, answer: Future[set[str]]) -> None:
    found: set[str] = set()
    try:
        found = {plain(str(one[4][0])) for one in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        pass  # nobody's
    finally:
        with _TURN:
            del _UNDER_WAY[host]
        answer.set_result(found)


def fingerprint(digits: str) -> str | None:
    """Read what ``openssl x509 -fingerprint -sha256`` prints, as 64 lower-case digits; None when it is none."""
    known = digits.strip().replace(":", "").lower()
    return known if _DIGITS.fullmatch(known) else None


def fingerprint_of(certificate: bytes | None) -> str | None:
    """Return the fingerprint of a certificate (DER)."""
    return hashlib.sha256(certificate).hexdigest() if certificate else None
