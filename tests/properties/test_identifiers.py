"""Laws of the keys: what they find, whatever the number."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.identifiers import DossierReference, Finess, Ins, InsAuthority, Ipp, Rpps, Uid, Urn
from gateway.identifiers.keys import luhn_valid, nir_key

ALPHABET = "23456789ABCDEFGHJKLMNPQRSTVWXYZ"
references = st.builds(DossierReference.new)
nirs = st.from_regex(r"[12][0-9]{2}(0[1-9]|1[0-2])([0-9]{2}|2[AB])[0-9]{6}", fullmatch=True).filter(str.isascii)


@given(nirs, st.integers(0, 14), st.sampled_from("0123456789"))
def test_the_nir_key_finds_any_wrong_digit(number, place, digit):
    right = number + nir_key(number)
    assume(right[place].isdigit() and right[place] != digit)
    # Replacing the figure of a Corsican department would change its form, not a digit.
    assume(not (right[5:7] in {"2A", "2B"} and place == 5))
    wrong = right[:place] + digit + right[place + 1 :]
    assert Ins.from_wire(right, InsAuthority.TEST).faults == ()
    faults = Ins.from_wire(wrong, InsAuthority.TEST).faults
    assert faults in {("ins-cle",), ("ins-forme",)}


@given(st.text("0123456789", min_size=10, max_size=10), st.integers(0, 10), st.sampled_from("0123456789"))
def test_luhn_finds_any_wrong_digit(body, place, digit):
    right = next(body + key for key in "0123456789" if luhn_valid(body + key))
    assume(right[place] != digit)
    assert Rpps.from_wire(right).faults == ()
    assert Rpps.from_wire(right[:place] + digit + right[place + 1 :]).faults == ("rpps-cle",)


@given(references, st.integers(0, 5), st.sampled_from(ALPHABET))
def test_a_reference_finds_any_wrong_character(reference, place, character):
    characters = reference.value[4:8] + reference.value[9:]
    assume(characters[place] != character)
    wrong = characters[:place] + character + characters[place + 1 :]
    assert DossierReference.from_wire(f"RCP-{wrong[:4]}-{wrong[4:]}").faults == ("reference-cle",)


@given(references, st.integers(0, 5), st.integers(0, 5))
def test_a_reference_finds_any_exchange(reference, one, other):
    characters = list(reference.value[4:8] + reference.value[9:])
    assume(characters[one] != characters[other])
    characters[one], characters[other] = characters[other], characters[one]
    wrong = "".join(characters)
    assert DossierReference.from_wire(f"RCP-{wrong[:4]}-{wrong[4:]}").faults == ("reference-cle",)


@given(st.text(max_size=40), st.text(max_size=40))
def test_whatever_a_wire_sends_is_read(value, system):
    # Nothing raises; what `parse` accepts, `from_wire` does not flag.
    for read in (
        Ins.from_wire(value, system),
        Ipp.from_wire(value, system),
        Rpps.from_wire(value),
        Finess.from_wire(value),
        Uid.from_wire(value),
        Urn.from_wire(value),
        DossierReference.from_wire(value),
    ):
        assert repr(read)
        assert isinstance(read.faults, tuple)


@given(st.uuids())
def test_uuids_go_through_urn_oid_and_uid(number):
    assert Urn.parse(f"urn:uuid:{number}").uuid == number
    assert int(Uid.of_uuid(number).value.removeprefix("2.25.")) == number.int
    assert Uid.parse(Uid.of_uuid(number).value).faults == ()
