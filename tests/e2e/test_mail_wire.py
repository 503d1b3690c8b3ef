"""Submission and reading against postfix and dovecot, and against a server that cuts where none should."""

from __future__ import annotations

import base64
import contextlib
import email
import email.policy
import hashlib
import os
import socket
import subprocess
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gateway.app.check import probe
from gateway.errors import Unavailable
from gateway.mssante.account import Account
from gateway.mssante.connection import Attempted, Fate, Timeouts
from gateway.mssante.envelope import Attachment, Mail, render
from gateway.mssante.mailbox import Fetched, Mailbox, Position
from gateway.mssante.outcome import delivery
from gateway.mssante.receipts import Kind, read
from gateway.mssante.revocation import RevocationLists
from gateway.mssante.submission import Keeping, Submission
from gateway.settings import MailServer, load
from gateway.transport import Tls
from tests.e2e import mail_servers as servers
from tests.e2e.mail_servers import mail_servers  # noqa: F401 (a fixture)
from tests.loopback import free_port, until

pytestmark = pytest.mark.usefixtures("nothing_names_anybody")

#: Enough for postfix on a busy machine.
PATIENCE = Timeouts(connect_s=60, command_s=60, final_answer_s=60)


def sealed(recipient=servers.PHYSICIAN, **more):
    return render(
        Mail(
            key=uuid.uuid4().hex,
            sender_address=servers.GATEWAY,
            sender_name="RCP Oncologie",
            recipient_address=recipient,
            recipient_name="Docteur Paul DURANT",
            date=datetime(2026, 11, 24, 7, 0, tzinfo=UTC),
            subject="Médecin – Notification préalable RCP",
            body="Bonjour,\n\n.\n..Œuvre – « été »\n",
            nil="000000",
            **more,
        )
    )


def account(where, security="starttls", *, password=servers.PASSWORD, user=servers.GATEWAY, tls=None, port=None):
    port = port or {"starttls": where.submission_port, "tls": where.submissions_port}[security]
    server = MailServer("127.0.0.1", port, security, user, password)
    return Account(server, tls or Tls(authorities=where.authority.file))


def send(where, mail, recipient=servers.PHYSICIAN, **more):
    return Submission(account(where, **more), timeouts=PATIENCE).send(
        mail.content, sender=servers.GATEWAY, recipient=recipient, envelope_id=mail.envelope_id
    )


def imap(where, user=servers.GATEWAY, *, security="tls", **more):
    port = where.imaps_port if security == "tls" else where.imap_port
    server = MailServer("127.0.0.1", port, security, user, more.pop("password", servers.PASSWORD))
    return Mailbox(Account(server, more.pop("tls", None) or Tls(authorities=where.authority.file)), **more)


class Keeper:
    """Keeps in memory what a mailbox hands over."""

    def __init__(self, *, failing=()):
        self.kept: list[Fetched] = []
        self.at: Position | None = None
        self.failing = set(failing)

    def position(self):
        return self.at

    def keep(self, message):
        if message.uid in self.failing:
            self.failing.discard(message.uid)
            raise Unavailable("database", "Base indisponible.")
        self.kept.append(message)
        self.at = Position(message.uid_validity, message.uid)


def about(mail):
    return lambda content: mail.message_id.encode() in content


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_mail_arrives_as_it_was_rendered_and_its_report_comes_back(mail_servers, security):  # noqa: F811
    mail = sealed(read_receipt=True)
    attempted = send(mail_servers, mail, security=security)
    assert (attempted.fate, attempted.code, attempted.dsn_requested) == (Fate.DELIVERED, "accepted", True)
    assert attempted.queue_id
    [arrived] = mail_servers.wait_inbox(servers.PHYSICIAN, about(mail))
    assert arrived.endswith(mail.content)
    subject = email.message_from_bytes(arrived, policy=email.policy.default)["subject"]
    assert subject == "Médecin – Notification préalable RCP"
    [report] = mail_servers.wait_inbox(servers.GATEWAY, about(mail))
    found = read(report)
    assert found.kind is Kind.DELIVERY_REPORT
    [receipt] = found.receipts
    assert (receipt.state, receipt.status[0], receipt.recipient) == ("delivered", "2", servers.PHYSICIAN)
    assert (receipt.message_id, receipt.envelope_id) == (mail.message_id, mail.envelope_id)


