"""The bytes of large Binaries: in the blob store, named in the stored resource by a mark.

[FHIR R4 binary; DESIGN §4: more than 64 KiB never goes into PostgreSQL]

Promises: the ``data`` that a client sent comes back character by character; what stands in the database says only under
which SHA-256 it is kept. Pure but for the store that it is given, and the
transaction whose row names what is kept.
"""

from __future__ import annotations

import re

from sqlalchemy.orm import Session

from gateway.exchange import pending
from gateway.exchange.blobs import BlobStore
from gateway.fhir.document import Tree

__all__ = ["LARGE_CHARS", "aside", "filled", "mark_in"]

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
