"""Signing in over HTTP against a provider that behaves, and one that does not; real database, real audit lines."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import structlog
from sqlalchemy import select, update

from gateway.model.account import SignIn as SignInRow
from gateway.model.account import WebSession
from gateway.model.directory import Practitioner
from gateway.model.store import utcnow
from gateway.settings import Psc
from gateway.web.rate import Rate
from tests.loopback import until
from tests.psc_misbehaving import ALICE, BRUNO, CLIENT, FELIX, GINA, HUGO
from tests.psc_portal import choose_account, hidden_field, served_portal, who


def sign_in(browser: httpx.Client, account: int, wish: str = "/patients") -> httpx.Response:
    return choose_account(browser, browser.get("/psc/connexion", params={"next": wish}), account)


@contextlib.contextmanager
def about(case: object) -> Iterator[None]:
    """Say which case of a loop failed: the cases share a database, which takes longer to make than they to run."""
    try:
        yield
    except (AssertionError, TypeError) as failed:
        failed.add_note(f"case: {case}")
        raise


def sessions_of(portal) -> list[WebSession]:
    with portal.steps.store.session() as session:
        return list(session.scalars(select(WebSession)).unique())


def cookies(browser: httpx.Client) -> set[str]:
    return {cookie.name for cookie in browser.cookies.jar}


FOREIGN = (
    "https://evil.example/",
    "//evil.example/",
    "/\\evil.example",
    "/\r\nSet-Cookie:x",
    "javascript:alert(1)",
    "/psc/retour?code=x",
    "",
    "/é",
    "/x" * 1500,
)

# -- it works --------------------------------------------------------------------------------------------------------


@pytest.mark.req("S2-027")
def test_unknown_physician_signs_in_without_any_account_before(browser, portal):
    page = sign_in(browser, ALICE)
    situation = "Médecin – Oncologie, option médicale (SM) – CHU FICTIF"
    assert who(page) == ["ALICE EXEMPLE", "899700000013", situation, "eidas1"]
    with portal.steps.store.session() as session:
        row = session.scalar(select(Practitioner))
    assert (row.rpps, row.idnps, row.family, row.source) == ("99700000013", "899700000013", "EXEMPLE", "psc")
    assert portal.signed() == [("connexion", "0", None)]
    (line,) = portal.audit()
    assert line["actor_id"] == "899700000013"
    assert line["acr"] == "eidas1"
    assert line["address"] == "127.0.0.1"
    assert "CHU FICTIF" in line["actor_situation"]
    assert line["detail"]["psc_sid"]


def test_known_physician_is_found_by_rpps_and_left_as_the_directory_has_him(browser, portal, steps):
    def known(step):
        step.session.add(
            Practitioner(rpps="99700000013", idnps="899700000013", family="ÉXEMPLE", given="Alice", source="annuaire",
                         as_of=utcnow().date())
        )  # fmt: skip

    from gateway.rcp.access import SYSTEM

    steps.run(SYSTEM, known)
    sign_in(browser, ALICE)
    with steps.store.session() as session:
        (row,) = session.scalars(select(Practitioner)).all()
    assert (row.family, row.source) == ("ÉXEMPLE", "annuaire")


@pytest.mark.req("S0-031")
def test_wish_survives_the_round_trip(browser, portal):
    page = sign_in(browser, ALICE, "/patients?page=2&tri=date")
    assert page.url.raw_path == b"/patients?page=2&tri=date"


@pytest.mark.req("S0-031")
def test_wish_that_is_not_ours_is_forgotten(browser, portal):
    for wish in FOREIGN:
        with about(wish[:30]):
            page = sign_in(browser, ALICE, wish)
            assert str(page.url) == f"{portal.origin}/patients"


def test_protected_page_leads_to_the_sign_in_and_back(browser, portal):
    page = browser.get("/patients?a=1")
    assert page.url.path == "/connexion"
    assert "Pro Santé Connect" in page.text
    button = re.search(r'href="(/psc/connexion[^"]*)"', page.text)[1].replace("&amp;", "&")
    page = choose_account(browser, browser.get(button), ALICE)
    assert page.url.raw_path == b"/patients?a=1"
    assert browser.get("/connexion?next=/patients%3Fb=2").url.raw_path == b"/patients?b=2"


def test_request_is_what_psc_expects(browser, portal, provider):
    browser.follow_redirects = False
    sent = browser.get("/psc/connexion")
    target = urlsplit(sent.headers["location"])
    asked = {name: value[0] for name, value in parse_qs(target.query).items()}
    assert target.path == "/wallet/auth"
    assert asked["response_type"] == "code"
    assert asked["scope"] == "openid scope_all"
    assert asked["acr_values"] == "eidas1"
    assert asked["client_id"] == CLIENT
    assert asked["redirect_uri"] == f"{portal.origin}/psc/retour"
    assert asked["code_challenge_method"] == "S256"
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", asked["code_challenge"])
    assert len(asked["state"]) >= 43
    assert re.fullmatch(r"[0-9a-f]{64}", asked["nonce"])
    assert "HttpOnly" in sent.headers["set-cookie"]
    assert "SameSite=lax" in sent.headers["set-cookie"]
    again = parse_qs(urlsplit(browser.get("/psc/connexion").headers["location"]).query)
    assert all(again[name][0] != asked[name] for name in ("state", "nonce", "code_challenge"))


def test_database_and_cookie_do_not_help_each_other(browser, portal):
    sign_in(browser, ALICE)
    (row,) = sessions_of(portal)
    token = browser.cookies["rcp-session"]
    assert token not in (row.token_hash, str(row.id))
    assert len(token) >= 43
    assert "eyJ" not in row.id_token


@pytest.mark.parametrize("fault", ["userinfo_jwt", "post_only"])
def test_other_correct_ways_of_the_provider(browser, portal, provider, fault):
    provider.fault = fault
    assert who(sign_in(browser, ALICE))[1] == "899700000013"


def test_rotated_key_is_fetched_again(steps, psc, provider, gateway_port):
    turned = {"by": timedelta()}
    with (
        served_portal(steps, psc, port=gateway_port, now=lambda: utcnow() + turned["by"]) as portal,
        httpx.Client(timeout=60, base_url=portal.origin, follow_redirects=True) as browser,
    ):
        sign_in(browser, ALICE)
        provider.rotate()
        turned["by"] = timedelta(seconds=31)
        before = provider.served_keys
        assert sign_in(browser, ALICE).status_code == 200
        assert provider.served_keys == before + 1


# -- several work situations -----------------------------------------------------------------------------------------


def test_several_situations_none_is_taken_in_silence(browser, portal):
    page = sign_in(browser, BRUNO, "/patients?x=1")
    assert page.url.path == "/psc/situation"
    choices = re.findall(r'name="situation" value="([^"]+)"( checked)?', page.text)
    assert len(choices) == 2
    assert not any(checked for _, checked in choices)
    # Until one is chosen nothing opens.
    assert browser.get("/patients").url.path == "/psc/situation"
    token = hidden_field(page.text, "csrf")
    missing = browser.post("/psc/situation", data={"csrf": token, "situation": "0000"})
    assert missing.status_code == 400
    assert "Choisissez une des situations" in missing.text
    assert browser.post("/psc/situation", data={"situation": choices[1][0]}).status_code == 403
    page = browser.post("/psc/situation", data={"csrf": token, "situation": choices[1][0]})
    assert page.url.raw_path == b"/patients?x=1"
    assert who(page)[2].endswith("sans structure déclarée")
    again = browser.post("/psc/situation", data={"csrf": token, "situation": choices[0][0]})
    assert again.url.path == "/patients"
    assert who(again)[2].endswith("sans structure déclarée")
    assert portal.signed() == [("connexion", "0", None), ("connexion", "0", "situation")]
    assert portal.audit()[-1]["actor_situation"].endswith("sans structure déclarée")


# -- each refusal: a French page, an audit line, no session ----------------------------------------------------------

REFUSED = {
    "wrong_iss": "psc-issuer",
    "wrong_aud": "psc-audience",
    "wrong_aud_list": "psc-audience",
    "many_aud_no_azp": "psc-authorized-party",
    "wrong_azp": "psc-authorized-party",
    "expired": "psc-expired",
    "no_exp": "psc-expired",
    "text_exp": "psc-expired",
    "stale": "psc-issued-at",
    "future": "psc-issued-at",
    "not_yet": "psc-not-yet-valid",
    "wrong_nonce": "psc-nonce",
    "no_nonce": "psc-nonce",
    "weak_acr": "psc-acr",
    "no_acr": "psc-acr",
    "acr_list": "psc-acr",
    "wrong_at_hash": "psc-at-hash",
    "refresh_typ": "psc-token-type",
    "no_sub": "psc-subject",
    "alg_none": "psc-algorithm",
    "alg_hs256": "psc-algorithm",
    "alg_rs512": "psc-algorithm",
    "other_key": "psc-signature",
    "altered": "psc-signature",
    "unknown_kid": "psc-key-unknown",
    "garbage": "psc-token-unreadable",
    "no_token": "psc-token-unreadable",
    "userinfo_sub": "psc-userinfo-subject",
    "userinfo_jwt_aud": "psc-audience",
    "userinfo_jwt_forged": "psc-signature",
}


def test_answer_that_is_not_right_is_refused(browser, portal, provider):
    for fault, reason in REFUSED.items():
        with about(fault):
            provider.fault = fault
            assert_refused(portal, browser, sign_in(browser, ALICE), 403, reason)


def assert_refused(portal, browser, page, status, reason, outcome="4"):
    assert page.status_code == status, page.text
    assert '<html lang="fr">' in page.text
    assert reason in page.text
    assert "Traceback" not in page.text
    assert portal.signed()[-1:] == [("connexion", outcome, reason)]
    assert sessions_of(portal) == []
    assert not cookies(browser) & {"rcp-session", "rcp-connexion"}
    assert browser.get("/patients").url.path == "/connexion"


def test_weak_account_is_refused(browser, portal):
    assert_refused(portal, browser, sign_in(browser, GINA), 403, "psc-acr")


def test_person_who_is_no_professional_is_refused_by_name_in_the_trail(browser, portal):
    assert_refused(portal, browser, sign_in(browser, FELIX), 403, "psc-not-a-professional")
    assert portal.audit()[-1]["actor_id"] == "399000001000001"


def test_cancelled_sign_in_shows_the_button_again(browser, portal):
    page = sign_in(browser, "annuler", "/patients?x=1")
    assert page.status_code == 403
    assert "Vous avez interrompu la connexion" in page.text
    assert "next=/patients%3Fx%3D1" in page.text
    assert portal.signed() == [("connexion", "4", "psc-cancelled")]
    assert cookies(browser) == set()


def returned(browser: httpx.Client, account: int = ALICE) -> httpx.URL:
    """Go as far as the return address, without following it."""
    page = browser.get("/psc/connexion")
    browser.follow_redirects = False
    back = choose_account(browser, page, account)
    browser.follow_redirects = True
    return httpx.URL(back.headers["location"])


def test_return_is_used_once(browser, portal):
    back = returned(browser)
    kept = browser.cookies["rcp-connexion"]
    assert browser.get(back).url.path == "/patients"
    with httpx.Client(timeout=60, cookies={"rcp-connexion": kept}) as thief:
        page = thief.get(back)
    assert page.status_code == 400
    assert portal.signed() == [("connexion", "0", None), ("connexion", "4", "psc-state-reused")]
    assert len(sessions_of(portal)) == 1


def test_return_in_another_browser_is_refused_and_the_own_one_still_works(browser, portal):
    back = returned(browser)
    with httpx.Client(timeout=60, base_url=portal.origin, follow_redirects=True) as other:
        assert_refused(portal, other, other.get(back), 400, "psc-state-missing")
        other.get("/psc/connexion")
        assert_refused(portal, other, other.get(back), 400, "psc-state-foreign")
    assert browser.get(back).url.path == "/patients"


def test_state_that_nobody_drew_is_refused(browser, portal):
    back = returned(browser)
    page = browser.get(back.copy_set_param("state", "invented"))
    assert_refused(portal, browser, page, 400, "psc-state-unknown")


def test_state_that_waited_too_long_is_refused(browser, portal):
    back = returned(browser)
    with portal.steps.store.session() as session:
        session.execute(update(SignInRow).values(expires_at=utcnow() - timedelta(seconds=1)))
        session.commit()
    assert_refused(portal, browser, browser.get(back), 400, "psc-state-expired")


def test_forged_code_is_refused(browser, portal):
    back = returned(browser)
    assert_refused(portal, browser, browser.get(back.copy_set_param("code", "forged")), 403, "psc-code-refused")


def test_code_of_another_sign_in_is_refused(browser, portal):
    """Code injection: the thief's code with the victim's state fails on PKCE."""
    with httpx.Client(timeout=60, base_url=portal.origin, follow_redirects=True) as thief:
        stolen = returned(thief, BRUNO).params["code"]
    back = returned(browser)
    assert_refused(portal, browser, browser.get(back.copy_set_param("code", stolen)), 403, "psc-code-refused")


def test_return_of_another_issuer_is_refused(browser, portal):
    back = returned(browser).copy_set_param("iss", "https://auth.esw.esante.gouv.fr/auth/realms/esante-wallet")
    assert_refused(portal, browser, browser.get(back), 403, "psc-issuer")


@pytest.mark.parametrize(
    ("error", "status", "reason", "outcome"),
    [("login_required", 403, "psc-error", "4"), ("temporarily_unavailable", 503, "psc-unavailable", "8")],
)
def test_error_of_the_provider_has_its_page(browser, portal, error, status, reason, outcome):
    back = returned(browser)
    page = browser.get(back.copy_remove_param("code").copy_set_param("error", error))
    assert_refused(portal, browser, page, status, reason, outcome)


def test_return_without_code_or_with_two_states_is_refused(browser, portal):
    back = returned(browser)
    twice = browser.get(f"{back}&state=other")
    assert_refused(portal, browser, twice, 400, "psc-return-unreadable")
    back = returned(browser)
    assert_refused(portal, browser, browser.get(back.copy_remove_param("code")), 400, "psc-code-missing")


@pytest.mark.parametrize("fault", ["userinfo_500", "userinfo_list", "userinfo_huge"])
def test_provider_that_fails_half_way_is_unavailable(browser, portal, provider, fault):
    provider.fault = fault
    assert_refused(portal, browser, sign_in(browser, ALICE), 503, "psc-unavailable", "8")


@pytest.mark.parametrize("fault", ["discovery_foreign", "discovery_short"])
def test_discovery_of_another_environment_is_not_followed(browser, portal, provider, fault):
    provider.fault = fault
    page = browser.get("/psc/connexion")
    assert page.status_code == 500
    assert "psc-discovery" in page.text
    assert '<html lang="fr">' in page.text


def test_provider_that_is_down_gives_a_page(steps, gateway_port):
    away = Psc(discovery_url="http://127.0.0.1:9/auth/.well-known/wallet-openid-configuration", client_id="x")
    with (
        served_portal(steps, away, port=gateway_port) as portal,
        httpx.Client(timeout=60, base_url=portal.origin) as browser,
    ):
        page = browser.get("/psc/connexion")
    assert page.status_code == 503
    assert "Pro Santé Connect ne répond pas" in page.text
    assert "Traceback" not in page.text


def test_without_configuration_the_page_says_so(steps, gateway_port):
    with (
        served_portal(steps, None, port=gateway_port) as portal,
        httpx.Client(timeout=60, base_url=portal.origin) as browser,
    ):
        page = browser.get("/psc/connexion")
    assert page.status_code == 503
    assert "psc-not-configured" in page.text


def test_wrong_client_secret_is_ours_to_mend(steps, psc, gateway_port):
    from dataclasses import replace

    wrong = replace(psc, client_secret="wrong")
    with (
        served_portal(steps, wrong, port=gateway_port) as portal,
        httpx.Client(timeout=60, base_url=portal.origin, follow_redirects=True) as browser,
    ):
        assert_refused(portal, browser, sign_in(browser, ALICE), 500, "psc-client-refused", "8")


def test_too_many_steps_are_refused_by_name(steps, psc, gateway_port):
    with (
        served_portal(steps, psc, port=gateway_port, rate=Rate("connexions par adresse", 60, burst=3)) as portal,
        httpx.Client(timeout=60, base_url=portal.origin) as browser,
    ):
        for _ in range(3):
            assert browser.get("/connexion").status_code == 200
        page = browser.get("/connexion")
    assert page.status_code == 429
    assert "connexions par adresse" in page.text


# -- the end of a session --------------------------------------------------------------------------------------------


@pytest.mark.req("S0-049")
def test_logout_ends_both_sessions_and_leaves_nothing_in_the_browser(browser, portal, provider):
    page = sign_in(browser, ALICE)
    stolen = browser.cookies["rcp-session"]
    assert page.headers["cache-control"] == "no-store"
    browser.follow_redirects = False
    left = browser.post("/deconnexion", data={"csrf": hidden_field(page.text, "csrf")})
    browser.follow_redirects = True
    target = httpx.URL(left.headers["location"])
    assert str(target).startswith(f"{provider.issuer}/protocol/openid-connect/logout")
    assert target.params["id_token_hint"].count(".") == 2
    landed = browser.get(target)
    assert str(landed.url) == f"{portal.origin}/connexion"
    assert cookies(browser) == set()
    with httpx.Client(timeout=60, base_url=portal.origin, cookies={"rcp-session": stolen}) as thief:
        assert thief.get("/patients").status_code == 303
    (row,) = sessions_of(portal)
    assert (row.ended_by, row.id_token) == ("utilisateur", None)
    assert portal.signed() == [("connexion", "0", None), ("deconnexion", "0", "utilisateur")]


def test_logout_from_another_site_is_refused(browser, portal):
    page = sign_in(browser, ALICE)
    token = hidden_field(page.text, "csrf")
    assert browser.post("/deconnexion").status_code == 403
    evil = {"Origin": "https://evil.example"}
    assert browser.post("/deconnexion", data={"csrf": token}, headers=evil).status_code == 403
    assert browser.get("/patients").url.path == "/patients"


@pytest.mark.parametrize(("after", "by"), [(timedelta(minutes=31), "inactivite"), (timedelta(hours=4), "duree")])
def test_session_ends_by_itself(steps, psc, gateway_port, after, by):
    turned = {"by": timedelta()}
    with (
        served_portal(steps, psc, port=gateway_port, now=lambda: utcnow() + turned["by"]) as portal,
        httpx.Client(timeout=60, base_url=portal.origin, follow_redirects=True) as browser,
    ):
        sign_in(browser, ALICE)
        step = timedelta(minutes=20)
        while turned["by"] + step < after:
            turned["by"] += step
            if by == "duree":
                assert browser.get("/patients").url.path == "/patients"
        turned["by"] = after
        assert browser.get("/patients").url.path == "/connexion"
        assert portal.signed()[-1] == ("deconnexion", "0", by)


def test_sweep_ends_what_nobody_asks_for(steps, psc, gateway_port):
    turned = {"by": timedelta()}
    with (
        served_portal(steps, psc, port=gateway_port, now=lambda: utcnow() + turned["by"]) as portal,
        httpx.Client(timeout=60, base_url=portal.origin, follow_redirects=True) as browser,
    ):
        sign_in(browser, ALICE)
        assert portal.sessions.sweep() == 0
        turned["by"] = timedelta(minutes=31)
        assert portal.sessions.sweep() == 1
        assert portal.sessions.sweep() == 0
        assert portal.signed()[-1] == ("deconnexion", "0", "inactivite")


def test_second_sign_in_of_a_browser_replaces_the_first(browser, portal):
    sign_in(browser, ALICE)
    first = browser.cookies["rcp-session"]
    page = sign_in(browser, HUGO)
    assert who(page)[1] == "899700000088"
    assert browser.cookies["rcp-session"] != first
    assert ("deconnexion", "0", "remplacee") in portal.signed()
    assert sum(row.ended_at is None for row in sessions_of(portal)) == 1


def logout_token(provider, **claims):
    now = int(utcnow().timestamp())
    event = {"http://schemas.openid.net/event/backchannel-logout": {}}
    base = {"iss": provider.issuer, "aud": CLIENT, "iat": now, "jti": "j1", "events": event}
    return provider.sign({name: value for name, value in (base | claims).items() if value is not None})


def test_logout_at_the_provider_ends_ours_once(browser, portal, provider):
    sign_in(browser, ALICE)
    (row,) = sessions_of(portal)
    told = logout_token(provider, sid=row.psc_sid)
    answer = browser.post("/psc/deconnexion", data={"logout_token": told})
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert browser.get("/patients").url.path == "/connexion"
    assert portal.signed()[-1] == ("deconnexion", "0", "psc")
    assert browser.post("/psc/deconnexion", data={"logout_token": told}).status_code == 400


def test_logout_by_subject_ends_every_session_of_that_person(browser, portal, provider):
    sign_in(browser, ALICE)
    told = logout_token(provider, sub=provider.accounts[ALICE].subject)
    assert browser.post("/psc/deconnexion", data={"logout_token": told}).status_code == 200
    assert browser.get("/patients").url.path == "/connexion"


WRONG_LOGOUTS = (
    {"sid": None},
    {"sid": "s", "nonce": "n"},
    {"sid": "s", "aud": "other"},
    {"sid": "s", "iss": "other"},
    {"sid": "s", "events": {}},
    {"sid": "s", "jti": None},
    {"sid": "s", "iat": 1},
    {"sid": ["s"]},
)


def test_logout_token_that_is_not_right_ends_nothing(browser, portal, provider):
    sign_in(browser, ALICE)
    for claims in WRONG_LOGOUTS:
        with about(claims):
            refused = browser.post("/psc/deconnexion", data={"logout_token": logout_token(provider, **claims)})
            assert refused.status_code == 400
            assert browser.get("/patients").url.path == "/patients"
            assert portal.signed()[-1][1] == "4"


def test_id_token_is_no_logout_token(browser, portal, provider):
    assert browser.post("/psc/deconnexion", data={"logout_token": "x.y.z"}).status_code == 400
    assert browser.post("/psc/deconnexion").status_code == 400


# -- https, logs -----------------------------------------------------------------------------------------------------


def test_cookies_of_an_https_portal_are_host_bound_and_secure(steps, psc, gateway_port):
    public = "https://rcp.example.fr"
    with (
        served_portal(steps, psc, port=gateway_port, public_url=public) as portal,
        httpx.Client(timeout=60, base_url=portal.origin) as browser,
    ):
        told = browser.get("/psc/connexion").headers["set-cookie"]
    assert told.startswith("__Host-rcp-connexion=")
    assert all(part in told for part in ("; Secure", "; HttpOnly", "; Path=/", "; SameSite=lax"))
    assert "Domain" not in told


def test_no_log_line_names_the_person(browser, portal, provider):
    with structlog.testing.capture_logs() as lines:
        page = sign_in(browser, HUGO, "/patients?nom=CANARIVAL")
        assert who(page)[0] == "HUGO CANARIVAL"
        provider.fault = "wrong_nonce"
        sign_in(browser, HUGO)
        browser.get("/psc/retour?state=CANARIVAL&code=CANARIVAL")
        until(lambda: {line["event"] for line in lines} >= {"request", "session opened", "sign-in refused"})
    said = str(lines)
    for secret in ("CANARIVAL", "HUGO", "99700000088", browser.cookies.get("rcp-session", "none"), "code=", "state="):
        assert secret not in said
