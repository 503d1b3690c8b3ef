"""Patients written together are looked for by index, whatever PostgreSQL's statistics say of them."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from gateway.rcp import identity
from tests.world import DOMAIN, build

ROWS = 20_000
NATIONAL = "urn:oid:1.2.250.1.213.1.4.8"
_FILL = """
INSERT INTO patient_record (id, partner_id, system, value, ins_system, ins_value, ins_qualified, ins_faults,
  identity_status, given_names, sex, active, created_at, updated_at, match_key)
SELECT gen_random_uuid(), :partner, :system, 'v' || i, CASE WHEN :ins THEN :national END,
  CASE WHEN :ins THEN lpad(i::text, 15, '0') END, :ins, '{}', 'VALI', '{}', 'F', true, now(), now(), 'k' || i
FROM generate_series(CAST(:first AS int), :last) AS i
"""


@pytest.fixture
def many(store):
    """Records without INS, statistics that say so, and then as many with one."""
    with store.session() as session:
        world = build(session)
        said = {"partner": world.partner.id, "system": DOMAIN, "national": NATIONAL}
        session.execute(text(_FILL), said | {"ins": False, "first": 1, "last": ROWS})
        session.commit()
        session.execute(text("ANALYZE patient_record"))
        session.execute(text(_FILL), said | {"ins": True, "first": ROWS + 1, "last": 2 * ROWS})
        session.commit()
        yield session, world.partner.id


@pytest.mark.parametrize("statement", ["_ALL_KEYED", "_ALL_PROVED"])
@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
def test_pairs_are_looked_up_one_by_one(many, statement, mode):
    session, partner = many
    prepared = getattr(identity, statement)
    of = {"_ALL_KEYED": (DOMAIN, "v{}"), "_ALL_PROVED": (NATIONAL, "{:015}")}[statement]
    asked = {"systems": [of[0]] * 16, "values": [of[1].format(n) for n in (ROWS + 7, *range(3 * ROWS, 3 * ROWS + 15))]}
    if statement == "_ALL_KEYED":
        asked["partner"] = partner
    assert len(prepared.run(session, asked)) == 1
    session.execute(text(f"SET LOCAL plan_cache_mode = {mode}"))
    made = prepared._make().params(**asked)
    plan = session.execute(
        text("EXPLAIN " + str(made.compile(session.connection(), compile_kwargs={"literal_binds": True})))
    )
    told = "\n".join(row[0] for row in plan)
    assert "Hash" not in told, told
    assert "Seq Scan" not in told, told
    assert told.count("Index Cond: ") == 1, told
