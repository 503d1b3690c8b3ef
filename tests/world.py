"""Fictitious rows for tests that need a meeting, its people and a dossier, without any wire."""

from __future__ import annotations

import itertools
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.model.audit import AuditLine
from gateway.model.directory import Mailbox, Organisation, Practitioner
from gateway.model.dossier import Correspondent, Dossier
from gateway.model.meeting import Rcp, RcpMember, RcpSession
from gateway.model.network import Network
from gateway.model.partner import Partner
from gateway.model.person import PatientRecord
from gateway.rcp.access import Caller, CallerKind

PARIS = ZoneInfo("Europe/Paris")
DOMAIN = "https://chu-x.example/ns/ipp"
_numbers = itertools.count(1)


@dataclass
class World:
    """One network, one hospital, one weekly RCP, its people; add what a test needs."""

    session: Session
    network: Network
    organisation: Organisation
    partner: Partner
    rcp: Rcp
    meeting: RcpSession
    requester: Practitioner
    treating: Practitioner
    coordinator: Practitioner
    stranger: Practitioner

    def practitioner(self, family: str, *, address: str | None = None, **more: Any) -> Practitioner:
        """A professional of the directory, with a mailbox when an address is given."""
        rpps = f"{10_100_000_000 + next(_numbers)}"
        row = Practitioner(
            **{
                "rpps": rpps,
                "idnps": "8" + rpps,
                "family": family,
                "given": "Camille",
                "title": "Dr",
                "speciality": "SM54",
                "source": "essai",
                "as_of": date(2026, 3, 1),
            }
            | more
        )
        self.session.add(row)
        self.session.flush()
        if address:
            self.session.add(
                Mailbox(practitioner_id=row.id, address=address, preferred=True, source="essai", as_of=row.as_of)
            )
            self.session.flush()
        return row

    def record(self, **more: Any) -> PatientRecord:
        """A patient record of the hospital."""
        row = PatientRecord(
            **{
                "partner_id": self.partner.id,
                "system": DOMAIN,
                "value": f"{next(_numbers):06d}",
                "birth_family": "PAT-TROIS",
                "given": "DOMINIQUE",
                "sex": "F",
                "birth_date": "1979-03-28",
            }
            | more
        )
        self.session.add(row)
        self.session.flush()
        return row

    def dossier(self, record: PatientRecord | None = None, **more: Any) -> Dossier:
        """An inscription to the meeting, with its treating physician."""
        number = next(_numbers)
        record = record or self.record()
        registered = self.meeting.starts_at - timedelta(days=10)
        row = Dossier(
            **{
                "number": f"urn:uuid:{uuid.uuid4()}",
                "reference": f"RCP-T{number:03d}-00",
                "session_id": self.meeting.id,
                "record_id": record.id,
                "partner_id": self.partner.id,
                "organisation_id": self.organisation.id,
                "requester_id": self.requester.id,
                "state": "prefiche",
                "label": "Tumeur du sein",
                "question": "Chimiothérapie néoadjuvante ou chirurgie première ?",
                "tumour_key": f"C50.4-{number}",
                "registered_at": registered,
                "prefiche_at": registered,
            }
            | more
        )
        self.session.add(row)
        self.session.flush()
        for role, who in (("medecin-traitant", self.treating), ("demandeur", self.requester)):
            self.session.add(Correspondent(dossier_id=row.id, practitioner_id=who.id, role=role))
        self.session.flush()
        return row

    def caller(self, who: Practitioner) -> Caller:
        """A professional who signed in."""
        return Caller(
            kind=CallerKind.PROFESSIONAL,
            practitioner_id=who.id,
            identifier=who.idnps,
            name=f"{who.given} {who.family}",
            acr="eidas1",
            wire="portail",
        )

    def client(self, partner: Partner | None = None) -> Caller:
        """The hospital's record, over FHIR."""
        return Caller(kind=CallerKind.CLIENT, partner_id=(partner or self.partner).id, identifier="ehr", wire="fhir")


def audit_lines(session: Session) -> list[dict[str, Any]]:
    """What the trail says, oldest line first."""
    payloads = session.scalars(select(AuditLine.payload).order_by(AuditLine.seq))
    return [msgspec.json.decode(payload) for payload in payloads]


def build(session: Session, *, on: date = date(2026, 3, 19), start: time = time(14, 0)) -> World:
    """Make the world in a session; the caller commits."""
    network = Network(
        code=f"dcc-{next(_numbers)}", name="DCC d'essai", base_url="https://rcp.example", contact="3c@example.org"
    )
    organisation = Organisation(name="CHU X", source="essai", as_of=date(2026, 3, 1), idnst=f"1{next(_numbers):09d}")
    session.add_all([network, organisation])
    session.flush()
    partner = Partner(name=f"CHU X {next(_numbers)}", network_id=network.id, patient_domains=[DOMAIN])
    rcp = Rcp(
        network_id=network.id,
        organisation_id=organisation.id,
        national_number=f"RCP-NAT-{next(_numbers):04d}",
        manager_identifier="3C-A-001",
        manager_name="3C d’essai",
        title="Sein",
        organ="Sein",
        place="Salle de visioconférence du CHU X",
        contact="3c@example.org",
        signature="Le secrétariat du 3C",
        quorum={"minimum": 3},
        notification={"active": True},
    )
    session.add_all([partner, rcp])
    session.flush()
    starts = datetime.combine(on, start, PARIS).astimezone(UTC)
    meeting = RcpSession(
        rcp_id=rcp.id,
        identifier=f"SEANCE-{next(_numbers)}",
        on=on,
        start=start,
        end=time(start.hour + 2, start.minute),
        zone="Europe/Paris",
        starts_at=starts,
        ends_at=starts + timedelta(hours=2),
    )
    session.add(meeting)
    session.flush()
    world = World(session, network, organisation, partner, rcp, meeting, *[None] * 4)  # type: ignore[arg-type]
    world.requester = world.practitioner("MERCIER", address="mercier@chu-x.mssante.fr", speciality="SM20")
    world.treating = world.practitioner("NGUYEN", address="nguyen@medecin.mssante.fr")
    world.coordinator = world.practitioner("PERRIN", address="perrin@chu-x.mssante.fr", speciality="SM36")
    world.stranger = world.practitioner("ROBERT", address="robert@medecin.mssante.fr")
    session.add(RcpMember(rcp_id=rcp.id, practitioner_id=world.coordinator.id, role="coordonnateur"))
    session.flush()
    return world
