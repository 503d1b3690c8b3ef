"""Subscriptions that are delivered: a study settles, and the server of who subscribed hears it, once.

The gateway is the composed one; what is sent arrives at a server of the standard library, and its form is held against
the national example (Bundle-notification-r4, spec fhir-fr 1.26) and `fhir.resources`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from fhir.resources.R4B.basic import Basic
from fhir.resources.R4B.bundle import Bundle
from sqlalchemy import func, select, update

from gateway.app import components
from gateway.app.gateway import Gateway, open_gateway
from gateway.app.http import application
from gateway.app.subscribing import subscribing
from gateway.errors import GatewayError
from gateway.exchange.jobs import Worker
from gateway.fhir import fair_share, subscribers, telling, write_subscription
from gateway.model.imaging import Instance, Study
from gateway.model.message import Attempt, Message
from gateway.model.partner import Partner, PartnerCredential
from gateway.model.person import WorkItem
from gateway.model.store import Store, utcnow
from gateway.model.subscription import Happening, Subscription, SubscriptionEvent
from gateway.portal.error_box import item_page
from gateway.rcp import imaging, registry
from gateway.rcp.access import SYSTEM
from gateway.settings import Settings, load
from gateway.web import background
from tests.e2e.fhir.conftest import ALL_SCOPES, Hospital, Served
from tests.e2e.fhir.subscriber import TOPIC, Arrived, Subscriber, certified, listening, nobody, subscription
from tests.image_samples import STUDY, facts, send
from tests.loopback import free_port, until
from tests.properties.crashing import killed_before_line
from tests.world import World, audit_lines

OTHER = f"{STUDY}.77"


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    port = free_port()
    return load(
        {
            "RCP_DATABASE_URL": database_url,
            "RCP_DATA_DIR": str(tmp_path / "gateway"),
            "RCP_HTTP_BIND": f"127.0.0.1:{port}",
            "RCP_PUBLIC_URL": f"http://127.0.0.1:{port}",
            "RCP_FHIR_UPDATE_CREATE": "on",
            "RCP_LIMIT_SEARCH_SECONDS": "300",
        }
    )


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine any filter takes long: what is costly is said by the tests that are about it."""
    monkeypatch.setattr(fair_share, "_SHARE_S", 600.0)
    monkeypatch.setattr(telling, "_COSTLY_S", 600.0)
    monkeypatch.setattr(telling, "_FILTER_S", 60.0)


@pytest.fixture
def gateway(settings: Settings) -> Iterator[Gateway]:
    with open_gateway(settings) as opened:
        yield opened


@pytest.fixture
def served(gateway: Gateway) -> Iterator[Served]:
    app = application(gateway)
    with background.served(app, port=gateway.settings.http_bind.port):
        yield Served(gateway.settings.public_url, gateway.steps, gateway.store, app)


@pytest.fixture
def subscriber() -> Iterator[Subscriber]:
    with listening() as one:
        yield one


@pytest.fixture
def world(world: World) -> World:
    world.dossier(world.record(value="000003"))
    world.session.commit()
    return world


@pytest.fixture
def ehr(world: World, admit: Callable[..., Hospital]) -> Iterator[httpx.Client]:
    with admit(world.partner, scopes=ALL_SCOPES).client() as client:
        yield client


@dataclass
class Work:
    """The worker's own work, done when the test says so."""

    gateway: Gateway

    def deliver(self) -> None:
        """Deliver what is due."""
        deliveries = components._deliveries(self.gateway)
        deliveries.sweep()
        Worker(self.gateway.store, deliveries.attempt).drain()

    def tell(self) -> int:
        return telling.tell_due(self.gateway.steps, subscribing(self.gateway))

    def keep_up(self) -> int:
        return telling.keep_up(self.gateway.steps, subscribing(self.gateway))

    def settle(self) -> None:
        """Let ten seconds pass without an object."""
        with self.gateway.store.session() as session:
            long_ago = utcnow() - timedelta(seconds=11)
            session.execute(update(Study).where(Study.settled_at.is_(None)).values(last_instance_at=long_ago))
            session.execute(update(Instance).values(received_at=long_ago))
            session.commit()
        imaging.settle(self.gateway.steps)

    def all(self) -> None:
        self.settle()
        self.tell()
        self.deliver()

    def later(self) -> None:
        """Let the pause of what waits pass, and deliver."""
        with self.gateway.store.session() as session:
            session.execute(update(Message).where(Message.state == "en-attente").values(not_before=utcnow()))
            session.commit()
        self.deliver()


@pytest.fixture
def work(gateway: Gateway) -> Work:
    return Work(gateway)


@pytest.fixture
def subscribe(ehr: httpx.Client, work: Work) -> Callable[..., dict[str, Any]]:
    """Register a subscription and let its endpoint answer."""

    def make(tree: dict[str, Any], state: str = "active") -> dict[str, Any]:
        made = ehr.post("Subscription", json=tree)
        assert made.status_code == 201, made.text
        assert made.json()["status"] == "requested"
        work.deliver()
        read = ehr.get(f"Subscription/{made.json()['id']}").json()
        assert read["status"] == state, read
        return read

    return make


def grown(gateway: Gateway, world: World, *numbers: int, study: str = STUDY) -> None:
    for number in numbers or (1,):
        assert send(gateway.steps, world, facts(number, study=study)) is None


def study_of(gateway: Gateway, uid: str = STUDY) -> str:
    with gateway.store.session() as session:
        return str(session.scalars(select(Study.id).where(Study.study_instance_uid == uid)).one())


# What is told


def test_a_topic_is_published_and_the_statement_names_it(ehr: httpx.Client) -> None:
    found = ehr.get("Basic?code=http://hl7.org/fhir/fhir-types|SubscriptionTopic").json()
    [basic] = [entry["resource"] for entry in found["entry"]]
    Basic.model_validate({name: value for name, value in basic.items() if name != "meta"})
    said = {one["url"].rpartition(".")[2]: one for one in basic["extension"]}
    assert said["url"]["valueUri"] == TOPIC
    assert "SubscriptionTopic.status" in basic["modifierExtension"][0]["url"]
    filters = [
        part["valueString"]
        for one in basic["extension"]
        if one["url"].endswith("canFilterBy")
        for part in one["extension"]
        if part["url"] == "filterParameter"
    ]
    assert "patient" in filters
    refused = ehr.put(f"Basic/{basic['id']}", json=basic)
    assert refused.status_code == 403
    statement = ehr.get("metadata").json()
    [offered] = [one for one in statement["rest"][0]["resource"] if one["type"] == "Subscription"]
    assert [one["valueCanonical"] for one in offered["extension"]] == [TOPIC]
    assert {one["name"] for one in offered["operation"]} >= {"status", "events"}


