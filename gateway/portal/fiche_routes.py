"""The routes that write the fiche, by the verbs of `gateway.rcp.fiche`.

Promises: only the requester and the organisers get the form; what was written meanwhile by somebody else is said beside
the field and never overwritten unseen; the same form twice is one change.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from gateway.errors import Conflict, InvalidContent
from gateway.model.dossier import Dossier
from gateway.portal import fiche_form, words
from gateway.portal import views as v
from gateway.portal.forms import Faults
from gateway.portal.pages import Answer, Form, Portal, Who, opaque
from gateway.rcp import access, fiche, inscription
from gateway.rcp.access import Caller
from gateway.rcp.fiche_fields import fields
from gateway.rcp.step import Step

__all__ = ["FichePages"]

_READ = "version"
_NEXT = "suite"


class FichePages:
    """The form of one fiche."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._steps = portal.steps

    def router(self) -> APIRouter:
        """Build the routes."""
        router = APIRouter(include_in_schema=False)
        router.add_api_route("/dossiers/{dossier}/fiche", self.form, methods=["GET"])
        router.add_api_route("/dossiers/{dossier}/fiche", self.edit, methods=["POST"])
        return router

    def form(self, request: Request, who: Who, dossier: str) -> Response:
        """Show the form."""
        return self._portal.signed_in(request, who, lambda caller: self._show(request, caller, opaque(dossier)))

    def _show(
        self,
        request: Request,
        caller: Caller,
        dossier_id: uuid.UUID,
        given: Mapping[str, str] | None = None,
        faults: Faults | None = None,
        status: int = 200,
    ) -> Response:
        def ask(step: Step) -> Answer:
            row = fiche.held(step, dossier_id)
            known = fiche.statements(row)
            errors = dict(faults or {})
            if status == 409 and given is not None:
                changes, _ = fiche_form.changes_of(given, fiche.rules_of(row.session.rcp))
                errors |= _differing(known, changes)
            page = v.FicheForm(
                reference=row.reference,
                patient=words.patient_view(row.record, step.now.date(), row.partner.name if row.partner else ""),
                action=f"/dossiers/{row.id}/fiche",
                back_url=f"/dossiers/{row.id}",
                sections=fiche_form.inputs(known, fiche.rules_of(row.session.rcp), _people(row), given),
                lists=fiche_form.datalists(),
                version=fiche.reading_of(row),
                missing=fiche.missing(step.session, row),
                declared=row.prefiche_at is not None,
                errors=errors,
            )
            line = access.facts(
                caller,
                "consultation",
                persons=(row.record_id,),
                dossier=row.id,
                object_type="Dossier",
                object_id=str(row.id),
                object_version=str(row.version),
                happened=step.now,
            )
            return page, [line]

        return self._portal.show(request, caller, ask, current="/patients", status=status)

    def edit(self, request: Request, who: Who, form: Form, dossier: str) -> Response:
        """Write what changed, and declare the fiche complete if asked."""

        def act(caller: Caller, sent: dict[str, str]) -> Response:
            identifier = opaque(dossier)
            given = {name: value for name, value in sent.items() if name not in {_READ, _NEXT}}

            def verb(step: Step) -> Faults:
                row = fiche.held(step, identifier)
                changes, faults = fiche_form.changes_of(given, fiche.rules_of(row.session.rcp))
                if not faults:
                    fiche.edit(step, identifier, changes, expected=sent.get(_READ, ""))
                    if sent.get(_NEXT) == "complete":
                        inscription.declare_complete(step, identifier)
                return faults

            try:
                faults = self._steps.run(caller, verb)
            except InvalidContent as error:
                where = next((key for key in fields() if f"'{key}'" in (error.expression or "")), error.expression)
                return self._show(request, caller, identifier, given, {where or "fiche": error.text}, 422)
            except Conflict as error:
                if error.code != "fiche-changee":
                    raise
                return self._show(request, caller, identifier, given, {"fiche": error.text}, 409)
            if faults:
                return self._show(request, caller, identifier, given, faults, 422)
            return RedirectResponse(f"/dossiers/{identifier}?fait=fiche", 303)

        return self._portal.posted(request, who, form, act)


def _differing(known: Mapping[str, fiche.Statement], changes: Mapping[str, object]) -> dict[str, str]:
    found = {}
    for key, value in changes.items():
        one = known.get(key)
        if (one.value if one else None) != value:
            said = fiche.in_words(fields()[key], one.value) if one else "rien"
            found[key] = f"{fields()[key].label} : la fiche dit maintenant « {said} »."
    return found


def _people(row: Dossier) -> fiche_form.People:
    """Who may present the case: the requester and the members of the RCP."""
    members = [one.practitioner for one in row.session.rcp.members if one.until is None]
    listed = [*([row.requester] if row.requester is not None else []), *sorted(members, key=lambda p: p.family)]
    return tuple(dict.fromkeys((one.idnps, words.formal_name(one)) for one in listed))
