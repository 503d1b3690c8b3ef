"""Ways out that do what a test says, and remember what the other side received."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from gateway.exchange.outbox import Delivery, Outcome, Outgoing

NOW = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)


class Scripted:
    """Answers with each of ``script`` in turn, then delivers."""

    def __init__(self, script: Iterable[object] = (), *, name: str = "mssante", idempotent: bool = True) -> None:
        self.name = name
        self.idempotent = idempotent
        self.script = list(script)
        self.received: list[bytes] = []

    def deliver(self, message, content):
        assert message.content in (None, content)
        step = self.script.pop(0) if self.script else Outcome.DELIVERED
        if isinstance(step, BaseException):
            raise step
        delivery = step if isinstance(step, Delivery) else Delivery(step, f"code-{step}")
        if delivery.outcome in (Outcome.DELIVERED, Outcome.UNCERTAIN):
            self.received.append(content)
        return delivery


def outgoing(key: str = "M1|d|s|r|1", content: bytes = b"From: a\r\n\r\nbonjour\r\n", **more) -> Outgoing:
    return Outgoing(
        **{
            "channel": "mssante",
            "kind": "M1",
            "key": key,
            "content": content,
            "sender": "a@x",
            "recipient": "b@y",
            **more,
        }
    )
