"""The life of a report on a real database: frozen, kept, mailed, replaced, withdrawn, never twice."""

from __future__ import annotations

import base64
import dataclasses
import email
import email.policy
import hashlib
import io
import json
import zipfile
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from lxml import etree
from sqlalchemy import select, text, update

from gateway.errors import Conflict, Forbidden, InvalidContent, NotFound
from gateway.fhir.represent import Representer
from gateway.model.audit import AuditLine
from gateway.model.directory import Mailbox, Practitioner
from gateway.model.dossier import Contribution, Correspondent, Dossier
from gateway.model.meeting import Attendance, Rcp, RcpSession
from gateway.model.message import Message, NotificationEntry
from gateway.model.person import WorkItem
from gateway.model.report import Report, ReportForm
from gateway.model.representation import TABLES
from gateway.rcp import fiche, report, report_reading, report_sending, resending
from gateway.rcp.notice_rules import REASONS
from gateway.rcp.report_content import decode
from gateway.rcp.report_draft import DraftTreatment, ReportDraft
from tests import report_samples
from tests.report_samples import cisis, national_validator
from tests.world import build

pytestmark = pytest.mark.usefixtures("nothing_names_anybody")

NS = {"c": "urn:hl7-org:v3"}
HELD = datetime(2026, 3, 19, 15, 0, tzinfo=UTC)
SAID = ReportDraft(
    summary="Masse du sein gauche, carcinome infiltrant.",
    proposal="Chimiothérapie néoadjuvante, puis chirurgie.",
    alternatives=("Chirurgie première.",),
    treatments=(DraftTreatment(code="C15632", text="6 cycles"),),
    guideline="Référentiel régional Sein, version 2025.2",
)
INS = {
    "ins_system": "urn:oid:1.2.250.1.213.1.4.10",
    "ins_value": "279035121518989",
    "ins_qualified": True,
    "birth_place": "51215",
}


@pytest.fixture
def press(blobs):
    return report_samples.press(blobs)


@pytest.fixture
def scene(store, make_steps, press):
    """A dossier whose session is held, with three specialities present and one contribution."""
    with store.session() as session:
        world = build(session)
        surgeon = world.practitioner("LAVAL", speciality="SM05")
        radio = world.practitioner("SIMON", speciality="SM45")
        world.meeting.state = "ouverte"
        for who in (world.coordinator, surgeon, radio):
            session.add(Attendance(session_id=world.meeting.id, practitioner_id=who.id, speciality=who.speciality))
        record = world.record(**INS)
        dossier = world.dossier(record)
        session.add(
            Contribution(
                dossier_id=dossier.id,
                key="c1",
                author_id=world.treating.id,
                author_name="Dr Camille NGUYEN",
                author_speciality="SM54",
                text="Patiente fatiguée, vit seule.",
                at=datetime(2026, 3, 18, 12, 58, tzinfo=UTC),
            )
        )
        session.commit()
        made = SimpleNamespace(
            dossier=dossier.id,
            record=record.id,
            meeting=world.meeting.id,
            treating=world.treating.id,
            requester=world.requester.id,
            coordinator=world.caller(world.coordinator),
            requesting=world.caller(world.requester),
            physician=world.caller(world.treating),
            stranger=world.caller(world.stranger),
            client=world.client(),
            press=press,
        )
    made.clock = SimpleNamespace(at=HELD, now=lambda: made.clock.at)
    made.steps = make_steps(clock=made.clock)
    made.store = store
    return made


def _run(scene, verb, *args, caller=None, **more):
    def inner(step):
        found = verb(step, scene.dossier, *args, **more)
        return getattr(found, "id", None)

    return scene.steps.run(caller or scene.coordinator, inner)


def _validated(scene, said=SAID):
    _run(scene, report.draft, said)
    return _run(scene, report.validate, scene.press)


def _rows(scene, model, *where):
    with scene.store.session() as session:
        found = session.scalars(select(model).where(*where)).unique().all()
        session.expunge_all()
        return found


def _state(scene):
    return _rows(scene, Dossier, Dossier.id == scene.dossier)[0].state


def _deliver(scene):
    with scene.store.session() as session:
        session.execute(text("UPDATE message SET state = 'envoye' WHERE state = 'en-attente'"))
        session.commit()


def _mail(scene, message):
    content = message.content or scene.press.blobs.read(message.sha256)
    assert hashlib.sha256(content).hexdigest() == message.sha256
    return email.message_from_bytes(content, policy=email.policy.default)


def _attached(mail):
    return {part.get_filename(): part.get_payload(decode=True) for part in mail.iter_attachments()}


