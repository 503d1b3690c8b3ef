"""What objects say, including those that say it badly."""

import io
import json
import zlib
from datetime import UTC, date, datetime, timedelta, timezone

import msgspec
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from gateway.demo.ct_phantom import DOMINIQUE, slice_data_set
from gateway.dicom import translate
from gateway.errors import InvalidContent
from gateway.rcp.facts import IdentifierFact, Sex


def written(ds: Dataset) -> io.BytesIO:
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True)
    out.seek(0)
    return out


@pytest.fixture
def ds() -> Dataset:
    return slice_data_set(DOMINIQUE, 0)


def item(**values) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def test_the_phantom_says_who_what_and_when(ds):
    facts = translate.read(written(ds))
    assert facts.patient.patient_id == IdentifierFact(system="https://chu-x.example/ns/ipp", value="000003")
    assert (facts.patient.family, facts.patient.given) == ("PAT-TROIS", "DOMINIQUE")
    assert (facts.patient.birth_date, facts.patient.sex) == (date(1979, 3, 28), Sex.FEMALE)
    assert facts.study.started == datetime(2026, 3, 5, 8, 12, 30, tzinfo=UTC)
    assert facts.study.started.utcoffset() == timedelta(hours=1)
    assert facts.study.accession.value == "ACC-2026-0417"
    assert (facts.series.modality, facts.series.number, facts.instance.number) == ("CT", 1, 1)
    assert (facts.instance.rows, facts.instance.number_of_frames) == (128, 1)
    assert facts.unreadable == ()


@pytest.mark.parametrize(
    ("entity", "kind", "text", "system", "local"),
    [
        ("1.2.250.1.213.1.4.10", "ISO", "ASIP-SANTE-INS-NIR", "urn:oid:1.2.250.1.213.1.4.10", None),
        ("https://chu-x.example/ns/ipp", "URI", None, "https://chu-x.example/ns/ipp", None),
        ("not an oid", "ISO", "CHU X", "", "CHU X"),
        (None, None, "1.2.250.1.999", "urn:oid:1.2.250.1.999", None),
        (None, None, "CHU X", "", "CHU X"),
        (None, None, None, "", None),
    ],
)
def test_the_issuer_s_oid_decides_and_a_local_name_is_no_domain(ds, entity, kind, text, system, local):
    del ds.IssuerOfPatientIDQualifiersSequence, ds.IssuerOfPatientID
    if entity:
        ds.IssuerOfPatientIDQualifiersSequence = [item(UniversalEntityID=entity, UniversalEntityIDType=kind)]
    if text:
        ds.IssuerOfPatientID = text
    patient = translate.read(written(ds)).patient
    assert (patient.patient_id.system, patient.issuer_text) == (system, local)


def test_other_identifiers_are_read_with_their_issuers(ds):
    ins = item(PatientID="279035121518989", TypeOfPatientID="TEXT")
    ins.IssuerOfPatientIDQualifiersSequence = [
        item(UniversalEntityID="1.2.250.1.213.1.4.10", UniversalEntityIDType="ISO")
    ]
    ds.OtherPatientIDsSequence = [ins, item(PatientID="77", IssuerOfPatientID="LOCAL")]
    assert translate.read(written(ds)).patient.others == (
        IdentifierFact(system="urn:oid:1.2.250.1.213.1.4.10", value="279035121518989"),
    )


def test_bad_values_are_dropped_and_named_never_guessed(ds):
    ds.SeriesTime = "20221209"  # the national KOS sample has a date there
    ds.StudyTime = "2561"
    ds.PatientBirthDate = "19790231"
    ds.add_new("SeriesNumber", "IS", "1")
    ds["SeriesNumber"]._value = "douze"
    facts = translate.read(written(ds))
    assert facts.study.started == date(2026, 3, 5)
    assert facts.series.started == date(2026, 3, 5)
    assert facts.patient.birth_date is None
    assert facts.series.number is None
    assert set(facts.unreadable) == {"SeriesTime", "StudyTime", "PatientBirthDate", "SeriesNumber"}


@pytest.mark.parametrize("text", ["20260305091230", "2147483648", "-1e300", "inf"])
def test_a_number_that_no_index_holds_is_dropped_and_named(ds, text):
    for keyword in ("InstanceNumber", "SeriesNumber"):
        ds.add_new(keyword, "IS", "1")
        ds[keyword]._value = text
    facts = translate.read(written(ds))
    assert (facts.instance.number, facts.series.number) == (None, None)
    assert set(facts.unreadable) == {"InstanceNumber", "SeriesNumber"}


