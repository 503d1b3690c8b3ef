"""Who speaks to the gateway: networks (DCC, filières) and partners, with what each wire recognises them by.

Promises: an identifier, a domain, a key or a right that is not well formed is refused before anything is kept; a
credential belongs to one live partner; a private key is never kept; adding again what is already there, unchanged, is
no error, so that a script may be run twice; what is revoked stays in the trail and stops at once.
Not promised: that a peer answers at the address given (``rcp-gateway check`` asks).

[CONTRACT partner, network; DECISIONS 19]
"""

from __future__ import annotations

import re
import unicodedata
import uuid
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.errors import Conflict, InvalidContent, NotFound
from gateway.identifiers import Finess, Ipp, MssanteAddress
from gateway.model.network import Network
from gateway.model.partner import Partner, PartnerCredential
from gateway.model.store import utcnow
from gateway.rcp.calendar import holiday_zone, time_zone
from gateway.rcp.identity import EVERY_DOMAIN
from gateway.rcp.mllp_peers import MllpPeer
from gateway.rcp.peer_proofs import fingerprint
from gateway.rcp.step import Step

__all__ = [
    "AeTitle",
    "NetworkFacts",
    "PartnerFacts",
    "add_network",
    "add_partner",
    "client_of",
    "network_named",
    "networks",
    "partners",
    "revoke_partner",
    "slug",
    "trial_partner",
]

_AE_TITLE = re.compile(r"[!-\[\]-~](?:[ -\[\]-~]{0,14}[!-\[\]-~])?", re.ASCII)
# SMART v2 (`system/Patient.crus`), and the words of v1 that many clients still send.
_SCOPE = re.compile(r"system/(?:\*|[A-Z][A-Za-z]+)\.(?:(?=[cruds])c?r?u?d?s?|read|write|\*)(?:\?[^\s]+)?")
_PRIVATE_PARTS = frozenset({"d", "p", "q", "dp", "dq", "qi", "k"})


class NetworkFacts(Struct, frozen=True, kw_only=True):
    """One network: a regional DCC or a filière."""

    code: str
    name: str
    base_url: str
    contact: str
    zone: str = "Europe/Paris"
    holidays: str = "metropole"
    rrc_identifier: str | None = None
    territories: tuple[str, ...] = ()


class AeTitle(Struct, frozen=True):
    """A DICOM application: how it calls itself and, when images may be sent to it, where it listens.

    Parameters
    ----------
    certificates
        SHA-256 fingerprints of the TLS client certificates that it may show, several while one takes the other's place;
        without any, whatever the port's authorities signed is enough.
    """

    title: str
    host: str | None = None
    port: int | None = None
    certificates: tuple[str, ...] = ()


class PartnerFacts(Struct, frozen=True, kw_only=True):
    """One organisation that speaks to the gateway.

    Parameters
    ----------
    patient_domains
        Assigning domains of the patient identifiers that it may write: OID or URL.
    jwks, jwks_uri
        Public keys of its FHIR client, or where they are published.
    mllp_peers
        As `gateway.rcp.mllp_peers` writes them.
    dicomweb
        Base addresses of its DICOMweb servers, which images are sent to.
    """

    name: str
    finess: str | None = None
    network: str | None = None
    patient_domains: tuple[str, ...] = ()
    fhir_scopes: tuple[str, ...] = ()
    jwks: dict[str, Any] | None = None
    jwks_uri: str | None = None
    ae_titles: tuple[AeTitle, ...] = ()
    mllp_peers: tuple[str, ...] = ()
    dicomweb: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    mailboxes: tuple[str, ...] = ()


def add_network(step: Step, facts: NetworkFacts) -> Network:
    """Register a network.

    Raises
    ------
    InvalidContent
        ``code-reseau``, ``adresse-invalide``, ``fuseau-inconnu``, ``zone-inconnue``.
    Conflict
        ``reseau-existant``: its code is taken by another description.
    """
    if slug(facts.code) != facts.code:
        text = "Le code d’un réseau est fait de minuscules, de chiffres et de tirets."
        raise InvalidContent("code-reseau", text, expression="code", rule=True)
    time_zone(facts.zone)
    wanted = {
        "name": facts.name,
        "base_url": _url(facts.base_url, "base_url"),
        "contact": facts.contact,
        "zone": facts.zone,
        "holidays": holiday_zone(facts.holidays).id,
        "rrc_identifier": facts.rrc_identifier,
        "territories": list(facts.territories),
    }
    found = step.session.scalar(select(Network).where(Network.code == facts.code))
    if found is not None:
        if _differs(found, wanted):
            raise Conflict("reseau-existant", "Un autre réseau porte déjà ce code.", expression="code")
        return found
    network = Network(code=facts.code, **wanted)
    step.session.add(network)
    step.session.flush()
    step.audit("droits", action="C", object_type="Network", object_id=str(network.id), purpose="HSYSADMIN")
    return network