def test_validation_freezes_keeps_and_mails_the_same_bytes(scene):
    key = _validated(scene)
    [row] = _rows(scene, Report, Report.id == key)
    content = decode(row.content)
    assert (row.state, row.version, row.validated_at) == ("valide", 1, HELD)
    assert content.quorum == "atteint"
    assert [c.text for c in content.contributions] == ["Patiente fatiguée, vit seule."]
    assert content.contributions[0].author.speciality == "Médecine générale"
    assert [p.text for p in content.proposals] == [SAID.proposal, SAID.alternatives[0]]
    assert _state(scene) == "cr-valide"

    forms = {f.form: f for f in _rows(scene, ReportForm, ReportForm.report_id == key)}
    assert set(forms) == {"cda", "pdf", "xdm"}
    kept = {name: scene.press.blobs.read(form.sha256) for name, form in forms.items()}
    for name, form in forms.items():
        assert (hashlib.sha256(kept[name]).hexdigest(), len(kept[name])) == (form.sha256, form.size_bytes)

    messages = _rows(scene, Message, Message.kind == "M6")
    assert {m.recipient for m in messages} == {"nguyen@medecin.mssante.fr", "mercier@chu-x.mssante.fr"}
    assert len({m.message_id for m in messages}) == 2
    for message in messages:
        mail = _mail(scene, message)
        attached = _attached(mail)
        archive = attached.pop("IHE_XDM.zip")
        assert archive == kept["xdm"]
        assert list(attached.values()) == [kept["pdf"]]
        assert zipfile.ZipFile(io.BytesIO(archive)).read("IHE_XDM/SUBSET01/DOC0001.XML") == kept["cda"]
        assert mail["To"].addresses[0].addr_spec == message.recipient
        assert mail["Message-ID"] == f"<{message.message_id}>"
        assert (mail["X-MSS-CODECDA"], mail["X-MSS-INS"], mail["X-MSS-NIL"]) == ("34794-8", "O", "000000")
        raw = (message.content or scene.press.blobs.read(message.sha256)).decode("ascii")
        assert "\nSubject: XDM/1.0/DDM+CR de " in raw.replace("\r\n", "\n")
        assert mail["Subject"].endswith("PAT-TROIS DOMINIQUE 28/03/1979")
        body = mail.get_body().get_content()
        assert "Vous trouverez ci-joint le compte rendu de la RCP Sein du 19/03/2026" in body
        assert "annule et remplace" not in body
        [name] = attached
        assert name == "20260319_CR de réunion de concertation pluridisci_PAT-TROIS_DOMINIQUE.pdf"


@pytest.mark.skipif(cisis() is None, reason="les règles nationales (CISIS_DIR) ne sont pas sur ce poste")
def test_a_report_made_from_rows_passes_the_national_rules(scene):
    key = _validated(scene)
    [form] = _rows(scene, ReportForm, ReportForm.report_id == key, ReportForm.form == "cda")
    found = national_validator().Validator().validate(scene.press.blobs.read(form.sha256), profile="frcp")
    assert [str(one) for one in found if one.severity == "error"] == []


@pytest.mark.parametrize("own", ["05 56 00 00 09", ""])
def test_the_contact_is_the_rcp_s_else_the_network_s_as_in_every_letter(scene, own):
    with scene.store.session() as session:
        session.execute(text("UPDATE rcp SET contact = :c"), {"c": own})
        session.execute(text("UPDATE network SET contact = 'rcp@3c.example'"))
        session.commit()
    key = _validated(scene)
    wanted = own or "rcp@3c.example"
    assert decode(_rows(scene, Report, Report.id == key)[0].content).meeting.contact == wanted
    for message in _rows(scene, Message):
        body = _mail(scene, message).get_body().get_content()
        assert body.splitlines()[-1] == f"Le secrétariat du 3C – {wanted}"


def test_what_was_frozen_does_not_move_with_the_rows(scene):
    key = _validated(scene)
    [before] = _rows(scene, Report, Report.id == key)
    with scene.store.session() as session:
        session.execute(text("UPDATE practitioner SET speciality = 'SM20', family = 'AUTRE'"))
        session.execute(text("UPDATE contribution SET text = 'autre'"))
        session.execute(text("DELETE FROM attendance"))
        session.commit()
    [after] = _rows(scene, Report, Report.id == key)
    assert after.content == before.content
    forms = {f.form: scene.press.blobs.read(f.sha256) for f in after.forms}
    again = {f.form: f.content for f in scene.press.forms.render(decode(after.content))}
    assert again == forms


def test_a_validated_version_is_refused_by_the_database_itself(scene):
    key = _validated(scene)
    with scene.store.session() as session, pytest.raises(Exception, match="never changes"):
        session.execute(text("UPDATE report SET content = 'x' WHERE id = :id"), {"id": key})
    with scene.store.session() as session, pytest.raises(Exception, match="never removed"):
        session.execute(text("DELETE FROM report WHERE id = :id"), {"id": key})


def _reading(scene):
    with scene.store.session() as session:
        last = session.scalars(select(Report).order_by(Report.version.desc())).unique().first()
        return report_reading.reading_of(last)


def test_a_double_click_is_one_validation_and_one_mail_each(scene):
    _run(scene, report.draft, SAID)
    read = _reading(scene)
    first = _run(scene, report.validate, scene.press, expected=read)
    scene.clock.at += timedelta(minutes=1)
    assert _run(scene, report.validate, scene.press, expected=read) == first
    assert len(_rows(scene, Message, Message.kind == "M6")) == 2
    assert len(_rows(scene, ReportForm)) == 3


@pytest.mark.parametrize("change", ["draft", "fiche", "contribution", "attendance"])
def test_what_changed_since_it_was_read_is_not_validated(scene, change):
    _run(scene, report.draft, SAID)
    read = _reading(scene)
    if change == "draft":
        _run(scene, report.draft, ReportDraft(proposal="Autre chose"))
    elif change == "fiche":
        _run(scene, fiche.edit, {"tumeur.t": "T3"})
    else:
        with scene.store.session() as session:
            done = {
                "contribution": "UPDATE contribution SET text = 'Finalement opposée à la chirurgie.'",
                "attendance": "DELETE FROM attendance",
            }
            session.execute(text(done[change]))
            session.commit()
    with pytest.raises(Conflict, match="cr-change"):
        _run(scene, report.validate, scene.press, expected=read)
    assert _rows(scene, Message) == []
    _run(scene, report.validate, scene.press, expected=_reading(scene))


def test_a_crash_before_the_commit_leaves_nothing_and_a_new_try_does_it_once(scene):
    _run(scene, report.draft, SAID)

    class CrashError(RuntimeError):
        pass

    def dies(step):
        report.validate(step, scene.dossier, scene.press)
        step.session.flush()
        raise CrashError

    with pytest.raises(CrashError):
        scene.steps.run(scene.coordinator, dies)
    assert _rows(scene, Message) == []
    assert _rows(scene, ReportForm) == []
    assert (_rows(scene, Report)[0].state, _state(scene)) == ("brouillon", "cr-brouillon")
    _run(scene, report.validate, scene.press)
    assert len(_rows(scene, Message, Message.kind == "M6")) == 2
    assert len(_rows(scene, ReportForm)) == 3


