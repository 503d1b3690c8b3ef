"""OID, UID, URN, UUID version 7, IPP and dossier references."""

from __future__ import annotations

import threading
import time
import uuid

import pytest

from gateway.errors import InvalidContent
from gateway.identifiers import DossierReference, Ipp, Oid, Uid, Urn, numbers, uuid7


# Implicit VR Little Endian and CT Image Storage (PS3.6), the INS root, the example of PS3.5 B.2.
@pytest.mark.parametrize(
    "value", ["1.2.840.10008.1.2", "1.2.840.10008.5.1.4.1.1.2", "1.2.250.1.213.1.4.8", "2.25.0", "0.39.1"]
)
def test_dotted_numbers(value):
    assert Oid.parse(value) == Oid.parse(f"urn:oid:{value}")
    assert Oid.parse(value).urn == f"urn:oid:{value}"
    assert Uid.from_wire(f"{value}\0") == Uid.parse(value)


@pytest.mark.parametrize("value", ["", "1", "3.1", "1.40", "1.02.3", "1..2", "1.2.", ".1.2", "1.2.a", "1.2\n", "1.2.٣"])
def test_what_is_no_oid(value):
    for kind, fault in ((Oid, "oid-forme"), (Uid, "uid-forme")):
        if value != "1.2\n":
            assert kind.from_wire(value).faults == (fault,)
            with pytest.raises(InvalidContent) as refusal:
                kind.parse(value)
            assert refusal.value.code == fault


def test_a_uid_has_at_most_64_characters():
    longest = "1.2." + "9" * 60
    assert Uid.parse(longest).value == longest
    assert Uid.from_wire(longest + "9").faults == ("uid-longueur",)
    assert Oid.parse(longest + "9").faults == ()
    assert Oid.from_wire("1.2." + "9" * 252).faults == ("oid-longueur",)


def test_a_uuid_is_an_oid():
    # PS3.5 B.2: f81d4fae-7dec-11d0-a765-00a0c91e6bf6
    number = uuid.UUID("f81d4fae-7dec-11d0-a765-00a0c91e6bf6")
    assert Uid.of_uuid(number).value == "2.25.329800735698586629295641978511506172918"
    assert Urn.of(number).oid == Oid.parse("2.25.329800735698586629295641978511506172918")
    assert Urn.of(Oid.parse("1.2.3")).value == "urn:oid:1.2.3"


def test_urns():
    number = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"
    assert Urn.parse(f"URN:UUID:{number.upper()}") == Urn.parse(f"urn:uuid:{number}")
    assert Urn.parse(f"urn:uuid:{number}").uuid == uuid.UUID(number)
    assert Urn.parse("urn:oid:1.2.3").oid == Oid.parse("1.2.3")
    assert Urn.parse("urn:oid:1.2.3").uuid is None
    assert Urn.new().uuid.version == 7
    for wrong in ("", number, f"urn:uuid:{{{number}}}", f"urn:uuid:{number[:-1]}", "urn:oid:1.02", "urn:isbn:1"):
        assert Urn.from_wire(wrong).faults == ("urn-forme",)
        assert Urn.from_wire(wrong).oid is None
        with pytest.raises(InvalidContent):
            Urn.parse(wrong)


def test_uuid7_has_the_layout_of_rfc_9562():
    before = time.time_ns() // 1_000_000
    number = uuid7()
    assert number.version == 7
    assert number.variant == uuid.RFC_4122
    # Other draws of this process may have pushed the instant a little ahead of the clock.
    assert before <= number.int >> 80 <= before + 5_000


def test_uuid7_grows_strictly_in_one_process():
    drawn: list[list[uuid.UUID]] = [[] for _ in range(4)]
    threads = [threading.Thread(target=lambda own=own: own.extend(uuid7() for _ in range(5_000))) for own in drawn]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(own == sorted(own) for own in drawn)
    assert len({number for own in drawn for number in own}) == 20_000


def test_uuid7_grows_when_the_clock_goes_back(monkeypatch):
    first = uuid7()
    monkeypatch.setattr(numbers.time, "time_ns", lambda: 1_000_000_000)
    later = [uuid7() for _ in range(5_000)]
    assert [first, *later] == sorted({first, *later})


@pytest.mark.parametrize("system", ["https://chu.example/ipp", "urn:oid:1.2.250.1.999999.1", "1.2.250.1.999999.1"])
def test_an_ipp_keeps_its_spelling_and_its_domain(system):
    ipp = Ipp.parse(" 0012aB ", system)
    assert ipp.value == "0012aB"
    assert ipp != Ipp.parse("12aB", system)
    assert ipp != Ipp.parse("0012aB", "https://autre.example")
    assert ipp.system.startswith(("https:", "urn:oid:"))
    assert (ipp.oid is None) == ipp.system.startswith("https:")


@pytest.mark.parametrize(
    ("value", "system", "faults"),
    [
        ("", "https://chu.example/ipp", ("ipp-vide",)),
        ("1" * 256, "https://chu.example/ipp", ("ipp-longueur",)),
        ("12\x0b34", "https://chu.example/ipp", ("ipp-caracteres",)),
        ("1234", None, ("ipp-domaine",)),
        ("1234", "CHU", ("ipp-domaine",)),
        ("1234", "urn:oid:1.02", ("ipp-domaine",)),
        ("", "", ("ipp-vide", "ipp-domaine")),
    ],
)
def test_a_faulty_ipp_is_kept_and_flagged(value, system, faults):
    assert Ipp.from_wire(value, system).faults == faults
    with pytest.raises(InvalidContent) as refusal:
        Ipp.parse(value, system or "")
    assert refusal.value.code == faults[0]


def test_an_ipp_does_not_show_in_a_log():
    shown = f"{Ipp.parse('8000123456', 'https://chu.example/ipp')!r} {Ipp.parse('1234567', '1.2.3')}"
    assert "3456" in shown
    assert "23456" not in shown
    assert "567" not in shown.replace("3456", "")


def test_a_reference_as_the_mails_print_it():
    assert DossierReference.parse("RCP-7K3Q-29").value == "RCP-7K3Q-29"
    assert DossierReference.parse(" rcp 7k3q 29 ") == DossierReference.parse("RCP-7K3Q-29")
    drawn = {DossierReference.new().value for _ in range(200)}
    assert len(drawn) > 190
    assert all(DossierReference.parse(value).value == value for value in drawn)


@pytest.mark.parametrize("value", ["", "RCP-7K3Q", "RCP-7K3O-29", "RCP-7K3Q-2I", "XYZ-7K3Q-29"])
def test_what_is_no_reference(value):
    assert DossierReference.from_wire(value).faults == ("reference-forme",)
    with pytest.raises(InvalidContent):
        DossierReference.parse(value)


def test_references_are_found_in_a_reply():
    text = "Re: votre message\n> Référence : RCP-7K3Q-29\n> rcp-7k3q-29, RCP-7K3Q-28, XRCP-7K3Q-29"
    assert DossierReference.found_in(text) == (DossierReference.parse("RCP-7K3Q-29"),)
