"""What the gateway writes and sends by MSSanté, put together from the settings; nothing of it without a mailbox.

Promises: one place decides what the sender of letters and documents is called. Opens no connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

from gateway.exchange.blobs import BlobStore
from gateway.mssante.account import account_for
from gateway.mssante.channel import MssanteChannel
from gateway.mssante.envelope import Sizes
from gateway.mssante.mailbox import Mailbox
from gateway.mssante.pacing import Pace
from gateway.mssante.report_mail import Forms
from gateway.mssante.revocation import RevocationLists
from gateway.mssante.submission import Submission
from gateway.mssante.translate import Composer
from gateway.mssante.xdm_metadata import Sender
from gateway.rcp.report import Press
from gateway.rcp.report_content import Organisation
from gateway.settings import Settings

__all__ = ["MailPeers", "Mailing", "mail_peers", "mailing"]

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
    mail = settings.mail
    letters = Composer(
        address=settings.mail.address,
        nil=who.mssante_nil or "",
        name=mail.display_name,
        identity_in_subject=mail.subject_identity,
        sizes=Sizes(mail.max_bytes, dict(mail.max_bytes_by_domain)),
        answers_read=mail.imap is not None,
    )
    press = Press(
        forms=Forms(sender, mail.pdf, with_n1=mail.n1),
        mails=letters,
        blobs=blobs,
        custodian=own,
        production=settings.prod,
    )
    peers = mail_peers(settings)
    return Mailing(
        letters=letters,
        press=press,
        channel=MssanteChannel(peers.submission, Pace(mail.per_minute)) if peers.submission else None,
        mailbox=peers.mailbox,
    )


@dataclass(frozen=True)
class MailPeers:
    """The operator's two services, and the revocation lists that both are looked up in."""

    submission: Submission | None
    mailbox: Mailbox | None
    revoked: RevocationLists | None


def mail_peers(settings: Settings) -> MailPeers:
    """Put the operator's services together; opens no connection."""
    mail, revoked = settings.mail, None
    if mail.tls.revoked is not None and mail.tls.authorities is not None:
        revoked = RevocationLists(mail.tls.revoked, mail.tls.authorities, settings.data_dir / "mssante-crl.pem")
    return MailPeers(
        submission=Submission(account_for(mail, mail.smtp, revoked)) if mail.smtp else None,
        mailbox=Mailbox(account_for(mail, mail.imap, revoked)) if mail.imap else None,
        revoked=revoked,
    )
