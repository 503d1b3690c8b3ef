"""IHE_XDM.zip: documents and their XDS metadata in one attachment, as MSSanté carries them.

Promises: the four entries that receivers look for, at the root, in capitals; hash and size over the very bytes that
stand in the zip; the same submission gives the same bytes (entries stored, timestamps fixed, ids derived from the
submission's own id); components of HL7 v2 types escaped, XML escaped once. Reads no CDA: what the metadata say comes
from the same frozen facts as the document. Not promised: a receiver's EVSClient profile, which could not be consulted.

Sources: spec mssante 2.7 to 2.11, `[IHE ITI XDM]`, `[CI-SIS lien en-tête CDA et métadonnées XDS]` read through it.
"""

from __future__ import annotations

import io
import re
import zipfile
from html import escape

from msgspec import structs

from gateway.documents import n1
from gateway.documents.wording import clean
from gateway.errors import InvalidContent
from gateway.mssante.xdm_metadata import Entry, Sender, Submission, metadata, patient_id
from gateway.rcp.report_content import CodedValue, Organisation, Person, ReportContent
from gateway.terminology import concept

__all__ = [
    "ARCHIVE_NAME",
    "Entry",
    "Sender",
    "Submission",
    "beside",
    "build",
    "documents_in",
    "metadata",
    "report_submission",
]

ARCHIVE_NAME = "IHE_XDM.zip"
"""Name of the attachment, as receivers look for it (any case). [spec mssante 2.5]"""

_FOLDER = "IHE_XDM/SUBSET01"
_OID_MAX = 64
_EPOCH = (1980, 1, 1, 0, 0, 0)
_FILE_NAME = re.compile(r"[A-Z0-9_]{1,8}\.[A-Z0-9_]{1,3}")
#: Format of a CDA around a PDF: the scheme that the national lists give it, not the one of older code. [spec 2.9]
_PAGE_FORMAT, _IHE_FORMATS = "urn:ihe:iti:xds-sd:pdf:2008", "1.3.6.1.4.1.19376.1.2.3"
_HOSPITAL = CodedValue("ETABLISSEMENT", "1.2.250.1.213.1.1.4.9", "Etablissement de santé")


def report_submission(
    content: ReportContent,
    cda: bytes,
    sender: Sender,
    *,
    cda_code: CodedValue,
    title: str,
    page: bytes | None = None,
) -> Submission:
    """Describe the sending of one validated report.

    Parameters
    ----------
    cda
        The very bytes of the CDA.
    cda_code, title
        Its ``code`` and ``title``.
    page
        The very bytes of the N1 that goes beside it: the same content, replaced and withdrawn together with it.
    """
    meeting = content.meeting
    act = concept("TRE_R213-ModePriseEnCharge", "39")
    event = CodedValue("39", "1.2.250.1.213.3.3.13", act.label)
    flags = tuple(_coded("JDV_J08-XdsConfidentialityCode", code) for code in ("N", *content.visibility))
    entry = Entry(
        file_name="DOC0001.XML",
        content=cda,
        mime_type="text/xml",
        unique_id=content.document_id,
        title=title,
        comments="Fiche RCP validée",
        created=content.written_at,
        service_start=meeting.start,
        service_stop=meeting.end,
        author=_housed(content.coordinator, meeting.place),
        role=concept("JDV_J47-FunctionCode", "353").label,
        legal_authenticator=content.validator,
        patient=content.patient,
        class_code=CodedValue("10", "1.2.250.1.213.1.1.4.1", concept("TRE_A03-ClasseDocument", "10").label),
        type_code=cda_code,
        format_code=CodedValue(
            "urn:asip:ci-sis:frcp:2011",
            "1.2.250.1.213.1.1.4.2.282",
            concept("JDV_J10-XdsFormatCode", "urn:asip:ci-sis:frcp:2011").label,
        ),
        confidentiality=flags,
        facility=meeting.place.facility or CodedValue("SA01", "1.2.250.1.71.4.2.4", "Etablissement public de santé"),
        setting=_housed(content.coordinator, meeting.place).organisation.setting or _HOSPITAL,  # type: ignore[union-attr]  # just housed
        events=(event, *(t.topography for t in content.tumours if t.topography is not None)),
        action="C" if content.replaces is not None else None,
    )
    return Submission(
        unique_id=f"{content.document_id.root}.1",
        submitted=content.written_at,
        title="Transmission FRCP",
        sender=sender,
        entries=(entry,) if page is None else (entry, beside(entry, page)),
    )


