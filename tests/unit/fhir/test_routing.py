"""A request finds its route by the parts of its address, and an endpoint gets what it asks for by name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from gateway.errors import Fault
from gateway.fhir.routing import Router

seen: list[str] = []


async def _caller(_: Request) -> str:
    seen.append("who")
    return "ehr"


async def _body(request: Request) -> bytes:
    seen.append("content")
    return await request.body()


async def _nothing(request: Request) -> Response:
    return PlainTextResponse(f"nothing for {request.method}", 404)


def _as_it_is(inner: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    return inner


@pytest.fixture
def router() -> Router:
    made = Router(("fhir",), caller=_caller, body=_body, around=_as_it_is, otherwise=_nothing)

    @made.get("/fhir/AuditEvent/{identity}")
    async def trail(identity: str) -> Response:
        return PlainTextResponse(f"trail {identity}")

    @made.get("/fhir/{kind}/{identity}")
    async def read(kind: str, identity: str, who: str) -> Response:
        return PlainTextResponse(f"read {kind} {identity} {who}")

    @made.get("/fhir/{kind}/_history")
    def history(kind: str) -> Response:
        return PlainTextResponse(f"history {kind}")

    @made.post("/fhir/{kind}")
    def create(request: Request, kind: str, who: str, content: bytes) -> Response:
        return PlainTextResponse(f"create {kind} {who} {content.decode()} {request.method}", 201)

    return made


@pytest.fixture
def ask(router: Router) -> Callable[..., httpx.Response]:
    app = Starlette()
    app.router.routes.append(router)

    def asked(method: str, path: str, content: str | None = None) -> httpx.Response:
        async def run() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://fhir.example") as client:
                return await client.request(method, path, content=content)

        return asyncio.run(run())

    return asked


@pytest.mark.parametrize(
    ("method", "path", "answer"),
    [
        ("GET", "/fhir/AuditEvent/1", "trail 1"),
        ("GET", "/fhir/Patient/1", "read Patient 1 ehr"),
        ("GET", "/fhir/Patient/_history", "history Patient"),
        ("POST", "/fhir/Patient", "create Patient ehr x POST"),
        ("PUT", "/fhir/Patient", "nothing for PUT"),
        ("GET", "/fhir/metadata/1", "nothing for GET"),
        ("GET", "/fhir/Patient/$validate", "nothing for GET"),
        ("GET", "/fhir/Patient/", "nothing for GET"),
        ("GET", "/fhir/Patient/1/", "nothing for GET"),
        ("GET", "/fhir/Patient/a%2Fb", "nothing for GET"),
        ("GET", "/fhir//1", "nothing for GET"),
        ("GET", "/fhir", "nothing for GET"),
    ],
)
def test_the_parts_of_an_address_decide(
    ask: Callable[..., httpx.Response], method: str, path: str, answer: str
) -> None:
    assert ask(method, path, content="x" if method == "POST" else None).text == answer


def test_another_address_is_not_of_the_wire(ask: Callable[..., httpx.Response]) -> None:
    assert ask("GET", "/fhirworks/Patient/1").text == "Not Found"


def test_head_is_answered_where_get_is_and_who_calls_is_known_before_the_body_is_read(
    ask: Callable[..., httpx.Response],
) -> None:
    assert ask("HEAD", "/fhir/Patient/1").status_code == 200
    seen.clear()
    ask("POST", "/fhir/Patient", content="x")
    assert seen == ["who", "content"]


def test_an_address_outside_of_the_wire_is_a_defect(router: Router) -> None:
    with pytest.raises(Fault):
        router.get("/portail")
