"""Keeps FHIR representations of what a step touched, in the step's own transaction [DESIGN §3, Representations].

One table (`_ROOTS`) says which resources each aggregate root is seen as. `Representer` is the port
`gateway.rcp.ports.Represent`: it runs once before the commit, writes a new version of each resource that changed and
none of what did not, and lays its own top-level elements over the previous version, so that what a client sent beside
them survives.

Promises: no version without a change of content; versions of one resource are consecutive; a directory entry is
represented when first referenced; running over unchanged roots writes nothing (a test relies on it).
Not promised: search columns of rows written by older code (`gateway.fhir.reindexing`).
"""

from __future__ import annotations

import hashlib
import uuid
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, Text, any_, bindparam, func, inspect, select
from sqlalchemy.orm import Session

from gateway.exchange.blobs import BlobStore
from gateway.fhir import binaries, document
from gateway.fhir.document import Tree
from gateway.fhir.imaging_parts import parts_of
from gateway.fhir.keeping import Kept, Owner, current, keep, remove
from gateway.fhir.laying import lay, patient_over, request_over, session_over, task_over
from gateway.fhir.translate import advice, agenda, directory, dossier, imaging, plan, received, report
from gateway.fhir.translate.composition import draft_over
from gateway.fhir.translate.message import contribution_text
from gateway.fhir.translate.patient import patient_tree
from gateway.model.directory import Organisation, PracticeRole, Practitioner
from gateway.model.dossier import Contribution, Dossier, DossierMove
from gateway.model.imaging import Study, StudyDossier
from gateway.model.meeting import Rcp, RcpSession
from gateway.model.message import Message, NotificationEntry, Receipt
from gateway.model.person import PatientRecord
from gateway.model.plan import CarePlan
from gateway.model.prepared import Prepared
from gateway.model.received import ReceivedDocument
from gateway.model.report import Report
from gateway.model.representation import TABLES
from gateway.model.writes import ask, made
from gateway.rcp import report_draft
from gateway.rcp.contribution import clean
from gateway.rcp.facts import PatientFacts
from gateway.rcp.pps_content import decode
from gateway.rcp.step import Step, hold

__all__ = ["Representer", "Sent"]

#: What a client sent for a resource that a root stands behind: (type, id) → tree.
Sent = Mapping[tuple[str, str], Tree]
_NOTHING_SAID: Mapping[str, PatientFacts] = {}


class _Rendered(NamedTuple):
    kind: str
    id: str
    tree: Tree
    owner: Owner


@dataclass(slots=True)
class _Context:
    """One run: what was sent, what was rendered, which roots wait, which sessions' agendas may have changed."""

    session: Session
    blobs: BlobStore | None
    sent: Sent
    said: Mapping[str, PatientFacts]
    waiting: deque[Any]
    agendas: set[uuid.UUID] = field(default_factory=set)
    seen: set[tuple[str, uuid.UUID]] = field(default_factory=set)
    referred: dict[tuple[str, uuid.UUID], Any] = field(default_factory=dict)

    def refer(self, *roots: Any) -> None:
        """Ask that roots which are referred to exist as resources; they are not rendered again if they do."""
        for root in roots:
            if root is not None:
                self.referred[type(root).__name__, root.id] = root

    def wait_for_missing(self) -> None:
        """Have the roots wait that were referred to and are no resource yet: one question a type, however many."""
        asked: dict[str, dict[str, Any]] = {}
        for (name, key), root in self.referred.items():
            if (name, key) not in self.seen:
                asked.setdefault(_REFERRED[name], {})[str(key)] = root
        self.referred.clear()
        for kind, roots in asked.items():
            known = {row.id for row in ask(self.session, _KNOWN[kind], ids=list(roots))}
            self.waiting += [roots[key] for key in sorted(roots.keys() - known)]

    def base(self, kind: str, identity: str) -> Tree | None:
        """What stands below our own elements: what the client just sent, else the previous version."""
        if (kind, identity) in self.sent:
            return self.sent[kind, identity]
        before = current(self.session, kind, identity)
        return document.strip_server_meta(document.decode(before.body)) if before is not None else None


