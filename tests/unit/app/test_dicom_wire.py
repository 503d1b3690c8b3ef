"""Which pages of other sites may read images, and what an address answers to."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest
from fastapi import APIRouter, Request, Response

from gateway.app.dicom_wire import dicom_wire
from gateway.app.http import Application
from gateway.errors import NotFound
from gateway.rcp.access import SYSTEM
from gateway.web.authenticators import BEARER, Authenticators
from gateway.web.background import served

VIEWER = "https://viewer.example"


@pytest.fixture
def site() -> Iterator[Callable[..., httpx.Client]]:
    with ExitStack() as stack:

        def make(*origins: str) -> httpx.Client:
            origin = stack.enter_context(served(application(*origins)))
            return stack.enter_context(httpx.Client(base_url=origin, headers={"Authorization": "Bearer x"}))

        yield make


def application(*origins: str) -> Application:
    routes = APIRouter(prefix="/dicom-web")

    async def study(request: Request, who: object, study: str) -> Response:
        del request, who
        if study == "0":
            raise NotFound("inconnu", "Image inconnue.")
        if study == "1":
            raise ValueError("PAT-TROIS^DOMINIQUE")
        return Response(study, headers={"ETag": '"x"'})

    async def store(request: Request, who: object) -> Response:
        del request, who
        return Response("kept")

    routes.add_api_route("/studies/{study}", study, methods=["GET"], response_model=None)
    routes.add_api_route("/studies", store, methods=["POST"], response_model=None)
    app = Application()
    app.state.authenticators = Authenticators()

    async def anybody(request: Request):
        return SYSTEM if "authorization" in request.headers else None

    app.state.authenticators.register(BEARER, anybody)
    app.surround((dicom_wire(routes, origins),))
    return app


def test_no_other_site_reads_images_by_default(site):
    answer = site().get("/dicom-web/studies/2", headers={"Origin": VIEWER})
    assert (answer.status_code, answer.text) == (200, "2")
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/studies/2", "/studies/0", "/studies/1", "/nothing"])
def test_a_named_site_reads_answers_and_refusals(site, path):
    answer = site(VIEWER).get("/dicom-web" + path, headers={"Origin": VIEWER})
    assert answer.headers["access-control-allow-origin"] == VIEWER
    assert "ETag" in answer.headers["access-control-expose-headers"]
    assert "Origin" in answer.headers["vary"]
    # The portal's cookie is nobody else's to use.
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://viewer.example", f"{VIEWER}.evil.example"])
def test_another_site_reads_nothing(site, origin):
    answer = site(VIEWER).get("/dicom-web/studies/2", headers={"Origin": origin})
    assert "access-control-allow-origin" not in answer.headers
    assert "Origin" in answer.headers["vary"]


def test_a_browser_asks_first_without_a_proof(site):
    client = site(VIEWER)
    asked = {
        "Origin": VIEWER,
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "authorization",
    }
    client.headers.pop("Authorization")
    answer = client.options("/dicom-web/studies/2", headers=asked)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (204, VIEWER)
    assert "Authorization" in answer.headers["access-control-allow-headers"]
    assert answer.headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS"
    assert (
        "access-control-allow-methods"
        not in client.options("/dicom-web/studies/2", headers=asked | {"Origin": "https://evil.example"}).headers
    )


def test_an_address_says_what_it_answers_to(site):
    client = site()
    assert client.options("/dicom-web/studies").headers["allow"] == "POST, OPTIONS"
    refused = client.put("/dicom-web/studies/2")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert client.get("/dicom-web/nothing").status_code == 404
    assert client.options("/dicom-web/nothing").status_code == 404
    assert client.head("/dicom-web/studies/2").status_code == 200
    client.headers.pop("Authorization")
    assert client.get("/dicom-web/studies/2").status_code == 401


def test_a_defect_says_nothing_of_what_it_met(site, caplog):
    answer = site().get("/dicom-web/studies/1")
    assert answer.status_code == 500
    assert "PAT-TROIS" not in answer.text + caplog.text
