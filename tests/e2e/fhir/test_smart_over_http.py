"""SMART backend services as a client lives it: a key, an assertion, a token for minutes, scopes."""

from __future__ import annotations

import base64
import itertools
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey
from sqlalchemy import create_engine, make_url, select, text

from gateway.model.audit import AuditLine
from gateway.model.partner import Partner
from gateway.model.store import Store, utcnow
from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import ASSERTION_TYPE, SCOPES, Hospital, Served
from tests.world import World


def test_discovery_names_what_smart_requires(served: Served) -> None:
    found = httpx.get(f"{served.base}/.well-known/smart-configuration").json()
    assert found["token_endpoint"] == f"{served.url}/oauth/token"
    assert found["token_endpoint_auth_methods_supported"] == ["private_key_jwt"]
    assert set(found["token_endpoint_auth_signing_alg_values_supported"]) == {"RS384", "ES384"}
    assert "client_credentials" in found["grant_types_supported"]
    assert "client-confidential-asymmetric" in found["capabilities"]


def test_token_is_signed_short_and_verifiable_by_the_published_keys(served: Served, hospital: Hospital) -> None:
    answer = hospital.ask_token()
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body["token_type"] == "bearer"
    assert body["expires_in"] == 300
    published = KeySet.import_key_set(httpx.get(f"{served.url}/oauth/jwks").json())
    claims = jwt.decode(body["access_token"], published, algorithms=["ES384"]).claims
    assert claims["aud"] == served.base
    assert 0 < claims["exp"] - time.time() <= 300
    assert all("d" not in key for key in httpx.get(f"{served.url}/oauth/jwks").json()["keys"])


def test_rs384_is_accepted_too(world: World, admit: Callable[..., Hospital], rsa_key: Any) -> None:
    assert admit(world.partner, key=rsa_key).ask_token().status_code == 200


def test_an_assertion_serves_once(hospital: Hospital) -> None:
    assertion = hospital.assertion()
    assert hospital.ask_token(assertion).status_code == 200
    again = hospital.ask_token(assertion)
    assert (again.status_code, again.json()["error"]) == (401, "invalid_client")


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": "https://autre.example/oauth/token"},
        {"exp": -120},
        {"exp": 3600},
        {"exp": None},
        {"sub": "ehr-inconnu", "iss": "ehr-inconnu"},
        {"iss": "quelqu-un-d-autre"},
        {"jti": None},
        {"nbf": 3600},
    ],
    ids=["aud", "perime", "trop-loin", "sans-exp", "inconnu", "iss", "sans-jti", "nbf"],
)
def test_a_bad_assertion_is_refused_and_audited(store: Store, hospital: Hospital, changed: dict[str, Any]) -> None:
    # Seconds from now: hours may pass between the reading of this file and its tests.
    changed = {name: int(time.time()) + told if isinstance(told, int) else told for name, told in changed.items()}
    answer = hospital.ask_token(hospital.assertion(**changed))
    assert answer.status_code == 401
    assert answer.json()["error"] == "invalid_client"
    with store.session() as session:
        lines = session.scalars(select(AuditLine).where(AuditLine.event == "connexion")).all()
    assert [line.outcome for line in lines] == ["8"]


def test_a_foreign_key_and_weak_algorithms_are_refused(hospital: Hospital) -> None:
    foreign = ECKey.generate_key("P-384", {"kid": hospital.key.kid})
    assert hospital.ask_token(hospital.assertion(key=foreign)).status_code == 401
    secret = OctKey.import_key("x" * 48, {"kid": hospital.key.kid})
    weak = jwt.encode({"alg": "HS384", "kid": hospital.key.kid}, hospital.claims(), secret, algorithms=["HS384"])
    assert hospital.ask_token(weak).status_code == 401
    assert hospital.ask_token("eyJhbGciOiJub25lIn0.e30.").status_code == 401
    assert hospital.ask_token("n’importe quoi").status_code == 401


def test_an_assertion_nested_beyond_reading_is_refused_like_any_other(hospital: Hospital) -> None:
    head, _, sign = hospital.assertion().split(".")
    deep = base64.urlsafe_b64encode(b"[" * 9000).rstrip(b"=").decode("ascii")
    answer = hospital.ask_token(f"{head}.{deep}.{sign}")
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_only_registered_scopes_are_granted(hospital: Hospital) -> None:
    body = hospital.ask_token(scope="system/Patient.cruds system/Consent.crud system/Patient.read").json()
    assert body["scope"].split() == ["system/Patient.crus", "system/Consent.r", "system/Patient.rs"]
    refused = hospital.ask_token(scope="user/Patient.rs openid")
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope")


def test_other_grants_are_refused(served: Served) -> None:
    form = {"grant_type": "password", "username": "x", "password": "y"}
    answer = httpx.post(f"{served.url}/oauth/token", data=form)
    assert (answer.status_code, answer.json()["error"]) == (400, "unsupported_grant_type")
    bare = {"grant_type": "client_credentials", "client_assertion_type": ASSERTION_TYPE}
    assert httpx.post(f"{served.url}/oauth/token", data=bare).status_code == 401


