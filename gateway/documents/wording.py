"""The words of a report: what a person reads, said once for every form.

The CDA's narrative and the PDF are set from the same `Part` values, so that they cannot say different things: a form
chooses where a row stands, never its words. `report_parts` gives them from the frozen facts.

Promises: French typography (« », no-break spaces, 1er); every date and hour in the zone of the RCP, which is named;
text of users appears as it was written, but for `clean`; a row that nobody filled in says « Non renseigné » and is
marked so. Not promised: any markup; a row is plain text whose line breaks count.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from gateway.documents import wording_clinical as clinical
from gateway.documents.rows import (
    UNKNOWN,
    Part,
    Row,
    clean,
    coded,
    full_name,
    label_of,
    partial_words,
    period_words,
    person_words,
    row,
    speciality_words,
    texts,
    with_aside,
    yes_no,
)
from gateway.rcp import french
from gateway.terminology import code_list

if TYPE_CHECKING:
    from gateway.rcp.report_content import Contribution, Person, Replaced, ReportContent

__all__ = [
    "NOT_QUORATE",
    "PREPARATORY",
    "RECOMMENDATIONS",
    "UNKNOWN",
    "Part",
    "Row",
    "banner",
    "civil_words",
    "clean",
    "contribution_heading",
    "instant_words",
    "long_date",
    "partial_words",
    "person_words",
    "report_parts",
    "short_date",
    "speciality_words",
    "status_words",
]

PREPARATORY = "Document préparatoire, susceptible d’évoluer jusqu’à la validation."
NOT_QUORATE = "Le quorum n’était pas atteint\u00a0: cet avis ne vaut pas proposition de RCP au sens réglementaire."

_LONG_TITLES = {"DR": "Docteur", "PR": "Professeur", "PG": "Professeur", "PC": "Professeur"}
_GREETINGS = {"M": "Monsieur", "MME": "Madame"}
_CHANNELS = {
    "portail": "déposée sur la fiche",
    "mssante": "reçue par messagerie sécurisée",
    "fhir": "reçue du logiciel métier",
}
_QUORUM = {"atteint": "ORG-126", "non-atteint": "ORG-133", "inconnu": "GEN-010"}
_CASE = {"enregistre": "ORG-128", "discute": "ORG-134"}
RECOMMENDATIONS = {
    "oncogeriatrie": "Consultation d’évaluation oncogériatrique",
    "fertilite": "Consultation de préservation de la fertilité",
    "oncogenetique": "Consultation d’oncogénétique",
}
_STATUS = {"en-cours": "en cours", "approuve": "approuvée"}


def long_date(instant: datetime, zone: ZoneInfo) -> str:
    """« jeudi 26 novembre 2026 » in the zone."""
    return french.long_day(instant.astimezone(zone).date())


def short_date(instant: datetime, zone: ZoneInfo) -> str:
    """« 26/11/2026 » in the zone."""
    return french.short_date(instant.astimezone(zone).date())


def hour(instant: datetime, zone: ZoneInfo) -> str:
    """« 15:30 » in the zone, as the reports in use print it (features S2-046)."""
    return f"{instant.astimezone(zone):%H:%M}"


def instant_words(instant: datetime, zone: ZoneInfo) -> str:
    """« le 26/11/2026 à 18:15 (heure de Paris) »."""
    return f"le {short_date(instant, zone)} à {hour(instant, zone)} ({french.zone_label(zone.key)})"


def civil_words(person: Person) -> tuple[str, str]:
    """« Docteur », « DURANT »: how a letter greets; « Madame, Monsieur » when neither title nor civility is known."""
    title = _LONG_TITLES.get(person.title or "") or _GREETINGS.get(person.civility or "", "Madame, Monsieur")
    return title, clean(person.family.upper())


def contribution_heading(contribution: Contribution, content: ReportContent) -> str:
    """Who wrote, in which speciality, when in the zone of the RCP, and by which way."""
    author = contribution.author
    who = with_aside(
        f"{_LONG_TITLES.get(author.title or '', '')} {full_name(author)}".strip(), speciality_words(author)
    )
    when = instant_words(contribution.at, content.tzinfo())
    said = f"Contribution du médecin traitant\u00a0: {who} {when}, {_CHANNELS[contribution.channel]}"
    return f"{said}, avec le souhait d’assister à la discussion" if contribution.wishes_to_attend else said


def banner(content: ReportContent) -> str | None:
    """Say what a reader must know before all else; ``None`` for a first, quorate, validated version."""
    said = []
    if content.status == "en-cours":
        said.append(PREPARATORY)
    if content.replaces is not None:
        said.append(_replacement(content, content.replaces))
    if content.quorum == "non-atteint":
        said.append(NOT_QUORATE)
    return " ".join(said) or None


def _replacement(content: ReportContent, old: Replaced) -> str:
    verb = "Complète et remplace" if old.kind == "addendum" else "Annule et remplace"
    zone = content.tzinfo()
    said = f"{verb} la version {old.version} validée le {short_date(old.validated_at, zone)}"
    said += f" à {hour(old.validated_at, zone)}."
    return f"{said} Motif\u00a0: {_sentence(old.reason)}" if old.reason else said


def _sentence(text: str) -> str:
    said = clean(text).replace("\n", " ")
    return said if said.endswith((".", "!", "?", "…")) else f"{said}."


def report_parts(content: ReportContent) -> dict[str, Part]:
    """Everything that the report says beside its header, by section key, in the order of the national document."""
    parts = (
        Part("raison", "Type et motif de la réunion", _reason(content)),
        Part("decouverte", "Mode de découverte", (yes_no("depistage", "Issu du dépistage", content.screening),)),
        Part("tumeur", "Tumeur", clinical.tumours(content.tumours)),
        Part("antecedents", "Antécédents", texts(("antecedents", "Antécédents", content.medical_history))),
        Part("comorbidites", "Comorbidités", texts(("comorbidites", "Comorbidités", content.comorbidities))),
        Part("etat", "État général", clinical.state(content)),
        Part("examens", "Résultats d’examens", texts(("examens", "Éléments paracliniques", content.examinations))),
        Part("phase", "Phase de la maladie", clinical.phase(content)),
        Part("traitements", "Traitements passés ou en cours", clinical.past_treatments(content)),
        Part("cro", "Compte rendu opératoire", clinical.quoted(content, "cro")),
        Part("acp", "Compte rendu d’anatomopathologie", clinical.quoted(content, "acp")),
        Part("gm", "Compte rendu de génétique moléculaire", clinical.quoted(content, "gm")),
        Part("histoire", "Synthèse du cas et question posée", _history(content)),
        Part("dossier", "Dossier et quorum", _file(content)),
        Part("proposition", "Proposition de la RCP", _plan(content)),
        Part("cadre", "Cadre de la proposition", _frame(content)),
        Part("remarque", "Remarques sur le patient", texts(("remarque", "Remarque", content.patient_remark))),
        Part("statut", "Statut du document", _document(content)),
    )
    return {part.key: part for part in parts}


def _reason(content: ReportContent) -> tuple[Row, ...]:
    motives = content.motives
    return (
        coded("nature", "Nature de la discussion", content.board_kind),
        *_subject(content),
        yes_no("rcp-recours", "RCP de recours", content.recourse_board, detail=not content.recourse_board),
        yes_no("rcp-pediatrique", "RCP pédiatrique", content.paediatric_board, detail=not content.paediatric_board),
        *texts(("rcp-commentaire", "Précision sur la RCP", content.board_comment)),
        row("motif", "Motif de la RCP", _motives(content)),
        yes_no("motif-avis", "Avis diagnostique", motives.diagnostic_opinion, detail=True),
        yes_no("motif-traitement", "Proposition de traitement", motives.treatment_proposal, detail=True),
        yes_no("motif-recours", "Recours", motives.recourse, detail=True),
        yes_no("motif-pediatrie", "Pédiatrie", motives.paediatrics, detail=True),
        row(
            "statut-cas",
            "Statut du cas présenté",
            code_list("FRCP-StatutCasPresente").label(_CASE[content.case_status]),
        ),
        *texts(
            ("motif-commentaire", "Commentaire", motives.comment),
            ("etiquettes", "Étiquettes", ", ".join(content.labels)),
        ),
    )


def _subject(content: ReportContent) -> tuple[Row, ...]:
    kind = content.board_kind.code if content.board_kind else None
    if kind == "ORG-117":
        organs = [coded(f"organe-{i}", "Organe", organ) for i, organ in enumerate(content.organs, 1)]
        return (
            coded("appareil", "Appareil", content.system),
            *(organs or [row("organe-1", "Organe", content.subject)]),
        )
    if kind == "ORG-132":
        return (row("soins", "Traitement ou soins", label_of(content.care) or content.subject),)
    return texts(("objet", "Objet", content.subject))


def _motives(content: ReportContent) -> str | None:
    said = (
        ("avis diagnostique", content.motives.diagnostic_opinion),
        ("proposition de traitement", content.motives.treatment_proposal),
        ("recours", content.motives.recourse),
        ("pédiatrie", content.motives.paediatrics),
    )
    found = ", ".join(words for words, asked in said if asked)
    return found[:1].upper() + found[1:] or None


def _history(content: ReportContent) -> tuple[Row, ...]:
    rows = [
        *texts(("synthese", "Synthèse du cas", content.summary)),
        row("question", "Question posée", content.question),
    ]
    for i, contribution in enumerate(content.contributions, 1):
        rows.append(row(f"contribution-{i}", contribution_heading(contribution, content), contribution.text))
    return tuple(rows)


def _file(content: ReportContent) -> tuple[Row, ...]:
    quorum = code_list("FRCP-StatutQuorum").label(_QUORUM[content.quorum])
    return (
        yes_no("dossier-complet", "Dossier complet", content.complete),
        row("quorum", "Quorum", quorum),
        *texts(
            ("quorum-membres", "Membres du quorum", _people(content, in_quorum=True)),
            ("presents", "Autres présents", _people(content, in_quorum=False)),
            ("quorum-regle", "Règle de quorum", content.quorum_rule),
            ("dossier-commentaire", "Commentaire", content.file_comment),
        ),
    )


def _people(content: ReportContent, *, in_quorum: bool) -> str:
    said = []
    for attendance in content.attendees:
        if attendance.in_quorum is in_quorum:
            speciality = speciality_words(attendance.person)
            remote = "à distance" if attendance.remote else None
            aside = ", ".join(p for p in (speciality, remote) if p)
            said.append(with_aside(person_words(attendance.person), aside))
    return "\u202f; ".join(said)


def _plan(content: ReportContent) -> tuple[Row, ...]:
    rows: list[Row] = []
    for proposal in sorted(content.proposals, key=lambda p: p.rank):
        name = "1re intention" if proposal.rank == 1 else f"Alternative (intention {proposal.rank})"
        rows += texts((f"proposition-{proposal.rank}", name, proposal.text))
        for i, treatment in enumerate(proposal.treatments, 1):
            label = f"{name}, traitement {i}" if len(proposal.treatments) > 1 else f"{name}, traitement"
            rows.append(
                row(
                    f"traitement-{proposal.rank}-{i}",
                    label,
                    clinical.treatment_words(treatment.kind, treatment.text, treatment.start, treatment.end),
                )
            )
    rows += texts(("recours", "Passage en RCP de recours", content.recourse_asked))
    for i, asked in enumerate(content.examinations_asked, 1):
        limits = period_words(asked.earliest, asked.latest)
        rows.append(row(f"examen-{i}", "Examen ou expertise complémentaire", with_aside(asked.text, limits)))
    rows += texts(
        *((f"recommandation-{what}", "Recommandation", RECOMMENDATIONS[what]) for what in content.recommended),
        ("soins-support", "Soins de support", content.supportive_care),
        ("surveillance", "Surveillance", content.surveillance),
        ("proposition-commentaire", "Autre", content.proposal_comment),
    )
    return tuple(rows) or (row("proposition", "Proposition", None),)


def _frame(content: ReportContent) -> tuple[Row, ...]:
    guideline = content.guideline
    name = with_aside(guideline.name, guideline.dated and partial_words(guideline.dated)) if guideline else None
    return (
        row("referentiel", "Référentiel suivi", name),
        yes_no("essai", "Inclusion dans un essai clinique proposée", content.trial),
        *texts(
            ("essai-nom", "Essai clinique", content.trial_name),
            ("cadre-commentaire", "Commentaire", content.frame_comment),
        ),
    )


def status_words(content: ReportContent) -> str:
    """« Version 1, approuvée le 26/11/2026 à 18:15 (heure de Paris) par Dr Claire MERCIER »."""
    when = instant_words(content.written_at, content.tzinfo())
    return f"Version {content.version}, {_STATUS[content.status]} {when} par {person_words(content.validator)}"


def _document(content: ReportContent) -> tuple[Row, ...]:
    return (
        row("statut-document", "Statut du document", status_words(content)),
        *texts(
            ("avertissement", "À savoir", banner(content)),
            ("document-commentaire", "Commentaire", content.document_comment),
        ),
    )
