"""The directory: national numbers are the keys, a newer statement wins, one order of mailboxes."""

from __future__ import annotations

from datetime import UTC, date, datetime

import msgspec
import pytest
from sqlalchemy import select

from gateway.errors import InvalidContent, NotFound
from gateway.model.directory import Mailbox, PracticeRole, Practitioner, folded
from gateway.rcp import directory, mailboxes
from gateway.rcp.access import SYSTEM
from gateway.rcp.directory import EntryFacts, MailboxFacts, OrganisationFacts, PracticeFacts, ProfessionalFacts

PLACE = OrganisationFacts(
    finess="990000028",
    name="Maison de santé",
    mailboxes=(MailboxFacts(address="SECRETARIAT@demo.mssante.fr", kind="ORG"),),
)
AGNES = ProfessionalFacts(
    rpps="10100000040",
    family="AGNES",
    given="Isabelle",
    title="DR",
    speciality="SM54",
    practices=(PracticeFacts(finess="990000028"),),
    mailboxes=(
        MailboxFacts(address="b@demo.mssante.fr"),
        MailboxFacts(address="a@demo.mssante.fr"),
        MailboxFacts(address="z@demo.mssante.fr", preferred=True),
        MailboxFacts(address="logiciel@demo.mssante.fr", kind="APP"),
    ),
)


def _put(steps, who=AGNES, as_of=date(2026, 1, 1)):
    def verb(step):
        directory.put_organisation(step, PLACE, source="essai", as_of=as_of)
        return directory.put_professional(step, who, source="essai", as_of=as_of)

    return steps.run(SYSTEM, verb)


@pytest.mark.req("S2-040")
def test_a_professional_is_found_by_number_never_by_name(steps, store):
    put = _put(steps)
    with store.session() as session:
        for number in ("10100000040", "810100000040"):
            assert directory.practitioner_of(session, number).id == put.id
        for other in ("AGNES", "Isabelle AGNES", "10100000041", ""):
            assert directory.practitioner_of(session, other) is None
    # Another spelling of the name is the same person; another number with the same name is another.
    assert _put(steps, msgspec.structs.replace(AGNES, family="AGNÈS")).id == put.id
    assert _put(steps, msgspec.structs.replace(AGNES, rpps="10100000065", mailboxes=())).id != put.id


def test_putting_twice_adds_nothing(steps, store):
    _put(steps)
    _put(steps)
    with store.session() as session:
        assert len(session.scalars(select(Practitioner)).all()) == 1
        assert len(session.scalars(select(PracticeRole)).all()) == 1
        assert len(session.scalars(select(Mailbox)).all()) == 5


def test_an_older_statement_does_not_overwrite_a_newer_one(steps):
    _put(steps, as_of=date(2026, 2, 1))
    older = _put(steps, msgspec.structs.replace(AGNES, title="PR"), as_of=date(2026, 1, 1))
    assert (older.title, older.as_of) == ("DR", date(2026, 2, 1))
    newer = _put(steps, msgspec.structs.replace(AGNES, title="PR"), as_of=date(2026, 3, 1))
    assert (newer.title, newer.as_of) == ("PR", date(2026, 3, 1))


def test_mailboxes_are_tried_in_one_order(steps, store):
    _put(steps)
    with store.session() as session:
        who = directory.practitioner_of(session, "10100000040")

        def shown(**wish):
            return [box.address.partition("@")[0] for box in mailboxes.addresses(session, who, **wish)]

        assert shown() == ["z", "a", "b"]
        assert shown(secretariat=True) == ["z", "a", "b", "secretariat"]
        assert shown(personal=False, secretariat=True) == ["secretariat"]
        assert shown(personal=False) == []
        assert mailboxes.reachable(session, [who.id]) == {who.id: ("a@demo.mssante.fr", "secretariat@demo.mssante.fr")}
        # Where he works no more, nobody is told of his patients.
        who.roles[0].gone_on = date(2026, 2, 1)
        session.flush()
        assert shown(secretariat=True) == ["z", "a", "b"]
        assert mailboxes.reachable(session, [who.id]) == {who.id: ("a@demo.mssante.fr", None)}
        next(box for box in who.mailboxes if box.address.startswith("z@")).unusable_since = datetime(
            2026, 1, 1, tzinfo=UTC
        )
        assert shown() == ["a", "b"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"rpps": "10100000041"}, "rpps-cle"),
        ({"speciality": "SM999"}, "code-inconnu"),
        ({"profession": "médecin"}, "code-inconnu"),
        ({"mailboxes": (MailboxFacts(address="isabelle@example.org"),)}, "mssante-forme"),
        ({"mailboxes": (MailboxFacts(address="i@demo.mssante.fr", kind="BAL"),)}, "code-inconnu"),
    ],
)
def test_what_is_malformed_is_refused(steps, store, changes, code):
    with pytest.raises(InvalidContent) as refusal:
        _put(steps, msgspec.structs.replace(AGNES, **changes))
    assert refusal.value.code == code
    with store.session() as session:
        assert session.scalars(select(Practitioner)).all() == []


