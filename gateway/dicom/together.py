"""Storage of several objects that one request brought: one thread makes them durable and known as a group.

Promises: of each object what `gateway.dicom.storage` promises, and in its order: its file, its name and its folder are
durable before its row is committed, which is before its `commit` returns. An object that is not as foreseen (it cannot
be read, is known already, is another patient's, the disk or the database refuses it) is left to its own `commit`, which
alone refuses, quarantines and matches, so that nobody learns of another's refusal.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from gateway.dicom import outcome, translate
from gateway.dicom.command import StoreRequest
from gateway.dicom.intake import Sink
from gateway.dicom.storage import Keeper, Keeping
from gateway.dicom.succession import HEAD_BYTES
from gateway.errors import GatewayError
from gateway.exchange.blobs import Staged
from gateway.rcp.access import Caller
from gateway.rcp.imaging import Content
from gateway.rcp.imaging_arrivals import Line
from gateway.rcp.imaging_facts import ObjectFacts

__all__ = ["GroupKeeper"]

LOG = logging.getLogger(__name__)


class GroupKeeper(Keeper):
    """Storage whose sinks may be committed together."""

    def open(self, request: StoreRequest, peer: Caller) -> _Member:
        """Begin to keep one object."""
        return _Member(self._steps, self._arrivals, self._blobs, request, peer, tolerant=self._tolerant)

    def prepare(self, sinks: Sequence[Sink]) -> None:
        """Do for several sinks, all written, what the `commit` of each then finds done."""
        try:
            self._prepare([(one, facts) for one in sinks if isinstance(one, _Member) and (facts := one.foreseen())])
        except Exception as error:  # noqa: BLE001 - whatever it was, each tells its own sender of its own
            LOG.error("dicom objects not kept together: %s", outcome.where(error))  # noqa: TRY400 - no traceback

    def accompany(self, sink: Sink, line: Line) -> None:
        """Have the trail told of an object that is all of its request, in the commit of its row: see `told`."""
        if isinstance(sink, _Member):
            sink.line = line

    def told(self, sink: Sink | None) -> tuple[str, str] | None:
        """Give the study and the series of an object whose line of the trail is durable with it."""
        return sink.told if isinstance(sink, _Member) else None

    def _prepare(self, members: Sequence[tuple[_Member, ObjectFacts]]) -> None:
        self._blobs.commit_together([one.staged for one, _ in members])
        durable = [(one, facts, content) for one, facts in members if (content := one.content()) is not None]
        told = self._arrivals.keep_together([(one.caller, facts, content) for one, facts, content in durable])
        for (one, _, _), became in zip(durable, told, strict=True):
            one.became = became


class _Member(Keeping):
    """One object; what is foreseen of it is what its `commit` asks anyhow, and is asked once.

    Attributes
    ----------
    became
        Whether it is kept, or what is told instead.
    line, told
        What tells the trail of it with its row, and its study and its series once that is done.
    """

    line: Line | None = None
    told: tuple[str, str] | None = None
    became: bool | GatewayError = False
    _said: ObjectFacts | Exception | None = None
    _refused: Exception | None = None

    @property
    def staged(self) -> Staged:
        return self._staged

    @property
    def caller(self) -> Caller:
        return self._caller

    def foreseen(self) -> ObjectFacts | None:
        """Read the object; None when it is for `commit` to say what is wrong with it."""
        try:
            self._said = self._facts()
        except Exception as error:  # noqa: BLE001 - raised again by `commit`
            self._refused = error
        return self._said if isinstance(self._said, ObjectFacts) else None

    def content(self) -> Content | None:
        """Give the content, if it is durable."""
        try:
            blob = self._staged.commit()
        except GatewayError:
            return None
        return Content(blob.sha256, blob.size_bytes)

    def write(self, chunk: memoryview) -> None:
        """Take the next bytes; what they say is read by the thread of the group, not by the one that reads the body."""
        self._staged.write(chunk)
        if self._head is not None and len(self._head) < HEAD_BYTES:
            self._head += chunk[: HEAD_BYTES - len(self._head)]

    def _facts(self) -> ObjectFacts | Exception:
        if self._refused is not None:
            raise self._refused
        if self._said is None and self._head is not None and len(self._head) == HEAD_BYTES:
            self._early = translate.read_early(self._staged.path, bytes(self._head))
            self._head = None
        return self._said or super()._facts()

    def _kept(self, facts: ObjectFacts | Exception, content: Content) -> GatewayError | None:
        if isinstance(self.became, GatewayError):
            raise self.became
        if self.became or self.line is None or isinstance(facts, Exception):
            return None if self.became else super()._kept(facts, content)
        refusal = self._arrivals.keep(self._caller, facts, content, self.line)
        if refusal is None:
            self.told = facts.study.study_instance_uid, facts.series.series_instance_uid
        return refusal
