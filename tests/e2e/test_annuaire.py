"""The client of the national directory's API against a real HTTP server that serves the samples."""

from __future__ import annotations

import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta
from types import SimpleNamespace

import httpx
import pytest
from sqlalchemy import update

from gateway.errors import Fault, Unavailable
from gateway.fhir.annuaire import Annuaire
from gateway.model.directory import Mailbox, Practitioner
from gateway.model.store import utcnow
from gateway.rcp import directory, mailboxes
from gateway.rcp.access import SYSTEM
from gateway.rcp.directory_refresh import refresh_due
from tests.annuaire_standin import KEY, AnnuaireStandIn
from tests.loopback import free_port, until
from tests.world import build

ALICE = "99700000013"
CHU = "alice.exemple@chu-fictif.mssante.fr"


@pytest.fixture
def standin():
    with AnnuaireStandIn() as running:
        yield running


@pytest.fixture
def waits():
    return []


@pytest.fixture
def client(standin, waits):
    with contextlib.closing(_client(standin, waits)) as open_client:
        yield open_client


def _client(standin, waits, key=KEY, **more):
    return Annuaire(standin.url, key, calls_a_second=10_000, sleep=waits.append, **more)


@pytest.mark.parametrize("number", [ALICE, "8" + ALICE, " 899700000013 "])
def test_a_professional_is_found_by_both_of_his_numbers_with_places_and_mailboxes(client, number):
    found = client.find(number)
    who = found.professional
    assert (who.rpps, who.family, who.given, who.title) == (ALICE, "EXEMPLE", "Alice", "DR")
    assert (who.profession, who.speciality, found.active) == ("10", "SM36", True)
    assert {place.finess: place.name for place in found.places} == {
        "990000010": "CHU FICTIF DE DEMONSTRATION",
        "990000028": "CENTRE ANTI-CANCER FICTIF",
    }
    assert {(box.address, box.finess, box.preferred) for box in who.mailboxes} == {
        (CHU, "990000010", True),
        ("alice.exemple@demo.mssante.fr", None, True),
    }
    chu = next(place for place in found.places if place.finess == "990000010")
    assert (chu.city, chu.postal_code, chu.address_line) == ("VILLE FICTIVE", "99000", "1 AV DES TESTS")
    assert [(box.kind, box.address) for box in chu.mailboxes] == [
        ("ORG", "rcp.secretariat@chu-fictif.mssante.fr"),
        ("APP", "echanges.rcp@chu-fictif.mssante.fr"),
    ]


def test_the_key_and_the_encoded_identifier_are_what_is_sent(client, standin):
    client.find(ALICE)
    assert standin.asked[0].endswith("/Practitioner?identifier=urn%3Aoid%3A1.2.250.1.71.4.2.1%7C899700000013")


def test_nobody_is_found_by_an_unknown_or_malformed_number(client, standin):
    assert client.find("99700000021") is None
    asked = len(standin.asked)
    assert [client.find(number) for number in ("99700000014", "EXEMPLE", "")] == [None, None, None]
    assert len(standin.asked) == asked


def test_every_page_is_read_by_its_link_as_it_is(client, standin):
    standin.page_size = 1
    found = client.find(ALICE)
    assert len(found.places) == 2
    assert sum("_page?id=" in url for url in standin.asked) >= 3


def test_a_next_page_elsewhere_gets_neither_the_key_nor_a_call(client, standin):
    with AnnuaireStandIn() as other:
        standin.page_size, standin.next_origin = 1, other.origin
        with pytest.raises(Fault) as refusal:
            client.find(ALICE)
        assert refusal.value.code == "annuaire-reponse"
        assert other.asked == []


@pytest.mark.parametrize("key", [None, "fausse"])
def test_without_the_right_key_it_says_which_setting_and_asks_once(standin, waits, key):
    with contextlib.closing(_client(standin, waits, key)) as client, pytest.raises(Fault) as refusal:
        client.find(ALICE)
    assert refusal.value.code == "annuaire-cle"
    assert "RCP_ANNUAIRE_KEY" in refusal.value.text
    assert len(standin.asked) == 1