def test_a_client_certificate_opens_the_applicative_box(mail_servers):  # noqa: F811
    certificate, key = mail_servers.authority.issue("bal-app.example", client=True)
    tls = Tls(certificate, key, mail_servers.authority.file)
    mail = sealed()
    assert send(mail_servers, mail, user=None, password=None, tls=tls).fate is Fate.DELIVERED
    assert len(mail_servers.wait_inbox(servers.PHYSICIAN, about(mail))) == 1
    without = send(mail_servers, sealed(), user=None, password=None)
    assert without.fate is Fate.REFUSED


@pytest.mark.parametrize(
    ("recipient", "fate", "code", "status"),
    [
        (servers.CLOSED, Fate.REFUSED, "smtp-550", "5.2.1"),
        ("lente@medecin.mssante.example", Fate.UNAVAILABLE, "smtp-451", "4.7.1"),
    ],
)
def test_a_refusal_is_permanent_or_not_by_its_code(mail_servers, recipient, fate, code, status):  # noqa: F811
    attempted = send(mail_servers, sealed(recipient), recipient)
    assert (attempted.fate, attempted.code, attempted.status) == (fate, code, status)


def test_a_failure_after_acceptance_comes_back_as_a_report(mail_servers):  # noqa: F811
    mail = sealed(servers.GONE)
    assert send(mail_servers, mail, servers.GONE).fate is Fate.DELIVERED
    [report] = mail_servers.wait_inbox(servers.GATEWAY, about(mail))
    [receipt] = read(report).receipts
    assert (receipt.state, receipt.status, receipt.message_id) == ("failed", "5.1.1", mail.message_id)


def test_a_server_that_is_not_the_operator_is_not_spoken_to(mail_servers, tmp_path):  # noqa: F811
    other = servers.Authority(tmp_path / "ca", "Autre AC")
    for security in ("starttls", "tls"):
        attempted = send(mail_servers, sealed(), security=security, tls=Tls(authorities=other.file))
        assert (attempted.fate, attempted.code, attempted.alarm) == (Fate.UNAVAILABLE, "tls-certificate", True)
    with pytest.raises(Unavailable):
        imap(mail_servers, tls=Tls(authorities=other.file)).check()


def test_a_certificate_of_another_name_is_refused(mail_servers):  # noqa: F811
    here = account(mail_servers)
    named = replace(here, server=replace(here.server, host="localhost"))
    attempted = Submission(named, timeouts=PATIENCE).check()
    assert (attempted.fate, attempted.code) == (Fate.UNAVAILABLE, "tls-certificate")


def server_certificate(where):
    return where.directory / "ca" / "mx.operateur.example-server-2.pem"


def public_key(where):
    """The pin of the servers' key, by the command line that documents of pinning give."""
    read = ["openssl", "x509", "-pubkey", "-noout", "-in", str(server_certificate(where))]
    key = subprocess.run(read, capture_output=True, check=True).stdout
    write = ["openssl", "pkey", "-pubin", "-outform", "der"]
    bare = subprocess.run(write, input=key, capture_output=True, check=True)
    return base64.b64encode(hashlib.sha256(bare.stdout).digest()).decode()


def both(where, **trust):
    """What submission and reading say of the servers, over STARTTLS and TLS."""
    told = set()
    for security in ("starttls", "tls"):
        attempted = Submission(replace(account(where, security), **trust), timeouts=PATIENCE).check()
        port = where.imaps_port if security == "tls" else where.imap_port
        server = MailServer("127.0.0.1", port, security, servers.GATEWAY, servers.PASSWORD)
        try:
            Mailbox(Account(server, Tls(authorities=where.authority.file), **trust)).check()
            read = True
        except Unavailable:
            read = False
        told.add((attempted.code, attempted.alarm, read))
    [one] = told
    return one


