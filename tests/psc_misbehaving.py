"""A provider that breaks the protocol on purpose, one fault at a time: what no correct provider can be made to do."""

from __future__ import annotations

import base64
import hmac
import json
import time

from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.responses import JSONResponse, Response

from gateway.demo.psc_accounts import Account, Post
from gateway.demo.psc_standin import PscStandIn

CLIENT = "rcp-gateway-essai"
CLIENT_SECRET = "secret d’essai: é%+&"

HOSPITAL = {"structure": "1990000010", "structure_name": "CHU FICTIF", "sector": "SA01", "role": "FON-33"}
# National identifiers of PSC's test range, with right Luhn keys [spec psc §13].
ACCOUNTS = (
    Account("899700000013", "ALICE", "EXEMPLE", "DR", (Post("10", "SM36", **HOSPITAL),)),
    Account("899700000021", "BRUNO", "TEST", "DR", (Post("10", "SM45", **HOSPITAL), Post("10", "SM26"))),
    Account("399000001000001", "FELIX", "AGENT"),
    Account("899700000070", "GINA", "FAIBLE", "DR", (Post("10", "SM44", **HOSPITAL),), acr="eidas0"),
    Account("899700000088", "HUGO", "CANARIVAL", "DR", (Post("10", "SM14", **HOSPITAL),)),
)
ALICE, BRUNO, FELIX, GINA, HUGO = range(5)

_CLAIM_FAULTS = {
    "wrong_iss": {"iss": "https://auth.esw.esante.gouv.fr/auth/realms/esante-wallet"},
    "wrong_aud": {"aud": "another-client"},
    "wrong_aud_list": {"aud": ["another-client"], "azp": CLIENT},
    "many_aud_no_azp": {"aud": [CLIENT, "another-client"], "azp": None},
    "wrong_azp": {"azp": "another-client"},
    "wrong_nonce": {"nonce": "bad"},
    "no_nonce": {"nonce": None},
    "weak_acr": {"acr": "eidas0"},
    "no_acr": {"acr": None},
    "acr_list": {"acr": ["eidas1"]},
    "wrong_at_hash": {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
    "refresh_typ": {"typ": "Refresh"},
    "no_sub": {"sub": None},
    "no_exp": {"exp": None},
    "text_exp": {"exp": "later"},
}


class Misbehaving(PscStandIn):
    """Misbehaves as `fault` says; correct when it is empty."""

    fault = ""
    served_keys = 0

    def __init__(self, redirect_uri: str, logout_uri: str = "") -> None:
        super().__init__(
            ACCOUNTS,
            client_id=CLIENT,
            client_secret=CLIENT_SECRET,
            redirect_uris=[redirect_uri],
            logout_uris=[logout_uri] if logout_uri else [],
        )
        self._other = RSAKey.generate_key(2048)

    def rotate(self) -> None:
        """Sign with a new key from now on and publish only that one."""
        self._key = RSAKey.generate_key(2048, parameters={"use": "sig", "alg": "RS256", "kid": f"k{time.time_ns()}"})

    def id_claims(self, asked, access_token):
        claims = super().id_claims(asked, access_token)
        now = int(time.time())
        claims |= {
            "expired": {"iat": now - 200, "exp": now - 31},
            "stale": {"iat": now - 3600},
            "future": {"iat": now + 120, "nbf": now + 120},
            "not_yet": {"nbf": now + 120},
        }.get(self.fault, {}) | _CLAIM_FAULTS.get(self.fault, {})
        return {name: value for name, value in claims.items() if value is not None}

    def sign(self, claims):  # noqa: PLR0911 - one line a fault
        kid = self._key.kid
        match self.fault:
            case "alg_none":
                parts = ({"alg": "none", "kid": kid}, dict(claims))
                return ".".join([*(_unpadded(json.dumps(part).encode()) for part in parts), ""])
            case "alg_hs256":
                # The classic confusion: the public key's bytes as an HMAC secret.
                parts = ({"alg": "HS256", "kid": kid}, dict(claims))
                signed = ".".join(_unpadded(json.dumps(part).encode()) for part in parts)
                mac = hmac.digest(self._key.as_pem(private=False), signed.encode(), "sha256")
                return f"{signed}.{_unpadded(mac)}"
            case "alg_rs512":
                private = RSAKey.import_key(self._key.as_pem(private=True))
                return jwt.encode({"alg": "RS512", "kid": kid}, dict(claims), private, algorithms=["RS512"])
            case "other_key":
                return jwt.encode({"alg": "RS256", "kid": kid}, dict(claims), self._other)
            case "unknown_kid":
                return jwt.encode({"alg": "RS256", "kid": "nobody"}, dict(claims), self._other)
            case "altered":
                head, body, signature = super().sign(claims).split(".")
                changed = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
                changed["sub"] = "f:other:899700000021"
                return ".".join([head, _unpadded(json.dumps(changed).encode()), signature])
            case "garbage":
                return "not.a.token"
            case "no_token":
                return ""
        return super().sign(claims)

    def keys(self):
        self.served_keys += 1
        return super().keys()

    def metadata(self):
        document = super().metadata()
        match self.fault:
            case "discovery_foreign":
                return document | {"issuer": "https://auth.esw.esante.gouv.fr/auth/realms/esante-wallet"}
            case "discovery_short":
                return {"issuer": document["issuer"]}
            case "post_only":
                return document | {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
        return document

    def userinfo_answer(self, asked) -> Response:  # noqa: PLR0911 - one line a fault
        told = asked.account.userinfo()
        match self.fault:
            case "userinfo_sub":
                return JSONResponse(told | {"sub": "f:other:899700000021"})
            case "userinfo_list":
                return JSONResponse([told])
            case "userinfo_500":
                return JSONResponse({"error": "server_error"}, 500)
            case "userinfo_huge":
                return Response(b" " * (2 << 20) + b"{}", media_type="application/json")
            case "userinfo_jwt" | "userinfo_jwt_aud":
                audience = CLIENT if self.fault == "userinfo_jwt" else "another-client"
                signed = super().sign(told | {"iss": self.issuer, "aud": audience})
                return Response(signed, media_type="application/jwt")
            case "userinfo_jwt_forged":
                forged = jwt.encode({"alg": "RS256", "kid": self._key.kid}, told, self._other)
                return Response(forged, media_type="application/jwt")
        return JSONResponse(told)


def _unpadded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
