"""Copies of a study without identity: who may, what becomes of each object, crashes, two workers."""

from __future__ import annotations

import threading
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from sqlalchemy import func, select, update

from gateway.dicom import translate
from gateway.dicom.copier import Copier
from gateway.dicom.drawing import Drawing
from gateway.errors import Conflict, NotFound
from gateway.fhir.represent import Representer
from gateway.model.imaging import Study
from gateway.model.imaging_copy import StudyCopy, StudyCopyObject, StudyCopyUid
from gateway.rcp import imaging, imaging_copies
from gateway.rcp.imaging import Content
from gateway.rcp.imaging_copies import BURNED_IN, CHARACTERISTICS
from gateway.rcp.ports import CopiedObject
from tests.image_samples import pacs
from tests.world import DOMAIN, audit_lines, build

STUDY = "1.2.250.1.999999.2026.9.7"


class Stopped(BaseException):
    """The process is killed here."""


class Scene:
    """A hospital whose PACS sent real objects of one study: two slices, an ultrasound that shows a name, a report."""

    def __init__(self, session, steps, blobs, drawing: Drawing, folder: Path) -> None:
        self.session, self.steps, self.blobs, self.folder = session, steps, blobs, folder
        self.world = build(session)
        self.record = self.world.record(value="000003", match_key="PATTROIS|DOMINIQUE|1979-03-28|F")
        self.dossier = self.world.dossier(self.record)
        session.commit()
        self.coordinator = self.world.caller(self.world.coordinator)
        self.copier = Copier(blobs, drawing)
        for number in (1, 2):
            self.keep("CT_small.dcm", number)
        self.keep("CT_small.dcm", 3, Modality="US", BurnedInAnnotation="YES")
        self.keep("reportsi.dcm", 4, Modality="SR")
        session.rollback()
        self.study = session.scalars(select(Study)).one()

    def keep(self, name: str, number: int, **said: object) -> None:
        ds = pydicom.dcmread(get_testdata_file(name))
        for keyword, value in {
            "StudyInstanceUID": STUDY,
            "SeriesInstanceUID": f"{STUDY}.{ds.SOPClassUID.rpartition('.')[2]}",
            "SOPInstanceUID": f"{STUDY}.1.{number}",
            "PatientName": "PAT-TROIS^DOMINIQUE",
            "PatientID": "000003",
            "IssuerOfPatientID": DOMAIN,
            "PatientBirthDate": "19790328",
            "PatientSex": "F",
            "InstanceNumber": number,
            **said,
        }.items():
            setattr(ds, keyword, value)
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        path = self.folder / f"{number}.dcm"
        ds.save_as(path, enforce_file_format=True)
        blob = self.blobs.put(path.read_bytes())
        facts = translate.read(path)
        assert self.steps.run(pacs(self.world), lambda step: imaging.keep(step, facts, self.content(blob))) is None

    @staticmethod
    def content(blob) -> Content:
        return Content(blob.sha256, blob.size_bytes)

    def ask(self, *options: str, who=None) -> StudyCopy:
        def verb(step):
            return imaging_copies.ask(step, self.dossier.id, self.study.id, options).id

        copy_id = self.steps.run(who or self.coordinator, verb)
        self.session.rollback()
        return self.session.get_one(StudyCopy, copy_id)

    def made(self, copy: StudyCopy, copier=None) -> StudyCopy:
        imaging_copies.make_due(self.steps, copier or self.copier)
        self.session.rollback()
        self.session.expire_all()
        return copy

    def handed(self, copy: StudyCopy, who=None) -> list[pydicom.Dataset]:
        def verb(step):
            return [one.sha256 for one in imaging_copies.hand_out(step, self.dossier.id, copy.id)[1]]

        found = self.steps.run(who or self.coordinator, verb)
        return [pydicom.dcmread(self.blobs.open(sha256)) for sha256 in found]


@pytest.fixture(scope="module")
def drawing():
    shared = Drawing(processes=1)
    yield shared
    shared.close()


@pytest.fixture
def scene(store, make_steps, blobs, drawing, tmp_path):
    with store.session() as session:
        yield Scene(session, make_steps(represent=Representer(blobs)), blobs, drawing, tmp_path)


