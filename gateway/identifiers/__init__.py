"""Identifiers as values: parsed or refused, never bare strings.

Each type has two ways in. ``parse`` is for forms and for what we write ourselves: it refuses (`InvalidContent`, a
stable code, a French text without the value). ``from_wire`` is for what others send: it always answers, and says in
``faults`` what is wrong, with the same codes; what carries a fault is kept and shown as flagged, and is never used as
proof of who somebody is. [DECISIONS 9; spec annuaire §8]

Promises: frozen, hashable, equal by meaning; ``repr`` and ``str`` of what identifies a patient show at most its last
four characters, so that a value slipped into a log names nobody.

Not promised: that a number was ever issued, or belongs to whom it is said to.

Reading order: `faults`, `keys`, `written`, then one module a family: `ins`, `professionals`, `structures`, `patients`,
`numbers`, `references`, and `systems` for what FHIR, HL7 v2 and CDA call each of them.
"""

from gateway.identifiers.ins import Ins, InsAuthority
from gateway.identifiers.numbers import Oid, Uid, Urn, uuid7
from gateway.identifiers.patients import Ipp
from gateway.identifiers.professionals import IdNatPs, MssanteAddress, Rpps
from gateway.identifiers.references import DossierReference
from gateway.identifiers.structures import Finess, IdNatSt, Siren, Siret
from gateway.identifiers.systems import SYSTEMS, IdentifierSystem, system_named

__all__ = [
    "SYSTEMS",
    "DossierReference",
    "Finess",
    "IdNatPs",
    "IdNatSt",
    "IdentifierSystem",
    "Ins",
    "InsAuthority",
    "Ipp",
    "MssanteAddress",
    "Oid",
    "Rpps",
    "Siren",
    "Siret",
    "Uid",
    "Urn",
    "system_named",
    "uuid7",
]
