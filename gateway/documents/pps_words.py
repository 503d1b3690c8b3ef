"""The words of a personalised care plan: what a person reads, section by section.

Same promises as `gateway.documents.wording`, whose parts on tumour, discovery and phase a plan shares.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.documents.rows import Part, Row, partial_words, period_words, row, said_by, texts, with_aside, yes_no
from gateway.documents.wording import instant_words, person_words, short_date
from gateway.documents.wording_clinical import treatment_words
from gateway.terminology import code_list

if TYPE_CHECKING:
    from gateway.rcp.pps_content import PlannedCare, PpsContent

__all__ = ["PROGRAMME", "SUPPORT", "parts"]

PROGRAMME = ("traitement", "effets-secondaires", "mesure", "suivi")
SUPPORT = ("soins-support", "accompagnement")
_LABELS = {
    "traitement": "Traitement",
    "effets-secondaires": "Prévention des effets secondaires",
    "mesure": "Mesure associée",
    "suivi": "Suivi",
    "soins-support": "Soin de support",
    "accompagnement": "Accompagnement social",
}
_STATUS = {"en-cours": "en cours", "approuve": "approuvée"}


def parts(plan: PpsContent) -> dict[str, Part]:
    """Everything that a plan says beside what it shares with its report."""
    programme = _care(plan, PROGRAMME)
    if plan.stopped is not None:
        programme += (_stop(plan),)
    report = plan.report
    made = (
        Part("patient", "Commentaire sur le patient", texts(("patient", "Commentaire", plan.patient_comment))),
        Part(
            "pediatrie",
            "Pédiatrie",
            (
                yes_no("pediatrie", "Pédiatrie", report.paediatric_board),
                *texts(("pediatrie-commentaire", "Commentaire", plan.paediatric_comment)),
            ),
        ),
        Part(
            "programme",
            "Programme thérapeutique et de suivi",
            programme or (row("programme", "Programme", None),),
        ),
        Part("support", "Soins oncologiques de support, accompagnement social", _care(plan, SUPPORT)),
        Part("statut", "Statut du document", _status(plan)),
        Part("documents", "Documents référencés", (row("document-1", "Compte rendu de RCP", _number(plan)),)),
        Part("notice", "Information sur les données personnelles", texts(("notice", "Information", plan.notice))),
    )
    return {part.key: part for part in made}


def _care(plan: PpsContent, categories: tuple[str, ...]) -> tuple[Row, ...]:
    rows: list[Row] = []
    for i, care in enumerate(plan.care, 1):
        if care.category in categories:
            label = f"{_LABELS[care.category]} ({'réalisé' if care.done else 'prévu'})"
            rows.append(row(f"soin-{i}", label, _care_words(care)))
            rows += texts((f"soin-{i}-commentaire", "Commentaire", care.comment))
    return tuple(rows)


def _care_words(care: PlannedCare) -> str:
    said = treatment_words(care.kind, care.text, care.start, care.end)
    expected = period_words(care.expected_from, care.expected_to)
    aside = ", ".join(p for p in (f"prévu {expected}" if expected else None, said_by(care.performer)) if p)
    return with_aside(said, aside)


def _stop(plan: PpsContent) -> Row:
    answer = yes_no("arret", "Arrêt de tous les traitements actifs", plan.stopped)
    if plan.stopped and plan.stopped_on:
        return row("arret", answer.label, f"Oui\u00a0: le {partial_words(plan.stopped_on)}")
    return answer


def _status(plan: PpsContent) -> tuple[Row, ...]:
    zone = plan.report.tzinfo()
    when = instant_words(plan.written_at, zone)
    said = f"Version {plan.version}, {_STATUS[plan.status]} {when} par {person_words(plan.author)}"
    reason = code_list("PPS-MotifMiseAJour").label(plan.update_reason.code) if plan.update_reason else None
    return (
        row("statut-document", "Statut du document", said),
        *texts(
            ("motif-maj", "Motif de mise à jour", reason),
            ("date-rcp", "Date de la RCP", short_date(plan.report.meeting.start, zone)),
            ("date-remise", "Remis au patient le", plan.given_on and partial_words(plan.given_on)),
        ),
    )


def _number(plan: PpsContent) -> str:
    number = plan.report.document_id
    said = f"{number.extension} ({number.root})" if number.extension else number.root
    return f"{said}, version {plan.report.version}"
