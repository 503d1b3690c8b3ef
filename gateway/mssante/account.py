"""How the gateway's mailbox is reached: TLS and authentication, the same for submission and reading.

Promises: nothing is said in clear but on the loopback of a trial; a server without STARTTLS, with a certificate of
another authority or another name is not spoken to; the authorities given are the only ones trusted (IGC-Santé is in no
public store). Keeps no token beyond a connection. [spec mssante 1.3, 1.4]
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from gateway.errors import Unavailable
from gateway.settings import Mail, MailServer, Tls

__all__ = ["Account", "account_for", "client_credentials", "tls_context"]

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_TOKEN_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Account:
    """One server, and how the gateway proves who it is there.

    Parameters
    ----------
    token
        Gives an access token at each connection; when present, XOAUTH2 replaces the password. [ECO.1.2.1]
    """

    server: MailServer
    tls: Tls = field(default_factory=Tls)
    token: Callable[[], str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.server.security == "plain" and self.server.host not in _LOOPBACK:
            raise Unavailable("mail-clear-text", "La messagerie sans TLS n’existe que sur la machine elle-même.")

    @property
    def has_client_certificate(self) -> bool:
        """Whether a client certificate is presented (BAL APP)."""
        return self.tls.certificate is not None


def account_for(mail: Mail, server: MailServer) -> Account:
    """Return the account of the gateway's mailbox on one of its two servers."""
    token = None
    if mail.oauth_token_url and mail.oauth_client_id:
        token = client_credentials(mail.oauth_token_url, mail.oauth_client_id, mail.oauth_client_secret or "")
    return Account(server, mail.tls, token)


def tls_context(tls: Tls) -> ssl.SSLContext:
    """Return the context of a client: TLS 1.2 or later, name and chain checked, only the given authorities if any."""
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
