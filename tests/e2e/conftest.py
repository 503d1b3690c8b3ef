"""Chromium, the composed application, a real PostgreSQL, a sign-in through a provider."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.app.gateway import open_gateway
from gateway.app.http import application
from gateway.demo.psc_accounts import Account, Post
from gateway.demo.psc_standin import PscStandIn
from gateway.settings import Address, Mail, Organisation, Psc, Settings
from gateway.web.background import served
from tests.e2e.portal_house import BEFORE, CHROMIUM, DESK, FLAGS, House, Visitor, furnish
from tests.loopback import free_port
from tests.psc_portal import portal_address

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright  # a second that other tests of this folder need not spend

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def house(database_url: str, tmp_path: Path) -> Iterator[House]:
    port = free_port()
    address = portal_address(port)
    standin_accounts: list[Account] = []
    standin = PscStandIn(
        standin_accounts,
        client_id="rcp",
        client_secret="secret-du-simulateur",
        redirect_uris=[f"{address}/psc/retour"],
        logout_uris=[f"{address}/connexion"],
    )
    with standin.serving():
        settings = Settings(
            data_dir=tmp_path,
            database_url=database_url,
            http_bind=Address("127.0.0.1", port),
            public_url=address,
            clock=BEFORE,
            psc=Psc(discovery_url=standin.discovery_url, client_id="rcp", client_secret="secret-du-simulateur"),
            mail=Mail(address="rcp@3c.exemple.mssante.fr"),
            organisation=Organisation(finess="990000010", oid_root="1.2.250.1.999.77", mssante_nil="000000"),
        )
        with open_gateway(settings) as gateway, gateway.store.session() as session:
            world, dossier, hostile = furnish(session)
            people = [world.treating, world.requester, world.coordinator, world.stranger]
            standin.accounts = tuple(
                Account(
                    who.idnps, who.given, who.family, "DR", (Post(speciality=who.speciality, structure_name="CHU X"),)
                )
                for who in people
            )
            with served(application(gateway), port=port) as origin:
                yield House(origin, gateway, world, dossier, hostile, people)


@pytest.fixture
def visitor(chromium: Browser, house: House):
    opened: list[BrowserContext] = []

    def open_browser(viewport=DESK, *, scripts: bool = True, touch: bool = False) -> Visitor:
        context = chromium.new_context(
            viewport=viewport,
            java_script_enabled=scripts,
            has_touch=touch,
            is_mobile=touch,
            locale="fr-FR",
            timezone_id="Europe/Paris",
        )
        opened.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        return Visitor(context, page, house.origin)

    yield open_browser
    for context in opened:
        context.close()
