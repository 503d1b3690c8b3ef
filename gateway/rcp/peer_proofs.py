"""What a connection proves of whoever calls: the address it comes from, and its TLS client certificate.

Promises: an IPv4 address is the same one when an IPv6 socket shows it mapped (``::ffff:10.0.0.7``); a host that does
not resolve is nobody's; one spelling for one certificate. Not promised: that a name resolves today.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import socket

__all__ = ["MARK", "addresses", "fingerprint", "fingerprint_of", "is_at", "plain"]

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
    """Return every address of a registered host; one that does not resolve has none."""
    try:
        return {plain(str(found[4][0])) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return set()


def is_at(host: str, address: str) -> bool:
    """Whether an address that somebody calls from is one of a registered host's."""
    return plain(address) in addresses(host)


def fingerprint(digits: str) -> str | None:
    """Read what ``openssl x509 -fingerprint -sha256`` prints, as 64 lower-case digits; None when it is none."""
    known = digits.strip().replace(":", "").lower()
    return known if _DIGITS.fullmatch(known) else None


def fingerprint_of(certificate: bytes | None) -> str | None:
    """Return the fingerprint of a certificate (DER)."""
    return hashlib.sha256(certificate).hexdigest() if certificate else None
