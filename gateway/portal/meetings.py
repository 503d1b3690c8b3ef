"""The organisers' pages read from the model: sessions, one session with its register, the work list.

Promises: a session's patients are shown to its organisers only; anybody else gets the 404 of what does not exist; each
answer comes with the audit lines that name its persons.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from gateway.model.audit import AuditFacts
from gateway.model.dossier import Dossier
from gateway.model.meeting import Attendance, RcpSession
from gateway.model.person import WorkItem
from gateway.model.report import Report
from gateway.portal import views as v
from gateway.portal import words
from gateway.portal.informed import informed
from gateway.portal.register import register_lines
from gateway.rcp import access, dossier_states, imaging_cases, register
from gateway.rcp.access import Caller
from gateway.rcp.fiche import imagery_of
from gateway.rcp.imaging_awaited import Imagery
from gateway.rcp.sessions import quorum_of
from gateway.rcp.step import Step
from gateway.terminology import code_list

__all__ = ["PRESENCES", "attendee_line", "held_session", "quorum_view", "session_page", "sessions_page", "worklist"]

#: How one attends; the first is absence.
PRESENCES: Mapping[str, str] = {"": "Absent", "presentiel": "En salle", "webconference": "À distance"}
_LISTED = 50


def sessions_page(session: Session, caller: Caller, now: datetime) -> v.Sessions:
    """Return the sessions that the caller prepares: counts only, no person."""
    mine = access.sessions(caller, organised=True)
    coming = session.scalars(
        select(RcpSession).where(mine, RcpSession.ends_at > now).order_by(RcpSession.starts_at).limit(_LISTED)
    ).unique()
    past = session.scalars(
        select(RcpSession).where(mine, RcpSession.ends_at <= now).order_by(RcpSession.starts_at.desc()).limit(_LISTED)
    ).unique()
    lines = [*coming], [*past]
    ids = [row.id for rows in lines for row in rows]
    totals = _count(session, ids)
    pending = _count(session, ids, ("discute", "cr-brouillon"))
    open_items = session.scalar(
        select(func.count()).select_from(WorkItem).where(access.work_items(caller), WorkItem.closed_at.is_(None))
    )

    def line(row: RcpSession) -> v.SessionLine:
        return v.SessionLine(
            words.slot(row, f"/seances/{row.id}"),
            words.session_badge(row.state),
            totals.get(row.id, 0),
            pending.get(row.id, 0),
        )

    return v.Sessions(tuple(map(line, lines[0])), tuple(map(line, lines[1])), open_items or 0)


def _count(session: Session, ids: list[uuid.UUID], states: tuple[str, ...] | None = None) -> dict[uuid.UUID, int]:
    statement = (
        select(Dossier.session_id, func.count())
        .where(Dossier.session_id.in_(ids), Dossier.state.not_in(sorted(dossier_states.FINAL)))
        .group_by(Dossier.session_id)
    )
    if states is not None:
        statement = statement.where(Dossier.state.in_(states))
    return dict(session.execute(statement).tuples().all())


def held_session(session: Session, caller: Caller, session_id: uuid.UUID) -> RcpSession:
    """Return a session that the caller prepares.

    Raises
    ------
    NotFound
        It does not exist, or he does not prepare it.
    """
    found = session.scalars(
        select(RcpSession).where(RcpSession.id == session_id, access.sessions(caller, organised=True))
    ).one_or_none()
    if found is None:
        raise access.hidden(
            caller, "RcpSession", session_id, text="Cette séance n’existe pas, ou elle ne vous est pas accessible."
        )
    return found


def session_page(step: Step, caller: Caller, session_id: uuid.UUID) -> tuple[v.Session, list[AuditFacts]]:
    """Return one session with its dossiers, and the line that names their persons."""
    session = step.session
    row = held_session(session, caller, session_id)
    dossiers = list(
        session.scalars(
            select(Dossier)
            .where(Dossier.session_id == row.id, access.dossiers(caller))
            .order_by(Dossier.rank.nulls_last(), Dossier.registered_at)
        ).unique()
    )
    live = [one for one in dossiers if one.state not in dossier_states.FINAL]
    listed = [one for one in register.listed(session, caller, row.id) if one.here]
    told, named = informed(step, caller, row)
    webconference = row.rcp.webconference
    page = v.Session(
        slot=words.slot(row),
        state=words.session_badge(row.state),
        dossiers=tuple(_lines(session, caller, live)),
        register=tuple(register_lines(session, row, listed)),
        register_url=f"/seances/{row.id}/registre",
        informed=told,
        attendees=tuple(_attendees(row)),
        quorum=quorum_view(row),
        attendance_url=f"/seances/{row.id}/presents" if row.state == "ouverte" else "",
        presences=tuple(PRESENCES.items()),
        actions=_actions(row),
        webconference=v.Webconference(webconference["lien"], webconference.get("complement", ""))
        if webconference.get("lien")
        else None,
    )
    persons = tuple(dict.fromkeys([*(one.record_id for one in live), *(one.record.id for one in listed), *named]))
    line = access.facts(caller, "consultation", persons=persons, object_type="RcpSession", object_id=str(row.id))
    return page, [line] if persons else []


def _actions(row: RcpSession) -> tuple[v.Action, ...]:
    url = f"/seances/{row.id}/etat"
    if row.state in {"prevue", "reportee"}:
        return (v.Action(url, "Ouvrir la séance", primary=True, name="vers", value="ouverte"),)
    if row.state == "ouverte":
        return (v.Action(url, "Clore la séance", primary=True, name="vers", value="close"),)
    return ()


def _lines(session: Session, caller: Caller, rows: list[Dossier]) -> Iterable[v.SessionDossier]:
    ids = [row.id for row in rows]
    imagery = imagery_of(session, rows)
    reports = select(Report.dossier_id, Report.state).where(Report.dossier_id.in_(ids)).order_by(Report.version)
    reported = dict(session.execute(reports).tuples().all())
    writes: dict[uuid.UUID, bool] = {}
    for rank, row in enumerate(rows, 1):
        rcp_id = row.session.rcp_id
        if rcp_id not in writes:
            writes[rcp_id] = access.coordinates(session, caller, rcp_id)
        report = reported.get(row.id)
        # A report is drafted from the opening of the session on (`gateway.rcp.report.draft`).
        drafted = writes[rcp_id] and (report is not None or row.session.state in {"ouverte", "close"})
        shown = drafted or report in {"valide", "remplace"}
        yield v.SessionDossier(
            rank=rank,
            identity=words.identity(row.record, with_birth=False),
            reference=row.reference,
            birth_date=words.birth(row.record),
            requester=words.formal_name(row.requester) if row.requester else "–",
            url=f"/dossiers/{row.id}",
            state=words.dossier_badge(row.state),
            tumour=words.tumour_line(row),
            reason=row.reason_text or "",
            missing=tuple(_missing(row, imagery[row.id])),
            contribution=bool(row.contributions),
            imaging=imagery[row.id].received > 0,
            urgent=row.urgent,
            physician_awaited=any(one.wishes_to_attend for one in row.correspondents),
            report_url=f"/dossiers/{row.id}/compte-rendu" if shown else "",
            report_label={None: "Rédiger", "brouillon": "Poursuivre"}.get(report, "Lire"),
        )


def _missing(row: Dossier, images: Imagery) -> Iterable[str]:
    if not row.question:
        yield "question posée"
    if row.prefiche_at is None:
        yield "formulaire"
    if images.missing:
        yield f"images attendues ({len(images.missing)})"
    elif not images.complete:
        yield "imagerie"


def _attendees(row: RcpSession) -> Iterable[v.Attendee]:
    present = {one.practitioner_id: one for one in row.attendances}
    people = {one.practitioner_id: one.practitioner for one in row.rcp.members if one.until is None}
    people |= {one.practitioner_id: one.practitioner for one in row.attendances}
    for key, person in sorted(people.items(), key=lambda item: (item[1].family, item[1].given)):
        attendance = present.get(key)
        yield v.Attendee(
            key=str(key),
            professional=words.professional(person),
            present=attendance is not None,
            mode=attendance.mode if attendance is not None else "",
            mode_label=PRESENCES.get(attendance.mode, attendance.mode) if attendance is not None else "",
        )


def attendee_line(one: Attendance) -> str:
    """Return an attendee with the speciality of that day."""
    said = ", ".join(part for part in (words.formal_name(one.practitioner), words.speciality(one.speciality)) if part)
    return said if one.mode == "presentiel" else f"{said} – {PRESENCES.get(one.mode, one.mode).lower()}"


def quorum_view(row: RcpSession) -> v.Quorum:
    """Return where the session stands by the rule of its meeting."""
    quorum = quorum_of(row)
    groups = code_list("RCP-groupes-specialites")

    def named(codes: Iterable[str]) -> str:
        found = [(groups.get(code), code) for code in codes]
        return ", ".join((concept.label if concept else code).lower() for concept, code in found)

    detail = f"Spécialités présentes : {named(quorum.counted)}." if quorum.counted else "Aucune spécialité comptée."
    if quorum.missing:
        detail += f" Il manque : {named(quorum.missing)}."
    badge = v.Badge("Quorum atteint", "success") if quorum.reached else v.Badge("Quorum non atteint", "warning")
    return v.Quorum(f"{quorum.minimum} médecins de spécialités différentes au moins.", badge, detail)


def worklist(session: Session, caller: Caller) -> tuple[v.Worklist, list[AuditFacts]]:
    """Return what waits for a person's decision; an item names a dossier by its reference, never a trait."""
    rows = session.scalars(
        select(WorkItem).where(access.work_items(caller), WorkItem.closed_at.is_(None)).order_by(WorkItem.opened_at)
    ).all()
    references = dict(
        session.execute(
            select(Dossier.id, Dossier.reference).where(
                Dossier.id.in_([row.dossier_id for row in rows if row.dossier_id]), access.dossiers(caller)
            )
        ).all()
    )
    decided = set(session.scalars(select(WorkItem.id).where(imaging_cases.decidable(caller))))
    items: list[v.WorkItem] = []
    kept: list[v.WorkItem] = []
    for row in rows:
        reference = references.get(row.dossier_id) if row.dossier_id else None
        said = words.WORK_REASONS.get(row.reason, row.reason)
        held = row.kind == "imagerie" and row.reason not in words.PROPOSALS
        (kept if held else items).append(
            v.WorkItem(
                kind=words.WORK_KINDS.get(row.kind, row.kind),
                text=f"Dossier {reference} : {said}" if reference else said,
                at=words.local(row.opened_at, "Europe/Paris"),
                tone="danger" if held else "warning",
                url=f"/dossiers/{row.dossier_id}" if reference else "",
                case_url=f"/imagerie/{row.id}" if row.id in decided else "",
            )
        )
    persons = tuple(dict.fromkeys(row.record_id for row in rows if row.record_id))
    line = access.facts(caller, "consultation", persons=persons, object_type="WorkItem")
    return v.Worklist(tuple(items), tuple(kept)), [line] if rows else []
