"""Who a patient is: one record for each source, one person for the records that say the same.

A `PatientRecord` is what one source says, keyed by the source's own identifier (its IPP). Records become one `Person`
only on a qualified INS with agreeing strict traits; the link is a row with its reason and author, so that merging and
parting move links and rewrite nothing.

Promises: a source writes only in its own identifier domains; the same key from many writers at once is one record; the
same INS with other traits is accepted, stays unlinked and waits on the work list; an INS with a fault (wrong key) is
kept, flagged and never proof (DECISIONS 9); what a person decided is never undone by the gateway.
Not promised: matching without an INS (a person decides).
"""

from __future__ import annotations

import unicodedata
import uuid
from collections.abc import Iterable, Sequence
from functools import lru_cache
from types import EllipsisType
from typing import Any

from sqlalchemy import ARRAY, Select, Text, bindparam, delete, exists, func, or_, select, true
from sqlalchemy.orm import Session

from gateway.errors import Conflict, Forbidden, InvalidContent
from gateway.identifiers import Ins, InsAuthority, Ipp, uuid7
from gateway.model.dossier import Dossier
from gateway.model.imaging import AwaitedStudy, Study
from gateway.model.partner import Partner
from gateway.model.person import PatientRecord, Person, PersonLink, WorkItem
from gateway.model.prepared import Prepared
from gateway.model.received import ReceivedDocument
from gateway.model.store import Base, utcnow
from gateway.model.writes import adopt, ask, laid, later
from gateway.rcp import work_list
from gateway.rcp.facts import IdentifierFact, IdentityFlag, IdentityStatus, PatientFacts
from gateway.rcp.step import Step

__all__ = [
    "AUTHOR",
    "EVERY_DOMAIN",
    "declare",
    "foresee",
    "known_as",
    "locks",
    "match_key",
    "own_identifier",
    "person_of",
    "record_of",
    "traits_key",
    "withdraw",
]

#: Author of the links that the gateway made by rule; it ends only its own.
AUTHOR = "rcp-gateway"
#: A partner domain that stands for all: the trial partner of `RCP_FHIR_AUTH=off`.
EVERY_DOMAIN = "*"

_PERSON = Base.metadata.tables[Person.__tablename__]
_LINK = Base.metadata.tables[PersonLink.__tablename__]

_RECORD = Base.metadata.tables[PatientRecord.__tablename__]


def _pairs(systems: str, values: str) -> Any:
    """Pairs of two lists of the same length, as rows."""
    lists = (bindparam(name, type_=ARRAY(Text())) for name in (systems, values))
    return func.unnest(*lists).table_valued("system", "value", name="pairs").render_derived()


# Asked for each patient that is written.
_KEYED = Prepared(
    lambda: select(_RECORD.c.id).where(
        _RECORD.c.partner_id == bindparam("partner"),
        _RECORD.c.system == bindparam("system"),
        _RECORD.c.value == bindparam("value"),
    )
)
_PROVED = Prepared(
    lambda: (
        select(_RECORD.c.id, _RECORD.c.match_key)
        .where(
            _RECORD.c.ins_value == bindparam("value"),
            _RECORD.c.ins_system == bindparam("system"),
            _RECORD.c.ins_qualified,
            _RECORD.c.id != bindparam("itself"),
        )
        .order_by(_RECORD.c.id)
    )
)
# Asked for patients that are written together: each pair is looked up by itself. Joined, PostgreSQL reads the whole
# index while its statistics are older than the INS that came since: 45 ms among 80 000, for sixteen.
_MINE = _pairs("systems", "values")
_MY_KEYED = (
    select(_RECORD.c.id)
    .where(
        _RECORD.c.partner_id == bindparam("partner"),
        _RECORD.c.system == _MINE.c.system,
        _RECORD.c.value == _MINE.c.value,
    )
    .limit(1)
    .lateral("keyed")
)
_MY_PROVED = (
    select(_RECORD.c.id)
    .where(_RECORD.c.ins_system == _MINE.c.system, _RECORD.c.ins_value == _MINE.c.value, _RECORD.c.ins_qualified)
    .limit(1)
    .lateral("proved")
)
_ALL_KEYED = Prepared(lambda: select(_MINE.c.system, _MINE.c.value, _MY_KEYED.c.id).join(_MY_KEYED, true()))
_ALL_PROVED = Prepared(
    lambda: select(_MINE.c.system.label("ins_system"), _MINE.c.value.label("ins_value")).join(_MY_PROVED, true())
)