def test_a_settled_study_is_told_once_to_who_subscribed(
    gateway: Gateway, world: World, ehr: httpx.Client, subscriber: Subscriber, subscribe: Any, work: Work
) -> None:
    made = subscribe(subscription(subscriber.url, header=["Authorization: Bearer secret-du-pair"]))
    [handshake] = subscriber.arrived
    assert handshake.said["type"] == "handshake"
    assert handshake.said["events-since-subscription-start"] == "0"
    assert handshake.headers["Authorization"] == "Bearer secret-du-pair"
    assert handshake.headers["Content-Type"].startswith("application/fhir+json")
    assert "secret" not in ehr.get(f"Subscription/{made['id']}").text
    grown(gateway, world, 1, 2)
    work.tell()
    work.deliver()
    assert subscriber.events() == []  # it grows
    for _ in range(3):
        work.all()
    [told] = subscriber.events()
    base = f"{gateway.settings.public_url}/fhir"
    here = f"{base}/Subscription/{made['id']}"
    focus = f"{base}/ImagingStudy/{study_of(gateway)}"
    assert told.said | {"events": None} == {
        "subscription": here,
        "topic": TOPIC,
        "status": "active",
        "type": "event-notification",
        "events-since-subscription-start": "1",
        "events": None,
    }
    [event] = told.said["events"]
    assert (event["event-number"], event["focus"]) == ("1", focus)
    assert {"timestamp"} < set(event)
    # The form of the national example: a history whose first entry asks for $status; then the focus without content.
    assert told.tree["type"] == "history"
    first, second = told.tree["entry"]
    assert first["request"] == {"method": "GET", "url": f"{here}/$status"}
    assert second == {
        "fullUrl": focus,
        "request": {"method": "PUT", "url": focus.removeprefix(base + "/")},
        "response": {"status": "200"},
    }
    Bundle.model_validate(told.tree)
    for secret in (b"PAT-TROIS", b"DOMINIQUE", b"1979", b"000003"):
        assert secret not in told.body
    # The client reads the focus with its own token.
    read = ehr.get(focus)
    assert read.json()["numberOfInstances"] == 2
    # It grows again: another event.
    grown(gateway, world, 3)
    work.all()
    assert [one.said["events"][0]["event-number"] for one in subscriber.events()] == ["1", "2"]
    status = ehr.get(f"Subscription/{made['id']}/$status").json()
    assert status["type"] == "searchset"
    parameters = {one["name"]: one for one in status["entry"][0]["resource"]["parameter"]}
    assert parameters["type"]["valueCode"] == "query-status"
    assert parameters["status"]["valueCode"] == "active"
    assert parameters["events-since-subscription-start"]["valueString"] == "2"
    with gateway.store.session() as session:
        assert session.scalar(select(func.count()).select_from(Happening)) == 0


def test_contents_are_empty_or_whole_as_asked_for(
    gateway: Gateway, world: World, subscriber: Subscriber, subscribe: Any, work: Work
) -> None:
    subscribe(subscription(subscriber.url + "/vide", content="empty"))
    subscribe(subscription(subscriber.url + "/tout", content="full-resource"))
    grown(gateway, world, 1)
    work.all()
    by_path = {one.path.rpartition("/")[2]: one for one in subscriber.events()}
    empty, full = by_path["vide"], by_path["tout"]
    assert len(empty.tree["entry"]) == 1
    assert set(empty.said["events"][0]) == {"event-number", "timestamp"}
    assert study_of(gateway).encode() not in empty.body
    resource = full.tree["entry"][1]["resource"]
    assert (resource["resourceType"], resource["numberOfInstances"]) == ("ImagingStudy", 1)
    assert any(one["url"].endswith("/etude-complete") for one in resource["extension"])
    Bundle.model_validate(full.tree)
    # A content that left is in the trail, with whose it was.
    with gateway.store.session() as session:
        lines = [one for one in audit_lines(session) if (one.get("detail") or {}).get("service") == "Subscription"]
        assert len(lines) == 1
        assert lines[0]["persons"]


def test_xml_is_sent_to_who_asked_for_it(
    gateway: Gateway, world: World, subscriber: Subscriber, subscribe: Any, work: Work
) -> None:
    tree = subscription(subscriber.url, payload="application/fhir+xml")
    subscribe(tree)
    grown(gateway, world, 1)
    work.all()
    handshake, told = subscriber.arrived
    for one in (handshake, told):
        assert one.headers["Content-Type"].startswith("application/fhir+xml")
        assert b'<Bundle xmlns="http://hl7.org/fhir">' in one.body
    assert b'<valueString value="1"/>' in told.body


def test_filters_narrow_what_is_told(
    gateway: Gateway, world: World, ehr: httpx.Client, subscriber: Subscriber, subscribe: Any, work: Work
) -> None:
    world.dossier(world.record(value="000004"))
    world.session.commit()
    grown(gateway, world, 1)
    work.settle()
    work.tell()
    patient = ehr.get("ImagingStudy").json()["entry"][0]["resource"]["subject"]["reference"].partition("/")[2]
    subscribe(subscription(subscriber.url + "/lui", f"ImagingStudy?patient=Patient/{patient}"))
    subscribe(subscription(subscriber.url + "/scanner", "ImagingStudy?modality=CT"))
    subscribe(subscription(subscriber.url + "/irm", "ImagingStudy?modality=MR"))
    subscribe(subscription(subscriber.url + "/les-deux", f"ImagingStudy?patient={patient}", "ImagingStudy?modality=MR"))
    subscribe(
        subscription(
            subscriber.url + "/ipp", "ImagingStudy?patient.identifier=https://chu-x.example/ns/ipp|000003&modality=CT"
        )
    )
    grown(gateway, world, 2)
    said = facts(1, study=OTHER, patient="000004")
    assert send(gateway.steps, world, said) is None
    work.all()
    work.later()  # the second of two at once waits for its turn
    heard = sorted(one.path.rpartition("/")[2] for one in subscriber.events())
    assert heard == ["ipp", "lui", "scanner", "scanner"]


