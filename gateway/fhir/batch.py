"""Batches: each entry a step of its own, answered as the same request alone would be.

[FHIR R4 http#transaction]

Promises: what one entry is refused for touches no other, but that all share one allowance; the answer keeps the order
of the request. Not promised: links between entries (R4 forbids them in a batch: each is refused by its place).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import structlog

from gateway.errors import GatewayError, InvalidContent
from gateway.fhir import document, entry_reads, outcome
from gateway.fhir.allowance import Allowance
from gateway.fhir.bundle import Answer, Bundle, Entry, named, written
from gateway.fhir.outcome import InvalidResource
from gateway.fhir.writing import Done, Operation
from gateway.rcp.access import Caller
from gateway.rcp.step import Step, Steps

__all__ = ["run"]

log = structlog.get_logger(__name__)


def run(
    steps: Steps,
    caller: Caller,
    bundle: Bundle,
    write: Callable[[Step, Operation], Done],
    *,
    offered: entry_reads.Offered,
    allowance: Allowance,
    base_url: str,
    wish: str,
    strict: bool = False,
) -> list[Answer]:
    """Answer every entry.

    Parameters
    ----------
    write
        Carries out one operation in an open step.
    allowance
        What all entries together may take: an entry after it is refused, and a write beyond its bytes told without the
        resource.
    """
    urls = {entry.full_url for entry in bundle.entries if entry.full_url is not None}

    def answer(entry: Entry) -> Answer:
        allowance.require_time()
        if entry.faults:
            raise InvalidResource(entry.faults)
        ask, operation = entry.ask, entry.operation
        if ask is not None:
            found = steps.run(
                caller,
                lambda step: entry_reads.answer(step, offered, ask, strict=strict, until=allowance.until),
            )
            allowance.take(found)
            return found
        if operation is None:
            raise InvalidContent("element-obligatoire", "Élément obligatoire absent : request.")
        _require_alone(operation, urls)
        # The step may run again after a clash with another writer: it works on a copy of what was asked.
        done = written(steps.run(caller, lambda step: write(step, copy.deepcopy(operation))), base_url, wish)
        try:
            allowance.take(done)
        except GatewayError as error:  # it is done all the same
            said = outcome.warning(error.code, error.text, issue_code="too-costly")
            return dataclasses.replace(done, body=None, outcome=outcome.body([said]))
        return done

    return [_told(entry, answer) for entry in bundle.entries]


def _told(entry: Entry, answer: Callable[[Entry], Answer]) -> Answer:
    try:
        return answer(entry)
    except GatewayError as error:
        status, _, body = outcome.answer(named(error, entry))
        return Answer(status, outcome=body)
    except Exception as error:  # noqa: BLE001 - one entry's fault is not the others'
        log.error("fhir-fault", kind=type(error).__name__, entry=entry.index)  # noqa: TRY400 - its words may hold a patient
        status, _, body = outcome.answer(error)
        return Answer(status, outcome=body)


def _require_alone(operation: Operation, urls: set[str]) -> None:
    for path, reference in document.references(operation.tree):
        text = reference["reference"]
        if text in urls or text.startswith(("urn:uuid:", "urn:oid:")):
            said = "Les entrées d’un lot (batch) ne se réfèrent pas les unes aux autres ; utilisez une transaction."
            raise InvalidContent("reference-inconnue", said, expression=f"{operation.kind}.{path}")
