"""C-FIND: findscu, Orthanc and pynetdicom ask what their hospital may see; expected values are what was sent."""

import re
import threading

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation
from pynetdicom.sop_class import PatientRootQueryRetrieveInformationModelFind as PatientFind
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as StudyFind
from sqlalchemy import update

from gateway.demo.ct_phantom import DOMINIQUE, Phantom, write_series
from gateway.dicom import find
from gateway.model.partner import PartnerCredential
from tests.e2e.dicom.conftest import AE_TITLE, storescu
from tests.e2e.dicom.peers import FOREIGN, dcmtk, other_hospital
from tests.loopback import wait_until
from tests.world import audit_lines

ZOE = Phantom(
    patient_id="000077",
    issuer=DOMINIQUE.issuer,
    patient_name="LÉGER-NUÑEZ^Zoë",
    birth_date=FOREIGN.birth_date,
    sex="F",
    accession_number="ACC-Z-1",
    acquired_at=DOMINIQUE.acquired_at.replace(year=2025, month=12, day=31, hour=23),
    study_uid=DOMINIQUE.study_uid + ".700",
    slices=2,
)


@pytest.fixture
def kept(port, ct, world, tmp_path):
    world.session.commit()
    assert storescu(port.port, *ct, *write_series(ZOE, tmp_path / "zoe")).returncode == 0
    return port


def ask(
    port: int, model: str, level: str, *, calling: str = AE_TITLE, syntax=ExplicitVRLittleEndian, extended=None, **keys
):
    """Answers and last status of one question."""
    ae = AE(calling)
    ae.add_requested_context(model, [syntax])
    items = []
    if extended is not None:
        item = SOPClassExtendedNegotiation()
        item.sop_class_uid, item.service_class_application_information = model, extended
        items = [item]
    association = ae.associate("127.0.0.1", port, ae_title="RCPGATEWAY", ext_neg=items)
    assert association.is_established
    asked = Dataset()
    asked.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(asked, keyword, value)
    *answers, (last, _) = association.send_c_find(asked, model)
    granted = association.acceptor.sop_class_extended.get(model)
    association.release()
    return answers, last, granted


def studies(port: int, **keys) -> set[str]:
    answers, last, _ = ask(port, StudyFind, "STUDY", **({"StudyInstanceUID": ""} | keys))
    assert last.Status == 0x0000, last
    assert {status.Status for status, _ in answers} <= {0xFF00}
    return {str(data.StudyInstanceUID) for _, data in answers}


BOTH = {DOMINIQUE.study_uid, ZOE.study_uid}


def test_findscu_finds_a_study_with_what_it_asked_for(kept, ct):
    keys = ["QueryRetrieveLevel=STUDY", "PatientID=000003", "PatientName", "StudyInstanceUID", "StudyDate"]
    keys += ["ModalitiesInStudy", "NumberOfStudyRelatedInstances", "NumberOfStudyRelatedSeries", "InstitutionName"]
    result = dcmtk("findscu", kept.port, "-S", keys=keys)
    assert result.returncode == 0, result.stdout
    sent = dcmread(ct[0])
    answered = dict(
        re.findall(r"\((\w{4},\w{4})\) \w\w (?:\[(.*?)[\s\0]*\]|\(no value)", result.stdout.split("Pending")[-1])
    )
    assert answered["0020,000d"] == str(sent.StudyInstanceUID)
    assert answered["0010,0010"] == str(sent.PatientName)
    assert answered["0008,0020"] == sent.StudyDate
    assert answered["0008,0061"] == "CT"
    assert (answered["0020,1206"], answered["0020,1208"]) == ("1", "5")
    assert answered["0008,0052"] == "STUDY"
    assert answered["0008,0054"] == "RCPGATEWAY"
    assert answered["0008,0080"] == ""  # of no study: asked, so it comes back, empty


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, BOTH),
        ({"PatientName": "*"}, BOTH),
        ({"PatientName": "LEGER*"}, {ZOE.study_uid}),
        ({"PatientName": "l?ger-nunez^zoe"}, {ZOE.study_uid}),
        ({"PatientName": "PAT-TROIS^DOMINIQUE"}, {DOMINIQUE.study_uid}),
        ({"PatientName": "PAT-TROIS"}, set()),
        ({"PatientID": "00007?"}, {ZOE.study_uid}),
        ({"StudyDate": "20260305"}, {DOMINIQUE.study_uid}),
        ({"StudyDate": "20260101-"}, {DOMINIQUE.study_uid}),
        ({"StudyDate": "-20260101"}, {ZOE.study_uid}),
        ({"StudyDate": "20251231-20260305"}, BOTH),
        ({"StudyTime": "0900-1000"}, {DOMINIQUE.study_uid}),
        ({"StudyInstanceUID": [DOMINIQUE.study_uid, "1.2.3"]}, {DOMINIQUE.study_uid}),
        ({"AccessionNumber": "ACC-*"}, BOTH),
        ({"AccessionNumber": "ACC-Z-1"}, {ZOE.study_uid}),
        ({"ModalitiesInStudy": "CT"}, BOTH),
        ({"ModalitiesInStudy": "MR"}, set()),
        ({"PatientBirthDate": "19790328"}, {DOMINIQUE.study_uid}),
        ({"PatientSex": "F", "PatientID": "000003"}, {DOMINIQUE.study_uid}),
    ],
)
def test_studies_match_as_the_standard_says(kept, keys, expected):
    asked = dict(keys)
    if "PatientName" in asked and not asked["PatientName"].isascii():
        asked["SpecificCharacterSet"] = "ISO_IR 192"
    assert studies(kept.port, **asked) == expected


