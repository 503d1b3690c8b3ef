"""How an operator writes a DICOM application on the command line."""

from __future__ import annotations

import pytest

from gateway.app.registry import _ae_title
from gateway.errors import InvalidContent
from gateway.rcp.registry import AeTitle

DIGITS = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("PACS", AeTitle("PACS")),
        ("PACS@10.0.0.7:104", AeTitle("PACS", "10.0.0.7", 104)),
        ("PACS@pacs.chu-x.example:11112", AeTitle("PACS", "pacs.chu-x.example", 11112)),
        ("PACS@[2001:db8::7]:104", AeTitle("PACS", "2001:db8::7", 104)),
        ("PACS@2001:db8::7:104", AeTitle("PACS", "2001:db8::7", 104)),
        (f"PACS,sha256:{DIGITS}", AeTitle("PACS", certificates=(DIGITS,))),
        (f"A,B@10.0.0.7:104,SHA256:{DIGITS},sha256:AB:CD", AeTitle("A,B", "10.0.0.7", 104, (DIGITS, "AB:CD"))),
    ],
)
def test_a_title_a_place_and_certificates(written, read):
    assert _ae_title(written) == read


@pytest.mark.parametrize(
    "written", ["PACS@hote", "PACS@:104", "PACS@hote:0", "PACS@hote:65536", "PACS@hote:١", "P@h:-1"]
)
def test_what_is_no_place_is_refused(written):
    with pytest.raises(InvalidContent):
        _ae_title(written)
