"""Peers that are neither dcmtk nor pynetdicom: dcmjs-dimse in JavaScript, odil in C++, each both ways.

What is expected is what the objects say to pydicom and to dcmtk's dcmdump; what came back is compared with the bytes
that the peer itself wrote.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from sqlalchemy import func, select, update

from gateway.demo.ct_phantom import DOMINIQUE, write_series
from gateway.exchange.outbox import Outcome
from gateway.model.imaging import Instance, QuarantinedObject
from gateway.model.partner import PartnerCredential
from tests.e2e.dicom import speakers
from tests.e2e.dicom.conftest import AE_TITLE, need, storescu
from tests.e2e.dicom.peers import data_set, data_sets, dcmtk, receiver, register
from tests.e2e.dicom.test_commitment import deliveries, due  # noqa: F401 - a fixture
from tests.e2e.dicom.test_find import ZOE
from tests.loopback import free_port

FILES = Path(pydicom.__file__).parent / "data" / "test_files"
#: Of each class and each syntax one: pictures, reports, a plan, an electrocardiogram.
SAMPLES = [
    FILES / name
    for name in (
        "MR_small_RLE.dcm",
        "JPEG2000.dcm",
        "examples_ybr_color.dcm",
        "rtplan.dcm",
        "reportsi.dcm",
        "test-SR.dcm",
        "waveform_ecg.dcm",
        "SC_rgb_jpeg_gdcm.dcm",  # of a class that is sent in another syntax already
    )
]
#: Of public groups but the first and the character set, at the top: of these types a peer changes nothing.
KEPT_ANEW = re.compile(r"\((?!0002|0008,0005)...[02468ace],....\) (UI|PN|LO|SH|DA|CS|US) \S")
STUDY = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": DOMINIQUE.study_uid}


@pytest.fixture
def here(port, world):
    """The port, which its hospital may call."""
    world.session.commit()
    return port


@pytest.fixture
def kept(here, ct, tmp_path):
    """Two studies, sent by dcmtk."""
    assert storescu(here.port, *ct, *write_series(ZOE, tmp_path / "zoe")).returncode == 0
    return here


@pytest.fixture
def script(tmp_path):
    with speakers.javascript(tmp_path / "javascript") as running:
        yield running


@pytest.fixture
def compiled(tmp_path):
    with speakers.odil(tmp_path / "odil") as running:
        yield running


@pytest.fixture(params=["dcmjs-dimse", "odil"])
def peer(request, tmp_path):
    """Each of both."""
    made = {"dcmjs-dimse": speakers.javascript, "odil": speakers.odil}[request.param]
    with made(tmp_path / "peer") as running:
        yield running


@pytest.fixture
def written(tmp_path) -> Path:
    folder = tmp_path / "written"
    folder.mkdir()
    return folder


def statuses(answer: dict) -> list[list[int]]:
    assert "error" not in answer, answer
    return [[said["status"] for said in one] for one in answer["answers"]]


def frames(ds: Dataset) -> list[bytes]:
    """Give its pictures as they are compressed, or all of its native pixels."""
    if "PixelData" not in ds:
        return []
    if not ds.file_meta.TransferSyntaxUID.is_encapsulated:
        return [ds.PixelData]
    return list(generate_frames(ds.PixelData, number_of_frames=int(ds.get("NumberOfFrames", 1))))


def dumped(path: Path) -> list[str]:
    """What dcmdump says of a file's identifiers, names, codes and sizes; numbers in text a peer may write anew."""
    command = [need("dcmdump"), "+L", "-q", "-Un", str(path)]
    said = subprocess.run(command, capture_output=True, check=True).stdout.decode("latin-1")
    found = [re.sub(r"\s*#.*$", "", line) for line in said.splitlines()]
    return [line for line in found if KEPT_ANEW.match(line)]


def test_objects_of_many_classes_come_back_as_the_peer_wrote_them(here, peer, written, tmp_path, session, world):
    stores = [{"kind": "store", "file": str(path)} for path in SAMPLES]
    for some in (stores[:-1], stores[-1:]):  # odil chooses a context by its class alone
        folder = written / str(len(some))
        folder.mkdir()
        answer = peer.send(here.port, {"kind": "echo"}, *some, written=str(folder))
        assert statuses(answer) == [[0x0000]] * (1 + len(some))
        for place, one in enumerate(some, 1):
            (folder / f"{place}.bytes").rename(written / Path(one["file"]).name)
    session.rollback()
    assert session.scalar(select(func.count()).select_from(QuarantinedObject)) == 0
    with receiver(tmp_path / "lecteur", "LECTEUR", "+xa") as reader:
        register(session, world.partner, "LECTEUR", reader.port)
        studies = {str(dcmread(path).StudyInstanceUID) for path in SAMPLES}
        for study in studies:
            keys = ["QueryRetrieveLevel=STUDY", f"StudyInstanceUID={study}"]
            assert dcmtk("movescu", here.port, "-S", "-aem", "LECTEUR", keys=keys).returncode == 0
        back = {str(dcmread(path).SOPInstanceUID): path for path in reader.files}
    assert len(back) == len(SAMPLES)
    for path in SAMPLES:
        sent, found = dcmread(path), back[dcmread(path).SOPInstanceUID]
        assert data_set(found) == (written / path.name).read_bytes(), path.name
        assert dumped(found) == dumped(path)
        assert frames(dcmread(found)) == frames(sent)
        if not sent.file_meta.TransferSyntaxUID.is_implicit_VR:  # of both, the other is taken when it is offered
            assert dcmread(found).file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID


def asked(level: str, model: str = "study", **keys: object) -> dict:
    return {"kind": "find", "model": model, "keys": {"QueryRetrieveLevel": level, **keys}}


def found(answer: dict, place: int, keyword: str) -> set:
    """What the answers to one question say for an attribute; each library says a lone value in its own way."""
    assert "error" not in answer, answer
    values = [one["said"][keyword] for one in answer["answers"][place] if one.get("said")]
    return {value[0] if isinstance(value, list) else value for value in values}


DOM_ACCESSION, ZOE_ACCESSION = DOMINIQUE.accession_number, ZOE.accession_number


def test_every_level_of_both_models_is_searched(kept, peer, ct):
    """All on one association: wildcards, intervals, lists, an accent, and what lies below a study."""
    series = {"StudyInstanceUID": ZOE.study_uid, "SeriesInstanceUID": "", "Modality": "C?"}
    image = {"StudyInstanceUID": DOMINIQUE.study_uid, "SeriesInstanceUID": f"{DOMINIQUE.study_uid}.1"}
    utf8 = {"SpecificCharacterSet": "ISO_IR 192"}
    questions = [
        (asked("STUDY", PatientName="PAT*", AccessionNumber=""), "AccessionNumber", {DOM_ACCESSION}),
        (asked("STUDY", PatientID="00007?", AccessionNumber=""), "AccessionNumber", {ZOE_ACCESSION}),
        (asked("STUDY", StudyDate="20251231-20260101", AccessionNumber=""), "AccessionNumber", {ZOE_ACCESSION}),
        (asked("STUDY", StudyDate="-20240101", AccessionNumber=""), "AccessionNumber", set()),
        (asked("STUDY", PatientName="leger*", AccessionNumber="", **utf8), "AccessionNumber", {ZOE_ACCESSION}),
        (asked("STUDY", PatientName="LÉGER-NUÑEZ^Zoë", AccessionNumber="", **utf8), "AccessionNumber", {ZOE_ACCESSION}),
        (
            asked("STUDY", StudyInstanceUID=[ZOE.study_uid, DOMINIQUE.study_uid], AccessionNumber=""),
            "AccessionNumber",
            {DOM_ACCESSION, ZOE_ACCESSION},
        ),
        (asked("SERIES", **series), "SeriesInstanceUID", {f"{ZOE.study_uid}.1"}),
        (
            asked("IMAGE", **image, SOPInstanceUID=""),
            "SOPInstanceUID",
            {str(dcmread(one).SOPInstanceUID) for one in ct},
        ),
        (asked("PATIENT", "patient", PatientID="", PatientName="PAT-TROIS*"), "PatientID", {"000003"}),
        (asked("STUDY", "patient", PatientID="000077", AccessionNumber=""), "AccessionNumber", {ZOE_ACCESSION}),
        (asked("SERIES", "patient", PatientID="000077", **series), "SeriesInstanceUID", {f"{ZOE.study_uid}.1"}),
        (
            asked("IMAGE", "patient", PatientID="000003", **image, InstanceNumber="2", SOPInstanceUID=""),
            "SOPInstanceUID",
            {str(one.SOPInstanceUID) for one in map(dcmread, ct) if one.InstanceNumber == 2},
        ),
    ]
    answer = peer.send(kept.port, *[question for question, _, _ in questions])
    for place, (question, keyword, expected) in enumerate(questions):
        assert found(answer, place, keyword) == expected, question


def test_a_name_with_accents_arrives_whole(kept, peer):
    question = asked("STUDY", PatientID="000077", PatientName="", SpecificCharacterSet="ISO_IR 192")
    [names] = [
        [one["said"]["PatientName"] for one in said if one.get("said")]
        for said in peer.send(kept.port, question)["answers"]
    ]
    assert names == [[{"Alphabetic": "LÉGER-NUÑEZ^Zoë"}]]


