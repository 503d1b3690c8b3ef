"""The words of a report: what a person reads, said once for every form.

The CDA's narrative and the PDF are set from the same `Part` values, so that they cannot say different things: a form
chooses where a row stands, never its words. `report_parts` gives them from the frozen facts.

Promises: French typography (« », no-break spaces, 1er); every date and hour in the zone of the RCP, which is named;
text of users appears as it was written, but for `clean`; a row that nobody filled in says « Non renseigné » and is
marked so. Not promised: any markup; a row is plain text whose line breaks count.
"""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from msgspec import Struct
from msgspec.structs import replace

from gateway.rcp import french
from gateway.terminology import code_list

if TYPE_CHECKING:
    from gateway.rcp.report_content import (
        CodedValue,
        Contribution,
        PartialDate,
        Person,
        Replaced,
        ReportContent,
        Tnm,
        Treatment,
        TumourContent,
    )

__all__ = [
    "NOT_QUORATE",
    "PREPARATORY",
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
    "status_words",
]

UNKNOWN = "Non renseigné"
PREPARATORY = "Document préparatoire, susceptible d’évoluer jusqu’à la validation."
NOT_QUORATE = "Le quorum n’était pas atteint\u00a0: cet avis ne vaut pas proposition de RCP au sens réglementaire."

_TITLES = {"DR": "Dr", "PR": "Pr", "PG": "Pr", "PC": "Pr"}
_LONG_TITLES = {"DR": "Docteur", "PR": "Professeur", "PG": "Professeur", "PC": "Professeur"}
_GREETINGS = {"M": "Monsieur", "MME": "Madame"}
_CIVILITIES = {"M": "M.", "MME": "Mme"}
_CHANNELS = {
    "portail": "déposée sur la fiche",
    "mssante": "reçue par messagerie sécurisée",
    "fhir": "reçue du logiciel métier",
}
_QUORUM = {"atteint": "ORG-126", "non-atteint": "ORG-133", "inconnu": "GEN-010"}
_CASE = {"enregistre": "ORG-128", "discute": "ORG-134"}
_WHO = (
    "capable d’une activité identique à celle précédant la maladie, sans restriction",
    "activité physique diminuée, mais ambulatoire et capable de mener un travail",
    "ambulatoire et capable de prendre soin de soi, incapable de travailler",
    "capable de soins personnels limités, alité ou au fauteuil plus de la moitié du temps",
    "incapable de prendre soin de soi, alité ou au fauteuil en permanence",
)
_STATUS = {"en-cours": "en cours", "approuve": "approuvée"}


class Row(Struct, frozen=True):
    """One line: a label, a text, and the anchor to which coded entries point.

    Parameters
    ----------
    known
        False when nobody said it: the text is then « Non renseigné ».
    detail
        True when another row says it already, for people: kept because a coded entry points at it.
    """

    anchor: str
    label: str
    text: str
    known: bool = True
    detail: bool = False


class Part(Struct, frozen=True):
    """A titled group of rows; ``key`` names the section of the national document that holds it."""

    key: str
    title: str
    rows: tuple[Row, ...] = ()

    @property
    def read(self) -> tuple[Row, ...]:
        """The rows that a person reads: filled in, and not said by another."""
        return tuple(row for row in self.rows if row.known and not row.detail)

    def anchor(self, name: str) -> str | None:
        """Anchor of the row of that name, or ``None`` when there is no such row."""
        return next((row.anchor for row in self.rows if row.anchor == name), None)


