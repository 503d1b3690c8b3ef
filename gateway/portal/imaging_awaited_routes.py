"""The routes of the images that a dossier awaits; the verbs are `gateway.rcp.imaging_orders`.

Promises: who may edit the fiche declares, anybody else gets the 404 of what does not exist, or is told that he reads
only; the same form twice declares once.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import date, datetime

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from gateway.errors import InvalidContent
from gateway.portal.forms import line
from gateway.portal.imaging_awaited import awaited_page
from gateway.portal.pages import Answer, Form, Portal, Who, opaque
from gateway.rcp import imaging_orders
from gateway.rcp.access import Caller
from gateway.rcp.step import Step

__all__ = ["AwaitedPages"]


class AwaitedPages:
    """What one dossier awaits."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._steps = portal.steps

    def router(self) -> APIRouter:
        """Build the routes."""
        router = APIRouter(include_in_schema=False)
        router.add_api_route("/dossiers/{dossier}/images-attendues", self.page, methods=["GET"])
        router.add_api_route("/dossiers/{dossier}/images-attendues", self.declare, methods=["POST"])
        router.add_api_route("/dossiers/{dossier}/images-attendues/{attendu}/retirer", self.take_back, methods=["POST"])
        return router

    def page(self, request: Request, who: Who, dossier: str) -> Response:
        """Show what is awaited and the form."""
        return self._portal.signed_in(request, who, lambda caller: self._show(request, caller, opaque(dossier), {}, {}))

    def _show(
        self, request: Request, caller: Caller, key: uuid.UUID, given: Mapping[str, str], errors: Mapping[str, str]
    ) -> Response:
        def ask(step: Step) -> Answer:
            once = given.get("cle") or uuid.uuid4().hex
            return awaited_page(step.session, caller, key, key=once, given=given, errors=errors)

        return self._portal.show(request, caller, ask, current="/patients", status=422 if errors else 200)

    def declare(self, request: Request, who: Who, form: Form, dossier: str) -> Response:
        """Declare an exam."""

        def act(caller: Caller, fields: dict[str, str]) -> Response:
            key = opaque(dossier)
            once = fields.get("cle", "")
            try:
                planned = _day(line(fields.get("prevu", "")))
                self._steps.run(
                    caller,
                    lambda step: imaging_orders.declare(
                        step,
                        key,
                        label=line(fields.get("examen", "")),
                        modality=fields.get("modalite", ""),
                        planned_on=planned,
                        key=once if once.isalnum() and len(once) <= 64 else uuid.uuid4().hex,
                    ),
                )
            except InvalidContent as error:
                return self._show(request, caller, key, fields, {error.expression or "examen": error.text})
            return RedirectResponse(f"/dossiers/{key}/images-attendues?fait=images-attendues", 303)

        return self._portal.posted(request, who, form, act)

    def take_back(self, request: Request, who: Who, form: Form, dossier: str, attendu: str) -> Response:
        """Await an exam no more."""

        def act(caller: Caller, _: dict[str, str]) -> Response:
            key, line_key = opaque(dossier), opaque(attendu)
            self._steps.run(caller, lambda step: imaging_orders.take_back(step, key, line_key))
            return RedirectResponse(f"/dossiers/{key}/images-attendues?fait=images-attendues", 303)

        return self._portal.posted(request, who, form, act)


def _day(written: str) -> date | None:
    if not written:
        return None
    try:
        return datetime.strptime(written, "%d/%m/%Y").date()  # noqa: DTZ007 - a calendar day, of no zone
    except ValueError:
        text = "Écrivez une date : JJ/MM/AAAA."
        raise InvalidContent("date-illisible", text, expression="prevu", rule=True) from None
