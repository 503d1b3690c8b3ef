"""A PACS sends over the real wire; what is kept, attached, refused, and never shown."""

import hashlib
import json
import subprocess
from dataclasses import replace

import pytest
from pydicom import dcmread
from sqlalchemy import func, select

from gateway.demo.ct_phantom import DOMINIQUE, write_series
from gateway.model.imaging import Instance, QuarantinedObject, Series, Study, StudyDossier
from gateway.model.partner import PartnerCredential
from gateway.model.person import WorkItem
from gateway.model.representation import TABLES
from gateway.rcp import imaging, inscription
from gateway.rcp.access import Caller, CallerKind
from gateway.rcp.facts import CodedFact, InscriptionFacts, SessionFact, TumourFacts
from tests.e2e.dicom.conftest import AE_TITLE, need, storescu
from tests.unit.dicom.raw_peer import Peer, fields, status, whole_store
from tests.world import audit_lines


def count(session, *conditions):
    session.rollback()
    return session.scalar(select(func.count()).select_from(Instance).where(*conditions))


def study_of(session) -> Study:
    session.rollback()
    return session.scalars(select(Study)).one()


def altered(path, **changes):
    ds = dcmread(path)
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    target = path.with_name("changed-" + path.name)
    ds.save_as(target, enforce_file_format=True)
    return target


@pytest.fixture
def dossier(world):
    made = world.dossier(world.record(value="000003"))
    world.session.commit()
    return made


def test_echo(port):
    result = subprocess.run(
        [need("echoscu"), "-aet", AE_TITLE, "-aec", "RCPGATEWAY", "127.0.0.1", str(port.port)], check=False, timeout=30
    )
    assert result.returncode == 0


def test_a_series_is_kept_attached_and_represented(port, session, world, dossier, ct, blobs):
    result = storescu(port.port, *ct)
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("Received Store Response (Success)") == 5

    study = study_of(session)
    assert (study.state, study.record_id, study.patient_id) == ("rattache", dossier.record_id, "000003")
    assert (study.accession_number, study.modalities) == ("ACC-2026-0417", ["CT"])
    link = session.scalars(select(StudyDossier)).one()
    assert (link.dossier_id, link.basis) == (dossier.id, "ipp")

    for instance in session.scalars(select(Instance)).all():
        kept = blobs.read(instance.sha256, verify=True)
        assert len(kept) == instance.size_bytes
        sent = next(path for path in ct if dcmread(path).SOPInstanceUID == instance.sop_instance_uid)
        ours, theirs = dcmread(blobs.path(instance.sha256)), dcmread(sent)
        assert ours == theirs  # every attribute and every pixel
        assert ours.file_meta.TransferSyntaxUID == theirs.file_meta.TransferSyntaxUID

    table = TABLES["ImagingStudy"]
    body = session.execute(select(table.c.body).where(table.c.current)).scalar_one()
    resource = json.loads(body)
    assert resource["identifier"][0]["value"] == f"urn:oid:{DOMINIQUE.study_uid}"
    assert resource["started"].startswith("2026-03-05T09:12:30")


def test_dcmsend_sends_and_is_answered(port, session, world, dossier, ct):
    command = [need("dcmsend"), "-aet", AE_TITLE, "-aec", "RCPGATEWAY", "127.0.0.1", str(port.port), *map(str, ct)]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0
    assert count(session) == 5


def test_the_representation_follows_when_the_study_has_settled(port, session, dossier, ct, represented, monkeypatch):
    assert storescu(port.port, *ct).returncode == 0
    monkeypatch.setattr(imaging, "EVERY_S", 0.0)
    assert imaging.settle(represented) == 1
    assert imaging.settle(represented) == 0
    study = study_of(session)
    assert (study.instances_count, study.settled_at is not None) == (5, True)
    table = TABLES["ImagingStudy"]
    body = json.loads(session.execute(select(table.c.body).where(table.c.current)).scalar_one())
    assert (body["numberOfInstances"], body["numberOfSeries"]) == (5, 1)

    late = altered(ct[0], SOPInstanceUID=f"{DOMINIQUE.study_uid}.1.77")
    assert storescu(port.port, late).returncode == 0
    assert study_of(session).instances_count == 6


def test_the_same_object_twice_is_kept_once(port, session, dossier, ct):
    assert storescu(port.port, *ct).returncode == 0
    again = storescu(port.port, *ct)
    assert again.returncode == 0
    assert count(session) == 5
    assert session.scalar(select(func.count()).select_from(QuarantinedObject)) == 0