def test_a_revoked_certificate_is_not_spoken_to(mail_servers, tmp_path):  # noqa: F811
    ca, file = mail_servers.authority, tmp_path / "liste.crl"
    lists = RevocationLists(file, ca.file, tmp_path / "kept.pem")
    other, _ = ca.issue("autre.example")
    file.write_bytes(ca.revoke(other, der=True))
    assert both(mail_servers, revoked=lists) == ("accepted", False, True)
    file.write_bytes(ca.revoke(other, server_certificate(mail_servers)))
    assert both(mail_servers, revoked=lists) == ("tls-revoked", True, False)


def test_a_certificate_that_no_list_covers_is_not_spoken_to(mail_servers, tmp_path):  # noqa: F811
    file = tmp_path / "liste.crl"
    lists = RevocationLists(file, mail_servers.authority.file, tmp_path / "kept.pem")
    assert both(mail_servers, revoked=lists) == ("tls-crl-missing", True, False)
    # An authority of the same name with a key of its own: its list is not theirs.
    file.write_bytes(servers.Authority(tmp_path / "ca").revoke(server_certificate(mail_servers)))
    assert both(mail_servers, revoked=lists) == ("tls-crl-missing", True, False)


def test_another_key_of_the_same_authority_is_not_spoken_to(mail_servers):  # noqa: F811
    right, wrong = public_key(mail_servers), base64.b64encode(bytes(32)).decode()
    assert both(mail_servers, pins=(wrong,)) == ("tls-pin", True, False)
    assert both(mail_servers, pins=(wrong, right)) == ("accepted", False, True)


def test_a_wrong_password_alarms_and_sends_nothing(mail_servers):  # noqa: F811
    attempted = send(mail_servers, sealed(), password="faux-é")
    assert (attempted.fate, attempted.code, attempted.alarm) == (Fate.UNAVAILABLE, "auth-535", True)
    with pytest.raises(Unavailable) as refused:
        imap(mail_servers, password="faux-é").check()
    assert refused.value.code == "mailbox-login"
    Submission(account(mail_servers), timeouts=PATIENCE).check()


def test_check_speaks_to_the_servers_as_the_worker_does(mail_servers, tmp_path):  # noqa: F811
    revoked = tmp_path / "liste.crl"
    revoked.write_bytes(mail_servers.authority.revoke())
    texts = tmp_path / "textes"
    texts.mkdir()

    def told(**more):
        environment = {
            "RCP_DATA_DIR": str(tmp_path),
            "RCP_MSSANTE_SMTP_URL": mail_servers.smtp_url(),
            "RCP_MSSANTE_IMAP_URL": mail_servers.imap_url(),
            "RCP_MSSANTE_ADDRESS": servers.GATEWAY,
            "RCP_MSSANTE_TLS_CA": str(mail_servers.authority.file),
            "RCP_MSSANTE_TLS_CRL": str(revoked),
            "RCP_MESSAGES_DIR": str(texts),
        }
        return dict(probe(load(environment | more), only={"smtp", "imap", "révocation", "messages"}))

    assert told() == dict.fromkeys(("messages", "smtp", "imap", "révocation"))
    wrong = told(RCP_MSSANTE_SMTP_URL=mail_servers.smtp_url(password="faux"))
    assert wrong["smtp"] == "Authentification refusée par l’opérateur."
    assert wrong["imap"] is None
    (texts / "M1.txt").write_text("Objet : {{x}}\nContient : rien\n\nBonjour\n", encoding="utf-8")
    revoked.write_bytes(mail_servers.authority.revoke(server_certificate(mail_servers)))
    refused = told()
    assert refused["smtp"] == "Le certificat de l’opérateur est révoqué."
    assert refused["imap"] is not None
    assert "variable inconnue « x »" in refused["messages"]
    revoked.write_bytes(b"")
    assert "dernière valable" in told()["révocation"]


def test_the_operator_s_size_is_asked_before_sending(mail_servers):  # noqa: F811
    content = b"PK" + b"\x00" * 2_600_000
    mail = replace_document(content)
    attempted = send(mail_servers, mail)
    assert (attempted.fate, attempted.code) == (Fate.REFUSED, "larger-than-operator-limit")


