"""SMART backend services: a partner's client proves itself by its key and gets a token for minutes.

[SMART App Launch 2.2, backend-services; RFC 7523; RFC 6749 §4.4, §5.2; spec fhir-fr 3.7]

Promises: only RS384 and ES384 assertions, signed by a key of the registered set (by ``kid`` when it names one), with
``iss`` = ``sub`` = the client, ``aud`` = our token URL, an ``exp`` at most `ASSERTION_MAX_S` ahead and a ``jti`` never
seen; an access token lives `TOKEN_S` seconds, is signed, names its scopes and is bound to this FHIR base; a revoked
client is refused, and what its partner is no longer registered for is no longer allowed, within `LIVE_S` seconds
(`gateway.fhir.auth_clients`). A token whose signature was verified is known again by its hash until it expires:
verifying one costs more than the read that it allows. Real time throughout, never the domain's clock (DECISIONS 12).
Not promised: introspection, refresh tokens.

The signing key is derived from the gateway's secret, so that every process of one gateway signs and accepts alike and
nothing is stored.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey
from sqlalchemy import delete
from sqlalchemy.dialects.postgresql import insert
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from gateway.errors import UnknownIdentity
from gateway.fhir.auth_clients import Client, Clients, TokenRefused
from gateway.fhir.auth_scopes import granted, held
from gateway.model.audit import AuditFacts
from gateway.model.partner import TokenReplay
from gateway.rcp import access, registry
from gateway.rcp.access import SYSTEM, Caller, CallerKind
from gateway.rcp.step import Step, Steps
from gateway.web.proxy import client_address
from gateway.web.request_id import request_id

__all__ = [
    "ALGORITHMS",
    "ASSERTION_MAX_S",
    "CAPABILITIES",
    "TOKEN_S",
    "SmartServer",
    "TokenRefused",
    "open_caller",
]

ALGORITHMS = ("RS384", "ES384")
#: What of SMART is offered [SMART App Launch 2.2: conformance].
CAPABILITIES = ("client-confidential-asymmetric", "permission-v2", "permission-v1")
TOKEN_S = 300
ASSERTION_MAX_S = 300
#: Clocks of two hosts differ by this much at most.
SKEW_S = 30
#: Verified tokens that are remembered; the oldest goes first.
_TOKENS = 4096
#: Longest name of a client: anybody may send one.
_NAME_CHARS = 255
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
# Order of NIST P-384: a private key is a number below it.
_P384_ORDER = int(
    "39402006196394479212279040100143613805079739270465446667946905279627659399113263569398956308152294913554433653942643"
)


class _Token(NamedTuple):
    """What a verified token says."""

    client_id: str
    scopes: frozenset[str]
    expires: int


def _signing_key(secret: bytes) -> ECKey:
    """Derive the gateway's ES384 key from its secret."""
    drawn = HKDF(algorithm=SHA384(), length=56, salt=None, info=b"rcp-gateway oauth es384 v1").derive(secret)
    number = int.from_bytes(drawn, "big") % (_P384_ORDER - 1) + 1
    private = ec.derive_private_key(number, ec.SECP384R1())
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    key = ECKey.import_key(pem)
    return ECKey.import_key(pem, {"kid": key.thumbprint(), "use": "sig", "alg": "ES384"})