@pytest.mark.parametrize(
    ("day", "clock", "offset", "expected"),
    [
        ("20260305", "0912", "", datetime(2026, 3, 5, 9, 12, tzinfo=translate.PARIS)),
        ("20260705", "09", "", datetime(2026, 7, 5, 7, tzinfo=UTC)),
        ("2026.03.05", "09:12:30.123456", "", datetime(2026, 3, 5, 8, 12, 30, tzinfo=UTC)),
        ("20260305", "235960", "-0400", datetime(2026, 3, 5, 23, 59, 59, tzinfo=timezone(timedelta(hours=-4)))),
        ("20260305", "", "+0100", date(2026, 3, 5)),
        ("", "0912", "+0100", None),
    ],
)
def test_times_have_an_offset_or_paris_s(ds, day, clock, offset, expected):
    ds.StudyDate, ds.StudyTime, ds.TimezoneOffsetFromUTC = day, clock, offset
    started = translate.read(written(ds)).study.started
    assert started == expected
    assert not isinstance(started, datetime) or started.tzinfo is not None


def test_names_keep_their_letters_in_any_character_set(ds):
    for charset, name in [("ISO_IR 100", "LÉGER^Zoë"), ("ISO_IR 192", "CŒUR^Łucja"), ("ISO_IR 144", "Люкceмбypг")]:
        ds.SpecificCharacterSet, ds.PatientName = charset, name
        ds.StudyDescription = ds.Manufacturer = "THORAX"
        facts = translate.read(written(ds))
        assert facts.patient.family == name.split("^")[0]
        tree = json.loads(facts.dicom_json)
        assert tree["00100010"]["Value"] == [{"Alphabetic": name}]
        assert tree["00080005"]["Value"] == ["ISO_IR 192"]  # PS3.18 F.2: the JSON is UTF-8 whatever the object was


def test_nul_characters_never_pass(ds):
    ds.StudyDescription = "TDM\0 THORAX"
    assert "\0" not in translate.read(written(ds)).study.description


@pytest.mark.parametrize("missing", ["StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID"])
def test_an_object_without_its_uids_is_refused_and_says_which(ds, missing):
    delattr(ds, missing)
    ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    with pytest.raises(InvalidContent) as refused:
        translate.read(written(ds))
    assert (refused.value.code, refused.value.expression, refused.value.rule) == ("dicom-missing-uid", missing, True)


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 200, b"DICM", b"%PDF-1.7" * 100, b"\0" * 128 + b"DICM" + b"\xff" * 500]
)
def test_what_is_no_object_is_unreadable(content):
    with pytest.raises(InvalidContent):
        translate.read(io.BytesIO(content))


def test_sequences_without_end_are_unreadable(ds, tmp_path):
    nested = item(PatientID="x")
    for _ in range(3000):
        outer = Dataset()
        outer.OtherPatientIDsSequence = [nested]
        nested = outer
    # Written by hand: the library's own writer would recurse as deep.
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    path = tmp_path / "deep.dcm"
    head = written(slice_data_set(DOMINIQUE, 0)).getvalue()
    meta_end = 144 + int.from_bytes(head[140:144], "little")
    opening = b"\x10\x00\x02\x10SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    path.write_bytes(head[:meta_end] + opening * 100_000)
    with pytest.raises(InvalidContent):
        translate.read(path)


def test_a_deflate_bomb_is_refused_before_it_is_inflated(ds, tmp_path, monkeypatch):
    monkeypatch.setattr(translate, "MAX_INFLATED_BYTES", 10_000)
    plain = written(ds).getvalue()
    end = 144 + int.from_bytes(plain[140:144], "little")
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = tmp_path / "deflated.dcm"
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = io.BytesIO()
    head.write(plain[:end].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99"))
    body = head.getvalue()
    body = body[:140] + (end - 144 + 2).to_bytes(4, "little") + body[144:]
    at = body.index(b"1.2.840.10008.1.2.1.99")
    body = body[: at - 2] + (22).to_bytes(2, "little") + body[at:]
    path.write_bytes(body + deflater.compress(plain[end:]) + deflater.flush())
    with pytest.raises(InvalidContent) as refused:
        translate.read(path)
    assert refused.value.code == "dicom-too-large"
    monkeypatch.undo()
    assert translate.read(path).patient.family == "PAT-TROIS"


def test_the_json_names_pixels_and_long_values_and_holds_neither(ds):
    ds.add_new(0x00091010, "OB", b"x" * 5000)
    ds.add_new(0x00091011, "UT", "y" * 100_000)
    ds.add_new(0x00091012, "OB", b"z" * 10)
    tree = json.loads(translate.read(written(ds)).dicom_json)
    for tag, vr in (("7FE00010", "OW"), ("00091010", "OB"), ("00091011", "UT")):
        assert tree[tag] == {"vr": vr, "BulkDataURI": f"bulkdata/{tag}"}
    assert tree["00091012"]["InlineBinary"] == "enp6enp6enp6eg=="


def test_facts_are_frozen_and_equal_by_value(ds):
    one, two = translate.read(written(ds)), translate.read(written(ds))
    assert one == two
    with pytest.raises(AttributeError):
        one.study = two.study
    assert msgspec.structs.asdict(one.patient)["family"] == "PAT-TROIS"