def replace_document(content):
    return render(
        Mail(
            key=uuid.uuid4().hex,
            sender_address=servers.GATEWAY,
            recipient_address=servers.PHYSICIAN,
            date=datetime(2026, 11, 24, 7, 0, tzinfo=UTC),
            subject="XDM/1.0/DDM+Compte rendu",
            body="x\n",
            nil="000000",
            attachments=(Attachment("IHE_XDM.zip", "application/zip", content),),
            cda_codes=("34794-8",),
            ins_qualified=True,
        )
    )


def test_bare_line_ends_and_long_lines_never_leave(mail_servers):  # noqa: F811
    submission = Submission(account(mail_servers), timeouts=PATIENCE)
    for content in (b"Subject: a\n\nb\r\n", b"Subject: a\r\n\r\nb\rc\r\n", b"X: " + b"a" * 999 + b"\r\n\r\n"):
        attempted = submission.send(content, sender=servers.GATEWAY, recipient=servers.PHYSICIAN)
        assert (attempted.fate, attempted.code) == (Fate.REFUSED, "line-ends")


def test_nobody_listens(mail_servers):  # noqa: F811
    attempted = send(mail_servers, sealed(), port=free_port())
    assert (attempted.fate, attempted.code) == (Fate.UNAVAILABLE, "connect")


class Script(threading.Thread):
    """A server that answers by a script, line by line, and hangs up when the script says so."""

    def __init__(self, *, features=(), at_dot=b"250 2.0.0 queued as ABCD1234\r\n", cut_in_data=False):
        super().__init__(daemon=True)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.features, self.at_dot, self.cut_in_data = features, at_dot, cut_in_data
        self.data, self.lines = b"", []
        self.start()

    def run(self):
        connection, _ = self.listening.accept()
        self.listening.close()
        with connection:
            connection.sendall(b"220 fictif ESMTP\r\n")
            stream = connection.makefile("rb")
            for line in stream:
                verb = line[:4].upper()
                self.lines.append(line)
                if verb == b"EHLO":
                    lines = [b"fictif", *self.features]
                    connection.sendall(
                        b"".join(b"250-" + one + b"\r\n" for one in lines[:-1]) + b"250 " + lines[-1] + b"\r\n"
                    )
                elif verb == b"DATA":
                    connection.sendall(b"354 go\r\n")
                    if self.cut_in_data:
                        return
                    while not self.data.endswith(b"\r\n.\r\n"):
                        self.data += stream.readline()
                    if not self.at_dot:
                        return
                    connection.sendall(self.at_dot)
                elif verb == b"QUIT":
                    connection.sendall(b"221 bye\r\n")
                    return
                elif verb == b"AUTH":
                    connection.sendall(b"235 2.7.0 ok\r\n")
                else:
                    connection.sendall(b"250 ok\r\n")


def say(script, mail, timeouts=PATIENCE):
    plain = Account(MailServer("127.0.0.1", script.port, "plain"))
    with contextlib.closing(Submission(plain, timeouts=timeouts)) as submission:
        return through(submission, mail)


@pytest.mark.parametrize(
    ("at_dot", "fate", "code"),
    [
        (b"250 2.0.0 queued as ABCD1234\r\n", Fate.DELIVERED, "accepted"),
        (b"", Fate.UNCERTAIN, "cut-after-final-dot"),
        (b"25", Fate.UNCERTAIN, "cut-after-final-dot"),
        (b"blah\r\n", Fate.UNCERTAIN, "answer-unreadable"),
        (b"451 4.3.0 later\r\n", Fate.UNAVAILABLE, "smtp-451"),
        (b"554 5.7.1 spam: PAT-TROIS\r\n", Fate.REFUSED, "smtp-554"),
    ],
)
def test_after_the_final_dot_only_an_answer_is_certain(at_dot, fate, code):
    script, mail = Script(at_dot=at_dot), sealed()
    half = at_dot and not at_dot.endswith(b"\n")  # and nothing more
    attempted = say(script, mail, Timeouts(connect_s=60, command_s=60, final_answer_s=0.5) if half else PATIENCE)
    assert (attempted.fate, attempted.code) == (fate, code)
    assert "PAT-TROIS" not in repr(attempted)
    script.join(60)
    stuffed = script.data.removesuffix(b".\r\n")
    assert stuffed.replace(b"\r\n..", b"\r\n.") == mail.content


