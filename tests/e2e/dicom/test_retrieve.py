"""C-MOVE and C-GET: dcmtk, Orthanc and pynetdicom fetch what their hospital may see, and nothing else."""

import socket
import threading
import tracemalloc
import urllib.error

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelMove as PatientMove,
)
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelGet as StudyGet,
)
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelMove as StudyMove,
)
from sqlalchemy import select, update

from gateway.demo.ct_phantom import DOMINIQUE, write_series
from gateway.dicom.retrieve import Retrieval
from gateway.dicom.scp import Scp
from gateway.dicom.scu import Ours, Patience
from gateway.dicom.storage import Keeper, Partners
from gateway.dicom.wire import Limits
from gateway.model.imaging import Instance
from gateway.model.partner import PartnerCredential
from gateway.transport import Address
from tests.e2e.dicom.conftest import AE_TITLE, storescu
from tests.e2e.dicom.peers import FOREIGN, data_set, data_sets, dcmtk, other_hospital, receiver, register
from tests.loopback import wait_until
from tests.unit.dicom.raw_peer import (
    COMMAND,
    CT,
    EXPLICIT,
    LAST,
    P_DATA,
    Peer,
    command,
    context,
    element,
    item,
    p_data,
    pdv,
)
from tests.world import audit_lines

STUDY = f"StudyInstanceUID={DOMINIQUE.study_uid}"
SERIES_UID = f"{DOMINIQUE.study_uid}.1"


@pytest.fixture
def kept(port, ct, world):
    """The study, sent by its PACS; the port that has it."""
    world.session.commit()
    assert storescu(port.port, *ct).returncode == 0
    return port


@pytest.fixture
def reader(tmp_path, session, world):
    with receiver(tmp_path / "lecteur", "LECTEUR") as running:
        register(session, world.partner, "LECTEUR", running.port)
        yield running


@pytest.fixture
def make_scp(represented, blobs):
    """A port with the patience and limits of a test."""
    running = []

    def make(patience: Patience | None = None, limits: Limits | None = None) -> Scp:
        retrieval = Retrieval(represented, blobs, Ours("RCPGATEWAY"), patience=patience)
        port = Scp(
            bind=Address("127.0.0.1", 0),
            ae_title="RCPGATEWAY",
            peers=Partners(represented, trial=False),
            storage=Keeper(represented, blobs),
            services=retrieval.services(),
            limits=limits or Limits(drain_s=2),
        )
        port.start()
        running.append(port)
        return port

    yield make
    for port in running:
        port.stop()


def ask(port: int, model: str, calling: str = AE_TITLE, *, syntaxes=(ExplicitVRLittleEndian,), roles=()):
    ae = AE(calling)
    ae.add_requested_context(model, list(syntaxes))
    for sop_class, transfer in roles:
        ae.add_requested_context(sop_class, transfer)
    association = ae.associate(
        "127.0.0.1",
        port,
        ae_title="RCPGATEWAY",
        ext_neg=[build_role(sop_class, scp_role=True) for sop_class, _ in roles],
    )
    assert association.is_established
    return association


def identifier(level: str, **keys) -> Dataset:
    made = Dataset()
    made.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(made, keyword, value)
    return made


def numbers(status: Dataset) -> tuple:
    """Completed, failed, warning."""
    return (
        status.NumberOfCompletedSuboperations,
        status.NumberOfFailedSuboperations,
        status.NumberOfWarningSuboperations,
    )


# ---- dcmtk


@pytest.mark.parametrize(
    ("model", "keys", "count"),
    [
        ("-S", ["QueryRetrieveLevel=STUDY", STUDY], 5),
        ("-S", ["QueryRetrieveLevel=SERIES", STUDY, f"SeriesInstanceUID={SERIES_UID}"], 5),
        ("-P", ["QueryRetrieveLevel=PATIENT", "PatientID=000003"], 5),
        ("-P", ["QueryRetrieveLevel=STUDY", "PatientID=000003", STUDY], 5),
    ],
)
def test_movescu_moves_to_a_registered_receiver_bit_by_bit(kept, reader, ct, model, keys, count):
    result = dcmtk("movescu", kept.port, model, "-aem", "LECTEUR", keys=keys)
    assert result.returncode == 0, result.stdout
    assert len(reader.files) == count
    assert data_sets(reader.files) == data_sets(ct)


