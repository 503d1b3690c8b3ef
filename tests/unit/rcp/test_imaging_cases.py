"""What a person decides about images: who may, once, over what he saw, and what follows."""

from __future__ import annotations

import threading
import uuid
from dataclasses import replace
from datetime import date

import pytest
from sqlalchemy import select, update

from gateway.errors import Conflict, InvalidContent, NotFound
from gateway.fhir.represent import Representer
from gateway.model.dossier import Dossier
from gateway.model.imaging import Instance, QuarantinedObject, Study, StudyDossier
from gateway.model.meeting import RcpMember
from gateway.model.person import PatientRecord, WorkItem
from gateway.model.representation import TABLES
from gateway.rcp import access, imaging, imaging_cases, imaging_match
from gateway.rcp.access import SYSTEM
from gateway.rcp.facts import Sex
from tests.image_samples import content, facts, send
from tests.world import audit_lines, build

IMAGES = TABLES["ImagingStudy"]
WHY = "Erreur de saisie au scanner, confirmée par le manipulateur"


class Scene:
    """A hospital, its coordinator, and what the database says now."""

    def __init__(self, session, steps) -> None:
        self.session, self.steps = session, steps
        self.world = build(session)
        self.record = self.world.record(value="000003", match_key="PATTROIS|DOMINIQUE|1979-03-28|F")
        self.dossier = self.world.dossier(self.record)
        session.commit()
        self.coordinator = self.world.caller(self.world.coordinator)

    def fresh(self) -> None:
        self.session.rollback()
        self.session.expire_all()

    def study(self) -> Study:
        self.fresh()
        return self.session.scalars(select(Study)).one()

    def links(self) -> list[tuple[uuid.UUID, str]]:
        self.fresh()
        return [(one.dossier_id, one.basis) for one in self.session.scalars(select(StudyDossier))]

    def item(self) -> WorkItem:
        self.fresh()
        return self.session.scalars(select(WorkItem).order_by(WorkItem.opened_at.desc(), WorkItem.id.desc())).first()

    def seen(self, item: WorkItem, who=None, reference: str = "") -> str:
        caller = who or self.coordinator
        return self.steps.run(caller, lambda step: imaging_cases.read(step.session, caller, item.id, reference).seen)

    def give(self, item: WorkItem, who=None, **said):
        reference = said.get("reference", "")
        wish = {"reason": WHY, "confirmed": True, "seen": None} | said
        if wish["seen"] is None:
            wish["seen"] = self.seen(item, who, reference)
        if not reference:
            wish.setdefault("record_id", self.record.id)
        return self.steps.run(who or self.coordinator, lambda step: imaging_cases.give(step, item.id, **wish))

    def leave(self, item: WorkItem, who=None, reason: str = WHY):
        return self.steps.run(who or self.coordinator, lambda step: imaging_cases.leave(step, item.id, reason))

    def shown(self) -> list[str]:
        """Images that the treating physician is shown over FHIR."""
        self.fresh()
        caller = self.world.caller(self.world.treating)
        wanted = select(IMAGES.c.id).where(access.representations(caller, IMAGES), IMAGES.c.current, ~IMAGES.c.deleted)
        return list(self.session.scalars(wanted))


@pytest.fixture
def scene(store, make_steps, blobs):
    with store.session() as session:
        yield Scene(session, make_steps(represent=Representer(blobs)))


def proposed(scene: Scene) -> WorkItem:
    """A study that says no number of the patient: only his traits."""
    assert send(scene.steps, scene.world, facts(patient="inconnu-ici")) is None
    assert scene.study().state == "propose"
    return scene.item()


def held(scene: Scene) -> WorkItem:
    """A study whose birth date contradicts the record."""
    assert send(scene.steps, scene.world, facts(birth_date=date(1980, 3, 28))) is None
    assert scene.study().state == "quarantaine"
    return scene.item()


# ---- a proposal


def test_a_confirmed_proposal_stands_in_the_dossier_and_in_fhir(scene):
    item = proposed(scene)
    assert scene.shown() == []
    scene.give(item)
    study = scene.study()
    assert (study.state, study.record_id) == ("rattache", scene.record.id)
    assert scene.links() == [(scene.dossier.id, "personne")]
    assert scene.shown() == [str(study.id)]
    closed = scene.item()
    assert (closed.closed_by, closed.decision) == (scene.world.coordinator.idnps, "rattache")
    assert closed.details["motif"] == WHY
    said = [one for one in audit_lines(scene.session) if one.get("reason") == "decision-rattachement"]
    assert [(one["actor_id"], one["persons"]) for one in said] == [
        (scene.world.coordinator.idnps, [str(scene.record.id)])
    ]
    # What comes later of the same study belongs to it without another question.
    assert send(scene.steps, scene.world, facts(2, patient="inconnu-ici")) is None
    assert scene.session.scalars(select(WorkItem).where(WorkItem.closed_at.is_(None))).all() == []


