"""The lists of ``mappings/`` load whole or not at all, and answer typed."""

from __future__ import annotations

import json
import re

import pytest

from gateway import terminology
from gateway.errors import Fault, InvalidContent


def _write(directory, name="L", **changes):
    raw = {
        "kind": "codes",
        "name": name,
        "title": "Liste",
        "source": "essai",
        "version": "1",
        "date": "2026-01-01",
        "concepts": [{"code": "A", "label": "Un"}],
    } | changes
    (directory / f"{name}.json").write_text(json.dumps(raw), encoding="utf-8")


def test_every_file_names_source_version_and_date():
    loaded = terminology.load(terminology.mappings_dir())
    assert {
        path.stem for path in terminology.mappings_dir().glob("*.json")
    } == loaded.lists.keys() | loaded.tables.keys()
    for entry in loaded.lists.values():
        assert entry.source
        assert entry.version
        assert re.fullmatch(r"(\d{4}/)?\d{4}(-\d\d-\d\d)?", entry.date), entry.name


@pytest.mark.parametrize(
    ("name", "count"),
    [("TRE_R38", 103), ("TRE_G15", 30), ("JDV_J01", 396), ("JDV_J02", 69), ("JDV_J04", 12), ("TRE_R02", 69)],
)
def test_the_lists_hold_as_many_codes_as_their_source_counts(name, count):
    assert len(terminology.code_list(name)) == count


def test_a_concept_says_its_code_system_both_ways():
    oncologist = terminology.concept("TRE_R38", "SM36")
    assert oncologist.label == "Oncologie, option médicale (SM)"
    assert oncologist.oid == "1.2.250.1.213.2.28"
    assert oncologist.system == (
        "https://mos.esante.gouv.fr/NOS/TRE_R38-SpecialiteOrdinale/FHIR/TRE-R38-SpecialiteOrdinale"
    )
    # A value set names another code system for each code.
    assert terminology.concept("JDV_J02", "SA01").oid == "1.2.250.1.71.4.2.4"
    assert terminology.concept("JDV_J02", "SA01").system == terminology.code_list("TRE_R02").system
    assert terminology.concept("JDV_J07", "34794-8").properties["classCode"] in terminology.code_list("TRE_A03")


def test_systems_and_oids_translate_both_ways():
    assert terminology.system_of_oid("2.16.840.1.113883.6.1") == "http://loinc.org"
    assert terminology.system_of_oid("1.2.3") == "urn:oid:1.2.3"
    assert terminology.oid_of_system("http://loinc.org") == "2.16.840.1.113883.6.1"
    assert terminology.oid_of_system("urn:oid:1.2.3") == "1.2.3"
    assert terminology.oid_of_system("https://ailleurs.example/x") is None


def test_an_unknown_code_is_refused_without_being_repeated():
    with pytest.raises(InvalidContent) as refusal:
        terminology.concept("TRE_R38", "DUPONT Jean", expression="specialite")
    assert refusal.value.code == "code-inconnu"
    assert refusal.value.rule
    assert refusal.value.expression == "specialite"
    assert "DUPONT" not in str(refusal.value)
    assert terminology.code_list("TRE_R38").get("DUPONT Jean") is None


def test_an_unknown_list_or_table_is_our_defect():
    with pytest.raises(Fault):
        terminology.code_list("TRE_R999")
    with pytest.raises(Fault):
        terminology.table("TRE_R38-SpecialiteOrdinale")


def test_a_quorum_counts_groups_of_specialities():
    # SM05 and SM14 are one speciality for a quorum; SM35 counts for two; a GP's code is no oncologist.
    assert terminology.specialty_groups("SM05") == terminology.specialty_groups("SM14") == {"chirurgie-viscerale"}
    assert terminology.specialty_groups("SM35") == {"oncologie-medicale", "hematologie"}
    assert terminology.specialty_groups("SM54") == {"medecine-generale"}
    assert terminology.specialty_groups("?") == frozenset()
    specialities = terminology.code_list("TRE_R38").concepts.keys() | terminology.code_list("JDV_J107").concepts.keys()
    for group in terminology.code_list("RCP-groupes-specialites"):
        assert set(group.properties["members"]) <= specialities


def test_the_two_identity_lists_do_not_share_the_meaning_of_vali():
    qualified = {
        name: {entry.code for entry in terminology.code_list(name) if entry.properties.get("qualified")}
        for name in ("fr-core-v2-0445", "fr-core-identity-status")
    }
    assert qualified == {"fr-core-v2-0445": {"VALI"}, "fr-core-identity-status": {"QUAL"}}


@pytest.mark.parametrize(
    "changes",
    [
        {"source": ""},
        {"version": None},
        {"date": ""},
        {"concepts": []},
        {"concepts": ["A"]},
        {"concepts": [{"code": "A"}]},
        {"concepts": [{"code": "A", "label": "Un"}, {"code": "A", "label": "Deux"}]},
    ],
)
def test_a_bad_file_stops_the_load(tmp_path, changes):
    _write(tmp_path, **changes)
    with pytest.raises(Fault) as refusal:
        terminology.load(tmp_path)
    assert refusal.value.code == "table-invalide"
    assert "L.json" in refusal.value.text


def test_a_misnamed_unreadable_or_ambiguous_file_stops_the_load(tmp_path):
    _write(tmp_path)
    (tmp_path / "L.json").rename(tmp_path / "M.json")
    with pytest.raises(Fault):
        terminology.load(tmp_path)
    (tmp_path / "M.json").write_text('{"kind": "codes", "kind": "codes"}', encoding="utf-8")
    with pytest.raises(Fault):
        terminology.load(tmp_path)
    (tmp_path / "M.json").unlink()
    _write(tmp_path, "L", oid="1.2.3", system="https://un.example")
    _write(tmp_path, "M", oid="1.2.3", system="https://deux.example")
    with pytest.raises(Fault):
        terminology.load(tmp_path)


def test_a_short_name_is_taken_only_when_one_list_bears_it(tmp_path):
    _write(tmp_path, "X-un")
    _write(tmp_path, "X-deux")
    _write(tmp_path, "Y-un")
    assert terminology.load(tmp_path).short_names == {"Y": "Y-un"}