def test_movescu_moves_the_instances_of_a_list(kept, reader, ct):
    two = "\\".join(str(dcmread(path).SOPInstanceUID) for path in ct[1:3])
    keys = ["QueryRetrieveLevel=IMAGE", STUDY, f"SeriesInstanceUID={SERIES_UID}", f"SOPInstanceUID={two}"]
    assert dcmtk("movescu", kept.port, "-S", "-aem", "LECTEUR", keys=keys).returncode == 0
    assert data_sets(reader.files) == data_sets(ct[1:3])


@pytest.mark.parametrize("model", ["-S", "-P"])
def test_getscu_gets_on_its_own_association_bit_by_bit(kept, ct, tmp_path, model):
    target = tmp_path / "got"
    target.mkdir()
    keys = ["QueryRetrieveLevel=STUDY", STUDY, *(["PatientID=000003"] if model == "-P" else [])]
    result = dcmtk("getscu", kept.port, model, "+B", "-od", str(target), keys=keys)
    assert result.returncode == 0, result.stdout
    assert data_sets(target.iterdir()) == data_sets(ct)


def test_the_trail_says_what_left_and_to_whom_before_it_leaves(kept, reader, session, world):
    assert (
        dcmtk("movescu", kept.port, "-S", "-aem", "LECTEUR", keys=["QueryRetrieveLevel=STUDY", STUDY]).returncode == 0
    )
    [line] = [line for line in audit_lines(session) if line["event"] == "envoi"]
    assert (line["actor_id"], line["recipient"], line["object_id"]) == (AE_TITLE, "LECTEUR", DOMINIQUE.study_uid)
    assert line["detail"] == {"service": "C-MOVE", "objects": 5}


# ---- who may


def test_a_destination_that_is_not_registered_is_refused_and_told_to_the_trail(kept, session):
    result = dcmtk("movescu", kept.port, "-S", "-aem", "INCONNU", keys=["QueryRetrieveLevel=STUDY", STUDY])
    assert "MoveDestinationUnknown" in result.stdout.replace(" ", "")
    line = audit_lines(session)[-1]
    assert (line["event"], line["reason"], line["recipient"]) == ("refus", "move-destination-unknown", "INCONNU")


def test_a_destination_whose_registration_was_revoked_is_refused(kept, reader, session, world):
    statement = update(PartnerCredential).where(PartnerCredential.value == "LECTEUR")
    session.execute(statement.values(revoked_at=world.meeting.starts_at))
    session.commit()
    result = dcmtk("movescu", kept.port, "-S", "-aem", "LECTEUR", keys=["QueryRetrieveLevel=STUDY", STUDY])
    assert "MoveDestinationUnknown" in result.stdout.replace(" ", "")
    assert reader.files == []


def test_in_production_a_title_without_an_address_lays_images_down_and_reads_none(make_scp, ct, session, world):
    """Anybody may say a title; only from a registered address is it its partner's."""
    session.execute(update(PartnerCredential).where(PartnerCredential.value == AE_TITLE).values(details={}))
    session.commit()
    port = make_scp()
    assert storescu(port.port, *ct).returncode == 0
    for model, send in ((StudyMove, "send_c_move"), (StudyGet, "send_c_get")):
        association = ask(port.port, model)
        asked = identifier("STUDY", StudyInstanceUID=DOMINIQUE.study_uid)
        more = ("LECTEUR", model) if send == "send_c_move" else (model,)
        [(status, _)] = list(getattr(association, send)(asked, *more))
        association.release()
        assert (status.Status, status.ErrorComment.partition(":")[0]) == (0x0124, "aet-sans-adresse")
    lines = [line for line in audit_lines(session) if line["event"] == "refus"]
    assert [line["reason"] for line in lines] == ["aet-sans-adresse"] * 2


