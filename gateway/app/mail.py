"""What the gateway writes and sends by MSSanté, put together from the settings; nothing of it without a mailbox.

Promises: one place decides what the sender of letters and documents is called. Opens no connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

from gateway.exchange.blobs import BlobStore
from gateway.mssante.account import account_for
from gateway.mssante.channel import MssanteChannel
from gateway.mssante.mailbox import Mailbox
from gateway.mssante.report_mail import Forms
from gateway.mssante.submission import Submission
from gateway.mssante.translate import Composer
from gateway.mssante.xdm_metadata import Sender
from gateway.rcp.report import Press
from gateway.rcp.report_content import Organisation
from gateway.settings import Settings

__all__ = ["Mailing", "mailing"]

_APPLICATION = "rcp-gateway"


@dataclass(frozen=True)
class Mailing:
    """Everything that needs the gateway's own mailbox."""

    letters: Composer
    press: Press
    channel: MssanteChannel | None
    mailbox: Mailbox | None


def mailing(settings: Settings, blobs: BlobStore) -> Mailing | None:
    """Put it together; `None` when the gateway has no mailbox or does not say who it is in documents.

    Without it nobody is notified and no report is validated: its forms must name who sends them.
    """
    who = settings.organisation
    if settings.mail.address is None or who.oid_root is None:
        return None
    own = Organisation(name="Passerelle RCP", idnst=f"1{who.finess}" if who.finess else None)
    sender = Sender(
        source_id=who.oid_root,
        organisation=own,
        application=_APPLICATION,
        version=version(_APPLICATION),
        publisher=_APPLICATION,
    )
    letters = Composer(address=settings.mail.address, nil=who.mssante_nil or "", name="Passerelle RCP")
    press = Press(forms=Forms(sender), mails=letters, blobs=blobs, custodian=own)
    smtp, imap = settings.mail.smtp, settings.mail.imap
    return Mailing(
        letters=letters,
        press=press,
        channel=MssanteChannel(Submission(account_for(settings.mail, smtp))) if smtp else None,
        mailbox=Mailbox(account_for(settings.mail, imap)) if imap else None,
    )
