"""The bytes of a document that others sent, as they came, and the PDF that it envelopes.

Promises: whoever sees the dossier gets them, once the line that says so is durable; what waits for a person, or was
withdrawn, is the same 404 as what never was. They are saved, never shown: what somebody else wrote is rendered by no
page of ours. Their name says the dossier's reference, never the patient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from fastapi import APIRouter, Request, Response

from gateway.documents import cda_header
from gateway.errors import NotFound
from gateway.model.received import ReceivedDocument
from gateway.portal import words
from gateway.portal.dossiers import visible_dossier
from gateway.portal.pages import Portal, Who, opaque
from gateway.portal.received import shown_with
from gateway.rcp import access
from gateway.rcp.access import Caller
from gateway.rcp.step import Step

__all__ = ["ReceivedPages"]

_SUPERSEDED: Final = "remplace"


def _whole(row: ReceivedDocument, content: bytes) -> bytes | None:
    return content if row.format != "pdf" else None


def _readable(row: ReceivedDocument, content: bytes) -> bytes | None:
    return content if row.format == "pdf" else cda_header.read(content).pdf


#: Ending of an address → type, and which bytes.
_FORMS: Final[Mapping[str, tuple[str, Callable[[ReceivedDocument, bytes], bytes | None]]]] = {
    "xml": ("application/xml", _whole),
    "pdf": ("application/pdf", _readable),
}


class ReceivedPages:
    """The documents of one dossier."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal

    def router(self) -> APIRouter:
        """Build the route."""
        router = APIRouter(include_in_schema=False)
        router.add_api_route("/dossiers/{dossier}/documents/{file}", self.download, methods=["GET"])
        return router

    def download(self, request: Request, who: Who, dossier: str, file: str) -> Response:
        """Give the kept bytes."""

        def act(caller: Caller) -> Response:
            dossier_id, (named, _, ending) = opaque(dossier), file.partition(".")
            if ending not in _FORMS:
                raise NotFound("inconnu", "Ressource inconnue.")
            content_type, part = _FORMS[ending]
            document_id = opaque(named)

            def verb(step: Step) -> tuple[bytes, str]:
                row = visible_dossier(step.session, caller, dossier_id)
                found = step.session.get(ReceivedDocument, document_id)
                known = found is not None and shown_with(found, row)
                kept = self._portal.blobs.read(found.sha256) if known and found and found.sha256 else None
                content = part(found, kept) if found is not None and kept is not None else None
                if found is None or content is None:
                    raise access.hidden(caller, "ReceivedDocument", document_id)
                step.audit(
                    "consultation",
                    persons=(row.record_id,),
                    dossier=row.id,
                    object_type="ReceivedDocument",
                    object_id=str(found.id),
                    object_sha256=found.sha256,
                )
                old = "-remplace" if found.state == _SUPERSEDED else ""
                day = words.local(found.received_at, row.session.zone)
                return content, f"document-recu-{row.reference}-{day:%Y%m%d}{old}.{ending}"

            content, name = self._portal.steps.run(caller, verb)
            headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
            return Response(content, media_type=content_type, headers=headers)

        return self._portal.signed_in(request, who, act)
