"""What the DocumentReferences of the gateway's own documents have in common: the report's and the care plan's.

[FHIR R4 documentreference; IHE MHD; PDSm 3.1.1; spec fhir-fr 1.19]

Promises: codes and identifiers are those of the frozen facts, as the document itself says them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from gateway.fhir.translate.elements import concept
from gateway.rcp.report_content import CodedValue, Identifier
from gateway.terminology import code_list, system_of_oid

__all__ = ["CLASS", "FORMAT", "SETTING", "frozen", "labels", "order", "study", "urn"]

Tree = dict[str, Any]

_NOS: Final = "https://mos.esante.gouv.fr/NOS"
#: Code systems of the class and of the format of a document.
CLASS: Final = f"{_NOS}/TRE_A03-ClasseDocument/FHIR/TRE-A03-ClasseDocument"
FORMAT: Final = f"{_NOS}/TRE_A06-FormatCodeComplementaire/FHIR/TRE-A06-FormatCodeComplementaire"
#: Where it was made: a hospital.
SETTING: Final = concept(f"{_NOS}/TRE_A01-CadreExercice/FHIR/TRE-A01-CadreExercice", "ETABLISSEMENT")
_VISIBILITY: Final = f"{_NOS}/TRE_A07-StatusVisibiliteDocument/FHIR/TRE-A07-StatusVisibiliteDocument"


def urn(said: Identifier) -> Tree:
    """Write an identifier of the document as FHIR does: a UUID or an OID as a URN, else root and extension."""
    if said.extension is None:
        scheme = "oid" if said.root.replace(".", "").isdigit() else "uuid"
        return {"system": "urn:ietf:rfc:3986", "value": f"urn:{scheme}:{said.root.lower()}"}
    return {"system": f"urn:oid:{said.root}", "value": said.extension}


def frozen(said: CodedValue | None) -> Tree | None:
    """Write a code as it was when the facts were frozen."""
    return concept(system_of_oid(said.system), said.code, said.label) if said is not None else None


def labels(visibility: Sequence[str]) -> list[Tree]:
    """Confidentiality of the document, then the flags of its visibility: those of the sending [spec mssante 6.1]."""
    known = code_list("JDV_J08")
    return [concept(_VISIBILITY, code, known.require(code).label) for code in ("N", *visibility)]


def study(uid: str) -> Tree:
    """Name a study, for ``context.related``."""
    return _related("urn:ihe:iti:xds:2016:studyInstanceUID", "urn:dicom:uid", f"urn:oid:{uid}")


def order(number: str) -> Tree:
    """Name the request that the document answers, for ``context.related``."""
    return _related("urn:ihe:iti:xds:2013:order", "urn:ietf:rfc:3986", number)


def _related(kind: str, system: str, value: str) -> Tree:
    return {
        "identifier": {
            "type": {"coding": [{"system": "urn:ietf:rfc:3986", "code": kind}]},
            "system": system,
            "value": value,
        }
    }
