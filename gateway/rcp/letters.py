"""What the letters about a dossier say: the values of their texts, from canonical rows.

Promises: links lead to the network's own portal by opaque ids and stand in a letter only when the page exists
(DECISIONS 18); names are as the directory has them, a physician without a title is « Docteur » (S2-021); hours are
those of the RCP's wall, with the reader's own beside when he lives elsewhere. Sends nothing.
"""

from __future__ import annotations

import re
from datetime import datetime
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from gateway.errors import InvalidContent
from gateway.model.directory import Practitioner
from gateway.model.dossier import Dossier
from gateway.model.meeting import RcpSession
from gateway.model.person import PatientRecord
from gateway.rcp.french import (
    born,
    hour,
    long_day,
    partial_date,
    patient_surname,
    short_date,
    zone_note,
)
from gateway.rcp.mailboxes import is_mssante
from gateway.rcp.ports import AgendaEntry
from gateway.rcp.templates import Rendered, Values, variant_for

__all__ = [
    "agenda_entry",
    "announcement_values",
    "answer_values",
    "change_values",
    "compose",
    "contribution_values",
    "formal_title",
    "full_name",
    "patient_values",
    "preliminary_values",
    "requester_words",
    "video_values",
]

_TITLES = {"PR": "Professeur", "PG": "Professeur", "PC": "Professeur"}

# First three characters of a French overseas postal code: the zone of most of that territory. It only chooses whether
# the reader's hour is shown beside the meeting's; holidays never come from it.
_OVERSEAS = {
    "971": "America/Guadeloupe",
    "972": "America/Martinique",
    "973": "America/Cayenne",
    "974": "Indian/Reunion",
    "975": "America/Miquelon",
    "976": "Indian/Mayotte",
    "986": "Pacific/Wallis",
    "987": "Pacific/Tahiti",
    "988": "Pacific/Noumea",
}


def compose(session: Session, code: str, values: Values, address: str) -> Rendered:
    """Fill the text that may go to an address: outside MSSanté the neutral variant, which names nobody.

    Raises
    ------
    InvalidContent
        ``mail-hors-mssante``: the text names a patient, has no neutral variant, and the address is not MSSanté.
    """
    chosen = variant_for(code, inside_mssante=is_mssante(session, address))
    if chosen is None:
        text = "Ce message nomme un patient : il ne part que vers une boîte MSSanté."
        raise InvalidContent("mail-hors-mssante", text)
    return chosen.render(values)


def formal_title(who: Practitioner) -> str:
    """Return « Professeur » or « Docteur »."""
    return _TITLES.get((who.title or "").upper(), "Docteur")


def full_name(who: Practitioner) -> str:
    """Return « Docteur Paul DURANT »."""
    return f"{formal_title(who)} {who.given} {who.family.upper()}"


def patient_values(record: PatientRecord) -> dict[str, str | bool]:
    """Values that name the patient, as his source does."""
    return {
        "patient.nom": patient_surname(record.birth_family or "(nom non communiqué)", record.used_family, record.sex),
        "patient.prenom": record.used_given or record.given or "(prénom non communiqué)",
        "patient.ne": born(record.sex),
        "patient.date_naissance": partial_date(record.birth_date),
    }


def preliminary_values(
    dossier: Dossier, physician: Practitioner, *, answers_read: bool = False
) -> dict[str, str | bool]:
    """Values of M1 and M1b.

    Parameters
    ----------
    answers_read
        Whether an answer by mail becomes a contribution; an RCP may still not offer it (``reponse_mail``).
    """
    session, rcp = dossier.session, dossier.session.rcp
    base, link = rcp.network.base_url.rstrip("/"), _fiche(dossier)
    start = session.starts_at.astimezone(ZoneInfo(session.zone))
    webconference = rcp.webconference.get("lien") or ""
    return {
        **patient_values(dossier.record),
        **_meeting_values(dossier),
        **_requester_values(dossier),
        "mt.titre": formal_title(physician),
        "mt.nom": physician.family.upper(),
        "mt.prenom": physician.given,
        "seance.jour_long": long_day(start.date()),
        "seance.heure": hour(start, spaced=rcp.notification.get("format_heure") == "18 h 30"),
        "seance.note_fuseau": zone_note(session.starts_at, session.zone, _zone_of(physician)),
        "probleme": dossier.label or "",
        "reponse_mail": answers_read and bool(rcp.notification.get("reponse_mail", True)),
        "webconf": bool(webconference),
        "lien_webconf": webconference,
        "webconf.complement": rcp.webconference.get("complement") or "",
        "lien_fiche": link,
        "lien_pas_mon_patient": f"{link}/pas-mon-patient",
        "lien_memo_mt": f"{base}/aide/medecin-traitant",
    }


def change_values(
    dossier: Dossier, physician: Practitioner, *, told_at: datetime, told_start: datetime
) -> dict[str, str | bool]:
    """Values of M1c, but for what has changed.

    Parameters
    ----------
    told_at, told_start
        When he was told last, and for when.
    """
    said, zone = preliminary_values(dossier, physician), ZoneInfo(dossier.session.zone)
    spaced = dossier.session.rcp.notification.get("format_heure") == "18 h 30"
    before, start = told_at.astimezone(zone), told_start.astimezone(zone)
    left = ("mt.prenom", "patient.ne", "probleme", "reponse_mail", "webconf", "lien_pas_mon_patient", "lien_memo_mt")
    return {name: value for name, value in said.items() if name not in left} | {
        "envoi_precedent": f"{short_date(before)} à {hour(before, spaced=spaced)}",
        "ancienne.date": f"{long_day(start.date())} à {hour(start, spaced=spaced)}",
    }


