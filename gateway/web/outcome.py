"""What the HTTP wires answer to each category of error, in one table.

Promises: every `GatewayError` has exactly one HTTP status, and the few codes that HTTP names more precisely than a
category does (a body too large, too many requests) have theirs. It does not promise a body: FHIR answers an
OperationOutcome, a page answers a page.
"""

from __future__ import annotations

import math
from typing import Final

from gateway.errors import Conflict, GatewayError, InvalidContent, Unavailable

__all__ = ["STATUS_OF_CATEGORY", "STATUS_OF_CODE", "answer_headers", "http_status"]

STATUS_OF_CATEGORY: Final[dict[str, int]] = {
    "invalid-content": 400,
    "unknown-identity": 401,
    "not-found": 404,
    "forbidden": 403,
    "conflict": 409,
    "unsupported": 501,
    "unavailable": 503,
    "fault": 500,
}
"""Category of `gateway.errors` to status [RFC 9110 §15]."""

STATUS_OF_CODE: Final[dict[str, int]] = {
    "body-too-large": 413,
    "body-incomplete": 400,
    "body-encoding-unknown": 415,
    "method-not-offered": 405,
    "too-many-requests": 429,
    "not-acceptable": 406,
    "dicom-too-many": 413,
}
"""Codes for which HTTP has a more precise status than the category's [RFC 9110 §15.5, RFC 6585 §4]."""


def http_status(error: GatewayError) -> int:
    """Give the HTTP status of an error; the code wins over the category.

    Examples
    --------
    >>> from gateway.errors import NotFound
    >>> http_status(NotFound("dossier-unknown", "Dossier inconnu."))
    404
    """
    if error.code in STATUS_OF_CODE:
        return STATUS_OF_CODE[error.code]
    if isinstance(error, InvalidContent) and error.rule:
        return 422
    if isinstance(error, Conflict) and error.precondition:
        return 412
    return STATUS_OF_CATEGORY[error.category]


def answer_headers(error: GatewayError) -> dict[str, str]:
    """Give the headers that go with the status: ``Retry-After`` in whole seconds, with all that may be tried again.

    [RFC 9110 §10.2.3]
    """
    if not isinstance(error, Unavailable):
        return {}
    return {"Retry-After": str(max(1, math.ceil(error.retry_after_s or 1)))}
