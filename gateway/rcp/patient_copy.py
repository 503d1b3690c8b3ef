"""The patient's own copy of a report, in Mon espace santé: to which address, and whether at all.

Promises: an address is made from a qualified INS of this environment alone, so that a trial never writes to a real
person nor a wrong number to somebody else; nothing that is flagged `INVISIBLE_PATIENT` goes to him; a first copy goes
only where the RCP chose so; whoever holds a copy learns that it is no longer valid, at the address that got it, and
gets the version that replaces it when the patient's identity still says that address.

[spec mssante 2.10, 2.12, 6.1, 6.2]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from gateway.identifiers import Ins, InsAuthority, MssanteAddress
from gateway.model.dossier import Dossier
from gateway.model.message import Message
from gateway.model.person import PatientRecord
from gateway.rcp.report_content import HIDDEN_FROM_PATIENT, ReportContent

__all__ = ["COPY", "NOTICE", "TO_PATIENT", "address_for", "copies", "patient_address"]

#: The letter that brings the document; the one that says it is no longer valid, which carries none.
COPY: Final = "M6p"
NOTICE: Final = "M6pr"
TO_PATIENT: Final = frozenset({COPY, NOTICE})
_MATRICULE_CHARS: Final = 15
#: Who may have given the INS that an address is made of, in production or not.
_AUTHORITIES: Final = {
    True: frozenset({InsAuthority.NIR, InsAuthority.NIA}),
    False: frozenset({InsAuthority.TEST, InsAuthority.DEMONSTRATION}),
}
#: A mail in one of these states left nothing at its address.
_NOT_HAD: Final = frozenset({"annule", "refuse", "rejete"})


def patient_address(record: PatientRecord, *, production: bool) -> str | None:
    """Return the patient's mailbox, or None when no qualified INS gives it.

    Parameters
    ----------
    production
        Whether real people are written to; else test identities alone.

    Notes
    -----
    The address is fifteen digits: no source says how the matricule of somebody born in Corsica (2A, 2B) is written in
    one, so that none is made of it.
    """
    if not (record.active and record.ins_qualified and record.ins_value and record.ins_system):
        return None
    ins = Ins.from_wire(record.ins_value, record.ins_system)
    digits = len(ins.value) == _MATRICULE_CHARS and ins.value.isascii() and ins.value.isdigit()
    traits = record.birth_family and record.given and record.birth_date and record.sex in {"F", "M"}
    if ins.faults or ins.authority not in _AUTHORITIES[production] or not digits or not traits:
        return None
    return f"{ins.value}@{MssanteAddress.PATIENTS}"


def address_for(dossier: Dossier, content: ReportContent, held: Iterable[str], *, production: bool) -> str | None:
    """Return where a version goes to the patient, or None when it does not.

    Parameters
    ----------
    held
        Addresses that hold a copy of an earlier version: there the next one goes whatever the RCP chooses by now.
    """
    rcp = dossier.session.rcp
    if dossier.opposed_at is not None or rcp.fictive or HIDDEN_FROM_PATIENT in content.visibility:
        return None
    address = patient_address(dossier.record, production=production)
    # What the document says of him must be what it is addressed by.
    ins = content.patient.ins if content.patient.ins_qualified else None
    if address is None or ins is None or address != f"{ins.extension}@{MssanteAddress.PATIENTS}":
        return None
    return address if rcp.notification.get("patient") or address in set(held) else None


def copies(letters: Iterable[Message]) -> Mapping[str, tuple[Message, ...]]:
    """Return the addresses that hold a copy, with the letters that each got.

    Parameters
    ----------
    letters
        All `COPY` and `NOTICE` of a dossier, oldest first.
    """
    found: dict[str, tuple[Message, ...]] = {}
    for letter in letters:
        if letter.recipient and letter.state not in _NOT_HAD:
            found[letter.recipient] = (*found.get(letter.recipient, ()), letter)
    return {address: got for address, got in found.items() if got[-1].kind == COPY}
