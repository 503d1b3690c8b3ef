"""What the sender of a message is told: a total table from what went wrong to MSA-1 and ERR, and the ACK itself.

Promises: AA means kept and done, AE that the same message will be refused again, AR that nothing was done and the same
message may come again; each refusal says where (ERR-2), which condition of table 0357 it is (ERR-3) and, when it
concerns the document and not the message, which integration error (ERR-5, 900 to 906); ERR-8 has our stable code and
one French sentence without patient data. An ACK is a well-formed message whatever the original was.

Sources: [HL7 2.5.1 §2.15.5] (ERR), [HL7 2.5.1 §2.15.8] (MSA), spec mssante 3.7.
"""

from __future__ import annotations

import re
import secrets
import unicodedata
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal

from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.core import Message
from hl7apy.exceptions import HL7apyException
from msgspec import Struct

from gateway.errors import Fault, GatewayError
from gateway.hl7v2.segments import CHARSETS, Head
from gateway.rcp.received_codes import LABELS, error_code

__all__ = ["ACCEPTED", "Verdict", "ack", "of_reason", "verdict"]

Msa = Literal["AA", "AE", "AR"]

#: Table 0357, as far as it is used here.
_CONDITIONS: Final[Mapping[str, str]] = {
    "100": "Segment sequence error",
    "101": "Required field missing",
    "102": "Data type error",
    "103": "Table value not found",
    "198": "Non-Conformant Cardinality",
    "199": "Other HL7 error",
    "200": "Unsupported message type",
    "201": "Unsupported event code",
    "202": "Unsupported processing id",
    "203": "Unsupported version id",
    "207": "Application error",
}

#: Stable code → MSA-1 and condition, where HL7 has one of its own.
CODES: Final[Mapping[str, tuple[Msa, str]]] = {
    "hl7-sans-msh": ("AE", "100"),
    "hl7-un-seul-segment": ("AE", "100"),
    "hl7-segment-absent": ("AE", "100"),
    "hl7-champ-absent": ("AE", "101"),
    "hl7-separateurs": ("AE", "102"),
    "hl7-octets": ("AE", "102"),
    "hl7-type-de-donnee": ("AE", "102"),
    "hl7-jeu-de-caracteres": ("AE", "103"),
    "hl7-valeur": ("AE", "103"),
    "hl7-cardinalite": ("AE", "198"),
    "hl7-plusieurs-messages": ("AE", "199"),
    "hl7-trop-de-segments": ("AE", "199"),
    "hl7-trop-grand": ("AE", "199"),
    "hl7-incoherence": ("AE", "199"),
    "hl7-matrice": ("AE", "199"),
    "hl7-numero-repris": ("AE", "199"),
    "hl7-patient-different": ("AE", "199"),
    "hl7-document-different": ("AE", "199"),
    "hl7-message": ("AE", "200"),
    "hl7-evenement": ("AE", "201"),
    "hl7-traitement": ("AR", "202"),
    "hl7-version": ("AE", "203"),
}

#: Category of `gateway.errors` → the same, for whatever has no code above.
CATEGORIES: Final[Mapping[str, tuple[Msa, str]]] = {
    "invalid-content": ("AE", "207"),
    "unknown-identity": ("AE", "207"),
    "not-found": ("AE", "207"),
    "forbidden": ("AE", "207"),
    "conflict": ("AE", "207"),
    "unsupported": ("AE", "207"),
    "unavailable": ("AR", "207"),
    "fault": ("AR", "207"),
}

#: Integration errors that are about who the patient is.
_OF_PATIENT: Final = frozenset({"902", "903", "904", "905"})
#: Refusals of what every wire shares may name a place of another one.
_LOCATION: Final = re.compile(r"[A-Z][A-Z0-9]{2}(?:\^[0-9]+){0,5}")
_VERSIONS: Final = ("2.5", "2.6")
_PLAIN: Final = str.maketrans({"’": "'", "\u202f": " ", "\u00a0": " ", "–": "-", "…": "...", "œ": "oe", "Œ": "OE"})


