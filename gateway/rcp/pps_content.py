"""The facts of one version of a personalised care plan (PPS): what its document says beside what the report says.

Promises: values are immutable and compare by value; each kind of care is a code of its own national set, which
`gateway.documents.pps` checks before it writes. Not promised: a life cycle (`gateway.rcp.pps`); a plan is rendered from
what it is given, and nothing here keeps it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec
from msgspec import Struct

from gateway.errors import Fault
from gateway.rcp.report_content import (
    CodedValue,
    Identifier,
    Organisation,
    PartialDate,
    Person,
    Replaced,
    ReportContent,
)

__all__ = ["Contact", "PlannedCare", "PpsContent", "decode"]


class PlannedCare(Struct, frozen=True, kw_only=True):
    """One line of the programme: a treatment, a measure, a follow-up, a support.

    Parameters
    ----------
    category
        Which national set `kind` is of.
    done
        Whether it took place already; else it is to come.
    start, end, expected_from, expected_to
        Dates confirmed, dates expected.
    """

    category: Literal["traitement", "effets-secondaires", "mesure", "suivi", "soins-support", "accompagnement"]
    kind: CodedValue
    done: bool = False
    text: str | None = None
    start: PartialDate | None = None
    end: PartialDate | None = None
    expected_from: PartialDate | None = None
    expected_to: PartialDate | None = None
    performer: Person | None = None
    comment: str | None = None


class Contact(Struct, frozen=True, kw_only=True):
    """A person or a structure that the patient may turn to, and as what."""

    role: Literal["reference", "proximite", "coordination", "social", "soutien", "mediateur", "3c", "reseau"]
    person: Person | None = None
    organisation: Organisation | None = None


class PpsContent(Struct, frozen=True, kw_only=True):
    """Everything that one version of a plan says.

    Parameters
    ----------
    report
        The validated report that the plan follows: patient, tumours, meeting, treating physician, zone.
    author
        The professional who makes the plan and answers for it.
    stopped, stopped_on
        Whether all active treatments were stopped, and when.
    update_reason
        Why a further version was made (JDV_MotifMiseAJour).
    given_on
        When it was given to the patient.
    notice
        What the patient is told of the use of his data.
    """

    document_id: Identifier
    set_id: Identifier
    version: int
    replaces: Replaced | None = None
    status: Literal["en-cours", "approuve"] = "approuve"
    written_at: datetime
    report: ReportContent
    author: Person
    contacts: tuple[Contact, ...] = ()
    care: tuple[PlannedCare, ...] = ()
    stopped: bool | None = None
    stopped_on: PartialDate | None = None
    update_reason: CodedValue | None = None
    given_on: PartialDate | None = None
    patient_comment: str | None = None
    paediatric_comment: str | None = None
    notice: str | None = None


def decode(data: bytes) -> PpsContent:
    """Give back the facts that a validation froze.

    Raises
    ------
    Fault
        ``pps-content`` if the bytes are not such facts.
    """
    try:
        return msgspec.json.decode(data, type=PpsContent)
    except msgspec.MsgspecError as error:
        raise Fault("pps-content", "Le contenu conservé du PPS est illisible.") from error
