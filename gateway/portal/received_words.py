"""Why a mail that came in waits for a person, in French: replies and documents."""

from __future__ import annotations

from typing import Final

__all__ = ["RECEIVED_REASONS"]

_ARCHIVE = "L’archive reçue est refusée"

RECEIVED_REASONS: Final = {
    "adresse-non-notifiee": "Une réponse vient d’une autre adresse que celle qui a été notifiée.",
    "contribution-close": "Une réponse est arrivée après la validation du compte rendu ou le retrait du dossier.",
    "contribution-longue": "Une réponse est trop longue pour être versée à la fiche.",
    "reference-introuvable": "Une réponse ne désigne aucun dossier connu.",
    "message-vide": "Une réponse ne contient aucun texte nouveau.",
    "piece-jointe-seule": "Une réponse ne contient qu’une pièce jointe.",
    "pieces-jointes": "Une réponse a été versée à la fiche ; ses pièces jointes attendent ici.",
    "role": "L’auteur d’une réponse n’est pas, ou plus, le médecin traitant déclaré.",
    "inconnu": "Une réponse ne désigne aucun dossier connu.",
    "expediteur-douteux": "Les en-têtes de ce courriel ne désignent pas un seul expéditeur de MSSanté.",
    "reponse-a-un-accuse": "Un courriel répond à un accusé automatique de la passerelle.",
    "document-patient-inconnu": "Le patient du document reçu n’est pas connu ici.",
    "plusieurs-patients": "Le document reçu désigne plusieurs patients que rien ne rapproche.",
    "traits-absents": "Il manque au document reçu un trait strict d’identité.",
    "traits-differents": "Les traits d’identité du document reçu contredisent ceux du patient.",
    "ins-cle": "La clé de l’INS du document reçu est fausse.",
    "ins-forme": "L’INS du document reçu est mal formée.",
    "ins-sans-cle": "L’INS du document reçu n’a pas de clé.",
    "ins-obsolete": "Le document reçu porte un INS calculé, qui n’a plus cours.",
    "ins-essai": "Le document reçu porte un INS de test ou de démonstration.",
    "plusieurs-ins": "Le document reçu porte plusieurs INS.",
    "ins-differente": "Le document reçu porte un autre INS que le patient que désigne son numéro local.",
    "document-autre-patient": "Le document reçu concerne un autre patient que celui auquel il répond ou qu’il suit.",
    "auteur-non-autorise": "Un autre que son auteur veut remplacer ou retirer un document reçu.",
    "document-retire": "Un document déjà retiré par son auteur est arrivé.",
    "meme-identifiant-autres-octets": "Un document reçu porte l’identifiant d’un autre, avec un autre contenu.",
    "version-perimee": "Une version plus récente du document reçu est déjà là.",
    "zip-bombe": f"{_ARCHIVE}\u00a0: sa taille ou le nombre de ses entrées dépasse les limites, ou n’est pas la vraie.",
    "zip-chemin": f"{_ARCHIVE}\u00a0: une entrée sort de l’archive ou n’est pas un fichier.",
    "zip-doublon": f"{_ARCHIVE}\u00a0: deux entrées portent le même nom.",
    "zip-chiffre": f"{_ARCHIVE}\u00a0: elle est chiffrée.",
    "zip-methode": f"{_ARCHIVE}\u00a0: sa méthode de compression n’est pas acceptée.",
    "zip-tronque": f"{_ARCHIVE}\u00a0: elle est incomplète ou abîmée.",
    "zip-crc": f"{_ARCHIVE}\u00a0: le contrôle d’une entrée ne correspond pas.",
    "zip-illisible": f"{_ARCHIVE}\u00a0: ce n’est pas une archive cohérente.",
    "xdm-imbrique": f"{_ARCHIVE}\u00a0: elle en contient une autre, qui n’est pas ouverte.",
    "xdm-sans-metadata": f"{_ARCHIVE}\u00a0: elle n’a pas de METADATA.XML.",
    "xdm-deux-metadata": f"{_ARCHIVE}\u00a0: elle a plusieurs METADATA.XML.",
    "xdm-metadata": f"{_ARCHIVE}\u00a0: METADATA.XML est incorrect.",
    "xdm-chemin": f"{_ARCHIVE}\u00a0: l’adresse d’un document en sort.",
    "xdm-fichier-absent": f"{_ARCHIVE}\u00a0: un document annoncé n’y est pas.",
    "xdm-taille": f"{_ARCHIVE}\u00a0: la taille d’un document n’est pas celle annoncée.",
    "xdm-empreinte": f"{_ARCHIVE}\u00a0: l’empreinte d’un document n’est pas la sienne.",
    "xdm-patient": f"{_ARCHIVE}\u00a0: l’identifiant de patient est illisible.",
    "xdm-patients": f"{_ARCHIVE}\u00a0: elle désigne plusieurs patients.",
    "xdm-identifiant": f"{_ARCHIVE}\u00a0: un document n’a pas l’identifiant annoncé.",
    "xdm-action": f"{_ARCHIVE}\u00a0: l’action demandée n’est ni un remplacement, ni un retrait.",
    "xdm-sans-cda": f"{_ARCHIVE}\u00a0: elle ne contient aucun document CDA.",
    "xml-entites": "Le document reçu est refusé\u00a0: il déclare un type de document ou une inclusion.",
    "xml-malforme": "Le document reçu est refusé\u00a0: son XML est mal formé.",
    "cda-entete": "Le document reçu est refusé\u00a0: son en-tête ne désigne pas un seul document et un seul patient.",
    "cda-pdf": "Le document reçu est refusé\u00a0: le PDF qu’il enveloppe est illisible.",
}
