"""An object without pixels → what a person reads: a structured report as a page, an encapsulated document as itself.

Promises: a page of its own that runs nothing, fetches nothing and escapes whatever the object says; a PDF's or a CDA's
own bytes, without the padding; a bound on what is shown, said where it cuts. Shows the report's content, not a summary.

Sources: `[PS3.3 C.17.3]` content items, `[PS3.3 C.24]` encapsulated documents, `[PS3.18 8.7.4]` rendered media types.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any, Final

import pydicom
from pydicom.dataset import Dataset

from gateway.dicom.cda_page import body
from gateway.dicom.command import is_uid
from gateway.dicom.frames import said
from gateway.documents import safe_xml
from gateway.errors import InvalidContent, Unsupported

__all__ = ["DOCUMENT_TYPES", "POLICY", "document"]

_HTML, _PDF, _XML = "text/html", "application/pdf", "text/xml"
#: What a document may be asked as, beside pictures.
DOCUMENT_TYPES: Final = (_HTML, _PDF, _XML)

_MAX_DOCUMENT_BYTES: Final = 256 << 20
_MAX_ITEMS: Final = 20_000
_MAX_DEPTH: Final = 60

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:1.5rem auto;max-width:60rem;padding:0 1rem;color:#1e1e1e}"
    "h1{font-size:1.4rem}h2{font-size:1.2rem}h3,h4,h5,h6{font-size:1.05rem}"
    "dl.tete{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem;border-bottom:1px solid #767676;"
    "padding-bottom:1rem}dl.tete dt{font-weight:600}dl.tete dd{margin:0}"
    "p{margin:.3rem 0;white-space:pre-wrap}.lien{color:#595959}ul{margin:.2rem 0}"
    "table{border-collapse:collapse}td,th{border:1px solid #767676;padding:.2rem .5rem;text-align:left}"
)
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
#: Content-Security-Policy of a page made here.
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)


def document(path: Path, offered: tuple[str, ...]) -> tuple[str, bytes]:
    """Give an object as a person reads it: its media type, and the bytes.

    Parameters
    ----------
    offered
        Media types that the caller takes, the preferred first.

    Raises
    ------
    Unsupported
        ``dicom-no-pixels`` when it is nothing to read, ``not-acceptable`` when it is nothing of what is asked for.
    InvalidContent
        ``dicom-document``: an encapsulated document that is not what it says.
    """
    ds = pydicom.dcmread(path, stop_before_pixels=True, defer_size=1 << 20)
    if "EncapsulatedDocument" in ds:
        made = _encapsulated(ds)
    elif "ContentSequence" in ds or said(ds, "ValueType") == "CONTAINER":
        made = {_HTML: lambda: _page(_title(ds), *_report(ds))}
    else:
        raise Unsupported("dicom-no-pixels", "Cet objet ne contient ni image ni document lisible.")
    chosen = next((kind for kind in offered if kind in made), None)
    if chosen is None:
        raise Unsupported("not-acceptable", "Aucun des formats demandés n’est proposé.", expression="Accept")
    return chosen, made[chosen]()


def _encapsulated(ds: Dataset) -> dict[str, Callable[[], bytes]]:
    content = bytes(said(ds, "EncapsulatedDocument") or b"")
    length = said(ds, "EncapsulatedDocumentLength")
    if isinstance(length, int) and 0 < length <= len(content):
        content = content[:length]
    if len(content) > _MAX_DOCUMENT_BYTES:
        raise InvalidContent("dicom-too-large", f"Document de plus de {_MAX_DOCUMENT_BYTES} octets.", rule=True)
    kind = str(said(ds, "MIMETypeOfEncapsulatedDocument") or "").lower()
    if b"%PDF-" in content[:1024]:
        return {_PDF: lambda: content}
    if "xml" in kind or content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        content = content.rstrip(b"\0 ") if isinstance(length, int) else content.rstrip(b"\0")
        return _clinical(ds, content)
    raise InvalidContent("dicom-document", "Ce document encapsulé n’est ni un PDF ni un CDA.", rule=True)


def _clinical(ds: Dataset, content: bytes) -> dict[str, Callable[[], bytes]]:
    try:
        root = safe_xml.parse(content)
    except InvalidContent as error:
        raise InvalidContent("dicom-document", "Ce document encapsulé n’est pas un CDA lisible.", rule=True) from error
    title, parts, pdf = body(root)
    made: dict[str, Callable[[], bytes]] = {
        _HTML: lambda: _page(title or _title(ds), *_head(ds), *parts),
        _XML: lambda: content,
    }
    # A document without text of its own is the PDF that it carries.
    return {_PDF: lambda: pdf} | made if pdf is not None else made


def _page(title: str, *parts: str) -> bytes:
    return (
        '<!doctype html><html lang="fr"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main><h1>{escape(title)}</h1>{''.join(parts)}</main></body></html>"
    ).encode("utf-8", "replace")


def _title(ds: Dataset) -> str:
    candidates = (_code(ds, "ConceptNameCodeSequence"), *(said(ds, k) for k in ("DocumentTitle", "SeriesDescription")))
    return next((str(one) for one in candidates if one), "Compte rendu")


#: Row of the head → how it is read.
_COMPLETION: Final = {"COMPLETE": "complet", "PARTIAL": "partiel"}
_VERIFICATION: Final = {"VERIFIED": "vérifié", "UNVERIFIED": "non vérifié"}
_SEXES: Final = {"F": "féminin", "M": "masculin", "O": "autre"}


def _head(ds: Dataset) -> Iterator[str]:
    state = [_COMPLETION.get(str(said(ds, "CompletionFlag"))), _VERIFICATION.get(str(said(ds, "VerificationFlag")))]
    observers = [
        " – ".join(
            part
            for part in (
                _name(said(one, "VerifyingObserverName")),
                str(said(one, "VerifyingOrganization") or ""),
                _instant(said(one, "VerificationDateTime")),
            )
            if part
        )
        for one in said(ds, "VerifyingObserverSequence") or ()
    ]
    earlier = len(said(ds, "PredecessorDocumentsSequence") or ())
    rows = (
        ("Patient", _name(said(ds, "PatientName"))),
        ("Né(e) le", _instant(said(ds, "PatientBirthDate"))),
        ("Sexe", _SEXES.get(str(said(ds, "PatientSex")), "")),
        ("Identifiant", str(said(ds, "PatientID") or "")),
        ("Examen", str(said(ds, "StudyDescription") or "")),
        ("Établissement", str(said(ds, "InstitutionName") or "")),
        ("Date", _instant(f"{said(ds, 'ContentDate') or ''}{said(ds, 'ContentTime') or ''}")),
        ("État", ", ".join(one for one in state if one)),
        ("Précision", str(said(ds, "CompletionFlagDescription") or "")),
        ("Fait suite à", f"{earlier} compte(s) rendu(s) antérieur(s)" if earlier else ""),
        *(("Vérifié par", one) for one in observers),
    )
    yield '<dl class="tete">'
    yield from (f"<dt>{escape(label)}</dt><dd>{escape(value)}</dd>" for label, value in rows if value)
    yield "</dl>"


def _report(ds: Dataset) -> Iterator[str]:
    yield from _head(ds)
    left = [_MAX_ITEMS]
    yield from _children(ds, _places(ds), 2, left)
    if left[0] <= 0:
        yield f"<p><strong>La suite n’est pas montrée : plus de {_MAX_ITEMS} éléments.</strong></p>"


def _children(item: Dataset, places: dict[str, str], depth: int, left: list[int]) -> Iterator[str]:
    for child in said(item, "ContentSequence") or ():
        left[0] -= 1
        if left[0] <= 0:
            return
        if depth > _MAX_DEPTH:
            yield "<p><strong>La suite n’est pas montrée : trop de niveaux.</strong></p>"
            return
        try:
            yield from _item(child, places, depth, left)
        except (RecursionError, MemoryError):
            raise
        except Exception:  # noqa: BLE001 - one item against its type does not hide the others
            yield "<p><em>Élément illisible.</em></p>"


_RELATIONS: Final = {
    "HAS CONCEPT MOD": "précision",
    "HAS PROPERTIES": "propriété",
    "INFERRED FROM": "déduit de",
    "SELECTED FROM": "choisi dans",
    "HAS OBS CONTEXT": "contexte",
    "HAS ACQ CONTEXT": "acquisition",
}


def _item(item: Dataset, places: dict[str, str], depth: int, left: list[int]) -> Iterator[str]:
    name, kind = _code(item, "ConceptNameCodeSequence"), str(said(item, "ValueType") or "").upper()
    if kind == "CONTAINER":
        level = min(depth, 6)
        yield "<section>"
        yield f"<h{level}>{escape(name)}</h{level}>" if name else ""
        yield from _children(item, places, depth + 1, left)
        yield "</section>"
        return
    relation = _RELATIONS.get(str(said(item, "RelationshipType")), "")
    value = _VALUES.get(kind, _unknown)(item, places)
    yield "<p>"
    yield f'<span class="lien">{relation} : </span>' if relation else ""
    yield f"<strong>{escape(name)} :</strong> " if name else ""
    yield f"{value}</p>"
    if said(item, "ContentSequence"):
        yield "<ul><li>"
        yield from _children(item, places, depth + 1, left)
        yield "</li></ul>"


def _places(ds: Dataset) -> dict[str, str]:
    """Where the objects that the report names are shown, from its own address."""
    found: dict[str, str] = {}
    for sequence in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in said(ds, sequence) or ():
            for series in said(study, "ReferencedSeriesSequence") or ():
                for one in said(series, "ReferencedSOPSequence") or ():
                    uids = (
                        said(study, "StudyInstanceUID"),
                        said(series, "SeriesInstanceUID"),
                        said(one, "ReferencedSOPInstanceUID"),
                    )
                    if all(isinstance(uid, str) and is_uid(uid) for uid in uids) and len(found) < _MAX_ITEMS:
                        found[str(uids[2])] = "../../../../../{}/series/{}/instances/{}/rendered".format(*uids)
    return found


def _code(item: Dataset, sequence: str) -> str:
    for code in said(item, sequence) or ():
        for keyword in ("CodeMeaning", "CodeValue", "LongCodeValue", "URNCodeValue"):
            if said(code, keyword):
                return str(said(code, keyword))
    return ""


def _name(value: Any) -> str:
    """Give a person's name as it is read: of its alphabetic group, else of the first that is not empty."""
    groups = [group for group in str(value or "").split("=") if group.strip("^ ")]
    parts = groups[0].split("^") if groups else []
    family, given, middle, prefix, suffix = (*parts, *[""] * 5)[:5]
    return " ".join(part.strip() for part in (prefix, given, middle, family.upper(), suffix) if part.strip())


