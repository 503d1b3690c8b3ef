"""The routes that write: transaction, create, update, and the judge of a resource that nobody keeps.

[FHIR R4 http#create, #update, #cond-update, #transaction, resource-operation-validate]
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import InvalidContent
from gateway.fhir import outcome, validate
from gateway.fhir.bundle import read_transaction
from gateway.fhir.document import Tree
from gateway.fhir.negotiation import (
    MEDIA,
    NO_STORE,
    here,
    http_date,
    prefers,
    require_json,
    require_type,
    tree_of,
)
from gateway.fhir.represent import Representer
from gateway.fhir.write import apply
from gateway.fhir.writing import Done, Operation, Writing
from gateway.rcp.access import Caller
from gateway.rcp.step import Step, Steps
from gateway.settings import Limits

__all__ = ["WriteRoutes"]


class WriteRoutes:
    """Routes over one process's steps."""

    def __init__(self, steps: Steps, representer: Representer, base_url: str, limits: Limits) -> None:
        self._steps = steps
        self._representer = representer
        self._base = base_url
        self._limits = limits

    def add(self, router: APIRouter, body: Any, caller: Any) -> None:
        """Add them; ``body`` gives the raw bytes, ``caller`` whoever comes in."""

        @router.post("/fhir")
        @router.post("/fhir/")
        def transaction(request: Request, who: Caller = caller, content: bytes = body) -> Response:
            require_json(request)
            read = read_transaction(self._parse(request, content), limits=self._limits)
            done = self._steps.run(here(who, request), lambda step: read.run(step, self._representer, self._base))
            whole = prefers(request) == "representation"
            return Response(read.answer(done, self._base, with_resources=whole), 200, NO_STORE, media_type=MEDIA)

        @router.post("/fhir/{kind}/$validate")
        def check(request: Request, kind: str, who: Caller = caller, content: bytes = body) -> Response:
            del who
            require_type(kind)
            tree = self._parse(request, content)
            if tree["resourceType"] == "Parameters":
                parameters = tree.get("parameter")
                listed = parameters if isinstance(parameters, list) else []
                given = (
                    one.get("resource") for one in listed if isinstance(one, dict) and one.get("name") == "resource"
                )
                tree = next((one for one in given if isinstance(one, dict)), tree)
            return Response(_judgement(tree), 200, NO_STORE, media_type=MEDIA)

        @router.post("/fhir/{kind}")
        def create(request: Request, kind: str, who: Caller = caller, content: bytes = body) -> Response:
            condition = request.headers.get("if-none-exist")
            query = condition.rpartition("?")[2] if condition else None
            return self._write(request, who, content, Operation("POST", kind, {}, query=query))

        @router.put("/fhir/{kind}/{identity}")
        def update(request: Request, kind: str, identity: str, who: Caller = caller, content: bytes = body) -> Response:
            return self._write(request, who, content, Operation("PUT", kind, {}, identity=identity))

        @router.put("/fhir/{kind}")
        def update_by_condition(request: Request, kind: str, who: Caller = caller, content: bytes = body) -> Response:
            if not request.url.query:
                text = "Une mise à jour s’adresse à un identifiant ou à une condition."
                raise InvalidContent("condition-vide", text)
            return self._write(request, who, content, Operation("PUT", kind, {}, query=request.url.query))

    def _parse(self, request: Request, content: bytes) -> Tree:
        return tree_of(request, content, self._limits)

    def _write(self, request: Request, who: Caller, content: bytes, operation: Operation) -> Response:
        require_type(operation.kind)
        require_json(request)
        tree = self._parse(request, content)
        if tree["resourceType"] != operation.kind:
            text = "Le type de la ressource n’est pas celui de l’adresse."
            raise InvalidContent("type-different", text, expression=f"{tree['resourceType']}"[:64])
        validate.accept(tree)
        operation.if_match = request.headers.get("if-match")
        operation.if_none_match = request.headers.get("if-none-match")

        def verb(step: Step) -> Done:
            writing = Writing(step, self._representer, self._base)
            # The verb may run again after a clash with another writer: it works on a copy of what was asked.
            again = Operation(
                operation.method,
                operation.kind,
                self._parse(request, content),
                query=operation.query,
                identity=operation.identity,
                if_match=operation.if_match,
                if_none_match=operation.if_none_match,
            )
            writing.locate(again)
            apply(writing, again)
            writing.finish()
            return writing.done(again)

        done = self._steps.run(here(who, request), verb)
        return self._written(request, done)

    def _written(self, request: Request, done: Done) -> Response:
        headers = {
            "ETag": f'W/"{done.version}"',
            "Last-Modified": http_date(done.updated_at),
            "Location": f"{self._base}/{done.kind}/{done.id}/_history/{done.version}",
            **NO_STORE,
        }
        wish = prefers(request)
        if wish == "minimal":
            return Response(None, done.status, headers)
        if wish == "OperationOutcome":
            said = {"severity": "information", "code": "informational", "details": {"text": "Ressource enregistrée."}}
            return Response(outcome.body([said]), done.status, headers, media_type=MEDIA)
        return Response(done.body, done.status, headers, media_type=MEDIA)


def _judgement(tree: Tree) -> bytes:
    found = validate.judge(tree)
    if not found:
        said = {"severity": "information", "code": "informational", "details": {"text": "Aucun défaut trouvé."}}
        return outcome.body([said])
    return outcome.answer(outcome.InvalidResource(found))[2]
