"""The routes of copies without identity; the verbs are `gateway.rcp.imaging_copies`.

Promises: a copy leaves after its audit line is durable, as it was made, in constant memory; one whose pixels may show
the patient leaves only when a person said that he looked.
"""

from __future__ import annotations

import io
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from gateway.errors import Conflict, InvalidContent
from gateway.exchange.blobs import BlobStore
from gateway.portal.copies import copies_page
from gateway.portal.pages import Answer, Form, Portal, Who, opaque
from gateway.rcp import imaging_copies
from gateway.rcp.access import Caller
from gateway.rcp.step import Step

__all__ = ["CopyPages"]

#: A file says no other moment than the first that a zip can write.
_NO_MOMENT: Final = (1980, 1, 1, 0, 0, 0)


class CopyPages:
    """The copies of one dossier's images."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._steps = portal.steps

    def router(self) -> APIRouter:
        """Build the routes."""
        router = APIRouter(include_in_schema=False)
        router.add_api_route("/dossiers/{dossier}/copies", self.page, methods=["GET"])
        router.add_api_route("/dossiers/{dossier}/copies", self.ask, methods=["POST"])
        router.add_api_route("/dossiers/{dossier}/copies/{copie}.zip", self.download, methods=["POST"])
        return router

    def page(self, request: Request, who: Who, dossier: str) -> Response:
        """Show the copies and the form."""
        return self._portal.signed_in(request, who, lambda caller: self._show(request, caller, opaque(dossier), {}))

    def _show(self, request: Request, caller: Caller, key: uuid.UUID, errors: Mapping[str, str]) -> Response:
        def ask(step: Step) -> Answer:
            return copies_page(step.session, caller, step.now, key, errors)

        return self._portal.show(request, caller, ask, current="/patients", status=422 if errors else 200)

    def ask(self, request: Request, who: Who, form: Form, dossier: str) -> Response:
        """Ask for a copy."""

        def act(caller: Caller, fields: dict[str, str]) -> Response:
            key, study = opaque(dossier), opaque(fields.get("etude", ""))
            options = [one for one in imaging_copies.OPTIONS if fields.get(one) == "oui"]
            try:
                self._steps.run(caller, lambda step: imaging_copies.ask(step, key, study, options).id)
            except Conflict as error:
                return self._show(request, caller, key, {"etude": error.text})
            return RedirectResponse(f"/dossiers/{key}/copies?fait=copie", 303)

        return self._portal.posted(request, who, form, act)

    def download(self, request: Request, who: Who, form: Form, dossier: str, copie: str) -> Response:
        """Hand a copy out."""

        def act(caller: Caller, fields: dict[str, str]) -> Response:
            key, copy_id = opaque(dossier), opaque(copie)

            def verb(step: Step) -> tuple[str, list[tuple[str, str]]]:
                copy, objects = imaging_copies.hand_out(step, key, copy_id)
                if fields.get("regardees") != "oui" and any(one.burned_in != "non" for one in objects):
                    text = "Regardez d’abord les images dont les pixels peuvent montrer le patient."
                    raise InvalidContent("copie-non-regardee", text, rule=True)
                series: dict[uuid.UUID, int] = {}
                files = []
                for number, one in enumerate(objects, 1):
                    folder = series.setdefault(one.series_id, len(series) + 1)
                    files.append((f"{copy.pseudonym}/SE{folder:04}/IM{number:06}", one.sha256 or ""))
                return copy.pseudonym, files

            try:
                name, files = self._steps.run(caller, verb)
            except InvalidContent as error:
                return self._show(request, caller, key, {"copie": error.text})
            headers = {"Content-Disposition": f'attachment; filename="{name}.zip"'}
            return StreamingResponse(_zipped(self._portal.blobs, files), media_type="application/zip", headers=headers)

        return self._portal.posted(request, who, form, act)


class _Sink(io.RawIOBase):
    """Where a zip is written to be taken away piece by piece; it cannot be gone back in."""

    def __init__(self) -> None:
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, content: object, /) -> int:
        held = memoryview(content)  # type: ignore[arg-type] # what zipfile writes is bytes
        self._held += held
        return held.nbytes

    def take(self) -> bytes:
        """Give what was written since, and forget it."""
        taken = bytes(self._held)
        self._held.clear()
        return taken


def _zipped(blobs: BlobStore, files: list[tuple[str, str]]) -> Iterator[bytes]:
    """Write a zip of kept files as it leaves; pixels that are compressed become no smaller."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, sha256 in files:
            with archive.open(zipfile.ZipInfo(name, _NO_MOMENT), "w", force_zip64=True) as entry:
                for chunk in blobs.stream(sha256):
                    entry.write(chunk)
                    yield sink.take()
    yield sink.take()
