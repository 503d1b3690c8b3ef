"""The routes of the images that a person must decide on; the verbs are `gateway.rcp.imaging_cases`.

Promises: who may not decide a case gets the 404 of what does not exist, whatever he posts; a form is answered by a
redirect; the same form twice decides once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from gateway.errors import InvalidContent, Unsupported
from gateway.portal import imaging_cases as pages
from gateway.portal.forms import key_of, line
from gateway.portal.pages import Answer, Form, Portal, Who, opaque
from gateway.rcp import access, imaging_cases
from gateway.rcp.access import Caller
from gateway.rcp.step import Step

__all__ = ["ImagingPages"]

_HERE: Final = "/seances/a-traiter"
_REFERENCE_CHARACTERS: Final = 40


class ImagingPages:
    """The list of cases, and each of them."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._steps = portal.steps

    def router(self) -> APIRouter:
        """Build the routes."""
        router = APIRouter(include_in_schema=False)
        router.add_api_route("/imagerie", self.listed, methods=["GET"])
        router.add_api_route("/imagerie/{situation}", self.one, methods=["GET"])
        for name, route in (
            ("rattacher", self.give),
            ("laisser", self.leave),
            ("reexaminer", self.judge_again),
            ("reprendre", self.take_up),
        ):
            router.add_api_route(f"/imagerie/{{situation}}/{name}", route, methods=["POST"])
        return router

    def listed(self, request: Request, who: Who) -> Response:
        """Show the cases of who organises meetings."""

        def act(caller: Caller) -> Response:
            def ask(step: Step) -> Answer:
                if not access.organises(step.session, caller):
                    raise access.hidden(caller, "WorkItem", "-")
                return pages.cases_page(step.session, caller)

            return self._portal.show(request, caller, ask, current=_HERE)

        return self._portal.signed_in(request, who, act)

    def one(self, request: Request, who: Who, situation: str, reference: str = "") -> Response:
        """Show one case, beside the patient of another dossier if one is named."""

        def act(caller: Caller) -> Response:
            return self._show(request, caller, situation, {"reference": reference})

        return self._portal.signed_in(request, who, act)

    def _show(
        self,
        request: Request,
        caller: Caller,
        situation: str,
        fields: dict[str, str],
        errors: dict[str, str] | None = None,
    ) -> Response:

        def ask(step: Step) -> Answer:
            return pages.case_page(
                step.session,
                caller,
                opaque(situation),
                reference=line(fields.get("reference", ""))[:_REFERENCE_CHARACTERS],
                given=fields.get("motif", ""),
                chosen=fields.get("patient", ""),
                errors=errors,
            )

        return self._portal.show(request, caller, ask, current=_HERE, status=422 if errors else 200)

    def give(self, request: Request, who: Who, form: Form, situation: str) -> Response:
        """Give the study to a patient."""

        def verb(step: Step, fields: dict[str, str]) -> None:
            imaging_cases.give(
                step,
                opaque(situation),
                record_id=key_of(fields.get("patient", "")),
                reference=line(fields.get("reference", ""))[:_REFERENCE_CHARACTERS],
                reason=line(fields.get("motif", "")),
                confirmed=fields.get("confirme") == "oui",
                seen=fields.get("vu", ""),
            )

        return self._act(request, who, form, situation, verb, "images-rattachees")

    def leave(self, request: Request, who: Who, form: Form, situation: str) -> Response:
        """Leave the images where they are."""

        def verb(step: Step, fields: dict[str, str]) -> None:
            imaging_cases.leave(step, opaque(situation), line(fields.get("motif-refus", "")))

        return self._act(request, who, form, situation, verb, "images-laissees", reason="motif-refus")

    def judge_again(self, request: Request, who: Who, form: Form, situation: str) -> Response:
        """Judge again what is kept aside."""

        def act(caller: Caller, _: dict[str, str]) -> Response:
            objects = self._portal.objects
            if objects is None:
                raise Unsupported("imagerie", "La relecture des images n’est pas configurée ici.")
            key = opaque(situation)
            admitted = self._steps.run(caller, lambda step: imaging_cases.judge_again(step, key, objects))
            said = "images-admises" if admitted else "images-inchangees"
            return RedirectResponse(f"/imagerie/{key}?fait={said}", 303)

        return self._portal.posted(request, who, form, act)

    def take_up(self, request: Request, who: Who, form: Form, situation: str) -> Response:
        """Ask again what was left."""

        def act(caller: Caller, _: dict[str, str]) -> Response:
            new = self._steps.run(caller, lambda step: imaging_cases.take_up(step, opaque(situation)))
            return RedirectResponse(f"/imagerie/{new}", 303)

        return self._portal.posted(request, who, form, act)

    def _act(
        self,
        request: Request,
        who: Who,
        form: Form,
        situation: str,
        verb: Callable[[Step, dict[str, str]], None],
        done: str,
        *,
        reason: str = "motif",
    ) -> Response:
        def act(caller: Caller, fields: dict[str, str]) -> Response:
            try:
                self._steps.run(caller, lambda step: verb(step, fields))
            except InvalidContent as error:
                where = error.expression or "motif"
                errors = {reason if where == "motif" else where: error.text}
                return self._show(request, caller, situation, fields, errors)
            return RedirectResponse(f"/imagerie/{opaque(situation)}?fait={done}", 303)

        return self._portal.posted(request, who, form, act)
