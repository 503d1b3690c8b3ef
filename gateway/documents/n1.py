"""The report as a PDF in the envelope of a CDA (level N1): for software that files a document without reading its body.

Promises: the header is that of the structured report, under an identity of its own that is a function of the report's;
exactly the three template ids that the model allows; the bytes inside are those of the PDF, unchanged. What no national
rule looks at in a header is judged by the same checks as for the structured report.
`[CI-SIS structuration minimale]` `[spec cda-frcp 10]`
"""

from __future__ import annotations

from base64 import b64encode
from uuid import UUID, uuid5

from msgspec.structs import replace

from gateway.documents import cda, frcp_checks
from gateway.documents.cda import el
from gateway.documents.frcp_header import FRCP, header
from gateway.errors import Fault
from gateway.rcp.report_content import Identifier, ReportContent

__all__ = ["MIME_TYPE", "identity", "render"]

MIME_TYPE = "text/xml"
_MODEL = replace(
    FRCP,
    templates=(
        ("2.16.840.1.113883.2.8.2.1", None),
        ("1.2.250.1.213.1.1.1.1", None),
        ("1.3.6.1.4.1.19376.1.2.20", None),
    ),
)


def identity(report: Identifier) -> Identifier:
    """Give the identity of the N1 beside that of the report, of a version as of the set of versions.

    An OID gets one more arc, 0, which no version has; a UUID gives the UUID of version 5 of « N1 » in it; an identifier
    with an extension gets a longer one.
    """
    if report.extension is not None:
        return Identifier(report.root, f"{report.extension}-N1")
    try:
        space = UUID(report.root)
    except ValueError:
        return Identifier(f"{report.root}.0")
    return Identifier(str(uuid5(space, "N1")).upper())


def render(content: ReportContent, pdf: bytes) -> bytes:
    """Write the document around the bytes of the PDF.

    Raises
    ------
    InvalidContent
        ``report-frcp`` with the numbers of the checks that failed.
    Fault
        ``report-n1`` if the bytes are not those of a PDF.
    """
    if not pdf.startswith(b"%PDF-"):
        raise Fault("report-n1", "Le document à joindre au compte rendu n’est pas un PDF.")
    old = content.replaces
    own = replace(
        content,
        document_id=identity(content.document_id),
        set_id=identity(content.set_id),
        replaces=replace(old, document_id=identity(old.document_id)) if old else None,
    )
    text = el("text", text=b64encode(pdf).decode("ascii"), mediaType="application/pdf", representation="B64")
    made = cda.document(*header(own, model=_MODEL), el("component", el("nonXMLBody", text)))
    return frcp_checks.require(made, frcp_checks.HEADER_RULES)
