"""Which mailbox is tried first, what a person may choose, and what of an address is seen."""

from __future__ import annotations

from datetime import UTC, date, datetime

import msgspec
import pytest
from sqlalchemy import select, update

from gateway.model.directory import Mailbox, MailboxChoice, Practitioner
from gateway.rcp import directory, mailboxes
from gateway.rcp.access import SYSTEM
from gateway.rcp.directory import MailboxFacts, OrganisationFacts, PracticeFacts, ProfessionalFacts
from tests.world import World, audit_lines, build

CLINIC, HOUSE = "990000010", "990000028"
PLACES = (
    OrganisationFacts(
        finess=CLINIC,
        name="Clinique",
        mailboxes=(
            MailboxFacts(address="clinique@demo.mssante.fr", kind="ORG"),
            MailboxFacts(address="logiciel@demo.mssante.fr", kind="APP"),
        ),
    ),
    OrganisationFacts(
        finess=HOUSE, name="Maison", mailboxes=(MailboxFacts(address="maison@demo.mssante.fr", kind="ORG"),)
    ),
)
AGNES = ProfessionalFacts(
    rpps="99700000013",
    family="AGNES",
    given="Isabelle",
    practices=(PracticeFacts(finess=CLINIC), PracticeFacts(finess=HOUSE)),
    mailboxes=(
        MailboxFacts(address="cabinet@demo.mssante.fr", kind="CAB"),
        MailboxFacts(address="b@demo.mssante.fr"),
        MailboxFacts(address="a@demo.mssante.fr"),
        MailboxFacts(address="preferee@demo.mssante.fr", preferred=True),
        MailboxFacts(address="amaison@demo.mssante.fr", finess=HOUSE),
    ),
)


@pytest.fixture
def who(steps) -> Practitioner:
    def verb(step):
        for place in PLACES:
            directory.put_organisation(step, place, source="essai", as_of=date(2026, 1, 1))
        return directory.put_professional(step, AGNES, source="essai", as_of=date(2026, 1, 1))

    return steps.run(SYSTEM, verb)


@pytest.fixture
def world(store, who):
    with store.session() as session:
        made = build(session)
        session.commit()
        yield made


def _names(boxes) -> list[str]:
    return [box.address.partition("@")[0] for box in boxes]


def _order(world: World, finess: str | None, **wish) -> list[str]:
    session = world.session
    session.expire_all()
    dossier = world.dossier()
    place = directory.organisation_of(session, finess) if finess else None
    dossier.organisation_id = place.id if place else None
    physician = directory.practitioner_of(session, AGNES.rpps)
    found = _names(mailboxes.addresses(session, physician, dossier=dossier, **wish))
    session.rollback()
    return found


def test_the_box_of_the_dossiers_structure_comes_first_then_the_preferred_personal_before_practice(world) -> None:
    others = ["preferee", "a", "b", "cabinet"]
    assert _order(world, HOUSE) == ["amaison", *others]
    # Elsewhere the box of another place is one among the others.
    assert _order(world, CLINIC) == ["preferee", "a", "amaison", "b", "cabinet"]
    assert _order(world, HOUSE, personal=False, secretariat=True) == ["maison", "clinique"]
    assert _order(world, CLINIC, personal=False, secretariat=True) == ["clinique", "maison"]
    # A structure where he does not work is not his: the first of his own stands for it.
    assert _order(world, None) == _order(world, CLINIC)


def _box(session, name: str) -> Mailbox:
    return session.scalars(select(Mailbox).where(Mailbox.address == f"{name}@demo.mssante.fr")).one()


def _choose(steps, name: str) -> None:
    def verb(step):
        physician = directory.practitioner_of(step.session, AGNES.rpps)
        mailboxes.choose(step, physician, _box(step.session, name))

    steps.run(SYSTEM, verb)


