"""The routes of the files beside a dossier; the verbs are `gateway.rcp.attachments`.

Promises: who is not signed in sends nothing; every file of a form is judged before any is kept, and a fault of one,
with its number and name, refuses the form whole; what only keeping an image can find is answered file by file, kept
and not kept; a file is given to whoever sees the dossier, once the line that says so is durable, with
headers that let no browser take it for anything else. Its name says the dossier's reference, never the patient.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile

from gateway.documents import attached
from gateway.errors import GatewayError, InvalidContent, NotFound, Unsupported
from gateway.portal import attachments as pages
from gateway.portal import views as v
from gateway.portal.dossiers import visible_dossier
from gateway.portal.forms import line
from gateway.portal.pages import Answer, Form, Portal, Who, opaque
from gateway.rcp import access, attachments, imaging_uploads
from gateway.rcp.access import Caller
from gateway.rcp.attachments import KINDS, NewFile
from gateway.rcp.imaging_facts import ObjectFacts
from gateway.rcp.step import Step
from gateway.web.body import Limit, form_under
from gateway.web.next_path import sign_in_address

__all__ = ["AttachmentPages"]

_FIELDS_BYTES: Final = 64 * 1024
#: Nothing in it runs, whatever it is taken for.
_SAFE: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def _given(content: bytes, ending: str, name: str) -> Response:
    """Answer a picture to be shown, a PDF to be saved."""
    shown = "attachment" if ending == "pdf" else "inline"
    headers = {**_SAFE, "Content-Disposition": f'{shown}; filename="{name}"'}
    return Response(content, media_type=KINDS[ending], headers=headers)


@dataclass(frozen=True, slots=True)
class _Image:
    """One image object of a form, and for whom it is kept."""

    file: BinaryIO
    facts: ObjectFacts
    sender: Caller
    number: int


@contextmanager
def _naming(number: int, name: str) -> Iterator[None]:
    """Say in a refusal which file of the form it is about."""
    try:
        yield
    except InvalidContent as error:
        text = f"Fichier {number} (« {name} ») : {error.text}"
        raise InvalidContent(error.code, text, expression="fichiers", rule=True) from error


def _name(one: UploadFile) -> str:
    return line(one.filename or "")[: attachments.NAME_CHARACTERS]


class AttachmentPages:
    """The files beside one dossier."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._steps = portal.steps

    def router(self) -> APIRouter:
        """Build the routes."""
        router = APIRouter(include_in_schema=False)
        router.add_api_route("/dossiers/{dossier}/pieces", self.page, methods=["GET"])
        router.add_api_route("/dossiers/{dossier}/pieces", self.add, methods=["POST"])
        router.add_api_route("/dossiers/{dossier}/pieces/{file}", self.file, methods=["GET"])
        router.add_api_route("/dossiers/{dossier}/pieces-recues/{file}", self.brought, methods=["GET"])
        router.add_api_route("/dossiers/{dossier}/pieces/{piece}/retirer", self.take_back, methods=["POST"])
        return router

    def page(self, request: Request, who: Who, dossier: str) -> Response:
        """Show the files and the form."""
        return self._portal.signed_in(request, who, lambda caller: self._show(request, caller, opaque(dossier), {}))

    def _show(
        self,
        request: Request,
        caller: Caller,
        key: uuid.UUID,
        errors: dict[str, str],
        sent: Sequence[v.SentFile] = (),
    ) -> Response:
        def ask(step: Step) -> Answer:
            portal = self._portal
            return pages.attachments_page(step.session, caller, key, portal.limits, errors, portal.brought, sent)

        return self._portal.show(request, caller, ask, current="/patients", status=422 if errors else 200)

    async def add(self, request: Request, who: Who, dossier: str) -> Response:
        """Keep files; the body is read only for who is signed in."""
        if who is None:
            return RedirectResponse(sign_in_address(request), 303)
        limits = self._portal.limits
        most = limits.attachment_bytes * limits.attachment_files + _FIELDS_BYTES
        try:
            form = await form_under(
                request,
                Limit(f"{limits.variable('attachment_bytes')} × {limits.variable('attachment_files')}", most),
                max_files=limits.attachment_files,
            )
        except GatewayError as error:
            return await run_in_threadpool(self._portal.refused, request, error, who)
        try:
            return await run_in_threadpool(self._add, request, who, form, dossier)
        finally:
            await form.close()

    def _add(self, request: Request, who: Caller, form: FormData, dossier: str) -> Response:
        def act(caller: Caller, _: dict[str, str]) -> Response:
            key = opaque(dossier)
            # Whoever may not is told before a decoder looks at what he sent.
            self._steps.run(caller, lambda step: self._require(step, key))
            sent = [one for one in form.getlist("fichiers") if isinstance(one, UploadFile) and one.filename]
            try:
                files, images = self._judged(caller, key, sent)
                self._steps.run(caller, lambda step: attachments.add(step, key, files, self._portal.blobs))
            except InvalidContent as error:
                none = " Aucun fichier de cet envoi n’a été gardé." if len(sent) > 1 else ""
                return self._show(request, caller, key, {"fichiers": error.text + none})
            refused, whole = self._laid(caller, key, images)
            if refused:
                lines = [v.SentFile(n, _name(one), refused.get(n, "")) for n, one in enumerate(sent, 1)]
                said = {"fichiers": "Tous les fichiers de cet envoi n’ont pas été gardés : voyez lesquels ci-dessus."}
                return self._show(request, caller, key, said, lines)
            return RedirectResponse(f"/dossiers/{key}/pieces?fait={'pieces' if whole else 'images-en-attente'}", 303)

        return self._portal.posted(request, who, form, act)

    def _require(self, step: Step, key: uuid.UUID) -> None:
        row = visible_dossier(step.session, step.caller, key)
        if not attachments.may_add(step.session, step.caller, row):
            # The verb's own refusal, in its own words.
            attachments.add(step, key, (), self._portal.blobs)

    def _judged(self, caller: Caller, key: uuid.UUID, sent: Sequence[UploadFile]) -> tuple[list[NewFile], list[_Image]]:
        """Read and judge each file, before anything is kept."""
        if not sent:
            raise InvalidContent("fichier-absent", "Choisissez au moins un fichier.", expression="fichiers", rule=True)
        limits = self._portal.limits
        bounds = attached.Bounds(max_bytes=limits.attachment_bytes)
        files: list[NewFile] = []
        images: list[_Image] = []
        for number, one in enumerate(sent, 1):
            name = _name(one)
            with _naming(number, name):
                if attached.kind_of(one.file.read(attached.HEAD_BYTES)) == "dicom":
                    images.append(self._looked_at(caller, key, one, number))
                    continue
                one.file.seek(0)
                found = attached.judge(one.file.read(limits.attachment_bytes + 1), bounds)
            files.append(NewFile(name=name, kind=found.kind, content=found.content))
        return files, images

    def _looked_at(self, caller: Caller, key: uuid.UUID, one: UploadFile, number: int) -> _Image:
        objects = self._portal.objects
        if objects is None:
            raise Unsupported("imagerie", "Le dépôt d’images DICOM n’est pas configuré ici.")
        facts = objects.look(one.file)
        sender = self._steps.run(caller, lambda step: imaging_uploads.accept(step, key, facts))
        return _Image(one.file, facts, sender, number)

    def _laid(self, caller: Caller, key: uuid.UUID, images: Sequence[_Image]) -> tuple[dict[int, str], bool]:
        """Keep the objects one by one, then say whose their studies are.

        Returns the refusals by the number of the file, and whether all that was kept stands in the dossier.
        """
        objects, refused = self._portal.objects, dict[int, str]()
        if objects is None or not images:
            return refused, True
        for one in images:
            try:
                objects.lay(one.file, one.sender)
            except GatewayError as error:
                refused[one.number] = error.text
        facts = [one.facts for one in images if one.number not in refused]
        if not facts:
            return refused, True
        return refused, self._steps.run(caller, lambda step: imaging_uploads.join(step, key, facts))

    def file(self, request: Request, who: Who, dossier: str, file: str) -> Response:
        """Give the kept bytes: a picture to be shown, a PDF to be saved."""

        def act(caller: Caller) -> Response:
            dossier_id, (named, _, ending) = opaque(dossier), file.partition(".")
            document_id = opaque(named)

            def verb(step: Step) -> tuple[str, str]:
                row = visible_dossier(step.session, caller, dossier_id)
                found = next(iter(attachments.own(step.session, row, document_id)), None)
                if found is None or found.state != "attache" or found.format != ending or found.sha256 is None:
                    raise access.hidden(caller, "ReceivedDocument", document_id)
                step.audit(
                    "consultation",
                    persons=(row.record_id,),
                    dossier=row.id,
                    object_type="ReceivedDocument",
                    object_id=str(found.id),
                    object_sha256=found.sha256,
                )
                return found.sha256, f"document-{row.reference}-{found.received_at:%Y%m%d}.{ending}"

            if ending not in KINDS:
                raise NotFound("inconnu", "Ressource inconnue.")
            sha256, name = self._steps.run(caller, verb)
            return _given(self._portal.blobs.read(sha256), ending, name)

        return self._portal.signed_in(request, who, act)

    def brought(self, request: Request, who: Who, dossier: str, file: str) -> Response:
        """Give what a software brought: judged now, freed of what says where, and only if it is what it is called."""

        def act(caller: Caller) -> Response:
            dossier_id, (key, _, ending) = opaque(dossier), file.partition(".")

            def verb(step: Step) -> tuple[bytes, str]:
                row = visible_dossier(step.session, caller, dossier_id)
                found = self._portal.brought.read(step.session, row, key) if self._portal.brought is not None else None
                if found is None:
                    raise access.hidden(caller, "DocumentReference", key[:64])
                step.audit(
                    "consultation",
                    persons=(row.record_id,),
                    dossier=row.id,
                    object_type="DocumentReference",
                    object_id=key.partition("~")[0],
                )
                return found, row.reference

            if ending not in KINDS:
                raise NotFound("inconnu", "Ressource inconnue.")
            content, reference = self._steps.run(caller, verb)
            kept = attached.judge(content, attached.Bounds(max_bytes=len(content)))
            if kept.kind != ending:
                raise NotFound("inconnu", "Ressource inconnue.")
            return _given(kept.content, ending, f"document-{reference}.{ending}")

        return self._portal.signed_in(request, who, act)

    def take_back(self, request: Request, who: Who, form: Form, dossier: str, piece: str) -> Response:
        """Take back a file."""

        def act(caller: Caller, _: dict[str, str]) -> Response:
            key, document_id = opaque(dossier), opaque(piece)
            self._steps.run(caller, lambda step: attachments.take_back(step, key, document_id))
            return RedirectResponse(f"/dossiers/{key}/pieces?fait=piece-retiree", 303)

        return self._portal.posted(request, who, form, act)
