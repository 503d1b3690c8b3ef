"""The report as a page: PDF/A, typeset by typst from the same words as the CDA.

Promises: PDF/A-1 as MSSanté asks, or A-2 or A-3 where an operator wants them, at its accessible level (tagged); typst
refuses to write a file that breaks it; fonts are those that typst carries, embedded, whatever the machine has; text of
users is data, never markup; the same facts give the same bytes (for one version of typst). A character that no such
font has is shown as U+FFFD rather than refusing a report. Not promised: the judgement of veraPDF, which runs elsewhere,
nor PDF/UA-1, which cannot have a footer in the PDF 1.4 that PDF/A-1 is.
[MSSanté ECO.2.1.5; DECISIONS 15]
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

import msgspec
import typst

from gateway.documents import wording
from gateway.documents.frcp_header import CODE, patient_ids, title
from gateway.documents.wording import Part, Row, clean
from gateway.errors import Fault
from gateway.rcp import french
from gateway.rcp.report_content import PatientContent, Person, ReportContent
from gateway.terminology import code_list

__all__ = ["MIME_TYPE", "STANDARDS", "Standard", "render"]

MIME_TYPE = "application/pdf"
Standard = Literal["a-1a", "a-2a", "a-3a"]
#: Accessible levels of the standard; the first is what MSSanté asks for [ECO.2.1.5].
STANDARDS: Final[tuple[Standard, ...]] = ("a-1a", "a-2a", "a-3a")
_TEMPLATE = Path(__file__).with_name("report.typ")
_LOCK = threading.Lock()
_FIRST_COMPLEX = 0x0300  # below: Latin; the first combining mark stands there
_PUNCTUATION = frozenset("\u2009\u200a\u202f\u2010\u2011\u2012–—‘’“”†•…‰‹›€№™←→≈≠≤≥")
_GENDERS = {"F": "female", "M": "male"}
_SEXES = {"F": "sexe féminin", "M": "sexe masculin", "UN": "sexe non précisé"}


def render(content: ReportContent, *, standard: Standard = STANDARDS[0]) -> bytes:
    """Typeset the report.

    Raises
    ------
    Fault
        ``report-pdf`` if typst refuses: a defect of ours, the facts were checked before.
    """
    data = msgspec.json.encode(_page(content)).decode()
    try:
        made = _compile(_printable(data), content, standard)
    except typst.TypstError:
        try:
            made = _compile(_plain(data), content, standard)
        except typst.TypstError as error:
            raise Fault("report-pdf", "La mise en page du compte rendu a échoué.") from error
    if not isinstance(made, bytes):
        raise Fault("report-pdf", "La mise en page du compte rendu n’a rien produit.")
    return made


def _compile(data: str, content: ReportContent, standard: Standard) -> object:
    moment = int(content.written_at.timestamp())
    with _LOCK:
        return _compiler().compile(format="pdf", pdf_standards=standard, sys_inputs={"data": data}, timestamp=moment)


@lru_cache(maxsize=1)
def _compiler() -> typst.Compiler:
    """Load fonts and template once; a compiler is not shared between threads without the lock."""
    return typst.Compiler(str(_TEMPLATE), root=str(_TEMPLATE.parent), ignore_system_fonts=True)


def _page(content: ReportContent) -> dict[str, object]:
    """Give the template its data: strings, lists and flags, nothing to compute there."""
    zone, meeting = content.tzinfo(), content.meeting
    local = content.written_at.astimezone(zone)
    hours = wording.hour(meeting.start, zone)
    if meeting.end is not None:
        hours = f"{hours} – {wording.hour(meeting.end, zone)}"
    return {
        "title": title(content),
        "author": wording.person_words(content.validator),
        "description": f"{CODE.label}, {wording.short_date(meeting.start, zone)}, {clean(content.custodian.name)}",
        "keywords": ["RCP", "CANCER-FRCP", content.document_id.root],
        "date": {
            "year": local.year, "month": local.month, "day": local.day,
            "hour": local.hour, "minute": local.minute, "second": local.second,
        },
        "kind": "Compte rendu de réunion de concertation pluridisciplinaire",
        "board": clean(meeting.rcp),
        "owner": f"{clean(meeting.manager)} – {clean(meeting.network)}",
        "meeting": [
            wording.long_date(meeting.start, zone),
            f"{hours} ({french.zone_label(zone.key)})",
            clean(meeting.place.name),
        ],
        "banner": wording.banner(content),
        "patient": _patient(content.patient),
        "people": _people(content),
        "parts": _parts(wording.report_parts(content)),
        "footer": wording.status_words(content),
        "page": "Page",
        "number": f"Document {content.document_id.root}"
        + (f" – {clean(meeting.contact)}" if meeting.contact else ""),
    }  # fmt: skip


def _patient(patient: PatientContent) -> dict[str, object]:
    gender = _GENDERS.get(patient.sex)
    surname = french.patient_surname(clean(patient.birth_family), clean(patient.used_family or ""), gender)
    given = clean(patient.used_given or patient.birth_given)
    place = f" à {clean(patient.birth_place)}" if patient.birth_place else ""
    lines = [
        f"{french.born(gender)} le {wording.partial_words(patient.birth_date)}{place}, {_SEXES[patient.sex]}",
    ]
    if patient.birth_given_names:
        lines.append(f"Prénoms de naissance\u00a0: {clean(patient.birth_given_names)}")
    authorities = code_list("INS-autorites")
    for number in patient_ids(patient):
        authority = authorities.get(number.root)
        if authority is None:
            lines.append(f"IPP\u00a0: {number.extension}")
        else:
            lines.append(f"Matricule INS\u00a0: {number.extension} ({authority.properties['identifier_type']})")
    return {"name": f"{surname} {given}", "lines": lines}


def _people(content: ReportContent) -> list[dict[str, str]]:
    roles = (
        ("Coordonnateur", content.coordinator),
        ("Demandeur", content.requester),
        ("Présentateur", content.presenter if content.presenter != content.requester else None),
        ("Médecin traitant", content.treating_physician),
        *(("Correspondant", person) for person in content.correspondents),
    )
    return [{"role": role, "name": _named(person)} for role, person in roles if person is not None]


def _named(person: Person) -> str:
    speciality = wording.speciality_words(person)
    return f"{wording.person_words(person)}, {speciality}" if speciality else wording.person_words(person)


_GROUPS = (
    # What a page says together, in the order of the discussion; the CDA keeps the finer sections of its model.
    ("Dossier présenté", ("raison", "decouverte")),
    ("Tumeur", ("tumeur",)),
    ("Situation clinique", ("antecedents", "comorbidites", "etat", "examens", "phase")),
    ("Traitements et comptes rendus antérieurs", ("traitements", "cro", "acp", "gm")),
    ("Synthèse du cas et question posée", ("histoire",)),
    ("Proposition de la RCP", ("proposition",)),
    ("Cadre, quorum et présents", ("cadre", "dossier", "remarque", "statut")),
)


def _parts(parts: Mapping[str, Part]) -> list[dict[str, object]]:
    made: list[dict[str, object]] = []
    for group, keys in _GROUPS:
        rows = [_line(row) for key in keys for row in parts[key].read]
        if rows:
            made.append({"title": group, "shape": "proposal" if "proposition" in keys else "rows", "rows": rows})
    return made


def _line(row: Row) -> dict[str, object]:
    return {
        "label": row.label,
        "text": row.text,
        "quoted": row.anchor.startswith("contribution-"),
        "strong": row.anchor.startswith("proposition-1"),
    }


def _printable(data: str) -> str:
    """Replace the characters that no font of typst's can show: PDF/A refuses a glyph that is not there."""
    return "".join(c if c.isascii() or _has_glyph(c) else "\ufffd" for c in data)


def _plain(data: str) -> str:
    """Keep only scripts whose characters never need their neighbours; for the rare cluster that no font can set."""
    return "".join(c if ord(c) < _FIRST_COMPLEX or c in _PUNCTUATION else "\ufffd" for c in _printable(data))


@lru_cache(maxsize=4096)
def _has_glyph(character: str) -> bool:
    """Ask typst itself: a page of that character alone either passes PDF/A or does not."""
    source = (
        '#set document(title: "x")\n'
        '#set text(font: ("Libertinus Serif", "New Computer Modern", "DejaVu Sans Mono"))\n'
        "#sys.inputs.c"
    )
    try:
        typst.compile(
            source.encode(),
            format="pdf",
            ignore_system_fonts=True,
            pdf_standards=STANDARDS[0],
            sys_inputs={"c": f"a{character}b"},
        )
    except typst.TypstError:
        return False
    return True
