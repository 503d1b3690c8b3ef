"""How the gateway says what became of a request: HTTP status and OperationOutcome.

One total table from the categories of `gateway.errors` to HTTP and ``issue.code`` [FHIR R4 http#rejecting-updates],
refined by a second table for the stable codes that FHIR has a status of its own for, and by the statuses that every
HTTP wire answers alike (`gateway.web.outcome`). DECISIONS 10: 400 for what is
unreadable or structurally invalid, 422 for profiles, invariants and business rules.

Promises: every exception has an answer; the text is French, names no patient and quotes no content; the stable code
travels in ``details.coding`` so that clients need not read the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from gateway.errors import Conflict, Fault, GatewayError, InvalidContent
from gateway.fhir.document import encode
from gateway.web.outcome import STATUS_OF_CODE, answer_headers

__all__ = ["ERROR_SYSTEM", "InvalidResource", "Issue", "Refusals", "answer", "body", "issues", "told", "warning"]

ERROR_SYSTEM = "https://rcp.example.org/fhir/CodeSystem/rcp-erreur"

#: category → (HTTP status, issue.code [FHIR R4 valueset-issue-type])
CATEGORIES: dict[str, tuple[int, str]] = {
    "invalid-content": (400, "invalid"),
    "unknown-identity": (401, "login"),
    "not-found": (404, "not-found"),
    "forbidden": (403, "forbidden"),
    "conflict": (409, "conflict"),
    "unsupported": (405, "not-supported"),
    "unavailable": (503, "transient"),
    "fault": (500, "exception"),
}

#: stable code → (HTTP status, issue.code), where the protocol says more than the category does
CODES: dict[str, tuple[int, str]] = {
    "corps-trop-grand": (413, "too-long"),
    "trop-d-entrees": (413, "too-costly"),
    "document-trop-grand": (422, "too-costly"),
    "trop-d-elements": (413, "too-costly"),
    "json-illisible": (400, "structure"),
    "json-trop-profond": (400, "structure"),
    "json-nom-repete": (400, "structure"),
    "json-caractere": (400, "structure"),
    "xml-codage": (400, "structure"),
    "xml-doctype": (400, "structure"),
    "xml-espace-de-noms": (400, "structure"),
    "xml-illisible": (400, "structure"),
    "xml-trop-profond": (400, "structure"),
    "ressource-sans-type": (400, "structure"),
    "element-inconnu": (400, "structure"),
    "element-obligatoire": (400, "required"),
    "valeur-invalide": (400, "value"),
    "code-hors-liste": (400, "code-invalid"),
    "cible-de-reference": (400, "value"),
    "jeton-expire": (401, "expired"),
    "professionnel-inconnu": (422, "not-found"),
    "patient-inconnu": (422, "not-found"),
    "rcp-inconnue": (422, "not-found"),
    "ressource-supprimee": (410, "deleted"),
    "format-refuse": (406, "not-supported"),
    "type-de-contenu": (415, "not-supported"),
    "parametre-inconnu": (400, "not-supported"),
    "parametre-modificateur": (400, "not-supported"),
    "tri-non-offert": (400, "not-supported"),
    "inclusion-inconnue": (400, "not-supported"),
    "trop-de-parametres": (400, "too-costly"),
    "trop-de-tris": (400, "too-costly"),
    "recherche-trop-couteuse": (422, "too-costly"),
    "bundle-trop-long": (422, "too-costly"),
    "reponse-trop-grande": (422, "too-costly"),
    "page-alteree": (400, "value"),
    "page-d-une-autre-recherche": (400, "value"),
    "page-perimee": (410, "not-found"),
    "champ-invalide": (422, "value"),
    "champ-obligatoire": (422, "required"),
    "version-exigee": (428, "required"),
    "plusieurs-correspondances": (412, "multiple-matches"),
    "identifiant-deja-utilise": (409, "duplicate"),
    "profil-non-gere": (422, "not-supported"),
    "mode-inconnu": (400, "value"),
    "trop-d-operations": (413, "too-costly"),
    "patch-demesure": (413, "too-costly"),
    "patch-illisible": (400, "structure"),
    "patch-cible": (409, "not-found"),
    "etiquette-illisible": (400, "value"),
    "element-protege": (422, "business-rule"),
    "reference-supprimee": (422, "not-found"),
    "dicom-no-pixels": (406, "not-supported"),
    "dicom-compression": (406, "not-supported"),
    "dicom-colour-space": (406, "not-supported"),
    "dicom-presentation-kind": (406, "not-supported"),
}

#: status of what no HTTP wire takes → issue.code
ISSUE_OF_STATUS: dict[int, str] = {
    413: "too-long",
    429: "throttled",
    405: "not-supported",
    406: "not-supported",
    415: "not-supported",
}


class Issue(Struct, frozen=True, kw_only=True):
    """One ``OperationOutcome.issue``.

    ``rule`` tells a broken profile, invariant or business rule (422) from an unusable structure (400).
    """

    code: str
    text: str
    expression: str | None = None
    severity: str = "error"
    rule: bool = False


class InvalidResource(InvalidContent):
    """A resource with one or several faults, each kept with its place.

    Parameters
    ----------
    issues
        At least one; the first gives the category its code and text.
    """

    def __init__(self, issues: Sequence[Issue]) -> None:
        first = next((issue for issue in issues if not issue.rule), issues[0])
        super().__init__(first.code, first.text, expression=first.expression, rule=first.rule)
        self.issues = tuple(issues)


class Refusals(GatewayError):
    """What several parts of one request are refused for; the first gives the status.

    Parameters
    ----------
    errors
        At least one, in the order of the parts.
    """

    def __init__(self, errors: Sequence[GatewayError]) -> None:
        first = errors[0]
        super().__init__(first.code, first.text, expression=first.expression, retry_after_s=first.retry_after_s)
        self.errors = tuple(errors)
        self.trail = next((error.trail for error in errors if error.trail is not None), None)


def _pair(error: GatewayError) -> tuple[int, str]:
    if error.code in CODES:
        return CODES[error.code]
    if error.code in STATUS_OF_CODE:
        status = STATUS_OF_CODE[error.code]
        return status, ISSUE_OF_STATUS.get(status, "invalid")
    if isinstance(error, InvalidContent) and error.rule:
        return 422, "business-rule"
    if isinstance(error, Conflict) and error.precondition:
        return 412, "conflict"
    return CATEGORIES[error.category]


def answer(error: BaseException) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and OperationOutcome for whatever went wrong.

    An exception that is not a `GatewayError` is ours: it is answered 500 without its words.
    """
    known = error if isinstance(error, GatewayError) else Fault("erreur-interne", "Erreur interne de la passerelle.")
    refusals = known.errors if isinstance(known, Refusals) else (known,)
    known = refusals[0]
    status, _ = _pair(known)
    headers = answer_headers(known)
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="fhir"'
    return status, headers, body(issue for one in refusals for issue in issues(one))