@pytest.mark.parametrize("busy", [429, 500, 502, 503, 504])
def test_what_is_busy_is_asked_again_later_each_time(client, standin, waits, busy):
    standin.planned.extend([busy, busy])
    assert client.find(ALICE) is not None
    slept = [wait for wait in waits if wait > 0.01]
    assert len(slept) == 2
    assert slept == sorted(slept) or busy == 429
    assert all(wait >= 3 for wait in slept) if busy == 429 else all(wait < 3 for wait in slept)


def test_a_wrong_request_is_not_repeated(client, standin):
    standin.planned.append(400)
    with pytest.raises(Fault, match="HTTP 400") as refusal:
        client.find(ALICE)
    assert refusal.value.code == "annuaire-refus"
    assert len(standin.asked) == 1


def test_after_five_failures_nobody_is_asked_until_a_minute_has_passed(standin, waits):
    clock = [0.0]
    with contextlib.closing(_client(standin, waits, now=lambda: clock[0])) as client:
        standin.planned.extend([503] * 6)
        for _ in range(2):
            with pytest.raises(Unavailable):
                client.find(ALICE)
        assert len(standin.asked) == 5
        with pytest.raises(Unavailable):
            client.find(ALICE)
        assert len(standin.asked) == 5
        clock[0] += 61
        # One call tries; it fails (the sixth), and the circuit is open again.
        with pytest.raises(Unavailable):
            client.find(ALICE)
        assert len(standin.asked) == 6
        clock[0] += 61
        assert client.find(ALICE) is not None


def test_silence_and_a_closed_port_are_unavailable(standin, waits):
    timeout = httpx.Timeout(0.05)
    with contextlib.closing(_client(standin, waits, timeout=timeout)) as client:
        standin.planned.extend([0.5] * 4)
        with pytest.raises(Unavailable):
            client.find(ALICE)
    nobody = Annuaire(f"http://127.0.0.1:{free_port()}/fhir/v2", KEY, sleep=waits.append)
    with contextlib.closing(nobody), pytest.raises(Unavailable):
        nobody.find(ALICE)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>", b"[]", b'{"resourceType":"OperationOutcome"}', b'{"resourceType":"Bundle","entry":[1]}',
        b'{"resourceType":"Bundle","entry":{"a":1}}', b'{"resourceType":"Bundle","link":["next"]}',
        b'{"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Practitioner","identifier":3}}]}',
    ],
)  # fmt: skip
def test_an_answer_of_another_shape_is_told_as_such(client, standin, body):
    standin.planned.append(body)
    with pytest.raises(Fault) as refusal:
        client.find(ALICE)
    assert refusal.value.code == "annuaire-reponse"


def test_calls_keep_the_rate_of_the_contract(standin):
    """By a clock that only its own waiting moves."""
    clock, left = [100.0], []

    def sleep(seconds):
        clock[0] += seconds
        left.append(seconds)

    paced = Annuaire(standin.url, KEY, calls_a_second=50, sleep=sleep, now=lambda: clock[0])
    with contextlib.closing(paced) as client:
        for _ in range(3):
            client.find(ALICE)
    assert len(standin.asked) == 6
    assert [wait for wait in left if wait > 0] == pytest.approx([1 / 50] * 5)


def test_an_ordinary_address_is_no_mailbox_and_both_spellings_of_the_mark_are_read(client, standin):
    who = standin.of("Practitioner", "003-900001")
    (marked,) = who["telecom"]
    plain = {"system": "email", "value": "alice@demo.mssante.fr"}
    outside = json.loads(json.dumps(marked)) | {"value": "alice@courriel.example"}
    by_metadata = json.loads(json.dumps(marked)) | {"value": "meta@demo.mssante.fr"}
    del by_metadata["extension"][0]
    coded = json.loads(json.dumps(marked)) | {"value": "code@demo.mssante.fr"}
    url = coded["extension"][0]["url"]
    coded["extension"] = [{"url": url, "valueCode": "MSSANTE"}]
    phone = {"system": "phone", "value": "x@demo.mssante.fr"}
    who["telecom"] = [plain, outside, phone, by_metadata, coded]
    found = {box.address for box in client.find(ALICE).professional.mailboxes}
    assert found == {CHU, "meta@demo.mssante.fr", "code@demo.mssante.fr"}


