"""A CDA that a software brings: attached by its header, or waiting for a person; what was mailed is read here too."""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from sqlalchemy import select

from gateway.documents import frcp, n1
from gateway.exchange.inbox import Inbox
from gateway.model.partner import Partner
from gateway.model.person import WorkItem
from gateway.model.received import ReceivedDocument
from gateway.model.store import Store
from gateway.mssante.intake import MailIntake
from gateway.mssante.mailbox import Fetched
from gateway.rcp.report_content import Identifier, Replaced
from tests import xdm_samples
from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import ALL_SCOPES, Hospital, Served
from tests.report_samples import content
from tests.world import World

CDA = xdm_samples.valid()[xdm_samples.DOCUMENT]
WAITING = "https://rcp.example.org/fhir/StructureDefinition/document-en-attente"
XML = {"Accept": "text/xml"}


_KINDS = ("Patient", "ServiceRequest")


@pytest.fixture
def ehr(world: World, admit: Callable[..., Hospital]) -> Iterator[httpx.Client]:
    with admit(world.partner, scopes=ALL_SCOPES).client() as client:
        yield client


@pytest.fixture
def patient(ehr: httpx.Client) -> str:
    made = ehr.post("Patient", json=samples.patient())
    assert made.status_code == 201, made.text
    return f"Patient/{made.json()['id']}"


@pytest.fixture
def clinic(store: Store, world: World, admit: Callable[..., Hospital]) -> Iterator[httpx.Client]:
    """Another establishment, which has nothing to do with the first."""
    with store.session() as session:
        other = Partner(name="Clinique Z", patient_domains=["https://z.example/ipp"])
        session.add(other)
        session.commit()
    with admit(other, scopes=ALL_SCOPES).client() as client:
        yield client


def version(number: int, root: str) -> bytes:
    facts = content()
    replaced = Replaced(document_id=facts.document_id, version=1, validated_at=facts.written_at)
    return frcp.render(
        replace(facts, version=number, document_id=Identifier(root), replaces=replaced if number > 1 else None)
    )


def reference(subject: str | None, data: bytes | str = CDA, **more: Any) -> dict[str, Any]:
    """A DocumentReference as a software writes it; ``data`` are the bytes, or where they are."""
    said = {"url": data} if isinstance(data, str) else {"data": b64encode(data).decode()}
    tree: dict[str, Any] = {
        "resourceType": "DocumentReference",
        "status": "current",
        "category": [{"text": "Courrier"}],
        "content": [{"attachment": {"contentType": "text/xml", **said}}],
    }
    return tree | ({"subject": {"reference": subject}} if subject is not None else {}) | more


def rows(store: Store, model: Any = ReceivedDocument) -> Any:
    with store.session() as session:
        return session.scalars(select(model).order_by(model.id)).unique().all()


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["issue"][0]["details"]["coding"][0]["code"]


def waits(tree: dict[str, Any]) -> list[str]:
    return [one["valueCode"] for one in tree.get("extension", ()) if one["url"] == WAITING]


def without_meta(tree: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in tree.items() if name not in {"id", "meta"}}


def test_a_cda_is_attached_by_its_ins_and_comes_back_as_it_was_sent(
    ehr: httpx.Client, patient: str, store: Store, blobs: Any
) -> None:
    sent = reference(patient)
    made = ehr.post("DocumentReference", json=sent)
    assert (made.status_code, made.headers["etag"]) == (201, 'W/"1"')
    assert without_meta(made.json()) == sent
    [row] = rows(store)
    assert (str(row.id), row.state, row.channel, f"Patient/{row.record_id}") == (
        made.json()["id"],
        "attache",
        "fhir",
        patient,
    )
    assert (row.unique_id, row.type_code, row.author) == (content().document_id.root, "34794-8", "Claire MERCIER")
    assert blobs.read(row.sha256) == CDA
    assert not rows(store, WorkItem)
    again = ehr.put(f"DocumentReference/{row.id}", json=made.json(), headers={"If-Match": 'W/"1"'})
    assert (again.status_code, again.headers["etag"]) == (200, 'W/"1"')
    stale = ehr.put(f"DocumentReference/{row.id}", json=made.json(), headers={"If-Match": 'W/"7"'})
    assert stale.status_code == 412
    more = ehr.put(f"DocumentReference/{row.id}", json=made.json() | {"description": "Relu"})
    assert (more.json()["description"], more.headers["etag"]) == ("Relu", 'W/"2"')
    assert len(rows(store)) == 1
    found = ehr.get("DocumentReference", params={"patient": patient}).json()
    assert [one["resource"]["id"] for one in found["entry"]] == [str(row.id)]


