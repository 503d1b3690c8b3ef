"""A study sent to a DICOMweb server by STOW-RS: Orthanc receives it; what goes wrong is tried again or told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from email.parser import BytesHeaderParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from sqlalchemy import select, update

from gateway.demo.ct_phantom import DOMINIQUE
from gateway.dicom.outgoing_web import DicomWebChannel
from gateway.errors import InvalidContent
from gateway.exchange.delivery import Deliveries
from gateway.exchange.outbox import Outcome
from gateway.model.imaging import Study
from gateway.model.message import Message
from gateway.model.partner import Partner, PartnerCredential
from gateway.model.person import WorkItem
from gateway.model.store import utcnow
from gateway.rcp import imaging_sending
from gateway.rcp.access import SYSTEM
from tests.e2e.dicom.conftest import storescu
from tests.e2e.dicom.peers import other_hospital
from tests.loopback import free_port
from tests.world import audit_lines

SOP, REASON = "00081155", "00081197"


@pytest.fixture
def kept(port, ct, world):
    """The study of five slices, attached to its dossier."""
    world.dossier(world.record(value="000003"))
    world.session.commit()
    assert storescu(port.port, *ct).returncode == 0
    return port


@pytest.fixture
def elsewhere(session, world) -> Partner:
    return other_hospital(session, world)


@pytest.fixture
def deliveries(store, blobs, trail) -> Iterator[Deliveries]:
    channel = DicomWebChannel(store, blobs, clear=True)
    yield Deliveries(store, blobs, trail, [channel], settled=imaging_sending.after_delivery)
    channel.close()


@pytest.fixture
def send(represented):
    return lambda to: represented.run(SYSTEM, lambda step: imaging_sending.send(step, DOMINIQUE.study_uid, to).id)


def register(session, partner: Partner, url: str) -> str:
    session.add(PartnerCredential(partner_id=partner.id, kind="stow", value=url))
    session.commit()
    return url


def message(session) -> Message:
    session.rollback()
    return session.scalars(select(Message)).one()


def again(session) -> None:
    session.rollback()
    session.execute(update(Message).values(not_before=utcnow() - timedelta(seconds=1)))
    session.commit()


def test_orthanc_receives_a_study_byte_for_byte_and_once(kept, elsewhere, session, send, deliveries, orthanc, blobs):
    url = register(session, elsewhere, f"{orthanc.http}/dicom-web")
    sent = send(f"{url}/")
    assert send(url) == sent
    assert deliveries.attempt(sent) is Outcome.DELIVERED
    found = orthanc.post("/tools/find", {"Level": "Instance", "Query": {"StudyInstanceUID": DOMINIQUE.study_uid}})
    assert len(found) == 5
    assert (message(session).state, message(session).attempts) == ("envoye", 1)
    line = next(line for line in audit_lines(session) if line["event"] == "envoi")
    assert (line["object_id"], line["recipient"], line["detail"]) == (
        DOMINIQUE.study_uid,
        url,
        {"service": "STOW-RS", "objects": 5},
    )


def test_a_study_that_was_put_aside_while_it_waited_stays(kept, elsewhere, session, send, deliveries):
    """Nobody listens there: it is refused before a connection is tried."""
    sent = send(register(session, elsewhere, f"http://127.0.0.1:{free_port()}/dicom-web"))
    session.rollback()
    session.execute(update(Study).values(state="quarantaine", reason="traits-contradictoires"))
    session.commit()
    assert deliveries.attempt(sent) is Outcome.REFUSED
    assert message(session).reason == "etude-retiree"


class Scripted(ThreadingHTTPServer):
    """A server whose answers a test decides; it keeps which objects each request held."""

    def __init__(self, answer: Callable[[list[bytes]], tuple[int, bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), _Stow)
        self.answer = answer
        self.requests: list[list[bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/dicom-web"


class _Stow(BaseHTTPRequestHandler):
    server: Scripted

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        head = BytesHeaderParser().parsebytes(b"Content-Type: " + self.headers["Content-Type"].encode() + b"\n\n")
        boundary = b"\r\n--" + head.get_param("boundary").encode()
        assert head.get_content_type() == "multipart/related"
        assert head.get_param("type") == "application/dicom"
        parts = [part.partition(b"\r\n\r\n")[2] for part in (b"\r\n" + body).split(boundary)[1:-1]]
        assert body.endswith(boundary + b"--\r\n")
        self.server.requests.append(parts)
        status, answer = self.server.answer(parts)
        self.send_response(status)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def scripted(answer: Callable[[list[bytes]], tuple[int, bytes]]) -> Iterator[Scripted]:
    server = Scripted(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join(60)
        server.server_close()


def uids(parts: list[bytes]) -> list[str]:
    import io

    import pydicom

    return [str(pydicom.dcmread(io.BytesIO(part), stop_before_pixels=True).SOPInstanceUID) for part in parts]


def said(stored: list[str], failed: dict[str, int]) -> bytes:
    """A Store Instances response as PS3.18 10.5.3 writes it."""

    def item(uid: str, **more: object) -> dict[str, object]:
        return {SOP: {"vr": "UI", "Value": [uid]}, **more}

    answer: dict[str, object] = {"00081199": {"vr": "SQ", "Value": [item(uid) for uid in stored]}}
    if failed:
        reasons = [item(uid, **{REASON: {"vr": "US", "Value": [reason]}}) for uid, reason in failed.items()]
        answer["00081198"] = {"vr": "SQ", "Value": reasons}
    return json.dumps(answer).encode()


def test_bytes_leave_as_they_are_kept_and_what_was_stored_is_not_sent_again(
    kept, elsewhere, session, send, deliveries, ct
):
    def partly(parts: list[bytes]) -> tuple[int, bytes]:
        names = uids(parts)
        if len(parts) == 5:
            return 202, said(names[:2], {names[2]: 0xA700, names[3]: 0x0110})  # of the fifth it says nothing
        return 200, said(names, {})

    with scripted(partly) as server:
        sent = send(register(session, elsewhere, server.url))
        assert deliveries.attempt(sent) is Outcome.UNAVAILABLE
        assert (message(session).state, message(session).reason) == ("en-attente", "dicomweb-not-stored")
        again(session)
        assert deliveries.attempt(sent) is Outcome.DELIVERED
        first, second = server.requests
    assert uids(second) == uids(first)[2:]
    # The data set is the one that came: from SOP Class UID (0008,0016) on, after each file's own head.
    kept_sets = {path.read_bytes().partition(b"\x08\x00\x05\x00")[2] for path in ct}
    assert {part.partition(b"\x08\x00\x05\x00")[2] for part in first} == kept_sets


@pytest.mark.parametrize(
    ("status", "reason", "outcome", "state"),
    [
        (409, 0xA900, Outcome.REFUSED, "refuse"),
        (401, None, Outcome.REFUSED, "refuse"),
        (302, None, Outcome.REFUSED, "refuse"),
        (200, None, Outcome.REFUSED, "refuse"),
        (503, None, Outcome.UNAVAILABLE, "en-attente"),
        (429, None, Outcome.UNAVAILABLE, "en-attente"),
    ],
    ids=["each refused", "unauthorised", "elsewhere", "no answer of the standard", "down", "too many"],
)
def test_what_a_server_refuses_is_told_and_what_passes_is_tried_again(
    kept, elsewhere, session, send, deliveries, status, reason, outcome, state
):
    def answer(parts: list[bytes]) -> tuple[int, bytes]:
        return status, said([], dict.fromkeys(uids(parts), reason)) if reason is not None else b"<html>non</html>"

    with scripted(answer) as server:
        assert deliveries.attempt(send(register(session, elsewhere, server.url))) is outcome
        assert len(server.requests) == 1
    assert message(session).state == state
    asked = [one.reason for one in session.scalars(select(WorkItem).where(WorkItem.kind == "message"))]
    assert asked == (["images-refusees"] if state == "refuse" else [])


def test_a_server_that_is_away_or_hangs_up_is_tried_again(kept, elsewhere, session, send, deliveries):
    sent = send(register(session, elsewhere, f"http://127.0.0.1:{free_port()}/dicom-web"))
    assert deliveries.attempt(sent) is Outcome.UNAVAILABLE
    assert message(session).reason == "dicomweb-unreachable"


def test_nobody_is_sent_to_who_is_not_registered_or_no_more(kept, elsewhere, session, send, deliveries):
    with pytest.raises(InvalidContent) as refusal:
        send("https://ailleurs.example/dicom-web")
    assert refusal.value.code == "destination-dicom"
    with scripted(lambda _: (200, b"{}")) as server:
        sent = send(register(session, elsewhere, server.url))
        session.execute(update(PartnerCredential).where(PartnerCredential.kind == "stow").values(revoked_at=utcnow()))
        session.commit()
        assert deliveries.attempt(sent) is Outcome.REFUSED
        assert server.requests == []


def test_in_production_a_server_is_reached_over_tls_only(kept, elsewhere, session, send, store, blobs, trail):
    channel = DicomWebChannel(store, blobs)
    strict = Deliveries(store, blobs, trail, [channel], settled=imaging_sending.after_delivery)
    with scripted(lambda _: (200, b"{}")) as server:
        assert strict.attempt(send(register(session, elsewhere, server.url))) is Outcome.REFUSED
        assert server.requests == []
    assert message(session).reason == "dicomweb-clear"
    channel.close()
