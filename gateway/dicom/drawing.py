"""Decoders at work, outside of the process that serves: pictures, frames and documents out of what anybody sent.

Decoders are C and C++ over bytes that a stranger wrote. They run in processes of their own (`gateway.dicom.easel`) with
a bound on memory and time; one that crashes, hangs or swells costs its own picture and nothing else.

Promises: `Drawing.drawn` gives bytes or a `GatewayError` with a code of its own for each limit, within the seconds that
it may take; who waits holds no thread, and who goes away ends the work; work that fails because its process had become
worn is done once more in a new one; a fault that took a whole limit is remembered for a while, so that who asks again
for the same is told at once; other work on the object is not refused for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import msgspec

from gateway import errors
from gateway.dicom.easel import Answer, Order, receive, send
from gateway.errors import Fault, GatewayError, InvalidContent, Unavailable

__all__ = ["Drawing"]

_SECONDS: Final = 10.0
_MEMORY_BYTES: Final = 2 << 30
_MAX_ANSWER_BYTES: Final = 1 << 30
#: How long a new process may take to come up, and how many refusals are remembered for how long.
_START_S: Final = 30.0
_REMEMBERED, _REMEMBERED_S = 1024, 600.0
_LENGTH: Final = struct.Struct(">I")
#: As much of an answer as may wait to be read: the most that a process may ask the kernel for without rights.
_PIPE_BYTES: Final = 1 << 20
#: Orders that wait for a process; more are told to come back.
_WAITING: Final = 64


class Drawing:
    """Drawing processes, started when they are needed and kept.

    Parameters
    ----------
    processes
        At most as many at once; as many as processors, at most four, when None.
    seconds, memory_bytes
        What one piece of work may take.
    """

    def __init__(
        self, *, processes: int | None = None, seconds: float = _SECONDS, memory_bytes: int = _MEMORY_BYTES
    ) -> None:
        self.processes = processes or min(4, os.cpu_count() or 1)
        self._seconds, self._memory = seconds, memory_bytes
        self._places = _Places(self.processes)
        self._lock = threading.Lock()
        self._idle: list[_Easel] = []
        self._waiting = 0
        self._refused: OrderedDict[tuple[str, str, int], tuple[float, str]] = OrderedDict()
        self._warmed = False
        self._closed = False

    @property
    def idle(self) -> bool:
        """Whether a process has nothing to do."""
        return self._waiting < self.processes

    def warm(self) -> None:
        """Start one process beside what the caller does, once: the first picture does not wait for it."""
        if not self._warmed:
            self._warmed = True
            threading.Thread(target=self._warm, name="drawing-warm", daemon=True).start()

    def _warm(self) -> None:
        async def start() -> None:
            await self._places.enter()
            try:
                if not self._idle:
                    self._put(_Easel(self._memory))
            finally:
                self._places.leave()

        asyncio.run(start())

    def do(self, work: str, path: Path, *, key: str, frame: int = 1, **arguments: Any) -> tuple[str, bytes]:
        """As `drawn`, for who has a thread to wait in."""
        return asyncio.run(self.drawn(work, path, key=key, frame=frame, **arguments))

    async def drawn(self, work: str, path: Path, *, key: str, frame: int = 1, **arguments: Any) -> tuple[str, bytes]:
        """Have a piece of work done on a file; give its media type and bytes.

        Parameters
        ----------
        work
            One of `gateway.dicom.easel`: ``picture``, ``frame``, ``document``.
        key
            What names the content of the file, for what is remembered of it.

        Raises
        ------
        InvalidContent
            ``dicom-render-time``, ``dicom-render-memory``, ``dicom-render-crash``, and what the work refuses.
        Unavailable
            ``dicom-render-busy``.
        """
        self._remembered(work, key, frame)
        with self._lock:
            if self._waiting >= _WAITING:
                text = f"Plus de {_WAITING} images attendent déjà d’être dessinées."
                raise Unavailable("dicom-render-busy", text, retry_after_s=1)
            self._waiting += 1
        try:
            await self._places.enter()
            try:
                self._remembered(work, key, frame)  # who waited behind the one that met the limit
                answer = await self._answer(Order(work, str(path), {"frame": frame, **arguments}, self._seconds))
            finally:
                self._places.leave()
        finally:
            with self._lock:
                self._waiting -= 1
        if not answer.kind:
            return answer.media_type, answer.content
        if answer.code in _LIMITS:
            with self._lock:
                self._refused[work, key, frame] = (time.monotonic(), answer.code)
                while len(self._refused) > _REMEMBERED:
                    self._refused.popitem(last=False)
            raise self._limit(answer.code)
        raise _refusal(answer)

    async def _answer(self, order: Order) -> Answer:
        with self._lock:
            kept = self._idle.pop() if self._idle else None
        easel = kept if kept is not None else await asyncio.to_thread(_Easel, self._memory)
        answer = await easel.answer(order)
        if kept and answer.code in ("dicom-render-memory", "dicom-render-crash"):
            easel = await asyncio.to_thread(_Easel, self._memory)
            answer = await easel.answer(order)
        self._put(easel)
        return answer

    def _put(self, easel: _Easel) -> None:
        with self._lock:
            if easel.alive and not self._closed:
                self._idle.append(easel)
                return
        easel.stop()

    def _remembered(self, work: str, key: str, frame: int) -> None:
        with self._lock:
            when, code = self._refused.get((work, key, frame), (0.0, ""))
            if code and time.monotonic() - when > _REMEMBERED_S:
                del self._refused[work, key, frame]
                code = ""
        if code:
            raise self._limit(code)

    def _limit(self, code: str) -> InvalidContent:
        text = _LIMITS[code].format(seconds=f"{self._seconds:g}", mebibytes=self._memory >> 20)
        return InvalidContent(code, text, rule=True)

    def close(self) -> None:
        """End the processes."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for easel in idle:
            easel.end()


