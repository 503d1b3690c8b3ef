"""One misbehaving provider a worker, one portal a test."""

from __future__ import annotations

import httpx
import pytest

from gateway.settings import Psc
from gateway.web.rate import Rate
from tests.loopback import free_port
from tests.psc_misbehaving import CLIENT, CLIENT_SECRET, Misbehaving
from tests.psc_portal import portal_address, served_portal


@pytest.fixture(scope="session")
def _provider():
    port = free_port()
    public = portal_address(port)
    provider = Misbehaving(f"{public}/psc/retour", f"{public}/connexion")
    with provider.serving():
        yield provider, port


@pytest.fixture
def provider(_provider):
    """The provider, correct at the start of each test."""
    _provider[0].fault = ""
    return _provider[0]


@pytest.fixture
def gateway_port(_provider):
    """The port of which the provider knows the return address."""
    return _provider[1]


@pytest.fixture
def psc(provider):
    """Settings of a gateway that trusts the provider."""
    return Psc(discovery_url=provider.discovery_url, client_id=CLIENT, client_secret=CLIENT_SECRET)


@pytest.fixture
def portal(steps, psc, gateway_port):
    """The portal over a database of this test's own."""
    with served_portal(steps, psc, port=gateway_port, rate=Rate("essais", 100_000)) as portal:
        yield portal


@pytest.fixture
def browser(portal):
    """A browser without a session."""
    with httpx.Client(timeout=60, base_url=portal.origin, follow_redirects=True) as client:
        yield client