def test_objects_are_moved_to_who_asks(kept, script, ct, session, world):
    """Into the port that the library opens: as kept, byte for byte, at each level."""
    port = free_port()
    script.listen(port)
    register(session, world.partner, "SCRIPT", port)
    one = {"StudyInstanceUID": DOMINIQUE.study_uid, "SeriesInstanceUID": f"{DOMINIQUE.study_uid}.1"}
    moves = [
        STUDY,
        {"QueryRetrieveLevel": "SERIES", **one},
        {"QueryRetrieveLevel": "IMAGE", **one, "SOPInstanceUID": str(dcmread(ct[2]).SOPInstanceUID)},
    ]
    whole_patient = {"QueryRetrieveLevel": "PATIENT", "PatientID": "000077"}
    answer = script.send(
        kept.port,
        *[{"kind": "move", "destination": "SCRIPT", "keys": keys} for keys in moves],
        {"kind": "move", "destination": "SCRIPT", "model": "patient", "keys": whole_patient},
        {"kind": "move", "destination": "NOWHERE", "keys": STUDY},
    )
    assert [one[-1] for one in statuses(answer)] == [0x0000, 0x0000, 0x0000, 0x0000, 0xA801]
    assert [one[-1].get("completed") for one in answer["answers"][:4]] == [5, 5, 1, 2]
    taken = script.taken()
    assert len(taken) == 5 + 5 + 1 + 2
    assert {one.syntax for one in taken} == {ExplicitVRLittleEndian}
    assert {one.content for one in taken[:5]} == {one.content for one in taken[5:10]} == data_sets(ct)
    assert taken[10].content == data_set(ct[2])


def said_by(path: Path) -> tuple:
    ds = dcmread(path)
    return ds.SOPInstanceUID, str(ds.PatientName), ds.PixelData


def said_in(taken: speakers.Taken) -> tuple:
    ds = dcmread(BytesIO(taken.content), force=True)  # Implicit VR is found by its first element, Explicit too
    return ds.SOPInstanceUID, str(ds.PatientName), ds.PixelData


def test_objects_are_got_on_the_association_that_asks(kept, script, compiled, ct):
    """The first proposes every storage class as its receiver, Implicit VR before Explicit; the second only Explicit."""
    answer = script.send(kept.port, {"kind": "get", "keys": STUDY})
    *pending, last = answer["answers"][0]
    assert {one["status"] for one in pending} == {0xFF00}
    assert (last["status"], last["completed"], last["failed"], last["warning"]) == (0x0000, 5, 0, 0)
    assert {one.syntax for one in script.taken()} == {ImplicitVRLittleEndian}
    as_receiver = [[CTImageStorage, ExplicitVRLittleEndian]]
    assert compiled.send(kept.port, {"kind": "get", "keys": STUDY}, classes=as_receiver) == {
        "answers": [[{"completed": 5}]]
    }
    assert {one.syntax for one in compiled.taken()} == {ExplicitVRLittleEndian}
    for running in (script, compiled):
        assert sorted(map(said_in, running.taken())) == sorted(map(said_by, ct))


def commitment(paths: list[Path], transaction: str) -> dict:
    items = [
        {"ReferencedSOPClassUID": CTImageStorage, "ReferencedSOPInstanceUID": str(dcmread(one).SOPInstanceUID)}
        for one in paths
    ]
    return {"kind": "commit", "keys": {"TransactionUID": transaction, "ReferencedSOPSequence": items}}


def test_a_commitment_is_told_on_the_association_that_asked(kept, script, ct):
    answer = script.send(kept.port, commitment(ct, "1.2.3.4.5"), awaits=1)
    assert statuses(answer) == [[0x0000]]
    [report] = answer["reports"]
    assert (report["event"], report["said"]["TransactionUID"]) == (1, "1.2.3.4.5")
    named = {one["ReferencedSOPInstanceUID"] for one in report["said"]["ReferencedSOPSequence"]}
    assert named == {str(dcmread(one).SOPInstanceUID) for one in ct}


def test_a_commitment_is_told_where_its_asker_listens(kept, script, ct, session, deliveries):  # noqa: F811
    port = free_port()
    script.listen(port)
    where = update(PartnerCredential).where(PartnerCredential.value == AE_TITLE)
    session.execute(where.values(details={"host": "127.0.0.1", "port": port}))
    session.commit()
    answer = script.send(kept.port, commitment(ct, "1.2.3.4.6"))
    assert statuses(answer) == [[0x0000]]
    if not answer["reports"]:  # on a busy machine it leaves so late that it is told before
        assert deliveries.attempt(due(session).id) is Outcome.DELIVERED
    [report] = answer["reports"] or script.reports()
    assert (report["event"], report["said"]["TransactionUID"]) == (1, "1.2.3.4.6")


