"""The report as MSSanté carries it: its forms, and the mail that brings them (M6, M6p) or a link (M5) to one person.

Promises: the CDA inside ``IHE_XDM.zip`` and the PDF beside it are the very bytes given; the national subject with the
identity (DECISIONS 2) unless the short one is chosen; what replaces or withdraws says so in the body and answers, in
threads, the first mail to the same person. To an address that neither its domain nor the directory says to be MSSanté
goes no document and no identity, whatever the letter and the operator's texts say; to a patient's mailbox, only what
is his own and he may see, and to no other mailbox his copy. The same letter gives the same bytes.
Implements `gateway.rcp.ports.ReportForms` and `ReportMails`. [ECO.2.1.1 to .2.1.6, .2.2.6, .2.2.8;
spec mssante 2.2 to 2.7, 2.12, 6.1]
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date

from msgspec import structs

from gateway.documents import frcp, n1, pdf
from gateway.documents.wording import civil_words
from gateway.errors import Fault, InvalidContent
from gateway.identifiers import MssanteAddress
from gateway.mssante import envelope, xdm
from gateway.mssante.xdm_metadata import Sender
from gateway.rcp import french, templates
from gateway.rcp.ports import RenderedForm, ReportLetter, SealedLetter
from gateway.rcp.report_content import HIDDEN_FROM_PATIENT, CodedValue, PatientContent, ReportContent

__all__ = ["Forms", "ReportMail"]

_CODE = CodedValue(frcp.CODE.code, frcp.CODE.system, frcp.CODE.label)
_ZIP = "application/zip"
#: The letters that carry a document, and the form of it that each carries.
_ARCHIVES = {"M6": "xdm", "M6r": "xdm-retrait", "M6p": "xdm"}
_WITHDRAWALS = frozenset({"M5r", "M6r", "M6pr"})
_TO_PATIENT = frozenset({"M6p", "M6pr"})
_GENDERS = {"F": "female", "M": "male"}


@dataclass(frozen=True, slots=True)
class Forms:
    """Renders ``cda``, ``pdf``, ``xdm`` and, where it goes beside the report, ``n1``.

    Who sends is told in the zip; the page is of a level of PDF/A.
    """

    sender: Sender
    pdf_standard: pdf.Standard = pdf.STANDARDS[0]
    with_n1: bool = False

    def render(self, content: ReportContent, *, with_n1: bool = False) -> tuple[RenderedForm, ...]:
        """Give the forms.

        Parameters
        ----------
        with_n1
            Whether the version that is replaced had an N1, which then is replaced too whatever is set by now.

        Raises
        ------
        InvalidContent
            ``report-frcp``, ``xdm``: the facts cannot make correct documents.
        """
        document, page = frcp.render(content), pdf.render(content, standard=self.pdf_standard)
        beside = n1.render(content, page) if self.with_n1 or with_n1 else None
        archive = xdm.build(self._submission(content, document, beside))
        forms = (
            RenderedForm("cda", frcp.MIME_TYPE, document),
            RenderedForm("pdf", pdf.MIME_TYPE, page),
            RenderedForm("xdm", _ZIP, archive),
        )
        return forms if beside is None else (*forms, RenderedForm("n1", n1.MIME_TYPE, beside))

    def withdrawal(self, content: ReportContent, cda: bytes, page: bytes | None = None) -> RenderedForm:
        """Give the zip that asks to delete what was sent: the same bytes, action ``D``. [spec mssante 6.1]."""
        submission = self._submission(content, cda, page)
        entries = tuple(structs.replace(entry, action="D") for entry in submission.entries)
        again = structs.replace(submission, unique_id=f"{content.document_id.root}.2", entries=entries)
        return RenderedForm("xdm-retrait", _ZIP, xdm.build(again))

    def _submission(self, content: ReportContent, cda: bytes, page: bytes | None) -> xdm.Submission:
        title = frcp.title(content)
        return xdm.report_submission(content, cda, self.sender, cda_code=_CODE, title=title, page=page)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportMail:
    """Composes the letters about a report.

    Parameters
    ----------
    address, name
        The mailbox that sends.
    nil
        Product number on all mails.
    identity_in_subject
        The national subject with name, first name and birth date; False gives the short one.
    """

    address: str
    nil: str
    name: str = ""
    identity_in_subject: bool = True
    read_receipt: bool = True
    max_bytes: int = envelope.MAX_MESSAGE_BYTES

    def seal(self, letter: ReportLetter) -> SealedLetter:
        """Give the bytes of one mail.

        Raises
        ------
        InvalidContent
            ``mail-address``, ``mail-too-large``; ``mail-hors-mssante``: the letter carries a document, or names a
            patient and has no neutral variant, and the address is not MSSanté; ``mail-patient``: a patient's copy to
            another mailbox than his, of what he may not see, or another letter to his.
        """
        _require_addressee(letter)
        to_patient = letter.kind in _TO_PATIENT
        archive = _ARCHIVES.get(letter.kind)
        text = _text(letter, document=archive is not None)
        mail = envelope.Mail(
            key=letter.key,
            sender_address=self.address,
            sender_name=self.name,
            recipient_address=letter.address,
            recipient_name=_name(letter),
            date=letter.at,
            subject=text.subject,
            body=text.body,
            nil=self.nil,
            # A patient cannot refuse a receipt, and is told whom to ask: nothing is answered here. [spec mssante 2.12]
            reply_to=None if to_patient else letter.reply_to,
            read_receipt=self.read_receipt and not to_patient,
            patient_may_not_reply=to_patient,
            in_reply_to=letter.previous[0] if letter.previous else None,
            references=letter.previous,
        )
        if archive is not None:
            attachments = _attachments(letter, archive)
            documents = xdm.documents_in(attachments[0].content)
            mail = replace(
                mail,
                subject=self._subject(letter.content.patient, documents),
                attachments=attachments,
                cda_codes=(_CODE.code,) * documents,
                ins_qualified=letter.content.patient.ins_qualified,
                auto_submitted=False,
            )
        sealed = envelope.render(mail, max_bytes=self.max_bytes)
        return SealedLetter(
            content=sealed.content,
            message_id=sealed.message_id,
            envelope_id=sealed.envelope_id,
            sender=self.address,
        )

    def _subject(self, patient: PatientContent, documents: int) -> str:
        label = _CODE.label if documents == 1 else f"{documents} documents"
        if not self.identity_in_subject:
            return envelope.document_subject(label)
        return envelope.document_subject(
            label,
            birth_name=patient.birth_family,
            first_name=patient.birth_given,
            birth_date=_whole_date(patient.birth_date),
        )


def _whole_date(said: str) -> date | None:
    """The birth date is the one optional part of the subject: a partial one is left out. [ECO.2.1.3]."""
    return date.fromisoformat(said) if len(said) == len("2026-01-01") else None


def _require_addressee(letter: ReportLetter) -> None:
    """Let a patient's mailbox get his own letters alone, and them go nowhere else."""
    address, to_patient = MssanteAddress.from_wire(letter.address), letter.kind in _TO_PATIENT
    wrong = address.is_of_a_patient is not to_patient
    if letter.kind in _ARCHIVES and to_patient:
        patient = letter.content.patient
        own = f"{patient.ins.extension}@{MssanteAddress.PATIENTS}" if patient.ins and patient.ins_qualified else None
        wrong = wrong or address.value != own or HIDDEN_FROM_PATIENT in letter.content.visibility
    if wrong:
        text = (
            "Ce courrier ne part pas : la boîte d’un patient ne reçoit que son propre compte rendu, s’il peut le voir."
        )
        raise InvalidContent("mail-patient", text)


