"""A process killed at the worst moments: what was acknowledged is there, and sending again makes it whole."""

import subprocess
import sys
from collections.abc import Callable

import pytest
from pynetdicom.sop_class import StorageCommitmentPushModel as Push
from sqlalchemy import select

from gateway.demo.ct_phantom import DOMINIQUE
from gateway.dicom.outgoing import DicomChannel
from gateway.dicom.scu import Ours
from gateway.exchange.delivery import Deliveries
from gateway.exchange.outbox import Outcome
from gateway.model.imaging import Instance, QuarantinedObject, StudyDossier
from tests.e2e.dicom.conftest import need, storescu
from tests.e2e.dicom.test_commitment import INSTANCE, Heard, asked, associated, due, listening, references
from tests.loopback import free_port, wait_until


@pytest.fixture
def victim(database_url, tmp_path):
    running = []

    def start(when: str, count: int) -> tuple[subprocess.Popen, int]:
        port = free_port()
        blobs = f"file://{tmp_path / 'blobs'}"
        command = [sys.executable, "-m", "tests.e2e.dicom.victim", database_url, blobs, str(port), when, str(count)]
        process = subprocess.Popen(command)
        running.append(process)
        assert wait_until(lambda: process.poll() is not None or _listens(port))
        return process, port

    yield start
    for process in running:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    command = [need("echoscu"), "-aet", "CHUX_PACS", "-aec", "RCPGATEWAY", "127.0.0.1", str(port)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(("when", "count"), [("before-row", 3), ("before-answer", 1)])
def test_a_kill_loses_nothing_acknowledged(victim: Callable, session, world, ct, blobs, when, count):
    dossier = world.dossier(world.record(value="000003"))
    session.commit()
    process, port = victim(when, count)
    broken = storescu(port, *ct)
    assert broken.returncode != 0
    assert process.wait(60) == -9

    acknowledged = broken.stdout.count("Received Store Response (Success)")
    assert acknowledged == count - 1
    kept = session.scalars(select(Instance)).all()
    assert len(kept) == count - 1 + (when == "before-answer")
    for instance in kept:
        blobs.read(instance.sha256, verify=True)

    process, port = victim("never", 0)
    again = storescu(port, *ct)
    assert again.returncode == 0, again.stdout
    process.terminate()
    assert process.wait(60) == 0
    session.rollback()
    uids = session.scalars(select(Instance.sop_instance_uid).order_by(Instance.sop_instance_uid)).all()
    assert uids == [f"{DOMINIQUE.study_uid}.1.{number}" for number in range(1, 6)]
    assert session.scalars(select(StudyDossier.dossier_id)).all() == [dossier.id]
    assert session.scalars(select(QuarantinedObject)).all() == []


def test_a_kill_after_a_promise_does_not_lose_its_report(victim, session, world, ct, store, blobs, trail):
    """The caller was told 0000: whoever comes after tells him what is kept."""
    session.commit()
    process, port = victim("before-report", 1)
    assert storescu(port, *ct).returncode == 0
    heard = Heard()
    with listening(session, heard):
        with associated(port, heard) as association:
            status, _ = association.send_n_action(asked(references(ct)), 1, Push, INSTANCE)
            assert status.Status == 0x0000
            assert process.wait(60) == -9
        assert heard.reports.empty()
        deliveries = Deliveries(store, blobs, trail, [DicomChannel(store, blobs, Ours("RCPGATEWAY"))])
        assert deliveries.attempt(due(session).id) is Outcome.DELIVERED
        kind, report, _ = heard.reports.get(timeout=60)
    assert (kind, len(report.ReferencedSOPSequence)) == (1, 5)
