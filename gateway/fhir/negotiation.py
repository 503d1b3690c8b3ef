"""What a request says of the form of its answer, and the headers that answers share.

[FHIR R4 http#mime-type, #general; spec fhir-fr 3.3]

Promises: pure functions of a request; what is not offered is refused by name (406, 415).
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

from starlette.requests import Request

from gateway.errors import InvalidContent, NotFound, Unsupported
from gateway.fhir.read import READABLE
from gateway.rcp.access import Caller
from gateway.web.request_id import request_id

__all__ = [
    "FHIR_JSON",
    "JSON_TYPES",
    "MEDIA",
    "NO_STORE",
    "PRIVATE",
    "asks_fhir",
    "here",
    "http_date",
    "number",
    "prefers",
    "require_json",
    "require_type",
]

FHIR_JSON = "application/fhir+json"
MEDIA = f"{FHIR_JSON}; charset=utf-8; fhirVersion=4.0"
JSON_TYPES = frozenset(
    {FHIR_JSON, "application/json", "application/json+fhir", "json", "text/json", "*/*", "application/*"}
)
NO_STORE = {"Cache-Control": "no-store"}
PRIVATE = {"Cache-Control": "private, no-cache"}


def require_type(kind: str) -> None:
    """Refuse a type that is not offered (404)."""
    if kind not in READABLE:
        raise NotFound("type-inconnu", "Type de ressource inconnu ou non offert par la passerelle.")


def here(caller: Caller, request: Request) -> Caller:
    """Return the caller as the trail knows him on this wire."""
    return caller.on("fhir", address=request.client.host if request.client else None, request_id=request_id())


def _accepted(request: Request) -> list[str]:
    asked = request.query_params.get("_format") or request.headers.get("accept") or "*/*"
    # A plus sign that was not escaped in a query arrives as a space.
    return [part.partition(";")[0].strip().lower().replace("fhir json", "fhir+json") for part in asked.split(",")]


def require_json(request: Request) -> None:
    """Refuse an answer format that is not offered (406)."""
    if not JSON_TYPES & set(_accepted(request)):
        raise Unsupported("format-refuse", "Seul le format application/fhir+json est offert.")


def asks_fhir(request: Request) -> bool:
    """Whether a Binary is wanted as a resource: its bytes go to whoever does not ask for FHIR [FHIR R4 binary#rest]."""
    return bool({FHIR_JSON, "json", "application/json+fhir"} & set(_accepted(request)))


def prefers(request: Request) -> str:
    """Tell what ``Prefer: return=`` asks for: representation, minimal or OperationOutcome."""
    for part in request.headers.get("prefer", "").replace(";", ",").split(","):
        name, _, value = part.strip().partition("=")
        if name == "return":
            return value
    return "representation" if request.url.path.rstrip("/") != "/fhir" else "minimal"


def number(request: Request, name: str, default: int) -> int:
    """Read a number of the query, or refuse it."""
    text = request.query_params.get(name, "")
    if text and (not text.isdecimal() or len(text) > 9):
        raise InvalidContent("parametre-valeur", f"Valeur invalide pour le paramètre « {name} ».")
    return int(text) if text else default


def http_date(moment: datetime) -> str:
    """Write an aware datetime as an HTTP date."""
    return format_datetime(moment.astimezone(UTC), usegmt=True)
