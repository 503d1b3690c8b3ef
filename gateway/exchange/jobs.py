"""Background work through procrastinate: a nudge for each outgoing message, and periodic tasks.

Jobs are deferred on the step's own connection, so that they exist exactly if the step does. No ``queueing_lock`` inside
a step: a clash would abort the caller's transaction. A lost nudge is harmless: a sweep each minute finds what is due.
"""

from __future__ import annotations

import uuid

from procrastinate import App, SyncPsycopgConnector
from sqlalchemy.orm import Session

from gateway.errors import Fault

__all__ = ["DELIVER", "nudge"]

#: Task name under which `gateway.exchange.worker` registers the delivery.
DELIVER = "deliver"

# Never opened: each deferral names the connection of its step.
_deferrer = App(connector=SyncPsycopgConnector())


def nudge(session: Session, message_id: uuid.UUID) -> None:
    """Ask for the delivery of one message, in the session's own transaction."""
    connection = session.connection().connection.driver_connection
    if connection is None:
        raise Fault("no-connection", "Connexion à la base perdue.")
    _deferrer.configure_task(DELIVER, queue="outbox", connection=connection).defer(message_id=str(message_id))
