"""How the HTTP server of production is set."""

from __future__ import annotations

from fastapi import FastAPI

from gateway.app import components


def test_an_idle_connection_outlives_the_pools_that_keep_it_and_the_server_ends_within_its_drain() -> None:
    """nginx keeps a connection to an upstream for 60 s (``keepalive_timeout``): who keeps it must close it first."""
    found = components._server_settings(FastAPI())
    assert found.timeout_keep_alive > 60
    assert found.timeout_graceful_shutdown is not None
    assert found.timeout_graceful_shutdown < 30  # the contract: SIGTERM stops within 30 s
