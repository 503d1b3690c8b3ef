"""What is counted, in Prometheus text at ``/metrics``.

Promises: labels are closed sets (method, route template, status), so that no label grows with the data and none names a
person. Another module declares its own counters with `prometheus_client` on `REGISTRY`.

The page has no authentication of its own: it says nothing about anyone, and the deployment keeps it inside
(`docs/operations.md`). Where several processes answer on one port they count in files of a folder that the supervisor
names, and each tells the sum; what is of one process alone (its memory) is then not told.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Final

from fastapi import APIRouter, Response
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

__all__ = ["COUNTED_TOGETHER", "REGISTRY", "metrics_router", "observe_request"]

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

COUNTED_TOGETHER: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The library's own variable: the folder in which processes count together."""

REGISTRY: Final = CollectorRegistry(auto_describe=True)
"""The gateway's own registry: nothing that a library registers by itself shows up by accident."""

ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

_REQUESTS: Final = Counter(
    "rcp_http_requests", "HTTP requests answered", ["method", "route", "status"], registry=REGISTRY
)
_DURATION: Final = Histogram(
    "rcp_http_request_duration_seconds",
    "Time from the first byte of a request to the last of its answer",
    ["method", "route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)


def observe_request(method: str, route: str, status: int, duration_s: float) -> None:
    """Count one answered request under its route template."""
    requests, duration = _counters(method if method in _METHODS else "OTHER", route, status)
    requests.inc()
    duration.observe(duration_s)


@cache  # as closed as the labels are
def _counters(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    return _REQUESTS.labels(method, route, str(status)), _DURATION.labels(method, route)


def _told() -> CollectorRegistry:
    """What is told: this process's own, or what all processes on the port have counted."""
    if COUNTED_TOGETHER not in os.environ:
        return REGISTRY
    together = CollectorRegistry(auto_describe=True)
    MultiProcessCollector(together)  # type: ignore[no-untyped-call]  # the library's own
    return together


def metrics_router() -> APIRouter:
    """Build the router of ``GET /metrics``."""
    router = APIRouter()

    @router.get("/metrics", include_in_schema=False)
    def metrics() -> Response:
        return Response(generate_latest(_told()), headers={"Content-Type": _CONTENT_TYPE, "Cache-Control": "no-store"})

    return router
