"""What one received image object says, in the domain's words: the input of `gateway.rcp.imaging`.

As `gateway.rcp.facts`: frozen, compared by value, identifiers as system and value exactly as written; what was not
said, or not readably, is ``None``. ``DICOM`` attributes keep the standard's keyword in lower snake case.
"""

from __future__ import annotations

from datetime import date, datetime

from msgspec import Struct

from gateway.rcp.facts import IdentifierFact, Sex

__all__ = ["ImagedPatientFacts", "InstanceFacts", "ObjectFacts", "SeriesFacts", "StudyFacts"]


class ImagedPatientFacts(Struct, frozen=True, kw_only=True):
    """Whom the object names.

    Parameters
    ----------
    patient_id
        (0010,0020); ``system`` is empty when the object names no issuer that is an OID or a URI.
    others
        (0010,1002), those with such an issuer only.
    issuer_text
        (0010,0021) when it is neither: a local name, never proof of a domain.
    """

    patient_id: IdentifierFact | None = None
    others: tuple[IdentifierFact, ...] = ()
    issuer_text: str | None = None
    family: str | None = None
    given: str | None = None
    birth_date: date | None = None
    sex: Sex = Sex.UNKNOWN


class StudyFacts(Struct, frozen=True, kw_only=True):
    """The study that the object belongs to; ``started`` is a date alone when no time was said.

    Parameters
    ----------
    orders
        What it answers: accession numbers (kind ``ACSN``), order numbers of the placer (``PLAC``) and of the filler
        (``FILL``); ``system`` is empty when the object names no issuer.
    searched
        What searches compare, by column of `gateway.model.imaging.Study`.
    """

    study_instance_uid: str
    accession: IdentifierFact | None = None
    orders: tuple[IdentifierFact, ...] = ()
    description: str | None = None
    referring_physician: str | None = None
    started: datetime | date | None = None
    searched: dict[str, str] = {}


class SeriesFacts(Struct, frozen=True, kw_only=True):
    """The series that the object belongs to; ``searched`` as of the study."""

    series_instance_uid: str
    modality: str | None = None
    number: int | None = None
    description: str | None = None
    body_part_examined: str | None = None
    laterality: str | None = None
    started: datetime | date | None = None
    searched: dict[str, str] = {}


class InstanceFacts(Struct, frozen=True, kw_only=True):
    """The object itself; ``number_of_frames`` is ``None`` when it holds no picture."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    number: int | None = None
    number_of_frames: int | None = None
    rows: int | None = None
    columns: int | None = None


class ObjectFacts(Struct, frozen=True, kw_only=True):
    """All that is kept of one object beside its bytes.

    Parameters
    ----------
    dicom_json
        The DICOM JSON of the instance without its pixels, as a query returns it.
    unreadable
        Keywords of attributes that are there but against their type: dropped, never guessed.
    """

    patient: ImagedPatientFacts
    study: StudyFacts
    series: SeriesFacts
    instance: InstanceFacts
    dicom_json: bytes
    unreadable: tuple[str, ...] = ()
