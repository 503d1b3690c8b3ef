"""Documents that others mail: attached to their patient when that is sure, else kept for a person with the reason."""

from __future__ import annotations

import base64
import hashlib
import itertools
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from types import SimpleNamespace

import pytest
from msgspec.structs import replace
from sqlalchemy import select

from gateway.exchange.inbox import Inbox
from gateway.fhir import binaries, document
from gateway.fhir.keeping import current
from gateway.fhir.represent import Representer
from gateway.fhir.validate import accept
from gateway.model.message import Message
from gateway.model.person import PatientRecord, WorkItem
from gateway.model.received import ReceivedDocument
from gateway.mssante.intake import MailIntake
from gateway.mssante.mailbox import Fetched
from gateway.rcp import identity
from gateway.rcp.report_content import Identifier, Replaced
from tests import xdm_samples as samples
from tests.report_samples import content
from tests.world import build

pytestmark = pytest.mark.usefixtures("nothing_names_anybody")

GATEWAY = "rcp@3c.mssante.fr"
SENDER = "dpi@clinique-exemple.mssante.fr"
INS = "279035121518989"
TEST = "urn:oid:1.2.250.1.213.1.4.10"
IPP = {"system": "urn:oid:1.2.250.1.999.77.9", "value": "000123456"}
TRAITS = identity.traits_key("PAT-TROIS", "DOMINIQUE", "1979-03-28", "F")


@pytest.fixture
def scene(store, make_steps, blobs):
    made = SimpleNamespace(store=store, blobs=blobs, numbers=itertools.count(1))
    with store.session() as session:
        made.world = build(session)
        session.commit()
    clock = SimpleNamespace(now=lambda: datetime(2026, 12, 1, tzinfo=UTC))
    made.intake = MailIntake(make_steps(clock=clock), address=GATEWAY, blobs=blobs)
    made.intake.attach(Inbox(store, blobs, [made.intake]))
    return made


def patient(scene, **more):
    known = {"match_key": TRAITS, "ins_system": TEST, "ins_value": INS, "ins_qualified": True}
    with scene.store.session() as session:
        scene.world.session = session
        record = scene.world.record(**known | more)
        dossier = scene.world.dossier(record)
        session.commit()
        return SimpleNamespace(record=record.id, dossier=dossier.id)


def mail(*archives, sender=SENDER, name="IHE_XDM.zip", forwarded=0):
    made = EmailMessage(policy=SMTP)
    made["From"], made["To"], made["Return-Path"] = sender, GATEWAY, f"<{sender}>"
    made["Message-ID"] = f"<{id(made)}-{next(SERIAL)}@clinique-exemple.mssante.fr>"
    made["Subject"] = "XDM/1.0/DDM+Document"
    made.set_content("Un document.")
    for archive in archives:
        made.add_attachment(archive, maintype="application", subtype="octet-stream", filename=name)
    for _ in range(forwarded):
        outer = EmailMessage(policy=SMTP)
        for head in ("From", "To", "Return-Path"):
            outer[head] = made[head]
        outer["Message-ID"] = f"<tr-{next(SERIAL)}@clinique-exemple.mssante.fr>"
        outer.set_content("Transféré.")
        outer.add_attachment(made)
        made = outer
    return made.as_bytes()


SERIAL = itertools.count(1)


def come(scene, content):
    number = next(scene.numbers)
    scene.intake.keep(Fetched(7, number, content, len(content)))
    [kept] = rows(scene, Message, Message.key == f"7.{number}")
    return kept


def rows(scene, model, *where):
    with scene.store.session() as session:
        return session.scalars(select(model).where(*where).order_by(model.id)).unique().all()


def state(scene):
    return [(one.state, one.reason) for one in rows(scene, ReceivedDocument)]


ARCHIVE = samples.zipped(samples.valid())


def test_a_document_is_attached_by_its_ins_and_its_bytes_are_kept(scene):
    known = patient(scene)
    kept = come(scene, mail(ARCHIVE))
    assert (kept.state, kept.reason, kept.dossier_id) == ("traite", None, known.dossier)
    [row] = rows(scene, ReceivedDocument)
    assert (row.record_id, row.dossier_id, row.state) == (known.record, known.dossier, "attache")
    assert (row.type_code, row.format, row.author, row.sender) == ("34794-8", "structure", "Claire MERCIER", SENDER)
    assert scene.blobs.read(row.sha256) == samples.valid()[samples.DOCUMENT]
    assert not rows(scene, WorkItem)
    come(scene, mail(ARCHIVE))  # the same document in another mail
    assert state(scene) == [("attache", None)]