def networks(session: Session) -> Sequence[Network]:
    """Return the networks by code."""
    return session.scalars(select(Network).order_by(Network.code)).all()


def network_named(session: Session, code: str) -> Network:
    """Return one network.

    Raises
    ------
    NotFound
        ``reseau-inconnu``.
    """
    found = session.scalar(select(Network).where(Network.code == code))
    if found is None:
        raise NotFound("reseau-inconnu", "Aucun réseau ne porte ce code.", expression="network")
    return found


def add_partner(step: Step, facts: PartnerFacts) -> Partner:
    """Register an organisation, what it may write and how each wire recognises it.

    Its FHIR ``client_id`` is `slug` of its name.

    Raises
    ------
    InvalidContent
        ``finess-…``, ``ipp-domaine``, ``droit-fhir``, ``cle-publique``, ``cle-privee``, ``titre-ae``, ``empreinte``,
        ``pair-mllp``, ``adresse-invalide``, ``mssante-forme``.
    Conflict
        ``partenaire-existant``, ``identifiant-de-partenaire`` (a credential of another live partner).
    """
    wanted = {
        "finess": Finess.parse(facts.finess, expression="finess").value if facts.finess else None,
        "network_id": network_named(step.session, facts.network).id if facts.network else None,
        "patient_domains": [_domain(domain) for domain in facts.patient_domains],
        "fhir_scopes": [_scope(scope) for scope in facts.fhir_scopes],
    }
    credentials = _credentials(facts)
    found = step.session.scalar(select(Partner).where(Partner.name == facts.name))
    if found is not None:
        live = {(kept.kind, kept.value): kept.details for kept in found.credentials if kept.revoked_at is None}
        if found.revoked_at or _differs(found, wanted) or live != {(k, v): details for k, v, details in credentials}:
            raise Conflict("partenaire-existant", "Un partenaire porte déjà ce nom.", expression="name")
        return found
    _require_free(step.session, credentials)
    partner = Partner(name=facts.name, **wanted)
    step.session.add(partner)
    step.session.flush()
    for kind, value, details in credentials:
        step.session.add(PartnerCredential(partner_id=partner.id, kind=kind, value=value, details=details))
    step.session.flush()
    step.session.refresh(partner)
    step.audit("droits", action="C", object_type="Partner", object_id=str(partner.id), purpose="HSYSADMIN")
    return partner


def trial_partner(step: Step, name: str = "dev") -> Partner:
    """Return the partner that stands for unknown callers in trials (CONTRACT); never called in ``prod``."""
    found = step.session.scalar(select(Partner).where(Partner.name == name))
    if found is None:
        found = Partner(name=name, patient_domains=[EVERY_DOMAIN], fhir_scopes=["system/*.cruds"])
        step.session.add(found)
        step.session.flush()
    return found


def revoke_partner(step: Step, name: str) -> Partner:
    """End a partner's rights and credentials on every wire; its past stays.

    Raises
    ------
    NotFound
        ``partenaire-inconnu``.
    """
    found = step.session.scalar(select(Partner).where(Partner.name == name))
    if found is None:
        raise NotFound("partenaire-inconnu", "Aucun partenaire ne porte ce nom.", expression="name")
    [partner] = step.lock(Partner, found.id)
    if partner.revoked_at is None:
        partner.revoked_at = utcnow()
        for credential in partner.credentials:
            credential.revoked_at = credential.revoked_at or partner.revoked_at
        step.audit("droits", action="D", object_type="Partner", object_id=str(partner.id), purpose="HSYSADMIN")
    return partner


def partners(session: Session, *, revoked: bool = False) -> Sequence[Partner]:
    """Return the partners by name, the revoked ones only when asked."""
    statement = select(Partner).order_by(Partner.name)
    return session.scalars(statement if revoked else statement.where(Partner.revoked_at.is_(None))).all()