_LIMITS: Final = {
    "dicom-render-time": "Le décodage de cette image dépasse {seconds} s.",
    "dicom-render-memory": "Le décodage de cette image dépasse {mebibytes} Mio de mémoire.",
    "dicom-render-crash": "Le décodeur n’a pas survécu à cette image.",
}


def _refusal(answer: Answer) -> GatewayError:
    kind: type[GatewayError] = getattr(errors, answer.kind)
    if issubclass(kind, InvalidContent):
        return kind(answer.code, answer.text, expression=answer.expression, rule=answer.expression is None)
    return kind(answer.code, answer.text, expression=answer.expression)


class _Places:
    """Turns to draw, given in the order in which they are asked for, in whichever thread's event loop."""

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._free = count
        self._turns: deque[Callable[[], object]] = deque()

    async def enter(self) -> None:
        """Wait for a place."""
        with self._lock:
            if self._free:
                self._free -= 1
                return
            loop = asyncio.get_running_loop()
            turn = loop.create_future()
            call = partial(loop.call_soon_threadsafe, _come, turn)
            self._turns.append(call)
        try:
            await turn
        except asyncio.CancelledError:
            with self._lock:
                waits = call in self._turns
                if waits:
                    self._turns.remove(call)
            if not waits:  # it was given meanwhile
                self.leave()
            raise

    def leave(self) -> None:
        """Give a place to who waits longest."""
        while True:
            with self._lock:
                if not self._turns:
                    self._free += 1
                    return
                call = self._turns.popleft()
            with contextlib.suppress(RuntimeError):  # whose loop has ended waits no more
                call()
                return


def _come(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


class _Easel:
    """One drawing process, which has said that it works.

    Raises
    ------
    Fault
        It does not start.
    """

    def __init__(self, memory_bytes: int) -> None:
        # Neither the secrets of the environment nor threads that a decoder would start.
        given = {name: value for name, value in os.environ.items() if not name.startswith("RCP_")}
        command = [sys.executable, "-P", "-m", "gateway.dicom.easel", str(memory_bytes)]
        self._process = subprocess.Popen(  # noqa: S603 - ourselves
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**given, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"},
            start_new_session=True,  # a Ctrl-C in the terminal is for who started us
        )
        self._orders = cast(BinaryIO, self._process.stdin)
        self._answers = cast(BinaryIO, self._process.stdout)
        with contextlib.suppress(OSError):  # else a large frame comes in more pieces
            fcntl.fcntl(self._answers, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self.alive = True
        late = threading.Timer(_START_S, self._process.kill)
        late.start()
        begun = receive(self._answers)
        late.cancel()
        if begun is None:
            self.stop()
            raise Fault("dicom-drawing", "Le processus de dessin ne démarre pas.")

    async def answer(self, order: Order) -> Answer:
        """Give one order; a process that does not answer in time, or for whom nobody waits any more, is ended."""
        try:
            send(self._orders, order)
            async with asyncio.timeout(order.seconds):
                answer = msgspec.msgpack.decode(await self._answered(), type=Answer)
        except TimeoutError:
            answer = Answer(kind="InvalidContent", code="dicom-render-time")
        except (OSError, EOFError, msgspec.DecodeError):
            await asyncio.to_thread(self.stop)
            ended = self._process.returncode == -signal.SIGXCPU
            answer = Answer(kind="InvalidContent", code="dicom-render-time" if ended else "dicom-render-crash")
        except asyncio.CancelledError:
            self._process.kill()
            self.alive = False
            threading.Thread(target=self.stop, name="drawing-stop", daemon=True).start()
            raise
        if self.alive and answer.code in ("dicom-render-time", "dicom-render-memory"):
            await asyncio.to_thread(self.stop)
        return answer

    async def _answered(self) -> memoryview:
        loop = asyncio.get_running_loop()
        whole: asyncio.Future[memoryview] = loop.create_future()
        number, content = self._answers.fileno(), bytearray()

        def more() -> None:
            if whole.done():
                return
            try:
                piece = os.read(number, _PIPE_BYTES)
            except OSError:
                piece = b""
            content.extend(piece)
            length = _LENGTH.unpack_from(content)[0] if len(content) >= _LENGTH.size else 0
            if not piece or length > _MAX_ANSWER_BYTES:
                whole.set_exception(EOFError())
            elif len(content) >= _LENGTH.size + (length or 1):
                whole.set_result(memoryview(content)[_LENGTH.size :])

        loop.add_reader(number, more)
        try:
            return await whole
        finally:
            loop.remove_reader(number)

    def end(self) -> None:
        """Let it go: it ends when nobody can ask it for anything more."""
        self._orders.close()
        self.stop()

    def stop(self) -> None:
        """End it, whatever it does."""
        self.alive = False
        try:
            self._process.wait(0.05 if self._process.poll() is None else 0)  # one that ends by itself says how
        except subprocess.TimeoutExpired:
            self._process.kill()
        for pipe in (self._orders, self._answers):
            with contextlib.suppress(OSError):  # what it did not read
                pipe.close()
        self._process.wait()
