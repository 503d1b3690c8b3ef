"""Firefox as hospitals have it, driven over the protocol that it speaks itself (W3C WebDriver BiDi), without a driver.

Promises: a browser of its own profile, which reaches loopback only and fetches nothing for itself; visitors that share
no cookie; a page that keeps what went wrong in it (breaches of the content security policy, errors of scripts, requests
that failed or went elsewhere). Not: Playwright's whole interface. Names are Playwright's, so that what tests know of a
page (`tests.e2e.test_viewer.Screen`) holds in both browsers.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from gateway.model.directory import Practitioner
from tests.loopback import PATIENCE_S, wait_until

FIREFOX = shutil.which("firefox-esr") or "/usr/bin/firefox-esr"
#: Beside what Firefox sets for itself when it is driven (no updates, no telemetry, no first run): a proxy that does not
#: exist for all but loopback: nothing leaves, whatever a later version would like to fetch. And no WebGL, as on a
#: virtual desktop, whatever this machine has.
PREFERENCES: dict[str, str | int | bool] = {
    "network.proxy.type": 1,
    **{f"network.proxy.{kind}": "127.0.0.1" for kind in ("http", "ssl", "socks")},
    **{f"network.proxy.{kind}_port": 9 for kind in ("http", "ssl", "socks")},
    "network.proxy.no_proxies_on": "127.0.0.1, localhost",
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "extensions.getAddons.cache.enabled": False,
    "extensions.systemAddon.update.enabled": False,
    "media.gmp-manager.updateEnabled": False,
    "app.update.auto": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "datareporting.healthreport.uploadEnabled": False,
    "webgl.disabled": True,
    "intl.accept_languages": "fr-FR, fr",
}
#: A page's own breaches of its policy: no console tells them to a driver.
WATCH = """tell => document.addEventListener("securitypolicyviolation",
    event => tell(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`))"""
#: [WebDriver, keyboard actions].
KEYS = {
    "Tab": "\ue004",
    "Enter": "\ue007",
    "Shift": "\ue008",
    "Control": "\ue009",
    "Escape": "\ue00c",
    "PageUp": "\ue00e",
    "PageDown": "\ue00f",
    "End": "\ue010",
    "Home": "\ue011",
    "ArrowLeft": "\ue012",
    "ArrowUp": "\ue013",
    "ArrowRight": "\ue014",
    "ArrowDown": "\ue015",
    "Delete": "\ue017",
}
BUTTONS = {"left": 0, "middle": 1, "right": 2}


class Refusal(Exception):
    """What the browser answered instead of a result."""


@dataclass
class Wire:
    """Commands and their answers in turn; events on their way are given to who listens."""

    socket: ClientConnection
    listeners: dict[str, list[Callable[[dict[str, Any]], None]]] = field(default_factory=dict)
    sent: int = 0

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self.sent += 1
        self.socket.send(json.dumps({"id": self.sent, "method": method, "params": params}))
        while True:
            said = json.loads(self.socket.recv(PATIENCE_S))
            if said["type"] == "event":
                for listener in self.listeners.get(said["method"], ()):
                    listener(said["params"])
            elif said["id"] == self.sent:
                if said["type"] == "error":
                    raise Refusal(f"{method}: {said['error']}: {said['message']}")
                return said["result"]

    def on(self, event: str, listener: Callable[[dict[str, Any]], None]) -> None:
        if event not in self.listeners:
            self.ask("session.subscribe", events=[event])
        self.listeners.setdefault(event, []).append(listener)


@dataclass
class Locator:
    """Elements of a page, looked for anew each time that something is asked of them."""

    page: Page
    steps: tuple[tuple[dict[str, Any], int | None], ...]

    def nth(self, number: int) -> Locator:
        (*before, (how, _)) = self.steps
        return Locator(self.page, (*before, (how, number)))

    @property
    def first(self) -> Locator:
        return self.nth(0)

    @property
    def last(self) -> Locator:
        return self.nth(-1)

    def locator(self, css: str) -> Locator:
        return Locator(self.page, (*self.steps, ({"type": "css", "value": css}, None)))

    def elements(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for how, number in self.steps:
            start = {"startNodes": found} if found else {}
            nodes = self.page.wire.ask("browsingContext.locateNodes", context=self.page.context, locator=how, **start)
            found = [{"sharedId": node["sharedId"]} for node in nodes["nodes"]]
            if number is not None:
                found = found[number:][:1]
            if not found:
                return []
        return found

    def element(self) -> dict[str, Any]:
        """The only element, once it is there."""
        found: list[dict[str, Any]] = []

        def alone() -> bool:
            # Between two pages there is nobody to ask.
            with contextlib.suppress(Refusal):
                found[:] = self.elements()
            return len(found) == 1

        assert wait_until(alone), (self.steps, found)
        return found[0]

    def evaluate(self, function: str, arg: Any = None) -> Any:
        return self.page.evaluate(function, arg, element=self.element())

    def inner_text(self) -> str:
        return self.evaluate("e => e.innerText")

    def bounding_box(self) -> dict[str, float]:
        return self.evaluate("e => (({ x, y, width, height }) => ({ x, y, width, height }))(e.getBoundingClientRect())")

    def click(self) -> None:
        self.evaluate("e => e.scrollIntoView({ block: 'center', behavior: 'instant' })")
        self.page.mouse.press({"type": "element", "element": self.element()})

    def focus(self) -> None:
        self.evaluate("e => e.focus()")

    def type(self, text: str) -> None:
        """Key by key, into what is empty."""
        self.focus()
        self.page.keyboard.type(text)

    def set_input_files(self, paths: Sequence[Path]) -> None:
        given = {"context": self.page.context, "element": self.element(), "files": [str(path) for path in paths]}
        self.page.wire.ask("input.setFiles", **given)


@dataclass
class Mouse:
    """The pointer of a page, and its wheel."""

    page: Page
    at: tuple[float, float] = (0, 0)

    def act(self, *actions: dict[str, Any]) -> None:
        self.page.act({"type": "pointer", "id": "mouse", "actions": list(actions)})

    def move(self, x: float, y: float) -> None:
        self.at = x, y
        self.act({"type": "pointerMove", "x": x, "y": y})

    def down(self, button: str = "left") -> None:
        self.act({"type": "pointerDown", "button": BUTTONS[button]})

    def up(self, button: str = "left") -> None:
        self.act({"type": "pointerUp", "button": BUTTONS[button]})

    def wheel(self, x: int, y: int) -> None:
        left, top = (round(one) for one in self.at)
        turn = {"type": "scroll", "x": left, "y": top, "deltaX": x, "deltaY": y}
        self.page.act({"type": "wheel", "id": "wheel", "actions": [turn]})

    def press(self, origin: dict[str, Any]) -> None:
        """Click in the middle of an element."""
        move = {"type": "pointerMove", "x": 0, "y": 0, "origin": origin}
        self.act(move, {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0})


@dataclass
class Keyboard:
    """The keys of a page."""

    page: Page

    def press(self, key: str) -> None:
        """One key, by its name or its character; ``Shift+ArrowUp`` holds the first one."""
        keys = [KEYS.get(one, one) for one in (key.split("+") if len(key) > 1 else [key])]
        self._keys(
            [{"type": "keyDown", "value": one} for one in keys],
            [{"type": "keyUp", "value": one} for one in reversed(keys)],
        )

    def type(self, text: str) -> None:
        self._keys([{"type": kind, "value": one} for one in text for kind in ("keyDown", "keyUp")])

    def _keys(self, *actions: list[dict[str, Any]]) -> None:
        self.page.act({"type": "key", "id": "keyboard", "actions": [one for some in actions for one in some]})


@dataclass
class Page:
    """One tab of one visitor, and what went wrong in it."""

    wire: Wire
    user: str
    context: str
    origin: str
    wrong: list[str] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    saved: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mouse, self.keyboard = Mouse(self), Keyboard(self)

    # -- what goes wrong ---------------------------------------------------------------------------------------------

    def watch(self) -> None:
        self.wire.on("log.entryAdded", self._logged)
        self.wire.on("script.message", self._told)
        self.wire.on("network.beforeRequestSent", self._asked)
        self.wire.on("network.responseCompleted", self._answered)
        self.wire.on("network.fetchError", self._failed)
        self.wire.on("browsingContext.downloadEnd", self._saved)
        tell = {"type": "channel", "value": {"channel": self.context}}
        self.wire.ask("script.addPreloadScript", functionDeclaration=WATCH, arguments=[tell], userContexts=[self.user])

    def _logged(self, event: dict[str, Any]) -> None:
        if event["level"] in {"error", "warn"} and event["source"].get("context") == self.context:
            self.wrong.append(f"{event['level']}: {event['text']}")

    def _told(self, event: dict[str, Any]) -> None:
        if event["channel"] == self.context:
            self.wrong.append(f"content security policy: {event['data']['value']}")

    def _asked(self, event: dict[str, Any]) -> None:
        """Loopback is ours and the provider of identities."""
        ours = (self.origin, "http://127.0.0.1:", "data:", "blob:")
        if event["context"] == self.context and not event["request"]["url"].startswith(ours):
            self.wrong.append(f"elsewhere: {event['request']['url']}")

    def _answered(self, event: dict[str, Any]) -> None:
        if event["context"] != self.context:
            return
        if event["navigation"]:
            self.statuses[event["navigation"]] = event["response"]["status"]
        elif event["response"]["status"] >= 400 and event["request"]["url"].startswith(self.origin):
            self.wrong.append(f"{event['response']['status']} {event['request']['url']}")

    def _failed(self, event: dict[str, Any]) -> None:
        # What a page itself leaves off, because it wants another image now, is no failure.
        if event["context"] == self.context and event["errorText"] != "NS_BINDING_ABORTED":
            self.wrong.append(f"{event['errorText']} {event['request']['url']}")

    def _saved(self, event: dict[str, Any]) -> None:
        if event["context"] == self.context:
            self.saved.append(event)

    # -- what a test does --------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return self.evaluate("() => location.href")

    def goto(self, url: str) -> int:
        """Open an address, all of it; give its status."""
        done = self.wire.ask("browsingContext.navigate", context=self.context, url=url, wait="complete")
        assert wait_until(lambda: self.alive() and done["navigation"] in self.statuses)
        return self.statuses[done["navigation"]]

    def popup(self) -> Page:
        """The tab that the same visitor opened beside this one."""
        others: list[str] = []

        def opened() -> bool:
            tabs = self.wire.ask("browsingContext.getTree")["contexts"]
            others[:] = [tab["context"] for tab in tabs if tab["userContext"] == self.user]
            others.remove(self.context)
            return len(others) == 1

        assert wait_until(opened), others
        return Page(self.wire, self.user, others[0], self.origin)

    def alive(self) -> bool:
        """Whether the page answers; what was said until now has been heard then."""
        return self.evaluate("() => true")

    def evaluate(self, function: str, arg: Any = None, *, element: dict[str, Any] | None = None) -> Any:
        """Run a function in the page; what it gives comes as JSON."""
        call = "(e, JSON.parse(given))" if element else "(JSON.parse(given))"
        done = self.wire.ask(
            "script.callFunction",
            functionDeclaration=f"async (given, e) => JSON.stringify(await ({function}){call})",
            arguments=[{"type": "string", "value": json.dumps(arg)}, *([element] if element else [])],
            awaitPromise=True,
            target={"context": self.context},
        )
        assert done["type"] == "success", done.get("exceptionDetails", {}).get("text")
        return json.loads(done["result"]["value"]) if "value" in done["result"] else None

    def wait_for_function(self, function: str, arg: Any = None) -> None:
        def holds() -> bool:
            # Between two pages there is nobody to ask.
            with contextlib.suppress(Refusal):
                return bool(self.evaluate(function, arg))
            return False

        assert wait_until(holds), (function, arg, self.wrong, self.evaluate("() => document.body.innerText"))

    def wait_for_url(self, pattern: str) -> None:
        self.wait_for_function(
            "pattern => new RegExp(pattern).test(location.href) && document.readyState === 'complete'", pattern
        )

    def locator(self, css: str) -> Locator:
        return Locator(self, (({"type": "css", "value": css}, None),))

    def get_by_role(self, role: str, *, name: str) -> Locator:
        return Locator(self, (({"type": "accessibility", "value": {"role": role, "name": name}}, None),))

    def get_by_text(self, text: str) -> Locator:
        """What holds these words itself, not in an element of its own."""
        assert "'" not in text, "XPath 1.0 has no way to say it"
        where = f"//body//*[text()[contains(normalize-space(.), '{text}')]]"
        return Locator(self, (({"type": "xpath", "value": where}, None),))

    def set_viewport_size(self, size: dict[str, int], zoom: float = 1.0) -> None:
        """A window of a size in the page's own pixels, each so many of the screen."""
        given = {"viewport": size, "devicePixelRatio": zoom}
        self.wire.ask("browsingContext.setViewport", context=self.context, **given)

    def act(self, source: dict[str, Any]) -> None:
        self.wire.ask("input.performActions", context=self.context, actions=[source])

    def screenshot(self, *, path: Path, whole: bool = False) -> None:
        """For who looks with his own eyes."""
        origin = "document" if whole else "viewport"
        shot = self.wire.ask("browsingContext.captureScreenshot", context=self.context, origin=origin)
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self, *, path: Path) -> None:
        """As it is printed, on A4."""
        size = {"width": 21.0, "height": 29.7}
        made = self.wire.ask("browsingContext.print", context=self.context, page=size)
        path.write_bytes(base64.b64decode(made["data"]))


@dataclass
class Visitor:
    """A person at this browser, as `tests.e2e.portal_house.Visitor` is at the other one."""

    page: Page
    origin: str

    def go(self, path: str) -> int:
        return self.page.goto(f"{self.origin}{path}")

    def sign_in(self, who: Practitioner) -> None:
        """From the sign-in page through the provider's list of accounts."""
        self.page.get_by_text("Pro Santé Connect").first.click()
        self.page.get_by_text(who.family).first.click()
        self.page.wait_for_url(f"^{re.escape(self.origin)}/(?!psc/)")

    def read(self) -> str:
        return re.sub(r"\s+", " ", self.page.locator("main").inner_text())


@dataclass
class Firefox:
    """One browser."""

    wire: Wire

    @contextlib.contextmanager
    def visitor(self, origin: str, folder: Path, viewport: dict[str, int]) -> Iterator[Visitor]:
        """Somebody who was never here, at a window of a size; what he saves comes into the folder."""
        user = self.wire.ask("browser.createUserContext")["userContext"]
        saving = {"type": "allowed", "destinationFolder": str(folder)}
        self.wire.ask("browser.setDownloadBehavior", downloadBehavior=saving, userContexts=[user])
        context = self.wire.ask("browsingContext.create", type="tab", userContext=user)["context"]
        page = Page(self.wire, user, context, origin)
        page.set_viewport_size(viewport)
        page.watch()
        yield Visitor(page, origin)
        self.wire.ask("browser.removeUserContext", userContext=user)


@contextlib.contextmanager
def launched(folder: Path) -> Iterator[Firefox]:
    profile = folder / "profile"
    profile.mkdir(parents=True)
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items()]
    (profile / "user.js").write_text("".join(lines), "utf-8")
    environment = {**os.environ, "HOME": str(folder), "TZ": "Europe/Paris", "MOZ_CRASHREPORTER_DISABLE": "1"}
    command = [FIREFOX, "--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port=0"]
    with (folder / "said.txt").open("wb") as said:
        process = subprocess.Popen([*command, "about:blank"], stdout=said, stderr=said, env=environment)
    try:
        address = re.compile(r"WebDriver BiDi listening on (ws://[a-z0-9.]+:\d+)\s")

        def listening() -> re.Match[str] | None:
            assert process.poll() is None, (folder / "said.txt").read_text("utf-8", "replace")
            return address.search((folder / "said.txt").read_text("utf-8", "replace"))

        assert wait_until(listening)
        patient = {"open_timeout": PATIENCE_S, "ping_interval": None, "max_size": None, "proxy": None}
        with connect(f"{listening()[1]}/session", **patient) as socket:
            wire = Wire(socket)
            wire.ask("session.new", capabilities={})
            yield Firefox(wire)
    finally:
        process.kill()  # its profile is thrown away: nothing to save
        process.wait()
