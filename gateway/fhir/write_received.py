"""A CDA that a software brings as a DocumentReference: whose it is, by its header and not by what is said beside it.

[FHIR R4 documentreference; IHE MHD ITI-65; spec cda-frcp 6, mssante 5.8, 6.1]

Promises: the same rules as for a mail (`gateway.rcp.received`): kept with its bytes, attached by INS or local number if
the strict traits agree, else it waits for a person; until then it is shown to its own organisation alone, and says why
(`translate.received.WAITING`). What the DocumentReference says against its own document (patient, identifier, version
that it replaces) is refused at once, as is XML that would be followed anywhere. Bytes never change: another document is
another resource. Not promised: conformity of the CDA; anything of bytes that stand elsewhere.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from gateway.documents import cda_header, safe_xml
from gateway.errors import Conflict, Forbidden, InvalidContent, Unsupported
from gateway.fhir.translate import received as translate
from gateway.fhir.translate.elements import identifiers
from gateway.fhir.write_kept import (
    dossier_about,
    patient_about,
    references_at,
    require_nobody_elses,
    require_same_patient,
    root_key,
)
from gateway.fhir.writing import Operation, Writing
from gateway.model.received import ReceivedDocument
from gateway.rcp import received
from gateway.rcp.received import DocumentHeader

__all__ = ["CHANNEL", "Brought", "cda_among", "is_received", "take"]

CHANNEL: Final = "fhir"
_XML = frozenset({"text/xml", "application/xml", "application/cda+xml", "application/hl7-v3+xml"})
_BEGINS = re.compile(rb"(?:\xef\xbb\xbf)?\s*<|\xff\xfe<\x00|\xfe\xff\x00<")
_NAMESPACES = tuple("urn:hl7-org:v3".encode(codec) for codec in ("utf-8", "utf-16-le", "utf-16-be"))
_WITHDRAWN = "entered-in-error"
_IDENTIFYING = "urn:ietf:rfc:3986"


class Brought(NamedTuple):
    """The one CDA among the attachments of a DocumentReference."""

    header: DocumentHeader
    content: bytes


def cda_among(attachments: Iterable[tuple[str, Mapping[str, Any], bytes | None]]) -> Brought | None:
    """Find the CDA among attachments; none when no attachment at hand is one.

    Parameters
    ----------
    attachments
        FHIRPath, ``Attachment`` and bytes, if these are at hand, of each.

    Raises
    ------
    InvalidContent
        ``xml-entites``, ``xml-malforme``, ``cda-entete``, ``cda-pdf``, ``cda-plusieurs`` (rules).
    """
    found: Brought | None = None
    for where, said, content in attachments:
        if content is None or not _may_be(said, content):
            continue
        try:
            if safe_xml.parse(content).tag != cda_header.ROOT:
                continue
            header = cda_header.read(content)
        except InvalidContent as error:
            raise InvalidContent(error.code, error.text, expression=where, rule=True) from None
        if found is not None and found.content != content:
            text = "Une DocumentReference porte un seul document CDA ; un autre document est une autre ressource."
            raise InvalidContent("cda-plusieurs", text, expression=where, rule=True)
        found = Brought(header, content)
    return found


def _may_be(said: Mapping[str, Any], content: bytes) -> bool:
    """Whether bytes are XML by their type, or a CDA whatever their type says (X18)."""
    kind = str(said.get("contentType", "")).partition(";")[0].strip().lower()
    return kind in _XML or (_BEGINS.match(content) is not None and any(one in content for one in _NAMESPACES))


def is_received(operation: Operation) -> bool:
    """Whether a received document stands behind what an operation concerns."""
    return operation.before is not None and operation.before.root_kind == "ReceivedDocument"


def take(writing: Writing, operation: Operation, brought: Brought | None) -> ReceivedDocument:
    """Take the document of a DocumentReference, or take it back (``entered-in-error``).

    Raises
    ------
    InvalidContent
        ``patient-different``, ``patient-inconnu``, ``cda-identifiant``, ``cda-remplace`` (rules).
    Conflict
        ``cle-modifiee``: the document of this resource is another one; ``document-deja-recu``.
    Forbidden
        ``proprietaire``.
    """
    row = _held(writing, operation)
    if row is not None and operation.tree["status"] == _WITHDRAWN:
        _require_same(row, brought)
        received.take_back(writing.step, row)
    elif brought is None or (row is None and operation.before is not None):
        raise _another()
    else:
        _require_same(row, brought)
        row = _take(writing, operation, brought)
    writing.sent["DocumentReference", str(row.id)] = operation.tree
    writing.step.touch(row)
    return row


def _held(writing: Writing, operation: Operation) -> ReceivedDocument | None:
    if not is_received(operation) or operation.before is None:
        return None
    row = writing.step.session.get_one(ReceivedDocument, operation.before.root_id)
    if row.channel != CHANNEL or row.sender != str(writing.partner.id):
        text = "Ce document est arrivé par un autre chemin ; il n’est récrit que par lui."
        raise Forbidden("proprietaire", text, expression=operation.where or "DocumentReference")
    return row


def _another() -> Conflict:
    text = "Le document d’une DocumentReference ne change pas : un autre document est une autre ressource."
    return Conflict("cle-modifiee", text, expression="DocumentReference.content")


def _require_same(row: ReceivedDocument | None, brought: Brought | None) -> None:
    if row is not None and brought is not None and not received.is_of(row, brought.content):
        raise _another()


def _take(writing: Writing, operation: Operation, brought: Brought) -> ReceivedDocument:
    tree, blobs = operation.tree, writing.ports.blobs
    if blobs is None:
        raise Unsupported("document", "La réception de documents n’est pas configurée ici.")
    require_nobody_elses(writing, operation)
    _require_identifier(tree, brought.header)
    record, dossier = patient_about(writing, operation), dossier_about(writing, operation.kind, tree)
    if record is not None and dossier is not None:
        require_same_patient(writing, operation, dossier.record_id, record.id)
    incoming = received.Incoming(
        channel=CHANNEL,
        sender=str(writing.partner.id),
        hint=dossier.id if dossier is not None else None,
        record_id=record.id if record is not None else None,
        document_id=root_key(operation),
    )
    header = _with_replaced(writing, tree, brought.header)
    row, reason = received.take_document(writing.step, header, brought.content, incoming, blobs)
    if reason == "document-autre-patient":
        text = "Le document CDA n’est pas du patient que désigne la ressource, ou que suit ce qu’il remplace."
        raise InvalidContent("patient-different", text, expression="DocumentReference.subject", rule=True)
    if row is None:
        raise AssertionError("only a withdrawal has no document")
    if str(row.id) != operation.identity:
        text = f"Ce document est déjà là : DocumentReference/{row.id}."
        raise Conflict("document-deja-recu", text, expression="DocumentReference.content")
    return row


def _require_identifier(tree: Mapping[str, Any], header: DocumentHeader) -> None:
    """Refuse a ``masterIdentifier`` in the systems of OIDs that is not the document's own."""
    own = translate.identifier(header.unique_id)
    for said in identifiers(tree.get("masterIdentifier")):
        same = (said.system, said.value.lower()) == (own["system"], own["value"].lower())
        if said.system == _IDENTIFYING and not same:
            text = "L’identifiant (masterIdentifier) n’est pas celui du document CDA."
            raise InvalidContent("cda-identifiant", text, expression="DocumentReference.masterIdentifier", rule=True)


def _with_replaced(writing: Writing, tree: Mapping[str, Any], header: DocumentHeader) -> DocumentHeader:
    """Read which received document is replaced, where the header leaves that to the DocumentReference."""
    for related in tree.get("relatesTo", ()):
        if related.get("code") != "replaces":
            continue
        for said in references_at(related, "target"):
            named = writing.local(str(said.get("reference", "")))
            row = _received(writing, named[1]) if named is not None and named[0] == "DocumentReference" else None
            if row is None:
                continue
            if header.replaces not in {None, row.unique_id}:
                text = "Le document CDA ne remplace pas celui que désigne relatesTo."
                raise InvalidContent("cda-remplace", text, expression="DocumentReference.relatesTo", rule=True)
            return replace(header, replaces=row.unique_id)
    return header


def _received(writing: Writing, key: str) -> ReceivedDocument | None:
    try:
        return received.visible(writing.step, uuid.UUID(key))
    except ValueError:
        return None
