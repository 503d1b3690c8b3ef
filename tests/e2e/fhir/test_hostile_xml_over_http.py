"""XML and compressed bodies that mean harm: each is refused by its name, quickly and in little memory, and the next
request is served as if nothing had been."""

from __future__ import annotations

import base64
import gzip
import os
import resource
import socket
import threading
import zlib
from contextlib import closing

import httpx
import pytest

from gateway.settings import Limits

XML = {"Accept": "application/fhir+json", "Content-Type": "application/fhir+xml"}
NS = 'xmlns="http://hl7.org/fhir"'
PATIENT = f"<Patient {NS}>%s</Patient>"
DEEP = 100_000


def _laughs() -> str:
    entities = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 20))
    return f'<!DOCTYPE p [<!ENTITY a0 "ha">{entities}]>' + PATIENT % "<gender value='&a19;'/>"


def _blow_up() -> str:
    return f'<!DOCTYPE p [<!ENTITY a "{"x" * 100_000}">]>' + PATIENT % f"<name><text value='{'&a;' * 10_000}'/></name>"


def _nested(times: int) -> str:
    inner = "<extension url='u'>" * times + "</extension>" * times
    return PATIENT % inner


def _nested_narrative(times: int) -> str:
    div = f'<div xmlns="http://www.w3.org/1999/xhtml">{"<b>" * times}x{"</b>" * times}</div>'
    return PATIENT % f'<text><status value="generated"/>{div}</text>'


