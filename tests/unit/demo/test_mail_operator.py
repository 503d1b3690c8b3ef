"""The demonstration's operator: the same wires as a real one, and pages where nothing of a mail runs."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import httpx
import pytest

from gateway.demo.mail_operator import MailOperator
from gateway.demo.mail_pages import mail_app
from gateway.errors import Fault, Unavailable
from gateway.mssante.account import Account
from gateway.mssante.connection import Fate, Timeouts
from gateway.mssante.envelope import Attachment, Mail, render
from gateway.mssante.mailbox import Mailbox, Position
from gateway.mssante.submission import Submission
from gateway.settings import load
from gateway.transport import Tls
from gateway.web.background import served

GATEWAY = "rcp@demo.mssante.example"
PHYSICIAN = "paul.durant@medecin.mssante.example"
PASSWORDS = {GATEWAY: "secret/é@:", PHYSICIAN: "autre secret"}


@pytest.fixture(scope="module")
def operator(tmp_path_factory):
    with MailOperator(tmp_path_factory.mktemp("operateur"), PASSWORDS) as running:
        yield running


def account(operator, url):
    """The account as the gateway reads it from its environment."""
    settings = load(
        {
            "RCP_MSSANTE_SMTP_URL": url if url.startswith("smtp") else "",
            "RCP_MSSANTE_IMAP_URL": url if url.startswith("imap") else "",
            "RCP_MSSANTE_ADDRESS": GATEWAY,
            "RCP_MSSANTE_TLS_CA": str(operator.authorities),
        }
    )
    server = settings.mail.smtp or settings.mail.imap
    assert server is not None
    return Account(server, settings.mail.tls)


def mail(key, body="Bonjour,\n.\nŒuvre\n", **more):
    return render(
        Mail(
            key=key,
            sender_address=GATEWAY,
            recipient_address=PHYSICIAN,
            date=datetime(2026, 3, 17, 7, 0, tzinfo=UTC),
            subject=more.pop("subject", "Médecin – Notification préalable RCP"),
            body=body,
            nil="000000",
            **more,
        )
    )


def send(operator, sealed, recipient=PHYSICIAN, sender=GATEWAY):
    return Submission(account(operator, operator.smtp_url(GATEWAY)), timeouts=Timeouts(5, 5, 5)).send(
        sealed.content, sender=sender, recipient=recipient, envelope_id=sealed.envelope_id
    )


class Keeper:
    def __init__(self):
        self.kept, self.at = [], None

    def position(self):
        return self.at

    def keep(self, message):
        self.kept.append(message.content)
        self.at = Position(message.uid_validity, message.uid)


def test_a_mail_goes_out_by_smtp_and_is_read_back_by_imap(operator):
    sealed = mail("aller-retour")
    attempted = send(operator, sealed)
    assert (attempted.fate, attempted.code) == (Fate.DELIVERED, "accepted")
    keeper, box = Keeper(), Mailbox(account(operator, operator.imap_url(PHYSICIAN)))
    box.read(keeper)
    [content] = [one for one in keeper.kept if sealed.message_id.encode() in one]
    assert content.endswith(sealed.content)
    assert content in operator.messages(PHYSICIAN)
    assert box.read(keeper) == 0


def test_idle_brings_a_mail_at_once(operator):
    keeper, stop = Keeper(), threading.Event()
    box = Mailbox(account(operator, operator.imap_url(PHYSICIAN)), poll_s=60)
    reader = threading.Thread(target=box.watch, args=(keeper, stop))
    reader.start()
    try:
        box.read(Keeper())
        sealed = mail("idle")
        send(operator, sealed)
        until = time.monotonic() + 60
        while not any(sealed.message_id.encode() in content for content in keeper.kept):
            assert time.monotonic() < until, "the mail did not come"
            time.sleep(0.05)
    finally:
        stop.set()
        reader.join(60)


def test_what_an_operator_refuses(operator, tmp_path):
    unknown = send(operator, mail("inconnue"), recipient="personne@medecin.mssante.example")
    assert (unknown.fate, unknown.code, unknown.status) == (Fate.REFUSED, "smtp-550", "5.1.1")
    foreign = send(operator, mail("autrui"), sender=PHYSICIAN)
    assert (foreign.fate, foreign.status) == (Fate.REFUSED, "5.7.1")
    wrong = Account(
        account(operator, operator.smtp_url(GATEWAY).replace("secret", "faux")).server,
        Tls(authorities=operator.authorities),
    )
    assert Submission(wrong).check().code == "auth-535"
    other = MailOperator(tmp_path, {GATEWAY: "x"})
    elsewhere = Account(account(operator, operator.smtp_url(GATEWAY)).server, Tls(authorities=other.authorities))
    assert Submission(elsewhere).check().code == "tls-certificate"
    with pytest.raises(Unavailable):
        Mailbox(
            Account(account(operator, operator.imap_url(GATEWAY)).server, Tls(authorities=other.authorities))
        ).check()


def test_a_port_that_is_taken_is_said(operator, tmp_path):
    with pytest.raises(Fault) as refused:
        MailOperator(tmp_path, {GATEWAY: "x"}, smtp_port=operator.smtp_port).start()
    assert refused.value.code == "mail-operator"


def test_the_key_is_readable_by_its_owner_only(tmp_path):
    MailOperator(tmp_path, {GATEWAY: "x"})
    assert (tmp_path / "mail-server.key").stat().st_mode & 0o077 == 0


def test_pages_show_mails_as_text_and_run_nothing(operator):
    evil = '<script>alert(1)</script> <img src=x onerror=y> https://rcp.example/dossiers/7K3Q?a=1&b=2"onmouseover=z\n'
    archive = Attachment("IHE_XDM.zip", "application/zip", b"PK\x03\x04essai")
    sealed = mail(
        "pages",
        body=evil,
        subject="XDM/1.0/DDM+<b>gras</b> é",
        attachments=(archive,),
        cda_codes=("34794-8",),
        ins_qualified=True,
    )
    send(operator, sealed)
    with served(mail_app(operator)) as origin, httpx.Client(timeout=60, base_url=origin) as client:
        _look(client, operator, archive)


def _look(client, operator, archive):
    listing = client.get("/")
    assert PHYSICIAN in listing.text
    number = len(operator.messages(PHYSICIAN)) - 1
    box = client.get(f"/boite/{PHYSICIAN}")
    assert "&lt;b&gt;gras&lt;/b&gt; é" in box.text
    shown = client.get(f"/boite/{PHYSICIAN}/{number}")
    for page in (listing, box, shown):
        assert "<script" not in page.text
        assert "<img" not in page.text
        assert "<b>" not in page.text
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        assert page.headers["x-content-type-options"] == "nosniff"
    assert '<a href="https://rcp.example/dossiers/7K3Q?a=1&amp;b=2"' in shown.text
    raw = client.get(f"/boite/{PHYSICIAN}/{number}/brut")
    assert raw.content == operator.messages(PHYSICIAN)[number]
    assert raw.headers["content-disposition"].startswith("attachment")
    place = shown.text.partition(f'href="{number}/')[2].partition('"')[0]
    attached = client.get(f"/boite/{PHYSICIAN}/{number}/{place}")
    assert attached.content == archive.content
    assert attached.headers["content-type"] == "application/octet-stream"
    for missing in ("/boite/x@y.example", f"/boite/{PHYSICIAN}/9999", f"/boite/{PHYSICIAN}/{number}/99"):
        assert client.get(missing).status_code == 404
    assert client.post("/").status_code == 405