def test_software_is_written_to_when_a_person_chose_it_and_the_last_choice_holds(steps, store, who, world) -> None:
    assert "logiciel" not in _order(world, CLINIC, secretariat=True)
    physician = directory.practitioner_of(world.session, AGNES.rpps)
    assert _names(mailboxes.candidates(world.session, physician))[-1] == "logiciel"
    _choose(steps, "logiciel")
    assert _order(world, CLINIC)[:2] == ["logiciel", "preferee"]
    assert _order(world, CLINIC, personal=False) == []  # nothing was ticked: nobody is written to
    # The choice was made for the clinic.
    assert _order(world, HOUSE)[0] == "amaison"
    _choose(steps, "b")
    assert _order(world, CLINIC)[:2] == ["b", "preferee"]
    assert _order(world, CLINIC, personal=False, secretariat=True) == ["clinique", "maison"]
    with store.session() as session:
        [kept] = session.scalars(select(MailboxChoice)).all()
        assert (kept.mailbox_id, kept.chosen_by) == (_box(session, "b").id, SYSTEM.identifier)
        said = [line["reason"] for line in audit_lines(session) if line["object_type"] == "Mailbox"]
        assert said == ["adresse-choisie", "adresse-choisie"]
        # What bounced is not tried, whoever chose it.
        _box(session, "b").unusable_since = datetime(2026, 2, 1, tzinfo=UTC)
        session.commit()
    assert _order(world, CLINIC)[0] == "preferee"


def test_who_has_a_chosen_software_box_alone_can_be_told(steps, store, who) -> None:
    _choose(steps, "logiciel")
    with store.session() as session:
        session.execute(update(Mailbox).where(Mailbox.kind != "APP").values(gone_on=date(2026, 2, 1)))
        physician = directory.practitioner_of(session, AGNES.rpps)
        session.refresh(physician)
        assert _names(mailboxes.addresses(session, physician)) == ["logiciel"]
        both = ("logiciel@demo.mssante.fr",) * 2
        assert mailboxes.reachable(session, [physician.id]) == {physician.id: both}


def test_a_box_without_paperless_takes_letters_and_no_documents(store, who) -> None:
    with store.session() as session:
        for name in ("preferee", "clinique"):
            _box(session, name).paperless = False
        _box(session, "a").paperless = True
        session.commit()
        physician = directory.practitioner_of(session, AGNES.rpps)
        assert _names(mailboxes.addresses(session, physician))[0] == "preferee"
        offered = _names(mailboxes.candidates(session, physician, documents=True))
        assert offered == ["a", "amaison", "b", "cabinet", "maison", "logiciel"]


def test_the_red_list_is_written_to_and_shown_to_nobody(store, who) -> None:
    with store.session() as session:
        _box(session, "preferee").confidential = True
        session.commit()
        physician = directory.practitioner_of(session, AGNES.rpps)
        assert _names(mailboxes.addresses(session, physician))[0] == "preferee"
        seen = mailboxes.shown(session, ["PREFEREE@demo.mssante.fr ", "a@demo.mssante.fr", "x@ailleurs.example"])
        assert list(seen.values()) == [mailboxes.HIDDEN, "a@demo.mssante.fr", "x@ailleurs.example"]
        assert mailboxes.displayed(session, "preferee@demo.mssante.fr") == "adresse en liste rouge"
        assert mailboxes.displayed(session, None) == ""


@pytest.mark.parametrize(("day", "usable"), [(1, False), (2, True)])
def test_an_address_that_bounced_is_usable_when_it_is_named_again_later(steps, store, who, day, usable) -> None:
    with store.session() as session:
        _box(session, "preferee").unusable_since = datetime(2026, 3, 1, 12, tzinfo=UTC)
        session.commit()
    steps.run(
        SYSTEM, lambda step: directory.put_professional(step, AGNES, source="annuaire-api", as_of=date(2026, 3, day))
    )
    with store.session() as session:
        assert (_box(session, "preferee").unusable_since is None) is usable
        assert ("preferee" in _names(mailboxes.addresses(session, directory.practitioner_of(session, AGNES.rpps)))) is (
            usable
        )


def test_who_does_not_speak_of_the_red_list_takes_nobody_off_it(steps, store, who) -> None:
    with store.session() as session:
        _box(session, "preferee").confidential = True
        session.commit()

    def named(said):
        box = MailboxFacts(address="preferee@demo.mssante.fr", confidential=said)
        facts = msgspec.structs.replace(AGNES, mailboxes=(box,))
        steps.run(SYSTEM, lambda step: directory.put_professional(step, facts, source="essai", as_of=date(2026, 3, 1)))
        with store.session() as session:
            return _box(session, "preferee").confidential

    assert [named(said) for said in (None, None, False, None, True, None)] == [True, True, False, False, True, True]
