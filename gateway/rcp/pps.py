"""The personalised care plan (PPS) of a dossier: written from its validated report, validated, replaced, read.

Promises: who asked for the opinion, and who coordinates the RCP, write it, once a report is in force; two people at
once are told of each other; what a version says is frozen at its validation with the report that it follows and never
changes, its document is kept under its SHA-256 in the same step; an update is a new version that says why and replaces;
validating twice is the same validation. Not promised: that it is sent to anybody.

[spec cda-frcp 9, features E25, fhir-fr 1.21]
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.errors import Conflict, Forbidden, InvalidContent
from gateway.exchange import pending
from gateway.exchange.blobs import BlobStore
from gateway.identifiers import uuid7
from gateway.model.audit import AuditFacts
from gateway.model.directory import Practitioner
from gateway.model.dossier import Dossier
from gateway.model.plan import CarePlan
from gateway.model.report import Report
from gateway.rcp import access, pps_draft
from gateway.rcp.pps_content import PpsContent
from gateway.rcp.report_content import decode
from gateway.rcp.step import Step

__all__ = [
    "content_to_be",
    "discard",
    "entitled",
    "held",
    "in_force",
    "kept_document",
    "reading_of",
    "said",
    "under_way",
    "validate",
    "versions",
    "write",
]

#: Writes the document of a plan; the same facts give the same bytes.
Render = Callable[[PpsContent], bytes]


def entitled(session: Session, caller: access.Caller, dossier: Dossier) -> bool:
    """Whether this person writes the plan: the physician who asked for the opinion, or who coordinates the RCP."""
    if caller.kind is not access.CallerKind.PROFESSIONAL or caller.practitioner_id is None:
        return False
    return caller.practitioner_id == dossier.requester_id or access.coordinates(session, caller, dossier.session.rcp_id)


def followed(session: Session, dossier_id: uuid.UUID) -> Report | None:
    """Return the report in force, which a plan follows."""
    return session.scalars(select(Report).where(Report.dossier_id == dossier_id, Report.state == "valide")).first()


def held(step: Step, dossier_id: uuid.UUID) -> tuple[Dossier, Practitioner, Report]:
    """Lock a dossier whose plan the caller may write; say who he is and which report it follows.

    Raises
    ------
    NotFound
        It does not exist for him.
    Forbidden
        ``lecture-seule``: he reads it only.
    Conflict
        ``cr-absent``: no report is in force.
    """
    visible = select(Dossier.id).where(Dossier.id == dossier_id, access.dossiers(step.caller))
    if step.session.scalar(visible) is None:
        raise access.hidden(step.caller, "Dossier", dossier_id)
    [dossier] = step.lock(Dossier, dossier_id)
    author = step.session.get(Practitioner, step.caller.practitioner_id) if step.caller.practitioner_id else None
    if author is None or not entitled(step.session, step.caller, dossier):
        error = Forbidden("lecture-seule", "Le PPS est écrit par le demandeur et les coordonnateurs de la RCP.")
        error.trail = access.facts(
            step.caller, "refus", outcome="4", reason="lecture-seule", object_type="CarePlan", object_id=str(dossier_id)
        )
        raise error
    report = followed(step.session, dossier_id)
    if report is None:
        raise Conflict("cr-absent", "Aucune version validée du compte rendu n’est en vigueur.")
    return dossier, author, report


def under_way(session: Session, dossier_id: uuid.UUID) -> CarePlan | None:
    """Return the draft of a dossier, read anew; there is one at most."""
    return session.scalars(
        select(CarePlan)
        .where(CarePlan.dossier_id == dossier_id, CarePlan.state == "brouillon")
        .execution_options(populate_existing=True)
    ).first()


def versions(session: Session, dossier_id: uuid.UUID) -> Sequence[CarePlan]:
    """Return the validated versions, newest first."""
    return session.scalars(
        select(CarePlan)
        .where(CarePlan.dossier_id == dossier_id, CarePlan.state != "brouillon")
        .order_by(CarePlan.version.desc())
    ).all()


def in_force(session: Session, dossier_id: uuid.UUID) -> CarePlan | None:
    """Return the validated version that nothing replaces."""
    return next(iter(versions(session, dossier_id)), None)


def said(session: Session, dossier_id: uuid.UUID, report: Report) -> dict[str, Any]:
    """Return what the draft says, or what a draft that is begun now would start from."""
    draft, former = under_way(session, dossier_id), in_force(session, dossier_id)
    if draft is not None:
        return dict(draft.draft)
    if former is not None:
        return pps_draft.renewed(former.draft)
    return pps_draft.started(decode(report.content or b""))


def reading_of(session: Session, dossier_id: uuid.UUID, report: Report) -> str:
    """Name what somebody who reads the draft now reads: what it says, and the report that it follows."""
    former = in_force(session, dossier_id)
    version = 1 + (former.version if former is not None else 0)
    return _reading(version, said(session, dossier_id, report), report)


def _reading(version: int, draft: Mapping[str, Any], report: Report) -> str:
    read = msgspec.json.encode([version, str(report.id), draft], order="sorted")
    return hashlib.sha256(read).hexdigest()


def _require_read(expected: str | None, now: str) -> None:
    if expected is not None and expected != now:
        text = "Le PPS, ou le compte rendu qu’il suit, a changé depuis que vous l’avez ouvert : relisez-le."
        raise Conflict("pps-change", text)


def write(step: Step, dossier_id: uuid.UUID, changes: Mapping[str, Any], *, expected: str | None = None) -> CarePlan:
    """Write the draft, begun the first time from what is known; an empty value erases.

    Parameters
    ----------
    expected
        What the person read (`reading_of`).

    Raises
    ------
    NotFound, Forbidden, Conflict
        As `held`; ``pps-change``: somebody else wrote, or the report changed, since it was read.
    InvalidContent
        As `gateway.rcp.pps_draft.judged`.
    """
    dossier, author, report = held(step, dossier_id)
    now = said(step.session, dossier.id, report)
    wanted = {key: one for key, one in {**now, **pps_draft.judged(changes)}.items() if one is not None}
    plan = under_way(step.session, dossier.id)
    if plan is not None and wanted == now:
        return plan
    _require_read(expected, reading_of(step.session, dossier.id, report))
    event = "modification"
    if plan is None:
        former = in_force(step.session, dossier.id)
        plan = CarePlan(
            id=uuid7(),
            dossier_id=dossier.id,
            set_id=former.set_id if former is not None else uuid.uuid4(),
            version=former.version + 1 if former is not None else 1,
            replaces_id=former.id if former is not None else None,
        )
        step.session.add(plan)
        event = "creation"
    # A new object, because changes inside a JSON value are not seen.
    plan.draft, plan.author_id = wanted, author.id
    _written(step, plan, dossier, event)
    return plan


def discard(step: Step, dossier_id: uuid.UUID, *, expected: str | None = None) -> None:
    """Throw the draft away; what was validated stays.

    Parameters
    ----------
    expected
        As `write`.

    Raises
    ------
    NotFound, Forbidden, Conflict
        As `held`; ``pps-absent`` when there is no draft; ``pps-change``.
    """
    dossier, _author, report = held(step, dossier_id)
    plan = _draft(step, dossier)
    _require_read(expected, reading_of(step.session, dossier.id, report))
    step.session.delete(plan)
    _written(step, plan, dossier, "modification", action="D")


def content_to_be(step: Step, dossier_id: uuid.UUID) -> PpsContent:
    """Give the facts that a validation would freeze now.

    Raises
    ------
    NotFound, Forbidden, Conflict
        As `held`; ``pps-absent`` when there is no draft.
    """
    dossier, author, report = held(step, dossier_id)
    return _content(step, _draft(step, dossier), report, author)


def validate(
    step: Step, dossier_id: uuid.UUID, render: Render, blobs: BlobStore, *, expected: str | None = None
) -> CarePlan:
    """Validate the draft: freeze its facts, keep its document, replace the version in force.

    Parameters
    ----------
    expected
        What the person read (`reading_of`); what was validated meanwhile is returned as it is: a double click is one
        validation.

    Raises
    ------
    NotFound, Forbidden
        As `held`.
    Conflict
        ``cr-absent``; ``pps-absent``: nothing to validate; ``pps-change``: the draft is not the one that was read.
    InvalidContent
        ``pps-vide``: it plans nothing; ``pps-motif-absent``; ``report-frcp``: the document would be wrong.
    """
    dossier, author, report = held(step, dossier_id)
    former, plan = in_force(step.session, dossier.id), under_way(step.session, dossier.id)
    if plan is None and former is not None and expected == _reading(former.version, former.draft, report):
        return former
    plan = _draft(step, dossier)
    _require_read(expected, _reading(plan.version, plan.draft, report))
    _require_enough(plan)
    content = _content(step, plan, report, author)
    document = render(content)
    kept = pending.keep(step.session, blobs, document, read_again=True)
    plan.content, plan.state = msgspec.json.encode(content), "valide"
    plan.sha256, plan.size_bytes = kept.sha256, kept.size_bytes
    plan.validated_at, plan.author_id = content.written_at, author.id
    if former is not None:
        former.state = "remplace"
        step.touch(former)
    _written(step, plan, dossier, "validation", sha256=kept.sha256)
    return plan


def _content(step: Step, plan: CarePlan, report: Report, author: Practitioner) -> PpsContent:
    replaced = step.session.get(CarePlan, plan.replaces_id) if plan.replaces_id is not None else None
    return pps_draft.content_of(plan, decode(report.content or b""), author=author, replaced=replaced, at=step.now)


def _draft(step: Step, dossier: Dossier) -> CarePlan:
    plan = under_way(step.session, dossier.id)
    if plan is None:
        raise Conflict("pps-absent", "Aucun brouillon de PPS n’est en cours.")
    return plan


def _require_enough(plan: CarePlan) -> None:
    if not plan.draft.get("arret") and not any(plan.draft.get(name) for name in pps_draft.CATEGORIES):
        text = "Écrivez au moins un soin, un suivi ou un accompagnement, ou l’arrêt des traitements, avant de valider."
        raise InvalidContent("pps-vide", text, expression="traitement", rule=True)
    if plan.replaces_id is not None and not plan.draft.get("motif"):
        text = "Choisissez le motif de la mise à jour : cette version remplace la précédente."
        raise InvalidContent("pps-motif-absent", text, expression="motif", rule=True)


def _written(
    step: Step, plan: CarePlan, dossier: Dossier, event: str, *, action: str | None = None, sha256: str | None = None
) -> None:
    step.session.flush()
    step.touch(plan)
    step.audit(
        event,
        action=action or ("C" if event == "creation" else "U"),
        persons=(dossier.record_id,),
        dossier=dossier.id,
        object_type="CarePlan",
        object_id=str(plan.id),
        object_version=str(plan.version),
        object_sha256=sha256,
    )


def kept_document(
    session: Session, caller: access.Caller, dossier_id: uuid.UUID, version: int
) -> tuple[CarePlan, AuditFacts]:
    """Find the document of one version for a reader, with the line that its release writes.

    Raises
    ------
    NotFound
        No such version, or not for this caller.
    """
    found = session.scalar(
        select(CarePlan)
        .join(Dossier, Dossier.id == CarePlan.dossier_id)
        .where(
            Dossier.id == dossier_id,
            CarePlan.version == version,
            CarePlan.state != "brouillon",
            access.dossiers(caller),
        )
    )
    if found is None or found.sha256 is None:
        raise access.hidden(caller, "CarePlan", dossier_id)
    line = access.facts(
        caller,
        "consultation",
        persons=(found.dossier.record_id,),
        dossier=dossier_id,
        object_type="CarePlan",
        object_id=str(found.id),
        object_version=str(version),
        object_sha256=found.sha256,
    )
    return found, line
