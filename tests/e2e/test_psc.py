"""Signing in against a certified OpenID provider, over the whole composed application and a real PostgreSQL."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
import structlog
from sqlalchemy import func, select

from gateway.app.gateway import open_gateway
from gateway.app.http import application
from gateway.model.account import WebSession
from gateway.model.dossier import Correspondent, Dossier
from gateway.settings import Psc, Settings
from gateway.transport import Address
from gateway.web.background import served
from tests.e2e.psc_idp import provider
from tests.loopback import free_port
from tests.psc_portal import hidden_field, portal_address
from tests.world import World, audit_lines, build


@pytest.fixture(scope="module")
def address() -> str:
    """Where the gateway will listen; the provider must know it before."""
    return portal_address(free_port())


@pytest.fixture(scope="module")
def discovery(address) -> Iterator[str]:
    with provider.running(address) as url:
        yield url


@dataclass
class House:
    """The served gateway, its world and its dossier."""

    origin: str
    store: object
    world: World
    dossier: Dossier

    def browser(self) -> Browser:
        return Browser(httpx.Client(timeout=60, base_url=self.origin, follow_redirects=True))

    def audit(self, *events: str) -> list[dict]:
        with self.store.session() as session:
            return [line for line in audit_lines(session) if not events or line["event"] in events]

    def open_sessions(self) -> int:
        with self.store.session() as session:
            return session.scalar(select(func.count()).select_from(WebSession).where(WebSession.ended_at.is_(None)))


@dataclass
class Browser:
    """A browser that chooses its account at the provider."""

    client: httpx.Client

    def get(self, path: str) -> httpx.Response:
        return self.client.get(path)

    def sign_in(self, account: str, wish: str = "/patients") -> httpx.Response:
        asked = self.client.get("/psc/connexion", params={"next": wish})
        assert "/interaction/" in asked.url.path, asked.text
        return self.client.get(asked.url, params={"compte": account})

    def returned(self, account: str) -> httpx.URL:
        """Go as far as the return address without following it."""
        asked = self.client.get("/psc/connexion")
        answer = self.client.get(asked.url, params={"compte": account}, follow_redirects=False)
        while not (target := httpx.URL(answer.headers["location"])).path.startswith("/psc/retour"):
            answer = self.client.get(answer.url.join(target), follow_redirects=False)
        return target


@pytest.fixture
def house(request, database_url, tmp_path, address, discovery) -> Iterator[House]:
    host, port = address.removeprefix("http://").split(":")
    settings = Settings(
        data_dir=tmp_path,
        database_url=database_url,
        http_bind=Address(host, int(port)),
        public_url=address,
        psc=Psc(discovery_url=discovery, client_id=getattr(request, "param", "rcp"), client_secret=provider.SECRET),
    )
    with open_gateway(settings) as gateway, gateway.store.session() as session:
        world = build(session)
        treating = world.practitioner("SPECIMEN", rpps="99700000047", idnps="899700000047", given="Sacha")
        dossier = world.dossier()
        session.add(Correspondent(dossier_id=dossier.id, practitioner_id=treating.id, role="medecin-traitant"))
        session.commit()
        with served(application(gateway), port=int(port)) as origin:
            yield House(origin, gateway.store, world, dossier)


@pytest.mark.req("S0-031", "S2-005", "S2-027")
def test_link_of_the_mail_leads_through_the_sign_in_to_the_fiche(house):
    browser = house.browser()
    link = f"/dossiers/{house.dossier.id}"
    asked = browser.get(link)
    assert asked.url.path == "/connexion"
    assert "PAT-TROIS" not in asked.text
    button = re.search(r'href="(/psc/connexion[^"]*)"', asked.text)[1].replace("&amp;", "&")
    page = browser.client.get(browser.get(button).url, params={"compte": "sans-activite"})
    assert page.status_code == 200
    assert page.url.path == link
    assert "PAT-TROIS" in page.text
    lines = house.audit("connexion", "consultation")
    assert [(line["event"], line["outcome"], line["actor_id"]) for line in lines] == [
        ("connexion", "0", "899700000047"),
        ("consultation", "0", "899700000047"),
    ]
    assert {line["acr"] for line in lines} == {"eidas1"}
    assert lines[0]["session"] == lines[1]["session"]
    assert lines[1]["persons"] == [str(house.dossier.record_id)]


def test_another_physician_with_a_valid_session_gets_404_and_the_trail_has_it(house):
    browser = house.browser()
    page = browser.sign_in("chirurgien", f"/dossiers/{house.dossier.id}")
    assert page.status_code == 404
    assert "PAT-TROIS" not in page.text
    (line,) = house.audit("refus")
    assert line["outcome"] == "4"
    assert line["actor_id"] == "899700000088"
    assert line["object_id"] == str(house.dossier.id)
    unknown = browser.get("/dossiers/00000000-0000-7000-8000-000000000000")
    assert unknown.status_code == 404
    said = [re.sub(r'class="number">[^<]*<', "", text) for text in (page.text, unknown.text)]
    assert said[0] == said[1]


@pytest.mark.parametrize("house", ["rcp-post", "rcp-jwt"], indirect=True)
def test_other_ways_of_registering_the_gateway(house):
    page = house.browser().sign_in("infirmiere")
    assert (page.status_code, page.url.path) == (200, "/patients")
    assert house.audit("connexion")[0]["actor_id"] == "899700000039"


def test_identity_after_the_fusion_of_registers_is_known_by_its_rpps(house):
    assert house.browser().sign_in("psi").status_code == 200
    assert house.audit("connexion")[0]["actor_id"] == "899700000054"


@pytest.mark.parametrize("account", ["deux-activites", "deux-exercices"])
def test_several_situations_are_asked_for(house, account):
    browser = house.browser()
    page = browser.sign_in(account)
    assert page.url.path == "/psc/situation"
    assert browser.get("/patients").url.path == "/psc/situation"
    keys = re.findall(r'name="situation" value="([^"]+)"', page.text)
    assert len(keys) == 2
    form = {"csrf": hidden_field(page.text, "csrf"), "situation": keys[1]}
    assert browser.client.post("/psc/situation", data=form).url.path == "/patients"


REFUSED = {"acr-faible": "psc-acr", "agent": "psc-not-a-professional", "!refus": "psc-cancelled"}


@pytest.mark.parametrize("account", REFUSED)
def test_refused_identity_is_a_page_an_audit_line_and_no_session(house, account):
    browser = house.browser()
    page = browser.sign_in(account)
    assert page.status_code == 403
    assert '<html lang="fr">' in page.text
    assert_refused(house, browser, REFUSED[account])


def assert_refused(house, browser, reason):
    (line,) = house.audit("connexion")
    assert (line["outcome"], line["reason"]) == ("4", reason)
    assert house.open_sessions() == 0
    assert browser.get("/patients").url.path == "/connexion"


def test_forged_code_is_refused(house):
    browser = house.browser()
    page = browser.client.get(browser.returned("infirmiere").copy_set_param("code", "forged"))
    assert page.status_code == 403
    assert_refused(house, browser, "psc-code-refused")


def test_forged_state_is_refused(house):
    browser = house.browser()
    page = browser.client.get(browser.returned("infirmiere").copy_set_param("state", "forged"))
    assert page.status_code == 400
    assert_refused(house, browser, "psc-state-unknown")


def test_return_of_another_browser_is_refused(house):
    back = house.browser().returned("infirmiere")
    victim = house.browser()
    victim.get("/psc/connexion")
    assert victim.client.get(back).status_code == 400
    assert_refused(house, victim, "psc-state-foreign")


def test_stolen_code_with_the_own_state_fails_on_pkce(house):
    stolen = house.browser().returned("infirmiere").params["code"]
    thief = house.browser()
    page = thief.client.get(thief.returned("chirurgien").copy_set_param("code", stolen))
    assert page.status_code == 403
    assert_refused(house, thief, "psc-code-refused")


def test_return_is_used_once(house):
    browser = house.browser()
    back = browser.returned("infirmiere")
    kept = dict(browser.client.cookies)
    assert browser.client.get(back).url.path == "/patients"
    with httpx.Client(timeout=60, cookies=kept, follow_redirects=True) as again:
        assert again.get(back).status_code == 400
    assert [line["reason"] for line in house.audit("connexion")] == [None, "psc-state-reused"]


@pytest.mark.req("S0-049")
def test_logout_here_ends_the_session_at_the_provider_too(house):
    browser = house.browser()
    page = browser.sign_in("infirmiere")
    asked = browser.client.post("/deconnexion", data={"csrf": hidden_field(page.text, "csrf")})
    assert "op.logoutForm" in asked.text
    fields = {"xsrf": re.search(r'name="xsrf" value="([^"]+)"', asked.text)[1], "logout": "yes"}
    action = re.search(r'action="([^"]+)"', asked.text)[1]
    done = browser.client.post(asked.url.join(action), data=fields)
    assert str(done.url) == f"{house.origin}/connexion"
    assert house.open_sessions() == 0
    assert [line["reason"] for line in house.audit("deconnexion")] == ["utilisateur"]
    # No single sign-on is left: the provider asks again.
    assert "/interaction/" in browser.get("/psc/connexion").url.path


def test_logout_at_the_provider_ends_ours(house, discovery):
    browser = house.browser()
    browser.sign_in("infirmiere")
    end = httpx.get(discovery).json()["end_session_endpoint"]
    asked = browser.client.get(end)
    fields = {"xsrf": re.search(r'name="xsrf" value="([^"]+)"', asked.text)[1], "logout": "yes"}
    # The provider calls our back channel before it answers.
    browser.client.post(asked.url.join(re.search(r'action="([^"]+)"', asked.text)[1]), data=fields)
    assert house.open_sessions() == 0
    assert [line["reason"] for line in house.audit("deconnexion")] == ["psc"]
    assert browser.get("/patients").url.path == "/connexion"


def test_second_sign_in_is_silent_at_the_provider(house):
    """Single sign-on: another tab, or our own session ended while the provider's lives."""
    browser = house.browser()
    browser.sign_in("infirmiere")
    assert browser.get("/psc/connexion?next=/patients").url.path == "/patients"
    assert house.open_sessions() == 1


def test_no_log_line_names_anybody(house, caplog):
    caplog.set_level(logging.DEBUG)
    browser = house.browser()
    with structlog.testing.capture_logs() as lines:
        browser.sign_in("chirurgien", f"/dossiers/{house.dossier.id}?nom=CANARIVAL")
        browser.get("/patients")
        other = house.browser()
        other.client.get(other.returned("chirurgien").copy_set_param("code", "CANARIVAL"))
    assert [line for line in lines if line["event"] == "request"]
    # httpx and httpcore are this test's own browser: what they log is not the gateway's.
    records = [record.getMessage() for record in caplog.records if not record.name.startswith(("http", "asyncio"))]
    said = str(lines) + "\n".join(records)
    for secret in ("CANARIVAL", "CLEMENT", "99700000088", "PAT-TROIS", "code=", "state="):
        assert secret not in said
