"""What is shown to a DICOMweb server: Orthanc asks for a name and a password, others for a token."""

from __future__ import annotations

import base64
import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest
from sqlalchemy import select, text

from gateway.dicom.outgoing_web import DicomWebChannel
from gateway.exchange.delivery import Deliveries
from gateway.exchange.outbox import Outcome
from gateway.model.message import Message
from gateway.rcp import imaging_sending
from gateway.settings import load
from tests.e2e.dicom.conftest import running_orthanc
from tests.e2e.dicom.test_sending_web import elsewhere, kept, register, send, uids  # noqa: F401 - fixtures

SECRET = "un secret en plusieurs mots"


@contextmanager
def delivering(store, blobs, trail, *lines: str) -> Iterator[Deliveries]:
    settings = load({"RCP_DICOMWEB_CREDENTIALS": "\n".join(lines)})
    channel = DicomWebChannel(store, blobs, clear=True, credentials=settings.dicomweb_credentials)
    yield Deliveries(store, blobs, trail, [channel], settled=imaging_sending.after_delivery)
    channel.close()


def reason(session) -> str | None:
    session.rollback()
    return session.scalars(select(Message)).one().reason


def everything(session) -> str:
    """Each row of each table, as text."""
    session.rollback()
    tables = session.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).all()
    return "\n".join(str(session.scalars(text(f'SELECT "{name}"::text FROM "{name}"')).all()) for name in tables)


def test_orthanc_with_authentication_takes_it_from_who_shows_a_password(
    kept,  # noqa: F811
    elsewhere,  # noqa: F811
    session,
    send,  # noqa: F811
    store,
    blobs,
    trail,
    tmp_path,
    caplog,
):
    users = {"AuthenticationEnabled": True, "RegisteredUsers": {"depot": SECRET}}
    with running_orthanc(tmp_path, **users) as server:
        url = register(session, elsewhere, f"{server.http}/dicom-web")
        sent = send(url)
        with delivering(store, blobs, trail, f"{url} basic depot wrong") as deliveries:
            assert deliveries.attempt(sent) is Outcome.REFUSED
        assert "dicomweb-401" in str(reason(session)) + everything(session)
        session.rollback()
        session.execute(text("UPDATE message SET state = 'en-attente', not_before = now() - interval '1 minute'"))
        session.commit()
        with delivering(store, blobs, trail, "# le PACS", f"{url}/ basic depot {SECRET}") as deliveries:
            assert deliveries.attempt(sent) is Outcome.DELIVERED
        shown = base64.b64encode(f"depot:{SECRET}".encode()).decode()
        asked = urllib.request.Request(f"{server.http}/instances", headers={"Authorization": f"Basic {shown}"})
        with urllib.request.urlopen(asked, timeout=120) as answer:
            assert len(json.loads(answer.read())) == 5
    said = everything(session) + caplog.text
    assert SECRET not in said
    assert shown not in said


class Asking(ThreadingHTTPServer):
    """A server that takes one token, which its other address gives out for one client's secret."""

    def __init__(self, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Asking)
        self.token, self.asked, self.stored = token, [], []
        self.base = f"http://127.0.0.1:{self.server_address[1]}"


class _Asking(BaseHTTPRequestHandler):
    server: Asking

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        shown = self.headers.get("Authorization", "")
        status, answer = 401, b"{}"
        if self.path == "/token":
            self.server.asked.append(parse_qs(body.decode()))
            if shown == "Basic " + base64.b64encode(b"rcp:" + SECRET.encode()).decode():
                status, answer = 200, json.dumps({"access_token": self.server.token, "token_type": "Bearer"}).encode()
        elif shown == f"Bearer {self.server.token}":
            boundary = b"\r\n--" + self.headers["Content-Type"].rpartition("boundary=")[2].encode()
            parts = [part.partition(b"\r\n\r\n")[2] for part in (b"\r\n" + body).split(boundary)[1:-1]]
            self.server.stored += uids(parts)
            items = [{"00081155": {"vr": "UI", "Value": [uid]}} for uid in uids(parts)]
            status, answer = 200, json.dumps({"00081199": {"vr": "SQ", "Value": items}}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def asking(token: str) -> Iterator[Asking]:
    server = Asking(token)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join(60)
        server.server_close()


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        ("{url} bearer jeton-1", Outcome.DELIVERED),
        ("{url} bearer jeton-2", Outcome.REFUSED),
        ("{base}/ailleurs bearer jeton-1", Outcome.REFUSED),
        (f"{{url}} oauth2 {{base}}/token rcp {SECRET}", Outcome.DELIVERED),
        ("{url} oauth2 {base}/token rcp faux", Outcome.UNAVAILABLE),
        (f"{{url}} oauth2 http://127.0.0.1:9/token rcp {SECRET}", Outcome.UNAVAILABLE),
    ],
    ids=["token", "another token", "another server's", "grant", "no grant", "nobody there"],
)
def test_a_token_is_shown_to_its_server_and_to_no_other(
    kept,  # noqa: F811
    elsewhere,  # noqa: F811
    session,
    send,  # noqa: F811
    store,
    blobs,
    trail,
    caplog,
    line,
    outcome,
):
    with asking("jeton-1") as server:
        url = register(session, elsewhere, f"{server.base}/dicom-web")
        with delivering(store, blobs, trail, line.format(url=url, base=server.base)) as deliveries:
            assert deliveries.attempt(send(url)) is outcome
        assert len(server.stored) == (5 if outcome is Outcome.DELIVERED else 0)
        assert all(form == {"grant_type": ["client_credentials"]} for form in server.asked)
    if outcome is Outcome.UNAVAILABLE:
        assert reason(session) == "dicomweb-token"
    said = everything(session) + caplog.text
    assert [word for word in ("jeton-1", "jeton-2", SECRET) if word in said] == []


def test_in_production_no_secret_is_sent_in_the_clear_for_a_token(store, blobs):
    with asking("jeton-1") as server:
        line = f"https://pacs.example/dicom-web oauth2 {server.base}/token rcp {SECRET}"
        settings = load({"RCP_DICOMWEB_CREDENTIALS": line})
        channel = DicomWebChannel(store, blobs, credentials=settings.dicomweb_credentials)
        with pytest.raises(Exception, match="dicomweb-token"):
            channel._authorization("https://pacs.example/dicom-web")
        channel.close()
        assert server.asked == []
