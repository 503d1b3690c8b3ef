"""The routes of « Vos patients » and of the fiche.

Promises: only the treating physician's forms are taken, by the verbs of `gateway.rcp.contribution`; what one may not
see answers 404 like what does not exist.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from gateway.errors import Forbidden, Unsupported
from gateway.portal import dossiers
from gateway.portal.fiche import fiche as read_fiche
from gateway.portal.forms import ContributionInput, Faults, read_contribution
from gateway.portal.pages import Answer, Form, Portal, Who, opaque
from gateway.rcp import access
from gateway.rcp.access import Caller
from gateway.rcp.contribution import contribute, decline
from gateway.rcp.step import Step

__all__ = ["PhysicianPages"]

_OWN_FIELDS = frozenset({"commentaire", "interet", "version"})

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
        router.add_api_route("/dossiers/{dossier}/contribution", self.back_to_fiche, methods=["GET"])
        router.add_api_route("/dossiers/{dossier}/contribution", self.contribute, methods=["POST"])
        router.add_api_route("/dossiers/{dossier}/pas-mon-patient", self.not_mine, methods=["GET"])
        router.add_api_route("/dossiers/{dossier}/pas-mon-patient", self.decline, methods=["POST"])
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
        return self._portal.signed_in(request, who, lambda caller: self._fiche(request, caller, opaque(dossier)))

    def _fiche(
        self,
        request: Request,
        caller: Caller,
        dossier_id: uuid.UUID,
        again: tuple[ContributionInput, Faults] | None = None,
    ) -> Response:
        def ask(step: Step) -> Answer:
            key = uuid.uuid4().hex
            page, lines = read_fiche(
                step.session, caller, step.now, dossier_id, form_key=key, brought=self._portal.brought
            )
            if again is not None and page.contribution_form is not None:
                given, faults = again
                form = replace(
                    page.contribution_form,
                    text=given.text,
                    interested=given.interested,
                    version=given.key,
                    errors=dict(faults),
                )
                page = replace(page, contribution_form=form)
            return page, lines

        return self._portal.show(request, caller, ask, current="/patients", status=422 if again else 200)

    def back_to_fiche(self, request: Request, who: Who, dossier: str) -> Response:
        """Lead to the fiche who asks for the form's own address, after a sign-in for example."""
        return self._portal.signed_in(
            request, who, lambda _: RedirectResponse(f"/dossiers/{opaque(dossier)}#contribution", 303)
        )

    def contribute(self, request: Request, who: Who, form: Form, dossier: str) -> Response:
        """Keep the treating physician's contribution."""

        def act(caller: Caller, fields: dict[str, str]) -> Response:
            identifier, letters = opaque(dossier), self._portal.letters
            if letters is None:
                raise Unsupported("contribution", "Les contributions ne sont pas configurées ici.")
            self._require_own(caller, identifier, fields)
            given, faults = read_contribution(fields)
            if faults:
                return self._fiche(request, caller, identifier, (given, faults))
            self._steps.run(
                caller,
                lambda step: contribute(
                    step, identifier, text=given.text, interested=given.interested, key=given.key, letters=letters
                ),
            )
            return RedirectResponse(f"/dossiers/{identifier}?fait=contribution", 303)

        return self._portal.posted(request, who, form, act)

    def _require_own(self, caller: Caller, dossier_id: uuid.UUID, fields: dict[str, str]) -> None:
        """Refuse who is not the treating physician, and any field of the fiche but his own (S2-035)."""

        def verb(step: Step) -> None:
            row = dossiers.visible_dossier(step.session, caller, dossier_id)
            if access.treats(caller, row) is None:
                text = "Seul le médecin traitant déclaré peut contribuer à cette fiche."
                raise _forbidden(caller, dossier_id, "role", text)
            if not fields.keys() <= _OWN_FIELDS:
                text = "Les champs de la fiche sont en lecture seule pour le médecin traitant."
                raise _forbidden(caller, dossier_id, "lecture-seule", text)

        self._steps.run(caller, verb)

    def not_mine(self, request: Request, who: Who, dossier: str) -> Response:
        """Ask to confirm that it is not his patient."""

        def act(caller: Caller) -> Response:
            def ask(step: Step) -> Answer:
                return dossiers.not_my_patient(step.session, caller, step.now, opaque(dossier))

            return self._portal.show(request, caller, ask, current="/patients")

        return self._portal.signed_in(request, who, act)

    def decline(self, request: Request, who: Who, form: Form, dossier: str) -> Response:
        """Keep that it is not his patient; the same form again finds it kept."""

        def act(caller: Caller, _: dict[str, str]) -> Response:
            identifier = opaque(dossier)

            def verb(step: Step) -> None:
                if dossiers.declined(step.session, caller, identifier) is None:
                    decline(step, identifier)

            self._steps.run(caller, verb)
            return RedirectResponse(f"/dossiers/{identifier}/pas-mon-patient", 303)

        return self._portal.posted(request, who, form, act)


def _forbidden(caller: Caller, dossier_id: uuid.UUID, reason: str, text: str) -> Forbidden:
    error = Forbidden(reason, text)
    error.trail = access.facts(
        caller, "refus", outcome="4", reason=reason, object_type="Dossier", object_id=str(dossier_id)
    )
    return error
