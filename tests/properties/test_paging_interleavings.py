"""Whatever is written between two pages, a reader sees what was there at the first page, each once, in its order.

The model is a dict of Python values; the order that is expected is sorted from it.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.fhir import keeping
from gateway.fhir.keeping import Owner
from gateway.fhir.read import FhirReads
from gateway.model.audit import AuditTrail
from gateway.model.reads import Reads
from gateway.model.representation import TABLES
from gateway.model.store import Store
from gateway.rcp.access import Caller, CallerKind
from gateway.settings import Limits

ME = uuid.UUID(int=7)
CALLER = Caller(kind=CallerKind.CLIENT, partner_id=ME, identifier="essai", scopes=frozenset({"system/*.rs"}))
IDS = [f"p{number}" for number in range(12)]

births = st.sampled_from([None, "1950", "1960", "1960-05", "1970-01-01"])
#: A patient is put there with a date of birth, or taken away.
writes = st.tuples(st.sampled_from(IDS), st.one_of(births, st.just("-")))


def write(store: Store, changes: list[tuple[str, str | None]], *, together: bool) -> None:
    with store.session() as session:
        for identity, birth in changes:
            owner = Owner(partner_id=ME)
            if birth == "-":
                keeping.remove(session, "Patient", identity, owner)
            else:
                tree: dict[str, Any] = {"resourceType": "Patient"} | ({"birthDate": birth} if birth else {})
                keeping.keep(session, "Patient", identity, tree, owner)
            if not together:
                session.commit()
        session.commit()


def apply(model: dict[str, str | None], changes: list[tuple[str, str | None]]) -> dict[str, str | None]:
    after = dict(model)
    for identity, birth in changes:
        if birth == "-":
            after.pop(identity, None)
        else:
            after[identity] = birth
    return after


def expected(model: dict[str, str | None], order: str) -> list[str]:
    if not order:
        return sorted(model)
    down = order.startswith("-")
    # A partial date counts by its first moment, or when it descends by its last.
    last = {"1950": "1950-12-31", "1960": "1960-12-31", "1960-05": "1960-05-31"}
    first = {"1950": "1950-01-01", "1960": "1960-01-01", "1960-05": "1960-05-01"}
    said = {name: (last if down else first).get(birth, birth) for name, birth in model.items() if birth}
    ordered = sorted(said, key=lambda name: (said[name], name), reverse=down)
    return ordered + sorted((name for name in model if name not in said), reverse=down)


@pytest.mark.parametrize("order", ["", "birthdate", "-birthdate"])
def test_pages_are_one_snapshot(store: Store, trail: AuditTrail, order: str) -> None:
    table = TABLES["Patient"]

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        before=st.lists(writes, max_size=20),
        between=st.lists(st.lists(writes, max_size=5), min_size=1, max_size=8),
        count=st.integers(1, 4),
        together=st.booleans(),
    )
    def check(
        before: list[tuple[str, str | None]],
        between: list[list[tuple[str, str | None]]],
        count: int,
        together: bool,
    ) -> None:
        with store.session() as session:
            session.execute(table.delete())
            session.commit()
        write(store, before, together=together)
        then = apply({}, before)

        async def story() -> list[list[str]]:
            reads = Reads(store, trail)
            try:
                fhir = FhirReads(reads, None, "http://x/fhir", Limits(), bytes(32))  # type: ignore[arg-type]  # no Binary
                pairs = [("_count", str(count)), *([("_sort", order)] if order else [])]
                pages: list[list[str]] = []
                while True:
                    bundle = msgspec.json.decode(await fhir.search(CALLER, "Patient", pairs))
                    pages.append([entry["resource"]["id"] for entry in bundle.get("entry", ())])
                    following = {link["relation"]: link["url"] for link in bundle["link"]}.get("next")
                    if following is None:
                        return pages
                    pairs = parse_qsl(urlsplit(following).query)
                    if between:
                        write(store, between.pop(), together=together)
            finally:
                await reads.close()

        left = [list(one) for one in between]
        pages = asyncio.run(story())
        shown = [name for page in pages for name in page]
        whole = expected(then, order)
        assert len(shown) == len(set(shown))
        assert shown == [name for name in whole if name in shown]
        # Only what was deleted meanwhile may be missing.
        deleted = {name for changes in left for name, birth in changes if birth == "-"}
        assert set(whole) - set(shown) <= deleted
        if not deleted:
            assert shown == whole

    check()
