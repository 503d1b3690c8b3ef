"""The portal's French words for what the model holds as codes, and how people and identities are printed.

Promises: every code of the tables has its label; an unknown one is shown as it is rather than hidden. Nothing here
reads the database.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from gateway.model.directory import Practitioner
from gateway.model.dossier import Dossier
from gateway.model.meeting import Rcp, RcpSession
from gateway.model.person import PatientRecord
from gateway.portal.received_words import RECEIVED_REASONS
from gateway.portal.views import Badge, Patient, Professional, Slot, Tone
from gateway.rcp import dossier_states, french
from gateway.rcp.register import Identity, Person
from gateway.terminology import code_list

__all__ = [
    "ANSWERED",
    "ATTEMPTS",
    "LEVELS",
    "LINKS",
    "MAILBOXES",
    "PARTICIPATIONS",
    "PROPOSALS",
    "RECEIPTS",
    "ROLES",
    "URGENT_REASONS",
    "WORK_KINDS",
    "WORK_REASONS",
    "birth",
    "dossier_badge",
    "formal_name",
    "identity",
    "instant",
    "local",
    "message_badge",
    "patient_view",
    "place",
    "professional",
    "register_tone",
    "report_badge",
    "session_badge",
    "sex_label",
    "since",
    "slot",
    "speciality",
    "titled",
    "tumour_line",
]

LEVELS: Final = {"locale": "Locale", "regionale": "Régionale", "nationale": "Nationale", "europeenne": "Européenne"}
ROLES: Final = {
    "medecin-traitant": "Médecin traitant",
    "demandeur": "Demandeur",
    "correspondant": "Médecin correspondant de la tumeur",
}
PARTICIPATIONS: Final = {
    "present": "Participera en salle",
    "absent": "Ne participera pas",
    "webconference": "Participera en webconférence",
}
#: States in which a request has its answer (S0-052).
ANSWERED: Final = frozenset({"cr-valide", "envoye", "addendum", "correction"})
_DOSSIER_TONES: Final[dict[str, Tone]] = {
    "prefiche": "info",
    "notifie": "info",
    "discute": "info",
    "cr-brouillon": "warning",
    "cr-valide": "success",
    "envoye": "success",
    "addendum": "success",
    "correction": "success",
    "reporte": "warning",
    "non-discute": "warning",
    "refuse": "danger",
}
_SESSIONS: Final[dict[str, Badge]] = {
    "prevue": Badge("Prévue"),
    "ouverte": Badge("Ouverte", "info"),
    "close": Badge("Close", "success"),
    "reportee": Badge("Reportée", "warning"),
    "annulee": Badge("Annulée", "danger"),
}
_REPORTS: Final[dict[str, Badge]] = {
    "brouillon": Badge("Brouillon", "warning"),
    "valide": Badge("Validé", "success"),
    "remplace": Badge("Remplacé"),
    "annule": Badge("Annulé", "danger"),
}
_MESSAGES: Final[dict[str, Badge]] = {
    "en-attente": Badge("En attente d’envoi"),
    "envoye": Badge("Envoyé", "info"),
    "accepte": Badge("Remis", "success"),
    "retarde": Badge("Retardé", "warning"),
    "relaye": Badge("Relayé", "info"),
    "sans-nouvelle": Badge("Sans nouvelle, à traiter", "warning"),
    "supprime": Badge("Supprimé sans être lu", "warning"),
    "refuse": Badge("Refusé", "danger"),
    "rejete": Badge("Rejeté", "danger"),
    "traite": Badge("Intégré par le logiciel", "success"),
    "lu": Badge("Lu", "success"),
    "parque": Badge("Échec, à traiter", "danger"),
    "annule": Badge("Annulé"),
}
RECEIPTS: Final = {
    "remise": "Remis",
    "retardee": "Retardé",
    "relayee": "Relayé",
    "rejetee": "Non remis",
    "supprimee": "Supprimé sans être lu",
    "traitee": "Intégré par le logiciel",
    "lue": "Lu",
    "refusee": "Non intégré",
}
#: Outcome of one attempt at sending or reading a mail.
ATTEMPTS: Final = {
    "delivered": "Accepté",
    "refused": "Refusé",
    "unavailable": "Tentative sans effet",
    "uncertain": "Tentative interrompue",
}
MAILBOXES: Final = {"PER": "personnelle", "CAB": "cabinet", "ORG": "secrétariat ou structure", "APP": "logiciel"}
#: Questions of the shared pré-fiche, by their stable key; another form's questions show their own key.
LINKS: Final = {
    "motif.type": "Type de RCP",
    "motif.statut": "Statut du cas",
    "motif.question": "Question posée",
    "tumeur.code": "Diagnostic CIM-10",
    "tumeur.tnm": "TNM",
    "etat.oms": "Échelle OMS",
    "resultats.pieces": "Pièces jointes",
}
WORK_KINDS: Final = {
    "identite": "Identité à vérifier",
    "imagerie": "Étude d’imagerie",
    "notification": "Notification",
    "message": "Document reçu",
}
WORK_REASONS: Final = {
    "domaine-hors-partenaire": "L’étude porte un identifiant d’un domaine qui n’est pas celui de son établissement.",
    "patient-inconnu": "Le patient de l’étude n’est pas connu ici.",
    "traits-seuls": "L’étude ressemble à un patient connu, par ses seuls traits : à confirmer.",
    "demande-sans-traits": "Une demande d’examen désigne un patient ; l’étude ne dit pas assez de lui : à confirmer.",
    "demande-d-un-autre-patient": "La demande d’examen à laquelle l’étude répond est celle d’un autre patient.",
    "detachee-par-une-personne": "Une personne a retiré cette étude du patient à qui elle était rattachée.",
    "identifiants-contradictoires": "Les identifiants de l’étude désignent plusieurs patients.",
    "date-de-naissance-differente": "La date de naissance de l’étude contredit celle du patient.",
    "sexe-different": "Le sexe de l’étude contredit celui du patient.",
    "nom-different": "Le nom de l’étude contredit celui du patient.",
    "prenom-different": "Le prénom de l’étude contredit celui du patient.",
    "autres-octets": "Une image déjà reçue est revenue avec un autre contenu.",
    "identite-autre-que-l-etude": "Une image porte une autre identité que le reste de son étude.",
    "pas-mon-patient": "Le médecin traitant déclaré signale que ce n’est pas son patient.",
    "seance-deplacee": "La séance a changé de date après l’envoi des notifications : prévenez le médecin traitant.",
    "seance-annulee": "La séance est annulée : ce dossier attend une autre séance.",
    "changement-non-annonce": "Le médecin traitant n’a plus d’adresse MSSanté : dites-lui le changement de la séance.",
    "demandeur-sans-adresse": "Le demandeur n’a pas d’adresse MSSanté : prévenez-le de la contribution reçue.",
    "non-envoyee-avant-la-seance": "La notification du médecin traitant n’est pas partie avant la séance.",
    "cr-non-envoye": "Le compte rendu n’a pas pu être envoyé à un destinataire.",
    "envoi-refuse": "L’opérateur a refusé ce courriel.",
    "envoi-rejete": "Ce courriel n’a pas été remis.",
    "envoi-parque": "Ce courriel n’est pas parti malgré plusieurs tentatives.",
    "images-refusees": "L’application de destination a refusé ces images, ou la confirmation qu’elles sont conservées.",
    "images-non-parties": "Ces images ne sont pas parties, malgré plusieurs tentatives.",
    "abonnement-en-erreur": "Un logiciel abonné ne reçoit plus les notifications : son abonnement est arrêté.",
    "envoi-non-integre": "Le logiciel du destinataire n’a pas intégré ce document.",
    "envoi-supprime": "Le destinataire a supprimé ce courriel sans le lire.",
    "sans-nouvelle": "Aucun accusé de remise n’est venu : joignez le destinataire autrement (téléphone).",
    "sans-lecture": "Ce compte rendu est remis, et aucun accusé de lecture n’est venu en sept jours.",
    "courriel-trop-grand": "Un courriel trop grand pour être pris est resté dans la boîte.",
    "courriel-dsn": "Un accusé de remise ne correspond à aucun courriel envoyé d’ici.",
    "courriel-mdn": "Un accusé de lecture ne correspond à aucun courriel envoyé d’ici.",
    "courriel-bounce": "Un retour d’erreur sans détail est arrivé.",
    "courriel-integration-error": "Un logiciel signale qu’il n’a pas intégré un document.",
    "courriel-document": "Un document est arrivé par messagerie.",
    "courriel-reply": "Un courriel répond à l’un des nôtres.",
    "courriel-human": "Un courriel inattendu est arrivé.",
    "meme-ins-traits-differents": "Deux sources donnent le même INS avec d’autres traits : rien n’est rapproché.",
    **RECEIVED_REASONS,
}
#: Somebody was not told, or a document is missing where it is needed.
URGENT_REASONS: Final = frozenset(
    {
        "cr-non-envoye",
        "envoi-refuse",
        "envoi-rejete",
        "envoi-parque",
        "envoi-non-integre",
        "non-envoyee-avant-la-seance",
    }
)
#: Questions about images that are still open to a match; every other one is held in quarantine.
PROPOSALS: Final = frozenset({"domaine-hors-partenaire", "patient-inconnu", "traits-seuls", "demande-sans-traits"})
_REGISTER_TONES: Final[dict[str, Tone]] = {
    "PREVUE": "info",
    "ENVOYEE": "success",
    "REMISE": "success",
    "LUE": "success",
}
_SEXES: Final = {"F": "Féminin", "M": "Masculin"}
_CIVILITIES: Final = {"F": "Mme", "M": "M."}
_KINDS: Final = {"F": "Femme", "M": "Homme"}
_TITLES: Final = {"DR": "Docteur", "PR": "Professeur", "MME": "Mme", "M": "M."}
_STATUSES: Final = {
    "provisoire": "Identité provisoire",
    "recuperee": "Identité récupérée",
    "validee": "Identité validée",
    "qualifiee": "Identité qualifiée",
}


def dossier_badge(state: str) -> Badge:
    """Return the state of a dossier as a badge."""
    return Badge(dossier_states.LABELS.get(state, state), _DOSSIER_TONES.get(state, "neutral"))


def session_badge(state: str) -> Badge:
    """Return the state of a session as a badge."""
    return _SESSIONS.get(state, Badge(state))


def report_badge(state: str) -> Badge:
    """Return the state of a version of a report as a badge."""
    return _REPORTS.get(state, Badge(state))


def message_badge(state: str) -> Badge:
    """Return what became of an outgoing message as a badge."""
    return _MESSAGES.get(state, Badge(state))


def register_tone(code: str | None) -> Tone:
    """Return the colour of a line of the register: what did not leave asks for attention."""
    return _REGISTER_TONES.get(code or "", "danger" if code == "ECHEC" else "warning")


def formal_name(person: Practitioner | Person) -> str:
    """Return « Docteur Paul DURANT »; a physician without a title is « Docteur » (S2-021)."""
    title = _TITLES.get((person.title or "DR").upper(), person.title or "")
    return " ".join(part for part in (title, person.given, person.family.upper()) if part)


def titled(name: str) -> str:
    """Return a frozen name with its title written out: « Docteur Camille NGUYEN »."""
    first, _, rest = name.partition(" ")
    written = _TITLES.get(first.rstrip(".").upper())
    if written:
        return f"{written} {rest}"
    return name if first in _TITLES.values() else f"Docteur {name}"


def speciality(code: str | None) -> str:
    """Return the words of a speciality of TRE_R38, without the list's own suffix; a code of no list as it came."""
    if not code:
        return ""
    concept = code_list("TRE_R38").get(code)
    return re.sub(r" \([A-Z]{2,3}\)$", "", concept.label) if concept else code


