"""The report as the national CDA R2 document CANCER-FRCP 2022.01, from its frozen facts.

Promises: the same facts give the same bytes; a document that leaves here passes the checks of
`gateway.documents.frcp_checks`, which look at what no national rule looks at; with the facts of a real meeting it is
accepted by the national schema and schematrons (proved in the contract tests, not run here: they are heavy and carry
no licence to be shipped). Not promised: that what the words say is true.
"""

from __future__ import annotations

from gateway.documents import cda, frcp_checks
from gateway.documents.frcp_header import CODE, header, title
from gateway.documents.frcp_sections import body
from gateway.documents.wording import report_parts
from gateway.rcp.report_content import ReportContent

__all__ = ["CODE", "MIME_TYPE", "render", "title"]

MIME_TYPE = "text/xml"


def render(content: ReportContent) -> bytes:
    """Write the document.

    Raises
    ------
    InvalidContent
        ``report-frcp`` with the numbers of the checks that failed: a fact is missing or contradicts another.
    """
    parts = report_parts(content)
    made = cda.document(*header(content), body(content, parts, cda.Entries(content.document_id)))
    return frcp_checks.require(made)
