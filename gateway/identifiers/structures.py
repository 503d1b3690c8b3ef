"""Organisations: FINESS, SIREN, SIRET, and the national identifier that contains one of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from gateway.identifiers.faults import compact
from gateway.identifiers.keys import luhn_valid
from gateway.identifiers.written import Written

__all__ = ["Finess", "IdNatSt", "Siren", "Siret"]

_FINESS = re.compile(r"(?:[0-9]{2}|2[AB])[0-9]{7}", re.ASCII)
_SIREN = re.compile(r"[0-9]{9}", re.ASCII)
_SIRET = re.compile(r"[0-9]{14}", re.ASCII)
_IDNST = re.compile(r"[0-9][0-9A-Z]{1,31}", re.ASCII)
_LA_POSTE = "356000000"


@dataclass(frozen=True, slots=True)
class Finess(Written):
    """A health organisation, legal or geographic entity: 9 characters, Luhn [spec annuaire §3, §8].

    Faults: ``finess-forme``, ``finess-cle``, ``finess-lettre``. The last one, that the key of a Corsican number (2A,
    2B) cannot be verified, is accepted in forms and flagged from a wire.
    """

    accepted_in_forms = frozenset({"finess-lettre"})

    @classmethod
    def from_wire(cls, value: str) -> Self:
        """Read 9 characters, or the 10 of the national identifier that stand for them; name what is wrong."""
        number = compact(value)
        if len(number) == 10 and number.startswith("1"):
            number = number[1:]
        if not _FINESS.fullmatch(number):
            return cls(number, ("finess-forme",))
        if not number.isdigit():
            return cls(number, ("finess-lettre",))
        return cls(number, () if luhn_valid(number) else ("finess-cle",))

    @property
    def idnst(self) -> str:
        """The national identifier of 10 characters that CDA and HL7 v2 use."""
        return "1" + self.value


@dataclass(frozen=True, slots=True)
class Siren(Written):
    """A legal unit: 9 digits, Luhn. Faults: ``siren-forme``, ``siren-cle``."""

    @classmethod
    def from_wire(cls, value: str) -> Self:
        """Read 9 digits; name what is wrong."""
        number = compact(value)
        if not _SIREN.fullmatch(number):
            return cls(number, ("siren-forme",))
        return cls(number, () if luhn_valid(number) else ("siren-cle",))


@dataclass(frozen=True, slots=True)
class Siret(Written):
    """A place of a legal unit: its SIREN and five digits, Luhn; La Poste's own places follow another rule.

    Faults: ``siret-forme``, ``siret-cle``.
    """

    @classmethod
    def from_wire(cls, value: str) -> Self:
        """Read 14 digits; name what is wrong."""
        number = compact(value)
        if not _SIRET.fullmatch(number):
            return cls(number, ("siret-forme",))
        by_sum = number.startswith(_LA_POSTE) and sum(map(int, number)) % 5 == 0
        return cls(number, () if luhn_valid(number) or by_sum else ("siret-cle",))

    @property
    def siren(self) -> Siren:
        """The legal unit."""
        return Siren.from_wire(self.value[:9])


@dataclass(frozen=True, slots=True)
class IdNatSt(Written):
    """National identifier of a structure: one digit that says what the number is (TRE_G07), then the number.

    Faults: ``idnst-forme``, and those of the number it holds.
    """

    accepted_in_forms = Finess.accepted_in_forms

    @classmethod
    def from_wire(cls, value: str) -> Self:
        """Read it; name what is wrong with it or with the number it holds."""
        number = compact(value)
        if not _IDNST.fullmatch(number):
            return cls(number, ("idnst-forme",))
        held = _HELD.get(number[0])
        return cls(number, held.from_wire(number[1:]).faults if held else ())

    @property
    def type_code(self) -> str:
        """Code of TRE_G07: what the number is."""
        return self.value[:1]

    @property
    def finess(self) -> Finess | None:
        """The FINESS it holds, with its faults; None for any other kind of number."""
        return Finess.from_wire(self.value[1:]) if self.type_code == "1" else None

    @property
    def siret(self) -> Siret | None:
        """The SIRET it holds, with its faults; None for any other kind of number."""
        return Siret.from_wire(self.value[1:]) if self.type_code == "3" else None


_HELD: dict[str, type[Finess | Siren | Siret]] = {"1": Finess, "2": Siren, "3": Siret}
