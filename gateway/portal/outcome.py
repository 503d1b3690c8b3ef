"""Which page answers each refusal.

Promises: the table is total over `gateway.errors`; the words are French and name nobody; what one may not see and what
does not exist read the same.
"""

from __future__ import annotations

from typing import Final

from gateway.errors import GatewayError
from gateway.portal.views import Error
from gateway.web.outcome import http_status

__all__ = ["error_page"]

_HEADLINES: Final[dict[int, str]] = {
    400: "Demande illisible",
    401: "Connexion nécessaire",
    403: "Action non permise",
    404: "Page introuvable",
    405: "Action impossible ici",
    409: "Impossible en l’état",
    413: "Envoi trop volumineux",
    415: "Format non accepté",
    422: "Demande refusée",
    429: "Trop de demandes",
    500: "Erreur du service",
    501: "Fonction non proposée",
    503: "Service momentanément indisponible",
}
_NOT_FOUND: Final = "Cette page n’existe pas, ou elle ne vous est pas accessible."
_FAULT: Final = "Le service a rencontré une erreur. Rien n’a été enregistré. Réessayez, puis prévenez le support."


def error_page(error: GatewayError | None, status: int | None = None, reference: str = "") -> Error:
    """Say a refusal as a page.

    Parameters
    ----------
    error
        ``None`` for an address that no route knows.
    """
    code = http_status(error) if error is not None else status or 404
    if code == 404:
        said = error.text if error is not None and error.text != "Ressource inconnue." else _NOT_FOUND
    elif code >= 500 and code not in {501, 503}:
        said = _FAULT
    else:
        said = error.text if error is not None else _FAULT
    return Error(status=code, headline=_HEADLINES.get(code, "Erreur"), text=said, reference=reference)
