"""Who may see what: each relation opens exactly its dossiers, and nothing else does."""

from __future__ import annotations

import uuid
from dataclasses import fields, replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.dialects import postgresql

from gateway.errors import Forbidden, NotFound
from gateway.model.directory import Practitioner
from gateway.model.dossier import Correspondent, Dossier
from gateway.model.imaging import Study, StudyDossier
from gateway.model.meeting import RcpMember
from gateway.model.partner import Partner
from gateway.model.person import PatientRecord, WorkItem
from gateway.model.representation import TABLES
from gateway.rcp import access
from gateway.rcp.access import SYSTEM, Caller, CallerKind, Role
from tests.world import build


@pytest.fixture
def world(store):
    with store.session() as session:
        yield build(session)


def seen(world, caller: Caller) -> set:
    return set(world.session.scalars(select(Dossier.id).where(access.dossiers(caller))))


def records_seen(world, caller: Caller) -> set:
    return set(world.session.scalars(select(PatientRecord.id).where(access.records(caller))))


@pytest.mark.req("S0-037")
def test_the_requester_sees_what_he_asked_for(world) -> None:
    mine = world.dossier()
    other = world.dossier(requester_id=world.stranger.id)
    assert seen(world, world.caller(world.requester)) >= {mine.id}
    world.session.query(Correspondent).filter_by(dossier_id=other.id, practitioner_id=world.requester.id).delete()
    assert seen(world, world.caller(world.requester)) == {mine.id}


@pytest.mark.req("S0-038")
def test_the_treating_physician_sees_his_patients_only(world) -> None:
    mine = world.dossier()
    other = world.dossier()
    world.session.query(Correspondent).filter_by(dossier_id=other.id, role="medecin-traitant").delete()
    assert seen(world, world.caller(world.treating)) == {mine.id}
    assert records_seen(world, world.caller(world.treating)) == {mine.record_id}


def test_who_says_that_it_is_not_his_patient_does_not_see_him_any_more(world) -> None:
    mine = world.dossier()
    line = world.session.scalars(
        select(Correspondent).where(Correspondent.dossier_id == mine.id, Correspondent.role == "medecin-traitant")
    ).one()
    line.declined_at = datetime.now(UTC)
    world.session.flush()
    assert seen(world, world.caller(world.treating)) == set()


@pytest.mark.req("S0-040")
def test_members_see_the_dossiers_of_their_meeting_and_leaving_closes_it_at_once(world) -> None:
    mine = world.dossier()
    assert seen(world, world.caller(world.coordinator)) == {mine.id}
    part = world.session.scalars(select(RcpMember).where(RcpMember.practitioner_id == world.coordinator.id)).one()
    part.until = datetime.now(UTC)
    world.session.flush()
    assert seen(world, world.caller(world.coordinator)) == set()


def test_a_stranger_sees_nothing(world) -> None:
    world.dossier()
    assert seen(world, world.caller(world.stranger)) == set()
    assert records_seen(world, world.caller(world.stranger)) == set()


def test_an_organisation_sees_its_own_and_never_another_one(world) -> None:
    mine = world.dossier()
    other = Partner(name="Clinique Y", patient_domains=["https://y.example/ipp"])
    world.session.add(other)
    world.session.flush()
    assert seen(world, world.client()) == {mine.id}
    assert seen(world, world.client(other)) == set()
    assert records_seen(world, world.client(other)) == set()


@pytest.mark.parametrize("kind", list(CallerKind))
def test_a_caller_that_cannot_be_placed_is_denied(world, kind) -> None:
    world.dossier()
    found = seen(world, Caller(kind=kind))
    assert found == set() or kind is CallerKind.SYSTEM


