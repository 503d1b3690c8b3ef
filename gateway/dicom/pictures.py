"""Pictures that were drawn already, kept in memory for who asks again.

Promises: bounded in bytes; one picture is drawn once however many ask for it at the same time, and no longer than
somebody waits for it; a tag names what a picture is made of (the object's bytes, the frame, how it was asked for, what
draws it), so that it never stands for another. Knows no caller: who may see what is decided before anything here is
asked.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import numpy as np
import PIL
import pydicom

from gateway.errors import Unavailable

__all__ = ["Pictures", "tag"]

_BYTES: Final = 64 << 20
#: How long a picture is drawn for nobody.
_GRACE_S: Final = 1.0
#: Raised when what is drawn changes; a library that changes may draw another picture too.
_EDITION: Final = ("2", PIL.__version__, pydicom.__version__, np.__version__)

Picture = tuple[str, bytes]


def tag(sha256: str, *asked: Any) -> str:
    """Name a picture: a strong validator `[RFC 9110 §8.8.3]`, which says nothing of what is in it."""
    named = msgspec.msgpack.encode((_EDITION, sha256, asked))
    return f'"{hashlib.sha256(named).hexdigest()[:32]}"'


class Begun:
    """A picture that is being drawn."""

    __slots__ = ("_among", "_name", "_task", "_waiting")

    def __init__(self, task: asyncio.Task[Picture], among: dict[str, Begun], name: str) -> None:
        self._task, self._among, self._name = task, among, name
        self._waiting = 0
        task.add_done_callback(_heard)

    async def picture(self) -> Picture:
        """Wait for it; who goes away leaves the others theirs.

        Raises
        ------
        Unavailable
            ``dicom-render-busy``: it was given up in the instant before.
        """
        self._waiting += 1
        try:
            return await asyncio.shield(self._task)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._task.cancelled() and (task is None or not task.cancelling()):
                text = "Le dessin de cette image venait d’être abandonné."
                raise Unavailable("dicom-render-busy", text, retry_after_s=1) from None
            # Most are drawn sooner than a process that is ended could be replaced.
            asyncio.get_running_loop().call_later(_GRACE_S, self._left)
            raise
        finally:
            self._waiting -= 1

    def _left(self) -> None:
        if not self._waiting and not self._task.done():
            if self._among.get(self._name) is self:
                del self._among[self._name]
            self._task.cancel()


class Pictures:
    """The pictures of one process.

    Parameters
    ----------
    most_bytes
        Kept at most; the one that was asked for longest ago goes first.
    """

    def __init__(self, most_bytes: int = _BYTES) -> None:
        self._most, self._held = most_bytes, 0
        self._kept: OrderedDict[str, Picture] = OrderedDict()
        self._under_way: dict[str, Begun] = {}

    def has(self, name: str) -> bool:
        """Whether a picture is kept or being drawn."""
        return name in self._kept or name in self._under_way

    def kept(self, name: str) -> Picture | None:
        """Give a picture that is kept."""
        kept = self._kept.get(name)
        if kept is not None:
            self._kept.move_to_end(name)
        return kept

    def begin(self, name: str, draw: Callable[[], Awaitable[Picture]]) -> Begun:
        """Have a picture drawn that is not kept, unless it is already."""
        begun = self._under_way.get(name)
        if begun is None:
            begun = self._under_way[name] = Begun(asyncio.create_task(self._drawn(name, draw)), self._under_way, name)
        return begun

    async def get(self, name: str, draw: Callable[[], Awaitable[Picture]]) -> Picture:
        """Give a picture by its tag, drawn when it is not kept."""
        return self.kept(name) or await self.begin(name, draw).picture()

    async def _drawn(self, name: str, draw: Callable[[], Awaitable[Picture]]) -> Picture:
        begun = self._under_way.get(name)
        try:
            picture = await draw()
        finally:
            if self._under_way.get(name) is begun:
                del self._under_way[name]
        size = len(picture[1])
        if size <= self._most // 4:  # one that would push out all others is not worth it
            self._kept[name] = picture
            self._held += size
            while self._held > self._most:
                self._held -= len(self._kept.popitem(last=False)[1][1])
        return picture


def _heard(task: asyncio.Task[Picture]) -> None:
    """Take note of a refusal that nobody waited for any more."""
    if not task.cancelled():
        task.exception()
