"""To which mailbox of Mon espace santé a report may go, and to which never."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.identifiers import MssanteAddress
from gateway.model.message import Message
from gateway.model.person import PatientRecord
from gateway.rcp.patient_copy import copies, patient_address

pytestmark = pytest.mark.usefixtures("nothing_names_anybody")

ROOT = "urn:oid:1.2.250.1.213.1.4"
# Keys checked by hand, 97 - (number mod 97): the test patient of mssante.md 2.10, and the same born in Corsica.
TEST = {
    "birth_family": "PAT-TROIS",
    "given": "DOMINIQUE",
    "birth_date": "1979-03-28",
    "sex": "F",
    "ins_system": f"{ROOT}.10",
    "ins_value": "279035121518989",
    "ins_qualified": True,
    "active": True,
}


def _of(*, production=False, **more):
    return patient_address(PatientRecord(**TEST | more), production=production)


@pytest.mark.parametrize(
    ("authority", "production", "written"),
    [
        *((8, True, True), (9, True, True), (10, False, True), (11, False, True)),
        *((8, False, False), (9, False, False), (10, True, False), (11, True, False)),
        *((2, True, False), (2, False, False), (6, False, False), (12, True, False)),
    ],
)
def test_production_writes_to_real_people_and_a_trial_never(authority, production, written):
    found = _of(ins_system=f"{ROOT}.{authority}", production=production)
    assert found == ("279035121518989@patient.mssante.fr" if written else None)


@pytest.mark.parametrize(
    "change",
    [
        {"ins_qualified": False},
        {"ins_value": None},
        {"ins_system": None},
        {"ins_value": "279035121518988"},  # wrong key
        {"ins_value": "2790351215189"},  # without its key
        {"ins_value": "2790351215189891"},
        {"ins_value": "279032A1518989"},
        {"ins_value": "279035121518989@x"},
        {"birth_family": None},
        {"given": ""},
        {"birth_date": None},
        {"sex": "U"},
        {"active": False},
    ],
)
def test_without_a_qualified_ins_and_its_traits_there_is_no_address(change):
    assert _of(**change) is None
    assert _of(**change, production=True) is None


def test_no_address_is_guessed_for_a_matricule_with_letters():
    number = "279032A121518"
    key = 97 - int(number.replace("2A", "19")) % 97
    assert _of(ins_value=f"{number}{key:02d}") is None


@given(st.text(max_size=20), st.sampled_from([f"{ROOT}.{n}" for n in (2, 6, 8, 9, 10, 11)]), st.booleans())
def test_whatever_was_received_gives_fifteen_digits_and_a_right_key_or_nothing(value, system, production):
    found = _of(ins_value=value, ins_system=system, production=production)
    if found is not None:
        number, _, domain = found.partition("@")
        assert domain == "patient.mssante.fr"
        assert len(number) == 15
        assert set(number) <= set("0123456789")
        assert int(number[13:]) == 97 - int(number[:13]) % 97


def test_a_copy_is_held_until_it_is_said_not_to_be_valid():
    def mail(kind, to, state="envoye"):
        return Message(kind=kind, recipient=to, state=state)

    letters = [
        mail("M6p", "a"),
        mail("M6p", "b"),
        mail("M6pr", "b"),
        mail("M6p", "c", "rejete"),
        mail("M6p", "d", "refuse"),
        mail("M6p", "e", "annule"),
        mail("M6p", "a", "lu"),
        mail("M6pr", "f"),
        mail("M6p", "f"),
    ]
    assert {address: [one.kind for one in got] for address, got in copies(letters).items()} == {
        "a": ["M6p", "M6p"],
        "f": ["M6pr", "M6p"],
    }


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("279035121518989@patient.mssante.fr", "…@patient.mssante.fr"),
        (" 279035121518989@PATIENT.mssante.fr", "…@patient.mssante.fr"),
        ("Paul.Durant@medecin.mssante.fr", "Paul.Durant@medecin.mssante.fr"),
        ("PACS_CHU", "PACS_CHU"),
    ],
)
def test_a_matricule_is_shown_nowhere(written, shown):
    assert MssanteAddress.shown(written) == shown