def test_the_dossier_is_sent_once_every_recipient_is_terminal(scene):
    _validated(scene)
    assert report_sending.settle_due(scene.steps) == 0
    with scene.store.session() as session:
        first = session.scalars(select(Message).order_by(Message.id)).first()
        first.state = "envoye"
        session.commit()
    assert report_sending.settle_due(scene.steps) == 0
    assert _state(scene) == "cr-valide"
    _deliver(scene)
    assert report_sending.settle_due(scene.steps) == 1
    assert _state(scene) == "envoye"
    assert report_sending.settle_due(scene.steps) == 0


def test_without_anybody_to_tell_the_dossier_is_sent_at_once_and_the_register_says_why(scene):
    with scene.store.session() as session:
        session.execute(text("DELETE FROM mailbox"))
        session.commit()
    key = _validated(scene)
    assert _rows(scene, Message) == []
    assert _state(scene) == "envoye"
    entries = _rows(scene, NotificationEntry)
    assert {(e.kind, e.code) for e in entries} == {("M6.1", "NON_MSS")}
    assert len(entries) == 2
    assert len(_rows(scene, ReportForm, ReportForm.report_id == key)) == 3


def test_who_wants_documents_on_paper_gets_no_mail_and_the_register_says_so(scene):
    with scene.store.session() as session:
        session.execute(update(Mailbox).where(Mailbox.practitioner_id == scene.treating).values(paperless=False))
        session.commit()
    _validated(scene)
    [line] = _rows(scene, NotificationEntry, NotificationEntry.practitioner_id == scene.treating)
    assert (line.code, line.message_id) == ("NON_DEMAT", None)
    assert REASONS[line.code] == "Documents non reçus par MSSanté : à envoyer sur papier"
    assert [one.recipient_id for one in _rows(scene, Message)] == [scene.requester]


def test_a_patient_who_is_opposed_is_never_mailed_about(scene):
    with scene.store.session() as session:
        session.get(Dossier, scene.dossier).opposed_at = HELD
        session.commit()
    _validated(scene)
    assert _rows(scene, Message) == []
    assert {e.code for e in _rows(scene, NotificationEntry)} == {"NON_OPPOSITION"}


class _Limited:
    """Mails of one recipient refused by size, those of the others made as ever."""

    def __init__(self, mails, address, limit):
        self._mails, self._address, self._limit = mails, address, limit

    def seal(self, letter):
        small = dataclasses.replace(self._mails, max_bytes=self._limit)
        return (small if letter.address == self._address else self._mails).seal(letter)


def test_a_mail_too_large_undoes_no_validation(scene):
    """The others get theirs; the register and the work list say who got nothing, and which limit refused it."""
    _run(scene, report.draft, SAID)
    [box] = _rows(scene, Mailbox, Mailbox.practitioner_id == scene.requester)
    press = dataclasses.replace(scene.press, mails=_Limited(scene.press.mails, box.address, 5_000))
    _run(scene, report.validate, press)
    [row] = _rows(scene, Report)
    assert (row.state, {form.form for form in row.forms}) == ("valide", {"cda", "pdf", "xdm"})
    assert [m.recipient_id for m in _rows(scene, Message)] == [scene.treating]
    [line] = _rows(scene, NotificationEntry)
    assert (line.practitioner_id, line.kind, line.code, line.message_id) == (scene.requester, "M6.1", "ECHEC", None)
    [item] = _rows(scene, WorkItem)
    assert (item.kind, item.reason, item.dossier_id) == ("notification", "cr-non-envoye", scene.dossier)
    assert item.details["code"] == "mail-too-large"
    assert "5000 (RCP_MSSANTE_MAX_BYTES)" in item.details["motif"]
    # Not sent is not lost: it waits for a person, and the dossier for the other mail.
    assert _state(scene) == "cr-valide"
    _deliver(scene)
    assert report_sending.settle_due(scene.steps) == 1
    # A withdrawal goes to who got it alone, and its own failure undoes it as little.
    [other] = _rows(scene, Mailbox, Mailbox.practitioner_id == scene.treating)
    narrow = dataclasses.replace(scene.press, mails=_Limited(scene.press.mails, other.address, 5_000))
    _run(scene, report.cancel, "Mauvais patient", narrow)
    assert _rows(scene, Report)[0].state == "annule"
    assert {
        (e.kind, e.practitioner_id) for e in _rows(scene, NotificationEntry, NotificationEntry.code == "ECHEC")
    } == {
        ("M6.1", scene.requester),
        ("M6r.1", scene.treating),
    }
    assert len(_rows(scene, WorkItem)) == 2


def test_one_person_in_two_roles_gets_one_mail(scene):
    with scene.store.session() as session:
        session.execute(
            text("UPDATE correspondent SET practitioner_id = :who WHERE role = 'demandeur'"), {"who": scene.treating}
        )
        session.commit()
    _validated(scene)
    assert [m.recipient for m in _rows(scene, Message)] == ["nguyen@medecin.mssante.fr"]


def test_another_correspondent_gets_the_report_too(scene):
    with scene.store.session() as session:
        other = session.scalars(select(Practitioner).where(Practitioner.family == "ROBERT")).one()
        session.add(Correspondent(dossier_id=scene.dossier, practitioner_id=other.id, role="correspondant"))
        session.commit()
    _validated(scene)
    assert "robert@medecin.mssante.fr" in {m.recipient for m in _rows(scene, Message)}