def test_a_cut_before_the_final_dot_is_certainly_nothing():
    script = Script(cut_in_data=True)
    big = render(
        Mail(
            key="k",
            sender_address=servers.GATEWAY,
            recipient_address=servers.PHYSICIAN,
            date=datetime(2026, 11, 24, 7, 0, tzinfo=UTC),
            subject="XDM/1.0/DDM+x",
            body="x\n",
            nil="0",
            attachments=(Attachment("IHE_XDM.zip", "application/zip", b"\x00" * 6_000_000),),
            cda_codes=("34794-8",),
            ins_qualified=True,
        )
    )
    attempted = say(script, big)
    assert (attempted.fate, attempted.code) == (Fate.UNAVAILABLE, "cut-in-data")


def test_starttls_that_somebody_stripped_is_not_done_without():
    script = Script(features=(b"AUTH PLAIN",))
    server = MailServer("127.0.0.1", script.port, "starttls", "u", "secret")
    attempted = Submission(Account(server), timeouts=PATIENCE).check()
    assert (attempted.fate, attempted.code, attempted.alarm) == (Fate.UNAVAILABLE, "starttls-not-offered", True)


def test_clear_text_exists_only_on_the_machine_itself():
    with pytest.raises(Unavailable):
        Account(MailServer("mail.example", 25, "plain"))


def test_eight_bit_content_needs_an_operator_that_carries_it():
    content = "Subject: a\r\n\r\né\r\n".encode()
    for features, fate in (((), Fate.REFUSED), ((b"8BITMIME",), Fate.DELIVERED)):
        script = Script(features=features)
        plain = Account(MailServer("127.0.0.1", script.port, "plain"))
        attempted = Submission(plain, timeouts=PATIENCE).send(
            content, sender=servers.GATEWAY, recipient=servers.PHYSICIAN
        )
        assert attempted.fate is fate


class Counter(threading.Thread):
    """A server for many connections; `answer(connection, message, verb)` gives a line, None to hang up, or ''."""

    def __init__(self, answer=lambda _connection, _message, _verb: ""):
        super().__init__(daemon=True)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.answer, self.connections, self.taken, self.verbs = answer, 0, [], []
        self.gone = threading.Condition()
        self.start()

    def run(self):
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.serve, args=(connection, self.connections), daemon=True).start()

    def serve(self, connection, number):
        usual = {b"DATA": b"354 go", b"QUIT": b"221 bye"}
        message = 0
        with connection, connection.makefile("rb") as stream:
            connection.sendall(b"220 fictif ESMTP\r\n")
            for line in stream:
                verb = line[:4].strip().upper()
                self.verbs.append((number, verb))
                message += verb == b"MAIL"
                said = self.answer(number, message, verb)
                if said is None:
                    return
                connection.sendall((said or usual.get(verb, b"250 ok")) + b"\r\n")
                if verb == b"QUIT":
                    return
                if verb == b"DATA" and not said:
                    data = b""
                    while not data.endswith(b"\r\n.\r\n"):
                        data += stream.readline()
                    self.taken.append((number, data.removesuffix(b".\r\n")))
                    said = self.answer(number, message, b".")
                    if said is None:
                        return
                    connection.sendall((said or b"250 2.0.0 queued as ABCD1234") + b"\r\n")

    def count(self, verb):
        return sum(1 for _, said in self.verbs if said == verb)

    def submission(self, **keeping):
        plain = Account(MailServer("127.0.0.1", self.port, "plain"))
        return Submission(plain, timeouts=PATIENCE, keeping=Keeping(**keeping) if keeping else None)


def through(submission, mail):
    return submission.send(
        mail.content, sender=servers.GATEWAY, recipient=servers.PHYSICIAN, envelope_id=mail.envelope_id
    )


def contents(server):
    return [data.replace(b"\r\n..", b"\r\n.") for _, data in server.taken]


