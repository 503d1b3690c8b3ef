"""A study of more objects than are read at once: all of them leave, each once, in constant memory, or it is seen."""

import hashlib
import http.client
import json
import re
import urllib.request
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text

from gateway.dicom.listed import AT_HAND
from gateway.model.imaging import Instance, Series, Study
from gateway.model.partner import Partner
from gateway.rcp import access
from tests.e2e.dicom.test_dicomweb import INSTANCE, ONE, SERIES, STUDY, shown  # noqa: F401 - a fixture
from tests.e2e.dicom.test_stow import multipart
from tests.e2e.dicom.test_stow_durable import series, serve  # noqa: F401 - a fixture
from tests.world import audit_lines

MANY = 25_000
#: Whose metadata are more than the buffers of a connection hold.
LONG = 7_000
METADATA = f"/studies/{STUDY}/series/{SERIES}/metadata"


def grown(session, count: int, *, more: int = 5) -> None:
    """Let the series have so many objects: the last one's row again, under other UIDs and numbers."""
    made = ("id", "sop_instance_uid", "instance_number", "dicom_json")
    columns = [column.name for column in Instance.__table__.columns if column.name not in made]
    names = ", ".join(columns)
    statement = f"""
        INSERT INTO instance (id, sop_instance_uid, instance_number, dicom_json, {names})
        SELECT gen_random_uuid(), sop_instance_uid || '.' || number, nullif(number, 7) % 1000,
               convert_to(replace(said, sop_instance_uid, sop_instance_uid || '.' || number), 'UTF8'), {names}
        FROM instance, generate_series(CAST(:first AS int), CAST(:last AS int)) AS number,
             convert_from(dicom_json, 'UTF8') AS said WHERE sop_instance_uid = :uid
    """
    session.execute(text(statement), {"first": more - 4, "last": count - 5, "uid": INSTANCE})
    session.commit()


def in_order(session) -> list[str]:
    """The UIDs of the series as PostgreSQL itself puts them, by number and then by UID."""
    session.rollback()
    uids = "SELECT sop_instance_uid FROM instance ORDER BY instance_number NULLS LAST, sop_instance_uid"
    return list(session.scalars(text(uids)))


def uids(body: bytes) -> list[str]:
    return [one["00080018"]["Value"][0] for one in json.loads(body)]


def test_all_of_a_study_leaves_each_object_once_in_its_order(shown, session, web):  # noqa: F811
    grown(session, MANY)
    expected = in_order(session)
    status, headers, body = web.get(METADATA)
    assert (status, headers["content-type"], uids(body)) == (200, "application/dicom+json", expected)
    session.rollback()
    told = [line for line in audit_lines(session) if line.get("object_type") == "Metadata"]
    assert [(line["object_id"], len(line["persons"])) for line in told] == [(SERIES, 1)]
    # A search says page by page that there is more [PS3.18 10.6.3].
    search = f"/studies/{STUDY}/instances?limit=1000"
    status, headers, body = web.get(f"{search}&offset=19000")
    assert (status, len(json.loads(body)), headers["warning"][:4]) == (200, 1000, "299 ")
    assert len(json.loads(web.get(f"{search}&offset=24900")[2])) == 100


@pytest.mark.parametrize("count", [AT_HAND, AT_HAND + 1])
def test_there_is_no_gap_where_pages_begin(shown, session, web, count):  # noqa: F811
    grown(session, count)
    assert uids(web.get(METADATA)[2]) == in_order(session)
    assert uids(web.get(f"{ONE}/metadata")[2]) == [INSTANCE]


def test_the_objects_and_their_bulk_data_leave_too(shown, session, web):  # noqa: F811
    grown(session, 1300)
    status, headers, body = web.get(f"/studies/{STUDY}", accept='multipart/related; type="application/dicom"')
    boundary = headers["content-type"].partition("boundary=")[2].encode()
    parts = body.split(b"--" + boundary)[1:-1]
    assert (status, len(parts)) == (200, 1300)
    files = [part.partition(b"\r\n\r\n")[2][:-2] for part in parts]
    session.rollback()
    kept = session.scalars(text("SELECT sha256 FROM instance ORDER BY instance_number NULLS LAST, sop_instance_uid"))
    assert [hashlib.sha256(one).hexdigest() for one in files] == list(kept)
    # The answer has a name, which is known again, and is another one when an object less is there.
    wished = {"Authorization": "Bearer ehr", "Accept": "multipart/related", "If-None-Match": headers["etag"]}
    again = urllib.request.Request(f"{web.url}/studies/{STUDY}", headers=wished)
    assert web.asked(again)[0] == 304
    session.execute(text("DELETE FROM instance WHERE sop_instance_uid = :uid"), {"uid": f"{INSTANCE}.9"})
    session.commit()
    assert web.asked(again)[0] == 200
    # One in the middle stands for all; drawn are so many at most, whatever there is.
    status, headers, picture = web.get(f"/studies/{STUDY}/thumbnail")
    assert (status, headers["content-type"], picture[:2]) == (200, "image/jpeg", b"\xff\xd8")
    assert json.loads(web.get(f"/studies/{STUDY}/rendered")[2])["code"] == "dicom-frames"
    # As XML, their metadata have a part each too.
    status, headers, told = web.get(
        f"/studies/{STUDY}/metadata", accept='multipart/related; type="application/dicom+xml"'
    )
    boundary = headers["content-type"].partition("boundary=")[2].encode()
    parts = told.split(b"--" + boundary)
    named = [re.search(rb'tag="00080018".*?<Value number="1">([^<]+)<', part)[1].decode() for part in parts[1:-1]]
    assert (status, named, parts[-1]) == (200, in_order(session), b"--\r\n")
    status, headers, body = web.get(f"/studies/{STUDY}/series/{SERIES}/bulkdata", accept="multipart/related")
    located = re.findall(rb"Content-Location: \S+/instances/([0-9.]+)/bulkdata/7FE00010\r\n", body)
    assert (status, [one.decode() for one in located]) == (200, in_order(session))


