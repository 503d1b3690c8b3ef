"""OIDs, DICOM UIDs, ``urn:`` numbers and UUIDs of version 7.

Promises: `uuid7` grows within a process and is unique elsewhere. Not promised: that an OID is registered to anyone.
"""

from __future__ import annotations

import os
import re
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Self

from gateway.identifiers.written import Written

__all__ = ["Oid", "Uid", "Urn", "uuid7"]

# First arc 0 to 2; the second is under 40 below arcs 0 and 1. [ITU-T X.660; PS3.5 §9.1]
_DOTTED = re.compile(r"(?:[01]\.(?:[0-9]|[1-3][0-9])|2\.(?:0|[1-9][0-9]*))(?:\.(?:0|[1-9][0-9]*))*", re.ASCII)
_OID_LIMIT = 255
_UID_LIMIT = 64
_UUID_ARC = "2.25."
_UUID_FORM = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Oid(Written):
    """An object identifier, dotted. Faults: ``oid-forme``, ``oid-longueur``."""

    @classmethod
    def from_wire(cls, value: str) -> Self:
        """Read it, bare or as ``urn:oid:``; name what is wrong."""
        dotted = value.strip().removeprefix("urn:oid:")
        if len(dotted) > _OID_LIMIT:
            return cls(dotted, ("oid-longueur",))
        return cls(dotted, () if _DOTTED.fullmatch(dotted) else ("oid-forme",))

    @classmethod
    def of_uuid(cls, number: uuid.UUID) -> Self:
        """Return the OID that any UUID is, without registration [ITU-T X.667]."""
        return cls(f"{_UUID_ARC}{number.int}")

    @property
    def urn(self) -> str:
        """The number as a URN."""
        return f"urn:oid:{self.value}"


@dataclass(frozen=True, slots=True)
class Uid(Written):
    """A DICOM unique identifier: at most 64 characters [PS3.5 §9.1]. Faults: ``uid-forme``, ``uid-longueur``."""

    @classmethod
    def from_wire(cls, value: str) -> Self:
        """Read it without its padding (PS3.5 §6.2: a trailing NUL; some peers send a space); name what is wrong."""
        dotted = value.strip().removeprefix("urn:oid:").rstrip("\0 ")
        if len(dotted) > _UID_LIMIT:
            return cls(dotted, ("uid-longueur",))
        return cls(dotted, () if _DOTTED.fullmatch(dotted) else ("uid-forme",))

    @classmethod
    def of_uuid(cls, number: uuid.UUID) -> Self:
        """Return the UID that any UUID is [PS3.5 §B.2]."""
        return cls(f"{_UUID_ARC}{number.int}")

    @property
    def urn(self) -> str:
        """``urn:oid:…``, as FHIR writes StudyInstanceUID in ``urn:dicom:uid``."""
        return f"urn:oid:{self.value}"


@dataclass(frozen=True, slots=True)
class Urn(Written):
    """A number that says its own kind: ``urn:uuid:…`` or ``urn:oid:…`` (FHIR system ``urn:ietf:rfc:3986``).

    Faults: ``urn-forme``, ``oid-longueur``.
    """

    @classmethod
    def new(cls) -> Self:
        """Return a new ``urn:uuid:`` (version 7)."""
        return cls.of(uuid7())

    @classmethod
    def of(cls, number: uuid.UUID | Oid) -> Self:
        """Return the number as it is written."""
        return cls(f"urn:uuid:{number}" if isinstance(number, uuid.UUID) else number.urn)

    @classmethod
    def from_wire(cls, value: str) -> Self:
        """Read it; the case of a UUID and of ``urn:`` does not matter and is folded."""
        text = value.strip()
        scheme, rest = text[:9].lower(), text[9:].lower()
        if scheme == "urn:uuid:":
            return cls(scheme + rest, () if _UUID_FORM.fullmatch(rest) else ("urn-forme",))
        if text[:8].lower() == "urn:oid:":
            oid = Oid.from_wire(text[8:])
            return cls(oid.urn, ("urn-forme",) if "oid-forme" in oid.faults else oid.faults)
        return cls(text, ("urn-forme",))

    @property
    def uuid(self) -> uuid.UUID | None:
        """The UUID it is, None when it is not one."""
        if self.faults or not self.value.startswith("urn:uuid:"):
            return None
        return uuid.UUID(self.value[9:])

    @property
    def oid(self) -> Oid | None:
        """The OID it is or stands for (a UUID is an OID under 2.25), None when it is faulty."""
        if self.faults:
            return None
        number = self.uuid
        return Oid.of_uuid(number) if number else Oid(self.value[8:])


class _Sequence:
    """The last instant and counter given by `uuid7` in this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.instant_ms = 0
        self.counter = 0


_sequence = _Sequence()


def uuid7() -> uuid.UUID:
    """Return a UUID of version 7: ordered by time, and strictly growing inside one process [RFC 9562 §5.7, §6.2].

    The 12 bits after the millisecond are a counter that starts at random below its half at each millisecond; when it is
    used up, or when the machine's clock goes back, the last millisecond given runs on.
    """
    noise = int.from_bytes(os.urandom(10))
    now_ms = time.time_ns() // 1_000_000
    with _sequence.lock:
        if now_ms > _sequence.instant_ms:
            _sequence.instant_ms, _sequence.counter = now_ms, noise >> 69
        elif _sequence.counter < 0xFFF:
            _sequence.counter += 1
        else:
            _sequence.instant_ms, _sequence.counter = _sequence.instant_ms + 1, noise >> 69
        instant_ms, counter = _sequence.instant_ms, _sequence.counter
    tail = noise & ((1 << 62) - 1)
    return uuid.UUID(int=(instant_ms << 80) | (0x7 << 76) | (counter << 64) | (0b10 << 62) | tail)