def test_the_number_of_its_establishment_is_enough_when_the_traits_agree(scene):
    known = patient(scene, ins_value=None, ins_system=None, ins_qualified=False, **IPP)
    assert come(scene, mail(ARCHIVE)).state == "traite"
    assert rows(scene, ReceivedDocument)[0].record_id == known.record


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        (None, "document-patient-inconnu"),
        ({"match_key": TRAITS.replace("1979", "1980")}, "traits-differents"),
        ({"match_key": None}, "traits-differents"),
        ({"ins_qualified": False}, "document-patient-inconnu"),  # an INS that is no proof, and no number beside
        ({"ins_value": "180036621518973", **IPP}, "ins-differente"),
    ],
)
def test_what_is_not_sure_waits_and_is_seen_nowhere(scene, known, reason):
    if known is not None:
        patient(scene, **known)
    kept = come(scene, mail(ARCHIVE))
    assert (kept.state, kept.reason, kept.dossier_id) == ("quarantaine", reason, None)
    [row] = rows(scene, ReceivedDocument)
    assert (row.state, row.reason, row.record_id, row.dossier_id) == ("quarantaine", reason, None, None)
    assert scene.blobs.read(row.sha256) == samples.valid()[samples.DOCUMENT]
    assert [one.reason for one in rows(scene, WorkItem)] == [reason]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"279035121518989", b"279035121518990", "ins-cle"),  # X11
        (b'birthTime value="19790328"', b'birthTime nullFlavor="UNK"', "traits-absents"),  # X12
    ],
)
def test_a_faulty_identity_is_told(scene, old, new, reason):
    patient(scene)
    files = samples.with_document(samples.valid(), lambda data: data.replace(old, new))
    files[samples.METADATA] = files[samples.METADATA].replace(old, new)
    assert come(scene, mail(samples.zipped(files))).reason == reason


def test_what_waited_is_attached_when_its_patient_is_known(scene):
    assert come(scene, mail(ARCHIVE)).reason == "document-patient-inconnu"
    patient(scene)
    assert come(scene, mail(ARCHIVE)).state == "traite"
    assert state(scene) == [("attache", None)]


def version(number, root):
    facts = content()
    replaced = Replaced(document_id=facts.document_id, version=1, validated_at=facts.written_at)
    return samples.archive_of(
        replace(facts, version=number, document_id=Identifier(root), replaces=replaced if number > 1 else None)
    )


def test_x35_a_later_version_replaces_and_an_older_one_does_not_come_back(scene):
    patient(scene)
    come(scene, mail(ARCHIVE))
    assert come(scene, mail(version(3, "1.2.3.3"))).state == "traite"
    assert come(scene, mail(version(2, "1.2.3.2"))).reason == "version-perimee"
    assert state(scene) == [("remplace", None), ("attache", None), ("quarantaine", "version-perimee")]


def test_somebody_else_neither_replaces_nor_withdraws(scene):
    patient(scene)
    come(scene, mail(ARCHIVE))
    other = "x@autre.mssante.fr"
    assert come(scene, mail(version(2, "1.2.3.2"), sender=other)).reason == "auteur-non-autorise"
    assert come(scene, mail(withdrawal(), sender=other)).reason == "auteur-non-autorise"
    assert state(scene) == [("attache", None), ("quarantaine", "auteur-non-autorise")]


def withdrawal():
    values = "<rim:ValueList><rim:Value>D</rim:Value></rim:ValueList>"
    slot = f'<rim:Slot name="urn:action:extraMetadataSlot">{values}</rim:Slot>'
    said = '<rim:Slot name="URI">'
    return samples.zipped(samples.with_metadata(samples.valid(), said, slot + said))


def test_a_withdrawal_holds_whenever_it_comes(scene):
    patient(scene)
    come(scene, mail(ARCHIVE))
    assert come(scene, mail(withdrawal())).state == "traite"
    assert state(scene) == [("retire", None)]


def test_r02_a_late_original_of_what_was_withdrawn_is_refused(scene):
    patient(scene)
    assert come(scene, mail(withdrawal())).state == "traite"
    assert come(scene, mail(ARCHIVE)).reason == "document-retire"
    assert state(scene) == [("retire", None), ("quarantaine", "document-retire")]