def _name(letter: ReportLetter) -> str:
    who = letter.recipient
    return templates.clean(" ".join(part for part in (who.given, who.family) if part)) if who is not None else ""


def _text(letter: ReportLetter, *, document: bool) -> templates.Rendered:
    """Fill the text that may go to the address; an operator's own text cannot let a document out."""
    inside = letter.listed or not MssanteAddress.from_wire(letter.address).faults
    chosen = templates.variant_for(letter.kind, inside_mssante=inside)
    if chosen is None or (document and not inside):
        text = "Ce courrier porte ou nomme un compte rendu : il ne part que vers une boîte MSSanté."
        raise InvalidContent("mail-hors-mssante", text)
    return chosen.render(_values(letter))


def _values(letter: ReportLetter) -> dict[str, str | bool]:
    content = letter.content
    zone, patient = content.tzinfo(), content.patient
    title, surname = civil_words(letter.recipient) if letter.recipient is not None else ("Madame, Monsieur", "")
    validator = content.validator
    signs, signatory = civil_words(validator)
    written = content.written_at.astimezone(zone)
    replaced = content.replaces.validated_at if content.replaces is not None else None
    before = content.written_at if letter.kind in _WITHDRAWALS else replaced
    if letter.kind in _TO_PATIENT and not letter.previous:
        before = None  # what he never got is not replaced for him
    gender = _GENDERS.get(patient.sex)
    values: dict[str, str | bool] = {
        "dest.titre": title,
        "dest.nom": surname,
        "rcp.titre": content.meeting.rcp,
        "seance.date": french.short_date(content.meeting.start.astimezone(zone).date()),
        "patient.nom": french.patient_surname(patient.birth_family, patient.used_family, gender),
        "patient.prenom": patient.used_given or patient.birth_given,
        "patient.ne": french.born(gender),
        "patient.date_naissance": french.partial_date(patient.birth_date),
        # A physician without a title is « Docteur » (S2-021).
        "validateur.titre": signs if validator.title or validator.civility else "Docteur",
        "validateur.nom": signatory,
        "validation.date": french.short_date(written.date()),
        "validation.heure": french.hour(written, spaced=letter.spaced_hours),
        "quorum_non": content.quorum == "non-atteint",
        "remplace": before is not None,
        "lien_cr": letter.link,
        "lien_plateforme": letter.platform,
        "rcp.signature": letter.signature,
        "rcp.contact": content.meeting.contact or content.meeting.manager,
    }
    if before is not None:
        values["version_precedente"] = french.short_date(before.astimezone(zone).date())
    return values


def _attachments(letter: ReportLetter, form: str) -> tuple[envelope.Attachment, ...]:
    given = {form.form: form for form in letter.forms}
    archive = given.get(form)
    if archive is None:
        raise Fault("report-mail", "Le courrier du compte rendu n’a pas son archive.")
    found = [envelope.Attachment(xdm.ARCHIVE_NAME, archive.content_type, archive.content)]
    page = given.get("pdf")
    if page is not None:
        # One PDF a CDA; the one of the N1 is, byte for byte, the one that it holds. [ECO.2.1.1, .2.1.5]
        names = (_page_name(letter.content, number) for number in ((None, "N1") if "n1" in given else (None,)))
        found += [envelope.Attachment(name, page.content_type, page.content) for name in names]
    return tuple(found)


def _page_name(content: ReportContent, number: str | None) -> str:
    act = content.meeting.start.astimezone(content.tzinfo()).date()
    patient = content.patient
    return envelope.pdf_filename(act, _CODE.label, patient.birth_family, patient.birth_given, number)
