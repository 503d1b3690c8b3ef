"""One object on its way from the wire to storage: the `Sink` that storage offers, and the answer that its sender gets.

Promises: whatever storage raises becomes an answer; a refused object leaves nothing in its sink; a sink is discarded or
committed, never both.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from gateway.dicom import outcome
from gateway.dicom.command import Answer, StoreRequest, is_uid
from gateway.errors import InvalidContent, Unsupported

__all__ = ["Intake", "OpenSink", "Sink"]

LOG = logging.getLogger(__name__)


class Sink(Protocol):
    """Where one incoming object goes; it is discarded or committed, and may raise whatever its storage raises."""

    def write(self, chunk: memoryview) -> None:
        """Take the next bytes of the data set; the view is reused after the call."""

    def commit(self) -> Answer:
        """Make the object durable; the answer is sent after this returns. After a raise, `discard` is called."""
        ...

    def discard(self) -> None:
        """Forget what was written."""

    def answered(self) -> None:
        """Do what may wait: the answer to what was committed has left, its sender is at its next object."""


OpenSink = Callable[[StoreRequest], Sink]


class Intake:
    """One object on its way to its sink: the first refusal empties the sink, the rest is drained.

    Parameters
    ----------
    request
        What the C-STORE-RQ announced.
    abstract_syntax
        The SOP class of its presentation context.
    open_sink
        Storage; a `GatewayError` it raises is the answer.
    max_object_bytes
        Of the data set.
    """

    def __init__(self, request: StoreRequest, abstract_syntax: str, open_sink: OpenSink, max_object_bytes: int) -> None:
        self._sink: Sink | None = None
        self._kept: Sink | None = None
        self._refusal: Answer | None = None
        self._bytes = 0
        self._max_object_bytes = max_object_bytes
        if request.sop_class_uid != abstract_syntax:
            self._refuse(
                Unsupported("sop-class-mismatch", "La classe SOP n’est pas celle du contexte de présentation.")
            )
        elif not is_uid(request.sop_instance_uid):
            self._refuse(InvalidContent("invalid-uid", "L’identifiant SOPInstanceUID n’est pas un UID.", rule=True))
        else:
            try:
                self._sink = open_sink(request)
            except Exception as error:  # noqa: BLE001 - whatever storage raises becomes an answer
                self._refuse(error)

    @property
    def sink(self) -> Sink | None:
        """Where it goes, unless it is refused already, or done."""
        return self._sink

    def _refuse(self, error: BaseException) -> None:
        self._refusal = outcome.answer(error)
        LOG.warning("dicom object refused: 0x%04X, %s", self._refusal.status, outcome.where(error))
        self.close()

    def write(self, chunk: memoryview) -> None:
        """Hand bytes on, unless the object is already refused."""
        if self._sink is None:
            return
        self._bytes += len(chunk)
        if self._bytes > self._max_object_bytes:
            text = f"Objet de plus de {self._max_object_bytes} octets (max_object_bytes)."
            self._refuse(InvalidContent("object-too-large", text))
            return
        try:
            self._sink.write(chunk)
        except Exception as error:  # noqa: BLE001 - as above
            self._refuse(error)

    def finish(self) -> Answer:
        """Commit, and say what the sender is told."""
        if self._sink is not None:
            try:
                answer = self._sink.commit()
            except Exception as error:  # noqa: BLE001 - as above
                self._refuse(error)
            else:
                self._sink, self._kept = None, self._sink
                return answer
        return self._refusal or Answer(outcome.DIMSE_STATUS["fault"])

    def answered(self) -> None:
        """Let the sink do what was left for later."""
        if self._kept is None:
            return
        try:
            self._kept.answered()
        except Exception as error:  # noqa: BLE001 - the association goes on
            LOG.error("dicom sink not ready: %s", outcome.where(error))  # noqa: TRY400 - as below

    def close(self) -> None:
        """Discard what is not committed; harmless when there is nothing."""
        sink, self._sink = self._sink, None
        if sink is None:
            return
        try:
            sink.discard()
        except Exception as error:  # noqa: BLE001 - the association goes on
            LOG.error("dicom sink not discarded: %s", outcome.where(error))  # noqa: TRY400 - a traceback may name a patient
