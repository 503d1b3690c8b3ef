"""See `tests.hl7_scene`."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.exchange.blobs import BlobStore
from gateway.fhir.represent import Representer
from gateway.model.store import Store
from gateway.rcp.step import DomainClock
from tests.hl7_scene import Scene, open_scene


@pytest.fixture
def scene(store: Store, make_steps: Any, blobs: BlobStore) -> Scene:
    return open_scene(store, make_steps(clock=DomainClock(), represent=Representer(blobs)), blobs)
