"""A study taken from the wrong patient: who may, once, where it goes, and that nothing but a person puts it back."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from gateway.errors import Conflict, GatewayError, InvalidContent, NotFound
from gateway.fhir.represent import Representer
from gateway.model.dossier import Dossier
from gateway.model.imaging import Study, StudyDossier
from gateway.model.person import PatientRecord, WorkItem
from gateway.model.representation import TABLES
from gateway.model.store import utcnow
from gateway.rcp import access, imaging, imaging_cases, imaging_detaching, imaging_match, imaging_orders
from gateway.rcp.facts import IdentifierFact
from gateway.rcp.imaging_orders import ImageOrder
from gateway.rcp.imaging_sending import may_send
from tests.image_samples import facts, send
from tests.unit.rcp.test_imaging_cases import Scene
from tests.world import DOMAIN, audit_lines

IMAGES = TABLES["ImagingStudy"]
WHY = "Bracelet échangé au scanner, signalé par le manipulateur"


@pytest.fixture
def scene(store, make_steps, blobs):
    """A study attached by its IPP to the wrong patient, and the dossier of the right one."""
    with store.session() as session:
        made = Scene(session, make_steps(represent=Representer(blobs)))
        made.right = made.world.record(value="000004", birth_family="PAT-QUATRE", match_key="PATQUATRE")
        made.theirs = made.world.dossier(made.right)
        session.commit()
        assert send(made.steps, made.world, facts()) is None
        assert made.study().state == "rattache"
        yield made


def detach(scene: Scene, who=None, **said) -> None:
    caller = who or scene.coordinator
    study = scene.study().id
    wish = {"reason": WHY, "confirmed": True, "reference": ""} | said
    dossier = wish.pop("dossier", scene.dossier.id)

    def seen(step) -> str:
        return imaging_detaching.read(step.session, caller, dossier, study, wish["reference"]).seen

    if "seen" not in wish:
        wish["seen"] = scene.steps.run(caller, seen)
    scene.steps.run(caller, lambda step: imaging_detaching.detach(step, dossier, study, **wish))


def current(scene: Scene) -> list[dict]:
    """What FHIR says of images now."""
    scene.fresh()
    rows = scene.session.execute(select(IMAGES.c.body).where(IMAGES.c.current, ~IMAGES.c.deleted))
    return [bytes(body) for (body,) in rows]


def events(scene: Scene) -> list[tuple]:
    scene.fresh()
    return [
        (line["dossier"], line["persons"], line["actor_id"])
        for line in audit_lines(scene.session)
        if line.get("reason") == "detachement"
    ]


def test_it_leaves_the_dossier_and_fhir_and_waits_for_a_decision(scene):
    assert len(current(scene)) == 1
    detach(scene)
    study = scene.study()
    assert (study.state, study.reason, study.record_id) == ("quarantaine", imaging_match.DETACHED, None)
    assert scene.links() == []
    assert current(scene) == []
    item = scene.item()
    assert (item.reason, item.closed_at, item.record_id) == (imaging_match.DETACHED, None, scene.record.id)
    assert item.details["motif"] == WHY
    who = scene.world.coordinator.idnps
    assert events(scene) == [(str(scene.dossier.id), [str(scene.record.id)], who)]


def test_nothing_attaches_it_again_to_the_same_patient(scene):
    detach(scene)
    # More of it comes; the sweep passes; a second dossier of the patient opens; his record is corrected; an order says
    # that it is his; somebody has it judged again.
    assert send(scene.steps, scene.world, facts(2)) is None
    scene.session.execute(update(Study).values(last_instance_at=utcnow() - timedelta(hours=1)))
    scene.session.commit()
    imaging.settle(scene.steps)
    second = scene.world.dossier(scene.record)
    scene.session.commit()
    key = second.id

    def inscribe(step) -> None:
        imaging.attach_waiting(step, step.session.get_one(Dossier, key))

    scene.steps.run(scene.coordinator, inscribe)

    def correct(step) -> None:
        record = step.session.get_one(PatientRecord, scene.record.id)
        imaging_match.serialise(step.session, imaging_match.keys_of(record))
        record.used_given = "DOMI"
        step.session.flush()
        imaging_match.recheck(step, record)

    scene.steps.run(scene.coordinator, correct)
    uid = scene.study().study_instance_uid
    order = ImageOrder(
        source="ServiceRequest/1",
        record_id=scene.record.id,
        numbers=(IdentifierFact(system="", value=uid, kind="UID"),),
    )
    partner = scene.world.partner
    scene.steps.run(scene.coordinator, lambda step: imaging_orders.note(step, step.session.merge(partner), order))
    item = scene.item()
    again = scene.steps.run(scene.coordinator, lambda step: imaging_cases.judge_again(step, item.id, None))
    assert again is False
    study = scene.study()
    assert (study.state, study.reason, study.record_id) == ("quarantaine", imaging_match.DETACHED, None)
    assert scene.links() == []
    assert current(scene) == []
    open_now = scene.session.scalars(select(WorkItem).where(WorkItem.closed_at.is_(None))).all()
    assert [one.id for one in open_now] == [item.id], "asked once"
    # Left where it is, and judged again after another correction: still nothing.
    scene.leave(item)
    scene.session.execute(update(PatientRecord).where(PatientRecord.id == scene.record.id).values(used_given=None))
    scene.session.commit()
    taken = scene.steps.run(scene.coordinator, lambda step: imaging_cases.take_up(step, item.id))
    assert scene.steps.run(scene.coordinator, lambda step: imaging_cases.judge_again(step, taken, None)) is False
    assert scene.study().state == "quarantaine"


def test_a_person_gives_it_back_or_to_the_right_patient(scene):
    detach(scene)
    item = scene.item()
    with pytest.raises(InvalidContent) as found:
        scene.give(item, confirmed=False)
    assert found.value.code == "confirmation-absente"
    scene.give(item)
    assert scene.study().record_id == scene.record.id
    assert scene.links() == [(scene.dossier.id, "personne")]
    assert len(current(scene)) == 1
    # Given back, it is his again for all rules: a later object, a sweep.
    assert send(scene.steps, scene.world, facts(2)) is None
    imaging.settle(scene.steps)
    assert scene.study().state == "rattache"


def test_it_goes_to_the_right_patient_in_one_step(scene):
    reference = scene.theirs.reference
    detach(scene, reference=reference)
    study = scene.study()
    assert (study.state, study.record_id) == ("rattache", scene.right.id)
    assert scene.links() == [(scene.theirs.id, "personne")]
    [body] = current(scene)
    assert str(scene.right.id).encode() in body
    assert str(scene.record.id).encode() not in body
    # Of its history a professional reads what was said of this patient, nothing of the other one.
    caller = scene.world.caller(scene.world.treating)
    told = scene.session.scalars(select(IMAGES.c.body).where(access.representations(caller, IMAGES))).all()
    assert told
    assert not any(str(scene.record.id).encode() in bytes(one) for one in told)
    everything = scene.session.scalars(select(IMAGES.c.body)).all()
    assert any(str(scene.record.id).encode() in bytes(one) for one in everything)
    item = scene.item()
    assert (item.decision, item.closed_by) == (imaging_cases.GIVEN, scene.world.coordinator.idnps)
    assert item.details["motif"] == WHY
    persons = sorted([str(scene.record.id), str(scene.right.id)])
    assert [(one[0], sorted(one[1])) for one in events(scene)] == [(str(scene.dossier.id), persons)]
    # His IPP in the objects still names the wrong one: what comes later changes nothing.
    assert send(scene.steps, scene.world, facts(2)) is None
    imaging.settle(scene.steps)
    assert scene.study().record_id == scene.right.id
    assert scene.links() == [(scene.theirs.id, "personne")]


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"reason": "  "}, "motif-absent"),
        ({"reason": "x" * 301}, "motif-trop-long"),
        ({"confirmed": False}, "confirmation-absente"),
        ({"reference": "RCP-RIEN"}, "enregistrement-absent"),
    ],
)
def test_what_is_not_said_is_asked_and_nothing_changes(scene, said, code):
    with pytest.raises(InvalidContent) as found:
        detach(scene, **said)
    assert found.value.code == code
    assert scene.study().state == "rattache"
    assert len(scene.links()) == 1
    assert events(scene) == []


def test_the_patients_own_other_dossier_is_no_other_patient(scene):
    second = scene.world.dossier(scene.record)
    scene.session.commit()
    with pytest.raises(InvalidContent) as found:
        detach(scene, reference=second.reference)
    assert found.value.code == "enregistrement-absent"


def test_who_does_not_organise_the_rcp_finds_nothing(scene):
    for who in (scene.world.treating, scene.world.requester, scene.world.stranger):
        caller = scene.world.caller(who)
        with pytest.raises(NotFound):
            detach(scene, caller, seen="x")
        scene.fresh()
        assert not may_send(scene.session, caller, scene.session.get_one(Dossier, scene.dossier.id))
    with pytest.raises(NotFound):
        detach(scene, dossier=scene.theirs.id, seen="x")
    assert scene.study().state == "rattache"


def test_a_decision_over_what_has_changed_is_refused(scene):
    caller, study = scene.coordinator, scene.study().id
    read = imaging_detaching.read
    seen = scene.steps.run(caller, lambda step: read(step.session, caller, scene.dossier.id, study).seen)
    scene.session.execute(update(PatientRecord).where(PatientRecord.id == scene.record.id).values(birth_date="1980"))
    scene.session.commit()
    with pytest.raises(Conflict) as found:
        detach(scene, seen=seen)
    assert found.value.code == "situation-changee"
    assert scene.study().state == "rattache"


def test_two_at_once_and_the_same_form_twice_detach_once(scene):
    caller, study, dossier = scene.coordinator, scene.study().id, scene.dossier.id
    read = imaging_detaching.read
    seen = scene.steps.run(caller, lambda step: read(step.session, caller, dossier, study).seen)
    together, faults = threading.Barrier(2), []

    def run() -> None:
        together.wait(60)
        try:
            scene.steps.run(
                caller,
                lambda step: imaging_detaching.detach(step, dossier, study, reason=WHY, confirmed=True, seen=seen),
            )
        except GatewayError as error:
            faults.append(error.code)

    both = [threading.Thread(target=run) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(60)
    assert faults == []
    detach(scene, seen=seen)
    assert scene.study().state == "quarantaine"
    assert len(events(scene)) == 1
    assert scene.session.scalars(select(StudyDossier)).all() == []
    assert len(scene.session.scalars(select(WorkItem).where(WorkItem.reason == imaging_match.DETACHED)).all()) == 1


def test_a_new_study_of_the_patient_is_attached_as_ever(scene):
    detach(scene)
    assert send(scene.steps, scene.world, facts(study="1.2.250.1.999999.2026.9.77", system=DOMAIN)) is None
    scene.fresh()
    states = dict(scene.session.execute(select(Study.study_instance_uid, Study.state)).tuples().all())
    assert states["1.2.250.1.999999.2026.9.77"] == "rattache"
