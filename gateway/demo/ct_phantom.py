"""A small synthetic CT of the thorax, drawn from ellipses: the study that the demo's PACS sends.

Promises: deterministic bytes (the same series twice is the same files), Hounsfield values that look like a thorax at
the usual windows, and a fictitious patient. It resembles nobody: there is no real acquisition behind it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

__all__ = ["DOMINIQUE", "Phantom", "slice_data_set", "write_series"]

_AIR, _LUNG, _FAT, _MUSCLE, _BLOOD, _BONE, _NODULE = -1000, -820, -95, 45, 55, 420, 60

# Under the arc of the specification's fictitious study UIDs.
_ROOT: Final = "1.2.250.1.999999.2026.4.1"
_IMPLEMENTATION: Final = UID("2.25.92840271646104517893022947154811265403")


@dataclass(frozen=True, slots=True)
class Phantom:
    """Whom the series names, and how large it is.

    Parameters
    ----------
    patient_id, issuer
        The IPP and its domain: an OID (``urn:oid:…`` or bare) or a URI.
    """

    patient_id: str
    issuer: str
    patient_name: str
    birth_date: date
    sex: str
    accession_number: str = "ACC-2026-0417"
    acquired_at: datetime = field(default_factory=lambda: datetime.fromisoformat("2026-03-05T09:12:30+01:00"))
    study_uid: str = _ROOT
    slices: int = 5
    pixels: int = 128


DOMINIQUE: Final = Phantom(
    patient_id="000003",
    issuer="https://chu-x.example/ns/ipp",
    patient_name="PAT-TROIS^DOMINIQUE",
    birth_date=date(1979, 3, 28),
    sex="F",
)


def _hounsfield(phantom: Phantom, index: int) -> NDArray[np.int16]:
    """Draw one axial slice, head to feet with `index`; the left of the patient is on the right of the picture."""
    size = phantom.pixels
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    depth = index / max(phantom.slices - 1, 1)

    def ellipse(centre_x: float, centre_y: float, radius_x: float, radius_y: float) -> NDArray[np.bool_]:
        return np.asarray(((x - centre_x) / radius_x) ** 2 + ((y - centre_y) / radius_y) ** 2 <= 1)

    picture = np.full((size, size), _AIR, dtype=np.int16)
    picture[ellipse(0, 0.02, 0.86, 0.62)] = _FAT
    for side in (-1, 1):  # breasts, part of the outline in front
        picture[ellipse(0.38 * side, -0.52, 0.27, 0.20)] = _FAT
    picture[ellipse(0, 0.03, 0.78, 0.53)] = _MUSCLE
    lung = 0.30 + 0.03 * np.sin(np.pi * depth)
    for side in (-1, 1):
        picture[ellipse(0.40 * side, 0.0, lung, 0.42)] = _LUNG
        for vessel in range(4):
            angle = vessel * 1.6 + depth
            picture[ellipse(0.40 * side + 0.15 * np.cos(angle), 0.2 * np.sin(angle), 0.018, 0.018)] = _BLOOD
    picture[ellipse(0.10, -0.10, 0.16 + 0.10 * depth, 0.16 + 0.08 * depth)] = _BLOOD  # heart
    picture[ellipse(0.10, 0.26, 0.055, 0.055)] = _BLOOD  # descending aorta
    picture[ellipse(0, 0.40, 0.11, 0.10)] = _BONE  # vertebra
    picture[ellipse(0, 0.47, 0.04, 0.035)] = _MUSCLE  # spinal canal
    picture[ellipse(0, -0.47, 0.07, 0.03)] = _BONE  # sternum
    for rib in range(10):
        angle = rib * np.pi / 5 + 0.3 + depth / 3
        picture[ellipse(0.73 * np.cos(angle), 0.03 + 0.49 * np.sin(angle), 0.045, 0.025)] = _BONE
    nodule = 0.075 * (1 - abs(depth - 0.5) * 1.4)
    picture[ellipse(0.47, -0.55, nodule, nodule)] = _NODULE  # left breast, upper outer quadrant
    noise = np.random.default_rng(20260305 + index).normal(0, 12, picture.shape)
    return np.clip(picture + noise, -1024, 3071).astype(np.int16)


def _issuer(domain: str) -> Dataset:
    """Qualify the patient identifier's issuer `[PS3.3 10.14]`."""
    item = Dataset()
    oid = domain.removeprefix("urn:oid:")
    item.UniversalEntityID, item.UniversalEntityIDType = (oid, "ISO") if oid[:1].isdigit() else (domain, "URI")
    return item


