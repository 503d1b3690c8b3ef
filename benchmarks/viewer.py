"""The viewer's first image in Chromium on loopback, against the limit of one second, and how fast a stack turns.

Run: ``python benchmarks/viewer.py [slices]`` (100 slices of 512 × 512, 16 bits). The composed application over an
embedded PostgreSQL, a physician who signed in, objects sent by C-STORE; a database of its own is made and thrown away.
Each figure is the median of five pages, told from the moment at which the browser asked for the page:

* seen: the first picture is on the screen (with or without JavaScript);
* exact: it is drawn from its own pixels through its window.

« Old » slows the browser's processor six times, as its developers' tools do for old machines.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import structlog
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gateway.demo.ct_phantom import DOMINIQUE  # noqa: E402 - the path of the tests' house stands above
from gateway.model.embedded import EmbeddedServer  # noqa: E402
from gateway.model.person import PatientRecord  # noqa: E402
from gateway.model.store import Store  # noqa: E402
from tests.e2e.portal_house import CHROMIUM, FLAGS, House, Visitor, send_images, served_house  # noqa: E402

LIMIT_MS = 1000
ROUNDS = 5
MACHINES = (("desk", 1440, 900, 1), ("old", 1366, 768, 6), ("phone", 390, 844, 4))

WATCH = """(() => {
    const seen = {};
    window.seen = seen;
    (function look() {
        const still = document.querySelector(".v-still img");
        const pane = document.querySelector("[data-pane]");
        const drawn = pane && (pane.dataset.etat === "exact" || pane.dataset.etat === "apercu");
        if (!seen.seen && (drawn || (still && still.complete && still.naturalWidth))) seen.seen = performance.now();
        if (!seen.exact && pane && pane.dataset.etat === "exact") seen.exact = performance.now();
        if (!seen.exact) requestAnimationFrame(look);
    })();
})()"""
TURN = """async () => {
    const slider = document.querySelector("[data-part=curseur]"), pane = document.querySelector("[data-pane]");
    const start = performance.now();
    for (let at = 1; at <= Number(slider.max); at += 1) {
        const before = pane.dataset.image;
        slider.value = at;
        slider.dispatchEvent(new Event("input"));
        while (at > 1 && (pane.dataset.image === before || pane.dataset.etat !== "exact")) {
            await new Promise(done => requestAnimationFrame(done));
        }
    }
    return slider.max * 1000 / (performance.now() - start);
}"""


def opened(page: Page, address: str) -> tuple[float, float]:
    """Open the images and tell when the first was seen, and when it was exact, in milliseconds."""
    page.goto(address)
    page.wait_for_function("() => window.seen.exact")
    found = page.evaluate("() => window.seen")
    return found["seen"], found["exact"]


def main(slices: int) -> int:
    """Measure each machine."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with tempfile.TemporaryDirectory(prefix="rcp-viewer-") as folder, EmbeddedServer(Path(folder) / "pg") as url:
        store = Store(url)
        store.migrate()
        store.close()
        with served_house(url, Path(folder) / "data") as house, sync_playwright() as playwright:
            house.world.session.get_one(PatientRecord, house.dossier.record_id).value = DOMINIQUE.patient_id
            house.world.session.commit()
            send_images(house, replace(DOMINIQUE, slices=slices, pixels=512), Path(folder) / "ct")
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            worst = [measure(house, browser, machine) for machine in MACHINES]
    return int(worst[0] > LIMIT_MS)


def measure(house: House, browser, machine: tuple[str, int, int, int]) -> float:
    """Print one machine's line; return when its first image was seen."""
    name, width, height, slower = machine
    context = browser.new_context(viewport={"width": width, "height": height}, has_touch=name == "phone")
    page = context.new_page()
    address = f"/dossiers/{house.dossier.id}/images"
    person = Visitor(context, page, house.origin)
    person.go(address)
    person.sign_in(house.world.treating)
    page.add_init_script(WATCH)
    context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": slower})
    times = [opened(page, house.origin + address) for _ in range(ROUNDS)]
    seen, exact = (statistics.median(column) for column in zip(*times, strict=True))
    speed = page.evaluate(TURN)
    print(
        f"{name:6} processor / {slower}: first image seen {seen:4.0f} ms, exact {exact:4.0f} ms; {speed:3.0f} images/s"
    )
    context.close()
    return seen


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100))
