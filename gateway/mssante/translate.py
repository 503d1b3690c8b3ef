"""From a letter in the domain's words to one mail, and what a receipt means for a message.

Promises: pure (no socket, database or clock); the same letter gives the same bytes; a mail with a document carries the
national subject and headers, and the very forms that were kept; no identity stands in any other subject (DECISIONS 2).

Sources: mssante.md 2.1 to 2.5 (ECO.2.*), features.md 4.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from gateway.documents.frcp_header import CODE as CDA_CODE
from gateway.errors import InvalidContent
from gateway.mssante.envelope import MAX_MESSAGE_BYTES, Attachment, Mail, document_subject, pdf_filename, render
from gateway.mssante.receipts import Receipt
from gateway.mssante.xdm import ARCHIVE_NAME
from gateway.rcp.ports import Letter, RenderedForm, ReportLetter, SealedLetter
from gateway.rcp.report_content import PatientContent, Person, ReportContent
from gateway.rcp.templates import born, hour, partial_date, patient_surname, short_date, template

__all__ = ["RECEIPT_KINDS", "RECEIPT_STATES", "Composer", "receipt_kind"]

_TITLES = {"PR": "Professeur", "PG": "Professeur", "PC": "Professeur"}

RECEIPT_KINDS: Mapping[str, str] = {
    # what the report says: kind of `gateway.model.message.Receipt`
    "delivered": "remise",
    "relayed": "relayee",
    "expanded": "relayee",
    "delayed": "retardee",
    "failed": "rejetee",
    "displayed": "lue",
    "processed": "lue",
    "dispatched": "lue",
    "deleted": "supprimee",
    "error": "refusee",
}

RECEIPT_STATES: Mapping[str, str] = {
    # kind of the receipt: state of the message; the others leave it (mssante.md 5.3)
    "remise": "accepte",
    "retardee": "retarde",
    "rejetee": "rejete",
    "lue": "lu",
    "refusee": "rejete",
}


def receipt_kind(receipt: Receipt) -> str:
    """Return the kind under which a receipt is kept."""
    return RECEIPT_KINDS[receipt.state]


@dataclass(frozen=True)
class Composer:
    """Composes every mail of the gateway; `gateway.rcp.ports.Letters` and `ReportMails`.

    Parameters
    ----------
    address
        The gateway's mailbox (BAL APP).
    nil
        ``X-MSS-NIL``.
    identity_in_subject
        False shortens the subject of a document mail (DECISIONS 2).
    read_receipts
        Whether a read receipt is asked for.
    """

    address: str
    nil: str
    name: str = ""
    identity_in_subject: bool = True
    read_receipts: bool = True
    max_bytes: int = MAX_MESSAGE_BYTES

    def seal(self, letter: Letter | ReportLetter) -> SealedLetter:
        """Give the bytes.

        Raises
        ------
        InvalidContent
            As `gateway.mssante.envelope.render`.
        """
        mail = self._report(letter) if isinstance(letter, ReportLetter) else self._plain(letter)
        sealed = render(mail, max_bytes=self.max_bytes)
        return SealedLetter(
            content=sealed.content,
            message_id=sealed.message_id,
            envelope_id=sealed.envelope_id,
            sender=self.address,
        )

    def _plain(self, letter: Letter) -> Mail:
        return Mail(
            key=letter.key,
            sender_address=self.address,
            sender_name=self.name,
            recipient_address=letter.address,
            recipient_name=letter.name,
            date=letter.at,
            subject=letter.subject,
            body=letter.body,
            nil=self.nil,
            reply_to=letter.reply_to or self.address,
            read_receipt=self.read_receipts,
        )

    def _report(self, letter: ReportLetter) -> Mail:
        forms = {form.form: form for form in letter.forms}
        archive = forms.get("xdm-retrait" if letter.kind == "M6r" else "xdm")
        if archive is None:
            raise InvalidContent("mail-document", "Le compte rendu à envoyer n’a pas d’archive IHE_XDM.")
        content, text = letter.content, template(letter.kind).render(_report_values(letter, self.address))
        attachments = [Attachment(ARCHIVE_NAME, "application/zip", archive.content)]
        if letter.kind == "M6":
            attachments.append(_readable_copy(content, forms.get("pdf")))
        return Mail(
            key=letter.key,
            sender_address=self.address,
            sender_name=self.name,
            recipient_address=letter.address,
            recipient_name=f"{_title(letter.recipient)} {letter.recipient.given} {letter.recipient.family}",
            date=letter.at,
            subject=self._subject(content.patient) if self.identity_in_subject else text.subject,
            body=text.body,
            nil=self.nil,
            reply_to=letter.reply_to or self.address,
            attachments=tuple(attachments),
            cda_codes=(CDA_CODE.code,),
            ins_qualified=content.patient.ins_qualified,
            read_receipt=self.read_receipts,
            auto_submitted=False,  # a document was validated by a person; some receivers sort automatic mail away
            in_reply_to=letter.previous[0] if letter.previous else None,
            references=letter.previous,
        )

    @staticmethod
    def _subject(patient: PatientContent) -> str:
        return document_subject(
            CDA_CODE.label,
            birth_name=patient.birth_family,
            first_name=patient.birth_given,
            birth_date=_whole_date(patient.birth_date),
        )


def _readable_copy(content: ReportContent, pdf: RenderedForm | None) -> Attachment:
    if pdf is None:
        raise InvalidContent("mail-document", "Le compte rendu à envoyer n’a pas de copie lisible.")
    patient = content.patient
    act = content.meeting.start.astimezone(content.tzinfo()).date()
    name = pdf_filename(act, CDA_CODE.label, patient.birth_family, patient.birth_given)
    return Attachment(name, "application/pdf", pdf.content)


def _report_values(letter: ReportLetter, address: str) -> dict[str, str | bool]:
    content, zone = letter.content, letter.content.tzinfo()
    patient, meeting = content.patient, content.meeting
    replaced = content.replaces.validated_at if content.replaces else None
    earlier = content.written_at if letter.kind == "M6r" else replaced
    stamp = earlier.astimezone(zone) if earlier else None
    return {
        "dest.titre": _title(letter.recipient),
        "dest.nom": letter.recipient.family.upper(),
        "rcp.titre": meeting.rcp,
        "rcp.signature": letter.signature,
        "rcp.contact": meeting.contact or letter.reply_to or address,
        "seance.date": short_date(meeting.start.astimezone(zone)),
        "patient.nom": patient_surname(patient.birth_family, patient.used_family, patient.sex),
        "patient.prenom": patient.used_given or patient.birth_given,
        "patient.ne": born(patient.sex),
        "patient.date_naissance": partial_date(patient.birth_date),
        "remplace": replaced is not None,
        "version_precedente": f"{short_date(stamp)} à {hour(stamp)}" if stamp else "",
    }


def _title(person: Person) -> str:
    return _TITLES.get(person.title or "", "Docteur")


def _whole_date(text: str) -> date | None:
    return date.fromisoformat(text) if len(text) == len("1965-03-01") else None
