"""The routes of a report: draft, validation, new version, download; the verbs are `gateway.rcp.report`.

Promises: what is downloaded is the kept bytes, never rendered anew; that they were replaced or withdrawn since is said
around them, by the name of the file and, for the version that replaces, by a link [RFC 5829]; a validation without the
box « relu » is asked again; what another coordinator wrote meanwhile is said beside the field, and neither overwritten
nor thrown away unseen.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from gateway.errors import Conflict, InvalidContent, NotFound, Unsupported
from gateway.portal import report_form, reports
from gateway.portal.dossiers import visible_dossier
from gateway.portal.pages import Answer, Form, Portal, Who, opaque
from gateway.portal.views import Report as ReportPage
from gateway.portal.views import ReportForm
from gateway.rcp import report, report_reading
from gateway.rcp.access import Caller
from gateway.rcp.report_draft import ReportDraft
from gateway.rcp.report_draft import read as read_draft
from gateway.rcp.step import Step

__all__ = ["ReportPages"]

#: Ending of an address to the form kept and the ending of the file.
_FORMS: Final = {"pdf": "pdf", "cda.xml": "cda"}
_READ: Final = "version"
_UNREAD: Final = {"relu": "Cochez la case après avoir relu le compte rendu."}


class ReportPages:
    """The report of one dossier."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._steps = portal.steps

    def router(self) -> APIRouter:
        """Build the routes."""
        router = APIRouter(include_in_schema=False)
        base = "/dossiers/{dossier}/compte-rendu"
        router.add_api_route(base, self.page, methods=["GET"])
        router.add_api_route(base, self.draft, methods=["POST"])
        router.add_api_route(f"{base}/validation", self.reread, methods=["GET"])
        router.add_api_route(f"{base}/validation", self.validate, methods=["POST"])
        router.add_api_route(f"{base}/correction", self.revise, methods=["POST"])
        router.add_api_route(f"{base}/abandon", self.discard, methods=["POST"])
        router.add_api_route(f"{base}/{{file}}", self.download, methods=["GET"])
        return router

    def page(self, request: Request, who: Who, dossier: str) -> Response:
        """Show the report."""
        return self._portal.signed_in(request, who, lambda caller: self._show(request, caller, opaque(dossier)))

    def _show(
        self, request: Request, caller: Caller, dossier_id: uuid.UUID, form: ReportForm | None = None, status: int = 200
    ) -> Response:
        def ask(step: Step) -> Answer:
            page, lines = reports.report_page(step.session, caller, step.now, dossier_id)
            return page if form is None else _with_form(page, form), lines

        return self._portal.show(request, caller, ask, current="/seances", status=status)

    def draft(self, request: Request, who: Who, form: Form, dossier: str) -> Response:
        """Keep the draft, and go on to the validation if asked."""

        def act(caller: Caller, fields: dict[str, str]) -> Response:
            identifier = opaque(dossier)

            def verb(step: Step) -> tuple[report_form.Given, bool]:
                row = visible_dossier(step.session, caller, identifier)
                under_way = reports.draft_of(step.session, row)
                known = read_draft(under_way.draft) if under_way is not None else ReportDraft()
                corrects = under_way is not None and under_way.version > 1
                given = report_form.read(fields, known, asks_reason=corrects)
                if not given.faults:
                    report.draft(step, identifier, given.draft, expected=fields.get(_READ, ""))
                return given, corrects

            try:
                given, corrects = self._steps.run(caller, verb)
            except Conflict as error:
                if error.code != "cr-brouillon-change":
                    raise
                return self._again(request, caller, identifier, fields, error.text)
            if given.faults:
                again = report_form.form_of(
                    given.draft, action="", asks_reason=corrects, discard_url="", faults=given.faults
                )
                return self._show(request, caller, identifier, again, 422)
            base = f"/dossiers/{identifier}/compte-rendu"
            return RedirectResponse(f"{base}/validation" if given.then_validate else f"{base}?fait=brouillon", 303)

        return self._portal.posted(request, who, form, act)

    def _again(
        self, request: Request, caller: Caller, dossier_id: uuid.UUID, fields: dict[str, str], said: str
    ) -> Response:
        """Show what was sent again, and what the draft says now beside it."""

        def ask(step: Step) -> Answer:
            row = visible_dossier(step.session, caller, dossier_id)
            under_way = reports.draft_of(step.session, row)
            known = read_draft(under_way.draft) if under_way is not None else ReportDraft()
            corrects = under_way is not None and under_way.version > 1
            given = report_form.read(fields, known, asks_reason=corrects).draft
            faults = {"compte-rendu": said, **report_form.differing(known, given, asks_reason=corrects)}
            page, lines = reports.report_page(step.session, caller, step.now, dossier_id)
            form = report_form.form_of(given, action="", asks_reason=corrects, discard_url="", faults=faults)
            return _with_form(page, form), lines

        return self._portal.show(request, caller, ask, current="/seances", status=409)

    def reread(self, request: Request, who: Who, dossier: str) -> Response:
        """Show what becomes final."""
        return self._portal.signed_in(request, who, lambda caller: self._reread(request, caller, opaque(dossier), {}))

    def _reread(
        self, request: Request, caller: Caller, dossier_id: uuid.UUID, errors: dict[str, str], status: int = 200
    ) -> Response:
        def ask(step: Step) -> Answer:
            return reports.validation_page(step, caller, dossier_id, errors)

        return self._portal.show(request, caller, ask, current="/seances", status=status)

    def validate(self, request: Request, who: Who, form: Form, dossier: str) -> Response:
        """Validate the draft that was read again; a second click is the same validation."""

        def act(caller: Caller, fields: dict[str, str]) -> Response:
            identifier, press = opaque(dossier), self._portal.press
            if press is None:
                raise Unsupported("cr-validation", "La validation des comptes rendus n’est pas configurée ici.")
            if fields.get("relu") != "oui":
                return self._reread(request, caller, identifier, _UNREAD, 422)
            read = opaque(fields.get("version", ""))
            try:
                self._steps.run(caller, lambda step: report.validate(step, identifier, press, expected=read))
            except InvalidContent as error:
                return self._reread(request, caller, identifier, {"relu": error.text}, 422)
            return RedirectResponse(f"/dossiers/{identifier}/compte-rendu?fait=valide", 303)

        return self._portal.posted(request, who, form, act)

    def revise(self, request: Request, who: Who, form: Form, dossier: str) -> Response:
        """Prepare the version that will replace the validated one."""

        def act(caller: Caller, _: dict[str, str]) -> Response:
            identifier = opaque(dossier)
            self._steps.run(caller, lambda step: report.revise(step, identifier))
            return RedirectResponse(f"/dossiers/{identifier}/compte-rendu?fait=correction", 303)

        return self._portal.posted(request, who, form, act)

    def discard(self, request: Request, who: Who, form: Form, dossier: str) -> Response:
        """Throw the draft away."""

        def act(caller: Caller, fields: dict[str, str]) -> Response:
            identifier, read = opaque(dossier), fields.get(_READ, "")
            self._steps.run(caller, lambda step: report.discard(step, identifier, expected=read))
            return RedirectResponse(f"/dossiers/{identifier}/compte-rendu?fait=abandon", 303)

        return self._portal.posted(request, who, form, act)

    def download(self, request: Request, who: Who, dossier: str, file: str) -> Response:
        """Give the kept bytes of one form of one version, once the line that says so is durable."""

        def act(caller: Caller) -> Response:
            identifier = opaque(dossier)
            number, _, ending = file.partition(".")
            kind = _FORMS.get(ending)
            if kind is None or not number.isdecimal() or len(number) > 6:
                raise NotFound("inconnu", "Ressource inconnue.")

            def verb(step: Step) -> tuple[str, str, int, str, str]:
                found, lines = report_reading.kept_form(step.session, caller, identifier, int(number), kind)
                for line in lines:
                    step.trail.write(step.session, line)
                state = found.report.state
                name = reports.download_name(found.report.dossier.reference, int(number), state)
                return found.content_type, found.sha256, found.size_bytes, f"{name}.{ending}", state

            content_type, sha256, size, name, state = self._steps.run(caller, verb)
            headers = {
                "Content-Disposition": f'attachment; filename="{name}"',
                "Content-Length": str(size),
                "ETag": f'"{sha256}"',
            }
            if state == "remplace":
                headers["Link"] = f'<{int(number) + 1}.{ending}>; rel="successor-version"'
            return StreamingResponse(self._portal.blobs.stream(sha256), media_type=content_type, headers=headers)

        return self._portal.signed_in(request, who, act)


def _with_form(page: ReportPage, form: ReportForm) -> ReportPage:
    """A page whose form came back; what it may do is what may be done now."""
    kept = page.form
    if kept is None:
        return page
    return replace(page, form=replace(form, action=kept.action, discard_url=kept.discard_url, version=kept.version))
