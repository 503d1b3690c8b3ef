"""Chromium and Firefox, the composed application, a real PostgreSQL, a sign-in through a provider."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.demo.ct_phantom import DOMINIQUE
from gateway.model.person import PatientRecord
from tests.e2e import firefox as other
from tests.e2e.portal_house import CHROMIUM, DESK, FLAGS, House, Visitor, send_files, served_house
from tests.e2e.viewer_objects import Folder
from tests.e2e.viewer_screen import DESK as WIDE
from tests.e2e.viewer_screen import Fill, Screen

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


@pytest.fixture(scope="session")
def firefox(tmp_path_factory) -> Iterator[other.Firefox]:
    with other.launched(tmp_path_factory.mktemp("firefox")) as browser:
        yield browser


@pytest.fixture
def at_firefox(firefox: other.Firefox, house: House, tmp_path: Path) -> Iterator[Callable[..., other.Visitor]]:
    with ExitStack() as opened:
        yield lambda viewport=DESK: opened.enter_context(firefox.visitor(house.origin, tmp_path / "saved", viewport))


@pytest.fixture
def look(house: House, visitor, tmp_path: Path):
    """Send objects for the dossier's patient, sign in his physician, open the images."""

    def opened(
        fill: Fill | None, query: str = "", *, viewport=WIDE, scripts: bool = True, touch: bool = False
    ) -> Screen:
        house.world.session.get(PatientRecord, house.dossier.record_id).value = DOMINIQUE.patient_id
        house.world.session.commit()
        if fill is not None:
            folder = Folder(tmp_path / "objects")
            fill(folder)
            send_files(house, folder.paths)
        person = visitor(viewport, scripts=scripts, touch=touch)
        said: list[str] = []
        person.page.on("pageerror", lambda error: said.append(str(error)))
        person.page.on("console", lambda one: said.append(one.text) if "Content Security" in one.text else None)
        base = f"/dossiers/{house.dossier.id}/images"
        person.page.set_default_timeout(120_000)
        person.go(base + query)
        person.sign_in(house.world.treating)
        return Screen(person, said, base)

    return opened
