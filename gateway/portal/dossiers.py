"""« Vos patients », read from the model, and « ce n’est pas mon patient ».

Promises: every query carries `gateway.rcp.access`'s predicate; what the caller may not see is the same 404 as what does
not exist; each answer comes with the audit lines that name its persons, to be durable before it leaves.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session, selectinload

from gateway.errors import Forbidden
from gateway.model.audit import AuditFacts
from gateway.model.dossier import Correspondent, Dossier
from gateway.model.plan import CarePlan
from gateway.model.report import Report
from gateway.portal import views as v
from gateway.portal import words
from gateway.rcp import access, dossier_states
from gateway.rcp.access import Caller

__all__ = ["PatientsQuery", "declined", "not_my_patient", "patients", "visible_dossier"]

_READ_AT_ONCE = 500
_TILES = 60
_FILTERS = (("attente", "Demande en attente"), ("repondue", "Demande répondue"))
_SIZES = (10, 20, 50, 100)


@dataclass(frozen=True)
class PatientsQuery:
    """What « Vos patients » was asked for; anything unknown falls back to the default (S2-030)."""

    states: tuple[str, ...] = ()
    page: int = 1
    size: int = 10

    @classmethod
    def read(cls, states: Iterable[str], page: str | None, size: str | None) -> PatientsQuery:
        """Read the query string."""
        known = tuple(code for code, _ in _FILTERS if code in set(states))
        wanted = int(size) if size and size.isdecimal() and len(size) < 4 else _SIZES[0]
        number = int(page) if page and page.isdecimal() and len(page) < 6 else 1
        return cls(known, max(1, number), wanted if wanted in _SIZES else _SIZES[0])


def patients(
    session: Session, caller: Caller, now: datetime, query: PatientsQuery
) -> tuple[v.Patients, list[AuditFacts]]:
    """Return the landing page and the line that names whom it shows."""
    visible = access.dossiers(caller)
    total = session.scalar(select(func.count()).select_from(Dossier).where(visible)) or 0
    rows = list(
        session.scalars(
            select(Dossier).where(visible).order_by(Dossier.registered_at.desc(), Dossier.id).limit(_READ_AT_ONCE)
        ).unique()
    )
    answered = sum(row.state in words.ANSWERED for row in rows)
    counts = {"attente": len(rows) - answered, "repondue": answered}
    kept = [row for row in rows if not query.states or _answer_state(row) in query.states]
    news = sorted(_news(session, kept, now), key=lambda line: line.at, reverse=True)
    start = (query.page - 1) * query.size
    page = v.Patients(
        total=total,
        tiles=tuple(_tile(row, now) for row in kept[:_TILES]),
        shown=len(kept),
        news=tuple(news[start : start + query.size]),
        news_total=len(news),
        filters=tuple(
            v.Choice(code, f"{label} ({counts[code]})", selected=code in query.states) for code, label in _FILTERS
        )
        if rows
        else (),
        page=query.page,
        page_size=query.size,
        query="".join(f"&etat={state}" for state in query.states),
    )
    persons = tuple(dict.fromkeys(row.record_id for row in kept))
    lines = [access.facts(caller, "consultation", persons=persons, object_type="Patients")] if persons else []
    return page, lines


def _answer_state(row: Dossier) -> str:
    return "repondue" if row.state in words.ANSWERED else "attente"


def _tile(row: Dossier, now: datetime) -> v.Tile:
    return v.Tile(
        patient=words.patient_view(row.record, now.date()),
        rcp=row.session.rcp.title,
        start=words.local(row.session.starts_at, row.session.zone),
        state=v.Badge("Demande répondue", "success")
        if row.state in words.ANSWERED
        else words.dossier_badge(row.state)
        if row.state in dossier_states.FINAL
        else v.Badge("Demande en attente", "warning"),
        url=f"/dossiers/{row.id}",
        tumour=words.tumour_line(row),
    )


def _news(session: Session, rows: list[Dossier], now: datetime) -> Iterable[v.News]:
    reports = session.execute(
        select(Report.dossier_id, Report.validated_at, Report.version)
        .where(Report.dossier_id.in_([row.id for row in rows]), Report.state.in_(("valide", "remplace")))
        .order_by(Report.version)
    ).all()
    plans = session.scalars(
        select(CarePlan)
        .where(CarePlan.dossier_id.in_([row.id for row in rows]), CarePlan.state != "brouillon")
        .order_by(CarePlan.version)
    ).all()
    for row in rows:
        zone = row.session.zone
        start = words.local(row.session.starts_at, zone)
        shared: dict[str, Any] = {
            "identity": words.identity(row.record),
            "tumour": words.tumour_line(row),
            "url": f"/dossiers/{row.id}",
        }
        if row.state not in dossier_states.FINAL and row.session.state != "annulee":
            # « À venir » stays until the session's end (S2-033).
            when = f"{start:%d/%m/%Y}"
            said = (
                f"À venir : présentation en {row.session.rcp.title} le {when}"
                if now < row.session.ends_at
                else f"Présenté le {when} en {row.session.rcp.title}"
            )
            yield v.News(at=start, information=said, **shared)
        for one in row.contributions:
            yield v.News(at=words.local(one.at, zone), information=f"Contribution de {one.author_name}", **shared)
        for dossier_id, validated_at, version in reports:
            if dossier_id == row.id and validated_at is not None:
                said = "Compte rendu disponible" if version == 1 else f"Compte rendu : version {version} disponible"
                yield v.News(at=words.local(validated_at, zone), information=said, **shared)
        for plan in plans:
            if plan.dossier_id == row.id and plan.validated_at is not None:
                who = words.professional(plan.author)
                place = f" ({who.structure})" if who.structure else ""
                said = f"Nouveau PPS généré par {plan.author.family.upper()} {plan.author.given}{place}"
                yield v.News(at=words.local(plan.validated_at, zone), information=said, **shared)


def visible_dossier(session: Session, caller: Caller, dossier_id: uuid.UUID) -> Dossier:
    """Return a dossier that exists for this caller.

    Raises
    ------
    NotFound
        It does not exist, or not for him.
    """
    found = session.scalars(
        select(Dossier).where(Dossier.id == dossier_id, access.dossiers(caller)).options(selectinload(Dossier.moves))
    ).one_or_none()
    if found is None:
        raise access.hidden(
            caller, "Dossier", dossier_id, text="Ce dossier n’existe pas, ou il ne vous est pas accessible."
        )
    return found


def declined(session: Session, caller: Caller, dossier_id: uuid.UUID) -> datetime | None:
    """Return when the caller said that it is not his patient; he sees the dossier no more, but what he said stands."""
    return session.scalar(
        select(Correspondent.declined_at).where(
            Correspondent.dossier_id == dossier_id,
            Correspondent.practitioner_id == caller.practitioner_id,
            Correspondent.role == "medecin-traitant",
            Correspondent.declined_at.is_not(None),
        )
    )


def not_my_patient(
    session: Session, caller: Caller, now: datetime, dossier_id: uuid.UUID
) -> tuple[v.NotMyPatient, list[AuditFacts]]:
    """Return the page that asks to confirm, or that says that it is done.

    Raises
    ------
    NotFound
        The dossier does not exist for this caller.
    Forbidden
        He may read it but is not its treating physician.
    """
    done = declined(session, caller, dossier_id)
    if done is not None:
        return v.NotMyPatient(recorded=words.local(done, "Europe/Paris")), []
    row = visible_dossier(session, caller, dossier_id)
    if access.treats(caller, row) is None:
        error = Forbidden("role", "Seul le médecin traitant déclaré peut signaler que ce n’est pas son patient.")
        error.trail = access.facts(
            caller, "refus", outcome="4", reason="role", object_type="Dossier", object_id=str(dossier_id)
        )
        raise error
    page = v.NotMyPatient(
        patient=words.patient_view(row.record, now.date(), row.partner.name if row.partner else ""),
        slot=words.slot(row.session),
        action=f"/dossiers/{row.id}/pas-mon-patient",
        reference=row.reference,
        back_url=f"/dossiers/{row.id}",
    )
    line = access.facts(
        caller, "consultation", persons=(row.record_id,), dossier=row.id, object_type="Dossier", object_id=str(row.id)
    )
    return page, [line]
