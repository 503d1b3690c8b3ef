"""The portal's routes that everybody may ask for, and what all its routes share.

`gateway.portal.routes.router` gathers the routes of every module. `Portal.chrome` is what the sign-in's pages ask for;
`Portal.refused` answers any error, and any address that no route knows, in a page.

Promises: a page that shows a person leaves after its audit line is durable; a form is taken with its session's token
only, answered by a redirect, and the same form twice does the thing once; who is not signed in is led to the sign-in
and back. Pages are never kept by a cache (`gateway.web.headers`).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from typing import Annotated, Final

import structlog
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy.orm import Session
from starlette.datastructures import FormData

from gateway.errors import GatewayError, NotFound
from gateway.exchange.blobs import BlobStore
from gateway.model.audit import AuditFacts
from gateway.portal import frame, public
from gateway.portal import views as v
from gateway.portal.forms import FORM_BYTES, fields_of
from gateway.portal.outcome import error_page
from gateway.portal.render import STATIC_TYPES, render, static_file
from gateway.rcp import access
from gateway.rcp.access import Caller
from gateway.rcp.ports import BroughtFiles, ImageObjects, Letters
from gateway.rcp.report import Press
from gateway.rcp.step import Step, Steps
from gateway.settings import Limits
from gateway.web.authenticators import SESSION, current_caller
from gateway.web.body import Limit, form_under
from gateway.web.csrf import CSRF_FIELD, Csrf
from gateway.web.next_path import sign_in_address
from gateway.web.outcome import answer_headers
from gateway.web.request_id import request_id

__all__ = ["Answer", "Form", "Portal", "PublicPages", "Who", "opaque"]

_FORM: Final = Limit("formulaire du portail", FORM_BYTES)
_TEST_COOKIE: Final = "rcp-essai"
_SEARCH_CHARACTERS: Final = 200
_YEAR_S: Final = 31_536_000
_log = structlog.get_logger("gateway.portal")

#: What a page is made of, asked inside a step that keeps its audit lines.
Answer = tuple[v.Page, Iterable[AuditFacts]]


async def _caller(request: Request) -> Caller | None:
    return await current_caller(request, SESSION)


async def _form(request: Request) -> FormData:
    return await form_under(request, _FORM, max_files=0)


Who = Annotated[Caller | None, Depends(_caller)]
Form = Annotated[FormData, Depends(_form)]


def opaque(written: str) -> uuid.UUID:
    """Read an identifier of an address; one that cannot be is the 404 of one that is not."""
    try:
        return uuid.UUID(written)
    except ValueError:
        raise NotFound("inconnu", "Ressource inconnue.") from None


class Portal:
    """The pages.

    Parameters
    ----------
    csrf
        The same as the sign-in's: forms are bound to the session.
    letters
        Composes the mail that a contribution causes; without it contributions are refused in words.
    press
        What validating a report needs; without it validation is refused in words.
    brought
        Finds the files that softwares brought for a dossier; without it none is shown.
    limits
        What may be sent at once.
    objects
        Reads images that are kept aside; without it they are not judged again.
    fictitious
        Whether every page says that its data are fictitious (demonstration).
    """

    def __init__(
        self,
        *,
        steps: Steps,
        csrf: Csrf,
        blobs: BlobStore,
        letters: Letters | None = None,
        press: Press | None = None,
        objects: ImageObjects | None = None,
        brought: BroughtFiles | None = None,
        limits: Limits | None = None,
        fictitious: bool = False,
    ) -> None:
        self.steps = steps
        self.blobs = blobs
        self.letters = letters
        self.press = press
        self.objects = objects
        self.brought = brought
        self.limits = limits or Limits()
        self._csrf = csrf
        self._fictitious = fictitious

    # -- shared by every route ---------------------------------------------------------------------------------------

    def chrome(self, request: Request) -> v.Chrome:
        """Return what surrounds a page for somebody who is not signed in."""
        with self.steps.store.session() as session:
            return self._around(request, session, None, "")

    def _around(self, request: Request, session: Session, caller: Caller | None, current: str) -> v.Chrome:
        return frame.chrome(request, session, caller, self._csrf, current=current, fictitious=self._fictitious)

    def show(
        self,
        request: Request,
        caller: Caller | None,
        ask: Callable[[Step], Answer],
        *,
        current: str = "",
        status: int = 200,
    ) -> Response:
        """Answer a page once the audit lines of what it shows are durable."""

        def verb(step: Step) -> tuple[v.Page, v.Chrome]:
            page, lines = ask(step)
            for one in lines:
                step.trail.write(step.session, one)
            return page, self._around(request, step.session, caller, current)

        page, around = self.steps.run(caller or access.SYSTEM, verb)
        return HTMLResponse(render(page, around), status)

    def open_to_all(
        self, request: Request, caller: Caller | None, ask: Callable[[Session], v.Page], *, current: str = ""
    ) -> Response:
        """Answer a page that names nobody."""
        return self.guarded(
            request, caller, lambda: self.show(request, caller, lambda step: (ask(step.session), ()), current=current)
        )

    def signed_in(self, request: Request, caller: Caller | None, act: Callable[[Caller], Response]) -> Response:
        """Answer who is signed in; lead anybody else to the sign-in and back."""
        if caller is None:
            return RedirectResponse(sign_in_address(request), 303)
        return self.guarded(request, caller, lambda: act(caller))

    def posted(
        self, request: Request, caller: Caller | None, form: FormData, act: Callable[[Caller, dict[str, str]], Response]
    ) -> Response:
        """Take a form from who is signed in, with the token of that very session."""

        def checked(known: Caller) -> Response:
            fields = fields_of(form)
            self._csrf.check(request, known.session or "", fields.pop(CSRF_FIELD, None))
            return act(known, fields)

        return self.signed_in(request, caller, checked)

    def guarded(self, request: Request, caller: Caller | None, act: Callable[[], Response]) -> Response:
        """Turn a refusal into its page."""
        try:
            return act()
        except GatewayError as error:
            return self.refused(request, error, caller)

    def refused(self, request: Request, error: GatewayError | None, caller: Caller | None = None) -> Response:
        """Answer the page of a refusal; ``None`` is an address that no route knows."""
        page = error_page(error, reference=request_id())
        if page.status >= 500:
            _log.error("page failed", code=error.code if error else "-", status=page.status)
        try:
            with self.steps.store.session() as session:
                around = self._around(request, session, caller, "")
        except Exception:  # noqa: BLE001 - the page of a failing database needs none
            around = v.Chrome(old_browser=frame.is_old(request), fictitious=self._fictitious)
        headers = answer_headers(error) if error is not None else None
        return HTMLResponse(render(page, around), page.status, headers)


class PublicPages:
    """The pages that anyone may read, and the static files."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._steps = portal.steps

    def router(self) -> APIRouter:
        """Build the routes."""
        router = APIRouter(include_in_schema=False)
        router.add_api_route("/", self.home, methods=["GET", "HEAD"])
        router.add_api_route("/rcp", self.directory, methods=["GET"])
        router.add_api_route("/rcp/{rcp}", self.meeting, methods=["GET"])
        router.add_api_route("/static/{name}", self.static, methods=["GET"])
        for path in _HELP:
            router.add_api_route(path, self.help, methods=["GET"])
        router.add_api_route("/aide/navigateurs", self.browsers, methods=["GET"])
        router.add_api_route("/aide/test", self.test, methods=["GET"])
        return router

    def home(self, request: Request, who: Who) -> Response:
        """Show the public home page."""
        return self._open(request, who, lambda session: public.home(session, self._steps.clock.now()), "/")

    def directory(self, request: Request, who: Who, q: str = "", niveau: str = "") -> Response:
        """Show the meetings that were searched for."""

        def ask(session: Session) -> v.Page:
            return public.directory(session, self._steps.clock.now(), q[:_SEARCH_CHARACTERS], niveau)

        return self._open(request, who, ask, "/rcp")

    def meeting(self, request: Request, who: Who, rcp: str) -> Response:
        """Show one meeting."""

        def ask(session: Session) -> v.Page:
            return public.meeting(session, self._steps.clock.now(), who, opaque(rcp))

        return self._open(request, who, ask, "/rcp")

    def static(self, request: Request, name: str) -> Response:
        """Give a static file; its address changes with its content."""
        content = static_file(name)
        if content is None:
            return self._portal.refused(request, None)
        kept = {"Cache-Control": f"public, max-age={_YEAR_S}, immutable"}
        return Response(content, media_type=STATIC_TYPES[name], headers=kept)

    def help(self, request: Request, who: Who) -> Response:
        """Show a page of help."""
        return self._open(request, who, lambda _: _HELP[request.url.path], "/aide")

    def browsers(self, request: Request, who: Who) -> Response:
        """Show the compatible browsers."""
        return self._open(request, who, lambda _: _browsers(request), "/aide")

    def test(self, request: Request, who: Who, essai: str = "") -> Response:
        """Test the workstation: the cookie comes back with the next request, or cookies are refused."""
        if essai == "1":
            answer = RedirectResponse("/aide/test?essai=2", 303)
            answer.set_cookie(_TEST_COOKIE, "1", max_age=60, path="/aide/test", httponly=True, samesite="lax")
            return answer
        return self._open(request, who, lambda _: _self_test(request, done=essai == "2"), "/aide")

    def _open(
        self, request: Request, caller: Caller | None, ask: Callable[[Session], v.Page], current: str
    ) -> Response:
        return self._portal.open_to_all(request, caller, ask, current=current)


