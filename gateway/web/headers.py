"""The headers that every answer carries.

Promises: no page runs a script that does not come from us as a file, none is framed, none is kept by a cache unless its
route says so (after a logout the back button shows nothing), and a browser never guesses a type. A route's own header
wins: a content-addressed file may say ``Cache-Control: immutable``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["SecurityHeadersMiddleware", "content_security_policy"]

_YEAR_S: Final = 31_536_000

_FIXED: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    # same-origin rather than no-referrer: with the latter a browser sends "Origin: null" with our own forms.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=(), payment=(), usb=()"),
    (b"cache-control", b"no-store"),
)


def content_security_policy(form_targets: tuple[str, ...] = ()) -> str:
    """Write the policy of every page: our own files only, no inline script, no inline style.

    Parameters
    ----------
    form_targets
        Origins to which the answer to one of our forms may redirect. Chromium applies ``form-action`` to redirects too:
        the logout form ends at Pro Santé Connect, on another host than its issuer.
    """
    targets = " ".join(("'self'", *form_targets))
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data:",
            "media-src 'self'",
            "font-src 'self'",
            "connect-src 'self'",
            f"form-action {targets}",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    )


class SecurityHeadersMiddleware:
    """Adds to each answer the headers that its route did not set.

    Parameters
    ----------
    form_targets
        See `content_security_policy`.
    https
        Whether the public address is https: then browsers are told to stay there (HSTS, one year).
    """

    def __init__(self, app: ASGIApp, *, form_targets: tuple[str, ...] = (), https: bool = False) -> None:
        self._app = app
        policy = (b"content-security-policy", content_security_policy(form_targets).encode("ascii"))
        transport = (b"strict-transport-security", f"max-age={_YEAR_S}; includeSubDomains".encode("ascii"))
        self._headers = (*_FIXED, policy, *((transport,) if https else ()))
        self._unsaid = lru_cache(maxsize=512)(self._but)

    def _but(self, *names: bytes) -> tuple[tuple[bytes, bytes], ...]:
        """Give the headers that none of these names is."""
        said = {name.lower() for name in names}
        return tuple((name, value) for name, value in self._headers if name not in said)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = message.get("headers", ())
                message["headers"] = [*own, *self._unsaid(*(name for name, _ in own))]
            await send(message)

        await self._app(scope, receive, answer)
