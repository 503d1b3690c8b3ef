"""Images matched by the order that they answer, with what guards it; and what a dossier awaits."""

from __future__ import annotations

import threading
from datetime import date

import pytest
from sqlalchemy import select

from gateway.errors import Conflict, Forbidden, InvalidContent, NotFound
from gateway.fhir.represent import Representer
from gateway.model.imaging import AwaitedStudy, Study, StudyDossier
from gateway.model.partner import Partner
from gateway.model.person import WorkItem
from gateway.rcp import imaging_awaited, imaging_orders
from gateway.rcp.access import SYSTEM
from gateway.rcp.facts import IdentifierFact
from gateway.rcp.imaging_orders import ImageOrder
from tests.image_samples import STUDY, facts, send
from tests.world import DOMAIN, build

RIS = "https://ris.chu-x.example/ns/accession"
ORDER = IdentifierFact(system=RIS, value="ACC-556677", kind="ACSN")


class Scene:
    def __init__(self, session, steps) -> None:
        self.session, self.steps = session, steps
        self.world = build(session)
        self.record = self.world.record(value="000003")
        self.dossier = self.world.dossier(self.record)
        session.commit()

    def order(self, *numbers, record=None, partner=None, source="ServiceRequest/irm", **said):
        def verb(step):
            owner = step.session.get_one(Partner, (partner or self.world.partner).id)
            order = ImageOrder(source=source, record_id=(record or self.record).id, numbers=numbers, **said)
            imaging_orders.note(step, owner, order)

        self.steps.run(SYSTEM, verb)

    def state(self) -> tuple[str, str | None, list[str]]:
        self.session.rollback()
        self.session.expire_all()
        study = self.session.scalars(select(Study)).one()
        return study.state, study.reason, list(self.session.scalars(select(StudyDossier.basis)))

    def imagery(self):
        self.session.rollback()
        self.session.expire_all()
        dossier = self.session.merge(self.dossier)
        return imaging_awaited.imagery(self.session, [dossier], set())[dossier.id]


@pytest.fixture
def scene(store, make_steps, blobs):
    with store.session() as session:
        yield Scene(session, make_steps(represent=Representer(blobs)))


@pytest.mark.parametrize("system", [RIS, ""])
def test_an_accession_number_attaches_images_that_name_no_known_patient(scene, system):
    scene.world.partner.patient_domains = [DOMAIN, "https://chu-x.example/ns/laboratoire"]  # which one is not said
    scene.session.commit()
    scene.order(ORDER)
    assert send(scene.steps, scene.world, facts(patient="AUTRE-1", system="", accession=(system, "ACC-556677"))) is None
    assert scene.state() == ("rattache", None, ["demande"])


@pytest.mark.parametrize("kind", ["PLAC", "FILL"])
def test_an_order_number_does_too(scene, kind):
    scene.order(IdentifierFact(system="https://ehr.example/ns", value="42", kind=kind))
    order = IdentifierFact(system="", value="42", kind=kind)
    assert send(scene.steps, scene.world, facts(patient=None, orders=(order,))) is None
    assert scene.state() == ("rattache", None, ["demande"])


def test_the_number_of_the_inscription_does_too(scene):
    scene.dossier.placer_system, scene.dossier.placer_value = "https://ehr.example/ns", "DEM-7"
    scene.session.commit()
    order = IdentifierFact(system="https://ehr.example/ns", value="DEM-7", kind="PLAC")
    assert send(scene.steps, scene.world, facts(patient=None, orders=(order,))) is None
    assert scene.state() == ("rattache", None, ["demande"])


@pytest.mark.parametrize(
    "number",
    [
        IdentifierFact(system="https://autre-ris.example", value="ACC-556677", kind="ACSN"),
        IdentifierFact(system=RIS, value="ACC-556678", kind="ACSN"),
        IdentifierFact(system=RIS, value="ACC-556677", kind="PLAC"),
    ],
    ids=["issuer", "value", "kind"],
)
def test_another_issuer_value_or_kind_is_another_order(scene, number):
    scene.order(number)
    assert send(scene.steps, scene.world, facts(patient=None, accession=(RIS, "ACC-556677"))) is None
    assert scene.state()[0] == "attendu"


