"""Userinfo to a professional: the shapes that PSC sends, the ones that it should not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Forbidden
from gateway.psc.accounts import Professional, read_professional

EXERCISE = {"codeProfession": "10", "codeSavoirFaire": "SM36"}


def userinfo(**changes):
    base = {
        "SubjectNameID": "899700000013",
        "given_name": "ALICE",
        "family_name": "EXEMPLE",
        "SubjectRefPro": {"exercices": [EXERCISE]},
    }
    return {name: value for name, value in (base | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("national_id", "others", "rpps"),
    [
        ("899700000013", None, "99700000013"),
        ("5f3c2a10-97aa-4b6e-9d55-000000000005", [("899700000054", "RPPS")], "99700000054"),
        ("5f3c2a10-97aa-4b6e-9d55-000000000005", [("99700000054", "RPPS")], "99700000054"),
        ("5f3c2a10-97aa-4b6e-9d55-000000000005", [("899700000054", "ADELI")], None),
        ("899700000014", None, None),  # wrong Luhn key: proves nobody
        ("399000001000001", None, None),
        ("ANS20231122132732", None, None),
        ("012345678", [], None),
    ],
)
def test_rpps_is_found_where_psc_puts_it(national_id, others, rpps):
    listed = None if others is None else [{"identifiant": value, "origine": kind} for value, kind in others]
    read = read_professional(userinfo(SubjectNameID=national_id, otherIds=listed))
    assert read.rpps == rpps
    assert read.national_id == national_id
    assert read.idnps == (f"8{rpps}" if rpps else national_id)


def test_names_are_not_swapped():
    read = read_professional(userinfo(given_name="Zoé", family_name="MARTIN"))
    assert (read.family, read.given) == ("MARTIN", "Zoé")


@pytest.mark.parametrize(
    "told",
    [
        userinfo(SubjectRefPro=None),
        userinfo(SubjectRefPro={"exercices": []}),
        userinfo(SubjectRefPro={"exercices": [{"codeProfession": ""}]}),
        userinfo(SubjectRefPro="10"),
        userinfo(SubjectNameID=""),
        userinfo(SubjectNameID=None),
        {},
    ],
)
def test_who_is_no_professional_is_refused(told):
    with pytest.raises(Forbidden, match="psc-not-a-professional"):
        read_professional(told)


def test_exercise_without_activities_is_one_situation():
    (situation,) = read_professional(userinfo()).situations
    assert situation.label() == "Médecin – Oncologie, option médicale (SM) – sans structure déclarée"


def test_same_facts_twice_are_one_situation_and_order_does_not_matter():
    here = {"ancienIdentifiantDeLaStructure": "1990000010", "raisonSocialeSite": "CHU"}
    there = {"ancienIdentifiantDeLaStructure": "1990000028", "raisonSocialeSite": "CLCC"}

    def keys(activities):
        told = userinfo(SubjectRefPro={"exercices": [{**EXERCISE, "activities": activities}]})
        return [situation.key for situation in read_professional(told).situations]

    assert len(keys([here, here, there])) == 2
    assert keys([here, there]) == keys([there, here])[::-1]


def test_unknown_codes_are_shown_as_they_came():
    told = userinfo(SubjectRefPro={"exercices": [{"codeProfession": "999", "codeSavoirFaire": "XX9"}]})
    assert read_professional(told).situations[0].label().startswith("999 – XX9 – ")


@given(
    st.dictionaries(
        st.sampled_from(["SubjectNameID", "SubjectRefPro", "given_name", "family_name", "otherIds"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=12) | st.just({"exercices": [EXERCISE]}),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["exercices", "activities", "codeProfession", "origine"]), inner)
            ),
            max_leaves=12,
        ),
    )
)
def test_any_answer_is_read_or_refused(told):
    try:
        read = read_professional(told)
    except Forbidden:
        return
    assert isinstance(read, Professional)
    assert read.situations


SHAPES = Path(__file__).resolve().parents[2] / "e2e" / "psc_idp" / "accounts.json"
# What each identity of the file proves: RPPS and number of situations, or a refusal [spec psc §5.2, §5.3].
EXPECTED = {
    "deux-activites": ("99700000013", 2),
    "deux-exercices": ("99700000021", 2),
    "infirmiere": ("99700000039", 1),
    "sans-activite": ("99700000047", 1),
    "psi": ("99700000054", 1),
    "agent": None,
    "acr-faible": ("99700000070", 1),
    "chirurgien": ("99700000088", 1),
}


def test_shapes_of_the_specification():
    identities = json.loads(SHAPES.read_text(encoding="utf-8"))
    assert {one["key"] for one in identities} == set(EXPECTED)
    for one in identities:
        expected = EXPECTED[one["key"]]
        if expected is None:
            with pytest.raises(Forbidden):
                read_professional(one["userinfo"])
            continue
        read = read_professional(one["userinfo"])
        assert (read.rpps, len(read.situations)) == expected
