"""Mails as they come into the mailbox, on a real database: replies, and everything that is none."""

from __future__ import annotations

import email
import email.policy
import itertools
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import select, update

from gateway.exchange.inbox import Inbox
from gateway.identifiers import DossierReference
from gateway.model.directory import Mailbox
from gateway.model.dossier import Contribution, Correspondent, Dossier
from gateway.model.message import Message, Receipt
from gateway.model.person import WorkItem
from gateway.model.report import Report
from gateway.mssante.intake import MailIntake
from gateway.mssante.mailbox import Fetched
from gateway.mssante.translate import Composer
from gateway.rcp import contribution, notification
from tests.world import build

pytestmark = pytest.mark.usefixtures("nothing_names_anybody")

GATEWAY = "rcp@3c.mssante.fr"
PHYSICIAN = "nguyen@medecin.mssante.fr"
STRANGER = "robert@medecin.mssante.fr"
NOW = datetime(2026, 3, 17, 9, 0, tzinfo=UTC)
REFERENCE = "RCP-7K3Q-29"


@pytest.fixture
def scene(store, make_steps, blobs):
    with store.session() as session:
        world = build(session)
        dossier = world.dossier(reference=REFERENCE)
        session.execute(update(Correspondent).values(since=NOW - timedelta(days=8)))
        session.commit()
        made = SimpleNamespace(store=store, dossier=dossier.id, treating=world.treating.id, world=world)
    made.clock = SimpleNamespace(at=NOW, now=lambda: made.clock.at)
    made.steps = make_steps(clock=made.clock)
    made.letters = Composer(address=GATEWAY, nil="000000", name="RCP Sein", answers_read=True)
    made.intake = MailIntake(made.steps, address=GATEWAY, letters=made.letters)
    made.inbox = Inbox(store, blobs, [made.intake])
    made.intake.attach(made.inbox)
    made.numbers = itertools.count(1)
    notification.plan_due(made.steps, made.letters)
    made.notice = rows(made, Message, Message.kind == "M1")[0]
    return made


def rows(scene, model, *where):
    with scene.store.session() as session:
        return session.scalars(select(model).where(*where).order_by(model.id)).unique().all()


def mail(
    scene, text="Vit seule au troisième étage.", *more, sender=PHYSICIAN, answers=..., subject="Re: RCP", name=None
):
    number = next(scene.numbers)
    answers = scene.notice.message_id if answers is ... else answers
    heads = [
        f"Return-Path: <{sender}>",
        f"From: Docteur <{sender}>",
        f"To: {GATEWAY}",
        f"Message-ID: <{name or f'r{number}'}@medecin.mssante.fr>",
        f"Subject: {subject}",
        *([f"In-Reply-To: <{answers}>"] if answers else []),
        "Content-Type: text/plain; charset=utf-8",
        *more,
    ]
    return "\r\n".join(heads).encode() + b"\r\n\r\n" + text.encode()


def come(scene, content):
    number = next(scene.numbers)
    scene.intake.keep(Fetched(7, number, content, len(content)))
    [kept] = rows(scene, Message, Message.direction == "in", Message.key.like(f"7.{number}%"))
    return kept


def told(scene, kind):
    return rows(scene, Message, Message.direction == "out", Message.kind == kind)


def body(message):
    read = email.message_from_bytes(message.content, policy=email.policy.default)
    return " ".join(read.get_content().split())


def items(scene):
    return {one.reason for one in rows(scene, WorkItem)}


def test_the_notification_says_that_one_may_answer(scene):
    assert "répondez à ce message" in body(scene.notice)


