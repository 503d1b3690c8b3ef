"""From a letter in the domain's words to one mail, and what a receipt means for a message.

Promises: pure (no socket, database or clock); the same letter gives the same bytes. A letter that carries a report is
`gateway.mssante.report_mail`'s.

Sources: spec mssante 2.1 to 2.5 (ECO.2.*), spec features 4.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gateway.mssante import calendar_entry
from gateway.mssante.envelope import Attachment, Mail, Sizes, render
from gateway.mssante.receipts import Receipt
from gateway.mssante.report_mail import ReportMail
from gateway.rcp.ports import Letter, ReportLetter, SealedLetter
from gateway.rcp.templates import clean

__all__ = ["RECEIPT_KINDS", "Composer", "receipt_kind"]

RECEIPT_KINDS: Mapping[str, str] = {
    # what the report says: kind of `gateway.model.message.Receipt`
    "delivered": "remise",
    "relayed": "relayee",
    "expanded": "relayee",
    "delayed": "retardee",
    "failed": "rejetee",
    "displayed": "lue",
    "processed": "traitee",
    "dispatched": "traitee",
    "deleted": "supprimee",
    "error": "refusee",
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
    sizes
        How large a mail may be, by the recipient's domain.
    answers_read
        Whether what is answered is read: letters then say that one may simply answer.
    """

    address: str
    nil: str
    name: str = ""
    identity_in_subject: bool = True
    read_receipts: bool = True
    sizes: Sizes = field(default_factory=Sizes)
    answers_read: bool = False

    def seal(self, letter: Letter | ReportLetter) -> SealedLetter:
        """Give the bytes.

        Raises
        ------
        InvalidContent
            As `gateway.mssante.envelope.render`.
        """
        if isinstance(letter, ReportLetter):
            return self._reports(letter.address).seal(replace(letter, reply_to=letter.reply_to or self.address))
        sealed = render(self._plain(letter), max_bytes=self.sizes.of(letter.address))
        return SealedLetter(
            content=sealed.content,
            message_id=sealed.message_id,
            envelope_id=sealed.envelope_id,
            sender=self.address,
        )

    def _reports(self, address: str) -> ReportMail:
        return ReportMail(
            address=self.address,
            nil=self.nil,
            name=self.name,
            identity_in_subject=self.identity_in_subject,
            read_receipt=self.read_receipts,
            max_bytes=self.sizes.of(address),
        )

    def _plain(self, letter: Letter) -> Mail:
        return Mail(
            key=letter.key,
            sender_address=self.address,
            sender_name=self.name,
            recipient_address=letter.address,
            recipient_name=clean(letter.name),
            date=letter.at,
            subject=letter.subject,
            body=letter.body,
            nil=self.nil,
            reply_to=letter.reply_to or self.address,
            # An answer that a machine gives asks for nothing in turn.
            read_receipt=self.read_receipts and letter.in_reply_to is None,
            in_reply_to=letter.in_reply_to,
            attachments=_agenda(letter),
        )


def _agenda(letter: Letter) -> tuple[Attachment, ...]:
    if letter.agenda is None:
        return ()
    content = calendar_entry.render(letter.agenda, letter.at)
    return (Attachment(calendar_entry.FILENAME, calendar_entry.MEDIA_TYPE, content),)
