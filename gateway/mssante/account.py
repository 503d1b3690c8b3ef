"""How the gateway's mailbox is reached: TLS and authentication, the same for submission and reading.

Promises: nothing is said in clear but on the loopback of a trial; a server without STARTTLS, with a certificate of
another authority or another name is not spoken to; the authorities given are the only ones trusted (IGC-Santé is in no
public store); a revoked certificate, or a key that is not the one pinned, ends the connection before a word is said
through it. Keeps no token beyond a connection. [spec mssante 1.3, 1.4]
"""

from __future__ import annotations

import base64
import hashlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.errors import Unavailable
from gateway.mssante.revocation import RevocationLists, Untrusted
from gateway.settings import Mail, MailServer
from gateway.transport import Tls

__all__ = ["Account", "account_for", "client_credentials"]

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_TOKEN_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Account:
    """One server, and how the gateway proves who it is there.

    Parameters
    ----------
    token
        Gives an access token at each connection; when present, XOAUTH2 replaces the password. [ECO.1.2.1]
    pins
        Base64 SHA-256 of the public keys that the server may have; empty for any that the authorities vouch for.
    revoked
        Lists of what the authorities took back.
    """

    server: MailServer
    tls: Tls = field(default_factory=Tls)
    token: Callable[[], str] | None = field(default=None, repr=False)
    pins: tuple[str, ...] = ()
    revoked: RevocationLists | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.server.security == "plain" and self.server.host not in _LOOPBACK:
            raise Unavailable("mail-clear-text", "La messagerie sans TLS n’existe que sur la machine elle-même.")

    @property
    def has_client_certificate(self) -> bool:
        """Whether a client certificate is presented (BAL APP)."""
        return self.tls.certificate is not None

    def context(self) -> ssl.SSLContext:
        """Return the context of a client: TLS 1.2 or later, name, chain, revocation and key checked."""
        context = _tls_context(self.tls)
        if self.pins or self.revoked is not None:
            judge = self._judge

            class Judged(ssl.SSLSocket):
                """The module has no hook for what it does not verify itself: whoever shakes hands is looked at."""

                def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the module's signature
                    super().do_handshake(block)
                    judge(self.getpeercert(binary_form=True) or b"")

            context.sslsocket_class = Judged
        return context

    def _judge(self, certificate: bytes) -> None:
        if self.revoked is not None:
            self.revoked.require(certificate)
        if self.pins and _pin(certificate) not in self.pins:
            raise Untrusted("tls-pin")


def account_for(mail: Mail, server: MailServer, revoked: RevocationLists | None = None) -> Account:
    """Return the account of the gateway's mailbox on one of its two servers."""
    token = None
    if mail.oauth_token_url and mail.oauth_client_id:
        token = client_credentials(mail.oauth_token_url, mail.oauth_client_id, mail.oauth_client_secret or "")
    return Account(server, mail.tls, token, mail.pins, revoked)


def _pin(certificate: bytes) -> str:
    key = x509.load_der_x509_certificate(certificate).public_key()
    info = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(info).digest()).decode("ascii")


def _tls_context(tls: Tls) -> ssl.SSLContext:
    """Only the given authorities are trusted, if any is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.authorities is not None:
        context.load_verify_locations(cafile=str(tls.authorities))
    else:
        context.load_default_certs()
    if tls.certificate is not None:
        context.load_cert_chain(str(tls.certificate), str(tls.key) if tls.key else None)
    return context


def client_credentials(url: str, client_id: str, secret: str) -> Callable[[], str]:
    """Return a source of access tokens by the OAuth client credentials grant. [RFC 6749 §4.4].

    Raises
    ------
    Unavailable
        From the source, ``mail-token``, when no token was given; the answer's text is never repeated.
    """

    def fetch() -> str:
        try:
            answer = httpx.post(
                url, data={"grant_type": "client_credentials"}, auth=(client_id, secret), timeout=_TOKEN_TIMEOUT_S
            )
            answer.raise_for_status()
            return str(answer.json()["access_token"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise Unavailable("mail-token", "Aucun jeton n’a été délivré pour la messagerie.") from error

    return fetch
