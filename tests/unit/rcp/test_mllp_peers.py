"""How a partner is recognised on the MLLP port."""

from __future__ import annotations

import pytest

from gateway.errors import Conflict, InvalidContent
from gateway.rcp import registry
from gateway.rcp.access import SYSTEM
from gateway.rcp.mllp_peers import MllpPeer
from gateway.rcp.registry import PartnerFacts

DIGITS = "0123456789abcdef" * 4
#: As ``openssl x509 -fingerprint -sha256`` prints it.
PRINTED = ":".join(DIGITS.upper()[at : at + 2] for at in range(0, 64, 2))


@pytest.mark.parametrize(
    ("written", "kept", "says"),
    [
        ("10.0.0.7", "10.0.0.7", 1),
        ("EAI.chu-x.example", "eai.chu-x.example", 1),
        ("2001:db8::7", "2001:db8::7", 1),
        ("::1", "::1", 1),
        ("fe80::", "fe80::", 1),
        ("[2001:0DB8:0::7]", "2001:db8::7", 1),
        ("::ffff:10.0.0.7", "10.0.0.7", 1),
        (f"sha256:{DIGITS}@[::1]", f"sha256:{DIGITS}@::1", 3),
        (f"sha256:{PRINTED}", f"sha256:{DIGITS}", 2),
        (f"SHA256:{DIGITS}@eai.chu-x.example", f"sha256:{DIGITS}@eai.chu-x.example", 3),
    ],
)
def test_one_spelling_for_one_peer(written, kept, says):
    peer = MllpPeer.parse(written)
    assert (peer.value, peer.says) == (kept, says)
    assert MllpPeer.parse(kept) == peer


@pytest.mark.parametrize(
    "written",
    [
        *("", " ", "sha256:", f"sha256:{DIGITS[:-1]}", f"sha256:{DIGITS}@", "hôte", "a b", "mllp://hote", "-a"),
        *("[10.0.0.7", "[eai.example]", "::g", "fe80::1%lo", "[]"),
    ],
)
def test_what_is_no_peer_is_refused(written):
    with pytest.raises(InvalidContent) as refused:
        MllpPeer.parse(written)
    assert (refused.value.code, refused.value.expression) == ("pair-mllp", "mllp")


def test_a_peer_belongs_to_one_live_partner(steps):
    def add(name, peer):
        return steps.run(SYSTEM, lambda step: registry.add_partner(step, PartnerFacts(name=name, mllp_peers=(peer,))))

    add("CHU X", "EAI.chu-x.example")
    with pytest.raises(Conflict, match="identifiant-de-partenaire"):
        add("CHU Y", "eai.chu-x.example")
    steps.run(SYSTEM, lambda step: registry.revoke_partner(step, "CHU X"))
    [credential] = add("CHU Y", "eai.chu-x.example").credentials
    assert (credential.kind, credential.value) == ("mllp", "eai.chu-x.example")