def test_a_copy_holds_the_images_and_says_what_it_left_out(scene):
    copy = scene.made(scene.ask(CHARACTERISTICS))
    assert (copy.state, copy.secret) == ("faite", None)
    said = imaging_copies.summary(scene.session, copy.id)
    assert (said.copied, said.to_look_at) == (2, 0)
    assert said.left_out == {"incrustation": 1, "copy-not-an-image": 1}
    objects = scene.handed(copy)
    assert [one.InstanceNumber for one in objects] == [1, 2]
    assert {one.PatientID for one in objects} == {copy.pseudonym}
    assert {one.PatientSex for one in objects} == {"F"}
    [study_uid] = {one.StudyInstanceUID for one in objects}
    rows = scene.session.scalars(select(StudyCopyUid).where(StudyCopyUid.copy_id == copy.id)).all()
    table = {row.original: row.replacement for row in rows}
    assert table[STUDY] == study_uid != STUDY
    assert [table[f"{STUDY}.1.{number}"] for number in (1, 2)] == [one.SOPInstanceUID for one in objects]
    lines = [line for line in audit_lines(scene.session) if line["event"] in {"copie", "remise-copie"}]
    assert [(line["event"], line["object_id"]) for line in lines] == [("copie", STUDY), ("remise-copie", STUDY)]


def test_what_shows_who_it_is_is_copied_when_that_was_asked_for_and_said(scene):
    copy = scene.made(scene.ask(BURNED_IN))
    said = imaging_copies.summary(scene.session, copy.id)
    assert (said.copied, said.to_look_at, said.left_out) == (3, 1, {"copy-not-an-image": 1})


@pytest.mark.parametrize("who", ["requester", "treating"])
def test_who_does_not_organise_the_rcp_finds_nothing(scene, who):
    caller = scene.world.caller(getattr(scene.world, who))
    copy = scene.made(scene.ask())
    with pytest.raises(NotFound):
        scene.ask(who=caller)
    with pytest.raises(NotFound):
        scene.handed(copy, caller)
    with pytest.raises(NotFound):
        scene.steps.run(caller, lambda step: imaging_copies.copies(step.session, caller, scene.dossier.id))


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_killed_worker_s_copy_is_ended_by_the_next_with_the_same_uids(scene, after):
    class Killed:
        calls = 0

        def copy(self, sha256: str, **asked) -> CopiedObject:
            if self.calls == after:
                raise Stopped
            self.calls += 1
            return scene.copier.copy(sha256, **asked)

    copy = scene.ask()
    with pytest.raises(Stopped):
        scene.made(copy, Killed())
    scene.session.rollback()
    scene.session.expire_all()
    assert copy.state == "demandee"
    with pytest.raises(NotFound):
        scene.handed(copy)
    scene.made(copy)
    objects = scene.handed(copy)
    assert len(objects) == 2
    assert len({one.StudyInstanceUID for one in objects}) == 1


def test_two_workers_make_one_copy(scene):
    copy = scene.ask()
    together = threading.Barrier(2, timeout=30)

    class Slow:
        def copy(self, sha256: str, **asked) -> CopiedObject:
            if not together.broken:
                together.wait()
            return scene.copier.copy(sha256, **asked)

    threads = [threading.Thread(target=imaging_copies.make_due, args=(scene.steps, Slow())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    scene.session.rollback()
    scene.session.expire_all()
    assert copy.state == "faite"
    count = scene.session.scalar(select(func.count()).where(StudyCopyObject.copy_id == copy.id))
    assert count == 4
    assert len(scene.handed(copy)) == 2


def test_a_copy_that_meets_a_defect_does_not_hold_up_the_next(scene):
    copies = [scene.ask(), scene.ask()]
    spoilt = copies[0].pseudonym

    class Broken:
        def copy(self, sha256, **asked):
            if asked["pseudonym"] == spoilt:
                raise ZeroDivisionError
            return scene.copier.copy(sha256, **asked)

    with pytest.raises(ZeroDivisionError):
        scene.made(copies[0], Broken())
    scene.session.rollback()
    scene.session.expire_all()
    assert [one.state for one in copies] == ["demandee", "faite"]


def test_a_study_that_went_to_quarantine_is_neither_copied_nor_handed_out(scene):
    early = scene.made(scene.ask())
    late = scene.ask()
    scene.session.execute(update(Study).values(state="quarantaine", reason="naissance"))
    scene.session.commit()
    assert scene.made(late).state == "vide"
    with pytest.raises(NotFound):
        scene.handed(early)
    with pytest.raises(NotFound):
        scene.ask()


def test_a_study_is_copied_five_times_at_most(scene):
    for _ in range(5):
        scene.ask()
    with pytest.raises(Conflict) as refusal:
        scene.ask()
    assert refusal.value.code == "copies-nombreuses"