def test_other_bytes_under_a_known_uid_are_refused_and_kept_aside(port, session, world, dossier, ct, blobs):
    assert storescu(port.port, ct[0]).returncode == 0
    forged = altered(ct[0], StudyDescription="AUTRE")
    result = storescu(port.port, forged)
    assert result.returncode != 0
    assert "0x111" in result.stdout
    assert count(session) == 1
    aside = session.scalars(select(QuarantinedObject)).one()
    assert aside.reason == "autres-octets"
    assert hashlib.sha256(blobs.read(aside.sha256)).hexdigest() == aside.sha256
    item = session.scalars(select(WorkItem)).one()
    assert (item.kind, item.reason, item.network_id) == ("imagerie", "autres-octets", world.network.id)
    assert storescu(port.port, forged).returncode != 0  # told the same, kept once
    assert session.scalar(select(func.count()).select_from(QuarantinedObject)) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"PatientBirthDate": "19790329"}, "date-de-naissance-differente"),
        ({"PatientSex": "M"}, "sexe-different"),
        ({"PatientName": "MARTIN^DOMINIQUE"}, "nom-different"),
        ({"PatientName": "PAT-TROIS^SYLVIE"}, "prenom-different"),
    ],
)
def test_a_contradiction_puts_the_study_in_quarantine_and_it_is_never_shown(
    port, session, world, dossier, ct, web, change, reason
):
    assert storescu(port.port, altered(ct[0], **change)).returncode == 0  # kept: its sender need not send again
    study = study_of(session)
    assert (study.state, study.reason, study.record_id) == ("quarantaine", reason, None)
    assert session.scalars(select(StudyDossier)).all() == []
    item = session.scalars(select(WorkItem)).one()
    assert (item.reason, item.study_id, item.dossier_id) == (reason, study.id, dossier.id)
    assert session.execute(select(TABLES["ImagingStudy"].c.id)).all() == []
    web.callers["physician"] = world.caller(world.treating)
    web.callers["organiser"] = world.caller(world.coordinator)
    for token in ("physician", "organiser"):
        assert web.json("/studies", token) == []
        status, _, _ = web.get(f"/studies/{DOMINIQUE.study_uid}/metadata", token)
        assert status == 404


def test_writings_of_one_name_do_not_contradict(port, session, dossier, ct):
    assert storescu(port.port, altered(ct[0], PatientName="PAT TROIS^Dominique Marie^^Mme")).returncode == 0
    assert study_of(session).state == "rattache"


def test_an_object_of_another_patient_in_a_known_study_is_refused(port, session, dossier, ct):
    assert storescu(port.port, ct[0]).returncode == 0
    result = storescu(port.port, altered(ct[1], PatientID="000099"))
    assert "DataSetDoesNotMatchSOPClass" in result.stdout
    assert count(session) == 1
    assert session.scalars(select(QuarantinedObject.reason)).all() == ["identite-autre-que-l-etude"]


def test_a_study_waits_for_its_patient_and_his_dossier(port, session, world, ct, represented):
    assert storescu(port.port, *ct).returncode == 0
    assert (study_of(session).state, study_of(session).reason) == ("attendu", "patient-inconnu")
    record = world.record(value="000003")
    session.commit()
    facts = InscriptionFacts(
        session=SessionFact(rcp_number=world.rcp.national_number, start=world.meeting.starts_at),
        tumour=TumourFacts(label="Sein", topography=CodedFact(code="C50.4")),
    )
    made = represented.run(
        world.client(),
        lambda step: inscription.inscribe(step, step.session.get(type(record), record.id), facts, partner=None).id,
    )
    assert study_of(session).state == "rattache"
    assert session.scalars(select(StudyDossier.dossier_id)).all() == [made]
    assert session.execute(select(TABLES["ImagingStudy"].c.id)).all() != []


def test_the_sweep_recognises_a_study_whose_patient_came_alone(port, session, world, ct, represented):
    assert storescu(port.port, ct[0]).returncode == 0
    world.record(value="000003")
    session.commit()
    imaging.settle(represented)
    assert study_of(session).state == "rattache"


