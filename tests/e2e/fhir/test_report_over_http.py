"""A report that the RCP's establishment writes over FHIR: the portal's draft, its validation, its forms, its mails."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from gateway.fhir import validate
from gateway.model.dossier import Dossier
from gateway.model.meeting import Rcp, RcpSession
from gateway.model.message import Message
from gateway.model.person import WorkItem
from gateway.model.report import Report
from gateway.model.store import Store
from gateway.rcp import access, imaging_cases, report, report_draft, sessions
from gateway.rcp.report_content import decode
from gateway.rcp.step import Step
from tests import image_samples
from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import ALL_SCOPES, Hospital, Served
from tests.world import World

IDNPS = "urn:oid:1.2.250.1.71.4.2.1"
LOINC = "http://loinc.org"


def _code(answer: httpx.Response) -> str:
    return str(answer.json()["issue"][0]["details"]["coding"][0]["code"])


@pytest.fixture
def ehr(world: World, admit: Callable[..., Hospital]) -> Iterator[httpx.Client]:
    with admit(world.partner, scopes=ALL_SCOPES).client() as client:
        yield client


@pytest.fixture
def dossier(served: Served, world: World, ehr: httpx.Client) -> str:
    """An inscription whose session is open."""
    tree = samples.transaction(
        rcp=world.rcp.national_number,
        start="2026-03-19T14:00:00+01:00",
        requester=world.requester.idnps,
        treating=world.treating.rpps,
    )
    pushed = ehr.post("", json=tree)
    assert pushed.status_code == 200, pushed.text
    served.steps.run(world.caller(world.coordinator), lambda step: sessions.open_session(step, world.meeting.id))
    where = [entry["response"]["location"] for entry in pushed.json()["entry"]]
    return next(one.split("/")[1] for one in where if one.startswith("ServiceRequest/"))


def _section(code: str, title: str, *lines: str) -> dict[str, Any]:
    text = "".join(f"<p>{line}</p>" for line in lines)
    div = f'<div xmlns="http://www.w3.org/1999/xhtml">{text}</div>'
    return {
        "title": title,
        "code": {"coding": [{"system": LOINC, "code": code}]},
        "text": {"status": "generated", "div": div},
    }


def _who(number: str) -> dict[str, Any]:
    return {"type": "Practitioner", "identifier": {"system": IDNPS, "value": number}}


def _composition(dossier: str, author: str, status: str = "preliminary", **more: Any) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "resourceType": "Composition",
        "language": "fr",
        "extension": [{"url": "https://3c.example/fhir/logiciel", "valueString": "DCC 4.2"}],
        "status": status,
        "type": {"coding": [{"system": LOINC, "code": "34794-8"}]},
        "encounter": {"reference": f"Encounter/{dossier}"},
        "date": "2026-03-19T14:35:00+01:00",
        "author": [_who(author)],
        "title": "Fiche RCP",
        "event": [{"detail": [{"reference": f"ServiceRequest/{dossier}"}]}],
        "section": [
            _section("10164-2", "Synthèse", "Découverte au dépistage."),
            _section(
                "18776-5", "Plan de soins", "Chirurgie première &amp; ganglion sentinelle.", "Puis radiothérapie."
            ),
            _section("72135-7", "Tumeur", "cT2 N0 M0"),
        ],
    }
    if status == "final":
        tree["attester"] = [{"mode": "legal", "time": "2026-03-20T10:00:00+01:00", "party": _who(author)}]
    return tree | more


def _sent(tree: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in tree.items() if name not in {"id", "meta"}}


def _put(client: httpx.Client, tree: dict[str, Any]) -> httpx.Response:
    match = {"If-Match": f'W/"{tree["meta"]["versionId"]}"'}
    return client.put(f"Composition/{tree['id']}", json=tree, headers=match)


def _draft(store: Store, key: str) -> report_draft.ReportDraft:
    with store.session() as session:
        return report_draft.read(session.get_one(Report, uuid.UUID(key)).draft)


PROPOSAL = "Chirurgie première & ganglion sentinelle.\nPuis radiothérapie."


def test_a_draft_is_the_portals_and_its_establishments_alone(
    served: Served, store: Store, world: World, home: httpx.Client, ehr: httpx.Client, dossier: str
) -> None:
    sent = _composition(dossier, world.coordinator.idnps)
    made = home.post("Composition", json=sent)
    assert made.status_code == 201, made.text
    key = made.json()["id"]
    assert _sent(made.json()) == sent
    said = _draft(store, key)
    assert (said.summary, said.proposal) == ("Découverte au dépistage.", PROPOSAL)
    with store.session() as session:
        assert session.get_one(Dossier, uuid.UUID(dossier)).state == "cr-brouillon"
    # Who inscribed sees no draft, by any way.
    for here in (f"Composition/{key}", f"Composition/{key}/_history", f"Composition/{key}/_history/1"):
        assert ehr.get(here).status_code == 404, here
    assert not ehr.get("Composition").json().get("entry")
    # What the coordinator changes in the portal is what the software then reads.
    person = world.caller(world.coordinator)
    changed = report_draft.read({**report_draft.kept(said), "proposition": "Chimiothérapie.", "outil_visio": "Visio"})
    served.steps.run(person, lambda step: report.draft(step, uuid.UUID(dossier), changed))
    shown = home.get(f"Composition/{key}").json()
    assert shown["meta"]["versionId"] == "2"
    plan = next(one for one in shown["section"] if one["code"]["coding"][0]["code"] == "18776-5")
    assert "<p>Chimiothérapie.</p>" in plan["text"]["div"]
    assert [one for one in shown["section"] if one != plan] == [
        one for one in sent["section"] if one["title"] != "Plan de soins"
    ]
    assert shown["extension"] == sent["extension"]
    # And back: what it does not speak of stays.
    shown["section"] = sent["section"]
    assert _put(home, shown).status_code == 200
    assert (_draft(store, key).proposal, _draft(store, key).tool) == (PROPOSAL, "Visio")
    served.steps.run(person, lambda step: report.discard(step, uuid.UUID(dossier)))
    assert home.get(f"Composition/{key}").status_code == 410


def test_a_validated_report_gives_the_same_forms_and_mails(
    served: Served, store: Store, world: World, home: httpx.Client, ehr: httpx.Client, dossier: str
) -> None:
    # One speciality of the three that the RCP wants: the quorum is not reached.
    served.steps.run(
        world.caller(world.coordinator), lambda step: sessions.attend(step, world.meeting.id, world.coordinator).id
    )
    made = home.post("Composition", json=_composition(dossier, world.coordinator.idnps)).json()
    final = _composition(dossier, world.coordinator.idnps, "final")
    validated = _put(home, made | final)
    assert validated.status_code == 200, validated.text
    key = made["id"]
    for name in ("extension", "section", "attester", "author", "date", "status"):
        assert validated.json()[name] == final[name], name
    with store.session() as session:
        row = session.get_one(Report, uuid.UUID(key))
        assert (row.state, row.validator_id, {form.form for form in row.forms}) == (
            "valide",
            world.coordinator.id,
            {"pdf", "cda", "xdm"},
        )
        assert row.content is not None
        content = decode(row.content)
        assert [one.text for one in content.proposals] == [PROPOSAL]
        assert content.validator.idnps == world.coordinator.idnps
        recipients = set(session.scalars(select(Message.recipient_id).where(Message.kind == "M6")))
        assert recipients == {world.requester.id, world.treating.id}
    # Who inscribed reads the report, its document and its bytes; never what stood before the validation.
    assert ehr.get(f"Composition/{key}").json() == home.get(f"Composition/{key}").json()
    assert ehr.get(f"Composition/{key}/_history/1").status_code == 404
    document = ehr.get(f"DocumentReference/{key}").json()
    kinds = {one["attachment"]["contentType"]: one["attachment"]["url"] for one in document["content"]}
    pdf = ehr.get(kinds["application/pdf"], headers={"Accept": "application/pdf"})
    assert pdf.content.startswith(b"%PDF")
    # The quorum and the advice are resources of their own, of the same dossier.
    seen = ehr.get("Observation", params={"code": "ORG-125", "patient": document["subject"]["reference"]}).json()
    quorum = seen["entry"][0]["resource"]
    assert not validate.judge(quorum)
    assert quorum["valueCodeableConcept"]["coding"][0]["code"] == "ORG-133"
    assert quorum["encounter"] == {"reference": f"Encounter/{dossier}", "type": "Encounter"}
    [plan] = [one["resource"] for one in ehr.get("CarePlan", params={"category": "avis-rcp"}).json()["entry"]]
    assert not validate.judge(plan)
    assert (plan["intent"], plan["status"], plan["description"]) == ("proposal", "active", PROPOSAL)
    refused = home.put(f"CarePlan/{plan['id']}", json=plan | {"description": "Autre chose"})
    assert (refused.status_code, _code(refused)) == (403, "proprietaire")
    # Again is nothing; other words are refused; the portal goes on from here.
    again = _put(home, validated.json())
    assert (again.status_code, again.headers["etag"]) == (200, validated.headers["etag"]), again.text
    other = validated.json() | {"section": [_section("18776-5", "Plan de soins", "Rien.")]}
    assert (_put(home, other).status_code, _code(_put(home, other))) == (409, "cr-valide")
    person = world.caller(world.coordinator)
    served.steps.run(
        person, lambda step: report.revise(step, uuid.UUID(dossier), kind="correction", reason="Erreur de côté")
    )
    with store.session() as session:
        assert session.scalar(select(func.count()).select_from(Report)) == 2


def test_a_meeting_is_read_with_its_calendar_its_opening_and_its_members(
    served: Served, world: World, ehr: httpx.Client, home: httpx.Client, dossier: str
) -> None:
    del dossier
    served.steps.run(access.SYSTEM, lambda step: step.touch(step.session.get(Rcp, world.rcp.id)))
    schedule = ehr.get(f"Schedule/{world.rcp.id}").json()
    assert schedule["actor"][0]["reference"] == f"HealthcareService/{world.rcp.id}"
    assert "serviceType" not in schedule  # forbidden by fr-core-schedule
    slot = ehr.get("Slot", params={"schedule": f"Schedule/{world.rcp.id}"}).json()["entry"][0]["resource"]
    assert (slot["status"], slot["start"], slot["end"]) == (
        "free",
        "2026-03-19T14:00:00+01:00",
        "2026-03-19T16:00:00+01:00",
    )
    found = ehr.get("CareTeam", params={"participant": f"Practitioner/{world.coordinator.id}"}).json()
    team = found["entry"][0]["resource"]
    assert [one["role"][0]["coding"][0]["code"] for one in team["participant"]] == ["coordonnateur"]
    for tree in (schedule, slot, team):
        assert not validate.judge(tree)
        assert home.put(f"{tree['resourceType']}/{tree['id']}", json=tree | {"language": "en"}).status_code == 403
    before = {f"{one['resourceType']}/{one['id']}": one["meta"]["versionId"] for one in (schedule, slot, team)}

    def again(step: Step) -> None:
        step.touch(step.session.get(Rcp, world.rcp.id), step.session.get(RcpSession, world.meeting.id))

    served.steps.run(access.SYSTEM, again)
    assert {here: ehr.get(here).json()["meta"]["versionId"] for here in before} == before
    sessions_closed = served.steps.run(
        world.caller(world.coordinator), lambda step: sessions.close_session(step, world.meeting.id).state
    )
    assert (sessions_closed, ehr.get(f"Slot/{slot['id']}").json()["status"]) == ("close", "busy")


def test_one_request_drafts_and_validates(
    store: Store, world: World, home: httpx.Client, ehr: httpx.Client, dossier: str
) -> None:
    made = home.post("Composition", json=_composition(dossier, world.coordinator.idnps, "final"))
    assert made.status_code == 201, made.text
    task = ehr.get(f"Task/{dossier}").json()
    assert [one["valueReference"]["reference"] for one in task["output"]] == [f"DocumentReference/{made.json()['id']}"]
    with store.session() as session:
        assert session.scalars(select(Report.state)).all() == ["valide"]


@pytest.mark.parametrize(
    ("attester", "change", "code"),
    [
        (("legal", "treating"), {}, "cr-signataire"),
        (("personal", "coordinator"), {}, "cr-signataire"),
        (None, {}, "cr-signataire"),
        (("legal", "coordinator"), {"status": "amended"}, "cr-statut"),
        (("legal", "coordinator"), {"status": "entered-in-error"}, "cr-statut"),
        (("legal", "coordinator"), {"section": []}, "cr-proposition-absente"),
    ],
)
def test_a_validation_that_nobody_stands_for_leaves_nothing(
    store: Store,
    world: World,
    home: httpx.Client,
    dossier: str,
    attester: tuple[str, str] | None,
    change: dict[str, Any],
    code: str,
) -> None:
    tree = _composition(dossier, world.coordinator.idnps, "final") | change
    del tree["attester"]
    if attester is not None:
        mode, who = attester
        tree["attester"] = [{"mode": mode, "party": _who(getattr(world, who).idnps)}]
    tree = {name: value for name, value in tree.items() if value}
    refused = home.post("Composition", json=tree)
    assert (refused.status_code, _code(refused)) == (422, code), refused.text
    with store.session() as session:
        assert session.scalar(select(func.count()).select_from(Report)) == 0
        assert session.get_one(Dossier, uuid.UUID(dossier)).state == "prefiche"
        assert session.connection().exec_driver_sql("SELECT count(*) FROM fhir_composition").scalar() == 0


MOTIVE = "https://rcp.example.org/fhir/StructureDefinition/rcp-motif"


def _why(text: str) -> list[dict[str, str]]:
    return [{"url": MOTIVE, "valueString": text}]


def _correction(dossier: str, author: str, target: dict[str, Any], **more: Any) -> dict[str, Any]:
    related = {"extension": _why("Erreur de côté"), "code": "replaces", **target}
    sections = [_section("18776-5", "Plan de soins", "Chirurgie du sein droit.")]
    return _composition(dossier, author, "final") | {"relatesTo": [related], "section": sections} | more


@pytest.mark.parametrize(("code", "state"), [("replaces", "correction"), ("appends", "addendum")])
@pytest.mark.parametrize("drafted", [False, True])
def test_a_correction_is_a_version_that_names_what_it_replaces(
    store: Store,
    world: World,
    home: httpx.Client,
    ehr: httpx.Client,
    dossier: str,
    code: str,
    state: str,
    drafted: bool,
) -> None:
    who = world.coordinator.idnps
    first = home.post("Composition", json=_composition(dossier, who, "final")).json()["id"]
    target = {"targetReference": {"reference": f"Composition/{first}"}}
    sent = _correction(dossier, who, target, status="amended")
    sent["relatesTo"][0]["code"] = code
    if drafted:
        draft = home.post("Composition", json=sent | {"status": "preliminary"})
        assert draft.status_code == 201, draft.text
        # Until it is validated the former one is in force, for everybody.
        assert ehr.get(f"DocumentReference/{first}").json()["status"] == "current"
        made = _put(home, draft.json() | {"status": "amended"})
        assert made.status_code == 200, made.text
    else:
        made = home.post("Composition", json=sent)
        assert made.status_code == 201, made.text
    second = made.json()["id"]
    assert made.json()["status"] == "amended"
    with store.session() as session:
        rows = {row.version: row for row in session.scalars(select(Report)).unique()}
        assert {n: (str(row.id), row.state) for n, row in rows.items()} == {
            1: (first, "remplace"),
            2: (second, "valide"),
        }
        content = decode(rows[2].content or b"")
        assert content.replaces is not None
        assert (content.replaces.kind, content.replaces.reason) == (state, "Erreur de côté")
        assert [one.text for one in content.proposals] == ["Chirurgie du sein droit."]
        assert session.get_one(Dossier, uuid.UUID(dossier)).state == state
        sent_of = select(Message.recipient_id).where(Message.kind == "M6", Message.state == "en-attente")
        assert set(session.scalars(sent_of)) == {world.requester.id, world.treating.id}
    # Every form says it: the document, its relation, and what the other establishment reads.
    old, new = (ehr.get(f"DocumentReference/{key}").json() for key in (first, second))
    assert (old["status"], new["status"]) == ("superseded", "current")
    assert [(one["code"], one["target"]["reference"]) for one in new["relatesTo"]] == [
        ("replaces", f"DocumentReference/{first}")
    ]
    # The same once more is nothing; what is no longer in force is neither replaced nor withdrawn.
    again = _put(home, made.json())
    assert (again.status_code, again.headers["etag"]) == (200, made.headers["etag"]), again.text
    for refused in (
        home.post("Composition", json=sent),
        _put(home, home.get(f"Composition/{first}").json() | {"status": "entered-in-error"}),
    ):
        assert (refused.status_code, _code(refused)) == (409, "version-perimee")


def test_a_correction_names_the_version_by_its_number_and_says_why(
    store: Store, world: World, home: httpx.Client, dossier: str
) -> None:
    who = world.coordinator.idnps
    first = home.post("Composition", json=_composition(dossier, who, "final")).json()["id"]
    identifier = home.get(f"DocumentReference/{first}").json()["masterIdentifier"]
    target = {"targetIdentifier": identifier}
    silent = _correction(dossier, who, target)
    del silent["relatesTo"][0]["extension"]
    refused = home.post("Composition", json=silent)
    assert (refused.status_code, _code(refused)) == (422, "cr-motif-absent"), refused.text
    other = _correction(dossier, who, {"targetIdentifier": identifier | {"value": "urn:oid:2.25.1"}})
    assert _code(home.post("Composition", json=other)) == "version-perimee"
    with store.session() as session:
        assert session.scalars(select(Report.state)).all() == ["valide"]
    made = home.post("Composition", json=_correction(dossier, who, target))
    assert made.status_code == 201, made.text
    assert made.json()["status"] == "amended"


def test_a_withdrawal_is_the_same_report_entered_in_error(
    store: Store, world: World, home: httpx.Client, ehr: httpx.Client, dossier: str
) -> None:
    made = home.post("Composition", json=_composition(dossier, world.coordinator.idnps, "final")).json()
    with store.session() as session:
        session.connection().exec_driver_sql("UPDATE message SET state = 'envoye' WHERE kind = 'M6'")
        session.commit()
    withdrawn = made | {"status": "entered-in-error", "extension": [*made["extension"], *_why("Mauvais patient")]}
    assert _code(_put(home, made | {"status": "entered-in-error"})) == "cr-motif-absent"
    assert _code(_put(home, withdrawn | {"title": "Autre titre"})) == "cr-valide"
    assert _code(_put(home, {**withdrawn, "attester": [{"mode": "personal"}]})) in {"cr-valide", "cr-signataire"}
    assert _code(_put(ehr, withdrawn)) == "proprietaire"
    answer = _put(home, withdrawn)
    assert answer.status_code == 200, answer.text
    with store.session() as session:
        [row] = session.scalars(select(Report)).unique()
        assert (row.state, row.withdrawn_because) == ("annule", "Mauvais patient")
        told = set(session.scalars(select(Message.recipient_id).where(Message.kind == "M6r")))
        assert told == {world.requester.id, world.treating.id}
    assert ehr.get(f"Composition/{made['id']}").json()["status"] == "entered-in-error"
    assert ehr.get(f"DocumentReference/{made['id']}").json()["status"] == "entered-in-error"
    assert ehr.get(f"CarePlan/{made['id']}").json()["status"] == "entered-in-error"
    again = _put(home, answer.json())
    assert (again.status_code, again.headers["etag"]) == (200, answer.headers["etag"])
    with store.session() as session:
        assert session.scalar(select(func.count()).select_from(Message).where(Message.kind == "M6r")) == 2


def test_only_the_establishment_of_the_rcp_writes_its_reports(
    world: World, home: httpx.Client, ehr: httpx.Client, dossier: str
) -> None:
    for status in ("preliminary", "final"):
        refused = ehr.post("Composition", json=_composition(dossier, world.coordinator.idnps, status))
        assert (refused.status_code, _code(refused)) == (403, "proprietaire")
    made = home.post("Composition", json=_composition(dossier, world.coordinator.idnps, "final")).json()
    refused = _put(ehr, made | {"title": "Récrit"})
    assert (refused.status_code, _code(refused)) == (403, "proprietaire")
    assert ehr.delete(f"Composition/{made['id']}").status_code in {403, 409}


def test_the_coordinators_own_draft_is_not_overwritten(
    served: Served, store: Store, world: World, home: httpx.Client, dossier: str
) -> None:
    mine = report_draft.ReportDraft(proposal="Écrit au portail.")
    person = world.caller(world.coordinator)
    key = served.steps.run(person, lambda step: report.draft(step, uuid.UUID(dossier), mine).id)
    refused = home.post("Composition", json=_composition(dossier, world.coordinator.idnps))
    assert refused.status_code == 409, refused.text
    assert _draft(store, str(key)).proposal == "Écrit au portail."
    assert home.get(f"Composition/{key}").status_code == 404


def test_another_document_is_kept_as_sent(world: World, home: httpx.Client, ehr: httpx.Client) -> None:
    patient = ehr.post("Patient", json=samples.patient("9", ins=None)).json()["id"]
    letter = _composition(str(uuid.uuid4()), world.coordinator.idnps, "final") | {
        "subject": {"reference": f"Patient/{patient}"}
    }
    made = ehr.post("Composition", json=letter)
    assert (made.status_code, _sent(made.json())) == (201, letter)
    assert home.get(f"Composition/{made.json()['id']}").status_code == 404


def test_the_document_of_a_report_follows_images_that_leave_its_dossier_and_come_back(
    served: Served, store: Store, world: World, home: httpx.Client, ehr: httpx.Client, dossier: str
) -> None:
    """A correction parts a study from the patient after the validation; a person gives it back."""
    with store.session() as session:
        record = session.get_one(Dossier, uuid.UUID(dossier)).record
    said = image_samples.facts(patient=record.value, system=record.system)
    assert image_samples.send(served.steps, world, said) is None
    made = home.post("Composition", json=_composition(dossier, world.coordinator.idnps, "final"))
    assert made.status_code == 201, made.text
    uid = f"urn:oid:{image_samples.STUDY}"

    def named() -> list[str]:
        document = ehr.get(f"DocumentReference/{made.json()['id']}").json()
        found = [one["identifier"]["value"] for one in document["context"]["related"]]
        return [one for one in found if one == uid]

    def version() -> str:
        return str(ehr.get(f"Composition/{made.json()['id']}").json()["meta"]["versionId"])

    before = version()
    assert named() == [uid]
    patient = ehr.get(f"Patient/{record.id}").json()
    corrected = {**patient, "birthDate": "1950-01-01"}
    match = {"If-Match": f'W/"{patient["meta"]["versionId"]}"'}
    answer = ehr.put(f"Patient/{record.id}", json=corrected, headers=match)
    assert answer.status_code == 200, answer.text
    assert named() == []
    person = world.caller(world.coordinator)
    with store.session() as session:
        item = session.scalars(select(WorkItem).where(WorkItem.kind == "imagerie")).one().id

    def back(step: Step) -> None:
        seen = imaging_cases.read(step.session, person, item).seen
        imaging_cases.give(step, item, record_id=record.id, reason="Vérifié", confirmed=True, seen=seen)

    served.steps.run(person, back)
    assert named() == [uid]
    # What was signed has not changed.
    assert version() == before