def test_its_header_is_enough_where_the_reference_names_nobody(ehr: httpx.Client, patient: str, store: Store) -> None:
    assert ehr.post("DocumentReference", json=reference(None)).status_code == 201
    assert f"Patient/{rows(store)[0].record_id}" == patient


@pytest.mark.parametrize("how", ["binary", "transaction"])
def test_the_bytes_may_be_a_binary_here(
    ehr: httpx.Client, patient: str, store: Store, home: httpx.Client, how: str
) -> None:
    data = {"resourceType": "Binary", "contentType": "text/xml", "data": b64encode(CDA).decode()}
    if how == "binary":
        binary = f"Binary/{ehr.post('Binary', json=data).json()['id']}"
        made = ehr.post("DocumentReference", json=reference(patient, binary))
        assert made.status_code == 201, made.text
        key = made.json()["id"]
    else:
        urls = [f"urn:uuid:3f2a0000-0000-4000-8000-00000000000{digit}" for digit in (1, 2)]
        entries = [(urls[0], reference(patient, urls[1]), "DocumentReference"), (urls[1], data, "Binary")]
        done = ehr.post(
            "",
            json={
                "resourceType": "Bundle",
                "type": "transaction",
                "entry": [
                    {"fullUrl": url, "resource": tree, "request": {"method": "POST", "url": kind}}
                    for url, tree, kind in entries
                ],
            },
        )
        assert done.status_code == 200, done.text
        key, binary = (one["response"]["location"].split("/")[1] for one in done.json()["entry"])
        binary = f"Binary/{binary}"
    [row] = rows(store)
    assert (str(row.id), row.state, row.sha256) == (key, "attache", hashlib.sha256(CDA).hexdigest())
    assert ehr.get(f"DocumentReference/{key}").json()["content"][0]["attachment"]["url"] == binary
    assert ehr.get(binary, headers=XML).content == CDA
    changed = data | {"id": binary.partition("/")[2], "data": b64encode(CDA + b" ").decode()}
    assert code(ehr.put(binary, json=changed)) == (409, "document-recu")
    assert ehr.get(binary, headers=XML).content == CDA
    assert home.get(f"DocumentReference/{key}").status_code == 404
    assert home.get(binary, headers=XML).status_code == 404


def test_it_stands_in_the_dossier_of_its_patient_for_those_who_see_it(
    world: World, ehr: httpx.Client, home: httpx.Client, clinic: httpx.Client, store: Store
) -> None:
    bundle = samples.transaction(
        rcp=world.rcp.national_number,
        start="2026-03-19T14:00:00+01:00",
        requester=world.requester.idnps,
        treating=world.treating.idnps,
    )
    done = ehr.post("", json=bundle)
    assert done.status_code == 200, done.text
    where = [one["response"]["location"].partition("/_history")[0] for one in done.json()["entry"]]
    subject, inscription = (next(one for one in where if one.startswith(f"{kind}/")) for kind in _KINDS)
    made = ehr.post("DocumentReference", json=reference(subject))
    assert made.status_code == 201, made.text
    key = made.json()["id"]
    assert [f"ServiceRequest/{row.dossier_id}" for row in rows(store)] == [inscription]
    assert home.get(f"DocumentReference/{key}").json()["content"] == made.json()["content"]
    assert clinic.get(f"DocumentReference/{key}").status_code == 404
    assert code(home.put(f"DocumentReference/{key}", json=made.json())) == (403, "proprietaire")


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        (None, "document-patient-inconnu"),
        ({"birth_date": "1979-03-29"}, "traits-differents"),
        ({"family": "AUTRE"}, "traits-differents"),
        ({"ins": None}, "document-patient-inconnu"),
        ({"status": "PROV", "ins": None}, "document-patient-inconnu"),
    ],
)
def test_what_is_not_sure_waits_and_is_shown_to_its_sender_alone(
    world: World, ehr: httpx.Client, home: httpx.Client, store: Store, known: Any, reason: str
) -> None:
    if known is not None:
        assert ehr.post("Patient", json=samples.patient(**known)).status_code == 201
    made = ehr.post("DocumentReference", json=reference(None))
    assert made.status_code == 201, made.text
    assert waits(made.json()) == [reason]
    here = f"DocumentReference/{made.json()['id']}"
    [row] = rows(store)
    assert (row.state, row.reason, row.record_id, row.dossier_id) == ("quarantaine", reason, None, None)
    [item] = rows(store, WorkItem)
    assert (item.reason, item.partner_id, item.network_id, item.closed_at) == (
        reason,
        world.partner.id,
        world.partner.network_id,
        None,
    )
    assert home.get(here).status_code == 404
    again = ehr.put(here, json=made.json())
    assert (again.status_code, again.headers["etag"], waits(again.json())) == (200, 'W/"1"', [reason])
    assert len(rows(store, WorkItem)) == 1


