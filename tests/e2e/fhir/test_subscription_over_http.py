"""Subscription over real HTTP: what may be asked for, what is kept, and that nobody is promised a delivery.

The two samples are the national ones (`fhir-examples`), copied by hand from spec fhir-fr 1.26.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from gateway.model.partner import Partner
from gateway.model.store import Store
from tests.e2e.fhir.conftest import ALL_SCOPES, Hospital
from tests.world import World

BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition"
SECRET = "Bearer 8f0c-tres-secret"
TOPIC: dict[str, Any] = {
    "resourceType": "Subscription",
    "meta": {"profile": [f"{BACKPORT}/backport-subscription"]},
    "status": "requested",
    "end": "2026-12-31T23:59:00+01:00",
    "reason": "Suivi par la passerelle B des dossiers inscrits à la RCP Sénologie A",
    "criteria": "https://rcp.example.org/fhir/SubscriptionTopic/rcp-dossier",
    "_criteria": {
        "extension": [
            {
                "url": f"{BACKPORT}/backport-filter-criteria",
                "valueString": "Task?owner:identifier=https://gw.dcc-a.example/ns/organisation|3c-a",
            }
        ]
    },
    "contact": [{"system": "email", "value": "exploitation@dcc-b.example"}],
    "channel": {
        "extension": [{"url": f"{BACKPORT}/backport-heartbeat-period", "valueUnsignedInt": 86400}],
        "type": "rest-hook",
        "endpoint": "https://gw.dcc-b.example/fhir/$rcp-notification",
        "payload": "application/fhir+json",
        "_payload": {"extension": [{"url": f"{BACKPORT}/backport-payload-content", "valueCode": "id-only"}]},
        "header": [f"Authorization: {SECRET}"],
    },
}
SEARCH: dict[str, Any] = {
    "resourceType": "Subscription",
    "status": "requested",
    "end": "2027-03-09T09:30:00+01:00",
    "reason": "Suivi du patient",
    "criteria": "CommunicationRequest?event-type=SOR",
    "channel": {
        "type": "rest-hook",
        "endpoint": "https://gw.dcc-b.example/hook/nde",
        "payload": "application/fhir+json",
    },
}
#: What R4 keeps for the server to say, and ours.
SERVERS = {"id", "meta", "status", "error"}


def _code(answer: httpx.Response) -> str:
    return str(answer.json()["issue"][0]["details"]["coding"][0]["code"])


def _with(tree: dict[str, Any], **channel: Any) -> dict[str, Any]:
    changed = copy.deepcopy(tree)
    changed["channel"] |= channel
    return {name: value for name, value in changed.items() if value is not None}


@pytest.fixture
def ehr(world: World, admit: Callable[..., Hospital]) -> Iterator[httpx.Client]:
    with admit(world.partner, scopes=ALL_SCOPES).client() as client:
        yield client


@pytest.mark.parametrize("sent", [TOPIC, SEARCH], ids=["topic", "search"])
def test_what_is_asked_for_is_kept_and_says_that_nothing_is_delivered(ehr: httpx.Client, sent: dict[str, Any]) -> None:
    made = ehr.post("Subscription", json=sent)
    assert made.status_code == 201, made.text
    read = ehr.get(f"Subscription/{made.json()['id']}")
    tree = read.json()
    assert tree == made.json()
    assert tree["status"] == "off"
    assert "ne délivre pas" in tree["error"]
    said = {name: value for name, value in tree.items() if name not in SERVERS}
    expected = {name: value for name, value in copy.deepcopy(sent).items() if name not in SERVERS}
    if "header" in expected["channel"]:
        expected["channel"]["header"] = ["Authorization: ***"]
    assert said == expected
    assert tree["meta"].get("profile") == sent.get("meta", {}).get("profile")
    # Asked for again, as it was sent or as it was read: the same, no new version.
    for again in (sent, tree):
        put = ehr.put(f"Subscription/{tree['id']}", json=again | {"id": tree["id"]})
        assert (put.status_code, put.headers["etag"]) == (200, 'W/"1"'), put.text
    assert ehr.get("Subscription?status=active").json()["total"] == 0
    # Its end, and gone.
    ended = ehr.put(f"Subscription/{tree['id']}", json=sent | {"id": tree["id"], "status": "off", "reason": "Fini"})
    assert (ended.status_code, ended.json()["status"], ended.json()["reason"]) == (200, "off", "Fini")
    assert "error" not in ended.json()
    assert ehr.delete(f"Subscription/{tree['id']}").status_code == 204
    assert ehr.get(f"Subscription/{tree['id']}").status_code == 410


def test_a_secret_is_nowhere_to_be_read(ehr: httpx.Client, store: Store) -> None:
    key = ehr.post("Subscription", json=TOPIC).json()["id"]
    lower = _with(TOPIC, header=["X-API-Key:tres-secret-aussi", "tres-secret-sans-nom"])
    put = ehr.put(f"Subscription/{key}", json=lower | {"id": key})
    assert put.json()["channel"]["header"] == ["X-API-Key: ***", "***"]
    patch = [{"op": "replace", "path": "/channel/header/0", "value": "Authorization: tres-secret"}]
    assert ehr.patch(
        f"Subscription/{key}", json=patch, headers={"Content-Type": "application/json-patch+json"}
    ).is_success
    for here in (
        f"Subscription/{key}",
        f"Subscription/{key}/_history",
        "Subscription",
        f"Subscription/{key}?_format=xml",
    ):
        answer = ehr.get(here)
        assert answer.status_code == 200
        assert "secret" not in answer.text, here
    with store.session() as session:
        row = session.connection().exec_driver_sql(
            "SELECT count(*) FROM fhir_subscription AS s WHERE s::text LIKE %s OR position(%s::bytea IN s.body) > 0",
            ("%secret%", b"secret"),
        )
        assert row.scalar() == 0


REFUSED: list[tuple[dict[str, Any], str]] = [
    # Only a server that delivers says so.
    (SEARCH | {"status": "active"}, "abonnement-statut"),
    (SEARCH | {"status": "error"}, "abonnement-statut"),
    # Channels.
    (_with(SEARCH, type="websocket"), "abonnement-canal"),
    (_with(SEARCH, type="sms", endpoint="tel:+33102030405"), "abonnement-canal"),
    (_with(SEARCH, type="message"), "abonnement-canal"),
    *(
        (_with(SEARCH, endpoint=endpoint), "abonnement-adresse")
        for endpoint in (
            "http://gw.dcc-b.example/hook",
            "ftp://gw.dcc-b.example/hook",
            "file:///etc/passwd",
            "https://",
            "https:///hook",
            "gw.dcc-b.example/hook",
            "https://localhost/hook",
            "https://127.0.0.1/hook",
            "https://127.1/hook",
            "https://2130706433/hook",
            "https://0x7f.0.0.1/hook",
            "https://10.1.2.3/hook",
            "https://169.254.169.254/latest/meta-data",
            "https://192.168.1.1:8443/hook",
            "https://[::1]/hook",
            "https://[::ffff:127.0.0.1]/hook",
            "https://[fe80::1]/hook",
            "https://[::1/hook",
            "https://pacs.local/hook",
            "https://gateway.internal/hook",
            "https://serveur/hook",
            "https://user:motdepasse@gw.dcc-b.example/hook",
            "https://user@gw.dcc-b.example/hook",
            "https://gw.dcc-b.example:99999/hook",
            "mailto:dsi@dcc-b.example",
        )
    ),
    (_with(SEARCH, type="email", endpoint="https://gw.dcc-b.example/hook"), "abonnement-adresse"),
    (_with(SEARCH, type="email", endpoint="mailto:dsi@localhost"), "abonnement-adresse"),
    (_with(SEARCH, type="email", endpoint="mailto:dsi@dcc-b.example?bcc=x@y.example"), "abonnement-adresse"),
    ({**SEARCH, "channel": {"type": "rest-hook"}}, "abonnement-adresse"),
    (_with(SEARCH, payload="text/html"), "abonnement-contenu"),
    # Criteria.
    *(
        (SEARCH | {"criteria": criteria}, "abonnement-criteres")
        for criteria in (
            "Chien?nom=x",
            "Binary?_id=x",
            "AuditEvent?date=ge2026",
            "Patient?couleur=bleu",
            "Patient?birthdate=hier",
            "Patient?name:soundex=x",
            "Patient?_count=3",
            "Patient?",
            "Observation?subject:Patient.couleur=x",
            "https://ailleurs.example/SubscriptionTopic/autre",
        )
    ),
    (
        TOPIC
        | {
            "_criteria": {
                "extension": [{"url": f"{BACKPORT}/backport-filter-criteria", "valueString": "Task?couleur=bleu"}]
            }
        },
        "abonnement-criteres",
    ),
    (
        TOPIC
        | {
            "_criteria": {
                "extension": [{"url": f"{BACKPORT}/backport-filter-criteria", "valueString": "Task?status=draft"}] * 21
            }
        },
        "abonnement-criteres",
    ),
]


@pytest.mark.parametrize(("tree", "code"), REFUSED)
def test_what_is_not_offered_is_refused_by_its_name(ehr: httpx.Client, tree: dict[str, Any], code: str) -> None:
    refused = ehr.post("Subscription", json=tree)
    assert (refused.status_code, _code(refused)) == (422, code), refused.text
    assert refused.json()["issue"][0]["expression"][0].startswith("Subscription.")
    for content in ("couleur=bleu", "motdepasse", "169.254", "hier"):
        assert content not in refused.text


def test_what_is_offered_is_taken(ehr: httpx.Client) -> None:
    for tree in (
        _with(SEARCH, type="email", endpoint="mailto:dsi@dcc-b.example", payload="text/plain"),
        _with(SEARCH, payload="application/fhir+json; charset=utf-8"),
        _with(SEARCH, endpoint="https://gw.dcc-b.example:8443/hook?site=1"),
        _with(SEARCH, endpoint="https://93.184.215.14/hook"),
        SEARCH | {"criteria": "Patient"},
        SEARCH | {"criteria": "Observation?subject:Patient.family=x&code=http://loinc.org|718-7"},
        TOPIC | {"criteria": "https://rcp.example.org/fhir/SubscriptionTopic/rcp-session"},
        TOPIC | {"criteria": "https://rcp.example.org/fhir/SubscriptionTopic/rcp-document|1.0"},
    ):
        made = ehr.post("Subscription", json=tree)
        assert made.status_code == 201, made.text


def test_r5s_subscription_is_refused(ehr: httpx.Client) -> None:
    r5 = {"resourceType": "Subscription", "status": "requested", "topic": "https://x.example/t", "content": "id-only"}
    refused = ehr.post("Subscription", json=r5)
    assert refused.status_code == 400
    assert _code(refused) in {"element-inconnu", "element-obligatoire"}


def test_it_is_found_by_what_r4_defines(ehr: httpx.Client) -> None:
    topic = ehr.post("Subscription", json=TOPIC).json()["id"]
    search = ehr.post("Subscription", json=SEARCH).json()["id"]
    for question, found in {
        "status=off": {topic, search},
        "status=http://hl7.org/fhir/subscription-status|off": {topic, search},
        "status=requested": set(),
        "criteria=communicationrequest": {search},
        "criteria:contains=rcp-dossier": {topic},
        "url=https://gw.dcc-b.example/hook/nde": {search},
        "type=rest-hook": {topic, search},
        "payload=application/fhir%2Bjson": {topic, search},
        "contact=exploitation@dcc-b.example": {topic},
    }.items():
        answer = ehr.get(f"Subscription?{question}")
        assert answer.status_code == 200, answer.text
        assert {entry["resource"]["id"] for entry in answer.json().get("entry", [])} == found, question


def test_a_client_asks_only_for_what_it_may_read_and_sees_only_its_own(
    store: Store, world: World, admit: Callable[..., Hospital], ehr: httpx.Client
) -> None:
    key = ehr.post("Subscription", json=SEARCH).json()["id"]
    with store.session() as session:
        other = Partner(name="Clinique Z", finess="750000026", patient_domains=["https://z.example/ipp"])
        session.add(other)
        session.commit()
    with admit(other, scopes=ALL_SCOPES).client() as stranger:
        assert stranger.get(f"Subscription/{key}").status_code == 404
        assert stranger.get("Subscription").json()["total"] == 0
        stranger.delete(f"Subscription/{key}")
        assert ehr.get(f"Subscription/{key}").status_code == 200
    narrow = "system/Subscription.cruds system/Patient.rs system/Task.s"
    with admit(world.partner, scopes=narrow).client(scope=narrow) as client:
        assert client.post("Subscription", json=SEARCH | {"criteria": "Patient?active=true"}).status_code == 201
        for tree in (SEARCH, TOPIC):  # CommunicationRequest at all; Task to be read
            refused = client.post("Subscription", json=tree)
            assert (refused.status_code, _code(refused)) == (403, "portee-insuffisante"), refused.text


def test_in_a_transaction_the_same_rules_hold(ehr: httpx.Client) -> None:
    def bundle(tree: dict[str, Any]) -> dict[str, Any]:
        entry = {"resource": tree, "request": {"method": "POST", "url": "Subscription"}}
        return {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}

    made = ehr.post("", json=bundle(TOPIC))
    assert made.status_code == 200, made.text
    assert "secret" not in made.text
    refused = ehr.post("", json=bundle(SEARCH | {"status": "active"}))
    assert (refused.status_code, _code(refused)) == (422, "abonnement-statut")
