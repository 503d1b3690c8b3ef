"""Orthanc's DICOMweb client against our DICOMweb; and bodies that no client sends."""

import http.client
import json
import urllib.request
from dataclasses import replace

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from gateway.demo.ct_phantom import DOMINIQUE, slice_data_set
from gateway.model.imaging import Instance
from tests.e2e.dicom.conftest import Orthanc
from tests.e2e.dicom.test_stow import STUDY, kept, multipart, sender, written  # noqa: F401 - sender is a fixture
from tests.loopback import wait_until


@pytest.fixture
def viewer(orthanc, web):
    """An Orthanc that knows our address and a token."""
    server = {"Url": web.url + "/", "HttpHeaders": {"Authorization": "Bearer ehr"}}
    orthanc.put("/dicom-web/servers/gateway", server)
    for one in everything(orthanc, "/studies"):  # of other tests that share it
        remove(orthanc, f"/studies/{one}")
    yield orthanc
    for one in everything(orthanc, "/studies"):
        remove(orthanc, f"/studies/{one}")


def everything(orthanc: Orthanc, kind: str = "/instances") -> list[str]:
    with urllib.request.urlopen(orthanc.http + kind, timeout=120) as answer:
        return json.loads(answer.read())


def remove(orthanc: Orthanc, path: str) -> None:
    urllib.request.urlopen(urllib.request.Request(orthanc.http + path, method="DELETE"), timeout=120).close()


def test_orthanc_lays_down_searches_and_fetches(viewer, sender, session, ct):  # noqa: F811
    study = {viewer.post("/instances", path.read_bytes())["ParentStudy"] for path in ct}.pop()
    files = {}
    for one in everything(viewer):
        with urllib.request.urlopen(f"{viewer.http}/instances/{one}/file", timeout=120) as answer:
            files[one] = answer.read()
    said = viewer.post("/dicom-web/servers/gateway/stow", {"Resources": [study], "Synchronous": True})
    assert said["InstancesCount"] == "5"
    assert kept(session) == 5

    found = viewer.post("/dicom-web/servers/gateway/qido", {"Uri": "/studies", "Arguments": {"PatientName": "pat-t*"}})
    assert STUDY in json.dumps(found)

    remove(viewer, f"/studies/{study}")
    assert everything(viewer) == []
    got = viewer.post("/dicom-web/servers/gateway/retrieve", {"Resources": [{"Study": STUDY}], "Synchronous": True})
    assert isinstance(got, dict)
    # Orthanc names its objects by their UIDs: the very same five.
    assert set(everything(viewer)) == set(files)


CUT = st.sampled_from(
    ["--frontiere", "\r\n", "Content-Type: application/dicom\r\n\r\n", "--frontiere--", "\r\n\r\n", "DICM"]
)


@given(data=st.data())
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_whatever_is_sent_is_answered_and_never_by_a_defect(web, sender, session, ct, data):  # noqa: F811
    """Real requests with a piece moved, doubled, cut or overwritten; a body that says another length."""
    body, kind = multipart(ct[0].read_bytes()[:4000], ct[1].read_bytes()[:2000])
    whole = bytearray(body)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(whole)))
        act = data.draw(st.sampled_from(["cut", "insert", "noise", "double"]))
        span = data.draw(st.integers(0, 300))
        if act == "cut":
            del whole[at : at + span]
        elif act == "insert":
            whole[at:at] = data.draw(CUT).encode()
        elif act == "noise":
            whole[at : at + 8] = data.draw(st.binary(min_size=8, max_size=8))
        else:
            whole[at:at] = whole[at : at + span]
    status, _, answer = web.post("/studies", bytes(whole), kind)
    assert status in (200, 202, 400, 409), (status, answer)
    assert json.loads(answer)


@given(
    kind=st.one_of(st.text(max_size=80), st.from_regex(r"multipart/related; ?[a-z]{1,9}=[^\r\n]{0,60}", fullmatch=True))
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_it_calls_itself(web, sender, kind):  # noqa: F811
    said = kind.encode("latin-1", "ignore").decode("latin-1").replace("\r", "").replace("\n", "").replace("\0", "")
    connection = http.client.HTTPConnection("127.0.0.1", int(web.url.split(":")[2].split("/")[0]), timeout=120)
    connection.request("POST", "/dicom-web/studies", b"x", {"Authorization": "Bearer ehr", "Content-Type": said})
    assert connection.getresponse().status in (400, 409, 415)
    connection.close()


def test_a_sender_that_leaves_leaves_nothing_half(web, sender, session, blobs, ct):  # noqa: F811
    body, kind = multipart(*(path.read_bytes() for path in ct))
    port = int(web.url.split(":")[2].split("/")[0])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.putrequest("POST", "/dicom-web/studies")
    for name, value in (("Authorization", "Bearer ehr"), ("Content-Type", kind), ("Content-Length", str(len(body)))):
        connection.putheader(name, value)
    connection.endheaders()
    connection.send(body[: len(body) // 2])
    connection.close()
    staging = blobs.path("0" * 64).parents[2] / "staging"
    assert wait_until(lambda: not any(staging.iterdir()))
    # What was whole may be there, what was not is absent; the same request again is as the first.
    assert kept(session) in (0, 1, 2)
    assert web.post("/studies", body, kind)[0] == 200
    assert kept(session) == session.scalar(select(func.count(Instance.sop_instance_uid.distinct()))) == 5


def test_an_upload_holds_little_memory(web, sender, session):  # noqa: F811
    """One object of 192 MiB in one part: the process that receives it grows by far less."""
    ds = slice_data_set(replace(DOMINIQUE, pixels=64), 0)
    ds.NumberOfFrames = 192 * 128
    ds.PixelData = b""
    head = written(ds)
    del ds
    size = 192 << 20
    at = head.rindex(b"\xe0\x7f\x10\x00OW\0\0")
    head = head[: at + 8] + size.to_bytes(4, "little")
    start, end = multipart(head)[0][: -len(b"\r\n--frontiere--")], b"\r\n--frontiere--"
    process, most = psutil.Process(), 0
    before = process.memory_info().rss
    connection = http.client.HTTPConnection("127.0.0.1", int(web.url.split(":")[2].split("/")[0]), timeout=120)
    connection.putrequest("POST", "/dicom-web/studies")
    for name, value in (
        ("Authorization", "Bearer ehr"),
        ("Content-Type", multipart(b"")[1]),
        ("Content-Length", str(len(start) + size + len(end))),
    ):
        connection.putheader(name, value)
    connection.endheaders()
    connection.send(start)
    for _ in range(192):
        connection.send(bytes(1 << 20))
        most = max(most, process.memory_info().rss)
    connection.send(end)
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    assert most - before < 64 << 20
    assert session.scalar(select(Instance.size_bytes)) > size
