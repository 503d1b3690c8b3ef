"""Pictures that were drawn already, kept in memory for who asks again.

Promises: bounded in bytes; one picture is drawn once however many ask for it at the same time; a tag names what a
picture is made of (the object's bytes, the frame, how it was asked for, what draws it), so that it never stands for
another. Knows no caller: who may see what is decided before anything here is asked.
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

__all__ = ["Pictures", "tag"]

_BYTES: Final = 64 << 20
#: Raised when what is drawn changes; a library that changes may draw another picture too.
_EDITION: Final = ("1", PIL.__version__, pydicom.__version__, np.__version__)

Picture = tuple[str, bytes]


def tag(sha256: str, *asked: Any) -> str:
    """Name a picture: a strong validator `[RFC 9110 §8.8.3]`, which says nothing of what is in it."""
    named = msgspec.msgpack.encode((_EDITION, sha256, asked))
    return f'"{hashlib.sha256(named).hexdigest()[:32]}"'


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
        self._under_way: dict[str, asyncio.Task[Picture]] = {}

    def has(self, name: str) -> bool:
        """Whether a picture is kept or being drawn."""
        return name in self._kept or name in self._under_way

    async def get(self, name: str, draw: Callable[[], Awaitable[Picture]]) -> Picture:
        """Give a picture by its tag, drawn when it is not kept."""
        kept = self._kept.get(name)
        if kept is not None:
            self._kept.move_to_end(name)
            return kept
        task = self._under_way.get(name)
        if task is None:
            task = self._under_way[name] = asyncio.create_task(self._drawn(name, draw))
            task.add_done_callback(_heard)
        return await asyncio.shield(task)  # who goes away leaves the others theirs

    async def _drawn(self, name: str, draw: Callable[[], Awaitable[Picture]]) -> Picture:
        try:
            picture = await draw()
        finally:
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