def test_a_study_in_quarantine_is_never_in_a_dossier(world) -> None:
    dossier = world.dossier()
    study = Study(
        partner_id=world.partner.id, study_instance_uid="1.2.3", state="rattache", record_id=dossier.record_id
    )
    world.session.add(study)
    world.session.flush()
    world.session.add(StudyDossier(study_id=study.id, dossier_id=dossier.id, basis="ipp", author="essai"))
    world.session.flush()
    question = select(Study.id).where(access.studies(world.caller(world.treating)))
    assert world.session.scalars(question).all() == [study.id]
    study.state = "quarantaine"
    world.session.flush()
    assert world.session.scalars(question).all() == []
    assert world.session.scalars(select(Study.id).where(access.studies(world.client()))).all() == [study.id]


@pytest.mark.parametrize("attached", [False, True])
def test_images_of_another_meeting_s_dossiers_are_not_shown_for_the_patient_s_sake(world, attached) -> None:
    """The requester sees one dossier of the patient; the images stand in two others, so under the record alone."""
    record = world.record()
    dossiers = [world.dossier(record), world.dossier(record), world.dossier(record)]
    for other in dossiers[1:]:
        other.requester_id = world.stranger.id
        world.session.query(Correspondent).filter_by(dossier_id=other.id).delete()
    study = Study(partner_id=world.partner.id, study_instance_uid="1.2.4", state="rattache", record_id=record.id)
    world.session.add(study)
    world.session.flush()
    holding = dossiers[0:2] if attached else dossiers[1:3]
    world.session.add_all(
        StudyDossier(study_id=study.id, dossier_id=one.id, basis="ipp", author="essai") for one in holding
    )
    table = TABLES["ImagingStudy"]
    owned = {"partner_id": world.partner.id, "record_id": record.id, "root_kind": "Study", "root_id": study.id}
    world.session.execute(insert(table).values(id=str(study.id), version=1, body=b"{}", current=True, **owned))

    def shown(caller: Caller) -> list[str]:
        return list(world.session.scalars(select(table.c.id).where(access.representations(caller, table))))

    assert seen(world, world.caller(world.requester)) == {dossiers[0].id}
    assert shown(world.caller(world.requester)) == ([str(study.id)] if attached else [])
    assert shown(world.caller(world.stranger)) == [str(study.id)]
    assert shown(world.client()) == [str(study.id)]
    study.state = "quarantaine"
    world.session.flush()
    assert shown(world.caller(world.stranger)) == []


def test_images_of_a_sender_without_network_are_every_organiser_s_question(world) -> None:
    alone = Partner(name="Cabinet de radiologie", patient_domains=["https://z.example/ipp"])
    world.session.add(alone)
    world.session.flush()

    def item(key: str, partner: Partner, **more: object) -> WorkItem:
        facts = {"kind": "imagerie", "reason": "autres-octets", "partner_id": partner.id}
        return WorkItem(key=key, **(facts | more))

    elsewhere = build(world.session)
    for role, name in ((Role.MEMBER, "MEMBRE"), (Role.SECRETARY, "SECRETAIRE"), (Role.ADMINISTRATOR, "ADMIN")):
        who = world.practitioner(name)
        world.session.add(RcpMember(rcp_id=elsewhere.rcp.id, practitioner_id=who.id, role=role.value))
    dossier = world.dossier()
    world.session.add_all(
        [
            item("seule", alone),
            item("du-reseau", alone, network_id=world.network.id),
            item("du-dossier", alone, dossier_id=dossier.id),
            item("d-un-partenaire-du-reseau", world.partner),
            item("identite", alone, kind="identite"),
        ]
    )
    world.session.flush()

    def asked(who: Practitioner) -> set[str]:
        return set(world.session.scalars(select(WorkItem.key).where(access.work_items(world.caller(who)))))

    people = {row.family: row for row in world.session.scalars(select(Practitioner))}
    assert asked(people["SECRETAIRE"]) == asked(people["ADMIN"]) == asked(elsewhere.coordinator) == {"seule"}
    assert asked(world.coordinator) == {"seule", "du-reseau", "du-dossier"}
    assert asked(people["MEMBRE"]) == asked(world.stranger) == asked(world.treating) == set()
    left = world.session.scalars(select(RcpMember).where(RcpMember.practitioner_id == people["SECRETAIRE"].id)).one()
    left.until = datetime.now(UTC)
    world.session.flush()
    assert asked(people["SECRETAIRE"]) == set()
    assert set(world.session.scalars(select(WorkItem.key).where(access.work_items(world.client(alone))))) == set()


