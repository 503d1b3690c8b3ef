"""INS: form, key, authority, and what a log may see of it.

Numbers come from outside: ANS test documents (valid and wrong keys), the FR Core and IHE PAM France examples.
"""

from __future__ import annotations

import pytest

from gateway.errors import InvalidContent
from gateway.identifiers import SYSTEMS, Ins, InsAuthority, system_named
from gateway.terminology import code_list

TEST_OID = "1.2.250.1.213.1.4.10"


@pytest.mark.parametrize(
    "value",
    ["279035121518989", "277076322082910", "207058575627097", "248039263001064", "185052A00403646", "290112B03308126"],
)
def test_a_right_key_is_accepted(value):
    ins = Ins.parse(value, TEST_OID)
    assert ins.value == value
    assert (ins.number, ins.key) == (value[:13], value[13:])
    assert ins.qualifiable
    assert ins.authority is InsAuthority.TEST


# Published by ANS, FR Core (244) and IHE PAM France (the NIA) with a key that is wrong.
@pytest.mark.parametrize(
    "value",
    [
        "221042545611404",
        "276037510669380",
        "222127505611201",
        "223042545611404",
        "224027511583555",
        "276059205062865",
        "123456789012244",
        "260058815400244",
    ],
)
@pytest.mark.parametrize("oid", [authority.oid for authority in InsAuthority if authority.oid != "1.2.250.1.213.1.4.2"])
def test_a_wrong_key_is_kept_from_a_wire_never_qualifiable_and_refused_in_a_form(value, oid):
    ins = Ins.from_wire(value, oid)
    assert ins.value == value
    assert ins.faults == ("ins-cle",)
    assert not ins.qualifiable
    with pytest.raises(InvalidContent) as refusal:
        Ins.parse(value, oid, expression="patient.ins")
    assert refusal.value.code == "ins-cle"
    assert refusal.value.expression == "patient.ins"
    assert value[:10] not in str(refusal.value)


@pytest.mark.parametrize(
    ("value", "oid", "faults"),
    [
        ("2790351215189", TEST_OID, ("ins-sans-cle",)),
        ("27903512151898", TEST_OID, ("ins-forme",)),
        ("", TEST_OID, ("ins-forme",)),
        ("27903512151898X", TEST_OID, ("ins-forme",)),
        ("２７９０３", TEST_OID, ("ins-forme",)),
        ("185052C00403646", TEST_OID, ("ins-forme",)),
        ("279035121518989", "1.2.250.1.213.1.4.13", ("ins-autorite",)),
        ("279035121518988", "", ("ins-autorite", "ins-cle")),
        ("0123456789012345678901", "1.2.250.1.213.1.4.2", ("ins-obsolete",)),
    ],
)
def test_each_fault_has_its_code(value, oid, faults):
    ins = Ins.from_wire(value, oid)
    assert ins.faults == faults
    assert not ins.qualifiable
    with pytest.raises(InvalidContent) as refusal:
        Ins.parse(value, oid)
    assert refusal.value.code == faults[0]
    assert refusal.value.rule


def test_what_people_put_between_the_digits_does_not_count():
    typed = "2 79 03 51\u00a0215 189\u202f89"
    assert Ins.parse(typed, f"urn:oid:{TEST_OID}") == Ins.parse("279035121518989", TEST_OID)
    assert Ins.parse("1 85 05 2a 004 036 46", InsAuthority.NIR).value == "185052A00403646"


def test_the_same_matricule_under_another_authority_is_another_identity():
    real, test = (Ins.parse("279035121518989", authority) for authority in (InsAuthority.NIR, InsAuthority.TEST))
    assert real != test
    assert (real.authority.environment, test.authority.environment) == ("production", "test")
    assert (real.system, test.system) == ("urn:oid:1.2.250.1.213.1.4.8", f"urn:oid:{TEST_OID}")


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{!r}".format, lambda ins: f"{ins}", lambda ins: f"{[ins]}"])
@pytest.mark.parametrize("value", ["279035121518989", "2790351215189", "279035121518988", "2790"])
def test_no_way_to_print_it_shows_more_than_four_characters(show, value):
    shown = show(Ins.from_wire(value, TEST_OID))
    assert not any(value[at : at + 5] in shown for at in range(len(value) - 4))
    assert len(value) > 8 or value not in shown


def test_the_authorities_are_those_of_the_national_table():
    national = {row.code: row.properties for row in code_list("INS-autorites")}
    assert {authority.oid for authority in InsAuthority} == national.keys()
    for authority in InsAuthority:
        row = national[authority.oid]
        # The national sheet says « demo », our word is whole.
        assert authority.environment.startswith(row["environment"])
        assert (authority.identifier_type, authority.use) == (row["identifier_type"], row["identifier_use"])
        assert system_named(authority.system) == authority.identifier_type
        assert SYSTEMS[authority.identifier_type].oid == authority.oid


def test_the_billing_nir_is_never_taken_for_an_ins():
    assert system_named("urn:oid:1.2.250.1.213.1.4.8", "INS-NIR") == "INS-NIR"
    assert system_named("urn:oid:1.2.250.1.213.1.4.8", "NH") is None