HOSTILE = [
    "ImagingStudy",
    "ImagingStudy?",
    "Patient?family=x",
    "ImagingStudy?_has:Observation:derived-from:code=x",
    "ImagingStudy?patient._has:Observation:subject:code=x",
    "ImagingStudy?_lastUpdated=gt2026",
    "ImagingStudy?_content=secret",
    "ImagingStudy?patient=x'%3B%20DROP%20TABLE%20message",
    "ImagingStudy?modality=CT&_count=5",
    "ImagingStudy?modality=%00",
    "ImagingStudy?series.uid=1",
    "//etc/passwd",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_criteria_are_refused_or_find_nothing(
    ehr: httpx.Client, subscriber: Subscriber, hostile: str, gateway: Gateway, world: World, work: Work
) -> None:
    made = ehr.post("Subscription", json=subscription(subscriber.url, hostile))
    if made.status_code == 201:  # a value that is only odd
        work.deliver()
        grown(gateway, world, 1)
        work.all()
        assert subscriber.events() == []
    else:
        assert made.status_code == 422, made.text
        assert made.json()["issue"][0]["details"]["coding"][0]["code"] == "abonnement-criteres"
        for content in ("DROP", "secret", "passwd"):
            assert content not in made.text


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"header": ["Authorization: a\r\nHost: evil"]}, "abonnement-entete"),
        ({"header": ["Host: evil.example"]}, "abonnement-entete"),
        ({"header": ["Content-Length: 0"]}, "abonnement-entete"),
        ({"header": ["Transfer-Encoding: chunked"]}, "abonnement-entete"),
        ({"header": ["tres-secret-sans-nom"]}, "abonnement-entete"),
        ({"header": ["X: é"]}, "abonnement-entete"),
        ({"header": ["X: " + "a" * 5000]}, "abonnement-entete"),
        ({"header": ["Authorization: ***"]}, "abonnement-entete"),
        ({"header": ["X-1: a"] * 11}, "abonnement-entete"),
        ({"endpoint": "http://127.0.0.1:0/hook"}, "abonnement-adresse"),
        ({"endpoint": "http://127.0.0.1\\@evil.example/"}, "abonnement-adresse"),
        ({"endpoint": "http://a@127.0.0.1/"}, "abonnement-adresse"),
        ({"endpoint": "http://10.0.0.1/"}, "abonnement-adresse"),
        ({"endpoint": "https://10.0.0.1/"}, "abonnement-adresse"),
        ({"endpoint": "http://gw.dcc-b.example/hook"}, "abonnement-adresse"),
        ({"endpoint": "https://[64:ff9b::7f00:1]/"}, "abonnement-adresse"),
        ({"endpoint": "https://[2002:7f00:1::]/"}, "abonnement-adresse"),
        ({"endpoint": "https://224.0.0.1/"}, "abonnement-adresse"),
    ],
)
def test_hostile_channels_are_refused_without_an_echo(
    ehr: httpx.Client, changed: dict[str, Any], code: str, gateway: Gateway
) -> None:
    refused = ehr.post("Subscription", json=subscription(**{"endpoint": "http://127.0.0.1:9/"} | changed))
    assert refused.status_code == 422, refused.text
    assert refused.json()["issue"][0]["details"]["coding"][0]["code"] == code
    assert "evil" not in refused.text
    assert "secret" not in refused.text
    with gateway.store.session() as session:
        assert session.scalar(select(func.count()).select_from(Message)) == 0


# How it is kept up


def test_what_is_read_may_be_sent_back_and_an_end_ends_it(
    gateway: Gateway, world: World, ehr: httpx.Client, subscriber: Subscriber, subscribe: Any, work: Work
) -> None:
    sent = subscription(subscriber.url, header=["Authorization: Bearer tres-secret"])
    made = subscribe(sent)
    here = f"Subscription/{made['id']}"
    # As it was sent, and as it was read: nothing new is asked, and no second handshake.
    for again in (sent, made):
        put = ehr.put(here, json=again | {"id": made["id"]})
        assert (put.status_code, put.json()["status"], put.headers["etag"]) == (200, "active", 'W/"2"'), put.text
    patch = [{"op": "replace", "path": "/reason", "value": "Autre raison"}]
    patched = ehr.patch(here, json=patch, headers={"Content-Type": "application/json-patch+json"})
    assert (patched.status_code, patched.json()["status"]) == (200, "active"), patched.text
    work.deliver()
    assert len(subscriber.arrived) == 1
    with gateway.store.session() as session:
        [kept] = session.scalars(select(Subscription))
        assert "secret" not in (kept.headers or "")
        assert "tres-secret" not in json.dumps([str(row) for row in session.execute(select(Message.details))])
    # Another address is another handshake; the secret does not go along.
    moved = {**made, "channel": {**made["channel"], "endpoint": subscriber.url + "/ailleurs"}}
    refused = ehr.put(here, json=moved)
    assert refused.status_code == 422, refused.text
    moved["channel"] = {name: value for name, value in moved["channel"].items() if name != "header"}
    again = ehr.put(here, json=moved)
    assert (again.status_code, again.json()["status"]) == (200, "requested"), again.text
    work.deliver()
    assert subscriber.arrived[-1].path.endswith("/ailleurs")
    assert "Authorization" not in subscriber.arrived[-1].headers
    # It ends, as its client says; nothing is told any more.
    off = ehr.put(here, json=moved | {"status": "off"})
    assert off.json()["status"] == "off"
    grown(gateway, world, 1)
    work.all()
    assert subscriber.events() == []
    # And once more.
    on = ehr.put(here, json=moved | {"status": "requested"})
    assert on.json()["status"] == "requested"
    work.deliver()
    grown(gateway, world, 2)
    work.all()
    [told] = subscriber.events()
    assert told.said["events"][0]["event-number"] == "1"
    # Deleted: silence.
    assert ehr.delete(here).status_code == 204
    grown(gateway, world, 3)
    work.all()
    work.keep_up()
    assert len(subscriber.events()) == 1
    with gateway.store.session() as session:
        assert session.scalars(select(Subscription.state)).one() == "off"


def test_an_id_that_comes_back_is_another_subscription(
    gateway: Gateway, world: World, ehr: httpx.Client, subscriber: Subscriber, subscribe: Any, work: Work
) -> None:
    made = subscribe(subscription(subscriber.url, header=["X-Api-Key: un", "X-Api-Key: deux"]))
    here = f"Subscription/{made['id']}"
    assert ehr.put(here, json=made).headers["etag"] == 'W/"2"'  # both come back as they were
    grown(gateway, world, 1)
    work.all()
    assert ehr.delete(here).status_code == 204
    assert ehr.get(f"{here}/$events").status_code == 410
    masked = ehr.put(here, json=made | {"status": "requested"})
    assert masked.status_code == 422, masked.text  # no secret outlives its subscription
    again = ehr.put(here, json=subscription(subscriber.url) | {"id": made["id"]})
    assert (again.status_code, again.json()["status"]) == (201, "requested"), again.text
    work.deliver()
    assert subscriber.arrived[-1].said["events-since-subscription-start"] == "0"
    assert "X-Api-Key" not in subscriber.arrived[-1].headers
    grown(gateway, world, 2)
    work.all()
    assert [one.said["events"][0]["event-number"] for one in subscriber.events()] == ["1", "1"]


