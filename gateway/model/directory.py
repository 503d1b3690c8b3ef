"""Professionals, organisations, practice roles and MSSanté mailboxes, each with its source and date.

Keys are the national ones (RPPS, FINESS), never another server's technical ids. ``gone_on``: the day whose extraction
no longer names the entry; nothing is deleted, old dossiers still point at it. The staged tables hold one file between
its reading and its application, and are empty after a crash of the server: they are unlogged.
"""

from __future__ import annotations

import uuid
from datetime import date, datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    ForeignKey,
    Index,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from gateway.model.store import Base, Keyed, utcnow

__all__ = [
    "STAGED_MAILBOX",
    "STAGED_PRACTICE",
    "DirectoryImport",
    "Mailbox",
    "MailboxChoice",
    "Organisation",
    "PracticeRole",
    "Practitioner",
    "folded",
]

_ACCENTED = "ÀÁÂÃÄÅÇÈÉÊËÌÍÎÏÑÒÓÔÕÖÙÚÛÜÝŸàáâãäåçèéêëìíîïñòóôõöùúûüýÿ’-"
_PLAIN = "AAAAAACEEEEIIIINOOOOOUUUUYYaaaaaaceeeeiiiinooooouuuuyy' "
_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_FOLDING = str.maketrans(_ACCENTED, _PLAIN)


def folded(name: str) -> str:
    """Write a name as ``practitioner.folded`` does: no accent, no case, a hyphen as a space."""
    return name.translate(_FOLDING).translate(_ASCII_LOWER)


class Organisation(Keyed, Base):
    """A structure; ``finess`` is the key, ``idnst`` its national form with prefix."""

    __tablename__ = "organisation"

    finess: Mapped[str | None] = mapped_column(unique=True)
    idnst: Mapped[str | None] = mapped_column(unique=True)
    name: Mapped[str]
    kind: Mapped[str] = mapped_column(default="etablissement")
    city: Mapped[str | None]
    postal_code: Mapped[str | None]
    address_line: Mapped[str | None]
    phone: Mapped[str | None]
    source: Mapped[str]
    as_of: Mapped[date]
    gone_on: Mapped[date | None]


class Practitioner(Keyed, Base):
    """A professional.

    Attributes
    ----------
    rpps
        11 digits; `None` for those who have none (then ``idnps`` alone).
    idnps
        National identifier with its prefix (``8`` + RPPS), the key on every wire.
    speciality
        Code of TRE_R38; ``profession`` of TRE_G15.
    informed
        False when the physician asked not to be notified any more (NON_REFUS).
    folded
        What a search for a name looks at (`folded`): family name, vertical bar, given name.
    asked_at
        When the national API was last asked about him.
    """

    __tablename__ = "practitioner"

    rpps: Mapped[str | None] = mapped_column(unique=True)
    idnps: Mapped[str] = mapped_column(unique=True)
    family: Mapped[str]
    given: Mapped[str]
    title: Mapped[str | None]
    profession: Mapped[str | None]
    speciality: Mapped[str | None]
    informed: Mapped[bool] = mapped_column(default=True)
    source: Mapped[str]
    as_of: Mapped[date]
    updated_at: Mapped[datetime] = mapped_column(default=utcnow)
    gone_on: Mapped[date | None]
    asked_at: Mapped[datetime | None]
    folded: Mapped[str] = mapped_column(
        Text(collation="C"),
        # As the server writes it back, so that the schema and this can be compared.
        Computed(
            f"lower((translate(((family || '|'::text) || given), '{_ACCENTED}'::text, "
            f"'{_PLAIN.replace(chr(39), chr(39) * 2)}'::text) COLLATE \"C\"))",
            persisted=True,
        ),
        index=True,
    )

    roles: Mapped[list[PracticeRole]] = relationship(back_populates="practitioner", lazy="selectin")
    mailboxes: Mapped[list[Mailbox]] = relationship(
        back_populates="practitioner", lazy="selectin", foreign_keys="Mailbox.practitioner_id"
    )


