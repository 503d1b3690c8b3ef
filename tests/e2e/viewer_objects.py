"""Objects for the viewer: charts of flat fields whose values are typed, pydicom's own files under our patient."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.sequence import Sequence
from pydicom.uid import (
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    RawDataStorage,
    generate_uid,
)

from gateway.demo.ct_phantom import DOMINIQUE, slice_data_set

STUDY = "1.2.250.1.999999.2026.5"
SIDE = 64
PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\n"
    b"trailer<</Root 1 0 R>>\n%%EOF\n"
)


class Folder:
    """Writes objects of one study, series by series."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.paths: list[Path] = []

    def add(self, ds: Dataset, series: int, number: int, description: str, **more: Any) -> str:
        """Name an object as the dossier's patient and put it into a series; give its SOP Instance UID."""
        head = slice_data_set(replace(DOMINIQUE, study_uid=STUDY), 0)
        for keyword in (
            *(
                "SpecificCharacterSet",
                "PatientName",
                "PatientID",
                "IssuerOfPatientID",
                "PatientBirthDate",
                "PatientSex",
                "StudyInstanceUID",
            ),
            *("StudyDate", "StudyTime", "StudyDescription", "AccessionNumber", "StudyID", "TimezoneOffsetFromUTC"),
        ):
            setattr(ds, keyword, getattr(head, keyword))
        ds.IssuerOfPatientIDQualifiersSequence = copy.deepcopy(head.IssuerOfPatientIDQualifiersSequence)
        ds.SeriesInstanceUID = f"{STUDY}.{series}"
        ds.SeriesNumber, ds.SeriesDescription = str(series), description
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{STUDY}.{series}.{number}"
        ds.InstanceNumber = str(number)
        for keyword, value in more.items():
            if value is None:
                ds.pop(keyword, None)
            else:
                setattr(ds, keyword, value)
        path = self.folder / f"{series:02}-{number:03}.dcm"
        ds.save_as(path, enforce_file_format=True)
        self.paths.append(path)
        return ds.SOPInstanceUID

    def chart(self, words: tuple[int, int, int, int], series: int, number: int, **more: Any) -> str:
        """A picture of four flat quarters, by their stored words: top left, top right, bottom left, bottom right."""
        ds = slice_data_set(replace(DOMINIQUE, study_uid=STUDY, pixels=SIDE), 0)
        bits = more.get("BitsAllocated", 16)
        quarters = np.array([words[:2], words[2:]], dtype=np.int64) % (1 << bits)
        ds.PixelData = np.kron(quarters, np.ones((SIDE // 2, SIDE // 2), np.int64)).astype(f"<u{bits // 8}").tobytes()
        ds["PixelData"].VR = "OB" if bits == 8 else "OW"
        # Without a place in the patient the numbers decide the order.
        unplaced = dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "WindowCenterWidthExplanation"))
        return self.add(ds, series, number, "Mire", **(unplaced | more))

    def slices(self, series: int, description: str, depths: list[float], **more: Any) -> list[str]:
        """Axial slices of the phantom at depths of our choice."""
        made = []
        for number, depth in enumerate(depths, 1):
            ds = slice_data_set(replace(DOMINIQUE, study_uid=STUDY, slices=len(depths)), number - 1)
            ds.FrameOfReferenceUID = f"{STUDY}.9"
            place = {"ImagePositionPatient": ["-192", "-192", str(depth)], "SliceLocation": str(depth)}
            made.append(self.add(ds, series, number, description, **(place | more)))
        return made

    def file(self, name: str, series: int, number: int, description: str, **more: Any) -> str:
        """One of pydicom's own files, its pixels untouched."""
        path = get_testdata_file(name)
        assert path is not None, name
        return self.add(dcmread(path), series, number, description, **more)

    def broken(self, series: int, number: int, description: str) -> str:
        """A JPEG-LS picture whose bytes end in the middle."""
        path = get_testdata_file("MR_small_jpeg_ls_lossless.dcm")
        assert path is not None
        ds = dcmread(path)
        ds.PixelData = ds.PixelData[:200] + b"\x00" * (len(ds.PixelData) - 200)
        ds["PixelData"].is_undefined_length = True
        assert ds.SOPClassUID == MRImageStorage
        return self.add(ds, series, number, description)

    def pdf(self, series: int, number: int, content: bytes = PDF) -> str:
        """An encapsulated PDF [PS3.3 A.45.1]."""
        return self._without_pixels(
            EncapsulatedPDFStorage,
            series,
            number,
            "Courriers",
            Modality="DOC",
            DocumentTitle="Courrier de sortie",
            MIMETypeOfEncapsulatedDocument="application/pdf",
            EncapsulatedDocument=content + b"\x00" * (len(content) % 2),
            EncapsulatedDocumentLength=len(content),
            BurnedInAnnotation="YES",
            ConceptNameCodeSequence=Sequence([]),
        )

    def unreadable(self, series: int, number: int) -> str:
        """An object that nobody can look at."""
        return self._without_pixels(RawDataStorage, series, number, "Données brutes", Modality="OT")

    def _without_pixels(self, sop_class: str, series: int, number: int, description: str, **more: Any) -> str:
        head = slice_data_set(replace(DOMINIQUE, study_uid=STUDY), 0)
        ds = Dataset()
        ds.file_meta = head.file_meta
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = sop_class
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SpecificCharacterSet = "ISO_IR 192"
        ds.InstanceCreatorUID = generate_uid(entropy_srcs=[description])
        return self.add(ds, series, number, description, **more)
