"""The header of a CDA that somebody else wrote: which document it is, of whom, by whom.

Promises: whatever the body holds, the header is read alike (a structured document, or a PDF in a CDA envelope); a
header that says one thing twice and differently is refused, not guessed; nothing is fetched. Not promised: conformity
of the document, and that a source said the truth: `gateway.rcp.received` compares it with what is known.

Sources: [CI-SIS volet structuration minimale], spec cda-frcp 6.
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import cast

from gateway.documents.safe_xml import Element, parse
from gateway.errors import InvalidContent
from gateway.rcp.received import DocumentHeader
from gateway.rcp.report_content import Identifier

__all__ = ["ROOT", "read"]

_NS = {"c": "urn:hl7-org:v3"}
#: What a CDA is, as its first element says.
ROOT = "{urn:hl7-org:v3}ClinicalDocument"
_IDNPS_ROOT = "1.2.250.1.71.4.2.1"
_PATIENT = "c:recordTarget/c:patientRole"
_NAME = f"{_PATIENT}/c:patient/c:name"
_OID = re.compile(r"[0-2](?:\.(?:0|[1-9][0-9]*))+|[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_TIME = re.compile(r"(\d{4})(\d{2})?(\d{2})?(?:(\d{2})(\d{2})?(\d{2})?(?:\.\d+)?([+-]\d{4})?)?")
_TEXT_LIMIT = 1000
_IDS_LIMIT = 20
#: Longer ones are nobody's [IHE ITI TF-3 4.2.3.1.7], and no index of the database holds them.
_OID_LIMIT, _EXTENSION_BYTES = 64, 255


def read(content: bytes) -> DocumentHeader:
    """Read the header of a document.

    Raises
    ------
    InvalidContent
        ``xml-entites``, ``xml-malforme``; ``cda-entete``: no CDA, or no single document, patient or identifier.
    """
    root = parse(content)
    if root.tag != ROOT or len(_all(root, _PATIENT)) != 1:
        raise _unusable()
    ids = _all(root, "c:id")
    if len(ids) != 1 or len(_all(root, "c:setId")) > 1 or len(_all(root, "c:versionNumber")) > 1:
        raise _unusable()
    replaced = _all(root, "c:relatedDocument[@typeCode='RPLC']/c:parentDocument/c:id")
    birth = _birth_date(_value(root, f"{_PATIENT}/c:patient/c:birthTime/@value"))
    author, idnps = _author(root)
    enveloped = bool(_all(root, "c:component/c:nonXMLBody"))
    version = _value(root, "c:versionNumber/@value")
    return DocumentHeader(
        unique_id=_required(ids[0]),
        set_id=next((_identifier(one) for one in _all(root, "c:setId")), None),
        version=int(version) if version and re.fullmatch(r"[0-9]{1,6}", version) else None,
        replaces=_identifier(replaced[0]) if replaced else None,
        type_code=_value(root, "c:code/@code"),
        type_label=_value(root, "c:code/@displayName"),
        title=_value(root, "c:title/text()"),
        created=_instant(_value(root, "c:effectiveTime/@value")),
        author=author,
        author_idnps=idnps,
        patient_ids=tuple(_patient_ids(root)),
        birth_family=_first(root, f"{_NAME}/c:family[@qualifier='BR']", f"{_NAME}/c:family[not(@qualifier)]"),
        birth_given=_first(root, f"{_NAME}/c:given[@qualifier='BR']", f"{_NAME}/c:given[not(@qualifier)]"),
        birth_date=birth,
        sex=_value(root, f"{_PATIENT}/c:patient/c:administrativeGenderCode/@code"),
        format="n1" if enveloped else "structure",
        pdf=_pdf(root) if enveloped else None,
    )


def _all(root: Element, path: str) -> list[Element]:
    return cast("list[Element]", root.xpath(path, namespaces=_NS))


def _value(root: Element, path: str) -> str | None:
    for found in cast("list[str]", root.xpath(path, namespaces=_NS)):
        text = " ".join(str(found).split())[:_TEXT_LIMIT]
        if text:
            return text
    return None


def _first(root: Element, *paths: str) -> str | None:
    """Return the text of the first element that the first fitting path finds: an unqualified list names several."""
    for path in paths:
        found = _value(root, f"{path}/text()")
        if found is not None:
            return found
    return None


def _identifier(element: Element) -> str | None:
    root, extension = element.get("root"), element.get("extension")
    if not root or len(root) > _OID_LIMIT or not _OID.fullmatch(root):
        return None
    if len((extension or "").encode()) > _EXTENSION_BYTES:
        return None  # cut, it could be another document's
    return f"{root}^{extension}" if extension else root


def _required(element: Element) -> str:
    found = _identifier(element)
    if found is None:
        raise _unusable()
    return found


def _patient_ids(root: Element) -> list[Identifier]:
    found = _all(root, f"{_PATIENT}/c:id[@root and @extension]")
    if len(found) > _IDS_LIMIT:
        raise _unusable()
    said = [(one.get("root", "").strip(), one.get("extension", "").strip()) for one in found]
    return [Identifier(root=where, extension=value[:255]) for where, value in dict.fromkeys(said) if where and value]


def _author(root: Element) -> tuple[str | None, str | None]:
    for one in _all(root, "c:author/c:assignedAuthor"):
        family = _value(one, "c:assignedPerson/c:name/c:family/text()")
        given = _value(one, "c:assignedPerson/c:name/c:given/text()")
        device = _value(one, "c:assignedAuthoringDevice/c:softwareName/text()")
        house = _value(one, "c:representedOrganization/c:name/text()")
        name = " ".join(part for part in (given, family) if part) or device or house
        if name:
            return name, _value(one, f"c:id[@root='{_IDNPS_ROOT}']/@extension")
    return None, None


def _birth_date(text: str | None) -> str | None:
    found = re.fullmatch(r"(\d{4})(\d{2})?(\d{2})?(?:\d{2,6}(?:[+-]\d{4})?)?", text) if text else None
    return "-".join(part for part in found.groups() if part) if found else None


def _instant(text: str | None) -> datetime | None:
    """An instant that says its zone; a day alone is no instant, and is left out."""
    found = _TIME.fullmatch(text) if text else None
    if found is None or found[7] is None:
        return None
    hours, minutes = int(found[7][:3]), int(found[7][0] + found[7][3:])
    try:
        zone = timezone(timedelta(hours=hours, minutes=minutes))
        parts = [
            int(part) if part else least for part, least in zip(found.groups()[:6], (1, 1, 1, 0, 0, 0), strict=True)
        ]
        return datetime(*parts, tzinfo=zone).astimezone(UTC)  # type: ignore[misc,arg-type]  # six numbers
    except (ValueError, OverflowError):
        return None


def _pdf(root: Element) -> bytes | None:
    """Return the PDF of an envelope; what is declared a PDF and is none is refused."""
    path = "c:component/c:nonXMLBody/c:text[@mediaType='application/pdf' and @representation='B64']"
    texts = _all(root, path)
    if not texts:
        return None
    try:
        found = base64.b64decode("".join((texts[0].text or "").split()), validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if not found.startswith(b"%PDF-"):
        raise InvalidContent("cda-pdf", "Le PDF que ce document enveloppe est illisible.")
    return found


def _unusable() -> InvalidContent:
    text = "Ce n’est pas un document CDA dont l’en-tête désigne un seul document et un seul patient."
    return InvalidContent("cda-entete", text)