def clean(text: str) -> str:
    """Keep what both forms can carry: NFC, line feeds only, no control or invisible direction characters.

    XML 1.0 has no control characters, and direction overrides could make a sentence read as another.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n")
    kept = (c for c in unicodedata.normalize("NFC", lines) if c == "\n" or unicodedata.category(c) not in _UNPRINTED)
    return "".join(" " if c == "\t" else c for c in kept).strip()


_UNPRINTED = {"Cc", "Cf", "Cs", "Co", "Cn"}


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


def partial_words(value: PartialDate) -> str:
    """« 29/01/2019 », « 01/2019 » or « 2019 »."""
    return french.partial_date(value)


def person_words(person: Person) -> str:
    """« Dr Paul DURANT »: title or civility, given name, family name in capitals."""
    title = _TITLES.get(person.title or "") or _CIVILITIES.get(person.civility or "")
    return f"{title} {_name(person)}" if title else _name(person)


def civil_words(person: Person) -> tuple[str, str]:
    """« Docteur », « DURANT »: how a letter greets; « Madame, Monsieur » when neither title nor civility is known."""
    title = _LONG_TITLES.get(person.title or "") or _GREETINGS.get(person.civility or "", "Madame, Monsieur")
    return title, clean(person.family.upper())


def _name(person: Person) -> str:
    return " ".join(clean(p) for p in (person.given, person.family.upper()) if p)


def speciality_words(person: Person) -> str | None:
    """Say the speciality: the words frozen, else the label of the code without its profession and category."""
    if person.speciality:
        return clean(person.speciality)
    if person.profession is None:
        return None
    return person.profession.label.removeprefix("Médecin - ").removesuffix(" (SM)") or None


def contribution_heading(contribution: Contribution, content: ReportContent) -> str:
    """Who wrote, in which speciality, when in the zone of the RCP, and by which way."""
    author = contribution.author
    who = _with(f"{_LONG_TITLES.get(author.title or '', '')} {_name(author)}".strip(), speciality_words(author))
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
        Part("decouverte", "Mode de découverte", (_yes_no("depistage", "Issu du dépistage", content.screening),)),
        Part("tumeur", "Tumeur", _tumours(content.tumours)),
        Part("antecedents", "Antécédents", _texts(("antecedents", "Antécédents", content.medical_history))),
        Part("comorbidites", "Comorbidités", _texts(("comorbidites", "Comorbidités", content.comorbidities))),
        Part("etat", "État général", _who(content)),
        Part("examens", "Résultats d’examens", _texts(("examens", "Éléments paracliniques", content.examinations))),
        Part("phase", "Phase de la maladie", _phase(content)),
        Part("histoire", "Synthèse du cas et question posée", _history(content)),
        Part("dossier", "Dossier et quorum", _file(content)),
        Part("proposition", "Proposition de la RCP", _plan(content)),
        Part("cadre", "Cadre de la proposition", _frame(content)),
        Part("remarque", "Remarques sur le patient", _texts(("remarque", "Remarque", content.patient_remark))),
        Part("statut", "Statut du document", _document(content)),
    )
    return {part.key: part for part in parts}


def _row(anchor: str, label: str, text: str | None) -> Row:
    said = clean(text) if text else ""
    return Row(anchor, label, said or UNKNOWN, bool(said))


def _coded(anchor: str, label: str, value: CodedValue | None) -> Row:
    return _row(anchor, label, _label(value))


def _label(value: CodedValue | None) -> str | None:
    return value.label if value else None


def _yes_no(anchor: str, label: str, value: bool | None, *, detail: bool = False) -> Row:  # noqa: FBT001 - the answer to a question is a value
    row = _row(anchor, label, None if value is None else ("Oui" if value else "Non"))
    return replace(row, detail=detail)


def _texts(*rows: tuple[str, str, str | None]) -> tuple[Row, ...]:
    """Rows of sections that exist only when they say something."""
    return tuple(_row(anchor, label, text) for anchor, label, text in rows if text and clean(text))


def _reason(content: ReportContent) -> tuple[Row, ...]:
    motives = content.motives
    return (
        _coded("nature", "Nature de la discussion", content.board_kind),
        *_subject(content),
        _yes_no("rcp-recours", "RCP de recours", content.recourse_board, detail=not content.recourse_board),
        _yes_no("rcp-pediatrique", "RCP pédiatrique", content.paediatric_board, detail=not content.paediatric_board),
        _row("motif", "Motif de la RCP", _motives(content)),
        _yes_no("motif-avis", "Avis diagnostique", motives.diagnostic_opinion, detail=True),
        _yes_no("motif-traitement", "Proposition de traitement", motives.treatment_proposal, detail=True),
        _yes_no("motif-recours", "Recours", motives.recourse, detail=True),
        _yes_no("motif-pediatrie", "Pédiatrie", motives.paediatrics, detail=True),
        _row(
            "statut-cas",
            "Statut du cas présenté",
            code_list("FRCP-StatutCasPresente").label(_CASE[content.case_status]),
        ),
        *_texts(("motif-commentaire", "Commentaire", motives.comment)),
    )


def _subject(content: ReportContent) -> tuple[Row, ...]:
    kind = content.board_kind.code if content.board_kind else None
    if kind == "ORG-117":
        organs = [_coded(f"organe-{i}", "Organe", organ) for i, organ in enumerate(content.organs, 1)]
        return (
            _coded("appareil", "Appareil", content.system),
            *(organs or [_row("organe-1", "Organe", content.subject)]),
        )
    if kind == "ORG-132":
        return (_row("soins", "Traitement ou soins", _label(content.care) or content.subject),)
    return _texts(("objet", "Objet", content.subject))


def _motives(content: ReportContent) -> str | None:
    said = (
        ("avis diagnostique", content.motives.diagnostic_opinion),
        ("proposition de traitement", content.motives.treatment_proposal),
        ("recours", content.motives.recourse),
        ("pédiatrie", content.motives.paediatrics),
    )
    found = ", ".join(words for words, asked in said if asked)
    return found[:1].upper() + found[1:] or None


def _tumours(tumours: tuple[TumourContent, ...]) -> tuple[Row, ...]:
    if not tumours:
        return (_row("tumeur-1", "Tumeur", None), _row("tnm-1", "TNM clinique", None))
    rows: list[Row] = []
    for i, tumour in enumerate(tumours, 1):
        number = f" {i}" if len(tumours) > 1 else ""
        rows += [
            _row(f"tumeur-{i}", f"Tumeur{number}", tumour.label or _label(tumour.topography)),
            _row(f"diagnostic-{i}", "Date du diagnostic", tumour.diagnosed_on and partial_words(tumour.diagnosed_on)),
            _row(f"topographie-{i}", "Topographie (CIM-10)", _code_words(tumour.topography)),
            _row(f"morphologie-{i}", "Morphologie (CIM-O-3)", _code_words(tumour.morphology)),
            *((_coded(f"lateralite-{i}", "Latéralité", tumour.laterality),) if tumour.laterality else ()),
            _row(f"tnm-{i}", "TNM clinique", tnm_words(tumour.tnm)),
            *_texts(
                (f"stade-{i}", "Autre stade", tumour.other_stage),
                (f"tumeur-commentaire-{i}", "Commentaire", tumour.comment),
            ),
        ]
    return tuple(rows)


def _code_words(value: CodedValue | None) -> str | None:
    return f"{value.code} – {value.label}" if value else None


def tnm_words(tnm: Tnm | None) -> str | None:
    """« T2 N1 M0, stade IIB (TNM, 8e édition) »; a letter that was not pronounced is left out."""
    if tnm is None:
        return None
    letters = " ".join(v for v in (tnm.t, tnm.n, tnm.m) if v)
    said = ", ".join(p for p in (letters, f"stade {tnm.stage}" if tnm.stage else "") if p)
    return f"{said} (TNM, {tnm.edition}e édition)" if said and tnm.edition else said or None


def _who(content: ReportContent) -> tuple[Row, ...]:
    if content.who_status is None:
        return ()
    on = f" ({partial_words(content.who_status_on)})" if content.who_status_on else ""
    return (_row("oms", "Indice OMS", f"{content.who_status}{on}\u00a0: {_WHO[content.who_status]}"),)


def _phase(content: ReportContent) -> tuple[Row, ...]:
    phase = _label(content.phase)
    if phase and content.phase_on:
        phase = f"{phase} ({partial_words(content.phase_on)})"
    return (_row("phase", "Phase", phase), _yes_no("progression", "Progression", content.progression))


def _history(content: ReportContent) -> tuple[Row, ...]:
    rows = [
        *_texts(("synthese", "Synthèse du cas", content.summary)),
        _row("question", "Question posée", content.question),
    ]
    for i, contribution in enumerate(content.contributions, 1):
        rows.append(_row(f"contribution-{i}", contribution_heading(contribution, content), contribution.text))
    return tuple(rows)


def _file(content: ReportContent) -> tuple[Row, ...]:
    quorum = code_list("FRCP-StatutQuorum").label(_QUORUM[content.quorum])
    return (
        _yes_no("dossier-complet", "Dossier complet", content.complete),
        _row("quorum", "Quorum", quorum),
        *_texts(
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
            said.append(_with(person_words(attendance.person), aside))
    return "\u202f; ".join(said)


def _plan(content: ReportContent) -> tuple[Row, ...]:
    rows: list[Row] = []
    for proposal in sorted(content.proposals, key=lambda p: p.rank):
        name = "1re intention" if proposal.rank == 1 else f"Alternative (intention {proposal.rank})"
        rows += _texts((f"proposition-{proposal.rank}", name, proposal.text))
        for i, treatment in enumerate(proposal.treatments, 1):
            label = f"{name}, traitement {i}" if len(proposal.treatments) > 1 else f"{name}, traitement"
            rows.append(_row(f"traitement-{proposal.rank}-{i}", label, _treatment_words(treatment)))
    rows += _texts(("recours", "Passage en RCP de recours", content.recourse_asked))
    for i, asked in enumerate(content.examinations_asked, 1):
        limits = _period_words(asked.earliest, asked.latest)
        rows.append(_row(f"examen-{i}", "Examen ou expertise complémentaire", _with(asked.text, limits)))
    rows += _texts(
        ("surveillance", "Surveillance", content.surveillance),
        ("proposition-commentaire", "Commentaire", content.proposal_comment),
    )
    return tuple(rows) or (_row("proposition", "Proposition", None),)


def _treatment_words(treatment: Treatment) -> str:
    kind = treatment.kind.label[:1].upper() + treatment.kind.label[1:]
    said = f"{kind} – {clean(treatment.text)}" if treatment.text else kind
    return _with(said, _period_words(treatment.start, treatment.end))


def _period_words(start: PartialDate | None, end: PartialDate | None) -> str | None:
    if start and end:
        return f"du {partial_words(start)} au {partial_words(end)}"
    if start:
        return f"à partir du {partial_words(start)}"
    return f"avant le {partial_words(end)}" if end else None


def _with(text: str, aside: str | None) -> str:
    return f"{text} ({aside})" if aside else text


def _frame(content: ReportContent) -> tuple[Row, ...]:
    guideline = content.guideline
    name = _with(guideline.name, guideline.dated and partial_words(guideline.dated)) if guideline else None
    return (
        _row("referentiel", "Référentiel suivi", name),
        _yes_no("essai", "Inclusion dans un essai clinique proposée", content.trial),
        *_texts(("cadre-commentaire", "Commentaire", content.frame_comment)),
    )


def status_words(content: ReportContent) -> str:
    """« Version 1, approuvée le 26/11/2026 à 18:15 (heure de Paris) par Dr Claire MERCIER »."""
    when = instant_words(content.written_at, content.tzinfo())
    return f"Version {content.version}, {_STATUS[content.status]} {when} par {person_words(content.validator)}"


def _document(content: ReportContent) -> tuple[Row, ...]:
    return (
        _row("statut-document", "Statut du document", status_words(content)),
        *_texts(
            ("avertissement", "À savoir", banner(content)),
            ("document-commentaire", "Commentaire", content.document_comment),
        ),
    )
