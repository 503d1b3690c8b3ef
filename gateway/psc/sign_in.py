"""Signing in and out through Pro Santé Connect: the routes.

``gateway.app`` calls `SignIn` with what it composes, mounts `SignIn.router` and registers `SignIn.authenticate` under
`gateway.web.authenticators.SESSION` (wrapped by ``in_thread``).

Promises: a session opens only after the whole protocol; each refusal is a French page, an audit line and no session;
no identity, code, state or token reaches a log. Pages come from whoever implements `Pages` (the portal): this module
knows no template.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Final, Protocol
from urllib.parse import quote

import structlog
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.datastructures import FormData

from gateway.errors import Fault, Forbidden, GatewayError, InvalidContent, Unavailable, UnknownIdentity
from gateway.psc.accounts import Professional, read_professional
from gateway.psc.oidc import Proven, PscClient, new_attempt
from gateway.psc.outcome import Refusal, refusal_page
from gateway.psc.sessions import ATTEMPT, Opened, Origin, Sessions
from gateway.rcp.access import Caller
from gateway.web.body import Limit, form_under
from gateway.web.csrf import CSRF_FIELD, Csrf
from gateway.web.next_path import local_path
from gateway.web.proxy import client_address
from gateway.web.rate import Rate, RateLimiter, rate_by_address
from gateway.web.request_id import request_id

__all__ = ["SIGN_IN_RATE", "Pages", "SignIn"]

SIGN_IN_RATE: Final = Rate("connexions par adresse", per_minute=120)
"""Sign-in steps of one address: a hospital's doctors may share one."""

_FORM: Final = Limit("formulaire de connexion", 64 * 1024)
_MAX_CHARACTERS: Final = 4096
_RETRIED: Final = frozenset({"server_error", "temporarily_unavailable"})
_log = structlog.get_logger("gateway.psc")


async def _form(request: Request) -> FormData:
    return await form_under(request, _FORM, max_fields=20, max_files=0)


_Form = Annotated[FormData, Depends(_form)]


class Pages(Protocol):
    """The pages that signing in shows, as HTML."""

    def sign_in(self, request: Request, *, psc_url: str, problem: str) -> str:
        """Show the button, and in words why the last try ended, if it did."""

    def situation(self, request: Request, *, choices: Sequence[tuple[str, str]], csrf_token: str, problem: str) -> str:
        """Ask in which work situation the professional works now: (key, label) each, field ``situation``."""

    def refused(self, request: Request, *, refusal: Refusal) -> str:
        """Say a refusal."""


