"""The route of a dossier's images.

Promises: the page leaves after its audit line is durable; who may not see the dossier gets the 404 of what does not
exist. The pictures themselves are asked of the DICOMweb wire by the browser, in the same session.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from gateway.portal import viewer
from gateway.portal.pages import Answer, Portal, Who, opaque
from gateway.rcp.access import Caller
from gateway.rcp.step import Step

__all__ = ["ViewerPages"]


class ViewerPages:
    """The images of a dossier."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal

    def router(self) -> APIRouter:
        """Build the route."""
        router = APIRouter(include_in_schema=False)
        router.add_api_route("/dossiers/{dossier}/images", self.images, methods=["GET"])
        return router

    def images(
        self, request: Request, who: Who, dossier: str, serie: str = "", objet: str = "", cles: str = ""
    ) -> Response:
        """Show the images."""

        def act(caller: Caller) -> Response:
            def ask(step: Step) -> Answer:
                return viewer.images(step.session, caller, step.now, opaque(dossier), serie, objet, keyed=cles == "1")

            return self._portal.show(request, caller, ask, current="/patients")

        return self._portal.signed_in(request, who, act)
