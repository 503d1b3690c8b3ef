"""The routes of a study sent to another establishment; the verbs are `gateway.rcp.imaging_sending`.

Promises: who does not organise the RCP gets the 404 of what does not exist; nothing leaves before a person said where
to and confirmed it; the same form twice sends once, and says so; what failed is sent again on request.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from gateway.errors import InvalidContent
from gateway.portal.forms import key_of, line
from gateway.portal.imaging_sending import sending_page
from gateway.portal.pages import Answer, Form, Portal, Who, opaque
from gateway.rcp import imaging_sending
from gateway.rcp.access import Caller
from gateway.rcp.imaging_sending import Asked
from gateway.rcp.step import Step

__all__ = ["SendingPages"]

_PLACE_CHARACTERS = 2000
_SAID: Final[Mapping[Asked, str]] = {
    "nouveau": "images-envoyees",
    "repris": "images-reprises",
    "deja": "images-deja-envoyees",
}


class SendingPages:
    """The sendings of one dossier's images."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._steps = portal.steps

    def router(self) -> APIRouter:
        """Build the routes."""
        router = APIRouter(include_in_schema=False)
        router.add_api_route("/dossiers/{dossier}/envois", self.page, methods=["GET"])
        router.add_api_route("/dossiers/{dossier}/envois", self.send, methods=["POST"])
        router.add_api_route("/dossiers/{dossier}/envois/{envoi}/reprise", self.again, methods=["POST"])
        return router

    def page(self, request: Request, who: Who, dossier: str) -> Response:
        """Show what was sent and the form."""
        return self._portal.signed_in(request, who, lambda caller: self._show(request, caller, opaque(dossier), {}, {}))

    def _show(
        self, request: Request, caller: Caller, key: uuid.UUID, given: Mapping[str, str], errors: Mapping[str, str]
    ) -> Response:
        def ask(step: Step) -> Answer:
            return sending_page(step.session, caller, step.now, key, given, errors)

        return self._portal.show(request, caller, ask, current="/patients", status=422 if errors else 200)

    def send(self, request: Request, who: Who, form: Form, dossier: str) -> Response:
        """Send a study."""

        def act(caller: Caller, fields: dict[str, str]) -> Response:
            key = opaque(dossier)

            def verb(step: Step) -> Asked:
                return imaging_sending.send_from_dossier(
                    step,
                    key,
                    key_of(fields.get("etude", "")),
                    line(fields.get("destination", ""))[:_PLACE_CHARACTERS],
                    confirmed=fields.get("confirme") == "oui",
                )

            try:
                asked = self._steps.run(caller, verb)
            except InvalidContent as error:
                errors = {error.expression or "destination": error.text}
                return self._show(request, caller, key, fields, errors)
            return _done(key, asked)

        return self._portal.posted(request, who, form, act)

    def again(self, request: Request, who: Who, form: Form, dossier: str, envoi: str) -> Response:
        """Send what failed once more."""

        def act(caller: Caller, _: dict[str, str]) -> Response:
            key, message = opaque(dossier), opaque(envoi)
            return _done(key, self._steps.run(caller, lambda step: imaging_sending.again(step, key, message)))

        return self._portal.posted(request, who, form, act)


def _done(key: uuid.UUID, asked: Asked) -> Response:
    return RedirectResponse(f"/dossiers/{key}/envois?fait={_SAID[asked]}", 303)
