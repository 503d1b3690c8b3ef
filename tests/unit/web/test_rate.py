"""The token bucket: never a refusal under the rate, a named one above it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Unavailable
from gateway.web.outcome import answer_headers, http_status
from gateway.web.rate import Rate, RateLimiter, _neighbourhood


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


def test_over_the_rate_is_refused_with_name_and_delay():
    clock = Clock()
    limiter = RateLimiter(Rate("RCP_ESSAI", 60, burst=2), clock=clock)
    limiter.admit("a")
    limiter.admit("a")
    with pytest.raises(Unavailable) as refused:
        limiter.admit("a")
    assert http_status(refused.value) == 429
    assert "RCP_ESSAI" in refused.value.text
    assert answer_headers(refused.value) == {"Retry-After": "1"}
    limiter.admit("b")
    clock.now_s = 1.0
    limiter.admit("a")


def test_memory_is_bounded():
    limiter = RateLimiter(Rate("r", 60), max_keys=3, clock=Clock())
    for number in range(100):
        limiter.admit(str(number))
    assert len(limiter._buckets) == 3


@given(st.lists(st.floats(1.0, 5.0), max_size=50))
def test_slower_than_the_rate_is_never_refused(pauses):
    clock = Clock()
    limiter = RateLimiter(Rate("r", 60, burst=1), clock=clock)
    for pause in pauses:
        limiter.admit("a")
        clock.now_s += pause * 1.000001


def test_ipv6_client_counts_by_its_64():
    assert _neighbourhood("2001:db8::1") == _neighbourhood("2001:db8:0:0:ffff::2") == "2001:db8::/64"
    assert _neighbourhood("2001:db8:0:1::1") != "2001:db8::/64"
    assert _neighbourhood("203.0.113.5") == "203.0.113.5"
    assert _neighbourhood("-") == "-"