def slug(name: str) -> str:
    """Fold a name into lower-case letters, digits and hyphens: ``client_id`` of a partner, code of a network."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def _credentials(facts: PartnerFacts) -> list[tuple[str, str, dict[str, Any]]]:
    found: list[tuple[str, str, dict[str, Any]]] = []
    if facts.jwks is not None or facts.jwks_uri is not None:
        keys: dict[str, Any] = {"jwks": _public_keys(facts.jwks)} if facts.jwks is not None else {}
        if facts.jwks_uri is not None:
            keys["jwks_uri"] = _url(facts.jwks_uri, "jwks_uri")
        found.append(("fhir", slug(facts.name), keys))
    for application in facts.ae_titles:
        where: dict[str, Any] = {"host": application.host, "port": application.port} if application.host else {}
        if application.certificates:
            where["certificates"] = [_fingerprint(digits) for digits in application.certificates]
        found.append(("aet", _ae_title(application.title), where))
    found += [("mllp", MllpPeer.parse(peer).value, {}) for peer in facts.mllp_peers]
    found += [("stow", _url(address, "dicomweb"), {}) for address in facts.dicomweb]
    found += [("peer", _url(peer, "peer"), {}) for peer in facts.peers]
    found += [("mailbox", MssanteAddress.parse(box, expression="mailbox").value, {}) for box in facts.mailboxes]
    return found


def _require_free(session: Session, credentials: list[tuple[str, str, dict[str, Any]]]) -> None:
    for kind, value, _ in credentials:
        taken = select(PartnerCredential.id).where(
            PartnerCredential.kind == kind, PartnerCredential.value == value, PartnerCredential.revoked_at.is_(None)
        )
        if session.scalar(taken) is not None:
            text = f"Un autre partenaire est déjà reconnu par « {value} »."
            raise Conflict("identifiant-de-partenaire", text, expression=kind)


def _differs(row: Network | Partner, wanted: Mapping[str, Any]) -> bool:
    return any(getattr(row, name) != value for name, value in wanted.items())


def _domain(domain: str) -> str:
    # Any value serves: it is the domain that is judged and spelled as records will be.
    return Ipp.parse("0", domain, expression="patient_domains").system


def _scope(scope: str) -> str:
    if not _SCOPE.fullmatch(scope):
        text = "Un droit FHIR s’écrit comme « system/Patient.crus » (SMART v2)."
        raise InvalidContent("droit-fhir", text, expression="fhir_scopes", rule=True)
    return scope


def _ae_title(title: str) -> str:
    if not _AE_TITLE.fullmatch(title):
        text = "Un titre AE compte 1 à 16 caractères ASCII, sans barre oblique inverse."
        raise InvalidContent("titre-ae", text, expression="aet", rule=True)
    return title


def _fingerprint(digits: str) -> str:
    known = fingerprint(digits)
    if known is None:
        text = "Une empreinte SHA-256 compte 64 chiffres hexadécimaux (openssl x509 -fingerprint -sha256)."
        raise InvalidContent("empreinte", text, expression="aet", rule=True)
    return known


def _url(address: str, field: str) -> str:
    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        text = "Cette adresse n’est pas une URL http ou https, sans nom ni mot de passe."
        raise InvalidContent("adresse-invalide", text, expression=field, rule=True)
    return address.rstrip("/")


def _public_keys(jwks: Mapping[str, Any]) -> dict[str, Any]:
    keys = jwks.get("keys")
    if not isinstance(keys, list) or not keys or not all(isinstance(key, dict) and key.get("kty") for key in keys):
        text = "Le fichier de clés n’est pas un jeu de clés (JWKS) : « keys » est absent ou vide."
        raise InvalidContent("cle-publique", text, expression="jwks", rule=True)
    if any(_PRIVATE_PARTS & key.keys() for key in keys):
        text = "Le fichier contient une clé privée ou secrète : fournissez les seules clés publiques."
        raise InvalidContent("cle-privee", text, expression="jwks", rule=True)
    return {"keys": keys}


def client_of(session: Session, partner_id: uuid.UUID) -> str | None:
    """Return the FHIR ``client_id`` of a live partner, if it has one."""
    return session.scalar(
        select(PartnerCredential.value).where(
            PartnerCredential.partner_id == partner_id,
            PartnerCredential.kind == "fhir",
            PartnerCredential.revoked_at.is_(None),
        )
    )