class SmartServer:
    """The authorization server of one gateway.

    Parameters
    ----------
    steps
        To read partners, keep used ``jti`` and tell the trail.
    secret
        The gateway's secret.
    public_url
        Origin under which clients reach us, without a slash.
    """

    def __init__(self, steps: Steps, secret: bytes, public_url: str) -> None:
        self._steps = steps
        self._key = _signing_key(secret)
        #: What the tokens of search pages are sealed with.
        self.page_key = HKDF(algorithm=SHA384(), length=32, salt=None, info=b"rcp-gateway fhir pages v1").derive(secret)
        self.token_url = f"{public_url}/oauth/token"
        self.jwks_url = f"{public_url}/oauth/jwks"
        self.issuer = public_url
        self.fhir_base = f"{public_url}/fhir"
        self.clients = Clients(steps)
        self._verified: OrderedDict[bytes, _Token] = OrderedDict()

    # What is published

    def configuration(self, scopes: Sequence[str]) -> dict[str, Any]:
        """``.well-known/smart-configuration``; ``scopes`` are those that can be asked for."""
        return {
            "issuer": self.issuer,
            "jwks_uri": self.jwks_url,
            "token_endpoint": self.token_url,
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": ["private_key_jwt"],
            "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
            "scopes_supported": list(scopes),
            "response_types_supported": ["token"],
            "capabilities": list(CAPABILITIES),
            "code_challenge_methods_supported": ["S256"],
        }

    def jwks(self) -> dict[str, Any]:
        """The public keys that access tokens are signed with."""
        return {"keys": [self._key.as_dict(private=False)]}

    # The token endpoint

    def token(self, form: dict[str, str], *, address: str | None, request_id: str | None) -> dict[str, Any]:
        """Answer one token request.

        Raises
        ------
        TokenRefused
            With OAuth's error; every refusal is audited.
        """
        try:
            client_id, scopes = self._granted(form)
        except TokenRefused as refused:
            self._tell(refused.client_id or "inconnu", address, request_id, refused.error)
            raise
        self._tell(client_id, address, request_id, None)
        return {
            "access_token": self._issue(client_id, scopes),
            "token_type": "bearer",
            "expires_in": TOKEN_S,
            "scope": " ".join(scopes),
        }

    def _granted(self, form: dict[str, str]) -> tuple[str, list[str]]:
        if form.get("grant_type") != "client_credentials":
            raise TokenRefused("unsupported_grant_type", "Seul « client_credentials » est offert.")
        if form.get("client_assertion_type") != ASSERTION_TYPE or not form.get("client_assertion"):
            raise TokenRefused("invalid_client", "Une assertion signée (private_key_jwt) est attendue.")
        client_id, claims, client = self._proved(form["client_assertion"])
        self._use_once(client_id, claims)
        scopes = granted(form.get("scope", "").split(), client.scopes)
        if not scopes:
            text = "Aucune des portées demandées n’est accordée à ce client."
            raise TokenRefused("invalid_scope", text, client_id=client_id)
        return client_id, scopes

    def _proved(self, assertion: str) -> tuple[str, dict[str, Any], Client]:
        refused = TokenRefused("invalid_client", "L’assertion du client est refusée.")
        if len(assertion) > 16 * 1024:
            raise refused
        try:
            unverified = _unverified_claims(assertion)
            client_id = unverified.get("sub")
            # Unprintable is no name of ours, and no text of PostgreSQL holds NUL; what nobody proved is remembered too.
            named = isinstance(client_id, str) and client_id.isprintable() and len(client_id) <= _NAME_CHARS
            client = self.clients.find(str(client_id)) if named else None
            if client is None or unverified.get("iss") != client_id:
                raise refused
            read = jwt.decode(assertion, self.clients.keys(client), algorithms=list(ALGORITHMS))
            claims = dict(read.claims)
        except (JoseError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise refused from error
        now = time.time()
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        expires = claims.get("exp")
        before = claims.get("nbf", 0)
        good = (
            claims.get("iss") == claims.get("sub") == client_id
            and self.token_url in audiences
            and isinstance(expires, int | float)
            and now - SKEW_S < expires <= now + ASSERTION_MAX_S + SKEW_S
            and isinstance(before, int | float)
            and before <= now + SKEW_S
            and isinstance(claims.get("jti"), str)
            and 0 < len(claims["jti"]) <= 255
            and claims["jti"].isprintable()
        )
        if not good:
            raise refused
        return str(client_id), claims, client

    def _use_once(self, client_id: str, claims: dict[str, Any]) -> None:
        """Keep the ``jti`` until its assertion has expired; a second use is refused, in any process."""
        expires = datetime.fromtimestamp(float(claims["exp"]), UTC) + timedelta(seconds=SKEW_S)

        def verb(step: Step) -> bool:
            step.session.execute(delete(TokenReplay).where(TokenReplay.expires_at < datetime.now(UTC)))
            kept = step.session.scalar(
                insert(TokenReplay)
                .values(client_id=client_id, jti=claims["jti"], expires_at=expires)
                .on_conflict_do_nothing()
                .returning(TokenReplay.jti)
            )
            return kept is not None

        if not self._steps.run(SYSTEM, verb):
            raise TokenRefused("invalid_client", "Cette assertion a déjà servi.")

    def _issue(self, client_id: str, scopes: list[str]) -> str:
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": self.fhir_base,
            "sub": client_id,
            "client_id": client_id,
            "scope": " ".join(scopes),
            "iat": now,
            "exp": now + TOKEN_S,
            "jti": str(uuid.uuid4()),
        }
        return jwt.encode(
            {"alg": "ES384", "kid": self._key.kid, "typ": "at+jwt"}, claims, self._key, algorithms=["ES384"]
        )

    def _tell(self, client_id: str, address: str | None, request_id: str | None, refused: str | None) -> None:
        self._steps.record(
            AuditFacts(
                event="connexion",
                action="E",
                outcome="8" if refused else "0",
                reason=refused,
                actor_kind=CallerKind.CLIENT.value,
                actor_id=client_id,
                wire="fhir",
                address=address,
                request_id=request_id,
                purpose="HSYSADMIN",
                happened=datetime.now(UTC),
            )
        )

    # What a request proves

    async def authenticate(self, request: Request) -> Caller | None:
        """Read the bearer token of a request: an `Authenticator` for `gateway.web.authenticators`.

        What was verified and asked a moment ago is answered at once; the rest in a thread, because it may block.

        Raises
        ------
        UnknownIdentity
            ``jeton-expire`` or ``jeton-invalide``.
        """
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        found = self._remembered(text.strip())
        known, client = found if found is not None else await run_in_threadpool(self._recognised, text.strip())
        if known.expires <= time.time():
            raise UnknownIdentity("jeton-expire", "Jeton absent ou expiré.")
        if client is None:
            raise UnknownIdentity("jeton-invalide", "Jeton absent ou invalide.")
        return Caller(
            kind=CallerKind.CLIENT,
            partner_id=client.partner_id,
            identifier=known.client_id,
            name=client.name,
            rcps=client.rcps,
            scopes=held(known.scopes, client.scopes),
            wire="fhir",
            address=client_address(request),
            request_id=request_id(),
        )

    def _remembered(self, text: str) -> tuple[_Token, Client | None] | None:
        token = self._verified.get(_hash(text))
        kept = self.clients.remembered(token.client_id) if token is not None else None
        return (token, kept[0]) if token is not None and kept is not None else None

    def _recognised(self, text: str) -> tuple[_Token, Client | None]:
        token = self._verified.get(_hash(text)) or self._verify(text)
        return token, self.clients.find(token.client_id)

    def _verify(self, text: str) -> _Token:
        """Verify a token's signature and for whom it is; remember it while it lives."""
        refused = UnknownIdentity("jeton-invalide", "Jeton absent ou invalide.")
        try:
            claims = jwt.decode(text, self._key, algorithms=["ES384"]).claims
        except (JoseError, ValueError, TypeError) as error:
            raise refused from error
        expires = claims.get("exp")
        if claims.get("aud") != self.fhir_base or claims.get("iss") != self.issuer:
            raise refused
        if not isinstance(expires, int) or expires <= time.time():
            raise UnknownIdentity("jeton-expire", "Jeton absent ou expiré.")
        token = _Token(str(claims["client_id"]), frozenset(str(claims["scope"]).split()), expires)
        self._verified[_hash(text)] = token
        while len(self._verified) > _TOKENS:
            self._verified.popitem(last=False)
        return token

    def forget(self) -> None:
        """Ask the database again at the next request, before `LIVE_S` has passed."""
        self.clients.forget()


def _hash(text: str) -> bytes:
    """Name a token without keeping it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _unverified_claims(assertion: str) -> dict[str, Any]:
    """Claims before any proof: only to know whose keys to try."""
    payload = jws.extract_compact(assertion.encode("ascii")).payload
    claims = msgspec.json.decode(payload)
    if not isinstance(claims, dict):
        raise TypeError("claims are no object")
    return claims


def open_caller(steps: Steps, name: str = "dev") -> Caller:
    """Make the trial partner that every caller is under ``RCP_FHIR_AUTH=off``; never called in ``prod``."""
    return Caller(
        kind=CallerKind.CLIENT,
        partner_id=steps.run(access.SYSTEM, lambda step: registry.trial_partner(step, name).id),
        identifier=name,
        name=name,
        scopes=frozenset({"system/*.cruds"}),
        wire="fhir",
    )
