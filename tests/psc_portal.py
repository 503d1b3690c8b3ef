"""A gateway reduced to its sign-in, served for real, and a browser that walks through a provider."""

from __future__ import annotations

import contextlib
import html
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy import select

from gateway.errors import GatewayError, UnknownIdentity
from gateway.model.dossier import Dossier
from gateway.portal.sign_in_pages import SignInPages
from gateway.portal.views import Chrome
from gateway.psc.oidc import PscClient
from gateway.psc.outcome import refusal_page
from gateway.psc.sessions import Sessions
from gateway.psc.sign_in import SIGN_IN_RATE, SignIn
from gateway.rcp import access
from gateway.rcp.access import Caller
from gateway.rcp.step import Step, Steps
from gateway.settings import Psc
from gateway.web.authenticators import SESSION, Authenticators, caller_of, in_thread
from gateway.web.background import served
from gateway.web.csrf import Csrf
from gateway.web.headers import SecurityHeadersMiddleware
from gateway.web.next_path import sign_in_address
from gateway.web.request_id import RequestIdMiddleware, request_id
from gateway.web.sealed import Seal
from tests.world import audit_lines

SECRET = b"a secret of the tests, 32 bytes."


@dataclass
class Portal:
    """The served gateway."""

    origin: str
    steps: Steps
    sessions: Sessions
    client: PscClient | None

    def audit(self) -> list[dict]:
        """Every audit line's payload, oldest first."""
        with self.steps.store.session() as session:
            return audit_lines(session)

    def signed(self) -> list[tuple[str, str, str | None]]:
        """(event, outcome, reason) of the lines about sessions."""
        lines = [line for line in self.audit() if line["event"] in {"connexion", "deconnexion", "refus"}]
        return [(line["event"], line["outcome"], line["reason"]) for line in lines]


def portal_address(port: int) -> str:
    """The public address of a portal on a port."""
    return f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def served_portal(
    steps: Steps, psc: Psc | None, *, port: int, public_url: str | None = None, rate=SIGN_IN_RATE, now=None
) -> Iterator[Portal]:
    """Serve the sign-in and one protected page (`/dossiers/{id}`) over the real access predicate."""
    public = public_url or portal_address(port)
    clock = {"now": now} if now else {}
    client = PscClient(psc, f"{public}/psc/retour", **clock) if psc else None
    sessions = Sessions(steps, Seal(SECRET, "psc-id-token"), **clock)
    sign_in = SignIn(
        client=client,
        client_id=psc.client_id if psc else "",
        sessions=sessions,
        csrf=Csrf(Seal(SECRET, "csrf"), public),
        pages=SignInPages(lambda _: Chrome(fictitious=True)),
        public_url=public,
        rate=rate,
    )
    app = FastAPI()
    app.state.authenticators = Authenticators()
    app.state.authenticators.register(SESSION, in_thread(sign_in.authenticate))
    app.include_router(sign_in.router())

    @app.exception_handler(GatewayError)
    async def refused(request: Request, error: GatewayError) -> Response:
        if isinstance(error, UnknownIdentity):
            return RedirectResponse(sign_in_address(request), 303)
        page = refusal_page(error, request_id())
        return HTMLResponse(page.text, page.status)

    @app.get("/dossiers/{dossier}")
    def dossier(dossier: uuid.UUID, caller: Annotated[Caller, Depends(caller_of(SESSION))]) -> Response:
        def verb(step: Step) -> str:
            found = step.session.scalar(select(Dossier).where(Dossier.id == dossier, access.dossiers(caller)))
            if found is None:
                raise access.hidden(caller, "Dossier", dossier)
            step.audit("consultation", dossier=found.id, persons=(found.record_id,))
            return found.number

        return HTMLResponse(steps.run(caller, verb))

    @app.get("/patients")
    def patients(caller: Annotated[Caller, Depends(caller_of(SESSION))]) -> Response:
        csrf = Csrf(Seal(SECRET, "csrf"), public).token(caller.session or "")
        return HTMLResponse(
            f'<p id="who">{html.escape(f"{caller.name}|{caller.identifier}|{caller.situation}|{caller.acr}")}</p>'
            f'<form method="post" action="/deconnexion"><input type="hidden" name="csrf" value="{csrf}"></form>'
        )

    app.add_middleware(SecurityHeadersMiddleware)
    app.add_middleware(RequestIdMiddleware)
    with served(app, port=port) as origin:
        yield Portal(origin, steps, sessions, client)
    if client:
        client.close()


def hidden_field(page: str, name: str) -> str:
    """The value of a hidden field of a page."""
    return html.unescape(re.search(rf'name="{name}" value="([^"]*)"', page)[1])


def choose_account(browser: httpx.Client, page: httpx.Response, number: int | str) -> httpx.Response:
    """Choose an account on the stand-in's page, as a person would."""
    ticket = hidden_field(page.text, "demande")
    return browser.post(page.url.join("/wallet/auth/choix"), data={"demande": ticket, "compte": str(number)})


def who(page: httpx.Response) -> list[str]:
    """Name, identifier, situation and acr of the signed-in page."""
    return html.unescape(re.search(r'id="who">([^<]*)<', page.text)[1]).split("|")