def test_one_identifier_over_two_contents_is_a_question(scene):
    patient(scene)
    come(scene, mail(ARCHIVE))
    other = samples.with_document(
        samples.valid(), lambda data: data.replace(b"</ClinicalDocument>", b" </ClinicalDocument>")
    )
    assert come(scene, mail(samples.zipped(other))).reason == "meme-identifiant-autres-octets"
    assert [one for one, _ in state(scene)] == ["attache", "quarantaine"]


@pytest.mark.parametrize("name", ["IHE_XDM.ZIP", "ihe-xdm.zip", "IHE_XDM (1).zip"])
def test_x17_names_of_mail_programs_are_known(scene, name):
    patient(scene)
    assert come(scene, mail(ARCHIVE, name=name)).state == "traite"


def test_x17_two_archives_are_both_taken(scene):
    patient(scene)
    come(scene, mail(ARCHIVE, version(2, "1.2.3.2")))
    assert state(scene) == [("remplace", None), ("attache", None)]


def test_s07_a_forwarded_archive_is_found(scene):
    patient(scene)
    assert come(scene, mail(ARCHIVE, forwarded=2)).state == "traite"


@pytest.mark.parametrize(
    ("archive", "reason"),
    [
        (ARCHIVE[:-30], "zip-tronque"),
        (b"%PDF-1.4", "zip-illisible"),
        (samples.zipped({"../x": b"x"}), "zip-chemin"),
        (samples.zipped({"A": bytes(60_000_000)}), "zip-bombe"),
    ],
)
def test_an_archive_that_is_refused_waits_with_its_reason(scene, archive, reason):
    patient(scene)
    kept = come(scene, mail(ARCHIVE, archive))
    assert (kept.state, kept.reason) == ("quarantaine", reason)
    assert not rows(scene, ReceivedDocument)
    assert [one.reason for one in rows(scene, WorkItem)] == [reason]


def test_x33_a_reply_with_the_document_of_another_patient_is_for_a_person(scene):
    patient(scene)
    with scene.store.session() as session:
        scene.world.session = session
        other = scene.world.dossier()
        session.add(
            Message(
                direction="out",
                channel="mssante",
                kind="M1",
                key="k",
                message_id="notre@3c.mssante.fr",
                content=b"",
                sha256="0",
                size_bytes=0,
                state="envoye",
                dossier_id=other.id,
                domain_at=datetime(2026, 12, 1, tzinfo=UTC),
            )
        )
        session.commit()
    answering = b"In-Reply-To: <notre@3c.mssante.fr>\r\n" + mail(ARCHIVE)
    assert come(scene, answering).reason == "document-autre-patient"
    assert len(rows(scene, PatientRecord)) == 2
    assert rows(scene, ReceivedDocument)[0].record_id is None


def held(scene):
    return [(one.format, one.version, one.state) for one in rows(scene, ReceivedDocument)]


def copied(archive, number):
    return samples.zipped(samples.with_copy(samples.opened(archive), f"1.2.4.{number}", samples.PDF + b"%d" % number))


def test_a_pdf_beside_a_cda_is_a_document_of_its_own(scene):
    known = patient(scene)
    assert come(scene, mail(copied(ARCHIVE, 1))).state == "traite"
    cda, pdf = rows(scene, ReceivedDocument)
    assert held(scene) == [("structure", 1, "attache"), ("pdf", 1, "attache")]
    assert (pdf.unique_id, pdf.record_id, pdf.dossier_id) == ("1.2.4.1", known.record, known.dossier)
    assert (pdf.type_code, pdf.author, pdf.title) == ("34794-8", cda.author, cda.title)
    assert scene.blobs.read(pdf.sha256) == samples.PDF + b"1"
    come(scene, mail(copied(ARCHIVE, 1)))
    assert len(held(scene)) == 2


def test_a_readable_copy_follows_the_document_that_it_copies(scene):
    patient(scene)
    come(scene, mail(copied(ARCHIVE, 1)))
    come(scene, mail(copied(version(2, "1.2.3.2"), 2)))
    assert held(scene) == [
        ("structure", 1, "remplace"),
        ("pdf", 1, "remplace"),
        ("structure", 2, "attache"),
        ("pdf", 2, "attache"),
    ]
    come(scene, mail(version(3, "1.2.3.3")))  # which brings no copy: the old one is out of date too
    assert held(scene)[2:] == [("structure", 2, "remplace"), ("pdf", 2, "remplace"), ("structure", 3, "attache")]