def professional(person: Practitioner | None, display: str | None = None) -> Professional:
    """Return a professional as printed; a name alone when the sender gave no number."""
    if person is None:
        return Professional(display or "Non renseigné")
    organisations = [role.organisation.name for role in person.roles if role.organisation is not None]
    return Professional(formal_name(person), speciality(person.speciality), organisations[0] if organisations else "")


def place(rcp: Rcp, session: RcpSession | None = None) -> str:
    """Return where a session is held."""
    return (session.place if session is not None else None) or rcp.place


def slot(session: RcpSession, url: str = "") -> Slot:
    """Return when and where a session is held, in its own zone."""
    zone = ZoneInfo(session.zone)
    note = "" if session.zone == "Europe/Paris" else f"({french.zone_label(session.zone)})"
    return Slot(
        rcp=session.rcp.title,
        start=session.starts_at.astimezone(zone),
        end=session.ends_at.astimezone(zone),
        place=place(session.rcp, session),
        zone_note=note,
        url=url,
    )


def _birth(written: str | None) -> str:
    """Return a date of birth as people read it; a partial one stays partial."""
    parts = (written or "").split("-")
    return "/".join(reversed(parts)) if written else "inconnue"


def _age(written: str | None, today: date) -> str:
    try:
        born = date.fromisoformat(written or "")
    except ValueError:
        return ""
    years = today.year - born.year - ((today.month, today.day) < (born.month, born.day))
    if years < 0:
        return ""
    return f"{years} an" if years == 1 else f"{years} ans"


