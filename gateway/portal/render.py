"""Turns a view into a page: templates, French dates and typography, addresses of the static files.

Promises: every value is escaped; an unknown name in a template is an error and never an empty hole; French spacing is
put where typists leave an ordinary space, in the templates' own text only, never in what a person wrote.
Does not promise anything about rights: a view is filled by who checked them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from datetime import date, datetime
from functools import cache
from importlib.resources import files
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream
from markupsafe import Markup, escape

from gateway.portal.views import Chrome, Page
from gateway.rcp import french
from gateway.web.csrf import CSRF_FIELD

__all__ = [
    "STATIC_TYPES",
    "counted",
    "hour",
    "long_date",
    "render",
    "short_date",
    "static_file",
    "static_url",
    "typographic",
]

_CSS: Final = "text/css; charset=utf-8"
_SCRIPT: Final = "text/javascript; charset=utf-8"
STATIC_TYPES: Final = {
    "portal.css": _CSS,
    "logo.svg": "image/svg+xml",
    "sample.svg": "image/svg+xml",
    "viewer.css": _CSS,
    "viewer.js": _SCRIPT,
    "viewer_cine.js": _SCRIPT,
    "viewer_dicom.js": _SCRIPT,
    "viewer_document.js": _SCRIPT,
    "viewer_film.js": _SCRIPT,
    "viewer_geometry.js": _SCRIPT,
    "viewer_gestures.js": _SCRIPT,
    "viewer_keys.js": _SCRIPT,
    "viewer_measures.js": _SCRIPT,
    "viewer_overlay.js": _SCRIPT,
    "viewer_pane.js": _SCRIPT,
    "viewer_pixels.js": _SCRIPT,
    "viewer_presentations.js": _SCRIPT,
    "viewer_store.js": _SCRIPT,
    "viewer_tools.js": _SCRIPT,
}
# What a module imports is asked for by the address that changes with its content, as a page asks for it.
_IMPORT: Final = re.compile(rb'(?<=from ")\./([a-z_]+\.js)(?=";)')

_NBSP: Final = "\N{NO-BREAK SPACE}"
_NNBSP: Final = "\N{NARROW NO-BREAK SPACE}"
# Imprimerie nationale: a full no-break space inside guillemets and before a colon, a narrow one before ; ! ?
_SPACING: Final = (
    (re.compile(r"« "), f"«{_NBSP}"),
    (re.compile(r" »"), f"{_NBSP}»"),
    (re.compile(r" :(?=[\s<]|$)"), f"{_NBSP}:"),
    (re.compile(r" ([;!?])(?=[\s<)»]|$)"), rf"{_NNBSP}\1"),
    (re.compile(r"(?<=\w)'(?=\w)"), "’"),
)


def typographic(text: str) -> str:
    """Return French text with the spaces and apostrophes that a typographer would set."""
    for pattern, replacement in _SPACING:
        text = pattern.sub(replacement, text)
    return text


def short_date(value: date | datetime | None) -> str:
    """Return « 11/05/2023 », or a dash when there is none (S3-017)."""
    return "–" if value is None else french.short_date(value)


def long_date(value: date | datetime) -> str:
    """Return « jeudi 11 mai 2023 », the day never parted from its month."""
    return re.sub(r"(\d(?:er)?) ", rf"\1{_NBSP}", french.long_day(value), count=1)


def hour(value: datetime) -> str:
    """Return « 18h30 », as the trade prints it."""
    return french.hour(value)


def _moment(value: datetime | None) -> Markup:
    """Return « 11/05/2023 à 18h30 » inside a `time` element."""
    if value is None:
        return Markup("–")
    return Markup('<time datetime="{}">{} à{}{}</time>').format(
        value.isoformat(timespec="minutes"), short_date(value), _NBSP, hour(value)
    )


def _paragraphs(text: str) -> Markup:
    """Return a person's text with its own line breaks, escaped."""
    blocks = [block for block in re.split(r"\n\s*\n", text.strip()) if block.strip()]
    return Markup("").join(
        Markup("<p>{}</p>").format(Markup("<br>").join(escape(line) for line in block.splitlines())) for block in blocks
    )


def counted(number: int, one: str, many: str) -> str:
    """Return « 1 dossier », « 2 dossiers »; zero is singular in French."""
    return f"{number}{_NBSP}{one if abs(number) < 2 else many}"


class _FrenchText(Extension):
    """Sets French spacing in the templates' own text; expressions and values are left alone."""

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        for token in stream:
            if token.type == "data":
                yield Token(token.lineno, token.type, typographic(token.value))
            else:
                yield token


@cache
def static_file(name: str) -> bytes | None:
    """Return a static file's bytes, or None when the portal has no such file."""
    if name not in STATIC_TYPES:
        return None
    content = files("gateway.portal").joinpath("static", name).read_bytes()
    return _IMPORT.sub(lambda found: static_url(found[1].decode("ascii")).encode("ascii"), content)


@cache
def static_url(name: str) -> str:
    """Return the address of a static file, changed with its content so that it may be cached for ever."""
    content = static_file(name)
    if content is None:
        raise KeyError(name)
    return f"/static/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("gateway.portal", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_FrenchText],
        auto_reload=False,
    )
    environment.filters.update(
        short_date=short_date,
        long_date=long_date,
        hour=hour,
        moment=_moment,
        paragraphs=_paragraphs,
        count=counted,
        typographic=typographic,
    )
    environment.globals.update(static=static_url, csrf_field=CSRF_FIELD)
    return environment


def render(page: Page, chrome: Chrome) -> str:
    """Return the page as HTML."""
    return _environment().get_template(page.template).render(page=page, chrome=chrome)
