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
from gateway.rcp.peer_proofs import Places, fingerprint_of, recognised
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

        def find(places: Places) -> Caller | None:
            return self._steps.run(access.SYSTEM, lambda step: self._find(step, address, fingerprint, places))

        return recognised(address, find)

    def _find(self, step: Step, address: str, fingerprint: str | None, places: Places) -> Caller | None:
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
        peers = [(MllpPeer.parse(one.value), one) for one in credentials]
        proven = [(peer, one) for peer, one in peers if peer.certificate in (None, fingerprint)]
        if not places.know(peer.host for peer, _ in proven if peer.host is not None):
            return None
        fitting = [(peer, one) for peer, one in proven if peer.host is None or places.at(peer.host)]
        if fitting:
            _, found = max(fitting, key=lambda both: both[0].says)
            return caller_of(step.session, found.partner, address=address, identifier=found.value)
        if self._trial:
            return caller_of(step.session, registry.trial_partner(step), address=address)
        error = UnknownIdentity("pair-mllp-inconnu", "Émetteur HL7 v2 inconnu de la passerelle.")
        stranger = Caller(kind=CallerKind.CLIENT, identifier=address, wire=WIRE, address=address)
        reason = "certificat-inconnu" if fingerprint else "adresse-inconnue"
        error.trail = access.facts(stranger, "refus", action="E", outcome="4", reason=reason)
        raise error