def test_another_hospitals_study_is_neither_moved_nor_got(kept, reader, session, world, tmp_path):
    other_hospital(session, world)
    theirs = write_series(FOREIGN, tmp_path / "theirs")
    assert storescu(kept.port, *theirs, calling="CHUY_PACS").returncode == 0
    keys = ["QueryRetrieveLevel=STUDY", f"StudyInstanceUID={FOREIGN.study_uid}"]
    result = dcmtk("movescu", kept.port, "-S", "-aem", "LECTEUR", keys=keys)
    assert result.returncode == 0  # no match is no error, and says nothing of whether it exists
    target = tmp_path / "got"
    target.mkdir()
    assert dcmtk("getscu", kept.port, "-S", "-od", str(target), keys=keys).returncode == 0
    assert (reader.files, list(target.iterdir())) == ([], [])
    assert [line["object_id"] for line in audit_lines(session)[-2:]] == [FOREIGN.study_uid] * 2
    assert {line["event"] for line in audit_lines(session)[-2:]} == {"refus"}
    # Its own hospital gets it.
    assert dcmtk("getscu", kept.port, "-S", "+B", "-od", str(target), keys=keys, calling="CHUY_PACS").returncode == 0
    assert data_sets(target.iterdir()) == data_sets(theirs)


def test_what_the_destinations_hospital_may_not_see_is_not_sent_to_it(kept, session, world, tmp_path):
    partner = other_hospital(session, world)
    with receiver(tmp_path / "chuy", "CHUY_VIEW") as theirs:
        register(session, partner, "CHUY_VIEW", theirs.port)
        association = ask(kept.port, StudyMove)
        *_, (status, failed) = association.send_c_move(
            identifier("STUDY", StudyInstanceUID=DOMINIQUE.study_uid), "CHUY_VIEW", StudyMove
        )
        association.release()
        assert (status.Status, numbers(status)) == (0xA702, (0, 5, 0))
        assert status.ErrorComment == "destination-not-authorised"
        assert len(failed.FailedSOPInstanceUIDList) == 5
        assert theirs.files == []


def test_the_same_ipp_in_two_domains_is_not_one_patient(kept, session, world, tmp_path, reader):
    """PATIENT level without issuer: two persons would leave as one."""
    world.partner.patient_domains = [DOMINIQUE.issuer, "urn:oid:1.2.250.1.999999.8"]
    session.commit()
    namesake = write_series(
        type(DOMINIQUE)(
            patient_id="000003",
            issuer="1.2.250.1.999999.8",
            patient_name="AUTRE^PERSONNE",
            birth_date=FOREIGN.birth_date,
            sex="M",
            study_uid=DOMINIQUE.study_uid + ".901",
        ),
        tmp_path / "namesake",
    )
    assert storescu(kept.port, *namesake).returncode == 0
    association = ask(kept.port, PatientMove)
    [(status, _)] = association.send_c_move(identifier("PATIENT", PatientID="000003"), "LECTEUR", PatientMove)
    assert status.Status == 0xA900
    assert status.ErrorComment.startswith("dicom-patient-ambiguous")
    asked = identifier("PATIENT", PatientID="000003", IssuerOfPatientID="1.2.250.1.999999.8")
    *_, (status, _) = association.send_c_move(asked, "LECTEUR", PatientMove)
    association.release()
    assert status.Status == 0x0000
    assert data_sets(reader.files) == data_sets(namesake)


# ---- transfer syntaxes


@pytest.fixture
def compressed(kept, ct, tmp_path):
    """One more slice of the series, kept as RLE."""
    ds = dcmread(ct[0])
    ds.compress(RLELossless, generate_instance_uid=False)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{DOMINIQUE.study_uid}.1.55"
    path = tmp_path / "rle.dcm"
    ds.save_as(path, enforce_file_format=True)
    assert storescu(kept.port, path, option="-xr").returncode == 0
    return path


