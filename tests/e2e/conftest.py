"""Chromium, the composed application, a real PostgreSQL, a sign-in through a provider."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.portal_house import CHROMIUM, DESK, FLAGS, House, Visitor, served_house

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
    with served_house(database_url, tmp_path) as made:
        yield made


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
        page.set_default_timeout(120_000)
        return Visitor(context, page, house.origin)

    yield open_browser
    for context in opened:
        context.close()