_INSTANT: Final = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})(?:(\d{2}):?(\d{2}))?")


def _instant(value: Any) -> str:
    text = str(value or "").strip()
    found = _INSTANT.match(text)
    if not found:
        return text
    day = f"{found[3]}/{found[2]}/{found[1]}"
    return f"{day} à {found[4]}:{found[5]}" if found[4] else day


def _clock(value: Any) -> str:
    found = re.match(r"(\d{2}):?(\d{2})(?::?(\d{2}))?", str(value or ""))
    return ":".join(part for part in found.groups() if part) if found else str(value or "")


def _number(item: Dataset, _: dict[str, str]) -> str:
    values = []
    for one in said(item, "MeasuredValueSequence") or ():
        unit = next(iter(said(one, "MeasurementUnitsCodeSequence") or ()), None)
        code = "" if unit is None else str(said(unit, "CodeValue") or _code(one, "MeasurementUnitsCodeSequence"))
        values.append(f"{said(one, 'NumericValue')} {'' if code == '1' else code}".strip())
    qualifier = _code(item, "NumericValueQualifierCodeSequence")
    return escape(", ".join(values) or qualifier or "sans valeur")


def _reference(item: Dataset, places: dict[str, str]) -> str:
    shown = []
    for one in said(item, "ReferencedSOPSequence") or ():
        uid = str(said(one, "ReferencedSOPInstanceUID") or "")
        frames = said(one, "ReferencedFrameNumber")
        text = "Objet référencé" + (f", image {frames}" if frames else "")
        if uid in places:
            shown.append(f'<a href="{escape(places[uid])}">{escape(text)}</a> <span class="lien">{escape(uid)}</span>')
        else:
            shown.append(f'{escape(text)} <span class="lien">{escape(uid)}</span>')
    return ", ".join(shown)


