"""The client alone: certificates, cached documents, refused keys."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import ipaddress
import socket
import ssl
import threading

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc.jwk import RSAKey

from gateway.errors import Fault, Unavailable, UnknownIdentity
from gateway.psc.oidc import PscClient, new_attempt
from gateway.psc.tokens import KeyRing
from gateway.settings import Psc
from gateway.transport import Tls
from tests.psc_misbehaving import CLIENT, Misbehaving

BACK = "http://127.0.0.1:1/psc/retour"


def certificate(folder, name, issuer=None):
    """A key and a certificate for loopback, signed by `issuer` (itself when absent)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    signer_key, signer_name = issuer or (key, subject)
    now = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .sign(signer_key, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / f"{name}.key").write_bytes(private)
    return key, subject


class MutualTls(Misbehaving):
    """Knows its client by certificate: the body names it, no secret comes."""

    def _knows(self, request, form):
        assert "authorization" not in request.headers
        assert "client_secret" not in form
        return form.get("client_id") == CLIENT


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    authority = certificate(folder, "authority")
    certificate(folder, "server", authority)
    certificate(folder, "client", authority)
    certificate(folder, "stranger")
    return folder


@pytest.fixture(scope="module")
def behind_tls(pki):
    provider = MutualTls(BACK)
    listening = socket.create_server(("127.0.0.1", 0))
    provider._origin = f"https://127.0.0.1:{listening.getsockname()[1]}"
    config = uvicorn.Config(
        provider.application(), log_level="critical", access_log=False, ssl_certfile=str(pki / "server.pem"),
        ssl_keyfile=str(pki / "server.key"), ssl_ca_certs=str(pki / "authority.pem"), ssl_cert_reqs=ssl.CERT_REQUIRED,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield provider
    server.should_exit = True
    thread.join(60)
    listening.close()


def client_with(provider, pki, name):
    own = {"certificate": pki / f"{name}.pem", "key": pki / f"{name}.key"} if name else {}
    tls = Tls(**own, authorities=pki / "authority.pem")
    return contextlib.closing(PscClient(Psc(provider.discovery_url, CLIENT, None, tls), BACK))


def test_certificate_of_ours_opens_the_door_and_names_no_secret(behind_tls, pki):
    with client_with(behind_tls, pki, "client") as client:
        client.ping()
        with pytest.raises(UnknownIdentity, match="psc-code-refused"):
            client.exchange("unknown", new_attempt())


@pytest.mark.parametrize("name", ["stranger", ""])
def test_without_it_the_provider_is_away(behind_tls, pki, name):
    with client_with(behind_tls, pki, name) as client, pytest.raises(Unavailable, match="psc-unavailable"):
        client.ping()


def test_provider_of_another_authority_is_not_believed(behind_tls, pki):
    tls = Tls(pki / "client.pem", pki / "client.key", pki / "stranger.pem")
    client = PscClient(Psc(behind_tls.discovery_url, CLIENT, None, tls), BACK)
    with contextlib.closing(client), pytest.raises(Unavailable):
        client.ping()


def test_unusable_certificate_is_said(pki):
    tls = Tls(pki / "client.pem", pki / "server.key")
    with pytest.raises(Fault, match="RCP_PSC_TLS_CERT"):
        PscClient(Psc("https://x/.well-known/wallet-openid-configuration", CLIENT, None, tls), BACK)


def test_not_configured_is_said():
    with pytest.raises(Fault, match="psc-not-configured"):
        PscClient(Psc(), BACK)


def test_addresses_of_yesterday_serve_while_the_document_is_away():
    now = [dt.datetime.now(dt.UTC)]
    provider = Misbehaving(BACK)
    with provider.serving():
        client = PscClient(Psc(provider.discovery_url, CLIENT, "s"), BACK, now=lambda: now[0])
        before = client.authorization_url(new_attempt()).partition("?")[0]
    now[0] += dt.timedelta(hours=5)
    with contextlib.closing(client):
        assert client.authorization_url(new_attempt()).partition("?")[0] == before


def ring(keys, now=lambda: dt.datetime(2026, 1, 1, tzinfo=dt.UTC)):
    asked = []

    def fetch():
        asked.append(1)
        return {"keys": keys}

    return KeyRing(fetch, now), asked


def public(bits=2048, **more):
    return RSAKey.generate_key(bits, parameters=more).as_dict(private=False)


def test_keys_are_fetched_once_and_again_only_after_a_pause():
    now = [dt.datetime(2026, 1, 1, tzinfo=dt.UTC)]
    keys, asked = ring([public(kid="a")], lambda: now[0])
    assert keys.key("a").kid == "a"
    assert keys.key(None).kid == "a"
    for _ in range(20):
        with pytest.raises(UnknownIdentity, match="psc-key-unknown"):
            keys.key("forged")
    assert len(asked) == 1
    now[0] += dt.timedelta(seconds=30)
    with pytest.raises(UnknownIdentity):
        keys.key("forged")
    assert len(asked) == 2


def test_no_name_and_two_keys_is_refused():
    keys, _ = ring([public(kid="a"), public(kid="b")])
    with pytest.raises(UnknownIdentity):
        keys.key(None)


@pytest.mark.parametrize(
    "jwk",
    [
        {**public(kid="a"), "use": "enc"},
        {**public(kid="a"), "alg": "RS512"},
        {"kty": "oct", "k": "AAAA", "kid": "a"},
        {"kty": "RSA", "n": "!", "e": "AQAB", "kid": "a"},
        {"kty": "RSA", "kid": "a"},
        "a",
        None,
    ],
)
def test_key_that_may_not_sign_is_left_out(jwk):
    keys, _ = ring([jwk])
    with pytest.raises(UnknownIdentity):
        keys.key("a")


def test_short_key_is_left_out():
    numbers = rsa.generate_private_key(65537, 1024).public_key().public_numbers()  # noqa: S505 - short on purpose
    modulus = base64.urlsafe_b64encode(numbers.n.to_bytes(128, "big")).rstrip(b"=").decode()
    keys, _ = ring([{"kty": "RSA", "n": modulus, "e": "AQAB", "kid": "a"}])
    with pytest.raises(UnknownIdentity):
        keys.key("a")


def test_document_without_keys_is_empty():
    keys, _ = ring("none")
    with pytest.raises(UnknownIdentity):
        keys.key("a")