class Verdict(Struct, frozen=True, kw_only=True):
    """What a sender is told.

    Attributes
    ----------
    condition, where
        ERR-3 and ERR-2; none with AA.
    integration
        ERR-5: what is wrong with the document (900 to 906).
    code, text
        Ours, in ERR-8.
    """

    msa: Msa
    condition: str | None = None
    where: str | None = None
    integration: str | None = None
    code: str | None = None
    text: str | None = None


ACCEPTED: Final = Verdict(msa="AA")


def verdict(error: BaseException) -> Verdict:
    """Say any refusal; what is no `GatewayError` is ours and its words are not repeated."""
    known = error if isinstance(error, GatewayError) else Fault("erreur-interne", "Erreur interne de la passerelle.")
    msa, condition = CODES.get(known.code, CATEGORIES[known.category])
    permanent = msa == "AE" and condition == "207"
    return Verdict(
        msa=msa,
        condition=condition,
        where=known.expression if _LOCATION.fullmatch(known.expression or "") else None,
        integration=error_code(known.code) if permanent else None,
        code=known.code,
        text=known.text,
    )


def of_reason(reason: str) -> Verdict:
    """Say why a document that was kept is not with its patient: its sender must not believe it to be (3.7)."""
    integration = error_code(reason) or "906"
    text = f"Document conservé, non intégré : {LABELS[integration]}."
    where = "PID^1^3" if integration in _OF_PATIENT else None
    return Verdict(msa="AE", condition="207", where=where, integration=integration, code=reason, text=text)


def ack(head: Head, told: Verdict, at: datetime) -> bytes:
    """Write the acknowledgement of a message.

    Parameters
    ----------
    head
        MSH of the original.
    at
        Aware instant, in the zone that MSH-7 shows.
    """
    codec = CHARSETS.get(head.charset, "ascii") if head.charset not in {"", "ASCII"} else "ascii"
    try:
        written = _written(head, told, at)
    except (
        HL7apyException
    ):  # of what the original says of itself, the library takes nothing: the verdict goes out alone
        written = _written(Head(control_id=head.control_id), told, at)
    return _as(codec, written).encode(codec, "replace") + b"\r"


def _written(head: Head, told: Verdict, at: datetime) -> str:
    version = next((one for one in _VERSIONS if head.version.startswith(one)), _VERSIONS[-1])
    made: Any = Message("ACK", version=version, validation_level=VALIDATION_LEVEL.TOLERANT)
    own, place, theirs, their_place = ("^".join(map(_escaped, one)).rstrip("^") for one in head.parties)
    fields = {
        3: theirs,
        4: their_place,
        5: own,
        6: place,
        7: at.strftime("%Y%m%d%H%M%S%z"),
        9: f"ACK^{event}^ACK" if (event := head.kind.partition("^")[2]) else "ACK",
        10: secrets.token_hex(9),
        11: _escaped(head.processing) or "P",
        12: _escaped(head.version) or version,
        17: _escaped(head.country),
        18: _escaped(head.charset),
    }
    for number, value in fields.items():
        if value:
            setattr(made.msh, f"msh_{number}", value)
    msa = made.add_segment("MSA")
    msa.msa_1, msa.msa_2 = told.msa, _escaped(head.control_id)
    if told.msa != "AA":
        _error(made.add_segment("ERR"), told)
    return str(made.to_er7())


def _error(err: Any, told: Verdict) -> None:
    condition = told.condition or "207"
    if told.where:
        err.err_2 = told.where
    err.err_3 = f"{condition}^{_CONDITIONS[condition]}^messageErrorCondition"
    err.err_4 = "E"
    if told.integration is not None:
        err.err_5 = f"{told.integration}^{_label(told.integration)}^applicationErrorCode"
    if told.code and told.text:
        err.err_8 = _escaped(f"{told.code} : {told.text}")


def _label(code: str) -> str:
    return LABELS[code][:1].upper() + LABELS[code][1:]


def _escaped(text: str) -> str:
    for mark, name in (("\\", "E"), ("|", "F"), ("^", "S"), ("&", "T"), ("~", "R")):
        text = text.replace(mark, f"\\{name}\\")
    return text


def _as(codec: str, text: str) -> str:
    """Fold our typography for who does not read UTF-8."""
    if codec == "utf-8":
        return text
    plain = text.translate(_PLAIN)
    return plain if codec != "ascii" else unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
