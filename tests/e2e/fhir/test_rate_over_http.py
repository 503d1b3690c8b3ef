"""What the application asks of every request is asked of FHIR's too, whichever way its routes are called."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from gateway.app.gateway import open_gateway
from gateway.app.http import application
from gateway.settings import load


@pytest.mark.parametrize("path", ["/fhir/Patient/x", "/fhir/Patient", "/fhir/Patient/x/_history/1", "/fhir/metadata"])
def test_one_request_too_many_is_refused_by_the_name_of_its_limit(database_url: str, tmp_path: Path, path: str) -> None:
    settings = load(
        {
            "RCP_DATABASE_URL": database_url,
            "RCP_DATA_DIR": str(tmp_path),
            "RCP_FHIR_AUTH": "off",
            "RCP_LIMIT_REQUESTS_PER_MINUTE": "2",
        }
    )

    async def ask() -> list[httpx.Response]:
        with open_gateway(settings) as gateway:
            app = application(gateway)
            async with app.router.lifespan_context(app):
                transport = httpx.ASGITransport(app)
                async with httpx.AsyncClient(transport=transport, base_url=settings.public_url) as client:
                    return [await client.get(path) for _ in range(3)]

    *before, after = asyncio.run(ask())
    assert all(answer.status_code in {200, 404} for answer in before)
    assert after.status_code == 429
    assert "RCP_LIMIT_REQUESTS_PER_MINUTE" in after.text
    assert int(after.headers["retry-after"]) >= 1
