"""What clients state in headers and conditions, without a server."""

from __future__ import annotations

import pytest

from gateway.errors import InvalidContent
from gateway.fhir.conditions import Tags, carries, lock_keys, only_identifier, pairs_of, refuse_unfit, tags


@pytest.mark.parametrize(
    ("header", "version", "holds"),
    [
        ('W/"3"', 3, True),
        ('"3"', 3, True),
        ('W/"1", "3"', 3, True),
        ("*", 3, True),
        ("*", None, False),
        ('W/"3"', None, False),
        ('W/"3"', 33, False),
        ('"W/3"', 3, False),
    ],
)
def test_a_tag_holds_the_version_that_it_names(header: str, version: int | None, *, holds: bool) -> None:
    assert tags(header, "If-Match").hold(version) is holds


@pytest.mark.parametrize("header", ["", "3", "W/3", 'w/"3"', '"3', '"a b"', '"1" "2"', '"1",', "*, *", '"\x00"'])
def test_what_is_no_tag_is_refused(header: str) -> None:
    with pytest.raises(InvalidContent, match="etiquette-illisible"):
        tags(header, "If-Match")


def test_no_tag_holds_nothing() -> None:
    assert Tags().hold(1) is False


@pytest.mark.parametrize(
    "query",
    [
        "identifier=http://x|A1",
        "identifier=http%3A%2F%2Fx%7CA1",
        "identifier=A1",
        "identifier=|A1",
        "active=true&identifier=http://x|A1",
        "identifier=http://x|A1&active=true&_format=json",
        "identifier:of-type=http://t|PI|A1",
    ],
)
def test_conditions_on_one_identifier_share_a_key_however_they_are_written(query: str) -> None:
    assert lock_keys("Patient", pairs_of(query)) == lock_keys("Patient", pairs_of("identifier=http://x|A1"))


def test_several_identifiers_hold_a_key_each() -> None:
    several = lock_keys("Patient", pairs_of("identifier=http://x|A1,http://y|B2"))
    assert several == lock_keys("Patient", pairs_of("identifier=A1")) | lock_keys("Patient", pairs_of("identifier=B2"))
    assert lock_keys("Patient", pairs_of("identifier=A1")) != lock_keys("Observation", pairs_of("identifier=A1"))


def test_the_order_of_other_conditions_does_not_matter() -> None:
    assert lock_keys("Task", pairs_of("status=draft&code=x")) == lock_keys("Task", pairs_of("code=x&status=draft"))


def test_a_plus_sign_of_a_condition_is_a_plus_sign() -> None:
    assert pairs_of("birthdate=2020-01-01T00:00:00+01:00") == [("birthdate", "2020-01-01T00:00:00+01:00")]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", "condition-vide"),
        ("_format=json&_pretty=true", "condition-vide"),
        ("identifier=", "condition-vide"),
        ("identifier=a&active=", "condition-illisible"),
        ("identifier=a&_count=1", "condition-illisible"),
        ("identifier=a&_include:iterate=x", "condition-illisible"),
        ("identifier=a%00b", "parametre-valeur"),
        ("a=1&" * 200, "parametre-valeur"),
    ],
)
def test_a_condition_that_names_nothing_or_everything_is_refused(query: str, code: str) -> None:
    with pytest.raises(InvalidContent, match=code):
        pairs_of(query)


def test_a_patient_is_never_keyed_by_his_ins() -> None:
    with pytest.raises(InvalidContent, match="cle-ins"):
        refuse_unfit("Patient", pairs_of("identifier=urn:oid:1.2.250.1.213.1.4.10|279035121518989"))
    refuse_unfit("Patient", pairs_of("identifier=https://chu-x.example/ns/ipp|000003"))


def test_one_whole_identifier_is_told_from_the_rest() -> None:
    assert only_identifier(pairs_of("identifier=http://x|A1")) == ("http://x", "A1")
    for other in ("identifier=A1", "identifier=|A1", "identifier=http://x|", "identifier=a|b,c|d", "code=a|b"):
        assert only_identifier(pairs_of(other)) is None, other
    assert only_identifier(pairs_of("identifier=a|b&active=true")) is None


def test_an_identifier_is_carried_alone_or_in_a_list() -> None:
    one = {"system": "http://x", "value": "A1"}
    assert carries({"identifier": one}, "http://x", "A1")
    assert carries({"identifier": [{"value": "Z"}, one]}, "http://x", "A1")
    assert not carries({"identifier": ["A1"]}, "http://x", "A1")
    assert not carries({}, "http://x", "A1")
