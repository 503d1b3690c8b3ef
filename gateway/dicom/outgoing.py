"""The way out of the outbox to DICOM applications: studies by C-STORE, confirmations by N-EVENT-REPORT.

Promises
--------
* Only to an application that is registered at the moment of sending; a study that was put aside meanwhile stays.
* An object that was acknowledged is not sent again by a later attempt; after a crash it may be, which its receiver
  takes as the same object.
* What may work later (unreachable, out of resources, broken) is tried again; what will not (a syntax or a class that is
  not taken, a refused object) is refused and named, once everything else has been sent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any, Final

import msgspec

from gateway.dicom import commitment
from gateway.dicom.command import Answer
from gateway.dicom.conversion import Conversion, suitable
from gateway.dicom.retrieve import batches, no_context
from gateway.dicom.scu import Ours, Outbound, Patience
from gateway.dicom.sending import Piece
from gateway.errors import Fault, Forbidden, InvalidContent, Unavailable
from gateway.exchange.blobs import BlobStore
from gateway.exchange.outbox import Delivery, Outcome
from gateway.model.message import Message
from gateway.model.store import Store
from gateway.rcp import imaging_sending
from gateway.rcp.imaging_destinations import Destination, destination
from gateway.rcp.imaging_sending import Manifest

__all__ = ["DicomChannel", "packed", "unpacked"]

# Statuses of a C-STORE-RSP that say « not now » [PS3.4 table B.2-1] [PS3.7 C.5].
_LATER: Final = frozenset({0x0110, 0x0213})


class DicomChannel:
    """`gateway.exchange.outbox.Channel` towards DICOM applications."""

    name = imaging_sending.CHANNEL
    idempotent = True

    def __init__(
        self,
        store: Store,
        blobs: BlobStore,
        ours: Ours,
        *,
        patience: Patience | None = None,
        conversion: Conversion | None = None,
    ) -> None:
        self._store = store
        self._conversion = conversion or Conversion(blobs)
        self._ours = ours
        self._patience = patience
        self._kinds: dict[str, Callable[[Message, bytes, Destination], Delivery]] = {
            commitment.KIND: self._confirmation,
            imaging_sending.KIND: self._study,
        }

    def deliver(self, message: Message, content: bytes) -> Delivery:
        """Send once; say what happened."""
        with self._store.session() as session:
            to = destination(session, message.recipient or "")
        if to is None or to.partner_id != message.partner_id:
            return Delivery(Outcome.REFUSED, "dicom-destination-unknown", "Destination DICOM non enregistrée.")
        try:
            return self._kinds[message.kind](message, content, to)
        except Forbidden as error:
            return Delivery(Outcome.REFUSED, error.code, error.text)
        except Unavailable as error:
            return Delivery(Outcome.UNAVAILABLE, error.code, error.text, error.retry_after_s)

    def _confirmation(self, _: Message, content: bytes, to: Destination) -> Delivery:
        return commitment.report(content, to, self._ours, self._patience)

    def _study(self, message: Message, content: bytes, to: Destination) -> Delivery:
        manifest = msgspec.json.decode(content, type=Manifest)
        with self._store.session() as session:
            if not imaging_sending.may_leave(session, manifest):
                return Delivery(Outcome.REFUSED, *imaging_sending.WITHDRAWN)
        done = set(unpacked(str(message.details.get("done", ""))))
        left = [position for position in range(len(manifest.objects)) if position not in done]
        pieces = [Piece(*msgspec.structs.astuple(manifest.objects[position])) for position in left]
        firsts = [batch.first for batch in batches(pieces)] + [len(pieces)]
        refused: list[str] = []
        later: Delivery | None = None
        for batch, end in zip(batches(pieces), firsts[1:], strict=True):
            try:
                with Outbound(to, self._ours, batch.contexts, patience=self._patience) as association:
                    for position in range(batch.first, end):
                        answer = self._store_one(association, pieces[position])
                        if answer.status in _LATER or answer.status >> 8 == 0xA7:
                            later = Delivery(Outcome.UNAVAILABLE, f"dicom-{answer.status:04x}")
                        elif answer.status in (0x0000, 0x0001) or answer.status >> 12 == 0xB:
                            done.add(left[position])
                        else:
                            refused.append(answer.comment or f"dicom-{answer.status:04x}")
            except Unavailable as error:
                later = Delivery(Outcome.UNAVAILABLE, error.code, error.text)
                break
        facts: dict[str, Any] = {"done": packed(done)}
        if later is not None:
            return replace(later, facts=facts)
        if refused:
            text = f"{len(refused)} objets sur {len(manifest.objects)} refusés : {refused[0]}"
            return Delivery(Outcome.REFUSED, "dicom-objects-refused", text, facts=facts | {"refused": len(refused)})
        return Delivery(Outcome.DELIVERED, facts=facts)

    def _store_one(self, association: Outbound, piece: Piece) -> Answer:
        chosen = suitable(piece, association.context)
        if chosen is None:
            return no_context(piece)
        context_id, syntax = chosen
        try:
            with self._conversion.opened(piece, syntax) as file:
                return association.store(piece, file, context_id)
        except (Fault, InvalidContent) as error:  # its bytes are gone, or cannot be converted: the others go on
            return Answer(0xC000, error.code)


def packed(positions: Collection[int]) -> str:
    """Write positions as ranges: ``0-4,7``."""
    ranges: list[list[int]] = []
    for position in sorted(positions):
        if ranges and ranges[-1][1] == position - 1:
            ranges[-1][1] = position
        else:
            ranges.append([position, position])
    return ",".join(f"{first}-{last}" if first != last else str(first) for first, last in ranges)


def unpacked(text: str) -> Iterator[int]:
    """Read them."""
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)
