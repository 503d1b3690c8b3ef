"""What Pro Santé Connect signed, verified by hand claim by claim.

Promises: a token is believed only when it is signed RS256 by a current key of the provider and each claim is what this
very sign-in expects; the refusal has a code of its own for each reason. The algorithm is ours, never the token's or the
discovery document's choice. Authlib's own reading is not used: it takes a wrong ``aud`` when ``azp`` is right, ignores
``acr`` and forgives 120 s, the whole life of a PSC token [spec psc §12].

Nothing here opens a socket: keys come through the function given to `KeyRing`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from gateway.errors import UnknownIdentity

__all__ = ["Expected", "KeyRing", "LoggedOut", "read_id_token", "read_logout_token", "read_signed_userinfo", "refusal"]

ACCEPTED_ACR: Final = frozenset({"eidas1", "eidas2", "eidas3"})
"""Levels of authentication that open a session; absent or other is refused [spec psc §5.1]."""

_ALGORITHM: Final = "RS256"
_LEEWAY_S: Final = 30
_MAX_AGE_S: Final = 600
_MAX_TOKEN_CHARACTERS: Final = 16_384
_MAX_KEYS: Final = 50
_MIN_KEY_BITS: Final = 2048
_KEYS_LIFE_S: Final = 3600
_RELOAD_PAUSE_S: Final = 30
_LOGOUT_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"

_TEXTS: Final[Mapping[str, str]] = {
    "psc-acr": (
        "Le moyen de connexion utilisé n’offre pas le niveau de garantie exigé : "
        "connectez-vous avec votre carte CPS ou l’application e-CPS."
    ),
}
_TEXT: Final = "La réponse de Pro Santé Connect n’a pas pu être vérifiée. Recommencez la connexion."


def refusal(code: str) -> UnknownIdentity:
    """Build the refusal for a reason; the text never says more than a person at the door needs."""
    return UnknownIdentity(code, _TEXTS.get(code, _TEXT))


class KeyRing:
    """The provider's signing keys, kept an hour, asked for again once when a token names an unknown one.

    Parameters
    ----------
    fetch
        Gets the JWKS document; raises `Unavailable` when it cannot.
    now
        Real time, never the domain's clock.
    """

    def __init__(self, fetch: Callable[[], Mapping[str, Any]], now: Callable[[], datetime]) -> None:
        self._fetch = fetch
        self._now = now
        self._keys: dict[str, RSAKey] = {}
        self._loaded_at: datetime | None = None
        self._lock = threading.Lock()

    def key(self, kid: str | None) -> RSAKey:
        """Return the key named by `kid`, or the only key when a token names none.

        Raises
        ------
        UnknownIdentity
            ``psc-key-unknown``: not among the current keys, even after a reload. Reloads are at least 30 s apart, so
            that forged tokens do not turn the gateway against the provider.
        """
        with self._lock:
            if self._age_s() > _KEYS_LIFE_S:
                self._load()
            found = self._find(kid)
            if found is None and self._age_s() >= _RELOAD_PAUSE_S:
                self._load()
                found = self._find(kid)
        if found is None:
            raise refusal("psc-key-unknown")
        return found

    def _age_s(self) -> float:
        return float("inf") if self._loaded_at is None else (self._now() - self._loaded_at).total_seconds()

    def _find(self, kid: str | None) -> RSAKey | None:
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    def _load(self) -> None:
        document = self._fetch()
        listed = document.get("keys")
        keys: dict[str, RSAKey] = {}
        for number, jwk in enumerate(listed if isinstance(listed, list) else []):
            if number >= _MAX_KEYS:
                break
            key = _signing_key(jwk)
            if key is not None:
                keys[str(jwk.get("kid", f"#{number}"))] = key
        self._keys = keys
        self._loaded_at = self._now()


def _signing_key(jwk: Any) -> RSAKey | None:
    if not isinstance(jwk, dict) or jwk.get("kty") != "RSA":
        return None
    if jwk.get("use", "sig") != "sig" or jwk.get("alg", _ALGORITHM) != _ALGORITHM:
        return None
    modulus = jwk.get("n")
    # Measured before it is imported: the library warns of a short key on stderr and takes it all the same.
    if not isinstance(modulus, str) or len(modulus) * 6 < _MIN_KEY_BITS:
        return None
    try:
        return RSAKey.import_key({name: value for name, value in jwk.items() if name in {"kty", "n", "e", "kid"}})
    except (JoseError, ValueError, TypeError):
        return None


@dataclass(frozen=True, slots=True)
class Expected:
    """What the ID token of one sign-in must say.

    Parameters
    ----------
    nonce
        The one that this sign-in's request carried.
    access_token
        What ``at_hash``, when present, must be the hash of.
    """

    issuer: str
    client_id: str
    nonce: str
    access_token: str
    now: datetime


@dataclass(frozen=True, slots=True)
class LoggedOut:
    """What a back-channel logout names: the provider's session, or the person, or both."""

    sid: str | None
    subject: str | None
    jti: str
    expires_s: int