def test_an_object_leaves_in_the_syntax_that_it_is_kept_in(kept, compressed, tmp_path):
    target = tmp_path / "got"
    target.mkdir()
    keys = ["QueryRetrieveLevel=IMAGE", STUDY, f"SOPInstanceUID={DOMINIQUE.study_uid}.1.55"]
    association = ask(kept.port, StudyGet, roles=[(CTImageStorage, RLELossless)])
    got = []
    association.bind(evt.EVT_C_STORE, lambda event: got.append(event.encoded_dataset(include_meta=False)) or 0)
    *_, (status, _) = association.send_c_get(
        identifier("IMAGE", SOPInstanceUID=f"{DOMINIQUE.study_uid}.1.55"), StudyGet
    )
    association.release()
    assert (status.Status, numbers(status)) == (0x0000, (1, 0, 0))
    assert got == [data_set(compressed)]
    assert dcmtk("getscu", kept.port, "-S", "+xr", "+B", "-od", str(target), keys=keys).returncode == 0
    assert data_sets(target.iterdir()) == {data_set(compressed)}


def got(port: int, study: str, *syntaxes: str):
    """Last response, and what came: SOP Instance UID → (transfer syntax, data set)."""
    association = ask(port, StudyGet, roles=[(CTImageStorage, list(syntaxes))])
    found = {}

    def store(event):
        found[str(event.request.AffectedSOPInstanceUID)] = (str(event.context.transfer_syntax), event.dataset)
        return 0

    association.bind(evt.EVT_C_STORE, store)
    responses = list(association.send_c_get(identifier("STUDY", StudyInstanceUID=study), StudyGet))
    association.release()
    return responses[-1], found


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
def test_a_receiver_that_does_not_take_the_syntax_gets_the_same_pixels_in_its_own(kept, compressed, ct, syntax):
    (status, _), found = got(kept.port, DOMINIQUE.study_uid, syntax)
    assert (status.Status, numbers(status)) == (0x0000, (6, 0, 0))
    assert {transfer for transfer, _ in found.values()} == {syntax}
    sent = {ds.SOPInstanceUID: ds for ds in map(dcmread, [*ct, compressed])}
    assert found.keys() == sent.keys()
    for uid, (_, ds) in found.items():
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = syntax
        assert (ds.pixel_array == sent[uid].pixel_array).all()
        assert (ds.PatientName, ds.StudyInstanceUID) == (sent[uid].PatientName, sent[uid].StudyInstanceUID)


def test_a_receiver_that_takes_no_syntax_of_an_object_is_told_which(kept, compressed):
    (status, failed), found = got(kept.port, DOMINIQUE.study_uid, JPEGBaseline8Bit)
    assert (status.Status, numbers(status)) == (0xA702, (0, 6, 0))
    assert status.ErrorComment == f"transfer-syntax-refused: {ExplicitVRLittleEndian}"
    assert len(failed.FailedSOPInstanceUIDList) == 6
    assert found == {}


@pytest.mark.parametrize("places", [[0], [2], [4], [0, 1], [1, 3, 4], [0, 1, 2, 3, 4]])
def test_objects_whose_bytes_are_gone_fail_alone_wherever_they_stand(kept, ct, session, blobs, places):
    """The next object is opened while one is answered: what it lacks is said in its own turn."""
    uids = [str(dcmread(path).SOPInstanceUID) for path in ct]
    lost = {uids[place] for place in places}
    session.rollback()
    for key in session.scalars(select(Instance.sha256).where(Instance.sop_instance_uid.in_(lost))):
        blobs.delete(key)
    (status, failed), found = got(kept.port, DOMINIQUE.study_uid, ExplicitVRLittleEndian)
    assert status.Status == (0xB000 if found else 0xA702)
    assert numbers(status) == (len(ct) - len(lost), len(lost), 0)
    listed = failed.FailedSOPInstanceUIDList
    assert ({listed} if isinstance(listed, str) else set(listed)) == lost
    assert found.keys() == set(uids) - lost