def test_one_connection_carries_many_messages(mail_servers):  # noqa: F811
    log = mail_servers.directory / "postfix" / "log"

    def said():
        return log.read_text(encoding="utf-8", errors="replace")

    def connected():
        return sum("/smtpd[" in line and ": connect from" in line for line in said().splitlines())

    marker = sealed()
    assert send(mail_servers, marker).fate is Fate.DELIVERED
    until(lambda: marker.message_id in said())  # the log is written in order: what was said before it is there too
    submission, before = Submission(account(mail_servers), timeouts=PATIENCE), connected()
    mails = [sealed(), sealed(servers.CLOSED), sealed(), sealed(servers.GONE), sealed()]
    recipients = [servers.PHYSICIAN, servers.CLOSED, servers.PHYSICIAN, servers.GONE, servers.PHYSICIAN]
    fates = [
        submission.send(mail.content, sender=servers.GATEWAY, recipient=to, envelope_id=mail.envelope_id).fate
        for mail, to in zip(mails, recipients, strict=True)
    ]
    assert fates == [Fate.DELIVERED, Fate.REFUSED, Fate.DELIVERED, Fate.DELIVERED, Fate.DELIVERED]
    for mail in (mails[0], mails[2], mails[4]):
        [arrived] = mail_servers.wait_inbox(servers.PHYSICIAN, about(mail))
        assert arrived.endswith(mail.content)
    until(lambda: connected() == before + 1)
    submission.close()
    assert submission.check().fate is Fate.DELIVERED


@pytest.mark.parametrize("how", ["hangs-up", "says-421"])
def test_a_connection_that_lapsed_is_replaced_before_anything_was_taken(how):
    def answer(connection, message, verb):
        if connection == 1 and message == 2 and verb == b"MAIL":
            return None if how == "hangs-up" else b"421 4.4.2 idle too long"
        return ""

    server, mails = Counter(answer), [sealed() for _ in range(3)]
    submission = server.submission()
    assert [through(submission, mail).code for mail in mails] == ["accepted"] * 3
    assert contents(server) == [mail.content for mail in mails]
    assert [number for number, _ in server.taken] == [1, 2, 2]


def test_a_connection_closed_while_idle_is_seen_without_a_word():
    server = Counter(lambda connection, _message, verb: None if connection == 1 and verb == b"NOOP" else "")
    submission = server.submission()
    first, second = sealed(), sealed()
    assert through(submission, first).code == "accepted"
    [kept] = submission._idle
    kept._smtp.sock.sendall(b"NOOP\r\n")  # makes the server hang up
    until(lambda: not kept.silent)
    assert through(submission, second).code == "accepted"
    assert contents(server) == [first.content, second.content]
    assert (server.connections, server.count(b"MAIL")) == (2, 2)


@pytest.mark.parametrize(
    ("verb", "said", "fate", "code", "opened"),
    [
        (b"RCPT", None, Fate.UNAVAILABLE, "cut", 1),
        (b"RCPT", b"421 4.3.2 shutting down", Fate.UNAVAILABLE, "smtp-421", 1),
        (b"DATA", None, Fate.UNAVAILABLE, "cut", 1),
        (b"DATA", b"250 what", Fate.UNAVAILABLE, "answer-out-of-turn", 1),
        (b".", None, Fate.UNCERTAIN, "cut-after-final-dot", 1),
        (b".", b"421 4.3.2 shutting down", Fate.UNAVAILABLE, "smtp-421", 1),
        (b".", b"554 5.7.1 no", Fate.REFUSED, "smtp-554", 0),
        (b"MAIL", b"451 4.3.0 later", Fate.UNAVAILABLE, "smtp-451", 0),
    ],
)
def test_a_cut_on_a_kept_connection_is_told_as_on_a_new_one(verb, said, fate, code, opened):
    def answer(connection, message, now):
        return said if (connection, message, now) == (1, 2, verb) else ""

    server = Counter(answer)
    submission = server.submission()
    assert through(submission, sealed()).code == "accepted"
    attempted = through(submission, sealed())
    assert (attempted.fate, attempted.code) == (fate, code)
    assert server.count(b"MAIL") == 2, "nothing was tried twice"
    last = sealed()
    assert through(submission, last).code == "accepted"
    assert contents(server)[-1] == last.content
    assert server.connections == 1 + opened
    assert server.count(b"RSET") == 1 - opened


