"""Binary and DocumentReference: bytes that a client keeps here, and what he says of them.

[FHIR R4 binary, documentreference, datatypes#Attachment; spec fhir-fr 1.19]

Promises: a Binary is shown to whoever may see what its ``securityContext`` names, else the DocumentReference that names
it, and always to its own organisation; bytes
above 64 KiB stand in the blob store; what a DocumentReference says of the bytes that it carries or names here (size,
SHA-1) is true, or refused. Not promised: anything of bytes that stand elsewhere.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from sqlalchemy import LargeBinary, func, literal, not_, or_, select, update

from gateway.errors import Conflict, InvalidContent
from gateway.fhir import binaries, document, write_received
from gateway.fhir.keeping import Owner, current
from gateway.fhir.write_kept import keep_as_sent, keep_for
from gateway.fhir.writing import Operation, Writing
from gateway.model.representation import TABLES
from gateway.rcp import access

__all__ = ["write_binary", "write_document"]


def write_binary(writing: Writing, operation: Operation) -> None:
    """Keep a Binary, its bytes aside when they are large.

    Raises
    ------
    InvalidContent
        ``contexte-inconnu`` (rule): its ``securityContext`` names nothing that exists for the caller.
    Conflict
        ``document-recu``: other bytes under a document that was received.
    """
    _require_no_received(writing, operation)
    context = _context(writing, operation)
    owner = Owner(
        partner_id=writing.partner.id,
        record_id=context.record_id if context is not None else None,
        dossier_id=context.dossier_id if context is not None else None,
    )
    stored = binaries.aside(operation.tree, writing.step.session, writing.ports.blobs)
    found = keep_for(writing, operation, stored, owner)
    if stored is not operation.tree:
        whole = binaries.filled(found.body, operation.tree["data"].encode("ascii"))
        writing.kept["Binary", found.id] = found._replace(body=whole)


def _require_no_received(writing: Writing, operation: Operation) -> None:
    """Refuse other bytes where a received document of a patient names these: it would say what nobody sent."""
    before, table = operation.before, TABLES["DocumentReference"]
    if before is None or before.deleted or before.record_id is None:
        return
    if _kept_bytes(writing, before) == b64decode(operation.tree.get("data", "")):
        return
    needles = (f'"{base}Binary/{before.id}"'.encode() for base in ("", f"{writing.base_url}/"))
    named = select(table.c.id).where(
        table.c.record_id == before.record_id,
        table.c.current,
        table.c.root_kind == "ReceivedDocument",
        or_(*(func.position(literal(one, LargeBinary()).op("IN")(table.c.body)) > 0 for one in needles)),
    )
    if writing.step.session.scalars(named.limit(1)).first() is not None:
        text = "Ces octets sont ceux d’un document reçu, qui ne change pas."
        raise Conflict("document-recu", text, expression="Binary.data")


def _context(writing: Writing, operation: Operation) -> Any | None:
    said = operation.tree.get("securityContext")
    reference = said.get("reference") if isinstance(said, Mapping) else None
    if reference is None:
        return None
    named = writing.local(str(reference))
    row = _row(writing, *named) if named is not None else None
    if row is None and named is not None and f"{named[0]}/{named[1]}" in writing.trees:
        return None  # it is written by this very transaction, and names the Binary in its turn
    if row is None:
        text = "Le contexte de sécurité (securityContext) ne désigne aucune ressource connue de cet établissement."
        raise InvalidContent("contexte-inconnu", text, expression="Binary.securityContext", rule=True)
    return row


def _row(writing: Writing, kind: str, key: str) -> Any | None:
    table = TABLES[kind]
    return writing.step.session.execute(
        select(table).where(
            table.c.id == key,
            table.c.current,
            not_(table.c.deleted),
            access.representations(writing.step.caller, table),
        )
    ).one_or_none()


def write_document(writing: Writing, operation: Operation) -> None:
    """Keep a DocumentReference whose attachments are what they say; a CDA is taken as if it were mailed.

    Raises
    ------
    InvalidContent
        ``piece-jointe-absente``, ``piece-jointe-taille``, ``piece-jointe-empreinte`` (rules), and what
        `gateway.fhir.write_received` refuses.
    """
    attached = [
        (f"DocumentReference.content[{index}].attachment", part.get("attachment", {}))
        for index, part in enumerate(operation.tree.get("content", ()))
    ]
    at_hand = [(where, said, _judged(writing, said, where)) for where, said in attached]
    brought = write_received.cda_among(at_hand)
    shown: Any
    if write_received.is_received(operation) or (
        brought is not None and operation.tree["status"] != "entered-in-error"
    ):
        shown = write_received.take(writing, operation, brought)
    else:
        keep_as_sent(writing, operation)
        shown = current(writing.step.session, "DocumentReference", str(operation.identity))
    for _, said in attached:
        named = writing.local(str(said.get("url", "")))
        if named is not None and named[0] == "Binary" and shown is not None:
            _show_with(writing, operation, named[1], (shown.record_id, shown.dossier_id))


def _show_with(writing: Writing, operation: Operation, key: str, shown: tuple[Any, Any]) -> None:
    """Show the bytes that a document names to whoever may see the document, unless they name another context."""
    binary = current(writing.step.session, "Binary", key)
    if binary is None or binary.partner_id != writing.partner.id or binary.root_kind:
        return
    said = document.decode(binary.body).get("securityContext", {}).get("reference")
    if said in {None, f"DocumentReference/{operation.identity}"} and shown != (binary.record_id, binary.dossier_id):
        table = TABLES["Binary"]
        values = {"record_id": shown[0], "dossier_id": shown[1]}
        writing.step.session.execute(update(table).where(table.c.id == key, table.c.current).values(**values))


def _judged(writing: Writing, said: Mapping[str, Any], where: str) -> bytes | None:
    """The bytes of an attachment that are at hand, once they are what is said of them."""
    content = _bytes(writing, said, where)
    if content is None:
        return None
    if "size" in said and said["size"] != len(content):
        text = f"La pièce jointe compte {len(content)} octets, et non ceux que dit sa taille."
        raise InvalidContent("piece-jointe-taille", text, expression=f"{where}.size", rule=True)
    digest = b64encode(hashlib.sha1(content, usedforsecurity=False).digest()).decode("ascii")
    if "hash" in said and "".join(said["hash"].split()) != digest:
        text = "L’empreinte (SHA-1) n’est pas celle de la pièce jointe."
        raise InvalidContent("piece-jointe-empreinte", text, expression=f"{where}.hash", rule=True)
    return content


def _bytes(writing: Writing, said: Mapping[str, Any], where: str) -> bytes | None:
    """The bytes of an attachment that are at hand: its own, or those of a Binary here."""
    if isinstance(said.get("data"), str):
        return b64decode(said["data"])
    named = writing.local(str(said.get("url", "")))
    if named is None or named[0] != "Binary":
        return None
    tree = writing.trees.get(f"Binary/{named[1]}")
    if tree is not None:
        return b64decode(tree.get("data", ""))
    row = _row(writing, *named)
    if row is None:
        text = "La pièce jointe désigne un Binary inconnu de cet établissement."
        raise InvalidContent("piece-jointe-absente", text, expression=f"{where}.url", rule=True)
    return _kept_bytes(writing, row)


def _kept_bytes(writing: Writing, row: Any) -> bytes | None:
    blobs = writing.ports.blobs
    if row.root_kind in binaries.OWN:
        own = writing.step.session.execute(binaries.kept(row.root_kind, row.root_id)).first()
        return blobs.read(own.sha256) if blobs is not None and own is not None else None
    key = binaries.mark_in(row.body)
    if key is not None:
        return b64decode(blobs.read(key)) if blobs is not None else None
    return b64decode(document.decode(row.body).get("data", ""))
