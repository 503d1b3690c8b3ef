"""What HTTP and PS3.18 allow a client to write, and what our answers say of themselves: wishes, refusals, addresses."""

import json
import re

import pytest

from tests.e2e.dicom.test_dicomweb import ONE, SERIES, STUDY, shown  # noqa: F401 - a fixture

VALUE = f"{ONE}/bulkdata/7FE00010"
OCTETS = "application/octet-stream"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", OCTETS),
        ("APPLICATION/Octet-Stream; Q=0.5", OCTETS),
        ("application/*", OCTETS),
        (f"{OCTETS};q=0, */*", "multipart/related"),
        (f"{OCTETS};q=0.1, multipart/related", "multipart/related"),
        (f'multipart/related;type={OCTETS};x=";,"', "multipart/related"),
        (f"text/html, {OCTETS};q=0.001", OCTETS),
        ("multipart/related;q=0, */*;q=0.1", OCTETS),
    ],
)
def test_a_value_leaves_as_the_most_specific_range_says(shown, web, accept, kind):  # noqa: F811
    status, headers, _ = web.get(VALUE, accept=accept)
    assert (status, headers["content-type"].partition(";")[0]) == (200, kind)


@pytest.mark.parametrize(
    ("path", "accept", "named"),
    [
        (VALUE, f"{OCTETS};q=0", f'{OCTETS}, multipart/related; type="{OCTETS}"'),
        (f"/studies/{STUDY}", "application/dicom", 'multipart/related; type="application/dicom"'),
        (ONE, "text/plain", 'application/dicom, multipart/related; type="application/dicom"'),
        (f"{ONE}/frames/1", "image/bmp", "application/octet-stream, image/jpeg, image/jp2"),
        ("/studies", "text/plain", "application/dicom+json, application/json"),
        (f"{ONE}/rendered", "image/webp", "image/jpeg, image/png, image/gif"),
        (f"/studies/{STUDY}/rendered", "image/jpeg", 'multipart/related; type="image/jpeg"'),
    ],
)
def test_who_asks_for_what_there_is_not_is_told_what_there_is(shown, web, path, accept, named):  # noqa: F811
    status, _, body = web.get(path, accept=accept)
    said = json.loads(body)
    assert (status, said["code"]) == (406, "not-acceptable")
    assert named in said["text"]


@pytest.mark.parametrize("charset", ["utf-8", "ISO-8859-1, utf-8;q=0.5", "*"])
def test_a_search_may_name_a_character_set_and_a_media_type_in_its_address(shown, web, charset):  # noqa: F811
    """[PS3.18 8.3.3] lets a link say what a header field would; UTF-8 is what there is."""
    plain = web.json("/studies?PatientID=000003")
    asked = f"/studies?PatientID=000003&charset={charset.replace(' ', '%20')}&accept=application/json"
    status, headers, body = web.get(asked, accept="text/html")
    assert (status, headers["content-type"], json.loads(body)) == (200, "application/json", plain)
    assert len(plain) == 1


def parts_of(headers: dict[str, str], body: bytes) -> list[tuple[str, bytes]]:
    """The address of each part, and its content."""
    boundary = b"--" + headers["content-type"].partition("boundary=")[2].encode()
    cut = [part.partition(b"\r\n\r\n") for part in body.split(boundary)[1:-1]]
    return [(re.search(rb"Content-Location: (\S+)", head)[1].decode(), content[:-2]) for head, _, content in cut]


def test_each_part_says_where_it_stands_by_itself(shown, web, ct):  # noqa: F811
    objects = parts_of(*web.get(f"/studies/{STUDY}", accept="multipart/related")[1:])
    assert [address for address, _ in objects] == [
        f"{web.url}/studies/{STUDY}/series/{SERIES}/instances/{SERIES}.{number}" for number in range(1, 6)
    ]
    for address, content in objects:
        alone = web.get(address.removeprefix(web.url), accept="application/dicom; transfer-syntax=*")[2]
        assert alone == content
    for accept in (f'multipart/related; type="{OCTETS}"', 'multipart/related; type="image/jp2"'):
        [(address, frame)] = parts_of(*web.get(f"{ONE}/frames/1", accept=accept)[1:])
        assert address == f"{web.url}{ONE}/frames/1"
        kind = accept.partition('"')[2].rstrip('"')
        assert web.get(address.removeprefix(web.url), accept=kind)[2] == frame
