"""An XDM archive of another sender: what is spelt otherwise is read with a note, what contradicts itself is refused."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from gateway.errors import InvalidContent
from gateway.mssante import xdm_reader
from gateway.rcp.report_content import Identifier, Replaced
from tests import xdm_samples as samples
from tests.report_samples import content

pytestmark = pytest.mark.usefixtures("nothing_names_anybody")

INS = "279035121518989^^^&amp;1.2.250.1.213.1.4.10&amp;ISO^NH"


def read(files):
    return xdm_reader.read(samples.zipped(files))


def test_the_document_is_read_with_its_header():
    files = samples.valid()
    [entry] = read(files).entries
    assert hashlib.sha256(entry.content).digest() == hashlib.sha256(files[samples.DOCUMENT]).digest()
    header = entry.header
    assert Identifier("1.2.250.1.213.1.4.10", "279035121518989") in header.patient_ids
    assert Identifier("1.2.250.1.999.77.9", "000123456") in header.patient_ids
    assert (header.birth_family, header.birth_given, header.birth_date, header.sex) == (
        "PAT-TROIS",
        "DOMINIQUE",
        "1979-03-28",
        "F",
    )
    assert (header.type_code, header.format, header.version, header.replaces) == ("34794-8", "structure", 1, None)
    assert header.author == "Claire MERCIER"
    assert header.author_idnps == "810100000016"
    assert header.created == datetime(2026, 11, 26, 17, 15, tzinfo=UTC)
    assert entry.action is None
    assert entry.format_code == "urn:asip:ci-sis:frcp:2011"


def test_our_own_archives_have_nothing_to_note():
    assert read(samples.valid()).notes == ()


def test_a_replacement_names_what_it_replaces():
    facts = content()
    facts = replace(
        facts, version=2, replaces=Replaced(document_id=Identifier("1.2.3.4"), version=1, validated_at=facts.written_at)
    )
    [entry] = xdm_reader.read(samples.archive_of(facts)).entries
    assert (entry.action, entry.header.replaces, entry.header.version) == ("C", "1.2.3.4", 2)


@pytest.mark.parametrize(
    ("rename", "note"),
    [
        (str.lower, "casse"),  # X05
        (lambda name: f"envoi/{name}", "dossier-englobant"),
        (lambda name: name.replace("SUBSET01", "SS000001"), "nom-de-lot"),
    ],
)
def test_other_names_of_folders_are_read_and_noted(rename, note):
    found = read({rename(name): data for name, data in samples.valid().items()})
    assert len(found.entries) == 1
    assert note in found.notes


def test_a_patient_identifier_spelt_otherwise_is_read_and_noted():  # X14
    said = (
        (INS.replace("&amp;", "&amp;amp;"), "patient-echappe-deux-fois"),
        (INS.replace("&amp;ISO", ""), "patient-sans-iso"),
        (INS.replace("^NH", "^INS"), "patient-type"),
    )
    for value, note in said:
        assert read(samples.with_metadata(samples.valid(), INS, value, 2)).notes == (note,)


def test_a_file_that_the_metadata_do_not_name_is_ignored_and_noted():  # X08
    files = samples.valid() | {"IHE_XDM/SUBSET01/STYLE.XSL": b"<x/>"}
    assert read(files).notes == ("entree-hors-metadata",)


def test_two_sets_of_one_patient_are_both_read():  # X06
    facts = content()
    other = replace(facts, document_id=Identifier(facts.document_id.root + ".9"))
    files = samples.valid()
    second = samples.opened(samples.archive_of(other))
    more = {name.replace("SUBSET01", "SUBSET02"): data for name, data in second.items() if "SUBSET" in name}
    found = read(files | more)
    assert [entry.header.unique_id for entry in found.entries] == [facts.document_id.root, other.document_id.root]


def test_an_unknown_kind_of_document_keeps_its_code():  # X16
    files = samples.with_metadata(samples.valid(), "urn:asip:ci-sis:frcp:2011", "frcp:2022")
    [entry] = read(files).entries
    assert entry.format_code == "frcp:2022"


def test_one_file_described_twice_is_refused():
    files = samples.valid()
    said = files[samples.METADATA]
    start, end = (
        said.index(b"<rim:ExtrinsicObject"),
        said.index(b"</rim:ExtrinsicObject>") + len(b"</rim:ExtrinsicObject>"),
    )
    twice = files | {samples.METADATA: said[:end] + said[start:end] + said[end:]}
    with pytest.raises(InvalidContent) as refused:
        read(twice)
    assert refused.value.code == "xdm-metadata"
