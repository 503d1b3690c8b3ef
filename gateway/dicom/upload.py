"""The objects of one STOW request, on their way from its body to storage `[PS3.18 10.5]`.

Promises
--------
* Constant memory, whatever an object weighs; one thread at a time reads a body.
* Objects are made durable while the next ones come, in groups (`gateway.dicom.together`): their syncs share the disk's
  journal and their rows a commit, which nobody waits for before the end of the body.
* The first object of a request is kept before the others begin to be, and of two of one UID the first that came.
* What is not whole when the body breaks off is forgotten.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from gateway.dicom import outcome
from gateway.dicom.command import Answer, StoreRequest
from gateway.dicom.intake import Intake, Sink
from gateway.dicom.multipart import Ended, Head, Piece, Reader, media_type
from gateway.dicom.part10 import announced
from gateway.errors import InvalidContent, Unsupported

__all__ = ["DICOM", "Laid", "Upload"]

DICOM: Final = "application/dicom"
#: Objects of one request that are made durable by one thread, and how many threads are at it.
_TOGETHER: Final = 12
_GROUPS: Final = 3
#: Looked at first: the head of a file and the UIDs of its data set stand within, as a rule.
_BEGINNING_BYTES: Final = 32 << 10


@dataclass(slots=True)
class Laid:
    """One part: what it announced, and what its sender is told; where it went if it was all that there was."""

    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    answer: Answer | None = None
    sink: Sink | None = None
    becoming: Future[None] | None = None

    @property
    def told(self) -> Answer:
        """What became of it, once that is known."""
        if self.becoming is not None:
            self.becoming.result()
        return self.answer or Answer()


class Upload:
    """The objects of one request.

    Parameters
    ----------
    reader
        Of the parts; None when the body is one object.
    begin
        Begins to keep what was announced.
    commits
        Where objects are made durable while the next ones come.
    prepare
        Does for several sinks at once what the `commit` of each then finds done.
    accompany
        Is told the sink of an object that is all of its request, before its `commit`.
    """

    def __init__(
        self,
        reader: Reader | None,
        begin: Callable[[StoreRequest], Intake],
        commits: ThreadPoolExecutor,
        prepare: Callable[[Sequence[Sink]], None],
        accompany: Callable[[Sink], None],
    ) -> None:
        self.laid: list[Laid] = []
        self._reader = reader
        self._begin = begin
        self._commits = commits
        self._prepare = prepare
        self._accompany = accompany
        self._turn = threading.Lock()
        self._closed = False
        self._room = threading.BoundedSemaphore(_GROUPS)
        self._head = b""
        self._intake: Intake | None = None
        self._whole: list[tuple[Laid, Intake]] = []
        self._first: Future[None] | None = None
        self._kept: dict[str, Future[None]] = {}
        if reader is None:
            self._started({"content-type": DICOM})

    def take(self, data: bytes | bytearray, position: int = 0, end: int | None = None) -> None:
        """Read the next bytes; see `Reader.feed`. Nothing of them is held afterwards."""
        with self._turn:
            if not self._closed:
                self._take(data, position, end)

    def finish(self, data: bytes | bytearray, position: int = 0, end: int | None = None) -> None:
        """Read the last bytes and wait for what is being made durable.

        Raises
        ------
        InvalidContent
            ``multipart``.
        """
        with self._turn:
            self._take(data, position, end)
            if self._reader is None:
                self._ended()
            elif not self._reader.finished:
                raise InvalidContent("multipart", "Contenu « multipart/related » illisible : fin manquante.")
            self._arrived()
            if self._first is None and len(self._whole) == 1:
                self._commit_alone()
            self._commit()
        for one in self.laid:
            _ = one.told

    def close(self) -> None:
        """Forget what is not being made durable; harmless when there is nothing."""
        with self._turn:
            self._closed = True
            intake, self._intake = self._intake, None
            for one in (*(whole for _, whole in self._whole), *([intake] if intake is not None else [])):
                one.close()
            self._whole = []

    def _take(self, data: bytes | bytearray, position: int, end: int | None) -> None:
        if self._reader is None:
            self._written(memoryview(data)[position:end])
            return
        for event in self._reader.feed(data, position, end):
            match event:
                case Head(fields):
                    self._started(fields)
                case Piece(piece):
                    self._written(piece)
                case Ended():
                    self._ended()

    def _arrived(self) -> None:
        """Do what waits for the last part."""

    def _started(self, fields: dict[str, str]) -> None:
        if self._first is None:
            self._commit()
        self.laid.append(Laid())
        self._head = b""
        name, _ = media_type(fields.get("content-type", DICOM))
        if name != DICOM:
            self._refuse(Unsupported("type-de-contenu", "Partie d’un autre type que application/dicom."))

    def _refuse(self, error: Exception) -> None:
        self.laid[-1].answer = outcome.answer(error)

    def _written(self, content: memoryview) -> None:
        if self._intake is not None:
            self._intake.write(content)
        elif self.laid[-1].answer is None:
            beginning = self._head + content[:_BEGINNING_BYTES]
            if not self._announced(beginning, content, whole=False):
                self._head += content

    def _announced(self, beginning: bytes, last: memoryview, *, whole: bool) -> bool:
        """Begin to keep an object, or refuse it; False while more of its beginning is needed.

        Parameters
        ----------
        last
            What came last: the beginning ends in it.
        """
        one = self.laid[-1]
        try:
            found = announced(beginning, whole=whole)
        except InvalidContent as error:
            self._refuse(error)
            return True
        if found is None:
            return False
        request, begins = found
        one.sop_class_uid, one.sop_instance_uid = request.sop_class_uid, request.sop_instance_uid
        before, self._head = len(self._head), b""
        self._intake = self._begin(request)
        if begins < before:
            self._intake.write(memoryview(beginning)[begins:before])
        self._intake.write(last[max(0, begins - before) :])
        return True

    def _ended(self) -> None:
        if self._intake is None and self.laid[-1].answer is None:
            self._announced(self._head, memoryview(b""), whole=True)
        intake, self._intake = self._intake, None
        if intake is not None:
            self._keep(self.laid[-1], intake)

    def _keep(self, one: Laid, intake: Intake) -> None:
        """Have an object that is whole made durable, soon."""
        # The first says whose study it is, and of two objects of one UID the first is kept: before what follows.
        same = any(one.sop_instance_uid == other.sop_instance_uid for other, _ in self._whole)
        self._whole.append((one, intake))
        if same or one.sop_instance_uid in self._kept or len(self._whole) == _TOGETHER:
            self._commit()

    def _commit_alone(self) -> None:
        """Make the only object durable, here and nothing else: waking a thread costs more than what it would do."""
        [(one, intake)] = self._whole
        self._whole = []
        one.sink = intake.sink
        if one.sink is not None and len(self.laid) == 1:
            self._accompany(one.sink)
        one.answer = intake.finish()

    def _commit(self) -> None:
        """Begin to make durable what is whole."""
        while self._whole:
            group = self._next_group()
            # The first is waited for by all, and by whoever has the same UID.
            uids = [one.sop_instance_uid for one, _ in group]
            for before in (self._first, *map(self._kept.get, uids)):
                if before is not None:
                    before.exception()
            self._room.acquire()
            done = self._commits.submit(self._keep_together, group)
            del self._whole[: len(group)]
            for one, _ in group:
                one.becoming = self._kept[one.sop_instance_uid] = done
            self._first = self._first or done

    def _next_group(self) -> list[tuple[Laid, Intake]]:
        """Give those at the head of what is whole that may be kept together: the first of all alone, no UID twice."""
        if self._first is None:
            return self._whole[:1]
        group: dict[str, tuple[Laid, Intake]] = {}
        for one, intake in self._whole[:_TOGETHER]:
            if one.sop_instance_uid in group:
                break
            group[one.sop_instance_uid] = (one, intake)
        return list(group.values())

    def _keep_together(self, group: Sequence[tuple[Laid, Intake]]) -> None:
        try:
            if len(group) > 1:
                self._prepare([intake.sink for _, intake in group if intake.sink is not None])
            for one, intake in group:
                one.answer = intake.finish()
        finally:
            self._room.release()
        for _, intake in group:
            intake.answered()  # files of objects to come are opened here, not by the thread that reads the body