def test_what_waited_is_attached_when_its_patient_is_known(ehr: httpx.Client, store: Store) -> None:
    made = ehr.post("DocumentReference", json=reference(None)).json()
    here = f"DocumentReference/{made['id']}"
    assert waits(made) == ["document-patient-inconnu"]
    patient = ehr.post("Patient", json=samples.patient()).json()["id"]
    again = ehr.put(here, json=made)
    assert (again.status_code, again.headers["etag"], waits(again.json())) == (200, 'W/"2"', [])
    [row], [item] = rows(store), rows(store, WorkItem)
    assert (row.state, str(row.record_id), item.decision) == ("attache", patient, "nouvelle-recue")


def test_a_contradiction_with_its_own_document_is_refused_and_leaves_nothing(ehr: httpx.Client, store: Store) -> None:
    ehr.post("Patient", json=samples.patient())
    other = ehr.post("Patient", json=samples.patient("000009", ins=None, family="AUTRE")).json()["id"]
    refused = ehr.post("DocumentReference", json=reference(f"Patient/{other}"))
    assert code(refused) == (422, "patient-different")
    wrong = {"masterIdentifier": {"system": "urn:ietf:rfc:3986", "value": "urn:oid:1.2.3"}}
    assert code(ehr.post("DocumentReference", json=reference(None, **wrong))) == (422, "cda-identifiant")
    right = {"masterIdentifier": {"system": "urn:ietf:rfc:3986", "value": f"urn:oid:{content().document_id.root}"}}
    two = reference(None)
    two["content"] += reference(None, version(2, "1.2.3.2"))["content"]
    assert code(ehr.post("DocumentReference", json=two)) == (422, "cda-plusieurs")
    assert not rows(store)
    assert ehr.get("DocumentReference", params={"_summary": "count"}).json()["total"] == 0
    assert ehr.post("DocumentReference", json=reference(None, **right)).status_code == 201


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (CDA.replace(b"<ClinicalDocument", b'<!DOCTYPE x [<!ENTITY a "b">]><ClinicalDocument', 1), "xml-entites"),
        (
            CDA.replace(
                b"</ClinicalDocument>",
                b'<i:include xmlns:i="http://www.w3.org/2001/XInclude" href="file:///etc/passwd"/></ClinicalDocument>',
            ),
            "xml-entites",
        ),
        (CDA[:-20], "xml-malforme"),
        (CDA.replace("é".encode(), b"\xe9"), "xml-malforme"),
        (CDA.replace(b'<id root="1.2.250.1.999.77.1.20261126.1042.1"/>', b""), "cda-entete"),
    ],
    ids=["doctype", "xinclude", "cut", "latin-1", "no-identifier"],
)
@pytest.mark.parametrize("kind", ["text/xml", "application/octet-stream"])
def test_hostile_xml_is_refused_by_name(
    ehr: httpx.Client, patient: str, store: Store, data: bytes, reason: str, kind: str
) -> None:
    tree = reference(patient, data)
    tree["content"][0]["attachment"]["contentType"] = kind
    refused = ehr.post("DocumentReference", json=tree)
    assert code(refused) == (422, reason)
    assert refused.json()["issue"][0]["expression"] == ["DocumentReference.content[0].attachment"]
    assert not rows(store)


def test_xml_that_is_no_cda_is_kept_as_sent(ehr: httpx.Client, patient: str, store: Store) -> None:
    made = ehr.post("DocumentReference", json=reference(patient, b"<courrier/>"))
    assert made.status_code == 201
    assert not rows(store)
    changed = reference(patient) | {"id": made.json()["id"]}
    assert code(ehr.put(f"DocumentReference/{made.json()['id']}", json=changed)) == (409, "cle-modifiee")


