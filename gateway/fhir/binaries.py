"""The bytes of Binaries in the blob store: large ones, named in the resource by a mark, and the gateway's documents.

[FHIR R4 binary; DESIGN §4: more than 64 KiB never goes into PostgreSQL]

Promises: the ``data`` that a client sent comes back character by character; what stands in the database says only under
which SHA-256 it is kept; a document of the gateway is kept once, and its Binary gives its very bytes. Pure but for the
store that it is given, and the transaction whose row names what is kept.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Select, literal, select
from sqlalchemy.orm import Session

from gateway.documents import pps
from gateway.exchange import pending
from gateway.exchange.blobs import BlobStore
from gateway.fhir.document import Tree
from gateway.model.plan import CarePlan
from gateway.model.report import ReportForm

__all__ = ["LARGE_CHARS", "OWN", "aside", "filled", "kept", "mark_in"]

#: What stands behind the Binary of a document of the gateway → where its bytes are, and of which kind.
OWN: Final[Mapping[str, tuple[Any, Any, Any]]] = {
    "ReportForm": (ReportForm.id, ReportForm.sha256, ReportForm.content_type),
    "CarePlan": (CarePlan.id, CarePlan.sha256, literal(pps.MIME_TYPE)),
}

#: Text of ``data`` above which it is kept aside.
LARGE_CHARS = 64 * 1024
#: No base64 text holds a colon, and no text of JSON an unescaped quotation mark.
_MARK = "blob:"
_FOUND = re.compile(rb'"data":"blob:([0-9a-f]{64})"')


def aside(tree: Tree, session: Session, blobs: BlobStore | None) -> Tree:
    """Keep a large ``data`` in the blob store; the tree that names it, or the tree itself."""
    data = tree.get("data")
    if blobs is None or not isinstance(data, str) or len(data) <= LARGE_CHARS:
        return tree
    return tree | {"data": _MARK + pending.keep(session, blobs, data.encode("ascii")).sha256}


def mark_in(body: bytes) -> str | None:
    """SHA-256 of the ``data`` that stored bytes name; none when they hold it themselves."""
    found = _FOUND.search(body)
    return found.group(1).decode("ascii") if found else None


def filled(body: bytes, data: bytes) -> bytes:
    """Put ``data`` into stored bytes, in the place of its mark."""
    return _FOUND.sub(lambda _: b'"data":"' + data + b'"', body, count=1)


def kept(root_kind: str, root_id: uuid.UUID) -> Select[tuple[str, str]]:
    """Ask for ``sha256`` and ``content_type`` of a document of the gateway (`OWN`)."""
    key, sha256, content_type = OWN[root_kind]
    return select(sha256.label("sha256"), content_type.label("content_type")).where(key == root_id)