_REFERRED = {
    "Practitioner": "Practitioner",
    "Organisation": "Organization",
    "Rcp": "HealthcareService",
    "RcpSession": "Appointment",
}


def _known(kind: str) -> Prepared:
    """Which of some ids have a version, be it that they are gone."""
    columns = TABLES[kind].c
    these = any_(bindparam("ids", type_=ARRAY(Text())))
    return Prepared(lambda: select(columns.id).where(columns.id == these, columns.current))


_KNOWN = {kind: _known(kind) for kind in _REFERRED.values()}


def _root(row: Any) -> dict[str, Any]:
    return {"root_kind": type(row).__name__, "root_id": row.id}


def _patient(row: PatientRecord, run: _Context) -> Iterator[_Rendered]:
    key = ("Patient", str(row.id))
    base = run.base(*key)
    tree = patient_over(base, row, run.said.get(key[1])) if base is not None else patient_tree(row)
    owner = Owner(partner_id=row.partner_id, record_id=row.id, **_root(row))
    yield _Rendered(*key, tree, owner)


def _practitioner(row: Practitioner, run: _Context) -> Iterator[_Rendered]:
    del run
    yield _Rendered("Practitioner", str(row.id), directory.practitioner(row), Owner(public=True, **_root(row)))


def _role(row: PracticeRole, run: _Context) -> Iterator[_Rendered]:
    run.refer(row.practitioner, row.organisation)
    yield _Rendered("PractitionerRole", str(row.id), directory.practitioner_role(row), Owner(public=True, **_root(row)))


def _organisation(row: Organisation, run: _Context) -> Iterator[_Rendered]:
    del run
    yield _Rendered("Organization", str(row.id), directory.organization(row), Owner(public=True, **_root(row)))


def _rcp(row: Rcp, run: _Context) -> Iterator[_Rendered]:
    run.refer(row.organisation)
    owner = Owner(network_id=row.network_id, public=True, **_root(row))
    run.refer(*(one.practitioner for one in row.members if one.until is None))
    yield _Rendered("HealthcareService", str(row.id), directory.healthcare_service(row), owner)
    yield _Rendered("Schedule", str(row.id), agenda.schedule(row), owner)
    yield _Rendered("CareTeam", str(row.id), agenda.care_team(row), owner)


def _session(row: RcpSession, run: _Context) -> Iterator[_Rendered]:
    run.refer(row.rcp, *(one.practitioner for one in row.rcp.members if one.role == "coordonnateur"))
    owner = Owner(network_id=row.rcp.network_id, public=True, **_root(row))
    yield _Rendered("Slot", str(row.id), agenda.slot(row), owner)
    key = ("Appointment", str(row.id))
    yield _Rendered(*key, session_over(run.base(*key), row), owner)
    run.agendas.add(row.id)


def _agendas(run: _Context) -> Iterator[_Rendered]:
    """Agendas of sessions, after all else: each is held until the commit, and read as it then stands.

    Who changes another dossier of the same session at the same time waits, and finds this one's line.
    """
    if not run.agendas:
        return
    keys = sorted(run.agendas)
    hold(run.session, *(f"ordre-du-jour:{key}" for key in keys))
    found = select(Dossier.session_id, *(getattr(Dossier, name) for name in ("id", *agenda.Line._fields[1:])))
    order = (Dossier.rank.nulls_last(), Dossier.registered_at, Dossier.id)
    lines: dict[uuid.UUID, list[agenda.Line]] = {key: [] for key in keys}
    for key, *said in run.session.execute(found.where(Dossier.session_id.in_(keys)).order_by(*order)):
        lines[key].append(agenda.Line(*said))
    moved = select(DossierMove.session_id, func.max(DossierMove.at)).where(DossierMove.session_id.in_(keys))
    changed = dict(run.session.execute(moved.group_by(DossierMove.session_id)).tuples().all())
    sessions = select(RcpSession).where(RcpSession.id.in_(keys)).order_by(RcpSession.id)
    for row in run.session.scalars(sessions.execution_options(populate_existing=True)).unique():
        owner = Owner(network_id=row.rcp.network_id, **_root(row))
        yield _Rendered("List", str(row.id), agenda.order_of_the_day(row, lines[row.id], changed.get(row.id)), owner)


