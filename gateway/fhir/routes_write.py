"""The routes that write: transaction and batch, create, update, patch, delete, and the judge of what nobody keeps.

[FHIR R4 http#create, #update, #upsert, #cond-update, #patch, #delete, #transaction, resource-operation-validate]
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import GatewayError, InvalidContent, Unsupported
from gateway.exchange import pending
from gateway.fhir import (
    batch,
    bundle,
    conditions,
    entry_reads,
    outcome,
    patch,
    removal,
    transaction,
    validate,
    validation,
    write,
)
from gateway.fhir.allowance import Allowance
from gateway.fhir.document import Tree
from gateway.fhir.gathering import Gathering
from gateway.fhir.locating import Locator
from gateway.fhir.negotiation import (
    MEDIA,
    NO_STORE,
    here,
    http_date,
    prefers,
    require_format,
    require_type,
    strict,
    tree_of,
)
from gateway.fhir.owners import WRITABLE
from gateway.fhir.represent import Representer
from gateway.fhir.routing import Router
from gateway.fhir.subscribers import Subscribing
from gateway.fhir.writing import Done, Operation, Ports, Writing
from gateway.rcp.access import Caller
from gateway.rcp.ports import Letters
from gateway.rcp.report import Press
from gateway.rcp.step import Step, Steps
from gateway.settings import Limits

__all__ = ["CONDITIONAL", "PATCH_FORMATS", "SYSTEM_INTERACTIONS", "WriteRoutes", "interactions"]

#: What the root of the wire takes [FHIR R4 valueset-system-restful-interaction].
SYSTEM_INTERACTIONS = ("transaction", "batch")
#: Conditional interactions of every writable type, as CapabilityStatement.rest.resource says them.
CONDITIONAL: Mapping[str, Any] = {"conditionalCreate": True, "conditionalUpdate": True, "conditionalDelete": "single"}
#: A body of so many bytes at most is read faster than a thread is woken for it.
_SHORT_BYTES: Final = 8192
#: Bodies of a PATCH [FHIR R4 capabilitystatement, patchFormat].
PATCH_FORMATS = (patch.JSON_PATCH, "application/fhir+json", "application/fhir+xml")


def interactions(kind: str) -> tuple[str, ...]:
    """Interactions by which a client writes a type."""
    if kind not in WRITABLE:
        return ()
    return ("create", "update", "patch", "delete")


def _condition(request: Request, kind: str) -> str:
    """Condition in an address that names a type alone; without one no such address is written to.

    Raises
    ------
    Unsupported
        ``method-not-offered``, ``recherche-non-offerte`` (405).
    """
    require_type(kind)
    conditions.refuse_unfit(kind, ())
    if not request.url.query:
        text = "Cette opération demande l’identifiant d’une ressource, ou une condition dans l’adresse."
        raise Unsupported("method-not-offered", text)
    return request.url.query


class WriteRoutes:
    """Routes over one process's steps.

    Parameters
    ----------
    offered
        What GET entries of a Bundle are answered from.
    update_create
        Whether a PUT to an id that nobody used creates.
    letters, press
        What a contribution and a report are sent with; without them both are refused.
    subscribing
        What delivery to subscribers needs; without it nothing is delivered.
    """

    def __init__(
        self,
        steps: Steps,
        representer: Representer,
        base_url: str,
        limits: Limits,
        *,
        offered: entry_reads.Offered,
        update_create: bool = False,
        letters: Letters | None = None,
        press: Press | None = None,
        subscribing: Subscribing | None = None,
    ) -> None:
        self._ports = Ports(letters=letters, press=press, blobs=offered.blobs, subscribing=subscribing)
        self._steps = steps
        self._representer = representer
        self._base = base_url
        self._limits = limits
        self._offered = offered
        self._update_create = update_create

    def add(self, router: Router) -> None:  # noqa: C901 - one function a route
        """Add them."""
        gathering = Gathering(self._steps, self._writing, router.threads)

        @router.post("/fhir")
        @router.post("/fhir/")
        def together(request: Request, who: Caller, content: bytes) -> Response:
            return self._bundle(request, who, content)

        @router.post("/fhir/{kind}/$validate")
        @router.post("/fhir/{kind}/{identity}/$validate")
        def check(request: Request, kind: str, who: Caller, content: bytes) -> Response:
            return self._check(request, who, content, kind)

        @router.post("/fhir/{kind}")
        async def create(request: Request, kind: str, who: Caller, content: bytes) -> Response:
            if any(name not in {"_format", "_pretty"} for name in request.query_params):
                text = "La condition d’une création s’écrit dans l’en-tête If-None-Exist, non dans l’adresse."
                raise InvalidContent("condition-mal-placee", text)
            condition = request.headers.get("if-none-exist")
            query = condition.rpartition("?")[2] if condition is not None else None
            operation = Operation("POST", kind, {}, query=query)
            if not Gathering.takes(operation):
                asked = {"request": request, "who": who, "content": content, "operation": operation}
                answer: Response = await router.in_thread(self._write, **asked)
                return answer
            if len(content) > _SHORT_BYTES:
                await router.in_thread(self._read, request=request, content=content, operation=operation)
            else:
                self._read(request, content, operation)
            caller = here(who, request)
            take, alone = self._ways(request, caller, operation, lambda: tree_of(request, content, self._limits))
            return self._written(request, await gathering.run(caller, kind, take, alone))

        @router.put("/fhir/{kind}/{identity}")
        def update(request: Request, kind: str, identity: str, who: Caller, content: bytes) -> Response:
            return self._write(request, who, content, Operation("PUT", kind, {}, identity=identity))

        @router.put("/fhir/{kind}")
        def update_by_condition(request: Request, kind: str, who: Caller, content: bytes) -> Response:
            return self._write(request, who, content, Operation("PUT", kind, {}, query=_condition(request, kind)))

        @router.patch("/fhir/{kind}/{identity}")
        def change(request: Request, kind: str, identity: str, who: Caller, content: bytes) -> Response:
            return self._patch(request, who, content, Operation("PATCH", kind, {}, identity=identity))

        @router.patch("/fhir/{kind}")
        def change_by_condition(request: Request, kind: str, who: Caller, content: bytes) -> Response:
            return self._patch(request, who, content, Operation("PATCH", kind, {}, query=_condition(request, kind)))

        @router.delete("/fhir/{kind}/{identity}")
        def delete(request: Request, kind: str, identity: str, who: Caller) -> Response:
            return self._delete(request, who, Operation("DELETE", kind, {}, identity=identity))

        @router.delete("/fhir/{kind}")
        def delete_by_condition(request: Request, kind: str, who: Caller) -> Response:
            return self._delete(request, who, Operation("DELETE", kind, {}, query=_condition(request, kind)))

    # Many at once

    def _bundle(self, request: Request, who: Caller, content: bytes) -> Response:
        require_format(request)
        wish = prefers(request)
        handling = strict(request)

        def read() -> bundle.Bundle:
            return bundle.read_bundle(tree_of(request, content, self._limits), limits=self._limits, base_url=self._base)

        first = [read()]
        kind = first[0].type
        allowance = Allowance(self._limits)
        if kind == "batch":
            answers = batch.run(
                self._steps,
                here(who, request),
                first[0],
                self._carry_out,
                offered=self._offered,
                allowance=allowance,
                base_url=self._base,
                wish=wish,
                strict=handling,
            )
            return Response(bundle.encoded(kind, answers), 200, NO_STORE, media_type=MEDIA)
        transaction.require_sound(first[0])

        def verb(step: Step) -> list[bundle.Answer]:
            # A transaction changes the trees that it read: run again after a clash, it reads them again.
            return transaction.run(
                step,
                first.pop() if first else read(),
                self._writing(step, until=allowance.until),
                offered=self._offered,
                allowance=allowance,
                wish=wish,
                strict=handling,
            )

        answers = self._steps.run(here(who, request), verb)
        return Response(bundle.encoded(kind, answers), 200, NO_STORE, media_type=MEDIA)

    # One

    def _writing(self, step: Step, until: float | None = None) -> Writing:
        return Writing(
            step, self._representer, self._base, self._update_create, self._ports, limits=self._limits, until=until
        )

    def _carry_out(self, step: Step, operation: Operation) -> Done:
        writing = self._writing(step)
        Locator(writing).locate(operation)
        for refusal in writing.hold_references([operation]).values():
            raise refusal
        if operation.method == "DELETE":
            removal.carry_out(writing, operation)
        else:
            write.apply(writing, operation)
        writing.finish()
        removal.require_unreferred(writing, operation)
        return writing.done(operation)

    def _read(self, request: Request, content: bytes, operation: Operation) -> None:
        """Read what is to be written, or refuse it."""
        require_type(operation.kind)
        require_format(request)
        operation.tree = tree_of(request, content, self._limits)
        if operation.tree["resourceType"] != operation.kind:
            text = "Le type de la ressource n’est pas celui de l’adresse."
            raise InvalidContent("type-different", text, expression=f"{operation.tree['resourceType']}"[:64])
        validate.accept(operation.tree)

    def _write(self, request: Request, who: Caller, content: bytes, operation: Operation) -> Response:
        self._read(request, content, operation)
        return self._run(request, who, operation, lambda: tree_of(request, content, self._limits))

    def _patch(self, request: Request, who: Caller, content: bytes, operation: Operation) -> Response:
        require_type(operation.kind)
        require_format(request)
        declared = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if declared == patch.JSON_PATCH:
            operation.patch = patch.from_json(content, self._limits)
        elif declared in {"application/xml-patch+xml", "application/merge-patch+json"}:
            text = f"Format de patch non offert ; les formats offerts sont : {', '.join(PATCH_FORMATS)}."
            raise Unsupported("type-de-contenu", text)
        else:
            operation.patch = patch.from_parameters(tree_of(request, content, self._limits), self._limits)
        return self._run(request, who, operation, dict)

    def _delete(self, request: Request, who: Caller, operation: Operation) -> Response:
        require_type(operation.kind)
        require_format(request)
        return self._run(request, who, operation, dict)

    def _check(self, request: Request, who: Caller, content: bytes, kind: str) -> Response:
        require_type(kind)
        require_format(request)

        def asked() -> validation.Question:
            return validation.read(tree_of(request, content, self._limits) if content else None, request.query_params)

        def rehearse(operation: Operation) -> GatewayError | None:
            wanted = copy.copy(operation)

            def verb(step: Step) -> None:
                pending.rehearse(step.session)
                again = copy.copy(wanted)
                again.tree = asked().tree or {}
                self._carry_out(step, again)
                step.session.flush()
                raise validation.Rehearsed

            try:
                self._steps.run(here(who, request), verb)
            except validation.Rehearsed:
                return None
            except GatewayError as refusal:
                return refusal
            raise AssertionError("unreachable")

        told = validation.answer(asked(), kind, request.path_params.get("identity"), rehearse)
        return Response(told, 200, NO_STORE, media_type=MEDIA)

    def _run(self, request: Request, who: Caller, operation: Operation, again: Callable[[], Tree]) -> Response:
        _, alone = self._ways(request, here(who, request), operation, again)
        return self._written(request, alone())

    def _ways(
        self, request: Request, caller: Caller, operation: Operation, again: Callable[[], Tree]
    ) -> tuple[Callable[[], Operation], Callable[[], Done]]:
        """Give what hands out the operation, as often as it is asked, and what writes it in a step of its own."""
        operation.if_match = request.headers.get("if-match")
        operation.if_none_match = request.headers.get("if-none-match")
        asked = functools.partial(
            Operation,
            operation.method,
            operation.kind,
            query=operation.query,
            identity=operation.identity,
            if_match=operation.if_match,
            if_none_match=operation.if_none_match,
            patch=operation.patch,
        )
        first = [operation]

        def take() -> Operation:
            # After a clash with another writer it starts from what was asked, read again.
            return first.pop() if first else asked(again())

        def alone() -> Done:
            return self._steps.run(caller, lambda step: self._carry_out(step, take()))

        return take, alone

    def _written(self, request: Request, done: Done) -> Response:
        headers = dict(NO_STORE)
        if done.version:
            headers["ETag"] = f'W/"{done.version}"'
        if done.updated_at is not None:
            headers["Last-Modified"] = http_date(done.updated_at)
        wish = prefers(request)
        gone = done.status == 204
        if not gone:
            headers["Location"] = f"{self._base}/{done.kind}/{done.id}/_history/{done.version}"
        if wish == "OperationOutcome":
            text = "Ressource supprimée." if gone else "Ressource enregistrée."
            said = {"severity": "information", "code": "informational", "details": {"text": text}}
            return Response(outcome.body([said]), 200 if gone else done.status, headers, media_type=MEDIA)
        if gone or wish == "minimal" or not done.body:
            return Response(None, done.status, headers)
        return Response(done.body, done.status, headers, media_type=MEDIA)
