"""A gateway's FHIR wire over real HTTP and a real PostgreSQL, and a hospital's client with its own key."""

from __future__ import annotations

import contextlib
import functools
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

from gateway.app.gateway import open_gateway
from gateway.app.http import application
from gateway.exchange.blobs import BlobStore
from gateway.fhir.auth import SmartServer
from gateway.fhir.reachable import Endpoints
from gateway.fhir.represent import Representer
from gateway.fhir.routes import FhirWire
from gateway.fhir.subscribers import Subscribing
from gateway.model.audit import AuditTrail
from gateway.model.directory import Organisation
from gateway.model.partner import Partner, PartnerCredential
from gateway.model.reads import Reads
from gateway.model.store import Store
from gateway.mssante.translate import Composer
from gateway.rcp.step import DomainClock, Steps
from gateway.settings import Limits, load
from gateway.web import background
from gateway.web.authenticators import BEARER, Authenticators
from gateway.web.request_id import RequestIdMiddleware
from gateway.web.sealed import Seal
from tests.conftest import Server
from tests.e2e.fhir import samples
from tests.loopback import free_port
from tests.report_samples import press
from tests.world import World, build

SCOPES = (
    "system/Patient.crus system/Condition.crus system/ServiceRequest.crus system/Task.crus "
    "system/QuestionnaireResponse.crus system/Observation.crus system/*.rs"
)
ALL_SCOPES = "system/*.cruds"
#: Of the establishment that runs the RCP.
HOME_FINESS = "750000018"
#: The domain's clock stands ten days before the session.
CLOCK = datetime(2026, 3, 9, 8, 0, tzinfo=UTC)
#: A search of a second may take a minute on a busy machine; what is too costly is asked by tests of their own.
SEARCH_S = 300
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass
class Served:
    """The running wire."""

    url: str
    steps: Steps
    store: Store
    app: FastAPI
    smart: SmartServer | None = None

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
    scopes: str

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

    def ask_token(self, assertion: str | None = None, scope: str | None = None) -> httpx.Response:
        form = {
            "grant_type": "client_credentials",
            "scope": scope or self.scopes,
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": assertion or self.assertion(),
        }
        return httpx.post(f"{self.served.url}/oauth/token", data=form, timeout=120)

    def client(self, scope: str | None = None) -> httpx.Client:
        headers = {
            "Authorization": self._bearer(scope),
            "Accept": "application/fhir+json",
            "Content-Type": "application/fhir+json",
        }
        made = httpx.Client(base_url=self.served.base + "/", headers=headers, timeout=60)
        since = time.monotonic()

        def renew(request: httpx.Request) -> None:
            nonlocal since
            own = request.headers.get("Authorization") == made.headers["Authorization"]
            if own and time.monotonic() - since > 200:  # a token lives 300 s, a module's client as long as it takes
                made.headers["Authorization"] = request.headers["Authorization"] = self._bearer(scope)
                since = time.monotonic()

        made.event_hooks["request"].append(renew)
        return made

    def _bearer(self, scope: str | None) -> str:
        answer = self.ask_token(scope=scope)
        assert answer.status_code == 200, answer.text
        return f"Bearer {answer.json()['access_token']}"


@pytest.fixture
def representer(blobs: BlobStore) -> Representer:
    return Representer(blobs)


@pytest.fixture
def fhir_steps(make_steps: Callable[..., Steps], representer: Representer) -> Steps:
    return make_steps(clock=DomainClock(CLOCK), represent=representer)


@pytest.fixture
def limits() -> Limits:
    """What the wire takes; a test with narrower ones has a fixture of this name."""
    return Limits(search_seconds=SEARCH_S)