def test_a_partner_has_so_many_subscriptions(
    ehr: httpx.Client, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_subscription, "_OF_ONE_PARTNER", 2)
    made = [ehr.post("Subscription", json=subscription(subscriber.url)) for _ in range(3)]
    assert [one.status_code for one in made] == [201, 201, 422]
    assert made[2].json()["issue"][0]["details"]["coding"][0]["code"] == "abonnement-limite"
    assert "2" in made[2].json()["issue"][0]["details"]["text"]
    ended = subscription(subscriber.url) | {"id": made[0].json()["id"], "status": "off"}
    assert ehr.put(f"Subscription/{ended['id']}", json=ended).is_success
    assert ehr.post("Subscription", json=subscription(subscriber.url)).status_code == 201


def test_an_end_that_passes_turns_it_off(
    gateway: Gateway, world: World, ehr: httpx.Client, subscriber: Subscriber, subscribe: Any, work: Work
) -> None:
    made = subscribe(subscription(subscriber.url) | {"end": "2999-01-01T00:00:00Z"})
    past = ehr.post("Subscription", json=subscription(subscriber.url) | {"end": "2020-01-01T00:00:00Z"}).json()
    assert past["status"] == "off"
    with gateway.store.session() as session:
        session.execute(update(Subscription).values(ends_at=utcnow() - timedelta(seconds=1)))
        session.commit()
    grown(gateway, world, 1)
    work.all()
    assert work.keep_up() == 1
    assert subscriber.events() == []
    assert ehr.get(f"Subscription/{made['id']}").json()["status"] == "off"
    for odd in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2016-12-31T23:59:60Z"):
        answer = ehr.post("Subscription", json=subscription(subscriber.url) | {"end": odd})
        assert answer.status_code in {201, 400}, answer.text
    work.deliver()
    work.keep_up()


def test_who_is_silent_is_told_that_we_are_here(
    gateway: Gateway, subscriber: Subscriber, subscribe: Any, ehr: httpx.Client, work: Work
) -> None:
    period = {"extension": [{"url": _backport("heartbeat-period"), "valueUnsignedInt": 60}]}
    subscribe(subscription(subscriber.url, **period))
    assert work.keep_up() == 0
    with gateway.store.session() as session:
        session.execute(update(Subscription).values(posted_at=utcnow() - timedelta(seconds=61)))
        session.commit()
    assert [work.keep_up(), work.keep_up()] == [1, 0]
    work.deliver()
    _, beat = subscriber.arrived
    assert (beat.said["type"], beat.said["events"]) == ("heartbeat", [])
    for wrong in (1, 59, 4_000_000):
        extension = [{"url": _backport("heartbeat-period"), "valueUnsignedInt": wrong}]
        refused = ehr.post("Subscription", json=subscription(subscriber.url, extension=extension))
        assert refused.status_code == 422, refused.text


def _backport(name: str) -> str:
    return f"http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/backport-{name}"


# Bad peers


def test_a_peer_that_fails_is_tried_five_times_then_the_subscription_is_in_error(
    gateway: Gateway,
    world: World,
    ehr: httpx.Client,
    subscriber: Subscriber,
    subscribe: Any,
    work: Work,
    capfd: pytest.CaptureFixture[str],
) -> None:
    made = subscribe(subscription(subscriber.url, header=["Authorization: Bearer tres-secret"]))
    here = f"Subscription/{made['id']}"
    subscriber.answer = lambda _: 503
    grown(gateway, world, 1)
    began = utcnow()
    work.all()
    for minutes in (1, 5, 15, 60):
        ended = utcnow()
        with gateway.store.session() as session:
            [waiting] = session.scalars(select(Message).where(Message.state == "en-attente"))
            pause = timedelta(minutes=minutes)
            assert began + pause * 0.75 < waiting.not_before < ended + pause * 1.25
        assert ehr.get(here).json()["status"] == "active"
        began = utcnow()
        work.later()
    tried = subscriber.events()
    assert len(tried) == 5
    assert len({one.body for one in tried}) == 1  # the very same bytes
    broken = ehr.get(here).json()
    assert broken["status"] == "error"
    assert "503" in broken["error"]
    assert subscriber.url not in broken["error"]
    with gateway.store.session() as session:
        [item] = session.scalars(select(WorkItem).where(WorkItem.reason == subscribers.IN_ERROR))
        assert item.closed_at is None
        item_id = item.id
    # Whoever prepares an RCP sees it, and whose software it is.
    shown, _ = gateway.steps.run(
        world.caller(world.coordinator), lambda step: item_page(step, world.caller(world.coordinator), item_id)
    )
    assert "abonné" in shown.line.text
    assert (shown.line.kind, shown.line.who) == ("Notification à un logiciel", world.partner.name)
    assert dict(shown.facts)["Ce qu’il en est"] == "abonnement-http-503"
    assert (shown.replay_label, shown.forgettable) == ("", "")
    # What happens meanwhile is numbered, and not sent.
    grown(gateway, world, 2)
    work.all()
    work.later()
    assert len(subscriber.events()) == 5
    # Its client mends it, and asks again: the handshake says how far it is, $events gives what was missed.
    subscriber.answer = lambda _: 200
    again = ehr.put(here, json=made | {"status": "requested"})
    assert again.json()["status"] == "requested", again.text
    assert "error" not in again.json()
    work.deliver()
    assert subscriber.arrived[-1].headers["Authorization"] == "Bearer tres-secret"
    assert subscriber.arrived[-1].said["events-since-subscription-start"] == "2"
    assert ehr.get(here).json()["status"] == "active"
    missed = ehr.get(f"{here}/$events?eventsSinceNumber=1").json()
    said = Arrived("", {}, json.dumps(missed).encode()).said
    assert (said["type"], [one["event-number"] for one in said["events"]]) == ("query-event", ["1", "2"])
    only = ehr.get(f"{here}/$events?eventsSinceNumber=2&eventsUntilNumber=2&content=full-resource").json()
    assert [one["resource"]["resourceType"] for one in only["entry"]] == ["Parameters", "ImagingStudy"]
    numbers = [{"name": name, "valueString": "2"} for name in ("eventsSinceNumber", "eventsUntilNumber")]
    asked = {"resourceType": "Parameters", "parameter": [*numbers, {"name": "content", "valueCode": "full-resource"}]}
    for kind in ("batch", "transaction"):
        asked_together = [f"{here}/$events?eventsSinceNumber=1", f"{here}/$status"]
        entries = [{"request": {"method": "GET", "url": url}} for url in asked_together]
        entry = ehr.post("", json={"resourceType": "Bundle", "type": kind, "entry": entries}).json()["entry"]
        assert [one["response"]["status"] for one in entry] == ["200 OK"] * 2
        assert entry[0]["resource"]["entry"][1:] == missed["entry"][1:]
        assert entry[1]["resource"]["entry"][0]["resource"]["resourceType"] == "Parameters"
    posted = ehr.post(f"{here}/$events", json=asked).json()
    assert [one["fullUrl"] for one in posted["entry"][1:]] == [one["fullUrl"] for one in only["entry"][1:]]
    assert ehr.post(f"{here}/$status").json()["entry"][0]["resource"]["resourceType"] == "Parameters"
    for odd in ({"resourceType": "Patient"}, asked | {"parameter": [{"name": "content", "valueReference": {}}]}, []):
        assert ehr.post(f"{here}/$events", json=odd).status_code == 400
    assert ehr.delete(f"{here}/$events").status_code == 405
    for wrong in ("eventsSinceNumber=x", "content=tout", "eventsSinceNumber=-1", "depuis=1"):
        assert ehr.get(f"{here}/$events?{wrong}").status_code == 400
    with gateway.store.session() as session:
        [item] = session.scalars(select(WorkItem).where(WorkItem.reason == subscribers.IN_ERROR))
        assert item.closed_at is not None
    grown(gateway, world, 3)
    work.all()
    assert subscriber.events()[-1].said["events"][0]["event-number"] == "3"
    # No identity, no secret, no address in what was logged, nor in the trail.
    with gateway.store.session() as session:
        written = "".join(capfd.readouterr()) + json.dumps(audit_lines(session), default=str)
    for hidden in ("PAT-TROIS", "DOMINIQUE", "000003", "tres-secret", "$rcp-notification"):
        assert hidden not in written, hidden


