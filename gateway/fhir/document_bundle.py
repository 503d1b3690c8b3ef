"""``$document``: a Composition and all that it speaks of, as one document Bundle.

[FHIR R4 documents, composition-operation-document, bundle#document; CI-SIS FRCP 2022.01; spec cda-frcp 11]

Promises: the Composition stands first, then what it refers to, directly or through another entry, each once under the
``fullUrl`` by which references find it; each as it stood in the transaction that wrote the Composition, so that the
document of a version stays the same bytes whatever becomes of the patient's record (what was not written yet then, as
it was first written); of one patient alone, and only what the caller and his token may see. A document is whole or
refused, never cut. The Bundle's identifier is that of the version, the one of its CDA and of its DocumentReference.
Not promised: ``persist`` and ``graph``; what belongs to the exchange rather than to the case (tasks, mails, agendas,
other documents) is left out; a profile of the FRCP, which nobody has written for FHIR.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Select, any_, case, cast, literal, or_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

from gateway.errors import InvalidContent
from gateway.fhir import document
from gateway.fhir.document import Tree, encode, instant
from gateway.fhir.reading import Budget, Reading
from gateway.fhir.translate.elements import CANONICAL
from gateway.fhir.translate.report import document_identifier
from gateway.fhir.weighing import columns_under, share, weighed
from gateway.model.report import Report
from gateway.model.representation import TABLES
from gateway.rcp.access import Caller

__all__ = ["build", "require_parameters"]

#: What a document is made of besides its Composition, in the order in which each round brings it.
_TYPES = (
    "Patient",
    "Encounter",
    "ServiceRequest",
    "Condition",
    "Observation",
    "Procedure",
    "DiagnosticReport",
    "ImagingStudy",
    "QuestionnaireResponse",
    "CarePlan",
    "PractitionerRole",
    "Practitioner",
    "Organization",
    "Location",
    "HealthcareService",
    "CareTeam",
)
_CONTENT = tuple(kind for kind in _TYPES if kind in TABLES)
_REFERENCE = re.compile(r"([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})(?:/_history/[0-9]+)?")
_WHOLE_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def require_parameters(pairs: Iterable[tuple[str, str]]) -> None:
    """Refuse what the operation takes elsewhere and not here.

    Raises
    ------
    InvalidContent
        ``document-parametre`` (rule).
    """
    for name, value in pairs:
        if (name == "persist" and value != "false") or name == "graph":
            text = f"Le paramètre « {name} » n’est pas offert : le document est rendu, entier, et n’est pas conservé."
            raise InvalidContent("document-parametre", text, rule=True)


async def build(reading: Reading, caller: Caller, row: Any) -> bytes:
    """Return the document of the version of a Composition that a row holds.

    Raises
    ------
    InvalidContent
        ``document-trop-grand``, ``reponse-trop-grande``: it would not be whole; ``recherche-trop-couteuse``.
    """
    composition = document.decode(row["body"])
    budget = reading.budget()
    entries = [("Composition", row["id"], bytes(row["body"]))]
    shown: set[tuple[str, str]] = {("Composition", row["id"])}
    room = reading.limits.answer_bytes - len(row["body"])
    fresh = [composition]
    while fresh:
        wanted = _named(reading, fresh) - shown
        shown |= wanted
        fresh = []
        for kind in _CONTENT:
            ids = sorted(identity for of, identity in wanted if of == kind)
            if not ids:
                continue
            if len(entries) + len(ids) > reading.limits.search_included:
                text = f"Document de trop de ressources : {reading.limits.told('search_included')}."
                raise InvalidContent("document-trop-grand", text)
            for found in await _then(reading, caller, kind, ids, row, room, budget):
                body = reading.out(kind, bytes(found["body"]))
                room -= len(body)
                entries.append((kind, found["id"], body))
                fresh.append(document.decode(body))
    return _bundle(reading, row, composition, await _identifier(reading, row), entries)


def _named(reading: Reading, trees: Sequence[Tree]) -> set[tuple[str, str]]:
    """Type and id of whatever resources refer to here."""
    found = set()
    for tree in trees:
        for reference in document.referring(tree):
            match = _REFERENCE.fullmatch(reference["reference"].removeprefix(f"{reading.base}/"))
            if match is not None:
                found.add((match.group(1), match.group(2)))
    return found


async def _then(
    reading: Reading, caller: Caller, kind: str, ids: Sequence[str], row: Any, room: int, budget: Budget
) -> Sequence[Any]:
    """Rows of one type as they stood when the Composition was written."""
    rows = await reading.fetch(_statement(reading, caller, kind, ids, row, share(room, len(ids))), budget)
    there = [found for found in rows if not found["deleted"]]
    fitting = await weighed(reading, kind, there, room, budget, least=0)
    if len(fitting) < len(there):
        text = f"Document trop grand : {reading.limits.told('answer_bytes')} octets."
        raise InvalidContent("reponse-trop-grande", text)
    return fitting


def _statement(reading: Reading, caller: Caller, kind: str, ids: Sequence[str], row: Any, most: int) -> Select[Any]:
    table, written = TABLES[kind], TABLES["Composition"].alias("written")
    own = select(written.c.xid).where(written.c.id == row["id"], written.c.version == row["version"])
    # Clocks tell the order of transactions, not of what one of them writes.
    then = or_(table.c.updated_at <= row["updated_at"], table.c.xid == own.scalar_subquery())
    return (
        select(*columns_under(table, most))
        .distinct(table.c.id)
        .where(
            table.c.id == any_(cast(literal(list(ids), ARRAY(Text())), ARRAY(Text()))),
            reading.seen(caller, "Composition")("r")(kind, table),
            or_(table.c.record_id.is_(None), table.c.record_id == row["record_id"]),
        )
        .order_by(table.c.id, then.desc(), case((then, -table.c.version), else_=table.c.version))
    )


async def _identifier(reading: Reading, row: Any) -> Tree:
    """Of a report the identifier of its version; of another Composition one made of its own name and version."""
    if row["root_kind"] == "Report":
        found = await reading.source.fetch(select(Report.content).where(Report.id == row["root_id"]))
        if found and found[0]["content"] is not None:
            return document_identifier(bytes(found[0]["content"]))
    name = uuid.uuid5(uuid.NAMESPACE_URL, f"{CANONICAL}/Composition/{row['id']}/_history/{row['version']}")
    return {"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{name}"}


def _bundle(
    reading: Reading, row: Any, composition: Tree, identifier: Tree, entries: Sequence[tuple[str, str, bytes]]
) -> bytes:
    said = composition.get("date", "")
    return encode(
        {
            "resourceType": "Bundle",
            "meta": {"lastUpdated": instant(row["updated_at"])},
            "identifier": identifier,
            "type": "document",
            "timestamp": said if _WHOLE_INSTANT.fullmatch(said) else instant(row["updated_at"]),
            "entry": [
                {"fullUrl": f"{reading.base}/{kind}/{identity}", "resource": msgspec.Raw(body)}
                for kind, identity, body in entries
            ],
        }
    )