def _ins_badge(record: PatientRecord) -> Badge:
    if record.ins_qualified:
        return Badge("INS qualifiée", "success")
    if record.ins_value:
        return Badge("INS non qualifiée", "warning")
    return Badge(_STATUSES.get(record.identity_status or "", "Identité provisoire"), "warning")


def _spaced_ins(value: str) -> str:
    """Return « 2 65 03 33 063 001 97 »."""
    return " ".join(
        part for part in (value[0:1], value[1:3], value[3:5], value[5:7], value[7:10], value[10:13], value[13:]) if part
    )


def patient_view(record: PatientRecord, today: date, source: str = "") -> Patient:
    """Return the identity banner of a record.

    The number of an INS is printed only when it is qualified (DECISIONS 9).
    """
    used = (record.used_family or "").upper()
    birth = (record.birth_family or "").upper()
    return Patient(
        family=used or birth or "NOM INCONNU",
        birth_family=birth,
        given=" ".join(record.given_names) or record.used_given or record.given or "",
        sex=record.sex,
        sex_label=_SEXES.get(record.sex, "Inconnu"),
        born=french.born(record.sex),
        birth_date=_birth(record.birth_date),
        age_label=_age(record.birth_date, today),
        birth_place=f"code INSEE {record.birth_place}" if record.birth_place else "",
        ins=_spaced_ins(record.ins_value) if record.ins_qualified and record.ins_value else "",
        ins_badge=_ins_badge(record),
        numbers=((f"IPP ({source})" if source else "IPP", record.value),),
    )


