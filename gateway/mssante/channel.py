"""The way out by MSSanté, as the outbox knows it (`gateway.exchange.outbox.Channel`).

Promises: one attempt a call, over the very bytes given, no faster than the operator's pace; never raises for what the
operator does. The channel is idempotent: the same bytes under the same Message-ID may be sent again after an uncertain
attempt (DECISIONS 1).
"""

from __future__ import annotations

from gateway.errors import GatewayError
from gateway.exchange.outbox import Delivery, Outcome
from gateway.model.message import Message
from gateway.mssante.outcome import delivery
from gateway.mssante.pacing import Pace
from gateway.mssante.submission import Submission

__all__ = ["MssanteChannel"]


class MssanteChannel:
    """Delivers messages of channel ``mssante`` through one submission service.

    Parameters
    ----------
    pace
        That of the operator; absent, every message leaves at once.
    """

    name = "mssante"
    idempotent = True

    def __init__(self, submission: Submission, pace: Pace | None = None) -> None:
        self._submission = submission
        self._pace = pace

    def close(self) -> None:
        """Leave the connections that are kept."""
        self._submission.close()

    def deliver(self, message: Message, content: bytes) -> Delivery:
        """Submit the bytes once and classify what happened."""
        if not message.sender or not message.recipient:
            return Delivery(Outcome.REFUSED, "mail-address", "Le message n’a pas d’adresse.")
        if self._pace is not None and (wait_s := self._pace.wait_s(str(message.id))):
            return Delivery(Outcome.UNAVAILABLE, "throttled", "Le débit permis est atteint.", wait_s, untried=True)
        try:
            attempted = self._submission.send(
                content,
                # News of what is itself news goes to nobody. [RFC 8098 §3]
                sender="" if message.details.get("sans_retour") else message.sender,
                recipient=message.recipient,
                envelope_id=message.details.get("envelope_id") or None,
            )
        except GatewayError as error:
            return Delivery(Outcome.REFUSED, error.code, error.text)
        if self._pace is not None:
            self._pace.answered(attempted.code)
        return delivery(attempted)
