"""The routes of « Vos patients » and of the fiche."""

from __future__ import annotations

import uuid
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from gateway.portal import dossiers
from gateway.portal.pages import Answer, Portal, Who, opaque
from gateway.rcp.access import Caller
from gateway.rcp.step import Step

__all__ = ["PhysicianPages"]

States = Annotated[list[str] | None, Query()]


class PhysicianPages:
    """« Vos patients », the fiche, the contribution, « ce n’est pas mon patient »."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._steps = portal.steps

    def router(self) -> APIRouter:
        """Build the routes."""
        router = APIRouter(include_in_schema=False)
        router.add_api_route("/patients", self.patients, methods=["GET"])
        router.add_api_route("/dossiers/{dossier}", self.fiche, methods=["GET"])
        return router

    def patients(self, request: Request, who: Who, etat: States = None, page: str = "", taille: str = "") -> Response:
        """Show the landing page."""
        query = dossiers.PatientsQuery.read(etat or (), page, taille)

        def act(caller: Caller) -> Response:
            def ask(step: Step) -> Answer:
                return dossiers.patients(step.session, caller, self._steps.clock.now(), query)

            return self._portal.show(request, caller, ask, current="/patients")

        return self._portal.signed_in(request, who, act)

    def fiche(self, request: Request, who: Who, dossier: str) -> Response:
        """Show one fiche."""

        def act(caller: Caller) -> Response:
            def ask(step: Step) -> Answer:
                key = uuid.uuid4().hex
                return dossiers.fiche(step.session, caller, self._steps.clock.now(), opaque(dossier), form_key=key)

            return self._portal.show(request, caller, ask, current="/patients")

        return self._portal.signed_in(request, who, act)
