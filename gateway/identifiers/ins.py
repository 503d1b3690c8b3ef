"""INS: the national identity of a patient, with the authority that gave it.

An INS is the pair (matricule, authority): the same 15 characters under the test authority are another identity.
[CI-SIS INS; FR Core patient-INS; spec annuaire §8, §9]
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, Self

from gateway.identifiers.faults import compact, refuse_if
from gateway.identifiers.keys import nir_key

__all__ = ["Ins", "InsAuthority"]

Environment = Literal["production", "test", "demonstration"]

_FORM = re.compile(r"[1-8][0-9]{4}(?:[0-9]{2}|2[AB])[0-9]{6}(?P<key>[0-9]{2})?", re.ASCII)
_ROOT = "1.2.250.1.213.1.4"


class InsAuthority(Enum):
    """Who assigned a matricule: OID, nature, environment, FHIR ``identifier.type`` and ``use``.

    [FR Core patient-INS; spec fhir-fr 0.4]
    """

    NIR = (f"{_ROOT}.8", "production", "INS-NIR", "official")
    NIA = (f"{_ROOT}.9", "production", "INS-NIA", "temp")
    TEST = (f"{_ROOT}.10", "test", "INS-NIR-TEST", "official")
    DEMONSTRATION = (f"{_ROOT}.11", "demonstration", "INS-NIR-DEMO", "official")
    CALCULATED = (f"{_ROOT}.2", "production", "INS-C", "secondary")

    @property
    def oid(self) -> str:
        """OID of the authority."""
        return self.value[0]

    @property
    def environment(self) -> Environment:
        """Where its matricules may be met: real people in ``production`` only."""
        return self.value[1]

    @property
    def identifier_type(self) -> str:
        """FHIR ``identifier.type`` code, in fr-core-cs-v2-0203."""
        return self.value[2]

    @property
    def use(self) -> str:
        """FHIR ``identifier.use``."""
        return self.value[3]

    @property
    def system(self) -> str:
        """FHIR ``identifier.system``."""
        return f"urn:oid:{self.oid}"

    @property
    def namespace(self) -> str:
        """Assigning authority name in HL7 v2 (CX-4.1) and CDA."""
        return "ASIP-SANTE-INS-NIA" if self is InsAuthority.NIA else "ASIP-SANTE-INS-NIR"

    @classmethod
    def of(cls, system: str) -> InsAuthority | None:
        """Return the authority that an OID, bare or as ``urn:oid:``, names; None when it names none."""
        return _BY_OID.get(system.strip().removeprefix("urn:oid:"))


_BY_OID = {authority.oid: authority for authority in InsAuthority}


@dataclass(frozen=True, slots=True, repr=False)
class Ins:
    """One INS.

    Parameters
    ----------
    value
        15 characters, key included (13 when it came without).
    authority
        None when what came names no authority that exists.
    faults
        Empty when the INS may be used as proof of identity; see `qualifiable`.
    """

    value: str
    authority: InsAuthority | None
    faults: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def parse(cls, value: str, system: str | InsAuthority, *, expression: str | None = None) -> Self:
        """Read what a person typed, or refuse.

        Raises
        ------
        InvalidContent
            ``ins-forme``, ``ins-sans-cle``, ``ins-cle``, ``ins-autorite``, ``ins-obsolete``.
        """
        read = cls.from_wire(value, system)
        refuse_if(read.faults, expression=expression)
        return read

    @classmethod
    def from_wire(cls, value: str, system: str | InsAuthority) -> Self:
        """Read what another system sent; whatever it is, it is kept and its faults are named."""
        authority = system if isinstance(system, InsAuthority) else InsAuthority.of(system)
        matricule = compact(value)
        return cls(matricule, authority, tuple(_faults(matricule, authority)))

    @property
    def number(self) -> str:
        """The 13 characters before the key."""
        return self.value[:13]

    @property
    def key(self) -> str | None:
        """The two digits of the key, None when it came without."""
        return self.value[13:] or None

    @property
    def qualifiable(self) -> bool:
        """Whether a qualified identity may rest on it: nothing is wrong with it [DECISIONS 9]."""
        return not self.faults

    @property
    def oid(self) -> str | None:
        """OID of the authority, None when unknown."""
        return self.authority and self.authority.oid

    @property
    def system(self) -> str | None:
        """FHIR ``identifier.system``, None when the authority is unknown."""
        return self.authority and self.authority.system

    def __repr__(self) -> str:
        """Show the last four characters only: an INS must not reach a log."""
        nature = self.authority.identifier_type if self.authority else "INS?"
        shown = self.value[-4:] if len(self.value) > 8 else ""
        flagged = f" {','.join(self.faults)}" if self.faults else ""
        return f"<{nature} …{shown}{flagged}>"

    __str__ = __repr__


def _faults(matricule: str, authority: InsAuthority | None) -> list[str]:
    faults = []
    if authority is None:
        faults.append("ins-autorite")
    elif authority is InsAuthority.CALCULATED:
        return ["ins-obsolete"]  # 22 digits of another construction: neither its form nor its key can be judged
    form = _FORM.fullmatch(matricule)
    if form is None:
        faults.append("ins-forme")
    elif form["key"] is None:
        faults.append("ins-sans-cle")
    elif form["key"] != nir_key(matricule[:13]):
        faults.append("ins-cle")
    return faults
