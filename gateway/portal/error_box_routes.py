"""The routes of the error box; the verbs are `gateway.rcp.error_box`.

Promises: who may not see a situation gets the 404 of what does not exist, whatever he posts; a form is answered by a
redirect; the same form twice does the thing once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from gateway.errors import InvalidContent, Unsupported
from gateway.portal import error_box as pages
from gateway.portal.forms import line
from gateway.portal.pages import Answer, Form, Portal, Who, opaque
from gateway.rcp import access, error_box
from gateway.rcp.access import Caller
from gateway.rcp.step import Step

__all__ = ["ErrorBoxPages"]

_HERE: Final = "/seances/a-traiter"


class ErrorBoxPages:
    """The list of what became wrong with mails, and each situation."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._steps = portal.steps

    def router(self) -> APIRouter:
        """Build the routes."""
        router = APIRouter(include_in_schema=False)
        router.add_api_route("/erreurs", self.listed, methods=["GET"])
        router.add_api_route("/erreurs/{situation}", self.one, methods=["GET"])
        router.add_api_route("/erreurs/{situation}/courriel", self.mail, methods=["GET"])
        for name, route in (
            ("rejouer", self.replay),
            ("renvoyer", self.resend),
            ("oublier", self.forget),
            ("reprendre", self.take_back),
            ("rattacher", self.tie),
            ("clore", self.close),
        ):
            router.add_api_route(f"/erreurs/{{situation}}/{name}", route, methods=["POST"])
        return router

    def listed(self, request: Request, who: Who, genre: str = "", age: str = "") -> Response:
        """Show the open situations of who organises meetings."""

        def act(caller: Caller) -> Response:
            def ask(step: Step) -> Answer:
                if not access.organises(step.session, caller):
                    raise access.hidden(caller, "WorkItem", "-")
                return pages.box_page(step.session, caller, genre, age)

            return self._portal.show(request, caller, ask, current=_HERE)

        return self._portal.signed_in(request, who, act)

    def one(self, request: Request, who: Who, situation: str) -> Response:
        """Show one situation."""
        return self._portal.signed_in(request, who, lambda caller: self._show(request, caller, situation))

    def _show(
        self,
        request: Request,
        caller: Caller,
        situation: str,
        given: str = "",
        error: InvalidContent | None = None,
    ) -> Response:
        errors = {error.expression or "motif": error.text} if error is not None else {}

        def ask(step: Step) -> Answer:
            return pages.item_page(step, caller, opaque(situation), given=given, errors=errors)

        return self._portal.show(request, caller, ask, current=_HERE, status=422 if errors else 200)

    def mail(self, request: Request, who: Who, situation: str) -> Response:
        """Give the very bytes of a mail that came, tied to a dossier that the reader sees; said in the trail first."""

        def act(caller: Caller) -> Response:
            def verb(step: Step) -> tuple[bytes | None, str, str]:
                item = error_box.held(step.session, caller, opaque(situation))
                found = error_box.readable(step.session, caller, item)
                if found is None:
                    raise access.hidden(caller, "Message", item.message_id)
                message, dossier = found
                step.audit(
                    "consultation",
                    persons=(dossier.record_id,),
                    dossier=dossier.id,
                    object_type="Message",
                    object_id=str(message.id),
                    object_sha256=message.sha256,
                )
                return message.content, message.sha256, dossier.reference

            content, sha256, reference = self._steps.run(caller, verb)
            headers = {"Content-Disposition": f'attachment; filename="{reference}.eml"'}
            kept = content if content is not None else self._portal.blobs.read(sha256)
            # Never shown by the browser itself: it is what somebody sent.
            return Response(kept, media_type="application/octet-stream", headers=headers)

        return self._portal.signed_in(request, who, act)

    def replay(self, request: Request, who: Who, form: Form, situation: str) -> Response:
        """Send or read the message again."""

        def verb(step: Step, _: dict[str, str]) -> None:
            error_box.replay(step, opaque(situation))

        return self._act(request, who, form, situation, verb, "rejoue")

    def resend(self, request: Request, who: Who, form: Form, situation: str) -> Response:
        """Send the letter to another address."""
        letters, press = self._portal.letters, self._portal.press

        def verb(step: Step, fields: dict[str, str]) -> None:
            if letters is None:
                raise Unsupported("renvoi", "La messagerie n’est pas configurée ici.")
            mails = press.mails if press is not None else None
            mailbox, remember = fields.get("adresse", ""), bool(fields.get("retenir"))
            blobs = self._portal.blobs
            error_box.resend(step, opaque(situation), mailbox, letters, mails, blobs, remember=remember)

        return self._act(request, who, form, situation, verb, "renvoye")

    def forget(self, request: Request, who: Who, form: Form, situation: str) -> Response:
        """Use the address no more."""

        def verb(step: Step, _: dict[str, str]) -> None:
            error_box.forget_address(step, opaque(situation))

        return self._act(request, who, form, situation, verb, "adresse")

    def take_back(self, request: Request, who: Who, form: Form, situation: str) -> Response:
        """Use the address again."""

        def verb(step: Step, _: dict[str, str]) -> None:
            error_box.take_address_back(step, opaque(situation))

        return self._act(request, who, form, situation, verb, "reprise")

    def tie(self, request: Request, who: Who, form: Form, situation: str) -> Response:
        """Tie the mail to a dossier."""

        def verb(step: Step, fields: dict[str, str]) -> None:
            error_box.tie(step, opaque(situation), line(fields.get("reference", "")))

        return self._act(request, who, form, situation, verb, "rattache")

    def close(self, request: Request, who: Who, form: Form, situation: str) -> Response:
        """Close the situation with what was done."""

        def verb(step: Step, fields: dict[str, str]) -> None:
            error_box.close(step, opaque(situation), line(fields.get("motif", "")))

        return self._act(request, who, form, situation, verb, "clos")

    def _act(
        self,
        request: Request,
        who: Who,
        form: Form,
        situation: str,
        verb: Callable[[Step, dict[str, str]], None],
        done: str,
    ) -> Response:
        def act(caller: Caller, fields: dict[str, str]) -> Response:
            try:
                self._steps.run(caller, lambda step: verb(step, fields))
            except InvalidContent as error:
                return self._show(request, caller, situation, fields.get("motif", ""), error)
            return RedirectResponse(f"/erreurs/{opaque(situation)}?fait={done}", 303)

        return self._portal.posted(request, who, form, act)