def test_a_role_that_does_not_suffice_is_forbidden_and_none_at_all_is_unknown(world) -> None:
    validators = access.VALIDATORS
    access.require_role(world.session, world.caller(world.coordinator), world.rcp.id, validators)
    with pytest.raises(NotFound) as hidden:
        access.require_role(world.session, world.caller(world.stranger), world.rcp.id, validators)
    assert hidden.value.trail.outcome == "4"
    world.session.add(RcpMember(rcp_id=world.rcp.id, practitioner_id=world.stranger.id, role="membre"))
    world.session.flush()
    with pytest.raises(Forbidden):
        access.require_role(world.session, world.caller(world.stranger), world.rcp.id, validators)
    assert access.roles_in(world.session, world.caller(world.stranger), world.rcp.id) == {Role.MEMBER}


def test_the_system_sees_all(world) -> None:
    one, two = world.dossier(), world.dossier()
    assert seen(world, SYSTEM) == {one.id, two.id}


def test_a_professional_with_a_partner_does_not_gain_its_rights(world) -> None:
    world.dossier()
    assert seen(world, replace(world.caller(world.stranger), partner_id=world.partner.id)) == set()
    assert records_seen(world, replace(world.caller(world.stranger), partner_id=world.partner.id)) == set()


def test_a_read_looks_at_its_row_and_not_at_all_that_its_caller_owns(world) -> None:
    one = world.dossier()
    session = world.session
    session.execute(
        text(
            "INSERT INTO patient_record (id, partner_id, system, value, given_names, sex, ins_qualified, ins_faults, "
            "active, created_at, updated_at) SELECT gen_random_uuid(), :partner, 'urn:essai', n::text, '{}', 'U', "
            "false, '{}', true, now(), now() FROM generate_series(1, 5000) n"
        ),
        {"partner": world.partner.id},
    )
    other = Partner(name="Autre")
    session.add(other)
    session.flush()
    table = TABLES["Condition"]
    home = Caller(kind=CallerKind.CLIENT, partner_id=uuid.uuid4(), rcps=frozenset({world.rcp.id}))
    root = {"record_id": one.record_id, "dossier_id": one.id, "root_kind": "Dossier", "root_id": one.id}
    inscription = insert(TABLES["ServiceRequest"])
    session.execute(inscription.values(id=str(one.id), version=1, body=b'"Condition/nomme"', **root))
    session.execute(
        text(
            "INSERT INTO fhir_servicerequest (id, version, body, current, deleted, public, updated_at, record_id) "
            "SELECT n::text, 1, '{}', true, false, false, now(), gen_random_uuid() FROM generate_series(1, 5000) n"
        )
    )
    for identity, owner in (
        ("nomme", {"record_id": one.record_id}),
        ("au-dossier", {"dossier_id": one.id}),
        ("au-patient", {"record_id": one.record_id}),
        ("a-personne", {}),
    ):
        session.execute(insert(table).values(id=identity, version=1, body=b"{}", partner_id=other.id, **owner))
    session.execute(text("ANALYZE"))
    hospital = Caller(kind=CallerKind.CLIENT, partner_id=world.partner.id)
    asking = (hospital, world.caller(world.requester), home)
    for caller in asking:
        seen_of_record = caller is not home
        for identity, shown in (
            ("nomme", True),
            ("au-dossier", True),
            ("au-patient", seen_of_record),
            ("a-personne", False),
        ):
            asked = select(table.c.id).where(
                table.c.id == identity, table.c.current, access.representations(caller, table)
            )
            assert bool(session.execute(asked).all()) is shown
            words = str(asked.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True}))
            words = words.replace("'])", "']::uuid[])")  # a literal array has no type of its own
            explained = session.execute(text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {words}".replace(":", r"\:")))
            plan = explained.scalar_one()[0]["Plan"]
            # 5000 records stand on a hundred pages.
            assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 40, words


@pytest.fixture
def home(world) -> Caller:
    """Software of the establishment that runs the RCP, which is not the patient's hospital."""
    other = Partner(name="3C d’essai")
    world.session.add(other)
    world.session.flush()
    return replace(world.client(other), rcps=frozenset({world.rcp.id}))


def put(world, kind: str, identity: str, *, says: str = "", partner: uuid.UUID | None = None, **owner: object) -> str:
    """A stored resource of the patient's hospital, of which only whom it names matters."""
    values = {"partner_id": partner or world.partner.id, "current": True, **owner}
    table = TABLES[kind]
    body = f'{{"resourceType":"{kind}","a":[{says}]}}'.encode()
    world.session.execute(insert(table).values(id=identity, version=1, body=body, **values))
    return f"{kind}/{identity}"


def shows(world, caller: Caller, reference: str) -> bool:
    kind, _, identity = reference.partition("/")
    table = TABLES[kind]
    asked = select(table.c.id).where(table.c.id == identity, access.representations(caller, table))
    return world.session.scalars(asked).all() == [identity]


def test_who_runs_the_meeting_sees_of_the_record_what_the_dossier_brings(world, home) -> None:
    record = world.record()
    dossier = world.dossier(record)
    of = {"record_id": record.id}
    about = {**of, "dossier_id": dossier.id, "root_kind": "Dossier", "root_id": dossier.id}
    named = ['{"reference":"Observation/nomme"}', '"Condition/avec-version/_history/3"', '"DiagnosticReport/cr"']
    put(world, "ServiceRequest", str(dossier.id), says=",".join([*named, '"DocumentReference/lettre"']), **about)
    put(world, "Task", str(dossier.id), says='"QuestionnaireResponse/formulaire"', **about)
    shown = [
        f"ServiceRequest/{dossier.id}",
        put(world, "Patient", str(record.id), root_kind="PatientRecord", root_id=record.id, **of),
        put(world, "Observation", "nomme", **of),
        put(world, "Observation", "au-dossier", dossier_id=dossier.id, **of),
        put(world, "Condition", "avec-version", **of),
        put(
            world, "DiagnosticReport", "cr", says='"Observation/resultat","Patient/x","Condition/vue-au-passage"', **of
        ),
        put(world, "Observation", "resultat", **of),
        put(world, "DocumentReference", "lettre", says='"https://rcp.example/fhir/Binary/octets"', **of),
        put(world, "Binary", "octets", **of),
        put(world, "QuestionnaireResponse", "formulaire", says='"Observation/repondue"', **of),
        put(world, "Observation", "repondue", **of),
    ]
    hidden = [
        put(world, "Observation", "nomm", **of),
        put(world, "Observation", "nomme2", **of),
        put(world, "Condition", "nomme", **of),
        put(world, "Condition", "vue-au-passage", **of),
        put(world, "Binary", "autres-octets", **of),
        put(world, "DocumentReference", "ailleurs", says='"Binary/autres-octets"', **of),
        put(world, "Binary", "octets-de-personne"),
    ]
    for reference in shown:
        assert shows(world, home, reference), reference
    for reference in hidden:
        assert not shows(world, home, reference), reference
    for reference in shown + hidden:
        assert shows(world, world.client(), reference), reference
        assert not shows(world, replace(home, rcps=frozenset()), reference), reference
        assert not shows(world, replace(home, rcps=frozenset({uuid.uuid4()})), reference), reference
    # Another patient's, and what stands in another dossier, is not brought by being named.
    other = world.dossier()
    put(world, "Observation", "autre-patient", record_id=other.record_id)
    elsewhere = world.dossier(record)
    elsewhere.session_id = build(world.session).meeting.id
    world.session.flush()
    put(world, "Observation", "autre-dossier", dossier_id=elsewhere.id, **of)
    says = '"Observation/autre-patient","Observation/autre-dossier"'
    put(world, "DiagnosticReport", "du-dossier", says=says, dossier_id=dossier.id, **of)
    assert shows(world, home, "DiagnosticReport/du-dossier")
    assert not shows(world, home, "Observation/autre-patient")
    assert not shows(world, home, "Observation/autre-dossier")
    # The dossier leaves for another meeting: all of it is gone.
    dossier.session_id = elsewhere.session_id
    world.session.flush()
    assert [reference for reference in shown if shows(world, home, reference)] == []


def test_nobody_opens_a_resource_to_himself_by_naming_it(world, home) -> None:
    record = world.record()
    dossier = world.dossier(record)
    of = {"record_id": record.id}
    put(world, "Observation", "tu", **of)
    put(world, "Binary", "tus", **of)
    for kind in ("QuestionnaireResponse", "DiagnosticReport", "DocumentReference"):
        mine = {"partner": home.partner_id, "dossier_id": dossier.id}
        put(world, kind, "a-moi", says='"Observation/tu","Binary/tus"', **mine, **of)
        assert shows(world, home, f"{kind}/a-moi")
    # A request of its own in the dossier is no inscription.
    put(world, "ServiceRequest", "a-moi", says='"Observation/tu"', partner=home.partner_id, dossier_id=dossier.id, **of)
    assert not shows(world, home, "Observation/tu")
    assert not shows(world, home, "Binary/tus")


def test_what_named_it_once_shows_it_no_more(world, home) -> None:
    record = world.record()
    dossier = world.dossier(record)
    about = {"record_id": record.id, "dossier_id": dossier.id, "root_kind": "Dossier", "root_id": dossier.id}
    put(world, "Observation", "nomme", record_id=record.id)
    put(world, "ServiceRequest", str(dossier.id), says='"Observation/nomme"', **about)
    assert shows(world, home, "Observation/nomme")
    table = TABLES["ServiceRequest"]
    world.session.execute(update(table).values(current=False))
    world.session.execute(insert(table).values(id=str(dossier.id), version=2, body=b"{}", current=True, **about))
    assert not shows(world, home, "Observation/nomme")


@pytest.mark.parametrize("state", ["rattache", "quarantaine"])
def test_images_that_stand_in_several_dossiers_are_shown_where_one_of_them_is_discussed(world, home, state) -> None:
    record = world.record()
    dossiers = [world.dossier(record), world.dossier(record)]
    dossiers[1].session_id = build(world.session).meeting.id
    study = Study(partner_id=world.partner.id, study_instance_uid="1.2.5", state=state, record_id=record.id)
    world.session.add(study)
    world.session.flush()
    root = {"root_kind": "Study", "root_id": study.id}
    reference = put(world, "ImagingStudy", str(study.id), record_id=record.id, **root)
    assert not shows(world, home, reference)
    world.session.add_all(
        StudyDossier(study_id=study.id, dossier_id=one.id, basis="ipp", author="essai") for one in dossiers
    )
    world.session.flush()
    assert shows(world, home, reference) is (state == "rattache")


def test_the_predicate_is_made_of_rights_alone_and_of_all_of_them() -> None:
    base = Caller(kind=CallerKind.CLIENT, partner_id=uuid.uuid4(), practitioner_id=uuid.uuid4())
    others = {
        "kind": CallerKind.PROFESSIONAL,
        "partner_id": uuid.uuid4(),
        "practitioner_id": uuid.uuid4(),
        "rcps": frozenset({uuid.uuid4()}),
        "scopes": frozenset({"system/*.rs"}),
    }

    def said(caller: Caller) -> str:
        dialect = postgresql.dialect()
        predicate = access.representations(caller, TABLES["Patient"])
        return str(predicate.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))

    for field in fields(Caller):
        changed = replace(base, **{field.name: others.get(field.name, "autre")})
        if said(changed) != said(base):
            assert access.rights(changed) != access.rights(base), field.name
        # The practitioner of a client's call counts for nothing there; everything else that is a right does.
        if field.name in {"kind", "partner_id", "rcps"}:
            assert said(changed) != said(base), field.name