def unreadable(session, blobs, uids, how):
    """Let the disk fail at the bytes of some objects: at their head, or behind it in the very first block."""
    session.rollback()
    for key in session.scalars(select(Instance.sha256).where(Instance.sop_instance_uid.in_(uids))):
        path = blobs.path(key)
        content = path.read_bytes()
        path.unlink()
        if how == "error":
            path.symlink_to("/proc/self/mem")  # opened like a file, read like a bad sector
        else:
            path.write_bytes(content[:140] if how == "no head" else b"\0" * 400)


@pytest.mark.parametrize("how", ["error", "no head", "zeros"])
@pytest.mark.parametrize("places", [[0], [1, 2], [4]])
def test_objects_that_the_disk_does_not_give_back_fail_alone(kept, ct, session, blobs, places, how):
    uids = [str(dcmread(path).SOPInstanceUID) for path in ct]
    lost = {uids[place] for place in places}
    unreadable(session, blobs, lost, how)
    (status, failed), found = got(kept.port, DOMINIQUE.study_uid, ExplicitVRLittleEndian)
    assert (status.Status, numbers(status)) == (0xB000, (len(ct) - len(lost), len(lost), 0))
    assert status.ErrorComment == "dicom-file"
    listed = failed.FailedSOPInstanceUIDList
    assert ({listed} if isinstance(listed, str) else set(listed)) == lost
    assert found.keys() == set(uids) - lost


@pytest.mark.parametrize("how", ["error", "zeros"])
def test_objects_that_the_disk_does_not_give_back_are_no_fault_of_the_destination(
    kept, ct, session, blobs, reader, how
):
    """Three in a row: a destination that breaks twice would be given up, and what follows with it."""
    uids = [str(dcmread(path).SOPInstanceUID) for path in ct]
    unreadable(session, blobs, set(uids[:3]), how)
    association = ask(kept.port, StudyMove)
    asked = identifier("STUDY", StudyInstanceUID=DOMINIQUE.study_uid)
    [*_, (status, failed)] = association.send_c_move(asked, "LECTEUR", StudyMove)
    association.release()
    assert (status.Status, numbers(status), status.ErrorComment) == (0xB000, (2, 3, 0), "dicom-file")
    assert set(failed.FailedSOPInstanceUIDList) == set(uids[:3])
    assert {str(dcmread(path).SOPInstanceUID) for path in reader.files} == set(uids[3:])


def test_an_object_that_cannot_be_converted_fails_alone(kept, ct, tmp_path):
    """Its compressed pixels are no pixels."""
    ds = dcmread(ct[0])
    ds.PixelData = encapsulate([b"no pixels at all"])
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{DOMINIQUE.study_uid}.1.56"
    ds.save_as(tmp_path / "broken.dcm", enforce_file_format=True)
    assert storescu(kept.port, tmp_path / "broken.dcm", option="-xy").returncode == 0
    (status, failed), found = got(kept.port, DOMINIQUE.study_uid, ExplicitVRLittleEndian)
    assert (status.Status, numbers(status)) == (0xB000, (5, 1, 0))
    assert status.ErrorComment == f"transfer-syntax-refused: {JPEGBaseline8Bit}"
    assert failed.FailedSOPInstanceUIDList == ds.SOPInstanceUID
    assert len(found) == 5


# ---- counts, cancel, broken peers


@pytest.fixture
def scripted(session, world):
    """A receiver whose answers a test decides; registered as SCRIPTED."""
    servers = []

    def start(handler):
        ae = AE("SCRIPTED")
        ae.add_supported_context(CTImageStorage, ExplicitVRLittleEndian)
        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, handler)])
        servers.append(server)
        register(session, world.partner, "SCRIPTED", server.server_address[1])

    yield start
    for server in servers:
        server.shutdown()


