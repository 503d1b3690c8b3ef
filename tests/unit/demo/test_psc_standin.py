"""The stand-in of Pro Santé Connect: strict enough that a careless client fails on it, and never in production."""

from __future__ import annotations

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from gateway.demo.psc_accounts import Account, Post
from gateway.demo.psc_standin import PscStandIn
from gateway.errors import Fault
from tests.psc_portal import choose_account

BACK = "http://127.0.0.1:1/psc/retour"
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"  # [RFC 7636 appendix B]
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
ALICE = Account("899700000013", "ALICE", "<EXEMPLE>", "DR", (Post("10", "SM36", "1990000010", "CHU FICTIF"),))


def standin(**more):
    return PscStandIn([ALICE], client_id="rcp", client_secret="s", redirect_uris=[BACK], **more)


@pytest.fixture(scope="module")
def origin():
    with standin().serving() as origin:
        yield origin


@pytest.fixture
def browser(origin):
    with httpx.Client(timeout=60, base_url=origin) as client:
        yield client


def asked(**changes):
    base = {
        "response_type": "code", "client_id": "rcp", "redirect_uri": BACK, "scope": "openid scope_all", "state": "st",
        "nonce": "no", "code_challenge": CHALLENGE, "code_challenge_method": "S256", "acr_values": "eidas1",
    }  # fmt: skip
    return {name: value for name, value in (base | changes).items() if value is not None}


def code_of(browser) -> str:
    page = browser.get("/wallet/auth", params=asked())
    back = httpx.URL(choose_account(browser, page, 0).headers["location"])
    assert back.params["state"] == "st"
    return back.params["code"]


def exchange(browser, issued, **changes):
    form = {"grant_type": "authorization_code", "code": issued, "redirect_uri": BACK, "code_verifier": VERIFIER}
    target = "/auth/realms/esante-wallet/protocol/openid-connect/token"
    return browser.post(target, data=form | changes, auth=("rcp", "s"))


def test_production_is_refused():
    with pytest.raises(Fault, match="standin-in-prod"):
        standin(profile="prod")


def test_discovery_stands_under_the_name_of_psc_only(browser, origin):
    found = browser.get("/auth/realms/esante-wallet/.well-known/wallet-openid-configuration").json()
    assert found["issuer"] == f"{origin}/auth/realms/esante-wallet"
    assert found["authorization_endpoint"] == f"{origin}/wallet/auth"
    assert found["acr_values_supported"] == ["0", "0"]
    assert browser.get("/auth/realms/esante-wallet/.well-known/openid-configuration").status_code == 404


def test_page_says_that_it_is_a_demonstration_and_escapes_names(browser):
    page = browser.get("/wallet/auth", params=asked())
    assert "Démonstration" in page.text
    assert '<html lang="fr">' in page.text
    assert "&lt;EXEMPLE&gt;" in page.text
    assert "<script" not in page.text
    assert page.headers["cache-control"] == "no-store"


def test_tokens_and_userinfo_have_the_shape_of_psc(browser, origin):
    realm = "/auth/realms/esante-wallet/protocol/openid-connect"
    answer = exchange(browser, code_of(browser)).json()
    keys = KeySet.import_key_set(browser.get(f"{realm}/certs").json())
    claims = jwt.decode(answer["id_token"], keys, algorithms=["RS256"]).claims
    assert claims["iss"] == f"{origin}/auth/realms/esante-wallet"
    assert (claims["aud"], claims["azp"], claims["nonce"]) == ("rcp", "rcp", "no")
    assert (claims["acr"], claims["typ"]) == ("eidas1", "ID")
    told = browser.get(f"{realm}/userinfo", headers={"Authorization": f"Bearer {answer['access_token']}"}).json()
    assert told["sub"] == claims["sub"] != told["SubjectNameID"]
    assert told["SubjectNameID"] == "899700000013"
    exercise = told["SubjectRefPro"]["exercices"][0]
    assert (exercise["codeProfession"], exercise["codeSavoirFaire"]) == ("10", "SM36")
    assert exercise["activities"][0]["ancienIdentifiantDeLaStructure"] == "1990000010"
    assert browser.get(f"{realm}/userinfo", headers={"Authorization": "Bearer other"}).status_code == 401


@pytest.mark.parametrize(
    "changes",
    [{"code_verifier": "another"}, {"code_verifier": ""}, {"redirect_uri": "http://127.0.0.1:1/other"}, {"code": "no"}],
)
def test_careless_exchange_fails(browser, changes):
    refused = exchange(browser, code_of(browser), **changes)
    assert (refused.status_code, refused.json()) == (400, {"error": "invalid_grant"})


def test_code_is_used_once(browser):
    code = code_of(browser)
    assert exchange(browser, code).status_code == 200
    assert exchange(browser, code).json() == {"error": "invalid_grant"}


def test_wrong_secret_is_refused(browser):
    form = {"grant_type": "authorization_code", "code": code_of(browser)}
    answer = browser.post("/auth/realms/esante-wallet/protocol/openid-connect/token", data=form, auth=("rcp", "wrong"))
    assert (answer.status_code, answer.json()) == (401, {"error": "invalid_client"})


@pytest.mark.parametrize("changes", [{"redirect_uri": "https://evil.example/"}, {"client_id": "other"}])
def test_unregistered_request_is_never_redirected(browser, changes):
    answer = browser.get("/wallet/auth", params=asked(**changes))
    assert answer.status_code == 400
    assert "location" not in answer.headers


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"scope": "profile"}, "invalid_scope"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"nonce": None}, "invalid_request"),
    ],
)
def test_incomplete_request_comes_back_as_an_error(browser, changes, error):
    back = httpx.URL(browser.get("/wallet/auth", params=asked(**changes)).headers["location"])
    assert str(back).startswith(BACK)
    assert back.params["error"] == error


def test_cancelling_and_replaying_the_page(browser):
    page = browser.get("/wallet/auth", params=asked())
    back = httpx.URL(choose_account(browser, page, "annuler").headers["location"])
    assert back.params["error"] == "access_denied"
    assert choose_account(browser, page, 0).status_code == 400
