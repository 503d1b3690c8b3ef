"""Codes of DICOM as FHIR says them: regions of the body, coding schemes, coded concepts of a data set.

Promises: a term that no table of the standard names is left out, never guessed. [PS3.16 L-1; PS3.16 8-1]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from gateway.fhir.translate.elements import concept, without_empty

__all__ = ["BODY_PARTS", "DCM", "SNOMED", "body_site", "concepts", "laterality", "line", "person"]

Tree = dict[str, Any]

DCM: Final = "http://dicom.nema.org/resources/ontology/DCM"
SNOMED: Final = "http://snomed.info/sct"
_SCHEMES: Final[Mapping[str, str]] = {"SCT": SNOMED, "LN": "http://loinc.org", "DCM": DCM}
_SIDES: Final[Mapping[str, tuple[str, str]]] = {"L": ("7771000", "Left"), "R": ("24028007", "Right")}

#: Body Part Examined (0018,0015) → SNOMED CT code and meaning [PS3.16 L-1].
BODY_PARTS: Final[Mapping[str, tuple[str, str]]] = {
    "ABDOMEN": ("818981001", "Abdomen"),
    "ABDOMENPELVIS": ("818982008", "Abdomen and Pelvis"),
    "ADRENAL": ("23451007", "Adrenal gland"),
    "ANUS": ("53505006", "Anus"),
    "AORTA": ("15825003", "Aorta"),
    "AXILLA": ("91470000", "Axilla"),
    "BLADDER": ("89837001", "Bladder"),
    "BRAIN": ("12738006", "Brain"),
    "BREAST": ("76752008", "Breast"),
    "BRONCHUS": ("955009", "Bronchus"),
    "CERVIX": ("71252005", "Cervix"),
    "CHEST": ("816094009", "Chest"),
    "CHESTABDOMEN": ("416550000", "Chest and Abdomen"),
    "CHESTABDPELVIS": ("416775004", "Chest, Abdomen and Pelvis"),
    "CLAVICLE": ("51299004", "Clavicle"),
    "COCCYX": ("64688005", "Coccyx"),
    "COLON": ("71854001", "Colon"),
    "CSPINE": ("122494005", "Cervical spine"),
    "DUODENUM": ("38848004", "Duodenum"),
    "EAR": ("117590005", "Ear"),
    "ESOPHAGUS": ("32849002", "Esophagus"),
    "EYE": ("81745001", "Eye"),
    "FACE": ("89545001", "Face"),
    "FEMUR": ("71341001", "Femur"),
    "FINGER": ("7569003", "Finger"),
    "FOOT": ("56459004", "Foot"),
    "FOREARM": ("14975008", "Forearm"),
    "GALLBLADDER": ("28231008", "Gallbladder"),
    "HAND": ("85562004", "Hand"),
    "HEAD": ("69536005", "Head"),
    "HEADNECK": ("774007", "Head and Neck"),
    "HEART": ("80891009", "Heart"),
    "HIP": ("29836001", "Hip"),
    "HUMERUS": ("85050009", "Humerus"),
    "KIDNEY": ("64033007", "Kidney"),
    "KNEE": ("72696002", "Knee"),
    "LARYNX": ("4596009", "Larynx"),
    "LIVER": ("10200004", "Liver"),
    "LSPINE": ("122496007", "Lumbar spine"),
    "LUNG": ("39607008", "Lung"),
    "MAXILLA": ("70925003", "Maxilla"),
    "MEDIASTINUM": ("72410000", "Mediastinum"),
    "NECK": ("45048000", "Neck"),
    "NECKCHEST": ("417437006", "Neck and Chest"),
    "NECKCHESTABDOMEN": ("416152001", "Neck, Chest and Abdomen"),
    "NECKCHESTABDPELV": ("416319003", "Neck, Chest, Abdomen and Pelvis"),
    "NOSE": ("45206002", "Nose"),
    "ORBIT": ("363654007", "Orbit"),
    "OVARY": ("15497006", "Ovary"),
    "PANCREAS": ("15776009", "Pancreas"),
    "PAROTID": ("45289007", "Parotid gland"),
    "PELVIS": ("816092008", "Pelvis"),
    "PENIS": ("18911002", "Penis"),
    "PHARYNX": ("54066008", "Pharynx"),
    "PROSTATE": ("41216001", "Prostate"),
    "RECTUM": ("34402009", "Rectum"),
    "RIB": ("113197003", "Rib"),
    "SCAPULA": ("79601000", "Scapula"),
    "SCROTUM": ("20233005", "Scrotum"),
    "SHOULDER": ("16982005", "Shoulder"),
    "SKULL": ("89546000", "Skull"),
    "SPINE": ("421060004", "Spine"),
    "SPLEEN": ("78961009", "Spleen"),
    "SSPINE": ("54735007", "Sacrum"),
    "STERNUM": ("56873002", "Sternum"),
    "STOMACH": ("69695003", "Stomach"),
    "TESTIS": ("40689003", "Testis"),
    "THIGH": ("68367000", "Thigh"),
    "THYROID": ("69748006", "Thyroid"),
    "TRACHEA": ("44567001", "Trachea"),
    "TSPINE": ("122495006", "Thoracic spine"),
    "URETER": ("87953007", "Ureter"),
    "URETHRA": ("13648007", "Urethra"),
    "UTERUS": ("35039007", "Uterus"),
    "VAGINA": ("76784001", "Vagina"),
    "WHOLEBODY": ("38266002", "Entire body"),
}


def line(said: Any) -> str:
    """Write a value as one line of text without control characters; whatever it is."""
    words = " ".join(str(said).split()) if said is not None else ""
    return "".join(char for char in words if char.isprintable())


def person(said: Any) -> str:
    """Write a person's name of DICOM JSON as it is read."""
    name = said.get("Alphabetic") if isinstance(said, dict) else said
    return line(str(name or "").replace("^", " "))


def concepts(items: Iterable[Any]) -> list[Tree]:
    """Write items of a code sequence [PS3.3 8.8] as CodeableConcepts, each once."""
    found: list[Tree] = []
    for item in items:
        if not isinstance(item, dict):
            continue
        code, scheme, meaning = (_first(item, tag) for tag in ("00080100", "00080102", "00080104"))
        coding = without_empty(system=_SCHEMES.get(scheme), code=code, display=meaning)
        said = without_empty(coding=[coding] if code else None, text=meaning)
        if said and said not in found:
            found.append(said)
    return found


def _first(item: Mapping[str, Any], tag: str) -> str:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return line(values[0]) if isinstance(values, list) and values else ""


def body_site(part: str | None, regions: Iterable[Any]) -> Tree | None:
    """Code the region of a series: its coded region, else its body part, in SNOMED CT; else nothing."""
    for said in concepts(regions):
        coding = said.get("coding", [{}])[0]
        if coding.get("system") == SNOMED:
            return dict(coding)
    known = BODY_PARTS.get(line(part).upper().replace(" ", "")) if part else None
    return _coding(*known) if known else None


def laterality(side: str) -> Tree | None:
    """Code the side of a series (0020,0060)."""
    known = _SIDES.get(side.strip().upper())
    return _coding(*known) if known else None


def _coding(code: str, display: str) -> Tree:
    [coding] = concept(SNOMED, code, display)["coding"]
    return dict(coding)