def test_a_qualified_ins_recognises_whatever_the_ipp(port, session, world, ct):
    ins = {"ins_system": "urn:oid:1.2.250.1.213.1.4.10", "ins_value": "279035121518989"}
    dossier = world.dossier(world.record(value="elsewhere", ins_qualified=True, **ins))
    session.commit()
    ds = dcmread(ct[0])
    ds.PatientID = "279035121518989"
    ds.IssuerOfPatientID = "ASIP-SANTE-INS-NIR"
    ds.IssuerOfPatientIDQualifiersSequence[0].UniversalEntityID = "1.2.250.1.213.1.4.10"
    ds.IssuerOfPatientIDQualifiersSequence[0].UniversalEntityIDType = "ISO"
    ds.save_as(ct[0], enforce_file_format=True)
    assert storescu(port.port, ct[0]).returncode == 0
    assert study_of(session).state == "rattache"
    link = session.scalars(select(StudyDossier)).one()
    assert (link.dossier_id, link.basis) == (dossier.id, "ins")


def test_an_unqualified_ins_recognises_nobody(port, session, world, ct):
    ins = {"ins_system": "urn:oid:1.2.250.1.213.1.4.10", "ins_value": "279035121518989"}
    world.dossier(world.record(value="elsewhere", ins_qualified=False, **ins))
    session.commit()
    ds = dcmread(ct[0])
    ds.PatientID = "279035121518989"
    ds.IssuerOfPatientIDQualifiersSequence[0].UniversalEntityID = "1.2.250.1.213.1.4.10"
    ds.IssuerOfPatientIDQualifiersSequence[0].UniversalEntityIDType = "ISO"
    ds.save_as(ct[0], enforce_file_format=True)
    assert storescu(port.port, ct[0]).returncode == 0
    assert study_of(session).state == "attendu"


def test_a_domain_that_is_not_the_partner_s_attaches_nothing(port, session, world, dossier, ct):
    ds = dcmread(ct[0])
    ds.IssuerOfPatientIDQualifiersSequence[0].UniversalEntityID = "https://chu-y.example/ns/ipp"
    ds.save_as(ct[0], enforce_file_format=True)
    assert storescu(port.port, ct[0]).returncode == 0
    study = study_of(session)
    assert (study.state, study.reason) == ("attendu", "domaine-hors-partenaire")
    assert session.scalars(select(WorkItem.reason)).all() == ["domaine-hors-partenaire"]


def test_without_an_issuer_the_partner_s_only_domain_is_meant(port, session, world, dossier, ct):
    ds = dcmread(ct[0])
    del ds.IssuerOfPatientID, ds.IssuerOfPatientIDQualifiersSequence
    ds.save_as(ct[0], enforce_file_format=True)
    assert storescu(port.port, ct[0]).returncode == 0
    assert study_of(session).state == "rattache"


def test_traits_alone_only_propose(port, session, world, ct):
    record = world.record(value="other", match_key="PATTROIS|DOMINIQUE|1979-03-28|F")
    world.dossier(record)
    session.commit()
    assert storescu(port.port, ct[0]).returncode == 0
    study = study_of(session)
    assert (study.state, study.record_id) == ("propose", None)
    assert session.scalars(select(StudyDossier)).all() == []
    item = session.scalars(select(WorkItem)).one()
    assert (item.reason, item.details["enregistrements"]) == ("traits-seuls", [str(record.id)])