# What every slice says, whoever the patient is. Soft tissue window first, lung second, as a console writes them.
_CONSTANT: Final[dict[str, object]] = {
    "SpecificCharacterSet": "ISO_IR 192",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "SOPClassUID": CTImageStorage,
    "Modality": "CT",
    "Manufacturer": "Fantôme synthétique",
    "InstitutionName": "CHU X (fictif)",
    "ReferringPhysicianName": "PERRIN^JULIEN",
    "StudyDescription": "TDM THORAX – bilan d’extension",
    "SeriesDescription": "Axial 5 mm",
    "BodyPartExamined": "CHEST",
    "SliceThickness": "5",
    "KVP": "120",
    "PatientPosition": "HFS",
    "StudyID": "417",
    "SeriesNumber": "1",
    "AcquisitionNumber": "1",
    "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
    "PositionReferenceIndicator": "",
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 16,
    "BitsStored": 12,
    "HighBit": 11,
    "PixelRepresentation": 0,
    "WindowCenter": ["40", "-600"],
    "WindowWidth": ["400", "1500"],
    "WindowCenterWidthExplanation": ["MEDIASTIN", "POUMON"],
    "RescaleIntercept": "-1024",
    "RescaleSlope": "1",
    "RescaleType": "HU",
}


def slice_data_set(phantom: Phantom, index: int) -> Dataset:
    """Build one CT Image Storage object `[PS3.3 A.3]`, Explicit VR Little Endian, UTF-8."""
    instance_uid = UID(f"{phantom.study_uid}.1.{index + 1}")
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = instance_uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = _IMPLEMENTATION

    ds = Dataset()
    ds.file_meta = meta
    for keyword, value in _CONSTANT.items():
        setattr(ds, keyword, value)
    for step in ("Study", "Series", "Acquisition", "Content"):
        setattr(ds, f"{step}Date", phantom.acquired_at.strftime("%Y%m%d"))
        setattr(ds, f"{step}Time", phantom.acquired_at.strftime("%H%M%S"))
    ds.TimezoneOffsetFromUTC = phantom.acquired_at.strftime("%z")
    ds.AccessionNumber = phantom.accession_number
    ds.PatientName = phantom.patient_name
    ds.PatientID = phantom.patient_id
    ds.IssuerOfPatientID = phantom.issuer[:64]
    ds.IssuerOfPatientIDQualifiersSequence = Sequence([_issuer(phantom.issuer)])
    ds.PatientBirthDate = phantom.birth_date.strftime("%Y%m%d")
    ds.PatientSex = phantom.sex
    ds.StudyInstanceUID = phantom.study_uid
    ds.SeriesInstanceUID = f"{phantom.study_uid}.1"
    ds.FrameOfReferenceUID = f"{phantom.study_uid}.9"
    ds.SOPInstanceUID = instance_uid
    ds.InstanceNumber = str(index + 1)
    ds.SliceLocation = str(-5 * index)
    ds.ImagePositionPatient = ["-192", "-192", ds.SliceLocation]
    ds.Rows = ds.Columns = phantom.pixels
    ds.PixelSpacing = [str(384 / phantom.pixels)] * 2
    ds.PixelData = (_hounsfield(phantom, index).astype(np.int32) + 1024).astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"
    return ds


def write_series(phantom: Phantom, folder: Path) -> list[Path]:
    """Write the series as Part 10 files, one a slice, and return them in order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(phantom.slices):
        path = folder / f"CT{index + 1:03d}.dcm"
        slice_data_set(phantom, index).save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths
