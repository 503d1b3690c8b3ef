"""Professionals and structures: numbers published by the directory's documentation, or by hospitals themselves."""

from __future__ import annotations

import pytest

from gateway.errors import InvalidContent
from gateway.identifiers import SYSTEMS, Finess, IdNatPs, IdNatSt, MssanteAddress, Rpps, Siren, Siret, system_named
from gateway.identifiers.systems import FR_CORE_TYPES
from gateway.terminology import code_list


def _refused(parse, value):
    with pytest.raises(InvalidContent) as refusal:
        parse(value, expression="x")
    assert refusal.value.expression == "x"
    return refusal.value.code


# ANS test cards, and the directory sheet's own example.
@pytest.mark.parametrize("value", ["99700218896", "99700366240", "99700245667", "99700000013"])
def test_rpps_right(value):
    assert Rpps.parse(value).value == value
    assert Rpps.from_wire("8" + value) == Rpps.parse(value)
    assert Rpps.parse(value).idnps == "8" + value
    assert IdNatPs.parse("8" + value).rpps == Rpps.parse(value)
    assert IdNatPs.from_wire(value).value == "8" + value


# FR Core, IHE and directory examples whose key is wrong, and a change of one digit.
@pytest.mark.parametrize("value", ["10003461033", "10102727017", "10101201234", "99700000014"])
def test_rpps_with_a_wrong_key(value):
    assert _refused(Rpps.parse, value) == "rpps-cle"
    assert Rpps.from_wire(value).faults == ("rpps-cle",)
    assert Rpps.from_wire(value).value == value
    assert IdNatPs.from_wire("8" + value).faults == ("rpps-cle",)
    assert _refused(IdNatPs.parse, "8" + value) == "rpps-cle"


@pytest.mark.parametrize("value", ["", "9970000001", "9970000001A", "899700000013X", "ANS20231122132732"])
def test_rpps_of_another_form(value):
    assert _refused(Rpps.parse, value) == "rpps-forme"
    assert Rpps.from_wire(value).faults == ("rpps-forme",)


def test_national_identifiers_of_other_kinds_are_kept():
    register = IdNatPs.parse("3690000123/4567")
    assert (register.type_code, register.rpps) == ("3", None)
    assert IdNatPs.from_wire("ANS20231122132732").faults == ("idnps-forme",)
    assert IdNatPs.from_wire("ANS20231122132732").value == "ANS20231122132732"


# AP-HP, Hospices civils de Lyon, CHU de Bordeaux, CHU de Lille; the directory sheet's fictitious one.
@pytest.mark.parametrize("value", ["750712184", "690781810", "330781196", "590780193", "990000010"])
def test_finess_right(value):
    assert Finess.parse(value).value == value
    assert Finess.from_wire("1" + value) == Finess.parse(value)
    assert Finess.parse(value).idnst == "1" + value
    assert IdNatSt.parse("1" + value).finess == Finess.parse(value)


@pytest.mark.parametrize("value", ["990000011", "000897406"])
def test_finess_with_a_wrong_key(value):
    assert _refused(Finess.parse, value) == "finess-cle"
    assert Finess.from_wire(value).faults == ("finess-cle",)
    assert IdNatSt.from_wire("1" + value).faults == ("finess-cle",)
    assert _refused(IdNatSt.parse, "1" + value) == "finess-cle"


@pytest.mark.parametrize("value", ["2A0000014", "2b0000020"])
def test_a_corsican_finess_is_accepted_and_flagged_where_its_key_cannot_be_verified(value):
    assert Finess.parse(value).value == value.upper()
    assert Finess.parse(value).faults == ()
    assert Finess.from_wire(value).faults == ("finess-lettre",)
    assert IdNatSt.from_wire("1" + value).faults == ("finess-lettre",)
    assert IdNatSt.parse("1" + value).value == "1" + value.upper()


@pytest.mark.parametrize("value", ["", "99000001", "9900000100", "2C0000014", "A20000014", "29A000014"])
def test_finess_of_another_form(value):
    assert _refused(Finess.parse, value) == "finess-forme"
    assert Finess.from_wire(value).faults == ("finess-forme",)


