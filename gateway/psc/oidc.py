"""The OpenID Connect client: from the button to a proven identity.

Promises: authorization code with PKCE S256, state and nonce; every address comes from the discovery document (PSC's has
a name of its own, ``wallet-openid-configuration``, and its authorization host is not its issuer's); nothing is believed
that `gateway.psc.tokens` did not verify; when the provider does not answer, `Unavailable` and nothing else.

The access token lives two minutes: userinfo is asked once, right after the exchange, and the token is forgotten.
"""

from __future__ import annotations

import secrets
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import quote_plus, urlencode, urlsplit

import httpx
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from gateway.errors import Fault, Unavailable
from gateway.model.store import utcnow
from gateway.psc.tokens import (
    Expected,
    KeyRing,
    LoggedOut,
    read_id_token,
    read_logout_token,
    read_signed_userinfo,
    refusal,
)
from gateway.settings import Psc

with warnings.catch_warnings(record=True):
    # Authlib prefers a package that does not exist under our locked httpx and says so on every start.
    from authlib.integrations.base_client import OAuthError
    from authlib.integrations.httpx_client import OAuth2Client

__all__ = ["Attempt", "Proven", "PscClient", "new_attempt"]

SCOPE: Final = "openid scope_all"
ASKED_ACR: Final = "eidas1"

_ANSWER_BYTES: Final = 1 << 20
_TIMEOUT: Final = httpx.Timeout(10.0, connect=5.0)
_METADATA_LIFE: Final = timedelta(hours=1)
_NEEDED: Final = ("issuer", "authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri")
_OUR_FAULT: Final = frozenset({"invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope"})


@dataclass(frozen=True, slots=True)
class Attempt:
    """The secrets of one authorization request; ``state`` goes round, the two others stay here."""

    state: str
    nonce: str
    code_verifier: str


@dataclass(frozen=True, slots=True)
class Proven:
    """Who signed in, as the provider proved it.

    Parameters
    ----------
    subject
        ``sub``: technical, never parsed.
    sid
        The provider's session, for back-channel logout.
    id_token
        Kept for ``id_token_hint`` at logout, sealed at rest.
    """

    subject: str
    acr: str
    sid: str | None
    id_token: str
    userinfo: Mapping[str, Any]


def new_attempt() -> Attempt:
    """Draw the secrets of one sign-in (256 bits each)."""
    return Attempt(secrets.token_urlsafe(32), secrets.token_hex(32), secrets.token_urlsafe(48))


