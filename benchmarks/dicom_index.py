"""QIDO-RS and WADO-RS metadata of one study, in an index of a few studies and in one of a million objects.

Run: ``python benchmarks/dicom_index.py`` (``--help`` for its sizes). Studies of 500 objects are written into PostgreSQL
(fsync on) as C-STORE leaves them, copies of one object that was received; the same questions are asked of the same
study over HTTP when 20 studies are there and when 2000 are. A study's answer must not depend on how many others there
are: twice as slow is a miss.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path

from fastapi import FastAPI, Request
from sqlalchemy import text

from gateway.demo.ct_phantom import DOMINIQUE, slice_data_set
from gateway.dicom import dicomweb, translate
from gateway.dicom.query import Images
from gateway.exchange.blobs import open_store
from gateway.exchange.outbox import Outbox
from gateway.model.audit import AuditTrail
from gateway.model.embedded import running
from gateway.model.reads import Reads
from gateway.model.store import Store
from gateway.rcp import imaging, registry
from gateway.rcp.access import SYSTEM, Caller, CallerKind
from gateway.rcp.imaging import Content
from gateway.rcp.step import DomainClock, Step, Steps
from gateway.web.authenticators import BEARER, Authenticators
from gateway.web.background import served

OBJECTS = 500
WANTED = 2.0

#: Copies of the one study that was received, with other UIDs and keys.
_STUDIES = text("""
INSERT INTO study SELECT (jsonb_populate_record(study, jsonb_build_object(
    'id', gen_random_uuid(), 'study_instance_uid', study.study_instance_uid || '.' || number,
    'accession_number', 'ACC-' || number, 'patient_id', 'P' || number,
    'patient_name', 'nom' || number || '^prenom'))).*
FROM study, generate_series(CAST(:first AS int), CAST(:last AS int)) AS number WHERE study.id = :model
""")
_SERIES = text("""
INSERT INTO series SELECT (jsonb_populate_record(series, jsonb_build_object(
    'id', gen_random_uuid(), 'study_id', made.id, 'series_instance_uid', made.study_instance_uid || '.1'))).*
FROM series JOIN study AS model ON model.id = series.study_id AND model.id = :model
JOIN study AS made ON made.id <> model.id WHERE NOT EXISTS (SELECT FROM series AS one WHERE one.study_id = made.id)
""")
_INSTANCES = text("""
INSERT INTO instance (id, partner_id, series_id, sop_instance_uid, sop_class_uid, transfer_syntax_uid, instance_number,
    number_of_frames, rows, columns, sha256, size_bytes, dicom_json, received_at)
SELECT gen_random_uuid(), partner_id, made.id, made.series_instance_uid || '.' || number, sop_class_uid,
    transfer_syntax_uid, number, number_of_frames, rows, columns, sha256, size_bytes, dicom_json, received_at
FROM instance, series AS made, generate_series(1, :objects) AS number
WHERE instance.id = :instance AND made.id <> instance.series_id
    AND NOT EXISTS (SELECT FROM instance AS one WHERE one.series_id = made.id)
""")


def receive(steps: Steps) -> Caller:
    """Keep one object as the port would, and say who sent it."""
    file = BytesIO()
    slice_data_set(DOMINIQUE, 0).save_as(file, enforce_file_format=True)
    file.seek(0)
    facts = translate.read(file)
    partner = steps.run(SYSTEM, lambda step: registry.trial_partner(step).id)
    caller = Caller(kind=CallerKind.PACS, partner_id=partner, identifier="BANC", wire="dicom")

    def keep(step: Step) -> None:
        imaging.keep(step, facts, Content("0" * 64, 1))

    steps.run(caller, keep)
    return caller


def fill(store: Store, first: int, last: int) -> None:
    """Add studies of `OBJECTS` each."""
    with store.engine.begin() as connection:
        model: uuid.UUID = connection.execute(text("SELECT id FROM study ORDER BY received_at LIMIT 1")).scalar_one()
        instance = connection.execute(text("SELECT id FROM instance ORDER BY received_at, id LIMIT 1")).scalar_one()
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(_STUDIES, {"first": first, "last": last, "model": model})
        connection.execute(_SERIES, {"model": model})
        connection.execute(_INSTANCES, {"instance": instance, "objects": OBJECTS})
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("VACUUM ANALYZE"))


@contextmanager
def web(store: Store, caller: Caller, root: Path) -> Iterator[str]:
    """DICOMweb for one client of the sender's organisation."""
    client = Caller(
        kind=CallerKind.CLIENT, partner_id=caller.partner_id, identifier="banc", scopes=frozenset({"system/*.rs"})
    )
    app = FastAPI()
    app.state.authenticators = Authenticators()

    async def anybody(_: Request) -> Caller:
        return client

    app.state.authenticators.register(BEARER, anybody)
    images = Images(Reads(store, AuditTrail(b"banc")))
    blobs = open_store((root / "blobs").as_uri())
    app.include_router(dicomweb.router(images, blobs, base_url="http://127.0.0.1/dicom-web"))
    with served(app) as origin:
        yield f"{origin}/dicom-web"


def ask(url: str, rounds: int) -> float:
    """Seconds of one question, the median."""
    took = []
    for _ in range(rounds):
        request = urllib.request.Request(
            url, headers={"Accept": "application/dicom+json", "Authorization": "Bearer banc"}
        )
        start = time.perf_counter()
        with urllib.request.urlopen(request, timeout=120) as answer:
            body = answer.read()
        took.append(time.perf_counter() - start)
        if len(body) < 100:
            sys.exit(f"nothing was found: {url}")
    return statistics.median(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000, help=f"of {OBJECTS} objects each")
    parser.add_argument("--rounds", type=int, default=30)
    said = parser.parse_args()
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rcp-bench-")))
        store = Store(stack.enter_context(running(root / "database")))
        store.migrate()
        stack.callback(store.close)
        blobs = open_store((root / "blobs").as_uri())
        steps = Steps(store, DomainClock(), AuditTrail(b"banc"), Outbox(blobs), lambda *_: None)
        caller = receive(steps)
        uid = f"{DOMINIQUE.study_uid}.7"
        questions = {
            "the study": f"/studies?StudyInstanceUID={uid}",
            "its series": f"/studies/{uid}/series",
            f"its {OBJECTS} objects": f"/studies/{uid}/instances",
            "its metadata": f"/studies/{uid}/metadata",
            "by patient": "/studies?PatientID=P7",
            "by accession number": "/studies?AccessionNumber=ACC-7",
            "by name": "/studies?PatientName=nom7*&limit=5",
        }
        figures: dict[str, list[float]] = {name: [] for name in questions}
        url = stack.enter_context(web(store, caller, root))
        for first, last in ((1, 20), (21, said.studies)):
            start = time.perf_counter()
            fill(store, first, last)
            print(f"{last * OBJECTS:,} objects (filled in {time.perf_counter() - start:.0f} s)", flush=True)
            for name, path in questions.items():
                ask(url + path, 3)
                figures[name].append(ask(url + path, said.rounds))
        for name, (few, many) in figures.items():
            reached = "flat" if many / few < WANTED else "MISSED"
            print(f"  {name:<20}{few * 1000:8.1f} ms   {many * 1000:8.1f} ms   {many / few:5.2f} ({reached})")


if __name__ == "__main__":
    main()