def test_a_later_version_replaces_and_an_older_one_waits(ehr: httpx.Client, patient: str, store: Store) -> None:
    first = ehr.post("DocumentReference", json=reference(patient)).json()
    third = ehr.post("DocumentReference", json=reference(patient, version(3, "1.2.3.3")))
    second = ehr.post("DocumentReference", json=reference(patient, version(2, "1.2.3.2")))
    assert (waits(third.json()), waits(second.json())) == ([], ["version-perimee"])
    now = ehr.get(f"DocumentReference/{first['id']}")
    assert (now.json()["status"], now.headers["etag"]) == ("superseded", 'W/"2"')
    assert without_meta(now.json()) == without_meta(first) | {"status": "superseded"}
    assert [row.state for row in rows(store)] == ["remplace", "attache", "quarantaine"]


def test_relates_to_says_what_a_header_leaves_out(ehr: httpx.Client, patient: str, store: Store) -> None:
    first = ehr.post("DocumentReference", json=reference(patient)).json()["id"]
    pdf = n1.render(replace(content(), document_id=Identifier("1.2.3.9"), set_id=Identifier("1.2.3.10")), b"%PDF-1.4 x")
    names = {"relatesTo": [{"code": "replaces", "target": {"reference": f"DocumentReference/{first}"}}]}
    assert ehr.post("DocumentReference", json=reference(patient, pdf, **names)).status_code == 201
    assert ehr.get(f"DocumentReference/{first}").json()["status"] == "superseded"
    assert [(row.format, row.state) for row in rows(store)] == [("structure", "remplace"), ("n1", "attache")]
    other = version(2, "1.2.3.2")  # replaces the first, by its own words
    wrong = {"relatesTo": [{"code": "replaces", "target": {"reference": f"DocumentReference/{rows(store)[1].id}"}}]}
    assert code(ehr.post("DocumentReference", json=reference(patient, other, **wrong))) == (422, "cda-remplace")


def test_a_document_never_changes_and_is_withdrawn_by_its_own_sender(
    ehr: httpx.Client, patient: str, store: Store
) -> None:
    made = ehr.post("DocumentReference", json=reference(patient)).json()
    here = f"DocumentReference/{made['id']}"
    changed = reference(patient, version(2, "1.2.3.2")) | {"id": made["id"]}
    assert code(ehr.put(here, json=changed)) == (409, "cle-modifiee")
    assert ehr.delete(here).status_code == 409
    gone = ehr.put(here, json=made | {"status": "entered-in-error"})
    assert (gone.status_code, gone.json()["status"]) == (200, "entered-in-error")
    assert [row.state for row in rows(store)] == ["retire"]
    back = ehr.put(here, json=made)
    assert (back.status_code, back.json()["status"]) == (200, "entered-in-error")
    late = ehr.post("DocumentReference", json=reference(patient))
    assert code(late) == (409, "document-deja-recu")


def test_what_waits_is_withdrawn_too(ehr: httpx.Client, store: Store) -> None:
    made = ehr.post("DocumentReference", json=reference(None)).json()
    gone = ehr.put(f"DocumentReference/{made['id']}", json=made | {"status": "entered-in-error"})
    assert (gone.json()["status"], waits(gone.json())) == ("entered-in-error", [])
    assert [row.decision for row in rows(store, WorkItem)] == ["nouvelle-recue"]


def test_the_same_document_again_names_the_one_that_is_here(ehr: httpx.Client, patient: str, store: Store) -> None:
    made = ehr.post("DocumentReference", json=reference(patient)).json()
    again = ehr.post("DocumentReference", json=reference(patient))
    assert code(again) == (409, "document-deja-recu")
    assert made["id"] in again.json()["issue"][0]["details"]["text"]
    known = {"identifier": [{"system": "https://chu-x.example/ns/docs", "value": "17"}]}
    once = {"If-None-Exist": "identifier=https://chu-x.example/ns/docs|17"}
    other = reference(patient, version(2, "1.2.3.2"), **known)
    first, second = (ehr.post("DocumentReference", json=other, headers=once) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["id"] == second.json()["id"]
    minimal_answer = ehr.put(
        f"DocumentReference/{made['id']}", json=made | {"description": "x"}, headers={"Prefer": "return=minimal"}
    )
    assert (minimal_answer.status_code, minimal_answer.content) == (200, b"")


def test_sent_twice_at_once_it_is_one(ehr: httpx.Client, patient: str, store: Store) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ehr.post("DocumentReference", json=reference(patient)), range(4)))
    assert sorted(one.status_code for one in answers) == [201, 409, 409, 409]
    assert [row.state for row in rows(store)] == ["attache"]


