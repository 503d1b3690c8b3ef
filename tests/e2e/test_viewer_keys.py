"""Key images: what a radiologist's Key Object Selection Document names, seen as a stack of just these.

The documents are written item by item as PS3.3 A.35.4 and template 2010 of PS3.16 lay them out.
"""

from __future__ import annotations

from dataclasses import replace

from pydicom import Dataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage,
    UltrasoundMultiFrameImageStorage,
)

from gateway.demo.ct_phantom import DOMINIQUE, slice_data_set
from tests.e2e.portal_house import House
from tests.e2e.viewer_objects import STUDY, Folder
from tests.e2e.viewer_screen import NBSP, PHONE

#: Whom the treating physician may not see: nothing ties this study to a dossier.
ELSEWHERE = "1.2.250.1.999999.2026.6"
ABSENT = "Cette image clé n’est pas dans la passerelle, ou elle ne vous est pas accessible."
WORDS = "Nodule du segment VI, <b>avant</b> chimiothérapie."


def item(**attributes: object) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def code(value: str, meaning: str) -> list[Dataset]:
    return [item(CodeValue=value, CodingSchemeDesignator="DCM", CodeMeaning=meaning)]


Key = tuple[str, str, str, str, list[int]]


def select(folder: Folder, number: int, title: tuple[str, str], words: str, keys: list[Key]) -> None:
    """Lay down a document that names keys: their study, series, class, UID, and frames."""
    head = slice_data_set(replace(DOMINIQUE, study_uid=STUDY), 0)
    ds = Dataset()
    ds.file_meta = head.file_meta
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = KeyObjectSelectionDocumentStorage
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.ValueType, ds.ContinuityOfContent = "CONTAINER", "SEPARATE"
    ds.ContentDate, ds.ContentTime = "20260305", "101500"
    ds.ConceptNameCodeSequence = code(*title)
    # The evidence is sorted as its writer likes; the order of the keys is that of the content.
    ds.CurrentRequestedProcedureEvidenceSequence = [
        item(
            StudyInstanceUID=study,
            ReferencedSeriesSequence=[
                item(
                    SeriesInstanceUID=series,
                    ReferencedSOPSequence=[item(ReferencedSOPClassUID=kind, ReferencedSOPInstanceUID=uid)],
                )
            ],
        )
        for study, series, kind, uid, _ in reversed(keys)
    ]
    observer = item(
        RelationshipType="HAS OBS CONTEXT",
        ValueType="PNAME",
        ConceptNameCodeSequence=code("121008", "Person Observer Name"),
        PersonName="RADIO^LOGUE",
    )
    described = item(
        RelationshipType="CONTAINS",
        ValueType="TEXT",
        ConceptNameCodeSequence=code("113012", "Key Object Description"),
        TextValue=words,
    )
    ds.ContentSequence = [observer, *([described] if words else [])]
    for _, _, kind, uid, frames in keys:
        named = item(ReferencedSOPClassUID=kind, ReferencedSOPInstanceUID=uid)
        if frames:
            named.ReferencedFrameNumber = frames
        ds.ContentSequence.append(item(RelationshipType="CONTAINS", ValueType="IMAGE", ReferencedSOPSequence=[named]))
    folder.add(ds, 8, number, "Sélections", Modality="KO")


def slice_key(number: int) -> Key:
    return STUDY, f"{STUDY}.1", CTImageStorage, f"{STUDY}.1.{number}", []


