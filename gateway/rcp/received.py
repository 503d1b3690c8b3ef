"""A document that somebody sends about a patient: whose it is, and what became of it.

[spec cda-frcp 6, mssante 5.8, 6.1]
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct

from gateway.rcp.report_content import Identifier, PartialDate

__all__ = ["DocumentHeader"]


class DocumentHeader(Struct, frozen=True, kw_only=True):
    """What the header of a CDA says.

    Attributes
    ----------
    unique_id, set_id, replaces
        ``root``, or ``root^extension``.
    patient_ids
        INS and local numbers, as the document has them.
    birth_date
        ISO 8601, as far as it is said.
    author_idnps
        National number of the first author who has one.
    pdf
        The document that an ``n1`` envelope carries, when it is a PDF.
    """

    unique_id: str
    set_id: str | None = None
    version: int | None = None
    replaces: str | None = None
    type_code: str | None = None
    type_label: str | None = None
    title: str | None = None
    created: datetime | None = None
    author: str | None = None
    author_idnps: str | None = None
    patient_ids: tuple[Identifier, ...] = ()
    birth_family: str | None = None
    birth_given: str | None = None
    birth_date: PartialDate | None = None
    sex: str | None = None
    format: Literal["n1", "structure"] = "structure"
    pdf: bytes | None = None