@pytest.mark.parametrize(
    ("character_set", "name", "answered"),
    [
        ("ISO_IR 192", "LÉGER*", "ISO_IR 192"),
        ("ISO_IR 100", "LÉGER*", "ISO_IR 100"),
        ("ISO_IR 144", "LEGER*", "ISO_IR 192"),  # Cyrillic holds no É
        (None, "LEGER*", "ISO_IR 192"),
    ],
)
def test_an_answer_is_in_the_questions_character_set_when_it_can_be(kept, character_set, name, answered):
    keys = {"SpecificCharacterSet": character_set} if character_set else {}
    [(_, found)], _, _ = ask(kept.port, StudyFind, "STUDY", **keys, PatientName=name)
    assert found.SpecificCharacterSet == answered
    assert str(found.PatientName) == "LÉGER-NUÑEZ^Zoë"
    [(_, found)], _, _ = ask(kept.port, StudyFind, "STUDY", **keys, PatientID="000003", PatientName="")
    assert "SpecificCharacterSet" not in found  # nothing but ASCII


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_every_level_of_both_models_answers_its_unique_keys(kept, ct, syntax):
    asked = {"syntax": syntax}
    answers, _, _ = ask(kept.port, PatientFind, "PATIENT", **asked, PatientID="", NumberOfPatientRelatedStudies="")
    assert {(data.PatientID, data.NumberOfPatientRelatedStudies) for _, data in answers} == {
        ("000003", 1),
        ("000077", 1),
    }
    answers, _, _ = ask(kept.port, PatientFind, "STUDY", **asked, PatientID="000077", StudyInstanceUID="")
    assert [(data.PatientID, data.StudyInstanceUID) for _, data in answers] == [("000077", ZOE.study_uid)]
    answers, _, _ = ask(
        kept.port,
        StudyFind,
        "SERIES",
        **asked,
        StudyInstanceUID=ZOE.study_uid,
        Modality="",
        NumberOfSeriesRelatedInstances="",
    )
    assert [(data.Modality, data.NumberOfSeriesRelatedInstances) for _, data in answers] == [("CT", 2)]
    [(_, series)] = answers
    answers, _, _ = ask(
        kept.port,
        StudyFind,
        "IMAGE",
        **asked,
        StudyInstanceUID=DOMINIQUE.study_uid,
        SeriesInstanceUID="",
        SOPInstanceUID="",
        InstanceNumber="",
    )
    sent = {(str(ds.SOPInstanceUID), str(ds.SeriesInstanceUID), int(ds.InstanceNumber)) for ds in map(dcmread, ct)}
    assert {
        (str(data.SOPInstanceUID), str(data.SeriesInstanceUID), int(data.InstanceNumber)) for _, data in answers
    } == sent
    answers, _, _ = ask(
        kept.port, StudyFind, "IMAGE", **asked, SeriesInstanceUID=series.SeriesInstanceUID, InstanceNumber="2"
    )
    assert [data.InstanceNumber for _, data in answers] == [2]


def test_a_key_that_cannot_be_matched_is_said_to_be(kept):
    answers, last, _ = ask(kept.port, StudyFind, "STUDY", PatientID="000003", InstitutionName="CHU X", Modality="CT")
    assert last.Status == 0x0000
    [(status, found)] = answers
    assert status.Status == 0xFF01
    assert (found.InstitutionName, found.Modality) == ("", "")  # neither is of a study


def test_extended_negotiation_grants_what_is_asked_and_offered(kept):
    assert ask(kept.port, StudyFind, "STUDY", extended=b"\x01\x01\x01\x01", PatientID="000003")[2] == b"\x01\x01\x01"
    assert ask(kept.port, StudyFind, "STUDY", extended=b"\x01\x00", PatientID="000003")[2] == b"\x01\x00"
    answers, _, _ = ask(
        kept.port, StudyFind, "STUDY", extended=b"\x00\x00\x01", PatientName="dominique pat", StudyInstanceUID=""
    )
    assert [data.StudyInstanceUID for _, data in answers] == [DOMINIQUE.study_uid]
    # Days and times as one interval: from 31 December 22:00 to 5 March 08:00.
    asked = {"StudyDate": "20251231-20260305", "StudyTime": "220000-080000", "StudyInstanceUID": ""}
    answers, _, _ = ask(kept.port, StudyFind, "STUDY", extended=b"\x00\x01", **asked)
    assert [data.StudyInstanceUID for _, data in answers] == [ZOE.study_uid]


