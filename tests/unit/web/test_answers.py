"""What every answer carries: identifier, security headers, health, metrics; and what no log line says."""

from __future__ import annotations

import re
import threading

import httpx
import pytest
import structlog
from fastapi import FastAPI, Response

from gateway.errors import (
    Conflict,
    Fault,
    Forbidden,
    GatewayError,
    InvalidContent,
    NotFound,
    Unavailable,
    UnknownIdentity,
    Unsupported,
)
from gateway.web.background import served
from gateway.web.headers import SecurityHeadersMiddleware
from gateway.web.health import health_router
from gateway.web.metrics import metrics_router
from gateway.web.outcome import STATUS_OF_CATEGORY, http_status
from gateway.web.request_id import RequestIdMiddleware, request_id
from tests.loopback import until

PSC = "https://auth.psc.example"


@pytest.fixture(scope="module")
def release():
    return threading.Event()


@pytest.fixture(scope="module")
def client(release):
    app = FastAPI()

    @app.get("/dossiers/{dossier}")
    def dossier(dossier: str) -> Response:
        return Response(request_id())

    @app.get("/image")
    def image() -> Response:
        return Response(b"", headers={"Cache-Control": "public, max-age=60"})

    def broken():
        raise RuntimeError("secret detail")

    def closed():
        raise Unavailable("database", "La base de données ne répond pas.")

    app.include_router(health_router({"database": lambda: None}))
    app.include_router(metrics_router())
    ill = FastAPI()
    ill.include_router(
        health_router({"a": broken, "b": closed, "c": lambda: release.wait(60), "d": lambda: None}, timeout_s=2)
    )
    app.mount("/ill", ill)
    app.add_middleware(SecurityHeadersMiddleware, form_targets=(PSC,), https=True)
    app.add_middleware(RequestIdMiddleware)
    with served(app) as origin, httpx.Client(timeout=60, base_url=origin) as http:
        yield http
        release.set()


def test_identifier_is_made_answered_and_known_inside(client):
    got = client.get("/dossiers/1")
    assert re.fullmatch(r"[0-9a-f-]{36}", got.headers["x-request-id"])
    assert got.text == got.headers["x-request-id"]


def test_harmless_identifier_of_the_client_is_kept(client):
    assert client.get("/dossiers/1", headers={"X-Request-Id": "ehr-42.a"}).headers["x-request-id"] == "ehr-42.a"


@pytest.mark.parametrize("harmful", ["a b", "x" * 65, "<script>", 'a"b'])
def test_other_identifiers_are_replaced(client, harmful):
    assert client.get("/dossiers/1", headers={"X-Request-Id": harmful}).headers["x-request-id"] != harmful


def test_log_line_names_the_route_and_not_the_path(client):
    with structlog.testing.capture_logs() as lines:
        client.get("/dossiers/CANARIVAL?nom=CANARIVAL")
        client.get("/nowhere/CANARIVAL")
        until(lambda: [line["event"] for line in lines].count("request") == 2)  # each is said after its answer
    lines = [line for line in lines if line["event"] == "request"]
    assert [(line["route"], line["status"]) for line in lines] == [("/dossiers/{dossier}", 200), ("unmatched", 404)]
    assert "CANARIVAL" not in str(lines)


def test_page_is_neither_kept_nor_framed_nor_scripted(client):
    got = client.get("/dossiers/1").headers
    assert got["cache-control"] == "no-store"
    assert got["x-content-type-options"] == "nosniff"
    policy = dict(part.split(" ", 1) for part in got["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["form-action"] == f"'self' {PSC}"
    assert "unsafe" not in got["content-security-policy"]
    assert got["strict-transport-security"].startswith("max-age=31536000")


def test_header_of_the_route_wins(client):
    assert client.get("/image").headers.get_list("cache-control") == ["public, max-age=60"]


def test_live_and_ready(client):
    assert client.get("/health/live").json() == {"status": "ok"}
    got = client.get("/health/ready")
    assert (got.status_code, got.json()) == (200, {"status": "ok", "parts": {"database": "ok"}})


def test_each_part_that_is_not_ready_is_named_without_detail(client, release):
    got = client.get("/ill/health/ready")
    release.set()
    assert got.status_code == 503
    assert got.json()["parts"] == {"a": "failed", "b": "failed", "c": "timeout", "d": "ok"}
    assert "secret" not in got.text


def test_metrics_count_by_template(client):
    client.get("/dossiers/CANARIVAL")
    got = client.get("/metrics")
    assert got.headers["content-type"].startswith("text/plain")
    assert re.search(r'rcp_http_requests_total\{method="GET",route="/dossiers/\{dossier\}",status="200"\} \d', got.text)
    assert "CANARIVAL" not in got.text


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidContent("a", "."), 400),
        (InvalidContent("a", ".", rule=True), 422),
        (UnknownIdentity("a", "."), 401),
        (NotFound("a", "."), 404),
        (Forbidden("a", "."), 403),
        (Conflict("a", "."), 409),
        (Conflict("a", ".", precondition=True), 412),
        (Unsupported("a", "."), 501),
        (Unavailable("a", "."), 503),
        (Fault("a", "."), 500),
    ],
)
def test_every_category_has_its_status(error, status):
    assert http_status(error) == status


def test_table_is_total():
    def leaves(kind):
        below = kind.__subclasses__()
        return {kind.category}.union(*(leaves(child) for child in below))

    assert leaves(GatewayError) <= set(STATUS_OF_CATEGORY)