def test_pending_responses_count_and_the_last_one_names_what_failed(kept, scripted):
    answers = iter([0x0000, 0xB007, 0xA700, 0x0000, 0xC001])
    uids, heard = [], []

    def store(event):
        uids.append(str(event.request.AffectedSOPInstanceUID))
        heard.append((event.request.MoveOriginatorApplicationEntityTitle, event.request.MoveOriginatorMessageID))
        return next(answers)

    scripted(store)
    association = ask(kept.port, StudyMove)
    responses = list(
        association.send_c_move(
            identifier("STUDY", StudyInstanceUID=DOMINIQUE.study_uid), "SCRIPTED", StudyMove, msg_id=77
        )
    )
    association.release()
    pending = [(status.NumberOfRemainingSuboperations, *numbers(status)) for status, _ in responses[:-1]]
    assert {status.Status for status, _ in responses[:-1]} == {0xFF00}
    assert pending == [(4, 1, 0, 0), (3, 1, 0, 1), (2, 1, 1, 1), (1, 2, 1, 1)]
    status, failed = responses[-1]
    assert (status.Status, numbers(status)) == (0xB000, (2, 2, 1))
    assert list(failed.FailedSOPInstanceUIDList) == [uids[2], uids[4]]
    assert set(heard) == {(AE_TITLE, 77)}


def test_a_cancel_ends_the_move_after_the_object_under_way(kept, scripted):
    reached, go_on = threading.Event(), threading.Event()

    def store(event):
        reached.set()
        go_on.wait(60)
        return 0

    scripted(store)
    association = ask(kept.port, StudyMove)
    responses = association.send_c_move(
        identifier("STUDY", StudyInstanceUID=DOMINIQUE.study_uid), "SCRIPTED", StudyMove, msg_id=9
    )
    assert reached.wait(60)
    association.send_c_cancel(9, query_model=StudyMove)
    assert association.is_established
    assert wait_until(lambda: any(one.dimse.cancel_req for one in kept._server.active_associations))
    go_on.set()
    *_, (status, _) = responses
    association.release()
    assert status.Status == 0xFE00
    assert (status.NumberOfRemainingSuboperations, *numbers(status)) == (4, 1, 0, 0)


def test_a_cancel_ends_a_c_get_too(kept):
    association = ask(kept.port, StudyGet, roles=[(CTImageStorage, [ExplicitVRLittleEndian])])
    came = []

    def store(event):
        came.append(event)
        if len(came) == 2:
            association.send_c_cancel(9, query_model=StudyGet)
        return 0

    association.bind(evt.EVT_C_STORE, store)
    asked = identifier("STUDY", StudyInstanceUID=DOMINIQUE.study_uid)
    *_, (status, _) = association.send_c_get(asked, StudyGet, msg_id=9)
    assert status.Status == 0xFE00
    assert status.NumberOfRemainingSuboperations == 5 - status.NumberOfCompletedSuboperations
    assert status.NumberOfCompletedSuboperations in (2, 3)  # one may be on its way
    association.release()


def test_the_port_stops_during_a_move_and_its_caller_is_told_by_an_abort(kept, make_scp, scripted):
    reached, go_on = threading.Event(), threading.Event()

    def store(_):
        reached.set()
        go_on.wait(60)
        return 0

    scripted(store)
    port = make_scp(limits=Limits(drain_s=0.3))
    association = ask(port.port, StudyMove)
    asked = identifier("STUDY", StudyInstanceUID=DOMINIQUE.study_uid)
    responses = association.send_c_move(asked, "SCRIPTED", StudyMove)
    assert reached.wait(60)
    port.stop()
    go_on.set()
    *_, (last, _) = responses
    assert "Status" not in last
    assert wait_until(lambda: association.is_aborted or not association.is_established)


def test_no_log_names_a_patient(kept, reader, caplog):
    caplog.set_level("DEBUG")
    keys = ["QueryRetrieveLevel=PATIENT", "PatientID=000003"]
    assert dcmtk("findscu", kept.port, "-P", keys=[*keys, "PatientName=PAT-TROIS*"]).returncode == 0
    assert dcmtk("movescu", kept.port, "-P", "-aem", "LECTEUR", keys=keys).returncode == 0
    dcmtk("movescu", kept.port, "-P", "-aem", "INCONNU", keys=keys)
    dcmtk("movescu", kept.port, "-S", "-aem", "LECTEUR", keys=keys)
    got(kept.port, DOMINIQUE.study_uid, JPEGBaseline8Bit)
    assert len(reader.files) == 5
    said = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("gateway"))
    assert "transfer-syntax-refused" in said
    for word in ("000003", "TROIS", "DOMINIQUE", "1979", DOMINIQUE.study_uid):
        assert word not in said


