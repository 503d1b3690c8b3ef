"""Whether the process is up, and whether it can work.

Promises: ``/health/live`` answers as long as the loop turns and asks nothing of anyone; ``/health/ready`` asks all
parts at once under one time limit and names those that do not answer, without saying why (the log does).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import structlog
from fastapi import APIRouter
from fastapi.responses import JSONResponse

from gateway.errors import GatewayError

__all__ = ["Check", "health_router"]

Check = Callable[[], None]
"""Returns when its part works, raises otherwise; runs in a thread."""

_TIMEOUT_S: Final = 5.0
_log = structlog.get_logger("gateway.web.health")


def health_router(checks: Mapping[str, Check], *, timeout_s: float = _TIMEOUT_S) -> APIRouter:
    """Build the router of ``GET /health/live`` and ``GET /health/ready``.

    Parameters
    ----------
    checks
        By name (``database``, ``blobs``, ``worker``); each must answer within `timeout_s`.
    """
    router = APIRouter()

    @router.get("/health/live", include_in_schema=False)
    async def live() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    @router.get("/health/ready", include_in_schema=False)
    async def ready() -> JSONResponse:
        answers = await asyncio.gather(*(_ask(name, check, timeout_s) for name, check in checks.items()))
        parts = dict(zip(checks, answers, strict=True))
        well = all(answer == "ok" for answer in answers)
        return JSONResponse({"status": "ok" if well else "failed", "parts": parts}, 200 if well else 503)

    return router


async def _ask(name: str, check: Check, timeout_s: float) -> str:
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.to_thread(check)
    except TimeoutError:
        _log.warning("part does not answer in time", part=name, timeout_s=timeout_s)
        return "timeout"
    except GatewayError as known:
        _log.warning("part is not ready", part=name, code=known.code)
        return "failed"
    except Exception as unknown:  # noqa: BLE001 - a check of any part may raise anything; the answer is "failed" all the same
        _log.warning("part is not ready", part=name, error=type(unknown).__name__)
        return "failed"
    return "ok"
