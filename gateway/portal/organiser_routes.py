"""The routes of who prepares and holds sessions; the verbs are `gateway.rcp.sessions`.

Promises: each page and each change goes through the caller's rights in the query; a form is answered by a redirect.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy import select

from gateway.errors import Conflict, InvalidContent
from gateway.model.directory import Practitioner
from gateway.portal import meetings, register
from gateway.portal import views as v
from gateway.portal.pages import Answer, Form, Portal, Who, opaque
from gateway.rcp import sessions
from gateway.rcp.access import Caller
from gateway.rcp.step import Step

__all__ = ["OrganiserPages"]

_MOVES = {"ouverte": sessions.open_session, "close": sessions.close_session}
_PRESENCE = "presence-"


class OrganiserPages:
    """Sessions, attendance, work list."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._steps = portal.steps

    def router(self) -> APIRouter:
        """Build the routes; the work list stands before the session that it could be taken for."""
        router = APIRouter(include_in_schema=False)
        router.add_api_route("/seances", self.listed, methods=["GET"])
        router.add_api_route("/seances/a-traiter", self.worklist, methods=["GET"])
        router.add_api_route("/seances/{seance}", self.one, methods=["GET"])
        router.add_api_route("/seances/{seance}/registre", self.register, methods=["GET"])
        router.add_api_route("/seances/{seance}/registre.csv", self.register_file, methods=["GET"])
        router.add_api_route("/seances/{seance}/etat", self.move, methods=["POST"])
        router.add_api_route("/seances/{seance}/presents", self.attendance, methods=["POST"])
        return router

    def listed(self, request: Request, who: Who) -> Response:
        """Show the sessions that the caller prepares."""

        def act(caller: Caller) -> Response:
            def ask(step: Step) -> Answer:
                return meetings.sessions_page(step.session, caller, self._steps.clock.now()), ()

            return self._portal.show(request, caller, ask, current="/seances")

        return self._portal.signed_in(request, who, act)

    def worklist(self, request: Request, who: Who) -> Response:
        """Show what waits for a decision."""

        def act(caller: Caller) -> Response:
            def ask(step: Step) -> Answer:
                return meetings.worklist(step.session, caller)

            return self._portal.show(request, caller, ask, current="/seances/a-traiter")

        return self._portal.signed_in(request, who, act)

    def one(self, request: Request, who: Who, seance: str) -> Response:
        """Show one session."""

        def act(caller: Caller) -> Response:
            def ask(step: Step) -> Answer:
                return meetings.session_page(step, caller, opaque(seance))

            return self._portal.show(request, caller, ask, current="/seances")

        return self._portal.signed_in(request, who, act)

    def register(self, request: Request, who: Who, seance: str) -> Response:
        """Show the register of one session."""

        def act(caller: Caller) -> Response:
            def ask(step: Step) -> Answer:
                row = meetings.held_session(step.session, caller, opaque(seance))
                return register.register_page(step.session, caller, row)

            return self._portal.show(request, caller, ask, current="/seances")

        return self._portal.signed_in(request, who, act)

    def register_file(self, request: Request, who: Who, seance: str) -> Response:
        """Give the register of one session to a spreadsheet; said in the trail first."""

        def act(caller: Caller) -> Response:
            def verb(step: Step) -> tuple[v.Register, str]:
                row = meetings.held_session(step.session, caller, opaque(seance))
                page, lines = register.register_page(step.session, caller, row)
                for one in lines:
                    step.trail.write(step.session, one)
                return page, register.csv_name(row)

            page, name = self._steps.run(caller, verb)
            headers = {"Content-Disposition": f'attachment; filename="{name}"'}
            return Response(register.as_csv(page), media_type="text/csv; charset=utf-8", headers=headers)

        return self._portal.signed_in(request, who, act)

    def move(self, request: Request, who: Who, form: Form, seance: str) -> Response:
        """Open or close a session."""

        def act(caller: Caller, fields: dict[str, str]) -> Response:
            wish, identifier = fields.get("vers", ""), opaque(seance)
            moved = _MOVES.get(wish)
            if moved is None:
                raise InvalidContent("etat-inconnu", "Cet état de séance n’existe pas.", expression="vers", rule=True)

            def verb(step: Step) -> None:
                # Who does not prepare the session must not learn that it exists.
                meetings.held_session(step.session, caller, identifier)
                moved(step, identifier)

            self._steps.run(caller, verb)
            return RedirectResponse(f"/seances/{identifier}?fait={wish}", 303)

        return self._portal.posted(request, who, form, act)

    def attendance(self, request: Request, who: Who, form: Form, seance: str) -> Response:
        """Keep who attends, and how, in one step."""

        def act(caller: Caller, fields: dict[str, str]) -> Response:
            identifier = opaque(seance)
            wished = {name.removeprefix(_PRESENCE): mode for name, mode in fields.items() if name.startswith(_PRESENCE)}

            def verb(step: Step) -> None:
                row = meetings.held_session(step.session, caller, identifier)
                if row.state != "ouverte":
                    raise Conflict("seance-etat", "Les présents se notent pendant que la séance est ouverte.")
                expected = {str(one.practitioner_id) for one in row.rcp.members if one.until is None}
                present = {str(one.practitioner_id) for one in row.attendances}
                people = step.session.scalars(
                    select(Practitioner).where(Practitioner.id.in_(sorted((expected | present) & wished.keys())))
                ).all()
                for person in people:
                    mode = wished[str(person.id)]
                    if mode and mode in meetings.PRESENCES:
                        sessions.attend(step, identifier, person, mode=mode)
                    elif str(person.id) in present:
                        sessions.leave(step, identifier, person.id)

            self._steps.run(caller, verb)
            return RedirectResponse(f"/seances/{identifier}?fait=presents", 303)

        return self._portal.posted(request, who, form, act)
