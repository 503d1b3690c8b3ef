"""The directory: national numbers are the keys, a newer statement wins, one order of mailboxes."""

from __future__ import annotations

from datetime import UTC, date, datetime

import msgspec
import pytest
from sqlalchemy import select

from gateway.errors import InvalidContent, NotFound
from gateway.model.directory import Mailbox, PracticeRole, Practitioner
from gateway.rcp import directory, mailboxes
from gateway.rcp.access import SYSTEM
from gateway.rcp.directory import MailboxFacts, OrganisationFacts, PracticeFacts, ProfessionalFacts

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
