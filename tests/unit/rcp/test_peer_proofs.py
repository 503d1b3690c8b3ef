"""What a connection proves: addresses in all their spellings, and certificates."""

from __future__ import annotations

import ssl
import subprocess

import pytest

from gateway.rcp import peer_proofs


@pytest.mark.parametrize(
    ("host", "address", "expected"),
    [
        ("10.0.0.7", "10.0.0.7", True),
        ("10.0.0.7", "::ffff:10.0.0.7", True),  # as a socket for both families shows it
        ("10.0.0.7", "::ffff:a00:7", True),
        ("::ffff:10.0.0.7", "10.0.0.7", True),
        ("10.0.0.7", "10.0.0.70", False),
        ("10.0.0.7", "::ffff:10.0.0.8", False),
        ("10.0.0.7", "::10.0.0.7", False),  # « compatible », which is no longer in use, is another address
        ("10.0.0.7", "64:ff9b::a00:7", False),  # nor is one that a translator makes
        ("2001:db8::7", "2001:0DB8:0:0:0:0:0:7", True),
        ("2001:db8::7", "2001:db8::8", False),
        ("::1", "::1", True),
        ("::1", "127.0.0.1", False),
        ("localhost", "::ffff:127.0.0.1", True),
        ("nulle-part.invalid", "127.0.0.1", False),
        ("127.0.0.1", "", False),
        ("127.0.0.1", "not an address", False),
    ],
)
def test_an_address_is_a_host_s_however_it_is_written(host, address, expected):
    assert peer_proofs.is_at(host, address) is expected


def test_a_name_that_does_not_resolve_has_no_address():
    assert peer_proofs.addresses("127.0.0.1") == {"127.0.0.1"}
    assert peer_proofs.addresses("nulle-part.invalid") == set()
    assert peer_proofs.addresses("é" * 64) == set()


def test_a_fingerprint_is_what_openssl_prints(tmp_path):
    key, pem = tmp_path / "key.pem", tmp_path / "one.pem"
    made = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    subprocess.run([*made, "-subj", "/CN=PACS", "-keyout", key, "-out", pem], check=True, capture_output=True)
    printed = subprocess.run(
        ["openssl", "x509", "-in", pem, "-noout", "-fingerprint", "-sha256"], check=True, capture_output=True, text=True
    ).stdout.partition("=")[2]
    der = ssl.PEM_cert_to_DER_cert(pem.read_text())
    assert peer_proofs.fingerprint(printed) == peer_proofs.fingerprint_of(der)
    assert peer_proofs.fingerprint_of(None) is None


@pytest.mark.parametrize("digits", ["", "0" * 63, "0" * 65, "g" * 64, "٠" * 64])
def test_what_is_no_fingerprint_is_none(digits):
    assert peer_proofs.fingerprint(digits) is None
