"""Deny by default, one proof decides, asked once a request."""

from __future__ import annotations

from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Request, Response

from gateway.errors import Fault, GatewayError, UnknownIdentity
from gateway.web.authenticators import BEARER, SESSION, Authenticators, caller_of, current_caller, in_thread
from gateway.web.background import served
from gateway.web.outcome import http_status


@pytest.fixture
def registry():
    return Authenticators()


@pytest.fixture
def client(registry):
    app = FastAPI()
    app.state.authenticators = registry

    @app.exception_handler(GatewayError)
    async def refused(request: Request, error: GatewayError) -> Response:
        return Response(error.code, http_status(error))

    @app.get("/either")
    def either(caller: Annotated[Any, Depends(caller_of(BEARER, SESSION))]) -> Response:
        return Response(caller)

    @app.get("/page")
    async def page(request: Request) -> Response:
        first = await current_caller(request)
        second = await current_caller(request)
        return Response(f"{first} {second}")

    with served(app) as origin, httpx.Client(timeout=60, base_url=origin) as http:
        yield http


def test_no_scheme_registered_is_refused(client):
    got = client.get("/either")
    assert (got.status_code, got.text) == (401, "authentication-required")


def test_scheme_not_accepted_by_the_route_is_not_asked(client, registry):
    registry.register("certificate", in_thread(lambda _: "partner"))
    assert client.get("/either").status_code == 401


def test_first_accepted_scheme_that_recognises_its_proof_decides(client, registry):
    registry.register(SESSION, in_thread(lambda _: "doctor"))
    registry.register(BEARER, in_thread(lambda r: "client" if "authorization" in r.headers else None))
    assert client.get("/either").text == "doctor"
    assert client.get("/either", headers={"Authorization": "Bearer x"}).text == "client"


def test_bad_proof_refuses_even_when_another_is_good(client, registry):
    async def bad(request):
        raise UnknownIdentity("token-expired", "Jeton expiré.")

    registry.register(BEARER, bad)
    registry.register(SESSION, in_thread(lambda _: "doctor"))
    got = client.get("/either")
    assert (got.status_code, got.text) == (401, "token-expired")


def test_asked_once_a_request(client, registry):
    asked = []
    registry.register(SESSION, in_thread(lambda _: asked.append(1) or "doctor"))
    assert client.get("/page").text == "doctor doctor"
    assert asked == [1]


def test_scheme_twice_is_a_defect(registry):
    registry.register(SESSION, in_thread(lambda _: None))
    with pytest.raises(Fault):
        registry.register(SESSION, in_thread(lambda _: None))