HOSTILE: dict[str, tuple[bytes, str]] = {
    "billion laughs": (_laughs().encode(), "xml-doctype"),
    "quadratic blow-up": (_blow_up().encode(), "xml-doctype"),
    "external entity": (
        f'<!DOCTYPE p [<!ENTITY x SYSTEM "file:///etc/passwd">]>{PATIENT % "<gender>&x;</gender>"}'.encode(),
        "xml-doctype",
    ),
    "external subset": (
        f'<!DOCTYPE Patient SYSTEM "http://127.0.0.1:9/x.dtd">{PATIENT % ""}'.encode(),
        "xml-doctype",
    ),
    "parameter entity": (
        b'<!DOCTYPE p [<!ENTITY % x SYSTEM "http://127.0.0.1:9/x">%x;]><Patient xmlns="http://hl7.org/fhir"/>',
        "xml-doctype",
    ),
    "empty doctype after a comment": (f"<!-- a --><!DOCTYPE p>{PATIENT % ''}".encode(), "xml-doctype"),
    "doctype in UTF-16": (f"<!DOCTYPE p>{PATIENT % ''}".encode("utf-16"), "xml-doctype"),
    "unknown entity": ((PATIENT % "<gender value='&nbsp;'/>").encode(), "xml-illisible"),
    "entity in a narrative": (
        (PATIENT % '<text><div xmlns="http://www.w3.org/1999/xhtml">&nbsp;</div></text>').encode(),
        "xml-illisible",
    ),
    "deep elements": (_nested(DEEP).encode(), "xml-trop-profond"),
    "deep elements never closed": (f"<Patient {NS}>{'<a>' * DEEP}".encode(), "xml-trop-profond"),
    "deep narrative": (_nested_narrative(DEEP).encode(), "xml-trop-profond"),
    "deep in JSON but not in XML": (_nested(40).encode(), "json-trop-profond"),
    "NUL": ((PATIENT % "<gender value='a\0b'/>").encode(), "xml-illisible"),
    "NUL by number": ((PATIENT % "<gender value='a&#0;b'/>").encode(), "xml-illisible"),
    "control character by number": ((PATIENT % "<gender value='&#8;'/>").encode(), "xml-illisible"),
    "half a surrogate": ((PATIENT % "<gender value='&#xD800;'/>").encode(), "xml-illisible"),
    "invalid UTF-8": (PATIENT.encode() % b"<gender value='\xff\xfe'/>", "xml-illisible"),
    "overlong UTF-8": (PATIENT.encode() % b"<gender value='\xc0\xbc'/>", "xml-illisible"),
    "UTF-7": (
        b'<?xml version="1.0" encoding="UTF-7"?>+ADwAIQ-DOCTYPE p+AD4 <Patient xmlns="http://hl7.org/fhir"/>',
        "xml-codage",
    ),
    "Latin-1": (
        b'<?xml version="1.0" encoding="ISO-8859-1"?><Patient xmlns="http://hl7.org/fhir"/>',
        "xml-codage",
    ),
    "UTF-32": (f'<?xml version="1.0"?>{PATIENT % ""}'.encode("utf-32"), "xml-codage"),
    "UTF-16 cut short": (b"\xff\xfe<", "xml-codage"),
    "UTF-16 without a mark": ((PATIENT % "").encode("utf-16-le"), "xml-codage"),
    "UTF-16 behind the mark of UTF-8": (b"\xef\xbb\xbf" + (PATIENT % "").encode("utf-16"), "xml-codage"),
    "two marks": (b"\xef\xbb\xbf\xef\xbb\xbf" + (PATIENT % "").encode(), "xml-codage"),
    "no namespace": (b"<Patient/>", "xml-espace-de-noms"),
    "another namespace": (b'<Patient xmlns="urn:hl7-org:v3"/>', "xml-espace-de-noms"),
    "JSON": (b'{"resourceType":"Patient"}', "xml-illisible"),
    "nothing": (b"", "xml-illisible"),
    "two roots": (f"{PATIENT % ''}{PATIENT % ''}".encode(), "xml-illisible"),
    "an attribute twice": ((PATIENT % "<gender value='male' value='female'/>").encode(), "xml-illisible"),
    "an attribute twice by its namespace": (
        (PATIENT % "<gender xmlns:a='u' xmlns:b='u' a:x='1' b:x='2'/>").encode(),
        "xml-illisible",
    ),
    "unbound prefix": ((PATIENT % "<a:gender value='male'/>").encode(), "xml-illisible"),
    "mixed namespaces": ((PATIENT % "<gender xmlns='urn:x' value='male'/>").encode(), "element-inconnu"),
    "an attribute of another namespace": (
        (PATIENT % "<gender xmlns:a='urn:x' a:value='male' value='male'/>").encode(),
        "element-inconnu",
    ),
    "XInclude": (
        (PATIENT % '<i:include xmlns:i="http://www.w3.org/2001/XInclude" href="file:///etc/passwd"/>').encode(),
        "element-inconnu",
    ),
    "a script in another namespace": (
        (PATIENT % '<text><div xmlns="http://www.w3.org/1999/xhtml"><s xmlns="urn:x"/></div></text>').encode(),
        "valeur-invalide",
    ),
    "a script": (
        (
            PATIENT % '<text><status value="generated"/>'
            '<div xmlns="http://www.w3.org/1999/xhtml"><script>alert(1)</script></div></text>'
        ).encode(),
        "",
    ),
    "an unknown type": (f"<Malade {NS}/>".encode(), "element-inconnu"),
    "an unknown element": ((PATIENT % "<malade value='1'/>").encode(), "element-inconnu"),
    "an unknown attribute": ((PATIENT % "<gender valeur='1' value='male'/>").encode(), "element-inconnu"),
    "a single value twice": ((PATIENT % "<gender value='male'/><gender value='male'/>").encode(), "valeur-invalide"),
    "text where values stand": ((PATIENT % "<gender>male</gender>").encode(), "valeur-invalide"),
    "an element that says nothing": ((PATIENT % "<gender/>").encode(), "valeur-invalide"),
    "a boolean that is none": ((PATIENT % "<active value='TRUE'/>").encode(), "valeur-invalide"),
    "a number of 100 000 digits": (
        (PATIENT % f"<multipleBirthInteger value='{'9' * 100_000}'/>").encode(),
        "valeur-invalide",
    ),
    "two resources in one place": (
        (PATIENT % f"<contained>{'<Basic/>' * 2}</contained>").encode(),
        "valeur-invalide",
    ),
    "100 000 attributes": (
        (PATIENT % ("<gender " + " ".join(f"a{n}='1'" for n in range(100_000)) + "/>")).encode(),
        "element-inconnu",
    ),
    "an attribute of 4 MB": ((PATIENT % f"<gender value='{'x' * (4 << 20)}'/>").encode(), "code-hors-liste"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_xml_is_refused_by_its_name(ehr: httpx.Client, name: str) -> None:
    content, code = HOSTILE[name]
    for address in ("Patient", ""):
        answer = ehr.post(address, content=content, headers=XML)
        # A rule on content alone is 422 [DECISIONS 10]; everything else cannot be read at all.
        assert answer.status_code in ({400} if code else {400, 422}), answer.text[:300]
        issue = answer.json()["issue"][0]
        if code and (address or code.startswith("xml-")):
            assert issue["details"]["coding"][0]["code"] == code
        if code.endswith("trop-profond"):
            assert "RCP_LIMIT_JSON_DEPTH" in issue["details"]["text"]
        if code in {"element-inconnu", "valeur-invalide"} and address:
            assert issue["expression"][0].split(".")[0] in {"Patient", "Resource"}
        # Nothing of the content comes back.
        assert "passwd" not in answer.text
        assert "alert" not in answer.text
    assert ehr.get("metadata").status_code == 200


def test_every_fault_is_told_at_once_and_its_place_with_it(ehr: httpx.Client) -> None:
    content = PATIENT % (
        "<identifier><valeur value='1'/></identifier><identifier><value/></identifier>"
        "<name><given value='A'/><given>B</given></name><active value='oui'/>"
        "<contained><Malade/></contained><extension url='u' x='1'><valueDecimal value='1,5'/></extension>"
    )
    answer = ehr.post("Patient", content=content, headers=XML)
    assert answer.status_code == 400
    assert [issue["expression"][0] for issue in answer.json()["issue"]] == [
        "Patient.identifier[0].valeur",
        "Patient.identifier[1].value",
        "Patient.name[0].given[1]",
        "Patient.active",
        "Patient.contained[0].resourceType",
        "Patient.extension[0].x",
        "Patient.extension[0].valueDecimal",
    ]


def test_nothing_is_fetched(ehr: httpx.Client) -> None:
    """A listener stands where every external name of a document points to: nobody comes."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        visitors: list[object] = []
        thread = threading.Thread(target=lambda: visitors.append(_accepted(listener)), daemon=True)
        thread.start()
        for content in (
            f'<!DOCTYPE p SYSTEM "{address}">{PATIENT % ""}',
            f'<!DOCTYPE p [<!ENTITY x SYSTEM "{address}">]>{PATIENT % "<gender>&x;</gender>"}',
            f'<?xml-stylesheet href="{address}"?>{PATIENT % ""}',
            PATIENT % f'<i:include xmlns:i="http://www.w3.org/2001/XInclude" href="{address}"/>',
            f'<Patient {NS} xmlns:s="http://www.w3.org/2001/XMLSchema-instance" s:schemaLocation="u {address}"/>',
        ):
            assert ehr.post("Patient", content=content, headers=XML).status_code in {400, 422}
        # A visitor of our own ends the wait: he must be the first.
        with socket.create_connection(listener.getsockname()) as ourselves:
            mine = ourselves.getsockname()
        thread.join(timeout=60)
    assert visitors == [mine]


def _accepted(listener: socket.socket) -> object:
    connection, address = listener.accept()
    connection.close()
    return address


def _bomb(member: bytes, times: int) -> bytes:
    """Zeros whose announced and true length is far above any limit, packed a thousand to one."""
    packer = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
    return b"".join([*(packer.compress(member) for _ in range(times)), packer.flush()])


@pytest.mark.parametrize("declared", ["application/fhir+xml", "application/fhir+json"])
def test_a_zip_bomb_is_refused_by_the_limit_of_the_body(ehr: httpx.Client, declared: str) -> None:
    megabyte = b" " * (1 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for content in (_bomb(megabyte, 400), gzip.compress(megabyte) * 400, gzip.compress(_bomb(megabyte, 400)) * 3):
        answer = ehr.post("Patient", content=content, headers={"Content-Type": declared, "Content-Encoding": "gzip"})
        if answer.status_code == 400:
            # The third is a bomb within another: one layer is undone, what is left is no resource.
            assert answer.json()["issue"][0]["details"]["coding"][0]["code"] in {"xml-codage", "json-illisible"}
        else:
            assert answer.status_code == 413, answer.text
            assert "RCP_LIMIT_HTTP_BODY_BYTES" in answer.text
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 8 * Limits().http_body_bytes // 1024
    damaged = ehr.post("Patient", content=b"\x1f\x8b", headers={"Content-Type": declared, "Content-Encoding": "gzip"})
    assert damaged.status_code == 400
    unknown = ehr.post("Patient", content=b"x", headers={"Content-Type": declared, "Content-Encoding": "br"})
    assert unknown.status_code == 415


def _narrative(inner: str) -> str:
    return f'<text><status value="generated"/><div xmlns="http://www.w3.org/1999/xhtml">{inner}</div></text>'


#: Bodies far under the limit of bytes, each a million elements or attributes.
MANY = {
    "elements": PATIENT % ("<name><given value='a'/></name>" * 500_000),
    "elements that are empty": PATIENT % ("<name/>" * 1_000_000),
    "elements that nobody knows": PATIENT % f"<x>{'<a/>' * 1_000_000}</x>",
    "elements of a narrative": PATIENT % _narrative("<br/>" * 1_000_000),
    "attributes of a narrative": PATIENT % _narrative("<p id='a' class='b' title='c' lang='d'/>" * 250_000),
    "hints": f"<Patient {NS} xmlns:x='http://www.w3.org/2001/XMLSchema-instance' "
    + " ".join(f"x:a{n}=''" for n in range(600_000))
    + "/>",
    "declarations": f"<Patient {NS}>" + "<name xmlns:a='b' xmlns:c='d'/>" * 300_000 + "</Patient>",
}


@pytest.mark.parametrize("name", MANY)
def test_more_elements_than_the_limit_are_refused_by_its_name_wherever_they_stand(ehr: httpx.Client, name: str) -> None:
    answer = ehr.post("Patient", content=MANY[name].encode(), headers=XML)
    issue = answer.json()["issue"][0]
    assert (answer.status_code, issue["details"]["coding"][0]["code"]) == (413, "trop-d-elements"), answer.text
    assert issue["code"] == "too-costly"
    assert "250000 (RCP_LIMIT_JSON_NODES)" in issue["details"]["text"]


def test_the_elements_of_a_narrative_in_json_count_as_well(ehr: httpx.Client) -> None:
    div = f'<div xmlns="http://www.w3.org/1999/xhtml">{"<br/>" * 1_000_000}</div>'
    tree = {"resourceType": "Patient", "text": {"status": "generated", "div": div}}
    answer = ehr.post("Patient", json=tree)
    assert (answer.status_code, answer.json()["issue"][0]["details"]["coding"][0]["code"]) == (413, "trop-d-elements")


def test_a_binary_of_fifteen_megabytes_in_xml_is_kept_whole(ehr: httpx.Client) -> None:
    data = base64.b64encode(os.urandom(11 << 20)).decode()
    assert len(data) > 15_000_000
    sent = f"<Binary {NS}><contentType value='application/pdf'/><data value='{data}'/></Binary>"
    made = ehr.post("Binary", content=sent.encode(), headers=XML | {"Prefer": "return=minimal"})
    assert made.status_code == 201, made.text[:300]
    where = made.headers["location"].partition("/_history")[0]
    read = ehr.get(where, headers={"Accept": "application/fhir+xml"})
    assert f'<data value="{data}"/>' in read.text
    assert ehr.get(where, headers={"Accept": "*/*"}).content == base64.b64decode(data)


def test_a_document_as_large_as_the_limit_is_read_in_bounded_memory(ehr: httpx.Client) -> None:
    room = Limits().http_body_bytes - len(PATIENT) - 100
    given = b"<name><given value='" + b"a" * 210 + b"'/></name>"
    content = (PATIENT % "@").encode().replace(b"@", given * (room // len(given)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = ehr.post("Observation", content=content, headers=XML)
    assert answer.status_code == 400
    assert answer.json()["issue"][0]["details"]["coding"][0]["code"] == "type-different"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 40 * Limits().http_body_bytes // 1024
    over = ehr.post("Patient", content=content + b" " * (Limits().http_body_bytes), headers=XML)
    assert over.status_code == 413
