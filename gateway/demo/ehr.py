"""The hospital's record system of the demonstration: a SMART backend client over HTTP, as a vendor would write it.

[SMART backend services 2.2; FHIR R4 http]
"""

from __future__ import annotations

import time
import uuid
from typing import Any
from urllib.parse import urljoin

import httpx
import msgspec
from joserfc import jwt
from joserfc.jwk import ECKey

from gateway.demo.narration import NotSeen

__all__ = ["Ehr"]

_FHIR_JSON = "application/fhir+json"
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ASSERTION_LIFE_S = 240
_TIMEOUT_S = 60.0


class Ehr:
    """One FHIR client with a key of its own.

    Parameters
    ----------
    client_id
        As the gateway's registry knows it.
    """

    def __init__(self, base_url: str, client_id: str, scopes: str) -> None:
        self.client_id = client_id
        self.scopes = scopes
        self.fhir = f"{base_url}/fhir"
        self.http = httpx.Client(base_url=base_url, timeout=_TIMEOUT_S)
        self._key = ECKey.generate_key("P-384", parameters={"alg": "ES384", "use": "sig", "kid": uuid.uuid4().hex})
        self._bearer = ""

    @property
    def public_keys(self) -> dict[str, Any]:
        """The public half, as its partner registers it."""
        return {"keys": [dict(self._key.as_dict(private=False))]}

    def sign_in(self) -> dict[str, Any]:
        """Get an access token with a signed assertion [SMART backend services, private_key_jwt]."""
        configuration = self.http.get("/fhir/.well-known/smart-configuration")
        endpoint = urljoin(str(self.http.base_url), "/oauth/token")
        if configuration.status_code == httpx.codes.OK:
            endpoint = configuration.json()["token_endpoint"]
        now = int(time.time())
        claims = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": endpoint,
            "jti": uuid.uuid4().hex,
            "iat": now,
            "exp": now + _ASSERTION_LIFE_S,
        }
        assertion = jwt.encode({"alg": "ES384", "typ": "JWT", "kid": self._key.kid}, claims, self._key, ["ES384"])
        answer = self.http.post(
            endpoint,
            data={
                "grant_type": "client_credentials",
                "scope": self.scopes,
                "client_assertion_type": _ASSERTION,
                "client_assertion": assertion,
            },
        )
        token = _json(answer, "Jeton SMART", httpx.codes.OK)
        self._bearer = token["access_token"]
        return token

    def transaction(self, bundle: Any) -> tuple[bytes, dict[str, Any]]:
        """Post a transaction; return the answer's bytes and tree."""
        answer = self.http.post(
            "/fhir", content=msgspec.json.encode(bundle), headers=self._headers({"Content-Type": _FHIR_JSON})
        )
        return answer.content, _json(answer, "Transaction FHIR", httpx.codes.OK)

    def search(self, query: str) -> dict[str, Any]:
        """Search; ``query`` is what stands after ``/fhir/``."""
        return _json(self.http.get(f"/fhir/{query}", headers=self._headers()), f"Recherche {query}", httpx.codes.OK)

    def matches(self, query: str) -> list[dict[str, Any]]:
        """Return the resources that a search matches."""
        entries = self.search(query).get("entry", [])
        return [entry["resource"] for entry in entries if entry.get("search", {}).get("mode", "match") == "match"]

    def download(self, address: str, accept: str) -> httpx.Response:
        """Get bytes, from a path of the gateway or an absolute address on it."""
        url = address if address.startswith(("http", "/")) else f"{self.fhir}/{address}"
        answer = self.http.get(url, headers=self._headers({"Accept": accept}))
        if answer.status_code != httpx.codes.OK:
            raise NotSeen(f"Lecture de {address}", _why(answer))
        return answer

    def close(self) -> None:
        """Give the connections back."""
        self.http.close()

    def _headers(self, more: dict[str, str] | None = None) -> dict[str, str]:
        return {"Accept": _FHIR_JSON, "Authorization": f"Bearer {self._bearer}", **(more or {})}


def _json(answer: httpx.Response, what: str, expected: int) -> dict[str, Any]:
    if answer.status_code != expected:
        raise NotSeen(what, _why(answer))
    tree: dict[str, Any] = answer.json()
    return tree


def _why(answer: httpx.Response) -> str:
    return f"réponse {answer.status_code} : {answer.text[:600]}"
