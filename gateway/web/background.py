"""An ASGI application served on a thread of this process.

Promises: the socket listens before the block is entered, so that no caller has to wait or retry; the thread has ended
when the block is left. For the demo's stand-ins and for tests; `gateway.app` runs its own server in the foreground.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

__all__ = ["served"]


@contextlib.contextmanager
def served(app: ASGIApp, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve `app` and yield its origin, such as ``http://127.0.0.1:41234``.

    Parameters
    ----------
    port
        0 takes a free one.

    Raises
    ------
    OSError
        The port is taken.
    """
    listening = socket.create_server((host, port), backlog=128)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            lifespan="auto",
            timeout_graceful_shutdown=2,
            timeout_keep_alive=600,  # on a busy machine a client pauses: its connection is not closed as it asks again
            ws="none",
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="served", daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listening.close()