def _claims(token: Any, keys: KeyRing) -> dict[str, Any]:
    """Verify the signature and return the claims."""
    if not isinstance(token, str) or not token or len(token) > _MAX_TOKEN_CHARACTERS:
        raise refusal("psc-token-unreadable")
    try:
        header = jws.extract_compact(token.encode()).headers()
    except (JoseError, ValueError) as broken:
        raise refusal("psc-token-unreadable") from broken
    if header.get("alg") != _ALGORITHM:
        raise refusal("psc-algorithm")
    kid = header.get("kid")
    key = keys.key(kid if isinstance(kid, str) else None)
    try:
        payload = jws.deserialize_compact(token, key, algorithms=[_ALGORITHM]).payload
    except (JoseError, ValueError) as forged:
        raise refusal("psc-signature") from forged
    try:
        claims = json.loads(payload)
    except ValueError as broken:
        raise refusal("psc-token-unreadable") from broken
    if not isinstance(claims, dict):
        raise refusal("psc-token-unreadable")
    return claims


def _same(left: Any, right: str) -> bool:
    return isinstance(left, str) and hmac.compare_digest(left.encode(), right.encode())


def _seconds(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _audiences(claims: Mapping[str, Any]) -> list[Any]:
    audience = claims.get("aud")
    return audience if isinstance(audience, list) else [audience]


def _azp_is_right(claims: Mapping[str, Any], client_id: str) -> bool:
    if "azp" in claims:
        return bool(claims["azp"] == client_id)
    return len(_audiences(claims)) == 1


def _is_fresh(claims: Mapping[str, Any], now_s: float) -> bool:
    issued = _seconds(claims.get("iat"))
    return issued is not None and now_s - _MAX_AGE_S <= issued <= now_s + _LEEWAY_S


def _has_time_left(claims: Mapping[str, Any], now_s: float) -> bool:
    expires = _seconds(claims.get("exp"))
    return expires is not None and now_s < expires + _LEEWAY_S


def _has_begun(claims: Mapping[str, Any], now_s: float) -> bool:
    begins = claims.get("nbf")
    seconds = _seconds(begins)
    return begins is None or (seconds is not None and seconds <= now_s + _LEEWAY_S)


def _at_hash_is_right(claims: Mapping[str, Any], access_token: str) -> bool:
    if "at_hash" not in claims:
        return True
    half = hashlib.sha256(access_token.encode()).digest()[:16]
    return _same(claims["at_hash"], base64.urlsafe_b64encode(half).rstrip(b"=").decode())


def read_id_token(token: Any, keys: KeyRing, expected: Expected) -> dict[str, Any]:
    """Verify an ID token [OIDC Core §3.1.3.7, spec psc §5.1] and return its claims.

    Raises
    ------
    UnknownIdentity
        ``psc-token-unreadable``, ``psc-algorithm``, ``psc-key-unknown``, ``psc-signature``, ``psc-token-type``,
        ``psc-issuer``, ``psc-audience``, ``psc-authorized-party``, ``psc-expired``, ``psc-issued-at``,
        ``psc-not-yet-valid``, ``psc-nonce``, ``psc-acr``, ``psc-at-hash`` or ``psc-subject``.
    """
    claims = _claims(token, keys)
    now_s = expected.now.timestamp()
    subject = claims.get("sub")
    acr = claims.get("acr")
    checks: tuple[tuple[str, bool], ...] = (
        ("psc-token-type", claims.get("typ", "ID") == "ID"),
        ("psc-issuer", _same(claims.get("iss"), expected.issuer)),
        ("psc-audience", expected.client_id in _audiences(claims)),
        ("psc-authorized-party", _azp_is_right(claims, expected.client_id)),
        ("psc-expired", _has_time_left(claims, now_s)),
        ("psc-issued-at", _is_fresh(claims, now_s)),
        ("psc-not-yet-valid", _has_begun(claims, now_s)),
        ("psc-nonce", _same(claims.get("nonce"), expected.nonce)),
        ("psc-at-hash", _at_hash_is_right(claims, expected.access_token)),
        ("psc-subject", isinstance(subject, str) and 0 < len(subject) <= 255),
        ("psc-acr", isinstance(acr, str) and acr in ACCEPTED_ACR),
    )
    for code, right in checks:
        if not right:
            raise refusal(code)
    return claims


def read_signed_userinfo(token: str, keys: KeyRing, *, issuer: str, client_id: str) -> dict[str, Any]:
    """Verify a userinfo answer that came as a JWT [OIDC Core §5.3.2] and return its claims.

    Raises
    ------
    UnknownIdentity
        As `read_id_token`; ``iss`` and ``aud`` are compared when present, the specification only recommends them.
    """
    claims = _claims(token.strip(), keys)
    if "iss" in claims and not _same(claims["iss"], issuer):
        raise refusal("psc-issuer")
    if "aud" in claims and client_id not in _audiences(claims):
        raise refusal("psc-audience")
    return claims


def read_logout_token(token: str, keys: KeyRing, *, issuer: str, client_id: str, now: datetime) -> LoggedOut:
    """Verify a back-channel logout token [OIDC Back-Channel Logout §2.6].

    That its ``jti`` was not seen before is for the caller, who keeps them.

    Raises
    ------
    UnknownIdentity
        As `read_id_token`, or ``psc-logout-token``: not a logout event, with a nonce, or naming nobody.
    """
    claims = _claims(token, keys)
    now_s = now.timestamp()
    events, sid, subject, jti = (claims.get(name) for name in ("events", "sid", "sub", "jti"))
    checks: tuple[tuple[str, bool], ...] = (
        ("psc-issuer", _same(claims.get("iss"), issuer)),
        ("psc-audience", client_id in _audiences(claims)),
        ("psc-issued-at", _is_fresh(claims, now_s)),
        ("psc-expired", "exp" not in claims or _has_time_left(claims, now_s)),
        ("psc-logout-token", isinstance(events, dict) and isinstance(events.get(_LOGOUT_EVENT), dict)),
        ("psc-logout-token", "nonce" not in claims),
        ("psc-logout-token", isinstance(jti, str) and 0 < len(jti) <= 255),
        ("psc-logout-token", all(value is None or isinstance(value, str) for value in (sid, subject))),
        ("psc-logout-token", bool(sid or subject)),
    )
    for code, right in checks:
        if not right:
            raise refusal(code)
    return LoggedOut(sid=sid, subject=subject, jti=str(jti), expires_s=int(now_s) + _MAX_AGE_S + _LEEWAY_S)
