"""Proof that a form was sent from one of our own pages.

Promises: a form that changes something is accepted only with the token of the very session (or sign-in attempt) that
its page was made for, and never from another site when the browser says where it comes from. The token is a keyed mark
of the session's identifier: nothing is stored, and it dies with the session.
"""

from __future__ import annotations

import hmac
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request

from gateway.errors import Forbidden
from gateway.web.sealed import Seal

__all__ = ["CSRF_FIELD", "CSRF_HEADER", "Csrf"]

CSRF_FIELD: Final = "csrf"
"""Name of the hidden field."""
CSRF_HEADER: Final = "x-csrf-token"
"""Name of the header that a script of ours may use instead."""


class Csrf:
    """Makes and checks the tokens.

    Parameters
    ----------
    seal
        A `Seal` of purpose ``csrf``.
    public_url
        Our own address, of which the origin is compared.
    """

    def __init__(self, seal: Seal, public_url: str) -> None:
        self._seal = seal
        parts = urlsplit(public_url)
        self._origin = f"{parts.scheme}://{parts.netloc}"

    def token(self, bound_to: str) -> str:
        """Return the token for a form of the session (or attempt) named by `bound_to`."""
        return self._seal.mark(bound_to)

    def check(self, request: Request, bound_to: str, given: str | None) -> None:
        """Accept a form or refuse it.

        Raises
        ------
        Forbidden
            ``form-foreign``: the token is absent or another session's, or the browser names another site.
        """
        site = request.headers.get("sec-fetch-site")
        origin = request.headers.get("origin")
        here = f"{request.url.scheme}://{request.headers.get('host', '')}"
        foreign = site not in {None, "same-origin", "none"} or origin not in {None, self._origin, here}
        proof = given or request.headers.get(CSRF_HEADER) or ""
        if foreign or not hmac.compare_digest(proof.encode(), self.token(bound_to).encode()):
            raise Forbidden(
                "form-foreign", "Ce formulaire n’est plus valable : rechargez la page puis envoyez-le de nouveau."
            )