@pytest.fixture
def served(
    fhir_steps: Steps, representer: Representer, store: Store, trail: AuditTrail, blobs: BlobStore, limits: Limits
) -> Iterator[Served]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    secret = secrets.token_bytes(32)
    smart = SmartServer(fhir_steps, secret, url)
    reads = Reads(store, trail)

    @contextlib.asynccontextmanager
    async def closing(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await reads.close()

    app = FastAPI(lifespan=closing)
    app.state.authenticators = Authenticators()
    app.state.authenticators.register(BEARER, smart.authenticate)
    wire = FhirWire(
        steps=fhir_steps,
        representer=representer,
        reads=reads,
        blobs=blobs,
        smart=smart,
        limits=limits,
        letters=Composer(address="rcp@3c.mssante.example", nil="000000", name="RCP Sein"),
        press=press(blobs),
        subscribing=Subscribing(Seal(secret, "essai"), Endpoints(), smart.fhir_base, limits),
    )
    app.router.routes.append(wire.router())
    app.add_middleware(RequestIdMiddleware)
    with background.served(app, port=port):
        yield Served(url, fhir_steps, store, app, smart)


@dataclass
class Shared:
    """A whole gateway that the tests of one module share, with one client of it."""

    served: Served
    world: World
    hospital: Hospital
    database_url: str


@pytest.fixture(scope="module")
def shared(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """The application as it is composed for production, every wire mounted; one database for tests that only add."""
    name = server.take()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = load(
        {
            "RCP_DATABASE_URL": server.url_of(name),
            "RCP_DATA_DIR": str(tmp_path_factory.mktemp("gateway")),
            "RCP_PUBLIC_URL": url,
            "RCP_CLOCK": CLOCK.isoformat(),
            "RCP_FHIR_UPDATE_CREATE": "on",
            "RCP_LIMIT_REQUESTS_PER_MINUTE": "10000000",
            "RCP_LIMIT_SEARCH_SECONDS": str(SEARCH_S),
        }
    )
    with open_gateway(settings) as gateway:
        app = application(gateway)
        with background.served(app, port=port), gateway.store.session() as session:
            world = build(session)
            session.commit()
            served = Served(url, gateway.steps, gateway.store, app)
            hospital = register(served, world.partner, scopes=ALL_SCOPES)
            yield Shared(served, world, hospital, server.url_of(name))
    server.give_back(name)


@pytest.fixture(scope="module")
def ehr(shared: Shared) -> Iterator[httpx.Client]:
    """The shared gateway's client; a module with a database of its own has another."""
    with shared.hospital.client() as client:
        yield client


@pytest.fixture
def key() -> str:
    """A business number that nobody else uses."""
    return uuid.uuid4().hex[:12]


@pytest.fixture
def someone(ehr: httpx.Client, key: str) -> str:
    """A patient without dossier: ``Patient/id``."""
    made = ehr.post("Patient", json=samples.patient(key, ins=None, family=f"P{key}"))
    assert made.status_code == 201, made.text
    return f"Patient/{made.json()['id']}"


@pytest.fixture
def home(store: Store, world: World, admit: Callable[..., Hospital]) -> Iterator[httpx.Client]:
    """Software of the establishment that runs the RCP: not the hospital that inscribes."""
    with store.session() as session:
        session.get_one(Organisation, world.organisation.id).finess = HOME_FINESS
        partner = Partner(name="3C d’essai", finess=HOME_FINESS, patient_domains=["https://3c.example/ns/ipp"])
        session.add(partner)
        session.commit()
    with admit(partner, scopes=ALL_SCOPES).client() as client:
        yield client


@pytest.fixture
def world(store: Store) -> Iterator[World]:
    """The rows of a network with one RCP, committed."""
    with store.session() as session:
        made = build(session)
        session.commit()
        yield made


def register(served: Served, partner: Partner, *, key: Any = None, scopes: str = SCOPES) -> Hospital:
    """Make a partner a FHIR client with a key of its own."""
    key = key or ECKey.generate_key("P-384", {"kid": secrets.token_hex(4), "use": "sig"})
    client_id = f"ehr-{secrets.token_hex(4)}"
    with served.store.session() as session:
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
    return Hospital(served, client_id, key, partner, scopes)


@pytest.fixture
def admit(served: Served) -> Callable[..., Hospital]:
    """Register a partner as a FHIR client with a key of its own."""
    return functools.partial(register, served)


@pytest.fixture
def hospital(world: World, admit: Callable[..., Hospital]) -> Hospital:
    return admit(world.partner)


@pytest.fixture
def rsa_key() -> Any:
    return RSAKey.generate_key(2048, {"kid": secrets.token_hex(4), "use": "sig"})
