"""What an error becomes for a DICOM peer: a DIMSE status with its Error Comment.

DICOMweb answers by the table of all HTTP wires, `gateway.web.outcome`.

Promises: total over the categories of `gateway.errors` (a test walks the tree); a comment is ASCII, 64 characters at
most, and carries a stable code, never a patient's datum. Does not decide anything.
"""

from __future__ import annotations

import errno
import traceback
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Final

from gateway.dicom.command import Answer
from gateway.errors import Fault, GatewayError, InvalidContent, Unavailable

__all__ = ["DIMSE_STATUS", "answer", "as_gateway_error", "warning", "where"]

# Category → status of a C-STORE-RSP [PS3.4 B.2.3] [PS3.7 C]. 0x0111 is PS3.7's general « duplicate SOP instance ».
DIMSE_STATUS: Final[dict[str, int]] = {
    "invalid-content": 0xC000,  # Error: Cannot understand
    "unknown-identity": 0x0124,  # Refused: Not authorized
    "not-found": 0x0112,  # No such SOP Instance
    "forbidden": 0x0124,
    "conflict": 0x0111,  # Duplicate SOP Instance
    "unsupported": 0x0122,  # Refused: SOP Class not supported
    "unavailable": 0xA700,  # Refused: Out of resources; the sender may try again
    "fault": 0x0110,  # Processing failure
}

# InvalidContent(rule=True): readable, but against what its SOP class promises.
_AGAINST_A_RULE: Final = 0xA900  # Error: Data Set does not match SOP Class

# What is kept under the UID differs from what was sent; the nearest of the warnings of a C-STORE-RSP [PS3.4 B.2.3].
_COERCED: Final = 0xB000

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def as_gateway_error(error: BaseException) -> GatewayError:
    """Give any exception its place in the tree: what the system lacks is `Unavailable`, the unforeseen `Fault`."""
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _NO_ROOM):
        return Unavailable("storage-full", "L’espace de stockage de la passerelle est épuisé ; renvoyer plus tard.")
    return Fault("internal-error", "Défaut interne de la passerelle.")


def _ascii(text: str) -> str:
    folded = unicodedata.normalize("NFKD", text.replace("’", "'").replace("œ", "oe"))
    return " ".join(folded.encode("ascii", "ignore").decode("ascii").split())


def answer(error: BaseException) -> Answer:
    """Return the DIMSE status and Error Comment (0000,0902) that tell a sender of `error`."""
    known = as_gateway_error(error)
    status = DIMSE_STATUS[known.category]
    if isinstance(known, InvalidContent) and known.rule:
        status = _AGAINST_A_RULE
    # The code first: it is what an integrator searches for, and it is never cut.
    return Answer(status, _ascii(f"{known.code}: {known.text}")[:64].rstrip())


def warning(error: GatewayError) -> Answer:
    """Tell a sender that its object stands aside, without an error that would stop what it sends."""
    return replace(answer(error), status=_COERCED)


def where(error: BaseException) -> str:
    """Name an error for the log by its code or type and the line that raised it: messages may quote a patient."""
    name = error.code if isinstance(error, GatewayError) else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    return f"{name} ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else name