class PscClient:
    """One client of one provider; safe to share between threads.

    Parameters
    ----------
    settings
        Discovery address, client, secret or certificate.
    redirect_uri
        ``…/psc/retour``, as registered with the provider.
    now
        Real time; tests turn it.
    """

    def __init__(self, settings: Psc, redirect_uri: str, *, now: Callable[[], datetime] = utcnow) -> None:
        if not settings.discovery_url or not settings.client_id:
            raise Fault("psc-not-configured", "Pro Santé Connect n’est pas configuré (RCP_PSC_DISCOVERY_URL).")
        self._discovery_url = settings.discovery_url
        self._client_id = settings.client_id
        self._secret = settings.client_secret
        self._with_certificate = settings.tls.enabled
        self._redirect_uri = redirect_uri
        self._now = now
        self._transport = _BoundedTransport(httpx.HTTPTransport(verify=_tls_context(settings), retries=1))
        self._http = httpx.Client(transport=self._transport, timeout=_TIMEOUT, follow_redirects=False)
        self._metadata: Mapping[str, Any] = {}
        self._metadata_at: datetime | None = None
        self._lock = threading.Lock()
        self._keys = KeyRing(lambda: self._document(str(self._endpoint("jwks_uri"))), now)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def ping(self) -> None:
        """Read the discovery document and the keys, for ``rcp-gateway check``.

        Raises
        ------
        Unavailable
            The provider does not answer.
        Fault
            What it answers cannot be used.
        """
        self._document(str(self._endpoint("jwks_uri")))

    def authorization_url(self, attempt: Attempt) -> str:
        """Write the address to which the browser is sent [spec psc §3]."""
        endpoint = str(self._endpoint("authorization_endpoint"))
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self._redirect_uri,
            "scope": SCOPE,
            "acr_values": ASKED_ACR,
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": create_s256_code_challenge(attempt.code_verifier),
            "code_challenge_method": "S256",
        }
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{urlencode(query)}"

    def check_issuer(self, told: str | None) -> None:
        """Compare the ``iss`` of the return with the discovery's, when the return has one [RFC 9207].

        Raises
        ------
        UnknownIdentity
            ``psc-issuer``: the answer comes from another provider than the one asked.
        """
        if told is not None and told != self._endpoint("issuer"):
            raise refusal("psc-issuer")

    def exchange(self, code: str, attempt: Attempt) -> Proven:
        """Change the code for tokens, verify them and ask who it is.

        Raises
        ------
        UnknownIdentity
            ``psc-code-refused``, ``psc-userinfo-subject``, or a reason of `gateway.psc.tokens`.
        Unavailable
            The provider does not answer, or answers with an error of its own.
        Fault
            The provider does not know this client, or speaks another protocol.
        """
        answer = self._tokens(code, attempt.code_verifier)
        access_token = answer.get("access_token")
        if not isinstance(access_token, str) or not access_token:
            raise refusal("psc-token-unreadable")
        expected = Expected(
            issuer=str(self._endpoint("issuer")),
            client_id=self._client_id,
            nonce=attempt.nonce,
            access_token=access_token,
            now=self._now(),
        )
        claims = read_id_token(answer.get("id_token"), self._keys, expected)
        userinfo = self._userinfo(access_token)
        if userinfo.get("sub") != claims["sub"]:
            raise refusal("psc-userinfo-subject")
        sid = claims.get("sid") or claims.get("session_state") or answer.get("session_state")
        return Proven(
            subject=claims["sub"],
            acr=claims["acr"],
            sid=sid if isinstance(sid, str) else None,
            id_token=str(answer["id_token"]),
            userinfo=userinfo,
        )

    def logout_url(self, id_token: str, return_to: str) -> str | None:
        """Write the address that ends the provider's session too, or ``None`` when it offers none [spec psc §7].

        No ``state`` is sent: PSC may not give it back, and the page of return needs none.
        """
        endpoint = self._endpoint("end_session_endpoint", needed=False)
        if endpoint is None:
            return None
        query = {"id_token_hint": id_token, "post_logout_redirect_uri": return_to, "client_id": self._client_id}
        return f"{endpoint}?{urlencode(query)}"

    def form_targets(self) -> tuple[str, ...]:
        """Name the origins to which our logout form leads, for ``form-action``: PSC's logout is at its issuer's host.

        Taken from the setting, so that a gateway starts while the provider is away.
        """
        parts = urlsplit(self._discovery_url)
        return (f"{parts.scheme}://{parts.netloc}",)

    def read_logout(self, token: str) -> LoggedOut:
        """Verify a back-channel logout token; see `gateway.psc.tokens.read_logout_token`."""
        issuer = str(self._endpoint("issuer"))
        return read_logout_token(token, self._keys, issuer=issuer, client_id=self._client_id, now=self._now())

    def _tokens(self, code: str, code_verifier: str) -> Mapping[str, Any]:
        method = self._authentication()
        client = OAuth2Client(
            self._client_id,
            self._secret,
            token_endpoint_auth_method=method,
            redirect_uri=self._redirect_uri,
            transport=self._transport,
            timeout=_TIMEOUT,
        )
        endpoint = self._endpoint("token_endpoint")
        try:
            answer = client.fetch_token(
                endpoint,
                grant_type="authorization_code",
                code=code,
                code_verifier=code_verifier,
                auth=self._basic() if method.endswith("_basic") else None,
            )
        except OAuthError as refused:
            if refused.error in _OUR_FAULT:
                raise Fault("psc-client-refused", "Pro Santé Connect ne reconnaît pas cette passerelle.") from refused
            if refused.error in {"server_error", "temporarily_unavailable"}:
                raise _away() from refused
            raise refusal("psc-code-refused") from refused
        except (httpx.HTTPError, ValueError) as broken:
            raise _away() from broken
        if not isinstance(answer, dict):
            raise refusal("psc-token-unreadable")
        return answer

    def _basic(self) -> httpx.BasicAuth:
        # Both halves are form-encoded first [RFC 6749 §2.3.1]; Authlib sends them as they are and fails beyond Latin-1.
        return httpx.BasicAuth(quote_plus(self._client_id), quote_plus(self._secret or ""))

    def _authentication(self) -> str:
        if self._secret is None:
            # With a certificate the TLS layer authenticates and the body names the client [RFC 8705 §2].
            return "none"
        offered = self._discovered().get("token_endpoint_auth_methods_supported")
        if isinstance(offered, list) and "client_secret_basic" not in offered and "client_secret_post" in offered:
            return "client_secret_post"
        return "client_secret_basic"

    def _userinfo(self, access_token: str) -> Mapping[str, Any]:
        endpoint = str(self._endpoint("userinfo_endpoint"))
        answer = self._get(endpoint, {"Authorization": f"Bearer {access_token}"})
        if answer.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/jwt":
            issuer = str(self._endpoint("issuer"))
            return read_signed_userinfo(answer.text, self._keys, issuer=issuer, client_id=self._client_id)
        return _json_object(answer)

    def _endpoint(self, name: str, *, needed: bool = True) -> str | None:
        metadata = self._discovered()
        aliases = metadata.get("mtls_endpoint_aliases")
        found = metadata.get(name)
        if self._with_certificate and isinstance(aliases, dict):
            found = aliases.get(name, found)
        if isinstance(found, str):
            return found
        if needed:
            raise Fault("psc-discovery", "Le document de découverte de Pro Santé Connect est incomplet.")
        return None

    def _discovered(self) -> Mapping[str, Any]:
        with self._lock:
            fresh = self._metadata_at is not None and self._now() - self._metadata_at < _METADATA_LIFE
            if fresh:
                return self._metadata
            try:
                document = self._document(self._discovery_url)
            except Unavailable:
                # Addresses rarely change: yesterday's serve while the document cannot be read again.
                if self._metadata:
                    return self._metadata
                raise
            _check_metadata(document, self._discovery_url)
            self._metadata, self._metadata_at = document, self._now()
            return document

    def _document(self, url: str) -> Mapping[str, Any]:
        return _json_object(self._get(url, {"Accept": "application/json"}))

    def _get(self, url: str, headers: Mapping[str, str]) -> httpx.Response:
        try:
            answer = self._http.get(url, headers=headers)
        except httpx.HTTPError as away:
            raise _away() from away
        if answer.status_code in {401, 403}:
            raise refusal("psc-code-refused")
        if answer.status_code != 200:
            raise _away()
        return answer


