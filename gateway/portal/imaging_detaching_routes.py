"""The routes of images taken from a patient; the verbs are `gateway.rcp.imaging_detaching`.

Promises: who does not organise the RCP gets the 404 of what does not exist; a form is answered by a redirect, and the
same form twice detaches once.
"""

from __future__ import annotations

import uuid

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from gateway.errors import InvalidContent
from gateway.portal.forms import line
from gateway.portal.imaging_detaching import detaching_list, detaching_page
from gateway.portal.pages import Answer, Form, Portal, Who, opaque
from gateway.rcp import imaging_detaching
from gateway.rcp.access import Caller
from gateway.rcp.step import Step

__all__ = ["DetachingPages"]

_REFERENCE_CHARACTERS = 40
_HERE = "/patients"


class DetachingPages:
    """Images of one dossier that are not its patient's."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._steps = portal.steps

    def router(self) -> APIRouter:
        """Build the routes."""
        router = APIRouter(include_in_schema=False)
        router.add_api_route("/dossiers/{dossier}/detacher", self.listed, methods=["GET"])
        router.add_api_route("/dossiers/{dossier}/detacher/{etude}", self.one, methods=["GET"])
        router.add_api_route("/dossiers/{dossier}/detacher/{etude}", self.detach, methods=["POST"])
        return router

    def listed(self, request: Request, who: Who, dossier: str) -> Response:
        """Show the studies of the dossier."""

        def act(caller: Caller) -> Response:
            def ask(step: Step) -> Answer:
                return detaching_list(step.session, caller, step.now, opaque(dossier))

            return self._portal.show(request, caller, ask, current=_HERE)

        return self._portal.signed_in(request, who, act)

    def one(self, request: Request, who: Who, dossier: str, etude: str, reference: str = "") -> Response:
        """Show one study, beside the patient of another dossier if one is named."""

        def act(caller: Caller) -> Response:
            return self._show(request, caller, opaque(dossier), opaque(etude), {"reference": reference}, {})

        return self._portal.signed_in(request, who, act)

    def _show(
        self,
        request: Request,
        caller: Caller,
        dossier: uuid.UUID,
        study: uuid.UUID,
        fields: dict[str, str],
        errors: dict[str, str],
    ) -> Response:
        def ask(step: Step) -> Answer:
            return detaching_page(
                step.session,
                caller,
                step.now,
                dossier,
                study,
                reference=_reference(fields),
                given=line(fields.get("motif", "")),
                errors=errors,
            )

        return self._portal.show(request, caller, ask, current=_HERE, status=422 if errors else 200)

    def detach(self, request: Request, who: Who, form: Form, dossier: str, etude: str) -> Response:
        """Detach the study."""

        def act(caller: Caller, fields: dict[str, str]) -> Response:
            key, study = opaque(dossier), opaque(etude)
            reference = _reference(fields)

            def verb(step: Step) -> None:
                imaging_detaching.detach(
                    step,
                    key,
                    study,
                    reason=line(fields.get("motif", "")),
                    confirmed=fields.get("confirme") == "oui",
                    seen=fields.get("vu", ""),
                    reference=reference,
                )

            try:
                self._steps.run(caller, verb)
            except InvalidContent as error:
                return self._show(request, caller, key, study, fields, {error.expression or "motif": error.text})
            said = "images-donnees" if reference else "images-detachees"
            return RedirectResponse(f"/dossiers/{key}?fait={said}", 303)

        return self._portal.posted(request, who, form, act)


def _reference(fields: dict[str, str]) -> str:
    return line(fields.get("reference", ""))[:_REFERENCE_CHARACTERS]
