"""QIDO-RS and what C-FIND shares with it: every kind of matching over real rows, pages, and the indexes behind them."""

import io
import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from psycopg import ClientCursor
from pydicom.dataset import Dataset
from sqlalchemy import insert, text

from gateway.demo.ct_phantom import DOMINIQUE, slice_data_set
from gateway.dicom import translate
from gateway.dicom.attributes import ATTRIBUTES, Level, attribute, matching
from gateway.dicom.query import answer
from gateway.dicom.statements import Question, search
from gateway.model.imaging import Instance, Series, Study
from gateway.rcp import imaging
from gateway.rcp.access import SYSTEM, Caller, CallerKind
from gateway.rcp.imaging import Content
from tests.e2e.dicom.test_stow import written


def ct(number: int, **said) -> Dataset:
    ds = slice_data_set(replace(DOMINIQUE, study_uid=f"1.2.250.1.999999.7.{number}"), 0)
    for keyword, value in said.items():
        setattr(ds, keyword, value)
    return ds


STUDIES = [
    ct(1, PatientName="LÉGER^Zoë", PatientID="A1", StudyDate="20260301", StudyTime="081500", StudyID="e1"),
    ct(2, PatientName="leger^zoe^marie", PatientID="A2", StudyDate="20260302", StudyTime="120000.5", Modality="MR"),
    ct(3, PatientName="Yamada^Tarou=山田^太郎", PatientID="A3", StudyDate="20260303", StudyTime="23"),
    ct(4, PatientName="DUPONT DURAND^Jean-Luc", PatientID="a%_", StudyDate="20260304", StudyTime=""),
    ct(5, PatientName="Œuf^Łucja", PatientID="B5", ReferringPhysicianName="HOUSE^Grégory", PatientSex="M"),
]


@pytest.fixture
def kept(session, world, represented, web):
    """Five studies of one partner, kept as the port keeps them."""
    pacs = Caller(kind=CallerKind.PACS, partner_id=world.partner.id, identifier="pacs", wire="dicom")
    for number, ds in enumerate(STUDIES):
        facts = translate.read(io.BytesIO(written(ds)))
        content = Content(f"{number:064x}", 1000)
        assert (
            represented.run(pacs, lambda step, facts=facts, content=content: imaging.keep(step, facts, content)) is None
        )
    web.callers["ehr"] = replace(pacs, kind=CallerKind.CLIENT, scopes=frozenset({"system/ImagingStudy.rs"}))
    return web


def numbers(web, query: str, who: str = "ehr") -> list[int]:
    return sorted(int(one["0020000D"]["Value"][0].split(".")[-1]) for one in web.json(f"/studies?{query}", who))


MATCHES = [
    ("", [1, 2, 3, 4, 5]),
    ("PatientName=leger^zoe", [1]),
    ("PatientName=L%C3%89GER^ZO%C3%8B", [1]),
    ("PatientName=leger*", [1, 2]),
    ("PatientName=*zoe*", [1, 2]),
    ("PatientName=yamada^tarou", [3]),
    ("PatientName=%E5%B1%B1%E7%94%B0*", [3]),
    ("PatientName=oeuf^lucj?", [5]),
    ("PatientName=zoe+leger&fuzzymatching=true", [1, 2]),
    ("PatientName=jean&fuzzymatching=true", [4]),
    ("PatientName=luc+dup&fuzzymatching=true", [4]),
    ("PatientName=uc&fuzzymatching=true", []),
    ("PatientName=.*&fuzzymatching=true", [1, 2, 3, 4, 5]),
    ("PatientID=A1", [1]),
    ("PatientID=a1", []),
    ("PatientID=A?", [1, 2, 3]),
    ("PatientID=a%25_", [4]),
    ("PatientID=a%25*", [4]),
    ("PatientID=%25", []),
    ("PatientSex=M", [5]),
    ("PatientBirthDate=19790328", [1, 2, 3, 4, 5]),
    ("PatientBirthDate=-19790327", []),
    ("StudyDate=20260302-20260303", [2, 3]),
    ("StudyDate=-20260302", [1, 2]),
    ("StudyDate=20260304-", [4, 5]),
    ("StudyTime=08", [1]),
    ("StudyTime=0815", [1]),
    ("StudyTime=120000.5", [2]),
    ("StudyTime=1200-1259", [2]),
    ("StudyTime=20-", [3]),
    # Both intervals are one: from the first evening to the second noon.
    ("StudyDate=20260301-20260302&StudyTime=18-1201", [2]),
    ("StudyDate=20260301&StudyTime=07-09", [1]),
    ("StudyID=e1", [1]),
    ("ModalitiesInStudy=MR", [2]),
    ("ModalitiesInStudy=M*", [2]),
    ("ModalitiesInStudy=MR,CT", [1, 2, 3, 4, 5]),
    ("ReferringPhysicianName=house^gregory", [5]),
    ("00100020=A3", [3]),
    ("StudyInstanceUID=1.2.250.1.999999.7.1,1.2.250.1.999999.7.4", [1, 4]),
    ("StudyDescription=%2A", [1, 2, 3, 4, 5]),
    ("PatientID=A1&PatientName=dupont*", []),
]


def test_studies_match(kept):
    assert [(query, numbers(kept, query)) for query, _ in MATCHES] == MATCHES


def test_series_and_instances_match_by_what_stands_above_them(kept):
    assert len(kept.json("/series?Modality=MR")) == 1
    assert len(kept.json("/series?Modality=MR&PatientID=A1")) == 0
    assert len(kept.json("/instances?PatientName=leger*&InstanceNumber=1")) == 2
    assert len(kept.json("/studies/1.2.250.1.999999.7.1/instances?SeriesNumber=1&Rows=128")) == 1
    assert kept.get("/studies?Modality=MR")[0] == 400  # of the series, not of the study


