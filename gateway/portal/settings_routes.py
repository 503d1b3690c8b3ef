"""The routes that write the settings of an RCP, by the verb of `gateway.rcp.rcp_settings`.

Promises: only the RCP's organisers get the form; what another one wrote meanwhile is said beside the setting and never
overwritten unseen; the same form twice is one change.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from gateway.errors import Conflict, InvalidContent
from gateway.portal import settings_form, words
from gateway.portal import views as v
from gateway.portal.forms import Faults
from gateway.portal.informed import notified_before
from gateway.portal.pages import Answer, Form, Portal, Who, opaque
from gateway.rcp import notice_changes, rcp_settings
from gateway.rcp.access import Caller
from gateway.rcp.step import Step

__all__ = ["SettingsPages"]

_READ = "version"


class SettingsPages:
    """The settings of one RCP."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._steps = portal.steps

    def router(self) -> APIRouter:
        """Build the routes."""
        router = APIRouter(include_in_schema=False)
        router.add_api_route("/rcp/{rcp}/reglages", self.form, methods=["GET"])
        router.add_api_route("/rcp/{rcp}/reglages", self.edit, methods=["POST"])
        return router

    def form(self, request: Request, who: Who, rcp: str) -> Response:
        """Show the form."""
        return self._portal.signed_in(request, who, lambda caller: self._show(request, caller, opaque(rcp)))

    def _show(
        self,
        request: Request,
        caller: Caller,
        rcp_id: uuid.UUID,
        given: Mapping[str, str] | None = None,
        faults: Faults | None = None,
        status: int = 200,
    ) -> Response:
        def ask(step: Step) -> Answer:
            row = rcp_settings.held(step, rcp_id)
            known = rcp_settings.known(row)
            errors = dict(faults or {})
            if status == 409 and given is not None:
                errors |= _differing(known, settings_form.changes_of(given)[0])
            agreed = row.notification.get("accord") or {}
            page = v.RcpSettings(
                rcp=row.title,
                action=f"/rcp/{row.id}/reglages",
                back_url=f"/rcp/{row.id}",
                sections=settings_form.inputs(known, given),
                notified=notified_before(step, row),
                renotifies=notice_changes.renotifies(row),
                version=rcp_settings.reading_of(row),
                agreed_by=agreed.get("par") or "",
                agreed_at=words.local(datetime.fromisoformat(agreed["le"]), row.zone) if "le" in agreed else None,
                errors=errors,
            )
            return page, ()

        return self._portal.show(request, caller, ask, current="/rcp", status=status)

    def edit(self, request: Request, who: Who, form: Form, rcp: str) -> Response:
        """Write what changed."""

        def act(caller: Caller, sent: dict[str, str]) -> Response:
            identifier = opaque(rcp)
            given = {name: value for name, value in sent.items() if name != _READ}

            def verb(step: Step) -> Faults:
                # Who may not write is told so before what he wrote is judged.
                rcp_settings.held(step, identifier)
                changes, faults = settings_form.changes_of(given)
                if not faults:
                    rcp_settings.edit(step, identifier, changes, expected=sent.get(_READ, ""))
                return faults

            try:
                faults = self._steps.run(caller, verb)
            except InvalidContent as error:
                beside = error.expression if error.expression in rcp_settings.settings() else "notification.active"
                return self._show(request, caller, identifier, given, {beside or "": error.text}, 422)
            except Conflict as error:
                if error.code != "reglages-changes":
                    raise
                return self._show(request, caller, identifier, given, {"reglages": error.text}, 409)
            if faults:
                return self._show(request, caller, identifier, given, faults, 422)
            return RedirectResponse(f"/rcp/{identifier}/reglages?fait=reglages", 303)

        return self._portal.posted(request, who, form, act)


def _differing(known: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, str]:
    found = {}
    for key, value in changes.items():
        if known[key] != value:
            setting = rcp_settings.settings()[key]
            said = rcp_settings.in_words(setting, known[key])
            found[key] = f"{setting.field.label} : le réglage est maintenant « {said} »."
    return found