def test_another_hospitals_images_do_not_exist(kept, session, world, tmp_path):
    other_hospital(session, world)
    assert storescu(kept.port, *write_series(FOREIGN, tmp_path / "theirs"), calling="CHUY_PACS").returncode == 0
    for model, level, keys in (
        (PatientFind, "PATIENT", {"PatientID": FOREIGN.patient_id}),
        (StudyFind, "STUDY", {"StudyInstanceUID": FOREIGN.study_uid}),
        (StudyFind, "SERIES", {"StudyInstanceUID": FOREIGN.study_uid, "SeriesInstanceUID": ""}),
        (StudyFind, "IMAGE", {"StudyInstanceUID": FOREIGN.study_uid, "SOPInstanceUID": ""}),
    ):
        answers, last, _ = ask(kept.port, model, level, **keys)
        assert (answers, last.Status) == ([], 0x0000)
        assert len(ask(kept.port, model, level, calling="CHUY_PACS", **keys)[0]) > 0
    assert studies(kept.port) == BOTH


def test_the_trail_names_whom_the_answers_name(port, ct, session, world):
    dossier = world.dossier(world.record(value="000003"))
    session.commit()
    assert storescu(port.port, *ct).returncode == 0
    assert studies(port.port, PatientID="000003") == {DOMINIQUE.study_uid}
    line = audit_lines(session)[-1]
    assert (line["event"], line["actor_id"], line["persons"]) == ("recherche", AE_TITLE, [str(dossier.record_id)])
    assert line["detail"] == {"service": "C-FIND", "matches": 1}
    assert studies(port.port, PatientID="NOBODY") == set()
    line = audit_lines(session)[-1]
    assert (line["event"], line["detail"]["matches"]) == ("recherche", 0)


@pytest.mark.parametrize(
    ("level", "keys", "comment"),
    [
        ("PATIENT", {}, "dicom-identifier"),  # no level of the study root
        ("", {}, "dicom-identifier"),
        ("STUDY", {"StudyDate": "2026"}, "dicom-query"),
        ("STUDY", {"StudyInstanceUID": "1.2.*"}, "dicom-query"),
        ("STUDY", {"StudyInstanceUID": [f"1.2.{number}" for number in range(1001)]}, "dicom-query"),
        ("IMAGE", {"PatientName": "x" * 2000}, "dicom-query"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_by_name(port, level, keys, comment):
    answers, last, _ = ask(port.port, StudyFind, level, syntax=ImplicitVRLittleEndian, **keys)
    assert (answers, last.Status) == ([], 0xA900)
    assert last.ErrorComment.startswith(comment)


def test_a_cancel_ends_the_answers(kept, monkeypatch):
    go_on, page = threading.Event(), find._page

    def slow(step, *, asked, offset):
        if offset:
            go_on.wait(60)
        return page(step, asked=asked, offset=offset)

    monkeypatch.setattr(find, "_PAGE", 1)
    monkeypatch.setattr(find, "_page", slow)
    ae = AE(AE_TITLE)
    ae.add_requested_context(StudyFind)
    association = ae.associate("127.0.0.1", kept.port, ae_title="RCPGATEWAY")
    asked = Dataset()
    asked.QueryRetrieveLevel = "IMAGE"
    asked.SOPInstanceUID = ""
    responses = association.send_c_find(asked, StudyFind, msg_id=5)
    first, _ = next(responses)
    association.send_c_cancel(5, query_model=StudyFind)
    assert wait_until(lambda: any(one.dimse.cancel_req for one in kept._server.active_associations))
    go_on.set()
    rest = [status.Status for status, _ in responses]
    assert (first.Status, rest) == (0xFF00, [0xFE00])
    assert association.is_established
    association.release()


def test_too_many_answers_are_cut_and_said(kept, monkeypatch):
    monkeypatch.setattr(find, "MAX_MATCHES", 4)
    monkeypatch.setattr(find, "_PAGE", 2)
    answers, last, _ = ask(kept.port, StudyFind, "IMAGE", SOPInstanceUID="")
    assert (len(answers), last.Status) == (4, 0xA700)
    assert last.ErrorComment.startswith("dicom-too-many: Plus de 4")


def test_orthanc_queries_and_retrieves(kept, orthanc, session, ct):
    where = {"host": "127.0.0.1", "port": orthanc.dicom_port}
    session.execute(update(PartnerCredential).where(PartnerCredential.value == AE_TITLE).values(details=where))
    session.commit()
    orthanc.put("/modalities/gateway", {"AET": "RCPGATEWAY", "Host": "127.0.0.1", "Port": kept.port})
    asked = {"Level": "Series", "Query": {"StudyInstanceUID": ZOE.study_uid, "Modality": "", "SeriesInstanceUID": ""}}
    query = orthanc.post("/modalities/gateway/query", asked)["ID"]
    [answer] = orthanc.get(f"/queries/{query}/answers?expand&simplify")
    assert (answer["Modality"], answer["StudyInstanceUID"]) == ("CT", ZOE.study_uid)
    orthanc.post(f"/queries/{query}/retrieve", {"TargetAet": AE_TITLE, "Synchronous": True})
    found = orthanc.post("/tools/find", {"Level": "Instance", "Query": {"StudyInstanceUID": ZOE.study_uid}})
    assert len(found) == 2
