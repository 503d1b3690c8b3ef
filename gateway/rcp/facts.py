"""What a wire says, in the domain's words: the input of the verbs, whatever protocol carried it.

Each ``translate`` module (FHIR, HL7 v2, DICOM, pages) turns its message into these values and the verbs take nothing
else. They are frozen, compare by value, and hold no row, session or clock.

Promises: identifiers are carried as a system and a value exactly as written (parsed and judged by the verbs through
`gateway.identifiers`); a fact that was not said is ``None`` or empty, never a default. Datetimes are aware.
Not promised: that what is said is true, or that who is named is known.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum

from msgspec import Struct

__all__ = [
    "AnswerFacts",
    "CodedFact",
    "FormFacts",
    "IdentifierFact",
    "IdentityFlag",
    "IdentityStatus",
    "InscriptionFacts",
    "NameFact",
    "Participation",
    "PatientFacts",
    "ProfessionalFact",
    "SessionFact",
    "Sex",
    "TumourFacts",
]


class Sex(StrEnum):
    """Administrative sex of the strict traits; ``M``, ``F`` or unknown, as in HL7 v2 table 0001 (France)."""

    FEMALE = "F"
    MALE = "M"
    UNKNOWN = "U"


class IdentityStatus(StrEnum):
    """How far an identity was checked, by the four statuses of the national identity rules (RNIV).

    The code ``VALI`` means two things in two national lists; translators read its system and answer one of these.
    """

    PROVISOIRE = "provisoire"
    RECUPEREE = "recuperee"
    VALIDEE = "validee"
    QUALIFIEE = "qualifiee"


class IdentityFlag(StrEnum):
    """Attributes that stand beside the status; the first two forbid to use the INS."""

    DOUTEUSE = "douteuse"
    FICTIVE = "fictive"
    HOMONYME = "homonyme"


class Participation(StrEnum):
    """How the requester takes part in the session (features S1-027)."""

    PRESENT = "present"
    ABSENT = "absent"
    WEBCONFERENCE = "webconference"


class IdentifierFact(Struct, frozen=True, kw_only=True):
    """One business identifier as it was sent.

    ``system`` is always written as a URI: ``urn:oid:…`` for an OID (HL7 v2 and DICOM issuers too), else the URL of the
    domain. ``kind`` is the code of the type when the sender gave one (``PI``, ``INS-NIR``, ``NH``, ``FILL`` …).
    """

    system: str
    value: str
    kind: str | None = None


class CodedFact(Struct, frozen=True, kw_only=True):
    """A coded value: the code with its system, and the words that the sender used."""

    system: str | None = None
    code: str | None = None
    text: str | None = None


class NameFact(Struct, frozen=True, kw_only=True):
    """One name of a person. ``given`` keeps the order; the first is the one of the strict traits."""

    family: str | None = None
    given: tuple[str, ...] = ()
    prefix: str | None = None


class ProfessionalFact(Struct, frozen=True, kw_only=True):
    """A professional named by a national number; the names are only what the sender wrote.

    ``identifier.value`` is an RPPS (11 digits) or an IdNatPS (``8`` and the RPPS): both are accepted under either
    system because senders confuse them. Without a number there is only ``display``, and nobody is linked.
    """

    identifier: IdentifierFact | None = None
    display: str | None = None


class PatientFacts(Struct, frozen=True, kw_only=True):
    """What one source says of one patient.

    Parameters
    ----------
    identifiers
        All identifiers of the record except the INS and billing numbers: the hospital's IPP, a regional number.
    ins
        The INS with its OID as system, when one was sent as such (never a billing NIR).
    birth_name
        Names of birth: family, and the first given name first.
    birth_given_names
        All given names of birth in one string, in order, when the source knows them.
    used_name
        The name in daily use, if it differs.
    birth_date
        ISO 8601, possibly partial (``1956-03``), never recomputed.
    birth_place_insee
        INSEE code of the commune or country of birth.
    treating_physician
        The médecin traitant declared by this source.
    """

    identifiers: tuple[IdentifierFact, ...] = ()
    ins: IdentifierFact | None = None
    status: IdentityStatus = IdentityStatus.PROVISOIRE
    flags: frozenset[IdentityFlag] = frozenset()
    birth_name: NameFact = NameFact()
    birth_given_names: str | None = None
    used_name: NameFact | None = None
    sex: Sex = Sex.UNKNOWN
    birth_date: str | None = None
    birth_place_insee: str | None = None
    treating_physician: ProfessionalFact | None = None
    active: bool = True


class TumourFacts(Struct, frozen=True, kw_only=True):
    """The tumour that the inscription is about.

    ``topography`` is CIM-10 (or CIM-O-3 topography), ``morphology`` CIM-O-3; ``label`` is the sender's own words and
    what mails and pages show.
    """

    identifiers: tuple[IdentifierFact, ...] = ()
    label: str | None = None
    topography: CodedFact | None = None
    morphology: CodedFact | None = None
    laterality: CodedFact | None = None
    stage: str | None = None
    discovered_on: str | None = None


class SessionFact(Struct, frozen=True, kw_only=True):
    """A session, named as the national documents do: the number of the RCP and when it starts.

    ``start`` is an instant when the sender gave a zone; a `date` alone names the session of that day.
    ``identifier`` is the session's own identifier when the sender knows it.
    """

    rcp_number: str | None = None
    start: datetime | date | None = None
    identifier: IdentifierFact | None = None


class AnswerFacts(Struct, frozen=True, kw_only=True):
    """The answers to one question of a form, in order; ``link_id`` is the question's stable key.

    ``occurrence`` counts, from 0, the repetitions of the group in which the question stands; ``question`` is how the
    form asks it.
    """

    link_id: str
    values: tuple[str | int | bool | Decimal | CodedFact, ...] = ()
    occurrence: int = 0
    question: str | None = None


class FormFacts(Struct, frozen=True, kw_only=True):
    """A form of the RCP as filled in; ``completed`` once its author declared it so."""

    form: str | None = None
    completed: bool = False
    authored: datetime | None = None
    author: ProfessionalFact | None = None
    identifiers: tuple[IdentifierFact, ...] = ()
    answers: tuple[AnswerFacts, ...] = ()

    def text(self, link_id: str) -> str | None:
        """First answer to a question as text, or ``None``."""
        for answer in self.answers:
            if answer.link_id == link_id and answer.values:
                value = answer.values[0]
                if isinstance(value, CodedFact):
                    return value.text or value.code
                return str(value)
        return None


class InscriptionFacts(Struct, frozen=True, kw_only=True):
    """A request to have one patient discussed in one session.

    ``number`` is the inscription number (a ``urn:uuid:``, the ``order/id`` of the national report); ``placer`` the
    requester's own number. The question asked may come here or in the form; the verb takes the first that is said.
    ``reason`` is the first of ``reasons``.
    """

    number: str | None = None
    placer: IdentifierFact | None = None
    session: SessionFact = SessionFact()
    requester: ProfessionalFact | None = None
    participation: Participation | None = None
    reason: CodedFact | None = None
    reasons: tuple[CodedFact, ...] = ()
    question: str | None = None
    urgent: bool = False
    requested_on: datetime | date | None = None
    tumour: TumourFacts | None = None
    form: FormFacts | None = None