class SignIn:
    """Routes and authenticator of the portal's sessions.

    Parameters
    ----------
    client
        ``None`` when Pro Santé Connect is not configured: the pages say so.
    client_id
        Ours at the provider, for the register of used logout tokens.
    public_url
        Our own address; https gives the cookies ``__Host-`` and ``Secure``.
    """

    def __init__(
        self,
        *,
        client: PscClient | None,
        sessions: Sessions,
        csrf: Csrf,
        pages: Pages,
        public_url: str,
        client_id: str = "",
        rate: Rate = SIGN_IN_RATE,
    ) -> None:
        self._client = client
        self._sessions = sessions
        self._csrf = csrf
        self._pages = pages
        self._public_url = public_url.rstrip("/")
        self._client_id = client_id
        self._secure = self._public_url.startswith("https://")
        prefix = "__Host-" if self._secure else ""
        self._session_cookie = f"{prefix}rcp-session"
        self._attempt_cookie = f"{prefix}rcp-connexion"
        self._limiter = RateLimiter(rate)

    # -- for the other wires -----------------------------------------------------------------------------------------

    def authenticate(self, request: Request) -> Caller | None:
        """Return the caller of a session cookie; ``None`` without an open session or before a situation is chosen."""
        opened = self.opened(request)
        return None if opened is None or opened.pending else opened.caller(_origin(request))

    def opened(self, request: Request) -> Opened | None:
        """Return the open session of a request, pending or not."""
        token = request.cookies.get(self._session_cookie)
        return self._sessions.find(token, _origin(request)) if token else None

    # -- routes ------------------------------------------------------------------------------------------------------

    def router(self) -> APIRouter:
        """Build the router of every address of this module."""
        router = APIRouter(include_in_schema=False, dependencies=[Depends(rate_by_address(self._limiter))])

        @router.get("/connexion")
        def connexion(request: Request) -> Response:
            return self._answer(request, self._sign_in_page)

        @router.get("/psc/connexion")
        def begin(request: Request) -> Response:
            return self._answer(request, self._begin)

        @router.get("/psc/retour")
        def back(request: Request) -> Response:
            return self._answer(request, self._back, audited=True)

        @router.get("/psc/situation")
        def situation(request: Request) -> Response:
            return self._answer(request, self._situation_page)

        @router.post("/psc/situation")
        def choose(request: Request, fields: _Form) -> Response:
            return self._answer(request, lambda request: self._choose(request, fields))

        @router.post("/deconnexion")
        def leave(request: Request, fields: _Form) -> Response:
            return self._answer(request, lambda request: self._leave(request, fields))

        @router.post("/psc/deconnexion")
        def told_to_leave(request: Request, fields: _Form) -> Response:
            return self._back_channel(request, fields)

        return router

    def _answer(self, request: Request, act: Callable[[Request], Response], *, audited: bool = False) -> Response:
        try:
            return act(request)
        except GatewayError as error:
            _log.warning("sign-in refused", code=error.code)
            if audited:
                self._sessions.refuse(error, _origin(request))
            page = refusal_page(error, request_id())
            answer = HTMLResponse(self._pages.refused(request, refusal=page), page.status)
            if audited:
                self._forget(answer, self._attempt_cookie)
            return answer

    def _sign_in_page(self, request: Request) -> Response:
        wish = local_path(request.query_params.get("next"))
        opened = self.opened(request)
        if opened is not None:
            return RedirectResponse("/psc/situation" if opened.pending else wish, 303)
        return HTMLResponse(self._pages.sign_in(request, psc_url=_begin_address(wish), problem=""))

    def _begin(self, request: Request) -> Response:
        attempt = new_attempt()
        target = self._provider().authorization_url(attempt)
        browser = self._sessions.begin(attempt, local_path(request.query_params.get("next")))
        answer = RedirectResponse(target, 303)
        # Lax: the return is a navigation that another site begins.
        answer.set_cookie(
            self._attempt_cookie,
            browser,
            max_age=int(ATTEMPT.total_seconds()),
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="lax",
        )
        return answer

    def _back(self, request: Request) -> Response:
        client = self._provider()
        state, code, error, issuer = (_single(request, name) for name in ("state", "code", "error", "iss"))
        browser = request.cookies.get(self._attempt_cookie)
        if not state or not browser:
            raise InvalidContent(
                "psc-state-missing",
                "Cette connexion n’a pas été commencée dans ce navigateur, ou a duré plus de dix minutes.",
            )
        begun = self._sessions.take(state, browser)
        client.check_issuer(issuer)
        if error:
            return self._declined(request, error, begun.next_path)
        if not code:
            raise InvalidContent("psc-code-missing", "La réponse de Pro Santé Connect est incomplète.")
        proven = client.exchange(code, begun.attempt)
        professional = self._professional(proven, _origin(request))
        token, opened = self._sessions.open(
            proven,
            professional,
            begun.next_path,
            _origin(request),
            replacing=request.cookies.get(self._session_cookie),
        )
        _log.info("session opened", session=str(opened.id), pending=opened.pending)
        answer = RedirectResponse("/psc/situation" if opened.pending else begun.next_path, 303)
        answer.set_cookie(self._session_cookie, token, path="/", secure=self._secure, httponly=True, samesite="lax")
        self._forget(answer, self._attempt_cookie)
        return answer

    def _professional(self, proven: Proven, origin: Origin) -> Professional:
        try:
            return read_professional(proven.userinfo)
        except Forbidden as refused:
            # Proven, but not allowed in: the trail says who it was.
            actor = proven.userinfo.get("SubjectNameID")
            named = actor if isinstance(actor, str) and actor else None
            refused.trail = self._sessions.refusal(refused, origin, actor=named, acr=proven.acr)
            raise

    def _declined(self, request: Request, error: str, next_path: str) -> Response:
        if error in _RETRIED:
            raise Unavailable(
                "psc-unavailable", "Pro Santé Connect ne répond pas pour le moment. Réessayez dans quelques minutes."
            )
        if error != "access_denied":
            raise UnknownIdentity(
                "psc-error", "Pro Santé Connect n’a pas pu vous identifier. Recommencez la connexion."
            )
        refused = UnknownIdentity("psc-cancelled", "Vous avez interrompu la connexion, ou elle a été refusée.")
        self._sessions.refuse(refused, _origin(request))
        page = self._pages.sign_in(request, psc_url=_begin_address(next_path), problem=refused.text)
        answer = HTMLResponse(page, 403)
        self._forget(answer, self._attempt_cookie)
        return answer

    def _situation_page(self, request: Request, problem: str = "") -> Response:
        opened = self.opened(request)
        if opened is None:
            return RedirectResponse("/connexion", 303)
        if not opened.pending:
            return RedirectResponse(local_path(opened.next_path), 303)
        html = self._pages.situation(
            request,
            choices=[(one.key, one.label()) for one in opened.choices],
            csrf_token=self._csrf.token(str(opened.id)),
            problem=problem,
        )
        return HTMLResponse(html, 400 if problem else 200)

    def _choose(self, request: Request, fields: FormData) -> Response:
        opened = self.opened(request)
        if opened is None:
            return RedirectResponse("/connexion", 303)
        self._csrf.check(request, str(opened.id), _field(fields, CSRF_FIELD))
        if not opened.pending:
            return RedirectResponse(local_path(opened.next_path), 303)
        try:
            chosen = self._sessions.choose(opened, _field(fields, "situation"), _origin(request))
        except InvalidContent as missing:
            return self._situation_page(request, missing.text)
        return RedirectResponse(local_path(chosen.next_path), 303)

    def _leave(self, request: Request, fields: FormData) -> Response:
        opened = self.opened(request)
        target = "/connexion"
        if opened is not None:
            self._csrf.check(request, str(opened.id), _field(fields, CSRF_FIELD))
            self._sessions.end(opened, "utilisateur", _origin(request))
            target = self._provider_logout(opened) or target
        answer = RedirectResponse(target, 303)
        self._forget(answer, self._session_cookie)
        # What the browser kept of our pages goes too, the measures of images among it [W3C Clear Site Data].
        answer.headers["Clear-Site-Data"] = '"cache", "storage"'
        return answer

    def _provider_logout(self, opened: Opened) -> str | None:
        if self._client is None or opened.id_token is None:
            return None
        try:
            return self._client.logout_url(opened.id_token, f"{self._public_url}/connexion")
        except (Unavailable, Fault):
            # Our own session is closed; the provider's ends by itself within 30 minutes.
            return None

    def _back_channel(self, request: Request, fields: FormData) -> Response:
        origin = _origin(request)
        try:
            told = self._provider().read_logout(_field(fields, "logout_token"))
            ended = self._sessions.end_by_provider(told, self._client_id, origin)
        except GatewayError as error:
            _log.warning("back-channel logout refused", code=error.code)
            self._sessions.refuse(error, origin)
            status = 503 if error.category == "unavailable" else 400
            return Response(status_code=status, headers={"Cache-Control": "no-store"})
        _log.info("back-channel logout", sessions=ended)
        return Response(status_code=200, headers={"Cache-Control": "no-store"})

    def _provider(self) -> PscClient:
        if self._client is None:
            raise Unavailable("psc-not-configured", "La connexion par Pro Santé Connect n’est pas configurée ici.")
        return self._client

    def _forget(self, answer: Response, cookie: str) -> None:
        answer.delete_cookie(cookie, path="/", secure=self._secure, httponly=True, samesite="lax")


def _begin_address(wish: str) -> str:
    return f"/psc/connexion?next={quote(wish, safe='/')}"


def _field(fields: FormData, name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def _single(request: Request, name: str) -> str | None:
    values = request.query_params.getlist(name)
    if len(values) > 1 or any(len(value) > _MAX_CHARACTERS for value in values):
        raise InvalidContent("psc-return-unreadable", "La réponse de Pro Santé Connect est illisible.")
    return values[0] if values else None


def _origin(request: Request) -> Origin:
    return Origin(client_address(request), request_id())