ALONE = "enregistrement-seul"
BY_INS = "ins-qualifie-traits-concordants"


def own_identifier(partner: Partner, facts: PatientFacts) -> IdentifierFact:
    """Choose the identifier that keys the record: the first one in a domain that the partner may write.

    Raises
    ------
    InvalidContent
        ``identifiant-patient-absent`` (rule): no identifier beside the INS; or the faults of an IPP.
    Forbidden
        ``domaine-patient``: none of the domains is the partner's.
    """
    if not facts.identifiers:
        text = "Aucun identifiant patient de l’établissement (IPP avec son domaine)."
        raise InvalidContent("identifiant-patient-absent", text, expression="Patient.identifier", rule=True)
    for said in facts.identifiers:
        if said.system in partner.patient_domains or EVERY_DOMAIN in partner.patient_domains:
            ipp = Ipp.parse(said.value, said.system, expression="Patient.identifier")
            return IdentifierFact(system=ipp.system, value=ipp.value, kind=said.kind)
    raise Forbidden(
        "domaine-patient",
        "Cet établissement n’écrit pas dans ce domaine d’identification des patients.",
        expression="Patient.identifier",
    )


def record_of(session: Session, partner_id: uuid.UUID, system: str, value: str) -> PatientRecord | None:
    """Find a source's record by its own identifier."""
    for found in ask(session, _KEYED, partner=partner_id, system=system, value=value):
        return session.get(PatientRecord, found.id)
    return None


def known_as(step: Step, partner: Partner, key: IdentifierFact) -> PatientRecord | None:
    """Find a source's record and hold its key: until the end of the step nobody else makes, or finds, another one."""
    held = _key_lock(partner.id, key)
    step.serialise(held)
    return None if held in step.absent else record_of(step.session, partner.id, key.system, key.value)


def foresee(
    step: Step, partner: Partner, said: Sequence[tuple[IdentifierFact, PatientFacts]]
) -> dict[tuple[str, str], uuid.UUID]:
    """Find several records of a source at once, and who shares their INS; who is not there is not looked for again.

    Returns
    -------
    dict
        Ids of those that exist, by system and value.
    """
    keys = {_key_lock(partner.id, key): (key.system, key.value) for key, _ in said}
    proofs = {_ins_lock(*proof): proof for _, facts in said if (proof := _proof(facts)) is not None}
    step.serialise(*keys, *proofs)
    mine, borne = list(keys.values()), list(proofs.values())
    rows = ask(step.session, _ALL_KEYED, partner=partner.id, **_lists(mine))
    found = {(row.system, row.value): row.id for row in rows}
    bearing = ask(step.session, _ALL_PROVED, **_lists(borne)) if borne else []
    shared = {(row.ins_system, row.ins_value) for row in bearing}
    step.absent |= {lock for lock, key in keys.items() if key not in found}
    step.absent |= {lock for lock, proof in proofs.items() if proof not in shared}
    return found


