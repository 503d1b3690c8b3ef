"""The files beside a dossier, read from the model.

Promises: they are shown to whoever sees the dossier, by addresses that ask for rights again; who added one is named,
and he alone is offered to take it back.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy.orm import Session

from gateway.model.audit import AuditFacts
from gateway.model.dossier import Dossier
from gateway.portal import views as v
from gateway.portal import words
from gateway.portal.dossiers import visible_dossier
from gateway.rcp import access, attachments
from gateway.rcp.access import Caller
from gateway.rcp.ports import BroughtFiles
from gateway.settings import Limits

__all__ = ["attachments_page", "dossier_files", "octets"]

_KINDS: Final = {"png": "Image PNG", "jpeg": "Image JPEG", "gif": "Image GIF", "pdf": "PDF"}
_ACCEPTED: Final = ".png,.jpg,.jpeg,.gif,.pdf,.dcm,image/png,image/jpeg,image/gif,application/pdf,application/dicom"


def octets(size: int) -> str:
    """Say a size as people read it."""
    if size < 1024 * 1024:
        return f"{max(1, round(size / 1024))} Kio"
    return f"{size / 1024 / 1024:.1f} Mio".replace(".", ",")


def dossier_files(
    session: Session, caller: Caller, row: Dossier, brought: BroughtFiles | None, *, removable: bool = False
) -> v.Attachments:
    """Return the files of a dossier that the caller sees: those that people laid there, then those of softwares."""
    editable = attachments.may_add(session, caller, row)
    base = f"/dossiers/{row.id}/pieces"
    files = tuple(
        v.AttachedFile(
            name=one.title or "document",
            kind=_KINDS[one.format],
            size=octets(one.size_bytes),
            by=words.titled(one.author or ""),
            at=words.local(one.received_at, row.session.zone),
            url=f"{base}/{one.id}.{one.format}",
            picture=one.format != "pdf",
            remove_url=f"{base}/{one.id}/retirer"
            if removable and editable and one.sender == str(caller.practitioner_id)
            else "",
        )
        for one in attachments.listed(session, row)
    )
    sent = tuple(
        v.AttachedFile(
            name=one.name,
            kind=_KINDS[one.kind],
            size="",
            by=one.by,
            at=words.local(one.at, row.session.zone),
            url=f"/dossiers/{row.id}/pieces-recues/{one.key}.{one.kind}",
            picture=one.kind != "pdf",
        )
        for one in (brought.listed(session, row) if brought is not None else ())
    )
    return v.Attachments((*files, *sent), base if editable and not removable else "")


def attachments_page(
    session: Session,
    caller: Caller,
    dossier_id: uuid.UUID,
    limits: Limits,
    errors: Mapping[str, str],
    brought: BroughtFiles | None = None,
    sent: Sequence[v.SentFile] = (),
) -> tuple[v.AttachmentsPage, list[AuditFacts]]:
    """Return the page on which files are added and taken back.

    Parameters
    ----------
    sent
        What became of each file of a form of which not all was kept.

    Raises
    ------
    NotFound
        The dossier does not exist for the caller, or he reads it only.
    """
    row = visible_dossier(session, caller, dossier_id)
    if not attachments.may_add(session, caller, row):
        raise access.hidden(caller, "Dossier", dossier_id)
    page = v.AttachmentsPage(
        reference=row.reference,
        patient=words.patient_view(row.record, row.registered_at.date(), row.partner.name if row.partner else ""),
        attachments=dossier_files(session, caller, row, brought, removable=True),
        back_url=f"/dossiers/{row.id}",
        action=f"/dossiers/{row.id}/pieces",
        accepted=_ACCEPTED,
        limit=octets(limits.attachment_bytes),
        most=limits.attachment_files,
        sent=tuple(sent),
        errors=dict(errors),
    )
    line = access.facts(
        caller, "consultation", persons=(row.record_id,), dossier=row.id, object_type="Dossier", object_id=str(row.id)
    )
    return page, [line]
