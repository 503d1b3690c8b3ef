"""SMTP submission: one message, one recipient, one honest outcome.

Promises: what is sent is exactly the bytes given, dot-stuffed; the outcome says whether the operator has the message
(`Fate.DELIVERED`), will never take it (`REFUSED`), certainly has not (`UNAVAILABLE`), or may have (`UNCERTAIN`: the
connection was lost between the final dot and the answer). The outcome is read from codes; the server's words, which
may repeat what we sent, are not kept. No fallback to clear text, no retry: the outbox retries.

Sources: [RFC 5321], [RFC 3207], [RFC 4954], [RFC 3461], [RFC 1870], [RFC 6152], [RFC 2034], spec mssante 1.3, 5.2, 5.7.
"""

from __future__ import annotations

import base64
import enum
import re
import smtplib
import socket
import ssl
from dataclasses import dataclass, replace

from gateway.errors import GatewayError
from gateway.mssante.account import Account, tls_context
from gateway.mssante.envelope import check_address

__all__ = ["Attempted", "Fate", "Submission", "Timeouts"]

_ENHANCED = re.compile(rb"\b([245]\.\d{1,3}\.\d{1,3})\b")
_QUEUED = re.compile(rb"queued(?: as|:)?\s+([A-Za-z0-9.-]{4,64})", re.IGNORECASE)
_LINE_START_DOT = re.compile(rb"^\.", re.MULTILINE)
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)")
_LINE_MAX_BYTES = 998


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


class _Stop(Exception):
    """The dialogue is over and its outcome known."""

    def __init__(self, attempted: Attempted) -> None:
        super().__init__(attempted.code)
        self.attempted = attempted


