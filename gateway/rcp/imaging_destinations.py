"""Where images may be sent, and who may fetch them: the applications that partners registered with a host and a port.

Promises: nobody is sent anything who is not registered, nor after his registration was revoked; an application
whose address nobody registered reads nothing: its AE title proves nothing, anybody may say it.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from gateway.errors import Forbidden
from gateway.model.partner import Partner, PartnerCredential
from gateway.rcp import access
from gateway.rcp.access import Caller, CallerKind

__all__ = [
    "LOCATED",
    "Destination",
    "Offered",
    "WebDestination",
    "destination",
    "offered",
    "require_located",
    "web_destination",
]


#: Scope of an application that called from the address that its partner registered.
LOCATED = "adresse-enregistree"


def require_located(caller: Caller) -> None:
    """Refuse to search or fetch images to an application that is known by its title alone.

    Raises
    ------
    Forbidden
        ``aet-sans-adresse``.
    """
    if caller.kind is CallerKind.PACS and LOCATED not in caller.scopes:
        text = "Une application enregistrée sans adresse dépose des images, et n’en lit pas."
        error = Forbidden("aet-sans-adresse", text)
        error.trail = access.facts(caller, "refus", outcome="4", reason=error.code, object_type="Study")
        raise error


@dataclass(frozen=True, slots=True)
class Destination:
    """A registered application, where it listens, and the organisation that answers for it."""

    ae_title: str
    host: str
    port: int
    partner_id: uuid.UUID

    @property
    def caller(self) -> Caller:
        """The organisation as somebody who sees images: what it may not see is not moved to it."""
        return Caller(kind=CallerKind.PACS, partner_id=self.partner_id, identifier=self.ae_title, wire="dicom")


def destination(session: Session, ae_title: str) -> Destination | None:
    """Find a live application by its AE title; none without a place where it listens."""
    credential = session.scalars(
        select(PartnerCredential)
        .join(Partner, Partner.id == PartnerCredential.partner_id)
        .where(
            PartnerCredential.kind == "aet",
            PartnerCredential.value == ae_title,
            PartnerCredential.revoked_at.is_(None),
            Partner.revoked_at.is_(None),
        )
    ).one_or_none()
    if credential is None:
        return None
    host, port = credential.details.get("host"), credential.details.get("port")
    return Destination(ae_title, str(host), int(port), credential.partner_id) if host and port else None


@dataclass(frozen=True, slots=True)
class WebDestination:
    """A registered DICOMweb server, and the organisation that answers for it."""

    url: str
    partner_id: uuid.UUID


def web_destination(session: Session, url: str) -> WebDestination | None:
    """Find a live DICOMweb server by its base address."""
    partner_id = session.scalar(
        select(PartnerCredential.partner_id)
        .join(Partner, Partner.id == PartnerCredential.partner_id)
        .where(
            PartnerCredential.kind == "stow",
            PartnerCredential.value == url.rstrip("/"),
            PartnerCredential.revoked_at.is_(None),
            Partner.revoked_at.is_(None),
        )
    )
    return WebDestination(url.rstrip("/"), partner_id) if partner_id is not None else None


@dataclass(frozen=True, slots=True)
class Offered:
    """A place that a person may send a study to: what `gateway.rcp.imaging_sending.send` takes, and whose it is."""

    to: str
    partner: str
    web: bool


def offered(session: Session, network_id: uuid.UUID) -> tuple[Offered, ...]:
    """Return the places of a network's partners, and of those of no network, by the partner's name."""
    rows = session.scalars(
        select(PartnerCredential)
        .join(Partner, Partner.id == PartnerCredential.partner_id)
        .where(
            PartnerCredential.kind.in_(("aet", "stow")),
            PartnerCredential.revoked_at.is_(None),
            Partner.revoked_at.is_(None),
            or_(Partner.network_id.is_(None), Partner.network_id == network_id),
        )
        .order_by(Partner.name, PartnerCredential.value)
    ).unique()
    return tuple(
        Offered(row.value, row.partner.name, row.kind == "stow")
        for row in rows
        if row.kind == "stow" or (row.details.get("host") and row.details.get("port"))
    )