def _of_dossier(row: Dossier, root: Any) -> Owner:
    return Owner(
        partner_id=row.partner_id,
        record_id=row.record_id,
        dossier_id=row.id,
        network_id=row.session.rcp.network_id,
        **_root(root),
    )


def _dossier(row: Dossier, run: _Context) -> Iterator[_Rendered]:
    identity = str(row.id)
    owner = _of_dossier(row, row)
    run.agendas.add(row.session_id)
    if not made(run.session, row.id):
        run.agendas.update(
            run.session.scalars(select(DossierMove.session_id).where(DossierMove.dossier_id == row.id).distinct())
        )
    run.refer(row.session, row.session.rcp, row.organisation, row.requester, row.session.rcp.organisation)
    if current(run.session, "Patient", str(row.record_id)) is None:
        run.waiting.append(row.record)
    yield _Rendered("ServiceRequest", identity, request_over(run.base("ServiceRequest", identity), row), owner)
    reports = run.session.scalars(
        select(Report.id).where(Report.dossier_id == row.id, Report.state == "valide").order_by(Report.version)
    )
    ours = dossier.task(row, reports=[str(key) for key in reports])
    yield _Rendered("Task", identity, task_over(run.base("Task", identity), ours), owner)
    discussed = dossier.encounter(row)
    if discussed is not None:
        yield _Rendered("Encounter", identity, lay(run.base("Encounter", identity), discussed), owner)


def _contribution(row: Contribution, run: _Context) -> Iterator[_Rendered]:
    run.refer(row.author)
    key = ("Communication", str(row.id))
    ours, base = dossier.contribution(row), run.base(*key)
    if base is not None and clean(contribution_text(base)) == row.text:
        ours = base  # what its author's software sent still says it
    yield _Rendered(*key, ours if base is None else lay(base, ours), _of_dossier(row.dossier, row))


def _message(row: Message, run: _Context) -> Iterator[_Rendered]:
    about = run.session.get(Dossier, row.dossier_id) if row.dossier_id else None
    if about is None or row.direction != "out":
        return
    who = run.session.get(Practitioner, row.recipient_id) if row.recipient_id else None
    run.refer(who)
    recipient = directory.practitioner_reference(who) if who else None
    ordered = select(NotificationEntry.id).where(
        NotificationEntry.dossier_id == about.id, NotificationEntry.message_id == row.id
    )
    arrived = select(func.min(Receipt.at)).where(Receipt.message_id == row.id, Receipt.kind.in_(_ARRIVED))
    said = dossier.message(
        row,
        about,
        recipient,
        ordered=run.session.scalars(ordered).first(),
        received=run.session.scalar(arrived),
    )
    yield _Rendered("Communication", str(row.id), said, _of_dossier(about, row))


#: Reports that say that a message is with its recipient.
_ARRIVED = ("remise", "traitee", "lue", "supprimee")


def _entry(row: NotificationEntry, run: _Context) -> Iterator[_Rendered]:
    """The order to tell a physician, once it was given: with what was sent, or why nothing could be."""
    found = run.session.get(Message, row.message_id) if row.message_id else None
    about = run.session.get(Dossier, row.dossier_id)
    who = run.session.get(Practitioner, row.practitioner_id) if row.practitioner_id is not None else None
    if found is not None:
        yield from _message(found, run)
    key, untold = str(row.id), found is None and row.code in dossier.NO_ADDRESS
    if about is None or who is None:
        return
    owner = _of_dossier(about, row)
    before = None if made(run.session, row.id) else current(run.session, "CommunicationRequest", key)
    if found is None and not untold and before is None:
        return
    run.refer(who)
    recipient = directory.practitioner_reference(who)
    yield _Rendered("CommunicationRequest", key, dossier.notification(row, about, recipient), owner)
    if untold:
        yield _Rendered("Communication", key, dossier.untold(row, about, recipient), owner)
    elif before is not None:
        remove(run.session, "Communication", key, owner)