class PracticeRole(Keyed, Base):
    """One situation of practice of a professional in an organisation."""

    __tablename__ = "practice_role"
    __table_args__ = (
        UniqueConstraint("practitioner_id", "organisation_id", "speciality", postgresql_nulls_not_distinct=True),
    )

    practitioner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practitioner.id"))
    organisation_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("organisation.id"), index=True)
    speciality: Mapped[str | None]
    profession: Mapped[str | None]
    source: Mapped[str]
    as_of: Mapped[date]
    gone_on: Mapped[date | None]

    practitioner: Mapped[Practitioner] = relationship(back_populates="roles")
    organisation: Mapped[Organisation | None] = relationship(lazy="joined")


class Mailbox(Keyed, Base):
    """An MSSanté address (TRE_R257): PER, ORG, APP or CAB.

    ``unusable_since`` is set by a hard bounce; ``confidential`` is the red list: written to, never shown;
    ``paperless`` is false where documents are wanted on paper, `None` where nothing says.
    """

    __tablename__ = "mailbox"
    __table_args__ = (
        CheckConstraint("num_nonnulls(practitioner_id, organisation_id) >= 1", name="owned"),
        Index("uq_mailbox_practitioner", "practitioner_id", "address", unique=True),
        Index(
            "uq_mailbox_organisation",
            "organisation_id",
            "address",
            unique=True,
            postgresql_where=text("practitioner_id IS NULL"),
        ),
        Index("ix_mailbox_address", text("lower(address)")),
    )

    address: Mapped[str]
    kind: Mapped[str] = mapped_column(default="PER")
    practitioner_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("practitioner.id"))
    organisation_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("organisation.id"), index=True)
    preferred: Mapped[bool] = mapped_column(default=False)
    confidential: Mapped[bool] = mapped_column(default=False)
    paperless: Mapped[bool | None]
    source: Mapped[str]
    as_of: Mapped[date]
    unusable_since: Mapped[datetime | None]
    gone_on: Mapped[date | None]

    practitioner: Mapped[Practitioner | None] = relationship(back_populates="mailboxes", foreign_keys=[practitioner_id])


class MailboxChoice(Keyed, Base):
    """Which mailbox a person chose for a physician at a structure, or wherever he works; the last choice holds."""

    __tablename__ = "mailbox_choice"
    __table_args__ = (UniqueConstraint("practitioner_id", "organisation_id", postgresql_nulls_not_distinct=True),)

    practitioner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practitioner.id"))
    organisation_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("organisation.id"))
    mailbox_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("mailbox.id"))
    chosen_by: Mapped[str]
    chosen_at: Mapped[datetime] = mapped_column(default=utcnow)


class DirectoryImport(Keyed, Base):
    """One file of the national directory.

    Attributes
    ----------
    sha256, size_bytes
        Of the file as it was given.
    rows, rejected, skipped, flagged
        Lines kept; malformed ones; those that say nothing to keep (a mailbox outside MSSanté); persons whose number has
        a wrong key.
    gone
        Entries that this file no longer names.
    state
        ``charge``: staged, to be applied; ``applique``; ``refuse``, with its reason.
    """

    __tablename__ = "directory_import"
    __table_args__ = (
        CheckConstraint("state IN ('charge','applique','refuse')", name="state"),
        Index("ix_directory_import_source", "source", "as_of"),
    )

    source: Mapped[str]
    file_name: Mapped[str]
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    rows: Mapped[int] = mapped_column(BigInteger, default=0)
    rejected: Mapped[int] = mapped_column(BigInteger, default=0)
    skipped: Mapped[int] = mapped_column(BigInteger, default=0)
    flagged: Mapped[int] = mapped_column(BigInteger, default=0)
    gone: Mapped[int] = mapped_column(BigInteger, default=0)
    state: Mapped[str]
    reason: Mapped[str | None]
    as_of: Mapped[date]
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


def _staged(name: str, *columns: str) -> Table:
    return Table(name, Base.metadata, *(Column(column, Text) for column in columns), prefixes=["UNLOGGED"])


STAGED_PRACTICE = _staged(
    "staged_practice",
    *("idnps", "family", "given", "title", "profession", "speciality_kind", "speciality"),
    *("idnst", "structure", "street", "postal_code", "city", "phone"),
)
STAGED_MAILBOX = _staged(
    "staged_mailbox",
    *("kind", "address", "idnps", "family", "given", "title", "profession", "speciality"),
    *("idnst", "structure", "postal_code", "paperless"),
)
