"""A report read: its last validated version, the name of what somebody read of a draft, the kept bytes of a form.

Promises: a form leaves with the line of the trail that says so; what a reader may not see does not exist for him. Not
promised: anything written (`gateway.rcp.report`).
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.model.audit import AuditFacts
from gateway.model.dossier import Dossier
from gateway.model.report import Report, ReportForm
from gateway.rcp import access, fiche

__all__ = ["draft_reading", "kept_form", "latest", "reading_of"]

_PUBLISHED = ("valide", "remplace", "annule")


def reading_of(report: Report) -> uuid.UUID:
    """Name what somebody who reads a draft now reads: the draft, the fiche, the contributions, the attendance.

    Two readings have the same name exactly when a validation would freeze the same words of people.
    """
    dossier = report.dossier
    until = report.validated_at
    contributions = sorted(
        (one.key, one.at.isoformat(), one.text) for one in dossier.contributions if until is None or one.at <= until
    )
    attendees = sorted((str(one.practitioner_id), one.mode) for one in dossier.session.attendances)
    said = msgspec.json.encode([report.draft, fiche.reading_of(dossier), contributions, attendees], order="sorted")
    return uuid.uuid5(report.id, hashlib.sha256(said).hexdigest())


def draft_reading(draft: Report | None) -> str:
    """Name what somebody who writes a draft has before him: its words alone, or that there is none yet."""
    said = msgspec.json.encode([str(draft.id), draft.draft] if draft is not None else [], order="sorted")
    return hashlib.sha256(said).hexdigest()


def latest(session: Session, dossier_id: uuid.UUID) -> Report | None:
    """Return the last version that was ever validated, even if it was withdrawn since."""
    return session.scalars(
        select(Report)
        .where(Report.dossier_id == dossier_id, Report.state.in_(_PUBLISHED))
        .order_by(Report.version.desc())
        .limit(1)
    ).first()


def kept_form(
    session: Session, caller: access.Caller, dossier_id: uuid.UUID, version: int, form: str
) -> tuple[ReportForm, Sequence[AuditFacts]]:
    """Find one form of one version for a reader, with the audit lines that its release writes (`Steps.read`).

    Raises
    ------
    NotFound
        No such version or form, or not for this caller.
    """
    found = session.scalar(
        select(ReportForm)
        .join(Report, Report.id == ReportForm.report_id)
        .join(Dossier, Dossier.id == Report.dossier_id)
        .where(
            Dossier.id == dossier_id,
            Report.version == version,
            Report.state.in_(_PUBLISHED),
            ReportForm.form == form,
            access.dossiers(caller),
        )
    )
    if found is None:
        raise access.hidden(caller, "Report", dossier_id)
    report = found.report
    line = access.facts(
        caller,
        "consultation",
        persons=(report.dossier.record_id,),
        dossier=dossier_id,
        object_type="ReportForm",
        object_id=str(found.id),
        object_version=str(version),
        object_sha256=found.sha256,
    )
    return found, (line,)
