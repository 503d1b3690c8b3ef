"""Versions of representations: written only when the content changes, found by id.

Promises: no version without a change of content; versions of one resource are consecutive; the row that is current is
locked while it is replaced. Not promised: who may write (`gateway.fhir.writing`).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from gateway.fhir import document, search_columns
from gateway.fhir.document import Tree
from gateway.fhir.search_values import Span
from gateway.model.representation import TABLES
from gateway.model.store import utcnow
from gateway.model.writes import later, made

__all__ = ["Kept", "Owner", "columns", "current", "keep", "remove"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Columns that the access predicate and the writers look at."""

    partner_id: uuid.UUID | None = None
    record_id: uuid.UUID | None = None
    dossier_id: uuid.UUID | None = None
    network_id: uuid.UUID | None = None
    public: bool = False
    root_kind: str | None = None
    root_id: uuid.UUID | None = None


class Kept(NamedTuple):
    """What became of one resource."""

    kind: str
    id: str
    version: int
    updated_at: datetime
    created: bool
    changed: bool
    body: bytes


def columns(tree: Tree) -> dict[str, Any]:
    """Search columns of a resource as the database takes them."""
    return {
        name: value.literal if isinstance(value, Span) else value
        for name, value in search_columns.extract(tree).items()
    }


def current(session: Session, kind: str, identity: str, *, lock: bool = False) -> Any | None:
    """Newest version of a resource as a row, or `None`; deleted ones too."""
    table = TABLES[kind]
    statement = select(table).where(table.c.id == identity, table.c.current)
    return session.execute(statement.with_for_update() if lock else statement).one_or_none()


def keep(session: Session, kind: str, identity: str, tree: Tree, owner: Owner) -> Kept:
    """Write a resource unless it already says the same.

    What stands under a key that this very step made, a root's or its own, has no version yet: it is not looked for.
    Should it have one after all (an id that was used before), the clash has the step run again, and look.
    """
    table = TABLES[kind]
    new = _own_key(identity, owner) and (kind, identity) not in session.info and made(session, uuid.UUID(identity))
    session.info[kind, identity] = True
    before = None if new else current(session, kind, identity, lock=True)
    if before is not None and not before.deleted and document.same_content(document.decode(before.body), tree):
        return Kept(kind, identity, before.version, before.updated_at, created=False, changed=False, body=before.body)
    version = 1 if before is None else before.version + 1
    updated = utcnow()
    body = document.encode(document.with_meta(tree, identity=identity, version=version, updated=updated))
    if before is not None:
        session.execute(
            update(table).where(table.c.id == identity, table.c.version == before.version).values(current=False)
        )
    row = {"id": identity, "version": version, "body": body, "current": True, "deleted": False, "updated_at": updated}
    later(session, table, {**row, **_owned(owner), **columns(tree)})
    return Kept(kind, identity, version, updated, created=before is None or before.deleted, changed=True, body=body)


def remove(session: Session, kind: str, identity: str, owner: Owner) -> None:
    """Write that a resource is gone, if there is one: a last version that is found by nothing and says nothing."""
    table = TABLES[kind]
    before = current(session, kind, identity, lock=True)
    if before is None or before.deleted:
        return
    version, updated = before.version + 1, utcnow()
    said = document.with_meta({"resourceType": kind}, identity=identity, version=version, updated=updated)
    session.execute(
        update(table).where(table.c.id == identity, table.c.version == before.version).values(current=False)
    )
    row = {"id": identity, "version": version, "body": document.encode(said), "current": True, "deleted": True}
    later(session, table, {**row, "updated_at": updated, **_owned(owner)})


def _own_key(identity: str, owner: Owner) -> bool:
    """Whether an id is the key of the root behind it, or of nothing else."""
    if owner.root_id is not None:
        return str(owner.root_id) == identity
    try:
        return str(uuid.UUID(identity)) == identity
    except ValueError:
        return False


def _owned(owner: Owner) -> dict[str, Any]:
    return {name: getattr(owner, name) for name in Owner.__slots__}