def test_a_receiver_that_never_answers_costs_its_patience_and_the_port_lives_on(kept, make_scp, session, world):
    silent = socket.create_server(("127.0.0.1", 0))
    register(session, world.partner, "SILENT", silent.getsockname()[1])
    port = make_scp(Patience(negotiate_s=0.3))
    association = ask(port.port, StudyMove)
    *_, (status, failed) = association.send_c_move(
        identifier("STUDY", StudyInstanceUID=DOMINIQUE.study_uid), "SILENT", StudyMove
    )
    assert (status.Status, numbers(status), status.ErrorComment) == (0xA702, (0, 5, 0), "dicom-peer-unreachable")
    assert len(failed.FailedSOPInstanceUIDList) == 5
    silent.close()
    *_, (status, _) = association.send_c_move(
        identifier("STUDY", StudyInstanceUID=DOMINIQUE.study_uid), "SILENT", StudyMove
    )
    assert status.Status == 0xA702
    association.release()


def test_a_receiver_that_stops_reading_is_left_after_its_patience(make_scp, scripted, session, world, tmp_path):
    """Its answers never come: half a study is told as what it is."""
    never = threading.Event()
    scripted(lambda _: never.wait(60) and 0)
    port = make_scp(Patience(answer_s=0.3))
    assert storescu(port.port, *write_series(DOMINIQUE, tmp_path / "ct2")).returncode == 0
    association = ask(port.port, StudyMove)
    *_, (status, _) = association.send_c_move(
        identifier("STUDY", StudyInstanceUID=DOMINIQUE.study_uid), "SCRIPTED", StudyMove
    )
    never.set()
    association.release()
    assert (status.Status, numbers(status), status.ErrorComment) == (0xA702, (0, 5, 0), "dicom-peer-broken")


def test_a_caller_that_stops_reading_its_c_get_is_left_and_memory_stays_small(make_scp, tmp_path, world):
    world.session.commit()
    big = type(DOMINIQUE)(**{**_fields(DOMINIQUE), "slices": 12, "pixels": 512})
    assert storescu(make_scp().port, *write_series(big, tmp_path / "big")).returncode == 0
    port = make_scp(limits=Limits(drain_s=1, idle_s=1.0))
    role = item(0x54, len(CT).to_bytes(2, "big") + CT + b"\x00\x01")
    peer = Peer(
        port.port,
        context(1, StudyGet.encode(), EXPLICIT),
        context(3, CT, EXPLICIT),
        negotiated=role,
        calling=AE_TITLE.encode(),
    )
    request = command(
        element(0x0002, StudyGet.encode()),
        element(0x0100, b"\x10\x00"),
        element(0x0110, b"\x01\x00"),
        element(0x0700, b"\x00\x00"),
        element(0x0800, b"\x00\x00"),
    )
    uid = DOMINIQUE.study_uid.encode()
    uid += b"\0" * (len(uid) % 2)
    asked = b"\x08\x00\x52\x00CS\x06\x00STUDY " + b"\x20\x00\x0d\x00UI" + len(uid).to_bytes(2, "little") + uid
    tracemalloc.start()
    peer.send(p_data(pdv(1, COMMAND | LAST, request)) + p_data(pdv(1, LAST, asked)))
    assert peer.read()[0] == P_DATA  # the first object begins; then nothing more is read
    assert wait_until(lambda: not port._live())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    peer.close()
    assert peak < 4 << 20


def _fields(phantom) -> dict:
    return {name: getattr(phantom, name) for name in phantom.__dataclass_fields__}


