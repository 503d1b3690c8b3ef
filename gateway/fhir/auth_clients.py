"""Clients of the authorization server as they are registered: whose they are, what they may ask, by which keys.

Promises: what the database says of a client is believed `LIVE_S` seconds, whether it is there or not; keys that a
client publishes are fetched from the address that an operator registered, within a time and a size.
Not promised: any judgement of what a client says of itself (`gateway.fhir.auth`).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any, NamedTuple, cast

import httpx
import msgspec
from joserfc.jwk import KeySet
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.errors import GatewayError
from gateway.model.partner import Partner, PartnerCredential
from gateway.rcp import access
from gateway.rcp.step import Steps

__all__ = ["LIVE_S", "Client", "Clients", "TokenRefused"]

#: How long what the database says of a client is believed.
LIVE_S = 5.0
#: Names that are remembered; anybody may send one.
_NAMES = 10_000
_JWKS_S = 300.0
_JWKS_BYTES = 256 * 1024
#: How long published keys may take, however busily their server talks meanwhile.
_FETCH_S = 5.0


class TokenRefused(GatewayError):
    """A refusal of the token endpoint, in OAuth's words [RFC 6749 §5.2].

    ``error``: ``invalid_request``, ``invalid_client``, ``invalid_scope`` or ``unsupported_grant_type``.
    """

    category = "unknown-identity"

    def __init__(self, error: str, text: str, *, client_id: str | None = None) -> None:
        super().__init__(error.replace("_", "-"), text)
        self.error = error
        self.client_id = client_id

    @property
    def status(self) -> int:
        """HTTP status: 401 for who cannot be recognised, else 400."""
        return 401 if self.error == "invalid_client" else 400


class Client(NamedTuple):
    """One registered client.

    Attributes
    ----------
    scopes
        What its partner is registered for.
    keys
        ``jwks``, or ``jwks_uri`` where they are published.
    rcps
        RCPs that its establishment runs.
    """

    partner_id: uuid.UUID
    name: str
    scopes: tuple[str, ...]
    keys: dict[str, Any]
    rcps: frozenset[uuid.UUID]


class Clients:
    """The registered clients of one gateway, as one process knows them."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._live: dict[str, tuple[float, Client | None]] = {}
        self._fetched: dict[str, tuple[float, dict[str, Any]]] = {}

    @property
    def names(self) -> frozenset[str]:
        """Those that are remembered, registered or not."""
        return frozenset(self._live)

    def remembered(self, client_id: str) -> tuple[Client | None] | None:
        """What was asked of the database a moment ago; `None`: nothing."""
        kept = self._live.get(client_id)
        return (kept[1],) if kept is not None and kept[0] > time.monotonic() else None

    def find(self, client_id: str) -> Client | None:
        """A client by its name, unless it or its partner is revoked; may ask the database.

        Raises
        ------
        Unavailable
            The database does not answer.
        """
        kept = self.remembered(client_id)
        if kept is not None:
            return kept[0]
        client = self._steps.run(access.SYSTEM, lambda step: _registered(step.session, client_id))
        if len(self._live) > _NAMES:
            self._live.clear()
        self._live[client_id] = (time.monotonic() + LIVE_S, client)
        return client

    def forget(self) -> None:
        """Ask the database again at the next question."""
        self._live.clear()

    def keys(self, client: Client) -> KeySet:
        """Public keys of a client.

        Raises
        ------
        TokenRefused
            ``invalid_client``: it publishes them where they cannot be read.
        """
        if "jwks" in client.keys:
            return KeySet.import_key_set(cast("Any", client.keys["jwks"]))
        return KeySet.import_key_set(cast("Any", self._published(str(client.keys.get("jwks_uri")))))

    def _published(self, url: str) -> dict[str, Any]:
        kept = self._fetched.get(url)
        if kept is not None and kept[0] > time.monotonic():
            return kept[1]
        try:
            # This is a thread without a loop; only a loop stops what says a little from time to time.
            keys = msgspec.json.decode(asyncio.run(_fetched(url)), type=dict[str, Any])
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, RecursionError) as error:
            raise TokenRefused("invalid_client", "Les clés publiques du client ne peuvent pas être lues.") from error
        self._fetched[url] = (time.monotonic() + _JWKS_S, keys)
        return keys


def _registered(session: Session, client_id: str) -> Client | None:
    found = session.execute(
        select(PartnerCredential.details, Partner.id, Partner.name, Partner.fhir_scopes)
        .join(Partner, Partner.id == PartnerCredential.partner_id)
        .where(
            PartnerCredential.kind == "fhir",
            PartnerCredential.value == client_id,
            PartnerCredential.revoked_at.is_(None),
            Partner.revoked_at.is_(None),
        )
    ).one_or_none()
    if found is None:
        return None
    runs = access.run_by(session, found.id)
    return Client(found.id, found.name, tuple(found.fhir_scopes), dict(found.details), runs)


async def _fetched(url: str) -> bytes:
    """What an address answers, read no further than it may be long."""
    content = bytearray()
    # Not compressed: what is counted is what is sent.
    headers = {"Accept-Encoding": "identity"}
    async with (
        asyncio.timeout(_FETCH_S),
        httpx.AsyncClient(headers=headers) as asking,
        asking.stream("GET", url) as told,
    ):
        told.raise_for_status()
        async for part in told.aiter_raw():
            content += part
            if len(content) > _JWKS_BYTES:
                raise ValueError("too many keys")
    return bytes(content)
