"""Whatever a person typed, the report can be made, and says it."""

from __future__ import annotations

import unicodedata

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree
from msgspec.structs import replace

from gateway.documents import frcp, pdf, wording
from gateway.mssante import xdm_metadata
from gateway.rcp.report_content import decode, encode
from tests.report_samples import content

NS = {"c": "urn:hl7-org:v3"}
SLOW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TYPED = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
# Hard for a typesetter: its own markup, marks that combine, scripts of several directions, signs without a glyph.
HARD = st.text(
    st.sampled_from("#$*_`<>@[]{}\\\"'~=-+/ \n\t\u0301\u0323\u200d\u202e\ufe0fأبجدשלוםกิ漢😀👩ﬁœŁ½µ≥→\u00a0\u202f"),
    max_size=40,
)


@SLOW
@given(TYPED)
def test_the_cda_says_what_was_typed(typed):
    facts = replace(content(), question=typed, summary=None)
    root = etree.fromstring(frcp.render(facts))
    cell = root.xpath(".//c:content[@ID='question']", namespaces=NS)[0]
    for line in cell.iter("{urn:hl7-org:v3}br"):
        line.text = "\n"
    said = "".join(cell.itertext())
    assert said == (wording.clean(typed) or wording.UNKNOWN)


@SLOW
@given(TYPED | HARD)
def test_the_page_can_always_be_made(typed):
    facts = replace(content("minimal"), question=typed, patient_remark=typed)
    assert pdf.render(facts).startswith(b"%PDF-1.4")


@settings(deadline=None)
@given(TYPED)
def test_cleaning_is_stable_and_loses_no_letter(typed):
    once = wording.clean(typed)
    assert wording.clean(once) == once
    letters = [c for c in unicodedata.normalize("NFC", typed) if unicodedata.category(c)[0] in "LN"]
    assert [c for c in once if unicodedata.category(c)[0] in "LN"] == letters


@settings(deadline=None)
@given(TYPED)
def test_facts_survive_their_keeping(typed):
    facts = replace(content("minimal"), question=typed)
    assert decode(encode(facts)) == facts


@settings(deadline=None)
@given(TYPED, TYPED)
def test_a_name_stays_one_component(family, given_name):
    """Whatever is in a name, an XCN keeps its thirteen components."""
    person = replace(content().coordinator, family=family, given=given_name)
    written = xdm_metadata._xcn(person)
    assert written.count("^") == 12
    assert "\n" not in written