def identity(record: PatientRecord | Identity, *, with_birth: bool = True) -> str:
    """Return « Femme DUPONT Jeanne (01/03/1965) » (S2-032), or « Mme DUPONT Jeanne » in a list that has the date."""
    words = _KINDS if with_birth else _CIVILITIES
    surname = (record.used_family or record.birth_family or "").upper()
    name = " ".join(
        part for part in (words.get(record.sex, ""), surname, record.used_given or record.given or "") if part
    )
    return f"{name} ({_birth(record.birth_date)})" if with_birth else name


def birth(record: PatientRecord | Identity) -> str:
    """Return the date of birth of a record as people read it."""
    return _birth(record.birth_date)


def sex_label(code: str) -> str:
    """Return a sex in words."""
    return _SEXES.get(code, "Inconnu")


def since(age: timedelta) -> str:
    """Say how long something waits, as people count."""
    hours = int(age.total_seconds() // 3600)
    if hours < 1:
        return "moins d’une heure"
    if hours < 24:
        return f"{hours} h"
    return "1 jour" if hours < 48 else f"{hours // 24} jours"


def tumour_line(dossier: Dossier) -> str:
    """Return the tumour in one line: its code if any, and the words of the requester."""
    topography = (dossier.clinical.get("tumour") or {}).get("topography") or {}
    parts = [topography.get("code"), dossier.label or topography.get("text")]
    return " – ".join(part for part in parts if part)


def local(instant: datetime, zone: str) -> datetime:
    """Return an instant on the wall clock of a place."""
    return instant.astimezone(ZoneInfo(zone))


def instant(at: datetime) -> str:
    """Return « 11/05/2023 à 18h30 »."""
    return f"{french.short_date(at)} à {french.hour(at)}"
