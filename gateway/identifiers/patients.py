"""IPP: what one organisation calls a patient, with the domain that gives it its meaning.

Promises: a bare OID and its URN are one domain; nothing of an IPP but its end reaches a log. Whether its sender may
write in that domain is the partner's matter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Self

from gateway.identifiers.faults import refuse_if
from gateway.identifiers.numbers import Oid

__all__ = ["Ipp"]

_LIMIT = 255
_URL = re.compile(r"(?:https?://|urn:)[^\s\x00-\x1f]+", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True, repr=False)
class Ipp:
    """A permanent patient identifier: nothing without its domain.

    Parameters
    ----------
    value
        As its organisation writes it: case and leading zeros count.
    system
        The assigning domain as FHIR writes it, a URL or ``urn:oid:…``; a bare OID is taken for the latter. Empty when
        what came from a wire names none.
    """

    value: str
    system: str
    faults: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def parse(cls, value: str, system: str, *, expression: str | None = None) -> Self:
        """Read it, or refuse (``ipp-vide``, ``ipp-longueur``, ``ipp-caracteres``, ``ipp-domaine``)."""
        read = cls.from_wire(value, system)
        refuse_if(read.faults, expression=expression)
        return read

    @classmethod
    def from_wire(cls, value: str, system: str | None) -> Self:
        """Read it; name what is wrong."""
        number, domain = value.strip(), _domain((system or "").strip())
        faults = [
            fault
            for fault, found in (
                ("ipp-vide", not number),
                ("ipp-longueur", len(number) > _LIMIT),
                ("ipp-caracteres", _CONTROL.search(number)),
                ("ipp-domaine", not _is_domain(domain)),
            )
            if found
        ]
        return cls(number, domain, tuple(faults))

    @property
    def oid(self) -> Oid | None:
        """The domain as an OID, for HL7 v2, CDA and DICOM; None when it is a URL."""
        return Oid.from_wire(self.system) if self.system.startswith("urn:oid:") else None

    def __repr__(self) -> str:
        """Show the last four characters at most: an IPP must not reach a log."""
        shown = self.value[-4:] if len(self.value) > 8 else ""
        flagged = f" {','.join(self.faults)}" if self.faults else ""
        return f"<IPP …{shown} {self.system}{flagged}>"

    __str__ = __repr__


def _domain(system: str) -> str:
    bare = Oid.from_wire(system)
    return bare.urn if not bare.faults else system


def _is_domain(system: str) -> bool:
    if system.startswith("urn:oid:"):
        return not Oid.from_wire(system).faults
    return bool(_URL.fullmatch(system))