def test_a_large_object_is_never_in_memory_whole(port, world, reader, ct, tmp_path):
    ds = dcmread(ct[0])
    ds.NumberOfFrames = 128
    ds.Rows = ds.Columns = 512
    ds.PixelData = bytes(64 << 20)
    ds.save_as(tmp_path / "large.dcm", enforce_file_format=True)
    assert storescu(port.port, tmp_path / "large.dcm").returncode == 0
    target = tmp_path / "got"
    target.mkdir()
    keys = ["QueryRetrieveLevel=STUDY", STUDY]
    tracemalloc.start()
    moved = dcmtk("movescu", port.port, "-S", "-aem", "LECTEUR", keys=keys)
    fetched = dcmtk("getscu", port.port, "-S", "+B", "-od", str(target), keys=keys)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (moved.returncode, fetched.returncode) == (0, 0)
    assert data_set(reader.files[0]) == data_set(next(target.iterdir())) == data_set(tmp_path / "large.dcm")
    assert peak < 8 << 20


def test_ten_thousand_uids_are_a_list_and_one_more_is_over_the_limit(kept, reader, ct):
    one = str(dcmread(ct[0]).SOPInstanceUID)
    association = ask(kept.port, StudyMove, syntaxes=(ImplicitVRLittleEndian,))
    many = [f"1.2.3.{number}" for number in range(9_999)] + [one]
    *_, (status, _) = association.send_c_move(identifier("IMAGE", SOPInstanceUID=many), "LECTEUR", StudyMove)
    assert (status.Status, numbers(status)) == (0x0000, (1, 0, 0))
    [(status, _)] = association.send_c_move(identifier("IMAGE", SOPInstanceUID=[*many, "1.2"]), "LECTEUR", StudyMove)
    assert (status.Status, status.ErrorComment) == (0xA900, "dicom-identifier: Liste de plus de 10000 UID.")
    association.release()
    assert len(reader.files) == 1


@pytest.mark.parametrize(
    "asked",
    [
        {"level": "STUDY"},
        {"level": "PATIENT", "PatientID": "000003"},
        {"level": "SERIES", "StudyInstanceUID": DOMINIQUE.study_uid},
        {"level": "STUDY", "StudyInstanceUID": "*"},
        {"level": "STUDY", "StudyInstanceUID": DOMINIQUE.study_uid, "SeriesInstanceUID": SERIES_UID},
        {"level": "SERIES", "StudyInstanceUID": ["1.2", "1.3"], "SeriesInstanceUID": SERIES_UID},
        {"level": "STUDY", "StudyInstanceUID": DOMINIQUE.study_uid, "PatientID": "A\0B"},
        {"level": "STUDY", "StudyInstanceUID": DOMINIQUE.study_uid, "IssuerOfPatientID": "1\0.2"},
    ],
)
def test_an_identifier_that_says_too_little_or_too_much_is_refused(kept, reader, asked):
    association = ask(kept.port, StudyMove)
    keys = {keyword: value for keyword, value in asked.items() if keyword != "level"}
    [(status, _)] = association.send_c_move(identifier(asked["level"], **keys), "LECTEUR", StudyMove)
    assert status.Status == 0xA900
    assert association.is_established
    association.release()
    assert reader.files == []


# ---- Orthanc


def test_orthanc_moves_a_study_to_itself(kept, orthanc, session, ct):
    statement = update(PartnerCredential).where(PartnerCredential.value == AE_TITLE)
    session.execute(statement.values(details={"host": "127.0.0.1", "port": orthanc.dicom_port}))
    session.commit()
    orthanc.put("/modalities/gateway", {"AET": "RCPGATEWAY", "Host": "127.0.0.1", "Port": kept.port})
    asked = {"Level": "Study", "Resources": [{"StudyInstanceUID": DOMINIQUE.study_uid}], "TargetAet": AE_TITLE}
    try:
        orthanc.post("/modalities/gateway/move", {**asked, "Synchronous": True})
    except urllib.error.HTTPError as refusal:
        raise AssertionError(refusal.read()) from refusal
    found = orthanc.post("/tools/find", {"Level": "Instance", "Query": {"StudyInstanceUID": DOMINIQUE.study_uid}})
    assert len(found) == 5