def selected(folder: Folder) -> None:
    folder.slices(1, "Axial 5 mm", [-5.0 * index for index in range(9)])
    folder.file("examples_ybr_color.dcm", 2, 1, "Boucle")
    stranger = {"PatientID": "INCONNU", "PatientName": "AUTRE^PERSONNE", "PatientBirthDate": "19500101"}
    folder.slices(9, "D’un autre", [0.0], **stranger, StudyInstanceUID=ELSEWHERE)
    keys = [
        slice_key(7),
        (STUDY, f"{STUDY}.2", UltrasoundMultiFrameImageStorage, f"{STUDY}.2.1", [5, 3]),
        slice_key(77),  # never sent to us
        slice_key(2),
        (ELSEWHERE, f"{STUDY}.9", CTImageStorage, f"{STUDY}.9.1", []),
    ]
    select(folder, 1, ("113003", "For Surgery"), WORDS, keys)
    select(folder, 2, ("113001", "Rejected for Quality Reasons"), "", [slice_key(4)])
    select(folder, 3, ("113000", "Of Interest"), "Rien de choisi.", [])


def test_key_images_are_a_stack_of_just_these_in_the_order_of_their_document(look, house: House) -> None:
    screen = look(selected)
    page = screen.page
    page.goto(page.url.split("/images")[0])
    offered = page.get_by_role("link", name="Images clés")
    assert offered.all_inner_texts() == ["Images clés (6) – For Surgery"]
    assert page.get_by_role("link", name="Images écartées").all_inner_texts() == [
        "Images écartées (1) – Rejected for Quality Reasons"
    ]
    offered.click()
    screen.wait(f"{STUDY}.1.7")
    assert screen.part("rang") == f"1{NBSP}/{NBSP}6"
    assert screen.part("cles-titre") == "For Surgery"
    assert screen.part("cles-texte") == WORDS
    assert screen.part("position") == f"position −30,0{NBSP}mm"
    for uid, frame in ((f"{STUDY}.2.1", 5), (f"{STUDY}.2.1", 3)):
        screen.press("ArrowDown")
        screen.wait(uid, frame=frame)
    screen.press("ArrowDown")
    page.wait_for_selector("[data-pane][data-etat=document]")
    assert screen.part("message").split("\n")[-1] == ABSENT
    screen.press("ArrowDown")
    screen.wait(f"{STUDY}.1.2")
    screen.press("End")
    page.wait_for_selector("[data-pane][data-etat=document]")
    # What exists, and is not his to see, is said in the very words of what does not.
    assert screen.part("message").split("\n")[-1] == ABSENT
    assert "AUTRE" not in page.content()
    # The page loaded again shows the selection again; another series is the whole of it, without its words.
    page.wait_for_url(lambda url: "cles=1" in url)
    page.reload()
    screen.wait(f"{STUDY}.1.7")
    page.get_by_role("link", name="Axial 5 mm").click()
    screen.wait(f"{STUDY}.1.1")
    assert screen.part("rang") == f"1{NBSP}/{NBSP}9"
    assert not screen.pane().locator("[data-part=cles]").is_visible()
    page.get_by_role("link", name="Images écartées (1)").click()
    screen.wait(f"{STUDY}.1.4")
    assert screen.part("rang") == f"1{NBSP}/{NBSP}1"
    assert page.locator("[aria-current]").inner_text().startswith("Images écartées (1)")
    # What is no selection, or nobody's, is the series and the 404 that it was.
    assert screen.visitor.go(f"{screen.base}?serie={STUDY}.1&objet={STUDY}.1.3&cles=1") == 200
    screen.wait(f"{STUDY}.1.3")
    assert screen.visitor.go(f"/dossiers/{house.hostile.id}/images?serie={STUDY}.8&objet={STUDY}.8.1&cles=1") == 404
    assert screen.said == []


def test_without_javascript_a_selection_is_read_as_the_report_that_it_is(look) -> None:
    screen = look(selected, viewport=PHONE, scripts=False)
    page = screen.page
    page.get_by_role("link", name="Images clés (6)").click()
    link = page.get_by_role("link", name="Ouvrir ce document")
    answer = page.request.get(screen.visitor.origin + link.get_attribute("href"), headers={"Accept": "text/html"})
    assert answer.status == 200
    assert "For Surgery" in answer.text()
    assert "&lt;b&gt;avant&lt;/b&gt;" in answer.text()
    assert f"{STUDY}.1.7/rendered" in answer.text()
