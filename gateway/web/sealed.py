"""Small values that a browser or a row keeps for us: sealed so that no one reads or alters them.

Promises: what `Seal.open` returns was made by `Seal.close` with the same key for the same purpose, not longer ago than
asked; anything else is ``None``. Purposes do not mix: a value sealed for one is noise to another.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

__all__ = ["Seal", "fingerprint"]


class Seal:
    """Seals values for one purpose.

    Parameters
    ----------
    secret
        `RCP_SECRET_KEY`, of which each purpose gets a key of its own [RFC 5869].
    purpose
        What the values are for, such as ``psc-attempt``.
    """

    def __init__(self, secret: bytes, purpose: str) -> None:
        derived = HKDF(SHA256(), 64, salt=None, info=f"rcp-gateway/{purpose}".encode()).derive(secret)
        self._fernet = Fernet(base64.urlsafe_b64encode(derived[:32]))
        self._mac_key = derived[32:]

    def close(self, value: dict[str, Any]) -> str:
        """Seal a JSON object; the text is safe in a cookie."""
        return self._fernet.encrypt(json.dumps(value, separators=(",", ":")).encode()).decode("ascii")

    def open(self, sealed: str, *, max_age_s: int | None = None) -> dict[str, Any] | None:
        """Return what was sealed, or ``None`` when it is foreign, altered or older than `max_age_s`."""
        try:
            value: dict[str, Any] = json.loads(self._fernet.decrypt(sealed.encode(), ttl=max_age_s))
        except (InvalidToken, ValueError):
            return None
        return value

    def mark(self, text: str) -> str:
        """Return a keyed mark of a text (HMAC-SHA-256, URL-safe), for tokens that are compared and not read."""
        return base64.urlsafe_b64encode(hmac.digest(self._mac_key, text.encode(), "sha256")).rstrip(b"=").decode()


def fingerprint(text: str) -> str:
    """Return the SHA-256 of a high-entropy text in hexadecimal: how secrets stand in the database."""
    return hashlib.sha256(text.encode()).hexdigest()
