"""Who calls on the MLLP port: the registry of partners, asked by address and TLS client certificate.

Promises: of the credentials that fit, the one that says most decides (certificate at an address, certificate, address);
a partner that was revoked is nobody from the next message on; who is not known is refused with a line in the trail. In
trials whoever is not known is partner ``dev`` (`RCP_PROFILE`), never in ``prod``.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.errors import UnknownIdentity
from gateway.model.partner import Partner, PartnerCredential
from gateway.rcp import access, registry
from gateway.rcp.access import Caller, CallerKind
from gateway.rcp.mllp_peers import MllpPeer
from gateway.rcp.peer_proofs import fingerprint_of, is_at
from gateway.rcp.step import Step, Steps

__all__ = ["WIRE", "Peers", "caller_of"]

WIRE = "hl7v2"


def caller_of(session: Session, partner: Partner, *, address: str | None, identifier: str | None = None) -> Caller:
    """Return a partner as whoever sends messages in its name."""
    return Caller(
        kind=CallerKind.CLIENT,
        partner_id=partner.id,
        identifier=identifier or partner.name,
        name=partner.name,
        rcps=access.run_by(session, partner.id),
        wire=WIRE,
        address=address,
    )


class Peers:
    """The registry as the port asks it.

    Parameters
    ----------
    trial
        Take an unknown caller for partner ``dev``; never in ``prod``.
    """

    def __init__(self, steps: Steps, *, trial: bool) -> None:
        self._steps = steps
        self._trial = trial

    def recognise(self, address: str, certificate: bytes | None) -> Caller:
        """Return whoever calls from an address with a client certificate (DER), or raise `UnknownIdentity`."""
        fingerprint = fingerprint_of(certificate)
        return self._steps.run(access.SYSTEM, lambda step: self._find(step, address, fingerprint))

    def _find(self, step: Step, address: str, fingerprint: str | None) -> Caller:
        credentials = step.session.scalars(
            select(PartnerCredential)
            .join(Partner, Partner.id == PartnerCredential.partner_id)
            .where(
                PartnerCredential.kind == "mllp",
                PartnerCredential.revoked_at.is_(None),
                Partner.revoked_at.is_(None),
            )
            .order_by(PartnerCredential.id)
        ).all()
        fitting = [one for one in credentials if _fits(MllpPeer.parse(one.value), address, fingerprint)]
        if fitting:
            found = max(fitting, key=lambda one: MllpPeer.parse(one.value).says)
            return caller_of(step.session, found.partner, address=address, identifier=found.value)
        if self._trial:
            return caller_of(step.session, registry.trial_partner(step), address=address)
        error = UnknownIdentity("pair-mllp-inconnu", "Émetteur HL7 v2 inconnu de la passerelle.")
        stranger = Caller(kind=CallerKind.CLIENT, identifier=address, wire=WIRE, address=address)
        reason = "certificat-inconnu" if fingerprint else "adresse-inconnue"
        error.trail = access.facts(stranger, "refus", action="E", outcome="4", reason=reason)
        raise error


def _fits(peer: MllpPeer, address: str, fingerprint: str | None) -> bool:
    if peer.certificate is not None and peer.certificate != fingerprint:
        return False
    return peer.host is None or is_at(peer.host, address)
