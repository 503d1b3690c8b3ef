"""Networks and partners: what is malformed is refused, what is there already is no error, what is revoked stops."""

from __future__ import annotations

import msgspec
import pytest
from sqlalchemy import select

from gateway.errors import Conflict, InvalidContent, NotFound
from gateway.model.audit import AuditLine
from gateway.model.partner import Partner
from gateway.rcp import registry
from gateway.rcp.access import SYSTEM
from gateway.rcp.registry import AeTitle, NetworkFacts, PartnerFacts

NETWORK = NetworkFacts(code="dcc-a", name="DCC A", base_url="https://dcc-a.example/", contact="x@exemple.mssante.fr")
KEY = {"kty": "EC", "crv": "P-256", "kid": "k1", "x": "AA", "y": "AA"}
PARTNER = PartnerFacts(
    name="CHU X",
    finess="000897413",
    network="dcc-a",
    patient_domains=("https://chu-x.example/ns/ipp", "1.2.250.1.999999.1"),
    fhir_scopes=("system/Patient.crus", "system/*.rs"),
    jwks={"keys": [KEY]},
    ae_titles=(AeTitle("CHUX_PACS", "127.0.0.1", 104),),
    mailboxes=("rcp.chu-x@exemple.mssante.fr",),
)


def _add(steps, partner=PARTNER):
    def verb(step):
        registry.add_network(step, NETWORK)
        return registry.add_partner(step, partner)

    return steps.run(SYSTEM, verb)


def test_a_partner_is_kept_with_what_each_wire_recognises(steps, store):
    added = _add(steps)
    assert added.patient_domains == ["https://chu-x.example/ns/ipp", "urn:oid:1.2.250.1.999999.1"]
    assert {(one.kind, one.value) for one in added.credentials} == {
        ("fhir", "chu-x"),
        ("aet", "CHUX_PACS"),
        ("mailbox", "rcp.chu-x@exemple.mssante.fr"),
    }
    with store.session() as session:
        [network] = registry.networks(session)
        assert (network.base_url, network.zone, network.holidays) == (
            "https://dcc-a.example",
            "Europe/Paris",
            "metropole",
        )
        assert [row.event for row in session.scalars(select(AuditLine))] == ["droits", "droits"]
        assert registry.client_of(session, added.id) == "chu-x"


def test_adding_the_same_again_changes_nothing(steps, store):
    first = _add(steps)
    assert _add(steps).id == first.id
    with store.session() as session:
        assert len(registry.partners(session)) == 1
        assert len(session.scalars(select(AuditLine)).all()) == 2


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"finess": "000897414"}, "finess-cle"),
        ({"patient_domains": ("CHU X",)}, "ipp-domaine"),
        ({"fhir_scopes": ("patient/Patient.read",)}, "droit-fhir"),
        ({"fhir_scopes": ("system/Patient.src",)}, "droit-fhir"),
        ({"fhir_scopes": ("system/Patient.",)}, "droit-fhir"),
        ({"jwks": {"keys": []}}, "cle-publique"),
        ({"jwks": {"keys": [KEY | {"d": "secret"}]}}, "cle-privee"),
        ({"jwks": {"keys": [{"kty": "oct", "k": "secret"}]}}, "cle-privee"),
        ({"jwks_uri": "ftp://chu.example/jwks"}, "adresse-invalide"),
        ({"dicomweb": ("https://depot:secret@pacs.example/dicom-web",)}, "adresse-invalide"),
        ({"ae_titles": (AeTitle("DIX-SEPT-LETTRES-"),)}, "titre-ae"),
        ({"ae_titles": (AeTitle("A\\B"),)}, "titre-ae"),
        ({"ae_titles": (AeTitle("PACS", certificates=("secret",)),)}, "empreinte"),
        ({"peers": ("chu.example",)}, "adresse-invalide"),
        ({"mailboxes": ("chu@example.org",)}, "mssante-forme"),
    ],
)
def test_what_is_malformed_is_refused_and_nothing_is_kept(steps, store, changes, code):
    with pytest.raises(InvalidContent) as refusal:
        _add(steps, msgspec.structs.replace(PARTNER, **changes))
    assert refusal.value.code == code
    assert "secret" not in str(refusal.value)
    with store.session() as session:
        assert session.scalars(select(Partner)).all() == []


def test_a_name_or_a_credential_belongs_to_one_live_partner(steps, store):
    _add(steps)
    with pytest.raises(Conflict) as refusal:
        _add(steps, msgspec.structs.replace(PARTNER, finess=None))
    assert refusal.value.code == "partenaire-existant"
    with pytest.raises(Conflict) as refusal:
        _add(steps, PartnerFacts(name="CHU Y", ae_titles=(AeTitle("CHUX_PACS"),)))
    assert refusal.value.code == "identifiant-de-partenaire"

    steps.run(SYSTEM, lambda step: registry.revoke_partner(step, "CHU X"))
    with store.session() as session:
        assert registry.partners(session) == []
        [revoked] = registry.partners(session, revoked=True)
        assert all(one.revoked_at for one in revoked.credentials)
        assert registry.client_of(session, revoked.id) is None
    # Its AE title is free again.
    _add(steps, PartnerFacts(name="CHU Y", ae_titles=(AeTitle("CHUX_PACS"),)))
    with pytest.raises(NotFound):
        steps.run(SYSTEM, lambda step: registry.revoke_partner(step, "CHU Z"))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"code": "DCC A"}, "code-reseau"),
        ({"zone": "UTC+1"}, "fuseau-inconnu"),
        ({"holidays": "Bretagne"}, "zone-inconnue"),
        ({"base_url": "dcc-a"}, "adresse-invalide"),
    ],
)
def test_a_network_that_cannot_be_is_refused(steps, changes, code):
    with pytest.raises(InvalidContent) as refusal:
        steps.run(SYSTEM, lambda step: registry.add_network(step, msgspec.structs.replace(NETWORK, **changes)))
    assert refusal.value.code == code


def test_a_network_code_is_taken_once(steps):
    def verb(step):
        registry.add_network(step, NETWORK)
        registry.add_network(step, msgspec.structs.replace(NETWORK, name="Autre"))

    with pytest.raises(Conflict):
        steps.run(SYSTEM, verb)
    with pytest.raises(NotFound):
        _add(steps, msgspec.structs.replace(PARTNER, network="inconnu"))


@pytest.mark.parametrize(("name", "slug"), [("CHU X", "chu-x"), ("Hôpital de l’Été", "hopital-de-lete"), ("  ", "")])
def test_slugs(name, slug):
    assert registry.slug(name) == slug
