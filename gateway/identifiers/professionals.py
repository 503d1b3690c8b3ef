"""Professionals: RPPS, the national identifier that contains it, and their MSSanté addresses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Self

from gateway.identifiers.faults import compact
from gateway.identifiers.keys import luhn_valid
from gateway.identifiers.written import Written

__all__ = ["IdNatPs", "MssanteAddress", "Rpps"]

_RPPS = re.compile(r"[0-9]{11}", re.ASCII)
_IDNPS = re.compile(r"[0-9][0-9A-Z/.\-]{1,63}", re.ASCII)
# ASCII alone: nothing else leaves by SMTP as the operators offer it, and « ſ » is an « s » to a pattern without case.
_MSSANTE = re.compile(
    r"(?=[^@]{1,64}@)[a-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@(?:(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+mssante\.fr|interop-mssante\.apicrypt\.org)",
    re.IGNORECASE | re.ASCII,
)
_RPPS_TYPE = "8"


@dataclass(frozen=True, slots=True)
class Rpps(Written):
    """A professional by the national register: 11 digits, the last of which is a Luhn key [spec annuaire §3, §8].

    Faults: ``rpps-forme``, ``rpps-cle``.
    """

    @classmethod
    def from_wire(cls, value: str) -> Self:
        """Read 11 digits, or the 12 of the national identifier that stand for them; name what is wrong."""
        number = compact(value)
        if len(number) == 12 and number.startswith(_RPPS_TYPE):
            number = number[1:]
        if not _RPPS.fullmatch(number):
            return cls(number, ("rpps-forme",))
        return cls(number, () if luhn_valid(number) else ("rpps-cle",))

    @property
    def idnps(self) -> str:
        """The national identifier of 12 digits that CDA, HL7 v2 and Pro Santé Connect use."""
        return _RPPS_TYPE + self.value


@dataclass(frozen=True, slots=True)
class IdNatPs(Written):
    """National identifier of a professional: one digit that says what the number is, then the number.

    ``8`` is followed by an RPPS, ``0`` by an ADELI number, ``3`` or ``5`` by a structure and a register number
    (TRE_G08). Pro Santé Connect also issues others to its test identities: kept, flagged.
    Faults: ``idnps-forme``, and those of the RPPS it holds.
    """

    @classmethod
    def from_wire(cls, value: str) -> Self:
        """Read it; a bare RPPS of 11 digits is taken for what it stands for."""
        number = compact(value)
        if _RPPS.fullmatch(number):
            number = _RPPS_TYPE + number
        if not _IDNPS.fullmatch(number):
            return cls(number, ("idnps-forme",))
        if number.startswith(_RPPS_TYPE):
            return cls(number, Rpps.from_wire(number[1:]).faults)
        return cls(number)

    @property
    def type_code(self) -> str:
        """Code of TRE_G08: what the number is."""
        return self.value[:1]

    @property
    def rpps(self) -> Rpps | None:
        """The RPPS it holds, with its faults; None for any other kind of number."""
        holds = self.value.startswith(_RPPS_TYPE) and _RPPS.fullmatch(self.value[1:])
        return Rpps.from_wire(self.value[1:]) if holds else None


@dataclass(frozen=True, slots=True)
class MssanteAddress(Written):
    """A mailbox inside the MSSanté trust space, the only place where health data may be mailed [spec annuaire §5].

    Compared without case: operators treat addresses so. Fault: ``mssante-forme``.

    Attributes
    ----------
    PATIENTS
        Domain of Mon espace santé, where an address is the patient's matricule INS [spec mssante 2.12].
    """

    PATIENTS: ClassVar[str] = "patient.mssante.fr"

    @classmethod
    def from_wire(cls, value: str) -> Self:
        """Read an address; one of another space is kept and flagged, so that nothing is sent to it."""
        address = value.strip().lower()
        return cls(address, () if _MSSANTE.fullmatch(address) else ("mssante-forme",))

    @property
    def domain(self) -> str:
        """What stands after the ``@``."""
        return self.value.rpartition("@")[2]

    @property
    def is_of_a_patient(self) -> bool:
        """Whether it is a mailbox of Mon espace santé."""
        return self.domain == self.PATIENTS

    @classmethod
    def shown(cls, written: str) -> str:
        """Return an address as pages and the trail may say it: as written, without a patient's matricule."""
        return f"…@{cls.PATIENTS}" if cls.from_wire(written).is_of_a_patient else written
