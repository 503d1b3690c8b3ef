"""What the sender of a document is told that became of it: the national integration errors, 900 to 906.

Promises: total; a reason that no code names is 906. Texts carry no patient datum.

Sources: [CI-SIS Transmission de CDA], spec mssante 3.7 (applicationErrorCondition).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["LABELS", "error_code"]

#: Code → what it means, in French.
LABELS: Final[Mapping[str, str]] = {
    "900": "version de document incorrecte",
    "901": "auteur non autorisé à remplacer ou à supprimer ce document",
    "902": "identifiant patient inconnu",
    "903": "INS absent du document",
    "904": "INS ou traits différents de ceux qui sont connus",
    "905": "traits d’identité incomplets",
    "906": "autre erreur",
}

#: Why a document waits for a person, or is refused, by the code that its sender is told; all else is 906.
_CODES: Final[Mapping[str, str]] = {
    "version-perimee": "900",
    "document-retire": "900",
    "xdm-action": "900",
    "cda-remplace": "900",
    "auteur-non-autorise": "901",
    "document-patient-inconnu": "902",
    "plusieurs-patients": "902",
    "traits-differents": "904",
    "document-autre-patient": "904",
    "ins-differente": "904",
    "ins-cle": "904",
    "ins-forme": "904",
    "ins-sans-cle": "904",
    "ins-obsolete": "904",
    "ins-essai": "904",
    "plusieurs-ins": "904",
    "traits-absents": "905",
}


def error_code(reason: str | None) -> str | None:
    """Return the integration error that a reason is told as; none when there is none."""
    return None if reason is None else _CODES.get(reason, "906")
