"""Which page answers each refusal of a sign-in.

Promises: the table is total; the words are French and name nobody; the code that the trail has stands on the page too,
with the request's identifier, so that a person on the telephone can be helped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.errors import GatewayError
from gateway.web.outcome import http_status

__all__ = ["Refusal", "refusal_page"]

_HEADLINES: Final[dict[str, str]] = {
    "invalid-content": "Connexion interrompue",
    "unknown-identity": "Connexion refusée",
    "not-found": "Page introuvable",
    "forbidden": "Accès refusé",
    "conflict": "Connexion déjà faite",
    "unsupported": "Connexion impossible",
    "unavailable": "Pro Santé Connect est indisponible",
    "fault": "Connexion impossible",
}
"""Category of `gateway.errors` to the headline of its page."""

# A page offers no challenge that a browser could answer: RFC 9110 wants one with 401.
_NO_CHALLENGE: Final = {401: 403}


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refusal as its page says it."""

    status: int
    headline: str
    text: str
    reference: str


def refusal_page(error: GatewayError, request_id: str) -> Refusal:
    """Say a refusal as a page."""
    status = http_status(error)
    return Refusal(
        status=_NO_CHALLENGE.get(status, status),
        headline=_HEADLINES[error.category],
        text=error.text,
        reference=f"{error.code} · {request_id}",
    )
