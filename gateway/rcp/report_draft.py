"""What the coordinator types before a report is validated; kept as JSON in `gateway.model.report.Report.draft`.

Promises: `read` accepts what `kept` gave and nothing else; every limit is named in the refusal; a partial date is
checked. Not promised: that the draft is enough to validate (`gateway.rcp.report.validate` says what is missing).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from gateway.errors import InvalidContent
from gateway.rcp.report_content import PartialDate

__all__ = ["AGREEMENTS", "DraftExamination", "DraftTreatment", "ReportDraft", "kept", "read"]

TEXT_MAX_CHARS = 20_000
LINE_MAX_CHARS = 500
LIST_MAX = 50
AGREEMENTS = {
    "accord": "Patient informé, d’accord",
    "informe": "Patient informé ; accord non recueilli",
    "non-informe": "Patient non informé",
}
"""What may be said of the patient's information and agreement."""

_Text = Annotated[str, Meta(max_length=TEXT_MAX_CHARS)]
_Line = Annotated[str, Meta(max_length=LINE_MAX_CHARS)]


class DraftTreatment(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One treatment proposed: a code of FRCP-TypeTraitement, for which intention (1 the first), and precisions."""

    code: str
    rank: Annotated[int, Meta(ge=1, le=LIST_MAX)] = 1
    text: _Line | None = None
    start: PartialDate | None = None
    end: PartialDate | None = None


class DraftExamination(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A complementary examination asked for."""

    text: _Line
    earliest: PartialDate | None = None
    latest: PartialDate | None = None


class ReportDraft(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, rename={
    "summary": "synthese",
    "proposal": "proposition",
    "treatments": "traitements",
    "recourse": "recours",
    "examinations": "examens",
    "follow_up": "surveillance",
    "comment": "commentaire",
    "guideline": "referentiel",
    "guideline_dated": "referentiel_date",
    "trial": "essai",
    "recorded_only": "enregistre",
    "complete": "complet",
    "tool": "outil_visio",
    "incidents": "incidents_techniques",
    "agreement": "accord_patient",
    "remark": "remarque",
    "supportive_care": "soins_support",
    "recommended": "recommandations",
    "reason": "motif",
    "kind": "nature",
}):  # fmt: skip
    """The draft (screen E24 of spec features 4.4).

    Parameters
    ----------
    proposal, alternatives
        The proposal in words, and the alternatives in order of preference.
    guideline, guideline_dated
        Name and version of the guideline followed, and its date.
    trial
        The trial proposed, in words; empty text means that none was, ``None`` that nobody said.
    recorded_only
        The case was only recorded: a guideline answers (ORG-128).
    complete
        Whether the file was complete; ``None``: as the form says.
    supportive_care
        The supportive care proposed, in words; coded, it is a treatment (C15747).
    recommended
        Consultations advised beside the treatment (S2-044).
    tool, incidents
        Conferencing tool used and technical incidents (S4-008, S4-034).
    agreement
        What the patient was told of the discussion and said to it (S4-034); ``None`` when nobody said.
    kind, reason
        Of a new version: ``correction`` or ``addendum``, and why.
    """

    summary: _Text | None = None
    proposal: _Text | None = None
    alternatives: Annotated[tuple[_Text, ...], Meta(max_length=LIST_MAX)] = ()
    treatments: Annotated[tuple[DraftTreatment, ...], Meta(max_length=LIST_MAX)] = ()
    recourse: _Text | None = None
    examinations: Annotated[tuple[DraftExamination, ...], Meta(max_length=LIST_MAX)] = ()
    follow_up: _Text | None = None
    comment: _Text | None = None
    guideline: _Line | None = None
    guideline_dated: PartialDate | None = None
    trial: _Line | None = None
    recorded_only: bool = False
    complete: bool | None = None
    tool: _Line | None = None
    incidents: _Text | None = None
    agreement: Literal["accord", "informe", "non-informe"] | None = None
    remark: _Text | None = None
    supportive_care: _Text | None = None
    recommended: Annotated[
        tuple[Literal["oncogeriatrie", "fertilite", "oncogenetique"], ...], Meta(max_length=LIST_MAX)
    ] = ()
    reason: _Line | None = None
    kind: Annotated[str, Meta(pattern="^(correction|addendum)$")] = "correction"


def kept(draft: ReportDraft) -> dict[str, Any]:
    """Give the JSON object to keep, after checking it as `read` would."""
    said: dict[str, Any] = msgspec.to_builtins(draft)
    read(said)
    return said


def read(said: dict[str, Any]) -> ReportDraft:
    """Read a draft.

    Raises
    ------
    InvalidContent
        ``cr-brouillon-invalide``, with the place in ``expression`` and the limits in the text.
    """
    try:
        return msgspec.convert(said, ReportDraft)
    except msgspec.ValidationError as error:
        where = str(error).partition("`$")[2].strip("`.") or None
        text = (
            "Le brouillon du compte rendu n’est pas valable "
            f"(textes : {TEXT_MAX_CHARS} caractères, lignes : {LINE_MAX_CHARS}, listes : {LIST_MAX})."
        )
        raise InvalidContent("cr-brouillon-invalide", text, expression=where, rule=True) from error
