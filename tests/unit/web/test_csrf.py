"""Seals and form tokens: nothing foreign, altered, old or of another purpose passes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from gateway.errors import Forbidden
from gateway.web.csrf import Csrf
from gateway.web.sealed import Seal

SECRET = b"s" * 32
CSRF = Csrf(Seal(SECRET, "csrf"), "https://rcp.example.fr")


def request(**headers):
    return Request(
        {
            "type": "http",
            "method": "POST",
            "scheme": "http",
            "server": ("inside", 80),
            "path": "/",
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        }
    )


def test_own_form_passes():
    CSRF.check(request(origin="https://rcp.example.fr", sec_fetch_site="same-origin"), "s1", CSRF.token("s1"))
    CSRF.check(request(), "s1", CSRF.token("s1"))
    CSRF.check(request(host="localhost:8080", origin="http://localhost:8080"), "s1", CSRF.token("s1"))
    CSRF.check(request(x_csrf_token=CSRF.token("s1")), "s1", None)


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({}, None),
        ({}, ""),
        ({}, CSRF.token("s2")),
        ({}, Csrf(Seal(b"t" * 32, "csrf"), "https://rcp.example.fr").token("s1")),
        ({"origin": "https://evil.example"}, CSRF.token("s1")),
        ({"origin": "null"}, CSRF.token("s1")),
        ({"sec_fetch_site": "cross-site"}, CSRF.token("s1")),
        ({"sec_fetch_site": "same-site"}, CSRF.token("s1")),
    ],
)
def test_foreign_form_is_refused(headers, token):
    with pytest.raises(Forbidden, match="form-foreign"):
        CSRF.check(request(**headers), "s1", token)


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=4))
def test_sealed_value_comes_back(value):
    assert Seal(SECRET, "a").open(Seal(SECRET, "a").close(value)) == value


def test_sealed_value_of_another_purpose_or_key_is_noise():
    sealed = Seal(SECRET, "a").close({"x": "1"})
    assert Seal(SECRET, "b").open(sealed) is None
    assert Seal(b"t" * 32, "a").open(sealed) is None
    assert Seal(SECRET, "a").open(sealed[:-4] + "AAAA") is None
    assert Seal(SECRET, "a").open("") is None
    assert Seal(SECRET, "a").open("é") is None


def test_sealed_value_ages():
    assert Seal(SECRET, "a").open(Seal(SECRET, "a").close({}), max_age_s=-1) is None