@pytest.mark.parametrize("junk", [b"", b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 192" * 3, bytes(range(256)) * 50])
def test_what_is_no_object_is_refused_and_kept_aside(port, session, world, junk, blobs):
    peer = Peer(port.port, calling=AE_TITLE.encode())
    peer.send(whole_store(b"1.2.3.4", junk))
    _, body = peer.read()
    assert status(body) in (0xC000, 0xA900)
    assert fields(body)[0x0902]
    aside = session.scalars(select(QuarantinedObject)).one()
    assert blobs.read(aside.sha256).endswith(junk)
    assert count(session) == 0
    peer.release()


def test_an_object_other_than_announced_is_refused(port, session, world, ct):
    content = ct[0].read_bytes()
    data = content[144 + int.from_bytes(content[140:144], "little") :]
    peer = Peer(port.port, calling=AE_TITLE.encode())
    peer.send(whole_store(b"1.2.3.4", data))
    assert status(peer.read()[1]) == 0xA900
    assert session.scalars(select(QuarantinedObject.reason)).all() == ["dicom-mismatch"]
    peer.release()


def test_unknown_applications_are_rejected_in_prod_and_told_to_the_trail(port, session, world, ct):
    result = storescu(port.port, ct[0], calling="NOBODY")
    assert "Calling AE Title Not Recognized" in result.stdout
    assert "Called AE Title Not Recognized" in storescu(port.port, ct[0], called="OTHER").stdout
    session.rollback()
    lines = audit_lines(session)
    assert [(line["event"], line["actor_id"], line["reason"]) for line in lines] == [
        ("refus", "NOBODY", "titre-ae-inconnu")
    ]


def test_a_known_title_from_another_address_is_rejected(port, session, world, ct):
    credential = session.scalars(select(PartnerCredential)).one()
    credential.details = {"host": "192.0.2.7", "port": 104}
    session.commit()
    result = storescu(port.port, ct[0])
    assert "Calling AE Title Not Recognized" in result.stdout


def test_in_dev_an_unknown_application_is_partner_dev(make_port, session, world, ct, dossier):
    port = make_port(profile="dev")
    assert storescu(port.port, ct[0], calling="ANYBODY", called="ANY-SCP").returncode == 0
    study = study_of(session)
    assert study.partner_id != world.partner.id
    # Its domain is open: it is recognised, as in a trial.
    assert study.state == "rattache"


def test_several_senders_of_one_study_lose_nothing(port, session, world, dossier, tmp_path):
    files = write_series(replace(DOMINIQUE, slices=24), tmp_path / "many")
    command = [need("storescu"), "-aet", AE_TITLE, "-aec", "RCPGATEWAY", "127.0.0.1", str(port.port)]
    senders = [subprocess.Popen([*command, *map(str, files[part::4])]) for part in range(4)]
    assert [sender.wait(60) for sender in senders] == [0, 0, 0, 0]
    assert count(session) == 24
    assert len(session.scalars(select(Study)).all()) == 1
    assert len(session.scalars(select(Series)).all()) == 1
    assert len(session.scalars(select(StudyDossier)).all()) == 1


def test_nothing_of_the_patient_is_logged(port, session, world, ct, caplog):
    caplog.set_level("DEBUG")
    storescu(port.port, *ct, altered(ct[0], PatientBirthDate="19000101", StudyDescription="X"))
    for canary in ("PAT-TROIS", "DOMINIQUE", "000003", "19790328", "1979-03-28"):
        assert canary not in caplog.text


def test_each_arrival_of_a_study_is_in_the_trail(port, session, world, dossier, ct):
    assert storescu(port.port, *ct).returncode == 0
    session.rollback()
    lines = audit_lines(session)
    said = [(line["event"], line["action"], line["object_id"], line["actor_id"]) for line in lines]
    assert ("imagerie", "C", DOMINIQUE.study_uid, AE_TITLE) in said
    assert ("imagerie", "U", DOMINIQUE.study_uid, AE_TITLE) in said
    assert all(line["persons"] == [str(dossier.record_id)] for line in lines)


def test_compressed_objects_are_kept_as_they_come(port, session, world, dossier, ct, tmp_path, blobs):
    for tool, option, syntax in [
        ("dcmcrle", "-xr", "1.2.840.10008.1.2.5"),
        ("dcmcjpeg", "-xs", "1.2.840.10008.1.2.4.70"),
    ]:
        path = tmp_path / f"{tool}.dcm"
        subprocess.run([need(tool), str(altered(ct[0], SOPInstanceUID=f"1.2.3.{len(tool)}")), str(path)], check=True)
        result = storescu(port.port, path, option=option)
        assert result.returncode == 0, result.stdout
        instance = session.scalars(select(Instance).where(Instance.transfer_syntax_uid == syntax)).one()
        assert dcmread(blobs.path(instance.sha256)) == dcmread(path)


def test_orthanc_sends_and_is_answered(orthanc, port, session, world, dossier, ct):
    for path in ct:
        stored = orthanc.post("/instances", path.read_bytes())
    orthanc.put("/modalities/gateway", {"AET": "RCPGATEWAY", "Host": "127.0.0.1", "Port": port.port})
    orthanc.post("/modalities/gateway/echo", {})
    sent = orthanc.post("/modalities/gateway/store", {"Resources": [stored["ParentStudy"]], "Synchronous": True})
    assert (sent["InstancesCount"], sent["FailedInstancesCount"]) == (5, 0)
    assert count(session) == 5
    assert study_of(session).state == "rattache"


def test_a_client_of_the_partner_sees_what_a_stranger_does_not(port, session, world, dossier, ct, web):
    assert storescu(port.port, *ct).returncode == 0
    web.callers["physician"] = world.caller(world.treating)
    web.callers["stranger"] = world.caller(world.stranger)
    web.callers["other"] = Caller(
        kind=CallerKind.CLIENT, partner_id=dossier.id, identifier="x", scopes=frozenset({"system/*.rs"})
    )
    assert len(web.json("/studies", "physician")) == 1
    assert web.json("/studies", "stranger") == []
    assert web.json("/studies", "other") == []
