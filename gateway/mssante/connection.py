"""One connection to the operator: opened, secured, authenticated, then one message after another.

Promises: each message has its own honest outcome, read from codes and from where the dialogue broke off; the server's
words, which may repeat what we sent, are not kept. No fallback to clear text. A connection about which there is any
doubt (a cut, a farewell, an answer out of turn) says so (`Connection.broken`) and is not used again.

Sources: [RFC 5321], [RFC 3207], [RFC 4954], [RFC 3461], [RFC 1870], [RFC 6152], [RFC 2034], spec mssante 1.3, 5.2, 5.7.
"""

from __future__ import annotations

import base64
import enum
import os
import re
import select
import smtplib
import socket
import ssl
import time
from dataclasses import dataclass, replace

from gateway.errors import GatewayError
from gateway.mssante.account import Account
from gateway.mssante.revocation import Untrusted

__all__ = ["Attempted", "Connection", "Fate", "Lapsed", "Stop", "Timeouts"]

_ENHANCED = re.compile(rb"\b([245]\.\d{1,3}\.\d{1,3})\b")
_QUEUED = re.compile(rb"queued(?: as|:)?\s+([A-Za-z0-9.-]{4,64})", re.IGNORECASE)
_CLOSING = 421


class Fate(enum.Enum):
    """What became of one attempt."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
    UNCERTAIN = "uncertain"


@dataclass(frozen=True)
class Attempted:
    """The end of one attempt.

    Attributes
    ----------
    code
        Stable, kebab-case: ``accepted``, ``smtp-550``, ``connect``, ``tls-certificate``, ``auth-535`` …
    status
        Enhanced status code of the answer, if one was given (``5.1.1``).
    queue_id
        The operator's own number of an accepted message.
    alarm
        A person must act: wrong certificate, refused authentication. Retrying alone will not help.
    dsn_requested
        Whether the operator was asked for delivery reports; without, success is never known. [spec mssante 5.2]
    at_recipient
        The address itself was refused (RCPT), not the sender nor the content.
    """

    fate: Fate
    code: str
    status: str | None = None
    queue_id: str | None = None
    alarm: bool = False
    dsn_requested: bool = False
    at_recipient: bool = False


@dataclass(frozen=True)
class Timeouts:
    """Seconds to wait; the answer to the final dot may take minutes. [RFC 5321 §4.5.3.2]."""

    connect_s: float = 30.0
    command_s: float = 60.0
    final_answer_s: float = 600.0


class Stop(Exception):
    """The dialogue about one message is over and its outcome known."""

    def __init__(self, attempted: Attempted) -> None:
        super().__init__(attempted.code)
        self.attempted = attempted


class Lapsed(Exception):
    """The operator had left a connection that served before: nothing of this message was taken, on no account."""


class Connection:
    """One connection, ready for a message.

    Raises
    ------
    Stop
        It could not be opened, secured or authenticated.

    Attributes
    ----------
    broken
        It must not be used for another message.
    messages
        How many messages were submitted through it.
    opened_at, used_at
        `time.monotonic` of its opening and, told by whoever keeps it, of its last message.
    process
        Whose it is: a fork has the same socket, and none of the right to speak.
    """

    def __init__(self, account: Account, timeouts: Timeouts, helo: str) -> None:
        self._account, self._timeouts, self._helo = account, timeouts, helo
        self.broken = False
        self.messages = 0
        self.process = os.getpid()
        self._left_open = False
        self._smtp = self._connect()
        self.opened_at = self.used_at = time.monotonic()

    @property
    def silent(self) -> bool:
        """Whether nothing was said to us since the last answer; a farewell or a cut is heard without asking."""
        sock = self._smtp.sock
        if sock is None or (isinstance(sock, ssl.SSLSocket) and sock.pending()):
            return False
        waiting = select.poll()
        waiting.register(sock, select.POLLIN | select.POLLHUP | select.POLLERR)
        return not waiting.poll(0)

    def send(self, content: bytes, *, sender: str, recipient: str, envelope_id: str | None) -> Attempted:
        """Submit one message.

        Raises
        ------
        Stop
            It ended before the final dot, or with an answer that nobody can read.
        Lapsed
            The connection had served before, and the operator left it.
        """
        smtp = self._smtp
        dsn = smtp.has_extn("dsn") and bool(envelope_id)
        self._check_fits(content)
        options = self._mail_options(content, envelope_id, dsn=dsn)
        served, self.messages = self.messages > 0, self.messages + 1
        try:
            if self._left_open:
                self._command("RSET")
            self._left_open = True
            self._command(f"MAIL FROM:<{sender}>{options}")
        except Stop as stop:
            if served and self.broken:
                raise Lapsed from stop
            raise
        notify = f" NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;{_xtext(recipient)}" if dsn else ""
        try:
            self._command(f"RCPT TO:<{recipient}>{notify}")
        except Stop as stop:
            raise Stop(replace(stop.attempted, at_recipient=stop.attempted.fate is Fate.REFUSED)) from stop
        self._command("DATA", expected=354)
        stuffed = (b"." if content.startswith(b".") else b"") + content.replace(b"\r\n.", b"\r\n..")
        try:
            if smtp.sock is not None:
                smtp.sock.settimeout(self._timeouts.final_answer_s)
            smtp.send(stuffed + (b".\r\n" if stuffed.endswith(b"\r\n") else b"\r\n.\r\n"))
        except (OSError, smtplib.SMTPException) as error:
            # What fails here has not written its last bytes, the final dot: the operator cannot have accepted.
            # [RFC 5321 §4.1.1.4]
            self.broken = True
            raise Stop(Attempted(Fate.UNAVAILABLE, "cut-in-data")) from error
        answer = self._final_answer(dsn=dsn)
        self._left_open = answer.fate is not Fate.DELIVERED
        return answer

    def leave(self) -> None:
        """Say good-bye and close; a fork closes only its copy, and says nothing."""
        smtp = self._smtp
        try:
            if smtp.sock is not None and self.process == os.getpid():
                smtp.sock.settimeout(2.0)  # the outcome is known already; a slow farewell must not hold the worker
                smtp.quit()
        except (OSError, smtplib.SMTPException):
            pass
        finally:
            smtp.close()

    def _final_answer(self, *, dsn: bool) -> Attempted:
        smtp = self._smtp
        try:
            code, text = smtp.getreply()
            if smtp.sock is not None:
                smtp.sock.settimeout(self._timeouts.command_s)
        except (OSError, smtplib.SMTPException) as error:
            self.broken = True
            raise Stop(Attempted(Fate.UNCERTAIN, "cut-after-final-dot")) from error
        if not (200 <= code <= 299 or 400 <= code <= 599):
            self.broken = True
            return Attempted(Fate.UNCERTAIN, "answer-unreadable")
        self.broken = code == _CLOSING
        answer = _judge(code, text)
        if answer.fate is not Fate.DELIVERED:
            return answer
        queued = _QUEUED.search(text)
        queue_id = queued[1].decode("ascii") if queued else None
        return Attempted(Fate.DELIVERED, "accepted", answer.status, queue_id, dsn_requested=dsn)

    def _check_fits(self, content: bytes) -> None:
        if not self._smtp.has_extn("size"):
            return
        limit = self._smtp.esmtp_features["size"].strip()
        if limit.isdigit() and 0 < int(limit) < len(content):
            raise Stop(Attempted(Fate.REFUSED, "larger-than-operator-limit", "5.3.4"))

    def _mail_options(self, content: bytes, envelope_id: str | None, *, dsn: bool) -> str:
        smtp = self._smtp
        options = [f"SIZE={len(content)}"] if smtp.has_extn("size") else []
        if smtp.has_extn("8bitmime"):
            options.append("BODY=7BIT" if content.isascii() else "BODY=8BITMIME")
        elif not content.isascii():
            raise Stop(Attempted(Fate.REFUSED, "eight-bit-not-offered"))
        if dsn and envelope_id is not None:
            options += ["RET=HDRS", f"ENVID={_xtext(envelope_id)}"]
        return "".join(f" {option}" for option in options)

    def _command(self, line: str, *, expected: int | None = None) -> None:
        try:
            code, text = self._smtp.docmd(line)
        except (OSError, smtplib.SMTPException) as error:
            self.broken = True
            raise Stop(Attempted(Fate.UNAVAILABLE, "cut")) from error
        if code == expected or (expected is None and 200 <= code <= 299):
            return
        if not 400 <= code <= 599:
            # Answers out of turn: which command is meant cannot be known, and no final dot was written.
            self.broken = True
            raise Stop(Attempted(Fate.UNAVAILABLE, "answer-out-of-turn"))
        answer = _judge(code, text)
        self.broken = code == _CLOSING or answer.alarm
        raise Stop(answer)

    def _connect(self) -> smtplib.SMTP:
        smtp: smtplib.SMTP | None = None
        try:
            context = self._account.context() if self._account.server.security != "plain" else None
            smtp = self._open(context)
            self._secure(smtp, context)
            self._authenticate(smtp)
        except (OSError, smtplib.SMTPException, GatewayError, Stop) as error:
            if smtp is not None:
                smtp.close()
            raise Stop(_not_connected(error)) from error
        return smtp

    def _open(self, context: ssl.SSLContext | None) -> smtplib.SMTP:
        server, wait_s = self._account.server, self._timeouts.connect_s
        if server.security == "tls":
            smtp: smtplib.SMTP = smtplib.SMTP_SSL(server.host, server.port, self._helo, timeout=wait_s, context=context)
        else:
            smtp = smtplib.SMTP(server.host, server.port, self._helo, timeout=wait_s)
        if smtp.sock is not None:
            # The end of a content is not to wait until its beginning is acknowledged.
            smtp.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return smtp

    def _secure(self, smtp: smtplib.SMTP, context: ssl.SSLContext | None) -> None:
        if smtp.sock is not None:
            smtp.sock.settimeout(self._timeouts.command_s)
        self._ehlo(smtp)
        if self._account.server.security == "starttls":
            if not smtp.has_extn("starttls"):
                raise Stop(Attempted(Fate.UNAVAILABLE, "starttls-not-offered", alarm=True))
            smtp.starttls(context=context)
            self._ehlo(smtp)

    def _ehlo(self, smtp: smtplib.SMTP) -> None:
        code, text = smtp.ehlo()
        if not 200 <= code <= 299:
            raise Stop(_unavailable(code, text))

    def _authenticate(self, smtp: smtplib.SMTP) -> None:
        server, account = self._account.server, self._account
        offered = frozenset(smtp.esmtp_features.get("auth", "").upper().split())
        if account.token is not None:
            proof = f"user={server.user or ''}\x01auth=Bearer {account.token()}\x01\x01"
            code, text = smtp.docmd("AUTH", "XOAUTH2 " + base64.b64encode(proof.encode()).decode("ascii"))
            if code == 334:
                code, text = smtp.docmd("")  # the challenge describes the failure; an empty line ends it
        elif server.user and server.password is not None:
            if not offered:
                raise Stop(Attempted(Fate.UNAVAILABLE, "auth-not-offered", alarm=True))
            code, text = self._prove_by_password(smtp, server.user, server.password, offered)
        elif account.has_client_certificate and "EXTERNAL" in offered:
            # smtplib would send nothing where RFC 4954 wants a lone "=".
            code, text = smtp.docmd("AUTH", "EXTERNAL =")
        else:
            return
        if not 200 <= code <= 299:
            status = _ENHANCED.search(text)
            raise Stop(
                Attempted(
                    Fate.UNAVAILABLE, f"auth-{code}", status[1].decode() if status else None, alarm=500 <= code <= 599
                )
            )

    @staticmethod
    def _prove_by_password(smtp: smtplib.SMTP, user: str, password: str, offered: frozenset[str]) -> tuple[int, bytes]:
        if "PLAIN" in offered:  # smtplib's own encodes ASCII only; RFC 4616 says UTF-8
            proof = base64.b64encode(f"\0{user}\0{password}".encode()).decode("ascii")
            return smtp.docmd("AUTH", f"PLAIN {proof}")
        try:
            return smtp.login(user, password)
        except smtplib.SMTPAuthenticationError as error:
            return error.smtp_code, b""
        except (smtplib.SMTPNotSupportedError, UnicodeEncodeError) as error:
            raise Stop(Attempted(Fate.UNAVAILABLE, "auth-not-offered", alarm=True)) from error


def _not_connected(error: Exception) -> Attempted:
    match error:
        case Stop():
            return error.attempted
        case Untrusted() | GatewayError():
            return Attempted(Fate.UNAVAILABLE, error.code, alarm=True)
        case ssl.SSLCertVerificationError():
            return Attempted(Fate.UNAVAILABLE, "tls-certificate", alarm=True)
        case ssl.SSLError():
            return Attempted(Fate.UNAVAILABLE, "tls", alarm=True)
        case socket.gaierror():
            return Attempted(Fate.UNAVAILABLE, "name-unknown")
        case _:
            return Attempted(Fate.UNAVAILABLE, "connect")


def _judge(code: int, text: bytes) -> Attempted:
    """Turn a reply code into an outcome. [RFC 5321 §4.2.1], spec mssante 5.7."""
    found = _ENHANCED.search(text)
    status = found[1].decode("ascii") if found else None
    if 200 <= code <= 299:
        return Attempted(Fate.DELIVERED, "accepted", status)
    if code in {530, 534, 535}:
        return Attempted(Fate.UNAVAILABLE, f"auth-{code}", status, alarm=True)
    if 500 <= code <= 599:
        return Attempted(Fate.REFUSED, f"smtp-{code}", status)
    return _unavailable(code, text)


def _unavailable(code: int, text: bytes) -> Attempted:
    found = _ENHANCED.search(text)
    return Attempted(Fate.UNAVAILABLE, f"smtp-{code}", found[1].decode("ascii") if found else None)


def _xtext(text: str) -> str:
    """Encode as xtext. [RFC 3461 §4]."""
    return "".join(c if "!" <= c <= "~" and c not in "+=" else f"+{ord(c):02X}" for c in text)