def issues(error: GatewayError) -> list[dict[str, Any]]:
    """Issues that a refusal is told by."""
    if isinstance(error, InvalidResource):
        return [told(issue) for issue in error.issues]
    return [_entry("error", _pair(error)[1], error.code, error.text, error.expression)]


def told(issue: Issue) -> dict[str, Any]:
    """One fault or remark as an OperationOutcome tells it."""
    default = "invariant" if issue.code.startswith("invariant-") else "business-rule" if issue.rule else "invalid"
    return _entry(issue.severity, CODES.get(issue.code, (0, default))[1], issue.code, issue.text, issue.expression)


def warning(
    code: str, text: str, expression: str | None = None, *, issue_code: str = "not-supported"
) -> dict[str, Any]:
    """One warning issue, for answers that succeed with a remark."""
    return _entry("warning", issue_code, code, text, expression)


def _entry(severity: str, issue_code: str, code: str, text: str, expression: str | None) -> dict[str, Any]:
    issue: dict[str, Any] = {
        "severity": severity,
        "code": issue_code,
        "details": {"coding": [{"system": ERROR_SYSTEM, "code": code}], "text": text},
    }
    if expression:
        issue["expression"] = [expression]
    return issue


def body(entries: Iterable[dict[str, Any]]) -> bytes:
    """Encode an OperationOutcome."""
    return encode({"resourceType": "OperationOutcome", "language": "fr", "issue": list(entries)})