def test_events_arrive_in_their_order_though_one_was_late(
    gateway: Gateway, world: World, subscriber: Subscriber, subscribe: Any, work: Work
) -> None:
    subscribe(subscription(subscriber.url))
    subscriber.answer = lambda _: 500
    grown(gateway, world, 1)
    work.all()
    grown(gateway, world, 2)
    work.all()
    assert {one.said["events"][0]["event-number"] for one in subscriber.events()} == {"1"}
    subscriber.answer = lambda _: 200
    subscriber.arrived.clear()
    work.later()
    work.later()
    assert [one.said["events"][0]["event-number"] for one in subscriber.events()] == ["1", "2"]


def test_a_silent_a_slow_a_redirecting_and_an_absent_peer(
    gateway: Gateway, ehr: httpx.Client, subscriber: Subscriber, work: Work
) -> None:
    enough = threading.Event()

    def silent(handler: Any) -> int:
        enough.wait(60)
        handler.close_connection = True
        return 0

    def slow(handler: Any) -> int:
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200:
            if enough.is_set():
                break
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(0.1)
        return 0

    def redirecting(handler: Any) -> int:
        handler.send_response(307)
        handler.send_header("Location", subscriber.url + "/ailleurs")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return 0

    second = {"extension": [{"url": _backport("timeout"), "valueUnsignedInt": 1}]}
    for answer, code, hurried in (
        (silent, "abonnement-silence", second),
        (slow, "abonnement-silence", second),
        (redirecting, "307", {}),
    ):
        subscriber.answer = answer
        made = ehr.post("Subscription", json=subscription(subscriber.url, **hurried)).json()
        began = time.process_time()
        work.deliver()
        assert time.process_time() - began < 5
        with gateway.store.session() as session:
            last = session.scalars(select(Attempt).order_by(Attempt.started_at.desc()).limit(1)).one()
            assert code in str(last.code)
            assert subscriber.url not in str(last.reason)
            session.execute(update(Message).values(state="annule"))
            session.commit()
        assert ehr.get(f"Subscription/{made['id']}").json()["status"] == "requested"
    enough.set()
    assert not any(one.path.endswith("ailleurs") for one in subscriber.arrived)
    ehr.post("Subscription", json=subscription(nobody()))
    work.deliver()
    with gateway.store.session() as session:
        last = session.scalars(select(Attempt).order_by(Attempt.started_at.desc()).limit(1)).one()
        assert last.code == "abonnement-injoignable"


def test_a_slow_subscriber_holds_up_nobody_else(
    gateway: Gateway,
    world: World,
    ehr: httpx.Client,
    admit: Callable[..., Hospital],
    subscriber: Subscriber,
    work: Work,
) -> None:
    """Three of one partner hang; another partner's, and the worker's other lines, do not wait."""
    enough, hanging = threading.Event(), threading.Semaphore(0)

    def slow(handler: Any) -> int:
        hanging.release()
        enough.wait(60)
        handler.close_connection = True
        return 0

    for _ in range(3):
        ehr.post("Subscription", json=subscription(subscriber.url))
    subscriber.answer = slow
    with gateway.store.session() as session:
        other = Partner(name="Clinique Z", finess="750000026", patient_domains=["https://z.example/ipp"])
        session.add(other)
        session.commit()
        ids = session.scalars(select(Message.id)).all()
    deliveries = components._deliveries(gateway)
    with ThreadPoolExecutor(4) as pool, listening() as quick:
        first = [pool.submit(deliveries.attempt, one) for one in ids]
        assert hanging.acquire(timeout=60)
        with admit(other, scopes=ALL_SCOPES).client() as stranger:
            stranger.post("Subscription", json=subscription(quick.url))
        with gateway.store.session() as session:
            own = session.scalars(select(Message.id).where(Message.partner_id == other.id)).one()
        assert pool.submit(deliveries.attempt, own).result(60) == "delivered"
        assert len(quick.arrived) == 1
        until(lambda: sum(one.done() for one in first) == 2)  # they gave up their turn, and come again
        assert not hanging.acquire(blocking=False)  # of one partner one at once
        enough.set()
        assert sum(one.result(60) == "uncertain" for one in first) == 1
    with gateway.store.session() as session:
        assert sorted(session.scalars(select(Message.attempts))) == [0, 0, 1, 1]


