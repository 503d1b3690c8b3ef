"""The PACS of the demonstration: a DICOM storage user (pynetdicom), as a modality would send [PS3.4 B]."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE

from gateway.demo.narration import NotSeen

__all__ = ["send"]

_VERIFICATION = "1.2.840.10008.1.1"
_SUCCESS = 0x0000


def send(paths: Sequence[Path], *, calling: str, called: str, host: str, port: int) -> list[int]:
    """Verify the association, then store each object; return the statuses.

    Raises
    ------
    NotSeen
        The association was refused, or an object was not stored.
    """
    entity = AE(ae_title=calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 120
    entity.add_requested_context(_VERIFICATION)
    entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = entity.associate(host, port, ae_title=called)
    if not association.is_established:
        raise NotSeen("Association DICOM", "l’association a été refusée")
    statuses = []
    try:
        echoed = association.send_c_echo()
        if echoed.get("Status") != _SUCCESS:
            raise NotSeen("C-ECHO", f"statut {echoed.get('Status')}")
        for path in paths:
            answer = association.send_c_store(dcmread(path))
            status = answer.get("Status")
            if status != _SUCCESS:
                shown = "sans réponse" if status is None else f"statut 0x{status:04X} {answer.get('ErrorComment', '')}"
                raise NotSeen(f"C-STORE de {path.name}", shown)
            statuses.append(int(status))
    finally:
        association.release()
    return statuses