def test_nobody_learns_of_the_documents_of_others(
    ehr: httpx.Client, clinic: httpx.Client, patient: str, store: Store
) -> None:
    first = ehr.post("DocumentReference", json=reference(patient)).json()
    alone = clinic.post("DocumentReference", json=reference(None))
    assert (alone.status_code, waits(alone.json())) == (201, ["document-patient-inconnu"])
    theirs = clinic.post("Patient", json=samples.patient("77", domain="https://z.example/ipp")).json()["id"]
    attached = clinic.put(f"DocumentReference/{alone.json()['id']}", json=alone.json())
    assert (attached.status_code, waits(attached.json())) == (200, [])
    clinic.post("DocumentReference", json=reference(None, version(2, "1.2.3.2")))
    assert ehr.get(f"DocumentReference/{first['id']}").json()["status"] == "current"
    assert [(row.state, f"Patient/{row.record_id}") for row in rows(store)] == [
        ("attache", patient),
        ("remplace", f"Patient/{theirs}"),
        ("attache", f"Patient/{theirs}"),
    ]


def test_a_patient_of_whom_a_document_came_is_not_deleted(ehr: httpx.Client, patient: str, store: Store) -> None:
    assert ehr.post("DocumentReference", json=reference(None)).status_code == 201
    assert code(ehr.delete(patient)) == (409, "patient-utilise")
    assert f"Patient/{rows(store)[0].record_id}" == patient


def mailed(served: Served, store: Store, blobs: Any) -> None:
    """The same document, by mail."""
    made = EmailMessage(policy=SMTP)
    sender = "dpi@clinique-exemple.mssante.fr"
    made["From"], made["To"], made["Return-Path"] = sender, "rcp@3c.mssante.fr", f"<{sender}>"
    made["Message-ID"], made["Subject"] = "<un@clinique-exemple.mssante.fr>", "XDM/1.0/DDM+Document"
    made.set_content("Un document.")
    archive = xdm_samples.zipped(xdm_samples.valid())
    made.add_attachment(archive, maintype="application", subtype="zip", filename="IHE_XDM.zip")
    intake = MailIntake(served.steps, address="rcp@3c.mssante.fr", blobs=blobs)
    intake.attach(Inbox(store, blobs, [intake]))
    intake.keep(Fetched(7, 1, made.as_bytes(), 1))


def test_a_document_that_was_mailed_is_read_with_its_bytes(
    ehr: httpx.Client, home: httpx.Client, clinic: httpx.Client, patient: str, served: Served, store: Store, blobs: Any
) -> None:
    mailed(served, store, blobs)
    [row] = rows(store)
    said = ehr.get(f"DocumentReference/{row.id}").json()
    attachment = said["content"][0]["attachment"]
    assert (said["subject"]["reference"], said["author"]) == (patient, [{"display": "Claire MERCIER"}])
    assert attachment["url"] == f"Binary/{row.id}"
    raw = ehr.get(attachment["url"], headers=XML)
    assert (raw.content, raw.headers["content-type"]) == (CDA, "text/xml")
    assert b64decode(ehr.get(attachment["url"]).json()["data"]) == CDA
    assert b64decode(attachment["hash"]) == hashlib.sha1(CDA, usedforsecurity=False).digest()
    found = ehr.get("DocumentReference", params={"patient": patient, "type": "http://loinc.org|34794-8"}).json()
    assert [one["resource"]["id"] for one in found["entry"]] == [str(row.id)]
    for one in (home, clinic):
        assert one.get(f"DocumentReference/{row.id}").status_code == 404
        assert one.get(attachment["url"], headers=XML).status_code == 404
    assert code(ehr.put(f"DocumentReference/{row.id}", json=said)) == (403, "proprietaire")
    assert code(ehr.post("DocumentReference", json=reference(patient))) == (409, "document-deja-recu")
    assert [one.state for one in rows(store)] == ["attache"]
