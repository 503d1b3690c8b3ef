"""How a partner is recognised on the MLLP port: by its address, by its TLS client certificate, or by both together.

Written ``host``, ``sha256:FINGERPRINT`` or ``sha256:FINGERPRINT@host``; the fingerprint is that of the certificate
(DER), as ``openssl x509 -fingerprint -sha256`` prints it.

Promises: one spelling for one peer; an IPv6 address, with or without brackets, in its shortest one. Not promised: that
a name resolves today.
"""

from __future__ import annotations

import ipaddress
import re

from msgspec import Struct

from gateway.errors import InvalidContent
from gateway.rcp.peer_proofs import MARK, fingerprint, plain

__all__ = ["MllpPeer"]

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?", re.ASCII)


class MllpPeer(Struct, frozen=True):
    """One way to recognise a partner; `certificate` is 64 lower-case hexadecimal digits."""

    host: str | None = None
    certificate: str | None = None

    @classmethod
    def parse(cls, text: str) -> MllpPeer:
        """Read what an operator writes, or what is kept.

        Raises
        ------
        InvalidContent
            ``pair-mllp`` (rule).
        """
        said, certificate = text.strip(), None
        if said.lower().startswith(MARK):
            digits, _, said = said[len(MARK) :].partition("@")
            certificate = fingerprint(digits)
            if certificate is None or (not said and "@" in text):
                raise _refused()
        literal = plain(said[1:-1] if said.startswith("[") and said.endswith("]") else said)
        if _address(literal):
            said = literal
        elif said and not _HOST.fullmatch(said):
            raise _refused()
        if not said and certificate is None:
            raise _refused()
        return cls(said.lower() or None, certificate)

    @property
    def value(self) -> str:
        """How it is kept."""
        certificate = f"{MARK}{self.certificate}" if self.certificate else ""
        return "@".join(part for part in (certificate, self.host) if part)

    @property
    def says(self) -> int:
        """How much it demands of a caller: of two that fit, the one that says more is the caller's."""
        return 2 * (self.certificate is not None) + (self.host is not None)


def _address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text  # the zone of a link is this machine's affair, and no caller says it


def _refused() -> InvalidContent:
    text = "Un pair MLLP s’écrit « hôte », « sha256:EMPREINTE » ou « sha256:EMPREINTE@hôte » (certificat client)."
    return InvalidContent("pair-mllp", text, expression="mllp", rule=True)
