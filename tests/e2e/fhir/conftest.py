"""A gateway's FHIR wire over real HTTP and a real PostgreSQL, and a hospital's client with its own key."""

from __future__ import annotations

import contextlib
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from gateway.exchange.blobs import BlobStore
from gateway.fhir.auth import SmartServer
from gateway.fhir.represent import Representer
from gateway.fhir.routes import FhirWire
from gateway.model.audit import AuditTrail
from gateway.model.partner import Partner, PartnerCredential
from gateway.model.reads import Reads
from gateway.model.store import Store
from gateway.rcp.step import DomainClock, Steps
from gateway.web import background
from gateway.web.authenticators import BEARER, Authenticators, in_thread
from gateway.web.request_id import RequestIdMiddleware
from tests.loopback import free_port
from tests.world import World, build

SCOPES = (
    "system/Patient.crus system/Condition.crus system/ServiceRequest.crus system/Task.crus "
    "system/QuestionnaireResponse.crus system/Observation.crus system/*.rs"
)
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass
class Served:
    """The running wire."""

    url: str
    smart: SmartServer
    steps: Steps
    store: Store

    @property
    def base(self) -> str:
        return f"{self.url}/fhir"


@dataclass
class Hospital:
    """A partner's client: its key, its name, its token."""

    served: Served
    client_id: str
    key: Any
    partner: Partner

    def claims(self, **changed: Any) -> dict[str, Any]:
        now = int(time.time())
        return {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": f"{self.served.url}/oauth/token",
            "exp": now + 240,
            "iat": now,
            "jti": str(uuid.uuid4()),
        } | changed

    def assertion(self, *, key: Any = None, alg: str | None = None, **changed: Any) -> str:
        used = key or self.key
        alg = alg or ("ES384" if isinstance(used, ECKey) else "RS384")
        return jwt.encode({"alg": alg, "kid": used.kid, "typ": "JWT"}, self.claims(**changed), used, algorithms=[alg])

    def ask_token(self, assertion: str | None = None, scope: str = SCOPES) -> httpx.Response:
        form = {
            "grant_type": "client_credentials",
            "scope": scope,
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": assertion or self.assertion(),
        }
        return httpx.post(f"{self.served.url}/oauth/token", data=form, timeout=30)

    def client(self, scope: str = SCOPES) -> httpx.Client:
        answer = self.ask_token(scope=scope)
        assert answer.status_code == 200, answer.text
        headers = {
            "Authorization": f"Bearer {answer.json()['access_token']}",
            "Accept": "application/fhir+json",
            "Content-Type": "application/fhir+json",
        }
        return httpx.Client(base_url=self.served.base + "/", headers=headers, timeout=60)


@pytest.fixture
def representer(blobs: BlobStore) -> Representer:
    return Representer(blobs)


@pytest.fixture
def fhir_steps(make_steps: Callable[..., Steps], representer: Representer) -> Steps:
    """The domain's clock stands ten days before the session."""
    return make_steps(clock=DomainClock(datetime(2026, 3, 9, 8, 0, tzinfo=UTC)), represent=representer)


@pytest.fixture
def served(
    fhir_steps: Steps, representer: Representer, store: Store, trail: AuditTrail, blobs: BlobStore
) -> Iterator[Served]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    smart = SmartServer(fhir_steps, secrets.token_bytes(32), url)
    reads = Reads(store, trail)

    @contextlib.asynccontextmanager
    async def closing(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await reads.close()

    app = FastAPI(lifespan=closing)
    app.state.authenticators = Authenticators()
    app.state.authenticators.register(BEARER, in_thread(smart.authenticate))
    wire = FhirWire(steps=fhir_steps, representer=representer, reads=reads, blobs=blobs, smart=smart)
    app.include_router(wire.router())
    app.add_middleware(RequestIdMiddleware)
    with background.served(app, port=port):
        yield Served(url, smart, fhir_steps, store)


@pytest.fixture
def world(store: Store) -> Iterator[World]:
    """The rows of a network with one RCP, committed."""
    with store.session() as session:
        made = build(session)
        session.commit()
        yield made


@pytest.fixture
def admit(served: Served, store: Store) -> Callable[..., Hospital]:
    """Register a partner as a FHIR client with a key of its own."""

    def register(partner: Partner, *, key: Any = None, scopes: str = SCOPES) -> Hospital:
        key = key or ECKey.generate_key("P-384", {"kid": secrets.token_hex(4), "use": "sig"})
        client_id = f"ehr-{secrets.token_hex(4)}"
        with store.session() as session:
            session.add(
                PartnerCredential(
                    partner_id=partner.id,
                    kind="fhir",
                    value=client_id,
                    details={"jwks": {"keys": [key.as_dict(private=False)]}},
                )
            )
            held = session.get(Partner, partner.id)
            assert held is not None
            held.fhir_scopes = scopes.split()
            session.commit()
        return Hospital(served, client_id, key, partner)

    return register


@pytest.fixture
def hospital(world: World, admit: Callable[..., Hospital]) -> Hospital:
    return admit(world.partner)


@pytest.fixture
def rsa_key() -> Any:
    return RSAKey.generate_key(2048, {"kid": secrets.token_hex(4), "use": "sig"})
