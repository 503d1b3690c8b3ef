"""A browser without a window: it follows redirects, keeps cookies, and fills in the forms that a page really has.

Nothing is posted that the page does not offer: an absent form or field is what a person would notice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import httpx
from lxml import html

from gateway.demo.narration import NotSeen

__all__ = ["Browser", "Page"]

_TIMEOUT_S = 60.0
_FIELDS = ("input", "textarea", "select", "button")


@dataclass(frozen=True)
class Page:
    """What is on the screen."""

    url: str
    status: int
    body: bytes

    @property
    def tree(self) -> Any:
        """The parsed page."""
        return html.fromstring(self.body.decode("utf-8"), base_url=self.url)

    @property
    def text(self) -> str:
        """What a reader sees, spaces folded."""
        return " ".join(str(self.tree.text_content()).split())

    @property
    def path(self) -> str:
        """The path of its address."""
        return str(urlsplit(self.url).path)

    def link(self, part: str) -> str:
        """Return the address of the first link whose address or words contain ``part``."""
        for anchor in self.tree.iter("a"):
            href = anchor.get("href") or ""
            if part in href or part in " ".join(anchor.text_content().split()):
                return urljoin(self.url, str(href))
        raise NotSeen(f"Lien « {part} »", f"absent de la page {self.path}")

    def links(self, part: str) -> list[str]:
        """Return the addresses of all links whose address contains ``part``."""
        return [urljoin(self.url, a.get("href")) for a in self.tree.iter("a") if part in (a.get("href") or "")]

    def form(self, part: str) -> Any:
        """Return the first form with a field so named, else whose address, fields or words contain ``part``."""
        named = [(form, [field.get("name") or "" for field in form.iter(*_FIELDS)]) for form in self.tree.forms]
        for form, names in named:
            if part in names:
                return form
        for form, names in named:
            words = " ".join(form.text_content().split())
            if any(part in text for text in (form.get("action") or "", words, *names)):
                return form
        raise NotSeen(f"Formulaire « {part} »", f"absent de la page {self.path}")


class Browser:
    """One person's browser."""

    def __init__(self) -> None:
        self.http = httpx.Client(follow_redirects=True, timeout=_TIMEOUT_S, headers={"Accept": "text/html"})

    def open(self, url: str, *, expected: int = httpx.codes.OK) -> Page:
        """Open an address; another status than ``expected`` is `NotSeen`."""
        return self._page(self.http.get(url), expected)

    def submit(
        self,
        page: Page,
        form: Any,
        values: Mapping[str, str | list[str]] | None = None,
        *,
        button: str | None = None,
        expected: int = httpx.codes.OK,
    ) -> Page:
        """Fill in a form's own fields and post it.

        Parameters
        ----------
        button
            ``name=value`` of the button pressed, or part of its words; the first submit button otherwise.
        expected
            Status of the page where it leads.
        """
        data: dict[str, Any] = {}
        for name, value in form.form_values():
            data[name] = [*data[name], value] if name in data else [value]
        fields = {field.get("name") for field in form.iter("input", "textarea", "select")}
        for name, value in (values or {}).items():
            if name not in fields:
                raise NotSeen(f"Champ « {name} »", f"absent du formulaire de {page.path}")
            data[name] = value
        data |= self._pressed(page, form, button)
        action = urljoin(page.url, form.get("action") or page.url)
        if (form.get("method") or "get").lower() == "get":
            return self._page(self.http.get(action, params=data), expected)
        return self._page(self.http.post(action, data=data, headers={"Origin": _origin(page.url)}), expected)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    @staticmethod
    def _pressed(page: Page, form: Any, button: str | None) -> dict[str, str]:
        for pressed in form.xpath(".//button | .//input[@type='submit']"):
            name, value = pressed.get("name"), pressed.get("value") or ""
            words = " ".join(pressed.text_content().split()) or value
            if button is None or button == f"{name}={value}" or button in words:
                return {name: value} if name else {}
        if button is None:
            return {}
        raise NotSeen(f"Bouton « {button} »", f"absent de la page {page.path}")

    @staticmethod
    def _page(answer: httpx.Response, expected: int) -> Page:
        page = Page(str(answer.url), answer.status_code, answer.content)
        if answer.status_code != expected:
            raise NotSeen(
                f"Page {page.path}", f"réponse {answer.status_code} au lieu de {expected} : {page.text[:300]}"
            )
        return page


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