def test_siren_and_siret():
    # SIREN of the State's official journal (DILA) and of La Poste, whose places follow their own rule.
    assert Siren.parse("130 009 186").value == "130009186"
    assert Siret.parse("130 009 186 00011").siren == Siren.parse("130009186")
    assert Siret.parse("35600000000048").value == "35600000000048"
    assert Siret.parse("35600000049837").value == "35600000049837"
    assert Siret.from_wire("35600000049838").faults == ("siret-cle",)
    assert Siret.from_wire("13000918600012").faults == ("siret-cle",)
    assert Siren.from_wire("130009187").faults == ("siren-cle",)
    assert _refused(Siren.parse, "13000918") == "siren-forme"
    assert _refused(Siret.parse, "1300091860001") == "siret-forme"
    assert IdNatSt.parse("313000918600011").siret == Siret.parse("13000918600011")
    assert IdNatSt.parse("313000918600011").finess is None


def test_a_structure_of_another_kind_is_kept():
    assert IdNatSt.parse("499700000013001").type_code == "4"
    assert IdNatSt.from_wire("X").faults == ("idnst-forme",)
    assert _refused(IdNatSt.parse, "X") == "idnst-forme"


@pytest.mark.parametrize(
    ("value", "domain"),
    [
        ("Alice.Exemple@demo.mssante.fr", "demo.mssante.fr"),
        ("cabinet@interop-mssante.apicrypt.org", "interop-mssante.apicrypt.org"),
        ("a@b.c.mssante.fr", "b.c.mssante.fr"),
        ("j-p.d'arc+rcp_1@ch-d.mssante.fr", "ch-d.mssante.fr"),
    ],
)
def test_mssante_addresses(value, domain):
    address = MssanteAddress.parse(value)
    assert address.domain == domain
    assert address == MssanteAddress.parse(value.upper())


@pytest.mark.parametrize(
    "value",
    [
        "alice@example.org",
        "alice@mssante.fr",
        "alice@demo.mssante.fr.example.org",
        "alice@demo-mssante.fr",
        "al ice@demo.mssante.fr",
        "alice@demo.mssante.fr\nBcc: x@example.org",
        "alice@demo.mſsante.fr",
        "аlice@demo.mssante.fr",  # a Cyrillic а
        "élise@demo.mssante.fr",
        "alice@démo.mssante.fr",
        "alice@demo..mssante.fr",
        "alice@-demo.mssante.fr",
        "<alice>@demo.mssante.fr",
        ".alice@demo.mssante.fr",
        f"{'a' * 65}@demo.mssante.fr",
        "",
    ],
)
def test_what_is_outside_the_mssante_space_is_refused_and_flagged(value):
    assert _refused(MssanteAddress.parse, value) == "mssante-forme"
    assert MssanteAddress.from_wire(value).faults == ("mssante-forme",)


def test_the_table_of_systems_uses_published_types():
    french = code_list("fr-core-v2-0203")
    for name, facts in SYSTEMS.items():
        if facts.type_system == FR_CORE_TYPES:
            assert facts.type_code in french, name


@pytest.mark.parametrize(
    ("system", "type_code", "name"),
    [
        ("https://rpps.esante.gouv.fr", None, "RPPS"),
        ("http://rpps.fr", "RPPS", "RPPS"),
        ("urn:oid:1.2.250.1.71.4.2.1", None, "IDNPS"),
        ("urn:oid:1.2.250.1.71.4.2.2", None, "IDNST"),
        ("https://finess.esante.gouv.fr", "FINEG", "FINEG"),
        ("https://finess.esante.gouv.fr/", "FINEJ", "FINEJ"),
        ("https://sirene.fr", "SIRET", "SIRET"),
        ("urn:ietf:rfc:3986", "FILL", "FILL"),
        ("https://ailleurs.example", None, None),
    ],
)
def test_a_fhir_system_tells_what_the_identifier_is(system, type_code, name):
    assert system_named(system, type_code) == name
