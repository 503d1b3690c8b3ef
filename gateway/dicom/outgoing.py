"""The way out of the outbox to DICOM applications: studies by C-STORE, confirmations by N-EVENT-REPORT.

Promises
--------
* Only to an application that is registered at the moment of sending; a study that was put aside meanwhile stays.
* A large study is sent in turns with other messages, so that no mail waits for it.
* An object that was acknowledged is not sent again by a later attempt; after a crash it may be, which its receiver
  takes as the same object.
* What may work later (unreachable, out of resources, broken) is tried again; what will not (a syntax or a class that is
  not taken, a refused object) is refused and named, once everything else has been sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
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

#: How long one study is sent before other messages have their turn: the worker has four hands.
TURN_S: Final = 20.0
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
        state = _Progress(message.details)
        left = [place for place in range(len(manifest.objects)) if place not in state.done | state.aside]
        pieces = [Piece(*msgspec.structs.astuple(manifest.objects[place])) for place in left]
        found = list(batches(pieces))
        ends = [batch.first for batch in found[1:]] + [len(pieces)]
        try:
            for batch, end in zip(found, ends, strict=True):
                with Outbound(to, self._ours, batch.contexts, patience=self._patience) as association:
                    for position in range(batch.first, end):
                        if state.turn_is_over():
                            return Delivery(
                                Outcome.UNAVAILABLE,
                                "dicom-continues",
                                retry_after_s=0,
                                facts=state.facts(),
                                untried=True,
                            )
                        state.count(left[position], self._store_one(association, pieces[position]))
        except Unavailable as error:
            return Delivery(Outcome.UNAVAILABLE, error.code, error.text, facts=state.facts())
        if state.later:
            return Delivery(Outcome.UNAVAILABLE, state.later, facts=state.facts())
        # Nothing stays aside: whoever sends the message again tries all that was refused again.
        facts = state.facts() | {"aside": "", "refused": len(state.aside)}
        if state.aside:
            text = f"{len(state.aside)} objets sur {len(manifest.objects)} refusés : {state.why}"
            return Delivery(Outcome.REFUSED, "dicom-objects-refused", text, facts=facts)
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


class _Progress:
    """What became of the objects of a message, by their place in it."""

    def __init__(self, before: Mapping[str, Any]) -> None:
        self.done = set(unpacked(str(before.get("done", ""))))
        self.aside = set(unpacked(str(before.get("aside", ""))))
        self.why = str(before.get("why", "")) if self.aside else ""
        self.later = ""
        self._until = time.monotonic() + TURN_S
        self._forward = False

    def turn_is_over(self) -> bool:
        """Whether other messages should have their turn; never before something went forward."""
        return self._forward and time.monotonic() > self._until

    def count(self, place: int, answer: Answer) -> None:
        """Lay a receiver's answer down."""
        status = answer.status
        if status in _LATER or status >> 8 == 0xA7:
            self.later = f"dicom-{status:04x}"
            return
        self._forward = True
        if status in (0x0000, 0x0001) or status >> 12 == 0xB:
            self.done.add(place)
        else:
            self.aside.add(place)
            self.why = self.why or answer.comment or f"dicom-{status:04x}"

    def facts(self) -> dict[str, Any]:
        """Give what the message keeps of it."""
        return {"done": packed(self.done), "aside": packed(self.aside), "why": self.why}


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