def test_a_new_connection_that_is_told_421_is_not_opened_again():
    server = Counter(lambda _connection, _message, verb: b"421 4.3.2 too busy" if verb == b"MAIL" else "")
    attempted = through(server.submission(), sealed())
    assert (attempted.fate, attempted.code, server.connections) == (Fate.UNAVAILABLE, "smtp-421", 1)


def test_a_connection_serves_no_longer_than_it_may():
    server = Counter()
    submission = server.submission(messages=2)
    for _ in range(5):
        assert through(submission, sealed()).code == "accepted"
    assert [number for number, _ in server.taken] == [1, 1, 2, 2, 3]
    idle = Counter()
    assert through(idle.submission(idle_s=0.05), sealed()).code == "accepted"
    until(lambda: idle.count(b"QUIT") == 1)


def test_threads_send_at_once_each_through_a_connection_of_its_own():
    server = Counter()
    submission = server.submission()
    mails = [sealed() for _ in range(24)]
    with ThreadPoolExecutor(4) as threads:
        codes = list(threads.map(lambda mail: through(submission, mail).code, mails))
    assert codes == ["accepted"] * 24
    assert sorted(contents(server)) == sorted(mail.content for mail in mails)
    assert server.connections <= 4


def test_a_fork_says_nothing_through_its_parent_s_connection():
    server = Counter()
    submission = server.submission()
    assert through(submission, sealed()).code == "accepted"
    child = os.fork()
    if not child:
        os._exit(0 if through(submission, sealed()).code == "accepted" else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert through(submission, sealed()).code == "accepted"
    assert [number for number, _ in server.taken] == [1, 2, 1]


def test_reading_takes_each_mail_once_and_marks_it_after_it_was_kept(mail_servers):  # noqa: F811
    first, second = sealed(servers.REQUESTER), sealed(servers.REQUESTER)
    for mail in (first, second):
        send(mail_servers, mail, servers.REQUESTER)
        assert mail_servers.wait_inbox(servers.REQUESTER, about(mail))
    keeper = Keeper()
    for security in ("tls", "starttls"):
        imap(mail_servers, servers.REQUESTER, security=security).read(keeper)
    contents = [one.content for one in keeper.kept]
    assert sum(map(about(first), contents)) == 1
    assert sum(map(about(second), contents)) == 1
    assert all(one.whole and one.size_bytes == len(one.content) for one in keeper.kept)
    assert imap(mail_servers, servers.REQUESTER).read(keeper) == 0
    assert len({one.key for one in keeper.kept}) == len(keeper.kept)


def unseen(mail_servers, user):  # noqa: F811
    import imaplib
    import ssl

    context = ssl.create_default_context(cafile=str(mail_servers.authority.file))
    with imaplib.IMAP4_SSL("127.0.0.1", mail_servers.imaps_port, ssl_context=context) as box:
        box.login(user, servers.PASSWORD)
        box.select("INBOX", readonly=True)
        return [int(number) for number in box.uid("SEARCH", "UNSEEN")[1][0].split()]


def test_what_could_not_be_kept_stays_unread_and_comes_again(mail_servers):  # noqa: F811
    drained = Keeper()
    imap(mail_servers, servers.REQUESTER).read(drained)
    mail = sealed(servers.REQUESTER)
    send(mail_servers, mail, servers.REQUESTER)
    assert mail_servers.wait_inbox(servers.REQUESTER, about(mail))
    [uid] = unseen(mail_servers, servers.REQUESTER)
    drained.failing = {uid}
    with pytest.raises(Unavailable):
        imap(mail_servers, servers.REQUESTER).read(drained)
    assert unseen(mail_servers, servers.REQUESTER) == [uid]
    assert imap(mail_servers, servers.REQUESTER).read(drained) == 1
    assert unseen(mail_servers, servers.REQUESTER) == []
    assert about(mail)(drained.kept[-1].content)


def test_a_mail_above_the_limit_is_handed_over_as_its_header(mail_servers):  # noqa: F811
    keeper = Keeper()
    imap(mail_servers, servers.REQUESTER).read(keeper)
    mail = sealed(servers.REQUESTER)
    send(mail_servers, mail, servers.REQUESTER)
    assert mail_servers.wait_inbox(servers.REQUESTER, about(mail))
    keeper.kept.clear()
    imap(mail_servers, servers.REQUESTER, max_bytes=500).read(keeper)
    [found] = keeper.kept
    assert found.whole is False
    assert about(mail)(found.content)
    assert b"Bonjour" not in found.content


@pytest.mark.parametrize("idle", [True, False])
def test_news_are_taken_as_they_come_and_after_a_failure(mail_servers, idle):  # noqa: F811
    keeper, stop = Keeper(failing={-1}), threading.Event()
    box = imap(mail_servers, servers.REQUESTER, idle=idle, poll_s=60 if idle else 0.2)
    thread = threading.Thread(target=box.watch, args=(keeper, stop), kwargs={"first_pause_s": 0.1})
    thread.start()
    try:
        mail = sealed(servers.REQUESTER)
        send(mail_servers, mail, servers.REQUESTER)
        until(lambda: any(map(about(mail), [one.content for one in keeper.kept])))
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()


def test_what_comes_while_a_message_is_being_taken_does_not_wait_for_the_next_look(mail_servers):  # noqa: F811
    first, second, stop = sealed(servers.REQUESTER), sealed(servers.REQUESTER), threading.Event()

    class Busy(Keeper):
        def keep(self, message):
            if about(first)(message.content):
                send(mail_servers, second, servers.REQUESTER)
                assert mail_servers.wait_inbox(servers.REQUESTER, about(second))
            super().keep(message)

    keeper = Busy()
    imap(mail_servers, servers.REQUESTER).read(keeper)
    send(mail_servers, first, servers.REQUESTER)
    thread = threading.Thread(target=imap(mail_servers, servers.REQUESTER, poll_s=600).watch, args=(keeper, stop))
    thread.start()
    try:
        until(lambda: any(map(about(second), [one.content for one in keeper.kept])))  # the next look is far away
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()


def test_a_mailbox_that_does_not_answer_is_unavailable():
    server = MailServer("127.0.0.1", free_port(), "tls", "u", "p")
    with pytest.raises(Unavailable) as refused:
        Mailbox(Account(server)).read(Keeper())
    assert refused.value.code == "mailbox"


def test_a_token_replaces_the_password_and_is_fetched_for_each_connection():
    tokens = iter(["jeton-1", "jeton-2"])
    for expected in ("jeton-1", "jeton-2"):
        script, mail = Script(features=(b"AUTH XOAUTH2",)), sealed()
        server = MailServer("127.0.0.1", script.port, "plain", "bal@x.example")
        attempted = Submission(Account(server, token=lambda: next(tokens)), timeouts=PATIENCE).send(
            mail.content, sender=servers.GATEWAY, recipient=servers.PHYSICIAN
        )
        assert attempted.fate is Fate.DELIVERED
        proof = next(line for line in script.lines if line.startswith(b"AUTH XOAUTH2 ")).split()[2]
        assert base64.b64decode(proof) == b"user=bal@x.example\x01auth=Bearer " + expected.encode() + b"\x01\x01"


def test_no_token_is_unavailable_not_a_refusal():
    def none():
        raise Unavailable("mail-token", "Aucun jeton.")

    script = Script()
    account_without = Account(MailServer("127.0.0.1", script.port, "plain", "u"), token=none)
    attempted = Submission(account_without, timeouts=PATIENCE).check()
    assert (attempted.fate, attempted.code, attempted.alarm) == (Fate.UNAVAILABLE, "mail-token", True)


def test_every_outcome_has_words_without_the_server_s():
    for fate in Fate:
        for code in ("accepted", "connect", "auth-535", "smtp-550", "jamais-vu"):
            told = delivery(Attempted(fate, code, "5.1.1", alarm=code.startswith("auth")))
            assert told.outcome.value == fate.value
            assert told.reason
            assert told.code == f"{code} 5.1.1"
            assert (told.retry_after_s is not None) == code.startswith("auth")