def test_a_refused_proposal_is_not_made_again_until_it_says_something_else(scene):
    item = proposed(scene)
    scene.leave(item)
    assert (scene.study().state, scene.links(), scene.shown()) == ("attendu", [], [])
    partner = scene.world.partner

    def again(step):
        study = step.lock(Study, scene.study().id)[0]
        imaging_match.recognise(step, step.session.merge(partner, load=False), study)

    scene.steps.run(SYSTEM, again)
    assert scene.study().state == "attendu"
    assert scene.item().id == item.id
    # The record is corrected: what was refused then is no answer to what is said now.
    scene.session.execute(update(PatientRecord).where(PatientRecord.id == scene.record.id).values(used_family="AUTRE"))
    scene.session.commit()
    scene.steps.run(SYSTEM, again)
    assert scene.study().state == "propose"
    assert scene.item().id != item.id


def test_a_proposal_that_its_number_answers_later_asks_nobody_any_more(scene):
    item = proposed(scene)
    scene.world.dossier(scene.world.record(value="inconnu-ici", match_key=scene.record.match_key))
    scene.session.commit()
    imaging.settle(scene.steps)
    assert scene.study().state == "rattache"
    closed = scene.item()
    assert (closed.id, closed.closed_by, closed.decision) == (item.id, "rcp-gateway", "nouvelle-recue")


# ---- the quarantine


def test_a_study_is_released_only_by_who_says_that_he_compared(scene):
    item = held(scene)
    with pytest.raises(InvalidContent) as refused:
        scene.give(item, confirmed=False)
    assert refused.value.code == "confirmation-absente"
    assert (scene.study().state, scene.links(), scene.shown()) == ("quarantaine", [], [])
    scene.give(item)
    assert scene.links() == [(scene.dossier.id, "personne")]
    assert scene.shown() == [str(scene.study().id)]


def test_a_release_names_its_reason(scene):
    item = held(scene)
    for written, code in ((" ", "motif-absent"), ("x" * 301, "motif-trop-long")):
        with pytest.raises(InvalidContent) as refused:
            scene.give(item, reason=written)
        assert refused.value.code == code
        with pytest.raises(InvalidContent):
            scene.leave(item, reason=written)
    assert scene.study().state == "quarantaine"
    assert scene.item().closed_at is None


def test_a_study_is_released_to_the_patient_of_a_dossier_that_is_named(scene):
    item = held(scene)
    other = scene.world.record(value="000077", birth_date="1980-03-28")
    theirs = scene.world.dossier(other)
    scene.session.commit()
    scene.give(item, reference=theirs.reference.lower())
    assert scene.study().record_id == other.id
    assert scene.links() == [(theirs.id, "personne")]


def test_what_is_kept_refused_stays_and_can_be_taken_up(scene):
    item = held(scene)
    scene.leave(item)
    assert (scene.study().state, scene.shown()) == ("quarantaine", [])
    caller = scene.coordinator
    # More objects of it ask nothing again.
    assert send(scene.steps, scene.world, facts(2, birth_date=date(1980, 3, 28))) is None
    assert scene.item().id == item.id
    [left] = scene.steps.run(caller, lambda step: imaging_cases.cases(step.session, caller, limit=9, left=True))
    assert left.id == item.id
    new = scene.steps.run(caller, lambda step: imaging_cases.take_up(step, item.id))
    assert new != item.id
    assert scene.steps.run(caller, lambda step: imaging_cases.take_up(step, item.id)) == new
    scene.give(scene.item())
    assert scene.links() == [(scene.dossier.id, "personne")]
    with pytest.raises(Conflict):
        scene.steps.run(caller, lambda step: imaging_cases.take_up(step, item.id))


def test_a_study_is_judged_again_when_its_patient_was_corrected(scene):
    item = held(scene)
    caller = scene.coordinator

    def again(step):
        return imaging_cases.judge_again(step, item.id, None)

    assert scene.steps.run(caller, again) is False
    assert scene.study().state == "quarantaine"
    assert scene.item().closed_at is None
    scene.session.execute(
        update(PatientRecord).where(PatientRecord.id == scene.record.id).values(birth_date="1980-03-28")
    )
    scene.session.commit()
    assert scene.steps.run(caller, again) is True
    assert scene.links() == [(scene.dossier.id, "ipp")]
    assert scene.item().decision == "nouvelle-recue"


# ---- who, once, and over what