def test_an_order_of_another_organisation_says_nothing(scene):
    other = Partner(name="CHU Y", network_id=scene.world.network.id, patient_domains=["https://chu-y.example"])
    scene.session.add(other)
    scene.session.commit()
    scene.order(ORDER, partner=other)
    assert send(scene.steps, scene.world, facts(patient=None, accession=(RIS, "ACC-556677"))) is None
    assert scene.state()[0] == "attendu"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"birth_date": date(1980, 1, 1)}, "date-de-naissance-differente"),
        ({"family": "MARTIN"}, "nom-different"),
        ({"patient": "000099", "system": DOMAIN}, "identifiants-contradictoires"),
    ],
)
def test_an_order_never_attaches_over_a_contradiction(scene, said, reason):
    scene.order(ORDER)
    said = {"patient": None} | said
    assert send(scene.steps, scene.world, facts(accession=(RIS, "ACC-556677"), **said)) is None
    assert scene.state() == ("quarantaine", reason, [])
    assert scene.session.scalars(select(WorkItem.reason)).all() == [reason]


@pytest.mark.parametrize("silent", ["family", "birth_date"])
def test_an_order_alone_only_proposes(scene, silent):
    scene.order(ORDER)
    assert send(scene.steps, scene.world, facts(patient=None, accession=(RIS, "ACC-556677"), **{silent: None})) is None
    assert scene.state() == ("propose", "demande-sans-traits", [])
    item = scene.session.scalars(select(WorkItem)).one()
    assert item.details["enregistrements"] == [str(scene.record.id)]


def test_images_of_one_patient_under_the_order_of_another_are_nobody_s(scene):
    """The worklist of the modality gave the wrong name: number and order disagree."""
    other = scene.world.record(value="000050", birth_family="PAT-TROIS")
    scene.session.commit()
    scene.order(ORDER, record=other)
    assert send(scene.steps, scene.world, facts(accession=(RIS, "ACC-556677"))) is None
    assert scene.state() == ("quarantaine", "demande-d-un-autre-patient", [])


def test_without_its_issuer_an_order_does_not_speak_against_a_number(scene):
    other = scene.world.record(value="000050")
    scene.session.commit()
    scene.order(ORDER, record=other)
    assert send(scene.steps, scene.world, facts(accession=("", "ACC-556677"))) is None
    assert scene.state() == ("rattache", None, ["ipp"])


def test_images_that_came_before_their_order_are_attached_when_it_comes(scene):
    assert send(scene.steps, scene.world, facts(patient=None, accession=(RIS, "ACC-556677"))) is None
    assert scene.state()[0] == "attendu"
    scene.order(ORDER)
    assert scene.state() == ("rattache", None, ["demande"])


def test_an_order_and_its_images_at_the_same_instant_find_each_other(scene):
    said = facts(patient=None, accession=(RIS, "ACC-556677"))
    start = threading.Barrier(2)

    def at_once(act):
        start.wait()
        act()

    both = [
        threading.Thread(target=at_once, args=(lambda: scene.order(ORDER),)),
        threading.Thread(target=at_once, args=(lambda: send(scene.steps, scene.world, said),)),
    ]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert scene.state() == ("rattache", None, ["demande"])


def test_a_cancelled_order_is_awaited_no_more(scene):
    scene.order(ORDER, label="IRM", modality="MR")
    assert [one.label for one in scene.imagery().missing] == ["IRM"]
    scene.steps.run(
        SYSTEM,
        lambda step: imaging_orders.forget(
            step, step.session.get_one(Partner, scene.world.partner.id), "ServiceRequest/irm"
        ),
    )
    assert scene.imagery().awaited == ()
    assert send(scene.steps, scene.world, facts(patient=None, accession=(RIS, "ACC-556677"))) is None
    assert scene.state()[0] == "attendu"