def test_a_correction_replaces_everywhere(scene):
    first = _validated(scene)
    _deliver(scene)
    report_sending.settle_due(scene.steps)
    scene.clock.at += timedelta(days=1)
    second = _run(scene, report.revise, reason="Dose corrigée")
    assert _rows(scene, Report, Report.id == second)[0].draft["proposition"] == SAID.proposal
    assert _run(scene, report.revise) == second
    _run(scene, report.validate, scene.press)
    old, new = (_rows(scene, Report, Report.id == key)[0] for key in (first, second))
    assert (old.state, new.state, new.version, new.set_id) == ("remplace", "valide", 2, old.set_id)
    assert _state(scene) == "correction"
    content = decode(new.content)
    assert content.replaces.document_id == decode(old.content).document_id
    cda = etree.fromstring(scene.press.blobs.read(next(f for f in new.forms if f.form == "cda").sha256))
    assert cda.xpath("c:relatedDocument/c:parentDocument/c:id/@root", namespaces=NS) == [
        decode(old.content).document_id.root
    ]
    mails = {m.recipient: m for m in _rows(scene, Message, Message.report_id == second)}
    before = {m.recipient: m for m in _rows(scene, Message, Message.report_id == first)}
    assert set(mails) == set(before)
    for recipient, message in mails.items():
        mail = _mail(scene, message)
        assert mail["In-Reply-To"] == f"<{before[recipient].message_id}>"
        assert "annule et remplace celui du 19/03/2026" in mail.get_body().get_content()
        metadata = etree.fromstring(
            zipfile.ZipFile(io.BytesIO(_attached(mail)["IHE_XDM.zip"])).read("IHE_XDM/SUBSET01/METADATA.XML")
        )
        assert metadata.xpath("//*[@name='urn:action:extraMetadataSlot']//*[local-name()='Value']/text()") == ["C"]


def test_the_n1_beside_the_report_is_kept_replaced_and_taken_back_with_it(scene):
    """Whatever is set by then: N1 and N3 of the same content are replaced or deleted together (mssante.md 6.1)."""
    both = dataclasses.replace(scene.press, forms=dataclasses.replace(scene.press.forms, with_n1=True))
    _run(scene, report.draft, SAID)
    first = _run(scene, report.validate, both)
    _deliver(scene)
    _run(scene, report.revise, reason="Erreur")
    second = _run(scene, report.validate, scene.press)
    _deliver(scene)
    _run(scene, report.cancel, "Mauvais patient", scene.press)
    forms = {
        key: {f.form: scene.press.blobs.read(f.sha256) for f in _rows(scene, ReportForm, ReportForm.report_id == key)}
        for key in (first, second)
    }
    assert set(forms[first]) == {"cda", "pdf", "xdm", "n1"}
    assert set(forms[second]) == {"cda", "pdf", "xdm", "n1", "xdm-retrait"}
    for key, kind, actions in ((first, "M6", []), (second, "M6", ["C", "C"]), (second, "M6r", ["D", "D"])):
        [message, _] = _rows(scene, Message, Message.report_id == key, Message.kind == kind)
        mail = _mail(scene, message)
        archive = zipfile.ZipFile(io.BytesIO(_attached(mail)["IHE_XDM.zip"]))
        assert archive.read("IHE_XDM/SUBSET01/DOC0002.XML") == forms[key]["n1"]
        metadata = etree.fromstring(archive.read("IHE_XDM/SUBSET01/METADATA.XML"))
        found = metadata.xpath("//*[@name='urn:action:extraMetadataSlot']//*[local-name()='Value']/text()")
        assert found == actions
        assert mail["Subject"].startswith("XDM/1.0/DDM+2 documents PAT-TROIS")


def test_an_addendum_is_a_version_that_replaces(scene):
    _validated(scene)
    second = _run(scene, report.revise, kind="addendum", reason="Résultat du panel")
    _run(scene, report.validate, scene.press)
    assert _state(scene) == "addendum"
    assert decode(_rows(scene, Report, Report.id == second)[0].content).replaces.kind == "addendum"


def test_a_version_replaced_before_it_left_is_not_sent(scene):
    first = _validated(scene)
    _run(scene, report.revise, reason="Erreur")
    second = _run(scene, report.validate, scene.press)
    assert {m.state for m in _rows(scene, Message, Message.report_id == first)} == {"annule"}
    later = _rows(scene, Message, Message.report_id == second)
    assert {m.state for m in later} == {"en-attente"}
    assert all(_mail(scene, m)["In-Reply-To"] is None for m in later)


def _set(scene, **said):
    with scene.store.session() as session:
        rcp = session.scalars(select(Rcp)).one()
        rcp.notification = {**rcp.notification, **said}
        session.commit()


def test_where_the_rcp_sends_links_nobody_gets_a_document(scene):
    _set(scene, cr_par_lien=True)
    first = _validated(scene)
    letters = _rows(scene, Message)
    assert {(m.kind, m.recipient) for m in letters} == {
        ("M5", "nguyen@medecin.mssante.fr"),
        ("M5", "mercier@chu-x.mssante.fr"),
    }
    for message in letters:
        mail = _mail(scene, message)
        assert not mail.is_multipart()
        assert f"https://rcp.example/dossiers/{scene.dossier}/compte-rendu" in mail.get_content()
        assert "PAT-TROIS DOMINIQUE, née le 28/03/1979, a été validé par Docteur PERRIN le 19/03/2026 à 16h00" in (
            mail.get_content().replace("\n", " ")
        )
    assert report_sending.settle_due(scene.steps) == 0
    _deliver(scene)
    assert report_sending.settle_due(scene.steps) == 1
    before = {m.recipient: m.message_id for m in letters}

    _run(scene, report.revise, reason="Dose corrigée")
    second = _run(scene, report.validate, scene.press)
    for message in _rows(scene, Message, Message.report_id == second):
        mail = _mail(scene, message)
        assert message.kind == "M5"
        assert mail["In-Reply-To"] == f"<{before[message.recipient]}>"
        assert "Il remplace la version du 19/03/2026 ; merci de ne plus utiliser celle-ci." in mail.get_content()
    _deliver(scene)

    _run(scene, report.cancel, "Mauvais patient", scene.press)
    last = [m for m in _rows(scene, Message) if m.state == "en-attente"]
    assert {m.kind for m in last} == {"M5r"}
    assert {m.recipient for m in last} == set(before)
    for message in last:
        mail = _mail(scene, message)
        assert not mail.is_multipart()
        assert "validé le 19/03/2026, est retiré" in mail.get_content()
    assert first != second


