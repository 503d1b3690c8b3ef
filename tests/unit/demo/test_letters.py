"""A mailbox as the demonstration reads it: a copy that a killed sender left is the same message, another one is not."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.demo.letters import MailServer, wait_for
from gateway.demo.mail_operator import MailOperator
from gateway.demo.narration import NotSeen
from gateway.mssante.account import Account
from gateway.mssante.connection import Fate, Timeouts
from gateway.mssante.envelope import Mail, render
from gateway.mssante.submission import Submission
from gateway.settings import load

GATEWAY = "rcp@demo.mssante.example"
PHYSICIAN = "paul.durant@medecin.mssante.example"
PASSWORD = "secret"


@pytest.fixture(scope="module")
def operator(tmp_path_factory):
    with MailOperator(tmp_path_factory.mktemp("operateur"), dict.fromkeys((GATEWAY, PHYSICIAN), PASSWORD)) as running:
        yield running


@pytest.fixture(scope="module")
def send(operator):
    settings = load(
        {
            "RCP_MSSANTE_SMTP_URL": operator.smtp_url(GATEWAY),
            "RCP_MSSANTE_ADDRESS": GATEWAY,
            "RCP_MSSANTE_TLS_CA": str(operator.authorities),
        }
    )
    submission = Submission(Account(settings.mail.smtp, settings.mail.tls), timeouts=Timeouts(5, 5, 5))

    def once(key, subject, body="Bonjour,\n"):
        sealed = render(
            Mail(
                key=key,
                sender_address=GATEWAY,
                recipient_address=PHYSICIAN,
                date=datetime(2026, 3, 17, 7, 0, tzinfo=UTC),
                subject=subject,
                body=body,
                nil="000000",
            )
        )
        assert submission.send(sealed.content, sender=GATEWAY, recipient=PHYSICIAN).fate is Fate.DELIVERED
        return sealed

    return once


@pytest.fixture(scope="module")
def server(operator):
    return MailServer("127.0.0.1", operator.imap_port, operator.authorities, PASSWORD)


def test_the_same_bytes_sent_twice_are_one_message(server, send):
    sealed = send("copie", "Copie")
    send("copie", "Copie")
    letter = wait_for(server, PHYSICIAN, "Copie", within_s=60)
    assert letter.as_sent == sealed.content


@pytest.mark.parametrize(("key", "body"), [("autre-cle", "Bonjour,\n"), ("meme-cle", "Autre texte\n")])
def test_two_messages_or_two_contents_of_one_are_refused(server, send, key, body):
    subject = f"Deux fois, {key}"
    send("meme-cle", subject)
    send(key, subject, body)
    with pytest.raises(NotSeen, match=r"2 message\(s\)"):
        wait_for(server, PHYSICIAN, subject, within_s=60)


def test_a_mail_that_never_comes_is_said(server):
    with pytest.raises(NotSeen, match=r"0 message\(s\)"):
        wait_for(server, PHYSICIAN, "Jamais", within_s=0.1)