def _lists(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    return {"systems": [system for system, _ in pairs], "values": [value for _, value in pairs]}


def _proof(facts: PatientFacts) -> tuple[str, str] | None:
    """System and value of an INS by which two records may be one person."""
    ins, qualified = _ins(facts)
    return (facts.ins.system, ins.value) if facts.ins is not None and ins is not None and qualified else None


#: Asked four times while one patient is written; longer texts, which are none, are not kept.
_read_ins = lru_cache(maxsize=256)(Ins.from_wire)
_INS_MOST = 100


def _ins(facts: PatientFacts) -> tuple[Ins | None, bool]:
    """The INS of a source, and whether it proves who the patient is."""
    if facts.ins is None:
        return None, False
    value, system = facts.ins.value, facts.ins.system
    ins = (_read_ins if len(value) + len(system) < _INS_MOST else Ins.from_wire)(value, system)
    doubtful = facts.flags & {IdentityFlag.DOUTEUSE, IdentityFlag.FICTIVE}
    return ins, facts.status is IdentityStatus.QUALIFIEE and ins.qualifiable and not doubtful


def person_of(session: Session, record: PatientRecord) -> uuid.UUID | None:
    """Person to whom a record belongs now; `None` while it waits on the work list."""
    return _person_of(session, record.id)


def _person_of(session: Session, key: uuid.UUID) -> uuid.UUID | None:
    return session.scalar(
        select(PersonLink.person_id).where(PersonLink.record_id == key, PersonLink.ended_at.is_(None))
    )


def locks(partner: Partner, facts: PatientFacts) -> list[str]:
    """Name the advisory locks that `declare` takes for these facts.

    A step that declares several patients takes them all first, in one order, lest it cross another that names the same.
    """
    key, proof = _key_lock(partner.id, own_identifier(partner, facts)), _proof(facts)
    return [key] if proof is None else [key, _ins_lock(*proof)]


def _key_lock(partner_id: uuid.UUID, key: IdentifierFact | PatientRecord) -> str:
    return f"ipp|{partner_id}|{key.system}|{key.value}"


def _ins_lock(system: str | None, value: str | None) -> str:
    return f"ins|{system}|{value}"


def declare(
    step: Step,
    partner: Partner,
    facts: PatientFacts,
    *,
    key: IdentifierFact | None = None,
    known: PatientRecord | EllipsisType | None = ...,
    new: bool = False,
    record_id: uuid.UUID | None = None,
) -> PatientRecord:
    """Keep what a source says of a patient: its record is made or brought up to date, then linked.

    Parameters
    ----------
    key
        The identifier that keys the record, when the wire already knows it; else `own_identifier` chooses.
    known
        What `known_as` found for this key in this step; asked here when it is not given.
    new
        Whether the source means to make a record: an existing one is then a conflict.
    record_id
        Id of the record if it is made here, when the wire had to name it.

    Raises
    ------
    InvalidContent, Forbidden
        See `own_identifier`; ``ins-essai`` (rule): the INS of a test or a demonstration, in ``prod``.
    Conflict
        ``identifiant-deja-utilise``: `new`, and the record exists.
    """
    _refuse_invented(step, facts)
    chosen = key or own_identifier(partner, facts)
    # Writers of the same key queue here instead of clashing on the unique index and starting again.
    record = known_as(step, partner, chosen) if isinstance(known, EllipsisType) else known
    created = record is None
    if new and not created:
        text = "Un patient de cet établissement porte déjà cet identifiant."
        raise Conflict("identifiant-deja-utilise", text, expression="Patient.identifier")
    if record is None:
        own = {"id": record_id or uuid7(), "partner_id": partner.id, "system": chosen.system, "value": chosen.value}
        record, changed = laid(PatientRecord, {**own, **say(facts), "updated_at": utcnow()}), True
        adopt(step.session, record)
        step.absent.discard(_key_lock(partner.id, chosen))
    else:
        [record] = step.lock(PatientRecord, record.id)
        changed = _write(record, facts)
        if changed:
            record.updated_at = utcnow()
    if changed:
        step.session.flush()
        _link(step, partner, record, new=created)
        step.audit(
            "creation" if created else "modification",
            action="C" if created else "U",
            persons=(record.id,),
            object_type="Patient",
            object_id=str(record.id),
        )
    step.touch(record)
    return record


def withdraw(step: Step, record: PatientRecord) -> None:
    """Take a record back that its source made by mistake, while nothing hangs on it; the trail keeps its id.

    Raises
    ------
    Conflict
        ``patient-utilise``: a dossier, a study, a received document or another record of the same person holds it.
    """
    step.serialise(_key_lock(record.partner_id, record))
    # Whoever inscribes this patient now waits here, and then finds him gone.
    [record] = step.lock(PatientRecord, record.id)
    person = person_of(step.session, record)
    held = (
        exists().where(Dossier.record_id == record.id),
        exists().where(Study.record_id == record.id),
        exists().where(ReceivedDocument.record_id == record.id),
        exists().where(
            PersonLink.person_id == person, PersonLink.ended_at.is_(None), PersonLink.record_id != record.id
        ),
        exists().where(PersonLink.record_id == record.id, PersonLink.author != AUTHOR),
    )
    if step.session.scalar(select(or_(*held))):
        text = (
            "Ce patient est rattaché à un dossier, à des images, à un document reçu ou à un autre enregistrement : "
            "il ne se supprime pas ; rendez-le inactif (Patient.active)."
        )
        raise Conflict("patient-utilise", text, expression="Patient")
    for item in step.session.scalars(select(WorkItem).where(WorkItem.record_id == record.id)):
        item.record_id = None
        if item.closed_at is None:
            item.closed_at, item.closed_by, item.decision = utcnow(), AUTHOR, "enregistrement-retire"
    # What orders images for him refers to him: it goes in the same step, or the removal is refused.
    step.session.execute(delete(AwaitedStudy).where(AwaitedStudy.record_id == record.id))
    step.session.execute(delete(PersonLink).where(PersonLink.record_id == record.id))
    step.session.flush()
    step.session.delete(record)
    step.session.flush()
    step.audit("modification", action="D", persons=(record.id,), object_type="Patient", object_id=str(record.id))


def _refuse_invented(step: Step, facts: PatientFacts) -> None:
    """Refuse in ``prod`` an INS that no real person has: it would prove who a patient is [spec annuaire §9]."""
    authority = InsAuthority.of(facts.ins.system) if facts.ins is not None else None
    if authority is not None and authority.environment != "production" and not step.fictitious:
        text = "L’INS porte l’OID de test ou de démonstration : il est refusé en production."
        raise InvalidContent("ins-essai", text, expression="Patient.identifier", rule=True)


def say(facts: PatientFacts) -> dict[str, Any]:
    """Columns of the record that say these facts."""
    ins, qualified = _ins(facts)
    used = facts.used_name
    treating = facts.treating_physician
    names = facts.birth_name.given if facts.birth_given_names is None else facts.birth_given_names.split()
    return {
        "birth_family": facts.birth_name.family,
        "given": next(iter(facts.birth_name.given), None),
        "given_names": list(names),
        "used_family": used.family if used else None,
        "used_given": next(iter(used.given), None) if used else None,
        "sex": facts.sex.value,
        "birth_date": facts.birth_date,
        "birth_place": facts.birth_place_insee,
        "ins_system": facts.ins.system if facts.ins else None,
        "ins_value": ins.value if ins else None,
        "ins_qualified": qualified,
        "ins_faults": list(ins.faults) if ins else [],
        "identity_status": facts.status.value,
        "treating_idnps": treating.identifier.value if treating and treating.identifier else None,
        "treating_display": treating.display if treating else None,
        "match_key": match_key(facts),
        "active": facts.active,
    }


def _write(record: PatientRecord, facts: PatientFacts) -> bool:
    """Write the facts into the record; whether anything changed."""
    changed = False
    for name, value in say(facts).items():
        if getattr(record, name) != value:
            setattr(record, name, value)
            changed = True
    return changed


def match_key(facts: PatientFacts) -> str | None:
    """Fold the strict traits that two records must share: birth name, first given, birth date, sex.

    `None` when one of them is missing: what is not said agrees with nothing.
    """
    return traits_key(
        facts.birth_name.family, next(iter(facts.birth_name.given), None), facts.birth_date, facts.sex.value
    )


def traits_key(family: str | None, given: str | None, birth_date: str | None, sex: str) -> str | None:
    """Do the same with traits that no source of ours says."""
    if not (family and given and birth_date):
        return None
    return "|".join((_fold(family), _fold(given), birth_date, sex))


def _fold(name: str) -> str:
    """Letters only, no accent, no case: hyphens, spaces and apostrophes differ between registries."""
    if name.isascii() and name.isalpha():
        return name.upper()
    opened = name.replace("œ", "oe").replace("Œ", "OE").replace("æ", "ae").replace("Æ", "AE")
    return "".join(char for char in unicodedata.normalize("NFKD", opened).upper() if char.isalpha() and char.isascii())


def _link(step: Step, partner: Partner, record: PatientRecord, *, new: bool) -> None:
    """Put the record where its facts say, unless a person already decided."""
    session = step.session
    live = None if new else session.scalars(_held(record)).one_or_none()
    others = _others(step, record) if record.ins_qualified else []
    agreeing = [other for other in others if record.match_key is not None and other.match_key == record.match_key]
    person = next((found for found in (_person_of(session, other.id) for other in agreeing) if found), None)
    if live is not None and live.author != AUTHOR:
        if others and not agreeing:
            _ask(step, partner, record, others)
        return
    if others and not agreeing:
        _end(step, live)
        _ask(step, partner, record, others)
    elif person is not None:
        if live is None or live.person_id != person:
            _end(step, live)
            _begin(step, record, person, BY_INS)
    elif live is None or (live.reason == BY_INS and not _alone(session, live)):
        # Nothing (any longer) ties it to others: it is a person of its own.
        _end(step, live)
        own = uuid7()
        later(session, _PERSON, {"id": own})
        _begin(step, record, own, ALONE)


def _held(record: PatientRecord) -> Select[PersonLink]:
    live = PersonLink.ended_at.is_(None)
    return select(PersonLink).where(PersonLink.record_id == record.id, live).with_for_update()


def _others(step: Step, record: PatientRecord) -> list[Any]:
    """Other records that bear the same qualified INS, in order of their ids."""
    lock = _ins_lock(record.ins_system, record.ins_value)
    step.serialise(lock)
    if lock in step.absent:
        step.absent.discard(lock)  # from here on this one bears it
        return []
    return ask(step.session, _PROVED, system=record.ins_system, value=record.ins_value, itself=record.id)


def _alone(session: Session, link: PersonLink) -> bool:
    statement = select(func.count()).where(
        PersonLink.person_id == link.person_id, PersonLink.ended_at.is_(None), PersonLink.id != link.id
    )
    return not session.scalar(statement)


def _end(step: Step, link: PersonLink | None) -> None:
    if link is not None:
        link.ended_at = step.now
        step.session.flush()


def _begin(step: Step, record: PatientRecord, person: uuid.UUID, reason: str) -> None:
    told = {"reason": reason, "author": AUTHOR, "linked_at": step.now}
    later(step.session, _LINK, {"record_id": record.id, "person_id": person, **told})


def _ask(step: Step, partner: Partner, record: PatientRecord, others: Iterable[Any]) -> None:
    """Ask a person, once while the question is open; the item names records, never an INS or a trait."""
    work_list.ask(
        step.session,
        WorkItem(
            key=f"identite|{record.id}",
            kind="identite",
            reason="meme-ins-traits-differents",
            network_id=partner.network_id,
            partner_id=partner.id,
            record_id=record.id,
            details={"enregistrements": [str(other.id) for other in others]},
        ),
    )