def test_a_link_may_be_sent_again_to_another_address_of_the_same_person(scene):
    _set(scene, cr_par_lien=True)
    _validated(scene)
    _deliver(scene)
    [box] = _rows(scene, Mailbox, Mailbox.practitioner_id == scene.treating)
    with scene.store.session() as session:
        session.add(Mailbox(practitioner_id=scene.treating, address="ici@mssante.example", source="e", as_of=box.as_of))
        session.commit()
    [sent] = _rows(scene, Message, Message.recipient_id == scene.treating)

    def verb(step):
        [message] = step.lock(Message, sent.id)
        mails = scene.press.mails
        [other] = resending.other_addresses(step, message)
        return resending.resend(step, message, str(other.id), None, mails, scene.press.blobs).id

    [again] = _rows(scene, Message, Message.id == scene.steps.run(scene.coordinator, verb))
    mail = _mail(scene, again)
    assert (again.kind, again.recipient, mail.is_multipart()) == ("M5", "ici@mssante.example", False)
    assert f"/dossiers/{scene.dossier}/compte-rendu" in mail.get_content()
    assert again.message_id != sent.message_id
    _run(scene, report.revise, reason="Erreur")
    _run(scene, report.validate, scene.press)
    with pytest.raises(Conflict, match="renvoi-perime"):
        scene.steps.run(scene.coordinator, verb)


def test_a_link_that_did_not_leave_is_cancelled_by_the_version_that_replaces(scene):
    _set(scene, cr_par_lien=True)
    first = _validated(scene)
    _run(scene, report.revise, reason="Erreur")
    second = _run(scene, report.validate, scene.press)
    assert {m.state for m in _rows(scene, Message, Message.report_id == first)} == {"annule"}
    assert {m.kind for m in _rows(scene, Message, Message.report_id == second)} == {"M5"}


def test_who_holds_a_document_gets_what_replaces_it_or_takes_it_back(scene):
    """A link leaves the old document in force in his software: only action C or D sets it aside (mssante.md 6.1)."""
    _validated(scene)
    _deliver(scene)
    _set(scene, cr_par_lien=True)
    with scene.store.session() as session:
        other = session.scalars(select(Practitioner).where(Practitioner.family == "ROBERT")).one()
        session.add(Correspondent(dossier_id=scene.dossier, practitioner_id=other.id, role="correspondant"))
        session.commit()
    _run(scene, report.revise, reason="Erreur")
    second = _run(scene, report.validate, scene.press)
    got = {m.recipient: m.kind for m in _rows(scene, Message, Message.report_id == second)}
    assert got == {
        "nguyen@medecin.mssante.fr": "M6",
        "mercier@chu-x.mssante.fr": "M6",
        "robert@medecin.mssante.fr": "M5",
    }
    _deliver(scene)
    _run(scene, report.cancel, "Mauvais patient", scene.press)
    told = {m.recipient: m.kind for m in _rows(scene, Message, Message.state == "en-attente")}
    assert told == {name: f"{kind}r" for name, kind in got.items()}


@pytest.mark.parametrize(("by_link", "code"), [(False, "ECHEC"), (True, None)])
def test_an_address_that_left_mssante_since_gets_no_document(scene, by_link, code):
    """Who was mailed at an address that the directory dropped: no document, no name; a person is asked."""
    _set(scene, cr_par_lien=by_link)
    with scene.store.session() as session:
        box = session.scalars(select(Mailbox).where(Mailbox.practitioner_id == scene.treating)).one()
        box.address = "nguyen@operateur.example"
        session.commit()
    _validated(scene)
    _deliver(scene)
    with scene.store.session() as session:
        session.execute(text("DELETE FROM mailbox WHERE address = 'nguyen@operateur.example'"))
        session.execute(text("UPDATE correspondent SET declined_at = now() WHERE role = 'medecin-traitant'"))
        session.commit()
    _run(scene, report.revise, reason="Erreur")
    second = _run(scene, report.validate, scene.press)
    got = {m.recipient: m for m in _rows(scene, Message, Message.report_id == second)}
    if by_link:
        mail = _mail(scene, got["nguyen@operateur.example"])
        assert "Connectez-vous" in mail.get_content()
        assert "PAT-TROIS" not in mail.as_string()
    else:
        assert set(got) == {"mercier@chu-x.mssante.fr"}
    lines = _rows(scene, NotificationEntry)
    assert [(line.kind, line.code, line.practitioner_id) for line in lines] == (
        [("M6.2", code, scene.treating)] if code else []
    )
    assert [item.details["code"] for item in _rows(scene, WorkItem)] == (["mail-hors-mssante"] if code else [])


def test_who_got_an_earlier_version_gets_the_next_one(scene):
    _validated(scene)
    _deliver(scene)
    with scene.store.session() as session:
        session.execute(text("UPDATE correspondent SET declined_at = now() WHERE role = 'medecin-traitant'"))
        session.commit()
    _run(scene, report.revise, reason="Erreur")
    second = _run(scene, report.validate, scene.press)
    assert "nguyen@medecin.mssante.fr" in {m.recipient for m in _rows(scene, Message, Message.report_id == second)}


