"""The pages of signing in, as the portal shows them; `gateway.app` gives them to the sign-in.

They fulfil the protocol that `gateway.psc.sign_in` states, without either package knowing the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from starlette.requests import Request

from gateway.portal.render import render
from gateway.portal.views import Chrome, Error, Page, SignIn

__all__ = ["SignInPages", "SituationChoice"]


class Refused(Protocol):
    """A refusal, in words."""

    @property
    def status(self) -> int:
        """HTTP status."""

    @property
    def headline(self) -> str:
        """A few words."""

    @property
    def text(self) -> str:
        """One sentence."""

    @property
    def reference(self) -> str:
        """What to tell the support."""


@dataclass(frozen=True)
class SituationChoice(Page):
    """`/psc/situation`: in which work situation the professional works now; none is chosen beforehand."""

    template = "situation.html"
    title = "Situation d’exercice"
    choices: tuple[tuple[str, str], ...] = ()
    problem: str = ""


class SignInPages:
    """Renders them.

    Parameters
    ----------
    chrome
        What surrounds a page of this request (network, contact, fictitious data).
    """

    def __init__(self, chrome: Callable[[Request], Chrome]) -> None:
        self._chrome = chrome

    def sign_in(self, request: Request, *, psc_url: str, problem: str) -> str:
        """Show the button, and why the last try ended."""
        return render(SignIn(psc_url=psc_url, problem=problem), self._around(request))

    def situation(self, request: Request, *, choices: Sequence[tuple[str, str]], csrf_token: str, problem: str) -> str:
        """Ask for the work situation."""
        chrome = replace(self._around(request), csrf_token=csrf_token)
        return render(SituationChoice(choices=tuple(choices), problem=problem), chrome)

    def refused(self, request: Request, *, refusal: Refused) -> str:
        """Say a refusal."""
        page = Error(status=refusal.status, headline=refusal.headline, text=refusal.text, reference=refusal.reference)
        return render(page, self._around(request))

    def _around(self, request: Request) -> Chrome:
        # Nobody is signed in on these pages, whatever cookie the request still has.
        return replace(self._chrome(request), user=None)
