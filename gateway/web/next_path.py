"""Where a browser goes after a sign-in: a path of ours, or the default.

Promises: whatever the text, the answer is a path on this very host; a link in a mail survives the round trip to
Pro Santé Connect and never becomes an open redirect (S0-031).
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, urlsplit

from starlette.requests import Request

__all__ = ["HOME", "local_path", "sign_in_address"]

HOME: Final = "/patients"
"""Where one lands without a wish."""

_MAX_CHARACTERS: Final = 2000
# Printable ASCII without backslash (browsers read it as a slash), quotes and angle brackets.
_PLAIN: Final = re.compile(r"/[A-Za-z0-9._~!$&()*+,;=:@%/?#\[\]-]*")
_ENTRANCES: Final = ("/connexion", "/deconnexion", "/psc/")


def local_path(wish: str | None, default: str = HOME) -> str:
    """Return the wished path when it is one of ours, else `default`.

    Examples
    --------
    >>> local_path("/dossiers/42?vue=fiche")
    '/dossiers/42?vue=fiche'
    >>> local_path("https://evil.example/"), local_path("//evil.example"), local_path(None)
    ('/patients', '/patients', '/patients')
    """
    if not wish or len(wish) > _MAX_CHARACTERS or not _PLAIN.fullmatch(wish) or wish.startswith("//"):
        return default
    try:
        parts = urlsplit(wish)
    except ValueError:
        return default
    if parts.scheme or parts.netloc or parts.path.startswith(_ENTRANCES):
        return default
    return wish


def sign_in_address(request: Request) -> str:
    """Write the address of the sign-in page that leads back to what was asked for, for a GET; else to the home page."""
    if request.method not in {"GET", "HEAD"}:
        return "/connexion"
    asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return f"/connexion?next={quote(local_path(asked), safe='/')}"
