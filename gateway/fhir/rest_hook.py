"""The way out of the outbox to subscribers: a POST to the address that each chose [FHIR R4 subscription, rest-hook].

Promises
--------
* Only to an address outside, the very one that was looked at (`gateway.fhir.reachable`); over TLS 1.2 or later, whose
  certificate names the host; a redirection is not followed, and is no success.
* An endpoint has its subscription's time for the whole exchange, however it spends it; of its answer nothing is read
  but the status.
* A slow subscriber holds up no mail and no other partner's: two notifications are on their way at once at most, and one
  of each partner.
* What is not 2xx within it is tried again after 1, 5, 15 and 60 minutes, the same bytes; then the subscription is in
  error (`gateway.fhir.telling.after_delivery`).
* No address, header or answer stands in a log or in an outcome's words.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import httpx

from gateway.errors import Forbidden
from gateway.exchange.delivery import Backoff
from gateway.exchange.outbox import Delivery, Outcome
from gateway.fhir import subscribers
from gateway.fhir.subscribers import Subscribing
from gateway.fhir.telling import departure
from gateway.model.message import Message
from gateway.model.store import Store
from gateway.model.subscription import Subscription

__all__ = ["BACKOFF", "RestHookChannel"]

#: Retries after 1, 5, 15 and 60 minutes, then no more [spec fhir-fr 3.8].
BACKOFF: Final = Backoff((60, 300, 900, 3600), 24 * 3600, attempts=5)

_CONNECT_S: Final = 10.0
#: Notifications on their way at once: the worker delivers four messages at once, mails among them.
_AT_ONCE: Final = 2
#: How long one waits for its turn where it is; most are on their way for less.
_MOMENT_S: Final = 0.5
_BUSY: Final = Delivery(Outcome.UNAVAILABLE, "abonnement-a-son-tour", untried=True, retry_after_s=3.0)
#: What went wrong → whether it may have arrived all the same, by what name; the first that fits.
_FAILED: Mapping[type[Exception], tuple[Outcome, str]] = {
    httpx.ConnectError: (Outcome.UNAVAILABLE, "abonnement-injoignable"),
    httpx.ConnectTimeout: (Outcome.UNAVAILABLE, "abonnement-injoignable"),
    httpx.TimeoutException: (Outcome.UNCERTAIN, "abonnement-silence"),
    TimeoutError: (Outcome.UNCERTAIN, "abonnement-silence"),
    Exception: (Outcome.UNCERTAIN, "abonnement-rompu"),
}


class RestHookChannel:
    """`gateway.exchange.outbox.Channel` towards subscribers.

    Parameters
    ----------
    context
        Whom it trusts, and what it shows of itself; the system's authorities by default.
    """

    name = subscribers.CHANNEL
    # The number of an event tells the second copy.
    idempotent = True

    def __init__(self, store: Store, into: Subscribing, *, context: ssl.SSLContext | None = None) -> None:
        self._store = store
        self._into = into
        self._context = context or ssl.create_default_context()
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._turns = threading.Condition()
        self._sending: set[uuid.UUID | None] = set()

    def deliver(self, message: Message, content: bytes) -> Delivery:
        """Send once; say what happened."""
        with self._turn(message.partner_id) as mine:
            return self._delivered(message, content) if mine else _BUSY

    @contextmanager
    def _turn(self, partner_id: uuid.UUID | None) -> Iterator[bool]:
        """Wait a moment for a turn; whether it came."""
        with self._turns:
            mine = self._turns.wait_for(lambda: self._is_free(partner_id), _MOMENT_S)
            if mine:
                self._sending.add(partner_id)
        try:
            yield mine
        finally:
            if mine:
                with self._turns:
                    self._sending.discard(partner_id)
                    self._turns.notify_all()

    def _is_free(self, partner_id: uuid.UUID | None) -> bool:
        return len(self._sending) < _AT_ONCE and partner_id not in self._sending

    def _delivered(self, message: Message, content: bytes) -> Delivery:
        with self._store.session() as session:
            going = departure(session, message, self._into)
        if isinstance(going, Delivery):
            return going
        sealed = self._into.seal.open(going.headers) if going.headers is not None else {}
        if sealed is None:
            return Delivery(Outcome.REFUSED, "abonnement-entetes-perdus", "Les en-têtes ont un autre sceau : à redire.")
        lines = [(str(name), str(value)) for name, value in sealed.get("lines", ())]
        try:
            # This is a thread without a loop; only a loop stops what says a little from time to time.
            status = asyncio.run(self._sent(going, lines, content))
        except Forbidden as error:
            return Delivery(Outcome.REFUSED, error.code, error.text)
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
            outcome, code = next(said for kind, said in _FAILED.items() if isinstance(error, kind))
            return Delivery(outcome, code, type(error).__name__)
        if 200 <= status < 300:
            return Delivery(Outcome.DELIVERED)
        return Delivery(Outcome.UNAVAILABLE, f"abonnement-http-{status}")

    async def _sent(self, going: Subscription, lines: Sequence[tuple[str, str]], content: bytes) -> int:
        async with asyncio.timeout(going.timeout_s):
            way = await self._into.endpoints.pin(going.endpoint)
            headers = [
                *lines,
                ("Host", way.host),
                ("Content-Type", f"{going.media}; charset=utf-8"),
                ("Accept-Encoding", "identity"),
                ("User-Agent", "rcp-gateway"),
            ]
            async with (
                httpx.AsyncClient(
                    verify=self._context,
                    timeout=httpx.Timeout(going.timeout_s, connect=_CONNECT_S),
                    follow_redirects=False,
                    trust_env=False,
                ) as asking,
                asking.stream(
                    "POST",
                    way.url,
                    headers=headers,
                    content=content,
                    extensions={"sni_hostname": way.name} if way.name is not None else {},
                ) as answer,
            ):
                return answer.status_code