def test_a_withdrawal_keeps_the_report_and_tells_who_got_it(scene):
    key = _validated(scene)
    _deliver(scene)
    _run(scene, report.cancel, "Mauvais patient", scene.press)
    [row] = _rows(scene, Report, Report.id == key)
    assert row.state == "annule"
    assert row.content is not None
    told = _rows(scene, Message, Message.kind == "M6r")
    assert len(told) == 2
    cda = scene.press.blobs.read(next(f for f in row.forms if f.form == "cda").sha256)
    for message in told:
        mail = _mail(scene, message)
        assert "est retiré : merci de le supprimer" in mail.get_body().get_content().replace("\u00a0", " ")
        archive = zipfile.ZipFile(io.BytesIO(_attached(mail)["IHE_XDM.zip"]))
        assert archive.read("IHE_XDM/SUBSET01/DOC0001.XML") == cda
        metadata = etree.fromstring(archive.read("IHE_XDM/SUBSET01/METADATA.XML"))
        assert metadata.xpath("//*[@name='urn:action:extraMetadataSlot']//*[local-name()='Value']/text()") == ["D"]


def test_what_hides_a_report_from_its_patient_is_lifted_by_a_version_that_replaces(scene):
    """Masking is in the envelope of the sending: the flag goes from it, the document itself stays « Normal »."""
    first = _validated(scene)
    _deliver(scene)
    lifted = _run(scene, report.show_patient, "Consultation d’annonce faite", scene.press)
    rows = {row.version: row for row in _rows(scene, Report)}
    assert {version: row.state for version, row in rows.items()} == {1: "remplace", 2: "valide"}
    assert (rows[2].id, rows[2].replaces_id) == (lifted, first)
    before, after = (decode(rows[version].content) for version in (1, 2))
    assert (before.visibility, after.visibility) == (("INVISIBLE_PATIENT",), ())
    assert (after.proposals, after.replaces.reason) == (before.proposals, "Consultation d’annonce faite")
    mails = [m for m in _rows(scene, Message) if m.details["version"] == 2]
    assert {m.recipient_id for m in mails} == {scene.requester, scene.treating}
    for message in mails:
        archive = zipfile.ZipFile(io.BytesIO(_attached(_mail(scene, message))["IHE_XDM.zip"]))
        metadata = archive.read("IHE_XDM/SUBSET01/METADATA.XML")
        assert b"INVISIBLE_PATIENT" not in metadata
        actions = etree.fromstring(metadata).xpath(
            "//*[@name='urn:action:extraMetadataSlot']//text()[normalize-space()]"
        )
        assert actions == ["C"]
    # Once lifted it is not laid again by a correction; there is nothing left to lift.
    with pytest.raises(Conflict, match="cr-visible"):
        _run(scene, report.show_patient, "Encore", scene.press)
    _run(scene, report.revise, reason="Côté")
    _run(scene, report.validate, scene.press)
    assert decode({row.version: row for row in _rows(scene, Report)}[3].content).visibility == ()


BOX = "279035121518989@patient.mssante.fr"


def _to_patient(scene):
    return [(m.kind, m.details["version"], m.recipient) for m in _rows(scene, Message) if m.recipient_id is None]


def test_what_the_announcement_lifts_goes_to_the_patient_where_the_rcp_chose_so(scene):
    """Never before; then the same bytes as to the physicians; the next version and the withdrawal follow it."""
    _set(scene, patient=True)
    _validated(scene)
    assert _to_patient(scene) == []
    _deliver(scene)
    shown = _run(scene, report.show_patient, "Consultation d’annonce faite", scene.press)
    assert _to_patient(scene) == [("M6p", 2, BOX)]
    [copy] = _rows(scene, Message, Message.kind == "M6p")
    mail = _mail(scene, copy)
    assert (mail["X-MSS-MES"], mail["X-MSS-INS"], mail["In-Reply-To"]) == ("FIN", "O", None)
    assert "annule et remplace" not in mail.get_body().get_content()
    kept = {f.form: scene.press.blobs.read(f.sha256) for f in _rows(scene, ReportForm, ReportForm.report_id == shown)}
    assert list(_attached(mail).values()) == [kept["xdm"], kept["pdf"]]
    assert report_sending.settle_due(scene.steps) == 0
    _deliver(scene)
    assert report_sending.settle_due(scene.steps) == 1

    _set(scene, patient=False)  # who holds a copy is told all the same
    scene.clock.at += timedelta(days=1)
    _run(scene, report.revise, reason="Côté")
    _run(scene, report.validate, scene.press)
    [_, later] = _rows(scene, Message, Message.kind == "M6p")
    mail = _mail(scene, later)
    assert mail["In-Reply-To"] == f"<{copy.message_id}>"
    assert "Il annule et remplace celui du 19/03/2026" in mail.get_body().get_content()
    _deliver(scene)

    _run(scene, report.cancel, "Mauvais patient", scene.press)
    [told] = _rows(scene, Message, Message.kind == "M6pr")
    mail = _mail(scene, told)
    assert (told.recipient, mail["In-Reply-To"], mail.is_multipart()) == (BOX, f"<{copy.message_id}>", False)
    assert "n'est plus valable" in mail.get_content()
    assert _to_patient(scene) == [("M6p", 2, BOX), ("M6p", 3, BOX), ("M6pr", 3, BOX)]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE rcp SET notification = '{}'",
        "UPDATE rcp SET fictive = true",
        "UPDATE dossier SET opposed_at = now()",
        "UPDATE patient_record SET ins_qualified = false",
        "UPDATE patient_record SET birth_place = NULL",
        "UPDATE patient_record SET sex = 'U'",
        "UPDATE patient_record SET ins_system = 'urn:oid:1.2.250.1.213.1.4.8'",
    ],
)
def test_the_patient_gets_nothing_that_may_not_go_to_him(scene, change):
    _set(scene, patient=True)
    with scene.store.session() as session:
        session.execute(text(change))
        session.commit()
    visible = dataclasses.replace(scene.press, visibility=())
    _run(scene, report.draft, SAID)
    _run(scene, report.validate, visible)
    assert _to_patient(scene) == []
    assert _rows(scene, WorkItem) == []


