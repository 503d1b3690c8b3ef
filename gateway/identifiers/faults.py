"""What can be wrong with an identifier: one code and one French text each, for refusals and for flags alike.

Promises: no text repeats a value; codes do not change, clients read them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from types import MappingProxyType

from gateway.errors import InvalidContent

__all__ = ["FAULTS", "compact", "refuse_if"]

FAULTS: Mapping[str, str] = MappingProxyType(
    {
        "ins-forme": "Le matricule INS comporte 15 caractères : 13 pour le numéro et 2 pour la clé.",
        "ins-sans-cle": "Le matricule INS est transmis sans sa clé de 2 chiffres.",
        "ins-cle": "La clé du matricule INS ne correspond pas au numéro.",
        "ins-autorite": "L’autorité d’affectation n’est pas une autorité INS connue.",
        "ins-obsolete": "L’INS calculé (INS-C) n’est plus un identifiant valable.",
        "rpps-forme": "Le numéro RPPS comporte 11 chiffres.",
        "rpps-cle": "Le dernier chiffre du numéro RPPS ne correspond pas aux précédents.",
        "idnps-forme": "L’identifiant national du professionnel est formé d’un chiffre de type et d’un numéro.",
        "mssante-forme": "L’adresse n’est pas une adresse MSSanté (domaine en « .mssante.fr »).",
        "finess-forme": "Le numéro FINESS comporte 9 caractères.",
        "finess-cle": "Le dernier chiffre du numéro FINESS ne correspond pas aux précédents.",
        "finess-lettre": "La clé d’un numéro FINESS corse (2A, 2B) n’est pas vérifiable.",
        "siren-forme": "Le numéro SIREN comporte 9 chiffres.",
        "siren-cle": "Le dernier chiffre du numéro SIREN ne correspond pas aux précédents.",
        "siret-forme": "Le numéro SIRET comporte 14 chiffres.",
        "siret-cle": "Le dernier chiffre du numéro SIRET ne correspond pas aux précédents.",
        "idnst-forme": "L’identifiant national de structure est formé d’un chiffre de type et d’un numéro.",
        "ipp-vide": "L’identifiant patient (IPP) est vide.",
        "ipp-longueur": "L’identifiant patient (IPP) dépasse 255 caractères.",
        "ipp-caracteres": "L’identifiant patient (IPP) contient un caractère de contrôle.",
        "ipp-domaine": "Le domaine d’identification de l’IPP doit être une URL ou un OID.",
        "oid-forme": "Un OID est une suite de nombres séparés par des points, sans zéro initial.",
        "oid-longueur": "L’OID dépasse 255 caractères.",
        "uid-forme": "Un UID DICOM est une suite de nombres séparés par des points, sans zéro initial.",
        "uid-longueur": "L’UID DICOM dépasse 64 caractères.",
        "urn-forme": "Un numéro s’écrit « urn:uuid: » suivi d’un UUID, ou « urn:oid: » suivi d’un OID.",
        "reference-forme": "Une référence de dossier s’écrit comme RCP-7K3Q-29.",
        "reference-cle": "La référence de dossier comporte une faute de frappe : sa clé ne correspond pas.",
    }
)

_DEFAULT_IGNORABLE = frozenset({"Cf", "Zs", "Zl", "Zp", "Cc"})


def refuse_if(faults: tuple[str, ...], *, expression: str | None = None) -> None:
    """Refuse with the first fault, if there is one; the value itself is never repeated.

    Raises
    ------
    InvalidContent
        With the fault as its code.
    """
    if faults:
        raise InvalidContent(faults[0], FAULTS[faults[0]], expression=expression, rule=True)


def compact(typed: str) -> str:
    """Remove what people and screens put between the digits: spaces of any kind, marks of direction; upper case."""
    if typed.isascii() and typed.isalnum():
        return typed.upper()
    folded = unicodedata.normalize("NFKC", typed)
    return "".join(ch for ch in folded if unicodedata.category(ch) not in _DEFAULT_IGNORABLE).upper()
