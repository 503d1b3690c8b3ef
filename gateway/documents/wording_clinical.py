"""The words of a report on the illness itself: tumour, state of the patient, phase, treatments and reports before.

Each function gives the rows of one part of `gateway.documents.wording.report_parts`, under the same promises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.documents.rows import (
    Row,
    clean,
    coded,
    label_of,
    partial_words,
    period_words,
    row,
    said_by,
    texts,
    with_aside,
    yes_no,
)

if TYPE_CHECKING:
    from gateway.rcp.report_content import (
        CodedValue,
        Geriatric,
        OtherStage,
        QuotedReport,
        ReportContent,
        Tnm,
        TumourContent,
    )

__all__ = ["past_treatments", "phase", "quoted", "quoted_of", "state", "tnm_words", "treatment_words", "tumours"]

_WHO = (
    "capable d’une activité identique à celle précédant la maladie, sans restriction",
    "activité physique diminuée, mais ambulatoire et capable de mener un travail",
    "ambulatoire et capable de prendre soin de soi, incapable de travailler",
    "capable de soins personnels limités, alité ou au fauteuil plus de la moitié du temps",
    "incapable de prendre soin de soi, alité ou au fauteuil en permanence",
)
_DONE = {"fait": "Déjà réalisé", "en-cours": "En cours", "non-fait": "Non réalisé"}
_QUOTED = {
    # The label of the conclusion, of who did the act, and of who took the sample.
    "cro": ("Compte rendu opératoire", "Opération", "Prélèvement"),
    "acp": ("Anatomopathologie", "Examen", "Prélèvement"),
    "gm": ("Génétique moléculaire", "Examen", "Prélèvement"),
}


def tumours(said: tuple[TumourContent, ...]) -> tuple[Row, ...]:
    """Say each tumour; the first two rows even when nothing is known."""
    if not said:
        return (row("tumeur-1", "Tumeur", None), row("tnm-1", "TNM clinique", None))
    rows: list[Row] = []
    for i, tumour in enumerate(said, 1):
        number = f" {i}" if len(said) > 1 else ""
        rows += [
            row(f"tumeur-{i}", f"Tumeur{number}", tumour.label or label_of(tumour.topography)),
            row(f"diagnostic-{i}", "Date du diagnostic", tumour.diagnosed_on and partial_words(tumour.diagnosed_on)),
            row(f"topographie-{i}", "Topographie (CIM-10)", _code_words(tumour.topography)),
            row(f"morphologie-{i}", "Morphologie (CIM-O-3)", _code_words(tumour.morphology)),
            *((coded(f"lateralite-{i}", "Latéralité", tumour.laterality),) if tumour.laterality else ()),
            row(f"tnm-{i}", "TNM clinique", tnm_words(tumour.tnm)),
            *texts((f"stade-{i}", "Autre stade", tumour.other_stage)),
            *(line for j, stage in enumerate(tumour.other_stages, 1) for line in _other_stage(stage, f"{i}-{j}")),
            *texts((f"tumeur-commentaire-{i}", "Commentaire", tumour.comment)),
        ]
    return tuple(rows)


def _code_words(value: CodedValue | None) -> str | None:
    return f"{value.code} – {value.label}" if value else None


def _other_stage(stage: OtherStage, rank: str) -> tuple[Row, ...]:
    name = with_aside(clean(stage.name), stage.version and clean(stage.version))
    return (
        row(f"stade-{rank}", f"Stade {name}", stage.value),
        row(f"stade-nom-{rank}", "Classification", stage.name, detail=True),
        row(f"stade-version-{rank}", "Version de la classification", stage.version, detail=True),
    )


def tnm_words(tnm: Tnm | None) -> str | None:
    """« T2 N1 M0, stade IIB (TNM, 8e édition) »; a letter that was not pronounced is left out."""
    if tnm is None:
        return None
    letters = " ".join(v for v in (tnm.t, tnm.n, tnm.m) if v)
    said = ", ".join(p for p in (letters, f"stade {tnm.stage}" if tnm.stage else "") if p)
    return f"{said} (TNM, {tnm.edition}e édition)" if said and tnm.edition else said or None


def state(content: ReportContent) -> tuple[Row, ...]:
    """Say performance status and frailty, when they were measured."""
    rows: list[Row] = []
    if content.who_status is not None:
        on = f" ({partial_words(content.who_status_on)})" if content.who_status_on else ""
        rows.append(row("oms", "Indice OMS", f"{content.who_status}{on}\u00a0: {_WHO[content.who_status]}"))
    if content.geriatric is not None:
        rows.append(row("fragilite", "Dépistage de la fragilité gériatrique", _frailty(content.geriatric)))
    return tuple(rows)


def _frailty(screening: Geriatric) -> str:
    on = f"le {partial_words(screening.on)}" if screening.on else None
    return with_aside(f"{clean(screening.tool or '') or 'G8'}\u00a0: {screening.score}", on)


def phase(content: ReportContent) -> tuple[Row, ...]:
    """Say phase and progression; where it progresses stands in the answer, and once more in rows of detail."""
    words = label_of(content.phase)
    if words and content.phase_on:
        words = f"{words} ({partial_words(content.phase_on)})"
    sites = (
        ("progression-locale", "Progression locale", content.progression_local, "locale"),
        ("progression-regionale", "Progression régionale", content.progression_regional, "régionale"),
        ("progression-distance", "Progression à distance", content.progression_distant, "à distance"),
    )
    progression = yes_no("progression", "Progression", content.progression)
    where = ", ".join(site for _, _, value, site in sites if value)
    if content.progression and where:
        progression = row("progression", "Progression", f"Oui\u00a0: {where}")
    details = (
        [yes_no(anchor, label, value, detail=True) for anchor, label, value, _ in sites] if content.progression else []
    )
    comment = texts(("phase-commentaire", "Commentaire", content.phase_comment))
    return (row("phase", "Phase", words), progression, *details, *comment)


def past_treatments(content: ReportContent) -> tuple[Row, ...]:
    """Say each treatment before the meeting, under whether it was done."""
    return tuple(
        row(f"passe-{i}", _DONE[past.state], treatment_words(past.kind, past.text, past.start, past.end))
        for i, past in enumerate(content.past_treatments, 1)
    )


def treatment_words(kind: CodedValue, text: str | None, start: str | None, end: str | None) -> str:
    """« Chimiothérapie – FOLFIRINOX (à partir du 02/2027) »."""
    name = kind.label[:1].upper() + kind.label[1:]
    said = f"{name} – {clean(text)}" if text else name
    return with_aside(said, period_words(start, end))


def quoted(content: ReportContent, kind: str) -> tuple[Row, ...]:
    """Say the reports of one kind: conclusion, who and when, sample, author when another, remark."""
    conclusion, act, sample = _QUOTED[kind]
    reports = quoted_of(content, kind)
    rows: list[Row] = []
    for i, report in enumerate(reports, 1):
        number = f" {i}" if len(reports) > 1 else ""
        rows.append(row(f"{kind}-{i}", f"{conclusion}{number}", report.conclusion))
        done = _day_words(report.done_from, report.done_to)
        taken = _day_words(report.sampled_on, None)
        rows += texts(
            (f"{kind}-{i}-acte", f"{act}{number}", _by(done, said_by(report.performer))),
            (f"{kind}-{i}-prelevement", f"{sample}{number}", _by(taken, said_by(report.sampler))),
            (f"{kind}-{i}-auteur", f"Conclusion{number} écrite par", said_by(report.author)),
            (f"{kind}-{i}-remarque", f"Remarque{number}", report.remark),
        )
    return tuple(rows)


def quoted_of(content: ReportContent, kind: str) -> tuple[QuotedReport, ...]:
    """Give the quoted reports of one kind, in their order."""
    return tuple(report for report in content.quoted if report.kind == kind)


def _day_words(start: str | None, end: str | None) -> str | None:
    if start and end and start != end:
        return period_words(start, end)
    return f"le {partial_words(start or end or '')}" if start or end else None


def _by(when: str | None, who: str | None) -> str | None:
    return ", ".join(p for p in (when, who) if p) or None
