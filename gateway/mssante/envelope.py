"""One outgoing mail as bytes: MIME as the MSSanté reference system wants it.

Promises: the same `Mail` gives the same bytes for ever (Message-ID and boundary come from its key), so that it is
rendered once and re-sent identical; only 7-bit lines leave (quoted-printable, base64), so that no relay rewrites it; a
line break in a name, a subject or an identifier is refused and never becomes a header; what is larger than the limit is
refused before any connection. Sends nothing and chooses no recipient.

Sources: [RFC 5322], [RFC 2045], [RFC 2047], [RFC 2231], [RFC 3834], [RFC 8098 §2.1], spec mssante 2.2 to 2.5 (ECO.2.*).
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage

from gateway.errors import InvalidContent
from gateway.identifiers import MssanteAddress
from gateway.rcp.templates import clean

__all__ = [
    "DOCUMENT_PREFIX",
    "MAX_MESSAGE_BYTES",
    "PATIENT_MAX_BYTES",
    "Attachment",
    "Mail",
    "Sealed",
    "Sizes",
    "check_address",
    "document_subject",
    "envelope_id",
    "mailbox",
    "message_id",
    "pdf_filename",
    "render",
]

MAX_MESSAGE_BYTES = 10_000_000
"""Default limit of the whole encoded message (spec mssante 1.5); the operator may say a smaller one in EHLO."""

DOCUMENT_PREFIX = "XDM/1.0/DDM+"
"""How the raw subject of a mail that carries a CDA begins; no other mail may begin so. [ECO.2.1.3]"""

_POLICY = policy.SMTP.clone(cte_type="7bit")
_ADDRESS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z0-9-]{2,63}")  # fmt: skip # noqa: E501
_MESSAGE_ID = re.compile(r"[^<>\s@]+@[^<>\s@]+")
_SPECIALS = re.compile(r'[()<>\[\]:;@\\,."]+')
_UNSAFE_IN_FILENAME = re.compile(r'[/\\:*?"<>|]+')
_LABEL_MAX_CHARS = 40


PATIENT_MAX_BYTES = 25_000_000
"""What Mon espace santé takes of a whole message; a larger one bounces (spec mssante 1.5)."""


@dataclass(frozen=True)
class Sizes:
    """How large an encoded message may be: for all, and for the recipients of one operator's domain.

    A patient's mailbox takes `PATIENT_MAX_BYTES` and never more, whatever is set.
    """

    usual: int = MAX_MESSAGE_BYTES
    by_domain: Mapping[str, int] = field(default_factory=dict)

    def of(self, address: str) -> int:
        """Give the limit of messages to an address."""
        domain = address.rpartition("@")[2].lower()
        if domain == MssanteAddress.PATIENTS:
            return min(self.by_domain.get(domain, PATIENT_MAX_BYTES), PATIENT_MAX_BYTES)
        return self.by_domain.get(domain, self.usual)


@dataclass(frozen=True)
class Attachment:
    """One attached file; always sent as base64."""

    filename: str
    media_type: str
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Mail:
    """What one mail says, before it is bytes.

    Parameters
    ----------
    key
        Idempotency key of the logical message (type, dossier, session, recipient, version): Message-ID, ENVID and the
        MIME boundary are derived from it.
    sender_address, sender_name
        The mailbox that sends (BAL APP).
    recipient_address, recipient_name
        One message for each recipient.
    date
        Aware instant of rendering.
    nil
        ``X-MSS-NIL``, on all mails; left out only where none was attributed yet (trials).
    cda_codes
        Codes of the CDA documents inside an attached ``IHE_XDM.zip``; empty when there is none.
    ins_qualified
        Whether the patient's INS is qualified; given exactly when `cda_codes` is.
    patient_may_not_reply
        ``X-MSS-MES: FIN``; to a patient's mailbox only. [ECO.2.2.8]
    in_reply_to, references
        Message-IDs without angle brackets.
    """

    key: str
    sender_address: str
    recipient_address: str
    date: datetime
    subject: str
    body: str = field(repr=False)
    nil: str
    sender_name: str = ""
    recipient_name: str = ""
    reply_to: str | None = None
    attachments: tuple[Attachment, ...] = ()
    cda_codes: tuple[str, ...] = ()
    ins_qualified: bool | None = None
    read_receipt: bool = False
    auto_submitted: bool = True
    patient_may_not_reply: bool = False
    in_reply_to: str | None = None
    references: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sealed:
    """The bytes of a mail and what its answers will carry."""

    content: bytes = field(repr=False)
    message_id: str
    envelope_id: str
    sha256: str


def message_id(key: str, address: str) -> str:
    """Return the Message-ID, without angle brackets, of the logical message `key` sent from `address`."""
    return f"{envelope_id(key)}@{address.rpartition('@')[2]}"


def envelope_id(key: str) -> str:
    """Return the SMTP ENVID of the logical message `key`; nothing of the key can be read from it [RFC 3461 §4.4]."""
    return "rcp." + hashlib.sha256(key.encode()).hexdigest()[:40]


def check_address(address: str) -> str:
    """Return the address, or refuse what is not one plain ASCII ``local@domain``.

    Raises
    ------
    InvalidContent
        ``mail-address``. Domains are not judged: MSSanté addresses exist outside ``mssante.fr`` (spec mssante 1.2).
    """
    if len(address) > 254 or not _ADDRESS.fullmatch(address):
        raise InvalidContent("mail-address", "Cette adresse de messagerie n’est pas utilisable.")
    return address


def render(mail: Mail, *, max_bytes: int = MAX_MESSAGE_BYTES) -> Sealed:
    """Turn a mail into its bytes (CRLF lines, 7-bit).

    Raises
    ------
    InvalidContent
        ``mail-address``, ``mail-patient``, ``mail-header`` (a line break or a document prefix where none may be),
        ``mail-document`` (headers of a CDA without one, or the reverse), ``mail-date``, ``mail-too-large`` (names the
        limit).
    """
    _check(mail)
    identifier = message_id(mail.key, mail.sender_address)
    message = EmailMessage(policy=_POLICY)
    message["MIME-Version"] = "1.0"
    message["Date"] = mail.date.replace(microsecond=0)
    message["From"] = mailbox(mail.sender_name, mail.sender_address)
    message["To"] = mailbox(mail.recipient_name, mail.recipient_address)
    if mail.reply_to:
        message["Reply-To"] = mailbox("", mail.reply_to)
    message["Subject"] = unicodedata.normalize("NFC", mail.subject)
    for name, value in _optional_headers(mail):
        message[name] = value
    message.set_content(
        unicodedata.normalize("NFC", mail.body), subtype="plain", charset="utf-8", cte="quoted-printable"
    )
    for attachment in mail.attachments:
        maintype, _, subtype = attachment.media_type.partition("/")
        message.add_attachment(
            attachment.content,
            maintype=maintype,
            subtype=subtype,
            filename=unicodedata.normalize("NFC", attachment.filename),
        )
    if mail.attachments:
        # "=_" never occurs in quoted-printable or base64 text. [RFC 2045 §6.7]
        message.set_boundary("=_" + envelope_id(mail.key))
    # Written here: the standard library folds a long identifier away from its name, where some receivers miss it.
    heads = [f"Message-ID: <{identifier}>", *([f"In-Reply-To: <{mail.in_reply_to}>"] if mail.in_reply_to else [])]
    content = "".join(f"{head}\r\n" for head in heads).encode("ascii") + message.as_bytes()
    if len(content) > max_bytes:
        raise InvalidContent(
            "mail-too-large",
            f"Le message dépasse la taille permise : {len(content)} octets, pièces jointes encodées,"
            f" pour {max_bytes} (RCP_MSSANTE_MAX_BYTES).",
        )
    return Sealed(content, identifier, envelope_id(mail.key), hashlib.sha256(content).hexdigest())


def _optional_headers(mail: Mail) -> Iterable[tuple[str, str]]:
    if mail.references:
        yield "References", " ".join(f"<{reference}>" for reference in mail.references)
    if mail.read_receipt:
        # No automatic receipt comes back unless this is the envelope sender. [spec mssante 2.2]
        yield "Disposition-Notification-To", f"<{mail.sender_address}>"
    if mail.auto_submitted:
        yield "Auto-Submitted", "auto-generated"
    if mail.nil:
        yield "X-MSS-NIL", mail.nil
    if mail.cda_codes:
        yield "X-MSS-CODECDA", ",".join(mail.cda_codes)
        yield "X-MSS-INS", "O" if mail.ins_qualified else "N"
    if mail.patient_may_not_reply:
        yield "X-MSS-MES", "FIN"


def _check(mail: Mail) -> None:
    for address in (mail.sender_address, mail.recipient_address, *([mail.reply_to] if mail.reply_to else [])):
        check_address(address)
    if mail.patient_may_not_reply and not MssanteAddress.from_wire(mail.recipient_address).is_of_a_patient:
        raise InvalidContent("mail-patient", "Seul un courrier au patient dit qu’il ne peut pas y répondre.")
    if mail.date.tzinfo is None:
        raise InvalidContent("mail-date", "La date du message n’a pas de fuseau horaire.")
    singles = (mail.subject, mail.sender_name, mail.recipient_name, mail.nil, *mail.cda_codes)
    names = tuple(attachment.filename for attachment in mail.attachments)
    if any(unicodedata.category(c) in {"Cc", "Zl", "Zp", "Cs"} for text in (*singles, *names) for c in text):
        raise InvalidContent("mail-header", "Un en-tête du message contient un caractère interdit.")
    if any(not _MESSAGE_ID.fullmatch(text) for text in (*filter(None, [mail.in_reply_to]), *mail.references)):
        raise InvalidContent("mail-header", "Un identifiant de message cité est mal formé.")
    has_zip = any(attachment.filename == "IHE_XDM.zip" for attachment in mail.attachments)
    if mail.subject.startswith(DOCUMENT_PREFIX) != has_zip:
        raise InvalidContent("mail-header", "L’objet d’un envoi de document est réservé aux envois de document.")
    if bool(mail.cda_codes) != has_zip or (mail.ins_qualified is None) == has_zip:
        raise InvalidContent("mail-document", "Les en-têtes de document ne correspondent pas aux pièces jointes.")


def mailbox(name: str, address: str) -> Address:
    """Return an address with a name that stays one, whatever is in it."""
    display = unicodedata.normalize("NFC", name)
    if not display.isascii():
        # The standard library leaves specials bare beside an encoded word, where they break the address list.
        display = " ".join(_SPECIALS.sub(" ", display).split())
    return Address(display, addr_spec=address)


def document_subject(
    label: str, *, birth_name: str | None = None, first_name: str | None = None, birth_date: date | None = None
) -> str:
    """Return the subject of a mail that carries one CDA [ECO.2.1.3].

    Parameters
    ----------
    label
        ``code/@displayName`` of the CDA; cut after 40 characters.
    birth_name, first_name, birth_date
        Identity, upper case without accents, only inside MSSanté (DECISIONS 2); leave all out for the short form.
    """
    parts = [unicodedata.normalize("NFC", label)[:_LABEL_MAX_CHARS].rstrip()]
    parts += [_plain(text).upper() for text in (birth_name, first_name) if text]
    if birth_date is not None:
        parts.append(f"{birth_date:%d/%m}/{birth_date.year:04d}")
    return DOCUMENT_PREFIX + " ".join(parts)


def pdf_filename(act_date: date, label: str, birth_name: str, first_name: str, number: str | None = None) -> str:
    """Return the name of the readable copy: ``AAAAMMJJ_type_NOM_prenom[_dossier].pdf`` [ECO.2.1.6]."""
    kind = unicodedata.normalize("NFC", label)[:_LABEL_MAX_CHARS].rstrip()
    parts = [f"{act_date.year:04d}{act_date:%m%d}", kind, _plain(birth_name).upper(), _plain(first_name).upper()]
    if number:
        parts.append(number)
    return _UNSAFE_IN_FILENAME.sub("-", "_".join(parts)) + ".pdf"


def _plain(text: str) -> str:
    """Drop accents, and what has no place in a header; hyphen and apostrophe stay (spec mssante 2.3)."""
    text = clean(text)
    for ligature, letters in (("œ", "oe"), ("Œ", "OE"), ("æ", "ae"), ("Æ", "AE")):
        text = text.replace(ligature, letters)
    decomposed = unicodedata.normalize("NFD", text)
    return "".join(c for c in decomposed if unicodedata.category(c) != "Mn").replace("’", "'")
