"""Who said a field last, two editors at once, and what a fiche still lacks: the verbs on a real database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy.orm import Session

from gateway.errors import Conflict, Forbidden, InvalidContent, NotFound
from gateway.model.dossier import Dossier
from gateway.model.imaging import Study, StudyDossier
from gateway.rcp import fiche, inscription
from gateway.rcp.clinical import form_values
from gateway.rcp.facts import AnswerFacts, CodedFact, FormFacts, InscriptionFacts, SessionFact, TumourFacts
from gateway.rcp.fiche_fields import fields, sections
from gateway.rcp.report_fiche import content_of
from tests.world import World, build

NOW = datetime(2026, 3, 12, 9, 0, tzinfo=UTC)
CIM10 = "https://smt.esante.gouv.fr/terminologie-cim-10"


@pytest.fixture
def world(store) -> Any:
    with store.session() as session:
        made = build(session)
        session.commit()
        yield made


@pytest.fixture
def row(world: World) -> Dossier:
    clinical = {"tumour": {"topography": {"code": "C50.4", "system": CIM10}, "stage": "cT2 N0 M0"}}
    made = world.dossier(clinical=clinical)
    world.session.commit()
    return made


def _values(row: Dossier) -> dict[str, Any]:
    return {key: one.value for key, one in fiche.statements(row).items()}


def _take(row: Dossier, source: str, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    fiche.take(row, before, after, source=source, at=NOW)
    return _values(row)


def test_the_last_statement_that_changed_something_holds_whoever_made_it(row: Dossier) -> None:
    assert _values(row)["tumeur.code"] == "C50.4"
    oms = "Observation/oms"
    assert _take(row, oms, {}, {"etat.oms": 1})["etat.oms"] == 1
    assert _take(row, "formulaire", {}, {"etat.oms": 2})["etat.oms"] == 2
    # A source that repeats itself says nothing anew.
    assert _take(row, oms, {"etat.oms": 1}, {"etat.oms": 1})["etat.oms"] == 2
    assert _take(row, oms, {"etat.oms": 1}, {"etat.oms": 3})["etat.oms"] == 3
    # What it withdraws goes, if it was its own.
    assert _take(row, "formulaire", {"etat.oms": 2}, {})["etat.oms"] == 3
    assert "etat.oms" not in _take(row, oms, {"etat.oms": 3}, {})


def test_a_resource_adds_and_removes_its_own_element_only(row: Dossier) -> None:
    first = {"conclusion": "Bénin.", "de": "DiagnosticReport/a"}
    second = {"conclusion": "Malin.", "de": "DiagnosticReport/b"}
    _take(row, "DiagnosticReport/a", {}, {"acp": [first]})
    assert _take(row, "DiagnosticReport/b", {}, {"acp": [second]})["acp"] == [first, second]
    corrected = first | {"conclusion": "Atypique."}
    assert _take(row, "DiagnosticReport/a", {"acp": [first]}, {"acp": [corrected]})["acp"] == [second, corrected]
    assert _take(row, "DiagnosticReport/b", {"acp": [second]}, {})["acp"] == [corrected]
    assert [one.conclusion for one in content_of(row).quoted] == ["Atypique."]


def test_two_editors_at_once_write_both_fields_or_are_told(world: World, row: Dossier, make_steps) -> None:
    steps = make_steps()
    read = fiche.reading_of(row)
    people = (world.caller(world.requester), world.caller(world.coordinator))
    changes = ({"tumeur.t": "T1"}, {"tumeur.t": "T3"})

    def write(which: int) -> str:
        try:
            steps.run(people[which], lambda step: fiche.edit(step, row.id, changes[which], expected=read).id)
        except Conflict as error:
            return error.code
        return "écrit"

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(write, (0, 1)))
    assert sorted(found) == ["fiche-changee", "écrit"]
    world.session.expire_all()
    assert _values(row)["tumeur.t"] == ("T1" if found[0] == "écrit" else "T3")


def test_only_the_requester_and_the_organisers_write(world: World, row: Dossier, make_steps) -> None:
    steps = make_steps()
    for who, refusal in ((world.treating, Forbidden), (world.stranger, NotFound)):
        with pytest.raises(refusal):
            steps.run(world.caller(who), lambda step: fiche.edit(step, row.id, {"tumeur.t": "T1"}).id)
    with pytest.raises(InvalidContent, match="champ-inconnu"):
        steps.run(world.caller(world.requester), lambda step: fiche.edit(step, row.id, {"couleur": "bleu"}).id)
    row.state = "annule"
    world.session.commit()
    with pytest.raises(Conflict, match="formulaire-clos"):
        steps.run(world.caller(world.requester), lambda step: fiche.edit(step, row.id, {"tumeur.t": "T1"}).id)


@pytest.mark.req("S0-082")
def test_a_fiche_says_what_it_lacks_until_question_fields_and_images_are_there(world: World) -> None:
    world.rcp.fiche = {"obligatoires": ["etat.oms"]}
    row = world.dossier(question=None)
    session: Session = world.session
    assert fiche.missing(session, row) == ("Question posée", "Échelle OMS", "Imagerie, ou « sans imagerie »")
    assert content_of(row).who_status is None
    row.question = "Chirurgie première ?"
    _take(row, "formulaire", {}, {"etat.oms": 0})
    assert fiche.missing(session, row) == ("Imagerie, ou « sans imagerie »",)
    study = Study(
        study_instance_uid="1.2.3",
        record_id=row.record_id,
        partner_id=row.partner_id,
        state="rattache",
        received_at=NOW,
    )
    session.add(study)
    session.flush()
    session.add(StudyDossier(study_id=study.id, dossier_id=row.id, basis="ipp", author="essai"))
    session.flush()
    assert fiche.missing(session, row) == ()
    other = world.dossier(clinical={"fiche": {"examens.sans_imagerie": {"value": True, "source": "portail"}}})
    assert fiche.missing(session, other) == ("Échelle OMS",)


@pytest.mark.parametrize(
    "rules", [{"obligatoires": ["couleur"]}, {"appareil": "1"}, {"etiquettes": "Sein"}, {"inconnu": True}]
)
def test_rules_that_cannot_be_read_are_refused_when_the_meeting_is_made(world: World, rules: dict[str, Any]) -> None:
    world.rcp.fiche = rules
    with pytest.raises(InvalidContent, match="reglage-invalide"):
        fiche.rules_of(world.rcp)


def test_what_a_meeting_says_once_holds_for_its_dossiers_until_one_says_otherwise(world: World) -> None:
    world.rcp.fiche = {"appareil": "76752008", "organes": ["76752008"], "recours": False}
    row = world.dossier()
    said = content_of(row)
    assert said.board_kind is not None
    assert said.system is not None
    assert (said.board_kind.code, said.system.label, [one.code for one in said.organs], said.recourse_board) == (
        "ORG-117",
        "sein",
        ["76752008"],
        False,
    )
    _take(row, "formulaire", {}, {"motif.type": "ORG-132", "motif.soins": "C15747"})
    said = content_of(row)
    assert said.care is not None
    assert (said.system, said.organs, said.care.code) == (None, (), "C15747")


def test_codes_count_under_their_own_system_only_and_old_answers_are_read_kindly() -> None:
    def read(link: str, value: Any) -> Any:
        return form_values(FormFacts(answers=(AnswerFacts(link_id=link, values=(value,)),))).get(link)

    assert read("tumeur.code", CodedFact(system=CIM10, code="C50.4")) == "C50.4"
    assert read("tumeur.code", CodedFact(system="http://snomed.info/sct", code="C50.4")) is None
    assert read("motif.appareil", "Sein") == "76752008"
    assert read("motif.type", "Appareil : sein") is None
    assert read("etat.oms", CodedFact(code="MED-266")) == 3
    assert read("etat.oms", "7") is None


def test_words_of_a_stage_give_the_letters_that_nobody_coded(world: World) -> None:
    row = world.dossier(clinical={"tumour": {"stage": "cT2 cN1 cM0"}})
    [tumour] = content_of(row).tumours
    assert tumour.tnm is not None
    assert (tumour.tnm.t, tumour.tnm.n, tumour.tnm.m) == ("T2", "N1", "M0")
    _take(row, "formulaire", {}, {"tumeur.t": "T3", "tumeur.edition": "8"})
    [tumour] = content_of(row).tumours
    assert tumour.tnm is not None
    assert (tumour.tnm.t, tumour.tnm.n, tumour.tnm.edition) == ("T3", "N1", "8")


def test_a_request_sent_again_changes_only_what_it_changes(world: World, row: Dossier, make_steps) -> None:
    steps = make_steps()
    fiche_edit = {"motif.question": "Et la suite ?", "tumeur.t": "T3", "motif.motifs": ["ORG-115"]}
    steps.run(world.caller(world.requester), lambda step: fiche.edit(step, row.id, fiche_edit).id)
    world.session.expire_all()
    known = TumourFacts(topography=CodedFact(code="C50.4", system=CIM10), stage="cT2 N0 M0")
    said = InscriptionFacts(
        session=SessionFact(rcp_number=world.rcp.national_number, start=world.meeting.starts_at),
        question="Chimiothérapie ?",
        reasons=(CodedFact(code="ORG-114"),),
        tumour=known,
    )

    def amend(step: Any) -> None:
        [found] = step.lock(Dossier, row.id)
        inscription.amend(step, found, said, said)

    steps.run(world.client(), amend)
    world.session.expire_all()
    found = _values(row)
    assert (found["motif.question"], found["tumeur.t"], found["motif.motifs"]) == ("Et la suite ?", "T3", ["ORG-115"])


def test_the_table_names_each_field_once_and_codes_are_of_lists_that_are_there() -> None:
    keys = [field.key for section in sections() for field in section.fields]
    assert len(keys) == len(set(keys)) == len(fields())
    for field in fields().values():
        for part in (field, *field.fields):
            assert bool(part.list_name or part.options) == (part.kind in {"code", "codes"}), part.key
