"""Dossiers a second that the planner decides, in one run, and how much memory it takes.

Run: ``python benchmarks/planner.py [dossiers [percent without mailbox]]`` (100 000, 0). A database of its own
is made and thrown away.
Who has no mailbox is shown over FHIR as not told, two resources each: they are most of the price of a first run.
The first run writes a line of the register for each dossier, the second finds nothing new. Beside them: some of
the same dossiers settled one by one, and the same lines copied by one bare statement.
"""

from __future__ import annotations

import resource
import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import structlog
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from gateway.exchange.blobs import open_store
from gateway.exchange.outbox import Outbox
from gateway.fhir.represent import Representer
from gateway.model.audit import AuditTrail
from gateway.model.dossier import Dossier
from gateway.model.embedded import EmbeddedServer
from gateway.model.meeting import Rcp
from gateway.model.network import Network
from gateway.model.partner import Partner
from gateway.model.person import PatientRecord
from gateway.model.store import Store
from gateway.mssante.translate import Composer
from gateway.rcp import access, notification
from gateway.rcp.step import Steps

NOW = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)
LETTERS = Composer(address="rcp@3c.mssante.example", nil="000000", name="banc")
A_SESSION = 20

# Fictitious people.
WORLD = """
INSERT INTO practitioner (id, rpps, idnps, family, given, informed, source, as_of, updated_at)
  SELECT gen_random_uuid(), (10200000000 + n)::text, '8' || (10200000000 + n)::text, 'BANC' || n, 'Camille', true,
         'banc', '2026-01-01', now() FROM generate_series(1, CAST(:people AS int)) n;
INSERT INTO mailbox (id, address, kind, practitioner_id, preferred, confidential, source, as_of)
  SELECT gen_random_uuid(), 'banc' || rpps || '@medecin.mssante.fr', 'PER', id, true, false, 'banc', '2026-01-01'
  FROM practitioner WHERE CAST(right(rpps, 2) AS int) >= CAST(:without AS int);
INSERT INTO rcp_session (id, rcp_id, identifier, "on", start, "end", zone, starts_at, ends_at, state, version)
  SELECT gen_random_uuid(), rcp.id, 'S-' || rcp.national_number || '-' || n, day, '14:00', '16:00', 'Europe/Paris',
         (day + time '14:00') AT TIME ZONE 'Europe/Paris', (day + time '16:00') AT TIME ZONE 'Europe/Paris', 'prevue', 1
  FROM rcp, generate_series(1, CAST(ceil(CAST(:sessions AS numeric) / 200) AS int)) n,
       LATERAL (SELECT date '2026-03-05' + n * 3 AS day) days;
WITH s AS (SELECT id, row_number() OVER (ORDER BY starts_at, id) - 1 AS n FROM rcp_session),
     r AS (SELECT id, row_number() OVER (ORDER BY id) - 1 AS n FROM patient_record)
INSERT INTO dossier (id, number, reference, session_id, record_id, participation, state, urgent, tumour_key, clinical,
                     registered_at, prefiche_at, version)
  SELECT gen_random_uuid(), 'urn:uuid:' || gen_random_uuid(), 'B' || g.i, s.id, r.id, 'absent', 'prefiche', false,
         g.i::text, '{}', '2026-02-01', '2026-02-01', 1
  FROM generate_series(0, CAST(:dossiers AS int) - 1) AS g(i)
       JOIN s ON s.n = g.i / CAST(:a_session AS int) JOIN r ON r.n = g.i % 600;
WITH d AS (SELECT id, row_number() OVER (ORDER BY id) - 1 AS n FROM dossier),
     p AS (SELECT id, row_number() OVER (ORDER BY id) - 1 AS n FROM practitioner)
INSERT INTO correspondent
      (id, dossier_id, practitioner_id, role, use_personal, use_secretariat, since, wishes_to_attend)
  SELECT gen_random_uuid(), d.id, p.id, 'medecin-traitant', true, false, '2026-02-01', false
  FROM d JOIN p ON p.n = d.n % CAST(:people AS int);
ANALYZE;
"""


def meetings(session: Session) -> None:
    """Make two hundred RCPs of one network, and the patients."""
    network = Network(code="banc", name="Banc", base_url="https://rcp.example", contact="banc@example.org")
    session.add(network)
    session.flush()
    partner = Partner(name="Banc", network_id=network.id, patient_domains=["https://banc.example"])
    session.add(partner)
    session.flush()
    for number in range(200):
        session.add(
            Rcp(
                network_id=network.id,
                national_number=f"RCP-{number}",
                title=f"RCP {number}",
                place="Salle",
                contact="banc@example.org",
                signature="Banc",
                notification={"active": True},
            )
        )
        for patient in range(3):
            key = f"{number}-{patient}"
            session.add(
                PatientRecord(
                    partner_id=partner.id, system="https://banc.example", value=key, birth_family="PATIENT", sex="F"
                )
            )
    session.commit()


def populate(store: Store, count: int, without: int) -> int:
    """Make the world with so many dossiers; how many sessions they have."""
    values = {
        "people": max(count // 5, 10),
        "sessions": -(-count // A_SESSION),
        "dossiers": count,
        "a_session": A_SESSION,
        "without": without,
    }
    with store.session() as session:
        meetings(session)
    with store.engine.connect() as connection:
        for statement in WORLD.split(";\n"):
            if statement.strip():
                wanted = {name: value for name, value in values.items() if f":{name}" in statement}
                connection.execute(text(statement), wanted)
        connection.commit()
    return values["sessions"]


def timed(name: str, count: int, work: Callable[[], object]) -> None:
    """Run it once; print dossiers a second, by the clock and by this process's processor, and its most memory."""
    start, own = time.perf_counter(), time.process_time()
    said = work()
    took, own = time.perf_counter() - start, time.process_time() - own
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{name:44} {count / took:8.0f} a second  {took:7.1f} s  own processor {own:6.1f} s"
        f"  peak {peak:5.0f} MB  {said}"
    )


def main(count: int, without: int) -> None:
    """Make the world and measure."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with tempfile.TemporaryDirectory(prefix="rcp-planner-") as folder, EmbeddedServer(Path(folder) / "pg") as url:
        store = Store(url)
        store.migrate()
        sessions = populate(store, count, without)
        trail = AuditTrail(secrets.token_bytes(32))
        clock = SimpleNamespace(at=NOW, now=lambda: clock.at)
        outbox = Outbox(open_store(f"file://{folder}/blobs"))
        steps = Steps(store, clock, trail, outbox, Representer())
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{count} dossiers, {sessions} sessions; before the first run {before:.0f} MB")
        timed("each dossier decided and written", count, lambda: notification.plan_due(steps, LETTERS))
        timed("each decided again, nothing new", count, lambda: notification.plan_due(steps, LETTERS))
        sample = min(count, 500)
        with store.session() as session:
            some = session.scalars(select(Dossier.id).limit(sample)).all()
        timed(
            "limit below: settled one by one",
            sample,
            lambda: sum(
                steps.run(access.SYSTEM, lambda step, one=one: notification.settle(step, one, LETTERS)) for one in some
            ),
        )
        with store.engine.connect() as connection:
            copied = "CREATE TEMP TABLE bare AS TABLE notification_entry WITH NO DATA"
            connection.execute(text(copied))
            timed(
                "limit above: the lines by one statement",
                count,
                lambda: connection.execute(text("INSERT INTO bare TABLE notification_entry")).rowcount,
            )
        store.close()


if __name__ == "__main__":
    main(*map(int, [*sys.argv[1:], *("100000", "0")[len(sys.argv) - 1 :]]))
