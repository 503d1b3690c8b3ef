"""A little OpenID provider that answers as Pro Santé Connect does, for the demonstration; refused in ``prod``.

Promises: the gateway meets the same protocol as at PSC: discovery under its non-standard name, authorization on another
path than the issuer's, code used once with PKCE S256, RS256 ID token with ``acr``, ``at_hash``, ``sid`` and ``typ``,
userinfo with ``SubjectNameID`` and ``SubjectRefPro`` [spec psc §1, §3 to §5], RP-initiated logout. The browser chooses
a fictitious account on a page marked « démonstration ».

It does not promise a provider's security: whoever reaches the port signs in as anybody it lists. It keeps everything in
memory, has no single sign-on, no refresh, no CIBA and no mutual TLS.

Run it with ``with PscStandIn(...).serving(port) as origin:`` and give the gateway `PscStandIn.discovery_url`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import html
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs, unquote_plus, urlencode

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from gateway.demo.psc_accounts import Account
from gateway.errors import Fault
from gateway.web.background import served
from gateway.web.headers import SecurityHeadersMiddleware

__all__ = ["PscStandIn"]

_REALM: Final = "/auth/realms/esante-wallet"
_OIDC: Final = f"{_REALM}/protocol/openid-connect"
_DISCOVERY: Final = f"{_REALM}/.well-known/wallet-openid-configuration"
_AUTHORIZE: Final = "/wallet/auth"
_CODE_LIFE_S: Final = 60
_CHOICE_LIFE_S: Final = 600
_TOKEN_LIFE_S: Final = 120
_MAX_KEPT: Final = 1000
_FORM_BYTES: Final = 16 * 1024
_STYLE: Final = (
    "body{font-family:system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem;line-height:1.5}"
    "strong.mark{display:block;padding:.75rem 1rem;background:#fff3cd;border-left:.4rem solid #b34000}"
    "ul{list-style:none;padding:0}button{font:inherit;width:100%;text-align:left;padding:.75rem 1rem;margin:.25rem 0;"
    "border:1px solid #000091;background:#fff;border-radius:.25rem;cursor:pointer}"
    "button:focus,button:hover{background:#ececfe}"
    "button.leave{border-color:#666;width:auto}small{display:block;color:#555}"
)


@dataclass(frozen=True, slots=True)
class _Asked:
    """One authorization request, and who was chosen for it."""

    redirect_uri: str
    state: str
    nonce: str
    challenge: str
    expires_s: float
    account: Account | None = None
    sid: str = ""


class PscStandIn:
    """The provider.

    Parameters
    ----------
    accounts
        Who is offered on the page.
    redirect_uris, logout_uris
        Registered addresses of the one client, compared exactly.

    Raises
    ------
    Fault
        In ``prod``.
    """

    def __init__(
        self,
        accounts: Sequence[Account],
        *,
        client_id: str,
        client_secret: str,
        redirect_uris: Sequence[str],
        logout_uris: Sequence[str] = (),
        profile: str = "dev",
    ) -> None:
        if profile == "prod":
            raise Fault("standin-in-prod", "Le simulateur de Pro Santé Connect est refusé en production.")
        self.accounts = tuple(accounts)
        self.client_id = client_id
        self._client_secret = client_secret
        self._redirect_uris = frozenset(redirect_uris)
        self._logout_uris = frozenset(logout_uris)
        self._origin = ""
        self._key = RSAKey.generate_key(2048, parameters={"use": "sig", "alg": "RS256", "kid": secrets.token_hex(8)})
        self._choices: dict[str, _Asked] = {}
        self._codes: dict[str, _Asked] = {}
        self._access: dict[str, _Asked] = {}

    @contextlib.contextmanager
    def serving(self, port: int = 0, *, host: str = "127.0.0.1") -> Iterator[str]:
        """Serve on a thread and yield the origin; 0 takes a free port."""
        with served(self.application(), host=host, port=port) as origin:
            self._origin = origin
            yield origin

    @property
    def issuer(self) -> str:
        """The issuer, known once it is served."""
        return f"{self._origin}{_REALM}"

    @property
    def discovery_url(self) -> str:
        """What `RCP_PSC_DISCOVERY_URL` is set to."""
        return f"{self._origin}{_DISCOVERY}"

    def application(self) -> Starlette:
        """Build the ASGI application."""
        routes = [
            Route(_DISCOVERY, self._discovery),
            Route(f"{_OIDC}/certs", self._certs),
            Route(_AUTHORIZE, self._authorize, methods=["GET"]),
            Route(f"{_AUTHORIZE}/choix", self._choose, methods=["POST"]),
            Route("/wallet/style.css", lambda _: Response(_STYLE, media_type="text/css")),
            Route(f"{_OIDC}/token", self._token, methods=["POST"]),
            Route(f"{_OIDC}/userinfo", self._userinfo, methods=["GET", "POST"]),
            Route(f"{_OIDC}/logout", self._logout, methods=["GET"]),
        ]
        targets = tuple(sorted({"/".join(uri.split("/", 3)[:3]) for uri in self._redirect_uris}))
        return Starlette(routes=routes, middleware=[Middleware(SecurityHeadersMiddleware, form_targets=targets)])

    # -- what a misbehaving provider of the tests overrides ----------------------------------------------------------

    def id_claims(self, asked: Any, access_token: str) -> dict[str, Any]:
        """Write the claims of the ID token of one request."""
        now = int(time.time())
        account: Account = asked.account
        half = hashlib.sha256(access_token.encode()).digest()[:16]
        return {
            "iss": self.issuer,
            "aud": self.client_id,
            "azp": self.client_id,
            "sub": account.subject,
            "typ": "ID",
            "iat": now,
            "auth_time": now,
            "exp": now + _TOKEN_LIFE_S,
            "jti": secrets.token_hex(16),
            "nonce": asked.nonce,
            "sid": asked.sid,
            "session_state": asked.sid,
            "acr": account.acr,
            "at_hash": _unpadded(half),
            "preferred_username": account.national_id,
            "given_name": account.given,
            "family_name": account.family,
            "email_verified": False,
        }

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Sign a token with the current key."""
        return jwt.encode({"alg": "RS256", "typ": "JWT", "kid": self._key.kid}, dict(claims), self._key)

    def keys(self) -> dict[str, Any]:
        """Publish the current keys."""
        return {"keys": [self._key.as_dict(private=False)]}

    def metadata(self) -> dict[str, Any]:
        """Write the discovery document, with PSC's own oddities."""
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self._origin}{_AUTHORIZE}",
            "token_endpoint": f"{self._origin}{_OIDC}/token",
            "userinfo_endpoint": f"{self._origin}{_OIDC}/userinfo",
            "jwks_uri": f"{self._origin}{_OIDC}/certs",
            "end_session_endpoint": f"{self._origin}{_OIDC}/logout",
            "response_types_supported": ["code"],
            "acr_values_supported": ["0", "0"],
            "code_challenge_methods_supported": ["plain", "S256"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "authorization_response_iss_parameter_supported": True,
        }

    def userinfo_answer(self, asked: Any) -> Response:
        """Answer who it is."""
        return JSONResponse(asked.account.userinfo())

    # -- endpoints ---------------------------------------------------------------------------------------------------

    async def _discovery(self, _: Request) -> Response:
        return JSONResponse(self.metadata())

    async def _certs(self, _: Request) -> Response:
        return JSONResponse(self.keys())

    async def _authorize(self, request: Request) -> Response:
        query = request.query_params
        redirect_uri = query.get("redirect_uri", "")
        if query.get("client_id") != self.client_id or redirect_uri not in self._redirect_uris:
            # Never a redirect to an address that is not registered.
            return _page("Demande refusée", "<p>Client ou adresse de retour inconnus de ce simulateur.</p>", 400)
        wrong = next(
            (
                error
                for error, right in (
                    ("unsupported_response_type", query.get("response_type") == "code"),
                    ("invalid_scope", "openid" in query.get("scope", "").split()),
                    ("invalid_request", query.get("code_challenge_method") == "S256" and query.get("code_challenge")),
                    ("invalid_request", query.get("state") and query.get("nonce")),
                )
                if not right
            ),
            None,
        )
        asked = _Asked(
            redirect_uri,
            query.get("state", ""),
            query.get("nonce", ""),
            query.get("code_challenge", ""),
            time.time() + _CHOICE_LIFE_S,
        )
        if wrong:
            return self._back(asked, {"error": wrong})
        ticket = secrets.token_urlsafe(24)
        _keep(self._choices, ticket, asked)
        return _page("Choisir un compte", self._choice_form(ticket))

    def _choice_form(self, ticket: str) -> str:
        buttons = "".join(
            f'<li><button name="compte" value="{number}">{html.escape(f"{a.title} {a.given} {a.family}".strip())}'
            f"<small>{html.escape(' – '.join(part for part in (a.national_id, a.note) if part))}</small></button></li>"
            for number, a in enumerate(self.accounts)
        )
        return (
            f'<form method="post" action="{_AUTHORIZE}/choix"><input type="hidden" name="demande" value="{ticket}">'
            "<p>Choisissez l’identité fictive avec laquelle vous connecter :</p>"
            f"<ul>{buttons}</ul>"
            '<button class="leave" name="compte" value="annuler">Annuler la connexion</button></form>'
        )

    async def _choose(self, request: Request) -> Response:
        form = await _form(request)
        asked = _take(self._choices, form.get("demande", ""))
        if asked is None:
            return _page("Demande expirée", "<p>Recommencez la connexion depuis la passerelle.</p>", 400)
        chosen = form.get("compte", "")
        if not chosen.isdigit() or int(chosen) >= len(self.accounts):
            return self._back(asked, {"error": "access_denied"})
        code = secrets.token_urlsafe(32)
        account, sid = self.accounts[int(chosen)], secrets.token_hex(16)
        granted = _Asked(
            asked.redirect_uri, asked.state, asked.nonce, asked.challenge, time.time() + _CODE_LIFE_S, account, sid
        )
        _keep(self._codes, code, granted)
        return self._back(asked, {"code": code, "session_state": sid})

    def _back(self, asked: _Asked, answer: Mapping[str, str]) -> Response:
        query = urlencode({**answer, "state": asked.state, "iss": self.issuer})
        return RedirectResponse(f"{asked.redirect_uri}?{query}", 303)

    async def _token(self, request: Request) -> Response:
        form = await _form(request)
        if not self._knows(request, form):
            return JSONResponse({"error": "invalid_client"}, 401, {"WWW-Authenticate": "Basic"})
        if form.get("grant_type") != "authorization_code":
            return JSONResponse({"error": "unsupported_grant_type"}, 400)
        asked = _take(self._codes, form.get("code", ""))
        proof = _unpadded(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if (
            asked is None
            or asked.redirect_uri != form.get("redirect_uri")
            or not hmac.compare_digest(proof.encode(), asked.challenge.encode())
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        access_token = secrets.token_urlsafe(32)
        _keep(self._access, access_token, asked)
        answer = {
            "access_token": access_token,
            "token_type": "Bearer",
            "expires_in": _TOKEN_LIFE_S,
            "id_token": self.sign(self.id_claims(asked, access_token)),
            "not-before-policy": 0,
            "session_state": asked.sid,
            "scope": "openid scope_all",
        }
        return JSONResponse(answer, headers={"Cache-Control": "no-store"})

    def _knows(self, request: Request, form: Mapping[str, str]) -> bool:
        name, secret = form.get("client_id", ""), form.get("client_secret", "")
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                name, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
            except ValueError:
                return False
            name, secret = unquote_plus(name), unquote_plus(secret)
        return name == self.client_id and hmac.compare_digest(secret.encode(), self._client_secret.encode())

    async def _userinfo(self, request: Request) -> Response:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        asked = self._access.get(token)
        if asked is None or asked.expires_s + _TOKEN_LIFE_S < time.time():
            return JSONResponse({"error": "invalid_token"}, 401, {"WWW-Authenticate": 'Bearer error="invalid_token"'})
        return self.userinfo_answer(asked)

    async def _logout(self, request: Request) -> Response:
        target = request.query_params.get("post_logout_redirect_uri", "")
        hint = request.query_params.get("id_token_hint", "")
        try:
            ours = jwt.decode(hint, self._key, algorithms=["RS256"]).claims.get("aud") == self.client_id
        except (JoseError, ValueError):
            ours = False
        if ours and target in self._logout_uris:
            # PSC may not give ``state`` back; this one never does.
            return RedirectResponse(target, 303)
        return _page("Session terminée", "<p>Vous êtes déconnecté du simulateur.</p>")


def _unpadded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _keep(kept: dict[str, _Asked], name: str, asked: _Asked) -> None:
    kept[name] = asked
    while len(kept) > _MAX_KEPT:
        kept.pop(next(iter(kept)))


def _take(kept: dict[str, _Asked], name: str) -> _Asked | None:
    found = kept.pop(name, None)
    return found if found is not None and found.expires_s > time.time() else None


async def _form(request: Request) -> dict[str, str]:
    raw = b""
    async for piece in request.stream():
        raw += piece
        if len(raw) > _FORM_BYTES:
            return {}
    read = parse_qs(raw.decode("utf-8", "replace"), keep_blank_values=True)
    return {name: values[0] for name, values in read.items()}


def _page(title: str, content: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse(
        '<!doctype html><html lang="fr"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)} – Pro Santé Connect (démonstration)</title>"
        '<link rel="stylesheet" href="/wallet/style.css"></head><body><main>'
        '<strong class="mark">Démonstration : ceci n’est pas Pro Santé Connect. '
        "Toutes les identités sont fictives.</strong>"
        f"<h1>{html.escape(title)}</h1>{content}</main></body></html>",
        status,
    )
