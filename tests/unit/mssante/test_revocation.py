"""Revocation lists: which serve, which never take the place of a better one (spec mssante 7.3, S10)."""

from __future__ import annotations

import os

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.mssante.revocation import RevocationLists, Untrusted
from tests.e2e.mail_servers import Authority

pytestmark = pytest.mark.usefixtures("nothing_names_anybody")


@pytest.fixture
def scene(tmp_path):
    class Scene:
        authority = Authority(tmp_path / "ca")
        good, _ = authority.issue("bon.example")
        bad, _ = authority.issue("repris.example")
        file, kept = tmp_path / "liste.crl", tmp_path / "kept.pem"
        written_s = 1_790_000_000

        def write(self, content):
            """At a time of its own: two writings within a tick of the file system’s clock look alike."""
            self.file.write_bytes(content)
            self.written_s += 60
            os.utime(self.file, (self.written_s, self.written_s))

        def lists(self):
            return RevocationLists(self.file, self.authority.file, self.kept)

    return Scene()


def said(lists, certificate):
    der = x509.load_pem_x509_certificate(certificate.read_bytes()).public_bytes(Encoding.DER)
    try:
        lists.require(der)
    except Untrusted as refusal:
        return refusal.code
    return "trusted"


@pytest.mark.parametrize("der", [True, False])
def test_a_list_says_who_was_revoked(scene, der):
    scene.write(scene.authority.revoke(scene.bad, der=der))
    lists = scene.lists()
    assert (said(lists, scene.good), said(lists, scene.bad), lists.fault()) == ("trusted", "tls-revoked", None)


def test_a_list_that_changes_is_read_again(scene):
    scene.write(scene.authority.revoke(began_days_ago=1.5))
    lists = scene.lists()
    assert said(lists, scene.bad) == "trusted"
    scene.write(scene.authority.revoke(scene.bad))
    assert said(lists, scene.bad) == "tls-revoked"


@pytest.mark.parametrize("what", ["gone", "garbage", "empty", "expired", "older", "forged", "cut"])
def test_what_is_not_better_never_takes_the_place_of_the_last_valid_list(scene, tmp_path, what):
    scene.write(scene.authority.revoke(scene.bad, began_days_ago=1))
    lists = scene.lists()
    assert said(lists, scene.bad) == "tls-revoked"
    match what:
        case "gone":
            scene.file.unlink()
        case "garbage":
            scene.write(b"<html>503</html>")
        case "empty":
            scene.write(b"")
        case "expired":
            scene.write(scene.authority.revoke(began_days_ago=0.5, days=0.1))
        case "older":
            scene.write(scene.authority.revoke(began_days_ago=1.9))
        case "forged":
            scene.write(Authority(tmp_path / "faux").revoke(scene.good, began_days_ago=0.1))
        case "cut":
            scene.write(scene.authority.revoke(began_days_ago=0.1)[:-60])
    assert (said(lists, scene.bad), said(lists, scene.good)) == ("tls-revoked", "trusted")
    assert "dernière valable" in lists.fault()
    again = scene.lists()
    assert (said(again, scene.bad), said(again, scene.good)) == ("tls-revoked", "trusted"), "across a restart too"
    scene.write(scene.authority.revoke(began_days_ago=0.01))
    assert (said(lists, scene.bad), lists.fault()) == ("trusted", None)


def test_an_expired_list_serves_when_there_is_no_other_and_is_told(scene):
    scene.write(scene.authority.revoke(scene.bad, began_days_ago=3, days=1))
    lists = scene.lists()
    assert (said(lists, scene.bad), said(lists, scene.good)) == ("tls-revoked", "trusted")
    assert "périmée" in lists.fault()


def test_without_any_list_nobody_is_believed(scene):
    lists = scene.lists()
    assert said(lists, scene.good) == "tls-crl-missing"
    assert "aucune liste" in lists.fault()


@pytest.mark.parametrize(
    "extension",
    [
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.250.1.999.1"), b"\x05\x00"),  # critical, and unknown
        x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.28"), b"\xff\xff"),  # its scope, cut
    ],
)
def test_a_list_that_says_more_than_is_understood_is_none(scene, extension):
    scene.write(scene.authority.revoke(scene.bad, extension=extension))
    assert said(scene.lists(), scene.good) == "tls-crl-missing"
