"""What a token still allows once its client is registered for less: never more than either says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fhir.auth_scopes import allows, held

KINDS = ("Patient", "Observation", "Task")
LETTERS = st.lists(st.sampled_from("cruds"), unique=True, min_size=1).map(
    lambda said: "".join(sorted(said, key="cruds".index))
)
SCOPES = st.lists(
    st.builds(
        "system/{}.{}".format,
        st.sampled_from(("*", *KINDS)),
        st.one_of(LETTERS, st.sampled_from(("read", "write", "*"))),
    ),
    max_size=4,
)


@pytest.mark.parametrize(
    ("said", "registered", "left"),
    [
        ({"system/Patient.cruds"}, ("system/Patient.rs",), {"system/Patient.rs"}),
        ({"system/Patient.cruds"}, ("system/*.r",), {"system/Patient.r"}),
        ({"system/Patient.rs"}, ("system/Condition.rs",), set()),
        ({"system/Patient.rs"}, (), set()),
        ({"system/*.rs"}, ("system/*.cruds",), {"system/*.rs"}),
        ({"system/*.rs"}, ("system/Patient.cruds",), {"system/Patient.rs"}),
        ({"system/Patient.read"}, ("system/Patient.rs",), {"system/Patient.rs"}),
    ],
)
def test_a_token_is_narrowed_to_what_is_registered(said: set[str], registered: tuple[str, ...], left: set[str]) -> None:
    assert held(frozenset(said), registered) == left


@given(SCOPES, SCOPES)
def test_it_allows_exactly_what_both_allow(said: list[str], registered: list[str]) -> None:
    left = held(frozenset(said), tuple(registered))
    for kind in KINDS:
        for letter in "cruds":
            both = allows(said, kind, letter) and allows(registered, kind, letter)
            assert allows(left, kind, letter) is both, (kind, letter)
