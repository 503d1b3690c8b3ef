"""A message is kept, done once, and answered each time; whose its document is decides what is answered."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from gateway.errors import Unavailable
from gateway.exchange.inbox import Inbox
from gateway.exchange.replaying import read_again
from gateway.fhir import document
from gateway.fhir.keeping import current
from gateway.hl7v2.intake import Hl7Intake
from gateway.hl7v2.peers import caller_of
from gateway.model.message import Message
from gateway.model.partner import Partner
from gateway.model.person import WorkItem
from gateway.model.received import ReceivedDocument
from gateway.model.store import utcnow
from gateway.rcp import received
from tests import hl7_samples as samples
from tests.hl7_scene import IPP, Scene
from tests.world import audit_lines

pytestmark = pytest.mark.usefixtures("nothing_names_anybody")

ACCEPTED = ("AA", "", "", "")


def documents(scene: Scene) -> list[tuple[str, str | None]]:
    return [(one.state, one.reason) for one in scene.rows(ReceivedDocument)]


def items(scene: Scene) -> list[str]:
    return [one.reason for one in scene.rows(WorkItem, WorkItem.closed_at.is_(None))]


def test_a_document_is_attached_by_its_ins_and_shown_over_fhir(scene: Scene):
    record, dossier = scene.patient()
    content = samples.message()
    assert scene.take(content) == ACCEPTED
    [kept] = scene.rows(Message)
    assert (kept.channel, kept.kind, kept.message_id, kept.sender) == (
        "mllp",
        "MDM^T02",
        "RCP-000101",
        "PASSERELLE-RCP|CH-EXEMPLE",
    )
    assert (kept.state, kept.told, kept.dossier_id, kept.partner_id) == (
        "traite",
        "AA",
        dossier,
        scene.world.partner.id,
    )
    assert scene.inbox.content(kept.id) == content
    assert kept.sha256 == hashlib.sha256(content).hexdigest()
    [row] = scene.rows(ReceivedDocument)
    assert (row.channel, row.state, row.record_id, row.dossier_id, row.message_id) == (
        "hl7v2",
        "attache",
        record,
        dossier,
        kept.id,
    )
    assert scene.blobs.read(row.sha256) == samples.cda()
    assert not items(scene)
    with scene.store.session() as session:
        shown = document.decode(current(session, "DocumentReference", str(row.id)).body)
        assert (shown["status"], shown["subject"]["reference"]) == ("current", f"Patient/{record}")
        assert shown["masterIdentifier"]["value"] == "urn:oid:1.2.250.1.999.77.1.20261126.1042.1"
        assert current(session, "Binary", str(row.id)) is not None
        created = [one for one in audit_lines(session) if one["event"] == "creation"]
        assert [(one["wire"], one["actor_name"]) for one in created] == [("hl7v2", scene.world.partner.name)]


def test_a_document_is_attached_by_the_number_of_its_establishment(scene: Scene):
    record, _ = scene.patient(ins_value=None, ins_system=None, ins_qualified=False, **IPP)
    assert scene.take(samples.message(samples.ORU)) == ACCEPTED
    assert [one.record_id for one in scene.rows(ReceivedDocument)] == [record]


def test_a_patient_that_is_not_known_puts_the_document_in_quarantine_and_his_sender_knows(scene: Scene):
    assert scene.take(samples.message(samples.LPS)) == ("AE", "PID^1^3", "207", "902")
    assert documents(scene) == [("quarantaine", "document-patient-inconnu")]
    assert scene.messages() == [("quarantaine", "AE", "document-patient-inconnu")]
    assert items(scene) == ["document-patient-inconnu"]
    # Corrected and sent again under a new number it finds its place, and nobody is asked any more.
    scene.patient()
    assert scene.take(samples.message(samples.LPS, MSH_10="LPS-000032")) == ACCEPTED
    assert documents(scene) == [("attache", None)]
    assert not items(scene)


def test_a_kept_message_is_read_again_by_a_person_s_wish(scene: Scene):
    content = samples.message()
    assert scene.take(content)[0] == "AE"
    [kept] = scene.rows(Message)
    scene.patient()
    assert scene.inbox.replay(kept.id)
    assert documents(scene) == [("attache", None)]
    assert scene.messages() == [("traite", "AA", None)]
    assert scene.take(content) == ACCEPTED  # whoever sends it once more is told how it stands


@pytest.mark.parametrize(
    ("known", "reason", "code"),
    [
        ({"match_key": "autre|x|1979-03-28|F"}, "traits-differents", "904"),
        ({"ins_value": "279035121518888", **IPP}, "ins-differente", "904"),
    ],
)
def test_the_guard_of_identities_is_that_of_every_wire(scene: Scene, known, reason, code):
    scene.patient(**known)
    assert scene.take(samples.message()) == ("AE", "PID^1^3", "207", code)
    assert documents(scene) == [("quarantaine", reason)]


def test_another_establishment_s_patients_are_nobody_s_here(scene: Scene):
    scene.patient()
    with scene.store.session() as session:
        clinic = Partner(name="Clinique Z")
        session.add(clinic)
        session.flush()
        caller = caller_of(session, clinic, address="10.0.0.1")
        session.commit()
    assert scene.take(samples.message(), caller) == ("AE", "PID^1^3", "207", "902")
    assert [one.partner_id for one in scene.rows(WorkItem)] == [clinic.id]
    # The same number from another sender is another message.
    assert scene.take(samples.message()) == ACCEPTED


def test_h09_the_same_message_twice_is_done_once_and_answered_twice(scene: Scene):
    scene.patient()
    content = samples.message()
    assert [scene.take(content), scene.take(content)] == [ACCEPTED, ACCEPTED]
    assert len(scene.rows(Message)) == len(scene.rows(ReceivedDocument)) == 1
    refused = samples.message(ORC_1="CA", MSH_10="RCP-9")
    assert [scene.take(refused), scene.take(refused)] == [("AE", "ORC^1^1", "199", "")] * 2
    assert len(scene.rows(Message)) == 2


def test_h09_other_bytes_under_the_same_number_are_kept_and_refused(scene: Scene):
    scene.patient()
    assert scene.take(samples.message()) == ACCEPTED
    other = samples.message(samples.MDM, PV1_2="I")
    assert [scene.take(other), scene.take(other)] == [("AE", "MSH^1^10", "199", "")] * 2
    assert scene.take(samples.message()) == ACCEPTED
    assert scene.messages() == [("traite", "AA", None), ("quarantaine", "AE", "hl7-numero-repris")]
    assert [scene.inbox.content(one.id) for one in scene.rows(Message)] == [samples.message(), other]
    # Another application of the same establishment counts its own messages.
    assert scene.take(samples.message(samples.MDM, MSH_3="LABO")) == ACCEPTED


def test_two_at_once_are_done_once(scene: Scene):
    scene.patient()
    content = samples.message()
    with ThreadPoolExecutor(6) as pool:
        told = list(pool.map(scene.take, [content] * 6))
    assert told == [ACCEPTED] * 6
    assert len(scene.rows(Message)) == len(scene.rows(ReceivedDocument)) == 1


def test_a_replacement_takes_the_place_of_the_former_version(scene: Scene):
    scene.patient()
    assert scene.take(samples.message()) == ACCEPTED
    assert scene.take(samples.replacement()) == ACCEPTED
    assert sorted(documents(scene)) == [("attache", None), ("remplace", None)]
    with scene.store.session() as session:
        shown = {
            one.version: document.decode(current(session, "DocumentReference", str(one.id)).body)
            for one in session.scalars(select(ReceivedDocument))
        }
    assert {number: tree["status"] for number, tree in shown.items()} == {1: "superseded", 2: "current"}
    older = samples.cda().replace(b'20261126.1042.1"', b'20261126.1042.9"')  # X35: another document, the same version
    assert older != samples.cda()
    content = samples.message(document=older, MSH_10="RCP-9", TXA_12="1.2.250.1.999.77.1.20261126.1042.9")
    assert scene.take(content) == ("AE", "", "207", "900")


def test_a_replacement_of_what_never_came_is_integrated_as_new(scene: Scene):  # mssante 6.1
    scene.patient()
    assert scene.take(samples.replacement()) == ACCEPTED
    assert documents(scene) == [("attache", None)]


def test_a_withdrawal_takes_the_document_away_whenever_it_comes(scene: Scene):
    scene.patient()
    first = "1.2.250.1.999.77.1.20261126.1042.1"
    withdrawal = samples.deletion(1, TXA_12=first)
    assert scene.take(withdrawal) == ACCEPTED  # before its document: it will be refused when it comes
    assert documents(scene) == [("retire", None)]
    assert scene.take(samples.message())[2:] == ("207", "900")
    assert scene.take(samples.replacement(MSH_10="RCP-2")) == ACCEPTED
    assert scene.take(samples.deletion(MSH_10="RCP-3")) == ACCEPTED
    assert ("attache", None) not in documents(scene)


def test_what_was_replaced_is_withdrawn_no_more_but_its_latest_version_is(scene: Scene):  # mssante 6.1
    scene.patient()
    assert scene.take(samples.message()) == ACCEPTED
    assert scene.take(samples.replacement()) == ACCEPTED
    first = samples.deletion(1, TXA_12="1.2.250.1.999.77.1.20261126.1042.1", MSH_10="RCP-8")
    assert scene.take(first) == ("AE", "", "207", "900")
    assert sorted(documents(scene)) == [("attache", None), ("remplace", None)]
    assert scene.take(samples.deletion()) == ACCEPTED
    assert sorted(documents(scene)) == [("remplace", None), ("retire", None)]


def test_a_withdrawal_counts_by_its_identifier_whatever_else_was_written_anew(scene: Scene):
    scene.patient()
    assert scene.take(samples.message()) == ACCEPTED
    anew = samples.cda().replace(b"</ClinicalDocument>", b"<!-- retrait --></ClinicalDocument>")
    content = samples.message(changed=samples.DELETION, document=anew, TXA_12="1.2.250.1.999.77.1.20261126.1042.1")
    assert scene.take(content) == ACCEPTED
    assert documents(scene) == [("retire", None)]


def test_somebody_else_neither_replaces_nor_withdraws(scene: Scene):
    _, dossier = scene.patient()
    assert scene.take(samples.message()) == ACCEPTED
    with scene.store.session() as session:  # another establishment that sees the dossier: it runs the RCP
        other = Partner(name="3C", finess="750000018")
        session.add(other)
        session.flush()
        scene.world.session = session
        organisation = session.get(type(scene.world.organisation), scene.world.organisation.id)
        organisation.finess = other.finess
        session.flush()
        caller = caller_of(session, other, address="10.0.0.1")
        session.commit()
    assert caller.rcps
    assert scene.take(samples.replacement(), caller)[2:] == ("207", "901")
    assert scene.take(samples.deletion(1, TXA_12="1.2.250.1.999.77.1.20261126.1042.1"), caller)[2:] == ("207", "901")
    assert ("attache", None) in documents(scene)
    assert dossier is not None


def test_what_is_masked_to_professionals_is_shown_to_none(scene: Scene):
    scene.patient()
    text = samples.text().replace("MetaDMPMSS||N", "MetaDMPMSS||Y", 1)
    assert scene.take(samples.wire(text)) == ("AE", "", "207", "906")
    assert documents(scene) == [("quarantaine", "document-masque")]
    assert items(scene) == ["document-masque"]


def test_two_forms_of_one_content_are_two_documents_of_one_message(scene: Scene):
    scene.patient()
    text = samples.text(samples.ORU)
    more = text.split("\n")[5].replace("OBX|1|", "OBX|2|")
    more = more.replace(samples.encoded(samples.cda()), samples.encoded(samples.envelope()))
    head, mark, tail = text.partition("OBX|2|CE|MASQUE_PS")
    assert scene.take(samples.wire(f"{head}{more}\n{mark}{tail}")) == ACCEPTED
    assert {(one.format, one.state) for one in scene.rows(ReceivedDocument)} == {
        ("structure", "attache"),
        ("n1", "attache"),
    }


def test_what_cannot_be_read_is_kept_and_answered(scene: Scene):
    assert scene.take(b"bonjour") == ("AE", "MSH^1", "100", "")
    assert scene.take(samples.message(MSH_9="ADT^A01^ADT_A01")) == ("AE", "MSH^1^9", "200", "")
    assert scene.take(samples.message(MSH_10="")) == ("AE", "MSH^1^10", "101", "")
    assert scene.take(b"MSH|^~\\&|A\x00|||||||N\x00\xff|T\rPID|\x00") != ACCEPTED
    assert scene.messages()[0] == ("quarantaine", "AE", "hl7-sans-msh")
    assert len(scene.rows(Message)) == 4
    assert not documents(scene)


def test_remarks_are_kept_with_the_message(scene: Scene):
    scene.patient()
    assert scene.take(samples.message(MSH_18="")) == ACCEPTED
    [kept] = scene.rows(Message)
    assert kept.details["notes"] == ["msh-18-absent"]


def test_strictly_a_document_outside_the_matrix_is_refused(scene: Scene):
    scene.patient()
    strict = Hl7Intake(scene.steps, scene.blobs, strict=True)
    strict.attach(Inbox(scene.store, scene.blobs, [strict]))
    content = samples.wire(samples.text().replace("patient^MetaDMPMSS||Y", "patient^MetaDMPMSS||N", 1))
    assert samples.said(strict.take(content, scene.caller)) == ("AE", "OBX", "199", "")
    assert scene.take(samples.message(MSH_10="RCP-2").replace(b"patient^MetaDMPMSS||Y", b"patient^MetaDMPMSS||N")) == (
        ACCEPTED
    )


def test_a_message_whose_process_was_killed_is_done_by_the_sweep(scene: Scene, monkeypatch):
    scene.patient()
    monkeypatch.setattr(Inbox, "process", lambda *_: False)  # killed between keeping and the step
    assert scene.take(samples.message()) == ("AR", "", "207", "")
    monkeypatch.undo()
    assert scene.messages() == [("garde", None, None)]
    with scene.store.session() as session:
        session.execute(update(Message).values(created_at=utcnow() - timedelta(minutes=2)))
        session.commit()
    assert scene.inbox.sweep() == 1
    assert documents(scene) == [("attache", None)]
    assert scene.take(samples.message()) == ACCEPTED


def test_when_nothing_can_be_kept_the_sender_comes_again(scene: Scene, monkeypatch):
    scene.patient()
    for fault in (
        Unavailable("database", "La base de données ne répond pas."),
        OperationalError("x", {}, Exception("PAT-TROIS")),
        MemoryError(),
    ):

        def fails(*_: object, fault: BaseException = fault) -> None:
            raise fault

        monkeypatch.setattr(Inbox, "keep", fails)
        answer = scene.intake.take(samples.message(), scene.caller)
        assert samples.said(answer)[::2] == ("AR", "207")
        assert b"PAT-TROIS" not in answer
        monkeypatch.undo()
    assert scene.take(samples.message()) == ACCEPTED


def test_a_step_that_cannot_be_done_now_is_done_when_the_message_comes_again(scene: Scene, monkeypatch):
    scene.patient()

    def fails(*_: object) -> None:
        raise Unavailable("blob-disk", "Le stockage est plein.")

    monkeypatch.setattr(received, "take_document", fails)
    assert scene.take(samples.message())[0] == "AR"
    assert scene.messages() == [("garde", None, None)]
    monkeypatch.undo()
    assert scene.take(samples.message()) == ACCEPTED
    assert scene.messages() == [("traite", "AA", None)]


def test_a_defect_leaves_the_message_kept_and_in_the_end_asks_a_person(scene: Scene, monkeypatch):
    scene.patient()

    def fails(*_: object) -> None:
        raise KeyError("PAT-TROIS")

    monkeypatch.setattr(received, "take_document", fails)
    answers = [scene.intake.take(samples.message(), scene.caller) for _ in range(10)]
    assert [samples.said(one)[0] for one in answers] == ["AR"] * 9 + ["AE"]
    assert items(scene) == ["hl7-non-traite"]
    monkeypatch.undo()
    [kept] = scene.rows(Message)
    assert scene.inbox.replay(kept.id)
    assert documents(scene) == [("attache", None)]


def test_what_a_revoked_partner_left_is_done_no_more(scene: Scene, monkeypatch):
    scene.patient()
    monkeypatch.setattr(Inbox, "process", lambda *_: False)
    scene.take(samples.message())
    monkeypatch.undo()
    with scene.store.session() as session:
        session.execute(update(Partner).values(revoked_at=utcnow()))
        session.commit()
    [kept] = scene.rows(Message)
    assert scene.inbox.process(kept.id)
    assert scene.messages() == [("quarantaine", None, "partenaire-revoque")]
    assert not documents(scene)


def test_a_message_read_again_is_asked_about_once(scene: Scene):
    assert scene.take(samples.message())[0] == "AE"
    [kept] = scene.rows(Message)
    for _ in range(2):
        with scene.store.session() as session:
            read_again(session, kept.id)
            session.commit()
        assert scene.inbox.process(kept.id)
    assert items(scene) == ["document-patient-inconnu"]
    assert len(scene.rows(ReceivedDocument)) == 1