def test_a_reply_becomes_a_contribution_and_is_acknowledged_once(scene):
    content = mail(scene, f"Vit seule.\r\n\r\nLe 17/03/2026, RCP a écrit :\r\n> {REFERENCE}\r\n\r\n-- \r\nDr N.")
    kept = come(scene, content)
    assert (kept.state, kept.reason, kept.dossier_id) == ("traite", None, scene.dossier)
    [said] = rows(scene, Contribution)
    assert (said.text, said.channel, said.author_id) == ("Vit seule.", "messagerie", scene.treating)
    [answer] = told(scene, "M7")
    assert (answer.recipient, answer.dossier_id, answer.recipient_id) == (PHYSICIAN, scene.dossier, scene.treating)
    assert body(answer).startswith("Votre réponse a été ajoutée à la fiche de la réunion du 19/03/2026")
    assert REFERENCE in body(answer)
    head = email.message_from_bytes(answer.content, policy=email.policy.default)
    assert head["In-Reply-To"] == f"<{kept.message_id}>"
    assert head["Auto-Submitted"] == "auto-generated"
    assert head["Disposition-Notification-To"] is None
    assert "PAT-TROIS" not in answer.content.decode()
    assert [one.kind for one in rows(scene, Message, Message.direction == "out")] == ["M1", "M2", "M7"]
    # The same mail again under another number, and the same step again after a crash before its commit.
    assert come(scene, content).state == "ignore"
    scene.inbox.replay(kept.id)
    assert len(rows(scene, Contribution)) == 1
    assert len(told(scene, "M7")) == 1
    assert not rows(scene, WorkItem)


def test_two_replies_are_two_contributions_and_neither_rewrites_what_was_signed_in(scene):
    def portal(text, key):
        def verb(step):
            contribution.contribute(step, scene.dossier, text=text, interested=True, key=key, letters=scene.letters)

        scene.steps.run(scene.world.caller(scene.world.treating), verb)

    portal("Écrit sur le portail.", "a")
    come(scene, mail(scene, "Par courriel."))
    come(scene, mail(scene, "Encore."))
    portal("Réécrit sur le portail.", "b")
    said = {(one.channel, one.text) for one in rows(scene, Contribution)}
    assert said == {("portail", "Réécrit sur le portail."), ("messagerie", "Par courriel."), ("messagerie", "Encore.")}
    assert rows(scene, Correspondent, Correspondent.role == "medecin-traitant")[0].wishes_to_attend


@pytest.mark.parametrize("where", ["subject", "text"])
def test_s09_the_reference_alone_is_enough(scene, where):
    subject, text = (
        (f"Fiche {REFERENCE.lower()}", "Vit seule.") if where == "subject" else ("RCP", f"Vit seule.\r\n{REFERENCE}")
    )
    kept = come(scene, mail(scene, text, answers=None, subject=subject))
    assert kept.state == "traite"
    assert rows(scene, Contribution)[0].text.startswith("Vit seule.")


def refused(scene, content, reason, motive):
    kept = come(scene, content)
    assert (kept.state, kept.reason) == ("quarantaine", reason)
    assert not rows(scene, Contribution)
    assert not told(scene, "M7")
    [answer] = told(scene, "M8")
    assert motive in body(answer)
    assert "PAT-TROIS" not in answer.content.decode()
    assert items(scene) == {reason}
    return answer


def test_s09_another_address_is_refused_and_told(scene):
    answer = refused(scene, mail(scene, sender=STRANGER), "adresse-non-notifiee", "autre adresse que celle")
    assert (answer.recipient, answer.recipient_id) == (STRANGER, None)


def test_an_empty_reply_is_told(scene):
    text = "\r\n\r\nLe 17/03/2026, RCP a écrit :\r\n> Bonjour\r\n"
    refused(scene, mail(scene, text), "message-vide", "aucun texte nouveau")


def test_a_file_alone_is_told_and_waits(scene):
    text = (
        "--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=a.pdf\r\n\r\n%PDF\r\n--b--"
    )
    content = mail(scene, text).replace(b"text/plain; charset=utf-8", b"multipart/mixed; boundary=b")
    refused(scene, content, "piece-jointe-seule", "qu’une pièce jointe")


def test_a_text_beyond_the_limit_is_told(scene):
    refused(scene, mail(scene, "mot " * 2600), "contribution-longue", "10000 caractères")


def test_after_the_validation_nothing_is_added(scene):
    with scene.store.session() as session:
        dossier = session.get_one(Dossier, scene.dossier)
        report = Report(
            dossier_id=dossier.id,
            set_id=dossier.id,
            state="valide",
            content=b"{}",
            author_id=scene.world.coordinator.id,
        )
        session.add(report)
        session.commit()
    refused(scene, mail(scene), "contribution-close", "déjà validé")