def test_who_does_not_organise_finds_no_case(scene):
    item = held(scene)
    member = scene.world.practitioner("MEMBRE")
    scene.session.add(RcpMember(rcp_id=scene.world.rcp.id, practitioner_id=member.id, role="membre"))
    scene.session.commit()
    for who in (scene.world.treating, scene.world.requester, scene.world.stranger, member):
        caller = scene.world.caller(who)
        for verb in (
            lambda step: imaging_cases.read(step.session, step.caller, item.id),
            lambda step: imaging_cases.leave(step, item.id, WHY),
            lambda step: imaging_cases.give(
                step, item.id, record_id=scene.record.id, reason=WHY, confirmed=True, seen="x"
            ),
            lambda step: imaging_cases.judge_again(step, item.id, None),
            lambda step: imaging_cases.take_up(step, item.id),
        ):
            with pytest.raises(NotFound):
                scene.steps.run(caller, verb)
    assert scene.study().state == "quarantaine"
    refusals = [one for one in audit_lines(scene.session) if one["event"] == "refus"]
    assert {one["object_id"] for one in refusals} == {str(item.id)}


def elsewhere(scene: Scene):
    """Another RCP of the same network, and who organises it."""
    rcp = type(scene.world.rcp)(
        network_id=scene.world.network.id,
        organisation_id=scene.world.organisation.id,
        national_number="essai-uro",
        title="Urologie",
        place="Salle B",
        contact="uro@example.org",
        signature="Le secrétariat",
        quorum={"minimum": 3},
        notification={"active": True},
    )
    person = scene.world.practitioner("AILLEURS")
    scene.session.add(rcp)
    scene.session.flush()
    scene.session.add(RcpMember(rcp_id=rcp.id, practitioner_id=person.id, role="coordonnateur"))
    scene.session.commit()
    return scene.world.caller(person)


def test_the_patient_of_a_dossier_is_only_its_organiser_s_case(scene):
    caller = elsewhere(scene)
    item = held(scene)
    with pytest.raises(NotFound):
        scene.steps.run(caller, lambda step: imaging_cases.read(step.session, caller, item.id))
    assert scene.steps.run(caller, lambda step: list(imaging_cases.cases(step.session, caller, limit=9))) == []


def test_a_dossier_of_another_meeting_takes_no_images_from_who_does_not_organise_it(scene):
    caller = elsewhere(scene)
    assert send(scene.steps, scene.world, facts(system="https://chu-y.example/ns/ipp", given="AUTRE")) is None
    item = scene.item()
    assert (item.reason, scene.study().state) == ("domaine-hors-partenaire", "attendu")
    mark = scene.steps.run(caller, lambda step: imaging_cases.read(step.session, caller, item.id).seen)
    for wish in ({"reference": scene.dossier.reference}, {"record_id": scene.record.id}):
        with pytest.raises((NotFound, InvalidContent)):
            scene.give(item, caller, seen=mark, **wish)
    assert scene.links() == []
    scene.leave(item, caller)
    assert (scene.study().state, scene.item().decision) == ("attendu", "laisse")


def test_a_decision_over_a_record_that_changed_meanwhile_is_refused(scene):
    item = held(scene)
    mark = scene.seen(item)
    scene.session.execute(
        update(PatientRecord).where(PatientRecord.id == scene.record.id).values(birth_family="MARTIN")
    )
    scene.session.commit()
    with pytest.raises(Conflict) as refused:
        scene.give(item, seen=mark)
    assert refused.value.code == "situation-changee"
    assert (scene.study().state, scene.item().closed_at) == ("quarantaine", None)


def test_of_two_people_at_once_one_decides_and_the_other_is_told(scene):
    item = held(scene)
    second = scene.world.practitioner("SECRETAIRE")
    scene.session.add(RcpMember(rcp_id=scene.world.rcp.id, practitioner_id=second.id, role="secretaire"))
    scene.session.commit()
    mark, start, told = scene.seen(item), threading.Barrier(2), []

    def decide(who, act):
        start.wait()
        try:
            scene.steps.run(scene.world.caller(who), act)
            told.append("fait")
        except Conflict as refusal:
            told.append(refusal.code)

    wish = {"record_id": scene.record.id, "reason": WHY, "confirmed": True, "seen": mark}
    people = [
        threading.Thread(
            target=decide,
            args=(scene.world.coordinator, lambda step: imaging_cases.give(step, item.id, **wish)),
        ),
        threading.Thread(target=decide, args=(second, lambda step: imaging_cases.leave(step, item.id, WHY))),
    ]
    for one in people:
        one.start()
    for one in people:
        one.join()
    assert sorted(told) == ["deja-traite", "fait"]
    given = scene.item().decision == "rattache"
    assert scene.study().state == ("rattache" if given else "quarantaine")
    assert len(scene.links()) == int(given)


