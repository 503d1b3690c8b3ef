"""What is one dossier, what is refused, and what may still change: the verbs on a real database."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from gateway.errors import Conflict, GatewayError, InvalidContent
from gateway.model.dossier import Dossier, DossierMove
from gateway.model.meeting import RcpSession
from gateway.model.message import Message, NotificationEntry
from gateway.model.partner import Partner
from gateway.model.person import PatientRecord
from gateway.model.store import Store
from gateway.rcp import dossier_states, inscription
from gateway.rcp.clinical import form_of
from gateway.rcp.facts import (
    AnswerFacts,
    CodedFact,
    FormFacts,
    IdentifierFact,
    InscriptionFacts,
    ProfessionalFact,
    SessionFact,
    TumourFacts,
)
from gateway.rcp.step import DomainClock, Step, Steps
from tests.world import World, build

BEFORE = datetime(2026, 3, 9, 8, 0, tzinfo=UTC)


class Scene:
    """A world, its steps, and an inscription that a test may vary."""

    def __init__(self, store: Store, world: World, steps: Steps) -> None:
        self.store = store
        self.world = world
        self.steps = steps
        with store.session() as session:
            world.session = session
            record = world.record(treating_idnps=world.treating.idnps)
            session.commit()
        self.record_id = record.id

    def facts(self, **changed: Any) -> InscriptionFacts:
        base: dict[str, Any] = {
            "session": SessionFact(rcp_number=self.world.rcp.national_number, start=self.world.meeting.starts_at),
            "requester": ProfessionalFact(
                identifier=IdentifierFact(system="urn:oid:1.2.250.1.71.4.2.1", value=self.world.requester.idnps)
            ),
            "question": "Chirurgie première ?",
            "tumour": TumourFacts(label="Sein", topography=CodedFact(system="cim", code="C50.4")),
        }
        return InscriptionFacts(**(base | changed))

    def inscribe(self, **changed: Any) -> Dossier:
        def verb(step: Step) -> Dossier:
            record = step.session.get_one(PatientRecord, self.record_id)
            partner = step.session.get_one(Partner, self.world.partner.id)
            return inscription.inscribe(step, record, self.facts(**changed), partner=partner)

        return self.steps.run(self.world.client(), verb)

    def do(self, verb: Callable[[Step, Dossier], Any], dossier: Dossier) -> Any:
        def run(step: Step) -> Any:
            [row] = step.lock(Dossier, dossier.id)
            return verb(step, row)

        return self.steps.run(self.world.client(), run)

    def row(self, dossier: Dossier) -> Dossier:
        with self.store.session() as session:
            return session.scalars(select(Dossier).where(Dossier.id == dossier.id)).unique().one()

    def later_session(self, **changed: Any) -> RcpSession:
        meeting = self.world.meeting
        with self.store.session() as session:
            row = RcpSession(
                **{
                    "rcp_id": meeting.rcp_id,
                    "identifier": "SEANCE-SUIVANTE",
                    "on": meeting.on + timedelta(days=7),
                    "start": meeting.start,
                    "end": meeting.end,
                    "zone": meeting.zone,
                    "starts_at": meeting.starts_at + timedelta(days=7),
                    "ends_at": meeting.ends_at + timedelta(days=7),
                }
                | changed
            )
            session.add(row)
            session.commit()
            return row


@pytest.fixture
def scene(store: Store, make_steps: Callable[..., Steps]) -> Scene:
    with store.session() as session:
        world = build(session)
        session.commit()
    return Scene(store, world, make_steps(clock=DomainClock(BEFORE)))


def _refused(scene: Scene, **changed: Any) -> GatewayError:
    with pytest.raises(GatewayError) as refused:
        scene.inscribe(**changed)
    return refused.value


def test_a_dossier_snapshots_its_correspondents(scene: Scene) -> None:
    dossier = scene.row(scene.inscribe())
    assert (dossier.state, dossier.rank, dossier.label) == ("inscrit", 1, "Sein")
    assert dossier.prefiche_at is None
    assert {one.role: one.practitioner_id for one in dossier.correspondents} == {
        "demandeur": scene.world.requester.id,
        "medecin-traitant": scene.world.treating.id,
    }


def test_same_patient_session_and_tumour_is_a_conflict_two_tumours_are_two_dossiers(scene: Scene) -> None:
    first = scene.inscribe()
    refused = _refused(scene)
    assert isinstance(refused, Conflict)
    assert refused.code == "dossier-deja-inscrit"
    second = scene.inscribe(tumour=TumourFacts(topography=CodedFact(system="cim", code="C34.1")))
    assert second.rank == 2
    scene.do(inscription.cancel, first)
    assert scene.inscribe().id not in {first.id, second.id}


def test_one_number_is_one_dossier(scene: Scene) -> None:
    number = "urn:uuid:6a1f3f0e-5a55-4c2c-9a51-0c6f7d2c8d10"
    scene.inscribe(number=number)
    refused = _refused(scene, number=number, tumour=TumourFacts(label="autre"))
    assert refused.code == "identifiant-deja-utilise"


def test_many_at_once_get_ranks_of_their_own(scene: Scene) -> None:
    def one(place: int) -> int | None:
        return scene.inscribe(tumour=TumourFacts(topography=CodedFact(system="cim", code=f"C{place:02d}"))).rank

    with ThreadPoolExecutor(8) as pool:
        ranks = list(pool.map(one, range(8)))
    assert sorted(rank for rank in ranks if rank) == list(range(1, 9))


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"session": SessionFact(rcp_number="RCP-INCONNUE", start=BEFORE)}, "rcp-inconnue"),
        ({"session": SessionFact()}, "rcp-inconnue"),
        (
            {
                "requester": ProfessionalFact(
                    identifier=IdentifierFact(system="urn:oid:1.2.250.1.71.4.2.1", value="899999999999")
                )
            },
            "professionnel-inconnu",
        ),
        ({"number": "DR-1"}, "urn-forme"),
    ],
)
def test_what_cannot_be_inscribed_is_refused_as_a_rule(scene: Scene, changed: dict[str, Any], code: str) -> None:
    refused = _refused(scene, **changed)
    assert isinstance(refused, InvalidContent)
    assert (refused.code, refused.rule) == (code, True)


def test_a_closed_session_is_refused_with_the_next_open_one(scene: Scene) -> None:
    scene.later_session(state="annulee", identifier="SEANCE-ANNULEE")
    scene.later_session(
        identifier="SEANCE-D-APRES",
        on=scene.world.meeting.on + timedelta(days=14),
        starts_at=scene.world.meeting.starts_at + timedelta(days=14),
        ends_at=scene.world.meeting.ends_at + timedelta(days=14),
    )
    with scene.store.session() as session:
        session.get_one(RcpSession, scene.world.meeting.id).state = "close"
        session.commit()
    refused = _refused(scene)
    assert refused.code == "seance-close"
    assert "02/04/2026 à 14 h 00 (SEANCE-D-APRES)" in refused.text


def test_a_session_may_be_named_by_its_day_and_after_its_end_takes_nothing(
    scene: Scene, make_steps: Callable[..., Steps]
) -> None:
    number = scene.world.rcp.national_number
    day = SessionFact(rcp_number=number, start=scene.world.meeting.on)
    assert scene.inscribe(session=day).session_id == scene.world.meeting.id
    scene.steps = make_steps(clock=DomainClock(scene.world.meeting.ends_at))
    assert _refused(scene, session=day, tumour=None).code == "seance-close"


def test_the_form_makes_the_prefiche_and_is_closed_by_the_discussion(scene: Scene) -> None:
    dossier = scene.inscribe()
    form = FormFacts(completed=True, answers=(AnswerFacts(link_id="motif.question", values=("Et la suite ?",)),))
    scene.do(lambda step, row: inscription.replace_form(step, row, form), dossier)
    row = scene.row(dossier)
    assert (row.state, row.question) == ("prefiche", "Et la suite ?")
    assert row.prefiche_at is not None
    assert form_of(row) == form
    scene.do(lambda step, found: dossier_states.move(step, found, "discute"), dossier)
    with pytest.raises(Conflict) as refused:
        scene.do(lambda step, found: inscription.replace_form(step, found, form), dossier)
    assert refused.value.code == "formulaire-clos"


def test_moving_to_another_session_starts_its_own_limit_and_keeps_history(scene: Scene) -> None:
    dossier = scene.inscribe(form=FormFacts(completed=True))
    first = scene.row(dossier)
    later = scene.later_session()
    scene.do(lambda step, row: inscription.reschedule(step, row, step.session.get_one(RcpSession, later.id)), dossier)
    row = scene.row(dossier)
    assert (row.session_id, row.state, row.rank) == (later.id, "prefiche", 1)
    assert row.prefiche_at is not None
    assert first.prefiche_at is not None
    assert row.prefiche_at > first.prefiche_at
    with scene.store.session() as session:
        moves = session.scalars(select(DossierMove).order_by(DossierMove.at, DossierMove.id)).all()
    assert [move.to_state for move in moves] == ["inscrit", "prefiche", "reporte", "prefiche"]


def test_an_impossible_move_names_both_states(scene: Scene) -> None:
    dossier = scene.inscribe()
    with pytest.raises(InvalidContent) as refused:
        scene.do(lambda step, row: dossier_states.move(step, row, "envoye"), dossier)
    assert refused.value.code == "passage-impossible"
    assert "« inscrit »" in refused.value.text
    assert "« envoye »" in refused.value.text


def test_a_new_treating_physician_applies_until_he_is_notified(scene: Scene) -> None:
    dossier = scene.inscribe()

    def change(step: Step, idnps: str) -> None:
        record = step.session.get_one(PatientRecord, scene.record_id)
        record.treating_idnps = idnps
        inscription.follow_patient(step, record)

    scene.steps.run(scene.world.client(), lambda step: change(step, scene.world.stranger.idnps))
    treating = [one for one in scene.row(dossier).correspondents if one.role == "medecin-traitant"]
    assert [one.practitioner_id for one in treating] == [scene.world.stranger.id]

    with scene.store.session() as session:
        message = Message(
            direction="out",
            channel="mssante",
            kind="M1",
            key="k",
            content=b"x",
            sha256="0",
            size_bytes=1,
            state="en-attente",
            domain_at=BEFORE,
        )
        session.add(message)
        session.flush()
        session.add(
            NotificationEntry(
                dossier_id=dossier.id,
                session_id=dossier.session_id,
                subject="x",
                code="ENVOYE",
                decided_at=BEFORE,
                message_id=message.id,
            )
        )
        session.commit()
    scene.steps.run(scene.world.client(), lambda step: change(step, scene.world.treating.idnps))
    treating = [one for one in scene.row(dossier).correspondents if one.role == "medecin-traitant"]
    assert [one.practitioner_id for one in treating] == [scene.world.stranger.id]


def test_every_state_has_a_label_and_every_move_leads_to_a_state() -> None:
    states = set(dossier_states.MOVES) - {""}
    assert states == set(dossier_states.LABELS)
    assert {to for following in dossier_states.MOVES.values() for to in following} == states
    assert {"refuse", "annule"} == dossier_states.FINAL
    # DECISIONS 3: being notified is no gate.
    assert dossier_states.actors("prefiche", "discute")
