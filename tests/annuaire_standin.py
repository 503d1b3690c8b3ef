"""A real HTTP server that answers as the national directory's FHIR API does, from the sample resources.

Key in ``ESANTE-API-KEY``, token searches on two systems, ``_include`` of what a role names, ``mailbox-mss``, pages
behind opaque links, OperationOutcomes. `planned` answers come first, one a request: a status, or seconds of silence.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import threading
from collections import deque
from pathlib import Path
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

SAMPLES = Path(__file__).parent / "annuaire"
KEY = "cle-d-essai"


class AnnuaireStandIn:
    """Serves ``tests/annuaire``; `url` is the base."""

    def __init__(self) -> None:
        self.resources: list[dict[str, Any]] = [
            json.loads(path.read_text(encoding="utf-8"))
            for path in sorted(SAMPLES.glob("*.json"))
            if path.name.startswith(("practitioner", "organization"))
        ]
        self.page_size = 50
        self.planned: deque[int | float | bytes] = deque()
        self.asked: list[str] = []
        self.next_origin: str | None = None
        self._pages: dict[str, list[dict[str, Any]]] = {}
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.origin = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.url = f"{self.origin}/fhir/v2"
        routes = [Route("/fhir/v2/_page", self._page), Route("/fhir/v2/{kind}", self._search)]
        config = uvicorn.Config(Starlette(routes=routes), log_level="critical", access_log=False)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(60)
        self._socket.close()

    def of(self, kind: str, identity: str) -> dict[str, Any]:
        """One resource, to be changed."""
        return next(one for one in self.resources if (one["resourceType"], one["id"]) == (kind, identity))

    async def _before(self, request: Request) -> Response | None:
        self.asked.append(str(request.url))
        if self.planned:
            now = self.planned.popleft()
            if isinstance(now, bytes):
                return Response(now, 200, media_type="application/fhir+json")
            if isinstance(now, int):
                return _outcome(now, "planned")
            await asyncio.sleep(now)
        if request.headers.get("ESANTE-API-KEY") != KEY:
            return _outcome(401, "Unauthorized")
        return None

    async def _search(self, request: Request) -> Response:
        refused = await self._before(request)
        if refused is not None:
            return refused
        kind = request.path_params["kind"]
        if kind not in {"Practitioner", "PractitionerRole", "Organization"}:
            return Response((SAMPLES / "operationoutcome.json").read_bytes(), 404, media_type="application/fhir+json")
        found = [one for one in self.resources if one["resourceType"] == kind]
        includes = request.query_params.getlist("_include")
        for name, value in request.query_params.multi_items():
            if not name.startswith("_"):
                found = [one for one in found if _matches(one, name, value)]
        entries = [{"resource": one, "search": {"mode": "match"}} for one in found]
        wanted = [
            one[part]["reference"] for one in found for part in ("practitioner", "organization") if part in one
            and f"PractitionerRole:{part}" in includes
        ]  # fmt: skip
        entries += [
            {"resource": one, "search": {"mode": "include"}}
            for one in self.resources
            if f"{one['resourceType']}/{one['id']}" in wanted
        ]
        return self._bundle(entries)

    async def _page(self, request: Request) -> Response:
        refused = await self._before(request)
        if refused is not None:
            return refused
        return self._bundle(self._pages.get(request.query_params["id"], []))

    def _bundle(self, entries: list[dict[str, Any]]) -> Response:
        bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset", "entry": entries[: self.page_size]}
        if len(entries) > self.page_size:
            token = secrets.token_urlsafe(8)
            self._pages[token] = entries[self.page_size :]
            base = f"{self.next_origin}/fhir/v2" if self.next_origin else self.url
            bundle["link"] = [{"relation": "next", "url": f"{base}/_page?id={token}"}]
        return Response(json.dumps(bundle), media_type="application/fhir+json")


def _matches(resource: dict[str, Any], name: str, value: str) -> bool:
    if name == "identifier":
        system, _, number = value.rpartition("|")
        said = resource.get("identifier", [])
        return any(one["value"] == number and system in {"", one["system"]} for one in said)
    if name == "practitioner":
        return resource.get("practitioner", {}).get("reference") == f"Practitioner/{value}"
    if name == "mailbox-mss":
        return any(one.get("value") == value for one in resource.get("telecom", []))
    if name == "active":
        return str(resource.get("active", True)).lower() == value
    return False


def _outcome(status: int, text: str) -> Response:
    issue = {"severity": "error", "code": "processing", "diagnostics": text}
    body = json.dumps({"resourceType": "OperationOutcome", "issue": [issue]})
    headers = {"Retry-After": "3"} if status == 429 else None
    return Response(body, status, headers, "application/fhir+json")
