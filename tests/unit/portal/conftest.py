"""The portal served for real; who is signed in is said by a cookie of the tests (the sign-in has its own tests)."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from lxml import html

from gateway.dicom.kept_objects import KeptObjects
from gateway.dicom.storage import Keeper
from gateway.fhir.attached_files import AttachedFiles
from gateway.model.directory import Practitioner
from gateway.mssante.translate import Composer
from gateway.portal.pages import Portal
from gateway.portal.routes import router
from gateway.rcp.step import Steps
from gateway.settings import Limits
from gateway.web.authenticators import SESSION, Authenticators, in_thread
from gateway.web.background import served
from gateway.web.csrf import CSRF_FIELD, Csrf
from gateway.web.headers import SecurityHeadersMiddleware
from gateway.web.request_id import RequestIdMiddleware
from gateway.web.sealed import Seal
from tests.loopback import free_port
from tests.report_samples import press
from tests.world import World, audit_lines, build

#: Four days before the session of the world, in the afternoon of Paris.
BEFORE = datetime(2026, 3, 15, 13, 0, tzinfo=UTC)
LETTERS = Composer(address="rcp@3c.mssante.fr", nil="000000", name="RCP")


class FixedClock:
    """A domain clock that the test turns."""

    def __init__(self, at: datetime = BEFORE) -> None:
        self.at = at

    def now(self) -> datetime:
        """Aware instant."""
        return self.at


@dataclass
class Site:
    """The portal, its world and its clock."""

    world: World
    steps: Steps
    clock: FixedClock
    origin: str
    csrf: Csrf
    sessions: dict[str, Any]

    def browser(self, person: Practitioner | None = None) -> Browser:
        """A browser, signed in as somebody or as nobody."""
        client = httpx.Client(base_url=self.origin, timeout=60)
        if person is None:
            return Browser(client, "")
        key = uuid.uuid4().hex
        self.sessions[key] = replace(self.world.caller(person), session=key, situation="Médecin – Cabinet d’essai")
        client.cookies.set("essai", key)
        return Browser(client, self.csrf.token(key))

    def audit(self) -> list[dict[str, Any]]:
        """Every audit line's payload, oldest first."""
        with self.steps.store.session() as session:
            return audit_lines(session)

    def fresh(self) -> World:
        """The world, read again."""
        self.world.session.rollback()
        self.world.session.expire_all()
        return self.world


@dataclass
class Browser:
    """A browser that reads pages as trees."""

    client: httpx.Client
    token: str

    def get(self, path: str, status: int = 200, **headers: str) -> html.HtmlElement:
        """Ask for a page and expect a status."""
        answer = self.client.get(path, headers=headers)
        assert answer.status_code == status, (path, answer.status_code, answer.headers.get("location"))
        return html.document_fromstring(answer.text)

    def post(self, path: str, status: int = 303, *, token: str | None = None, **fields: str) -> Any:
        """Send a form of ours and expect a status."""
        data = {CSRF_FIELD: self.token if token is None else token, **fields}
        answer = self.client.post(path, data=data, headers={"origin": str(self.client.base_url)})
        assert answer.status_code == status, (path, answer.status_code, answer.text[-800:])
        return answer


def words(element: html.HtmlElement) -> str:
    """What is read, with ordinary spaces."""
    return re.sub(r"\s+", " ", element.text_content()).strip()


@dataclass
class Doors:
    """The portal as it is served by this worker: everything in it but the routes is the test's."""

    portal: Portal
    csrf: Csrf
    origin: str
    sessions: dict[str, Any]


@pytest.fixture(scope="session")
def _doors() -> Iterator[Doors]:
    """Routes stay: putting a hundred of them together costs more than what most tests ask of them."""
    port = free_port()
    csrf = Csrf(Seal(b"a secret of the tests, 32 bytes.", "csrf"), f"http://127.0.0.1:{port}")
    sessions: dict[str, Any] = {}
    app = FastAPI()
    app.state.authenticators = Authenticators()
    app.state.authenticators.register(
        SESSION, in_thread(lambda request: sessions.get(request.cookies.get("essai", "")))
    )
    portal = Portal(steps=Steps(*[None] * 5), csrf=csrf, blobs=None)
    app.include_router(router(portal))
    app.add_middleware(SecurityHeadersMiddleware)
    app.add_middleware(RequestIdMiddleware)
    with served(app, port=port) as origin:
        yield Doors(portal, csrf, origin, sessions)


@pytest.fixture
def site(_doors: Doors, store, make_steps, blobs) -> Iterator[Site]:
    """The portal over a fresh world."""
    clock = FixedClock()
    portal, steps = _doors.portal, _doors.portal.steps
    vars(steps).update(vars(make_steps(clock=clock)))
    _doors.sessions.clear()
    portal.blobs, portal.letters, portal.press = blobs, LETTERS, press(blobs)
    portal.objects, portal.brought = KeptObjects(blobs, Keeper(steps, blobs)), AttachedFiles(blobs)
    portal.limits = Limits()
    with store.session() as session:
        world = build(session)
        session.commit()
        yield Site(world, steps, clock, _doors.origin, _doors.csrf, _doors.sessions)
