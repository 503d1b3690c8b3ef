"""Pages that show the stand-in's mailboxes, to read the demonstration's mails in a browser.

Promises: read-only; every word of a mail is shown as text and nothing of it runs or loads; attachments are offered as
downloads only. Mount `mail_app(operator)` under a path of the demonstration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from email import policy
from email.header import decode_header, make_header
from email.message import Message
from email.parser import BytesParser
from html import escape

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from gateway.demo.mail_operator import MailOperator

__all__ = ["mail_app"]

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_STYLE = (
    "body{font-family:system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;line-height:1.5}"
    "table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.4rem .6rem;border-bottom:1px solid #ccc}"
    "pre{white-space:pre-wrap;font:inherit;background:#f6f6f6;padding:1rem}"
    "strong.mark{display:block;padding:.75rem 1rem;background:#fff3cd;border-left:.4rem solid #b34000}"
)
_LINK = re.compile(r"https?://[^\s<>&\"']+(?:&amp;[^\s<>&\"']+)*")
_SHOWN = ("From", "To", "Reply-To", "Date", "Subject", "Message-ID", "X-MSS-NIL", "X-MSS-CODECDA", "X-MSS-INS")


def mail_app(operator: MailOperator) -> Starlette:
    """Return the pages of one stand-in as an ASGI application."""

    def index(_request: Request) -> Response:
        rows = "".join(
            f'<tr><td><a href="boite/{escape(address, quote=True)}">{escape(address)}</a></td>'
            f"<td>{len(operator.messages(address))}</td></tr>"
            for address in operator.addresses
        )
        return _page("Boîtes aux lettres", f"<table><tr><th>Adresse</th><th>Messages</th></tr>{rows}</table>")

    def mailbox(request: Request) -> Response:
        address = _address(operator, request)
        rows = "".join(
            f'<tr><td><a href="{escape(address, quote=True)}/{number}">{escape(_header(message, "Subject"))}</a>'
            f"</td><td>{escape(_header(message, 'From'))}</td><td>{escape(_header(message, 'Date'))}</td></tr>"
            for number, message in _newest_first(operator.messages(address))
        )
        empty = "" if rows else "<p>Aucun message.</p>"
        table = f"<table><tr><th>Objet</th><th>De</th><th>Date</th></tr>{rows}</table>{empty}"
        return _page(address, f'<p><a href="../">Toutes les boîtes</a></p>{table}')

    def mail(request: Request) -> Response:
        address, number, message = _mail(operator, request)
        heads = "".join(
            f"<tr><th>{name}</th><td>{escape(_header(message, name))}</td></tr>" for name in _SHOWN if name in message
        )
        text = "".join(f"<pre>{_linked(part)}</pre>" for part in _texts(message))
        files = "".join(
            f'<li><a href="{number}/{place}">{escape(name)}</a> ({size} octets)</li>'
            for place, name, size in _files(message)
        )
        attached = f"<h2>Pièces jointes</h2><ul>{files}</ul>" if files else ""
        raw = f'<p><a href="{number}/brut">Message brut (.eml)</a></p>'
        back = f'<p><a href="../{escape(address, quote=True)}">Retour à la boîte</a></p>'
        return _page(_header(message, "Subject"), f"{back}<table>{heads}</table>{text}{attached}{raw}")

    def raw(request: Request) -> Response:
        address, number, _ = _mail(operator, request)
        return _download(operator.messages(address)[number], f"message-{number}.eml")

    def attachment(request: Request) -> Response:
        _, _, message = _mail(operator, request)
        place = request.path_params["place"]
        for index, part in enumerate(message.walk()):
            if index == place and part.get_filename() and isinstance(content := part.get_payload(decode=True), bytes):
                return _download(content, _ascii(str(part.get_filename())))
        raise HTTPException(404)

    return Starlette(
        routes=[
            Route("/", index),
            Route("/boite/{address}", mailbox),
            Route("/boite/{address}/{number:int}", mail),
            Route("/boite/{address}/{number:int}/brut", raw),
            Route("/boite/{address}/{number:int}/{place:int}", attachment),
        ]
    )


def _address(operator: MailOperator, request: Request) -> str:
    address = str(request.path_params["address"]).lower()
    if address not in operator.addresses:
        raise HTTPException(404)
    return address


def _mail(operator: MailOperator, request: Request) -> tuple[str, int, Message]:
    address, number = _address(operator, request), int(request.path_params["number"])
    messages = operator.messages(address)
    if number >= len(messages):
        raise HTTPException(404)
    return address, number, BytesParser(policy=policy.compat32).parsebytes(messages[number])


def _newest_first(messages: list[bytes]) -> Iterator[tuple[int, Message]]:
    for number in range(len(messages) - 1, -1, -1):
        yield number, BytesParser(policy=policy.compat32).parsebytes(messages[number], headersonly=True)


def _header(message: Message, name: str) -> str:
    try:
        return str(make_header(decode_header(str(message.get(name, "")))))
    except (ValueError, LookupError):
        return str(message.get(name, ""))


def _texts(message: Message) -> Iterator[str]:
    for part in message.walk():
        content = part.get_payload(decode=True)
        if part.get_content_type() == "text/plain" and not part.get_filename() and isinstance(content, bytes):
            yield content.decode("utf-8", "replace")


def _files(message: Message) -> Iterator[tuple[int, str, int]]:
    for place, part in enumerate(message.walk()):
        content = part.get_payload(decode=True)
        if part.get_filename() and isinstance(content, bytes):
            yield place, str(part.get_filename()), len(content)


def _linked(text: str) -> str:
    return _LINK.sub(lambda found: f'<a href="{found[0]}" rel="noreferrer">{found[0]}</a>', escape(text))


def _ascii(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)


def _download(content: bytes, name: str) -> Response:
    disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type="application/octet-stream", headers=_HEADERS | disposition)


def _page(title: str, body: str) -> Response:
    return HTMLResponse(
        f'<!doctype html><html lang="fr"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>"
        '<strong class="mark">Démonstration : opérateur de messagerie fictif, aucun courriel ne quitte cette machine.'
        f"</strong><h1>{escape(title)}</h1>{body}</body></html>",
        headers=_HEADERS,
    )
