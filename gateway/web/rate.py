"""How many requests one client may make, by a token bucket under a limit that has a name.

Promises: a client that stays under the rate is never refused; one that is over gets 429, the limit's name and after how
many seconds to come back; memory is bounded, whatever the number of clients. The count is each process's own: with
several web processes the effective rate is the sum, and a front proxy is the place for more.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache

from starlette.requests import Request

from gateway.errors import Unavailable
from gateway.web.proxy import client_address

__all__ = ["Rate", "RateLimiter", "rate_by_address"]


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate and its name.

    Parameters
    ----------
    name
        The setting that carries it, as an operator knows it.
    per_minute
        Requests a minute in the long run.
    burst
        Requests at once; ``per_minute`` when 0.
    """

    name: str
    per_minute: int
    burst: int = 0

    @property
    def depth(self) -> float:
        """Tokens of a full bucket."""
        return float(self.burst or self.per_minute)


class RateLimiter:
    """One bucket for each key, the least recently used forgotten first.

    Parameters
    ----------
    rate
        What each key may do.
    max_keys
        Buckets kept; a forgotten one starts full again, so this bounds memory at the price of leniency.
    clock
        Monotonic seconds; tests give their own.
    """

    def __init__(self, rate: Rate, *, max_keys: int = 50_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._max_keys = max_keys
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, key: str) -> None:
        """Take one token of `key`.

        Raises
        ------
        Unavailable
            ``too-many-requests`` (HTTP 429), with the seconds until the next token.
        """
        per_s = self._rate.per_minute / 60
        with self._lock:
            now = self._clock()
            tokens, since = self._buckets.pop(key, (self._rate.depth, now))
            tokens = min(self._rate.depth, tokens + (now - since) * per_s)
            admitted = tokens >= 1
            self._buckets[key] = (tokens - 1 if admitted else tokens, now)
            if len(self._buckets) > self._max_keys:
                self._buckets.popitem(last=False)
        if not admitted:
            raise Unavailable(
                "too-many-requests",
                f"Trop de requêtes : la limite « {self._rate.name} » est de {self._rate.per_minute} par minute.",
                retry_after_s=(1 - tokens) / per_s,
            )


def rate_by_address(limiter: RateLimiter) -> Callable[[Request], Awaitable[None]]:
    """Make the FastAPI dependency that counts by client address (an IPv6 client by its /64)."""

    async def counted(request: Request) -> None:
        limiter.admit(_neighbourhood(client_address(request)))

    return counted


@lru_cache(maxsize=4096)
def _neighbourhood(address: str) -> str:
    # An IPv6 client owns a /64 and may take a new address for each request.
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False))