def _points(item: Dataset, _: dict[str, str]) -> str:
    data = said(item, "GraphicData")
    count = len(data) if data is not None and hasattr(data, "__len__") else 0
    return escape(f"{said(item, 'GraphicType') or 'forme'} ({count} coordonnées)")


def _range(item: Dataset, _: dict[str, str]) -> str:
    return escape(str(said(item, "TemporalRangeType") or "intervalle"))


def _unknown(item: Dataset, _: dict[str, str]) -> str:
    place = said(item, "ReferencedContentItemIdentifier")
    if place is None:
        return "<em>valeur non montrée</em>"
    parts = place if isinstance(place, (list, pydicom.multival.MultiValue)) else [place]
    return escape("voir l’élément " + ".".join(str(part) for part in parts))


def _text(keyword: str, read: Callable[[Any], str] = str) -> Callable[[Dataset, dict[str, str]], str]:
    return lambda item, _: escape(read(said(item, keyword) or ""))


#: Value type → how it is shown `[PS3.3 table C.17.3-7]`.
_VALUES: Final[dict[str, Callable[[Dataset, dict[str, str]], str]]] = {
    "TEXT": _text("TextValue"),
    "CODE": lambda item, _: escape(_code(item, "ConceptCodeSequence")),
    "NUM": _number,
    "PNAME": _text("PersonName", _name),
    "DATE": _text("Date", _instant),
    "TIME": _text("Time", _clock),
    "DATETIME": _text("DateTime", _instant),
    "UIDREF": _text("UID"),
    "IMAGE": _reference,
    "COMPOSITE": _reference,
    "WAVEFORM": _reference,
    "SCOORD": _points,
    "SCOORD3D": _points,
    "TCOORD": _range,
}