def test_one_that_cannot_be_told_holds_up_nobody_else_and_is_given_up(
    gateway: Gateway,
    world: World,
    ehr: httpx.Client,
    subscriber: Subscriber,
    subscribe: Any,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A defect of ours that one subscription meets each time: what it cannot be told waits, in front of all others."""
    broken = subscribe(subscription(subscriber.url + "/broken", "ImagingStudy?modality=CT"))
    subscribe(subscription(subscriber.url + "/sound"))
    heard = subscribers.heard

    def defective(session: Any, caller: Any, kind: str, wanted: Any, filters: Any = (), *more: Any) -> Any:
        if filters:
            raise ZeroDivisionError
        return heard(session, caller, kind, wanted, filters, *more)

    monkeypatch.setattr(subscribers, "heard", defective)
    for number in range(1, 4):
        grown(gateway, world, number)
        work.settle()
    into = subscribing(gateway)
    assert telling.tell_due(gateway.steps, into, limit=1) == 3
    assert ehr.get(f"Subscription/{broken['id']}").json()["status"] == "active"
    with gateway.store.session() as session:
        assert session.scalar(select(func.count()).select_from(Happening)) == 3
        session.execute(update(Happening).values(at=utcnow() - timedelta(days=1)))
        session.execute(update(Subscription).values(active_at=utcnow() - timedelta(days=2)))
        session.commit()
    assert [telling.tell_due(gateway.steps, into, limit=1) for _ in range(3)] == [0, 0, 0]
    read = ehr.get(f"Subscription/{broken['id']}").json()
    assert (read["status"], "ZeroDivision" in read["error"]) == ("error", False)
    with gateway.store.session() as session:
        assert session.scalar(select(func.count()).select_from(Happening)) == 0
        assert session.scalar(select(func.count()).where(WorkItem.reason == subscribers.IN_ERROR)) == 1


def test_a_partner_whose_filters_cost_much_holds_up_nobody_else_and_gets_on(
    gateway: Gateway,
    world: World,
    admit: Callable[..., Hospital],
    subscriber: Subscriber,
    subscribe: Any,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A share of nothing is used up by whatever is looked at: of each partner one subscription a turn."""
    for number in range(3):
        subscribe(subscription(f"{subscriber.url}/{number}", "ImagingStudy?modality=CT,MR"))
    subscribe(subscription(subscriber.url + "/none", "ImagingStudy?modality=US"))
    with gateway.store.session() as session:
        other = Partner(name="DCC", finess="750000026", patient_domains=["https://z.example/ipp"])
        session.add(other)
        session.commit()
    looked: list[str] = []
    heard = subscribers.heard

    def counted(session: Any, caller: Any, *more: Any) -> Any:
        looked.append(caller.name)
        return heard(session, caller, *more)

    monkeypatch.setattr(subscribers, "heard", counted)
    monkeypatch.setattr(fair_share, "_SHARE_S", 1e-9)
    with admit(other, scopes=ALL_SCOPES).client() as stranger:
        assert stranger.post("Subscription", json=subscription(subscriber.url + "/z")).status_code == 201
        work.deliver()
    grown(gateway, world, 1)
    work.settle()
    into = subscribing(gateway)
    told = [telling.tell_due(gateway.steps, into)]
    chu = world.partner.name
    assert sorted(looked) == sorted([chu, "DCC"])
    told += [telling.tell_due(gateway.steps, into) for _ in range(3)]
    assert (sum(told), looked.count(chu), looked.count("DCC")) == (3, 4, 1)
    assert (telling.tell_due(gateway.steps, into), into.looked) == (0, {})
    with gateway.store.session() as session:
        assert session.scalar(select(func.count()).select_from(Happening)) == 0


def test_a_filter_that_leaves_its_partner_an_hour_behind_is_stopped(
    gateway: Gateway,
    world: World,
    ehr: httpx.Client,
    subscriber: Subscriber,
    subscribe: Any,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = [subscribe(subscription(f"{subscriber.url}/{number}", "ImagingStudy?modality=CT")) for number in range(2)]
    monkeypatch.setattr(fair_share, "_SHARE_S", 1e-9)
    for number in (1, 2):
        grown(gateway, world, number)
        work.settle()
    with gateway.store.session() as session:
        session.execute(update(Happening).values(at=utcnow() - timedelta(days=1)))
        session.execute(update(Subscription).values(active_at=utcnow() - timedelta(days=2)))
        session.commit()
    into = subscribing(gateway)

    def states() -> list[str]:
        return [ehr.get(f"Subscription/{one['id']}").json()["status"] for one in made]

    telling.tell_due(gateway.steps, into)
    assert states() == ["active"] * 2  # cheap ones after a long pause of ours wait for their turn
    monkeypatch.setattr(telling, "_COSTLY_S", 1e-9)
    telling.tell_due(gateway.steps, into)
    assert sorted(states()) == ["active", "error"]
    [stopped] = [one for one in made if ehr.get(f"Subscription/{one['id']}").json()["status"] == "error"]
    assert "trop coûteux" in ehr.get(f"Subscription/{stopped['id']}").json()["error"]


def test_over_tls_the_certificate_must_name_the_host(
    database_url: str, gateway: Gateway, ehr: httpx.Client, tmp_path: Path
) -> None:
    codes = []
    for name in ("localhost", "autre.example"):
        context, trusted = certified(tmp_path, name)
        with listening(context) as subscriber:
            ehr.post("Subscription", json=subscription(subscriber.url.replace("127.0.0.1", "localhost")))
            for authority in (None, trusted):
                said = {"RCP_FHIR_SUBSCRIPTION_TLS_CA": str(authority)} if authority else {}
                told = load(
                    {
                        "RCP_DATABASE_URL": database_url,
                        "RCP_DATA_DIR": str(gateway.settings.data_dir),
                        "RCP_PUBLIC_URL": gateway.settings.public_url,
                    }
                    | said
                )
                with open_gateway(told) as trusting:
                    Work(trusting).later()
                codes.append(len(subscriber.arrived))
    assert codes == [0, 1, 0, 0]


def test_in_prod_nothing_inside_is_called(
    database_url: str, gateway: Gateway, ehr: httpx.Client, subscriber: Subscriber, tmp_path: Path
) -> None:
    """What was asked for in a trial is not told in production; nor is a name that leads inside."""
    made = ehr.post("Subscription", json=subscription(subscriber.url)).json()
    told = load(
        {
            "RCP_PROFILE": "prod",
            "RCP_DATABASE_URL": database_url,
            "RCP_DATA_DIR": str(gateway.settings.data_dir),
            "RCP_PUBLIC_URL": "https://passerelle.example",
        }
    )
    with open_gateway(told) as prod:
        Work(prod).deliver()
    assert subscriber.arrived == []
    broken = ehr.get(f"Subscription/{made['id']}").json()
    assert broken["status"] == "error"
    assert "abonnement-adresse-refusee" in broken["error"]


# Who hears


def test_only_who_may_read_a_study_hears_of_it(
    gateway: Gateway, world: World, admit: Callable[..., Hospital], subscriber: Subscriber, subscribe: Any, work: Work
) -> None:
    subscribe(subscription(subscriber.url + "/chu"))
    with gateway.store.session() as session:
        other = Partner(name="Clinique Z", finess="750000026", patient_domains=["https://z.example/ipp"])
        session.add(other)
        session.commit()
    with admit(other, scopes=ALL_SCOPES).client() as stranger:
        made = stranger.post("Subscription", json=subscription(subscriber.url + "/z", content="full-resource"))
        assert made.status_code == 201
        work.deliver()
        grown(gateway, world, 1)
        work.all()
        assert [one.path.rpartition("/")[2] for one in subscriber.events()] == ["chu"]
        assert stranger.get(f"Subscription/{made.json()['id']}/$status").status_code == 200
        with gateway.store.session() as session:
            chu = session.scalars(select(Subscription).where(Subscription.partner_id == world.partner.id)).one()
        for operation in ("$status", "$events"):
            assert stranger.get(f"Subscription/{chu.resource_id}/{operation}").status_code == 404


def test_who_runs_the_rcp_hears_of_the_images_of_its_dossiers(
    gateway: Gateway, world: World, home: httpx.Client, subscriber: Subscriber, work: Work
) -> None:
    """The dossier is another hospital's; what stands in none of the RCP's is not told."""
    made = home.post("Subscription", json=subscription(subscriber.url))
    assert made.status_code == 201, made.text
    work.deliver()
    world.record(value="000010")  # a patient of the hospital whom nobody discusses
    world.session.commit()
    grown(gateway, world, 1)
    assert send(gateway.steps, world, facts(1, study=OTHER, patient="000010")) is None
    work.all()
    work.later()
    [told] = subscriber.events()
    focus = told.said["events"][0]["focus"]
    assert focus.endswith(study_of(gateway))
    assert home.get(focus).status_code == 200
    assert home.get(f"ImagingStudy/{study_of(gateway, OTHER)}").status_code == 404


def test_in_trials_without_proof_everybody_is_one_subscriber(
    settings: Settings, gateway: Gateway, subscriber: Subscriber
) -> None:
    trial = dataclasses.replace(settings, fhir=dataclasses.replace(settings.fhir, auth="off"))
    with open_gateway(trial) as opened, background.served(application(opened), port=settings.http_bind.port):
        made = httpx.post(f"{settings.public_url}/fhir/Subscription", json=subscription(subscriber.url))
        assert made.status_code == 201, made.text
        Work(opened).deliver()
        assert Work(opened).keep_up() == 0
        read = httpx.get(f"{settings.public_url}/fhir/Subscription/{made.json()['id']}").json()
        assert read["status"] == "active"
    assert Work(gateway).keep_up() == 1  # where proof is asked for, he is nobody


def test_an_operator_names_the_only_hosts_and_a_lost_seal_is_said(
    settings: Settings, gateway: Gateway, ehr: httpx.Client, subscriber: Subscriber
) -> None:
    named = load({"RCP_FHIR_SUBSCRIPTION_HOSTS": "ehr.chu-x.example, *.dcc-b.example"})
    endpoints = subscribing(dataclasses.replace(gateway, settings=named)).endpoints
    assert endpoints.takes("https://gw.dcc-b.example/hook")
    assert not endpoints.takes("https://ailleurs.example/hook")
    for wrong in ("*", "https://a.example", "a.example/chemin", ","):
        with pytest.raises(GatewayError):
            load({"RCP_FHIR_SUBSCRIPTION_HOSTS": wrong})
    ehr.post("Subscription", json=subscription(subscriber.url, header=["Authorization: Bearer x"]))
    Work(dataclasses.replace(gateway, secret=b"another secret of thirty-two bytes")).deliver()
    assert subscriber.arrived == []
    with gateway.store.session() as session:
        assert session.scalars(select(Attempt.code)).all() == ["abonnement-entetes-perdus"]
        assert session.scalars(select(Subscription.state)).all() == ["error"]


def test_access_is_asked_again_at_delivery(
    gateway: Gateway, world: World, ehr: httpx.Client, subscriber: Subscriber, subscribe: Any, work: Work
) -> None:
    made = subscribe(subscription(subscriber.url, content="full-resource"))
    grown(gateway, world, 1)
    work.settle()
    assert work.tell() == 1
    with gateway.store.session() as session:  # its scopes were narrowed meanwhile
        session.get_one(Partner, world.partner.id).fhir_scopes = ["system/Subscription.cruds"]
        session.commit()
    work.deliver()
    assert subscriber.events() == []
    with gateway.store.session() as session:
        last = session.scalars(select(Attempt).order_by(Attempt.started_at.desc()).limit(1)).one()
        assert (last.outcome, last.code) == ("refused", "abonnement-acces")
        session.get_one(Partner, world.partner.id).fhir_scopes = [ALL_SCOPES]
        session.commit()
    # That says nothing of the endpoint; the next event has its own number, and what was not said is not made up for.
    grown(gateway, world, 2)
    work.all()
    [told] = subscriber.events()
    assert told.said["events"][0]["event-number"] == "2"
    assert ehr.get(f"Subscription/{made['id']}").json()["status"] == "active"


def test_what_became_another_patient_s_before_it_left_stays(
    gateway: Gateway, world: World, subscriber: Subscriber, subscribe: Any, work: Work
) -> None:
    subscribe(subscription(subscriber.url, content="full-resource"))
    grown(gateway, world, 1)
    work.settle()
    assert work.tell() == 1
    other = world.record(value="000011")
    world.session.commit()

    def moved(step: Any) -> None:
        [study] = step.session.scalars(select(Study))
        study.record_id = other.id
        step.touch(study)

    gateway.steps.run(SYSTEM, moved)
    work.deliver()
    assert subscriber.events() == []
    with gateway.store.session() as session:
        assert session.scalars(select(Message.reason).where(Message.state == "refuse")).all() == ["abonnement-acces"]


@pytest.mark.parametrize("what", ["client", "partner"])
def test_who_is_revoked_hears_nothing(
    gateway: Gateway, world: World, subscriber: Subscriber, subscribe: Any, work: Work, what: str
) -> None:
    subscribe(subscription(subscriber.url))
    grown(gateway, world, 1)
    work.settle()
    assert work.tell() == 1  # told to the outbox, not sent yet
    if what == "partner":
        gateway.steps.run(SYSTEM, lambda step: registry.revoke_partner(step, world.partner.name))
    else:
        with gateway.store.session() as session:
            session.execute(update(PartnerCredential).values(revoked_at=utcnow()))
            session.commit()
    work.deliver()
    with gateway.store.session() as session:  # images come on, whoever listens
        session.execute(update(Study).values(settled_at=None))
        session.commit()
    work.all()
    assert len(subscriber.arrived) == 1  # the handshake
    assert work.keep_up() == 1
    with gateway.store.session() as session:
        assert session.scalars(select(Subscription.state)).one() == "off"


def test_a_study_that_finds_its_patient_late_is_told_then(
    gateway: Gateway, world: World, subscriber: Subscriber, subscribe: Any, work: Work
) -> None:
    subscribe(subscription(subscriber.url))
    assert send(gateway.steps, world, facts(1, study=OTHER, patient="000009")) is None
    work.all()
    assert subscriber.events() == []  # nobody's yet
    world.dossier(world.record(value="000009"))
    world.session.commit()
    work.all()
    work.all()
    [told] = subscriber.events()
    assert told.said["events"][0]["focus"].endswith(study_of(gateway, OTHER))


# Whatever crashes

CRASHING = {telling.__file__, subscribers.__file__}


def told_once(gateway: Gateway, subscriber: Subscriber) -> None:
    with gateway.store.session() as session:
        events = session.execute(select(SubscriptionEvent.number, SubscriptionEvent.message_id)).all()
        assert [one.number for one in events] == [1]
        assert session.scalars(select(Subscription.events)).one() == 1
    assert [one.said["events"][0]["event-number"] for one in subscriber.events()] == ["1"]


@pytest.mark.parametrize("line", [1, 8, 15, 22, 29, 36, 43, 50, 57, 64, 71, 78, 85, 92])
def test_killed_anywhere_while_it_tells_the_event_is_one(
    line: int, settings: Settings, gateway: Gateway, world: World, subscriber: Subscriber, subscribe: Any, work: Work
) -> None:
    subscribe(subscription(subscriber.url))
    grown(gateway, world, 1)
    work.settle()

    def tell() -> None:
        with open_gateway(settings) as own:
            Work(own).tell()

    killed_before_line(line, tell, CRASHING)
    for _ in range(2):
        work.tell()
        work.deliver()
    told_once(gateway, subscriber)


def test_killed_before_the_settling_is_committed_nothing_is_told_and_then_once(
    settings: Settings, gateway: Gateway, world: World, subscriber: Subscriber, subscribe: Any, work: Work
) -> None:
    subscribe(subscription(subscriber.url))
    grown(gateway, world, 1)

    def settle() -> None:
        with open_gateway(settings) as own:
            represent = own.steps.represent
            own.steps.represent = lambda *given: (represent(*given), os.kill(os.getpid(), signal.SIGKILL))
            Work(own).settle()

    assert killed_before_line(10**9, settle, set())
    work.tell()
    work.deliver()
    assert subscriber.events() == []
    for _ in range(2):
        work.all()
    told_once(gateway, subscriber)


def test_a_worker_killed_while_it_sends_sends_the_same_bytes_again(
    settings: Settings, gateway: Gateway, world: World, subscriber: Subscriber, subscribe: Any, work: Work
) -> None:
    subscribe(subscription(subscriber.url))
    grown(gateway, world, 1)
    work.settle()
    work.tell()
    with gateway.store.session() as session:
        message_id = session.scalars(select(Message.id).where(Message.state == "en-attente")).one()
    child = os.fork()
    if child == 0:
        with open_gateway(settings) as own:
            components._deliveries(own).attempt(message_id)
        os._exit(0)
    subscriber.answer = lambda _: (os.kill(child, signal.SIGKILL), 200)[1]
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    subscriber.answer = lambda _: 200
    until(lambda: len(subscriber.events()) == 1)
    work.deliver()
    first, second = subscriber.events()
    assert first.body == second.body
    with gateway.store.session() as session:
        message = session.get_one(Message, message_id)
        assert (message.state, message.uncertain_at is not None) == ("envoye", True)


def test_the_worker_s_own_process_tells_and_one_that_comes_after_a_kill_tells_again(
    settings: Settings, gateway: Gateway, world: World, subscriber: Subscriber, subscribe: Any
) -> None:
    """Settled, told and sent by `serve` itself; killed while the subscriber has not answered yet, and started again."""
    subscribe(subscription(subscriber.url))
    grown(gateway, world, 1)
    with gateway.store.session() as session:
        session.execute(update(Study).values(last_instance_at=utcnow() - timedelta(seconds=11)))
        session.execute(update(Instance).values(received_at=utcnow() - timedelta(seconds=11)))
        session.commit()
    environment = os.environ | {
        "RCP_DATABASE_URL": settings.database_url or "",
        "RCP_DATA_DIR": str(settings.data_dir),
        "RCP_PUBLIC_URL": settings.public_url,
    }
    command = [sys.executable, "-m", "gateway", "serve", "--only", "worker"]
    killed = threading.Event()

    def dying(_: Any) -> int:
        for one in (*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)):
            one.kill()
        killed.set()
        return 200

    subscriber.answer = dying
    process = subprocess.Popen(command, env=environment)
    try:
        assert killed.wait(60)
        process.wait(60)
        subscriber.answer = lambda _: 200
        process = subprocess.Popen(command, env=environment)
        until(lambda: len(subscriber.events()) == 2)
        until(lambda: delivered(gateway))
    finally:
        process.terminate()
        process.wait(60)
    first, second = subscriber.events()
    assert first.body == second.body
    assert first.said["events"][0]["focus"].endswith(study_of(gateway))


def delivered(gateway: Gateway) -> bool:
    with gateway.store.session() as session:
        return set(session.scalars(select(Message.state))) == {"envoye"}


def test_two_workers_at_once_tell_and_deliver_once(
    settings: Settings, gateway: Gateway, world: World, subscriber: Subscriber, subscribe: Any, work: Work
) -> None:
    subscribe(subscription(subscriber.url))
    for number in range(1, 4):
        assert send(gateway.steps, world, facts(1, study=f"{STUDY}.{number}")) is None
    work.settle()
    with open_gateway(settings) as other, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda one: Work(one).tell(), [gateway, other] * 2))
        deliveries = [components._deliveries(one) for one in (gateway, other)]
        with Store(settings.database_url or "").session() as session:
            ids = session.scalars(select(Message.id).where(Message.state == "en-attente")).all()
        assert len(ids) == 3
        tries = [partial(one.attempt, key) for key in ids for one in deliveries]
        list(pool.map(lambda each: each(), tries))
    for _ in range(3):
        work.later()
    numbers = [one.said["events"][0]["event-number"] for one in subscriber.events()]
    assert numbers == ["1", "2", "3"]
    focuses = {one.said["events"][0]["focus"] for one in subscriber.events()}
    assert len(focuses) == 3
