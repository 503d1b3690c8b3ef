"""A registered name is asked for while no transaction is open, and name servers that hang hold up nobody for long."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from gateway.dicom.storage import Partners
from gateway.errors import UnknownIdentity
from gateway.hl7v2.peers import Peers
from gateway.model.partner import PartnerCredential
from gateway.model.store import Store
from gateway.rcp import peer_proofs
from gateway.rcp.access import Caller
from gateway.rcp.step import Steps
from tests.loopback import until
from tests.world import build

Recognise = Callable[[Steps], Caller]
WIRES: dict[str, tuple[str, str, dict[str, Any], Recognise]] = {
    "dicom": (
        "aet",
        "SCANNER",
        {"host": "scanner.example", "port": 104},
        lambda steps: Partners(steps, trial=False).recognise("SCANNER", "10.0.0.7", None),
    ),
    "hl7v2": (
        "mllp",
        "scanner.example",
        {},
        lambda steps: Peers(steps, trial=False).recognise("10.0.0.7", None),
    ),
}


class Names:
    """The name servers of a test."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers = threading.Event()

    def __call__(self, host: str, *_: Any, **__: Any) -> list[Any]:
        self.asked.append(host)
        assert self.answers.wait(30)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.7", 0))]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    made = Names()
    monkeypatch.setattr(peer_proofs.socket, "getaddrinfo", made)
    yield made
    made.answers.set()
    until(lambda: not peer_proofs._UNDER_WAY)


@pytest.fixture(params=WIRES)
def recognise(request: pytest.FixtureRequest, store: Store) -> Recognise:
    kind, value, details, recognise = WIRES[request.param]
    with store.session() as session:
        world = build(session)
        session.add(PartnerCredential(partner_id=world.partner.id, kind=kind, value=value, details=details))
        session.commit()
    return recognise


def open_transactions(store: Store) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid()"
    with store.session() as session:
        return int(
            session.scalar(text(query + " AND datname = current_database() AND backend_type = 'client backend'")) or 0
        )


def test_no_transaction_is_open_while_a_name_is_asked_for(
    store: Store, steps: Steps, recognise: Recognise, names: Names
) -> None:
    with ThreadPoolExecutor(1) as pool:
        caller = pool.submit(recognise, steps)
        until(lambda: names.asked)
        held = open_transactions(store)
        names.answers.set()
        assert caller.result(30).wire in ("dicom", "hl7v2")
    assert (held, names.asked) == (0, ["scanner.example"])


def test_name_servers_that_hang_make_a_refusal_and_one_thread_a_name(
    steps: Steps, recognise: Recognise, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_proofs, "_NAMES_S", 0.05)
    for _ in range(3):
        with pytest.raises(UnknownIdentity):
            recognise(steps)
    assert names.asked == ["scanner.example"]
    names.answers.set()
    until(lambda: not peer_proofs._UNDER_WAY)
    monkeypatch.setattr(peer_proofs, "_NAMES_S", 30)
    assert recognise(steps).address == "10.0.0.7"