def test_without_a_good_token_nothing_is_read(served: Served, hospital: Hospital) -> None:
    for headers in ({}, {"Authorization": "Bearer abc"}, {"Authorization": "Basic eDp5"}):
        answer = httpx.get(f"{served.base}/Patient", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json()["issue"][0]["code"] == "login"
    foreign = ECKey.generate_key("P-384")
    forged = jwt.encode(
        {"alg": "ES384"},
        {"iss": served.url, "aud": served.base, "client_id": hospital.client_id, "scope": SCOPES, "exp": 9999999999},
        foreign,
        algorithms=["ES384"],
    )
    assert httpx.get(f"{served.base}/Patient", headers={"Authorization": f"Bearer {forged}"}).status_code == 401


def test_a_scope_that_was_not_granted_is_refused(world: World, hospital: Hospital) -> None:
    with hospital.client("system/Patient.rs") as ehr:
        written = ehr.post("Patient", json=samples.patient())
        assert written.status_code == 403
        assert "portee-insuffisante" in written.text
        assert ehr.get("Patient").status_code == 200
        assert ehr.get("Condition").status_code == 403


def test_a_revoked_partner_is_refused_at_once(store: Store, served: Served, hospital: Hospital) -> None:
    with hospital.client() as ehr:
        assert ehr.get("Patient").status_code == 200
        with store.session() as session:
            partner = session.get(Partner, hospital.partner.id)
            assert partner is not None
            partner.revoked_at = utcnow()
            session.commit()
        served.smart.forget()
        assert ehr.get("Patient").status_code == 401
    assert hospital.ask_token().status_code == 401


class _Later:
    """The time module, just after a token's life."""

    monotonic = staticmethod(time.monotonic)

    @staticmethod
    def time() -> float:
        return time.time() + 301


def test_a_token_that_is_remembered_expires_all_the_same(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    with hospital.client() as ehr:
        assert [ehr.get("Patient").status_code for _ in range(2)] == [200, 200]
        monkeypatch.setattr("gateway.fhir.auth.time", _Later)
        late = ehr.get("Patient")
        assert (late.status_code, "jeton-expire" in late.text) == (401, True)


def test_a_token_that_is_remembered_does_not_outlive_its_client(
    store: Store, hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the database says of a client is believed `LIVE_S` seconds: here not at all.
    monkeypatch.setattr("gateway.fhir.auth_clients.LIVE_S", 0.0)
    with hospital.client() as ehr:
        assert [ehr.get("Patient").status_code for _ in range(2)] == [200, 200]
        with store.session() as session:
            partner = session.get(Partner, hospital.partner.id)
            assert partner is not None
            partner.revoked_at = utcnow()
            session.commit()
        assert ehr.get("Patient").status_code == 401


def test_a_remembered_token_does_not_vouch_for_a_changed_one(hospital: Hospital) -> None:
    with hospital.client() as ehr:
        assert ehr.get("Patient").status_code == 200
        head, claims, signature = ehr.headers["authorization"].split(".")
        for forged in (f"{head}.{claims}.{signature[:-6]}AAAAAA", f"{head}.{claims}.", f"{head}.{claims}"):
            assert ehr.get("Patient", headers={"Authorization": forged}).status_code == 401


def test_a_token_allows_no_more_than_its_partner_is_registered_for_now(
    store: Store, hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.fhir.auth_clients.LIVE_S", 0.0)

    numbers = itertools.count(1)

    def register(scopes: list[str]) -> None:
        with store.session() as session:
            session.get_one(Partner, hospital.partner.id).fhir_scopes = scopes
            session.commit()

    def allowed() -> list[int]:
        chained = ehr.get("Observation?patient.name=x").status_code
        written = ehr.post("Patient", json=samples.patient(f"{next(numbers):06d}", ins=None))
        return [ehr.get("Patient").status_code, written.status_code, chained]

    with hospital.client("system/Patient.crus system/Observation.rs") as ehr:
        assert allowed() == [200, 201, 200]
        register(["system/Patient.rs"])
        assert allowed() == [200, 403, 403]
        register(["system/*.r"])
        assert allowed() == [403, 403, 403]
        register([])
        assert allowed() == [403, 403, 403]
        # More than the token says is not given either, and what comes back is there again.
        register(["system/*.cruds"])
        assert allowed() == [200, 201, 200]
        assert ehr.get("Condition").status_code == 403


def test_what_the_database_says_of_a_client_is_asked_again_after_seconds(
    store: Store, served: Served, hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = 0.0
    now = time.monotonic

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now() + later

    monkeypatch.setattr("gateway.fhir.auth_clients.time", Clock)
    with hospital.client() as ehr:
        assert ehr.get("Patient").status_code == 200
        with store.session() as session:
            session.get_one(Partner, hospital.partner.id).fhir_scopes = []
            session.commit()
        later = 5.0
        assert ehr.get("Patient").status_code == 403


def test_a_database_that_does_not_answer_is_unavailable_to_whoever_proves_himself(
    store: Store, served: Served, hospital: Hospital
) -> None:
    name, assertion = make_url(store.dsn).database, hospital.assertion()
    other = create_engine(store.url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with hospital.client() as ehr, other.connect() as aside:
        assert ehr.get("metadata").status_code == ehr.get("Patient").status_code == 200
        served.smart.forget()
        aside.execute(text(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'))
        store.engine.dispose()
        try:
            refused = [ehr.get("Patient"), ehr.post("Basic", json={}), hospital.ask_token(assertion)]
        finally:
            aside.execute(text(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'))
        assert [(one.status_code, one.headers.get("Retry-After")) for one in refused] == [(503, "5")] * 3
        assert ehr.get("Patient").status_code == 200
    other.dispose()