def contribution_values(dossier: Dossier, author: Practitioner, *, interested: bool) -> dict[str, str | bool]:
    """Values of M2; the contribution's own text is not among them (S2-038)."""
    return {
        **patient_values(dossier.record),
        **_meeting_values(dossier),
        **_requester_values(dossier),
        "mt.titre": formal_title(author),
        "mt.nom": author.family.upper(),
        "interet": interested,
        "lien_fiche": _fiche(dossier),
    }


def answer_values(dossier: Dossier) -> dict[str, str | bool]:
    """Values of M7 and M8, which name no patient."""
    meeting = _meeting_values(dossier)
    return {name: meeting[name] for name in ("seance.date", "reference")} | {"lien_fiche": _fiche(dossier)}


def announcement_values(dossier: Dossier, administrator: Practitioner) -> dict[str, str | bool]:
    """Values of M3 and of its neutral variant, but for what is found or counted (`gateway.rcp.added_values`)."""
    meeting = _meeting_values(dossier)
    return {
        **patient_values(dossier.record),
        **_hours(dossier),
        "rcp.titre": meeting["rcp.titre"],
        "seance.date": meeting["seance.date"],
        "admin.titre": formal_title(administrator),
        "admin.nom": administrator.family.upper(),
        "urgence": dossier.urgent,
        "lien_fiche": _fiche(dossier),
        "lien_plateforme": dossier.session.rcp.network.base_url,
    }


def video_values(dossier: Dossier, requester: Practitioner) -> dict[str, str | bool]:
    """Values of M4, which names no patient."""
    session, rcp, meeting = dossier.session, dossier.session.rcp, _meeting_values(dossier)
    return {
        **_hours(dossier),
        "rcp.titre": meeting["rcp.titre"],
        "rcp.lieu": meeting["rcp.lieu"],
        "rcp.contact": meeting["rcp.contact"],
        "seance.note_fuseau": zone_note(session.starts_at, session.zone, _zone_of(requester)),
        "prescripteur.titre": formal_title(requester),
        "prescripteur.nom": requester.family.upper(),
        "lien_webconf": rcp.webconference.get("lien") or "",
        "webconf.complement": rcp.webconference.get("complement") or "",
        # The RCP's own page, for the tool that it uses; else ours, which tries the browser (DECISIONS 18).
        "lien_test": rcp.webconference.get("test") or f"{rcp.network.base_url.rstrip('/')}/aide/test",
    }


def agenda_entry(session: RcpSession) -> AgendaEntry:
    """Return a session for the agenda of who comes by video; of its dossiers it says nothing."""
    rcp, web = session.rcp, session.rcp.webconference
    host = rcp.network.base_url.partition("://")[2].partition("/")[0]
    said = (f"Lien : {web['lien']}" if web.get("lien") else "", web.get("complement") or "", rcp.contact or "")
    return AgendaEntry(
        uid=f"{session.id}@{host}",
        sequence=session.version - 1,
        starts_at=session.starts_at,
        ends_at=session.ends_at,
        title=f"RCP {rcp.title}",
        place=rcp.place or "",
        text="\n".join(filter(None, said)),
    )


def _hours(dossier: Dossier) -> dict[str, str | bool]:
    session, spaced = dossier.session, dossier.session.rcp.notification.get("format_heure") == "18 h 30"
    start, end = (at.astimezone(ZoneInfo(session.zone)) for at in (session.starts_at, session.ends_at))
    return {
        "seance.jour_long": long_day(start.date()),
        "seance.heure": hour(start, spaced=spaced),
        "seance.heure_fin": hour(end, spaced=spaced),
    }


def _fiche(dossier: Dossier) -> str:
    return f"{dossier.session.rcp.network.base_url.rstrip('/')}/dossiers/{dossier.id}"


def _meeting_values(dossier: Dossier) -> dict[str, str | bool]:
    session, rcp = dossier.session, dossier.session.rcp
    start: datetime = session.starts_at.astimezone(ZoneInfo(session.zone))
    return {
        "rcp.titre": rcp.title,
        "rcp.lieu": session.place or rcp.place,
        "rcp.signature": rcp.signature or rcp.title,
        "rcp.contact": rcp.contact or rcp.network.contact,
        "seance.date": short_date(start.date()),
        "reference": dossier.reference,
    }


def _requester_values(dossier: Dossier) -> dict[str, str | bool]:
    title, name = requester_words(dossier)
    return {"demandeur.titre": title, "demandeur.nom": name}


def requester_words(dossier: Dossier) -> tuple[str, str]:
    """Return title and name of who asked for the opinion, as far as he is known."""
    requester = dossier.requester
    if requester is not None:
        return formal_title(requester), requester.family.upper()
    said = next((one.display for one in dossier.correspondents if one.role == "demandeur" and one.display), None)
    name = re.sub(r"^(?:dr|docteur|pr|professeur)\.?\s+", "", said or "", flags=re.IGNORECASE)
    return "Docteur", name or "(nom non communiqué)"


def _zone_of(who: Practitioner) -> str | None:
    for role in who.roles:
        code = role.organisation.postal_code if role.organisation is not None else None
        if code:
            return _OVERSEAS.get(code[:3], "Europe/Paris")
    return None
