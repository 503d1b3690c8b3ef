from __future__ import annotations

import json
from datetime import datetime

import pytest
from msgspec.structs import replace

from gateway.errors import Fault, InvalidContent
from gateway.rcp.report_content import decode, encode
from tests.report_samples import FIXTURES, content


@pytest.mark.parametrize("name", ["full", "minimal"])
def test_facts_come_back_as_they_were_kept(name):
    kept = encode(content(name))
    assert decode(kept) == content(name)
    assert encode(decode(kept)) == kept
    assert json.loads(kept) == json.loads((FIXTURES / f"content-{name}.json").read_bytes())


def test_facts_kept_before_the_report_said_so_much_are_still_read():
    """What an older version kept lacks the later fields: they read as unsaid, and the rest as it was."""
    kept = json.loads((FIXTURES / "content-minimal.json").read_bytes())
    later = {
        "board_comment", "labels", "phase_comment", "progression_local", "progression_regional", "progression_distant",
        "geriatric", "past_treatments", "quoted", "supportive_care", "recommended", "trial_name",
    }  # fmt: skip
    assert later <= kept.keys()
    older = {name: value for name, value in kept.items() if name not in later}
    assert decode(json.dumps(older).encode()) == content("minimal")


def test_an_instant_keeps_its_moment():
    facts = content()
    assert decode(encode(facts)).written_at.isoformat() == "2026-11-26T18:15:00+01:00"


def test_an_instant_without_zone_is_refused():
    facts = replace(content(), written_at=datetime(2026, 11, 26, 18, 15))
    with pytest.raises(InvalidContent, match="report-instant"):
        encode(facts)


def test_what_is_not_a_report_is_our_fault():
    for data in (b"{}", b"", b'{"version": 0}'):
        with pytest.raises(Fault, match="report-content"):
            decode(data)


def test_an_unknown_zone_is_refused():
    with pytest.raises(InvalidContent, match="report-zone"):
        replace(content(), zone="Europe/Valombre").tzinfo()


def test_partial_dates_are_checked():
    raw = json.loads((FIXTURES / "content-full.json").read_bytes())
    raw["patient"]["birth_date"] = "28/03/1979"
    with pytest.raises(Fault):
        decode(json.dumps(raw).encode())