def test_an_unknown_place_is_refused(steps):
    with pytest.raises(NotFound) as refusal:
        _put(steps, msgspec.structs.replace(AGNES, practices=(PracticeFacts(finess="990000010"),)))
    assert refusal.value.code == "structure-inconnue"


PEOPLE = (
    ("10100000040", "LEFÈVRE", "Claire"),
    ("10100000065", "Le Fèvre-Dupont", "Zoé"),
    ("10100000073", "lefevre", "Anne-Marie"),
    ("10100000081", "O’HARA", "Çelik"),
    ("10100000099", "100%_SÛR", "Zoé"),
)


def _search(steps, store, words, **more):
    def verb(step):
        for number, family, given in PEOPLE:
            facts = ProfessionalFacts(rpps=number, family=family, given=given)
            directory.put_professional(step, facts, source="essai", as_of=date(2026, 1, 1))

    steps.run(SYSTEM, verb)
    with store.session() as session:
        return [f"{one.family} {one.given}" for one in directory.find(session, words, **more)]


@pytest.mark.req("S0-013")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("lefevre", ["lefevre Anne-Marie", "LEFÈVRE Claire"]),
        ("LeFèVr", ["lefevre Anne-Marie", "LEFÈVRE Claire"]),
        ("claire", ["LEFÈVRE Claire"]),
        ("ANNE MARIE", ["lefevre Anne-Marie"]),
        ("anne-marie lefevre", ["lefevre Anne-Marie"]),
        ("lefevre anne", ["lefevre Anne-Marie"]),
        ("le fevre dupont", ["Le Fèvre-Dupont Zoé"]),
        ("o'hara", ["O’HARA Çelik"]),
        ("celik", ["O’HARA Çelik"]),
        ("zoe", ["Le Fèvre-Dupont Zoé"]),
        ("%", []),
        ("__", []),
        ("l", []),
        ("|", []),
        ("fevre", []),
        ("", []),
        ("10100000040", ["LEFÈVRE Claire"]),
        ("810100000040", ["LEFÈVRE Claire"]),
        ("1010000004", []),
    ],
)
def test_a_search_knows_neither_case_nor_accents_and_a_number_finds_one(steps, store, words, found):
    assert [one for one in _search(steps, store, words) if "SÛR" not in one] == found


def test_a_search_ends_at_its_limit_and_does_not_find_who_left(steps, store):
    assert len(_search(steps, store, "lefevre", limit=1)) == 1
    with store.session() as session:
        directory.practitioner_of(session, "10100000040").gone_on = date(2026, 2, 1)
        session.commit()
        assert [one.given for one in directory.find(session, "lefevre")] == ["Anne-Marie"]
        assert directory.find(session, "10100000040") == []


@pytest.mark.parametrize("name", ["ÉLÉONORE", "d’Aÿ-Ünal", "Œuvrard", "ŁUKASZ", "ZoË|x", "İSTANBUL", "ß", "É"])
def test_the_database_folds_a_name_as_we_do(steps, store, name):
    facts = ProfessionalFacts(rpps="10100000040", family=name, given=name)
    steps.run(SYSTEM, lambda step: directory.put_professional(step, facts, source="essai", as_of=date(2026, 1, 1)))
    with store.session() as session:
        assert session.scalar(select(Practitioner.folded)) == f"{folded(name)}|{folded(name)}"


def _put_entry(steps, facts, as_of, places=(), *, active=True):
    entry = EntryFacts(professional=facts, places=places, active=active)
    return steps.run(SYSTEM, lambda step: directory.put_entry(step, entry, source="api", as_of=as_of)).id


def test_an_entry_replaces_what_the_same_source_said_and_nothing_of_another(steps, store):
    first, second = date(2026, 1, 1), date(2026, 1, 2)
    _put(steps, as_of=first)
    mine = msgspec.structs.replace(AGNES, mailboxes=(MailboxFacts(address="api@demo.mssante.fr", finess="990000028"),))
    _put_entry(steps, mine, first)
    _put_entry(steps, msgspec.structs.replace(mine, mailboxes=(), practices=()), second)
    with store.session() as session:
        who = directory.practitioner_of(session, "10100000040")
        gone = {box.address.partition("@")[0]: box.gone_on for box in who.mailboxes}
        assert gone == {"a": None, "b": None, "z": None, "logiciel": None, "api": second}
        assert next(box for box in who.mailboxes if box.gone_on).organisation_id is not None
        assert [role.gone_on for role in who.roles] == [second]
        assert who.gone_on is None
    _put_entry(steps, mine, date(2026, 1, 3), active=False)
    with store.session() as session:
        who = directory.practitioner_of(session, "10100000040")
        assert who.gone_on == date(2026, 1, 3)
    _put_entry(steps, mine, date(2026, 1, 4))
    with store.session() as session:
        who = directory.practitioner_of(session, "10100000040")
        assert (who.gone_on, who.roles[0].gone_on, [box.gone_on for box in who.mailboxes]) == (None, None, [None] * 5)