def test_an_answer_says_what_is_asked_for(kept):
    [plain] = kept.json("/studies?PatientID=A1")
    assert plain["00201208"] == {"vr": "IS", "Value": [1]}
    assert plain["00081190"]["Value"] == [f"{kept.url}/studies/1.2.250.1.999999.7.1"]
    assert "00080060" not in plain  # the series' own
    [more] = kept.json("/studies?PatientID=A1&includefield=PatientAge,00081010&includefield=00200013")
    assert set(more) <= set(plain) | {"00101010"}
    [whole] = kept.json("/studies/1.2.250.1.999999.7.1/instances?includefield=all")
    assert {"00080060", "00281050", "00100010", "7FE00010"} <= set(whole)
    [short] = kept.json("/studies/1.2.250.1.999999.7.1/instances")
    assert "00281050" not in short
    assert "00080060" in short  # the address names no series
    assert list(short) == sorted(short)


def test_there_is_more_is_said(kept):
    status, headers, body = kept.get("/studies?limit=2")
    assert (status, len(json.loads(body))) == (200, 2)
    assert headers["warning"].startswith("299 ")
    status, headers, body = kept.get("/studies?limit=2&offset=4")
    assert (len(json.loads(body)), "warning" in headers) == (1, False)
    assert kept.get("/studies?limit=5")[1].get("warning") is None
    assert kept.get("/studies?offset=5")[0] == 204
    pages = [numbers(kept, f"limit=1&offset={offset}")[0] for offset in range(5)]
    assert sorted(pages) == [1, 2, 3, 4, 5]


def test_searches_answer_in_dicom_json(kept):
    asked = ("application/dicom+json", "application/json", "*/*", "text/html", "image/png")
    assert [kept.get("/studies", accept=accept)[0] for accept in asked] == [200, 200, 200, 406, 406]


def test_patients_are_found_for_the_patient_root(kept, session):
    conditions = matching([(attribute("PatientName"), "leger*")])
    rows = session.execute(search(SYSTEM, Question(Level.PATIENT, conditions))).mappings().all()
    found = [answer(Level.PATIENT, row) for row in rows]
    assert [one["00100020"]["Value"] for one in found] == [["A1"], ["A2"]]
    assert [one["00201200"]["Value"] for one in found] == [[1], [1]]
    assert all("0020000D" not in one and "00080060" not in one for one in found)


VALUES = {
    "PatientName": ("dupont^jean", "dup*"),
    "PatientID": ("7", "7*"),
    "PatientBirthDate": ("19790328", "19790328-19790329"),
    "StudyInstanceUID": ("1.2.3", "1.2.3,1.2.4"),
    "StudyDate": ("20260301", "20260301-20260302"),
    "AccessionNumber": ("A7", "A7*"),
    "SeriesInstanceUID": ("1.2.3", "1.2.3,1.2.4"),
    "SOPInstanceUID": ("1.2.3", "1.2.3,1.2.4"),
}


@pytest.fixture
def many(store, world):
    """Twenty thousand studies, enough that reading them all is dearer than an index."""
    now = datetime.now(UTC)
    with store.engine.begin() as connection:
        studies = [
            {
                "id": uuid.uuid4(),
                "partner_id": world.partner.id,
                "study_instance_uid": f"1.9.{number}",
                "state": "attendu",
                "patient_id": f"{number}",
                "patient_name": f"n{number:06}^p",
                "patient_birth_date": f"{1900 + number % 100}{number % 12 + 1:02}{number % 28 + 1:02}",
                "study_date": f"{2000 + number % 25}{number % 12 + 1:02}{number % 28 + 1:02}",
                "accession_number": f"X{number}",
                "traits": {},
                "received_at": now,
                "last_instance_at": now,
            }
            for number in range(20_000)
        ]
        connection.execute(insert(Study), studies)
        series = [
            {"id": uuid.uuid4(), "study_id": one["id"], "series_instance_uid": f"{one['study_instance_uid']}.1"}
            for one in studies
        ]
        connection.execute(insert(Series), series)
        instances = [
            {
                "id": uuid.uuid4(),
                "partner_id": world.partner.id,
                "series_id": one["id"],
                "sop_instance_uid": f"{one['series_instance_uid']}.1",
                "sop_class_uid": "1.2",
                "transfer_syntax_uid": "1.2",
                "sha256": "0" * 64,
                "size_bytes": 1,
                "dicom_json": b"{}",
            }
            for one in series
        ]
        connection.execute(insert(Instance), instances)
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE study, series, instance"))
    return store


def test_declared_keys_are_those_measured():
    assert {one.keyword for one in ATTRIBUTES if one.indexed} == set(VALUES)


def test_a_declared_key_reads_no_table_through(many):
    plans = {(keyword, value): _plan(many, keyword, value) for keyword, both in VALUES.items() for value in both}
    assert {asked: plan for asked, plan in plans.items() if "Seq Scan" in plan} == {}


def _plan(store, keyword: str, value: str) -> str:
    key = attribute(keyword)
    statement = search(SYSTEM, Question(max(key.level, Level.STUDY), matching([(key, value)])))
    compiled = statement.compile(store.engine)
    with store.engine.connect() as connection, ClientCursor(connection.connection.driver_connection) as cursor:
        cursor.execute(f"EXPLAIN {compiled}".encode(), compiled.params)
        return "\n".join(line for (line,) in cursor.fetchall())
