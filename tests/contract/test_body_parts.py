"""Regions of the body against pydicom's dictionary of the standard's codes (PS3.16)."""

from __future__ import annotations

import pytest
from pydicom.sr.codedict import codes

from gateway.fhir.translate.imaging_codes import BODY_PARTS

KNOWN = {(one.value, one.meaning) for one in (getattr(codes.SCT, name) for name in codes.SCT.dir())}


@pytest.mark.parametrize("part", sorted(BODY_PARTS))
def test_a_region_has_the_code_and_the_meaning_that_the_standard_gives_it(part: str) -> None:
    assert BODY_PARTS[part] in KNOWN
