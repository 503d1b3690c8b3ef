"""A study of more objects than one answer holds: nobody is told that he has all of it."""

import json

from sqlalchemy import text

from gateway.dicom.statements import MAX_INSTANCES
from gateway.model.imaging import Instance
from tests.e2e.dicom.test_dicomweb import INSTANCE, ONE, SERIES, STUDY, shown  # noqa: F401 - a fixture


def grown(session, count: int) -> None:
    """Let the series have so many objects: the last one's row again, under other UIDs."""
    columns = [column.name for column in Instance.__table__.columns if column.name not in ("id", "sop_instance_uid")]
    names = ", ".join(columns)
    statement = f"""
        INSERT INTO instance (id, sop_instance_uid, {names})
        SELECT gen_random_uuid(), sop_instance_uid || '.' || number, {names}
        FROM instance, generate_series(1, :more) AS number WHERE sop_instance_uid = :uid
    """
    session.execute(text(statement), {"more": count - 5, "uid": INSTANCE})
    session.commit()


def test_an_answer_is_whole_or_refused_by_name(shown, session, web):  # noqa: F811
    grown(session, MAX_INSTANCES + 1)
    for path in (f"/studies/{STUDY}/metadata", f"/studies/{STUDY}/series/{SERIES}"):
        status, _, body = web.get(path)
        said = json.loads(body)
        assert (path, status, said["code"]) == (path, 413, "dicom-too-many")
        assert str(MAX_INSTANCES) in said["text"]
    # What is less than the limit is answered, and a search says page by page that there is more [PS3.18 10.6.3].
    assert web.get(f"{ONE}/metadata")[0] == 200
    search = f"/studies/{STUDY}/instances?limit=1000"
    status, headers, body = web.get(f"{search}&offset=19000")
    assert (status, len(json.loads(body)), headers["warning"][:4]) == (200, 1000, "299 ")
    status, headers, body = web.get(f"{search}&offset=20000")
    assert (status, len(json.loads(body)), headers.get("warning")) == (200, 1, None)


def test_a_study_of_just_as_many_is_answered_whole(shown, session, web):  # noqa: F811
    grown(session, MAX_INSTANCES)
    status, _, body = web.get(f"/studies/{STUDY}/series/{SERIES}/metadata")
    assert (status, body.count(b'"00080018"')) == (200, MAX_INSTANCES)
