"""Pictures and PDFs that a software brought as DocumentReferences of a dossier.

The port `gateway.rcp.ports.BroughtFiles`. [FHIR R4 documentreference, datatypes#Attachment] Promises: what its sender
tied to the dossier itself, in his words and bytes; not what he says of the patient beside it, nor what was entered in
error. Bytes that stand elsewhere are not fetched. Not promised: that bytes are what their type says; whoever shows them
judges them.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator, Mapping
from typing import Any, Final

from sqlalchemy import not_, select
from sqlalchemy.orm import Session

from gateway.exchange.blobs import BlobStore
from gateway.fhir import binaries, document
from gateway.model.dossier import Dossier
from gateway.model.partner import Partner
from gateway.model.representation import TABLES
from gateway.rcp.attachments import KINDS
from gateway.rcp.ports import BroughtFile

__all__ = ["AttachedFiles"]

_SHOWN: Final = 50
_FORMATS: Final[Mapping[str, str]] = {media: kind for kind, media in KINDS.items()}
_WITHDRAWN: Final = "entered-in-error"


class AttachedFiles:
    """Reads the stored representations."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    def listed(self, session: Session, dossier: Dossier) -> tuple[BroughtFile, ...]:
        """Name the files of a dossier, the latest first."""
        return tuple(one for one, _, _ in self._found(session, dossier))

    def read(self, session: Session, dossier: Dossier, key: str) -> bytes | None:
        """Give the bytes of one of them; none when there is no such file, or its bytes stand elsewhere."""
        for one, said, row in self._found(session, dossier):
            if one.key == key:
                return self._bytes(session, said, row)
        return None

    def _found(self, session: Session, dossier: Dossier) -> Iterator[tuple[BroughtFile, Mapping[str, Any], Any]]:
        table = TABLES["DocumentReference"]
        rows = session.execute(
            select(table, Partner.name)
            .outerjoin(Partner, Partner.id == table.c.partner_id)
            .where(
                table.c.dossier_id == dossier.id, table.c.current, not_(table.c.deleted), table.c.root_kind.is_(None)
            )
            .order_by(table.c.updated_at.desc(), table.c.id)
            .limit(_SHOWN)
        )
        for row in rows:
            tree = document.decode(row.body)
            if tree.get("status") == _WITHDRAWN:
                continue
            for index, part in enumerate(tree.get("content", ())):
                said = part.get("attachment", {})
                kind = _FORMATS.get(str(said.get("contentType", "")).partition(";")[0].strip().lower())
                if kind is None or not ("data" in said or str(said.get("url", "")).startswith("Binary/")):
                    continue
                yield (
                    BroughtFile(
                        key=f"{row.id}~{index}",
                        name=str(said.get("title") or tree.get("description") or "document"),
                        kind=kind,
                        at=row.updated_at,
                        by=row.name or "",
                    ),
                    said,
                    row,
                )

    def _bytes(self, session: Session, said: Mapping[str, Any], owner: Any) -> bytes | None:
        if isinstance(said.get("data"), str):
            return b64decode(said["data"])
        table = TABLES["Binary"]
        key = str(said.get("url", "")).removeprefix("Binary/").partition("/")[0]
        row = session.execute(
            select(table.c.body).where(
                table.c.id == key,
                table.c.current,
                not_(table.c.deleted),
                table.c.partner_id == owner.partner_id,
                # A document of the gateway's own has its own addresses.
                table.c.root_kind.is_(None),
            )
        ).one_or_none()
        if row is None:
            return None
        mark = binaries.mark_in(row.body)
        return b64decode(self._blobs.read(mark) if mark is not None else document.decode(row.body).get("data", ""))
