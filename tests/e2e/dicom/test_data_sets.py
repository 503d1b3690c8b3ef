"""QIDO-RS and metadata in XML over HTTP, and which form is chosen."""

from __future__ import annotations

import subprocess
from email.parser import BytesParser

import pytest
from lxml import etree

from tests.contract.dicom.test_native_model import data_set
from tests.e2e.dicom.conftest import need
from tests.e2e.dicom.test_dicomweb import INSTANCE, ONE, SERIES, STUDY, shown  # noqa: F401 - a fixture

NATIVE = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"
PARTS = 'multipart/related; type="application/dicom+xml"'


def parts(headers: dict[str, str], body: bytes) -> list[tuple[str, bytes]]:
    """Read ``multipart/related`` by the standard library."""
    head = f"Content-Type: {headers['content-type']}\r\n\r\n".encode()
    message = BytesParser().parsebytes(head + body)
    assert (message.get_content_type(), message.get_param("type")) == ("multipart/related", "application/dicom+xml")
    return [(part.get_content_type(), part.get_payload(decode=True)) for part in message.get_payload()]


def texts(document: bytes, tag: str) -> list[str]:
    return [
        one.text for one in etree.fromstring(document).iterfind(f"{NATIVE}DicomAttribute[@tag='{tag}']/{NATIVE}Value")
    ]


def test_metadata_in_xml_say_what_dcmtk_says(shown, web, ct):  # noqa: F811
    status, headers, body = web.get(f"/studies/{STUDY}/metadata", "physician", PARTS)
    assert status == 200
    found = parts(headers, body)
    assert [kind for kind, _ in found] == ["application/dicom+xml"] * 5
    for path, (_, document) in zip(ct, found, strict=True):
        command = [need("dcm2xml"), "--native-format", "+Xn", "--convert-to-utf8", str(path)]
        theirs = data_set(etree.fromstring(subprocess.run(command, capture_output=True, check=True).stdout))
        ours = data_set(etree.fromstring(document))
        for one in (ours, theirs):
            one.pop(("00080005", None), None)
        assert ours.keys() == theirs.keys()
        assert {name: said for name, said in ours.items() if name[0] != "7FE00010"} == {
            name: said for name, said in theirs.items() if name[0] != "7FE00010"
        }
        [bulk] = etree.fromstring(document).iter(f"{NATIVE}BulkData")
        assert bulk.get("uri").startswith(f"{web.url}/studies/{STUDY}/series/{SERIES}/instances/")
        address = bulk.get("uri").removeprefix(web.url)
        assert web.get(address, "physician", "application/octet-stream")[0] == 200


def test_one_instance_leaves_alone_when_it_is_asked_for_so(shown, web):  # noqa: F811
    status, headers, body = web.get(f"{ONE}/metadata", "physician", "application/dicom+xml")
    assert (status, headers["content-type"]) == (200, "application/dicom+xml")
    assert texts(body, "00080018") == [INSTANCE]
    assert web.get(f"/studies/{STUDY}/metadata", "physician", "application/dicom+xml")[0] == 406


def test_a_search_is_answered_in_xml(shown, web):  # noqa: F811
    status, headers, body = web.get(f"/studies/{STUDY}/instances?limit=3", "physician", PARTS)
    assert (status, headers["warning"][:4]) == (200, "299 ")
    found = parts(headers, body)
    assert [texts(document, "00080018")[0] for _, document in found] == [f"{SERIES}.{number}" for number in (1, 2, 3)]
    status, headers, body = web.get("/studies", "physician", PARTS)
    [(_, study)] = parts(headers, body)
    assert (texts(study, "0020000D"), texts(study, "00201208")) == ([STUDY], ["5"])
    assert web.get("/studies?PatientID=nobody", "physician", PARTS)[0] == 204


JSON, PLAIN, XML = "application/dicom+json", "application/json", "multipart/related"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("*/*", JSON),
        ("application/json", PLAIN),
        (f"{PARTS};q=0.9, application/dicom+json;q=0.5", XML),
        (f"{PARTS};q=0.4, application/dicom+json;q=0.5", JSON),
        ("application/dicom+json;q=0, */*", PLAIN),
        ("application/*;q=0, */*;q=0.1", XML),
        ("multipart/related", XML),
        ('multipart/related; type="application/dicom"', 406),
        ("multipart/related; type=application/dicom+xml", XML),
        ("application/*;q=0.2, application/json;q=0.7", PLAIN),
        ("APPLICATION/DICOM+JSON", JSON),
        ("text/html", 406),
        ("application/dicom+json;q=0", 406),
        ("application/dicom+json;q=nan", 406),
        (f"{PARTS}, application/dicom+json", XML),
    ],
)
def test_the_form_that_is_liked_best_is_answered(shown, web, accept, expected):  # noqa: F811
    status, headers, _ = web.get("/studies", "physician", accept)
    assert expected in (status, headers["content-type"].partition(";")[0])