def beside(report: Entry, page: bytes) -> Entry:
    """Describe the N1 beside the structured report: another document, in another format, of the same content."""
    return structs.replace(
        report,
        file_name="DOC0002.XML",
        content=page,
        unique_id=n1.identity(report.unique_id),
        comments=f"{report.comments} (PDF)",
        format_code=CodedValue(_PAGE_FORMAT, _IHE_FORMATS, concept("JDV_J10-XdsFormatCode", _PAGE_FORMAT).label),
    )


def _coded(list_name: str, code: str) -> CodedValue:
    found = concept(list_name, code)
    return CodedValue(found.code, found.oid or "", found.label)


def _housed(person: Person, place: Organisation) -> Person:
    if person.organisation is not None:
        return person
    return Person(
        family=person.family,
        given=person.given,
        idnps=person.idnps,
        civility=person.civility,
        title=person.title,
        profession=person.profession,
        organisation=place,
    )


# --- The zip -------------------------------------------------------------------------------------------------------


def build(submission: Submission) -> bytes:
    """Write the zip.

    Raises
    ------
    InvalidContent
        ``xdm`` when it has no document, a file name that is not 8.3, or documents of several patients.
    """
    _check(submission)
    files = [
        ("README.TXT", _readme(submission)),
        ("INDEX.HTM", _index(submission)),
        (f"{_FOLDER}/METADATA.XML", metadata(submission)),
        *((f"{_FOLDER}/{entry.file_name}", entry.content) for entry in submission.entries),
    ]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files:
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system = 3
            info.external_attr = 0o100644 << 16
            archive.writestr(info, data)
    return buffer.getvalue()


def documents_in(archive: bytes) -> int:
    """Count the documents of a zip that `build` wrote."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return sum(name.startswith(f"{_FOLDER}/DOC") for name in opened.namelist())


def _check(submission: Submission) -> None:
    names = [entry.file_name for entry in submission.entries]
    refusals = (
        (not names, "Un envoi XDM contient au moins un document."),
        (len(set(names)) != len(names), "Deux documents de l’envoi XDM portent le même nom."),
        (any(not _FILE_NAME.fullmatch(name) for name in names), "Un nom de fichier de l’envoi XDM n’est pas en 8.3."),
        (
            len({patient_id(entry.patient) for entry in submission.entries}) > 1,
            "Un envoi XDM ne concerne qu’un patient.",
        ),
        (len(submission.unique_id) > _OID_MAX, f"Un identifiant de l’envoi XDM dépasse {_OID_MAX} caractères."),
    )
    for wrong, text in refusals:
        if wrong:
            raise InvalidContent("xdm", text, rule=True)


def _readme(submission: Submission) -> bytes:
    sender, house = submission.sender, submission.sender.organisation
    address = house.address
    where = ", ".join(p for p in ((*address.lines, address.postal_code, address.city) if address else ()) if p)
    lines = [
        "Emetteur",
        f"  Organisme : {clean(house.name)}",
        f"  Adresse : {clean(where) or 'non renseignée'}",
        f"  Téléphone : {clean(house.phone or '') or 'non renseigné'}",
        "",
        "Application",
        f"  Nom : {sender.application}",
        f"  Version : {sender.version}",
        f"  Editeur : {sender.publisher}",
        "",
        "Instructions",
        "  Ouvrir INDEX.HTM avec un navigateur, ou intégrer le dossier IHE_XDM dans un logiciel compatible IHE XDM.",
        "",
        "Arborescence",
        "  README.TXT",
        "  INDEX.HTM",
        f"  {_FOLDER}/METADATA.XML",
        *(f"  {_FOLDER}/{entry.file_name} : {clean(entry.title)}" for entry in submission.entries),
        "",
    ]
    return "\r\n".join(lines).encode()


def _index(submission: Submission) -> bytes:
    items = "\n".join(
        f'      <li><a href="{_FOLDER}/{entry.file_name}">{escape(clean(entry.title))}</a></li>'
        for entry in submission.entries
    )
    house = escape(clean(submission.sender.organisation.name))
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML Basic 1.0//EN" "http://www.w3.org/TR/xhtml-basic/xhtml-basic10.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="fr">
  <head>
    <title>{house} - Documents</title>
  </head>
  <body>
    <h1>{house}</h1>
    <ul>
      <li><a href="README.TXT">README.TXT</a></li>
{items}
    </ul>
  </body>
</html>
""".encode()