def test_the_same_form_twice_decides_once(scene):
    item = held(scene)
    mark = scene.seen(item)
    for _ in range(2):
        scene.give(item, seen=mark)
    said = [one for one in audit_lines(scene.session) if one.get("reason") == "decision-rattachement"]
    assert len(said) == 1


# ---- after the release


def correct(scene: Scene, **values) -> None:
    """A correction of the record, as a hospital's software makes it."""

    def verb(step):
        record = step.session.get_one(PatientRecord, scene.record.id)
        imaging_match.serialise(step.session, imaging_match.keys_of(record))
        [record] = step.lock(PatientRecord, scene.record.id)
        for name, value in values.items():
            setattr(record, name, value)
        step.session.flush()
        imaging_match.recheck(step, record)
        step.touch(record)

    scene.steps.run(SYSTEM, verb)


def test_a_release_holds_against_corrections_that_say_nothing_of_the_identity(scene):
    scene.give(held(scene))
    correct(scene, birth_place="33063")
    assert scene.study().state == "rattache"
    assert scene.links() == [(scene.dossier.id, "personne")]


def test_a_correction_that_says_something_new_asks_again_and_a_release_puts_back_what_had_left(scene):
    scene.give(held(scene))
    correct(scene, sex="M")
    study, item = scene.study(), scene.item()
    assert (study.state, study.reason, scene.links()) == ("quarantaine", "date-de-naissance-differente", [])
    assert (item.closed_at, item.details["dossiers"]) == (None, [str(scene.dossier.id)])
    assert scene.shown() == []
    # The report is validated meanwhile: the dossier takes no new study, but gets back its own.
    scene.session.execute(update(Dossier).where(Dossier.id == scene.dossier.id).values(state="envoye"))
    scene.session.commit()
    scene.give(item)
    assert scene.links() == [(scene.dossier.id, "personne")]
    assert scene.shown() == [str(study.id)]


# ---- single objects


class Objects:
    """What kept bytes say; refuses like the reader of objects while it cannot read one."""

    def __init__(self, said=None) -> None:
        self.said = said

    def read(self, sha256):
        assert len(sha256) == 64
        if self.said is None:
            raise InvalidContent("dicom-unreadable", "Objet DICOM illisible.")
        return self.said


def test_an_object_kept_aside_is_admitted_once_it_can_be_read(scene):
    said = facts()

    def aside(step):
        imaging.quarantine(step, said.instance.sop_instance_uid, content(said), "defaut")

    caller = replace(scene.world.client(), identifier="CHUX_PACS")
    scene.steps.run(caller, aside)
    item = scene.item()
    who = scene.coordinator
    with pytest.raises(InvalidContent):
        scene.steps.run(who, lambda step: imaging_cases.judge_again(step, item.id, Objects()))
    assert scene.item().closed_at is None
    assert scene.steps.run(who, lambda step: imaging_cases.judge_again(step, item.id, Objects(said))) is True
    kept = scene.session.scalars(select(Instance)).one()
    assert (kept.sha256, kept.partner_id) == (content(said).sha256, scene.world.partner.id)
    row = scene.session.scalars(select(QuarantinedObject)).one()
    assert (row.decision, row.judged_by) == ("admis", scene.world.coordinator.idnps)
    assert scene.item().decision == "admis"
    assert scene.links() == [(scene.dossier.id, "ipp")]


def test_other_bytes_stay_refused_and_another_object_is_never_taken_for_it(scene):
    said = facts()
    assert send(scene.steps, scene.world, said) is None
    assert send(scene.steps, scene.world, said, imaging.Content("b" * 64, 9)).code == "duplicate-instance"
    item = scene.item()
    with pytest.raises(Conflict) as refused:
        scene.steps.run(scene.coordinator, lambda step: imaging_cases.judge_again(step, item.id, Objects(said)))
    assert refused.value.code == "duplicate-instance"
    with pytest.raises(InvalidContent) as mistaken:
        scene.steps.run(scene.coordinator, lambda step: imaging_cases.judge_again(step, item.id, Objects(facts(9))))
    assert mistaken.value.code == "dicom-mismatch"
    assert scene.item().closed_at is None
    scene.leave(item)
    assert scene.session.scalars(select(QuarantinedObject.decision)).one() == "laisse"
    assert len(scene.session.scalars(select(Instance)).all()) == 1


def test_an_object_of_another_patient_is_kept_with_its_study(scene):
    assert send(scene.steps, scene.world, facts()) is None
    assert send(scene.steps, scene.world, facts(2, sex=Sex.MALE)).code == "identity-mismatch"
    row = scene.session.scalars(select(QuarantinedObject)).one()
    assert row.study_id == scene.study().id