def test_who_left_and_a_situation_that_ended_are_told(client, standin):
    standin.of("PractitionerRole", "005-900001")["active"] = False
    found = client.find(ALICE)
    assert [practice.finess for practice in found.professional.practices] == ["990000028"]
    standin.of("Practitioner", "003-900001")["active"] = False
    assert client.find(ALICE).active is False


def test_what_it_says_is_kept_with_its_source_and_day(client, steps, store):
    found = client.find(ALICE)
    day = date(2026, 9, 2)
    steps.run(SYSTEM, lambda step: directory.put_entry(step, found, source="annuaire-api", as_of=day))
    with store.session() as session:
        who = directory.practitioner_of(session, ALICE)
        assert {(box.address, box.source, box.as_of) for box in who.mailboxes} == {
            (CHU, "annuaire-api", day),
            ("alice.exemple@demo.mssante.fr", "annuaire-api", day),
        }
        assert {role.organisation.finess for role in who.roles} == {"990000010", "990000028"}


@pytest.fixture
def scene(store, make_steps):
    """A physician of a session to come, whom the national directory knows."""
    with store.session() as session:
        world = build(session)
        world.dossier()
        # The world's own numbers have wrong keys: nobody is asked about them.
        world.treating.rpps, world.treating.idnps = ALICE, f"8{ALICE}"
        session.commit()
    clock = SimpleNamespace(at=datetime(2026, 3, 17, tzinfo=UTC), now=lambda: clock.at)
    return SimpleNamespace(clock=clock, steps=make_steps(clock=clock), rpps=ALICE, idnps=f"8{ALICE}")


def _who(store, scene):
    with store.session() as session:
        found = directory.practitioner_of(session, scene.rpps)
        return found, {box.address: box for box in found.mailboxes}


def _asked(standin, scene):
    return sum(f"%7C{scene.idnps}" in url for url in standin.asked)


def test_physicians_of_sessions_to_come_are_asked_about_once_a_day(client, standin, store, scene):
    assert refresh_due(scene.steps, client) >= 1
    found, boxes = _who(store, scene)
    assert {CHU, "alice.exemple@demo.mssante.fr"} <= set(boxes)
    assert found.asked_at is not None
    assert _asked(standin, scene) == 1
    assert refresh_due(scene.steps, client) == 0
    with store.session() as session:
        session.execute(update(Practitioner).values(asked_at=utcnow() - timedelta(hours=25)))
        session.commit()
    standin.of("PractitionerRole", "005-900001")["active"] = False
    before = utcnow().date()
    assert refresh_due(scene.steps, client) >= 1
    _, boxes = _who(store, scene)
    assert before <= boxes[CHU].gone_on <= utcnow().date()
    assert boxes["alice.exemple@demo.mssante.fr"].gone_on is None


def test_a_box_that_bounced_for_good_asks_again(client, standin, store, scene):
    refresh_due(scene.steps, client)
    with store.session() as session:
        late = utcnow() + timedelta(seconds=1)
        session.execute(update(Mailbox).where(Mailbox.address == CHU).values(unusable_since=late))
        session.commit()
    assert refresh_due(scene.steps, client) == 1
    assert _asked(standin, scene) == 2


def test_an_address_that_bounced_is_usable_again_when_it_is_named_on_a_later_day(client, standin, store, scene):
    until(lambda: utcnow().time() < time(23, 59, 30))  # no day ends between what is said and the bounce
    refresh_due(scene.steps, client)

    def bounced(ago):
        with store.session() as session:
            when = utcnow() - ago
            session.execute(update(Mailbox).where(Mailbox.address == CHU).values(unusable_since=when))
            session.execute(update(Practitioner).values(asked_at=utcnow() - timedelta(hours=25)))
            session.commit()
        assert refresh_due(scene.steps, client) >= 1
        return _who(store, scene)[1][CHU].unusable_since

    assert bounced(timedelta(0)) is not None  # what it says today, it said before the bounce
    assert bounced(timedelta(days=1)) is None


