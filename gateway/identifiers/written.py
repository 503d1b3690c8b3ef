"""What the identifiers that are one string share: the value, what is wrong with it, the two ways in.

Each type says in `Written.from_wire` how it is read; `Written.parse` refuses what that found. Identifiers that mean
nothing without a second part (INS, IPP) stand by themselves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Self

from gateway.identifiers.faults import refuse_if

__all__ = ["Written"]


@dataclass(frozen=True, slots=True)
class Written(ABC):
    """An identifier that is written as one string.

    Parameters
    ----------
    value
        Its one spelling here.
    faults
        Codes of what is wrong with it; they do not count when two are compared.
    """

    value: str
    faults: tuple[str, ...] = field(default=(), compare=False)

    accepted_in_forms: ClassVar[frozenset[str]] = frozenset()
    """Faults that only flag what a wire brought: nobody who types it can do better."""

    @classmethod
    @abstractmethod
    def from_wire(cls, value: str) -> Self:
        """Read what another system sent, whatever it is; name what is wrong."""

    @classmethod
    def parse(cls, value: str, *, expression: str | None = None) -> Self:
        """Read what a person typed, or refuse.

        Raises
        ------
        InvalidContent
            With the first fault as its code; the type names those it knows.
        """
        read = cls.from_wire(value)
        refuse_if(tuple(fault for fault in read.faults if fault not in cls.accepted_in_forms), expression=expression)
        return cls(read.value)

    def __str__(self) -> str:
        return self.value