def _draft(row: Report, run: _Context) -> Iterator[_Rendered]:
    """A draft is a resource only where a software brought it, for its establishment alone."""
    key = ("Composition", str(row.id))
    before = current(run.session, *key)
    if before is None or before.deleted or key in run.sent:
        return
    owner = Owner(partner_id=before.partner_id, **_root(row))
    if inspect(row).deleted:
        remove(run.session, *key, owner)
    else:
        yield _Rendered(*key, draft_over(run.base(*key) or {}, report_draft.read(row.draft)), owner)


def _report(row: Report, run: _Context) -> Iterator[_Rendered]:
    written = report.composition(row)
    if written is None:
        yield from _draft(row, run)
        return
    owner = _of_dossier(row.dossier, row)
    run.refer(row.validator)
    key = ("Composition", str(row.id))
    base = run.base(*key)
    if base is not None:
        # A validated version never changes but for what becomes of it: what its software sent stays.
        ours = {name: value for name, value in written.items() if name in {"status", "relatesTo"} or name not in base}
        written = lay(base, ours)
    yield _Rendered(*key, written, owner)
    for kind, said in (("Observation", advice.quorum(row)), ("CarePlan", advice.care_plan(row))):
        if said is not None:
            yield _Rendered(kind, str(row.id), said, owner)
    forms = [report.KeptForm(form, _sha1(run.blobs, form.sha256)) for form in row.forms if form.form in {"pdf", "cda"}]
    for kept in forms:
        shown = Owner(
            partner_id=owner.partner_id,
            record_id=owner.record_id,
            dossier_id=owner.dossier_id,
            network_id=owner.network_id,
            root_kind="ReportForm",
            root_id=kept.form.id,
        )
        yield _Rendered("Binary", str(kept.form.id), dict(report.binary(kept.form)), shown)
    studies = run.session.scalars(
        select(Study.study_instance_uid)
        .join(StudyDossier, StudyDossier.study_id == Study.id)
        .where(StudyDossier.dossier_id == row.dossier_id, Study.state == "rattache")
        .order_by(Study.study_instance_uid)
    )
    published = report.document_reference(row, forms, tuple(studies)) if forms else None
    if published is not None:
        yield _Rendered("DocumentReference", str(row.id), published, owner)


def _plan(row: CarePlan, run: _Context) -> Iterator[_Rendered]:
    """A validated care plan; a draft is nobody's but its writers'."""
    if row.content is None or row.sha256 is None:
        return
    owner = _of_dossier(row.dossier, row)
    run.refer(row.author)
    version = decode(row.content).report.version
    followed = run.session.scalars(
        select(Report.id).where(Report.dossier_id == row.dossier_id, Report.version == version)
    ).first()
    yield _Rendered("Binary", str(row.id), plan.binary(row), owner)
    document_ = plan.document_reference(row, _sha1(run.blobs, row.sha256), followed)
    for kind, said in (("CarePlan", plan.care_plan(row, followed)), ("DocumentReference", document_)):
        if said is not None:
            yield _Rendered(kind, str(row.id), said, owner)


def _received(row: ReceivedDocument, run: _Context) -> Iterator[_Rendered]:
    """What others mailed, once it is somebody's; its bytes go when it is withdrawn. What a software brought is its."""
    if row.channel == "fhir":
        yield from _brought(row, run)
        return
    record = run.session.get(PatientRecord, row.record_id) if row.record_id is not None else None
    if record is None or row.sha256 is None or run.blobs is None:
        return
    said = received.document_reference(row, record, _sha1(run.blobs, row.sha256))
    if said is None:
        return
    owner = Owner(partner_id=record.partner_id, record_id=record.id, dossier_id=row.dossier_id, **_root(row))
    yield _Rendered("DocumentReference", str(row.id), said, owner)
    if row.state == "retire":
        remove(run.session, "Binary", str(row.id), owner)
    elif current(run.session, "Binary", str(row.id)) is None:  # a document never changes
        tree = received.binary(row, run.blobs.read(row.sha256))
        yield _Rendered("Binary", str(row.id), binaries.aside(tree, run.session, run.blobs), owner)


