"""The routes of a care plan (PPS): draft, validation, new version, download; the verbs are `gateway.rcp.pps`.

Promises: what is downloaded is the kept bytes, never rendered anew; a validation without the box « relu » is asked
again; what somebody else wrote meanwhile is said, and neither overwritten nor thrown away unseen.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from gateway.documents import pps as document
from gateway.errors import Conflict, InvalidContent, NotFound
from gateway.portal import plans
from gateway.portal.forms import Faults
from gateway.portal.pages import Answer, Form, Portal, Who, opaque
from gateway.rcp import pps
from gateway.rcp.access import Caller
from gateway.rcp.step import Step

__all__ = ["PlanPages"]

_ENDING: Final = "cda.xml"
_READ: Final = "version"
_NEXT: Final = "suite"
_UNREAD: Final = {"relu": "Cochez la case après avoir relu le programme."}


class PlanPages:
    """The care plan of one dossier."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._steps = portal.steps

    def router(self) -> APIRouter:
        """Build the routes."""
        router = APIRouter(include_in_schema=False)
        base = "/dossiers/{dossier}/pps"
        router.add_api_route(base, self.page, methods=["GET"])
        router.add_api_route(base, self.write, methods=["POST"])
        router.add_api_route(f"{base}/validation", self.reread, methods=["GET"])
        router.add_api_route(f"{base}/validation", self.validate, methods=["POST"])
        router.add_api_route(f"{base}/abandon", self.discard, methods=["POST"])
        router.add_api_route(f"{base}/{{file}}", self.download, methods=["GET"])
        return router

    def page(self, request: Request, who: Who, dossier: str, nouvelle: str = "") -> Response:
        """Show the plan."""

        def act(caller: Caller) -> Response:
            def ask(step: Step) -> Answer:
                return plans.plan_page(step, caller, opaque(dossier), renews=nouvelle == "1")

            return self._portal.show(request, caller, ask, current="/patients")

        return self._portal.signed_in(request, who, act)

    def _again(
        self,
        request: Request,
        caller: Caller,
        dossier_id: uuid.UUID,
        given: Mapping[str, str],
        faults: Faults,
        status: int,
    ) -> Response:
        def ask(step: Step) -> Answer:
            errors = dict(faults)
            if status == 409:
                _dossier, _author, report = pps.held(step, dossier_id)
                errors |= plans.differing(pps.said(step.session, dossier_id, report), plans.changes_of(given)[0])
            return plans.plan_page(step, caller, dossier_id, given=given, faults=errors)

        return self._portal.show(request, caller, ask, current="/patients", status=status)

    def write(self, request: Request, who: Who, form: Form, dossier: str) -> Response:
        """Keep the draft, and go on to the validation if asked."""

        def act(caller: Caller, sent: dict[str, str]) -> Response:
            identifier = opaque(dossier)
            given = {name: value for name, value in sent.items() if name not in {_READ, _NEXT}}

            def verb(step: Step) -> Faults:
                # Who may not write is told so before what he wrote is judged.
                pps.held(step, identifier)
                changes, faults = plans.changes_of(given)
                if not faults:
                    pps.write(step, identifier, changes, expected=sent.get(_READ, ""))
                return faults

            try:
                faults = self._steps.run(caller, verb)
            except Conflict as error:
                if error.code != "pps-change":
                    raise
                return self._again(request, caller, identifier, given, {"pps": error.text}, 409)
            if faults:
                return self._again(request, caller, identifier, given, faults, 422)
            base = f"/dossiers/{identifier}/pps"
            there = f"{base}/validation" if sent.get(_NEXT) == "valider" else f"{base}?fait=brouillon"
            return RedirectResponse(there, 303)

        return self._portal.posted(request, who, form, act)

    def reread(self, request: Request, who: Who, dossier: str) -> Response:
        """Show what becomes final."""
        return self._portal.signed_in(request, who, lambda caller: self._reread(request, caller, opaque(dossier), {}))

    def _reread(
        self, request: Request, caller: Caller, dossier_id: uuid.UUID, errors: Faults, status: int = 200
    ) -> Response:
        def ask(step: Step) -> Answer:
            return plans.validation_page(step, caller, dossier_id, errors)

        return self._portal.show(request, caller, ask, current="/patients", status=status)

    def validate(self, request: Request, who: Who, form: Form, dossier: str) -> Response:
        """Validate the draft that was read again; a second click is the same validation."""

        def act(caller: Caller, fields: dict[str, str]) -> Response:
            identifier, blobs = opaque(dossier), self._portal.blobs
            if fields.get("relu") != "oui":
                return self._reread(request, caller, identifier, _UNREAD, 422)
            read = fields.get(_READ, "")

            def verb(step: Step) -> None:
                pps.validate(step, identifier, document.render, blobs, expected=read)

            try:
                self._steps.run(caller, verb)
            except InvalidContent as error:
                return self._reread(request, caller, identifier, {"relu": error.text}, 422)
            return RedirectResponse(f"/dossiers/{identifier}/pps?fait=pps", 303)

        return self._portal.posted(request, who, form, act)

    def discard(self, request: Request, who: Who, form: Form, dossier: str) -> Response:
        """Throw the draft away."""

        def act(caller: Caller, fields: dict[str, str]) -> Response:
            identifier, read = opaque(dossier), fields.get(_READ, "")
            self._steps.run(caller, lambda step: pps.discard(step, identifier, expected=read))
            return RedirectResponse(f"/dossiers/{identifier}/pps?fait=abandon", 303)

        return self._portal.posted(request, who, form, act)

    def download(self, request: Request, who: Who, dossier: str, file: str) -> Response:
        """Give the kept bytes of one version, once the line that says so is durable."""

        def act(caller: Caller) -> Response:
            identifier = opaque(dossier)
            number, _, ending = file.partition(".")
            if ending != _ENDING or not number.isdecimal() or len(number) > 6:
                raise NotFound("inconnu", "Ressource inconnue.")

            def verb(step: Step) -> tuple[str, int, str, str]:
                found, line = pps.kept_document(step.session, caller, identifier, int(number))
                step.trail.write(step.session, line)
                name = plans.download_name(found.dossier.reference, int(number), found.state)
                return found.sha256 or "", found.size_bytes or 0, f"{name}.{_ENDING}", found.state

            sha256, size, name, state = self._steps.run(caller, verb)
            headers = {
                "Content-Disposition": f'attachment; filename="{name}"',
                "Content-Length": str(size),
                "ETag": f'"{sha256}"',
            }
            if state == "remplace":
                headers["Link"] = f'<{int(number) + 1}.{_ENDING}>; rel="successor-version"'
            return StreamingResponse(self._portal.blobs.stream(sha256), media_type=document.MIME_TYPE, headers=headers)

        return self._portal.signed_in(request, who, act)
