"""Orders of images among what a client writes: who is awaited, and the images that came before.

[FHIR R4 servicerequest, imagingstudy, task, appointment; spec fhir-fr 6.1, 6.2]

Promises: a request, a task or an appointment orders images if it says so by a code (SNOMED CT Imaging, a DICOM
modality) or by an accession number, and an ImagingStudy that is kept as sent always does; what is cancelled, or about
nobody known here any more, is awaited no more. The resource itself is kept as sent. Not promised: orders of other
establishments' patients, or that an order without a code is found to be one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, datetime
from typing import Any, Final

from gateway.fhir.document import Tree
from gateway.fhir.translate.elements import codings, identifiers, moment, text_of
from gateway.fhir.translate.inscription import is_inscription
from gateway.fhir.write_kept import dossier_about, patient_about
from gateway.fhir.writing import Operation, Writing
from gateway.rcp import imaging_orders
from gateway.rcp.facts import IdentifierFact
from gateway.rcp.imaging_orders import ImageOrder

__all__ = ["ORDERING", "forget_order", "note_order"]

ORDERING: Final = frozenset({"ServiceRequest", "ImagingStudy", "Task", "Appointment"})
_DCM: Final = "http://dicom.nema.org/resources/ontology/DCM"
_IMAGING: Final = frozenset({("http://snomed.info/sct", "363679005")})
#: Statuses after which nothing is awaited, of any of the types.
_OVER: Final = frozenset({"revoked", "entered-in-error", "cancelled", "rejected", "failed", "noshow"})
_CODED: Final = ("category", "code", "orderDetail", "serviceCategory", "serviceType", "modality")
_UID: Final = "urn:dicom:uid"


def note_order(writing: Writing, operation: Operation) -> None:
    """Await the images that a resource orders, or no more."""
    if operation.kind not in ORDERING or operation.identity is None:
        return
    tree, source = operation.tree, f"{operation.kind}/{operation.identity}"
    orders = operation.kind == "ImagingStudy" or (not is_inscription(tree) and _orders_images(tree))
    # What ordered images before may say something else now.
    if not orders and operation.before is None:
        return
    record = patient_about(writing, operation) if orders and tree.get("status") not in _OVER else None
    if record is None:
        imaging_orders.forget(writing.step, writing.partner, source)
        return
    dossier = dossier_about(writing, operation.kind, tree) if operation.kind != "ServiceRequest" else None
    imaging_orders.note(
        writing.step,
        writing.partner,
        ImageOrder(
            source=source,
            record_id=record.id,
            dossier_id=dossier.id if dossier is not None and dossier.record_id == record.id else None,
            numbers=tuple(_numbers(operation.kind, tree)),
            label=_label(tree),
            modality=next((str(one["code"]) for one in _codes(tree) if one.get("system") == _DCM), None),
            planned_on=_planned(tree),
        ),
    )


def forget_order(writing: Writing, kind: str, key: str) -> None:
    """Await no more what a resource ordered that is deleted."""
    if kind in ORDERING:
        imaging_orders.forget(writing.step, writing.partner, f"{kind}/{key}")


def _orders_images(tree: Tree) -> bool:
    said = {(one.get("system"), one.get("code")) for one in _codes(tree)}
    coded = bool(said & _IMAGING) or any(system == _DCM for system, _ in said)
    return coded or any(one.kind == "ACSN" for one in identifiers(tree.get("identifier")))


def _codes(tree: Tree) -> Iterator[Mapping[str, Any]]:
    for name in _CODED:
        said = tree.get(name)
        for one in said if isinstance(said, list) else [said]:
            yield from (coding for coding in codings(one) if coding.get("code"))


def _numbers(kind: str, tree: Tree) -> Iterator[IdentifierFact]:
    """The numbers that objects may carry; a request's own number without a type is its placer's."""
    for one in identifiers(tree.get("identifier")):
        if one.system == _UID:
            yield IdentifierFact(system="", value=one.value.removeprefix("urn:oid:"), kind="UID")
        elif one.kind is None and kind == "ServiceRequest":
            yield IdentifierFact(system=one.system, value=one.value, kind="PLAC")
        else:
            yield one


def _label(tree: Tree) -> str | None:
    said = tree.get("description") or text_of(tree.get("code"))
    if said is None:
        first = next(iter(tree.get("serviceType", ())), None)
        said = text_of(first) or next((one.get("display") for one in _codes(tree) if one.get("display")), None)
    return str(said)[: imaging_orders.LABEL_CHARACTERS] if said else None


def _planned(tree: Tree) -> date | None:
    period = tree.get("occurrencePeriod") or tree.get("executionPeriod") or {}
    for written in (tree.get("occurrenceDateTime"), period.get("start"), tree.get("start"), tree.get("started")):
        found = moment(written) if written else None
        if found is not None:
            return found.date() if isinstance(found, datetime) else found
    return None
