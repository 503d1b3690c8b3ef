"""What verbs need from above, as Protocols; ``app`` wires the real ones, unit tests in-memory ones.

Nothing here is implemented; a Protocol changes only with both of its sides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol

from gateway.rcp.report_content import Person, ReportContent

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from gateway.model.dossier import Dossier
    from gateway.rcp.caller import Caller
    from gateway.rcp.directory import EntryFacts
    from gateway.rcp.imaging_facts import ObjectFacts
    from gateway.rcp.step import Step

__all__ = [
    "BroughtFile",
    "BroughtFiles",
    "Clock",
    "CopiedObject",
    "Directory",
    "ImageCopier",
    "ImageObjects",
    "Letter",
    "Letters",
    "RenderedForm",
    "ReportForms",
    "ReportKind",
    "ReportLetter",
    "ReportMails",
    "Represent",
    "SealedLetter",
]


ReportKind = Literal["M5", "M5r", "M6", "M6r", "M6p", "M6pr"]
"""A letter about a report: it brings a link, the document or the patient's copy of it, or takes it back."""


class Clock(Protocol):
    """The domain's clock (DECISIONS 12)."""

    def now(self) -> datetime:
        """Aware instant, UTC."""


class Directory(Protocol):
    """A directory outside that can be asked about one professional; never inside a step."""

    def find(self, number: str) -> EntryFacts | None:
        """Give what it says of him today, or `None` when it knows nobody by that number.

        Raises
        ------
        Unavailable
            It does not answer.
        Fault
            It refuses to answer us.
        """


class Represent(Protocol):
    """Keeps the FHIR representations of the roots that a step touched; runs once, before the commit."""

    def __call__(self, step: Step, roots: Iterable[Any]) -> None:
        """Write new versions of what changed; nothing when nothing changed."""


@dataclass(frozen=True, slots=True)
class BroughtFile:
    """A picture or a PDF that a software brought for a dossier; ``kind`` is what its sender says it is."""

    key: str
    name: str
    kind: str
    at: datetime
    by: str


class BroughtFiles(Protocol):
    """Finds the pictures and PDFs that softwares brought for a dossier; the caller has seen that it exists for him."""

    def listed(self, session: Session, dossier: Dossier) -> tuple[BroughtFile, ...]:
        """Name them, the latest first."""

    def read(self, session: Session, dossier: Dossier, key: str) -> bytes | None:
        """Give the bytes of one, as they came; none when there is no such file."""


class ImageObjects(Protocol):
    """Reads image objects, and keeps those that come in a file."""

    def read(self, sha256: str) -> ObjectFacts:
        """Give what one says.

        Raises
        ------
        InvalidContent
            It is no image object, or lacks what names it.
        """

    def look(self, file: BinaryIO) -> ObjectFacts:
        """Give what a file says; errors as `read`."""

    def lay(self, file: BinaryIO, sender: Caller) -> None:
        """Keep the object of a file for its sender's organisation; durable when this returns.

        Raises
        ------
        GatewayError
            As for an object that the organisation's own software sends.
        """


@dataclass(frozen=True, slots=True)
class CopiedObject:
    """A copy of one object without identity, and where its bytes are kept.

    Parameters
    ----------
    uids
        Old and new, of every UID that was replaced.
    burned_in
        ``oui``, ``possible`` or ``non``: whether its pixels show who it is.
    """

    sha256: str
    size_bytes: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    uids: Mapping[str, str] = field(repr=False)
    burned_in: str


class ImageCopier(Protocol):
    """Makes copies of kept image objects without identity, and keeps their bytes."""

    def copy(
        self, sha256: str, *, secret: bytes, pseudonym: str, options: Sequence[str], known: Sequence[str]
    ) -> CopiedObject:
        """Copy one; the same arguments give the same bytes.

        Raises
        ------
        InvalidContent
            It is no image, or cannot be read within the limits.
        NotFound
            Its bytes are gone.
        Unavailable
            Not now.
        """


@dataclass(frozen=True, slots=True)
class RenderedForm:
    """The bytes of one form of a report: ``pdf``, ``cda``, ``n1``, ``xdm`` or ``xdm-retrait``."""

    form: str
    content_type: str
    content: bytes = field(repr=False)


class ReportForms(Protocol):
    """Renders the forms of a validated report; the same facts give the same bytes."""

    def render(self, content: ReportContent, *, with_n1: bool = False) -> tuple[RenderedForm, ...]:
        """Give ``cda``, ``pdf`` and ``xdm``, and ``n1`` where it goes beside the report.

        Parameters
        ----------
        with_n1
            Whether the version that is replaced had one.

        Raises
        ------
        InvalidContent
            ``report-frcp``: the facts cannot make a correct national document.
        """

    def withdrawal(self, content: ReportContent, cda: bytes, page: bytes | None = None) -> RenderedForm:
        """Give the ``xdm-retrait`` that withdraws the documents already sent: the ``cda``, and the ``n1`` beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportLetter:
    """One report to one recipient.

    Parameters
    ----------
    key
        Idempotency key of the message.
    listed
        Whether the national directory names the address; without it the domain alone says that it is MSSanté.
    recipient
        The professional; None where it is the patient.
    forms
        The very forms that are kept.
    spaced_hours
        Whether hours are written « 18 h 30 ».
    link, platform
        Address of the report's page, and of the portal.
    previous
        Message-IDs, without brackets, of what this recipient was sent of earlier versions, oldest first.
    """

    kind: ReportKind
    key: str
    at: datetime
    address: str
    listed: bool = False
    recipient: Person | None
    content: ReportContent
    forms: tuple[RenderedForm, ...]
    signature: str
    spaced_hours: bool = False
    link: str = ""
    platform: str = ""
    reply_to: str | None = None
    previous: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedLetter:
    """A letter as the bytes to send, rendered once."""

    content: bytes = field(repr=False)
    message_id: str
    envelope_id: str
    sender: str


class ReportMails(Protocol):
    """Composes the mail that carries a report, or tells of one."""

    def seal(self, letter: ReportLetter) -> SealedLetter:
        """Give the bytes; the same letter gives the same bytes.

        Raises
        ------
        InvalidContent
            It cannot be made: too large, no address, or an address that may not be sent what it says.
        """


@dataclass(frozen=True, slots=True)
class AgendaEntry:
    """A meeting for somebody's agenda: no patient in it.

    Parameters
    ----------
    uid, sequence
        The same for the same meeting; the sequence grows when it is moved.
    """

    uid: str
    sequence: int
    starts_at: datetime
    ends_at: datetime
    title: str
    place: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One mail without a document to one professional (M1, M2, M5, M7, M8), in words.

    Parameters
    ----------
    key
        Idempotency key of the message.
    at
        Domain instant of rendering; the mail's ``Date``.
    in_reply_to
        Message-ID, without brackets, of the mail that it answers by itself.
    agenda
        The meeting, for the reader's agenda.
    """

    kind: str
    key: str
    at: datetime
    address: str
    name: str
    subject: str
    body: str = field(repr=False)
    reply_to: str | None = None
    in_reply_to: str | None = None
    agenda: AgendaEntry | None = None


class Letters(Protocol):
    """Composes a mail without a document.

    Attributes
    ----------
    answers_read
        Whether what is answered to the gateway's mailbox is read.
    """

    @property
    def answers_read(self) -> bool:
        """See above."""

    def seal(self, letter: Letter) -> SealedLetter:
        """Give the bytes; the same letter gives the same bytes."""
