"""Bytes that a client keeps: raw or as FHIR, large ones in the blob store, shown to whom their context is shown."""

from __future__ import annotations

import hashlib
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.model.partner import Partner
from gateway.model.store import Store
from tests.e2e.fhir import minimal, samples
from tests.e2e.fhir.conftest import ALL_SCOPES, Hospital
from tests.world import World

PDF = b"%PDF-1.7\n" + bytes(range(256)) * 8
#: Above what a row of the database may hold.
LARGE = bytes(range(256)) * 1024
RAW = {"Accept": "application/pdf"}


@pytest.fixture
def ehr(world: World, admit: Callable[..., Hospital]) -> Iterator[httpx.Client]:
    with admit(world.partner, scopes=ALL_SCOPES).client() as client:
        yield client


def _code(answer: httpx.Response) -> str:
    return str(answer.json()["issue"][0]["details"]["coding"][0]["code"])


@pytest.mark.parametrize("content", [PDF, LARGE], ids=["small", "large"])
def test_bytes_come_back_raw_and_as_fhir(ehr: httpx.Client, store: Store, blobs: Any, content: bytes) -> None:
    made = ehr.post("Binary", content=content, headers={"Content-Type": "application/pdf"})
    assert made.status_code == 201, made.text
    text = b64encode(content).decode()
    assert (made.json()["contentType"], made.json()["data"]) == ("application/pdf", text)
    here = f"Binary/{made.json()['id']}"
    raw = ehr.get(here, headers=RAW)
    assert (raw.content, raw.headers["content-type"]) == (content, "application/pdf")
    assert ehr.get(here).json()["data"] == text
    assert ehr.get(f"{here}/_history/1").json()["data"] == text
    assert ehr.get(f"{here}/_history").json()["entry"][0]["resource"]["data"] == text
    again = ehr.put(here, json=made.json())
    assert (again.headers["etag"], again.json()["data"]) == ('W/"1"', text)
    with store.session() as session:
        kept = session.connection().exec_driver_sql("SELECT max(length(body)) FROM fhir_binary").scalar()
    assert kept is not None
    assert kept < 64 * 1024
    assert (len(content) < 64 * 1024) == (blobs.size(hashlib.sha256(text.encode()).hexdigest()) is None)


def test_spaces_in_base64_stay(ehr: httpx.Client) -> None:
    text = "RXNz\nYWk="
    made = ehr.post("Binary", json={"resourceType": "Binary", "contentType": "text/plain", "data": text})
    assert made.status_code == 201, made.text
    assert made.json()["data"] == text
    assert ehr.get(f"Binary/{made.json()['id']}", headers={"Accept": "text/plain"}).content == b"Essai"


def _document(subject: str, url: str, **attachment: Any) -> dict[str, Any]:
    return {
        "resourceType": "DocumentReference",
        "status": "current",
        "subject": {"reference": subject},
        "content": [{"attachment": {"contentType": "application/pdf", "url": url} | attachment}],
    }


@pytest.mark.parametrize("content", [PDF, LARGE], ids=["small", "large"])
def test_what_a_document_says_of_its_bytes_is_true(ehr: httpx.Client, content: bytes) -> None:
    patient = f"Patient/{ehr.post('Patient', json=samples.patient()).json()['id']}"
    made = ehr.post("Binary", content=content, headers={"Content-Type": "application/pdf"})
    url = f"Binary/{made.json()['id']}"
    digest = b64encode(hashlib.sha1(content, usedforsecurity=False).digest()).decode()
    good = ehr.post("DocumentReference", json=_document(patient, url, size=len(content), hash=digest))
    assert good.status_code == 201, good.text
    for said, code in (
        ({"size": len(content) + 1}, "piece-jointe-taille"),
        ({"hash": b64encode(b"x" * 20).decode()}, "piece-jointe-empreinte"),
    ):
        refused = ehr.post("DocumentReference", json=_document(patient, url, **said))
        assert (refused.status_code, _code(refused)) == (422, code)
    lost = ehr.post("DocumentReference", json=_document(patient, "Binary/01234567-89ab-cdef-0123-456789abcdef"))
    assert (lost.status_code, _code(lost)) == (422, "piece-jointe-absente")
    inline = _document(patient, "https://ailleurs.example/x.pdf", size=3)
    assert ehr.post("DocumentReference", json=inline).status_code == 201


