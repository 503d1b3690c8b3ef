"""Who comes in: one shape for whoever asks, whatever the wire.

Wires authenticate and make a `Caller`; what he may see and do is `gateway.rcp.access`' business alone.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from enum import StrEnum

import msgspec

from gateway.model.audit import AuditFacts

__all__ = ["SYSTEM", "Caller", "CallerKind", "facts"]


class CallerKind(StrEnum):
    """The kinds of callers."""

    PROFESSIONAL = "professionnel"
    CLIENT = "client"
    PACS = "pacs"
    PEER = "pair"
    SYSTEM = "systeme"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whoever comes in.

    Parameters
    ----------
    partner_id
        The organisation, for a client, a PACS or a peer.
    practitioner_id
        The professional, when a person signed in.
    identifier
        What the trail calls him: IdNatPS, client_id, AE title, base URL.
    rcps
        RCPs that the organisation runs (`run_by`), when its software came in.
    scopes
        SMART v2 scopes of this access token.
    acr
        Authentication level as the provider said it.
    wire, address, request_id, session
        Where the call comes from, for the trail.
    """

    kind: CallerKind
    partner_id: uuid.UUID | None = None
    practitioner_id: uuid.UUID | None = None
    identifier: str | None = None
    name: str | None = None
    situation: str | None = None
    rcps: frozenset[uuid.UUID] = frozenset()
    scopes: frozenset[str] = frozenset()
    acr: str | None = None
    wire: str = "interne"
    address: str | None = None
    request_id: str | None = None
    session: str | None = None
    purpose: str = "TREAT"

    def on(self, wire: str, *, address: str | None = None, request_id: str | None = None) -> Caller:
        """The same caller on a wire."""
        if (self.wire, self.address, self.request_id) == (wire, address, request_id):
            return self
        return replace(self, wire=wire, address=address, request_id=request_id)


#: The gateway itself: planner, sweeps, represent.
SYSTEM = Caller(kind=CallerKind.SYSTEM, identifier="rcp-gateway", purpose="HSYSADMIN")


def facts(caller: Caller, event: str, **more: object) -> AuditFacts:
    """What the trail says of this caller, with the event's own facts over it."""
    base = AuditFacts(
        event=event,
        actor_kind=caller.kind.value,
        actor_id=caller.identifier,
        actor_name=caller.name,
        actor_situation=caller.situation,
        acr=caller.acr,
        wire=caller.wire,
        address=caller.address,
        session=caller.session,
        request_id=caller.request_id,
        purpose=caller.purpose,
    )
    return msgspec.structs.replace(base, **more)