def test_a_reference_of_nothing_is_told(scene):
    refused(scene, mail(scene, answers="autre@ailleurs.example"), "reference-introuvable", "introuvable")


def test_files_beside_a_text_wait_for_a_person(scene):
    text = (
        "--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nVit seule.\r\n"
        "--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=a.pdf\r\n\r\n%PDF\r\n--b--"
    )
    kept = come(scene, mail(scene, text).replace(b"text/plain; charset=utf-8", b"multipart/mixed; boundary=b", 1))
    assert (kept.state, kept.reason) == ("traite", "pieces-jointes")
    assert [one.text for one in rows(scene, Contribution)] == ["Vit seule."]
    assert items(scene) == {"pieces-jointes"}


AUTOMATIC = [
    ("Auto-Submitted: auto-replied",),
    ("Auto-Submitted: auto-generated; owner=x",),
    ("Precedence: bulk",),
    ("X-Autoreply: yes",),
]


@pytest.mark.parametrize("heads", AUTOMATIC)
def test_s05_a_machine_neither_contributes_nor_is_answered(scene, heads):
    assert come(scene, mail(scene, "Je suis absent.", *heads)).state == "ignore"
    assert not rows(scene, Contribution)
    assert [one.kind for one in rows(scene, Message, Message.direction == "out")] == ["M1"]


def test_an_empty_return_path_and_a_report_of_any_kind_are_machines(scene):
    nobody = mail(scene).replace(f"Return-Path: <{PHYSICIAN}>".encode(), b"Return-Path: <>")
    report = mail(scene).replace(b"text/plain; charset=utf-8", b'multipart/report; report-type=feedback; boundary="b"')
    assert {come(scene, nobody).state, come(scene, report).state} == {"ignore"}
    assert not rows(scene, Contribution)


@pytest.mark.parametrize(
    "heads",
    [
        f"From: {STRANGER}, {PHYSICIAN}",
        f"From: {PHYSICIAN}\r\nFrom: {STRANGER}",
        f"From: {PHYSICIAN}\r\nSender: {STRANGER}",
        f'From: "{PHYSICIAN}" <pirate@example.org>',
        "From: =?utf-8?q?rien?=",
    ],
)
def test_a_sender_that_is_not_one_is_believed_and_answered_by_nobody(scene, heads):
    content = mail(scene).replace(f"From: Docteur <{PHYSICIAN}>".encode(), heads.encode())
    kept = come(scene, content)
    assert (kept.state, kept.reason) == ("quarantaine", "expediteur-douteux")
    assert not rows(scene, Contribution)
    assert not told(scene, "M7") + told(scene, "M8")


def test_who_writes_the_from_of_another_through_his_own_box_is_not_believed(scene):
    content = mail(scene).replace(f"Return-Path: <{PHYSICIAN}>".encode(), f"Return-Path: <{STRANGER}>".encode())
    assert come(scene, content).reason == "expediteur-douteux"
    assert not rows(scene, Contribution)


def test_two_machines_that_do_not_say_so_stop_answering_each_other(scene):
    come(scene, mail(scene, sender=STRANGER))
    [first] = told(scene, "M8")
    assert come(scene, mail(scene, sender=STRANGER, answers=first.message_id)).reason == "reponse-a-un-accuse"
    for _ in range(8):
        come(scene, mail(scene, sender=STRANGER))
    assert len(told(scene, "M8")) == 5
    scene.clock.at = NOW + timedelta(hours=25)
    come(scene, mail(scene, sender=STRANGER))
    assert len(told(scene, "M8")) == 6


def test_two_dossiers_cited_in_one_mail_are_for_a_person(scene):
    second = DossierReference.new().value
    with scene.store.session() as session:
        known = session.get_one(Dossier, scene.dossier)
        same = {one: getattr(known, one) for one in ("session_id", "record_id", "partner_id", "state", "registered_at")}
        session.add(Dossier(number="urn:uuid:deux", reference=second, tumour_key="autre", **same))
        session.commit()
    kept = come(scene, mail(scene, f"{REFERENCE} et {second}", answers=None))
    assert (kept.state, kept.dossier_id) == ("quarantaine", None)
    assert not rows(scene, Contribution)