def test_bytes_are_shown_with_what_they_belong_to(
    world: World, ehr: httpx.Client, home: httpx.Client, admit: Callable[..., Hospital], store: Store
) -> None:
    known = minimal.fill(ehr, world.rcp.national_number, world.requester.idnps)
    with store.session() as session:
        other = Partner(name="Clinique Z", patient_domains=["https://z.example/ipp"])
        session.add(other)
        session.commit()
    with admit(other, scopes=ALL_SCOPES).client() as stranger:
        alone = ehr.post("Binary", content=PDF, headers={"Content-Type": "application/pdf"}).json()["id"]
        bound = ehr.post(
            "Binary",
            content=PDF,
            headers={"Content-Type": "application/pdf", "X-Security-Context": known["ServiceRequest"]},
        ).json()["id"]
        assert home.get(f"Binary/{alone}", headers=RAW).status_code == 404
        assert home.get(f"Binary/{bound}", headers=RAW).content == PDF
        # A document of the dossier that names the first shows it to those of the dossier.
        subject = ehr.get(known["ServiceRequest"]).json()["subject"]["reference"]
        tree = _document(subject, f"Binary/{alone}") | {
            "context": {"related": [{"reference": known["ServiceRequest"]}]}
        }
        assert ehr.post("DocumentReference", json=tree).status_code == 201
        assert home.get(f"Binary/{alone}", headers=RAW).content == PDF
        for key in (alone, bound):
            assert stranger.get(f"Binary/{key}", headers=RAW).status_code == 404
            assert stranger.get(f"Binary/{key}").status_code == 404
    wrong = {"Content-Type": "application/pdf", "X-Security-Context": "Patient/01234567-89ab-cdef-0123-456789abcdef"}
    refused = ehr.post("Binary", content=PDF, headers=wrong)
    assert (refused.status_code, _code(refused)) == (422, "contexte-inconnu")


def test_a_transaction_brings_a_document_and_its_bytes(ehr: httpx.Client) -> None:
    patient = f"Patient/{ehr.post('Patient', json=samples.patient()).json()['id']}"
    binary, reference = "urn:uuid:3f2a0000-0000-4000-8000-000000000001", "urn:uuid:3f2a0000-0000-4000-8000-000000000002"
    tree = {"resourceType": "Binary", "contentType": "application/pdf", "data": b64encode(LARGE).decode()}
    tree["securityContext"] = {"reference": reference}  # type: ignore[assignment]
    bundle = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {
                "fullUrl": reference,
                "resource": _document(patient, binary, size=len(LARGE)),
                "request": {"method": "POST", "url": "DocumentReference"},
            },
            {"fullUrl": binary, "resource": tree, "request": {"method": "POST", "url": "Binary"}},
        ],
    }
    done = ehr.post("", json=bundle)
    assert done.status_code == 200, done.text
    document, kept = (entry["response"]["location"].partition("/_history")[0] for entry in done.json()["entry"])
    assert ehr.get(document).json()["content"][0]["attachment"]["url"] == kept
    assert ehr.get(kept).json()["securityContext"]["reference"] == document
    assert ehr.get(kept, headers=RAW).content == LARGE
    bundle["entry"][0]["resource"]["content"][0]["attachment"]["size"] = 3  # type: ignore[index]
    assert _code(ehr.post("", json=bundle)) == "piece-jointe-taille"


def test_no_large_content_stands_in_the_log_or_the_database(tmp_path: Path, ehr: httpx.Client, store: Store) -> None:
    del tmp_path
    text = b64encode(LARGE).decode()
    assert ehr.post("Binary", content=LARGE, headers={"Content-Type": "image/png"}).status_code == 201
    with store.session() as session:
        found = session.connection().exec_driver_sql(
            "SELECT count(*) FROM fhir_binary WHERE position(%s::bytea in body) > 0", (text[:200].encode(),)
        )
        assert found.scalar() == 0


# What is refused


def _kept(blobs: Any) -> set[str]:
    """Hashes of everything in the store."""
    return {path.name for path in Path(blobs.url.removeprefix("file://")).glob("sha256/*/*")}


def _hash(content: bytes) -> str:
    return hashlib.sha256(b64encode(content)).hexdigest()


def _large(content: bytes, **more: Any) -> dict[str, Any]:
    data = b64encode(content).decode()
    return {"resourceType": "Binary", "contentType": "application/pdf", "data": data, **more}


def _entry(tree: dict[str, Any], url: str | None = None) -> dict[str, Any]:
    return {
        "fullUrl": url or f"urn:uuid:{uuid.uuid4()}",
        "resource": tree,
        "request": {"method": "POST", "url": tree["resourceType"]},
    }