@pytest.mark.parametrize("real", [True, False])
def test_real_people_are_written_to_in_production_alone(scene, real):
    """The same number under the authority of real people, and under that of trials."""
    _set(scene, patient=True)
    with scene.store.session() as session:
        session.execute(
            text("UPDATE patient_record SET ins_system = 'urn:oid:1.2.250.1.213.1.4.8'" if real else "SELECT")
        )
        session.commit()
    _run(scene, report.draft, SAID)
    _run(scene, report.validate, dataclasses.replace(scene.press, visibility=(), production=True))
    assert _to_patient(scene) == ([("M6p", 1, BOX)] if real else [])


OTHER = "255069912345685"


@pytest.mark.parametrize("now", [OTHER, None])
def test_a_copy_at_an_address_that_is_no_longer_the_patient_s_is_said_not_to_be_valid(scene, now):
    """The new version carries another identity: it goes to the new address, or nowhere; never to the old one."""
    _set(scene, patient=True)
    visible = dataclasses.replace(scene.press, visibility=())
    _run(scene, report.draft, SAID)
    _run(scene, report.validate, visible)
    _deliver(scene)
    with scene.store.session() as session:
        session.execute(
            text("UPDATE patient_record SET ins_value = :n, ins_qualified = :q"),
            {"n": now or "279035121518989", "q": now is not None},
        )
        session.commit()
    for _ in range(2):
        _run(scene, report.revise, reason="Identité corrigée")
        _run(scene, report.validate, visible)
        _deliver(scene)
    fresh = f"{OTHER}@patient.mssante.fr"
    later = [("M6p", 2, fresh), ("M6p", 3, fresh)] if now else []
    assert sorted(_to_patient(scene)) == sorted([("M6p", 1, BOX), ("M6pr", 2, BOX), *later])
    [notice] = _rows(scene, Message, Message.kind == "M6pr")
    assert OTHER not in _mail(scene, notice).as_string()
    _run(scene, report.cancel, "Mauvais patient", visible)
    assert [m.recipient for m in _rows(scene, Message, Message.kind == "M6pr")][1:] == ([fresh] if now else [])


def test_a_copy_too_large_for_mon_espace_sante_waits_for_a_person(scene):
    _set(scene, patient=True)
    press = dataclasses.replace(scene.press, visibility=(), mails=_Limited(scene.press.mails, BOX, 5_000))
    _run(scene, report.draft, SAID)
    _run(scene, report.validate, press)
    assert _to_patient(scene) == []
    assert len(_rows(scene, Message)) == 2
    [line] = _rows(scene, NotificationEntry)
    assert (line.subject, line.practitioner_id, line.kind, line.code) == ("patient", None, "M6p.1", "ECHEC")
    [item] = _rows(scene, WorkItem)
    assert (item.reason, item.details["code"]) == ("cr-non-envoye", "mail-too-large")
    assert "279035121518989" not in f"{item.key} {item.details}"


def test_a_correction_before_the_announcement_stays_hidden(scene):
    _validated(scene)
    _run(scene, report.revise, reason="Côté")
    with pytest.raises(Conflict, match="cr-brouillon"):
        _run(scene, report.show_patient, "Annonce", scene.press)
    _run(scene, report.validate, scene.press)
    assert decode({row.version: row for row in _rows(scene, Report)}[2].content).visibility == ("INVISIBLE_PATIENT",)


@pytest.mark.parametrize("verb", [report.cancel, report.show_patient])
def test_nothing_becomes_of_a_report_without_a_reason(scene, verb):
    _validated(scene)
    for reason, code in ((" ", "cr-motif-absent"), ("x" * 501, "cr-motif-trop-long")):
        with pytest.raises(InvalidContent, match=code):
            _run(scene, verb, reason, scene.press)
    for who in (scene.requesting, scene.physician, scene.stranger):
        with pytest.raises(NotFound):
            _run(scene, verb, "Erreur", scene.press, caller=who)
    [row] = _rows(scene, Report)
    assert (row.state, row.withdrawn_because) == ("valide", None)


def test_a_withdrawal_before_anything_left_sends_nothing(scene):
    _validated(scene)
    _run(scene, report.cancel, " Mauvais patient ", scene.press)
    assert {(m.kind, m.state) for m in _rows(scene, Message)} == {("M6", "annule")}
    [row] = _rows(scene, Report)
    assert (row.withdrawn_at, row.withdrawn_because) == (HELD, "Mauvais patient")


def test_a_draft_may_change_and_be_thrown_away(scene):
    _run(scene, report.draft, SAID)
    _run(scene, report.draft, ReportDraft(proposal="Autre"))
    [row] = _rows(scene, Report)
    assert row.draft == {"proposition": "Autre"}
    _run(scene, report.discard)
    assert _rows(scene, Report) == []
    assert _state(scene) == "discute"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (ReportDraft(), "cr-proposition-absente"),
        (ReportDraft(treatments=(DraftTreatment(code="C445"),)), "code-inconnu"),
    ],
)
def test_what_is_not_enough_is_refused_and_nothing_is_kept(scene, said, code):
    _run(scene, report.draft, said)
    with pytest.raises(InvalidContent, match=code):
        _run(scene, report.validate, scene.press)
    assert _rows(scene, Message) == []
    assert _rows(scene, Report)[0].state == "brouillon"