def _brought(row: ReceivedDocument, run: _Context) -> Iterator[_Rendered]:
    key = ("DocumentReference", str(row.id))
    base = run.base(*key)
    if base is not None:
        mine = uuid.UUID(row.sender)
        owner = Owner(partner_id=mine, record_id=row.record_id, dossier_id=row.dossier_id, **_root(row))
        yield _Rendered(*key, received.over(base, row), owner)


def _sha1(blobs: BlobStore | None, sha256: str) -> str:
    """SHA-1 in base64, as XDS metadata and FHIR's Attachment.hash ask for; an integrity mark, no protection."""
    if blobs is None:
        return ""
    return b64encode(hashlib.sha1(blobs.read(sha256), usedforsecurity=False).digest()).decode("ascii")


def _study(row: Study, run: _Context) -> Iterator[_Rendered]:
    record = run.session.get(PatientRecord, row.record_id) if row.record_id else None
    tree = imaging.imaging_study(row, record, parts_of(run.session, row)) if record is not None else None
    if record is None or tree is None:
        # It may have been seen before a correction of the patient parted it from him.
        remove(run.session, "ImagingStudy", str(row.id), Owner(partner_id=row.partner_id, **_root(row)))
        return
    attached = run.session.scalars(select(StudyDossier.dossier_id).where(StudyDossier.study_id == row.id)).all()
    if current(run.session, "Endpoint", imaging.ENDPOINT_ID) is None:
        yield _Rendered("Endpoint", imaging.ENDPOINT_ID, imaging.endpoint(), Owner(public=True))
    yield _Rendered(
        "ImagingStudy",
        str(row.id),
        tree,
        # With one dossier the study is that dossier's; with several it is the patient's.
        Owner(
            partner_id=row.partner_id,
            record_id=record.id,
            dossier_id=attached[0] if len(attached) == 1 else None,
            **_root(row),
        ),
    )


#: The one table from roots to resources.
_ROOTS: dict[str, Callable[[Any, _Context], Iterator[_Rendered]]] = {
    "PatientRecord": _patient,
    "Practitioner": _practitioner,
    "PracticeRole": _role,
    "Organisation": _organisation,
    "Rcp": _rcp,
    "RcpSession": _session,
    "Dossier": _dossier,
    "Contribution": _contribution,
    "Message": _message,
    "NotificationEntry": _entry,
    "Report": _report,
    "CarePlan": _plan,
    "Study": _study,
    "ReceivedDocument": _received,
}


class Representer:
    """The port `gateway.rcp.ports.Represent`.

    Parameters
    ----------
    blobs
        Where report forms are kept; needed for the SHA-1 of their bytes.
    """

    def __init__(self, blobs: BlobStore | None = None) -> None:
        self._blobs = blobs

    def __call__(self, step: Step, roots: Iterable[Any]) -> None:
        """Keep the representations of the touched roots."""
        self.keep(step.session, roots, {})

    def keep(
        self,
        session: Session,
        roots: Iterable[Any],
        sent: Sent,
        said: Mapping[str, PatientFacts] = _NOTHING_SAID,
    ) -> dict[tuple[str, str], Kept]:
        """Keep them, with what a client sent below our own elements.

        Parameters
        ----------
        said
            What patients were just said to be, by id: the facts of what was sent.

        Returns
        -------
        dict
            What became of each resource, by type and id.
        """
        run = _Context(session, self._blobs, sent, said, deque(roots))
        kept: dict[tuple[str, str], Kept] = {}
        while run.waiting or run.referred:
            if not run.waiting:
                run.wait_for_missing()
                continue
            root = run.waiting.popleft()
            key = (type(root).__name__, root.id)
            if key in run.seen or key[0] not in _ROOTS:
                continue
            run.seen.add(key)
            for rendered in list(_ROOTS[key[0]](root, run)):
                kept[rendered.kind, rendered.id] = keep(session, *rendered)
        for rendered in _agendas(run):
            kept[rendered.kind, rendered.id] = keep(session, *rendered)
        return kept
