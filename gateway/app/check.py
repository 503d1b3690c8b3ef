"""``rcp-gateway check``: try each peer that the configuration names, one sentence a fault.

Promises: every peer is tried, whatever the others answer; no sentence holds a secret or a peer's own words. Sends no
mail and signs nobody in; keeps one content of a few bytes in the blob store. That a peer answers today is all it says.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import httpx

from gateway.app.components import prepared
from gateway.errors import GatewayError
from gateway.exchange.blobs import open_store
from gateway.model.store import Store
from gateway.psc.oidc import PscClient
from gateway.settings import MailServer, Settings

__all__ = ["probe"]

_TIMEOUT_S = 10.0


def _database(settings: Settings) -> None:
    if settings.database_url is None:
        with prepared(settings):
            return
    store = Store(settings.database_url)
    try:
        store.ping()
        store.require_current(may_migrate=False)
    finally:
        store.close()


def _blobs(settings: Settings) -> None:
    open_store(settings.blob_url or (settings.data_dir / "blobs").as_uri(), staging=settings.data_dir / "staging").put(
        b"rcp-gateway check"
    )


def _mail(server: MailServer, settings: Settings) -> None:
    context = ssl.create_default_context(cafile=settings.mail.tls.authorities)
    with socket.create_connection((server.host, server.port), _TIMEOUT_S) as plain:
        if server.security == "tls":
            with context.wrap_socket(plain, server_hostname=server.host):
                return
        if not plain.recv(1):
            raise OSError("aucune réponse")


def _web(url: str) -> None:
    answer = httpx.get(url, timeout=_TIMEOUT_S, follow_redirects=False)
    if answer.status_code >= 400:
        raise OSError(f"réponse HTTP {answer.status_code} de {urlsplit(url).hostname}")


def _probes(settings: Settings) -> Iterator[tuple[str, Callable[[], None]]]:
    yield "base", lambda: _database(settings)
    yield "fichiers", lambda: _blobs(settings)
    if settings.mail.smtp:
        smtp = settings.mail.smtp
        yield "smtp", lambda: _mail(smtp, settings)
    if settings.mail.imap:
        imap = settings.mail.imap
        yield "imap", lambda: _mail(imap, settings)
    if settings.psc.discovery_url:
        yield "psc", PscClient(settings.psc, f"{settings.public_url}/psc/retour").ping
    if settings.annuaire_url:
        annuaire = settings.annuaire_url
        yield "annuaire", lambda: _web(f"{annuaire}/metadata")


def probe(settings: Settings) -> Iterator[tuple[str, str | None]]:
    """Try each peer.

    Yields
    ------
    tuple of str and str or None
        Its name, and the French sentence of what is wrong (`None` when it answers).
    """
    for name, ask in _probes(settings):
        try:
            ask()
        except GatewayError as refusal:
            yield name, refusal.text
        except (OSError, httpx.HTTPError) as error:
            yield name, f"ne répond pas ({type(error).__name__})"
        else:
            yield name, None