def test_a_rehearsal_of_large_bytes_puts_nothing_into_the_store(
    ehr: httpx.Client, blobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(_content: bytes) -> None:
        raise AssertionError("a rehearsal keeps bytes")

    with monkeypatch.context() as patched:
        patched.setattr(blobs, "put", put)
        told = ehr.post("Binary/$validate?mode=create", json=_large(LARGE))
        assert told.status_code == 200, told.text
        assert {issue["severity"] for issue in told.json()["issue"]} == {"information"}
        assert _kept(blobs) == set()
    made = ehr.post("Binary", json=_large(LARGE))
    assert made.status_code == 201
    assert _kept(blobs) == {_hash(LARGE)}
    changed = _large(LARGE[::-1], id=made.json()["id"])
    told = ehr.post(f"Binary/{made.json()['id']}/$validate?mode=update", json=changed)
    assert {issue["severity"] for issue in told.json()["issue"]} == {"information"}, told.text
    assert _kept(blobs) == {_hash(LARGE)}


def test_large_bytes_of_a_refused_transaction_are_gone_and_those_of_others_stay(ehr: httpx.Client, blobs: Any) -> None:
    patient = f"Patient/{ehr.post('Patient', json=samples.patient()).json()['id']}"
    bytes_at = "urn:uuid:3f2a0000-0000-4000-8000-0000000000aa"
    lying = _document(patient, bytes_at, size=1)
    refused = [_entry(_large(LARGE), bytes_at), _entry(_large(LARGE[1:])), _entry(lying)]
    before = ehr.post("Binary", json=_large(LARGE[1:]))
    assert before.status_code == 201
    answer = ehr.post("", json={"resourceType": "Bundle", "type": "transaction", "entry": refused})
    assert (answer.status_code, _code(answer)) == (422, "piece-jointe-taille")
    # What somebody's row names stays, whoever brings it again and is refused.
    assert _kept(blobs) == {_hash(LARGE[1:])}
    assert ehr.get(f"Binary/{before.json()['id']}", headers=RAW).content == LARGE[1:]
    wrong = _large(LARGE, securityContext={"reference": f"Patient/{uuid.uuid4()}"})
    batch = ehr.post("", json={"resourceType": "Bundle", "type": "batch", "entry": [_entry(wrong)]})
    assert batch.json()["entry"][0]["response"]["status"].startswith("422")
    assert ehr.put(f"Binary/{uuid.uuid4()}", json=_large(LARGE)).status_code in {400, 405}
    stale = ehr.put(
        f"Binary/{before.json()['id']}",
        json=_large(LARGE, id=before.json()["id"]),
        headers={"If-Match": 'W/"7"'},
    )
    assert stale.status_code == 412
    assert _kept(blobs) == {_hash(LARGE[1:])}
    honest = [_entry(_large(LARGE), bytes_at), _entry(_document(patient, bytes_at, size=len(LARGE)))]
    done = ehr.post("", json={"resourceType": "Bundle", "type": "transaction", "entry": honest})
    assert done.status_code == 200, done.text
    assert _kept(blobs) == {_hash(LARGE), _hash(LARGE[1:])}


def test_the_same_large_bytes_from_many_who_are_kept_and_refused_at_once(ehr: httpx.Client, blobs: Any) -> None:
    patient = f"Patient/{ehr.post('Patient', json=samples.patient()).json()['id']}"

    def send(place: int) -> tuple[int, str]:
        bytes_at = f"urn:uuid:{uuid.uuid4()}"
        size = len(LARGE) if place % 4 == 3 else 1
        entries = [_entry(_large(LARGE), bytes_at), _entry(_document(patient, bytes_at, size=size))]
        answer = ehr.post("", json={"resourceType": "Bundle", "type": "transaction", "entry": entries})
        where = "" if answer.status_code != 200 else answer.json()["entry"][0]["response"]["location"]
        if where:
            raw = ehr.get(where.partition("/_history")[0].removeprefix(str(ehr.base_url)), headers=RAW)
            assert raw.content == LARGE
        return answer.status_code, where

    with ThreadPoolExecutor(6) as pool:
        told = list(pool.map(send, range(16)))
    assert [status for status, _ in told] == [200 if place % 4 == 3 else 422 for place in range(16)]
    for _, where in told:
        if where:
            assert ehr.get(where.partition("/_history")[0], headers=RAW).content == LARGE
