"""What a refused transaction was the first to keep is gone; what anybody else names never is."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from gateway.errors import Conflict, GatewayError, Unavailable
from gateway.exchange import pending
from gateway.exchange.blobs import Blob, BlobStore
from gateway.exchange.outbox import INLINE_BYTES, Outgoing
from gateway.model.store import Store
from gateway.rcp.access import SYSTEM
from gateway.rcp.step import Step, Steps
from tests.loopback import until

CONTENT = b"des octets " * 1000
KEY = hashlib.sha256(CONTENT).hexdigest()


class Refused(Conflict):
    def __init__(self) -> None:
        super().__init__("refus", "Refus d’essai.")


def _refusing(blobs: BlobStore, content: bytes = CONTENT) -> Callable[[Step], None]:
    def verb(step: Step) -> None:
        pending.keep(step.session, blobs, content)
        raise Refused

    return verb


def _keeping(blobs: BlobStore) -> Callable[[Step], Blob]:
    return lambda step: pending.keep(step.session, blobs, CONTENT)


def test_what_is_kept_stays_and_what_is_refused_is_gone(steps: Steps, blobs: BlobStore) -> None:
    with pytest.raises(Refused):
        steps.run(SYSTEM, _refusing(blobs))
    assert blobs.size(KEY) is None
    assert steps.run(SYSTEM, _keeping(blobs)) == Blob(KEY, len(CONTENT))
    assert blobs.read(KEY, verify=True) == CONTENT
    # It was there: who is refused now was not the first.
    with pytest.raises(Refused):
        steps.run(SYSTEM, _refusing(blobs))
    assert blobs.read(KEY, verify=True) == CONTENT


def test_what_is_kept_twice_in_one_step_goes_once(steps: Steps, blobs: BlobStore) -> None:
    def verb(step: Step) -> None:
        pending.keep(step.session, blobs, CONTENT)
        pending.keep(step.session, blobs, b"autre")
        pending.keep(step.session, blobs, CONTENT)
        raise Refused

    with pytest.raises(Refused):
        steps.run(SYSTEM, verb)
    assert (blobs.size(KEY), blobs.size(hashlib.sha256(b"autre").hexdigest())) == (None, None)


def test_a_large_message_of_a_refused_step_is_gone(steps: Steps, blobs: BlobStore) -> None:
    content = b"x" * (INLINE_BYTES + 1)

    def verb(step: Step) -> None:
        step.post(Outgoing(channel="essai", kind="essai", key="1", content=content))
        assert blobs.size(hashlib.sha256(content).hexdigest()) == len(content)
        raise Refused

    with pytest.raises(Refused):
        steps.run(SYSTEM, verb)
    assert blobs.size(hashlib.sha256(content).hexdigest()) is None


def test_a_representation_that_fails_takes_it_back_too(make_steps: Callable[..., Steps], blobs: BlobStore) -> None:
    def represent(step: Step, _roots: object) -> None:
        _refusing(blobs)(step)

    def verb(step: Step) -> None:
        step.roots["Essai", step.session.hash_key] = object()  # type: ignore[index]  # any key will do

    with pytest.raises(Refused):
        make_steps(represent=represent).run(SYSTEM, verb)
    assert blobs.size(KEY) is None


def _waiting(store: Store) -> None:
    """Until somebody waits for a lock that another holds."""

    def somebody() -> bool:
        with store.engine.connect() as connection:
            asked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            return bool(connection.exec_driver_sql(asked).scalar_one())

    until(somebody)


@pytest.mark.parametrize("first_refused", [True, False])
@pytest.mark.parametrize("second_refused", [True, False])
def test_two_writers_of_the_same_bytes_at_once(
    store: Store, steps: Steps, blobs: BlobStore, first_refused: bool, second_refused: bool
) -> None:
    kept, go = threading.Event(), threading.Event()

    def first(step: Step) -> None:
        pending.keep(step.session, blobs, CONTENT)
        kept.set()
        assert go.wait(60)
        if first_refused:
            raise Refused

    def told(verb: Callable[[Step], object]) -> bool:
        try:
            steps.run(SYSTEM, verb)
        except Refused:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(told, first)
        assert kept.wait(60)
        two = pool.submit(told, _refusing(blobs) if second_refused else _keeping(blobs))
        _waiting(store)
        go.set()
        done = [one.result(60), two.result(60)]
    assert done == [not first_refused, not second_refused]
    assert (blobs.size(KEY) is not None) is any(done)


def test_many_writers_of_the_same_bytes_lose_nothing_and_leave_nothing(steps: Steps, blobs: BlobStore) -> None:
    for every in (100, 7):
        content = f"octets {every}".encode()
        key = hashlib.sha256(content).hexdigest()
        plan = [place % every == every - 1 for place in range(48)]

        def write(good: bool, content: bytes = content, key: str = key) -> bool:
            def verb(step: Step) -> None:
                pending.keep(step.session, blobs, content)
                if not good:
                    raise Refused

            try:
                steps.run(SYSTEM, verb)
            except Refused:
                return False
            # Acknowledged: from here on it is there.
            assert blobs.read(key, verify=True) == content
            return True

        with ThreadPoolExecutor(8) as pool:
            done = list(pool.map(write, plan))
        assert done == plan
        assert (blobs.size(key) is not None) is any(plan)


def test_a_transaction_that_the_database_gave_up_touches_nothing(store: Store, steps: Steps, blobs: BlobStore) -> None:
    """Its locks went with it: somebody else may have found the content and named it."""

    def verb(step: Step) -> None:
        pending.keep(step.session, blobs, CONTENT)
        try:
            step.session.execute(text("SELECT 1 / 0"))
        except DBAPIError:
            assert steps.run(SYSTEM, _keeping(blobs)).sha256 == KEY
            raise

    with pytest.raises(DBAPIError):
        steps.run(SYSTEM, verb)
    assert blobs.read(KEY) == CONTENT


def test_a_connection_that_is_gone_touches_nothing(store: Store, steps: Steps, blobs: BlobStore) -> None:
    def verb(step: Step) -> None:
        pending.keep(step.session, blobs, CONTENT)
        own = step.session.connection().exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        with store.engine.connect() as other:
            other.exec_driver_sql(f"SELECT pg_terminate_backend({own}, 5000)")
        assert steps.run(SYSTEM, _keeping(blobs)).sha256 == KEY
        raise Refused

    with pytest.raises(GatewayError):
        steps.run(SYSTEM, verb)
    assert blobs.read(KEY) == CONTENT


def test_a_store_that_does_not_answer_hides_no_refusal(
    steps: Steps, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_key: str) -> None:
        raise Unavailable("blob-store", "Le magasin de contenus ne répond pas.", retry_after_s=30)

    monkeypatch.setattr(blobs, "delete", broken)
    with pytest.raises(Refused):
        steps.run(SYSTEM, _refusing(blobs))


def test_a_rehearsal_keeps_nothing_but_what_it_reads_again(steps: Steps, blobs: BlobStore) -> None:
    def verb(step: Step) -> None:
        pending.rehearse(step.session)
        assert pending.keep(step.session, blobs, CONTENT) == Blob(KEY, len(CONTENT))
        assert blobs.size(KEY) is None
        read = pending.keep(step.session, blobs, b"relu", read_again=True)
        assert blobs.read(read.sha256) == b"relu"
        raise Refused

    with pytest.raises(Refused):
        steps.run(SYSTEM, verb)
    assert blobs.size(hashlib.sha256(b"relu").hexdigest()) is None