# ---- what a dossier awaits


def declare(scene: Scene, who, label="IRM mammaire", modality="MR", planned_on=None, key="cle-0001"):
    caller = scene.world.caller(who)
    scene.steps.run(
        caller,
        lambda step: imaging_orders.declare(
            step, scene.dossier.id, label=label, modality=modality, planned_on=planned_on, key=key
        ),
    )


@pytest.mark.req("S0-082")
def test_a_dossier_says_what_is_missing_until_it_comes(scene):
    declare(scene, scene.world.requester)
    scene.order(ORDER, label="Scanner", modality="CT")
    assert [one.label for one in scene.imagery().missing] == ["IRM mammaire", "Scanner"]
    assert not scene.imagery().complete
    assert send(scene.steps, scene.world, facts(accession=(RIS, "ACC-556677"))) is None
    assert [one.label for one in scene.imagery().missing] == ["IRM mammaire"]
    assert send(scene.steps, scene.world, facts(study=f"{STUDY}.7", modality="MR")) is None
    seen = scene.imagery()
    assert (seen.missing, seen.received, seen.complete) == ((), 2, True)
    studies = {one.study_instance_uid: one.id for one in scene.session.scalars(select(Study))}
    came = {one.label: one.study_id for one in seen.awaited}
    assert came == {"IRM mammaire": studies[f"{STUDY}.7"], "Scanner": studies[STUDY]}


def test_images_taken_before_the_exam_is_planned_are_another_exam(scene):
    declare(scene, scene.world.requester, modality="CT", planned_on=date(2026, 3, 10))
    assert send(scene.steps, scene.world, facts(started=date(2026, 2, 1))) is None
    assert [one.label for one in scene.imagery().missing] == ["IRM mammaire"]
    assert send(scene.steps, scene.world, facts(study=f"{STUDY}.8", started=date(2026, 3, 10))) is None
    assert scene.imagery().missing == ()


def test_one_study_answers_one_line(scene):
    declare(scene, scene.world.requester, modality="CT")
    declare(scene, scene.world.requester, label="Scanner de contrôle", modality="CT", key="cle-0002")
    assert send(scene.steps, scene.world, facts()) is None
    assert [one.label for one in scene.imagery().missing] == ["Scanner de contrôle"]


def test_who_reads_the_fiche_only_declares_nothing(scene):
    for who, refusal in ((scene.world.treating, Forbidden), (scene.world.stranger, NotFound)):
        with pytest.raises(refusal):
            declare(scene, who)
    assert scene.session.scalars(select(AwaitedStudy)).all() == []


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"label": " "}, "examen-absent"),
        ({"label": "x" * 121}, "examen-trop-long"),
        ({"modality": "ZZ"}, "modalite-inconnue"),
    ],
)
def test_a_declaration_is_judged(scene, said, code):
    with pytest.raises(InvalidContent) as refused:
        declare(scene, scene.world.requester, **said)
    assert refused.value.code == code


def test_a_person_takes_back_what_a_person_declared_only(scene):
    for _ in range(2):
        declare(scene, scene.world.requester)
    scene.order(ORDER, label="Scanner", modality="CT")
    lines = {one.label: one.id for one in scene.imagery().awaited}
    assert len(lines) == 2
    caller = scene.world.caller(scene.world.coordinator)
    with pytest.raises(Conflict) as refused:
        scene.steps.run(caller, lambda step: imaging_orders.take_back(step, scene.dossier.id, lines["Scanner"]))
    assert refused.value.code == "examen-demande"
    for _ in range(2):
        scene.steps.run(caller, lambda step: imaging_orders.take_back(step, scene.dossier.id, lines["IRM mammaire"]))
    assert [one.label for one in scene.imagery().awaited] == ["Scanner"]
