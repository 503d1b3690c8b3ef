"""What the objects of a series repeat is translated once.

A CT sends the same patient, study and equipment a thousand times; converting an attribute costs fifty times what
comparing its bytes does. What was made of certain bytes is kept here under these bytes and all that they were read
with, so that an answer never depends on what came before.

Promises: bounded memory; safe between threads. Holds patients' data in memory only, and of what is read now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Final, Generic, NamedTuple, TypeVar

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

__all__ = ["Made", "Raw", "Watched"]

T = TypeVar("T")

_CHARACTER_SET: Final = 0x00080005
_PIXEL_REPRESENTATION: Final = 0x00280103

#: Longer values are no repetition of a few bytes.
_MAX_BYTES: Final = 2048


class Raw:
    """The elements of one data set as they were read, before anything converts them in place."""

    def __init__(self, ds: Dataset) -> None:
        # The library's tags compare themselves at a price.
        self._elements: Mapping[int, Any] = {int(tag): element for tag, element in ds.items()}
        #: What the meaning of any element's bytes depends on.
        self._read_with = (
            ds.original_encoding,
            str(ds.original_character_set),
            self._value(_PIXEL_REPRESENTATION),
        )

    def _value(self, tag: int) -> bytes | None:
        element = self._elements.get(tag)
        return element.value if isinstance(element, RawDataElement) else None

    def tags(self) -> list[int]:
        """In the order of their numbers."""
        return sorted(self._elements)

    def key(self, tag: int) -> tuple[Any, ...] | None:
        """Everything that an element's meaning follows from; None when it is not a few bytes."""
        element = self._elements[tag]
        if not isinstance(element, RawDataElement) or element.value is None or len(element.value) > _MAX_BYTES:
            return None
        group, creator = tag >> 16, None
        if group % 2:
            creator = self._value(group << 16 | (tag >> 8 & 0xFF))
        elif element.VR in (None, "UN") and not _plain(tag):
            return None
        return (self._read_with, tag, element.VR, element.value, creator)

    def keys(self, keywords: Iterable[str]) -> tuple[Any, ...] | None:
        """The same of several elements, there or not."""
        found: list[Any] = [self._read_with]
        for keyword in keywords:
            tag = _tag(keyword)
            if tag is None or tag not in self._elements:
                found.append(None)
                continue
            key = self.key(tag)
            if key is None:
                return None
            found.append(key[1:])
        return tuple(found)

    @staticmethod
    def depended_on(keywords: Iterable[str]) -> list[int]:
        """Tags of attributes that were asked for, and of those that any other's meaning depends on."""
        return [_CHARACTER_SET, _PIXEL_REPRESENTATION, *(tag for one in keywords if (tag := _tag(one)) is not None)]


_tag = cache(tag_for_keyword)


@cache
def _plain(tag: int) -> bool:
    """Whether the standard gives an attribute one type, whatever others of its object say."""
    try:
        return " or " not in dictionary_VR(tag)
    except KeyError:
        return False


class Watched:
    """A data set that remembers which attributes it was asked for."""

    def __init__(self, ds: Dataset) -> None:
        self._ds = ds
        self.asked: dict[str, None] = {}

    def get(self, keyword: str) -> Any:
        """Give an attribute's value, or None."""
        self.asked[keyword] = None
        return self._ds.get(keyword)


class _Entry(NamedTuple, Generic[T]):
    asked: tuple[str, ...]
    keys: tuple[Any, ...]
    made: T


class Made(Generic[T]):
    """What was made of attributes before, by a name and the bytes of all attributes that were asked for.

    Parameters
    ----------
    most
        How many are kept; all are forgotten when there are more.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: dict[Any, _Entry[T]] = {}

    def of(self, name: Any, ds: Dataset, raw: Raw, make: Callable[[Watched], T]) -> tuple[T, tuple[str, ...]]:
        """Give what ``make`` gives, and the attributes that it follows from."""
        entry = self._entries.get(name)
        if entry is not None and raw.keys(entry.asked) == entry.keys:
            return entry.made, entry.asked
        watched = Watched(ds)
        made = make(watched)
        asked = tuple(watched.asked)
        keys = raw.keys(asked)
        if keys is not None:
            if len(self._entries) >= self._most:
                self._entries.clear()
            self._entries[name] = _Entry(asked, keys, made)
        return made, asked