class Submission:
    """The operator's submission service, for the gateway's mailbox.

    Parameters
    ----------
    account
        Server, TLS, proof of identity.
    helo
        Name given in EHLO; an address literal by default, so that this machine's name stays here.
    """

    def __init__(self, account: Account, *, timeouts: Timeouts | None = None, helo: str = "[127.0.0.1]") -> None:
        self._account = account
        self._timeouts = timeouts or Timeouts()
        self._helo = helo

    def send(self, content: bytes, *, sender: str, recipient: str, envelope_id: str | None = None) -> Attempted:
        """Submit one message.

        Parameters
        ----------
        content
            The whole message, CRLF line ends.
        sender, recipient
            Envelope addresses; reports come back to `sender`.
        envelope_id
            ENVID for the delivery reports.

        Raises
        ------
        InvalidContent
            ``mail-address``: an address that SMTP cannot carry; nothing was tried.
        """
        check_address(sender)
        check_address(recipient)
        if _BARE.search(content) or any(len(line) > _LINE_MAX_BYTES for line in content.split(b"\r\n")):
            # Bare line ends let one message smuggle another; our own envelope never makes them. [RFC 5321 §2.3.8]
            return Attempted(Fate.REFUSED, "line-ends")
        try:
            return self._dialogue(content, sender, recipient, envelope_id)
        except _Stop as stop:
            return stop.attempted

    def check(self) -> Attempted:
        """Connect, secure, authenticate, leave; for ``rcp-gateway check``."""
        try:
            smtp = self._connect()
        except _Stop as stop:
            return stop.attempted
        _quit(smtp)
        return Attempted(Fate.DELIVERED, "accepted")

    def _dialogue(self, content: bytes, sender: str, recipient: str, envelope_id: str | None) -> Attempted:
        smtp = self._connect()
        try:
            dsn = smtp.has_extn("dsn") and envelope_id is not None
            self._check_fits(smtp, content)
            self._command(smtp, f"MAIL FROM:<{sender}>{self._mail_options(smtp, content, envelope_id, dsn=dsn)}")
            notify = f" NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;{_xtext(recipient)}" if dsn else ""
            try:
                self._command(smtp, f"RCPT TO:<{recipient}>{notify}")
            except _Stop as stop:
                refused = replace(stop.attempted, at_recipient=stop.attempted.fate is Fate.REFUSED)
                raise _Stop(refused) from stop
            self._command(smtp, "DATA", expected=354)
            stuffed = _LINE_START_DOT.sub(b"..", content)
            try:
                smtp.send(stuffed if stuffed.endswith(b"\r\n") else stuffed + b"\r\n")
            except (OSError, smtplib.SMTPException) as error:
                # The final dot has not been written: the operator cannot have accepted. [RFC 5321 §4.1.1.4]
                raise _Stop(Attempted(Fate.UNAVAILABLE, "cut-in-data")) from error
            code, text = self._final_dot(smtp)
            if not (200 <= code <= 299 or 400 <= code <= 599):
                return Attempted(Fate.UNCERTAIN, "answer-unreadable")
            answer = _judge(code, text)
            if answer.fate is Fate.DELIVERED:
                queued = _QUEUED.search(text)
                queue_id = queued[1].decode("ascii") if queued else None
                answer = Attempted(Fate.DELIVERED, "accepted", answer.status, queue_id, dsn_requested=dsn)
            return answer
        finally:
            _quit(smtp)

    def _final_dot(self, smtp: smtplib.SMTP) -> tuple[int, bytes]:
        try:
            if smtp.sock is not None:
                smtp.sock.settimeout(self._timeouts.final_answer_s)
            smtp.send(b".\r\n")
            return smtp.getreply()
        except (OSError, smtplib.SMTPException) as error:
            raise _Stop(Attempted(Fate.UNCERTAIN, "cut-after-final-dot")) from error

    def _check_fits(self, smtp: smtplib.SMTP, content: bytes) -> None:
        if not smtp.has_extn("size"):
            return
        limit = smtp.esmtp_features["size"].strip()
        if limit.isdigit() and 0 < int(limit) < len(content):
            raise _Stop(Attempted(Fate.REFUSED, "larger-than-operator-limit", "5.3.4"))

    @staticmethod
    def _mail_options(smtp: smtplib.SMTP, content: bytes, envelope_id: str | None, *, dsn: bool) -> str:
        options = [f"SIZE={len(content)}"] if smtp.has_extn("size") else []
        if smtp.has_extn("8bitmime"):
            options.append("BODY=7BIT" if content.isascii() else "BODY=8BITMIME")
        elif not content.isascii():
            raise _Stop(Attempted(Fate.REFUSED, "eight-bit-not-offered"))
        if dsn and envelope_id is not None:
            options += ["RET=HDRS", f"ENVID={_xtext(envelope_id)}"]
        return "".join(f" {option}" for option in options)

    def _connect(self) -> smtplib.SMTP:
        smtp: smtplib.SMTP | None = None
        try:
            context = tls_context(self._account.tls)
            smtp = self._open(context)
            self._secure(smtp, context)
            self._authenticate(smtp)
        except (OSError, smtplib.SMTPException, GatewayError, _Stop) as error:
            if smtp is not None:
                smtp.close()
            raise _Stop(_not_connected(error)) from error
        return smtp

    def _open(self, context: ssl.SSLContext) -> smtplib.SMTP:
        server, wait_s = self._account.server, self._timeouts.connect_s
        if server.security == "tls":
            return smtplib.SMTP_SSL(server.host, server.port, self._helo, timeout=wait_s, context=context)
        return smtplib.SMTP(server.host, server.port, self._helo, timeout=wait_s)

    def _secure(self, smtp: smtplib.SMTP, context: ssl.SSLContext) -> None:
        if smtp.sock is not None:
            smtp.sock.settimeout(self._timeouts.command_s)
        self._ehlo(smtp)
        if self._account.server.security == "starttls":
            if not smtp.has_extn("starttls"):
                raise _Stop(Attempted(Fate.UNAVAILABLE, "starttls-not-offered", alarm=True))
            smtp.starttls(context=context)
            self._ehlo(smtp)

    def _ehlo(self, smtp: smtplib.SMTP) -> None:
        code, text = smtp.ehlo()
        if not 200 <= code <= 299:
            raise _Stop(_unavailable(code, text))

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
                raise _Stop(Attempted(Fate.UNAVAILABLE, "auth-not-offered", alarm=True))
            code, text = self._prove_by_password(smtp, server.user, server.password, offered)
        elif account.has_client_certificate and "EXTERNAL" in offered:
            # smtplib would send nothing where RFC 4954 wants a lone "=".
            code, text = smtp.docmd("AUTH", "EXTERNAL =")
        else:
            return
        if not 200 <= code <= 299:
            status = _ENHANCED.search(text)
            raise _Stop(
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
            raise _Stop(Attempted(Fate.UNAVAILABLE, "auth-not-offered", alarm=True)) from error

    def _command(self, smtp: smtplib.SMTP, line: str, *, expected: int | None = None) -> None:
        try:
            code, text = smtp.docmd(line)
        except (OSError, smtplib.SMTPException) as error:
            raise _Stop(Attempted(Fate.UNAVAILABLE, "cut")) from error
        if code != expected if expected else not 200 <= code <= 299:
            raise _Stop(_judge(code, text))


def _not_connected(error: Exception) -> Attempted:
    match error:
        case _Stop():
            return error.attempted
        case ssl.SSLCertVerificationError():
            return Attempted(Fate.UNAVAILABLE, "tls-certificate", alarm=True)
        case ssl.SSLError():
            return Attempted(Fate.UNAVAILABLE, "tls", alarm=True)
        case GatewayError():
            return Attempted(Fate.UNAVAILABLE, error.code, alarm=True)
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


def _quit(smtp: smtplib.SMTP) -> None:
    try:
        if smtp.sock is not None:
            smtp.sock.settimeout(2.0)  # the outcome is known already; a slow farewell must not hold the worker
            smtp.quit()
    except (OSError, smtplib.SMTPException):
        pass
    finally:
        smtp.close()