def test_x37_the_same_identifier_over_other_bytes_is_quarantined(scene):
    come(scene, mail(scene, "Un.", name="meme"))
    assert come(scene, mail(scene, "Deux.", name="meme")).reason == "same-id-other-bytes"
    assert [one.text for one in rows(scene, Contribution)] == ["Un."]
    assert items(scene) == {"courriel-reply"}, "either of the two may be the true one"


def test_a_reply_that_cannot_be_taken_is_for_a_person(scene):
    """What would answer it cannot be made: nothing is kept of the step, and it is said."""
    scene.intake._letters = Composer(address="sans-arobase", nil="000000", answers_read=True)
    kept = come(scene, mail(scene))
    assert (kept.state, kept.reason) == ("quarantaine", "mail-address")
    assert items(scene) == {"courriel-reply"}
    assert not rows(scene, Contribution)


def test_without_a_composer_a_person_reads_all(scene):
    scene.intake._letters = None
    kept = come(scene, mail(scene))
    assert (kept.state, kept.reason, kept.dossier_id) == ("quarantaine", "reply", scene.dossier)
    assert not rows(scene, Contribution)


def delivery_report(scene, *blocks, envelope=True):
    """What an operator says of our notification, block by block."""
    said = f"Original-Envelope-Id: {scene.notice.details['envelope_id']}\r\n" if envelope else ""
    status = "\r\n".join(("Reporting-MTA: dns; mx.example\r\n" + said, *blocks))
    return (
        "Return-Path: <>\r\nFrom: MAILER-DAEMON@mx.example\r\n"
        "Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n"
        "--b\r\nContent-Type: text/plain\r\n\r\nNon remis.\r\n"
        f"--b\r\nContent-Type: message/delivery-status\r\n\r\n{status}\r\n"
        "--b\r\nContent-Type: text/rfc822-headers\r\n\r\n"
        f"Message-ID: <{scene.notice.message_id}>\r\n\r\n--b--\r\n"
    ).encode()


def block(action, *, original=None, final="autre@ailleurs.example", status="5.1.1"):
    heads = [f"Original-Recipient: rfc822;{original}\r\n"] if original else []
    return "".join((*heads, f"Final-Recipient: rfc822; {final}\r\nAction: {action}\r\nStatus: {status}\r\n"))


def left(scene):
    with scene.store.session() as session:
        session.execute(update(Message).where(Message.id == scene.notice.id).values(state="accepte"))
        session.commit()


@pytest.mark.parametrize("envelope", [True, False])
def test_a_report_that_names_where_the_mailbox_forwards_to_is_of_our_message(scene, envelope):
    left(scene)
    kept = come(scene, delivery_report(scene, block("delivered", status="2.1.5"), envelope=envelope))
    assert kept.state == "traite"
    assert [one.kind for one in rows(scene, Receipt)] == ["remise"]


def test_a_forward_that_does_not_exist_says_nothing_of_the_address_that_was_written_to(scene):
    left(scene)
    assert come(scene, delivery_report(scene, block("failed"))).state == "traite"
    [receipt] = rows(scene, Receipt)
    assert (receipt.kind, receipt.message_id) == ("rejetee", scene.notice.id)
    assert [one.unusable_since for one in rows(scene, Mailbox, Mailbox.address == scene.notice.recipient)] == [None]


@pytest.mark.parametrize("case", ["original", "two"])
def test_x23_a_report_of_somebody_else_is_for_a_person(scene, case):
    left(scene)
    others = {
        "original": [block("failed", original="autre@medecin.mssante.fr", final=scene.notice.recipient)],
        "two": [block("failed"), block("failed", final="encore@ailleurs.example")],
    }
    kept = come(scene, delivery_report(scene, *others[case]))
    assert (kept.state, kept.reason) == ("quarantaine", "receipt-of-another-recipient")
    assert not rows(scene, Receipt)


def test_s01_of_two_recipients_in_one_report_ours_counts(scene):
    left(scene)
    ours = block("delivered", original=scene.notice.recipient.upper(), status="2.1.5")
    kept = come(scene, delivery_report(scene, block("failed"), ours))
    assert kept.state == "quarantaine"  # the other one is nobody's here
    assert [one.kind for one in rows(scene, Receipt)] == ["remise"]
