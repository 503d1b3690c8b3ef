"""OHIF as npm publishes it, installed by the command, on our DICOMweb, in Chromium and Firefox; no network.

``tests/install-servers`` fetches the archive once, by its hash. The command that fetches it is tested against a
registry of the tests' own (``tests/unit/app/test_ohif.py``).

The picture of ``docs/images`` is made by ``RCP_DOC_IMAGES=docs/images pytest tests/e2e/test_ohif.py``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.demo.ct_phantom import DOMINIQUE
from gateway.model.person import PatientRecord
from gateway.portal.ohif_routes import BASE, VERSION, folder_of
from tests.e2e.portal_house import House, send_images
from tests.world import audit_lines

DESK = {"width": 1280, "height": 800}
ARCHIVE = Path(__file__).resolve().parents[2] / ".tools" / "ohif" / f"app-{VERSION}.tgz"


pytestmark = pytest.mark.xdist_group("firefox")  # one of it is enough


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A data directory with the viewer in it; no Node is there to be asked for anything."""
    assert ARCHIVE.is_file(), "tests/install-servers fetches it"
    data = tmp_path_factory.mktemp("ohif")
    command = [sys.executable, "-m", "gateway", "viewer", "install", "--archive", str(ARCHIVE)]
    given = {name: value for name, value in os.environ.items() if not name.startswith("RCP_")}
    environment = {**given, "RCP_DATA_DIR": str(data), "PATH": "/nowhere"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert folder_of(data).is_dir()
    return data


@pytest.fixture
def furnished(house: House, installed: Path, tmp_path: Path) -> House:
    """The viewer beside the gateway, and the images of a patient."""
    (tmp_path / "viewers").symlink_to(installed / "viewers")
    house.world.session.get(PatientRecord, house.dossier.record_id).value = DOMINIQUE.patient_id
    house.world.session.commit()
    send_images(house, DOMINIQUE, tmp_path / "ct")
    return house


#: Share of the viewport's pixels that are not black, as they stand on the screen.
LIT = """() => {
    const from = [...document.querySelectorAll("canvas")].sort((a, b) => b.width - a.width)[0];
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [from.width, from.height];
    const context = canvas.getContext("2d");
    context.drawImage(from, 0, 0);
    const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
    let count = 0;
    for (let at = 0; at < data.length; at += 4) count += data[at] > 20;
    return count / (data.length / 4);
}"""


def test_it_lists_the_studies_of_who_is_signed_in_and_shows_one(furnished: House, visitor, tmp_path: Path):
    person = visitor(DESK)
    page = person.page
    said: list[str] = []
    refused: list[str] = []
    elsewhere: list[str] = []
    person.go(f"{BASE}/")
    person.sign_in(furnished.world.treating)
    page.on("console", lambda line: said.append(line.text) if "Content Security" in line.text else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("response", lambda one: refused.append(f"{one.status} {one.url}") if one.status >= 400 else None)
    ours = (person.origin, "data:", "blob:")
    page.on("request", lambda one: None if one.url.startswith(ours) else elsewhere.append(one.url))

    assert person.go(f"{BASE}/") == 200
    page.get_by_text("PAT-TROIS").first.wait_for()
    assert page.get_by_text("TDM THORAX").count()

    page.goto(f"{person.origin}{BASE}/viewer?StudyInstanceUIDs={DOMINIQUE.study_uid}")
    page.get_by_text("(1/5)").wait_for()
    page.get_by_role("button", name="Tout passer").or_(page.get_by_text("Tout passer")).first.click()
    page.wait_for_function("() => !document.body.innerText.includes('Tout passer')")
    assert 0.1 < page.evaluate(LIT) < 0.9
    page.mouse.move(640, 400)
    page.mouse.wheel(0, 120)
    page.get_by_text("(2/5)").wait_for()
    if folder := os.environ.get("RCP_DOC_IMAGES"):
        page.screenshot(path=f"{folder}/ohif.png")

    assert (said, elsewhere, refused) == ([], [], [])
    furnished.fresh()
    lines = [line for line in audit_lines(furnished.world.session) if line["event"] == "imagerie"]
    assert lines
    assert all(line["persons"] for line in lines)


def test_firefox_shows_one_too_and_needs_no_webgl(furnished: House, at_firefox):
    person = at_firefox(DESK)
    page = person.page
    person.go(f"{BASE}/")
    person.sign_in(furnished.world.treating)
    page.get_by_text("TDM THORAX").first.element()
    assert person.go(f"{BASE}/viewer?StudyInstanceUIDs={DOMINIQUE.study_uid}") == 200
    page.get_by_text("(1/5)").element()
    page.get_by_role("button", name="Close").click()  # it says that all is drawn without a graphics card
    page.get_by_text("Tout passer").first.evaluate("e => e.click()")
    page.wait_for_function("() => !document.body.innerText.includes('Tout passer')")
    assert 0.1 < page.evaluate(LIT) < 0.9
    page.mouse.move(640, 400)
    page.mouse.wheel(0, 120)
    page.get_by_text("(2/5)").element()
    assert not page.evaluate("() => document.createElement('canvas').getContext('webgl2')")
    # OHIF warns of its own doings; what it is refused, and what it does not catch, is ours.
    assert [one for one in page.wrong if not one.startswith("warn")] == []


def test_it_shows_a_stranger_nothing_and_nobody_without_a_session_the_page(furnished: House, visitor):
    person = visitor(DESK)
    person.page.goto(f"{person.origin}{BASE}/")
    assert "/connexion" in person.page.url
    person.sign_in(furnished.world.stranger)
    with person.page.expect_response(lambda one: "/dicom-web/studies" in one.url) as answer:
        person.go(f"{BASE}/")
    assert answer.value.status == 204


def test_its_files_are_served_as_they_are_and_nothing_beside_them(furnished: House, visitor):
    person = visitor(DESK)
    request = person.context.request
    assert request.get(f"{person.origin}{BASE}/start.js").status == 200
    for name in ("../../keys", "%2e%2e/%2e%2e/secret", "..%2f..%2fblobs", "sw.js", "nothing.js", "app.bundle.css.gz/x"):
        assert request.get(f"{person.origin}{BASE}/{name}").status == 404
    css = request.get(f"{person.origin}{BASE}/app.bundle.css")
    assert css.headers["content-type"].startswith("text/css")
    assert f"url({BASE}/" in css.text()
    assert "url(/a" not in css.text()