def test_what_a_box_takes_and_the_red_list_are_read_and_a_restricted_one_is_written_to_unseen(
    client, standin, store, scene
):
    [box] = [one for one in standin.of("PractitionerRole", "005-900001")["telecom"] if one["value"] == CHU]
    [said] = [one for one in box["extension"] if one["url"].endswith("as-ext-mailbox-mss-metadata")]
    said["extension"] = [one for one in said["extension"] if one["url"] not in {"digitization", "listeRouge"}]
    said["extension"] += [{"url": "digitization", "valueBoolean": False}, {"url": "listeRouge", "valueBoolean": True}]
    refresh_due(scene.steps, client)
    found, boxes = _who(store, scene)
    assert (boxes[CHU].paperless, boxes[CHU].confidential) == (False, True)
    other = boxes["alice.exemple@demo.mssante.fr"]
    assert (other.paperless, other.confidential) != (False, True)
    with store.session() as session:
        assert CHU in [one.address for one in mailboxes.addresses(session, session.get_one(Practitioner, found.id))]
        assert mailboxes.displayed(session, CHU) == mailboxes.HIDDEN


def test_two_workers_that_ask_at_once_keep_one_entry(client, standin, store, scene):
    both = threading.Barrier(2)

    def work(_):
        both.wait()
        return refresh_due(scene.steps, client)

    with ThreadPoolExecutor(2) as pool:
        asked = list(pool.map(work, range(2)))
    assert max(asked) >= 1
    with store.session() as session:
        who = directory.practitioner_of(session, scene.rpps)
        held = [box.address for box in who.mailboxes]
        places = [role.organisation_id for role in who.roles]
        assert (len(held), len(places)) == (len(set(held)), len(set(places)))
        assert CHU in held
    assert refresh_due(scene.steps, client) == 0


def test_nobody_is_asked_about_when_the_session_is_over(client, standin, scene):
    scene.clock.at = datetime(2026, 4, 1, tzinfo=UTC)
    assert refresh_due(scene.steps, client) == 0
    assert standin.asked == []


def test_a_service_that_is_away_changes_nothing_and_is_asked_the_next_time(client, standin, store, scene):
    before = set(_who(store, scene)[1])
    standin.planned.extend([503] * 4)
    refresh_due(scene.steps, client)
    found, boxes = _who(store, scene)
    assert (set(boxes), found.asked_at) == (before, None)
    assert refresh_due(scene.steps, client) >= 1
    assert CHU in _who(store, scene)[1]


@pytest.mark.parametrize("part", ["name", "endless-name", "qualification"])
def test_an_entry_that_we_cannot_take_does_not_hold_the_others_up(client, standin, store, scene, part):
    who = standin.of("Practitioner", "003-900001")
    if part == "name":
        who["name"][0]["family"] = "X\x00Y"
    elif part == "endless-name":
        # No index could hold it.
        who["name"][0]["family"] = "".join(map(chr, range(0x4E00, 0x6000)))
    else:
        who["qualification"][1] = 3
    assert refresh_due(scene.steps, client) >= 1
    assert _who(store, scene)[0].asked_at is not None
    assert refresh_due(scene.steps, client) == 0


def test_check_asks_it_with_our_key(standin):
    from gateway.app import check

    settings = SimpleNamespace(annuaire_url=standin.url, annuaire_key="fausse", annuaire_authorities=None)
    with pytest.raises(Fault, match="RCP_ANNUAIRE_KEY"):
        check.annuaire(settings).ping()
    settings.annuaire_key = KEY
    check.annuaire(settings).ping()
    settings.annuaire_url = None
    assert check.annuaire(settings) is None
