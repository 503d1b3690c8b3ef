from __future__ import annotations

import email
import email.policy
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from gateway.errors import InvalidContent
from gateway.mssante.report_mail import Forms, ReportMail
from gateway.mssante.xdm_metadata import Sender
from gateway.rcp.ports import ReportLetter
from gateway.rcp.report_content import Organisation, Person, Replaced
from tests.report_samples import content

FORMS = Forms(
    Sender(
        source_id="1.2.250.1.999.77",
        organisation=Organisation(name="3C"),
        application="rcp-gateway",
        version="0",
        publisher="essai",
    )
)
MAILS = ReportMail(address="rcp@ch-exemple.mssante.fr", nil="123456", name="RCP Oncologie")


def _letter(facts=None, **more):
    facts = facts or content()
    known = {
        "kind": "M6",
        "key": "M6|d|s|p|1",
        "at": datetime(2026, 11, 26, 17, 30, tzinfo=UTC),
        "address": "paul.durant@medecin.mssante.fr",
        "recipient": facts.treating_physician or facts.requester,
        "content": facts,
        "forms": FORMS.render(facts),
        "signature": "Le secrétariat du 3C",
    }
    return ReportLetter(**(known | more))


def _read(sealed):
    return email.message_from_bytes(sealed.content, policy=email.policy.default)


def test_the_same_letter_gives_the_same_bytes():
    assert MAILS.seal(_letter()) == MAILS.seal(_letter())
    assert MAILS.seal(_letter()).message_id != MAILS.seal(_letter(key="M6|d|s|q|1")).message_id


def test_greeting_patient_and_meeting_are_named_in_french():
    body = _read(MAILS.seal(_letter())).get_body().get_content()
    assert body.splitlines()[0] == "Bonjour Docteur DURANT,"
    assert "RCP Tumeurs digestives du 26/11/2026 pour PAT-TROIS DOMINIQUE, née le 28/03/1979" in body
    assert "Le secrétariat du 3C – Secrétariat des RCP : 05 56 00 12 40" in body


def test_the_identity_may_be_left_out_of_the_subject():
    short = ReportMail(address="rcp@ch-exemple.mssante.fr", nil="1", identity_in_subject=False)
    assert _read(short.seal(_letter()))["Subject"] == "XDM/1.0/DDM+CR de réunion de concertation pluridisci"


def test_a_partial_birth_date_is_left_out_of_the_subject():
    facts = content("minimal")
    subject = _read(MAILS.seal(_letter(facts)))["Subject"]
    assert subject == "XDM/1.0/DDM+CR de réunion de concertation pluridisci SANSINS JULES"


@pytest.mark.parametrize("qualified", [True, False])
def test_header_says_whether_the_ins_is_qualified(qualified):
    facts = content()
    facts = replace(facts, patient=replace(facts.patient, ins_qualified=qualified))
    assert _read(MAILS.seal(_letter(facts)))["X-MSS-INS"] == ("O" if qualified else "N")


def test_a_name_cannot_bring_a_header():
    facts = content()
    patient = replace(facts.patient, birth_family="PAT\r\nBcc: autre@example.org")
    with pytest.raises(InvalidContent, match="mail-header"):
        MAILS.seal(_letter(replace(facts, patient=patient)))
    nobody = Person(family="X\r\nBcc: autre@example.org")
    with pytest.raises(InvalidContent, match="mail-header"):
        MAILS.seal(_letter(recipient=nobody))


def test_above_the_limit_nothing_is_made_and_the_limit_is_named():
    small = ReportMail(address="rcp@ch-exemple.mssante.fr", nil="1", max_bytes=20_000)
    with pytest.raises(InvalidContent, match="20000"):
        small.seal(_letter())


def test_threads_answer_the_first_mail_to_the_same_person():
    first = content()
    replaced = Replaced(document_id=first.document_id, version=1, validated_at=first.written_at - timedelta(days=1))
    second = replace(
        first, version=2, document_id=replace(first.set_id, root=f"{first.set_id.root}.2"), replaces=replaced
    )
    mail = _read(MAILS.seal(_letter(second, previous=("a@x.fr", "b@x.fr"))))
    assert mail["In-Reply-To"] == "<a@x.fr>"
    assert mail["References"] == "<a@x.fr> <b@x.fr>"
    assert "Ce document annule et remplace celui du 25/11/2026." in mail.get_body().get_content()


def test_read_receipt_goes_to_the_sending_mailbox():
    assert _read(MAILS.seal(_letter()))["Disposition-Notification-To"] == "<rcp@ch-exemple.mssante.fr>"