def test_a_readable_copy_is_withdrawn_with_its_document(scene):
    patient(scene)
    come(scene, mail(copied(ARCHIVE, 1)))
    assert come(scene, mail(withdrawal())).state == "traite"
    assert held(scene) == [("structure", 1, "retire"), ("pdf", 1, "retire")]


def test_a_readable_copy_waits_with_its_document(scene):
    assert come(scene, mail(copied(ARCHIVE, 1))).reason == "document-patient-inconnu"
    assert [(one.format, one.state, one.record_id) for one in rows(scene, ReceivedDocument)] == [
        ("structure", "quarantaine", None),
        ("pdf", "quarantaine", None),
    ]


def test_what_is_called_a_pdf_and_is_none_is_left_out(scene):
    patient(scene)
    files = samples.with_copy(samples.valid(), "1.2.4.1", b"<html><script>")
    kept = come(scene, mail(samples.zipped(files)))
    assert (kept.state, kept.details["notes"]) == ("traite", ["document-non-cda"])
    assert [one for one, *_ in held(scene)] == ["structure"]


def resource(scene, kind):
    """The current resource behind the first document, judged by R4."""
    [row, *_] = rows(scene, ReceivedDocument)
    with scene.store.session() as session:
        found = current(session, kind, str(row.id))
        if found is None or found.deleted:
            return None
        mark = binaries.mark_in(found.body)
        body = found.body if mark is None else binaries.filled(found.body, scene.blobs.read(mark))
        assert (found.record_id, found.dossier_id) == (row.record_id, row.dossier_id)
    tree = document.decode(body)
    accept(document.strip_server_meta(tree))
    return tree


@pytest.fixture
def represented(scene, make_steps):
    clock = SimpleNamespace(now=lambda: datetime(2026, 12, 1, tzinfo=UTC))
    scene.intake = MailIntake(
        make_steps(clock=clock, represent=Representer(scene.blobs)), address=GATEWAY, blobs=scene.blobs
    )
    scene.intake.attach(Inbox(scene.store, scene.blobs, [scene.intake]))
    return scene


def test_a_document_is_read_over_fhir_with_its_very_bytes(represented):
    known = patient(represented)
    come(represented, mail(ARCHIVE))
    sent = samples.valid()[samples.DOCUMENT]
    said = resource(represented, "DocumentReference")
    attachment = said["content"][0]["attachment"]
    assert (said["status"], said["type"]["coding"][0]["code"]) == ("current", "34794-8")
    assert said["masterIdentifier"]["value"] == f"urn:oid:{content().document_id.root}"
    assert said["subject"]["reference"] == f"Patient/{known.record}"
    assert (attachment["size"], base64.b64decode(attachment["hash"])) == (
        len(sent),
        hashlib.sha1(sent, usedforsecurity=False).digest(),
    )
    assert base64.b64decode(resource(represented, "Binary")["data"]) == sent
    come(represented, mail(version(2, "1.2.3.2")))
    assert resource(represented, "DocumentReference")["status"] == "superseded"


def test_a_readable_copy_is_read_as_a_pdf(represented):
    patient(represented)
    come(represented, mail(copied(ARCHIVE, 1)))
    with represented.store.session() as session:
        [_, pdf] = rows(represented, ReceivedDocument)
        said = document.decode(current(session, "DocumentReference", str(pdf.id)).body)
        kept = document.decode(current(session, "Binary", str(pdf.id)).body)
    accept(document.strip_server_meta(said))
    assert said["content"][0]["attachment"]["contentType"] == "application/pdf"
    assert said["masterIdentifier"]["value"] == "urn:oid:1.2.4.1"
    assert (kept["contentType"], base64.b64decode(kept["data"])) == ("application/pdf", samples.PDF + b"1")


def test_a_withdrawn_document_is_entered_in_error_and_its_bytes_are_gone(represented):
    patient(represented)
    come(represented, mail(ARCHIVE))
    come(represented, mail(withdrawal()))
    assert resource(represented, "DocumentReference")["status"] == "entered-in-error"
    assert resource(represented, "Binary") is None


def test_what_waits_for_a_person_is_no_resource(represented):
    come(represented, mail(ARCHIVE))
    assert resource(represented, "DocumentReference") is None
    assert resource(represented, "Binary") is None
