"""What each component of ``serve`` runs, and the one-shot commands that need an open gateway."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn

from gateway.app import http
from gateway.app.gateway import open_gateway
from gateway.errors import Unavailable
from gateway.settings import Settings

__all__ = ["migrated", "prepared", "run"]

log = structlog.get_logger(__name__)

_DRAIN_S = 20


def run(name: str, settings: Settings) -> None:
    """Run one component in the foreground until SIGTERM or SIGINT."""
    _RUNNERS[name](settings)


def _until_told() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _http(settings: Settings) -> None:
    bind = settings.http_bind
    with open_gateway(settings) as gateway:
        application = http.application(gateway)
        try:
            listening = socket.create_server(
                (bind.host, bind.port),
                family=socket.AF_INET6 if ":" in bind.host else socket.AF_INET,
                backlog=512,
            )
        except OSError as error:
            raise Unavailable("http-bind", f"L’adresse {bind} ne peut pas être écoutée.") from error
        log.info("http-ready", address=str(bind), public_url=settings.public_url)
        uvicorn.Server(
            uvicorn.Config(
                application,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_DRAIN_S,
                ws="none",
            )
        ).run(sockets=[listening])


@contextmanager
def prepared(settings: Settings) -> Iterator[None]:
    """Hold the database open and migrated while children come and go."""
    with open_gateway(settings):
        yield


def migrated(settings: Settings) -> tuple[str | None, str | None]:
    """Bring the database to this program's schema; revisions before and after."""
    with open_gateway(settings, migrate=True) as gateway:
        return gateway.found_revision, gateway.store.revision()[0]


_RUNNERS = {"http": _http}