_HELP: Final[dict[str, v.Page]] = {
    "/aide": v.Help(),
    "/aide/medecin-traitant": v.PhysicianMemo(),
    "/aide/medecin-rcp": v.MemberMemo(),
    "/aide/accessibilite": v.Accessibility(),
}


def _browsers(request: Request) -> v.Browsers:
    found = frame.browser(request)
    minimum = tuple((name, ".".join(map(str, version))) for name, version in frame.MINIMUM.items())
    return v.Browsers(minimum, f"{found[0]} {'.'.join(map(str, found[1]))}" if found else "")


def _self_test(request: Request, *, done: bool) -> v.SelfTest:
    if not done:
        return v.SelfTest()
    good = v.Badge("Conforme", "success")
    secure = request.url.scheme == "https"
    known = frame.browser(request)
    cookies = request.cookies.get(_TEST_COOKIE) == "1"
    checks = (
        v.TestCheck("Liaison avec le service", good),
        v.TestCheck("Liaison chiffrée (HTTPS)", good)
        if secure
        else v.TestCheck(
            "Liaison chiffrée (HTTPS)",
            v.Badge("Non chiffrée", "danger"),
            "L’adresse doit commencer par https:// ; un relais de l’établissement l’a peut-être changée.",
        ),
        v.TestCheck("Navigateur", v.Badge("Trop ancien", "warning"), "Voyez la page « Navigateurs compatibles ».")
        if frame.is_old(request)
        else v.TestCheck("Navigateur", good if known else v.Badge("Non reconnu", "info")),
        v.TestCheck("Témoins de connexion (cookies)", good)
        if cookies
        else v.TestCheck(
            "Témoins de connexion (cookies)",
            v.Badge("Refusés", "danger"),
            "Autorisez les témoins de connexion pour ce site : sans eux, l’identification est impossible.",
        ),
    )
    return v.SelfTest(checks, done=True)
