"""The body under its limit: announced, chunked, compressed, cut short."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI, Request, Response
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import GatewayError, InvalidContent, Unavailable
from gateway.web import body as body_module
from gateway.web.background import served
from gateway.web.body import Limit, body_under, form_under, read_body, refuse_length
from gateway.web.outcome import answer_headers, http_status

LIMIT = Limit("RCP_ESSAI_BODY_BYTES", 1000)
BIG = Limit("big", 300_000)


@pytest.fixture(scope="module")
def client():
    app = FastAPI()

    @app.exception_handler(GatewayError)
    async def refused(request: Request, error: GatewayError) -> Response:
        return Response(f"{error.code}|{error.text}", http_status(error), answer_headers(error))

    @app.post("/bytes")
    def kept(body: Annotated[bytes, Depends(body_under(LIMIT))]) -> Response:
        return Response(body)

    @app.post("/big")
    def kept_big(body: Annotated[bytes, Depends(body_under(BIG))]) -> Response:
        return Response(body)

    @app.post("/form")
    async def form(request: Request) -> Response:
        fields = await form_under(request, LIMIT, max_fields=3)
        return Response("&".join(f"{name}={value}" for name, value in fields.multi_items()))

    with served(app) as origin, httpx.Client(timeout=60, base_url=origin) as http:
        yield http


def test_json_is_handed_over_byte_for_byte(client):
    sent = b'{"value": 1.00 , "a":"\xc3\xa9"}'
    got = client.post("/bytes", content=sent, headers={"Content-Type": "application/fhir+json"})
    assert got.status_code == 200
    assert got.content == sent


@pytest.mark.parametrize("size", [0, 1, 999, 1000])
def test_up_to_the_limit_is_taken(client, size):
    assert client.post("/bytes", content=b"x" * size).content == b"x" * size


def test_announced_length_over_the_limit_names_the_limit(client):
    got = client.post("/bytes", content=b"x" * 1001)
    assert got.status_code == 413
    assert "RCP_ESSAI_BODY_BYTES" in got.text
    assert "1000 octets" in got.text


def test_unannounced_length_is_counted(client):
    got = client.post("/bytes", content=(b"x" * 100 for _ in range(11)))
    assert got.status_code == 413


@pytest.mark.parametrize("length", [b"-1", b"1e3", "²".encode("latin-1"), b""])
def test_length_that_is_no_number_is_refused(length):
    request = Request({"type": "http", "method": "POST", "headers": [(b"content-length", length)]})
    with pytest.raises(InvalidContent, match="content-length-invalid"):
        refuse_length(request, LIMIT)


def test_gzip_bomb_is_refused(client):
    bomb = gzip.compress(b"\0" * 500_000, mtime=0)
    assert len(bomb) < LIMIT.max_bytes
    got = client.post("/bytes", content=bomb, headers={"Content-Encoding": "gzip"})
    assert got.status_code == 413


def test_gzip_members_are_all_read(client):
    sent = gzip.compress(b"one ", mtime=0) + gzip.compress(b"two", mtime=0)
    got = client.post("/bytes", content=sent, headers={"Content-Encoding": "gzip"})
    assert got.content == b"one two"


def test_deflate_is_undone(client):
    got = client.post("/bytes", content=zlib.compress(b"abc" * 50), headers={"Content-Encoding": "deflate"})
    assert got.content == b"abc" * 50


@pytest.mark.parametrize(
    "damaged", [gzip.compress(b"abc" * 100, mtime=0)[:-9], b"not gzip", gzip.compress(b"abc", mtime=0) + b"tail"]
)
def test_damaged_gzip_is_refused(client, damaged):
    got = client.post("/bytes", content=damaged, headers={"Content-Encoding": "gzip"})
    assert (got.status_code, got.text.split("|")[0]) == (400, "body-incomplete")


def test_unknown_encoding_is_refused(client):
    assert client.post("/bytes", content=b"x", headers={"Content-Encoding": "br"}).status_code == 415


@settings(max_examples=30, deadline=None)
@given(plain=st.binary(max_size=400), repeat=st.integers(1, 700), cut=st.integers(1, 5000))
def test_any_gzip_in_any_pieces_comes_back_whole(client, plain, repeat, cut):
    whole = plain * repeat
    sent = gzip.compress(whole, mtime=0)
    pieces = (sent[start : start + cut] for start in range(0, len(sent), cut))
    got = client.post("/big", content=pieces, headers={"Content-Encoding": "gzip"})
    assert got.content == whole


def test_form_is_read(client):
    assert client.post("/form", data={"a": "é", "b": "2"}).text == "a=é&b=2"


def test_form_over_the_limit_names_it(client):
    got = client.post("/form", data={"a": "x" * 2000})
    assert got.status_code == 413
    assert "RCP_ESSAI_BODY_BYTES" in got.text


def test_form_with_too_many_fields_is_refused(client):
    got = client.post("/form", data={f"a{i}": "1" for i in range(4)})
    assert (got.status_code, got.text.split("|")[0]) == (400, "form-unreadable")


def test_multipart_without_boundary_is_refused(client):
    got = client.post("/form", content=b"abc", headers={"Content-Type": "multipart/form-data"})
    assert (got.status_code, got.text.split("|")[0]) == (400, "form-unreadable")


@pytest.mark.parametrize("announced", [{"content-length": "5"}, {"transfer-encoding": "chunked"}])
@pytest.mark.parametrize("kind", ["application/fhir+json", "application/x-www-form-urlencoded"])
def test_who_sends_nothing_more_of_a_body_is_left(monkeypatch, announced, kind):
    monkeypatch.setattr(body_module, "SILENCE_S", 0.05)
    pieces = [{"type": "http.request", "body": b"ab", "more_body": True}]

    async def receive():
        return pieces.pop() if pieces else await asyncio.Event().wait()

    fields = [(name.encode(), value.encode()) for name, value in (announced | {"content-type": kind}).items()]
    request = Request({"type": "http", "method": "POST", "headers": fields, "path": "/", "query_string": b""}, receive)
    read = form_under if kind.endswith("urlencoded") else read_body
    with pytest.raises(Unavailable) as refused:
        asyncio.run(read(request, LIMIT))
    assert refused.value.code == "body-silence"