def cloned(session, model, values: dict[str, str], condition: str) -> None:
    """Rows again, with other values in some columns."""
    names = [column.name for column in model.__table__.columns]
    said = ", ".join(values.get(name, f"old.{name}") for name in names)
    table = model.__tablename__
    session.execute(
        text(f"INSERT INTO {table} ({', '.join(names)}) SELECT {said} FROM {table} AS old WHERE {condition}")
    )


def test_the_same_object_of_two_partners_leaves_once(shown, session, web):  # noqa: F811
    grown(session, 1200)
    expected = in_order(session)
    rival = Partner(name="Clinique Y", patient_domains=["https://clinique-y.example/ns/ipp"])
    session.add(rival)
    session.flush()
    other = {"id": "gen_random_uuid()", "partner_id": f"'{rival.id}'"}
    cloned(session, Study, other, "true")
    of_rival = f"(SELECT id FROM study WHERE partner_id = '{rival.id}')"
    cloned(session, Series, other | {"study_id": of_rival}, "true")
    of_series = f"(SELECT id FROM series WHERE study_id = {of_rival})"
    cloned(session, Instance, other | {"series_id": of_series}, "true")
    session.commit()
    assert len(in_order(session)) == 2400
    web.callers["both"] = access.SYSTEM
    assert uids(web.get(f"/studies/{STUDY}/metadata", "both")[2]) == expected
    assert uids(web.get(f"/studies/{STUDY}/metadata")[2]) == expected


def test_what_goes_while_it_is_read_breaks_the_answer_off(shown, session, web):  # noqa: F811
    """Nobody is told that he has all: the array is not closed, and the connection says that it is not whole."""
    grown(session, LONG)
    port = urlsplit(web.url).port
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
        connection.request("GET", f"/dicom-web{METADATA}", headers={"Authorization": "Bearer ehr"})
        answer = connection.getresponse()
        begun = answer.read(100_000)
        assert (answer.status, begun[:2]) == (200, b"[{")
        session.execute(text("DELETE FROM instance WHERE instance_number = 999"))
        session.commit()
        with pytest.raises(http.client.IncompleteRead) as broken:
            answer.read()
    assert not broken.value.partial.endswith(b"]")


def test_what_comes_while_it_is_read_is_not_in_it(shown, session, web):  # noqa: F811
    grown(session, LONG)
    expected = in_order(session)
    port = urlsplit(web.url).port
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
        connection.request("GET", f"/dicom-web{METADATA}", headers={"Authorization": "Bearer ehr"})
        answer = connection.getresponse()
        begun = answer.read(100_000)
        late = {"id": "gen_random_uuid()", "sop_instance_uid": "old.sop_instance_uid || '.1'", "instance_number": "500"}
        cloned(session, Instance, late, "old.instance_number = 999")
        session.commit()
        assert uids(begun + answer.read()) == expected
    assert len(uids(web.get(METADATA)[2])) == len(in_order(session)) > LONG


def test_memory_does_not_follow_their_number(serve, session):  # noqa: F811
    """What the kernel says was the most of the process, of an answer that is larger than that may grow."""
    serving = serve()
    sent = series(STUDY, 5, pixels=16)
    assert serving.post(*multipart(*sent))[0] == 200
    with closing(http.client.HTTPConnection("127.0.0.1", serving.port, timeout=120)) as connection:

        def asked() -> int:
            connection.request("GET", f"/dicom-web{METADATA}")
            answer, size = connection.getresponse(), 0
            while piece := answer.read(1 << 20):
                size += len(piece)
            assert answer.status == 200
            return size

        grown(session, AT_HAND + 100)
        assert asked() > 1_000_000
        grown(session, MANY, more=AT_HAND + 100)
        serving.forget_peak()
        before = serving.peak()
        assert asked() > 64_000_000
        assert serving.peak() - before < 32_000_000