def test_an_incomplete_identity_is_refused(scene):
    with scene.store.session() as session:
        session.execute(text("UPDATE patient_record SET birth_date = NULL"))
        session.commit()
    _run(scene, report.draft, SAID)
    with pytest.raises(InvalidContent, match="cr-identite"):
        _run(scene, report.validate, scene.press)


def test_a_correction_says_why(scene):
    _validated(scene)
    _run(scene, report.revise)
    with pytest.raises(InvalidContent, match="cr-motif-absent"):
        _run(scene, report.validate, scene.press)


def test_a_session_not_held_has_no_report(scene):
    with scene.store.session() as session:
        session.get(RcpSession, scene.meeting).state = "prevue"
        session.commit()
    with pytest.raises(Conflict, match="seance-non-tenue"):
        _run(scene, report.draft, SAID)


def test_a_validated_report_is_not_drafted_again(scene):
    _validated(scene)
    with pytest.raises(Conflict, match="cr-valide"):
        _run(scene, report.draft, SAID)
    with pytest.raises(Conflict, match="cr-absent"):
        _run(scene, report.validate, scene.press)


def test_only_who_coordinates_writes(scene):
    """A stranger does not even learn that the dossier exists; who sees it without a part in the RCP neither writes."""
    verbs = {
        report.draft: (SAID,),
        report.validate: (scene.press,),
        report.revise: (),
        report.discard: (),
        report.cancel: ("x", scene.press),
    }
    for who in (scene.stranger, scene.client, scene.physician, scene.requesting):
        for verb, args in verbs.items():
            with pytest.raises((NotFound, Forbidden)):
                _run(scene, verb, *args, caller=who)
    assert len(_rows(scene, AuditLine, AuditLine.event == "refus")) == 4 * len(verbs)
    assert _rows(scene, Report) == []


@pytest.mark.req("S0-091")
def test_forms_are_released_to_who_may_see_the_dossier_with_a_line_in_the_trail(scene):
    _validated(scene)

    def ask(caller):
        return scene.steps.read(
            caller,
            lambda session: _of(report_reading.kept_form(session, caller, scene.dossier, 1, "pdf")),
        )

    def _of(found):
        form, lines = found
        return form.sha256, lines

    for caller in (scene.physician, scene.requesting, scene.coordinator, scene.client):
        assert scene.press.blobs.read(ask(caller)).startswith(b"%PDF")
    lines = _rows(scene, AuditLine, AuditLine.event == "consultation")
    assert len(lines) == 4
    assert {tuple(line.persons) for line in lines} == {(scene.record,)}
    with pytest.raises(NotFound):
        ask(scene.stranger)


def test_a_draft_is_released_to_nobody(scene):
    _run(scene, report.draft, SAID)
    with scene.store.session() as session, pytest.raises(NotFound):
        report_reading.kept_form(session, scene.coordinator, scene.dossier, 1, "pdf")


def test_the_trail_tells_of_the_validation_without_a_name(scene):
    _validated(scene)
    [line] = _rows(scene, AuditLine, AuditLine.event == "validation")
    assert line.persons == [scene.record]
    everything = b"".join(one.payload for one in _rows(scene, AuditLine))
    assert b"PAT-TROIS" not in everything
    assert b"279035121518989" not in everything


def test_a_mailbox_that_bounced_for_good_is_not_used(scene):
    with scene.store.session() as session:
        box = session.scalars(select(Mailbox).where(Mailbox.practitioner_id == scene.treating)).one()
        box.unusable_since = HELD
        session.commit()
    _validated(scene)
    assert [m.recipient for m in _rows(scene, Message)] == ["mercier@chu-x.mssante.fr"]
    assert [(e.practitioner_id, e.code) for e in _rows(scene, NotificationEntry)] == [(scene.treating, "NON_MSS")]


def test_fhir_points_at_the_bytes_that_were_mailed(scene, make_steps):
    """DocumentReference and Binary, as kept for readers, against hashes computed from the mail itself."""
    scene.steps = make_steps(clock=scene.clock, represent=Representer(scene.press.blobs))
    first = _validated(scene)
    mail = _mail(scene, _rows(scene, Message, Message.kind == "M6")[0])
    attached = _attached(mail)
    archive = zipfile.ZipFile(io.BytesIO(attached.pop("IHE_XDM.zip")))
    [page] = attached.values()
    mailed = {
        base64.b64encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode(): (kind, len(data))
        for kind, data in (
            ("application/pdf", page),
            ("text/xml", archive.read("IHE_XDM/SUBSET01/DOC0001.XML")),
        )
    }
    [document] = _resources(scene, "DocumentReference")
    found = {
        one["attachment"]["hash"]: (one["attachment"]["contentType"], one["attachment"]["size"])
        for one in document["content"]
    }
    assert found == mailed
    assert document["status"] == "current"
    urls = {one["attachment"]["url"].rpartition("/")[2] for one in document["content"]}
    assert {one["id"] for one in _resources(scene, "Binary")} >= urls
    _run(scene, report.revise, reason="Erreur")
    _run(scene, report.validate, scene.press)
    states = {one["id"]: one["status"] for one in _resources(scene, "DocumentReference")}
    assert states.pop(str(first)) == "superseded"
    assert list(states.values()) == ["current"]


def _resources(scene, kind):
    table = TABLES[kind]
    with scene.store.session() as session:
        rows = session.execute(select(table.c.id, table.c.body).where(table.c.current)).all()
    return [{"id": row.id, **json.loads(bytes(row.body))} for row in rows]