def _away() -> Unavailable:
    return Unavailable(
        "psc-unavailable",
        "Pro Santé Connect ne répond pas pour le moment. Réessayez dans quelques minutes.",
        retry_after_s=60,
    )


def _json_object(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        document = answer.json()
    except ValueError as broken:
        raise _away() from broken
    if not isinstance(document, dict):
        raise _away()
    return document


def _check_metadata(document: Mapping[str, Any], discovery_url: str) -> None:
    # The issuer is compared with the address that the operator gave: a document of another environment (a BAS address
    # in a production file was seen) must not decide whom we trust.
    issuer = document.get("issuer")
    usable = all(isinstance(document.get(name), str) for name in _NEEDED)
    if not usable or not isinstance(issuer, str) or not discovery_url.startswith(issuer.rstrip("/") + "/"):
        raise Fault("psc-discovery", "Le document de découverte de Pro Santé Connect ne correspond pas à son adresse.")
    scheme = urlsplit(discovery_url).scheme
    if any(urlsplit(str(document[name])).scheme not in {"https", scheme} for name in _NEEDED):
        raise Fault("psc-discovery", "Le document de découverte de Pro Santé Connect quitte https.")


def _tls_context(settings: Psc) -> ssl.SSLContext:
    authorities = settings.tls.authorities
    context = ssl.create_default_context(cafile=str(authorities) if authorities else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.tls.certificate is not None:
        key = settings.tls.key
        try:
            context.load_cert_chain(str(settings.tls.certificate), str(key) if key else None)
        except (OSError, ssl.SSLError) as unusable:
            raise Fault("psc-certificate", "Le certificat RCP_PSC_TLS_CERT ou sa clé est inutilisable.") from unusable
    return context


class _BoundedTransport(httpx.BaseTransport):
    """Cuts an answer that is longer than any that the protocol needs."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self._inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._inner.handle_request(request)
        stream = answer.stream
        if isinstance(stream, httpx.SyncByteStream):
            answer.stream = _BoundedStream(stream)
        return answer

    def close(self) -> None:
        self._inner.close()


class _BoundedStream(httpx.SyncByteStream):
    def __init__(self, inner: httpx.SyncByteStream) -> None:
        self._inner = inner

    def __iter__(self) -> Iterator[bytes]:
        seen = 0
        for piece in self._inner:
            seen += len(piece)
            if seen > _ANSWER_BYTES:
                raise httpx.RemoteProtocolError("answer over the limit")
            yield piece

    def close(self) -> None:
        self._inner.close()