def certificate(authority: Path, name: str = "here", **more: str) -> dict:
    files = {"key": f"{name}.key", "certificate": f"{name}.pem", "authorities": "ca.pem"}
    return {kind: str(authority / file) for kind, file in files.items()} | {"more": more}


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_the_wire_is_tls_with_certificates_on_both_sides(secured, authority, script, ct, session, world, version):
    shown = certificate(authority, minVersion=version, maxVersion=version)
    stores = [{"kind": "store", "file": str(path)} for path in ct]
    assert statuses(script.send(secured.port, {"kind": "echo"}, *stores, tls=shown)) == [[0x0000]] * 6
    port = free_port()
    script.listen(port, tls=shown)
    register(session, world.partner, "LECTEUR", port)
    answer = script.send(secured.port, {"kind": "move", "destination": "LECTEUR", "keys": STUDY}, tls=shown)
    assert answer["answers"][0][-1]["status"] == 0x0000
    assert sorted(one.uid for one in script.taken()) == sorted(str(dcmread(path).SOPInstanceUID) for path in ct)


@pytest.mark.parametrize(
    "shown",
    [
        {"name": "foreign"},
        {"name": "expired"},
        {"minVersion": "TLSv1.1", "maxVersion": "TLSv1.1", "ciphers": "ALL:@SECLEVEL=0"},
    ],
    ids=["of another authority", "expired", "TLS 1.1"],
)
def test_without_a_good_handshake_nothing_is_answered(secured, authority, script, session, shown, ct):
    answer = script.send(secured.port, {"kind": "store", "file": str(ct[0])}, tls=certificate(authority, **shown))
    assert answer["answers"] == [[]]
    assert "error" in answer
    assert session.scalar(select(func.count()).select_from(Instance)) == 0
    assert statuses(script.send(secured.port, {"kind": "echo"}, tls=certificate(authority))) == [[0x0000]]


@pytest.mark.parametrize("pdu", [128, 1017, 1_000_001])
def test_a_peer_that_takes_only_so_much_at_a_time_gets_it_so(kept, script, ct, session, world, pdu):
    port = free_port()
    register(session, world.partner, "SCRIPT", port)
    moved = {"kind": "move", "destination": "SCRIPT", "keys": STUDY}
    question = asked("IMAGE", SOPInstanceUID="", StudyInstanceUID=DOMINIQUE.study_uid)
    assert len(script.send(kept.port, question, pdu=pdu)["answers"][0]) == 6
    script.listen(port)
    assert script.send(kept.port, moved, pdu=pdu)["answers"][0][-1]["status"] == 0x0000
    assert {one.content for one in script.taken()} == data_sets(ct)


def test_six_associations_at_once_each_get_their_own(here, script, tmp_path):
    """Stores, then searches and retrievals of several studies, interleaved by one process that waits for nobody."""
    studies = {
        phantom.study_uid: write_series(phantom, tmp_path / phantom.study_uid)
        for phantom in (
            replace(DOMINIQUE, study_uid=f"{DOMINIQUE.study_uid}.60{number}", accession_number=f"ACC-6{number}")
            for number in range(6)
        )
    }
    stores = [[{"kind": "echo"}, *({"kind": "store", "file": str(path)} for path in one)] for one in studies.values()]
    assert list(map(statuses, script.at_once(here.port, *stores))) == [[[0x0000]] * 6] * 6
    answers = script.at_once(
        here.port,
        *[
            [
                asked("STUDY", StudyInstanceUID=study, AccessionNumber="", NumberOfStudyRelatedInstances=""),
                {"kind": "get", "keys": {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": study}},
            ]
            for study in studies
        ],
    )
    for number, answer in enumerate(answers):
        assert statuses(answer) == [[0xFF00, 0x0000], [0xFF00] * 4 + [0x0000]]
        assert found(answer, 0, "AccessionNumber") == {f"ACC-6{number}"}
        assert found(answer, 0, "NumberOfStudyRelatedInstances") == {5}
    sent = [str(dcmread(path).SOPInstanceUID) for paths in studies.values() for path in paths]
    assert sorted(one.uid for one in script.taken()) == sorted(sent)


def test_what_is_negotiated_beside_contexts_does_no_harm(here, script):
    """A user identity that wants an answer, and five operations at once: neither is promised, both are lived with."""
    identity = {"type": 2, "positiveResponseRequested": True, "primaryField": "nom", "secondaryField": "secret"}
    assert (
        statuses(script.send(here.port, {"kind": "echo"}, {"kind": "echo"}, identity=identity, window=5))
        == [[0x0000]] * 2
    )


def test_who_is_not_registered_is_told_so(here, script):
    answer = script.send(here.port, {"kind": "echo"}, calling="ETRANGER")
    assert (answer["answers"], answer["rejected"]) == ([[]], {"result": 1, "source": 1, "reason": 3})
